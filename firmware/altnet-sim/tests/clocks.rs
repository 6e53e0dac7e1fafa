//! Clocks that are wrong, and what is left of it once they are right.

use altnet_core::node::{Command, Config};
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{Homes, entry, invited, join, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::world::HostId;
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, UnixTime};

/// The first second of the year 2400.
const YEAR_2400: UnixTime = UnixTime::from_secs(13_569_465_600);
/// Nine years ahead: wrong, and not absurd.
const IN_NINE_YEARS: UnixTime = FOUNDED.after(Duration::from_secs(9 * 365 * 86_400));

fn homes(seed: u64) -> Homes {
    Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC)
}

fn tell(homes: &mut Homes, host: HostId, time: UnixTime) {
    homes
        .world
        .with(host, |node, now| node.handle_clock(time, now));
}

fn truth(homes: &Homes) -> UnixTime {
    FOUNDED.after(Duration::from_micros(homes.world.now().as_micros()))
}

fn everybody(homes: &Homes) -> [HostId; 3] {
    [homes.relay, homes.a, homes.b]
}

fn works(homes: &mut Homes, text: &str) {
    let came = (0..6).any(|_| homes.reaches(text));
    assert!(came, "{text}{}", homes.story());
}

#[test]
fn clock_1970_everywhere() {
    let mut homes = homes(401);
    for host in everybody(&homes) {
        homes.world.set_clock(host, Some(UnixTime::EPOCH));
        homes.world.power_off(host);
    }
    for host in everybody(&homes) {
        homes.world.power_on(host);
        assert!(!homes.world.node(host).status(homes.world.now()).time_known);
    }
    works(&mut homes, "in 1970");
    homes.world.command(homes.a, Command::Rotate);
    works(&mut homes, "with a new key");
    for host in everybody(&homes) {
        let now = truth(&homes);
        tell(&mut homes, host, now);
    }
    works(&mut homes, "in the present");
}

#[test]
fn clock_unknown_everywhere() {
    let mut homes = homes(402);
    for host in everybody(&homes) {
        homes.world.set_clock(host, None);
        homes.world.restart(host);
    }
    works(&mut homes, "without a clock");
    let late = homes.world.host("203.0.113.77", None);
    homes.world.set_clock(late, None);
    homes.world.restart(late);
    let link = homes
        .founder
        .invite("late", Roles::GATEWAY, Some(3), entry());
    join(&mut homes.world, late, invited(link));
    for host in everybody(&homes) {
        homes.world.restart(host);
        works(&mut homes, "after a restart without a clock");
    }
}

/// What the clock says when a device makes its first keys is the day its program was built, at best.
#[test]
fn first_keys_are_not_as_old_as_the_program() {
    let mut homes = homes(403);
    let built = UnixTime::from_secs(FOUNDED.as_secs() - 40 * 86_400);
    let late = homes
        .world
        .host_with("203.0.113.77", None, Config::router(built));
    let link = homes
        .founder
        .invite("late", Roles::GATEWAY, Some(3), entry());
    join(&mut homes.world, late, invited(link));
    homes.world.run(seconds(60));
    let now = homes.world.now();
    assert!(homes.world.node(late).status(now).time_known);
    assert_eq!(homes.world.node(late).identity().tunnel.epoch, 1);
}

/// One node's clock is forged for an hour, then right again, with and without a restart.
fn forged(seed: u64, time: UnixTime, which: usize, restarts: bool) {
    let mut homes = homes(seed);
    works(&mut homes, "before");
    let host = everybody(&homes)[which];
    let floors: Vec<_> = everybody(&homes)
        .map(|host| homes.world.disk(host).get("floor").cloned())
        .to_vec();
    tell(&mut homes, host, time);
    for _ in 0..6 {
        homes.reaches("meanwhile");
        homes.world.run(seconds(600));
    }
    for (host, floor) in everybody(&homes).into_iter().zip(floors) {
        assert_eq!(
            homes.world.disk(host).get("floor"),
            floor.as_ref(),
            "the floor stays"
        );
    }
    if restarts {
        homes.world.restart(host);
    }
    let now = truth(&homes);
    tell(&mut homes, host, now);
    homes.world.run(seconds(90));
    works(&mut homes, "after");
    // Its keys are still replaced when they are thirty days old, and so are the rest's.
    let epochs =
        |homes: &Homes| everybody(homes).map(|host| homes.world.node(host).identity().tunnel.epoch);
    let before = epochs(&homes);
    for _ in 0..31 {
        homes.world.sleep(seconds(86_000));
        homes.world.run(seconds(400));
    }
    for (at, (before, after)) in before.iter().zip(epochs(&homes)).enumerate() {
        assert!(after > *before, "host {at} has its key for ever");
    }
    works(&mut homes, "a month later");
    let link = homes.founder.invite_lasting(
        "late",
        Roles::GATEWAY,
        Some(3),
        entry(),
        seconds(90 * 86_400),
        1,
    );
    let late = homes.world.host("203.0.113.77", None);
    join(&mut homes.world, late, invited(link));
}

#[test]
fn clock_forged_at_a_gateway_poisons_nothing() {
    forged(411, YEAR_2400, 1, false);
    forged(412, YEAR_2400, 1, true);
    forged(413, IN_NINE_YEARS, 1, false);
    forged(414, IN_NINE_YEARS, 2, true);
}

#[test]
fn clock_forged_at_the_issuer_poisons_nothing() {
    forged(421, YEAR_2400, 0, false);
    forged(422, YEAR_2400, 0, true);
    forged(423, IN_NINE_YEARS, 0, false);
    forged(424, IN_NINE_YEARS, 0, true);
}

#[test]
fn clock_forged_while_joining_poisons_nothing() {
    for (seed, time) in [(431, YEAR_2400), (432, IN_NINE_YEARS)] {
        let mut homes = homes(seed);
        let late = homes.world.host("203.0.113.77", None);
        homes.world.set_clock(late, Some(time));
        homes.world.restart(late);
        let link = homes
            .founder
            .invite("late", Roles::GATEWAY, Some(3), entry());
        join(&mut homes.world, late, invited(link));
        homes.world.run(seconds(60));
        let now = truth(&homes);
        tell(&mut homes, late, now);
        homes.world.run(seconds(90));
        let b = homes.b;
        let came = (0..4).any(|_| homes.reaches_from(late, (3, 1), b, (2, 0x80), "hello"));
        assert!(came, "{seed}{}", homes.story());
    }
}
