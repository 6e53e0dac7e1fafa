//! Invites that members make: what an issuer asks of one, and how a member's device makes one.

use alloc::vec::Vec;
use core::time::Duration;

use altnet_wire::envelope::MAX_RECORD_BYTES;
use altnet_wire::id::{Name, SigningKey};
use altnet_wire::record::{Invite, RevocationTarget, Roles};
use altnet_wire::time::{Instant, UnixTime};

use super::{INVITE_SECRET_BYTES, Issuer, Refusal};
use crate::clock::Clock;
use crate::records::{self, SigningSecret};
use crate::registry::{Allowance, Registry, Slot, Unfit};
use crate::rng::Rng;

/// An invite that a member is to make.
#[derive(Clone, Debug)]
pub struct NewSponsored {
    /// Who counts uses and countersigns.
    pub issuer: SigningKey,
    /// The device's name, if chosen already.
    pub name: Option<Name>,
    /// How many devices may come in, at least one.
    pub uses: u16,
    /// How long it is open, at most 30 days.
    pub lasts: Duration,
}

/// Makes an invite with a member's device key, into the groups that policy gives. Returns the
/// secret half, which belongs into the link's fragment and nowhere else, and the record.
///
/// # Errors
/// [`Refusal::Sponsor`] says what policy does not let it do; see [`Refusal`].
pub fn create_sponsored(
    registry: &mut Registry,
    clock: &mut Clock,
    device: &SigningSecret,
    new: NewSponsored,
    now: Instant,
    rng: &mut Rng,
) -> Result<([u8; INVITE_SECRET_BYTES], Vec<u8>), Refusal> {
    let member = registry.by_device(&device.public());
    let membership = member.ok_or(Refusal::NoSuchMember)?.membership;
    let allowance = registry.allowance(membership).map_err(Refusal::Sponsor)?;
    let most = allowance.most;
    // What is open does not count: only the issuer knows how often it was used.
    let taken = registry.brought_in(&membership.member).count();
    if taken + usize::from(new.uses.max(1)) > usize::from(most) {
        return Err(Refusal::Sponsor(Unfit::Full { most }));
    }
    let secret: [u8; INVITE_SECRET_BYTES] = rng.array();
    let issued = clock.estimate(now).time();
    let invite = Invite {
        invite: SigningSecret::of_invite(&secret).public(),
        issuer: new.issuer,
        name: new.name,
        person: None,
        roles: Roles::empty(),
        site: None,
        groups: allowance.groups,
        sponsor: Some(membership.member),
        uses: new.uses.max(1),
        issued,
        expires: issued.after(new.lasts),
    };
    let bytes = sign(registry, clock, device, &invite)?;
    Ok((secret, bytes))
}

/// Takes an invite back that this device made.
///
/// # Errors
/// [`Refusal::NotAuthorized`] if it made none such; see [`Refusal`].
pub(crate) fn close_sponsored(
    registry: &mut Registry,
    clock: &mut Clock,
    device: &SigningSecret,
    invite: &SigningKey,
) -> Result<(), Refusal> {
    let held = registry.held_invite(invite);
    let held = held.filter(|(_, signer)| *signer == device.public());
    let (held, _) = held.ok_or(Refusal::NotAuthorized)?;
    let closed = Invite {
        uses: 0,
        ..held.clone()
    };
    sign(registry, clock, device, &closed).map(drop)
}

fn sign(
    registry: &mut Registry,
    clock: &mut Clock,
    device: &SigningSecret,
    invite: &Invite,
) -> Result<Vec<u8>, Refusal> {
    let serial = registry.next_serial(&Slot::invite(invite.invite));
    let mut out = [0; MAX_RECORD_BYTES];
    let bytes = records::sign_record(device, registry.network(), invite, serial, &mut out)?;
    registry.apply(bytes, clock)?;
    Ok(Vec::from(bytes))
}

/// Whether a member's invite lets anybody in, and what policy lets its maker do.
pub(super) fn check_sponsor(
    registry: &Registry,
    clock: &Clock,
    invite: &Invite,
    signer: SigningKey,
    now: Instant,
) -> Result<Allowance, Refusal> {
    let allowance = registry.sponsored(&signer, invite)?;
    match registry.held_invite(&invite.invite) {
        Some((_, by)) if by != signer => return Err(Refusal::NotAuthorized),
        Some((held, _)) if held.uses == 0 => return Err(Refusal::Revoked),
        _ => {}
    }
    let ends = registry
        .by_device(&signer)
        .map_or(UnixTime::EPOCH, |member| member.membership.expires);
    if clock.is_expired(ends, now) {
        return Err(Refusal::Sponsor(Unfit::Ended));
    }
    Ok(allowance)
}

impl Issuer {
    /// Whether a sponsor may have one more member brought in: those in force count, and those
    /// counted here whose admission was cut off.
    pub(super) fn check_quota(
        &self,
        registry: &Registry,
        invite: &Invite,
        most: u16,
    ) -> Result<(), Refusal> {
        let Some(sponsor) = invite.sponsor else {
            return Ok(());
        };
        let pending = self.uses.iter().filter(|((by, _), member)| {
            let held = registry.held_invite(by);
            held.is_some_and(|(held, _)| held.sponsor == Some(sponsor))
                && registry.by_member(member).is_none()
                && !registry.is_revoked(&RevocationTarget::Member(**member))
        });
        let pending = pending.count();
        if registry.brought_in(&sponsor).count() + pending >= usize::from(most) {
            return Err(Refusal::Sponsor(Unfit::Full { most }));
        }
        Ok(())
    }
}
