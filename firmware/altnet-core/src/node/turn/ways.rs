//! The ways to peers that lead through TURN servers, ours and theirs.
//!
//! In: what peers told and from where they were heard. Out: what stands for such a way in an
//! [`Endpoint`], and the address behind it. A way is offered once a round trip along it was seen.
//!
//! Deliberately absent: the servers themselves, and what is sent to them.

use core::net::SocketAddr;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use crate::path::{FIRST_PAUSE, Pace};

const PROBES_IN_A_ROW: u8 = Pace::USUAL.probes_in_a_row;
const REST: Duration = Pace::USUAL.rest;

/// Ways at a time.
const WAYS: usize = 64;
/// A way that carries is asked so often: NATs on it may forget sooner (RFC 4787 REQ-5).
const KEEP: Duration = Duration::from_secs(20);
/// The pause after a question that a way which carried didn't answer.
const AGAIN: Duration = Duration::from_secs(1);
/// Unanswered questions in a row after which a way carries no more.
const LOST: u8 = 3;
/// Where a peer was heard so lately it is not looked for elsewhere.
const FRESH: Duration = Duration::from_secs(2);

/// What stands in the place of a relay's id: no node has a multicast address (RFC 4291
/// section 2.7).
const OURS: NodeId = NodeId(*b"\xff\x03turn-ours.....");
const THEIRS: NodeId = NodeId(*b"\xff\x03turn-theirs...");
/// What a node id begins with that stands for an address of which nothing else is known yet.
const GUEST: [u8; 12] = *b"\xff\x03turn-from.";

/// Whose allocation a way leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Side {
    /// Ours: what goes to the peer leaves through our server.
    Ours,
    /// The peer's: its server's address is sent to as it is.
    Theirs,
}

impl Side {
    /// What stands for it in the place of a relay.
    pub(in crate::node) const fn id(self) -> NodeId {
        match self {
            Self::Ours => OURS,
            Self::Theirs => THEIRS,
        }
    }

    /// The side that such an id stands for.
    pub(in crate::node) fn of(relay: NodeId) -> Option<Self> {
        [Self::Ours, Self::Theirs]
            .into_iter()
            .find(|side| side.id() == relay)
    }

    const fn to(self, node: NodeId) -> Endpoint {
        Endpoint::Relayed {
            relay: self.id(),
            node,
        }
    }
}

/// One way.
#[derive(Clone, Copy, Debug)]
struct Way {
    side: Side,
    address: SocketAddr,
    /// Whose it is, once that is known.
    node: Option<NodeId>,
    /// What it is called before that.
    number: u32,
    /// A round trip was seen, and it was not lost since.
    is_proven: bool,
    heard: Instant,
    unanswered: u8,
    next: Instant,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Ways {
    all: Vec<Way, WAYS>,
    numbered: u32,
}

impl Ways {
    /// What stands for who sends through our server from `address`.
    pub(super) fn from(&mut self, address: SocketAddr, now: Instant) -> Option<Endpoint> {
        let is_it = |way: &&Way| way.side == Side::Ours && way.address == address;
        let known = self.all.iter().filter(is_it);
        let way = match known.max_by_key(|way| (way.is_proven, way.heard)) {
            Some(way) => *way,
            None => self.add(Side::Ours, address, None, now)?,
        };
        let node = way.node.unwrap_or_else(|| guest(way.number));
        Some(Side::Ours.to(node))
    }

    /// The address behind an endpoint; nothing if it stands for none.
    pub(super) fn address(&self, side: Side, node: NodeId) -> Option<SocketAddr> {
        let number = number_of(node);
        let is_it =
            |way: &&Way| way.side == side && (way.node == Some(node) || number == Some(way.number));
        self.all.iter().find(is_it).map(|way| way.address)
    }

    /// A peer told what others send to that goes through its server, or that there is no such
    /// address any more. True if that is another than before.
    pub(super) fn told(&mut self, node: NodeId, address: Option<SocketAddr>, now: Instant) -> bool {
        if self.address(Side::Theirs, node) == address {
            return false;
        }
        self.drop_named(Side::Theirs, node);
        if let Some(address) = address {
            self.add(Side::Theirs, address, Some(node), now);
        }
        true
    }

