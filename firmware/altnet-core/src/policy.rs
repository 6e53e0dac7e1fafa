//! Who may reach whom: asked at both ends, of flows and not of packets, and the answer has
//! a rule's name.
//!
//! In: a [`PacketInfo`], the way it goes, [`Facts`] about addresses, and the time.
//! Out: a [`Verdict`]. The first packet of a flow is judged by the rules; what follows it
//! and what answers it is admitted by the flow table until the flow falls silent or
//! [`Policy::rejudge`] says that the facts have changed. What isn't admitted is refused.
//!
//! Promises: nothing allocates after construction; both tables are bounded and a flood of
//! unanswered flows evicts only unanswered flows; later fragments follow an admitted first
//! fragment or are refused; an ICMPv6 error passes only if it is about a flow in the table.
//!
//! The one rule so far is [`RuleName::MEMBERS_TO_HOSTS`]. There is no timer: what has
//! expired is found out when it is met.

use core::net::Ipv6Addr;

use altnet_wire::time::Instant;

use crate::ip::{About, AboutTransport, Fragment, PacketInfo, Protocol, Transport};
use flow::{Class, Flow, FlowTable, Key};
use fragment::FragmentTable;

pub mod flow;
pub mod fragment;

/// The name of the rule that decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName(&'static str);

impl RuleName {
    /// Admits this network's members to hosts and apps in records.
    pub const MEMBERS_TO_HOSTS: Self = Self("members-to-hosts");
    /// Nothing admits it.
    pub const DEFAULT_DENY: Self = Self("default-deny");

    /// The name as people and tools see it. Stable.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

impl core::fmt::Display for RuleName {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.0)
    }
}

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
    /// The destination is no host or app in records, and the packet answers nothing.
    NoSuchTarget,
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
    rule: RuleName,
    refused: Option<DropReason>,
}

impl Verdict {
    const fn admit(rule: RuleName) -> Self {
        Self {
            rule,
            refused: None,
        }
    }

    const fn refuse(reason: DropReason) -> Self {
        Self {
            rule: RuleName::DEFAULT_DENY,
            refused: Some(reason),
        }
    }

    /// Whether the packet may pass.
    pub const fn is_allowed(&self) -> bool {
        self.refused.is_none()
    }

    /// The rule that decided.
    pub const fn rule(&self) -> RuleName {
        self.rule
    }

    /// Why it may not pass; nothing if it may.
    pub const fn drop_reason(&self) -> Option<DropReason> {
        self.refused
    }
}

/// What the rules ask about addresses. Answered from the records in force.
pub trait Facts {
    /// Whether `source` lies in the prefix set of a current member: a node's own address, an
    /// app's, or the /64 of a gateway's site.
    fn is_member(&self, source: Ipv6Addr) -> bool;

    /// Whether `destination` is the address of a host or an app in records.
    fn is_target(&self, destination: Ipv6Addr) -> bool;

    /// Whether we speak for `address`: this node's own, its apps', or its site's /64.
    fn is_ours(&self, address: Ipv6Addr) -> bool;
}

/// How large the tables may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Flows at a time; a new one takes the place of the one that matters least.
    pub flows: u32,
    /// Fragmented packets on their way at a time.
    pub fragments: u32,
}

impl PolicyLimits {
    /// A gateway on Linux: under 1 MB.
    pub const ROUTER: Self = Self {
        flows: 8192,
        fragments: 64,
    };
    /// A microcontroller: about 12 KB.
    pub const MICRO: Self = Self {
        flows: 128,
        fragments: 8,
    };
}

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From our side into the network.
    Outbound,
    /// From the network to our side.
    Inbound,
}

/// The rules and the flows that they admitted.
#[derive(Debug)]
pub struct Policy {
    flows: FlowTable,
    fragments: FragmentTable,
    generation: u64,
}

impl Policy {
    /// Makes empty tables and reserves their memory. `seed` keeps members from choosing
    /// flows that share a bucket; it must be unknown to them.
    pub fn new(limits: PolicyLimits, seed: [u8; 16]) -> Self {
        Self {
            flows: FlowTable::new(limits.flows, seed),
            fragments: FragmentTable::new(limits.fragments),
            generation: 0,
        }
    }

