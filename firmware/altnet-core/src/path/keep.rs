//! How long a NAT can be left in silence, learnt by leaving it in silence (ADR 0015).
//!
//! In: answers of a relay, time. Out: when to say what to it, and that it is silent. A relay is asked
//! to answer only after as long a silence as is hoped for: what comes then came through a mapping
//! that nothing else kept. That alone says so, since many NATs give a new mapping the port of the
//! one before (RFC 4787 section 4.2.1), so that nobody sees from outside that it is another.
//!
//! Deliberately absent: what the datagrams look like, which relay, what else is sent.

use altnet_wire::time::{Duration, Instant};

/// What every NAT is taken to bear at first.
const FIRST_S: u16 = 25;
/// The least; one that bears less isn't helped.
pub const LEAST_S: u16 = 15;
/// The most: RFC 4787 REQ-5 forbids a NAT less than 120 s and recommends 300 s.
pub const MOST_S: u16 = 240;
/// Once a NAT didn't bear a silence it is left in one as long no sooner than this, and each time twice
/// as late: meanwhile nobody gets in.
const AGAIN: Duration = Duration::from_secs(24 * 3600);
const AGAIN_MOST: Duration = Duration::from_secs(8 * 24 * 3600);
/// A spare relay is asked together with the home after this long, and by itself after the other.
const SPARE: Duration = Duration::from_secs(120);
const SPARE_MOST: Duration = Duration::from_secs(270);
/// An answer that is as late as this isn't waited for any more.
const LATE: Duration = Duration::from_secs(2);
/// By how much two clocks may disagree on the longest silence.
const SKEW: Duration = Duration::from_secs(1);
/// How often a relay is asked that doesn't answer, and how long after each.
const TRIES: u8 = 5;
const PAUSE: Duration = Duration::from_secs(1);
/// A relay that doesn't know us from here is asked again once we have registered anew.
const ANEW: Duration = Duration::from_secs(3);

/// What is known of the NATs at an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    survived_s: u16,
    /// A silence that wasn't survived, and when one as long is tried again.
    too_long: Option<(u16, Instant)>,
    again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            survived_s: FIRST_S,
            too_long: None,
            again: AGAIN,
        }
    }
}

impl Patience {
    /// The longest silence that is known to be survived, in seconds.
    pub const fn survived_s(&self) -> u16 {
        self.survived_s
    }

    /// The next silence to try, in seconds: a third longer than the last, while that may be survived.
    fn next_s(&self, now: Instant) -> u16 {
        let longer = (self.survived_s + self.survived_s / 3).min(MOST_S);
        match self.too_long {
            Some((too_long_s, again)) if longer >= too_long_s && now < again => self.survived_s,
            _ => longer,
        }
    }

    fn survived(&mut self, silence_s: u16) {
        self.survived_s = self.survived_s.max(silence_s.min(MOST_S));
        self.too_long = self.too_long.filter(|(s, _)| *s > self.survived_s);
    }

    fn ended(&mut self, silence_s: u16, now: Instant) {
        if silence_s > self.survived_s {
            self.too_long = Some((silence_s, now.after(self.again)));
            self.again = (self.again * 2).min(AGAIN_MOST);
        } else {
            // It may have been the datagram that was lost: then the next step up finds out.
            self.survived_s = (silence_s - silence_s / 4).max(LEAST_S);
        }
    }
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the relay to answer after so many seconds.
    Ask {
        /// Seconds of silence; 0 for at once.
        after_s: u16,
    },
    /// The relay answers nothing.
    Silent,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Nothing is kept.
    #[default]
    Off,
    /// Is the relay there?
    Asks { tries: u8, next: Instant },
    /// It is; now comes a silence.
    Begins,
    /// A spare relay answered; it is asked again together with the home.
    Rests { since: Instant },
    /// Silence, until the relay answers.
    Waits { silence_s: u16, since: Instant },
}

impl State {
    const fn after_answer(is_spare: bool, now: Instant) -> Self {
        if is_spare {
            Self::Rests { since: now }
        } else {
            Self::Begins
        }
    }
}

/// What is kept at one relay.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    state: State,
    understood: bool,
}

impl Keep {
    /// Whether anything is kept.
    pub const fn is_on(&self) -> bool {
        !matches!(self.state, State::Off)
    }

    /// Whether the relay answered once: it knows what is asked.
    pub const fn is_understood(&self) -> bool {
        self.understood
    }

