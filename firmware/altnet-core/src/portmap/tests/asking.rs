//! Which protocol is asked when, and what counts as an answer.

use super::*;

#[test]
fn pcp_is_asked_first_and_its_answer_is_the_port() {
    let mut lab = Lab::new();
    let request = lab.pcp_request();
    assert_eq!(request.client, "192.168.1.2".parse::<IpAddr>().unwrap());
    assert_eq!(request.lifetime_s, 7200);
    assert_eq!(map_of(&request).internal_port, 51820);
    assert_eq!(map_of(&request).external, "0.0.0.0:51820".parse().unwrap());
    let facts = lab.answer_pcp(&given(&request, OUTSIDE, 3600, 9));
    let expected = Mapping {
        external: OUTSIDE.parse().unwrap(),
        internal: network().internal,
        by: Protocol::Pcp,
        until: lab.now.after(Duration::from_secs(3600)),
    };
    assert_eq!(facts, [Fact::Mapped(expected)]);
    assert_eq!(
        (lab.mapper.mapping(), lab.mapper.why()),
        (Some(expected), Why::Mapped)
    );
}

#[test]
fn a_silent_router_is_asked_by_every_protocol_and_then_left_alone() {
    let mut lab = Lab::new();
    lab.pcp_request();
    let (second, after) = lab.sleep();
    assert_eq!(second.pcp.len(), 1);
    assert!((2.7..=3.3).contains(&after.as_secs_f32()), "{after:?}");
    let (spoken, after) = lab.sleep();
    assert!((5.4..=6.6).contains(&after.as_secs_f32()), "{after:?}");
    assert_eq!(spoken.nat_pmp.len(), 2);
    let (ask, after) = lab.sleep_until(|spoken| spoken.asks.first().copied());
    assert_eq!(after, Duration::from_millis(250 + 500 + 1000 + 2000));
    assert_eq!(ask.gateway, Ipv4Addr::new(192, 168, 1, 1));
    lab.mapper.handle_igd(ask.id, Said::Absent, lab.now);
    assert_eq!(lab.mapper.why(), Why::Silent);
    let (_, rest) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
    assert!((54.0..=66.0).contains(&rest.as_secs_f32()), "{rest:?}");
}

#[test]
fn rests_grow_but_not_past_the_rfcs_longest() {
    let mut lab = Lab::new();
    lab.drain();
    let mut rests = Vec::new();
    for _ in 0..8 {
        let (ask, _) = lab.sleep_until(|spoken| spoken.asks.first().copied());
        lab.mapper.handle_igd(ask.id, Said::Absent, lab.now);
        let (_, rest) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
        rests.push(rest);
    }
    assert!(rests[1] > rests[0].mul_f32(1.5));
    assert!(
        rests[7] <= Duration::from_secs(1024).mul_f32(1.1),
        "{rests:?}"
    );
}

#[test]
fn a_closed_port_ends_the_wait_for_pcp_and_nat_pmp_at_once() {
    let mut lab = Lab::new();
    lab.drain();
    lab.mapper.handle_unreachable(lab.now);
    assert_eq!(lab.drain().0.nat_pmp.len(), 2);
    lab.mapper.handle_unreachable(lab.now);
    assert_eq!(lab.drain().0.asks.len(), 1);
    lab.mapper.handle_unreachable(lab.now);
    assert!(matches!(
        lab.mapper.state,
        State::Asking {
            by: Protocol::Igd,
            ..
        }
    ));
}

#[test]
fn a_router_without_pcp_is_asked_by_nat_pmp() {
    let mut lab = Lab::new();
    lab.drain();
    let asked = lab.refuse_version().nat_pmp;
    let map = nat_pmp::Map {
        external_port: 51820,
        ..nat_pmp_map(7200)
    };
    assert_eq!(
        asked,
        [
            nat_pmp::Request::ExternalAddress,
            nat_pmp::Request::Map(map)
        ]
    );
    // Either half may come first.
    assert!(
        lab.answer_nat_pmp(9, Answer::Map(nat_pmp_map(7200)))
            .is_empty()
    );
    let address = Answer::ExternalAddress(Ipv4Addr::new(198, 51, 100, 7));
    let facts = lab.answer_nat_pmp(9, address);
    let [Fact::Mapped(mapping)] = facts[..] else {
        panic!("{facts:?}");
    };
    assert_eq!(mapping.by, Protocol::NatPmp);
    assert_eq!(mapping.external, OUTSIDE.parse().unwrap());
}

