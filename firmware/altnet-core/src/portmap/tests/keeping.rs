//! Renewal, restarts of the router, moves, and the end.

use super::*;

#[test]
fn a_mapping_is_renewed_from_half_its_life_on_and_lost_at_its_end() {
    let mut lab = Lab::held_by_pcp(800);
    let mut at = Vec::new();
    let begun = lab.now;
    let lost = loop {
        let (spoken, _) = lab.sleep();
        if let Some(fact) = spoken.facts.first() {
            break *fact;
        }
        assert_eq!(map_of(&spoken.pcp[0]).external, OUTSIDE.parse().unwrap());
        at.push(lab.now.saturating_since(begun).as_secs_f32());
    };
    assert!((400.0..=500.0).contains(&at[0]), "{at:?}");
    assert!((600.0..=725.0).contains(&at[1]), "{at:?}");
    assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= 4.0), "{at:?}");
    assert_eq!(lost, Fact::Lost(Why::Expired));
    assert_eq!(lab.now.saturating_since(begun), Duration::from_secs(800));
    assert!(matches!(lab.mapper.state, State::Asking { .. }));
}

#[test]
fn a_renewed_mapping_lasts_longer() {
    let mut lab = Lab::held_by_pcp(800);
    let (request, _) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
    let facts = lab.answer_pcp(&given(&request, OUTSIDE, 800, 1450));
    let [Fact::Mapped(mapping)] = facts[..] else {
        panic!("{facts:?}");
    };
    assert_eq!(mapping.until, lab.now.after(Duration::from_secs(800)));
}

#[test]
fn a_long_lifetime_is_capped_and_a_short_one_honoured() {
    let lab = Lab::held_by_pcp(86400);
    let until = lab.mapper.mapping().unwrap().until;
    assert_eq!(until, lab.now.after(Duration::from_secs(7200)));
    let mut lab = Lab::held_by_pcp(5);
    let (_, after) = lab.sleep();
    assert_eq!(after, MIN_PAUSE);
}

const MIN_PAUSE: Duration = Duration::from_secs(4);

#[test]
fn a_router_that_started_anew_is_asked_again_within_seconds() {
    let mut lab = Lab::held_by_pcp(7200);
    lab.pass(100);
    assert!(lab.answer_pcp(&announced(1100)).is_empty());
    let (spoken, until) = lab.drain();
    assert!(spoken.pcp.is_empty() && until.saturating_since(lab.now) > Duration::from_secs(60));

    assert_eq!(lab.answer_pcp(&announced(2)), [Fact::Restarted]);
    let (request, after) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
    assert!(after <= Duration::from_secs(2), "{after:?}");
    assert_eq!(map_of(&request).external, OUTSIDE.parse().unwrap());
    let facts = lab.answer_pcp(&given(&request, "198.51.100.8:4660", 7200, 3));
    let [Fact::Mapped(mapping)] = facts[..] else {
        panic!("{facts:?}");
    };
    assert_eq!(mapping.external, "198.51.100.8:4660".parse().unwrap());
}

#[test]
fn a_restart_that_another_machine_heard_is_followed_too() {
    let mut lab = Lab::held_by_pcp(7200);
    lab.mapper.handle_restart(lab.now);
    assert!(lab.drain().0.facts.is_empty(), "it is not told back");
    let (_, after) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
    assert!(after <= Duration::from_secs(2), "{after:?}");
}

#[test]
fn a_router_that_started_anew_without_pcp_is_asked_by_the_others() {
    let mut lab = Lab::held_by_nat_pmp();
    lab.pass(100);
    lab.answer_nat_pmp(0, Answer::ExternalAddress(Ipv4Addr::new(198, 51, 100, 7)));
    let (_, after) = lab.sleep_until(|spoken| spoken.nat_pmp.first().copied());
    assert!(after <= Duration::from_secs(2), "{after:?}");
    lab.mapper.handle_unreachable(lab.now);
    let (spoken, _) = lab.drain();
    lab.mapper
        .handle_igd(spoken.asks[0].id, Said::Absent, lab.now);
    let (spoken, _) = lab.drain();
    assert_eq!(spoken.pcp.len(), 1, "the round goes on to where it began");
    lab.mapper.handle_unreachable(lab.now);
    assert_eq!(lab.drain().0.facts, [Fact::Lost(Why::Silent)]);
}

