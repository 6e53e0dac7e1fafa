//! The hardware's watchdog: a box whose router doesn't go round any more begins anew.
//!
//! Source: watchdog-api.rst of the kernel's documentation: any write is a sign of life, and a V before closing says that
//! none more will come.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// How often it is fed. The shortest patience of a board's is 15 s, that of a Raspberry Pi.
const EVERY: Duration = Duration::from_secs(5);

/// A watchdog that is open, and so runs.
#[derive(Debug)]
pub struct Watchdog {
    device: File,
    next: Instant,
}

impl Watchdog {
    /// Opens it. From now on it wants to be fed.
    ///
    /// # Errors
    /// What the kernel says; that it is busy if another process has it.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            device: OpenOptions::new().write(true).open(path)?,
            next: Instant::now(),
        })
    }

    /// When it has to be fed.
    pub fn due(&self) -> Instant {
        self.next
    }

    /// Feeds it if it is time to.
    pub fn feed(&mut self) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        self.next = now + EVERY;
        if let Err(e) = self.device.write_all(&[0]) {
            altnet_service::warning!("the watchdog can't be fed: {e}");
        }
    }

    /// Lets it sleep: the router ends because it was told to.
    pub fn stop(mut self) {
        if let Err(e) = self.device.write_all(b"V") {
            altnet_service::warning!("the watchdog can't be stopped: {e}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_fed_when_it_is_time_and_put_to_sleep_at_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("watchdog");
        assert!(Watchdog::open(&path).is_err());
        std::fs::write(&path, "").unwrap();
        runtime.block_on(async {
            let mut watchdog = Watchdog::open(&path).unwrap();
            for _ in 0..3 {
                watchdog.feed();
                watchdog.feed();
                tokio::time::sleep_until(watchdog.due()).await;
            }
            watchdog.stop();
        });
        assert_eq!(std::fs::read(&path).unwrap(), b"\0\0\0V");
    }
}
