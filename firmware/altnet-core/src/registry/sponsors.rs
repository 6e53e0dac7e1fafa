//! Members who bring others in: what policy lets them, and what rests on whom.
//!
//! An invite that a device signed is held to two measures. It **stands** while its signer is the
//! device of the member that it names as its sponsor, whatever the policy: what came in by it
//! rests on that. It is **open** only while the policy in force lets that member bring others in,
//! into just those groups, and so deep: a device comes in by nothing less.

use alloc::vec::Vec;

use altnet_wire::envelope::RecordKind;
use altnet_wire::id::{MemberId, Name, SigningKey};
use altnet_wire::policy::{Atom, Policy};
use altnet_wire::record::{Invite, MAX_GROUPS, Membership, RevocationTarget, Rights, Roles};

use super::held::{Body, Held};
use super::{Missing, RecordError, Registry, Slot};

/// The longest a member's invite may be open, in seconds: 30 days.
pub const MAX_SPONSORED_S: u64 = 30 * 86_400;
/// The longest line of members of whom each brought in the next, whatever a policy says: so long
/// a chain is still one message.
pub const MAX_SPONSOR_DEPTH: u8 = 8;

/// What policy lets a member do for others. Where several lines cover the member, `most` and
/// `depth` are each the largest of any, and the groups are those of the line with the largest
/// `most`; of those with the same the one with the largest `depth`, then the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many members it may have brought in at a time.
    pub most: u16,
    /// How long a line of sponsors may get.
    pub depth: u8,
    /// The groups that those are in, ascending.
    pub groups: heapless::Vec<Name, MAX_GROUPS>,
}

/// Why a member may not bring somebody in, or not so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// No line of the policy in force covers the member.
    #[error("the policy does not let this member bring others in")]
    NoLine,
    /// It was brought in itself, and the line would get too long.
    #[error("the policy does not let a member who was brought in itself bring others in so far")]
    TooDeep,
    /// It has brought in as many as it may.
    #[error(
        "the policy allows this member to have brought in {most} at a time, and so many it has or would have"
    )]
    Full {
        /// How many it may.
        most: u16,
    },
    /// The invite gives other groups than the policy.
    #[error("the invite gives other groups than the policy lets its maker give")]
    Groups,
    /// It gives a role, a site or a person, which only owners and issuers give.
    #[error("a member's invite gives no role, no site and no person")]
    Gives,
    /// It is open for too long.
    #[error("a member's invite is open for 30 days at most")]
    TooLong,
    /// It names somebody else than its signer as sponsor.
    #[error("a member's invite names its maker as the sponsor, and nobody else")]
    NotSponsor,
    /// The sponsor's own membership ended.
    #[error("the membership of the invite's maker has ended")]
    Ended,
}

/// The lines about sponsors of the policy in force, who is meant looked up in its groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines(Vec<Line>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    who: Vec<Atom>,
    most: u16,
    depth: u8,
    groups: heapless::Vec<Name, MAX_GROUPS>,
}

impl Lines {
    /// Reads them from the body of a policy that was checked.
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(policy) = Policy::decode(body) else {
            return Self::default();
        };
        if policy.sponsors.is_empty() {
            return Self::default();
        }
        let atoms: Vec<Atom> = policy.atoms.values().collect();
        let atom = |place: u16| atoms.get(usize::from(place)).cloned();
        let lines = policy.sponsors.values().map(|line| {
            let listed = policy.groups.values();
            let listed = listed.filter(|pair| pair.group == line.who);
            let who = core::iter::once(line.who).chain(listed.map(|pair| pair.atom));
            let groups = line.groups.values().filter_map(|place| match atom(place) {
                Some(Atom::Group(name)) => Some(name),
                _ => None,
            });
            Line {
                who: who.filter_map(atom).collect(),
                most: line.most,
                depth: line.depth,
                groups: groups.take(MAX_GROUPS).collect(),
            }
        });
        Self(lines.collect())
    }

    fn allowance(&self, member: &Membership) -> Option<Allowance> {
        let covers = |atom: &Atom| match atom {
            Atom::Members => true,
            Atom::Device(id) => *id == member.member,
            Atom::Person(name) => member.person.as_ref() == Some(name),
            Atom::Group(name) => member.groups.contains(name),
            _ => false,
        };
        let lines = self.0.iter().filter(|line| line.who.iter().any(covers));
        let depth = lines.clone().map(|line| line.depth).max()?;
        // Of equals `max_by_key` gives the last.
        let best = lines.rev().max_by_key(|line| (line.most, line.depth))?;
        Some(Allowance {
            most: best.most,
            depth,
            groups: best.groups.clone(),
        })
    }

    fn gives(&self, group: &Name) -> bool {
        self.0.iter().any(|line| line.groups.contains(group))
    }
}

