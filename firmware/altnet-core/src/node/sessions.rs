//! Control sessions: who is at the other end, what was asked, what is pushed.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::audit::AuditHead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::frame::Frame;
use altnet_wire::hash::Hash;
use altnet_wire::id::{ControlKey, NodeId, SigningKey};
use altnet_wire::message::{
    self, Cursor, Hello, MAX_MESSAGE_BYTES, Message, Notice, Packed, Refusal, Reply, Request,
};
use altnet_wire::record::{self, Membership, RevocationTarget};
use altnet_wire::time::{Duration, Instant};

use super::intake::Carrier;
use super::membership::pack_into;
use super::turn::Side;
use super::{DropReason, Event, Node, Verdict};
use crate::control::{CloseReason, ClosedWhy, ControlEvent, MessageId, Pattern, SessionId};
use crate::path::search::Run;
use crate::registry::Slot as RecordSlot;

/// How long after a directory was too busy it is asked again.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(60);
/// How often at most a session's other side is asked whether it is where it was heard from.
const ASK_PAUSE: Duration = Duration::from_millis(200);
/// Requests of one session that may wait for a reply at a time.
const ASKED: usize = 16;

/// Who is at the other end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The holder of some control key, no more.
    Stranger,
    /// An owner's computer: it proved to hold this owner's or issuer's key.
    Operator(SigningKey),
    /// A current member.
    Member(NodeId),
}

/// What a reply is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// To be forwarded to by this relay.
    Register(NodeId),
    /// To follow this directory.
    Subscribe(NodeId),
    /// To have own records kept, all that was said of machines up to that count.
    Announce(NodeId, u32),
    /// What a peer has newer: so many pages of it.
    Catch(NodeId, u8),
    /// To have own records kept by who let this node in.
    IntroduceOwn,
    /// To be let in.
    Redeem,
    /// A membership for longer.
    Renew,
    /// To be introduced.
    Introduce,
    /// To meet a peer by a relay that serves both.
    Meet,
    /// To be knocked at by this relay.
    Knock(NodeId),
    /// To knock at this client of ours.
    KnockFor(NodeId),
    /// To have our audit log countersigned up to this head, and whether that is all of it.
    Witness(AuditHead, bool),
}

/// One established session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) remote: ControlKey,
    pub(super) standing: Standing,
    pub(super) handshake: Hash,
    /// Whether the other side has said who it is.
    pub(super) greeted: bool,
    /// Whether this node has said who it is.
    introduced: bool,
    /// Where a client seems to have moved to; it is challenged there before it is believed.
    pub(super) moving: Option<Endpoint>,
    /// When it was last asked whether it is where it was heard from.
    asked_there: Instant,
    /// What the other side follows of this directory: the revision it was sent up to.
    pub(super) follows: Option<u64>,
    /// A push that isn't acknowledged yet; the next waits for it.
    pub(super) pushing: Option<MessageId>,
    asked: BTreeMap<u32, Asked>,
    next_request: u32,
}

impl Session {
    /// Whether the other side may be asked now whether it is where it was heard from.
    fn may_ask(&mut self, now: Instant) -> bool {
        let may = now.saturating_since(self.asked_there) >= ASK_PAUSE;
        if may {
            self.asked_there = now;
        }
        may
    }
}

/// A message's bytes; none if there are more than a message may have.
fn encoded(message: &Message<'_>) -> Option<Vec<u8>> {
    let length = message::encoded_len(message);
    let mut out = alloc::vec![0; length.min(MAX_MESSAGE_BYTES)];
    message::encode(message, &mut out)?;
    Some(out)
}

impl<A: Aead> Node<A> {
    /// A control datagram.
    pub(super) fn handle_control(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let network = self.network.as_ref();
        let mut admit = |key: &ControlKey| {
            network.is_some_and(|network| network.registry.member_by_control(key).is_some())
        };
        self.control
            .handle_datagram(from, frame.packet(), &mut admit, now)
            .map(|()| Verdict::Consumed)
            .map_err(|_| DropReason::Control)
    }