    /// Something authentic of `node`'s came from `from`: what is to be thought of as where it came
    /// from.
    pub(super) fn authentic(&mut self, node: NodeId, from: Endpoint, now: Instant) -> Endpoint {
        match from {
            Endpoint::Direct(address) if self.address(Side::Theirs, node) == Some(address) => {
                self.hear(Side::Theirs, node, now);
                Side::Theirs.to(node)
            }
            Endpoint::Relayed {
                relay: OURS,
                node: label,
            } => self.bind(node, label, now),
            other => other,
        }
    }

    /// Who was heard through our server is sent to there from now on, unless it is known to be
    /// elsewhere.
    fn bind(&mut self, node: NodeId, label: NodeId, now: Instant) -> Endpoint {
        let unchanged = Side::Ours.to(label);
        let Some(address) = self.address(Side::Ours, label) else {
            return unchanged;
        };
        if self.address(Side::Ours, node) != Some(address) {
            let is_named = |way: &&Way| way.side == Side::Ours && way.node == Some(node);
            let former = self.all.iter().find(is_named);
            let is_fresh = |way: &Way| way.is_proven && now.saturating_since(way.heard) < FRESH;
            if former.is_some_and(is_fresh) {
                return unchanged;
            }
            self.drop_named(Side::Ours, node);
            let is_unnamed = |way: &&mut Way| {
                way.side == Side::Ours && way.address == address && way.node.is_none()
            };
            if let Some(way) = self.all.iter_mut().find(is_unnamed) {
                way.node = Some(node);
            } else if self.add(Side::Ours, address, Some(node), now).is_none() {
                return unchanged;
            }
        }
        self.hear(Side::Ours, node, now);
        Side::Ours.to(node)
    }

    /// Where a peer may be reached through our server that isn't where it was heard last.
    pub(super) fn try_at(&mut self, node: NodeId, address: SocketAddr, now: Instant) {
        match self.named(Side::Ours, node) {
            None => drop(self.add(Side::Ours, address, Some(node), now)),
            Some(way) => {
                let is_silent = now.saturating_since(way.heard) >= FRESH;
                if !way.is_proven && is_silent && way.address != address {
                    way.address = address;
                    way.unanswered = 0;
                    way.next = now;
                }
            }
        }
    }

    /// What is sent along a way in use and nothing comes: whether it still carries is asked soon.
    pub(super) fn doubt(&mut self, side: Side, node: NodeId, now: Instant) {
        if let Some(way) = self.named(side, node)
            && way.is_proven
            && way.unanswered == 0
        {
            way.next = way.next.min(way.heard.after(FRESH).max(now));
        }
    }

    fn hear(&mut self, side: Side, node: NodeId, now: Instant) {
        if let Some(way) = self.named(side, node) {
            way.heard = now;
            if way.unanswered >= PROBES_IN_A_ROW {
                way.unanswered = 0;
            }
            if !way.is_proven {
                way.next = way.next.min(now);
            }
        }
    }

    /// A round trip was seen. True if there was none before.
    pub(super) fn proves(&mut self, side: Side, node: NodeId, now: Instant) -> bool {
        let Some(way) = self.named(side, node) else {
            return false;
        };
        way.heard = now;
        way.unanswered = 0;
        way.next = now.after(KEEP);
        !core::mem::replace(&mut way.is_proven, true)
    }

    /// How many members a way is known to lead to.
    pub(super) fn reached(&self) -> usize {
        let proven = self.all.iter().filter(|way| way.is_proven);
        let nodes: alloc::collections::BTreeSet<_> = proven.filter_map(|way| way.node).collect();
        nodes.len()
    }

    pub(super) fn is_proven(&self, side: Side, node: NodeId) -> bool {
        let is_it = |way: &&Way| way.side == side && way.node == Some(node);
        self.all.iter().find(is_it).is_some_and(|way| way.is_proven)
    }

