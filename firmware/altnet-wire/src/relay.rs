//! The header of relayed datagrams.
//!
//! ```text
//! Send   0x10 | 0 0 0 | token u64 | destination 16 | datagram      client to relay
//! Receive 0x11 | 0 0 0 | source 16 | datagram                       relay to client
//! Unknown 0x12 | 0 0 0 | token u64                                  relay to client: register again
//! Absent 0x13 | 0 0 0 | destination 16                              relay to client: not here
//! Keep   0x14 | 0 | seconds u16 | token u64                         client to relay: still here
//! Kept   0x15 | 0 | seconds u16 | token u64                         relay to client: still there
//! ```
//! Numbers are big-endian. What is inside is a WireGuard or control datagram that the relay
//! can't read; a relayed datagram inside another is refused. `Unknown` and `Absent` are smaller than
//! any `Send`, so they can't amplify. `Absent` tells a client that the destination isn't registered
//! at this relay; `Unknown` tells the client nothing but that this relay, at this
//! address, doesn't forward for it now.
//!
//! `Keep` keeps a registration and asks for a `Kept` of the same size that many seconds later: one
//! that arrives shows that the NATs between let in what comes after so long a silence. From another
//! address than the token is bound to it is answered with `Unknown`, as `Send` is.

use crate::frame::{Frame, NoRoom};
use crate::id::NodeId;

/// First byte of a datagram to be forwarded.
pub const SEND: u8 = 0x10;
/// First byte of a forwarded datagram.
pub const RECEIVE: u8 = 0x11;
/// First byte of the refusal to forward.
pub const UNKNOWN: u8 = 0x12;
/// First byte of the answer to a datagram for somebody who isn't there.
pub const ABSENT: u8 = 0x13;
/// First byte of a client's word that it is still there.
pub const KEEP: u8 = 0x14;
/// First byte of the answer to it.
pub const KEPT: u8 = 0x15;
/// Bytes before the datagram in [`RelayPacket::Send`].
pub const SEND_HEADER_BYTES: usize = 28;
/// Bytes before the datagram in [`RelayPacket::Receive`].
pub const RECEIVE_HEADER_BYTES: usize = 20;
/// Bytes of an [`RelayPacket::Unknown`].
pub const UNKNOWN_BYTES: usize = 12;

/// Bytes of a [`RelayPacket::Keep`] and of a [`RelayPacket::Kept`].
pub const KEEP_BYTES: usize = 12;

/// Bytes of a [`RelayPacket::Absent`].
pub const ABSENT_BYTES: usize = 20;

/// A permission to be forwarded for, valid from one 5-tuple.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl core::fmt::Debug for Token {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A relay header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayPacket {
    /// To be forwarded to `to`.
    Send {
        /// The client's permission.
        token: Token,
        /// The node it is for.
        to: NodeId,
    },
    /// Forwarded, from `from`.
    Receive {
        /// The node that sent it, vouched for by the relay alone.
        from: NodeId,
    },
    /// The relay doesn't know the token from this address.
    Unknown {
        /// The token.
        token: Token,
    },
    /// The relay has no such client.
    Absent {
        /// For whom a datagram was.
        to: NodeId,
    },
    /// A client is still there, and wants to hear from the relay once more after a silence.
    Keep {
        /// The client's permission.
        token: Token,
        /// How long the silence is to be, in seconds.
        after_s: u16,
    },
    /// The relay still forwards for the client; said after the silence it asked for.
    Kept {
        /// The token.
        token: Token,
        /// How long the silence was to be, in seconds.
        after_s: u16,
    },
}

/// Not a relay header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a relay header")]
pub struct NotRelay;

impl RelayPacket {
    /// Reads the header in front of `datagram`; returns it and its length in bytes.
    ///
    /// # Errors
    /// [`NotRelay`] if it is cut off, of another type, has reserved bytes that aren't zero,
    /// or carries another relay header.
    pub fn parse(datagram: &[u8]) -> Result<(Self, usize), NotRelay> {
        if let [kind @ (KEEP | KEPT), 0, high, low, token @ ..] = datagram {
            let token = <[u8; 8]>::try_from(token).map_err(|_| NotRelay)?;
            let token = Token(u64::from_be_bytes(token));
            let after_s = u16::from_be_bytes([*high, *low]);
            let packet = match *kind {
                KEEP => Self::Keep { token, after_s },
                _ => Self::Kept { token, after_s },
            };
            return Ok((packet, KEEP_BYTES));
        }
        let (&[kind, 0, 0, 0], rest) = datagram.split_first_chunk::<4>().ok_or(NotRelay)? else {
            return Err(NotRelay);
        };
        let (packet, inner) = match kind {
            SEND => {
                let (token, rest) = rest.split_first_chunk::<8>().ok_or(NotRelay)?;
                let (to, inner) = rest.split_first_chunk::<16>().ok_or(NotRelay)?;
                let token = Token(u64::from_be_bytes(*token));
                (
                    Self::Send {
                        token,
                        to: NodeId(*to),
                    },
                    inner,
                )
            }
            RECEIVE => {
                let (from, inner) = rest.split_first_chunk::<16>().ok_or(NotRelay)?;
                (
                    Self::Receive {
                        from: NodeId(*from),
                    },
                    inner,
                )
            }
            UNKNOWN => {
                let token = <[u8; 8]>::try_from(rest).map_err(|_| NotRelay)?;
                let token = Token(u64::from_be_bytes(token));
                return Ok((Self::Unknown { token }, UNKNOWN_BYTES));
            }
            ABSENT => {
                let to = <[u8; 16]>::try_from(rest).map_err(|_| NotRelay)?;
                return Ok((Self::Absent { to: NodeId(to) }, ABSENT_BYTES));
            }
            _ => return Err(NotRelay),
        };
        // A relayed header inside could make a loop of relays.
        match inner.first() {
            None | Some(0x10..=0x1f) => Err(NotRelay),
            Some(_) => Ok((packet, datagram.len() - inner.len())),
        }
    }

