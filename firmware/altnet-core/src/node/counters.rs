//! Per-packet refusals: named, counted, never formatted on the way.

use core::fmt;

/// Why a packet or datagram went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u8)]
pub enum DropReason {
    /// Neither WireGuard, relay, control nor STUN, or cut off.
    NotOurs,
    /// Not an IPv6 packet, or its lengths or headers don't fit.
    BadPacket,
    /// This node is in no network.
    NotMember,
    /// From our side, with a source that isn't this node's or its site's.
    ForeignSource,
    /// To an address that no member speaks for.
    NoRoute,
    /// To a member to which there is no way now.
    NoPath,
    /// No rule allows the flow.
    Denied,
    /// A fragment that belongs to no admitted packet.
    Fragment,
    /// The inner source isn't the peer's that sealed it.
    SpoofedSource,
    /// The inner destination isn't this node's or its site's.
    ForeignDestination,
    /// A tunnel datagram that didn't open: no such session, replayed, or altered.
    Tunnel,
    /// A handshake of somebody who isn't a current member.
    Stranger,
    /// A control datagram that didn't open, or from nobody we talk to.
    Control,
    /// STUN that this node doesn't answer: it is no relay, it isn't a Binding request, or more
    /// short ones came of late than are answered.
    Stun,
    /// To be relayed with a token that isn't good from there.
    RelayToken,
    /// To be relayed to a node that isn't registered here.
    RelayNoSuchNode,
    /// Relayed by somebody who isn't a relay of ours.
    RelayUnknown,
    /// To be relayed for a member that sends more than it may.
    RelayOver,
    /// Held back: the peer knows of revocations that this node is still fetching.
    HeadBehind,
    /// A table is full.
    Full,
    /// Too large for the way it had to go.
    TooLarge,
}

/// How many reasons there are.
pub const DROP_REASONS: usize = DropReason::TooLarge as usize + 1;

impl DropReason {
    /// All of them, in order.
    pub const ALL: [Self; DROP_REASONS] = [
        Self::NotOurs,
        Self::BadPacket,
        Self::NotMember,
        Self::ForeignSource,
        Self::NoRoute,
        Self::NoPath,
        Self::Denied,
        Self::Fragment,
        Self::SpoofedSource,
        Self::ForeignDestination,
        Self::Tunnel,
        Self::Stranger,
        Self::Control,
        Self::Stun,
        Self::RelayToken,
        Self::RelayNoSuchNode,
        Self::RelayUnknown,
        Self::RelayOver,
        Self::HeadBehind,
        Self::Full,
        Self::TooLarge,
    ];

    /// A stable word for metrics.
    pub const fn id(self) -> &'static str {
        match self {
            Self::NotOurs => "not-ours",
            Self::BadPacket => "bad-packet",
            Self::NotMember => "not-member",
            Self::ForeignSource => "foreign-source",
            Self::NoRoute => "no-route",
            Self::NoPath => "no-path",
            Self::Denied => "denied",
            Self::Fragment => "fragment",
            Self::SpoofedSource => "spoofed-source",
            Self::ForeignDestination => "foreign-destination",
            Self::Tunnel => "tunnel",
            Self::Stranger => "stranger",
            Self::Control => "control",
            Self::Stun => "stun",
            Self::RelayToken => "relay-token",
            Self::RelayNoSuchNode => "relay-no-such-node",
            Self::RelayUnknown => "relay-unknown",
            Self::RelayOver => "relay-over",
            Self::HeadBehind => "head-behind",
            Self::Full => "full",
            Self::TooLarge => "too-large",
        }
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

/// What passed and what didn't.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets taken from our side and sealed.
    pub sealed: u64,
    /// Packets opened and delivered to our side.
    pub delivered: u64,
    /// Bytes of packets sealed, inner.
    pub sealed_bytes: u64,
    /// Bytes of packets delivered, inner.
    pub delivered_bytes: u64,
    /// Datagrams sent by way of a relay.
    pub relayed: u64,
    /// Answers to STUN requests.
    pub stun_answers: u64,
    /// Datagrams sent in pieces, as their path doesn't carry them whole.
    pub cut: u64,
    /// Datagrams that came in pieces.
    pub joined: u64,
    drops: [u64; DROP_REASONS],
}

impl Counters {
    /// Counts one refusal and hands it on.
    pub const fn drop(&mut self, reason: DropReason) -> DropReason {
        let count = &mut self.drops[reason as usize];
        *count = count.saturating_add(1);
        reason
    }

    /// How often something was refused for `reason`.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_of_its_own() {
        let mut counters = Counters::default();
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, at);
            for _ in 0..=at {
                counters.drop(reason);
            }
        }
        for (at, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.dropped(reason), at as u64 + 1);
        }
    }
}
