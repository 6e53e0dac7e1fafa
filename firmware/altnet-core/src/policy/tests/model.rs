//! The rules against a model that reads every one of them for every flow, in plain words.

use super::name;
use crate::policy::*;
use altnet_wire::address::{self, Prefix};
use altnet_wire::id::{MemberId, Name, NetworkId, Serial, SigningKey, SiteId};
use altnet_wire::policy::{Atom, Pattern, Span, Window};
use altnet_wire::record::{Membership, Roles};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::string::{String, ToString};
use std::vec::Vec;

const NETWORK: NetworkId = NetworkId([9; 32]);
/// Monday 2026-11-23 00:00 UTC.
const MONDAY: u64 = 1_795_392_000;

fn site(number: u16) -> SiteId {
    SiteId::new(number).unwrap()
}

const fn member(number: u8) -> MemberId {
    MemberId([number; 16])
}

/// One who has an address, as the model sees it.
#[derive(Clone, Debug)]
enum Somebody {
    Device(Box<Membership>),
    Host(SiteId, Name),
    App(MemberId, Name),
    Site(SiteId),
    /// Somebody logged in from it, says this gateway: a machine with a name or without.
    Login(Box<Membership>, Option<Name>, Option<Name>, Vec<Name>),
}

fn device(number: u8, person: Option<&str>, groups: &[&str], site: Option<SiteId>) -> Membership {
    Membership {
        member: member(number),
        name: name(&std::format!("device{number}")),
        person: person.map(name),
        device: SigningKey([number; 32]),
        roles: Roles::empty(),
        site,
        groups: groups.iter().map(|group| name(group)).collect(),
        sponsor: None,
        invite: None,
        issued: UnixTime::EPOCH,
        expires: UnixTime::NEVER,
        replaces: None,
    }
}

/// Two homes, three people, four devices, three named machines, two apps.
fn town() -> Vec<(Prefix, Somebody)> {
    let mut town = Vec::new();
    let (ann, bob) = (Some("ann"), Some("bob"));
    let logins = [
        (1, Some("wiki"), 7, bob, std::vec![]),
        (1, None, 20, ann, std::vec!["guests"]),
        (2, None, 21, None, std::vec!["guests", "family"]),
        (2, None, 22, bob, std::vec!["children", "nobody"]),
    ];
    for (number, host, last, person, groups) in logins {
        let gateway = match number {
            1 => device(1, ann, &["family"], Some(site(1))),
            _ => device(2, bob, &["family", "children"], Some(site(2))),
        };
        let mut octets = address::site_prefix(&NETWORK, site(number))
            .address()
            .octets();
        octets[15] = last;
        let groups = groups.into_iter().map(name).collect();
        let login = Somebody::Login(gateway.into(), host.map(name), person.map(name), groups);
        town.push((Prefix::host(octets.into()), login));
    }
    let devices = [
        device(1, Some("ann"), &["family"], Some(site(1))),
        device(2, Some("bob"), &["family", "children"], Some(site(2))),
        device(3, Some("eve"), &["guests"], None),
        device(4, None, &[], None),
    ];
    for membership in devices {
        let own = Prefix::host(address::node_address(&NETWORK, &membership.device));
        if let Some(site) = membership.site {
            let router = Prefix::host(address::site_gateway(&NETWORK, site));
            town.push((router, Somebody::Device(membership.clone().into())));
            let lan = address::site_prefix(&NETWORK, site);
            town.push((lan, Somebody::Site(site)));
        }
        town.push((own, Somebody::Device(membership.into())));
    }
    for (number, host, last) in [(1, "door", 9), (2, "media-tv", 7), (2, "nas", 8)] {
        let mut octets = address::site_prefix(&NETWORK, site(number))
            .address()
            .octets();
        octets[15] = last;
        let at = Prefix::host(octets.into());
        town.push((at, Somebody::Host(site(number), name(host))));
    }
    for (number, app) in [(1, "chat"), (2, "media-box")] {
        let at = Prefix::host(address::app_address(
            &NETWORK,
            &SigningKey([100 + number; 32]),
        ));
        town.push((at, Somebody::App(member(number), name(app))));
    }
    town
}

