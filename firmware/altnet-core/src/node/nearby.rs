//! Gateways that relay for members on their LANs (ADR 0019): a laptop's side, the gateway's, and that
//! of whoever talks to the laptop.
//!
//! In: what a driver sees around this machine, registrations, packets for members whom the gateway
//! doesn't forward to yet, word that a member is reached through a gateway. Out: gateways that this
//! node registers with although they are no relays, who may register, and introductions.
//!
//! Deliberately absent: forwarding, which is any relay's.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Candidate, CandidateKind, MAX_PRESENCE_RELAYS, Presence};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::sessions::Standing;
use super::{DropReason, Node};

/// Networks on LANs, routers, and addresses of ours in LANs of the network, at a time.
const MAX_SUBNETS: usize = 16;
const MAX_ROUTERS: usize = 4;
const MAX_INSIDE: usize = 4;
/// Gateways that this node registers with to reach members on their LANs.
const MAX_WANTED: usize = 4;
/// For how long at least: until what is said through it shows whether somebody is there.
const WANTED: Duration = Duration::from_secs(60);
/// Members on the LAN and others that are brought together at a time.
const MAX_AWAITED: usize = 32;
/// How soon two are brought together again.
const AGAIN: Duration = Duration::from_secs(2);
/// How long the other is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The addresses on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// One of them.
    pub address: IpAddr,
    /// How many of their first bits they share.
    pub bits: u8,
}

impl Subnet {
    /// Whether an address is one of them.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip) {
            (IpAddr::V4(ours), IpAddr::V4(ip)) => {
                shares(ours.to_bits().into(), ip.to_bits().into(), self.bits, 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(ip)) => {
                shares(ours.to_bits(), ip.to_bits(), self.bits, 128)
            }
            _ => false,
        }
    }
}

/// Whether two addresses of `all` bits share the first `bits`.
const fn shares(one: u128, other: u128, bits: u8, all: u32) -> bool {
    let rest = all.saturating_sub(bits as u32);
    match (one ^ other).checked_shr(rest) {
        Some(difference) => difference == 0,
        None => true,
    }
}

/// What a driver sees around this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The networks on the LANs that this node is the gateway of.
    pub lans: Vec<Subnet, MAX_SUBNETS>,
    /// The routers that packets to everywhere are given to, the preferred first, each with the port
    /// that a gateway listens at.
    pub routers: Vec<SocketAddr, MAX_ROUTERS>,
    /// Addresses of this machine's in LANs of the network, by which somebody else is their gateway.
    pub inside: Vec<Ipv6Addr, MAX_INSIDE>,
}

/// Two to bring together once there is a session with `to`.
#[derive(Clone, Copy, Debug)]
struct Awaited {
    lan: NodeId,
    to: NodeId,
    is_told: bool,
    at: Instant,
}

/// What is near.
#[derive(Debug, Default)]
pub(super) struct Nearby {
    around: Surroundings,
    /// The gateway of the LAN that this machine is on.
    gateway: Option<NodeId>,
    /// Gateways of others, and since when they are wanted.
    wanted: Vec<(NodeId, Instant), MAX_WANTED>,
    awaited: Vec<Awaited, MAX_AWAITED>,
}

impl Nearby {
    /// The gateway of the LAN that this machine is on, if it is a member.
    pub(super) const fn gateway(&self) -> Option<NodeId> {
        self.gateway
    }

    /// Whether a gateway is registered with to reach members on its LAN alone.
    pub(super) fn is_others(&self, relay: NodeId) -> bool {
        self.wanted.iter().any(|(wanted, _)| *wanted == relay)
    }

    /// The gateways that this node registers with.
    pub(super) fn relays(&self) -> impl Iterator<Item = NodeId> {
        let wanted = self.wanted.iter().map(|(wanted, _)| *wanted);
        self.gateway.into_iter().chain(wanted)
    }

    fn is_on_lan(&self, address: SocketAddr) -> bool {
        let mut lans = self.around.lans.iter();
        lans.any(|lan| lan.contains(address.ip()))
    }
}

impl<A: Aead> Node<A> {
    /// What is around this machine. Told at start and at every change.
    pub fn handle_surroundings(&mut self, around: &Surroundings, now: Instant) {
        if self.nearby.around == *around {
            return;
        }
        self.nearby.around = around.clone();
        if around.lans.is_empty() && !self.own_roles().contains(Roles::RELAY) {
            let clients: alloc::vec::Vec<NodeId> = self.relay.clients().collect();
            for client in clients {
                self.relay.remove(client);
            }
        }
        self.look_around(now);
        self.offer_routers(now);
    }

