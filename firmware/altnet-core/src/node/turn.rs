//! Other people's TURN servers (RFC 8656), where nothing better is left (ADR 0020).
//!
//! In: the servers that a person entered, word that one can be reached, what comes from it. Out: one
//! allocation at a time, told to peers as one more address, and ways to peers ([`ways`]) that come
//! after every relay of ours. What an allocation costs is paid only while it is needed: no relay of
//! ours forwards, or a peer that is talked to has no direct way and no two relays to choose from.
//!
//! A server over UDP is spoken to from this node's main port, so that one mapping of the NATs before
//! it serves all; over TCP or TLS the driver carries its bytes.

mod ways;

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_wire::control::DATA;
use altnet_wire::endpoint::{Endpoint, PortId};
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::message::{Message, Notice};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use super::derpers::derper_of;
use super::view::TurnView;
use super::{DropReason, Event, Node, Output, Verdict};
use crate::path::Why;
use crate::turn::{
    Credentials, Family, Transport, TurnClient, TurnConfig, TurnEvent, TurnFailure, TurnOutput,
};
pub(super) use ways::Side;
use ways::Ways;

/// Servers that may be entered.
pub const MAX_TURN_SERVERS: usize = 4;
/// For so long a server has to be needed before one is asked: most peers go direct by then.
const PATIENCE: Duration = Duration::from_secs(3);
/// For so long one has to be needed no more before the allocation is given back.
const KEEP: Duration = Duration::from_secs(120);
/// The first pause before a server is asked again that failed; each next is twice as long.
const RETRY: Duration = Duration::from_secs(10);
const RETRY_MOST: Duration = Duration::from_secs(900);
/// The pause after a failure that only a person can end.
const RETRY_FINAL: Duration = Duration::from_secs(3600);
/// Addresses of one peer that are let in.
const ADDRESSES: usize = 4;
/// Addresses that are let in at a time.
const PERMITTED: usize = 64;
/// How often our own relays are asked whether they carry again, while a TURN server does.
const RELAYS_AGAIN: Duration = Duration::from_secs(20);

/// A server that a person entered.
pub struct TurnServer {
    /// What it is called, for people: its host and port.
    pub name: String,
    /// What carries datagrams to it.
    pub transport: Transport,
    /// Who this node is there.
    pub credentials: Credentials,
}

/// A server that is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WantedTurn {
    /// The place of the server among those that were entered.
    pub server: usize,
    /// Counts up with each time that it is to be reached anew.
    pub attempt: u32,
}

struct Entered {
    server: TurnServer,
    retry_at: Instant,
    pause: Duration,
    /// Why it relays nothing, as was told.
    trouble: Option<String>,
}

/// How far things are with the server in use.
#[derive(Default)]
enum Link {
    #[default]
    Off,
    /// The driver is to reach it.
    Wanted(usize),
    /// It is spoken to.
    Up {
        server: usize,
        at: SocketAddr,
        client: Box<TurnClient>,
        mapped: Option<SocketAddr>,
    },
}

/// What this node has to do with TURN servers.
#[derive(Default)]
pub(super) struct Turn {
    servers: Vec<Entered>,
    link: Link,
    attempt: u32,
    ways: Ways,
    permitted: heapless::Vec<SocketAddr, PERMITTED>,
    /// Since when somebody else's server is needed, or no more.
    since: Instant,
    is_needed: bool,
    /// Whether it has been for so long that one is asked, or was so lately.
    is_wanted: bool,
    wait: Instant,
    relays_asked: Instant,
}

impl Turn {
    fn client(&mut self) -> Option<&mut TurnClient> {
        match &mut self.link {
            Link::Up { client, .. } => Some(client),
            _ => None,
        }
    }

    /// Whether an address that a peer tells leads through a TURN server.
    pub(super) fn is_turned_at(&self, node: NodeId, address: SocketAddr) -> bool {
        self.ways.address(Side::Theirs, node) == Some(address)
    }

    /// What peers send to, while a server relays.
    pub(super) fn relayed(&self) -> Option<SocketAddr> {
        match &self.link {
            Link::Up { client, .. } => client.relayed(),
            _ => None,
        }
    }

