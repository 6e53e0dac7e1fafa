//! Laws of the registry: whatever comes, in whatever order.

mod common;

use altnet_core::limits::Limits;
use altnet_core::records::{self, SigningSecret};
use altnet_core::registry::{Applied, Registry, Slot};
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{RecordId, Serial, SigningKey, record_id};
use altnet_wire::record::*;
use common::*;
use proptest::prelude::*;

/// A full life: owners come and go, issuers too, members clash, renew, lose devices.
fn life(town: &Town) -> Vec<Vec<u8>> {
    let mut all = town.certificates();
    let other = secret(7);
    let first = town.sign(
        &town.owner,
        &town.change(town.genesis_id(), &[&town.second, &secret(8)], 50),
        1,
    );
    let fork = town.sign(
        &town.second,
        &town.change(town.genesis_id(), &[&town.second], 51),
        1,
    );
    let next = |previous: &[u8], by: &SigningSecret, t| {
        town.sign(
            by,
            &town.change(record_id(previous), &[&town.second, &secret(8)], t),
            2,
        )
    };
    all.push(next(&first, &town.second, 52));
    all.push(next(&fork, &town.recovery, 53));
    all.push(next(&first, &secret(8), 54));
    all.extend([first, fork]);
    // Certificates signed anew by who stays; one by who left.
    let porter = town.certificate(&town.porter, Rights::ADMIT);
    all.push(town.sign(
        &town.second,
        &town.certificate(&town.issuer, Rights::all()),
        2,
    ));
    all.push(town.sign(&town.second, &porter, 2));
    all.push(town.sign(&town.owner, &town.certificate(&other, Rights::all()), 1));
    all.push(town.sign(
        &town.second,
        &town.certificate(&secret(9), Rights::all()),
        1,
    ));

    all.push(town.sign(&town.issuer, &town.invite(&[9; 16]), 1));
    let invited = secret(29);
    let key = SigningSecret::of_invite(&[9; 16]);
    let mut body = town.membership(9, &invited, "invited");
    body.invite = Some(records::redeem_proof(&key, [3; 32], &invited.public()));
    all.push(town.sign(&town.porter, &body, 1));

    for id in 1..=6u8 {
        let device = secret(20 + id);
        let label = ["alpha", "beta", "alpha", "gamma", "delta", "beta"][usize::from(id) - 1];
        let body = town.gateway(id, &device, label, u16::from(id) / 2);
        all.push(town.sign(&town.issuer, &body, 1));
        all.push(town.sign(&secret(9), &body, 2));
        all.push(town.sign(&device, &town.node(30 + id), 1));
        all.push(town.sign(&device, &town.node(60 + id), 2));
        all.push(town.sign(
            &device,
            &town.host("wiki", u16::from(id) / 2, u16::from(id)),
            1,
        ));
        all.push(town.sign(&device, &town.app(&secret(50 + id), &device, "chat"), 1));
        all.push(town.opaque(&device, 300, 1, &[id]));
    }
    // A new device for one member, and one member in another's place.
    let moved = Membership {
        replaces: Some(secret(21).public()),
        ..town.gateway(1, &secret(71), "alpha", 0)
    };
    all.push(town.sign(&town.issuer, &moved, 3));
    let heir = Membership {
        replaces: Some(secret(24).public()),
        ..town.gateway(10, &secret(72), "gamma", 2)
    };
    all.push(town.sign(&town.issuer, &heir, 1));
    // A newer word by an issuer that nobody present certified.
    all.push(town.sign(&other, &town.gateway(5, &secret(25), "omega", 2), 90));

    for (by, target) in [
        (&town.issuer, RevocationTarget::Member(member(2))),
        (&town.second, RevocationTarget::Device(secret(23).public())),
        (&town.second, RevocationTarget::Issuer(secret(9).public())),
        (&secret(9), RevocationTarget::Member(member(6))),
        (&town.owner, RevocationTarget::Member(member(5))),
    ] {
        all.push(town.sign(by, &town.revocation(target, 40), 1));
    }
    all.push(town.opaque(&town.issuer, 8, 1, &policy_body()));
    all.push(town.opaque(&town.second, 8, 1, &full_policy_body()));
    all.push(town.sign(&town.issuer, &town.host("printer", 1, 200), 1));
    // Renewals, by another issuer too, and news that change no key.
    for (by, serial) in [(&town.issuer, 4), (&secret(9), 5), (&town.issuer, 6)] {
        all.push(town.sign(by, &moved, serial));
    }
    let mut node = town.node(31);
    for serial in 1..4 {
        node.home_relays = core::iter::repeat_n(altnet_wire::id::NodeId([9; 16]), serial).collect();
        all.push(town.sign(&secret(71), &node, serial as u64));
    }
    all
}

