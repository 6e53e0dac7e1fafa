//! Homes that only somebody else's TURN server connects (ADR 0020).

use std::net::SocketAddr;

use altnet_core::node::Event;
use altnet_core::turn::Transport;
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, RELAY, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::HostId;
use altnet_sim::world::turn::PASSWORD;
use altnet_wire::derp::PublicKey;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::time::Duration;

const SERVER: &str = "203.0.113.5:3478";
const SERVER_IP: &str = "203.0.113.5";
const RANDOM: Kind = Kind::SYMMETRIC_RANDOM;

/// Two homes of these NATs, and a TURN server on the internet.
fn homes(seed: u64, a: Kind, b: Kind) -> Homes {
    let mut homes = Homes::new(seed, a, b);
    homes.world.turn_server(SERVER);
    homes
}

fn state(homes: &Homes, host: HostId) -> String {
    let status = homes.world.node(host).status(homes.world.now());
    let turn = status.turn.first();
    turn.map_or_else(String::new, |turn| turn.state.clone())
}

/// Lets nothing pass between the homes and the relay any more, or lets it pass again.
fn block_relay(homes: &mut Homes, on: bool) {
    for house in [HOUSE_A, HOUSE_B] {
        homes.world.block(house, RELAY, on);
    }
}

/// Whether packets flow by a TURN server within so many seconds.
fn goes_by_turn(homes: &mut Homes, s: usize) -> bool {
    for _ in 0..s {
        if homes.reaches("by TURN") && homes.path().0 == "turn" {
            return true;
        }
        homes.world.run(seconds(1));
    }
    false
}

/// Has packets flow by relay until each of `hosts` has a server that relays.
fn flow_until_up(homes: &mut Homes, hosts: &[HostId]) {
    for _ in 0..60 {
        assert!(homes.reaches("by relay"), "{}", homes.story());
        homes.world.run(seconds(1));
        if hosts.iter().all(|host| state(homes, *host) == "up") {
            homes.world.run(seconds(5));
            return;
        }
    }
    panic!("{}", homes.story());
}

#[test]
fn when_the_last_relay_falls_silent_a_turn_server_carries_and_gives_way_once_it_is_back() {
    for seed in 700..705 {
        let mut homes = homes(seed, RANDOM, RANDOM);
        let (a, b) = (homes.a, homes.b);
        for host in [a, b] {
            homes.world.use_turn(host, Transport::Datagram, PASSWORD);
        }
        flow_until_up(&mut homes, &[a, b]);
        assert_eq!(
            homes.path().0,
            "relay",
            "the relay is as good, and comes first"
        );
        block_relay(&mut homes, true);
        assert!(goes_by_turn(&mut homes, 5), "{}", homes.story());
        // It goes on once the registrations have ended.
        homes.world.run(seconds(150));
        assert!(goes_by_turn(&mut homes, 10), "{}", homes.story());
        assert!(homes.reaches("goes on"));
        block_relay(&mut homes, false);
        for _ in 0..60 {
            homes.reaches("back");
            homes.world.run(seconds(1));
        }
        assert_eq!(homes.path().0, "relay", "{}", homes.story());
    }
}

#[test]
fn full_packets_pass_by_a_turn_server_from_the_first_second_on() {
    for transport in [Transport::Datagram, Transport::Stream] {
        let mut homes = homes(705, RANDOM, RANDOM);
        let (a, b) = (homes.a, homes.b);
        for host in [a, b] {
            homes.world.use_turn(host, transport, PASSWORD);
        }
        flow_until_up(&mut homes, &[a, b]);
        block_relay(&mut homes, true);
        assert!(goes_by_turn(&mut homes, 5), "{}", homes.story());
        homes.world.delivered(b);
        let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
        // 1280 bytes, in pieces until the server's way is known to carry them whole.
        let full = packet::udp((from, 4000), (to, 80), &[7; 1232]);
        for _ in 0..20 {
            homes.world.send(a, &full).unwrap();
            homes.world.run(Duration::from_millis(100));
        }
        let came = homes.world.delivered(b);
        let came = came.iter().filter(|packet| packet.len() == 1280).count();
        assert!(came >= 19, "{came} of 20: {}", homes.story());
    }
}

#[test]
fn one_home_that_has_a_turn_server_is_enough_whichever_it_is() {
    for seed in 710..714 {
        let mut homes = homes(seed, RANDOM, RANDOM);
        let host = if seed % 2 == 0 { homes.a } else { homes.b };
        homes.world.use_turn(host, Transport::Datagram, PASSWORD);
        flow_until_up(&mut homes, &[host]);
        block_relay(&mut homes, true);
        assert!(goes_by_turn(&mut homes, 5), "{}", homes.story());
    }
}

#[test]
fn a_home_that_no_udp_leaves_uses_the_server_over_a_stream() {
    let mut homes = homes(720, RANDOM, RANDOM);
    let (a, b) = (homes.a, homes.b);
    homes.world.use_turn(a, Transport::Stream, PASSWORD);
    homes.world.use_turn(b, Transport::Stream, PASSWORD);
    flow_until_up(&mut homes, &[a, b]);
    for host in [a, b] {
        homes.world.block_udp(host, true);
    }
    assert!(goes_by_turn(&mut homes, 8), "{}", homes.story());
}

