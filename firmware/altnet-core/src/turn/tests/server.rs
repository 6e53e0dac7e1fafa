//! A TURN server that says what it hears and grants, for tests alone. It shares the codec with the
//! client and nothing else: keys are made here anew.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::string::String;
use std::vec::Vec;

use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::stun::attribute::*;
use altnet_wire::stun::channel::Channel;
use altnet_wire::stun::integrity::Integrity;
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Message, Method, TransactionId};
use altnet_wire::time::{Duration, Instant};
use sha2::{Digest, Sha256};

pub const REALM_NAME: &[u8] = b"example.net";
pub const USER: &str = "somebody";
pub const PASSWORD: &str = "sesame";

/// What one client has.
pub struct Allocation {
    pub relayed: SocketAddr,
    pub ends: Instant,
    permissions: BTreeMap<std::net::IpAddr, Instant>,
    pub channels: BTreeMap<Channel, (SocketAddr, Instant)>,
}

/// The server.
pub struct Server {
    pub address: SocketAddr,
    /// Offers SHA-256 and hashed usernames.
    pub is_modern: bool,
    /// Lets everybody in.
    pub is_open: bool,
    pub lifetime: Duration,
    /// A nonce is good for so long.
    pub nonce_lasts: Duration,
    pub refuses_channels: bool,
    pub refuses_peers: bool,
    /// Answers everything with this error, signed if it can.
    pub error: Option<u16>,
    /// Signs with another key than it should.
    pub lies: bool,
    pub is_deaf: bool,
    nonce: u64,
    nonce_since: Instant,
    pub allocations: BTreeMap<SocketAddr, Allocation>,
    next_port: u16,
    /// Methods and classes of all that was heard, in order.
    pub heard: Vec<(Class, Method)>,
    /// Data came in this way so often.
    pub by_channel: usize,
    pub by_indication: usize,
}

pub type Sent = Vec<(SocketAddr, Vec<u8>)>;

