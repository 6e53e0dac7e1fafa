//! Peers: members this node has a tunnel, a session or a path with.
//!
//! A peer comes to be when a packet is for it or its handshake arrives, and goes when it is
//! no longer a member, or has been idle and its place is needed.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::ops::Bound;

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::{LocalKeyId, PeerConfig, PeerIndex, TunnelEvent};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::{MemberId, NodeId, SigningKey, TunnelKey};
use altnet_wire::message::{Candidate, CandidateKind, MAX_PRESENCE_RELAYS};
use altnet_wire::record::{NodeRecord, Roles};
use altnet_wire::time::{Duration, Instant};

use super::apps::{AppTunnel, Via};
use super::directory::ANNOUNCE_AGAIN;
use super::gate::Gate;
use super::load::BUSY;
use super::pace::KEEPALIVE;
use super::streams::{is_guests, stream_of};
use super::traversal::Meeting;
use super::{Deferred, Event, Node, Slot};
use crate::control::{CloseReason, SessionId};
use crate::path::Path;
use crate::path::mtu::PathMtu;

/// The first pause before a session is tried again; it doubles up to [`RETRY_MOST`].
pub(super) const RETRY: Duration = Duration::from_secs(1);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// How long a relay that is said to be back is called where it was, while another leads to it.
const WORD_PATIENCE: Duration = Duration::from_secs(4);
/// How long a call to an address that was merely named waits while there is another to try.
const CALL_PATIENCE: Duration = Duration::from_secs(4);
/// The longest pause before a relay or directory is called again.
const SERVER_RETRY_MOST: Duration = Duration::from_secs(8);
/// Without a packet for this long a peer's tunnels and session aren't kept open any more: it is
/// found again through a relay (ADR 0015).
pub(super) const IDLE: Duration = Duration::from_secs(120);

