//! A pretend wire between engines, in virtual time: delay, loss and reordering by seed.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, VecDeque};

use altnet_tunnel::aead::ChaChaPoly;
use altnet_tunnel::engine::{
    DropReason, Engine, EngineLimits, LocalKeyId, Opened, Output, PeerConfig, PeerIndex,
    SealRefused, Sealed, TunnelEvent,
};
use altnet_tunnel::key::{PresharedKey, TunnelSecret};
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant, UnixTime};

pub const PSK: [u8; 32] = [0x5a; 32];

pub fn at(seconds: u64) -> Instant {
    Instant::ZERO.after(Duration::from_secs(seconds))
}

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub fn address(host: u8) -> Endpoint {
    Endpoint::Direct(([192, 0, 2, host], 51820).into())
}

pub fn secret(byte: u8) -> TunnelSecret {
    TunnelSecret::new([byte; 32])
}

pub fn public(byte: u8) -> TunnelKey {
    secret(byte).public()
}

/// An IPv4 packet of `len` bytes (20 at least) that carries `number`.
pub fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len.max(24)];
    let total = (bytes.len() as u16).to_be_bytes();
    bytes[0] = 0x45;
    bytes[2..4].copy_from_slice(&total);
    bytes[8] = 64;
    bytes[9] = 17;
    bytes[20..24].copy_from_slice(&number.to_be_bytes());
    bytes
}

pub fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[20..24].try_into().unwrap())
}

/// A small generator for the wire's weather.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `limit` (splitmix64).
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit.max(1)
    }
}

/// An initiation to the holder of the key of `to` by somebody with the key of `by`, whose
/// calendar shows `second`.
pub fn initiation(by: u8, to: u8, second: u64) -> Vec<u8> {
    let mut node = Node::new(by, EngineLimits::MICRO);
    let calendar = Some(UnixTime::from_secs(second));
    node.engine.set_calendar(calendar, Instant::ZERO);
    let local = node.own(by);
    let peer = node.know(to, local);
    let mut sent = node.ask(peer, Instant::ZERO);
    assert_eq!(sent.len(), 1, "an initiation and nothing else");
    sent.remove(0)
}

/// What became of a packet that a node was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given {
    Sent,
    Queued,
    Refused(SealRefused),
}

pub struct Node {
    pub engine: Engine<ChaChaPoly>,
    pub address: Endpoint,
    /// The keys it was given, see [`Node::own`].
    pub locals: Vec<LocalKeyId>,
    pub saves: bool,
    pub flash: BTreeMap<LocalKeyId, Tai64n>,
    pub events: Vec<TunnelEvent>,
    pub delivered: Vec<(PeerIndex, Vec<u8>)>,
    pub keepalives: u32,
    pub strangers: Vec<TunnelKey>,
    pub drops: Vec<DropReason>,
    pub deadline: Instant,
    outbox: VecDeque<(Endpoint, Vec<u8>)>,
}

impl Node {
    pub fn new(host: u8, limits: EngineLimits) -> Self {
        Self {
            engine: Engine::new(limits, [host; 32]),
            address: address(host),
            locals: Vec::new(),
            saves: true,
            flash: BTreeMap::new(),
            events: Vec::new(),
            delivered: Vec::new(),
            keepalives: 0,
            strangers: Vec::new(),
            drops: Vec::new(),
            deadline: Instant::NEVER,
            outbox: VecDeque::new(),
        }
    }

    /// Gives the engine the key that [`secret`] makes of `byte`.
    pub fn own(&mut self, byte: u8) -> LocalKeyId {
        let local = self.engine.add_local_key(secret(byte), Tai64n::ZERO);
        self.locals.push(local.unwrap());
        local.unwrap()
    }

    /// Makes the holder of the key of `other` a peer that is shown `local`, found at its address.
    pub fn know(&mut self, other: u8, local: LocalKeyId) -> PeerIndex {
        let mut config = PeerConfig::new(public(other), local);
        config.endpoint = Some(address(other));
        self.engine.add_peer(config, Instant::ZERO).unwrap()
    }

