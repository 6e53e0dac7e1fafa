//! What relays of a network say to each other: frames for each other's clients, which clients those
//! are, and how far the other relays.
//!
//! ```text
//! Forward 0x16 | token 7 | source 10 | destination 10 | datagram     0x17 if it may be sent to one relay more
//! Gone    0x18 | token 7 | source 10 | destination 10                0x19 likewise
//! ```
//! The token is the one that the sender of a `Forward` has at its receiver, its first seven bytes; `Gone` goes
//! the other way with the same one. Of both node ids the first six bytes are left out, which all nodes of a
//! network have in common. So a `Forward` is as long as the `Send` it came in: what fits between a client and a relay fits
//! between two relays. `Gone` is shorter than any `Forward`. What is inside can't be read, and is no relay header.

use core::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::frame::{Frame, NoRoom};
use crate::id::NodeId;
use crate::policy::Run;
use crate::relay::{NotRelay, Token};

/// First byte of a datagram for another relay's client that is sent no further.
pub const FORWARD: u8 = 0x16;
/// First byte of one that may be sent to one relay more.
pub const FORWARD_ON: u8 = 0x17;
/// First byte of the word that a datagram could not be delivered, which is sent no further.
pub const GONE: u8 = 0x18;
/// First byte of one that may be sent to one relay more.
pub const GONE_ON: u8 = 0x19;
/// Bytes before the datagram in a `Forward`, and of a `Gone`.
pub const HEADER_BYTES: usize = 28;
/// How many bytes the ids of a network's nodes have in common: of [`crate::address::network_prefix`].
pub const PREFIX_BYTES: usize = 6;
/// Bits of a token that are left out.
pub const TOKEN_CUT_BITS: u32 = 8;
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

/// The first seven bytes of a token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortToken(u64);

impl core::fmt::Debug for ShortToken {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("ShortToken(..)")
    }
}

impl From<Token> for ShortToken {
    fn from(token: Token) -> Self {
        Self(token.0 >> TOKEN_CUT_BITS)
    }
}

impl ShortToken {
    /// The tokens that begin so.
    pub const fn tokens(self) -> core::ops::RangeInclusive<Token> {
        let first = self.0 << TOKEN_CUT_BITS;
        Token(first)..=Token(first | ((1 << TOKEN_CUT_BITS) - 1))
    }
}

/// A header between relays, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshPacket {
    /// Which of the two.
    pub kind: MeshKind,
    /// How many relays more it may be sent to: less than [`MAX_HOPS`].
    pub hops: u8,
    /// The token that the sender of the `Forward` has at its receiver.
    pub token: ShortToken,
    /// The node that sent the datagram, vouched for by the relay alone.
    pub source: NodeId,
    /// The node it is for.
    pub to: NodeId,
}

impl MeshPacket {
    /// Reads the header in front of `datagram`, [`HEADER_BYTES`] long, at a node of the same network.
    ///
    /// # Errors
    /// [`NotRelay`] if it is cut off, of another type, or carries a relay header; of a `Gone` also if anything
    /// follows.
    pub fn parse(datagram: &[u8], at: NodeId) -> Result<Self, NotRelay> {
        let (&[first, ref token @ ..], rest) = datagram.split_first_chunk::<8>().ok_or(NotRelay)?;
        let (source, rest) = rest.split_first_chunk::<10>().ok_or(NotRelay)?;
        let (to, inner) = rest.split_first_chunk::<10>().ok_or(NotRelay)?;
        let (kind, hops) = match first {
            FORWARD => (MeshKind::Forward, 0),
            FORWARD_ON => (MeshKind::Forward, 1),
            GONE => (MeshKind::Gone, 0),
            GONE_ON => (MeshKind::Gone, 1),
            _ => return Err(NotRelay),
        };
        match (kind, inner.first()) {
            (MeshKind::Gone, None) => {}
            // A relayed header inside could make a loop of relays.
            (MeshKind::Gone, Some(_)) | (MeshKind::Forward, None | Some(0x10..=0x1f)) => {
                return Err(NotRelay);
            }
            (MeshKind::Forward, Some(_)) => {}
        }
        let id = |end: &[u8; 10]| {
            let mut id = at.0;
            if let Some(own) = id.last_chunk_mut::<10>() {
                *own = *end;
            }
            NodeId(id)
        };
        let mut bytes = [0; 8];
        if let Some(end) = bytes.last_chunk_mut::<7>() {
            *end = *token;
        }
        Ok(Self {
            kind,
            hops,
            token: ShortToken(u64::from_be_bytes(bytes)),
            source: id(source),
            to: id(to),
        })
    }

