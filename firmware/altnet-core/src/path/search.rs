//! The search for a way between two NATs of which at least one maps endpoint-dependently
//! (RFC 4787 section 4.1), so that nobody can say which port it will give.
//!
//! In: which side this node is on, an address that a relay sees as the peer's at this moment, how
//! this node's further ports look from a relay. Out: which port is to send to which address now, and
//! which is to ask a relay. All of it is paced and bounded; what is sent is the caller's, as is who
//! may be searched for at all.
//!
//! - Whose NAT maps endpoint-dependently opens ports, up to [`MAX_PORTS`], each of which sends to the
//!   peer once and so has a mapping of its own there ([`Side::Opens`]).
//! - Whose NAT doesn't guesses at the other's ports, up to [`MAX_GUESSES`]: those that follow
//!   the last known one, if the NAT counts up, else any, no one twice ([`Side::Guesses`]). With 256
//!   of 64512 ports open, 750 guesses meet one with 95 %, 2000 with 99.96 %.
//! - If both map so, and both count up, each sends from its n-th next port to the other's n-th next
//!   ([`Side::Predicts`]). If one of them doesn't count, there is no way.
//!
//! Whoever opens ports asks a relay how every so many of them look: that shows whether the NAT
//! counts up, and when it gives no more (a carrier's port quota, RFC 6888 REQ-3), which ends the
//! search.

use core::fmt;
use core::net::SocketAddr;

use altnet_wire::endpoint::PortId;
use altnet_wire::time::{Duration, Instant};

/// Most ports opened for one search.
pub const MAX_PORTS: u16 = 256;
/// Most guesses of one search.
pub const MAX_GUESSES: u16 = 2_000;
/// Ports opened, and guessed, where the NAT counts up.
const RUN: u16 = 48;
/// How often each of those is guessed.
const ROUNDS: u16 = 4;
/// The pause between two turns.
const TURN: Duration = Duration::from_millis(50);
/// Guesses in a turn: 280 a second.
const GUESSES_A_TURN: u16 = 14;
/// Ports opened in a turn.
const PORTS_A_TURN: u16 = 16;
/// Every so many ports one asks a relay how it looks.
const ASKED_EVERY: u16 = 32;
/// So long a relay may take to say how a port looks; then the NAT gave none.
const ANSWER: Duration = Duration::from_millis(1500);
/// How long after the last step an answer may come.
const GRACE: Duration = Duration::from_secs(2);
/// How long ports stay open: until the other side has made all its guesses.
const OPEN: Duration = Duration::from_secs(10);
/// The lowest port that is guessed; those below are nobody's mappings (RFC 6056 section 3.2).
const FIRST_PORT: u16 = 1024;
/// How many ports there are from it on.
const PORT_COUNT: u32 = 65_536 - FIRST_PORT as u32;
/// A NAT whose next port is further away doesn't count.
const MAX_STEP: i32 = 16;

/// What this node does in a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its NAT maps endpoint-dependently, the peer's doesn't.
    Opens,
    /// The other way round.
    Guesses,
    /// Both map endpoint-dependently.
    Predicts,
}

/// How a NAT goes on: its last mapping, and how far the next port is from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The last mapping.
    pub last: SocketAddr,
    /// How far each next port is; 0 if it doesn't count.
    pub step: i16,
}

impl Run {
    /// From how two ports look that were opened one after the other.
    fn between(first: SocketAddr, second: SocketAddr) -> Self {
        let far = i32::from(second.port()) - i32::from(first.port());
        let counts = first.ip() == second.ip() && far != 0 && far.abs() <= MAX_STEP;
        Self {
            last: second,
            step: i16::try_from(far).unwrap_or(0) * i16::from(counts),
        }
    }

    fn counts(&self) -> bool {
        self.step != 0
    }

    /// The port that the `n`-th mapping from here on gets.
    fn ahead(&self, n: u16) -> SocketAddr {
        let far = i32::from(self.step) * i32::from(n);
        // Wraps as a counter of 16 bits does.
        let port = (i32::from(self.last.port()) + far).rem_euclid(65_536);
        SocketAddr::new(self.last.ip(), u16::try_from(port).unwrap_or_default())
    }
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send to an address from a port.
    Send {
        /// Where to.
        to: SocketAddr,
        /// From which port.
        port: PortId,
    },
    /// Ask a relay how a port looks, and say so with [`Search::seen`].
    Ask {
        /// From which port.
        port: PortId,
    },
    /// Tell the peer how this side's NAT goes on.
    Tell(Run),
    /// Nothing before this moment.
    Wait(Instant),
    /// It is over: nothing was found, or is looked for any more.
    End(Ended),
}

