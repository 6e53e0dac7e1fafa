//! Who of a relay's clients wants to meet whom, there or at another relay (ADR 0022).
//!
//! In: that a client asks, with where it and the other are and which relays say that they have the other; that
//! another relay's client asks. Out: which clients are told where another is, and which relays are told that a client
//! asks. A client is told nothing before both asked. What came from a relay goes to no relay, so that no word goes
//! further than one hop.
//!
//! Deliberately absent: sessions, and whether who asks may.

use core::net::SocketAddr;

use altnet_wire::id::NodeId;
use altnet_wire::message::{MAX_PRESENCE_RELAYS, MEETING_S};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

/// Within how long both have to ask.
pub const TOGETHER: Duration = Duration::from_secs(MEETING_S as u64);
/// Clients that wait for somebody, and others' clients that wait for one of ours.
const WAITING: usize = 256;
/// Clients that one client waits for at a time.
const MAX_WISHES: usize = 8;
/// Clients of one other relay that wait at a time.
const MAX_CALLS: usize = 64;
/// Who asks again so soon is told nothing new, nor is any other relay.
const ASKED_ALREADY: Duration = Duration::from_secs(1);

/// Relays that have one client.
pub type Relays = Vec<NodeId, MAX_PRESENCE_RELAYS>;

/// What is to be said now.
pub type Words = Vec<Word, MAX_PRESENCE_RELAYS>;

/// Too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One thing to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Tell a client of ours where another is.
    Meeting {
        /// The client.
        to: NodeId,
        /// Whom it wants to meet.
        with: NodeId,
        /// Where that one is.
        address: SocketAddr,
    },
    /// Tell another relay that a client of ours wants to meet one of its own.
    Pass {
        /// The relay.
        relay: NodeId,
        /// The client.
        who: NodeId,
        /// Where it is seen.
        address: SocketAddr,
        /// Whom it wants to meet.
        with: NodeId,
    },
}

/// A client that wants to meet another, and where it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The client.
    pub who: NodeId,
    /// Where it is seen.
    pub address: SocketAddr,
    /// Whom it wants to meet.
    pub with: NodeId,
}

#[derive(Clone, Debug)]
struct Wish {
    who: NodeId,
    with: NodeId,
    /// The relays that were told.
    told: Relays,
    since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    wanted: Wanted,
    /// The relay that says so.
    by: NodeId,
    since: Instant,
}

/// Those who wait.
#[derive(Debug, Default)]
pub struct Meetings {
    wishes: alloc::vec::Vec<Wish>,
    calls: alloc::vec::Vec<Call>,
}

impl Meetings {
    /// A client of ours asks. `other` is where the other is, if it is registered here too; `relays` say that
    /// they have it, and are told only if it isn't.
    ///
    /// # Errors
    /// [`Full`]; nobody is told anything.
    pub fn ask(
        &mut self,
        wanted: Wanted,
        other: Option<SocketAddr>,
        relays: Relays,
        now: Instant,
    ) -> Result<Words, Full> {
        self.expire(now);
        let Wanted { who, address, with } = wanted;
        let is_own = |wish: &Wish| (wish.who, wish.with) == (who, with);
        let before = self.wishes.iter().find(|wish| is_own(wish));
        if before.is_some_and(|wish| now.saturating_since(wish.since) < ASKED_ALREADY) {
            return Ok(Words::new());
        }
        self.wishes.retain(|wish| !is_own(wish));
        let mut words = Words::new();
        if let Some(there) = other
            && self.take_wish(with, who).is_some()
        {
            for (to, with, address) in [(with, who, address), (who, with, there)] {
                let _ = words.push(Word::Meeting { to, with, address });
            }
            return Ok(words);
        }
        let mut calls = self.calls.iter();
        let called = calls.position(|c| (c.wanted.who, c.wanted.with) == (with, who));
        if let Some(call) = called.map(|place| self.calls.swap_remove(place)) {
            let _ = words.push(pass(call.by, wanted));
            let _ = words.push(Word::Meeting {
                to: who,
                with,
                address: call.wanted.address,
            });
            return Ok(words);
        }
        // Room for one who has few: nobody crowds out the others.
        let held = self.wishes.iter().filter(|wish| wish.who == who).count();
        if held >= MAX_WISHES || self.wishes.len() >= WAITING {
            return Err(Full);
        }
        // Who is registered here too asks here as well: the relay is one that serves both.
        let relays = if other.is_some() {
            Relays::new()
        } else {
            relays
        };
        words.extend(relays.iter().map(|relay| pass(*relay, wanted)));
        let (told, since) = (relays, now);
        self.wishes.push(Wish {
            who,
            with,
            told,
            since,
        });
        Ok(words)
    }

