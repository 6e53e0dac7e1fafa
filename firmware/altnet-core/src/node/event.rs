//! Facts a node tells. The ids are stable: programs match on them, people read the text.

use alloc::boxed::Box;
use core::fmt;
use core::net::SocketAddr;

use altnet_wire::audit::AuditHead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::{MemberId, Name, NetworkId, NodeId, RecordId, Serial, SigningKey};
use altnet_wire::message::{Filtering, Mapping, Refusal};
use altnet_wire::time::UnixTime;

use super::Decision;
use super::advice::{words_of, words_of_filtering};
use crate::audit::proof::{Rewrite, Witnessed};
use crate::path::search::Ended;
use crate::path::{Change, Why};
use crate::policy::RulesError;
use crate::relay::bench::Report;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// This node became a member.
    Joined {
        /// Of this network.
        network: NetworkId,
        /// Under this name.
        name: Name,
    },
    /// Joining did not succeed; nothing was changed.
    JoinFailed {
        /// Why.
        why: JoinError,
    },
    /// This node is no longer a member.
    Left {
        /// Of this network.
        network: NetworkId,
        /// Whether it was put out rather than left by itself.
        revoked: bool,
    },
    /// A member appeared or changed.
    MemberChanged {
        /// Who.
        member: MemberId,
        /// Its name.
        name: Name,
    },
    /// A member was revoked or its membership ended.
    MemberGone {
        /// Who.
        member: MemberId,
    },
    /// The way to a peer is another.
    PathChanged {
        /// Which peer.
        node: NodeId,
        /// From where to where, and why.
        change: Change,
    },
    /// A tunnel with a peer is up.
    TunnelUp {
        /// Which peer.
        node: NodeId,
    },
    /// How the NAT before this node maps is known, or is known no more.
    Mapping {
        /// On what a mapping depends.
        mapping: Mapping,
    },
    /// Whom the NAT before this node lets in is known, or is known no more.
    Filtering {
        /// On what that depends.
        filtering: Filtering,
    },
    /// A search for a way to a peer ended and found none ([`crate::path::search`]).
    SearchEnded {
        /// Which peer.
        node: NodeId,
        /// Why.
        why: Ended,
    },
    /// Another relay is this node's home.
    HomeRelay {
        /// Which.
        relay: NodeId,
    },
    /// A relay forwards for this node.
    RelayUp {
        /// Which relay.
        relay: NodeId,
        /// Where it sees this node; unspecified if it is reached over a stream.
        observed: SocketAddr,
    },
    /// A relay no longer forwards for this node.
    RelayDown {
        /// Which relay.
        relay: NodeId,
    },
    /// A TURN server relays for this node.
    TurnUp {
        /// Its host and port.
        server: alloc::string::String,
        /// What peers send to.
        relayed: SocketAddr,
    },
    /// A TURN server that is needed doesn't relay for this node.
    TurnDown {
        /// Its host and port.
        server: alloc::string::String,
        /// Why, for people.
        why: alloc::string::String,
    },
    /// A DERP server of others admitted this node.
    DerperUp {
        /// Its host and port.
        server: alloc::string::String,
    },
    /// A DERP server that is needed can't be reached, or doesn't admit this node.
    DerperDown {
        /// Its host and port.
        server: alloc::string::String,
        /// Why, for people.
        why: alloc::string::String,
    },
    /// A directory's records are here.
    DirectorySynced {
        /// Which directory.
        directory: NodeId,
    },
    /// No directory answers; the last valid records serve on.
    DirectoryLost {
        /// Which directory.
        directory: NodeId,
    },
    /// An answer to a ping.
    Pong {
        /// Who answered.
        node: NodeId,
        /// The round-trip time in microseconds.
        rtt_us: u64,
        /// Whether it went by a relay.
        relayed: bool,
    },
    /// A relay was measured.
    Benched {
        /// Which.
        relay: NodeId,
        /// What was found.
        report: Report,
    },
    /// The tunnel key was replaced.
    Rotated {
        /// The new key's epoch.
        epoch: u32,
    },
    /// The membership was renewed.
    Renewed,
    /// A device came in by an invite that this node counts.
    Admitted {
        /// Its name.
        name: Name,
        /// The member that brought it in, if one did.
        sponsor: Option<Name>,
    },
    /// Somebody was not let in.
    NotAdmitted {
        /// Why.
        why: Refusal,
    },
    /// A peer knows of revocations that this node hasn't got yet.
    HeadBehind {
        /// Which peer.
        node: NodeId,
    },
    /// A record could not be taken.
    RecordRefused {
        /// Why, for people.
        why: &'static str,
    },
    /// An owner certified a key for TLS on this device.
    Certified {
        /// The app's name, or `login`.
        name: alloc::string::String,
        /// When the certificate ends.
        until: UnixTime,
    },
    /// Another policy is in force.
    PolicyChanged {
        /// Its serial.
        serial: Serial,
        /// How many rules it has.
        rules: usize,
    },
    /// No policy is in force any more: nothing is allowed.
    PolicyGone,
    /// The policy can't be put to work on this node: nothing is allowed.
    PolicyUnusable {
        /// Why.
        why: RulesError,
    },
    /// A member opened a control session with this node, or this node with it.
    Arrived {
        /// Who.
        node: NodeId,
    },
    /// A record came that decides over others.
    Decided {
        /// What it says.
        what: Box<Decision>,
        /// The record.
        record: RecordId,
        /// Who signed it.
        signer: SigningKey,
    },
    /// A member countersigned how far this node's audit log has come.
    Witnessed {
        /// Who.
        node: NodeId,
        /// Its word.
        witnessed: Box<Witnessed>,
    },
    /// A member's audit log does not go on from what it showed before.
    PastRewritten {
        /// Who.
        node: NodeId,
        /// What it signed then and now.
        rewrite: Box<Rewrite>,
    },
    /// A member can't show how its audit log got from where it was to where it is.
    PastNotShown {
        /// Who.
        node: NodeId,
        /// The last sequence that was shown.
        from: u64,
        /// The sequence that is vouched for now.
        to: u64,
    },
    /// A member holds a head of this node's audit log, signed by this node, that is not in it.
    PastContradicted {
        /// Who.
        node: NodeId,
        /// What it holds.
        held: AuditHead,
    },
}

