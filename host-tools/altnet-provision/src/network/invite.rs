//! Invites: links that let a device in.

use std::net::SocketAddr;
use std::time::Duration;

use altnet_core::invite::{Link, MAX_ENTRIES};
use altnet_core::issuer::NewInvite;
use altnet_core::registry::Slot;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{Name, SigningKey, SiteId};
use altnet_wire::record::{self, Invite, MAX_GROUPS, RevocationTarget, Rights, Roles};
use altnet_wire::time::{Instant, UnixTime};
use serde::Serialize;

use super::{Draft, MAKE_RELAY, NEEDS_RELAY, Network, refused};
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use crate::settings::as_text;
use crate::text;

/// What an invite is to give.
#[derive(Clone, Debug)]
pub struct InviteWish {
    /// The device's name; without one the device chooses.
    pub name: Option<Name>,
    /// Whose the device is.
    pub person: Option<Name>,
    /// Its groups, at most [`MAX_GROUPS`].
    pub groups: Vec<Name>,
    /// What it may be.
    pub roles: Roles,
    /// Its site; a gateway without one gets the next that is free.
    pub site: Option<SiteId>,
    /// The member that invites, by name.
    pub sponsor: Option<Name>,
    /// How many devices may come in, at least one.
    pub uses: u16,
    /// How long it is open.
    pub lasts: Duration,
    /// Further places to knock at.
    pub endpoints: Vec<SocketAddr>,
}

/// An invite that was made. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct InviteMade {
    /// What lets a device in. Whoever reads it can come in, so it is shown to nobody else.
    pub link: String,
    /// The invite's key, by which it is listed and revoked.
    #[serde(with = "as_text")]
    pub invite: SigningKey,
    /// The issuer that counts its uses.
    #[serde(with = "as_text")]
    pub admits: SigningKey,
    /// The site it gives.
    pub site: Option<u16>,
    /// When it ends (RFC 3339, UTC).
    pub expires: String,
    /// Where the link knocks.
    pub endpoints: Vec<SocketAddr>,
    /// Whether a relay that the internet can reach is known here.
    pub has_relay: bool,
}

/// How an invite stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InviteStatus {
    /// A device may still come in.
    Open,
    /// As many devices as it allows came in, as far as is known here.
    Used,
    /// Its time is over.
    Expired,
    /// It was taken back, or its issuer was, or it is a member's that policy no longer lets make it.
    Revoked,
}

/// An invite as it is listed. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct InviteSummary {
    /// Its key.
    #[serde(with = "as_text")]
    pub invite: SigningKey,
    /// The device's name, if it was chosen.
    pub name: Option<String>,
    /// Whose the device is.
    pub person: Option<String>,
    /// Who invites, by name if that is a member.
    pub sponsor: Option<String>,
    /// What it gives.
    pub roles: Vec<&'static str>,
    /// The site it gives.
    pub site: Option<u16>,
    /// How many devices may come in.
    pub uses: u16,
    /// The members that are known to have come in by it.
    pub used_by: Vec<String>,
    /// When it was made (RFC 3339, UTC).
    pub issued: String,
    /// When it ends (RFC 3339, UTC).
    pub expires: Option<String>,
    /// How it stands.
    pub status: InviteStatus,
}

impl Network {
    /// Makes an invite. A node that may countersign redeems it, so one has to be provisioned
    /// first ([`Network::bundle`] with `admit`).
    ///
    /// # Errors
    /// [`Error::NotFound`] if no node that may countersign is known; [`Error::Exists`] if the
    /// name or the site is taken; [`Error::Input`]; [`Error::NotAllowed`].
    pub fn create_invite(
        &mut self,
        secrets: &Secrets,
        wish: &InviteWish,
        now: UnixTime,
    ) -> Result<InviteMade> {
        let admits = self.admitting_issuer(wish.roles, now)?;
        let mut entries = wish.endpoints.clone();
        for endpoint in self.entry_endpoints() {
            if !entries.contains(&endpoint) {
                entries.push(endpoint);
            }
        }
        entries.truncate(MAX_ENTRIES);
        if entries.is_empty() {
            return Err(Error::not_found(
                "the link would not know where to knock: no address of the network is known here",
                format!("{NEEDS_RELAY} Say where it is with --endpoint IP:PORT. {MAKE_RELAY}"),
            ));
        }
        let mut issuer = self.issuer(secrets)?;
        let new = self.new_invite(wish, admits, now)?;
        let site = new.site;
        let link = self.change(now, |draft| make_link(draft, &mut issuer, new, &entries))?;
        Ok(InviteMade {
            invite: link.key().public(),
            link: link.to_text(),
            admits,
            site: site.map(SiteId::as_u16),
            expires: now.after(wish.lasts).to_string(),
            endpoints: entries,
            has_relay: self.has_relay(),
        })
    }

