//! What the registry believes, record by record.

mod common;

use altnet_core::limits::Limits;
use altnet_core::records::SigningSecret;
use altnet_core::registry::{Applied, Claim, Missing, RecordError, Registry, Slot, Subject};
use altnet_core::{issuer, records};
use altnet_wire::envelope::RecordKind;
use altnet_wire::id::{NetworkId, Serial, record_id};
use altnet_wire::record::*;
use common::*;

/// A registry that knows its issuers.
fn begun(town: &Town) -> Registry {
    let mut registry = town.registry(Limits::ROUTER);
    give(&mut registry, &town.certificates());
    registry
}

fn give(registry: &mut Registry, records: &[Vec<u8>]) {
    for bytes in records {
        let applied = registry.apply(bytes, &mut clock());
        assert!(
            matches!(applied, Ok(Applied::New { .. } | Applied::Kept { .. })),
            "{applied:?}"
        );
    }
}

fn refused(registry: &mut Registry, bytes: &[u8]) -> RecordError {
    let before = (picture(registry), registry.revision());
    let error = registry.apply(bytes, &mut clock()).unwrap_err();
    assert_eq!(before, (picture(registry), registry.revision()));
    error
}

#[test]
fn a_networks_id_is_the_hash_of_its_genesis() {
    let town = Town::new();
    let registry = town.registry(Limits::MICRO);
    assert_eq!(registry.network(), town.network);
    assert_eq!(
        registry.owners(),
        [town.owner.public(), town.second.public()]
    );
    let mut bytes = town.genesis.clone();
    bytes[60] ^= 1;
    assert!(Registry::new(&bytes, Limits::MICRO).is_err());
    let stranger = sign(&secret(77), NetworkId([0; 32]), registry.genesis(), 0);
    assert_eq!(
        Registry::new(&stranger, Limits::MICRO).unwrap_err(),
        RecordError::NotAuthorized
    );
}

#[test]
fn a_member_is_found_by_everything_it_has() {
    let town = Town::new();
    let mut registry = begun(&town);
    let device = secret(20);
    let membership = town.gateway(1, &device, "alpha", 3);
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &membership, 1),
            town.sign(&device, &town.node(30), 1),
            town.sign(&device, &town.host("wiki", 3, 9), 1),
            town.sign(&device, &town.app(&secret(50), &device, "chat"), 1),
        ],
    );
    let id = registry.by_member(&member(1)).unwrap().id;
    let is_it = |found: Option<altnet_core::registry::Member<'_>>| {
        assert_eq!(found.unwrap().membership, &membership);
    };
    is_it(registry.by_device(&device.public()));
    is_it(registry.by_node(&id));
    is_it(registry.by_name(&name("alpha")));
    is_it(registry.by_tunnel(&town.node(30).tunnel.key));
    is_it(registry.by_control(&town.node(30).control));
    is_it(registry.gateway(site(3)));
    assert!(matches!(
        registry.by_address(id.address()),
        Some(Subject::Node(_))
    ));
    let host = registry
        .host(&name("wiki"))
        .unwrap()
        .record
        .address
        .unwrap();
    is_it(registry.by_address(host).unwrap().member().copied());
    let unnamed = town.host("x", 3, 77).address.unwrap();
    assert!(matches!(
        registry.by_address(unnamed),
        Some(Subject::Site(..))
    ));
    let app = registry.app_by_name(&name("chat")).unwrap().address;
    assert!(matches!(registry.by_address(app), Some(Subject::App(..))));
    let elsewhere = town.host("x", 4, 77).address.unwrap();
    assert!(registry.by_address(elsewhere).is_none());
}

#[test]
fn a_record_of_another_network_or_altered_is_refused() {
    let town = Town::new();
    let mut registry = begun(&town);
    let body = town.membership(1, &secret(20), "alpha");
    let foreign = sign(&town.issuer, NetworkId([8; 32]), &body, 1);
    assert_eq!(
        refused(&mut registry, &foreign),
        RecordError::OtherNetwork(NetworkId([8; 32]))
    );
    let mut altered = town.sign(&town.issuer, &body, 1);
    let last = altered.len() - 1;
    altered[last] ^= 1;
    assert_eq!(refused(&mut registry, &altered), RecordError::BadSignature);
}

