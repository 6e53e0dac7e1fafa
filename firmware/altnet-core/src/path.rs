//! Which way to a peer, and why that one.
//!
//! In: candidates, relays we are registered at, answers to challenges, what was heard from
//! where, that something was sent. Out: endpoints to challenge, the endpoint to send to, and
//! the reason in words a person can act on. A direct path is used once a challenge sent
//! along it was answered (after RFC 9000 section 8.2), which proves both directions; it is
//! left as soon as it stays silent while something is sent and another way answers. So is a
//! relay (`silence`).
//!
//! An address that was merely named is nobody's until a round trip along it was seen: while
//! [`Path::is_proven`] says no, only challenges and handshakes may go there.
//!
//! Deliberately absent: finding candidates, sealing challenges, NAT behaviour discovery.

mod absent;
pub mod budget;
mod candidates;
mod direct;
pub mod filter;
pub mod keep;
pub mod mtu;
mod pace;
mod relayed;
pub mod search;
mod silence;
mod why;

use core::net::SocketAddr;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::{CandidateKind, MAX_CANDIDATES};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use direct::{Direct, due, pause};
pub use pace::Pace;
use relayed::{Relays, foreign_why, is_foreign};
pub use why::Why;

/// The first pause between two of them; each next is twice as long.
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(300);
/// How long a peer that was heard at an address is taken to be there.
const HEARD: Duration = Duration::from_secs(60);
/// How often a direct path in use is challenged while nothing else proves it.
const CONFIRM: Duration = Duration::from_secs(10);
/// A direct path that is kept up and not heard from for this long is asked at once.
const SUSPECT: Duration = Duration::from_secs(2);
/// The pause before an address is tried that was knocked at too often.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// The pause between challenges to a suspect path.
const SUSPECT_PAUSE: Duration = Duration::from_millis(300);
/// How much longer than its round trip an address that is asked whether it still answers may take
/// before another takes its place: relays have to be told of each change.
const HOLD: Duration = Duration::from_millis(30);
/// The least pause before an address is challenged once more that something came from.
const HEARD_PAUSE: Duration = Duration::from_millis(200);
/// Unanswered challenges in a row after which a direct path is given up.
const LOST: u8 = 3;
/// Addresses of a peer that others named, at a time.
const HINTS: usize = 2;
/// A peer that something was sent to within this is one that is talked to now.
const SENT_TO: Duration = Duration::from_secs(10);
/// A peer nothing is sent to for this long is not probed.
const IDLE: Duration = Duration::from_secs(180);

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

/// An address of a peer, and what came of trying it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The address.
    pub address: SocketAddr,
    /// How it was found.
    pub kind: CandidateKind,
    /// Whether it answers.
    pub is_alive: bool,
    /// The round-trip time as last measured.
    pub rtt: Option<Duration>,
    /// Challenges in a row that it didn't answer.
    pub unanswered: u8,
}

/// The paths to one peer.
#[derive(Clone, Debug)]
pub struct Path {
    node: NodeId,
    pace: Pace,
    directs: Vec<Direct, MAX_CANDIDATES>,
    relays: Relays,
    current: Option<Endpoint>,
    why: Why,
    /// Whether more than challenges and handshakes may go along the current path.
    proven: bool,
    /// Where the peer's last handshake came from, and when.
    shaken: Option<(SocketAddr, Instant)>,
    lost_once: bool,
    last_sent: Instant,
    /// When the path in use is asked whether it still carries; never while nothing is owed.
    ask_at: Instant,
    change: Option<Change>,
    /// Where to send to, as others were told last.
    told: Option<Endpoint>,
    became_proven: bool,
    /// A relay that was left because it was silent, and that nobody was told of.
    silent_relay: Option<NodeId>,
}

impl Path {
    /// A peer that nothing is known of yet.
    pub const fn new(node: NodeId, now: Instant) -> Self {
        Self::paced(node, Pace::USUAL, now)
    }

