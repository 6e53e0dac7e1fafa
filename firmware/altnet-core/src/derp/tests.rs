//! Both sides over a pipe that cuts as it likes.

use super::boxes::SecretKey;
use super::client::{Client, Event, MAX_TRANSMIT_BYTES};
use super::handshake::{GREETING_BYTES, MAX_ADMISSION_BYTES, ServerIdentity};
use super::server::{ConnectionId, Origin, Output, Server, ServerLimits, Verdict};
use crate::rng::Rng;
use altnet_wire::derp::info::{ClientInfo, ServerInfo};
use altnet_wire::derp::split::{RawFrame, Splitter, Writer};
use altnet_wire::derp::{Frame, FrameKind, PublicKey, packet_prefix};
use altnet_wire::time::{Duration, Instant};
use proptest::prelude::*;
use std::vec::Vec;

const SEED: [u8; 32] = [5; 32];

/// One direction of a pipe.
struct Stream {
    splitter: Splitter,
    written: Vec<u8>,
    held: Vec<u8>,
}

impl Stream {
    fn new(writer: Writer) -> Self {
        Self {
            splitter: Splitter::new(writer),
            written: Vec::new(),
            held: Vec::new(),
        }
    }

    /// Lets `most` bytes through and returns the frames that are whole.
    fn read(&mut self, most: usize) -> Vec<(FrameKind, Vec<u8>)> {
        let through = most.min(self.written.len());
        self.held.extend(self.written.drain(..through));
        let mut rest = &self.held[..];
        let mut frames = Vec::new();
        while let Some(raw) = self.splitter.next(&mut rest).unwrap() {
            frames.push((raw.kind, raw.body.to_vec()));
        }
        let taken = self.held.len() - rest.len();
        self.held.drain(..taken);
        frames
    }
}

struct Peer {
    client: Client,
    id: Option<ConnectionId>,
    up: Stream,
    down: Stream,
    heard: Vec<Vec<u8>>,
    events: usize,
}

struct World {
    identity: ServerIdentity,
    server: Server,
    peers: Vec<Peer>,
    chance: Rng,
    now: Instant,
}

impl World {
    fn new(peers: u8, seed: [u8; 32]) -> Self {
        let identity = ServerIdentity::new(SecretKey::new([1; 32]), None);
        let server = Server::new(identity.public(), ServerLimits::ROUTER, SEED);
        let now = Instant::from_micros(1);
        let peers = (0..peers).map(|n| {
            let secret = SecretKey::new([n + 2; 32]);
            let mut down = Stream::new(Writer::Server);
            down.written.resize(GREETING_BYTES, 0);
            identity.greeting().encode(&mut down.written).unwrap();
            Peer {
                client: Client::new(secret, ClientInfo::default(), None, SEED, now),
                id: None,
                up: Stream::new(Writer::Client),
                down,
                heard: Vec::new(),
                events: 0,
            }
        });
        Self {
            peers: peers.collect(),
            server,
            identity,
            chance: Rng::new(seed),
            now,
        }
    }

    /// Moves some bytes, one way or the other.
    fn step(&mut self) {
        let peers = u32::try_from(self.peers.len()).unwrap();
        let at = self.chance.below(peers) as usize;
        let most = self.chance.below(90) as usize;
        if self.chance.below(2) == 0 {
            self.upward(at, most);
        } else {
            self.downward(at, most);
        }
        self.now = self.now.after(Duration::from_micros(10));
    }

    fn upward(&mut self, at: usize, most: usize) {
        let peer = &mut self.peers[at];
        let mut out = [0; MAX_TRANSMIT_BYTES];
        while let Some(length) = peer.client.poll_transmit(&mut out) {
            peer.up.written.extend_from_slice(&out[..length]);
        }
        for (kind, body) in peer.up.read(most) {
            let raw = RawFrame { kind, body: &body };
            match self.peers[at].id {
                Some(id) => {
                    let verdict = self.server.handle_frame(id, raw, self.now).unwrap();
                    if let Verdict::Deliver {
                        to, from, packet, ..
                    } = verdict
                    {
                        let prefix = packet_prefix(FrameKind::RECV_PACKET, &from, packet.len());
                        let bytes = [&prefix[..], packet].concat();
                        self.write(to, &bytes);
                    }
                }
                None => self.admit(at, raw),
            }
            while let Output::Send { to, frame } = self.server.poll_output(self.now) {
                let mut bytes = std::vec![0; frame.encoded_len()];
                frame.encode(&mut bytes).unwrap();
                self.write(to, &bytes);
            }
        }
    }

