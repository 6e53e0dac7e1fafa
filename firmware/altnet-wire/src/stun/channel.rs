//! ChannelData: a peer's number and length in front of what is sent to it (RFC 8656 section 12.4).
//!
//! ```text
//! channel u16 | length u16 | datagram
//! ```
//! Channels begin with the bits 01, so that no STUN message is mistaken for one.

use core::ops::RangeInclusive;

use crate::frame::{Frame, NoRoom};

/// Bytes before the datagram.
pub const CHANNEL_HEADER_BYTES: usize = 4;

/// The numbers that may be bound; up to 0x7fff the rest is reserved (section 12).
pub const CHANNELS: RangeInclusive<u16> = 0x4000..=0x4fff;

/// A peer's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(u16);

impl Channel {
    /// The channel of this number, if there is one.
    pub const fn new(number: u16) -> Option<Self> {
        if number >= *CHANNELS.start() && number <= *CHANNELS.end() {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The value of `CHANNEL-NUMBER`.
    pub const fn value(self) -> [u8; 4] {
        let [high, low] = self.0.to_be_bytes();
        [high, low, 0, 0]
    }

    /// Reads the header in front of `datagram`: the channel, and how many bytes follow the
    /// header. Behind them may be up to three more (section 12.5).
    pub fn parse(datagram: &[u8]) -> Option<(Self, usize)> {
        let (&[c0, c1, l0, l1], rest) = datagram.split_first_chunk::<CHANNEL_HEADER_BYTES>()?;
        let channel = Self::new(u16::from_be_bytes([c0, c1]))?;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let more = rest.len().checked_sub(length)?;
        (more < 4).then_some((channel, length))
    }

    /// Puts the header in front of the frame's datagram. Over a stream, [`super::stream::pad`]
    /// has to follow.
    ///
    /// # Errors
    /// [`NoRoom`] if the frame has none; nothing was changed.
    pub fn push(self, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
        let needed = NoRoom {
            needed: CHANNEL_HEADER_BYTES,
        };
        let length = u16::try_from(frame.len()).map_err(|_| needed)?;
        let [c0, c1] = self.0.to_be_bytes();
        let [l0, l1] = length.to_be_bytes();
        let out = frame.push_front(CHANNEL_HEADER_BYTES)?;
        out.copy_from_slice(&[c0, c1, l0, l1]);
        Ok(())
    }

    /// Takes the header off and cuts what is behind the datagram; `None` and the frame as it was
    /// if there is no such header.
    pub fn pop(frame: &mut Frame<'_>) -> Option<Self> {
        let (channel, length) = Self::parse(frame.packet())?;
        frame.pop_front(CHANNEL_HEADER_BYTES);
        frame.truncate(length);
        Some(channel)
    }
}
