//! Who called: where a session begins, and how many there may be.

use super::*;

#[test]
fn sessions_have_a_limit_and_strangers_a_smaller_one() {
    let limits = ControlLimits::MICRO;
    let mut wire = Wire::new(limits, 20);
    for _ in 0..limits.sessions {
        wire.connect(None);
    }
    assert_eq!(
        wire.nodes[0].connect(None, place(1, 1), wire.now),
        Err(Full)
    );
    wire.run_for(TEN_SECONDS);
    assert_eq!(wire.nodes[1].sessions.len(), limits.strangers);
}

/// Has node 0 call and runs the handshake up to its last word, which it returns unsent.
fn last_word(wire: &mut Wire, remote: Option<ControlKey>) -> Datagram {
    wire.connect(remote);
    for node in [0, 1] {
        wire.drain(node);
        let datagram = wire.sent.last().unwrap().clone();
        wire.deliver(&datagram).unwrap();
    }
    wire.drain(0);
    wire.flying.clear();
    wire.sent.last().unwrap().clone()
}

#[test]
fn regression_who_passes_the_last_word_on_does_not_become_the_endpoint() {
    for remote in [None, member()] {
        let mut wire = Wire::new(ControlLimits::ROUTER, 26);
        let mut word = last_word(&mut wire, remote);
        let thief = place(9, 9);
        word.from = thief;
        assert_eq!(wire.deliver(&word), Ok(()));
        wire.drain(1);
        let b = established(&wire.told[1]).unwrap();
        assert_eq!(wire.nodes[1].endpoint(b), Some(place(0, 1)));
        let ControlEvent::Established { endpoint, .. } = wire.told[1][0] else {
            panic!("{:?}", wire.told[1]);
        };
        assert_eq!(endpoint, place(0, 1));
        let heard = ControlEvent::Heard {
            session: b,
            from: thief,
        };
        assert_eq!(wire.told[1][1..], [heard]);
        assert!(wire.sent.iter().all(|datagram| datagram.to != thief));
    }
}

#[test]
fn a_call_that_moved_before_it_was_answered_is_where_it_moved_to() {
    for remote in [None, member()] {
        let mut wire = Wire::new(ControlLimits::ROUTER, 27);
        wire.connect(remote);
        wire.drain(0);
        let mut init = wire.sent.last().unwrap().clone();
        wire.deliver(&init).unwrap();
        init.from = place(0, 2);
        wire.ports[0] = 2;
        wire.deliver(&init).unwrap();
        wire.run_for(TEN_SECONDS);
        let b = established(&wire.told[1]).unwrap();
        assert_eq!(wire.nodes[1].endpoint(b), Some(place(0, 2)));
    }
}

#[test]
fn one_init_is_answered_at_a_few_places_only() {
    let mut wire = Wire::new(ControlLimits::ROUTER, 28);
    wire.connect(None);
    wire.drain(0);
    let mut init = wire.sent[0].clone();
    let mut answered = 0;
    for node in 0..20 {
        init.from = place(node, 1);
        answered += usize::from(wire.deliver(&init) == Ok(()));
    }
    assert_eq!(answered, limits::MAX_ANSWERED);
    init.from = place(0, 1);
    assert_eq!(wire.deliver(&init), Ok(()));
}

#[test]
fn one_key_has_its_two_newest_sessions() {
    for remote in [None, member()] {
        let mut wire = Wire::new(ControlLimits::ROUTER, 29);
        let first = wire.session(remote);
        let second = wire.connect(remote);
        wire.run_for(TEN_SECONDS);
        assert_eq!(wire.nodes[1].sessions.len(), 2);
        assert!(!has_ended(&wire.told[0]) && !has_ended(&wire.told[1]));
        let third = wire.connect(remote);
        wire.run_for(TEN_SECONDS);
        let kept: Vec<u32> = wire.nodes[0].sessions.keys().copied().collect();
        assert_eq!(kept.len(), 2);
        assert!(kept.contains(&second.0) && kept.contains(&third.0));
        // The caller, where the third stands first, tells the other side.
        let ended = |event: &&ControlEvent| matches!(event, ControlEvent::Closed { .. });
        let ends = [0, 1].map(|node| wire.told[node].iter().find(ended));
        let told = ClosedWhy::Remote(CloseReason::Replaced);
        let replaced = closed(first.0, ClosedWhy::Replaced);
        assert_eq!(ends, [Some(&replaced), Some(&closed(first.1, told))]);
        assert_eq!(wire.nodes[1].sessions.len(), 2);
    }
}

#[test]
fn strangers_from_one_place_are_few() {
    let limits = ControlLimits {
        sessions_per_key: 100,
        strangers_per_s: 100,
        ..ControlLimits::ROUTER
    };
    let mut wire = Wire::new(limits, 30);
    for _ in 0..limits.strangers_per_place + 3 {
        wire.connect(None);
        wire.run_for(Duration::from_millis(100));
    }
    assert_eq!(wire.nodes[1].sessions.len(), limits.strangers_per_place);
    // Members aren't counted.
    wire.connect(member());
    wire.run_for(Duration::from_millis(100));
    assert_eq!(wire.nodes[1].sessions.len(), limits.strangers_per_place + 1);
}

#[test]
fn regression_a_stranger_that_lost_its_power_again_and_again_gets_in() {
    let limits = ControlLimits {
        sessions_per_key: 100,
        strangers_per_s: 100,
        ..ControlLimits::ROUTER
    };
    let mut wire = Wire::new(limits, 32);
    let mut stood = Vec::new();
    for _ in 0..=limits.strangers_per_place {
        stood.push(wire.session(None));
        wire.told = vec![Vec::new(), Vec::new()];
        wire.run_for(Duration::from_millis(100));
    }
    // Another that speaks isn't given up for it: of those left it is the eldest.
    let (a, b) = stood[1];
    wire.nodes[0].send(a, b"still here", wire.now).unwrap();
    wire.run_for(Duration::from_millis(100));
    let newest = wire.session(None);
    let stand = |(_, b): (SessionId, SessionId)| wire.nodes[1].sessions.contains_key(&b.0);
    assert!(!stand(stood[0]) && !stand(stood[2]));
    assert!(stand((a, b)) && stand(newest));
    assert_eq!(wire.nodes[1].sessions.len(), limits.strangers_per_place);
}

#[test]
fn regression_a_stranger_that_only_stays_alive_is_sent_away_after_a_minute() {
    let mut wire = Wire::new(ControlLimits::ROUTER, 31);
    let (a, b) = wire.session(None);
    wire.run_for(Duration::from_secs(40));
    wire.nodes[0].send(a, b"still here", wire.now).unwrap();
    wire.run_for(Duration::from_secs(55));
    assert!(!has_ended(&wire.told[1]));
    // Pings go on, and that isn't enough.
    wire.run_for(TEN_SECONDS);
    let end = closed(b, ClosedWhy::Silent);
    assert_eq!(wire.told[1].last(), Some(&end));
    let told = ClosedWhy::Remote(CloseReason::Done);
    assert_eq!(wire.told[0].last(), Some(&closed(a, told)));
}
