//! Who reaches whom: zones, forwards, pinholes, rules, and ports that machines open for themselves.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::words::{Addresses, Label, Name, PortRange};

/// `[[router.zone]]`: networks for which the same holds. `wan`, `lan` and `guest` are there without being written; what
/// is written about them is what differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Its name.
    pub name: Name,
    /// Zones to which it may open connections. Unwritten: `["wan"]`; for `wan` none.
    #[serde(default)]
    pub to: Option<Vec<Name>>,
    /// What of the box itself it may use. Unwritten: everything for `lan`, nothing for `wan`, and for others `["dhcp", "dns",
    /// "ntp", "ping"]`.
    #[serde(default)]
    pub services: Option<Vec<Service>>,
    /// Whether its networks reach each other. Unwritten: only those of `lan`.
    #[serde(default)]
    pub within: Option<bool>,
    /// Whether its networks are of the private network: what passes between them and altnetd's device is for
    /// altnetd to judge. Unwritten: only those of `lan`.
    #[serde(default)]
    pub private: Option<bool>,
}

/// Something of the box that a zone may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// All of it: also the page, the shell and the API.
    All,
    /// Addresses, for both families.
    Dhcp,
    /// Names.
    Dns,
    /// Time.
    Ntp,
    /// Echo requests.
    Ping,
}

/// What a rule is about. `tcp+udp` is both; `icmp` is that of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Whatever it is.
    #[default]
    Any,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// TCP and UDP.
    #[serde(rename = "tcp+udp")]
    TcpUdp,
    /// ICMP and ICMPv6.
    Icmp,
    /// IPsec's ESP.
    Esp,
}

/// `[[router.forward]]`: IPv4 ports of the WAN that lead to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// What it is for; only for people.
    #[serde(default)]
    pub name: Option<Label>,
    /// The WAN. Without one, all.
    #[serde(default)]
    pub wan: Option<Name>,
    /// `tcp`, `udp` or `tcp+udp`.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// The port on the WAN, or a range.
    pub port: PortRange,
    /// The machine: its name, or its IPv4 address.
    pub to: Target,
    /// The port of the machine, of a range the first. Without one the same.
    #[serde(default)]
    pub to_port: Option<u16>,
    /// Only from these addresses. Empty: from anywhere.
    #[serde(default)]
    pub from: Vec<Addresses>,
    /// Whether it works from inside the house too, at the WAN's address.
    #[serde(default = "yes")]
    pub hairpin: bool,
}

/// A machine: by its name in `[[router.host]]`, or by its IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A name.
    Host(Label),
    /// An address.
    Address(Ipv4Addr),
}

impl FromStr for Target {
    type Err = super::words::BadText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(address) => Ok(Self::Address(address)),
            Err(_) => text.parse().map(Self::Host),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => write!(f, "{name}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

super::words::text!(Target);

/// `[[router.pinhole]]`: a machine that is reached from the WAN over IPv6, whatever prefix the house has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinhole {
    /// The machine's name in `[[router.host]]`, which says its `suffix` there.
    #[serde(default)]
    pub host: Option<Label>,
    /// Instead of a name: the lower half of its address, as `::10`.
    #[serde(default)]
    pub suffix: Option<Ipv6Addr>,
    /// With `suffix`: the network it is on. Without one, the first.
    #[serde(default)]
    pub network: Option<Name>,
    /// `tcp`, `udp`, `tcp+udp` or `esp`.
    #[serde(default = "tcp")]
    pub protocol: Protocol,
    /// Its ports. Empty: all of them.
    #[serde(default)]
    pub ports: Vec<PortRange>,
    /// Only from these addresses. Empty: from anywhere.
    #[serde(default)]
    pub from: Vec<Addresses>,
}

/// `[[router.rule]]`: what is let through or refused beside what zones say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What it is for; only for people.
    #[serde(default)]
    pub name: Option<Label>,
    /// The zone from which a connection is opened.
    pub from: Name,
    /// The zone to which it is opened, `router` for the box itself, or `any` for whatever zone.
    pub to: Reach,
    /// What it is about.
    #[serde(default)]
    pub protocol: Protocol,
    /// Ports at which it is opened. Empty: all of them.
    #[serde(default)]
    pub ports: Vec<PortRange>,
    /// Only from these addresses. Empty: any.
    #[serde(default)]
    pub source: Vec<Addresses>,
    /// Only to these addresses. Empty: any.
    #[serde(default)]
    pub destination: Vec<Addresses>,
    /// What happens.
    pub action: Action,
}

/// Where a rule leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The box itself.
    Router,
    /// Whatever zone.
    Any,
    /// A zone.
    Zone(Name),
}

impl FromStr for Reach {
    type Err = super::words::BadText;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "router" => Ok(Self::Router),
            "any" => Ok(Self::Any),
            _ => text.parse().map(Self::Zone),
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Router => f.write_str("router"),
            Self::Any => f.write_str("any"),
            Self::Zone(name) => write!(f, "{name}"),
        }
    }
}

super::words::text!(Reach);

/// What happens to what a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It passes.
    Accept,
    /// It doesn't, and who sent it is told so; nobody on the WAN is.
    Refuse,
}

/// `[router.upnp]`: ports that machines open for themselves, by UPnP, NAT-PMP or PCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upnp {
    /// Whether they may.
    pub enabled: bool,
    /// On which networks. Empty: the first.
    pub networks: Vec<Name>,
}

/// `[router.offload]`: packets of connections that the rules have let through pass by a shorter way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Offload {
    /// Whether they do, where the kernel has flow tables.
    pub enabled: bool,
}

impl Default for Offload {
    fn default() -> Self {
        Self { enabled: true }
    }
}

fn tcp() -> Protocol {
    Protocol::Tcp
}

fn yes() -> bool {
    true
}
