//! What others may ask of this node, and what it asks of directories.
//!
//! A directory can withhold; it cannot forge. Every member answers what it can, so that two
//! of them can meet while no directory is up.

use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::id::SigningKey;
use altnet_wire::message::{
    Cursor, Find, MAX_MESSAGE_BYTES, Message, Notice, Presence, Redeem, Refusal, Reply, Request,
    SignatureHalves, operator_proof,
};
use altnet_wire::record::{Rights, Roles};
use altnet_wire::time::{Duration, Instant};

use super::intake::Carrier;
use super::membership::pack_into;
use super::peers::{Peer, serves};
use super::sessions::{Asked, Standing};
use super::{Deferred, Event, Node};
use crate::control::SessionId;
use crate::issuer;
use crate::records::verify_hash;

/// Records are handed over in pages of at most this many bytes, well below a message's bound.
const PAGE_BYTES: usize = MAX_MESSAGE_BYTES - 1024 - 64;
/// A head is signed again this often even if nothing changed, so that a stale one shows.
const HEAD_EVERY: Duration = Duration::from_secs(86_400);
/// A membership is renewed when a third of it is left.
const RENEW_AT: u64 = 10 * 86_400;
/// The first pause before what was refused is announced again; it doubles.
pub(super) const ANNOUNCE_AGAIN: Duration = Duration::from_secs(30);
const ANNOUNCE_MOST: Duration = Duration::from_secs(3600);
/// How often renewal is asked for until it succeeds.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

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
            Self::SiteTaken => Refusal::Conflict,
            Self::NoSuchMember => Refusal::NotFound,
            Self::Full => Refusal::Busy,
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
            Request::Introduce { to, presence } => {
                Some(self.introduce(standing, *to, presence, now))
            }
        }
    }

    fn admit(
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
        let name = network
            .registry
            .by_device(&redeem.device)
            .map(|member| member.membership.name.clone());
        self.records_changed(before, now);
        let reply = Reply::Redeemed { records: &records };
        self.say_after_save(session, &Message::Reply { id, reply }, now);
        if let Some(name) = name {
            self.tell(Event::Admitted { name });
        }
        None
    }

    /// An owner's computer shows that it is one.
    fn prove(
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

    fn renew(
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

    fn find(
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
    fn page(&self, revision: u64) -> (Vec<u8>, u64, bool) {
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

    fn subscribe(
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
    fn catch_up(
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
    fn introduce(
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

    // ---- What this node asks of directories ----

    /// A member's session stands: if it is a directory, it is followed, and told what is ours.
    pub(super) fn follow_directory(&mut self, session: SessionId, node: NodeId, now: Instant) {
        let is_directory = self.network.as_ref().is_some_and(|network| {
            network
                .registry
                .by_node(&node)
                .is_some_and(|member| member.membership.roles.contains(Roles::DIRECTORY))
        });
        if !is_directory {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.follows = true;
            peer.subscribe_at = None;
        }
        // A cursor is one directory's; another is asked for everything.
        let cursor = if self.cursor_of == Some(node) {
            self.cursor
        } else {
            Cursor::default()
        };
        self.ask(
            session,
            &Request::Subscribe { cursor },
            Asked::Subscribe(node),
            now,
        );
        self.announce_to(session, node, now);
    }

    /// Announces this node over the session it joined by, which ends with the answer.
    pub(super) fn introduce_own(&mut self, session: SessionId, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let records = network.pack_chain();
        let request = Request::Announce { records: &records };
        self.ask(session, &request, Asked::IntroduceOwn, now);
    }

    /// Announces what this node signed to every directory it has a session with.
    pub(super) fn announce_own(&mut self, now: Instant) {
        let sessions: Vec<(NodeId, SessionId)> = self
            .peers
            .iter()
            .filter_map(|(node, peer)| Some((*node, peer.session?)))
            .filter(|(_, session)| self.sessions.get(session).is_some_and(|s| s.greeted))
            .collect();
        for (node, session) in sessions {
            self.announce_to(session, node, now);
        }
    }

    fn announce_to(&mut self, session: SessionId, node: NodeId, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let mut records = network.pack_chain();
        for (slot, bytes) in network.registry.iter() {
            use altnet_wire::envelope::RecordKind;
            let ours = matches!(slot.kind(), RecordKind::HOST | RecordKind::APP)
                && altnet_wire::envelope::Envelope::parse(bytes)
                    .is_ok_and(|envelope| envelope.header().signer == network.own.device);
            if ours && records.len() + bytes.len() + 3 < PAGE_BYTES {
                pack_into(bytes, &mut records);
            }
        }
        let request = Request::Announce { records: &records };
        self.ask(session, &request, Asked::Announce(node), now);
    }

    /// A directory, or another member, has what we announced on its disk, but for what it
    /// refused: that is announced again later, for it may have been too much at once.
    pub(super) fn announced(&mut self, node: NodeId, refused: u16, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            if refused > 0 {
                let again = now.after(peer.announce_pause);
                let again = *peer.announce_at.get_or_insert(again);
                self.timers.housekeeping_at(again);
                return;
            }
            peer.announce_at = None;
            peer.announce_pause = ANNOUNCE_AGAIN;
        }
        // Whoever holds our newest record expects our newest key.
        if let Some(peer) = self.peers.get(&node) {
            let _ = self
                .engine
                .set_peer_local_key(peer.tunnel.index, self.local_key);
        }
        self.timers.housekeeping_at(now);
    }

    /// Records from a directory we follow.
    pub(super) fn followed(
        &mut self,
        directory: NodeId,
        records: &[u8],
        cursor: Cursor,
        more: bool,
        now: Instant,
    ) {
        self.take_records(records, Carrier::Directory, now);
        let keeps = self.cursor_of.is_none_or(|of| {
            let directory_still = self.network.as_ref().and_then(|n| n.registry.by_node(&of));
            of == directory
                || !directory_still.is_some_and(|m| m.membership.roles.contains(Roles::DIRECTORY))
        });
        if keeps && cursor != self.cursor && !records.is_empty() {
            // Never ahead of the records on disk: what it passes over isn't sent again.
            self.after_save(Deferred::Cursor(directory, cursor), now);
        }
        if let Some(peer) = self.peers.get_mut(&directory)
            && !more
            && !core::mem::replace(&mut peer.synced, true)
        {
            self.tell(Event::DirectorySynced { directory });
        }
    }

    pub(super) fn directory_lost(&mut self, directory: NodeId) {
        if let Some(peer) = self.peers.get_mut(&directory)
            && core::mem::replace(&mut peer.synced, false)
        {
            self.tell(Event::DirectoryLost { directory });
        }
    }

    /// Connects to every relay and directory there is room for, and lets go of those that
    /// are none any more.
    pub(super) fn link_relays(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let most = usize::from(self.config.limits.relays);
        let own = network.own.node;
        let servers: Vec<(NodeId, Roles)> = network
            .registry
            .servers()
            .filter(|m| m.id != own && m.node.is_some_and(|n| !n.fixed_endpoints.is_empty()))
            .map(|m| (m.id, m.membership.roles))
            .take(most)
            .collect();
        let gone: Vec<NodeId> = self
            .relays
            .keys()
            .filter(|node| {
                !servers
                    .iter()
                    .any(|(n, r)| n == *node && r.contains(Roles::RELAY))
            })
            .copied()
            .collect();
        for node in gone {
            self.relay_lost(node, now);
            self.relays.remove(&node);
        }
        for (node, peer) in &mut self.peers {
            peer.wanted = peer.wanted && servers.iter().any(|(server, _)| server == node);
        }
        for (node, roles) in servers {
            if self.meet(node, now).is_none() {
                continue;
            }
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.wanted = true;
            }
            if roles.contains(Roles::RELAY) && !self.relays.contains_key(&node) {
                let session = self.peers.get(&node).and_then(|peer| peer.session);
                let link = self.relays.entry(node).or_default();
                link.session = session.filter(|s| self.sessions.get(s).is_some_and(|s| s.greeted));
                link.renew = now;
            }
        }
        self.timers.housekeeping_at(now);
        self.publish_node(now);
    }

    // ---- Memberships and heads ----

    /// Asks for a longer membership in time, and lets go of members whose own has ended.
    pub(super) fn tend_membership(&mut self, now: Instant) {
        self.sign_head_if_due(now);
        let Some(network) = &mut self.network else {
            return;
        };
        let ended: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(node, _)| {
                network.registry.by_node(node).is_some_and(|member| {
                    self.clock.is_expired(member.membership.expires, now)
                        && !serves(member.membership.roles)
                })
            })
            .map(|(node, _)| *node)
            .collect();
        let clients: Vec<NodeId> = self
            .relay
            .clients()
            .filter(|node| {
                network
                    .registry
                    .by_node(node)
                    .is_none_or(|member| self.clock.is_expired(member.membership.expires, now))
            })
            .collect();
        for node in clients {
            self.relay.remove(node);
        }
        if !ended.is_empty() {
            self.policy.rejudge();
        }
        let Some(own) = network.registry.by_member(&network.own.member) else {
            return;
        };
        let left = own
            .membership
            .expires
            .saturating_since(self.clock.estimate(now).time());
        let due = left.as_secs() < RENEW_AT
            && (self.timers.renew_asked == Instant::ZERO
                || now.saturating_since(self.timers.renew_asked) >= RENEW_EVERY);
        let own_member = network.own.member;
        if due {
            self.timers.renew_asked = now;
            let before = network.registry.revision();
            let renewed = self.issuer.as_mut().is_some_and(|issuer| {
                issuer
                    .renew(&mut network.registry, &mut self.clock, &own_member, now)
                    .is_ok()
            });
            if renewed {
                self.records_changed(before, now);
            } else {
                self.ask_renewal(now);
            }
        }
        for node in ended {
            self.forget(node, now);
        }
    }

    fn ask_renewal(&mut self, now: Instant) {
        let sessions: Vec<SessionId> = self
            .peers
            .values()
            .filter(|peer| peer.wanted)
            .filter_map(|peer| peer.session)
            .collect();
        for session in sessions {
            self.ask(session, &Request::Renew, Asked::Renew, now);
        }
    }

    pub(super) fn renewed(&mut self, records: &[u8], now: Instant) {
        self.take_records(records, Carrier::Directory, now);
    }

    /// Signs how far the network has come here, when that changed or a day has passed.
    pub(super) fn sign_head_if_due(&mut self, now: Instant) {
        let (Some(network), Some(issuer)) = (&mut self.network, &mut self.issuer) else {
            return;
        };
        let summary = network.registry.summary();
        let key = issuer.public();
        let newest = network
            .registry
            .heads()
            .find(|(signer, _, _)| *signer == key);
        let says_so = newest.is_some_and(|(_, _, head)| {
            head.revocations == summary.revocations
                && head.policy == summary.policy
                && head.owner_serial == summary.owner_serial
        });
        let fresh = now.saturating_since(self.timers.head_signed) < HEAD_EVERY;
        if says_so && fresh {
            return;
        }
        let may = network.registry.issuer(&key).is_some_and(|certificate| {
            certificate
                .rights
                .intersects(Rights::ADMIT | Rights::INVITE | Rights::REVOKE)
        });
        if !may {
            return;
        }
        self.timers.head_signed = now;
        if issuer
            .head(&mut network.registry, &mut self.clock, now)
            .is_ok()
        {
            self.save_records();
            self.after_save(Deferred::Push, now);
        }
    }

    /// Whether who is there may ask as a member: its membership has not ended.
    fn is_current(&self, standing: Standing, now: Instant) -> bool {
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

    /// Announces again to those that refused something.
    pub(super) fn tend_announcements(&mut self, now: Instant) {
        let due = |peer: &Peer| peer.announce_at.is_some_and(|at| at <= now);
        while let Some((node, peer)) = self.peers.iter_mut().find(|(_, peer)| due(peer)) {
            let node = *node;
            peer.announce_at = None;
            peer.announce_pause = (peer.announce_pause * 2).min(ANNOUNCE_MOST);
            if let Some(session) = self.stands(node) {
                self.announce_to(session, node, now);
            }
        }
        let next = self.peers.values().filter_map(|peer| peer.announce_at);
        if let Some(next) = next.min() {
            self.timers.housekeeping_at(next);
        }
    }

    /// Asks directories again that were busy.
    pub(super) fn tend_subscriptions(&mut self, now: Instant) {
        let due: Vec<(NodeId, SessionId)> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.subscribe_at.is_some_and(|at| at <= now))
            .filter_map(|(node, peer)| Some((*node, peer.session?)))
            .collect();
        for (node, session) in due {
            self.follow_directory(session, node, now);
        }
    }
}
