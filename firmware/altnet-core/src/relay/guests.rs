//! Clients that came over a stream and whom nobody knows yet.
//!
//! In: streams that stand, those that have ended, the time, who registered. Out: streams to close.
//! Whoever comes is a guest until it registers in a control session over its stream, and has
//! [`PATIENCE`] for that, whether or not it ever says anything: a connection costs a relay memory
//! that another client may need. A member that goes by another way leaves its stream to nobody, which is
//! found out when all are looked through, every [`SWEEP`].

use alloc::collections::{BTreeSet, VecDeque};

use altnet_wire::time::{Duration, Instant};

use super::{RelayFull, StreamId};

/// How long a guest has.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often streams of members are looked through. A client that doesn't need its stream any more ends it
/// by itself sooner.
pub const SWEEP: Duration = Duration::from_secs(120);
/// The most guests at a time.
pub const MAX_GUESTS: usize = 256;

/// Streams of which nobody knows whose they are.
#[derive(Debug, Default)]
pub struct Guests {
    /// Each with when its time is over, the first to go first.
    waiting: VecDeque<(StreamId, Instant)>,
    /// Those that were members' when they were looked at, and when that is done again.
    known: BTreeSet<StreamId>,
    sweep: Instant,
}

impl Guests {
    /// A stream stands.
    ///
    /// # Errors
    /// [`RelayFull`]: there are [`MAX_GUESTS`] already; this one is to be closed.
    pub fn came(&mut self, stream: StreamId, now: Instant) -> Result<(), RelayFull> {
        if self.waiting.len() >= MAX_GUESTS {
            return Err(RelayFull);
        }
        self.waiting.push_back((stream, now.after(PATIENCE)));
        Ok(())
    }

    /// A stream has ended.
    pub fn gone(&mut self, stream: StreamId) {
        if !self.known.remove(&stream) {
            self.waiting.retain(|(waiting, _)| *waiting != stream);
        }
    }

    /// The next stream to close, until there is none; `is_known` says whose streams are members'.
    pub fn poll(&mut self, is_known: impl Fn(StreamId) -> bool, now: Instant) -> Option<StreamId> {
        while let Some((stream, _)) = self.waiting.pop_front_if(|(_, until)| *until <= now) {
            if !is_known(stream) {
                return Some(stream);
            }
            if self.known.is_empty() {
                self.sweep = now.after(SWEEP);
            }
            self.known.insert(stream);
        }
        if self.known.is_empty() || self.sweep > now {
            return None;
        }
        let left = self
            .known
            .iter()
            .find(|stream| !is_known(**stream))
            .copied();
        match left {
            Some(stream) => self.known.remove(&stream),
            None => {
                self.sweep = now.after(SWEEP);
                false
            }
        };
        left
    }

    /// When [`Guests::poll`] next has something to say.
    pub fn deadline(&self) -> Instant {
        let waiting = self.waiting.front();
        let waiting = waiting.map_or(Instant::NEVER, |(_, until)| *until);
        match self.known.is_empty() {
            true => waiting,
            false => waiting.min(self.sweep),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    #[test]
    fn a_guest_that_says_nothing_goes_after_twenty_seconds() {
        let mut guests = Guests::default();
        guests.came(StreamId(1), at(0)).unwrap();
        guests.came(StreamId(2), at(5)).unwrap();
        assert_eq!(guests.deadline(), at(20));
        assert_eq!(guests.poll(|_| false, at(19)), None);
        assert_eq!(guests.poll(|_| false, at(20)), Some(StreamId(1)));
        assert_eq!(guests.poll(|_| false, at(20)), None);
        assert_eq!(guests.deadline(), at(25));
    }

    #[test]
    fn who_registered_in_time_or_left_is_not_closed() {
        let mut guests = Guests::default();
        for stream in 1..=3 {
            guests.came(StreamId(stream), at(0)).unwrap();
        }
        guests.gone(StreamId(2));
        let is_known = |stream| stream == StreamId(1);
        assert_eq!(guests.poll(is_known, at(30)), Some(StreamId(3)));
        assert_eq!(guests.poll(is_known, at(30)), None);
        guests.gone(StreamId(1));
        assert_eq!(guests.deadline(), Instant::NEVER);
    }

    #[test]
    fn a_stream_that_its_member_has_left_goes_too() {
        let mut guests = Guests::default();
        for stream in 1..=2 {
            guests.came(StreamId(stream), at(0)).unwrap();
        }
        assert_eq!(guests.poll(|_| true, at(20)), None);
        assert_eq!(guests.deadline(), at(140));
        let is_known = |stream| stream == StreamId(1);
        assert_eq!(guests.poll(is_known, at(140)), Some(StreamId(2)));
        assert_eq!(guests.poll(is_known, at(140)), None);
        assert_eq!(guests.deadline(), at(260));
    }

    #[test]
    fn there_is_room_for_another_guest_only_once_one_has_gone() {
        let mut guests = Guests::default();
        for stream in (1..).take(MAX_GUESTS) {
            guests.came(StreamId(stream), at(0)).unwrap();
        }
        assert_eq!(guests.came(StreamId(0), at(1)), Err(RelayFull));
        guests.gone(StreamId(7));
        assert_eq!(guests.came(StreamId(0), at(1)), Ok(()));
    }
}
