//! How often one address may be knocked at before it has answered, whoever named it.
//!
//! A member can claim any address for itself. Without a bound over all peers, many members
//! naming one victim would make every gateway of a network knock at it; without a bound on
//! what each peer takes, one member's junk would keep the others from being found. An address
//! that has answered costs nothing: it is nobody's victim.

use core::net::{IpAddr, Ipv6Addr};

use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

/// Challenges and handshakes to one destination in a [`WINDOW`], all peers together.
pub const PER_DESTINATION: u8 = 60;
/// Those of them that one peer may cause: a call and a tunnel's handshake going on all the
/// time, and challenges.
pub const PER_PEER: u8 = 36;
/// The time over which they are counted.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Destinations of one peer in a [`WINDOW`].
pub const DESTINATIONS_PER_PEER: usize = 12;
/// Pairs of peer and destination remembered.
const PAIRS: usize = 128;

/// What one peer had this node send to one destination.
#[derive(Clone, Copy, Debug)]
struct Spent {
    destination: IpAddr,
    peer: NodeId,
    count: u8,
    since: Instant,
}

/// What was spent of late.
#[derive(Clone, Debug, Default)]
pub struct ProbeBudget {
    spent: Vec<Spent, PAIRS>,
}

impl ProbeBudget {
    /// Nothing spent yet.
    pub const fn new() -> Self {
        Self { spent: Vec::new() }
    }

    /// Whether one more packet may go to `destination` now, which `peer` said is its own;
    /// counts it if so.
    pub fn take(&mut self, peer: NodeId, destination: IpAddr, now: Instant) -> bool {
        let destination = network_of(destination);
        self.spent
            .retain(|spent| now.saturating_since(spent.since) < WINDOW);
        let there = self.spent.iter().filter(|s| s.destination == destination);
        let total: u32 = there.map(|spent| u32::from(spent.count)).sum();
        if total >= u32::from(PER_DESTINATION) {
            return false;
        }
        let is_it = |spent: &&mut Spent| spent.peer == peer && spent.destination == destination;
        if let Some(spent) = self.spent.iter_mut().find(is_it) {
            let may = spent.count < PER_PEER;
            spent.count += u8::from(may);
            return may;
        }
        if self.count_of(peer) >= DESTINATIONS_PER_PEER || !self.make_room(peer) {
            return false;
        }
        let spent = Spent {
            destination,
            peer,
            count: 1,
            since: now,
        };
        self.spent.push(spent).is_ok()
    }

    /// Gives back what was spent on an address that has answered.
    pub fn answered(&mut self, destination: IpAddr) {
        let destination = network_of(destination);
        self.spent.retain(|spent| spent.destination != destination);
    }

    fn count_of(&self, peer: NodeId) -> usize {
        self.spent.iter().filter(|s| s.peer == peer).count()
    }

    /// Makes room for one more destination of `peer`: in a full table, whoever holds the most
    /// and more than it gives way.
    fn make_room(&mut self, peer: NodeId) -> bool {
        if !self.spent.is_full() {
            return true;
        }
        let held = self.spent.iter().map(|spent| self.count_of(spent.peer));
        let Some((at, most)) = held.enumerate().max_by_key(|(_, count)| *count) else {
            return false;
        };
        if most <= self.count_of(peer) + 1 {
            return false;
        }
        self.spent.swap_remove(at);
        true
    }
}

/// What counts as one destination: an IPv4 address, or the /64 that one host may have all of
/// (RFC 4291 section 2.5.1).
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            const NETWORK: u128 = u128::MAX << 64;
            Ipv6Addr::from_bits(v6.to_bits() & NETWORK).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::ZERO;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn peer(n: u8) -> NodeId {
        NodeId([n; 16])
    }

    #[test]
    fn one_destination_is_knocked_at_so_often_and_no_more() {
        let mut budget = ProbeBudget::new();
        let taken = (0..200u8)
            .filter(|n| budget.take(peer(n % 9), ip(1), NOW))
            .count();
        assert_eq!(taken, usize::from(PER_DESTINATION));
        assert!(budget.take(peer(1), ip(2), NOW));
        assert!(budget.take(peer(1), ip(1), NOW.after(WINDOW)));
    }

    #[test]
    fn one_peer_does_not_use_up_what_others_need_to_be_found() {
        let mut budget = ProbeBudget::new();
        while budget.take(peer(1), ip(1), NOW) {}
        assert!(budget.take(peer(2), ip(1), NOW));
        let junk = (0..=255).filter(|n| budget.take(peer(3), ip(*n), NOW));
        assert_eq!(junk.count(), DESTINATIONS_PER_PEER);
    }

    #[test]
    fn a_full_table_has_room_for_one_who_has_nothing_in_it() {
        let mut budget = ProbeBudget::new();
        for n in 0..40 {
            for last in 0..=255 {
                budget.take(peer(n), ip(last), NOW);
            }
        }
        assert!(budget.spent.is_full());
        assert!(budget.take(peer(200), ip(1), NOW));
        assert!(budget.spent.len() <= PAIRS);
    }

    #[test]
    fn a_64_is_one_destination_and_a_mapped_address_is_what_it_maps() {
        let mut budget = ProbeBudget::new();
        let v6 = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let taken = (0..100).filter(|n| budget.take(peer(1), v6(*n), NOW));
        assert_eq!(taken.count(), usize::from(PER_PEER));
        let other = IpAddr::from([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1]);
        assert!(budget.take(peer(1), other, NOW));
        let mapped = IpAddr::from([0, 0, 0, 0, 0, 0xffff, 0xc000, 0x0201]);
        while budget.take(peer(2), ip(1), NOW) {}
        assert!(!budget.take(peer(2), mapped, NOW));
    }

    #[test]
    fn an_answer_gives_back_what_was_spent() {
        let mut budget = ProbeBudget::new();
        while budget.take(peer(1), ip(1), NOW) {}
        budget.answered(ip(1));
        assert!(budget.take(peer(1), ip(1), NOW));
    }

    proptest! {
        #[test]
        fn no_destination_gets_more_than_twice_its_share_in_a_window(
            steps in proptest::collection::vec((0u8..20, 0u8..4, 0u64..2000), 0..600),
        ) {
            let mut budget = ProbeBudget::new();
            let (mut now, mut taken) = (0, alloc::vec::Vec::new());
            for (who, last, pass) in steps {
                now += pass;
                let at = Instant::from_micros(now * 1000);
                if budget.take(peer(who), ip(last), at) {
                    taken.push((now, last));
                }
                let window = now.saturating_sub(59_999);
                let recent = taken.iter().filter(|(when, to)| *when >= window && *to == last);
                prop_assert!(recent.count() <= 2 * usize::from(PER_DESTINATION));
            }
        }
    }
}
