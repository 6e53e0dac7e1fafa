//! Two engines and a pretend wire, in virtual time: what the paper's section 6 promises.

mod common;

use altnet_tunnel::engine::{
    DropReason, EngineLimits, Opened, PeerConfig, SealRefused, TunnelEvent,
};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::time::{Duration, Instant};
use common::{Chance, Given, Node, World, address, at, ms, number, packet, public};

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
    let times = world.first_initiations(A);
    assert!((17..=19).contains(&times.len()), "{}", times.len());
    assert_eq!(world.initiations_sent(A), 3 * times.len());
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
    let local = nodes[0].own(1);
    let a = nodes[0].know(2, local);
    let local = nodes[1].own(2);
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

#[test]
fn an_endpoint_that_comes_and_goes_has_no_more_initiations_sent() {
    let (mut world, a, _) = World::pair();
    world.loss = 1000;
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    for _ in 0..49 {
        for to in [None, Some(address(2))] {
            let engine = &mut world.nodes[A].engine;
            engine.set_endpoint(a, to, world.now).unwrap();
            world.nodes[A].drain(world.now);
        }
        world.run_for(ms(100));
    }
    assert_eq!(world.initiations(A), 1, "one in 5 seconds");
    world.run_for(ms(200));
    assert_eq!(world.initiations(A), 2);
    // A handshake that had nowhere to go begins as soon as it has.
    let engine = &mut world.nodes[A].engine;
    engine.set_endpoint(a, None, world.now).unwrap();
    world.run_for(ms(20_000));
    assert_eq!(world.initiations(A), 2);
    let engine = &mut world.nodes[A].engine;
    engine.set_endpoint(a, Some(address(2)), world.now).unwrap();
    world.nodes[A].drain(world.now);
    world.carry();
    assert_eq!(world.initiations(A), 3);
}

#[test]
fn an_initiation_that_nobody_answers_goes_to_another_endpoint_at_once() {
    let (mut world, a, _) = World::pair();
    let engine = &mut world.nodes[A].engine;
    engine.set_endpoint(a, Some(address(9)), world.now).unwrap();
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    let engine = &mut world.nodes[A].engine;
    engine.set_endpoint(a, Some(address(2)), world.now).unwrap();
    world.nodes[A].drain(world.now);
    world.run_for(ms(1000));
    assert_eq!(world.nodes[B].numbers(), [1]);
    let sent: Vec<_> = world
        .log
        .iter()
        .filter(|(.., bytes)| bytes[0] == 1)
        .collect();
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].2, sent[1].2, "the same bytes");
}

#[test]
fn an_initiation_goes_along_a_few_ways_and_no_more() {
    let (mut world, a, _) = World::pair();
    world.loss = 1000;
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    for host in 3..100 {
        let engine = &mut world.nodes[A].engine;
        engine
            .set_endpoint(a, Some(address(host)), world.now)
            .unwrap();
        world.nodes[A].drain(world.now);
        world.run_for(ms(10));
    }
    assert_eq!((world.initiations(A), world.initiations_sent(A)), (1, 6));
}

#[test]
fn a_lost_initiation_is_sent_once_more_before_there_is_another() {
    for (repeats, after_ms) in [(1, 1050), (2, 3050)] {
        let (mut world, a, _) = World::pair();
        world.loss = 1000;
        assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
        world.run_for(ms(after_ms - 100));
        world.loss = 0;
        world.run_for(ms(100));
        assert_eq!(world.nodes[B].numbers(), [1], "{repeats}");
        assert_eq!(world.initiations(A), 1);
        assert_eq!(world.initiations_sent(A), 1 + repeats);
    }
}

#[test]
fn a_lost_response_is_sent_once_more_until_the_session_is_confirmed() {
    let (mut world, a, _) = World::pair();
    let initiation = world.nodes[A].ask(a, world.now).remove(0);
    let respond = |world: &mut World, from, after_ms| {
        let now = world.now.after(ms(after_ms));
        let heard = world.nodes[B].hear(from, &initiation, now);
        (heard, world.nodes[B].sent_to())
    };
    let (heard, first) = respond(&mut world, address(1), 0);
    assert!(matches!(heard, Ok(Opened::Handshake { .. })), "{heard:?}");
    let too_soon = respond(&mut world, address(1), 10);
    assert_eq!(too_soon, (Err(DropReason::TooOften), vec![]));
    let (heard, again) = respond(&mut world, address(1), 1000);
    assert_eq!((heard, &again), (Ok(Opened::Nothing), &first));
    // Whoever repeats it from elsewhere gets no more than they sent, and moves nobody.
    let (_, elsewhere) = respond(&mut world, address(9), 1100);
    assert_eq!(elsewhere, [(address(9), first[0].1.clone())]);
    let now = world.now.after(ms(1200));
    let heard = world.nodes[A].hear(address(2), &again[0].1, now);
    assert!(matches!(heard, Ok(Opened::Handshake { .. })), "{heard:?}");
    let confirming = world.nodes[A].sent().remove(0);
    let heard = world.nodes[B].hear(address(1), &confirming, now);
    assert!(matches!(heard, Ok(Opened::Keepalive { .. })), "{heard:?}");
    world.nodes[B].sent();
    let late = respond(&mut world, address(1), 2000);
    assert_eq!(late, (Err(DropReason::StaleInitiation), vec![]));
}

#[test]
fn a_repeated_initiation_keeps_no_new_one_out_and_is_answered_for_five_seconds() {
    let (mut world, a, _) = World::pair();
    let first = world.nodes[A].ask(a, at(10)).remove(0);
    let hear = |world: &mut World, bytes: &[u8], now| world.nodes[B].hear(address(1), bytes, now);
    assert!(hear(&mut world, &first, at(10)).is_ok());
    for n in 1..12 {
        let now = at(10).after(ms(500 * n));
        let heard = hear(&mut world, &first, now);
        let is_waited_for = now < at(15);
        assert_eq!(
            heard == Ok(Opened::Nothing),
            is_waited_for,
            "{n}: {heard:?}"
        );
    }
    world.nodes[A].engine.handle_timeout(at(16));
    world.nodes[A].drain(at(16));
    let second = world.nodes[A].sent().remove(0);
    assert_eq!(
        hear(&mut world, &first, at(16)),
        Err(DropReason::StaleInitiation)
    );
    let heard = hear(&mut world, &second, at(16));
    assert!(matches!(heard, Ok(Opened::Handshake { .. })), "{heard:?}");
}