    /// The next way to `node` that is to be challenged now. `may` says whether an address that
    /// isn't known to be the peer's may be challenged once more. The second of what is returned
    /// says whether a way was found to carry no more.
    pub(super) fn poll(
        &mut self,
        node: NodeId,
        may: &mut dyn FnMut(SocketAddr) -> bool,
        now: Instant,
    ) -> (Option<Endpoint>, bool) {
        let mut is_lost = false;
        for way in &mut self.all {
            if way.node != Some(node) || way.next > now {
                continue;
            }
            if way.is_proven && way.unanswered >= LOST {
                way.is_proven = false;
                way.unanswered = 0;
                is_lost = true;
            }
            if !way.is_proven && !may(way.address) {
                way.next = now.after(REST);
                continue;
            }
            if way.unanswered >= PROBES_IN_A_ROW {
                way.unanswered = 0;
            }
            way.unanswered += 1;
            way.next = now.after(match (way.is_proven, way.unanswered) {
                (true, _) => AGAIN,
                (false, PROBES_IN_A_ROW..) => REST,
                (false, n) => FIRST_PAUSE.saturating_mul(1 << n.saturating_sub(1)),
            });
            return (Some(way.side.to(node)), is_lost);
        }
        (None, is_lost)
    }

    /// When [`Ways::poll`] next has something to say of `node`.
    pub(super) fn deadline(&self, node: NodeId) -> Instant {
        let its = self.all.iter().filter(|way| way.node == Some(node));
        its.map(|way| way.next).min().unwrap_or(Instant::NEVER)
    }

    /// Tries every way to `node` anew.
    pub(super) fn retry(&mut self, node: NodeId, now: Instant) {
        for way in self.all.iter_mut().filter(|way| way.node == Some(node)) {
            if !way.is_proven {
                way.unanswered = 0;
                way.next = way.next.min(now);
            }
        }
    }

    /// Our server relays no more.
    pub(super) fn close(&mut self) {
        self.all.retain(|way| way.side != Side::Ours);
    }

    /// Keeps the ways of those that `is_peer` knows.
    pub(super) fn retain(&mut self, is_peer: impl Fn(NodeId) -> bool) {
        self.all.retain(|way| way.node.is_none_or(&is_peer));
    }

    fn named(&mut self, side: Side, node: NodeId) -> Option<&mut Way> {
        let is_it = |way: &&mut Way| way.side == side && way.node == Some(node);
        self.all.iter_mut().find(is_it)
    }

    fn drop_named(&mut self, side: Side, node: NodeId) {
        self.all
            .retain(|way| way.side != side || way.node != Some(node));
    }