    /// The same, whose addresses are tried at such a pace.
    pub const fn paced(node: NodeId, pace: Pace, now: Instant) -> Self {
        Self {
            node,
            pace,
            directs: Vec::new(),
            relays: Relays::new(),
            current: None,
            why: Why::NoWay,
            proven: false,
            shaken: None,
            lost_once: false,
            last_sent: now,
            ask_at: Instant::NEVER,
            change: None,
            told: None,
            became_proven: false,
            silent_relay: None,
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

    /// Whether the peer is known to be where the current path ends: a round trip along it was
    /// seen, or a relay that it is registered at carries. If not, only challenges and
    /// handshakes may go there.
    pub const fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether a round trip to that address was seen.
    pub fn is_proven_at(&self, address: SocketAddr) -> bool {
        self.directs
            .iter()
            .any(|d| d.address == address && d.is_proven())
    }

    /// Whether a challenge to that address was answered, and it was not lost since.
    pub fn is_alive_at(&self, address: SocketAddr) -> bool {
        let mut directs = self.directs.iter();
        directs.any(|d| d.address == address && d.alive)
    }

    /// Whether the peer told an address of it at `ip`.
    pub fn is_told_at(&self, ip: core::net::IpAddr) -> bool {
        let mut directs = self.directs.iter();
        directs.any(|d| d.address.ip() == ip && !d.hint)
    }

    /// Every address of the peer, and what came of trying it.
    pub fn tried(&self) -> impl Iterator<Item = Tried> {
        self.directs.iter().map(|d| Tried {
            address: d.address,
            kind: d.kind,
            is_alive: d.alive,
            rtt: d.rtt,
            unanswered: d.unanswered,
        })
    }

    /// Relays of our own that lead to the peer: not somebody else's servers.
    pub fn own_relays(&self) -> usize {
        let own = self.relays.iter().filter(|way| !is_foreign(way.relay));
        own.count()
    }

    /// The first of those.
    pub fn own_relay(&self) -> Option<NodeId> {
        let mut relays = self.relays.iter().map(|way| way.relay);
        relays.find(|relay| !is_foreign(*relay))
    }

    /// Whether somebody else's server is the way to the peer now.
    pub fn is_foreign(&self) -> bool {
        matches!(self.current, Some(Endpoint::Relayed { relay, .. }) if is_foreign(relay))
    }

    /// Whether something was sent to the peer just now: worth looking for a way through NATs.
    pub fn is_sent_to(&self, now: Instant) -> bool {
        now.saturating_since(self.last_sent) <= SENT_TO
    }

    /// The round-trip time of the direct path, as last measured.
    pub fn direct_rtt(&self, address: SocketAddr) -> Option<Duration> {
        self.directs
            .iter()
            .find(|d| d.address == address)
            .and_then(|d| d.rtt)
    }

    /// The round-trip time by the relay in use, as last measured.
    pub fn relayed_rtt(&self) -> Option<Duration> {
        self.relays.first().and_then(|way| way.rtt)
    }

    /// Takes the relays that can carry to the peer now, the preferred first. Given as
    /// before, the one that failed last stays last; one that carries now stays in use.
    pub fn set_relays(&mut self, relays: &[NodeId], now: Instant) {
        self.relays.offer(self.node, relays, now);
        self.choose(now);
    }

    /// A relay is to be used no more where there is another; what comes by it still does.
    pub fn leave(&mut self, relay: NodeId) {
        self.relays.leave(relay);
    }

    /// A challenge sent to `endpoint` was answered after `rtt`.
    pub fn answered(&mut self, endpoint: Endpoint, rtt: Duration, now: Instant) {
        self.heard_along(endpoint, now);
        let is_used = now.saturating_since(self.last_sent) < CONFIRM;
        match endpoint {
            // A client of ours that isn't known by its stream yet.
            Endpoint::Relayed { node, .. } if node != self.node => {}
            Endpoint::Direct(address) => {
                if let Some(direct) = self.directs.iter_mut().find(|d| d.address == address) {
                    direct.alive = true;
                    direct.rtt = Some(rtt);
                    direct.proves(now);
                    direct.next_probe = now.after(if is_used {
                        CONFIRM
                    } else {
                        self.pace.confirm_unused
                    });
                }
            }
            Endpoint::Relayed { relay, .. } => {
                if let Some(way) = self.relays.at_mut(relay) {
                    way.heard(now);
                    way.rtt = Some(rtt);
                    self.relays.return_to(relay);
                }
            }
        }
        self.choose(now);
    }

    /// An authenticated packet came from `endpoint`.
    ///
    /// From an address not known yet it becomes a candidate, and is challenged before it is
    /// used: whoever is on the way could have sent it on from elsewhere. True if it is one to
    /// challenge now.
    pub fn heard(&mut self, endpoint: Endpoint, now: Instant) -> bool {
        self.heard_along(endpoint, now);
        let address = match endpoint {
            Endpoint::Direct(address) => address,
            Endpoint::Relayed { node, .. } if node != self.node => return false,
            Endpoint::Relayed { relay, .. } => {
                if let Some(way) = self.relays.at_mut(relay) {
                    way.heard(now);
                }
                self.choose(now);
                return false;
            }
        };
        match self.directs.iter_mut().find(|d| d.address == address) {
            Some(direct) => {
                direct.heard = now;
                if direct.alive {
                    direct.unanswered = 0;
                    direct.next_probe = direct.next_probe.max(now.after(CONFIRM));
                    return false;
                }
                if direct.unanswered >= self.pace.probes_in_a_row {
                    direct.unanswered = 0;
                }
                // It comes through from there: what goes there may come through from now on.
                let soonest = direct.tried.after(HEARD_PAUSE).max(now);
                direct.next_probe = direct.next_probe.min(soonest);
                true
            }
            None => {
                self.add(address, CandidateKind::Reflexive, now);
                if let Some(direct) = self.directs.iter_mut().find(|d| d.address == address) {
                    direct.heard = now;
                }
                self.choose(now);
                true
            }
        }
    }

    /// The peer asked for a tunnel session from `endpoint`, and is answered there.
    pub const fn asked(&mut self, endpoint: Endpoint, now: Instant) {
        self.shaken = match endpoint {
            Endpoint::Direct(address) => Some((address, now)),
            Endpoint::Relayed { .. } => None,
        };
    }

    /// When the peer asked for a session that a datagram from `endpoint` would confirm.
    pub fn asked_from(&self, endpoint: Endpoint) -> Option<Instant> {
        self.shaken
            .filter(|(address, _)| endpoint == Endpoint::Direct(*address))
            .map(|(_, when)| when)
    }

    /// A handshake went to `endpoint` and back: the peer is there.
    pub fn shook(&mut self, endpoint: Endpoint, now: Instant) {
        let Endpoint::Direct(address) = endpoint else {
            return;
        };
        self.shaken = None;
        self.heard(endpoint, now);
        if let Some(direct) = self.directs.iter_mut().find(|d| d.address == address) {
            direct.proves(now);
        }
        self.choose(now);
    }

    /// A call got no answer at `called`. The next one is made another way, if there
    /// is one: to another address while none is known to work, or by another relay.
    pub fn call_failed(&mut self, called: Endpoint, now: Instant) {
        match called {
            Endpoint::Direct(address) => {
                if let Some(direct) = self.directs.iter_mut().find(|d| d.address == address) {
                    direct.unanswered = direct.unanswered.saturating_add(1);
                    direct.tried = now;
                    direct.alive = false;
                }
            }
            Endpoint::Relayed { relay, .. } if self.is_first(relay) => self.relays.rotate(),
            Endpoint::Relayed { .. } => {}
        }
        self.choose(now);
    }

    fn is_first(&self, relay: NodeId) -> bool {
        self.relays.first().is_some_and(|way| way.relay == relay)
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

    /// Something was sent to the peer along the current path, and an answer is due.
    pub fn sent(&mut self, now: Instant) {
        self.last_sent = now;
        self.expect_answer(now);
    }

    /// The peer's path is to be kept up, as if something were sent.
    pub fn keep(&mut self, now: Instant) {
        self.last_sent = now;
    }

    /// Nobody has anything to say to the peer: nothing is challenged until something is sent.
    pub const fn rest(&mut self) {
        self.last_sent = Instant::ZERO;
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

    /// Tries those addresses at once that didn't answer: the peer may be there again.
    pub fn try_anew(&mut self, now: Instant) {
        for direct in self.directs.iter_mut().filter(|d| !d.alive) {
            direct.unanswered = 0;
            direct.next_probe = now;
        }
    }

    /// Tries all again after our own addresses changed, and goes on along the present path until
    /// another answers: for a relay, which others can't reach for us.
    pub fn check(&mut self, now: Instant) {
        for direct in &mut self.directs {
            direct.doubted = true;
            direct.unanswered = 0;
            direct.next_probe = now;
        }
    }

    /// The next endpoint to challenge now, if any is due.
    ///
    /// `may` says whether an address that isn't known to be alive may be challenged once more.
    /// If not it is asked again later; that counts as no try.
    pub fn poll_probe(
        &mut self,
        may: &mut dyn FnMut(SocketAddr) -> bool,
        now: Instant,
    ) -> Option<Endpoint> {
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
            if !direct.alive && !may(direct.address) {
                direct.next_probe = now.after(REFUSED_PAUSE);
                continue;
            }
            if !direct.alive && direct.unanswered >= self.pace.probes_in_a_row {
                direct.unanswered = 0;
            }
            direct.asks(now);
            direct.next_probe = now.after(pause(direct, self.pace));
            probe = Some(Endpoint::Direct(direct.address));
            break;
        }
        self.choose(now);
        probe.or_else(|| self.ask_in_doubt(now))
    }

    /// When [`Path::poll_probe`] next has something to say.
    pub fn deadline(&self, now: Instant) -> Instant {
        let idle_from = self.last_sent.after(IDLE);
        if now > idle_from {
            return Instant::NEVER;
        }
        self.directs
            .iter()
            .flat_map(|d| {
                let held = Some(d.held_until()).filter(|until| *until > now);
                [Some(due(d, self.last_sent, self.current)), held]
            })
            .flatten()
            .filter(|due| *due <= idle_from)
            .min()
            .unwrap_or(Instant::NEVER)
            .min(self.doubt_deadline())
    }

    /// The last change of path not yet told.
    pub const fn poll_change(&mut self) -> Option<Change> {
        self.change.take()
    }

    /// Whether the current path became a proven one since the last time this was asked.
    pub const fn poll_proven(&mut self) -> bool {
        core::mem::replace(&mut self.became_proven, false)
    }

    /// The relay that was left because nothing came by it, if one was since the last time this was asked.
    pub const fn poll_silent_relay(&mut self) -> Option<NodeId> {
        self.silent_relay.take()
    }

    /// Whether something is to be polled: a change, news, or that the path became a proven one.
    pub fn has_news(&self) -> bool {
        self.change.is_some() || self.became_proven || self.is_elsewhere()
    }

    fn choose(&mut self, now: Instant) {
        self.leave_if_silent(now);
        let (to, why) = self.best(now);
        self.why = why;
        let proven = match to {
            Some(Endpoint::Direct(address)) => self.is_proven_at(address),
            Some(Endpoint::Relayed { .. }) => true,
            None => false,
        };
        self.became_proven |= proven && !self.proven;
        self.proven = proven;
        if to != self.current {
            // A change and back that nobody was told of is none.
            let from = match &self.change {
                Some(untold) => untold.from,
                None => self.current,
            };
            self.change = (from != to).then_some(Change { from, to, why });
            self.current = to;
            self.ask_at = Instant::NEVER;
        }
    }

    fn best(&self, now: Instant) -> (Option<Endpoint>, Why) {
        // A path that answers in four fifths of the time of the present one is worth a change.
        let cost = |d: &Direct| match d.rtt.unwrap_or(Duration::MAX) {
            rtt if self.current == Some(Endpoint::Direct(d.address)) => rtt - rtt / 5,
            rtt => rtt,
        };
        if let Some(direct) = self.directs.iter().filter(|d| d.alive).min_by_key(|d| {
            let is_held = self.current == Some(Endpoint::Direct(d.address)) && d.held_until() > now;
            (d.doubted && !is_held, cost(d))
        }) {
            let why = Why::DirectAnswered(direct.kind);
            return (Some(Endpoint::Direct(direct.address)), why);
        }
        if let Some(way) = self.relays.first() {
            let why = if is_foreign(way.relay) {
                foreign_why(way.relay)
            } else if self.directs.is_empty() {
                Why::RelayNoCandidates
            } else if self.lost_once {
                Why::RelayDirectLost
            } else if self
                .directs
                .iter()
                .all(|d| d.unanswered >= self.pace.probes_in_a_row)
            {
                Why::RelayNoAnswer
            } else {
                Why::RelayTrying
            };
            let endpoint = Endpoint::Relayed {
                relay: way.relay,
                node: self.node,
            };
            return (Some(endpoint), why);
        }
        // Nothing alive and no relay: whatever might answer.
        match self.directs.iter().min_by_key(|d| d.rank(now)) {
            Some(direct) => {
                let why = if direct.is_proven() {
                    Why::DirectHeard
                } else {
                    Why::Untested
                };
                (Some(Endpoint::Direct(direct.address)), why)
            }
            None => (None, Why::NoWay),
        }
    }
}

#[cfg(test)]
mod tests;
