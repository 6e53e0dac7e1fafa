//! Forwards, pinholes and rules, checked.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::hosts::suffix;
use super::networks::find;
use super::wans::is_host_in;
use super::wrong::{Key, Wrongs};
use super::zones::no_zone;
use super::{Altnet, Forward, Host, Network, Pinhole, Rule, Wan, Zone};
use crate::config;
use crate::config::{Action, Addresses, Label, Name, PortRange, Protocol, Reach, Target, Upnp};

/// The most forwards, and the most pinholes.
pub const MAX_FORWARDS: usize = 256;
/// The most rules.
pub const MAX_RULES: usize = 256;
/// The most ports or addresses of one of them.
const MAX_PARTS: usize = 64;
/// The most ports of a forward that lead to others than their own.
pub const MAX_SHIFTED: u16 = 256;

pub(super) fn forwards(
    written: &[config::Forward],
    wans: &[Wan],
    networks: &[Network],
    hosts: &[Host],
    altnet: &Altnet,
    wrongs: &mut Wrongs,
) -> Vec<Forward> {
    let all = Key::router().at("forward");
    wrongs.bound(all.clone(), written.len(), MAX_FORWARDS, "forwards");
    let mut forwards: Vec<Forward> = Vec::new();
    for (i, forward) in written.iter().enumerate().take(MAX_FORWARDS) {
        let key = all.nth(i);
        let Some(found) = forward_of(forward, wans, networks, hosts, &key, wrongs) else {
            continue;
        };
        let is_udp = found.protocol != Protocol::Tcp;
        if is_udp && found.ports.overlaps(&altnet.listen_port.into()) {
            wrongs.say(key.at("port"), format_args!("UDP port {} is altnetd's, which others reach this house by; use another port, or another listen_port", altnet.listen_port));
        }
        if let Some(n) = forwards.iter().position(|other| collide(&found, other)) {
            wrongs.say(
                key.at("port"),
                format_args!(
                    "the forward of port {} before it takes some of these; use another port",
                    forwards[n].ports
                ),
            );
        }
        forwards.push(found);
    }
    forwards
}

fn forward_of(
    forward: &config::Forward,
    wans: &[Wan],
    networks: &[Network],
    hosts: &[Host],
    key: &Key,
    wrongs: &mut Wrongs,
) -> Option<Forward> {
    if !matches!(
        forward.protocol,
        Protocol::Tcp | Protocol::Udp | Protocol::TcpUdp
    ) {
        wrongs.say(
            key.at("protocol"),
            "ports are those of \"tcp\", \"udp\" or \"tcp+udp\"; write one of these",
        );
    }
    wrongs.bound(key.at("from"), forward.from.len(), MAX_PARTS, "addresses");
    let mut from: Vec<Ipv4Net> = Vec::new();
    for (i, Addresses(net)) in forward.from.iter().enumerate() {
        match net {
            IpNet::V4(net) => from.push(*net),
            IpNet::V6(_) => wrongs.say(
                key.at("from").nth(i),
                "a forward is of IPv4; for IPv6 write a [[router.pinhole]]",
            ),
        }
    }
    let interfaces = match &forward.wan {
        None => wans.iter().map(|wan| wan.interface.clone()).collect(),
        Some(name) => {
            let found = wans.iter().find(|wan| wan.name == *name);
            if found.is_none() {
                let names: Vec<&str> = wans.iter().map(|wan| wan.name.as_str()).collect();
                wrongs.say(
                    key.at("wan"),
                    format_args!("there is no WAN {name}; write one of {}", names.join(", ")),
                );
            }
            vec![found?.interface.clone()]
        }
    };
    let to_ports = to_ports(forward, key, wrongs);
    let to = target(&forward.to, hosts, &key.at("to"), wrongs)?;
    let network = networks
        .iter()
        .find(|network| is_host_in(&network.ipv4, to) && network.ipv4.addr() != to);
    let Some(network) = network else {
        wrongs.say(
            key.at("to"),
            format_args!("{to} is no machine on the networks of the house; write one that is"),
        );
        return None;
    };
    Some(Forward {
        wans: interfaces,
        protocol: forward.protocol,
        ports: forward.port,
        to,
        bridge: network.bridge.clone(),
        subnet: network.ipv4.trunc(),
        to_ports: to_ports?,
        from,
        hairpin: forward.hairpin,
    })
}