    /// Puts the header in front of the frame's datagram; a `Gone` takes its place.
    ///
    /// # Errors
    /// [`NoRoom`] if the frame has none.
    pub fn push(&self, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
        let first = match (self.kind, self.hops) {
            (MeshKind::Forward, 0) => FORWARD,
            (MeshKind::Forward, _) => FORWARD_ON,
            (MeshKind::Gone, 0) => GONE,
            (MeshKind::Gone, _) => GONE_ON,
        };
        if self.kind == MeshKind::Gone {
            frame.clear();
        }
        let out = frame.push_front(HEADER_BYTES)?;
        out[..8].copy_from_slice(&self.token.0.to_be_bytes());
        out[0] = first;
        out[8..18].copy_from_slice(&self.source.0[PREFIX_BYTES..]);
        out[18..28].copy_from_slice(&self.to.0[PREFIX_BYTES..]);
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
    /// A client of the sender's asked to meet one of the receiver's ([`crate::message::Request::Meet`]). It goes
    /// no further.
    Meet {
        /// The sender's client.
        who: NodeId,
        /// Where the sender sees it.
        address: SocketAddr,
        /// The receiver's.
        with: NodeId,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAME_BYTES;
    use crate::message::{Message, Notice, decode, encode};
    use proptest::prelude::*;

    /// Where headers are read.
    const AT: NodeId = NodeId([9; 16]);

    fn header(kind: MeshKind, hops: u8) -> MeshPacket {
        let mut to = [8; 16];
        to[..PREFIX_BYTES].fill(9);
        MeshPacket {
            kind,
            hops,
            token: Token(0x0102_0304_0506_0708).into(),
            source: AT,
            to: NodeId(to),
        }
    }

    fn bytes(first: u8, inner: &[u8]) -> std::vec::Vec<u8> {
        let token = [1, 2, 3, 4, 5, 6, 7];
        [&[first][..], &token, &[9; 10], &[8; 10], inner].concat()
    }

    fn check(packet: MeshPacket, inner: &[u8], expected: &[u8]) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(inner).unwrap();
        packet.push(&mut frame).unwrap();
        assert_eq!(frame.packet(), expected);
        assert_eq!(MeshPacket::parse(expected, AT), Ok(packet));
    }

    #[test]
    fn every_header_keeps_its_exact_bytes() {
        check(header(MeshKind::Forward, 0), &[4], &bytes(0x16, &[4]));
        check(header(MeshKind::Forward, 1), &[4], &bytes(0x17, &[4]));
        check(header(MeshKind::Gone, 0), &[4], &bytes(0x18, &[]));
        check(header(MeshKind::Gone, 1), &[4], &bytes(0x19, &[]));
    }

    #[test]
    fn a_frame_is_as_long_as_what_it_came_in() {
        assert_eq!(HEADER_BYTES, crate::relay::SEND_HEADER_BYTES);
    }

    #[test]
    fn a_token_is_among_those_that_begin_like_it() {
        for token in [0, 1, 0x0102_0304_0506_0708, u64::MAX].map(Token) {
            let short = ShortToken::from(token);
            assert!(short.tokens().contains(&token));
            let ends = [*short.tokens().start(), *short.tokens().end()];
            assert_eq!(ends.map(ShortToken::from), [short; 2]);
        }
    }

    #[test]
    fn a_header_inside_another_or_behind_a_refusal_is_refused() {
        for inner in 0x10..=0x1f {
            for first in [0x16, 0x17] {
                assert_eq!(
                    MeshPacket::parse(&bytes(first, &[inner]), AT),
                    Err(NotRelay)
                );
            }
        }
        for first in [0x18, 0x19] {
            assert_eq!(MeshPacket::parse(&bytes(first, &[4]), AT), Err(NotRelay));
        }
        for first in [0x15, 0x1a] {
            assert_eq!(MeshPacket::parse(&bytes(first, &[4]), AT), Err(NotRelay));
        }
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
        let meet = said(MeshNotice::Meet {
            who: NodeId([4; 16]),
            address: "192.0.2.5:258".parse().unwrap(),
            with: NodeId([5; 16]),
        });
        let (who, with) = ([4; 16], [5; 16]);
        let address = [0, 192, 0, 2, 5, 0x82, 2];
        assert_eq!(meet, [&[3, 7, 3], &who[..], &address, &with].concat());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), first in 0x15u8..0x1b) {
            let mut bytes = bytes;
            if let Some(kind) = bytes.first_mut() {
                *kind = first;
            }
            if let Ok(packet) = MeshPacket::parse(&bytes, AT) {
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
