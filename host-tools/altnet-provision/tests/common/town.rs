//! The records of a small network in which everything occurs that a policy can speak of, and
//! policies about it.

use std::collections::{BTreeMap, BTreeSet};

use altnet_core::clock::Clock;
use altnet_core::limits::Limits;
use altnet_core::policy::{Draft, DraftProfile, DraftRule, DraftSponsor, STALE_AFTER_S};
use altnet_core::records::{self, SigningSecret};
use altnet_core::registry::{Applied, Registry};
use altnet_wire::address;
use altnet_wire::envelope::MAX_RECORD_BYTES;
use altnet_wire::id::{self, MemberId, NetworkId, Serial, SiteId, TunnelKey};
use altnet_wire::policy::{Atom, Pattern, Service, Span, Window};
use altnet_wire::record::{
    AppRecord, Body, Genesis, HostRecord, IssuerCertificate, Membership, Rights, Roles, TunnelEpoch,
};
use altnet_wire::time::{Duration, UnixTime};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{NOW, name};

pub fn site(number: u16) -> SiteId {
    SiteId::new(number).unwrap()
}

pub const fn member(number: u8) -> MemberId {
    MemberId([number; 16])
}

fn secret(number: u8) -> SigningSecret {
    SigningSecret::from_bytes(&[number; 32])
}

fn sign<T: Body>(by: &SigningSecret, network: NetworkId, body: &T, serial: u64) -> Vec<u8> {
    let mut out = [0; MAX_RECORD_BYTES];
    let bytes = records::sign_record(by, network, body, Serial(serial), &mut out);
    bytes.unwrap().to_vec()
}

/// Two homes and a cabin without a gateway, three people, four devices, four named machines, two
/// apps.
pub fn registry() -> Registry {
    with_many(0)
}

