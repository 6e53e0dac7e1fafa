//! What goes over the API: parameters and results of its methods, as plain data.
//!
//! Ids, keys, addresses and names are text in the form people see elsewhere, so that a client
//! needs no other crate. Times are RFC 3339; what is not known is absent. What the node says of
//! itself is [`node`]'s own; a name once given stays for as long as the API's version does.

use altnet_core::node;
use serde::{Deserialize, Serialize};

/// A peer, an entry of [`Peers`].
pub type Peer = node::PeerView<String>;
/// One step of an explanation, an entry of [`Why`].
pub type Step = node::Step<String>;
/// A record, an entry of [`Records`].
pub type Record = node::RecordView<String>;

/// Result of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "Word: Deserialize<'de> + Default"))]
pub struct Status<Word = String> {
    /// altnetd's version.
    #[serde(default)]
    pub version: String,
    /// The UDP port of tunnels.
    #[serde(default)]
    pub listen_port: u16,
    /// The LANs served.
    #[serde(default)]
    pub lans: Vec<Lan>,
    /// The ports on routers before this node, one of each address family with a router.
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
    /// Why some of what changed isn't on disk, if it isn't; it is tried again.
    #[serde(default)]
    pub unsaved: Option<String>,
    /// The node itself: its fields stand beside the others.
    #[serde(flatten)]
    pub node: node::Status<Word>,
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

/// A port on a router before this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortMapping {
    /// The router's address.
    pub router: String,
    /// Where the port leads: this node's own address and port.
    pub internal: String,
    /// Where peers reach it, if the router keeps one open.
    pub external: Option<String>,
    /// How it was obtained: `pcp`, `nat-pmp` or `upnp-igd`.
    pub protocol: Option<String>,
    /// Whether that is a public address. If not, the router is behind another NAT.
    pub public: bool,
    /// For how long it stands unless it is renewed, in seconds.
    pub lifetime_s: Option<u64>,
    /// Why it is so: a word that stays.
    pub why: String,
    /// The same for people.
    pub why_text: String,
}

/// Result of `peers`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peers {
    /// In the order of their addresses.
    pub peers: Vec<Peer>,
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

/// Result of `relays`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Relays {
    /// Those that forward for this node, or are to.
    pub relays: Vec<node::RelayView>,
}

/// Result of `relay-status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Relaying {
    /// Whether this node's membership makes it a relay.
    pub is_relay: bool,
    /// Members that are registered here.
    pub clients: usize,
    /// The most there may be.
    pub most_clients: u16,
    /// Where TLS is served, if it is.
    pub tls: Option<String>,
    /// Members' connections there.
    pub streams: usize,
    /// Datagrams forwarded since this node started.
    pub forwarded: u64,
    /// Their bytes, relay headers not counted.
    pub forwarded_bytes: u64,
    /// Datagrams refused: with a token that isn't good from where they came.
    pub refused: u64,
    /// Datagrams for nodes that aren't registered here.
    pub no_such_node: u64,
    /// Datagrams of members that sent more than they may.
    pub over: u64,
    /// How busy it is, 0 to 100: how full its line, or how many clients it has of those that it may have.
    pub load: u8,
    /// What is forwarded for one member at most, in megabits a second; 0 if nothing bounds it.
    pub rate_mbit: u32,
    /// The same in gigabytes in thirty days.
    pub monthly_gb: u32,
    /// What all share, in megabits a second; 0 if nothing bounds it.
    pub uplink_mbit: u32,
    /// The members that are registered here.
    pub members: Vec<node::RelayClientView>,
    /// The links to other relays.
    pub links: Vec<node::RelayLinkView>,
}

/// Result of `relay-rotate`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// The name of the relay that is this node's home now.
    pub home: String,
}

/// Parameters of `policy-check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flow {
    /// Who begins it: a host's, app's or member's name, or an address.
    pub source: String,
    /// With whom, likewise.
    pub target: String,
    /// `tcp/80`, `udp/53`, `ping`, or a number for TCP; whatever is allowed if none.
    #[serde(default)]
    pub service: Option<String>,
}

/// Parameters of `app-add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewApp {
    /// Its name.
    pub name: String,
    /// The server it stands for: `host:port`, `[address]:port` or `unix:/path`.
    pub to: String,
    /// Whether it speaks HTTP/1.1 and is told who calls.
    #[serde(default)]
    pub http: bool,
    /// The TCP ports that callers use; the usual one if none.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Whether callers can speak TLS with it, at port 443 besides.
    #[serde(default)]
    pub tls: bool,
}

/// An app, an entry of [`Apps`] and the result of `app-add`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct App {
    /// Its name.
    pub name: String,
    /// The name to type into a browser.
    pub fqdn: String,
    /// Its address.
    pub address: String,
    /// The server it stands for.
    pub to: String,
    /// Whether it speaks HTTP and is told who calls.
    pub http: bool,
    /// The TCP ports that callers use.
    pub ports: Vec<u16>,
    /// How far its TLS is, if it has any.
    pub tls: Option<super::tls::AppTls>,
    /// Connections now.
    pub connections: u32,
    /// Connections since altnetd started.
    pub accepted: u64,
}

/// Result of `apps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apps {
    /// In the order of their addresses.
    pub apps: Vec<App>,
}

/// Result of `policy`.
pub type Policy = node::PolicyView;
/// Result of `policy-check`.
pub type Verdict = node::VerdictView;

/// Result of `why`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Every question on the way to the target, up to the first that stops it.
    pub steps: Vec<Step>,
}