fn to_ports(forward: &config::Forward, key: &Key, wrongs: &mut Wrongs) -> Option<PortRange> {
    let span = forward.port.span();
    let Some(first) = forward.to_port else {
        return Some(forward.port);
    };
    let last = first.checked_add(span).filter(|_| first > 0);
    let key = key.at("to_port");
    match last {
        None => wrongs.say(
            key,
            format_args!(
                "to_port is 1 to {}, so that {} ports follow",
                u16::MAX - span,
                u32::from(span) + 1
            ),
        ),
        Some(_) if first != forward.port.first && span >= MAX_SHIFTED => {
            wrongs.say(key, format_args!("at most {MAX_SHIFTED} ports lead to others than their own; leave to_port out, or make the range smaller"));
        }
        Some(last) => return Some(PortRange { first, last }),
    }
    None
}

fn target(to: &Target, hosts: &[Host], key: &Key, wrongs: &mut Wrongs) -> Option<Ipv4Addr> {
    match to {
        Target::Address(address) => Some(*address),
        Target::Host(name) => {
            let host = host(name, hosts, key, wrongs)?;
            if host.ipv4.is_none() {
                wrongs.say(
                    key.clone(),
                    format_args!("the host {name} has no ipv4; write it in its [[router.host]]"),
                );
            }
            host.ipv4
        }
    }
}

fn host<'a>(name: &Label, hosts: &'a [Host], key: &Key, wrongs: &mut Wrongs) -> Option<&'a Host> {
    let found = hosts.iter().find(|host| host.name == *name);
    if found.is_none() {
        wrongs.say(
            key.clone(),
            format_args!("there is no host {name}; write a [[router.host]] for it, or an address"),
        );
    }
    found
}

/// Whether a packet may be for both.
fn collide(a: &Forward, b: &Forward) -> bool {
    let protocols = a.protocol == b.protocol
        || a.protocol == Protocol::TcpUdp
        || b.protocol == Protocol::TcpUdp;
    let wans = a.wans.iter().any(|wan| b.wans.contains(wan));
    let meet = |x: &Ipv4Net, y: &Ipv4Net| x.contains(y) || y.contains(x);
    let sources = a.from.is_empty()
        || b.from.is_empty()
        || a.from.iter().any(|x| b.from.iter().any(|y| meet(x, y)));
    protocols && wans && sources && a.ports.overlaps(&b.ports)
}

pub(super) fn pinholes(
    written: &[config::Pinhole],
    networks: &[Network],
    hosts: &[Host],
    wrongs: &mut Wrongs,
) -> Vec<Pinhole> {
    let all = Key::router().at("pinhole");
    wrongs.bound(all.clone(), written.len(), MAX_FORWARDS, "pinholes");
    let written = written.iter().enumerate().take(MAX_FORWARDS);
    written
        .filter_map(|(i, pinhole)| pinhole_of(pinhole, networks, hosts, &all.nth(i), wrongs))
        .collect()
}

fn pinhole_of(
    pinhole: &config::Pinhole,
    networks: &[Network],
    hosts: &[Host],
    key: &Key,
    wrongs: &mut Wrongs,
) -> Option<Pinhole> {
    check_ports(pinhole.protocol, &pinhole.ports, key, wrongs);
    if matches!(pinhole.protocol, Protocol::Any | Protocol::Icmp) {
        wrongs.say(
            key.at("protocol"),
            "a pinhole is for \"tcp\", \"udp\", \"tcp+udp\" or \"esp\"; echo requests pass anyway",
        );
    }
    wrongs.bound(key.at("from"), pinhole.from.len(), MAX_PARTS, "addresses");
    let mut from: Vec<Ipv6Net> = Vec::new();
    for (i, Addresses(net)) in pinhole.from.iter().enumerate() {
        match net {
            IpNet::V6(net) => from.push(*net),
            IpNet::V4(_) => wrongs.say(
                key.at("from").nth(i),
                "a pinhole is of IPv6; for IPv4 write a [[router.forward]]",
            ),
        }
    }
    let (name, suffix) = match (&pinhole.host, pinhole.suffix) {
        (Some(name), None) => {
            if pinhole.network.is_some() {
                wrongs.say(
                    key.at("network"),
                    "the network is said at the host; remove this",
                );
            }
            let host = host(name, hosts, &key.at("host"), wrongs)?;
            if host.suffix.is_none() {
                wrongs.say(key.at("host"), format_args!("the host {name} has no suffix; write one in its [[router.host]], as suffix = \"::10\""));
            }
            (Some(&host.network), host.suffix?)
        }
        (None, Some(address)) => (
            pinhole.network.as_ref(),
            suffix(address, &key.at("suffix"), wrongs)?,
        ),
        (Some(_), Some(_)) | (None, None) => {
            wrongs.say(key.at("host"), "say which machine: by host or by suffix");
            return None;
        }
    };
    let network = match name {
        Some(name) => find(networks, name, &key.at("network"), wrongs)?,
        None => networks.first()?,
    };
    if !network.ipv6 {
        wrongs.say(
            key.clone(),
            format_args!(
                "the network {} has no IPv6; write ipv6 = true there",
                network.name
            ),
        );
    }
    Some(Pinhole {
        bridge: network.bridge.clone(),
        suffix,
        protocol: pinhole.protocol,
        ports: pinhole.ports.clone(),
        from,
    })
}

