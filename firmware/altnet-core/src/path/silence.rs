//! Whether the path in use still carries: asked once something was sent along it and nothing came
//! back, and left for another that answers.
//!
//! Nothing here is sent while nothing else is: silence is counted from a packet of ours that
//! nothing came after. A silent path is challenged; if it doesn't answer in good time, so are
//! all others that are known to have led to the peer, relays included. Whichever answers first is
//! used, so that a dead relay or address costs little more than the time in which an answer was due.

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};

use super::{Direct, FIRST_PAUSE, Path, is_foreign};

/// What was sent and not answered for this long has the path asked, or for two round trips.
const QUIET: Duration = Duration::from_millis(500);
/// The pause between two challenges to a path in doubt, or one and a half round trips.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// The longest pause, after some without an answer.
const ASK_AGAIN_MOST: Duration = Duration::from_secs(4);
/// Challenges in a row before the pauses grow.
const QUICK: u8 = 6;
/// A peer that is heard along another path only, for this long, has left the one in use.
const ELSEWHERE: Duration = Duration::from_millis(200);

/// How long after something was sent an answer is due.
pub(super) fn quiet(rtt: Option<Duration>) -> Duration {
    QUIET.max(rtt.unwrap_or_default() * 2)
}

/// How long after a challenge the next is sent.
pub(super) fn pause(rtt: Option<Duration>, unanswered: u8) -> Duration {
    let rtt = rtt.unwrap_or_default();
    let least = ASK_AGAIN.max(rtt + rtt / 2);
    let doublings = unanswered.saturating_sub(QUICK).min(5);
    least
        .saturating_mul(1 << doublings)
        .min(ASK_AGAIN_MOST.max(least))
}

/// What is known of the path in use.
#[derive(Clone, Copy)]
struct Used {
    heard: Instant,
    rtt: Option<Duration>,
    unanswered: u8,
    asked: Instant,
    tried: Instant,
}

impl Path {
    fn used(&self) -> Option<Used> {
        match self.current? {
            Endpoint::Direct(address) => {
                let mut directs = self.directs.iter();
                let direct = directs.find(|d| d.address == address && d.alive)?;
                Some(Used {
                    heard: direct.heard,
                    rtt: direct.rtt,
                    unanswered: direct.unanswered,
                    asked: direct.asked,
                    tried: direct.tried,
                })
            }
            Endpoint::Relayed { relay, .. } => {
                let way = self.relays.iter().find(|way| way.relay == relay)?;
                Some(Used {
                    heard: way.heard,
                    rtt: way.rtt,
                    unanswered: way.unanswered,
                    asked: way.asked,
                    tried: way.tried,
                })
            }
        }
    }

    /// Something was sent along the path in use: an answer is due.
    pub(super) fn expect_answer(&mut self, now: Instant) {
        if self.ask_at == Instant::NEVER
            && let Some(used) = self.used()
        {
            self.ask_at = now.after(quiet(used.rtt));
        }
    }

    /// The peer was heard along `endpoint`: along the one in use that ends the wait, along another
    /// it may shorten it, as the peer knows of a change first.
    pub(super) fn heard_along(&mut self, endpoint: Endpoint, now: Instant) {
        if matches!(endpoint, Endpoint::Relayed { node, .. } if node != self.node) {
            return;
        }
        if self.current == Some(endpoint) {
            self.ask_at = Instant::NEVER;
            return;
        }
        let Some(used) = self.used() else {
            return;
        };
        let is_elsewhere = now.saturating_since(used.heard) >= ELSEWHERE;
        if is_elsewhere && self.ask_at != Instant::NEVER {
            self.ask_at = self.ask_at.min(now);
        }
        if let (Endpoint::Relayed { relay, .. }, Some(Endpoint::Relayed { relay: current, .. })) =
            (endpoint, self.current)
            && is_elsewhere
            && self.relays.is_before(relay, current)
        {
            // Both work, or only that one does: both sides use the one that comes first.
            self.relays.prefer(relay);
        }
    }

    /// Since when the path in use owes an answer to a challenge, if other paths are to be asked
    /// because of that.
    fn doubted_since(&self, now: Instant) -> Option<Instant> {
        let used = self.used()?;
        let others_at = used.asked.after(pause(used.rtt, 0));
        (self.ask_at != Instant::NEVER && used.unanswered > 0 && others_at <= now)
            .then_some(used.asked)
    }

    /// When [`Path::ask_in_doubt`] next has something to say.
    pub(super) fn doubt_deadline(&self) -> Instant {
        let Some(used) = self.used().filter(|_| self.ask_at != Instant::NEVER) else {
            return Instant::NEVER;
        };
        if used.unanswered == 0 {
            return self.ask_at;
        }
        let again = used.tried.after(pause(used.rtt, used.unanswered));
        let others_at = used.asked.after(pause(used.rtt, 0));
        let spares = self.relays.iter().filter(|way| self.is_spare(way.relay));
        let spares = spares.map(|way| spare_due(way.tried, way.unanswered, way.rtt, used.asked));
        let others = spares.min().unwrap_or(Instant::NEVER).max(others_at);
        again.min(others)
    }

