//! The search for a way through: begun by a relay's word, its packets handed out one by one, and the
//! ports that lead somewhere afterwards.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Message, Notice};
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{self, Class, Method, TransactionId};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use crate::node::{Event, Node, Output};
use crate::path::search::{Ended, Run, Search, Step};

/// How long no ports are opened after a NAT gave no more.
const QUOTA_PAUSE: Duration = Duration::from_secs(3600);
/// How long a further port is kept that leads nowhere any more.
const KEEP: Duration = Duration::from_secs(30);
/// Ports of one search, those of the ones before that lead somewhere not counted.
const BLOCK: u16 = 512;
/// Blocks of ports that take turns.
const BLOCKS: u16 = 16;
/// Copies of one challenge.
const COPIES: usize = 32;
/// Bytes of a sealed challenge at most.
const CHALLENGE_BYTES: usize = 192;
/// Questions to relays without an answer at a time.
const ASKS: usize = 8;
/// A question that an answer to is no larger than (RFC 8489 section 5: the header; 12 or 24 bytes
/// of address).
const ASK_BYTES: usize = 64;

/// A peer that is reached through a further port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) peer: SocketAddr,
    pub(super) port: PortId,
    alive: Instant,
}

/// A search, and what it is about to send.
#[derive(Debug)]
pub(super) struct Running {
    node: NodeId,
    /// Where the relay sees the peer.
    peer: SocketAddr,
    /// One, or both sides of one where nobody knows yet how either NAT maps.
    searches: Vec<Search, 2>,
    relay: SocketAddr,
    pub(super) next: Instant,
    /// A sealed challenge, and where copies of it go.
    challenge: Vec<u8, CHALLENGE_BYTES>,
    copies: Vec<(SocketAddr, PortId), COPIES>,
    asks: Vec<(TransactionId, PortId), ASKS>,
    unsent: Vec<(TransactionId, PortId), ASKS>,
    tell: Option<Run>,
}

impl<A: Aead> Node<A> {
    /// A relay says where a peer is that wants to meet this node too.
    pub(in crate::node) fn handle_meeting(
        &mut self,
        relay: NodeId,
        with: NodeId,
        address: SocketAddr,
        now: Instant,
    ) {
        let Some(relay) = self.relays.get(&relay).and_then(|link| link.address) else {
            return;
        };
        let Some(peer) = self.peers.get(&with) else {
            return;
        };
        let is_expected = peer.meeting.expected > now && self.traversal.running.is_none();
        let is_relayed = matches!(peer.path.current(), Some(Endpoint::Relayed { .. }));
        if !is_expected || !is_relayed || !peer.path.is_told_at(address.ip()) {
            return;
        }
        let sides = self.sides(&peer.meeting, now);
        let traversal = &mut self.traversal;
        let in_use = |block: u16| traversal.bound.iter().any(|b| b.port.0 / BLOCK == block);
        let mut blocks = (1..=BLOCKS).map(|n| (traversal.block + n) % BLOCKS + 1);
        let Some(block) = blocks.find(|block| !in_use(*block)) else {
            return;
        };
        traversal.block = block;
        let chance = self.rng.next_u64();
        let begin = |side| Search::new(side, address, block * BLOCK, chance, now);
        let searches: Vec<Search, 2> = sides.into_iter().map(begin).collect();
        if searches.is_empty() {
            return;
        }
        self.traversal.running = Some(Running {
            node: with,
            peer: address,
            searches,
            relay,
            next: now,
            challenge: Vec::new(),
            copies: Vec::new(),
            asks: Vec::new(),
            unsent: Vec::new(),
            tell: None,
        });
        if let Some(peer) = self.peers.get_mut(&with) {
            let pause = peer.meeting.next_pause();
            peer.meeting.next = Some(now.after(pause));
            peer.meeting.ended = None;
        }
        self.tend_search(now);
    }

    /// A peer that looks for one of this node's ports, or whose ports this node looks for, says how
    /// its NAT goes on.
    pub(in crate::node) fn peer_goes_on(&mut self, node: NodeId, run: Run) {
        if let Some(running) = &mut self.traversal.running
            && running.node == node
        {
            for search in &mut running.searches {
                search.peer_goes_on(run);
            }
        }
    }

    /// Does what the search has to do now.
    pub(in crate::node) fn tend_search(&mut self, now: Instant) {
        let Some(mut running) = self.traversal.running.take_if(|run| run.next <= now) else {
            return;
        };
        let node = running.node;
        let path = self.peers.get(&node).map(|peer| peer.path.current());
        let is_relayed = matches!(path, Some(Some(Endpoint::Relayed { .. })));
        let Some(session) = self.stands(node).filter(|_| is_relayed) else {
            // Found, or gone.
            self.end_search(node, None);
            return;
        };
        if !running.copies.is_empty() {
            // Not sent yet: the driver is slower than time.
            running.next = now.after(Duration::from_millis(20));
            self.traversal.running = Some(running);
            return;
        }
        running.next = Instant::NEVER;
        let mut ended = None;
        running.searches.retain_mut(|search| {
            let left = loop {
                if running.copies.is_full() {
                    break Ok(now);
                }
                match search.poll(now) {
                    Step::Send { to, port } => {
                        self.traversal.open_port(port);
                        let _ = running.copies.push((to, port));
                    }
                    Step::Ask { port } => {
                        self.traversal.open_port(port);
                        let ask = (TransactionId(self.rng.array()), port);
                        if running.asks.is_full() {
                            running.asks.remove(0);
                        }
                        let _ = running.asks.push(ask);
                        let _ = running.unsent.push(ask);
                    }
                    Step::Tell(run) => running.tell = Some(run),
                    Step::Wait(until) => break Ok(until),
                    Step::End(why) => break Err(why),
                }
            };
            match left {
                Ok(until) => running.next = running.next.min(until),
                Err(why) => ended = Some(why),
            }
            left.is_ok()
        });
        if let Some(Run { last, step }) = running.tell.take() {
            let notice = Notice::Ports { last, step };
            self.say(session, &Message::Notice(notice), now);
        }
        if ended == Some(Ended::Quota) {
            self.traversal.quota_until = now.after(QUOTA_PAUSE);
        }
        if let (Some(why), true) = (ended, running.searches.is_empty()) {
            self.end_search(node, Some(why));
            return;
        }
        if !running.copies.is_empty() {
            let marker = SocketAddr::new(running.peer.ip(), 0);
            self.control
                .challenge(session, Endpoint::Direct(marker), now);
        }
        self.traversal.running = Some(running);
    }

