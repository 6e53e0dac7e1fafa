//! Two engines and a pretend wire, in virtual time: what the paper's section 6 promises.

mod common;

use altnet_tunnel::engine::{
    ConfigError, DropReason, EngineLimits, Opened, PeerConfig, SealRefused, TunnelEvent,
};
use altnet_tunnel::key::PresharedKey;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant, UnixTime};
use common::{Chance, Given, Node, World, address, at, ms, number, packet, public, secret};

const A: usize = 0;
const B: usize = 1;

#[test]
fn a_packet_waits_for_the_handshake_and_arrives() {
    let (mut world, a, b) = World::pair();
    assert_eq!(world.give(A, a, &packet(1, 100)), Given::Queued);
    assert_eq!(world.give(A, a, &packet(2, 1400)), Given::Queued);
    world.run_for(ms(100));
    assert_eq!(world.nodes[B].numbers(), [1, 2]);
    assert_eq!(
        world.nodes[B].delivered[0].1,
        packet(1, 100),
        "padding is cut off"
    );
    assert_eq!(
        world.give(B, b, &packet(3, 60)),
        Given::Sent,
        "B learnt where A is"
    );
    world.run_for(ms(100));
    assert_eq!(world.nodes[A].numbers(), [3]);
    assert_eq!(world.nodes[A].count(TunnelEvent::SessionUp { peer: a }), 1);
    assert_eq!(world.nodes[B].count(TunnelEvent::SessionUp { peer: b }), 1);
    let stats = world.nodes[A].engine.stats(a, world.now).unwrap();
    assert!(stats.is_up && !stats.is_shaking);
    assert_eq!(stats.endpoint, Some(address(2)));
    assert_eq!(stats.rx_packets, 2);
    assert_eq!(stats.tx_packets, 3);
    assert_eq!(stats.tx_bytes, 148 + (112 + 32) + (1408 + 32));
}

#[test]
fn without_queued_packets_a_keepalive_confirms_the_session() {
    let (mut world, a, b) = World::pair();
    world.nodes[A].engine.rekey(a, at(0)).unwrap();
    world.nodes[A].drain(at(0));
    world.run_for(ms(100));
    assert_eq!(world.nodes[B].keepalives, 1);
    assert!(world.nodes[B].engine.stats(b, world.now).unwrap().is_up);
}

#[test]
fn sessions_are_renewed_after_120_seconds_without_losing_a_packet() {
    let (mut world, a, b) = World::pair();
    let mut numbers = 0..;
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    for step in 0..8000u64 {
        let n = numbers.next().unwrap();
        if world.give(A, a, &packet(n, 80)) != Given::Refused(SealRefused::QueueFull) {
            from_a.push(n);
        }
        if step > 10 {
            assert_eq!(world.give(B, b, &packet(n, 80)), Given::Sent);
            from_b.push(n);
        }
        world.run_for(ms(100));
    }
    world.run_for(ms(100));
    assert_eq!(world.nodes[B].numbers(), from_a);
    assert_eq!(world.nodes[A].numbers(), from_b);
    let rekeys = world.nodes[A].count(TunnelEvent::Rekeyed { peer: a });
    assert_eq!(rekeys, 6, "800 seconds, a rekey every 120");
    assert_eq!(world.initiations(A), 7);
    assert_eq!(
        world.initiations(B),
        0,
        "the responder leaves it to the initiator"
    );
    assert_eq!(world.nodes[A].drops, []);
}

#[test]
fn an_initiator_that_hears_something_at_165_seconds_asks_at_once() {
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(0, 80));
    for (second, expected) in [(164, 1), (166, 2)] {
        world.run(at(second));
        assert_eq!(world.give(B, b, &packet(1, 80)), Given::Sent);
        world.run_for(ms(100));
        assert_eq!(world.initiations(A), expected, "{second}");
    }
    assert_eq!(world.initiations(B), 0);
}

#[test]
fn an_initiator_that_only_answers_with_keepalives_asks_soon_after_120_seconds() {
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(0, 80));
    world.run(at(1));
    for second in 1..=175u64 {
        assert_eq!(world.give(B, b, &packet(second as u32, 80)), Given::Sent);
        world.run(at(second + 1));
        match second {
            0..120 => assert_eq!(world.initiations(A), 1),
            120..132 => {}
            _ => assert_eq!(world.initiations(A), 2),
        }
    }
    assert_eq!(world.nodes[A].delivered.len(), 175);
}

