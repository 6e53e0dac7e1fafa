//! Power comes back: who finds whom again, and how soon.

use altnet_core::node::Command;
use altnet_sim::homes::{Homes, is_member, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_wire::time::Duration;

/// Sends small packets from house A, one every 300 ms, until one comes out at house B. Returns
/// how long that took.
fn until_heard(homes: &mut Homes) -> Option<Duration> {
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    let packet = packet::udp((from, 5000), (to, 80), b"tick");
    let since = homes.world.now();
    let b = homes.b;
    for _ in 0..200 {
        let _ = homes.world.send(homes.a, &packet);
        let tick = Duration::from_millis(300);
        if homes
            .world
            .run_for(tick, |world| !world.delivered(b).is_empty())
        {
            return Some(homes.world.now().saturating_since(since));
        }
    }
    None
}

#[test]
fn a_gateway_that_restarts_hears_small_packets_again_within_seconds() {
    for (seed, nat, path) in [
        (801, Kind::SYMMETRIC, "relay"),
        (802, Kind::SYMMETRIC, "relay"),
        (803, Kind::PORT_RESTRICTED, "direct"),
        (804, Kind::FULL_CONE, "direct"),
    ] {
        let mut homes = Homes::new(seed, nat, nat);
        assert!(homes.path_becomes(path), "{:?}", homes.path());
        // Long enough for a direct address to be kept.
        for _ in 0..10 {
            homes.reaches("for a while");
            homes.world.run(seconds(1));
        }
        homes.world.delivered(homes.b);
        homes.world.restart(homes.b);
        let took = until_heard(&mut homes);
        let soon = took.is_some_and(|took| took <= seconds(3));
        assert!(soon, "{seed}: {took:?} {}", homes.story());
    }
}

#[test]
fn a_gateway_set_aside_by_a_change_of_owners_comes_back_after_a_restart() {
    let mut homes = Homes::new(811, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    assert!(homes.reaches("before"));
    let (change, anew) = homes.founder.replace_owner();
    homes.publish(&change);
    homes.world.run(seconds(5));
    assert!(!homes.reaches("while nobody vouches for anybody"));
    // All three lose power before the new owner has signed anew.
    for host in [homes.b, homes.a, homes.relay] {
        homes.world.restart(host);
    }
    homes.world.run(seconds(60));
    assert!(!homes.reaches("still"));
    for record in &anew {
        homes.publish(record);
    }
    let (relay, a, b) = (homes.relay, homes.a, homes.b);
    let back = homes.world.run_for(seconds(60), |world| {
        [relay, a, b].iter().all(|host| is_member(world, *host))
    });
    assert!(back, "{}", homes.story());
    assert!(homes.reaches("after"), "{}", homes.story());
    homes.world.restart(homes.b);
    assert!(homes.reaches("for good"), "{}", homes.story());
}

#[test]
fn a_gateway_whose_disk_was_restored_from_a_backup_is_reached_again() {
    for (seed, nat) in [(821, Kind::SYMMETRIC), (822, Kind::FULL_CONE)] {
        let mut homes = Homes::new(seed, nat, nat);
        assert!(homes.reaches("before"));
        homes.world.run(seconds(10));
        let backup = homes.world.disk(homes.b).clone();
        // Two keys later nobody knows the one in the backup any more.
        for _ in 0..2 {
            homes.world.command(homes.b, Command::Rotate);
            homes.world.run(seconds(2 * 3600));
            assert!(homes.reaches("with the new key"), "{}", homes.story());
        }
        homes.world.power_off(homes.b);
        *homes.world.disk(homes.b) = backup;
        homes.world.power_on(homes.b);
        homes.world.run(seconds(30));
        assert!(homes.reaches("restored"), "{seed}: {}", homes.story());
        let seen = homes.world.node(homes.a).peer_views(homes.world.now());
        let epoch = seen.iter().find(|p| p.name == "house-b").unwrap();
        let own = homes.world.node(homes.b).identity().tunnel.epoch;
        assert_eq!(epoch.tunnel_epoch, own);
    }
}
