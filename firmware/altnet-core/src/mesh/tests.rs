use super::*;
use proptest::prelude::*;
use std::vec::Vec as Many;

fn relay(n: u8) -> NodeId {
    NodeId([n; 16])
}

fn client(n: u8) -> NodeId {
    NodeId([0x80 | n; 16])
}

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn distance(n: u8, rtt: u64) -> Distance {
    Distance {
        relay: relay(n),
        rtt_us: u32::try_from(rtt * 1000).unwrap(),
        lost_per_mille: 0,
    }
}

/// A relay that is linked with these, which are so far in milliseconds.
fn mesh(links: &[(u8, u64)]) -> Mesh {
    let mut mesh = Mesh::new(8);
    let relays: Many<NodeId> = links.iter().map(|(n, _)| relay(*n)).collect();
    mesh.set_relays(&relays, at(0));
    for (n, rtt) in links {
        mesh.set_up(relay(*n), true, Some(ms(*rtt)), at(0));
        names(&mut mesh, *n, &[]);
    }
    mesh
}

fn names(mesh: &mut Mesh, n: u8, clients: &[u8]) {
    let here = clients.iter().map(|n| client(*n));
    mesh.clients(relay(n), true, here, core::iter::empty());
}

fn says(mesh: &mut Mesh, n: u8, distances: &[(u8, u64)]) {
    let all = distances.iter().map(|(to, rtt)| distance(*to, *rtt));
    mesh.distances(relay(n), all.collect());
}

fn hop(n: u8, hops: u8) -> Option<Hop> {
    let relay = relay(n);
    Some(Hop { relay, hops })
}

#[test]
fn a_frame_goes_to_the_relay_that_has_its_destination() {
    let mut mesh = mesh(&[(1, 20), (2, 20)]);
    names(&mut mesh, 2, &[7]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(2, 0));
    assert_eq!(mesh.route(client(8), None, 2, at(1)), None);
    // Of two that have it, to the nearer one.
    mesh.answered(relay(1), ms(2), at(1));
    names(&mut mesh, 1, &[7]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(1, 0));
}

#[test]
fn a_relay_between_is_used_where_that_is_a_fifth_nearer() {
    let mut mesh = mesh(&[(1, 10), (2, 100)]);
    names(&mut mesh, 2, &[7]);
    says(&mut mesh, 1, &[(2, 75)]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(2, 0));
    says(&mut mesh, 1, &[(2, 65)]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(1, 1));
    // In use it stays so until it is nearer no more.
    says(&mut mesh, 1, &[(2, 85)]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(1, 1));
    says(&mut mesh, 1, &[(2, 95)]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(2, 0));
}

#[test]
fn losses_count_as_distance() {
    let mut mesh = mesh(&[(1, 10), (2, 30)]);
    names(&mut mesh, 2, &[7]);
    let mut lossy = distance(2, 10);
    lossy.lost_per_mille = 20;
    mesh.distances(relay(1), [lossy].into_iter().collect());
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(2, 0));
    says(&mut mesh, 1, &[(2, 10)]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(1, 1));
}

#[test]
fn with_one_hop_left_a_frame_goes_to_its_relay_or_nowhere_and_never_back() {
    let mut mesh = mesh(&[(1, 10), (2, 100)]);
    names(&mut mesh, 2, &[7]);
    says(&mut mesh, 1, &[(2, 1)]);
    assert_eq!(mesh.route(client(7), Some(relay(1)), 1, at(1)), hop(2, 0));
    assert_eq!(mesh.route(client(7), Some(relay(2)), 1, at(1)), None);
    assert_eq!(mesh.route(client(7), None, 0, at(1)), None);
}

#[test]
fn a_link_that_carries_no_answer_is_left_within_a_second() {
    let mut mesh = mesh(&[(1, 10), (2, 10)]);
    names(&mut mesh, 2, &[7]);
    says(&mut mesh, 1, &[(2, 10)]);
    let mut asked = Many::new();
    for n in (0..2000).step_by(20) {
        mesh.route(client(7), None, 2, at(n));
        while let Some(relay) = mesh.poll(at(n)) {
            asked.push((n, relay));
            assert!(asked.len() < 100, "it never waits");
        }
        if asked.iter().any(|(_, to)| *to == relay(1)) {
            mesh.answered(relay(1), ms(10), at(n));
        }
        if n == 980 {
            assert_eq!(mesh.route(client(7), None, 2, at(n)), hop(1, 1));
        }
    }
    assert_eq!(asked.first(), Some(&(500, relay(2))));
    // It comes back with an answer.
    mesh.answered(relay(2), ms(10), at(2000));
    assert_eq!(mesh.route(client(7), None, 2, at(2000)), hop(2, 0));
}

#[test]
fn an_idle_link_is_challenged_once_a_minute() {
    let mut mesh = mesh(&[(1, 10)]);
    let mut asked = 0;
    for s in 0..600 {
        while mesh.poll(at(s * 1000)).is_some() {
            asked += 1;
            mesh.answered(relay(1), ms(10), at(s * 1000 + 10));
        }
    }
    assert_eq!(asked, 9);
    assert_eq!(mesh.deadline(), at(600_000));
}

