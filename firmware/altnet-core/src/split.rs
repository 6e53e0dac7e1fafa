//! Datagrams in pieces: cut where a path doesn't carry them whole, and put together again.
//!
//! In: sealed datagrams that are too large for their path, and pieces with where they came from. Out: pieces
//! to send, and whole datagrams. Nothing here knows keys: what was put together is judged as if it had come
//! whole, and until then is nothing but bytes in a place reserved for them.
//!
//! Promises: nothing allocates once it was made; whoever sends pieces without end takes a quarter
//! of the places at most, and nobody's for longer than a second.

use alloc::vec::Vec;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::Frame;
use altnet_wire::split::{MAX_WHOLE_BYTES, NotPiece, Piece};
use altnet_wire::time::{Duration, Instant};

/// How long pieces wait for the others. They leave together.
const LIFE: Duration = Duration::from_secs(1);

/// A datagram can't be cut so that its pieces fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {length} bytes can't be cut to {size}")]
pub struct Uncuttable {
    /// Its bytes.
    pub length: usize,
    /// How many a piece may have.
    pub size: usize,
}

/// Cuts datagrams, one at a time.
#[derive(Debug)]
pub struct Cutter {
    /// The next datagram's.
    id: u32,
    /// The datagram whose pieces aren't all sent.
    bytes: heapless::Vec<u8, MAX_WHOLE_BYTES>,
    rest: Option<Rest>,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    to: Endpoint,
    id: u32,
    next: u8,
    count: u8,
}

impl Cutter {
    /// One that counts its datagrams from `id`: a number that nobody can guess.
    pub const fn new(id: u32) -> Self {
        Self {
            id,
            bytes: heapless::Vec::new(),
            rest: None,
        }
    }

    /// Leaves the first piece of a datagram for `to` in the frame. The others are kept for
    /// [`Cutter::next`], in the place of what is left of the datagram before.
    ///
    /// # Errors
    /// [`Uncuttable`]: it would take too many pieces, or there is no room in the frame for what
    /// stands before a piece. The frame holds what it held.
    pub fn cut(
        &mut self,
        to: Endpoint,
        size: usize,
        frame: &mut Frame<'_>,
    ) -> Result<(), Uncuttable> {
        let length = frame.len();
        let uncuttable = Uncuttable { length, size };
        let count = Piece::count_for(length, size).ok_or(uncuttable)?;
        let whole = u16::try_from(length).map_err(|_| uncuttable)?;
        let first = Piece::new(0, count, whole, self.id).ok_or(uncuttable)?;
        self.rest = None;
        self.bytes.clear();
        self.bytes
            .extend_from_slice(frame.packet())
            .map_err(|_| uncuttable)?;
        first.push(frame).map_err(|_| uncuttable)?;
        frame.truncate(frame.len() - length + first.range().len());
        self.rest = Some(Rest {
            to,
            id: self.id,
            next: 1,
            count,
        });
        self.id = self.id.wrapping_add(1);
        Ok(())
    }

    /// Whether pieces of what was cut last are left.
    pub const fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// Puts the next piece of what was cut last into the frame, and says whom it is for.
    pub fn next(&mut self, frame: &mut Frame<'_>) -> Option<Endpoint> {
        let Rest {
            to,
            id,
            next,
            count,
        } = self.rest.take()?;
        let length = u16::try_from(self.bytes.len()).ok()?;
        let piece = Piece::new(next, count, length, id)?;
        frame.set(self.bytes.get(piece.range())?).ok()?;
        piece.push(frame).ok()?;
        let next = next.saturating_add(1);
        self.rest = (next < count).then_some(Rest {
            to,
            id,
            next,
            count,
        });
        Some(to)
    }
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// The frame holds the whole datagram.
    Whole,
    /// Others are waited for.
    Waits,
}

/// Puts pieces together.
#[derive(Debug)]
pub struct Joiner {
    places: Vec<Place>,
    /// [`MAX_WHOLE_BYTES`] for each place.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    /// Whose pieces are here; nobody's are if none.
    from: Option<Endpoint>,
    id: u32,
    length: u16,
    count: u8,
    /// Bit i stands for the piece with index i.
    came: u8,
    since: Instant,
}

impl Place {
    const EMPTY: Self = Self {
        from: None,
        id: 0,
        length: 0,
        count: 0,
        came: 0,
        since: Instant::ZERO,
    };

    fn is_of(&self, from: Endpoint, piece: &Piece) -> bool {
        self.from == Some(from) && self.id == piece.id()
    }

    fn is_free(&self, now: Instant) -> bool {
        self.from.is_none() || now.saturating_since(self.since) >= LIFE
    }
}

