use std::path::Path;

use ipnet::IpNet;
use proptest::prelude::*;

use super::told::{Advertised, Lease4, Lease6, News, Prefix, Session4};
use super::*;
use crate::board::Ports;
use crate::config::File;
use crate::plan::Address;

pub(super) const START: Duration = Duration::from_secs(1000);

pub(super) const BARE: &str = "[router]\n";
const OTHER_SUBNET: &str =
    "[router]\n[[router.network]]\nname = \"lan\"\nipv4 = \"10.9.0.1/24\"\nsubnet = 7\n";
pub(super) const TWO_LINES: &str = "[router]\n[[router.wan]]\nname = \"fibre\"\n[router.wan.probes]\ntargets = [\"192.0.2.1\"]\n\
    [[router.wan]]\nname = \"cable\"\ninterface = \"lan4\"\n[router.wan.probes]\ntargets = [\"192.0.2.2\", \"2001:db8::2\"]\n\
    [[router.network]]\nname = \"lan\"\nports = [\"lan1\"]\n[[router.network]]\nname = \"guest\"\nports = [\"lan2\"]\n";
pub(super) const PPPOE: &str = "[router]\n[[router.wan]]\nname = \"wan\"\nconnection = \"pppoe\"\n[router.wan.pppoe]\nusername = \"anna\"\n\
    password = \"sesame\"\n";
const STATIC: &str = "[router]\n[[router.wan]]\nname = \"wan\"\nconnection = \"static\"\nipv4 = { address = \"192.0.2.2/24\", gateway = \"192.0.2.1\" }\n\
    ipv6 = { address = \"2001:db8:f::2/64\", gateway = \"fe80::1\", prefix = \"2001:db8:f00::/56\" }\n";
const FILES: [&str; 5] = [BARE, OTHER_SUBNET, TWO_LINES, PPPOE, STATIC];

fn setting(text: &str) -> Setting {
    let ports = Ports {
        wan: Some("wan".into()),
        lan: ["lan1", "lan2", "lan3", "lan4"].map(str::to_owned).into(),
        radios: Vec::new(),
    };
    let house = File::house(Path::new("altnet.toml"), text, &ports);
    Setting {
        house: house.unwrap_or_else(|e| panic!("{e}")).unwrap(),
        passwords: Passwords::new(),
        holds_password: false,
    }
}

pub(super) fn machine(text: &str) -> Machine {
    Machine::new(
        setting(text),
        Kept::default(),
        Surroundings::default(),
        START,
    )
}

pub(super) fn links(names: &[&str]) -> Vec<LinkFact> {
    let facts = names.iter().map(|name| LinkFact {
        name: (*name).to_owned(),
        is_up: true,
        has_carrier: true,
        bridge: 0,
    });
    facts.collect()
}

pub(super) fn left(machine: &mut Machine) -> Vec<Wish> {
    std::iter::from_fn(|| machine.poll_wish()).collect()
}

pub(super) fn told(interface: &str, news: News) -> Told {
    Told {
        interface: interface.into(),
        news,
    }
}

pub(super) fn lease4(address: &str) -> News {
    News::Ipv4(Some(Lease4 {
        net: address.parse().unwrap(),
        gateway: Some([198, 51, 100, 1].into()),
        resolvers: vec![[198, 51, 100, 53].into()],
        lasts_s: Some(86_400),
    }))
}

fn lease6(prefix: &str) -> News {
    News::Ipv6(Some(Lease6 {
        prefixes: vec![Prefix {
            net: prefix.parse().unwrap(),
            valid_s: Some(7200),
            preferred_s: Some(3600),
        }],
        ..Lease6::default()
    }))
}

/// A machine whose WAN works, with nothing left to do.
pub(super) fn working(text: &str) -> Machine {
    let mut machine = machine(text);
    machine.handle_links(links(&["wan", "br-lan", "lan1"]), START);
    machine.handle_told(told("wan", lease4("198.51.100.7/24")), START);
    machine.handle_told(told("wan", lease6("2001:db8:a00::/56")), START);
    left(&mut machine);
    machine
}

