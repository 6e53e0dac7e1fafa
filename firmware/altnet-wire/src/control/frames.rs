//! What Data datagrams seal: pieces of messages, and what keeps a session and its path.
//!
//! Frames stand one after the other and are read until the end:
//! ```text
//! Fragment   1 | message u32 | index u8 | count u8 | length u16 | bytes
//! Ack        2 | message u32 | fragments u32, bit i for the fragment with index i
//! Challenge  3 | token 8
//! Response   4 | token 8 | 0 or 4 or 6 | address 0, 4 or 16 | port u16 unless 0
//! Ping       5                                    asks for a Pong
//! Pong       6
//! Close      7 | reason u8
//! Able       2 | ff ff ff ff | abilities u32         as an Ack of a message that there never is
//! ```
//! Numbers are little-endian. Every fragment but a message's last holds [`FRAGMENT_BYTES`], so
//! an index is a place. Able is passed over by who doesn't know it, as an acknowledgement of what was
//! never sent is; so is a Pong that nobody asked for, which pads what is to have a certain size.

use core::net::{IpAddr, SocketAddr};

use super::{NoRoom, NotControl, Writer, take_u32};

/// The largest message in bytes: a policy record with its chain.
pub const MAX_MESSAGE_BYTES: usize = 20_480;
/// Bytes in every fragment of a message but the last, which has at most as many.
pub const FRAGMENT_BYTES: usize = 1152;
/// The most fragments that a message has.
pub const MAX_FRAGMENTS: usize = MAX_MESSAGE_BYTES.div_ceil(FRAGMENT_BYTES);
/// Bytes of a Fragment frame before its bytes.
pub const FRAGMENT_HEADER_BYTES: usize = 9;

/// Why a session ends, as its end is told to the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseReason {
    /// Nothing more to say.
    Done,
    /// A newer session took its place.
    Replaced,
    /// The other side may not talk to this node.
    NotAllowed,
    /// The other side was revoked.
    Revoked,
    /// This node stops.
    Stopping,
    /// Old enough that its keys are thrown away.
    Expired,
    /// The other side sent what can't be read.
    Damaged,
    /// Of a later version.
    Other(u8),
}

impl From<u8> for CloseReason {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Done,
            1 => Self::Replaced,
            2 => Self::NotAllowed,
            3 => Self::Revoked,
            4 => Self::Stopping,
            5 => Self::Expired,
            6 => Self::Damaged,
            other => Self::Other(other),
        }
    }
}

impl From<CloseReason> for u8 {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::Done => 0,
            CloseReason::Replaced => 1,
            CloseReason::NotAllowed => 2,
            CloseReason::Revoked => 3,
            CloseReason::Stopping => 4,
            CloseReason::Expired => 5,
            CloseReason::Damaged => 6,
            CloseReason::Other(other) => other,
        }
    }
}

/// In [`ControlFrame::Able`]: datagrams may come in pieces ([`crate::split`]).
pub const TAKES_PIECES: u32 = 1;
/// The number that no message has.
const NO_MESSAGE: u32 = u32::MAX;

/// What ties an answer to its path challenge. Unpredictable.
pub type ChallengeToken = [u8; 8];

/// One of the things that a Data datagram seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlFrame<'a> {
    /// A piece of a message.
    Fragment {
        /// The message's number: 0, 1, 2 and so on in each direction.
        message: u32,
        /// Which piece, less than `count`.
        index: u8,
        /// How many pieces there are, 1 to [`MAX_FRAGMENTS`].
        count: u8,
        /// The piece: [`FRAGMENT_BYTES`], or fewer in the last.
        bytes: &'a [u8],
    },
    /// Pieces that arrived.
    Ack {
        /// The message's number.
        message: u32,
        /// Bit i stands for the fragment with index i.
        fragments: u32,
    },
    /// To be answered with the same token, to where it came from.
    PathChallenge(ChallengeToken),
    /// An answer to a challenge.
    PathResponse {
        /// The challenge's token.
        token: ChallengeToken,
        /// Where the challenge came from as its receiver saw it, unless relayed.
        observed: Option<SocketAddr>,
    },
    /// Asks for a Pong.
    Ping,
    /// Answers a Ping.
    Pong,
    /// The session has ended.
    Close(CloseReason),
    /// What the sender can do beside the first version: [`TAKES_PIECES`], and bits that mean
    /// nothing yet.
    Able(u32),
}

