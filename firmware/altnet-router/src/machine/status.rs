//! What there is to tell of the router.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::Serialize;

use super::{ChildStatus, Machine};
use crate::config::Name;
use crate::plan::WanState;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
#[non_exhaustive]
pub enum Event {
    /// A file is on trial.
    Trial {
        /// For how many seconds.
        lasts_s: u64,
    },
    /// It is the file in force.
    Confirmed,
    /// It isn't any more, and the one before is.
    TakenBack {
        /// Why.
        why: &'static str,
    },
    /// A WAN began to work, or ceased to.
    Wan {
        /// Which.
        wan: Name,
        /// Whether it works.
        works: bool,
    },
    /// A child ended by itself.
    ChildEnded {
        /// Which.
        name: String,
        /// How.
        how: String,
        /// After how many seconds it is started again.
        rest_s: u64,
    },
    /// Something didn't work, and is tried again.
    Trouble {
        /// What, and why.
        what: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trial { lasts_s } => {
                write!(f, "a file is on trial; confirm it within {lasts_s} s")
            }
            Self::Confirmed => f.write_str("the file on trial was confirmed"),
            Self::TakenBack { why } => write!(f, "the file on trial was taken back: {why}"),
            Self::Wan { wan, works: true } => write!(f, "{wan} works"),
            Self::Wan { wan, works: false } => write!(f, "{wan} doesn't work any more"),
            Self::ChildEnded { name, how, rest_s } => {
                write!(f, "{name} ended ({how}); it is started again in {rest_s} s")
            }
            Self::Trouble { what } => f.write_str(what),
        }
    }
}

/// The router at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How many seconds a file on trial has left; None if none is.
    pub trial_left_s: Option<u64>,
    /// The ways to the internet, the preferred one first.
    pub wans: Vec<WanStatus>,
    /// The networks of the house.
    pub networks: Vec<NetworkStatus>,
    /// Other people's daemons.
    pub children: Vec<ChildStatus>,
    /// Whom the box asks for names.
    pub resolvers: Vec<IpAddr>,
    /// What doesn't work, and is tried again.
    pub troubles: Vec<String>,
}

/// A way to the internet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WanStatus {
    /// Its name.
    pub name: Name,
    /// Its interface.
    pub interface: String,
    /// Whether it can be used now.
    pub works: bool,
    /// What is known of it.
    #[serde(flatten)]
    pub state: WanState,
}

/// A network of the house.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NetworkStatus {
    /// Its name.
    pub name: Name,
    /// Its bridge.
    pub bridge: String,
    /// The box's addresses on it.
    pub addresses: Vec<IpNet>,
}

impl Machine {
    /// The router at a glance.
    pub fn status(&self, now: Duration) -> Status {
        let plan = self.plan();
        let wans = self.setting.house.wans().iter().map(|wan| WanStatus {
            name: wan.name.clone(),
            interface: wan.interface.clone(),
            works: plan
                .working
                .iter()
                .any(|name| name.as_str() == wan.name.as_str()),
            state: self.wan_state(wan),
        });
        let networks = self.setting.house.networks().iter().map(|network| {
            let on_it = plan
                .addresses
                .iter()
                .filter(|address| address.link == network.bridge);
            NetworkStatus {
                name: network.name.clone(),
                bridge: network.bridge.clone(),
                addresses: on_it.map(|address| address.net).collect(),
            }
        });
        Status {
            trial_left_s: self.trial_left(now).map(|left| left.as_secs()),
            wans: wans.collect(),
            networks: networks.collect(),
            children: self.children.status(),
            resolvers: plan.resolvers.clone(),
            troubles: plan
                .troubles
                .iter()
                .chain(&self.troubles)
                .cloned()
                .chain(self.sessions_missed())
                .collect(),
        }
    }

    /// WANs that get no session, each with the reason.
    fn sessions_missed(&self) -> impl Iterator<Item = String> {
        let uplinks = self.uplinks.iter();
        uplinks.filter_map(|(wan, uplink)| {
            let why = uplink.why_no_session()?;
            Some(format!("the WAN {wan} has no session: {why}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PPPOE, START, links, machine, told};
    use super::super::told::{News, Session4};
    use super::*;

    /// A machine that dials, on a line that is plugged in.
    fn dialing() -> Machine {
        let mut machine = machine(PPPOE);
        machine.handle_links(links(&["wan", "ppp-wan", "br-lan"]), START);
        machine
    }

    fn session4() -> News {
        News::Session4(Some(Session4 {
            local: [203, 0, 113, 7].into(),
            resolvers: Vec::new(),
        }))
    }

    #[test]
    fn a_refused_login_is_a_trouble_until_there_is_a_session() {
        let mut machine = dialing();
        let troubles = |machine: &Machine| machine.status(START).troubles;
        machine.handle_said("dnsmasq", "PAP authentication failed");
        assert_eq!(troubles(&machine), [""; 0]);
        machine.handle_said("pppd-wan", "PAP authentication failed");
        machine.handle_said("pppd-wan", "Connection terminated.");
        let refused =
            "the WAN wan has no session: the provider refused the user name or the password";
        assert_eq!(troubles(&machine), [refused]);
        machine.handle_told(told("ppp-wan", session4()), START);
        machine.handle_told(told("ppp-wan", News::Session4(None)), START);
        assert_eq!(troubles(&machine), [""; 0]);
    }

    #[test]
    fn a_session_is_over_when_its_pppd_was_killed() {
        let mut machine = dialing();
        machine.handle_told(told("ppp-wan", session4()), START);
        assert!(machine.status(START).wans[0].works);
        machine.handle_ended("pppd-wan", "signal 9", START);
        assert!(!machine.status(START).wans[0].works);
    }

    #[test]
    fn a_session_carries_nothing_while_its_cable_is_pulled() {
        let mut machine = dialing();
        machine.handle_told(told("ppp-wan", session4()), START);
        let mut facts = links(&["wan", "ppp-wan", "br-lan"]);
        facts[0].has_carrier = false;
        machine.handle_links(facts.clone(), START);
        assert!(!machine.status(START).wans[0].works);
        facts[0].has_carrier = true;
        machine.handle_links(facts, START);
        assert!(machine.status(START).wans[0].works);
    }
}
