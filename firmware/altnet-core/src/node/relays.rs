//! Relaying, both sides: registering with relays, and forwarding for others.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_wire::control::{DATA, INIT};
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::message::{MAX_PRESENCE_RELAYS, Refusal, Reply, Request};
use altnet_wire::record::Roles;
use altnet_wire::relay::{RelayPacket, Token};
use altnet_wire::time::{Duration, Instant};

use super::beside::Beside;
use super::keeps::RENEW_KEPT;
use super::load::BUSY;
use super::peers::Peer;
use super::sessions::Asked;
use super::streams::{Carriers, stream_of};
use super::{DropReason, Event, Node, Verdict};
use crate::control::SessionId;
use crate::path::keep::Keep;
use crate::relay::{LIFETIME_S, Parcel, RelayCounters, Way};

/// How often a registration is renewed: often enough to keep a NAT's mapping for UDP open
/// (RFC 4787 REQ-5 allows two minutes, many keep only 30 s).
pub(super) const RENEW: Duration = Duration::from_secs(20);

/// How long a relay that was rotated away from comes last.
const REST: Duration = Duration::from_secs(3600);
/// Relays that are further than the nearest by less are equally near, so that the order doesn't change
/// with every measurement.
const NEAR: Duration = Duration::from_millis(10);

/// Relays whose loads differ by less are equally busy.
const LIKE: u8 = 20;

/// What a relay sees of a client that comes over a stream.
const UNSEEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// The same until the relay has said once that it forwards.
const RENEW_SOON: Duration = Duration::from_secs(2);

/// How often what comes by a relay stands for an answer of its own.
const PASSED: Duration = Duration::from_millis(200);

/// A relay that says it doesn't know us from here is asked again so soon, and no sooner.
const AGAIN: Duration = Duration::from_millis(300);

/// A relay that this node wants to be reached through.
#[derive(Debug, Default)]
pub(super) struct RelayLink {
    pub(super) session: Option<SessionId>,
    pub(super) address: Option<SocketAddr>,
    pub(super) token: Option<Token>,
    pub(super) observed: Option<SocketAddr>,
    pub(super) beside: Beside,
    /// Since when the relay says that it doesn't know the token.
    pub(super) unknown_since: Option<Instant>,
    /// From where it said so last or where others say it is, and when.
    pub(super) spoke: Option<(SocketAddr, Instant)>,
    /// When others last said that it is back, as far as that was heeded.
    pub(super) returned: Option<Instant>,
    /// From when on it forwards again, which it didn't for a moment.
    pub(super) carries_from: Option<Instant>,
    /// When it was last asked to register this node.
    pub(super) asked: Instant,
    /// When the registration is next renewed.
    pub(super) renew: Instant,
    /// When the registration ends if the relay doesn't answer.
    pub(super) ends: Instant,
    pub(super) carriers: Carriers,
    /// Until when another relay is preferred; zero if none is.
    pub(super) rests_until: Instant,
    /// How busy it is, 0 to 100, as it says.
    pub(super) load: u8,
    /// Until when it forwards nothing of ours.
    pub(super) refused_until: Instant,
    /// What keeps the registration while nothing happens, and from when on it does.
    pub(super) keep: Keep,
    pub(super) keep_from: Instant,
    /// When something was relayed last.
    pub(super) used: Instant,
    /// When something that came by it last stood for an answer of its own.
    passed: Instant,
}

/// How to send to a relay that forwards for us.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carrier {
    Udp(SocketAddr, Token),
    Stream,
}