/// Why a search ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was tried.
    NothingFound,
    /// This side's NAT gives no more ports.
    Quota,
    /// Neither side can say which port comes next.
    Unpredictable,
}

impl Ended {
    /// A stable word for programs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::NothingFound => "nothing-found",
            Self::Quota => "port-quota",
            Self::Unpredictable => "unpredictable",
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingFound => "none of the ports tried was one of the peer's",
            Self::Quota => "our NAT gives no more ports",
            Self::Unpredictable => "both NATs change ports, and nobody can tell which comes next",
        })
    }
}

/// A port that a relay was asked about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    port: PortId,
    at: Instant,
    seen: Option<SocketAddr>,
}

/// One search.
#[derive(Clone, Debug)]
pub struct Search {
    side: Side,
    peer: SocketAddr,
    /// The number before that of the first port it opens.
    base: u16,
    /// How the peer's NAT goes on, if it said so.
    theirs: Option<Run>,
    /// How ours does.
    ours: Option<Run>,
    told: bool,
    /// The two ports that are asked about first, and the last.
    first: [Option<Asked>; 2],
    latest: Option<Asked>,
    /// Ports opened, or guesses made.
    done: u16,
    /// Guesses made of those that follow the last known port.
    near: u16,
    left_in_turn: u16,
    turn_at: Instant,
    began: Instant,
    ends: Option<Instant>,
    /// The order of guesses: the n-th is `order.0 * n + order.1`, modulo [`PORT_COUNT`].
    order: (u32, u32),
}

impl Search {
    /// Begins a search for the peer that a relay sees at `peer`. Ports are numbered from `base + 1`.
    /// `chance` decides the order of guesses.
    pub fn new(side: Side, peer: SocketAddr, base: u16, chance: u64, now: Instant) -> Self {
        let high = u32::try_from(chance >> 32).unwrap_or(0);
        let low = u32::try_from(chance & u64::from(u32::MAX)).unwrap_or(0);
        // 64512 is 2^10 * 3^2 * 7: such a factor has none of those, so that no port comes twice.
        let factor = (high % (PORT_COUNT / 42)) * 42 + 1;
        Self {
            side,
            peer,
            base,
            theirs: None,
            ours: None,
            told: false,
            first: [None; 2],
            latest: None,
            done: 0,
            near: 0,
            left_in_turn: 0,
            turn_at: now,
            began: now,
            ends: None,
            order: (factor, low % PORT_COUNT),
        }
    }

    /// The peer says how its NAT goes on.
    pub fn peer_goes_on(&mut self, run: Run) {
        if run.last.ip() == self.peer.ip() {
            self.theirs = Some(run);
            self.near = 0;
        }
    }

    /// A relay sees `port` as `address`.
    pub fn seen(&mut self, port: PortId, address: SocketAddr) {
        let asked = self.first.iter_mut().chain([&mut self.latest]).flatten();
        for asked in asked.filter(|asked| asked.port == port) {
            asked.seen = Some(address);
        }
    }

    /// The next thing to do now.
    pub fn poll(&mut self, now: Instant) -> Step {
        if let Some(ends) = self.ends {
            if now >= ends {
                return Step::End(Ended::NothingFound);
            }
            return Step::Wait(ends);
        }
        if self.turn_at > now {
            return Step::Wait(self.turn_at);
        }
        if self.left_in_turn == 0 {
            self.left_in_turn = match self.side {
                Side::Guesses => GUESSES_A_TURN,
                Side::Opens | Side::Predicts => PORTS_A_TURN,
            };
        }
        match self.side {
            Side::Guesses => self.guess(now),
            Side::Opens | Side::Predicts => self.open(now),
        }
    }

    /// Counts a step; the last of a turn is followed by a pause, the last of all by an end.
    fn count(&mut self, most: u16, now: Instant) {
        self.left_in_turn = self.left_in_turn.saturating_sub(1);
        if self.left_in_turn == 0 {
            self.turn_at = now.after(TURN);
        }
        if self.done >= most {
            let ends = now.after(GRACE);
            self.ends = Some(match self.side {
                Side::Opens => ends.max(self.began.after(OPEN)),
                Side::Guesses | Side::Predicts => ends,
            });
        }
    }

