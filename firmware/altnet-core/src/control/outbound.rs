//! The messages of one session on their way out: cut, sent, sent again, acknowledged.
//!
//! In: messages, acknowledgements, time. Out: fragments to send now. A fragment is sent
//! again when its acknowledgement is late; the wait follows the measured round trips and
//! doubles while nothing is acknowledged (RFC 6298), until the session is given up. How
//! many are under way at once grows with each acknowledgement and halves on a loss.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use altnet_wire::control::{ControlFrame, FRAGMENT_BYTES, MAX_MESSAGE_BYTES};
use altnet_wire::time::{Duration, Instant};

use super::SendError;
use super::limits::{
    ControlLimits, FIRST_RETRANSMIT, MAX_RETRANSMIT, MAX_TRIES, MESSAGE_WINDOW, MIN_RETRANSMIT,
};

/// Fragments under way at first, at least and at most.
const FIRST_WINDOW: usize = 8;
const MIN_WINDOW: usize = 2;
const MAX_WINDOW: usize = 32;

/// Too many retransmissions went unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GivenUp;

/// The way out.
pub(super) struct Outbound {
    next: u32,
    queue: VecDeque<Outgoing>,
    queued_bytes: usize,
    window: usize,
    trip: Option<Trip>,
    backoff: u8,
    backed_off: Instant,
    sent_again: bool,
}

struct Outgoing {
    id: u32,
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, Default)]
struct Piece {
    state: State,
    resent: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Waiting,
    Sent(Instant),
    Acked,
}

/// Round trips, smoothed, and how far they scatter, in microseconds (RFC 6298 section 2).
#[derive(Clone, Copy)]
struct Trip {
    smooth_us: u64,
    scatter_us: u64,
}

impl Outbound {
    pub(super) const fn new() -> Self {
        Self {
            next: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            window: FIRST_WINDOW,
            trip: None,
            backoff: 0,
            backed_off: Instant::ZERO,
            sent_again: false,
        }
    }

