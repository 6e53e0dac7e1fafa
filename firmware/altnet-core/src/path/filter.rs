//! Whom the NAT before this node lets in (RFC 4787 section 5), found out by having a port of its own knocked at.
//!
//! In: that a relay is ready, knocks that came, which other relay knocked. Out: when to show that relay the port,
//! and at the end what that tells. The port has to be a new one: what a NAT lets in at a port depends on what was
//! sent from it before. It is shown to one relay, which then knocks from where the port was shown to, from another
//! port of its own, and has another relay knock (RFC 5780 section 4.4 asks one server with two addresses for
//! that).
//!
//! A knock that came proves something. One that didn't come may have been lost: the port is shown three times, and
//! nothing is concluded unless the knock that every NAT lets in came. That another relay's didn't come counts only
//! if that relay says that it knocked.
//!
//! Deliberately absent: ports, addresses to ask from, when to ask again.

use core::net::SocketAddr;

use altnet_wire::knock::{Key, Origin, Proof};
use altnet_wire::message::Filtering;
use altnet_wire::time::{Duration, Instant};

/// How often the port is shown.
const SHOWS: u8 = 3;
/// The pause between two times.
const PAUSE: Duration = Duration::from_millis(400);
/// How long after the last one a knock may take: there, from relay to relay, and back.
const PATIENCE: Duration = Duration::from_millis(1500);

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Show the port to the relay.
    Show(Proof),
    /// Nothing before this moment.
    Wait(Instant),
    /// It is over.
    End(Filtering),
}

/// One trial.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    key: Key,
    /// Where the port is shown to.
    relay: SocketAddr,
    shown: u8,
    next: Instant,
    same: bool,
    other_port: bool,
    other_address: bool,
    /// Whether another relay said that it knocked.
    is_asked: bool,
    /// Whether what it knocked from counts as another address.
    is_elsewhere: bool,
}

impl Trial {
    /// Begins a trial with a relay at `relay` that knows the key.
    pub const fn new(key: Key, relay: SocketAddr, now: Instant) -> Self {
        Self {
            key,
            relay,
            shown: 0,
            next: now,
            same: false,
            other_port: false,
            other_address: false,
            is_asked: false,
            is_elsewhere: true,
        }
    }

    /// Where the port is shown to.
    pub const fn relay(&self) -> SocketAddr {
        self.relay
    }

    /// A knock came to the port from `from`. Whether it is one of this trial's.
    pub fn heard(&mut self, proof: Proof, from: SocketAddr, now: Instant) -> bool {
        let is_its = |origin: &Origin| self.key.knock(*origin) == proof;
        let Some(origin) = Origin::ALL.into_iter().find(is_its) else {
            return false;
        };
        match origin {
            Origin::Same => self.same |= from == self.relay,
            // Through a NAT of the relay's own its ports may come to look alike.
            Origin::OtherPort => self.other_port |= from != self.relay,
            Origin::OtherAddress if from.ip() == self.relay.ip() => self.is_elsewhere = false,
            Origin::OtherAddress => {
                self.other_address = true;
                self.next = self.next.min(now);
            }
        }
        true
    }

    /// Another relay says that it knocked.
    pub const fn is_asked(&mut self) {
        self.is_asked = true;
    }

    /// The next thing to do; it is over after [`Step::End`].
    pub fn poll(&mut self, now: Instant) -> Step {
        if self.other_address {
            return Step::End(Filtering::EndpointIndependent);
        }
        if self.next > now {
            return Step::Wait(self.next);
        }
        if self.shown < SHOWS {
            self.shown += 1;
            let is_last = self.shown == SHOWS;
            self.next = now.after(if is_last { PATIENCE } else { PAUSE });
            return Step::Show(self.key.shown());
        }
        Step::End(match (self.same, self.other_port) {
            (false, _) => Filtering::Unknown,
            (true, false) => Filtering::AddressAndPortDependent,
            (true, true) if self.is_asked && self.is_elsewhere => Filtering::AddressDependent,
            // From another address everybody may be let in, or nobody.
            (true, true) => Filtering::Unknown,
        })
    }

