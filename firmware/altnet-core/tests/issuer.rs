//! Who is let in, renewed and put out, and why not.

mod common;

use altnet_core::clock::Clock;
use altnet_core::issuer::{Issuer, MEMBERSHIP, NewInvite, NewMember, Refusal, subtree};
use altnet_core::limits::Limits;
use altnet_core::records::{self, ControlSecret, SigningSecret};
use altnet_core::registry::Registry;
use altnet_core::rng::Rng;
use altnet_wire::hash::Hash;
use altnet_wire::id::Name;
use altnet_wire::message::Redeem;
use altnet_wire::record::*;
use altnet_wire::time::{Duration, Instant};
use common::*;

const HANDSHAKE: Hash = [7; 32];
const NOW: Instant = Instant::ZERO;

/// An owner's computer that invites, and a porter that countersigns.
struct Scene {
    town: Town,
    registry: Registry,
    clock: Clock,
    rng: Rng,
    inviter: Issuer,
    porter: Issuer,
}

/// What a newcomer sends.
struct Newcomer {
    device: SigningSecret,
    invite: Vec<u8>,
    secret: [u8; 16],
    name: Option<Name>,
}

impl Newcomer {
    fn redeem(&self, scene: &mut Scene, handshake: &Hash) -> Result<Vec<u8>, Refusal> {
        let key = SigningSecret::of_invite(&self.secret);
        let control = ControlSecret::from_bytes(&self.device.to_bytes()).public();
        let device = self.device.public();
        let session = redemption_session(&HANDSHAKE, &control);
        let redemption = records::redeem_proof(&key, session, &device);
        let proof = self.device.sign(&redemption_proof(&session, &device));
        let mut halves = [[0; 32]; 2];
        halves.as_flattened_mut().copy_from_slice(&proof);
        let request = Redeem {
            invite: &self.invite,
            device,
            control,
            name: self.name.clone(),
            invite_proof: redemption.proof,
            device_proof: halves,
        };
        scene.porter.redeem(
            &mut scene.registry,
            &mut scene.clock,
            &request,
            handshake,
            NOW,
            &mut scene.rng,
        )
    }
}

impl Scene {
    fn new() -> Self {
        let town = Town::new();
        let mut registry = town.registry(Limits::ROUTER);
        let mut clock = clock();
        for bytes in town.certificates() {
            registry.apply(&bytes, &mut clock).unwrap();
        }
        clock.set_running(at(DAY), NOW);
        Self {
            inviter: Issuer::new(town.issuer.clone(), None, &registry).unwrap(),
            porter: Issuer::new(town.porter.clone(), None, &registry).unwrap(),
            rng: Rng::new([1; 32]),
            town,
            registry,
            clock,
        }
    }

    fn new_invite(&self) -> NewInvite {
        NewInvite {
            issuer: self.town.porter.public(),
            name: None,
            person: None,
            roles: Roles::GATEWAY,
            site: Some(site(4)),
            groups: heapless::Vec::new(),
            sponsor: None,
            uses: 1,
            lasts: Duration::from_secs(DAY),
        }
    }

    fn invite(&mut self, new: NewInvite) -> ([u8; 16], Vec<u8>) {
        self.inviter
            .create_invite(&mut self.registry, &mut self.clock, new, NOW, &mut self.rng)
            .unwrap()
    }

    fn newcomer(&mut self, byte: u8, new: NewInvite) -> Newcomer {
        let (secret_half, invite) = self.invite(new);
        Newcomer {
            device: secret(byte),
            invite,
            secret: secret_half,
            name: Some(name("cabin")),
        }
    }

    /// Asks, expects a refusal, and that nothing changed by it.
    fn refuse(&mut self, newcomer: &Newcomer, handshake: &Hash) -> Refusal {
        let before = (
            picture(&self.registry),
            self.registry.revision(),
            self.porter.uses_bytes(),
        );
        let refusal = newcomer.redeem(self, handshake).unwrap_err();
        let after = (
            picture(&self.registry),
            self.registry.revision(),
            self.porter.uses_bytes(),
        );
        assert_eq!(before, after);
        assert!(!self.porter.is_unsaved());
        refusal
    }
}

#[test]
fn an_invite_lets_one_device_in_and_the_same_device_again() {
    let mut scene = Scene::new();
    let new = scene.new_invite();
    let newcomer = scene.newcomer(20, new);
    let first = newcomer.redeem(&mut scene, &HANDSHAKE).unwrap();
    assert!(scene.porter.is_unsaved());
    let member = scene.registry.by_device(&newcomer.device.public()).unwrap();
    assert_eq!(member.membership.name, name("cabin"));
    assert_eq!(member.membership.site, Some(site(4)));
    assert_eq!(newcomer.redeem(&mut scene, &HANDSHAKE), Ok(first));
    assert!(!scene.porter.is_unsaved());
    let second = Newcomer {
        device: secret(21),
        name: Some(name("boat")),
        ..newcomer
    };
    assert_eq!(scene.refuse(&second, &HANDSHAKE), Refusal::UsedUp);
}

