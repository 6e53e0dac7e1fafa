//! Peers: members this node has a tunnel, a session or a path with.
//!
//! A peer comes to be when a packet is for it or its handshake arrives, and goes when it is
//! no longer a member, or has been idle and its place is needed.

use core::net::SocketAddr;
use core::ops::Bound;

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::{PeerConfig, PeerIndex, TunnelEvent};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::{MemberId, NodeId, SigningKey, TunnelKey};
use altnet_wire::message::{
    Candidate, CandidateKind, MAX_PRESENCE_RELAYS, Message, Notice, Presence, Request,
};
use altnet_wire::record::{NodeRecord, Roles};
use altnet_wire::time::{Duration, Instant};

use super::directory::ANNOUNCE_AGAIN;
use super::gate::Gate;
use super::sessions::Asked;
use super::{Deferred, Event, Node, Slot};
use crate::control::{CloseReason, SessionId};
use crate::path::{Path, Why};

/// The first pause before a session is tried again; it doubles up to [`RETRY_MOST`].
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// How long a call to an address that was merely named waits while there is another to try.
const CALL_PATIENCE: Duration = Duration::from_secs(4);
/// The longest pause before a relay or directory is called again.
const SERVER_RETRY_MOST: Duration = Duration::from_secs(8);
/// A relay or directory that answers no challenge for this long is called anew.
const SERVER_SILENT: Duration = Duration::from_secs(10);
/// A direct address that stood this long is worth a write to disk.
const LASTING: Duration = Duration::from_secs(60);
/// The first of a peer's is worth one sooner: with none, nobody is found after a restart.
const LASTING_FIRST: Duration = Duration::from_secs(3);
/// A peer's lasting address is written to disk at most this often.
const KEEP_AGAIN: Duration = Duration::from_secs(3600);
/// Peers are told where this node is at most this often.
const PRESENCE_PAUSE: Duration = Duration::from_secs(5);
/// Peers asked at a time to pass on where this node is.
const INTRODUCERS: usize = 4;
/// A tunnel in use is kept open through NATs this often.
const KEEPALIVE: Duration = Duration::from_secs(25);

/// A tunnel to one key of a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tunnel {
    pub(super) index: PeerIndex,
    pub(super) key: TunnelKey,
}

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) device: SigningKey,
    pub(super) member: MemberId,
    pub(super) tunnel: Tunnel,
    /// The tunnel to its key before, until the one to the new key stands.
    pub(super) previous: Option<Tunnel>,
    pub(super) session: Option<SessionId>,
    pub(super) path: Path,
    pub(super) used: Instant,
    /// Nothing of it is delivered until we know the revocations it knows.
    pub(super) gate: Gate,
    /// Whether a session is wanted although nothing is sent: it is a relay or directory.
    pub(super) wanted: bool,
    pub(super) direct_since: Option<(SocketAddr, Instant)>,
    /// Whether this node is in step with it, if it is a directory.
    pub(super) synced: bool,
    /// Whether this node asked it for its changes.
    pub(super) follows: bool,
    /// When it is asked again that was too busy.
    pub(super) subscribe_at: Option<Instant>,
    /// When it is told again what it refused, and how long to wait the next time.
    pub(super) announce_at: Option<Instant>,
    pub(super) announce_pause: Duration,
    /// The round-trip time last measured, along whichever path.
    pub(super) rtt: Option<Duration>,
    /// Since when a person waits for an answer.
    pub(super) pinged: Option<Instant>,
    presence: u64,
    /// The relays it said it is registered at.
    told_relays: heapless::Vec<NodeId, MAX_PRESENCE_RELAYS>,
    /// When its address was written to disk last.
    path_kept: Option<Instant>,
    /// When it was called last.
    called: Instant,
    retry_at: Instant,
    retry: Duration,
    failures: u32,
}

impl Peer {
    /// A session failed or ended: the next is tried later, and later each time.
    pub(super) fn session_failed(&mut self, now: Instant) {
        self.retry_at = now.after(self.retry);
        self.failures = self.failures.wrapping_add(1);
        let most = if self.wanted {
            SERVER_RETRY_MOST
        } else {
            RETRY_MOST
        };
        self.retry = (self.retry * 2).min(most);
    }

