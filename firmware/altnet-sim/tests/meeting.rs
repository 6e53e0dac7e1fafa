//! Members that meet without a directory, and what they tell each other first.

use std::net::SocketAddr;

use altnet_core::node::{Command, Config, DropReason, Event};
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, entry, invited, is_member, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::{HostId, PORT, World};
use altnet_wire::id::Name;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

fn knows(world: &World, host: HostId, name: &str) -> bool {
    let name = Name::new(name).unwrap();
    let registry = world.node(host).registry();
    registry.is_some_and(|r| r.by_name(&name).is_some_and(|m| m.node.is_some()))
}

/// Two homes and a third gateway with an address of its own, all in step.
fn three(seed: u64, nat: Kind) -> (Homes, HostId) {
    let mut homes = Homes::new(seed, nat, nat);
    let c = homes.world.host("203.0.113.50", None);
    let link = homes
        .founder
        .invite("house-c", Roles::GATEWAY, Some(3), entry());
    join(&mut homes.world, c, invited(link));
    let (a, b) = (homes.a, homes.b);
    let all = homes.world.run_for(seconds(30), |world| {
        knows(world, a, "house-c") && knows(world, b, "house-c") && knows(world, c, "house-b")
    });
    assert!(all, "{}", homes.story());
    homes.publish_host("camera", 3, 0x30);
    (homes, c)
}

#[test]
fn two_members_meet_through_a_third() {
    // Where neither NAT lets the other's first datagram in, both have to know where to send.
    for (seed, nat) in [
        (601, Kind::FULL_CONE),
        (606, Kind::PORT_RESTRICTED),
        (607, Kind::PORT_RESTRICTED),
    ] {
        meet_through_a_third(seed, nat);
    }
}

fn meet_through_a_third(seed: u64, nat: Kind) {
    let (mut homes, c) = three(seed, nat);
    // A and B never spoke to each other, and both speak with C.
    homes.world.block(HOUSE_A, HOUSE_B, true);
    for (host, site) in [(homes.a, 1), (homes.b, 2)] {
        assert!(homes.reaches_from(host, (site, 9), c, (3, 0x30), &format!("from {site}")));
    }
    homes.world.run(seconds(30));
    homes.world.power_off(homes.relay);
    homes.world.block(HOUSE_A, HOUSE_B, false);
    for n in 0..40 {
        for (host, site) in [(homes.a, 1), (homes.b, 2)] {
            let packet = packet::udp((homes.lan(site, 9), n), (homes.lan(3, 0x30), 80), b"on");
            let _ = homes.world.send(host, &packet);
        }
        homes.world.run(seconds(1));
    }
    let met = (0..20).any(|_| homes.reaches("introduced"));
    assert!(met, "{}", homes.story());
}

#[test]
fn a_key_replaced_meanwhile_is_learned_from_the_hello_alone() {
    let mut homes = Homes::new(602, Kind::FULL_CONE, Kind::FULL_CONE);
    // A gateway that says where it is.
    let mut config = Config::router(FOUNDED);
    let at = SocketAddr::new("203.0.113.60".parse().unwrap(), PORT);
    config.fixed_endpoints.push(at).unwrap();
    let d = homes.world.host_with("203.0.113.60", None, config);
    let link = homes
        .founder
        .invite("house-d", Roles::GATEWAY, Some(4), entry());
    join(&mut homes.world, d, invited(link));
    homes.publish_host("door", 4, 0x40);
    assert!(homes.reaches_from(homes.a, (1, 9), d, (4, 0x40), "before"));
    homes.world.power_off(d);
    for _ in 0..2 {
        // Twice, so that not even the key before is known there.
        homes.world.command(homes.a, Command::Rotate);
        homes.world.run(seconds(60));
    }
    homes.world.power_off(homes.relay);
    homes.world.power_on(d);
    let a = homes.a;
    let met = (0..10).any(|_| homes.reaches_from(a, (1, 9), d, (4, 0x40), "it's me"));
    assert!(met, "{}", homes.story());
}

fn is_control(datagram: &[u8]) -> bool {
    matches!(datagram, [0x20..=0x2f, ..])
}

