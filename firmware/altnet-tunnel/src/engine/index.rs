//! Which peer a receiver index belongs to.

use alloc::vec::Vec;

use super::api::PeerIndex;
use super::peer::SESSIONS;
use crate::random::Random;

/// A handshake and the sessions.
const INDICES_PER_PEER: usize = 1 + SESSIONS;

/// Random indices, sorted, so that looking one up takes a dozen steps and no allocation.
pub(super) struct IndexTable {
    entries: Vec<(u32, PeerIndex)>,
    limit: usize,
}

impl IndexTable {
    pub(super) fn new(peers: u16) -> Self {
        let limit = usize::from(peers) * INDICES_PER_PEER;
        Self {
            entries: Vec::with_capacity(limit),
            limit,
        }
    }

    /// Draws an index that nobody has (whitepaper section 5.4.2: random, so that it tells
    /// nothing about the peer).
    pub(super) fn draw(&mut self, peer: PeerIndex, random: &mut Random) -> Option<u32> {
        if self.entries.len() >= self.limit {
            return None;
        }
        loop {
            let index = random.number();
            if let Err(at) = self.find(index) {
                self.entries.insert(at, (index, peer));
                return Some(index);
            }
        }
    }

    pub(super) fn peer(&self, index: u32) -> Option<PeerIndex> {
        let at = self.find(index).ok()?;
        self.entries.get(at).map(|(_, peer)| *peer)
    }

    pub(super) fn remove(&mut self, index: u32) {
        if let Ok(at) = self.find(index) {
            self.entries.remove(at);
        }
    }

    pub(super) fn remove_peer(&mut self, peer: PeerIndex) {
        self.entries.retain(|(_, owner)| *owner != peer);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn find(&self, index: u32) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&index, |(key, _)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_leads_to_its_peer_until_it_is_removed() {
        let mut table = IndexTable::new(2);
        let mut random = Random::new([0; 32]);
        let (a, b) = (PeerIndex(0), PeerIndex(1));
        let drawn: Vec<u32> = (0..2 * INDICES_PER_PEER)
            .map(|i| [a, b][i / INDICES_PER_PEER])
            .map(|peer| table.draw(peer, &mut random).unwrap())
            .collect();
        assert_eq!(table.draw(a, &mut random), None);
        assert_eq!(table.peer(drawn[0]), Some(a));
        assert_eq!(table.peer(drawn[INDICES_PER_PEER]), Some(b));
        table.remove(drawn[0]);
        assert_eq!(table.peer(drawn[0]), None);
        table.remove_peer(b);
        assert_eq!(table.len(), INDICES_PER_PEER - 1);
    }
}
