//! The firewall: one nftables script for the table `inet altnet_router`, replaced as one transaction.
//!
//! In: a house, and of the world the WANs' addresses and which interfaces are there. Out: text for `nft -f -`. What isn't
//! allowed is refused, on both families alike; who is on a WAN hears nothing. Nothing of anybody else's table is
//! touched; what altnetd and miniupnpd do is let through where it is theirs to judge.
//!
//! Source: RFC 2827 and 3704 (spoofed sources), RFC 4890 (ICMPv6), RFC 6092 (simple security).

use std::collections::BTreeMap;

use crate::config::Name;
use crate::house::{House, Network, Zone};
use crate::plan::World;

mod filter;
mod nat;
mod script;

use script::{Script, elements};

/// The table.
pub const TABLE: &str = "altnet_router";
/// miniupnpd's, so that what machines opened outlasts a change of the rules.
pub const UPNP_TABLE: &str = "altnet_upnp";
/// The bits of a mark that say by which WAN a connection came: the first is 1, from the lowest of these bits.
pub const MARK_MASK: u32 = 0x00ff_0000;

/// The mark of the WAN at this place in the file.
pub fn mark(place: usize) -> u32 {
    let number = u32::try_from(place + 1).unwrap_or(0);
    (number << MARK_MASK.trailing_zeros()) & MARK_MASK
}

/// The whole script.
pub fn render(house: &House, world: &World) -> String {
    let view = View::new(house, world);
    let mut script = Script::default();
    script.line(format_args!("table inet {TABLE}"));
    script.line(format_args!("delete table inet {TABLE}"));
    script.open(format_args!("table inet {TABLE}"));
    sets(&view, &mut script);
    filter::spoofed(&view, &mut script);
    filter::input(&view, &mut script);
    filter::output(&view, &mut script);
    filter::segments(&view, &mut script);
    filter::forward(&view, &mut script);
    nat::marks(&view, &mut script);
    nat::destinations(&view, &mut script);
    nat::sources(&view, &mut script);
    script.close();
    nat::upnp(&view, &mut script);
    script.text()
}

/// What chains are made of.
struct View<'a> {
    house: &'a House,
    world: &'a World,
    /// Zones that have an interface.
    zones: BTreeMap<&'a Name, &'a Zone>,
    /// Interfaces between which connections are offloaded; empty if they aren't.
    fast: Vec<String>,
}

impl<'a> View<'a> {
    fn new(house: &'a House, world: &'a World) -> Self {
        let zones = house
            .zones
            .iter()
            .filter(|(_, zone)| !zone.interfaces.is_empty());
        Self {
            house,
            world,
            zones: zones.collect(),
            fast: fast(house, world),
        }
    }

    fn is_there(&self, zone: &Name) -> bool {
        self.zones.contains_key(zone)
    }

    fn bridges(&self) -> impl Iterator<Item = &'a str> {
        self.house
            .networks
            .iter()
            .map(|network| network.bridge.as_str())
    }

    fn wans(&self) -> impl Iterator<Item = &'a str> {
        self.house.wans.iter().map(|wan| wan.interface.as_str())
    }

    /// The bridges of networks whose zone is private.
    fn private(&self) -> Vec<&'a str> {
        let is_private = |network: &&Network| {
            self.house
                .zones
                .get(&network.zone)
                .is_some_and(|zone| zone.private)
        };
        let networks = self.house.networks.iter().filter(is_private);
        networks.map(|network| network.bridge.as_str()).collect()
    }
}

/// A flow table takes interfaces that are there alone. Bridges are, since a plan makes them first.
fn fast(house: &House, world: &World) -> Vec<String> {
    if !house.offload.enabled || !world.has_flow_tables {
        return Vec::new();
    }
    let wans = house.wans.iter().map(|wan| &wan.interface);
    let wans = wans.filter(|name| world.present.contains(*name));
    let bridges = house.networks.iter().map(|network| &network.bridge);
    bridges.chain(wans).cloned().collect()
}

fn sets(view: &View, script: &mut Script) {
    for (name, zone) in &view.zones {
        set(
            script,
            &format!("zone_{name}"),
            "ifname",
            zone.interfaces.iter().map(|name| quoted(name)),
        );
    }
    set(script, "house", "ifname", view.bridges().map(quoted));
    set(
        script,
        "private",
        "ifname",
        view.private().into_iter().map(quoted),
    );
    for wan in &view.house.wans {
        let state = view.world.wans.get(&wan.name);
        let leased = state
            .into_iter()
            .flat_map(|state| &state.addresses)
            .map(|leased| leased.net.addr());
        let own = wan.address4().map(|net| net.addr().into());
        let mut addresses: Vec<_> = leased
            .chain(own)
            .filter(std::net::IpAddr::is_ipv4)
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        set(
            script,
            &format!("wan4_{}", wan.name),
            "ipv4_addr",
            addresses.into_iter(),
        );
    }
    if !view.fast.is_empty() {
        script.open("flowtable fast");
        let devices = view.fast.iter().map(|name| quoted(name));
        script.line(format_args!(
            "hook ingress priority filter; devices = {};",
            elements(devices)
        ));
        script.close();
    }
}

fn set<T: ToString>(script: &mut Script, name: &str, kind: &str, items: impl Iterator<Item = T>) {
    let items: Vec<String> = items.map(|item| item.to_string()).collect();
    script.open(format_args!("set {name}"));
    script.line(format_args!("type {kind};"));
    if !items.is_empty() {
        script.line(format_args!("elements = {};", elements(items.into_iter())));
    }
    script.close();
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}
