//! Control datagrams: Noise sessions on the port that WireGuard, STUN and relaying share.
//!
//! ```text
//! Init      0x20 | 1 | pattern | 0   | sender u32   | cookie 16 | noise, zeros up to 104      128
//! Retry     0x21 | 1 | 0 0           | receiver u32 | cookie 16                                24
//! Response  0x22 | 1 | 0 0           | receiver u32 | sender u32 | noise 96 (XX) or 48 (IK)
//! Finish    0x23 | 1 | 0 0           | receiver u32 | noise 64                                 72
//! Data      0x24 | 1 | 0 0           | receiver u32 | counter u64 | frames sealed, tag 16
//! ```
//! Byte 1 is the version. Numbers are little-endian, as in WireGuard's datagrams. An Init
//! is padded so that each thing it can be answered with is smaller. Its cookie is zero
//! until a Retry brought one. Noise payloads are empty; the prologue is [`PROLOGUE`].
//!
//! What a Data datagram seals is frames, one after the other, read until the end:
//! ```text
//! Fragment   1 | message u32 | index u8 | count u8 | length u16 | bytes
//! Ack        2 | message u32 | fragments u32, bit i for the fragment with index i
//! Challenge  3 | token 8
//! Response   4 | token 8 | 0 or 4 or 6 | address 0, 4 or 16 | port u16 unless 0
//! Ping       5                                    asks for a Pong
//! Pong       6
//! Close      7 | reason u8
//! ```
//! Every fragment but a message's last holds [`FRAGMENT_BYTES`], so an index is a place.

use core::net::{IpAddr, SocketAddr};

use crate::relay::SEND_HEADER_BYTES;

/// First byte of an Init.
pub const INIT: u8 = 0x20;
/// First byte of a Retry.
pub const RETRY: u8 = 0x21;
/// First byte of a Response.
pub const RESPONSE: u8 = 0x22;
/// First byte of a Finish.
pub const FINISH: u8 = 0x23;
/// First byte of a Data.
pub const DATA: u8 = 0x24;
/// The version of the datagrams here.
pub const VERSION: u8 = 1;

/// The prologue of each control handshake.
pub const PROLOGUE: &[u8] = b"altnet control v1";

/// The largest datagram that is taken: what IPv6's smallest MTU leaves for UDP
/// (RFC 8200 section 5: 1280 - 40 - 8).
pub const MAX_DATAGRAM_BYTES: usize = 1232;
/// The largest datagram that is made, so that a relay's header still fits in
/// [`MAX_DATAGRAM_BYTES`].
pub const MAX_SENT_BYTES: usize = MAX_DATAGRAM_BYTES - SEND_HEADER_BYTES;

/// Bytes of an Init.
pub const INIT_BYTES: usize = 128;
/// Bytes of an Init before its Noise message.
pub const INIT_HEADER_BYTES: usize = 24;
/// Bytes of a Retry.
pub const RETRY_BYTES: usize = 24;
/// Bytes of a Response before its Noise message.
pub const RESPONSE_HEADER_BYTES: usize = 12;
/// Bytes of a Finish.
pub const FINISH_BYTES: usize = 72;
/// Bytes of a Finish before its Noise message.
pub const FINISH_HEADER_BYTES: usize = 8;
/// Bytes of a Data before what it seals.
pub const DATA_HEADER_BYTES: usize = 16;
/// Bytes of an authentication tag.
pub const TAG_BYTES: usize = 16;
/// Bytes of a retry cookie.
pub const COOKIE_BYTES: usize = 16;

/// The largest message in bytes: a policy record with its chain.
pub const MAX_MESSAGE_BYTES: usize = 20_480;
/// Bytes in every fragment of a message but the last, which has at most as many.
pub const FRAGMENT_BYTES: usize = 1152;
/// The most fragments that a message has.
pub const MAX_FRAGMENTS: usize = MAX_MESSAGE_BYTES.div_ceil(FRAGMENT_BYTES);
/// Bytes of a Fragment frame before its bytes.
pub const FRAGMENT_HEADER_BYTES: usize = 9;

