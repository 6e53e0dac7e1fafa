//! The local API: what people and dashboards on this machine ask of altnetd.
//!
//! One JSON object a line over a UNIX socket, several requests on one connection:
//!
//! ```text
//! > {"v":1,"id":7,"method":"status","params":{}}
//! < {"v":1,"id":7,"result":{...}}
//! < {"v":1,"id":7,"error":{"code":"not-a-member","message":"...","hint":"..."}}
//! ```
//! `events` answers once and then streams lines `{"v":1,"event":"path-changed","id":12,...}`
//! until the connection closes. An `id` of a request is the client's own; that of an event
//! counts up by one since altnetd started, so that a gap shows. Event names, error codes and
//! fields stay what they are within a version; fields may be added.
//!
//! Who may do what follows from who is at the other end ([`Role`]); there are no passwords.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod bench;
pub mod client;
pub mod invites;
pub mod logins;
pub mod server;
pub mod tls;
pub mod types;

/// The version of the API that is spoken.
pub const VERSION: u8 = 1;
/// The longest line in either direction, in bytes.
pub const MAX_LINE_BYTES: usize = 256 * 1024;
/// The most connections at a time.
pub const MAX_CLIENTS: usize = 32;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The version, [`VERSION`].
    pub v: u8,
    /// The client's number for the request.
    pub id: u64,
    /// What is asked.
    pub method: String,
    /// With what; methods without parameters take none or an empty object.
    #[serde(default)]
    pub params: Value,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// The version, [`VERSION`].
    pub v: u8,
    /// The request's number; 0 if the request could not be read.
    pub id: u64,
    /// What was asked for or why not.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What was asked for or why not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Result(Value),
    /// It was not done, and nothing was changed.
    Error(ApiError),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}{}{hint}", if hint.is_empty() { "" } else { "; " })]
pub struct ApiError {
    /// For programs.
    pub code: Code,
    /// What happened, for people.
    pub message: String,
    /// What to do next, for people; empty where the message says it.
    pub hint: String,
}

/// What kind of thing went wrong. New ones may be added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Code {
    /// The request is not one, or its parameters are wrong.
    BadRequest,
    /// No such method in this version.
    UnknownMethod,
    /// Who asks may not.
    Forbidden,
    /// Too many requests or connections.
    Busy,
    /// This node is in no network yet.
    NotAMember,
    /// This node is in a network already.
    AlreadyAMember,
    /// What was named does not exist.
    NotFound,
    /// The network, an issuer or a peer refused.
    Refused,
    /// Nobody answered in time.
    Timeout,
    /// altnetd could not do it; its log says more.
    Failed,
    /// A code that a newer altnetd has.
    #[serde(other)]
    Other,
}

impl ApiError {
    /// Makes an error.
    pub fn new(code: Code, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: hint.into(),
        }
    }
}

/// What somebody may do; each role may do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look.
    Read,
    /// Change what can be changed back.
    Operate,
    /// Everything: join and leave networks.
    Own,
}

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// The node and its network at a glance.
    Status,
    /// Every peer with its path.
    Peers,
    /// Round trips to one peer, through the tunnel.
    Ping,
    /// Why a peer's path is what it is, or why there is none.
    Why,
    /// The records in force.
    Records,
    /// Redeem an invite.
    Join,
    /// Forget the network and this node's keys.
    Leave,
    /// New tunnel keys.
    Rotate,
    /// The relays that forward for this node.
    Relays,
    /// What this node forwards, if it is a relay.
    RelayStatus,
    /// Another relay as this node's home.
    RelayRotate,
    /// How quick a relay is.
    RelayBench,
    /// Give a LAN machine a name.
    HostAdd,
    /// Take a name back.
    HostRemove,
    /// The names this gateway gave.
    Hosts,
    /// Read the configuration again, as on SIGHUP.
    Reload,
    /// Counters, in Prometheus text.
    Metrics,
    /// What happens from now on.
    Events,
    /// The apps of this node.
    Apps,
    /// Make an app with keys of its own.
    AppAdd,
    /// Give an app up.
    AppRemove,
    /// The policy in force, at a glance.
    Policy,
    /// What policy says of a flow.
    PolicyCheck,
    /// The members, and who brought whom in.
    Members,
    /// The invites that this node made.
    Invites,
    /// Make an invite, as far as policy lets this node's member.
    InviteCreate,
    /// Take one back.
    InviteRevoke,
    /// Count a machine on a LAN as somebody's for a time.
    Login,
    /// Count it as nobody's again.
    Logout,
    /// Who is logged in.
    Logins,
    /// The MAC address at an address on a LAN.
    Whose,
    /// The authority that devices are to trust for TLS.
    TlsCa,
    /// The login page's key and certificate.
    LoginTls,
    /// Entries of the audit log.
    AuditRead,
    /// Whether the audit log is as it was written, and who vouches for it.
    AuditVerify,
    /// The newest heads of other members' audit logs that this node vouched for.
    AuditHeads,
}

