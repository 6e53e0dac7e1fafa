//! A member brings a friend in, as far as policy lets it, through an issuer that neither of them is.

use std::net::Ipv6Addr;

use altnet_core::audit::{Fact, Kind as Entry};
use altnet_core::invite::Link;
use altnet_core::issuer::{Refusal as Unsigned, subtree};
use altnet_core::node::{CommandError, Event, JoinError};
use altnet_core::policy::{Draft, DraftSponsor};
use altnet_core::registry::Unfit;
use altnet_sim::homes::{Homes, invited, is_member, join_as, join_fails, seconds};
use altnet_sim::nat::Kind;
use altnet_sim::packet;
use altnet_sim::rules::{policy, rule, udp};
use altnet_sim::world::HostId;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::message::Refusal;
use altnet_wire::policy::Atom;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn guests() -> Atom {
    Atom::Group(name("guests"))
}

/// Guests reach one port of the wiki, and house A may bring in so many of them.
fn rules(homes: &Homes, most: u16, depth: u8) -> Draft {
    let wiki = Atom::Host(SiteId::new(2).unwrap(), name("wiki"));
    let sponsor = |who, most| DraftSponsor {
        who,
        most,
        depth,
        groups: [name("guests")].into(),
    };
    let house_a = Atom::Device(homes.member("house-a"));
    Draft {
        sponsors: vec![sponsor(house_a, most), sponsor(guests(), 1)],
        ..policy([rule("web", &[guests()], &[wiki], &[udp(80)])])
    }
}

fn homes(seed: u64, most: u16, depth: u8) -> Homes {
    let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    let draft = rules(&homes, most, depth);
    publish(&mut homes, &draft);
    homes
}

fn publish(homes: &mut Homes, draft: &Draft) {
    let before = serial(homes, homes.a);
    for record in homes.founder.publish_policy(draft) {
        homes.publish(&record);
    }
    let hosts = [homes.relay, homes.a, homes.b];
    let done = homes.world.run_for(seconds(30), |world| {
        let at = |host: HostId| world.node(host).policy_view(world.now()).serial;
        hosts.iter().all(|host| at(*host) > before)
    });
    assert!(done, "{}", homes.story());
}

fn serial(homes: &Homes, host: HostId) -> u64 {
    homes.world.node(host).policy_view(homes.world.now()).serial
}

fn invite(homes: &mut Homes, host: HostId, uses: u16) -> Result<Link, CommandError> {
    homes.world.with(host, |node, now| {
        node.create_invite(None, uses, seconds(86_400), now)
    })
}

fn brings(homes: &mut Homes, by: HostId, address: &str, label: &str) -> HostId {
    let link = invite(homes, by, 1).unwrap();
    let friend = homes.world.host(address, None);
    join_as(&mut homes.world, friend, invited(link), Some(label));
    friend
}

fn refused(homes: &mut Homes, link: Link, address: &str) -> JoinError {
    let late = homes.world.host(address, None);
    join_fails(&mut homes.world, late, invited(link))
}

/// Whether one datagram from a friend's device comes to a port of the wiki.
fn comes(homes: &mut Homes, friend: HostId, port: u16) -> bool {
    let status = homes.world.node(friend).status(homes.world.now());
    let own: Ipv6Addr = status.network.unwrap().address.parse().unwrap();
    let packet = packet::udp((own, 4000), (homes.lan(2, 0x80), port), b"x");
    homes.world.delivered(homes.b);
    let b = homes.b;
    // The first may wait for a session.
    (0..3).any(|_| {
        let _ = homes.world.send(friend, &packet);
        homes
            .world
            .run_for(seconds(5), |world| !world.delivered(b).is_empty())
    })
}

