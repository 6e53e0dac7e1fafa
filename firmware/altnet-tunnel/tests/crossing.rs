//! Handshakes that cross: both sides ask for a new session at about the same moment, while
//! packets fly in both directions. A wire that loses nothing must then lose nothing.

mod common;

use altnet_tunnel::engine::{EngineLimits, PeerIndex};
use altnet_wire::time::Duration;
use common::{Chance, Given, World, ms, packet};

const A: usize = 0;
const B: usize = 1;

/// A pair with a session, on a wire with this delay and up to so much more by chance.
fn up(seed: u64, delay: Duration, spread: Duration) -> (World, PeerIndex, PeerIndex) {
    let (mut world, a, b) = World::pair_with(EngineLimits::ROUTER);
    let _ = world.give(A, a, &packet(0, 80));
    world.run_for(ms(100));
    assert_eq!(world.give(B, b, &packet(0, 80)), Given::Sent);
    world.run_for(ms(7000));
    world.chance = Chance::new(seed);
    (world.delay, world.spread) = (delay, spread);
    (world, a, b)
}

/// Gives both sides a packet every millisecond for `count` of them, and has each ask for a
/// new session at its moments. Every packet has to come, once.
fn check(
    (mut world, a, b): (World, PeerIndex, PeerIndex),
    count: u32,
    a_asks: &[u32],
    b_asks: &[u32],
    what: &str,
) {
    for n in 1..=count {
        for (node, peer, asks) in [(A, a, a_asks), (B, b, b_asks)] {
            if asks.contains(&n) {
                let now = world.now;
                world.nodes[node].engine.rekey(peer, now).unwrap();
                world.nodes[node].drain(now);
            }
            let given = world.give(node, peer, &packet(n, 80));
            assert_eq!(given, Given::Sent, "{what}: a session stands");
        }
        world.run_for(ms(1));
    }
    world.run_for(ms(2000));
    for node in [A, B] {
        let mut came = world.nodes[node].numbers();
        came.sort_unstable();
        let missing: Vec<u32> = (0..=count)
            .filter(|n| came.binary_search(n).is_err())
            .collect();
        assert_eq!(missing, [], "{what}: lost on the way to {node}");
        assert_eq!(came.len(), count as usize + 1, "{what}: {node}");
    }
}

#[test]
fn handshakes_that_cross_lose_no_packet() {
    // B asks before, with or after A: as long as the other's initiation is on the way.
    for b_asks in 80..=120 {
        let pair = up(1, ms(20), Duration::ZERO);
        check(pair, 200, &[100], &[b_asks], &format!("B asks at {b_asks}"));
    }
}

#[test]
fn handshakes_that_cross_on_a_wire_that_reorders_lose_no_packet() {
    for seed in 0..150 {
        let mut chance = Chance::new(seed);
        let spread = ms(chance.below(60));
        let b_asks = 60 + chance.below(80) as u32;
        let pair = up(seed, ms(20), spread);
        let what = format!("seed {seed}: {spread:?}, B asks at {b_asks}");
        check(pair, 300, &[100], &[b_asks], &what);
    }
}

#[test]
fn handshakes_that_cross_again_and_again_lose_no_packet() {
    for seed in 0..10 {
        let mut chance = Chance::new(seed);
        let mut moments = |_| -> Vec<u32> {
            (0..5)
                .map(|turn| 100 + 5_200 * turn + chance.below(200) as u32)
                .collect()
        };
        let (a_asks, b_asks) = (moments(A), moments(B));
        let pair = up(seed, ms(40), ms(60));
        let what = format!("seed {seed}: {a_asks:?} {b_asks:?}");
        check(pair, 26_500, &a_asks, &b_asks, &what);
    }
}