/// A session lasts this long at least, if nothing else ends it.
const SESSION_LEAST: Duration = Duration::from_secs(60);

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
    /// Tunnels with its apps, and of our apps with it.
    pub(super) apps: Vec<AppTunnel>,
    pub(super) session: Option<SessionId>,
    pub(super) path: Path,
    /// How large a datagram its path carries.
    pub(super) mtu: PathMtu,
    pub(super) meeting: Meeting,
    pub(super) used: Instant,
    /// When its session began: one of the two wanted it, and would again if it ended at once.
    pub(super) arrived: Instant,
    /// When a packet last passed, either way.
    pub(super) passed: Instant,
    /// Whether its tunnels are kept open.
    pub(super) is_kept: bool,
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
    pub(super) presence: u64,
    /// The relays it said it is registered at.
    pub(super) told_relays: heapless::Vec<NodeId, MAX_PRESENCE_RELAYS>,
    /// When its address was written to disk last.
    pub(super) path_kept: Option<Instant>,
    /// Where it was called last, whether because it or somebody else said that it is there, and when.
    pub(super) called_at: Option<Endpoint>,
    pub(super) is_on_word: bool,
    pub(super) called: Instant,
    pub(super) retry_at: Instant,
    pub(super) retry: Duration,
    pub(super) failures: u32,
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

    /// A session ended because nobody needed it: the next begins as soon as it is wanted.
    pub(super) fn session_rests(&mut self, now: Instant) {
        self.retry_at = now;
        self.retry = RETRY;
        self.failures = 0;
    }

    /// Whether no packet passed for so long that nothing of the peer's is kept open any more.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        now.saturating_since(self.passed) >= IDLE
    }

    /// When a call that is under way is given up for another address, if there is one.
    fn gives_up_call(&self) -> Instant {
        let is_aside = self.called_at != self.path.current();
        let is_relayed = matches!(self.path.current(), Some(Endpoint::Relayed { .. }));
        if self.is_on_word && is_aside && is_relayed {
            return self.called.after(WORD_PATIENCE);
        }
        if self.path.is_proven() || self.path.direct_count() < 2 {
            return Instant::NEVER;
        }
        self.called.after(CALL_PATIENCE)
    }

    pub(super) fn wants_session(&self, now: Instant) -> bool {
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

    /// How many peers there is room for. One whose key changes takes two places in the engine for
    /// a while.
    pub(super) fn most_peers(&self) -> usize {
        let places = self.config.engine.peers / 2;
        self.config.limits.peers.min(places).into()
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
        if self.peers.len() >= self.most_peers() {
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
            apps: Vec::new(),
            session: None,
            path: Path::paced(node, self.pace().path, now),
            mtu: PathMtu::new(),
            meeting: Meeting::default(),
            used: now,
            arrived: now,
            passed: now,
            is_kept: false,
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
            called_at: None,
            is_on_word: false,
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
    pub(super) fn peer_after(&self, last: Option<NodeId>) -> Option<NodeId> {
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
        let relays = self.relays_to(node, record, now);
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
    pub(super) fn relays_to(
        &self,
        node: NodeId,
        record: &NodeRecord,
        now: Instant,
    ) -> heapless::Vec<NodeId, MAX_PRESENCE_RELAYS> {
        let mut relays = heapless::Vec::new();
        if (self.relay.serves(node) || self.mesh.links.has(node))
            && let Some(network) = &self.network
        {
            // It is a client of ours, or of a relay that we pass on to.
            let _ = relays.push(network.own.node);
        }
        if self
            .relays
            .get(&node)
            .is_some_and(|link| link.carriers.stream)
        {
            // It is a relay, to which a stream leads.
            let _ = relays.push(node);
        }
        let told = self.peers.get(&node).map(|peer| peer.told_relays.iter());
        let common = told.into_iter().flatten().chain(&record.home_relays);
        // The gateway of our LAN brings whoever it can. Relays pass on to each other: one of our own
        // leads there too, if none serves both.
        let near = self.nearby.gateway().into_iter();
        for relay in near.chain(common.copied()).chain(self.homes()) {
            let link = self.relays.get(&relay);
            let is_ready = link.is_some_and(|link| link.ready().is_some() && !link.refuses(now));
            if is_ready && relay != node && !relays.contains(&relay) && relays.push(relay).is_err()
            {
                break;
            }
        }
        // What is too busy is the last choice, of both sides: both are told.
        let is_busy = |relay: &NodeId| {
            *relay != node && self.relays.get(relay).is_some_and(|l| l.load >= BUSY)
        };
        relays.sort_by_key(is_busy);
        for server in self.turns_to(node).chain(self.derpers_to(node)) {
            let _ = relays.push(server);
        }
        relays
    }

    /// Our registrations changed: every peer's relays are looked at again.
    pub(super) fn relays_changed(&mut self, now: Instant) {
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.relays_to_changed(node, now);
        }
    }

    /// Which relays lead to a peer is looked at again.
    pub(super) fn relays_to_changed(&mut self, node: NodeId, now: Instant) {
        if !self.peers.contains_key(&node) {
            return;
        }
        let Some(record) = self.record_of(node) else {
            return;
        };
        let relays = self.relays_to(node, &record, now);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.set_relays(&relays, now);
        }
        self.follow_path(node, now);
    }

    pub(super) fn record_of(&self, node: NodeId) -> Option<NodeRecord> {
        let registry = &self.network.as_ref()?.registry;
        let aside = || registry.servers().find(|server| server.id == node)?.node;
        registry.node_record(node).or_else(aside).cloned()
    }

    /// The tunnel key of a handshake to `local` belongs to a member that is no peer yet, or an app
    /// has to do with it?
    pub(super) fn admit_tunnel(
        &mut self,
        key: &TunnelKey,
        local: LocalKeyId,
        now: Instant,
    ) -> Option<()> {
        let registry = &self.network.as_ref()?.registry;
        if self.is_apps_key(local) || registry.app_by_tunnel(key).is_some() {
            return self.admit_app_tunnel(key, local, now);
        }
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
            self.app_callers_key_changed(node, record.tunnel.key, now);
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
        let others = peer.previous.into_iter();
        for tunnel in others.chain(peer.apps.iter().map(|app| app.tunnel)) {
            self.drop_tunnel(tunnel.index);
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
        self.control.is_known(session);
        self.tell(Event::Arrived { node });
        let mut endpoint = self.control.endpoint(session);
        if let Some(Endpoint::Relayed { relay, node: guest }) = endpoint
            && self.relay_node() == Some(relay)
            && let Some(stream) = stream_of(guest)
        {
            self.relay.came_over(node, stream);
        }
        endpoint = endpoint.map(|endpoint| self.turn_shook(node, endpoint, now));
        let mut former = None;
        if let Some(peer) = self.peers.get_mut(&node) {
            former = peer.session.replace(session).filter(|s| *s != session);
            peer.retry = RETRY;
            peer.failures = 0;
            peer.arrived = now;
            peer.mtu.begins_anew();
            // It counts its presences from its own start.
            peer.presence = 0;
            if let Some(endpoint) = endpoint {
                peer.path.heard(endpoint, now);
            }
            if let Some(to @ Endpoint::Direct(_)) = peer.path.current()
                && peer.path.is_proven()
                && matches!(endpoint, Some(Endpoint::Relayed { relay, .. }) if relay != node)
            {
                // It was called by a relay, and has answered directly since.
                self.control.set_endpoint(session, to);
                endpoint = Some(to);
            }
        }
        if self.peers.get(&node).is_some_and(|peer| peer.wanted) {
            // What was asked of a session that was dead already is asked again.
            self.timers.renew_asked = Instant::ZERO;
        }
        if let Some(link) = self.relays.get_mut(&node) {
            link.session = Some(session);
            link.unknown_since = None;
            link.renew = now;
            match (endpoint, self.peers.get_mut(&node)) {
                (Some(Endpoint::Direct(address)), _) => link.address = Some(address),
                // It is back, and forwards for nobody who comes by another relay.
                (_, Some(peer)) => peer.path.try_anew(now),
                _ => {}
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
        self.tell_logins_to(session, now);
        self.tell_awaited(node, now);
        self.tell_waiting(node, now);
        self.timers.housekeeping_at(now);
    }

    /// Adopts a peer's choice of path for its tunnels and its session.
    pub(super) fn follow_path(&mut self, node: NodeId, now: Instant) {
        self.aim_tunnels(node, now);
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if !peer.path.has_news() {
            return;
        }
        let change = peer.path.poll_change();
        let news = peer.path.poll_news();
        let silent = peer.path.poll_silent_relay();
        peer.path.poll_proven();
        let (to, is_proven) = (peer.path.current(), peer.path.is_proven());
        // A call goes anywhere; a session moves only to where the peer is known to be.
        if let (Some(session), Some(to)) = (peer.session, to)
            && (is_proven || !self.sessions.contains_key(&session))
            && self.control.endpoint(session) != Some(to)
            && !is_guests(self.control.endpoint(session), to)
        {
            self.control.set_endpoint(session, to);
        }
        if let Some(link) = self.relays.get_mut(&node)
            && is_proven
        {
            match to {
                Some(Endpoint::Direct(address)) => {
                    if link.address != Some(address) || link.token.is_none() {
                        // Its token is good from where it sees us only, which may be another place.
                        link.renew = now;
                    }
                    link.address = Some(address);
                }
                // It is told by another that it doesn't reach us any more.
                Some(Endpoint::Relayed { relay, .. }) if relay != node => link.renew = now,
                _ => {}
            }
        }
        if let Some(change) = change {
            peer.direct_since = change
                .to
                .and_then(|to| to.direct())
                .map(|address| (address, now));
            self.call_over_stream(node, change, now);
        }
        if let Some(change) = news {
            self.tell(Event::PathChanged { node, change });
        }
        if let Some(relay) = silent {
            self.ask_silent_relay(relay, now);
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
        let apps = peer.apps.iter().map(|app| app.tunnel);
        let tunnels = core::iter::once(peer.tunnel).chain(peer.previous);
        for tunnel in tunnels.chain(apps) {
            let Some(stats) = self.engine.stats(tunnel.index, now) else {
                continue;
            };
            let to = to.filter(|_| is_proven || !stats.is_up);
            if stats.endpoint != to {
                let _ = self.engine.set_endpoint(tunnel.index, to, now);
            }
        }
    }

    /// Looks after peers: sessions wanted, challenges due, addresses worth keeping. Returns
    /// when to look again.
    pub(super) fn tend_peers(&mut self, now: Instant) -> Instant {
        let mut next = self.tell_late_presence(now);
        self.tend_ports(now);
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.seek_session(node, now);
            self.probe(node, now);
            self.probe_size(node, now);
            self.follow_path(node, now);
            self.keep_last_path(node, now);
            self.retire_previous(node, now);
            self.keep_open(node, now);
            let Some(peer) = self.peers.get(&node) else {
                continue;
            };
            if let Some(session) = peer.session {
                if self.sessions.contains_key(&session) {
                    next = next.min(peer.path.deadline(now));
                    next = next.min(self.size_deadline(node, now));
                    next = next.min(self.seek_meeting(node, now));
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

    /// Keeps a peer's tunnels open while packets pass. Once none did for long nothing of it is kept,
    /// unless one of the two serves the other.
    fn keep_open(&mut self, node: NodeId, now: Instant) {
        let is_server = serves(self.own_roles());
        let keepalive = self.keepalive();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let is_kept = !peer.is_idle(now);
        let was_kept = core::mem::replace(&mut peer.is_kept, is_kept);
        if was_kept != is_kept {
            let tunnels = core::iter::once(peer.tunnel).chain(peer.previous);
            for tunnel in tunnels.chain(peer.apps.iter().map(|app| app.tunnel)) {
                let stats = self.engine.stats(tunnel.index, now);
                let is_up = stats.is_some_and(|stats| stats.is_up);
                let every = (is_kept && is_up).then_some(keepalive);
                let _ = self
                    .engine
                    .set_persistent_keepalive(tunnel.index, every, now);
            }
        }
        if !is_server && self.relay.serves(node) {
            // A gateway's client: what NATs let through is doubted once it is none any more.
            peer.is_kept = true;
            return;
        }
        // By somebody else's server it would not be found again.
        if is_kept || peer.wanted || is_server || peer.path.is_foreign() {
            return;
        }
        let is_new = now.saturating_since(peer.arrived) < SESSION_LEAST;
        let session = peer.session.filter(|s| self.sessions.contains_key(s));
        if let Some(session) = session.filter(|_| !is_new) {
            self.end_session(session, CloseReason::Done, now);
        }
        if let Some(peer) = self.peers.get_mut(&node)
            && was_kept
        {
            // What NATs let through until now they may not by the time it is sent to again.
            peer.path.doubt(now);
            peer.path.rest();
            self.follow_path(node, now);
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
                    let met = self.peers.get(&node);
                    let is_idle = met.is_none_or(|met| met.is_idle(now));
                    let every = (!is_idle).then(|| self.keepalive());
                    let _ = self.engine.set_persistent_keepalive(peer, every, now);
                    if self.via(node, peer, now) == Via::Device {
                        self.tell(Event::TunnelUp { node });
                    }
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
}
