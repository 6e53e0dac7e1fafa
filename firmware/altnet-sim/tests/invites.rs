//! Invites that let nobody in, and those that let the same device in again.

use altnet_core::invite::{Link, LinkError};
use altnet_core::node::{Command, Event, JoinError, Stored};
use altnet_sim::founder::Founder;
use altnet_sim::homes::{
    Homes, RELAY, differences, entry, invited, is_member, join, join_as, join_fails, seconds,
};
use altnet_sim::nat::Kind;
use altnet_sim::world::HostId;
use altnet_wire::message::Refusal;
use altnet_wire::record::Roles;

/// Tries to join with `link`: the refusal is `why`, and nothing changed anywhere.
fn check(homes: &mut Homes, joiner: HostId, link: Link, why: JoinError) {
    homes.world.run(seconds(120));
    let before = disks(homes, joiner);
    assert_eq!(join_fails(&mut homes.world, joiner, invited(link)), why);
    assert!(!why.to_string().contains('\n'), "one sentence");
    homes.world.run(seconds(60));
    let after = disks(homes, joiner);
    for (before, after) in before.iter().zip(&after) {
        let changed = differences(before, after);
        assert!(changed.is_empty(), "{why}: {changed:?}");
    }
}

fn disks(homes: &mut Homes, joiner: HostId) -> [Stored; 2] {
    [joiner, homes.relay].map(|host| homes.world.disk(host).clone())
}

fn homes(seed: u64) -> (Homes, HostId) {
    let mut homes = Homes::new(seed, Kind::PORT_RESTRICTED, Kind::SYMMETRIC);
    let joiner = homes.world.host("203.0.113.50", None);
    (homes, joiner)
}

fn link(homes: &mut Homes) -> Link {
    let roles = Roles::GATEWAY;
    homes.founder.invite("house-c", roles, Some(3), entry())
}

fn member_of(homes: &Homes, host: HostId) -> String {
    let status = homes.world.node(host).status(homes.world.now());
    status.network.expect("a member").member
}

#[test]
fn invite_refusals_expired() {
    let (mut homes, joiner) = homes(101);
    let lasts = seconds(30);
    let founder = &mut homes.founder;
    let link = founder.invite_lasting("late", Roles::GATEWAY, Some(3), entry(), lasts, 1);
    let why = JoinError::Refused(Refusal::InviteExpired);
    check(&mut homes, joiner, link, why);
}

#[test]
fn invite_refusals_used_up() {
    let (mut homes, joiner) = homes(102);
    let link = link(&mut homes);
    let first = homes.world.host("203.0.113.51", None);
    join(&mut homes.world, first, invited(link.clone()));
    let why = JoinError::Refused(Refusal::InviteUsedUp);
    check(&mut homes, joiner, link, why);
    assert!(is_member(&homes.world, first));
}

#[test]
fn invite_refusals_revoked() {
    let (mut homes, joiner) = homes(103);
    let link = link(&mut homes);
    let record = homes.founder.revoke_invite(&link);
    homes.publish(&record);
    let why = JoinError::Refused(Refusal::InviteRevoked);
    check(&mut homes, joiner, link, why);
}

#[test]
fn invite_refusals_another_network() {
    let (mut homes, joiner) = homes(104);
    let mut other = Founder::new("elsewhere", 99);
    let link = other.invite("house-c", Roles::GATEWAY, Some(3), entry());
    check(&mut homes, joiner, link, JoinError::OtherNetwork);
}

#[test]
fn invite_refusals_other_issuer() {
    let (mut homes, joiner) = homes(105);
    let link = homes.founder.invite_by_hand("house-c", entry());
    let why = JoinError::Refused(Refusal::OtherIssuer);
    check(&mut homes, joiner, link, why);
}

#[test]
fn invite_refusals_altered() {
    let (mut homes, joiner) = homes(106);
    let text = link(&mut homes).to_text();
    for at in 0..text.len() {
        let mut altered = text.clone().into_bytes();
        altered[at] = if altered[at] == b'a' { b'b' } else { b'a' };
        let altered = String::from_utf8(altered).expect("ASCII for ASCII");
        if altered.eq_ignore_ascii_case(&text) {
            continue;
        }
        let error = Link::parse(&altered).expect_err("an altered link");
        assert!(!error.to_string().contains('\n'));
    }
    assert_eq!(
        Link::parse(&text[..text.len() - 4]).unwrap_err(),
        LinkError::CutOff
    );
    // What a text can't show either: the right invite with another's secret half.
    let other = link_of_another_name(&mut homes);
    let link = Link::parse(&text).unwrap();
    assert!(Link::new(link.invite(), &[entry()], [7; 16]).is_err());
    assert_ne!(other.invite(), link.invite());
    join(&mut homes.world, joiner, invited(link));
}