#[test]
fn homes_that_go_direct_never_ask_for_an_allocation() {
    let mut homes = homes(730, Kind::FULL_CONE, Kind::PORT_RESTRICTED);
    for host in [homes.a, homes.b] {
        homes.world.use_turn(host, Transport::Datagram, PASSWORD);
    }
    for _ in 0..60 {
        assert!(homes.reaches("direct"));
        homes.world.run(seconds(1));
    }
    assert_eq!(homes.path().0, "direct");
    assert_eq!(homes.world.turn().heard, []);
}

#[test]
fn an_allocation_is_given_back_when_nobody_needs_it() {
    let mut homes = homes(740, RANDOM, RANDOM);
    let a = homes.a;
    homes.world.use_turn(a, Transport::Datagram, PASSWORD);
    flow_until_up(&mut homes, &[a]);
    assert_eq!(homes.world.turn().allocations.len(), 1);
    homes.world.run(seconds(400));
    assert_eq!(homes.world.turn().allocations.len(), 0);
    assert_eq!(state(&homes, a), "idle");
}

#[test]
fn a_direct_way_takes_the_place_of_a_turn_server() {
    let mut homes = homes(750, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    homes.world.block(HOUSE_A, HOUSE_B, true);
    let (a, b) = (homes.a, homes.b);
    for host in [a, b] {
        homes.world.use_turn(host, Transport::Datagram, PASSWORD);
    }
    flow_until_up(&mut homes, &[a, b]);
    block_relay(&mut homes, true);
    assert!(goes_by_turn(&mut homes, 5), "{}", homes.story());
    homes.world.block(HOUSE_A, HOUSE_B, false);
    // Addresses that didn't answer rest for a minute.
    let is_direct = (0..5).any(|_| homes.path_becomes("direct"));
    assert!(is_direct, "{}", homes.story());
}

#[test]
fn a_server_that_does_not_take_the_password_is_told_once_and_hardly_asked_again() {
    let mut homes = homes(760, RANDOM, RANDOM);
    let a = homes.a;
    homes.world.use_turn(a, Transport::Datagram, "wrong");
    for _ in 0..120 {
        assert!(homes.reaches("by relay"));
        homes.world.run(seconds(5));
    }
    let told = homes.world.told(a);
    let failures = told.iter().filter(|e| matches!(e, Event::TurnDown { .. }));
    assert_eq!(failures.count(), 1);
    let asked = homes.world.turn().heard.len();
    assert!(asked <= 3, "{asked}");
    let status = homes.world.node(a).status(homes.world.now());
    assert_eq!(status.turn[0].state, "failed");
    let why = status.turn[0].why.clone().unwrap();
    assert!(why.contains("username and password"), "{why}");
}

#[test]
fn a_server_that_vanishes_is_asked_again_and_carries_again() {
    let mut homes = homes(770, RANDOM, RANDOM);
    let (a, b) = (homes.a, homes.b);
    for host in [a, b] {
        homes.world.use_turn(host, Transport::Datagram, PASSWORD);
    }
    flow_until_up(&mut homes, &[a, b]);
    for house in [HOUSE_A, HOUSE_B] {
        homes.world.block(house, SERVER_IP, true);
    }
    homes.world.run(seconds(30));
    for _ in 0..60 {
        assert!(homes.reaches("by relay"), "{}", homes.story());
        homes.world.run(seconds(10));
    }
    assert_eq!(state(&homes, a), "failed", "{}", homes.story());
    for house in [HOUSE_A, HOUSE_B] {
        homes.world.block(house, SERVER_IP, false);
    }
    for _ in 0..120 {
        assert!(homes.reaches("by relay"));
        homes.world.run(seconds(10));
    }
    assert_eq!(
        (state(&homes, a), state(&homes, b)),
        ("up".into(), "up".into())
    );
    block_relay(&mut homes, true);
    assert!(goes_by_turn(&mut homes, 5), "{}", homes.story());
}

#[test]
fn nothing_that_a_server_sends_makes_a_node_panic_or_forget_its_peers() {
    let mut homes = homes(780, RANDOM, RANDOM);
    let a = homes.a;
    homes.world.use_turn(a, Transport::Datagram, PASSWORD);
    homes.world.use_derper(a);
    flow_until_up(&mut homes, &[a]);
    let server: SocketAddr = SERVER.parse().unwrap();
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance
    };
    // Where TURN's, WireGuard's and control's messages begin, and anything.
    let beginnings: [&[u8]; 8] = [
        &[0x01, 0x17, 0, 32, 0x21, 0x12, 0xa4, 0x42],
        &[0x01, 0x03, 0, 0, 0x21, 0x12, 0xa4, 0x42],
        &[0x40, 0, 0, 40, 1, 0, 0, 0],
        &[0x40, 1, 0, 40, 0x24],
        &[4, 0, 0, 0],
        &[0x20],
        &[0x10, 0, 0, 0],
        &[],
    ];
    for round in 0..4000 {
        let beginning = beginnings[round % beginnings.len()];
        let length = next() as usize % 300;
        let bytes: Vec<u8> = beginning
            .iter()
            .copied()
            .chain((0..length).map(|_| next() as u8))
            .collect();
        homes.world.with(a, |node, now| {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&bytes).unwrap();
            let _ = node.handle_wan(server, &mut frame, now);
            frame.set(&bytes).unwrap();
            let _ = node.handle_turned(&mut frame, now);
            frame.set(&bytes).unwrap();
            let _ = node.handle_derped(0, PublicKey([round as u8; 32]), &mut frame, now);
        });
    }
    assert!(homes.reaches("all the same"), "{}", homes.story());
}
