//! The few routing requests altnetd makes of the kernel, over NETLINK_ROUTE.
//!
//! Messages are built by hand (`message`): a handful of kinds (`kinds`) don't justify a crate that
//! knows every kind of link there is. Requests are synchronous; the kernel answers within the call.
//!
//! Source: rtnetlink(7), netlink(7).

use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

pub mod bridge;
pub mod gateway;
mod kinds;
mod message;
pub mod neighbour;

pub use kinds::{Act, Address, Reachable, Route, Rule, Via};
use kinds::{IFA_FLAGS, IFA_PROTO};
use message::{Attributes, Message, acknowledged, split_message};

/// The protocol number of altnetd's routes and addresses, so that a later altnetd finds what
/// a killed one left behind. From the range the kernel leaves to user space (above
/// `RTPROT_STATIC`), not in iproute2's list.
pub const OWN_PROTOCOL: u8 = 97;

const BUFFER_BYTES: usize = 32 * 1024;
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// A NETLINK_ROUTE socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Netlink {
    /// Opens a socket. Changes need CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(
            Domain::from(libc::AF_NETLINK),
            Type::RAW.cloexec(),
            Some(Protocol::from(libc::NETLINK_ROUTE)),
        )?;
        socket.set_read_timeout(Some(REPLY_TIMEOUT))?;
        Ok(Self {
            socket,
            sequence: 0,
            buffer: vec![0; BUFFER_BYTES],
        })
    }

    /// Sets an interface up, with an MTU in bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn bring_up(&mut self, interface: u32, mtu_bytes: Option<u32>) -> io::Result<()> {
        let up = libc::IFF_UP as u32;
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        // struct ifinfomsg: family, padding, type, index, flags, mask of flags to change.
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.bytes(&up.to_ne_bytes());
        message.bytes(&up.to_ne_bytes());
        if let Some(mtu) = mtu_bytes {
            message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        self.change(message)
    }

    /// Adds an address that needs no duplicate detection (it is derived or ours by record).
    /// Adding it twice is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_address(&mut self, address: Address) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        let mut message = address.message(libc::RTM_NEWADDR, flags);
        message.attribute(IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes());
        message.attribute(IFA_PROTO, &[OWN_PROTOCOL]);
        self.change(message)
    }

    /// Removes an address. Removing one that isn't there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_address(&mut self, address: Address) -> io::Result<()> {
        let result = self.change(address.message(libc::RTM_DELADDR, 0));
        ignore(result, &[libc::EADDRNOTAVAIL, libc::ENODEV])
    }

    /// Adds a route of ours. Adding it twice is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn add_route(&mut self, route: Route) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;
        self.change(route.message(libc::RTM_NEWROUTE, flags))
    }

    /// Removes a route of ours. Removing one that isn't there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_route(&mut self, route: Route) -> io::Result<()> {
        let result = self.change(route.message(libc::RTM_DELROUTE, 0));
        ignore(result, &[libc::ESRCH, libc::ENODEV])
    }

    /// Adds a rule of ours. Adding it twice is no error.
    ///
    /// # Errors
    /// What the kernel says; one that has only one routing table refuses.
    pub fn add_rule(&mut self, rule: Rule) -> io::Result<()> {
        let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
        let result = self.change(rule.message(libc::RTM_NEWRULE, flags));
        ignore(result, &[libc::EEXIST])
    }

    /// Removes a rule of ours. Removing one that isn't there is no error.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove_rule(&mut self, rule: Rule) -> io::Result<()> {
        let result = self.change(rule.message(libc::RTM_DELRULE, 0));
        ignore(result, &[libc::ENOENT])
    }

    /// The rules that an altnetd added; before Linux 4.17 nobody can tell, and none are.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn own_rules(&mut self) -> io::Result<Vec<Rule>> {
        let mut message = Message::new(libc::RTM_GETRULE, libc::NLM_F_DUMP as u16);
        let mut fixed = [0; 12];
        fixed[0] = libc::AF_INET6 as u8;
        message.bytes(&fixed);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWRULE, |body| {
            found.extend(kinds::own_rule(body));
        })?;
        Ok(found)
    }

    /// The IPv6 addresses on interfaces, each with whether an altnetd put it there; kernels
    /// before 5.18 don't keep that and say that none was.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn addresses(&mut self) -> io::Result<Vec<(Address, bool)>> {
        let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16);
        message.bytes(&[libc::AF_INET6 as u8, 0, 0, 0, 0, 0, 0, 0]);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWADDR, |body| {
            found.extend(kinds::address_and_owner(body));
        })?;
        Ok(found)
    }

    /// The routes that an altnetd added to the main table.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn own_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16);
        let mut fixed = [0; 12];
        fixed[0] = libc::AF_INET6 as u8;
        message.bytes(&fixed);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWROUTE, |body| {
            found.extend(kinds::own_route(body));
        })?;
        Ok(found)
    }

    /// The addresses that others could reach this machine at: global, and neither tentative,
    /// nor deprecated, nor temporary. Each with its interface's index, in the kernel's order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn reachable_addresses(&mut self) -> io::Result<Vec<Reachable>> {
        let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16);
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0, 0, 0, 0, 0]);
        let mut found = Vec::new();
        self.dump(message, libc::RTM_NEWADDR, |body| {
            found.extend(kinds::reachable_address(body));
        })?;
        Ok(found)
    }

    /// The MAC address of an interface, if it is an Ethernet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn mac_address(&mut self, interface: u32) -> io::Result<Option<[u8; 6]>> {
        // No dump flag: one answer, then the acknowledgement.
        let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_ACK as u16);
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.bytes(&[0; 8]);
        let mut found = None;
        self.dump(message, libc::RTM_NEWLINK, |body| {
            let attributes = body.get(16..).unwrap_or(&[]);
            let mut attributes = Attributes(attributes);
            let address = attributes.find(|(kind, _)| *kind == libc::IFLA_ADDRESS);
            found = address.and_then(|(_, value)| value.try_into().ok());
        })?;
        Ok(found)
    }

    fn change(&mut self, mut message: Message) -> io::Result<()> {
        message.flag(libc::NLM_F_ACK as u16);
        self.dump(message, 0, |_| {})
    }

    /// Sends a request and reads its answers: `each` sees the body of every message of type
    /// `kind`, until the end of a dump or an acknowledgement.
    fn dump(&mut self, message: Message, kind: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket.send(&message.finish(self.sequence))?;
        loop {
            let len = self.socket.read(&mut self.buffer)?;
            let mut rest = self.buffer.get(..len).unwrap_or(&[]);
            while let Some((header, body, behind)) = split_message(rest) {
                rest = behind;
                if header.sequence != self.sequence {
                    continue; // the answer to a request that timed out
                }
                match i32::from(header.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return acknowledged(body),
                    _ if header.kind == kind => each(body),
                    _ => {}
                }
            }
        }
    }
}

