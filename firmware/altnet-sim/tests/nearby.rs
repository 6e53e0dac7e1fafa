//! A laptop behind a gateway that relays for its LAN (ADR 0019).

use altnet_core::node::{Config, DropReason, RelayView, Subnet, Surroundings};
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::{Captured, HostId};
use altnet_wire::message::Mapping;
use altnet_wire::record::Roles;
use altnet_wire::relay::{SEND, UNKNOWN};

/// Two homes, and a laptop on the LAN of home A.
struct Scene {
    homes: Homes,
    laptop: HostId,
}

impl Scene {
    fn new(seed: u64, kinds: [Kind; 2], relays_for_lan: bool) -> Self {
        let config = Config {
            relays_for_lan,
            ..Config::router(FOUNDED)
        };
        let mut homes = Homes::with(seed, kinds, config);
        let laptop = homes.world.host("192.168.1.3", Some(homes.nat_a));
        let link = homes
            .founder
            .invite("laptop", Roles::empty(), None, entry());
        join(&mut homes.world, laptop, invited(link));
        let lan = Subnet {
            address: "192.168.1.2".parse().unwrap(),
            bits: 24,
        };
        let around = Surroundings {
            lans: [lan].into_iter().collect(),
            ..Surroundings::default()
        };
        let a = homes.a;
        homes
            .world
            .with(a, |node, now| node.handle_surroundings(&around, now));
        homes.world.run(seconds(30));
        Self { homes, laptop }
    }

    /// Plugs the laptop into home A's LAN: it has an address of the site's.
    fn arrive(&mut self) {
        let around = Surroundings {
            routers: ["192.168.1.2:51820".parse().unwrap()].into_iter().collect(),
            inside: [self.homes.lan(1, 0x33)].into_iter().collect(),
            ..Surroundings::default()
        };
        let laptop = self.laptop;
        self.homes
            .world
            .with(laptop, |node, now| node.handle_surroundings(&around, now));
    }

    /// Takes it elsewhere.
    fn leave(&mut self) {
        let laptop = self.laptop;
        self.homes.world.with(laptop, |node, now| {
            node.handle_surroundings(&Surroundings::default(), now)
        });
        let nat = self.homes.world.nat(Kind::PORT_RESTRICTED, "198.51.100.77");
        let lines = [("192.168.9.9".to_owned(), Some(nat))];
        self.homes.world.rewire(laptop, &lines);
    }

    fn own(&self) -> std::net::Ipv6Addr {
        let node = self.homes.world.node(self.laptop);
        let network = node.status(self.homes.world.now()).network.unwrap();
        network.address.parse().unwrap()
    }

    /// Has the laptop ask the wiki in home B, which answers; whether the answer came within so many
    /// seconds.
    fn asks(&mut self, within_s: u64) -> bool {
        let (own, wiki) = (self.own(), self.homes.lan(2, 0x80));
        let question = packet::udp((own, 4000), (wiki, 80), b"question");
        let answer = packet::udp((wiki, 80), (own, 4000), b"answer");
        let (laptop, b) = (self.laptop, self.homes.b);
        self.homes.world.delivered(laptop);
        for _ in 0..within_s * 2 {
            let _ = self.homes.world.send(laptop, &question);
            let half = altnet_wire::time::Duration::from_millis(500);
            let came = self.homes.world.run_for(half, |world| {
                if world.delivered(b).contains(&question) {
                    let _ = world.send(b, &answer);
                }
                world.delivered(laptop).contains(&answer)
            });
            if came {
                return true;
            }
        }
        false
    }

    /// The relays that forward for the laptop, its home first.
    fn relays(&self) -> Vec<String> {
        let status = self
            .homes
            .world
            .node(self.laptop)
            .status(self.homes.world.now());
        let mut up: Vec<_> = status.relays.into_iter().filter(|relay| relay.up).collect();
        up.sort_by_key(|relay| !relay.home);
        up.into_iter().map(|relay| relay.name).collect()
    }
}

const KINDS: [Kind; 2] = [Kind::PORT_RESTRICTED; 2];

#[test]
fn a_laptop_that_may_not_send_out_reaches_another_home_through_its_gateway() {
    for (seed, kinds) in [
        (16_001, KINDS),
        (16_002, [Kind::PORT_RESTRICTED, Kind::FULL_CONE]),
        (16_003, [Kind::FULL_CONE, Kind::PORT_RESTRICTED]),
    ] {
        let mut scene = Scene::new(seed, kinds, true);
        scene.homes.world.confine(scene.laptop, true);
        scene.homes.world.restart(scene.laptop);
        assert!(!scene.asks(5), "there is no way yet");
        scene.arrive();
        scene.homes.world.run(seconds(5));
        assert_eq!(scene.relays(), ["house-a"], "{}", scene.homes.story());
        assert!(scene.asks(10), "{}", scene.homes.story());
        // And it is reached from there after a long silence.
        scene.homes.world.run(seconds(600));
        assert!(scene.asks(10), "{}", scene.homes.story());
    }
}

