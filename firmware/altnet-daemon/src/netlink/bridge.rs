//! Where a machine is plugged in: the ports of a bridge, as its forwarding database has learnt them
//! (IEEE 802.1Q section 8.8), and VLANs.
//!
//! Source: rtnetlink(7), linux/neighbour.h, linux/if_link.h, bridge(8).

use std::collections::BTreeMap;
use std::io;

use super::Netlink;
use super::message::{Attributes, Message};
use super::neighbour::Mac;

/// Bytes of `struct ndmsg` and of `struct ifinfomsg`.
const ENTRY_BYTES: usize = 12;
const LINK_BYTES: usize = 16;
/// Of linux/neighbour.h and linux/if_link.h, which libc leaves out with some C libraries.
const NDA_MASTER: u16 = 9;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
/// Attribute types without their flags (linux/netlink.h).
const TYPE: u16 = 0x3fff;

/// Where a machine is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The port's name: of the bridge, or the LAN's own interface if that is none.
    pub port: String,
    /// The VLAN, if there is one: of the bridge, or of the port or the LAN's interface itself.
    pub vlan: Option<u16>,
}

/// What a bridge has learnt: from which port a MAC address sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learnt {
    bridge: u32,
    port: u32,
    /// The MAC address.
    pub mac: Mac,
    vlan: Option<u16>,
    /// How long ago it sent last, in clock ticks.
    idle: u32,
}

/// What is asked of a link.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Link {
    name: String,
    lower: Option<u32>,
    vlan: Option<u16>,
    is_bridge: bool,
}

/// Reads an entry of a forwarding database that a bridge learnt by itself.
pub(super) fn learnt(body: &[u8]) -> Option<Learnt> {
    let (fixed, attributes) = body.split_at_checked(ENTRY_BYTES)?;
    let [family, _, _, _, i0, i1, i2, i3, s0, s1, ..] = *fixed else {
        return None;
    };
    // A port's own address is permanent.
    let is_own = u16::from_ne_bytes([s0, s1]) & libc::NUD_PERMANENT != 0;
    if i32::from(family) != libc::AF_BRIDGE || is_own {
        return None;
    }
    let (mut bridge, mut mac, mut vlan, mut idle) = (None, None, None, 0);
    for (kind, value) in Attributes(attributes) {
        match kind & TYPE {
            NDA_MASTER => bridge = value.try_into().ok().map(u32::from_ne_bytes),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            libc::NDA_VLAN => vlan = value.try_into().ok().map(u16::from_ne_bytes),
            // struct nda_cacheinfo: confirmed, used, updated, references.
            libc::NDA_CACHEINFO => {
                let updated = value.get(8..12).and_then(|ticks| ticks.try_into().ok());
                idle = updated.map_or(0, u32::from_ne_bytes);
            }
            _ => {}
        }
    }
    Some(Learnt {
        bridge: bridge?,
        port: u32::from_ne_bytes([i0, i1, i2, i3]),
        mac: mac?,
        vlan,
        idle,
    })
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link::default();
    for (kind, value) in Attributes(body.get(LINK_BYTES..)?) {
        match kind & TYPE {
            libc::IFLA_IFNAME => {
                let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(text).into_owned();
            }
            libc::IFLA_LINK => link.lower = value.try_into().ok().map(u32::from_ne_bytes),
            libc::IFLA_LINKINFO => {
                let info = |wanted| Attributes(value).find(|(kind, _)| kind & TYPE == wanted);
                let kind = info(libc::IFLA_INFO_KIND).map_or(&[][..], |(_, kind)| kind);
                let kind = kind.split(|byte| *byte == 0).next().unwrap_or_default();
                link.is_bridge = kind == b"bridge";
                if let (b"vlan", Some((_, data))) = (kind, info(IFLA_INFO_DATA)) {
                    let mut data = Attributes(data);
                    let id = data.find(|(kind, _)| kind & TYPE == IFLA_VLAN_ID);
                    link.vlan = id.and_then(|(_, id)| id.try_into().ok().map(u16::from_ne_bytes));
                }
            }
            _ => {}
        }
    }
    Some(link)
}

