//! Somebody else's TURN server on the internet, and how hosts reach it: by UDP, or over a stream that
//! passes where no UDP does.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};

use altnet_core::node::TurnServer;
use altnet_core::turn::{Credentials, Transport};
use altnet_wire::frame::{FRAME_BYTES, Frame};

use super::{DELAY, HostId, InFlight, Passing, World};

/// The one that the client's own tests speak to.
#[allow(missing_docs, dead_code, unreachable_pub)]
#[path = "../../../altnet-core/src/turn/tests/server.rs"]
mod server;

pub use server::{PASSWORD, Server, USER};

/// Where streams of hosts seem to come from.
const STREAMS: [u8; 4] = [192, 0, 2, 77];

impl World {
    /// Puts a TURN server on the internet.
    pub fn turn_server(&mut self, address: &str) {
        let address = address.parse().expect("a test's address");
        self.turn = Some(Server::new(address));
    }

    /// That server.
    ///
    /// # Panics
    /// If there is none.
    pub const fn turn(&mut self) -> &mut Server {
        self.turn.as_mut().expect("a server was put there")
    }

    /// Has a host know the server, with this password.
    ///
    /// # Panics
    /// If no server takes such a password.
    pub fn use_turn(&mut self, host: HostId, transport: Transport, password: &str) {
        let credentials = Credentials::new(USER, password).expect("a test's password");
        let server = TurnServer {
            name: "turn.example:3478".into(),
            transport,
            credentials,
        };
        self.with(host, |node, now| {
            node.handle_turn_servers(vec![server], now)
        });
    }

    /// Looks up the server for a host that wants it.
    pub(super) fn reach_turn(&mut self, host: HostId) -> bool {
        let (now, at) = (self.now, self.turn.as_ref().map(|server| server.address));
        let state = &mut self.hosts[host.0];
        let (Some(node), Some(at)) = (&mut state.node, at) else {
            return false;
        };
        let wanted = node.wanted_turn().map(|wanted| wanted.attempt);
        let is_new = wanted.is_some() && wanted != state.turn_attempt;
        state.turn_attempt = wanted;
        if let Some(attempt) = wanted.filter(|_| is_new) {
            node.handle_turn_reached(attempt, at, now);
        }
        is_new
    }

    /// What a host sends over its stream to the server.
    pub(super) fn send_to_turn(&mut self, host: HostId, bytes: &[u8]) {
        let from = SocketAddr::from((STREAMS, 1000 + host.0 as u16));
        self.serve_turn(from, bytes);
    }

    /// Whether a datagram is for the server or for somebody's address there, which takes it then.
    pub(super) fn turn_takes(&mut self, passing: Passing, bytes: &[u8]) -> bool {
        let Some(server) = &mut self.turn else {
            return false;
        };
        if passing.to == server.address {
            self.serve_turn(passing.from, bytes);
            return true;
        }
        let mut clients = server.allocations.iter();
        let client = clients.find(|(_, a)| a.relayed == passing.to);
        let Some(client) = client.map(|(client, _)| *client) else {
            return false;
        };
        for (to, bytes) in server.reach(client, passing.from, bytes, self.now) {
            self.send_from_turn(to, bytes);
        }
        true
    }

    fn serve_turn(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Some(server) = &mut self.turn else {
            return;
        };
        let relayed = server.allocations.get(&from).map(|a| a.relayed);
        for (to, bytes) in server.handle(from, bytes, self.now) {
            let server = self.turn();
            let is_client = to == from || server.allocations.contains_key(&to);
            match relayed.filter(|_| !is_client) {
                Some(from) => self.inject(from, to, bytes),
                None => self.send_from_turn(to, bytes),
            }
        }
    }

    /// What the server sends to a client of its own.
    fn send_from_turn(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        let host = to.port().checked_sub(1000).map(|at| HostId(at.into()));
        match host.filter(|_| to.ip() == IpAddr::from(STREAMS)) {
            Some(host) => {
                self.sequence += 1;
                self.wire
                    .push(Reverse((self.now.after(DELAY), self.sequence)));
                self.in_flight
                    .insert(self.sequence, InFlight::Turned { host, bytes });
            }
            None => {
                let from = self.turn().address;
                self.inject(from, to, bytes);
            }
        }
    }

    /// A message arrives over a host's stream to the server.
    pub(super) fn arrive_turned(&mut self, host: HostId, bytes: &[u8]) {
        let now = self.now;
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let Some(node) = &mut self.hosts[host.0].node else {
            return;
        };
        if frame.set(bytes).is_err() {
            return;
        }
        let verdict = node.handle_turned(&mut frame, now);
        let bytes = frame.packet().to_vec();
        if let Ok(verdict) = verdict {
            self.carry_out(host, verdict, bytes);
        }
        self.drain(host);
    }
}