#[test]
fn an_older_record_never_replaces_a_newer_one() {
    let town = Town::new();
    let mut registry = begun(&town);
    let device = secret(20);
    let old = town.sign(&town.issuer, &town.membership(1, &device, "alpha"), 4);
    let new = town.sign(&town.issuer, &town.membership(1, &device, "beta"), 5);
    give(&mut registry, &[old.clone(), new.clone()]);
    assert_eq!(
        refused(&mut registry, &old),
        RecordError::Stale {
            current: Serial(5),
            found: Serial(4)
        }
    );
    assert_eq!(registry.apply(&new, &mut clock()), Ok(Applied::Same));
    assert!(registry.by_name(&name("alpha")).is_none());
}

#[test]
fn an_issuer_signs_within_its_certificate_only() {
    let town = Town::new();
    let mut registry = town.registry(Limits::ROUTER);
    let mut certificate = town.certificate(&town.issuer, Rights::INVITE);
    certificate.roles = Roles::GATEWAY;
    certificate.first_site = site(5);
    certificate.last_site = site(6);
    let device = secret(20);
    let mut body = town.gateway(1, &device, "alpha", 5);
    let early = town.sign(&town.issuer, &body, 1);
    assert_eq!(
        refused(&mut registry, &early),
        RecordError::Missing(Missing::Issuer(town.issuer.public()))
    );
    give(&mut registry, &[town.sign(&town.owner, &certificate, 1)]);
    // The gateway role is covered, the apps role isn't.
    assert_eq!(refused(&mut registry, &early), RecordError::NotAuthorized);
    body.roles = Roles::GATEWAY;
    body.site = Some(site(7));
    let wrong_site = town.sign(&town.issuer, &body, 1);
    assert_eq!(
        refused(&mut registry, &wrong_site),
        RecordError::NotAuthorized
    );
    body.site = Some(site(6));
    body.expires = at(200 * DAY);
    let long = town.sign(&town.issuer, &body, 1);
    assert_eq!(refused(&mut registry, &long), RecordError::Lifetime);
    body.issued = at(401 * DAY);
    body.expires = at(402 * DAY);
    let late = town.sign(&town.issuer, &body, 1);
    assert_eq!(refused(&mut registry, &late), RecordError::IssuerExpired);
    body.issued = at(300 * DAY);
    body.expires = at(310 * DAY);
    give(&mut registry, &[town.sign(&town.issuer, &body, 1)]);
    let revocation = town.revocation(RevocationTarget::Member(member(1)), 20);
    let revocation = town.sign(&town.issuer, &revocation, 1);
    assert_eq!(
        refused(&mut registry, &revocation),
        RecordError::NotAuthorized
    );
    let by_itself = town.sign(
        &town.issuer,
        &town.certificate(&secret(40), Rights::all()),
        1,
    );
    assert_eq!(
        refused(&mut registry, &by_itself),
        RecordError::NotAuthorized
    );
}

#[test]
fn a_stolen_porter_admits_nobody_without_an_invites_secret() {
    let town = Town::new();
    let mut registry = begun(&town);
    let device = secret(20);
    let mut body = town.membership(1, &device, "alpha");
    let bare = town.sign(&town.porter, &body, 1);
    assert_eq!(refused(&mut registry, &bare), RecordError::NotAuthorized);

    let key = SigningSecret::of_invite(&[9; 16]);
    body.invite = Some(records::redeem_proof(&key, [3; 32], &device.public()));
    let unknown = town.sign(&town.porter, &body, 1);
    assert_eq!(
        refused(&mut registry, &unknown),
        RecordError::Missing(Missing::Invite(key.public()))
    );
    give(
        &mut registry,
        &[town.sign(&town.issuer, &town.invite(&[9; 16]), 1)],
    );

    let mut greedy = body.clone();
    greedy.roles = Roles::RELAY;
    let greedy = town.sign(&town.porter, &greedy, 1);
    assert_eq!(refused(&mut registry, &greedy), RecordError::NotAsInvited);

    // The proof of one device doesn't let another in.
    let mut other = body.clone();
    other.device = secret(21).public();
    let other = town.sign(&town.porter, &other, 1);
    assert_eq!(refused(&mut registry, &other), RecordError::BadSignature);

    give(&mut registry, &[town.sign(&town.porter, &body, 1)]);
    assert!(registry.by_device(&device.public()).is_some());
}

