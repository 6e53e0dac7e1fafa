//! Networks of the house, checked.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::ports::Plugged;
use super::wans::{VLAN_ID, is_host_in, is_somebody, is_vlan};
use super::wrong::{Key, Wrongs};
use super::{Network, Range};
use crate::config;
use crate::config::{Dhcp, Ipv6, Name, Port, Router};

/// The most networks: as many as altnetd serves.
pub const MAX_NETWORKS: usize = 8;
/// The most ports of a network.
const MAX_PORTS: usize = 32;
/// The most servers that a network's DHCP names instead of the box.
const MAX_SERVERS: usize = 3;
/// How many addresses are given out where nobody says.
const POOL: u32 = 150;
/// The shortest lease that dnsmasq gives, in seconds.
const MIN_LEASE_S: u32 = 120;
const MAX_LEASE_S: u32 = 30 * 24 * 3600;
/// The lower half of the box's own address on each network: `::1`.
pub const OWN_SUFFIX: u64 = 1;
/// The lower halves that are lent by DHCPv6.
pub const LENT_SUFFIXES: std::ops::RangeInclusive<u64> = 0x1000..=0x1fff;

pub(super) fn resolve(router: &Router, plugged: &mut Plugged, wrongs: &mut Wrongs) -> Vec<Network> {
    let all = Key::router().at("network");
    let written = &router.network;
    wrongs.bound(all.clone(), written.len(), MAX_NETWORKS, "networks");
    let mut networks: Vec<Network> = Vec::new();
    for (i, network) in written.iter().enumerate().take(MAX_NETWORKS) {
        let key = all.nth(i);
        if written
            .iter()
            .take(i)
            .any(|other| other.name == network.name)
        {
            wrongs.say(
                key.at("name"),
                format_args!(
                    "the network {} is there twice; give one another name",
                    network.name
                ),
            );
        }
        let found = resolve_one(i, network, router, &key, plugged, wrongs);
        check_apart(&found, &networks, &key, wrongs);
        networks.push(found);
    }
    check_subnets(router, &networks, wrongs);
    networks
}

fn resolve_one(
    place: usize,
    network: &config::Network,
    router: &Router,
    key: &Key,
    plugged: &mut Plugged,
    wrongs: &mut Wrongs,
) -> Network {
    let ipv4 = network.ipv4.unwrap_or_else(|| usual_ipv4(place));
    let key4 = key.at("ipv4");
    if !(8..=30).contains(&ipv4.prefix_len())
        || !is_host_in(&ipv4, ipv4.addr())
        || !is_somebody(ipv4.addr().into())
    {
        wrongs.say(key4, format_args!("{ipv4} is no address for the box on a network; write one like \"192.168.77.1/24\", of 8 to 30 bits"));
    }
    if let Some(net) = &network.address6 {
        let own = net.addr();
        if net.prefix_len() != 64
            || own.is_unicast_link_local()
            || !is_somebody(own.into())
            || own == net.network()
        {
            wrongs.say(
                key.at("address6"),
                format_args!(
                    "{net} is no address for the box on a network; write one like \"fd00:77::1/64\""
                ),
            );
        }
    }
    let (ports, tagged) = members(place, network, key, plugged, wrongs);
    let dhcp_key = key.at("dhcp");
    check_dhcp(&network.dhcp, &dhcp_key, wrongs);
    Network {
        name: network.name.clone(),
        bridge: format!("br-{}", network.name),
        zone: zone(network, router),
        ports,
        tagged,
        ipv4,
        ipv6: network.ipv6,
        subnet: network
            .subnet
            .unwrap_or(u16::try_from(place).unwrap_or(u16::MAX)),
        address6: network.address6,
        dhcp: range(&network.dhcp, ipv4, &dhcp_key, wrongs),
        dhcp6: network.dhcp.ipv6,
        lease_s: network.dhcp.lease_s,
        resolvers: network.dhcp.resolvers.clone(),
        ntp: network.dhcp.ntp.clone(),
        isolated: network.isolated,
        domain: network.domain.clone(),
    }
}

