//! By which relay a frame goes on to another relay's client (ADR 0018).
//!
//! In: which relays are linked, what they say they have and how far each other they are, answers to
//! challenges, what was sent and heard. Out: the next relay and how many hops it has left, relays to
//! challenge. A relay is reached by itself, or by one between if that is measured to be nearer or the link is
//! silent; how many hops are left is counted down, so that no belief of anybody's makes a loop.
//!
//! Deliberately absent: sessions, addresses and tokens, what a frame looks like, own clients.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use altnet_wire::id::NodeId;
use altnet_wire::mesh::{Distance, MAX_RELAYS};
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use link::Link;

mod link;

/// The most relays that one of a mesh is linked with.
pub const MAX_LINKS: usize = MAX_RELAYS - 1;
/// A relay that could not bring something on is sent nothing to bring on for so long.
const MIDDLE_REST: Duration = Duration::from_secs(10);
/// What a link that is silent costs: it is used where there is no other.
const SILENT_COST: u64 = 1 << 40;

/// Which relay a frame goes to next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The relay.
    pub relay: NodeId,
    /// To how many relays more it may send it.
    pub hops: u8,
}

/// What is known of a link, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The relay it leads to.
    pub relay: NodeId,
    /// Whether frames may go there and it answers.
    pub is_up: bool,
    /// Whether it has said which clients it has.
    pub speaks: bool,
    /// The round trip, once measured.
    pub rtt: Option<Duration>,
    /// How many challenges in a thousand get no answer.
    pub lost_per_mille: u16,
    /// The relay that frames for it go by first, if not itself.
    pub by: Option<NodeId>,
    /// How many clients it says it has.
    pub clients: usize,
    /// Frames sent to it and come from it.
    pub sent: u64,
    /// As many came.
    pub came: u64,
}

/// The links of one relay, and whose clients the others have.
#[derive(Debug)]
pub struct Mesh {
    links: [Option<Box<Link>>; MAX_LINKS],
    /// Of each client the links whose relays have it, a bit for each place.
    whereabouts: BTreeMap<NodeId, u16>,
    /// The most clients of one relay; of all twice as many.
    limit: usize,
}

impl Mesh {
    /// A mesh without links. Each relay may name at most `limit` clients.
    pub const fn new(limit: usize) -> Self {
        Self {
            links: [const { None }; MAX_LINKS],
            whereabouts: BTreeMap::new(),
            limit,
        }
    }

    /// Takes the relays there are, [`MAX_LINKS`] at most. Those that stay keep what is known of them.
    pub fn set_relays(&mut self, relays: &[NodeId], now: Instant) {
        for place in 0..MAX_LINKS {
            let relay = self.at(place).map(|link| link.relay);
            if relay.is_some_and(|relay| !relays.contains(&relay)) {
                self.forget_clients(place);
                if let Some(seat) = self.links.get_mut(place) {
                    *seat = None;
                }
            }
        }
        for relay in relays {
            if self.place(*relay).is_none()
                && let Some(seat) = self.links.iter_mut().find(|seat| seat.is_none())
            {
                *seat = Some(Box::new(Link::new(*relay, now)));
            }
        }
        self.reckon();
    }

    fn at(&self, place: usize) -> Option<&Link> {
        self.links.get(place)?.as_deref()
    }

    fn place(&self, relay: NodeId) -> Option<usize> {
        let is_it =
            |link: &Option<Box<Link>>| link.as_ref().is_some_and(|link| link.relay == relay);
        self.links.iter().position(is_it)
    }

    fn link_mut(&mut self, relay: NodeId) -> Option<&mut Link> {
        let mut links = self.links.iter_mut().flatten();
        links.find(|link| link.relay == relay).map(Box::as_mut)
    }

    /// The relays that are linked, or are to be.
    pub fn relays(&self) -> impl Iterator<Item = NodeId> {
        self.links.iter().flatten().map(|link| link.relay)
    }

    /// Whether a relay is one of the mesh.
    pub fn is_linked(&self, relay: NodeId) -> bool {
        self.place(relay).is_some()
    }

    /// Whether frames can be sent to a relay now, and how long one takes there and back at first.
    pub fn set_up(&mut self, relay: NodeId, is_up: bool, rtt: Option<Duration>, now: Instant) {
        let Some(link) = self.link_mut(relay) else {
            return;
        };
        if link.set_up(is_up, rtt, now) {
            self.reckon();
        }
    }

    /// A relay is spoken with no more: what it said is void.
    pub fn lost(&mut self, relay: NodeId) {
        let Some(place) = self.place(relay) else {
            return;
        };
        self.forget_clients(place);
        if let Some(link) = self.link_mut(relay) {
            link.speaks = false;
            link.distances.clear();
        }
        self.reckon();
    }

