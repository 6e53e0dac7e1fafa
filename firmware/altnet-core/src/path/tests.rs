use super::*;
use alloc::vec::Vec;
use altnet_wire::message::Candidate;
use proptest::prelude::*;

const PEER: NodeId = NodeId([1; 16]);
const RELAY: NodeId = NodeId([2; 16]);

fn at(ms: u64) -> Instant {
    Instant::from_micros(ms * 1000)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn candidate(port: u16) -> Candidate {
    Candidate {
        address: address(port),
        kind: CandidateKind::Reflexive,
    }
}

fn relayed() -> Option<Endpoint> {
    Some(Endpoint::Relayed {
        relay: RELAY,
        node: PEER,
    })
}

/// Runs the machine from `from` to `to`, answering challenges to the ports in `alive`.
fn run(
    path: &mut Path,
    from: u64,
    to: u64,
    alive: &[u16],
    sending: bool,
) -> Vec<(u64, SocketAddr)> {
    let mut probes = Vec::new();
    for ms in (from..to).step_by(50) {
        if sending {
            path.sent(at(ms));
        }
        while let Some(Endpoint::Direct(to)) = path.poll_probe(&mut |_| true, at(ms)) {
            probes.push((ms, to));
            if alive.contains(&to.port()) {
                path.answered(Endpoint::Direct(to), Duration::from_millis(20), at(ms + 20));
            }
        }
    }
    probes
}

#[test]
fn a_path_is_relayed_until_a_challenge_is_answered() {
    let mut path = Path::new(PEER, at(0));
    path.set_relays(&[RELAY], at(0));
    assert_eq!(
        (path.current(), path.why()),
        (relayed(), Why::RelayNoCandidates)
    );
    path.set_candidates(&[candidate(1), candidate(2)], at(0));
    assert_eq!((path.current(), path.why()), (relayed(), Why::RelayTrying));
    run(&mut path, 0, 1000, &[2], true);
    assert_eq!(path.current(), Some(Endpoint::Direct(address(2))));
    assert_eq!(path.why(), Why::DirectAnswered(CandidateKind::Reflexive));
}

#[test]
fn an_address_that_never_answers_gets_few_challenges() {
    let mut path = Path::new(PEER, at(0));
    path.set_relays(&[RELAY], at(0));
    path.set_candidates(&[candidate(1)], at(0));
    let probes = run(&mut path, 0, 60_000, &[], true);
    assert_eq!(probes.len(), usize::from(Pace::USUAL.probes_in_a_row));
    assert_eq!(path.why(), Why::RelayNoAnswer);
}

#[test]
fn a_silent_direct_path_is_left_within_five_seconds_and_found_again() {
    let mut path = Path::new(PEER, at(0));
    path.set_relays(&[RELAY], at(0));
    path.set_candidates(&[candidate(1)], at(0));
    run(&mut path, 0, 1000, &[1], true);
    run(&mut path, 1000, 6000, &[], true);
    assert_eq!(
        (path.current(), path.why()),
        (relayed(), Why::RelayDirectLost)
    );
    run(&mut path, 6000, 90_000, &[1], true);
    assert_eq!(path.current(), Some(Endpoint::Direct(address(1))));
}

#[test]
fn a_peer_nothing_is_sent_to_is_not_probed() {
    let mut path = Path::new(PEER, at(0));
    path.set_candidates(&[candidate(1)], at(0));
    run(&mut path, 0, 1000, &[1], true);
    let probes = run(&mut path, 300_000, 900_000, &[1], false);
    assert!(probes.is_empty());
    assert_eq!(path.deadline(at(900_000)), Instant::NEVER);
}

#[test]
fn without_relay_or_answer_the_fixed_address_is_tried() {
    let mut path = Path::new(PEER, at(0));
    assert_eq!((path.current(), path.why()), (None, Why::NoWay));
    path.set_candidates(&[candidate(7)], at(0));
    assert_eq!(path.current(), Some(Endpoint::Direct(address(7))));
    assert_eq!(path.why(), Why::Untested);
}

#[test]
fn an_address_merely_named_is_not_proven_and_one_that_shook_hands_is() {
    let mut path = Path::new(PEER, at(0));
    path.set_candidates(&[candidate(1), candidate(2)], at(0));
    assert!(!path.is_proven());
    path.heard(Endpoint::Direct(address(2)), at(10));
    path.call_failed(path.current().expect("a way"), at(20));
    assert_eq!(path.current(), Some(Endpoint::Direct(address(2))));
    assert!(!path.is_proven(), "heard is not answered");
    path.shook(Endpoint::Direct(address(2)), at(30));
    assert!(path.is_proven() && path.poll_proven());
    assert_eq!(path.why(), Why::DirectHeard);
    // What it says later doesn't move it to an address that nobody answers at.
    path.set_candidates(&[candidate(3)], at(40));
    assert_eq!(path.current(), Some(Endpoint::Direct(address(2))));
    assert!(path.is_proven());
}

#[test]
fn an_address_heard_from_is_called_before_one_merely_named() {
    let mut path = Path::new(PEER, at(0));
    let fixed = Candidate {
        address: address(1),
        kind: CandidateKind::Host,
    };
    path.set_candidates(&[fixed], at(0));
    assert!(path.heard(Endpoint::Direct(address(9)), at(5)));
    assert_eq!(path.current(), Some(Endpoint::Direct(address(9))));
    for n in 0..LOST {
        path.call_failed(path.current().expect("a way"), at(10 + u64::from(n)));
    }
    assert_eq!(path.current(), Some(Endpoint::Direct(address(1))));
}

#[test]
fn a_peer_that_moved_is_followed_to_where_it_shook_hands_last() {
    let mut path = Path::new(PEER, at(0));
    path.shook(Endpoint::Direct(address(1)), at(1));
    path.shook(Endpoint::Direct(address(2)), at(2));
    assert_eq!(path.current(), Some(Endpoint::Direct(address(2))));
}

#[test]
fn only_the_address_that_asked_is_waited_for() {
    let mut path = Path::new(PEER, at(0));
    path.asked(Endpoint::Direct(address(1)), at(7));
    assert_eq!(path.asked_from(Endpoint::Direct(address(1))), Some(at(7)));
    assert_eq!(path.asked_from(Endpoint::Direct(address(2))), None);
}

#[test]
fn naming_an_address_again_earns_no_further_challenges_while_it_rests() {
    let mut path = Path::new(PEER, at(0));
    path.set_relays(&[RELAY], at(0));
    let mut probes = 0;
    for s in 0..60 {
        path.set_candidates(&[candidate(1)], at(s * 1000));
        probes += run(&mut path, s * 1000, (s + 1) * 1000, &[], true).len();
    }
    assert_eq!(probes, usize::from(Pace::USUAL.probes_in_a_row));
}

#[test]
fn what_a_peer_names_now_is_tried_however_many_addresses_it_had_before() {
    let mut path = Path::new(PEER, at(0));
    path.set_relays(&[RELAY], at(0));
    // It moves every few seconds, and is heard at each address.
    for move_ in 0..12_u16 {
        let from = u64::from(move_) * 5000;
        let named = [candidate(move_ * 2), candidate(move_ * 2 + 1)];
        path.set_candidates(&named, at(from));
        run(&mut path, from, from + 5000, &[move_ * 2], true);
        assert_eq!(path.current(), Some(Endpoint::Direct(address(move_ * 2))));
    }
    path.set_candidates(&[candidate(100), candidate(101)], at(60_000));
    let tried = |port| path.tried().any(|tried| tried.address == address(port));
    assert!(tried(100) && tried(101));
}

#[test]
fn a_challenge_that_may_not_be_sent_is_not_counted() {
    let mut path = Path::new(PEER, at(0));
    path.set_candidates(&[candidate(1)], at(0));
    for s in 0..30 {
        path.sent(at(s * 1000));
        assert_eq!(path.poll_probe(&mut |_| false, at(s * 1000)), None);
    }
    let probes = run(&mut path, 40_000, 99_000, &[], true);
    assert_eq!(probes.len(), usize::from(Pace::USUAL.probes_in_a_row));
    // And one that is alive is challenged whatever else is knocked at.
    run(&mut path, 110_000, 190_000, &[1], true);
    assert!(path.is_proven());
    path.sent(at(210_000));
    assert!(path.poll_probe(&mut |_| false, at(210_000)).is_some());
}

#[test]
fn hints_are_two_at_most_and_take_nothing_from_what_the_peer_said() {
    let mut path = Path::new(PEER, at(0));
    let own: Vec<Candidate> = (1..=7).map(candidate).collect();
    path.set_candidates(&own, at(0));
    for round in 0..10 {
        let named: Vec<Candidate> = (0..8).map(|n| candidate(100 + round * 8 + n)).collect();
        path.hint(&named, at(0));
        assert!(
            own.iter()
                .all(|c| path.directs.iter().any(|d| d.address == c.address))
        );
    }
    let mut path = Path::new(PEER, at(0));
    for round in 0..10 {
        let named: Vec<Candidate> = (0..8).map(|n| candidate(100 + round * 8 + n)).collect();
        path.hint(&named, at(0));
    }
    assert_eq!(path.direct_count(), HINTS);
}

#[test]
fn after_a_failed_call_the_next_relay_is_tried() {
    let other = NodeId([3; 16]);
    let mut path = Path::new(PEER, at(0));
    path.set_relays(&[RELAY, other], at(0));
    path.call_failed(path.current().expect("a way"), at(1));
    let through = |relay| Some(Endpoint::Relayed { relay, node: PEER });
    assert_eq!(path.current(), through(other));
    path.set_relays(&[RELAY, other], at(2));
    assert_eq!(path.current(), through(other), "the order was kept");
    path.call_failed(path.current().expect("a way"), at(3));
    assert_eq!(path.current(), through(RELAY));
    path.set_relays(&[other, RELAY], at(4));
    assert_eq!(path.current(), through(other), "it says where it is now");
}

proptest! {
    #[test]
    fn the_current_path_is_always_one_that_was_offered(steps in proptest::collection::vec((0u8..6, 0u16..12, 0u64..4000), 0..200)) {
        let mut path = Path::new(PEER, at(0));
        let mut now = 0;
        for (what, port, pass) in steps {
            now += pass;
            match what {
                0 => path.add_candidate(candidate(port), at(now)),
                1 => path.set_relays(if port % 2 == 0 { &[RELAY] } else { &[] }, at(now)),
                2 => path.answered(Endpoint::Direct(address(port)), Duration::from_millis(pass), at(now)),
                3 => { path.heard(Endpoint::Direct(address(port)), at(now)); }
                4 => path.sent(at(now)),
                _ => { while path.poll_probe(&mut |_| true, at(now)).is_some() {} }
            }
            match path.current() {
                Some(Endpoint::Direct(a)) => prop_assert!(path.directs.iter().any(|d| d.address == a)),
                Some(relay) => prop_assert!(Some(relay) == relayed() && path.relays.first().is_some()),
                None => prop_assert!(path.directs.is_empty() && path.relays.first().is_none()),
            }
        }
    }
}
