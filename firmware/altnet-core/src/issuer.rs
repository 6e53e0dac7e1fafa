//! What the holder of an issuer key does: let in, renew, revoke, say how far it has come.
//!
//! In: the registry, the clock, and what somebody asks. Out: signed records, already applied to
//! the registry; the caller stores what [`Registry::next_unsaved`] and [`Issuer::is_unsaved`] name
//! before it answers. A refusal changes nothing.
//!
//! It needs no clock: serials count up from the largest seen, and what it can't date it dates
//! with the floor. A device that redeems again gets the membership it has.

mod adopt;
mod refusal;
mod sponsored;
mod uses;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use altnet_wire::envelope::{Envelope, EnvelopeError, MAX_RECORD_BYTES, RecordKind};
use altnet_wire::hash::Hash;
use altnet_wire::id::{MemberId, Name, SigningKey, SiteId};
use altnet_wire::message::Redeem;
use altnet_wire::record::{
    self, Body, Invite, MAX_GROUPS, Membership, NetworkHead, Redemption, Revocation,
    RevocationTarget, Rights, Roles, redemption_proof, redemption_session,
};
use altnet_wire::time::{Instant, UnixTime};

use crate::clock::Clock;
use crate::records::{self, SigningSecret};
use crate::registry::{Allowance, MAX_MEMBERSHIP_S, Member, RecordError, Registry, Slot};
use crate::rng::Rng;

pub use refusal::Refusal;
use sponsored::check_sponsor;
pub(crate) use sponsored::close_sponsored;
pub use sponsored::{NewSponsored, create_sponsored};

/// How long a membership lasts unless said otherwise: 30 days.
pub const MEMBERSHIP: Duration = Duration::from_secs(30 * 86_400);

const _: () = assert!(MEMBERSHIP.as_secs() <= MAX_MEMBERSHIP_S);

/// Bytes of an invite's secret half.
pub const INVITE_SECRET_BYTES: usize = 16;

/// An issuer key at work.
#[derive(Debug)]
pub struct Issuer {
    secret: SigningSecret,
    /// Who redeemed which invite: at most as many as the limits say.
    uses: BTreeMap<(SigningKey, SigningKey), MemberId>,
    limit: u16,
    unsaved: bool,
}

/// A member to be made without an invite.
#[derive(Clone, Debug)]
pub struct NewMember {
    /// The device's name.
    pub name: Name,
    /// Whose it is.
    pub person: Option<Name>,
    /// The device key.
    pub device: SigningKey,
    /// What it may be.
    pub roles: Roles,
    /// Its site.
    pub site: Option<SiteId>,
    /// Its groups.
    pub groups: heapless::Vec<Name, MAX_GROUPS>,
    /// Who brings it.
    pub sponsor: Option<MemberId>,
    /// The member whose device it takes the place of, if any.
    pub replaces: Option<MemberId>,
}

/// An invite to be made.
#[derive(Clone, Debug)]
pub struct NewInvite {
    /// Who counts uses and countersigns; may be this issuer itself.
    pub issuer: SigningKey,
    /// The device's name, if chosen already.
    pub name: Option<Name>,
    /// Whose the device will be.
    pub person: Option<Name>,
    /// What it will be.
    pub roles: Roles,
    /// Its site.
    pub site: Option<SiteId>,
    /// Its groups.
    pub groups: heapless::Vec<Name, MAX_GROUPS>,
    /// Who invites.
    pub sponsor: Option<MemberId>,
    /// How many devices may come in.
    pub uses: u16,
    /// How long it is open.
    pub lasts: Duration,
}

