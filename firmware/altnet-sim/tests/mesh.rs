//! Relays forward to each other: homes that share none reach each other, around what dies (ADR 0018).

use altnet_core::node::DropReason;
use altnet_sim::chaos::relay_v4;
use altnet_sim::homes::seconds;
use altnet_sim::meshes::Meshes;
use altnet_sim::world::PORT;
use altnet_wire::mesh::{FORWARD, FORWARD_ON, GONE, GONE_ON};
use altnet_wire::time::Duration;

/// The most that a question and its answer may take where everybody is registered.
const SOON_S: u64 = 2;

#[track_caller]
fn answered(meshes: &mut Meshes, within_s: u64) {
    let took = meshes.ask(20);
    assert!(
        took.is_some_and(|took| took <= seconds(within_s)),
        "{took:?}: {}",
        meshes.story()
    );
}

#[test]
fn homes_that_share_no_relay_reach_each_other() {
    let mut meshes = Meshes::new(13_001, 2, [&[0], &[1]]);
    answered(&mut meshes, SOON_S);
    let (there, back) = (meshes.link(0, 1), meshes.link(1, 0));
    assert!(there.is_up && there.sent > 0 && there.came > 0, "{there:?}");
    assert!(back.is_up && back.sent > 0 && back.came > 0, "{back:?}");
    // Only what is relayed between them: neither home is known to reach the other's relay.
    assert_eq!(there.clients, 1, "{there:?}");
    // Whoever asks is told which relays that are, once the homes have said so.
    meshes.world.run(seconds(5));
    let steps = meshes
        .world
        .node(meshes.homes[0])
        .why("wiki", meshes.world.now());
    let relays = steps.iter().find(|step| step.question == "relays");
    let answer = relays.map(|step| step.answer.as_str()).unwrap_or_default();
    assert_eq!(answer, "relay1 passes on to relay-1, which house-b uses");
}

#[test]
fn a_home_without_udp_reaches_one_at_another_relay() {
    let mut meshes = Meshes::new(13_081, 2, [&[0], &[1]]);
    meshes.world.serve_streams();
    let home = meshes.homes[1];
    meshes.world.block_udp(home, true);
    meshes.world.run(seconds(60));
    answered(&mut meshes, SOON_S);
    let clients = meshes.world.node(meshes.relays[1]).relay_clients();
    let carriers: Vec<_> = clients
        .iter()
        .map(|c| (c.name.as_str(), c.carrier.as_str()))
        .collect();
    assert!(carriers.contains(&("house-b", "tls")), "{carriers:?}");
}

#[test]
fn of_more_relays_than_a_mesh_may_have_those_with_the_least_ids_are_linked() {
    let meshes = Meshes::new(13_091, 18, [&[0], &[1]]);
    let mut ids: Vec<_> = (0..18).map(|n| (meshes.id(n), n)).collect();
    ids.sort_unstable();
    for (place, (_, n)) in ids.iter().enumerate() {
        let links = meshes.world.node(meshes.relays[usize::from(*n)]).mesh();
        let up = links.filter(|link| link.is_up).count();
        assert_eq!(up, if place < 16 { 15 } else { 0 }, "{place}");
    }
}

#[test]
fn all_relays_of_five_are_linked_with_all() {
    let mut meshes = Meshes::new(13_011, 5, [&[0], &[4]]);
    for a in 0..5 {
        for b in (0..5).filter(|b| *b != a) {
            let link = meshes.link(a, b);
            let is_up = link.is_up && link.rtt.is_some();
            assert!(is_up, "{a} to {b}: {link:?} {}", meshes.story());
        }
    }
}

/// Five relays; home A reaches the first alone, home B the last.
fn five(seed: u64) -> Meshes {
    let mut meshes = Meshes::new(seed, 5, [&[0], &[4]]);
    answered(&mut meshes, SOON_S);
    meshes
}

#[test]
fn a_frame_goes_around_a_link_that_dies() {
    let mut meshes = five(13_021);
    let flows = [(100, Duration::from_millis(20)); 2];
    let before = meshes.flows(seconds(2), seconds(0), flows);
    assert!(
        before.iter().all(|flow| flow.came == flow.sent),
        "{before:?}"
    );
    meshes.cut_link(0, 4, true);
    let around = meshes.flows(seconds(6), seconds(0), flows);
    // Fifty a second each way: nothing for 1.2 s at most.
    let lost = around.map(|flow| flow.sent - flow.came);
    assert!(lost.iter().all(|lost| *lost <= 60), "{around:?}");
    assert!(lost.iter().any(|lost| *lost > 0), "{around:?}");
    // From now on it costs no more than before.
    meshes.world.run(seconds(2));
    answered(&mut meshes, 1);
    assert!(between_sent(&meshes) > 0, "{}", meshes.story());
    // And back once it carries again.
    meshes.cut_link(0, 4, false);
    for _ in 0..100 {
        meshes.world.run(seconds(1));
        answered(&mut meshes, 1);
    }
    let (before, between) = (meshes.link(0, 4).sent, between_sent(&meshes));
    answered(&mut meshes, 1);
    assert!(meshes.link(0, 4).sent > before, "{}", meshes.story());
    assert_eq!(between_sent(&meshes), between);
}

/// How many frames relays between the first and the last sent on.
fn between_sent(meshes: &Meshes) -> u64 {
    (1..4).map(|n| meshes.link(n, 4).sent).sum()
}

#[test]
fn two_relays_between_which_nothing_passes_reach_each_other_by_a_third() {
    let mut meshes = Meshes::new(13_031, 3, [&[0], &[2]]);
    meshes.cut_link(0, 2, true);
    // Everything that two relays know of each other directly is over.
    meshes.world.run(seconds(400));
    assert!(!meshes.link(0, 2).is_up, "{}", meshes.story());
    answered(&mut meshes, SOON_S);
    assert!(meshes.link(1, 2).sent > 0 && meshes.link(1, 0).sent > 0);
}

