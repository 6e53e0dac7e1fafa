//! One link between relays: how far, and whether it still carries.
//!
//! A link that is used owes an answer, as a path does (ADR 0016): silent for a while it is challenged, and left
//! when two challenges got no answer.

use altnet_wire::id::NodeId;
use altnet_wire::mesh::{Distance, MAX_RELAYS};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::{LinkState, SILENT_COST};

/// How long after a frame was sent an answer is due, at least.
const QUIET: Duration = Duration::from_millis(500);
/// The least pause between two challenges.
const AGAIN: Duration = Duration::from_millis(200);
/// The longest.
const AGAIN_MOST: Duration = Duration::from_secs(10);
/// Challenges that come quickly one after the other.
const QUICK: u8 = 5;
/// Unanswered challenges after which a link is silent.
const SILENT: u8 = 2;
/// How often a link is challenged on which nothing happens.
const IDLE: Duration = Duration::from_secs(60);
/// What a lost challenge in a thousand counts for, in microseconds: ten milliseconds for one in a hundred.
const LOSS_US: u64 = 1000;

/// What a way costs, in microseconds.
pub(super) fn cost(rtt: Duration, lost_per_mille: u16) -> u64 {
    let rtt = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
    rtt.saturating_add(u64::from(lost_per_mille) * LOSS_US)
        .min(SILENT_COST - 1)
}

/// A link to one relay.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) relay: NodeId,
    /// It said which clients it has: it knows of meshes.
    pub(super) speaks: bool,
    /// Frames may be sent there.
    is_up: bool,
    rtt: Option<Duration>,
    lost_per_mille: u16,
    /// When an answer is due; never while none is owed.
    ask_at: Instant,
    unanswered: u8,
    tried: Instant,
    pub(super) is_silent: bool,
    /// Until when nothing is sent there for others to have.
    pub(super) rests_until: Instant,
    /// How far the others are from there.
    pub(super) distances: Vec<Distance, MAX_RELAYS>,
    /// The relay by which this one is nearer, and what that costs.
    pub(super) middle: Option<(u64, NodeId)>,
    pub(super) clients: usize,
    sent: u64,
    pub(super) came: u64,
}

impl Link {
    pub(super) const fn new(relay: NodeId, now: Instant) -> Self {
        Self {
            relay,
            speaks: false,
            is_up: false,
            rtt: None,
            lost_per_mille: 0,
            ask_at: Instant::NEVER,
            unanswered: 0,
            tried: now,
            is_silent: false,
            rests_until: Instant::ZERO,
            distances: Vec::new(),
            middle: None,
            clients: 0,
            sent: 0,
            came: 0,
        }
    }

    /// Whether that changed anything.
    pub(super) fn set_up(&mut self, is_up: bool, rtt: Option<Duration>, now: Instant) -> bool {
        if self.is_up == is_up && self.rtt.is_some() == (self.rtt.or(rtt)).is_some() {
            return false;
        }
        if !self.is_up && is_up {
            self.heard(now);
            self.tried = now;
        }
        self.is_up = is_up;
        self.rtt = self.rtt.or(rtt);
        true
    }

    /// Something came along the link itself. True if it was silent.
    pub(super) fn heard(&mut self, _now: Instant) -> bool {
        self.ask_at = Instant::NEVER;
        self.unanswered = 0;
        core::mem::replace(&mut self.is_silent, false)
    }

    /// A challenge along it was answered.
    pub(super) fn answered(&mut self, rtt: Duration) {
        // Half of what was, as it is measured rarely.
        self.rtt = Some(self.rtt.map_or(rtt, |former| (former + rtt) / 2));
        self.lost_per_mille -= self.lost_per_mille / 8;
        if !self.is_silent {
            // An outage is no loss: it is over.
            for _ in 1..self.unanswered {
                self.lost_per_mille += (1000 - self.lost_per_mille) / 8;
            }
        }
    }

    /// A frame goes there.
    pub(super) fn sends(&mut self, now: Instant) {
        self.sent += 1;
        if self.ask_at == Instant::NEVER {
            let twice = self.rtt.unwrap_or_default() * 2;
            self.ask_at = now.after(QUIET.max(twice));
        }
    }

    /// When it is challenged next.
    pub(super) fn due(&self) -> Instant {
        match (self.is_up && self.speaks, self.unanswered) {
            (false, _) => Instant::NEVER,
            (true, 0) => self.ask_at.min(self.tried.after(IDLE)),
            (true, times) => self.tried.after(self.pause(times)),
        }
    }

    fn pause(&self, times: u8) -> Duration {
        let rtt = self.rtt.unwrap_or_default();
        let least = AGAIN.max(rtt + rtt / 2);
        let doublings = times.saturating_sub(QUICK).min(6);
        least
            .saturating_mul(1 << doublings)
            .min(AGAIN_MOST.max(least))
    }

    /// It is challenged. True if it has fallen silent.
    pub(super) fn asks(&mut self, now: Instant) -> bool {
        let is_silent = self.unanswered >= SILENT;
        self.unanswered = self.unanswered.saturating_add(1);
        self.tried = now;
        self.ask_at = self.ask_at.min(now);
        is_silent && !core::mem::replace(&mut self.is_silent, true)
    }

    /// What it costs to send there; none if that isn't possible.
    pub(super) fn cost(&self) -> Option<u64> {
        let rtt = self.rtt.filter(|_| self.is_up && self.speaks)?;
        Some(match self.is_silent {
            true => SILENT_COST,
            false => cost(rtt, self.lost_per_mille),
        })
    }

    /// Whether it may be sent frames for others to have.
    pub(super) fn brings_on(&self) -> bool {
        !self.is_silent && self.rests_until == Instant::ZERO && self.cost().is_some()
    }

    /// How far it is, if it is reached.
    pub(super) fn distance(&self) -> Option<Distance> {
        let rtt = self
            .rtt
            .filter(|_| self.is_up && self.speaks && !self.is_silent)?;
        Some(Distance {
            relay: self.relay,
            rtt_us: u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX),
            lost_per_mille: self.lost_per_mille,
        })
    }

    pub(super) fn state(&self) -> LinkState {
        LinkState {
            relay: self.relay,
            is_up: self.is_up && self.speaks && !self.is_silent,
            speaks: self.speaks,
            rtt: self.rtt,
            lost_per_mille: self.lost_per_mille,
            by: self.middle.map(|(_, relay)| relay),
            clients: self.clients,
            sent: self.sent,
            came: self.came,
        }
    }
}