fn applied(town: &Town, records: &[Vec<u8>]) -> Registry {
    let mut registry = town.registry(Limits::ROUTER);
    registry.apply_all(records.iter().map(|bytes| &**bytes), &mut clock());
    registry
}

/// The serial of the record held in `slot`.
fn serial_of(registry: &Registry, slot: &Slot) -> Option<Serial> {
    let envelope = Envelope::parse(registry.bytes(slot)?).unwrap();
    Some(envelope.header().serial)
}

/// The owners as the rules say, naively: try every path, keep the best.
fn naive_owners(town: &Town, changes: &[Vec<u8>]) -> Vec<SigningKey> {
    type Node = (Vec<SigningKey>, SigningKey);
    type Rank = (bool, bool, core::cmp::Reverse<RecordId>);
    fn walk(
        at: RecordId,
        serial: u64,
        state: &Node,
        changes: &[Vec<u8>],
    ) -> (bool, Vec<SigningKey>) {
        let mut best: Option<(Rank, Vec<SigningKey>)> = None;
        for bytes in changes {
            let envelope = Envelope::parse(bytes).unwrap();
            let body: OwnerChange = decode(envelope.body()).unwrap();
            let signer = envelope.header().signer;
            let by_recovery = signer == state.1;
            let may = by_recovery || (state.0.contains(&signer) && body.recovery == state.1);
            if body.previous != at || envelope.header().serial != Serial(serial) || !may {
                continue;
            }
            let next = (body.owners.to_vec(), body.recovery);
            let (below, owners) = walk(envelope.id(), serial + 1, &next, changes);
            let rank = (
                by_recovery,
                below || by_recovery,
                core::cmp::Reverse(envelope.id()),
            );
            if best.as_ref().is_none_or(|(other, _)| rank > *other) {
                best = Some((rank, owners));
            }
        }
        match best {
            Some(((_, recovered, _), owners)) => (recovered, owners),
            None => (false, state.0.clone()),
        }
    }
    let state = (
        vec![town.owner.public(), town.second.public()],
        town.recovery.public(),
    );
    walk(town.genesis_id(), 1, &state, changes).1
}

/// A tree of owner changes from a list of choices.
fn quarrel(town: &Town, choices: &[(u8, u8, u8)]) -> Vec<Vec<u8>> {
    let people = [&town.owner, &town.second, &town.recovery];
    let mut tree = vec![(town.genesis_id(), 0)];
    let mut all = Vec::new();
    for (index, (parent, signer, owners)) in choices.iter().enumerate() {
        let (previous, serial) = tree[usize::from(*parent) % tree.len()];
        let owners: Vec<&SigningSecret> = match owners % 3 {
            0 => vec![&town.owner],
            1 => vec![&town.second],
            _ => vec![&town.owner, &town.second],
        };
        let change = town.change(previous, &owners, 100 + index as u64);
        let bytes = town.sign(people[usize::from(*signer) % 3], &change, serial + 1);
        tree.push((record_id(&bytes), serial + 1));
        all.push(bytes);
    }
    all
}

