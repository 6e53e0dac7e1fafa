//! What works of the things that a house needs, as far as the router knows by itself, and whose fault it is if
//! something doesn't.
//!
//! The box's own are an interface that isn't there or not up, a daemon that ends, a ruleset that the kernel refuses.
//! Outside are a cable that isn't plugged in, a provider that gives no address, an internet that doesn't answer. A driver
//! that fails may look like that too: who decides about a new slot knows that ([`altnet_update::confirm`]).

use std::net::{IpAddr, SocketAddr};

use altnet_update::confirm::Finding;

use super::Machine;
use crate::house::{Network, Wan, Way};

/// Where names are asked for (RFC 1035 section 4.2).
const DNS_PORT: u16 = 53;

/// What the router knows without asking anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The way to the internet.
    pub wan: Finding,
    /// The house's side: a network with a link, on which addresses are given out.
    pub lan: Finding,
    /// Whom the house asks for names; None where there is no network.
    pub resolver: Option<SocketAddr>,
}

impl Machine {
    /// What works now.
    pub fn known(&self) -> Known {
        let networks = self.setting.house.networks();
        let resolver = networks.first().map(|network| {
            let own = network.ipv4.addr();
            let asked = network.resolvers.first().copied().unwrap_or(own);
            SocketAddr::new(IpAddr::V4(asked), DNS_PORT)
        });
        Known {
            wan: self.wan_finding(),
            lan: best(networks.iter().map(|network| self.on_network(network))),
            resolver,
        }
    }

    fn wan_finding(&self) -> Finding {
        if self.is_refused {
            return Finding::Here;
        }
        best(self.setting.house.wans().iter().map(|wan| self.on_wan(wan)))
    }

    fn on_wan(&self, wan: &Wan) -> Finding {
        let state = self.wan_state(wan);
        let has_address = matches!(wan.way, Way::Static(_)) || state.has(true) || state.has(false);
        let mut working = self.plan.working.iter();
        if has_address && working.any(|name| name.as_str() == wan.name.as_str()) {
            return Finding::Works;
        }
        let child = match wan.way {
            Way::Dhcp(_) => Some(format!("dhcpcd-{}", wan.name)),
            Way::Pppoe(_) => Some(format!("pppd-{}", wan.name)),
            Way::Static(_) => None,
        };
        let is_well = child.is_none_or(|child| self.children.is_well(&child));
        match self.links.get(&wan.line) {
            Some(line) if line.is_up && (is_well || !line.has_carrier) => Finding::Outside,
            _ => Finding::Here,
        }
    }

    fn on_network(&self, network: &Network) -> Finding {
        let has_address = self
            .plan
            .addresses
            .iter()
            .any(|address| address.link == network.bridge);
        let serves = network.dhcp.is_none() || self.children.is_well("dnsmasq");
        match self.links.get(&network.bridge) {
            // A bridge has a carrier if a port of it has.
            Some(bridge) if bridge.is_up && has_address && serves && !self.is_refused => {
                match bridge.has_carrier {
                    true => Finding::Works,
                    false => Finding::Outside,
                }
            }
            _ => Finding::Here,
        }
    }
}

/// One that works is enough; of those that don't, one that may be somebody else's fault.
fn best(findings: impl Iterator<Item = Finding>) -> Finding {
    let rank = |finding: &Finding| match finding {
        Finding::Works => 0,
        Finding::Outside => 1,
        Finding::Here => 2,
    };
    findings.min_by_key(rank).unwrap_or(Finding::Here)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{
        BARE, PPPOE, START, TWO_LINES, lease4, left, links, machine, told, working,
    };
    use super::super::{Applied, LinkFact};
    use super::*;

    /// What is known when the links `without` have no carrier and those `down` are down.
    fn known(text: &str, there: &[&str], without: &[&str], down: &[&str]) -> (Finding, Finding) {
        let mut machine = machine(text);
        let mut facts: Vec<LinkFact> = links(there);
        for fact in &mut facts {
            fact.has_carrier = !without.contains(&fact.name.as_str());
            fact.is_up = !down.contains(&fact.name.as_str());
        }
        machine.handle_links(facts, START);
        left(&mut machine);
        let known = machine.known();
        (known.wan, known.lan)
    }

    #[test]
    fn a_house_that_works_says_so() {
        let known = working(BARE).known();
        assert_eq!((known.wan, known.lan), (Finding::Works, Finding::Works));
        assert_eq!(known.resolver, Some("192.168.77.1:53".parse().unwrap()));
    }

    #[test]
    fn no_cable_and_no_answer_are_outside_and_no_interface_is_here() {
        use Finding::{Here, Outside, Works};
        let all = ["wan", "br-lan"];
        for (there, without, down, expected) in [
            (&all[..], &[][..], &[][..], (Outside, Works)),
            (&all, &["wan"], &[], (Outside, Works)),
            (&all, &["br-lan"], &[], (Outside, Outside)),
            (&all, &[], &["wan"], (Here, Works)),
            (&all, &[], &["br-lan"], (Outside, Here)),
            (&all[1..], &[], &[], (Here, Works)),
            (&all[..1], &[], &[], (Outside, Here)),
        ] {
            let found = known(BARE, there, without, down);
            assert_eq!(found, expected, "{there:?} {without:?} {down:?}");
        }
        assert_eq!(known(PPPOE, &all, &[], &[]), (Outside, Works));
    }

    #[test]
    fn a_daemon_that_ends_is_here_until_it_runs_again() {
        let mut machine = machine(BARE);
        machine.handle_links(links(&["wan", "br-lan"]), START);
        left(&mut machine);
        assert_eq!(machine.known().wan, Finding::Outside);
        machine.handle_ended("dhcpcd-wan", "exit code 1", START);
        machine.handle_ended("dnsmasq", "exit code 1", START);
        let known = machine.known();
        assert_eq!((known.wan, known.lan), (Finding::Here, Finding::Here));
        machine.handle_timeout(START + Duration::from_secs(2));
        let known = machine.known();
        assert_eq!((known.wan, known.lan), (Finding::Outside, Finding::Works));
        // What has a lease works on, though who got it is gone for a moment.
        machine.handle_told(told("wan", lease4("198.51.100.7/24")), START);
        machine.handle_ended("dhcpcd-wan", "signal 9", START + Duration::from_secs(9));
        assert_eq!(machine.known().wan, Finding::Works);
    }

    #[test]
    fn a_ruleset_that_is_refused_is_here_whatever_else_works() {
        let mut machine = working(BARE);
        let refused = Applied {
            refused: Some("syntax error".into()),
            ..Applied::default()
        };
        machine.handle_applied(refused, START);
        let known = machine.known();
        assert_eq!((known.wan, known.lan), (Finding::Here, Finding::Here));
        machine.handle_applied(Applied::default(), START);
        assert_eq!(machine.known().wan, Finding::Works);
    }

    #[test]
    fn of_two_lines_the_better_counts() {
        let two = ["wan", "lan4", "br-lan"];
        assert_eq!(
            known(TWO_LINES, &two[..1], &["wan"], &[]).0,
            Finding::Outside
        );
        assert_eq!(known(TWO_LINES, &[], &[], &[]).0, Finding::Here);
        assert_eq!(working(TWO_LINES).known().wan, Finding::Works);
    }
}