#[test]
fn a_friend_comes_in_and_reaches_what_its_group_may() {
    let mut homes = homes(501, 2, 1);
    let a = homes.a;
    let friend = brings(&mut homes, a, "203.0.113.60", "friend");
    assert!(comes(&mut homes, friend, 80), "{}", homes.story());
    assert!(!comes(&mut homes, friend, 81));
    let views = homes.world.node(homes.b).member_views();
    let view = views.iter().find(|view| view.name == "friend").unwrap();
    assert_eq!(view.sponsor.as_deref(), Some("house-a"));
    assert_eq!(view.groups, ["guests"]);
    let own = homes.world.node(a).invite_views(homes.world.now());
    assert_eq!(own.len(), 1);
    assert_eq!(
        (own[0].status.as_str(), &own[0].used_by[..]),
        ("used", &["friend".to_owned()][..])
    );
    // Who made the invite, and who came in by it, is in the issuer's log.
    let told = homes.world.told(homes.relay);
    let facts: Vec<String> = told
        .iter()
        .filter_map(|event| Fact::of_event(event, |node| node))
        .map(|fact| format!("{fact:?}"))
        .collect();
    let has = |word: &str, detail: &str| {
        let fits = |fact: &String| fact.contains(word) && fact.contains(detail);
        assert!(facts.iter().any(fits), "{word} {detail}: {facts:#?}");
    };
    let kind = |kind: Entry| format!("{kind:?}");
    has(&kind(Entry::INVITED), &homes.member("house-a").to_string());
    has(&kind(Entry::ADMITTED), "brought in by house-a");
}

#[test]
fn who_has_brought_in_as_many_as_policy_allows_is_told_so() {
    let mut homes = homes(502, 1, 1);
    let a = homes.a;
    let second = invite(&mut homes, a, 1).unwrap();
    brings(&mut homes, a, "203.0.113.60", "friend");
    let why = refused(&mut homes, second, "203.0.113.61");
    assert_eq!(why, JoinError::Refused(Refusal::SponsorFull));
    assert!(
        why.to_string()
            .contains("as many members as the network's policy allows")
    );
    homes.world.run(seconds(10));
    let error = invite(&mut homes, a, 1).unwrap_err();
    let full = Unfit::Full { most: 1 };
    assert_eq!(error, CommandError::Invite(Unsigned::Sponsor(full)));
}

#[test]
fn a_friend_brings_in_nobody_unless_policy_says_so() {
    let mut homes = homes(503, 2, 1);
    let (a, b) = (homes.a, homes.b);
    let friend = brings(&mut homes, a, "203.0.113.60", "friend");
    homes.world.run(seconds(10));
    let refusal = |unfit| CommandError::Invite(Unsigned::Sponsor(unfit));
    let error = invite(&mut homes, friend, 1).unwrap_err();
    assert_eq!(error, refusal(Unfit::TooDeep));
    assert_eq!(
        invite(&mut homes, b, 1).unwrap_err(),
        refusal(Unfit::NoLine)
    );
    let deeper = rules(&homes, 2, 2);
    publish(&mut homes, &deeper);
    homes.world.run(seconds(10));
    let second = brings(&mut homes, friend, "203.0.113.61", "second");
    assert!(comes(&mut homes, second, 80), "{}", homes.story());
}

#[test]
fn an_invite_that_was_taken_back_lets_nobody_in() {
    let mut homes = homes(504, 2, 1);
    let a = homes.a;
    let link = invite(&mut homes, a, 1).unwrap();
    let key = link.body().unwrap().invite.to_string();
    let closed = homes
        .world
        .with(a, |node, now| node.close_invite(&key[..8], now))
        .unwrap();
    assert_eq!(closed.status, "closed");
    homes.world.run(seconds(10));
    let why = refused(&mut homes, link, "203.0.113.60");
    assert_eq!(why, JoinError::Refused(Refusal::InviteRevoked));
    let again = homes
        .world
        .with(a, |node, now| node.close_invite(&key, now));
    assert_eq!(again.unwrap_err(), CommandError::NoSuchInvite);
}