fn link_of_another_name(homes: &mut Homes) -> Link {
    homes
        .founder
        .invite("house-d", Roles::GATEWAY, Some(4), entry())
}

#[test]
fn invite_refusals_name_and_site_taken() {
    let (mut homes, joiner) = homes(107);
    let link = homes
        .founder
        .invite("house-a", Roles::empty(), None, entry());
    let why = JoinError::Refused(Refusal::NameTaken);
    check(&mut homes, joiner, link, why);
    let roles = Roles::GATEWAY;
    let link = homes.founder.invite("house-c", roles, Some(1), entry());
    let why = JoinError::Refused(Refusal::Conflict);
    check(&mut homes, joiner, link, why);
}

#[test]
fn invite_refusals_nobody_answers() {
    let (mut homes, joiner) = homes(108);
    let link = link(&mut homes);
    homes.world.block(RELAY, "203.0.113.50", true);
    check(&mut homes, joiner, link.clone(), JoinError::NoAnswer);
    homes.world.block(RELAY, "203.0.113.50", false);
    join(&mut homes.world, joiner, invited(link));
}

#[test]
fn the_same_device_redeeming_again_gets_the_same_membership() {
    let (mut homes, joiner) = homes(109);
    let link = link(&mut homes);
    join(&mut homes.world, joiner, invited(link.clone()));
    let member = member_of(&homes, joiner);
    for _ in 0..3 {
        homes.world.run(seconds(5));
        homes.world.command(joiner, Command::Leave);
        homes.world.run(seconds(5));
        assert!(!is_member(&homes.world, joiner));
        join(&mut homes.world, joiner, invited(link.clone()));
        assert_eq!(member_of(&homes, joiner), member);
    }
    let members = homes.world.node(homes.relay).registry().unwrap().members();
    assert_eq!(members.count(), 4);
}

#[test]
fn uses_are_counted_across_restarts_of_the_issuer() {
    let (mut homes, third) = homes(110);
    let lasts = seconds(86_400);
    let founder = &mut homes.founder;
    let link = founder.invite_lasting("", Roles::empty(), None, entry(), lasts, 2);
    let hosts = ["203.0.113.61", "203.0.113.62"].map(|address| homes.world.host(address, None));
    for (host, name) in hosts.into_iter().zip(["one", "two"]) {
        join_as(&mut homes.world, host, invited(link.clone()), Some(name));
        homes.world.restart(homes.relay);
        homes.world.run(seconds(5));
    }
    let why = JoinError::Refused(Refusal::InviteUsedUp);
    check(&mut homes, third, link.clone(), why);
    // Who came in by it may come again.
    let was = member_of(&homes, hosts[0]);
    homes.world.command(hosts[0], Command::Leave);
    homes.world.restart(homes.relay);
    homes.world.run(seconds(5));
    join_as(&mut homes.world, hosts[0], invited(link), Some("one"));
    assert_eq!(member_of(&homes, hosts[0]), was);
}

#[test]
fn a_revoked_member_comes_in_by_a_new_invite_alone() {
    let (mut homes, joiner) = homes(111);
    let old = link(&mut homes);
    join(&mut homes.world, joiner, invited(old.clone()));
    homes.world.run(seconds(5));
    let was = homes.member("house-c");
    let record = homes.founder.revoke(was);
    homes.publish(&record);
    homes.world.run(seconds(5));
    let told = homes.world.told(joiner);
    let put_out = |e: &Event| matches!(e, Event::Left { revoked: true, .. });
    assert!(told.iter().any(put_out));
    let why = join_fails(&mut homes.world, joiner, invited(old));
    assert!(matches!(why, JoinError::Refused(_)), "{why}");
    let new = link_of_another_name(&mut homes);
    join(&mut homes.world, joiner, invited(new));
    assert_ne!(member_of(&homes, joiner), was.to_string());
}

/// A relay cuts what it sends to an address as the member took it that was there before; who comes after it, from
/// nothing, takes no pieces.
#[test]
fn regression_whoever_is_where_a_member_on_a_narrow_line_was_gets_in() {
    let (mut homes, joiner) = homes(331);
    homes.world.narrow(joiner, Some(600));
    for (name, site) in [("first", 3), ("second", 4), ("third", 5)] {
        let link = homes
            .founder
            .invite(name, Roles::GATEWAY, Some(site), entry());
        join(&mut homes.world, joiner, invited(link));
        let cut = homes.world.node(homes.relay).counters().cut;
        homes.world.run(seconds(20));
        println!(
            "{name}: {} cut",
            homes.world.node(homes.relay).counters().cut - cut
        );
        homes.world.power_off(joiner);
        homes.world.disk(joiner).clear();
        homes.world.power_on(joiner);
    }
}
