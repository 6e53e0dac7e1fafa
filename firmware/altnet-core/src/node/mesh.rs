//! This relay among the network's others (ADR 0018): links, what is said over them, and frames for each
//! other's clients.
//!
//! A link needs nothing of its own: relays register with each other as every member does, and what is
//! registered is where a frame is taken from and sent to. Which way it goes is decided in [`crate::mesh`].

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::mesh::{
    Distance, HEADER_BYTES, MAX_DISTANCE_BYTES, MAX_HOPS, MAX_NAMED, MAX_RELAYS, MeshKind,
    MeshNotice, MeshPacket, Nodes, PREFIX_BYTES, ShortToken,
};
use altnet_wire::message::{Message, Notice};
use altnet_wire::policy::Run;
use altnet_wire::relay::RelayPacket;
use altnet_wire::time::{Duration, Instant};

use super::relays::{Carrier, RelayLink};
use super::{DropReason, Node, Verdict};
use crate::control::SessionId;
use crate::mesh::{LinkState, MAX_LINKS, Mesh};
use crate::relay::meet::Wanted;
use crate::relay::{Parcel, RelayDrop, Way};

/// Other relays are told of clients that came and went at most this often.
const CLIENTS_PAUSE: Duration = Duration::from_millis(200);
/// The same of distances.
const DISTANCES_PAUSE: Duration = Duration::from_secs(1);
/// A round trip that is another by less is not told, nor by less than a fifth of it.
const SAME_US: u32 = 5_000;
/// A loss in a thousand that is another by less is not told.
const SAME_PER_MILLE: u16 = 50;

/// What this relay knows of the others, and what it told them.
#[derive(Debug)]
pub(super) struct Others {
    pub(super) links: Mesh,
    /// The sessions in which a relay was told of all clients.
    in_step: BTreeMap<NodeId, SessionId>,
    /// What those were told, as of which change, and when.
    told: BTreeSet<NodeId>,
    told_changes: u64,
    told_at: Instant,
    distances: heapless::Vec<Distance, MAX_RELAYS>,
    distances_at: Instant,
}

impl Others {
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            links: Mesh::new(limit),
            in_step: BTreeMap::new(),
            told: BTreeSet::new(),
            told_changes: 0,
            told_at: Instant::ZERO,
            distances: heapless::Vec::new(),
            distances_at: Instant::ZERO,
        }
    }
}

/// Whether two measurements of all links come to the same.
fn are_same(one: &[Distance], other: &[Distance]) -> bool {
    let is_same = |(a, b): (&Distance, &Distance)| {
        let rtt = a.rtt_us.abs_diff(b.rtt_us);
        a.relay == b.relay
            && (rtt < SAME_US || rtt < a.rtt_us / 5)
            && a.lost_per_mille.abs_diff(b.lost_per_mille) < SAME_PER_MILLE
    };
    one.len() == other.len() && one.iter().zip(other).all(is_same)
}

impl<A: Aead> Node<A> {
    /// The relays that this one is in a mesh with: of all that say where they are those with the least ids. None
    /// if it isn't among them.
    pub(super) fn mesh_relays(&self) -> heapless::Vec<NodeId, MAX_LINKS> {
        let mut others = heapless::Vec::new();
        let (Some(network), Some(own)) = (&self.network, self.relay_node()) else {
            return others;
        };
        let relays = network.registry.relays();
        let placed = relays.filter(|m| m.node.is_some_and(|n| !n.fixed_endpoints.is_empty()));
        let mut all: Vec<NodeId> = placed.map(|member| member.id).collect();
        all.sort_unstable();
        all.truncate(MAX_RELAYS);
        if all.contains(&own) {
            let most = self.config.limits.mesh_links.into();
            for other in all.into_iter().filter(|id| *id != own).take(most) {
                let _ = others.push(other);
            }
        }
        others
    }

    /// Takes the relays that records name.
    pub(super) fn set_mesh(&mut self, relays: &[NodeId], now: Instant) {
        let of_before: Vec<NodeId> = self.mesh.links.relays().collect();
        self.mesh.links.set_relays(relays, now);
        // Whose clients are said changed with them.
        if of_before.iter().any(|relay| !relays.contains(relay))
            || relays.iter().any(|relay| !of_before.contains(relay))
        {
            self.mesh.in_step.retain(|relay, _| relays.contains(relay));
            self.mesh.told_changes = self.mesh.told_changes.wrapping_sub(1);
        }
    }

