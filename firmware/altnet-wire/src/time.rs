//! Two kinds of time that never mix: [`Instant`] runs since boot and is always known;
//! [`UnixTime`] is the calendar and may be wrong or unknown.

use core::fmt;
pub use core::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment since boot, in microseconds. Monotonic; meaningless on another machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The moment of boot.
    pub const ZERO: Self = Self(0);
    /// A moment that is never reached: the deadline of a timer that isn't set.
    pub const NEVER: Self = Self(u64::MAX);

    /// Makes a moment from microseconds since boot.
    pub const fn from_micros(us: u64) -> Self {
        Self(us)
    }

    /// Microseconds since boot.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` later; [`Instant::NEVER`] if that can't be told.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(us))
    }
}

/// A calendar moment: seconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct UnixTime(u64);

impl UnixTime {
    /// The first moment of 1970.
    pub const EPOCH: Self = Self(0);
    /// A moment that is never reached: the expiry of what doesn't expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// Makes a moment from seconds since 1970.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds)
    }

    /// Seconds since 1970.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// The moment `duration` later, in whole seconds, saturating.
    #[must_use]
    pub const fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }

    /// The time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_secs(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for UnixTime {
    /// Writes RFC 3339 in UTC, or `never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Past the year 9999 RFC 3339 has no form.
        const LAST: u64 = 253_402_300_799;
        if self.0 > LAST {
            return f.write_str("never");
        }
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Civil from days, H. Hinnant, "chrono-compatible low-level date algorithms".
        let z = days + 719_468;
        let (era, doe) = (z / 146_097, z % 146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn check(seconds: u64, text: &str) {
        assert_eq!(UnixTime::from_secs(seconds).to_string(), text);
    }

    #[test]
    fn a_calendar_moment_is_written_as_rfc_3339() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_795_000_000, "2026-11-18T11:06:40Z");
        check(253_402_300_799, "9999-12-31T23:59:59Z");
        check(u64::MAX, "never");
    }

    #[test]
    fn an_instant_saturates_instead_of_wrapping() {
        assert_eq!(
            Instant::from_micros(5).saturating_since(Instant::from_micros(9)),
            Duration::ZERO
        );
        assert_eq!(Instant::ZERO.after(Duration::MAX), Instant::NEVER);
    }
}
