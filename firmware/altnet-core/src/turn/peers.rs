//! Whom an allocation exchanges datagrams with: permissions and channels (RFC 8656 sections 9
//! and 12).
//!
//! A peer is let in by a permission first, which is one request for however little is sent, and
//! bound to a channel next, so that a datagram costs four bytes. Binding renews the permission.
//!
//! A channel's number is its peer's place in the table, and how often that place had another
//! tenant: a server doesn't let a number stand for somebody else for a while.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use altnet_wire::stun::TransactionId;
use altnet_wire::stun::channel::{CHANNELS, Channel};
use altnet_wire::time::{Duration, Instant};

use super::exchange::Exchange;

/// How long a permission lasts (section 3.2, "Permission Lifetime").
const PERMISSION: Duration = Duration::from_secs(300);
/// How long a channel lasts (section 12).
const CHANNEL: Duration = Duration::from_secs(600);
/// When either is renewed.
const RENEW: Duration = Duration::from_secs(240);
/// A peer about whom the server said nothing is asked for again after this.
const AGAIN: Duration = Duration::from_secs(10);

/// What is asked of the server for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// That what the peer sends comes through.
    Permission,
    /// That a number stands for it.
    Channel,
}

/// How a datagram gets to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Behind four bytes.
    Channel(Channel),
    /// In an indication.
    Indication,
}

/// A peer. Its times are in the past, or [`Instant::ZERO`], where there is nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) channel: Channel,
    is_wanted: bool,
    /// How often the place had another tenant.
    generation: u16,
    /// The server doesn't bind this one.
    is_unbindable: bool,
    permitted_until: Instant,
    bound_until: Instant,
    /// What is asked for next or now.
    pub(super) ask: Ask,
    pub(super) exchange: Option<Exchange>,
    again: Instant,
}

impl Peer {
    fn new(address: SocketAddr, channel: Channel, generation: u16) -> Self {
        Self {
            address,
            channel,
            is_wanted: true,
            generation,
            is_unbindable: false,
            permitted_until: Instant::ZERO,
            bound_until: Instant::ZERO,
            ask: Ask::Permission,
            exchange: None,
            again: Instant::ZERO,
        }
    }

    /// How it is reached now, if it is.
    pub(super) fn way(&self, now: Instant) -> Option<Way> {
        if now < self.bound_until {
            Some(Way::Channel(self.channel))
        } else if now < self.permitted_until {
            Some(Way::Indication)
        } else {
            None
        }
    }

    /// What was asked for is granted.
    pub(super) fn granted(&mut self, now: Instant) {
        self.exchange = None;
        self.permitted_until = now.after(PERMISSION);
        self.again = now.after(RENEW);
        match self.ask {
            Ask::Permission if !self.is_unbindable => {
                self.ask = Ask::Channel;
                self.again = now;
            }
            Ask::Permission => {}
            Ask::Channel => self.bound_until = now.after(CHANNEL),
        }
    }

    /// What was asked for is refused; says whether the peer can't be reached by it.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        self.exchange = None;
        match self.ask {
            Ask::Channel => {
                // It may still be let in.
                self.is_unbindable = true;
                self.bound_until = Instant::ZERO;
                self.ask = Ask::Permission;
                self.again = now;
                false
            }
            Ask::Permission => {
                self.permitted_until = Instant::ZERO;
                self.again = now.after(RENEW);
                true
            }
        }
    }

    /// Nobody answered.
    pub(super) fn unanswered(&mut self, now: Instant) {
        self.exchange = None;
        self.again = now.after(AGAIN);
    }

    /// Whether something is to be asked for now that isn't yet.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.is_wanted && self.exchange.is_none() && self.again <= now
    }

    fn next(&self) -> Instant {
        match &self.exchange {
            Some(exchange) => exchange.next(),
            None if self.is_wanted => self.again,
            None => Instant::NEVER,
        }
    }

    /// The allocation is gone, and all that was granted with it.
    fn forget_grants(&mut self) {
        *self = Self {
            is_wanted: self.is_wanted,
            ..Self::new(self.address, self.channel, self.generation)
        };
    }
}

/// As many peers are wanted as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a TURN allocation serves as many peers as it may")]
pub struct PeersFull;

/// All of them.
#[derive(Debug)]
pub(super) struct Peers {
    slots: Vec<Peer>,
    by_address: BTreeMap<SocketAddr, usize>,
    limit: usize,
}

impl Peers {
    /// Room for `limit` peers: at least one, at most as many as there are channels.
    pub(super) fn new(limit: u16) -> Self {
        let limit = usize::from(limit).clamp(1, CHANNELS.len());
        Self {
            slots: Vec::with_capacity(limit),
            by_address: BTreeMap::new(),
            limit,
        }
    }

