//! Addresses, routes and the routing policy.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{Address, FIRST_TABLE, MAIN_TABLE, PolicyRule, RULE_PRIORITIES, Route, RouteTo, World};
use crate::config::Ipv6;
use crate::house::{House, Network, OWN_SUFFIX, Wan, Way};
use crate::plan::world::{Delegated, WanState};
use crate::ruleset::{MARK_MASK, mark};

/// The metric of the preferred WAN's default route; those of the others follow.
const FIRST_METRIC: u32 = 1024;
const METRIC_STEP: u32 = 64;
/// The metric of routes that only count when there is no other.
const LAST_METRIC: u32 = u32::MAX - 2;
/// Where among [`RULE_PRIORITIES`] the rules are that say from where, and those that go by marks; a WAN has some of each.
const BY_SOURCE: u32 = 100;
const BY_MARK: u32 = 500;
const RULES_OF_A_WAN: u32 = 20;

/// A WAN with what is known of it now.
pub(super) struct Line<'a> {
    pub(super) wan: &'a Wan,
    /// Its place in the file.
    place: usize,
    state: Option<&'a WanState>,
    is_up: bool,
    /// Up, and nobody says that nothing is behind it.
    pub(super) works: bool,
}

/// The WANs in the order in which they are preferred: those that work, those that are up, the others.
pub(super) fn lines<'a>(house: &'a House, world: &'a World) -> Vec<Line<'a>> {
    let line = |(place, wan): (usize, &'a Wan)| {
        let state = world.wans.get(&wan.name);
        let is_up = state.is_some_and(|state| state.is_up);
        Line {
            wan,
            place,
            state,
            is_up,
            works: is_up && state.and_then(|state| state.answers) != Some(false),
        }
    };
    let mut lines: Vec<Line> = house.wans.iter().enumerate().map(line).collect();
    lines.sort_by_key(|line| (!line.works, !line.is_up, line.place));
    lines
}

impl Line<'_> {
    fn table(&self) -> u32 {
        FIRST_TABLE + u32::try_from(self.place).unwrap_or(0)
    }

    /// The prefixes for the house, and whether they are the provider's word or the file's.
    fn prefixes(&self) -> Vec<Delegated> {
        let mut prefixes = match (&self.wan.ipv6, self.state) {
            (Ipv6::Static(fixed), _) => {
                let forever = fixed.prefix.map(|net| Delegated {
                    net,
                    valid_until_s: None,
                    preferred_until_s: None,
                });
                forever.into_iter().collect()
            }
            (Ipv6::Auto, Some(state)) => state.prefixes.clone(),
            (Ipv6::Auto, None) | (Ipv6::Off, _) => Vec::new(),
        };
        prefixes.sort_by_key(|prefix| prefix.net);
        prefixes.dedup_by_key(|prefix| prefix.net);
        prefixes
    }

    /// Where the default route of a family leads, if there is one.
    fn default(&self, is_v4: bool) -> Option<RouteTo> {
        let state = self.state.filter(|_| self.is_up)?;
        let link = self.wan.interface.clone();
        let by = |gateway: IpAddr| RouteTo::Via {
            link: link.clone(),
            gateway,
        };
        if is_v4 {
            return match &self.wan.way {
                Way::Static(fixed) => fixed.as_ref().map(|fixed| by(fixed.gateway.into())),
                Way::Dhcp(_) => state.gateway4.map(|gateway| by(gateway.into())),
                Way::Pppoe(_) => state.has(true).then(|| RouteTo::Link(link.clone())),
            };
        }
        match (&self.wan.ipv6, state.gateway6) {
            (Ipv6::Off, _) => None,
            (Ipv6::Static(fixed), _) => Some(by(fixed.gateway.into())),
            (Ipv6::Auto, Some(gateway)) => Some(by(gateway.into())),
            (Ipv6::Auto, None) => {
                let by_session = matches!(self.wan.way, Way::Pppoe(_))
                    && (state.has(false) || !state.prefixes.is_empty());
                by_session.then(|| RouteTo::Link(link.clone()))
            }
        }
    }

    /// What is sent from here goes out here: the WAN's own addresses and its prefixes.
    fn sources(&self) -> BTreeSet<IpNet> {
        let leased = self
            .state
            .into_iter()
            .flat_map(|state| &state.addresses)
            .map(|leased| leased.net.addr());
        let fixed4 = self.wan.address4().map(|net| net.addr().into());
        let fixed6 = match &self.wan.ipv6 {
            Ipv6::Static(fixed) => Some(fixed.address.addr().into()),
            Ipv6::Auto | Ipv6::Off => None,
        };
        let is_routed = |address: &IpAddr| !matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let alone = leased
            .chain(fixed4)
            .chain(fixed6)
            .filter(is_routed)
            .map(IpNet::from);
        alone
            .chain(
                self.prefixes()
                    .into_iter()
                    .map(|prefix| prefix.net.trunc().into()),
            )
            .collect()
    }
}

