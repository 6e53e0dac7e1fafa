//! Streams between relays and those whom no UDP reaches: reliable, in order, and gone with either end.

use std::cmp::Reverse;

use altnet_core::relay::StreamId;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::id::NodeId;
use altnet_wire::time::Duration;

use super::{HostId, InFlight, World};

/// How long a stream takes to stand: TCP, TLS and what follows.
const SET_UP: Duration = Duration::from_millis(80);
/// One way along it.
const ONE_WAY: Duration = Duration::from_millis(12);

/// A stream.
#[derive(Clone, Copy)]
struct Stream {
    id: StreamId,
    client: HostId,
    relay: NodeId,
    server: HostId,
    is_up: bool,
}

/// What arrives over one.
pub(super) enum Streamed {
    /// It stands.
    Up(StreamId),
    /// A datagram to the relay, for `to`.
    ToRelay(StreamId, NodeId, Vec<u8>),
    /// A datagram to the client, from `from`.
    ToClient(StreamId, NodeId, Vec<u8>),
}

/// All of them.
#[derive(Default)]
pub(super) struct Streams {
    are_on: bool,
    next: u32,
    all: Vec<Stream>,
    /// Those that their relays closed.
    closed: Vec<StreamId>,
}

impl World {
    /// Has relays serve streams from now on.
    pub const fn serve_streams(&mut self) {
        self.streams.are_on = true;
    }

    /// How many streams stand.
    pub fn streams(&self) -> usize {
        let all = self.streams.all.iter();
        all.filter(|stream| stream.is_up).count()
    }

    /// Makes the streams that a host wants, and ends those it doesn't.
    pub(super) fn tend_streams(&mut self, client: HostId) {
        if !self.streams.are_on {
            return;
        }
        let Some(node) = &self.hosts[client.0].node else {
            return;
        };
        let wanted: Vec<_> = node.wanted_streams(self.now).collect();
        let is_wanted = |stream: &Stream| wanted.iter().any(|w| w.relay == stream.relay);
        let all = self.streams.all.clone();
        for stream in all.iter().filter(|s| s.client == client && !is_wanted(s)) {
            self.end_stream(*stream);
        }
        for want in wanted {
            let mut all = self.streams.all.iter();
            if all.any(|s| s.client == client && s.relay == want.relay) {
                continue;
            }
            let is_there = |host: &usize| {
                let mut lines = self.net.lines(*host);
                let is_on = self.hosts[*host].node.is_some();
                is_on && lines.any(|line| want.addresses.iter().any(|a| a.ip() == line.address))
            };
            let Some(server) = (0..self.hosts.len()).find(is_there).map(HostId) else {
                continue;
            };
            self.streams.next += 1;
            let id = StreamId(self.streams.next);
            self.streams.all.push(Stream {
                id,
                client,
                relay: want.relay,
                server,
                is_up: false,
            });
            self.after(SET_UP, Streamed::Up(id));
        }
    }

    fn after(&mut self, delay: Duration, streamed: Streamed) {
        self.sequence += 1;
        self.wire
            .push(Reverse((self.now.after(delay), self.sequence)));
        self.in_flight
            .insert(self.sequence, InFlight::Streamed(streamed));
    }

    pub(super) fn stream_to_relay(
        &mut self,
        client: HostId,
        relay: NodeId,
        to: NodeId,
        bytes: Vec<u8>,
    ) {
        let mut all = self.streams.all.iter();
        let stream = all.find(|s| s.client == client && s.relay == relay && s.is_up);
        if let Some(id) = stream.map(|stream| stream.id) {
            self.after(ONE_WAY, Streamed::ToRelay(id, to, bytes));
        }
    }

    pub(super) fn stream_to_client(
        &mut self,
        server: HostId,
        id: StreamId,
        from: NodeId,
        bytes: Vec<u8>,
    ) {
        let mut all = self.streams.all.iter();
        if all.any(|s| s.server == server && s.id == id && s.is_up) {
            self.after(ONE_WAY, Streamed::ToClient(id, from, bytes));
        }
    }

    pub(super) fn arrive_streamed(&mut self, streamed: Streamed) {
        let id = match &streamed {
            Streamed::Up(id) | Streamed::ToRelay(id, ..) | Streamed::ToClient(id, ..) => *id,
        };
        let Some(stream) = self.streams.all.iter_mut().find(|s| s.id == id) else {
            return;
        };
        let was_up = core::mem::replace(&mut stream.is_up, true);
        let (stream, now) = (*stream, self.now);
        if !was_up && self.is_on(stream.server) {
            let server = self.hosts[stream.server.0].node.as_mut();
            let opened = server.map(|node| node.handle_stream_opened(id, now));
            if opened.is_some_and(|opened| opened.is_err()) {
                return self.end_stream(stream);
            }
            self.drain(stream.server);
        }
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let host = match streamed {
            Streamed::ToRelay(..) => stream.server,
            _ => stream.client,
        };
        let Some(node) = &mut self.hosts[host.0].node else {
            return;
        };
        let verdict = match &streamed {
            Streamed::Up(_) => {
                node.handle_stream(stream.relay, true, now);
                return self.drain(host);
            }
            Streamed::ToRelay(_, to, bytes) => {
                frame.set(bytes).expect("a datagram fits a frame");
                node.handle_client(id, *to, &mut frame, now)
            }
            Streamed::ToClient(_, from, bytes) => {
                frame.set(bytes).expect("a datagram fits a frame");
                node.handle_streamed(stream.relay, *from, &mut frame, now)
            }
        };
        let bytes = frame.packet().to_vec();
        if let Ok(verdict) = verdict {
            self.carry_out(host, verdict, bytes);
        }
        self.drain(host);
    }

    /// Ends every stream of a host.
    pub(super) fn end_streams(&mut self, host: HostId) {
        for stream in self.streams.all.clone() {
            if stream.client == host || stream.server == host {
                self.end_stream(stream);
            }
        }
    }

    /// Takes the streams that relays closed so far.
    pub fn closed_streams(&mut self) -> Vec<StreamId> {
        core::mem::take(&mut self.streams.closed)
    }

    /// A relay closes a client's stream.
    pub(super) fn close_client(&mut self, id: StreamId) {
        self.streams.closed.push(id);
        let mut all = self.streams.all.iter();
        if let Some(stream) = all.find(|stream| stream.id == id).copied() {
            self.end_stream(stream);
        }
    }

    fn end_stream(&mut self, stream: Stream) {
        self.streams.all.retain(|s| s.id != stream.id);
        let now = self.now;
        if let Some(node) = &mut self.hosts[stream.server.0].node {
            node.handle_stream_closed(stream.id);
        }
        if let Some(node) = &mut self.hosts[stream.client.0].node {
            node.handle_stream(stream.relay, false, now);
            // What that leads to is done at its next turn.
            self.hosts[stream.client.0].wake = now;
        }
    }
}
