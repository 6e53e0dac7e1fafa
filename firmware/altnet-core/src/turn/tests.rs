//! The client against a server of the tests' own. Against coturn it is driven in `hil-tests`.

mod server;
mod world;

use std::vec::Vec;

use altnet_wire::frame::MAX_PACKET_BYTES;
use altnet_wire::stun::Method;
use proptest::prelude::*;

use super::*;
use server::{PASSWORD, Server};
use world::{SERVER, World, at, pair, pair_within};

#[test]
fn an_allocation_takes_a_challenge_and_is_told() {
    for is_modern in [false, true] {
        let mut world = World::new();
        world.server.is_modern = is_modern;
        let client = world.client("198.51.100.1:4000", PASSWORD);
        world.run(Duration::from_secs(1));
        let expected = TurnEvent::Allocated {
            relayed: at("203.0.113.5:50001"),
            mapped: client,
            lifetime: Duration::from_secs(600),
        };
        assert_eq!(world.told, [(client, expected)]);
        let relayed = world.clients[&client].relayed();
        assert_eq!(relayed, Some(at("203.0.113.5:50001")));
        assert_eq!(world.requests(Method::ALLOCATE), 2);
    }
}

#[test]
fn a_server_that_lets_everybody_in_is_taken_at_its_word() {
    let mut world = World::new();
    world.server.is_open = true;
    let client = world.client("198.51.100.1:4000", PASSWORD);
    world.run(Duration::from_secs(1));
    world.relayed(client);
    assert_eq!(world.requests(Method::ALLOCATE), 1);
}

#[test]
fn peers_meet_at_the_server_with_four_bytes_each() {
    for is_modern in [false, true] {
        let mut world = World::new();
        world.server.is_modern = is_modern;
        let [(a, relayed_a), (b, relayed_b)] = pair(&mut world);
        assert_eq!(world.send(a, relayed_b, b"ping"), Ok(4));
        assert_eq!(world.send(b, relayed_a, b"pong!"), Ok(4));
        world.run(Duration::from_secs(1));
        let got = [
            (b, relayed_a, b"ping".to_vec()),
            (a, relayed_b, b"pong!".to_vec()),
        ];
        assert_eq!(world.got, got);
        assert_eq!(
            (world.server.by_channel, world.server.by_indication),
            (2, 0)
        );
    }
}

#[test]
fn where_channels_are_refused_indications_carry_all() {
    let mut world = World::new();
    world.server.refuses_channels = true;
    let [(a, relayed_a), (b, relayed_b)] = pair(&mut world);
    let sealed = [7; MAX_PACKET_BYTES - 36];
    assert_eq!(world.send(a, relayed_b, &sealed), Ok(36));
    world.run(Duration::from_secs(900));
    assert_eq!(world.send(a, relayed_b, b"still"), Ok(36 + 3));
    world.run(Duration::from_secs(1));
    let got = [
        (b, relayed_a, sealed.to_vec()),
        (b, relayed_a, b"still".to_vec()),
    ];
    assert_eq!(world.got, got);
    assert_eq!(world.failures(), []);
}

#[test]
fn everything_is_renewed_for_as_long_as_it_is_wanted() {
    for nonce_lasts in [u64::MAX >> 32, 100] {
        let mut world = World::new();
        world.server.nonce_lasts = Duration::from_secs(nonce_lasts);
        let [(a, _), (b, relayed_b)] = pair(&mut world);
        for _ in 0..200 {
            world.run(Duration::from_secs(61));
            assert_eq!(world.send(a, relayed_b, b"ping"), Ok(4));
        }
        world.run(Duration::from_secs(1));
        assert_eq!(world.got.len(), 200);
        assert!(world.got.iter().all(|(to, ..)| *to == b));
        assert_eq!(world.failures(), []);
        // An allocation of ten minutes a minute before it ends, bindings every four.
        let hours = 200 * 61;
        let renewals = 2 * (hours / 540);
        let refreshes = world.requests(Method::REFRESH);
        let most = if nonce_lasts == 100 {
            2 * renewals + 4
        } else {
            renewals
        };
        assert!((renewals..=most).contains(&refreshes), "{refreshes}");
        let binds = world.requests(Method::CHANNEL_BIND);
        assert!(binds < 4 * hours / 240 + 10, "{binds}");
    }
}

