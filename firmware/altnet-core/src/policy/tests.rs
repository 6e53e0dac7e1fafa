//! The rule `members-to-hosts` on packets of real bytes, and the flow table against a list that is searched
//! from end to end.

mod model;

use super::*;
use crate::ip::testing::{echo, fragment, packet, tcp, udp};
use altnet_wire::address::Prefix;
use altnet_wire::id::{MemberId, Name, Serial, SiteId};
use core::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 1, 0, 0, 0, 0xc);
const WIKI: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 2, 0, 0, 0, 0xd);
const NOBODY: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 9, 0, 0, 0, 9);

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

#[derive(Clone, Debug)]
struct Known {
    ours: BTreeSet<Ipv6Addr>,
    members: BTreeSet<Ipv6Addr>,
    targets: BTreeSet<Ipv6Addr>,
}

impl Facts for Known {
    fn is_ours(&self, address: Ipv6Addr) -> bool {
        self.ours.contains(&address)
    }
    fn is_ended(&self, _: UnixTime) -> bool {
        false
    }
}

impl Known {
    /// Members begin flows, targets are hosts or, if they are no members, apps.
    fn enrolled(&self) -> Vec<Enrolled<'static>> {
        static NAME: std::sync::LazyLock<Name> = std::sync::LazyLock::new(|| name("any"));
        let site = SiteId::new(1).unwrap();
        let all: BTreeSet<&Ipv6Addr> = self.members.union(&self.targets).collect();
        let what = |address: &Ipv6Addr| {
            let both = (
                self.members.contains(address),
                self.targets.contains(address),
            );
            match both {
                (true, true) => What::Host(site, &NAME),
                (true, false) => What::Site(site),
                (false, _) => What::App(MemberId([0; 16]), &NAME),
            }
        };
        all.into_iter()
            .map(|address| Enrolled {
                at: Prefix::host(*address),
                what: what(address),
                expires: UnixTime::NEVER,
            })
            .collect()
    }

    /// A policy of the one rule `members-to-hosts`.
    fn policy(&self, limits: PolicyLimits, seed: [u8; 16]) -> Policy {
        let body = Draft::members_to_hosts(UnixTime::EPOCH).encode().unwrap();
        let rules = Rules::new(&body, Serial(1)).unwrap();
        let mut policy = Policy::new(limits, seed);
        policy.set_rules(Some(rules), self.enrolled().into_iter());
        policy
    }
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// House A: our client may reach their wiki, and not the other way round.
fn house_a() -> Known {
    Known {
        ours: [CLIENT].into(),
        members: [CLIENT, WIKI].into(),
        targets: [WIKI].into(),
    }
}

/// House B: the same from the other end.
fn house_b() -> Known {
    Known {
        ours: [WIKI].into(),
        ..house_a()
    }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO.after(Duration::from_secs(seconds))
}

/// Who is who is the same in both houses.
fn policy() -> Policy {
    house_a().policy(PolicyLimits::MICRO, [7; 16])
}

fn read(bytes: &[u8]) -> PacketInfo {
    PacketInfo::parse(bytes).unwrap()
}

fn out(next: u8, payload: &[u8]) -> PacketInfo {
    read(&packet(CLIENT, WIKI, next, payload))
}

fn back(next: u8, payload: &[u8]) -> PacketInfo {
    read(&packet(WIKI, CLIENT, next, payload))
}

const OK: Option<DropReason> = None;

#[test]
fn a_member_reaches_a_host_and_only_its_answers_come_back() {
    let (mut a, mut b) = (policy(), policy());
    let (there, here) = (
        out(6, &tcp(5000, 80, SYN)),
        back(6, &tcp(80, 5000, SYN | ACK)),
    );
    let no_rule = Some(DropReason::NoRule);
    assert_eq!(
        a.judge_inbound(&here, &house_a(), at(0)).drop_reason(),
        no_rule
    );
    assert_eq!(
        b.judge_outbound(&here, &house_b(), at(0)).drop_reason(),
        no_rule
    );
    let verdict = a.judge_outbound(&there, &house_a(), at(1));
    assert_eq!(
        (verdict.is_allowed(), a.rule_name(verdict.rule())),
        (true, "members-to-hosts")
    );
    assert!(b.judge_inbound(&there, &house_b(), at(1)).is_allowed());
    assert!(b.judge_outbound(&here, &house_b(), at(1)).is_allowed());
    assert!(a.judge_inbound(&here, &house_a(), at(1)).is_allowed());
    let other_port = back(6, &tcp(81, 5000, ACK));
    let verdict = a.judge_inbound(&other_port, &house_a(), at(1));
    assert_eq!(
        (verdict.is_allowed(), a.rule_name(verdict.rule())),
        (false, "default-deny")
    );
}

