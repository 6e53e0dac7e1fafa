//! Where this node is, told to peers; where they are, as they or others tell.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Candidate, CandidateKind, MAX_CANDIDATES, Message, Notice, Presence};
use altnet_wire::time::{Duration, Instant};

use super::Node;

/// Peers are told where this node is at most this often.
const PRESENCE_PAUSE: Duration = Duration::from_secs(5);

/// Mapped ports: one of each address family, and room for a second router.
pub(super) const MAX_MAPPED: usize = 4;

/// Where this node is now.
#[derive(Debug, Default)]
pub(super) struct OwnPresence {
    pub(super) sequence: u64,
    pub(super) interfaces: heapless::Vec<SocketAddr, MAX_CANDIDATES>,
    /// Ports that routers before this node keep open.
    pub(super) mapped: heapless::Vec<SocketAddr, MAX_MAPPED>,
    /// Where a peer saw this node last.
    pub(super) observed: Option<SocketAddr>,
    /// What all peers were told last, and when.
    pub(super) told: Option<Presence>,
    pub(super) told_at: Option<Instant>,
    /// Something changed since.
    pub(super) late: bool,
}

impl<A: Aead> Node<A> {
    /// Where this node is, as it tells peers.
    pub(super) fn own_presence(&self) -> Presence {
        let mut presence = Presence {
            sequence: self.presence.sequence,
            ..Presence::default()
        };
        self.fill_candidates(&mut presence);
        presence
    }

    /// A peer says where it is.
    pub(super) fn handle_presence(&mut self, node: NodeId, presence: &Presence, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if presence.sequence < peer.presence {
            return;
        }
        peer.presence = presence.sequence;
        peer.told_relays = presence.relays.clone();
        let ours = usize::from(self.config.limits.candidates_per_peer);
        let all = presence.candidates.iter().copied();
        let its_own = all.filter(|told| !self.turn.is_turned_at(node, told.address));
        let candidates: heapless::Vec<_, MAX_CANDIDATES> = its_own.take(ours).collect();
        peer.path.set_candidates(&candidates, now);
        if self.nearby.gateway() == Some(node) {
            // It doesn't name its address on this LAN, where we are told of it by the LAN.
            self.offer_routers(now);
        }
        self.want_gateways_of(node, now);
        if let Some(record) = self.record_of(node) {
            let relays = self.relays_to(node, &record, now);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.path.set_relays(&relays, now);
            }
        }
        self.follow_path(node, now);
        self.timers.housekeeping_at(now);
    }

    /// Somebody else says where a peer is. It may be wrong, so that it only adds an address
    /// or two to try, and nothing while the peer itself can say it.
    pub(super) fn hint(&mut self, node: NodeId, presence: &Presence, now: Instant) {
        if self.stands(node).is_some() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.path.hint(&presence.candidates, now);
        self.follow_path(node, now);
        self.timers.housekeeping_at(now);
    }

    /// Where this node is has changed: every peer with a session is told, now or soon.
    pub(super) fn presence_changed(&mut self, now: Instant) {
        self.presence.sequence += 1;
        self.presence.late = true;
        let next = self.tell_late_presence(now);
        self.timers.housekeeping_at(next);
    }

    /// Tells every peer where this node is, if that changed and they were not told just now.
    /// Returns when it is to be told.
    pub(super) fn tell_late_presence(&mut self, now: Instant) -> Instant {
        if !self.presence.late {
            return Instant::NEVER;
        }
        let due = self.presence.told_at.map(|at| at.after(PRESENCE_PAUSE));
        if let Some(due) = due.filter(|due| *due > now) {
            return due;
        }
        self.presence.late = false;
        let presence = self.own_presence();
        let is_told = self.presence.told.as_ref().is_some_and(|told| {
            told.candidates == presence.candidates && told.relays == presence.relays
        });
        if is_told {
            // It changed and changed back.
            return Instant::NEVER;
        }
        self.presence.told = Some(presence);
        self.presence.told_at = Some(now);
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.tell_presence(node, now);
        }
        Instant::NEVER
    }

    /// Tells a peer where this node is, if there is a session that it greeted.
    pub(super) fn tell_presence(&mut self, node: NodeId, now: Instant) {
        let Some(session) = self.peers.get(&node).and_then(|peer| peer.session) else {
            return;
        };
        if self.sessions.get(&session).is_none_or(|s| !s.greeted) {
            return;
        }
        self.tell_turn_to(node, now);
        let presence = self.own_presence();
        if self.presence.late {
            // This one learns what the others don't know yet: all are told again.
            self.presence.told = None;
        }
        self.say(session, &Message::Notice(Notice::Presence(presence)), now);
        self.tell_mapping_to(node, now);
    }

    pub(super) fn fill_candidates(&self, presence: &mut Presence) {
        let mut add = |address: SocketAddr, kind| {
            let known = presence.candidates.iter().any(|c| c.address == address);
            if !known {
                let _ = presence.candidates.push(Candidate { address, kind });
            }
        };
        for address in self.fixed_endpoints() {
            add(address, CandidateKind::Fixed);
        }
        for address in &self.presence.mapped {
            add(*address, CandidateKind::Mapped);
        }
        for link in self.relays.values() {
            for seen in [link.observed, link.seen_beside()].into_iter().flatten() {
                add(seen, CandidateKind::Reflexive);
            }
        }
        if let Some(observed) = self.presence.observed
            && self.relays.values().all(|link| link.observed.is_none())
        {
            add(observed, CandidateKind::Reflexive);
        }
        if let Some(mapped) = self.turn.mapped() {
            add(mapped, CandidateKind::Reflexive);
        }
        for address in &self.presence.interfaces {
            add(*address, CandidateKind::Host);
        }
        if let Some(relayed) = self.turn.relayed() {
            // Older peers know no kind of its own for it.
            let kind = CandidateKind::Reflexive;
            let candidate = Candidate {
                address: relayed,
                kind,
            };
            if let Err(candidate) = presence.candidates.push(candidate) {
                presence.candidates.pop();
                let _ = presence.candidates.push(candidate);
            }
        }
        for relay in self.homes() {
            let _ = presence.relays.push(relay);
        }
    }
}