    /// A client came or went: the other relays are told soon.
    pub(super) fn mesh_clients_changed(&mut self) {
        let has_links = self.mesh.links.relays().next().is_some();
        if has_links && self.mesh.told_changes != self.relay.changes() {
            let due = self.mesh.told_at.after(CLIENTS_PAUSE);
            self.timers.housekeeping_at(due);
        }
    }

    /// Looks after the links. Returns when to look again.
    pub(super) fn tend_mesh(&mut self, now: Instant) -> Instant {
        let relays: heapless::Vec<NodeId, MAX_LINKS> = self.mesh.links.relays().collect();
        if relays.is_empty() {
            return Instant::NEVER;
        }
        let mut new = heapless::Vec::<(NodeId, SessionId), MAX_LINKS>::new();
        for relay in relays {
            let session = self.stands(relay);
            let greeted = session.filter(|s| self.sessions.get(s).is_some_and(|s| s.greeted));
            let is_up = matches!(
                self.relays.get(&relay).and_then(RelayLink::ready),
                Some(Carrier::Udp(..))
            );
            let rtt = session.and_then(|session| self.control.rtt(session));
            self.mesh.links.set_up(relay, is_up, rtt, now);
            match greeted {
                Some(session) if self.mesh.in_step.get(&relay) != Some(&session) => {
                    let _ = new.push((relay, session));
                }
                None if self.mesh.in_step.remove(&relay).is_some() => self.mesh.links.lost(relay),
                _ => {}
            }
        }
        let clients = self.tell_clients(&new, now);
        let distances = self.tell_distances(&new, now);
        while let Some(relay) = self.mesh.links.poll(now) {
            self.challenge_link(relay, now);
        }
        clients.min(distances).min(self.mesh.links.deadline())
    }

    /// Tells the other relays which clients came and went, and `new` ones all of them. Returns when to do so next.
    fn tell_clients(&mut self, new: &[(NodeId, SessionId)], now: Instant) -> Instant {
        let due = self.mesh.told_at.after(CLIENTS_PAUSE);
        let has_changed = self.mesh.told_changes != self.relay.changes();
        if has_changed && due > now && new.is_empty() {
            return due;
        }
        if has_changed {
            self.mesh.told_at = now;
            self.mesh.told_changes = self.relay.changes();
            let all = self.relay.clients();
            let all: BTreeSet<NodeId> = all.filter(|c| !self.mesh.links.is_linked(*c)).collect();
            let here: Vec<NodeId> = all.difference(&self.mesh.told).copied().collect();
            let gone: Vec<NodeId> = self.mesh.told.difference(&all).copied().collect();
            self.mesh.told = all;
            if !here.is_empty() || !gone.is_empty() {
                for (relay, session) in self.mesh.in_step.clone() {
                    if !self.say_clients(session, false, &here, &gone, now) {
                        // It is told all again.
                        self.mesh.in_step.remove(&relay);
                    }
                }
            }
        }
        if new.is_empty() {
            return Instant::NEVER;
        }
        let all: Vec<NodeId> = self.mesh.told.iter().copied().collect();
        for (relay, session) in new {
            if self.say_clients(*session, true, &all, &[], now) {
                self.mesh.in_step.insert(*relay, *session);
            }
        }
        Instant::NEVER
    }

    /// Says who came and who went, in as many notices as that takes. Whether all could be said.
    fn say_clients(
        &mut self,
        session: SessionId,
        is_all: bool,
        here: &[NodeId],
        gone: &[NodeId],
        now: Instant,
    ) -> bool {
        let (mut here, mut gone) = (here, gone);
        let mut is_first = true;
        while is_first || !here.is_empty() || !gone.is_empty() {
            let came = here.split_at(here.len().min(MAX_NAMED / 2));
            let went = gone.split_at(gone.len().min(MAX_NAMED / 2));
            let bytes =
                |nodes: &[NodeId]| nodes.iter().flat_map(|node| node.0).collect::<Vec<u8>>();
            let (came_bytes, went_bytes) = (bytes(came.0), bytes(went.0));
            let notice = MeshNotice::Clients {
                is_all: is_all && is_first,
                here: Nodes(&came_bytes),
                gone: Nodes(&went_bytes),
            };
            let message = Message::Notice(Notice::Mesh(notice));
            if self.say(session, &message, now).is_none() {
                return false;
            }
            (here, gone, is_first) = (came.1, went.1, false);
        }
        true
    }

