//! How often a code may be tried.
//!
//! Five times a power-on; and slower and slower over all power-ons until the box is claimed, but never not at all, so that nobody locks its
//! owner out for good.

use core::time::Duration;

/// How many tries a power-on gives.
pub const PER_POWER_ON: u8 = 5;
/// From how many in all a power-on gives one.
pub const MANY: u32 = 100;
/// The longest that a try waits.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Since this power-on.
    pub now: u8,
    /// Since the box was new or was claimed.
    pub total: u32,
}

impl Tries {
    /// How many may still be made before the box is switched off and on.
    pub const fn left(self) -> u8 {
        // What this power-on began with decides, or its first try would take the others away.
        let before = self.total.saturating_sub(self.now as u32);
        let most = if before < MANY { PER_POWER_ON } else { 1 };
        most.saturating_sub(self.now)
    }

    /// How long the next one waits before it is answered.
    pub fn wait(self) -> Duration {
        let step = self.total / u32::from(PER_POWER_ON);
        match step {
            0 => Duration::ZERO,
            // 1 s after five, 2 s after ten; 64 s is more than the most.
            1..=6 => Duration::from_secs(1 << (step - 1)).min(MAX_WAIT),
            _ => MAX_WAIT,
        }
    }

    /// One more was made. None if none may be.
    pub const fn counted(self) -> Option<Self> {
        if self.left() == 0 {
            return None;
        }
        Some(Self {
            now: self.now + 1,
            total: self.total.saturating_add(1),
        })
    }

    /// The last one was right: it was no guess.
    pub const fn given_back(self) -> Self {
        Self {
            now: self.now.saturating_sub(1),
            total: self.total.saturating_sub(1),
        }
    }

    /// The power was off.
    pub const fn at_power_on(self) -> Self {
        Self {
            now: 0,
            total: self.total,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sixth_is_refused_until_the_power_was_off() {
        let mut tries = Tries::default();
        for left in (0..PER_POWER_ON).rev() {
            tries = tries.counted().unwrap();
            assert_eq!(tries.left(), left);
        }
        assert_eq!(tries.counted(), None);
        tries = tries.at_power_on();
        assert_eq!((tries.left(), tries.total), (PER_POWER_ON, 5));
    }

    #[test]
    fn a_right_one_is_given_back() {
        let tries = Tries::default().counted().unwrap();
        assert_eq!(tries.given_back(), Tries::default());
    }

    #[test]
    fn they_become_slow_and_few_but_never_none() {
        let waits: Vec<u64> = (0..8)
            .map(|n| {
                Tries {
                    now: 0,
                    total: 5 * n,
                }
                .wait()
                .as_secs()
            })
            .collect();
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 60]);
        for total in [MANY, u32::MAX] {
            let tries = Tries { now: 0, total };
            assert_eq!((tries.left(), tries.wait()), (1, MAX_WAIT));
            assert_eq!(tries.counted().unwrap().left(), 0);
        }
        // A power-on that began with five keeps them.
        let tries = Tries {
            now: 2,
            total: MANY + 1,
        };
        assert_eq!(tries.left(), 3);
    }
}