#[test]
fn a_use_counted_before_a_power_cut_is_the_same_use_after_it() {
    let mut scene = Scene::new();
    let new = scene.new_invite();
    let newcomer = scene.newcomer(20, new);
    let before = scene.registry.clone();
    newcomer.redeem(&mut scene, &HANDSHAKE).unwrap();
    let id = scene.registry.members().next().unwrap().membership.member;
    // The uses were stored, the membership wasn't.
    let uses = scene.porter.uses_bytes();
    scene.registry = before;
    scene.porter = Issuer::new(scene.town.porter.clone(), Some(&uses), &scene.registry).unwrap();
    newcomer.redeem(&mut scene, &HANDSHAKE).unwrap();
    assert_eq!(
        scene.registry.members().next().unwrap().membership.member,
        id
    );
    let key = SigningSecret::of_invite(&newcomer.secret).public();
    assert_eq!(scene.porter.used(&key), 1);
}

#[test]
fn each_bad_invite_is_refused_for_its_own_reason() {
    let mut scene = Scene::new();
    let new = scene.new_invite();
    let good = scene.newcomer(20, new);
    // A session that isn't this one: somebody passes a redemption on.
    assert_eq!(scene.refuse(&good, &[8; 32]), Refusal::Altered);
    let other = |scene: &mut Scene, change: &dyn Fn(&mut Newcomer)| {
        let mut newcomer = Newcomer {
            device: secret(20),
            invite: good.invite.clone(),
            secret: good.secret,
            name: good.name.clone(),
        };
        change(&mut newcomer);
        scene.refuse(&newcomer, &HANDSHAKE)
    };
    assert_eq!(other(&mut scene, &|n| n.secret = [1; 16]), Refusal::Altered);
    assert_eq!(
        other(&mut scene, &|n| n.invite.truncate(90)),
        Refusal::Damaged
    );
    assert_eq!(
        other(&mut scene, &|n| *n.invite.last_mut().unwrap() ^= 1),
        Refusal::Altered
    );
    assert_eq!(
        other(&mut scene, &|n| n.invite[0] ^= 1),
        Refusal::OtherNetwork
    );
    assert_eq!(other(&mut scene, &|n| n.name = None), Refusal::NameMissing);

    let stranger = scene
        .town
        .sign(&secret(90), &scene.town.invite(&good.secret), 1);
    assert_eq!(
        other(&mut scene, &|n| n.invite = stranger.clone()),
        Refusal::NotAuthorized
    );
    scene.clock.set_running(at(3 * DAY), NOW);
    assert_eq!(other(&mut scene, &|_| ()), Refusal::Expired);
    scene.clock.set_running(at(DAY), NOW);

    let elsewhere = NewInvite {
        issuer: scene.town.issuer.public(),
        ..scene.new_invite()
    };
    let elsewhere = scene.newcomer(20, elsewhere);
    assert_eq!(scene.refuse(&elsewhere, &HANDSHAKE), Refusal::OtherIssuer);

    let target = RevocationTarget::Invite(SigningSecret::of_invite(&good.secret).public());
    scene
        .inviter
        .revoke(&mut scene.registry, &mut scene.clock, target, "lost", NOW)
        .unwrap();
    assert_eq!(other(&mut scene, &|_| ()), Refusal::Revoked);
}

#[test]
fn names_and_sites_in_use_are_refused() {
    let mut scene = Scene::new();
    let new = scene.new_invite();
    let first = scene.newcomer(20, new.clone());
    first.redeem(&mut scene, &HANDSHAKE).unwrap();
    assert!(scene.porter.is_unsaved());
    let mut second = scene.newcomer(21, new);
    assert_eq!(scene.refuse(&second, &HANDSHAKE), Refusal::NameTaken);
    second.name = Some(name("boat"));
    assert_eq!(scene.refuse(&second, &HANDSHAKE), Refusal::SiteTaken);
}

#[test]
fn a_device_joins_with_a_clock_in_1970_and_a_forged_one_leaves_nothing_behind() {
    let mut scene = Scene::new();
    let new = scene.new_invite();
    let newcomer = scene.newcomer(20, new);
    let floor = scene.clock.floor();
    scene
        .clock
        .set_running(altnet_wire::time::UnixTime::EPOCH, NOW);
    newcomer.redeem(&mut scene, &HANDSHAKE).unwrap();
    // A porter whose clock is a year ahead renews; nobody's floor moves.
    scene.clock.set_running(at(300 * DAY), NOW);
    let id = scene.registry.members().next().unwrap().membership.member;
    scene
        .porter
        .renew(&mut scene.registry, &mut scene.clock, &id, NOW)
        .unwrap();
    assert_eq!(scene.clock.floor(), floor);
    scene.clock.set_running(at(2 * DAY), NOW);
    scene
        .porter
        .renew(&mut scene.registry, &mut scene.clock, &id, NOW)
        .unwrap();
    let member = scene.registry.by_member(&id).unwrap();
    assert_eq!(member.membership.expires, at(2 * DAY).after(MEMBERSHIP));
    assert_eq!(scene.registry.sweep(&scene.clock, NOW).count(), 0);
    scene.clock.set_running(at(40 * DAY), NOW);
    assert_eq!(scene.registry.sweep(&scene.clock, NOW).count(), 1);
}