    /// Asks whether the relay is there, now.
    pub const fn begin(&mut self, now: Instant) {
        self.state = State::Asks {
            tries: 0,
            next: now,
        };
    }

    /// Asks whether the relay is there, unless it is being asked.
    pub const fn doubt(&mut self, now: Instant) {
        if !matches!(self.state, State::Asks { .. }) {
            self.begin(now);
        }
    }

    /// The relay answered after such a silence. `is_spare` if nothing is to be learnt from it, and
    /// `last_sent` says when anything else last left.
    pub fn answered(
        &mut self,
        silence_s: u16,
        patience: &mut Patience,
        is_spare: bool,
        last_sent: Instant,
        now: Instant,
    ) {
        match self.state {
            State::Asks { .. } if silence_s == 0 => {
                self.understood = true;
                self.state = State::after_answer(is_spare, now);
            }
            State::Waits {
                silence_s: wanted,
                since,
            } if silence_s == wanted
                && now.after(SKEW).saturating_since(since) >= silence(wanted) =>
            {
                // What left meanwhile may have kept the mapping: then nothing was learnt.
                if !is_spare && last_sent <= since.after(SKEW) {
                    patience.survived(silence_s);
                }
                self.state = State::after_answer(is_spare, now);
            }
            _ => {}
        }
    }

    /// The home relay is asked now, and silence follows: so is a spare one that wasn't for long, so
    /// that nothing breaks that silence.
    pub fn join_in(&mut self, now: Instant) {
        if let State::Rests { since } = self.state
            && now.saturating_since(since) >= SPARE
        {
            self.begin(now);
        }
    }

    /// The relay doesn't know us from here: a registration comes first.
    pub fn unknown(&mut self, now: Instant) {
        let tries = match self.state {
            State::Off => return,
            State::Asks { tries, .. } => tries,
            State::Begins | State::Rests { .. } | State::Waits { .. } => 0,
        };
        self.state = State::Asks {
            tries,
            next: now.after(ANEW),
        };
    }

    /// What to do now, until there is nothing.
    pub fn poll(&mut self, patience: &mut Patience, is_spare: bool, now: Instant) -> Option<Step> {
        if self.deadline() > now {
            return None;
        }
        if let State::Waits { silence_s, .. } = self.state {
            if !is_spare {
                patience.ended(silence_s, now);
            }
            self.begin(now);
        }
        if let State::Rests { .. } = self.state {
            self.begin(now);
        }
        match &mut self.state {
            State::Asks { tries, next } if *tries < TRIES => {
                *tries += 1;
                *next = now.after(PAUSE);
                Some(Step::Ask { after_s: 0 })
            }
            State::Asks { .. } => {
                self.state = State::Off;
                Some(Step::Silent)
            }
            State::Begins => {
                let (silence_s, since) = (patience.next_s(now), now);
                self.state = State::Waits { silence_s, since };
                Some(Step::Ask { after_s: silence_s })
            }
            State::Off | State::Rests { .. } | State::Waits { .. } => None,
        }
    }

    /// When [`Keep::poll`] next has something to say.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Off => Instant::NEVER,
            State::Asks { next, .. } => next,
            State::Begins => Instant::ZERO,
            State::Rests { since } => since.after(SPARE_MOST),
            State::Waits { silence_s, since } => since.after(silence(silence_s)).after(LATE),
        }
    }
}

