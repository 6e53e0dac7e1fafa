//! When an authority is asked: a matter of dates alone.
//!
//! In: the certificate that is held, what is remembered of the authority, the time. Out: now, or when to
//! look again. Renewal is due after two thirds of a certificate's life, or within the window that the
//! authority names (RFC 9773). After failures the pauses grow, and after a success there is one too; a
//! pause that the authority names is kept to by everybody. All of it is remembered, so that nothing is
//! asked more often for being restarted.

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
/// When it is asked again after no answer, or one that doesn't say when. Source: RFC 9773 section 4.3.3.
pub const WINDOW_RETRY: Duration = Duration::from_secs(6 * 3600);
/// What is waited after a success before a certificate is got that was lost since.
const LOST_REST: Duration = Duration::from_secs(3600);

/// What is remembered between attempts. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Whose certificate is held: the URL of a directory.
    pub directory: String,
    /// How many attempts failed since the last that didn't.
    pub failures: u32,
    /// When a certificate was last got; 0 if that isn't known.
    #[serde(default)]
    pub got_s: u64,
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
            let free_s = free_s.max(self.rested_s(wanted, leaf, now_s));
            return match free_s > now_s {
                true => Next::Wait(free_s.min(look_s)),
                false => Next::Get,
            };
        }
        let of = held.map_or("", |leaf| leaf.hash.as_str());
        let known = self.window.as_ref().filter(|window| window.of == of);
        let again_s = known.map_or(0, |window| believed(window.again_s, WINDOW_AGAIN.1, now_s));
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

    /// Until when nobody is asked anything: a pause of ours, or one that the authority wants. Not after
    /// `now_s` if there is none.
    pub fn free_s(&self, now_s: u64) -> u64 {
        let pause_s = believed(self.pause_until_s, LONGEST_PAUSE, now_s);
        pause_s.max(self.told_s(now_s))
    }

    /// Until when the authority wants to be left alone; not after `now_s` if it doesn't.
    pub fn told_s(&self, now_s: u64) -> u64 {
        believed(self.told_until_s, LONGEST_TOLD, now_s)
    }

    /// Until when what was got is left as it is, whatever is due: a window that is always past, a clock
    /// that is far ahead, or two processes with other names in one folder would else make one order
    /// after another.
    fn rested_s(&self, wanted: Wanted<'_>, leaf: Option<&Leaf>, now_s: u64) -> u64 {
        // What another authority signed is no reason to wait with this one.
        if self.got_s > now_s || self.directory != wanted.directory {
            return 0;
        }
        let rest = match leaf {
            Some(leaf) if leaf.is_for(wanted.names) => twelfth(leaf.life_s()),
            // Somebody wants other names.
            Some(_) => FIRST_PAUSE,
            None => LOST_REST,
        };
        self.got_s.saturating_add(rest.as_secs())
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
    pub fn got(&mut self, directory: &str, now_s: u64) {
        *self = Self {
            directory: directory.to_owned(),
            got_s: now_s,
            ..Self::default()
        };
    }

    /// Notes what the authority said of a certificate's renewal: a window, both ends in seconds since
    /// 1970, and after how long to ask again. Without a window what it said before stands. `chance` is
    /// any number.
    pub fn heard(
        &mut self,
        leaf: &Leaf,
        window: Option<(u64, u64)>,
        again: Duration,
        chance: u32,
        now_s: u64,
    ) {
        // RFC 9773 section 4.2: a window whose end isn't after its start is no answer.
        let good = window.filter(|(start_s, end_s)| start_s < end_s);
        let again = match window.is_some() && good.is_none() {
            true => WINDOW_RETRY,
            false => again,
        };
        let before = self.window.take().filter(|before| before.of == leaf.hash);
        let renew_s = good.map(|(start_s, end_s)| {
            // The same section: a random time within it; one that is past means now.
            let width = u128::from(end_s - start_s);
            start_s + (width * u128::from(chance) / u128::from(u32::MAX)) as u64
        });
        self.window = Some(Window {
            of: leaf.hash.clone(),
            renew_s: renew_s.or(before.and_then(|before| before.renew_s)),
            again_s: now_s + again.clamp(WINDOW_AGAIN.0, WINDOW_AGAIN.1).as_secs(),
        });
    }
}

/// A date until which to wait, unless it is so far ahead that a clock which went wrong wrote it.
const fn believed(until_s: u64, longest: Duration, now_s: u64) -> u64 {
    if until_s > now_s.saturating_add(2 * longest.as_secs()) {
        0
    } else {
        until_s
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
        life_s => twelfth(life_s),
    };
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    // Up to a quarter less, so that not everybody comes back at once after an outage.
    let less = u128::from(chance) * 1000 / u128::from(u32::MAX);
    let pause = doubled.min(longest);
    pause - pause.mul_f64(less as f64 / 4000.0)
}

/// A twelfth of a life in seconds, within our pauses.
fn twelfth(life_s: u64) -> Duration {
    Duration::from_secs(life_s / 12).clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

#[cfg(test)]
mod tests;