#[test]
fn a_revoked_member_is_gone_and_stays_gone() {
    let town = Town::new();
    let mut registry = begun(&town);
    let device = secret(20);
    let membership = town.sign(&town.issuer, &town.gateway(1, &device, "alpha", 3), 1);
    let node = town.sign(&device, &town.node(30), 1);
    let host = town.sign(&device, &town.host("wiki", 3, 9), 1);
    give(&mut registry, &[membership.clone(), node.clone(), host]);
    while registry.next_unsaved().is_some() {}
    let revocation = town.revocation(RevocationTarget::Member(member(1)), 20);
    give(&mut registry, &[town.sign(&town.issuer, &revocation, 1)]);
    assert!(registry.by_device(&device.public()).is_none());
    assert!(registry.by_tunnel(&town.node(30).tunnel.key).is_none());
    assert!(registry.host(&name("wiki")).is_none());
    let unsaved: Vec<Slot> = core::iter::from_fn(|| registry.next_unsaved()).collect();
    assert_eq!(unsaved.len(), 4, "three to remove and one to write");
    assert_eq!(
        unsaved
            .iter()
            .filter(|s| registry.bytes(s).is_none())
            .count(),
        3
    );
    assert_eq!(refused(&mut registry, &membership), RecordError::Revoked);
    assert_eq!(
        refused(&mut registry, &node),
        RecordError::Missing(Missing::Device(device.public()))
    );
}

#[test]
fn a_revoked_device_is_followed_by_a_new_one_and_never_by_an_old_record() {
    let town = Town::new();
    let mut registry = begun(&town);
    let (old, lost, new) = (secret(20), secret(21), secret(22));
    let first = town.sign(&town.issuer, &town.membership(1, &old, "alpha"), 1);
    let second = town.sign(&town.issuer, &town.membership(1, &lost, "alpha"), 2);
    let third = town.sign(&town.issuer, &town.membership(1, &new, "alpha"), 3);
    give(&mut registry, &[first.clone(), second]);
    let revocation = town.revocation(RevocationTarget::Device(lost.public()), 20);
    give(&mut registry, &[town.sign(&town.issuer, &revocation, 1)]);
    assert!(registry.by_member(&member(1)).is_none());
    assert!(matches!(
        refused(&mut registry, &first),
        RecordError::Stale { .. }
    ));
    give(&mut registry, &[third]);
    assert!(registry.by_device(&new.public()).is_some());
}

#[test]
fn a_revoked_issuers_earlier_members_stay_and_later_ones_do_not_come() {
    let town = Town::new();
    let mut registry = begun(&town);
    give(
        &mut registry,
        &[town.sign(&town.issuer, &town.membership(1, &secret(20), "alpha"), 1)],
    );
    let revocation = town.revocation(RevocationTarget::Issuer(town.issuer.public()), 20);
    let by_issuer = town.sign(&town.issuer, &revocation, 1);
    assert_eq!(
        refused(&mut registry, &by_issuer),
        RecordError::NotAuthorized
    );
    give(&mut registry, &[town.sign(&town.second, &revocation, 1)]);
    assert!(registry.by_member(&member(1)).is_some());
    let mut late = town.membership(2, &secret(21), "beta");
    late.issued = at(21);
    let late = town.sign(&town.issuer, &late, 1);
    assert_eq!(refused(&mut registry, &late), RecordError::Revoked);
    assert!(registry.issuer(&town.issuer.public()).is_none());
}

#[test]
fn a_revoked_issuer_puts_nobody_out_by_dating_back() {
    let town = Town::new();
    let mut registry = begun(&town);
    for (n, seed, name) in [(1, 20, "alpha"), (2, 21, "beta")] {
        let membership = town.membership(n, &secret(seed), name);
        give(&mut registry, &[town.sign(&town.issuer, &membership, 1)]);
    }
    // What it revoked while it might: an owner who signs it anew keeps it.
    let earlier = town.revocation(RevocationTarget::Member(member(1)), 12);
    let earlier = town.sign(&town.issuer, &earlier, 1);
    give(&mut registry, core::slice::from_ref(&earlier));
    assert!(registry.by_member(&member(1)).is_none());
    let anew = issuer::sign_anew(&town.second, &earlier).unwrap();
    let end = town.revocation(RevocationTarget::Issuer(town.issuer.public()), 20);
    let end = town.sign(&town.second, &end, 1);
    give(&mut registry, &[anew.clone(), end.clone()]);
    assert!(registry.is_revoked(&RevocationTarget::Member(member(1))));
    // What the thief of its key revokes now, of an earlier date.
    let dated_back = town.revocation(RevocationTarget::Member(member(2)), 11);
    let dated_back = town.sign(&town.issuer, &dated_back, 1);
    assert_eq!(refused(&mut registry, &dated_back), RecordError::Revoked);
    assert!(registry.by_member(&member(2)).is_some());
    // Wherever that came before the end of the key was known, it stands aside then.
    let mut other = begun(&town);
    let membership = town.membership(3, &secret(22), "gamma");
    give(&mut other, &[town.sign(&town.issuer, &membership, 1)]);
    give(&mut other, &[dated_back]);
    give(&mut other, &[anew, end]);
    assert!(!other.is_revoked(&RevocationTarget::Member(member(2))));
    assert!(other.is_revoked(&RevocationTarget::Member(member(1))));
}