#[test]
fn a_laptop_that_leaves_uses_the_networks_relays_and_its_gateway_again_when_it_is_back() {
    // Whichever comes first: what the gateway says of itself, or what the LAN says of it.
    for seed in 16_022..16_026 {
        let mut scene = Scene::new(seed, KINDS, true);
        scene.arrive();
        scene.homes.world.run(seconds(5));
        assert_eq!(scene.relays(), ["house-a", "relay1"]);
        assert!(scene.asks(10), "{}", scene.homes.story());
        scene.leave();
        assert!(scene.asks(5), "{}", scene.homes.story());
        assert_eq!(scene.relays(), ["relay1"]);
        let home = [("192.168.1.3".to_owned(), Some(scene.homes.nat_a))];
        let laptop = scene.laptop;
        scene.homes.world.rewire(laptop, &home);
        scene.arrive();
        assert!(scene.asks(5), "{}", scene.homes.story());
        scene.homes.world.run(seconds(5));
        assert_eq!(scene.relays(), ["house-a", "relay1"]);
    }
}

#[test]
fn what_the_gateway_sees_of_its_lan_is_told_to_nobody() {
    let mut scene = Scene::new(16_031, KINDS, true);
    scene.arrive();
    scene.homes.world.run(seconds(60));
    assert!(scene.asks(10));
    let now = scene.homes.world.now();
    let status = scene.homes.world.node(scene.laptop).status(now);
    let seen = |name: &str| {
        let relay = status.relays.iter().find(|relay| relay.name == name);
        relay.and_then(|relay| relay.observed.clone())
    };
    assert_eq!(seen("house-a"), None);
    assert!(seen("relay1").is_some_and(|seen| seen.starts_with(HOUSE_A)));
    // Nor does it take the two for two views of one NAT.
    let mapping = scene.homes.world.node(scene.laptop).mapping();
    assert_ne!(mapping, Mapping::EndpointDependent);
}

#[test]
fn a_gateway_forwards_from_and_to_its_lan_alone() {
    let mut scene = Scene::new(16_041, KINDS, true);
    scene.homes.world.confine(scene.laptop, true);
    scene.homes.world.restart(scene.laptop);
    scene.arrive();
    scene.homes.world.run(seconds(5));
    // Home B and the relay are registered at home A's gateway by now.
    scene.homes.world.capture = true;
    assert!(scene.asks(10), "{}", scene.homes.story());
    let is_sent = |c: &&Captured| {
        let ends = (c.from.ip().to_string(), c.to.ip().to_string());
        c.bytes.first() == Some(&SEND) && ends == (HOUSE_B.into(), HOUSE_A.into())
    };
    let captured = core::mem::take(&mut scene.homes.world.captured);
    let sent = captured
        .iter()
        .find(is_sent)
        .expect("home B's way to the laptop");
    let (a, b) = (scene.homes.a, scene.homes.b);
    let now = scene.homes.world.now();
    let status = scene.homes.world.node(b).status(now);
    let is_there = |relay: &RelayView| relay.name == "house-a" && relay.up;
    assert!(status.relays.iter().any(is_there), "{status:?}");
    // None of them takes it for a relay of its own.
    assert!(
        status
            .relays
            .iter()
            .all(|relay| relay.name != "house-a" || !relay.home)
    );
    // What one of them sends another through it gets nowhere.
    let relay = scene.homes.world.node(scene.homes.relay);
    let relay = relay.status(now).network.unwrap().address;
    let relay: std::net::Ipv6Addr = relay.parse().unwrap();
    let mut stray = vec![SEND, 0, 0, 0];
    stray.extend(&sent.bytes[4..12]);
    stray.extend(relay.octets());
    stray.extend([4, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let dropped = |scene: &Scene| {
        let counters = scene.homes.world.node(a).counters();
        counters.dropped(DropReason::RelayToken)
    };
    let before = dropped(&scene);
    scene.homes.world.inject(sent.from, sent.to, stray);
    scene.homes.world.run(seconds(1));
    assert_eq!(dropped(&scene), before + 1);
    // Without a LAN it has no clients at all.
    assert!(scene.homes.world.node(a).relaying().1 >= 2);
    let none = Surroundings::default();
    scene
        .homes
        .world
        .with(a, |node, now| node.handle_surroundings(&none, now));
    assert_eq!(scene.homes.world.node(a).relaying().1, 0);
}

#[test]
fn a_gateway_without_a_laptop_answers_no_stranger() {
    let mut scene = Scene::new(16_061, KINDS, true);
    let now = scene.homes.world.now();
    let status = scene.homes.world.node(scene.homes.a).status(now);
    // As the relay's, it passes the NAT.
    let from = status.relays[0].address.clone().unwrap().parse().unwrap();
    let to = status.relays[0].observed.clone().unwrap().parse().unwrap();
    let mut stray = vec![SEND, 0, 0, 0];
    stray.extend([7; 8 + 16]);
    stray.extend([4, 0, 0, 0]);
    let dropped = |scene: &Scene| {
        let counters = scene.homes.world.node(scene.homes.a).counters();
        counters.dropped(DropReason::RelayToken)
    };
    let before = dropped(&scene);
    scene.homes.world.capture = true;
    scene.homes.world.inject(from, to, stray);
    scene.homes.world.run(seconds(1));
    assert_eq!(dropped(&scene), before + 1, "it arrived");
    let captured = core::mem::take(&mut scene.homes.world.captured);
    assert!(captured.iter().all(|c| c.bytes[0] != UNKNOWN));
}

#[test]
fn a_gateway_that_is_not_to_relays_for_nobody() {
    let mut scene = Scene::new(16_011, KINDS, false);
    scene.homes.world.confine(scene.laptop, true);
    scene.homes.world.restart(scene.laptop);
    scene.arrive();
    scene.homes.world.run(seconds(10));
    assert_eq!(scene.relays(), Vec::<String>::new());
    assert!(!scene.asks(10));
}
