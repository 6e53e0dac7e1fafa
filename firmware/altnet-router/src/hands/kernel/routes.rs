//! Routes, and the rules by which tables are chosen.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::super::netlink::Netlink;
use super::Indexes;
use super::addresses::family;
use crate::plan::{Plan, PolicyRule, ROUTE_PROTOCOL, RULE_PRIORITIES, Route, RouteTo};

/// The largest table whose number fits where it was first (rtnetlink(7), rtm_table).
const LAST_SMALL_TABLE: u32 = 255;

/// A route, as the kernel names things.
#[derive(Clone, Debug, PartialEq, Eq)]
struct One {
    table: u32,
    destination: IpNet,
    to: To,
    metric: u32,
    source: Option<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Via(u32, IpAddr),
    Link(u32),
    Unreachable,
}

pub(super) fn is_ours(message: &RouteMessage) -> bool {
    One::read(message).is_some()
}

pub(super) fn is_our_rule(message: &RuleMessage) -> bool {
    read_rule(message).is_some()
}

pub(super) fn apply(
    netlink: &mut Netlink,
    plan: &Plan,
    indexes: &Indexes,
    troubles: &mut Vec<String>,
) {
    let mut wanted = Vec::new();
    for route in &plan.routes {
        wanted.extend(resolved(route, indexes, troubles));
    }
    if let Err(e) = apply_routes(netlink, &wanted, troubles) {
        troubles.push(format!("can't list routes: {e}"));
    }
    if let Err(e) = apply_rules(netlink, &plan.rules, troubles) {
        troubles.push(format!("can't list rules of the routing policy: {e}"));
    }
}

fn resolved(route: &Route, indexes: &Indexes, troubles: &mut Vec<String>) -> Option<One> {
    let what = format!("the route to {}", route.destination);
    let to = match &route.to {
        RouteTo::Via { link, gateway } => To::Via(indexes.find(link, &what, troubles)?, *gateway),
        RouteTo::Link(link) => To::Link(indexes.find(link, &what, troubles)?),
        RouteTo::Unreachable => To::Unreachable,
    };
    Some(One {
        table: route.table,
        destination: route.destination.trunc(),
        to,
        metric: route.metric,
        source: route.source,
    })
}

fn apply_routes(
    netlink: &mut Netlink,
    wanted: &[One],
    troubles: &mut Vec<String>,
) -> io::Result<()> {
    let found = read_routes(netlink)?;
    // What is new first, so that there is no moment without a way.
    for new in wanted.iter().filter(|new| !found.contains(new)) {
        let message = RouteNetlinkMessage::NewRoute(new.message());
        if let Err(e) = netlink.change(message, NLM_F_CREATE | NLM_F_REPLACE) {
            troubles.push(format!("can't add the route to {}: {e}", new.destination));
        }
    }
    for old in found.iter().filter(|old| !wanted.contains(old)) {
        // One that took this one's place has replaced it.
        let is_replaced = wanted.iter().any(|new| new.has_place_of(old));
        if is_replaced && old.destination.addr().is_ipv4() {
            continue;
        }
        match netlink.change(RouteNetlinkMessage::DelRoute(old.message()), 0) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => {
                troubles.push(format!(
                    "can't remove the route to {}: {e}",
                    old.destination
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_routes(netlink: &mut Netlink) -> io::Result<Vec<One>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let answers = netlink.list(&RouteNetlinkMessage::GetRoute(request))?;
        found.extend(answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message) => One::read(&message),
            _ => None,
        }));
    }
    Ok(found)
}

impl One {
    /// Whether both can't be in a table at once.
    fn has_place_of(&self, other: &Self) -> bool {
        (self.table, self.destination, self.metric)
            == (other.table, other.destination, other.metric)
    }

    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.destination.addr());
        header.destination_prefix_length = self.destination.prefix_len();
        header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
        header.kind = match self.to {
            To::Via(..) | To::Link(_) => RouteType::Unicast,
            To::Unreachable => RouteType::Unreachable,
        };
        header.scope = match self.to {
            To::Link(_) if self.destination.addr().is_ipv4() => RouteScope::Link,
            _ => RouteScope::Universe,
        };
        if self.table <= LAST_SMALL_TABLE {
            header.table = self.table as u8;
        }
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if self.destination.prefix_len() > 0 {
            let address = RouteAddress::from(self.destination.addr());
            attributes.push(RouteAttribute::Destination(address));
        }
        attributes.push(RouteAttribute::Priority(self.metric));
        attributes.extend(self.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
        match self.to {
            To::Via(index, gateway) => {
                header.flags = RouteFlags::Onlink;
                attributes.push(RouteAttribute::Oif(index));
                attributes.push(RouteAttribute::Gateway(gateway.into()));
            }
            To::Link(index) => attributes.push(RouteAttribute::Oif(index)),
            To::Unreachable => {}
        }
        message
    }

    /// Reads a route of a plan's; nothing if it is somebody else's.
    fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        if u8::from(header.protocol) != ROUTE_PROTOCOL {
            return None;
        }
        let everywhere: IpAddr = match header.address_family {
            AddressFamily::Inet => [0; 4].into(),
            AddressFamily::Inet6 => [0; 16].into(),
            _ => return None,
        };
        let (mut destination, mut metric, mut source) = (everywhere, 0, None);
        let (mut table, mut link, mut gateway) = (header.table.into(), None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Table(number) => table = *number,
                RouteAttribute::Destination(to) => destination = ip(to)?,
                RouteAttribute::Priority(number) => metric = *number,
                RouteAttribute::PrefSource(from) => source = ip(from),
                RouteAttribute::Oif(index) => link = Some(*index),
                RouteAttribute::Gateway(through) => gateway = ip(through),
                _ => {}
            }
        }
        let to = match (header.kind, gateway) {
            (RouteType::Unicast, Some(gateway)) => To::Via(link?, gateway),
            (RouteType::Unicast, None) => To::Link(link?),
            (RouteType::Unreachable, _) => To::Unreachable,
            _ => return None,
        };
        Some(Self {
            table,
            destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
            to,
            metric,
            source,
        })
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

