//! Members who bring others in: what policy lets them, each refusal by its name, and what a thief
//! gains.

mod common;

use altnet_core::clock::Clock;
use altnet_core::issuer::{
    Issuer, MEMBERSHIP, NewMember, NewSponsored, Refusal, create_sponsored, subtree,
};
use altnet_core::limits::Limits;
use altnet_core::policy::{Draft, DraftSponsor, What};
use altnet_core::records::{self, ControlSecret, SigningSecret};
use altnet_core::registry::{
    Applied, Claim, MAX_INVITES_PER_DEVICE, MAX_SPONSORED_S, RecordError, Registry, Unfit,
};
use altnet_core::rng::Rng;
use altnet_wire::envelope::RecordKind;
use altnet_wire::hash::Hash;
use altnet_wire::id::{MemberId, Serial, SigningKey};
use altnet_wire::message::Redeem;
use altnet_wire::policy::Atom;
use altnet_wire::record::*;
use altnet_wire::time::{Duration, Instant};
use common::*;

const HANDSHAKE: Hash = [7; 32];
const NOW: Instant = Instant::ZERO;
/// Ann's device, who is in the family.
const ANN: u8 = 20;

struct Scene {
    town: Town,
    registry: Registry,
    clock: Clock,
    rng: Rng,
    inviter: Issuer,
    porter: Issuer,
    serial: u64,
}

fn line(who: Atom, most: u16, depth: u8, groups: &[&str]) -> DraftSponsor {
    DraftSponsor {
        who,
        most,
        depth,
        groups: groups.iter().map(|group| name(group)).collect(),
    }
}

fn family(most: u16, depth: u8) -> DraftSponsor {
    line(Atom::Group(name("family")), most, depth, &["guests"])
}

fn policy(sponsors: &[DraftSponsor]) -> Draft {
    Draft {
        sponsors: sponsors.to_vec(),
        ..Draft::members_to_hosts(at(70))
    }
}

impl Scene {
    /// Ann is in the family, and the family may bring in two guests.
    fn new() -> Self {
        let mut scene = Self::without_lines();
        scene.publish(&policy(&[family(2, 1)]));
        scene
    }

    fn without_lines() -> Self {
        let town = Town::new();
        let mut registry = town.registry(Limits::ROUTER);
        let mut clock = clock();
        for bytes in town.certificates() {
            registry.apply(&bytes, &mut clock).unwrap();
        }
        clock.set_running(at(DAY), NOW);
        let mut scene = Self {
            inviter: Issuer::new(town.issuer.clone(), None, &registry).unwrap(),
            porter: Issuer::new(town.porter.clone(), None, &registry).unwrap(),
            rng: Rng::new([1; 32]),
            town,
            registry,
            clock,
            serial: 0,
        };
        scene.admit(ANN, "ann", &["family"]);
        scene
    }

    fn admit(&mut self, byte: u8, label: &str, groups: &[&str]) -> MemberId {
        let new = NewMember {
            name: name(label),
            person: Some(name(label)),
            device: secret(byte).public(),
            roles: Roles::empty(),
            site: None,
            groups: groups.iter().map(|group| name(group)).collect(),
            sponsor: None,
            replaces: None,
        };
        let (registry, clock) = (&mut self.registry, &mut self.clock);
        let admitted = self
            .inviter
            .admit(registry, clock, new, NOW, &mut self.rng)
            .unwrap();
        drop(admitted);
        self.member(byte)
    }

    fn member(&self, byte: u8) -> MemberId {
        let member = self.registry.by_device(&secret(byte).public());
        member.unwrap().membership.member
    }

    fn publish(&mut self, draft: &Draft) {
        self.serial += 1;
        let body = draft.encode().unwrap();
        let version = match draft.sponsors.is_empty() {
            true => 1,
            false => 2,
        };
        let mut out = vec![0; RecordKind::POLICY.max_bytes()];
        let bytes = records::sign_body(
            &self.town.issuer,
            self.town.network,
            RecordKind::POLICY,
            version,
            &body,
            Serial(self.serial),
            &mut out,
        );
        self.registry
            .apply(bytes.unwrap(), &mut self.clock)
            .unwrap();
    }

