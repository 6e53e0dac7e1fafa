//! The flows that were admitted: a bounded hash table, its entries also in one list per
//! kind of flow, ordered by last use to the second.
//!
//! All flows of a list expire after the same silence, so what expires first is at a list's
//! end, and making room takes a few steps whatever the size. Room is made in the order of
//! the lists: what is expired, then what nobody answered, and established TCP connections last.

use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use altnet_wire::time::Instant;

use super::{Direction, FlowInfo, RuleId};
use crate::ip::Protocol;

/// Silence after which a flow ends that nobody has answered. At least 2 minutes
/// (RFC 4787 section 4.3, REQ-5).
pub const UNANSWERED_TIMEOUT: Duration = Duration::from_secs(120);
/// Silence after which an ICMPv6 echo flow ends (RFC 6146 section 4, ICMP_DEFAULT).
pub const ECHO_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence after which a TCP connection that is closing ends (RFC 6146 section 4, TCP_TRANS).
pub const TCP_TRANSITORY_TIMEOUT: Duration = Duration::from_secs(4 * 60);
/// Silence after which a datagram flow ends (RFC 6146 section 4, UDP_DEFAULT).
pub const DATAGRAM_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Silence after which an established TCP connection ends (RFC 6146 section 4, TCP_EST).
pub const TCP_ESTABLISHED_TIMEOUT: Duration = Duration::from_secs(2 * 3600 + 4 * 60);

/// What tells flows apart, the same for both directions: our end and theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    ours: Ipv6Addr,
    theirs: Ipv6Addr,
    our_port: u16,
    their_port: u16,
    protocol: Protocol,
    /// 0, or for echo who asked: 1 we, 2 they. The same identifier may be used both ways.
    asker: u8,
}

impl Key {
    pub(super) const fn new(
        direction: Direction,
        protocol: Protocol,
        source: (Ipv6Addr, u16),
        destination: (Ipv6Addr, u16),
    ) -> Self {
        let (ours, theirs) = match direction {
            Direction::Outbound => (source, destination),
            Direction::Inbound => (destination, source),
        };
        Self {
            ours: ours.0,
            theirs: theirs.0,
            our_port: ours.1,
            their_port: theirs.1,
            protocol,
            asker: 0,
        }
    }

    pub(super) const fn with_echo(mut self, direction: Direction, request: bool, id: u16) -> Self {
        self.our_port = id;
        self.asker = match (direction, request) {
            (Direction::Outbound, true) | (Direction::Inbound, false) => 1,
            _ => 2,
        };
        self
    }

    fn words(&self) -> [u64; 5] {
        let (ours, theirs) = (u128::from(self.ours), u128::from(self.theirs));
        let rest = u64::from(self.our_port) << 32
            | u64::from(self.their_port) << 16
            | u64::from(self.protocol.0) << 8
            | u64::from(self.asker);
        [
            (ours >> 64) as u64,
            ours as u64,
            (theirs >> 64) as u64,
            theirs as u64,
            rest,
        ]
    }
}

/// A flow that a rule admitted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flow {
    pub(super) key: Key,
    /// Which way its first packet went.
    pub(super) initiator: Direction,
    /// The facts by which it was judged.
    pub(super) generation: u64,
    pub(super) rule: RuleId,
}

impl Flow {
    /// What it was judged by.
    pub(super) const fn info(&self) -> FlowInfo {
        let key = &self.key;
        let (source, destination, port) = match self.initiator {
            Direction::Outbound => (key.ours, key.theirs, key.their_port),
            Direction::Inbound => (key.theirs, key.ours, key.our_port),
        };
        FlowInfo {
            source,
            destination,
            protocol: key.protocol,
            // Where an echo's identifier stands there is no port.
            port: if key.asker == 0 { port } else { 0 },
        }
    }
}

/// What kind of packet was seen of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// UDP, or a protocol without ports.
    Datagram,
    /// An echo request or reply.
    Echo,
    /// A TCP segment.
    Tcp {
        /// With FIN or RST.
        is_closing: bool,
    },
}

/// The lists, in the order in which they give room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    Unanswered,
    Echo,
    TcpTransitory,
    Datagram,
    TcpEstablished,
}

impl List {
    const ALL: [Self; 5] = [
        Self::Unanswered,
        Self::Echo,
        Self::TcpTransitory,
        Self::Datagram,
        Self::TcpEstablished,
    ];

    const fn timeout(self) -> Duration {
        match self {
            Self::Unanswered => UNANSWERED_TIMEOUT,
            Self::Echo => ECHO_TIMEOUT,
            Self::TcpTransitory => TCP_TRANSITORY_TIMEOUT,
            Self::Datagram => DATAGRAM_TIMEOUT,
            Self::TcpEstablished => TCP_ESTABLISHED_TIMEOUT,
        }
    }
}

/// An entry's place in `FlowTable::entries`; `NIL` is none.
type Slot = u32;
const NIL: Slot = u32::MAX;