pub(super) fn addresses(
    house: &House,
    world: &World,
    lines: &[Line],
    troubles: &mut Vec<String>,
) -> Vec<Address> {
    let forever = |link: &str, net: IpNet| Address {
        link: link.into(),
        net,
        valid_until_s: None,
        preferred_until_s: None,
    };
    let mut all = Vec::new();
    for wan in &house.wans {
        all.extend(
            wan.address4()
                .map(|net| forever(&wan.interface, net.into())),
        );
        if let Ipv6::Static(fixed) = &wan.ipv6 {
            all.push(forever(&wan.interface, fixed.address.into()));
        }
    }
    let some_work = lines.iter().any(|line| line.works);
    for network in &house.networks {
        all.push(forever(&network.bridge, network.ipv4.into()));
        if !network.ipv6 {
            continue;
        }
        all.extend(
            network
                .address6
                .map(|net| forever(&network.bridge, net.into())),
        );
        let mut current = BTreeSet::new();
        for line in lines {
            for prefix in line.prefixes() {
                let Some(net) = own_address(&prefix.net, network.subnet) else {
                    troubles.push(format!(
                        "the network {} has no subnet {} of the prefix {} of the WAN {}; ask the provider for a shorter one",
                        network.name, network.subnet, prefix.net, line.wan.name
                    ));
                    continue;
                };
                // Machines leave a prefix whose WAN leads nowhere, as long as there is another (RFC 7084 L-13).
                let is_left = !line.works && some_work;
                current.insert(net);
                all.push(Address {
                    link: network.bridge.clone(),
                    net: net.into(),
                    valid_until_s: prefix.valid_until_s,
                    preferred_until_s: if is_left {
                        Some(0)
                    } else {
                        prefix.preferred_until_s
                    },
                });
            }
        }
        all.extend(stale(network, world, &current));
    }
    all
}

/// Prefixes of before, deprecated for as long as machines may still have addresses of them.
fn stale<'a>(
    network: &'a Network,
    world: &'a World,
    current: &'a BTreeSet<Ipv6Net>,
) -> impl Iterator<Item = Address> {
    let is_stale =
        |stale: &&super::Stale| stale.network == network.name && !current.contains(&stale.address);
    world.stale.iter().filter(is_stale).map(|stale| Address {
        link: network.bridge.clone(),
        net: stale.address.into(),
        valid_until_s: Some(stale.until_s),
        preferred_until_s: Some(0),
    })
}

/// The box's own address in a subnet of a prefix, if the prefix has such a subnet.
pub fn own_address(prefix: &Ipv6Net, subnet: u16) -> Option<Ipv6Net> {
    let bits = 64_u8.checked_sub(prefix.prefix_len())?;
    if u64::from(subnet).checked_shr(bits.into()).unwrap_or(0) != 0 {
        return None;
    }
    let upper = prefix.network().to_bits() | (u128::from(subnet) << 64);
    Ipv6Net::new(Ipv6Addr::from_bits(upper | u128::from(OWN_SUFFIX)), 64).ok()
}

pub(super) fn routes(lines: &[Line]) -> Vec<Route> {
    let has_tables = lines.len() > 1;
    let mut routes = BTreeSet::new();
    for (rank, line) in lines.iter().enumerate() {
        let metric = FIRST_METRIC + METRIC_STEP * u32::try_from(rank).unwrap_or(0);
        for (is_v4, net) in [
            (true, IpNet::from(Ipv4Net::default())),
            (false, Ipv6Net::default().into()),
        ] {
            let Some(to) = line.default(is_v4) else {
                continue;
            };
            let default = |table, metric| Route {
                table,
                destination: net,
                to: to.clone(),
                metric,
                source: None,
            };
            routes.insert(default(MAIN_TABLE, metric));
            if has_tables {
                routes.insert(default(line.table(), FIRST_METRIC));
            }
        }
        // What of a prefix no network has doesn't go back to the provider (RFC 7084 WPD-5).
        routes.extend(line.prefixes().into_iter().map(|prefix| Route {
            table: MAIN_TABLE,
            destination: prefix.net.trunc().into(),
            to: RouteTo::Unreachable,
            metric: LAST_METRIC,
            source: None,
        }));
    }
    routes.into_iter().collect()
}

/// With several WANs: what the main table knows of first, without its defaults; then by source and mark.
pub(super) fn rules(lines: &[Line]) -> Vec<PolicyRule> {
    if lines.len() < 2 {
        return Vec::new();
    }
    let first = *RULE_PRIORITIES.start();
    let mut rules: Vec<PolicyRule> = [4, 6]
        .map(|family| PolicyRule {
            priority: first,
            family,
            from: None,
            mark: None,
            table: MAIN_TABLE,
            suppress_prefix_length: Some(0),
        })
        .into();
    for line in lines {
        let room = RULES_OF_A_WAN * u32::try_from(line.place).unwrap_or(0);
        let rule = |priority, family| PolicyRule {
            priority,
            family,
            from: None,
            mark: None,
            table: line.table(),
            suppress_prefix_length: None,
        };
        for (n, source) in (0..RULES_OF_A_WAN).zip(line.sources()) {
            let family = if source.addr().is_ipv4() { 4 } else { 6 };
            rules.push(PolicyRule {
                from: Some(source),
                ..rule(first + BY_SOURCE + room + n, family)
            });
        }
        rules.push(PolicyRule {
            mark: Some((mark(line.place), MARK_MASK)),
            ..rule(first + BY_MARK + room, 4)
        });
    }
    rules.sort();
    rules
}
