//! Power that goes at any instant, and disks that had not synced yet.
//!
//! `ALTNET_SIM_SEEDS` says how many seeds are tried of each story; ten unless set.

use altnet_core::node::Command;
use altnet_sim::homes::{Homes, entry, invited, is_member, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::{HostId, World};
use altnet_wire::id::{MemberId, Name};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, UnixTime};

fn seeds() -> core::ops::Range<u64> {
    let count = std::env::var("ALTNET_SIM_SEEDS").ok();
    0..count.and_then(|text| text.parse().ok()).unwrap_or(10)
}

/// Another number for each seed and step.
fn chance(seed: u64, step: u64) -> u64 {
    let mixed = (seed << 8 | step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33
}

fn homes(seed: u64) -> Homes {
    let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::PORT_RESTRICTED);
    for host in [homes.relay, homes.a, homes.b] {
        homes.world.slow_disk(host, true);
    }
    if seed.is_multiple_of(3) {
        // Nothing but what is on disk keeps stamps from repeating.
        for host in [homes.a, homes.b] {
            homes.world.set_clock(host, Some(UnixTime::EPOCH));
            homes.world.restart(host);
        }
    }
    homes
}

/// Runs for up to `most` and cuts `host`'s power.
fn cut(world: &mut World, host: HostId, most: Duration, chance: u64) {
    let us = chance % u64::try_from(most.as_micros()).unwrap();
    world.run(Duration::from_micros(us));
    world.restart(host);
}

fn reaches(homes: &mut Homes, text: &str, seed: u64) {
    let came = (0..4).any(|_| homes.reaches(text));
    assert!(came, "seed {seed}: {text}{}", homes.story());
}

fn member_id(homes: &Homes, name: &str) -> Option<MemberId> {
    let registry = homes.world.node(homes.relay).registry()?;
    let member = registry.by_name(&Name::new(name).ok()?)?;
    Some(member.membership.member)
}

#[test]
fn kill_9_joining() {
    for seed in seeds() {
        let mut homes = homes(seed);
        let link = homes
            .founder
            .invite("house-c", Roles::GATEWAY, Some(3), entry());
        let joiner = homes.world.host("203.0.113.50", None);
        homes.world.slow_disk(joiner, true);
        homes.world.restart(joiner);
        let device = |world: &World| world.node(joiner).identity().device.public();
        let mut given = None;
        for step in 0..4 {
            if homes.world.node(joiner).status(homes.world.now()).state == "outside" {
                let bundle = Box::new(invited(link.clone()));
                homes
                    .world
                    .command(joiner, Command::Join { bundle, name: None });
            }
            let victim = if chance(seed, step).is_multiple_of(4) {
                homes.relay
            } else {
                joiner
            };
            cut(
                &mut homes.world,
                victim,
                Duration::from_millis(700),
                chance(seed, 16 + step),
            );
            homes.world.run(seconds(1));
            let now = member_id(&homes, "house-c");
            if homes.world.told(joiner).iter().any(|e| e.id() == "joined") {
                assert!(now.is_some(), "seed {seed}: acknowledged and forgotten");
            }
            assert!(given.is_none() || given == now, "seed {seed}");
            given = now;
        }
        // A join cut off at the issuer ends by itself.
        homes.world.run_for(seconds(120), |world| {
            world.node(joiner).status(world.now()).state != "joining"
        });
        if !is_member(&homes.world, joiner) {
            join(&mut homes.world, joiner, invited(link.clone()));
        }
        homes.world.run(seconds(2));
        let member = member_id(&homes, "house-c");
        assert!(
            given.is_none() || given == member,
            "seed {seed}: the same membership"
        );
        let registry = homes.world.node(homes.relay).registry().unwrap();
        assert_eq!(registry.members().count(), 4, "seed {seed}");
        let held = registry
            .by_device(&device(&homes.world))
            .map(|m| m.membership.member);
        assert_eq!(held, member, "seed {seed}");
        let came = (0..4).any(|_| {
            let (b, to) = (homes.b, (2, 0x80));
            homes.reaches_from(joiner, (3, 0x11), b, to, "from house c")
        });
        assert!(came, "seed {seed}{}", homes.story());
    }
}

#[test]
fn kill_9_saving() {
    for seed in seeds() {
        let mut homes = homes(seed);
        let name = Name::new("printer").unwrap();
        for step in 0..4 {
            let address = homes.lan(1, 0x20 + step);
            let set = Command::SetHost {
                name: name.clone(),
                address: Some(address),
            };
            let victim = if chance(seed, step).is_multiple_of(3) {
                homes.relay
            } else {
                homes.a
            };
            if homes
                .world
                .with(homes.a, |node, now| node.handle_command(set, now))
                .is_err()
            {
                panic!("seed {seed}: a gateway names machines");
            }
            cut(
                &mut homes.world,
                victim,
                Duration::from_millis(150),
                chance(seed, 16 + step),
            );
            let registry = homes
                .world
                .node(homes.a)
                .registry()
                .expect("still a member");
            let held = registry.host(&name).and_then(|host| host.record.address);
            let allowed = (0..=step).map(|n| homes.lan(1, 0x20 + n));
            assert!(
                held.is_none_or(|held| allowed.clone().any(|a| a == held)),
                "seed {seed}"
            );
        }
        let address = homes.lan(1, 0x77);
        let set = Command::SetHost {
            name: name.clone(),
            address: Some(address),
        };
        homes.world.command(homes.a, set);
        let (a, b, relay) = (homes.a, homes.b, homes.relay);
        let agreed = homes.world.run_for(seconds(60), |world| {
            [a, b, relay].into_iter().all(|host| {
                let held = world
                    .node(host)
                    .registry()
                    .and_then(|r| r.host(&name)?.record.address);
                held == Some(address)
            })
        });
        assert!(agreed, "seed {seed}{}", homes.story());
        reaches(&mut homes, "after the cuts", seed);
    }
}

#[test]
fn kill_9_rotating() {
    for seed in seeds() {
        let mut homes = homes(seed);
        reaches(&mut homes, "before", seed);
        for step in 0..4 {
            let (rotates, victim) = match chance(seed, step) % 4 {
                0 => (homes.a, homes.a),
                1 => (homes.a, homes.b),
                2 => (homes.b, homes.b),
                _ => (homes.b, homes.relay),
            };
            homes.world.command(rotates, Command::Rotate);
            cut(
                &mut homes.world,
                victim,
                Duration::from_millis(150),
                chance(seed, 16 + step),
            );
            reaches(&mut homes, &format!("after cut {step}"), seed);
        }
        for host in [homes.a, homes.b] {
            homes.world.restart(host);
            reaches(&mut homes, "handshakes are newer than the last", seed);
        }
    }
}

#[test]
fn kill_9_again_and_again_repeats_no_stamp() {
    for seed in seeds() {
        let mut homes = homes(seed);
        for step in 0..6 {
            let host = if step % 2 == 0 { homes.a } else { homes.b };
            cut(
                &mut homes.world,
                host,
                Duration::from_millis(300),
                chance(seed, step),
            );
            reaches(&mut homes, &format!("after cut {step}"), seed);
        }
    }
}