    /// What the control machine tells.
    pub(super) fn handle_control_event(&mut self, event: ControlEvent, now: Instant) {
        match event {
            ControlEvent::Established {
                session,
                remote,
                pattern,
                initiator,
                handshake,
                ..
            } => {
                let standing = self.standing_of(&remote);
                self.sessions.insert(
                    session,
                    Session {
                        remote,
                        standing,
                        handshake,
                        greeted: false,
                        introduced: false,
                        moving: None,
                        asked_there: Instant::ZERO,
                        follows: None,
                        pushing: None,
                        asked: BTreeMap::new(),
                        next_request: 0,
                    },
                );
                // Whoever was called by a stranger waits until it has named our network: a
                // chain shows names and addresses.
                if initiator || pattern == Pattern::Ik {
                    self.greet(session, now);
                }
            }
            ControlEvent::Message {
                session,
                from,
                bytes,
            } => self.handle_message(session, from, &bytes, now),
            ControlEvent::Delivered { session, message } => {
                if let Some(state) = self.sessions.get_mut(&session)
                    && state.pushing == Some(message)
                {
                    state.pushing = None;
                    self.push_changes(now);
                }
            }
            ControlEvent::PathAnswered {
                session,
                endpoint,
                rtt,
                observed,
            } => self.path_answered(session, endpoint, rtt, observed, now),
            ControlEvent::Probed {
                session,
                endpoint,
                bytes,
                takes_pieces,
                rtt,
                observed,
            } => {
                self.path_answered(session, endpoint, rtt, observed, now);
                if let Some(node) = self.member_at(session) {
                    self.size_answered(node, endpoint, (bytes, takes_pieces), now);
                }
            }
            ControlEvent::Heard { session, from } => self.session_heard(session, from, now),
            ControlEvent::Failed { session, .. } => self.session_ended(session, now),
            ControlEvent::Closed { session, why } => {
                if why == ClosedWhy::Remote(CloseReason::NotAllowed) {
                    self.join_not_allowed(session, now);
                }
                self.session_ended(session, now);
            }
        }
    }

    /// Who holds a control key, as far as records tell.
    fn standing_of(&self, remote: &ControlKey) -> Standing {
        self.network
            .as_ref()
            .and_then(|network| network.registry.member_by_control(remote))
            .map_or(Standing::Stranger, Standing::Member)
    }

    /// Who is at the other end, as records have it at this moment: standing ends with what it
    /// rests on.
    pub(super) fn standing(&self, session: SessionId) -> Standing {
        let (Some(state), Some(network)) = (self.sessions.get(&session), &self.network) else {
            return Standing::Stranger;
        };
        let holds = match state.standing {
            Standing::Stranger => false,
            Standing::Operator(key) => {
                network.registry.owners().contains(&key) || network.registry.is_issuer(&key)
            }
            Standing::Member(node) => {
                network.registry.member_by_control(&state.remote) == Some(node)
            }
        };
        if holds {
            state.standing
        } else {
            Standing::Stranger
        }
    }

    /// The member at the other end of a session.
    fn member_at(&self, session: SessionId) -> Option<NodeId> {
        match self.standing(session) {
            Standing::Member(node) => Some(node),
            _ => None,
        }
    }

    /// Says who we are, once.
    fn greet(&mut self, session: SessionId, now: Instant) {
        match self.sessions.get_mut(&session) {
            Some(state) if !state.introduced => state.introduced = true,
            _ => return,
        }
        // Before the Hello, which lets packets through.
        self.tell_logins_to(session, now);
        let Some(network) = &self.network else {
            if let Some(joining) = &self.joining
                && joining.session == Some(session)
            {
                let hello = Hello {
                    network: joining.network,
                    chain: &[],
                    heads: heapless::Vec::new(),
                };
                self.say(session, &Message::Hello(hello), now);
            }
            return;
        };
        let chain = network.pack_chain();
        let hello = Hello {
            network: network.registry.network(),
            chain: &chain,
            heads: network.heads(),
        };
        if let Some(bytes) = encoded(&Message::Hello(hello)) {
            let _ = self.control.send(session, &bytes, now);
        }
    }

    fn handle_message(&mut self, session: SessionId, from: Endpoint, bytes: &[u8], now: Instant) {
        let Ok(message) = message::decode(bytes) else {
            self.counters.drop(DropReason::Control);
            return;
        };
        match message {
            Message::Hello(hello) => self.handle_hello(session, &hello, now),
            Message::Request { id, request } => {
                if let Some(reply) = self.handle_request(session, id, from, &request, now) {
                    self.say(session, &Message::Reply { id, reply }, now);
                }
            }
            Message::Reply { id, reply } => {
                let asked = self
                    .sessions
                    .get_mut(&session)
                    .and_then(|state| state.asked.remove(&id));
                if let Some(asked) = asked {
                    self.handle_reply(session, asked, &reply, now);
                }
            }
            Message::Notice(notice) => self.handle_notice(session, from, &notice, now),
        }
    }