    /// When [`Trial::poll`] next has something to do.
    pub const fn deadline(&self) -> Instant {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: Key = Key([7; 16]);
    const RELAY: &str = "203.0.113.10:51820";
    const OTHER_PORT: &str = "203.0.113.10:40000";
    const OTHER_ADDRESS: &str = "203.0.113.11:51820";

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    /// Runs a trial in which these knocks come, and maybe another relay's word.
    fn check(knocks: &[(Origin, &str)], is_asked: bool, expected: Filtering) {
        let mut now = Instant::from_micros(1_000_000);
        let mut trial = Trial::new(KEY, at(RELAY), now);
        let mut shown = 0;
        let found = loop {
            match trial.poll(now) {
                Step::Show(proof) => {
                    assert_eq!(proof, KEY.shown());
                    shown += 1;
                    if shown < SHOWS {
                        // What comes of the first ones is lost.
                        continue;
                    }
                    if is_asked {
                        trial.is_asked();
                    }
                    for (origin, from) in knocks {
                        assert!(trial.heard(KEY.knock(*origin), at(from), now));
                    }
                }
                Step::Wait(until) => {
                    assert!(until > now && until == trial.deadline());
                    now = until;
                }
                Step::End(found) => break found,
            }
        };
        assert_eq!(found, expected, "{knocks:?}, asked: {is_asked}");
    }

    #[test]
    fn what_comes_says_whom_the_nat_lets_in() {
        use Filtering::{AddressAndPortDependent, AddressDependent, EndpointIndependent, Unknown};
        let same = (Origin::Same, RELAY);
        let port = (Origin::OtherPort, OTHER_PORT);
        let address = (Origin::OtherAddress, OTHER_ADDRESS);
        check(&[same, port, address], true, EndpointIndependent);
        // That of the relay itself was lost: the other's says enough.
        check(&[address], false, EndpointIndependent);
        check(&[same, port], true, AddressDependent);
        check(&[same], true, AddressAndPortDependent);
        // No other relay, or one that doesn't know how.
        check(&[same], false, AddressAndPortDependent);
        check(&[same, port], false, Unknown);
        // Nothing came through at all.
        check(&[], true, Unknown);
        check(&[port], true, Unknown);
    }

    #[test]
    fn a_knock_from_where_it_does_not_belong_proves_nothing() {
        let same = (Origin::Same, RELAY);
        let port = (Origin::OtherPort, OTHER_PORT);
        // Another relay at the same address.
        check(
            &[same, port, (Origin::OtherAddress, OTHER_PORT)],
            true,
            Filtering::Unknown,
        );
        // Another port that looks like the same.
        check(
            &[same, (Origin::OtherPort, RELAY)],
            true,
            Filtering::AddressAndPortDependent,
        );
        check(&[(Origin::Same, OTHER_PORT)], true, Filtering::Unknown);
    }

    #[test]
    fn another_trials_proofs_are_not_taken() {
        let now = Instant::ZERO;
        let mut trial = Trial::new(KEY, at(RELAY), now);
        for origin in Origin::ALL {
            let proof = Key([8; 16]).knock(origin);
            assert!(!trial.heard(proof, at(OTHER_ADDRESS), now));
        }
        assert!(!trial.heard(KEY.shown(), at(OTHER_ADDRESS), now));
    }

    proptest! {
        #[test]
        fn a_trial_shows_the_port_three_times_at_most_and_ends_in_time(
            steps in proptest::collection::vec((0u64..1000, 0usize..5, any::<bool>()), 0..40),
        ) {
            let mut now = Instant::ZERO;
            let most = now.after(PAUSE * 2).after(PATIENCE);
            let mut trial = Trial::new(KEY, at(RELAY), now);
            let mut steps = steps.into_iter();
            let mut shown = 0;
            loop {
                match trial.poll(now) {
                    Step::Show(_) => shown += 1,
                    Step::End(_) => break,
                    Step::Wait(until) => {
                        prop_assert!(until > now && until <= most);
                        let (pass, what, is_asked) = steps.next().unwrap_or((1000, 4, false));
                        now = now.after(Duration::from_millis(pass)).min(until);
                        if let Some(origin) = Origin::ALL.get(what) {
                            trial.heard(KEY.knock(*origin), at(OTHER_PORT), now);
                        }
                        if is_asked {
                            trial.is_asked();
                        }
                    }
                }
            }
            prop_assert!(shown <= SHOWS);
        }
    }
}
