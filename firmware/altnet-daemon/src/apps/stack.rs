//! A TCP stack, an app's or the portal's: smoltcp's, and which connections it may have.
//!
//! In: packets, time. Out: packets through the [`Link`], callers through [`Stack::accept`], a
//! deadline. A socket is made when a caller opens a connection and room is left, never before, so
//! that a flood of those who never answer takes bounded memory and leaves what is established
//! alone. It knows neither tasks nor targets; `stream` reads and writes its sockets.

use std::collections::VecDeque;
use std::net::Ipv6Addr;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr, IpListenEndpoint};
use tokio::sync::mpsc;

use super::connection::{self, Connection, Phase};
use super::link::{Arrival, Link, Segment, arrival};
use super::stats::{Refusal, Stats};
use super::{Limits, Packet, Patience};

/// The interface has an address even if it stands for all: one of the discard prefix (RFC 6666).
const NOBODY: Ipv6Addr = Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 1);

/// A caller is asked whether it is there this often within [`Patience::silent`], so that two
/// lost packets end nothing.
const KEEP_ALIVES: u32 = 4;

/// Where callers reach a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its address; none if whatever comes is for it.
    pub address: Option<Ipv6Addr>,
    /// Its ports.
    pub ports: Vec<u16>,
    /// The largest packet, in bytes.
    pub mtu_bytes: u16,
}

/// The stack of one app, or of all addresses.
pub(super) struct Stack {
    address: Option<Ipv6Addr>,
    ports: Vec<u16>,
    limits: Limits,
    patience: Patience,
    interface: Interface,
    link: Link,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    accepted: VecDeque<Accepted>,
    /// What it counts; see [`Stack::stats`].
    pub stats: Stats,
}

/// A connection whose handshake was finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Its socket, which lives until [`Stack::release`].
    pub socket: SocketHandle,
    /// Who called.
    pub caller: Ipv6Addr,
    /// At which port.
    pub port: u16,
}

impl Stack {
    pub fn new(
        place: Place,
        limits: Limits,
        patience: Patience,
        outbox: mpsc::Sender<Packet>,
        seed: u64,
    ) -> Self {
        let mut link = Link::new(outbox, place.mtu_bytes);
        let mut settings = Config::new(HardwareAddress::Ip);
        settings.random_seed = seed;
        let mut interface = Interface::new(settings, &mut link, Instant::ZERO);
        let own = place.address.unwrap_or(NOBODY);
        interface.update_ip_addrs(|addresses| {
            // There is room for two.
            let _ = addresses.push(IpCidr::new(own.into(), 128));
        });
        interface.set_any_ip(place.address.is_none());
        // Whatever its destination, a packet leaves by the link.
        let _ = interface.routes_mut().add_default_ipv6_route(own);
        Self {
            address: place.address,
            ports: place.ports,
            limits,
            patience,
            interface,
            link,
            sockets: SocketSet::new(Vec::with_capacity(limits.connections)),
            connections: Vec::with_capacity(limits.connections),
            accepted: VecDeque::with_capacity(limits.connections),
            stats: Stats::default(),
        }
    }

    /// Whether packets can be taken in and sent.
    pub fn has_room(&self) -> bool {
        self.link.has_room()
    }

    pub fn handle_packet(&mut self, packet: Packet, now: Instant) {
        let opening = match arrival(&packet, self.address) {
            None => {
                self.stats.dropped += 1;
                return;
            }
            Some(Arrival::Segment(segment)) if segment.is_opening => Some(segment),
            Some(_) => None,
        };
        match opening.and_then(|segment| self.prepare(segment)) {
            Some(Room::Listening(socket, segment)) => {
                self.take_in(packet, now);
                self.open_or_forget(socket, segment, now);
            }
            Some(Room::Later) => self.stats.dropped += 1,
            // Part of a connection; or the stack says that there is none.
            None => self.take_in(packet, now),
        }
    }

