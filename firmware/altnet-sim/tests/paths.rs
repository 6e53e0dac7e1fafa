//! The way between two homes, while the world around them changes.

use std::net::SocketAddr;

use altnet_core::node::Event;
use altnet_sim::founder::Founder;
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, RELAY, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::{PORT, World};
use altnet_wire::record::Roles;
use altnet_wire::relay::{SEND, SEND_HEADER_BYTES};
use altnet_wire::time::Duration;

#[test]
fn a_relay_with_a_dead_address_is_called_at_its_other() {
    let mut world = World::new(301);
    let mut founder = Founder::new("home", 7);
    let relay = world.host(RELAY, None);
    let dead = SocketAddr::new("203.0.113.99".parse().unwrap(), PORT);
    let mut bundle = founder.relay_bundle_at(&[dead, entry()]);
    let link = founder.invite("relay", Roles::RELAY | Roles::DIRECTORY, None, entry());
    bundle.link = Some(link);
    join(&mut world, relay, bundle);
    let gateway = world.host("203.0.113.50", None);
    let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
    join(&mut world, gateway, invited(link));
    world.restart(gateway);
    let is_up = |world: &World| {
        world
            .node(gateway)
            .status(world.now())
            .relays
            .iter()
            .all(|r| r.up)
    };
    assert!(world.run_for(seconds(10), |world| is_up(world)));
    // Still so when the relay has forgotten who its members are.
    assert!(!world.node(gateway).status(world.now()).relays.is_empty());
}

/// Lets numbered packets flow from house A, one every 20 ms, and does something after half.
/// Returns those that came, in order of arrival.
fn flow(homes: &mut Homes, packets: u32, mut half: impl FnMut(&mut Homes)) -> Vec<u32> {
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    homes.world.delivered(homes.b);
    for n in 0..packets {
        if n == packets / 2 {
            half(homes);
        }
        let packet = packet::udp((from, 5000), (to, 80), &n.to_be_bytes());
        homes.world.send(homes.a, &packet).unwrap();
        homes.world.run(Duration::from_millis(20));
    }
    homes.world.run(seconds(2));
    let got = homes.world.delivered(homes.b);
    let number = |p: &Vec<u8>| Some(u32::from_be_bytes(packet::payload(p).try_into().ok()?));
    got.iter().filter_map(number).collect()
}

fn all_came_once(mut came: Vec<u32>, packets: u32) {
    came.sort_unstable();
    assert_eq!(came, (0..packets).collect::<Vec<_>>());
}

#[test]
fn no_packet_is_lost_in_changing_from_the_relay_to_a_direct_path() {
    for seed in 310..315 {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
        homes.world.block(HOUSE_A, HOUSE_B, true);
        assert!(homes.reaches("by relay"));
        homes.world.run(seconds(10));
        assert_eq!(homes.path().0, "relay");
        let came = flow(&mut homes, 6000, |homes| {
            homes.world.block(HOUSE_A, HOUSE_B, false)
        });
        assert_eq!(homes.path().0, "direct", "{:?}", homes.path());
        all_came_once(came, 6000);
    }
}

#[test]
fn no_packet_is_lost_in_changing_from_one_direct_path_to_the_relay() {
    for seed in 320..325 {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
        assert!(homes.path_becomes("direct"));
        // A's own addresses changed, as far as it knows: direct paths are doubted.
        let came = flow(&mut homes, 500, |homes| {
            let address = "192.168.1.2:51820".parse().unwrap();
            homes
                .world
                .with(homes.a, |node, now| node.handle_interfaces(&[address], now));
        });
        let told = homes.world.told(homes.a);
        let changes = told
            .iter()
            .filter(|e| matches!(e, Event::PathChanged { .. }));
        assert!(changes.count() >= 2, "{told:?}");
        all_came_once(came, 500);
    }
}

#[test]
fn a_direct_path_that_goes_silent_costs_seconds_of_packets_and_no_more() {
    let mut homes = Homes::new(330, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.path_becomes("direct"));
    let came = flow(&mut homes, 2000, |homes| {
        homes.world.block(HOUSE_A, HOUSE_B, true)
    });
    assert_eq!(homes.path().0, "relay");
    let lost = 2000 - came.len();
    assert!(lost <= 250, "{lost} packets of 20 ms each");
}

#[test]
fn a_relay_that_restarts_is_used_again_within_thirty_seconds() {
    for (seed, away) in [
        (340, 0),
        (341, 2),
        (342, 0),
        (343, 30),
        (344, 300),
        (345, 3000),
    ] {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
        assert!(homes.reaches("before"));
        homes.world.run(seconds(seed % 30));
        homes.world.power_off(homes.relay);
        homes.world.run(seconds(away));
        homes.world.power_on(homes.relay);
        let since = homes.world.now();
        let mut came = false;
        while !came && homes.world.now().saturating_since(since) < seconds(60) {
            came = homes.reaches("after");
        }
        let took = homes.world.now().saturating_since(since);
        assert!(
            came && took <= seconds(30),
            "{seed}: {took:?}{}",
            homes.story()
        );
    }
}

#[test]
fn a_nat_with_a_new_address_is_followed() {
    for (seed, kind) in [
        (350, Kind::PORT_RESTRICTED),
        (351, Kind::SYMMETRIC),
        (352, Kind::FULL_CONE),
    ] {
        for of_a in [true, false] {
            let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, kind);
            assert!(homes.reaches("before"));
            homes.world.run(seconds(10));
            let nat = if of_a { homes.nat_a } else { homes.nat_b };
            homes.world.renumber(nat, "198.51.100.77");
            let since = homes.world.now();
            let mut came = false;
            while !came && homes.world.now().saturating_since(since) < seconds(120) {
                came = homes.reaches("after");
            }
            let took = homes.world.now().saturating_since(since);
            assert!(
                came && took <= seconds(60),
                "{seed} {of_a}: {took:?}{}",
                homes.story()
            );
        }
    }
}

#[test]
fn a_relay_token_is_moved_only_after_a_challenge() {
    let mut homes = Homes::new(360, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    homes.world.capture = true;
    assert!(homes.reaches("before"));
    let house_a: std::net::IpAddr = HOUSE_A.parse().unwrap();
    let sent = homes.world.captured.iter().rev();
    let sealed = sent
        .filter(|c| c.from.ip() == house_a && c.to == entry())
        .find(|c| c.bytes.first() == Some(&SEND) && c.bytes.len() > SEND_HEADER_BYTES)
        .expect("something was relayed")
        .clone();
    // Somebody on the way sends on what the client sent, from elsewhere.
    let thief: SocketAddr = "203.0.113.66:4444".parse().unwrap();
    for _ in 0..20 {
        homes.world.captured.clear();
        homes.world.inject(thief, sealed.to, sealed.bytes.clone());
        homes.world.run(Duration::from_millis(100));
        let to_thief = homes.world.captured.iter().filter(|c| c.to == thief);
        let octets: usize = to_thief.map(|c| c.bytes.len()).sum();
        assert!(octets <= sealed.bytes.len(), "{octets}");
    }
    homes.world.captured.clear();
    let back = (homes.lan(2, 0x80), homes.lan(1, 0x11));
    let reply = packet::udp((back.0, 80), (back.1, 4000), b"200 OK");
    homes.world.send(homes.b, &reply).unwrap();
    homes.world.run(seconds(1));
    assert!(homes.world.captured.iter().all(|c| c.to != thief));
    let got = homes.world.delivered(homes.a);
    assert!(got.iter().any(|p| packet::payload(p) == b"200 OK"));
}
