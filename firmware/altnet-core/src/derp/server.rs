//! Forwarding between the clients of one relay, by DERP key, without understanding what is forwarded.
//!
//! In: clients that [`super::handshake`] has identified and the caller admitted, their frames, the end
//! of their connections, the time. Out: for a packet, at once, whose connection it goes to; from
//! [`Server::poll_output`] everything else that is to be written, closed and waited for.
//! Promises: what a packet costs doesn't depend on how many clients there are but for a look-up, and
//! allocates nothing; every table has a bound.
//!
//! Several connections of one key are one client: packets go to the one that wrote last, or came last
//! if none did since, as with Tailscale's server. Who was sent a packet by a client lately is told when
//! that client's last connection ends; [`GONE_MEMORY`] receivers are remembered.
//!
//! Deliberately absent: queues. A driver keeps one for each connection, of the bounds in
//! [`QueueLimits`], drops the oldest when it is full and says so by [`Server::note_dropped`].
//!
//! Source: `derp/derpserver/derpserver.go` of Tailscale.

mod connection;
mod limits;
mod surface;
mod watch;

use alloc::collections::{BTreeMap, BinaryHeap, VecDeque};
use core::cmp::Reverse;
use core::net::SocketAddr;

use altnet_wire::derp::split::RawFrame;
use altnet_wire::derp::{
    Frame, GoneReason, KEEPALIVE, KEEPALIVE_JITTER, KEY_BYTES, MAX_PACKET_BYTES, PublicKey,
};
use altnet_wire::time::{Duration, Instant};

use super::handshake::Arrival;
use super::is_disco;
use super::rate::Rate;
use crate::rng::Rng;
pub use connection::GONE_MEMORY;
use connection::{Connection, Slots};
pub use limits::{QueueLimits, ServerLimits};
pub use surface::{CloseReason, DropReason, Full, Output, ServerCounters, Verdict};
use watch::{Change, Watchers};

/// The most connections of one key. The one that was silent for longest makes room for another.
pub const MAX_DUPLICATES: usize = 8;

/// How often somebody is told that a peer isn't here.
const NOT_HERE: Rate = Rate { per_s: 1, burst: 3 };

/// A connection. Never used again once it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    slot: u32,
    generation: u32,
}

impl ConnectionId {
    /// Its place in a driver's table: below [`ServerLimits::connections`], no other's while it lasts.
    pub fn slot(self) -> usize {
        usize::try_from(self.slot).unwrap_or(usize::MAX)
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its address, if it is known.
    pub address: Option<SocketAddr>,
    /// Whether it said that it would rather be elsewhere (`Ideal-Node`).
    pub is_not_ideal: bool,
}

/// A client: the connections of one key.
#[derive(Debug, Default)]
struct Client {
    /// In the order in which they were last active; packets go to the last.
    connections: heapless::Vec<ConnectionId, MAX_DUPLICATES>,
}

/// A relay's clients.
#[derive(Debug)]
pub struct Server {
    public: PublicKey,
    limits: ServerLimits,
    slots: Slots,
    clients: BTreeMap<PublicKey, Client>,
    watchers: Watchers,
    /// When to say that a connection lives: one entry a slot, or none.
    keepalives: BinaryHeap<Reverse<(Instant, u32)>>,
    outputs: VecDeque<Output>,
    output_limit: usize,
    rng: Rng,
    counters: ServerCounters,
}

impl Server {
    /// A relay that clients know by `public`.
    pub fn new(public: PublicKey, limits: ServerLimits, seed: [u8; 32]) -> Self {
        // What one input leads to at most: those who are told of a client that left, the connections
        // of a key, the watchers, and an answer.
        let output_limit = GONE_MEMORY + MAX_DUPLICATES + 2 * limits.watchers + 2;
        Self {
            public,
            limits,
            slots: Slots::new(limits.connections),
            clients: BTreeMap::new(),
            watchers: Watchers::new(limits.watchers, limits.watcher_backlog),
            keepalives: BinaryHeap::with_capacity(limits.connections),
            outputs: VecDeque::with_capacity(output_limit),
            output_limit,
            rng: Rng::new(seed),
            counters: ServerCounters::default(),
        }
    }