    /// When a call that is under way is given up for another address, if there is one.
    fn gives_up_call(&self) -> Instant {
        if self.path.is_proven() || self.path.direct_count() < 2 {
            return Instant::NEVER;
        }
        self.called.after(CALL_PATIENCE)
    }

    fn wants_session(&self, now: Instant) -> bool {
        self.session.is_none() && (self.wanted || now.saturating_since(self.used) < KEEPALIVE * 4)
    }
}

/// Whether a member of these roles is one that others ask or are relayed by.
pub(super) fn serves(roles: Roles) -> bool {
    roles.intersects(Roles::RELAY | Roles::DIRECTORY)
}

impl<A: Aead> Node<A> {
    /// The tunnel to send to `node` through; makes it a peer if it isn't yet.
    pub(super) fn tunnel_to(&mut self, node: NodeId, now: Instant) -> Option<PeerIndex> {
        if !self.peers.contains_key(&node) {
            self.meet(node, now)?;
        }
        let peer = self.peers.get_mut(&node)?;
        peer.used = now;
        if let Some(previous) = peer.previous {
            // While the new key has no session, the former one's still carries.
            let is_up = |index| self.engine.stats(index, now).is_some_and(|s| s.is_up);
            if !is_up(peer.tunnel.index) && is_up(previous.index) {
                return Some(previous.index);
            }
        }
        Some(peer.tunnel.index)
    }

    /// Makes a member a peer, if there is room and its node record is known.
    pub(super) fn meet(&mut self, node: NodeId, now: Instant) -> Option<()> {
        if self.peers.contains_key(&node) {
            return Some(());
        }
        let network = self.network.as_ref()?;
        if node == network.own.node {
            return None;
        }
        // A server whose membership ended may have a newer one, and everybody else's: it is
        // asked. Policy lets nothing else of it through.
        let registry = &network.registry;
        let member = registry
            .by_node(&node)
            .or_else(|| registry.servers().find(|server| server.id == node))?;
        let is_current = !self.clock.is_expired(member.membership.expires, now);
        if !is_current && !serves(member.membership.roles) {
            return None;
        }
        let (device, record) = (member.membership.device, member.node?.clone());
        let id = member.membership.member;
        // A peer whose key changes takes two places in the engine for a while.
        let places = self.config.engine.peers / 2;
        if self.peers.len() >= usize::from(self.config.limits.peers.min(places)) {
            self.forget_idle(now)?;
        }
        let config = PeerConfig {
            roams: false,
            ..PeerConfig::new(record.tunnel.key, self.local_key)
        };
        let index = self.engine.add_peer(config, now).ok()?;
        let key = record.tunnel.key;
        let peer = Peer {
            device,
            member: id,
            tunnel: Tunnel { index, key },
            previous: None,
            session: None,
            path: Path::new(node, now),
            used: now,
            gate: Gate::Shut(None),
            follows: false,
            subscribe_at: None,
            announce_at: None,
            announce_pause: ANNOUNCE_AGAIN,
            wanted: false,
            direct_since: None,
            synced: false,
            rtt: None,
            pinged: None,
            presence: 0,
            told_relays: heapless::Vec::new(),
            path_kept: self.last_paths.contains_key(&node).then_some(now),
            called: now,
            retry_at: now,
            retry: RETRY,
            failures: 0,
        };
        self.tunnels.insert(index, node);
        self.peers.insert(node, peer);
        // Its key before is still good for what it sealed, and until it has moved on.
        if let Some(previous) = record.previous_tunnel {
            self.add_previous(node, previous.key, now);
        }
        self.offer_paths(node, &record, now);
        self.timers.housekeeping_at(now);
        Some(())
    }

