//! Packets that wait for a session: a fixed pool of buffers shared by all peers.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use altnet_wire::frame::{Frame, MAX_PACKET_BYTES};

use super::api::PeerIndex;

/// The pool. Each peer's packets leave in the order they came.
pub(super) struct Queue {
    slots: Vec<Slot>,
    per_peer: usize,
    next: u64,
}

struct Slot {
    /// Whose packet, and its place in the order of all.
    owner: Option<(PeerIndex, u64)>,
    len: usize,
    bytes: Box<[u8]>,
}

impl Queue {
    pub(super) fn new(packets: u16, per_peer: u16) -> Self {
        let slot = || Slot {
            owner: None,
            len: 0,
            bytes: vec![0; MAX_PACKET_BYTES].into_boxed_slice(),
        };
        Self {
            slots: (0..packets).map(|_| slot()).collect(),
            per_peer: usize::from(per_peer),
            next: 0,
        }
    }

    /// Keeps a copy of `packet`. A peer that has its share waiting loses its oldest.
    pub(super) fn push(&mut self, peer: PeerIndex, packet: &[u8]) -> bool {
        if packet.len() > MAX_PACKET_BYTES || self.per_peer == 0 {
            return false;
        }
        if self.of(peer).count() >= self.per_peer {
            let _oldest = self.take_oldest(peer);
        }
        let order = self.next;
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.owner.is_none()) else {
            return false;
        };
        let Some(bytes) = slot.bytes.get_mut(..packet.len()) else {
            return false;
        };
        bytes.copy_from_slice(packet);
        slot.len = packet.len();
        slot.owner = Some((peer, order));
        self.next += 1;
        true
    }

    /// Moves the peer's oldest packet into the frame. `false` if there is none, or it was
    /// too long for the frame and is lost.
    pub(super) fn pop(&mut self, peer: PeerIndex, frame: &mut Frame<'_>) -> bool {
        let Some(slot) = self.take_oldest(peer) else {
            return false;
        };
        slot.bytes
            .get(..slot.len)
            .is_some_and(|bytes| frame.set(bytes).is_ok())
    }

    pub(super) fn has(&self, peer: PeerIndex) -> bool {
        self.of(peer).next().is_some()
    }

    pub(super) fn forget(&mut self, peer: PeerIndex) {
        for slot in &mut self.slots {
            if slot.owner.is_some_and(|(owner, _)| owner == peer) {
                slot.owner = None;
            }
        }
    }

    fn of(&self, peer: PeerIndex) -> impl Iterator<Item = u64> {
        self.slots
            .iter()
            .filter_map(|slot| slot.owner)
            .filter_map(move |(owner, order)| (owner == peer).then_some(order))
    }

    fn take_oldest(&mut self, peer: PeerIndex) -> Option<&mut Slot> {
        let oldest = self.of(peer).min()?;
        let slot = self
            .slots
            .iter_mut()
            .find(|slot| slot.owner == Some((peer, oldest)))?;
        slot.owner = None;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::frame::FRAME_BYTES;

    #[test]
    fn packets_wait_in_order_and_within_their_share() {
        let mut queue = Queue::new(3, 2);
        let (a, b, c) = (PeerIndex(0), PeerIndex(1), PeerIndex(2));
        assert!(queue.push(a, b"1"));
        assert!(queue.push(b, b"x"));
        assert!(queue.push(a, b"2"));
        assert!(queue.push(a, b"3"), "the oldest of the same peer gives way");
        assert!(!queue.push(c, b"other peers' packets don't"));
        assert!(!queue.push(a, &[0; MAX_PACKET_BYTES + 1]));
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        assert!(queue.pop(a, &mut frame));
        assert_eq!(frame.packet(), b"2");
        assert!(queue.pop(a, &mut frame));
        assert_eq!(frame.packet(), b"3");
        assert!(!queue.pop(a, &mut frame));
        queue.forget(b);
        assert!(!queue.has(b));
    }
}