/// The same, and so many devices more, of nobody and in no group.
pub fn with_many(more: u16) -> Registry {
    let (owner, issuer) = (secret(201), secret(202));
    let genesis = Genesis {
        name: name("town"),
        owners: heapless::Vec::from_iter([owner.public()]),
        recovery: secret(203).public(),
        issued: NOW,
        nonce: [4; 16],
    };
    let genesis = sign(&owner, NetworkId([0; 32]), &genesis, 0);
    let network = id::network_id(&genesis);
    let mut registry = Registry::new(&genesis, Limits::ROUTER).unwrap();
    let mut clock = Clock::new(NOW);
    let mut apply = |bytes: Vec<u8>| {
        let applied = registry.apply(&bytes, &mut clock).unwrap();
        assert!(matches!(applied, Applied::New { .. }));
    };
    let certificate = IssuerCertificate {
        issuer: issuer.public(),
        rights: Rights::all(),
        roles: Roles::all(),
        first_site: site(0),
        last_site: site(99),
        issued: NOW,
        expires: NOW.after(Duration::from_secs(1_000_000_000)),
    };
    apply(sign(&owner, network, &certificate, 1));
    type Device<'a> = (u8, &'a str, Option<&'a str>, &'a [&'a str], Option<u16>);
    let devices: [Device<'_>; 4] = [
        (1, "ann-laptop", Some("ann"), &["family"], Some(1)),
        (
            2,
            "bob-phone",
            Some("bob"),
            &["family", "children"],
            Some(2),
        ),
        (3, "eve-tablet", Some("eve"), &["guests"], None),
        (4, "box", None, &[], None),
    ];
    for (number, called, person, groups, at) in devices {
        let gateway = if at.is_some() {
            Roles::GATEWAY
        } else {
            Roles::empty()
        };
        let membership = Membership {
            member: member(number),
            name: name(called),
            person: person.map(name),
            device: secret(number).public(),
            roles: Roles::APPS | gateway,
            site: at.map(site),
            groups: groups.iter().map(|group| name(group)).collect(),
            sponsor: None,
            invite: None,
            issued: NOW,
            expires: NOW.after(Duration::from_secs(86_400)),
            replaces: None,
        };
        apply(sign(&issuer, network, &membership, 1));
        for number in 0..if called == "box" { more } else { 0 } {
            let [high, low] = number.to_be_bytes();
            let mut seed = [7; 32];
            (seed[0], seed[1]) = (high, low);
            let mut id = [200; 16];
            (id[0], id[1]) = (high, low);
            let one = Membership {
                member: MemberId(id),
                name: name(&format!("device-{number}")),
                device: SigningSecret::from_bytes(&seed).public(),
                ..membership.clone()
            };
            apply(sign(&issuer, network, &one, 1));
        }
    }
    for (number, called, last) in [
        (1, "wiki", 7),
        (2, "media-tv", 7),
        (2, "nas", 8),
        (3, "stove", 9),
    ] {
        let mut octets = address::site_prefix(&network, site(number))
            .address()
            .octets();
        octets[15] = last;
        let host = HostRecord {
            name: name(called),
            site: site(number),
            address: Some(octets.into()),
        };
        apply(sign(&issuer, network, &host, 1));
    }
    for (number, called) in [(1, "chat"), (2, "media-box")] {
        let (app, device) = (secret(100 + number), secret(number));
        let record = AppRecord {
            name: name(called),
            app: app.public(),
            tunnel: Some(TunnelEpoch {
                epoch: 1,
                key: TunnelKey(app.public().0),
            }),
            binding: records::bind_app(&network, &app, &device.public()),
        };
        apply(sign(&device, network, &record, 1));
    }
    registry
}

fn sources() -> Vec<Atom> {
    let groups = ["family", "children", "guests", "things"];
    let mut atoms: Vec<Atom> = groups.map(|group| Atom::Group(name(group))).into();
    atoms.extend(["ann", "bob", "nobody"].map(|person| Atom::Person(name(person))));
    atoms.extend([1, 3, 4, 9].map(|number| Atom::Device(member(number))));
    atoms.extend([1, 2].map(|number| Atom::Site(site(number))));
    atoms.push(Atom::Host(site(1), name("wiki")));
    atoms.push(Atom::Host(site(2), name("wiki")));
    atoms.push(Atom::App(member(1), name("chat")));
    atoms.push(Atom::App(member(9), name("chat")));
    atoms
}

fn pattern(text: &str) -> Atom {
    Atom::Named(Pattern::new(text).unwrap())
}

fn targets() -> Vec<Atom> {
    let mut atoms = sources();
    atoms.extend([Atom::Hosts, Atom::Apps, Atom::Anything]);
    atoms.extend(["media", "mixed"].map(|group| Atom::Group(name(group))));
    atoms.extend(["media-*", "wiki", "*"].map(pattern));
    atoms
}

fn some(of: Vec<Atom>, least: usize) -> impl Strategy<Value = BTreeSet<Atom>> {
    subsequence(of, least..4).prop_map(|atoms| atoms.into_iter().collect())
}

fn service() -> impl Strategy<Value = Service> {
    let ports = select(vec![
        (80, 80),
        (0, u16::MAX),
        (1, 79),
        (79, 81),
        (81, u16::MAX),
    ]);
    let with_ports = (select(vec![6u8, 17]), ports).prop_map(|(number, (first, last))| Service {
        protocol: Some(number),
        first_port: first,
        last_port: last,
    });
    prop_oneof![
        4 => with_ports,
        1 => Just(Service::all_of(Some(Service::ICMPV6))),
        1 => Just(Service::all_of(Some(47))),
        1 => Just(Service::ANY),
    ]
}

/// Mornings and nights, on some days.
fn window() -> impl Strategy<Value = Option<Window>> {
    let span = (
        1u8..0x80,
        select(vec![(0u16, 720u16), (900, 840), (0, 1440)]),
    );
    let spans = proptest::collection::vec(span, 1..3);
    let some = (spans, any::<bool>()).prop_map(|(spans, open_without_clock)| Window {
        spans: spans
            .into_iter()
            .map(|(days, (opens_min, closes_min))| Span {
                days,
                opens_min,
                closes_min,
            })
            .collect(),
        open_without_clock,
    });
    prop_oneof![2 => Just(None), 1 => some.prop_map(Some)]
}

fn profiles() -> impl Strategy<Value = Vec<DraftProfile>> {
    // In the order of names, as they are read.
    let groups = subsequence(vec!["children", "guests", "mixed", "things"], 0..4);
    let said = proptest::collection::vec((any::<bool>(), window()), 3);
    (groups, said).prop_map(|(groups, said)| {
        let both = groups.into_iter().zip(said);
        both.map(|(group, (exclusive, window))| DraftProfile {
            group: name(group),
            exclusive: exclusive || window.is_none(),
            window,
        })
        .collect()
    })
}

fn vouchers() -> impl Strategy<Value = BTreeSet<(Atom, Atom)>> {
    let at = [
        Atom::Site(site(1)),
        Atom::Device(member(4)),
        Atom::Device(member(9)),
        Atom::Group(name("things")),
    ];
    let of = [
        Atom::Members,
        Atom::Person(name("ann")),
        Atom::Person(name("nobody")),
        Atom::Group(name("guests")),
        Atom::Group(name("mixed")),
    ];
    proptest::collection::btree_set((select(at.to_vec()), select(of.to_vec())), 0..5)
}

fn sponsors() -> impl Strategy<Value = Vec<DraftSponsor>> {
    let who = [
        Atom::Members,
        Atom::Person(name("ann")),
        Atom::Device(member(4)),
        Atom::Group(name("family")),
        Atom::Group(name("media")),
    ];
    let groups = subsequence(vec!["guests", "new-ones", "things"], 0..3);
    // Few numbers, so that lines are alike and told together.
    let one = (select(who.to_vec()), 1u16..3, 1u8..3, groups);
    let sponsor = |(who, most, depth, groups): (_, _, _, Vec<&str>)| DraftSponsor {
        who,
        most,
        depth,
        groups: groups.into_iter().map(name).collect(),
    };
    proptest::collection::vec(one.prop_map(sponsor), 0..4)
}

/// Policies about the town, of every kind that can be written.
pub fn drafts() -> impl Strategy<Value = Draft> {
    // Most speak of machines and devices that profiles speak of too: there is more to decide.
    let few = [
        Atom::Site(site(1)),
        Atom::Site(site(2)),
        Atom::Group(name("things")),
    ];
    let from = prop_oneof![
        3 => some(sources(), 1),
        2 => some(few.into(), 1),
        1 => Just(BTreeSet::from([Atom::Members])),
    ];
    let services = proptest::collection::btree_set(service(), 1..4);
    let rule = (from, some(targets(), 1), services, window(), any::<bool>());
    let rules = proptest::collection::vec(rule, 0..8).prop_map(|rules| {
        let rules = rules.into_iter().enumerate();
        let rule = |(n, (from, to, services, window, fresh))| DraftRule {
            name: name(&format!("rule-{n}")),
            from,
            to,
            services,
            window,
            needs_fresh_head: fresh,
        };
        rules.map(rule).collect::<Vec<_>>()
    });
    let is_one = |atom: &Atom| !matches!(atom, Atom::Group(_));
    let things = some(sources().into_iter().filter(is_one).collect(), 1);
    let mixed = some(sources().into_iter().filter(is_one).collect(), 1);
    let special = (profiles(), vouchers(), sponsors());
    (rules, things, mixed, special).prop_map(|(rules, things, mut mixed, special)| {
        let (profiles, vouchers, sponsors) = special;
        mixed.insert(pattern("media-*"));
        Draft {
            issued: NOW,
            stale_after_s: STALE_AFTER_S,
            sites: BTreeMap::from([(site(1), name("home"))]),
            groups: BTreeMap::from([
                (name("things"), things),
                (name("mixed"), mixed),
                (
                    name("media"),
                    [pattern("media-*"), pattern("jellyfin")].into(),
                ),
            ]),
            profiles,
            rules,
            vouchers,
            sponsors,
            ..Draft::default()
        }
    })
}

/// A moment of the week in UTC, from Monday 00:00.
pub fn moment(minute: u64) -> UnixTime {
    /// Monday 2026-11-23 00:00 UTC.
    const MONDAY: u64 = 1_795_392_000;
    UnixTime::from_secs(MONDAY + minute * 60)
}
