//! A relay's rules, one by one.

use super::*;
use crate::derp::boxes::SecretKey;
use crate::derp::handshake::{MAX_INTRODUCTION_BYTES, ServerIdentity, introduction};
use altnet_wire::derp::info::{ClientInfo, MeshKey};
use altnet_wire::derp::{FrameKind, HEADER_BYTES, PresentFlags};
use std::vec::Vec;

const MESH: MeshKey = MeshKey([9; 32]);
const LIMITS: ServerLimits = ServerLimits {
    connections: 12,
    watchers: 1,
    watcher_backlog: 2,
    ..ServerLimits::ROUTER
};

fn identity() -> ServerIdentity {
    ServerIdentity::new(SecretKey::new([1; 32]), Some(MESH))
}

fn arrival(seed: u8, mesh_key: Option<MeshKey>) -> Arrival {
    let (secret, server) = (SecretKey::new([seed; 32]), identity());
    let info = ClientInfo {
        mesh_key,
        ..ClientInfo::default()
    };
    let shared = secret.shared(&server.public()).unwrap();
    let mut out = [0; MAX_INTRODUCTION_BYTES];
    let length = introduction(secret.public(), &shared, &info, &[0; 24], &mut out).unwrap();
    server
        .identify(RawFrame {
            kind: FrameKind::CLIENT_INFO,
            body: &out[HEADER_BYTES..length],
        })
        .unwrap()
}

fn key(seed: u8) -> PublicKey {
    SecretKey::new([seed; 32]).public()
}

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

/// A relay and what it put out.
struct Relay(Server);

impl Relay {
    fn new() -> Self {
        Self(Server::new(identity().public(), LIMITS, [0; 32]))
    }

    fn connect(&mut self, seed: u8) -> ConnectionId {
        let arrival = arrival(seed, None);
        self.0.connect(&arrival, Origin::default(), at(0)).unwrap()
    }

    fn connect_mesh(&mut self, seed: u8) -> ConnectionId {
        let arrival = arrival(seed, Some(MESH));
        self.0.connect(&arrival, Origin::default(), at(0)).unwrap()
    }

    fn write(&mut self, id: ConnectionId, frame: Frame<'_>) -> Result<Wrote, CloseReason> {
        let mut bytes = std::vec![0; frame.encoded_len()];
        frame.encode(&mut bytes).unwrap();
        let raw = RawFrame {
            kind: frame.kind(),
            body: &bytes[HEADER_BYTES..],
        };
        self.0
            .handle_frame(id, raw, at(1))
            .map(|verdict| match verdict {
                Verdict::Done => Wrote::Nothing,
                Verdict::Deliver { to, from, .. } => Wrote::To(to, from),
                Verdict::Dropped(reason) => Wrote::Dropped(reason),
            })
    }

    fn send(&mut self, id: ConnectionId, to: u8) -> Wrote {
        let (to, packet) = (key(to), b"packet");
        self.write(id, Frame::SendPacket { to, packet }).unwrap()
    }

    /// What it says at a time, until it waits.
    fn drain(&mut self, now: Instant) -> Vec<Output> {
        core::iter::from_fn(|| match self.0.poll_output(now) {
            Output::Wait(_) => None,
            output => Some(output),
        })
        .collect()
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.drain(at(1))
    }

    fn watched(&mut self, id: ConnectionId) -> Vec<Frame<'static>> {
        core::iter::from_fn(|| self.0.poll_watcher(id)).collect()
    }
}

#[derive(Debug, PartialEq)]
enum Wrote {
    Nothing,
    To(ConnectionId, PublicKey),
    Dropped(DropReason),
}

fn gone(to: ConnectionId, peer: u8, reason: GoneReason) -> Output {
    let peer = key(peer);
    Output::Send {
        to,
        frame: Frame::PeerGone { peer, reason },
    }
}

fn present(seed: u8, flags: PresentFlags) -> Frame<'static> {
    Frame::PeerPresent {
        peer: key(seed),
        address: None,
        flags: Some(flags),
    }
}