    /// A relay says which clients it has. Names past the bound are passed over.
    pub fn clients(
        &mut self,
        relay: NodeId,
        is_all: bool,
        here: impl Iterator<Item = NodeId>,
        gone: impl Iterator<Item = NodeId>,
    ) {
        let Some(place) = self.place(relay) else {
            return;
        };
        if is_all {
            self.forget_clients(place);
        }
        for node in gone {
            self.is_gone(node, place);
        }
        let (bit, limit) = (1 << place, self.limit);
        for node in here {
            let named = self.at(place).map_or(limit, |link| link.clients);
            let is_known = self.whereabouts.contains_key(&node);
            if named >= limit || (!is_known && self.whereabouts.len() >= limit.saturating_mul(2)) {
                break;
            }
            let at = self.whereabouts.entry(node).or_default();
            let is_new = *at & bit == 0;
            *at |= bit;
            if is_new && let Some(link) = self.link_mut(relay) {
                link.clients += 1;
            }
        }
        if let Some(link) = self.link_mut(relay)
            && !core::mem::replace(&mut link.speaks, true)
        {
            self.reckon();
        }
    }

    fn is_gone(&mut self, node: NodeId, place: usize) {
        let bit = 1 << place;
        let Some(at) = self.whereabouts.get_mut(&node).filter(|at| **at & bit != 0) else {
            return;
        };
        *at &= !bit;
        if *at == 0 {
            self.whereabouts.remove(&node);
        }
        if let Some(link) = self.links.get_mut(place).and_then(Option::as_mut) {
            link.clients = link.clients.saturating_sub(1);
        }
    }

    fn forget_clients(&mut self, place: usize) {
        let bit = 1 << place;
        self.whereabouts.retain(|_, at| {
            *at &= !bit;
            *at != 0
        });
        if let Some(link) = self.links.get_mut(place).and_then(Option::as_mut) {
            link.clients = 0;
        }
    }

    /// A relay says how far those are that it reaches by itself.
    pub fn distances(&mut self, relay: NodeId, distances: Vec<Distance, MAX_RELAYS>) {
        if let Some(link) = self.link_mut(relay) {
            link.distances = distances;
            self.reckon();
        }
    }

    /// How far this relay's own links reach.
    pub fn own_distances(&self) -> Vec<Distance, MAX_RELAYS> {
        let links = self.links.iter().flatten();
        links.filter_map(|link| link.distance()).collect()
    }

    /// A challenge along the link itself was answered.
    pub fn answered(&mut self, relay: NodeId, rtt: Duration, now: Instant) {
        if let Some(link) = self.link_mut(relay) {
            link.answered(rtt);
            link.heard(now);
            self.reckon();
        }
    }

    /// A frame came from a relay.
    pub fn heard(&mut self, relay: NodeId, now: Instant) {
        if let Some(link) = self.link_mut(relay) {
            link.came += 1;
            if link.heard(now) {
                self.reckon();
            }
        }
    }

    /// Whether any relay has a client of that name.
    pub fn has(&self, node: NodeId) -> bool {
        self.whereabouts.contains_key(&node)
    }

    /// Whether a relay says that it has a client.
    pub fn is_at(&self, node: NodeId, relay: NodeId) -> bool {
        let at = self.whereabouts.get(&node).copied().unwrap_or_default();
        self.place(relay)
            .is_some_and(|place| at & (1 << place) != 0)
    }

    /// The relays that say that they have a client.
    pub fn relays_of(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let at = self.whereabouts.get(&node).copied().unwrap_or_default();
        let places = (0..MAX_LINKS).filter(move |place| at & (1 << place) != 0);
        places.filter_map(|place| self.at(place).map(|link| link.relay))
    }

    /// The relays that a frame for a client of others would pass, the first and the last, which may be one.
    pub fn way_to(&self, node: NodeId) -> Option<(NodeId, NodeId)> {
        let (place, hop) = self.nearest(node, None, altnet_wire::mesh::MAX_HOPS)?;
        Some((hop.relay, self.at(place)?.relay))
    }

    /// The relay that a frame for `to` is sent to next, and how many hops that has left, if one has it.
    ///
    /// `from` is the relay that it came from; `hops` to how many relays it may still be sent, 1 or 2.
    pub fn route(
        &mut self,
        to: NodeId,
        from: Option<NodeId>,
        hops: u8,
        now: Instant,
    ) -> Option<Hop> {
        let (_, hop) = self.nearest(to, from, hops)?;
        if let Some(link) = self.link_mut(hop.relay) {
            link.sends(now);
        }
        Some(hop)
    }

