//! TURN over TCP or TLS: where one message ends and the next begins (RFC 8656 sections 7.2, 12.5).
//!
//! A STUN message says its length; ChannelData says its own and is filled up to a multiple of
//! four. There is no other framing, so a length that can't be believed ends the connection.

use super::channel::CHANNEL_HEADER_BYTES;
use super::{COOKIE, HEADER_BYTES};
use crate::frame::{Frame, MAX_PACKET_BYTES, NoRoom};

/// Bytes that say how long a message is.
const PREFIX_BYTES: usize = 4;

/// The longest message that is taken from a stream, in bytes: what a frame's packet holds.
pub const MAX_STREAM_BYTES: usize = MAX_PACKET_BYTES;

/// What stands at a stream's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framed {
    /// Bytes of the message.
    pub length: usize,
    /// Bytes to pass over behind it: 0 to 3.
    pub padding: usize,
}

/// What a stream holds isn't TURN, or too long; nothing after it can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadStream {
    /// Neither a STUN message nor ChannelData.
    #[error("the stream holds neither a STUN message nor ChannelData")]
    NotTurn,
    /// A message that is longer than [`MAX_STREAM_BYTES`].
    #[error("a message of {found} bytes in a stream, more than {MAX_STREAM_BYTES}")]
    TooLong {
        /// How long it says it is.
        found: usize,
    },
}

/// Says where the message at the beginning of `bytes` ends; `None` if too little is there to
/// tell. The message itself may still be on its way.
///
/// # Errors
/// [`BadStream`]: the connection is of no more use.
pub fn framed(bytes: &[u8]) -> Result<Option<Framed>, BadStream> {
    let Some(&[k0, _, l0, l1]) = bytes.first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let said = usize::from(u16::from_be_bytes([l0, l1]));
    let (length, padding) = match k0 >> 6 {
        0b00 => {
            let cookie = bytes.get(4..8).unwrap_or_default();
            if !cookie.is_empty() && cookie != COOKIE.to_be_bytes() || !said.is_multiple_of(4) {
                return Err(BadStream::NotTurn);
            }
            (HEADER_BYTES + said, 0)
        }
        0b01 => (CHANNEL_HEADER_BYTES + said, said.next_multiple_of(4) - said),
        _ => return Err(BadStream::NotTurn),
    };
    if length > MAX_STREAM_BYTES {
        return Err(BadStream::TooLong { found: length });
    }
    Ok(Some(Framed { length, padding }))
}

/// Fills a message that goes into a stream up to a multiple of four. Only ChannelData grows by it.
///
/// # Errors
/// [`NoRoom`] if the frame has none.
pub fn pad(frame: &mut Frame<'_>) -> Result<(), NoRoom> {
    let length = frame.len();
    frame.push_back(length.next_multiple_of(4) - length)?;
    Ok(())
}
