//! Whoever is behind fetches before it delivers.
//!
//! Two members compare how far their issuers have come when their first control session stands
//! (`Hello`). Until then, and while the one that is behind fetches what it lacks, what the other
//! sends is held here, a few packets of it; a peer whose control session doesn't come is let
//! through after [`PATIENCE`], for what is held on disk is still valid.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Cursor, HeadSummary, MAX_HEADS, Reply, Request};
use altnet_wire::time::{Duration, Instant};

use super::apps::Via;
use super::intake::Carrier;
use super::sessions::Asked;
use super::{DropReason, Event, Node, Verdict};
use crate::control::SessionId;

/// How long a peer's packets wait for its Hello.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long they wait for the revocations it knows of.
const CATCHING: Duration = Duration::from_secs(10);
/// Peers whose packets are held at a time, each with the queue of one.
const PEERS_HELD: usize = 4;

/// Pages a peer that is behind asks for in a row; the longest list of revocations takes fewer.
const CATCH_PAGES: u8 = 64;

/// Whether a peer's packets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Heads were not compared yet; since when packets wait for it.
    Shut(Option<Instant>),
    /// What it knows of is being fetched, since then.
    Catching(Instant),
    /// They pass.
    Open,
}

impl Gate {
    /// When it opens by itself.
    fn opens(self) -> Instant {
        match self {
            Self::Shut(None) => Instant::NEVER,
            Self::Shut(Some(since)) => since.after(PATIENCE),
            Self::Catching(since) => since.after(CATCHING),
            Self::Open => Instant::ZERO,
        }
    }
}

/// Packets that wait, and those that wait no longer.
#[derive(Debug, Default)]
pub(super) struct Held {
    waiting: VecDeque<(NodeId, Via, Vec<u8>)>,
    ready: VecDeque<(NodeId, Via, Vec<u8>)>,
}

impl Held {
    fn hold(
        &mut self,
        node: NodeId,
        via: Via,
        packet: &[u8],
        per_peer: usize,
    ) -> Result<(), DropReason> {
        let its = self.waiting.iter().filter(|(of, ..)| *of == node).count();
        if its >= per_peer || self.waiting.len() >= per_peer * PEERS_HELD {
            return Err(DropReason::HeadBehind);
        }
        self.waiting.push_back((node, via, packet.into()));
        Ok(())
    }

    fn release(&mut self, node: NodeId) {
        let (its, others) = core::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(of, ..)| *of == node);
        self.waiting = others;
        self.ready.extend(its);
    }

    /// Lets go of what a former peer sent.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.waiting.retain(|(of, ..)| *of != node);
        self.ready.retain(|(of, ..)| *of != node);
    }
}

impl<A: Aead> Node<A> {
    /// Passes the frame's packet from `node` on to be judged, or holds it.
    pub(super) fn pass_gate(
        &mut self,
        node: NodeId,
        via: Via,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let peer = self.peers.get_mut(&node).ok_or(DropReason::Stranger)?;
        if peer.gate.opens() <= now {
            if peer.gate != Gate::Open {
                self.open_gate(node);
            }
            return self.inbound(node, via, frame, now);
        }
        if peer.gate == Gate::Shut(None) {
            peer.gate = Gate::Shut(Some(now));
        }
        let opens = peer.gate.opens();
        self.timers.housekeeping_at(opens);
        let most = self.config.limits.queued_per_peer.into();
        self.held.hold(node, via, frame.packet(), most)?;
        Ok(Verdict::Consumed)
    }

    /// Holds what `node` sends until what it knows of was fetched.
    pub(super) fn shut_gate(&mut self, node: NodeId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            if !matches!(peer.gate, Gate::Catching(_)) {
                peer.gate = Gate::Catching(now);
            }
            let opens = peer.gate.opens();
            self.timers.housekeeping_at(opens);
        }
    }

    /// Lets through what `node` sends, and what it has sent.
    pub(super) fn open_gate(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node)
            && core::mem::replace(&mut peer.gate, Gate::Open) != Gate::Open
        {
            self.held.release(node);
        }
    }

    /// Opens the gates that have been shut for long enough. Returns when the next one opens.
    pub(super) fn tend_gates(&mut self, now: Instant) -> Instant {
        let mut next = Instant::NEVER;
        let mut due: heapless::Vec<NodeId, PEERS_HELD> = heapless::Vec::new();
        for (node, peer) in &self.peers {
            match peer.gate {
                Gate::Open => {}
                gate if gate.opens() > now => next = next.min(gate.opens()),
                // Those there is no room for have their turn in the next round.
                _ => {
                    if due.push(*node).is_err() {
                        next = now;
                    }
                }
            }
        }
        for node in due {
            self.open_gate(node);
        }
        next
    }

    /// The next packet that was held, put into the frame and judged. Returns what becomes of it,
    /// if anything.
    pub(super) fn poll_held(
        &mut self,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<Option<Verdict>> {
        let (node, via, packet) = self.held.ready.pop_front()?;
        let judged = match frame.set(&packet) {
            Ok(()) => self.inbound(node, via, frame, now),
            Err(_) => Err(DropReason::TooLarge),
        };
        if let Err(reason) = judged {
            self.refusals.sealed_by(node);
            self.refusals.refuse_datagram(reason);
        }
        Some(judged.map_err(|reason| self.counters.drop(reason)).ok())
    }

    /// If the other side knows of newer revocations, they are fetched before anything of it
    /// is delivered.
    pub(super) fn compare_heads(
        &mut self,
        session: SessionId,
        node: NodeId,
        heads: &heapless::Vec<HeadSummary, MAX_HEADS>,
        now: Instant,
    ) {
        let Some(network) = &self.network else {
            return;
        };
        let own = network.heads();
        let counter = |issuer| {
            let mut known = network.registry.heads();
            known
                .find(|(key, _, _)| *key == issuer)
                .map(|(_, at, _)| at)
        };
        let behind = heads.iter().any(|head| {
            network.registry.is_issuer(&head.issuer)
                && counter(head.issuer).is_none_or(|mine| mine < head.counter)
        });
        // A head may be here and what it counts withheld.
        if behind || network.registry.is_behind() {
            self.shut_gate(node, now);
            self.tell(Event::HeadBehind { node });
            let request = Request::Catch {
                heads: own,
                cursor: Cursor::default(),
            };
            self.ask(session, &request, Asked::Catch(node, 1), now);
        } else {
            self.open_gate(node);
        }
    }

    /// A page of what a peer has newer.
    pub(super) fn caught(
        &mut self,
        session: SessionId,
        node: NodeId,
        pages: u8,
        reply: &Reply<'_>,
        now: Instant,
    ) {
        if let Reply::Records {
            records,
            cursor,
            more,
        } = reply
        {
            self.take_records(records, Carrier::Member, now);
            if let Some(network) = &self.network
                && network.registry.is_behind()
                && *more
                && pages < CATCH_PAGES
            {
                let request = Request::Catch {
                    heads: network.heads(),
                    cursor: *cursor,
                };
                self.ask(session, &request, Asked::Catch(node, pages + 1), now);
                return;
            }
        }
        // Caught up, or the other side can't help: a stale head was told, and what is held is
        // still valid.
        self.open_gate(node);
    }
}
