//! Homes that only somebody else's DERP server connects (ADR 0020).

use altnet_sim::homes::{HOUSE_A, HOUSE_B, Homes, RELAY, seconds};
use altnet_sim::nat::Kind;

const RANDOM: Kind = Kind::SYMMETRIC_RANDOM;

/// Lets nothing pass between the homes and the relay any more, or lets it pass again.
fn block_relay(homes: &mut Homes, on: bool) {
    for house in [HOUSE_A, HOUSE_B] {
        homes.world.block(house, RELAY, on);
    }
}

/// Whether packets flow by the server within so many seconds.
fn goes_by_derper(homes: &mut Homes, s: usize) -> bool {
    for _ in 0..s {
        if homes.reaches("by DERP") && homes.path() == ("derp", "derp") {
            return true;
        }
        homes.world.run(seconds(1));
    }
    false
}

/// Two homes that know the server, and each other's keys there.
fn homes(seed: u64) -> Homes {
    let mut homes = Homes::new(seed, RANDOM, RANDOM);
    for host in [homes.a, homes.b] {
        homes.world.use_derper(host);
    }
    homes.world.run(seconds(10));
    for host in [homes.a, homes.b, homes.relay] {
        let registry = homes.world.node(host).registry().unwrap();
        let keys = registry
            .members()
            .filter(|m| registry.derp_key(m.id).is_some());
        assert_eq!(keys.count(), 2, "{}", homes.story());
    }
    homes
}

#[test]
fn homes_that_never_talked_meet_by_a_derp_server_once_no_relay_is_left() {
    for seed in 800..805 {
        let mut homes = homes(seed);
        assert_eq!(homes.world.derped(), 0, "nobody is connected without need");
        block_relay(&mut homes, true);
        // Until the registrations have ended.
        homes.world.run(seconds(150));
        assert_eq!(homes.world.derped(), 2, "{}", homes.story());
        assert!(goes_by_derper(&mut homes, 5), "{}", homes.story());
        // They find each other again after restarts, which leave nobody an address to remember.
        for host in [homes.a, homes.b] {
            homes.world.restart(host);
            homes.world.with(host, |node, now| {
                node.handle_derpers(vec!["derp.example:443".into()], now);
            });
        }
        homes.world.run(seconds(10));
        assert!(goes_by_derper(&mut homes, 15), "{}", homes.story());
        block_relay(&mut homes, false);
        for _ in 0..60 {
            homes.reaches("back");
            homes.world.run(seconds(1));
        }
        assert_eq!(homes.path().0, "relay", "{}", homes.story());
    }
}

#[test]
fn when_the_last_relay_falls_silent_a_derp_server_carries() {
    let mut homes = homes(810);
    for _ in 0..20 {
        assert!(homes.reaches("by relay"), "{}", homes.story());
        homes.world.run(seconds(1));
    }
    assert_eq!((homes.path().0, homes.world.derped()), ("relay", 2));
    block_relay(&mut homes, true);
    assert!(goes_by_derper(&mut homes, 5), "{}", homes.story());
    for host in [homes.a, homes.b] {
        homes.world.block_udp(host, true);
    }
    assert!(homes.reaches("no UDP is needed for that"));
}

#[test]
fn connections_end_when_nobody_needs_them() {
    let mut homes = homes(820);
    for _ in 0..20 {
        assert!(homes.reaches("by relay"));
        homes.world.run(seconds(1));
    }
    assert_eq!(homes.world.derped(), 2);
    homes.world.run(seconds(400));
    assert_eq!(homes.world.derped(), 0);
}

#[test]
fn a_server_that_only_one_side_uses_carries_nothing_and_harms_nothing() {
    let mut homes = Homes::new(830, RANDOM, RANDOM);
    homes.world.use_derper(homes.a);
    for _ in 0..30 {
        assert!(homes.reaches("by relay"), "{}", homes.story());
        homes.world.run(seconds(1));
    }
    assert_eq!(homes.path().0, "relay");
    block_relay(&mut homes, true);
    assert!(!goes_by_derper(&mut homes, 3));
    block_relay(&mut homes, false);
    homes.world.run(seconds(60));
    assert!(homes.reaches("by relay again"), "{}", homes.story());
}
