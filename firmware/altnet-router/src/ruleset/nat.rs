//! IPv4 by few addresses: what leads to whom, in whose name what goes out, and by which WAN what came in goes back.

use ipnet::IpNet;

use super::script::{Rule, Script, elements};
use super::{MARK_MASK, UPNP_TABLE, View, mark};
use crate::config::Protocol;
use crate::house::{Forward, Network};

/// A connection goes back by the WAN by which it came, and stays on the one by which it went.
pub(super) fn marks(view: &View, script: &mut Script) {
    if view.house.wans.len() < 2 {
        return;
    }
    let keep = !MARK_MASK;
    let each = |key: &str, script: &mut Script| {
        for (i, wan) in view.house.wans.iter().enumerate() {
            let rule = Rule::new()
                .through(key, &[&wan.interface])
                .and(format_args!(
                    "ct state new ct mark set ct mark & {keep:#010x} | {:#010x}",
                    mark(i)
                ));
            script.line(rule.text());
        }
    };
    script.hook("marks", "filter", "prerouting", "mangle", "accept");
    each("iifname", script);
    script.line(format_args!("iifname @house meta nfproto ipv4 ct mark & {MARK_MASK:#010x} != 0 meta mark set ct mark & {MARK_MASK:#010x}"));
    script.close();
    script.hook("marks_out", "filter", "postrouting", "mangle", "accept");
    each("oifname", script);
    script.close();
}

pub(super) fn destinations(view: &View, script: &mut Script) {
    if view.house.forwards.is_empty() {
        return;
    }
    script.hook("destinations", "nat", "prerouting", "dstnat", "accept");
    for forward in &view.house.forwards {
        let wans: Vec<&str> = forward.wans.iter().map(String::as_str).collect();
        let from: Vec<IpNet> = forward.from.iter().map(|net| IpNet::from(*net)).collect();
        let outside = Rule::new()
            .through("iifname", &wans)
            .and("meta nfproto ipv4 fib daddr type local")
            .addresses("saddr", &from);
        script.line(sent(forward, outside));
        let inside = inside(view, forward);
        if !forward.hairpin || inside.is_empty() {
            continue;
        }
        for wan in view
            .house
            .wans
            .iter()
            .filter(|wan| wans.contains(&wan.interface.as_str()))
        {
            let rule = Rule::new()
                .through("iifname", &inside)
                .and(format_args!("ip daddr @wan4_{}", wan.name));
            script.line(sent(forward, rule));
        }
    }
    script.close();
}

/// The bridges from which a forward works too: all if it is for anybody, else those that reach the machine anyway.
fn inside<'a>(view: &View<'a>, forward: &Forward) -> Vec<&'a str> {
    let target = view
        .house
        .networks
        .iter()
        .find(|network| network.bridge == forward.bridge);
    let reaches = |network: &&Network| {
        let (Some(target), Some(zone)) = (target, view.house.zones.get(&network.zone)) else {
            return false;
        };
        let is_same: bool =
            network.name == target.name || (network.zone == target.zone && zone.within);
        forward.from.is_empty() || is_same || zone.to.contains(&target.zone)
    };
    let networks = view.house.networks.iter().filter(reaches);
    networks.map(|network| network.bridge.as_str()).collect()
}

fn sent(forward: &Forward, rule: Rule) -> String {
    let rule = rule.at_ports(forward.protocol, &[forward.ports]);
    let (ports, to) = (forward.ports, forward.to);
    let rule = if ports == forward.to_ports {
        rule.and(format_args!("dnat ip to {to}"))
    } else if ports.span() == 0 {
        rule.and(format_args!("dnat ip to {to}:{}", forward.to_ports.first))
    } else {
        let key = match forward.protocol {
            Protocol::Tcp => "tcp dport",
            Protocol::Udp => "udp dport",
            _ => "th dport",
        };
        let pairs = (ports.first..=ports.last).zip(forward.to_ports.first..=forward.to_ports.last);
        let pairs = pairs.map(|(from, to)| format!("{from} : {to}"));
        rule.and(format_args!(
            "dnat ip to {to} : {key} map {}",
            elements(pairs)
        ))
    };
    rule.text()
}

pub(super) fn sources(view: &View, script: &mut Script) {
    script.hook("sources", "nat", "postrouting", "srcnat", "accept");
    let mut hairpins: Vec<String> = Vec::new();
    for forward in view.house.forwards.iter().filter(|forward| forward.hairpin) {
        // Who is on the same network has to get the answer from where it sent the question.
        let rule = Rule::new()
            .through("oifname", &[&forward.bridge])
            .addresses("saddr", &[forward.subnet.into()])
            .addresses("daddr", &[IpNet::from(ipnet::Ipv4Net::from(forward.to))])
            .and("ct status dnat masquerade");
        if !hairpins.contains(&rule.text()) {
            hairpins.push(rule.text());
        }
    }
    for rule in hairpins {
        script.line(rule);
    }
    let wans: Vec<&str> = view.wans().collect();
    if !wans.is_empty() {
        script.line("oifname @zone_wan meta nfproto ipv4 masquerade");
    }
    script.close();
}

/// miniupnpd's own table: made where it isn't, left as it is where it is, and gone where nobody may open ports.
pub(super) fn upnp(view: &View, script: &mut Script) {
    if view.house.upnp.is_empty() {
        script.line(format_args!("table inet {UPNP_TABLE}"));
        script.line(format_args!("delete table inet {UPNP_TABLE}"));
        return;
    }
    script.open(format_args!("table inet {UPNP_TABLE}"));
    script.hook("prerouting", "nat", "prerouting", "dstnat + 1", "accept");
    script.close();
    script.hook("postrouting", "nat", "postrouting", "srcnat + 1", "accept");
    script.close();
    script.hook("forward", "filter", "forward", "filter - 1", "accept");
    script.close();
    script.close();
}
