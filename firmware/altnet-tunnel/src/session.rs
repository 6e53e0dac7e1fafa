//! A session's two halves, which worker threads can hold while the engine keeps the choices.
//!
//! [`SendSession`] seals: workers reserve disjoint ranges of one counter and put packets
//! behind it without a lock. [`RecvSession`] opens: any worker can verify a tag, and gets an
//! [`Unreplayed`] that only the engine, which owns the replay window, turns into a packet.
//!
//! Sessions are never cloned, serialised or carried across a restart, and their keys are
//! wiped when the last holder lets go.

use altnet_wire::frame::Frame;
use altnet_wire::time::{Duration, Instant};

use crate::aead::{Aead, TAG_BYTES};
use crate::counter::{REJECT_AFTER_MESSAGES, SendCounter};
use crate::message::{Message, TRANSPORT_HEADER_BYTES, Transport};

/// A session seals and opens nothing once it is this old (whitepaper section 6.1).
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);

/// Packets are padded with zeros to a multiple of this (section 5.4.6).
pub const PADDING_BYTES: usize = 16;

/// Why a packet could not be sealed. The frame is unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// The session is [`REJECT_AFTER_TIME`] old or has used up its counter.
    #[error("the session has expired")]
    Expired,
    /// The reserved range is used up: reserve another.
    #[error("the reserved counters are used up")]
    RangeUsedUp,
    /// The frame lacks room for 16 bytes before, or padding and 16 behind.
    #[error("the frame has no room for a seal")]
    NoRoom,
}

/// The sending half.
pub struct SendSession<A> {
    key: A,
    receiver: u32,
    counter: SendCounter,
    born: Instant,
    mtu_bytes: u16,
}

/// Counters of one session that nobody else has. What isn't used is lost, which costs
/// nothing: a gap is no different from a lost packet.
pub struct Reserved<'a, A> {
    session: &'a SendSession<A>,
    next: u64,
    end: u64,
}

impl<A: Aead> SendSession<A> {
    pub(crate) fn new(key: &[u8; 32], receiver: u32, born: Instant, mtu_bytes: u16) -> Self {
        Self {
            key: A::new(key),
            receiver,
            counter: SendCounter::starting_at(0),
            born,
            mtu_bytes,
        }
    }

    /// The same session as it is when it has sealed so many.
    #[cfg(test)]
    pub(crate) fn having_used(mut self, packets: u64) -> Self {
        self.counter = SendCounter::starting_at(packets);
        self
    }

    /// Takes up to `count` counters. At the end of the session's life there are fewer, or none.
    pub fn reserve(&self, count: u32) -> Reserved<'_, A> {
        let range = self.counter.reserve(count);
        Reserved {
            session: self,
            next: range.start,
            end: range.end,
        }
    }

    /// Packets that were given a counter.
    pub fn used(&self) -> u64 {
        self.counter.used()
    }

    /// Whether the session may seal nothing more.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.saturating_since(self.born) >= REJECT_AFTER_TIME || self.used() >= REJECT_AFTER_MESSAGES
    }

    /// The length that a packet of `len` bytes is padded to: a multiple of
    /// [`PADDING_BYTES`], but not above the tunnel's MTU.
    fn padded(&self, len: usize) -> usize {
        let limit = usize::from(self.mtu_bytes).max(len);
        len.next_multiple_of(PADDING_BYTES).min(limit)
    }
}

