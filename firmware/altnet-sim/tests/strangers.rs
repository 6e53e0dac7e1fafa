//! Who isn't a member gets nothing: no packet, no state, no answer larger than the question.

use std::net::SocketAddr;

use altnet_core::node::{DropReason, Stored};
use altnet_sim::founder::Founder;
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, differences, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::{Captured, HostId, PORT, World};
use altnet_wire::address::site_prefix;
use altnet_wire::id::SiteId;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// As the internet sees a host behind a NAT that maps all destinations alike.
fn outside(captured: &[Captured], address: &str) -> SocketAddr {
    let ip: std::net::IpAddr = address.parse().unwrap();
    let seen = captured.iter().find(|c| c.from.ip() == ip);
    seen.expect("it spoke").from
}

fn everybody(homes: &Homes) -> [HostId; 3] {
    [homes.relay, homes.a, homes.b]
}

fn disks(homes: &mut Homes) -> Vec<Stored> {
    let hosts = everybody(homes);
    hosts.map(|host| homes.world.disk(host).clone()).to_vec()
}

fn nothing_changed(homes: &mut Homes, before: &[Stored]) {
    for (before, after) in before.iter().zip(&disks(homes)) {
        assert_eq!(differences(before, after), Vec::<String>::new());
    }
}

fn dropped(world: &World, host: HostId) -> u64 {
    let counters = world.node(host).counters();
    DropReason::ALL.iter().map(|r| counters.dropped(*r)).sum()
}

fn clear(homes: &mut Homes) {
    for host in everybody(homes) {
        homes.world.delivered(host);
    }
}

fn nothing_was_delivered(homes: &mut Homes) {
    for host in everybody(homes) {
        assert!(homes.world.delivered(host).is_empty());
    }
}

/// A network where everybody may send to everybody, and all that was ever said in it.
fn heard(seed: u64) -> (Homes, Vec<Captured>, [SocketAddr; 3]) {
    let mut homes = Homes::new(seed, Kind::FULL_CONE, Kind::FULL_CONE);
    homes.world.capture = true;
    let link = homes.founder.invite("phone", Roles::empty(), None, entry());
    let phone = homes.world.host("203.0.113.50", None);
    join(&mut homes.world, phone, invited(link));
    assert!(homes.path_becomes("direct"));
    assert!(homes.reaches("a page"));
    homes.world.run(seconds(30));
    let captured = core::mem::take(&mut homes.world.captured);
    let targets = [
        entry(),
        outside(&captured, HOUSE_A),
        outside(&captured, HOUSE_B),
    ];
    (homes, captured, targets)
}

#[test]
fn strangers_get_nothing_replaying_what_was_captured() {
    let (mut homes, captured, targets) = heard(201);
    homes.world.run(seconds(120));
    clear(&mut homes);
    let before = disks(&mut homes);
    let counted: u64 = everybody(&homes)
        .iter()
        .map(|h| dropped(&homes.world, *h))
        .sum();
    let stranger = at("203.0.113.66", 4444);
    let (mut sent, mut replied) = (0, 0);
    for datagram in &captured {
        for to in targets {
            homes.world.captured.clear();
            let bytes = datagram.bytes.clone();
            sent += bytes.len();
            homes.world.inject(stranger, to, bytes);
            homes.world.run(Duration::from_millis(40));
            let replies = homes.world.captured.iter().filter(|c| c.to == stranger);
            let octets: usize = replies.map(|c| c.bytes.len()).sum();
            replied += octets;
            assert!(
                octets <= datagram.bytes.len(),
                "{octets} bytes for {:02x?}",
                &datagram.bytes[..4]
            );
        }
    }
    homes.world.captured.clear();
    homes.world.run(seconds(60));
    let late = homes.world.captured.iter().filter(|c| c.to == stranger);
    replied += late.map(|c| c.bytes.len()).sum::<usize>();
    assert!(replied <= sent, "{replied} bytes for {sent}");
    nothing_was_delivered(&mut homes);
    nothing_changed(&mut homes, &before);
    let counts: u64 = everybody(&homes)
        .iter()
        .map(|h| dropped(&homes.world, *h))
        .sum();
    assert!(counts - counted >= captured.len() as u64, "{counts}");
    assert!(homes.reaches("still there"));
    // Nothing was said for minutes: the direct path is opened anew.
    assert!(homes.path_becomes("direct"));
}

