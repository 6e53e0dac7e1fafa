//! Keys and memberships that are replaced while they are in use.

use altnet_core::node::{Command, Event};
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::world::HostId;
use altnet_wire::id::Name;
use altnet_wire::time::Duration;

const DAY: u64 = 86_400;

fn epoch(homes: &Homes, host: HostId) -> u32 {
    homes.world.node(host).identity().tunnel.epoch
}

/// Sends a numbered packet every 50 ms; returns how many of them came.
fn flow(homes: &mut Homes, packets: u32, mut each: impl FnMut(&mut Homes, u32)) -> usize {
    let (from, to) = (homes.lan(1, 0x11), homes.lan(2, 0x80));
    homes.world.delivered(homes.b);
    for n in 0..packets {
        each(homes, n);
        let packet = packet::udp((from, 5000), (to, 80), &n.to_be_bytes());
        let _ = homes.world.send(homes.a, &packet);
        homes.world.run(Duration::from_millis(50));
    }
    homes.world.run(seconds(2));
    let mut got = homes.world.delivered(homes.b);
    got.retain(|p| packet::payload(p).len() == 4);
    let all = got.len();
    got.sort();
    got.dedup();
    assert_eq!(got.len(), all, "nothing comes twice");
    all
}

#[test]
fn a_flow_survives_rotation() {
    for (seed, kind) in [(501, Kind::PORT_RESTRICTED), (502, Kind::SYMMETRIC)] {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, kind);
        assert!(homes.reaches("before"));
        homes.world.run(seconds(20));
        let came = flow(&mut homes, 8000, |homes, n| match n {
            1000 | 5000 => homes.world.command(homes.a, Command::Rotate),
            3000 | 7000 => homes.world.command(homes.b, Command::Rotate),
            _ => {}
        });
        assert_eq!(came, 8000, "{seed}{}", homes.story());
    }
}

#[test]
fn a_flow_survives_rotations_that_cross() {
    for seed in 503..507 {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
        assert!(homes.reaches("before"));
        homes.world.run(seconds(20));
        let came = flow(&mut homes, 3000, |homes, n| match n {
            100 | 105 | 1500 => homes.world.command(homes.a, Command::Rotate),
            103 | 110 => homes.world.command(homes.b, Command::Rotate),
            _ => {}
        });
        assert_eq!(came, 3000, "{seed}{}", homes.story());
    }
}

#[test]
fn a_flow_survives_rotation_under_loss() {
    for seed in 510..514 {
        let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
        assert!(homes.reaches("before"));
        homes.world.run(seconds(20));
        homes.world.lose(50);
        // Two hops by the relay, one in twenty lost at each: ten in a hundred, and some.
        let came = flow(&mut homes, 6000, |homes, n| match n {
            500 => homes.world.command(homes.a, Command::Rotate),
            2500 => homes.world.command(homes.b, Command::Rotate),
            _ => {}
        });
        assert!(came >= 5200, "{came} of 6000{}", homes.story());
    }
}

/// A day of which only minutes are lived through, so that two months fit in a test.
fn days(homes: &mut Homes, days: u64) {
    for day in 0..days {
        homes.world.sleep(seconds(DAY - 600));
        homes.world.run(seconds(600));
        assert!(homes.reaches(&format!("day {day}")), "{}", homes.story());
    }
}

#[test]
fn keys_are_replaced_after_thirty_days() {
    let mut homes = Homes::new(520, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    let hosts = [homes.relay, homes.a, homes.b];
    days(&mut homes, 29);
    assert_eq!(hosts.map(|host| epoch(&homes, host)), [1; 3]);
    days(&mut homes, 3);
    assert_eq!(hosts.map(|host| epoch(&homes, host)), [2; 3]);
    // The key before is let go within a day.
    for host in hosts {
        assert!(homes.world.node(host).identity().previous.is_none());
    }
}

#[test]
fn memberships_are_renewed_over_two_months() {
    let mut homes = Homes::new(530, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    days(&mut homes, 60);
    for host in [homes.relay, homes.a, homes.b] {
        let told = homes.world.told(host);
        let renewed = told.iter().filter(|e| matches!(e, Event::Renewed)).count();
        assert!((2..=8).contains(&renewed), "{renewed} times");
        let status = homes.world.node(host).status(homes.world.now());
        assert!(!status.network.unwrap().expired);
    }
}

#[test]
fn a_membership_that_ended_is_renewed_when_the_issuer_is_back() {
    let mut homes = Homes::new(540, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    homes.world.power_off(homes.relay);
    homes.world.sleep(seconds(31 * DAY));
    homes.world.run(seconds(120));
    assert!(!homes.reaches("ended"));
    homes.world.power_on(homes.relay);
    homes.world.run(seconds(120));
    let came = (0..4).any(|_| homes.reaches("renewed"));
    assert!(came, "{}", homes.story());
}

#[test]
fn what_was_announced_too_often_is_announced_again() {
    let mut homes = Homes::new(461, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    for _ in 0..40 {
        homes.world.command(homes.b, Command::Rotate);
        homes.world.run(seconds(1));
    }
    let newest = epoch(&homes, homes.b);
    let known = |homes: &Homes| {
        let peers = homes.world.node(homes.a).registry().unwrap();
        let b = peers.by_name(&Name::new("house-b").unwrap()).unwrap();
        b.node.unwrap().tunnel.epoch
    };
    assert!(known(&homes) < newest, "nothing was refused");
    homes.world.run(seconds(120));
    assert_eq!(known(&homes), newest);
    assert!(homes.reaches("after"), "{}", homes.story());
}