    fn admit(&mut self, at: usize, raw: RawFrame<'_>) {
        let arrival = self.identity.identify(raw).unwrap();
        let nonce = self.chance.array();
        let mut out = [0; MAX_ADMISSION_BYTES];
        let length = arrival
            .admission(&ServerInfo::PLAIN, &nonce, &mut out)
            .unwrap();
        let id = self.server.connect(&arrival, Origin::default(), self.now);
        self.peers[at].id = id.ok();
        self.peers[at]
            .down
            .written
            .extend_from_slice(&out[..length]);
    }

    fn write(&mut self, to: ConnectionId, bytes: &[u8]) {
        let peer = self.peers.iter_mut().find(|peer| peer.id == Some(to));
        peer.unwrap().down.written.extend_from_slice(bytes);
    }

    fn downward(&mut self, at: usize, most: usize) {
        let peer = &mut self.peers[at];
        for (kind, body) in peer.down.read(most) {
            let raw = RawFrame { kind, body: &body };
            match peer.client.handle_frame(raw, self.now).unwrap() {
                Some(Event::Packet { packet, .. }) => peer.heard.push(packet.to_vec()),
                Some(_) => peer.events += 1,
                None => {}
            }
        }
    }

    fn send(&mut self, from: usize, to: PublicKey, packet: &[u8]) {
        let peer = &mut self.peers[from];
        let prefix = peer.client.send(&to, packet.len(), self.now).unwrap();
        // What waits goes first, as `poll_transmit` says.
        let mut out = [0; MAX_TRANSMIT_BYTES];
        while let Some(length) = peer.client.poll_transmit(&mut out) {
            peer.up.written.extend_from_slice(&out[..length]);
        }
        peer.up.written.extend_from_slice(&prefix);
        peer.up.written.extend_from_slice(packet);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_packet_arrives_once_and_in_order_however_the_streams_are_cut(
        seed: [u8; 32],
        packets in proptest::collection::vec((0_usize..3, 0_usize..3, 0_usize..300), 1..30),
    ) {
        let mut world = World::new(3, seed);
        while world.peers.iter().any(|peer| peer.events < 2) {
            world.step();
        }
        let keys: Vec<_> = world.peers.iter().map(|peer| peer.client.public()).collect();
        let mut expected = std::vec![Vec::new(); 9];
        for (n, (from, to, length)) in packets.iter().enumerate() {
            let mut packet = std::vec![*from as u8, *to as u8, n as u8];
            packet.resize(3 + length, 0xee);
            world.send(*from, keys[*to], &packet);
            expected[from * 3 + to].push(packet);
            for _ in 0..world.chance.below(10) {
                world.step();
            }
        }
        let heard = |world: &World| world.peers.iter().map(|peer| peer.heard.len()).sum::<usize>();
        for _ in 0..200_000 {
            if heard(&world) == packets.len() {
                break;
            }
            world.step();
        }
        for (at, peer) in world.peers.iter().enumerate() {
            for from in 0..3 {
                let from_one: Vec<_> = peer
                    .heard
                    .iter()
                    .filter(|packet| usize::from(packet[0]) == from)
                    .cloned()
                    .collect();
                prop_assert_eq!(&from_one, &expected[from * 3 + at]);
            }
        }
    }
}

#[test]
fn a_client_pings_names_its_home_and_learns_who_left() {
    let mut world = World::new(2, SEED);
    while world.peers.iter().any(|peer| peer.events < 2) {
        world.step();
    }
    world.peers[0].client.note_preferred(true);
    world.peers[0].client.ping(world.now);
    let other = world.peers[1].client.public();
    world.send(0, other, b"hello");
    while world.peers[1].heard.is_empty() || world.peers[0].events < 3 {
        world.step();
    }
    assert_eq!(world.server.counters().home_connections, 1);
    let left = world.peers[0].id.take().unwrap();
    world.server.disconnect(left);
    let before = world.peers[1].events;
    world.upward(1, 0);
    while let Output::Send { to, frame } = world.server.poll_output(world.now) {
        let mut bytes = std::vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).unwrap();
        world.write(to, &bytes);
    }
    world.downward(1, usize::MAX);
    assert_eq!(world.peers[1].events, before + 1);
}

mod client {
    use super::*;
    use crate::derp::client::{ClientError, NotSent};
    use crate::derp::handshake::HandshakeError;

    const HERE: Instant = Instant::from_micros(1_000_000);

    fn server() -> ServerIdentity {
        ServerIdentity::new(SecretKey::new([1; 32]), None)
    }

    fn client(expected: Option<PublicKey>) -> Client {
        let secret = SecretKey::new([2; 32]);
        Client::new(secret, ClientInfo::default(), expected, SEED, HERE)
    }