#[test]
fn a_porter_neither_invites_nor_admits_nor_revokes() {
    let mut scene = Scene::new();
    let new = scene.new_invite();
    let Scene {
        registry,
        clock,
        rng,
        porter,
        ..
    } = &mut scene;
    assert_eq!(
        porter
            .create_invite(registry, clock, new, NOW, rng)
            .unwrap_err(),
        Refusal::NotAllowed
    );
    let member = NewMember {
        name: name("x"),
        person: None,
        device: secret(20).public(),
        roles: Roles::empty(),
        site: None,
        groups: heapless::Vec::new(),
        sponsor: None,
        replaces: None,
    };
    assert_eq!(
        porter.admit(registry, clock, member, NOW, rng).unwrap_err(),
        Refusal::NotAllowed
    );
    let target = RevocationTarget::Device(secret(20).public());
    assert_eq!(
        porter.revoke(registry, clock, target, "", NOW).unwrap_err(),
        Refusal::NotAllowed
    );
    assert_eq!(registry.revocations().count(), 0);
}

#[test]
fn revoking_somebody_lists_whom_it_brought() {
    let mut scene = Scene::new();
    let mut admit = |label: &str, byte: u8, sponsor| {
        let new = NewMember {
            name: name(label),
            person: None,
            device: secret(byte).public(),
            roles: Roles::empty(),
            site: None,
            groups: heapless::Vec::new(),
            sponsor,
            replaces: None,
        };
        let Scene {
            registry,
            clock,
            rng,
            inviter,
            ..
        } = &mut scene;
        inviter.admit(registry, clock, new, NOW, rng).unwrap();
        registry.by_name(&name(label)).unwrap().membership.member
    };
    let ada = admit("ada", 20, None);
    let bob = admit("bob", 21, Some(ada));
    let cyd = admit("cyd", 22, Some(bob));
    let dan = admit("dan", 23, None);
    let mut expected = vec![bob, cyd];
    expected.sort_unstable();
    assert_eq!(subtree(&scene.registry, &ada), expected);
    assert_eq!(subtree(&scene.registry, &dan), []);
    let Scene {
        registry,
        clock,
        inviter,
        ..
    } = &mut scene;
    let before = registry.summary();
    let target = RevocationTarget::Member(ada);
    let long = "because ".repeat(40);
    inviter.revoke(registry, clock, target, &long, NOW).unwrap();
    assert_eq!(
        inviter.revoke(registry, clock, target, &long, NOW),
        Err(Refusal::Revoked)
    );
    assert_ne!(registry.summary().revocations, before.revocations);
    inviter.head(registry, clock, NOW).unwrap();
    let (_, _, head) = registry.heads().next().unwrap();
    assert_eq!(head.revocation_count, 1);
    assert!(!registry.is_behind());
}

#[test]
fn who_lacks_a_revocation_learns_from_a_head_that_it_is_behind() {
    let mut scene = Scene::new();
    let mut behind = scene.registry.clone();
    let Scene {
        registry,
        clock,
        inviter,
        ..
    } = &mut scene;
    let target = RevocationTarget::Device(secret(20).public());
    let revocation = inviter
        .revoke(registry, clock, target, "lost", NOW)
        .unwrap();
    let head = inviter.head(registry, clock, NOW).unwrap();
    behind.apply(&head, clock).unwrap();
    assert!(behind.is_behind());
    behind.apply(&revocation, clock).unwrap();
    assert!(!behind.is_behind());
    assert_eq!(behind.summary(), registry.summary());
}

#[test]
fn a_member_gets_a_new_device_and_keeps_its_id() {
    let mut scene = Scene::new();
    let Scene {
        registry,
        clock,
        rng,
        inviter,
        ..
    } = &mut scene;
    let mut new = NewMember {
        name: name("ada"),
        person: None,
        device: secret(20).public(),
        roles: Roles::GATEWAY,
        site: Some(site(1)),
        groups: heapless::Vec::new(),
        sponsor: None,
        replaces: None,
    };
    inviter
        .admit(registry, clock, new.clone(), NOW, rng)
        .unwrap();
    let id = registry.members().next().unwrap().membership.member;
    new.device = secret(21).public();
    new.replaces = Some(id);
    inviter.admit(registry, clock, new, NOW, rng).unwrap();
    let member = registry.by_member(&id).unwrap();
    assert_eq!(member.membership.device, secret(21).public());
    assert_eq!(member.membership.replaces, Some(secret(20).public()));
    assert!(registry.by_device(&secret(20).public()).is_none());
}
