//! Who is at an address on a LAN: the kernel's neighbour table (RFC 4861 section 5.1).
//!
//! Source: rtnetlink(7), linux/neighbour.h.

use std::io;
use std::net::Ipv6Addr;

use socket2::Socket;

use super::bridge::{Learnt, learnt};
use super::message::{Attributes, Message, split_message};
use super::{Netlink, subscribed};

/// Bytes of `struct ndmsg`.
const FIXED_BYTES: usize = 12;
/// The states in which a MAC address is known.
const KNOWN: u16 =
    libc::NUD_REACHABLE | libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE | libc::NUD_PERMANENT;

/// A MAC address.
pub type Mac = [u8; 6];

/// As people write it.
pub fn mac_text(mac: &Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// Reads it as people write it.
pub fn mac_of(text: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut octets = text.split(':');
    for octet in &mut mac {
        let text = octets
            .next()
            .filter(|text| text.len() == 2 && !text.starts_with('+'))?;
        *octet = u8::from_str_radix(text, 16).ok()?;
    }
    octets.next().is_none().then_some(mac)
}

/// A machine on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The interface's index.
    pub interface: u32,
    /// The machine's address.
    pub address: Ipv6Addr,
    /// Its MAC address.
    pub mac: Mac,
}

fn message(kind: u16, flags: u16, interface: u32, entry_flags: u8) -> Message {
    let mut message = Message::new(kind, flags);
    // Family, padding, interface, state, flags, type.
    message.bytes(&[libc::AF_INET6 as u8, 0, 0, 0]);
    message.bytes(&interface.to_ne_bytes());
    message.bytes(&[0, 0, entry_flags, 0]);
    message
}

/// Reads an entry whose MAC address is known.
fn neighbour(body: &[u8]) -> Option<Neighbour> {
    let (fixed, attributes) = body.split_at_checked(FIXED_BYTES)?;
    let [family, _, _, _, i0, i1, i2, i3, s0, s1, ..] = *fixed else {
        return None;
    };
    let state = u16::from_ne_bytes([s0, s1]);
    if i32::from(family) != libc::AF_INET6 || state & KNOWN == 0 {
        return None;
    }
    let (mut address, mut mac) = (None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::NDA_DST => address = <[u8; 16]>::try_from(value).ok(),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            _ => {}
        }
    }
    Some(Neighbour {
        interface: u32::from_ne_bytes([i0, i1, i2, i3]),
        address: address?.into(),
        mac: mac?,
    })
}

impl Netlink {
    /// The machines on a link whose MAC addresses are known.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn neighbours(&mut self, interface: u32) -> io::Result<Vec<Neighbour>> {
        let request = message(libc::RTM_GETNEIGH, libc::NLM_F_DUMP as u16, 0, 0);
        let mut found = Vec::new();
        self.dump(request, libc::RTM_NEWNEIGH, |body| {
            // Kernels before 4.4 don't filter.
            found.extend(neighbour(body).filter(|found| found.interface == interface));
        })?;
        Ok(found)
    }

    /// Has the kernel ask who is at an address (RFC 4861 section 7.2.2). The answer is for
    /// [`watch_neighbours`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn solicit(&mut self, interface: u32, address: Ipv6Addr) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let mut request = message(libc::RTM_NEWNEIGH, flags, interface, libc::NTF_USE);
        request.attribute(libc::NDA_DST, &address.octets());
        self.change(request)
    }
}

/// Opens a socket on which the kernel tells of neighbours: for [`heard`].
///
/// # Errors
/// What the kernel says.
pub fn watch_neighbours() -> io::Result<Socket> {
    subscribed(&[libc::RTNLGRP_NEIGH])
}

/// What the kernel tells of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// One is at an address.
    At(Neighbour),
    /// One is plugged in somewhere.
    Port(Learnt),
}

/// Gives `take` what bytes read from [`watch_neighbours`] tell.
pub fn heard(bytes: &[u8], take: &mut impl FnMut(Told)) {
    let mut rest = bytes;
    while let Some((header, body, behind)) = split_message(rest) {
        rest = behind;
        if header.kind == libc::RTM_NEWNEIGH {
            let told = neighbour(body).map(Told::At);
            told.or_else(|| learnt(body).map(Told::Port))
                .into_iter()
                .for_each(&mut *take);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip};
    use proptest::prelude::*;
    use std::io::Read;
    use std::time::Duration;

    #[test]
    fn a_machine_on_a_link_is_found_and_told_of() {
        in_namespace("a_machine_on_a_link_is_found_and_told_of", async {
            let watched = watch_neighbours().unwrap();
            watched.set_nonblocking(false).unwrap();
            let patience = Some(Duration::from_secs(10));
            watched.set_read_timeout(patience).unwrap();
            let mac = [2, 0, 0, 0, 0, 0x77];
            let far = format!("far-{}", std::process::id());
            ip("link add lan0 type veth peer name far0");
            ip("link set far0 address 02:00:00:00:00:77");
            ip(&format!("netns add {far}"));
            ip(&format!("link set far0 netns {far}"));
            ip("link set lan0 up");
            ip(&format!("-n {far} link set far0 up"));
            ip("address add fd00::1/64 dev lan0 nodad");
            ip(&format!("-n {far} address add fd00::77/64 dev far0 nodad"));
            let interface = crate::link::index_of("lan0").unwrap();
            let mut netlink = Netlink::open().unwrap();
            let wanted = Neighbour {
                interface,
                address: "fd00::77".parse().unwrap(),
                mac,
            };
            assert!(!netlink.neighbours(interface).unwrap().contains(&wanted));
            netlink.solicit(interface, wanted.address).unwrap();
            let mut buffer = [0; 4096];
            let mut is_told = false;
            while !is_told {
                let len = (&watched).read(&mut buffer).unwrap();
                heard(&buffer[..len], &mut |told| {
                    is_told |= told == Told::At(wanted)
                });
            }
            assert!(netlink.neighbours(interface).unwrap().contains(&wanted));
            assert!(netlink.neighbours(interface + 1).unwrap().is_empty());
            ip(&format!("netns delete {far}"));
        });
    }

    #[test]
    fn a_mac_address_reads_as_it_is_written() {
        let mac = [2, 0, 0xab, 0, 0, 0x7f];
        assert_eq!(mac_text(&mac), "02:00:ab:00:00:7f");
        assert_eq!(mac_of("02:00:ab:00:00:7f"), Some(mac));
        for bad in [
            "",
            "02:00:ab:00:00",
            "02:00:ab:00:00:7f:00",
            "2:0:ab:0:0:7f",
            "+2:00:ab:00:00:7f",
            "fd00::1",
        ] {
            assert_eq!(mac_of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_half_a_mac_address(text: String) {
            if let Some(mac) = mac_of(&text) {
                prop_assert_eq!(mac_text(&mac), text.to_lowercase());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = neighbour(&bytes);
            heard(&bytes, &mut |_| {});
        }
    }
}
