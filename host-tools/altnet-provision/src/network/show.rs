//! What there is to see of a network.

use std::net::SocketAddr;

use altnet_wire::address;
use altnet_wire::id::{NetworkId, SigningKey};
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::Network;
use crate::settings::{Entry, as_optional_text, as_text};

/// A network at a glance. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkSummary {
    /// What it is called on this computer.
    pub name: String,
    /// Its id.
    #[serde(with = "as_text")]
    pub id: NetworkId,
    /// Its /48.
    pub prefix: String,
    /// What its names end in on this computer.
    pub suffix: String,
    /// When it was made (RFC 3339, UTC).
    pub created: String,
    /// Its owners' keys.
    pub owners: Vec<String>,
    /// Its recovery key's public half.
    #[serde(with = "as_text")]
    pub recovery: SigningKey,
    /// This computer's issuer key.
    #[serde(with = "as_text")]
    pub issuer: SigningKey,
    /// How many members are known here.
    pub members: usize,
    /// How many hosts are named.
    pub hosts: usize,
    /// Where it can be entered.
    pub entries: Vec<EntrySummary>,
    /// Whether a relay that the internet can reach is known here.
    pub has_relay: bool,
    /// Records that the network's directory has not seen yet.
    pub pending: usize,
    /// Where it is kept.
    pub directory: String,
}

/// A place where a network can be entered. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct EntrySummary {
    /// The node's name.
    pub name: String,
    /// Its UDP addresses.
    pub endpoints: Vec<SocketAddr>,
    /// Whether it forwards for others.
    pub relay: bool,
    /// Whether it keeps and hands out records.
    pub directory: bool,
    /// The issuer key it countersigns invites with.
    #[serde(with = "as_optional_text")]
    pub admits: Option<SigningKey>,
    /// Whether it has joined, as far as is known here.
    pub joined: bool,
}

impl Network {
    /// What there is to see.
    pub fn summary(&self) -> NetworkSummary {
        let id = self.id();
        NetworkSummary {
            name: self.name.to_string(),
            id,
            prefix: address::network_prefix(&id).to_string(),
            suffix: format!("{}.alt", self.name),
            created: self.registry.genesis().issued.to_string(),
            owners: self
                .registry
                .owners()
                .iter()
                .map(ToString::to_string)
                .collect(),
            recovery: self.registry.recovery(),
            issuer: self.settings.issuer,
            members: self.registry.members().count(),
            hosts: self.registry.hosts().count(),
            entries: self
                .settings
                .entries
                .iter()
                .map(|e| self.entry(e))
                .collect(),
            has_relay: self.has_relay(),
            pending: self.settings.pending(),
            directory: self.dir.display().to_string(),
        }
    }

    fn entry(&self, entry: &Entry) -> EntrySummary {
        let member = entry.name.parse().ok();
        EntrySummary {
            name: entry.name.clone(),
            endpoints: entry.endpoints.clone(),
            relay: entry.relay,
            directory: entry.directory,
            admits: entry.admits,
            joined: member.is_some_and(|name| self.registry.by_name(&name).is_some()),
        }
    }

    /// Every address at which the network may be entered: of what was provisioned here, and of
    /// relays and directories that say where they are.
    pub fn entry_endpoints(&self) -> Vec<SocketAddr> {
        use altnet_wire::record::Roles;
        let mut endpoints = Vec::new();
        let provisioned = self.settings.entries.iter().flat_map(|e| &e.endpoints);
        let said = self
            .registry
            .members()
            .filter(|m| {
                m.membership
                    .roles
                    .intersects(Roles::RELAY | Roles::DIRECTORY)
            })
            .filter_map(|m| m.node)
            .flat_map(|node| &node.fixed_endpoints);
        for endpoint in provisioned.chain(said) {
            if !endpoints.contains(endpoint) {
                endpoints.push(*endpoint);
            }
        }
        endpoints
    }
}

/// A moment as text, or nothing for one that never comes.
pub(super) fn when(time: UnixTime) -> Option<String> {
    (time != UnixTime::NEVER).then(|| time.to_string())
}
