//! The one counter of a sending key.
//!
//! A counter used twice under one key gives two packets away and forges a third, so every
//! packet of a session takes its number here, whichever thread seals it. In: how many
//! numbers a worker wants. Out: a range that nobody else was given.

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(loom, test)))]
use portable_atomic::{AtomicU64, Ordering};

use core::ops::Range;

/// A session seals no more packets than this and opens none numbered so or higher:
/// `REJECT_AFTER_MESSAGES` (whitepaper section 6.1).
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// A session that sealed this many asks for a new one: `REKEY_AFTER_MESSAGES` (section 6.1).
pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;

/// Hands out the numbers of one sending key, each once.
///
/// 64 bits on every target: where the processor has no such atomic (ARMv7-M, MIPS32) a
/// short lock stands in, which an interrupt handler must not wait for: workers are threads
/// or tasks.
#[derive(Debug)]
pub(crate) struct SendCounter {
    next: AtomicU64,
}

impl SendCounter {
    pub(crate) fn starting_at(first: u64) -> Self {
        Self {
            next: AtomicU64::new(first),
        }
    }

    /// Takes the next `count` numbers, fewer at the end of the key's life, none after it.
    pub(crate) fn reserve(&self, count: u32) -> Range<u64> {
        let mut first = self.next.load(Ordering::Relaxed);
        loop {
            let end = first
                .saturating_add(u64::from(count))
                .min(REJECT_AFTER_MESSAGES);
            if end <= first {
                return first..first;
            }
            // Numbers order nothing but themselves, so no stronger ordering is needed: the
            // exchange alone makes ranges disjoint.
            match self
                .next
                .compare_exchange_weak(first, end, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return first..end,
                Err(found) => first = found,
            }
        }
    }

    /// How many numbers were handed out.
    pub(crate) fn used(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_the_one_before_the_limit() {
        let counter = SendCounter::starting_at(REJECT_AFTER_MESSAGES - 3);
        assert_eq!(counter.reserve(2).count(), 2);
        let last = counter.reserve(64);
        assert_eq!(last, REJECT_AFTER_MESSAGES - 1..REJECT_AFTER_MESSAGES);
        assert!(counter.reserve(1).is_empty());
        assert_eq!(counter.used(), REJECT_AFTER_MESSAGES);
        assert_eq!(REJECT_AFTER_MESSAGES, 0xffff_ffff_ffff_dfff);
    }
}

#[cfg(all(test, loom))]
mod tests {
    use super::*;
    use loom::sync::Arc;
    use std::vec::Vec;

    /// Every interleaving of three workers that reserve unequal ranges.
    fn check(first: u64) {
        loom::model(move || {
            let counter = Arc::new(SendCounter::starting_at(first));
            let workers = [2, 3].map(|count| {
                let counter = counter.clone();
                loom::thread::spawn(move || counter.reserve(count))
            });
            let mut taken: Vec<u64> = counter.reserve(1).collect();
            for worker in workers {
                taken.extend(worker.join().unwrap());
            }
            taken.sort_unstable();
            assert!(taken.windows(2).all(|pair| pair[0] + 1 == pair[1]));
            assert!(taken.iter().all(|n| *n < REJECT_AFTER_MESSAGES));
            assert_eq!(taken.first(), Some(&first));
            let expected = (REJECT_AFTER_MESSAGES - first).min(6);
            assert_eq!(taken.len() as u64, expected);
        });
    }

    #[test]
    fn no_counter_is_handed_out_twice() {
        check(0);
    }

    #[test]
    fn no_counter_is_handed_out_twice_at_the_end_of_a_keys_life() {
        check(REJECT_AFTER_MESSAGES - 4);
    }
}