fn on(plan: &Plan, net: &str) -> Option<Address> {
    let net: IpNet = net.parse().unwrap();
    plan.addresses
        .iter()
        .find(|address| address.net == net)
        .cloned()
}

#[test]
fn an_empty_router_asks_for_an_address_and_serves_the_house() {
    let mut machine = machine(BARE);
    let first = left(&mut machine);
    assert!(matches!(first.first(), Some(Wish::Apply(_))), "{first:?}");
    let is_dhcpcd = |wish: &Wish| matches!(wish, Wish::Start(child) if child.name == "dhcpcd-wan");
    assert!(!first.iter().any(is_dhcpcd), "there is no interface yet");
    machine.handle_links(links(&["wan", "br-lan"]), START);
    let started: Vec<String> = left(&mut machine)
        .into_iter()
        .filter_map(|wish| match wish {
            Wish::Start(child) => Some(child.name.clone()),
            _ => None,
        })
        .collect();
    for name in ["dhcpcd-wan", "dnsmasq"] {
        assert!(started.iter().any(|one| one == name), "{started:?}");
    }
    assert_eq!(machine.deadline(), None, "nothing is due");
}

#[test]
fn what_changes_before_a_plan_is_begun_with_makes_it_another_not_one_more() {
    let mut machine = machine(BARE);
    machine.handle_links(links(&["wan", "br-lan"]), START);
    let first = left(&mut machine);
    let plans: Vec<_> = first
        .iter()
        .filter_map(|wish| match wish {
            Wish::Apply(plan) => Some(plan.as_ref()),
            _ => None,
        })
        .collect();
    assert_eq!(plans, [machine.plan()]);
    assert!(matches!(first.first(), Some(Wish::Apply(_))), "{first:?}");
}

#[test]
fn what_was_taken_from_a_plan_is_put_back() {
    let mut machine = working(BARE);
    machine.handle_taken(START);
    assert_eq!(
        left(&mut machine),
        [Wish::Apply(Box::new(machine.plan().clone()))]
    );
    machine.handle_timeout(START);
    assert_eq!(left(&mut machine), [], "once");
}

#[test]
fn what_a_provider_gives_is_in_the_plan_and_its_prefix_on_flash() {
    let mut machine = machine(BARE);
    machine.handle_links(links(&["wan", "br-lan"]), START);
    left(&mut machine);
    machine.handle_told(told("wan", lease6("2001:db8:a00::/56")), START);
    let address = on(machine.plan(), "2001:db8:a00::1/64").unwrap();
    assert_eq!(address.preferred_until_s, Some(4600));
    let wishes = left(&mut machine);
    let kept = wishes.iter().filter(|wish| matches!(wish, Wish::Keep(_)));
    assert_eq!(kept.count(), 1, "{wishes:?}");
    // Renewed, it is the same on flash.
    machine.handle_told(told("wan", lease6("2001:db8:a00::/56")), START + TRIAL);
    let renewed = left(&mut machine);
    assert!(!renewed.iter().any(|wish| matches!(wish, Wish::Keep(_))));
    assert!(renewed.iter().any(|wish| matches!(wish, Wish::Apply(_))));
    machine.handle_told(told("eth9", lease6("2001:db8:b00::/56")), START + TRIAL);
    assert_eq!(left(&mut machine), [], "that is nobody's line");
}

#[test]
fn a_trial_that_nobody_confirms_is_taken_back() {
    let mut machine = working(BARE);
    let before = machine.plan().clone();
    assert_eq!(
        machine.handle_trial(setting(OTHER_SUBNET), START),
        Ok(TRIAL)
    );
    assert!(
        on(machine.plan(), "10.9.0.1/24").is_some()
            && on(machine.plan(), "192.168.77.1/24").is_none()
    );
    for wish in left(&mut machine) {
        if let Wish::End(name) = wish {
            machine.handle_ended(&name, "signal 15", START);
        }
    }
    assert_eq!(machine.deadline(), Some(START + TRIAL));
    machine.handle_timeout(START + TRIAL - Duration::from_millis(1));
    assert!(on(machine.plan(), "10.9.0.1/24").is_some());
    machine.handle_timeout(START + TRIAL);
    let wishes = left(&mut machine);
    assert_eq!(without_stale(&machine), before);
    assert!(wishes.contains(&Wish::DropTrial));
    assert_eq!(machine.trial_left(START + TRIAL), None);
    assert_eq!(
        machine.handle_confirmed(START + TRIAL),
        Err(TrialError::None)
    );
}

