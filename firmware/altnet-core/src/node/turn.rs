//! Other people's TURN servers (RFC 8656), where nothing better is left (ADR 0020).
//!
//! In: the servers that a person entered, word that one can be reached, what comes from it. Out: one
//! allocation at a time, told to peers as one more address, and ways to peers ([`ways`]) that come
//! after every relay of ours. What an allocation costs is paid only while it is needed: no relay of
//! ours forwards, or a peer that is talked to has no direct way and no two relays to choose from.
//!
//! A server over UDP is spoken to from this node's main port, so that one mapping of the NATs before
//! it serves all; over TCP or TLS the driver carries its bytes.

mod peers;
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
use altnet_wire::record::Roles;
use altnet_wire::split::PIECE;
use altnet_wire::time::{Duration, Instant};

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
    permitted: heapless::Vec<(SocketAddr, Instant), PERMITTED>,
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

    /// Takes the servers of others that this node was told of, for one that goes on in its place: TURN
    /// servers, and the names of DERP servers.
    pub fn take_servers_of_others(&mut self) -> (Vec<TurnServer>, Vec<String>) {
        let turn = core::mem::take(&mut self.turn.servers);
        let turn = turn.into_iter().map(|entered| entered.server).collect();
        (turn, self.take_derpers())
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
        let is_sealed = matches!(
            frame.packet(),
            [1..=4, 0, 0, 0, ..] | [0x20..=DATA | PIECE, ..]
        );
        if !is_sealed {
            return Err(DropReason::NotOurs);
        }
        let from = self.turn.ways.from(peer, now).ok_or(DropReason::Full)?;
        // Nothing shows yet who that is: nobody gives way to it.
        if !self.turn.permitted.is_full() {
            self.permit(peer, now);
        }
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

    pub(super) fn turn_off(&mut self, now: Instant) {
        let was = self.turn.relayed().is_some() || self.turn.mapped().is_some();
        self.turn.link = Link::Off;
        self.turn.ways.close();
        self.turn.permitted.clear();
        (self.turn.is_needed, self.turn.is_wanted) = (false, false);
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
}
