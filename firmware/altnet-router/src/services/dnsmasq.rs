//! dnsmasq, one for the house: DHCPv4, router advertisements, DHCPv6. Names are altnetd's: `port=0`.
//!
//! Router advertisements carry every prefix of which the bridge has an address, altnetd's too, with that address's
//! lifetimes. Of an address that is deprecated already when it starts it says nothing by itself; a range of its own has it
//! say so (RFC 9096 section 3.5).
//!
//! Source: dnsmasq(8).

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Lines, path};
use crate::config::Service;
use crate::house::{House, LENT_SUFFIXES, Network};
use crate::plan::{Child, Places, Stale, World};

/// How often the house is told of its prefixes without asking, and how long a router counts without saying so again, in
/// seconds.
const ADVERTISE_S: u32 = 200;
const ROUTER_S: u32 = 1800;
/// The longest that machines count on a prefix or an address of it, in seconds: `ND_VALID_LIMIT` (RFC 9096 section 3.4).
const MAX_LIFETIME_S: u32 = 5400;
/// How long an address is valid yet that is no more, in seconds (RFC 4862 section 5.5.3 e).
const MAX_STALE_S: u32 = 7200;
/// The most leases; a guest that makes up addresses fills no memory.
const MAX_LEASES: u32 = 2000;

pub(super) fn child(house: &House, world: &World, places: &Places) -> Child {
    let conf = path(places, "dnsmasq.conf");
    let mut lines = Lines::default();
    lines.add("port=0");
    lines.add("bind-dynamic");
    lines.add("dhcp-authoritative");
    lines.add("user=nobody");
    lines.add("group=nogroup");
    lines.add(format!("pid-file={}", path(places, "dnsmasq.pid")));
    lines.add(format!("dhcp-leasefile={}", path(places, "dnsmasq.leases")));
    lines.add(format!("dhcp-lease-max={MAX_LEASES}"));
    if house.networks.iter().any(|network| network.ipv6) {
        lines.add("enable-ra");
    }
    for network in &house.networks {
        add_network(house, network, &mut lines);
        add_stale(network, world, &mut lines);
    }
    for host in &house.hosts {
        let mut words = vec![format!("dhcp-host={}", host.mac)];
        words.extend(host.ipv4.map(|address| address.to_string()));
        words.extend(
            host.suffix
                .map(|suffix| format!("[{}]", Ipv6Addr::from_bits(suffix.into()))),
        );
        words.push(host.name.to_string());
        lines.add(words.join(","));
    }
    let files = vec![lines.file(places, "dnsmasq.conf")];
    let bridges = house.networks.iter().map(|network| network.bridge.clone());
    super::child(
        "dnsmasq".into(),
        "dnsmasq",
        &["--keep-in-foreground", &format!("--conf-file={conf}")],
        files,
        bridges.collect(),
    )
}

fn add_network(house: &House, network: &Network, lines: &mut Lines) {
    let Network {
        name,
        bridge,
        lease_s,
        ..
    } = network;
    lines.add(format!("interface={bridge}"));
    if let Some(range) = network.dhcp {
        add_ipv4(house, network, lines);
        let mask = network.ipv4.netmask();
        lines.add(format!(
            "dhcp-range=set:{name},{},{},{mask},{lease_s}",
            range.first, range.last
        ));
    } else {
        lines.add(format!("no-dhcpv4-interface={bridge}"));
    }
    if !network.ipv6 {
        lines.add(format!("no-dhcpv6-interface={bridge}"));
        return;
    }
    let tag = format!("{name}-6");
    let (first, last) = (
        u128::from(*LENT_SUFFIXES.start()),
        u128::from(*LENT_SUFFIXES.end()),
    );
    let lent = format!(
        "{},{}",
        Ipv6Addr::from_bits(first),
        Ipv6Addr::from_bits(last)
    );
    let range = if network.dhcp6 {
        format!("{lent},constructor:{bridge},slaac,64")
    } else {
        format!("::,constructor:{bridge},ra-stateless,64")
    };
    let lease_s = (*lease_s).min(MAX_LIFETIME_S);
    lines.add(format!("dhcp-range=set:{tag},{range},{lease_s}"));
    lines.add(format!("ra-param={bridge},{ADVERTISE_S},{ROUTER_S}"));
    let resolver = if asks_box(house, network, Service::Dns) {
        "[fd00::]"
    } else {
        ""
    };
    lines.add(format!(
        "dhcp-option=tag:{tag},option6:dns-server{}",
        after_comma(resolver)
    ));
    if let Some(domain) = &network.domain {
        lines.add(format!(
            "dhcp-option=tag:{tag},option6:domain-search,{domain}"
        ));
    }
}

/// Prefixes of before, of which machines are told that they are no more.
fn add_stale(network: &Network, world: &World, lines: &mut Lines) {
    let of_network = |stale: &&Stale| stale.network == network.name && network.ipv6;
    for stale in world.stale.iter().filter(of_network) {
        let prefix = stale.address.trunc().addr();
        // Of two ranges of a prefix dnsmasq takes the shortest lifetime, and that it is deprecated. By itself that one
        // would be valid for ever.
        lines.add(format!("dhcp-range={prefix},ra-only,64,{MAX_STALE_S}"));
        lines.add(format!("dhcp-range={prefix},ra-only,64,deprecated"));
    }
}

fn add_ipv4(house: &House, network: &Network, lines: &mut Lines) {
    let name = &network.name;
    let own = network.ipv4.addr();
    let servers = |written: &[Ipv4Addr], is_box: bool| {
        let servers: Vec<String> = written.iter().map(Ipv4Addr::to_string).collect();
        if servers.is_empty() && is_box {
            own.to_string()
        } else {
            servers.join(",")
        }
    };
    let dns = servers(&network.resolvers, asks_box(house, network, Service::Dns));
    let ntp = servers(
        &network.ntp,
        house.ntp.serve && asks_box(house, network, Service::Ntp),
    );
    lines.add(format!("dhcp-option=tag:{name},option:router,{own}"));
    // Without a value the option isn't sent; left out, dnsmasq would name itself.
    lines.add(format!(
        "dhcp-option=tag:{name},option:dns-server{}",
        after_comma(&dns)
    ));
    if !ntp.is_empty() {
        lines.add(format!("dhcp-option=tag:{name},option:ntp-server,{ntp}"));
    }
    if let Some(domain) = &network.domain {
        lines.add(format!(
            "dhcp-option=tag:{name},option:domain-name,{domain}"
        ));
    }
}

/// Whether machines on a network may use a service of the box.
fn asks_box(house: &House, network: &Network, service: Service) -> bool {
    let zone = house.zones.get(&network.zone);
    zone.is_some_and(|zone| {
        zone.services
            .iter()
            .any(|may| *may == service || *may == Service::All)
    })
}

fn after_comma(text: &str) -> String {
    if text.is_empty() {
        String::new()
    } else {
        format!(",{text}")
    }
}
