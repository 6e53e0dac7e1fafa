//! What others may ask of this node.
//!
//! A directory can withhold; it cannot forge. Every member answers what it can, so that two of
//! them can meet while no directory is up.

use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::id::SigningKey;
use altnet_wire::message::{
    Cursor, Find, MAX_MESSAGE_BYTES, Message, Notice, Presence, Redeem, Refusal, Reply, Request,
    SignatureHalves, operator_proof,
};
use altnet_wire::time::Instant;

use super::intake::Carrier;
use super::membership::pack_into;
use super::renewal::RENEW_AT;
use super::sessions::Standing;
use super::{Event, Node};
use crate::control::SessionId;
use crate::issuer;
use crate::records::verify_hash;
use crate::registry::Unfit;

/// Records are handed over in pages of at most this many bytes, well below a message's bound.
pub(super) const PAGE_BYTES: usize = MAX_MESSAGE_BYTES - 1024 - 64;

impl issuer::Refusal {
    /// As it is said to the asker.
    pub(super) const fn to_wire(self) -> Refusal {
        match self {
            Self::Damaged => Refusal::Damaged,
            Self::Altered => Refusal::InviteAltered,
            Self::OtherNetwork => Refusal::OtherNetwork,
            Self::OtherIssuer => Refusal::OtherIssuer,
            Self::Expired => Refusal::InviteExpired,
            Self::Revoked => Refusal::InviteRevoked,
            Self::UsedUp => Refusal::InviteUsedUp,
            Self::DeviceRevoked => Refusal::Revoked,
            Self::NameTaken => Refusal::NameTaken,
            Self::DeviceTaken => Refusal::AlreadyMember,
            Self::SiteTaken => Refusal::Conflict,
            Self::NoSuchMember => Refusal::NotFound,
            Self::Full => Refusal::Busy,
            Self::Sponsor(Unfit::Full { .. }) => Refusal::SponsorFull,
            Self::Sponsor(_) => Refusal::NotSponsored,
            _ => Refusal::NotAllowed,
        }
    }
}

