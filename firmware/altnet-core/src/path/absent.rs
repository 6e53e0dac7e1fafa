//! A peer that is at none of the relays: it is off, and packets for it flow all the same.
//!
//! In: relays' word that it isn't registered there. Out: the relay to ask next, and which changes of
//! path are worth a word. Once all relays said so the path stays where it is, and they are asked in
//! turn, ever more rarely.

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::time::Instant;

use super::{Change, Path};

impl Path {
    /// A relay says that the peer isn't registered there. True if another is used from now on: one
    /// that didn't say so, or did some time ago, ever longer.
    pub fn is_absent_at(&mut self, relay: NodeId, now: Instant) -> bool {
        let is_used =
            matches!(self.current, Some(Endpoint::Relayed { relay: r, .. }) if r == relay);
        if !is_used || !self.is_first(relay) || !self.relays.is_absent_at(relay, now) {
            return false;
        }
        self.choose(now);
        true
    }

    /// The last change of path that is worth a word: which of several relays is asked for a peer that
    /// is at none isn't.
    pub fn poll_news(&mut self) -> Option<Change> {
        if !self.is_elsewhere() {
            return None;
        }
        let (from, to, why) = (self.told, self.current, self.why);
        self.told = to;
        Some(Change { from, to, why })
    }

    pub(super) fn is_elsewhere(&self) -> bool {
        let is_relayed = |end| matches!(end, Some(Endpoint::Relayed { .. }));
        let is_looked_for =
            self.relays.are_without_peer() && is_relayed(self.told) && is_relayed(self.current);
        self.told != self.current && !is_looked_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::time::Duration;
    use core::net::SocketAddr;

    const PEER: NodeId = NodeId([1; 16]);
    const RELAYS: [NodeId; 2] = [NodeId([2; 16]), NodeId([3; 16])];

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn by(relay: NodeId) -> Endpoint {
        Endpoint::Relayed { relay, node: PEER }
    }

    fn relayed() -> Path {
        let mut path = Path::new(PEER, at(0));
        path.set_relays(&RELAYS, at(0));
        assert_eq!(
            path.poll_news().and_then(|change| change.to),
            path.current()
        );
        path
    }

    /// Sends every 20 ms from `from` to `to`; the relay in use says each time that nobody is there.
    /// Returns how often another was used from then on, and how many changes were worth a word.
    fn send_to_nobody(path: &mut Path, (from, to): (u64, u64)) -> (usize, usize) {
        let (mut turns, mut words) = (0, 0);
        for ms in (from..to).step_by(20) {
            path.sent(at(ms));
            let Some(Endpoint::Relayed { relay, .. }) = path.current() else {
                panic!("a relay is all there is");
            };
            turns += usize::from(path.is_absent_at(relay, at(ms)));
            words += usize::from(path.poll_news().is_some());
        }
        (turns, words)
    }

    #[test]
    fn relays_that_lack_the_peer_are_asked_ever_more_rarely_and_in_silence() {
        let mut path = relayed();
        let (turns, words) = send_to_nobody(&mut path, (20, 60_020));
        assert!((4..=12).contains(&turns), "{turns}");
        assert_eq!(words, 1, "the other relay was tried");
        let (turns, words) = send_to_nobody(&mut path, (60_020, 660_020));
        assert!((8..=24).contains(&turns), "{turns}");
        assert_eq!(words, 0);
    }

    #[test]
    fn a_peer_that_is_back_is_heard_and_leaves_no_trace() {
        let mut path = relayed();
        send_to_nobody(&mut path, (20, 600_020));
        for relay in RELAYS {
            path.heard(by(relay), at(600_100));
        }
        path.answered(by(RELAYS[1]), Duration::from_millis(20), at(600_200));
        let Some(Endpoint::Relayed { relay, .. }) = path.current() else {
            panic!("a relay is all there is");
        };
        // As quick as at first.
        assert!(path.is_absent_at(relay, at(600_300)));
        assert_ne!(path.current(), Some(by(relay)));
    }

    #[test]
    fn what_one_relay_alone_says_is_followed_at_once() {
        let mut path = relayed();
        assert!(path.is_absent_at(RELAYS[0], at(20)));
        assert_eq!(path.current(), Some(by(RELAYS[1])));
        // Whoever isn't asked has nothing to say.
        assert!(!path.is_absent_at(RELAYS[0], at(40)));
        let direct = Endpoint::Direct(SocketAddr::from(([192, 0, 2, 1], 7)));
        path.heard(direct, at(50));
        path.answered(direct, Duration::from_millis(20), at(60));
        assert!(!path.is_absent_at(RELAYS[1], at(70)));
        assert_eq!(path.current(), Some(direct));
    }
}