/// What is agreed on who is who during a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// `Noise_XX_25519_ChaChaPoly_BLAKE2s`: neither knows the other beforehand.
    Xx,
    /// `Noise_IK_25519_ChaChaPoly_BLAKE2s`: the initiator knows whom it calls.
    Ik,
}

impl Pattern {
    /// The name that the handshake hashes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xx => "Noise_XX_25519_ChaChaPoly_BLAKE2s",
            Self::Ik => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
        }
    }

    /// Bytes of the first Noise message: `e`, or `e, es, s, ss` with an empty payload.
    pub const fn init_bytes(self) -> usize {
        match self {
            Self::Xx => 32,
            Self::Ik => 32 + 48 + 16,
        }
    }

    /// Bytes of the second: `e, ee, s, es`, or `e, ee, se`, with an empty payload.
    pub const fn response_bytes(self) -> usize {
        match self {
            Self::Xx => 32 + 48 + 16,
            Self::Ik => 32 + 16,
        }
    }

    /// Bytes of the third, `s, se` with an empty payload; IK has none.
    pub const fn finish_bytes(self) -> usize {
        match self {
            Self::Xx => FINISH_BYTES - FINISH_HEADER_BYTES,
            Self::Ik => 0,
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Xx => 1,
            Self::Ik => 2,
        }
    }
}

/// A control datagram, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlPacket<'a> {
    /// Begins a handshake.
    Init {
        /// Which handshake.
        pattern: Pattern,
        /// What the other side puts in front of its answers.
        sender: u32,
        /// What a Retry brought, or zeros.
        cookie: [u8; COOKIE_BYTES],
        /// The first Noise message, of [`Pattern::init_bytes`].
        noise: &'a [u8],
    },
    /// Asks for the same Init with this cookie.
    Retry {
        /// The Init's sender.
        receiver: u32,
        /// To be put into the Init.
        cookie: [u8; COOKIE_BYTES],
    },
    /// Answers an Init.
    Response {
        /// The Init's sender.
        receiver: u32,
        /// What the initiator puts in front of what follows.
        sender: u32,
        /// The second Noise message, of [`Pattern::response_bytes`] of some pattern.
        noise: &'a [u8],
    },
    /// Ends an XX handshake.
    Finish {
        /// The Response's sender.
        receiver: u32,
        /// The third Noise message.
        noise: &'a [u8],
    },
    /// Sealed frames.
    Data {
        /// The receiver's index.
        receiver: u32,
        /// The nonce: never the same twice in a session and direction.
        counter: u64,
        /// Ciphertext and tag, at least [`TAG_BYTES`].
        sealed: &'a [u8],
    },
}

/// Not a control datagram, or frames that can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a control datagram of this version, or a damaged one")]
pub struct NotControl;

/// There is no room to write to.
pub use crate::frame::NoRoom;

impl<'a> ControlPacket<'a> {
    /// Whether a datagram belongs here by its first byte, 0x20 to 0x2f.
    pub fn is_control(datagram: &[u8]) -> bool {
        matches!(datagram.first(), Some(0x20..=0x2f))
    }

