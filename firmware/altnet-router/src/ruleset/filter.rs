//! What passes: spoofed sources, what is for the box, what is for others.

use ipnet::IpNet;

use super::script::{Rule, Script, elements};
use super::{View, quoted};
use crate::config::{Action, Addresses, Ipv6, Name, Reach, Service};
use crate::house;
use crate::house::{PPPOE_MTU_BYTES, Wan, Way, Zone};

const REFUSE: &str = "reject with icmpx type admin-prohibited";
const STATES: &str = "ct state vmap { established : accept, related : accept, invalid : drop }";
/// What IPv4 and IPv6 with TCP put before a segment, in bytes (RFC 9293 section 3.7.1).
const HEADERS4_BYTES: u16 = 40;
const HEADERS6_BYTES: u16 = 60;

/// A source that isn't behind the interface at which it comes in: of the house by its routes (RFC 2827); of the WANs, since there is more than one,
/// what is the house's own (RFC 3704 section 2.4).
pub(super) fn spoofed(view: &View, script: &mut Script) {
    script.hook("spoofed", "filter", "prerouting", "raw", "accept");
    script.line("iifname @house ip saddr 0.0.0.0 udp dport 67 accept");
    script.line("iifname @house ip6 saddr :: accept");
    script.line("iifname @house fib saddr . iif oif missing drop");
    if view.is_there(&wan()) {
        let bridges = elements(view.bridges().map(quoted));
        script.line(format_args!(
            "iifname @zone_wan fib saddr oifname {bridges} drop"
        ));
        script.line("iifname @zone_wan fib saddr type { local, broadcast, multicast } drop");
    }
    script.close();
}

/// What is for the box itself.
pub(super) fn input(view: &View, script: &mut Script) {
    let altnet = &view.house.altnet;
    script.hook("input", "filter", "input", "filter", "drop");
    script.line(STATES);
    script.line("iifname \"lo\" accept");
    // What came out of the tunnel has been judged by altnetd.
    script.line(format_args!("iifname {} accept", quoted(&altnet.tun)));
    script.line(format_args!("udp dport {} accept", altnet.listen_port));
    // RFC 4890 section 4.4.1: neighbour discovery, which no router forwards, and who listens to which group.
    script.line("ip6 hoplimit 255 icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, ind-neighbor-solicit, ind-neighbor-advert, 148, 149 } accept");
    script.line("iifname @house ip6 hoplimit 255 icmpv6 type nd-router-solicit accept");
    script.line("ip6 saddr { ::, fe80::/10 } icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report, 151, 152, 153 } accept");
    for wan in &view.house.wans {
        client_answers(wan, script);
    }
    dispatch(view, "input", script);
    script.line(format_args!("iifname @house {REFUSE}"));
    script.close();
    for (name, zone) in &view.zones {
        script.open(format_args!("chain input_{name}"));
        rules(view, name, true, script);
        services(view, zone, script);
        script.close();
    }
}

/// Answers to DHCP and DHCPv6, which come from whom nobody asked by address.
fn client_answers(wan: &Wan, script: &mut Script) {
    let on = Rule::new().through("iifname", &[&wan.interface]);
    if matches!(wan.way, Way::Dhcp(_)) {
        script.line(on.clone().and("udp sport 67 udp dport 68 accept").text());
    }
    if wan.ipv6 == Ipv6::Auto {
        script.line(
            on.and("ip6 saddr fe80::/10 ip6 daddr fe80::/10 udp dport 546 accept")
                .text(),
        );
    }
}

/// To the chain of the zone from which a packet comes.
fn dispatch(view: &View, hook: &str, script: &mut Script) {
    let of_zone = |(name, zone): (&&Name, &&Zone)| -> Vec<String> {
        let jump = |interface: &String| format!("{} : jump {hook}_{name}", quoted(interface));
        zone.interfaces.iter().map(jump).collect()
    };
    let jumps: Vec<String> = view.zones.iter().flat_map(of_zone).collect();
    if !jumps.is_empty() {
        script.line(format_args!("iifname vmap {}", elements(jumps.iter())));
    }
}

