//! What is due from time to time. Everything here is rare: a packet never waits for it.

use altnet_tunnel::aead::Aead;
use altnet_wire::time::{Duration, Instant, UnixTime};

use super::peers::IDLE;
use super::{Node, Slot};
use crate::control::CloseReason;
use crate::lan::icmp_error::IcmpErrors;

/// The least time between two rounds, so that a busy node doesn't do little else.
const LEAST: Duration = Duration::from_millis(20);
/// The most: what has no deadline of its own is looked at this often.
const MOST: Duration = Duration::from_secs(30);
/// A round that is later by this was slept through.
const SLEPT: Duration = Duration::from_secs(10);
/// ICMPv6 errors a second, and at once.
const ICMP_RATE: (u32, u32) = (20, 40);

/// Deadlines, and what is counted by time.
#[derive(Debug)]
pub(super) struct Timers {
    next: Instant,
    last: Instant,
    pub(super) icmp: IcmpErrors,
    pub(super) floor_saved: UnixTime,
    pub(super) renew_asked: Instant,
    pub(super) head_signed: Instant,
    /// The revision at which this node's own record was refused last.
    pub(super) refused_own: u64,
}

impl Timers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            last: Instant::ZERO,
            icmp: IcmpErrors::new(ICMP_RATE.0, ICMP_RATE.1, now),
            floor_saved: UnixTime::EPOCH,
            renew_asked: Instant::ZERO,
            head_signed: Instant::ZERO,
            refused_own: 0,
        }
    }

    /// Has the next round no later than `at`.
    pub(super) fn housekeeping_at(&mut self, at: Instant) {
        self.next = self.next.min(at.max(self.last.after(LEAST)));
    }

    pub(super) fn due(&self, now: Instant) -> bool {
        self.next <= now
    }

    pub(super) const fn deadline(&self) -> Instant {
        self.next
    }
}

impl<A: Aead> Node<A> {
    /// Finds out whether this machine was suspended. Whatever was known of the network is old then;
    /// what comes before the next round, a packet say, must not take it for fresh.
    pub(super) fn wake(&mut self, now: Instant) {
        let late = now.saturating_since(self.timers.next);
        if late < SLEPT {
            return;
        }
        self.timers.next = now;
        if late >= IDLE {
            // Others have ended theirs: a call now is sooner than finding that out.
            let sessions: alloc::vec::Vec<_> = self.sessions.keys().copied().collect();
            for session in sessions {
                self.end_session(session, CloseReason::Done, now);
            }
        }
        self.look_anew(now);
    }

    /// This node may be elsewhere: every way is tried again, and relays are asked how they see it.
    pub(super) fn look_anew(&mut self, now: Instant) {
        for (node, peer) in &mut self.peers {
            // A relay that is talked to stays in use while it is asked whether it is there still.
            let stands = peer.session.is_some_and(|s| self.sessions.contains_key(&s));
            match self.relays.contains_key(node) && stands {
                true => peer.path.check(now),
                false => peer.path.doubt(now),
            }
            peer.meeting.begin_anew();
        }
        self.register_anew(now);
        // What couldn't be called before may be reached by now.
        self.retry_servers(now);
        self.keep_anew(now);
        self.filter_again(now);
        self.refresh_turn(now);
        self.presence_changed(now);
    }

    /// One round, if it is due.
    pub(super) fn housekeep(&mut self, now: Instant) {
        if !self.timers.due(now) {
            return;
        }
        self.timers.last = now;
        self.timers.next = now.after(MOST);
        self.tend_join(now);
        if self.network.is_none() {
            return;
        }
        self.relay.expire(now);
        self.tend_nearby(now);
        self.renew_registrations(now);
        self.tend_membership(now);
        self.tend_policy(now);
        self.tend_subscriptions(now);
        self.tend_announcements(now);
        self.tend_rotation(now);
        self.tend_app_tunnels(now);
        self.tend_witnesses(now);
        let peers = self.tend_peers(now).min(self.tend_gates(now));
        let peers = peers.min(self.tend_turn(now)).min(self.tend_derpers(now));
        let next = peers.min(self.tend_logins(now)).min(self.tend_mesh(now));
        let next = next.min(self.tend_load(now));
        let next = next.min(self.tend_filtering(now));
        let next = next.min(self.tend_pref64(now));
        self.timers.housekeeping_at(next);
        let relays = self.look_beside(now).min(self.tend_relays(now));
        self.timers.housekeeping_at(relays);
        let streams = self.streams_deadline(now);
        self.timers.housekeeping_at(streams);
        let registrations = self.registrations_deadline();
        self.timers.housekeeping_at(registrations);
    }

    /// Replaces the tunnel key when it is thirty days old, and lets the one before go when
    /// everybody had an hour to learn the new one.
    fn tend_rotation(&mut self, now: Instant) {
        const LIFETIME_S: u64 = 30 * 86_400;
        const GRACE_S: u64 = 3600;
        let Some(time) = self.clock.known(now) else {
            return;
        };
        if self.identity.rotated == UnixTime::EPOCH || self.identity.rotated > time {
            // Made while the time wasn't known, or the clock was wrong: its thirty days begin now.
            self.identity.rotated = time;
            self.saves.changed(Slot::Identity);
        }
        let age = time.saturating_since(self.identity.rotated).as_secs();
        if age >= LIFETIME_S {
            self.rotate(now);
        } else if age >= GRACE_S && self.identity.previous.is_some() {
            let retired = self
                .previous_key
                .is_none_or(|former| self.retire_key(former));
            if !retired {
                return;
            }
            self.identity.previous = None;
            self.saves.changed(Slot::Identity);
            self.publish_node(now);
        }
    }
}
