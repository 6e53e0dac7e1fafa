//! Clients and a server, with time and a wire that loses what it is told to.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::vec::Vec;

use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::stun::Method;
use altnet_wire::time::{Duration, Instant};

use super::super::*;
use super::server::{PASSWORD, Server, USER};

pub const SERVER: &str = "203.0.113.5:3478";
const RTT: Duration = Duration::from_millis(20);

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// All of it.
pub struct World {
    pub now: Instant,
    pub server: Server,
    pub clients: BTreeMap<SocketAddr, TurnClient>,
    pub to_server: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    to_clients: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    pub told: Vec<(SocketAddr, TurnEvent)>,
    pub got: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
    /// When and how large what clients sent was.
    pub sent: Vec<(Instant, usize)>,
    pub loses: fn(usize) -> bool,
}

impl World {
    pub fn new() -> Self {
        Self {
            now: Instant::from_micros(5_000_000),
            server: Server::new(at(SERVER)),
            clients: BTreeMap::new(),
            to_server: VecDeque::new(),
            to_clients: VecDeque::new(),
            told: Vec::new(),
            got: Vec::new(),
            sent: Vec::new(),
            loses: |_| false,
        }
    }

    pub fn client(&mut self, address: &str, password: &str) -> SocketAddr {
        self.client_with(address, password, TurnConfig::new(at(SERVER)))
    }

    pub fn client_with(&mut self, address: &str, password: &str, config: TurnConfig) -> SocketAddr {
        let credentials = Credentials::new(USER, password).unwrap();
        let seed = [self.clients.len() as u8 + 1; 32];
        let client = TurnClient::new(config, credentials, seed, self.now);
        self.clients.insert(at(address), client);
        at(address)
    }

    pub fn drain(&mut self) -> Instant {
        let mut next = Instant::NEVER;
        let mut buffer = [0; FRAME_BYTES];
        for (address, client) in &mut self.clients {
            loop {
                let mut frame = Frame::new(&mut buffer);
                match client.poll_output(&mut frame, self.now) {
                    TurnOutput::Send { to } => {
                        assert_eq!(to, self.server.address);
                        self.sent.push((self.now, frame.len()));
                        if !(self.loses)(self.sent.len()) {
                            let bytes = frame.packet().to_vec();
                            self.to_server
                                .push_back((self.now.after(RTT / 2), *address, bytes));
                        }
                    }
                    TurnOutput::Tell(event) => self.told.push((*address, event)),
                    TurnOutput::Wait(until) => {
                        next = next.min(until);
                        break;
                    }
                }
            }
        }
        next
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        loop {
            let mut next = self.drain();
            for queue in [&self.to_server, &self.to_clients] {
                next = next.min(queue.front().map_or(Instant::NEVER, |(when, ..)| *when));
            }
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            while self
                .to_server
                .front()
                .is_some_and(|(when, ..)| *when <= self.now)
            {
                let (_, from, bytes) = self.to_server.pop_front().unwrap();
                for (to, bytes) in self.server.handle(from, &bytes, self.now) {
                    self.to_clients
                        .push_back((self.now.after(RTT / 2), to, bytes));
                }
            }
            while self
                .to_clients
                .front()
                .is_some_and(|(when, ..)| *when <= self.now)
            {
                let (_, to, bytes) = self.to_clients.pop_front().unwrap();
                let from = self.server.address;
                self.deliver(to, from, &bytes);
            }
            for client in self.clients.values_mut() {
                client.handle_timeout(self.now);
            }
        }
    }

    pub fn deliver(&mut self, to: SocketAddr, from: SocketAddr, bytes: &[u8]) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(bytes).unwrap();
        let client = self
            .clients
            .get_mut(&to)
            .expect("only clients are sent to here");
        if let Some(peer) = client.receive(from, &mut frame, self.now) {
            self.got.push((to, peer, frame.packet().to_vec()));
        }
    }

    /// Sends from a client to a peer; returns how many bytes were added.
    pub fn send(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        data: &[u8],
    ) -> Result<usize, TurnRefused> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(data).unwrap();
        let client = self.clients.get_mut(&from).unwrap();
        client.send(to, &mut frame, self.now)?;
        let bytes = frame.packet().to_vec();
        self.to_server
            .push_back((self.now.after(RTT / 2), from, bytes));
        Ok(frame.len() - data.len())
    }

    pub fn permit(&mut self, client: SocketAddr, peer: SocketAddr) {
        let now = self.now;
        self.clients
            .get_mut(&client)
            .unwrap()
            .permit(peer, now)
            .unwrap();
    }

    pub fn relayed(&self, client: SocketAddr) -> SocketAddr {
        let told = self.told.iter().rev().find_map(|(who, event)| match event {
            TurnEvent::Allocated { relayed, .. } if *who == client => Some(*relayed),
            _ => None,
        });
        told.unwrap_or_else(|| panic!("no allocation: {:?}", self.told))
    }

    pub fn failures(&self) -> Vec<TurnFailure> {
        let events = self.told.iter();
        let failures = events.filter_map(|(_, event)| match event {
            TurnEvent::Failed { why } => Some(*why),
            _ => None,
        });
        failures.collect()
    }

    pub fn requests(&self, method: Method) -> usize {
        let heard = self.server.heard.iter();
        heard.filter(|(_, heard)| *heard == method).count()
    }
}

/// Two clients that let each other in, and their relayed addresses.
pub fn pair(world: &mut World) -> [(SocketAddr, SocketAddr); 2] {
    pair_within(world, Duration::from_secs(1))
}

/// The same on a wire on which each step takes so long.
pub fn pair_within(world: &mut World, time: Duration) -> [(SocketAddr, SocketAddr); 2] {
    let clients = ["198.51.100.1:4000", "198.51.100.2:4000"];
    let clients = clients.map(|address| world.client(address, PASSWORD));
    world.run(time);
    let relayed = clients.map(|client| world.relayed(client));
    world.permit(clients[0], relayed[1]);
    world.permit(clients[1], relayed[0]);
    world.run(time);
    [(clients[0], relayed[0]), (clients[1], relayed[1])]
}