/// `192.168.77.1/24`, and for those behind it the nets behind that.
fn usual_ipv4(place: usize) -> Ipv4Net {
    let third = 77 + u8::try_from(place.min(MAX_NETWORKS)).unwrap_or(0);
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 1), 24)
}

/// The zone that is written, or that of the network's own name, or `lan`.
fn zone(network: &config::Network, router: &Router) -> Name {
    if let Some(zone) = &network.zone {
        return zone.clone();
    }
    let of_own_name = network.name.as_str() == "guest"
        || router.zone.iter().any(|zone| zone.name == network.name);
    if of_own_name && network.name.as_str() != "wan" {
        return network.name.clone();
    }
    "lan".parse().expect("it is a name")
}

fn members(
    place: usize,
    network: &config::Network,
    key: &Key,
    plugged: &mut Plugged,
    wrongs: &mut Wrongs,
) -> (Vec<String>, Vec<(String, u16)>) {
    wrongs.bound(
        key.at("ports"),
        network.ports.len(),
        MAX_PORTS,
        "ports of a network",
    );
    wrongs.bound(
        key.at("tagged"),
        network.tagged.len(),
        MAX_PORTS,
        "ports of a network",
    );
    let usual = [Port::Lans];
    let nothing_written = network.ports.is_empty() && network.tagged.is_empty();
    let written: &[Port] = if nothing_written && place == 0 {
        &usual
    } else {
        &network.ports
    };
    let whose = format!("of the network {}", network.name);
    let mut ports = Vec::new();
    for (i, port) in written.iter().enumerate() {
        let key = key.at("ports").nth(i);
        for name in plugged.members(port, false, &key, wrongs) {
            plugged.take(&name, &whose, &key, wrongs);
            ports.push(name);
        }
    }
    let mut tagged = Vec::new();
    match (network.vlan, network.tagged.is_empty()) {
        (None, true) => {}
        (Some(id), false) if is_vlan(id) => {
            for (i, port) in network.tagged.iter().enumerate() {
                let key = key.at("tagged").nth(i);
                for name in plugged.members(port, true, &key, wrongs) {
                    plugged.take_vlan(&name, id, &whose, &key, wrongs);
                    tagged.push((name, id));
                }
            }
        }
        (Some(id), _) if !is_vlan(id) => wrongs.say(key.at("vlan"), VLAN_ID),
        (Some(_), _) => wrongs.say(
            key.at("vlan"),
            "say on which ports the VLAN is: tagged = [\"port:lan1\"], or remove it",
        ),
        (None, false) => wrongs.say(
            key.at("tagged"),
            "say which VLAN is on these ports: vlan = 20, or write them as ports",
        ),
    }
    (ports, tagged)
}

fn check_apart(network: &Network, others: &[Network], key: &Key, wrongs: &mut Wrongs) {
    let overlaps4 =
        |other: &&Network| network.ipv4.contains(&other.ipv4) || other.ipv4.contains(&network.ipv4);
    if let Some(other) = others.iter().find(overlaps4) {
        wrongs.say(
            key.at("ipv4"),
            format_args!(
                "{} overlaps {} of the network {}; write another",
                network.ipv4, other.ipv4, other.name
            ),
        );
    }
    let net6 = |network: &Network| network.address6.map(|net| net.trunc());
    if net6(network).is_some()
        && let Some(other) = others.iter().find(|other| net6(other) == net6(network))
    {
        wrongs.say(
            key.at("address6"),
            format_args!(
                "that is the net of the network {} too; write another",
                other.name
            ),
        );
    }
}

