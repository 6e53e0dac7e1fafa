//! Knocking for others: a relay finds out with a client of its own whom the NAT before that one lets in
//! ([`altnet_wire::knock`]).
//!
//! A client asks inside its session, then shows one of its ports. This relay knocks at where it sees that port, from
//! its own port and from another one, and asks a relay of the mesh to knock too. So nobody can have a stranger
//! knocked at: whoever asks is registered here, its proof came from that address, and that has the IP by which it is
//! registered. What goes there is less than what came. A relay that is asked by another knocks for a client of that
//! one, a few times a second for all of them together.

use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::knock::{Key, Knocking, Origin, Proof};
use altnet_wire::message::{Message, Notice, Refusal, Reply, Request};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::filtering::is_public;
use crate::control::SessionId;
use crate::mesh::MAX_LINKS;
use crate::node::intake::Bucket;
use crate::node::sessions::Asked;
use crate::node::{DropReason, Node, Output, Verdict};

/// Clients that are helped at a time.
const VISITORS: usize = 64;
/// How long after asking a client may show its port.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);
/// How long after asking it may ask again.
const PAUSE: Duration = Duration::from_secs(10);
/// How often it may show its port.
const MAX_SHOWS: u8 = 3;
/// Knocks that wait to be sent.
const KNOCKS: usize = 32;
/// The port that knocks from another port than the usual leave by. No search numbers its ports so.
const OTHER_PORT: PortId = PortId(1);
/// Knocks for other relays' clients: so many at once, and one more each so often.
const FAR_BURST: u32 = 32;
const FAR_EVERY: Duration = Duration::from_millis(100);

/// What a relay does for clients that want to know their NAT.
#[derive(Debug)]
pub(super) struct Knocks {
    visitors: Vec<Visitor, VISITORS>,
    unsent: Vec<(SocketAddr, PortId, Proof), KNOCKS>,
    far: Bucket,
    /// Until when the other port is open; none if it isn't.
    is_open_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Visitor {
    node: NodeId,
    key: Key,
    /// What shows its port: made once, as anybody may send something like it.
    shown: Proof,
    asked: Instant,
    shows: u8,
    /// Whether it was told that another relay knocked.
    is_told: bool,
}

impl Default for Knocks {
    fn default() -> Self {
        Self {
            visitors: Vec::new(),
            unsent: Vec::new(),
            far: Bucket::full(FAR_BURST, Instant::ZERO),
            is_open_until: None,
        }
    }
}

impl Knocks {
    /// When the other port is closed.
    pub(super) fn deadline(&self) -> Instant {
        self.is_open_until.unwrap_or(Instant::NEVER)
    }

    /// Forgets who may ask again by now.
    fn expire(&mut self, now: Instant) {
        let visitors = &mut self.visitors;
        visitors.retain(|v| now.saturating_since(v.asked) < PAUSE);
    }

    fn visitor(&mut self, node: NodeId) -> Option<&mut Visitor> {
        self.visitors.iter_mut().find(|v| v.node == node)
    }
}

impl<A: Aead> Node<A> {
    /// A client wants to be knocked at.
    pub(in crate::node) fn knock_wanted(
        &mut self,
        node: NodeId,
        key: Key,
        now: Instant,
    ) -> Reply<'static> {
        let is_relay = self.own_roles().contains(Roles::RELAY);
        let seen = self.relay.address(node).filter(|at| is_public(*at));
        if !is_relay || seen.is_none() {
            return Reply::Refused(Refusal::NotAllowed);
        }
        let knocks = &mut self.traversal.knocks;
        knocks.expire(now);
        let visitor = Visitor {
            node,
            key,
            shown: key.shown(),
            asked: now,
            shows: 0,
            is_told: false,
        };
        if knocks.visitor(node).is_some() || knocks.visitors.push(visitor).is_err() {
            return Reply::Refused(Refusal::Busy);
        }
        Reply::Done
    }

    /// Somebody shows a port.
    ///
    /// # Errors
    /// [`DropReason::NotOurs`] if it is nobody's who asked, or not from where that one is.
    pub(in crate::node) fn handle_show(
        &mut self,
        from: Endpoint,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let from = from.direct().ok_or(DropReason::NotOurs)?;
        let Some(Knocking::Show(proof)) = Knocking::parse(frame.packet()) else {
            return Err(DropReason::NotOurs);
        };
        let knocks = &mut self.traversal.knocks;
        knocks.expire(now);
        let mut visitors = knocks.visitors.iter_mut();
        let visitor = visitors.find(|v| v.shown == proof);
        let visitor = visitor.ok_or(DropReason::NotOurs)?;
        let registered = self.relay.address(visitor.node).map(|at| at.ip());
        let is_late = now.saturating_since(visitor.asked) >= SHOWN_WITHIN;
        let is_there = registered == Some(from.ip()) && is_public(from);
        if !is_there || is_late || visitor.shows >= MAX_SHOWS {
            return Err(DropReason::NotOurs);
        }
        visitor.shows += 1;
        let (node, key) = (visitor.node, visitor.key);
        let other_port = key.knock(Origin::OtherPort);
        let knocks = &mut self.traversal.knocks;
        if knocks.unsent.push((from, OTHER_PORT, other_port)).is_ok() {
            knocks.is_open_until = Some(now.after(SHOWN_WITHIN));
        }
        self.have_another_knock(node, from, key.knock(Origin::OtherAddress), now);
        let knock = Knocking::Knock(key.knock(Origin::Same));
        knock.write(frame).map_err(|_| DropReason::TooLarge)?;
        Ok(Verdict::Send {
            to: self.traversal.outward(from),
            port: PortId::MAIN,
        })
    }