impl<A: Aead> Node<A> {
    /// Answers a request; none if the answer is sent later or was sent already.
    pub(super) fn handle_request(
        &mut self,
        session: SessionId,
        id: u32,
        from: Endpoint,
        request: &Request<'_>,
        now: Instant,
    ) -> Option<Reply<'static>> {
        let standing = self.standing(session);
        let state = self.sessions.get(&session)?;
        let (handshake, remote) = (state.handshake, state.remote);
        if self.network.is_none() {
            return Some(Reply::Refused(Refusal::NotAllowed));
        }
        match request {
            Request::Redeem(redeem) => {
                if redeem.control != remote {
                    return Some(Reply::Refused(Refusal::InviteAltered));
                }
                self.admit(session, id, redeem, &handshake, now)
            }
            Request::Prove { key, proof } => {
                let hash = operator_proof(&handshake, key);
                Some(self.prove(session, key, proof, &hash))
            }
            Request::Announce { records } => {
                // Records prove themselves, whoever carries them.
                let carrier = match standing {
                    Standing::Stranger => Carrier::Stranger,
                    _ => Carrier::Member,
                };
                let (held, refused) = self.take_records(records, carrier, now);
                let reply = Reply::Announced { held, refused };
                self.say_after_save(session, &Message::Reply { id, reply }, now);
                None
            }
            _ if standing == Standing::Stranger => Some(Reply::Refused(Refusal::NotAllowed)),
            Request::Renew => self.renew(session, id, standing, now),
            _ if !self.is_current(standing, now) => Some(Reply::Refused(Refusal::NotAllowed)),
            Request::Find(find) => self.find(session, id, find, now),
            Request::Subscribe { cursor } => self.subscribe(session, id, *cursor, now),
            Request::Catch { heads: _, cursor } => self.catch_up(session, id, *cursor, now),
            Request::Register => match standing {
                Standing::Member(node) => Some(self.register(session, node, from, now)),
                _ => Some(Reply::Refused(Refusal::NotAllowed)),
            },
            Request::Meet { with } => match standing {
                Standing::Member(node) => Some(self.meet_clients(node, *with, now)),
                _ => Some(Reply::Refused(Refusal::NotAllowed)),
            },
            Request::Knock { key } => match standing {
                Standing::Member(node) => Some(self.knock_wanted(node, *key, now)),
                _ => Some(Reply::Refused(Refusal::NotAllowed)),
            },
            Request::KnockFor { who, at, proof } => match standing {
                Standing::Member(relay) => Some(self.knock_for(relay, *who, *at, *proof, now)),
                _ => Some(Reply::Refused(Refusal::NotAllowed)),
            },
            Request::Introduce { to, presence } => {
                Some(self.introduce(standing, *to, presence, now))
            }
            Request::Witness {
                head,
                from,
                digests,
                is_all,
            } => Some(self.witness(standing, head, *from, digests, *is_all, now)),
        }
    }

    pub(super) fn admit(
        &mut self,
        session: SessionId,
        id: u32,
        redeem: &Redeem<'_>,
        handshake: &altnet_wire::hash::Hash,
        now: Instant,
    ) -> Option<Reply<'static>> {
        let network = self.network.as_mut()?;
        let Some(issuer) = &mut self.issuer else {
            return Some(Reply::Refused(Refusal::OtherIssuer));
        };
        let before = network.registry.revision();
        let admitted = issuer.redeem(
            &mut network.registry,
            &mut self.clock,
            redeem,
            handshake,
            now,
            &mut self.rng,
        );
        if let Err(refusal) = admitted {
            let why = refusal.to_wire();
            self.tell(Event::NotAdmitted { why });
            return Some(Reply::Refused(why));
        }
        let mut records = Vec::new();
        network.registry.chain_for(&redeem.device, &mut |record| {
            pack_into(record, &mut records);
        });
        network
            .registry
            .chain_for(&network.own.device, &mut |record| {
                pack_into(record, &mut records);
            });
        let registry = &network.registry;
        let admitted = registry.by_device(&redeem.device).map(|member| {
            let sponsor = member.membership.sponsor.as_ref();
            let sponsor = sponsor.and_then(|sponsor| registry.by_member(sponsor));
            (
                member.membership.name.clone(),
                sponsor.map(|sponsor| sponsor.membership.name.clone()),
            )
        });
        self.records_changed(before, now);
        let reply = Reply::Redeemed { records: &records };
        self.say_after_save(session, &Message::Reply { id, reply }, now);
        if let Some((name, sponsor)) = admitted {
            self.tell(Event::Admitted { name, sponsor });
        }
        None
    }

    /// An owner's computer shows that it is one.
    pub(super) fn prove(
        &mut self,
        session: SessionId,
        key: &SigningKey,
        proof: &SignatureHalves,
        hash: &altnet_wire::hash::Hash,
    ) -> Reply<'static> {
        let known = self.network.as_ref().is_some_and(|network| {
            network.registry.owners().contains(key) || network.registry.is_issuer(key)
        });
        let mut signature = [0; 64];
        signature.copy_from_slice(proof.as_flattened());
        if !known || verify_hash(key, hash, &signature).is_err() {
            return Reply::Refused(Refusal::NotAllowed);
        }
        if let Some(state) = self.sessions.get_mut(&session) {
            state.standing = Standing::Operator(*key);
        }
        Reply::Done
    }

    pub(super) fn renew(
        &mut self,
        session: SessionId,
        id: u32,
        standing: Standing,
        now: Instant,
    ) -> Option<Reply<'static>> {
        let Standing::Member(node) = standing else {
            return Some(Reply::Refused(Refusal::NotAllowed));
        };
        let network = self.network.as_mut()?;
        let Some(issuer) = &mut self.issuer else {
            return Some(Reply::Refused(Refusal::OtherIssuer));
        };
        let Some(member) = network.registry.by_node(&node).map(|m| m.membership.member) else {
            return Some(Reply::Refused(Refusal::NotFound));
        };
        let before = network.registry.revision();
        let time = self.clock.estimate(now).time();
        let held = network.registry.by_member(&member);
        let left = held.map(|m| m.membership.expires.saturating_since(time).as_secs());
        if left.is_some_and(|left| left >= RENEW_AT) {
            // Early: the one it has will do, and costs nobody a write.
            let slot = crate::registry::Slot::membership(member);
            let mut records = Vec::new();
            if let Some(bytes) = network.registry.bytes(&slot) {
                pack_into(bytes, &mut records);
            }
            let reply = Reply::Redeemed { records: &records };
            self.say(session, &Message::Reply { id, reply }, now);
            return None;
        }
        match issuer.renew(&mut network.registry, &mut self.clock, &member, now) {
            Ok(membership) => {
                let mut records = Vec::new();
                pack_into(&membership, &mut records);
                self.records_changed(before, now);
                let reply = Reply::Redeemed { records: &records };
                self.say_after_save(session, &Message::Reply { id, reply }, now);
                None
            }
            Err(refusal) => Some(Reply::Refused(refusal.to_wire())),
        }
    }

    pub(super) fn find(
        &mut self,
        session: SessionId,
        id: u32,
        find: &Find,
        now: Instant,
    ) -> Option<Reply<'static>> {
        let registry = &self.network.as_ref()?.registry;
        let member = match find {
            Find::Address(address) => registry
                .by_address(*address)
                .and_then(|subject| subject.member().copied()),
            Find::Name(name) => registry.by_name(name).or_else(|| {
                let address = registry.host(name)?.record.address?;
                registry.by_address(address)?.member().copied()
            }),
            Find::Member(member) => registry.by_member(member),
            Find::Device(device) => registry.by_device(device),
        };
        let Some(member) = member else {
            return Some(Reply::Refused(Refusal::NotFound));
        };
        let mut records = Vec::new();
        registry.chain_for(&member.membership.device, &mut |record| {
            pack_into(record, &mut records);
        });
        let named = match find {
            Find::Name(name) => registry.host(name),
            _ => None,
        };
        if let Some(host) = named {
            let slot = crate::registry::Slot::host(host.record.site, &host.record.name);
            if let Some(bytes) = registry.bytes(&slot) {
                pack_into(bytes, &mut records);
            }
        }
        let reply = Reply::Records {
            records: &records,
            cursor: Cursor::default(),
            more: false,
        };
        self.say(session, &Message::Reply { id, reply }, now);
        None
    }

    /// One page of what changed after `revision`, and the revision it brings a reader to.
    pub(super) fn page(&self, revision: u64) -> (Vec<u8>, u64, bool) {
        let mut records = Vec::new();
        let Some(network) = &self.network else {
            return (records, revision, false);
        };
        let mut reached = revision;
        for (at, _, bytes) in network.registry.changes_since(revision) {
            if !records.is_empty() && records.len() + bytes.len() + 3 > PAGE_BYTES {
                return (records, reached, true);
            }
            pack_into(bytes, &mut records);
            reached = at;
        }
        (records, network.registry.revision().max(reached), false)
    }

    pub(super) fn subscribe(
        &mut self,
        session: SessionId,
        id: u32,
        cursor: Cursor,
        now: Instant,
    ) -> Option<Reply<'static>> {
        let followers = self
            .sessions
            .values()
            .filter(|s| s.follows.is_some())
            .count();
        if followers >= usize::from(self.config.limits.subscriptions) {
            return Some(Reply::Refused(Refusal::Busy));
        }
        let reached = self.network.as_ref()?.registry.revision();
        let is_ours = cursor.epoch == self.directory_epoch && cursor.revision <= reached;
        let from = if is_ours { cursor.revision } else { 0 };
        let (records, revision, more) = self.page(from);
        let reply = Reply::Records {
            records: &records,
            cursor: Cursor {
                epoch: self.directory_epoch,
                revision,
            },
            more,
        };
        let sent = self.say(session, &Message::Reply { id, reply }, now);
        if let (Some(state), Some(sent)) = (self.sessions.get_mut(&session), sent) {
            state.follows = Some(revision);
            state.pushing = Some(sent);
        }
        None
    }

    /// Sends followers what is new to them, a page at a time each.
    pub(super) fn push_changes(&mut self, now: Instant) {
        let Some(revision) = self.network.as_ref().map(|n| n.registry.revision()) else {
            return;
        };
        let behind: Vec<(SessionId, u64)> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.pushing.is_none())
            .filter_map(|(id, s)| Some((*id, s.follows.filter(|at| *at < revision)?)))
            .collect();
        for (session, from) in behind {
            let (records, reached, _) = self.page(from);
            let notice = Notice::Changed {
                records: &records,
                cursor: Cursor {
                    epoch: self.directory_epoch,
                    revision: reached,
                },
            };
            let sent = self.say(session, &Message::Notice(notice), now);
            if let (Some(state), Some(sent)) = (self.sessions.get_mut(&session), sent) {
                state.follows = Some(reached);
                state.pushing = Some(sent);
            }
        }
    }

    /// Gives a peer that is behind a page of the revocations, policy and heads, and who signed
    /// them.
    pub(super) fn catch_up(
        &mut self,
        session: SessionId,
        id: u32,
        cursor: Cursor,
        now: Instant,
    ) -> Option<Reply<'static>> {
        use altnet_wire::envelope::RecordKind;
        const WANTED: [RecordKind; 5] = [
            RecordKind::OWNER_CHANGE,
            RecordKind::ISSUER_CERTIFICATE,
            RecordKind::REVOCATION,
            RecordKind::POLICY,
            RecordKind::NETWORK_HEAD,
        ];
        let network = self.network.as_ref()?;
        let mut records = Vec::new();
        let mut more = false;
        let goes_on = cursor.epoch == self.directory_epoch;
        let mut reached = if goes_on { cursor.revision } else { u64::MAX };
        // The newest first: what the asker lacks is likely among them.
        for (at, slot, bytes) in network.registry.changes_before(reached) {
            if !WANTED.contains(&slot.kind()) {
                continue;
            }
            if records.len() + bytes.len() + 3 > PAGE_BYTES {
                more = true;
                break;
            }
            pack_into(bytes, &mut records);
            reached = at;
        }
        let reply = Reply::Records {
            records: &records,
            cursor: Cursor {
                epoch: self.directory_epoch,
                revision: reached,
            },
            more,
        };
        self.say(session, &Message::Reply { id, reply }, now);
        None
    }

    /// Passes a member's presence on to another that this node has a session with.
    pub(super) fn introduce(
        &mut self,
        standing: Standing,
        to: NodeId,
        presence: &Presence,
        now: Instant,
    ) -> Reply<'static> {
        let Standing::Member(from) = standing else {
            return Reply::Refused(Refusal::NotAllowed);
        };
        let session = self.peers.get(&to).and_then(|peer| peer.session);
        let session = session.filter(|s| self.sessions.get(s).is_some_and(|s| s.greeted));
        let (Some(session), Some(network)) = (session, &self.network) else {
            return Reply::Refused(Refusal::NotFound);
        };
        let Some(device) = network.registry.by_node(&from).map(|m| m.membership.device) else {
            return Reply::Refused(Refusal::NotAllowed);
        };
        let mut chain = Vec::new();
        network.registry.chain_for(&device, &mut |record| {
            pack_into(record, &mut chain);
        });
        let notice = Notice::Introduced {
            chain: &chain,
            presence: presence.clone(),
        };
        match self.say(session, &Message::Notice(notice), now) {
            Some(_) => Reply::Done,
            None => Reply::Refused(Refusal::Busy),
        }
    }

    /// Whether who is there may ask as a member: its membership has not ended.
    pub(super) fn is_current(&self, standing: Standing, now: Instant) -> bool {
        match standing {
            Standing::Stranger => false,
            Standing::Operator(_) => true,
            Standing::Member(node) => self
                .network
                .as_ref()
                .and_then(|network| network.registry.by_node(&node))
                .is_some_and(|m| !self.clock.is_expired(m.membership.expires, now)),
        }
    }
}