    /// Where the server sees this node's main port.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        match &self.link {
            Link::Up { mapped, .. } => *mapped,
            _ => None,
        }
    }

    /// Whether a datagram at the main port is from the server in use.
    pub(super) fn is_from(&self, from: SocketAddr) -> bool {
        matches!(&self.link, Link::Up { at, server, .. }
            if *at == from && self.transport(*server) == Transport::Datagram)
    }

    /// Whether somebody else's server is wanted now, whatever it speaks.
    pub(super) const fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.link {
            Link::Up { .. } => self.wait,
            _ => Instant::NEVER,
        }
    }

    fn transport(&self, server: usize) -> Transport {
        let entered = self.servers.get(server);
        entered.map_or(Transport::Datagram, |entered| entered.server.transport)
    }

    fn in_use(&self) -> Option<usize> {
        match self.link {
            Link::Off => None,
            Link::Wanted(server) | Link::Up { server, .. } => Some(server),
        }
    }
}

impl<A: Aead> Node<A> {
    /// The TURN servers that may be used, the preferred first; those beyond
    /// [`MAX_TURN_SERVERS`] are passed over. To be told at start.
    pub fn handle_turn_servers(&mut self, servers: Vec<TurnServer>, now: Instant) {
        let entered = servers.into_iter().take(MAX_TURN_SERVERS);
        self.turn.servers = entered
            .map(|server| Entered {
                server,
                retry_at: now,
                pause: RETRY,
                trouble: None,
            })
            .collect();
        self.turn.since = now;
        self.timers.housekeeping_at(now);
    }

    /// The TURN server that is to be reached, or to stay so: its name is to be looked up and, over a
    /// stream, a connection made. A driver looks whenever it has drained the outputs, and answers
    /// each attempt with [`Node::handle_turn_reached`] or [`Node::handle_turn_lost`].
    pub fn wanted_turn(&self) -> Option<WantedTurn> {
        Some(WantedTurn {
            server: self.turn.in_use()?,
            attempt: self.turn.attempt,
        })
    }

    /// The server of this attempt is at `address`, and what is sent to it arrives there.
    pub fn handle_turn_reached(&mut self, attempt: u32, address: SocketAddr, now: Instant) {
        let Link::Wanted(server) = self.turn.link else {
            return;
        };
        let Some(entered) = self.turn.servers.get(server) else {
            return;
        };
        if attempt != self.turn.attempt {
            return;
        }
        let mut config = TurnConfig::new(address);
        config.transport = entered.server.transport;
        config.family = match address {
            SocketAddr::V4(_) => Family::V4,
            SocketAddr::V6(_) => Family::V6,
        };
        config.peers = PERMITTED as u16;
        let credentials = entered.server.credentials.clone();
        let client = TurnClient::new(config, credentials, self.rng.array(), now);
        self.turn.wait = now;
        self.turn.link = Link::Up {
            server,
            at: address,
            client: Box::new(client),
            mapped: None,
        };
    }

    /// The server of this attempt can't be reached, or its stream has ended: `why`, for people.
    pub fn handle_turn_lost(&mut self, attempt: u32, why: &str, now: Instant) {
        if attempt == self.turn.attempt && self.turn.in_use().is_some() {
            self.turn_failed(why.to_string(), RETRY, now);
        }
    }

    /// Takes a message that came over the stream to the TURN server.
    ///
    /// # Errors
    /// As of [`Node::handle_wan`].
    pub fn handle_turned(
        &mut self,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let result = self.take_turned(frame, now);
        self.note_datagram(result)
    }

    /// A datagram from the server in use: its answer, or what a peer sent through it.
    pub(super) fn take_turned(
        &mut self,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let Link::Up { at, client, .. } = &mut self.turn.link else {
            return Err(DropReason::NotOurs);
        };
        self.turn.wait = now;
        let Some(peer) = client.receive(*at, frame, now) else {
            return Ok(Verdict::Consumed);
        };
        // Relaying and STUN are not for those behind somebody else's server.
        let is_sealed = matches!(frame.packet(), [1..=4, 0, 0, 0, ..] | [0x20..=DATA, ..]);
        if !is_sealed {
            return Err(DropReason::NotOurs);
        }
        let from = self.turn.ways.from(peer, now).ok_or(DropReason::Full)?;
        self.permit(peer, now);
        self.handle_datagram(from, frame, now)
    }

