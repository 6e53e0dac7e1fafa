//! Relays that were away and are back: whoever called one by another relay meanwhile is told.
//!
//! A node calls a relay that it lost ever more rarely, so that one that is gone for good costs little. Another relay
//! has a session with it as soon as it is back, and says so to the clients that called it by that one: they call it
//! where it always was. Nothing of this is believed but that a call is worth while.

use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::message::Presence;
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use super::Node;
use super::sessions::Standing;
use crate::control::CloseReason;

/// Clients that wait for a relay, at a time; the others find out by themselves.
const MAX_WAITING: usize = 128;
/// For how long who sent to it waits for it: longer than between two calls.
const WAITS: Duration = Duration::from_secs(60);
/// How soon word of a return is heeded again.
const AGAIN: Duration = Duration::from_secs(5);

/// Who waits for which relay, and since when.
#[derive(Debug, Default)]
pub(super) struct Waiting(Vec<(NodeId, NodeId, Instant)>);

impl Waiting {
    fn asks(&mut self, who: NodeId, relay: NodeId, now: Instant) {
        self.0
            .retain(|(.., since)| now.saturating_since(*since) < WAITS);
        let has_room = self.0.len() < MAX_WAITING;
        match self.0.iter_mut().find(|one| (one.0, one.1) == (who, relay)) {
            Some(one) => one.2 = now,
            None if has_room => self.0.push((who, relay, now)),
            // Whoever finds no room isn't told.
            None => {}
        }
    }

    fn take(&mut self, relay: NodeId, now: Instant) -> Vec<NodeId> {
        let is_due = |one: &&(NodeId, NodeId, Instant)| {
            one.1 == relay && now.saturating_since(one.2) < WAITS
        };
        let due = self.0.iter().filter(is_due).map(|one| one.0).collect();
        self.0.retain(|one| one.1 != relay);
        due
    }
}

impl<A: Aead> Node<A> {
    /// A client calls another relay by this one: it has lost it, and is told when it is back.
    pub(super) fn calls_relay(&mut self, who: NodeId, relay: NodeId, now: Instant) {
        if self.own_roles().contains(Roles::RELAY) && self.is_relay(relay) {
            self.waiting.asks(who, relay, now);
        }
    }

    /// A session with a member stands: those are told that wait for it.
    pub(super) fn tell_waiting(&mut self, relay: NodeId, now: Instant) {
        for who in self.waiting.take(relay, now) {
            let standing = Standing::Member(relay);
            // Whoever has no session any more finds out by itself.
            let _ = self.introduce(standing, who, &Presence::default(), now);
        }
    }

    /// Somebody says that a relay is there, perhaps one that this node lost: it is called at once.
    pub(super) fn hear_of_return(&mut self, relay: NodeId, now: Instant) {
        if self.stands(relay).is_some() {
            return;
        }
        let (Some(link), Some(peer)) = (self.relays.get_mut(&relay), self.peers.get_mut(&relay))
        else {
            return;
        };
        let is_late = |when: Instant| now.saturating_since(when) >= AGAIN;
        // One that never answered here isn't reached because another relay reaches it.
        let Some(address) = link.address else {
            return;
        };
        if !peer.wanted || link.returned.is_some_and(|when| !is_late(when)) {
            return;
        }
        link.returned = Some(now);
        link.spoke = Some((address, now));
        peer.retry_at = now;
        // What is under way may be between two retransmissions.
        if let Some(call) = peer.session.take() {
            self.control.close(call, CloseReason::Done, now);
        }
        self.timers.housekeeping_at(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn node(n: u16) -> NodeId {
        let [high, low] = n.to_be_bytes();
        NodeId([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low])
    }

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn whoever_asked_of_late_is_told_once() {
        let mut waiting = Waiting::default();
        waiting.asks(node(1), node(90), at(0));
        waiting.asks(node(2), node(90), at(30));
        waiting.asks(node(2), node(90), at(50));
        waiting.asks(node(3), node(91), at(50));
        assert_eq!(waiting.take(node(90), at(70)), [node(2)]);
        assert_eq!(waiting.take(node(90), at(70)), []);
        assert_eq!(waiting.take(node(91), at(70)), [node(3)]);
    }

    #[test]
    fn those_who_find_no_room_find_some_later() {
        let mut waiting = Waiting::default();
        for n in 0..300 {
            waiting.asks(node(n), node(900), at(1));
        }
        assert_eq!(waiting.take(node(901), at(2)).len(), 0);
        waiting.asks(node(299), node(900), at(70));
        assert_eq!(waiting.take(node(900), at(71)), [node(299)]);
    }
}
