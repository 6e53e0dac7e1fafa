//! The routers that packets to everywhere are given to.
//!
//! Source: rtnetlink(7), linux/rtnetlink.h.

use std::io;
use std::net::IpAddr;

use super::Netlink;
use super::kinds::ip_address;
use super::message::{Attributes, Message};

/// Bytes of `struct rtmsg`, and of `struct rtnexthop`.
const FIXED_BYTES: usize = 12;
const HOP_BYTES: usize = 8;

/// A default gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address on the link.
    pub address: IpAddr,
    /// The index of the interface it is on.
    pub interface: u32,
    /// The smaller one wins among several.
    pub metric: u32,
}

impl Netlink {
    /// The default gateways of the main table, of both families, the preferred first.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn default_gateways(&mut self) -> io::Result<Vec<Gateway>> {
        let routes = self.default_routes()?;
        let mut found: Vec<Gateway> = routes.iter().filter_map(Route::gateway).collect();
        found.sort_by_key(|gateway| gateway.metric);
        Ok(found)
    }

    /// The interfaces that a default route of the main table leads through, of either family, also those at whose
    /// other end no router is named, as with PPP.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn default_interfaces(&mut self) -> io::Result<Vec<u32>> {
        let routes = self.default_routes()?;
        Ok(routes.iter().map(|route| route.interface).collect())
    }

    fn default_routes(&mut self) -> io::Result<Vec<Route>> {
        let mut found = Vec::new();
        // Apart, as a kernel without IPv6 refuses all families at once.
        for family in [libc::AF_INET, libc::AF_INET6] {
            let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16);
            let mut fixed = [0; FIXED_BYTES];
            fixed[0] = family as u8;
            message.bytes(&fixed);
            let listed = self.dump(message, libc::RTM_NEWROUTE, |body| {
                found.extend(default_route(body));
            });
            if family == libc::AF_INET {
                listed?;
            }
        }
        Ok(found)
    }
}

#[derive(Clone, Copy, Debug)]
struct Route {
    router: Option<IpAddr>,
    interface: u32,
    metric: u32,
}

impl Route {
    fn gateway(&self) -> Option<Gateway> {
        Some(Gateway {
            address: self.router?,
            interface: self.interface,
            metric: self.metric,
        })
    }
}

fn default_route(body: &[u8]) -> Option<Route> {
    let (fixed, attributes) = body.split_at_checked(FIXED_BYTES)?;
    // One for packets from a prefix alone counts: OpenWrt's default routes of IPv6 are so.
    if fixed[1] != 0 || fixed[4] != libc::RT_TABLE_MAIN || fixed[7] != libc::RTN_UNICAST {
        return None;
    }
    let (mut router, mut interface, mut metric) = (None, None, 0);
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::RTA_GATEWAY => router = ip_address(value),
            libc::RTA_OIF => interface = number(value),
            libc::RTA_PRIORITY => metric = number(value)?,
            // Of several with equal rights the first.
            libc::RTA_MULTIPATH => {
                let (hop, _) = value.split_at_checked(HOP_BYTES)?;
                interface = number(&hop[4..]);
                let length = usize::from(u16::from_ne_bytes([hop[0], hop[1]]));
                let attributes = value.get(HOP_BYTES..length).unwrap_or(&[]);
                let mut attributes = Attributes(attributes);
                let gateway = attributes.find(|(kind, _)| *kind == libc::RTA_GATEWAY);
                router = gateway.and_then(|(_, value)| ip_address(value));
            }
            _ => {}
        }
    }
    Some(Route {
        router,
        interface: interface?,
        metric,
    })
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().map(u32::from_ne_bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{in_namespace, ip};
    use proptest::prelude::*;

    #[test]
    fn default_gateways_come_the_preferred_first() {
        in_namespace("default_gateways_come_the_preferred_first", async {
            let mut netlink = Netlink::open().unwrap();
            assert_eq!(netlink.default_gateways().unwrap(), []);
            for words in [
                "link add wan0 type bridge",
                "link add wan1 type bridge",
                "link set wan0 up",
                "link set wan1 up",
                "address add 192.0.2.2/24 dev wan0",
                "address add 198.51.100.2/24 dev wan1",
                "route add 203.0.113.0/24 via 192.0.2.9",
                "route add default via 198.51.100.1 metric 20",
                "route add default via 192.0.2.1 metric 10",
                "route add default via 192.0.2.7 table 7",
                "-6 route add default via fe80::1 dev wan0 metric 1024",
            ] {
                ip(words);
            }
            let found = netlink.default_gateways().unwrap();
            let found: Vec<_> = found
                .iter()
                .map(|gateway| (gateway.address.to_string(), gateway.metric))
                .collect();
            let expected = [("192.0.2.1", 10), ("198.51.100.1", 20), ("fe80::1", 1024)];
            let expected = expected.map(|(address, metric)| (address.to_owned(), metric));
            assert_eq!(found, expected);

            // Where no router is named there is a way all the same.
            for words in [
                "link add wan2 type bridge",
                "link set wan2 up",
                "-6 route add default dev wan2 metric 2000",
            ] {
                ip(words);
            }
            assert_eq!(netlink.default_gateways().unwrap().len(), 3);
            let through = netlink.default_interfaces().unwrap();
            for name in ["wan0", "wan1", "wan2"] {
                let index = crate::link::index_of(name).unwrap();
                assert!(through.contains(&index), "{name}");
            }

            for words in [
                "route flush exact 0.0.0.0/0",
                "route add default nexthop via 198.51.100.1 nexthop via 192.0.2.1",
            ] {
                ip(words);
            }
            let first = netlink.default_gateways().unwrap()[0];
            assert_eq!(first.address, "198.51.100.1".parse::<IpAddr>().unwrap());
        });
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(mut bytes: Vec<u8>) {
            let _ = default_route(&bytes);
            if bytes.len() >= FIXED_BYTES {
                (bytes[1], bytes[4], bytes[7]) = (0, libc::RT_TABLE_MAIN, libc::RTN_UNICAST);
                let _ = default_route(&bytes);
            }
        }
    }
}