impl RelayLink {
    /// How to send to the relay, if it forwards for us.
    pub(super) fn ready(&self) -> Option<Carrier> {
        let token = self.token?;
        match self.carriers.by_stream {
            true => self.carriers.stream.then_some(Carrier::Stream),
            false => Some(Carrier::Udp(self.address?, token)),
        }
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
                self.charge(sender, Parcel::of(frame.packet()), now)?;
                if frame.packet().first() == Some(&INIT) {
                    self.calls_relay(sender, to, now);
                }
                match self.pass_on(sender, to, frame, now) {
                    Err(reason @ DropReason::RelayNoSuchNode) => {
                        self.bring_together(sender, to, now);
                        // So that it tries another relay at once.
                        self.counters.drop(reason);
                        RelayPacket::Absent { to }
                            .push(frame)
                            .map_err(|_| DropReason::TooLarge)?;
                        Ok(Verdict::Send {
                            to: from,
                            port: PortId::MAIN,
                        })
                    }
                    passed => passed,
                }
            }
            RelayPacket::Absent { to } => {
                let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
                self.absent(relay, to, now);
                Ok(Verdict::Consumed)
            }
            RelayPacket::Receive { from: node } => {
                let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
                frame.pop_front(header);
                self.relay_used(relay, now);
                // Everything else may be from anybody.
                let is_sealed = matches!(frame.packet(), [4, ..] | [DATA, ..]);
                let taken = self.handle_datagram(Endpoint::Relayed { relay, node }, frame, now)?;
                if is_sealed {
                    self.passed_by(relay, from, now);
                }
                Ok(taken)
            }
            RelayPacket::Keep { token, after_s } => {
                self.handle_keep(from, token, after_s, frame, now)
            }
            RelayPacket::Kept { token, after_s } => {
                let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
                self.handle_kept(relay, token, after_s, now)
            }
            RelayPacket::Unknown { token } => {
                let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
                if let Some(link) = self.relays.get_mut(&relay)
                    && link.token == Some(token)
                {
                    // Registering again, from where we are now, also has the relay
                    // challenge this address and move us.
                    link.renew = link.renew.min(link.asked.after(AGAIN).max(now));
                    link.keep.unknown(now);
                    link.spoke = Some((from, now));
                    link.is_unknown(now);
                    self.timers.housekeeping_at(link.renew);
                }
                Ok(Verdict::Consumed)
            }
        }
    }

    /// A relay sent on what a member sealed: it is there, and so is the way from it. Where much is lost,
    /// challenges to the one relay that is left would have it taken for silent while it carries.
    fn passed_by(&mut self, relay: NodeId, from: SocketAddr, now: Instant) {
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        if now.saturating_since(link.passed) < PASSED {
            return;
        }
        link.passed = now;
        if let Some(peer) = self.peers.get_mut(&relay)
            && peer.path.is_alive_at(from)
        {
            peer.path.heard(Endpoint::Direct(from), now);
        }
    }

    /// A relay says that a peer isn't there: it is sent to by another, if there is one that may know
    /// it, and what a handshake lost begins anew.
    pub(super) fn absent(&mut self, relay: NodeId, node: NodeId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if !peer.path.is_absent_at(relay, now) {
            return;
        }
        let index = peer.tunnel.index;
        self.follow_path(node, now);
        let stats = self.engine.stats(index, now).unwrap_or_default();
        if stats.is_shaking && !stats.is_up {
            let _ = self.engine.rekey(index, now);
        }
    }

    /// Tells a client whose token isn't good from where it is, or isn't known any more, that it should
    /// register again. No longer than what it answers.
    pub(super) fn unknown_token(
        &mut self,
        token: Token,
        from: SocketAddr,
        frame: &mut Frame<'_>,
    ) -> Result<Verdict, DropReason> {
        // A gateway that relays for its LAN alone says nothing to the world.
        if self.relay.holder(token).is_none() && !self.may_register(Some(Endpoint::Direct(from))) {
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

    /// This node's id if it is a relay, if only for its LANs.
    pub(super) fn relay_node(&self) -> Option<NodeId> {
        let own = self.network.as_ref()?.own;
        let is_relay = self.own_roles().contains(Roles::RELAY) || self.relays_for_lan();
        is_relay.then_some(own.node)
    }

    /// The relay at `address`: one with both families sends from the one that it knows this node
    /// by, whichever this node sends to.
    pub(super) fn relay_at(&self, address: SocketAddr) -> Option<NodeId> {
        let is_its = |node| {
            let peer: Option<&Peer> = self.peers.get(node);
            peer.is_some_and(|peer| peer.path.is_proven_at(address))
        };
        let mut links = self.relays.iter();
        let at = links.find(|(_, link)| link.address == Some(address));
        let at = at.or_else(|| self.relays.iter().find(|(node, _)| is_its(node)));
        at.map(|(node, _)| *node)
    }

    /// This node's addresses changed: relays are asked at once how they see it now, and what they
    /// saw before is told to nobody any more.
    pub(super) fn register_anew(&mut self, now: Instant) {
        for link in self.relays.values_mut() {
            link.observed = None;
            link.beside = Beside::default();
            link.renew = now;
        }
        self.presence.observed = None;
        self.timers.housekeeping_at(now);
    }

    /// Answers a member that wants to be forwarded to.
    pub(super) fn register(
        &mut self,
        session: SessionId,
        node: NodeId,
        from: Endpoint,
        now: Instant,
    ) -> Reply<'static> {
        if !self.may_register(self.control.endpoint(session)) {
            self.not_registered(node, now);
            return Reply::Refused(Refusal::NotAllowed);
        }
        if let Endpoint::Relayed { relay, node: at } = from
            && self.relay_node() != Some(relay)
            && at == node
        {
            // It reaches us no more but by another relay, and so do those who send to it.
            self.relay.remove(node);
            self.mesh_clients_changed();
            return Reply::Refused(Refusal::NotAllowed);
        }
        let fresh = Token(self.rng.next_u64());
        // The session's endpoint has proven itself; where this request came from may not have.
        let way = match self.control.endpoint(session) {
            Some(Endpoint::Direct(address)) => Some(Way::Udp(address)),
            Some(Endpoint::Relayed { relay, node: at }) if self.relay_node() == Some(relay) => {
                stream_of(at).map_or_else(|| self.relay.way(node), |s| Some(Way::Stream(s)))
            }
            // Through another relay there is no address to bind a token to.
            _ => None,
        };
        let Some(way) = way else {
            // Where this came from may become one.
            let is_stream =
                |end| matches!(end, Endpoint::Relayed { node, .. } if stream_of(node).is_some());
            if from.direct().is_some() || is_stream(from) {
                self.seems_moved(session, node, from, now);
            }
            return Reply::Refused(Refusal::NotAllowed);
        };
        let mut observed = UNSEEN;
        if let Way::Udp(address) = way {
            observed = from.direct().unwrap_or(address);
            let bound = self.relay.address(node).unwrap_or(address);
            if from.direct().is_some_and(|from| from != bound) {
                self.seems_moved(session, node, from, now);
            }
        }
        match self.relay.register(node, way, fresh, now) {
            Ok(token) => {
                self.mesh_clients_changed();
                self.say_load_to_new(node, now);
                Reply::Registered {
                    token: token.0,
                    observed,
                    lifetime_s: LIFETIME_S,
                }
            }
            Err(_) => Reply::Refused(Refusal::Busy),
        }
    }

    /// A client seems to be elsewhere than is known: it is challenged there.
    fn seems_moved(&mut self, session: SessionId, node: NodeId, from: Endpoint, now: Instant) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.moving = Some(from);
        }
        let may = |address: SocketAddr| self.probes.take(node, address.ip(), now);
        if from.direct().is_none_or(may) {
            self.control.challenge(session, from, now);
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
        let pace = self.pace();
        let is_near = self.nearby.gateway() == Some(relay);
        let address = self.address_of(relay);
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        // The path may have been there before this was a relay of ours.
        link.address = link.address.or(address);
        let was = (link.token, link.observed, link.carriers.by_stream);
        let by = link.address;
        // Over a stream the relay sees no address of ours that means anything to others.
        let is_seen = observed != UNSEEN;
        // Nor does what the gateway of our LAN sees.
        let is_told = is_seen && !is_near;
        link.token = Some(Token(token));
        link.unknown_since = None;
        link.observed = is_told.then_some(observed);
        if was.0.is_none() || link.carriers.by_stream == is_seen {
            link.carriers.by_stream = !is_seen;
            link.carriers.since = now;
        }
        if was.0.is_none() {
            link.settles(pace, now);
        }
        let ends = now.after(Duration::from_secs(lifetime_s.into()));
        link.ends = link.ends.max(ends);
        if was != (link.token, link.observed, link.carriers.by_stream) {
            if was.1.is_some() && is_told && was.1 != Some(observed) {
                // So do the others, maybe.
                self.keep_anew(now);
            }
            self.carries_soon(relay, now);
            self.tell(Event::RelayUp { relay, observed });
            self.relays_changed(now);
            self.presence_changed(now);
        }
        if let Some(by) = by.filter(|_| is_told) {
            self.seen_as(by.ip(), observed, now);
        }
    }

    /// A relay stopped answering.
    pub(super) fn relay_lost(&mut self, relay: NodeId, now: Instant) {
        if let Some(link) = self.relays.get_mut(&relay) {
            link.session = None;
            self.unregistered(relay, now);
        }
    }

    /// A relay forwards for this node no more.
    pub(super) fn unregistered(&mut self, relay: NodeId, now: Instant) {
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        link.keep = Keep::default();
        link.unknown_since = None;
        if link.token.take().is_some() {
            link.observed = None;
            link.beside = Beside::default();
            link.ends = Instant::ZERO;
            link.carriers.by_stream = false;
            link.carriers.since = now;
            self.tell(Event::RelayDown { relay });
            // Another is the home now, and nobody knows whether the NATs still let it in.
            self.keep_anew(now);
            self.relays_changed(now);
            self.presence_changed(now);
        }
    }

    /// Whether this node is a relay, how many clients it has, and what it forwarded.
    pub fn relaying(&self) -> (bool, usize, RelayCounters) {
        let is_relay = self.own_roles().contains(Roles::RELAY);
        (is_relay, self.relay.len(), *self.relay.counters())
    }

    /// The relays that forward for this node, its home first: the gateway of its LAN, then by UDP before a
    /// stream, the nearest first, of those that are equally near the less busy, those that rest or are too
    /// busy last.
    pub(super) fn homes(&self) -> impl Iterator<Item = NodeId> {
        let is_own = |relay: &NodeId| !self.nearby.is_others(*relay);
        let up = self.relays.iter();
        let up = up.filter(|(relay, link)| link.token.is_some() && is_own(relay));
        let rtt = |link: &RelayLink| self.control.rtt(link.session?);
        let nearest = up.clone().filter_map(|(_, link)| rtt(link)).min();
        let mut homes: alloc::vec::Vec<_> = up
            .map(|(node, link)| {
                let beyond = |rtt: Duration| rtt.saturating_sub(nearest.unwrap_or_default());
                let far = rtt(link).map(|rtt| beyond(rtt).as_micros() / NEAR.as_micros());
                let far = far.unwrap_or(u128::MAX);
                let is_busy = link.load >= BUSY;
                let is_far = self.nearby.gateway() != Some(*node);
                let load = link.load / LIKE;
                let order = (link.rests_until, is_busy, is_far);
                (order, link.carriers.by_stream, far, load, *node)
            })
            .collect();
        homes.sort_unstable();
        homes.into_iter().map(|(.., node)| node)
    }

    /// Makes another relay the home for an hour. Returns which it is now, and none if there is no
    /// other.
    pub(super) fn rotate_relay(&mut self, now: Instant) -> Option<NodeId> {
        let mut homes = self.homes();
        let (home, next) = (homes.next()?, homes.next()?);
        drop(homes);
        let link = self.relays.get_mut(&home)?;
        link.rests_until = now.after(REST);
        self.presence_changed(now);
        self.relays_changed(now);
        Some(next)
    }

    /// Asks relays to forward, and again before they forget.
    pub(super) fn renew_registrations(&mut self, now: Instant) {
        for link in self.relays.values_mut() {
            if link.rests_until <= now {
                link.rests_until = Instant::ZERO;
            }
        }
        let due: heapless::Vec<NodeId, MAX_PRESENCE_RELAYS> = self
            .relays
            .iter()
            .filter(|(_, link)| link.renew <= now)
            .map(|(node, _)| *node)
            .take(MAX_PRESENCE_RELAYS)
            .collect();
        for relay in due {
            let link = self.relays.get(&relay);
            let has_ended = link.is_some_and(|link| link.token.is_some() && link.ends <= now);
            if has_ended {
                self.unregistered(relay, now);
            }
            let Some(link) = self.relays.get_mut(&relay) else {
                continue;
            };
            if has_ended {
                // The session may have ended with it.
                link.is_unknown(now);
            }
            let is_kept = link.keep.is_on() && link.keep.is_understood();
            link.renew = now.after(match link.token {
                // Nobody reaches us there until it has said that it forwards.
                None => RENEW_SOON,
                Some(_) if is_kept => RENEW_KEPT,
                Some(_) => RENEW,
            });
            if let Some(session) = link.session {
                link.asked = now;
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