#[test]
fn a_nat_pmp_router_without_a_line_says_so() {
    let mut lab = Lab::new();
    lab.drain();
    lab.refuse_version();
    lab.answer_nat_pmp(9, Answer::ExternalAddress(Ipv4Addr::UNSPECIFIED));
    // What was asked over HTTP next is asked in vain.
    let ask = lab.mapper.ask_id;
    lab.mapper.handle_igd(ask, Said::Absent, lab.now);
    assert_eq!(lab.mapper.why(), Why::NoAddress);
}

#[test]
fn a_later_version_of_pcp_is_asked_by_nat_pmp() {
    let mut lab = Lab::new();
    lab.drain();
    let refusal = [&[1, 0x81, 0, 1][..], &[0; 20]].concat();
    lab.mapper.handle_datagram(gateway(), &refusal, lab.now);
    assert_eq!(lab.drain().0.nat_pmp.len(), 2);
}

#[test]
fn igd_is_asked_when_both_are_silent_and_its_answer_is_the_port() {
    let mut lab = Lab::new();
    lab.drain();
    let (ask, _) = lab.sleep_until(|spoken| spoken.asks.first().copied());
    let expected = IgdAsk::Map {
        internal: "192.168.1.2:51820".parse().unwrap(),
        external_port: 51820,
        lifetime_s: 7200,
    };
    assert_eq!(ask.what, expected);
    let external = "198.51.100.7:51820".parse().unwrap();
    let said = Said::Mapped {
        external,
        lifetime_s: 0,
    };
    lab.mapper.handle_igd(ask.id.wrapping_add(1), said, lab.now);
    assert!(lab.drain().0.facts.is_empty(), "the answer to another ask");
    lab.mapper.handle_igd(ask.id, said, lab.now);
    let facts = lab.drain().0.facts;
    let [Fact::Mapped(mapping)] = facts[..] else {
        panic!("{facts:?}");
    };
    // A permanent mapping is renewed like any other, and sooner, as nothing tells of a restart.
    assert_eq!(mapping.until, lab.now.after(LIFETIME));
    let (_, after) = lab.sleep_until(|spoken| spoken.asks.first().copied());
    assert_eq!(after, Duration::from_secs(900));
}

#[test]
fn an_address_that_is_itself_private_is_told_as_such() {
    for external in ["100.64.0.9:4660", "10.0.0.9:4660", "192.168.0.9:4660"] {
        let mut lab = Lab::new();
        let request = lab.pcp_request();
        let facts = lab.answer_pcp(&given(&request, external, 600, 9));
        assert!(matches!(facts[..], [Fact::DoubleNat(_)]), "{facts:?}");
        assert_eq!(lab.mapper.why(), Why::DoubleNat);
    }
}

#[test]
fn answers_to_others_and_from_others_are_passed_over() {
    let mut lab = Lab::new();
    let request = lab.pcp_request();
    let good = given(&request, OUTSIDE, 600, 9);
    let with = |change: &dyn Fn(&mut pcp::Map)| {
        let mut map = map_of(&request);
        map.external = OUTSIDE.parse().unwrap();
        change(&mut map);
        pcp::Response {
            operation: pcp::Operation::Map(map),
            ..good
        }
    };
    let wrong = [
        with(&|map| map.nonce.0[0] ^= 1),
        with(&|map| map.internal_port = 1),
        with(&|map| map.protocol = 6),
        pcp::Response {
            operation: pcp::Operation::Other(2),
            ..good
        },
    ];
    for response in &wrong {
        assert!(lab.answer_pcp(response).is_empty(), "{response:?}");
    }
    let mut out = [0; MAX_BYTES];
    let length = good.encode(&mut out).unwrap();
    for from in ["192.168.1.1:5350", "192.168.1.9:5351"] {
        lab.mapper
            .handle_datagram(from.parse().unwrap(), &out[..length], lab.now);
        assert!(lab.drain().0.facts.is_empty(), "{from}");
    }
    assert_eq!(lab.answer_pcp(&good).len(), 1);
}

