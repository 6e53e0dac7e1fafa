//! Static keys: ours and others', and the stamps that are saved with ours.

mod common;

use altnet_tunnel::engine::{
    ConfigError, DropReason, EngineLimits, Opened, PeerConfig, TunnelEvent,
};
use altnet_tunnel::key::PresharedKey;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::UnixTime;
use common::{Given, Node, World, address, at, packet, public, secret};

const A: usize = 0;
const B: usize = 1;

#[test]
fn a_restart_never_repeats_a_stamp_even_without_a_calendar() {
    let mut floor = Tai64n::ZERO;
    let mut responder = Node::new(2, EngineLimits::MICRO);
    let local = responder.own(2);
    responder.know(1, local);
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
        let peer = node.know(2, local);
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
    let local = host.own(2);
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
    let old_key = world.nodes[B].locals[0];
    let new_key = world.nodes[B].own(3);
    let host = &mut world.nodes[B].engine;
    assert_eq!(host.find_peer(&public(1), old_key), Some(b));
    host.set_peer_local_key(b, new_key).unwrap();
    assert_eq!(host.remove_local_key(new_key), Err(ConfigError::InUse));
    // A still knows B by its old key; B accepts it, and shows the new one when it begins.
    let _ = world.give(A, a, &packet(1, 80));
    world.run(at(1));
    assert_eq!(world.nodes[B].numbers(), [1]);
    let mut config = PeerConfig::new(public(3), world.nodes[A].locals[0]);
    config.preshared = PresharedKey::new(common::PSK);
    let guest = &mut world.nodes[A].engine;
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
    let initiation = world.nodes[A].ask(a, at(20)).remove(0);
    let heard = world.nodes[B].hear(address(1), &initiation, at(20));
    assert_eq!(heard, Err(DropReason::BadMac1));
}

#[test]
fn a_key_of_low_order_is_no_peer() {
    let (mut world, ..) = World::pair();
    let local = world.nodes[A].locals[0];
    let engine = &mut world.nodes[A].engine;
    let weak = PeerConfig::new(TunnelKey([0; 32]), local);
    assert_eq!(engine.add_peer(weak, at(0)), Err(ConfigError::WeakKey));
    let twice = PeerConfig::new(public(2), local);
    assert_eq!(engine.add_peer(twice, at(0)), Err(ConfigError::Duplicate));
}

#[test]
fn another_preshared_key_makes_no_session() {
    let (mut world, _, b) = World::pair();
    let local = world.nodes[A].locals[0];
    let guest = &mut world.nodes[A].engine;
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
fn a_late_confirmation_speaks_for_no_key_that_took_the_place() {
    let mut node = Node::new(1, EngineLimits::MICRO);
    node.saves = false;
    let first = node.own(1);
    let peer = node.know(2, first);
    assert_eq!(node.ask(peer, at(0)), [] as [Vec<u8>; 0]);
    let TunnelEvent::SaveStamps { local, until } = node.events[0] else {
        panic!("{:?}", node.events);
    };
    assert_eq!(local, first);
    // While that is being written, the key is replaced twice.
    let second = node.own(3);
    node.engine.set_peer_local_key(peer, second).unwrap();
    node.engine.remove_local_key(first).unwrap();
    let third = node.own(4);
    node.engine.set_peer_local_key(peer, third).unwrap();
    node.engine.handle_timeout(at(6));
    node.drain(at(6));
    // Now it is on disk: for the first key, which is no more.
    node.engine.stamps_saved(local, until);
    node.drain(at(6));
    assert_eq!(node.sent().len(), 0, "nothing is on disk for the third");
    assert_eq!(node.engine.local_key(first), None);
    let asked = node.events.iter().rev().find_map(|event| match event {
        TunnelEvent::SaveStamps { local, until } if *local == third => Some(*until),
        _ => None,
    });
    node.engine.stamps_saved(third, asked.unwrap());
    node.drain(at(6));
    assert_eq!(node.sent().len(), 1);
}