#[test]
fn a_short_allocation_is_renewed_in_time() {
    let mut world = World::new();
    world.server.lifetime = Duration::from_secs(20);
    let client = world.client("198.51.100.1:4000", PASSWORD);
    world.run(Duration::from_secs(300));
    assert_eq!(world.failures(), []);
    assert!(world.server.allocations.contains_key(&client));
    let refreshes = world.requests(Method::REFRESH);
    assert!((18..=21).contains(&refreshes), "{refreshes}");
}

#[test]
fn everything_can_be_renewed_before_it_is_due() {
    let mut world = World::new();
    let [(a, _), _] = pair(&mut world);
    let before = (
        world.requests(Method::REFRESH),
        world.requests(Method::CHANNEL_BIND),
    );
    let now = world.now;
    world.clients.get_mut(&a).unwrap().refresh(now);
    world.run(Duration::from_secs(1));
    let after = (
        world.requests(Method::REFRESH),
        world.requests(Method::CHANNEL_BIND),
    );
    assert_eq!(after, (before.0 + 1, before.1 + 1));
    // A device that has another address now hears so at once.
    let mut client = world.clients.remove(&a).unwrap();
    client.refresh(now);
    world.clients.insert(at("198.51.100.9:1"), client);
    world.run(Duration::from_secs(1));
    assert_eq!(world.failures(), [TurnFailure::Lost]);
}

#[test]
fn a_nat_on_the_way_sees_something_every_twenty_seconds() {
    let mut world = World::new();
    world.client("198.51.100.1:4000", PASSWORD);
    world.run(Duration::from_secs(1000));
    let gaps = world.sent.windows(2);
    let longest = gaps.map(|pair| pair[1].0.saturating_since(pair[0].0)).max();
    assert_eq!(longest, Some(KEEPALIVE));
    // They are as short as STUN gets, and get no answer.
    assert!(
        world
            .sent
            .iter()
            .filter(|(_, length)| *length == 20)
            .count()
            > 40
    );
}

#[test]
fn a_wrong_password_is_said_so_once_and_not_tried_again() {
    for is_modern in [false, true] {
        let mut world = World::new();
        world.server.is_modern = is_modern;
        let client = world.client("198.51.100.1:4000", "wrong");
        world.run(Duration::from_secs(600));
        assert_eq!(world.failures(), [TurnFailure::Unauthorized]);
        assert_eq!(world.requests(Method::ALLOCATE), 2);
        let now = world.now;
        world.clients.get_mut(&client).unwrap().start(now);
        world.run(Duration::from_secs(600));
        assert_eq!(world.failures(), [TurnFailure::Unauthorized; 2]);
    }
}

#[test]
fn failures_are_told_for_what_they_are() {
    let check = |change: fn(&mut Server), expected: TurnFailure| {
        let mut world = World::new();
        change(&mut world.server);
        world.client("198.51.100.1:4000", PASSWORD);
        world.run(Duration::from_secs(60));
        assert_eq!(world.failures(), [expected]);
    };
    check(|server| server.is_deaf = true, TurnFailure::Unreachable);
    check(|server| server.lies = true, TurnFailure::Forged);
    check(
        |server| server.error = Some(486),
        TurnFailure::Refused { code: 486 },
    );
    let server = at("203.0.113.99:3478");
    check(
        |server| server.error = Some(300),
        TurnFailure::Elsewhere { server },
    );
}

#[test]
fn an_unanswered_request_is_repeated_as_the_rfc_says() {
    let mut world = World::new();
    world.server.is_deaf = true;
    world.client("198.51.100.1:4000", PASSWORD);
    let began = world.now;
    world.run(Duration::from_secs(60));
    let times: Vec<u128> = world
        .sent
        .iter()
        .map(|(when, _)| when.saturating_since(began).as_millis())
        .collect();
    assert_eq!(times, [0, 500, 1500, 3500, 7500, 15_500, 31_500]);
}

#[test]
fn a_lossy_wire_is_got_through() {
    let mut world = World::new();
    world.loses = |n| n % 3 != 0;
    let [(a, _), (_, relayed_b)] = pair_within(&mut world, Duration::from_secs(100));
    assert_eq!(world.failures(), []);
    assert_eq!(world.send(a, relayed_b, b"ping"), Ok(4));
    world.run(Duration::from_secs(1));
    assert_eq!(world.got.len(), 1);
}

