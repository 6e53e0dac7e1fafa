//! The way of a packet: parsed once, judged, routed, sealed in place; and back.

use core::net::{IpAddr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::{DropReason as TunnelDrop, Opened, PeerIndex, SealRefused, Sealed};
use altnet_tunnel::message::INITIATION_BYTES;
use altnet_wire::control::{DATA, INIT};
use altnet_wire::echo::ECHO;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::knock::{KNOCK, SHOW};
use altnet_wire::mesh;
use altnet_wire::relay::{self, RelayPacket};
use altnet_wire::split::PIECE;
use altnet_wire::stun;
use altnet_wire::time::Instant;

use super::apps::{AppEnd, Route, Via, is_devices};
use super::derpers::derper_of;
use super::door::is_door;
use super::facts::View;
use super::peers::Peer;
use super::relays::Carrier;
use super::streams::stream_of;
use super::turn::Side;
use super::{DropReason, Network, Node, Verdict};
use crate::ip::PacketInfo;
use crate::lan::icmp_error::ErrorKind;
use crate::path::mtu::LEAST_INNER;
use crate::policy;

/// The first byte of WireGuard's handshake messages (whitepaper section 5.4).
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;

/// Bytes that came from where members were last, sealed for sessions that are forgotten, and
/// that no handshake answered yet.
#[derive(Debug, Default)]
pub(super) struct Lost {
    came: heapless::Vec<(NodeId, usize), LOST>,
}

/// Members that this node forgot, counted at a time.
const LOST: usize = 8;

impl Lost {
    /// Whether as much came as a handshake takes.
    fn came(&mut self, node: NodeId, length: usize) -> bool {
        if let Some((_, sum)) = self.came.iter_mut().find(|(at, _)| *at == node) {
            *sum = sum.saturating_add(length).min(INITIATION_BYTES);
            return *sum >= INITIATION_BYTES;
        }
        if self.came.is_full() {
            self.came.remove(0);
        }
        let _ = self.came.push((node, length));
        length >= INITIATION_BYTES
    }

    fn answered(&mut self, node: NodeId) {
        self.came.retain(|(at, _)| *at != node);
    }
}

impl<A: Aead> Node<A> {
    /// Takes an IP packet from our side: this host's own, or a LAN device's.
    ///
    /// With [`Verdict::Send`] the frame holds the sealed datagram; with
    /// [`Verdict::Deliver`] an ICMPv6 error for whoever sent the packet; with
    /// [`Verdict::LogIn`] still the packet.
    ///
    /// # Errors
    /// The reason why it goes nowhere; it is counted.
    pub fn handle_lan(
        &mut self,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.wake(now);
        match self.outbound(frame, now) {
            Ok(verdict) => Ok(verdict),
            Err(reason) => {
                self.counters.drop(reason);
                self.refusals.refuse_packet(reason);
                if reason == DropReason::Denied && self.is_for_login_page(frame) {
                    return Ok(Verdict::LogIn);
                }
                let kind = match reason {
                    DropReason::TooLarge => ErrorKind::PacketTooBig {
                        mtu_bytes: self.inner_mtu_of(frame).into(),
                    },
                    DropReason::NoRoute => ErrorKind::NoRoute,
                    DropReason::Denied | DropReason::ForeignSource => ErrorKind::Prohibited,
                    DropReason::NoPath => ErrorKind::AddressUnreachable,
                    _ => return Err(reason),
                };
                self.unreachable(kind, frame, now).ok_or(reason)
            }
        }
    }

    fn outbound(&mut self, frame: &mut Frame<'_>, now: Instant) -> Result<Verdict, DropReason> {
        self.freshen_logins(now);
        let packet = PacketInfo::parse(frame.packet()).map_err(|_| DropReason::BadPacket)?;
        let network = self.network.as_ref().ok_or(DropReason::NotMember)?;
        if !network.is_ours(packet.source) {
            return Err(DropReason::ForeignSource);
        }
        let route = network.registry.route(packet.destination);
        let route = route.ok_or(DropReason::NoRoute)?;
        let own = network.own.node;
        let owner = match route {
            Route::App(node, app, _) if node == own => return self.lan_to_app(app, &packet, now),
            Route::Device(node) if node == own => return Err(DropReason::NoRoute),
            Route::Device(node) | Route::App(node, ..) => node,
        };
        let facts = View::new(network, &self.clock, now);
        let verdict = self.policy.judge_outbound(&packet, &facts, now);
        if let Some(reason) = verdict.drop_reason() {
            return Err(refused(reason));
        }
        let tunnel = match route {
            Route::Device(_) => self.tunnel_to(owner, now),
            Route::App(_, app, key) => self.app_tunnel(owner, AppEnd::Theirs(app), key, now),
        };
        let tunnel = tunnel.ok_or(DropReason::NoPath)?;
        if packet.is_syn() {
            self.clamp(owner, frame, now);
        }
        self.seal_to(owner, tunnel, frame, now)
    }

    /// Seals the frame's packet for one of `owner`'s tunnels.
    pub(super) fn seal_to(
        &mut self,
        owner: NodeId,
        tunnel: PeerIndex,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if frame.len() > LEAST_INNER.into() && self.is_too_large(owner, frame.len(), now) {
            self.sent(owner, now);
            return Err(DropReason::TooLarge);
        }
        let bytes = frame.len() as u64;
        match self.engine.seal(tunnel, frame, now) {
            Ok(Sealed::Transmit { to }) => {
                self.counters.sealed += 1;
                self.counters.sealed_bytes += bytes;
                self.note_size(owner, to, frame.len(), now);
                self.sent(owner, now);
                self.direct_to(owner, to, frame, now)
            }
            Ok(Sealed::Queued) => {
                self.sent(owner, now);
                Ok(Verdict::Consumed)
            }
            Err(SealRefused::NoEndpoint) => {
                // No way, or none that is known to lead to the peer: one is looked for.
                self.sent(owner, now);
                self.follow_path(owner, now);
                Err(DropReason::NoPath)
            }
            Err(SealRefused::NoRoom) => Err(DropReason::TooLarge),
            Err(_) => Err(DropReason::Full),
        }
    }

    /// Takes a datagram that came to our UDP port from `from`.
    ///
    /// With [`Verdict::Deliver`] the frame holds an IP packet for our side; with
    /// [`Verdict::Send`] a datagram to pass on.
    ///
    /// # Errors
    /// The reason why it goes nowhere; it is counted.
    pub fn handle_wan(
        &mut self,
        from: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.handle_wan_at(PortId::MAIN, from, frame, now)
    }

    /// The same, for a datagram that came to one of our UDP ports ([`super::Output::Send`]).
    ///
    /// # Errors
    /// As of [`Node::handle_wan`].
    pub fn handle_wan_at(
        &mut self,
        port: PortId,
        from: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.wake(now);
        let from = self.traversal.inward(unmapped(from));
        let result = match frame.packet().first() {
            _ if port != PortId::MAIN => self.handle_further(port, from, frame, now),
            Some(_) if self.turn.is_from(from) => self.take_turned(frame, now),
            Some(&(relay::SEND..=relay::KEPT)) => self.handle_relay(from, frame, now),
            Some(&(mesh::FORWARD..=mesh::GONE_ON)) => self.handle_mesh(from, frame, now),
            Some(_) => self.handle_datagram(Endpoint::Direct(from), frame, now),
            None => Err(DropReason::NotOurs),
        };
        self.note_datagram(result)
    }

    /// Counts what became of a datagram.
    pub(super) fn note_datagram(
        &mut self,
        result: Result<Verdict, DropReason>,
    ) -> Result<Verdict, DropReason> {
        match result {
            Ok(_) => self.refusals.passed(),
            Err(reason) => self.refusals.refuse_datagram(reason),
        }
        result.map_err(|reason| self.counters.drop(reason))
    }

    /// A datagram at a port that was opened for a search: what a relay sees there, or what a peer
    /// sealed that this node has a session with.
    fn handle_further(
        &mut self,
        port: PortId,
        from: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if let [KNOCK, ..] = frame.packet() {
            let is_shown = self.traversal.is_shown(port);
            let taken = is_shown.then(|| self.handle_knock(from, frame.packet(), now));
            return taken
                .flatten()
                .map(|()| Verdict::Consumed)
                .ok_or(DropReason::NotOurs);
        }
        if !self.traversal.is_open(port) {
            return Err(DropReason::NotOurs);
        }
        match frame.packet() {
            [0..=3, ..] if stun::Message::is_stun(frame.packet()) => self
                .handle_stun_answer(port, frame.packet())
                .map(|()| Verdict::Consumed)
                .ok_or(DropReason::NotOurs),
            [DATA | PIECE, ..] | [1..=4, 0, 0, 0, ..] => {
                let verdict = self.handle_datagram(Endpoint::Direct(from), frame, now)?;
                // A piece says nothing of its sender while others are waited for.
                if !matches!(frame.packet(), [PIECE, ..]) {
                    self.heard_at(port, from, now);
                }
                Ok(verdict)
            }
            _ => Err(DropReason::NotOurs),
        }
    }

    /// A datagram for this node itself, told apart by its first bytes (`wire.md`).
    pub(super) fn handle_datagram(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        match frame.packet() {
            [1..=4, 0, 0, 0, ..] => self.handle_tunnel(from, frame, now),
            [0x20..=0x2f, ..] => self.handle_control(from, frame, now),
            [ECHO, ..] => self.handle_echo(from, frame, now),
            [PIECE, ..] => self.handle_piece(from, frame, now),
            [SHOW, ..] => self.handle_show(from, frame, now),
            [0 | 1, ..] if stun::Message::is_stun(frame.packet()) => {
                self.handle_stun(from, frame, now)
            }
            _ => Err(DropReason::NotOurs),
        }
    }

    fn handle_tunnel(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let kind = frame.packet().first().copied().unwrap_or_default();
        let length = frame.len();
        let opened = self.engine.handle_datagram(from, frame, now);
        if opened == Err(TunnelDrop::UnknownReceiver) {
            self.answer_lost_session(from, length, now);
        }
        let mut opened = opened.map_err(|_| DropReason::Tunnel)?;
        if let Opened::Stranger { public, local } = opened {
            // A member this node has had nothing to do with yet? Then it becomes a peer, and
            // the same initiation is answered.
            self.admit_tunnel(&public, local, now)
                .ok_or(DropReason::Stranger)?;
            opened = self
                .engine
                .handle_datagram(from, frame, now)
                .map_err(|_| DropReason::Tunnel)?;
        }
        match opened {
            Opened::Packet { peer, from } => {
                let node = self
                    .heard(peer, from, kind, now)
                    .ok_or(DropReason::Stranger)?;
                self.passed(node, now);
                let via = self.via(node, peer, now);
                self.refusals.sealed_by(node);
                self.pass_gate(node, via, frame, now)
            }
            Opened::Keepalive { peer, from } | Opened::Handshake { peer, from } => {
                self.heard(peer, from, kind, now)
                    .ok_or(DropReason::Stranger)?;
                Ok(Verdict::Consumed)
            }
            Opened::Stranger { .. } => Err(DropReason::Stranger),
            Opened::Nothing => Ok(Verdict::Consumed),
        }
    }

    /// A member still seals for a session that this node has forgotten: it restarted. A
    /// handshake from here has the peer's packets flow again at once, rather than when its own
    /// patience ends.
    ///
    /// Where the datagram came from may be forged. So a handshake is begun only when as much came
    /// as it takes (compare RFC 9000 section 8.1), what follows it takes from the budget of
    /// [`crate::path::budget`], and nobody else's place is taken for it.
    fn answer_lost_session(&mut self, from: Endpoint, length: usize, now: Instant) {
        let node = match from {
            Endpoint::Relayed { node, .. } => Some(node),
            Endpoint::Direct(address) => {
                let mut lasting = self.last_paths.iter();
                lasting
                    .find(|(_, at)| **at == address)
                    .map(|(node, _)| *node)
            }
        };
        let Some(node) = node.filter(|node| self.lost.came(*node, length)) else {
            return;
        };
        self.lost.answered(node);
        if !self.peers.contains_key(&node) && self.peers.len() >= self.most_peers() {
            return;
        }
        if self.meet(node, now).is_none() {
            return;
        }
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let index = peer.tunnel.index;
        let stats = self.engine.stats(index, now).unwrap_or_default();
        if !stats.is_up && !stats.is_shaking {
            let _ = self.engine.rekey(index, now);
        }
    }

    /// Judges an opened packet from `node`. What a tunnel of an app's carries is of that app or for
    /// it; no other tunnel carries anything that is.
    pub(super) fn inbound(
        &mut self,
        node: NodeId,
        via: Via,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.freshen_logins(now);
        let network = self.network.as_ref().ok_or(DropReason::NotMember)?;
        let packet = PacketInfo::parse(frame.packet()).map_err(|_| DropReason::BadPacket)?;
        let is_sources = match via {
            Via::App(AppEnd::Theirs(app)) => packet.source == app,
            _ => is_devices(&network.registry, node, packet.source),
        };
        if !is_sources {
            return Err(DropReason::SpoofedSource);
        }
        let is_ours = match via {
            Via::App(AppEnd::Ours(app)) => packet.destination == app,
            _ => is_devices(&network.registry, network.own.node, packet.destination),
        };
        if !is_ours {
            return Err(DropReason::ForeignDestination);
        }
        let facts = View::new(network, &self.clock, now);
        let verdict = self.policy.judge_inbound(&packet, &facts, now);
        if let Some(reason) = verdict.drop_reason() {
            return Err(refused(reason));
        }
        if packet.is_syn() {
            self.clamp(node, frame, now);
        }
        self.counters.delivered += 1;
        self.counters.delivered_bytes += frame.len() as u64;
        match via {
            Via::App(AppEnd::Ours(app)) => Ok(Verdict::App { app }),
            _ => Ok(Verdict::Deliver),
        }
    }

    /// Notes that an authenticated datagram of this kind of a tunnel came along `from`.
    ///
    /// It proves that the peer is there if it answers what was sent there: an initiation of
    /// ours, or a response, which the first datagram of the new session confirms.
    fn heard(
        &mut self,
        tunnel: PeerIndex,
        from: Endpoint,
        kind: u8,
        now: Instant,
    ) -> Option<NodeId> {
        let node = *self.tunnels.get(&tunnel)?;
        let from = self.turned(node, from, now);
        let peer = self.peers.get_mut(&node)?;
        let answers = match kind {
            INITIATION => false,
            RESPONSE => peer.path.current() == Some(from),
            _ => peer.path.asked_from(from).is_some_and(|asked| {
                let stats = self.engine.stats(tunnel, now);
                stats.and_then(|stats| stats.last_handshake) == Some(asked)
            }),
        };
        let is_new = peer.path.heard(from, now);
        if kind == INITIATION {
            peer.path.asked(from, now);
        }
        if answers {
            peer.path.shook(from, now);
        }
        if peer.path.has_news() || !peer.path.is_proven() {
            self.follow_path(node, now);
        }
        if is_new {
            self.timers.housekeeping_at(now);
        }
        Some(node)
    }

    /// Notes that something was sent to `node`, so that its path is looked after.
    fn sent(&mut self, node: NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.sent(now);
            peer.used = now;
        }
        self.passed(node, now);
        let next = self.look_at(node, now);
        self.timers.housekeeping_at(next);
    }

    /// Notes that a packet passed to or from `node`, so that its tunnels are kept open.
    fn passed(&mut self, node: NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.passed = now;
            if !peer.is_kept {
                self.timers.housekeeping_at(now);
            }
        }
    }

    /// Turns an endpoint into what to do with a datagram for it: puts a relay's header in front where
    /// one forwards.
    pub(super) fn direct(
        &mut self,
        to: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.uplinks.last_sent = now;
        let (relay, node) = match to {
            Endpoint::Direct(address) => {
                let to = self.may_go(address, frame, now)?;
                return Ok(Verdict::Send {
                    to: self.traversal.outward(to),
                    port: self.traversal.port_to(to),
                });
            }
            Endpoint::Relayed { relay, node } => (relay, node),
        };
        self.counters.relayed += 1;
        if let Some(side) = Side::of(relay) {
            return self.send_turned(side, node, frame, now);
        }
        if is_door(relay) {
            return self.send_to_door(relay);
        }
        if let Some(server) = derper_of(relay) {
            return self.send_derped(server, node);
        }
        let own = self.network.as_ref().map(|network| network.own.node);
        if own == Some(relay) {
            // This node is the relay: its client is reached as any client is.
            if let Some(stream) = stream_of(node) {
                return Ok(Verdict::ToClient {
                    stream,
                    from: relay,
                });
            }
            return self.pass_on(relay, node, frame, now);
        }
        let link = self.relays.get(&relay).ok_or(DropReason::NoPath)?;
        let carrier = match link.ready() {
            // The relay itself, over the stream that leads there.
            _ if node == relay => link.carriers.stream.then_some(Carrier::Stream),
            ready => ready,
        };
        match carrier.ok_or(DropReason::NoPath)? {
            Carrier::Udp(address, token) => {
                self.relay_used(relay, now);
                RelayPacket::Send { token, to: node }
                    .push(frame)
                    .map_err(|_| DropReason::TooLarge)?;
                Ok(Verdict::Send {
                    to: self.traversal.outward(address),
                    port: PortId::MAIN,
                })
            }
            Carrier::Stream => Ok(Verdict::ToRelay { relay, to: node }),
        }
    }

    /// Whether a datagram may go to `address`: a handshake that is begun with an address which
    /// was merely named takes from what that address is knocked at.
    fn may_go(
        &mut self,
        address: SocketAddr,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<SocketAddr, DropReason> {
        if !matches!(frame.packet(), [INITIATION, 0, 0, 0, ..] | [INIT, ..]) {
            return Ok(address);
        }
        let to = Some(Endpoint::Direct(address));
        let mut there = self.peers.iter().filter(|(_, p)| p.path.current() == to);
        let named = there.next();
        let is_proven = |peer: &Peer| peer.path.is_proven();
        match named {
            Some((node, peer)) if !is_proven(peer) && !there.any(|(_, p)| is_proven(p)) => {
                let may = self.probes.take(*node, address.ip(), now);
                may.then_some(address).ok_or(DropReason::NoPath)
            }
            _ => Ok(address),
        }
    }

    /// Puts an ICMPv6 error about the frame's packet in the frame.
    fn unreachable(
        &mut self,
        kind: ErrorKind,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<Verdict> {
        let source = self.network.as_ref()?.own.node.address();
        self.timers
            .icmp
            .answer(kind, frame, source, now)
            .ok()
            .map(|()| Verdict::Deliver)
    }
}

impl Network {
    /// Whether this node speaks for `address`: it is its own, or in its site's /64.
    pub(super) fn is_ours(&self, address: core::net::Ipv6Addr) -> bool {
        self.registry.owner_of(address) == Some(self.own.node)
    }
}

fn refused(reason: policy::DropReason) -> DropReason {
    match reason {
        policy::DropReason::FragmentWithoutFirst | policy::DropReason::OverlappingFragment => {
            DropReason::Fragment
        }
        _ => DropReason::Denied,
    }
}

/// An IPv4 peer of a socket that listens on both families shows as a mapped address
/// (RFC 4291 section 2.5.5.2); candidates and tokens know it by its own.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(v4.into(), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    }
}