fn enrolled(town: &[(Prefix, Somebody)]) -> impl Iterator<Item = Enrolled<'_>> {
    // A machine with a name has that beside.
    let named = town.iter().filter_map(|(at, somebody)| match somebody {
        Somebody::Login(by, Some(host), ..) => Some(Enrolled {
            at: *at,
            what: What::Host(by.site?, host),
            expires: UnixTime::NEVER,
        }),
        _ => None,
    });
    let all = town.iter().map(|(at, somebody)| Enrolled {
        at: *at,
        what: match somebody {
            Somebody::Login(by, _, person, groups) => What::Login(Login {
                by,
                site: by.site.unwrap(),
                person: person.as_ref(),
                groups,
            }),
            Somebody::Device(membership) => What::Device(membership),
            Somebody::Host(site, name) => What::Host(*site, name),
            Somebody::App(member, name) => What::App(*member, name),
            Somebody::Site(site) => What::Site(*site),
        },
        expires: UnixTime::NEVER,
    });
    named.chain(all)
}

/// What the model is asked: the draft, and what holds.
struct Model<'a> {
    draft: &'a Draft,
    open: &'a dyn Fn(&Window) -> bool,
    is_fresh: bool,
}

impl Model<'_> {
    /// Whether the policy lets a gateway say `who` of whoever logged in.
    fn may_say(&self, by: &Membership, who: &Atom) -> bool {
        let gateway = Somebody::Device(by.clone().into());
        self.draft.vouchers.iter().any(|(at, of)| {
            let is_at = match at {
                Atom::Site(site) => by.site == Some(*site),
                at => self.is(&gateway, at),
            };
            is_at && (of == who || (matches!(who, Atom::Person(_)) && *of == Atom::Members))
        })
    }

    /// Whether `atom` speaks of `somebody`.
    fn is(&self, somebody: &Somebody, atom: &Atom) -> bool {
        if let Somebody::Login(by, host, person, _) = somebody {
            let site = by.site.unwrap();
            let machine = match host {
                Some(host) => Somebody::Host(site, host.clone()),
                None => Somebody::Site(site),
            };
            return match atom {
                Atom::Person(named) => person.as_ref() == Some(named) && self.may_say(by, atom),
                Atom::Group(group) => self.is_in(somebody, group),
                _ => self.is(&machine, atom),
            };
        }
        match (atom, somebody) {
            (Atom::Members, Somebody::App(..)) => false,
            (Atom::Members | Atom::Anything, _) => true,
            (Atom::Person(person), Somebody::Device(m)) => m.person.as_ref() == Some(person),
            (Atom::Device(member), Somebody::Device(m)) => m.member == *member,
            (Atom::Site(site), Somebody::Host(at, _) | Somebody::Site(at)) => site == at,
            (Atom::Host(site, name), Somebody::Host(at, called)) => (site, name) == (at, called),
            (Atom::App(member, name), Somebody::App(of, called)) => (member, name) == (of, called),
            (Atom::Hosts, Somebody::Host(..)) | (Atom::Apps, Somebody::App(..)) => true,
            (Atom::Named(pattern), Somebody::Host(_, name) | Somebody::App(_, name)) => {
                pattern.fits(name)
            }
            (Atom::Group(group), _) => self.is_in(somebody, group),
            _ => false,
        }
    }

    fn is_in(&self, somebody: &Somebody, group: &Name) -> bool {
        let by_membership = match somebody {
            Somebody::Device(m) => m.groups.contains(group),
            Somebody::Login(by, _, _, groups) => {
                groups.contains(group) && self.may_say(by, &Atom::Group(group.clone()))
            }
            _ => false,
        };
        let listed = self.draft.groups.get(group);
        let mut listed = listed.into_iter().flatten();
        by_membership || listed.any(|atom| self.is(somebody, atom))
    }

    /// The rule that decides, and whether it allows.
    fn judge(
        &self,
        from: &Somebody,
        to: &Somebody,
        protocol: u8,
        port: u16,
    ) -> (String, Option<DropReason>) {
        let profiles = self.draft.profiles.iter();
        let theirs: Vec<_> = profiles.filter(|p| self.is_in(from, &p.group)).collect();
        let hours = theirs.iter().filter_map(|profile| profile.window.as_ref());
        if hours.into_iter().any(|window| !(self.open)(window)) {
            return ("profile-hours".into(), Some(DropReason::Closed));
        }
        let is_exclusive = theirs.iter().any(|profile| profile.exclusive);
        let counts =
            |atom: &&Atom| !(is_exclusive && matches!(atom, Atom::Members | Atom::Site(_)));
        let names_it = |rule: &&DraftRule| {
            rule.from
                .iter()
                .filter(counts)
                .any(|atom| self.is(from, atom))
                && rule.to.iter().any(|atom| self.is(to, atom))
                && rule.services.iter().any(|service| {
                    service.protocol.is_none_or(|number| number == protocol)
                        && (service.first_port..=service.last_port).contains(&port)
                })
        };
        let holds = |rule: &&DraftRule| {
            rule.window
                .as_ref()
                .is_none_or(|window| (self.open)(window))
                && (self.is_fresh || !rule.needs_fresh_head)
        };
        let rules = || self.draft.rules.iter().filter(names_it);
        match (rules().find(holds), rules().next()) {
            (Some(rule), _) => (rule.name.to_string(), None),
            (None, Some(rule)) => (rule.name.to_string(), Some(DropReason::Closed)),
            (None, None) => ("default-deny".into(), Some(DropReason::NoRule)),
        }
    }
}

