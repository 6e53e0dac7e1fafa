//! Invites that this node makes for its member, and who brought whom in (ADR 0009).
//!
//! In: what a person asks. Out: the link, whose secret half is kept nowhere. Whether policy lets
//! the member invite is looked up first, and once more by the issuer when somebody comes.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::id::{Name, SigningKey};
use altnet_wire::record::{Invite, Rights};
use altnet_wire::time::{Duration, Instant, UnixTime};

use super::view::{InviteView, MemberView};
use super::{CommandError, Deferred, Network, Node};
use crate::invite::{Link, MAX_ENTRIES};
use crate::issuer::{NewSponsored, close_sponsored, create_sponsored};

/// Letters of an invite's key that are enough to name it.
const SHORT: usize = 4;

impl<A: Aead> Node<A> {
    /// Makes an invite for `uses` devices, or for one that is to be called `name`. It gives what
    /// the policy's line about sponsors says and nothing else.
    ///
    /// # Errors
    /// [`CommandError`], and nothing was changed: [`CommandError::Invite`] says what policy does
    /// not let this member do.
    pub fn create_invite(
        &mut self,
        name: Option<Name>,
        uses: u16,
        lasts: Duration,
        now: Instant,
    ) -> Result<Link, CommandError> {
        let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
        if name.is_some() && uses > 1 {
            return Err(CommandError::NameForMany);
        }
        let registry = &network.registry;
        let is_taken = |name| registry.by_name(name).is_some() || registry.host(name).is_some();
        if name.as_ref().is_some_and(is_taken) {
            return Err(CommandError::NameTaken);
        }
        let entries = self.entries();
        if entries.is_empty() {
            return Err(CommandError::NoEntry);
        }
        let time = self.clock.estimate(now).time();
        let issuer = self.countersigner(time).ok_or(CommandError::NoEntry)?;
        let network = self.network.as_mut().ok_or(CommandError::NotMember)?;
        let before = network.registry.revision();
        let new = NewSponsored {
            issuer,
            name,
            uses,
            lasts,
        };
        let (secret, record) = create_sponsored(
            &mut network.registry,
            &mut self.clock,
            &self.identity.device,
            new,
            now,
            &mut self.rng,
        )?;
        self.invites_changed(before, now);
        // What was just signed for this secret is an invite.
        Link::new(&record, &entries, secret).map_err(|_| CommandError::NoEntry)
    }

    /// Takes an invite back that this node made: by its key, the beginning of its key, or the name
    /// it was made for.
    ///
    /// # Errors
    /// [`CommandError::NoSuchInvite`] if there is none, or several.
    pub fn close_invite(&mut self, which: &str, now: Instant) -> Result<InviteView, CommandError> {
        let all = self.invite_views(now);
        let fits = |view: &&InviteView| {
            let is_open = view.status != "closed";
            let is_key = which.len() >= SHORT && view.invite.starts_with(which);
            is_open && (is_key || view.name.as_deref() == Some(which))
        };
        let mut found = all.iter().filter(fits);
        let (Some(view), None) = (found.next(), found.next()) else {
            return Err(CommandError::NoSuchInvite);
        };
        let network = self.network.as_mut().ok_or(CommandError::NotMember)?;
        let before = network.registry.revision();
        let key: SigningKey = view
            .invite
            .parse()
            .map_err(|_| CommandError::NoSuchInvite)?;
        close_sponsored(
            &mut network.registry,
            &mut self.clock,
            &self.identity.device,
            &key,
        )?;
        self.invites_changed(before, now);
        Ok(InviteView {
            status: "closed".into(),
            ..view.clone()
        })
    }

    fn invites_changed(&mut self, before: u64, now: Instant) {
        self.records_changed(before, now);
        self.after_save(Deferred::Announce, now);
    }