    /// Something authentic of `node`'s came from `from`: what that is thought of as.
    pub(super) fn turned(&mut self, node: NodeId, from: Endpoint, now: Instant) -> Endpoint {
        let from = self.turn.ways.authentic(node, from, now);
        self.derped(node, from)
    }

    /// What to do with a datagram that goes by a TURN server.
    pub(super) fn send_turned(
        &mut self,
        side: Side,
        node: NodeId,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let address = self.turn.ways.address(side, node);
        let address = address.ok_or(DropReason::NoPath)?;
        if side == Side::Theirs {
            return Ok(Verdict::Send {
                to: self.traversal.outward(address),
                port: PortId::MAIN,
            });
        }
        let server = self.turn.in_use().ok_or(DropReason::NoPath)?;
        let client = self.turn.client().ok_or(DropReason::NoPath)?;
        let to = client
            .send(address, frame, now)
            .map_err(|refused| match refused {
                crate::turn::TurnRefused::NoRoom => DropReason::TooLarge,
                _ => DropReason::NoPath,
            })?;
        Ok(match self.turn.transport(server) {
            Transport::Datagram => Verdict::Send {
                to: self.traversal.outward(to),
                port: PortId::MAIN,
            },
            Transport::Stream => Verdict::ToTurn,
        })
    }

