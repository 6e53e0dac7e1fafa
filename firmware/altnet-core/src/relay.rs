//! Forwarding for members, by destination id, without understanding what is forwarded.
//!
//! In: registrations of members whose control session vouches for them, datagrams with a
//! relay header. Out: where a datagram goes. A token is good from one address and port
//! alone; a client whose address changed is moved only after it answered a challenge sent
//! there through its control session. A forwarded packet costs two look-ups and no
//! allocation; nothing is ever queued.
//!
//! Deliberately absent: who may register (the caller asks the registry), carriers other
//! than UDP, other relays.

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

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The client that sent it.
    pub from: NodeId,
    /// The destination's address.
    pub to: SocketAddr,
}

/// No room for another client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay serves as many clients as it may")]
pub struct RelayFull;

#[derive(Clone, Copy, Debug)]
struct Client {
    token: Token,
    address: SocketAddr,
    ends: Instant,
}

/// A relay's clients.
#[derive(Debug)]
pub struct RelayServer {
    clients: BTreeMap<NodeId, Client>,
    tokens: BTreeMap<Token, NodeId>,
    limit: usize,
    counters: RelayCounters,
}

impl RelayServer {
    /// A relay for at most `limit` clients.
    pub const fn new(limit: usize) -> Self {
        Self {
            clients: BTreeMap::new(),
            tokens: BTreeMap::new(),
            limit,
            counters: RelayCounters {
                forwarded: 0,
                forwarded_bytes: 0,
                refused: 0,
                no_such_node: 0,
            },
        }
    }

    /// Registers `node` at `address` or lengthens its registration, and returns its token:
    /// the one it has, or `fresh` (from the caller's generator) if it has none.
    ///
    /// A known client keeps the address it is bound to; see [`RelayServer::moved`].
    ///
    /// # Errors
    /// [`RelayFull`].
    pub fn register(
        &mut self,
        node: NodeId,
        address: SocketAddr,
        fresh: Token,
        now: Instant,
    ) -> Result<Token, RelayFull> {
        self.expire(now);
        let ends = now.after(Duration::from_secs(LIFETIME_S.into()));
        if let Some(client) = self.clients.get_mut(&node) {
            client.ends = ends;
            return Ok(client.token);
        }
        if self.clients.len() >= self.limit || self.tokens.contains_key(&fresh) {
            return Err(RelayFull);
        }
        self.tokens.insert(fresh, node);
        let client = Client {
            token: fresh,
            address,
            ends,
        };
        self.clients.insert(node, client);
        Ok(fresh)
    }

    /// Binds a client to another address, which it has just proven to hold.
    pub fn moved(&mut self, node: NodeId, address: SocketAddr) {
        if let Some(client) = self.clients.get_mut(&node) {
            client.address = address;
        }
    }

    /// Ends a client's registration: it was revoked, or left.
    pub fn remove(&mut self, node: NodeId) {
        if let Some(client) = self.clients.remove(&node) {
            self.tokens.remove(&client.token);
        }
    }

    /// Where a client is, if it is registered.
    pub fn address(&self, node: NodeId) -> Option<SocketAddr> {
        self.clients.get(&node).map(|client| client.address)
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
                .is_some_and(|c| c.address == from && c.ends > now)
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
    pub fn forward(
        &mut self,
        to: NodeId,
        bytes: usize,
        now: Instant,
    ) -> Result<SocketAddr, RelayDrop> {
        match self.clients.get(&to).filter(|c| c.ends > now) {
            Some(client) => {
                self.counters.forwarded += 1;
                self.counters.forwarded_bytes += bytes as u64;
                Ok(client.address)
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
        relay.register(A, address(1), Token(11), at(0)).unwrap();
        relay.register(B, address(2), Token(22), at(0)).unwrap();
        relay
    }

    #[test]
    fn a_datagram_goes_to_where_its_destination_registered() {
        let mut relay = relay();
        assert_eq!(relay.sender(address(1), Token(11), at(1)), Ok(A));
        assert_eq!(relay.forward(B, 100, at(1)), Ok(address(2)));
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
            relay.register(A, address(9), Token(99), at(1)),
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
    fn a_full_relay_says_so_until_somebody_leaves() {
        let mut relay = relay();
        let third = NodeId([3; 16]);
        assert_eq!(
            relay.register(third, address(3), Token(33), at(1)),
            Err(RelayFull)
        );
        assert_eq!(
            relay.register(third, address(3), Token(33), at(LIFETIME_S.into())),
            Ok(Token(33))
        );
    }
}
