//! The ways to peers that lead through TURN servers: who is let in, which are tried, and what peers are
//! told of ours and tell of theirs.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Message, Notice};
use altnet_wire::time::{Duration, Instant};

use super::{ADDRESSES, Node, RELAYS_AGAIN, Side, TurnView};
use crate::node::derpers::derper_of;
use crate::path::Why;

/// Who was let in keeps its place for so long, though nobody asks for it again.
const PERMITTED_LEAST: Duration = Duration::from_secs(60);

impl<A: Aead> Node<A> {
    /// Lets a peer in that has no direct way, and tries the ways to it. Returns when to look again.
    pub(super) fn tend_ways(&mut self, node: NodeId, now: Instant) -> Instant {
        let Some(peer) = self.peers.get(&node) else {
            return Instant::NEVER;
        };
        let is_direct = matches!(peer.path.why(), Why::DirectAnswered(_));
        // Where there is no relay through which it is found again a way is kept for later.
        let rests = peer.is_idle(now) && !self.has_no_relay();
        if peer.wanted || rests || is_direct {
            return Instant::NEVER;
        }
        let by_turn = peer.path.is_foreign();
        if let Some(Endpoint::Relayed { relay, .. }) = peer.path.current()
            && let Some(side) = Side::of(relay)
            && peer.path.is_sent_to(now)
        {
            self.turn.ways.doubt(side, node, now);
        }
        if let Some(relayed) = self.turn.relayed() {
            let is_theirs = |address: &SocketAddr| address.is_ipv4() == relayed.is_ipv4();
            let told = peer.path.tried().map(|tried| tried.address);
            let theirs = self.turn.ways.address(Side::Theirs, node);
            let all = theirs.into_iter().chain(told).filter(is_theirs);
            let all: heapless::Vec<SocketAddr, ADDRESSES> = all.take(ADDRESSES).collect();
            for address in all {
                self.permit(address, now);
            }
            if let Some(theirs) = theirs
                && !self.turn.ways.is_proven(Side::Theirs, node)
                && theirs.is_ipv4() == relayed.is_ipv4()
            {
                self.turn.ways.try_at(node, theirs, now);
            }
        }
        let Some(session) = self.stands(node) else {
            return Instant::NEVER;
        };
        if by_turn && now.saturating_since(self.turn.relays_asked) >= RELAYS_AGAIN {
            let relay = self.peers.get(&node).and_then(|peer| peer.path.own_relay());
            if let Some(relay) = relay {
                self.turn.relays_asked = now;
                let there = Endpoint::Relayed { relay, node };
                self.control.challenge(session, there, now);
            }
        }
        let probes = &mut self.probes;
        let mut may = |address: SocketAddr| probes.take(node, address.ip(), now);
        let mut any_lost = false;
        loop {
            let (due, is_lost) = self.turn.ways.poll(node, &mut may, now);
            any_lost |= is_lost;
            match due {
                Some(endpoint) => self.control.challenge(session, endpoint, now),
                None => break,
            }
        }
        if any_lost {
            self.ways_changed(node, now);
        }
        self.turn.ways.deadline(node)
    }

    /// Lets in what comes from `address`, which a peer told. Whoever is let in stays so while somebody
    /// asks for it now and then: those who come too late wait, rather than that all take turns.
    pub(super) fn permit(&mut self, address: SocketAddr, now: Instant) {
        let mut permitted = self.turn.permitted.iter_mut();
        if let Some((_, asked)) = permitted.find(|(at, _)| *at == address) {
            *asked = now;
            return;
        }
        if self.turn.permitted.is_full() {
            let all = self.turn.permitted.iter().enumerate();
            let old = all.min_by_key(|(_, (_, asked))| *asked);
            let is_old = |asked: Instant| now.saturating_since(asked) >= PERMITTED_LEAST;
            let Some((place, _)) = old.filter(|(_, (_, asked))| is_old(*asked)) else {
                return;
            };
            let (former, _) = self.turn.permitted.swap_remove(place);
            if let Some(client) = self.turn.client() {
                client.forget(former);
            }
        }
        self.turn.wait = now;
        if let Some(client) = self.turn.client()
            && client.permit(address, now).is_ok()
        {
            let _ = self.turn.permitted.push((address, now));
        }
    }

