//! Relays that have to get to know this node anew.
//!
//! One that restarted knows neither the token nor the session of its clients. It says `Unknown` to the
//! first datagram that a client has it forward. The client registers again; if that isn't answered soon
//! the session is gone as well, and the relay is called anew at once rather than when the session's own
//! patience ends.
//!
//! One that sees this node at another address forwards nothing from there until its challenge was
//! answered. What peers were told meanwhile is lost, and said again as soon as it passes.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::MAX_PRESENCE_RELAYS;
use altnet_wire::time::{Duration, Instant};

use super::Node;
use super::relays::RelayLink;
use crate::control::CloseReason;

/// How long a registration may take beyond two round trips.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long what a relay said of itself says where it is.
const SPOKE: Duration = Duration::from_secs(10);
/// A round trip that was never measured.
const UNMEASURED: Duration = Duration::from_millis(200);

impl<A: Aead> Node<A> {
    /// Does what is due with relays that get to know this node anew. Returns when to look again.
    pub(super) fn tend_relays(&mut self, now: Instant) -> Instant {
        self.call_forgetful(now).min(self.say_again(now))
    }

    fn call_forgetful(&mut self, now: Instant) -> Instant {
        let mut next = Instant::NEVER;
        let mut forgot = heapless::Vec::<_, MAX_PRESENCE_RELAYS>::new();
        for (relay, link) in &self.relays {
            let (Some(unknown), Some(session)) = (link.unknown_since, link.session) else {
                continue;
            };
            let rtt = self.control.rtt(session).unwrap_or(UNMEASURED);
            if link.asked < unknown {
                continue;
            }
            let until = link.asked.after(rtt * 2 + PATIENCE);
            if until > now {
                next = next.min(until);
            } else {
                // The others next time.
                let _ = forgot.push((*relay, session));
            }
        }
        for (relay, session) in forgot {
            self.end_session(session, CloseReason::Done, now);
            if let Some(link) = self.relays.get_mut(&relay) {
                link.unknown_since = None;
            }
            if let Some(peer) = self.peers.get_mut(&relay) {
                peer.retry_at = now;
                peer.failures = 0;
            }
            next = now;
        }
        next
    }

    /// A relay is about to forward from where it sees this node now.
    pub(super) fn carries_soon(&mut self, relay: NodeId, now: Instant) {
        if let Some(link) = self.relays.get_mut(&relay) {
            let rtt = link.session.and_then(|session| self.control.rtt(session));
            link.carries_from = Some(now.after(rtt.unwrap_or(UNMEASURED)));
        }
    }

    /// Sends again what peers have not acknowledged, by relays that forward by now.
    fn say_again(&mut self, now: Instant) -> Instant {
        let mut next = Instant::NEVER;
        for (relay, link) in &mut self.relays {
            let Some(from) = link.carries_from else {
                continue;
            };
            if from > now {
                next = next.min(from);
                continue;
            }
            link.carries_from = None;
            for session in self.peers.values().filter_map(|peer| peer.session) {
                let endpoint = self.control.endpoint(session);
                if let Some(by @ Endpoint::Relayed { relay: at, .. }) = endpoint
                    && at == *relay
                {
                    self.control.set_endpoint(session, by);
                }
            }
        }
        next
    }
}

impl RelayLink {
    /// The relay says that it doesn't know our token.
    pub(super) fn is_unknown(&mut self, now: Instant) {
        self.unknown_since.get_or_insert(now);
    }

    /// From where it said so of late, or where others say that it is: it has restarted, and is called there.
    pub(super) fn spoke_of_late(&self, now: Instant) -> Option<SocketAddr> {
        let (from, when) = self.spoke?;
        (now.saturating_since(when) < SPOKE).then_some(from)
    }
}