    /// Finds the gateway of the LAN that this machine is on, by its address there: who may say which
    /// site an address is of is in the records. The router has only to be who it is taken for.
    fn look_around(&mut self, now: Instant) {
        let gateway = self.network.as_ref().and_then(|network| {
            let own = network.own.node;
            let inside = self.nearby.around.inside.iter();
            let mut owners = inside.filter_map(|at| network.registry.owner_of(*at));
            owners.find(|owner| *owner != own && self.is_gateway(*owner))
        });
        let gateway = gateway.filter(|_| !self.own_roles().contains(Roles::GATEWAY));
        if self.nearby.gateway != gateway {
            self.nearby.gateway = gateway;
            self.link_relays(now);
            self.offer_routers(now);
        }
    }

    fn is_gateway(&self, node: NodeId) -> bool {
        let network = self.network.as_ref();
        let member = network.and_then(|network| network.registry.by_node(&node));
        member.is_some_and(|member| member.membership.roles.contains(Roles::GATEWAY))
    }

    pub(super) fn is_relay(&self, node: NodeId) -> bool {
        let network = self.network.as_ref();
        let member = network.and_then(|network| network.registry.by_node(&node));
        member.is_some_and(|member| member.membership.roles.contains(Roles::RELAY))
    }

    /// The gateway of this LAN is tried at the addresses of our routers.
    pub(super) fn offer_routers(&mut self, now: Instant) {
        let Some(gateway) = self.nearby.gateway else {
            return;
        };
        let routers = self.nearby.around.routers.clone();
        if let Some(peer) = self.peers.get_mut(&gateway) {
            for address in routers {
                let kind = CandidateKind::Host;
                peer.path.add_candidate(Candidate { address, kind }, now);
            }
        }
        self.follow_path(gateway, now);
        self.timers.housekeeping_at(now);
    }

    /// Whether this node relays for members on its LANs, although it is no relay.
    pub(super) fn relays_for_lan(&self) -> bool {
        self.config.relays_for_lan && self.own_roles().contains(Roles::GATEWAY)
    }

    /// Whether a registered client is on one of our LANs.
    fn is_lan_client(&self, node: NodeId) -> bool {
        let address = self.relay.address(node);
        address.is_some_and(|address| self.nearby.is_on_lan(address))
    }

    /// Whether a member may register here: with a relay each, with a gateway one that is on its LAN, and
    /// while there are such others that want to reach them.
    pub(super) fn may_register(&self, at: Option<Endpoint>) -> bool {
        if self.own_roles().contains(Roles::RELAY) {
            return true;
        }
        let Some(Endpoint::Direct(address)) = at else {
            return false;
        };
        let is_near = self.nearby.is_on_lan(address);
        self.relays_for_lan()
            && (is_near
                || self
                    .relay
                    .clients()
                    .any(|client| self.is_lan_client(client)))
    }