    /// Which ways lead to a peer by servers of others may be others now.
    pub(in crate::node) fn ways_changed(&mut self, node: NodeId, now: Instant) {
        let Some(record) = self.record_of(node) else {
            return;
        };
        let relays = self.relays_to(node, &record, now);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.set_relays(&relays, now);
        }
        self.follow_path(node, now);
    }

    /// A challenge along a way was answered.
    pub(in crate::node) fn turn_answered(&mut self, node: NodeId, side: Side, now: Instant) {
        if self.turn.ways.proves(side, node, now) {
            if let Some(address) = self.turn.ways.address(side, node) {
                self.probes.answered(address.ip());
            }
            self.ways_changed(node, now);
        }
    }

    /// The ways by TURN servers that carry to a peer. Both sides prefer the one through the server
    /// of the node with the lesser id.
    pub(in crate::node) fn turns_to(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let own = self.network.as_ref().map(|network| network.own.node);
        let sides = match own.is_some_and(|own| own < node) {
            true => [Side::Ours, Side::Theirs],
            false => [Side::Theirs, Side::Ours],
        };
        let carries = move |side: &Side| self.turn.ways.is_proven(*side, node);
        sides.into_iter().filter(carries).map(Side::id)
    }

    /// Says to a peer which of the addresses it is told leads through a TURN server.
    pub(in crate::node) fn tell_turn_to(&mut self, node: NodeId, now: Instant) {
        if self.turn.servers.is_empty() {
            return;
        }
        let relayed = self.turn.relayed();
        if let Some(session) = self.stands(node) {
            self.say(session, &Message::Notice(Notice::Turn { relayed }), now);
        }
    }

    /// A peer says which of its addresses leads through a TURN server.
    pub(in crate::node) fn peer_turns(
        &mut self,
        node: NodeId,
        relayed: Option<SocketAddr>,
        now: Instant,
    ) {
        if !self.peers.contains_key(&node) || !self.turn.ways.told(node, relayed, now) {
            return;
        }
        if let (Some(address), Some(peer)) = (relayed, self.peers.get_mut(&node)) {
            // Until now it looked like one that leads to the peer itself.
            let was_proven = peer.path.drop_direct(address, now);
            if was_proven {
                self.turn.ways.proves(Side::Theirs, node, now);
            }
        }
        self.ways_changed(node, now);
        self.timers.housekeeping_at(now);
    }

    /// A session with a peer began along a way: that went there and back.
    pub(in crate::node) fn turn_shook(
        &mut self,
        node: NodeId,
        endpoint: Endpoint,
        now: Instant,
    ) -> Endpoint {
        let endpoint = self.turned(node, endpoint, now);
        if let Endpoint::Relayed { relay, .. } = endpoint
            && let Some(side) = Side::of(relay)
        {
            self.turn_answered(node, side, now);
        }
        self.turn.ways.retry(node, now);
        endpoint
    }

    /// An endpoint, for people.
    pub(in crate::node) fn endpoint_text(&self, endpoint: Endpoint) -> String {
        let Endpoint::Relayed { relay, node } = endpoint else {
            return endpoint.to_string();
        };
        if let Some(server) = derper_of(relay) {
            return alloc::format!("by DERP server {}", self.derper_name(server));
        }
        match Side::of(relay) {
            Some(Side::Ours) => {
                let in_use = self.turn.in_use();
                let server = in_use.and_then(|server| self.turn.servers.get(server));
                let name = server.map_or("", |one| one.server.name.as_str());
                alloc::format!("by TURN server {name}")
            }
            Some(Side::Theirs) => match self.turn.ways.address(Side::Theirs, node) {
                Some(address) => alloc::format!("by its TURN server at {}", address.ip()),
                None => "by its TURN server".into(),
            },
            None => endpoint.to_string(),
        }
    }

    /// The servers that were entered, and what became of them.
    pub(in crate::node) fn turn_views(&self) -> Vec<TurnView> {
        let in_use = self.turn.in_use();
        let servers = self.turn.servers.iter().enumerate();
        servers
            .map(|(at, entered)| {
                let is_it = in_use == Some(at);
                let relayed = self.turn.relayed().filter(|_| is_it);
                TurnView {
                    server: entered.server.name.clone(),
                    state: match (relayed, is_it, &entered.trouble) {
                        (Some(_), ..) => "up",
                        (None, true, None) => "asked",
                        (None, _, Some(_)) => "failed",
                        (None, false, None) => "idle",
                    }
                    .into(),
                    relayed: relayed.map(|address| address.to_string()),
                    reaches: if is_it { self.turn.ways.reached() } else { 0 },
                    why: entered.trouble.clone(),
                }
            })
            .collect()
    }
}
