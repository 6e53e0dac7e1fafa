//! How large a datagram may be on the path in use: found out by probes, after RFC 8899.
//!
//! In: what sizes are sent, answers to probes, the word of our own link. Out: sizes to probe, and
//! the largest datagram that is sent whole. A size is that of a datagram which is sealed for the
//! peer, in bytes, without a relay's header and those of UDP and IP.
//!
//! Nothing is probed while nothing larger than [`FLOOR`] is sent. As long as a peer isn't known to take
//! pieces its paths are taken to carry [`WHOLE`], else [`FLOOR`]; either is probed as soon as something large
//! is sent. A size that was answered once is
//! confirmed while large datagrams flow (RFC 8899 section 4.3, black hole detection); one that is
//! answered no more has everything cut to [`FLOOR`] bytes, and a larger size searched for.
//!
//! Deliberately absent: cutting, sealing, and who the peer is.

use altnet_wire::endpoint::Endpoint;
use altnet_wire::split::{MAX_PIECES, PIECE_HEADER_BYTES, Piece};
use altnet_wire::time::{Duration, Instant};

/// Datagrams of this size pass everywhere: 576 bytes of IPv4 (RFC 1122 section 3.3.2), less 20 for
/// IP, 8 for UDP and 28 for a relay. IPv6 has no links so small.
pub const FLOOR: u16 = 520;
/// A sealed packet of 1280 bytes: 16 before it, and a tag of 16.
pub const WHOLE: u16 = 1312;
/// What sealing adds to a packet whose length is a multiple of 16.
const SEAL_BYTES: u16 = 32;
/// The smallest MTU of IPv6 (RFC 8200 section 5).
pub const LEAST_INNER: u16 = 1280;
/// A packet of so many bytes, sealed: filled up to a multiple of 16.
pub const fn sealed_bytes(inner: u16) -> u16 {
    inner
        .div_ceil(16)
        .saturating_mul(16)
        .saturating_add(SEAL_BYTES)
}

/// The largest piece of a datagram of `bytes` that is cut to `size`, its header included.
fn piece_bytes(bytes: u16, size: u16) -> u16 {
    let count = Piece::count_for(bytes.into(), size.into()).unwrap_or(MAX_PIECES);
    let header = u16::try_from(PIECE_HEADER_BYTES).unwrap_or_default();
    let part = bytes.div_ceil(count.max(1).into());
    part.saturating_add(header).min(size)
}

/// Sizes that links have, with IP's header: behind tunnels, PPP and carriers' networks.
const LINKS: [u16; 11] = [
    768, 1000, 1280, 1360, 1400, 1420, 1440, 1460, 1480, 1492, 1500,
];

/// How long after an answer the same size is confirmed, while large datagrams flow.
const CONFIRM: Duration = Duration::from_millis(600);
/// So many datagrams are a flow.
const FLOW: u8 = 4;
/// Fewer of them have their size confirmed this long after the first.
const TRICKLE: Duration = Duration::from_secs(1);
/// A flow is over when nothing large was sent for so long: nothing is searched for then.
const FLOW_ENDS: Duration = Duration::from_secs(2);
/// Probes of one size without an answer after which it doesn't pass (RFC 8899's MAX_PROBES).
const TRIES: u8 = 3;
/// The pause between two of them, or one and a quarter round trips.
const PAUSE: Duration = Duration::from_millis(200);
/// The pause before somebody is asked again who doesn't answer even small ones.
const SILENT_PAUSE: Duration = Duration::from_secs(2);
/// How long until a size is tried again that didn't pass, at first and at most (RFC 8899's
/// PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(15);
const RAISE_MOST: Duration = Duration::from_secs(600);

/// Whether the peer takes datagrams in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    /// It hasn't said so.
    Unknown,
    /// It does.
    TakesPieces,
    /// It answered, and didn't say so: an older version.
    Older,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    size: u16,
    tries: u8,
    sent: Instant,
}

/// The size of one peer's path.
#[derive(Clone, Debug)]
pub struct PathMtu {
    peer: Peer,
    /// Which path the rest is about.
    endpoint: Option<Endpoint>,
    /// What is added to a datagram on it, as far as is known: IP, UDP, a relay's header.
    overhead: u16,
    /// Datagrams up to this size go whole.
    size: u16,
    /// The largest size that was answered; zero if none was.
    shown: u16,
    /// The least size that didn't pass, and when that was found out.
    fails: Option<(u16, Instant)>,
    /// How long until such a size is tried again.
    raise: Duration,
    /// The largest datagram that went whole since a probe of such a size did, how many there were,
    /// and when the first of them went.
    owed: u16,
    owed_count: u8,
    owed_since: Instant,
    /// When the last answer came.
    confirmed: Instant,
    /// The largest datagram that there would be.
    wanted: u16,
    /// When something large was sent last, or wanted to.
    large: Instant,
    probe: Option<Probe>,
    /// Whether the peer is to be asked by a small datagram too.
    asks: bool,
    /// Nothing is tried before: nobody answers.
    rests_until: Instant,
}

