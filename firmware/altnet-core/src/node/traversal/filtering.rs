//! Whom the NAT before this node lets in ([`crate::path::filter`]), and those before its peers, as they say.
//!
//! A relay is asked once it has forwarded for a moment, and again when this node's address is another, or a day
//! later. What could not be found out is tried with the next relay, ever more rarely.

use core::net::{IpAddr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::PortId;
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::knock::{Key, Knocking};
use altnet_wire::message::{
    Filtering, MAX_PRESENCE_RELAYS, Mapping, Message, Notice, Reply, Request,
};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use super::mapping::is_private;
use crate::control::SessionId;
use crate::node::relays::RelayLink;
use crate::node::sessions::Asked;
use crate::node::{Event, Node, Output};
use crate::path::filter::{Step, Trial};

/// How long after a relay says where it sees this node it is asked: other things matter more then.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a relay has to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// The first pause after nothing was found; each next is twice as long.
const PAUSE: Duration = Duration::from_secs(60);
/// The longest.
const PAUSE_MOST: Duration = Duration::from_secs(6 * 3600);
/// How long what was found counts: nobody says when a router is set up anew.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// The ports that are shown, in turn, so that each is a new one. No search numbers its ports so.
const FIRST_PORT: u16 = 2;
const PORTS: u16 = 64;

/// What is known of this node's own filtering, and what is done to know it.
#[derive(Debug, Default)]
pub(super) struct Filter {
    known: Filtering,
    state: State,
    /// When it is next tried; zero if that isn't set yet.
    next: Instant,
    /// Trials in a row that said nothing.
    vain: u8,
    turn: u16,
    /// What is to be sent.
    unsent: Option<(Knocking, SocketAddr, PortId)>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Rests,
    /// A relay was asked.
    Asked {
        relay: NodeId,
        key: Key,
        until: Instant,
    },
    /// The port is shown.
    Shows {
        relay: NodeId,
        port: PortId,
        trial: Trial,
    },
}

impl Filter {
    pub(super) const fn known(&self) -> Filtering {
        self.known
    }

    pub(super) const fn deadline(&self) -> Instant {
        match &self.state {
            State::Rests => Instant::NEVER,
            State::Asked { until, .. } => *until,
            State::Shows { trial, .. } => trial.deadline(),
        }
    }

    /// Whether a port is one that is shown now.
    pub(super) fn is_shown(&self, at: PortId) -> bool {
        matches!(self.state, State::Shows { port, .. } if port == at)
    }

    /// This node is elsewhere now. Returns a port that is to be closed.
    pub(super) fn begin_anew(&mut self) -> Option<PortId> {
        let state = core::mem::take(&mut self.state);
        self.next = Instant::ZERO;
        self.vain = 0;
        self.unsent = None;
        self.known = Filtering::Unknown;
        match state {
            State::Shows { port, .. } => Some(port),
            _ => None,
        }
    }

    /// A trial ended so.
    fn ended(&mut self, found: Filtering, now: Instant) {
        self.state = State::Rests;
        self.unsent = None;
        if found == Filtering::Unknown {
            // What was found before may still be so.
            let pause = PAUSE * (1 << self.vain.min(16));
            self.next = now.after(pause.min(PAUSE_MOST));
            self.vain = self.vain.saturating_add(1);
        } else {
            self.known = found;
            self.next = now.after(LIFE);
            self.vain = 0;
        }
    }
}

/// Whether whoever has such a NAT is reached by anybody who sends to where a relay sees it, once it sent there
/// itself: then plain challenges find the way, if any does.
pub(super) fn needs_no_search(mapping: Mapping, filtering: Filtering) -> bool {
    let is_loose = matches!(
        filtering,
        Filtering::EndpointIndependent | Filtering::AddressDependent
    );
    mapping == Mapping::EndpointIndependent && is_loose
}

impl<A: Aead> Node<A> {
    /// On what it depends whom the NAT before this node lets in, as far as relays found out.
    pub const fn filtering(&self) -> Filtering {
        self.traversal.filter.known()
    }

    /// Finds out whom the NAT lets in, if that is due. Returns when to look again.
    pub(in crate::node) fn tend_filtering(&mut self, now: Instant) -> Instant {
        match &mut self.traversal.filter.state {
            State::Rests => {}
            State::Asked { until, .. } if *until > now => return Instant::NEVER,
            State::Asked { .. } => self.filtering_ended(Filtering::Unknown, now),
            State::Shows { trial, port, .. } => {
                let (port, relay) = (*port, trial.relay());
                match trial.poll(now) {
                    Step::Show(proof) => {
                        let show = Knocking::Show(proof);
                        self.traversal.filter.unsent = Some((show, relay, port));
                        return Instant::NEVER;
                    }
                    Step::Wait(_) => return Instant::NEVER,
                    Step::End(found) => self.filtering_ended(found, now),
                }
            }
        }
        if !self.pace().searches || self.own_roles().contains(Roles::RELAY) {
            return Instant::NEVER;
        }
        if self.traversal.filter.next > now {
            return self.traversal.filter.next;
        }
        let Some((relay, session)) = self.knocker() else {
            return Instant::NEVER;
        };
        if self.traversal.filter.next == Instant::ZERO {
            self.traversal.filter.next = now.after(SETTLE);
            return self.traversal.filter.next;
        }
        let key = Key(self.rng.array());
        let until = now.after(ANSWER);
        self.traversal.filter.state = State::Asked { relay, key, until };
        self.ask(session, &Request::Knock { key }, Asked::Knock(relay), now);
        Instant::NEVER
    }

    /// A relay to ask: one by UDP that sees this node from outside; each time that nothing was found the next.
    fn knocker(&self) -> Option<(NodeId, SessionId)> {
        let is_outside = |relay: &NodeId, link: &RelayLink| {
            let is_seen = |seen: SocketAddr| !is_private(seen.ip());
            let is_near = self.nearby.relays().any(|near| near == *relay);
            !is_near && !link.carriers.by_stream && link.observed.is_some_and(is_seen)
        };
        let able = self.homes().filter_map(|relay| {
            let link = self.relays.get(&relay)?;
            let is_one = is_outside(&relay, link) && !is_private(link.address?.ip());
            is_one.then_some((relay, link.session?))
        });
        let able: heapless::Vec<_, MAX_PRESENCE_RELAYS> = able.take(MAX_PRESENCE_RELAYS).collect();
        let turn = usize::from(self.traversal.filter.vain);
        able.get(turn % able.len().max(1)).copied()
    }

    /// The relay that was asked answers.
    pub(in crate::node) fn knock_answered(
        &mut self,
        relay: NodeId,
        reply: &Reply<'_>,
        now: Instant,
    ) {
        let State::Asked {
            relay: asked, key, ..
        } = self.traversal.filter.state
        else {
            return;
        };
        if asked != relay {
            return;
        }
        let address = self.relays.get(&relay).and_then(|link| link.address);
        let (Reply::Done, Some(address)) = (reply, address) else {
            self.filtering_ended(Filtering::Unknown, now);
            return;
        };
        let filter = &mut self.traversal.filter;
        let port = PortId(FIRST_PORT + filter.turn % PORTS);
        filter.turn = filter.turn.wrapping_add(1);
        let trial = Trial::new(key, address, now);
        filter.state = State::Shows { relay, port, trial };
        self.tend_filtering(now);
    }

    /// The relay that the port is shown to says that another one knocked.
    pub(in crate::node) fn knocked_by(&mut self, relay: NodeId, by: NodeId) {
        if let State::Shows {
            relay: shown,
            trial,
            ..
        } = &mut self.traversal.filter.state
            && *shown == relay
            && by != relay
        {
            trial.is_asked();
        }
    }

    /// Something came to the port that is shown. Whether it is a knock.
    pub(in crate::node) fn handle_knock(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<()> {
        let Some(Knocking::Knock(proof)) = Knocking::parse(datagram) else {
            return None;
        };
        let State::Shows { trial, .. } = &mut self.traversal.filter.state else {
            return None;
        };
        let is_its = trial.heard(proof, from, now);
        self.tend_filtering(now);
        is_its.then_some(())
    }

    fn filtering_ended(&mut self, found: Filtering, now: Instant) {
        let was = self.traversal.filter.known();
        if let State::Shows { port, .. } = self.traversal.filter.state {
            let _ = self.traversal.closing.push(port);
        }
        self.traversal.filter.ended(found, now);
        let filtering = self.traversal.filter.known();
        if filtering != was {
            self.tell(Event::Filtering { filtering });
            self.tell_mapping(now);
        }
        self.timers.housekeeping_at(now);
    }

    /// This node's address is another, so that its NAT may be.
    pub(in crate::node) fn filter_anew(&mut self, now: Instant) {
        if let Some(port) = self.traversal.filter.begin_anew() {
            let _ = self.traversal.closing.push(port);
        }
        self.timers.housekeeping_at(now);
    }

    /// What shows a port to a relay, if that is due.
    pub(super) fn poll_filter(&mut self, frame: &mut Frame<'_>) -> Option<Output> {
        let (knocking, to, port) = self.traversal.filter.unsent.take()?;
        knocking.write(frame).ok()?;
        let to = self.traversal.outward(to);
        Some(Output::Send { to, port })
    }

    /// Says to a peer whom this node's NAT lets in, if that is known.
    pub(super) fn tell_filtering_to(&mut self, session: SessionId, now: Instant) {
        let filtering = self.filtering();
        if filtering != Filtering::Unknown {
            self.say(session, &Message::Notice(Notice::Filter { filtering }), now);
        }
    }

    /// A peer says whom its NAT lets in.
    pub(in crate::node) fn peer_filters(
        &mut self,
        node: NodeId,
        filtering: Filtering,
        now: Instant,
    ) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.meeting.filtering = filtering;
            self.timers.housekeeping_at(now);
        }
    }
}

/// Whether an address is one that a knock may go to: of a host on the internet.
pub(super) const fn is_public(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_one = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_multicast() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !v6.is_multicast(),
    };
    is_one && !ip.is_loopback() && !ip.is_unspecified() && !is_private(ip) && address.port() != 0
}