#[test]
fn strangers_get_nothing_replaying_with_forged_sources() {
    let (mut homes, captured, _) = heard(202);
    homes.world.run(seconds(120));
    clear(&mut homes);
    let before = disks(&mut homes);
    for datagram in captured {
        homes
            .world
            .inject(datagram.from, datagram.to, datagram.bytes);
        homes.world.run(Duration::from_millis(5));
    }
    homes.world.run(seconds(60));
    nothing_was_delivered(&mut homes);
    nothing_changed(&mut homes, &before);
    assert!(homes.reaches("still there"));
}

#[test]
fn strangers_get_nothing_as_members_of_another_network() {
    let (mut homes, _, targets) = heard(203);
    // A network whose relay claims to be at all our addresses, so that its members call us.
    let mut founder = Founder::new("elsewhere", 99);
    let world = &mut homes.world;
    let their_relay = world.host("203.0.113.70", None);
    let mut places = vec![at("203.0.113.70", PORT)];
    places.extend(targets);
    join(world, their_relay, founder.relay_bundle_at(&places));
    let theirs = world.host("203.0.113.71", None);
    let link = founder.invite("mallory", Roles::GATEWAY, Some(1), places[0]);
    join(world, theirs, invited(link));
    world.power_off(their_relay);
    homes.world.run(seconds(120));
    clear(&mut homes);
    let before = disks(&mut homes);
    let counted = dropped(&homes.world, homes.relay);
    homes.world.restart(theirs);
    let network = founder.registry.network();
    let site = |site| site_prefix(&network, SiteId::new(site).unwrap()).address();
    for n in 0..120u16 {
        let (wiki, own) = (homes.lan(2, 0x80), homes.lan(1, 0x11));
        for source in [site(1), own] {
            let _ = homes
                .world
                .send(theirs, &packet::udp((source, n), (wiki, 80), b"let me in"));
        }
        homes.world.run(seconds(1));
    }
    nothing_was_delivered(&mut homes);
    nothing_changed(&mut homes, &before);
    let relay = homes.relay;
    assert!(dropped(&homes.world, relay) > counted, "counted");
    for host in everybody(&homes) {
        let now = homes.world.now();
        let peers = homes.world.node(host).peer_views(now);
        assert!(peers.iter().all(|p| p.name != "mallory"));
    }
    assert!(homes.reaches("still there"));
}

#[test]
fn strangers_get_nothing_once_they_are_revoked() {
    let (mut homes, _, _) = heard(204);
    let member = homes.member("house-a");
    // House A doesn't hear of it: it goes on as if nothing had happened.
    let disk = homes.world.disk(homes.a).clone();
    homes.world.power_off(homes.a);
    let record = homes.founder.revoke(member);
    homes.publish(&record);
    homes.world.run(seconds(120));
    clear(&mut homes);
    let before = disks(&mut homes);
    let counted = dropped(&homes.world, homes.b) + dropped(&homes.world, homes.relay);
    for _ in 0..4 {
        // Whatever it learns, it forgets: a stolen box that is restored again and again.
        homes.world.power_off(homes.a);
        *homes.world.disk(homes.a) = disk.clone();
        homes.world.power_on(homes.a);
        for n in 0..20 {
            let packet = packet::udp(
                (homes.lan(1, 0x11), n),
                (homes.lan(2, 0x80), 80),
                b"it's me",
            );
            let _ = homes.world.send(homes.a, &packet);
            homes.world.run(Duration::from_millis(500));
        }
    }
    // House A's own side gets errors; nobody else's gets anything.
    homes.world.delivered(homes.a);
    nothing_was_delivered(&mut homes);
    let after = disks(&mut homes);
    for at in [0, 2] {
        let changed = differences(&before[at], &after[at]);
        assert!(changed.is_empty(), "{changed:?}");
    }
    let now = dropped(&homes.world, homes.b) + dropped(&homes.world, homes.relay);
    assert!(now > counted, "counted");
}