    /// The place of the relay that has a client, and what leads there.
    fn nearest(&self, to: NodeId, from: Option<NodeId>, hops: u8) -> Option<(usize, Hop)> {
        let at = *self.whereabouts.get(&to)?;
        let places = (0..MAX_LINKS).filter(|place| at & (1 << place) != 0);
        let ways = places.filter_map(|place| {
            let link = self.at(place).filter(|link| Some(link.relay) != from)?;
            let direct = link.cost().map(|cost| (cost, link.relay, 0));
            let middle = link.middle.filter(|(_, relay)| Some(*relay) != from);
            let (cost, relay, hops) = match (hops, middle) {
                (0, _) => return None,
                (2.., Some((cost, relay))) => (cost, relay, 1),
                _ => direct?,
            };
            Some((cost, place, Hop { relay, hops }))
        });
        let (_, place, hop) = ways.min_by_key(|(cost, place, _)| (*cost, *place))?;
        Some((place, hop))
    }

    /// A relay says that it could not deliver to `to`: what was believed of it isn't so.
    pub fn gone(&mut self, relay: NodeId, to: NodeId, now: Instant) {
        let Some(place) = self.place(relay) else {
            return;
        };
        let at = self.whereabouts.get(&to).copied().unwrap_or_default();
        if at & (1 << place) != 0 {
            self.is_gone(to, place);
            return;
        }
        // It said so of what it was to pass on to the relay that has it; of what nobody has it says nothing.
        let is_by = |link: &Link| link.middle.is_some_and(|(_, middle)| middle == relay);
        let mut having = (0..MAX_LINKS).filter(|place| at & (1 << *place) != 0);
        let was_between = having.any(|place| self.at(place).is_some_and(is_by));
        if was_between && let Some(link) = self.link_mut(relay) {
            link.rests_until = now.after(MIDDLE_REST);
            self.reckon();
        }
    }

    /// The next relay to challenge, along the link itself.
    pub fn poll(&mut self, now: Instant) -> Option<NodeId> {
        let rests = |link: &Link| link.rests_until > Instant::ZERO && link.rests_until <= now;
        let mut is_over = false;
        for link in self.links.iter_mut().flatten().filter(|link| rests(link)) {
            link.rests_until = Instant::ZERO;
            is_over = true;
        }
        let mut links = self.links.iter_mut().flatten();
        let due = links.find(|link| link.due() <= now);
        let asked = due.map(|link| (link.relay, link.asks(now)));
        if is_over || asked.is_some_and(|(_, fell_silent)| fell_silent) {
            self.reckon();
        }
        asked.map(|(relay, _)| relay)
    }

    /// Whether a relay of the mesh has fallen silent.
    pub fn is_silent(&self, relay: NodeId) -> bool {
        let place = self.place(relay);
        place
            .and_then(|place| self.at(place))
            .is_some_and(|link| link.is_silent)
    }

    /// When [`Mesh::poll`] next has something to say.
    pub fn deadline(&self) -> Instant {
        let links = self.links.iter().flatten();
        let rest_ends = |link: &Link| match link.rests_until {
            Instant::ZERO => Instant::NEVER,
            until => until,
        };
        links
            .map(|link| link.due().min(rest_ends(link)))
            .min()
            .unwrap_or(Instant::NEVER)
    }

    /// What is known of each link.
    pub fn states(&self) -> impl Iterator<Item = LinkState> {
        self.links.iter().flatten().map(|link| link.state())
    }

    /// Finds out of each relay whether it is nearer by another.
    fn reckon(&mut self) {
        for place in 0..MAX_LINKS {
            let Some(link) = self.at(place) else {
                continue;
            };
            let (relay, direct, used) = (link.relay, link.cost(), link.middle);
            let others = self.links.iter().flatten();
            let others = others.filter(|other| other.relay != relay && other.brings_on());
            let ways = others.filter_map(|other| {
                let beyond = other.distances.iter().find(|d| d.relay == relay)?;
                let cost = other.cost()?.saturating_add(link::cost(
                    Duration::from_micros(beyond.rtt_us.into()),
                    beyond.lost_per_mille,
                ));
                Some((cost, other.relay))
            });
            let best = ways.min();
            let middle = best.filter(|(cost, _)| match direct {
                // What is in use stays so as long as it is nearer at all.
                Some(direct) if used.is_some() => *cost < direct,
                Some(direct) => *cost < direct - direct / 5,
                None => true,
            });
            if let Some(link) = self.links.get_mut(place).and_then(Option::as_mut) {
                link.middle = middle;
            }
        }
    }
}

#[cfg(test)]
mod tests;