/// Opens a socket that becomes readable whenever a link, an address or an IPv4 route changes. What is
/// read from it need not be understood: it says "look again".
///
/// # Errors
/// What the kernel says.
pub fn watch() -> io::Result<Socket> {
    subscribed(&[
        libc::RTNLGRP_LINK,
        libc::RTNLGRP_IPV6_IFADDR,
        libc::RTNLGRP_IPV4_IFADDR,
        libc::RTNLGRP_IPV4_ROUTE,
    ])
}

/// Opens a socket to which the kernel tells what these groups are told.
fn subscribed(groups: &[u32]) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(libc::AF_NETLINK),
        Type::RAW.cloexec().nonblocking(),
        Some(Protocol::from(libc::NETLINK_ROUTE)),
    )?;
    bind(&socket)?;
    for group in groups {
        set_option(
            &socket,
            libc::SOL_NETLINK,
            libc::NETLINK_ADD_MEMBERSHIP,
            group,
        )?;
    }
    Ok(socket)
}

/// Has the kernel give a netlink socket an address. One without has number 0, the kernel's own,
/// and is passed over by what the kernel tells everybody but itself.
fn bind(socket: &Socket) -> io::Result<()> {
    // SAFETY: a plain C structure for which all zeros is a value.
    let mut address = unsafe { std::mem::zeroed::<libc::sockaddr_nl>() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    let len = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; `address` has `len` bytes that
    // the kernel only reads.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets a socket option that no crate names.
pub(crate) fn set_option<T: Copy>(
    socket: &impl AsRawFd,
    level: i32,
    name: i32,
    value: &T,
) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; `value` points to `len`
    // initialized bytes that the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn ignore(result: io::Result<()>, codes: &[i32]) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error().is_some_and(|code| codes.contains(&code)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip};

    #[test]
    fn a_link_that_comes_or_goes_is_announced() {
        in_namespace("a_link_that_comes_or_goes_is_announced", async {
            let changes = watch().unwrap();
            assert!((&changes).read(&mut [0; 4096]).is_err());
            changes.set_nonblocking(false).unwrap();
            changes
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            for words in [
                "link add lan0 type bridge",
                "link set lan0 up",
                "address add fd00::1/64 dev lan0 nodad",
                "address add 192.0.2.2/24 dev lan0",
                "route add default via 192.0.2.1",
                "link delete lan0",
            ] {
                ip(words);
                let said = (&changes).read(&mut [0; 4096]);
                assert!(said.is_ok(), "nothing was said of: ip {words}");
            }
        });
    }
}