impl<A: Aead> Reserved<'_, A> {
    /// Seals the frame's packet in place.
    ///
    /// In: an IP packet, or nothing for a keepalive. Out: a transport message: 16-byte header,
    /// ciphertext padded to 16, 16-byte tag. If sending it fails, the same bytes are sent
    /// again, never the packet sealed anew.
    ///
    /// # Errors
    /// [`SealError`]; the frame then holds what it held.
    ///
    /// Source: whitepaper section 5.4.6.
    pub fn seal(&mut self, frame: &mut Frame<'_>, now: Instant) -> Result<(), SealError> {
        let session = self.session;
        if now.saturating_since(session.born) >= REJECT_AFTER_TIME {
            return Err(SealError::Expired);
        }
        if self.next >= self.end {
            return Err(SealError::RangeUsedUp);
        }
        let len = frame.len();
        let padding = session.padded(len).saturating_sub(len);
        // Room first, so that a counter is spent only on a packet that leaves.
        if frame.push_back(padding + TAG_BYTES).is_err() {
            return Err(SealError::NoRoom);
        }
        let header = Transport {
            receiver: session.receiver,
            counter: self.next,
        };
        match frame.push_front(TRANSPORT_HEADER_BYTES) {
            Ok(front) => front.copy_from_slice(&header.encode()),
            Err(_) => {
                frame.truncate(len);
                return Err(SealError::NoRoom);
            }
        }
        let (_, body) = frame
            .packet_mut()
            .split_at_mut_checked(TRANSPORT_HEADER_BYTES)
            .ok_or(SealError::NoRoom)?;
        let (text, tag) = body
            .split_last_chunk_mut::<TAG_BYTES>()
            .ok_or(SealError::NoRoom)?;
        self.next += 1;
        // A frame is far below the cipher's limit, so this can't fail.
        *tag = session
            .key
            .seal(header.counter, text)
            .map_err(|_| SealError::NoRoom)?;
        Ok(())
    }
}

/// Why a transport message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Not a transport message for this session.
    #[error("the message is not of this session")]
    NotOurs,
    /// The session is [`REJECT_AFTER_TIME`] old, or the counter is past its limit.
    #[error("the session has expired")]
    Expired,
    /// The tag does not verify.
    #[error("the seal does not verify")]
    BadSeal,
}

/// The receiving half.
pub struct RecvSession<A> {
    key: A,
    index: u32,
    born: Instant,
}

/// A packet whose tag verified, of which nobody has said yet that it is new. Its bytes must
/// go nowhere before the engine admitted it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a packet is delivered only after the engine admitted it"]
pub struct Unreplayed {
    pub(crate) index: u32,
    pub(crate) counter: u64,
    pub(crate) wire_bytes: usize,
}

impl<A: Aead> RecvSession<A> {
    pub(crate) fn new(key: &[u8; 32], index: u32, born: Instant) -> Self {
        Self {
            key: A::new(key),
            index,
            born,
        }
    }

