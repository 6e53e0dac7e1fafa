//! Two homes, one relay: what the demo shows, in virtual time.

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::node::{Command, Event};
use altnet_sim::founder::Founder;
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::{HostId, PORT, World};
use altnet_wire::address::site_prefix;
use altnet_wire::id::SiteId;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

const RELAY: &str = "203.0.113.10";

struct Homes {
    world: World,
    founder: Founder,
    relay: HostId,
    a: HostId,
    b: HostId,
}

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

fn entry() -> SocketAddr {
    SocketAddr::new(RELAY.parse().unwrap(), PORT)
}

fn join(world: &mut World, host: HostId, bundle: altnet_core::invite::Bundle) {
    let bundle = Box::new(bundle);
    world.command(host, Command::Join { bundle, name: None });
    let joined = world.run_for(seconds(30), |world| {
        world.node(host).status(world.now()).state == "member"
    });
    assert!(joined, "{:?}", world.told(host));
}

fn invited(link: altnet_core::invite::Link) -> altnet_core::invite::Bundle {
    altnet_core::invite::Bundle {
        link: Some(link),
        ..Default::default()
    }
}

impl Homes {
    fn new(seed: u64, nat_a: Kind, nat_b: Kind) -> Self {
        let mut world = World::new(seed);
        let mut founder = Founder::new("home", 7);
        let relay = world.host(RELAY, None);
        let bundle = founder.relay_bundle(entry());
        join(&mut world, relay, bundle);
        let nat_a = world.nat(nat_a, "198.51.100.1");
        let nat_b = world.nat(nat_b, "198.51.100.2");
        let a = world.host("192.168.1.2", Some(nat_a));
        let b = world.host("192.168.1.2", Some(nat_b));
        for (host, name, site) in [(a, "house-a", 1), (b, "house-b", 2)] {
            let link = founder.invite(name, Roles::GATEWAY, Some(site), entry());
            join(&mut world, host, invited(link));
        }
        let mut homes = Self {
            world,
            founder,
            relay,
            a,
            b,
        };
        homes.publish_host("wiki", 2, 0x80);
        homes
    }

    fn publish_host(&mut self, name: &str, site: u16, host: u64) {
        let record = self.founder.host(name, site, host);
        let relay = self.relay;
        self.world
            .with(relay, |node, now| node.publish(&record, now))
            .unwrap();
        let known = |world: &World, host| world.node(host).registry().unwrap().hosts().count() > 0;
        let (a, b) = (self.a, self.b);
        let done = self
            .world
            .run_for(seconds(30), |world| known(world, a) && known(world, b));
        assert!(done, "{name}: {}", self.story());
    }

    /// How things are, for a test that fails.
    fn story(&mut self) -> String {
        let mut story = String::new();
        for host in [self.relay, self.a, self.b] {
            let now = self.world.now();
            let status = self.world.node(host).status(now);
            story += &format!("\n{status:?}\n");
            for peer in self.world.node(host).peer_views(now) {
                story += &format!("  {peer:?}\n");
            }
            for record in self.world.node(host).record_views() {
                story += &format!("  {} {} {}\n", record.kind, record.serial, record.text);
            }
            for event in self.world.told(host) {
                story += &format!("  {event}\n");
            }
            for reason in altnet_core::node::DropReason::ALL {
                let count = self.world.node(host).counters().dropped(reason);
                if count > 0 {
                    story += &format!("  dropped {reason}: {count}\n");
                }
            }
        }
        story
    }

    fn lan(&self, site: u16, host: u64) -> Ipv6Addr {
        let network = self.founder.registry.network();
        let prefix = site_prefix(&network, SiteId::new(site).unwrap());
        (u128::from(prefix.address()) | u128::from(host)).into()
    }

    /// Sends from a laptop in house A to the wiki, up to five times. Whether it came.
    fn reaches(&mut self, text: &str) -> bool {
        let (from, to) = ((self.lan(1, 0x11), 4000), (self.lan(2, 0x80), 80));
        let packet = packet::udp(from, to, text.as_bytes());
        for _ in 0..5 {
            let _ = self.world.send(self.a, &packet);
            let b = self.b;
            let came = self.world.run_for(seconds(2), |world| {
                world
                    .delivered(b)
                    .iter()
                    .any(|p| packet::payload(p) == text.as_bytes())
            });
            if came {
                return true;
            }
        }
        false
    }

    fn path(&self) -> (&'static str, &'static str) {
        let peers = self.world.node(self.a).peer_views(self.world.now());
        let peer = peers.iter().find(|peer| peer.name == "house-b");
        peer.map_or(("none", "unknown"), |peer| (peer.path, peer.why))
    }

    fn path_becomes(&mut self, path: &str) -> bool {
        for _ in 0..30 {
            if self.path().0 == path {
                return true;
            }
            self.reaches("on the way");
            self.world.run(seconds(1));
        }
        false
    }
}

#[test]
fn page_over_relay() {
    let mut homes = Homes::new(1, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
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
    let mut homes = Homes::new(4, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    homes.world.lose(200);
    let came = (0..20)
        .filter(|n| homes.reaches(&format!("try {n}")))
        .count();
    assert!(came >= 18, "{came} of 20");
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