impl<'a> ControlFrame<'a> {
    /// Reads the frame that `bytes` begins with; returns it and what follows.
    ///
    /// # Errors
    /// [`NotControl`] if it is unknown or cut off, or if a fragment's index, count or
    /// length doesn't fit the others.
    pub fn take(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), NotControl> {
        let (&kind, rest) = bytes.split_first().ok_or(NotControl)?;
        match kind {
            1 => Self::take_fragment(rest),
            2 => {
                let (message, rest) = take_u32(rest)?;
                let (fragments, rest) = take_u32(rest)?;
                if message == NO_MESSAGE {
                    return Ok((Self::Able(fragments), rest));
                }
                Ok((Self::Ack { message, fragments }, rest))
            }
            3 => {
                let (token, rest) = rest.split_first_chunk().ok_or(NotControl)?;
                Ok((Self::PathChallenge(*token), rest))
            }
            4 => {
                let (token, rest) = rest.split_first_chunk().ok_or(NotControl)?;
                let (observed, rest) = take_address(rest)?;
                let token = *token;
                Ok((Self::PathResponse { token, observed }, rest))
            }
            5 => Ok((Self::Ping, rest)),
            6 => Ok((Self::Pong, rest)),
            7 => {
                let (&reason, rest) = rest.split_first().ok_or(NotControl)?;
                Ok((Self::Close(reason.into()), rest))
            }
            _ => Err(NotControl),
        }
    }

    fn take_fragment(rest: &'a [u8]) -> Result<(Self, &'a [u8]), NotControl> {
        let (message, rest) = take_u32(rest)?;
        let (&[index, count, low, high], rest) = rest.split_first_chunk().ok_or(NotControl)?;
        let length = usize::from(u16::from_le_bytes([low, high]));
        let (bytes, rest) = rest.split_at_checked(length).ok_or(NotControl)?;
        let start = usize::from(index) * FRAGMENT_BYTES;
        let fits = if index.saturating_add(1) < count {
            length == FRAGMENT_BYTES
        } else {
            // Only an empty message has an empty fragment.
            length <= FRAGMENT_BYTES && (length > 0 || index == 0)
        };
        if index >= count || !fits || start + length > MAX_MESSAGE_BYTES {
            return Err(NotControl);
        }
        if usize::from(count) > MAX_FRAGMENTS {
            return Err(NotControl);
        }
        let fragment = Self::Fragment {
            message,
            index,
            count,
            bytes,
        };
        Ok((fragment, rest))
    }

    /// Bytes that [`ControlFrame::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Fragment { bytes, .. } => FRAGMENT_HEADER_BYTES + bytes.len(),
            Self::Ack { .. } | Self::Able(_) | Self::PathChallenge(_) => 9,
            Self::PathResponse { observed, .. } => match observed {
                None => 10,
                Some(SocketAddr::V4(_)) => 16,
                Some(SocketAddr::V6(_)) => 28,
            },
            Self::Ping | Self::Pong => 1,
            Self::Close(_) => 2,
        }
    }

    /// Writes the frame to the beginning of `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`NoRoom`] if it has more than [`ControlFrame::encoded_len`] bytes less room, or a
    /// fragment is longer than its length field can say.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut writer = Writer::new(out);
        match *self {
            Self::Fragment {
                message,
                index,
                count,
                bytes,
            } => {
                let needed = NoRoom {
                    needed: bytes.len(),
                };
                let length = u16::try_from(bytes.len()).map_err(|_| needed)?;
                writer.put(&[1])?;
                writer.put(&message.to_le_bytes())?;
                writer.put(&[index, count])?;
                writer.put(&length.to_le_bytes())?;
                writer.put(bytes)?;
            }
            Self::Ack { message, fragments } => {
                writer.put(&[2])?;
                writer.put(&message.to_le_bytes())?;
                writer.put(&fragments.to_le_bytes())?;
            }
            Self::Able(abilities) => {
                writer.put(&[2])?;
                writer.put(&NO_MESSAGE.to_le_bytes())?;
                writer.put(&abilities.to_le_bytes())?;
            }
            Self::PathChallenge(token) => {
                writer.put(&[3])?;
                writer.put(&token)?;
            }
            Self::PathResponse { token, observed } => {
                writer.put(&[4])?;
                writer.put(&token)?;
                writer.address(observed)?;
            }
            Self::Ping => writer.put(&[5])?,
            Self::Pong => writer.put(&[6])?,
            Self::Close(reason) => writer.put(&[7, reason.into()])?,
        }
        Ok(writer.used)
    }
}

fn take_address(bytes: &[u8]) -> Result<(Option<SocketAddr>, &[u8]), NotControl> {
    let (&family, rest) = bytes.split_first().ok_or(NotControl)?;
    let (ip, rest) = match family {
        0 => return Ok((None, rest)),
        4 => {
            let (octets, rest) = rest.split_first_chunk::<4>().ok_or(NotControl)?;
            (IpAddr::from(*octets), rest)
        }
        6 => {
            let (octets, rest) = rest.split_first_chunk::<16>().ok_or(NotControl)?;
            (IpAddr::from(*octets), rest)
        }
        _ => return Err(NotControl),
    };
    let (port, rest) = rest.split_first_chunk().ok_or(NotControl)?;
    let address = SocketAddr::new(ip, u16::from_le_bytes(*port));
    Ok((Some(address), rest))
}

