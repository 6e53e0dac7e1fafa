//! A client of a TURN server: a relay of somebody else's, where nothing better is left (RFC 8656).
//!
//! In: the server's address and credentials at construction, whom to exchange datagrams with
//! ([`TurnClient::permit`]), datagrams from the server, time, entropy. Out: datagrams to the
//! server, and what it granted: an [`TurnEvent::Allocated`] address that peers can send to, or why
//! it didn't. A datagram for a peer gets its header where it lies ([`TurnClient::send`]), and one
//! from a peer loses it there ([`TurnClient::receive`]): no copy, no allocation, one look-up, and
//! four bytes once the peer has a channel.
//!
//! Promises: no bytes make it panic or hold more than its bounds; an answer counts only if whoever
//! knows the password signed it; a failure is told once, and nothing is asked for after it until
//! [`TurnClient::start`]. What is asked for is asked again until it is there, and before it ends.
//!
//! Deliberately absent: sockets and names, TCP between the server and peers (RFC 6062), several
//! allocations, reserved ports, and authenticity of what peers sent: a server can forge that, so
//! it is to be sealed.

mod answers;
mod api;
mod exchange;
mod login;
mod peers;
mod requests;

use core::net::SocketAddr;

use altnet_wire::frame::Frame;
use altnet_wire::stun::channel::Channel;
use altnet_wire::stun::{TransactionId, carry, stream};
use altnet_wire::time::{Duration, Instant};
use heapless::Deque;

pub use api::{Family, Transport, TurnConfig, TurnEvent, TurnFailure, TurnOutput, TurnRefused};
pub use exchange::{RC, RM, RTO, TI};
pub use login::{BadCredentials, Credentials, MAX_TEXT_BYTES};
pub use peers::PeersFull;

use crate::rng::Rng;
use exchange::Exchange;
use login::Login;
use peers::{Peers, Way};
use requests::Request;

/// A NAT on the way to the server keeps its mapping at least so long (RFC 4787 REQ-5 allows two
/// minutes, many keep only 30 s).
const KEEPALIVE: Duration = Duration::from_secs(20);
/// An allocation is renewed so long before its end, if it lasts much longer than that
/// (RFC 8656 section 8).
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// Facts told at most this many at a time; the oldest give way.
const EVENTS: usize = 16;

/// How far things are.
enum State {
    /// Nothing is asked for.
    Idle,
    /// An allocation is asked for. `cleared` if one of a former life was in the way.
    Allocating { exchange: Exchange, cleared: bool },
    /// One of a former life is in the way, and is being given back.
    Clearing { exchange: Exchange },
    /// There is one.
    Up {
        relayed: SocketAddr,
        ends: Instant,
        renew: Instant,
        renewal: Option<Exchange>,
    },
    /// It is being given back.
    Closing { exchange: Exchange },
}

/// One allocation on one server.
pub struct TurnClient {
    config: TurnConfig,
    credentials: Credentials,
    rng: Rng,
    state: State,
    /// How requests are signed, since the server asked for it.
    login: Option<Login>,
    /// An answer to what is asked now wasn't signed as it had to be.
    saw_forged: bool,
    peers: Peers,
    events: Deque<TurnEvent, EVENTS>,
    /// When something was last sent to the server.
    sent: Instant,
    /// Until then nothing is to be written; earlier than that is harmless.
    quiet_until: Instant,
}

impl TurnClient {
    /// A client that asks for an allocation at once. `seed` is 32 bytes that nobody else knows.
    pub fn new(config: TurnConfig, credentials: Credentials, seed: [u8; 32], now: Instant) -> Self {
        let mut client = Self {
            config,
            credentials,
            rng: Rng::new(seed),
            state: State::Idle,
            login: None,
            saw_forged: false,
            peers: Peers::new(config.peers),
            events: Deque::new(),
            sent: now,
            quiet_until: now,
        };
        client.start(now);
        client
    }