    /// What goes to the server in use itself.
    pub(super) fn poll_turn(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Output> {
        if self.turn.wait > now {
            return None;
        }
        loop {
            let server = self.turn.in_use()?;
            match self.turn.client()?.poll_output(frame, now) {
                TurnOutput::Send { to } => {
                    return Some(match self.turn.transport(server) {
                        Transport::Datagram => Output::Send {
                            to: self.traversal.outward(to),
                            port: PortId::MAIN,
                        },
                        Transport::Stream => Output::ToTurn,
                    });
                }
                TurnOutput::Tell(event) => self.turn_told(event, now),
                TurnOutput::Wait(until) => {
                    self.turn.wait = until;
                    return None;
                }
            }
        }
    }

    pub(super) fn handle_turn_timeout(&mut self, now: Instant) {
        if self.turn.deadline() <= now
            && let Some(client) = self.turn.client()
        {
            client.handle_timeout(now);
        }
    }

    /// This device's addresses changed: the server may see it elsewhere.
    pub(super) fn refresh_turn(&mut self, now: Instant) {
        self.turn.wait = now;
        if let Some(client) = self.turn.client() {
            client.refresh(now);
        }
        for entered in &mut self.turn.servers {
            // What couldn't be reached from where it was may be from here.
            entered.retry_at = entered.retry_at.min(now);
            entered.pause = RETRY;
        }
    }

    /// Gives the allocation back, as this node ends: what is to be sent for that follows.
    pub fn close_turn(&mut self, now: Instant) {
        self.turn.wait = now;
        if let Some(client) = self.turn.client() {
            client.close(now);
        }
    }

    fn turn_told(&mut self, event: TurnEvent, now: Instant) {
        match event {
            TurnEvent::Allocated {
                relayed, mapped, ..
            } => self.turn_relays(relayed, mapped, now),
            TurnEvent::Failed { why } => {
                let pause = match why {
                    TurnFailure::Unreachable | TurnFailure::Lost | TurnFailure::Refused { .. } => {
                        RETRY
                    }
                    _ => RETRY_FINAL,
                };
                self.turn_failed(why.to_string(), pause, now);
            }
            TurnEvent::Closed => self.turn_off(now),
            TurnEvent::PeerRefused { .. } => {}
        }
    }

    fn turn_relays(&mut self, relayed: SocketAddr, seen: SocketAddr, now: Instant) {
        let Some(server) = self.turn.in_use() else {
            return;
        };
        let is_main = self.turn.transport(server) == Transport::Datagram;
        let mut name = String::new();
        if let Some(entered) = self.turn.servers.get_mut(server) {
            entered.pause = RETRY;
            entered.trouble = None;
            name.clone_from(&entered.server.name);
        }
        if let Link::Up { at, mapped, .. } = &mut self.turn.link {
            *mapped = is_main.then_some(seen);
            let by = at.ip();
            let is_relay = |link: &super::relays::RelayLink| {
                link.address.is_some_and(|address| address.ip() == by)
            };
            if is_main && !self.relays.values().any(is_relay) {
                self.seen_as(by, seen, now);
            }
        }
        self.tell(Event::TurnUp {
            server: name,
            relayed,
        });
        self.presence_changed(now);
    }

    /// The server in use is of no use; the next one is asked, or the same later. Told once.
    fn turn_failed(&mut self, why: String, pause: Duration, now: Instant) {
        let failed = self.turn.in_use();
        self.turn_off(now);
        let entered = failed.and_then(|server| self.turn.servers.get_mut(server));
        let Some(entered) = entered else {
            return;
        };
        entered.pause = entered.pause.max(pause);
        entered.retry_at = now.after(entered.pause);
        entered.pause = (entered.pause * 2).min(RETRY_MOST.max(pause));
        if entered.trouble.as_ref() != Some(&why) {
            entered.trouble = Some(why.clone());
            let server = entered.server.name.clone();
            self.tell(Event::TurnDown { server, why });
        }
    }

    fn turn_off(&mut self, now: Instant) {
        let was = self.turn.relayed().is_some() || self.turn.mapped().is_some();
        self.turn.link = Link::Off;
        self.turn.ways.close();
        self.turn.permitted.clear();
        if was {
            self.presence_changed(now);
        }
        self.relays_changed(now);
        self.timers.housekeeping_at(now);
    }

    /// Asks for an allocation when one is needed, gives it back when it isn't, and has the ways to
    /// peers tried. Returns when to look again.
    pub(super) fn tend_turn(&mut self, now: Instant) -> Instant {
        let peers = &self.peers;
        self.turn.ways.retain(|node| peers.contains_key(&node));
        let next = self.tend_need(now).min(self.tend_turn_server(now));
        let mut last = None;
        let mut deadline = next;
        while let Some(node) = self.peer_after(last) {
            last = Some(node);
            deadline = deadline.min(self.tend_ways(node, now));
        }
        deadline
    }

    /// Whether somebody else's server is wanted. Returns when that may change.
    fn tend_need(&mut self, now: Instant) -> Instant {
        if self.turn.servers.is_empty() && !self.has_derpers() {
            return Instant::NEVER;
        }
        let is_needed = self.needs_others(now);
        if is_needed != self.turn.is_needed {
            self.turn.is_needed = is_needed;
            self.turn.since = now;
        }
        if is_needed == self.turn.is_wanted {
            return Instant::NEVER;
        }
        let changes = self
            .turn
            .since
            .after(if is_needed { PATIENCE } else { KEEP });
        if changes > now {
            return changes;
        }
        self.turn.is_wanted = is_needed;
        Instant::NEVER
    }

    fn tend_turn_server(&mut self, now: Instant) -> Instant {
        match (self.turn.in_use(), self.turn.is_wanted) {
            (None, true) => {
                let servers = self.turn.servers.iter();
                let ready = servers.enumerate().find(|(_, one)| one.retry_at <= now);
                if let Some(server) = ready.map(|(at, _)| at) {
                    self.turn.attempt = self.turn.attempt.wrapping_add(1);
                    self.turn.link = Link::Wanted(server);
                    return Instant::NEVER;
                }
                let servers = self.turn.servers.iter();
                servers
                    .map(|one| one.retry_at)
                    .min()
                    .unwrap_or(Instant::NEVER)
            }
            (Some(_), false) => {
                match self.turn.client() {
                    Some(client) => client.close(now),
                    None => self.turn_off(now),
                }
                self.turn.wait = now;
                Instant::NEVER
            }
            _ => Instant::NEVER,
        }
    }

    /// Whether no relay of ours forwards, so that nobody finds this node otherwise; or somebody who
    /// is talked to is reached by one relay at most and by nothing else.
    fn needs_others(&self, now: Instant) -> bool {
        if self.network.is_none() {
            return false;
        }
        if self.has_no_relay() {
            return true;
        }
        self.peers.values().any(|peer| {
            let is_direct = matches!(peer.path.why(), Why::DirectAnswered(_));
            !peer.wanted && !peer.is_idle(now) && !is_direct && peer.path.own_relays() < 2
        })
    }

    /// Whether nobody finds this node by a relay of ours.
    fn has_no_relay(&self) -> bool {
        let is_relay = self.own_roles().contains(Roles::RELAY);
        !is_relay && self.relays.values().all(|link| link.token.is_none())
    }

    /// Lets a peer in that has no direct way, and tries the ways to it. Returns when to look again.
    fn tend_ways(&mut self, node: NodeId, now: Instant) -> Instant {
        let Some(peer) = self.peers.get(&node) else {
            return Instant::NEVER;
        };
        let is_direct = matches!(peer.path.why(), Why::DirectAnswered(_));
        // Where there is no relay through which it is found again a way is kept for later.
        let rests = peer.is_idle(now) && !self.has_no_relay();
        if peer.wanted || rests || is_direct {
            return Instant::NEVER;
        }
        let by_turn = peer.path.is_foreign();
        if let Some(Endpoint::Relayed { relay, .. }) = peer.path.current()
            && let Some(side) = Side::of(relay)
            && peer.path.is_sent_to(now)
        {
            self.turn.ways.doubt(side, node, now);
        }
        if let Some(relayed) = self.turn.relayed() {
            let is_theirs = |address: &SocketAddr| address.is_ipv4() == relayed.is_ipv4();
            let told = peer.path.tried().map(|tried| tried.address);
            let theirs = self.turn.ways.address(Side::Theirs, node);
            let all = theirs.into_iter().chain(told).filter(is_theirs);
            let all: heapless::Vec<SocketAddr, ADDRESSES> = all.take(ADDRESSES).collect();
            for address in all {
                self.permit(address, now);
            }
            if let Some(theirs) = theirs
                && !self.turn.ways.is_proven(Side::Theirs, node)
                && theirs.is_ipv4() == relayed.is_ipv4()
            {
                self.turn.ways.try_at(node, theirs, now);
            }
        }
        let Some(session) = self.stands(node) else {
            return Instant::NEVER;
        };
        if by_turn && now.saturating_since(self.turn.relays_asked) >= RELAYS_AGAIN {
            self.turn.relays_asked = now;
            let relay = self.peers.get(&node).and_then(|peer| peer.path.own_relay());
            if let Some(relay) = relay {
                let there = Endpoint::Relayed { relay, node };
                self.control.challenge(session, there, now);
            }
        }
        let probes = &mut self.probes;
        let mut may = |address: SocketAddr| probes.take(node, address.ip(), now);
        let mut any_lost = false;
        loop {
            let (due, is_lost) = self.turn.ways.poll(node, &mut may, now);
            any_lost |= is_lost;
            match due {
                Some(endpoint) => self.control.challenge(session, endpoint, now),
                None => break,
            }
        }
        if any_lost {
            self.ways_changed(node, now);
        }
        self.turn.ways.deadline(node)
    }

    /// Lets in what comes from `address`, if there is room.
    fn permit(&mut self, address: SocketAddr, now: Instant) {
        if self.turn.permitted.contains(&address) {
            return;
        }
        if self.turn.permitted.is_full() {
            let former = self.turn.permitted.remove(0);
            if let Some(client) = self.turn.client() {
                client.forget(former);
            }
        }
        self.turn.wait = now;
        if let Some(client) = self.turn.client()
            && client.permit(address, now).is_ok()
        {
            let _ = self.turn.permitted.push(address);
        }
    }

    /// Which ways lead to a peer by servers of others may be others now.
    pub(super) fn ways_changed(&mut self, node: NodeId, now: Instant) {
        let Some(record) = self.record_of(node) else {
            return;
        };
        let relays = self.relays_to(node, &record, now);
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.path.set_relays(&relays, now);
        }
        self.follow_path(node, now);
    }