    /// A client of the relay `by` asks for one of ours, which is at `own`.
    pub fn called(&mut self, by: NodeId, wanted: Wanted, own: SocketAddr, now: Instant) -> Words {
        self.expire(now);
        let Wanted { who, address, with } = wanted;
        let mut words = Words::new();
        if let Some(wish) = self.take_wish(with, who) {
            if !wish.told.contains(&by) {
                // It didn't have that one yet, as far as was known here.
                let asked = Wanted {
                    who: with,
                    address: own,
                    with: who,
                };
                let _ = words.push(pass(by, asked));
            }
            let _ = words.push(Word::Meeting {
                to: with,
                with: who,
                address,
            });
            return words;
        }
        let is_same = |call: &Call| (call.wanted.who, call.wanted.with, call.by) == (who, with, by);
        self.calls.retain(|call| !is_same(call));
        let of_relay = self.calls.iter().filter(|call| call.by == by).count();
        if of_relay < MAX_CALLS && self.calls.len() < WAITING {
            let since = now;
            self.calls.push(Call { wanted, by, since });
        }
        words
    }

    fn take_wish(&mut self, who: NodeId, with: NodeId) -> Option<Wish> {
        let mut wishes = self.wishes.iter();
        let place = wishes.position(|wish| (wish.who, wish.with) == (who, with))?;
        Some(self.wishes.swap_remove(place))
    }

    fn expire(&mut self, now: Instant) {
        let is_late = |since: Instant| now.saturating_since(since) >= TOGETHER;
        self.wishes.retain(|wish| !is_late(wish.since));
        self.calls.retain(|call| !is_late(call.since));
    }
}