    fn take_in(&mut self, packet: Packet, now: Instant) {
        self.link.arrive(packet);
        self.interface
            .poll_ingress_single(now, &mut self.link, &mut self.sockets);
        if self.link.take_back() {
            self.stats.dropped += 1;
        }
    }

    /// Makes a socket for a caller, if it opens a connection that it may have.
    fn prepare(&mut self, segment: Segment) -> Option<Room> {
        let known = self.connections.iter().position(|c| c.is_of(segment));
        if let Some(known) = known {
            if !self.only_waits(&self.connections[known]) {
                return None;
            }
            // RFC 9293 section 3.6.1: TIME-WAIT may give way to a new connection.
            self.forget(known);
        }
        if !self.ports.contains(&segment.port) {
            return None;
        }
        match self.refusal(segment.caller) {
            Some(why) => {
                self.stats.refuse(why);
                (why == Refusal::HalfOpenFull).then_some(Room::Later)
            }
            None => {
                let socket = self.sockets.add(self.listening(segment.port)?);
                Some(Room::Listening(socket, segment))
            }
        }
    }

    /// Why `caller` may not have one connection more. Makes room by what only waits.
    fn refusal(&mut self, caller: Ipv6Addr) -> Option<Refusal> {
        let living = self.connections.iter().filter(|c| !self.only_waits(c));
        if let Some(why) = connection::refusal(living, caller, &self.limits) {
            return Some(why);
        }
        if self.connections.len() >= self.limits.connections {
            // The oldest is first.
            let waits = |connection: &Connection| self.only_waits(connection);
            let Some(oldest) = self.connections.iter().position(waits) else {
                return Some(Refusal::AppFull);
            };
            self.forget(oldest);
        }
        None
    }