    fn is_spare(&self, relay: NodeId) -> bool {
        !matches!(self.current, Some(Endpoint::Relayed { relay: used, .. }) if used == relay)
    }

    /// The next way to challenge because the one in use is silent.
    pub(super) fn ask_in_doubt(&mut self, now: Instant) -> Option<Endpoint> {
        let used = self.used().filter(|_| self.ask_at != Instant::NEVER)?;
        let is_due = match used.unanswered {
            0 => self.ask_at <= now,
            n => used.tried.after(pause(used.rtt, n)) <= now,
        };
        let current = self.current?;
        match current {
            // Direct ones have a pace of their own, and an end.
            Endpoint::Direct(address) if is_due && used.unanswered == 0 => {
                let direct = self.directs.iter_mut().find(|d| d.address == address)?;
                direct.asks(now);
                direct.next_probe = now.after(pause(direct.rtt, direct.unanswered));
                return Some(current);
            }
            Endpoint::Relayed { relay, .. } if is_due => {
                self.relays.at_mut(relay)?.asks(now);
                return Some(current);
            }
            _ => {}
        }
        let since = self.doubted_since(now)?;
        // Another address that was good may be so still.
        let is_other =
            |d: &&mut Direct| d.alive && d.tried < since && current != Endpoint::Direct(d.address);
        if let Some(direct) = self.directs.iter_mut().find(is_other) {
            direct.asks(now);
            direct.next_probe = now.after(pause(direct.rtt, direct.unanswered));
            return Some(Endpoint::Direct(direct.address));
        }
        let node = self.node;
        let used = match current {
            Endpoint::Relayed { relay, .. } => Some(relay),
            Endpoint::Direct(_) => None,
        };
        let mut spares = self.relays.iter_mut().filter(|way| Some(way.relay) != used);
        let way = spares.find(|way| spare_due(way.tried, way.unanswered, way.rtt, since) <= now)?;
        if way.tried < since {
            way.unanswered = 0;
        }
        way.asks(now);
        let relay = way.relay;
        Some(Endpoint::Relayed { relay, node })
    }

    /// Leaves the path in use for one that was heard from since it fell silent.
    pub(super) fn leave_if_silent(&mut self, now: Instant) {
        let Some(since) = self.doubted_since(now) else {
            return;
        };
        let current = self.current;
        let mut directs = self.directs.iter();
        let has_direct = directs
            .any(|d| d.alive && d.heard > since && current != Some(Endpoint::Direct(d.address)));
        let used = match current {
            Some(Endpoint::Relayed { relay, .. }) => Some(relay),
            _ => None,
        };
        let spares = self.relays.iter().filter(|way| Some(way.relay) != used);
        let spare = spares
            .filter(|way| way.heard > since)
            .max_by_key(|way| way.heard);
        let spare = spare.map(|way| way.relay);
        if spare.is_none() && !has_direct {
            return;
        }
        if let Some(relay) = spare {
            self.relays.prefer(relay);
        }
        self.silent_relay = used.filter(|relay| !is_foreign(*relay));
        if let Some(Endpoint::Direct(address)) = current
            && let Some(direct) = self.directs.iter_mut().find(|d| d.address == address)
        {
            direct.alive = false;
            direct.unanswered = 0;
            direct.next_probe = now.after(FIRST_PAUSE);
            self.lost_once = true;
        }
        if has_direct {
            return;
        }
        // The peer is there and along the relay; an address that answered before that may be as dead as
        // the one that was left, and is used again once it answers.
        for direct in self
            .directs
            .iter_mut()
            .filter(|d| d.alive && d.heard <= since)
        {
            direct.alive = false;
            direct.next_probe = direct.next_probe.min(now.after(FIRST_PAUSE));
        }
    }
}

