//! `[router]` of `altnet.toml`: what a person decides about the router of a house.
//!
//! Every key has a default, so that an empty `[router]` is a good one on a board whose ports are known: the internet by
//! DHCP on the WAN port, one LAN on the others. An unknown key is an error. Bare numbers carry their unit in the key's
//! name. What the file means as a whole, and what is wrong with it, is said by [`Router::resolve`].

use serde::{Deserialize, Serialize};

mod file;
mod firewall;
mod network;
mod wan;
mod wifi;
pub mod words;

pub use file::File;
pub use firewall::{
    Action, Forward, Offload, Pinhole, Protocol, Reach, Rule, Service, Target, Upnp, Zone,
};
pub use network::{Dhcp, Host, Network};
pub use wan::{Connection, Ipv6, LinkLayer, Pppoe, Probes, Sqm, Static4, Static6, Wan};
pub use wifi::{Band, Security, Ssid, Width, Wifi};
pub use words::{Addresses, Domain, Label, Mac, Name, Port, PortRange, Secret};

/// `[router]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Router {
    /// The ways to the internet, the preferred one first. None written: DHCP on `port:wan`.
    pub wan: Vec<Wan>,
    /// The networks of the house. None written: `lan`, on all LAN ports.
    pub network: Vec<Network>,
    /// Zones beside `wan`, `lan` and `guest`, and what is different with those.
    pub zone: Vec<Zone>,
    /// Machines that have names, and maybe always the same addresses.
    pub host: Vec<Host>,
    /// IPv4 ports of the WAN that lead to a machine.
    pub forward: Vec<Forward>,
    /// IPv6 ports of a machine that are reached from the WAN.
    pub pinhole: Vec<Pinhole>,
    /// What is let through or refused beside what zones say. The first that fits counts.
    pub rule: Vec<Rule>,
    /// Wi-Fi, a section a radio.
    pub wifi: Vec<Wifi>,
    /// Ports that machines open for themselves.
    pub upnp: Upnp,
    /// Forwarding past the firewall's rules for what they have let through.
    pub offload: Offload,
    /// Time.
    pub ntp: Ntp,
}

impl Router {
    /// Whether a password is written in the file itself, which then is to be unreadable for others.
    pub fn holds_password(&self) -> bool {
        let logins = self.wan.iter().filter_map(|wan| wan.pppoe.as_ref());
        let ssids = self.wifi.iter().flat_map(|wifi| &wifi.ssid);
        logins
            .map(|login| &login.password)
            .chain(ssids.map(|ssid| &ssid.password))
            .any(Option::is_some)
    }
}

/// `[router.ntp]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Ntp {
    /// Servers to get the time from, by name or address. Empty: the time isn't asked for.
    pub servers: Vec<String>,
    /// Whether the networks of the house may ask this box for the time.
    pub serve: bool,
}

impl Default for Ntp {
    fn default() -> Self {
        Self {
            servers: vec!["2.debian.pool.ntp.org".into()],
            serve: true,
        }
    }
}
