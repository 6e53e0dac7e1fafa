//! Sizes: what is cut for a path, what is put together, and what is too large for a peer.
//!
//! How large a datagram may be on a path is found out by [`crate::path::mtu`], pieces are made and joined by
//! [`crate::split`]; here they meet peers and their paths.

use alloc::format;
use alloc::string::String;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::control::DATA;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::relay::SEND_HEADER_BYTES;
use altnet_wire::time::{Duration, Instant};

use super::apps::Route;
use super::data::unmapped;
use super::{DropReason, Node, Output, Verdict};
use crate::control::{Cargo, SessionId};
use crate::ip::PacketInfo;
use crate::ip::mss::{MSS_OVERHEAD_BYTES, clamp_mss};
use crate::path::mtu::{FLOOR, LEAST_INNER, sealed_bytes};
use crate::split::{Cutter, Joined, Joiner};

/// Bytes of UDP's header and of IP's (RFC 768, RFC 791, RFC 8200).
const UDP_BYTES: u16 = 8;
const IPV4_BYTES: u16 = 20;
const IPV6_BYTES: u16 = 40;
/// The same of a relay's.
const RELAY_BYTES: u16 = SEND_HEADER_BYTES as u16;
/// Senders of pieces that are remembered, and for how long.
const SENDERS: usize = 8;
const SENDER_LIFE: Duration = Duration::from_secs(10);

/// Places that our own link was too narrow for, at a time, and for how long that is remembered.
const NARROW: usize = 8;
const NARROW_LIFE: Duration = Duration::from_secs(600);

/// Where a datagram of so many bytes was too large for our own link.
#[derive(Clone, Copy, Debug)]
struct Narrow {
    to: SocketAddr,
    bytes: usize,
    since: Instant,
}

/// What datagrams in pieces take.
pub(super) struct Sizes {
    cutter: Cutter,
    joiner: Joiner,
    /// Where pieces of peers came from of late, and when that was looked up.
    senders: heapless::Vec<(Endpoint, Instant), SENDERS>,
    narrow: heapless::Vec<Narrow, NARROW>,
}

impl Sizes {
    /// Room for so many datagrams in pieces; ours are counted from `id`.
    pub(super) fn new(places: u16, id: u32) -> Self {
        Self {
            cutter: Cutter::new(id),
            joiner: Joiner::new(places),
            senders: heapless::Vec::new(),
            narrow: heapless::Vec::new(),
        }
    }

    fn is_narrow(&mut self, to: SocketAddr, bytes: usize, now: Instant) {
        let least = self.narrow.iter().find(|narrow| narrow.to == to);
        let bytes = least.map_or(bytes, |narrow| narrow.bytes.min(bytes));
        self.narrow.retain(|narrow| narrow.to != to);
        if self.narrow.is_full() {
            self.narrow.remove(0);
        }
        let since = now;
        let _ = self.narrow.push(Narrow { to, bytes, since });
    }
}

impl<A: Aead> Node<A> {
    /// Whether what was in hand last was the first piece of a datagram: the others are the next
    /// outputs, to be drained before the next packet goes in. Nobody else's are lost, those are.
    pub const fn has_pieces(&self) -> bool {
        self.sizes.cutter.has_rest()
    }

    /// A datagram of `bytes` was too large for our own link to `to`: what the socket said of one
    /// that was to go there.
    pub fn handle_too_large(&mut self, to: SocketAddr, bytes: usize, now: Instant) {
        let to = unmapped(to);
        self.sizes.is_narrow(to, bytes, now);
        let to = self.traversal.inward(to);
        let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
        for peer in self.peers.values_mut() {
            match peer.path.current() {
                Some(way @ Endpoint::Direct(address)) if address == to => {
                    peer.mtu.too_large(way, bytes, now);
                }
                Some(way @ Endpoint::Relayed { relay, .. }) => {
                    let link = self.relays.get(&relay);
                    if link.is_some_and(|link| link.address == Some(to)) {
                        let bytes = bytes.saturating_sub(RELAY_BYTES);
                        peer.mtu.too_large(way, bytes, now);
                    }
                }
                _ => {}
            }
        }
        self.timers.housekeeping_at(now);
    }