impl Writer<'_> {
    fn address(&mut self, address: Option<SocketAddr>) -> Result<(), NoRoom> {
        match address {
            None => return self.put(&[0]),
            Some(SocketAddr::V4(address)) => {
                self.put(&[4])?;
                self.put(&address.ip().octets())?;
            }
            Some(SocketAddr::V6(address)) => {
                self.put(&[6])?;
                self.put(&address.ip().octets())?;
            }
        }
        let port = address.map_or(0, |address| address.port());
        self.put(&port.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::MAX_DATAGRAM_BYTES;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn check_frame(frame: ControlFrame<'_>, expected: &[u8]) {
        let mut out = [0xff; 64];
        let used = frame.encode(&mut out).unwrap();
        assert_eq!(out[..used], *expected);
        assert_eq!(frame.encoded_len(), used);
        assert!(frame.encode(&mut out[..used - 1]).is_err());
        let followed = [expected, &[5]].concat();
        assert_eq!(ControlFrame::take(&followed), Ok((frame, &[5][..])));
        for len in 0..used {
            assert_eq!(ControlFrame::take(&expected[..len]), Err(NotControl));
        }
    }

    #[test]
    fn every_frame_keeps_its_exact_bytes() {
        let message = 0x0403_0201;
        check_frame(
            ControlFrame::Fragment {
                message,
                index: 2,
                count: 3,
                bytes: &[8, 9],
            },
            &[1, 1, 2, 3, 4, 2, 3, 2, 0, 8, 9],
        );
        check_frame(
            ControlFrame::Ack {
                message,
                fragments: 0x8000_0005,
            },
            &[2, 1, 2, 3, 4, 5, 0, 0, 0x80],
        );
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        check_frame(
            ControlFrame::PathChallenge(token),
            &[3, 1, 2, 3, 4, 5, 6, 7, 8],
        );
        let response = |observed: Option<&str>| ControlFrame::PathResponse {
            token,
            observed: observed.map(|text| text.parse().unwrap()),
        };
        check_frame(response(None), &[4, 1, 2, 3, 4, 5, 6, 7, 8, 0]);
        check_frame(
            response(Some("192.0.2.1:258")),
            &[4, 1, 2, 3, 4, 5, 6, 7, 8, 4, 192, 0, 2, 1, 2, 1],
        );
        check_frame(
            response(Some("[2001:db8::1]:258")),
            &[
                4, 1, 2, 3, 4, 5, 6, 7, 8, 6, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                1, 2, 1,
            ],
        );
        check_frame(ControlFrame::Ping, &[5]);
        check_frame(ControlFrame::Pong, &[6]);
        check_frame(ControlFrame::Close(CloseReason::Revoked), &[7, 3]);
        check_frame(ControlFrame::Close(CloseReason::Other(200)), &[7, 200]);
        check_frame(
            ControlFrame::Able(TAKES_PIECES),
            &[2, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0],
        );
    }

    #[test]
    fn a_fragment_whose_place_length_and_count_dont_fit_is_refused() {
        let fits = |index: u8, count: u8, length: u16| {
            let mut bytes = Vec::from([1, 0, 0, 0, 0, index, count]);
            bytes.extend(length.to_le_bytes());
            bytes.resize(bytes.len() + usize::from(length), 0);
            ControlFrame::take(&bytes).is_ok()
        };
        assert!(fits(0, 1, 0) && fits(0, 1, 1152) && fits(0, 2, 1152) && fits(1, 2, 1));
        assert!(fits(16, 18, 1152) && fits(17, 18, 896));
        assert!(!fits(0, 0, 0) && !fits(1, 1, 1) && !fits(0, 2, 1151));
        assert!(!fits(1, 2, 0) && !fits(0, 1, 1153) && !fits(17, 18, 897));
        assert!(!fits(0, 19, 1152) && !fits(255, 255, 1) && !fits(18, 19, 1));
    }

    proptest! {
        #[test]
        fn frames_are_read_to_the_end_or_refused(bytes in proptest::collection::vec(0u8..12, 0..200)) {
            let mut rest = &bytes[..];
            while let Ok((frame, behind)) = ControlFrame::take(rest) {
                let used = rest.len() - behind.len();
                prop_assert_eq!(used, frame.encoded_len());
                let mut again = [0; MAX_DATAGRAM_BYTES];
                prop_assert_eq!(frame.encode(&mut again), Ok(used));
                prop_assert_eq!(&again[..used], &rest[..used]);
                rest = behind;
            }
        }
    }
}
