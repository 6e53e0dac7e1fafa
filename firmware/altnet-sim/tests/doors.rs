//! Joining where no UDP passes, over a stream to the relay that the invite names.

use altnet_core::node::{Command, Event, JoinError};
use altnet_sim::founder::Founder;
use altnet_sim::homes::{Homes, RELAY, entry, invited, is_member, join, join_fails, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::{HostId, World};
use altnet_wire::record::Roles;

/// A world with a relay that admits, and a device behind a NAT with an invite's link.
fn door(seed: u64) -> (World, Founder, HostId, HostId) {
    let mut world = World::new(seed);
    let mut founder = Founder::new("home", 7);
    let relay = world.host(RELAY, None);
    let bundle = founder.relay_bundle(entry());
    join(&mut world, relay, bundle);
    let nat = world.nat(Kind::PORT_RESTRICTED, "198.51.100.1");
    let device = world.host("192.168.1.2", Some(nat));
    (world, founder, relay, device)
}

#[test]
fn a_device_that_no_udp_leaves_joins_over_a_stream_and_is_relayed_over_one() {
    for seed in 850..855 {
        let (mut world, mut founder, _, device) = door(seed);
        world.serve_streams();
        world.block_udp(device, true);
        let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
        join(&mut world, device, invited(link));
        let is_served = world.run_for(seconds(20), |world| {
            let status = world.node(device).status(world.now());
            status.relays.iter().any(|relay| relay.carrier == "tls")
        });
        assert!(is_served, "{:?}", world.told(device));
        world.run(seconds(60));
        assert_eq!(world.streams(), 1, "the stream that it joined by is gone");
        // And it is found there by another home.
        let status = world.node(device).status(world.now());
        assert!(status.directories.iter().all(|directory| directory.synced));
    }
}

#[test]
fn where_udp_passes_nobody_joins_over_a_stream() {
    let (mut world, mut founder, _, device) = door(860);
    world.serve_streams();
    let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
    join(&mut world, device, invited(link));
    assert_eq!(world.streams(), 0);
    world.run(seconds(30));
    assert_eq!(world.streams(), 0);
}

#[test]
fn where_nothing_passes_joining_fails_and_says_so() {
    let (mut world, mut founder, _, device) = door(870);
    world.block_udp(device, true);
    let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
    assert_eq!(
        join_fails(&mut world, device, invited(link)),
        JoinError::NoAnswer
    );
    assert_eq!(world.streams(), 0);
    // It may try again at once, and succeeds when UDP passes.
    world.block_udp(device, false);
    let link = founder.invite("house-b", Roles::GATEWAY, Some(2), entry());
    join(&mut world, device, invited(link));
}

#[test]
fn an_invite_that_was_used_up_is_refused_over_a_stream_too() {
    let (mut world, mut founder, _, device) = door(880);
    world.serve_streams();
    let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
    join(&mut world, device, invited(link.clone()));
    let other = world.host("198.51.100.77", None);
    world.block_udp(other, true);
    let why = join_fails(&mut world, other, invited(link));
    assert!(matches!(why, JoinError::Refused(_)), "{why}");
    world.run(seconds(10));
    assert_eq!(world.streams(), 0, "nothing is left of the attempt");
}

#[test]
fn power_cuts_while_joining_over_a_stream_leave_a_device_outside_or_a_member() {
    for seed in 890..900 {
        let (mut world, mut founder, _, device) = door(seed);
        world.serve_streams();
        world.block_udp(device, true);
        world.slow_disk(device, true);
        let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
        let bundle = Box::new(invited(link.clone()));
        world.command(device, Command::Join { bundle, name: None });
        world.run(core::time::Duration::from_millis(2000 + (seed - 890) * 40));
        world.restart(device);
        if !is_member(&world, device) {
            join(&mut world, device, invited(link));
        }
        let told = world.told(device);
        assert!(
            !told.iter().any(|e| matches!(e, Event::JoinFailed { .. })),
            "{told:?}"
        );
    }
}

#[test]
fn two_homes_without_udp_from_the_start_reach_each_other() {
    let mut homes = Homes::without_udp(901);
    assert!(homes.reaches("over two streams"), "{}", homes.story());
}
