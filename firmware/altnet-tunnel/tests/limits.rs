//! Whatever comes: no panic, no table beyond its limit, no reply larger than its request.

mod common;

use altnet_tunnel::engine::{EngineLimits, Opened, PeerConfig, PeerIndex, TunnelEvent};
use altnet_tunnel::message::Message;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant, UnixTime};
use common::{Node, address, at, packet, public, secret};
use proptest::prelude::*;

const LIMITS: EngineLimits = EngineLimits {
    peers: 3,
    local_keys: 2,
    replay_window: 64,
    queued_packets: 3,
    queued_packets_per_peer: 2,
    cookie_replies: 2,
    handshakes_per_s: 2,
    handshake_burst: 3,
    sources: 4,
    mtu_bytes: 1280,
    stamp_block: Duration::from_secs(60),
};

/// One thing that can happen to two nodes that know each other.
#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Give(u8, u16),
    /// Deliver a datagram under way, perhaps bent at a place, from some address.
    Deliver(u16, Option<(u16, u8)>, u8),
    Bytes(Vec<u8>),
    AddPeer(u8),
    RemovePeer(u16),
    Rekey(u16),
    Endpoint(u16, Option<u8>),
    Calendar(Option<u64>),
    Keepalive(u16, Option<u16>),
    LocalKey(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0u64..40_000).prop_map(Step::Wait),
        1 => (0u64..400_000).prop_map(Step::Wait),
        5 => (0u8..2, 0u16..1500).prop_map(|(n, len)| Step::Give(n, len)),
        12 => (any::<u16>(), prop::option::weighted(0.2, any::<(u16, u8)>()), 0u8..6)
            .prop_map(|(a, b, c)| Step::Deliver(a, b, c)),
        2 => (0u8..6, prop::collection::vec(any::<u8>(), 0..180)).prop_map(|(kind, mut bytes)| {
            bytes.splice(0..0, [kind, 0, 0, 0]);
            Step::Bytes(bytes)
        }),
        1 => any::<u8>().prop_map(Step::AddPeer),
        1 => (0u16..4).prop_map(Step::RemovePeer),
        1 => (0u16..4).prop_map(Step::Rekey),
        1 => (0u16..4, prop::option::of(0u8..5)).prop_map(|(p, e)| Step::Endpoint(p, e)),
        1 => prop::option::of(any::<u64>()).prop_map(Step::Calendar),
        1 => (0u16..4, prop::option::of(any::<u16>())).prop_map(|(p, k)| Step::Keepalive(p, k)),
        1 => any::<u8>().prop_map(Step::LocalKey),
    ]
}