#[test]
fn a_full_life_ends_as_the_rules_say() {
    let town = Town::new();
    let registry = applied(&town, &life(&town));
    let names: Vec<&str> = registry
        .members()
        .map(|member| member.membership.name.as_str())
        .collect();
    // 1 moved to a new device, so 3 can't be called alpha. 2 was revoked, 6 (beta) only by an issuer
    // that was revoked itself, 5 only by an owner who left. 4 was replaced by 10, which finds its
    // site taken by 5.
    assert_eq!(names, ["alpha", "delta", "beta", "invited"]);
    assert_eq!(registry.owners().len(), 2);
    assert!(registry.host(&name("printer")).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_order_of_records_does_not_matter(records in Just(life(&Town::new())).prop_shuffle()) {
        let town = Town::new();
        let mut registry = applied(&town, &records);
        prop_assert_eq!(picture(&registry), picture(&applied(&town, &life(&town))));
        // What is held suffices to begin anew, and brings nothing new to itself.
        let held: Vec<Vec<u8>> = registry.iter().map(|(_, bytes)| bytes.to_vec()).collect();
        prop_assert_eq!(picture(&registry), picture(&applied(&town, &held)));
        let tally = registry.apply_all(held.iter().map(|bytes| &**bytes), &mut clock());
        prop_assert_eq!(tally.new, 0);
    }

    #[test]
    fn the_owners_are_those_of_the_naive_model(
        choices in proptest::collection::vec(any::<(u8, u8, u8)>(), 0..10),
        turn in 0usize..10,
    ) {
        let town = Town::new();
        let mut changes = quarrel(&town, &choices);
        let expected = naive_owners(&town, &changes);
        let len = changes.len().max(1);
        changes.rotate_left(turn % len);
        let registry = applied(&town, &changes);
        prop_assert_eq!(registry.owners(), expected);
    }

    #[test]
    fn an_old_record_never_replaces_a_new_one(
        order in proptest::collection::vec((1u8..4, 1u64..6), 1..24),
    ) {
        let town = Town::new();
        let mut registry = town.registry(Limits::MICRO);
        for bytes in town.certificates() {
            registry.apply(&bytes, &mut clock()).unwrap();
        }
        for (id, serial) in order {
            let label = format!("m{id}");
            let body = town.membership(id, &secret(20 + id), &label);
            let slot = Slot::membership(member(id));
            let before = serial_of(&registry, &slot);
            let result = registry.apply(&town.sign(&town.issuer, &body, serial), &mut clock());
            let after = serial_of(&registry, &slot);
            prop_assert_eq!(after, before.max(Some(Serial(serial))));
            let is_new = matches!(result, Ok(Applied::New { .. }));
            prop_assert_eq!(is_new, before < Some(Serial(serial)));
        }
    }

    #[test]
    fn no_bytes_make_a_registry_panic(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let town = Town::new();
        let records = life(&town);
        let mut registry = applied(&town, &records);
        let mut bytes = which.get(&records[..]).clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _ = registry.apply(&bytes, &mut clock());
        let _ = registry.apply(&noise, &mut clock());
        let _ = Registry::new(&noise, Limits::MICRO);
        let _ = Registry::new(&bytes, Limits::MICRO);
    }

    #[test]
    fn no_signed_body_makes_a_registry_panic(
        kind in 0u16..16,
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        signer in 0usize..5,
        serial: u64,
    ) {
        let town = Town::new();
        let records = life(&town);
        let mut registry = applied(&town, &records);
        let chosen: &Vec<u8> = which.get(&records);
        let envelope = Envelope::parse(chosen).unwrap();
        let mut body = envelope.body().to_vec();
        for (at, value) in changes {
            if !body.is_empty() {
                let at = at.index(body.len());
                body[at] = value;
            }
        }
        let kind = if kind == 0 { envelope.header().kind } else { RecordKind(kind) };
        let device = secret(71);
        let by = [&town.second, &town.issuer, &town.porter, &device, &town.recovery][signer];
        let mut out = vec![0; 4096];
        let signed = records::sign_body(by, town.network, kind, 1, &body, Serial(serial), &mut out);
        if let Ok(bytes) = signed {
            let _ = registry.apply(bytes, &mut clock());
            let _ = picture(&registry);
        }
    }

    #[test]
    fn limits_are_never_exceeded(records in Just(life(&Town::new())).prop_shuffle(), most in 0u16..6) {
        let town = Town::new();
        let limits = Limits {
            members: most,
            hosts: most,
            apps: most,
            issuers: most,
            invites: most,
            revocations: most,
            owner_changes: most,
            unknown_records: most,
            ..Limits::MICRO
        };
        let mut registry = town.registry(limits);
        let tally = registry.apply_all(records.iter().map(|bytes| &**bytes), &mut clock());
        prop_assert!(tally.new < 1000);
        for kind in 2..=11 {
            let held = registry.iter().filter(|(slot, _)| slot.kind() == RecordKind(kind)).count();
            prop_assert!(held <= usize::from(most.max(1)), "{held} of kind {kind}");
        }
        let unknown = registry.iter().filter(|(slot, _)| slot.kind().0 > 11).count();
        prop_assert!(unknown <= usize::from(most));
    }
}