#[test]
fn an_allocation_of_a_former_life_is_given_back_first() {
    let mut world = World::new();
    let client = world.client("198.51.100.1:4000", PASSWORD);
    world.run(Duration::from_secs(1));
    let former = world.relayed(client);
    world.client("198.51.100.1:4000", PASSWORD);
    world.run(Duration::from_secs(1));
    assert_ne!(world.relayed(client), former);
    assert_eq!(world.failures(), []);
    assert_eq!(world.server.allocations.len(), 1);
}

#[test]
fn a_server_that_forgot_everything_is_noticed_and_can_be_asked_again() {
    let mut world = World::new();
    let [(a, _), (_, relayed_b)] = pair(&mut world);
    world.server.allocations.clear();
    world.run(Duration::from_secs(300));
    assert_eq!(world.failures(), [TurnFailure::Lost; 2]);
    assert_eq!(
        world.send(a, relayed_b, b"ping"),
        Err(TurnRefused::NoAllocation)
    );
    let now = world.now;
    world.clients.get_mut(&a).unwrap().start(now);
    world.run(Duration::from_secs(1));
    // The peer is wanted still, so it has a channel again.
    assert_eq!(world.send(a, relayed_b, b"ping"), Ok(4));
}

#[test]
fn a_server_that_falls_silent_is_noticed_at_the_next_request() {
    let mut world = World::new();
    pair(&mut world);
    world.server.is_deaf = true;
    world.run(Duration::from_secs(240 + 100));
    assert_eq!(world.failures(), [TurnFailure::Unreachable; 2]);
}

#[test]
fn a_peer_that_the_server_does_not_let_through_is_named() {
    let mut world = World::new();
    world.server.refuses_peers = true;
    let client = world.client("198.51.100.1:4000", PASSWORD);
    let peer = at("192.0.2.9:9");
    world.permit(client, peer);
    world.run(Duration::from_secs(5));
    let refused = TurnEvent::PeerRefused { peer, code: 403 };
    assert!(world.told.contains(&(client, refused)), "{:?}", world.told);
    assert_eq!(
        world.send(client, peer, b"x"),
        Err(TurnRefused::NotPermitted)
    );
    assert!(world.clients[&client].is_up());
}

#[test]
fn only_those_who_are_wanted_are_heard() {
    let mut world = World::new();
    let [(a, relayed_a), (b, relayed_b)] = pair(&mut world);
    // Another port of a peer's address: a symmetric NAT would show it.
    let other_port = SocketAddr::new(relayed_b.ip(), 9);
    for (to, bytes) in world
        .server
        .reach(a, other_port, b"from elsewhere", world.now)
    {
        world.deliver(to, at(SERVER), &bytes);
    }
    assert_eq!(
        world.got.pop(),
        Some((a, other_port, b"from elsewhere".to_vec()))
    );
    // The server as a socket for both families shows it.
    for (to, bytes) in world.server.reach(a, relayed_b, b"mapped", world.now) {
        world.deliver(to, at("[::ffff:203.0.113.5]:3478"), &bytes);
    }
    assert_eq!(world.got.pop(), Some((a, relayed_b, b"mapped".to_vec())));
    // The same bytes from somebody who isn't the server.
    for (to, bytes) in world.server.reach(a, relayed_b, b"forged", world.now) {
        world.deliver(to, at("203.0.113.6:3478"), &bytes);
    }
    assert_eq!(world.got, []);
    world.clients.get_mut(&a).unwrap().forget(relayed_b);
    world.send(b, relayed_a, b"too late").unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.got, []);
    assert_eq!(
        world.send(a, relayed_b, b"x"),
        Err(TurnRefused::NotPermitted)
    );
}

#[test]
fn what_is_closed_is_given_back() {
    let mut world = World::new();
    let [(a, _), (b, relayed_b)] = pair(&mut world);
    let now = world.now;
    world.clients.get_mut(&a).unwrap().close(now);
    assert_eq!(
        world.send(a, relayed_b, b"x"),
        Err(TurnRefused::NoAllocation)
    );
    world.run(Duration::from_secs(2000));
    assert!(world.told.contains(&(a, TurnEvent::Closed)));
    assert_eq!(world.server.allocations.keys().collect::<Vec<_>>(), [&b]);
}