impl PathMtu {
    /// One that nothing is known of.
    pub const fn new() -> Self {
        Self {
            peer: Peer::Unknown,
            endpoint: None,
            overhead: 0,
            size: WHOLE,
            shown: 0,
            fails: None,
            raise: RAISE,
            owed: 0,
            owed_count: 0,
            owed_since: Instant::ZERO,
            confirmed: Instant::ZERO,
            wanted: 0,
            large: Instant::ZERO,
            probe: None,
            asks: false,
            rests_until: Instant::ZERO,
        }
    }

    /// The largest datagram that is sent whole along `endpoint`. No limit if the peer isn't known to
    /// take pieces.
    pub fn most(&self, endpoint: Endpoint) -> Option<u16> {
        let is_known = self.endpoint == Some(endpoint) && self.peer == Peer::TakesPieces;
        is_known.then_some(self.size)
    }

    /// The largest packet that may be sealed for the peer, in bytes: [`LEAST_INNER`] or more.
    pub fn inner(&self) -> u16 {
        let Some(found) = self.found() else {
            return LEAST_INNER;
        };
        // Sealing fills up to a multiple of 16.
        let room = found.saturating_sub(SEAL_BYTES);
        (room / 16).saturating_mul(16).max(LEAST_INNER)
    }

    /// The size that was found, if one was.
    pub const fn found(&self) -> Option<u16> {
        match (self.shown, self.peer) {
            (1.., Peer::TakesPieces) => Some(self.shown),
            _ => None,
        }
    }

    /// Whether a full packet goes in pieces.
    pub fn is_cut(&self) -> bool {
        self.peer == Peer::TakesPieces && self.size < WHOLE
    }

    /// Whether the peer is of a version that says nothing of pieces.
    pub fn is_older(&self) -> bool {
        self.peer == Peer::Older
    }

    /// A session begins: the peer may be of another version than before.
    pub fn begins_anew(&mut self) {
        if self.peer == Peer::Older {
            self.peer = Peer::Unknown;
        }
        self.rests_until = Instant::ZERO;
    }

    /// A datagram of `bytes` is sent along `endpoint`, in pieces if it has to be. `overhead` is what
    /// is added on the way there.
    pub fn sent(&mut self, endpoint: Endpoint, overhead: u16, bytes: u16, now: Instant) {
        if bytes <= FLOOR {
            return;
        }
        self.wants(endpoint, overhead, bytes, now);
        let bytes = match self.peer {
            Peer::TakesPieces if bytes > self.size => piece_bytes(bytes, self.size),
            _ => bytes,
        };
        if bytes <= FLOOR {
            return;
        }
        if self.owed == 0 {
            self.owed_since = now;
            self.owed_count = 0;
        }
        self.owed = self.owed.max(bytes);
        self.owed_count = self.owed_count.saturating_add(1);
    }

    /// A datagram of `bytes` would be sent along `endpoint` if it passed.
    pub fn wants(&mut self, endpoint: Endpoint, overhead: u16, bytes: u16, now: Instant) {
        self.follow(endpoint, overhead);
        if now.saturating_since(self.large) > RAISE {
            self.wanted = 0;
        }
        self.wanted = self.wanted.max(bytes);
        self.large = now;
    }

    /// Begins anew on another path. Who takes pieces gets pieces until a probe was answered there, a
    /// round trip later: what was lost on the path before may have been too large for this one too.
    fn follow(&mut self, endpoint: Endpoint, overhead: u16) {
        self.overhead = overhead;
        if self.endpoint == Some(endpoint) {
            return;
        }
        self.endpoint = Some(endpoint);
        self.size = match self.peer {
            Peer::TakesPieces => FLOOR,
            Peer::Unknown | Peer::Older => WHOLE,
        };
        self.shown = 0;
        self.fails = None;
        self.raise = RAISE;
        self.owed = 0;
        self.probe = None;
        self.rests_until = Instant::ZERO;
    }

    /// The size of the next datagram to probe `endpoint` with, if one is due: with 0 as small as it
    /// can be. To be asked until there is none.
    pub fn poll_probe(
        &mut self,
        endpoint: Endpoint,
        rtt: Option<Duration>,
        now: Instant,
    ) -> Option<u16> {
        if self.endpoint != Some(endpoint) {
            return None;
        }
        if core::mem::take(&mut self.asks) {
            return Some(0);
        }
        // What is given up may have something else tried at once; that is tried once.
        for _ in 0..2 {
            let (at, size) = self.next(rtt, now);
            if at > now {
                return None;
            }
            let tries = self.probe.map_or(0, |probe| probe.tries);
            if tries >= TRIES {
                self.lost(size, now);
                continue;
            }
            if tries == 0 && size >= self.owed {
                self.owed = 0;
            }
            let tries = tries.saturating_add(1);
            self.probe = Some(Probe {
                size,
                tries,
                sent: now,
            });
            self.asks = self.peer == Peer::Unknown;
            return Some(size);
        }
        None
    }

    /// When [`PathMtu::poll_probe`] next has something to say about `endpoint`.
    pub fn deadline(&self, endpoint: Endpoint, rtt: Option<Duration>, now: Instant) -> Instant {
        if self.endpoint != Some(endpoint) {
            return Instant::NEVER;
        }
        if self.asks {
            return now;
        }
        self.next(rtt, now).0
    }