#[test]
fn an_idle_session_dies_at_180_seconds_and_the_next_packet_makes_a_new_one() {
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(179));
    assert!(world.nodes[A].engine.stats(a, world.now).unwrap().is_up);
    assert_eq!(world.nodes[A].engine.receivers(a).count(), 1);
    world.run(at(181));
    assert!(!world.nodes[A].engine.stats(a, world.now).unwrap().is_up);
    assert_eq!(
        world.nodes[A].engine.receivers(a).count(),
        0,
        "keys are gone"
    );
    assert_eq!(
        world.nodes[A].count(TunnelEvent::SessionDown { peer: a }),
        1
    );
    assert_eq!(
        world.nodes[B].count(TunnelEvent::SessionDown { peer: b }),
        1
    );
    assert_eq!(world.give(A, a, &packet(2, 80)), Given::Queued);
    world.run_for(ms(100));
    assert_eq!(world.nodes[B].numbers(), [1, 2]);
}

#[test]
fn a_packet_of_a_dead_session_is_dropped() {
    let (mut world, a, _) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(170));
    world.nodes[A].sent();
    assert_eq!(world.nodes[A].give(a, &packet(2, 80), at(170)), Given::Sent);
    let late = world.nodes[A].sent();
    let data = late.iter().find(|bytes| bytes[0] == 4).unwrap();
    let heard = world.nodes[B].hear(address(1), data, at(181));
    assert_eq!(heard, Err(DropReason::Expired));
    let heard = world.nodes[B].hear(address(1), data, at(181));
    assert_eq!(heard, Err(DropReason::Expired));
}

#[test]
fn who_received_and_has_nothing_to_say_sends_a_keepalive_after_10_seconds() {
    let (mut world, a, _) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(9));
    assert_eq!(world.nodes[A].keepalives, 0);
    world.run(at(11));
    assert_eq!(world.nodes[A].keepalives, 1);
    world.run(at(100));
    assert_eq!(world.nodes[A].keepalives, 1, "keepalives are not answered");
    assert_eq!(world.initiations(A), 1);
}

#[test]
fn silence_after_data_asks_for_a_new_session() {
    let (mut world, a, _) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(20));
    world.loss = 1000;
    assert_eq!(world.give(A, a, &packet(2, 80)), Given::Sent);
    world.run(at(34));
    assert_eq!(world.initiations(A), 1);
    world.run(at(36));
    assert_eq!(world.initiations(A), 2);
    world.run(at(400));
    let failed = TunnelEvent::HandshakeFailed { peer: a };
    assert_eq!(world.nodes[A].count(failed), 1);
    assert!(
        (17..=20).contains(&world.initiations(A)),
        "90 s, one each 5 s and a little"
    );
}

#[test]
fn initiations_are_repeated_with_jitter_and_given_up_after_90_seconds() {
    let (mut world, a, _) = World::pair();
    world.loss = 1000;
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    world.run(at(300));
    let times: Vec<Instant> = world.log.iter().map(|entry| entry.0).collect();
    assert!((17..=19).contains(&times.len()), "{}", times.len());
    let gaps: Vec<Duration> = times
        .windows(2)
        .map(|pair| pair[1].saturating_since(pair[0]))
        .collect();
    assert!(
        gaps.iter()
            .all(|gap| (5000..=5334).contains(&gap.as_millis()))
    );
    assert!(gaps.windows(2).any(|pair| pair[0] != pair[1]), "they vary");
    assert_eq!(
        world.nodes[A].deadline,
        Instant::NEVER,
        "and then it is quiet"
    );
    world.loss = 0;
    assert_eq!(world.give(A, a, &packet(2, 80)), Given::Queued);
    world.run_for(ms(100));
    assert_eq!(
        world.nodes[B].numbers(),
        [2],
        "what waited too long was dropped"
    );
}

