//! Two homes, one relay: what the demo shows, in virtual time.

use altnet_core::node::{Command, Event};
use altnet_sim::homes::{Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_wire::record::Roles;

#[test]
fn page_over_relay() {
    let mut homes = Homes::new(1, Kind::SYMMETRIC, Kind::SYMMETRIC);
    assert!(homes.reaches("GET /"), "{:?}", homes.world.told(homes.a));
    homes.world.run(seconds(20));
    assert!(homes.reaches("GET / again"));
    assert_eq!(homes.path().0, "relay");
}

#[test]
fn page_direct() {
    let mut homes = Homes::new(2, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.reaches("GET /"), "{:?}", homes.world.told(homes.a));
    assert!(homes.path_becomes("direct"), "{:?}", homes.path());
}

#[test]
fn replies_come_back_and_nothing_else_does() {
    let mut homes = Homes::new(3, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.reaches("GET /"));
    let (laptop, wiki) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    let reply = packet::udp((wiki, 80), (laptop, 4000), b"200 OK");
    homes.world.send(homes.b, &reply).unwrap();
    homes.world.run(seconds(1));
    let got = homes.world.delivered(homes.a);
    assert!(got.iter().any(|p| packet::payload(p) == b"200 OK"));
    // The laptop is no host in records: nobody reaches it first.
    let first = packet::udp((wiki, 81), (laptop, 4001), b"hello");
    assert!(
        homes.world.send(homes.b, &first).is_ok(),
        "an ICMPv6 error comes back"
    );
    homes.world.run(seconds(1));
    assert!(homes.world.delivered(homes.a).is_empty());
}

#[test]
fn loss_is_lived_with() {
    let came: usize = (4..14)
        .map(|seed| {
            let mut homes = Homes::new(seed, Kind::SYMMETRIC, Kind::SYMMETRIC);
            homes.world.lose(200);
            let tries = 0..20;
            tries.filter(|n| homes.reaches(&format!("try {n}"))).count()
        })
        .sum();
    assert!(came >= 180, "{came} of 200");
}

#[test]
fn a_silent_direct_path_gives_way_to_the_relay_and_comes_back() {
    let mut homes = Homes::new(5, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.path_becomes("direct"));
    homes.world.block("198.51.100.1", "198.51.100.2", true);
    assert!(homes.path_becomes("relay"), "{:?}", homes.path());
    assert!(homes.reaches("by relay"));
    homes.world.block("198.51.100.1", "198.51.100.2", false);
    let back = (0..10).any(|_| {
        homes.reaches("still there");
        homes.world.run(seconds(15));
        homes.path().0 == "direct"
    });
    assert!(back, "{:?}", homes.path());
}

#[test]
fn relay_gone_both_restart() {
    let mut homes = Homes::new(6, Kind::FULL_CONE, Kind::FULL_CONE);
    assert!(homes.path_becomes("direct"));
    for _ in 0..8 {
        homes.reaches("for a while");
        homes.world.run(seconds(10));
    }
    homes.world.power_off(homes.relay);
    for host in [homes.a, homes.b] {
        homes.world.power_off(host);
        homes.world.power_on(host);
    }
    assert!(homes.reaches("found again"), "{:?}", homes.path());
    let waits = homes
        .world
        .node(homes.a)
        .status(homes.world.now())
        .waits_for;
    assert!(waits.iter().any(|w| w.contains("relay1")), "{waits:?}");
}

#[test]
fn a_revoked_member_is_cut_off() {
    let mut homes = Homes::new(7, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    assert!(homes.reaches("before"));
    let a = homes.world.node(homes.a).registry().unwrap();
    let name = altnet_wire::id::Name::new("house-a").unwrap();
    let member = a.by_name(&name).unwrap().membership.member;
    let record = homes.founder.revoke(member);
    let relay = homes.relay;
    homes
        .world
        .with(relay, |node, now| node.publish(&record, now))
        .unwrap();
    homes.world.run(seconds(5));
    let told = homes.world.told(homes.a);
    let put_out = told
        .iter()
        .any(|e| matches!(e, Event::Left { revoked: true, .. }));
    assert!(put_out, "{told:?}");
    assert!(!homes.reaches("after"));
    let peers = homes.world.node(homes.b).peer_views(homes.world.now());
    assert!(peers.iter().all(|peer| peer.name != "house-a"));
}

#[test]
fn a_rotated_key_loses_nothing() {
    let mut homes = Homes::new(8, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    assert!(homes.reaches("before"));
    for round in 0..3 {
        homes.world.command(homes.b, Command::Rotate);
        assert!(homes.reaches(&format!("at once {round}")));
        homes.world.run(seconds(200));
        assert!(homes.reaches(&format!("later {round}")));
        homes.world.command(homes.a, Command::Rotate);
        assert!(homes.reaches(&format!("the other {round}")));
        homes.world.run(seconds(200));
        assert!(homes.reaches(&format!("in the end {round}")));
    }
}

#[test]
fn clock_1970() {
    let mut homes = Homes::new(9, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    for host in [homes.a, homes.b, homes.relay] {
        homes
            .world
            .set_clock(host, Some(altnet_wire::time::UnixTime::EPOCH));
        homes.world.power_off(host);
    }
    for host in [homes.relay, homes.a, homes.b] {
        homes.world.power_on(host);
    }
    homes.world.run(seconds(5));
    assert!(homes.reaches("in 1970"));
    let late = homes.world.host("203.0.113.77", None);
    homes
        .world
        .set_clock(late, Some(altnet_wire::time::UnixTime::EPOCH));
    homes.world.power_off(late);
    homes.world.power_on(late);
    let link = homes
        .founder
        .invite("late", Roles::GATEWAY, Some(3), entry());
    join(&mut homes.world, late, invited(link));
}
