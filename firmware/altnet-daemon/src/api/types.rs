//! What goes over the API: parameters and results of its methods, as plain data.
//!
//! Ids, keys, addresses and names are text in the form people see elsewhere, so that a client
//! needs no other crate. Times are RFC 3339; what is not known is absent.

use serde::{Deserialize, Serialize};

/// Result of `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// altnetd's version.
    pub version: String,
    /// The network, once this node is a member of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkStatus>,
    /// What joining waits for, while an invite is being redeemed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joining: Option<String>,
    /// The UDP port of tunnels.
    pub listen_port: u16,
    /// What the calendar is held to be, and on whose word.
    pub clock: String,
    /// The LANs served.
    pub lans: Vec<LanStatus>,
    /// Peers with a direct path.
    pub peers_direct: u32,
    /// Peers by way of a relay.
    pub peers_relayed: u32,
    /// Peers that can't be reached now.
    pub peers_unreachable: u32,
    /// Relays this node is registered with.
    pub relays: Vec<String>,
    /// What a person should know or do, one sentence each.
    pub notes: Vec<String>,
}

/// This node's place in its network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkStatus {
    /// The network's id.
    pub id: String,
    /// This home's name for it, as in `wiki.<petname>.alt`.
    pub petname: String,
    /// Its /48.
    pub prefix: String,
    /// This node's own address.
    pub address: String,
    /// This node's name.
    pub name: String,
    /// The id of the member.
    pub member: String,
    /// The site this node is the gateway of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<u16>,
    /// What its membership lets it do beside being a member.
    pub roles: Vec<String>,
    /// When the membership ends unless it is renewed.
    pub valid_until: String,
    /// The number of the newest signed network head that is known.
    pub head: u64,
    /// The tunnel key's epoch.
    pub epoch: u64,
}

/// A LAN.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LanStatus {
    /// The interface.
    pub interface: String,
    /// The gateway's address there.
    pub address: String,
    /// What is advertised there: `router`, `beside` or `off`.
    pub advertise: String,
}

/// A peer, in the result of `peers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name, or its address when it has none.
    pub name: String,
    /// Its own address.
    pub address: String,
    /// The site it is the gateway of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<u16>,
    /// `direct`, `relayed` or `none`.
    pub path: String,
    /// Where its packets go now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Why the path is what it is.
    pub why: String,
    /// The last round trip, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// Seconds since the last handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_s: Option<u64>,
    /// Bytes received in tunnels.
    pub received_bytes: u64,
    /// Bytes sent in tunnels.
    pub sent_bytes: u64,
}

/// Parameters of `ping` and `why`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// A peer's or host's name or address.
    pub target: String,
}

/// Result of `ping`: one round trip.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pong {
    /// The node that answered.
    pub address: String,
    /// The path the answer took: `direct` or `relayed`.
    pub path: String,
    /// Where it came from.
    pub endpoint: String,
    /// The round trip in milliseconds.
    pub rtt_ms: f64,
}

/// Result of `why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// The node in question.
    pub address: String,
    /// `direct`, `relayed` or `none`.
    pub path: String,
    /// The verdict on packets to it, with the rule's name.
    pub policy: String,
    /// The reasons, each following from the one before.
    pub because: Vec<String>,
    /// What would change it.
    pub hint: String,
}

/// A record, in the result of `records`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its type.
    pub kind: String,
    /// Whom or what it is about.
    pub subject: String,
    /// Its serial number.
    pub serial: u64,
    /// Who signed it.
    pub signer: String,
    /// When it ends; absent if it doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<String>,
    /// Its length in bytes.
    pub bytes: u32,
}

/// Parameters of `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The invite's link.
    pub invite: String,
    /// The name this node asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Result of `join` and `leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The network's id.
    pub network: String,
    /// This node's address in it.
    pub address: String,
}

/// Result of `rotate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The new epoch; the one before is still accepted for a while.
    pub epoch: u64,
}

/// Parameters of `host-add`, and an entry of the result of `hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// The name, as in `<name>.<petname>.alt`.
    pub name: String,
    /// The machine's address on this gateway's LAN.
    pub address: String,
}

/// Parameters of `host-remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostName {
    /// The name.
    pub name: String,
}

/// Result of `metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// The page, in the Prometheus text format.
    pub text: String,
}

/// A line of `events`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The version of the API.
    pub v: u8,
    /// What happened: a name that stays.
    pub event: String,
    /// Its number since altnetd started.
    pub id: u64,
    /// When, by this machine's calendar.
    pub at: String,
    /// One sentence for people.
    pub text: String,
    /// Particulars for programs.
    #[serde(default)]
    pub data: serde_json::Value,
}
