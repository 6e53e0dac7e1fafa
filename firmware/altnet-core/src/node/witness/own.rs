//! Our own audit log, as far back as is remembered.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use altnet_wire::audit::{self, MAX_DIGESTS};
use altnet_wire::hash::Hash;
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};

use crate::audit::{End, Link};

/// How soon after the start: sessions have come up then.
const FIRST: Duration = Duration::from_secs(60);

/// What is to be shown to others.
#[derive(Debug)]
pub(super) struct Own {
    /// Where the digests begin.
    base: Option<End>,
    digests: VecDeque<Hash>,
    pub(super) end: End,
    /// The last entry that wants a countersignature, and the last that has one.
    pub(super) wanted: u64,
    pub(super) vouched: u64,
    pub(super) ask_at: Instant,
    /// Heads that may still be shown until then: who answers with ever other heads is not told
    /// everything again without end.
    pub(super) left: u8,
    /// Up to where each witness vouched.
    pub(super) told: BTreeMap<NodeId, u64>,
}

impl Own {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            base: None,
            digests: VecDeque::new(),
            end: End::default(),
            wanted: 0,
            vouched: 0,
            ask_at: now.after(FIRST),
            left: 0,
            told: BTreeMap::new(),
        }
    }

    /// The oldest sequence whose hash is remembered.
    pub(super) fn oldest(&self) -> u64 {
        self.base.map_or(0, |base| base.sequence)
    }

    /// The hash at `sequence`, if it is remembered.
    pub(super) fn hash_at(&self, sequence: u64) -> Option<Hash> {
        let base = self.base?;
        let steps = usize::try_from(sequence.checked_sub(base.sequence)?).ok()?;
        if steps > self.digests.len() {
            return None;
        }
        let digests = self.digests.iter().take(steps);
        Some(digests.fold(base.hash, |hash, digest| audit::next(&hash, digest)))
    }

    /// The digests after `from`, as many as go into a request; none if they are not remembered.
    pub(super) fn digests_after(&self, from: u64) -> Option<Vec<u8>> {
        let skip = usize::try_from(from.checked_sub(self.base?.sequence)?).ok()?;
        let digests = self.digests.iter().skip(skip).take(MAX_DIGESTS);
        Some(digests.flatten().copied().collect())
    }

    /// An entry is on disk; `most` digests are remembered.
    pub(super) fn take(&mut self, link: &Link, most: usize) {
        let goes_on = self.base.is_some() && link.sequence == self.end.sequence.saturating_add(1);
        self.end = (*link).into();
        if !goes_on {
            self.base = Some(self.end);
            self.digests = VecDeque::with_capacity(most);
            return;
        }
        if self.digests.len() >= most
            && let (Some(base), Some(oldest)) = (&mut self.base, self.digests.pop_front())
        {
            base.sequence += 1;
            base.hash = audit::next(&base.hash, &oldest);
        }
        self.digests.push_back(link.digest);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use altnet_wire::audit::NO_ENTRIES;
    use altnet_wire::hash::HASH_BYTES;

    pub fn links(count: u64, salt: u8) -> Vec<Link> {
        let mut hash = NO_ENTRIES;
        let link = |sequence: u64| {
            let digest = audit::digest(&[&sequence.to_be_bytes()[..], &[salt]].concat());
            hash = audit::next(&hash, &digest);
            Link {
                sequence,
                digest,
                hash,
                is_testimony: false,
            }
        };
        (1..=count).map(link).collect()
    }

    pub fn own(links: &[Link], most: usize) -> Own {
        let mut own = Own::new(Instant::ZERO);
        for link in links {
            own.take(link, most);
        }
        own
    }

    #[test]
    fn what_is_remembered_of_the_own_log_is_bounded_and_right() {
        let links = links(100, 0);
        let own = own(&links, 30);
        assert_eq!((own.digests.len(), own.end.sequence), (30, 100));
        for link in &links {
            let expected = (link.sequence >= 70).then_some(link.hash);
            assert_eq!(own.hash_at(link.sequence), expected, "{}", link.sequence);
        }
        assert_eq!(own.digests_after(69), None);
        assert_eq!(own.digests_after(90).unwrap().len(), 10 * HASH_BYTES);
    }
}