#[test]
fn a_start_that_is_announced_by_another_protocol_is_heard_once() {
    let mut lab = Lab::held_by_nat_pmp();
    lab.pass(10);
    lab.answer_pcp(&announced(0));
    let (_, after) = lab.sleep_until(|spoken| spoken.nat_pmp.first().copied());
    assert!(after <= Duration::from_secs(2), "{after:?}");
    let address = Ipv4Addr::new(198, 51, 100, 7);
    lab.answer_nat_pmp(2, Answer::ExternalAddress(address));
    lab.answer_nat_pmp(2, Answer::Map(nat_pmp_map(7200)));
    // Routers say it several times.
    lab.answer_pcp(&announced(1));
    let (_, until) = lab.drain();
    assert!(until.saturating_since(lab.now) > Duration::from_secs(60));
}

#[test]
fn a_new_address_of_the_router_is_told_by_nat_pmp() {
    let mut lab = Lab::held_by_nat_pmp();
    lab.pass(10);
    let facts = lab.answer_nat_pmp(
        1010,
        Answer::ExternalAddress(Ipv4Addr::new(198, 51, 100, 9)),
    );
    let [Fact::Mapped(mapping)] = facts[..] else {
        panic!("{facts:?}");
    };
    assert_eq!(mapping.external, "198.51.100.9:4660".parse().unwrap());
}

#[test]
fn a_restart_of_the_igd_is_followed_by_a_new_ask() {
    let mut lab = Lab::new();
    lab.drain();
    let (ask, _) = lab.sleep_until(|spoken| spoken.asks.first().copied());
    let external = "198.51.100.7:51820".parse().unwrap();
    let said = Said::Mapped {
        external,
        lifetime_s: 7200,
    };
    lab.mapper.handle_igd(ask.id, said, lab.now);
    lab.mapper.handle_igd_restart(lab.now);
    let (again, after) = lab.sleep_until(|spoken| spoken.asks.first().copied());
    assert!(after <= Duration::from_secs(2) && again.id != ask.id);
}

#[test]
fn a_change_of_gateway_or_address_begins_anew() {
    let mut lab = Lab::held_by_pcp(7200);
    let before = lab.mapper.nonce;
    lab.mapper.handle_network(Some(network()), lab.now);
    assert!(lab.drain().0.pcp.is_empty(), "the same is no change");
    let moved = Network {
        internal: "192.168.1.3:51820".parse().unwrap(),
        ..network()
    };
    lab.mapper.handle_network(Some(moved), lab.now);
    let (spoken, _) = lab.drain();
    assert_eq!(spoken.facts, [Fact::Lost(Why::Moved)]);
    assert_eq!(spoken.pcp.len(), 1);
    assert_ne!(lab.mapper.nonce, before);
    lab.mapper.handle_network(None, lab.now);
    assert_eq!(lab.drain().1, Instant::NEVER);
    assert_eq!(lab.mapper.why(), Why::NoGateway);
}

#[test]
fn the_nonce_outlives_a_restart_and_is_known_to_nobody_else() {
    let mut again = Lab::new();
    let other = PortMapper::new([9; 32], [2; 32]);
    assert_eq!(
        map_of(&Lab::new().pcp_request()).nonce,
        map_of(&again.pcp_request()).nonce
    );
    assert_ne!(other.nonce_for(&network()), again.mapper.nonce);
}

