//! A token bucket in one number.
//!
//! In: a rate, a burst, the time. Out: when something may pass, or that it may not.
//! The bucket is kept as the moment at which it will be full again (GCRA, ITU-T I.371 annex A), so
//! nothing has to be refilled by a timer.

use altnet_wire::time::{Duration, Instant};

/// What may pass in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Units a second; 0 means that there is no limit.
    pub per_s: u32,
    /// Units at once above that.
    pub burst: u32,
}

impl Rate {
    /// No limit.
    pub const NONE: Self = Self { per_s: 0, burst: 0 };

    fn duration(self, units: u32) -> Duration {
        let nanos = u64::from(units) * 1_000_000_000;
        Duration::from_nanos(nanos.checked_div(self.per_s.into()).unwrap_or(0))
    }
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bucket {
    full_at: Nanos,
}

/// Nanoseconds since boot: a small packet at a high rate takes less than a microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Nanos(u64);

impl Nanos {
    fn at(now: Instant) -> Self {
        Self(now.as_micros().saturating_mul(1000))
    }

    fn after(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    fn before(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl Bucket {
    /// A full one: nothing was taken from it.
    pub const FULL: Self = Self { full_at: Nanos(0) };

    /// Takes `units` and returns when they may pass: now or earlier if there are enough.
    ///
    /// More than the burst passes once the bucket is full; it then takes longer to fill.
    pub fn take(&mut self, rate: Rate, units: u32, now: Instant) -> Instant {
        if rate.per_s == 0 {
            return now;
        }
        let (full_at, passes_at) = self.after(rate, units, now);
        self.full_at = full_at;
        // Rounded up: never early.
        Instant::from_micros(passes_at.0.div_ceil(1000))
    }

    /// Takes `units` if they may pass now.
    pub fn try_take(&mut self, rate: Rate, units: u32, now: Instant) -> bool {
        let (full_at, passes_at) = self.after(rate, units, now);
        let passes = rate.per_s == 0 || passes_at <= Nanos::at(now);
        if passes {
            self.full_at = full_at;
        }
        passes
    }

    fn after(self, rate: Rate, units: u32, now: Instant) -> (Nanos, Nanos) {
        let begin = self.full_at.max(Nanos::at(now));
        let full_at = begin.after(rate.duration(units));
        // As if no more than the burst had been taken.
        let passes_at = begin
            .after(rate.duration(units.min(rate.burst)))
            .before(rate.duration(rate.burst));
        (full_at, passes_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        per_s: 100,
        burst: 300,
    };

    fn ms(milliseconds: u64) -> Instant {
        Instant::from_micros(milliseconds * 1000)
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let mut bucket = Bucket::default();
        let begin = ms(10_000);
        assert!(bucket.take(RATE, 300, begin) <= begin);
        assert_eq!(bucket.take(RATE, 50, begin), ms(10_500));
        assert_eq!(bucket.take(RATE, 50, begin), ms(11_000));
        // 3 s after it was emptied it is full again, and no fuller.
        assert!(bucket.take(RATE, 300, ms(20_000)) <= ms(20_000));
        assert_eq!(bucket.take(RATE, 1, ms(20_000)), ms(20_010));
    }

    #[test]
    fn what_does_not_pass_takes_nothing() {
        let mut bucket = Bucket::default();
        let now = ms(10_000);
        assert!(bucket.try_take(RATE, 300, now));
        assert!(!bucket.try_take(RATE, 1, now));
        assert!(!bucket.try_take(RATE, 1, ms(10_009)));
        assert!(bucket.try_take(RATE, 1, ms(10_010)));
    }

    #[test]
    fn more_than_the_burst_waits_for_a_full_bucket() {
        let mut bucket = Bucket::default();
        assert!(bucket.take(RATE, 1000, ms(10_000)) <= ms(10_000));
        assert_eq!(bucket.take(RATE, 300, ms(10_000)), ms(20_000));
    }

    #[test]
    fn without_a_limit_everything_passes() {
        let mut bucket = Bucket::default();
        for _ in 0..10 {
            assert_eq!(bucket.take(Rate::NONE, u32::MAX, ms(1)), ms(1));
            assert!(bucket.try_take(Rate::NONE, u32::MAX, ms(1)));
        }
    }
}
