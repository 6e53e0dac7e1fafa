//! What is held of other members' audit logs, and how often they may ask.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use altnet_wire::audit::{self, AuditHead, SignedHead};
use altnet_wire::hash::HASH_BYTES;
use altnet_wire::id::SigningKey;
use altnet_wire::time::{Duration, Instant};
use serde::{Deserialize, Serialize};

/// Of what is kept on disk.
const VERSION: u8 = 1;
/// Questions one member may put at once, and one more after each pause.
const BURST: u8 = 24;
const PAUSE: Duration = Duration::from_secs(60);
/// Heads in a row that can't be compared with what is held, before that is told.
const TOO_LATE: u8 = 3;
/// Members vouched for at most, whatever the limits.
pub(super) const MOST: usize = 256;

/// The newest head of a member that this node vouched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) device: SigningKey,
    pub(super) signed: SignedHead,
    /// The sequence since which it was shown every step.
    pub(super) since: u64,
}

/// How often a member may still ask.
#[derive(Clone, Copy, Debug)]
struct Patience {
    left: u8,
    filled: Instant,
    /// Heads in a row that could not be compared with what is held.
    late: u8,
}

/// Everybody this node vouched for.
#[derive(Debug)]
pub(super) struct Others {
    pub(super) held: BTreeMap<SigningKey, Held>,
    patience: BTreeMap<SigningKey, Patience>,
    pub(super) is_unsaved: bool,
    pub(super) saved_at: Instant,
}

impl Others {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            held: BTreeMap::new(),
            patience: BTreeMap::new(),
            is_unsaved: false,
            saved_at: now,
        }
    }

    /// Takes a head in the place of the one before. Returns whether it is another.
    pub(super) fn hold(&mut self, held: Held) -> bool {
        if let Some(patience) = self.patience.get_mut(&held.device) {
            patience.late = 0;
        }
        self.held.insert(held.device, held) != Some(held)
    }

    /// Takes up what was kept; damaged, it is none.
    pub(super) fn load(&mut self, bytes: &[u8]) {
        let kept: (u8, Vec<Held>) = postcard::from_bytes(bytes).unwrap_or_default();
        let known = (kept.0 == VERSION).then_some(kept.1);
        self.held = known
            .into_iter()
            .flatten()
            .take(MOST)
            .map(|held| (held.device, held))
            .collect();
    }

    /// What is to be kept.
    pub(super) fn bytes(&self) -> Option<Vec<u8>> {
        let held: Vec<&Held> = self.held.values().collect();
        let bytes = postcard::to_allocvec(&(VERSION, &held)).ok()?;
        (!held.is_empty()).then_some(bytes)
    }

    /// Forgets everybody: this node is in no network.
    pub(super) fn clear(&mut self) {
        self.held.clear();
        self.patience.clear();
    }

    /// Whether `device` may ask once more.
    pub(super) fn admits(&mut self, device: SigningKey, now: Instant) -> bool {
        if self.patience.len() >= MOST && !self.patience.contains_key(&device) {
            let all = PAUSE * u32::from(BURST);
            self.patience
                .retain(|_, p| now.saturating_since(p.filled) < all);
            if self.patience.len() >= MOST {
                return false;
            }
        }
        let patience = self.patience.entry(device).or_insert(Patience {
            left: BURST,
            filled: now,
            late: 0,
        });
        let passed = now.saturating_since(patience.filled).as_secs() / PAUSE.as_secs();
        if passed > 0 {
            let new = u8::try_from(passed).unwrap_or(u8::MAX);
            patience.left = patience.left.saturating_add(new).min(BURST);
            patience.filled = now;
        }
        let left = patience.left.checked_sub(1);
        patience.left = left.unwrap_or(0);
        left.is_some()
    }

    /// Counts a head that could not be compared. Returns whether there were so many that its
    /// device does not want to be compared: an honest one shows the rest when it is told to.
    pub(super) fn is_too_late(&mut self, device: SigningKey) -> bool {
        self.patience.get_mut(&device).is_some_and(|patience| {
            patience.late = patience.late % TOO_LATE + 1;
            patience.late == TOO_LATE
        })
    }
}

/// What a head that is shown is to what is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// It goes on from there, or is the same.
    GoesOn,
    /// The digests shown begin too late to say.
    BeginsLate,
    /// It does not go on from there.
    Rewritten,
}

/// `digests` are those of the entries after `from` up to the head, as many as they should be.
pub(super) fn judge(held: &AuditHead, shown: &AuditHead, from: u64, digests: &[u8]) -> Judged {
    if shown.sequence < held.sequence {
        return Judged::Rewritten;
    }
    if shown.sequence == held.sequence {
        return if shown.hash == held.hash {
            Judged::GoesOn
        } else {
            Judged::Rewritten
        };
    }
    let Some(skip) = held.sequence.checked_sub(from) else {
        return Judged::BeginsLate;
    };
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let missing = digests.get(skip.saturating_mul(HASH_BYTES)..);
    if audit::follow(&held.hash, missing.unwrap_or_default()) == shown.hash {
        Judged::GoesOn
    } else {
        Judged::Rewritten
    }
}

#[cfg(test)]
mod tests {
    use super::super::own::tests::{links, own};
    use super::*;
    use crate::audit::Link;
    use altnet_wire::time::UnixTime;
    use proptest::prelude::*;

    fn head(links: &[Link], sequence: u64) -> AuditHead {
        let link = &links[sequence as usize - 1];
        AuditHead {
            sequence,
            hash: link.hash,
            time: UnixTime::EPOCH,
        }
    }

    proptest! {
        /// A head is countersigned exactly if everything that is held is its beginning.
        #[test]
        fn only_what_goes_on_from_what_is_held_is_countersigned(
            held in 1u64..60,
            (shown, from) in (1u64..60).prop_flat_map(|shown| (Just(shown), 0..=shown)),
            other: bool,
        ) {
            let truth = links(60, 0);
            let line = if other { links(60, 1) } else { truth.clone() };
            let own = own(&line, 100);
            let digests: Vec<u8> = (from + 1..=shown).flat_map(|at| line[at as usize - 1].digest).collect();
            let judged = judge(&head(&truth, held), &head(&line, shown), from, &digests);
            prop_assert_eq!(own.hash_at(shown), Some(line[shown as usize - 1].hash));
            let expected = if shown < held || (other && from <= held) || (other && shown == held) {
                Judged::Rewritten
            } else if shown > held && from > held {
                Judged::BeginsLate
            } else {
                Judged::GoesOn
            };
            prop_assert_eq!(judged, expected);
        }

        #[test]
        fn no_kept_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut witnesses = Others::new(Instant::ZERO);
            witnesses.load(&bytes);
            let kept = witnesses.bytes();
            let mut again = Others::new(Instant::ZERO);
            again.load(&kept.unwrap_or_default());
            prop_assert_eq!(again.held, witnesses.held);
        }
    }

    #[test]
    fn a_member_may_ask_only_so_often() {
        let mut witnesses = Others::new(Instant::ZERO);
        let device = SigningKey([1; 32]);
        let asked = (0..100).filter(|_| witnesses.admits(device, Instant::ZERO));
        assert_eq!(asked.count(), usize::from(BURST));
        assert!(witnesses.admits(device, Instant::ZERO.after(PAUSE)));
        assert!(!witnesses.admits(device, Instant::ZERO.after(PAUSE)));
        for other in 0..1000u16 {
            let mut key = [0; 32];
            key[..2].copy_from_slice(&other.to_be_bytes());
            witnesses.admits(SigningKey(key), Instant::ZERO);
        }
        assert!(witnesses.patience.len() <= MOST);
    }
}
