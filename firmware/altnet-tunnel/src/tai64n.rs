//! TAI64N stamps that never repeat, with a clock, with a wrong one and with none.
//!
//! A responder accepts an initiation only if its stamp is greater than the last one of the
//! same initiator, so a node that restarts must start above everything it ever sent. The
//! calendar may be unknown or run backwards; flash must not be written per handshake. So
//! stamps are `max(calendar, last + 1)`, below a reservation that the driver has saved
//! before any of it is used.
//!
//! In: the calendar when known, confirmations of what was saved. Out: stamps, and the next
//! reservation to save. A forged calendar far ahead costs nothing that lasts: stamps go on
//! one nanosecond at a time from wherever they are.

use altnet_wire::time::Duration;

/// Bytes in a stamp.
pub const TAI64N_BYTES: usize = 12;

/// TAI64's second of 1970-01-01 00:00:00 TAI (D. J. Bernstein, "TAI64, TAI64N, and TAI64NA").
const EPOCH: u64 = 1 << 62;
/// TAI ran ten seconds ahead of UTC in 1970; WireGuard's implementations count no others.
const LEAP_S: u64 = 10;
/// Calendars past this second of the Unix era (about 36,800 years) are cut to it, so that
/// there is always a later stamp.
const LAST_UNIX_S: u64 = 1 << 40;
const NANOS_PER_S: u32 = 1_000_000_000;
/// The calendar's nanoseconds are cut to multiples of 2^24 (about 17 ms), so that a stamp
/// tells no more about the clock than it must.
const WHITENED_BITS: u32 = 24;
/// What is reserved while the calendar is unknown or behind: a second holds a thousand
/// million stamps, and a device that restarts often drifts one second each time.
const BLOCK_WITHOUT_CALENDAR: Duration = Duration::from_secs(1);

/// A moment as handshakes write it: seconds since 1970 TAI plus 2^62, then nanoseconds,
/// big-endian, so that bytes sort as moments do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tai64n {
    seconds: u64,
    nanos: u32,
}

impl Tai64n {
    /// Before every stamp: the floor of a key that never made one.
    pub const ZERO: Self = Self {
        seconds: 0,
        nanos: 0,
    };

    /// The stamp of a calendar moment: seconds of the Unix era and nanoseconds within one.
    pub fn from_unix(seconds: u64, nanos: u32) -> Self {
        Self {
            seconds: EPOCH + LEAP_S + seconds.min(LAST_UNIX_S),
            nanos: nanos.min(NANOS_PER_S - 1),
        }
    }

    /// Reads a stamp. Any bytes are one: whoever wrote them only has to go up.
    pub fn from_bytes(bytes: &[u8; TAI64N_BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, tail @ ..] = *bytes;
        Self {
            seconds: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            nanos: u32::from_be_bytes(tail),
        }
    }

    /// Writes a stamp.
    pub fn to_bytes(self) -> [u8; TAI64N_BYTES] {
        let [a, b, c, d, e, f, g, h] = self.seconds.to_be_bytes();
        let [i, j, k, l] = self.nanos.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }

    /// The stamp one nanosecond later, saturating at the end of time.
    #[must_use]
    pub fn next(self) -> Self {
        if self.nanos < NANOS_PER_S - 1 {
            return Self {
                nanos: self.nanos + 1,
                ..self
            };
        }
        Self {
            seconds: self.seconds.saturating_add(1),
            nanos: 0,
        }
    }

    /// The stamp `duration` later, in whole seconds, saturating.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self {
            seconds: self.seconds.saturating_add(duration.as_secs()),
            ..self
        }
    }

    fn whitened(self) -> Self {
        Self {
            nanos: self.nanos >> WHITENED_BITS << WHITENED_BITS,
            ..self
        }
    }
}

/// The stamps of one local static key.
#[derive(Debug)]
pub struct Tai64nClock {
    last: Tai64n,
    saved: Tai64n,
    asked: Tai64n,
    block: Duration,
}

/// A stamp can't be given yet: what [`Tai64nClock::to_save`] names must be saved first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReserved;

impl Tai64nClock {
    /// Starts above `floor`, the last reservation that was saved ([`Tai64n::ZERO`] for a
    /// new key). `block` is how far ahead is reserved while the calendar runs: one write to
    /// flash at most every half of it.
    pub const fn new(floor: Tai64n, block: Duration) -> Self {
        Self {
            last: floor,
            saved: floor,
            asked: floor,
            block,
        }
    }