#[test]
fn a_right_that_is_taken_away_ends_invites_and_not_members() {
    let mut homes = homes(505, 2, 1);
    let a = homes.a;
    let friend = brings(&mut homes, a, "203.0.113.60", "friend");
    let link = invite(&mut homes, a, 1).unwrap();
    let none = Draft {
        sponsors: Vec::new(),
        ..rules(&homes, 2, 1)
    };
    publish(&mut homes, &none);
    homes.world.run(seconds(10));
    let why = refused(&mut homes, link, "203.0.113.61");
    assert_eq!(why, JoinError::Refused(Refusal::NotSponsored));
    assert!(is_member(&homes.world, friend));
    // The group came with the line.
    assert!(!comes(&mut homes, friend, 80));
    let again = rules(&homes, 2, 1);
    publish(&mut homes, &again);
    homes.world.run(seconds(10));
    assert!(comes(&mut homes, friend, 80), "{}", homes.story());
}

#[test]
fn a_revoked_sponsor_goes_with_whom_it_brought_in() {
    let mut homes = homes(516, 2, 2);
    let a = homes.a;
    let friend = brings(&mut homes, a, "203.0.113.60", "friend");
    homes.world.run(seconds(10));
    let second = brings(&mut homes, friend, "203.0.113.61", "second");
    assert!(comes(&mut homes, second, 80), "{}", homes.story());
    let house_a = homes.member("house-a");
    let registry = homes.world.node(homes.relay).registry().unwrap();
    let tree = subtree(registry, &house_a);
    let mut expected = vec![homes.member("friend"), homes.member("second")];
    expected.sort_unstable();
    assert_eq!(tree, expected);
    for member in [house_a].into_iter().chain(tree) {
        let record = homes.founder.revoke(member);
        homes.publish(&record);
    }
    for host in [a, friend, second] {
        let out = homes
            .world
            .run_for(seconds(60), |world| !is_member(world, host));
        assert!(out, "{}", homes.story());
    }
    // Whose sponsor is gone is none at once, and learns then that it is put out itself.
    homes.world.run(seconds(30));
    let put_out = |e: &Event| matches!(e, Event::Left { revoked: true, .. });
    assert!(homes.world.told(second).iter().any(put_out));
}

#[test]
fn whom_a_revoked_sponsor_brought_in_is_no_member_until_somebody_vouches() {
    let mut homes = homes(507, 2, 1);
    let a = homes.a;
    let friend = brings(&mut homes, a, "203.0.113.60", "friend");
    let other = brings(&mut homes, a, "203.0.113.61", "other");
    assert!(comes(&mut homes, friend, 80) && comes(&mut homes, other, 80));
    let registry = homes.world.node(homes.relay).registry().unwrap();
    let known: Vec<Vec<u8>> = registry.iter().map(|(_, bytes)| bytes.to_vec()).collect();
    let adopted = homes.founder.adopt(&known, homes.member("friend"));
    let house_a = homes.member("house-a");
    // As if what keeps the friend came late.
    let record = homes.founder.revoke(house_a);
    homes.publish(&record);
    let state = |homes: &Homes, host| homes.world.node(host).status(homes.world.now()).state;
    homes.world.run(seconds(30));
    assert_eq!(state(&homes, friend), "set-aside");
    for record in adopted {
        homes.publish(&record);
    }
    let back = homes
        .world
        .run_for(seconds(60), |world| is_member(world, friend));
    assert!(back, "{}", homes.story());
    assert!(comes(&mut homes, friend, 80), "{}", homes.story());
    assert_eq!(state(&homes, other), "set-aside");
}

#[test]
fn a_restart_changes_nothing() {
    let mut homes = homes(508, 2, 1);
    let a = homes.a;
    let friend = brings(&mut homes, a, "203.0.113.60", "friend");
    homes.world.run(seconds(10));
    for host in [homes.relay, a, homes.b, friend] {
        homes.world.restart(host);
    }
    homes.world.run(seconds(20));
    assert!(is_member(&homes.world, friend));
    assert!(comes(&mut homes, friend, 80), "{}", homes.story());
    // The relay, both homes, the friend.
    assert_eq!(homes.world.node(homes.b).member_views().len(), 4);
}