impl Event {
    /// The stable id.
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Joined { .. } => "joined",
            Self::JoinFailed { .. } => "join-failed",
            Self::Left { .. } => "left",
            Self::MemberChanged { .. } => "member-changed",
            Self::MemberGone { .. } => "member-gone",
            Self::PathChanged { .. } => "path-changed",
            Self::TunnelUp { .. } => "tunnel-up",
            Self::HomeRelay { .. } => "home-relay",
            Self::Mapping { .. } => "mapping",
            Self::Filtering { .. } => "filtering",
            Self::SearchEnded { .. } => "search-ended",
            Self::RelayUp { .. } => "relay-up",
            Self::RelayDown { .. } => "relay-down",
            Self::TurnUp { .. } => "turn-up",
            Self::TurnDown { .. } => "turn-down",
            Self::DerperUp { .. } => "derper-up",
            Self::DerperDown { .. } => "derper-down",
            Self::DirectorySynced { .. } => "directory-synced",
            Self::DirectoryLost { .. } => "directory-lost",
            Self::Pong { .. } => "pong",
            Self::Benched { .. } => "benched",
            Self::Rotated { .. } => "rotated",
            Self::Renewed => "renewed",
            Self::Admitted { .. } => "admitted",
            Self::NotAdmitted { .. } => "not-admitted",
            Self::HeadBehind { .. } => "head-behind",
            Self::RecordRefused { .. } => "record-refused",
            Self::Certified { .. } => "certified",
            Self::PolicyChanged { .. } => "policy-changed",
            Self::PolicyGone => "policy-gone",
            Self::PolicyUnusable { .. } => "policy-unusable",
            Self::Arrived { .. } => "arrived",
            Self::Decided { .. } => "decided",
            Self::Witnessed { .. } => "witnessed",
            Self::PastRewritten { .. } => "past-rewritten",
            Self::PastNotShown { .. } => "past-not-shown",
            Self::PastContradicted { .. } => "past-contradicted",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_names(|node| node).fmt(f)
    }
}

impl Event {
    /// The sentence for people, with nodes called as `name` says.
    pub fn with_names<N: fmt::Display>(&self, name: impl Fn(NodeId) -> N) -> impl fmt::Display {
        fmt::from_fn(move |f| self.write(f, &name))
    }