    /// What is added to a datagram on its first link to `to`.
    fn overhead(&self, to: Endpoint) -> u16 {
        let (first, relay) = match to {
            Endpoint::Direct(address) => (Some(address), 0),
            Endpoint::Relayed { relay, .. } => {
                let link = self.relays.get(&relay);
                (link.and_then(|link| link.address), RELAY_BYTES)
            }
        };
        let first = first.map(|first| self.traversal.outward(first));
        let is_v6 = first.is_some_and(|first| first.is_ipv6());
        let ip = if is_v6 { IPV6_BYTES } else { IPV4_BYTES };
        UDP_BYTES + ip + relay
    }

    /// Notes that a datagram of `bytes` goes to a peer, so that its path is probed if it is large.
    pub(super) fn note_size(&mut self, node: NodeId, to: Endpoint, bytes: usize, now: Instant) {
        if bytes <= usize::from(FLOOR) {
            return;
        }
        let overhead = self.overhead(to);
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.path.current() == Some(to)
        {
            let bytes = u16::try_from(bytes).unwrap_or(u16::MAX);
            peer.mtu.sent(to, overhead, bytes, now);
        }
    }

    /// What to do with a datagram for one of a peer's tunnels: whole, or its first piece.
    pub(super) fn direct_to(
        &mut self,
        node: NodeId,
        to: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let is_large = frame.len() > usize::from(FLOOR);
        let peer = self.peers.get(&node).filter(|_| is_large);
        match peer.and_then(|peer| peer.mtu.most(to)) {
            Some(most) if frame.len() > most.into() => self.direct_cut(to, most, frame, now),
            _ => {
                let is_older = peer.is_some_and(|peer| peer.mtu.is_older());
                let verdict = self.direct(to, frame, now)?;
                match is_older {
                    true => Ok(in_fragments(verdict)),
                    false => Ok(self.let_fragment(verdict, frame.len(), now)),
                }
            }
        }
    }

    /// Has IP cut a datagram of `bytes` that our own link is too narrow for, and that isn't cut here: a
    /// stranger's, a relay's, or an older version's.
    pub(super) fn let_fragment(&self, verdict: Verdict, bytes: usize, now: Instant) -> Verdict {
        let Verdict::Send { to, .. } = verdict else {
            return verdict;
        };
        let is_too_large = |narrow: &Narrow| {
            let is_lasting = now.saturating_since(narrow.since) < NARROW_LIFE;
            narrow.to == to && bytes >= narrow.bytes && is_lasting
        };
        match self.sizes.narrow.iter().any(is_too_large) {
            true => in_fragments(verdict),
            false => verdict,
        }
    }

    /// The same for what waited, or is of a control session.
    pub(super) fn direct_any(
        &mut self,
        to: Endpoint,
        cargo: Cargo,
        session: Option<SessionId>,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if cargo == Cargo::Probe || frame.len() <= usize::from(FLOOR) {
            return self.direct(to, frame, now);
        }
        let whose = match session {
            // Another may be at the address where a peer was: what doesn't pass to that one, or is cut for it, isn't its.
            Some(session) => self.peer_of(session),
            None => self.peer_at(to),
        };
        let verdict = match whose {
            Some(node) => {
                if cargo == Cargo::Again {
                    // It may have been too large.
                    self.note_size(node, to, frame.len(), now);
                    self.timers.housekeeping_at(now);
                }
                self.direct_to(node, to, frame, now)?
            }
            None => {
                let verdict = self.direct(to, frame, now)?;
                self.let_fragment(verdict, frame.len(), now)
            }
        };
        match cargo {
            Cargo::Again if !self.has_pieces() => Ok(in_fragments(verdict)),
            _ => Ok(verdict),
        }
    }

