//! Homes that share no relay, and meet through their NATs all the same: their relays pass on who wants to meet whom
//! (ADR 0022).

use altnet_sim::meshes::Meshes;
use altnet_sim::nat::Kind;

/// Within how many seconds two homes become direct.
const SOON_S: u64 = 12;

fn meet(seed: u64, relays: u8, reaches: [&[u8]; 2], nats: [Kind; 2]) -> Option<u64> {
    let mut meshes = Meshes::with_nats(seed, relays, reaches, nats);
    let met = meshes.meet(SOON_S);
    met.map(|met| met.as_millis() as u64)
}

#[test]
fn homes_behind_a_common_and_a_symmetric_nat_meet_whose_relays_are_others() {
    for nats in [
        [Kind::PORT_RESTRICTED, Kind::SYMMETRIC_RANDOM],
        [Kind::SYMMETRIC_RANDOM, Kind::PORT_RESTRICTED],
        [Kind::SYMMETRIC_SEQUENTIAL, Kind::PORT_RESTRICTED],
        [Kind::SYMMETRIC_SEQUENTIAL; 2],
    ] {
        for seed in 18_001..18_004 {
            let met = meet(seed, 4, [&[0, 1], &[2, 3]], nats);
            assert!(met.is_some(), "{nats:?}, seed {seed}");
        }
    }
}

#[test]
fn so_do_homes_of_which_each_reaches_one_relay() {
    let nats = [Kind::PORT_RESTRICTED, Kind::SYMMETRIC_RANDOM];
    for seed in 18_101..18_104 {
        let met = meet(seed, 2, [&[0], &[1]], nats);
        assert!(met.is_some(), "seed {seed}");
    }
}

#[test]
fn so_do_homes_of_which_one_reaches_the_relay_of_the_other() {
    let nats = [Kind::SYMMETRIC_RANDOM, Kind::PORT_RESTRICTED];
    for (seed, reaches) in [(18_201, [&[0, 1][..], &[1]]), (18_202, [&[1], &[0, 1, 2]])] {
        let met = meet(seed, 3, reaches, nats);
        assert!(met.is_some(), "seed {seed}");
    }
}

#[test]
fn two_nats_that_no_search_passes_stay_relayed() {
    let nats = [Kind::SYMMETRIC_RANDOM; 2];
    assert_eq!(meet(18_301, 4, [&[0, 1], &[2, 3]], nats), None);
}

#[test]
fn homes_that_share_a_relay_meet_by_it_although_relays_know_nothing_of_each_other() {
    // As older relays do.
    let nats = [Kind::PORT_RESTRICTED, Kind::SYMMETRIC_RANDOM];
    let mut meshes = Meshes::with(18_401, 3, [&[0, 1], &[1, 2]], nats, |_, config| {
        config.limits.mesh_links = 0;
    });
    assert!(meshes.meet(SOON_S).is_some(), "{}", meshes.story());
}