#[test]
fn a_port_is_given_back_on_closing() {
    let mut lab = Lab::held_by_pcp(7200);
    lab.mapper.handle_close(lab.now);
    let (spoken, _) = lab.drain();
    assert_eq!(spoken.facts, [Fact::Lost(Why::Closed)]);
    let request = spoken.pcp[0];
    assert_eq!(request.lifetime_s, 0);
    assert_eq!(map_of(&request).external, "0.0.0.0:0".parse().unwrap());
    assert!(!lab.mapper.is_closed());
    lab.answer_pcp(&given(&request, "0.0.0.0:0", 0, 1001));
    assert!(lab.mapper.is_closed());

    let mut lab = Lab::held_by_nat_pmp();
    lab.mapper.handle_close(lab.now);
    let expected = nat_pmp::Map {
        external_port: 0,
        ..nat_pmp_map(0)
    };
    assert_eq!(lab.drain().0.nat_pmp, [nat_pmp::Request::Map(expected)]);
    let (_, again) = lab.sleep();
    assert_eq!(again, Duration::from_millis(250), "lost, so said again");
    lab.answer_nat_pmp(1001, Answer::Map(expected));
    assert!(lab.mapper.is_closed());
}

#[test]
fn a_router_that_is_gone_does_not_hold_up_the_end() {
    let mut lab = Lab::held_by_pcp(7200);
    let begun = lab.now;
    lab.mapper.handle_close(lab.now);
    while !lab.mapper.is_closed() {
        lab.sleep();
    }
    assert!(lab.now.saturating_since(begun) < Duration::from_secs(2));
    let mut unmapped = Lab::new();
    unmapped.mapper.handle_close(unmapped.now);
    assert!(unmapped.mapper.is_closed());
}

proptest! {
    /// Whatever a gateway and the other hands say, the machine waits, its mapping ends in time, and
    /// what it holds is somewhere.
    #[test]
    fn no_gateway_makes_it_panic_or_hold_on(
        steps in proptest::collection::vec((0u8..9, any::<u16>(), any::<u32>()), 0..80),
    ) {
        let mut lab = Lab::new();
        let mut last = lab.pcp_request();
        let mut ask = 0;
        for (kind, small, large) in steps {
            let code = pcp::Response {
                result: pcp::ResultCode::NoResources,
                ..given(&last, OUTSIDE, large, large)
            };
            match kind {
                0 => drop(lab.answer_pcp(&given(&last, OUTSIDE, large, large))),
                1 => drop(lab.answer_pcp(&code)),
                2 => drop(lab.answer_pcp(&announced(large))),
                3 => drop(lab.answer_nat_pmp(large, Answer::Map(nat_pmp_map(large)))),
                4 => drop(lab.answer_nat_pmp(large, Answer::ExternalAddress(large.to_be_bytes().into()))),
                5 => lab.mapper.handle_unreachable(lab.now),
                6 => {
                    let external = "198.51.100.7:51820".parse().unwrap();
                    lab.mapper.handle_igd(ask, Said::Mapped { external, lifetime_s: large }, lab.now);
                }
                7 => lab.mapper.handle_igd(ask, Said::Refused(Why::NoResources), lab.now),
                _ => lab.pass(small.into()),
            }
            lab.mapper.handle_timeout(lab.now);
            let (spoken, until) = lab.drain();
            prop_assert!(spoken.pcp.len() + spoken.nat_pmp.len() + spoken.asks.len() <= 4);
            prop_assert!(until > lab.now && until != Instant::NEVER);
            if let Some(held) = lab.mapper.mapping() {
                prop_assert!(held.until > lab.now && held.until <= lab.now.after(LIFETIME));
                prop_assert!(held.external.port() != 0 && !held.external.ip().is_unspecified());
            }
            if let Some(request) = spoken.pcp.last() {
                last = *request;
            }
            if let Some(asked) = spoken.asks.last() {
                ask = asked.id;
            }
        }
    }
}