#[test]
fn a_refusal_is_believed_and_said() {
    let mut lab = Lab::new();
    let request = lab.pcp_request();
    let mut refusal = given(&request, "0.0.0.0:0", 600, 9);
    refusal.result = pcp::ResultCode::NotAuthorized;
    lab.answer_pcp(&refusal);
    // NAT-PMP is silent, the device refuses as well.
    let (ask, _) = lab.sleep_until(|spoken| spoken.asks.first().copied());
    let said = Said::Refused(Why::Unsupported);
    lab.mapper.handle_igd(ask.id, said, lab.now);
    assert_eq!(lab.mapper.why(), Why::NotAuthorized);
    let (_, rest) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
    assert!(rest >= Duration::from_secs(540), "{rest:?}");
}

#[test]
fn a_success_that_gives_nothing_is_a_refusal() {
    for (external, lifetime_s, why) in [
        ("0.0.0.0:4660", 600, Why::NoAddress),
        ("198.51.100.7:0", 600, Why::NoResources),
        (OUTSIDE, 0, Why::NoResources),
    ] {
        let mut lab = Lab::new();
        let request = lab.pcp_request();
        assert!(
            lab.answer_pcp(&given(&request, external, lifetime_s, 9))
                .is_empty()
        );
        lab.mapper.handle_unreachable(lab.now);
        let (spoken, _) = lab.drain();
        lab.mapper
            .handle_igd(spoken.asks[0].id, Said::Absent, lab.now);
        assert_eq!(lab.mapper.why(), why);
    }
}

#[test]
fn an_ipv6_hole_is_asked_for_by_pcp_alone() {
    let mut lab = Lab::at(Network {
        gateway: "fe80::1".parse().unwrap(),
        interface: 3,
        internal: "[2001:db8::2]:51820".parse().unwrap(),
    });
    let mut out = [0; pcp::MAX_REQUEST_BYTES];
    let sent = lab.mapper.poll_output(&mut out);
    let Output::Send {
        to: SocketAddr::V6(to),
        length,
    } = sent
    else {
        panic!("{sent:?}");
    };
    assert_eq!((to.scope_id(), to.port()), (3, SERVER_PORT));
    let request = pcp::Request::parse(&out[..length]).unwrap();
    assert_eq!(request.client, "2001:db8::2".parse::<IpAddr>().unwrap());
    lab.sleep();
    let (spoken, _) = lab.sleep();
    assert!(spoken.nat_pmp.is_empty() && spoken.asks.is_empty());
    assert_eq!(lab.mapper.why(), Why::NoPcp);
    let (request, _) = lab.sleep_until(|spoken| spoken.pcp.first().copied());
    let response = given(&request, "[2001:db8::2]:51820", 600, 9);
    let length = response.encode(&mut out).unwrap();
    let from = "[fe80::1%3]:5351".parse().unwrap();
    lab.mapper.handle_datagram(from, &out[..length], lab.now);
    assert!(matches!(lab.drain().0.facts[..], [Fact::Mapped(_)]));
}

#[test]
fn nobody_but_a_pcp_firewall_is_asked_where_nothing_is_translated() {
    let mut lab = Lab::at(Network {
        gateway: "198.51.100.1".parse().unwrap(),
        internal: "198.51.100.2:51820".parse().unwrap(),
        ..network()
    });
    lab.drain();
    lab.mapper.handle_unreachable(lab.now);
    let (spoken, _) = lab.drain();
    assert!(spoken.nat_pmp.is_empty() && spoken.asks.is_empty());
    assert_eq!(lab.mapper.why(), Why::NoPcp);
}
