//! What a member says of where it is: what may be made of it, and how often it is said.

use std::net::{IpAddr, SocketAddr};

use altnet_core::node::{Config, Output, Verdict};
use altnet_core::path::budget::PER_DESTINATION;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, RELAY, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::PORT;
use altnet_wire::control;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

/// WireGuard's transport message (whitepaper section 5.4.6).
const TRANSPORT: u8 = 4;

fn victim() -> SocketAddr {
    "203.0.113.66:4444".parse().unwrap()
}

/// Sends as fast as a laptop does, for so long.
fn flood(homes: &mut Homes, time: Duration) {
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    let packet = packet::udp((from, 4000), (to, 80), &[7; 1000]);
    let end = homes.world.now().after(time);
    while homes.world.now() < end {
        let _ = homes.world.send(homes.a, &packet);
        homes.world.run(Duration::from_millis(20));
    }
}

#[test]
fn nothing_but_few_handshakes_goes_to_an_address_that_never_answered() {
    for (seed, restart) in [(701, false), (702, true), (703, false)] {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
        assert!(homes.reaches("by relay"));
        // B says that it is where the victim is, and then nothing else of it is reached.
        homes.world.with(homes.b, |node, now| {
            node.handle_interfaces(&[victim()], now)
        });
        flood(&mut homes, seconds(10));
        homes.world.block(HOUSE_A, HOUSE_B, true);
        homes.world.power_off(homes.relay);
        if restart {
            homes.world.power_off(homes.b);
        }
        homes.world.capture = true;
        flood(&mut homes, seconds(120));
        let sent: Vec<_> = homes
            .world
            .captured
            .iter()
            .filter(|c| c.to == victim())
            .collect();
        assert!(sent.iter().all(|c| c.bytes.first() != Some(&TRANSPORT)));
        assert!(
            sent.iter().all(|c| c.bytes.len() <= 148),
            "handshakes and challenges"
        );
        assert!(
            sent.len() <= 3 * usize::from(PER_DESTINATION),
            "{}",
            sent.len()
        );
    }
}

#[test]
fn a_fixed_address_is_used_once_its_handshake_was_answered() {
    let mut homes = Homes::new(710, Kind::PORT_RESTRICTED, Kind::FULL_CONE);
    let mut config = Config::router(FOUNDED);
    let at = SocketAddr::new("203.0.113.60".parse().unwrap(), PORT);
    config.fixed_endpoints.push(at).unwrap();
    let d = homes.world.host_with("203.0.113.60", None, config);
    let link = homes
        .founder
        .invite("house-d", Roles::GATEWAY, Some(4), entry());
    join(&mut homes.world, d, invited(link));
    homes.publish_host("door", 4, 0x40);
    homes.world.run(seconds(10));
    homes.world.power_off(homes.relay);
    homes.world.run(seconds(120));
    // The first packet waits for the handshake and comes with it.
    let (from, to) = (homes.lan(1, 9), homes.lan(4, 0x40));
    let packet = packet::udp((from, 4000), (to, 80), b"first");
    homes.world.send(homes.a, &packet).unwrap();
    homes.world.run(seconds(2));
    let got = homes.world.delivered(d);
    assert!(
        got.iter().any(|p| packet::payload(p) == b"first"),
        "{}",
        homes.story()
    );
}

#[test]
fn a_port_that_a_router_keeps_open_makes_a_direct_path_where_none_was() {
    let mut homes = Homes::new(715, Kind::SYMMETRIC, Kind::SYMMETRIC);
    assert!(homes.reaches("by relay"));
    homes.world.run(seconds(30));
    assert_eq!(homes.path().0, "relay");
    let inside = SocketAddr::new("192.168.1.2".parse().unwrap(), PORT);
    let outside = homes.world.forward(homes.nat_b, 4660, inside);
    homes
        .world
        .with(homes.b, |node, now| node.handle_mapped(&[outside], now));
    assert!(homes.path_becomes("direct"), "{}", homes.story());
    assert_eq!(homes.path(), ("direct", "direct-answered"));
    let peers = homes.world.node(homes.a).peer_views(homes.world.now());
    let peer = peers.iter().find(|peer| peer.name == "house-b").unwrap();
    assert_eq!(peer.endpoint, Some(outside.to_string()));
    assert!(
        peer.why_text.contains("its router keeps open"),
        "{}",
        peer.why_text
    );
}

