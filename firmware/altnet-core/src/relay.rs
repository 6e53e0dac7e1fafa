//! Forwarding for members, by destination id, without understanding what is forwarded.
//!
//! In: registrations of members whose control session vouches for them, datagrams with a
//! relay header. Out: where a datagram goes. A token is good from one address and port
//! alone; a client whose address changed is moved only after it answered a challenge sent
//! there through its control session. A forwarded packet costs two look-ups, of
//! the token and of the destination, and no allocation; nothing is ever queued.
//!
//! Deliberately absent: who may register (the caller asks the registry), what a stream is made of,
//! other relays ([`crate::mesh`]).

pub mod bench;
pub mod guests;
pub mod meet;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_wire::id::NodeId;
use altnet_wire::mesh::ShortToken;
use altnet_wire::relay::Token;
use altnet_wire::time::{Duration, Instant};

use share::{Line, Meter};
pub use share::{MONTH, Over, Parcel, Quotas};

mod share;

/// How long a registration lasts that isn't renewed, in seconds.
pub const LIFETIME_S: u32 = 90;

/// The longest silence after which a client is answered, in seconds.
const MOST_SILENCE_S: u16 = crate::path::keep::MOST_S;

/// How often at most a member is told that it has sent as much as it may.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// A client's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayCounters {
    /// Datagrams forwarded.
    pub forwarded: u64,
    /// Their bytes, relay headers not counted.
    pub forwarded_bytes: u64,
    /// Datagrams refused: unknown token, or a token from another address.
    pub refused: u64,
    /// Datagrams for a node that isn't registered here.
    pub no_such_node: u64,
    /// Datagrams of members that sent more than they may.
    pub over: u64,
}

/// How busy a relay with as many clients as it may have is, if its line is not.
const CROWDED: usize = 80;

/// Why a datagram isn't forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayDrop {
    /// The token isn't known, or comes from another address than it is bound to.
    BadToken,
    /// The destination isn't registered here.
    NoSuchNode,
}

/// A client's stream, as the driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// How a client is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By UDP, where its token is good from.
    Udp(SocketAddr),
    /// Over its stream.
    Stream(StreamId),
}

/// No room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay serves as many clients as it may")]
pub struct RelayFull;

#[derive(Clone, Copy, Debug)]
struct Client {
    node: NodeId,
    token: Token,
    way: Way,
    /// The stream by which it was reached before UDP carried again, while that stands.
    left: Option<StreamId>,
    ends: Instant,
    /// When it is to hear from us, and after how many seconds of silence that is.
    answer: Option<(Instant, u16)>,
    meter: Meter,
    /// When it was told last that it has sent as much as it may.
    warned: Instant,
}

/// What a client had forwarded, to be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Who.
    pub node: NodeId,
    /// How it is reached.
    pub way: Way,
    /// Bytes forwarded for it since the month began.
    pub bytes: u64,
    /// Datagrams of it that were not forwarded because it sent more than it may.
    pub over: u32,
}

/// An answer to a client that asked for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Where the client is.
    pub to: SocketAddr,
    /// Its token.
    pub token: Token,
    /// After how many seconds of silence.
    pub after_s: u16,
}

/// A client's place in the table.
type Place = u16;

/// A relay's clients.
#[derive(Debug)]
pub struct RelayServer {
    clients: Vec<Option<Client>>,
    /// The places that are free.
    free: Vec<Place>,
    // Every client is in the first two, and in the third with the stream it came over or has left.
    nodes: BTreeMap<NodeId, Place>,
    tokens: BTreeMap<Token, Place>,
    streams: BTreeMap<StreamId, Place>,
    limit: usize,
    /// No registration ends before.
    ends_first: Instant,
    counters: RelayCounters,
    /// No answer is due before.
    answers: Instant,
    /// How often a client came or went.
    changes: u64,
    line: Line,
    /// The place of whoever was found to send last: it is charged next, without a look-up.
    last: Place,
    /// What members had forwarded this month that are not registered now, as many as clients.
    spent: BTreeMap<NodeId, u64>,
    month: Instant,
}

impl RelayServer {
    /// A relay for at most `limit` clients, 65,535 if it is more.
    pub const fn new(limit: usize) -> Self {
        const MOST: usize = Place::MAX as usize;
        Self {
            clients: Vec::new(),
            free: Vec::new(),
            nodes: BTreeMap::new(),
            tokens: BTreeMap::new(),
            streams: BTreeMap::new(),
            limit: if limit < MOST { limit } else { MOST },
            ends_first: Instant::NEVER,
            counters: RelayCounters {
                forwarded: 0,
                forwarded_bytes: 0,
                refused: 0,
                no_such_node: 0,
                over: 0,
            },
            answers: Instant::NEVER,
            changes: 0,
            line: Line::new(),
            last: 0,
            spent: BTreeMap::new(),
            month: Instant::ZERO,
        }
    }