fn atoms_of_sources() -> Vec<Atom> {
    let groups = ["family", "children", "guests", "things"];
    let mut atoms: Vec<Atom> = groups.map(|group| Atom::Group(name(group))).into();
    atoms.extend(["ann", "bob", "nobody"].map(|person| Atom::Person(name(person))));
    atoms.extend([1, 3, 4, 9].map(|number| Atom::Device(member(number))));
    atoms.extend([1, 2].map(|number| Atom::Site(site(number))));
    atoms.push(Atom::Host(site(1), name("wiki")));
    atoms.push(Atom::Host(site(2), name("wiki")));
    atoms.push(Atom::App(member(1), name("chat")));
    atoms
}

fn atoms_of_targets() -> Vec<Atom> {
    let mut atoms = atoms_of_sources();
    atoms.extend([Atom::Hosts, Atom::Apps, Atom::Anything]);
    atoms.extend(["media-*", "wiki", "*"].map(|text| Atom::Named(Pattern::new(text).unwrap())));
    atoms
}

fn some(of: Vec<Atom>) -> impl Strategy<Value = BTreeSet<Atom>> {
    subsequence(of, 0..4).prop_map(|atoms| atoms.into_iter().collect())
}

fn service() -> impl Strategy<Value = Service> {
    let ports = prop_oneof![
        Just((80, 80)),
        Just((0, u16::MAX)),
        Just((1, 79)),
        Just((79, 81)),
        Just((81, u16::MAX))
    ];
    let with_ports =
        (select(std::vec![6u8, 17]), ports).prop_map(|(number, (first, last))| Service {
            protocol: Some(number),
            first_port: first,
            last_port: last,
        });
    prop_oneof![
        4 => with_ports,
        1 => Just(Service::all_of(Some(Service::ICMPV6))),
        1 => Just(Service::ANY),
    ]
}

/// Mornings and nights.
fn window() -> impl Strategy<Value = Option<Window>> {
    let span = select(std::vec![(0u16, 720u16), (1320, 360)]);
    let some =
        (span, any::<bool>()).prop_map(|((opens_min, closes_min), open_without_clock)| Window {
            spans: heapless::Vec::from_iter([Span {
                days: 0x7f,
                opens_min,
                closes_min,
            }]),
            open_without_clock,
        });
    prop_oneof![3 => Just(None), 1 => some.prop_map(Some)]
}

