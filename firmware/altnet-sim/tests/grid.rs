//! Every pair of NATs, as far as UDP passes: who meets directly, and how soon.

use altnet_sim::grid::{Expected, LINES, Line, Pair};
use altnet_sim::homes::{Homes, seconds};
use altnet_sim::nat::Kind;
use altnet_wire::time::Duration;

/// How many seeds a pair gets: `ALTNET_SIM_SEEDS`, a hundred at most, or three.
fn seeds() -> u64 {
    let given = std::env::var("ALTNET_SIM_SEEDS");
    given
        .map_or(3, |text| text.parse().expect("a number of seeds"))
        .min(100)
}

fn check(lines: [Line; 2]) -> Result<(), String> {
    let expected = lines[0].with(lines[1]);
    let (mut late, count) = (0, seeds());
    let mut story = String::new();
    for seed in 0..count {
        let mut pair = Pair::new(500 + seed, lines);
        let most = match expected {
            Expected::Must => 5,
            Expected::Likely | Expected::Relay => 10,
        };
        let met = pair.meet(seconds(most));
        let soon = match lines.contains(&Line::UdpBlocked) {
            true => Duration::from_secs(2),
            false => Duration::from_secs(1),
        };
        if met.first_packet.is_none_or(|first| first > soon) {
            return Err(format!("{lines:?}, seed {seed}: {met:?}\n{}", pair.story()));
        }
        if met.direct.is_none() {
            late += 1;
            story = format!("seed {seed}: {met:?}\n{}", pair.story());
        }
    }
    let holds = match expected {
        Expected::Must => late == 0,
        Expected::Likely => late * 20 <= count,
        Expected::Relay => late == count,
    };
    if holds {
        Ok(())
    } else {
        Err(format!(
            "{lines:?} is not {expected:?}: {late} of {count} late\n{story}"
        ))
    }
}

/// Each pair of a line with itself and those after it, both ways round.
fn check_line(a: Line) {
    let mut faults = Vec::new();
    let place = LINES.iter().position(|line| *line == a);
    for b in &LINES[place.expect("one of them")..] {
        let says = a.with(*b);
        assert_eq!(
            says,
            b.with(a),
            "the table says two things of {a:?} and {b:?}"
        );
        faults.extend(check([a, *b]).err());
        if a != *b {
            faults.extend(check([*b, a]).err());
        }
    }
    let count = faults.len();
    assert!(faults.is_empty(), "{count} pairs:\n{}", faults.join("\n"));
}

macro_rules! lines {
    ($($test:ident $line:ident,)*) => {
        $(#[test]
        fn $test() {
            check_line(Line::$line);
        })*
    };
}

lines! {
    an_open_line_meets_every_other Open,
    a_full_cone_meets_every_line_from_itself_on FullCone,
    an_address_restricted_one_meets_every_line_from_itself_on AddressRestricted,
    a_port_restricted_one_meets_every_line_from_itself_on PortRestricted,
    a_symmetric_one_that_counts_meets_every_line_from_itself_on SymmetricSequential,
    a_symmetric_one_meets_every_line_from_itself_on SymmetricRandom,
    a_carriers_customer_meets_every_line_from_itself_on Cgnat,
    a_symmetric_carriers_customer_meets_every_line_from_itself_on CgnatSymmetric,
    two_of_one_carrier_meet_by_its_address Hairpin,
    one_without_udp_meets_every_line_from_itself_on UdpBlocked,
    one_without_ipv4_meets_every_line_from_itself_on V6Only,
    one_with_both_families_meets_its_like DualStack,
}

#[test]
fn with_one_relay_who_cannot_tell_how_a_nat_maps_a_way_is_found_too() {
    let count = seeds();
    let mut late = 0;
    for seed in 0..count {
        for kinds in [
            [Kind::PORT_RESTRICTED, Kind::SYMMETRIC_RANDOM],
            [Kind::SYMMETRIC_SEQUENTIAL, Kind::PORT_RESTRICTED],
        ] {
            let mut homes = Homes::new(700 + seed, kinds[0], kinds[1]);
            assert!(homes.reaches("by relay"));
            let (mut tried, mut path) = (0, homes.path().0);
            while path != "direct" && tried < 12 {
                homes.reaches("on the way");
                homes.world.run(seconds(1));
                (tried, path) = (tried + 1, homes.path().0);
            }
            late += u64::from(path != "direct");
        }
    }
    assert!(late * 20 <= 2 * count, "{late} of {} late", 2 * count);
}
