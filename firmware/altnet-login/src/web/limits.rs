//! How often somebody may be wrong: per device's address, and per account's name.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many wrong tries there may be within [`WINDOW`].
pub const TRIES: usize = 5;
/// For how long a try counts.
pub const WINDOW: Duration = Duration::from_secs(60);
/// The most addresses and names that are counted.
const MAX_KEYS: usize = 1024;

/// Tries that may turn out wrong.
#[derive(Debug, Default)]
pub struct Limits {
    tries: BTreeMap<String, Vec<Instant>>,
}

impl Limits {
    /// Counts a try for each of `keys`, before it is known how it ends: tries at the same time are
    /// counted too. False if one of them has to wait; then nothing is counted. When the table is
    /// full everybody new waits: who fills it must not gain by it.
    pub fn begin(&mut self, keys: &[String], now: Instant) -> bool {
        self.tries.retain(|_, at| {
            at.retain(|at| now < *at + WINDOW);
            !at.is_empty()
        });
        let waits = |key: &String| self.tries.get(key).is_some_and(|at| at.len() >= TRIES);
        let new = keys.iter().filter(|key| !self.tries.contains_key(*key));
        if keys.iter().any(waits) || self.tries.len() + new.count() > MAX_KEYS {
            return false;
        }
        for key in keys {
            self.tries.entry(key.clone()).or_default().push(now);
        }
        true
    }

    /// Takes back a try that began at `now` and wasn't wrong.
    pub fn forgive(&mut self, keys: &[String], now: Instant) {
        for key in keys {
            let Some(at) = self.tries.get_mut(key) else {
                continue;
            };
            if let Some(place) = at.iter().position(|at| *at == now) {
                at.swap_remove(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_is_wrong_too_often_waits() {
        let mut limits = Limits::default();
        let now = Instant::now();
        for _ in 0..TRIES {
            assert!(limits.begin(&keys(&["fd00::1", "ann"]), now));
        }
        assert!(!limits.begin(&keys(&["fd00::1", "bob"]), now));
        assert!(!limits.begin(&keys(&["fd00::2", "ann"]), now));
        assert!(limits.begin(&keys(&["fd00::2", "bob"]), now));
        assert!(limits.begin(&keys(&["fd00::1", "ann"]), now + WINDOW));
    }

    #[test]
    fn who_was_right_does_not_wait() {
        let mut limits = Limits::default();
        let now = Instant::now();
        for _ in 0..3 * TRIES {
            assert!(limits.begin(&keys(&["fd00::1"]), now));
            limits.forgive(&keys(&["fd00::1"]), now);
        }
    }

    #[test]
    fn a_full_table_lets_nobody_guess() {
        let mut limits = Limits::default();
        let now = Instant::now();
        for n in 0..MAX_KEYS {
            assert!(limits.begin(&[n.to_string()], now));
        }
        assert!(!limits.begin(&keys(&["new"]), now));
        assert!(limits.begin(&keys(&["7"]), now));
        assert!(limits.begin(&keys(&["new"]), now + WINDOW));
    }
}
