//! Floods: tables stay within their bounds, and what stood before stands after.

use std::net::SocketAddr;

use altnet_core::limits::Limits;
use altnet_core::node::{Config, DropReason};
use altnet_core::policy::PolicyLimits;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

fn small() -> Config {
    Config {
        limits: Limits {
            peers: 4,
            ..Limits::MICRO
        },
        policy: PolicyLimits {
            flows: 16,
            ..PolicyLimits::MICRO
        },
        ..Config::micro(FOUNDED)
    }
}

#[test]
fn a_flood_of_flows_stays_within_the_table() {
    let mut homes = Homes::new(701, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    let c = homes.world.host_with("203.0.113.50", None, small());
    let link = homes
        .founder
        .invite("house-c", Roles::GATEWAY, Some(3), entry());
    join(&mut homes.world, c, invited(link));
    let b = homes.b;
    assert!(homes.reaches_from(c, (3, 1), b, (2, 0x80), "before"));
    let to = homes.lan(2, 0x80);
    for n in 0..5000u16 {
        let from = homes.lan(3, u64::from(n % 97));
        let _ = homes
            .world
            .send(c, &packet::udp((from, n), (to, 80), b"flood"));
        if n % 50 == 0 {
            homes.world.run(Duration::from_millis(20));
        }
    }
    homes.world.run(seconds(1));
    assert!(
        homes.reaches_from(c, (3, 1), b, (2, 0x80), "after"),
        "{}",
        homes.story()
    );
}

#[test]
fn more_members_than_places_for_peers_share_them() {
    let mut homes = Homes::new(702, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    let mut gateways = Vec::new();
    for site in 3..12u16 {
        let host = homes.world.host(&format!("203.0.113.{}", 50 + site), None);
        let name = format!("house-{site}");
        let link = homes
            .founder
            .invite(&name, Roles::GATEWAY, Some(site), entry());
        join(&mut homes.world, host, invited(link));
        homes.publish_host(&format!("host-{site}"), site, 0x10);
        gateways.push((host, site));
    }
    let c = homes.world.host_with("203.0.113.50", None, small());
    let link = homes
        .founder
        .invite("house-c", Roles::GATEWAY, Some(13), entry());
    join(&mut homes.world, c, invited(link));
    homes.world.run(seconds(10));
    for round in 0..3 {
        for (host, site) in &gateways {
            let text = format!("round {round} to {site}");
            let came = homes.reaches_from(c, (13, 1), *host, (*site, 0x10), &text);
            assert!(came, "{text}");
            let status = homes.world.node(c).status(homes.world.now());
            assert!(status.peers <= 4, "{} peers", status.peers);
        }
    }
}

#[test]
fn a_flood_of_handshakes_is_dropped_and_members_are_served_on() {
    let mut homes = Homes::new(703, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.reaches("before"));
    homes.world.capture = true;
    // A real first message of a stranger, sent from thousands of places.
    let stranger = homes.world.host("203.0.113.50", None);
    let link = homes
        .founder
        .invite("late", Roles::GATEWAY, Some(3), entry());
    let bundle = Box::new(invited(link.clone()));
    let join_it = altnet_core::node::Command::Join { bundle, name: None };
    homes.world.command(stranger, join_it);
    let first = homes
        .world
        .captured
        .iter()
        .find(|c| c.to == entry() && c.bytes[0] == 0x20);
    let first = first.expect("it called").bytes.clone();
    homes.world.power_off(stranger);
    homes.world.captured.clear();
    for n in 0..4000u32 {
        let [_, _, c, d] = n.to_be_bytes();
        let from = SocketAddr::from(([192, 0, c, d], 1000 + (n % 60_000) as u16));
        let mut bytes = first.clone();
        let at = 4 + (n as usize % 60);
        bytes[at] ^= (n >> 4) as u8;
        homes.world.inject(from, entry(), bytes);
        if n % 10 == 0 {
            homes.world.run(Duration::from_millis(5));
        }
    }
    assert!(homes.reaches("meanwhile"), "{}", homes.story());
    let flooded: usize = homes
        .world
        .captured
        .iter()
        .filter(|c| c.to == entry())
        .map(|c| c.bytes.len())
        .sum();
    let is_flood = |to: &SocketAddr| to.ip().to_string().starts_with("192.0.");
    let answered: usize = homes
        .world
        .captured
        .iter()
        .filter(|c| is_flood(&c.to))
        .map(|c| c.bytes.len())
        .sum();
    assert!(answered <= flooded, "{answered} bytes for {flooded}");
    let dropped = homes
        .world
        .node(homes.relay)
        .counters()
        .dropped(DropReason::Control);
    assert!(dropped > 1000, "{dropped}");
    homes.world.run(seconds(30));
    homes.world.power_on(stranger);
    join(&mut homes.world, stranger, invited(link));
}
