//! Joining where no UDP passes: the same call as by UDP, over a stream to the entry that the invite
//! names.
//!
//! A device that is no member yet knows no relay by its id. So what it sends over the stream is for a
//! name that stands for whoever is at the other end, and it is a guest there until it has joined. A
//! relay that doesn't know that name passes it over; then joining fails as without any answer.

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};

use super::streams::{WITHOUT_UDP, WantedStream};
use super::{DropReason, Node, Verdict};

/// How long the stream is kept once this node is a member: for what is still on its way.
const LEAVING: Duration = Duration::from_secs(5);

/// What a name begins with that stands for whoever is at the other end of a stream; the last byte is
/// the place of the entry. No node has a multicast address.
const LABEL: [u8; 15] = *b"\xff\x02door.........";

/// The name of the entry at that place.
const fn door(entry: u8) -> NodeId {
    let mut id = [0; 16];
    let (label, place) = id.split_at_mut(LABEL.len());
    label.copy_from_slice(&LABEL);
    place[0] = entry;
    NodeId(id)
}

/// Whether a name stands for whoever is at the other end.
pub(super) fn is_door(node: NodeId) -> bool {
    node.0.starts_with(&LABEL)
}

/// The stream by which this device joins.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Door {
    /// The entry that it leads to, and since when that one is called.
    called: Option<(u8, Instant)>,
    is_up: bool,
    /// Until when it is kept after joining.
    until: Instant,
}

impl<A: Aead> Node<A> {
    /// The entry at this place among the invite's is called by UDP.
    pub(super) fn door_called(&mut self, entry: usize, now: Instant) {
        let entry = u8::try_from(entry).ok();
        self.door = Door {
            called: entry.map(|entry| (entry, now)),
            ..Door::default()
        };
        self.timers.housekeeping_at(now.after(WITHOUT_UDP));
    }

    /// The device is a member, or gave up.
    pub(super) fn door_leaves(&mut self, now: Instant) {
        self.door.until = now.after(LEAVING);
        self.timers.housekeeping_at(self.door.until);
    }

    /// The stream to the entry that is called, once UDP was given its time.
    pub(super) fn wanted_door(&self, now: Instant) -> Option<WantedStream> {
        let (entry, since) = self.door.called?;
        let has_waited = now.saturating_since(since) >= WITHOUT_UDP;
        let address = self.entry_without_answer(entry.into());
        let is_leaving = self.door.is_up && now < self.door.until;
        if !(has_waited && address.is_some() || self.door.is_up && self.is_joining() || is_leaving)
        {
            return None;
        }
        let addresses = address.map(|to| self.traversal.outward(to));
        Some(WantedStream {
            relay: door(entry),
            addresses: addresses.into_iter().collect(),
        })
    }

    /// The stream stands, or has ended: over one that stands the entry is called, if it hasn't
    /// answered by UDP.
    pub(super) fn handle_door(&mut self, relay: NodeId, is_up: bool, now: Instant) {
        let Some((entry, _)) = self.door.called.filter(|(entry, _)| door(*entry) == relay) else {
            return;
        };
        let was_up = core::mem::replace(&mut self.door.is_up, is_up);
        if is_up && !was_up && self.entry_without_answer(entry.into()).is_some() {
            self.call_entry_over(Endpoint::Relayed { relay, node: relay }, now);
        }
        self.timers.housekeeping_at(now);
    }

    /// A datagram that came over the stream from the entry.
    pub(super) fn door_endpoint(&self, relay: NodeId) -> Result<Endpoint, DropReason> {
        let called = self.door.called.filter(|(entry, _)| door(*entry) == relay);
        match called.filter(|_| self.door.is_up) {
            Some(_) => Ok(Endpoint::Relayed { relay, node: relay }),
            None => Err(DropReason::RelayUnknown),
        }
    }

    /// What to do with a datagram for the entry.
    pub(super) fn send_to_door(&self, relay: NodeId) -> Result<Verdict, DropReason> {
        self.door_endpoint(relay).map_err(|_| DropReason::NoPath)?;
        Ok(Verdict::ToRelay { relay, to: relay })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_told_from_every_node() {
        assert!(is_door(door(0)) && is_door(door(3)));
        assert!(!is_door(NodeId([0xfd; 16])));
        assert_eq!(super::super::streams::stream_of(door(1)), None);
    }
}