#[test]
fn the_disk_is_written_once_an_hour_however_often_a_peer_moves() {
    let mut homes = Homes::new(720, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.path_becomes("direct"));
    let mut seen = Vec::new();
    for round in 0..5 {
        let address = format!("198.51.100.{}", 100 + round);
        homes.world.renumber(homes.nat_b, &address);
        for n in 0..15 {
            homes.reaches(&format!("{round} {n}"));
            homes.world.run(seconds(9));
            let disk = homes.world.disk(homes.a);
            let paths = disk.iter().filter(|(slot, _)| slot.starts_with("path-"));
            let paths: Vec<_> = paths.map(|(slot, b)| (slot.clone(), b.clone())).collect();
            for path in paths {
                if !seen.contains(&path) {
                    seen.push(path);
                }
            }
        }
    }
    // The relay's once, and B's once.
    assert!((1..=2).contains(&seen.len()), "{seen:?}");
}

#[test]
fn sending_to_a_peer_without_a_session_costs_few_rounds() {
    let mut homes = Homes::new(730, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    assert!(homes.reaches("by relay"));
    homes.world.power_off(homes.relay);
    homes.world.power_off(homes.b);
    flood(&mut homes, seconds(120));
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    let packet = packet::udp((from, 4000), (to, 80), b"anybody there");
    let mut soon = 0;
    for _ in 0..500 {
        let wait = homes.world.with(homes.a, |node, now| {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&packet).unwrap();
            let verdict = node.handle_lan(&mut frame, now);
            assert!(!matches!(verdict, Ok(Verdict::Send { .. })));
            loop {
                if let Output::Wait(until) = node.poll_output(&mut frame, now) {
                    return until.saturating_since(now);
                }
            }
        });
        soon += u32::from(wait <= Duration::from_millis(25));
        homes.world.run(Duration::from_millis(20));
    }
    assert!(soon < 100, "{soon} of 500");
}

#[test]
fn an_address_that_changes_all_the_time_is_told_every_five_seconds() {
    let mut homes = Homes::new(740, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    assert!(homes.reaches("by relay"));
    homes.world.run(seconds(30));
    homes.world.capture = true;
    for n in 0..200u16 {
        let address = SocketAddr::new(IpAddr::from([10, 0, 0, 1]), 1000 + n);
        homes
            .world
            .with(homes.b, |node, now| node.handle_interfaces(&[address], now));
        homes.world.run(Duration::from_millis(100));
    }
    homes.world.run(seconds(6));
    // Challenges and acknowledgements are shorter than anything that names addresses.
    let house: IpAddr = HOUSE_B.parse().unwrap();
    let told = homes.world.captured.iter().filter(|c| {
        c.from.ip() == house
            && c.to == entry()
            && c.bytes.first() == Some(&control::DATA)
            && c.bytes.len() > 70
    });
    let told = told.count();
    assert!((2..=8).contains(&told), "{told}");
}

#[test]
fn when_one_relay_no_longer_reaches_a_peer_the_other_is_tried() {
    let mut homes = Homes::new(750, Kind::SYMMETRIC, Kind::SYMMETRIC);
    let mut config = Config::router(FOUNDED);
    let second = "203.0.113.20";
    let at = SocketAddr::new(second.parse().unwrap(), PORT);
    config.fixed_endpoints.push(at).unwrap();
    let relay = homes.world.host_with(second, None, config);
    let link = homes.founder.invite("relay2", Roles::RELAY, None, entry());
    join(&mut homes.world, relay, invited(link));
    homes.world.run(seconds(60));
    for host in [homes.a, homes.b] {
        let status = homes.world.node(host).status(homes.world.now());
        assert_eq!(
            status.relays.iter().filter(|r| r.up).count(),
            2,
            "{status:?}"
        );
    }
    assert!(homes.reaches("before"));
    // B loses whichever of the two relays A reaches it by; A keeps both.
    for lost in [RELAY, second] {
        homes.world.block(HOUSE_B, lost, true);
        let met = (0..12).any(|n| homes.reaches(&format!("without {lost} {n}")));
        assert!(met, "{lost}: {}", homes.story());
        homes.world.block(HOUSE_B, lost, false);
        homes.world.run(seconds(60));
    }
}