    fn wish(&self, uses: u16) -> NewSponsored {
        NewSponsored {
            issuer: self.town.porter.public(),
            name: None,
            uses,
            lasts: Duration::from_secs(DAY),
        }
    }

    fn invite(&mut self, byte: u8, uses: u16) -> Result<([u8; 16], Vec<u8>), Refusal> {
        let wish = self.wish(uses);
        create_sponsored(
            &mut self.registry,
            &mut self.clock,
            &secret(byte),
            wish,
            NOW,
            &mut self.rng,
        )
    }

    /// What a well-meant invite of Ann's says, for tests that change something of it.
    fn body(&self, half: &[u8; 16]) -> Invite {
        Invite {
            groups: [name("guests")].into_iter().collect(),
            sponsor: Some(self.member(ANN)),
            issued: at(DAY),
            expires: at(2 * DAY),
            ..self.town.invite(half)
        }
    }

    fn redeem(
        &mut self,
        (half, invite): &([u8; 16], Vec<u8>),
        byte: u8,
        label: &str,
    ) -> Result<Vec<u8>, Refusal> {
        let (key, device) = (SigningSecret::of_invite(half), secret(byte));
        let control = ControlSecret::from_bytes(&device.to_bytes()).public();
        let session = redemption_session(&HANDSHAKE, &control);
        let redemption = records::redeem_proof(&key, session, &device.public());
        let proof = device.sign(&redemption_proof(&session, &device.public()));
        let mut halves = [[0; 32]; 2];
        halves.as_flattened_mut().copy_from_slice(&proof);
        let request = Redeem {
            invite,
            device: device.public(),
            control,
            name: Some(name(label)),
            invite_proof: redemption.proof,
            device_proof: halves,
        };
        self.porter.redeem(
            &mut self.registry,
            &mut self.clock,
            &request,
            &HANDSHAKE,
            NOW,
            &mut self.rng,
        )
    }

    /// Ann brings somebody in.
    fn bring(&mut self, byte: u8, label: &str) -> MemberId {
        let invite = self.invite(ANN, 1).unwrap();
        self.redeem(&invite, byte, label).unwrap();
        self.member(byte)
    }

    fn apply(&mut self, bytes: &[u8]) -> Result<Applied, RecordError> {
        self.registry.apply(bytes, &mut self.clock)
    }

    /// Expects that this invite lets nobody in, and that nothing was changed by it.
    fn refused(&mut self, half: &[u8; 16], by: &SigningSecret, body: &Invite) -> Refusal {
        let bytes = self.town.sign(by, body, 1);
        let before = (picture(&self.registry), self.porter.uses_bytes());
        let refusal = self.redeem(&(*half, bytes), 60, "friend").unwrap_err();
        assert_eq!(
            before,
            (picture(&self.registry), self.porter.uses_bytes()),
            "{refusal}"
        );
        refusal
    }

    fn revoke(&mut self, target: RevocationTarget) {
        let (registry, clock) = (&mut self.registry, &mut self.clock);
        self.inviter
            .revoke(registry, clock, target, "", NOW)
            .unwrap();
    }

    fn is_member(&self, byte: u8) -> bool {
        self.registry.by_device(&secret(byte).public()).is_some()
    }

