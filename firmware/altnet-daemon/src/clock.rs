//! The two clocks a node is told: since boot, and the calendar.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use altnet_wire::time::{Instant, UnixTime};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

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

/// Waits for moments since boot. Unlike tokio's timers it counts the time that this machine sleeps, so
/// that what came due meanwhile is done as soon as it wakes.
#[derive(Debug)]
pub struct Alarm {
    timer: AsyncFd<OwnedFd>,
    set_for: Instant,
}

impl Alarm {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        // SAFETY: the descriptor is the timer's own, which nobody else closes.
        let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
        Ok(Self {
            timer,
            set_for: Instant::NEVER,
        })
    }

    /// Waits until `moment`, which may be past; for ever if it never comes. May be cancelled.
    ///
    /// # Errors
    /// What the kernel says.
    pub async fn wait(&mut self, moment: Instant) -> io::Result<()> {
        if moment == Instant::NEVER {
            return std::future::pending().await;
        }
        if moment != self.set_for {
            let micros = moment.as_micros().max(1);
            let value = Timespec {
                tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
                tv_nsec: (micros % 1_000_000 * 1000) as _,
            };
            let interval = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let spec = Itimerspec {
                it_interval: interval,
                it_value: value,
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec)?;
            self.set_for = moment;
        }
        loop {
            let mut ready = self.timer.readable().await?;
            let read = |timer: &AsyncFd<OwnedFd>| Ok(rustix::io::read(timer, &mut [0; 8])?);
            // One that is set anew is no longer due, though it was.
            if let Ok(read) = ready.try_io(read) {
                self.set_for = Instant::NEVER;
                return read.map(|_| ());
            }
        }
    }
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

    #[tokio::test]
    async fn an_alarm_rings_at_its_moment_and_at_once_for_one_that_is_past() {
        let mut alarm = Alarm::new().unwrap();
        let ms = altnet_wire::time::Duration::from_millis;
        alarm.wait(Instant::ZERO).await.unwrap();
        let later = now().after(ms(30));
        alarm.wait(later).await.unwrap();
        assert!(now() >= later);
        // One that is given up for another moment.
        let far = now().after(ms(3_600_000));
        let cut = tokio::time::timeout(Duration::from_millis(10), alarm.wait(far)).await;
        assert!(cut.is_err());
        let later = now().after(ms(30));
        alarm.wait(later).await.unwrap();
        assert!(now() >= later && now() < far);
        let cut = tokio::time::timeout(Duration::from_millis(10), alarm.wait(Instant::NEVER)).await;
        assert!(cut.is_err());
    }
}