    /// What it has room for.
    pub const fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// What happened so far.
    pub const fn counters(&self) -> &ServerCounters {
        &self.counters
    }

    /// Whether a client of this key is connected.
    pub fn is_connected(&self, key: &PublicKey) -> bool {
        self.clients.contains_key(key)
    }

    /// The clients that were asked about before they came: all but mesh peers.
    pub fn admitted(&self) -> impl Iterator<Item = &PublicKey> {
        let is_asked_about = |client: &Client| {
            let mut connections = client.connections.iter();
            connections.any(|id| self.slots.get(*id).is_some_and(|c| !c.is_mesh_peer))
        };
        self.clients
            .iter()
            .filter(move |(_, client)| is_asked_about(client))
            .map(|(key, _)| key)
    }

    /// Takes a connection on, whose client was identified and admitted.
    ///
    /// # Errors
    /// [`Full`]; the connection is to be closed.
    pub fn connect(
        &mut self,
        arrival: &Arrival,
        origin: Origin,
        now: Instant,
    ) -> Result<ConnectionId, Full> {
        let jitter_us = u32::try_from(KEEPALIVE_JITTER.as_micros()).unwrap_or(u32::MAX);
        let jitter = Duration::from_micros(self.rng.below(jitter_us).into());
        let connection = Connection::new(arrival, origin, KEEPALIVE + jitter, now);
        let due = connection.keepalive_at;
        let id = self.slots.insert(connection).ok_or(Full)?;
        if !self.slots.has_timer(id.slot) {
            self.slots.set_timer(id.slot, true);
            self.keepalives.push(Reverse((due, id.slot)));
        }
        let client = self.clients.entry(arrival.key).or_default();
        if client.connections.is_full() {
            let oldest = client.connections.remove(0);
            self.close(oldest, CloseReason::Superseded);
        }
        if let Some(client) = self.clients.get_mut(&arrival.key) {
            // There is room: the oldest was taken out if there was none.
            let _ = client.connections.push(id);
        }
        self.note_twins(&arrival.key);
        self.counters.admitted += 1;
        self.counters.connections += 1;
        self.tell_watchers(arrival.key, |slots| slots.get(id).map(Connection::presence));
        Ok(id)
    }

    /// Forgets a connection that has ended, by whichever side.
    pub fn disconnect(&mut self, id: ConnectionId) {
        let Some(ended) = self.slots.remove(id) else {
            return;
        };
        self.counters.connections = self.counters.connections.saturating_sub(1);
        if ended.is_preferred {
            self.counters.home_connections = self.counters.home_connections.saturating_sub(1);
        }
        if ended.has_twins {
            self.counters.duplicates = self.counters.duplicates.saturating_sub(1);
        }
        self.watchers.remove(id);
        if let Some(client) = self.clients.get_mut(&ended.key) {
            client.connections.retain(|other| *other != id);
            if let Some(active) = client.connections.last().copied() {
                // Whoever it sent to learns of it when the last connection ends.
                if let Some(active) = self.slots.get_mut(active) {
                    ended.receivers().for_each(|to| active.note_receiver(to));
                }
                self.note_twins(&ended.key);
                return;
            }
        }
        self.clients.remove(&ended.key);
        let (peer, reason) = (ended.key, GoneReason::DISCONNECTED);
        for to in ended.receivers() {
            if self.slots.get(to).is_some() {
                self.push(Output::Send {
                    to,
                    frame: Frame::PeerGone { peer, reason },
                });
            }
        }
        self.tell_watchers(peer, |_| Some(Frame::PeerGone { peer, reason }));
    }

    /// Closes the connections of a client that isn't admitted any more.
    pub fn remove(&mut self, key: &PublicKey) {
        self.close_client(key, CloseReason::Removed);
    }

    /// When a frame with a body of `length` bytes may be handled: now or earlier if it may at once.
    ///
    /// To be asked once a frame, before [`Server::handle_frame`]. Until then nothing more is to be read
    /// from the connection, so that TCP slows the client down.
    pub fn pace(&mut self, id: ConnectionId, length: usize, now: Instant) -> Instant {
        let mut rate = self.limits.rate;
        // A packet of full length has to fit into the bucket.
        let least = u32::try_from(MAX_PACKET_BYTES + KEY_BYTES).unwrap_or(u32::MAX);
        rate.burst = rate.burst.max(least);
        match self.slots.get_mut(id) {
            Some(connection) if !connection.is_mesh_peer => {
                let length = u32::try_from(length).unwrap_or(u32::MAX);
                connection.bucket.take(rate, length.min(least), now)
            }
            _ => now,
        }
    }

