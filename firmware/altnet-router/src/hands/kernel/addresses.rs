//! The box's addresses, with their lifetimes.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::netlink::Netlink;
use super::Indexes;
use crate::plan::{Address, ROUTE_PROTOCOL};

/// A lifetime without an end (linux/if_addr.h, INFINITY_LIFE_TIME).
const FOR_EVER_S: u32 = u32::MAX;
/// By how much lifetimes may differ and be the same: reading the clock takes part.
const SLACK_S: u32 = 2;

/// An address that is there, and is a plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    index: u32,
    net: IpNet,
    preferred_s: u32,
    valid_s: u32,
}

/// An address that has to be there.
type Wanted = Found;

pub(super) fn apply(
    netlink: &mut Netlink,
    addresses: &[Address],
    indexes: &Indexes,
    now: Duration,
    troubles: &mut Vec<String>,
) {
    let mut wanted: Vec<Wanted> = Vec::new();
    for address in addresses {
        let what = format!("the address {}", address.net);
        let index = indexes.find(&address.link, &what, troubles);
        wanted.extend(index.and_then(|index| lifetimes(index, address, now)));
    }
    let found = match read(netlink) {
        Ok(found) => found,
        Err(e) => return troubles.push(format!("can't list addresses: {e}")),
    };
    for old in &found {
        let stays = wanted
            .iter()
            .any(|new| new.index == old.index && new.net == old.net);
        if !stays && let Err(e) = remove(netlink, old) {
            troubles.push(format!("can't remove the address {}: {e}", old.net));
        }
    }
    for new in &wanted {
        if !found.iter().any(|old| is_same(old, new))
            && let Err(e) = add(netlink, new)
        {
            troubles.push(format!("can't add the address {}: {e}", new.net));
        }
    }
}

/// What is left of an address's lifetimes; nothing if it is none any more.
fn lifetimes(index: u32, address: &Address, now: Duration) -> Option<Wanted> {
    let left = |until_s: Option<u64>| match until_s {
        None => FOR_EVER_S,
        Some(until_s) => {
            let left = until_s.saturating_sub(now.as_secs());
            u32::try_from(left)
                .unwrap_or(FOR_EVER_S)
                .min(FOR_EVER_S - 1)
        }
    };
    let valid_s = left(address.valid_until_s);
    let preferred_s = left(address.preferred_until_s).min(valid_s);
    (valid_s > 0).then_some(Wanted {
        index,
        net: address.net,
        preferred_s,
        valid_s,
    })
}

fn is_same(old: &Found, new: &Wanted) -> bool {
    let is_near = |a: u32, b: u32| {
        let is_fixed = [a, b].iter().any(|s| *s == FOR_EVER_S || *s == 0);
        if is_fixed {
            a == b
        } else {
            a.abs_diff(b) <= SLACK_S
        }
    };
    old.index == new.index
        && old.net == new.net
        && is_near(old.valid_s, new.valid_s)
        && is_near(old.preferred_s, new.preferred_s)
}

fn read(netlink: &mut Netlink) -> io::Result<Vec<Found>> {
    let answers = netlink.list(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
    let ours = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewAddress(message) => read_one(&message),
        _ => None,
    });
    Ok(ours.collect())
}

pub(super) fn is_ours(message: &AddressMessage) -> bool {
    read_one(message).is_some()
}

fn read_one(message: &AddressMessage) -> Option<Found> {
    let (mut address, mut local, mut is_ours) = (None, None, false);
    let (mut preferred_s, mut valid_s) = (FOR_EVER_S, FOR_EVER_S);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Protocol(number) => is_ours = u8::from(*number) == ROUTE_PROTOCOL,
            AddressAttribute::CacheInfo(info) => {
                preferred_s = info.ifa_preferred;
                valid_s = info.ifa_valid;
            }
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    is_ours.then_some(Found {
        index: message.header.index,
        net,
        preferred_s,
        valid_s,
    })
}

fn add(netlink: &mut Netlink, new: &Wanted) -> io::Result<()> {
    let mut message = about(new);
    let info = &mut message.attributes;
    if let IpNet::V4(net) = new.net
        && net.prefix_len() < 31
    {
        info.push(AddressAttribute::Broadcast(net.broadcast()));
    }
    // A router's own address is its to have: it is used at once, and not when nobody objected.
    info.push(AddressAttribute::Flags(AddressFlags::Nodad));
    info.push(AddressAttribute::Protocol(AddressProtocol::from(
        ROUTE_PROTOCOL,
    )));
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_preferred = new.preferred_s;
    lifetimes.ifa_valid = new.valid_s;
    info.push(AddressAttribute::CacheInfo(lifetimes));
    netlink.change(
        RouteNetlinkMessage::NewAddress(message),
        NLM_F_CREATE | NLM_F_REPLACE,
    )
}

fn remove(netlink: &mut Netlink, old: &Found) -> io::Result<()> {
    match netlink.change(RouteNetlinkMessage::DelAddress(about(old)), 0) {
        // With a primary IPv4 address its secondaries go too.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

fn about(one: &Found) -> AddressMessage {
    let mut message = AddressMessage::default();
    let address = one.net.addr();
    message.header.index = one.index;
    message.header.prefix_len = one.net.prefix_len();
    message.header.family = family(address);
    message.header.scope = match address {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => AddressScope::Host,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

pub(super) fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(valid_until_s: Option<u64>, preferred_until_s: Option<u64>) -> Option<(u32, u32)> {
        let address = Address {
            link: "br-lan".into(),
            net: "2001:db8::1/64".parse().unwrap(),
            valid_until_s,
            preferred_until_s,
        };
        let wanted = lifetimes(1, &address, Duration::from_millis(100_900));
        wanted.map(|wanted| (wanted.valid_s, wanted.preferred_s))
    }

    #[test]
    fn lifetimes_are_what_is_left() {
        assert_eq!(wanted(None, None), Some((FOR_EVER_S, FOR_EVER_S)));
        assert_eq!(wanted(Some(160), Some(130)), Some((60, 30)));
        assert_eq!(wanted(Some(160), None), Some((60, 60)));
        assert_eq!(wanted(Some(160), Some(50)), Some((60, 0)), "deprecated");
        assert_eq!(wanted(Some(100), Some(50)), None, "over");
        assert_eq!(
            wanted(Some(u64::MAX), None),
            Some((FOR_EVER_S - 1, FOR_EVER_S - 1))
        );
    }

    #[test]
    fn a_second_more_or_less_is_the_same_but_for_ever_and_deprecated_are_not() {
        let one = |preferred_s, valid_s| Found {
            index: 1,
            net: "2001:db8::1/64".parse().unwrap(),
            preferred_s,
            valid_s,
        };
        assert!(is_same(&one(30, 60), &one(31, 59)));
        assert!(!is_same(&one(30, 60), &one(60, 60)));
        assert!(!is_same(&one(1, 60), &one(0, 60)));
        assert!(!is_same(
            &one(FOR_EVER_S - 1, FOR_EVER_S - 1),
            &one(FOR_EVER_S, FOR_EVER_S)
        ));
    }
}