/// Uses closer to each other than this count as one: a flow's next packet writes nothing.
const GRAIN: Duration = Duration::from_secs(1);

/// A flow in the table, until the table changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    slot: Slot,
    pub(super) generation: u64,
    pub(super) rule: RuleId,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    flow: Flow,
    used: Instant,
    list: List,
    is_answered: bool,
    is_closing: bool,
    newer: Slot,
    older: Slot,
    bucket: u32,
    /// The next in the same bucket, or the next free entry.
    next: Slot,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: Slot,
    oldest: Slot,
}

/// See the module.
#[derive(Debug)]
pub(super) struct FlowTable {
    entries: Vec<Entry>,
    limit: u32,
    free: Slot,
    length: u32,
    buckets: Vec<Slot>,
    lists: [Ends; 5],
    seed: (u64, u64),
    evictions: u64,
}

impl FlowTable {
    pub(super) fn new(limit: u32, seed: [u8; 16]) -> Self {
        let limit = limit.clamp(1, 1 << 24);
        let seed = u128::from_le_bytes(seed);
        Self {
            entries: Vec::with_capacity(limit as usize),
            limit,
            free: NIL,
            length: 0,
            buckets: alloc::vec![NIL; (limit as usize).next_power_of_two()],
            lists: [Ends {
                newest: NIL,
                oldest: NIL,
            }; 5],
            seed: (seed as u64, (seed >> 64) as u64),
            evictions: 0,
        }
    }

    pub(super) const fn len(&self) -> u32 {
        self.length
    }

    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The flow `key`, unless it fell silent for too long.
    pub(super) fn find(&mut self, key: &Key, now: Instant) -> Option<Found> {
        let slot = self.slot(key)?;
        let entry = self.entries.get(slot as usize)?;
        if is_expired(entry, now) {
            self.take_out(slot);
            return None;
        }
        Some(Found {
            slot,
            generation: entry.flow.generation,
            rule: entry.flow.rule,
        })
    }

    /// What a flow was judged by.
    pub(super) fn info(&self, found: Found) -> Option<FlowInfo> {
        self.entries
            .get(found.slot as usize)
            .map(|entry| entry.flow.info())
    }

    /// Adds a flow that isn't in the table.
    pub(super) fn insert(&mut self, flow: Flow, now: Instant) -> Found {
        if self.length >= self.limit {
            self.make_room(now);
        }
        let bucket = self.bucket(&flow.key);
        let entry = Entry {
            flow,
            used: now,
            list: List::Unanswered,
            is_answered: false,
            is_closing: false,
            newer: NIL,
            older: NIL,
            // Fewer than the 2^24 flows that there may be at most.
            bucket: bucket as u32,
            next: self.buckets.get(bucket).copied().unwrap_or(NIL),
        };
        let slot = if self.free == NIL {
            // Within the reserved capacity: there are at most `limit` entries.
            self.entries.push(entry);
            (self.entries.len() - 1) as Slot
        } else {
            let slot = self.free;
            if let Some(place) = self.entries.get_mut(slot as usize) {
                self.free = place.next;
                *place = entry;
            }
            slot
        };
        if let Some(head) = self.buckets.get_mut(bucket) {
            *head = slot;
        }
        self.length += 1;
        self.link(slot);
        Found {
            slot,
            generation: flow.generation,
            rule: flow.rule,
        }
    }

    /// Notes a packet of a flow that went `direction`.
    pub(super) fn note(&mut self, found: Found, direction: Direction, class: Class, now: Instant) {
        let slot = found.slot;
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        entry.is_answered |= direction != entry.flow.initiator;
        entry.is_closing |= class == Class::Tcp { is_closing: true };
        let list = match class {
            _ if !entry.is_answered => List::Unanswered,
            Class::Echo => List::Echo,
            Class::Datagram => List::Datagram,
            Class::Tcp { .. } if entry.is_closing => List::TcpTransitory,
            Class::Tcp { .. } => List::TcpEstablished,
        };
        if entry.list == list && now.saturating_since(entry.used) < GRAIN {
            return;
        }
        self.unlink(slot);
        if let Some(entry) = self.entries.get_mut(slot as usize) {
            entry.used = now;
            entry.list = list;
        }
        self.link(slot);
    }

    /// Notes that a flow was judged again and admitted.
    pub(super) fn confirm(&mut self, found: Found, generation: u64, rule: RuleId) {
        if let Some(entry) = self.entries.get_mut(found.slot as usize) {
            entry.flow.generation = generation;
            entry.flow.rule = rule;
        }
    }

    pub(super) fn remove(&mut self, found: Found) {
        self.take_out(found.slot);
    }

    /// Forgets every flow that fell silent for too long.
    pub(super) fn expire(&mut self, now: Instant) {
        for list in List::ALL {
            while let Some(slot) = self.expired_end(list, now) {
                self.take_out(slot);
            }
        }
    }

