//! Fragmented packets whose first fragment was admitted.
//!
//! A later fragment has no ports to judge by: it passes if its first fragment did, and only
//! the bytes behind those of the first. One that overtakes its first fragment is lost, and
//! sent again by whoever sent it.

use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use altnet_wire::time::Instant;

use super::{DropReason, RuleId};
use crate::ip::PacketInfo;

/// How long a packet may be on its way: what a receiver waits for its fragments
/// (RFC 8200 section 4.5).
pub const FRAGMENT_LIFETIME: Duration = Duration::from_secs(60);

/// What tells fragmented packets apart (RFC 8200 section 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    source: Ipv6Addr,
    destination: Ipv6Addr,
    id: u32,
}

impl Key {
    pub(super) const fn new(packet: &PacketInfo, id: u32) -> Self {
        Self {
            source: packet.source,
            destination: packet.destination,
            id,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key: Key,
    first_end_bytes: u16,
    rule: RuleId,
    expires: Instant,
}

/// A bounded list, searched from end to end: fragments are rare and the list is short.
#[derive(Debug)]
pub(super) struct FragmentTable {
    entries: Vec<Entry>,
    limit: usize,
}

impl FragmentTable {
    pub(super) fn new(limit: u32) -> Self {
        let limit = limit as usize;
        Self {
            entries: Vec::with_capacity(limit),
            limit,
        }
    }

    /// Lets the later fragments of a packet pass, in the place of the oldest if there is no room.
    pub(super) fn admit(&mut self, key: Key, end_bytes: u16, rule: RuleId, now: Instant) {
        let mut first_end_bytes = end_bytes;
        if let Some(at) = self.position(&key) {
            // A second "first" fragment never makes room for overlap.
            let known = self.entries.swap_remove(at);
            first_end_bytes = first_end_bytes.max(known.first_end_bytes);
        }
        if self.limit == 0 {
            return;
        }
        if self.entries.len() >= self.limit {
            let oldest = self.entries.iter().enumerate();
            if let Some((at, _)) = oldest.min_by_key(|(_, entry)| entry.expires) {
                self.entries.swap_remove(at);
            }
        }
        self.entries.push(Entry {
            key,
            first_end_bytes,
            rule,
            expires: now.after(FRAGMENT_LIFETIME),
        });
    }

    /// The rule that admitted the packet that a later fragment belongs to.
    pub(super) fn judge(
        &mut self,
        key: &Key,
        offset_bytes: u16,
        now: Instant,
    ) -> Result<RuleId, DropReason> {
        let at = self.position(key).ok_or(DropReason::FragmentWithoutFirst)?;
        let entry = self
            .entries
            .get(at)
            .copied()
            .ok_or(DropReason::FragmentWithoutFirst)?;
        if entry.expires <= now {
            self.entries.swap_remove(at);
            return Err(DropReason::FragmentWithoutFirst);
        }
        if offset_bytes < entry.first_end_bytes {
            // RFC 5722 section 4: with an overlap, the rest of the packet is discarded as well.
            self.entries.swap_remove(at);
            return Err(DropReason::OverlappingFragment);
        }
        Ok(entry.rule)
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(at) = self.position(key) {
            self.entries.swap_remove(at);
        }
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn position(&self, key: &Key) -> Option<usize> {
        self.entries.iter().position(|entry| entry.key == *key)
    }
}