#[test]
fn when_a_homes_relay_dies_it_is_reached_by_another() {
    let mut meshes = Meshes::new(13_041, 4, [&[0], &[2, 3]]);
    answered(&mut meshes, SOON_S);
    for dies in [2, 3] {
        let host = meshes.relays[dies];
        meshes.world.power_off(host);
        answered(&mut meshes, 10);
        meshes.world.power_on(host);
        meshes.world.run(seconds(30));
        answered(&mut meshes, 1);
    }
}

#[test]
fn a_relay_that_restarts_is_told_again_who_is_where() {
    let mut meshes = five(13_051);
    for restarts in [0, 4] {
        let host = meshes.relays[restarts];
        meshes.world.restart(host);
        // A home with one relay notices after ten seconds that it is another one.
        answered(&mut meshes, 15);
        meshes.world.run(seconds(30));
        answered(&mut meshes, 1);
    }
}

#[test]
fn an_older_relay_is_sent_no_frames_and_goes_on_as_it_did() {
    // One without links says nothing of clients and takes no frames, as one that doesn't know of them.
    let old = |n: u8, config: &mut altnet_core::node::Config| {
        if n == 1 {
            config.limits.mesh_links = 0;
        }
    };
    let mut meshes = Meshes::with_relays(13_061, 3, [&[0], &[1]], old);
    assert_eq!(meshes.ask(5), None);
    let link = meshes.link(0, 1);
    assert!(!link.is_up && !link.speaks && link.sent == 0, "{link:?}");
    // Two that know of them, and whoever both reach, are none the worse. A relay that never answered is
    // called twice a minute.
    meshes.cut_home(1, 2, false);
    meshes.world.run(seconds(70));
    answered(&mut meshes, 4);
    meshes.cut_home(0, 1, false);
    meshes.world.run(seconds(70));
    answered(&mut meshes, SOON_S);
}

#[test]
fn a_frame_is_taken_from_a_linked_relays_address_alone_and_goes_no_further_than_it_may() {
    let mut meshes = Meshes::new(13_071, 3, [&[0], &[1]]);
    answered(&mut meshes, SOON_S);
    meshes.world.capture = true;
    answered(&mut meshes, SOON_S);
    meshes.world.capture = false;
    let captured = core::mem::take(&mut meshes.world.captured);
    let mut frames = captured.iter().filter(|c| c.bytes[0] == FORWARD);
    let frame = frames.next().expect("a frame between relays").clone();
    let to: u8 = if frame.to.ip().to_string() == relay_v4(0) {
        0
    } else {
        1
    };
    let dropped = |meshes: &Meshes| {
        let node = meshes.world.node(meshes.relays[usize::from(to)]);
        let token = node.counters().dropped(DropReason::RelayToken);
        (token, node.counters().dropped(DropReason::NotOurs))
    };
    let elsewhere = core::net::SocketAddr::new(relay_v4(2).parse().unwrap(), PORT);
    let before = dropped(&meshes);
    // Another relay's address, another token, and a kind that says of more hops than any frame has.
    meshes
        .world
        .inject(elsewhere, frame.to, frame.bytes.clone());
    for (place, byte) in [(4, !frame.bytes[4]), (0, GONE_ON + 1)] {
        let mut bytes = frame.bytes.clone();
        bytes[place] = byte;
        meshes.world.inject(frame.from, frame.to, bytes);
    }
    meshes.world.run(seconds(1));
    let after = dropped(&meshes);
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 1));
    // For nobody whom a relay has: it comes back as what is shorter, and goes nowhere else.
    meshes.world.capture = true;
    let mut bytes = frame.bytes.clone();
    bytes[0] = FORWARD_ON;
    bytes[18..28].fill(0xfd);
    meshes.world.inject(frame.from, frame.to, bytes);
    meshes.world.run(seconds(1));
    let captured = core::mem::take(&mut meshes.world.captured);
    let is_between = |b: &[u8]| matches!(b[0], FORWARD..=GONE_ON) && b[18..28] == [0xfd; 10];
    let between: Vec<_> = captured.iter().filter(|c| is_between(&c.bytes)).collect();
    assert_eq!(between.len(), 2, "{between:?}");
    assert_eq!((between[1].bytes[0], between[1].bytes.len()), (GONE, 28));
    assert_eq!(between[1].to, frame.from);
}

#[test]
fn homes_that_lose_each_a_relay_without_a_word_reach_each_other_within_a_minute() {
    let mut meshes = Meshes::new(13_101, 3, [&[0, 1, 2], &[0, 1, 2]]);
    answered(&mut meshes, SOON_S);
    for (side, lost) in [(0, [1, 2]), (1, [0, 2])] {
        for relay in lost {
            meshes.cut_home(side, relay, true);
        }
    }
    // Where they were registered nobody waits until that ends. An idle home finds out at the end of a
    // pause that a relay reaches it no more (ADR 0015): with most seeds within half a minute.
    answered(&mut meshes, 65);
    meshes.world.run(seconds(5));
    answered(&mut meshes, SOON_S);
    // And back.
    for (side, lost) in [(0, [1, 2]), (1, [0, 2])] {
        for relay in lost {
            meshes.cut_home(side, relay, false);
        }
    }
    meshes.world.run(seconds(120));
    for home in meshes.homes {
        let relays = meshes.world.node(home).status(meshes.world.now()).relays;
        assert!(relays.iter().all(|relay| relay.up), "{relays:?}");
    }
    answered(&mut meshes, 3);
}