    /// Takes a frame that a client wrote.
    ///
    /// # Errors
    /// [`CloseReason`]; the connection is to be closed, and [`Server::disconnect`] follows.
    pub fn handle_frame<'a>(
        &mut self,
        id: ConnectionId,
        raw: RawFrame<'a>,
        now: Instant,
    ) -> Result<Verdict<'a>, CloseReason> {
        let Some(connection) = self.slots.get_mut(id) else {
            return Ok(Verdict::Dropped(DropReason::Gone));
        };
        let (key, is_mesh_peer) = (connection.key, connection.is_mesh_peer);
        if connection.has_twins {
            self.note_activity(&key, id);
        }
        match Frame::parse(raw.kind, raw.body)? {
            Frame::SendPacket { to, packet } => {
                self.counters.received += 1;
                self.counters.received_bytes += packet.len() as u64;
                let reason = DropReason::UnknownDestination;
                Ok(self.deliver(id, key, to, packet, reason, now))
            }
            Frame::ForwardPacket { from, to, packet } if is_mesh_peer => {
                self.counters.forwarded_in += 1;
                let reason = DropReason::UnknownOnForward;
                Ok(self.deliver(id, from, to, packet, reason, now))
            }
            Frame::NotePreferred(is_preferred) => {
                self.note_preferred(id, is_preferred);
                Ok(Verdict::Done)
            }
            Frame::Ping(payload) => {
                self.counters.pings += 1;
                let frame = Frame::Pong(payload);
                self.push(Output::Send { to: id, frame });
                Ok(Verdict::Done)
            }
            Frame::WatchConns if is_mesh_peer => {
                // A relay that reached itself learns nothing from that.
                if key != self.public {
                    self.watchers.add(id).ok_or(CloseReason::TooManyWatchers)?;
                    self.push(Output::Watch { to: id });
                }
                Ok(Verdict::Done)
            }
            Frame::ClosePeer(peer) if is_mesh_peer => {
                self.close_client(&peer, CloseReason::Asked);
                Ok(Verdict::Done)
            }
            Frame::ForwardPacket { .. } | Frame::WatchConns | Frame::ClosePeer(_) => {
                Err(CloseReason::NotAllowed)
            }
            _ => {
                self.counters.unknown_frames += 1;
                Ok(Verdict::Done)
            }
        }
    }

    /// Counts a packet that a driver dropped.
    pub fn note_dropped(&mut self, reason: DropReason) {
        let counter = match reason {
            DropReason::UnknownDestination => &mut self.counters.unknown_destination,
            DropReason::UnknownOnForward => &mut self.counters.unknown_on_forward,
            DropReason::QueueFull => &mut self.counters.queue_full,
            DropReason::Gone => &mut self.counters.gone,
        };
        *counter += 1;
    }

    /// What to do next. To be called after every input until it says [`Output::Wait`].
    pub fn poll_output(&mut self, now: Instant) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        while let Some(Reverse((due, slot))) = self.keepalives.peek().copied() {
            if due > now {
                return Output::Wait(due);
            }
            self.keepalives.pop();
            let Some((id, connection)) = self.slots.at(slot) else {
                // Whoever comes into this slot sets its timer anew.
                self.slots.set_timer(slot, false);
                continue;
            };
            let is_due = connection.keepalive_at <= now;
            if is_due {
                connection.keepalive_at = now.after(connection.keepalive);
            }
            self.keepalives
                .push(Reverse((connection.keepalive_at, slot)));
            if is_due {
                let frame = Frame::KeepAlive;
                return Output::Send { to: id, frame };
            }
        }
        Output::Wait(Instant::NEVER)
    }

    /// The next frame for a watcher; `None` if it knows everything.
    pub fn poll_watcher(&mut self, id: ConnectionId) -> Option<Frame<'static>> {
        let (clients, slots) = (&self.clients, &self.slots);
        self.watchers.poll(id, |after| {
            watch::next(clients, after).and_then(|(key, client)| {
                let active = slots.get(*client.connections.last()?)?;
                Some((*key, active.presence()))
            })
        })
    }

    fn deliver<'a>(
        &mut self,
        by: ConnectionId,
        from: PublicKey,
        to: PublicKey,
        packet: &'a [u8],
        unknown: DropReason,
        now: Instant,
    ) -> Verdict<'a> {
        let is_disco = is_disco(packet);
        let active = self
            .clients
            .get(&to)
            .and_then(|client| client.connections.last().copied());
        let sender = self.slots.get_mut(by);
        match (active, sender) {
            (Some(active), Some(sender)) => {
                // Of what another relay forwards, that relay knows when its sender leaves.
                if unknown == DropReason::UnknownDestination {
                    sender.note_receiver(active);
                }
                self.counters.delivered += 1;
                self.counters.delivered_bytes += packet.len() as u64;
                Verdict::Deliver {
                    to: active,
                    from,
                    packet,
                    is_disco,
                }
            }
            (_, sender) => {
                let is_told =
                    is_disco && sender.is_some_and(|c| c.not_here.try_take(NOT_HERE, 1, now));
                if is_told {
                    let (peer, reason) = (to, GoneReason::NOT_HERE);
                    let frame = Frame::PeerGone { peer, reason };
                    self.push(Output::Send { to: by, frame });
                }
                self.note_dropped(unknown);
                Verdict::Dropped(unknown)
            }
        }
    }

    /// Makes the connection that wrote the one that packets go to.
    fn note_activity(&mut self, key: &PublicKey, id: ConnectionId) {
        if let Some(client) = self.clients.get_mut(key)
            && let Some(at) = client.connections.iter().position(|other| *other == id)
            && let Some(after) = client.connections.get_mut(at..)
        {
            after.rotate_left(1);
        }
    }

    fn note_preferred(&mut self, id: ConnectionId, is_preferred: bool) {
        if let Some(connection) = self.slots.get_mut(id)
            && connection.is_preferred != is_preferred
        {
            connection.is_preferred = is_preferred;
            let home = &mut self.counters.home_connections;
            *home = if is_preferred {
                *home + 1
            } else {
                home.saturating_sub(1)
            };
        }
    }

    /// Tells the connections of a key whether it has others.
    fn note_twins(&mut self, key: &PublicKey) {
        let Some(client) = self.clients.get(key) else {
            return;
        };
        let has_twins = client.connections.len() > 1;
        for id in &client.connections {
            if let Some(connection) = self.slots.get_mut(*id)
                && connection.has_twins != has_twins
            {
                connection.has_twins = has_twins;
                let duplicates = &mut self.counters.duplicates;
                *duplicates = if has_twins {
                    *duplicates + 1
                } else {
                    duplicates.saturating_sub(1)
                };
            }
        }
    }

    fn close_client(&mut self, key: &PublicKey, reason: CloseReason) {
        let connections: heapless::Vec<_, MAX_DUPLICATES> = self
            .clients
            .get(key)
            .map(|client| client.connections.clone())
            .unwrap_or_default();
        for id in connections {
            self.close(id, reason);
        }
    }

    fn close(&mut self, connection: ConnectionId, reason: CloseReason) {
        self.push(Output::Close { connection, reason });
    }

    /// Tells every watcher that has heard of `key` already, or won't when it is told of all.
    fn tell_watchers(&mut self, key: PublicKey, frame: impl Fn(&Slots) -> Option<Frame<'static>>) {
        if self.watchers.is_empty() {
            return;
        }
        let Some(frame) = frame(&self.slots) else {
            return;
        };
        let told = self.watchers.tell(&Change { key, frame });
        for (to, is_too_slow) in told {
            self.push(if is_too_slow {
                Output::Close {
                    connection: to,
                    reason: CloseReason::TooSlow,
                }
            } else {
                Output::Watch { to }
            });
        }
    }

    fn push(&mut self, output: Output) {
        // Full only if a driver doesn't drain after every input.
        if self.outputs.len() < self.output_limit {
            self.outputs.push_back(output);
        }
    }
}

#[cfg(test)]
mod tests;
