//! Under load: cookies, and how many handshakes of whom are computed.

mod common;

use altnet_tunnel::engine::{DropReason, EngineLimits, Opened};
use altnet_wire::time::Instant;
use common::{Given, Node, World, address, at, initiation, ms, packet};

const A: usize = 0;
const B: usize = 1;

/// One handshake a second is computed without a cookie.
const BUSY: EngineLimits = EngineLimits {
    handshakes_per_s: 1,
    handshake_burst: 1,
    ..EngineLimits::MICRO
};

/// Has A ask B for a session while somebody else's initiation, for `victim`, comes every 10 ms
/// and uses up what is computed for everybody.
fn flood(victim: usize) -> World {
    let (mut world, a, _) = World::pair_with(BUSY);
    let initiation = initiation(9, victim as u8 + 1, 0);
    assert_eq!(world.give(A, a, &packet(1, 80)), Given::Queued);
    for step in 0..700u64 {
        let now = world.now;
        let heard = world.nodes[victim].hear(address(200), &initiation, now);
        let replies = world.nodes[victim].sent_to();
        if let Err(DropReason::UnderLoad) = heard {
            assert_eq!(replies.len(), 1);
            assert_eq!(replies[0].0, address(200));
            assert!(replies[0].1.len() < initiation.len());
        }
        world.run(Instant::ZERO.after(ms(10 * step)));
    }
    world
}

#[test]
fn under_load_a_cookie_comes_first_and_then_the_handshake_succeeds() {
    let world = flood(B);
    assert!(world.cookies(B) >= 1, "A was asked for a cookie");
    assert_eq!(world.initiations(A), 2, "and came back with it");
    assert_eq!(world.nodes[B].numbers(), [1]);
}

#[test]
fn an_initiator_under_load_asks_the_responder_for_a_cookie_too() {
    let world = flood(A);
    assert_eq!(world.cookies(A), 1);
    // The response to the one that is repeated has the cookie.
    assert_eq!((world.initiations(A), world.initiations_sent(A)), (1, 2));
    assert_eq!(world.nodes[B].numbers(), [1]);
}

#[test]
fn a_source_with_a_cookie_is_still_counted() {
    let mut host = Node::new(2, BUSY);
    host.own(2);
    let mut guest = Node::new(1, EngineLimits::MICRO);
    let local = guest.own(1);
    let peer = guest.know(2, local);
    let first = guest.ask(peer, at(0)).remove(0);
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
fn initiations_of_one_peer_are_computed_at_most_every_20_ms() {
    let mut host = Node::new(2, EngineLimits::ROUTER);
    let local = host.own(2);
    host.know(1, local);
    // One after the other by the peer's calendar, so that none is a replay.
    let initiations = [1, 2, 3].map(|second| initiation(1, 2, 1_800_000_000 + second));
    let mut hear = |which: usize, after: u64| {
        let heard = host.hear(address(1), &initiations[which], at(1).after(ms(after)));
        heard.map(|opened| matches!(opened, Opened::Handshake { .. }))
    };
    assert_eq!(hear(0, 0), Ok(true));
    assert_eq!(hear(1, 19), Err(DropReason::TooOften));
    assert_eq!(hear(1, 20), Ok(true), "what came too soon may come again");
    assert_eq!(hear(2, 39), Err(DropReason::TooOften));
    assert_eq!(hear(2, 40), Ok(true));
    assert_eq!(hear(0, 99), Err(DropReason::StaleInitiation));
}
