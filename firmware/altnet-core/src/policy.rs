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
//! The rules come as a record ([`altnet_wire::policy`]), whom they speak of from the other records
//! ([`Policy::set_rules`]); without a policy everything is refused. There is no timer: what has
//! expired is found out when it is met.

use core::net::Ipv6Addr;

use alloc::vec::Vec;
use altnet_wire::policy::Service;
use altnet_wire::time::{Instant, UnixTime};

use crate::ip::{About, AboutTransport, Fragment, PacketInfo, Protocol, Transport};
use flow::{Class, Flow, FlowTable, Found, Key};
use fragment::FragmentTable;
use roster::{Roster, Standing};
use table::Finding;

mod calendar;
mod draft;
pub mod flow;
pub mod fragment;
mod roster;
mod rules;
mod table;
mod verdict;

pub use draft::{Draft, DraftProfile, DraftRule, DraftSponsor, STALE_AFTER_S};
pub use roster::{Enrolled, Login, What};
pub use rules::{Rules, RulesError};
pub use verdict::{BUILT_IN, DropReason, Facts, FlowInfo, RuleId, Verdict};

/// How large the tables may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyLimits {
    /// Flows at a time; a new one takes the place of the one that matters least.
    pub flows: u32,
    /// Fragmented packets on their way at a time.
    pub fragments: u32,
    /// Ranges of ports of a source and a target that a policy may come to.
    pub rows: u32,
}

impl PolicyLimits {
    /// A gateway on Linux: under 1 MB, and at most another for its rules.
    pub const ROUTER: Self = Self {
        flows: 8192,
        fragments: 64,
        // Overlapping ranges of ports are cut, so there may be more than a policy names.
        rows: 4 * altnet_wire::policy::MAX_ROWS as u32,
    };
    /// A microcontroller: about 12 KB, and at most 16 for its rules.
    pub const MICRO: Self = Self {
        flows: 128,
        fragments: 8,
        rows: 512,
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
    rules: Option<Rules>,
    roster: Roster,
    open: calendar::Conditions,
}

impl Policy {
    /// Makes empty tables and reserves their memory. `seed` keeps members from choosing
    /// flows that share a bucket; it must be unknown to them.
    pub fn new(limits: PolicyLimits, seed: [u8; 16]) -> Self {
        Self {
            flows: FlowTable::new(limits.flows, seed),
            fragments: FragmentTable::new(limits.fragments),
            generation: 0,
            rules: None,
            roster: Roster::default(),
            open: 0,
        }
    }

    /// Puts rules in force, or none, and looks up in them whom they speak of. Every flow is judged
    /// again at its next packet. What depends on the time is closed until [`Policy::handle_time`].
    pub fn set_rules<'a>(
        &mut self,
        rules: Option<Rules>,
        everybody: impl Iterator<Item = Enrolled<'a>>,
    ) {
        self.rules = rules;
        self.open = 0;
        self.set_roster(everybody);
    }