#[test]
fn a_persistent_keepalive_keeps_talking_and_renews_the_session() {
    let (mut world, a, _) = World::pair();
    let every = Some(Duration::from_secs(25));
    let engine = &mut world.nodes[A].engine;
    engine.set_persistent_keepalive(a, every, at(0)).unwrap();
    world.nodes[A].drain(at(0));
    world.run(at(1000));
    let heard = world.nodes[B].keepalives;
    assert!((38..=50).contains(&heard), "{heard}");
    assert_eq!(
        world.nodes[A].count(TunnelEvent::SessionDown { peer: a }),
        0
    );
    let mut last = Instant::ZERO;
    for (when, ..) in world.log.iter().filter(|entry| entry.1 == address(1)) {
        assert!(when.saturating_since(last) <= Duration::from_secs(25));
        last = *when;
    }
}

#[test]
fn a_peer_that_moves_is_answered_where_it_is() {
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    world.nodes[A].address = address(77);
    assert_eq!(world.give(A, a, &packet(2, 80)), Given::Sent);
    world.run(at(2));
    let to = address(77);
    assert_eq!(world.nodes[B].count(TunnelEvent::Roamed { peer: b, to }), 1);
    assert_eq!(world.give(B, b, &packet(3, 80)), Given::Sent);
    world.run(at(3));
    assert_eq!(world.nodes[A].numbers(), [3]);
}

#[test]
fn a_forged_or_replayed_packet_moves_nobody() {
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    let _ = world.nodes[A].give(a, &packet(2, 80), at(1));
    let good = world.nodes[A].sent().remove(0);
    let mut forged = good.clone();
    forged[20] ^= 1;
    let node = &mut world.nodes[B];
    assert_eq!(
        node.hear(address(66), &forged, at(1)),
        Err(DropReason::BadSeal)
    );
    assert!(node.hear(address(1), &good, at(1)).is_ok());
    assert_eq!(
        node.hear(address(66), &good, at(1)),
        Err(DropReason::Replayed)
    );
    let stats = node.engine.stats(b, at(1)).unwrap();
    assert_eq!(stats.endpoint, Some(address(1)));
}

#[test]
fn an_endpoint_that_the_node_chose_stays_until_it_chooses_another() {
    let mut nodes = vec![
        Node::new(1, EngineLimits::MICRO),
        Node::new(2, EngineLimits::MICRO),
    ];
    let local = nodes[0]
        .engine
        .add_local_key(secret(1), Tai64n::ZERO)
        .unwrap();
    let mut config = PeerConfig::new(public(2), local);
    config.endpoint = Some(address(2));
    let a = nodes[0].engine.add_peer(config, at(0)).unwrap();
    let local = nodes[1]
        .engine
        .add_local_key(secret(2), Tai64n::ZERO)
        .unwrap();
    let mut config = PeerConfig::new(public(1), local);
    config.roams = false;
    let b = nodes[1].engine.add_peer(config, at(0)).unwrap();
    let mut world = World::with(nodes);
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    world.nodes[A].address = address(77);
    let _ = world.give(A, a, &packet(2, 80));
    world.run(at(2));
    assert_eq!(world.nodes[B].numbers(), [1, 2]);
    let engine = &mut world.nodes[B].engine;
    assert_eq!(engine.stats(b, at(2)).unwrap().endpoint, Some(address(1)));
    engine.set_endpoint(b, Some(address(77)), at(2)).unwrap();
    let _ = world.give(B, b, &packet(3, 80));
    world.run(at(3));
    assert_eq!(world.nodes[A].numbers(), [3]);
}

#[test]
fn both_may_begin_at_once() {
    for delay in [0, 5, 50] {
        let (mut world, a, b) = World::pair();
        world.delay = ms(delay);
        let engine = &mut world.nodes[B].engine;
        engine.set_endpoint(b, Some(address(1)), at(0)).unwrap();
        assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
        assert_eq!(world.give(B, b, &packet(2, 80)), Given::Queued);
        world.run(at(1));
        for n in 3..50 {
            assert_eq!(world.give(A, a, &packet(n, 80)), Given::Sent);
            assert_eq!(world.give(B, b, &packet(n, 80)), Given::Sent);
            world.run_for(ms(7));
        }
        world.run_for(ms(200));
        assert_eq!(world.nodes[B].delivered.len(), 48, "{delay}");
        assert_eq!(world.nodes[A].delivered.len(), 48, "{delay}");
    }
}

