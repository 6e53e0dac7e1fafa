//! Every pair of NATs, as far as UDP passes: who meets directly, and how soon.

use altnet_sim::grid::{Expected, LINES, Line, Pair};
use altnet_sim::homes::seconds;
use altnet_wire::time::Duration;

/// How many seeds a pair gets: `ALTNET_SIM_SEEDS`, or three.
fn seeds() -> u64 {
    std::env::var("ALTNET_SIM_SEEDS").map_or(3, |text| text.parse().expect("a number of seeds"))
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
        if met
            .first_packet
            .is_none_or(|first| first > Duration::from_millis(1000))
        {
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

#[test]
fn every_pair_meets_as_the_table_says() {
    let mut faults = Vec::new();
    for (place, a) in LINES.iter().enumerate() {
        for b in &LINES[place..] {
            assert_eq!(
                a.with(*b),
                b.with(*a),
                "the table says two things of {a:?} and {b:?}"
            );
            faults.extend(check([*a, *b]).err());
            if a != b {
                faults.extend(check([*b, *a]).err());
            }
        }
    }
    assert!(
        faults.is_empty(),
        "{} pairs:\n{}",
        faults.len(),
        faults.join("\n")
    );
}
