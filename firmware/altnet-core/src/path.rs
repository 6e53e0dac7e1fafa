//! Which way to a peer, and why that one.
//!
//! In: candidates, relays we are registered at, answers to challenges, what was heard from
//! where, that something was sent. Out: endpoints to challenge, the endpoint to send to, and
//! the reason in words a person can act on. A direct path is used once a challenge sent
//! along it was answered (after RFC 9000 section 8.2), which proves both directions; it is
//! left for a relay as soon as it stays silent while something is sent.
//!
//! Deliberately absent: finding candidates, sealing challenges, NAT behaviour discovery.

pub mod budget;

use core::fmt;
use core::net::SocketAddr;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Candidate, CandidateKind, MAX_CANDIDATES, MAX_PRESENCE_RELAYS};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

/// Challenges in a row to an address that has not answered, before it rests.
pub const PROBES_IN_A_ROW: u8 = 6;
/// The first pause between two of them; each next is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// How long an address rests that didn't answer.
const REST: Duration = Duration::from_secs(60);
/// How often a direct path in use is challenged while nothing else proves it.
const CONFIRM: Duration = Duration::from_secs(10);
/// A direct path that was sent to and not heard from for this long is asked at once.
const SUSPECT: Duration = Duration::from_secs(2);
/// The pause between challenges to a suspect path.
const SUSPECT_PAUSE: Duration = Duration::from_millis(500);
/// Unanswered challenges in a row after which a direct path is given up.
const LOST: u8 = 3;
/// A peer nothing is sent to for this long is not probed.
const IDLE: Duration = Duration::from_secs(180);

/// Why the path is what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// A challenge was answered at this kind of address.
    DirectAnswered(CandidateKind),
    /// An authenticated packet came from that address.
    DirectHeard,
    /// The peer's fixed address is tried; it has not answered yet.
    FixedUntested,
    /// The peer has not told any address to try.
    RelayNoCandidates,
    /// Direct addresses are being tried.
    RelayTrying,
    /// No direct address answered.
    RelayNoAnswer,
    /// The direct path went silent.
    RelayDirectLost,
    /// There is neither a direct address nor a relay in common.
    NoWay,
}

impl Why {
    /// A stable word for programs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::DirectAnswered(_) => "direct-answered",
            Self::DirectHeard => "direct-heard",
            Self::FixedUntested => "fixed-untested",
            Self::RelayNoCandidates => "relay-no-candidates",
            Self::RelayTrying => "relay-trying",
            Self::RelayNoAnswer => "relay-no-answer",
            Self::RelayDirectLost => "relay-direct-lost",
            Self::NoWay => "no-way",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DirectAnswered(CandidateKind::Host) => "direct: its own address answers",
            Self::DirectAnswered(CandidateKind::Reflexive) => {
                "direct: the address its relay sees answers"
            }
            Self::DirectAnswered(_) => "direct: its fixed address answers",
            Self::DirectHeard => "direct: it was heard from there",
            Self::FixedUntested => "its fixed address is tried, no answer yet",
            Self::RelayNoCandidates => "by relay: it has told no address to try yet",
            Self::RelayTrying => "by relay while its direct addresses are tried",
            Self::RelayNoAnswer => {
                "by relay: no direct address answers (both NATs may change ports, or UDP is blocked)"
            }
            Self::RelayDirectLost => "by relay: the direct path went silent",
            Self::NoWay => {
                "no way: no address of it answers and no relay serves both; a network needs one reachable relay"
            }
        })
    }
}

/// A change of path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The path until now.
    pub from: Option<Endpoint>,
    /// The path from now on.
    pub to: Option<Endpoint>,
    /// Why.
    pub why: Why,
}

#[derive(Clone, Copy, Debug)]
struct Direct {
    address: SocketAddr,
    kind: CandidateKind,
    /// An answer came, and it was not lost since.
    alive: bool,
    rtt: Option<Duration>,
    heard: Instant,
    unanswered: u8,
    next_probe: Instant,
}

impl Direct {
    fn new(address: SocketAddr, kind: CandidateKind, now: Instant) -> Self {
        Self {
            address,
            kind,
            alive: false,
            rtt: None,
            heard: Instant::ZERO,
            unanswered: 0,
            next_probe: now,
        }
    }
}

/// The paths to one peer.
#[derive(Clone, Debug)]
pub struct Path {
    node: NodeId,
    directs: Vec<Direct, MAX_CANDIDATES>,
    relays: Vec<NodeId, MAX_PRESENCE_RELAYS>,
    current: Option<Endpoint>,
    why: Why,
    lost_once: bool,
    last_sent: Instant,
    change: Option<Change>,
}