    /// Reads a whole datagram.
    ///
    /// # Errors
    /// [`NotControl`] if its type, version or length is unknown, if reserved bytes or an
    /// Init's padding aren't zero, or if it is larger than [`MAX_DATAGRAM_BYTES`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, NotControl> {
        if datagram.len() > MAX_DATAGRAM_BYTES {
            return Err(NotControl);
        }
        let (&[kind, VERSION, detail, 0], rest) =
            datagram.split_first_chunk::<4>().ok_or(NotControl)?
        else {
            return Err(NotControl);
        };
        let (index, rest) = take_u32(rest)?;
        if kind == INIT {
            return Self::parse_init(detail, index, rest);
        }
        if detail != 0 {
            return Err(NotControl);
        }
        match kind {
            RETRY => Ok(Self::Retry {
                receiver: index,
                cookie: rest.try_into().map_err(|_| NotControl)?,
            }),
            RESPONSE => {
                let (sender, noise) = take_u32(rest)?;
                let known = [Pattern::Xx, Pattern::Ik]
                    .iter()
                    .any(|pattern| pattern.response_bytes() == noise.len());
                known.then_some(()).ok_or(NotControl)?;
                Ok(Self::Response {
                    receiver: index,
                    sender,
                    noise,
                })
            }
            FINISH if rest.len() == Pattern::Xx.finish_bytes() => Ok(Self::Finish {
                receiver: index,
                noise: rest,
            }),
            DATA => {
                let (counter, sealed) = rest.split_first_chunk::<8>().ok_or(NotControl)?;
                if sealed.len() < TAG_BYTES {
                    return Err(NotControl);
                }
                Ok(Self::Data {
                    receiver: index,
                    counter: u64::from_le_bytes(*counter),
                    sealed,
                })
            }
            _ => Err(NotControl),
        }
    }

    fn parse_init(pattern: u8, sender: u32, rest: &'a [u8]) -> Result<Self, NotControl> {
        let pattern = match pattern {
            1 => Pattern::Xx,
            2 => Pattern::Ik,
            _ => return Err(NotControl),
        };
        let (cookie, rest) = rest.split_first_chunk::<COOKIE_BYTES>().ok_or(NotControl)?;
        if rest.len() != INIT_BYTES - INIT_HEADER_BYTES {
            return Err(NotControl);
        }
        let (noise, padding) = rest
            .split_at_checked(pattern.init_bytes())
            .ok_or(NotControl)?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(NotControl);
        }
        Ok(Self::Init {
            pattern,
            sender,
            cookie: *cookie,
            noise,
        })
    }

    /// Writes the datagram to the beginning of `out` and returns its length in bytes.
    ///
    /// # Errors
    /// [`NoRoom`]; what `out` holds is then unspecified.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let mut writer = Writer::new(out);
        match *self {
            Self::Init {
                pattern,
                sender,
                cookie,
                noise,
            } => {
                writer.header(INIT, pattern.code(), sender)?;
                writer.put(&cookie)?;
                writer.put(noise)?;
                let padding = INIT_BYTES.saturating_sub(writer.used);
                writer.zeros(padding)?;
            }
            Self::Retry { receiver, cookie } => {
                writer.header(RETRY, 0, receiver)?;
                writer.put(&cookie)?;
            }
            Self::Response {
                receiver,
                sender,
                noise,
            } => {
                writer.header(RESPONSE, 0, receiver)?;
                writer.put(&sender.to_le_bytes())?;
                writer.put(noise)?;
            }
            Self::Finish { receiver, noise } => {
                writer.header(FINISH, 0, receiver)?;
                writer.put(noise)?;
            }
            Self::Data {
                receiver,
                counter,
                sealed,
            } => {
                writer.header(DATA, 0, receiver)?;
                writer.put(&counter.to_le_bytes())?;
                writer.put(sealed)?;
            }
        }
        Ok(writer.used)
    }
}

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
            Self::Ack { .. } | Self::PathChallenge(_) => 9,
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

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), NotControl> {
    let (number, rest) = bytes.split_first_chunk().ok_or(NotControl)?;
    Ok((u32::from_le_bytes(*number), rest))
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

struct Writer<'o> {
    out: &'o mut [u8],
    used: usize,
}

impl<'o> Writer<'o> {
    fn new(out: &'o mut [u8]) -> Self {
        Self { out, used: 0 }
    }

