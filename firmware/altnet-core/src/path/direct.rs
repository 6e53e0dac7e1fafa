//! An address of a peer, what came of trying it, and when it is tried next.

use core::cmp::Reverse;
use core::net::SocketAddr;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::message::CandidateKind;
use altnet_wire::time::{Duration, Instant};

use super::{FIRST_PAUSE, HEARD, HOLD, LOST, Pace, SUSPECT, SUSPECT_PAUSE, silence};

#[derive(Clone, Copy, Debug)]
pub(super) struct Direct {
    pub(super) address: SocketAddr,
    pub(super) kind: CandidateKind,
    /// An answer came, and it was not lost since.
    pub(super) alive: bool,
    /// When a round trip was last seen; zero if never.
    pub(super) proven: Instant,
    /// Somebody else named it.
    pub(super) hint: bool,
    pub(super) rtt: Option<Duration>,
    pub(super) heard: Instant,
    /// Challenges since, and when the first and the last were sent.
    pub(super) unanswered: u8,
    pub(super) asked: Instant,
    pub(super) tried: Instant,
    pub(super) next_probe: Instant,
    /// The peer named it when it last said where it is.
    pub(super) named: bool,
    /// Our own addresses changed since it answered.
    pub(super) doubted: bool,
}

impl Direct {
    pub(super) fn new(address: SocketAddr, kind: CandidateKind, now: Instant) -> Self {
        Self {
            address,
            kind,
            alive: false,
            proven: Instant::ZERO,
            hint: false,
            rtt: None,
            heard: Instant::ZERO,
            unanswered: 0,
            asked: Instant::ZERO,
            tried: Instant::ZERO,
            next_probe: now,
            named: false,
            doubted: false,
        }
    }

    pub(super) const fn is_proven(&self) -> bool {
        self.alive || self.proven.as_micros() > 0
    }

    /// Whether the peer was heard from there of late.
    pub(super) fn is_heard(&self, now: Instant) -> bool {
        self.heard > Instant::ZERO && now.saturating_since(self.heard) < HEARD
    }

    pub(super) fn proves(&mut self, now: Instant) {
        // Time begins at zero, which means never.
        self.proven = now.max(Instant::from_micros(1));
        self.heard = self.proven;
        self.unanswered = 0;
        self.doubted = false;
    }

    /// Until when an address in use that is asked whether it still answers stays in use, though others
    /// do answer; past if it isn't asked.
    pub(super) fn held_until(&self) -> Instant {
        match (self.doubted, self.rtt) {
            (true, Some(rtt)) if self.unanswered == 1 => self.asked.after(rtt).after(HOLD),
            _ => Instant::ZERO,
        }
    }

    pub(super) const fn asks(&mut self, now: Instant) {
        if self.unanswered == 0 {
            self.asked = now;
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.tried = now;
    }

    /// The order in which addresses are tried while none is alive, the least first: those that
    /// were proven, those the peer was heard from of late, the others; of each the least tried,
    /// then the one proven last.
    pub(super) fn rank(&self, now: Instant) -> (u8, u8, Reverse<Instant>, CandidateKind) {
        let is_fresh = self.unanswered < LOST;
        let tier = match () {
            () if is_fresh && self.is_proven() => 0,
            () if is_fresh && self.is_heard(now) => 1,
            () => 2,
        };
        (tier, self.unanswered, Reverse(self.proven), self.kind)
    }
}

/// When a candidate is to be challenged next.
pub(super) fn due(direct: &Direct, last_sent: Instant, current: Option<Endpoint>) -> Instant {
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

pub(super) fn pause(direct: &Direct, pace: Pace) -> Duration {
    if direct.alive {
        SUSPECT_PAUSE.max(silence::pause(direct.rtt, 0))
    } else if direct.unanswered >= pace.probes_in_a_row {
        pace.rest
    } else {
        let doublings = u32::from(direct.unanswered.saturating_sub(1)).min(8);
        FIRST_PAUSE.saturating_mul(1 << doublings)
    }
}