    fn guess(&mut self, now: Instant) -> Step {
        let run = self.theirs.filter(Run::counts);
        let to = match run {
            Some(run) => {
                // More than once: a guess may be lost, or come before the port is open.
                self.near = self.near % RUN + 1;
                run.ahead(self.near)
            }
            None => {
                let (factor, offset) = (u64::from(self.order.0), u64::from(self.order.1));
                let place = (factor * u64::from(self.done) + offset) % u64::from(PORT_COUNT);
                let port = u16::try_from(place).unwrap_or(0).saturating_add(FIRST_PORT);
                SocketAddr::new(self.peer.ip(), port)
            }
        };
        self.done += 1;
        self.count(
            if run.is_some() {
                ROUNDS * RUN
            } else {
                MAX_GUESSES
            },
            now,
        );
        let port = PortId::MAIN;
        Step::Send { to, port }
    }

    fn open(&mut self, now: Instant) -> Step {
        // First two ports show whether the NAT counts up.
        for (place, number) in [(0, 1), (1, 2)] {
            if self.first[place].is_none() {
                let port = PortId(self.base + number);
                self.first[place] = Some(Asked {
                    port,
                    at: now,
                    seen: None,
                });
                return Step::Ask { port };
            }
        }
        if self.ours.is_none() {
            match self.first.map(|asked| asked.and_then(|asked| asked.seen)) {
                [Some(first), Some(second)] => self.ours = Some(Run::between(first, second)),
                _ if now.saturating_since(self.began) < ANSWER => {
                    self.turn_at = now.after(TURN);
                    return Step::Wait(self.turn_at);
                }
                // Not even two: a quota, or the relay is gone.
                _ => return Step::End(Ended::Quota),
            }
        }
        if let (Some(run), false) = (self.ours, self.told) {
            self.told = true;
            return Step::Tell(run);
        }
        let counts = self.ours.is_some_and(|run| run.counts());
        let to = match (self.side, self.theirs) {
            (Side::Predicts, Some(theirs)) => {
                if !counts || !theirs.counts() {
                    return Step::End(Ended::Unpredictable);
                }
                theirs.ahead(self.done + 1)
            }
            (Side::Predicts, None) => {
                if now.saturating_since(self.began) > GRACE * 2 {
                    return Step::End(Ended::NothingFound);
                }
                self.turn_at = now.after(TURN);
                return Step::Wait(self.turn_at);
            }
            _ => self.peer,
        };
        if let Some(asked) = self.latest.filter(|asked| asked.seen.is_none()) {
            let overdue = now.saturating_since(asked.at) >= ANSWER;
            if overdue {
                return Step::End(Ended::Quota);
            }
            if self.done.is_multiple_of(ASKED_EVERY) {
                // No more before it is known that there are more.
                self.turn_at = now.after(TURN);
                return Step::Wait(self.turn_at);
            }
        }
        let asks = self.done % ASKED_EVERY == ASKED_EVERY - 1 && self.side == Side::Opens;
        let port = PortId(self.base + 1 + self.done);
        if asks && self.latest.is_none_or(|asked| asked.port != port) {
            self.latest = Some(Asked {
                port,
                at: now,
                seen: None,
            });
            return Step::Ask { port };
        }
        self.done += 1;
        self.count(if counts { RUN } else { MAX_PORTS }, now);
        Step::Send { to, port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn search(side: Side, chance: u64) -> Search {
        let peer = address("198.51.100.1:4000");
        Search::new(side, peer, 256, chance, Instant::ZERO)
    }

    /// Runs a search to its end; a relay that is asked sees what `see` says of the n-th question.
    fn run(search: &mut Search, see: impl Fn(u16) -> Option<SocketAddr>) -> (Vec<Step>, Ended) {
        let (mut steps, mut now, mut asked) = (Vec::new(), Instant::ZERO, 0);
        loop {
            match search.poll(now) {
                Step::Wait(until) => {
                    assert!(until > now);
                    now = until;
                }
                Step::End(why) => return (steps, why),
                step => {
                    if let Step::Ask { port } = step {
                        if let Some(seen) = see(asked) {
                            search.seen(port, seen);
                        }
                        asked += 1;
                    }
                    steps.push(step);
                }
            }
        }
    }

    fn sent(steps: &[Step]) -> Vec<(SocketAddr, u16)> {
        let sends = steps.iter().filter_map(|step| match step {
            Step::Send { to, port } => Some((*to, port.0)),
            _ => None,
        });
        sends.collect()
    }

    fn counting(n: u16) -> Option<SocketAddr> {
        Some(SocketAddr::new([203, 0, 113, 1].into(), 5000 + 2 * n))
    }

    fn random(n: u16) -> Option<SocketAddr> {
        let port = 9000_u16.wrapping_add(n.wrapping_mul(12_345));
        Some(SocketAddr::new([203, 0, 113, 1].into(), port))
    }

    proptest! {
        #[test]
        fn guesses_are_bounded_and_none_comes_twice(chance: u64) {
            let (steps, why) = run(&mut search(Side::Guesses, chance), |_| None);
            let sent: Vec<_> = sent(&steps).into_iter().map(|(to, _)| to.port()).collect();
            prop_assert_eq!(why, Ended::NothingFound);
            prop_assert_eq!(sent.len(), usize::from(MAX_GUESSES));
            prop_assert!(sent.iter().all(|port| *port >= FIRST_PORT));
            let different: BTreeSet<_> = sent.iter().collect();
            prop_assert_eq!(different.len(), sent.len());
        }
    }

    #[test]
    fn a_nat_that_chooses_at_random_has_every_port_opened() {
        let (steps, why) = run(&mut search(Side::Opens, 1), random);
        assert_eq!(why, Ended::NothingFound);
        let sent = sent(&steps);
        let ports: Vec<u16> = sent.iter().map(|(_, port)| *port).collect();
        assert_eq!(ports, (257..257 + MAX_PORTS).collect::<Vec<_>>());
        assert!(
            sent.iter()
                .all(|(to, _)| *to == address("198.51.100.1:4000"))
        );
    }

    #[test]
    fn a_nat_that_counts_is_told_of_and_few_ports_suffice() {
        let (steps, _) = run(&mut search(Side::Opens, 1), counting);
        let last = address("203.0.113.1:5002");
        assert!(steps.contains(&Step::Tell(Run { last, step: 2 })));
        assert_eq!(sent(&steps).len(), usize::from(RUN));
        let mut guesser = search(Side::Guesses, 1);
        let last = address("198.51.100.1:65534");
        guesser.peer_goes_on(Run { last, step: 2 });
        let (steps, _) = run(&mut guesser, |_| None);
        let ports = sent(&steps).into_iter().map(|(to, _)| to.port());
        assert_eq!(ports.take(3).collect::<Vec<_>>(), [0, 2, 4]);
    }

    #[test]
    fn a_run_of_somebody_elses_is_not_followed() {
        let mut guesser = search(Side::Guesses, 1);
        let last = address("192.0.2.66:5000");
        guesser.peer_goes_on(Run { last, step: 1 });
        let (steps, _) = run(&mut guesser, |_| None);
        let peer = address("198.51.100.1:4000").ip();
        assert!(sent(&steps).iter().all(|(to, _)| to.ip() == peer));
    }

    #[test]
    fn ports_stay_open_until_the_last_guess_has_arrived() {
        let guesses = u64::from(MAX_GUESSES.div_ceil(GUESSES_A_TURN));
        let last = Instant::ZERO.after(TURN * u32::try_from(guesses).unwrap());
        let mut opens = search(Side::Opens, 1);
        let mut now = Instant::ZERO;
        while now < last {
            match opens.poll(now) {
                Step::Wait(until) => now = until,
                Step::Ask { port } => opens.seen(port, random(port.0).unwrap()),
                Step::End(why) => panic!("it ended at {now:?}: {why}"),
                Step::Send { .. } | Step::Tell(_) => {}
            }
        }
    }

    #[test]
    fn a_quota_ends_it() {
        let (steps, why) = run(&mut search(Side::Opens, 1), |n| random(n).filter(|_| n < 3));
        assert_eq!(why, Ended::Quota);
        assert_eq!(sent(&steps).len(), usize::from(2 * ASKED_EVERY));
        let (steps, why) = run(&mut search(Side::Opens, 1), |_| None);
        assert_eq!((sent(&steps).len(), why), (0, Ended::Quota));
    }

    #[test]
    fn two_that_count_meet_pairwise_and_one_that_does_not_ends_it() {
        let mut ours = search(Side::Predicts, 1);
        let last = address("198.51.100.1:7000");
        ours.peer_goes_on(Run { last, step: 1 });
        let (steps, _) = run(&mut ours, counting);
        let first = sent(&steps);
        assert_eq!(first.first(), Some(&(address("198.51.100.1:7001"), 257)));
        assert_eq!(first.get(9), Some(&(address("198.51.100.1:7010"), 266)));
        let mut ours = search(Side::Predicts, 1);
        ours.peer_goes_on(Run { last, step: 0 });
        assert_eq!(run(&mut ours, counting).1, Ended::Unpredictable);
        let mut ours = search(Side::Predicts, 1);
        ours.peer_goes_on(Run { last, step: 1 });
        assert_eq!(run(&mut ours, random).1, Ended::Unpredictable);
    }
}