    /// Asks for a new session and gives out what that has the node send.
    pub fn ask(&mut self, peer: PeerIndex, now: Instant) -> Vec<Vec<u8>> {
        self.engine.rekey(peer, now).unwrap();
        self.drain(now);
        self.sent()
    }

    pub fn drain(&mut self, now: Instant) {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        for turn in 0.. {
            assert!(turn < 10_000, "poll_output never waits");
            match self.engine.poll_output(&mut frame, now) {
                Output::Transmit { to } => self.outbox.push_back((to, frame.packet().to_vec())),
                Output::Event(event) => {
                    if let TunnelEvent::SaveStamps { local, until } = event
                        && self.saves
                    {
                        self.flash.insert(local, until);
                        self.engine.stamps_saved(local, until);
                    }
                    self.events.push(event);
                }
                Output::Wait(deadline) => {
                    self.deadline = deadline;
                    return;
                }
            }
        }
    }

    pub fn give(&mut self, peer: PeerIndex, packet: &[u8], now: Instant) -> Given {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(packet).unwrap();
        let given = match self.engine.seal(peer, &mut frame, now) {
            Ok(Sealed::Transmit { to }) => {
                self.outbox.push_back((to, frame.packet().to_vec()));
                Given::Sent
            }
            Ok(Sealed::Queued) => Given::Queued,
            Err(refused) => Given::Refused(refused),
        };
        self.drain(now);
        given
    }

    pub fn hear(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Opened, DropReason> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(datagram).unwrap();
        let opened = self.engine.handle_datagram(from, &mut frame, now);
        match opened {
            Ok(Opened::Packet { peer, .. }) => {
                self.delivered.push((peer, frame.packet().to_vec()));
            }
            Ok(Opened::Keepalive { .. }) => self.keepalives += 1,
            Ok(Opened::Stranger { public, .. }) => self.strangers.push(public),
            Ok(Opened::Handshake { .. } | Opened::Nothing) => {}
            Err(reason) => self.drops.push(reason),
        }
        self.drain(now);
        opened
    }

    /// What the node wants sent, oldest first.
    pub fn sent(&mut self) -> Vec<Vec<u8>> {
        self.outbox.drain(..).map(|(_, bytes)| bytes).collect()
    }

    pub fn sent_to(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        self.outbox.drain(..).collect()
    }

    pub fn numbers(&self) -> Vec<u32> {
        self.delivered.iter().map(|(_, p)| number(p)).collect()
    }

    pub fn count(&self, event: TunnelEvent) -> usize {
        self.events.iter().filter(|e| **e == event).count()
    }
}

/// Two nodes and a wire.
pub struct World {
    pub now: Instant,
    pub nodes: Vec<Node>,
    /// Lost datagrams in a thousand.
    pub loss: u64,
    pub delay: Duration,
    /// Up to this much more delay, by chance: reorders.
    pub spread: Duration,
    pub chance: Chance,
    /// Datagrams that passed: when, from, bytes.
    pub log: Vec<(Instant, Endpoint, Vec<u8>)>,
    air: Vec<(Instant, u64, Endpoint, Endpoint, Vec<u8>)>,
    order: u64,
}

impl World {
    /// A and B, who know each other's keys, with a pre-shared one, and where A finds B.
    pub fn pair() -> (Self, PeerIndex, PeerIndex) {
        Self::pair_with(EngineLimits::MICRO)
    }

    pub fn pair_with(limits: EngineLimits) -> (Self, PeerIndex, PeerIndex) {
        let mut nodes = vec![Node::new(1, limits), Node::new(2, limits)];
        let mut peers = Vec::new();
        for (host, other) in [(1u8, 2u8), (2, 1)] {
            let node = &mut nodes[usize::from(host) - 1];
            let local = node.own(host);
            let engine = &mut node.engine;
            engine.set_calendar(Some(UnixTime::from_secs(1_800_000_000)), Instant::ZERO);
            let mut config = PeerConfig::new(public(other), local);
            config.preshared = PresharedKey::new(PSK);
            config.endpoint = (host == 1).then(|| address(2));
            peers.push(engine.add_peer(config, Instant::ZERO).unwrap());
        }
        (Self::with(nodes), peers[0], peers[1])
    }

