//! How relays share their line, bound members, and are left when they are too busy (ADR 0018).

use altnet_core::relay::Quotas;
use altnet_sim::homes::seconds;
use altnet_sim::meshes::{Flow, Meshes};
use altnet_wire::time::Duration;

/// A tenth of a megabit, in bytes a second.
const TENTH_MBIT: u32 = 12_500;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Homes that both reach all of so many relays, and have talked.
fn meshes(seed: u64, relays: u8) -> Meshes {
    let all: Vec<u8> = (0..relays).collect();
    let mut meshes = Meshes::new(seed, relays, [&all, &all]);
    assert!(meshes.ask(10).is_some(), "{}", meshes.story());
    meshes
}

fn bound(meshes: &mut Meshes, relay: u8, quotas: Quotas) {
    let host = meshes.relays[usize::from(relay)];
    meshes.world.with(host, |node, _| node.set_quotas(quotas));
}

#[test]
fn who_sends_ten_times_its_share_takes_nothing_from_another() {
    let mut meshes = meshes(14_001, 1);
    bound(
        &mut meshes,
        0,
        Quotas {
            uplink_bytes_per_s: 10 * TENTH_MBIT,
            ..Quotas::default()
        },
    );
    // Five megabits from one home, a quarter of one from the other, on a line of one.
    let flows = [(1200, ms(2)), (300, ms(10))];
    let [greedy, modest] = meshes.flows(seconds(10), seconds(1), flows);
    assert_eq!(modest.came, modest.sent, "{greedy:?} {modest:?}");
    // It has what the other leaves.
    let had = greedy.came * 1250 / 9;
    assert!((60_000..=100_000).contains(&had), "{greedy:?} {modest:?}");
}

#[test]
fn who_has_sent_as_much_as_it_may_is_told_and_goes_by_another_relay() {
    let mut meshes = meshes(14_011, 2);
    let used = meshes.relay_in_use(0);
    bound(
        &mut meshes,
        used,
        Quotas {
            month_bytes: 100_000,
            ..Quotas::default()
        },
    );
    let slow = (300, ms(100));
    let flows = [(1200, ms(20)), slow];
    let [sender, other] = meshes.flows(seconds(6), seconds(4), flows);
    assert_eq!((sender.came, other.came), (sender.sent, other.sent));
    assert_eq!(meshes.relay_in_use(0), 1 - used, "{}", meshes.story());
    let relays = meshes
        .world
        .node(meshes.homes[0])
        .status(meshes.world.now());
    let refused = relays.relays.iter().filter(|relay| relay.refused_s > 0);
    assert_eq!(refused.count(), 1, "{:?}", relays.relays);
}

#[test]
fn with_one_relay_who_has_sent_as_much_as_it_may_is_told_why_nothing_passes() {
    let mut meshes = meshes(14_021, 1);
    let month_bytes = 50_000;
    let quotas = Quotas {
        month_bytes,
        ..Quotas::default()
    };
    bound(&mut meshes, 0, quotas);
    let flows = [(1200, ms(20)), (300, ms(1000))];
    let [sender, _] = meshes.flows(seconds(6), seconds(4), flows);
    assert_eq!(sender.came, 0);
    let status = meshes
        .world
        .node(meshes.homes[0])
        .status(meshes.world.now());
    let says = status.waits_for.join(" ");
    assert!(says.contains("forwards nothing more"), "{says}");
}

#[test]
fn a_relay_that_is_too_busy_is_left_without_losing_what_passed_before() {
    let mut meshes = meshes(14_031, 2);
    let used = meshes.relay_in_use(0);
    let uplink_bytes_per_s = 10 * TENTH_MBIT;
    let quotas = Quotas {
        uplink_bytes_per_s,
        ..Quotas::default()
    };
    bound(&mut meshes, used, quotas);
    // Just what the line carries: nothing has to be lost.
    let flows = [(1100, ms(20)), (1100, ms(20))];
    let counts = meshes.flows(seconds(120), seconds(0), flows);
    for Flow { sent, came } in counts {
        assert_eq!(sent, came, "{}", meshes.story());
    }
    assert_eq!(meshes.relay_in_use(0), 1 - used, "{}", meshes.story());
    assert_eq!(meshes.relay_in_use(1), 1 - used, "{}", meshes.story());
    let status = meshes
        .world
        .node(meshes.homes[0])
        .status(meshes.world.now());
    let home = status.relays.iter().find(|relay| relay.home);
    let home = home.map(|relay| relay.node.clone()).unwrap_or_default();
    assert_eq!(home, meshes.id(1 - used).to_string());
}