#[test]
fn more_peers_than_there_may_be_are_refused() {
    let mut world = World::new();
    let config = TurnConfig {
        peers: 3,
        ..TurnConfig::new(at(SERVER))
    };
    let client = world.client_with("198.51.100.1:4000", PASSWORD, config);
    let now = world.now;
    let client = world.clients.get_mut(&client).unwrap();
    for port in 1..=3 {
        let peer = SocketAddr::new([192, 0, 2, 1].into(), port);
        assert_eq!(client.permit(peer, now), Ok(()));
    }
    assert_eq!(client.permit(at("192.0.2.1:4"), now), Err(PeersFull));
}

#[test]
fn over_a_stream_nothing_is_repeated_and_data_is_filled_up() {
    let mut world = World::new();
    let config = TurnConfig {
        transport: Transport::Stream,
        ..TurnConfig::new(at(SERVER))
    };
    let client = world.client_with("198.51.100.1:4000", PASSWORD, config);
    let peer = at("192.0.2.9:9");
    world.permit(client, peer);
    world.run(Duration::from_secs(1));
    assert_eq!(world.send(client, peer, b"hello"), Ok(4 + 3));
    assert_eq!(world.send(client, peer, b"four"), Ok(4));
    let (before, _) = (world.sent.len(), world.to_server.clear());
    world.server.is_deaf = true;
    world.run(Duration::from_secs(1000));
    // A binding, then a renewal to see whether anybody is there, and the binding once more.
    assert_eq!(world.sent.len() - before, 3);
    assert_eq!(world.failures(), [TurnFailure::Unreachable]);
}

#[test]
fn an_answer_that_is_not_signed_ends_a_stream_at_once_and_a_datagram_alone_nothing() {
    for (transport, expected) in [(Transport::Stream, 1), (Transport::Datagram, 0)] {
        let mut world = World::new();
        world.server.lies = true;
        let config = TurnConfig {
            transport,
            ..TurnConfig::new(at(SERVER))
        };
        world.client_with("198.51.100.1:4000", PASSWORD, config);
        world.run(Duration::from_millis(300));
        assert_eq!(world.failures().len(), expected);
        world.run(Duration::from_secs(60));
        assert_eq!(world.failures(), [TurnFailure::Forged]);
    }
}

proptest! {
    #[test]
    fn no_bytes_from_a_server_make_the_client_panic_or_believe(
        inputs in proptest::collection::vec(
            (any::<prop::sample::Index>(), any::<u16>(), any::<u8>(), any::<bool>(), 0u64..400),
            0..60,
        ),
        noise in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut world = World::new();
        let [(a, relayed_a), (_, relayed_b)] = pair(&mut world);
        // Things a server said, with a byte changed or cut off, at any time.
        let mut said: Vec<Vec<u8>> = Vec::from([noise]);
        for port in [relayed_b.port(), 9] {
            let peer = SocketAddr::new(relayed_b.ip(), port);
            let sent = world.server.reach(a, peer, b"data", world.now);
            said.extend(sent.into_iter().map(|(_, bytes)| bytes));
        }
        for (which, place, byte, cut, pass_s) in inputs {
            // What waits for an answer now, answered by somebody who doesn't know the password.
            let heard: Vec<Vec<u8>> = world.to_server.iter().map(|(_, _, b)| b.clone()).collect();
            for request in heard {
                let mut answer = request.clone();
                answer[0] |= 1;
                said.push(answer);
            }
            let mut bytes = said[which.index(said.len())].clone();
            let place = usize::from(place) % bytes.len().max(1);
            if cut {
                bytes.truncate(place);
            } else if let Some(at) = bytes.get_mut(place) {
                *at = byte;
            }
            world.deliver(a, at(SERVER), &bytes);
            world.run(Duration::from_secs(pass_s));
            said.truncate(40);
        }
        // The server was honest, so nothing it granted was lost, but for a challenge that was forged.
        prop_assert!(world.failures().iter().all(|why| matches!(why, TurnFailure::Unauthorized)));
        prop_assert!(world.got.iter().all(|(_, peer, _)| peer.ip() == relayed_a.ip()));
    }
}