const fn silence(silence_s: u16) -> Duration {
    Duration::from_secs(silence_s as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps alive through a NAT that bears `lasts_s`, for `hours`; answers get lost one in `loses`.
    /// Returns what is known at the end, how many datagrams went either way, and for how many seconds
    /// nobody got in.
    fn keeps(lasts_s: u16, hours: u64, loses: u64) -> (Patience, u64, u64) {
        let mut patience = Patience::default();
        let mut keep = Keep::default();
        let (mut now, mut datagrams, mut shut) = (Instant::ZERO, 0, 0);
        keep.begin(now);
        while now < Instant::ZERO.after(Duration::from_secs(hours * 3600)) {
            let Some(Step::Ask { after_s }) = keep.poll(&mut patience, false, now) else {
                now = keep.deadline();
                assert!(keep.is_on());
                continue;
            };
            datagrams += 2;
            let is_lost = loses > 0 && datagrams / 2 % loses == 0;
            if after_s <= lasts_s && !is_lost {
                now = now.after(silence(after_s)).after(Duration::from_millis(20));
                keep.answered(after_s, &mut patience, false, Instant::ZERO, now);
            } else {
                shut += u64::from(after_s.saturating_sub(lasts_s));
            }
        }
        (patience, datagrams, shut)
    }

    #[test]
    fn a_nats_patience_is_learnt_and_not_overtaxed() {
        for (lasts_s, least_s, most_s) in
            [(15, 15, 15), (30, 25, 30), (60, 44, 60), (120, 100, 120)]
        {
            let (patience, datagrams, shut) = keeps(lasts_s, 24, 0);
            let survived_s = patience.survived_s();
            assert!(
                (least_s..=most_s).contains(&survived_s),
                "{lasts_s}: {patience:?}"
            );
            assert!(
                datagrams < 2 * 86_400 / u64::from(least_s) + 50,
                "{lasts_s}: {datagrams}"
            );
            // A day's trials take less than three minutes.
            assert!(shut < 180, "{lasts_s}: {shut} s");
        }
        assert_eq!(keeps(600, 24, 0).0.survived_s(), MOST_S);
    }

    #[test]
    fn lost_datagrams_shorten_for_a_while_only() {
        let (patience, datagrams, _) = keeps(600, 24, 37);
        assert!(patience.survived_s() >= 100, "{patience:?}");
        assert!(datagrams < 2 * 86_400 / 100, "{datagrams}");
    }

    #[test]
    fn a_silence_that_was_broken_teaches_nothing() {
        let mut patience = Patience::default();
        let mut keep = Keep::default();
        let mut now = Instant::ZERO;
        keep.begin(now);
        for _ in 0..100 {
            let Some(Step::Ask { after_s }) = keep.poll(&mut patience, false, now) else {
                panic!("nothing is asked");
            };
            now = now.after(silence(after_s)).after(Duration::from_millis(20));
            keep.answered(after_s, &mut patience, false, now, now);
        }
        assert_eq!(patience, Patience::default());
    }

    #[test]
    fn a_spare_relay_is_asked_with_the_home_and_by_itself_only_without_one() {
        let mut patience = Patience::default();
        let mut keep = Keep::default();
        let at = |s| Instant::from_micros(s * 1_000_000_u64);
        keep.begin(at(0));
        let asks = Some(Step::Ask { after_s: 0 });
        assert_eq!(keep.poll(&mut patience, true, at(0)), asks);
        keep.answered(0, &mut patience, true, at(0), at(0));
        keep.join_in(at(119));
        assert_eq!(keep.poll(&mut patience, true, at(119)), None);
        keep.join_in(at(120));
        assert_eq!(keep.poll(&mut patience, true, at(120)), asks);
        keep.answered(0, &mut patience, true, at(0), at(120));
        assert_eq!(keep.deadline(), at(390));
        assert_eq!(keep.poll(&mut patience, true, at(390)), asks);
        assert_eq!(patience, Patience::default());
    }

    #[test]
    fn a_relay_that_answers_nothing_is_silent_after_five_seconds() {
        let mut patience = Patience::default();
        let mut keep = Keep::default();
        let mut now = Instant::ZERO;
        keep.begin(now);
        let mut asked = 0;
        while keep.poll(&mut patience, false, now) == Some(Step::Ask { after_s: 0 }) {
            asked += 1;
            now = keep.deadline();
        }
        assert_eq!(asked, TRIES);
        assert_eq!(now, Instant::ZERO.after(PAUSE * u32::from(TRIES)));
        assert!(!keep.is_on() && !keep.is_understood());
    }

    #[test]
    fn an_answer_before_its_time_counts_for_nothing() {
        let mut patience = Patience::default();
        let mut keep = Keep::default();
        keep.begin(Instant::ZERO);
        assert!(keep.poll(&mut patience, false, Instant::ZERO).is_some());
        keep.answered(0, &mut patience, false, Instant::ZERO, Instant::ZERO);
        let Some(Step::Ask { after_s }) = keep.poll(&mut patience, false, Instant::ZERO) else {
            panic!("nothing is asked");
        };
        let early = Instant::ZERO.after(silence(after_s - 2));
        keep.answered(after_s, &mut patience, false, Instant::ZERO, early);
        assert_eq!(patience, Patience::default());
        assert!(keep.deadline() > early);
    }
}