#[test]
fn a_trial_that_is_confirmed_stays() {
    let mut machine = working(BARE);
    machine.handle_trial(setting(OTHER_SUBNET), START).unwrap();
    let second = machine.handle_trial(setting(BARE), START + Duration::from_secs(10));
    assert_eq!(second, Err(TrialError::UnderWay { left_s: 80 }));
    machine
        .handle_confirmed(START + Duration::from_secs(20))
        .unwrap();
    machine.handle_timeout(START + TRIAL * 2);
    assert!(on(machine.plan(), "10.9.0.1/24").is_some());
    assert!(!left(&mut machine).contains(&Wish::DropTrial));
}

#[test]
fn a_trial_whose_ruleset_the_kernel_refuses_is_taken_back_at_once() {
    let mut machine = working(BARE);
    let before = machine.plan().clone();
    let refused = Applied {
        refused: Some("nft: no".into()),
        troubles: Vec::new(),
    };
    machine.handle_trial(setting(OTHER_SUBNET), START).unwrap();
    machine.handle_applied(refused.clone(), START);
    assert_eq!(without_stale(&machine), before);
    assert!(left(&mut machine).contains(&Wish::DropTrial));
    // Of the file in force it is tried again.
    machine.handle_applied(refused, START);
    left(&mut machine);
    machine.handle_timeout(START + FIRST_RETRY * 2);
    assert!(
        left(&mut machine)
            .iter()
            .any(|wish| matches!(wish, Wish::Apply(_)))
    );
}

#[test]
fn after_a_reboot_into_another_prefix_the_old_one_is_deprecated_for_two_hours() {
    let first = working(BARE);
    let kept = Kept::read(&first.addresses.kept().write()).unwrap();
    let mut machine = Machine::new(setting(BARE), kept, Surroundings::default(), START);
    machine.handle_links(links(&["wan", "br-lan"]), START);
    assert_eq!(
        on(machine.plan(), "2001:db8:a00::1/64"),
        None,
        "it may only be late"
    );
    machine.handle_told(told("wan", lease6("2001:db8:b00::/56")), START);
    let old = on(machine.plan(), "2001:db8:a00::1/64").unwrap();
    assert!(old.preferred_until_s.unwrap() <= START.as_secs());
    assert_eq!(old.valid_until_s, Some(START.as_secs() + 7200));
    let new = on(machine.plan(), "2001:db8:b00::1/64").unwrap();
    assert!(new.preferred_until_s.unwrap() > START.as_secs());
    // Two hours later it is gone, here and on flash.
    let over = START + stale::DEPRECATED;
    machine.handle_told(told("wan", lease6("2001:db8:b00::/56")), over - TRIAL);
    left(&mut machine);
    machine.handle_timeout(over);
    assert_eq!(on(machine.plan(), "2001:db8:a00::1/64"), None);
    let kept = left(&mut machine).into_iter().find_map(|wish| match wish {
        Wish::Keep(kept) => Some(kept),
        _ => None,
    });
    assert_eq!(kept.unwrap().addresses.len(), 1);
}

#[test]
fn a_prefix_that_comes_back_is_no_longer_deprecated() {
    let mut machine = working(BARE);
    machine.handle_told(told("wan", lease6("2001:db8:b00::/56")), START);
    assert!(
        on(machine.plan(), "2001:db8:a00::1/64")
            .unwrap()
            .preferred_until_s
            <= Some(START.as_secs())
    );
    machine.handle_told(told("wan", lease6("2001:db8:a00::/56")), START);
    let back = on(machine.plan(), "2001:db8:a00::1/64").unwrap();
    assert_eq!(back.preferred_until_s, Some(START.as_secs() + 3600));
    assert!(
        on(machine.plan(), "2001:db8:b00::1/64")
            .unwrap()
            .preferred_until_s
            <= Some(START.as_secs())
    );
}

