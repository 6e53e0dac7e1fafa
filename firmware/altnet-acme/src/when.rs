//! When an authority is asked: a matter of dates alone.
//!
//! In: the certificate that is held, what is remembered of the authority, the time. Out: now, or when to
//! look again. Renewal is due after two thirds of a certificate's life, or within the window that the
//! authority names (RFC 9773). After failures the pauses grow; a pause that the authority names is kept
//! to by everybody. All of it is remembered, so that nothing is asked more often for being restarted.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::leaf::Leaf;

/// The pause after the first failure; each next is twice as long. Let's Encrypt lets a name fail five
/// times in an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(15 * 60);
/// The longest pause of our own, for a certificate that lasts months.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);
/// The longest that an authority is believed when it says to wait: its own limits are of a week.
pub const LONGEST_TOLD: Duration = Duration::from_secs(8 * 24 * 3600);
/// How often dates are looked at again: the clock may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
/// What is earlier than this is the clock of a machine that doesn't know the time: 2026.
const CLOCK_FLOOR_S: u64 = 1_767_225_600;
/// When such a clock is looked at again.
const CLOCK_AGAIN: Duration = Duration::from_secs(60);
/// How soon the authority may be asked again about the window, and how late.
const WINDOW_AGAIN: (Duration, Duration) =
    (Duration::from_secs(3600), Duration::from_secs(24 * 3600));

/// What is remembered between attempts. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Whose certificate is held: the URL of a directory.
    pub directory: String,
    /// How many attempts failed since the last that didn't.
    pub failures: u32,
    /// Until when our own pause lasts.
    pub pause_until_s: u64,
    /// Until when the authority wants to be left alone.
    pub told_until_s: u64,
    /// Why the last attempt failed, and what to do.
    pub why: Option<String>,
    /// When the certificate is renewed, if the authority said so.
    pub window: Option<Window>,
}

/// What the authority said of a certificate's renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Which certificate's: its hash.
    pub of: String,
    /// The moment that was chosen within the window; none if there is no window.
    pub renew_s: Option<u64>,
    /// When the authority is asked again.
    pub again_s: u64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Get a certificate.
    Get,
    /// Ask when the certificate is to be renewed.
    AskWindow,
    /// Nothing before this time, at which to look again.
    Wait(u64),
}

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// For these names.
    pub names: &'a [String],
    /// By this authority.
    pub directory: &'a str,
}

impl Wanted<'_> {
    /// Whether a certificate is what is wanted, whatever its dates.
    fn is_met_by(&self, leaf: &Leaf, plan: &Plan) -> bool {
        plan.directory == self.directory && leaf.is_for(self.names)
    }
}

impl Plan {
    /// What to do at `now_s`.
    pub fn next(&self, wanted: Wanted<'_>, leaf: Option<&Leaf>, now_s: u64) -> Next {
        if now_s < CLOCK_FLOOR_S {
            return Next::Wait(now_s + CLOCK_AGAIN.as_secs());
        }
        let held = leaf.filter(|leaf| wanted.is_met_by(leaf, self));
        let due_s = held.map_or(0, |leaf| self.renews_s(leaf));
        let free_s = self.free_s(now_s);
        let look_s = now_s + LOOK_AGAIN.as_secs();
        if due_s <= now_s {
            return match free_s > now_s {
                true => Next::Wait(free_s.min(look_s)),
                false => Next::Get,
            };
        }
        let of = held.map_or("", |leaf| leaf.hash.as_str());
        let known = self.window.as_ref().filter(|window| window.of == of);
        // A date that lies further ahead was written by a clock that went wrong.
        let latest_s = now_s + WINDOW_AGAIN.1.as_secs();
        let again_s = known.map_or(0, |window| window.again_s.min(latest_s));
        if again_s.max(free_s) <= now_s {
            return Next::AskWindow;
        }
        Next::Wait(due_s.min(again_s.max(free_s)).min(look_s))
    }

    /// When a certificate is renewed, in seconds since 1970.
    pub fn renews_s(&self, leaf: &Leaf) -> u64 {
        let said = self.window.as_ref().filter(|window| window.of == leaf.hash);
        let two_thirds = leaf.not_before_s + leaf.life_s() / 3 * 2;
        let renew_s = said.and_then(|window| window.renew_s);
        // An authority may hurry us. To be late would be to show what is no good.
        renew_s.map_or(two_thirds, |renew_s| renew_s.min(latest_s(leaf)))
    }

    /// Until when nobody is asked anything: a pause of ours, or one that the authority wants.
    fn free_s(&self, now_s: u64) -> u64 {
        let bounded = |until_s: u64, longest: Duration| until_s.min(now_s + longest.as_secs());
        let pause_s = bounded(self.pause_until_s, LONGEST_PAUSE);
        pause_s.max(self.told_s(now_s))
    }

    /// Until when the authority wants to be left alone; not after `now_s` if it doesn't.
    pub fn told_s(&self, now_s: u64) -> u64 {
        self.told_until_s.min(now_s + LONGEST_TOLD.as_secs())
    }