impl Path {
    /// A peer that nothing is known of yet.
    pub const fn new(node: NodeId, now: Instant) -> Self {
        Self {
            node,
            directs: Vec::new(),
            relays: Vec::new(),
            current: None,
            why: Why::NoWay,
            lost_once: false,
            last_sent: now,
            change: None,
        }
    }

    /// Where to send to now.
    pub const fn current(&self) -> Option<Endpoint> {
        self.current
    }

    /// Why there.
    pub const fn why(&self) -> Why {
        self.why
    }

    /// The round-trip time of the direct path, as last measured.
    pub fn direct_rtt(&self, address: SocketAddr) -> Option<Duration> {
        self.directs
            .iter()
            .find(|d| d.address == address)
            .and_then(|d| d.rtt)
    }

    /// Takes the peer's candidates: new ones are tried, ones no longer named are forgotten
    /// unless they are alive.
    pub fn set_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        self.directs
            .retain(|d| d.alive || candidates.iter().any(|c| c.address == d.address));
        for candidate in candidates {
            self.add(candidate.address, candidate.kind, now);
        }
        self.choose(now);
    }

    /// Takes one more candidate, if there is room.
    pub fn add_candidate(&mut self, candidate: Candidate, now: Instant) {
        self.add(candidate.address, candidate.kind, now);
        self.choose(now);
    }

    fn add(&mut self, address: SocketAddr, kind: CandidateKind, now: Instant) {
        match self.directs.iter_mut().find(|d| d.address == address) {
            Some(known) => {
                known.kind = kind;
                if !known.alive {
                    // Named again: the peer may just have opened its side of a NAT.
                    known.unanswered = 0;
                    known.next_probe = known.next_probe.min(now);
                }
            }
            None => {
                let direct = Direct::new(address, kind, now);
                if let Err(direct) = self.directs.push(direct) {
                    // Full: the one that is dead the longest makes room.
                    if let Some(slot) = self
                        .directs
                        .iter_mut()
                        .filter(|d| !d.alive)
                        .max_by_key(|d| d.unanswered)
                    {
                        *slot = direct;
                    }
                }
            }
        }
    }

    /// Takes the relays that can carry to the peer now, the preferred first.
    pub fn set_relays(&mut self, relays: &[NodeId], now: Instant) {
        self.relays.clear();
        for relay in relays.iter().take(MAX_PRESENCE_RELAYS) {
            let _ = self.relays.push(*relay);
        }
        self.choose(now);
    }

    /// A challenge sent to `endpoint` was answered after `rtt`.
    pub fn answered(&mut self, endpoint: Endpoint, rtt: Duration, now: Instant) {
        let Endpoint::Direct(address) = endpoint else {
            return;
        };
        if let Some(direct) = self.directs.iter_mut().find(|d| d.address == address) {
            direct.alive = true;
            direct.rtt = Some(rtt);
            direct.heard = now;
            direct.unanswered = 0;
            direct.next_probe = now.after(CONFIRM);
        }
        self.choose(now);
    }

    /// An authenticated packet came from `endpoint`.
    ///
    /// From an address not known yet it becomes a candidate, and is challenged before it is
    /// used: whoever is on the way could have sent it on from elsewhere.
    pub fn heard(&mut self, endpoint: Endpoint, now: Instant) {
        let Endpoint::Direct(address) = endpoint else {
            return;
        };
        match self.directs.iter_mut().find(|d| d.address == address) {
            Some(direct) => {
                direct.heard = now;
                if direct.alive {
                    direct.unanswered = 0;
                    direct.next_probe = direct.next_probe.max(now.after(CONFIRM));
                } else if direct.unanswered >= PROBES_IN_A_ROW {
                    direct.unanswered = 0;
                    direct.next_probe = now;
                }
            }
            None => {
                self.add(address, CandidateKind::Reflexive, now);
                self.choose(now);
            }
        }
    }

    /// A call along the current path got no answer. While nothing is known to work, the next
    /// one is made to another address, if there is one.
    pub fn call_failed(&mut self, now: Instant) {
        let current = self.current;
        let called = self
            .directs
            .iter_mut()
            .find(|d| !d.alive && current == Some(Endpoint::Direct(d.address)));
        if let Some(direct) = called {
            direct.unanswered = direct.unanswered.saturating_add(1);
        }
        self.choose(now);
    }

    /// Since when the current path, once answered on, is silent; none while it is proven.
    pub fn silent_since(&self) -> Option<Instant> {
        let current = self.current;
        self.directs
            .iter()
            .find(|d| !d.alive && current == Some(Endpoint::Direct(d.address)))
            .map(|d| d.heard)
            .filter(|heard| *heard != Instant::ZERO)
    }

    /// How many direct addresses there are to call.
    pub fn direct_count(&self) -> usize {
        self.directs.len()
    }

    /// Something was sent to the peer along the current path.
    pub fn sent(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// Forgets that any direct path is alive and tries all again: after our own addresses
    /// changed, or after sleep.
    pub fn doubt(&mut self, now: Instant) {
        for direct in &mut self.directs {
            direct.alive = false;
            direct.unanswered = 0;
            direct.next_probe = now;
        }
        self.choose(now);
    }

    /// The next endpoint to challenge now, if any is due.
    pub fn poll_probe(&mut self, now: Instant) -> Option<Endpoint> {
        if now.saturating_since(self.last_sent) > IDLE {
            return None;
        }
        let (last_sent, current) = (self.last_sent, self.current);
        let mut probe = None;
        for direct in &mut self.directs {
            let due = due(direct, last_sent, current);
            if due > now {
                continue;
            }
            if direct.alive && direct.unanswered >= LOST {
                direct.alive = false;
                direct.unanswered = 0;
                direct.next_probe = now.after(FIRST_PAUSE);
                if current == Some(Endpoint::Direct(direct.address)) {
                    self.lost_once = true;
                }
                continue;
            }
            if !direct.alive && direct.unanswered >= PROBES_IN_A_ROW {
                direct.unanswered = 0;
            }
            direct.unanswered = direct.unanswered.saturating_add(1);
            direct.next_probe = now.after(pause(direct));
            probe = Some(Endpoint::Direct(direct.address));
            break;
        }
        self.choose(now);
        probe
    }

    /// When [`Path::poll_probe`] next has something to say.
    pub fn deadline(&self, now: Instant) -> Instant {
        let idle_from = self.last_sent.after(IDLE);
        if now > idle_from {
            return Instant::NEVER;
        }
        self.directs
            .iter()
            .map(|d| due(d, self.last_sent, self.current))
            .filter(|due| *due <= idle_from)
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// The last change of path not yet told.
    pub const fn poll_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    fn choose(&mut self, _now: Instant) {
        let (to, why) = self.best();
        self.why = why;
        if to != self.current {
            self.change = Some(Change {
                from: self.current,
                to,
                why,
            });
            self.current = to;
        }
    }

    fn best(&self) -> (Option<Endpoint>, Why) {
        // A path that answers in four fifths of the time of the present one is worth a change.
        let cost = |d: &Direct| match d.rtt.unwrap_or(Duration::MAX) {
            rtt if self.current == Some(Endpoint::Direct(d.address)) => rtt - rtt / 5,
            rtt => rtt,
        };
        if let Some(direct) = self
            .directs
            .iter()
            .filter(|d| d.alive)
            .min_by_key(|d| cost(d))
        {
            let why = Why::DirectAnswered(direct.kind);
            return (Some(Endpoint::Direct(direct.address)), why);
        }
        if let Some(relay) = self.relays.first() {
            let why = if self.directs.is_empty() {
                Why::RelayNoCandidates
            } else if self.lost_once {
                Why::RelayDirectLost
            } else if self.directs.iter().all(|d| d.unanswered >= PROBES_IN_A_ROW) {
                Why::RelayNoAnswer
            } else {
                Why::RelayTrying
            };
            let endpoint = Endpoint::Relayed {
                relay: *relay,
                node: self.node,
            };
            return (Some(endpoint), why);
        }
        // Nothing proven and no relay: whatever might answer, the least tried first.
        match self.directs.iter().min_by_key(|d| (d.unanswered, d.kind)) {
            Some(direct) => (Some(Endpoint::Direct(direct.address)), Why::FixedUntested),
            None => (None, Why::NoWay),
        }
    }
}

/// When a candidate is to be challenged next.
fn due(direct: &Direct, last_sent: Instant, current: Option<Endpoint>) -> Instant {
    let in_use = direct.alive && current == Some(Endpoint::Direct(direct.address));
    if in_use && last_sent > direct.heard && direct.unanswered == 0 {
        // Sent to, not heard from since: ask once it has been silent for long enough.
        return direct
            .next_probe
            .min(direct.heard.after(SUSPECT))
            .max(last_sent);
    }
    direct.next_probe
}

fn pause(direct: &Direct) -> Duration {
    if direct.alive {
        SUSPECT_PAUSE
    } else if direct.unanswered >= PROBES_IN_A_ROW {
        REST
    } else {
        let doublings = u32::from(direct.unanswered.saturating_sub(1)).min(8);
        FIRST_PAUSE.saturating_mul(1 << doublings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const PEER: NodeId = NodeId([1; 16]);
    const RELAY: NodeId = NodeId([2; 16]);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn candidate(port: u16) -> Candidate {
        Candidate {
            address: address(port),
            kind: CandidateKind::Reflexive,
        }
    }

    fn relayed() -> Option<Endpoint> {
        Some(Endpoint::Relayed {
            relay: RELAY,
            node: PEER,
        })
    }

    /// Runs the machine from `from` to `to`, answering challenges to the ports in `alive`.
    fn run(
        path: &mut Path,
        from: u64,
        to: u64,
        alive: &[u16],
        sending: bool,
    ) -> Vec<(u64, SocketAddr)> {
        let mut probes = Vec::new();
        for ms in (from..to).step_by(50) {
            if sending {
                path.sent(at(ms));
            }
            while let Some(Endpoint::Direct(to)) = path.poll_probe(at(ms)) {
                probes.push((ms, to));
                if alive.contains(&to.port()) {
                    path.answered(Endpoint::Direct(to), Duration::from_millis(20), at(ms + 20));
                }
            }
        }
        probes
    }

    #[test]
    fn a_path_is_relayed_until_a_challenge_is_answered() {
        let mut path = Path::new(PEER, at(0));
        path.set_relays(&[RELAY], at(0));
        assert_eq!(
            (path.current(), path.why()),
            (relayed(), Why::RelayNoCandidates)
        );
        path.set_candidates(&[candidate(1), candidate(2)], at(0));
        assert_eq!((path.current(), path.why()), (relayed(), Why::RelayTrying));
        run(&mut path, 0, 1000, &[2], true);
        assert_eq!(path.current(), Some(Endpoint::Direct(address(2))));
        assert_eq!(path.why(), Why::DirectAnswered(CandidateKind::Reflexive));
    }

    #[test]
    fn an_address_that_never_answers_gets_few_challenges() {
        let mut path = Path::new(PEER, at(0));
        path.set_relays(&[RELAY], at(0));
        path.set_candidates(&[candidate(1)], at(0));
        let probes = run(&mut path, 0, 60_000, &[], true);
        assert_eq!(probes.len(), usize::from(PROBES_IN_A_ROW));
        assert_eq!(path.why(), Why::RelayNoAnswer);
    }

    #[test]
    fn a_silent_direct_path_is_left_within_five_seconds_and_found_again() {
        let mut path = Path::new(PEER, at(0));
        path.set_relays(&[RELAY], at(0));
        path.set_candidates(&[candidate(1)], at(0));
        run(&mut path, 0, 1000, &[1], true);
        run(&mut path, 1000, 6000, &[], true);
        assert_eq!(
            (path.current(), path.why()),
            (relayed(), Why::RelayDirectLost)
        );
        run(&mut path, 6000, 90_000, &[1], true);
        assert_eq!(path.current(), Some(Endpoint::Direct(address(1))));
    }

    #[test]
    fn a_peer_nothing_is_sent_to_is_not_probed() {
        let mut path = Path::new(PEER, at(0));
        path.set_candidates(&[candidate(1)], at(0));
        run(&mut path, 0, 1000, &[1], true);
        let probes = run(&mut path, 300_000, 900_000, &[1], false);
        assert!(probes.is_empty());
        assert_eq!(path.deadline(at(900_000)), Instant::NEVER);
    }

    #[test]
    fn without_relay_or_answer_the_fixed_address_is_tried() {
        let mut path = Path::new(PEER, at(0));
        assert_eq!((path.current(), path.why()), (None, Why::NoWay));
        path.set_candidates(&[candidate(7)], at(0));
        assert_eq!(path.current(), Some(Endpoint::Direct(address(7))));
        assert_eq!(path.why(), Why::FixedUntested);
    }

    proptest! {
        #[test]
        fn the_current_path_is_always_one_that_was_offered(steps in proptest::collection::vec((0u8..6, 0u16..12, 0u64..4000), 0..200)) {
            let mut path = Path::new(PEER, at(0));
            let mut now = 0;
            for (what, port, pass) in steps {
                now += pass;
                match what {
                    0 => path.add_candidate(candidate(port), at(now)),
                    1 => path.set_relays(if port % 2 == 0 { &[RELAY] } else { &[] }, at(now)),
                    2 => path.answered(Endpoint::Direct(address(port)), Duration::from_millis(pass), at(now)),
                    3 => path.heard(Endpoint::Direct(address(port)), at(now)),
                    4 => path.sent(at(now)),
                    _ => { while path.poll_probe(at(now)).is_some() {} }
                }
                match path.current() {
                    Some(Endpoint::Direct(a)) => prop_assert!(path.directs.iter().any(|d| d.address == a)),
                    Some(relay) => prop_assert!(Some(relay) == relayed() && !path.relays.is_empty()),
                    None => prop_assert!(path.directs.is_empty() && path.relays.is_empty()),
                }
            }
        }
    }
}