    fn hear(client: &mut Client, frame: Frame<'_>) -> Result<bool, ClientError> {
        let mut bytes = std::vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).unwrap();
        let kind = frame.kind();
        let body = &bytes[5..];
        let event = client.handle_frame(RawFrame { kind, body }, HERE)?;
        Ok(event.is_some())
    }

    fn admit(client: &mut Client, info: &ServerInfo) {
        let mut out = [0; MAX_TRANSMIT_BYTES];
        let length = client.poll_transmit(&mut out).unwrap();
        let kind = FrameKind::CLIENT_INFO;
        let body = &out[5..length];
        let arrival = server().identify(RawFrame { kind, body }).unwrap();
        assert_eq!(arrival.info.version, 2);
        let mut out = [0; MAX_ADMISSION_BYTES];
        let length = arrival.admission(info, &[0; 24], &mut out).unwrap();
        let kind = FrameKind::SERVER_INFO;
        let body = &out[5..length];
        let event = client.handle_frame(RawFrame { kind, body }, HERE).unwrap();
        assert_eq!(event, Some(Event::Admitted(*info)));
    }

    #[test]
    fn another_server_than_the_one_that_was_meant_is_left() {
        let (expected, found) = (PublicKey([7; 32]), server().public());
        let mut client = client(Some(expected));
        let left = hear(&mut client, server().greeting());
        assert_eq!(left, Err(ClientError::OtherServer { expected, found }));
    }

    #[test]
    fn a_key_from_a_certificate_saves_waiting_for_the_greeting() {
        let mut client = client(None);
        assert_eq!(client.poll_transmit(&mut [0; MAX_TRANSMIT_BYTES]), None);
        let refused = client.send(&PublicKey([3; 32]), 10, HERE);
        assert_eq!(refused, Err(NotSent::TooEarly));
        client.handle_server_key(server().public()).unwrap();
        admit(&mut client, &ServerInfo::PLAIN);
        // The greeting comes nevertheless.
        assert_eq!(hear(&mut client, server().greeting()), Ok(false));
        assert!(client.send(&PublicKey([3; 32]), 10, HERE).is_ok());
        let refused = client.send(&PublicKey([3; 32]), 65_537, HERE);
        assert_eq!(refused, Err(NotSent::TooLarge { found: 65_537 }));
    }

    #[test]
    fn a_client_keeps_to_the_rate_that_its_server_told() {
        let mut client = client(None);
        client.handle_server_key(server().public()).unwrap();
        let info = ServerInfo {
            rate_bytes_per_s: 1000,
            burst_bytes: 2000,
            ..ServerInfo::PLAIN
        };
        admit(&mut client, &info);
        let to = PublicKey([3; 32]);
        assert!(client.send(&to, 1900, HERE).is_ok());
        assert_eq!(client.send(&to, 1000, HERE), Err(NotSent::TooFast));
        let later = HERE.after(Duration::from_secs(1));
        assert!(client.send(&to, 1000, later).is_ok());
    }

    #[test]
    fn a_server_that_is_silent_for_two_minutes_is_lost() {
        let mut client = client(None);
        let handshake = HERE.after(Duration::from_secs(10));
        assert_eq!(client.handle_timeout(handshake), Err(ClientError::Silent));
        client.handle_server_key(server().public()).unwrap();
        admit(&mut client, &ServerInfo::PLAIN);
        let late = HERE.after(Duration::from_secs(119));
        assert_eq!(client.handle_timeout(late), Ok(()));
        let too_late = HERE.after(Duration::from_secs(120));
        assert_eq!(client.handle_timeout(too_late), Err(ClientError::Silent));
    }

    #[test]
    fn frames_out_of_order_end_a_handshake() {
        let mut first = client(None);
        let ended = hear(&mut first, Frame::KeepAlive);
        let unexpected = |found| Err(HandshakeError::Unexpected { found }.into());
        assert_eq!(ended, unexpected(0x06));
        let mut second = client(None);
        second.handle_server_key(server().public()).unwrap();
        admit(&mut second, &ServerInfo::PLAIN);
        let again = hear(&mut second, Frame::ServerInfo(&[0; 60]));
        assert_eq!(again, unexpected(0x03));
    }

    #[test]
    fn a_servers_ping_is_answered_and_a_strange_pong_is_nothing() {
        let mut client = client(None);
        client.handle_server_key(server().public()).unwrap();
        admit(&mut client, &ServerInfo::PLAIN);
        assert_eq!(hear(&mut client, Frame::Ping([4; 8])), Ok(false));
        let mut out = [0; MAX_TRANSMIT_BYTES];
        assert_eq!(client.poll_transmit(&mut out), Some(13));
        assert_eq!(out[..6], [0x13, 0, 0, 0, 8, 4]);
        assert_eq!(hear(&mut client, Frame::Pong([4; 8])), Ok(false));
        // What is too short is passed over.
        let kind = FrameKind::PEER_GONE;
        let body = &[0; 5];
        assert_eq!(client.handle_frame(RawFrame { kind, body }, HERE), Ok(None));
    }
}
