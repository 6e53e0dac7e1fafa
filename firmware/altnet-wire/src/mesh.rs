//! What relays of a network say to each other: frames for each other's clients, which clients those
//! are, and how far the other relays.
//!
//! ```text
//! Forward 0x16 | hops | 0 0 | token u64 | source 16 | destination 16 | datagram
//! Gone    0x17 | hops | 0 0 | token u64 | source 16 | destination 16
//! ```
//! Numbers are big-endian. `hops` is how many relays more it may be sent to, 0 or 1. The token is the one
//! that the sender of a `Forward` has at its receiver; `Gone` goes the other way with the same one, and is
//! shorter than any `Forward`. What is inside can't be read, and is no relay header.

use serde::{Deserialize, Serialize};

use crate::frame::{Frame, NoRoom};
use crate::id::NodeId;
use crate::policy::Run;
use crate::relay::{NotRelay, Token};

/// First byte of a datagram for another relay's client.
pub const FORWARD: u8 = 0x16;
/// First byte of the word that it could not be delivered.
pub const GONE: u8 = 0x17;
/// Bytes before the datagram in a `Forward`, and of a `Gone`.
pub const HEADER_BYTES: usize = 44;
/// The most hops from relay to relay.
pub const MAX_HOPS: u8 = 2;
/// The most relays in a mesh.
pub const MAX_RELAYS: usize = 16;
/// The most clients in one notice: 16 KiB of 20.
pub const MAX_NAMED: usize = 1024;

/// The most bytes of a [`Distance`]: an id, and the longest varints of 32 and 16 bits.
pub const MAX_DISTANCE_BYTES: usize = 16 + 5 + 3;

/// Bytes of a node id.
const NODE_BYTES: usize = 16;

/// Which of the two it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshKind {
    /// To be delivered to `to`.
    Forward,
    /// What `source` sent could not be delivered to `to`.
    Gone,
}

/// A header between relays, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshPacket {
    /// Which of the two.
    pub kind: MeshKind,
    /// How many relays more it may be sent to: less than [`MAX_HOPS`].
    pub hops: u8,
    /// The token that the sender of the `Forward` has at its receiver.
    pub token: Token,
    /// The node that sent the datagram, vouched for by the relay alone.
    pub source: NodeId,
    /// The node it is for.
    pub to: NodeId,
}

impl MeshPacket {
    /// Reads the header in front of `datagram`, [`HEADER_BYTES`] long.
    ///
    /// # Errors
    /// [`NotRelay`] if it is cut off, of another type, may go further than any may, has reserved bytes that
    /// aren't zero, or carries a relay header; of a `Gone` also if anything follows.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotRelay> {
        let (&[kind, hops, 0, 0], rest) = datagram.split_first_chunk::<4>().ok_or(NotRelay)? else {
            return Err(NotRelay);
        };
        let (token, rest) = rest.split_first_chunk::<8>().ok_or(NotRelay)?;
        let (source, rest) = rest.split_first_chunk::<16>().ok_or(NotRelay)?;
        let (to, inner) = rest.split_first_chunk::<16>().ok_or(NotRelay)?;
        let kind = match (kind, inner.first()) {
            // A relayed header inside could make a loop of relays.
            (FORWARD, None | Some(0x10..=0x1f)) => return Err(NotRelay),
            (FORWARD, Some(_)) => MeshKind::Forward,
            (GONE, None) => MeshKind::Gone,
            _ => return Err(NotRelay),
        };
        if hops >= MAX_HOPS {
            return Err(NotRelay);
        }
        Ok(Self {
            kind,
            hops,
            token: Token(u64::from_be_bytes(*token)),
            source: NodeId(*source),
            to: NodeId(*to),
        })
    }

    /// Puts the header in front of the frame's datagram; a `Gone` takes its place.
    ///
    /// # Errors
    /// [`NoRoom`] if the frame has none.
    pub fn push(&self, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
        let kind = match self.kind {
            MeshKind::Forward => FORWARD,
            MeshKind::Gone => {
                frame.clear();
                GONE
            }
        };
        let out = frame.push_front(HEADER_BYTES)?;
        out[..4].copy_from_slice(&[kind, self.hops, 0, 0]);
        out[4..12].copy_from_slice(&self.token.0.to_be_bytes());
        out[12..28].copy_from_slice(&self.source.0);
        out[28..44].copy_from_slice(&self.to.0);
        Ok(())
    }
}

/// Node ids one after the other, 16 bytes each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nodes<'a>(pub &'a [u8]);

impl Nodes<'_> {
    /// The ids, [`MAX_NAMED`] at most. Bytes that are left over name nobody.
    pub fn iter(&self) -> impl Iterator<Item = NodeId> {
        let ids = self.0.as_chunks::<NODE_BYTES>().0.iter();
        ids.take(MAX_NAMED).map(|id| NodeId(*id))
    }
}

/// How far a relay is from another, as measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distance {
    /// The other.
    pub relay: NodeId,
    /// The round trip in microseconds.
    pub rtt_us: u32,
    /// How many challenges in a thousand get no answer.
    pub lost_per_mille: u16,
}

