//! What goes over the API about logins: for altnet-login and `altnet login`.

use altnet_core::node::LoginView;
use serde::{Deserialize, Serialize};

/// Parameters of `whose`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    /// An address on a LAN.
    pub address: String,
}

/// Parameters of `logout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// A machine's MAC address, or an address of its.
    pub device: String,
}

/// Parameters of `login`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewLogin {
    /// An address of the machine.
    pub address: String,
    /// Who.
    #[serde(default)]
    pub person: Option<String>,
    /// In which groups of the policy.
    #[serde(default)]
    pub groups: Vec<String>,
    /// For how many seconds.
    pub seconds: u32,
    /// How they showed who they are, for the audit log.
    #[serde(default)]
    pub how: String,
}

/// Result of `login`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoggedIn {
    /// The machine's MAC address.
    pub device: String,
    /// The addresses at which it counts; others that it takes on do too.
    pub addresses: Vec<String>,
    /// For how many seconds.
    pub seconds: u32,
    /// Who and which groups don't count, because the policy doesn't let this gateway say so.
    pub not_counted: Vec<String>,
}

/// A machine on a LAN from which somebody is logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// Its MAC address.
    pub device: String,
    /// The addresses at which it was seen.
    pub addresses: Vec<String>,
    /// Who.
    pub person: Option<String>,
    /// In which groups.
    pub groups: Vec<String>,
    /// For how many seconds more.
    pub seconds: u64,
    /// How they showed who they are.
    pub how: String,
}

/// A machine on a LAN that is in groups by its place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placed {
    /// Its MAC address.
    pub device: String,
    /// The addresses at which it was seen.
    pub addresses: Vec<String>,
    /// The port it is plugged into.
    pub port: Option<String>,
    /// The VLAN it is in.
    pub vlan: Option<u16>,
    /// In which groups it is for that.
    pub groups: Vec<String>,
}

/// Result of `logins`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Logins {
    /// On this gateway's LANs.
    pub logins: Vec<Entry>,
    /// Those on this gateway's LANs that are in groups by their places.
    pub placed: Vec<Placed>,
    /// What counts of them here, and what other gateways said.
    pub counted: Vec<LoginView>,
}
