//! Who may sign what: the rules of the chain from an owner down to a host's name.

use altnet_wire::address;
use altnet_wire::envelope::{Header, RecordKind};
use altnet_wire::id::{ControlKey, MemberId, SigningKey, SiteId, TunnelKey};
use altnet_wire::record::{
    HostRecord, Invite, IssuerCertificate, Membership, RevocationTarget, Rights, Roles,
};
use altnet_wire::time::UnixTime;

use super::held::{Body, Held};
use super::{Claim, MAX_MEMBERSHIP_S, Missing, RecordError, Registry, Slot};

impl Registry {
    /// Whether the signer may sign this body, as things are now. Looks only at what the record
    /// rests on, never at records about the same subject.
    pub(super) fn judge(&self, header: &Header, body: &Body) -> Result<(), RecordError> {
        let signer = &header.signer;
        match body {
            Body::OwnerChange(body) => self.owners.judge(signer, header.serial, body),
            Body::Certificate(body) => {
                if body.first_site > body.last_site || body.expires <= body.issued {
                    return Err(RecordError::Body(RecordKind::ISSUER_CERTIFICATE));
                }
                self.judge_owner(signer)
            }
            Body::Membership(body, _) => self.judge_membership(signer, body),
            Body::Node(_) => self.judge_device(signer, Roles::empty()),
            Body::Host(body) => self.judge_host(signer, body),
            Body::App(_) => self.judge_device(signer, Roles::APPS),
            Body::Policy => self.judge_right(signer, Rights::POLICY, None),
            Body::Revocation(body) => {
                if matches!(body.target, RevocationTarget::Issuer(_)) {
                    return self.judge_owner(signer);
                }
                self.judge_right(signer, Rights::REVOKE, Some(body.issued))?;
                // It is final, and its date is its signer's word: a thief whose key was revoked
                // would go on putting members out by dating back.
                let issuer = RevocationTarget::Issuer(*signer);
                if !self.is_owner(signer) && self.view.revoked.contains_key(&issuer) {
                    return Err(RecordError::Revoked);
                }
                Ok(())
            }
            Body::Invite(body) => self.judge_invite(signer, body),
            Body::Head(body) => {
                if self.is_owner(signer) {
                    return Ok(());
                }
                self.issuer_at(signer, Some(body.issued)).map(drop)
            }
            Body::TlsAuthority(body) => self.judge_tls_authority(signer, body),
            Body::TlsRequest(body) => self.judge_tls_request(signer, body),
            Body::TlsCertificate(body) => self.judge_tls_certificate(signer, body),
            Body::Derp(_) => self.judge_device(signer, Roles::empty()),
            Body::Unknown => self.judge_unknown(signer),
        }
    }

    pub(super) fn is_owner(&self, key: &SigningKey) -> bool {
        self.owners().contains(key)
    }

    pub(super) fn judge_owner(&self, signer: &SigningKey) -> Result<(), RecordError> {
        if self.is_owner(signer) {
            Ok(())
        } else {
            Err(RecordError::NotAuthorized)
        }
    }

    fn judge_right(
        &self,
        signer: &SigningKey,
        right: Rights,
        issued: Option<UnixTime>,
    ) -> Result<(), RecordError> {
        if self.is_owner(signer) {
            return Ok(());
        }
        if self.issuer_at(signer, issued)?.rights.contains(right) {
            Ok(())
        } else {
            Err(RecordError::NotAuthorized)
        }
    }

    /// The certificate under which `signer` may have signed something issued then. What says no
    /// time counts as signed after every revocation and before every end.
    pub(super) fn issuer_at(
        &self,
        signer: &SigningKey,
        issued: Option<UnixTime>,
    ) -> Result<&IssuerCertificate, RecordError> {
        let missing = RecordError::Missing(Missing::Issuer(*signer));
        let certificate = match self.records.get(&Slot::certificate(*signer)) {
            Some(Held {
                body: Body::Certificate(certificate),
                standing: true,
                ..
            }) => certificate,
            _ => return Err(missing),
        };
        let cut = self.view.revoked.get(&RevocationTarget::Issuer(*signer));
        if cut.is_some_and(|cut| issued.is_none_or(|issued| issued > *cut)) {
            return Err(RecordError::Revoked);
        }
        if issued.is_some_and(|issued| issued > certificate.expires) {
            return Err(RecordError::IssuerExpired);
        }
        Ok(certificate)
    }