    /// Looks up anew whom the rules speak of: the records have changed.
    pub fn set_roster<'a>(&mut self, everybody: impl Iterator<Item = Enrolled<'a>>) {
        self.roster = match &self.rules {
            Some(rules) => Roster::new(rules, everybody),
            None => Roster::default(),
        };
        self.rejudge();
    }

    /// The rules in force.
    pub const fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// What the roster takes of memory, in bytes.
    pub fn roster_bytes(&self) -> usize {
        self.roster.bytes()
    }

    /// Opens and closes what depends on the time, if it is known, and on the date of the newest
    /// head. Returns whether the rules depend on either: then this is to be called again within a
    /// minute.
    pub fn handle_time(&mut self, time: Option<UnixTime>, head: Option<UnixTime>) -> bool {
        let Some(rules) = self.rules.as_ref().filter(|rules| rules.has_conditions()) else {
            return false;
        };
        let open = rules.conditions(time, head);
        if core::mem::replace(&mut self.open, open) != open {
            self.rejudge();
        }
        true
    }

    /// The name of a rule, as people and tools see it.
    pub fn rule_name(&self, rule: RuleId) -> &str {
        match rule {
            RuleId::DEFAULT_DENY => BUILT_IN[0],
            RuleId::PROFILE_HOURS => BUILT_IN[1],
            RuleId::NO_POLICY => BUILT_IN[2],
            RuleId(index) => {
                let name = self.rules.as_ref().and_then(|rules| rules.name(index));
                name.map_or(BUILT_IN[0], altnet_wire::id::Name::as_str)
            }
        }
    }

    /// What a source may begin with a destination now: which rule allows which service.
    pub fn services(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        facts: &impl Facts,
    ) -> Vec<(RuleId, Service)> {
        self.services_in(self.open, source, destination, facts)
    }

    /// The same at any time: what hours close and what wants a fresh head counts too.
    pub fn services_ever(
        &self,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        facts: &impl Facts,
    ) -> Vec<(RuleId, Service)> {
        self.services_in(!0, source, destination, facts)
    }

    fn services_in(
        &self,
        open: calendar::Conditions,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        facts: &impl Facts,
    ) -> Vec<(RuleId, Service)> {
        let mut found = Vec::new();
        let (Some(rules), Some(source), Some(target)) = (
            &self.rules,
            self.current(source, facts),
            self.current(destination, facts),
        ) else {
            return found;
        };
        if source.needs & !open == 0 {
            rules.table().each(
                source.sources,
                target.targets,
                open,
                &mut |rule, service| found.push((RuleId(rule), service)),
            );
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether any rule lets a source begin anything with a destination, now or at another time.
    pub fn may_begin(&self, source: Ipv6Addr, destination: Ipv6Addr) -> bool {
        let (Some(rules), Some(source), Some(target)) = (
            &self.rules,
            self.roster.find(source),
            self.roster.find(destination),
        ) else {
            return false;
        };
        let table = rules.table();
        table.joins(source.sources, target.targets)
    }

    fn current(&self, address: Ipv6Addr, facts: &impl Facts) -> Option<Standing<'_>> {
        let standing = self.roster.find(address)?;
        (!facts.is_ended(standing.expires)).then_some(standing)
    }

    /// What the rules say of a new flow: for its first packet, and for people who ask why.
    pub fn judge_flow(&self, flow: &FlowInfo, facts: &impl Facts) -> Verdict {
        let Some(rules) = &self.rules else {
            return Verdict::refuse_by(RuleId::NO_POLICY, DropReason::NoRule);
        };
        let Some(source) = self.current(flow.source, facts) else {
            return Verdict::refuse(DropReason::NotAMember);
        };
        let Some(target) = self.current(flow.destination, facts) else {
            return Verdict::refuse(DropReason::NoSuchTarget);
        };
        if source.needs & !self.open != 0 {
            return Verdict::refuse_by(RuleId::PROFILE_HOURS, DropReason::Closed);
        }
        let found = rules.table().find(
            source.sources,
            target.targets,
            flow.protocol.0,
            flow.port,
            self.open,
        );
        match found {
            Some(Finding::Allowed(rule)) => Verdict::admit(RuleId(rule)),
            Some(Finding::Closed(rule)) => Verdict::refuse_by(RuleId(rule), DropReason::Closed),
            None => Verdict::refuse(DropReason::NoRule),
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
        if let Some(found) = self.known(&key, facts, now) {
            self.flows.touch(found, direction, packet, now);
            return Verdict::admit(found.rule);
        }
        // A reply never begins a flow.
        if let Transport::Echo {
            is_request: false, ..
        } = packet.transport
        {
            return Verdict::refuse(DropReason::Unsolicited);
        }
        let verdict = self.judge_flow(&FlowInfo::of(packet), facts);
        if verdict.is_allowed() {
            let flow = Flow {
                key,
                initiator: direction,
                generation: self.generation,
                rule: verdict.rule,
            };
            let found = self.flows.insert(flow, now);
            self.flows.touch(found, direction, packet, now);
        }
        verdict
    }

    /// The flow `key`, if it is known and still admitted.
    fn known(&mut self, key: &Key, facts: &impl Facts, now: Instant) -> Option<Found> {
        let mut found = self.flows.find(key, now)?;
        if found.generation == self.generation {
            return Some(found);
        }
        let verdict = self.judge_flow(&self.flows.info(found)?, facts);
        if !verdict.is_allowed() {
            self.flows.remove(found);
            return None;
        }
        self.flows.confirm(found, self.generation, verdict.rule);
        found.rule = verdict.rule;
        Some(found)
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
            Some(found) => Verdict::admit(found.rule),
            None => refused,
        }
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
    /// Notes a packet of a flow.
    fn touch(&mut self, found: Found, direction: Direction, packet: &PacketInfo, now: Instant) {
        let class = match packet.transport {
            Transport::Tcp { flags, .. } => Class::Tcp {
                is_closing: flags.is_fin() || flags.is_rst(),
            },
            Transport::Echo { .. } => Class::Echo,
            _ => Class::Datagram,
        };
        self.note(found, direction, class, now);
    }
}

#[cfg(test)]
mod tests;
