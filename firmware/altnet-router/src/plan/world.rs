//! What the world said: facts that a plan is made of, beside the file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::config::{Name, Secret};

/// What is known now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct World {
    /// Of each WAN that something is known of.
    pub wans: BTreeMap<Name, WanState>,
    /// Prefixes that were advertised before and are the house's no more.
    pub stale: Vec<Stale>,
    /// Passwords that are in files of their own.
    pub passwords: Passwords,
    /// The interfaces that are there now. Bridges of a plan count as there, because they are made before its ruleset is loaded.
    pub present: Vec<String>,
    /// Whether the kernel has flow tables. Without, what would be offloaded goes the long way.
    pub has_flow_tables: bool,
}

/// What is in the files that [`House::password_files`](crate::house::House::password_files) names: the first line of each that could be read.
pub type Passwords = BTreeMap<PathBuf, Secret>;

/// Where things are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Where children's files are written: `/run/altnet-router`.
    pub run: PathBuf,
    /// The program that hooks call, with `hook` as its first argument: altnet-routerd.
    pub program: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            run: "/run/altnet-router".into(),
            program: "/usr/sbin/altnet-routerd".into(),
        }
    }
}

/// What is known of a WAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WanState {
    /// Whether its interface is up and has a carrier; of PPPoE, whether the session stands.
    pub is_up: bool,
    /// What probes say; None while there are none, or none has come back yet.
    pub answers: Option<bool>,
    /// The addresses that a child got, or pppd agreed on.
    pub addresses: Vec<Leased>,
    /// The provider's router for IPv4. A PPP session needs none.
    pub gateway4: Option<Ipv4Addr>,
    /// The provider's router for IPv6.
    pub gateway6: Option<Ipv6Addr>,
    /// Resolvers that the provider named.
    pub resolvers: Vec<IpAddr>,
    /// Prefixes that the provider delegated.
    pub prefixes: Vec<Delegated>,
}

impl WanState {
    /// Whether there is an address of a family that is good beyond the link.
    pub(crate) fn has(&self, is_v4: bool) -> bool {
        self.addresses.iter().any(|leased| match leased.net {
            IpNet::V4(_) => is_v4,
            IpNet::V6(net) => !is_v4 && !net.addr().is_unicast_link_local(),
        })
    }
}

/// An address that was got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased {
    /// The address, with its network's prefix length.
    pub net: IpNet,
    /// Until when, in seconds since boot.
    pub valid_until_s: Option<u64>,
}

/// A prefix for the house.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegated {
    /// The prefix, 64 bits or shorter.
    pub net: Ipv6Net,
    /// Until when it is the house's, in seconds since boot. None: for ever.
    pub valid_until_s: Option<u64>,
    /// Until when new connections use it.
    pub preferred_until_s: Option<u64>,
}

/// A network's prefix of before, which machines still have addresses of (RFC 9096 section 3.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stale {
    /// The network.
    pub network: Name,
    /// The box's own address in it, with the prefix length 64.
    pub address: Ipv6Net,
    /// Until when it is said to be deprecated, in seconds since boot.
    pub until_s: u64,
}