    fn judge_invite(&self, signer: &SigningKey, body: &Invite) -> Result<(), RecordError> {
        if self.is_device_key(signer) {
            return self.judge_sponsored(signer, body);
        }
        let certificate = self.issuer_at(signer, Some(body.issued))?;
        let may = certificate.rights.contains(Rights::INVITE)
            && within(certificate, body.roles, body.site);
        if !may {
            return Err(RecordError::NotAuthorized);
        }
        let gateway_without_site = body.roles.contains(Roles::GATEWAY) && body.site.is_none();
        if gateway_without_site || body.expires <= body.issued {
            return Err(RecordError::Body(RecordKind::INVITE));
        }
        Ok(())
    }

    fn judge_membership(&self, signer: &SigningKey, body: &Membership) -> Result<(), RecordError> {
        let gateway_without_site = body.roles.contains(Roles::GATEWAY) && body.site.is_none();
        if gateway_without_site || body.replaces == Some(body.device) {
            return Err(RecordError::Body(RecordKind::MEMBERSHIP));
        }
        let lasts_s = body.expires.as_secs().checked_sub(body.issued.as_secs());
        if !lasts_s.is_some_and(|s| s > 0 && s <= MAX_MEMBERSHIP_S) {
            return Err(RecordError::Lifetime);
        }
        let certificate = self.issuer_at(signer, Some(body.issued))?;
        if !within(certificate, body.roles, body.site) {
            return Err(RecordError::NotAuthorized);
        }
        if certificate.rights.contains(Rights::INVITE) {
            return Ok(());
        }
        let redemption = body.invite.as_ref().ok_or(RecordError::NotAuthorized)?;
        if !certificate.rights.contains(Rights::ADMIT) {
            return Err(RecordError::NotAuthorized);
        }
        let missing = RecordError::Missing(Missing::Invite(redemption.invite));
        let invite = self.standing_invite(&redemption.invite).ok_or(missing)?;
        if is_as_invited(signer, body, invite) {
            Ok(())
        } else {
            Err(RecordError::NotAsInvited)
        }
    }

    /// The invite, if its signer could sign it; it may be revoked or at its end.
    pub(super) fn standing_invite(&self, invite: &SigningKey) -> Option<&Invite> {
        match self.records.get(&Slot::invite(*invite))? {
            Held {
                body: Body::Invite(invite),
                standing: true,
                ..
            } => Some(invite),
            _ => None,
        }
    }

    pub(super) fn judge_device(
        &self,
        signer: &SigningKey,
        roles: Roles,
    ) -> Result<(), RecordError> {
        if self.is_revoked(&RevocationTarget::Device(*signer)) {
            return Err(RecordError::Revoked);
        }
        let missing = RecordError::Missing(Missing::Device(*signer));
        let member = self.by_device(signer).ok_or(missing)?;
        if member.membership.roles.contains(roles) {
            Ok(())
        } else {
            Err(RecordError::NotAuthorized)
        }
    }

    fn judge_host(&self, signer: &SigningKey, body: &HostRecord) -> Result<(), RecordError> {
        let prefix = address::site_prefix(&self.network, body.site);
        if body
            .address
            .is_some_and(|address| !prefix.contains(address))
        {
            return Err(RecordError::NotAuthorized);
        }
        let gateway = self.gateway(body.site);
        if gateway.is_some_and(|member| member.membership.device == *signer) {
            return Ok(());
        }
        match self.issuer_at(signer, None) {
            Ok(certificate) => {
                let may = certificate.rights.contains(Rights::HOSTS)
                    && within(certificate, Roles::empty(), Some(body.site));
                if may {
                    Ok(())
                } else {
                    Err(RecordError::NotAuthorized)
                }
            }
            Err(RecordError::Missing(_)) => Err(RecordError::Missing(Missing::Gateway(body.site))),
            Err(error) => Err(error),
        }
    }

    fn judge_unknown(&self, signer: &SigningKey) -> Result<(), RecordError> {
        if self.is_owner(signer) || self.issuer_at(signer, None).is_ok() {
            return Ok(());
        }
        self.judge_device(signer, Roles::empty())
    }