    fn handle_hello(&mut self, session: SessionId, hello: &Hello<'_>, now: Instant) {
        if self.join_hello(session, hello, now) {
            return;
        }
        let Some(network) = &self.network else {
            return;
        };
        if hello.network == record::recovery_hint(&network.registry.recovery()) {
            // Somebody who lost everything but the paper: shown how the network began.
            self.greet(session, now);
            return;
        }
        if hello.network != network.registry.network() {
            self.end_session(session, CloseReason::NotAllowed, now);
            return;
        }
        self.greet(session, now);
        let carrier = match self.standing(session) {
            Standing::Stranger => Carrier::Stranger,
            _ => Carrier::Member,
        };
        if self.sessions.get(&session).is_none_or(|s| s.greeted) {
            // Said once already; saying it again costs us more than them.
            return;
        }
        self.take_records(hello.chain, carrier, now);
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        let remote = state.remote;
        state.greeted = true;
        let Some(node) = self
            .network
            .as_ref()
            .and_then(|network| network.registry.member_by_control(&remote))
        else {
            self.tell_verdict(session, hello.chain, now);
            return;
        };
        state.standing = Standing::Member(node);
        let meant = self
            .peers
            .iter()
            .find(|(_, peer)| peer.session == Some(session));
        if meant.is_some_and(|(meant, _)| *meant != node) {
            // Somebody else answers at that address: the network's, but not who was called.
            self.end_session(session, CloseReason::Done, now);
            return;
        }
        self.member_arrived(session, node, now);
        self.logins_greeted(node, now);
        self.compare_heads(session, node, &hello.heads, now);
    }

    /// Shows somebody who was revoked while nobody could tell it the record that says so.
    fn tell_verdict(&mut self, session: SessionId, chain: &[u8], now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let membership = Packed(chain).find_map(|bytes| {
            let envelope = Envelope::parse(bytes).ok()?;
            let is_one = envelope.header().kind == RecordKind::MEMBERSHIP;
            is_one.then(|| record::decode::<Membership>(envelope.body()).ok())?
        });
        let Some(membership) = membership else {
            return;
        };
        let mut records = Vec::new();
        for target in [
            RevocationTarget::Member(membership.member),
            RevocationTarget::Device(membership.device),
        ] {
            if let Some(bytes) = network.registry.bytes(&RecordSlot::revocation(&target)) {
                pack_into(bytes, &mut records);
            }
        }
        if !records.is_empty() {
            let notice = Notice::Changed {
                records: &records,
                cursor: Cursor::default(),
            };
            self.say(session, &Message::Notice(notice), now);
        }
    }

    fn handle_reply(&mut self, session: SessionId, asked: Asked, reply: &Reply<'_>, now: Instant) {
        match (asked, reply) {
            (Asked::Redeem, reply) => self.join_reply(session, reply, now),
            (
                Asked::Register(relay),
                Reply::Registered {
                    token,
                    observed,
                    lifetime_s,
                },
            ) => self.registered(relay, *token, *observed, *lifetime_s, now),
            (
                Asked::Subscribe(directory),
                Reply::Records {
                    records,
                    cursor,
                    more,
                },
            ) => self.followed(directory, records, *cursor, *more, now),
            (Asked::Register(relay), Reply::Refused(Refusal::NotAllowed)) => {
                self.unregistered(relay, now);
            }
            (Asked::Catch(node, pages), reply) => self.caught(session, node, pages, reply, now),
            (Asked::IntroduceOwn, _) => {
                self.end_session(session, CloseReason::Done, now);
                self.retry_servers(now);
            }
            (Asked::Subscribe(directory), _) => {
                // Busy now: asked again later.
                if let Some(peer) = self.peers.get_mut(&directory) {
                    peer.subscribe_at = Some(now.after(SUBSCRIBE_AGAIN));
                }
            }
            (Asked::Announce(node, said), Reply::Announced { refused, .. }) => {
                self.announced(node, said, *refused, now);
            }
            (Asked::Knock(relay), reply) => self.knock_answered(relay, reply, now),
            (Asked::KnockFor(who), Reply::Done) => {
                if let Some(by) = self.member_at(session) {
                    self.knocked_for(who, by, now);
                }
            }
            (Asked::Renew, Reply::Redeemed { records }) => self.renewed(records, now),
            (Asked::Witness(head, is_whole), reply) => {
                if let Some(node) = self.member_at(session) {
                    self.witness_replied(session, node, (head, is_whole), reply, now);
                }
            }
            (Asked::Renew, Reply::Refused(Refusal::Revoked)) => {
                self.tell(Event::JoinFailed {
                    why: super::JoinError::Refused(Refusal::Revoked),
                });
            }
            _ => {}
        }
    }

