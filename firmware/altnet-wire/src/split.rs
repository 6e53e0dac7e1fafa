//! A sealed datagram in pieces, for a path that doesn't carry it whole.
//!
//! ```text
//! Piece  0x30 | index u4, count u4 | length u16 | id u32 | bytes
//! ```
//! Numbers are big-endian, as in a relay's header, which may stand before each piece. `length` is the
//! whole datagram's. All pieces but the last have the same number of bytes, so that an index is a
//! place. Nothing here is authentic: the whole datagram is.

use core::ops::Range;

use crate::frame::{Frame, MAX_PACKET_BYTES, NoRoom};

/// First byte of a piece.
pub const PIECE: u8 = 0x30;
/// Bytes of a piece before its part of the datagram.
pub const PIECE_HEADER_BYTES: usize = 8;
/// The most pieces a datagram is cut into.
pub const MAX_PIECES: u8 = 4;
/// The largest datagram that is cut, in bytes: one that fits a frame.
pub const MAX_WHOLE_BYTES: usize = MAX_PACKET_BYTES;

/// What stands before a piece's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    index: u8,
    count: u8,
    length: u16,
    id: u32,
}

/// Not a piece, or one that no datagram has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a piece of a datagram")]
pub struct NotPiece;

impl Piece {
    /// The piece `index` of `count` of a datagram of `length` bytes. Nothing if there is no such
    /// piece: two to [`MAX_PIECES`] there may be, none of them empty.
    pub fn new(index: u8, count: u8, length: u16, id: u32) -> Option<Self> {
        let is_count = (2..=MAX_PIECES).contains(&count);
        let is_length = usize::from(length) <= MAX_WHOLE_BYTES;
        let piece = Self {
            index,
            count,
            length,
            id,
        };
        (is_count && is_length && index < count && !piece.range().is_empty()).then_some(piece)
    }

    /// How many pieces a datagram of `length` bytes takes if each is to have at most `size` bytes with
    /// its header. Nothing if that is more than [`MAX_PIECES`], or the datagram can't be cut.
    pub fn count_for(length: usize, size: usize) -> Option<u8> {
        let room = size.checked_sub(PIECE_HEADER_BYTES)?;
        let count = length
            .checked_add(room)?
            .checked_sub(1)?
            .checked_div(room)?;
        let count = u8::try_from(count.max(2)).ok()?;
        let is_length = (2..=MAX_WHOLE_BYTES).contains(&length);
        (count <= MAX_PIECES && is_length).then_some(count)
    }

    /// Which piece it is, from 0.
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// How many there are.
    pub const fn count(&self) -> u8 {
        self.count
    }

    /// The whole datagram's length in bytes.
    pub const fn length(&self) -> u16 {
        self.length
    }

    /// What all pieces of a datagram have in common, and no other datagram of the sender's of late.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Which bytes of the whole datagram it holds.
    pub fn range(&self) -> Range<usize> {
        let length = usize::from(self.length);
        let each = length.div_ceil(usize::from(self.count.max(1)));
        let start = each.saturating_mul(self.index.into()).min(length);
        start..start.saturating_add(each).min(length)
    }

    /// Reads a piece; returns what it says and its bytes, as many as [`Piece::range`] has.
    ///
    /// # Errors
    /// [`NotPiece`] if there is no such piece, or it has more bytes or fewer.
    pub fn parse(datagram: &[u8]) -> Result<(Self, &[u8]), NotPiece> {
        let (header, bytes) = datagram
            .split_first_chunk::<PIECE_HEADER_BYTES>()
            .ok_or(NotPiece)?;
        let &[PIECE, place, high, low, a, b, c, d] = header else {
            return Err(NotPiece);
        };
        let length = u16::from_be_bytes([high, low]);
        let id = u32::from_be_bytes([a, b, c, d]);
        let piece = Self::new(place >> 4, place & 0xf, length, id).ok_or(NotPiece)?;
        (bytes.len() == piece.range().len())
            .then_some((piece, bytes))
            .ok_or(NotPiece)
    }

    /// Puts the header before the frame's bytes.
    ///
    /// # Errors
    /// [`NoRoom`] if there is none before them.
    pub fn push(&self, frame: &mut Frame<'_>) -> Result<(), NoRoom> {
        let [high, low] = self.length.to_be_bytes();
        let [a, b, c, d] = self.id.to_be_bytes();
        let place = self.index << 4 | self.count;
        frame
            .push_front(PIECE_HEADER_BYTES)?
            .copy_from_slice(&[PIECE, place, high, low, a, b, c, d]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FRAME_BYTES;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn encoded(piece: Piece, bytes: &[u8]) -> Vec<u8> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(bytes).unwrap();
        piece.push(&mut frame).unwrap();
        frame.packet().to_vec()
    }

    #[test]
    fn a_piece_keeps_its_exact_bytes() {
        let piece = Piece::new(1, 2, 5, 0x0102_0304).unwrap();
        let expected = [0x30, 0x12, 0, 5, 1, 2, 3, 4, b'a', b'b'];
        assert_eq!(encoded(piece, b"ab"), expected);
        assert_eq!(Piece::parse(&expected), Ok((piece, &b"ab"[..])));
        assert_eq!(Piece::parse(&expected[..9]), Err(NotPiece));
    }

    #[test]
    fn a_full_packet_takes_two_pieces_or_three_as_the_path_has_room() {
        for (length, size, expected) in [
            (1312, 1311, Some(2)),
            (1312, 664, Some(2)),
            (1312, 663, Some(3)),
            (1312, 520, Some(3)),
            (1312, 336, Some(4)),
            (1312, 335, None),
            (1312, 8, None),
            (1312, 0, None),
            (1501, 1200, None),
            (1, 1000, None),
            (2, 1000, Some(2)),
        ] {
            assert_eq!(Piece::count_for(length, size), expected, "{length} {size}");
        }
    }

    #[test]
    fn what_no_datagram_has_is_refused() {
        for (index, count, length) in [
            (0, 0, 9),
            (0, 1, 9),
            (2, 2, 9),
            (0, 5, 900),
            (0, 2, 1501),
            (1, 2, 1),
            (3, 4, 5),
            (0, 2, 0),
        ] {
            assert_eq!(
                Piece::new(index, count, length, 7),
                None,
                "{index} {count} {length}"
            );
        }
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_datagram_and_none_is_larger_than_the_path(
            length in 2usize..=MAX_WHOLE_BYTES, size in 0usize..1600,
        ) {
            let Some(count) = Piece::count_for(length, size) else {
                return Ok(());
            };
            let mut next = 0;
            for index in 0..count {
                let piece = Piece::new(index, count, length as u16, 9).unwrap();
                prop_assert_eq!(piece.range().start, next);
                next = piece.range().end;
                prop_assert!(piece.range().len() + PIECE_HEADER_BYTES <= size);
            }
            prop_assert_eq!(next, length);
        }

        #[test]
        fn what_is_read_is_written_again(mut bytes in proptest::collection::vec(any::<u8>(), 0..1510)) {
            if let Some(first) = bytes.first_mut() {
                *first = PIECE;
            }
            if let Ok((piece, part)) = Piece::parse(&bytes) {
                prop_assert_eq!(encoded(piece, part), bytes);
            }
        }
    }
}
