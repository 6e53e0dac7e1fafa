//! The machines' time: since this process first asked.

use std::sync::OnceLock;

use altnet_wire::time::Instant;

static BEGIN: OnceLock<tokio::time::Instant> = OnceLock::new();

fn begin() -> tokio::time::Instant {
    *BEGIN.get_or_init(tokio::time::Instant::now)
}

/// Now.
pub(crate) fn now() -> Instant {
    let us = begin().elapsed().as_micros();
    // Never zero, which machines take for the moment of boot.
    Instant::from_micros(u64::try_from(us).unwrap_or(u64::MAX).saturating_add(1))
}

/// A machine's moment as the runtime has it; far away if it is never.
pub(crate) fn at(moment: Instant) -> tokio::time::Instant {
    /// What a sleep is cut to: timers of the runtime end after some two years.
    const FAR: std::time::Duration = std::time::Duration::from_secs(24 * 3600);
    let ahead = moment.saturating_since(now());
    tokio::time::Instant::now() + ahead.min(FAR)
}
