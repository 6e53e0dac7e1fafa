//! Ways through NATs that map endpoint-dependently: how this node's NAT maps ([`mapping`]) and whom it lets in
//! ([`filtering`], with what relays do for it, [`knocks`]), meetings by a relay ([`meetings`]), and the search ([`crate::path::search`]) with what it sends ([`searches`]).
//!
//! A search begins when both sides asked a relay that serves both to meet: it tells each where the
//! other is, as it sees it at that moment ([`altnet_wire::message::Notice::Meeting`]). So no member can
//! have another knock at a stranger's ports: the address is the relay's word, has to be one that the
//! peer itself told, and both have to want it. One search at a time, its packets counted, and pauses
//! between two with one peer that double.
//!
//! What goes to many places at once is one sealed challenge: whichever copy arrives first is
//! answered, the others are replays. Whoever is heard at a further port from then on is sent to from
//! that port.

mod filtering;
mod knocks;
mod mapping;
mod meetings;
mod searches;

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_wire::endpoint::PortId;
use altnet_wire::message::Mapping;
use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

use super::Node;
use crate::path::search::MAX_PORTS;
use crate::relay::meet::Meetings;
use filtering::Filter;
pub(super) use filtering::is_public;
use knocks::Knocks;
use mapping::{OBSERVERS, Seen};
pub(super) use meetings::Meeting;
use searches::{Bound, Running};

/// Ways that lead through further ports at a time.
const MAX_BOUND: usize = 8;
/// Further ports of searches at a time.
const MAX_OPEN: usize = MAX_PORTS as usize + MAX_BOUND;

/// What this node knows of its NATs, and does about them.
#[derive(Debug, Default)]
pub(super) struct Traversal {
    seen: Vec<Seen, OBSERVERS>,
    told: Mapping,
    running: Option<Running>,
    bound: Vec<Bound, MAX_BOUND>,
    filter: Filter,
    knocks: Knocks,
    open: Vec<PortId, MAX_OPEN>,
    closing: Vec<PortId, { MAX_OPEN + 2 }>,
    block: u16,
    quota_until: Instant,
    meetings: Meetings,
    pref64: Option<Ipv6Addr>,
    /// When every way is doubted since that is another; none if it isn't.
    doubt_at: Option<Instant>,
    /// Until when that isn't done again.
    doubted: Instant,
}

/// The least time from one doubt of every way to the next: a router that says one thing and another costs no more.
const DOUBT_PAUSE: Duration = Duration::from_secs(5);

impl Traversal {
    /// The port from which what goes to `to` is sent.
    pub(super) fn port_to(&self, to: SocketAddr) -> PortId {
        let bound = self.bound.iter().find(|bound| bound.peer == to);
        bound.map_or(PortId::MAIN, |bound| bound.port)
    }

    /// An address as the driver writes it: IPv4 through a NAT64, where there is no other way.
    pub(super) fn outward(&self, to: SocketAddr) -> SocketAddr {
        match (self.pref64, to) {
            (Some(prefix), SocketAddr::V4(v4)) => {
                let bits = prefix.to_bits() | u128::from(v4.ip().to_bits());
                SocketAddr::new(Ipv6Addr::from_bits(bits).into(), v4.port())
            }
            _ => to,
        }
    }

    /// The address that a NAT64 stands for.
    pub(super) fn inward(&self, from: SocketAddr) -> SocketAddr {
        const LOW: u128 = u32::MAX as u128;
        match (self.pref64, from) {
            (Some(prefix), SocketAddr::V6(v6)) if v6.ip().to_bits() & !LOW == prefix.to_bits() => {
                let low = u32::try_from(v6.ip().to_bits() & LOW).unwrap_or_default();
                SocketAddr::new(Ipv4Addr::from_bits(low).into(), v6.port())
            }
            _ => from,
        }
    }

    pub(super) fn is_shown(&self, port: PortId) -> bool {
        self.filter.is_shown(port)
    }

    pub(super) fn is_open(&self, port: PortId) -> bool {
        port == PortId::MAIN || self.open.contains(&port)
    }

    pub(super) fn deadline(&self) -> Instant {
        let search = self.running.as_ref().map_or(Instant::NEVER, |run| run.next);
        let others = self.filter.deadline().min(self.knocks.deadline());
        search.min(others)
    }

    fn open_port(&mut self, port: PortId) {
        if !self.is_open(port) {
            let _ = self.open.push(port);
        }
    }

    fn close(&mut self, keep: impl Fn(PortId) -> bool) {
        let closing = &mut self.closing;
        self.open.retain(|port| {
            let keeps = keep(*port);
            if !keeps {
                let _ = closing.push(*port);
            }
            keeps
        });
    }
}

impl<A: Aead> Node<A> {
    /// The prefix by which a NAT64 on the way translates to IPv4 (RFC 6052; found by RFC 7050 or
    /// RFC 8781), of 96 bits; none while this machine has IPv4 of its own.
    pub fn handle_pref64(&mut self, prefix: Option<Ipv6Addr>, now: Instant) {
        if self.traversal.pref64 == prefix {
            return;
        }
        self.traversal.pref64 = prefix;
        let at = now.max(self.traversal.doubted);
        self.traversal.doubt_at.get_or_insert(at);
        if at <= now {
            self.tend_pref64(now);
            return;
        }
        self.timers.housekeeping_at(at);
    }

    /// Doubts every way, if that is due. Returns when to look again.
    pub(super) fn tend_pref64(&mut self, now: Instant) -> Instant {
        match self.traversal.doubt_at {
            None => return Instant::NEVER,
            Some(at) if at > now => return at,
            Some(_) => self.traversal.doubt_at = None,
        }
        self.traversal.doubted = now.after(DOUBT_PAUSE);
        for peer in self.peers.values_mut() {
            peer.path.doubt(now);
        }
        self.timers.housekeeping_at(now);
        Instant::NEVER
    }
}