    /// What is to be probed next, and when; never if that is a moment that doesn't come.
    fn next(&self, rtt: Option<Duration>, now: Instant) -> (Instant, u16) {
        if let Some(probe) = self.probe {
            let rtt = rtt.unwrap_or_default();
            return (probe.sent.after(PAUSE.max(rtt + rtt / 4)), probe.size);
        }
        let (confirm, search) = (self.confirm(), self.search(now));
        let next = if confirm.0 <= search.0 {
            confirm
        } else {
            search
        };
        (next.0.max(self.rests_until), next.1)
    }

    /// When which size that is sent whole is confirmed.
    fn confirm(&self) -> (Instant, u16) {
        let size = self.owed.min(self.size);
        let at = match self.peer {
            Peer::Older => Instant::NEVER,
            _ if self.owed == 0 => Instant::NEVER,
            Peer::TakesPieces if self.owed <= self.shown => {
                let few = self.owed_count < FLOW;
                let soonest = if few { TRICKLE } else { Duration::ZERO };
                let soonest = self.owed_since.after(soonest);
                self.confirmed.after(CONFIRM).max(soonest)
            }
            _ => Instant::ZERO,
        };
        (at, size)
    }

    /// When which larger size is looked for.
    fn search(&self, now: Instant) -> (Instant, u16) {
        const NEVER: (Instant, u16) = (Instant::NEVER, 0);
        let ends = self.large.after(FLOW_ENDS);
        let Some(wanted) = self.candidate(None).filter(|_| now < ends) else {
            return NEVER;
        };
        if self.peer == Peer::Older {
            return NEVER;
        }
        let Some((fails, since)) = self.fails else {
            return (Instant::ZERO, wanted);
        };
        let raise = since.after(self.raise);
        match self.candidate(Some(fails)) {
            _ if raise <= now => (Instant::ZERO, wanted),
            Some(between) => (Instant::ZERO, between),
            None if raise < ends => (raise, wanted),
            None => NEVER,
        }
    }

    /// A larger size that would be used, and is smaller than one that doesn't pass: the one that
    /// suffices if that may pass, else one in the middle of those that links have.
    fn candidate(&self, fails: Option<u16>) -> Option<u16> {
        let most = LINKS.last().copied().unwrap_or_default();
        let most = most.saturating_sub(self.overhead);
        let wanted = self.wanted.min(most);
        if self.size >= wanted {
            return None;
        }
        let Some(fails) = fails else {
            return Some(wanted);
        };
        let between = |size: &u16| *size > self.size && *size < fails.min(wanted.saturating_add(1));
        let sizes = || {
            let links = LINKS.iter().map(|link| link.saturating_sub(self.overhead));
            links.filter(between)
        };
        sizes().nth(sizes().count() / 2)
    }

    /// A probe of `bytes` along `endpoint` was answered.
    pub fn answered(&mut self, endpoint: Endpoint, bytes: u16, takes_pieces: bool, now: Instant) {
        self.peer = if takes_pieces {
            Peer::TakesPieces
        } else {
            Peer::Older
        };
        if self.peer == Peer::Older {
            self.probe = None;
            self.size = WHOLE;
            self.shown = 0;
            return;
        }
        self.rests_until = Instant::ZERO;
        if self.endpoint != Some(endpoint) || bytes <= FLOOR {
            return;
        }
        if self.probe.is_some_and(|probe| probe.size <= bytes) {
            self.probe = None;
        }
        self.confirmed = now;
        self.size = self.size.max(bytes);
        self.shown = self.shown.max(bytes);
        if self.fails.is_some_and(|(fails, _)| fails <= bytes) {
            self.fails = None;
            self.raise = RAISE;
        }
    }

    /// So many bytes weren't answered.
    fn lost(&mut self, bytes: u16, now: Instant) {
        self.probe = None;
        if self.peer != Peer::TakesPieces {
            // Nobody there, or nothing that could be done about it.
            self.rests_until = now.after(SILENT_PAUSE);
            return;
        }
        self.fell(bytes, now);
    }

    /// A datagram of `bytes` was too large for our own link to `endpoint`.
    pub fn too_large(&mut self, endpoint: Endpoint, bytes: u16, now: Instant) {
        if self.endpoint == Some(endpoint) && bytes > FLOOR {
            self.fell(bytes, now);
        }
    }

    fn fell(&mut self, bytes: u16, now: Instant) {
        if self
            .fails
            .is_some_and(|(_, since)| now >= since.after(self.raise))
        {
            // The same again, ever more rarely.
            self.raise = (self.raise * 4).min(RAISE_MOST);
        }
        let least = self.fails.map_or(bytes, |(fails, _)| fails.min(bytes));
        self.fails = Some((least, now));
        self.probe = self.probe.filter(|probe| probe.size < least);
        if self.size >= least {
            self.size = FLOOR;
            self.shown = FLOOR;
            self.owed = 0;
        }
    }
}

impl Default for PathMtu {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