#[test]
fn a_line_that_nobody_answers_on_is_left_and_taken_again() {
    let mut machine = machine(TWO_LINES);
    let mut now = START;
    machine.handle_links(links(&["wan", "lan4", "br-lan", "br-guest"]), now);
    machine.handle_told(told("wan", lease4("198.51.100.7/24")), now);
    machine.handle_told(told("lan4", lease4("203.0.113.7/24")), now);
    let mut works = Vec::new();
    for answers in [true, false, false, false, true, true] {
        for wish in left(&mut machine) {
            if let Wish::Ask(question) = wish {
                let answered = answers || question.wan.as_str() == "cable";
                machine.handle_answered(&question, answered, now);
            }
        }
        works.push(machine.plan().working.first().cloned().unwrap());
        now = machine.deadline().unwrap();
        machine.handle_timeout(now);
    }
    assert_eq!(
        works,
        ["fibre", "fibre", "fibre", "cable", "cable", "fibre"]
    );
}

/// The plan, without what it has to say of addresses that are no more: what was said in a trial isn't unsaid.
fn without_stale(machine: &Machine) -> Plan {
    let world = World {
        stale: Vec::new(),
        ..machine.world(&machine.setting)
    };
    Plan::new(&machine.setting.house, &world, &machine.surroundings.places)
}

/// Something that happens.
#[derive(Clone, Debug)]
enum Fact {
    Links(Vec<LinkFact>),
    Told(Told),
    Ended(&'static str),
    Applied(bool),
    Trial(usize),
    Confirmed,
    Reverted,
    Setting(usize),
    Wait(u32),
}

fn some_interface() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["wan", "lan4", "br-lan", "br-guest", "ppp-wan", "lan1"])
}

fn some_news() -> impl Strategy<Value = News> {
    let lasts = proptest::option::of(0..10_000u32);
    let prefix = (
        0..6u16,
        40..70u8,
        proptest::option::of(1..10_000u32),
        proptest::option::of(0..10_000u32),
    );
    let prefix = prefix.prop_map(|(n, bits, valid_s, preferred_s)| Prefix {
        net: ipnet::Ipv6Net::new([0x2001, 0xdb8, n << 8, 0, 0, 0, 0, 0].into(), bits)
            .unwrap()
            .trunc(),
        valid_s,
        preferred_s,
    });
    let lease6 =
        (proptest::collection::vec(prefix, 0..3), lasts.clone()).prop_map(|(prefixes, lasts_s)| {
            Lease6 {
                addresses: vec![("2001:db8:1::5".parse().unwrap(), lasts_s)],
                prefixes,
                resolvers: Vec::new(),
            }
        });
    prop_oneof![
        (0..8u8, lasts).prop_map(|(n, lasts_s)| News::Ipv4(Some(Lease4 {
            net: ipnet::Ipv4Net::new([198, 51, 100, n].into(), 24).unwrap(),
            gateway: (n > 3).then_some([198, 51, 100, 1].into()),
            resolvers: Vec::new(),
            lasts_s,
        }))),
        Just(News::Ipv4(None)),
        lease6.prop_map(|lease| News::Ipv6(Some(lease))),
        Just(News::Ipv6(None)),
        any::<bool>().prop_map(|has| News::Advertised(Advertised {
            gateway: has.then(|| "fe80::1".parse().unwrap()),
            ..Advertised::default()
        })),
        any::<bool>().prop_map(|has| News::Session4(has.then(|| Session4 {
            local: [203, 0, 113, 7].into(),
            resolvers: Vec::new(),
        }))),
    ]
}