    /// Whether the record, its signer's power aside, can't be in force: revoked, replaced, or
    /// in another's place. While the view is made anew, members come in ascending order,
    /// those last that members brought in, so whom one clashes with has gone before.
    pub(super) fn check_clash(&self, header: &Header, body: &Body) -> Result<(), RecordError> {
        match body {
            Body::Membership(body, node) => {
                if self.is_revoked(&RevocationTarget::Member(body.member)) {
                    return Err(RecordError::Revoked);
                }
                let others = [
                    (Claim::Name, self.view.names.get(&body.name)),
                    (Claim::Device, self.view.devices.get(&body.device)),
                    (Claim::Device, self.view.nodes.get(node)),
                    (Claim::Site, self.gateway_claim(body)),
                ];
                let rank = (self.tier_of(&header.signer, body), body.member);
                let is_first = |other: &&MemberId| {
                    **other != body.member
                        && (self.tier(&Slot::membership(**other)), **other) < rank
                };
                for (claim, other) in others {
                    let Some(other) = other.filter(is_first) else {
                        continue;
                    };
                    let device = self.by_member(other).map(|other| other.membership.device);
                    if body.replaces.is_none() || body.replaces != device {
                        return Err(RecordError::Taken(claim));
                    }
                }
            }
            Body::Node(body) => {
                let member = self.view.devices.get(&header.signer);
                let keys = core::iter::once(&body.tunnel).chain(&body.previous_tunnel);
                let mut others = keys
                    .map(|tunnel| self.view.tunnels.get(&tunnel.key))
                    .chain([self.view.controls.get(&body.control)])
                    .flatten();
                if others.any(|other| Some(other) != member) {
                    return Err(RecordError::Taken(Claim::Key));
                }
            }
            Body::App(body) => {
                let Some(tunnel) = &body.tunnel else {
                    return Ok(());
                };
                let other = self.view.app_tunnels.get(&tunnel.key);
                let node = self.view.tunnels.contains_key(&tunnel.key);
                if node || other.is_some_and(|other| *other != body.app) {
                    return Err(RecordError::Taken(Claim::Key));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Refuses a record that claims a key which another device's held record has, be that one in
    /// force or not: it may be again, and had the key first.
    pub(super) fn check_keys(
        &self,
        slot: &Slot,
        header: &Header,
        body: &Body,
    ) -> Result<(), RecordError> {
        let claimed = keys_of(body);
        if claimed == ([None; 2], None) {
            return Ok(());
        }
        let member = self.view.devices.get(&header.signer);
        let is_other = |device: &SigningKey| {
            *device != header.signer
                && !self.view.replaced.contains(device)
                && (member.is_none() || self.view.devices.get(device) != member)
        };
        let meets = |(tunnels, control): Keys<'_>| {
            let (claims, claim) = claimed;
            let both = claims
                .iter()
                .flatten()
                .any(|key| tunnels.contains(&Some(*key)));
            both || (claim.is_some() && claim == control)
        };
        let of = |kind| self.records.range(Slot::first(kind)..=Slot::last(kind));
        let taken = of(RecordKind::NODE)
            .chain(of(RecordKind::APP))
            .filter(|(other, held)| *other != slot && is_other(&held.header.signer))
            .any(|(_, held)| meets(keys_of(&held.body)));
        if taken {
            return Err(RecordError::Taken(Claim::Key));
        }
        Ok(())
    }

    fn gateway_claim(&self, body: &Membership) -> Option<&MemberId> {
        let site = body.site.filter(|_| body.roles.contains(Roles::GATEWAY))?;
        self.view.gateways.get(&site)
    }
}

/// The tunnel keys and the control key that a record claims.
type Keys<'a> = ([Option<&'a TunnelKey>; 2], Option<&'a ControlKey>);

fn keys_of(body: &Body) -> Keys<'_> {
    match body {
        Body::Node(body) => (
            [
                Some(&body.tunnel.key),
                body.previous_tunnel.as_ref().map(|tunnel| &tunnel.key),
            ],
            Some(&body.control),
        ),
        Body::App(body) => ([body.tunnel.as_ref().map(|tunnel| &tunnel.key), None], None),
        _ => ([None; 2], None),
    }
}

/// Whether the certificate covers these roles and this site. Bits without a meaning don't count.
fn within(certificate: &IssuerCertificate, roles: Roles, site: Option<SiteId>) -> bool {
    let roles = Roles::from_bits_truncate(roles.bits());
    let sites = certificate.first_site..=certificate.last_site;
    certificate.roles.contains(roles) && site.is_none_or(|site| sites.contains(&site))
}

fn is_as_invited(signer: &SigningKey, body: &Membership, invite: &Invite) -> bool {
    invite.issuer == *signer
        && invite.name.as_ref().is_none_or(|name| *name == body.name)
        && invite.person == body.person
        && invite.roles == body.roles
        && invite.site == body.site
        && invite.groups == body.groups
        && invite.sponsor == body.sponsor
        && body.replaces.is_none()
}