fn draft() -> impl Strategy<Value = Draft> {
    let from = prop_oneof![
        some(atoms_of_sources()),
        Just(BTreeSet::from([Atom::Members]))
    ];
    let services = proptest::collection::btree_set(service(), 0..4);
    let rule = (
        from,
        some(atoms_of_targets()),
        services,
        window(),
        any::<bool>(),
    );
    let rules = proptest::collection::vec(rule, 0..8).prop_map(|rules| {
        let rules = rules.into_iter().enumerate();
        let rule = |(n, (from, to, services, window, fresh))| DraftRule {
            name: name(&std::format!("rule-{n}")),
            from,
            to,
            services,
            window,
            needs_fresh_head: fresh,
        };
        rules.map(rule).collect::<Vec<_>>()
    });
    let things = atoms_of_sources()
        .into_iter()
        .filter(|atom| !matches!(atom, Atom::Group(_)));
    let things = some(things.collect());
    let media = Atom::Named(Pattern::new("media-*").unwrap());
    let profile = (
        select(std::vec!["guests", "children", "things"]),
        any::<bool>(),
        window(),
    );
    let profiles = proptest::collection::vec(profile, 0..3);
    let all = (rules, things, profiles, vouchers(), sponsors());
    all.prop_map(move |(rules, things, profiles, vouchers, sponsors)| Draft {
        issued: UnixTime::from_secs(MONDAY),
        stale_after_s: 3600,
        groups: BTreeMap::from([
            (name("things"), things),
            (name("media"), [media.clone()].into()),
        ]),
        profiles: profiles
            .into_iter()
            .map(|(group, exclusive, window)| DraftProfile {
                group: name(group),
                exclusive,
                window,
            })
            .collect(),
        rules,
        vouchers,
        sponsors,
        ..Draft::default()
    })
}

fn vouchers() -> impl Strategy<Value = BTreeSet<(Atom, Atom)>> {
    let gateway = |atom: &Atom| matches!(atom, Atom::Device(_) | Atom::Site(_) | Atom::Group(_));
    let whom = |atom: &Atom| matches!(atom, Atom::Person(_) | Atom::Group(_));
    let (at, mut who) = (atoms_of_sources(), atoms_of_sources());
    let at: Vec<Atom> = at.into_iter().filter(gateway).collect();
    who.retain(whom);
    who.push(Atom::Members);
    proptest::collection::btree_set((select(at), select(who)), 0..4)
}

fn sponsors() -> impl Strategy<Value = Vec<DraftSponsor>> {
    let is_one = |atom: &Atom| matches!(atom, Atom::Person(_) | Atom::Group(_) | Atom::Device(_));
    let mut who = atoms_of_sources();
    who.retain(is_one);
    who.push(Atom::Members);
    let groups = subsequence(std::vec!["guests", "media", "nobodys"], 0..3);
    let sponsor = (select(who), 1u16.., 1u8.., groups);
    let sponsor = sponsor.prop_map(|(who, most, depth, groups)| DraftSponsor {
        who,
        most,
        depth,
        groups: groups.into_iter().map(name).collect(),
    });
    proptest::collection::vec(sponsor, 0..4)
}

fn is_open_at(minute: Option<u16>, window: &Window) -> bool {
    let Some(minute) = minute else {
        return window.open_without_clock;
    };
    window
        .spans
        .iter()
        .any(|span| match span.opens_min < span.closes_min {
            true => (span.opens_min..span.closes_min).contains(&minute),
            false => minute >= span.opens_min || minute < span.closes_min,
        })
}

struct Everything;

