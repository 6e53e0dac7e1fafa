//! Addresses, routes and rules as rtnetlink writes them.
//!
//! Source: rtnetlink(7), linux/rtnetlink.h, linux/if_addr.h, linux/fib_rules.h.

use std::net::{IpAddr, Ipv6Addr};

use altnet_wire::address::Prefix;

use super::OWN_PROTOCOL;
use super::message::{Attributes, Message};

/// `IFA_PROTO` of linux/if_addr.h, since Linux 5.18; older kernels skip it.
pub(super) const IFA_PROTO: u16 = 11;
/// `IFA_FLAGS`: flags past the eight that the fixed part holds.
pub(super) const IFA_FLAGS: u16 = libc::IFA_FLAGS;
/// Of linux/fib_rules.h, which libc leaves out.
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
const FR_ACT_UNREACHABLE: u8 = 7;

/// What happens to packets that a route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// They go out of the interface with this index.
    Interface(u32),
    /// They are refused with an ICMPv6 unreachable.
    Unreachable,
}

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: Prefix,
    /// What happens.
    pub via: Via,
    /// The smaller one wins among routes to the same prefix.
    pub metric: u32,
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface's index.
    pub interface: u32,
    /// The address.
    pub address: Ipv6Addr,
    /// The length of the prefix that is on the link.
    pub prefix_bits: u8,
}

/// What a rule has done with the packets it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// They take the main table's routes, but no default route of it; without one, the next
    /// rule counts.
    SpecificRoutes,
    /// They are refused with an ICMPv6 unreachable.
    Unreachable,
}

/// A routing rule about packets from `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The prefix of their source addresses.
    pub source: Prefix,
    /// What happens to them.
    pub act: Act,
    /// The smaller one comes first; the main table has 32766.
    pub priority: u32,
}

impl Address {
    pub(super) fn message(&self, kind: u16, flags: u16) -> Message {
        let mut message = Message::new(kind, flags);
        // struct ifaddrmsg: family, prefix length, flags, scope, index.
        message.bytes(&[
            libc::AF_INET6 as u8,
            self.prefix_bits,
            0,
            libc::RT_SCOPE_UNIVERSE,
        ]);
        message.bytes(&self.interface.to_ne_bytes());
        message.attribute(libc::IFA_ADDRESS, &self.address.octets());
        message
    }
}

impl Route {
    pub(super) fn message(&self, kind: u16, flags: u16) -> Message {
        let route_type = match self.via {
            Via::Interface(_) => libc::RTN_UNICAST,
            Via::Unreachable => libc::RTN_UNREACHABLE,
        };
        let mut message = Message::new(kind, flags);
        // struct rtmsg: family, destination and source lengths, tos, table, protocol, scope,
        // type, flags.
        message.bytes(&[
            libc::AF_INET6 as u8,
            self.destination.bits(),
            0,
            0,
            libc::RT_TABLE_MAIN,
            OWN_PROTOCOL,
            libc::RT_SCOPE_UNIVERSE,
            route_type,
        ]);
        message.bytes(&[0; 4]);
        message.attribute(libc::RTA_DST, &self.destination.address().octets());
        message.attribute(libc::RTA_PRIORITY, &self.metric.to_ne_bytes());
        if let Via::Interface(index) = self.via {
            message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        }
        message
    }
}

impl Rule {
    pub(super) fn message(&self, kind: u16, flags: u16) -> Message {
        let (table, act) = match self.act {
            Act::SpecificRoutes => (libc::RT_TABLE_MAIN, FR_ACT_TO_TBL),
            Act::Unreachable => (libc::RT_TABLE_UNSPEC, FR_ACT_UNREACHABLE),
        };
        let mut message = Message::new(kind, flags);
        // struct fib_rule_hdr: family, destination and source lengths, tos, table, two
        // reserved, action, flags.
        let [family, source_bits] = [libc::AF_INET6 as u8, self.source.bits()];
        message.bytes(&[family, 0, source_bits, 0, table, 0, 0, act]);
        message.bytes(&[0; 4]);
        message.attribute(FRA_SRC, &self.source.address().octets());
        message.attribute(FRA_PRIORITY, &self.priority.to_ne_bytes());
        message.attribute(FRA_PROTOCOL, &[OWN_PROTOCOL]);
        if self.act == Act::SpecificRoutes {
            message.attribute(FRA_SUPPRESS_PREFIXLEN, &0u32.to_ne_bytes());
        }
        message
    }
}

pub(super) fn address_and_owner(body: &[u8]) -> Option<(Address, bool)> {
    let (fixed, attributes) = body.split_at_checked(8)?;
    let mut address = None;
    let mut is_own = false;
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::IFA_ADDRESS => address = <[u8; 16]>::try_from(value).ok(),
            IFA_PROTO => is_own = value == [OWN_PROTOCOL],
            _ => {}
        }
    }
    let address = Address {
        interface: u32::from_ne_bytes(fixed[4..].try_into().ok()?),
        address: address?.into(),
        prefix_bits: fixed[1],
    };
    Some((address, is_own))
}

/// An address of this machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// The index of the interface it is on.
    pub interface: u32,
    /// The address.
    pub ip: IpAddr,
    /// How many of its first bits those on the link share.
    pub bits: u8,
}

