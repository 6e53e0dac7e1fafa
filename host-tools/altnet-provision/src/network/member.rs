//! Members, and the end of a membership.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use altnet_core::issuer::subtree;
use altnet_core::registry::{Member, Slot};
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{MemberId, Name, SigningKey, SiteId};
use altnet_wire::record::{self, Revocation, RevocationTarget};
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::{Network, show};
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use crate::settings::as_text;
use crate::text;

/// A member. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct MemberSummary {
    /// Its id, the same through all its devices' keys.
    #[serde(with = "as_text")]
    pub id: MemberId,
    /// Its device's name.
    pub name: String,
    /// Whose it is.
    pub person: Option<String>,
    /// What it may be.
    pub roles: Vec<&'static str>,
    /// The site it is in.
    pub site: Option<u16>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Its device key.
    #[serde(with = "as_text")]
    pub device: SigningKey,
    /// Its own address.
    pub address: Ipv6Addr,
    /// Who invited it, by name if that is a member still.
    pub sponsor: Option<String>,
    /// When its membership was made (RFC 3339, UTC).
    pub issued: String,
    /// When it ends unless renewed (RFC 3339, UTC).
    pub expires: Option<String>,
    /// Whether it ended, as far as is known here.
    pub expired: bool,
}

/// What is to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A member with all its devices, by name or id.
    Member(String),
    /// One device key.
    Device(SigningKey),
    /// An issuer key. Only an owner can.
    Issuer(SigningKey),
}

/// What becomes of those whom a revoked member invited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invited {
    /// Nothing is revoked if there are any: somebody has to choose.
    Ask,
    /// They stay.
    Keep,
    /// They are revoked as well.
    Revoke,
}

/// What [`Network::revoke`] did. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Revoked {
    /// What was revoked: members by name, keys as they are.
    pub revoked: Vec<String>,
    /// Those whom it invited and who stay.
    pub kept: Vec<String>,
    /// Open invites that were taken back with it, by key.
    pub invites: Vec<String>,
    /// Issuer keys that were revoked with it, because they are on its device.
    pub issuers: Vec<String>,
}

impl Network {
    /// All members, in the order of names.
    pub fn members(&self, now: UnixTime) -> Vec<MemberSummary> {
        let mut members: Vec<_> = self
            .registry
            .members()
            .map(|member| self.member_summary(&member, now))
            .collect();
        members.sort_by(|a, b| a.name.cmp(&b.name).then(a.id.cmp(&b.id)));
        members
    }

    fn member_summary(&self, member: &Member<'_>, now: UnixTime) -> MemberSummary {
        let body = member.membership;
        MemberSummary {
            id: body.member,
            name: body.name.to_string(),
            person: body.person.as_ref().map(ToString::to_string),
            roles: text::role_names(body.roles),
            site: body.site.map(SiteId::as_u16),
            groups: body.groups.iter().map(ToString::to_string).collect(),
            device: body.device,
            address: member.id.address(),
            sponsor: body.sponsor.as_ref().map(|id| self.called(id)),
            issued: body.issued.to_string(),
            expires: show::when(body.expires),
            expired: now >= body.expires,
        }
    }

    /// A member's name, or its id if it is none any more.
    pub(super) fn called(&self, id: &MemberId) -> String {
        let known = self.registry.by_member(id);
        known.map_or_else(|| id.to_string(), |m| m.membership.name.to_string())
    }