#[test]
fn addresses_that_are_not_what_they_should_be_are_refused() {
    let check = |source, destination, inbound: bool, expected| {
        let packet = read(&packet(source, destination, 17, &udp(1, 2, b"")));
        let mut policy = policy();
        let verdict = if inbound {
            policy.judge_inbound(&packet, &house_a(), at(0))
        } else {
            policy.judge_outbound(&packet, &house_a(), at(0))
        };
        assert_eq!(
            verdict.drop_reason(),
            Some(expected),
            "{source} {destination}"
        );
    };
    check(NOBODY, WIKI, false, DropReason::NotOurs);
    check(CLIENT, NOBODY, false, DropReason::NoSuchTarget);
    check(CLIENT, CLIENT, false, DropReason::Looped);
    check(
        CLIENT,
        "ff02::1".parse().unwrap(),
        false,
        DropReason::NotRoutable,
    );
    check(
        "fe80::1".parse().unwrap(),
        WIKI,
        false,
        DropReason::NotRoutable,
    );
    check("::".parse().unwrap(), WIKI, false, DropReason::NotRoutable);
    check(WIKI, NOBODY, true, DropReason::NotOurs);
    check(NOBODY, CLIENT, true, DropReason::NotAMember);
}

#[test]
fn neighbor_discovery_and_unasked_echo_replies_are_refused() {
    let mut policy = policy();
    let facts = house_a();
    for kind in [133, 134, 135, 136, 137, 143] {
        let message = out(58, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        let verdict = policy.judge_outbound(&message, &facts, at(0));
        assert_eq!(verdict.drop_reason(), Some(DropReason::LinkLocalIcmp));
    }
    let reply = back(58, &echo(129, 7));
    let unasked = Some(DropReason::Unsolicited);
    assert_eq!(
        policy.judge_inbound(&reply, &facts, at(0)).drop_reason(),
        unasked
    );
    let request = out(58, &echo(128, 7));
    assert_eq!(
        policy.judge_outbound(&request, &facts, at(0)).drop_reason(),
        OK
    );
    assert_eq!(
        policy.judge_inbound(&reply, &facts, at(1)).drop_reason(),
        OK
    );
    let other = back(58, &echo(129, 8));
    assert_eq!(
        policy.judge_inbound(&other, &facts, at(1)).drop_reason(),
        unasked
    );
    assert_eq!(
        policy.judge_inbound(&reply, &facts, at(99)).drop_reason(),
        unasked
    );
    let empty = out(59, &[]);
    let verdict = policy.judge_outbound(&empty, &facts, at(0));
    assert_eq!(verdict.drop_reason(), Some(DropReason::Empty));
}

#[test]
fn an_icmp_error_passes_only_if_it_is_about_a_flow() {
    let mut policy = policy();
    let facts = house_a();
    let quoted = packet(CLIENT, WIKI, 17, &udp(5000, 53, b"what?"));
    let error = back(58, &[&[1, 4, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
    let refused = Some(DropReason::ErrorWithoutFlow);
    assert_eq!(
        policy.judge_inbound(&error, &facts, at(0)).drop_reason(),
        refused
    );
    policy.judge_outbound(&read(&quoted), &facts, at(0));
    assert_eq!(
        policy.judge_inbound(&error, &facts, at(1)).drop_reason(),
        OK
    );
    // About a packet that somebody else sent.
    let quoted = packet(NOBODY, WIKI, 17, &udp(5000, 53, b"what?"));
    let error = back(58, &[&[1, 4, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
    assert_eq!(
        policy.judge_inbound(&error, &facts, at(1)).drop_reason(),
        refused
    );
    // About our own packet, but sent to another of our machines.
    let mut facts = facts;
    let other = Ipv6Addr::new(0xfd01, 0, 0, 1, 0, 0, 0, 0xe);
    facts.ours.insert(other);
    let quoted = packet(CLIENT, WIKI, 17, &udp(5000, 53, b"what?"));
    let message = [&[1, 4, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
    let error = read(&packet(WIKI, other, 58, &message));
    let verdict = policy.judge_inbound(&error, &facts, at(1));
    assert_eq!(verdict.drop_reason(), refused);
    // An error keeps no flow alive.
    assert_eq!(policy.flow_count(at(119)), 1);
    assert_eq!(policy.flow_count(at(120)), 0);
}

#[test]
fn later_fragments_follow_an_admitted_first_one() {
    let mut policy = policy();
    let facts = house_a();
    let first = out(44, &fragment(17, 0, true, 5, &udp(1, 2, &[0; 24])));
    let later = out(44, &fragment(17, 32, false, 5, &[0; 9]));
    let overlapping = out(44, &fragment(17, 24, false, 5, &[0; 9]));
    let none = Some(DropReason::FragmentWithoutFirst);
    let mut judge = |packet, now| policy.judge_outbound(packet, &facts, at(now)).drop_reason();
    assert_eq!(judge(&later, 0), none);
    assert_eq!(judge(&first, 0), OK);
    assert_eq!(judge(&later, 1), OK);
    assert_eq!(
        judge(&overlapping, 1),
        Some(DropReason::OverlappingFragment)
    );
    assert_eq!(judge(&later, 1), none);
    assert_eq!(judge(&first, 2), OK);
    assert_eq!(judge(&later, 62), none);
    // A second, shorter first fragment makes no room for overlap.
    let shorter = out(44, &fragment(17, 0, true, 5, &udp(1, 2, &[])));
    assert_eq!(judge(&first, 62), OK);
    assert_eq!(judge(&shorter, 62), OK);
    assert_eq!(
        judge(&overlapping, 62),
        Some(DropReason::OverlappingFragment)
    );
    // A refused first fragment opens nothing.
    let refused = read(&packet(
        CLIENT,
        NOBODY,
        44,
        &fragment(17, 0, true, 5, &udp(1, 2, &[0; 24])),
    ));
    let later = read(&packet(
        CLIENT,
        NOBODY,
        44,
        &fragment(17, 32, false, 5, &[0; 9]),
    ));
    assert_eq!(judge(&refused, 63), Some(DropReason::NoSuchTarget));
    assert_eq!(judge(&later, 63), none);
}

#[test]
fn a_flow_ends_when_it_is_judged_again_and_refused() {
    let mut policy = policy();
    let mut facts = house_a();
    let (there, here) = (out(6, &tcp(5000, 80, ACK)), back(6, &tcp(80, 5000, ACK)));
    let first = out(44, &fragment(17, 0, true, 5, &udp(1, 2, &[0; 24])));
    let later = out(44, &fragment(17, 32, false, 5, &[0; 9]));
    policy.judge_outbound(&there, &facts, at(0));
    policy.judge_outbound(&first, &facts, at(0));
    facts.members.remove(&CLIENT);
    // Nobody has said so yet.
    assert!(policy.judge_inbound(&here, &facts, at(1)).is_allowed());
    policy.set_roster(facts.enrolled().into_iter());
    assert!(!policy.judge_inbound(&here, &facts, at(2)).is_allowed());
    assert!(!policy.judge_outbound(&there, &facts, at(2)).is_allowed());
    assert!(!policy.judge_outbound(&later, &facts, at(2)).is_allowed());
    facts.members.insert(CLIENT);
    policy.set_roster(facts.enrolled().into_iter());
    assert!(policy.judge_outbound(&there, &facts, at(3)).is_allowed());
    policy.rejudge();
    assert!(policy.judge_inbound(&here, &facts, at(4)).is_allowed());
}

#[test]
fn a_flood_of_unanswered_flows_leaves_the_answered_ones() {
    let limits = PolicyLimits {
        flows: 8,
        fragments: 1,
        ..PolicyLimits::MICRO
    };
    let facts = house_a();
    let mut policy = facts.policy(limits, [1; 16]);
    let here = back(6, &tcp(80, 5000, ACK));
    policy.judge_outbound(&out(6, &tcp(5000, 80, SYN)), &facts, at(0));
    policy.judge_inbound(&here, &facts, at(0));
    for port in 0..1000 {
        let packet = out(17, &udp(port, 53, b""));
        assert!(policy.judge_outbound(&packet, &facts, at(1)).is_allowed());
        assert!(policy.flow_count(at(1)) <= 8);
    }
    assert!(policy.judge_inbound(&here, &facts, at(2)).is_allowed());
    assert_eq!(policy.evictions(), 993);
}

/// The kinds of packets that the model knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Udp,
    Tcp { flags: u8 },
    Request,
    Reply,
}

#[derive(Clone, Debug)]
enum Step {
    Packet {
        outbound: bool,
        ours: u8,
        theirs: u8,
        port: u16,
        kind: Kind,
    },
    Wait {
        seconds: u64,
    },
    Member {
        index: u8,
        is_in: bool,
    },
    Target {
        index: u8,
        is_in: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![
        Just(Kind::Udp),
        prop_oneof![Just(SYN), Just(ACK), Just(FIN | ACK)].prop_map(|flags| Kind::Tcp { flags }),
        Just(Kind::Request),
        Just(Kind::Reply),
    ];
    let sent = (any::<bool>(), 0u8..2, 0u8..2, 1u16..3, kind);
    prop_oneof![
        12 => sent.prop_map(|(outbound, ours, theirs, port, kind)| Step::Packet {
            outbound, ours, theirs, port, kind,
        }),
        3 => prop_oneof![0u64..70, 100u64..400, 7000u64..8000].prop_map(|seconds| Step::Wait { seconds }),
        1 => (0u8..4, any::<bool>()).prop_map(|(index, is_in)| Step::Member { index, is_in }),
        1 => (0u8..4, any::<bool>()).prop_map(|(index, is_in)| Step::Target { index, is_in }),
    ]
}

/// 0 and 1 are ours, 2 and 3 theirs.
fn address(index: u8) -> Ipv6Addr {
    Ipv6Addr::new(
        0xfd01,
        0,
        0,
        u16::from(index / 2),
        0,
        0,
        0,
        u16::from(index),
    )
}

#[derive(Clone, Debug)]
struct ModelFlow {
    number: u8,
    from: (Ipv6Addr, u16),
    to: (Ipv6Addr, u16),
    is_answered: bool,
    is_closing: bool,
    used: u64,
    is_stale: bool,
}

impl ModelFlow {
    /// The flow's place in the order of eviction, and the seconds it may be silent.
    fn class(&self) -> (u8, u64) {
        match self.number {
            _ if !self.is_answered => (0, 120),
            58 => (1, 60),
            6 if self.is_closing => (2, 240),
            17 => (3, 300),
            _ => (4, 7440),
        }
    }

    fn is_expired(&self, now: u64) -> bool {
        now - self.used >= self.class().1
    }
}

/// The same in plain words: flows in the order of last use.
struct Model {
    flows: Vec<ModelFlow>,
    limit: usize,
}

impl Model {
    fn judge(
        &mut self,
        number: u8,
        from: (Ipv6Addr, u16),
        to: (Ipv6Addr, u16),
        kind: Kind,
        facts: &Known,
        now: u64,
    ) -> bool {
        let allows = |from: Ipv6Addr, to: Ipv6Addr| {
            facts.members.contains(&from) && facts.targets.contains(&to)
        };
        let is_way = |flow: &ModelFlow| match kind {
            Kind::Request => (flow.from, flow.to) == (from, to),
            Kind::Reply => (flow.from, flow.to) == (to, from),
            _ => (flow.from, flow.to) == (from, to) || (flow.from, flow.to) == (to, from),
        };
        let found = self
            .flows
            .iter()
            .position(|flow| flow.number == number && is_way(flow));
        let mut flow = found
            .map(|at| self.flows.remove(at))
            .filter(|flow| !flow.is_expired(now));
        if let Some(stale) = flow.as_mut().filter(|flow| flow.is_stale) {
            stale.is_stale = false;
            let (from, to) = (stale.from.0, stale.to.0);
            flow = flow.filter(|_| allows(from, to));
        }
        if flow.is_none() {
            if kind == Kind::Reply || !allows(from.0, to.0) {
                return false;
            }
            self.make_room(now);
        }
        let found = found.filter(|_| flow.is_some());
        let mut flow = flow.unwrap_or(ModelFlow {
            number,
            from,
            to,
            is_answered: false,
            is_closing: false,
            used: now,
            is_stale: false,
        });
        let before = flow.class();
        flow.is_answered |= flow.from != from;
        flow.is_closing |= matches!(kind, Kind::Tcp { flags } if flags & FIN != 0);
        match found {
            // Used this second: it keeps its place in the order of last use.
            Some(at) if flow.class() == before && flow.used == now => self.flows.insert(at, flow),
            _ => {
                flow.used = now;
                self.flows.push(flow);
            }
        }
        true
    }

    fn make_room(&mut self, now: u64) {
        if self.flows.len() < self.limit {
            return;
        }
        let oldest = |class: u8| self.flows.iter().position(|flow| flow.class().0 == class);
        let expired = (0..5)
            .filter_map(oldest)
            .find(|at| self.flows[*at].is_expired(now));
        let at = expired.or_else(|| (0..5).find_map(oldest)).unwrap();
        self.flows.remove(at);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_flow_table_does_what_a_plain_list_does(steps in proptest::collection::vec(step(), 0..120), limit in 1u32..12, seed: [u8; 16]) {
        let all: BTreeSet<Ipv6Addr> = (0..4).map(address).collect();
        let mut facts = Known { ours: (0..2).map(address).collect(), members: all.clone(), targets: all };
        let mut policy = facts.policy(PolicyLimits { flows: limit, fragments: 2, ..PolicyLimits::MICRO }, seed);
        let mut model = Model { flows: Vec::new(), limit: limit as usize };
        let mut now = 0;
        for step in steps {
            match step {
                Step::Wait { seconds } => now += seconds,
                Step::Member { index, is_in } | Step::Target { index, is_in } => {
                    let set = match step {
                        Step::Member { .. } => &mut facts.members,
                        _ => &mut facts.targets,
                    };
                    if is_in { set.insert(address(index)); } else { set.remove(&address(index)); }
                    policy.set_roster(facts.enrolled().into_iter());
                    model.flows.iter_mut().for_each(|flow| flow.is_stale = true);
                }
                Step::Packet { outbound, ours, theirs, port, kind } => {
                    let (mut from, mut to) = ((address(ours), port), (address(2 + theirs), port + 10));
                    if !outbound { core::mem::swap(&mut from, &mut to); }
                    let (number, payload) = match kind {
                        Kind::Udp => (17, udp(from.1, to.1, b"")),
                        Kind::Tcp { flags } => (6, tcp(from.1, to.1, flags)),
                        Kind::Request => (58, echo(128, port)),
                        Kind::Reply => (58, echo(129, port)),
                    };
                    if number == 58 { from.1 = port; to.1 = port; }
                    let info = read(&packet(from.0, to.0, number, &payload));
                    let verdict = if outbound {
                        policy.judge_outbound(&info, &facts, at(now))
                    } else {
                        policy.judge_inbound(&info, &facts, at(now))
                    };
                    let expected = model.judge(number, from, to, kind, &facts, now);
                    prop_assert_eq!(verdict.is_allowed(), expected, "{:?} at {}", step, now);
                    prop_assert_eq!(policy.flows.len() as usize, model.flows.len());
                }
            }
        }
        prop_assert!(policy.flow_count(at(now)) <= limit);
    }

    #[test]
    fn no_packet_makes_policy_panic(packets in proptest::collection::vec((any::<bool>(), any::<u8>(), proptest::collection::vec(0u8..70, 0..90)), 0..20)) {
        let mut policy = house_a().policy(PolicyLimits { flows: 2, fragments: 1, ..PolicyLimits::MICRO }, [0; 16]);
        for (inbound, next, payload) in packets {
            let Ok(info) = PacketInfo::parse(&packet(CLIENT, WIKI, next, &payload)) else { continue };
            if inbound {
                policy.judge_inbound(&info, &house_b(), at(0));
            } else {
                policy.judge_outbound(&info, &house_a(), at(0));
            }
        }
    }
}