    /// Gives the next stamp, greater than every one before it.
    ///
    /// # Errors
    /// [`NotReserved`] if it is past what was saved.
    pub fn stamp(&mut self, calendar: Option<Tai64n>) -> Result<Tai64n, NotReserved> {
        let calendar = calendar.unwrap_or_default().whitened();
        let stamp = calendar.max(self.last.next());
        let block = if stamp == calendar {
            self.block.max(BLOCK_WITHOUT_CALENDAR)
        } else {
            BLOCK_WITHOUT_CALENDAR
        };
        // Ask while half of the block is left, so that no handshake waits for flash.
        if stamp.after(block / 2) >= self.asked {
            self.asked = stamp.after(block);
        }
        if stamp > self.saved || stamp <= self.last {
            return Err(NotReserved);
        }
        self.last = stamp;
        Ok(stamp)
    }

    /// The reservation that waits to be saved, if any.
    pub fn to_save(&self) -> Option<Tai64n> {
        (self.asked > self.saved).then_some(self.asked)
    }

    /// Notes that a reservation is on disk.
    pub fn saved(&mut self, until: Tai64n) {
        // No more than was asked for: a driver can't raise the floor by mistake.
        self.saved = self.saved.max(until.min(self.asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn a_stamp_has_bernsteins_layout() {
        // 1992-06-02 08:07:09 TAI is 0x400000002a2b2c2d in his text; as a Unix second that is
        // ten less, since the conversion counts ten leap seconds.
        let stamp = Tai64n::from_unix(0x2a2b_2c2d - 10, 5);
        assert_eq!(
            stamp.to_bytes(),
            [0x40, 0, 0, 0, 0x2a, 0x2b, 0x2c, 0x2d, 0, 0, 0, 5]
        );
        assert_eq!(Tai64n::from_bytes(&stamp.to_bytes()), stamp);
    }

    #[test]
    fn nothing_is_stamped_before_it_is_saved() {
        let mut clock = Tai64nClock::new(Tai64n::ZERO, DAY);
        let noon = Tai64n::from_unix(1_800_000_000, 0);
        assert_eq!(clock.stamp(Some(noon)), Err(NotReserved));
        let until = clock.to_save().unwrap();
        assert_eq!(clock.stamp(Some(noon)), Err(NotReserved));
        clock.saved(until);
        assert_eq!(clock.to_save(), None);
        assert_eq!(clock.stamp(Some(noon)), Ok(noon));
        assert_eq!(clock.stamp(Some(noon)), Ok(noon.next()));
    }

    #[test]
    fn a_day_of_handshakes_writes_at_most_twice_after_the_first() {
        let mut clock = Tai64nClock::new(Tai64n::ZERO, DAY);
        let mut writes = 0;
        for minute in 0..24 * 60 {
            let now = Some(Tai64n::from_unix(1_800_000_000 + 60 * minute, 0));
            let _ = clock.stamp(now);
            if let Some(until) = clock.to_save() {
                writes += 1;
                clock.saved(until);
            }
        }
        assert!(writes <= 3, "{writes}");
    }

    #[test]
    fn a_calendar_far_ahead_poisons_nothing_that_lasts() {
        let mut clock = Tai64nClock::new(Tai64n::ZERO, DAY);
        let mut give = |calendar| {
            let _ = clock.stamp(calendar);
            if let Some(until) = clock.to_save() {
                clock.saved(until);
            }
            clock.stamp(calendar)
        };
        let forged = give(Some(Tai64n::from_unix(u64::MAX, u32::MAX))).unwrap();
        let honest = give(Some(Tai64n::from_unix(1_800_000_000, 0))).unwrap();
        assert!(honest > forged);
        assert!(give(None).unwrap() > honest);
    }

    proptest! {
        /// Whatever the calendar says, whenever saves are confirmed and power is cut, no
        /// stamp repeats or goes back.
        #[test]
        fn no_stamp_repeats_across_restarts(
            steps in prop::collection::vec((0u8..4, prop::option::of(0u64..1_000_000)), 1..200),
        ) {
            let mut flash = Tai64n::ZERO;
            let mut clock = Tai64nClock::new(flash, Duration::from_secs(3600));
            let mut stamps: Vec<Tai64n> = Vec::new();
            for (step, calendar) in steps {
                match step {
                    0 | 1 => stamps.extend(clock.stamp(calendar.map(|s| Tai64n::from_unix(s, 0)))),
                    2 => if let Some(until) = clock.to_save() {
                        flash = until;
                        clock.saved(until);
                    },
                    _ => clock = Tai64nClock::new(flash, Duration::from_secs(3600)),
                }
            }
            prop_assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
        }

        #[test]
        fn stamps_sort_as_their_bytes(a: [u8; 12], b: [u8; 12]) {
            let (x, y) = (Tai64n::from_bytes(&a), Tai64n::from_bytes(&b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.to_bytes(), a);
        }
    }
}