/// What relays say unasked, to each other and to their clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MeshNotice<'a> {
    /// Which clients a relay has, to another.
    Clients {
        /// Whether whatever was said before is void.
        is_all: bool,
        /// They are registered with the sender.
        #[serde(borrow)]
        here: Nodes<'a>,
        /// They aren't any more.
        #[serde(borrow)]
        gone: Nodes<'a>,
    },
    /// How far the relays are that the sender reaches by itself, all of them, to another relay.
    Distances(#[serde(borrow)] Run<'a, Distance>),
    /// How busy a relay is, to its clients.
    Load {
        /// 0 to 100.
        percent: u8,
        /// For how many seconds the relay forwards nothing more for the receiver, which has sent as much as it
        /// may; 0 if it does.
        refused_s: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAME_BYTES;
    use crate::message::{Message, Notice, decode, encode};
    use proptest::prelude::*;

    fn header(kind: MeshKind, hops: u8) -> MeshPacket {
        MeshPacket {
            kind,
            hops,
            token: Token(0x0102_0304_0506_0708),
            source: NodeId([9; 16]),
            to: NodeId([8; 16]),
        }
    }

    fn check(packet: MeshPacket, inner: &[u8], expected: &[u8]) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(inner).unwrap();
        packet.push(&mut frame).unwrap();
        assert_eq!(frame.packet(), expected);
        assert_eq!(MeshPacket::parse(expected), Ok(packet));
    }

    #[test]
    fn both_headers_keep_their_exact_bytes() {
        let ids = [[9; 16], [8; 16]].concat();
        let token = [1, 2, 3, 4, 5, 6, 7, 8];
        let forward = [&[0x16, 1, 0, 0], &token[..], &ids, &[4]].concat();
        check(header(MeshKind::Forward, 1), &[4], &forward);
        let gone = [&[0x17, 0, 0, 0], &token[..], &ids].concat();
        check(header(MeshKind::Gone, 0), &[4], &gone);
    }

    #[test]
    fn a_frame_may_not_go_further_than_any_may() {
        let ids = [[9; 16], [8; 16]].concat();
        let forward = |hops| [&[0x16, hops, 0, 0], &[0; 8][..], &ids, &[4]].concat();
        assert!(MeshPacket::parse(&forward(1)).is_ok());
        for hops in [2, 3, 255] {
            assert_eq!(MeshPacket::parse(&forward(hops)), Err(NotRelay));
        }
    }

    #[test]
    fn a_header_inside_another_or_behind_a_refusal_is_refused() {
        let ids = [[9; 16], [8; 16]].concat();
        for inner in 0x10..=0x1f {
            let forward = [&[0x16, 0, 0, 0], &[0; 8][..], &ids, &[inner]].concat();
            assert_eq!(MeshPacket::parse(&forward), Err(NotRelay));
        }
        let gone = [&[0x17, 0, 0, 0], &[0; 8][..], &ids, &[4]].concat();
        assert_eq!(MeshPacket::parse(&gone), Err(NotRelay));
    }

    #[test]
    fn every_notice_keeps_its_exact_bytes() {
        let said = |notice: MeshNotice<'_>| {
            let mut out = [0; 128];
            let message = Message::Notice(Notice::Mesh(notice));
            let bytes = encode(&message, &mut out).unwrap();
            assert_eq!(decode(bytes), Ok(message));
            bytes.to_vec()
        };
        let (here, gone) = (Nodes(&[1; 16]), Nodes(&[]));
        let clients = said(MeshNotice::Clients {
            is_all: true,
            here,
            gone,
        });
        assert_eq!(clients, [&[3, 7, 0, 1, 16], &[1; 16][..], &[0]].concat());
        let distance = Distance {
            relay: NodeId([2; 16]),
            rtt_us: 300,
            lost_per_mille: 5,
        };
        let mut run = [0; MAX_DISTANCE_BYTES];
        let run = &*postcard::to_slice(&distance, &mut run).unwrap();
        let distances = said(MeshNotice::Distances(Run::new(run)));
        assert_eq!(
            distances,
            [&[3, 7, 1, 19], &[2; 16][..], &[0xac, 2, 5]].concat()
        );
        assert_eq!(Run::<Distance>::new(run).values().next(), Some(distance));
        let load = said(MeshNotice::Load {
            percent: 90,
            refused_s: 1,
        });
        assert_eq!(load, [3, 7, 2, 90, 1]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), first in 0x15u8..0x19) {
            let mut bytes = bytes;
            if let Some(kind) = bytes.first_mut() {
                *kind = first;
            }
            if let Ok(packet) = MeshPacket::parse(&bytes) {
                let mut buffer = [0; FRAME_BYTES];
                let mut frame = Frame::new(&mut buffer);
                frame.set(&bytes[HEADER_BYTES..]).unwrap();
                packet.push(&mut frame).unwrap();
                prop_assert_eq!(frame.packet(), &bytes[..]);
            }
        }

        #[test]
        fn what_is_left_over_names_nobody(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(Nodes(&bytes).iter().count(), bytes.len() / 16);
        }
    }
}