    /// Notes that an attempt failed. `chance` is any number.
    pub fn failed(
        &mut self,
        why: String,
        told_until_s: Option<u64>,
        life_s: u64,
        chance: u32,
        now_s: u64,
    ) {
        self.failures = self.failures.saturating_add(1);
        self.pause_until_s = now_s + pause(self.failures, life_s, chance).as_secs();
        self.told_until_s = told_until_s
            .unwrap_or(0)
            .min(now_s + LONGEST_TOLD.as_secs());
        self.why = Some(why);
    }

    /// Notes that a certificate of `directory` was got.
    pub fn got(&mut self, directory: &str) {
        *self = Self {
            directory: directory.to_owned(),
            ..Self::default()
        };
    }

    /// Notes what the authority said of a certificate's renewal: a window, both ends in seconds since
    /// 1970, and after how long to ask again. `chance` is any number.
    pub fn heard(
        &mut self,
        leaf: &Leaf,
        window: Option<(u64, u64)>,
        again: Duration,
        chance: u32,
        now_s: u64,
    ) {
        let renew_s = window.map(|(start_s, end_s)| {
            // RFC 9773 section 4.2: a random time within it; one that is past means now.
            let width = end_s.saturating_sub(start_s);
            start_s + (u128::from(width) * u128::from(chance) / u128::from(u32::MAX)) as u64
        });
        self.window = Some(Window {
            of: leaf.hash.clone(),
            renew_s,
            again_s: now_s + again.clamp(WINDOW_AGAIN.0, WINDOW_AGAIN.1).as_secs(),
        });
    }
}

/// The latest moment for renewal: there is time for some attempts.
fn latest_s(leaf: &Leaf) -> u64 {
    leaf.not_before_s + leaf.life_s() / 10 * 9
}

