//! What a node tells about itself when it is asked: plain words and numbers, made on
//! demand for the local API and the command line.
//!
//! Their fields are the API's: a name stays, and a new one may come. `Word` is what a stable
//! word is made of: the node has them as constants, a reader makes `String`s of what it gets.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

/// The whole node at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "Word: Deserialize<'de> + Default"))]
pub struct Status<Word = &'static str> {
    /// `outside`, `joining` or `member`.
    pub state: Word,
    /// The network, once joined.
    pub network: Option<NetworkView<Word>>,
    /// The relays this node is registered at, or tries to be.
    pub relays: Vec<RelayView>,
    /// The NAT or firewall before it.
    pub nat: NatView<Word>,
    /// The directories it follows.
    pub directories: Vec<DirectoryView>,
    /// Other people's TURN servers that may be used.
    pub turn: Vec<TurnView>,
    /// The key by which they know this node, as lists of admitted clients have it.
    pub derp_key: Option<String>,
    /// Other people's DERP servers that may be used.
    pub derpers: Vec<DerperView>,
    /// Peers with a tunnel or a path.
    pub peers: usize,
    /// Whether the calendar is known.
    pub time_known: bool,
    /// The best guess at the time (RFC 3339).
    pub time: String,
    /// What the node waits for, in plain sentences; empty when all is well.
    pub waits_for: Vec<String>,
}

/// The NAT or firewall before a node, as far as others found out (RFC 4787).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NatView<Word = &'static str> {
    /// On what a mapping depends: `endpoint-independent`, `endpoint-dependent` or `unknown`.
    pub mapping: Word,
    /// On what it depends who is let in: `endpoint-independent`, `address-dependent`,
    /// `address-and-port-dependent` or `unknown`.
    pub filtering: Word,
}

/// The network as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NetworkView<Word = &'static str> {
    /// Its id, base32.
    pub id: String,
    /// What it is called here: names end in `.<petname>.alt`.
    pub petname: String,
    /// Its prefix.
    pub prefix: String,
    /// This node's name.
    pub name: String,
    /// This node's member id.
    pub member: String,
    /// This node's own address.
    pub address: String,
    /// Its site's number.
    pub site: Option<u16>,
    /// Its site's prefix.
    pub site_prefix: Option<String>,
    /// Its roles.
    pub roles: Vec<Word>,
    /// When its membership ends unless renewed (RFC 3339).
    pub expires: String,
    /// Whether it has ended.
    pub expired: bool,
    /// The tunnel key's epoch.
    pub tunnel_epoch: u32,
    /// The tunnel key, base32.
    pub tunnel_key: String,
    /// Members known.
    pub members: usize,
    /// Hosts known.
    pub hosts: usize,
    /// Whether this node may admit others.
    pub admits: bool,
}

/// An invite that this node made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InviteView {
    /// Its key.
    pub invite: String,
    /// The device's name, if it was chosen.
    pub name: Option<String>,
    /// The groups it gives.
    pub groups: Vec<String>,
    /// How many devices may come in.
    pub uses: u16,
    /// The members that are known to have come in by it.
    pub used_by: Vec<String>,
    /// When it ends (RFC 3339).
    pub expires: String,
    /// `open`, `used`, `expired`, `closed`, or `not-allowed` by the policy any more.
    pub status: String,
}

/// A member, and who brought it in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemberView {
    /// Its id.
    pub member: String,
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub person: Option<String>,
    /// The groups that its membership puts it in.
    pub groups: Vec<String>,
    /// Who brought it in: the name, or the id of one that is no member any more.
    pub sponsor: Option<String>,
}

/// A relay as a client sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RelayView {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// Its address and port.
    pub address: Option<String>,
    /// Whether it forwards for this node now.
    pub up: bool,
    /// Where it sees this node.
    pub observed: Option<String>,
    /// The round-trip time in microseconds.
    pub rtt_us: Option<u64>,
    /// Whether it is the one that peers are told to use first.
    pub home: bool,
    /// `udp` or `tls`; empty while it doesn't forward.
    pub carrier: String,
    /// How busy it says it is, 0 to 100.
    pub load: u8,
    /// For how many seconds more it forwards nothing for this node, which has sent as much as it may there.
    pub refused_s: u64,
}

/// A TURN server that a person entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TurnView {
    /// Its host and port.
    pub server: String,
    /// `idle` while none is needed, `asked`, `up`, or `failed`.
    pub state: String,
    /// What peers send to while it relays.
    pub relayed: Option<String>,
    /// How many members a way by TURN leads to now, used or not.
    pub reaches: usize,
    /// Why it failed.
    pub why: Option<String>,
}