impl Netlink {
    /// Where machines on a LAN are plugged in, as far as its bridge has heard from them of late.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn places(&mut self, interface: u32, macs: &[Mac]) -> io::Result<BTreeMap<Mac, Place>> {
        let lan = self.link(interface)?;
        let Some((bridge, vlan)) = self.bridge_of(interface, &lan)? else {
            let (port, vlan) = (lan.name, lan.vlan);
            let here = |mac: &Mac| {
                let port = port.clone();
                (*mac, Place { port, vlan })
            };
            return Ok(macs.iter().map(here).collect());
        };
        let mut request = Message::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP as u16);
        let mut fixed = [0; ENTRY_BYTES];
        fixed[0] = libc::AF_BRIDGE as u8;
        request.bytes(&fixed);
        let mut found = BTreeMap::<Mac, Learnt>::new();
        self.dump(request, libc::RTM_NEWNEIGH, |body| {
            let Some(one) = learnt(body) else { return };
            let is_one = one.bridge == bridge && macs.contains(&one.mac) && fits(vlan, one.vlan);
            // In several VLANs it is where it was heard last.
            let is_newer = |known: &Learnt| one.idle < known.idle;
            if is_one && found.get(&one.mac).is_none_or(is_newer) {
                found.insert(one.mac, one);
            }
        })?;
        let placed = found.into_values();
        let placed = placed.map(|one| Ok((one.mac, self.place_of(one, &lan)?)));
        placed.collect()
    }

    /// The place that a bridge tells of, if it is one of a LAN's.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn place_told(&mut self, interface: u32, told: &Learnt) -> io::Result<Option<Place>> {
        let lan = self.link(interface)?;
        let is_lans = self
            .bridge_of(interface, &lan)?
            .is_some_and(|(bridge, vlan)| bridge == told.bridge && fits(vlan, told.vlan));
        is_lans.then(|| self.place_of(*told, &lan)).transpose()
    }

    fn place_of(&mut self, learnt: Learnt, lan: &Link) -> io::Result<Place> {
        let port = self.link(learnt.port)?;
        Ok(Place {
            vlan: learnt.vlan.or(lan.vlan).or(port.vlan),
            port: port.name,
        })
    }

    /// The bridge that a LAN's interface is, or is a VLAN of, and that VLAN.
    fn bridge_of(&mut self, interface: u32, lan: &Link) -> io::Result<Option<(u32, Option<u16>)>> {
        if lan.is_bridge {
            return Ok(Some((interface, None)));
        }
        let Some(lower) = lan.lower.filter(|_| lan.vlan.is_some()) else {
            return Ok(None);
        };
        let is_bridge = self.link(lower)?.is_bridge;
        Ok(is_bridge.then_some((lower, lan.vlan)))
    }

    fn link(&mut self, interface: u32) -> io::Result<Link> {
        // No dump flag: one answer, then the acknowledgement.
        let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_ACK as u16);
        message.bytes(&[libc::AF_UNSPEC as u8, 0, 0, 0]);
        message.bytes(&interface.to_ne_bytes());
        message.bytes(&[0; 8]);
        let mut found = None;
        self.dump(message, libc::RTM_NEWLINK, |body| found = link(body))?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// Whether an entry in a VLAN, or in none, is of the VLAN that is wanted, if one is.