fn apply_rules(
    netlink: &mut Netlink,
    wanted: &[PolicyRule],
    troubles: &mut Vec<String>,
) -> io::Result<()> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RuleMessage::default();
        request.header.family = family;
        let answers = netlink.list(&RouteNetlinkMessage::GetRule(request))?;
        found.extend(answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRule(message) => read_rule(&message),
            _ => None,
        }));
    }
    for new in wanted.iter().filter(|new| !found.contains(new)) {
        let message = RouteNetlinkMessage::NewRule(rule_message(new));
        if let Err(e) = netlink.change(message, NLM_F_CREATE | NLM_F_EXCL) {
            troubles.push(format!(
                "can't add the rule of priority {}: {e}",
                new.priority
            ));
        }
    }
    for old in found.iter().filter(|old| !wanted.contains(old)) {
        let message = RouteNetlinkMessage::DelRule(rule_message(old));
        if let Err(e) = netlink.change(message, 0) {
            troubles.push(format!(
                "can't remove the rule of priority {}: {e}",
                old.priority
            ));
        }
    }
    Ok(())
}

fn rule_message(rule: &PolicyRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    let header = &mut message.header;
    header.family = if rule.family == 4 {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    header.action = RuleAction::ToTable;
    if rule.table <= LAST_SMALL_TABLE {
        header.table = rule.table as u8;
    }
    let attributes = &mut message.attributes;
    if let Some(from) = rule.from {
        header.src_len = from.prefix_len();
        attributes.push(RuleAttribute::Source(from.trunc().addr()));
    }
    if let Some((mark, mask)) = rule.mark {
        attributes.push(RuleAttribute::FwMark(mark));
        attributes.push(RuleAttribute::FwMask(mask));
    }
    if let Some(length) = rule.suppress_prefix_length {
        attributes.push(RuleAttribute::SuppressPrefixLen(length.into()));
    }
    attributes.push(RuleAttribute::Table(rule.table));
    attributes.push(RuleAttribute::Priority(rule.priority));
    attributes.push(RuleAttribute::Protocol(RouteProtocol::from(ROUTE_PROTOCOL)));
    message
}

/// Reads a rule of a plan's; nothing if it is somebody else's.
fn read_rule(message: &RuleMessage) -> Option<PolicyRule> {
    let header = &message.header;
    let family = match header.family {
        AddressFamily::Inet => 4,
        AddressFamily::Inet6 => 6,
        _ => return None,
    };
    let mut rule = PolicyRule {
        priority: 0,
        family,
        from: None,
        mark: None,
        table: header.table.into(),
        suppress_prefix_length: None,
    };
    let (mut is_ours, mut mask) = (false, u32::MAX);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => rule.priority = *number,
            RuleAttribute::Source(from) => rule.from = IpNet::new(*from, header.src_len).ok(),
            RuleAttribute::FwMark(mark) => rule.mark = Some((*mark, u32::MAX)),
            RuleAttribute::FwMask(found) => mask = *found,
            RuleAttribute::Table(table) => rule.table = *table,
            // Without one the kernel says -1.
            RuleAttribute::SuppressPrefixLen(length) => {
                rule.suppress_prefix_length = u8::try_from(*length).ok();
            }
            RuleAttribute::Protocol(found) => is_ours = u8::from(*found) == ROUTE_PROTOCOL,
            _ => {}
        }
    }
    rule.mark = rule.mark.map(|(mark, _)| (mark, mask));
    (is_ours && RULE_PRIORITIES.contains(&rule.priority)).then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_reads_back_from_its_message() {
        let check = |destination: &str, to, source: Option<&str>| {
            let one = One {
                table: 1100,
                destination: destination.parse().unwrap(),
                to,
                metric: 100,
                source: source.map(|ip| ip.parse().unwrap()),
            };
            assert_eq!(One::read(&one.message()), Some(one));
        };
        check(
            "0.0.0.0/0",
            To::Via(3, [192, 0, 2, 1].into()),
            Some("192.0.2.2"),
        );
        check("::/0", To::Via(3, "fe80::1".parse().unwrap()), None);
        check("192.0.2.0/24", To::Link(3), None);
        check("2001:db8::/56", To::Unreachable, None);
    }

    #[test]
    fn somebody_elses_route_is_none_of_a_plan() {
        let one = One {
            table: 254,
            destination: "0.0.0.0/0".parse().unwrap(),
            to: To::Link(3),
            metric: 0,
            source: None,
        };
        let mut message = one.message();
        message.header.protocol = RouteProtocol::Dhcp;
        assert_eq!(One::read(&message), None);
    }

    #[test]
    fn a_rule_reads_back_from_its_message() {
        let rule = PolicyRule {
            priority: 11010,
            family: 6,
            from: Some("2001:db8::/56".parse().unwrap()),
            mark: Some((0x100, 0xff00)),
            table: 1101,
            suppress_prefix_length: Some(0),
        };
        assert_eq!(read_rule(&rule_message(&rule)), Some(rule.clone()));
        let above = PolicyRule {
            priority: 32766,
            ..rule
        };
        assert_eq!(read_rule(&rule_message(&above)), None);
    }
}
