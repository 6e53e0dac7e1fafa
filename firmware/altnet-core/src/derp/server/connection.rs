//! What a relay keeps of a connection, and where.

use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_wire::derp::{Frame, PresentFlags, PublicKey};
use altnet_wire::time::{Duration, Instant};

use super::{Arrival, ConnectionId, Origin};
use crate::derp::rate::Bucket;

/// How many receivers of a connection's packets are remembered, to be told when it ends.
pub const GONE_MEMORY: usize = 16;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: PublicKey,
    pub(super) is_mesh_peer: bool,
    pub(super) is_preferred: bool,
    /// Whether its key has another connection.
    pub(super) has_twins: bool,
    /// How often it is told that it lives.
    pub(super) keepalive: Duration,
    pub(super) keepalive_at: Instant,
    /// What it may still send.
    pub(super) bucket: Bucket,
    /// How often it may be told that a peer isn't here.
    pub(super) not_here: Bucket,
    address: Option<SocketAddr>,
    flags: PresentFlags,
    /// Whom it sent packets lately, the latest first.
    receivers: heapless::Vec<ConnectionId, GONE_MEMORY>,
}

impl Connection {
    pub(super) fn new(
        arrival: &Arrival,
        origin: Origin,
        keepalive: Duration,
        now: Instant,
    ) -> Self {
        let flags = [
            (arrival.info.is_prober, PresentFlags::PROBER),
            (arrival.is_mesh_peer, PresentFlags::MESH_PEER),
            (origin.is_not_ideal, PresentFlags::NOT_IDEAL),
        ]
        .into_iter()
        .filter(|(is_set, _)| *is_set)
        .fold(0, |flags, (_, flag)| flags | flag.0);
        Self {
            key: arrival.key,
            is_mesh_peer: arrival.is_mesh_peer,
            is_preferred: false,
            has_twins: false,
            keepalive,
            keepalive_at: now.after(keepalive),
            bucket: Bucket::default(),
            not_here: Bucket::default(),
            address: origin.address,
            flags: if flags == 0 {
                PresentFlags::REGULAR
            } else {
                PresentFlags(flags)
            },
            receivers: heapless::Vec::new(),
        }
    }

    /// What watchers learn of it.
    pub(super) fn presence(&self) -> Frame<'static> {
        Frame::PeerPresent {
            peer: self.key,
            address: self.address,
            flags: Some(self.flags),
        }
    }

    pub(super) fn note_receiver(&mut self, to: ConnectionId) {
        // Packets come in runs: the first look mostly finds it.
        if self.receivers.first() == Some(&to) {
            return;
        }
        if let Some(at) = self.receivers.iter().position(|other| *other == to) {
            if let Some(before) = self.receivers.get_mut(..=at) {
                before.rotate_right(1);
            }
            return;
        }
        if self.receivers.is_full() {
            self.receivers.pop();
        }
        // There is room: the one that was sent to longest ago was taken out.
        let _ = self.receivers.insert(0, to);
    }

    pub(super) fn receivers(&self) -> impl Iterator<Item = ConnectionId> {
        self.receivers.iter().copied()
    }
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Whether the heap of keepalives has an entry for it.
    has_timer: bool,
    connection: Option<Connection>,
}

/// Connections by slot.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// Slots that were used and are free.
    free: Vec<u32>,
    limit: usize,
}

impl Slots {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            slots: Vec::with_capacity(limit),
            free: Vec::with_capacity(limit),
            limit,
        }
    }

    pub(super) fn insert(&mut self, connection: Connection) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.limit => {
                self.slots.push(Slot::default());
                u32::try_from(self.slots.len() - 1).ok()?
            }
            None => return None,
        };
        let place = self.slot(slot)?;
        place.connection = Some(connection);
        let generation = place.generation;
        Some(ConnectionId { slot, generation })
    }

    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let place = self
            .slot(id.slot)
            .filter(|s| s.generation == id.generation)?;
        let connection = place.connection.take()?;
        // Who still names the old connection doesn't reach the next one.
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(connection)
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        let place = self.slots.get(id.slot())?;
        let connection = place.connection.as_ref()?;
        (place.generation == id.generation).then_some(connection)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let place = self.slot(id.slot)?;
        let connection = place.connection.as_mut()?;
        (place.generation == id.generation).then_some(connection)
    }

    /// Whatever connection is in a slot.
    pub(super) fn at(&mut self, slot: u32) -> Option<(ConnectionId, &mut Connection)> {
        let place = self.slot(slot)?;
        let generation = place.generation;
        let connection = place.connection.as_mut()?;
        Some((ConnectionId { slot, generation }, connection))
    }

    pub(super) fn has_timer(&self, slot: u32) -> bool {
        let at = usize::try_from(slot).unwrap_or(usize::MAX);
        self.slots.get(at).is_some_and(|slot| slot.has_timer)
    }

    pub(super) fn set_timer(&mut self, slot: u32, has_timer: bool) {
        if let Some(slot) = self.slot(slot) {
            slot.has_timer = has_timer;
        }
    }

    fn slot(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(usize::try_from(slot).ok()?)
    }
}
