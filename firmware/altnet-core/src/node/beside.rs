//! How relays see this node by the other address family than the one it is registered by.
//!
//! A home with both families is registered with a relay along one of them. A peer that has only the
//! other one needs to know how the NAT shows this node there. Challenges along the relay's other
//! address say so; while a peer is relayed that is sent to, they go on, so that the NAT's mapping
//! stays what peers were told. An idle home sends none.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::NodeId;
use altnet_wire::message::MAX_PRESENCE_RELAYS;
use altnet_wire::time::{Duration, Instant};

use super::Node;
use super::relays::RelayLink;

/// How often is asked, as registrations are renewed: many NATs keep a mapping for 30 s only.
const EVERY: Duration = Duration::from_secs(20);
/// The same after [`FEW`] challenges in a row that nobody answered.
const SELDOM: Duration = Duration::from_secs(300);
const FEW: u8 = 3;

/// A relay's other address.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside {
    /// Where the relay saw this node there.
    seen: Option<SocketAddr>,
    asked: Option<Instant>,
    unanswered: u8,
}

impl Beside {
    /// When it may be asked again.
    fn next(&self) -> Instant {
        let pause = if self.unanswered < FEW { EVERY } else { SELDOM };
        self.asked.map_or(Instant::ZERO, |asked| asked.after(pause))
    }
}

impl RelayLink {
    /// Where the relay sees this node by the family that it isn't registered by.
    pub(super) fn seen_beside(&self) -> Option<SocketAddr> {
        let is_other = |seen: &SocketAddr| self.observed.is_none_or(|o| !is_alike(o, *seen));
        self.beside.seen.filter(is_other)
    }
}

impl<A: Aead> Node<A> {
    /// A relay answered at `address` and says that it sees this node as `seen`.
    pub(super) fn relay_saw(
        &mut self,
        relay: NodeId,
        address: SocketAddr,
        seen: SocketAddr,
        now: Instant,
    ) {
        let Some(link) = self.relays.get_mut(&relay) else {
            return;
        };
        if link.address.is_some_and(|main| is_alike(main, address)) {
            return;
        }
        link.beside.unanswered = 0;
        if link.beside.seen.replace(seen) != Some(seen) {
            self.presence_changed(now);
        }
    }

    /// Asks relays at their other addresses, while a peer is relayed that is sent to. Returns when to
    /// look again.
    pub(super) fn look_beside(&mut self, now: Instant) -> Instant {
        let is_relayed = |to| matches!(to, Some(Endpoint::Relayed { .. }));
        let mut peers = self.peers.values();
        if !peers.any(|peer| is_relayed(peer.path.current()) && peer.path.is_sent_to(now)) {
            return Instant::NEVER;
        }
        let has = |there: SocketAddr| {
            let mut own = self.presence.interfaces.iter();
            own.any(|own| is_alike(*own, there))
        };
        let mut due = heapless::Vec::<_, MAX_PRESENCE_RELAYS>::new();
        let mut next = Instant::NEVER;
        for (relay, link) in &self.relays {
            let (Some(session), Some(main)) = (link.session, link.address) else {
                continue;
            };
            let mut tried = self
                .peers
                .get(relay)
                .into_iter()
                .flat_map(|p| p.path.tried());
            let other = tried.find(|t| !is_alike(t.address, main) && has(t.address));
            let Some(other) = other else {
                continue;
            };
            if link.beside.next() > now {
                next = next.min(link.beside.next());
            } else if due.push((*relay, session, other.address)).is_err() {
                break;
            }
        }
        for (relay, session, address) in due {
            self.control
                .challenge(session, Endpoint::Direct(address), now);
            if let Some(link) = self.relays.get_mut(&relay) {
                link.beside.asked = Some(now);
                link.beside.unanswered = link.beside.unanswered.saturating_add(1);
                next = next.min(link.beside.next());
            }
        }
        next
    }
}

/// Whether both are of one address family.
const fn is_alike(one: SocketAddr, other: SocketAddr) -> bool {
    one.is_ipv4() == other.is_ipv4()
}