    /// Puts the header in front of the frame's datagram.
    ///
    /// # Errors
    /// [`NoRoom`] if the frame has none; nothing was changed.
    pub fn push(&self, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
        match self {
            Self::Send { token, to } => {
                let out = frame.push_front(SEND_HEADER_BYTES)?;
                out[..4].copy_from_slice(&[SEND, 0, 0, 0]);
                out[4..12].copy_from_slice(&token.0.to_be_bytes());
                out[12..28].copy_from_slice(&to.0);
            }
            Self::Receive { from } => {
                let out = frame.push_front(RECEIVE_HEADER_BYTES)?;
                out[..4].copy_from_slice(&[RECEIVE, 0, 0, 0]);
                out[4..20].copy_from_slice(&from.0);
            }
            Self::Unknown { token } => {
                frame.clear();
                let out = frame.push_front(UNKNOWN_BYTES)?;
                out[..4].copy_from_slice(&[UNKNOWN, 0, 0, 0]);
                out[4..12].copy_from_slice(&token.0.to_be_bytes());
            }
            Self::Absent { to } => {
                frame.clear();
                let out = frame.push_front(ABSENT_BYTES)?;
                out[..4].copy_from_slice(&[ABSENT, 0, 0, 0]);
                out[4..20].copy_from_slice(&to.0);
            }
            Self::Keep { token, after_s } => push_keep(KEEP, *token, *after_s, frame)?,
            Self::Kept { token, after_s } => push_keep(KEPT, *token, *after_s, frame)?,
        }
        Ok(())
    }
}

fn push_keep(kind: u8, token: Token, after_s: u16, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
    frame.clear();
    let out = frame.push_front(KEEP_BYTES)?;
    let [high, low] = after_s.to_be_bytes();
    out[..4].copy_from_slice(&[kind, 0, high, low]);
    out[4..12].copy_from_slice(&token.0.to_be_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAME_BYTES;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn check(packet: RelayPacket, inner: &[u8], expected: &[u8]) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(inner).unwrap();
        packet.push(&mut frame).unwrap();
        assert_eq!(frame.packet(), expected);
        let length = expected.len() - inner.len();
        assert_eq!(RelayPacket::parse(expected), Ok((packet, length)));
    }

    #[test]
    fn every_header_keeps_its_exact_bytes() {
        let token = Token(0x0102_0304_0506_0708);
        let mut send = Vec::from([0x10, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        send.extend([9; 16]);
        send.push(4);
        check(
            RelayPacket::Send {
                token,
                to: NodeId([9; 16]),
            },
            &[4],
            &send,
        );
        let mut receive = Vec::from([0x11, 0, 0, 0]);
        receive.extend([9; 16]);
        receive.push(4);
        check(
            RelayPacket::Receive {
                from: NodeId([9; 16]),
            },
            &[4],
            &receive,
        );
        check(
            RelayPacket::Unknown { token },
            &[],
            &[0x12, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        );
        let mut absent = Vec::from([0x13, 0, 0, 0]);
        absent.extend([9; 16]);
        let to = NodeId([9; 16]);
        check(RelayPacket::Absent { to }, &[], &absent);
        let after_s = 0x0a0b;
        check(
            RelayPacket::Keep { token, after_s },
            &[],
            &[0x14, 0, 10, 11, 1, 2, 3, 4, 5, 6, 7, 8],
        );
        check(
            RelayPacket::Kept { token, after_s },
            &[],
            &[0x15, 0, 10, 11, 1, 2, 3, 4, 5, 6, 7, 8],
        );
    }

    #[test]
    fn a_keep_of_another_length_is_refused() {
        let keep = [0x14, 0, 10, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        assert!(RelayPacket::parse(&keep[..12]).is_ok());
        for length in (0..12).chain([13]) {
            assert_eq!(RelayPacket::parse(&keep[..length]), Err(NotRelay));
        }
        let mut reserved = keep;
        reserved[1] = 1;
        assert_eq!(RelayPacket::parse(&reserved[..12]), Err(NotRelay));
    }

    #[test]
    fn a_relay_header_inside_another_is_refused() {
        let mut send = Vec::from([0x10, 0, 0, 0]);
        send.extend([1; 24]);
        send.push(0x10);
        assert_eq!(RelayPacket::parse(&send), Err(NotRelay));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok((_, length)) = RelayPacket::parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }

        #[test]
        fn what_is_kept_reads_as_it_was_written(token: u64, after_s: u16, asks: bool) {
            let token = Token(token);
            let packet = match asks {
                true => RelayPacket::Keep { token, after_s },
                false => RelayPacket::Kept { token, after_s },
            };
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            packet.push(&mut frame).unwrap();
            prop_assert_eq!(frame.packet().len(), KEEP_BYTES);
            prop_assert_eq!(RelayPacket::parse(frame.packet()), Ok((packet, KEEP_BYTES)));
        }
    }
}