/// Result of `records`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Records {
    /// The records in force.
    pub records: Vec<Record>,
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

/// Result of `reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The keys that changed and need a restart of altnetd.
    pub restart: Vec<String>,
}

/// Parameters of `audit-read`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRead {
    /// Entries behind this one; without it from the first that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Of these, so many of the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
}

/// Result of `audit-read`: a page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// In order.
    pub entries: Vec<AuditEntry>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// An entry of the audit log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditEntry {
    /// Its number.
    pub sequence: u64,
    /// When.
    pub time: String,
    /// Whether the time was known; else it was then or later.
    pub time_known: bool,
    /// What happened: a word that stays.
    pub kind: String,
    /// About whom or what.
    pub subject: String,
    /// More.
    pub detail: String,
    /// How often.
    pub count: u64,
    /// The chain's hash before it, in hexadecimal.
    pub previous: String,
    /// The chain's hash after it.
    pub hash: String,
    /// The entry as it is on disk, base64: what the hash is of.
    pub bytes: String,
}

/// Parameters of `audit-verify`: a head that is known from elsewhere, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditKnown {
    /// Its entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The chain's hash there, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// Result of `audit-verify`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditVerdict {
    /// The first thing that is wrong.
    pub fault: Option<String>,
    /// The first entry that is kept.
    pub first: u64,
    /// The last.
    pub last: u64,
    /// The chain's hash there, in hexadecimal.
    pub hash: String,
    /// How many there are.
    pub entries: u64,
    /// In how many files.
    pub segments: u64,
    /// Who countersigned it.
    pub covers: Vec<AuditCover>,
    /// Countersignatures that could not be compared with what is kept.
    pub unchecked: u64,
}

/// What one member vouches for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditCover {
    /// Its device key.
    pub witness: String,
    /// Its name; none if it is no member now, or not known to be one.
    pub name: Option<String>,
    /// The last entry that it vouches for, with all before it.
    pub through: u64,
    /// The entry since which it was shown every step.
    pub since: u64,
    /// When it last said so, by its own clock, if it knew the time.
    pub at: Option<String>,
    /// Its countersignatures in the log.
    pub testimonies: u64,
}

/// Result of `audit-heads`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHeads {
    /// The newest of each member that asked.
    pub heads: Vec<AuditHead>,
}

/// How far another member's audit log had come when this node vouched for it last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuditHead {
    /// The member's name, or its device key if it has none now.
    pub name: String,
    /// The entry.
    pub sequence: u64,
    /// The chain's hash there, in hexadecimal.
    pub hash: String,
    /// The entry since which this node was shown every step.
    pub since: u64,
    /// When that was, by the member's clock.
    pub time: String,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check<T: Serialize>(view: &T, expected: &[&str]) {
        let Value::Object(fields) = serde_json::to_value(view).unwrap() else {
            panic!("not an object");
        };
        let mut names: Vec<&str> = fields.keys().map(String::as_str).collect();
        let mut expected = expected.to_vec();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }

    /// A field that is renamed or gone breaks whoever reads it: raise the API's version then.
    #[test]
    fn names_in_the_api_stay() {
        check(
            &Status::<&'static str>::default(),
            &[
                "derp_key",
                "derpers",
                "directories",
                "lans",
                "listen_port",
                "nat",
                "network",
                "peers",
                "port_mappings",
                "relays",
                "state",
                "time",
                "time_known",
                "turn",
                "unsaved",
                "version",
                "waits_for",
            ],
        );
        check(
            &node::NetworkView::<&'static str>::default(),
            &[
                "address",
                "admits",
                "expired",
                "expires",
                "hosts",
                "id",
                "member",
                "members",
                "name",
                "petname",
                "prefix",
                "roles",
                "site",
                "site_prefix",
                "tunnel_epoch",
                "tunnel_key",
            ],
        );
        check(
            &node::NatView::<&'static str>::default(),
            &["filtering", "mapping"],
        );
        check(
            &PortMapping::default(),
            &[
                "external",
                "internal",
                "lifetime_s",
                "protocol",
                "public",
                "router",
                "why",
                "why_text",
            ],
        );
        check(
            &node::RelayView::default(),
            &[
                "address",
                "carrier",
                "home",
                "load",
                "name",
                "node",
                "observed",
                "refused_s",
                "rtt_us",
                "up",
            ],
        );
        check(&node::DirectoryView::default(), &["name", "node", "synced"]);
        check(
            &node::PeerView::<&'static str>::default(),
            &[
                "datagram_bytes",
                "endpoint",
                "in_pieces",
                "last_handshake_s",
                "mtu_bytes",
                "name",
                "node",
                "path",
                "rtt_us",
                "rx_bytes",
                "site",
                "tunnel_epoch",
                "tunnel_up",
                "tx_bytes",
                "why",
                "why_text",
            ],
        );
        check(
            &node::RecordView::<&'static str>::default(),
            &["bytes", "id", "kind", "serial", "signer", "text"],
        );
        check(
            &node::Step::<&'static str>::default(),
            &["answer", "ok", "question"],
        );
    }

    #[test]
    fn a_newer_or_older_daemons_status_reads() {
        let said = json!({ "state": "member", "new": [1], "network": { "name": "house-a" } });
        let status: Status = serde_json::from_value(said).unwrap();
        let network = status.node.network.unwrap();
        assert_eq!(
            (status.node.state.as_str(), network.name.as_str()),
            ("member", "house-a")
        );
    }
}
