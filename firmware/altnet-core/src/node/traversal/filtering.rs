//! Whom the NAT before this node lets in ([`crate::path::filter`]), and those before its peers, as they say.
//!
//! A relay is asked once it has forwarded for a moment, and again when this node may be elsewhere, or a day
//! later. What could not be found out is tried with the next relay, ever more rarely. What was found counts until a
//! relay sees this node at another IP: another port is no other NAT. All of it is of IPv4, as searches are.

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
/// The least time from one trial to the next, and the first pause after nothing was found; each next is twice as long.
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
    /// When a relay was last asked.
    tried: Option<Instant>,
    /// The IP of the relay that was last asked, and at which it saw this node.
    seen: Option<(IpAddr, IpAddr)>,
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

    /// This node may be elsewhere: it is tried again, not at once if it was just tried. Returns a port that is to be
    /// closed.
    fn begin_anew(&mut self) -> Option<PortId> {
        let state = core::mem::take(&mut self.state);
        self.next = Instant::ZERO;
        self.unsent = None;
        match state {
            State::Shows { port, .. } => Some(port),
            _ => None,
        }
    }

    /// When it is next tried, if nothing else says so.
    fn first(&self, now: Instant) -> Instant {
        let floor = self.tried.map_or(Instant::ZERO, |at| at.after(PAUSE));
        now.after(SETTLE).max(floor)
    }

    /// Whether a relay at `by` that sees this node at `ip` saw it elsewhere when it was asked.
    fn is_elsewhere(&self, by: IpAddr, ip: IpAddr) -> bool {
        let is_it = |(relay, seen): (IpAddr, IpAddr)| relay == by && seen != ip;
        self.seen.is_some_and(is_it)
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
            let first = self.traversal.filter.first(now);
            self.traversal.filter.next = first;
            return first;
        }
        let link = self.relays.get(&relay);
        let (by, seen) = link.map_or((None, None), |link| (link.address, link.observed));
        self.traversal.filter.seen = by.zip(seen).map(|(by, seen)| (by.ip(), seen.ip()));
        self.traversal.filter.tried = Some(now);
        let key = Key(self.rng.array());
        let until = now.after(ANSWER);
        self.traversal.filter.state = State::Asked { relay, key, until };
        self.ask(session, &Request::Knock { key }, Asked::Knock(relay), now);
        Instant::NEVER
    }

    /// A relay to ask: one by UDP that sees this node from outside; each time that nothing was found the next.
    fn knocker(&self) -> Option<(NodeId, SessionId)> {
        let is_outside = |relay: &NodeId, link: &RelayLink| {
            let is_near = self.nearby.relays().any(|near| near == *relay);
            let ends = link.address.zip(link.observed);
            !is_near && !link.carriers.by_stream && ends.is_some_and(is_across)
        };
        let able = self.homes().filter_map(|relay| {
            let link = self.relays.get(&relay)?;
            is_outside(&relay, link).then_some((relay, link.session?))
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

    /// This node may be elsewhere. What is known stays so until a relay sees another IP.
    pub(in crate::node) fn filter_again(&mut self, now: Instant) {
        if let Some(port) = self.traversal.filter.begin_anew() {
            let _ = self.traversal.closing.push(port);
        }
        self.timers.housekeeping_at(now);
    }

    /// A relay at `by` sees this node at `ip`; `before` is where it did a moment ago, if it said so.
    pub(super) fn filter_seen(
        &mut self,
        by: IpAddr,
        ip: IpAddr,
        before: Option<IpAddr>,
        now: Instant,
    ) {
        let is_ours = |link: &RelayLink| link.address.is_some_and(|at| at.ip() == by);
        let filter = &mut self.traversal.filter;
        let is_other = before.is_some_and(|before| before != ip) || filter.is_elsewhere(by, ip);
        if !ip.is_ipv4() || !is_other || !self.relays.values().any(is_ours) {
            return;
        }
        filter.seen = None;
        let was = core::mem::take(&mut filter.known);
        self.filter_again(now);
        if was != Filtering::Unknown {
            let filtering = Filtering::Unknown;
            self.tell(Event::Filtering { filtering });
            self.unsay_filtering(now);
        }
    }

    /// Says to every peer with a session that it is known no more whom this node's NAT lets in.
    fn unsay_filtering(&mut self, now: Instant) {
        let filtering = Filtering::Unknown;
        let mut last = None;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            let greeted = |session: &_| self.sessions.get(session).is_some_and(|s| s.greeted);
            if let Some(session) = self.stands(node).filter(greeted) {
                self.say(session, &Message::Notice(Notice::Filter { filtering }), now);
            }
        }
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

/// Whether what a relay at `relay` sees of this node, `seen`, is the other side of a NAT of IPv4: a firewall that
/// is asked over IPv6 tells nothing of it.
fn is_across((relay, seen): (SocketAddr, SocketAddr)) -> bool {
    let is_one = |end: SocketAddr| end.is_ipv4() && !is_private(end.ip());
    is_one(relay) && is_one(seen)
}

/// Whether an address is one that a knock may go to: of a host on the internet. One of IPv4 written as one of IPv6
/// is none: a socket would send what goes there by IPv4, wherever that leads.
pub(in crate::node) const fn is_public(address: SocketAddr) -> bool {
    let ip = address.ip();
    let is_one = match ip {
        IpAddr::V4(v4) => !v4.is_broadcast() && !v4.is_multicast() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !v6.is_multicast() && v6.to_ipv4_mapped().is_none(),
    };
    is_one && !ip.is_loopback() && !ip.is_unspecified() && !is_private(ip) && address.port() != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn no_relay_over_ipv6_is_asked_nor_one_on_our_side_of_the_nat() {
        let (v4, v6) = ("203.0.113.1:51820", "[2001:db8::1]:51820");
        for (relay, seen, expected) in [
            (v4, "198.51.100.7:4000", true),
            (v6, "[2001:db8::7]:51820", false),
            (v4, "[2001:db8::7]:51820", false),
            (v6, "198.51.100.7:4000", false),
            (v4, "192.168.1.7:4000", false),
            ("192.168.1.1:51820", "198.51.100.7:4000", false),
        ] {
            assert_eq!(is_across((at(relay), at(seen))), expected, "{relay} {seen}");
        }
    }

    #[test]
    fn nothing_but_a_host_on_the_internet_is_knocked_at() {
        for address in ["203.0.113.1:9", "[2001:db8::1]:9"] {
            assert!(is_public(at(address)), "{address}");
        }
        for address in [
            "192.168.1.1:9",
            "127.0.0.1:9",
            "0.1.2.3:9",
            "224.0.0.1:9",
            "255.255.255.255:9",
            "203.0.113.1:0",
            "[::1]:9",
            "[::]:9",
            "[fe80::1]:9",
            "[fd00::1]:9",
            "[ff02::1]:9",
            "[::ffff:192.168.1.1]:9",
            "[::ffff:127.0.0.1]:9",
            "[::ffff:203.0.113.1]:9",
        ] {
            assert!(!is_public(at(address)), "{address}");
        }
    }
}
