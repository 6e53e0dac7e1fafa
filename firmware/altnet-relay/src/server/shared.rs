//! What the tasks of a relay share: the machine, behind one lock, and the way to each connection.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use altnet_core::derp::handshake::{Arrival, ServerIdentity};
use altnet_core::derp::server::{
    CloseReason, ConnectionId, DropReason, Full, Origin, Output, Server, Verdict,
};
use altnet_wire::derp::split::{RawFrame, Splitter};
use altnet_wire::derp::{Frame, FrameKind, PublicKey, node, packet_prefix};
use altnet_wire::time::Instant;
use tokio::sync::{Notify, watch};

use super::outbox::{Closing, Outbox};
use super::{Notice, Options};
use crate::clock;

/// What the tasks share.
pub(super) struct Shared {
    pub(super) identity: ServerIdentity,
    pub(super) options: Options,
    state: Mutex<State>,
    /// The clock may have to wake earlier than it thought.
    earlier: Notify,
    stopped: watch::Sender<bool>,
}

/// The machine, and where what it says goes.
pub(super) struct State {
    server: Server,
    /// By slot.
    outboxes: Vec<Option<Arc<Outbox>>>,
}

impl Shared {
    pub(super) fn new(identity: ServerIdentity, options: Options, seed: [u8; 32]) -> Self {
        let server = Server::new(identity.public(), options.limits, seed);
        Self {
            identity,
            options,
            state: Mutex::new(State {
                server,
                outboxes: Vec::new(),
            }),
            earlier: Notify::new(),
            stopped: watch::Sender::new(false),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, notice: impl FnOnce() -> Notice) {
        if let Some(tell) = &self.options.tell {
            tell(&notice());
        }
    }

    pub(super) fn connect(
        &self,
        arrival: &Arrival,
        origin: Origin,
        admission: &[u8],
    ) -> Result<Arc<Outbox>, Full> {
        let connected = self.lock().connect(arrival, origin, admission);
        self.earlier.notify_one();
        // It came while the relay stopped, after those were told that were here.
        if let (Ok(outbox), true) = (&connected, *self.stopped.borrow()) {
            outbox.leave(|inner| inner.closing = Some(Closing::Stopped));
        }
        connected
    }

    /// Lets time pass for the machine.
    pub(super) async fn run_clock(&self) {
        loop {
            let deadline = self.lock().drain(clock::now());
            tokio::select! {
                () = tokio::time::sleep_until(clock::at(deadline)) => {}
                () = self.earlier.notified() => {}
            }
        }
    }

    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
        for outbox in self.lock().outboxes.iter().flatten() {
            outbox.leave(|inner| inner.closing = Some(Closing::Stopped));
        }
    }

    pub(super) async fn stopped(&self) {
        // The sender is this.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }
}

/// A client's stream, as far as it is understood.
pub(super) struct Inbound {
    /// Whether it may send to nodes alone.
    pub(super) is_guest: bool,
    pub(super) splitter: Splitter,
    /// What came and isn't whole, or may not be handled yet.
    pub(super) held: Vec<u8>,
    /// When the frame at the front of `held` may be handled, if that is not yet.
    pub(super) paced: Option<Instant>,
}

impl Inbound {
    /// Takes what came behind what is held.
    pub(super) fn take(
        &mut self,
        shared: &Shared,
        id: ConnectionId,
        bytes: &[u8],
    ) -> Result<(), CloseReason> {
        if self.paced.is_some() {
            self.held.extend_from_slice(bytes);
            return Ok(());
        }
        if self.held.is_empty() {
            // Mostly frames come whole, and are handled where they are.
            let rest = self.handle(shared, id, bytes, false)?;
            self.held.extend_from_slice(rest);
            return Ok(());
        }
        self.held.extend_from_slice(bytes);
        self.take_held(shared, id, false)
    }

    /// Goes on once the time has come.
    pub(super) fn resume(&mut self, shared: &Shared, id: ConnectionId) -> Result<(), CloseReason> {
        match self.paced.take_if(|at| *at <= clock::now()) {
            Some(_) => self.take_held(shared, id, true),
            None => Ok(()),
        }
    }

    fn take_held(
        &mut self,
        shared: &Shared,
        id: ConnectionId,
        is_paid: bool,
    ) -> Result<(), CloseReason> {
        let mut held = std::mem::take(&mut self.held);
        let rest = self.handle(shared, id, &held, is_paid)?.len();
        if rest > 0 {
            held.drain(..held.len() - rest);
            self.held = held;
        }
        Ok(())
    }

    /// Handles the frames at the front of `bytes` and returns what is left.
    fn handle<'b>(
        &mut self,
        shared: &Shared,
        id: ConnectionId,
        bytes: &'b [u8],
        mut is_paid: bool,
    ) -> Result<&'b [u8], CloseReason> {
        let now = clock::now();
        let mut state = shared.lock();
        let mut rest = bytes;
        loop {
            let before = rest;
            let Some(raw) = self.splitter.next(&mut rest)? else {
                return Ok(rest);
            };
            if !std::mem::take(&mut is_paid) {
                let due = state.server.pace(id, raw.body.len(), now);
                if due > now {
                    self.paced = Some(due);
                    return Ok(before);
                }
            }
            if self.is_for_node(shared, id, &raw)? {
                continue;
            }
            state.handle_frame(id, raw, now)?;
        }
    }
}