/// Subnets of a delegated prefix are different, and there is room for each that is written.
fn check_subnets(router: &Router, networks: &[Network], wrongs: &mut Wrongs) {
    let mut taken = BTreeSet::new();
    for (i, network) in networks
        .iter()
        .enumerate()
        .filter(|(_, network)| network.ipv6)
    {
        let key = Key::router().at("network").nth(i).at("subnet");
        if !taken.insert(network.subnet) {
            wrongs.say(
                key.clone(),
                format_args!(
                    "subnet {} is another network's too; write another",
                    network.subnet
                ),
            );
        }
        let written = router.network.get(i).and_then(|network| network.subnet);
        let Some(subnet) = written else { continue };
        for wan in &router.wan {
            let bits = match &wan.ipv6 {
                Ipv6::Auto => wan.prefix_hint,
                Ipv6::Static(fixed) => fixed.prefix.map_or(64, |prefix| prefix.prefix_len()),
                Ipv6::Off => continue,
            };
            let room = 1_u32 << 64_u8.saturating_sub(bits).min(16);
            if u32::from(subnet) >= room {
                wrongs.say(
                    key.clone(),
                    format_args!("a prefix of {bits} bits at the WAN {} has subnets 0 to {}; write one of those", wan.name, room - 1),
                );
            }
        }
    }
}

fn check_dhcp(dhcp: &Dhcp, key: &Key, wrongs: &mut Wrongs) {
    if !(MIN_LEASE_S..=MAX_LEASE_S).contains(&dhcp.lease_s) {
        wrongs.say(
            key.at("lease_s"),
            format_args!("lease_s is {MIN_LEASE_S} to {MAX_LEASE_S}; 43200 is half a day"),
        );
    }
    for (name, servers) in [("resolvers", &dhcp.resolvers), ("ntp", &dhcp.ntp)] {
        let key = key.at(name);
        wrongs.bound(key.clone(), servers.len(), MAX_SERVERS, "of them");
        for (i, server) in servers.iter().enumerate() {
            if !is_somebody((*server).into()) {
                wrongs.say(
                    key.nth(i),
                    format_args!(
                        "{server} is no server's address; write one like \"192.168.77.5\""
                    ),
                );
            }
        }
    }
}

/// The range that is given out: what is written, and else around what is.
fn range(dhcp: &Dhcp, net: Ipv4Net, key: &Key, wrongs: &mut Wrongs) -> Option<Range> {
    if !dhcp.enabled {
        return None;
    }
    let own = net.addr();
    let mut is_good = true;
    for (name, end) in [("first", dhcp.first), ("last", dhcp.last)] {
        if let Some(end) = end
            && !is_host_in(&net, end)
        {
            wrongs.say(
                key.at(name),
                format_args!(
                    "{end} is no machine's address in {}; write one that is",
                    net.trunc()
                ),
            );
            is_good = false;
        }
    }
    if !is_good || net.prefix_len() > 30 {
        return None;
    }
    let found = match (dhcp.first, dhcp.last) {
        (None, None) => usual_range(net),
        (Some(first), None) => Range {
            first,
            last: reach(first, net),
        },
        (None, Some(last)) => usual_first(net, last),
        (Some(first), Some(last)) => Range { first, last },
    };
    if found.first > found.last {
        wrongs.say(
            key.at("last"),
            format_args!(
                "the range ends at {} before it begins at {}; write the smaller as first",
                found.last, found.first
            ),
        );
        return None;
    }
    if (found.first..=found.last).contains(&own) {
        wrongs.say(key.at("first"), format_args!("{own} is the box's own and must not be given out; let the range {} to {} end before it or begin after it", found.first, found.last));
        return None;
    }
    Some(found)
}

/// From `first` as far as usual, and not into the box's own address.
fn reach(first: Ipv4Addr, net: Ipv4Net) -> Ipv4Addr {
    let end = u32::from(net.broadcast()) - 1;
    let own = u32::from(net.addr());
    let end = if own > u32::from(first) {
        end.min(own - 1)
    } else {
        end
    };
    Ipv4Addr::from(end.min(u32::from(first).saturating_add(POOL - 1)))
}