    /// Mixes fresh entropy into the generator.
    pub fn handle_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.handle_entropy(entropy);
    }

    /// Asks for an allocation, after a failure or [`TurnClient::close`]; else nothing happens.
    pub fn start(&mut self, now: Instant) {
        if matches!(self.state, State::Idle) {
            // Whatever the server asked for earlier, it may ask for something else now.
            self.login = None;
            self.allocate(false, now);
        }
    }

    /// Gives the allocation back.
    pub fn close(&mut self, now: Instant) {
        self.state = match self.state {
            State::Up { .. } => State::Closing {
                exchange: self.exchange(now),
            },
            State::Closing { exchange } => State::Closing { exchange },
            _ => State::Idle,
        };
        if matches!(self.state, State::Idle) {
            self.tell(TurnEvent::Closed);
        }
        self.peers.forget_grants();
        self.quiet_until = now;
    }

    /// Renews everything now rather than when it is due: after this device slept or its addresses
    /// changed, that tells whether the server still knows it.
    pub fn refresh(&mut self, now: Instant) {
        if let State::Up { renew, .. } = &mut self.state {
            *renew = now;
            self.peers.refresh(now);
            self.handle_timeout(now);
        }
    }

    /// Whether there is an allocation.
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// What peers send to, while there is an allocation.
    pub const fn relayed(&self) -> Option<SocketAddr> {
        match self.state {
            State::Up { relayed, .. } => Some(relayed),
            _ => None,
        }
    }

    /// Lets datagrams through from and to `peer` from now on: its whole IP address, with any port,
    /// as TURN has it.
    ///
    /// # Errors
    /// [`PeersFull`].
    pub fn permit(&mut self, peer: SocketAddr, now: Instant) -> Result<(), PeersFull> {
        self.peers.want(peer)?;
        self.handle_timeout(now);
        Ok(())
    }

    /// Exchanges nothing with `peer` any more.
    pub fn forget(&mut self, peer: SocketAddr) {
        self.peers.unwant(peer);
    }

    /// Puts a header for `peer` before the frame's datagram and says where it is to be sent.
    ///
    /// # Errors
    /// [`TurnRefused`].
    pub fn send(
        &mut self,
        peer: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<SocketAddr, TurnRefused> {
        if !self.is_up() {
            return Err(TurnRefused::NoAllocation);
        }
        let way = self.peers.wanted(peer).and_then(|peer| peer.way(now));
        let pushed = match way.ok_or(TurnRefused::NotPermitted)? {
            Way::Channel(channel) => channel.push(frame).and_then(|()| self.pad(frame)),
            Way::Indication => carry::push_send(peer, self.transaction(), frame),
        };
        pushed.map_err(|_| TurnRefused::NoRoom)?;
        self.sent = now;
        Ok(self.config.server)
    }

    /// Takes what came from `from`. If the frame holds a peer's datagram then, says whose.
    pub fn receive(
        &mut self,
        from: SocketAddr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Option<SocketAddr> {
        let server = self.config.server;
        // A socket for both families shows IPv4 as mapped addresses (RFC 4291 section 2.5.5.2).
        let is_servers = from.ip().to_canonical() == server.ip().to_canonical();
        if !is_servers || from.port() != server.port() {
            return None;
        }
        if let Some(channel) = Channel::pop(frame) {
            return self.peers.by_channel(channel);
        }
        if let Some(peer) = carry::pop_data(frame) {
            return self.peers.is_wanted_at(peer.ip()).then_some(peer);
        }
        self.handle_answer(frame.packet(), now);
        None
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.quiet_until = now;
        let transport = self.config.transport;
        match &self.state {
            State::Allocating { exchange, .. } | State::Clearing { exchange }
                if exchange.is_over(transport, now) =>
            {
                self.unanswered();
            }
            State::Closing { exchange } if exchange.is_over(transport, now) => self.closed(),
            State::Up { ends, renewal, .. } => {
                let renewal = renewal.as_ref();
                let is_over = renewal.is_some_and(|renewal| renewal.is_over(transport, now));
                if is_over || *ends <= now {
                    self.unanswered();
                } else {
                    self.renew(now);
                    self.tend_peers(now);
                }
            }
            _ => {}
        }
    }

    /// Says what is to be done; to be called until it says [`TurnOutput::Wait`].
    pub fn poll_output(&mut self, frame: &mut Frame<'_>, now: Instant) -> TurnOutput {
        if let Some(event) = self.events.pop_front() {
            return TurnOutput::Tell(event);
        }
        if self.quiet_until <= now {
            if self.write_due(frame, now) {
                self.sent = now;
                let to = self.config.server;
                return TurnOutput::Send { to };
            }
            // What couldn't be written is a failure.
            if let Some(event) = self.events.pop_front() {
                return TurnOutput::Tell(event);
            }
            self.quiet_until = self.next();
        }
        TurnOutput::Wait(self.quiet_until)
    }

    /// Writes what is due, if anything is.
    fn write_due(&mut self, frame: &mut Frame<'_>, now: Instant) -> bool {
        let transport = self.config.transport;
        let lifetime_s = self.config.lifetime_s;
        let (exchange, request) = match &mut self.state {
            State::Idle => return false,
            State::Allocating { exchange, .. } => (Some(exchange), Request::Allocate),
            State::Clearing { exchange } | State::Closing { exchange } => {
                (Some(exchange), Request::Refresh { lifetime_s: 0 })
            }
            State::Up { renewal, .. } => (renewal.as_mut(), Request::Refresh { lifetime_s }),
        };
        if let Some(exchange) = exchange
            && exchange.take_due(transport, now)
        {
            let transaction = exchange.transaction;
            return self.write(&request, transaction, frame);
        }
        let due = self.peers.iter_mut().find_map(|peer| {
            let exchange = peer.exchange.as_mut()?;
            let is_due = exchange.take_due(transport, now);
            is_due.then_some((exchange.transaction, Request::of_peer(peer)))
        });
        if let Some((transaction, request)) = due {
            return self.write(&request, transaction, frame);
        }
        let is_silent = self.is_up() && self.keepalive() <= now;
        if is_silent {
            let transaction = self.transaction();
            return self.write(&Request::Keepalive, transaction, frame);
        }
        false
    }

    fn keepalive(&self) -> Instant {
        match self.config.transport {
            Transport::Datagram => self.sent.after(KEEPALIVE),
            Transport::Stream => Instant::NEVER,
        }
    }

    /// When something is next due.
    fn next(&self) -> Instant {
        match &self.state {
            State::Idle => Instant::NEVER,
            State::Allocating { exchange, .. }
            | State::Clearing { exchange }
            | State::Closing { exchange } => exchange.next(),
            State::Up {
                ends,
                renew,
                renewal,
                ..
            } => {
                let renewal = renewal.as_ref().map_or(*renew, Exchange::next);
                let own = renewal.min(*ends).min(self.keepalive());
                own.min(self.peers.next())
            }
        }
    }

    fn allocate(&mut self, cleared: bool, now: Instant) {
        let exchange = self.exchange(now);
        self.state = State::Allocating { exchange, cleared };
        self.saw_forged = false;
        self.quiet_until = now;
    }

    fn renew(&mut self, now: Instant) {
        if let State::Up { renew, renewal, .. } = &mut self.state
            && renewal.is_none()
            && *renew <= now
        {
            *renewal = Some(Exchange::new(TransactionId(self.rng.array()), now));
            self.saw_forged = false;
        }
    }

    /// Asks for what peers lack.
    fn tend_peers(&mut self, now: Instant) {
        let transport = self.config.transport;
        let mut is_silent = false;
        for peer in self.peers.iter_mut() {
            let exchange = peer.exchange.as_ref();
            if exchange.is_some_and(|exchange| exchange.is_over(transport, now)) {
                peer.unanswered(now);
                is_silent = true;
            }
            if peer.is_due(now) {
                peer.exchange = Some(Exchange::new(TransactionId(self.rng.array()), now));
            }
        }
        // Whether the server is still there shows at once rather than at the next renewal.
        if is_silent && let State::Up { renew, .. } = &mut self.state {
            *renew = now;
            self.renew(now);
        }
    }

    fn unanswered(&mut self) {
        let why = match self.saw_forged {
            true => TurnFailure::Forged,
            false => TurnFailure::Unreachable,
        };
        self.fail(why);
    }

    fn fail(&mut self, why: TurnFailure) {
        self.state = State::Idle;
        self.peers.forget_grants();
        self.tell(TurnEvent::Failed { why });
    }

    fn closed(&mut self) {
        self.state = State::Idle;
        self.tell(TurnEvent::Closed);
    }

    fn tell(&mut self, event: TurnEvent) {
        if self.events.is_full() {
            self.events.pop_front();
        }
        let _ = self.events.push_back(event);
    }

    fn transaction(&mut self) -> TransactionId {
        TransactionId(self.rng.array())
    }

    fn exchange(&mut self, now: Instant) -> Exchange {
        Exchange::new(self.transaction(), now)
    }

    fn pad(&self, frame: &mut Frame<'_>) -> Result<(), altnet_wire::frame::NoRoom> {
        match self.config.transport {
            Transport::Datagram => Ok(()),
            Transport::Stream => stream::pad(frame),
        }
    }
}

#[cfg(test)]
mod tests;