#[test]
fn each_packet_is_delivered_at_most_once_whatever_the_wire_does() {
    for seed in 0..6 {
        let (mut world, a, b) = World::pair();
        world.chance = Chance::new(seed);
        world.loss = 150;
        world.spread = ms(400);
        for n in 0..3000 {
            let _ = world.give(A, a, &packet(n, 80 + n as usize % 1200));
            if n > 20 {
                let _ = world.give(B, b, &packet(n, 60));
            }
            world.run_for(ms(100));
            // Everything that passed may pass again.
            let again = world.chance.below(world.log.len() as u64) as usize;
            let (_, from, bytes) = world.log[again].clone();
            let to = usize::from(from == address(1));
            let now = world.now;
            let _ = world.nodes[to].hear(from, &bytes, now);
            world.carry();
        }
        for node in &world.nodes {
            let mut numbers = node.numbers();
            let total = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), total, "seed {seed}");
            assert!(total > 2100, "seed {seed}: {total}");
            for (_, bytes) in &node.delivered {
                assert_eq!(bytes[20..24], number(bytes).to_be_bytes());
            }
        }
    }
}

#[test]
fn a_restart_never_repeats_a_stamp_even_without_a_calendar() {
    let mut floor = Tai64n::ZERO;
    let mut responder = Node::new(2, EngineLimits::MICRO);
    let local = responder
        .engine
        .add_local_key(secret(2), Tai64n::ZERO)
        .unwrap();
    let peer = PeerConfig::new(public(1), local);
    let _ = responder.engine.add_peer(peer, at(0)).unwrap();
    for boot in 0..20u64 {
        // The clock is right, unknown, or far behind.
        let calendar = [
            Some(UnixTime::from_secs(1_800_000_000)),
            None,
            Some(UnixTime::EPOCH),
        ];
        let mut node = Node::new(1, EngineLimits::MICRO);
        let now = at(10 * boot);
        node.engine.set_calendar(calendar[boot as usize % 3], now);
        let local = node.engine.add_local_key(secret(1), floor).unwrap();
        let mut config = PeerConfig::new(public(2), local);
        config.endpoint = Some(address(2));
        let peer = node.engine.add_peer(config, now).unwrap();
        for second in [0, 6] {
            let now = at(10 * boot + second);
            if second == 0 {
                node.engine.rekey(peer, now).unwrap();
            } else {
                node.engine.handle_timeout(now);
            }
            node.drain(now);
            let sent = node.sent();
            assert_eq!(sent.len(), 1);
            let heard = responder.hear(address(1), &sent[0], now);
            assert!(
                matches!(heard, Ok(Opened::Handshake { .. })),
                "{boot} {heard:?}"
            );
        }
        floor = node.flash[&local];
    }
}

#[test]
fn nothing_is_initiated_before_the_stamps_are_saved() {
    let (mut world, a, _) = World::pair();
    world.nodes[A].saves = false;
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    world.run(at(30));
    assert_eq!(world.initiations(A), 0);
    let asked = world.nodes[A].events.clone();
    assert!(asked.len() > 3, "asked again with every attempt");
    let TunnelEvent::SaveStamps { local, until } = asked[0] else {
        panic!("{asked:?}");
    };
    world.nodes[A].engine.stamps_saved(local, until);
    world.nodes[A].drain(at(30));
    world.run(at(31));
    assert_eq!(world.nodes[B].numbers(), [1]);
}

#[test]
fn a_recorded_initiation_is_refused() {
    let (mut world, a, _) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    let initiation = world.log[0].2.clone();
    let heard = world.nodes[B].hear(address(66), &initiation, at(2));
    assert_eq!(heard, Err(DropReason::StaleInitiation));
    assert_eq!(world.nodes[B].sent().len(), 0);
}

#[test]
fn a_stranger_is_named_and_can_be_let_in() {
    let mut host = Node::new(2, EngineLimits::MICRO);
    let local = host.engine.add_local_key(secret(2), Tai64n::ZERO).unwrap();
    let (mut world, a, _) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    let initiation = world.log[0].2.clone();
    let heard = host.hear(address(1), &initiation, at(0));
    let stranger = Opened::Stranger {
        public: public(1),
        local,
    };
    assert_eq!(heard, Ok(stranger));
    assert_eq!(
        host.sent().len(),
        0,
        "nobody is answered before they are let in"
    );
    let mut config = PeerConfig::new(public(1), local);
    config.preshared = PresharedKey::new(common::PSK);
    host.engine.add_peer(config, at(0)).unwrap();
    let heard = host.hear(address(1), &initiation, at(0));
    assert!(matches!(heard, Ok(Opened::Handshake { .. })));
    world.nodes[B] = host;
    world.carry();
    world.run(at(1));
    assert_eq!(world.nodes[B].numbers(), [1]);
}