pub(super) fn reachable_address(body: &[u8]) -> Option<Reachable> {
    let (fixed, attributes) = body.split_at_checked(8)?;
    let mut flags = u32::from(fixed[2]);
    let (mut address, mut local) = (None, None);
    for (kind, value) in Attributes(attributes) {
        match kind {
            libc::IFA_ADDRESS => address = ip_address(value),
            // The own end, where a link's address is the other's (IPv4 point to point).
            libc::IFA_LOCAL => local = ip_address(value),
            IFA_FLAGS => flags = value.try_into().map(u32::from_ne_bytes).ok()?,
            _ => {}
        }
    }
    // The same bit means "secondary" for IPv4, which is no flaw.
    let is_v6 = i32::from(fixed[0]) == libc::AF_INET6;
    let flaws = libc::IFA_F_TENTATIVE | libc::IFA_F_DEPRECATED | libc::IFA_F_DADFAILED;
    let flaws = if is_v6 {
        flaws | libc::IFA_F_TEMPORARY
    } else {
        0
    };
    if fixed[3] != libc::RT_SCOPE_UNIVERSE || flags & flaws != 0 {
        return None;
    }
    let interface = u32::from_ne_bytes(fixed[4..].try_into().ok()?);
    Some(Reachable {
        interface,
        ip: local.or(address)?,
        bits: fixed[1],
    })
}

pub(super) fn ip_address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from).ok();
    v4.or(<[u8; 16]>::try_from(value).map(IpAddr::from).ok())
}

pub(super) fn own_route(body: &[u8]) -> Option<Route> {
    let (fixed, attributes) = body.split_at_checked(12)?;
    if fixed[4] != libc::RT_TABLE_MAIN || fixed[5] != OWN_PROTOCOL {
        return None;
    }
    let mut destination = [0; 16];
    let (mut metric, mut interface) = (0, None);
    for (kind, value) in Attributes(attributes) {
        let number = || value.try_into().map(u32::from_ne_bytes).ok();
        match kind {
            libc::RTA_DST => destination = value.try_into().ok()?,
            libc::RTA_PRIORITY => metric = number()?,
            libc::RTA_OIF => interface = number(),
            _ => {}
        }
    }
    let via = match fixed[7] {
        libc::RTN_UNICAST => Via::Interface(interface?),
        libc::RTN_UNREACHABLE => Via::Unreachable,
        _ => return None,
    };
    Some(Route {
        destination: Prefix::new(destination.into(), fixed[1]),
        via,
        metric,
    })
}

pub(super) fn own_rule(body: &[u8]) -> Option<Rule> {
    let (fixed, attributes) = body.split_at_checked(12)?;
    let mut source = [0; 16];
    let (mut priority, mut is_own) = (0, false);
    for (kind, value) in Attributes(attributes) {
        match kind {
            FRA_SRC => source = value.try_into().ok()?,
            FRA_PRIORITY => priority = value.try_into().map(u32::from_ne_bytes).ok()?,
            FRA_PROTOCOL => is_own = value == [OWN_PROTOCOL],
            _ => {}
        }
    }
    let act = match fixed[7] {
        FR_ACT_TO_TBL => Act::SpecificRoutes,
        FR_ACT_UNREACHABLE => Act::Unreachable,
        _ => return None,
    };
    is_own.then(|| Rule {
        source: Prefix::new(source.into(), fixed[2]),
        act,
        priority,
    })
}

#[cfg(test)]
mod tests {
    use super::super::message::split_message;
    use super::*;
    use proptest::prelude::*;

    fn prefix() -> Prefix {
        Prefix::new("fd12:3456:789a::".parse().unwrap(), 48)
    }

    #[test]
    fn a_route_reads_back_from_its_message() {
        for via in [Via::Interface(7), Via::Unreachable] {
            let route = Route {
                destination: prefix(),
                via,
                metric: 512,
            };
            let bytes = route.message(libc::RTM_NEWROUTE, 0).finish(3);
            let (header, body, behind) = split_message(&bytes).unwrap();
            assert_eq!((header.kind, header.sequence), (libc::RTM_NEWROUTE, 3));
            assert_eq!(own_route(body), Some(route));
            assert!(behind.is_empty());
        }
    }

    #[test]
    fn a_rule_reads_back_from_its_message() {
        for act in [Act::SpecificRoutes, Act::Unreachable] {
            let rule = Rule {
                source: prefix(),
                act,
                priority: 7,
            };
            let bytes = rule.message(libc::RTM_NEWRULE, 0).finish(3);
            let (_, body, _) = split_message(&bytes).unwrap();
            assert_eq!(own_rule(body), Some(rule));
        }
    }

    #[test]
    fn only_addresses_marked_as_ours_are_ours() {
        let address = Address {
            interface: 3,
            address: "fd00::1".parse().unwrap(),
            prefix_bits: 64,
        };
        let read = |message: Message| {
            let bytes = message.finish(1);
            let (_, body, _) = split_message(&bytes)?;
            address_and_owner(body)
        };
        assert_eq!(
            read(address.message(libc::RTM_NEWADDR, 0)),
            Some((address, false))
        );
        let mut message = address.message(libc::RTM_NEWADDR, 0);
        message.attribute(IFA_PROTO, &[OWN_PROTOCOL]);
        assert_eq!(read(message), Some((address, true)));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_panic(bytes: Vec<u8>) {
            let _ = (address_and_owner(&bytes), reachable_address(&bytes));
            let _ = (own_route(&bytes), own_rule(&bytes));
        }
    }
}
