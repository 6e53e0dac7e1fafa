//! Machines whose bytes are the scenario: what happens to them, in which order, and what is
//! wrong with it.

use altnet_core::clock::Clock;
use altnet_core::control::{Control, ControlEvent, ControlLimits, ControlSecret, SessionId};
use altnet_core::limits::Limits;
use altnet_core::registry::Registry;
use altnet_tunnel::aead::ChaChaPoly;
use altnet_tunnel::engine::{
    Engine, EngineLimits, LocalKeyId, Opened, Output, PeerConfig, PeerIndex, Sealed, TunnelEvent,
};
use altnet_tunnel::key::TunnelSecret;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::envelope::{Envelope, MAX_RECORD_BYTES};
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;
use crate::fixtures::{self, signed_bytes};

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;

/// Applies records to a registry: valid ones, damaged ones, and damaged ones signed anew by
/// one of the network's own keys.
pub fn registry(data: &[u8]) {
    let network = fixtures::network();
    let limits = Limits {
        members: 3,
        hosts: 3,
        revocations: 4,
        unknown_records: 2,
        ..Limits::MICRO
    };
    let mut registry = Registry::new(&network.records[0], limits).expect("a valid genesis");
    let mut clock = Clock::new(fixtures::FOUNDED);
    let mut bytes = Bytes(data);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        let how = bytes.octet();
        let Some(record) = bytes.choose(&network.records) else {
            break;
        };
        let record = match how % 4 {
            0 => bytes.run().to_vec(),
            1 => record.clone(),
            2 => bytes.changed(record),
            _ => resigned(&mut bytes, record),
        };
        let before = registry.revision();
        if registry.apply(&record, &mut clock).is_err() {
            assert_eq!(registry.revision(), before, "a refusal changes nothing");
        }
        assert!(registry.members().count() <= 3 && registry.hosts().count() <= 3);
    }
    // What is held makes the same registry again, in any order.
    let held: Vec<Vec<u8>> = registry.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let mut again = Registry::new(&network.records[0], Limits::ROUTER).expect("a valid genesis");
    let mut clock = Clock::new(fixtures::FOUNDED);
    again.apply_all(held.iter().rev().map(Vec::as_slice), &mut clock);
    for (slot, bytes) in again.iter() {
        assert_eq!(registry.bytes(&slot), Some(bytes));
    }
    while registry.next_unsaved().is_some() {}
    let _ = (
        registry.summary(),
        registry.heads().count(),
        registry.relays().count(),
    );
}

fn resigned(bytes: &mut Bytes<'_>, record: &[u8]) -> Vec<u8> {
    let network = fixtures::network();
    let (Ok(envelope), Some(key)) = (Envelope::parse(record), bytes.choose(&network.keys)) else {
        return Vec::new();
    };
    let serial = u64::from(bytes.octet());
    let body = bytes.changed(envelope.body());
    let body = body.get(..body.len().min(MAX_RECORD_BYTES)).unwrap_or(&[]);
    signed_bytes(key, network.id, envelope.header().kind, body, serial)
}

fn place(n: u8) -> Endpoint {
    if n & 4 == 0 {
        Endpoint::Direct(([192, 0, 2, n & 3], 51820).into())
    } else {
        let (relay, node) = (NodeId([9; 16]), NodeId([n; 16]));
        Endpoint::Relayed { relay, node }
    }
}

/// Two ends of control sessions, and a wire between them that the bytes rule.
pub fn control(data: &[u8]) {
    control_story(data);
}