    /// The member with this name or id.
    pub(super) fn member_named(&self, which: &str) -> Result<Member<'_>> {
        let by_name = which
            .parse::<Name>()
            .ok()
            .and_then(|name| self.registry.by_name(&name));
        let by_id = || {
            let id = which.parse::<MemberId>().ok()?;
            self.registry.by_member(&id)
        };
        by_name.or_else(by_id).ok_or_else(|| {
            Error::not_found(
                format!("no member is called {which}"),
                "See `altnet-provision members`; `altnet-provision sync` fetches those that joined since.",
            )
        })
    }

    /// The members that `target` invited, and whom they invited in turn: who has to be thought
    /// of before it is revoked.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such member.
    pub fn invited_by(&self, target: &Target, now: UnixTime) -> Result<Vec<MemberSummary>> {
        let Some(member) = self.member_of(target)? else {
            return Ok(Vec::new());
        };
        let invited = subtree(&self.registry, &member);
        Ok(invited
            .iter()
            .filter_map(|id| self.registry.by_member(id))
            .map(|member| self.member_summary(&member, now))
            .collect())
    }

    /// Ends a member, a device key or an issuer key, for good. With a member go the open invites
    /// it sponsored, and the issuer key that its first-boot file brought.
    ///
    /// # Errors
    /// [`Error::NeedsConsent`] if it invited others and `invited` is [`Invited::Ask`];
    /// [`Error::NotFound`]; [`Error::NotAllowed`].
    pub fn revoke(
        &mut self,
        secrets: &Secrets,
        target: &Target,
        invited: Invited,
        reason: &str,
        now: UnixTime,
    ) -> Result<Revoked> {
        if let Target::Issuer(key) = target {
            return self.revoke_issuer(secrets, *key, reason, now);
        }
        let brought = self.invited_by(target, now)?;
        let names = || brought.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
        if invited == Invited::Ask && !brought.is_empty() {
            return Err(Error::NeedsConsent {
                what: format!("it invited others: {}", names().join(", ")),
                next: "Revoke them too with --with-invited, or keep them with --yes.".into(),
            });
        }
        let mut done = Revoked {
            revoked: Vec::new(),
            kept: Vec::new(),
            invites: Vec::new(),
            issuers: Vec::new(),
        };
        let mut targets = Vec::new();
        let first = self.member_of(target)?;
        match (target, first) {
            (Target::Member(_), Some(id)) => targets.push(RevocationTarget::Member(id)),
            (Target::Device(key), _) => targets.push(RevocationTarget::Device(*key)),
            _ => {}
        }
        match invited {
            Invited::Revoke => {
                targets.extend(brought.iter().map(|m| RevocationTarget::Member(m.id)))
            }
            Invited::Keep | Invited::Ask => done.kept = names(),
        }
        let gone: Vec<MemberId> = match invited {
            Invited::Revoke => first
                .into_iter()
                .chain(brought.iter().map(|m| m.id))
                .collect(),
            Invited::Keep | Invited::Ask => first.into_iter().collect(),
        };
        for invite in self.open_invites(now) {
            let sponsor = invite.sponsor;
            if sponsor.is_some_and(|sponsor| gone.contains(&sponsor)) {
                done.invites.push(invite.invite.to_string());
                targets.push(RevocationTarget::Invite(invite.invite));
            }
        }
        let gone_ids = gone;
        let gone: Vec<Name> = gone_ids
            .iter()
            .filter_map(|id| self.registry.by_member(id))
            .map(|member| member.membership.name.clone())
            .collect();
        done.revoked = match target {
            Target::Device(key) => std::iter::once(key.to_string())
                .chain(
                    gone.iter()
                        .skip(usize::from(first.is_some()))
                        .map(Name::to_string),
                )
                .collect(),
            _ => gone.iter().map(Name::to_string).collect(),
        };
        let keys = self.issuers_of(&gone);
        done.issuers = keys.iter().map(ToString::to_string).collect();
        let owner = match keys.is_empty() {
            true => None,
            false => Some(self.owner(secrets)?),
        };
        let mut issuer = self.issuer(secrets)?;
        let adopted = self.resting_on(&gone_ids);
        self.change(now, |draft| {
            for member in &adopted {
                draft.vouch_for(&mut issuer, member)?;
            }
            for target in &targets {
                draft.revoke(&mut issuer, *target, reason)?;
            }
            if let Some(owner) = &owner {
                for key in &keys {
                    draft.revoke_issuer(owner, *key, reason, now)?;
                }
            }
            let is_gone = |name: &str| gone.iter().any(|gone| gone.as_str() == name);
            draft.settings.entries.retain(|entry| !is_gone(&entry.name));
            draft.add_head(&mut issuer)
        })?;
        Ok(done)
    }

    fn revoke_issuer(
        &mut self,
        secrets: &Secrets,
        key: SigningKey,
        reason: &str,
        now: UnixTime,
    ) -> Result<Revoked> {
        if self.registry.issuer(&key).is_none() {
            return Err(Error::not_found(
                format!("no issuer in force has the key {key}"),
                "See `altnet-provision issuer list`.",
            ));
        }
        if key == self.settings.issuer {
            return Err(Error::input(
                "that is this computer's own issuer key, without which nothing more could be signed here",
                "Revoke it on another owner's computer.",
            ));
        }
        let owner = self.owner(secrets)?;
        let mut issuer = self.issuer(secrets)?;
        self.change(now, |draft| {
            draft.revoke_issuer(&owner, key, reason, now)?;
            draft.add_head(&mut issuer)
        })?;
        Ok(Revoked {
            revoked: vec![key.to_string()],
            kept: Vec::new(),
            invites: Vec::new(),
            issuers: vec![key.to_string()],
        })
    }

    /// Who signed each revocation held.
    pub fn revocations_by(&self) -> BTreeMap<Slot, SigningKey> {
        let records = self.registry.iter();
        records
            .filter(|(slot, _)| slot.kind() == RecordKind::REVOCATION)
            .filter_map(|(slot, bytes)| Some((slot, Envelope::parse(bytes).ok()?.header().signer)))
            .collect()
    }

    /// The revocations that another signed when `before` was asked: now an owner's.
    pub fn revocations_signed_anew(&self, before: &BTreeMap<Slot, SigningKey>) -> Vec<String> {
        let now = self.revocations_by();
        let anew = now
            .iter()
            .filter(|(slot, signer)| before.get(slot).is_some_and(|was| was != *signer));
        anew.filter_map(|(slot, _)| {
            let envelope = Envelope::parse(self.registry.bytes(slot)?).ok()?;
            let body: Revocation = record::decode(envelope.body()).ok()?;
            let what = match body.target {
                RevocationTarget::Member(member) => format!("member {member}"),
                RevocationTarget::Device(key) => format!("device {key}"),
                RevocationTarget::Invite(key) => format!("invite {key}"),
                RevocationTarget::Issuer(key) => format!("issuer {key}"),
                _ => "something newer".into(),
            };
            Some(format!("{what} of {} ({})", body.issued, body.reason))
        })
        .collect()
    }

    fn member_of(&self, target: &Target) -> Result<Option<MemberId>> {
        match target {
            Target::Member(which) => Ok(Some(self.member_named(which)?.membership.member)),
            Target::Device(key) => {
                if self.registry.is_revoked(&RevocationTarget::Device(*key)) {
                    return Err(Error::exists(
                        format!("the device key {key} is revoked already"),
                        "Nothing is left to do.",
                    ));
                }
                let member = self.registry.by_device(key);
                Ok(member.map(|member| member.membership.member))
            }
            Target::Issuer(_) => Ok(None),
        }
    }

    /// The issuer keys that first-boot files brought to these devices.
    fn issuers_of(&self, names: &[Name]) -> Vec<SigningKey> {
        let entries = self.settings.entries.iter();
        entries
            .filter(|entry| names.iter().any(|name| name.as_str() == entry.name))
            .filter_map(|entry| entry.admits)
            .filter(|key| self.registry.issuer(key).is_some())
            .collect()
    }
}