    /// Judges a packet from our side into the network.
    pub fn judge_outbound(
        &mut self,
        packet: &PacketInfo,
        facts: &impl Facts,
        now: Instant,
    ) -> Verdict {
        self.judge(Direction::Outbound, packet, facts, now)
    }

    /// Judges a packet from the network to our side. That its source belongs to the peer
    /// that sealed it was found before.
    pub fn judge_inbound(
        &mut self,
        packet: &PacketInfo,
        facts: &impl Facts,
        now: Instant,
    ) -> Verdict {
        self.judge(Direction::Inbound, packet, facts, now)
    }

    /// Says that the facts have changed: every flow is judged again at its next packet, and
    /// fragments on their way are forgotten.
    pub fn rejudge(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.fragments.clear();
    }

    /// How many flows there are, expired ones not counted.
    pub fn flow_count(&mut self, now: Instant) -> u32 {
        self.flows.expire(now);
        self.flows.len()
    }

    /// Flows that were forgotten before their time because the table was full.
    pub fn evictions(&self) -> u64 {
        self.flows.evictions()
    }

    fn judge(
        &mut self,
        direction: Direction,
        packet: &PacketInfo,
        facts: &impl Facts,
        now: Instant,
    ) -> Verdict {
        if let Err(reason) = check_addresses(direction, packet, facts) {
            return Verdict::refuse(reason);
        }
        match packet.fragment {
            Fragment::Whole => self.judge_header(direction, packet, facts, now),
            Fragment::First { id, end_bytes } => {
                let verdict = self.judge_header(direction, packet, facts, now);
                let key = fragment::Key::new(packet, id);
                if verdict.is_allowed() {
                    self.fragments.admit(key, end_bytes, verdict.rule, now);
                } else {
                    self.fragments.remove(&key);
                }
                verdict
            }
            Fragment::Later { id, offset_bytes } => {
                let key = fragment::Key::new(packet, id);
                match self.fragments.judge(&key, offset_bytes, now) {
                    Ok(rule) => Verdict::admit(rule),
                    Err(reason) => Verdict::refuse(reason),
                }
            }
        }
    }

    fn judge_header(
        &mut self,
        direction: Direction,
        packet: &PacketInfo,
        facts: &impl Facts,
        now: Instant,
    ) -> Verdict {
        let key = match packet.transport {
            Transport::Tcp {
                source_port,
                destination_port,
                ..
            }
            | Transport::Udp {
                source_port,
                destination_port,
            } => Key::ports(direction, packet, source_port, destination_port),
            Transport::Echo { is_request, id } => Key::echo(direction, packet, is_request, id),
            Transport::IcmpError { about, .. } => {
                return self.judge_error(direction, packet, about, facts, now);
            }
            Transport::Icmp { .. } => return Verdict::refuse(DropReason::LinkLocalIcmp),
            Transport::Other if packet.protocol == Protocol::NONE => {
                return Verdict::refuse(DropReason::Empty);
            }
            Transport::Other => Key::ports(direction, packet, 0, 0),
            Transport::Absent => return Verdict::refuse(DropReason::FragmentWithoutFirst),
        };
        if let Some(rule) = self.known(&key, facts, now) {
            self.flows.touch(&key, direction, packet, now);
            return Verdict::admit(rule);
        }
        // A reply never begins a flow.
        if let Transport::Echo {
            is_request: false, ..
        } = packet.transport
        {
            return Verdict::refuse(DropReason::Unsolicited);
        }
        let verdict = judge_new(packet.source, packet.destination, facts);
        if verdict.is_allowed() {
            let flow = Flow {
                key,
                initiator: direction,
                generation: self.generation,
                rule: verdict.rule,
            };
            self.flows.insert(flow, now);
            self.flows.touch(&key, direction, packet, now);
        }
        verdict
    }