    fn space(&mut self, len: usize) -> Result<&mut [u8], NoRoom> {
        let needed = NoRoom { needed: len };
        let end = self.used.checked_add(len).ok_or(needed)?;
        let space = self.out.get_mut(self.used..end).ok_or(needed)?;
        self.used = end;
        Ok(space)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), NoRoom> {
        self.space(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn zeros(&mut self, len: usize) -> Result<(), NoRoom> {
        self.space(len)?.fill(0);
        Ok(())
    }

    fn header(&mut self, kind: u8, detail: u8, index: u32) -> Result<(), NoRoom> {
        self.put(&[kind, VERSION, detail, 0])?;
        self.put(&index.to_le_bytes())
    }

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
    use proptest::prelude::*;
    use std::vec::Vec;

    fn check(packet: ControlPacket<'_>, parts: &[&[u8]]) {
        let expected = parts.concat();
        let mut out = [0xff; MAX_DATAGRAM_BYTES];
        let used = packet.encode(&mut out).unwrap();
        assert_eq!(out[..used], expected);
        assert_eq!(ControlPacket::parse(&expected), Ok(packet));
        assert!(ControlPacket::is_control(&expected));
        // Each bit of the first four bytes matters.
        for bit in 0..32 {
            let mut bent = expected.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(ControlPacket::parse(&bent), Ok(packet));
        }
        assert!(packet.encode(&mut out[..used - 1]).is_err());
    }

    #[test]
    fn every_datagram_keeps_its_exact_bytes() {
        let (sender, receiver) = (0x0403_0201, 0x0807_0605);
        for (pattern, code, noise) in [
            (Pattern::Xx, 1, &[9; 32][..]),
            (Pattern::Ik, 2, &[9; 96][..]),
        ] {
            check(
                ControlPacket::Init {
                    pattern,
                    sender,
                    cookie: [7; 16],
                    noise,
                },
                &[
                    &[0x20, 1, code, 0, 1, 2, 3, 4],
                    &[7; 16],
                    noise,
                    &[0; 72][..104 - noise.len()],
                ],
            );
        }
        check(
            ControlPacket::Retry {
                receiver,
                cookie: [7; 16],
            },
            &[&[0x21, 1, 0, 0, 5, 6, 7, 8], &[7; 16]],
        );
        for noise in [&[9; 96][..], &[9; 48]] {
            check(
                ControlPacket::Response {
                    receiver,
                    sender,
                    noise,
                },
                &[&[0x22, 1, 0, 0, 5, 6, 7, 8, 1, 2, 3, 4], noise],
            );
        }
        check(
            ControlPacket::Finish {
                receiver,
                noise: &[9; 64],
            },
            &[&[0x23, 1, 0, 0, 5, 6, 7, 8], &[9; 64]],
        );
        check(
            ControlPacket::Data {
                receiver,
                counter: 0x1817_1615_1413_1211,
                sealed: &[9; 17],
            },
            &[
                &[0x24, 1, 0, 0, 5, 6, 7, 8],
                &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
                &[9; 17],
            ],
        );
    }

    #[test]
    fn whatever_answers_an_init_is_smaller() {
        for pattern in [Pattern::Xx, Pattern::Ik] {
            assert!(INIT_HEADER_BYTES + pattern.init_bytes() <= INIT_BYTES);
            assert!(RESPONSE_HEADER_BYTES + pattern.response_bytes() <= INIT_BYTES);
        }
        const { assert!(RETRY_BYTES < INIT_BYTES) };
        // An acknowledgement of the last byte fits beside a whole fragment.
        const OVERHEAD: usize = DATA_HEADER_BYTES + FRAGMENT_HEADER_BYTES + 9 + TAG_BYTES;
        const { assert!(FRAGMENT_BYTES + OVERHEAD <= MAX_SENT_BYTES) };
        const { assert!(MAX_FRAGMENTS <= 32) };
    }

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
        fn no_bytes_make_the_parsers_panic(
            kind in 0x1fu8..0x27,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..1300),
        ) {
            if let Ok(packet) = ControlPacket::parse(&bytes) {
                prop_assert!(ControlPacket::is_control(&bytes));
                prop_assert!(packet.encode(&mut [0; MAX_DATAGRAM_BYTES]).is_ok());
            }
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&[kind, VERSION, 0, 0]);
                let mut again = [0; MAX_DATAGRAM_BYTES];
                if let Ok(packet) = ControlPacket::parse(&bytes) {
                    let used = packet.encode(&mut again).unwrap();
                    prop_assert_eq!(&again[..used], &bytes[..]);
                }
            }
        }

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