    /// The receiver index that this session's messages carry.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Opens the frame's transport message in place.
    ///
    /// Out: the inner packet with its padding, 0 bytes for a keepalive. On error the frame's
    /// contents are unspecified and must not be forwarded.
    ///
    /// # Errors
    /// [`OpenError`].
    ///
    /// Source: whitepaper section 5.4.6; the replay check comes after the tag, in
    /// [`crate::engine::Engine::admit`].
    pub fn open(&self, frame: &mut Frame<'_>, now: Instant) -> Result<Unreplayed, OpenError> {
        let Ok(Message::Transport(header)) = Message::parse(frame.packet()) else {
            return Err(OpenError::NotOurs);
        };
        if header.receiver != self.index {
            return Err(OpenError::NotOurs);
        }
        if header.counter >= REJECT_AFTER_MESSAGES
            || now.saturating_since(self.born) >= REJECT_AFTER_TIME
        {
            return Err(OpenError::Expired);
        }
        let wire_bytes = frame.len();
        frame.pop_front(TRANSPORT_HEADER_BYTES);
        self.key
            .open(header.counter, frame.packet_mut())
            .map_err(|_| OpenError::BadSeal)?;
        frame.truncate(frame.len().saturating_sub(TAG_BYTES));
        Ok(Unreplayed {
            index: self.index,
            counter: header.counter,
            wire_bytes,
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::aead::ChaChaPoly;
    use altnet_wire::frame::FRAME_BYTES;

    const KEY: [u8; 32] = [7; 32];

    fn pair(mtu: u16) -> (SendSession<ChaChaPoly>, RecvSession<ChaChaPoly>) {
        (
            SendSession::new(&KEY, 9, Instant::ZERO, mtu),
            RecvSession::new(&KEY, 9, Instant::ZERO),
        )
    }

    fn check(mtu: u16, len: usize, sealed: usize) {
        let (send, recv) = pair(mtu);
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(&std::vec![5; len]).unwrap();
        send.reserve(1).seal(&mut frame, Instant::ZERO).unwrap();
        assert_eq!(frame.len(), sealed + 32, "{len}");
        let opened = recv.open(&mut frame, Instant::ZERO).unwrap();
        assert_eq!(opened.counter, 0);
        assert_eq!(frame.len(), sealed);
        assert!(frame.packet()[..len].iter().all(|b| *b == 5));
        assert!(frame.packet()[len..].iter().all(|b| *b == 0));
    }

    #[test]
    fn packets_are_padded_to_16_but_never_above_the_mtu() {
        check(1420, 0, 0);
        check(1420, 1, 16);
        check(1420, 16, 16);
        check(1420, 1400, 1408);
        check(1420, 1409, 1420);
        check(1420, 1420, 1420);
        check(1420, 1421, 1421);
    }

    #[test]
    fn a_session_is_dead_at_180_seconds() {
        let (send, recv) = pair(1420);
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let last = Instant::ZERO.after(REJECT_AFTER_TIME - Duration::from_micros(1));
        let late = Instant::ZERO.after(REJECT_AFTER_TIME);
        send.reserve(1).seal(&mut frame, last).unwrap();
        assert_eq!(recv.open(&mut frame, late), Err(OpenError::Expired));
        frame.clear();
        assert_eq!(
            send.reserve(1).seal(&mut frame, late),
            Err(SealError::Expired)
        );
        assert!(frame.is_empty());
    }

    #[test]
    fn a_session_seals_and_opens_nothing_past_its_last_counter() {
        let (send, recv) = pair(1420);
        let send = send.having_used(REJECT_AFTER_MESSAGES - 1);
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let mut reserved = send.reserve(64);
        reserved.seal(&mut frame, Instant::ZERO).unwrap();
        let opened = recv.open(&mut frame, Instant::ZERO).unwrap();
        assert_eq!(opened.counter, REJECT_AFTER_MESSAGES - 1);
        frame.clear();
        let sealed = reserved.seal(&mut frame, Instant::ZERO);
        assert_eq!(sealed, Err(SealError::RangeUsedUp));
        let sealed = send.reserve(1).seal(&mut frame, Instant::ZERO);
        assert_eq!(sealed, Err(SealError::RangeUsedUp));
        assert!(send.is_expired(Instant::ZERO));

        // Somebody else's engine might not stop.
        let header = Transport {
            receiver: 9,
            counter: REJECT_AFTER_MESSAGES,
        };
        let tag = ChaChaPoly::new(&KEY).seal(header.counter, &mut []).unwrap();
        frame.set(&header.encode()).unwrap();
        frame.push_back(TAG_BYTES).unwrap().copy_from_slice(&tag);
        assert_eq!(
            recv.open(&mut frame, Instant::ZERO),
            Err(OpenError::Expired)
        );
    }

    #[test]
    fn a_frame_without_room_keeps_its_packet_and_its_counter() {
        let (send, _) = pair(1420);
        let mut buffer = [0; 8];
        let mut frame = Frame::new(&mut buffer);
        let mut reserved = send.reserve(1);
        let sealed = reserved.seal(&mut frame, Instant::ZERO);
        assert_eq!(sealed, Err(SealError::NoRoom));
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(b"x").unwrap();
        reserved.seal(&mut frame, Instant::ZERO).unwrap();
        assert_eq!(frame.packet()[8..16], [0; 8]);
        frame.set(b"y").unwrap();
        let sealed = reserved.seal(&mut frame, Instant::ZERO);
        assert_eq!(sealed, Err(SealError::RangeUsedUp));
        assert_eq!(frame.packet(), b"y");
    }
}