impl Facts for Everything {
    fn is_ours(&self, _: Ipv6Addr) -> bool {
        true
    }
    fn is_ended(&self, _: UnixTime) -> bool {
        false
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_rules_say_what_a_plain_reading_of_them_says(
        draft in draft(),
        minute in proptest::option::of(0u16..1440),
        head_age_s in select(std::vec![0u64, 3600, 3601]),
    ) {
        let town = town();
        let body = draft.encode().unwrap();
        let mut policy = Policy::new(PolicyLimits::MICRO, [3; 16]);
        policy.set_rules(Some(Rules::new(&body, Serial(1)).unwrap()), enrolled(&town));
        let time = minute.map(|minute| MONDAY + u64::from(minute) * 60);
        let head = time.unwrap_or(MONDAY) - head_age_s;
        policy.handle_time(time.map(UnixTime::from_secs), Some(UnixTime::from_secs(head)));
        let model = Model {
            draft: &draft,
            open: &|window| is_open_at(minute, window),
            is_fresh: time.is_none() || head_age_s <= 3600,
        };
        for (from, source) in &town {
            for (to, target) in &town {
                for (protocol, port) in [(6, 80), (17, 81), (58, 0), (132, 0)] {
                    let flow = FlowInfo {
                        source: from.address(),
                        destination: to.address(),
                        protocol: Protocol(protocol),
                        port,
                    };
                    let verdict = policy.judge_flow(&flow, &Everything);
                    let found = (policy.rule_name(verdict.rule()).to_string(), verdict.drop_reason());
                    let expected = model.judge(source, target, protocol, port);
                    prop_assert_eq!(found, expected, "{:?} to {:?} {} {}", source, target, protocol, port);
                }
            }
        }
    }

    #[test]
    fn a_draft_reads_back_what_it_writes(draft in draft()) {
        let body = draft.encode().unwrap();
        let mut back = Draft::decode(&body).unwrap();
        // A group of nothing is not written.
        let named: BTreeMap<_, _> = draft.groups.clone().into_iter().filter(|(_, of)| !of.is_empty()).collect();
        back.groups.retain(|_, of| !of.is_empty());
        prop_assert_eq!(&back, &Draft { groups: named, ..draft });
        prop_assert_eq!(back.encode().unwrap().len() <= body.len(), true);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, at: proptest::sample::Index, value: u8) {
        let _ = Rules::new(&bytes, Serial(1));
        let mut body = Draft::members_to_hosts(UnixTime::EPOCH).encode().unwrap();
        let at = at.index(body.len());
        body[at] = value;
        if let Ok(rules) = Rules::new(&body, Serial(1)) {
            prop_assert_eq!(Draft::decode(&body).unwrap().rules.len(), rules.len());
        }
    }
}

#[test]
fn what_is_only_a_target_begins_nothing() {
    let mut draft = Draft::members_to_hosts(UnixTime::EPOCH);
    draft.groups = BTreeMap::from([(
        name("media"),
        BTreeSet::from([Atom::Named(Pattern::new("media-*").unwrap())]),
    )]);
    let check = |atom: Atom| {
        let mut draft = draft.clone();
        draft.rules[0].from = BTreeSet::from([atom]);
        assert!(draft.encode().is_err(), "{draft:?}");
    };
    check(Atom::Hosts);
    check(Atom::Apps);
    check(Atom::Anything);
    check(Atom::Named(Pattern::new("a*").unwrap()));
    check(Atom::Group(name("media")));
    draft.rules[0].to = BTreeSet::from([Atom::Members]);
    assert!(draft.encode().is_err());
}

#[test]
fn a_policy_without_room_is_refused() {
    let many = |count: u16| -> BTreeSet<Atom> {
        (0..count)
            .map(|n| Atom::Person(name(&std::format!("p{n}"))))
            .collect()
    };
    let mut draft = Draft::members_to_hosts(UnixTime::EPOCH);
    draft.rules[0].from = many(128);
    draft.rules[0].to = many(128);
    assert!(draft.encode().is_ok());
    let body = draft.encode().unwrap();
    assert!(Rules::new(&body, Serial(1)).is_ok());
    let small = Rules::within(&body, Serial(1), &PolicyLimits::MICRO);
    assert!(matches!(small, Err(RulesError::TooLarge { limit: 512 })));
    draft.rules[0].to = many(129);
    assert!(matches!(
        draft.encode(),
        Err(altnet_wire::policy::BadPolicy::TooMany { .. })
    ));
}
