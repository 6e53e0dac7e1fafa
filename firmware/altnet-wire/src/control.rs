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
//! What a Data datagram seals is [`ControlFrame`]s.

mod frames;

pub use self::frames::{
    ChallengeToken, CloseReason, ControlFrame, FRAGMENT_BYTES, FRAGMENT_HEADER_BYTES,
    MAX_FRAGMENTS, MAX_MESSAGE_BYTES, TAKES_PIECES,
};
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

/// The largest datagram that is taken: what Ethernet's MTU leaves for UDP (1500 - 20 - 8). Only
/// probes of a path's size are so large (ADR 0017).
pub const MAX_DATAGRAM_BYTES: usize = 1472;
/// The largest datagram that is made for a message: with a relay's header before it, it is what
/// IPv6's smallest MTU leaves for UDP (RFC 8200 section 5: 1280 - 40 - 8).
pub const MAX_SENT_BYTES: usize = 1232 - SEND_HEADER_BYTES;

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

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), NotControl> {
    let (number, rest) = bytes.split_first_chunk().ok_or(NotControl)?;
    Ok((u32::from_le_bytes(*number), rest))
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
    }
}