struct Scene {
    nodes: [Node; 2],
    air: Vec<Vec<u8>>,
    peers: Vec<PeerIndex>,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let mut nodes = [Node::new(1, LIMITS), Node::new(2, LIMITS)];
        let mut peers = Vec::new();
        for (node, other) in nodes.iter_mut().zip([2u8, 1]) {
            let local = node.own(3 - other);
            peers.push(node.know(other, local));
        }
        Self {
            nodes,
            air: Vec::new(),
            peers,
            now: at(1),
        }
    }

    fn carry(&mut self) {
        for node in &mut self.nodes {
            node.drain(self.now);
            self.air.extend(node.sent());
        }
        let surplus = self.air.len().saturating_sub(300);
        self.air.drain(..surplus);
    }

    fn hear(&mut self, to: usize, from: u8, bytes: &[u8]) {
        let heard = self.nodes[to].hear(address(from), bytes, self.now);
        let sent = self.nodes[to].sent();
        if heard.is_err() {
            // No reply, or a cookie: a reply that costs more than the question is a weapon.
            assert!(sent.len() <= 1, "{heard:?} {}", sent.len());
            for reply in &sent {
                assert!(reply.len() < bytes.len(), "{heard:?}");
                assert_eq!(reply[0], 3);
            }
        }
        if let Ok(Opened::Packet { .. }) = heard {
            let (_, packet) = self.nodes[to].delivered.last().unwrap();
            assert!(packet.len() + 32 <= bytes.len());
        }
        self.air.extend(sent);
    }

    fn take(&mut self, step: Step) {
        let now = self.now;
        match step {
            Step::Wait(ms) => {
                self.now = now.after(Duration::from_millis(ms));
                for node in &mut self.nodes {
                    node.engine.handle_timeout(self.now);
                }
            }
            Step::Give(node, len) => {
                let node = usize::from(node);
                let _ = self.nodes[node].give(self.peers[node], &packet(0, len.into()), now);
            }
            Step::Deliver(which, bend, from) => {
                let Some(mut bytes) = self
                    .air
                    .get(usize::from(which) % self.air.len().max(1))
                    .cloned()
                else {
                    return;
                };
                if let Some((place, with)) = bend {
                    let place = usize::from(place) % bytes.len();
                    bytes[place] ^= with;
                }
                self.hear(usize::from(which & 0x100 == 0), from, &bytes);
                self.hear(usize::from(which & 0x100 != 0), from, &bytes);
            }
            Step::Bytes(bytes) => self.hear(0, 9, &bytes),
            Step::AddPeer(key) => {
                let config = PeerConfig::new(public(key), self.nodes[0].locals[0]);
                let _ = self.nodes[0].engine.add_peer(config, now);
            }
            // The first peer stays, so that something goes on.
            Step::RemovePeer(at) => {
                let peer = self.peer(at);
                if let Some(peer) = peer.filter(|peer| *peer != self.peers[0]) {
                    let _ = self.nodes[0].engine.remove_peer(peer);
                }
            }
            Step::Rekey(at) => {
                if let Some(peer) = self.peer(at) {
                    let _ = self.nodes[0].engine.rekey(peer, now);
                }
            }
            Step::Endpoint(at, to) => {
                if let Some(peer) = self.peer(at) {
                    let _ = self.nodes[0]
                        .engine
                        .set_endpoint(peer, to.map(address), now);
                }
            }
            Step::Calendar(time) => {
                let time = time.map(UnixTime::from_secs);
                self.nodes[0].engine.set_calendar(time, now);
            }
            Step::Keepalive(at, every) => {
                if let Some(peer) = self.peer(at) {
                    let every = every.map(|s| Duration::from_secs(s.max(1).into()));
                    let _ = self.nodes[0]
                        .engine
                        .set_persistent_keepalive(peer, every, now);
                }
            }
            Step::LocalKey(key) => {
                let first = self.nodes[0].locals[0];
                let engine = &mut self.nodes[0].engine;
                if let Ok(local) = engine.add_local_key(secret(key), Tai64n::ZERO) {
                    let _ = engine.set_peer_local_key(self.peers[0], local);
                    let _ = engine.set_peer_local_key(self.peers[0], first);
                    engine.remove_local_key(local).unwrap();
                }
            }
        }
        self.carry();
    }

    /// The peer at a place of the first node's table, found by what it is told.
    fn peer(&self, at: u16) -> Option<PeerIndex> {
        let node = &self.nodes[0];
        (0..=255u8)
            .map(|key| PUBLIC.with(|p| p[usize::from(key)]))
            .filter_map(|key| node.engine.find_peer(&key, node.locals[0]))
            .find(|peer| peer.as_u16() == at)
    }
}

thread_local! {
    static PUBLIC: Vec<TunnelKey> = (0..=255).map(public).collect();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn no_story_makes_an_engine_panic_or_exceed_its_limits(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut scene = Scene::new();
        for step in steps {
            scene.take(step);
            for node in &scene.nodes {
                prop_assert!(node.engine.peer_count() <= usize::from(LIMITS.peers));
                for peer in &scene.peers {
                    prop_assert!(node.engine.receivers(*peer).count() <= 5);
                }
                prop_assert!(node.deadline > scene.now, "a deadline that passed would spin");
            }
        }
        for node in &scene.nodes {
            let saves: Vec<_> = node.events.iter().filter_map(|event| match event {
                TunnelEvent::SaveStamps { until, .. } => Some(*until),
                _ => None,
            }).collect();
            prop_assert!(saves.windows(2).all(|pair| pair[0] <= pair[1]));
        }
    }

    #[test]
    fn no_bytes_make_an_engine_panic(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let mut node = Node::new(1, LIMITS);
        node.own(1);
        let heard = node.hear(address(2), &bytes, Instant::ZERO);
        prop_assert!(heard.is_err());
        prop_assert_eq!(node.sent().len(), 0);
        let _ = Message::parse(&bytes);
    }
}
