//! How the NAT before this node maps, found by what others see of its main port, and how those of its
//! peers do, as they say.

use core::net::{IpAddr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Mapping, Message, Notice};
use altnet_wire::time::{Duration, Instant};

use super::Traversal;
use crate::node::{Event, Node};

/// How long what others said of how they see this node counts.
const SEEN_LIFE: Duration = Duration::from_secs(60);
/// Who says how they see this node.
pub(super) const OBSERVERS: usize = 8;

/// How somebody sees this node's main port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    by: IpAddr,
    address: SocketAddr,
    at: Instant,
}

impl Traversal {
    /// On what this node's mapping depends: whether two see it alike that aren't one.
    pub(super) fn mapping(&self) -> Mapping {
        let mut mapping = Mapping::Unknown;
        for (place, one) in self.seen.iter().enumerate() {
            let others = self.seen.get(place + 1..).unwrap_or(&[]);
            let is_comparable = |other: &&Seen| {
                other.by != one.by && other.address.is_ipv4() == one.address.is_ipv4()
            };
            for other in others.iter().filter(is_comparable) {
                if other.address != one.address {
                    return Mapping::EndpointDependent;
                }
                mapping = Mapping::EndpointIndependent;
            }
        }
        mapping
    }
}

impl<A: Aead> Node<A> {
    /// On what the mapping of the NAT before this node depends, as far as others showed.
    pub fn mapping(&self) -> Mapping {
        self.traversal.mapping()
    }

    /// Somebody at `by` sees this node's main port as `address`.
    pub(in crate::node) fn seen_as(&mut self, by: IpAddr, address: SocketAddr, now: Instant) {
        if is_private(by) {
            // It is on our side of the NATs.
            return;
        }
        let seen = &mut self.traversal.seen;
        // What was seen before the address changed is no longer comparable.
        let before = seen.iter().find(|s| s.by == by).map(|s| s.address.ip());
        let moved = seen.iter().any(|s| s.by == by && s.address != address);
        seen.retain(|s| s.by != by && now.saturating_since(s.at) < SEEN_LIFE && !moved);
        if seen.is_full() {
            seen.remove(0);
        }
        let at = now;
        let _ = seen.push(Seen { by, address, at });
        if moved {
            // The others are asked at once.
            for link in self
                .relays
                .values_mut()
                .filter(|link| link.observed != Some(address))
            {
                link.renew = link.renew.min(now);
            }
        }
        self.filter_seen(by, address.ip(), before, now);
        let mapping = self.traversal.mapping();
        if mapping != self.traversal.told {
            self.traversal.told = mapping;
            for peer in self.peers.values_mut() {
                peer.meeting.begin_anew();
            }
            self.tell(Event::Mapping { mapping });
            self.tell_mapping(now);
        }
    }

    /// Says to every peer with a session how this node's NAT maps and whom it lets in.
    pub(super) fn tell_mapping(&mut self, now: Instant) {
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            self.tell_mapping_to(node, now);
        }
    }

    /// Says so to a peer, if there is something to say.
    pub(in crate::node) fn tell_mapping_to(&mut self, node: NodeId, now: Instant) {
        let mapping = self.traversal.mapping();
        let greeted = |session: &_| self.sessions.get(session).is_some_and(|s| s.greeted);
        let Some(session) = self.stands(node).filter(greeted) else {
            return;
        };
        if mapping != Mapping::Unknown {
            self.say(session, &Message::Notice(Notice::Nat { mapping }), now);
        }
        self.tell_filtering_to(session, now);
    }

    pub(in crate::node) fn peer_maps(&mut self, node: NodeId, mapping: Mapping, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            if peer.meeting.mapping != mapping {
                peer.meeting.ended = None;
            }
            peer.meeting.mapping = mapping;
            self.timers.housekeeping_at(now);
        }
    }
}

/// Whether an address is of a home's own network (RFC 1918, RFC 3927, RFC 4193, RFC 4291 section
/// 2.5.6).
pub(super) const fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