#[test]
fn a_packet_goes_to_the_connection_of_its_key() {
    let mut relay = Relay::new();
    let (a, b) = (relay.connect(2), relay.connect(3));
    assert_eq!(relay.send(a, 3), Wrote::To(b, key(2)));
    assert_eq!(relay.send(b, 2), Wrote::To(a, key(3)));
    assert_eq!(
        relay.send(a, 4),
        Wrote::Dropped(DropReason::UnknownDestination)
    );
    // What isn't disco gets no answer.
    assert_eq!(relay.outputs(), []);
    let counters = relay.0.counters();
    assert_eq!((counters.received, counters.delivered), (3, 2));
    assert_eq!(counters.unknown_destination, 1);
}

#[test]
fn disco_for_nobody_is_answered_three_times_and_then_once_a_second() {
    let mut relay = Relay::new();
    let a = relay.connect(2);
    let disco = [&b"TS\xf0\x9f\x92\xac"[..], &[0; 56]].concat();
    let mut told = 0;
    for _ in 0..10 {
        let to = key(7);
        let packet = &disco;
        let wrote = relay.write(a, Frame::SendPacket { to, packet });
        assert_eq!(wrote, Ok(Wrote::Dropped(DropReason::UnknownDestination)));
        for output in relay.outputs() {
            assert_eq!(output, gone(a, 7, GoneReason::NOT_HERE));
            told += 1;
        }
    }
    assert_eq!(told, 3);
}

#[test]
fn whoever_was_sent_a_packet_learns_that_its_sender_left() {
    let mut relay = Relay::new();
    let (a, b, c) = (relay.connect(2), relay.connect(3), relay.connect(4));
    relay.send(a, 3);
    relay.send(a, 3);
    relay.send(b, 4);
    relay.0.disconnect(a);
    assert_eq!(relay.outputs(), [gone(b, 2, GoneReason::DISCONNECTED)]);
    assert_eq!(
        relay.send(c, 2),
        Wrote::Dropped(DropReason::UnknownDestination)
    );
    // A receiver that left isn't told, nor whoever has its slot now.
    relay.send(c, 3);
    relay.0.disconnect(b);
    relay.outputs();
    let d = relay.connect(5);
    assert_eq!(d.slot(), b.slot());
    relay.0.disconnect(c);
    assert_eq!(relay.outputs(), []);
}