    /// Checks a wish against what is known here.
    pub(super) fn new_invite(
        &self,
        wish: &InviteWish,
        issuer: SigningKey,
        now: UnixTime,
    ) -> Result<NewInvite> {
        self.check_wish_name(wish, now)?;
        let groups = heapless::Vec::from_slice(&wish.groups).map_err(|_| {
            Error::input(
                format!("a device is in at most {MAX_GROUPS} groups"),
                "Leave some out.",
            )
        })?;
        let sponsor = match &wish.sponsor {
            None => None,
            Some(name) => Some(self.member_named(name.as_str())?.membership.member),
        };
        Ok(NewInvite {
            issuer,
            name: wish.name.clone(),
            person: wish.person.clone(),
            roles: wish.roles,
            site: self.site_for(wish, now)?,
            groups,
            sponsor,
            uses: wish.uses.max(1),
            lasts: wish.lasts,
        })
    }

    /// All invites known here, the newest first.
    pub fn invites(&self, now: UnixTime) -> Vec<InviteSummary> {
        let mut invites: Vec<_> = self.invite_bodies().collect();
        invites.sort_by_key(|invite| std::cmp::Reverse((invite.issued, invite.invite)));
        invites
            .iter()
            .map(|invite| self.invite_summary(invite, now))
            .collect()
    }

    /// Takes an invite back: by its key, the beginning of its key, or the name it was made for.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Input`] if several fit; [`Error::NotAllowed`].
    pub fn revoke_invite(
        &mut self,
        secrets: &Secrets,
        which: &str,
        now: UnixTime,
    ) -> Result<InviteSummary> {
        let fits = |invite: &InviteSummary| {
            invite.name.as_deref() == Some(which)
                || (which.len() >= 4 && invite.invite.to_string().starts_with(which))
        };
        let mut found = self.invites(now);
        found.retain(|invite| fits(invite) && invite.status != InviteStatus::Revoked);
        if found.len() > 1 {
            found.retain(|invite| invite.status == InviteStatus::Open);
        }
        let chosen = match found.as_slice() {
            [one] => one.invite,
            [] => {
                return Err(Error::not_found(
                    format!("no invite that could be revoked is called {which}"),
                    "See `altnet-provision invite list`.",
                ));
            }
            _ => {
                return Err(Error::input(
                    format!("several invites are called {which}"),
                    "Give the key of one: see `altnet-provision invite list`.",
                ));
            }
        };
        let mut issuer = self.issuer(secrets)?;
        self.change(now, |draft| {
            draft.revoke(&mut issuer, RevocationTarget::Invite(chosen), "")?;
            draft.add_head(&mut issuer)
        })?;
        self.invites(now)
            .into_iter()
            .find(|invite| invite.invite == chosen)
            .ok_or_else(|| Error::not_found("the invite is gone", "Nothing is left to do."))
    }

    /// Every invite held, revoked and ended ones too.
    pub(super) fn invite_bodies(&self) -> impl Iterator<Item = Invite> {
        let invites = self
            .registry
            .iter()
            .filter(|(slot, _)| slot.kind() == RecordKind::INVITE);
        invites.filter_map(|(_, bytes)| {
            let envelope = Envelope::parse(bytes).ok()?;
            record::decode::<Invite>(envelope.body()).ok()
        })
    }

    fn invite_summary(&self, invite: &Invite, now: UnixTime) -> InviteSummary {
        let used_by: Vec<String> = self
            .registry
            .members()
            .filter(|m| {
                m.membership
                    .invite
                    .is_some_and(|r| r.invite == invite.invite)
            })
            .map(|m| m.membership.name.to_string())
            .collect();
        let status = if self.registry.invite(&invite.invite).is_none() || invite.uses == 0 {
            InviteStatus::Revoked
        } else if used_by.len() >= usize::from(invite.uses) {
            InviteStatus::Used
        } else if now >= invite.expires {
            InviteStatus::Expired
        } else {
            InviteStatus::Open
        };
        InviteSummary {
            invite: invite.invite,
            name: invite.name.as_ref().map(ToString::to_string),
            person: invite.person.as_ref().map(ToString::to_string),
            sponsor: invite.sponsor.as_ref().map(|id| self.called(id)),
            roles: text::role_names(invite.roles),
            site: invite.site.map(SiteId::as_u16),
            uses: invite.uses,
            used_by,
            issued: invite.issued.to_string(),
            expires: super::show::when(invite.expires),
            status,
        }
    }

    /// Invites that may still let a device in.
    pub(super) fn open_invites(&self, now: UnixTime) -> impl Iterator<Item = Invite> {
        self.invite_bodies()
            .filter(move |invite| self.invite_summary(invite, now).status == InviteStatus::Open)
    }