    /// A challenge along a way was answered.
    pub(super) fn turn_answered(&mut self, node: NodeId, side: Side, now: Instant) {
        if self.turn.ways.proves(side, node, now) {
            if let Some(address) = self.turn.ways.address(side, node) {
                self.probes.answered(address.ip());
            }
            self.ways_changed(node, now);
        }
    }

    /// The ways by TURN servers that carry to a peer. Both sides prefer the one through the server
    /// of the node with the lesser id.
    pub(super) fn turns_to(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let own = self.network.as_ref().map(|network| network.own.node);
        let sides = match own.is_some_and(|own| own < node) {
            true => [Side::Ours, Side::Theirs],
            false => [Side::Theirs, Side::Ours],
        };
        let carries = move |side: &Side| self.turn.ways.is_proven(*side, node);
        sides.into_iter().filter(carries).map(Side::id)
    }

    /// Says to a peer which of the addresses it is told leads through a TURN server.
    pub(super) fn tell_turn_to(&mut self, node: NodeId, now: Instant) {
        if self.turn.servers.is_empty() {
            return;
        }
        let relayed = self.turn.relayed();
        if let Some(session) = self.stands(node) {
            self.say(session, &Message::Notice(Notice::Turn { relayed }), now);
        }
    }

    /// A peer says which of its addresses leads through a TURN server.
    pub(super) fn peer_turns(&mut self, node: NodeId, relayed: Option<SocketAddr>, now: Instant) {
        if !self.peers.contains_key(&node) || !self.turn.ways.told(node, relayed, now) {
            return;
        }
        if let (Some(address), Some(peer)) = (relayed, self.peers.get_mut(&node)) {
            // Until now it looked like one that leads to the peer itself.
            let was_proven = peer.path.drop_direct(address, now);
            if was_proven {
                self.turn.ways.proves(Side::Theirs, node, now);
            }
        }
        self.ways_changed(node, now);
        self.timers.housekeeping_at(now);
    }