    /// The groups that policy counts a device in.
    fn groups(&self, byte: u8) -> Vec<String> {
        let key = secret(byte).public();
        let found = self.registry.enrolled().find_map(|one| match one.what {
            What::Device(m) if m.device == key => Some(m.groups.clone()),
            _ => None,
        });
        found.unwrap().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_member_brings_a_friend_in_as_policy_says() {
    let mut scene = Scene::new();
    let ann = scene.member(ANN);
    let friend = scene.bring(21, "friend");
    let membership = scene.registry.by_member(&friend).unwrap().membership;
    assert_eq!(membership.sponsor, Some(ann));
    assert_eq!(membership.groups.as_slice(), [name("guests")]);
    assert_eq!(
        (membership.roles, membership.site, &membership.person),
        (Roles::empty(), None, &None)
    );
    assert_eq!(scene.registry.rests_on(&friend), Some(ann));
    assert_eq!(subtree(&scene.registry, &ann), [friend]);
    assert_eq!(scene.groups(21), ["guests"]);
    // Its chain is enough for one who knows only the network.
    let mut chain = Vec::new();
    let device = secret(21).public();
    assert!(scene.registry.chain_for(&device, &mut |record| {
        chain.push(record.to_vec());
    }));
    let mut other = scene.town.registry(Limits::ROUTER);
    other.apply_all(chain.iter().map(Vec::as_slice), &mut clock());
    assert!(other.by_device(&device).is_some());
}

#[test]
fn each_bad_invite_of_a_member_is_refused_for_its_own_reason() {
    let mut scene = Scene::new();
    let half = [9; 16];
    let ann = secret(ANN);
    let unfit = |scene: &mut Scene, change: &dyn Fn(&mut Invite)| {
        let mut body = scene.body(&half);
        change(&mut body);
        match scene.refused(&half, &ann, &body) {
            Refusal::Sponsor(unfit) => unfit,
            other => panic!("{other}"),
        }
    };
    assert_eq!(unfit(&mut scene, &|i| i.groups.clear()), Unfit::Groups);
    let admins = |i: &mut Invite| i.groups = [name("admins")].into_iter().collect();
    assert_eq!(unfit(&mut scene, &admins), Unfit::Groups);
    let more = |i: &mut Invite| i.groups.push(name("admins")).unwrap();
    assert_eq!(unfit(&mut scene, &more), Unfit::Groups);
    assert_eq!(unfit(&mut scene, &|i| i.site = Some(site(4))), Unfit::Gives);
    assert_eq!(unfit(&mut scene, &|i| i.roles = Roles::RELAY), Unfit::Gives);
    let unknown = |i: &mut Invite| i.roles = Roles::from_bits_retain(1 << 9);
    assert_eq!(unfit(&mut scene, &unknown), Unfit::Gives);
    let person = |i: &mut Invite| i.person = Some(name("ann"));
    assert_eq!(unfit(&mut scene, &person), Unfit::Gives);
    let other = scene.admit(30, "bob", &["family"]);
    assert_eq!(
        unfit(&mut scene, &|i| i.sponsor = Some(other)),
        Unfit::NotSponsor
    );
    assert_eq!(unfit(&mut scene, &|i| i.sponsor = None), Unfit::NotSponsor);
    let long =
        |i: &mut Invite| i.expires = i.issued.after(Duration::from_secs(MAX_SPONSORED_S + 1));
    assert_eq!(unfit(&mut scene, &long), Unfit::TooLong);

    // Another device's signature, and one that nobody knows.
    let body = scene.body(&half);
    assert_eq!(
        scene.refused(&half, &secret(30), &body),
        Refusal::Sponsor(Unfit::NotSponsor)
    );
    assert_eq!(
        scene.refused(&half, &secret(90), &body),
        Refusal::NotAuthorized
    );
    // Not in the family.
    let stranger = scene.admit(31, "cyd", &[]);
    let own = Invite {
        sponsor: Some(stranger),
        ..body.clone()
    };
    assert_eq!(
        scene.refused(&half, &secret(31), &own),
        Refusal::Sponsor(Unfit::NoLine)
    );
    // The right is taken away.
    scene.publish(&policy(&[]));
    assert_eq!(
        scene.refused(&half, &ann, &body),
        Refusal::Sponsor(Unfit::NoLine)
    );
    scene.publish(&policy(&[family(2, 1)]));
    // The sponsor's membership ended, by a clock that has it so; then it is put out.
    scene.clock.set_running(at(32 * DAY), NOW);
    let late = Invite {
        issued: at(31 * DAY),
        expires: at(33 * DAY),
        ..body.clone()
    };
    assert_eq!(
        scene.refused(&half, &ann, &late),
        Refusal::Sponsor(Unfit::Ended)
    );
    scene.clock.set_running(at(DAY), NOW);
    let ann_id = scene.member(ANN);
    scene.revoke(RevocationTarget::Member(ann_id));
    assert_eq!(scene.refused(&half, &ann, &body), Refusal::NotAuthorized);
}

#[test]
fn no_more_come_in_than_policy_allows_at_a_time() {
    let mut scene = Scene::new();
    let full = Refusal::Sponsor(Unfit::Full { most: 2 });
    assert_eq!(scene.invite(ANN, 3).unwrap_err(), full);
    let invite = scene.invite(ANN, 2).unwrap();
    let spare = scene.invite(ANN, 1).unwrap();
    scene.redeem(&invite, 21, "one").unwrap();
    assert_eq!(scene.invite(ANN, 2).unwrap_err(), full);
    scene.redeem(&invite, 22, "two").unwrap();
    assert_eq!(scene.invite(ANN, 1).unwrap_err(), full);
    // Nor by an invite that is still open, or that a device makes which doesn't keep to this.
    assert_eq!(scene.redeem(&spare, 60, "three").unwrap_err(), full);
    let half = [9; 16];
    let body = scene.body(&half);
    assert_eq!(scene.refused(&half, &secret(ANN), &body), full);
    assert_eq!(full.to_string(), Unfit::Full { most: 2 }.to_string());
    // Who redeems again is the one that is in.
    scene.redeem(&invite, 22, "two").unwrap();
    let one = scene.member(21);
    scene.revoke(RevocationTarget::Member(one));
    scene.bring(23, "three");
    assert_eq!(scene.invite(ANN, 1).unwrap_err(), full);
}

#[test]
fn a_use_that_was_cut_off_counts_and_is_not_counted_twice() {
    let mut scene = Scene::new();
    scene.publish(&policy(&[family(1, 1)]));
    let invite = scene.invite(ANN, 1).unwrap();
    let before = scene.registry.clone();
    scene.redeem(&invite, 21, "one").unwrap();
    let uses = scene.porter.uses_bytes();
    scene.registry = before;
    scene.porter = Issuer::new(scene.town.porter.clone(), Some(&uses), &scene.registry).unwrap();
    let half = [9; 16];
    let body = scene.body(&half);
    let full = Refusal::Sponsor(Unfit::Full { most: 1 });
    assert_eq!(scene.refused(&half, &secret(ANN), &body), full);
    scene.redeem(&invite, 21, "one").unwrap();
    assert!(scene.is_member(21));
}

#[test]
fn a_line_of_sponsors_gets_as_long_as_policy_says() {
    let mut scene = Scene::new();
    let guests = line(Atom::Group(name("guests")), 1, 2, &["guests"]);
    scene.bring(21, "bob");
    assert_eq!(
        scene.invite(21, 1).unwrap_err(),
        Refusal::Sponsor(Unfit::NoLine)
    );
    let short = line(Atom::Members, 5, 1, &["guests"]);
    scene.publish(&policy(&[short]));
    assert_eq!(
        scene.invite(21, 1).unwrap_err(),
        Refusal::Sponsor(Unfit::TooDeep)
    );
    scene.publish(&policy(&[family(2, 1), guests]));
    let invite = scene.invite(21, 1).unwrap();
    scene.redeem(&invite, 22, "cyd").unwrap();
    assert_eq!(
        scene.invite(22, 1).unwrap_err(),
        Refusal::Sponsor(Unfit::TooDeep)
    );
    let (ann, bob, cyd) = (scene.member(ANN), scene.member(21), scene.member(22));
    let mut below = vec![bob, cyd];
    below.sort_unstable();
    assert_eq!(subtree(&scene.registry, &ann), below);
    assert_eq!(subtree(&scene.registry, &bob), [cyd]);
}

#[test]
fn of_several_lines_the_most_generous_holds() {
    let mut scene = Scene::without_lines();
    let person = line(Atom::Person(name("ann")), 1, 3, &["friends"]);
    let device = line(Atom::Device(scene.member(ANN)), 4, 1, &["guests"]);
    scene.publish(&policy(&[person, device, line(Atom::Members, 4, 1, &[])]));
    let ann = scene.registry.by_device(&secret(ANN).public()).unwrap();
    let allowance = scene.registry.allowance(ann.membership).unwrap();
    assert_eq!((allowance.most, allowance.depth), (4, 3));
    assert_eq!(allowance.groups.as_slice(), [name("guests")]);
    // Whom a policy's own list puts into a group is covered as well.
    let mut listed = policy(&[family(7, 1)]);
    let bob = scene.admit(30, "bob", &[]);
    listed.groups = [(name("family"), [Atom::Device(bob)].into())].into();
    scene.publish(&listed);
    let bob = scene.registry.by_member(&bob).unwrap();
    assert_eq!(scene.registry.allowance(bob.membership).unwrap().most, 7);
}

#[test]
fn who_is_in_stays_when_the_right_is_taken_away_and_its_invites_end() {
    let mut scene = Scene::new();
    scene.bring(21, "friend");
    let open = scene.invite(ANN, 1).unwrap();
    let key = SigningSecret::of_invite(&open.0).public();
    assert!(scene.registry.invite(&key).is_some());
    scene.publish(&policy(&[]));
    assert!(scene.registry.invite(&key).is_none());
    assert_eq!(
        scene.redeem(&open, 22, "late").unwrap_err(),
        Refusal::Sponsor(Unfit::NoLine)
    );
    assert!(scene.is_member(21));
    // In the group only as long as a line of the policy gives it.
    assert!(scene.groups(21).is_empty());
    let friend = scene.member(21);
    scene.clock.set_running(at(3 * DAY), NOW);
    scene
        .porter
        .renew(&mut scene.registry, &mut scene.clock, &friend, NOW)
        .unwrap();
    let ends = scene.registry.enrolled().find_map(|one| match one.what {
        What::Device(m) if m.member == friend => Some((one.expires, m.expires)),
        _ => None,
    });
    let renewed = at(3 * DAY).after(MEMBERSHIP);
    assert_eq!(ends, Some((renewed, renewed)));
    scene.clock.set_running(at(DAY), NOW);
    let nobody = line(Atom::Group(name("nobody")), 1, 1, &["guests"]);
    scene.publish(&policy(&[nobody]));
    assert_eq!(scene.groups(21), ["guests"]);
    scene.publish(&policy(&[family(2, 1)]));
    scene.redeem(&open, 22, "late").unwrap();
}

#[test]
fn who_made_an_invite_closes_it_for_good_and_changes_nothing_else() {
    let mut scene = Scene::new();
    let invite = scene.invite(ANN, 2).unwrap();
    let key = SigningSecret::of_invite(&invite.0).public();
    scene.redeem(&invite, 21, "friend").unwrap();
    let body = scene.registry.invite(&key).unwrap().clone();
    let sign = |scene: &Scene, by: u8, serial: u64, change: &dyn Fn(&mut Invite)| {
        let mut body = body.clone();
        change(&mut body);
        scene.town.sign(&secret(by), &body, serial)
    };
    let wider = sign(&scene, ANN, 2, &|i| i.uses = 9);
    assert_eq!(scene.apply(&wider), Err(RecordError::NotAuthorized));
    // Another member that knows the key can't put its own in the place.
    let bob = scene.admit(30, "bob", &["family"]);
    let squat = sign(&scene, 30, 9, &|i| i.sponsor = Some(bob));
    assert_eq!(scene.apply(&squat), Err(RecordError::Taken(Claim::Key)));
    let closed = sign(&scene, ANN, 2, &|i| i.uses = 0);
    scene.apply(&closed).unwrap();
    assert!(scene.registry.invite(&key).is_none() && scene.is_member(21));
    let again = sign(&scene, ANN, 3, &|i| i.uses = 2);
    assert_eq!(scene.apply(&again), Err(RecordError::NotAuthorized));
    assert_eq!(
        scene.redeem(&invite, 22, "late").unwrap_err(),
        Refusal::Revoked
    );
}

#[test]
fn an_issuers_invite_is_not_replaced_by_a_members() {
    let mut scene = Scene::new();
    let half = [9; 16];
    let owners = scene.town.invite(&half);
    let own = scene.body(&half);
    let squat = scene.town.sign(&secret(ANN), &own, 9);
    let theirs = scene.town.sign(&scene.town.issuer, &owners, 1);
    // Whichever came first.
    scene.apply(&squat).unwrap();
    scene.apply(&theirs).unwrap();
    assert_eq!(scene.apply(&squat), Err(RecordError::Taken(Claim::Key)));
    assert_eq!(scene.registry.invite(&owners.invite), Some(&owners));
}

/// A membership that a stolen porter makes for a device of the thief's.
fn forged(scene: &Scene, half: &[u8; 16], body: &Invite, byte: u8) -> Vec<u8> {
    let device = secret(byte);
    let key = SigningSecret::of_invite(half);
    let membership = Membership {
        groups: body.groups.clone(),
        sponsor: body.sponsor,
        invite: Some(records::redeem_proof(&key, [1; 32], &device.public())),
        issued: at(DAY),
        expires: at(20 * DAY),
        ..scene.town.membership(byte, &device, "thief")
    };
    scene.town.sign(&scene.town.porter, &membership, 1)
}

#[test]
fn a_stolen_issuer_admits_nobody_without_an_invite() {
    let mut scene = Scene::new();
    let half = [9; 16];
    let body = scene.body(&half);
    // Without one, with one that it made, and with one by a key of nobody's.
    let alone = forged(&scene, &half, &body, 70);
    assert!(matches!(scene.apply(&alone), Err(RecordError::Missing(_))));
    let porters = scene.town.sign(&scene.town.porter.clone(), &body, 1);
    assert_eq!(scene.apply(&porters), Err(RecordError::NotAuthorized));
    let nobodys = scene.town.sign(&secret(91), &body, 1);
    assert!(matches!(
        scene.apply(&nobodys),
        Err(RecordError::Missing(_))
    ));
    assert!(scene.apply(&alone).is_err());
    // With Ann's invite, but not its secret half.
    let (good, _) = scene.invite(ANN, 1).unwrap();
    let key = SigningSecret::of_invite(&good).public();
    let body = scene.registry.invite(&key).unwrap().clone();
    let device = secret(70);
    let mut redemption =
        records::redeem_proof(&SigningSecret::of_invite(&half), [1; 32], &device.public());
    redemption.invite = key;
    let membership = Membership {
        groups: body.groups.clone(),
        sponsor: body.sponsor,
        invite: Some(redemption),
        issued: at(DAY),
        ..scene.town.membership(70, &device, "thief")
    };
    let bytes = scene.town.sign(&scene.town.porter, &membership, 1);
    assert_eq!(scene.apply(&bytes), Err(RecordError::BadSignature));
}

#[test]
fn a_stolen_issuer_and_a_member_together_get_into_no_group_that_no_line_gives() {
    let mut scene = Scene::new();
    let half = [9; 16];
    let body = Invite {
        groups: ["admins", "guests"].map(name).into_iter().collect(),
        ..scene.body(&half)
    };
    let invite = scene.town.sign(&secret(ANN), &body, 1);
    scene.apply(&invite).unwrap();
    let bytes = forged(&scene, &half, &body, 70);
    scene.apply(&bytes).unwrap();
    assert_eq!(scene.groups(70), ["guests"]);
    // Nor is it covered as one of that group when it comes to bringing in others.
    let admins = line(Atom::Group(name("admins")), 5, 5, &["guests"]);
    scene.publish(&policy(&[family(2, 1), admins]));
    assert_eq!(
        scene.invite(70, 1).unwrap_err(),
        Refusal::Sponsor(Unfit::NoLine)
    );
}

#[test]
fn those_brought_in_go_aside_with_their_sponsor_unless_they_are_adopted() {
    let mut scene = Scene::new();
    let guests = line(Atom::Group(name("guests")), 1, 2, &["guests"]);
    scene.publish(&policy(&[family(2, 1), guests]));
    let bob = scene.bring(21, "bob");
    scene.bring(22, "eve");
    let invite = scene.invite(21, 1).unwrap();
    scene.redeem(&invite, 23, "cyd").unwrap();
    let ann = scene.member(ANN);
    let Scene {
        registry,
        clock,
        rng,
        inviter,
        porter,
        ..
    } = &mut scene;
    assert_eq!(
        porter.adopt(registry, clock, &bob, NOW, rng),
        Err(Refusal::NotAllowed)
    );
    inviter.adopt(registry, clock, &bob, NOW, rng).unwrap();
    assert_eq!(registry.rests_on(&bob), None);
    scene.revoke(RevocationTarget::Member(ann));
    // Bob was kept, and with him whom he brought in; Eve goes with Ann.
    assert!(scene.is_member(21) && scene.is_member(23) && !scene.is_member(22));
    assert_eq!(
        scene.registry.by_member(&bob).unwrap().membership.sponsor,
        Some(ann)
    );
    scene
        .porter
        .renew(&mut scene.registry, &mut scene.clock, &bob, NOW)
        .unwrap();
    assert!(scene.is_member(21));
}

#[test]
fn one_device_fills_no_table_with_invites() {
    let mut scene = Scene::new();
    let sign = |scene: &Scene, byte: u8, number: u8, issued: u64| {
        let body = Invite {
            sponsor: Some(scene.member(byte)),
            issued: at(issued),
            expires: at(issued + DAY),
            ..scene.body(&[number; 16])
        };
        scene.town.sign(&secret(byte), &body, 1)
    };
    for number in 0..8 {
        let bytes = sign(&scene, ANN, number, DAY);
        scene.apply(&bytes).unwrap();
    }
    let ninth = sign(&scene, ANN, 8, DAY);
    let full = RecordError::Full {
        kind: RecordKind::INVITE,
        limit: MAX_INVITES_PER_DEVICE,
    };
    assert_eq!(scene.apply(&ninth), Err(full));
    // One that had ended when this was made gives way.
    let later = sign(&scene, ANN, 8, 2 * DAY);
    scene.apply(&later).unwrap();
    // All devices together leave half of the table to issuers.
    let share = usize::from(Limits::ROUTER.invites / 2);
    let mut held = 8;
    for byte in 100..=255u8 {
        scene.admit(byte, &format!("m{byte}"), &[]);
        let bytes = sign(&scene, byte, byte, DAY);
        match scene.apply(&bytes) {
            Ok(_) => held += 1,
            Err(error) => assert!(matches!(error, RecordError::Full { .. }), "{error}"),
        }
    }
    assert_eq!(held, share);
}

/// Every record of the scene, for registries that get them in another order.
fn all(scene: &Scene) -> Vec<Vec<u8>> {
    let records = scene.registry.iter().skip(1);
    records.map(|(_, bytes)| bytes.to_vec()).collect()
}

#[test]
fn what_is_in_force_does_not_follow_from_the_order_of_arrival() {
    let mut scene = Scene::new();
    let guests = line(Atom::Group(name("guests")), 2, 2, &["guests"]);
    scene.publish(&policy(&[family(2, 1), guests]));
    scene.bring(21, "bob");
    let invite = scene.invite(21, 1).unwrap();
    scene.redeem(&invite, 22, "cyd").unwrap();
    scene.invite(ANN, 1).unwrap();
    // Two with Bob's name that came in elsewhere: one by nobody's invite, and one by Ann's.
    let mut first = scene.town.membership(0xff, &secret(40), "bob");
    first.member = MemberId([0xff; 16]);
    let first = scene.town.sign(&scene.town.issuer, &first, 1);
    let records = [all(&scene), vec![first]].concat();
    let mut seed = Rng::new([3; 32]);
    let mut pictures = Vec::new();
    for _ in 0..24 {
        let mut records = records.clone();
        for at in (1..records.len()).rev() {
            let other = seed.next_u64() as usize % (at + 1);
            records.swap(at, other);
        }
        let mut registry = scene.town.registry(Limits::ROUTER);
        let mut clock = clock();
        registry.apply_all(records.iter().map(Vec::as_slice), &mut clock);
        let bob = registry.by_name(&name("bob")).unwrap().membership.member;
        assert_eq!(bob, MemberId([0xff; 16]), "nobody brought that one in");
        // Who rests on the other Bob is aside with him.
        assert!(registry.by_name(&name("cyd")).is_none());
        let revision = registry.revision();
        let mut stored = scene.town.registry(Limits::ROUTER);
        let kept: Vec<Vec<u8>> = registry.iter().map(|(_, b)| b.to_vec()).collect();
        stored.apply_stored(kept.iter().skip(1).map(Vec::as_slice), &mut clock);
        assert_eq!(picture(&stored), picture(&registry));
        // Nothing is handed on again for being looked at again.
        for bytes in &kept {
            let _ = registry.apply(bytes, &mut clock);
        }
        assert_eq!(registry.revision(), revision);
        pictures.push(picture(&registry));
    }
    pictures.dedup();
    assert_eq!(pictures.len(), 1);
}

#[test]
fn an_unknown_device_gives_no_sponsor() {
    let scene = Scene::new();
    let body = scene.body(&[9; 16]);
    let unknown: SigningKey = secret(90).public();
    assert!(matches!(
        scene.registry.sponsored(&unknown, &body),
        Err(RecordError::Missing(_))
    ));
}