#[test]
fn what_a_removed_owner_certified_stands_aside_until_signed_anew() {
    let town = Town::new();
    let mut registry = begun(&town);
    give(
        &mut registry,
        &[town.sign(&town.issuer, &town.membership(1, &secret(20), "alpha"), 1)],
    );
    let change = town.change(town.genesis_id(), &[&town.second], 30);
    give(&mut registry, &[town.sign(&town.second, &change, 1)]);
    assert_eq!(registry.owners(), [town.second.public()]);
    assert_eq!(registry.members().count(), 0);
    let aside: Vec<Vec<u8>> = registry
        .standing_aside()
        .filter(|(slot, _)| slot.kind() == IssuerCertificate::KIND)
        .map(|(_, bytes)| issuer::sign_anew(&town.second, bytes).unwrap())
        .collect();
    assert_eq!(aside.len(), 2);
    let before = registry.revision();
    give(&mut registry, &aside);
    assert_eq!(registry.members().count(), 1);
    let again = registry
        .changes_since(before)
        .filter(|(_, slot, _)| slot.kind() == Membership::KIND)
        .count();
    assert_eq!(again, 1, "subscribers hear of it again");
    let stolen = town.certificate(&secret(40), Rights::all());
    let stolen = town.sign(&town.owner, &stolen, 9);
    assert_eq!(refused(&mut registry, &stolen), RecordError::NotAuthorized);
}

#[test]
fn only_the_recovery_key_ends_a_quarrel_between_owners() {
    let town = Town::new();
    let thief = &town.owner;
    let mut registry = town.registry(Limits::ROUTER);
    // The second owner removes the thief, who answers with forks until one has a smaller id.
    let removal = town.sign(
        &town.second,
        &town.change(town.genesis_id(), &[&town.second], 30),
        1,
    );
    give(&mut registry, core::slice::from_ref(&removal));
    let fork = (31..)
        .map(|t| town.sign(thief, &town.change(town.genesis_id(), &[thief], t), 1))
        .find(|bytes| record_id(bytes) < record_id(&removal))
        .unwrap();
    give(&mut registry, core::slice::from_ref(&fork));
    assert_eq!(registry.owners(), [thief.public()]);
    // The recovery key speaks on the lost branch, and that branch holds.
    let mut last = town.change(record_id(&removal), &[&town.second], 40);
    let by_owner = OwnerChange {
        recovery: secret(66).public(),
        ..last.clone()
    };
    let by_owner = town.sign(&town.second, &by_owner, 2);
    assert_eq!(
        refused(&mut registry, &by_owner),
        RecordError::NotAuthorized
    );
    last.recovery = secret(60).public();
    give(&mut registry, &[town.sign(&town.recovery, &last, 2)]);
    assert_eq!(registry.owners(), [town.second.public()]);
    assert_eq!(registry.recovery(), secret(60).public());
    // Another fork by the thief changes nothing.
    for t in 50..58 {
        let bytes = town.sign(thief, &town.change(town.genesis_id(), &[thief], t), 1);
        give(&mut registry, &[bytes]);
        assert_eq!(registry.owners(), [town.second.public()]);
    }
}

