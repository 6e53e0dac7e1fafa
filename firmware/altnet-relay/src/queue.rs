//! Frames that wait to be written to one connection.
//!
//! In: frames, from the tasks of other connections. Out: runs of whole frames, as many as fit.
//! Promises: it holds no memory while it is empty, and never more than it is told it may; when it is
//! full the oldest packet goes, as with Tailscale's server.

use std::collections::VecDeque;

use altnet_core::derp::server::QueueLimits;
use altnet_wire::derp::{Frame, HEADER_BYTES, PACKET_PREFIX_BYTES};

/// What the first piece of a lane holds: a packet of usual length.
const FIRST_PIECE_BYTES: usize = 2 << 10;
/// What later pieces hold.
const PIECE_BYTES: usize = 16 << 10;
/// What frames other than packets may take.
const CONTROL_BYTES: usize = 4 << 10;

/// Frames of one kind, the oldest first. A frame is never in two pieces.
#[derive(Debug, Default)]
struct Lane {
    pieces: VecDeque<Piece>,
    frames: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Piece {
    bytes: Vec<u8>,
    /// Where what waits begins.
    start: usize,
}

impl Lane {
    fn push(&mut self, parts: [&[u8]; 2]) {
        let length = parts[0].len() + parts[1].len();
        let has_room = |piece: &&mut Piece| piece.bytes.capacity() - piece.bytes.len() >= length;
        if self.pieces.back_mut().filter(has_room).is_none() {
            let usual = if self.pieces.is_empty() {
                FIRST_PIECE_BYTES
            } else {
                PIECE_BYTES
            };
            self.pieces.push_back(Piece {
                bytes: Vec::with_capacity(usual.max(length)),
                start: 0,
            });
        }
        if let Some(piece) = self.pieces.back_mut() {
            parts
                .iter()
                .for_each(|part| piece.bytes.extend_from_slice(part));
            self.frames += 1;
            self.bytes += length;
        }
    }

    /// The length of the oldest frame.
    fn oldest(&self) -> Option<usize> {
        let piece = self.pieces.front()?;
        let rest = piece.bytes.get(piece.start..)?;
        let [_, a, b, c, d] = *rest.first_chunk::<HEADER_BYTES>()?;
        let body = u32::from_be_bytes([a, b, c, d]);
        Some(HEADER_BYTES + usize::try_from(body).ok()?)
    }

    /// Forgets the oldest frame.
    fn drop_oldest(&mut self) -> bool {
        match self.oldest() {
            Some(length) => {
                self.advance(length, 1);
                true
            }
            None => false,
        }
    }

    /// As many whole frames as fit into `room`, one at least. To be followed by [`Lane::advance`].
    fn front(&self, room: usize) -> Option<(&[u8], usize)> {
        let piece = self.pieces.front()?;
        let rest = piece.bytes.get(piece.start..)?;
        if rest.len() <= room && self.pieces.len() == 1 {
            return Some((rest, self.frames));
        }
        let (mut length, mut frames) = (0, 0);
        while let Some([_, a, b, c, d]) = rest.get(length..)?.first_chunk::<HEADER_BYTES>() {
            let body = u32::from_be_bytes([*a, *b, *c, *d]);
            let next = length + HEADER_BYTES + usize::try_from(body).ok()?;
            if frames > 0 && next > room {
                break;
            }
            (length, frames) = (next, frames + 1);
        }
        Some((rest.get(..length)?, frames))
    }