#[test]
fn each_local_key_is_a_door_of_its_own_and_the_former_one_stays_open() {
    let (mut world, a, b) = World::pair();
    let host = &mut world.nodes[B].engine;
    let old = host.find_peer(&public(1), local_of(host, 2)).unwrap();
    assert_eq!(old, b);
    let old_key = local_of(host, 2);
    let new_key = host.add_local_key(secret(3), Tai64n::ZERO).unwrap();
    host.set_peer_local_key(b, new_key).unwrap();
    assert_eq!(host.remove_local_key(new_key), Err(ConfigError::InUse));
    // A still knows B by its old key; B accepts it, and shows the new one when it begins.
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    assert_eq!(world.nodes[B].numbers(), [1]);
    let guest = &mut world.nodes[A].engine;
    let mut config = PeerConfig::new(public(3), local_of(guest, 1));
    config.preshared = PresharedKey::new(common::PSK);
    let second = guest.add_peer(config, at(1)).unwrap();
    world.nodes[B].engine.rekey(b, at(1)).unwrap();
    world.nodes[B].drain(at(1));
    world.run(at(2));
    let _ = world.give(A, second, &packet(2, 80));
    world.run(at(3));
    assert_eq!(world.nodes[B].numbers(), [1, 2]);
    assert!(world.nodes[B].delivered.iter().all(|(peer, _)| *peer == b));
    // Once the old key is gone, its door is shut.
    world.nodes[B].engine.remove_local_key(old_key).unwrap();
    world.nodes[A].engine.rekey(a, at(20)).unwrap();
    world.nodes[A].drain(at(20));
    let initiation = world.nodes[A].sent().remove(0);
    let heard = world.nodes[B].hear(address(1), &initiation, at(20));
    assert_eq!(heard, Err(DropReason::BadMac1));
}

fn local_of(
    engine: &altnet_tunnel::engine::Engine<altnet_tunnel::aead::ChaChaPoly>,
    byte: u8,
) -> altnet_tunnel::engine::LocalKeyId {
    let mut probe = Node::new(9, EngineLimits::MICRO);
    let first = probe.engine.add_local_key(secret(9), Tai64n::ZERO).unwrap();
    assert_eq!(engine.local_key(first), Some(public(byte)));
    first
}

#[test]
fn a_key_of_low_order_is_no_peer() {
    let (mut world, ..) = World::pair();
    let engine = &mut world.nodes[A].engine;
    let local = local_of(engine, 1);
    let weak = PeerConfig::new(TunnelKey([0; 32]), local);
    assert_eq!(engine.add_peer(weak, at(0)), Err(ConfigError::WeakKey));
    let twice = PeerConfig::new(public(2), local);
    assert_eq!(engine.add_peer(twice, at(0)), Err(ConfigError::Duplicate));
}

#[test]
fn another_preshared_key_makes_no_session() {
    let (mut world, _, b) = World::pair();
    let guest = &mut world.nodes[A].engine;
    let local = local_of(guest, 1);
    let first = guest.find_peer(&public(2), local).unwrap();
    guest.remove_peer(first).unwrap();
    let mut config = PeerConfig::new(public(2), local);
    config.preshared = PresharedKey::new([1; 32]);
    config.endpoint = Some(address(2));
    let a = guest.add_peer(config, at(0)).unwrap();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(60));
    assert!(world.nodes[A].drops.contains(&DropReason::BadHandshake));
    assert!(!world.nodes[B].engine.stats(b, world.now).unwrap().is_up);
    assert_eq!(world.nodes[B].delivered.len(), 0);
}