fn some_fact() -> impl Strategy<Value = Fact> {
    let link =
        (some_interface(), any::<bool>(), any::<bool>()).prop_map(|(name, is_up, has_carrier)| {
            LinkFact {
                name: name.into(),
                is_up,
                has_carrier,
                bridge: 0,
            }
        });
    prop_oneof![
        2 => proptest::collection::vec(link, 0..6).prop_map(Fact::Links),
        4 => (some_interface(), some_news()).prop_map(|(interface, news)| Fact::Told(told(interface, news))),
        1 => proptest::sample::select(vec!["dnsmasq", "dhcpcd-wan", "pppd-wan", "nobody"]).prop_map(Fact::Ended),
        1 => any::<bool>().prop_map(Fact::Applied),
        1 => (0..FILES.len()).prop_map(Fact::Trial),
        1 => Just(Fact::Confirmed),
        1 => Just(Fact::Reverted),
        1 => (0..FILES.len()).prop_map(Fact::Setting),
        3 => (0..200_000u32).prop_map(Fact::Wait),
    ]
}

/// Lets a fact happen; returns what time it is then.
fn happen(machine: &mut Machine, fact: Fact, now: Duration) -> Duration {
    match fact {
        Fact::Links(links) => machine.handle_links(links, now),
        Fact::Told(told) => machine.handle_told(told, now),
        Fact::Ended(name) => machine.handle_ended(name, "exit code 1", now),
        Fact::Applied(works) => machine.handle_applied(
            Applied {
                refused: (!works).then(|| "nft: no".into()),
                troubles: Vec::new(),
            },
            now,
        ),
        Fact::Trial(which) => drop(machine.handle_trial(setting(FILES[which]), now)),
        Fact::Confirmed => drop(machine.handle_confirmed(now)),
        Fact::Reverted => drop(machine.handle_revert(now)),
        Fact::Setting(which) => drop(machine.handle_setting(setting(FILES[which]), now)),
        Fact::Wait(ms) => {
            let wake = machine
                .deadline()
                .unwrap_or(now + Duration::from_millis(ms.into()));
            let now = wake.min(now + Duration::from_millis(ms.into())).max(now);
            machine.handle_timeout(now);
            return now;
        }
    }
    now
}

/// A house is planned anew after each fact; the long form of the tests says how many stories there are.
fn cases() -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn whatever_happens_nothing_panics_and_no_deadline_is_in_the_past(
        begin in 0..FILES.len(),
        facts in proptest::collection::vec(some_fact(), 1..60),
    ) {
        let mut machine = machine(FILES[begin]);
        let mut now = START;
        for fact in facts {
            now = happen(&mut machine, fact, now);
            // Questions are answered, so that none is waited for.
            for wish in left(&mut machine) {
                if let Wish::Ask(question) = wish {
                    machine.handle_answered(&question, question.sequence % 3 == 0, now);
                }
            }
            let deadline = machine.deadline();
            prop_assert!(deadline.is_none_or(|at| at > now), "{deadline:?} at {now:?}");
            prop_assert!(machine.addresses.stale().len() <= 64);
            let _ = machine.status(now);
        }
    }

    #[test]
    fn after_a_trial_without_a_confirmation_the_plan_is_the_one_before(
        begin in 0..FILES.len(),
        tried in 0..FILES.len(),
        before in proptest::collection::vec(some_fact(), 0..20),
    ) {
        let mut machine = machine(FILES[begin]);
        let mut now = START;
        for fact in before {
            now = happen(&mut machine, fact, now);
        }
        let _ = machine.handle_revert(now);
        machine.handle_timeout(now);
        // What is over in the meantime would be over without a trial too.
        let soon = machine.uplinks.values().filter_map(Uplink::deadline).min();
        prop_assume!(soon.is_none_or(|at| at > now + TRIAL));
        let kept = machine.addresses.deadline();
        prop_assume!(kept.is_none_or(|at| at > now + TRIAL));
        let expected = without_stale(&machine);
        machine.handle_trial(setting(FILES[tried]), now).unwrap();
        machine.handle_timeout(now + TRIAL);
        prop_assert_eq!(without_stale(&machine), expected);
    }
}