    /// Tells the other relays how far they are, if that is new to them. Returns when to do so next.
    fn tell_distances(&mut self, new: &[(NodeId, SessionId)], now: Instant) -> Instant {
        let own = self.mesh.links.own_distances();
        let has_changed = !are_same(&self.mesh.distances, &own);
        let due = self.mesh.distances_at.after(DISTANCES_PAUSE);
        if has_changed && due <= now {
            self.mesh.distances_at = now;
            self.mesh.distances = own;
            for session in self.mesh.in_step.clone().into_values() {
                self.say_distances(session, now);
            }
            return Instant::NEVER;
        }
        for (_, session) in new {
            self.say_distances(*session, now);
        }
        if has_changed { due } else { Instant::NEVER }
    }

    fn say_distances(&mut self, session: SessionId, now: Instant) {
        let mut run = Vec::new();
        for distance in &self.mesh.distances {
            let mut bytes = [0; MAX_DISTANCE_BYTES];
            if let Ok(bytes) = postcard::to_slice(distance, &mut bytes) {
                run.extend_from_slice(bytes);
            }
        }
        let notice = MeshNotice::Distances(Run::new(&run));
        self.say(session, &Message::Notice(Notice::Mesh(notice)), now);
    }

    /// Asks a relay whether it is there, along the link itself.
    fn challenge_link(&mut self, relay: NodeId, now: Instant) {
        let address = self.relays.get(&relay).and_then(|link| link.address);
        if let (Some(session), Some(address)) = (self.stands(relay), address) {
            let to = Endpoint::Direct(address);
            self.control.challenge(session, to, now);
        }
        if self.mesh.links.is_silent(relay)
            && let Some(peer) = self.peers.get_mut(&relay)
        {
            // What is said to it should go another way too.
            peer.path.sent(now);
        }
    }

    /// A challenge was answered: maybe one along a link.
    pub(super) fn link_answered(
        &mut self,
        node: NodeId,
        endpoint: Endpoint,
        rtt: Duration,
        now: Instant,
    ) {
        let address = self.relays.get(&node).and_then(|link| link.address);
        if address.is_some() && endpoint.direct() == address {
            self.mesh.links.answered(node, rtt, now);
        }
    }

    /// Another relay says something of itself.
    pub(super) fn handle_mesh_notice(
        &mut self,
        node: NodeId,
        notice: &MeshNotice<'_>,
        now: Instant,
    ) {
        match notice {
            MeshNotice::Clients { is_all, here, gone } => {
                let links = &mut self.mesh.links;
                if !links.is_linked(node) {
                    return;
                }
                // In a frame stands what ids of this network differ in.
                let prefix = node.0.first_chunk::<PREFIX_BYTES>();
                let is_ours = |id: &NodeId| id.0.first_chunk() == prefix;
                let all = here.iter().filter(is_ours);
                links.clients(node, *is_all, all, gone.iter());
                for changed in here.iter().chain(gone.iter()) {
                    self.relays_to_changed(changed, now);
                }
                self.timers.housekeeping_at(now);
            }
            MeshNotice::Distances(distances) => {
                let distances = distances.values().take(MAX_RELAYS).collect();
                self.mesh.links.distances(node, distances);
            }
            MeshNotice::Load { percent, refused_s } => {
                self.handle_load(node, *percent, *refused_s, now);
            }
            MeshNotice::Meet { who, address, with } => {
                let (who, address, with) = (*who, *address, *with);
                let wanted = Wanted { who, address, with };
                self.meet_anothers_client(node, wanted, now);
            }
        }
    }

    /// A datagram from another relay.
    pub(super) fn handle_mesh(
        &mut self,
        from: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let own = self.relay_node().ok_or(DropReason::RelayToken)?;
        let packet = MeshPacket::parse(frame.packet(), own).map_err(|_| DropReason::NotOurs)?;
        if packet.kind == MeshKind::Gone {
            return self.handle_gone(from, own, &packet, frame, now);
        }
        let MeshPacket { source, to, .. } = packet;
        let Ok(relay) = self.relay.sending_relay(from, packet.token, now) else {
            let held = self.relay.token_like(packet.token);
            return self.unknown_token(held.ok_or(DropReason::RelayToken)?, from, frame);
        };
        if !self.mesh.links.is_linked(relay) {
            return Err(DropReason::RelayUnknown);
        }
        self.mesh.links.heard(relay, now);
        frame.pop_front(HEADER_BYTES);
        if to == own {
            let from = Endpoint::Relayed {
                relay,
                node: source,
            };
            return self.handle_datagram(from, frame, now);
        }
        self.charge(relay, Parcel::of(frame.packet()), now)?;
        let passed = match self.relay.forward(to, frame.len(), now) {
            Ok(way) => return self.deliver(way, source, frame, now),
            Err(_) => self.send_on(source, to, (Some(relay), packet.hops), frame, now),
        };
        if passed != Err(DropReason::RelayNoSuchNode) {
            return passed;
        }
        self.counters.drop(DropReason::RelayNoSuchNode);
        let gone = MeshPacket {
            kind: MeshKind::Gone,
            // As many hops as it came, this one not counted.
            hops: (MAX_HOPS - 1).saturating_sub(packet.hops),
            ..packet
        };
        gone.push(frame).map_err(|_| DropReason::TooLarge)?;
        Ok(to_main(from))
    }