    fn check_wish_name(&self, wish: &InviteWish, now: UnixTime) -> Result<()> {
        let Some(name) = &wish.name else {
            return Ok(());
        };
        if wish.uses > 1 {
            return Err(Error::input(
                "an invite for several devices can't name them",
                "Leave --name out, so that each device says its own, or make an invite for each.",
            ));
        }
        if self.registry.by_name(name).is_some() || self.registry.host(name).is_some() {
            return Err(Error::exists(
                format!("a member or machine is called {name} already"),
                "Choose another name, or revoke that one first.",
            ));
        }
        let mut open = self.open_invites(now);
        if open.any(|invite| invite.name.as_ref() == Some(name)) {
            return Err(Error::exists(
                format!("an open invite is for {name} already"),
                format!(
                    "Use that one, or take it back with `altnet-provision invite revoke {name}`."
                ),
            ));
        }
        Ok(())
    }

    /// The site that the invite gives: the one wished for, or the next free one for a gateway.
    fn site_for(&self, wish: &InviteWish, now: UnixTime) -> Result<Option<SiteId>> {
        let is_gateway = wish.roles.contains(Roles::GATEWAY);
        if !is_gateway {
            return Ok(wish.site);
        }
        if wish.uses > 1 {
            return Err(Error::input(
                "a site has one gateway, so an invite for a gateway has one use",
                "Make an invite for each gateway.",
            ));
        }
        let invited: Vec<SiteId> = self
            .open_invites(now)
            .filter(|invite| invite.roles.contains(Roles::GATEWAY))
            .filter_map(|invite| invite.site)
            .collect();
        let is_taken =
            |site: &SiteId| invited.contains(site) || self.registry.gateway(*site).is_some();
        if let Some(site) = wish.site {
            if is_taken(&site) {
                return Err(Error::exists(
                    format!("site {site} has a gateway or an open invite for one already"),
                    "Choose another site, or leave --site out for the next that is free.",
                ));
            }
            return Ok(Some(site));
        }
        let named: Vec<u16> = self.hosts().iter().map(|host| host.site).collect();
        (1..=SiteId::MAX)
            .filter(|id| !named.contains(id))
            .filter_map(SiteId::new)
            .find(|site| !is_taken(site))
            .map(Some)
            .ok_or_else(|| Error::exists("every site is taken", "Revoke a gateway first."))
    }

    /// The issuer at a node that countersigns: the latest provisioned whose certificate holds.
    pub(super) fn admitting_issuer(&self, roles: Roles, now: UnixTime) -> Result<SigningKey> {
        let may = |key: &SigningKey| {
            self.registry.issuer(key).is_some_and(|certificate| {
                certificate.rights.contains(Rights::ADMIT)
                    && certificate.roles.contains(roles)
                    && certificate.expires > now
            })
        };
        let mut entries = self.settings.entries.iter().rev();
        let provisioned = entries.find_map(|entry| entry.admits.filter(may));
        // One made on another owner's computer is as good: an issuer that may only countersign.
        let elsewhere = || {
            let mut issuers = self.registry.issuers();
            issuers
                .find(|c| !c.rights.contains(Rights::INVITE) && may(&c.issuer))
                .map(|c| c.issuer)
        };
        provisioned.or_else(elsewhere).ok_or_else(|| {
            Error::not_found(
                "no node could countersign this invite yet, so nobody could come in by it",
                format!("{NEEDS_RELAY} {MAKE_RELAY}"),
            )
        })
    }
}

/// Makes an invite in `draft` and its link.
pub(super) fn make_link(
    draft: &mut Draft,
    issuer: &mut altnet_core::issuer::Issuer,
    new: NewInvite,
    entries: &[SocketAddr],
) -> Result<Link> {
    let Draft {
        registry,
        clock,
        rng,
        ..
    } = draft;
    let (secret, record) = issuer
        .create_invite(registry, clock, new, Instant::ZERO, rng)
        .map_err(refused("make the invite"))?;
    Link::new(&record, entries, secret)
        .map_err(|error| Error::input(format!("cannot make the link: {error}"), "Try again."))
}

impl Draft {
    /// Revokes a member, device or invite.
    pub(super) fn revoke(
        &mut self,
        issuer: &mut altnet_core::issuer::Issuer,
        target: RevocationTarget,
        reason: &str,
    ) -> Result<()> {
        let Self {
            registry, clock, ..
        } = self;
        if registry.bytes(&Slot::revocation(&target)).is_some() && registry.is_revoked(&target) {
            return Ok(());
        }
        issuer
            .revoke(registry, clock, target, reason, Instant::ZERO)
            .map(drop)
            .map_err(refused("revoke it"))
    }
}