/// Returns how many sessions came to stand and how many messages arrived.
fn control_story(data: &[u8]) -> (usize, usize) {
    let mut heard = 0;
    let limits = ControlLimits {
        sessions: 3,
        strangers: 2,
        half_open: 4,
        ..ControlLimits::MICRO
    };
    let secrets = [1, 2].map(|n| ControlSecret::from_bytes(&[n; 32]));
    let keys = secrets.each_ref().map(ControlSecret::public);
    let mut seed = 0;
    let mut ends = secrets.map(|secret| {
        seed += 1;
        let mut end = Control::new(limits, secret, [seed; 32]);
        end.welcome_strangers(true);
        end
    });
    let mut sessions: [Vec<SessionId>; 2] = [Vec::new(), Vec::new()];
    let mut wire: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut bytes = Bytes(data);
    let mut now = Instant::from_micros(1);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        let (what, which) = (bytes.octet(), usize::from(bytes.octet() & 1));
        match what % 10 {
            0 => {
                let remote = (what & 0x80 == 0).then_some(keys[1 - which]);
                let _ = ends[which].connect(remote, place(1 - which as u8), now);
            }
            1..=3 => {
                // The oldest on the wire arrives as it was sent.
                if !wire.is_empty() {
                    let (from, datagram) = wire.remove(0);
                    let end = &mut ends[1 - from];
                    let _ = end.handle_datagram(place(from as u8), &datagram, &mut |_| true, now);
                }
            }
            4 => {
                if let Some((from, datagram)) = bytes.choose(&wire) {
                    let datagram = bytes.changed(datagram);
                    let from_place = place(bytes.octet());
                    let admits = what & 0x80 == 0;
                    let end = &mut ends[1 - from];
                    let _ = end.handle_datagram(from_place, &datagram, &mut |_| admits, now);
                }
            }
            5 => {
                let datagram = bytes.run().to_vec();
                let _ = ends[which].handle_datagram(place(what), &datagram, &mut |_| true, now);
            }
            6 => {
                if let Some(session) = bytes.choose(&sessions[which]).copied() {
                    let message = vec![7; usize::from(bytes.pair() & 0x3fff)];
                    let _ = ends[which].send(session, &message, now);
                }
            }
            7 => {
                now = now.after(Duration::from_millis(u64::from(bytes.pair())));
                ends.iter_mut().for_each(|end| end.handle_timeout(now));
            }
            8 => {
                if let Some(session) = bytes.choose(&sessions[which]).copied() {
                    ends[which].challenge(session, place(bytes.octet()), now);
                    let _ = ends[which].rtt(session);
                }
            }
            _ => {
                if let Some(session) = bytes.choose(&sessions[which]).copied() {
                    ends[which].close(session, altnet_core::control::CloseReason::Done, now);
                }
            }
        }
        for at in 0..2 {
            heard += drain_control(&mut ends[at], &mut sessions[at], at, &mut wire, now);
        }
    }
    (sessions.iter().map(Vec::len).sum(), heard)
}

fn drain_control(
    end: &mut Control,
    sessions: &mut Vec<SessionId>,
    at: usize,
    wire: &mut Vec<(usize, Vec<u8>)>,
    now: Instant,
) -> usize {
    let mut heard = 0;
    while let Some(event) = end.poll_event() {
        match event {
            ControlEvent::Established { session, .. } => sessions.push(session),
            ControlEvent::Message { .. } => heard += 1,
            _ => {}
        }
    }
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    for _ in 0..1000 {
        if end.poll_transmit(&mut frame, now).is_none() {
            let _ = end.deadline();
            return heard;
        }
        if wire.len() < 256 {
            wire.push((at, frame.packet().to_vec()));
        }
    }
    panic!("control sends without end");
}

struct Tunneler {
    engine: Engine<ChaChaPoly>,
    local: LocalKeyId,
    peer: PeerIndex,
}

/// Two WireGuard engines with prepared peers, and a wire between them that the bytes rule.
pub fn engine(data: &[u8]) {
    engine_story(data);
}

/// Returns how many packets came through.
fn engine_story(data: &[u8]) -> usize {
    let mut came = 0;
    let secret = |n: u8| TunnelSecret::new([n; 32]);
    let mut now = Instant::from_micros(1);
    let mut ends = [1u8, 2].map(|n| {
        let mut engine = Engine::new(EngineLimits::MICRO, [n; 32]);
        let local = engine
            .add_local_key(secret(n), Tai64n::ZERO)
            .expect("room for one");
        let config = PeerConfig {
            endpoint: Some(place(2 - n)),
            roams: n == 1,
            ..PeerConfig::new(secret(3 - n).public(), local)
        };
        let peer = engine.add_peer(config, now).expect("room for one");
        Tunneler {
            engine,
            local,
            peer,
        }
    });
    let mut wire: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut bytes = Bytes(data);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        let (what, which) = (bytes.octet(), usize::from(bytes.octet() & 1));
        match what % 8 {
            0 | 1 => {
                if !wire.is_empty() {
                    let (from, datagram) = wire.remove(0);
                    came += open(&mut ends[1 - from], place(from as u8), &datagram, now);
                }
            }
            2 => {
                if let Some((from, datagram)) = bytes.choose(&wire) {
                    let (from, datagram) = (*from, bytes.changed(datagram));
                    let place = place(bytes.octet());
                    came += open(&mut ends[1 - from], place, &datagram, now);
                }
            }
            3 => {
                let datagram = bytes.run().to_vec();
                came += open(&mut ends[which], place(what), &datagram, now);
            }
            4 | 5 => {
                let mut buffer = [0; FRAME_BYTES];
                let mut frame = Frame::new(&mut buffer);
                let packet = fixture_packet(usize::from(bytes.pair() % 1400));
                let end = &mut ends[which];
                if frame.set(&packet).is_ok()
                    && let Ok(Sealed::Transmit { .. }) = end.engine.seal(end.peer, &mut frame, now)
                {
                    wire.push((which, frame.packet().to_vec()));
                }
            }
            6 => {
                now = now.after(Duration::from_millis(u64::from(bytes.pair())));
                ends.iter_mut()
                    .for_each(|end| end.engine.handle_timeout(now));
            }
            _ => {
                let end = &mut ends[which];
                let _ = match what >> 3 & 3 {
                    0 => end.engine.rekey(end.peer, now),
                    1 => end.engine.set_endpoint(end.peer, None, now),
                    2 => end
                        .engine
                        .set_endpoint(end.peer, Some(place(1 - which as u8)), now),
                    _ => end.engine.set_peer_local_key(end.peer, end.local),
                };
            }
        }
        for (at, end) in ends.iter_mut().enumerate() {
            drain_engine(end, at, &mut wire, now);
        }
    }
    came
}