#[test]
fn a_silent_link_is_used_where_there_is_no_other() {
    let mut mesh = mesh(&[(1, 10)]);
    names(&mut mesh, 1, &[7]);
    for n in 0..100 {
        mesh.route(client(7), None, 2, at(n * 20));
        while mesh.poll(at(n * 20)).is_some() {}
    }
    assert!(mesh.is_silent(relay(1)));
    assert_eq!(mesh.route(client(7), None, 2, at(2000)), hop(1, 0));
}

#[test]
fn a_relay_that_says_nothing_of_clients_is_sent_nothing() {
    let mut mesh = Mesh::new(8);
    mesh.set_relays(&[relay(1), relay(2)], at(0));
    for n in [1, 2] {
        mesh.set_up(relay(n), true, Some(ms(10)), at(0));
    }
    names(&mut mesh, 2, &[7]);
    says(&mut mesh, 2, &[(1, 1)]);
    assert_eq!(mesh.own_distances().len(), 1);
    assert_eq!(mesh.deadline(), at(60_000));
    mesh.lost(relay(2));
    assert_eq!(mesh.route(client(7), None, 2, at(1)), None);
}

#[test]
fn who_is_gone_is_sought_at_another_relay() {
    let mut mesh = mesh(&[(1, 10), (2, 20)]);
    names(&mut mesh, 1, &[7]);
    names(&mut mesh, 2, &[7]);
    mesh.gone(relay(1), client(7), at(1));
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(2, 0));
    mesh.gone(relay(2), client(7), at(1));
    assert_eq!(mesh.route(client(7), None, 2, at(1)), None);
    assert!(!mesh.has(client(7)));
}

#[test]
fn a_relay_that_could_not_bring_something_on_rests() {
    let mut mesh = mesh(&[(1, 10), (2, 100)]);
    names(&mut mesh, 2, &[7]);
    says(&mut mesh, 1, &[(2, 10)]);
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(1, 1));
    mesh.gone(relay(1), client(7), at(1));
    assert_eq!(mesh.route(client(7), None, 2, at(1)), hop(2, 0));
}

#[test]
fn a_relay_names_as_many_clients_as_it_may() {
    let mut mesh = mesh(&[(1, 10), (2, 10), (3, 10)]);
    for n in 1..=3u8 {
        let all: Many<u8> = (0..20).map(|c| n * 32 + c).collect();
        names(&mut mesh, n, &all);
    }
    let counts: Many<usize> = mesh.states().map(|link| link.clients).collect();
    assert_eq!(counts, [8, 8, 0]);
    // What one no longer has makes room.
    names(&mut mesh, 1, &[]);
    names(&mut mesh, 3, &[1]);
    assert_eq!(mesh.route(client(1), None, 2, at(1)), hop(3, 0));
}

#[test]
fn a_relay_that_records_name_no_more_is_forgotten() {
    let mut mesh = mesh(&[(1, 10), (2, 10)]);
    names(&mut mesh, 1, &[7]);
    mesh.set_relays(&[relay(2), relay(3)], at(1));
    assert!(!mesh.has(client(7)) && !mesh.is_linked(relay(1)));
    assert!(mesh.is_linked(relay(3)));
}

/// What a relay of the property below is told.
#[derive(Clone, Debug)]
enum Said {
    Clients(u8, u8, Many<u8>),
    Distances(u8, u8, Many<(u8, u16)>),
    Gone(u8, u8, u8),
}

fn said() -> impl Strategy<Value = Said> {
    let id = 0..5u8;
    prop_oneof![
        (id.clone(), id.clone(), prop::collection::vec(0..4u8, 0..4))
            .prop_map(|(to, of, all)| Said::Clients(to, of, all)),
        (
            id.clone(),
            id.clone(),
            prop::collection::vec((0..5u8, any::<u16>()), 0..5)
        )
            .prop_map(|(to, of, all)| Said::Distances(to, of, all)),
        (id.clone(), id, 0..4u8).prop_map(|(to, of, c)| Said::Gone(to, of, c)),
    ]
}

proptest! {
    /// Whatever five relays were made to believe of each other, a frame passes three at most.
    #[test]
    fn no_belief_makes_a_loop(
        all in prop::collection::vec(said(), 0..40),
        begins in 0..5u8,
        to in 0..4u8,
    ) {
        let mut relays: Many<Mesh> = (0..5u8)
            .map(|own| {
                let links: Many<(u8, u64)> =
                    (0..5u8).filter(|n| *n != own).map(|n| (n, 10 + u64::from(n))).collect();
                mesh(&links)
            })
            .collect();
        for one in all {
            match one {
                Said::Clients(to, of, all) => names(&mut relays[usize::from(to)], of, &all),
                Said::Distances(to, of, all) => {
                    let all: Many<(u8, u64)> =
                        all.into_iter().map(|(n, rtt)| (n, rtt.into())).collect();
                    says(&mut relays[usize::from(to)], of, &all);
                }
                Said::Gone(to, of, c) => {
                    relays[usize::from(to)].gone(relay(of), client(c), at(1));
                }
            }
        }
        let (mut here, mut from, mut hops) = (begins, None, 2);
        let mut passed = 1;
        // Nobody has it: each relay sends it on if it can.
        while let Some(next) = relays[usize::from(here)].route(client(to), from, hops, at(2)) {
            prop_assert_ne!(Some(next.relay), from);
            prop_assert!(next.hops < hops);
            from = Some(relay(here));
            (here, hops) = (next.relay.0[0], next.hops);
            passed += 1;
            prop_assert!(passed <= 3);
        }
    }
}
