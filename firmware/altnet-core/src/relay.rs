//! Forwarding for members, by destination id, without understanding what is forwarded.
//!
//! In: registrations of members whose control session vouches for them, datagrams with a
//! relay header. Out: where a datagram goes. A token is good from one address and port
//! alone; a client whose address changed is moved only after it answered a challenge sent
//! there through its control session. A forwarded packet costs two look-ups and no
//! allocation; nothing is ever queued.
//!
//! Deliberately absent: who may register (the caller asks the registry), what a stream is made of,
//! other relays.

use alloc::collections::BTreeMap;
use core::net::SocketAddr;

use altnet_wire::id::NodeId;
use altnet_wire::relay::Token;
use altnet_wire::time::{Duration, Instant};

/// How long a registration lasts that isn't renewed, in seconds.
pub const LIFETIME_S: u32 = 90;

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
}

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
    token: Token,
    way: Way,
    ends: Instant,
}

/// A relay's clients.
#[derive(Debug)]
pub struct RelayServer {
    clients: BTreeMap<NodeId, Client>,
    tokens: BTreeMap<Token, NodeId>,
    streams: BTreeMap<StreamId, NodeId>,
    limit: usize,
    counters: RelayCounters,
}

impl RelayServer {
    /// A relay for at most `limit` clients.
    pub const fn new(limit: usize) -> Self {
        Self {
            clients: BTreeMap::new(),
            tokens: BTreeMap::new(),
            streams: BTreeMap::new(),
            limit,
            counters: RelayCounters {
                forwarded: 0,
                forwarded_bytes: 0,
                refused: 0,
                no_such_node: 0,
            },
        }
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
        if let Some(client) = self.clients.get_mut(&node) {
            client.ends = ends;
            let token = client.token;
            if !matches!((client.way, way), (Way::Udp(_), Way::Udp(_))) {
                self.take_way(node, way);
            }
            return Ok(token);
        }
        if self.clients.len() >= self.limit || self.tokens.contains_key(&fresh) {
            return Err(RelayFull);
        }
        self.tokens.insert(fresh, node);
        let client = Client {
            token: fresh,
            way,
            ends,
        };
        self.clients.insert(node, client);
        self.take_way(node, way);
        Ok(fresh)
    }

    fn take_way(&mut self, node: NodeId, way: Way) {
        self.streams.retain(|_, holder| *holder != node);
        if let Way::Stream(stream) = way {
            self.streams.insert(stream, node);
        }
        if let Some(client) = self.clients.get_mut(&node) {
            client.way = way;
        }
    }

    /// Binds a client to another address, which it has just proven to hold.
    pub fn moved(&mut self, node: NodeId, address: SocketAddr) {
        if self.clients.contains_key(&node) {
            self.take_way(node, Way::Udp(address));
        }
    }

    /// The member that is registered over a stream.
    pub fn streamer(&self, stream: StreamId, now: Instant) -> Option<NodeId> {
        let node = *self.streams.get(&stream)?;
        let client = self.clients.get(&node)?;
        (client.ends > now).then_some(node)
    }

    /// A client's stream has ended, and with it what was registered over it.
    pub fn stream_closed(&mut self, stream: StreamId) {
        if let Some(node) = self.streams.remove(&stream) {
            self.remove(node);
        }
    }

    /// Ends a client's registration: it was revoked, or left.
    pub fn remove(&mut self, node: NodeId) {
        if let Some(client) = self.clients.remove(&node) {
            self.tokens.remove(&client.token);
            self.streams.retain(|_, holder| *holder != node);
        }
    }

    /// How a client is reached, if it is registered.
    pub fn way(&self, node: NodeId) -> Option<Way> {
        self.clients.get(&node).map(|client| client.way)
    }

    /// Whether a node is registered.
    pub fn serves(&self, node: NodeId) -> bool {
        self.clients.contains_key(&node)
    }