impl Issuer {
    /// Puts an issuer key to work. `uses` is what [`Issuer::uses_bytes`] gave and was stored, or
    /// nothing at the first time.
    ///
    /// # Errors
    /// [`Refusal::Damaged`] if `uses` doesn't read.
    pub fn new(
        secret: SigningSecret,
        uses: Option<&[u8]>,
        registry: &Registry,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            secret,
            uses: match uses {
                Some(bytes) => uses::read(bytes).ok_or(Refusal::Damaged)?,
                None => BTreeMap::new(),
            },
            limit: registry.limits().invite_uses,
            unsaved: false,
        })
    }

    /// Its key.
    pub fn public(&self) -> SigningKey {
        self.secret.public()
    }

    /// Its secret half, to be kept where nobody else reads it.
    pub const fn secret(&self) -> &SigningSecret {
        &self.secret
    }

    /// Whether [`Issuer::uses_bytes`] is to be stored. Asking answers no until the next change.
    pub const fn is_unsaved(&mut self) -> bool {
        core::mem::replace(&mut self.unsaved, false)
    }

    /// Who redeemed what, to be stored.
    pub fn uses_bytes(&self) -> Vec<u8> {
        uses::write(&self.uses)
    }

    /// How many devices came in by an invite.
    pub fn used(&self, invite: &SigningKey) -> usize {
        self.uses.keys().filter(|(key, _)| key == invite).count()
    }

    /// Lets a device in that has an invite. `handshake` is the hash of the Noise session it asks
    /// over. Returns its membership: the one it has, if it redeemed before.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn redeem(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        request: &Redeem<'_>,
        handshake: &Hash,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Vec<u8>, Refusal> {
        let envelope = Envelope::parse(request.invite)?;
        let header = envelope.header();
        if header.kind != RecordKind::INVITE || header.version != 1 {
            return Err(Refusal::Damaged);
        }
        if header.network != registry.network() {
            return Err(Refusal::OtherNetwork);
        }
        let invite: Invite = record::decode(envelope.body()).map_err(|_| Refusal::Damaged)?;
        records::verify(&envelope).map_err(|_| Refusal::Altered)?;
        let redemption = Redemption {
            invite: invite.invite,
            session: redemption_session(handshake, &request.control),
            proof: request.invite_proof,
        };
        let device = request.device;
        check_proofs(&redemption, request)?;
        if invite.issuer != self.public() {
            return Err(Refusal::OtherIssuer);
        }
        if let Some(bytes) = self.redeemed(registry, &invite.invite, &device) {
            return Ok(bytes);
        }
        let allowance = self.check_open(registry, clock, &invite, header.signer, now)?;
        if registry.is_revoked(&RevocationTarget::Device(device)) {
            return Err(Refusal::DeviceRevoked);
        }
        let member = self.room_for(&invite, device)?;
        if let (Some(allowance), None) = (allowance, member) {
            self.check_quota(registry, &invite, allowance.most)?;
        }
        let name = invite
            .name
            .clone()
            .or_else(|| request.name.clone())
            .ok_or(Refusal::NameMissing)?;
        let (issued, expires) = self.dates(registry, clock, now)?;
        let membership = Membership {
            member: member.unwrap_or_else(|| MemberId(rng.array())),
            name,
            person: invite.person,
            device,
            roles: invite.roles,
            site: invite.site,
            groups: invite.groups,
            sponsor: invite.sponsor,
            invite: Some(redemption),
            issued,
            expires,
            replaces: None,
        };
        let bytes = self.admit_invited(registry, clock, request.invite, &membership)?;
        self.uses.insert((invite.invite, device), membership.member);
        self.unsaved = true;
        Ok(bytes)
    }

    /// Makes a member without an invite. Needs [`Rights::INVITE`]. To give a member a new
    /// device, name it in `replaces`.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn admit(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        new: NewMember,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<Vec<u8>, Refusal> {
        let (issued, expires) = self.dates(registry, clock, now)?;
        let old = match &new.replaces {
            Some(member) => Some(registry.by_member(member).ok_or(Refusal::NoSuchMember)?),
            None => None,
        };
        if registry.is_revoked(&RevocationTarget::Device(new.device)) {
            return Err(Refusal::DeviceRevoked);
        }
        let membership = Membership {
            member: new.replaces.unwrap_or_else(|| MemberId(rng.array())),
            name: new.name,
            person: new.person,
            device: new.device,
            roles: new.roles,
            site: new.site,
            groups: new.groups,
            sponsor: new.sponsor,
            invite: None,
            issued,
            expires,
            replaces: old
                .map(|old| old.membership.device)
                .filter(|device| *device != new.device),
        };
        self.admit_into(registry, clock, &membership)
    }

    /// Renews a membership as it is, for [`MEMBERSHIP`] from now. An issuer without
    /// [`Rights::INVITE`] renews only who came in by an invite that names it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn renew(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        member: &MemberId,
        now: Instant,
    ) -> Result<Vec<u8>, Refusal> {
        let (issued, expires) = self.dates(registry, clock, now)?;
        let old = registry.by_member(member).ok_or(Refusal::NoSuchMember)?;
        let membership = Membership {
            issued,
            expires,
            ..old.membership.clone()
        };
        self.admit_into(registry, clock, &membership)
    }

    /// Makes an invite. Needs [`Rights::INVITE`]. Returns the secret half, which belongs into
    /// the link's fragment and nowhere else, and the record.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn create_invite(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        new: NewInvite,
        now: Instant,
        rng: &mut Rng,
    ) -> Result<([u8; INVITE_SECRET_BYTES], Vec<u8>), Refusal> {
        let certificate = registry
            .issuer(&self.public())
            .ok_or(Refusal::NoCertificate)?;
        if !certificate.rights.contains(Rights::INVITE) {
            return Err(Refusal::NotAllowed);
        }
        let issued = clock.estimate(now).time();
        let secret: [u8; INVITE_SECRET_BYTES] = rng.array();
        let invite = Invite {
            invite: SigningSecret::of_invite(&secret).public(),
            issuer: new.issuer,
            name: new.name,
            person: new.person,
            roles: new.roles,
            site: new.site,
            groups: new.groups,
            sponsor: new.sponsor,
            uses: new.uses,
            issued,
            expires: issued.after(new.lasts),
        };
        let slot = Slot::invite(invite.invite);
        let bytes = self.publish(registry, clock, &slot, &invite)?;
        Ok((secret, bytes))
    }

    /// Revokes a member, a device or an invite. Needs [`Rights::REVOKE`].
    ///
    /// # Errors
    /// See [`Refusal`]; [`Refusal::Revoked`] if it is revoked already.
    pub fn revoke(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        target: RevocationTarget,
        reason: &str,
        now: Instant,
    ) -> Result<Vec<u8>, Refusal> {
        if registry.is_revoked(&target) {
            return Err(Refusal::Revoked);
        }
        let revocation = Revocation {
            target,
            issued: clock.estimate(now).time(),
            reason: shorten(reason),
        };
        self.publish(registry, clock, &Slot::revocation(&target), &revocation)
    }

    /// Signs how far the network has come here.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn head(
        &mut self,
        registry: &mut Registry,
        clock: &mut Clock,
        now: Instant,
    ) -> Result<Vec<u8>, Refusal> {
        let summary = registry.summary();
        let head = NetworkHead {
            revocations: summary.revocations,
            revocation_count: summary.revocation_count,
            policy: summary.policy,
            policy_serial: summary.policy_serial,
            owner_serial: summary.owner_serial,
            issued: clock.estimate(now).time(),
        };
        self.publish(registry, clock, &Slot::head(self.public()), &head)
    }

    /// The membership that this device got by this invite, if it is in force.
    fn redeemed(
        &self,
        registry: &Registry,
        invite: &SigningKey,
        device: &SigningKey,
    ) -> Option<Vec<u8>> {
        let member = registry.by_device(device)?;
        let by = member.membership.invite?.invite;
        let slot = Slot::membership(member.membership.member);
        registry
            .bytes(&slot)
            .filter(|_| by == *invite)
            .map(Vec::from)
    }

    /// Whether the invite still lets anybody in; if a member made it, what that one may.
    fn check_open(
        &self,
        registry: &Registry,
        clock: &Clock,
        invite: &Invite,
        signer: SigningKey,
        now: Instant,
    ) -> Result<Option<Allowance>, Refusal> {
        if registry.is_revoked(&RevocationTarget::Invite(invite.invite)) {
            return Err(Refusal::Revoked);
        }
        let may = registry
            .issuer(&signer)
            .is_some_and(|inviter| inviter.rights.contains(Rights::INVITE));
        let allowance = match may {
            true => None,
            false => Some(check_sponsor(registry, clock, invite, signer, now)?),
        };
        if clock.is_expired(invite.expires, now) {
            return Err(Refusal::Expired);
        }
        Ok(allowance)
    }

    /// Whether the invite has a use left for `device`. Returns the member id if a redemption of
    /// its was cut off after it was counted.
    fn room_for(&self, invite: &Invite, device: SigningKey) -> Result<Option<MemberId>, Refusal> {
        if let Some(member) = self.uses.get(&(invite.invite, device)) {
            return Ok(Some(*member));
        }
        if self.used(&invite.invite) >= usize::from(invite.uses) {
            return Err(Refusal::UsedUp);
        }
        if self.uses.len() >= usize::from(self.limit) {
            return Err(Refusal::Full);
        }
        Ok(None)
    }

    /// When a membership made now begins and ends.
    fn dates(
        &self,
        registry: &Registry,
        clock: &Clock,
        now: Instant,
    ) -> Result<(UnixTime, UnixTime), Refusal> {
        let certificate = registry
            .issuer(&self.public())
            .ok_or(Refusal::NoCertificate)?;
        let issued = clock.estimate(now).time();
        if issued > certificate.expires {
            return Err(Refusal::NoCertificate);
        }
        Ok((issued, issued.after(MEMBERSHIP)))
    }

    /// Takes the invite and the membership in, together or not at all.
    fn admit_invited(
        &self,
        registry: &mut Registry,
        clock: &mut Clock,
        invite: &[u8],
        membership: &Membership,
    ) -> Result<Vec<u8>, Refusal> {
        let is_held = membership.invite.is_some_and(|redemption| {
            registry.bytes(&Slot::invite(redemption.invite)) == Some(invite)
        });
        if is_held {
            return self.admit_into(registry, clock, membership);
        }
        let mut after = registry.clone();
        let mut clock_after = clock.clone();
        after.apply(invite, &mut clock_after)?;
        let bytes = self.admit_into(&mut after, &mut clock_after, membership)?;
        *registry = after;
        *clock = clock_after;
        Ok(bytes)
    }

    fn admit_into(
        &self,
        registry: &mut Registry,
        clock: &mut Clock,
        membership: &Membership,
    ) -> Result<Vec<u8>, Refusal> {
        check_free(registry, membership)?;
        let slot = Slot::membership(membership.member);
        let bytes = self.sign(registry, &slot, membership)?;
        match registry.apply(&bytes, clock) {
            Ok(_) => Ok(bytes),
            Err(RecordError::NotAuthorized | RecordError::NotAsInvited) => Err(Refusal::NotAllowed),
            Err(error) => Err(error.into()),
        }
    }

    fn publish<T: Body>(
        &self,
        registry: &mut Registry,
        clock: &mut Clock,
        slot: &Slot,
        body: &T,
    ) -> Result<Vec<u8>, Refusal> {
        let bytes = self.sign(registry, slot, body)?;
        match registry.apply(&bytes, clock) {
            Ok(_) => Ok(bytes),
            Err(RecordError::NotAuthorized) => Err(Refusal::NotAllowed),
            Err(RecordError::Missing(_) | RecordError::IssuerExpired | RecordError::Revoked) => {
                Err(Refusal::NoCertificate)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn sign<T: Body>(
        &self,
        registry: &Registry,
        slot: &Slot,
        body: &T,
    ) -> Result<Vec<u8>, Refusal> {
        let mut out = [0; MAX_RECORD_BYTES];
        let serial = registry.next_serial(slot);
        let bytes = records::sign_record(&self.secret, registry.network(), body, serial, &mut out)?;
        Ok(Vec::from(bytes))
    }
}

/// Everybody that `member` brought in, and whom they brought, in the order of ids.
pub fn subtree(registry: &Registry, member: &MemberId) -> Vec<MemberId> {
    let mut found: Vec<MemberId> = Vec::new();
    loop {
        let before = found.len();
        for other in registry.members().map(|other| other.membership) {
            let brought = other
                .sponsor
                .is_some_and(|sponsor| sponsor == *member || found.contains(&sponsor));
            if brought && other.member != *member && !found.contains(&other.member) {
                found.push(other.member);
            }
        }
        if found.len() == before {
            found.sort_unstable();
            return found;
        }
    }
}

/// Signs the same body anew with another key: what a present owner does with the certificates
/// and revocations of one who left ([`Registry::standing_aside`]).
///
/// # Errors
/// [`EnvelopeError`] if `record` isn't an envelope.
pub fn sign_anew(secret: &SigningSecret, record: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    let envelope = Envelope::parse(record)?;
    let header = envelope.header();
    let mut out = alloc::vec![0; header.kind.max_bytes()];
    let bytes = records::sign_body(
        secret,
        header.network,
        header.kind,
        header.version,
        envelope.body(),
        header.serial.next(),
        &mut out,
    )?;
    Ok(Vec::from(bytes))
}

/// Refuses what another member has. The registry alone would let the smaller member id win.
fn check_free(registry: &Registry, membership: &Membership) -> Result<(), Refusal> {
    let is_other = |other: Option<Member<'_>>| {
        other.is_some_and(|other| other.membership.member != membership.member)
    };
    if is_other(registry.by_name(&membership.name)) {
        return Err(Refusal::NameTaken);
    }
    if is_other(registry.by_device(&membership.device)) {
        return Err(Refusal::DeviceTaken);
    }
    let site = membership
        .site
        .filter(|_| membership.roles.contains(Roles::GATEWAY));
    if is_other(site.and_then(|site| registry.gateway(site))) {
        return Err(Refusal::SiteTaken);
    }
    Ok(())
}

fn check_proofs(redemption: &Redemption, request: &Redeem<'_>) -> Result<(), Refusal> {
    let device = &request.device;
    records::verify_redemption(redemption, device).map_err(|_| Refusal::Altered)?;
    let hash = redemption_proof(&redemption.session, device);
    let mut signature = [0; 64];
    signature.copy_from_slice(request.device_proof.as_flattened());
    records::verify_hash(device, &hash, &signature).map_err(|_| Refusal::Altered)
}

/// As much of `reason` as a revocation has room for, in whole characters.
fn shorten(reason: &str) -> heapless::String<{ record::MAX_REASON_BYTES }> {
    let mut short = heapless::String::new();
    for character in reason.chars() {
        if short.push(character).is_err() {
            break;
        }
    }
    short
}
