//! Relaying, both sides: registering with relays, and forwarding for others.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::message::{MAX_PRESENCE_RELAYS, Refusal, Reply, Request};
use altnet_wire::record::Roles;
use altnet_wire::relay::{RelayPacket, Token};
use altnet_wire::time::{Duration, Instant};

use super::sessions::Asked;
use super::{DropReason, Event, Node, Verdict};
use crate::control::SessionId;
use crate::relay::{LIFETIME_S, RelayDrop};

/// How often a registration is renewed: often enough to keep a NAT's mapping for UDP open
/// (RFC 4787 REQ-5 allows two minutes, many keep only 30 s).
pub(super) const RENEW: Duration = Duration::from_secs(20);

/// A relay that says it doesn't know us from here is asked again so soon, and no sooner.
const AGAIN: Duration = Duration::from_secs(1);

/// A relay that this node wants to be reached through.
#[derive(Debug, Default)]
pub(super) struct RelayLink {
    pub(super) session: Option<SessionId>,
    pub(super) address: Option<SocketAddr>,
    pub(super) token: Option<Token>,
    pub(super) observed: Option<SocketAddr>,
    /// When the registration is next renewed.
    pub(super) renew: Instant,
    /// When the registration ends if the relay doesn't answer.
    pub(super) ends: Instant,
}

impl RelayLink {
    /// The relay's address and our token, if it forwards for us.
    pub(super) fn ready(&self) -> Option<(SocketAddr, Token)> {
        Some((self.address?, self.token?))
    }
}

impl<A: Aead> Node<A> {
    /// A datagram with a relay header.
    pub(super) fn handle_relay(
        &mut self,
        from: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let (packet, header) =
            RelayPacket::parse(frame.packet()).map_err(|_| DropReason::NotOurs)?;
        match packet {
            RelayPacket::Send { token, to } => {
                let own = self.relay_node().ok_or(DropReason::RelayToken)?;
                let Ok(sender) = self.relay.sender(from, token, now) else {
                    return self.unknown_token(token, from, frame);
                };
                frame.pop_front(header);
                if to == own {
                    let from = Endpoint::Relayed {
                        relay: own,
                        node: sender,
                    };
                    return self.handle_datagram(from, frame, now);
                }
                let to = match self.relay.forward(to, frame.len(), now) {
                    Ok(to) => to,
                    Err(RelayDrop::NoSuchNode) => return Err(DropReason::RelayNoSuchNode),
                    Err(RelayDrop::BadToken) => return Err(DropReason::RelayToken),
                };
                RelayPacket::Receive { from: sender }
                    .push(frame)
                    .map_err(|_| DropReason::TooLarge)?;
                Ok(Verdict::Send {
                    to,
                    port: PortId::MAIN,
                })
            }
            RelayPacket::Receive { from: node } => {
                let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
                frame.pop_front(header);
                self.handle_datagram(Endpoint::Relayed { relay, node }, frame, now)
            }
            RelayPacket::Unknown { token } => {
                let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
                if let Some(link) = self.relays.get_mut(&relay)
                    && link.token == Some(token)
                {
                    // Registering again, from where we are now, also has the relay
                    // challenge this address and move us.
                    link.renew = link.renew.min(now.after(AGAIN));
                    self.timers.housekeeping_at(link.renew);
                }
                Ok(Verdict::Consumed)
            }
        }
    }

    /// Tells a client whose token isn't good from where it is that it should register again.
    /// Shorter than what it answers; a token nobody holds gets no answer.
    fn unknown_token(
        &mut self,
        token: Token,
        from: SocketAddr,
        frame: &mut Frame<'_>,
    ) -> Result<Verdict, DropReason> {
        if self.relay.holder(token).is_none() {
            return Err(DropReason::RelayToken);
        }
        self.counters.drop(DropReason::RelayToken);
        RelayPacket::Unknown { token }
            .push(frame)
            .map_err(|_| DropReason::TooLarge)?;
        Ok(Verdict::Send {
            to: from,
            port: PortId::MAIN,
        })
    }