/// A DERP server that a person entered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DerperView {
    /// Its host and port.
    pub server: String,
    /// `idle` while none is needed, `asked`, `up`, or `failed`.
    pub state: String,
    /// Why it failed.
    pub why: Option<String>,
}

/// A directory as a subscriber sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DirectoryView {
    /// Its name.
    pub name: String,
    /// Its node id.
    pub node: String,
    /// Whether this node is in step with it.
    pub synced: bool,
}

/// A peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerView<Word = &'static str> {
    /// Its name.
    pub name: String,
    /// Its node id, which is its address.
    pub node: String,
    /// Its site's number.
    pub site: Option<u16>,
    /// `direct`, `relay`, `turn`, `derp` or `none`.
    pub path: Word,
    /// Where datagrams go.
    pub endpoint: Option<String>,
    /// A stable word for the reason.
    pub why: Word,
    /// The reason in words.
    pub why_text: String,
    /// The control session's round-trip time along the path, in microseconds.
    pub rtt_us: Option<u64>,
    /// Whether a tunnel session stands.
    pub tunnel_up: bool,
    /// Seconds since the last handshake.
    pub last_handshake_s: Option<u64>,
    /// Bytes sealed for it.
    pub tx_bytes: u64,
    /// Bytes opened from it.
    pub rx_bytes: u64,
    /// The epoch of its tunnel key in use.
    pub tunnel_epoch: u32,
    /// The largest packet that is sent to it, in bytes.
    pub mtu_bytes: u16,
    /// The largest datagram that is known to pass, in bytes of what UDP carries, without a relay's
    /// header.
    pub datagram_bytes: Option<u16>,
    /// Whether full packets go to it in pieces.
    pub in_pieces: bool,
}

/// A record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordView<Word = &'static str> {
    /// Its kind.
    pub kind: Word,
    /// Its id, base32.
    pub id: String,
    /// Who signed it, base32.
    pub signer: String,
    /// Its serial.
    pub serial: u64,
    /// Its size in bytes.
    pub bytes: usize,
    /// What it says, in words.
    pub text: String,
}

/// An app on this device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AppView {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its key, base32.
    pub key: String,
    /// The epoch of its tunnel key.
    pub tunnel_epoch: u32,
}

/// Whose an address is: what an app is told of who calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CallerView {
    /// The address.
    pub address: String,
    /// The name of the device, or of the machine behind a gateway, if it has one.
    pub name: Option<String>,
    /// The member that speaks for the address, its id.
    pub member: String,
    /// That member's name.
    pub member_name: String,
    /// Whose the device is. Of a machine behind a gateway who logged in from it, if anybody did: its
    /// gateway's owner need not be who sits at it.
    pub person: Option<String>,
    /// The groups that the device's membership names, or that who logged in is in.
    pub groups: Vec<String>,
    /// The number of the site that the machine is in, if it is behind a gateway.
    pub site: Option<u16>,
}

/// Somebody who is logged in from a machine behind a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoginView {
    /// The machine's address.
    pub address: String,
    /// The gateway that says so.
    pub gateway: String,
    /// Who, if policy lets that gateway say so.
    pub person: Option<String>,
    /// In which groups, likewise.
    pub groups: Vec<String>,
    /// Who and which groups were said and don't count: no rule or voucher of the policy names them.
    pub not_counted: Vec<String>,
    /// For how many seconds more.
    pub seconds: u64,
}

/// The policy at a glance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyView {
    /// The record's serial; 0 if there is no policy.
    pub serial: u64,
    /// How many rules it has.
    pub rules: usize,
    /// How many ranges of ports of a source and a target they came to.
    pub rows: usize,
    /// What it takes of memory here, in bytes.
    pub bytes: usize,
    /// How old the newest word of an issuer is, in seconds, as far as the time is known.
    pub head_age_s: Option<u64>,
}

/// What policy says of one flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VerdictView {
    /// The source's address.
    pub source: String,
    /// The target's address.
    pub target: String,
    /// What the source is, in words.
    pub source_is: String,
    /// What the target is, in words.
    pub target_is: String,
    /// Whether the flow may begin.
    pub allowed: bool,
    /// The name of the rule that decided, if a service was asked about.
    pub rule: Option<String>,
    /// The reason in words.
    pub why: String,
}

/// One step of an explanation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step<Word = &'static str> {
    /// A stable word for what was asked.
    pub question: Word,
    /// Whether the answer lets the packet on.
    pub ok: bool,
    /// The answer in words.
    pub answer: String,
}
