//! A line that is paid by the byte: what isn't sent along it, and that its owner is reached all the
//! same (ADR 0015).

use altnet_core::node::Config;
use altnet_sim::founder::FOUNDED;
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::idle::Idle;
use altnet_sim::nat::Kind;

fn config(metered: bool) -> Config {
    Config {
        metered,
        ..Config::router(FOUNDED)
    }
}

/// The bytes of a day, and the longest that a call waited for its answer.
fn day(seed: u64, lasts_s: u64, metered: bool) -> (u64, altnet_wire::time::Duration) {
    let nat = Kind::PORT_RESTRICTED.lasting(seconds(lasts_s));
    let mut idle = Idle::new(seed, nat, config(metered));
    let longest = idle.hours(24);
    (idle.traffic.bytes(), longest)
}

#[test]
fn an_idle_day_costs_a_metered_line_less_and_every_call_is_answered_within_a_second() {
    for (seed, lasts_s) in [(14_001, 120), (14_002, 120), (14_003, 60)] {
        let (usual, _) = day(seed, lasts_s, false);
        let (metered, longest) = day(seed, lasts_s, true);
        assert!(
            metered < usual - usual / 20,
            "{seed}: {metered} and {usual} bytes"
        );
        assert!(longest <= seconds(1), "{seed}: {longest:?}");
    }
}

/// Two homes that only a search would bring together, after packets flowed for a while: the mappings
/// of the NATs, and whether the way is direct.
fn after_a_while(seed: u64, metered: bool) -> ([usize; 2], bool) {
    let kinds = [Kind::PORT_RESTRICTED, Kind::SYMMETRIC_RANDOM];
    let mut homes = Homes::with(seed, kinds, config(metered));
    for _ in 0..20 {
        assert!(homes.reaches("by relay or directly"), "{}", homes.story());
        homes.world.run(seconds(1));
    }
    let mappings = [homes.nat_a, homes.nat_b].map(|nat| homes.world.mappings(nat));
    (mappings, homes.path().0 == "direct")
}

#[test]
fn no_way_is_searched_from_a_metered_line_and_packets_go_by_the_relay() {
    let (mappings, is_direct) = after_a_while(14_011, false);
    assert!(is_direct && mappings[1] > 100, "{mappings:?}");
    let (mappings, is_direct) = after_a_while(14_011, true);
    assert!(
        !is_direct && mappings.iter().all(|m| *m < 10),
        "{mappings:?}"
    );
}