    /// Queues a message; returns its number.
    pub(super) fn push(&mut self, bytes: &[u8], limits: &ControlLimits) -> Result<u32, SendError> {
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(SendError::TooLarge {
                found: bytes.len(),
                limit: MAX_MESSAGE_BYTES,
            });
        }
        let queued_bytes = self.queued_bytes.saturating_add(bytes.len());
        if self.queue.len() >= limits.queued_messages || queued_bytes > limits.queued_bytes {
            return Err(SendError::Full);
        }
        // The last number is never used, so that the next one always exists.
        let id = self.next;
        self.next = id.checked_add(1).ok_or(SendError::Full)?;
        self.queued_bytes = queued_bytes;
        let count = bytes.len().div_ceil(FRAGMENT_BYTES).max(1);
        self.queue.push_back(Outgoing {
            id,
            bytes: bytes.to_vec(),
            pieces: alloc::vec![Piece::default(); count],
        });
        Ok(id)
    }

    /// Whether there are no numbers left for messages.
    pub(super) const fn is_exhausted(&self) -> bool {
        self.next == u32::MAX
    }

    /// The next fragment that is to be sent now and takes at most `room` bytes as a frame.
    pub(super) fn next_fragment(&mut self, room: usize, now: Instant) -> Option<ControlFrame<'_>> {
        if self.in_flight() >= self.window {
            return None;
        }
        let end = self.window_end();
        for outgoing in self.queue.iter_mut().take_while(|o| o.id < end) {
            let waiting = |piece: &Piece| piece.state == State::Waiting;
            let Some(at) = outgoing.pieces.iter().position(waiting) else {
                continue;
            };
            let start = at * FRAGMENT_BYTES;
            let end = (start + FRAGMENT_BYTES).min(outgoing.bytes.len());
            let fragment = ControlFrame::Fragment {
                message: outgoing.id,
                index: u8::try_from(at).ok()?,
                count: u8::try_from(outgoing.pieces.len()).ok()?,
                bytes: outgoing.bytes.get(start..end)?,
            };
            if fragment.encoded_len() > room {
                return None;
            }
            let piece = outgoing.pieces.get_mut(at)?;
            piece.state = State::Sent(now);
            // What a path that was left had swallowed says nothing of this one.
            self.sent_again |= piece.resent && self.backoff > 0;
            return Some(fragment);
        }
        None
    }

    /// Whether a fragment was given since the last time this was asked that didn't arrive before.
    pub(super) const fn sent_again(&mut self) -> bool {
        core::mem::replace(&mut self.sent_again, false)
    }

    /// The first number that the other side doesn't take yet: its window begins no earlier
    /// than at our oldest message.
    fn window_end(&self) -> u32 {
        let oldest = self.queue.front().map_or(self.next, |front| front.id);
        oldest.saturating_add(MESSAGE_WINDOW)
    }

    fn in_flight(&self) -> usize {
        self.flying().count()
    }

    /// When each fragment that is under way was sent.
    fn flying(&self) -> impl Iterator<Item = Instant> {
        let end = self.window_end();
        self.queue
            .iter()
            .take_while(move |outgoing| outgoing.id < end)
            .flat_map(|outgoing| outgoing.pieces.iter())
            .filter_map(|piece| match piece.state {
                State::Sent(at) => Some(at),
                State::Waiting | State::Acked => None,
            })
    }

    /// Has everything under way sent again at once: it left on a path that is given up.
    pub(super) fn restart(&mut self) {
        for outgoing in &mut self.queue {
            for piece in &mut outgoing.pieces {
                if let State::Sent(_) = piece.state {
                    piece.state = State::Waiting;
                    piece.resent = true;
                }
            }
        }
        self.backoff = 0;
    }

    /// Takes an acknowledgement. Returns whether the message has arrived just now.
    pub(super) fn ack(&mut self, message: u32, fragments: u32, now: Instant) -> bool {
        let Ok(place) = self.queue.binary_search_by_key(&message, |o| o.id) else {
            return false;
        };
        let Some(outgoing) = self.queue.get_mut(place) else {
            return false;
        };
        let mut sample = None;
        let mut fresh = 0;
        for (index, piece) in outgoing.pieces.iter_mut().enumerate() {
            let bit = 1u32.checked_shl(u32::try_from(index).unwrap_or(u32::MAX));
            if bit.is_none_or(|bit| fragments & bit == 0) || piece.state == State::Acked {
                continue;
            }
            if let (State::Sent(at), false) = (piece.state, piece.resent) {
                // Karn's algorithm: what was sent twice measures nothing.
                sample = Some(now.saturating_since(at));
            }
            piece.state = State::Acked;
            fresh += 1;
        }
        let complete = outgoing.pieces.iter().all(|p| p.state == State::Acked);
        if fresh > 0 {
            self.backoff = 0;
            self.window = (self.window + fresh).min(MAX_WINDOW);
        }
        if let Some(sample) = sample {
            self.measure(sample);
        }
        if complete && let Some(done) = self.queue.remove(place) {
            self.queued_bytes = self.queued_bytes.saturating_sub(done.bytes.len());
            return true;
        }
        false
    }

    /// Takes a measured round trip (RFC 6298 sections 2.2 and 2.3).
    pub(super) fn measure(&mut self, sample: Duration) {
        let sample_us = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX / 8);
        let sample_us = sample_us.min(u64::MAX / 8);
        self.trip = Some(match self.trip {
            None => Trip {
                smooth_us: sample_us,
                scatter_us: sample_us / 2,
            },
            Some(trip) => {
                let off = trip.smooth_us.abs_diff(sample_us);
                Trip {
                    scatter_us: trip.scatter_us - trip.scatter_us / 4 + off / 4,
                    smooth_us: trip.smooth_us - trip.smooth_us / 8 + sample_us / 8,
                }
            }
        });
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        self.trip.map(|trip| Duration::from_micros(trip.smooth_us))
    }

    /// How long an acknowledgement may take now.
    fn wait(&self) -> Duration {
        let base = match self.trip {
            None => FIRST_RETRANSMIT,
            Some(trip) => {
                let us = trip
                    .smooth_us
                    .saturating_add(trip.scatter_us.saturating_mul(4));
                Duration::from_micros(us)
            }
        };
        base.max(MIN_RETRANSMIT)
            .saturating_mul(1 << self.backoff.min(MAX_TRIES))
            .min(MAX_RETRANSMIT)
    }

    /// When the next acknowledgement is late.
    pub(super) fn deadline(&self) -> Instant {
        let first = self.flying().min();
        first.map_or(Instant::NEVER, |at| at.after(self.wait()))
    }

    /// Lets what is late be sent again.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Result<(), GivenUp> {
        let wait = self.wait();
        let mut lost = false;
        let end = self.window_end();
        for outgoing in self.queue.iter_mut().take_while(|o| o.id < end) {
            for piece in &mut outgoing.pieces {
                let State::Sent(at) = piece.state else {
                    continue;
                };
                if at.after(wait) <= now {
                    piece.state = State::Waiting;
                    piece.resent = true;
                    // What left before the last loss was seen is the same loss.
                    lost |= at >= self.backed_off;
                }
            }
        }
        if lost {
            self.backed_off = now;
            self.backoff = self.backoff.saturating_add(1);
            self.window = (self.window / 2).max(MIN_WINDOW);
            if self.backoff > MAX_TRIES {
                return Err(GivenUp);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ControlLimits = ControlLimits::ROUTER;

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn pushed(bytes: &[u8]) -> Outbound {
        let mut outbound = Outbound::new();
        assert_eq!(outbound.push(bytes, &LIMITS), Ok(0));
        outbound
    }

    #[test]
    fn waits_double_and_end() {
        let mut outbound = pushed(b"m");
        let mut now = at(1000);
        let mut waits = Vec::new();
        while outbound.next_fragment(2000, now).is_some() {
            let due = outbound.deadline();
            waits.push(due.saturating_since(now).as_millis());
            now = due;
            if outbound.handle_timeout(now).is_err() {
                break;
            }
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }

    #[test]
    fn what_was_sent_twice_measures_nothing() {
        let mut outbound = pushed(b"m");
        assert!(outbound.next_fragment(2000, at(0)).is_some());
        outbound.handle_timeout(at(500)).unwrap();
        assert!(outbound.next_fragment(2000, at(500)).is_some());
        assert!(outbound.ack(0, 1, at(510)));
        assert_eq!(outbound.rtt(), None);
        assert_eq!(outbound.push(b"n", &LIMITS), Ok(1));
        assert!(outbound.next_fragment(2000, at(600)).is_some());
        assert!(outbound.ack(1, 1, at(640)));
        assert_eq!(outbound.rtt(), Some(Duration::from_millis(40)));
        assert_eq!(outbound.deadline(), Instant::NEVER);
    }

    #[test]
    fn acknowledgements_of_what_was_never_sent_are_passed_over() {
        let mut outbound = pushed(&[1; 3000]);
        assert!(!outbound.ack(7, u32::MAX, at(1)));
        assert!(outbound.next_fragment(2000, at(0)).is_some());
        assert!(!outbound.ack(0, 0b1, at(1)));
        assert!(!outbound.ack(0, 0b1000, at(1)));
        assert!(outbound.ack(0, 0b110, at(1)));
        assert!(!outbound.ack(0, 0b111, at(1)));
    }

    #[test]
    fn a_fragment_waits_for_room_and_for_the_window() {
        let mut outbound = pushed(&[1; MAX_MESSAGE_BYTES]);
        assert!(outbound.next_fragment(1160, at(0)).is_none());
        for _ in 0..FIRST_WINDOW {
            assert!(outbound.next_fragment(1161, at(0)).is_some());
        }
        assert!(outbound.next_fragment(1161, at(0)).is_none());
        assert!(!outbound.ack(0, 1, at(1)));
        assert!(outbound.next_fragment(1161, at(1)).is_some());
    }
}