/// When a spare relay is asked next, given since when the path in use is silent.
fn spare_due(tried: Instant, unanswered: u8, rtt: Option<Duration>, since: Instant) -> Instant {
    if tried < since {
        return since;
    }
    tried.after(pause(rtt, unanswered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const PEER: NodeId = NodeId([1; 16]);
    const FIRST: NodeId = NodeId([2; 16]);
    const SECOND: NodeId = NodeId([3; 16]);

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn by(relay: NodeId) -> Endpoint {
        Endpoint::Relayed { relay, node: PEER }
    }

    /// A path with two relays, by the first of which the peer was heard a moment ago.
    fn relayed() -> Path {
        let mut path = Path::new(PEER, at(0));
        path.set_relays(&[FIRST, SECOND], at(0));
        path.sent(at(0));
        path.heard(by(FIRST), at(10));
        path
    }

    /// Runs the path from `from` to `to`, sending every 20 ms or nothing at all; who works answers
    /// after 20 ms. Returns who was challenged when.
    fn run(
        path: &mut Path,
        (from, to): (u64, u64),
        sends: bool,
        works: &[NodeId],
    ) -> Vec<(u64, NodeId)> {
        let mut asked = Vec::new();
        let mut answers: Vec<(u64, Endpoint)> = Vec::new();
        for ms in (from..to).step_by(20) {
            if sends {
                path.sent(at(ms));
            }
            for (_, endpoint) in answers.extract_if(.., |(due, _)| *due <= ms) {
                path.answered(endpoint, Duration::from_millis(20), at(ms));
            }
            assert!(path.deadline(at(ms)) >= at(ms) || !path.directs.is_empty());
            while let Some(endpoint) = path.poll_probe(&mut |_| true, at(ms)) {
                let Endpoint::Relayed { relay, .. } = endpoint else {
                    continue;
                };
                asked.push((ms, relay));
                if works.contains(&relay) {
                    answers.push((ms + 20, endpoint));
                }
            }
        }
        asked
    }

    #[test]
    fn a_silent_relay_is_left_for_one_that_answers_within_a_second() {
        let mut path = relayed();
        run(&mut path, (20, 1020), true, &[SECOND]);
        assert_eq!(path.current(), Some(by(SECOND)));
    }

    #[test]
    fn a_relay_that_answers_is_stayed_with_and_asked_twice_a_second() {
        let mut path = relayed();
        let asked = run(&mut path, (20, 10_020), true, &[FIRST, SECOND]);
        assert_eq!(path.current(), Some(by(FIRST)));
        assert!(asked.iter().all(|(_, relay)| *relay == FIRST), "{asked:?}");
        assert!((15..=20).contains(&asked.len()), "{}", asked.len());
    }

    #[test]
    fn nothing_is_asked_where_nothing_is_sent_or_where_the_peer_is_heard() {
        let mut path = relayed();
        assert_eq!(run(&mut path, (20, 60_000), false, &[]), []);
        assert_eq!(path.deadline(at(60_000)), Instant::NEVER);
        for ms in (60_000..70_000).step_by(20) {
            path.sent(at(ms));
            path.heard(by(FIRST), at(ms + 10));
            assert_eq!(path.poll_probe(&mut |_| true, at(ms + 10)), None);
        }
    }

    #[test]
    fn without_any_answer_all_are_asked_less_and_less() {
        let mut path = relayed();
        let asked = run(&mut path, (20, 60_020), true, &[]);
        assert_eq!(path.current(), Some(by(FIRST)), "one is as good as another");
        let late = asked.iter().filter(|(ms, _)| *ms >= 30_000).count();
        assert!((10..=20).contains(&late), "{late}");
    }

    #[test]
    fn two_that_use_different_relays_end_up_with_the_one_that_comes_first() {
        let mut path = relayed();
        path.call_failed(path.current().expect("a way"), at(20));
        assert_eq!(path.current(), Some(by(SECOND)));
        for ms in (40..1000).step_by(20) {
            path.sent(at(ms));
            path.heard(by(FIRST), at(ms));
        }
        assert_eq!(path.current(), Some(by(FIRST)));
    }

    #[test]
    fn a_peer_that_relays_alone_lead_to_is_not_looked_for_at_each_address_that_answered_once() {
        let mut path = relayed();
        for host in 1..=3 {
            let address = core::net::SocketAddr::from(([192, 0, 2, host], 7));
            path.heard(Endpoint::Direct(address), at(20));
            path.answered(Endpoint::Direct(address), Duration::from_millis(20), at(30));
        }
        assert!(matches!(path.current(), Some(Endpoint::Direct(_))));
        for ms in (1500..2000).step_by(20) {
            // The peer sends by a relay from now on.
            path.sent(at(ms));
            path.heard(by(FIRST), at(ms));
            while path.poll_probe(&mut |_| true, at(ms)).is_some() {}
        }
        assert_eq!(path.current(), Some(by(FIRST)));
    }

    #[test]
    fn a_direct_path_that_falls_silent_is_left_for_a_relay_within_a_second() {
        let address = core::net::SocketAddr::from(([192, 0, 2, 1], 7));
        let direct = Endpoint::Direct(address);
        let mut path = relayed();
        path.heard(direct, at(20));
        path.answered(direct, Duration::from_millis(20), at(30));
        assert_eq!(path.current(), Some(direct));
        run(&mut path, (40, 1040), true, &[FIRST]);
        assert_eq!(path.current(), Some(by(FIRST)));
    }
}
