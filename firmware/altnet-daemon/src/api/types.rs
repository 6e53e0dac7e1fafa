//! What goes over the API: parameters and results of its methods, as plain data.
//!
//! Ids, keys, addresses and names are text in the form people see elsewhere, so that a client
//! needs no other crate. Times are RFC 3339; what is not known is absent.

use serde::{Deserialize, Serialize};

/// Result of `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// altnetd's version.
    pub version: String,
    /// The UDP port of tunnels.
    pub listen_port: u16,
    /// The LANs served.
    pub lans: Vec<Lan>,
    /// `outside`, `joining` or `member`.
    pub state: String,
    /// The network, once this node is a member of one.
    pub network: Option<Network>,
    /// The relays this node is registered at, or tries to be.
    pub relays: Vec<Relay>,
    /// The directories it follows.
    pub directories: Vec<Directory>,
    /// Peers with a tunnel or a path.
    pub peers: u32,
    /// Whether the calendar is known.
    pub time_known: bool,
    /// The best guess at the time.
    pub time: String,
    /// What the node waits for, in plain sentences; empty when all is well.
    pub waits_for: Vec<String>,
}

/// A LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lan {
    /// The interface.
    pub interface: String,
    /// The gateway's address there, once it is known.
    pub address: Option<String>,
    /// What is advertised there: `router`, `beside` or `off`.
    pub advertise: String,
    /// Why it is not served, if it isn't.
    pub fault: Option<String>,
}

/// This node's place in its network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// The network's id.
    pub id: String,
    /// This home's name for it, as in `wiki.<petname>.alt`.
    pub petname: String,
    /// Its /48.
    pub prefix: String,
    /// This node's name.
    pub name: String,
    /// The id of the member.
    pub member: String,
    /// This node's own address.
    pub address: String,
    /// The site this node is the gateway of.
    pub site: Option<u16>,
    /// That site's /64.
    pub site_prefix: Option<String>,
    /// What its membership lets it do beside being a member.
    pub roles: Vec<String>,
    /// When the membership ends unless it is renewed.
    pub expires: String,
    /// Whether it has ended.
    pub expired: bool,
    /// The tunnel key's epoch.
    pub tunnel_epoch: u32,
    /// Members known.
    pub members: u32,
    /// Hosts known.
    pub hosts: u32,
}

/// A relay, in the result of `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relay {
    /// Its name.
    pub name: String,
    /// Whether it forwards for this node now.
    pub up: bool,
    /// Where it sees this node.
    pub observed: Option<String>,
}

/// A directory, in the result of `status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Directory {
    /// Its name.
    pub name: String,
    /// Whether this node is in step with it.
    pub synced: bool,
}

/// Result of `peers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// In the order of their addresses.
    pub peers: Vec<Peer>,
}

/// A peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its node id, which is its address.
    pub node: String,
    /// The site it is the gateway of.
    pub site: Option<u16>,
    /// `direct`, `relay` or `none`.
    pub path: String,
    /// Where its packets go now.
    pub endpoint: Option<String>,
    /// A stable word for the reason.
    pub why: String,
    /// The reason in words.
    pub why_text: String,
    /// The last round trip, in microseconds.
    pub rtt_us: Option<u64>,
    /// Seconds since the last handshake.
    pub last_handshake_s: Option<u64>,
    /// Bytes sent in its tunnel.
    pub tx_bytes: u64,
    /// Bytes received in its tunnel.
    pub rx_bytes: u64,
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
    pub node: String,
    /// The path the answer took: `direct` or `relay`.
    pub path: String,
    /// The round trip in microseconds.
    pub rtt_us: u64,
}

/// Result of `why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Every question on the way to the target, up to the first that stops it.
    pub steps: Vec<Step>,
}

/// One step of an explanation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// A stable word for what was asked.
    pub question: String,
    /// Whether the answer lets a packet on.
    pub ok: bool,
    /// The answer in words.
    pub answer: String,
}

/// Result of `records`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The records in force.
    pub records: Vec<Record>,
}

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Its kind.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Who signed it.
    pub signer: String,
    /// Its serial number.
    pub serial: u64,
    /// Its length in bytes.
    pub bytes: u32,
    /// What it says, in words.
    pub text: String,
}

/// Parameters of `join`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// The invite's link, or the text of a first-boot file.
    pub invite: String,
    /// The name this node asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Result of `join`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The network's id.
    pub network: String,
    /// This node's name in it.
    pub name: String,
}

/// Result of `leave`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// The network's id.
    pub network: String,
}

/// Result of `rotate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// The new epoch; the one before is still accepted for a while.
    pub epoch: u32,
}

/// Parameters of `host-add`, and an entry of [`Hosts`].
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

/// Result of `hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hosts {
    /// The names this gateway gave.
    pub hosts: Vec<Host>,
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