    fn make_room(&mut self, now: Instant) {
        let expired = List::ALL
            .into_iter()
            .find_map(|list| self.expired_end(list, now));
        if let Some(slot) = expired {
            self.take_out(slot);
            return;
        }
        let victim = self.lists.iter().map(|ends| ends.oldest);
        if let Some(slot) = victim.into_iter().find(|slot| *slot != NIL) {
            self.evictions = self.evictions.saturating_add(1);
            self.take_out(slot);
        }
    }

    fn expired_end(&self, list: List, now: Instant) -> Option<Slot> {
        let slot = self.lists[list as usize].oldest;
        let entry = self.entry(slot)?;
        is_expired(&entry, now).then_some(slot)
    }

    fn take_out(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot) else {
            return;
        };
        self.unlink(slot);
        match self.buckets.get_mut(entry.bucket as usize) {
            Some(head) if *head == slot => *head = entry.next,
            Some(head) => {
                let mut at = *head;
                while let Some(before) = self.entries.get_mut(at as usize) {
                    if before.next == slot {
                        before.next = entry.next;
                        break;
                    }
                    at = before.next;
                }
            }
            None => {}
        }
        if let Some(place) = self.entries.get_mut(slot as usize) {
            place.next = self.free;
        }
        self.free = slot;
        self.length = self.length.saturating_sub(1);
    }

    /// Puts an entry at the new end of its list.
    fn link(&mut self, slot: Slot) {
        let Some(entry) = self.entries.get_mut(slot as usize) else {
            return;
        };
        let ends = &mut self.lists[entry.list as usize];
        let second = ends.newest;
        entry.newer = NIL;
        entry.older = second;
        ends.newest = slot;
        if second == NIL {
            ends.oldest = slot;
        } else if let Some(second) = self.entries.get_mut(second as usize) {
            second.newer = slot;
        }
    }

    /// Takes an entry out of its list.
    fn unlink(&mut self, slot: Slot) {
        let Some(entry) = self.entry(slot) else {
            return;
        };
        let ends = &mut self.lists[entry.list as usize];
        if entry.newer == NIL {
            ends.newest = entry.older;
        }
        if entry.older == NIL {
            ends.oldest = entry.newer;
        }
        if let Some(newer) = self.entries.get_mut(entry.newer as usize) {
            newer.older = entry.older;
        }
        if let Some(older) = self.entries.get_mut(entry.older as usize) {
            older.newer = entry.newer;
        }
    }

    fn slot(&self, key: &Key) -> Option<Slot> {
        let mut slot = self.buckets.get(self.bucket(key)).copied()?;
        while let Some(entry) = self.entries.get(slot as usize) {
            if entry.flow.key == *key {
                return Some(slot);
            }
            slot = entry.next;
        }
        None
    }

    fn entry(&self, slot: Slot) -> Option<Entry> {
        self.entries.get(slot as usize).copied()
    }

    fn bucket(&self, key: &Key) -> usize {
        siphash_1_3(self.seed, &key.words()) as usize & (self.buckets.len() - 1)
    }
}

fn is_expired(entry: &Entry, now: Instant) -> bool {
    now.saturating_since(entry.used) >= entry.list.timeout()
}

/// SipHash with one round a word and three at the end, of whole words.
///
/// Source: Aumasson, Bernstein: "SipHash: a fast short-input PRF", section 2.
fn siphash_1_3(seed: (u64, u64), words: &[u64]) -> u64 {
    let mut v = [
        seed.0 ^ 0x736f_6d65_7073_6575,
        seed.1 ^ 0x646f_7261_6e64_6f6d,
        seed.0 ^ 0x6c79_6765_6e65_7261,
        seed.1 ^ 0x7465_6462_7974_6573,
    ];
    // The last word holds the length in bytes, modulo 256, in its top byte.
    let last = (words.len() as u64 * 8) << 56;
    for word in words.iter().chain([&last]) {
        v[3] ^= word;
        sip_round(&mut v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for _ in 0..3 {
        sip_round(&mut v);
    }
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

fn sip_round(v: &mut [u64; 4]) {
    let [a, b, c, d] = *v;
    let (a, b) = (a.wrapping_add(b), b.rotate_left(13) ^ a.wrapping_add(b));
    let a = a.rotate_left(32);
    let (c, d) = (c.wrapping_add(d), d.rotate_left(16) ^ c.wrapping_add(d));
    let (a, d) = (a.wrapping_add(d), d.rotate_left(21) ^ a.wrapping_add(d));
    let (c, b) = (c.wrapping_add(b), b.rotate_left(17) ^ c.wrapping_add(b));
    *v = [a, b, c.rotate_left(32), d];
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use std::hash::DefaultHasher;

    proptest! {
        #[test]
        fn the_hash_is_the_standard_librarys(words: std::vec::Vec<u64>) {
            // Not promised for ever, but it is SipHash-1-3 under a zero key.
            let mut hasher = DefaultHasher::new();
            for word in &words {
                hasher.write(&word.to_le_bytes());
            }
            prop_assert_eq!(siphash_1_3((0, 0), &words), hasher.finish());
        }
    }
}