    /// Wants a peer. The place of one that isn't wanted any more is given to it if there is no
    /// other.
    pub(super) fn want(&mut self, address: SocketAddr) -> Result<(), PeersFull> {
        if let Some(peer) = self.find_mut(address) {
            peer.is_wanted = true;
            return Ok(());
        }
        if self.slots.len() < self.limit {
            let at = self.slots.len();
            let channel = self.channel(at, 0).ok_or(PeersFull)?;
            self.slots.push(Peer::new(address, channel, 0));
            self.by_address.insert(address, at);
            return Ok(());
        }
        let is_free = |peer: &Peer| !peer.is_wanted;
        // Whose grants have been over for longest.
        let free = self.slots.iter().enumerate().filter(|(_, p)| is_free(p));
        let oldest = free.min_by_key(|(_, p)| p.bound_until.max(p.permitted_until));
        let (at, peer) = oldest.ok_or(PeersFull)?;
        let (former, generation) = (peer.address, peer.generation.wrapping_add(1));
        let channel = self.channel(at, generation).ok_or(PeersFull)?;
        self.by_address.remove(&former);
        self.by_address.insert(address, at);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Peer::new(address, channel, generation);
        }
        Ok(())
    }

    /// Doesn't want a peer any more. What was granted ends by itself.
    pub(super) fn unwant(&mut self, address: SocketAddr) {
        if let Some(peer) = self.find_mut(address) {
            peer.is_wanted = false;
            peer.exchange = None;
        }
    }

    fn channel(&self, at: usize, generation: u16) -> Option<Channel> {
        let rounds = (CHANNELS.len() / self.limit).max(1);
        let place = usize::from(generation) % rounds * self.limit + at;
        Channel::new(CHANNELS.start() + u16::try_from(place).ok()?)
    }

    /// A wanted peer by its address.
    pub(super) fn wanted(&self, address: SocketAddr) -> Option<&Peer> {
        let peer = self.slots.get(*self.by_address.get(&address)?)?;
        peer.is_wanted.then_some(peer)
    }

    /// A wanted peer by its channel.
    pub(super) fn by_channel(&self, channel: Channel) -> Option<SocketAddr> {
        let at = usize::from(channel.number() - CHANNELS.start()) % self.limit;
        let peer = self.slots.get(at)?;
        (peer.channel == channel && peer.is_wanted).then_some(peer.address)
    }

    /// Whether somebody at this address is wanted: a permission is for all its ports.
    pub(super) fn is_wanted_at(&self, ip: IpAddr) -> bool {
        let mut wanted = self.slots.iter().filter(|peer| peer.is_wanted);
        wanted.any(|peer| peer.address.ip() == ip)
    }

    /// The peer whose request has this transaction.
    pub(super) fn asked(&mut self, transaction: TransactionId) -> Option<&mut Peer> {
        self.iter_mut().find(|peer| {
            let exchange = peer.exchange.as_ref();
            exchange.is_some_and(|exchange| exchange.transaction == transaction)
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Peer> {
        self.slots.iter_mut()
    }

    /// Begins from the beginning with all of them.
    pub(super) fn forget_grants(&mut self) {
        self.iter_mut().for_each(Peer::forget_grants);
    }

    /// Renews what is granted now rather than when it is due.
    pub(super) fn refresh(&mut self, now: Instant) {
        for peer in self.iter_mut() {
            peer.again = peer.again.min(now);
        }
    }

    pub(super) fn next(&self) -> Instant {
        let next = self.slots.iter().map(Peer::next).min();
        next.unwrap_or(Instant::NEVER)
    }

    fn find_mut(&mut self, address: SocketAddr) -> Option<&mut Peer> {
        self.slots.get_mut(*self.by_address.get(&address)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::new([192, 0, 2, n].into(), 7)
    }

    #[test]
    fn a_full_table_has_room_again_once_somebody_is_not_wanted() {
        let mut peers = Peers::new(2);
        assert_eq!(peers.want(address(1)), Ok(()));
        assert_eq!(peers.want(address(2)), Ok(()));
        assert_eq!(peers.want(address(1)), Ok(()));
        assert_eq!(peers.want(address(3)), Err(PeersFull));
        let former = peers.wanted(address(1)).unwrap().channel;
        peers.unwant(address(1));
        assert_eq!(peers.by_channel(former), None);
        assert_eq!(peers.want(address(3)), Ok(()));
        let channel = peers.wanted(address(3)).unwrap().channel;
        assert_ne!(channel, former);
        assert_eq!(peers.by_channel(channel), Some(address(3)));
        assert_eq!(peers.by_channel(former), None);
    }

    proptest! {
        #[test]
        fn every_wanted_peer_has_a_channel_of_its_own(
            limit in 1u16..6,
            steps in proptest::collection::vec((any::<bool>(), 0u8..12), 0..200),
        ) {
            let mut peers = Peers::new(limit);
            for (wants, n) in steps {
                if wants {
                    let _ = peers.want(address(n));
                } else {
                    peers.unwant(address(n));
                }
                let wanted: alloc::vec::Vec<_> =
                    (0..12).filter_map(|n| peers.wanted(address(n)).copied()).collect();
                prop_assert!(wanted.len() <= usize::from(limit));
                prop_assert_eq!(peers.by_address.len(), peers.slots.len());
                for peer in wanted {
                    prop_assert_eq!(peers.by_channel(peer.channel), Some(peer.address));
                }
            }
        }
    }
}