    /// Bounds what is forwarded from now on.
    pub const fn set_quotas(&mut self, quotas: Quotas) {
        self.line.quotas = quotas;
    }

    /// What bounds what is forwarded.
    pub const fn quotas(&self) -> Quotas {
        self.line.quotas
    }

    /// Registers `node` at `way` or lengthens its registration, and returns its token:
    /// the one it has, or `fresh` (from the caller's generator) if it has none.
    ///
    /// A client that is known by UDP keeps the address it is bound to; see [`RelayServer::moved`].
    ///
    /// # Errors
    /// [`RelayFull`].
    pub fn register(
        &mut self,
        node: NodeId,
        way: Way,
        fresh: Token,
        now: Instant,
    ) -> Result<Token, RelayFull> {
        self.expire(now);
        let ends = now.after(Duration::from_secs(LIFETIME_S.into()));
        self.ends_first = self.ends_first.min(ends);
        if let Some(place) = self.nodes.get(&node).copied()
            && let Some(client) = client_mut(&mut self.clients, place)
        {
            client.ends = client.ends.max(ends);
            let token = client.token;
            if !matches!((client.way, way), (Way::Udp(_), Way::Udp(_))) {
                self.take_way(place, way);
            }
            return Ok(token);
        }
        if self.nodes.len() >= self.limit || self.tokens.contains_key(&fresh) {
            return Err(RelayFull);
        }
        let bytes = self.spent.remove(&node).unwrap_or_default();
        let place = self.seat(Client {
            node,
            token: fresh,
            way,
            left: None,
            ends,
            answer: None,
            meter: Meter::of(bytes),
            warned: Instant::ZERO,
        })?;
        self.changes = self.changes.wrapping_add(1);
        self.nodes.insert(node, place);
        self.tokens.insert(fresh, place);
        self.take_way(place, way);
        Ok(fresh)
    }

    /// Puts a client into a free place.
    fn seat(&mut self, client: Client) -> Result<Place, RelayFull> {
        if let Some(place) = self.free.pop() {
            if let Some(seat) = self.clients.get_mut(usize::from(place)) {
                *seat = Some(client);
            }
            return Ok(place);
        }
        let place = Place::try_from(self.clients.len()).map_err(|_| RelayFull)?;
        self.clients.push(Some(client));
        Ok(place)
    }

    fn take_way(&mut self, place: Place, way: Way) {
        let Some(client) = client_mut(&mut self.clients, place) else {
            return;
        };
        let had = match client.way {
            Way::Stream(stream) => Some(stream),
            Way::Udp(_) => client.left,
        };
        client.way = way;
        if let Way::Stream(stream) = way {
            client.left = None;
            self.forget_stream(had, place);
            self.streams.insert(stream, place);
        } else {
            // What it has sent over it already is on its way still.
            client.left = had;
        }
    }

    /// Forgets a stream, if it is still that of the client in this place.
    fn forget_stream(&mut self, stream: Option<StreamId>, place: Place) {
        if let Some(stream) = stream
            && self.streams.get(&stream) == Some(&place)
        {
            self.streams.remove(&stream);
        }
    }

    fn client(&self, place: Option<&Place>) -> Option<&Client> {
        self.clients.get(usize::from(*place?))?.as_ref()
    }

    fn named(&self, node: NodeId) -> Option<&Client> {
        self.client(self.nodes.get(&node))
    }

    /// Binds a client to another address, which it has just proven to hold.
    pub fn moved(&mut self, node: NodeId, address: SocketAddr) {
        if let Some(place) = self.nodes.get(&node).copied() {
            self.take_way(place, Way::Udp(address));
        }
    }

    /// Binds a client, if it is one, to a stream over which it has just said who it is: where it was
    /// it may not be heard any more.
    pub fn came_over(&mut self, node: NodeId, stream: StreamId) {
        if let Some(place) = self.nodes.get(&node).copied() {
            self.take_way(place, Way::Stream(stream));
        }
    }

    /// The member that is registered over a stream.
    pub fn streamer(&self, stream: StreamId, now: Instant) -> Option<NodeId> {
        let client = self.client(self.streams.get(&stream))?;
        (client.way == Way::Stream(stream) && client.ends > now).then_some(client.node)
    }

    /// The member that may send over a stream: one that is registered over it, or was until UDP carried again.
    pub fn sends_over(&self, stream: StreamId, now: Instant) -> Option<NodeId> {
        let client = self.client(self.streams.get(&stream))?;
        let is_its = client.way == Way::Stream(stream) || client.left == Some(stream);
        (is_its && client.ends > now).then_some(client.node)
    }