fn fits(wanted: Option<u16>, vlan: Option<u16>) -> bool {
    wanted.is_none_or(|wanted| vlan.is_none_or(|vlan| vlan == wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::index_of;
    use crate::netlink::neighbour::{Told, heard, watch_neighbours};
    use crate::testing::{in_namespace, ip};
    use proptest::prelude::*;
    use std::io::Read;
    use std::process::Command;
    use std::time::Duration;

    #[test]
    fn a_machine_is_found_at_its_port_and_told_of_when_it_moves() {
        in_namespace(
            "a_machine_is_found_at_its_port_and_told_of_when_it_moves",
            async {
                let watched = watch_neighbours().unwrap();
                watched.set_nonblocking(false).unwrap();
                watched
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                let mac = [2, 0, 0, 0, 0, 0x77];
                let far = format!("ports-{}", std::process::id());
                ip(&format!("netns add {far}"));
                ip("link add lan0 type bridge");
                ip("link set lan0 up");
                for (port, end) in [("one", "far1"), ("two", "far2")] {
                    ip(&format!("link add {port} type veth peer name {end}"));
                    ip(&format!("link set {end} netns {far}"));
                    ip(&format!("link set {port} up"));
                }
                ip("link set one master lan0");
                ip("link set two master lan0");
                let lan = index_of("lan0").unwrap();
                let mut netlink = Netlink::open().unwrap();
                let mut buffer = [0; 8192];
                let mut moves_to = |end: &str, port: &str| {
                    ip(&format!(
                        "-n {far} link set {end} address 02:00:00:00:00:77"
                    ));
                    ip(&format!("-n {far} link set {end} up"));
                    let place = Some(Place {
                        port: port.into(),
                        vlan: None,
                    });
                    // A link that comes up says so on the wire (RFC 4861 section 6.3.7).
                    let mut is_told = false;
                    while !is_told {
                        let len = (&watched).read(&mut buffer).unwrap();
                        heard(&buffer[..len], &mut |told| {
                            if let Told::Port(told) = told
                                && told.mac == mac
                            {
                                is_told |= netlink.place_told(lan, &told).unwrap() == place;
                            }
                        });
                    }
                    assert_eq!(netlink.places(lan, &[mac]).unwrap().remove(&mac), place);
                };
                moves_to("far1", "one");
                ip(&format!("-n {far} link set far1 down"));
                moves_to("far2", "two");
                ip(&format!("netns delete {far}"));
                let mut netlink = Netlink::open().unwrap();
                assert!(netlink.places(lan, &[[2; 6]]).unwrap().is_empty());
                // An interface that is no bridge is its own only port.
                ip("link add plain type veth peer name end");
                let plain = netlink.places(index_of("plain").unwrap(), &[mac]).unwrap();
                let (port, vlan) = ("plain".into(), None);
                assert_eq!(plain, BTreeMap::from([(mac, Place { port, vlan })]));
            },
        );
    }

    /// Whether the kernel takes a change; not every one was built with VLANs.
    fn takes(words: &str) -> bool {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words).status().unwrap().success()
    }

    #[test]
    fn a_machine_is_found_in_its_vlan() {
        in_namespace("a_machine_is_found_in_its_vlan", async {
            let is_built = takes("ip link add lan0 type bridge vlan_filtering 1")
                && takes("ip link add vlans type veth peer name end")
                && takes("ip link add link vlans name vlans.7 type vlan id 7");
            if !is_built {
                eprintln!("this kernel has no VLANs: nothing was tested");
                return;
            }
            let watched = watch_neighbours().unwrap();
            watched.set_nonblocking(false).unwrap();
            let patience = Some(Duration::from_secs(10));
            watched.set_read_timeout(patience).unwrap();
            let far = format!("vlans-{}", std::process::id());
            ip(&format!("netns add {far}"));
            for (port, end) in [("one", "far1"), ("two", "far2")] {
                ip(&format!("link add {port} type veth peer name {end}"));
                ip(&format!("link set {port} up master lan0"));
                ip(&format!("link set {end} netns {far}"));
            }
            assert!(takes("bridge vlan add dev two vid 20 pvid untagged"));
            assert!(takes("bridge vlan add dev lan0 vid 20 self"));
            ip("link add link lan0 name lan0.20 type vlan id 20");
            ip("link set lan0 up");
            ip("link set lan0.20 up");
            // A bridge that knows of no VLANs, with a VLAN of a cable as a port.
            ip("link add lan1 type bridge");
            ip("link set vlans.7 master lan1");
            ip(&format!("link set end netns {far}"));
            ip(&format!(
                "-n {far} link add link end name end.7 type vlan id 7"
            ));
            for link in ["vlans", "vlans.7", "lan1"] {
                ip(&format!("link set {link} up"));
            }
            let mut netlink = Netlink::open().unwrap();
            let mut buffer = [0; 8192];
            for (last, end, lan, port, vlan) in [
                (1, "far1", "lan0", "one", 1),
                (2, "far2", "lan0.20", "two", 20),
                (3, "end.7", "lan1", "vlans.7", 7),
            ] {
                let mac = [2, 0, 0, 0, 0, last];
                ip(&format!("-n {far} link set end up"));
                ip(&format!(
                    "-n {far} link set {end} address 02:00:00:00:00:0{last}"
                ));
                ip(&format!("-n {far} link set {end} up"));
                let lan = index_of(lan).unwrap();
                let (port, vlan) = (port.into(), Some(vlan));
                let place = Place { port, vlan };
                // Each says something on the wire as it comes up.
                while netlink.places(lan, &[mac]).unwrap().get(&mac) != Some(&place) {
                    let _ = (&watched).read(&mut buffer).unwrap();
                }
            }
            let other = index_of("lan0.20").unwrap();
            let found = netlink.places(other, &[[2, 0, 0, 0, 0, 1]]).unwrap();
            assert_eq!(found, BTreeMap::new(), "found in a VLAN that it isn't in");
            ip(&format!("netns delete {far}"));
            let plain = netlink.places(index_of("lan1").unwrap(), &[]).unwrap();
            assert!(plain.is_empty());
        });
    }

    /// The body of a message: what is behind the header.
    fn body(fixed: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = Message::new(0, 0);
        message.bytes(fixed);
        for (kind, value) in attributes {
            message.attribute(*kind, value);
        }
        message.finish(0).split_off(16)
    }

    #[test]
    fn a_vlan_is_read_of_an_entry_and_of_a_link() {
        let nested = |pairs: &[(u16, &[u8])]| body(&[], pairs);
        let id = nested(&[(IFLA_VLAN_ID, &20u16.to_ne_bytes())]);
        let info = nested(&[
            (libc::IFLA_INFO_KIND, b"vlan\0"),
            (IFLA_INFO_DATA | 0x8000, &id),
        ]);
        let bytes = body(
            &[0; LINK_BYTES],
            &[
                (libc::IFLA_IFNAME, b"eth0.20\0"),
                (libc::IFLA_LINK, &7u32.to_ne_bytes()),
                (libc::IFLA_LINKINFO, &info),
            ],
        );
        let vlan = Link {
            name: "eth0.20".into(),
            lower: Some(7),
            vlan: Some(20),
            is_bridge: false,
        };
        assert_eq!(link(&bytes), Some(vlan));

        let mut fixed = [0; ENTRY_BYTES];
        fixed[0] = libc::AF_BRIDGE as u8;
        fixed[4..8].copy_from_slice(&3u32.to_ne_bytes());
        let attributes: [(u16, &[u8]); 4] = [
            (libc::NDA_LLADDR, &[2, 0, 0, 0, 0, 1]),
            (NDA_MASTER, &9u32.to_ne_bytes()),
            (libc::NDA_VLAN, &20u16.to_ne_bytes()),
            (
                libc::NDA_CACHEINFO,
                &[0, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0],
            ),
        ];
        let entry = Learnt {
            bridge: 9,
            port: 3,
            mac: [2, 0, 0, 0, 0, 1],
            vlan: Some(20),
            idle: u32::from_ne_bytes([5, 0, 0, 0]),
        };
        assert_eq!(learnt(&body(&fixed, &attributes)), Some(entry));
        // What a port says of its own address, and what is no bridge's.
        fixed[8..10].copy_from_slice(&libc::NUD_PERMANENT.to_ne_bytes());
        assert_eq!(learnt(&body(&fixed, &attributes)), None);
        fixed[8..10].fill(0);
        assert_eq!(learnt(&body(&fixed, &attributes[..1])), None);
        assert!(fits(None, Some(20)) && fits(Some(20), None) && fits(Some(20), Some(20)));
        assert!(!fits(Some(20), Some(21)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(mut bytes: Vec<u8>) {
            let _ = (learnt(&bytes), link(&bytes));
            if let Some(family) = bytes.first_mut() {
                *family = libc::AF_BRIDGE as u8;
            }
            let _ = learnt(&bytes);
        }
    }
}