impl Registry {
    /// What policy lets a member do for others.
    ///
    /// # Errors
    /// [`Unfit::NoLine`], [`Unfit::TooDeep`]. How many it brought in already isn't looked at.
    pub fn allowance(&self, member: &Membership) -> Result<Allowance, Unfit> {
        let lines = &self.view.sponsors;
        let allowance = lines
            .allowance(self.as_counted(member))
            .ok_or(Unfit::NoLine)?;
        if self.depth(member) >= usize::from(allowance.depth.min(MAX_SPONSOR_DEPTH)) {
            return Err(Unfit::TooDeep);
        }
        Ok(allowance)
    }

    /// Whether an invite that no issuer signed lets anybody in, and what its maker may.
    ///
    /// # Errors
    /// [`RecordError`]: [`RecordError::Sponsor`] says what of it isn't as policy lets it be.
    pub fn sponsored(
        &self,
        signer: &SigningKey,
        invite: &Invite,
    ) -> Result<Allowance, RecordError> {
        self.judge_sponsored(signer, invite)?;
        let missing = RecordError::Missing(Missing::Device(*signer));
        let member = self.by_device(signer).ok_or(missing)?;
        let allowance = self.allowance(member.membership)?;
        let is_given = |group: &Name| allowance.groups.contains(group);
        if invite.groups.len() != allowance.groups.len() || !invite.groups.iter().all(is_given) {
            return Err(Unfit::Groups.into());
        }
        Ok(allowance)
    }

    /// Members in force that `member` brought in, those included whose membership ended and who
    /// may renew it.
    pub fn brought_in(&self, member: &MemberId) -> impl Iterator<Item = &Membership> {
        let members = self.members().map(|member| member.membership);
        members.filter(move |other| other.sponsor == Some(*member))
    }

    /// The member on whose invite a member rests: if that one is revoked, it stands aside.
    pub fn rests_on(&self, member: &MemberId) -> Option<MemberId> {
        let held = self.records.get(&Slot::membership(*member))?;
        self.view.devices.get(&self.inviter(held)?).copied()
    }

    /// The invites that a device signed, whatever became of them.
    pub fn invites_by(&self, device: &SigningKey) -> impl Iterator<Item = &Invite> {
        let invites = Slot::first(RecordKind::INVITE)..=Slot::last(RecordKind::INVITE);
        let invites = self.records.range(invites);
        invites.filter_map(move |(_, held)| match &held.body {
            Body::Invite(body) if held.header.signer == *device => Some(&**body),
            _ => None,
        })
    }

    /// An invite's body and signer as held, whether or not it stands.
    pub(crate) fn held_invite(&self, invite: &SigningKey) -> Option<(&Invite, SigningKey)> {
        let held = self.records.get(&Slot::invite(*invite))?;
        match &held.body {
            Body::Invite(body) => Some((body, held.header.signer)),
            _ => None,
        }
    }

    /// Whether an invite that no issuer signed stands: what does not change with the policy.
    pub(super) fn judge_sponsored(
        &self,
        signer: &SigningKey,
        body: &Invite,
    ) -> Result<(), RecordError> {
        if self.is_revoked(&RevocationTarget::Device(*signer)) {
            return Err(RecordError::Revoked);
        }
        let missing = RecordError::Missing(Missing::Device(*signer));
        let member = self.by_device(signer).ok_or(missing)?.membership.member;
        if body.sponsor != Some(member) {
            return Err(Unfit::NotSponsor.into());
        }
        let gives_nothing = body.roles == Roles::empty() && body.site.is_none();
        if !gives_nothing || body.person.is_some() {
            return Err(Unfit::Gives.into());
        }
        let lasts_s = body.expires.as_secs().checked_sub(body.issued.as_secs());
        if !lasts_s.is_some_and(|s| s > 0 && s <= MAX_SPONSORED_S) {
            return Err(Unfit::TooLong.into());
        }
        if self.tier(&Slot::membership(member)) >= MAX_SPONSOR_DEPTH {
            return Err(Unfit::TooDeep.into());
        }
        Ok(())
    }

    /// Of two invites with one key an issuer's goes first, then the one that came first: only its
    /// maker knows the key before it is published. Its maker may close it, and change nothing else.
    pub(super) fn check_invite(
        &self,
        signer: &SigningKey,
        body: &Invite,
    ) -> Result<(), RecordError> {
        let Some((held, held_signer)) = self.held_invite(&body.invite) else {
            return Ok(());
        };
        if !self.is_device_key(signer) {
            return Ok(());
        }
        if held_signer != *signer {
            return Err(RecordError::Taken(super::Claim::Key));
        }
        let closed = Invite {
            uses: 0,
            ..held.clone()
        };
        if *body == closed {
            Ok(())
        } else {
            Err(RecordError::NotAuthorized)
        }
    }

    /// Whether no certificate is held for a key, so that it speaks as a device.
    pub(crate) fn is_device_key(&self, key: &SigningKey) -> bool {
        !self.records.contains_key(&Slot::certificate(*key))
    }

