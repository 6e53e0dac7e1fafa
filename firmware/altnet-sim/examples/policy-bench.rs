//! What judging costs: `ci/bench policy` runs it and says what the figures mean.
//!
//! Prints a table, or with `--json` one object. Each figure is the median of rounds; a round judges many packets of
//! many flows between many machines, so that nothing stays in the nearest cache by luck.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::net::Ipv6Addr;
use std::process::ExitCode;
use std::time::Instant as Stopwatch;

use altnet_core::ip::PacketInfo;
use altnet_core::policy::{Draft, DraftRule, Enrolled, Facts, Policy, PolicyLimits, Rules, What};
use altnet_sim::founder::FOUNDED;
use altnet_sim::packet;
use altnet_wire::address::{self, Prefix};
use altnet_wire::id::{MemberId, Name, NetworkId, Serial, SigningKey, SiteId};
use altnet_wire::policy::{Atom, Service};
use altnet_wire::record::{Membership, Roles};
use altnet_wire::time::{Instant, UnixTime};

const NETWORK: NetworkId = NetworkId([5; 32]);
/// Devices, the people they belong to, and machines.
const DEVICES: usize = 1000;
const PEOPLE: usize = 400;
const HOSTS: usize = 500;
/// Packets in a round.
const PACKETS: usize = 1 << 16;
/// Flows that are known.
const FLOWS: usize = 4096;
const ROUNDS: usize = 15;
const NEW_AIM_NS: f64 = 1000.0;
const KNOWN_AIM_NS: f64 = 50.0;
/// Sources and targets of a rule, where there are many.
const SIDE: usize = 10;

struct Home;

impl Facts for Home {
    fn is_ours(&self, address: Ipv6Addr) -> bool {
        address::is_derived(address)
    }

    fn is_ended(&self, expires: UnixTime) -> bool {
        expires < FOUNDED
    }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a label")
}

fn site() -> SiteId {
    SiteId::new(1).expect("a site")
}

fn membership(number: usize) -> Membership {
    let mut device = [0; 32];
    device[..8].copy_from_slice(&number.to_le_bytes());
    let mut member = [0; 16];
    member[..8].copy_from_slice(&number.to_le_bytes());
    Membership {
        member: MemberId(member),
        name: name(&format!("device{number}")),
        person: Some(name(&format!("p{}", number % PEOPLE))),
        device: SigningKey(device),
        roles: Roles::empty(),
        site: None,
        groups: ["family", "staff"].map(name).into_iter().collect(),
        sponsor: None,
        invite: None,
        issued: FOUNDED,
        expires: UnixTime::NEVER,
        replaces: None,
    }
}

fn host(number: usize) -> (Name, Ipv6Addr) {
    let lan = u128::from(address::site_prefix(&NETWORK, site()).address());
    let at = lan | (0x1_0000 + number as u128);
    (name(&format!("h{number}")), at.into())
}

/// A policy of so many combinations of a source, a target and a service, in rules of ten sources
/// and ten targets each; fewer than a hundred are a rule each. The last rule lets everybody reach
/// everything, so that every flow is allowed whatever its number of rules: all of a source's and a
/// target's names are looked at in any case.
fn draft(combinations: usize) -> Draft {
    let side = if combinations >= SIDE * SIDE { SIDE } else { 1 };
    let rule = |n: usize| {
        let from = n * side % PEOPLE;
        let to = (n * side / PEOPLE * side + n) % HOSTS;
        let from = (from..from + side).map(|p| Atom::Person(name(&format!("p{}", p % PEOPLE))));
        let to = (to..to + side).map(|h| Atom::Host(site(), name(&format!("h{}", h % HOSTS))));
        DraftRule {
            name: name(&format!("r{n}")),
            from: from.collect(),
            to: to.collect(),
            services: BTreeSet::from([Service {
                protocol: Some(Service::UDP),
                first_port: 80,
                last_port: 81 + n as u16,
            }]),
            window: None,
            needs_fresh_head: false,
        }
    };
    let everybody = Draft::members_to_hosts(FOUNDED);
    let rules = (0..combinations / (side * side) - 1).map(rule);
    Draft {
        rules: rules.chain(everybody.rules.clone()).collect(),
        ..everybody
    }
}