/// Up to `last`, the hundredth address at the earliest if it comes before, and not into the box's own.
fn usual_first(net: Ipv4Net, last: Ipv4Addr) -> Range {
    let (own, end) = (u32::from(net.addr()), u32::from(last));
    let begin = u32::from(net.network()) + 1;
    let begin = if own <= end {
        begin.max(own + 1)
    } else {
        begin
    };
    Range {
        first: Ipv4Addr::from(begin.max(end.saturating_sub(POOL - 1))),
        last,
    }
}

/// In a net of 256 or more, 150 from the hundredth; else, and if the box is in there, of what is before and after the
/// box the larger part.
fn usual_range(net: Ipv4Net) -> Range {
    let (own, begin, end) = (
        u32::from(net.addr()),
        u32::from(net.network()) + 1,
        u32::from(net.broadcast()) - 1,
    );
    let hundredth = u32::from(net.network()) + 100;
    let usual = hundredth..hundredth + POOL;
    if usual.end <= end && !usual.contains(&own) {
        return Range {
            first: usual.start.into(),
            last: (usual.end - 1).into(),
        };
    }
    let (before, after) = (own - begin, end - own);
    let (first, last) = if after >= before {
        (own + 1, end.min(own + POOL))
    } else {
        (begin.max(own.saturating_sub(POOL)), own - 1)
    };
    Range {
        first: first.into(),
        last: last.into(),
    }
}

/// The network of a name.
pub(super) fn find<'a>(
    networks: &'a [Network],
    name: &Name,
    key: &Key,
    wrongs: &mut Wrongs,
) -> Option<&'a Network> {
    let found = networks.iter().find(|network| network.name == *name);
    if found.is_none() {
        let names: Vec<&str> = networks
            .iter()
            .map(|network| network.name.as_str())
            .collect();
        wrongs.say(
            key.clone(),
            format_args!(
                "there is no network {name}; write one of {}",
                names.join(", ")
            ),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usual(net: &str) -> (String, String) {
        let found = usual_range(net.parse().unwrap());
        (found.first.to_string(), found.last.to_string())
    }

    #[test]
    fn a_range_that_nobody_wrote_is_where_people_look_for_it() {
        for (net, first, last) in [
            ("192.168.77.1/24", "192.168.77.100", "192.168.77.249"),
            ("10.0.0.1/8", "10.0.0.100", "10.0.0.249"),
            ("192.168.77.254/24", "192.168.77.100", "192.168.77.249"),
            ("192.168.77.120/24", "192.168.77.121", "192.168.77.254"),
            ("192.168.77.1/26", "192.168.77.2", "192.168.77.62"),
            ("192.168.77.62/26", "192.168.77.1", "192.168.77.61"),
            ("192.168.77.2/30", "192.168.77.1", "192.168.77.1"),
        ] {
            assert_eq!(usual(net), (first.into(), last.into()), "{net}");
        }
    }

    proptest! {
        #[test]
        fn what_is_given_out_is_never_the_box_nor_beyond_the_net(
            bits in 8_u8..=30, address: u32, first in proptest::option::of(any::<u32>()), last in proptest::option::of(any::<u32>())
        ) {
            let net = Ipv4Net::new(address.into(), bits).unwrap();
            prop_assume!(is_host_in(&net, net.addr()));
            // Ends that are in the net, where there are any.
            let within = |end: u32| Ipv4Addr::from(u32::from(net.network()) | (end & u32::from(net.hostmask())));
            let dhcp = Dhcp { first: first.map(within), last: last.map(within), ..Dhcp::default() };
            let mut wrongs = Wrongs::default();
            match range(&dhcp, net, &Key::router(), &mut wrongs) {
                Some(found) => {
                    prop_assert!(found.first <= found.last && wrongs.is_empty());
                    prop_assert!(is_host_in(&net, found.first) && is_host_in(&net, found.last));
                    prop_assert!(!(found.first..=found.last).contains(&net.addr()));
                    prop_assert!(dhcp.first.is_none_or(|first| first == found.first));
                    prop_assert!(dhcp.last.is_none_or(|last| last == found.last));
                }
                None => prop_assert!(!wrongs.is_empty()),
            }
        }
    }
}