#[test]
fn the_latest_receivers_are_remembered() {
    let mut relay = Relay(Server::new(
        identity().public(),
        ServerLimits {
            connections: 40,
            ..LIMITS
        },
        [0; 32],
    ));
    let a = relay.connect(2);
    let others: Vec<_> = (10..30).map(|seed| relay.connect(seed)).collect();
    for seed in 10..30 {
        relay.send(a, seed);
    }
    // The first ones would be forgotten, but this one is sent to again.
    relay.send(a, 14);
    relay.send(a, 10);
    relay.0.disconnect(a);
    let told: Vec<_> = relay
        .outputs()
        .into_iter()
        .map(|output| match output {
            Output::Send { to, .. } => to,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told.len(), GONE_MEMORY);
    assert_eq!(told[..2], [others[0], others[4]]);
    assert!(!told.contains(&others[1]));
}

#[test]
fn of_several_connections_of_a_key_the_last_that_wrote_is_sent_to() {
    let mut relay = Relay::new();
    let (first, second, other) = (relay.connect(2), relay.connect(2), relay.connect(3));
    assert_eq!(relay.0.counters().duplicates, 2);
    assert_eq!(relay.send(other, 2), Wrote::To(second, key(3)));
    relay.write(first, Frame::NotePreferred(true)).unwrap();
    assert_eq!(relay.send(other, 2), Wrote::To(first, key(3)));
    // While one is left, nobody learns that its client is gone; then those of both do.
    relay.send(first, 3);
    relay.0.disconnect(first);
    assert_eq!(relay.outputs(), []);
    assert_eq!(relay.0.counters().duplicates, 0);
    assert_eq!(relay.0.counters().home_connections, 0);
    assert_eq!(relay.send(other, 2), Wrote::To(second, key(3)));
    relay.0.disconnect(second);
    assert_eq!(relay.outputs(), [gone(other, 2, GoneReason::DISCONNECTED)]);
}

#[test]
fn a_key_with_too_many_connections_loses_the_one_that_was_silent_for_longest() {
    let mut relay = Relay::new();
    let all: Vec<_> = (0..MAX_DUPLICATES).map(|_| relay.connect(2)).collect();
    relay.write(all[0], Frame::NotePreferred(false)).unwrap();
    assert_eq!(relay.outputs(), []);
    relay.connect(2);
    let expected = Output::Close {
        connection: all[1],
        reason: CloseReason::Superseded,
    };
    assert_eq!(relay.outputs(), [expected]);
    relay.0.disconnect(all[1]);
    assert_eq!(relay.0.counters().duplicates, MAX_DUPLICATES as u64);
}

#[test]
fn a_ping_is_answered() {
    let mut relay = Relay::new();
    let a = relay.connect(2);
    relay.write(a, Frame::Ping(*b"12345678")).unwrap();
    let frame = Frame::Pong(*b"12345678");
    assert_eq!(relay.outputs(), [Output::Send { to: a, frame }]);
}

#[test]
fn a_connection_is_told_that_it_lives_every_60_to_65_seconds() {
    let mut relay = Relay::new();
    let ids: Vec<_> = (2..12).map(|seed| relay.connect(seed)).collect();
    assert_eq!(relay.drain(at(59)), []);
    let Output::Wait(first) = relay.0.poll_output(at(59)) else {
        panic!("it waits");
    };
    assert!(first > at(60) && first < at(65));
    let told = relay.drain(at(65));
    assert_eq!(told.len(), ids.len());
    assert_eq!(relay.drain(at(119)), []);
    // Slots that ended and were taken again have one timer each.
    for id in &ids[1..] {
        relay.0.disconnect(*id);
    }
    let next = relay
        .0
        .connect(&arrival(20, None), Origin::default(), at(120));
    let told = relay.drain(at(131));
    assert_eq!(told.len(), 1);
    let told = relay.drain(at(185));
    let frame = Frame::KeepAlive;
    assert!(told.contains(&Output::Send {
        to: next.unwrap(),
        frame
    }));
    assert!(relay.0.keepalives.len() <= ids.len());
}

#[test]
fn what_only_mesh_peers_may_closes_others() {
    let mut relay = Relay::new();
    let (a, b) = (relay.connect(2), relay.connect(3));
    let forward = Frame::ForwardPacket {
        from: key(5),
        to: key(3),
        packet: b"x",
    };
    for frame in [forward, Frame::WatchConns, Frame::ClosePeer(key(3))] {
        assert_eq!(relay.write(a, frame), Err(CloseReason::NotAllowed));
    }
    let mesh = relay.connect_mesh(4);
    assert_eq!(relay.write(mesh, forward), Ok(Wrote::To(b, key(5))));
    let unknown = Frame::ForwardPacket {
        from: key(5),
        to: key(6),
        packet: b"x",
    };
    let dropped = Wrote::Dropped(DropReason::UnknownOnForward);
    assert_eq!(relay.write(mesh, unknown), Ok(dropped));
    relay.write(mesh, Frame::ClosePeer(key(3))).unwrap();
    let expected = Output::Close {
        connection: b,
        reason: CloseReason::Asked,
    };
    assert_eq!(relay.outputs(), [expected]);
}

#[test]
fn a_watcher_learns_who_is_here_who_comes_and_who_goes() {
    let mut relay = Relay::new();
    let a = relay.connect(2);
    let mesh = relay.connect_mesh(4);
    relay.write(mesh, Frame::WatchConns).unwrap();
    assert_eq!(relay.outputs(), [Output::Watch { to: mesh }]);
    let first = relay.0.poll_watcher(mesh).unwrap();
    // Those who come or go where it has been are queued, the others it will come to.
    let mut seen = Vec::from([first]);
    let late = relay.connect(3);
    seen.extend(relay.watched(mesh));
    for expected in [
        present(2, PresentFlags::REGULAR),
        present(3, PresentFlags::REGULAR),
        present(4, PresentFlags::MESH_PEER),
    ] {
        let times = seen.iter().filter(|frame| **frame == expected).count();
        assert_eq!(times, 1, "{expected:?}");
    }
    assert_eq!(seen.len(), 3);
    // Every connection is told of, but only the last one's end.
    relay.outputs();
    let twin = relay.connect(3);
    assert_eq!(relay.outputs(), [Output::Watch { to: mesh }]);
    relay.0.disconnect(late);
    relay.0.disconnect(twin);
    let (peer, reason) = (key(3), GoneReason::DISCONNECTED);
    assert_eq!(
        relay.watched(mesh),
        [
            present(3, PresentFlags::REGULAR),
            Frame::PeerGone { peer, reason }
        ]
    );
    relay.0.disconnect(a);
    relay.0.disconnect(mesh);
    assert_eq!(relay.watched(mesh), []);
}

#[test]
fn a_watcher_that_reads_too_slowly_is_closed() {
    let mut relay = Relay::new();
    let mesh = relay.connect_mesh(4);
    relay.write(mesh, Frame::WatchConns).unwrap();
    relay.watched(mesh);
    relay.outputs();
    for seed in 20..23 {
        relay.connect(seed);
    }
    let expected = Output::Close {
        connection: mesh,
        reason: CloseReason::TooSlow,
    };
    assert_eq!(relay.outputs().last(), Some(&expected));
    let other = relay.connect_mesh(5);
    assert_eq!(relay.write(other, Frame::WatchConns), Ok(Wrote::Nothing));
    assert_eq!(
        relay.write(mesh, Frame::WatchConns),
        Err(CloseReason::TooManyWatchers)
    );
}

#[test]
fn a_full_relay_says_so_until_somebody_leaves() {
    let mut relay = Relay::new();
    let all: Vec<_> = (20..32).map(|seed| relay.connect(seed)).collect();
    let late = arrival(40, None);
    let refused = relay.0.connect(&late, Origin::default(), at(1));
    assert_eq!(refused, Err(Full));
    assert!(!relay.0.is_connected(&late.key));
    relay.0.disconnect(all[3]);
    assert!(relay.0.connect(&late, Origin::default(), at(1)).is_ok());
}

#[test]
fn who_is_removed_is_closed_and_its_frames_reach_nobody() {
    let mut relay = Relay::new();
    let (a, b) = (relay.connect(2), relay.connect(3));
    // A mesh peer was never asked about.
    relay.connect_mesh(4);
    let mut admitted: Vec<_> = relay.0.admitted().copied().collect();
    admitted.sort_by_key(|found| *found == key(3));
    assert_eq!(admitted, [key(2), key(3)]);
    relay.0.remove(&key(2));
    let expected = Output::Close {
        connection: a,
        reason: CloseReason::Removed,
    };
    assert_eq!(relay.outputs(), [expected]);
    relay.0.disconnect(a);
    assert_eq!(relay.send(a, 3), Wrote::Dropped(DropReason::Gone));
    assert_eq!(
        relay.send(b, 2),
        Wrote::Dropped(DropReason::UnknownDestination)
    );
}

#[test]
fn a_client_is_paced_and_a_mesh_peer_is_not() {
    let limits = ServerLimits {
        rate: Rate {
            per_s: 65_568,
            burst: 1,
        },
        ..LIMITS
    };
    let mut relay = Relay(Server::new(identity().public(), limits, [0; 32]));
    let (a, mesh) = (relay.connect(2), relay.connect_mesh(4));
    for (id, second) in [(a, at(11)), (mesh, at(10))] {
        assert_eq!(relay.0.pace(id, 65_568, at(10)), at(10));
        assert_eq!(relay.0.pace(id, 65_568, at(10)), second);
    }
}
