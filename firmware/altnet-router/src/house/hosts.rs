//! Machines with names, checked.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::networks::{OWN_SUFFIX, find};
use super::wans::is_host_in;
use super::wrong::{Key, Wrongs};
use super::{Host, Network};
use crate::config;

/// The most machines with names.
pub const MAX_HOSTS: usize = 512;

pub(super) fn hosts(
    written: &[config::Host],
    networks: &[Network],
    wrongs: &mut Wrongs,
) -> Vec<Host> {
    let all = Key::router().at("host");
    wrongs.bound(all.clone(), written.len(), MAX_HOSTS, "machines with names");
    let mut hosts: Vec<Host> = Vec::new();
    for (i, host) in written.iter().enumerate().take(MAX_HOSTS) {
        let key = all.nth(i);
        let Some(found) = host_of(host, networks, &key, wrongs) else {
            continue;
        };
        for other in &hosts {
            check_hosts(&found, other, &key, wrongs);
        }
        hosts.push(found);
    }
    hosts
}

fn host_of(
    host: &config::Host,
    networks: &[Network],
    key: &Key,
    wrongs: &mut Wrongs,
) -> Option<Host> {
    let by_address = |address: Ipv4Addr| {
        networks
            .iter()
            .find(|network| network.ipv4.contains(&address))
    };
    let network = match (&host.network, host.ipv4) {
        (Some(name), _) => find(networks, name, &key.at("network"), wrongs)?,
        (None, Some(address)) => by_address(address).or_else(|| {
            wrongs.say(
                key.at("ipv4"),
                format_args!(
                    "{address} is on none of the networks; write one of {}",
                    nets(networks)
                ),
            );
            None
        })?,
        (None, None) => networks.first()?,
    };
    if let Some(address) = host.ipv4 {
        if !is_host_in(&network.ipv4, address) {
            wrongs.say(
                key.at("ipv4"),
                format_args!(
                    "{address} is no machine's address on the network {}; write one in {}",
                    network.name,
                    network.ipv4.trunc()
                ),
            );
        } else if address == network.ipv4.addr() {
            wrongs.say(
                key.at("ipv4"),
                format_args!("{address} is the box's own; write another"),
            );
        }
    }
    let suffix = host
        .suffix
        .and_then(|address| suffix(address, &key.at("suffix"), wrongs));
    Some(Host {
        name: host.name.clone(),
        mac: host.mac,
        network: network.name.clone(),
        ipv4: host.ipv4,
        suffix,
    })
}

fn nets(networks: &[Network]) -> String {
    let nets: Vec<String> = networks
        .iter()
        .map(|network| network.ipv4.trunc().to_string())
        .collect();
    nets.join(", ")
}

/// The lower half of an address, if it is written alone and may be a machine's.
pub(super) fn suffix(address: Ipv6Addr, key: &Key, wrongs: &mut Wrongs) -> Option<u64> {
    let [upper, lower] = [
        address.to_bits() >> 64,
        address.to_bits() & u128::from(u64::MAX),
    ];
    let lower = u64::try_from(lower)
        .ok()
        .filter(|lower| upper == 0 && *lower > OWN_SUFFIX);
    if lower.is_none() {
        wrongs.say(key.clone(), format_args!("{address} is no lower half of a machine's address; write one like \"::10\", without the prefix; ::1 is the box"));
    }
    lower
}

fn check_hosts(host: &Host, other: &Host, key: &Key, wrongs: &mut Wrongs) {
    if host.name == other.name {
        wrongs.say(
            key.at("name"),
            format_args!(
                "the host {} is there twice; give one another name",
                host.name
            ),
        );
    }
    if host.mac == other.mac {
        wrongs.say(
            key.at("mac"),
            format_args!(
                "{} is {}'s too; each machine has one section",
                host.mac, other.name
            ),
        );
    }
    if host.ipv4.is_some() && host.ipv4 == other.ipv4 {
        wrongs.say(
            key.at("ipv4"),
            format_args!("that is {}'s address too; write another", other.name),
        );
    }
    if host.suffix.is_some() && host.suffix == other.suffix && host.network == other.network {
        wrongs.say(
            key.at("suffix"),
            format_args!("that is {}'s suffix too; write another", other.name),
        );
    }
}