    /// A session with a peer began along a way: that went there and back.
    pub(super) fn turn_shook(
        &mut self,
        node: NodeId,
        endpoint: Endpoint,
        now: Instant,
    ) -> Endpoint {
        let endpoint = self.turned(node, endpoint, now);
        if let Endpoint::Relayed { relay, .. } = endpoint
            && let Some(side) = Side::of(relay)
        {
            self.turn_answered(node, side, now);
        }
        self.turn.ways.retry(node, now);
        endpoint
    }

    /// An endpoint, for people.
    pub(super) fn endpoint_text(&self, endpoint: Endpoint) -> String {
        let Endpoint::Relayed { relay, node } = endpoint else {
            return endpoint.to_string();
        };
        if let Some(server) = derper_of(relay) {
            return alloc::format!("by DERP server {}", self.derper_name(server));
        }
        match Side::of(relay) {
            Some(Side::Ours) => {
                let in_use = self.turn.in_use();
                let server = in_use.and_then(|server| self.turn.servers.get(server));
                let name = server.map_or("", |one| one.server.name.as_str());
                alloc::format!("by TURN server {name}")
            }
            Some(Side::Theirs) => match self.turn.ways.address(Side::Theirs, node) {
                Some(address) => alloc::format!("by its TURN server at {}", address.ip()),
                None => "by its TURN server".into(),
            },
            None => endpoint.to_string(),
        }
    }

    /// The servers that were entered, and what became of them.
    pub(super) fn turn_views(&self) -> Vec<TurnView> {
        let in_use = self.turn.in_use();
        let servers = self.turn.servers.iter().enumerate();
        servers
            .map(|(at, entered)| {
                let is_it = in_use == Some(at);
                let relayed = self.turn.relayed().filter(|_| is_it);
                TurnView {
                    server: entered.server.name.clone(),
                    state: match (relayed, is_it, &entered.trouble) {
                        (Some(_), ..) => "up",
                        (None, true, None) => "asked",
                        (None, _, Some(_)) => "failed",
                        (None, false, None) => "idle",
                    }
                    .into(),
                    relayed: relayed.map(|address| address.to_string()),
                    why: entered.trouble.clone(),
                }
            })
            .collect()
    }
}