    pub fn with(nodes: Vec<Node>) -> Self {
        Self {
            now: Instant::ZERO,
            nodes,
            loss: 0,
            delay: ms(5),
            spread: Duration::ZERO,
            chance: Chance::new(1),
            log: Vec::new(),
            air: Vec::new(),
            order: 0,
        }
    }

    pub fn give(&mut self, node: usize, peer: PeerIndex, packet: &[u8]) -> Given {
        let given = self.nodes[node].give(peer, packet, self.now);
        self.carry();
        given
    }

    /// Puts what the nodes sent into the air.
    pub fn carry(&mut self) {
        for node in &mut self.nodes {
            for (to, bytes) in node.outbox.drain(..) {
                self.log.push((self.now, node.address, bytes.clone()));
                if self.chance.below(1000) < self.loss {
                    continue;
                }
                let more = self.chance.below(self.spread.as_micros() as u64 + 1);
                let when = self
                    .now
                    .after(self.delay)
                    .after(Duration::from_micros(more));
                self.order += 1;
                self.air.push((when, self.order, node.address, to, bytes));
            }
        }
    }

    /// Lets time pass until `end`.
    pub fn run(&mut self, end: Instant) {
        self.carry();
        loop {
            let arrival = self.air.iter().map(|a| a.0).min();
            let timer = self.nodes.iter().map(|n| n.deadline).min();
            let next = arrival
                .unwrap_or(Instant::NEVER)
                .min(timer.unwrap_or(Instant::NEVER));
            if next > end {
                break;
            }
            self.now = self.now.max(next);
            self.air.sort_by_key(|a| (a.0, a.1));
            if self.air.first().is_some_and(|a| a.0 <= self.now) {
                let (_, _, from, to, bytes) = self.air.remove(0);
                let now = self.now;
                if let Some(node) = self.nodes.iter_mut().find(|n| n.address == to) {
                    let _ = node.hear(from, &bytes, now);
                }
            } else {
                for node in &mut self.nodes {
                    node.engine.handle_timeout(self.now);
                    node.drain(self.now);
                }
            }
            self.carry();
        }
        self.now = end;
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run(self.now.after(time));
    }

    /// Initiations that `node` has sent so far, each counted once however often it was repeated.
    pub fn initiations(&self, node: usize) -> usize {
        self.first_initiations(node).len()
    }

    /// When `node` sent each of its initiations for the first time.
    pub fn first_initiations(&self, node: usize) -> Vec<Instant> {
        // The MACs that follow may change.
        let mut known: Vec<&[u8]> = Vec::new();
        let sent = self.log.iter();
        let sent =
            sent.filter(|(_, from, bytes)| *from == self.nodes[node].address && bytes[0] == 1);
        let firsts = sent.filter_map(|(when, _, bytes)| {
            let is_new = !known.contains(&&bytes[..116]);
            known.push(&bytes[..116]);
            is_new.then_some(*when)
        });
        firsts.collect()
    }

    /// How often `node` has sent initiations so far, repeated ones too.
    pub fn initiations_sent(&self, node: usize) -> usize {
        self.sent_of_kind(node, 1)
    }

    /// Cookie replies that `node` has sent so far.
    pub fn cookies(&self, node: usize) -> usize {
        self.sent_of_kind(node, 3)
    }

    fn sent_of_kind(&self, node: usize, kind: u8) -> usize {
        let address = self.nodes[node].address;
        let is_such = |from: Endpoint, bytes: &[u8]| from == address && bytes[0] == kind;
        let sent = self.log.iter();
        sent.filter(|(_, from, bytes)| is_such(*from, bytes))
            .count()
    }
}