fn services(view: &View, zone: &Zone, script: &mut Script) {
    let has = |service| zone.services.contains(&service);
    if has(Service::All) {
        script.line("accept");
        return;
    }
    if has(Service::Dhcp) {
        script.line("udp dport { 67, 547 } accept");
    }
    if has(Service::Dns) {
        script.line("meta l4proto { tcp, udp } th dport 53 accept");
    }
    if has(Service::Ntp) && view.house.ntp.serve {
        script.line("udp dport 123 accept");
    }
    if has(Service::Ping) {
        script.line("icmp type echo-request limit rate 100/second accept");
        script.line("icmpv6 type echo-request limit rate 100/second accept");
    }
    let networks = view
        .house
        .networks
        .iter()
        .filter(|network| view.house.upnp.contains(&network.name));
    let bridges: Vec<&str> = networks.map(|network| network.bridge.as_str()).collect();
    for bridge in bridges
        .iter()
        .filter(|bridge| zone.interfaces.iter().any(|name| name == *bridge))
    {
        let on = Rule::new().through("iifname", &[bridge]);
        // SSDP, NAT-PMP and PCP, and UPnP's own.
        script.line(on.clone().and("udp dport { 1900, 5351 } accept").text());
        script.line(
            on.and(format_args!(
                "tcp dport {} accept",
                crate::services::UPNP_PORT
            ))
            .text(),
        );
    }
}

/// Nobody on a WAN hears that a port is closed.
pub(super) fn output(view: &View, script: &mut Script) {
    if !view.is_there(&wan()) {
        return;
    }
    script.hook("output", "filter", "output", "filter", "accept");
    for family in ["icmp", "icmpv6"] {
        script.line(format_args!("oifname @zone_wan {family} type destination-unreachable {family} code port-unreachable drop"));
    }
    script.close();
}

/// TCP is told how large a segment may be on a WAN, because the packets that would say so get lost on the internet.
pub(super) fn segments(view: &View, script: &mut Script) {
    if !view.is_there(&wan()) {
        return;
    }
    const SYN: &str = "tcp flags syn / syn,rst tcp option maxseg size set";
    script.hook("segments", "filter", "forward", "mangle", "accept");
    script.line(format_args!("oifname @zone_wan {SYN} rt mtu"));
    for wan in &view.house.wans {
        let usual = matches!(wan.way, Way::Pppoe(_)).then_some(PPPOE_MTU_BYTES);
        let Some(mtu) = wan.mtu_bytes.or(usual) else {
            continue;
        };
        let on = Rule::new().through("iifname", &[&wan.interface]);
        for (family, headers) in [("ipv4", HEADERS4_BYTES), ("ipv6", HEADERS6_BYTES)] {
            let rule = on.clone().and(format_args!(
                "meta nfproto {family} {SYN} {}",
                mtu.saturating_sub(headers)
            ));
            script.line(rule.text());
        }
    }
    script.close();
}

/// What is for others.
pub(super) fn forward(view: &View, script: &mut Script) {
    let tun = quoted(&view.house.altnet.tun);
    script.hook("forward", "filter", "forward", "filter", "drop");
    if !view.fast.is_empty() && view.is_there(&wan()) {
        let passes = "meta l4proto { tcp, udp } ct state established flow add @fast";
        script.line(format_args!("iifname @house oifname @zone_wan {passes}"));
        script.line(format_args!("iifname @zone_wan oifname @house {passes}"));
    }
    script.line(STATES);
    // Between the house and the private network altnetd judges each packet.
    script.line(format_args!("iifname @private oifname {tun} accept"));
    script.line(format_args!("iifname {tun} oifname @private accept"));
    script.line(format_args!("iifname {tun} {REFUSE}"));
    script.line(format_args!("iifname @house oifname {tun} {REFUSE}"));
    script.line(format_args!("oifname {tun} drop"));
    if view.is_there(&wan()) {
        // Addresses that are the house's own mean nothing to a provider (RFC 4193 section 4.3).
        for key in ["saddr", "daddr"] {
            script.line(format_args!(
                "oifname @zone_wan ip6 {key} fc00::/7 {REFUSE}"
            ));
        }
    }
    dispatch(view, "forward", script);
    script.line(format_args!("iifname @house {REFUSE}"));
    script.close();
    forwarded(view, script);
    for (name, zone) in &view.zones {
        script.open(format_args!("chain forward_{name}"));
        rules(view, name, false, script);
        if !view.house.forwards.is_empty() {
            script.line("ct status dnat jump forwarded");
        }
        if name.as_str() == "wan" {
            from_wan(view, script);
        }
        for to in zone.to.iter().filter(|to| view.is_there(to)) {
            script.line(format_args!("oifname @zone_{to} accept"));
        }
        if zone.within {
            script.line(format_args!("oifname @zone_{name} accept"));
        }
        script.close();
    }
}