    /// Asks another relay of the mesh, if there is one, to knock at a client of this one.
    fn have_another_knock(&mut self, who: NodeId, at: SocketAddr, proof: Proof, now: Instant) {
        let able = self.far_knockers(at);
        let count = u64::try_from(able.len()).unwrap_or(1).max(1);
        // Each time any: one that doesn't know how, or is out of reach, is not the only one asked.
        let place = usize::try_from(self.rng.next_u64() % count).unwrap_or_default();
        if let Some(session) = able.get(place) {
            let request = Request::KnockFor { who, at, proof };
            self.ask(*session, &request, Asked::KnockFor(who), now);
        }
    }

    /// The relays that can knock at an address from another than this one's.
    fn far_knockers(&self, at: SocketAddr) -> Vec<SessionId, MAX_LINKS> {
        let own = self.fixed_endpoints();
        let links = self.mesh.links.states().filter(|link| link.is_up);
        let able = links.filter_map(|link| {
            let record = self.record_of(link.relay)?;
            let endpoints = record.fixed_endpoints;
            let is_alike = |end: &&SocketAddr| end.is_ipv4() == at.is_ipv4();
            let is_elsewhere = |end: &SocketAddr| {
                end.ip() != at.ip() && own.iter().all(|own| own.ip() != end.ip())
            };
            endpoints.iter().find(is_alike)?;
            let session = self.stands(link.relay)?;
            let greeted = self.sessions.get(&session).is_some_and(|s| s.greeted);
            (greeted && endpoints.iter().all(is_elsewhere)).then_some(session)
        });
        able.collect()
    }

    /// Another relay wants this one to knock at a client of its own.
    pub(in crate::node) fn knock_for(
        &mut self,
        asker: NodeId,
        who: NodeId,
        at: SocketAddr,
        proof: Proof,
        now: Instant,
    ) -> Reply<'static> {
        let is_one = self.own_roles().contains(Roles::RELAY) && self.mesh.links.is_linked(asker);
        // Whom this relay sees itself is where it is seen.
        let own = self.relay.address(who);
        let own = own.filter(|own| own.is_ipv4() == at.is_ipv4());
        let is_there = own.is_none_or(|own| own.ip() == at.ip());
        if !is_one || !is_there || !is_public(at) || !self.mesh.links.is_at(who, asker) {
            return Reply::Refused(Refusal::NotAllowed);
        }
        let knocks = &mut self.traversal.knocks;
        if !knocks.far.take(FAR_BURST, FAR_EVERY, now)
            || knocks.unsent.push((at, PortId::MAIN, proof)).is_err()
        {
            return Reply::Refused(Refusal::Busy);
        }
        Reply::Done
    }

    /// Another relay knocked at a client of this one, which is told so.
    pub(in crate::node) fn knocked_for(&mut self, who: NodeId, by: NodeId, now: Instant) {
        let Some(session) = self.stands(who) else {
            return;
        };
        let visitor = self.traversal.knocks.visitor(who);
        let is_news = |visitor: &mut Visitor| !core::mem::replace(&mut visitor.is_told, true);
        if visitor.is_some_and(is_news) {
            self.say(session, &Message::Notice(Notice::Knocked { by }), now);
        }
    }

    /// The next knock.
    pub(super) fn poll_knocks(&mut self, frame: &mut Frame<'_>) -> Option<Output> {
        let (to, port, proof) = self.traversal.knocks.unsent.pop()?;
        Knocking::Knock(proof).write(frame).ok()?;
        let to = self.traversal.outward(to);
        Some(Output::Send { to, port })
    }

    /// Closes the other port once nobody is knocked at from it.
    pub(in crate::node) fn tend_knocks(&mut self, now: Instant) {
        let knocks = &mut self.traversal.knocks;
        if knocks
            .is_open_until
            .take_if(|until| *until <= now)
            .is_some()
        {
            let _ = self.traversal.closing.push(OTHER_PORT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_ask_again_is_forgotten_and_nobody_before() {
        let mut knocks = Knocks::default();
        let key = Key([7; 16]);
        for s in [0, 9] {
            let visitor = Visitor {
                node: NodeId([1; 16]),
                key,
                shown: key.shown(),
                asked: Instant::ZERO.after(Duration::from_secs(s)),
                shows: 0,
                is_told: false,
            };
            assert!(knocks.visitors.push(visitor).is_ok());
        }
        for (s, left) in [(9, 2), (10, 1), (18, 1), (19, 0)] {
            knocks.expire(Instant::ZERO.after(Duration::from_secs(s)));
            assert_eq!(knocks.visitors.len(), left, "{s}");
        }
    }
}
