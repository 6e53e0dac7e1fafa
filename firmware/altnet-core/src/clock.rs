//! What time it is at least, and what it probably is.
//!
//! A device may wake up in 1970 or be told a forged time. So there are two: the **floor** only
//! rises, is kept on storage, and follows what owners and their issuers signed, the build date
//! and authenticated time; the **running clock** follows any source, is never stored, and counts
//! only while it isn't below the floor. A forged time far ahead makes records look expired until
//! the source is corrected or the device restarts, and changes nothing that lasts.

use altnet_wire::time::{Instant, UnixTime};

/// The calendar as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    floor: UnixTime,
    running: Option<(UnixTime, Instant)>,
}

/// What [`Clock::estimate`] knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimate {
    /// The running clock's time, not below the floor.
    Running(UnixTime),
    /// Nothing better than the floor: it is this time or later.
    AtLeast(UnixTime),
}

impl Estimate {
    /// The best guess.
    pub const fn time(self) -> UnixTime {
        match self {
            Self::Running(time) | Self::AtLeast(time) => time,
        }
    }
}

impl Clock {
    /// A clock that knows only that it isn't before `floor`: the build date or, if later, the
    /// floor from storage.
    pub const fn new(floor: UnixTime) -> Self {
        Self {
            floor,
            running: None,
        }
    }

    /// The validity floor, to be kept on storage.
    pub const fn floor(&self) -> UnixTime {
        self.floor
    }

    /// Raises the floor to a time that was vouched for. Returns whether it rose.
    pub fn raise(&mut self, vouched: UnixTime) -> bool {
        let rises = vouched > self.floor && vouched != UnixTime::NEVER;
        if rises {
            self.floor = vouched;
        }
        rises
    }

    /// Sets the running clock from a source that anybody could have forged: SNTP, a board's
    /// clock chip, the operating system. The floor stays.
    pub const fn set_running(&mut self, time: UnixTime, now: Instant) {
        self.running = Some((time, now));
    }

    /// Sets the running clock and raises the floor: an authenticated source says so.
    pub fn set_authenticated(&mut self, time: UnixTime, now: Instant) -> bool {
        self.set_running(time, now);
        self.raise(time)
    }

    /// The best guess at the time. A running clock below the floor counts as none.
    pub fn estimate(&self, now: Instant) -> Estimate {
        let running = self
            .running
            .map(|(time, since)| time.after(now.saturating_since(since)));
        match running {
            Some(time) if time >= self.floor => Estimate::Running(time),
            _ => Estimate::AtLeast(self.floor),
        }
    }

    /// Whether the running clock is believed.
    pub fn is_known(&self, now: Instant) -> bool {
        matches!(self.estimate(now), Estimate::Running(_))
    }

    /// The time, if the running clock is believed.
    pub fn known(&self, now: Instant) -> Option<UnixTime> {
        match self.estimate(now) {
            Estimate::Running(time) => Some(time),
            Estimate::AtLeast(_) => None,
        }
    }

    /// Whether something valid before `expires` has ended, as far as can be told.
    pub fn is_expired(&self, expires: UnixTime, now: Instant) -> bool {
        expires != UnixTime::NEVER && self.estimate(now).time() >= expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    const fn at(seconds: u64) -> UnixTime {
        UnixTime::from_secs(seconds)
    }

    #[test]
    fn a_clock_in_1970_counts_as_unknown() {
        let mut clock = Clock::new(at(1000));
        clock.set_running(at(5), Instant::ZERO);
        assert_eq!(clock.estimate(Instant::ZERO), Estimate::AtLeast(at(1000)));
        assert!(!clock.is_expired(at(1001), Instant::ZERO));
        assert!(clock.is_expired(at(1000), Instant::ZERO));
    }

    #[test]
    fn a_forged_time_far_ahead_poisons_nothing_that_lasts() {
        let mut clock = Clock::new(at(1000));
        clock.set_running(at(u64::MAX - 1), Instant::ZERO);
        assert!(clock.is_expired(at(2000), Instant::ZERO));
        clock.set_running(at(1500), Instant::ZERO);
        assert!(!clock.is_expired(at(2000), Instant::ZERO));
        assert_eq!(clock.floor(), at(1000));
    }

    #[test]
    fn the_running_clock_runs() {
        let mut clock = Clock::new(at(0));
        clock.set_running(at(100), Instant::ZERO);
        let later = Instant::ZERO.after(Duration::from_secs(50));
        assert_eq!(clock.estimate(later), Estimate::Running(at(150)));
    }

    #[test]
    fn the_floor_only_rises_and_never_to_never() {
        let mut clock = Clock::new(at(10));
        assert!(clock.raise(at(20)));
        assert!(!clock.raise(at(15)));
        assert!(!clock.raise(UnixTime::NEVER));
        assert!(clock.set_authenticated(at(30), Instant::ZERO));
        assert_eq!(clock.floor(), at(30));
    }
}