#[test]
fn under_load_a_cookie_comes_first_and_then_the_handshake_succeeds() {
    let limits = EngineLimits {
        handshakes_per_s: 1,
        handshake_burst: 1,
        ..EngineLimits::MICRO
    };
    let (mut world, a, _) = World::pair_with(limits);
    // Somebody else's handshakes use up what B computes for everybody.
    let mut flood = Node::new(9, EngineLimits::MICRO);
    let local = flood.engine.add_local_key(secret(9), Tai64n::ZERO).unwrap();
    let mut config = PeerConfig::new(public(2), local);
    config.endpoint = Some(address(2));
    let target = flood.engine.add_peer(config, at(0)).unwrap();
    flood.engine.rekey(target, at(0)).unwrap();
    flood.drain(at(0));
    let initiation = flood.sent().remove(0);

    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    for step in 0..700u64 {
        let now = world.now;
        let heard = world.nodes[B].hear(address(200), &initiation, now);
        if let Err(DropReason::UnderLoad) = heard {
            let replies = world.nodes[B].sent_to();
            assert_eq!(replies.len(), 1);
            assert_eq!(replies[0].0, address(200));
            assert!(replies[0].1.len() < initiation.len());
        }
        world.run(Instant::ZERO.after(ms(10 * step)));
    }
    let cookies = world
        .log
        .iter()
        .filter(|(_, _, bytes)| bytes[0] == 3)
        .count();
    assert!(cookies >= 1, "A was asked for a cookie");
    assert_eq!(world.initiations(A), 2, "and came back with it");
    assert_eq!(world.nodes[B].numbers(), [1]);
}

#[test]
fn an_initiator_under_load_asks_the_responder_for_a_cookie_too() {
    let limits = EngineLimits {
        handshakes_per_s: 1,
        handshake_burst: 1,
        ..EngineLimits::MICRO
    };
    let (mut world, a, _) = World::pair_with(limits);
    let mut flood = Node::new(9, EngineLimits::MICRO);
    let local = flood.engine.add_local_key(secret(9), Tai64n::ZERO).unwrap();
    let mut config = PeerConfig::new(public(1), local);
    config.endpoint = Some(address(1));
    let target = flood.engine.add_peer(config, at(0)).unwrap();
    flood.engine.rekey(target, at(0)).unwrap();
    flood.drain(at(0));
    let initiation = flood.sent().remove(0);
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    for step in 0..700u64 {
        let now = world.now;
        let _ = world.nodes[A].hear(address(200), &initiation, now);
        world.nodes[A].sent();
        world.run(Instant::ZERO.after(ms(10 * step)));
    }
    assert_eq!(world.nodes[B].numbers(), [1]);
    assert_eq!(world.initiations(A), 2);
    let cookies = world
        .log
        .iter()
        .filter(|(_, from, bytes)| *from == address(1) && bytes[0] == 3);
    assert_eq!(cookies.count(), 1);
}

#[test]
fn a_source_with_a_cookie_is_still_counted() {
    let limits = EngineLimits {
        handshakes_per_s: 1,
        handshake_burst: 1,
        ..EngineLimits::MICRO
    };
    let mut host = Node::new(2, limits);
    let _ = host.engine.add_local_key(secret(2), Tai64n::ZERO).unwrap();
    let mut guest = Node::new(1, EngineLimits::MICRO);
    let local = guest.engine.add_local_key(secret(1), Tai64n::ZERO).unwrap();
    let mut config = PeerConfig::new(public(2), local);
    config.endpoint = Some(address(2));
    let peer = guest.engine.add_peer(config, at(0)).unwrap();
    guest.engine.rekey(peer, at(0)).unwrap();
    guest.drain(at(0));
    let first = guest.sent().remove(0);
    assert!(host.hear(address(1), &first, at(0)).is_ok());
    assert_eq!(
        host.hear(address(1), &first, at(0)),
        Err(DropReason::UnderLoad)
    );
    let cookie = host.sent().remove(0);
    assert_eq!(guest.hear(address(2), &cookie, at(0)), Ok(Opened::Nothing));
    assert_eq!(
        guest.hear(address(2), &cookie, at(0)),
        Err(DropReason::BadCookie)
    );
    guest.engine.handle_timeout(at(6));
    guest.drain(at(6));
    let with_cookie = guest.sent().remove(0);
    let heard: Vec<_> = (0..10)
        .map(|_| host.hear(address(1), &with_cookie, at(6)))
        .collect();
    // One by the common rate, five by the source's burst, then none.
    let let_in = heard.iter().filter(|h| h.is_ok()).count();
    assert_eq!(let_in, 6, "{heard:?}");
    assert_eq!(heard[9], Err(DropReason::TooOften));
    let moved = host.hear(address(66), &with_cookie, at(6));
    assert_eq!(
        moved,
        Err(DropReason::UnderLoad),
        "a cookie is bound to its address"
    );
}

