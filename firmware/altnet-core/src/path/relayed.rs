//! The relays that lead to one peer: in which order they are tried, and what was heard by each.
//!
//! In: the relays that serve both sides, what was heard by which, challenges sent. Out: the one to
//! send by. Knows nothing of direct addresses, nor of when a path is doubted.

use altnet_wire::id::NodeId;
use altnet_wire::message::MAX_PRESENCE_RELAYS;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::Why;

/// A relay that was heard by so lately stays in use when others are offered.
const FRESH: Duration = Duration::from_secs(2);
/// How long a relay is not tried again that said that the peer isn't there; each next time twice as
/// long.
const ABSENT: Duration = Duration::from_secs(2);
/// How often it doubles.
const DOUBLINGS: u8 = 5;

/// Whether an id stands for a way by somebody else's server rather than for a relay of ours: no node
/// has a multicast address (RFC 4291 section 2.7).
pub(super) const fn is_foreign(relay: NodeId) -> bool {
    relay.0[0] == 0xff
}

/// Why such a way is taken.
pub(super) const fn foreign_why(relay: NodeId) -> Why {
    match relay.0[1] {
        DERP => Why::Derp,
        _ => Why::Turn,
    }
}

/// The second byte of what stands for DERP servers; TURN servers have others.
const DERP: u8 = 4;

/// One relay, as a way to the peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) relay: NodeId,
    /// When the peer was last heard by it; zero if never.
    pub(super) heard: Instant,
    pub(super) rtt: Option<Duration>,
    /// Challenges by it since, and when the first and the last were sent.
    pub(super) unanswered: u8,
    pub(super) asked: Instant,
    pub(super) tried: Instant,
    /// How often in a row the relay said that the peer isn't there, and until when that counts.
    absences: u8,
    absent_until: Instant,
}

impl Way {
    const fn new(relay: NodeId) -> Self {
        Self {
            relay,
            heard: Instant::ZERO,
            rtt: None,
            unanswered: 0,
            asked: Instant::ZERO,
            tried: Instant::ZERO,
            absences: 0,
            absent_until: Instant::ZERO,
        }
    }

    pub(super) const fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.unanswered = 0;
        self.absences = 0;
        self.absent_until = Instant::ZERO;
    }

    fn is_absent(&mut self, now: Instant) {
        // What was sent before the answer came is answered too.
        if self.absent_until <= now {
            let doublings = u32::from(self.absences.min(DOUBLINGS));
            self.absent_until = now.after(ABSENT * (1 << doublings));
            self.absences = self.absences.saturating_add(1);
        }
    }

    pub(super) const fn asks(&mut self, now: Instant) {
        if self.unanswered == 0 {
            self.asked = now;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.tried = now;
    }
}

/// The relays that lead to a peer.
#[derive(Clone, Debug)]
pub(super) struct Relays {
    /// In the order they are tried in.
    ways: Vec<Way, MAX_PRESENCE_RELAYS>,
    /// In the order they were given in.
    offered: Vec<NodeId, MAX_PRESENCE_RELAYS>,
    /// The one that was left last: it is no reason to stay that it carries.
    left: Option<NodeId>,
}

impl Relays {
    pub(super) const fn new() -> Self {
        Self {
            ways: Vec::new(),
            offered: Vec::new(),
            left: None,
        }
    }

    /// The one in use, if a relay is.
    pub(super) fn first(&self) -> Option<&Way> {
        self.ways.first()
    }

    pub(super) fn iter(&self) -> core::slice::Iter<'_, Way> {
        self.ways.iter()
    }

    pub(super) fn iter_mut(&mut self) -> core::slice::IterMut<'_, Way> {
        self.ways.iter_mut()
    }

    pub(super) fn at_mut(&mut self, relay: NodeId) -> Option<&mut Way> {
        self.ways.iter_mut().find(|way| way.relay == relay)
    }

    /// Takes the relays there are now. Given as before, they keep their order; one that carries
    /// stays in front, unless `peer` is a relay itself and has become its own, by a stream.
    pub(super) fn offer(&mut self, peer: NodeId, relays: &[NodeId], now: Instant) {
        let relays = relays.get(..MAX_PRESENCE_RELAYS).unwrap_or(relays);
        if self.offered == relays {
            return;
        }
        let former = self.ways.clone();
        self.offered.clear();
        self.ways.clear();
        for relay in relays {
            let known = former.iter().find(|way| way.relay == *relay);
            let _ = self.offered.push(*relay);
            let _ = self.ways.push(known.copied().unwrap_or(Way::new(*relay)));
        }
        if let Some(used) = former.first()
            && used.heard > Instant::ZERO
            && now.saturating_since(used.heard) < FRESH
            && relays.first() != Some(&peer)
            && self.left != Some(used.relay)
            && !is_foreign(used.relay)
        {
            self.prefer(used.relay);
        }
    }

    /// Has another one used, if there is one.
    pub(super) fn leave(&mut self, relay: NodeId) {
        self.left = Some(relay);
        let is_first = self.first().is_some_and(|way| way.relay == relay);
        // Somebody else's server is no better than a relay of ours that is busy.
        let other = |way: &&Way| way.relay != relay && !is_foreign(way.relay);
        if is_first && let Some(other) = self.ways.iter().find(other).map(|way| way.relay) {
            self.prefer(other);
        }
    }

    /// One says that the peer isn't there. Has the next used that didn't say so of late; false if
    /// there is none.
    pub(super) fn is_absent_at(&mut self, relay: NodeId, now: Instant) -> bool {
        if let Some(way) = self.at_mut(relay) {
            way.is_absent(now);
        }
        let mut others = self.ways.iter();
        let other = others.find(|way| way.absent_until <= now);
        let other = other.map(|way| way.relay);
        other.is_some_and(|relay| {
            self.prefer(relay);
            true
        })
    }

    /// Whether all said that the peer isn't there, and it wasn't heard by any since.
    pub(super) fn are_without_peer(&self) -> bool {
        !self.ways.is_empty() && self.ways.iter().all(|way| way.absences > 0)
    }

    /// Has the next one used.
    pub(super) fn rotate(&mut self) {
        if !self.ways.is_empty() {
            self.ways.rotate_left(1);
        }
    }

    /// Has this one used; the others keep their order.
    pub(super) fn prefer(&mut self, relay: NodeId) {
        if let Some(place) = self.ways.iter().position(|way| way.relay == relay)
            && let Some(front) = self.ways.get_mut(..=place)
        {
            front.rotate_right(1);
        }
    }

    /// Has a relay of ours used that answers, rather than somebody else's server.
    pub(super) fn return_to(&mut self, relay: NodeId) {
        let is_away = self.first().is_some_and(|way| is_foreign(way.relay));
        if is_away && !is_foreign(relay) {
            self.prefer(relay);
        }
    }

    /// Whether one was given before another: which of two that both work is used, as both sides
    /// are given them in one order.
    pub(super) fn is_before(&self, relay: NodeId, other: NodeId) -> bool {
        let place = |relay| self.offered.iter().position(|offered| *offered == relay);
        matches!((place(relay), place(other)), (Some(a), Some(b)) if a < b)
    }
}