    /// Ends a search; the ports that lead somewhere stay open.
    fn end_search(&mut self, node: NodeId, why: Option<Ended>) {
        self.traversal.running = None;
        let bound = self.traversal.bound.clone();
        self.traversal
            .close(|port| bound.iter().any(|bound| bound.port == port));
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.meeting.ended = why;
            if let Some(why) = why {
                self.tell(Event::SearchEnded { node, why });
            }
        }
    }

    /// Whether a datagram goes to the places of a search rather than to `to`; takes it if so.
    pub(in crate::node) fn takes_challenge(&mut self, to: Endpoint, frame: &Frame<'_>) -> bool {
        let Endpoint::Direct(address) = to else {
            return false;
        };
        if address.port() != 0 {
            return false;
        }
        if let Some(running) = &mut self.traversal.running {
            running.challenge.clear();
            if running.challenge.extend_from_slice(frame.packet()).is_err() {
                running.copies.clear();
            }
        }
        true
    }

    /// What the search sends next, and ports that nobody needs any more.
    pub(in crate::node) fn poll_traversal(&mut self, frame: &mut Frame<'_>) -> Option<Output> {
        if let Some(port) = self.traversal.closing.pop() {
            return Some(Output::ClosePort { port });
        }
        let own = self.poll_filter(frame).or_else(|| self.poll_knocks(frame));
        if own.is_some() {
            return own;
        }
        let running = self.traversal.running.as_mut()?;
        if !running.unsent.is_empty() {
            let (transaction, port) = running.unsent.remove(0);
            write_ask(transaction, frame)?;
            let to = self
                .traversal
                .outward(self.traversal.running.as_ref()?.relay);
            return Some(Output::Send { to, port });
        }
        if running.challenge.is_empty() {
            return None;
        }
        let Some((to, port)) = running.copies.pop() else {
            running.challenge.clear();
            return None;
        };
        frame.set(&running.challenge).ok()?;
        let to = self.traversal.outward(to);
        Some(Output::Send { to, port })
    }

    /// A relay's answer to how one of our ports looks; whether it is one that was waited for.
    pub(in crate::node) fn handle_stun_answer(
        &mut self,
        port: PortId,
        datagram: &[u8],
    ) -> Option<()> {
        let running = self.traversal.running.as_mut()?;
        let message = stun::Message::parse(datagram).ok()?;
        if message.class() != Class::Success || message.method() != Method::BINDING {
            return None;
        }
        let ask = (message.transaction(), port);
        let place = running.asks.iter().position(|asked| *asked == ask)?;
        let seen = message.xor_address(stun::attribute::XOR_MAPPED_ADDRESS)?;
        running.asks.swap_remove(place);
        for search in &mut running.searches {
            search.seen(port, seen);
        }
        Some(())
    }

    /// Something authentic came to a further port from `from`: it is answered from there.
    pub(in crate::node) fn heard_at(&mut self, port: PortId, from: SocketAddr, now: Instant) {
        let traversal = &mut self.traversal;
        if let Some(bound) = traversal.bound.iter_mut().find(|bound| bound.peer == from) {
            if now.saturating_since(bound.alive) > Duration::from_secs(1) || bound.port == port {
                bound.port = port;
                bound.alive = now;
            }
            return;
        }
        let searched = traversal.running.as_ref().map(|run| run.peer.ip());
        if searched == Some(from.ip()) {
            let alive = now;
            let peer = from;
            let _ = traversal.bound.push(Bound { peer, port, alive });
        }
    }

    /// Lets go of further ports that lead nowhere any more.
    pub(in crate::node) fn tend_ports(&mut self, now: Instant) {
        if self.traversal.bound.is_empty() {
            return;
        }
        let peers = &self.peers;
        let leads = |to| peers.values().any(|peer| peer.path.is_alive_at(to));
        self.traversal.bound.retain_mut(|bound| {
            if leads(bound.peer) {
                bound.alive = now;
            }
            now.saturating_since(bound.alive) < KEEP
        });
        if self.traversal.running.is_none() {
            let bound = self.traversal.bound.clone();
            self.traversal
                .close(|port| bound.iter().any(|bound| bound.port == port));
        }
    }
}

/// Asks how a port looks, in a request that its answer isn't larger than.
fn write_ask(transaction: TransactionId, frame: &mut Frame<'_>) -> Option<()> {
    let mut out = [0; ASK_BYTES];
    let mut writer = Writer::new(&mut out, Class::Request, Method::BINDING, transaction).ok()?;
    let padding = [b' '; ASK_BYTES - stun::HEADER_BYTES - stun::attribute::ATTRIBUTE_HEADER_BYTES];
    writer.put(stun::attribute::SOFTWARE, &padding).ok()?;
    frame.set(writer.bytes()).ok()
}