    fn listening(&self, port: u16) -> Option<Socket<'static>> {
        let buffer = || SocketBuffer::new(vec![0; self.limits.buffer_bytes]);
        let mut socket = Socket::new(buffer(), buffer());
        let silent = Duration::from(self.patience.silent);
        socket.set_timeout(Some(silent));
        socket.set_keep_alive(Some(silent / KEEP_ALIVES));
        socket.set_congestion_control(CongestionControl::Reno);
        // What a target says in small pieces it wants to be heard in small pieces.
        socket.set_nagle_enabled(false);
        // No other socket uses it, and it is not 0.
        let at = IpListenEndpoint {
            addr: self.address.map(Into::into),
            port,
        };
        socket.listen(at).ok()?;
        Some(socket)
    }

    /// Keeps the socket if the packet that it was made for began a connection.
    fn open_or_forget(&mut self, socket: SocketHandle, segment: Segment, now: Instant) {
        if self.sockets.get::<Socket>(socket).state() != State::SynReceived {
            self.sockets.remove(socket);
            return;
        }
        self.connections.push(Connection {
            socket,
            segment,
            phase: Phase::HalfOpen,
            since: now,
        });
    }

    /// Whether a connection is over, and is kept only to answer stray packets of it.
    fn only_waits(&self, connection: &Connection) -> bool {
        connection.phase == Phase::Released
            && self.sockets.get::<Socket>(connection.socket).state() == State::TimeWait
    }

    fn forget(&mut self, index: usize) {
        let connection = self.connections.remove(index);
        self.sockets.remove(connection.socket);
    }

    /// Sends what can be sent and does what is due. Returns when something is next, if nothing
    /// arrives before.
    pub fn settle(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        self.interface.poll(now, &mut self.link, &mut self.sockets);
        let sockets = &mut self.sockets;
        self.connections.retain(|connection| {
            let socket = sockets.get::<Socket>(connection.socket);
            let is_over = match socket.state() {
                // It said that it is over too.
                State::Closed => socket.remote_endpoint().is_none(),
                // The caller took its opening back.
                State::Listen => true,
                _ => false,
            };
            let goes = is_over && connection.phase != Phase::Held;
            if goes {
                sockets.remove(connection.socket);
            }
            !goes
        });
        let next = self.interface.poll_at(now, &self.sockets);
        let ends = self.connections.iter().map(|c| self.end(c));
        ends.chain(next).min()
    }

    fn advance(&mut self, now: Instant) {
        for i in 0..self.connections.len() {
            let is_due = self.end(&self.connections[i]) <= now;
            let connection = &mut self.connections[i];
            let socket = self.sockets.get_mut::<Socket>(connection.socket);
            match connection.phase {
                Phase::HalfOpen => match socket.state() {
                    State::SynReceived if is_due => socket.abort(),
                    State::SynReceived | State::Listen | State::Closed => {}
                    _ => {
                        connection.phase = Phase::Held;
                        connection.since = now;
                        self.stats.accepted += 1;
                        self.accepted.push_back(Accepted {
                            socket: connection.socket,
                            caller: connection.segment.caller,
                            port: connection.segment.port,
                        });
                    }
                },
                Phase::Held if is_due && socket.is_open() => {
                    self.stats.idle += 1;
                    socket.abort();
                }
                Phase::Held => {}
                Phase::Released => {
                    // Nobody reads it, and what it fills would hold up the caller's FIN.
                    let _ = socket.recv(|bytes| (bytes.len(), ()));
                    if is_due && socket.state() != State::TimeWait {
                        socket.abort();
                    }
                }
            }
        }
    }

    /// When a connection's patience is over.
    fn end(&self, connection: &Connection) -> Instant {
        let socket = self.sockets.get::<Socket>(connection.socket);
        let patience = match connection.phase {
            Phase::HalfOpen => self.patience.half_open,
            Phase::Held if socket.is_open() => self.patience.idle,
            Phase::Released if socket.state() != State::TimeWait && socket.is_open() => {
                self.patience.linger
            }
            _ => return Instant::from_micros(i64::MAX),
        };
        connection.since + Duration::from(patience)
    }

    /// The next caller whose handshake was finished.
    pub fn accept(&mut self) -> Option<Accepted> {
        self.accepted.pop_front()
    }

    /// A socket that was accepted and not released.
    pub fn socket(&mut self, socket: SocketHandle) -> &mut Socket<'static> {
        self.sockets.get_mut(socket)
    }

    /// Notes that bytes passed.
    pub fn note_bytes(&mut self, socket: SocketHandle, now: Instant) {
        if let Some(connection) = self.connection(socket) {
            connection.since = now;
        }
    }

    /// Ends a connection as its holder leaves it: with a FIN once all is sent, or with a RST.
    /// The socket must not be used any more.
    pub fn release(&mut self, socket: SocketHandle, is_broken: bool, now: Instant) {
        let held = self.sockets.get_mut::<Socket>(socket);
        if is_broken {
            held.abort();
        } else {
            held.close();
        }
        if let Some(connection) = self.connection(socket) {
            connection.phase = Phase::Released;
            connection.since = now;
        }
    }

    fn connection(&mut self, socket: SocketHandle) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.socket == socket)
    }

    /// Ends all connections with a RST, as far as the link has room.
    pub fn close(&mut self, now: Instant) {
        for connection in &self.connections {
            self.sockets.get_mut::<Socket>(connection.socket).abort();
        }
        self.interface.poll(now, &mut self.link, &mut self.sockets);
    }

    /// What it counted, and how many connections there are.
    pub fn stats(&self) -> Stats {
        let living = self.connections.iter().filter(|c| !self.only_waits(c));
        Stats {
            connections: u32::try_from(living.count()).unwrap_or(u32::MAX),
            ..self.stats
        }
    }
}

enum Room {
    /// A socket waits for the caller's packet.
    Listening(SocketHandle, Segment),
    /// The caller will try again by itself if it hears nothing.
    Later,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Stack({:?}, {} connections)",
            self.address,
            self.connections.len()
        )
    }
}

#[cfg(test)]
mod tests;