    fn handle_notice(
        &mut self,
        session: SessionId,
        _from: Endpoint,
        notice: &Notice<'_>,
        now: Instant,
    ) {
        let Some(node) = self.member_at(session) else {
            return;
        };
        match notice {
            Notice::Changed { records, cursor } => {
                let followed = self.peers.get(&node).is_some_and(|peer| peer.follows);
                if followed {
                    self.followed(node, records, *cursor, false, now);
                } else {
                    self.take_records(records, Carrier::Member, now);
                }
            }
            Notice::Presence(presence) => self.handle_presence(node, presence, now),
            Notice::Logins { logins } => self.handle_logins(session, node, *logins, now),
            Notice::Turn { relayed } => self.peer_turns(node, *relayed, now),
            Notice::Filter { filtering } => self.peer_filters(node, *filtering, now),
            Notice::Knocked { by } => self.knocked_by(node, *by),
            Notice::Nat { mapping } => self.peer_maps(node, *mapping, now),
            Notice::Meeting { with, address } => self.handle_meeting(node, *with, *address, now),
            Notice::Ports { last, step } => {
                let (last, step) = (*last, *step);
                self.peer_goes_on(node, Run { last, step });
            }
            Notice::Mesh(notice) => self.handle_mesh_notice(node, notice, now),
            Notice::Introduced { chain, presence } => {
                self.take_records(chain, Carrier::Member, now);
                let introduced = Packed(chain).last().and_then(|record| {
                    let network = self.network.as_ref()?;
                    network.registry.node_of_record(record)
                });
                if let Some(introduced) = introduced {
                    self.meet(introduced, now);
                    self.hint(introduced, presence, now);
                    self.hear_of_lan(node, introduced, presence, now);
                    self.hear_of_return(introduced, now);
                }
            }
        }
    }

    /// Sends a request and remembers what the reply is for.
    pub(super) fn ask(
        &mut self,
        session: SessionId,
        request: &Request<'_>,
        asked: Asked,
        now: Instant,
    ) {
        let Some(state) = self.sessions.get_mut(&session) else {
            return;
        };
        if state.asked.len() >= ASKED {
            // The oldest is given up: its reply will be passed over.
            state.asked.pop_first();
        }
        let id = state.next_request;
        state.next_request = state.next_request.wrapping_add(1);
        state.asked.insert(id, asked);
        let request = request.clone();
        self.say(session, &Message::Request { id, request }, now);
    }

    /// Sends a message; if the session can't take it, it is about to end and says so itself.
    pub(super) fn say(
        &mut self,
        session: SessionId,
        message: &Message<'_>,
        now: Instant,
    ) -> Option<MessageId> {
        let bytes = encoded(message)?;
        self.control.send(session, &bytes, now).ok()
    }

    /// Encodes a reply to be sent once what it acknowledges is on disk.
    pub(super) fn say_after_save(
        &mut self,
        session: SessionId,
        message: &Message<'_>,
        now: Instant,
    ) {
        if let Some(bytes) = encoded(message) {
            self.after_save(super::Deferred::Send(session, bytes), now);
        }
    }

    /// Ends a session of ours.
    pub(super) fn end_session(&mut self, session: SessionId, reason: CloseReason, now: Instant) {
        self.control.close(session, reason, now);
        self.session_ended(session, now);
    }