#[test]
fn two_members_cannot_have_the_same_name_or_site() {
    let town = Town::new();
    let mut registry = begun(&town);
    let one = town.gateway(1, &secret(20), "alpha", 3);
    give(&mut registry, &[town.sign(&town.issuer, &one, 1)]);
    let same_name = town.membership(2, &secret(21), "alpha");
    let same_name = town.sign(&town.issuer, &same_name, 1);
    assert_eq!(
        refused(&mut registry, &same_name),
        RecordError::Taken(Claim::Name)
    );
    let mut same_site = town.gateway(2, &secret(21), "beta", 3);
    let bytes = town.sign(&town.issuer, &same_site, 1);
    assert_eq!(
        refused(&mut registry, &bytes),
        RecordError::Taken(Claim::Site)
    );
    same_site.replaces = Some(secret(20).public());
    give(&mut registry, &[town.sign(&town.issuer, &same_site, 1)]);
    assert_eq!(
        registry.gateway(site(3)).unwrap().membership.member,
        member(2)
    );
    assert!(registry.by_member(&member(1)).is_none());
}

#[test]
fn a_node_cannot_take_anothers_keys() {
    let town = Town::new();
    let mut registry = begun(&town);
    let (one, two) = (secret(20), secret(21));
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.membership(2, &one, "alpha"), 1),
            town.sign(&town.issuer, &town.membership(1, &two, "beta"), 1),
            town.sign(&one, &town.node(30), 1),
        ],
    );
    let copy = town.sign(&two, &town.node(30), 1);
    assert_eq!(
        refused(&mut registry, &copy),
        RecordError::Taken(Claim::Key)
    );
    let mut rotated = town.node(31);
    rotated.previous_tunnel = Some(town.node(30).tunnel);
    give(&mut registry, &[town.sign(&one, &rotated, 2)]);
    assert!(registry.by_tunnel(&town.node(30).tunnel.key).is_some());
    assert!(registry.by_tunnel(&town.node(31).tunnel.key).is_some());
    give(&mut registry, &[town.sign(&one, &town.node(31), 3)]);
    assert!(registry.by_tunnel(&town.node(30).tunnel.key).is_none());
}

#[test]
fn a_host_is_its_own_sites_gateways_or_an_issuers_word() {
    let town = Town::new();
    let mut registry = begun(&town);
    let (near, far) = (secret(20), secret(21));
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.gateway(1, &near, "alpha", 3), 1),
            town.sign(&town.issuer, &town.gateway(2, &far, "beta", 4), 1),
        ],
    );
    let elsewhere = town.sign(&far, &town.host("wiki", 3, 9), 1);
    assert_eq!(
        refused(&mut registry, &elsewhere),
        RecordError::Missing(Missing::Gateway(site(3)))
    );
    let mut outside = town.host("wiki", 4, 9);
    outside.site = site(3);
    let outside = town.sign(&near, &outside, 1);
    assert_eq!(refused(&mut registry, &outside), RecordError::NotAuthorized);
    // A name in two sites: the smaller site has it, unless an issuer says otherwise.
    give(
        &mut registry,
        &[
            town.sign(&far, &town.host("wiki", 4, 9), 7),
            town.sign(&near, &town.host("wiki", 3, 9), 1),
        ],
    );
    assert_eq!(registry.host(&name("wiki")).unwrap().record.site, site(3));
    give(
        &mut registry,
        &[town.sign(&town.issuer, &town.host("wiki", 4, 9), 8)],
    );
    assert_eq!(registry.host(&name("wiki")).unwrap().record.site, site(4));
}

#[test]
fn what_is_not_understood_is_kept_in_bounds_and_only_from_somebody_known() {
    let town = Town::new();
    let mut registry = town.registry(Limits::MICRO);
    give(&mut registry, &town.certificates());
    let stranger = town.opaque(&secret(99), 300, 1, b"?");
    assert!(matches!(
        refused(&mut registry, &stranger),
        RecordError::Missing(_)
    ));
    let mut count = 0;
    for n in 0..20u8 {
        let bytes = town.opaque(&town.issuer, if n % 2 == 0 { 4 } else { 300 }, 2, &[n]);
        if registry.apply(&bytes, &mut clock()).is_ok() {
            count += 1;
            assert!(registry.iter().any(|(_, held)| held == bytes));
        }
    }
    assert_eq!(count, usize::from(Limits::MICRO.unknown_records));
    assert_eq!(registry.refused_full(), 12);
}