fn check_ports(protocol: Protocol, ports: &[PortRange], key: &Key, wrongs: &mut Wrongs) {
    wrongs.bound(key.at("ports"), ports.len(), MAX_PARTS, "ports or ranges");
    if !ports.is_empty() && !matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::TcpUdp) {
        wrongs.say(
            key.at("ports"),
            "ports are those of \"tcp\", \"udp\" or \"tcp+udp\"; write one of these as protocol",
        );
    }
    for (i, range) in ports.iter().enumerate() {
        if ports.iter().take(i).any(|other| other.overlaps(range)) {
            wrongs.say(
                key.at("ports").nth(i),
                format_args!("{range} is there before; write each port once"),
            );
        }
    }
}

pub(super) fn rules(
    written: &[config::Rule],
    zones: &BTreeMap<Name, Zone>,
    wrongs: &mut Wrongs,
) -> Vec<Rule> {
    let all = Key::router().at("rule");
    wrongs.bound(all.clone(), written.len(), MAX_RULES, "rules");
    let mut rules = Vec::new();
    for (i, rule) in written.iter().enumerate().take(MAX_RULES) {
        let key = all.nth(i);
        check_ports(rule.protocol, &rule.ports, &key, wrongs);
        if !zones.contains_key(&rule.from) {
            wrongs.say(key.at("from"), no_zone(&rule.from, zones));
        }
        if let Reach::Zone(to) = &rule.to
            && !zones.contains_key(to)
        {
            wrongs.say(
                key.at("to"),
                format_args!("{}, \"router\" or \"any\"", no_zone(to, zones)),
            );
        }
        check_addresses(rule, &key, wrongs);
        rules.push(Rule {
            from: rule.from.clone(),
            to: rule.to.clone(),
            protocol: rule.protocol,
            ports: rule.ports.clone(),
            source: rule.source.clone(),
            destination: rule.destination.clone(),
            action: rule.action,
        });
    }
    rules
}

fn check_addresses(rule: &config::Rule, key: &Key, wrongs: &mut Wrongs) {
    for (name, list) in [("source", &rule.source), ("destination", &rule.destination)] {
        let key = key.at(name);
        wrongs.bound(key.clone(), list.len(), MAX_PARTS, "addresses");
        for (i, Addresses(net)) in list.iter().enumerate() {
            let meet = |Addresses(other): &Addresses| other.contains(net) || net.contains(other);
            if list.iter().take(i).any(meet) {
                wrongs.say(
                    key.nth(i),
                    format_args!(
                        "{} is covered by another of these; write each once",
                        list[i]
                    ),
                );
            }
        }
    }
    let has = |list: &[Addresses], is_v4: bool| {
        list.is_empty()
            || list
                .iter()
                .any(|Addresses(net)| net.addr().is_ipv4() == is_v4)
    };
    let is_possible = |is_v4| has(&rule.source, is_v4) && has(&rule.destination, is_v4);
    if !is_possible(true) && !is_possible(false) {
        wrongs.say(key.at("destination"), "no packet is of IPv4 and IPv6 at once; write sources and destinations of the same family");
    }
    let is_wide = rule.ports.is_empty() && !matches!(rule.protocol, Protocol::Icmp | Protocol::Esp);
    let is_anybody = rule.source.is_empty() && rule.destination.is_empty();
    if rule.action == Action::Accept && rule.from.as_str() == "wan" && is_wide && is_anybody {
        wrongs.say(
            key.clone(),
            "that would open the house to all of the internet; say what is let in: by ports, source or destination",
        );
    }
}

pub(super) fn upnp(upnp: &Upnp, networks: &[Network], wrongs: &mut Wrongs) -> Vec<Name> {
    let key = Key::router().at("upnp").at("networks");
    let mut names: Vec<Name> = Vec::new();
    for (i, name) in upnp.networks.iter().enumerate() {
        if names.contains(name) {
            wrongs.say(
                key.nth(i),
                format_args!("the network {name} is there twice; write it once"),
            );
        } else if find(networks, name, &key.nth(i), wrongs).is_some() {
            names.push(name.clone());
        }
    }
    if !upnp.enabled {
        return Vec::new();
    }
    if upnp.networks.is_empty() {
        names.extend(networks.first().map(|network| network.name.clone()));
    }
    names
}