fn policy(rules: Rules) -> Policy {
    let members: Vec<Membership> = (0..DEVICES).map(membership).collect();
    let hosts: Vec<(Name, Ipv6Addr)> = (0..HOSTS).map(host).collect();
    let devices = members.iter().map(|membership| Enrolled {
        at: Prefix::host(address::node_address(&NETWORK, &membership.device)),
        what: What::Device(membership),
        expires: membership.expires,
    });
    let machines = hosts.iter().map(|(name, at)| Enrolled {
        at: Prefix::host(*at),
        what: What::Host(site(), name),
        expires: UnixTime::NEVER,
    });
    let mut policy = Policy::new(PolicyLimits::ROUTER, [7; 16]);
    policy.set_rules(Some(rules), devices.chain(machines));
    policy
}

/// Packets of as many flows between everybody.
fn packets(count: usize) -> Vec<PacketInfo> {
    let sources: Vec<Ipv6Addr> = (0..DEVICES)
        .map(|n| address::node_address(&NETWORK, &membership(n).device))
        .collect();
    let hosts: Vec<Ipv6Addr> = (0..HOSTS).map(|n| host(n).1).collect();
    let pick = |n: usize| n.wrapping_mul(7919);
    (0..count)
        .map(|n| {
            let (from, to) = (sources[pick(n) % DEVICES], hosts[pick(n) / 3 % HOSTS]);
            let bytes = packet::udp((from, 1024 + (n >> 8) as u16), (to, 80), b"x");
            PacketInfo::parse(&bytes).expect("a packet")
        })
        .collect()
}

/// Nanoseconds a packet, the median of rounds.
fn time(policy: &mut Policy, packets: &[PacketInfo]) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let watch = Stopwatch::now();
            for packet in packets {
                let verdict = policy.judge_outbound(packet, &Home, Instant::ZERO);
                assert!(black_box(verdict).is_allowed());
            }
            watch.elapsed().as_nanos() as f64 / packets.len() as f64
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn measure(combinations: usize) -> Figures {
    let body = draft(combinations).encode().expect("a policy that fits");
    let rules = Rules::new(&body, Serial(1)).expect("rules that fit");
    let mut policy = policy(rules.clone());
    // More flows than the table holds: each is new, and takes the place of another.
    let new = time(&mut policy, &packets(PACKETS));
    let flows = packets(FLOWS);
    let known: Vec<PacketInfo> = (0..PACKETS).map(|n| flows[n * 2477 % FLOWS]).collect();
    time(&mut policy, &flows);
    let known = time(&mut policy, &known);
    Figures {
        rules: combinations,
        named_rules: rules.len(),
        record_bytes: body.len(),
        ns_per_new_flow: new,
        ns_per_packet_known_flow: known,
        bytes_per_rule: rules.bytes() as f64 / combinations as f64,
        roster_bytes: policy.roster_bytes(),
    }
}

/// What was measured with one policy.
struct Figures {
    rules: usize,
    named_rules: usize,
    record_bytes: usize,
    ns_per_new_flow: f64,
    ns_per_packet_known_flow: f64,
    bytes_per_rule: f64,
    roster_bytes: usize,
}

impl Figures {
    fn fields(&self) -> [(&'static str, String); 7] {
        [
            ("rules", self.rules.to_string()),
            ("named_rules", self.named_rules.to_string()),
            ("record_bytes", self.record_bytes.to_string()),
            ("ns_per_new_flow", format!("{:.1}", self.ns_per_new_flow)),
            (
                "ns_per_packet_known_flow",
                format!("{:.1}", self.ns_per_packet_known_flow),
            ),
            ("bytes_per_rule", format!("{:.1}", self.bytes_per_rule)),
            ("roster_bytes", self.roster_bytes.to_string()),
        ]
    }
}

fn main() -> ExitCode {
    let all = [10, 1_000, 10_000].map(measure);
    if std::env::args().any(|word| word == "--json") {
        let object = |figures: &Figures| {
            let fields = figures.fields();
            let fields = fields.map(|(name, value)| format!("\"{name}\": {value}"));
            format!("    {{{}}}", fields.join(", "))
        };
        let objects = all.iter().map(object).collect::<Vec<_>>().join(",\n");
        println!("{{\n  \"policies\": [\n{objects}\n  ]\n}}");
    } else {
        for (at, (name, _)) in all[0].fields().iter().enumerate() {
            let values = all.iter().map(|figures| figures.fields()[at].1.clone());
            let values = values.map(|value| format!("{value:>10}"));
            println!("{name:26}{}", values.collect::<String>());
        }
    }
    eprintln!("aim: {NEW_AIM_NS} ns a new flow, {KNOWN_AIM_NS} ns a packet of a known one");
    let is_met = |figures: &Figures| {
        figures.ns_per_new_flow < NEW_AIM_NS && figures.ns_per_packet_known_flow < KNOWN_AIM_NS
    };
    match all.iter().all(is_met) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