#[test]
fn an_unreadable_policy_keeps_the_last_valid_one() {
    let town = Town::new();
    let mut registry = begun(&town);
    let body = policy_body();
    give(&mut registry, &[town.opaque(&town.issuer, 8, 1, &body)]);
    let of_the_future = town.opaque(&town.issuer, 8, 3, b"of the future");
    give(&mut registry, &[of_the_future]);
    // Damaged, and a body of another version than its header says.
    for (version, bytes) in [(1, &b"damaged"[..]), (2, b"damaged"), (2, &body)] {
        let refused = town.opaque(&town.issuer, 8, version, bytes);
        let error = registry.apply(&refused, &mut clock());
        assert_eq!(error, Err(RecordError::Body(RecordKind::POLICY)));
    }
    let (serial, _, held) = registry.policy().unwrap();
    assert_eq!((serial, held), (Serial(1), &body[..]));
    assert_ne!(registry.summary().policy, [0; 32]);
}

#[test]
fn the_floor_follows_owners_and_inviters_but_not_porters() {
    let town = Town::new();
    let mut registry = town.registry(Limits::ROUTER);
    let mut clock = clock();
    for bytes in town.certificates() {
        registry.apply(&bytes, &mut clock).unwrap();
    }
    assert_eq!(clock.floor(), at(1));
    let invite = town.sign(&town.issuer, &town.invite(&[9; 16]), 1);
    registry.apply(&invite, &mut clock).unwrap();
    assert_eq!(clock.floor(), at(5));
    let device = secret(20);
    let mut body = town.membership(1, &device, "alpha");
    let key = SigningSecret::of_invite(&[9; 16]);
    body.invite = Some(records::redeem_proof(&key, [3; 32], &device.public()));
    body.issued = at(300 * DAY);
    body.expires = at(330 * DAY);
    registry
        .apply(&town.sign(&town.porter, &body, 1), &mut clock)
        .unwrap();
    assert_eq!(clock.floor(), at(5));
}

#[test]
fn a_chain_alone_lets_a_stranger_verify_a_member() {
    let town = Town::new();
    let mut registry = begun(&town);
    let device = secret(20);
    let key = SigningSecret::of_invite(&[9; 16]);
    let mut body = town.membership(1, &device, "alpha");
    body.invite = Some(records::redeem_proof(&key, [3; 32], &device.public()));
    let change = town.change(town.genesis_id(), &[&town.owner], 8);
    give(
        &mut registry,
        &[
            town.sign(&town.owner, &change, 1),
            town.sign(&town.issuer, &town.invite(&[9; 16]), 1),
            town.sign(&town.porter, &body, 1),
            town.sign(&device, &town.node(30), 1),
        ],
    );
    let mut chain = Vec::new();
    registry.chain_for(&device.public(), &mut |bytes| chain.push(bytes.to_vec()));
    let mut other = Registry::new(&chain[0], Limits::MICRO).unwrap();
    give(&mut other, &chain[1..]);
    let found = other.by_device(&device.public()).unwrap();
    assert_eq!(found.membership, &body);
    assert!(found.node.is_some());
}

#[test]
fn a_full_table_gives_up_who_expired_and_nobody_else() {
    let town = Town::new();
    let limits = Limits {
        members: 2,
        ..Limits::MICRO
    };
    let mut registry = town.registry(limits);
    give(&mut registry, &town.certificates());
    let one = town.membership(1, &secret(20), "alpha");
    let mut two = town.membership(2, &secret(21), "beta");
    two.expires = at(60 * DAY);
    let mut three = town.membership(3, &secret(22), "alpha");
    three.issued = at(40 * DAY);
    three.expires = at(50 * DAY);
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &one, 1),
            town.sign(&town.issuer, &two, 1),
            town.sign(&secret(20), &town.node(30), 1),
        ],
    );
    three.name = name("gamma");
    let bytes = town.sign(&town.issuer, &three, 1);
    assert!(matches!(
        refused(&mut registry, &bytes),
        RecordError::Full { limit: 2, .. }
    ));
    let mut later = clock();
    later.raise(at(31 * DAY));
    registry.apply(&bytes, &mut later).unwrap();
    assert!(registry.by_member(&member(1)).is_none());
    assert!(registry.by_tunnel(&town.node(30).tunnel.key).is_none());
    assert!(registry.by_member(&member(2)).is_some());
    assert!(registry.by_member(&member(3)).is_some());
}

/// Has `device` sign records until one is refused for want of room; returns how many were taken.
fn fill(
    registry: &mut Registry,
    device: &SigningSecret,
    make: impl Fn(&SigningSecret, u8) -> Vec<u8>,
) -> (usize, RecordError) {
    for n in 0..200 {
        let bytes = make(device, n);
        if registry.apply(&bytes, &mut clock()).is_err() {
            return (n.into(), refused(registry, &bytes));
        }
    }
    panic!("never full");
}