    fn direct_cut(
        &mut self,
        to: Endpoint,
        most: u16,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let cut = self.sizes.cutter.cut(to, most.into(), frame);
        cut.map_err(|_| DropReason::TooLarge)?;
        self.counters.cut += 1;
        self.direct(to, frame, now)
    }

    /// The peer whose session it is.
    fn peer_of(&self, session: SessionId) -> Option<NodeId> {
        let mut peers = self.peers.iter();
        peers
            .find(|(_, peer)| peer.session == Some(session))
            .map(|(node, _)| *node)
    }

    /// The peer whose path ends there.
    fn peer_at(&self, to: Endpoint) -> Option<NodeId> {
        if let Endpoint::Relayed { node, .. } = to {
            return self.peers.contains_key(&node).then_some(node);
        }
        let mut peers = self.peers.iter();
        peers
            .find(|(_, peer)| peer.path.current() == Some(to))
            .map(|(node, _)| *node)
    }

    /// The next piece of a datagram whose first is sent.
    pub(super) fn poll_pieces(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Output> {
        let to = self.sizes.cutter.next(frame)?;
        self.sent_to(to, Cargo::Probe, None, frame, now)
    }

    /// A piece of a datagram. Nothing is kept of anybody's who isn't where a peer may be.
    pub(super) fn handle_piece(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        if !self.is_peers(from, now) {
            return Err(DropReason::NotOurs);
        }
        match self.sizes.joiner.take(from, frame, now) {
            Ok(Joined::Waits) => return Ok(Verdict::Consumed),
            Ok(Joined::Whole) => self.counters.joined += 1,
            Err(_) => return Err(DropReason::NotOurs),
        }
        match frame.packet() {
            // Only what is sealed for a session is ever so large.
            [4, 0, 0, 0, ..] | [DATA, ..] => self.handle_datagram(from, frame, now),
            _ => Err(DropReason::NotOurs),
        }
    }

    /// Whether a peer may be there.
    fn is_peers(&mut self, from: Endpoint, now: Instant) -> bool {
        let Endpoint::Direct(address) = from else {
            return self.peer_at(from).is_some();
        };
        let senders = &mut self.sizes.senders;
        senders.retain(|(_, since)| now.saturating_since(*since) < SENDER_LIFE);
        if senders.iter().any(|(sender, _)| *sender == from) {
            return true;
        }
        let turn = &self.turn;
        let is_its = |(node, peer): (&NodeId, &super::Peer)| {
            turn.is_turned_at(*node, address)
                || peer.path.tried().any(|tried| tried.address == address)
        };
        let is_peers = self.peers.iter().any(is_its);
        if is_peers {
            if senders.is_full() {
                senders.remove(0);
            }
            let _ = senders.push((from, now));
        }
        is_peers
    }

    /// Probes the size of a peer's path, if that is due.
    pub(super) fn probe_size(&mut self, node: NodeId, now: Instant) {
        let Some((to, rtt)) = self.sized_path(node) else {
            return;
        };
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(session) = peer.session.filter(|s| self.sessions.contains_key(s)) else {
            return;
        };
        while let Some(bytes) = peer.mtu.poll_probe(to, rtt, now) {
            self.control.probe(session, to, bytes, now);
        }
    }

    /// When [`Node::probe_size`] has something to do for a peer with a session.
    pub(super) fn size_deadline(&self, node: NodeId, now: Instant) -> Instant {
        let peer = self.peers.get(&node);
        match peer.zip(self.sized_path(node)) {
            Some((peer, (to, rtt))) => peer.mtu.deadline(to, rtt, now),
            None => Instant::NEVER,
        }
    }

    /// The path to a peer whose size may be probed, and its round-trip time.
    fn sized_path(&self, node: NodeId) -> Option<(Endpoint, Option<Duration>)> {
        let peer = self.peers.get(&node)?;
        let to = peer.path.current().filter(|_| peer.path.is_proven())?;
        let rtt = match to {
            Endpoint::Direct(address) => peer.path.direct_rtt(address),
            Endpoint::Relayed { .. } => peer.path.relayed_rtt(),
        };
        let rtt = rtt.or_else(|| self.control.rtt(peer.session?));
        Some((to, rtt))
    }

    /// A probe of a peer's was answered.
    pub(super) fn size_answered(
        &mut self,
        node: NodeId,
        endpoint: Endpoint,
        (bytes, takes_pieces): (u16, bool),
        now: Instant,
    ) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.mtu.answered(endpoint, bytes, takes_pieces, now);
            self.timers.housekeeping_at(now);
        }
    }

    /// The largest packet that may be sent to a peer, in bytes, 1280 at least.
    pub(super) fn inner_mtu(&self, node: NodeId) -> u16 {
        let peer = self.peers.get(&node);
        let found = peer.map_or(LEAST_INNER, |peer| peer.mtu.inner());
        found.min(self.config.engine.mtu_bytes).max(LEAST_INNER)
    }

    /// The same for whom the packet is for that a frame holds.
    pub(super) fn inner_mtu_of(&self, frame: &Frame<'_>) -> u16 {
        let packet = PacketInfo::parse(frame.packet()).ok();
        let registry = self.registry();
        let route = packet.and_then(|packet| registry?.route(packet.destination));
        route.map_or(LEAST_INNER, |route| match route {
            Route::Device(node) | Route::App(node, ..) => self.inner_mtu(node),
        })
    }

    /// Whether a packet of `bytes` is too large for a peer. If a path could carry it one is looked for.
    pub(super) fn is_too_large(&mut self, node: NodeId, bytes: usize, now: Instant) -> bool {
        let is_too_large = bytes > self.inner_mtu(node).into();
        if is_too_large {
            self.want_size(node, u16::try_from(bytes).unwrap_or(u16::MAX), now);
        }
        is_too_large
    }

    /// Has a SYN's ends send each other no more than fits between them.
    pub(super) fn clamp(&mut self, node: NodeId, frame: &mut Frame<'_>, now: Instant) {
        let mtu_bytes = self.inner_mtu(node);
        let asked = clamp_mss(frame.packet_mut(), mtu_bytes);
        let asked = asked.map(|mss| mss.saturating_add(MSS_OVERHEAD_BYTES));
        if let Some(asked) = asked.filter(|asked| *asked > mtu_bytes) {
            self.want_size(node, asked, now);
        }
    }

    /// What is known of the size of a peer's path, in words.
    pub(super) fn size_text(&self, node: NodeId) -> String {
        let Some(peer) = self.peers.get(&node) else {
            return String::new();
        };
        let inner = self.inner_mtu(node);
        match peer.mtu.found() {
            Some(found) if peer.mtu.is_cut() => format!(
                "datagrams of {found} bytes pass; packets of up to {inner} bytes go in pieces"
            ),
            Some(found) => format!("datagrams of {found} bytes pass; packets have up to {inner}"),
            None if peer.mtu.is_older() => {
                format!(
                    "it is of an older version, which is not probed; packets have up to {inner} bytes"
                )
            }
            None => {
                format!("not probed, as nothing large was sent; packets have up to {inner} bytes")
            }
        }
    }

    /// Somebody would send packets of `bytes` to a peer.
    fn want_size(&mut self, node: NodeId, bytes: u16, now: Instant) {
        let bytes = bytes.min(self.config.engine.mtu_bytes);
        let to = self.peers.get(&node).and_then(|peer| peer.path.current());
        let Some(to) = to.filter(|_| bytes > self.inner_mtu(node)) else {
            return;
        };
        let overhead = self.overhead(to);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.mtu.wants(to, overhead, sealed_bytes(bytes), now);
            self.timers.housekeeping_at(now);
        }
    }
}

/// Has IP cut a datagram where it has to be.
const fn in_fragments(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Send {
            to,
            port: PortId::MAIN,
        } => {
            let port = PortId::FRAGMENTS;
            Verdict::Send { to, port }
        }
        other => other,
    }
}