    fn write<N: fmt::Display>(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &impl Fn(NodeId) -> N,
    ) -> fmt::Result {
        match self {
            Self::Joined { network, name } => write!(f, "joined network {network} as {name}"),
            Self::JoinFailed { why } => write!(f, "could not join: {why}"),
            Self::Left { network, revoked } => {
                let how = if *revoked { "was put out of" } else { "left" };
                write!(f, "{how} network {network}")
            }
            Self::MemberChanged { member, name } => write!(f, "member {name} ({member}) changed"),
            Self::MemberGone { member } => write!(f, "member {member} is gone"),
            Self::PathChanged { node, change } => {
                let (node, why) = (name(*node), change.why);
                match change.to {
                    Some(Endpoint::Direct(to)) => write!(f, "path to {node} is {to}: {why}"),
                    Some(Endpoint::Relayed { .. }) if why == Why::Derp => {
                        write!(f, "path to {node} is a DERP server: {why}")
                    }
                    Some(Endpoint::Relayed { .. }) if why == Why::Turn => {
                        write!(f, "path to {node} is a TURN server: {why}")
                    }
                    Some(Endpoint::Relayed { relay, .. }) => {
                        write!(f, "path to {node} is relay {}: {why}", name(relay))
                    }
                    None => write!(f, "no path to {node}: {why}"),
                }
            }
            Self::TunnelUp { node } => write!(f, "tunnel with {} is up", name(*node)),
            Self::HomeRelay { relay } => write!(f, "relay {} is our home now", name(*relay)),
            Self::Mapping { mapping } => write!(f, "the NAT before us: {}", words_of(*mapping)),
            Self::Filtering { filtering } => {
                let words = words_of_filtering(*filtering);
                write!(f, "whom the NAT before us lets in: {words}")
            }
            Self::SearchEnded { node, why } => {
                write!(f, "no way through the NATs to {}: {why}", name(*node))
            }
            Self::RelayUp { relay, observed } => {
                let relay = name(*relay);
                if observed.ip().is_unspecified() {
                    return write!(f, "relay {relay} forwards for us over TLS");
                }
                write!(f, "relay {relay} forwards for us and sees us at {observed}")
            }
            Self::DerperUp { server } => write!(f, "DERP server {server} admitted us"),
            Self::DerperDown { server, why } => write!(
                f,
                "DERP server {server} is of no use: {why}; check its entry in the configuration, and that it admits the key that 'altnet status' shows"
            ),
            Self::TurnUp { server, relayed } => {
                write!(f, "TURN server {server} relays for us at {relayed}")
            }
            Self::TurnDown { server, why } => write!(
                f,
                "TURN server {server} does not relay for us: {why}; check its entry in the configuration, or remove it"
            ),
            Self::RelayDown { relay } => write!(f, "relay {} does not answer", name(*relay)),
            Self::DirectorySynced { directory } => {
                write!(f, "in step with directory {}", name(*directory))
            }
            Self::DirectoryLost { directory } => write!(
                f,
                "directory {} does not answer; the last valid records serve on",
                name(*directory)
            ),
            Self::Pong {
                node,
                rtt_us,
                relayed,
            } => {
                let way = if *relayed { "by relay" } else { "directly" };
                write!(f, "{} answered {way} in {rtt_us} us", name(*node))
            }
            Self::Benched { relay, report } => {
                let (sent, came) = report.pings;
                write!(f, "relay {} was measured: {came} of {sent} came back", name(*relay))
            }
            Self::Rotated { epoch } => write!(f, "tunnel key replaced, epoch {epoch}"),
            Self::Renewed => f.write_str("membership renewed"),
            Self::Admitted { name, sponsor } => match sponsor {
                Some(sponsor) => write!(f, "admitted {name}, whom {sponsor} brought in"),
                None => write!(f, "admitted {name}"),
            },
            Self::NotAdmitted { why } => write!(f, "did not admit a device: {why}"),
            Self::HeadBehind { node } => {
                let node = name(*node);
                write!(f, "{node} knows of newer revocations; fetching them first")
            }
            Self::RecordRefused { why } => write!(f, "refused a record: {why}"),
            Self::Certified { name, until } => {
                write!(f, "{name} has a certificate for TLS until {until}")
            }
            Self::PolicyChanged { serial, rules } => {
                write!(f, "policy {serial} is in force, with {rules} rules")
            }
            Self::PolicyGone => {
                f.write_str("no policy is in force, so nothing is allowed; an owner can publish one with 'altnet-provision policy publish'")
            }
            Self::PolicyUnusable { why } => {
                write!(f, "the policy can't be used here, so nothing is allowed: {why}")
            }
            Self::Arrived { node } => write!(f, "a session with {} stands", name(*node)),
            Self::Decided { what, .. } => write!(f, "{what}"),
            Self::Witnessed { node, witnessed } => {
                let (node, through) = (name(*node), witnessed.head.sequence);
                write!(
                    f,
                    "{node} countersigned our audit log up to entry {through}"
                )
            }
            Self::PastRewritten { node, rewrite } => write!(
                f,
                "{} rewrote the past of its audit log: what it shows does not go on from entry {}, which it had signed",
                name(*node),
                rewrite.held.head.sequence
            ),
            Self::PastNotShown { node, from, to } => write!(
                f,
                "{} can't show how its audit log got from entry {from} to entry {to}",
                name(*node)
            ),
            Self::PastContradicted { node, held } => write!(
                f,
                "{} holds entry {} of our audit log as we had signed it, and it is not in the log: the log was rewritten, or restored from an older copy",
                name(*node),
                held.sequence
            ),
        }
    }
}

/// Why joining did not succeed. One sentence each, with what to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// This node is in a network already.
    #[error("this node is a member already; leave that network first")]
    AlreadyMember,
    /// Another attempt is under way.
    #[error("joining is under way already; wait for it to end")]
    UnderWay,
    /// Nobody answers at the addresses in the invite.
    #[error(
        "nobody answers at the addresses in the invite; check the internet connection and that the network's relay runs"
    )]
    NoAnswer,
    /// Who answered is not of the invite's network.
    #[error(
        "who answers at the invite's address does not belong to its network; ask for a new invite"
    )]
    OtherNetwork,
    /// The issuer said no.
    #[error("{0}")]
    Refused(Refusal),
    /// The answer could not be used.
    #[error("the answer was damaged or does not admit this device; ask for a new invite")]
    BadAnswer,
    /// The bundle or link doesn't fit itself.
    #[error("the invite or bundle is damaged; ask for a new one")]
    BadInvite,
}