impl super::Draft {
    /// Revokes an issuer key. What it had revoked is signed by the owner first: nothing that a
    /// revoked key revoked stands. So is the policy, if it had signed that.
    pub(super) fn revoke_issuer(
        &mut self,
        owner: &altnet_core::records::SigningSecret,
        key: SigningKey,
        reason: &str,
        now: UnixTime,
    ) -> Result<()> {
        let is_its = |bytes: &&[u8]| Envelope::parse(bytes).is_ok_and(|e| e.header().signer == key);
        let revocations: Vec<Vec<u8>> = self
            .registry
            .iter()
            .filter(|(slot, _)| slot.kind() == RecordKind::REVOCATION)
            .map(|(_, bytes)| bytes)
            .filter(is_its)
            .map(<[u8]>::to_vec)
            .collect();
        for bytes in revocations {
            self.again(owner, &bytes)?;
        }
        let policy = self.policy_record();
        let target = RevocationTarget::Issuer(key);
        let mut short = heapless::String::new();
        for character in reason.chars() {
            if short.push(character).is_err() {
                break;
            }
        }
        let body = Revocation {
            target,
            issued: now,
            reason: short,
        };
        self.add(
            owner,
            &Slot::revocation(&target),
            &body,
            "revoke the issuer key",
        )?;
        self.keep_in_force(owner, policy.as_deref())
    }
}