const fn pass(relay: NodeId, wanted: Wanted) -> Word {
    let Wanted { who, address, with } = wanted;
    Word::Pass {
        relay,
        who,
        address,
        with,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);
    const R: NodeId = NodeId([9; 16]);
    const S: NodeId = NodeId([10; 16]);

    fn id(n: u16) -> NodeId {
        let mut id = [0; 16];
        id[..2].copy_from_slice(&n.to_be_bytes());
        NodeId(id)
    }

    /// Where a client is seen.
    fn at(node: NodeId) -> SocketAddr {
        SocketAddr::new([192, 0, 2, node.0[0]].into(), 1000)
    }

    fn wanted(who: NodeId, with: NodeId) -> Wanted {
        let address = at(who);
        Wanted { who, address, with }
    }

    fn relays(all: &[NodeId]) -> Relays {
        all.iter().copied().collect()
    }

    fn meeting(to: NodeId, with: NodeId) -> Word {
        let address = at(with);
        Word::Meeting { to, with, address }
    }

    fn after(ms: u64) -> Instant {
        Instant::from_micros(1_000_000 + ms * 1000)
    }

    #[test]
    fn two_clients_of_one_relay_are_told_once_both_asked() {
        let mut meetings = Meetings::default();
        let none = relays(&[]);
        let first = meetings.ask(wanted(A, B), Some(at(B)), none.clone(), after(0));
        assert_eq!(first, Ok(Words::new()));
        let second = meetings.ask(wanted(B, A), Some(at(A)), none.clone(), after(9_999));
        assert_eq!(second.unwrap(), [meeting(A, B), meeting(B, A)]);
        // It is over: both have to ask anew.
        let third = meetings.ask(wanted(B, A), Some(at(A)), none, after(9_999));
        assert_eq!(third, Ok(Words::new()));
    }

    #[test]
    fn no_relay_is_told_of_two_clients_of_this_one() {
        let mut meetings = Meetings::default();
        let first = meetings.ask(wanted(A, B), Some(at(B)), relays(&[R, S]), after(0));
        assert_eq!(first, Ok(Words::new()));
        let second = meetings.ask(wanted(B, A), Some(at(A)), relays(&[R, S]), after(1));
        assert_eq!(second.unwrap(), [meeting(A, B), meeting(B, A)]);
    }

    #[test]
    fn who_asks_too_late_meets_nobody() {
        let mut meetings = Meetings::default();
        let first = meetings.ask(wanted(A, B), None, relays(&[R]), after(0));
        assert_eq!(first.unwrap(), [pass(R, wanted(A, B))]);
        let words = meetings.called(R, wanted(B, A), at(A), after(10_000));
        assert_eq!(words, []);
    }

    #[test]
    fn clients_of_two_relays_are_told_by_their_own_whoever_asks_first() {
        // R has A, S has B, and each believes so of the other.
        for first in [A, B] {
            let mut tables = [(R, A, Meetings::default()), (S, B, Meetings::default())];
            let mut told = std::vec::Vec::new();
            let order = if first == A { [0, 1] } else { [1, 0] };
            for asks in order {
                let (own, who, with) = (tables[asks].0, tables[asks].1, tables[1 - asks].1);
                let other = tables[1 - asks].0;
                let words = tables[asks]
                    .2
                    .ask(wanted(who, with), None, relays(&[other]), after(0));
                let mut said: std::vec::Vec<_> =
                    words.unwrap().iter().map(|word| (own, *word)).collect();
                while let Some((by, word)) = said.pop() {
                    let Word::Pass {
                        relay,
                        who,
                        address,
                        with,
                    } = word
                    else {
                        told.push(word);
                        continue;
                    };
                    let there = usize::from(relay == S);
                    let passed = Wanted { who, address, with };
                    let words = tables[there].2.called(by, passed, at(with), after(10));
                    said.extend(words.iter().map(|word| (relay, *word)));
                }
            }
            told.sort_by_key(|word| matches!(word, Word::Meeting { to, .. } if *to == B));
            assert_eq!(told, [meeting(A, B), meeting(B, A)], "{first:?}");
            assert!(
                tables
                    .iter()
                    .all(|t| t.2.wishes.is_empty() && t.2.calls.is_empty())
            );
        }
    }

    #[test]
    fn a_relay_that_was_not_told_is_told_when_its_client_asks() {
        let mut meetings = Meetings::default();
        let first = meetings.ask(wanted(A, B), None, relays(&[S]), after(0));
        assert_eq!(first.unwrap(), [pass(S, wanted(A, B))]);
        let words = meetings.called(R, wanted(B, A), at(A), after(100));
        assert_eq!(words, [pass(R, wanted(A, B)), meeting(A, B)]);
    }

    #[test]
    fn who_asks_again_at_once_has_nobody_told_anything() {
        let mut meetings = Meetings::default();
        let mut said = 0;
        for ms in 0..3_000 {
            let words = meetings.ask(wanted(A, B), None, relays(&[R, S]), after(ms));
            said += words.unwrap().len();
        }
        assert_eq!(said, 3 * 2);
    }

    #[test]
    fn nobody_crowds_out_the_others() {
        let mut meetings = Meetings::default();
        let ask = |meetings: &mut Meetings, who, with| {
            meetings.ask(wanted(who, with), None, relays(&[R]), after(0))
        };
        for n in 0..8 {
            assert!(ask(&mut meetings, A, id(100 + n)).is_ok());
        }
        assert_eq!(ask(&mut meetings, A, id(200)), Err(Full));
        assert!(ask(&mut meetings, B, A).is_ok());
        for n in 0..1000 {
            meetings.called(R, wanted(id(1000 + n), B), at(B), after(0));
        }
        assert_eq!(meetings.calls.len(), MAX_CALLS);
        meetings.called(S, wanted(id(2000), B), at(B), after(0));
        assert_eq!(meetings.calls.len(), MAX_CALLS + 1);
        assert_eq!(meetings.wishes.len(), MAX_WISHES + 1);
    }

    proptest! {
        #[test]
        fn a_client_is_told_only_of_whom_it_asked_for_and_who_asked_for_it(
            steps in proptest::collection::vec((0u16..4, 0u16..4, 0u16..4, 0u64..4000), 0..60),
        ) {
            let mut meetings = Meetings::default();
            let mut asked = std::collections::BTreeMap::new();
            let mut ms = 0;
            for (who, with, by, pass) in steps {
                ms += pass;
                let (who, with) = (id(who + 1), id(with + 1));
                asked.insert((who, with), ms);
                let words = match by {
                    0 => meetings.ask(wanted(who, with), Some(at(with)), relays(&[R, S]), after(ms)).unwrap(),
                    1 => meetings.ask(wanted(who, with), None, relays(&[R]), after(ms)).unwrap(),
                    _ => meetings.called([R, S][usize::from(by) - 2], wanted(who, with), at(with), after(ms)),
                };
                for word in words {
                    match word {
                        Word::Meeting { to, with, .. } => for pair in [(to, with), (with, to)] {
                            let when = asked.get(&pair);
                            prop_assert!(when.is_some_and(|when| ms - when < 10_000));
                        },
                        // What came from a relay goes to no other.
                        Word::Pass { who: own, relay, .. } if by >= 2 => {
                            prop_assert_eq!((own, relay), (with, [R, S][usize::from(by) - 2]));
                        }
                        Word::Pass { who: own, .. } => prop_assert_eq!(own, who),
                    }
                }
            }
            prop_assert!(meetings.wishes.len() <= 16 && meetings.calls.len() <= 32);
        }
    }
}