/// What a forward has sent to a machine.
fn forwarded(view: &View, script: &mut Script) {
    if view.house.forwards.is_empty() {
        return;
    }
    script.open("chain forwarded");
    for forward in &view.house.forwards {
        let to = Rule::new()
            .through("oifname", &[&forward.bridge])
            .addresses("daddr", &[IpNet::from(ipnet::Ipv4Net::from(forward.to))])
            .at_ports(forward.protocol, &[forward.to_ports])
            .and("accept");
        script.line(to.text());
    }
    script.close();
}

/// What the house is reached by from outside, beside forwards and rules.
fn from_wan(view: &View, script: &mut Script) {
    let upnp = view
        .house
        .networks
        .iter()
        .filter(|network| view.house.upnp.contains(&network.name));
    let upnp: Vec<&str> = upnp.map(|network| network.bridge.as_str()).collect();
    if !upnp.is_empty() {
        // What miniupnpd has sent to the machine that asked for it.
        script.line(
            Rule::new()
                .through("oifname", &upnp)
                .and("ct status dnat accept")
                .text(),
        );
    }
    for pinhole in &view.house.pinholes {
        let from: Vec<IpNet> = pinhole.from.iter().map(|net| IpNet::from(*net)).collect();
        let suffix = std::net::Ipv6Addr::from_bits(pinhole.suffix.into());
        let rule = Rule::new()
            .through("oifname", &[&pinhole.bridge])
            .and(format_args!(
                "ip6 daddr & ::ffff:ffff:ffff:ffff == {suffix}"
            ))
            .addresses("saddr", &from)
            .at_ports(pinhole.protocol, &pinhole.ports)
            .and("accept");
        script.line(rule.text());
    }
    // RFC 4890 section 4.3.1. Errors are related to what they are about.
    script.line("oifname @house icmpv6 type echo-request limit rate 100/second accept");
}

/// The file's rules for what comes from a zone: to the box, or to others.
fn rules(view: &View, from: &Name, to_box: bool, script: &mut Script) {
    for rule in view.house.rules.iter().filter(|rule| rule.from == *from) {
        let to = match (&rule.to, to_box) {
            (Reach::Router, true) | (Reach::Any, false) => String::new(),
            (Reach::Zone(zone), false) if view.is_there(zone) => format!("oifname @zone_{zone}"),
            _ => continue,
        };
        let verdict = match rule.action {
            Action::Accept => "accept",
            Action::Refuse if from.as_str() == "wan" => "drop",
            Action::Refuse => REFUSE,
        };
        for words in families(rule, &Rule::new().and(to)) {
            script.line(
                words
                    .at_ports(rule.protocol, &rule.ports)
                    .and(verdict)
                    .text(),
            );
        }
    }
}

/// One rule for both families where it names no address, else one for each family whose addresses it names.
fn families(rule: &house::Rule, words: &Rule) -> Vec<Rule> {
    if rule.source.is_empty() && rule.destination.is_empty() {
        return vec![words.clone()];
    }
    let of = |list: &[Addresses], is_v4: bool| -> Option<Vec<IpNet>> {
        let nets = list.iter().map(|Addresses(net)| *net);
        let nets: Vec<IpNet> = nets.filter(|net| net.addr().is_ipv4() == is_v4).collect();
        (list.is_empty() || !nets.is_empty()).then_some(nets)
    };
    let family = |is_v4| {
        let (source, destination) = (of(&rule.source, is_v4)?, of(&rule.destination, is_v4)?);
        Some(
            words
                .clone()
                .addresses("saddr", &source)
                .addresses("daddr", &destination),
        )
    };
    [true, false].into_iter().filter_map(family).collect()
}

fn wan() -> Name {
    "wan".parse().expect("it is a name")
}