    fn session_ended(&mut self, session: SessionId, now: Instant) {
        self.join_session_ended(session, now);
        let stood = self.sessions.remove(&session).is_some();
        self.logins.session_ended(session);
        let relay = self.relays.iter().find(|(_, l)| l.session == Some(session));
        let peer = self.peers.iter().find(|(_, p)| p.session == Some(session));
        let Some(node) = relay.map(|(node, _)| *node).or(peer.map(|(node, _)| *node)) else {
            return;
        };
        // Two sessions with one node are one too many: the other goes on.
        let other = self
            .sessions
            .iter()
            .find(|(_, s)| s.greeted && s.standing == Standing::Member(node))
            .map(|(id, _)| *id);
        if let Some(link) = self.relays.get_mut(&node)
            && link.session == Some(session)
        {
            link.session = other;
            link.renew = now;
            if other.is_none() {
                self.relay_lost(node, now);
            }
        }
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.session == Some(session)
        {
            peer.session = other;
            if other.is_none() {
                peer.follows = false;
                if stood && !peer.wanted && peer.is_idle(now) {
                    peer.session_rests(now);
                } else {
                    peer.session_failed(now);
                }
                if !stood && let Some(called) = peer.called_at {
                    peer.path.call_failed(called, now);
                }
                self.directory_lost(node);
            }
        }
        self.timers.housekeeping_at(now);
    }

    /// An authentic datagram of a session came from another endpoint than it sends to.
    fn session_heard(&mut self, session: SessionId, from: Endpoint, now: Instant) {
        let Some(Standing::Member(node)) = self.sessions.get(&session).map(|s| s.standing) else {
            return;
        };
        let from = self.turned(node, from, now);
        if self.control.endpoint(session) == Some(from) {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.path.heard(from, now);
            }
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.heard(from, now);
            // It is answered elsewhere than it is: its addresses are worth a challenge.
            peer.path.keep(now);
            self.timers.housekeeping_at(peer.path.deadline(now));
            self.follow_path(node, now);
            // A client that is where it is registered has nothing to prove: the answer would
            // be heard from there too, and so on without end.
            let client = self.relay.address(node);
            if client.is_none() || from.direct().is_none() || client == from.direct() {
                return;
            }
        }
        // A client of ours, or one that is no peer, is asked at once: it may have moved. Its answer is
        // heard from there too, until it is believed.
        let state = self.sessions.get_mut(&session);
        if state.is_none_or(|state| !state.may_ask(now)) {
            return;
        }
        let may = match from.direct() {
            Some(address) => self.probes.take(node, address.ip(), now),
            None => true,
        };
        if may {
            self.control.challenge(session, from, now);
        }
    }

    fn path_answered(
        &mut self,
        session: SessionId,
        endpoint: Endpoint,
        rtt: altnet_wire::time::Duration,
        observed: Option<SocketAddr>,
        now: Instant,
    ) {
        let Some(node) = self.member_at(session) else {
            return;
        };
        if matches!(endpoint, Endpoint::Direct(address) if address.port() == 0) {
            // One of a search's many: where the answer came from was heard, and is challenged.
            return;
        }
        self.ponged(node, endpoint, rtt);
        self.link_answered(node, endpoint, rtt, now);
        if let Endpoint::Direct(address) = endpoint {
            self.probes.answered(address.ip());
            if let Some(observed) = observed
                && self.traversal.port_to(address) == PortId::MAIN
            {
                self.seen_as(address.ip(), observed, now);
                self.relay_saw(node, address, observed, now);
            }
            // Where a peer sees us, for when no relay says so.
            self.presence.observed = observed.or(self.presence.observed);
        }
        if let Endpoint::Relayed { relay, .. } = endpoint
            && let Some(side) = Side::of(relay)
        {
            self.turn_answered(node, side, now);
        }
        let state = self.sessions.get_mut(&session);
        let moved = state.and_then(|state| state.moving.take_if(|moving| *moving == endpoint));
        if moved.is_some() {
            // The client moved, and has just proven where to.
            if let Some(address) = endpoint.direct() {
                self.relay.moved(node, address);
            }
            // Two relays are each other's clients: where one is registered from is its own choice, and
            // what the other sends goes the way that this one has chosen.
            if !self.relays.contains_key(&node) {
                self.control.set_endpoint(session, endpoint);
            }
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.answered(endpoint, rtt, now);
            self.follow_path(node, now);
        } else {
            self.control.set_endpoint(session, endpoint);
        }
    }
}
