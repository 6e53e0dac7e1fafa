//! What decides over packets: the rules of a policy, read from bytes, and packets judged by them.

use std::net::Ipv6Addr;
use std::sync::OnceLock;

use altnet_core::ip::{PacketInfo, Protocol, declared_length};
use altnet_core::policy::{
    Draft, Enrolled, Facts, FlowInfo, Policy, PolicyLimits, RuleId, Rules, What,
};
use altnet_sim::packet;
use altnet_wire::address::Prefix;
use altnet_wire::id::{MemberId, Name, Serial, SiteId};
use altnet_wire::policy::{Atom, Pattern, Service, Span, Window};
use altnet_wire::time::{Duration, Instant, UnixTime};

use crate::bytes::Bytes;
use crate::fixtures::FOUNDED;

/// The lower half of addresses is ours.
struct Crowd;

impl Facts for Crowd {
    fn is_ours(&self, address: Ipv6Addr) -> bool {
        address.octets()[15] < 128
    }

    fn is_ended(&self, expires: UnixTime) -> bool {
        expires < FOUNDED
    }
}

fn at(last: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, last.into())
}

/// Of every four addresses one is a host, one an app, and two are anybody's.
fn enrolled() -> impl Iterator<Item = Enrolled<'static>> {
    static NAME: OnceLock<Name> = OnceLock::new();
    let name = NAME.get_or_init(|| Name::new("media-tv").expect("a label"));
    let site = SiteId::new(1).expect("a site");
    let expires = |last: u8| match last % 7 {
        0 => UnixTime::EPOCH,
        _ => UnixTime::NEVER,
    };
    let hosts = (0..=u8::MAX).step_by(4).flat_map(move |last| {
        let enrol = move |last, what| Enrolled {
            at: Prefix::host(at(last)),
            what,
            expires: expires(last),
        };
        [
            enrol(last, What::Host(site, name)),
            enrol(last + 1, What::App(MemberId([1; 16]), name)),
        ]
    });
    hosts.chain([Enrolled {
        at: Prefix::new(at(0), 64),
        what: What::Site(site),
        expires: UnixTime::NEVER,
    }])
}

fn put_in_force(policy: &mut Policy, body: &[u8]) -> bool {
    match Rules::new(body, Serial(1)) {
        Ok(rules) => {
            policy.set_rules(Some(rules), enrolled());
            true
        }
        Err(_) => false,
    }
}

/// Reads a policy. One that is in order says the same when it is written again, and whatever it
/// says, it decides over flows.
pub fn policy(data: &[u8]) {
    let mut policy = Policy::new(PolicyLimits::MICRO, [1; 16]);
    if !put_in_force(&mut policy, data) {
        return;
    }
    let draft = Draft::decode(data).expect("what compiles can be read");
    // Spans and lists may be in another order than an author would have written them in, and
    // what several rules share is written once.
    if let Ok(again) = draft.encode() {
        assert_eq!(Draft::decode(&again), Ok(draft));
    }
    for (minutes, known) in [(0, false), (0, true), (700, true), (9000, true)] {
        let time = FOUNDED.after(Duration::from_secs(60 * minutes));
        policy.handle_time(known.then_some(time), Some(FOUNDED));
        for (source, destination, protocol, port) in [
            (2, 4, 6, 80),
            (2, 5, 17, 5001),
            (3, 130, 58, 0),
            (4, 4, 132, 0),
        ] {
            let flow = FlowInfo {
                source: at(source),
                destination: at(destination),
                protocol: Protocol(protocol),
                port,
            };
            let verdict = policy.judge_flow(&flow, &Crowd);
            let name = policy.rule_name(verdict.rule());
            assert!(!name.is_empty());
            let is_listed = |(rule, service): &(RuleId, Service)| {
                *rule == verdict.rule()
                    && service.protocol.is_none_or(|number| number == protocol)
                    && (service.first_port..=service.last_port).contains(&port)
            };
            let services = policy.services(flow.source, flow.destination, &Crowd);
            assert!(!verdict.is_allowed() || services.iter().any(is_listed));
        }
    }
}

/// Reads a row of packets, each with its length in front, and judges each both ways.
pub fn ip_and_policy(data: &[u8]) {
    let limits = PolicyLimits {
        flows: 16,
        ..PolicyLimits::MICRO
    };
    let mut policy = Policy::new(limits, [1; 16]);
    assert!(put_in_force(&mut policy, &bodies()[0]));
    let mut bytes = Bytes(data);
    let mut now = Instant::ZERO;
    while !bytes.is_empty() {
        let packet = bytes.run();
        let _ = declared_length(packet);
        let Ok(info) = PacketInfo::parse(packet) else {
            continue;
        };
        now = now.after(Duration::from_millis(packet.len() as u64));
        for verdict in [
            policy.judge_outbound(&info, &Crowd, now),
            policy.judge_inbound(&info, &Crowd, now),
        ] {
            assert!(!policy.rule_name(verdict.rule()).is_empty());
        }
        assert!(policy.flow_count(now) <= 16);
    }
}

/// Bodies of policies.
fn bodies() -> &'static [Vec<u8>] {
    static BODIES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    BODIES.get_or_init(|| {
        let name = |text: &str| Name::new(text).expect("a label");
        let open = Draft::members_to_hosts(FOUNDED);
        let mut narrow = open.clone();
        let span = Span {
            days: 0x1f,
            opens_min: 1320,
            closes_min: 360,
        };
        let window = Window {
            spans: heapless::Vec::from_iter([span]),
            open_without_clock: true,
        };
        let media = Atom::Named(Pattern::new("media-*").expect("a pattern"));
        narrow.groups.insert(name("media"), [media].into());
        if let Some(rule) = narrow.rules.first_mut() {
            rule.to.insert(Atom::Group(name("media")));
            rule.services = [80, 5000].map(port).into();
            rule.window = Some(window);
            rule.needs_fresh_head = true;
        }
        let bodies = [open, narrow];
        bodies.map(|draft| draft.encode().expect("a policy")).into()
    })
}

const fn port(port: u16) -> Service {
    Service {
        protocol: Some(Service::TCP),
        first_port: port,
        last_port: port + 1,
    }
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "policy" => bodies().to_vec(),
        "ip_and_policy" => packets(),
        _ => Vec::new(),
    }
}

fn packets() -> Vec<Vec<u8>> {
    let with_length =
        |packet: Vec<u8>| [&(packet.len() as u16).to_be_bytes()[..], &packet].concat();
    let udp = |from, to| with_length(packet::udp((at(from), 4000), (at(to), 80), b"GET /"));
    let mut fragment = packet::udp((at(2), 4000), (at(200), 80), &[7; 64]);
    fragment[6] = 44;
    fragment.splice(40..40, [17, 0, 0, 1, 0, 0, 0, 9]);
    let length = (fragment.len() - 40) as u16;
    fragment[4..6].copy_from_slice(&length.to_be_bytes());
    let mut later = fragment.clone();
    later[43] = 0x48;
    vec![
        udp(2, 200),
        [udp(2, 200), udp(200, 2), udp(130, 4)].concat(),
        [with_length(fragment), with_length(later)].concat(),
    ]
}