    /// Another relay could not deliver what a client of this one sent, or what this one passed on.
    fn handle_gone(
        &mut self,
        from: SocketAddr,
        own: NodeId,
        packet: &MeshPacket,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let relay = self.relay_at(from).ok_or(DropReason::RelayUnknown)?;
        let link = self.relays.get(&relay).ok_or(DropReason::RelayUnknown)?;
        if link.token.map(ShortToken::from) != Some(packet.token) {
            return Err(DropReason::RelayToken);
        }
        let MeshPacket { source, to, .. } = *packet;
        self.mesh.links.gone(relay, to, now);
        if source == own {
            self.absent(own, to, now);
            return Ok(Verdict::Consumed);
        }
        if let Some(way) = self.relay.way(source) {
            let Way::Udp(client) = way else {
                // What comes over a stream is not answered so.
                return Ok(Verdict::Consumed);
            };
            let absent = RelayPacket::Absent { to };
            absent.push(frame).map_err(|_| DropReason::TooLarge)?;
            return Ok(to_main(client));
        }
        let back = match packet.hops {
            0 => None,
            _ => self.mesh.links.route(source, Some(relay), 1, now),
        };
        let back = back.and_then(|hop| self.relay.held(hop.relay));
        let (Way::Udp(client), token) = back.ok_or(DropReason::RelayNoSuchNode)? else {
            return Err(DropReason::RelayNoSuchNode);
        };
        let gone = MeshPacket {
            hops: 0,
            token: token.into(),
            ..*packet
        };
        gone.push(frame).map_err(|_| DropReason::TooLarge)?;
        Ok(to_main(client))
    }

    /// Passes a client's datagram on to another, by whichever carrier that one has, or to the relay that has it.
    pub(super) fn pass_on(
        &mut self,
        from: NodeId,
        to: NodeId,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.check_pass(from, to)?;
        match self.relay.forward(to, frame.len(), now) {
            Ok(way) => self.deliver(way, from, frame, now),
            Err(RelayDrop::NoSuchNode) => self.send_on(from, to, (None, MAX_HOPS), frame, now),
            Err(RelayDrop::BadToken) => Err(DropReason::RelayToken),
        }
    }

    fn deliver(
        &self,
        way: Way,
        from: NodeId,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        match way {
            Way::Udp(to) => {
                let receive = RelayPacket::Receive { from };
                receive.push(frame).map_err(|_| DropReason::TooLarge)?;
                Ok(self.let_fragment(to_main(to), frame.len(), now))
            }
            Way::Stream(stream) => Ok(Verdict::ToClient { stream, from }),
        }
    }

    /// Sends a datagram to the relay that has its destination, or to one between. `came` is the relay it came
    /// from and how many hops it has left.
    fn send_on(
        &mut self,
        source: NodeId,
        to: NodeId,
        came: (Option<NodeId>, u8),
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let hop = self.mesh.links.route(to, came.0, came.1, now);
        let link = hop.and_then(|hop| Some((hop, self.relays.get(&hop.relay)?.ready()?)));
        let Some((hop, Carrier::Udp(address, token))) = link else {
            self.relay.has_no_such_node();
            return Err(DropReason::RelayNoSuchNode);
        };
        self.timers.housekeeping_at(self.mesh.links.deadline());
        let packet = MeshPacket {
            kind: MeshKind::Forward,
            hops: hop.hops,
            token: token.into(),
            source,
            to,
        };
        packet.push(frame).map_err(|_| DropReason::TooLarge)?;
        let to = to_main(self.traversal.outward(address));
        Ok(self.let_fragment(to, frame.len(), now))
    }

    /// The links to other relays, if this is one.
    pub fn mesh(&self) -> impl Iterator<Item = LinkState> {
        self.mesh.links.states()
    }
}

const fn to_main(to: SocketAddr) -> Verdict {
    let port = PortId::MAIN;
    Verdict::Send { to, port }
}
