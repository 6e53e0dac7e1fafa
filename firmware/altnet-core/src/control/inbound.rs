//! The messages of one session on their way in: put together, in order, once.
//!
//! In: fragments in any order, again and again. Out: whole messages in the order of their
//! numbers, and what is to be acknowledged. Room for the message that is due next is always
//! kept, so that early ones can't block it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use altnet_wire::control::{ControlFrame, FRAGMENT_BYTES, MAX_FRAGMENTS, MAX_MESSAGE_BYTES};

use super::limits::{MAX_ACKS, MESSAGE_WINDOW};

/// A fragment that contradicts an earlier one of its message, or a number past the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contradiction;

/// The way in.
pub(super) struct Inbound {
    next: u32,
    messages: BTreeMap<u32, Incoming>,
    acks: BTreeMap<u32, u32>,
    limit_bytes: usize,
}

struct Incoming {
    bytes: Vec<u8>,
    count: u8,
    got: u32,
}

impl Incoming {
    fn new(count: u8) -> Self {
        Self {
            bytes: alloc::vec![0; room(count)],
            count,
            got: 0,
        }
    }

    fn is_whole(&self) -> bool {
        self.got == all(self.count)
    }
}

/// The bits of all fragments of a message that has `count`.
fn all(count: u8) -> u32 {
    1u32.checked_shl(count.into())
        .map_or(u32::MAX, |bit| bit - 1)
}

/// The bytes kept for a message of `count` fragments.
fn room(count: u8) -> usize {
    (usize::from(count) * FRAGMENT_BYTES).min(MAX_MESSAGE_BYTES)
}

impl Inbound {
    /// `limit_bytes` is at least twice the largest message.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self {
            next: 0,
            messages: BTreeMap::new(),
            acks: BTreeMap::new(),
            limit_bytes: limit_bytes.max(2 * MAX_MESSAGE_BYTES),
        }
    }

    /// Takes a fragment, as [`ControlFrame::take`] has checked it.
    pub(super) fn fragment(
        &mut self,
        message: u32,
        index: u8,
        count: u8,
        bytes: &[u8],
    ) -> Result<(), Contradiction> {
        if message == u32::MAX || usize::from(count) > MAX_FRAGMENTS || index >= count {
            return Err(Contradiction);
        }
        let Some(ahead) = message.checked_sub(self.next) else {
            // Delivered before; its acknowledgement was lost.
            self.note(message, all(count));
            return Ok(());
        };
        if ahead >= MESSAGE_WINDOW || !self.has_room(message, count) {
            // Not acknowledged, so it comes again.
            return Ok(());
        }
        let incoming = self
            .messages
            .entry(message)
            .or_insert_with(|| Incoming::new(count));
        if incoming.count != count {
            return Err(Contradiction);
        }
        let bit = 1u32 << index.min(31);
        if incoming.got & bit == 0 {
            let start = usize::from(index) * FRAGMENT_BYTES;
            let end = start + bytes.len();
            incoming
                .bytes
                .get_mut(start..end)
                .ok_or(Contradiction)?
                .copy_from_slice(bytes);
            if index + 1 == count {
                incoming.bytes.truncate(end);
            }
            incoming.got |= bit;
        }
        let got = incoming.got;
        self.note(message, got);
        Ok(())
    }

    /// Whether a message may be begun, or was.
    fn has_room(&self, message: u32, count: u8) -> bool {
        if message == self.next || self.messages.contains_key(&message) {
            return true;
        }
        let early = self.messages.iter().filter(|(id, _)| **id != self.next);
        let used: usize = early.map(|(_, incoming)| room(incoming.count)).sum();
        used + room(count) + MAX_MESSAGE_BYTES <= self.limit_bytes
    }

    fn note(&mut self, message: u32, fragments: u32) {
        if self.acks.len() < MAX_ACKS || self.acks.contains_key(&message) {
            self.acks.insert(message, fragments);
        }
    }

    /// The next whole message, if it is due.
    pub(super) fn next_message(&mut self) -> Option<Vec<u8>> {
        if !self.messages.get(&self.next)?.is_whole() {
            return None;
        }
        let incoming = self.messages.remove(&self.next)?;
        self.next = self.next.saturating_add(1);
        Some(incoming.bytes)
    }

    /// The next acknowledgement to send.
    pub(super) fn next_ack(&mut self) -> Option<ControlFrame<'static>> {
        let (message, fragments) = self.acks.pop_first()?;
        Some(ControlFrame::Ack { message, fragments })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: [u8; FRAGMENT_BYTES] = [7; FRAGMENT_BYTES];

    #[test]
    fn early_messages_never_take_the_room_of_the_next() {
        let mut inbound = Inbound::new(0);
        for message in 1..20 {
            for index in 0..17 {
                inbound.fragment(message, index, 18, &FULL).unwrap();
            }
        }
        let kept: usize = inbound.messages.values().map(|m| m.bytes.len()).sum();
        assert!(kept <= MAX_MESSAGE_BYTES);
        assert!(inbound.next_message().is_none());
        for index in 0..18 {
            let bytes = &FULL[..if index == 17 { 1 } else { FRAGMENT_BYTES }];
            inbound.fragment(0, index, 18, bytes).unwrap();
        }
        assert_eq!(inbound.next_message().unwrap().len(), 17 * 1152 + 1);
        assert!(inbound.next_message().is_none());
    }

    #[test]
    fn what_is_not_kept_is_not_acknowledged() {
        let mut inbound = Inbound::new(0);
        inbound.fragment(MESSAGE_WINDOW, 0, 1, b"far").unwrap();
        assert_eq!(inbound.next_ack(), None);
        inbound.fragment(1, 1, 2, b"early").unwrap();
        let ack = |message, fragments| Some(ControlFrame::Ack { message, fragments });
        assert_eq!(inbound.next_ack(), ack(1, 0b10));
        inbound.fragment(0, 0, 1, b"due").unwrap();
        assert_eq!(inbound.next_message().unwrap(), b"due");
        // Its acknowledgement was lost: it comes again and isn't delivered again.
        assert_eq!(inbound.next_ack(), ack(0, 1));
        inbound.fragment(0, 0, 1, b"due").unwrap();
        assert_eq!(inbound.next_ack(), ack(0, 1));
        assert!(inbound.next_message().is_none());
    }

    #[test]
    fn a_contradiction_is_seen() {
        let mut inbound = Inbound::new(0);
        inbound.fragment(0, 0, 2, &FULL).unwrap();
        assert_eq!(inbound.fragment(0, 0, 3, &FULL), Err(Contradiction));
        assert_eq!(inbound.fragment(u32::MAX, 0, 1, b""), Err(Contradiction));
        assert_eq!(inbound.fragment(0, 3, 3, b""), Err(Contradiction));
    }
}