impl Server {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_modern: false,
            is_open: false,
            lifetime: Duration::from_secs(600),
            nonce_lasts: Duration::from_secs(3600),
            refuses_channels: false,
            refuses_peers: false,
            error: None,
            lies: false,
            is_deaf: false,
            nonce: 1,
            nonce_since: Instant::ZERO,
            allocations: BTreeMap::new(),
            next_port: 50_000,
            heard: Vec::new(),
            by_channel: 0,
            by_indication: 0,
        }
    }

    /// Takes a client's datagram; returns what is sent to whom.
    pub fn handle(&mut self, from: SocketAddr, bytes: &[u8], now: Instant) -> Sent {
        if self.is_deaf {
            return Vec::new();
        }
        self.allocations.retain(|_, a| now < a.ends);
        if now.saturating_since(self.nonce_since) >= self.nonce_lasts {
            self.nonce += 1;
            self.nonce_since = now;
        }
        if let Some((channel, length)) = Channel::parse(bytes) {
            self.by_channel += 1;
            let bound = self
                .allocations
                .get(&from)
                .and_then(|a| a.channels.get(&channel));
            let Some((peer, until)) = bound.copied() else {
                return Vec::new();
            };
            assert!(now < until, "the channel is over");
            return self.relay(from, peer, &bytes[4..4 + length], now);
        }
        let message = Message::parse(bytes).expect("a client writes well");
        self.heard.push((message.class(), message.method()));
        match (message.class(), message.method()) {
            (Class::Indication, Method::SEND) => {
                self.by_indication += 1;
                let peer = message.xor_address(XOR_PEER_ADDRESS).unwrap();
                let data = message.find(DATA).unwrap().value.to_vec();
                self.relay(from, peer, &data, now)
            }
            (Class::Request, _) => {
                let answer = self.answer(from, &message, now);
                Vec::from([(from, answer)])
            }
            _ => Vec::new(),
        }
    }

    /// Passes on what a client sends, if it may; to another client as the server would.
    fn relay(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8], now: Instant) -> Sent {
        let Some(sender) = self.allocations.get(&from) else {
            return Vec::new();
        };
        if sender
            .permissions
            .get(&to.ip())
            .is_none_or(|until| *until <= now)
        {
            return Vec::new();
        }
        let relayed = sender.relayed;
        let client = self.allocations.iter().find(|(_, a)| a.relayed == to);
        match client.map(|(address, _)| *address) {
            Some(client) => self.reach(client, relayed, data, now),
            None => Vec::from([(to, data.to_vec())]),
        }
    }

    /// What reaches `client` when `peer` sends to its relayed address.
    pub fn reach(&self, client: SocketAddr, peer: SocketAddr, data: &[u8], now: Instant) -> Sent {
        let Some(allocation) = self.allocations.get(&client) else {
            return Vec::new();
        };
        if allocation
            .permissions
            .get(&peer.ip())
            .is_none_or(|until| *until <= now)
        {
            return Vec::new();
        }
        let bound = allocation
            .channels
            .iter()
            .find(|(_, b)| b.0 == peer && now < b.1);
        let mut buffer = [0; FRAME_BYTES];
        if let Some((channel, _)) = bound {
            let mut frame = Frame::new(&mut buffer);
            frame.set(data).unwrap();
            channel.push(&mut frame).unwrap();
            return Vec::from([(client, frame.packet().to_vec())]);
        }
        let id = TransactionId([9; 12]);
        let mut writer = Writer::new(&mut buffer, Class::Indication, Method::DATA, id).unwrap();
        writer.put_xor_address(XOR_PEER_ADDRESS, peer).unwrap();
        writer.put(DATA, data).unwrap();
        Vec::from([(client, writer.bytes().to_vec())])
    }

    fn nonce(&self) -> String {
        let features = if self.is_modern { "obMatJos2AAAD" } else { "" };
        std::format!("{features}nonce{}", self.nonce)
    }

    fn key(&self) -> Vec<u8> {
        let realm = core::str::from_utf8(REALM_NAME).unwrap();
        let password = if self.lies { "lies" } else { PASSWORD };
        let text = std::format!("{USER}:{realm}:{password}");
        match self.is_modern {
            true => Sha256::digest(text).to_vec(),
            false => md5::Md5::digest(text).to_vec(),
        }
    }

    fn integrity(&self) -> Integrity {
        match self.is_modern {
            true => Integrity::Sha256,
            false => Integrity::Sha1,
        }
    }

    /// Whether the request is signed as the server asked for it.
    fn is_let_in(&self, request: &Message<'_>) -> bool {
        let is = |kind, value: &[u8]| request.find(kind).is_some_and(|found| found.value == value);
        let hash = Sha256::digest(std::format!("{USER}:example.net"));
        let who = match self.is_modern {
            true => is(USERHASH, &hash) && is(PASSWORD_ALGORITHM, &[0, 2, 0, 0]),
            false => is(USERNAME, USER.as_bytes()),
        };
        let right = Server {
            lies: false,
            allocations: BTreeMap::new(),
            heard: Vec::new(),
            ..*self
        };
        let by = self.integrity();
        who && is(REALM, REALM_NAME) && request.is_signed_with(by, &right.key())
    }

    fn answer(&mut self, from: SocketAddr, request: &Message<'_>, now: Instant) -> Vec<u8> {
        let is_signed = request.signed_by().is_some();
        if let Some(code) = self.error {
            return self.refuse(request, code, is_signed);
        }
        if !self.is_open {
            if !is_signed || !self.is_let_in(request) {
                return self.refuse(request, UNAUTHENTICATED, false);
            }
            let nonce = request.find(NONCE).and_then(|nonce| nonce.text());
            if nonce != Some(&self.nonce()) {
                return self.refuse(request, STALE_NONCE, false);
            }
        }
        match self.grant(from, request, now) {
            Ok(()) => self.grant_answer(from, request, now),
            Err(code) => self.refuse(request, code, is_signed),
        }
    }

    fn refuse(&self, request: &Message<'_>, code: u16, is_signed: bool) -> Vec<u8> {
        let mut out = [0; 1000];
        let mut writer = Writer::new(
            &mut out,
            Class::Error,
            request.method(),
            request.transaction(),
        )
        .unwrap();
        writer.put_error(code, "No").unwrap();
        if code == UNAUTHENTICATED || code == STALE_NONCE {
            writer.put(REALM, REALM_NAME).unwrap();
            writer.put(NONCE, self.nonce().as_bytes()).unwrap();
            if self.is_modern {
                writer
                    .put(PASSWORD_ALGORITHMS, &[0, 2, 0, 0, 0, 1, 0, 0])
                    .unwrap();
            }
        }
        if code == 300 {
            let other = "203.0.113.99:3478".parse().unwrap();
            writer.put_address(ALTERNATE_SERVER, other).unwrap();
        }
        if is_signed {
            writer.sign(self.integrity(), &self.key()).unwrap();
        }
        writer.bytes().to_vec()
    }

    /// Does what is asked.
    fn grant(&mut self, from: SocketAddr, request: &Message<'_>, now: Instant) -> Result<(), u16> {
        let peer = request.xor_address(XOR_PEER_ADDRESS);
        if request.method() == Method::ALLOCATE {
            if self.allocations.contains_key(&from) {
                return Err(437);
            }
            assert!(request.find(REQUESTED_TRANSPORT).is_some());
            self.next_port += 1;
            let allocation = Allocation {
                relayed: SocketAddr::new(self.address.ip(), self.next_port),
                ends: now.after(self.lifetime),
                permissions: BTreeMap::new(),
                channels: BTreeMap::new(),
            };
            self.allocations.insert(from, allocation);
            return Ok(());
        }
        let (refuses_channels, refuses_peers) = (self.refuses_channels, self.refuses_peers);
        let lifetime = self.lifetime;
        let allocation = self.allocations.get_mut(&from).ok_or(437u16)?;
        match request.method() {
            Method::REFRESH if request.number(LIFETIME) == Some(0) => {
                self.allocations.remove(&from);
            }
            Method::REFRESH => allocation.ends = now.after(lifetime),
            Method::CREATE_PERMISSION if refuses_peers => return Err(403),
            Method::CHANNEL_BIND if refuses_channels => return Err(400),
            Method::CREATE_PERMISSION => {
                let until = now.after(Duration::from_secs(300));
                allocation.permissions.insert(peer.unwrap().ip(), until);
            }
            Method::CHANNEL_BIND => {
                let until = now.after(Duration::from_secs(300));
                allocation.permissions.insert(peer.unwrap().ip(), until);
                let number = request.find(CHANNEL_NUMBER).unwrap().value;
                let channel = Channel::new(u16::from_be_bytes([number[0], number[1]])).unwrap();
                let until = now.after(Duration::from_secs(600));
                allocation.channels.insert(channel, (peer.unwrap(), until));
            }
            _ => return Err(400),
        }
        Ok(())
    }

    fn grant_answer(&self, from: SocketAddr, request: &Message<'_>, now: Instant) -> Vec<u8> {
        let mut out = [0; 1000];
        let (method, id) = (request.method(), request.transaction());
        let mut writer = Writer::new(&mut out, Class::Success, method, id).unwrap();
        let allocation = self.allocations.get(&from);
        let left = allocation.map_or(Duration::ZERO, |a| a.ends.saturating_since(now));
        if method == Method::ALLOCATE {
            writer
                .put_xor_address(XOR_RELAYED_ADDRESS, allocation.unwrap().relayed)
                .unwrap();
            writer.put_xor_address(XOR_MAPPED_ADDRESS, from).unwrap();
        }
        if matches!(method, Method::ALLOCATE | Method::REFRESH) {
            writer.put_number(LIFETIME, left.as_secs() as u32).unwrap();
        }
        if !self.is_open {
            writer.sign(self.integrity(), &self.key()).unwrap();
        }
        writer.bytes().to_vec()
    }
}