    /// One more way; in a full table the oldest that is nobody's makes room.
    fn add(
        &mut self,
        side: Side,
        address: SocketAddr,
        node: Option<NodeId>,
        now: Instant,
    ) -> Option<Way> {
        if self.all.is_full() {
            let unnamed = self.all.iter().enumerate();
            let unnamed = unnamed.filter(|(_, way)| way.node.is_none());
            let (oldest, _) = unnamed.min_by_key(|(_, way)| way.heard)?;
            self.all.swap_remove(oldest);
        }
        self.numbered = self.numbered.wrapping_add(1);
        let way = Way {
            side,
            address,
            node,
            number: self.numbered,
            is_proven: false,
            heard: now,
            unanswered: 0,
            next: now,
        };
        self.all.push(way).ok()?;
        Some(way)
    }
}

/// What stands for an address of which nothing else is known yet.
fn guest(number: u32) -> NodeId {
    let mut id = [0; 16];
    let (label, place) = id.split_at_mut(GUEST.len());
    label.copy_from_slice(&GUEST);
    place.copy_from_slice(&number.to_be_bytes());
    NodeId(id)
}

fn number_of(node: NodeId) -> Option<u32> {
    let number = node.0.strip_prefix(&GUEST)?;
    Some(u32::from_be_bytes(number.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::from_micros(1_000_000);

    fn node(n: u8) -> NodeId {
        NodeId([0xfd - n; 16])
    }

    fn address(n: u8) -> SocketAddr {
        SocketAddr::new([192, 0, 2, n].into(), 7)
    }

    #[test]
    fn who_is_heard_through_our_server_is_answered_there_before_anybody_knows_who_it_is() {
        let mut ways = Ways::default();
        let from = ways.from(address(1), NOW).unwrap();
        let Endpoint::Relayed { relay, node: label } = from else {
            panic!("{from}");
        };
        assert_eq!(Side::of(relay), Some(Side::Ours));
        assert_eq!(ways.address(Side::Ours, label), Some(address(1)));
        assert_eq!(ways.authentic(node(1), from, NOW), Side::Ours.to(node(1)));
        assert_eq!(ways.address(Side::Ours, node(1)), Some(address(1)));
        // What it was called before still leads there.
        assert_eq!(ways.address(Side::Ours, label), Some(address(1)));
        assert_eq!(ways.from(address(1), NOW), Some(Side::Ours.to(node(1))));
    }

    #[test]
    fn a_peer_that_moved_is_followed_once_it_is_silent_where_it_was() {
        let mut ways = Ways::default();
        let from = ways.from(address(1), NOW).unwrap();
        ways.authentic(node(1), from, NOW);
        assert!(ways.proves(Side::Ours, node(1), NOW));
        let soon = NOW.after(Duration::from_secs(1));
        let moved = ways.from(address(2), soon).unwrap();
        assert_eq!(ways.authentic(node(1), moved, soon), moved);
        assert_eq!(ways.address(Side::Ours, node(1)), Some(address(1)));
        let late = NOW.after(FRESH);
        assert_eq!(ways.authentic(node(1), moved, late), Side::Ours.to(node(1)));
        assert_eq!(ways.address(Side::Ours, node(1)), Some(address(2)));
        assert!(
            !ways.is_proven(Side::Ours, node(1)),
            "it isn't proven there"
        );
    }

    #[test]
    fn who_names_anothers_server_takes_nothing_from_it() {
        let mut ways = Ways::default();
        let direct = Endpoint::Direct(address(1));
        assert!(ways.told(node(1), Some(address(1)), NOW));
        assert!(!ways.told(node(1), Some(address(1)), NOW));
        assert!(ways.told(node(2), Some(address(1)), NOW));
        for n in 1..=2 {
            assert_eq!(
                ways.authentic(node(n), direct, NOW),
                Side::Theirs.to(node(n))
            );
        }
        assert_eq!(ways.authentic(node(3), direct, NOW), direct);
        assert!(ways.told(node(2), None, NOW));
        assert_eq!(ways.address(Side::Theirs, node(1)), Some(address(1)));
        assert_eq!(ways.address(Side::Theirs, node(2)), None);
    }

    #[test]
    fn a_way_is_asked_six_times_and_rests_and_one_that_carried_is_lost_after_three() {
        let mut ways = Ways::default();
        ways.told(node(1), Some(address(1)), NOW);
        let mut asked = std::vec::Vec::new();
        let mut run = |ways: &mut Ways, from_ms: u64, to_ms: u64| {
            asked.clear();
            let mut lost = 0;
            for ms in (from_ms..to_ms).step_by(50) {
                let now = NOW.after(Duration::from_millis(ms));
                let (endpoint, is_lost) = ways.poll(node(1), &mut |_| true, now);
                asked.extend(endpoint);
                lost += usize::from(is_lost);
            }
            (asked.len(), lost)
        };
        assert_eq!(run(&mut ways, 0, 60_000), (6, 0));
        ways.proves(Side::Theirs, node(1), NOW.after(Duration::from_secs(60)));
        let (asked, lost) = run(&mut ways, 60_000, 83_050);
        assert_eq!(
            (asked, lost),
            (4, 1),
            "three without an answer, and it is tried anew"
        );
        assert!(!ways.is_proven(Side::Theirs, node(1)));
        let (nothing, _) = ways.poll(node(1), &mut |_| false, NOW.after(Duration::from_secs(90)));
        assert_eq!(nothing, None, "nobody is knocked at without leave");
    }

    proptest! {
        #[test]
        fn whatever_comes_the_table_stays_within_its_bound_and_names_nobody_twice(
            steps in proptest::collection::vec((0u8..5, 0u8..12, 0u8..40), 0..400),
        ) {
            let mut ways = Ways::default();
            let mut now = NOW;
            for (what, who, whence) in steps {
                now = now.after(Duration::from_millis(300));
                let who = node(who);
                match what {
                    0 => drop(ways.told(who, Some(address(whence)), now)),
                    1 => drop(ways.told(who, None, now)),
                    2 => {
                        if let Some(from) = ways.from(address(whence), now) {
                            ways.authentic(who, from, now);
                        }
                    }
                    3 => drop(ways.from(address(whence), now)),
                    _ => drop(ways.poll(who, &mut |_| true, now)),
                }
                for side in [Side::Ours, Side::Theirs] {
                    for n in 0..12 {
                        let is_its = |way: &&Way| way.side == side && way.node == Some(node(n));
                        prop_assert!(ways.all.iter().filter(is_its).count() <= 1);
                    }
                }
            }
        }
    }
}