/// The pause after so many failures, about, for certificates that live so long (0 if none is known).
fn pause(failures: u32, life_s: u64, chance: u32) -> Duration {
    let longest = match life_s {
        0 => LONGEST_PAUSE,
        // Those that live for days have no day to spare.
        life_s => Duration::from_secs(life_s / 12).clamp(FIRST_PAUSE, LONGEST_PAUSE),
    };
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    // Up to a quarter less, so that not everybody comes back at once after an outage.
    let less = u128::from(chance) * 1000 / u128::from(u32::MAX);
    let pause = doubled.min(longest);
    pause - pause.mul_f64(less as f64 / 4000.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_S: u64 = 1_800_000_000;
    const DAY_S: u64 = 24 * 3600;
    const DIRECTORY: &str = "https://ca.test/dir";

    fn leaf(from_s: u64, life_s: u64) -> Leaf {
        Leaf {
            names: vec!["a.example".into()],
            not_before_s: from_s,
            not_after_s: from_s + life_s,
            hash: "aa".into(),
            issuer: None,
            ari: None,
        }
    }

    fn next(plan: &Plan, leaf: Option<&Leaf>, now_s: u64) -> Next {
        let names = ["a.example".to_owned()];
        let wanted = Wanted {
            names: &names,
            directory: DIRECTORY,
        };
        plan.next(wanted, leaf, now_s)
    }

    fn plan() -> Plan {
        let mut plan = Plan::default();
        plan.got(DIRECTORY);
        plan.heard(
            &leaf(NOW_S, 90 * DAY_S),
            None,
            Duration::from_secs(DAY_S),
            0,
            NOW_S,
        );
        plan
    }

    /// What is done from `from_s` on, when waiting as told: the first that isn't waiting.
    fn acts(plan: &Plan, leaf: &Leaf, from_s: u64) -> (Next, u64) {
        let mut now_s = from_s;
        loop {
            match next(plan, Some(leaf), now_s) {
                Next::Wait(until_s) => {
                    assert!(until_s > now_s, "a deadline in the past");
                    now_s = until_s;
                }
                act => return (act, now_s),
            }
        }
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let (mut plan, leaf) = (plan(), leaf(NOW_S, 90 * DAY_S));
        let mut now_s = NOW_S;
        let asked = loop {
            match acts(&plan, &leaf, now_s) {
                (Next::AskWindow, at_s) => {
                    plan.heard(&leaf, None, Duration::ZERO, 0, at_s);
                    now_s = at_s;
                }
                (_, at_s) => break at_s,
            }
        };
        assert_eq!(asked, NOW_S + 60 * DAY_S);
    }

    #[test]
    fn what_is_not_what_is_wanted_is_got_at_once() {
        let (plan, held) = (plan(), leaf(NOW_S, 90 * DAY_S));
        assert!(matches!(next(&plan, Some(&held), NOW_S), Next::Wait(_)));
        assert_eq!(next(&plan, None, NOW_S), Next::Get);
        let mut other = held.clone();
        other.names.push("b.example".into());
        assert_eq!(next(&plan, Some(&other), NOW_S), Next::Get);
        let staging = Plan {
            directory: "https://staging.test/".into(),
            ..plan.clone()
        };
        assert_eq!(next(&staging, Some(&held), NOW_S), Next::Get);
        assert_eq!(next(&plan, Some(&held), NOW_S + 91 * DAY_S), Next::Get);
    }

    #[test]
    fn the_authority_may_hurry_and_not_delay_beyond_the_end() {
        let (mut plan, leaf) = (plan(), leaf(NOW_S, 90 * DAY_S));
        let again = Duration::from_secs(6 * 3600);
        // RFC 9773 section 4.2: a window in the past says now.
        plan.heard(
            &leaf,
            Some((NOW_S - 2 * DAY_S, NOW_S - DAY_S)),
            again,
            7,
            NOW_S,
        );
        assert_eq!(next(&plan, Some(&leaf), NOW_S), Next::Get);
        plan.heard(
            &leaf,
            Some((NOW_S + DAY_S, NOW_S + 3 * DAY_S)),
            again,
            u32::MAX / 2,
            NOW_S,
        );
        assert!(plan.renews_s(&leaf).abs_diff(NOW_S + 2 * DAY_S) < 2);
        plan.heard(
            &leaf,
            Some((NOW_S + 400 * DAY_S, u64::MAX)),
            again,
            0,
            NOW_S,
        );
        assert_eq!(plan.renews_s(&leaf), NOW_S + 81 * DAY_S);
        // What it said of another certificate says nothing of this one.
        let mut other = leaf.clone();
        other.hash = "bb".into();
        assert_eq!(plan.renews_s(&other), NOW_S + 60 * DAY_S);
    }

    #[test]
    fn pauses_grow_to_a_day_and_are_kept_over_a_restart() {
        let mut plan = Plan::default();
        let mut before = 0;
        let mut now_s = NOW_S;
        for failures in 1..=40 {
            plan.failed("no".into(), None, 0, 0, now_s);
            let pause_s = plan.pause_until_s - now_s;
            assert!(
                pause_s >= before && pause_s <= DAY_S,
                "{failures}: {pause_s}"
            );
            before = pause_s;
            // As it is read again from the disk.
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
            assert!(matches!(
                next(&plan, None, now_s + pause_s - 1),
                Next::Wait(_)
            ));
            now_s += pause_s;
            assert_eq!(next(&plan, None, now_s), Next::Get);
        }
        assert_eq!(before, DAY_S);
        assert_eq!(plan.failures, 40);
        let least = pause(1, 0, u32::MAX);
        assert_eq!(least, FIRST_PAUSE * 3 / 4);
        // One that lives six days is tried for at least twice a day.
        assert_eq!(pause(40, 6 * DAY_S, 0).as_secs(), DAY_S / 2);
    }

    #[test]
    fn what_the_authority_says_to_wait_is_waited_but_not_for_ever() {
        let mut plan = Plan::default();
        plan.failed("limited".into(), Some(NOW_S + 3 * DAY_S), 0, 0, NOW_S);
        assert!(matches!(
            next(&plan, None, NOW_S + 3 * DAY_S - 1),
            Next::Wait(_)
        ));
        assert_eq!(next(&plan, None, NOW_S + 3 * DAY_S), Next::Get);
        plan.failed("limited".into(), Some(u64::MAX), 0, 0, NOW_S);
        assert_eq!(plan.told_until_s, NOW_S + LONGEST_TOLD.as_secs());
        // A clock that was far ahead when it was written doesn't hold us up for years.
        plan.failed("limited".into(), Some(NOW_S * 2), 0, 0, NOW_S * 2);
        assert_eq!(plan.told_s(NOW_S), NOW_S + LONGEST_TOLD.as_secs());
    }

    #[test]
    fn without_the_time_nobody_is_asked() {
        assert_eq!(next(&Plan::default(), None, 12), Next::Wait(72));
    }

    proptest! {
        #[test]
        fn no_dates_make_a_busy_loop(
            now_s in any::<u32>(), from_s in any::<u32>(), life_s in any::<u32>(),
            pause_until_s in any::<u64>(), told_until_s in any::<u64>(),
            renew_s in any::<Option<u64>>(), again_s in any::<u64>(),
        ) {
            let leaf = leaf(from_s.into(), life_s.into());
            let window = Window { of: leaf.hash.clone(), renew_s, again_s };
            let plan = Plan {
                directory: DIRECTORY.into(), failures: 3, pause_until_s, told_until_s, why: None,
                window: Some(window),
            };
            for held in [Some(&leaf), None] {
                if let Next::Wait(until_s) = next(&plan, held, now_s.into()) {
                    prop_assert!(until_s > u64::from(now_s));
                    prop_assert!(until_s <= u64::from(now_s) + LOOK_AGAIN.as_secs());
                }
            }
        }

        #[test]
        fn a_window_is_chosen_within(start_s in any::<u64>(), end_s in any::<u64>(), chance in any::<u32>()) {
            let (mut plan, leaf) = (Plan::default(), leaf(NOW_S, DAY_S));
            plan.heard(&leaf, Some((start_s, end_s)), Duration::MAX, chance, NOW_S);
            let renew_s = plan.window.unwrap().renew_s.unwrap();
            prop_assert!(renew_s >= start_s && renew_s <= end_s.max(start_s));
        }
    }
}
