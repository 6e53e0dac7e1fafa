//! What is asked of policy and what it answers.

use core::net::Ipv6Addr;

use altnet_wire::time::UnixTime;

use super::table::RuleIndex;
use crate::ip::{PacketInfo, Protocol, Transport};

/// The rule that decided; [`super::Policy::rule_name`] has its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId(pub(super) RuleIndex);

impl RuleId {
    /// No rule allows it.
    pub const DEFAULT_DENY: Self = Self(RuleIndex::MAX);
    /// Outside the hours of the profile of who begins.
    pub const PROFILE_HOURS: Self = Self(RuleIndex::MAX - 1);
    /// There is no policy, or none that can be put to work.
    pub const NO_POLICY: Self = Self(RuleIndex::MAX - 2);
}

/// What verdicts of no policy's rule are called by: no rule of a policy should be.
pub const BUILT_IN: [&str; 3] = ["default-deny", "profile-hours", "no-policy"];

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum DropReason {
    /// An address that is unspecified, loopback, link-local or multicast.
    NotRoutable,
    /// Going out with a source that isn't ours, or coming in for a destination that isn't.
    NotOurs,
    /// Going out to ourselves, or coming in from ourselves.
    Looped,
    /// The source belongs to no current member.
    NotAMember,
    /// The destination belongs to no current member, and the packet answers nothing.
    NoSuchTarget,
    /// No rule allows the source to begin this.
    NoRule,
    /// A rule would allow it at another time, or if this node were in step.
    Closed,
    /// An ICMPv6 message that is never carried between sites: neighbor discovery and the like.
    LinkLocalIcmp,
    /// An echo reply that nobody asked for.
    Unsolicited,
    /// An ICMPv6 error about no flow in the table.
    ErrorWithoutFlow,
    /// A later fragment whose first was not admitted, or not yet.
    FragmentWithoutFirst,
    /// A fragment that overlaps the first one (RFC 5722).
    OverlappingFragment,
    /// Nothing follows the IPv6 header.
    Empty,
}

/// What policy says of a packet, and by which rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub(super) rule: RuleId,
    refused: Option<DropReason>,
}

impl Verdict {
    pub(super) const fn admit(rule: RuleId) -> Self {
        Self {
            rule,
            refused: None,
        }
    }

    pub(super) const fn refuse(reason: DropReason) -> Self {
        Self {
            rule: RuleId::DEFAULT_DENY,
            refused: Some(reason),
        }
    }

    pub(super) const fn refuse_by(rule: RuleId, reason: DropReason) -> Self {
        Self {
            rule,
            refused: Some(reason),
        }
    }

    /// Whether the packet may pass.
    pub const fn is_allowed(&self) -> bool {
        self.refused.is_none()
    }

    /// The rule that decided.
    pub const fn rule(&self) -> RuleId {
        self.rule
    }

    /// Why it may not pass; nothing if it may.
    pub const fn drop_reason(&self) -> Option<DropReason> {
        self.refused
    }
}

/// What the rules ask besides what they were told. Answered from the records in force.
pub trait Facts {
    /// Whether we speak for `address`: this node's own, its apps', or its site's /64.
    fn is_ours(&self, address: Ipv6Addr) -> bool;

    /// Whether a membership that ends then has ended, as far as can be told.
    fn is_ended(&self, expires: UnixTime) -> bool;
}

/// What a flow is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowInfo {
    /// Who begins it.
    pub source: Ipv6Addr,
    /// With whom.
    pub destination: Ipv6Addr,
    /// By which protocol.
    pub protocol: Protocol,
    /// The destination's port, 0 where the protocol has none.
    pub port: u16,
}

impl FlowInfo {
    /// The flow that a packet would begin.
    pub(super) const fn of(packet: &PacketInfo) -> Self {
        let port = match packet.transport {
            Transport::Tcp {
                destination_port, ..
            }
            | Transport::Udp {
                destination_port, ..
            } => destination_port,
            _ => 0,
        };
        Self {
            source: packet.source,
            destination: packet.destination,
            protocol: packet.protocol,
            port,
        }
    }
}
