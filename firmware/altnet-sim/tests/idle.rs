//! What an idle gateway costs its line, and that it is reached all the same (ADR 0015).

use altnet_core::node::Config;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{HOUSE_A, seconds};
use altnet_sim::idle::Idle;
use altnet_sim::nat::Kind;
use altnet_wire::relay::{KEEP, KEPT};

/// The most bytes that a day may take behind a NAT that keeps mappings for two minutes.
const AIM_BYTES: u64 = 500_000;

fn idle(seed: u64, kind: Kind, lasts_s: u64) -> Idle {
    let nat = kind.lasting(seconds(lasts_s));
    Idle::new(seed, nat, Config::router(FOUNDED))
}

#[test]
fn an_idle_day_takes_half_a_megabyte_and_every_call_is_answered_within_a_second() {
    for seed in [12_001, 12_002, 12_003] {
        let mut idle = idle(seed, Kind::PORT_RESTRICTED, 120);
        let longest = idle.hours(24);
        let traffic = &idle.traffic;
        assert!(traffic.bytes() <= AIM_BYTES, "{seed}: {traffic:?}");
        assert!(longest <= seconds(1), "{seed}: {longest:?}");
    }
}

#[test]
fn every_call_is_answered_within_a_second_behind_any_patient_nat() {
    let kinds = [
        (Kind::FULL_CONE, 60),
        (Kind::PORT_RESTRICTED, 30),
        (Kind::PORT_RESTRICTED, 600),
        (Kind::SYMMETRIC, 120),
    ];
    for (seed, (kind, lasts_s)) in (12_011..).zip(kinds) {
        let mut idle = idle(seed, kind, lasts_s);
        let longest = idle.hours(12);
        assert!(longest <= seconds(1), "{seed}: {longest:?}");
    }
}

/// How many pauses the gateway begins in an hour.
fn pauses_in_an_hour(idle: &mut Idle) -> usize {
    idle.world.captured.clear();
    idle.world.run(seconds(3600));
    let captured = core::mem::take(&mut idle.world.captured);
    let own = captured
        .iter()
        .filter(|c| c.from.ip().to_string() == HOUSE_A);
    own.filter(|c| matches!(c.bytes[..], [KEEP, 0, high, low, ..] if high | low != 0))
        .count()
}

#[test]
fn the_pause_grows_with_what_the_nat_bears() {
    let hourly = [30, 120, 600].map(|lasts_s| {
        let mut idle = idle(12_021, Kind::PORT_RESTRICTED, lasts_s);
        idle.world.run(seconds(3600));
        pauses_in_an_hour(&mut idle)
    });
    let [short, usual, long] = hourly;
    assert!((120..=150).contains(&short), "{hourly:?}");
    assert!((30..=40).contains(&usual), "{hourly:?}");
    assert!((14..=17).contains(&long), "{hourly:?}");
}

#[test]
fn a_gateway_whose_nat_forgets_it_is_reached_again_within_two_minutes() {
    let mut idle = idle(12_031, Kind::PORT_RESTRICTED, 120);
    idle.world.run(seconds(3600));
    // The NAT starts anew, at the same address: nobody tells the gateway.
    let nat = idle.nat;
    idle.world.renumber(nat, HOUSE_A);
    idle.world.run(seconds(120));
    let answered = idle.call(0);
    assert!(
        answered.is_some_and(|took| took <= seconds(1)),
        "{answered:?}"
    );
}

#[test]
fn an_idle_gateway_registers_anew_with_relays_that_restart() {
    let mut idle = idle(12_041, Kind::PORT_RESTRICTED, 120);
    idle.world.run(seconds(3600));
    for relay in idle.relays {
        idle.world.restart(relay);
    }
    idle.world.run(seconds(300));
    let answered = idle.call(1);
    assert!(
        answered.is_some_and(|took| took <= seconds(1)),
        "{answered:?}"
    );
}

#[test]
fn a_relay_that_does_not_know_how_is_registered_with_as_before() {
    let mut idle = idle(12_051, Kind::PORT_RESTRICTED, 120);
    // What it doesn't know it answers nothing to.
    idle.world
        .lose_kind(|bytes| matches!(bytes.first(), Some(&(KEEP | KEPT))));
    for hour in 0..3 {
        idle.world.run(seconds(3600));
        let answered = idle.call(hour);
        assert!(
            answered.is_some_and(|took| took <= seconds(1)),
            "{answered:?}"
        );
    }
}