fn from_a(homes: &Homes) -> Vec<u8> {
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    packet::udp((from, 4000), (to, 80), b"A knows more")
}

#[test]
fn a_peer_whose_session_never_comes_is_heard_after_two_seconds() {
    let mut homes = Homes::new(604, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    homes.world.run(seconds(10));
    homes.reaches("kept");
    let b = homes.b;
    homes.world.power_off(homes.relay);
    homes.world.restart(b);
    homes.world.delivered(b);
    homes.world.lose_kind(is_control);
    let packet = from_a(&homes);
    let came = (0..200).any(|_| {
        let _ = homes.world.send(homes.a, &packet);
        let tick = Duration::from_millis(300);
        homes
            .world
            .run_for(tick, |world| !world.delivered(b).is_empty())
    });
    assert!(came, "{}", homes.story());
    let now = homes.world.now();
    let peers = homes.world.node(b).peer_views(now);
    let up = peers.iter().find(|p| p.name == "house-a").unwrap();
    assert!(up.last_handshake_s >= Some(1), "{up:?}");
}

#[test]
fn who_is_behind_on_revocations_fetches_them_before_it_delivers() {
    let (mut homes, c) = three(603, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    let b = homes.b;
    assert!(homes.reaches_from(c, (3, 9), b, (2, 0x80), "before"));
    homes.world.run(seconds(90));
    // B doesn't hear of the revocation, and the directory is gone when it is back.
    homes.world.power_off(b);
    let member = homes.member("house-c");
    let record = homes.founder.revoke(member);
    homes.publish(&record);
    homes.world.run(seconds(10));
    assert!(!is_member(&homes.world, c));
    homes.world.power_off(homes.relay);
    homes.world.power_on(b);
    homes.world.told(b);
    homes.world.delivered(b);
    // The tunnel stands before the session does.
    homes.world.lose_kind(is_control);
    let packet = from_a(&homes);
    let is_up = |homes: &Homes| {
        let peers = homes.world.node(b).peer_views(homes.world.now());
        peers.iter().any(|p| p.name == "house-a" && p.tunnel_up)
    };
    for _ in 0..200 {
        if !is_up(&homes) {
            let _ = homes.world.send(homes.a, &packet);
            homes.world.run(Duration::from_millis(300));
        }
    }
    assert!(is_up(&homes), "{}", homes.story());
    homes.world.send(homes.a, &packet).unwrap();
    homes.world.run(Duration::from_millis(100));
    homes.world.lose_kind(|_| false);
    let came = homes
        .world
        .run_for(seconds(5), |world| !world.delivered(b).is_empty());
    assert!(came, "{}", homes.story());
    // It came only once B knew what A knows.
    let registry = homes.world.node(b).registry().unwrap();
    assert!(registry.by_name(&Name::new("house-c").unwrap()).is_none());
    let dropped = homes.world.node(b).counters();
    assert_eq!(dropped.dropped(DropReason::HeadBehind), 0, "held, not lost");
    let told = homes.world.told(b);
    let behind = told.iter().any(|e| matches!(e, Event::HeadBehind { .. }));
    assert!(behind, "{told:?}");
    assert_eq!(
        homes
            .world
            .node(homes.a)
            .counters()
            .dropped(DropReason::HeadBehind),
        0
    );
}

#[test]
fn who_is_far_behind_fetches_page_after_page() {
    let mut homes = Homes::new(605, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    homes.world.run(seconds(90));
    let b = homes.b;
    homes.world.power_off(b);
    // More than a message holds.
    const MANY: usize = 200;
    for n in 0..MANY {
        let link = homes
            .founder
            .invite(&format!("guest-{n}"), Roles::empty(), None, entry());
        let record = homes.founder.revoke_invite(&link);
        homes.publish(&record);
    }
    homes.world.run(seconds(10));
    let known = |homes: &Homes, host| {
        let registry = homes.world.node(host).registry().unwrap();
        registry.revocations().count()
    };
    assert_eq!(known(&homes, homes.a), MANY);
    homes.world.power_off(homes.relay);
    homes.world.power_on(b);
    let came = (0..10).any(|_| homes.reaches("A knows more"));
    assert!(came, "{}", homes.story());
    assert_eq!(known(&homes, b), MANY);
}