    /// This node's id if it is a relay.
    pub(super) fn relay_node(&self) -> Option<NodeId> {
        let own = self.network.as_ref()?.own;
        self.own_roles().contains(Roles::RELAY).then_some(own.node)
    }

    fn relay_at(&self, address: SocketAddr) -> Option<NodeId> {
        self.relays
            .iter()
            .find(|(_, link)| link.address == Some(address))
            .map(|(node, _)| *node)
    }

    /// Answers a member that wants to be forwarded to.
    pub(super) fn register(
        &mut self,
        session: SessionId,
        node: NodeId,
        from: Endpoint,
        now: Instant,
    ) -> Reply<'static> {
        if self.relay_node().is_none() {
            return Reply::Refused(Refusal::NotAllowed);
        }
        // Through another relay there is no address to bind a token to.
        let Some(Endpoint::Direct(address)) = self.control.endpoint(session) else {
            return Reply::Refused(Refusal::NotAllowed);
        };
        let fresh = Token(self.rng.next_u64());
        // The session's endpoint has proven itself; where this request came from may not have.
        let bound = self.relay.address(node).unwrap_or(address);
        if let Endpoint::Direct(from) = from
            && from != bound
        {
            if let Some(state) = self.sessions.get_mut(&session) {
                state.moving = Some(from);
            }
            if self.probes.take(node, from.ip(), now) {
                self.control.challenge(session, Endpoint::Direct(from), now);
            }
        }
        match self.relay.register(node, address, fresh, now) {
            Ok(token) => Reply::Registered {
                token: token.0,
                observed: from.direct().unwrap_or(address),
                lifetime_s: LIFETIME_S,
            },
            Err(_) => Reply::Refused(Refusal::Busy),
        }
    }

    /// A relay forwards for us.
    pub(super) fn registered(
        &mut self,
        relay: NodeId,
        token: u64,
        observed: SocketAddr,
        lifetime_s: u32,
        now: Instant,
    ) {
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        let was = (link.token, link.observed);
        let by = link.address;
        link.token = Some(Token(token));
        link.observed = Some(observed);
        link.ends = now.after(Duration::from_secs(lifetime_s.into()));
        if was != (link.token, link.observed) {
            self.tell(Event::RelayUp { relay, observed });
            self.relays_changed(now);
            self.presence_changed(now);
        }
        if let Some(by) = by {
            self.seen_as(by.ip(), observed, now);
        }
    }

    /// A relay stopped answering.
    pub(super) fn relay_lost(&mut self, relay: NodeId, now: Instant) {
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        link.session = None;
        if link.token.take().is_some() {
            link.observed = None;
            self.tell(Event::RelayDown { relay });
            self.relays_changed(now);
            self.presence_changed(now);
        }
    }

    /// Asks relays to forward, and again before they forget.
    pub(super) fn renew_registrations(&mut self, now: Instant) {
        let due: heapless::Vec<NodeId, MAX_PRESENCE_RELAYS> = self
            .relays
            .iter()
            .filter(|(_, link)| link.renew <= now)
            .map(|(node, _)| *node)
            .take(MAX_PRESENCE_RELAYS)
            .collect();
        for relay in due {
            let Some(link) = self.relays.get_mut(&relay) else {
                continue;
            };
            link.renew = now.after(RENEW);
            if link.token.is_some() && link.ends <= now {
                self.relay_lost(relay, now);
                continue;
            }
            if let Some(session) = link.session {
                self.ask(session, &Request::Register, Asked::Register(relay), now);
            }
        }
    }

    /// When [`Node::renew_registrations`] is next due.
    pub(super) fn registrations_deadline(&self) -> Instant {
        self.relays
            .values()
            .filter(|link| link.session.is_some())
            .map(|link| link.renew)
            .min()
            .unwrap_or(Instant::NEVER)
    }
}