#[test]
fn relayed_endpoints_are_endpoints() {
    use altnet_wire::id::NodeId;
    let (mut world, a, b) = World::pair();
    let relayed = |node: u8| Endpoint::Relayed {
        relay: NodeId([9; 16]),
        node: NodeId([node; 16]),
    };
    world.nodes[A].address = relayed(1);
    world.nodes[B].address = relayed(2);
    let engine = &mut world.nodes[A].engine;
    engine.set_endpoint(a, Some(relayed(2)), at(0)).unwrap();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    let _ = world.give(B, b, &packet(2, 80));
    world.run(at(2));
    assert_eq!(world.nodes[A].numbers(), [2]);
}

#[test]
fn workers_seal_and_open_and_the_engine_decides_replay() {
    use altnet_wire::frame::{FRAME_BYTES, Frame};
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(0, 80));
    world.run(at(1));
    let (sender, to) = world.nodes[A].engine.sender(a).unwrap();
    assert_eq!(to, Some(address(2)));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let sender = sender.clone();
            std::thread::spawn(move || {
                let mut sealed = Vec::new();
                let mut buffer = [0; FRAME_BYTES];
                for batch in 0..10 {
                    let mut reserved = sender.reserve(25);
                    for n in 0..25 {
                        let mut frame = Frame::new(&mut buffer);
                        frame
                            .set(&packet(worker * 1000 + batch * 25 + n, 200))
                            .unwrap();
                        reserved.seal(&mut frame, at(1)).unwrap();
                        sealed.push(frame.packet().to_vec());
                    }
                }
                sealed
            })
        })
        .collect();
    let sealed: Vec<_> = workers
        .into_iter()
        .flat_map(|w| w.join().unwrap())
        .collect();
    let bytes = sealed.iter().map(|s| s.len() as u64).sum();
    world.nodes[A].engine.note_sealed(a, 1000, bytes, at(1));
    let stats = world.nodes[A].engine.stats(a, at(1)).unwrap();
    assert_eq!(stats.tx_packets, 1002);

    let receiver = world.nodes[B].engine.receivers(b).next().unwrap();
    let mut buffer = [0; FRAME_BYTES];
    let mut delivered = 0;
    for turn in 0..2 {
        for datagram in &sealed {
            let mut frame = Frame::new(&mut buffer);
            frame.set(datagram).unwrap();
            let opened = receiver.open(&mut frame, at(1)).unwrap();
            let engine = &mut world.nodes[B].engine;
            match engine.admit(opened, address(1), &mut frame, at(1)) {
                Ok(Opened::Packet { peer, .. }) if turn == 0 => {
                    assert_eq!(peer, b);
                    delivered += 1;
                }
                other => assert_eq!((turn, other), (1, Err(DropReason::Replayed))),
            }
        }
    }
    assert_eq!(delivered, 1000);
}

#[test]
fn a_removed_peer_is_gone_whole() {
    let (mut world, a, b) = World::pair();
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    world.nodes[B].engine.remove_peer(b).unwrap();
    let _ = world.give(A, a, &packet(2, 80));
    world.run(at(2));
    assert_eq!(world.nodes[B].numbers(), [1]);
    assert_eq!(world.nodes[B].drops, [DropReason::UnknownReceiver]);
    let refused = world.nodes[B].give(b, &packet(3, 80), at(2));
    assert_eq!(refused, Given::Refused(SealRefused::UnknownPeer));
}

#[test]
fn entropy_changes_what_is_sent() {
    let mut sent = Vec::new();
    for entropy in [[0; 32], [1; 32]] {
        let (mut world, a, _) = World::pair();
        world.nodes[A].engine.handle_entropy(&entropy);
        let _ = world.give(A, a, &packet(1, 80));
        sent.push(world.log[0].2.clone());
    }
    assert_ne!(sent[0][8..40], sent[1][8..40]);
}
