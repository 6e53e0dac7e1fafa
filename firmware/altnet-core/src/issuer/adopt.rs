//! Keeping whom somebody brought in who is put out.

use core::time::Duration;

use altnet_wire::hash;
use altnet_wire::id::MemberId;
use altnet_wire::record::{Membership, RevocationTarget};
use altnet_wire::time::Instant;

use super::{Issuer, NewInvite, Refusal};
use crate::clock::Clock;
use crate::records::{self, SigningSecret};
use crate::registry::Registry;
use crate::rng::Rng;

impl Issuer {
    /// Vouches itself for a member that rests on another member's invite
    /// ([`Registry::rests_on`]): signs an invite that gives the same, which nobody else can use,
    /// and the membership anew. Whoever countersigned it renews it as before. Needs
    /// [`altnet_wire::record::Rights::INVITE`].
    ///
    /// # Errors
    /// See [`Refusal`]; nothing was changed.
    pub fn adopt(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        member: &MemberId,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<(), Refusal> {
        let old = registry.by_member(member).ok_or(Refusal::NoSuchMember)?;
        let old = old.membership.clone();
        if registry.is_revoked(&RevocationTarget::Device(old.device)) {
            return Err(Refusal::DeviceRevoked);
        }
        let held = old.invite.and_then(|r| registry.held_invite(&r.invite));
        let (held, _) = held.ok_or(Refusal::NotAllowed)?;
        let new = NewInvite {
            issuer: held.issuer,
            name: Some(old.name.clone()),
            person: old.person.clone(),
            roles: old.roles,
            site: old.site,
            groups: old.groups.clone(),
            sponsor: old.sponsor,
            uses: 1,
            // Long enough to be an invite; the membership made of it stands on.
            lasts: Duration::from_secs(1),
        };
        let (mut after, mut clock_after) = (registry.clone(), clock.clone());
        let (secret, _) = self.create_invite(&mut after, &mut clock_after, new, now, rng)?;
        // No session: bound to the device's own key instead of a handshake.
        let session = hash::labelled("altnet adoption v1", &[&old.device.0]);
        let key = SigningSecret::of_invite(&secret);
        let (issued, expires) = self.dates(&after, &clock_after, now)?;
        let membership = Membership {
            invite: Some(records::redeem_proof(&key, session, &old.device)),
            issued,
            expires,
            replaces: None,
            ..old
        };
        self.admit_into(&mut after, &mut clock_after, &membership)?;
        (*registry, *clock) = (after, clock_after);
        Ok(())
    }
}