    /// The device that signed the invite on which a membership rests, if it rests on one. What an
    /// issuer signed that may invite rests on nobody's.
    pub(super) fn inviter(&self, held: &Held) -> Option<SigningKey> {
        let Body::Membership(body, _) = &held.body else {
            return None;
        };
        self.inviter_of(&held.header.signer, body)
    }

    fn inviter_of(&self, signer: &SigningKey, body: &Membership) -> Option<SigningKey> {
        let redemption = body.invite.as_ref()?;
        let certificate = self.issuer_at(signer, Some(body.issued));
        if certificate.is_ok_and(|c| c.rights.contains(Rights::INVITE)) {
            return None;
        }
        let (_, inviter) = self.held_invite(&redemption.invite)?;
        self.is_device_key(&inviter).then_some(inviter)
    }

    /// How many members' invites a membership rests on, one on the other.
    pub(super) fn tier(&self, slot: &Slot) -> u8 {
        let held = self.records.get(slot);
        held.map_or(0, |held| self.tier_after(self.inviter(held)))
    }

    pub(super) fn tier_of(&self, signer: &SigningKey, body: &Membership) -> u8 {
        self.tier_after(self.inviter_of(signer, body))
    }

    fn tier_after(&self, mut inviter: Option<SigningKey>) -> u8 {
        let mut tier = 0;
        while let Some(device) = inviter {
            tier += 1;
            if tier > MAX_SPONSOR_DEPTH {
                break;
            }
            let member = self.view.devices.get(&device);
            let held = member.and_then(|member| self.records.get(&Slot::membership(*member)));
            inviter = held.and_then(|held| self.inviter(held));
        }
        tier
    }

    /// How many sponsors there are above a member, as far as they are members still.
    fn depth(&self, member: &Membership) -> usize {
        let mut depth = 0;
        let mut sponsor = member.sponsor;
        while let Some(id) = sponsor {
            depth += 1;
            if depth > usize::from(MAX_SPONSOR_DEPTH) {
                break;
            }
            sponsor = self.by_member(&id).and_then(|m| m.membership.sponsor);
        }
        depth
    }

    /// Decides over members' invites and who came in by them, from those that rest on nobody on:
    /// whoever comes first has the name, so that nobody loses theirs to whom they brought in.
    pub(super) fn settle_sponsored(&mut self) {
        // By the device that each waits for; an invite before who came in by it.
        let mut waiting: Vec<(SigningKey, Slot)> = Vec::new();
        for kind in [RecordKind::INVITE, RecordKind::MEMBERSHIP] {
            for slot in self.slots(kind) {
                let Some(held) = self.records.get(&slot) else {
                    continue;
                };
                let signer = Some(held.header.signer).filter(|key| self.is_device_key(key));
                let device = match kind {
                    RecordKind::INVITE => signer,
                    _ => self.inviter(held),
                };
                waiting.extend(device.map(|device| (device, slot)));
            }
        }
        loop {
            let is_in = |(device, _): &(SigningKey, Slot)| self.view.devices.contains_key(device);
            let (ready, rest): (Vec<_>, Vec<_>) = waiting.iter().copied().partition(is_in);
            if ready.is_empty() {
                break;
            }
            for (_, slot) in ready {
                self.settle_one(&slot);
            }
            waiting = rest;
        }
        for (_, slot) in waiting {
            self.settle_one(&slot);
        }
    }

    /// A membership as it counts: who came in by a member's invite is in a group only while a line
    /// of the policy gives that group. Otherwise a stolen issuer and any member together could
    /// bring somebody into a group that no policy ever gave.
    pub(crate) fn as_counted<'m>(&'m self, membership: &'m Membership) -> &'m Membership {
        let mut counted = self.view.counted.iter();
        let counted = counted.find(|counted| counted.member == membership.member);
        counted.unwrap_or(membership)
    }

    /// Finds those who are in fewer groups than their membership says.
    pub(super) fn count_groups(&mut self) {
        self.view.counted.clear();
        for slot in self.slots(RecordKind::MEMBERSHIP) {
            self.count_groups_of(&slot);
        }
    }

    /// The same for the membership in one slot, which may have come just now.
    pub(super) fn count_groups_of(&mut self, slot: &Slot) {
        let Some(held) = self.in_force(slot) else {
            return;
        };
        let Body::Membership(body, _) = &held.body else {
            return;
        };
        let lines = &self.view.sponsors;
        let is_whole = body.groups.iter().all(|group| lines.gives(group));
        let counted = (!is_whole && self.inviter(held).is_some()).then(|| {
            let mut counted = (**body).clone();
            counted.groups.retain(|group| lines.gives(group));
            counted
        });
        let member = body.member;
        self.view.counted.retain(|other| other.member != member);
        self.view.counted.extend(counted);
    }
}

impl From<Unfit> for RecordError {
    fn from(unfit: Unfit) -> Self {
        Self::Sponsor(unfit)
    }
}