    /// A client's stream has ended, and with it what was registered over it.
    pub fn stream_closed(&mut self, stream: StreamId) {
        let Some(place) = self.streams.get(&stream).copied() else {
            return;
        };
        match client_mut(&mut self.clients, place) {
            Some(client) if client.way == Way::Stream(stream) => {
                let node = client.node;
                self.remove(node);
            }
            Some(client) => {
                client.left = None;
                self.streams.remove(&stream);
            }
            None => {}
        }
    }

    /// Ends a client's registration: it was revoked, or left.
    pub fn remove(&mut self, node: NodeId) {
        let Some(place) = self.nodes.remove(&node) else {
            return;
        };
        self.changes = self.changes.wrapping_add(1);
        let seat = self.clients.get_mut(usize::from(place));
        if let Some(client) = seat.and_then(Option::take) {
            self.free.push(place);
            self.tokens.remove(&client.token);
            if self.line.quotas.month_bytes > 0 && self.spent.len() < self.limit {
                self.spent.insert(node, client.meter.bytes);
            }
            self.forget_stream(client.left, place);
            if let Way::Stream(stream) = client.way {
                self.forget_stream(Some(stream), place);
            }
        }
    }

    /// How a client is reached, if it is registered.
    pub fn way(&self, node: NodeId) -> Option<Way> {
        self.named(node).map(|client| client.way)
    }

    /// How a client is reached, and its token.
    pub fn held(&self, node: NodeId) -> Option<(Way, Token)> {
        self.named(node).map(|client| (client.way, client.token))
    }

    /// How often a client came or went so far.
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    /// Whether a node is registered.
    pub fn serves(&self, node: NodeId) -> bool {
        self.nodes.contains_key(&node)
    }