    /// The rule that admitted the flow `key`, if it still does.
    fn known(&mut self, key: &Key, facts: &impl Facts, now: Instant) -> Option<RuleName> {
        let flow = self.flows.find(key, now)?;
        if flow.generation == self.generation {
            return Some(flow.rule);
        }
        let (source, destination) = flow.ends();
        let verdict = judge_new(source, destination, facts);
        if !verdict.is_allowed() {
            self.flows.remove(key);
            return None;
        }
        self.flows.confirm(key, self.generation, verdict.rule);
        Some(verdict.rule)
    }

    /// An ICMPv6 error goes back to the sender of the packet that it quotes: that packet went
    /// the other way, and must be of a flow.
    fn judge_error(
        &mut self,
        direction: Direction,
        packet: &PacketInfo,
        about: Option<About>,
        facts: &impl Facts,
        now: Instant,
    ) -> Verdict {
        let refused = Verdict::refuse(DropReason::ErrorWithoutFlow);
        let Some(about) = about.filter(|about| about.source == packet.destination) else {
            return refused;
        };
        let quoted = match direction {
            Direction::Outbound => Direction::Inbound,
            Direction::Inbound => Direction::Outbound,
        };
        let key = Key::about(quoted, &about);
        match self.known(&key, facts, now) {
            Some(rule) => Verdict::admit(rule),
            None => refused,
        }
    }
}

/// What the rules say of a new flow from `source` to `destination`: for the first packet,
/// and for people who ask why.
pub fn judge_new(source: Ipv6Addr, destination: Ipv6Addr, facts: &impl Facts) -> Verdict {
    if !facts.is_member(source) {
        Verdict::refuse(DropReason::NotAMember)
    } else if !facts.is_target(destination) {
        Verdict::refuse(DropReason::NoSuchTarget)
    } else {
        Verdict::admit(RuleName::MEMBERS_TO_HOSTS)
    }
}

/// Our side is where we say it is, and nothing else is.
fn check_addresses(
    direction: Direction,
    packet: &PacketInfo,
    facts: &impl Facts,
) -> Result<(), DropReason> {
    if !is_routable(packet.source) || !is_routable(packet.destination) {
        return Err(DropReason::NotRoutable);
    }
    let (ours, theirs) = match direction {
        Direction::Outbound => (packet.source, packet.destination),
        Direction::Inbound => (packet.destination, packet.source),
    };
    if !facts.is_ours(ours) {
        return Err(DropReason::NotOurs);
    }
    if facts.is_ours(theirs) {
        return Err(DropReason::Looped);
    }
    Ok(())
}

fn is_routable(address: Ipv6Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local())
}

impl Key {
    fn ports(
        direction: Direction,
        packet: &PacketInfo,
        source_port: u16,
        destination_port: u16,
    ) -> Self {
        Self::new(
            direction,
            packet.protocol,
            (packet.source, source_port),
            (packet.destination, destination_port),
        )
    }

    fn echo(direction: Direction, packet: &PacketInfo, is_request: bool, id: u16) -> Self {
        Self::new(
            direction,
            packet.protocol,
            (packet.source, 0),
            (packet.destination, 0),
        )
        .with_echo(direction, is_request, id)
    }

    fn about(direction: Direction, about: &About) -> Self {
        let ends = |source_port, destination_port| {
            Self::new(
                direction,
                about.protocol,
                (about.source, source_port),
                (about.destination, destination_port),
            )
        };
        match about.transport {
            AboutTransport::Ports {
                source_port,
                destination_port,
            } => ends(source_port, destination_port),
            AboutTransport::Echo { is_request, id } => {
                ends(0, 0).with_echo(direction, is_request, id)
            }
            AboutTransport::Other => ends(0, 0),
        }
    }
}

impl FlowTable {
    /// Notes a packet of the flow `key`.
    fn touch(&mut self, key: &Key, direction: Direction, packet: &PacketInfo, now: Instant) {
        let class = match packet.transport {
            Transport::Tcp { flags, .. } => Class::Tcp {
                is_closing: flags.is_fin() || flags.is_rst(),
            },
            Transport::Echo { .. } => Class::Echo,
            _ => Class::Datagram,
        };
        self.note(key, direction, class, now);
    }
}

#[cfg(test)]
mod tests;