    /// The invites that this node made.
    pub fn invite_views(&self, now: Instant) -> Vec<InviteView> {
        let Some(network) = &self.network else {
            return Vec::new();
        };
        let view = |invite: &Invite| {
            let came = network.came_by(invite);
            let status = match network.registry.invite(&invite.invite) {
                _ if invite.uses == 0 => "closed",
                None => "not-allowed",
                Some(_) if came.len() >= usize::from(invite.uses) => "used",
                Some(_) if self.clock.is_expired(invite.expires, now) => "expired",
                Some(_) => "open",
            };
            InviteView {
                invite: invite.invite.to_string(),
                name: invite.name.as_ref().map(Name::to_string),
                groups: invite.groups.iter().map(Name::to_string).collect(),
                uses: invite.uses,
                used_by: came,
                expires: invite.expires.to_string(),
                status: status.into(),
            }
        };
        let own = network.registry.invites_by(&network.own.device);
        own.map(view).collect()
    }

    /// Every member and who brought it in.
    pub fn member_views(&self) -> Vec<MemberView> {
        let Some(network) = &self.network else {
            return Vec::new();
        };
        let registry = &network.registry;
        let name = |id| {
            let member = registry.by_member(id);
            member.map_or_else(|| id.to_string(), |m| m.membership.name.to_string())
        };
        let members = registry.members().map(|member| {
            let m = member.membership;
            let groups = registry.as_counted(m).groups.iter();
            MemberView {
                member: m.member.to_string(),
                name: m.name.to_string(),
                person: m.person.as_ref().map(Name::to_string),
                groups: groups.map(Name::to_string).collect(),
                sponsor: m.sponsor.as_ref().map(name),
            }
        });
        members.collect()
    }

    /// The issuer that an invite is best redeemed at: this node's own if others reach it, else the
    /// one of those that countersign which was heard of last.
    fn countersigner(&self, time: UnixTime) -> Option<SigningKey> {
        let registry = &self.network.as_ref()?.registry;
        let own = self.issuer.as_ref().map(crate::issuer::Issuer::public);
        let is_reached = !self.fixed_endpoints().is_empty();
        let last = |issuer: &SigningKey| {
            let mut heads = registry.heads();
            let head = heads.find(|(signer, ..)| signer == issuer);
            head.map(|(.., head)| head.issued)
        };
        let issuers = registry.issuers().filter(|certificate| {
            let rights = certificate.rights;
            // Who may invite is an owner's computer, which is seldom up.
            let is_porter = rights.contains(Rights::ADMIT) && !rights.contains(Rights::INVITE);
            is_porter && certificate.expires > time
        });
        let keys = issuers.map(|certificate| certificate.issuer);
        keys.max_by_key(|key| (is_reached && own == Some(*key), last(key)))
    }

    /// Where a newcomer may knock: this node if it countersigns, then the servers this node has a
    /// session with, then the others.
    fn entries(&self) -> heapless::Vec<SocketAddr, MAX_ENTRIES> {
        let mut entries = heapless::Vec::new();
        let Some(network) = &self.network else {
            return entries;
        };
        let own = match self.issuer {
            Some(_) => self.fixed_endpoints(),
            None => heapless::Vec::new(),
        };
        let mut add = |endpoints: &[SocketAddr]| {
            for endpoint in endpoints {
                if !entries.contains(endpoint) {
                    // What there is no room for is left out.
                    let _ = entries.push(*endpoint);
                }
            }
        };
        add(&own);
        for is_up in [true, false] {
            for server in network.registry.servers() {
                let is_other = server.id != network.own.node;
                if is_other && self.stands(server.id).is_some() == is_up {
                    add(server.node.map_or(&[], |node| &node.fixed_endpoints));
                }
            }
        }
        entries
    }
}

impl Network {
    /// The names of those who came in by an invite.
    fn came_by(&self, invite: &Invite) -> Vec<String> {
        let members = self.registry.members().map(|member| member.membership);
        let came = members.filter(|m| m.invite.is_some_and(|r| r.invite == invite.invite));
        came.map(|m| m.name.to_string()).collect()
    }
}