    /// Where a client is, if it is registered by UDP.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        match self.named(node)?.way {
            Way::Udp(address) => Some(address),
            Way::Stream(_) => None,
        }
    }

    /// Who holds `token`, wherever it comes from.
    pub fn holder(&self, token: Token) -> Option<NodeId> {
        let client = self.client(self.tokens.get(&token))?;
        Some(client.node)
    }

    /// Checks that `token` may send from `from`, and names its holder.
    ///
    /// # Errors
    /// [`RelayDrop::BadToken`].
    pub fn sender(
        &mut self,
        from: SocketAddr,
        token: Token,
        now: Instant,
    ) -> Result<NodeId, RelayDrop> {
        let place = self.tokens.get(&token).copied();
        let holder = self.client(place.as_ref());
        let sender = holder.filter(|c| c.way == Way::Udp(from) && c.ends > now);
        let sender = sender.map(|client| client.node);
        self.last = place.unwrap_or(self.last);
        if sender.is_none() {
            self.counters.refused += 1;
        }
        sender.ok_or(RelayDrop::BadToken)
    }

    /// Checks that another relay, which is a client too, may send from `from` with a token that begins so, and
    /// names it.
    ///
    /// # Errors
    /// [`RelayDrop::BadToken`].
    pub fn sending_relay(
        &mut self,
        from: SocketAddr,
        token: ShortToken,
        now: Instant,
    ) -> Result<NodeId, RelayDrop> {
        let mut like = self.tokens.range(token.tokens());
        let is_from = |place| {
            self.client(Some(place))
                .is_some_and(|c| c.way == Way::Udp(from))
        };
        let token = like
            .find(|(_, place)| is_from(place))
            .map(|(token, _)| *token);
        self.sender(from, token.ok_or(RelayDrop::BadToken)?, now)
    }

    /// A token that begins so, wherever it comes from.
    pub fn token_like(&self, token: ShortToken) -> Option<Token> {
        let mut like = self.tokens.range(token.tokens());
        like.next().map(|(token, _)| *token)
    }

    /// A client is still where it was, and wants to be answered after `after_s` of silence; what it
    /// asked for before is off. Lengthens its registration beyond any such silence, and names it.
    ///
    /// # Errors
    /// [`RelayDrop::BadToken`].
    pub fn keep(
        &mut self,
        from: SocketAddr,
        token: Token,
        after_s: u16,
        now: Instant,
    ) -> Result<NodeId, RelayDrop> {
        let node = self.sender(from, token, now)?;
        let place = self.nodes.get(&node).copied();
        if let Some(client) = place.and_then(|place| client_mut(&mut self.clients, place)) {
            let at = now.after(Duration::from_secs(after_s.min(MOST_SILENCE_S).into()));
            client.answer = Some((at, after_s));
            let silence = Duration::from_secs(MOST_SILENCE_S.into());
            let ends = now.after(silence + Duration::from_secs(LIFETIME_S.into()));
            client.ends = client.ends.max(ends);
            self.answers = self.answers.min(at);
        }
        Ok(node)
    }

    /// The next answer that is due, until there is none.
    pub fn poll_kept(&mut self, now: Instant) -> Option<Kept> {
        if self.answers > now {
            return None;
        }
        self.answers = Instant::NEVER;
        for client in self.clients.iter_mut().flatten() {
            match (client.answer, client.way) {
                (Some((at, after_s)), Way::Udp(to)) if at <= now => {
                    client.answer = None;
                    // There may be more that are due.
                    self.answers = now;
                    let token = client.token;
                    return Some(Kept { to, token, after_s });
                }
                (Some((at, _)), Way::Udp(_)) => self.answers = self.answers.min(at),
                _ => {}
            }
        }
        None
    }

    /// When [`RelayServer::poll_kept`] next has something to say.
    pub const fn answers_at(&self) -> Instant {
        self.answers
    }

    /// Where a datagram of `bytes` for `to` goes.
    ///
    /// # Errors
    /// [`RelayDrop::NoSuchNode`].
    pub fn forward(&mut self, to: NodeId, bytes: usize, now: Instant) -> Result<Way, RelayDrop> {
        match self.named(to).filter(|c| c.ends > now).map(|c| c.way) {
            Some(way) => {
                self.counters.forwarded += 1;
                self.counters.forwarded_bytes += bytes as u64;
                Ok(way)
            }
            None => Err(RelayDrop::NoSuchNode),
        }
    }

    /// Counts `bytes` that `node` wants forwarded, a member or another relay of the mesh (`is_relay`).
    ///
    /// # Errors
    /// [`Over`]; they are not to be forwarded. Also whether the member is to be told: at
    /// [`Over::Quota`], once in a while.
    pub fn spend(
        &mut self,
        node: NodeId,
        parcel: Parcel,
        is_relay: &dyn Fn(NodeId) -> bool,
        now: Instant,
    ) -> Result<(), (Over, bool)> {
        if now.saturating_since(self.month) >= MONTH {
            self.begin_month(now);
        }
        let is_last = self.client(Some(&self.last));
        let place = match is_last.is_some_and(|client| client.node == node) {
            true => Some(self.last),
            false => self.nodes.get(&node).copied(),
        };
        let Some(client) = place.and_then(|place| client_mut(&mut self.clients, place)) else {
            return Ok(());
        };
        // Members alone are bounded each by itself.
        let is_relay = self.line.bounds_members() && is_relay(node);
        let passed = self.line.pass(&mut client.meter, parcel, is_relay, now);
        passed.map_err(|over| {
            self.counters.over += 1;
            let is_due =
                client.warned == Instant::ZERO || now.saturating_since(client.warned) >= WARN_AGAIN;
            let warns = over == Over::Quota && is_due;
            if warns {
                client.warned = now.max(Instant::from_micros(1));
            }
            (over, warns)
        })
    }

    fn begin_month(&mut self, now: Instant) {
        self.month = now;
        self.spent.clear();
        for client in self.clients.iter_mut().flatten() {
            client.meter.bytes = 0;
        }
    }

    /// For how long a member that has sent as much as it may has nothing forwarded.
    pub fn month_left(&self, now: Instant) -> Duration {
        MONTH.saturating_sub(now.saturating_since(self.month))
    }

    /// How busy this relay is, 0 to 100: how full its line, or how many clients it has of those that it may have.
    pub fn load(&self, now: Instant) -> u8 {
        let clients = (self.len() * 100).checked_div(self.limit).unwrap_or(100);
        // One without room for more is no reason for those that it has to leave.
        let clients = u8::try_from(clients.min(CROWDED)).unwrap_or_default();
        clients.max(self.line.load(now))
    }

    /// What each client had forwarded.
    pub fn uses(&self) -> impl Iterator<Item = Use> {
        self.clients.iter().flatten().map(|client| Use {
            node: client.node,
            way: client.way,
            bytes: client.meter.bytes,
            over: client.meter.over,
        })
    }

    /// Counts a datagram for a node that no relay has.
    pub const fn has_no_such_node(&mut self) {
        self.counters.no_such_node += 1;
    }

    /// Drops the registrations that have ended. Quick when none has: it is done at every registration,
    /// and ten thousand clients make hundreds a second.
    pub fn expire(&mut self, now: Instant) {
        if now < self.ends_first {
            return;
        }
        self.ends_first = Instant::NEVER;
        for at in 0..self.clients.len() {
            match self.clients.get(at).copied().flatten() {
                Some(client) if client.ends <= now => self.remove(client.node),
                Some(client) => self.ends_first = self.ends_first.min(client.ends),
                None => {}
            }
        }
    }

    /// The nodes that are registered.
    pub fn clients(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.keys().copied()
    }

    /// How many clients are registered.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// What was forwarded and refused so far.
    pub const fn counters(&self) -> &RelayCounters {
        &self.counters
    }
}

fn client_mut(clients: &mut [Option<Client>], place: Place) -> Option<&mut Client> {
    clients.get_mut(usize::from(place))?.as_mut()
}

#[cfg(test)]
mod tests;