#[test]
fn regression_one_device_has_a_share_of_each_table_and_not_all_of_it() {
    let town = Town::new();
    let limits = Limits {
        hosts: 12,
        apps: 8,
        unknown_records: 9,
        ..Limits::MICRO
    };
    let mut registry = town.registry(limits);
    give(&mut registry, &town.certificates());
    let (near, far) = (secret(20), secret(21));
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.gateway(1, &near, "alpha", 3), 1),
            town.sign(&town.issuer, &town.gateway(2, &far, "beta", 4), 1),
        ],
    );
    let host = |id| {
        let town = &town;
        move |by: &SigningSecret, n: u8| {
            town.sign(by, &town.host(&format!("h{n}"), id, n.into()), 1)
        }
    };
    let app = |by: &SigningSecret, n: u8| {
        let key = SigningSecret::from_bytes(&[n; 32]);
        let key = if by.public() == near.public() {
            key
        } else {
            SigningSecret::from_bytes(&[n ^ 0x80; 32])
        };
        town.sign(by, &town.app(&key, by, &format!("a{n}")), 1)
    };
    let unknown = |by: &SigningSecret, n: u8| town.opaque(by, 300 + u16::from(n % 2), 1, &[n]);
    for (id, device) in [(3, &near), (4, &far)] {
        let full = |kind, limit| RecordError::Full { kind, limit };
        let (taken, error) = fill(&mut registry, device, host(id));
        assert_eq!((taken, error), (3, full(HostRecord::KIND, 3)));
        let (taken, error) = fill(&mut registry, device, app);
        assert_eq!((taken, error), (2, full(AppRecord::KIND, 2)));
        let (taken, error) = fill(&mut registry, device, unknown);
        assert_eq!(taken, 4);
        assert!(matches!(error, RecordError::Full { limit: 4, .. }));
    }
    // What is held is still renewed, and an issuer is bounded by the table alone.
    let newer = town.sign(&near, &town.host("h0", 3, 77), 2);
    give(&mut registry, &[newer]);
    let (taken, error) = fill(&mut registry, &town.issuer, |by, n| {
        town.sign(by, &town.host(&format!("i{n}"), 5, n.into()), 1)
    });
    assert_eq!(taken, 12 - 2 * 3);
    assert!(matches!(error, RecordError::Full { limit: 12, .. }));
}

#[test]
fn regression_a_share_is_of_what_a_device_signed_and_not_of_what_it_took_over() {
    let town = Town::new();
    let limits = Limits {
        hosts: 8,
        ..Limits::MICRO
    };
    let mut registry = town.registry(limits);
    give(&mut registry, &town.certificates());
    let gateway = secret(20);
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.gateway(1, &gateway, "alpha", 3), 1),
            town.sign(&town.issuer, &town.host("wiki", 3, 1), 1),
            town.sign(&gateway, &town.host("one", 3, 2), 1),
            town.sign(&gateway, &town.host("two", 3, 3), 1),
        ],
    );
    let taken_over = town.sign(&gateway, &town.host("wiki", 3, 9), 2);
    assert!(matches!(
        refused(&mut registry, &taken_over),
        RecordError::Full { limit: 2, .. }
    ));
}