impl Inbound {
    /// Hands over a packet that goes to a node; whether it is no client's.
    fn is_for_node(
        &self,
        shared: &Shared,
        id: ConnectionId,
        raw: &RawFrame<'_>,
    ) -> Result<bool, CloseReason> {
        let Some(local) = shared.options.local.as_ref() else {
            return Ok(false);
        };
        if raw.kind != FrameKind::SEND_PACKET {
            return Ok(false);
        }
        let Frame::SendPacket { to, packet } = Frame::parse(raw.kind, raw.body)? else {
            return Ok(false);
        };
        match node::node_of(&to) {
            Some(node) => (local.packet)(id, node, packet),
            None => return Ok(self.is_guest),
        }
        Ok(true)
    }
}

impl State {
    pub(super) const fn server(&self) -> &Server {
        &self.server
    }

    fn connect(
        &mut self,
        arrival: &Arrival,
        origin: Origin,
        admission: &[u8],
    ) -> Result<Arc<Outbox>, Full> {
        let now = clock::now();
        let id = self.server.connect(arrival, origin, now)?;
        let outbox = Arc::new(Outbox::new(id, self.server.limits().queue));
        // Before anything that others send.
        outbox.lock().queue.push_encoded(admission);
        if self.outboxes.len() <= id.slot() {
            self.outboxes.resize(id.slot() + 1, None);
        }
        if let Some(place) = self.outboxes.get_mut(id.slot()) {
            *place = Some(Arc::clone(&outbox));
        }
        self.drain(now);
        Ok(outbox)
    }

    pub(super) fn disconnect(&mut self, id: ConnectionId) {
        if let Some(outbox) = self.outboxes.get_mut(id.slot()).and_then(Option::take) {
            let lost = outbox.lock().queue.packets();
            (0..lost).for_each(|_| self.server.note_dropped(DropReason::Gone));
        }
        self.server.disconnect(id);
        self.drain(clock::now());
    }

    pub(super) fn close(&self, id: ConnectionId) {
        if let Some(outbox) = self.outbox(id) {
            outbox.leave(|inner| inner.closing = Some(CloseReason::Removed.into()));
        }
    }

    pub(super) fn remove(&mut self, key: &PublicKey) {
        self.server.remove(key);
        self.drain(clock::now());
    }

    pub(super) fn send_to_all(&mut self, frame: &Frame<'_>) {
        for outbox in self.outboxes.iter().flatten() {
            outbox.leave(|inner| inner.queue.push_control(frame));
        }
    }

    /// Fetches what a watcher is to be told, as long as `take` has room.
    pub(super) fn fetch(&mut self, id: ConnectionId, mut take: impl FnMut(&Frame<'_>) -> bool) {
        while let Some(frame) = self.server.poll_watcher(id) {
            if !take(&frame) {
                return;
            }
        }
    }

    fn handle_frame(
        &mut self,
        id: ConnectionId,
        raw: RawFrame<'_>,
        now: Instant,
    ) -> Result<(), CloseReason> {
        match self.server.handle_frame(id, raw, now)? {
            Verdict::Deliver {
                to,
                from,
                packet,
                is_disco,
            } => self.deliver(to, from, packet, is_disco),
            Verdict::Done | Verdict::Dropped(_) => {}
        }
        self.drain(now);
        Ok(())
    }

    pub(super) fn deliver(
        &mut self,
        to: ConnectionId,
        from: PublicKey,
        packet: &[u8],
        is_disco: bool,
    ) {
        let prefix = packet_prefix(FrameKind::RECV_PACKET, &from, packet.len());
        let dropped = match self.outbox(to) {
            Some(outbox) => {
                outbox.leave(|inner| inner.queue.push_packet(&prefix, packet, is_disco))
            }
            None => return self.server.note_dropped(DropReason::Gone),
        };
        (0..dropped).for_each(|_| self.server.note_dropped(DropReason::QueueFull));
    }

    /// Does what the machine says, and returns when it has to be asked again.
    fn drain(&mut self, now: Instant) -> Instant {
        loop {
            match self.server.poll_output(now) {
                Output::Send { to, frame } => {
                    if let Some(outbox) = self.outbox(to) {
                        outbox.leave(|inner| inner.queue.push_control(&frame));
                    }
                }
                Output::Watch { to } => {
                    if let Some(outbox) = self.outbox(to) {
                        outbox.leave(|inner| inner.watches = true);
                    }
                }
                Output::Close { connection, reason } => {
                    if let Some(outbox) = self.outbox(connection) {
                        outbox.leave(|inner| inner.closing = Some(reason.into()));
                    }
                }
                Output::Wait(deadline) => return deadline,
            }
        }
    }

    fn outbox(&self, id: ConnectionId) -> Option<&Outbox> {
        let outbox = self.outboxes.get(id.slot())?.as_deref()?;
        (outbox.id == id).then_some(outbox)
    }
}
