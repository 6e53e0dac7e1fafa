//! Control sessions that are wanted: calls, introductions, and challenges along paths.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::Request;
use altnet_wire::time::{Duration, Instant};

use super::Node;
use super::peers::RETRY;
use super::sessions::Asked;
use crate::control::{CloseReason, SessionId};

/// A relay or directory that answers no challenge for this long is called anew.
const SERVER_SILENT: Duration = Duration::from_secs(10);

/// Peers asked at a time to pass on where this node is.
const INTRODUCERS: usize = 4;

impl<A: Aead> Node<A> {
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
            Some(session) if self.sessions.contains_key(&session) => {
                peer.path.deadline(now).min(self.size_deadline(node, now))
            }
            // The call says itself what became of it.
            Some(_) => Instant::NEVER,
            None => peer.retry_at,
        }
    }

    pub(super) fn seek_session(&mut self, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        if !peer.wants_session(now) || peer.retry_at > now {
            return;
        }
        let (said, failures) = (self.said_to_be_at(node, now), peer.failures);
        let endpoint = said.or(peer.path.current());
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
                            peer.called_at = Some(endpoint);
                            peer.is_on_word = said.is_some();
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

    /// Where a relay is called that fell silent, so that only another one leads to it, and that may be back
    /// where it always was: it spoke from there, or others saw it.
    fn said_to_be_at(&self, node: NodeId, now: Instant) -> Option<Endpoint> {
        let path = self.peers.get(&node)?.path.current();
        let by_another = matches!(path, Some(Endpoint::Relayed { relay, .. }) if relay != node);
        let link = self.relays.get(&node).filter(|_| by_another)?;
        link.spoke_of_late(now).map(Endpoint::Direct)
    }

    pub(super) fn ask_introduction(&mut self, to: NodeId, now: Instant) {
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

    pub(super) fn probe(&mut self, node: NodeId, now: Instant) {
        let pace = self.pace();
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        let Some(session) = peer.session.filter(|s| self.sessions.contains_key(s)) else {
            return;
        };
        let link = self.relays.get(&node);
        let rests = link.is_some_and(|link| link.rests(pace, now));
        if peer.wanted && rests && peer.is_idle(now) {
            // Small datagrams say whether it is there.
            peer.path.rest();
        } else if peer.wanted {
            // A relay's path is kept alive by its registration; it stays in use.
            peer.path.keep(now);
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
}