    /// Where a client is, if it is registered by UDP.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        match self.clients.get(&node)?.way {
            Way::Udp(address) => Some(address),
            Way::Stream(_) => None,
        }
    }

    /// Who holds `token`, wherever it comes from.
    pub fn holder(&self, token: Token) -> Option<NodeId> {
        self.tokens.get(&token).copied()
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
        let holder = self.tokens.get(&token).copied();
        let sender = holder.filter(|node| {
            self.clients
                .get(node)
                .is_some_and(|c| c.way == Way::Udp(from) && c.ends > now)
        });
        if sender.is_none() {
            self.counters.refused += 1;
        }
        sender.ok_or(RelayDrop::BadToken)
    }

    /// Where a datagram of `bytes` for `to` goes.
    ///
    /// # Errors
    /// [`RelayDrop::NoSuchNode`].
    pub fn forward(&mut self, to: NodeId, bytes: usize, now: Instant) -> Result<Way, RelayDrop> {
        match self.clients.get(&to).filter(|c| c.ends > now) {
            Some(client) => {
                self.counters.forwarded += 1;
                self.counters.forwarded_bytes += bytes as u64;
                Ok(client.way)
            }
            None => {
                self.counters.no_such_node += 1;
                Err(RelayDrop::NoSuchNode)
            }
        }
    }

    /// Drops the registrations that have ended.
    pub fn expire(&mut self, now: Instant) {
        self.clients.retain(|_, client| client.ends > now);
        let clients = &self.clients;
        self.tokens.retain(|_, node| clients.contains_key(node));
        self.streams.retain(|_, node| clients.contains_key(node));
    }

    /// The nodes that are registered.
    pub fn clients(&self) -> impl Iterator<Item = NodeId> {
        self.clients.keys().copied()
    }

    /// How many clients are registered.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// What was forwarded and refused so far.
    pub const fn counters(&self) -> &RelayCounters {
        &self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 16]);
    const B: NodeId = NodeId([2; 16]);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn relay() -> RelayServer {
        let mut relay = RelayServer::new(2);
        relay
            .register(A, Way::Udp(address(1)), Token(11), at(0))
            .unwrap();
        relay
            .register(B, Way::Udp(address(2)), Token(22), at(0))
            .unwrap();
        relay
    }

    #[test]
    fn a_datagram_goes_to_where_its_destination_registered() {
        let mut relay = relay();
        assert_eq!(relay.sender(address(1), Token(11), at(1)), Ok(A));
        assert_eq!(relay.forward(B, 100, at(1)), Ok(Way::Udp(address(2))));
        assert_eq!(
            relay.forward(NodeId([3; 16]), 1, at(1)),
            Err(RelayDrop::NoSuchNode)
        );
        assert_eq!(relay.counters().forwarded_bytes, 100);
    }

    #[test]
    fn a_token_is_good_from_its_own_address_alone() {
        let mut relay = relay();
        assert_eq!(
            relay.sender(address(9), Token(11), at(1)),
            Err(RelayDrop::BadToken)
        );
        assert_eq!(
            relay.sender(address(1), Token(12), at(1)),
            Err(RelayDrop::BadToken)
        );
        // Registering again from elsewhere doesn't move it; proving the address does.
        assert_eq!(
            relay.register(A, Way::Udp(address(9)), Token(99), at(1)),
            Ok(Token(11))
        );
        assert_eq!(
            relay.sender(address(9), Token(11), at(1)),
            Err(RelayDrop::BadToken)
        );
        relay.moved(A, address(9));
        assert_eq!(relay.sender(address(9), Token(11), at(1)), Ok(A));
        assert_eq!(
            relay.sender(address(1), Token(11), at(1)),
            Err(RelayDrop::BadToken)
        );
    }

    #[test]
    fn a_registration_ends_by_time_and_by_revocation() {
        let mut relay = relay();
        relay.remove(A);
        assert_eq!(
            relay.sender(address(1), Token(11), at(1)),
            Err(RelayDrop::BadToken)
        );
        assert_eq!(relay.forward(A, 1, at(1)), Err(RelayDrop::NoSuchNode));
        let later = at(u64::from(LIFETIME_S));
        assert_eq!(
            relay.sender(address(2), Token(22), later),
            Err(RelayDrop::BadToken)
        );
    }

    #[test]
    fn a_client_of_a_stream_is_reached_there_until_it_ends_or_udp_carries_again() {
        let mut relay = relay();
        let stream = Way::Stream(StreamId(7));
        assert_eq!(relay.register(A, stream, Token(99), at(1)), Ok(Token(11)));
        assert_eq!(relay.forward(A, 1, at(1)), Ok(stream));
        assert_eq!(relay.streamer(StreamId(7), at(1)), Some(A));
        assert_eq!(relay.address(A), None);
        // Nobody sends by UDP with the token of one who isn't there.
        assert_eq!(
            relay.sender(address(1), Token(11), at(1)),
            Err(RelayDrop::BadToken)
        );
        let udp = Way::Udp(address(5));
        assert_eq!(relay.register(A, udp, Token(99), at(2)), Ok(Token(11)));
        assert_eq!(relay.forward(A, 1, at(2)), Ok(udp));
        assert_eq!(relay.streamer(StreamId(7), at(2)), None);
        relay.stream_closed(StreamId(7));
        assert!(relay.serves(A));
        relay.register(B, stream, Token(99), at(2)).unwrap();
        relay.stream_closed(StreamId(7));
        assert!(!relay.serves(B));
    }

    #[test]
    fn a_full_relay_says_so_until_somebody_leaves() {
        let mut relay = relay();
        let third = NodeId([3; 16]);
        assert_eq!(
            relay.register(third, Way::Udp(address(3)), Token(33), at(1)),
            Err(RelayFull)
        );
        assert_eq!(
            relay.register(
                third,
                Way::Udp(address(3)),
                Token(33),
                at(LIFETIME_S.into())
            ),
            Ok(Token(33))
        );
    }
}