    /// The peer after `last` in the order of ids, the first if none: how all are gone through
    /// while each may change the table.
    fn peer_after(&self, last: Option<NodeId>) -> Option<NodeId> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let mut after = self.peers.range((from, Bound::Unbounded));
        after.next().map(|(node, _)| *node)
    }

    fn add_previous(&mut self, node: NodeId, key: TunnelKey, now: Instant) {
        let config = PeerConfig {
            roams: false,
            ..PeerConfig::new(key, self.local_key)
        };
        if let Ok(index) = self.engine.add_peer(config, now) {
            self.tunnels.insert(index, node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.previous = Some(Tunnel { index, key });
            }
        }
    }

    /// Gives a peer's path what records and storage say of it.
    fn offer_paths(&mut self, node: NodeId, record: &NodeRecord, now: Instant) {
        let relays = self.relays_to(node, record);
        let last = self.last_paths.get(&node).copied();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.path.set_relays(&relays, now);
        for address in &record.fixed_endpoints {
            let candidate = Candidate {
                address: *address,
                kind: CandidateKind::Fixed,
            };
            peer.path.add_candidate(candidate, now);
        }
        if let Some(address) = last {
            let candidate = Candidate {
                address,
                kind: CandidateKind::Reflexive,
            };
            peer.path.add_candidate(candidate, now);
        }
        self.follow_path(node, now);
    }

    /// The relays that serve both this node and `node` now: those it said it is registered
    /// at come before those it called its homes.
    fn relays_to(
        &self,
        node: NodeId,
        record: &NodeRecord,
    ) -> heapless::Vec<NodeId, MAX_PRESENCE_RELAYS> {
        let mut relays = heapless::Vec::new();
        if self.relay.address(node).is_some()
            && let Some(network) = &self.network
        {
            // It is a client of ours.
            let _ = relays.push(network.own.node);
        }
        let told = self.peers.get(&node).map(|peer| peer.told_relays.iter());
        for relay in told.into_iter().flatten().chain(&record.home_relays) {
            let ready = self
                .relays
                .get(relay)
                .is_some_and(|link| link.ready().is_some());
            if ready && *relay != node && !relays.contains(relay) {
                let _ = relays.push(*relay);
            }
        }
        relays
    }

    /// Our registrations changed: every peer's relays are looked at again.
    pub(super) fn relays_changed(&mut self, now: Instant) {
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            let Some(record) = self.record_of(node) else {
                continue;
            };
            let relays = self.relays_to(node, &record);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.path.set_relays(&relays, now);
            }
            self.follow_path(node, now);
        }
    }

    pub(super) fn record_of(&self, node: NodeId) -> Option<NodeRecord> {
        let registry = &self.network.as_ref()?.registry;
        let aside = || registry.servers().find(|server| server.id == node)?.node;
        registry.node_record(node).or_else(aside).cloned()
    }

    /// The tunnel key of a handshake belongs to a member that is no peer yet?
    pub(super) fn admit_tunnel(&mut self, key: &TunnelKey, now: Instant) -> Option<()> {
        let node = self.network.as_ref()?.registry.member_by_tunnel(key)?;
        self.meet(node, now)?;
        let peer = self.peers.get(&node)?;
        let known = peer.tunnel.key == *key || peer.previous.is_some_and(|p| p.key == *key);
        known.then_some(())
    }

    /// A peer's node record is another: its keys may have changed.
    pub(super) fn peer_record_changed(&mut self, node: NodeId, now: Instant) {
        let Some(record) = self.record_of(node) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if peer.tunnel.key != record.tunnel.key {
            let config = PeerConfig {
                roams: false,
                endpoint: peer.path.current(),
                ..PeerConfig::new(record.tunnel.key, self.local_key)
            };
            if let Ok(index) = self.engine.add_peer(config, now) {
                let key = record.tunnel.key;
                let former = core::mem::replace(&mut peer.tunnel, Tunnel { index, key });
                let older = peer.previous.replace(former);
                self.tunnels.insert(index, node);
                if let Some(older) = older {
                    self.drop_tunnel(older.index);
                }
                let _ = self.engine.rekey(index, now);
            }
        }
        self.offer_paths(node, &record, now);
    }

    pub(super) fn drop_tunnel(&mut self, index: PeerIndex) {
        let _ = self.engine.remove_peer(index);
        self.tunnels.remove(&index);
    }

    /// Forgets a peer: its sessions, its tunnel and what was queued for it.
    pub(super) fn forget(&mut self, node: NodeId, now: Instant) {
        self.relay.remove(node);
        self.held.forget(node);
        let Some(peer) = self.peers.remove(&node) else {
            return;
        };
        self.drop_tunnel(peer.tunnel.index);
        if let Some(previous) = peer.previous {
            self.drop_tunnel(previous.index);
        }
        if let Some(session) = peer.session {
            self.end_session(session, CloseReason::Done, now);
        }
        let strays: heapless::Vec<SessionId, 8> = self
            .sessions
            .iter()
            .filter(|(_, s)| s.standing == super::sessions::Standing::Member(node))
            .map(|(id, _)| *id)
            .take(8)
            .collect();
        for session in strays {
            self.end_session(session, CloseReason::Done, now);
        }
    }

    fn forget_idle(&mut self, now: Instant) -> Option<()> {
        let idle = self
            .peers
            .iter()
            .filter(|(_, peer)| !peer.wanted)
            .min_by_key(|(_, peer)| peer.used)
            .map(|(node, _)| *node)?;
        self.forget(idle, now);
        Some(())
    }

    /// A member's session stands and it has said who it is.
    pub(super) fn member_arrived(&mut self, session: SessionId, node: NodeId, now: Instant) {
        if self.meet(node, now).is_none() {
            return;
        }
        let endpoint = self.control.endpoint(session);
        let mut former = None;
        if let Some(peer) = self.peers.get_mut(&node) {
            former = peer.session.replace(session).filter(|s| *s != session);
            peer.retry = RETRY;
            peer.failures = 0;
            // It counts its presences from its own start.
            peer.presence = 0;
            if let Some(endpoint) = endpoint {
                peer.path.heard(endpoint, now);
            }
        }
        if self.peers.get(&node).is_some_and(|peer| peer.wanted) {
            // What was asked of a session that was dead already is asked again.
            self.timers.renew_asked = Instant::ZERO;
        }
        if let Some(link) = self.relays.get_mut(&node) {
            link.session = Some(session);
            link.renew = now;
            if let Some(Endpoint::Direct(address)) = endpoint {
                link.address = Some(address);
            }
        }
        if let Some(former) = former {
            // Both called at once, or the other side restarted. One of the two sides, the same
            // for both, ends the older session; the other follows.
            let decides = self.network.as_ref().is_some_and(|n| n.own.node < node);
            if decides || !self.sessions.contains_key(&former) {
                self.end_session(former, CloseReason::Replaced, now);
            }
        }
        self.follow_directory(session, node, now);
        self.tell_presence(node, now);
        self.timers.housekeeping_at(now);
    }

    /// Calls relays and directories that did not answer once more, now.
    pub(super) fn retry_servers(&mut self, now: Instant) {
        let mut calls = alloc::vec::Vec::new();
        for peer in self.peers.values_mut().filter(|peer| peer.wanted) {
            peer.retry_at = now;
            peer.retry = RETRY;
            peer.failures = 0;
            calls.extend(peer.session.take_if(|s| !self.sessions.contains_key(s)));
        }
        for call in calls {
            self.control.close(call, CloseReason::Done, now);
        }
        self.timers.housekeeping_at(now);
    }

    /// Adopts a peer's choice of path for its tunnels and its session.
    pub(super) fn follow_path(&mut self, node: NodeId, now: Instant) {
        self.aim_tunnels(node, now);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let change = peer.path.poll_change();
        let became_proven = peer.path.poll_proven();
        if change.is_none() && !became_proven {
            return;
        }
        let (to, is_proven) = (peer.path.current(), peer.path.is_proven());
        // A call goes anywhere; a session moves only to where the peer is known to be.
        if let (Some(session), Some(to)) = (peer.session, to)
            && (is_proven || !self.sessions.contains_key(&session))
            && self.control.endpoint(session) != Some(to)
        {
            self.control.set_endpoint(session, to);
        }
        if let Some(link) = self.relays.get_mut(&node)
            && let Some(Endpoint::Direct(address)) = to
            && is_proven
        {
            link.address = Some(address);
        }
        if let Some(change) = change {
            peer.direct_since = change
                .to
                .and_then(|to| to.direct())
                .map(|address| (address, now));
            self.tell(Event::PathChanged { node, change });
        }
        self.timers.housekeeping_at(now);
    }

    /// Has a peer's tunnels send along its path. To an address that was merely named only
    /// handshakes go: a tunnel that is up has no endpoint then, and what is sent finds no path.
    fn aim_tunnels(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let (to, is_proven) = (peer.path.current(), peer.path.is_proven());
        for tunnel in [Some(peer.tunnel), peer.previous].into_iter().flatten() {
            let Some(stats) = self.engine.stats(tunnel.index, now) else {
                continue;
            };
            let to = to.filter(|_| is_proven || !stats.is_up);
            if stats.endpoint != to {
                let _ = self.engine.set_endpoint(tunnel.index, to, now);
            }
        }
    }

    /// Whether a peer's session stands.
    pub(super) fn stands(&self, node: NodeId) -> Option<SessionId> {
        let session = self.peers.get(&node)?.session;
        session.filter(|session| self.sessions.contains_key(session))
    }

    /// When a peer that is sent to is next to be looked at.
    pub(super) fn look_at(&self, node: NodeId, now: Instant) -> Instant {
        let Some(peer) = self.peers.get(&node) else {
            return Instant::NEVER;
        };
        match peer.session {
            Some(session) if self.sessions.contains_key(&session) => peer.path.deadline(now),
            // The call says itself what became of it.
            Some(_) => Instant::NEVER,
            None => peer.retry_at,
        }
    }

    /// Looks after peers: sessions wanted, challenges due, addresses worth keeping. Returns
    /// when to look again.
    pub(super) fn tend_peers(&mut self, now: Instant) -> Instant {
        let mut next = self.tell_late_presence(now);
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.seek_session(node, now);
            self.probe(node, now);
            self.follow_path(node, now);
            self.keep_last_path(node, now);
            self.retire_previous(node, now);
            let Some(peer) = self.peers.get(&node) else {
                continue;
            };
            if let Some(session) = peer.session {
                if self.sessions.contains_key(&session) {
                    next = next.min(peer.path.deadline(now));
                } else if peer.gives_up_call() > now {
                    next = next.min(peer.gives_up_call());
                } else {
                    self.end_session(session, CloseReason::Done, now);
                }
            } else if peer.wants_session(now) {
                next = next.min(peer.retry_at.max(now.after(Duration::from_millis(50))));
            }
        }
        next
    }

    fn seek_session(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        if !peer.wants_session(now) || peer.retry_at > now {
            return;
        }
        let (endpoint, failures) = (peer.path.current(), peer.failures);
        let Some(record) = self.record_of(node) else {
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.session_failed(now);
            }
            return;
        };
        if endpoint.is_none() || failures % 2 == 1 {
            // Somebody both know may pass on where we are.
            self.ask_introduction(node, now);
        }
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        match endpoint {
            Some(endpoint) => {
                // Who doesn't know our keys (yet, or any more) answers no member's call, but a
                // stranger's, and a chain makes the stranger a member.
                let round = peer.failures as usize / peer.path.direct_count().max(1);
                let is_stranger = round % 2 == 1;
                let remote = (!is_stranger).then_some(record.control);
                let connected = self.control.connect(remote, endpoint, now);
                if let Some(peer) = self.peers.get_mut(&node) {
                    match connected {
                        Ok(session) => {
                            peer.session = Some(session);
                            peer.called = now;
                        }
                        Err(_) => peer.session_failed(now),
                    }
                }
            }
            None => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.session_failed(now);
                }
            }
        }
    }

    fn ask_introduction(&mut self, to: NodeId, now: Instant) {
        let presence = self.own_presence();
        let failures = self.peers.get(&to).map_or(0, |peer| peer.failures as usize);
        let mut through: alloc::vec::Vec<(bool, SessionId)> = self
            .peers
            .iter()
            .filter(|(node, _)| **node != to)
            .filter_map(|(_, peer)| Some((!peer.wanted, peer.session?)))
            .filter(|(_, session)| self.sessions.get(session).is_some_and(|s| s.greeted))
            .collect();
        // Servers first, and others the next time.
        through.sort_unstable();
        let count = through.len();
        let first = failures / 2 * INTRODUCERS % count.max(1);
        let turn = through.into_iter().cycle().skip(first);
        for (_, session) in turn.take(count.min(INTRODUCERS)) {
            let presence = presence.clone();
            self.ask(
                session,
                &Request::Introduce { to, presence },
                Asked::Introduce,
                now,
            );
        }
    }

    fn probe(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(session) = peer.session.filter(|s| self.sessions.contains_key(s)) else {
            return;
        };
        if peer.wanted {
            // A relay's path is kept alive by its registration; it stays in use.
            peer.path.sent(now);
        }
        let probes = &mut self.probes;
        let mut may = |address: SocketAddr| probes.take(node, address.ip(), now);
        while let Some(endpoint) = peer.path.poll_probe(&mut may, now) {
            self.control.challenge(session, endpoint, now);
        }
        let silent = self
            .peers
            .get(&node)
            .filter(|peer| peer.wanted)
            .and_then(|peer| peer.path.silent_since());
        if silent.is_some_and(|since| now.saturating_since(since) >= SERVER_SILENT) {
            // It restarted, or its network did: a new call finds out sooner than the session.
            self.end_session(session, crate::control::CloseReason::Done, now);
        }
    }

    fn keep_last_path(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some((address, since)) = peer.direct_since else {
            return;
        };
        let network = self.network.as_ref();
        let record = network.and_then(|network| network.registry.node_record(node));
        if record.is_some_and(|record| record.fixed_endpoints.contains(&address)) {
            // Its own record says so already.
            return;
        }
        let is_answered = matches!(peer.path.why(), Why::DirectAnswered(_));
        let stood = now.saturating_since(since);
        let is_first = !self.last_paths.contains_key(&node);
        let is_lasting = stood >= LASTING || (is_first && stood >= LASTING_FIRST);
        if !is_lasting {
            self.timers
                .housekeeping_at(since.after(LASTING_FIRST).max(now.after(LASTING_FIRST)));
        }
        let is_kept = self.last_paths.get(&node) == Some(&address);
        let again = |kept| now.saturating_since(kept) >= KEEP_AGAIN;
        if !is_answered || !is_lasting || is_kept || !peer.path_kept.is_none_or(again) {
            return;
        }
        peer.path_kept = Some(now);
        if !self.last_paths.contains_key(&node)
            && self.last_paths.len() >= usize::from(self.config.limits.peers)
        {
            let mut kept = self.last_paths.keys();
            let Some(old) = kept.find(|old| !self.peers.contains_key(old)).copied() else {
                return;
            };
            self.forget_last_path(old);
        }
        self.last_paths.insert(node, address);
        self.saves.changed(Slot::LastPath(node));
    }

    /// Forgets, also on disk, where a member was: it is none any more.
    pub(super) fn forget_last_path(&mut self, node: NodeId) {
        if self.last_paths.remove(&node).is_some() {
            self.saves.changed(Slot::LastPath(node));
        }
    }

    /// Lets the tunnel to a peer's former key go once the one to its new key stands and the
    /// record no longer names the former.
    fn retire_previous(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let Some(previous) = peer.previous else {
            return;
        };
        let named = self.record_of(node).is_some_and(|record| {
            record
                .previous_tunnel
                .is_some_and(|p| p.key == previous.key)
        });
        let is_up = |index| self.engine.stats(index, now).is_some_and(|s| s.is_up);
        if is_up(peer.tunnel.index) && !is_up(previous.index) && !named {
            self.drop_tunnel(previous.index);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.previous = None;
            }
        }
    }

    /// What the engine tells.
    pub(super) fn handle_tunnel_event(&mut self, event: TunnelEvent, now: Instant) {
        match event {
            TunnelEvent::SessionUp { peer } => {
                if let Some(node) = self.tunnels.get(&peer).copied() {
                    let _ = self
                        .engine
                        .set_persistent_keepalive(peer, Some(KEEPALIVE), now);
                    self.tell(Event::TunnelUp { node });
                }
            }
            TunnelEvent::SessionDown { peer } | TunnelEvent::HandshakeFailed { peer } => {
                let _ = self.engine.set_persistent_keepalive(peer, None, now);
            }
            TunnelEvent::SaveStamps { local, until } => {
                if let Some(key) = self.engine.local_key(local) {
                    self.stamps.insert(key.0, until);
                    let slot = Slot::Tai(key.0);
                    self.saves.changed(slot.clone());
                    // Its own slot alone: a record that can't be written stops no handshake.
                    let stamps = Deferred::Stamps(local, until);
                    if let Some(stamps) = self.saves.then_slot(&slot, stamps) {
                        self.run(stamps, now);
                    }
                }
            }
            _ => {}
        }
    }

    /// A peer says where it is.
    pub(super) fn handle_presence(&mut self, node: NodeId, presence: &Presence, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if presence.sequence < peer.presence {
            return;
        }
        peer.presence = presence.sequence;
        peer.told_relays = presence.relays.clone();
        let ours = self.config.limits.candidates_per_peer.into();
        let count = presence.candidates.len().min(ours);
        let candidates = presence.candidates.get(..count).unwrap_or(&[]);
        peer.path.set_candidates(candidates, now);
        if let Some(record) = self.record_of(node) {
            let relays = self.relays_to(node, &record);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.path.set_relays(&relays, now);
            }
        }
        self.follow_path(node, now);
        self.timers.housekeeping_at(now);
    }

    /// Somebody else says where a peer is. It may be wrong, so that it only adds an address
    /// or two to try, and nothing while the peer itself can say it.
    pub(super) fn hint(&mut self, node: NodeId, presence: &Presence, now: Instant) {
        if self.stands(node).is_some() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.path.hint(&presence.candidates, now);
        self.follow_path(node, now);
        self.timers.housekeeping_at(now);
    }

    /// Where this node is has changed: every peer with a session is told, now or soon.
    pub(super) fn presence_changed(&mut self, now: Instant) {
        self.presence.sequence += 1;
        self.presence.late = true;
        let next = self.tell_late_presence(now);
        self.timers.housekeeping_at(next);
    }

    /// Tells every peer where this node is, if that changed and they were not told just now.
    /// Returns when it is to be told.
    fn tell_late_presence(&mut self, now: Instant) -> Instant {
        if !self.presence.late {
            return Instant::NEVER;
        }
        let due = self.presence.told_at.map(|at| at.after(PRESENCE_PAUSE));
        if let Some(due) = due.filter(|due| *due > now) {
            return due;
        }
        self.presence.late = false;
        let presence = self.own_presence();
        let is_told = self.presence.told.as_ref().is_some_and(|told| {
            told.candidates == presence.candidates && told.relays == presence.relays
        });
        if is_told {
            // It changed and changed back.
            return Instant::NEVER;
        }
        self.presence.told = Some(presence);
        self.presence.told_at = Some(now);
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.tell_presence(node, now);
        }
        Instant::NEVER
    }

    /// Tells a peer where this node is, if there is a session that it greeted.
    fn tell_presence(&mut self, node: NodeId, now: Instant) {
        let Some(session) = self.peers.get(&node).and_then(|peer| peer.session) else {
            return;
        };
        if self.sessions.get(&session).is_none_or(|s| !s.greeted) {
            return;
        }
        let presence = self.own_presence();
        if self.presence.late {
            // This one learns what the others don't know yet: all are told again.
            self.presence.told = None;
        }
        self.say(session, &Message::Notice(Notice::Presence(presence)), now);
    }

    pub(super) fn fill_candidates(&self, presence: &mut Presence) {
        let mut add = |address: SocketAddr, kind| {
            let known = presence.candidates.iter().any(|c| c.address == address);
            if !known {
                let _ = presence.candidates.push(Candidate { address, kind });
            }
        };
        for address in self.fixed_endpoints() {
            add(address, CandidateKind::Fixed);
        }
        for link in self.relays.values() {
            if let Some(observed) = link.observed {
                add(observed, CandidateKind::Reflexive);
            }
        }
        if let Some(observed) = self.presence.observed
            && self.relays.values().all(|link| link.observed.is_none())
        {
            add(observed, CandidateKind::Reflexive);
        }
        for address in &self.presence.interfaces {
            add(*address, CandidateKind::Host);
        }
        for (relay, link) in &self.relays {
            if link.token.is_some() {
                let _ = presence.relays.push(*relay);
            }
        }
    }
}