fn fixture_packet(payload: usize) -> Vec<u8> {
    let at = core::net::Ipv6Addr::LOCALHOST;
    altnet_sim::packet::udp((at, 1), (at, 2), &vec![7; payload.min(1300)])
}

fn open(end: &mut Tunneler, from: Endpoint, datagram: &[u8], now: Instant) -> usize {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    if frame.set(datagram).is_err() {
        return 0;
    }
    match end.engine.handle_datagram(from, &mut frame, now) {
        Ok(Opened::Packet { peer, .. }) => {
            assert_eq!(peer, end.peer);
            let packet = frame.packet();
            let sealed = fixture_packet(packet.len().saturating_sub(48));
            assert_eq!(packet, sealed, "as it was sealed");
            1
        }
        _ => 0,
    }
}

fn drain_engine(end: &mut Tunneler, at: usize, wire: &mut Vec<(usize, Vec<u8>)>, now: Instant) {
    let mut buffer = [0; FRAME_BYTES];
    let mut frame = Frame::new(&mut buffer);
    for _ in 0..1000 {
        match end.engine.poll_output(&mut frame, now) {
            Output::Transmit { .. } => {
                if wire.len() < 256 {
                    wire.push((at, frame.packet().to_vec()));
                }
            }
            Output::Event(TunnelEvent::SaveStamps { local, until }) => {
                end.engine.stamps_saved(local, until);
            }
            Output::Event(_) => {}
            Output::Wait(_) => return,
        }
    }
    panic!("an engine never waits");
}

/// Scenarios that go well, to begin from.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "registry" => {
            let count = fixtures::network().records.len() as u8;
            let in_order: Vec<u8> = (0..count).flat_map(|n| [1, 0, n]).collect();
            let backwards: Vec<u8> = (0..count).rev().flat_map(|n| [1, 0, n]).collect();
            // Each body again, signed by each key, one octet changed.
            let anew = (0..count).flat_map(|n| [3, 0, n, 0, n % 5, 2, 1, 0, n, 1]);
            vec![
                in_order.clone(),
                backwards,
                in_order.into_iter().chain(anew).collect(),
            ]
        }
        "control" => {
            let deliver = [1, 0].repeat(8);
            let call = |first: u8| [&[first, 0][..], &deliver].concat();
            let send = [6, 0, 0, 0, 0x08, 0x00, 6, 1, 0, 0, 0x02, 0x00].to_vec();
            let wait = [7, 0, 0x03, 0xe8].to_vec();
            let story = |first| [call(first), send.clone(), deliver.clone(), wait.clone()].concat();
            let damaged = [4, 0, 0, 0, 1, 0, 9, 0x55, 1].to_vec();
            vec![
                story(0),
                story(0x80),
                [call(0), damaged, deliver.clone()].concat(),
            ]
        }
        "engine" => {
            let deliver = [0, 0].repeat(6);
            let start = [&[4, 0, 0, 100][..], &deliver].concat();
            let traffic = [4, 0, 2, 0, 4, 1, 1, 0, 0, 0, 0, 0].to_vec();
            let minutes = [6, 0, 0xea, 0x60].repeat(2);
            let damaged = [4, 0, 0, 9, 2, 0, 0, 0, 1, 0, 20, 0x55, 1].to_vec();
            vec![
                [start.clone(), traffic.clone(), deliver.clone()].concat(),
                [start.clone(), minutes, traffic, deliver.clone()].concat(),
                [start, damaged, deliver].concat(),
            ]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_of_control_get_as_far_as_messages() {
        let stories: Vec<_> = seeds("control").iter().map(|s| control_story(s)).collect();
        assert!(
            stories.iter().all(|(sessions, _)| *sessions >= 1),
            "{stories:?}"
        );
        assert!(stories.iter().any(|(_, heard)| *heard >= 2), "{stories:?}");
    }

    #[test]
    fn the_seeds_of_engine_get_as_far_as_packets() {
        for seed in seeds("engine") {
            assert!(engine_story(&seed) >= 1);
        }
    }
}
