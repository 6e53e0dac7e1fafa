//! The two clocks a node is told: since boot, and the calendar.

use std::time::{Duration, SystemTime};

use altnet_wire::time::{Instant, UnixTime};
use rustix::time::{ClockId, clock_gettime};

/// The moment since boot, suspended time included (`CLOCK_BOOTTIME`).
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_nsec).unwrap_or(0) / 1000;
    Instant::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// What the system's calendar says, true or not.
pub fn calendar() -> UnixTime {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    UnixTime::from_secs(since_epoch.unwrap_or(Duration::ZERO).as_secs())
}

/// The moment in tokio's clock at which `deadline` is reached, or nothing if it never is.
/// A moment that is past counts as now.
pub fn sleep_until(deadline: Instant) -> Option<tokio::time::Instant> {
    if deadline == Instant::NEVER {
        return None;
    }
    tokio::time::Instant::now().checked_add(deadline.saturating_since(now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_since_boot_does_not_run_back() {
        let before = now();
        assert!(now() >= before && before > Instant::ZERO);
        assert!(calendar() > UnixTime::from_secs(1_700_000_000));
        assert_eq!(sleep_until(Instant::NEVER), None);
        assert!(sleep_until(Instant::ZERO).is_some());
    }
}