impl Joiner {
    /// Room for so many datagrams at a time.
    pub fn new(places: u16) -> Self {
        let places = usize::from(places);
        Self {
            places: alloc::vec![Place::EMPTY; places],
            bytes: alloc::vec![0; places.saturating_mul(MAX_WHOLE_BYTES)],
        }
    }

    /// Takes the piece that the frame holds, and puts the datagram there once it is whole.
    ///
    /// # Errors
    /// [`NotPiece`]: it is none, or doesn't fit those that came before it. The frame holds what it held.
    pub fn take(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Joined, NotPiece> {
        let (piece, bytes) = Piece::parse(frame.packet())?;
        let at = self.place_for(from, &piece, now).ok_or(NotPiece)?;
        let place = self.places.get_mut(at).ok_or(NotPiece)?;
        if place.length != piece.length() || place.count != piece.count() {
            return Err(NotPiece);
        }
        let start = at.saturating_mul(MAX_WHOLE_BYTES);
        let room = self
            .bytes
            .get_mut(start..start.saturating_add(place.length.into()))
            .ok_or(NotPiece)?;
        let part = room.get_mut(piece.range()).ok_or(NotPiece)?;
        let bit = 1_u8 << piece.index();
        if place.came & bit == 0 {
            // The first that comes counts: a later one may be anybody's.
            part.copy_from_slice(bytes);
            place.came |= bit;
        }
        if u32::from(place.count) > place.came.count_ones() {
            return Ok(Joined::Waits);
        }
        *place = Place::EMPTY;
        frame.set(room).map_err(|_| NotPiece)?;
        Ok(Joined::Whole)
    }

    /// Where the piece belongs: where others of its datagram are, else a free place, else that of
    /// the oldest datagram of the same sender. Nothing if others have taken all.
    fn place_for(&mut self, from: Endpoint, piece: &Piece, now: Instant) -> Option<usize> {
        let (mut own, mut oldest, mut free) = (0, None, None);
        for (at, place) in self.places.iter().enumerate() {
            if place.is_free(now) {
                free = free.or(Some(at));
                continue;
            }
            if place.is_of(from, piece) {
                return Some(at);
            }
            if place.from == Some(from) {
                own += 1;
                let since = (place.since, at);
                oldest = Some(oldest.map_or(since, |other: (Instant, usize)| other.min(since)));
            }
        }
        let most = self.places.len().div_ceil(4);
        let oldest = oldest.map(|(_, at)| at);
        let at = if own >= most { oldest } else { free.or(oldest) }?;
        *self.places.get_mut(at)? = Place {
            from: Some(from),
            id: piece.id(),
            length: piece.length(),
            count: piece.count(),
            came: 0,
            since: now,
        };
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::frame::FRAME_BYTES;
    use altnet_wire::split::{MAX_PIECES, PIECE};
    use core::net::SocketAddr;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn peer(number: u16) -> Endpoint {
        Endpoint::Direct(SocketAddr::from(([192, 0, 2, 1], number)))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_micros(ms * 1000)
    }

    fn datagram(length: usize, seed: u8) -> Vec<u8> {
        (0..length)
            .map(|n| (n as u8).wrapping_mul(7) ^ seed)
            .collect()
    }

    fn pieces(cutter: &mut Cutter, whole: &[u8], size: usize) -> Vec<Vec<u8>> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(whole).unwrap();
        if cutter.cut(peer(1), size, &mut frame).is_err() {
            assert_eq!(frame.packet(), whole);
            return Vec::new();
        }
        let mut pieces = std::vec![frame.packet().to_vec()];
        while let Some(to) = cutter.next(&mut frame) {
            assert_eq!(to, peer(1));
            pieces.push(frame.packet().to_vec());
        }
        assert!(pieces.iter().all(|piece| piece.len() <= size));
        pieces
    }

    fn take(joiner: &mut Joiner, from: Endpoint, piece: &[u8], now: Instant) -> Option<Vec<u8>> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(piece).unwrap();
        match joiner.take(from, &mut frame, now) {
            Ok(Joined::Whole) => Some(frame.packet().to_vec()),
            Ok(Joined::Waits) => None,
            Err(NotPiece) => {
                assert_eq!(frame.packet(), piece);
                None
            }
        }
    }