#[test]
fn regression_a_member_that_claims_anothers_keys_puts_nobody_out_of_force() {
    let town = Town::new();
    let mut registry = begun(&town);
    let (victim, thief) = (secret(20), secret(21));
    let own = town.sign(&victim, &town.node(30), 1);
    give(
        &mut registry,
        &[
            // The claimant has the smaller id.
            town.sign(&town.issuer, &town.membership(1, &thief, "mallory"), 1),
            town.sign(&town.issuer, &town.membership(2, &victim, "alice"), 1),
            own.clone(),
        ],
    );
    let mut both = town.node(31);
    both.previous_tunnel = Some(town.node(30).tunnel);
    let mut control = town.node(32);
    control.control = town.node(30).control;
    for claim in [town.node(30), both, control] {
        let claim = town.sign(&thief, &claim, 9);
        assert_eq!(
            refused(&mut registry, &claim),
            RecordError::Taken(Claim::Key)
        );
    }
    let holder = |registry: &Registry| {
        let found = registry.by_control(&town.node(30).control).unwrap();
        found.membership.member
    };
    assert_eq!(holder(&registry), member(2));
    // Also not after everything was made anew, nor while the victim's issuer isn't certified.
    let change = town.change(town.genesis_id(), &[&town.second], 30);
    give(&mut registry, &[town.sign(&town.second, &change, 1)]);
    assert_eq!(registry.members().count(), 0);
    let (other, third) = (secret(9), secret(22));
    let certificate = town.certificate(&other, Rights::all());
    give(
        &mut registry,
        &[
            town.sign(&town.second, &certificate, 1),
            town.sign(&other, &town.membership(3, &third, "trudy"), 1),
        ],
    );
    let claim = town.sign(&third, &town.node(30), 9);
    assert_eq!(
        refused(&mut registry, &claim),
        RecordError::Taken(Claim::Key)
    );
    let anew = town.certificate(&town.issuer, Rights::all());
    give(&mut registry, &[town.sign(&town.second, &anew, 2)]);
    assert_eq!(holder(&registry), member(2));
}

#[test]
fn regression_a_node_that_claims_an_apps_tunnel_key_puts_no_app_out_of_force() {
    let town = Town::new();
    let mut registry = begun(&town);
    let (victim, thief) = (secret(20), secret(21));
    let app = town.app(&secret(50), &victim, "chat");
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.gateway(1, &thief, "mallory", 3), 1),
            town.sign(&town.issuer, &town.gateway(2, &victim, "alice", 4), 1),
            town.sign(&victim, &app, 1),
        ],
    );
    let mut node = town.node(30);
    node.tunnel = app.tunnel.unwrap();
    let claim = town.sign(&thief, &node, 1);
    assert_eq!(
        refused(&mut registry, &claim),
        RecordError::Taken(Claim::Key)
    );
    let mut copy = town.app(&secret(51), &thief, "copy");
    copy.tunnel = app.tunnel;
    let copy = town.sign(&thief, &copy, 1);
    assert_eq!(
        refused(&mut registry, &copy),
        RecordError::Taken(Claim::Key)
    );
    assert!(registry.app_by_name(&name("chat")).is_some());
}

#[test]
fn regression_who_was_claimed_first_has_other_keys_or_waits_for_a_revocation() {
    let town = Town::new();
    let mut registry = begun(&town);
    let (victim, thief) = (secret(20), secret(21));
    give(
        &mut registry,
        &[
            town.sign(&town.issuer, &town.membership(1, &victim, "alice"), 1),
            town.sign(&town.issuer, &town.membership(2, &thief, "mallory"), 1),
            town.sign(&thief, &town.node(30), 1),
        ],
    );
    let own = town.sign(&victim, &town.node(30), 1);
    assert_eq!(refused(&mut registry, &own), RecordError::Taken(Claim::Key));
    let mut rotated = registry.clone();
    give(&mut rotated, &[town.sign(&victim, &town.node(31), 2)]);
    assert!(rotated.by_device(&victim.public()).unwrap().node.is_some());
    let revocation = town.revocation(RevocationTarget::Member(member(2)), 20);
    give(
        &mut registry,
        &[town.sign(&town.issuer, &revocation, 1), own],
    );
    assert!(registry.by_tunnel(&town.node(30).tunnel.key).is_some());
}

#[test]
fn only_a_head_that_names_a_later_policy_makes_look_behind() {
    let town = Town::new();
    let mut registry = begun(&town);
    let policy = town.opaque(&town.issuer, 8, 1, &policy_body());
    give(&mut registry, &[policy]);
    let summary = registry.summary();
    let mut head = NetworkHead {
        revocations: summary.revocations,
        revocation_count: summary.revocation_count,
        policy: [7; 32],
        policy_serial: Serial(0),
        owner_serial: summary.owner_serial,
        issued: at(50),
    };
    // The issuer went away for good before it heard of the policy in force.
    give(&mut registry, &[town.sign(&town.issuer, &head, 900)]);
    assert!(!registry.is_behind());
    head.policy_serial = Serial(2);
    give(&mut registry, &[town.sign(&town.issuer, &head, 901)]);
    assert!(registry.is_behind());
    head.policy_serial = Serial(1);
    head.owner_serial += 1;
    give(&mut registry, &[town.sign(&town.issuer, &head, 902)]);
    assert!(registry.is_behind());
}