    fn advance(&mut self, bytes: usize, frames: usize) {
        self.frames = self.frames.saturating_sub(frames);
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some(piece) = self.pieces.front_mut() {
            piece.start += bytes;
            if piece.start >= piece.bytes.len() {
                self.pieces.pop_front();
            }
        }
        if self.pieces.is_empty() {
            self.pieces = VecDeque::new();
        }
    }
}

/// Frames for one connection.
#[derive(Debug)]
pub(crate) struct Queue {
    control: Lane,
    disco: Lane,
    others: Lane,
    limits: QueueLimits,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            control: Lane::default(),
            disco: Lane::default(),
            others: Lane::default(),
            limits,
        }
    }

    /// Queues a frame that is no packet; `false` if the other side takes too little of what it is sent.
    pub(crate) fn push_control(&mut self, frame: &Frame<'_>) -> bool {
        let mut bytes = [0; 64];
        let Ok(length) = frame.encode(&mut bytes) else {
            return false;
        };
        let fits = self.control.bytes + length <= CONTROL_BYTES;
        if fits {
            self.control.push([bytes.get(..length).unwrap_or(&[]), &[]]);
        }
        fits
    }

    /// Queues a frame that is already encoded.
    pub(crate) fn push_encoded(&mut self, frame: &[u8]) {
        self.control.push([frame, &[]]);
    }

    /// Queues a packet behind its prefix, and returns how many older ones made room for it.
    pub(crate) fn push_packet(
        &mut self,
        prefix: &[u8; PACKET_PREFIX_BYTES],
        packet: &[u8],
        is_disco: bool,
    ) -> u64 {
        let limits = self.limits;
        let length = prefix.len() + packet.len();
        let mut dropped = 0;
        while self.disco.bytes + self.others.bytes + length > limits.bytes
            && (self.others.drop_oldest() || self.disco.drop_oldest())
        {
            dropped += 1;
        }
        let lane = if is_disco {
            &mut self.disco
        } else {
            &mut self.others
        };
        while lane.frames >= limits.packets && lane.drop_oldest() {
            dropped += 1;
        }
        lane.push([prefix, packet]);
        dropped
    }

    /// Hands out whole frames, the most urgent first, as long as `take` says how many bytes it still
    /// has room for. The first run may be longer than that if it is a single frame.
    pub(crate) fn take(&mut self, mut room: usize, mut take: impl FnMut(&[u8])) {
        for lane in [&mut self.control, &mut self.disco, &mut self.others] {
            while let Some((bytes, frames)) = lane.front(room) {
                if bytes.len() > room {
                    return;
                }
                take(bytes);
                let length = bytes.len();
                room -= length;
                lane.advance(length, frames);
            }
        }
    }

    /// Takes a frame that is longer than any room: [`Queue::take`] left it.
    pub(crate) fn take_long(&mut self, room: usize) -> Option<Vec<u8>> {
        let lanes = [&mut self.control, &mut self.disco, &mut self.others];
        let lane = lanes.into_iter().find(|lane| lane.frames > 0)?;
        let length = lane.oldest().filter(|length| *length > room)?;
        let (bytes, _) = lane.front(length)?;
        let frame = bytes.to_vec();
        lane.advance(length, 1);
        Some(frame)
    }

    /// Whether nothing waits.
    #[cfg(test)]
    fn is_empty(&self) -> bool {
        self.control.frames + self.disco.frames + self.others.frames == 0
    }

    /// How many packets wait.
    pub(crate) fn packets(&self) -> usize {
        self.disco.frames + self.others.frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::derp::{FrameKind, PublicKey, packet_prefix};
    use proptest::prelude::*;

    const LIMITS: QueueLimits = QueueLimits {
        packets: 3,
        bytes: 1000,
    };

    fn push(queue: &mut Queue, packet: &[u8], is_disco: bool) -> u64 {
        let from = PublicKey([1; 32]);
        let prefix = packet_prefix(FrameKind::RECV_PACKET, &from, packet.len());
        queue.push_packet(&prefix, packet, is_disco)
    }

    /// The first octets of the packets that are handed out, in runs of at most `room` bytes.
    fn drain(queue: &mut Queue, room: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        while !queue.is_empty() {
            let mut taken = 0;
            queue.take(room, |mut bytes| {
                taken += bytes.len();
                while let Some(([_, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() {
                    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
                    seen.push(rest.get(32).copied().unwrap_or(0));
                    bytes = &rest[length..];
                }
            });
            assert!(taken > 0 && taken <= room);
        }
        seen
    }

    #[test]
    fn a_full_queue_loses_its_oldest_packets() {
        let mut queue = Queue::new(LIMITS);
        let dropped: Vec<_> = (1..=5)
            .map(|n| push(&mut queue, &[n; 100], false))
            .collect();
        assert_eq!(dropped, [0, 0, 0, 1, 1]);
        assert_eq!(drain(&mut queue, 10_000), [3, 4, 5]);
        // By bytes: disco stays for longest.
        push(&mut queue, &[1; 100], true);
        push(&mut queue, &[2; 700], false);
        assert_eq!(push(&mut queue, &[3; 500], false), 1);
        assert_eq!(drain(&mut queue, 10_000), [1, 3]);
    }

    #[test]
    fn what_is_urgent_goes_first_and_an_empty_queue_holds_nothing() {
        let mut queue = Queue::new(LIMITS);
        push(&mut queue, &[2; 10], false);
        push(&mut queue, &[1; 10], true);
        assert!(queue.push_control(&Frame::KeepAlive));
        assert_eq!(queue.packets(), 2);
        assert_eq!(drain(&mut queue, 10_000), [0, 1, 2]);
        for lane in [&queue.control, &queue.disco, &queue.others] {
            assert_eq!((lane.pieces.capacity(), lane.bytes), (0, 0));
        }
    }

    #[test]
    fn who_reads_nothing_is_not_answered_for_ever() {
        let mut queue = Queue::new(LIMITS);
        let pongs = (0..10_000)
            .filter(|_| queue.push_control(&Frame::Pong([0; 8])))
            .count();
        assert_eq!(pongs, CONTROL_BYTES / 13);
    }

    #[test]
    fn a_frame_longer_than_any_room_is_taken_alone() {
        let limits = QueueLimits {
            packets: 9,
            bytes: 1 << 20,
        };
        let mut queue = Queue::new(limits);
        push(&mut queue, &[1; 10], false);
        push(&mut queue, &[7; 60_000], false);
        assert_eq!(queue.take_long(40_000), None);
        let mut taken = 0;
        queue.take(40_000, |bytes| taken += bytes.len());
        assert_eq!(taken, 47);
        assert_eq!(queue.take_long(40_000).unwrap().len(), 60_037);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_queued_comes_out_in_order(
            lengths in proptest::collection::vec(1_usize..3000, 1..40),
            room in 3100_usize..9000,
        ) {
            let limits = QueueLimits { packets: 100, bytes: 1 << 20 };
            let mut queue = Queue::new(limits);
            for (n, length) in lengths.iter().enumerate() {
                push(&mut queue, &vec![n as u8; *length], false);
            }
            let expected: Vec<u8> = (0..lengths.len()).map(|n| n as u8).collect();
            prop_assert_eq!(drain(&mut queue, room), expected);
        }
    }
}