    #[test]
    fn a_datagram_is_whole_again_whatever_order_its_pieces_come_in() {
        let mut cutter = Cutter::new(u32::MAX);
        let mut joiner = Joiner::new(4);
        for (seed, size) in [(1, 664), (2, 520), (3, 336)] {
            let whole = datagram(1312, seed);
            let mut pieces = pieces(&mut cutter, &whole, size);
            pieces.rotate_left(1);
            let (last, before) = pieces.split_last().unwrap();
            for piece in before {
                assert_eq!(take(&mut joiner, peer(1), piece, at(1)), None);
                assert_eq!(take(&mut joiner, peer(1), piece, at(1)), None, "twice");
            }
            assert_eq!(take(&mut joiner, peer(1), last, at(1)), Some(whole));
            assert!(joiner.places.iter().all(|place| place.from.is_none()));
        }
    }

    #[test]
    fn pieces_of_two_senders_or_of_a_second_ago_are_never_one_datagram() {
        let mut joiner = Joiner::new(8);
        let [a, b] = [1, 2].map(|seed| pieces(&mut Cutter::new(7), &datagram(900, seed), 600));
        assert_eq!(take(&mut joiner, peer(1), &a[0], at(1)), None);
        assert_eq!(take(&mut joiner, peer(2), &b[1], at(1)), None);
        assert_eq!(take(&mut joiner, peer(1), &a[1], at(1001)), None);
        let whole = take(&mut joiner, peer(1), &a[0], at(1002));
        assert_eq!(whole, Some(datagram(900, 1)));
    }

    #[test]
    fn a_sender_of_halves_takes_a_quarter_of_the_places_and_no_more() {
        let mut joiner = Joiner::new(8);
        let mut cutter = Cutter::new(7);
        let whole = datagram(900, 1);
        let good = pieces(&mut cutter, &whole, 600);
        assert_eq!(take(&mut joiner, peer(1), &good[0], at(0)), None);
        for _ in 0..100 {
            let half = pieces(&mut cutter, &whole, 600);
            assert_eq!(take(&mut joiner, peer(2), &half[0], at(1)), None);
        }
        let taken = joiner.places.iter().filter(|p| p.from == Some(peer(2)));
        assert_eq!(taken.count(), 2);
        assert_eq!(take(&mut joiner, peer(1), &good[1], at(2)), Some(whole));
    }

    #[test]
    fn a_full_table_waits_for_what_is_there_already() {
        let mut joiner = Joiner::new(4);
        let whole = datagram(900, 1);
        let halves = pieces(&mut Cutter::new(7), &whole, 600);
        for sender in 1..=5 {
            assert_eq!(take(&mut joiner, peer(sender), &halves[0], at(0)), None);
        }
        assert_eq!(take(&mut joiner, peer(5), &halves[1], at(1)), None);
        assert_eq!(take(&mut joiner, peer(4), &halves[1], at(1)), Some(whole));
    }

    #[test]
    fn what_would_take_too_many_pieces_stays_whole() {
        let mut cutter = Cutter::new(7);
        assert!(pieces(&mut cutter, &datagram(1312, 1), 335).is_empty());
        assert!(pieces(&mut cutter, &datagram(1501, 1), 1200).is_empty());
    }

    proptest! {
        #[test]
        fn no_pieces_make_the_table_panic_or_grow(
            came in proptest::collection::vec((0u16..4, 0u8..5, 0u8..5, 0u16..40, 0u32..3, 0usize..20, 0u64..800), 0..60),
        ) {
            let mut joiner = Joiner::new(3);
            let room = (joiner.places.len(), joiner.bytes.len());
            let mut now = 0;
            for (sender, index, count, length, id, bytes, ms) in came {
                now += ms;
                let mut piece = std::vec![PIECE, index << 4 | count];
                piece.extend_from_slice(&length.to_be_bytes());
                piece.extend_from_slice(&id.to_be_bytes());
                piece.resize(8 + bytes, 1);
                if let Some(whole) = take(&mut joiner, peer(sender), &piece, at(now)) {
                    prop_assert_eq!(whole.len(), usize::from(length));
                    prop_assert!(count <= MAX_PIECES);
                }
                prop_assert_eq!(room, (joiner.places.len(), joiner.bytes.len()));
            }
        }

        #[test]
        fn every_datagram_that_is_cut_comes_out_as_it_was(length in 1usize..1600, size in 0usize..1600) {
            prop_assume!(length <= 1532);
            let whole = datagram(length, 5);
            let mut joiner = Joiner::new(1);
            let pieces = pieces(&mut Cutter::new(1), &whole, size);
            let out = pieces.iter().filter_map(|piece| take(&mut joiner, peer(1), piece, at(1)));
            let out: Vec<_> = out.collect();
            prop_assert_eq!(out.len(), usize::from(!pieces.is_empty()));
            prop_assert!(out.iter().all(|out| *out == whole));
        }
    }
}