impl Method {
    const ALL: [(&'static str, Self, Role); 36] = [
        ("status", Self::Status, Role::Read),
        ("peers", Self::Peers, Role::Read),
        ("ping", Self::Ping, Role::Operate),
        ("why", Self::Why, Role::Read),
        ("records", Self::Records, Role::Read),
        ("join", Self::Join, Role::Own),
        ("leave", Self::Leave, Role::Own),
        ("rotate", Self::Rotate, Role::Operate),
        ("relays", Self::Relays, Role::Read),
        ("relay-status", Self::RelayStatus, Role::Read),
        ("relay-rotate", Self::RelayRotate, Role::Operate),
        ("relay-bench", Self::RelayBench, Role::Operate),
        ("host-add", Self::HostAdd, Role::Operate),
        ("host-remove", Self::HostRemove, Role::Operate),
        ("hosts", Self::Hosts, Role::Read),
        ("reload", Self::Reload, Role::Operate),
        ("metrics", Self::Metrics, Role::Read),
        ("events", Self::Events, Role::Read),
        ("apps", Self::Apps, Role::Read),
        ("app-add", Self::AppAdd, Role::Operate),
        ("app-remove", Self::AppRemove, Role::Operate),
        ("policy", Self::Policy, Role::Read),
        ("policy-check", Self::PolicyCheck, Role::Read),
        ("members", Self::Members, Role::Read),
        ("invites", Self::Invites, Role::Read),
        ("invite-create", Self::InviteCreate, Role::Operate),
        ("invite-revoke", Self::InviteRevoke, Role::Operate),
        ("login", Self::Login, Role::Operate),
        ("logout", Self::Logout, Role::Operate),
        ("logins", Self::Logins, Role::Operate),
        ("whose", Self::Whose, Role::Operate),
        // A secret of the page's, and of nobody else's.
        ("login-tls", Self::LoginTls, Role::Own),
        ("tls-ca", Self::TlsCa, Role::Read),
        // Who came and who was refused is not for every user of this machine.
        ("audit-read", Self::AuditRead, Role::Operate),
        ("audit-verify", Self::AuditVerify, Role::Operate),
        ("audit-heads", Self::AuditHeads, Role::Operate),
    ];

    /// The method called `name` and the least role that may use it.
    pub fn find(name: &str) -> Option<(Self, Role)> {
        let found = Self::ALL.iter().find(|(known, ..)| *known == name);
        found.map(|(_, method, role)| (*method, *role))
    }

    /// Whether it changes something here, so that the audit log has who asked for it: whatever is
    /// not for everybody, but for what only looks, and logins, which are entries of their own.
    pub fn is_act(self) -> bool {
        let looks = matches!(
            self,
            Self::Ping
                | Self::RelayBench
                | Self::Login
                | Self::Logout
                | Self::Logins
                | Self::Whose
                | Self::LoginTls
                | Self::AuditRead
                | Self::AuditVerify
                | Self::AuditHeads
        );
        let found = Self::ALL.iter().find(|(_, known, _)| *known == self);
        !looks && found.is_some_and(|(.., role)| *role > Role::Read)
    }

    /// Whether it is for the login page.
    pub const fn is_for_logins(self) -> bool {
        matches!(
            self,
            Self::Login | Self::Logout | Self::Logins | Self::Whose | Self::LoginTls | Self::TlsCa
        )
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, known, _)| *known == self);
        found.map_or("", |(name, ..)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: &Response, line: &str) {
        assert_eq!(serde_json::to_string(response).unwrap(), line);
        assert_eq!(serde_json::from_str::<Response>(line).unwrap(), *response);
    }

    #[test]
    fn lines_are_what_the_documentation_shows() {
        check(
            &Response {
                v: 1,
                id: 7,
                outcome: Outcome::Result(serde_json::json!({"a": 1})),
            },
            r#"{"v":1,"id":7,"result":{"a":1}}"#,
        );
        check(
            &Response {
                v: 1,
                id: 7,
                outcome: Outcome::Error(ApiError::new(Code::NotAMember, "no network", "join one")),
            },
            r#"{"v":1,"id":7,"error":{"code":"not-a-member","message":"no network","hint":"join one"}}"#,
        );
    }

    #[test]
    fn a_code_of_a_newer_version_reads_as_other() {
        assert_eq!(
            serde_json::from_str::<Code>(r#""new-code""#).unwrap(),
            Code::Other
        );
    }

    #[test]
    fn every_method_has_a_name_and_changes_need_a_role() {
        for (name, method, role) in Method::ALL {
            assert_eq!(Method::find(name), Some((method, role)));
            assert_eq!(method.name(), name);
        }
        assert!(Method::find("leave").unwrap().1 == Role::Own);
        assert!(Method::Rotate.is_act() && Method::Join.is_act());
        assert!(!Method::Ping.is_act() && !Method::Status.is_act());
        assert!(Method::find("nothing").is_none());
    }
}
