//! Which counters of a session were seen: a ring of words after RFC 6479.
//!
//! In: the counter of a packet whose tag verified. Out: whether it is new. A counter is
//! accepted at most once, and one that is as far behind the newest as the window is wide is
//! not accepted at all. One owner decides; workers that only open packets ask it afterwards.

use alloc::boxed::Box;
use alloc::vec;

/// Counters a router remembers: a burst over several cores and paths comes in disorder.
pub const ROUTER_WINDOW: u16 = 8192;

/// Counters a microcontroller remembers.
pub const MICRO_WINDOW: u16 = 2048;

const WORD_BITS: u64 = u32::BITS as u64;

/// The window of one session.
///
/// Of `words * 32` bits one word is always being refilled, so `(words - 1) * 32` counters
/// behind the newest are told apart.
#[derive(Debug)]
pub struct ReplayWindow {
    words: Box<[u32]>,
    newest: Option<u64>,
}

/// The counter was seen before, or is too far behind to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet's counter was seen before or is too old to tell")]
pub struct Seen;

impl ReplayWindow {
    /// Makes a window that remembers at least `counters` (rounded up to whole words, at
    /// least one). Allocates `counters / 8` bytes and four more.
    pub fn new(counters: u16) -> Self {
        let words = u32::from(counters.max(1)).div_ceil(u32::BITS) + 1;
        Self {
            words: vec![0; words as usize].into_boxed_slice(),
            newest: None,
        }
    }

    /// The counters that are told apart, including the newest.
    pub fn width(&self) -> u64 {
        (self.words.len() as u64).saturating_sub(1) * WORD_BITS
    }

    /// Takes note of `counter`.
    ///
    /// # Errors
    /// [`Seen`] if it was noted before or is [`ReplayWindow::width`] or more behind the newest.
    pub fn note(&mut self, counter: u64) -> Result<(), Seen> {
        match self.newest {
            Some(newest) if counter <= newest => {
                if newest - counter >= self.width() {
                    return Err(Seen);
                }
            }
            newest => {
                self.advance(newest.map_or(0, |n| n / WORD_BITS + 1), counter / WORD_BITS);
                self.newest = Some(counter);
            }
        }
        let bit = 1u32 << (counter % WORD_BITS);
        let word = self.word(counter / WORD_BITS);
        if *word & bit != 0 {
            return Err(Seen);
        }
        *word |= bit;
        Ok(())
    }

    /// Clears the words `first..=last`, which come into the window anew. Those before the
    /// last whole turn of the ring would only be cleared twice.
    fn advance(&mut self, first: u64, last: u64) {
        let turn = self.words.len() as u64;
        for index in first.max(last.saturating_sub(turn - 1))..=last {
            *self.word(index) = 0;
        }
    }

    fn word(&mut self, index: u64) -> &mut u32 {
        let at = index % self.words.len() as u64;
        // At least two words exist and `at` is less than their number.
        &mut self.words[at as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// The law in its plainest form.
    struct Naive {
        seen: BTreeSet<u64>,
        width: u64,
    }

    impl Naive {
        fn note(&mut self, counter: u64) -> Result<(), Seen> {
            let newest = self.seen.last().copied().unwrap_or(0);
            if self.seen.contains(&counter) || newest.saturating_sub(counter) >= self.width {
                return Err(Seen);
            }
            self.seen.insert(counter);
            Ok(())
        }
    }

    fn check(size: u16, counters: impl IntoIterator<Item = u64>) {
        let mut window = ReplayWindow::new(size);
        assert!(window.width() >= u64::from(size));
        let mut naive = Naive {
            seen: BTreeSet::new(),
            width: window.width(),
        };
        for counter in counters {
            assert_eq!(window.note(counter), naive.note(counter), "{counter}");
        }
    }

    #[test]
    fn each_counter_is_accepted_once() {
        for size in [1, 32, MICRO_WINDOW, ROUTER_WINDOW] {
            let width = u64::from(size).next_multiple_of(32);
            check(size, [0, 0, 1, 1, 9, 8, 7, 7, 0]);
            check(size, [width, 0, 1, width, 2 * width, width + 1, width]);
            check(size, (0..3 * width).chain(0..3 * width));
            check(size, (0..3 * width).rev());
            check(
                size,
                [u64::MAX, u64::MAX, u64::MAX - 1, 0, u64::MAX - width],
            );
        }
    }

    fn walk() -> impl Strategy<Value = std::vec::Vec<(u8, u64)>> {
        prop::collection::vec((0u8..8, 0u64..20_000), 1..400)
    }

    /// Mostly steps near the newest counter, now and then a leap.
    fn counters(walk: &[(u8, u64)]) -> impl Iterator<Item = u64> {
        let mut newest = 0u64;
        walk.iter().map(move |(kind, by)| {
            let counter = match kind {
                0 => newest.saturating_add(*by),
                1..=3 => newest.saturating_add(by % 70),
                4 | 5 => newest.saturating_sub(by % 70),
                _ => newest.saturating_sub(*by),
            };
            newest = newest.max(counter);
            counter
        })
    }

    proptest! {
        #[test]
        fn the_router_window_obeys_the_law(walk in walk()) {
            check(ROUTER_WINDOW, counters(&walk));
        }

        #[test]
        fn the_micro_window_obeys_the_law(walk in walk()) {
            check(MICRO_WINDOW, counters(&walk));
        }

        #[test]
        fn any_counters_obey_the_law(size in 1u16..300, counters: std::vec::Vec<u64>) {
            check(size, counters);
        }
    }
}