    /// A member can't register yet: if it may once there is a direct path, that is looked for from here
    /// too.
    pub(super) fn not_registered(&mut self, node: NodeId, now: Instant) {
        let has_lan = self
            .relay
            .clients()
            .any(|client| self.is_lan_client(client));
        if !has_lan || !self.relays_for_lan() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.keep(now);
            self.timers.housekeeping_at(now);
        }
    }

    /// Whether a datagram is forwarded: a gateway does so from and to its LAN alone.
    pub(super) fn check_pass(&self, from: NodeId, to: NodeId) -> Result<(), DropReason> {
        let own = self.network.as_ref().map(|network| network.own.node);
        // Without a LAN this is a relay, or has no clients: the usual packet costs nothing here.
        let may = self.nearby.around.lans.is_empty()
            || own == Some(from)
            || self.own_roles().contains(Roles::RELAY)
            || self.is_lan_client(from)
            || self.is_lan_client(to)
            // It is told that nobody is there.
            || !self.relay.serves(to);
        may.then_some(()).ok_or(DropReason::RelayToken)
    }

    /// A member on our LAN sends to one that isn't registered here: that one is told that it reaches
    /// the first through us.
    pub(super) fn bring_together(&mut self, lan: NodeId, to: NodeId, now: Instant) {
        if self.own_roles().contains(Roles::RELAY) || !self.is_lan_client(lan) {
            return;
        }
        let is_over = |one: &Awaited| {
            let age = now.saturating_since(one.at);
            age >= PATIENCE || (one.is_told && age >= AGAIN)
        };
        self.nearby.awaited.retain(|one| !is_over(one));
        if self.nearby.awaited.is_full() {
            return;
        }
        let mut awaited = self.nearby.awaited.iter();
        if awaited.any(|one| (one.lan, one.to) == (lan, to)) || self.meet(to, now).is_none() {
            return;
        }
        if let Some(peer) = self.peers.get_mut(&to) {
            peer.used = now;
            // It will register along a direct path.
            peer.path.keep(now);
        }
        let at = now;
        let is_told = false;
        let _ = self.nearby.awaited.push(Awaited {
            lan,
            to,
            is_told,
            at,
        });
        self.timers.housekeeping_at(now);
        self.tell_awaited(to, now);
    }

    /// Says to a member with a session who on our LAN waits for it.
    pub(super) fn tell_awaited(&mut self, to: NodeId, now: Instant) {
        let Some(own) = self.network.as_ref().map(|network| network.own.node) else {
            return;
        };
        let is_due = |one: &Awaited| one.to == to && !one.is_told;
        let due = self.nearby.awaited.iter().filter(|one| is_due(one));
        let due: Vec<NodeId, MAX_AWAITED> = due.map(|one| one.lan).collect();
        for lan in due {
            let presence = Presence {
                relays: [own].into_iter().collect(),
                ..Presence::default()
            };
            let standing = Standing::Member(lan);
            let reply = self.introduce(standing, to, &presence, now);
            if reply != altnet_wire::message::Reply::Done {
                continue;
            }
            let mut awaited = self.nearby.awaited.iter_mut();
            if let Some(one) = awaited.find(|one| (one.lan, one.to) == (lan, to)) {
                (one.is_told, one.at) = (true, now);
            }
        }
    }

    /// A gateway says that a member is on its LAN: it is registered with, for as long as the two talk.
    pub(super) fn hear_of_lan(
        &mut self,
        by: NodeId,
        node: NodeId,
        presence: &Presence,
        now: Instant,
    ) {
        if presence.relays.as_slice() != [by] || !self.is_gateway(by) || self.is_relay(by) {
            return;
        }
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        if !peer.told_relays.contains(&by) {
            if peer.told_relays.is_full() {
                peer.told_relays.pop();
            }
            // After what the member said itself: others may say what isn't so.
            let _ = peer.told_relays.push(by);
        }
        peer.used = now;
        self.want_gateways_of(node, now);
    }

    /// A peer may have said that it is on the LAN of a gateway: that one is registered with.
    pub(super) fn want_gateways_of(&mut self, node: NodeId, now: Instant) {
        let told = self.peers.get(&node).map(|peer| peer.told_relays.clone());
        let own = self.network.as_ref().map(|network| network.own.node);
        let is_new = |relay: &NodeId| {
            let is_ours = self.nearby.gateway == Some(*relay) || own == Some(*relay);
            !is_ours && self.is_gateway(*relay) && !self.is_relay(*relay)
        };
        let told = told.into_iter().flatten().filter(is_new);
        let told: Vec<NodeId, MAX_PRESENCE_RELAYS> = told.collect();
        let mut is_changed = false;
        for gateway in told {
            let mut wanted = self.nearby.wanted.iter_mut();
            match wanted.find(|(wanted, _)| *wanted == gateway) {
                Some((_, since)) => *since = now,
                None => is_changed |= self.nearby.wanted.push((gateway, now)).is_ok(),
            }
        }
        if is_changed {
            self.link_relays(now);
        }
    }

    /// Where a member is known to be, without a relay between.
    pub(super) fn address_of(&self, node: NodeId) -> Option<SocketAddr> {
        let path = self.peers.get(&node).map(|peer| &peer.path);
        let path = path.filter(|path| path.is_proven())?.current();
        let session = self.stands(node).and_then(|s| self.control.endpoint(s));
        let direct = |end: Option<Endpoint>| end.and_then(|end| end.direct());
        direct(path).or(direct(session))
    }

    /// Lets go of gateways whose members nobody here talks to any more.
    pub(super) fn tend_nearby(&mut self, now: Instant) {
        // Records may say by now whose LAN this is.
        self.look_around(now);
        let is_used = |gateway: NodeId| {
            let mut peers = self.peers.iter();
            peers.any(|(node, peer)| {
                let session = peer.session.filter(|s| self.sessions.contains_key(s));
                let talks = session.is_some() || !peer.is_idle(now);
                *node != gateway && talks && peer.told_relays.contains(&gateway)
            })
        };
        let wanted = self.nearby.wanted.iter();
        let wanted = wanted
            .filter(|(gateway, since)| now.saturating_since(*since) < WANTED || is_used(*gateway));
        let wanted: Vec<_, MAX_WANTED> = wanted.copied().collect();
        if wanted.len() != self.nearby.wanted.len() {
            self.nearby.wanted = wanted;
            self.link_relays(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, bits: u8, ip: &str, expected: bool) {
        let subnet = Subnet {
            address: address.parse().unwrap(),
            bits,
        };
        let ip = ip.parse().unwrap();
        assert_eq!(subnet.contains(ip), expected, "{subnet:?} and {ip}");
    }

    #[test]
    fn an_address_is_on_a_link_if_it_shares_its_first_bits() {
        check("192.168.1.1", 24, "192.168.1.200", true);
        check("192.168.1.1", 24, "192.168.2.1", false);
        check("192.168.1.1", 32, "192.168.1.1", true);
        check("192.168.1.1", 32, "192.168.1.2", false);
        check("0.0.0.0", 0, "203.0.113.1", true);
        check("fd00::1", 64, "fd00::ffff", true);
        check("fd00::1", 64, "fd00:0:0:1::1", false);
        check("fd00::1", 128, "fd00::2", false);
        check("::", 0, "fd00::2", true);
        check("::", 0, "192.0.2.1", false);
        check("192.168.1.1", 200, "192.168.1.1", true);
    }
}
