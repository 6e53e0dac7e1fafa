//! Other relays of the region, which watch who comes and goes.
//!
//! A watcher is first told of everybody, in the order of their keys, at the pace at which it reads:
//! where it stands in that order is all that is kept. What changes behind it is queued; what changes
//! before it, it will come to. One that is too far behind is closed, comes again and begins anew.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Bound;

use altnet_wire::derp::{Frame, PublicKey};

use super::ConnectionId;

/// Somebody came or went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change {
    pub(super) key: PublicKey,
    pub(super) frame: Frame<'static>,
}

#[derive(Debug)]
enum Tour {
    /// It has been told of nobody.
    Begins,
    /// It has been told of everybody up to this key.
    At(PublicKey),
    /// It has been told of everybody.
    Done,
}

#[derive(Debug)]
struct Watcher {
    id: ConnectionId,
    tour: Tour,
    backlog: VecDeque<Frame<'static>>,
}

/// The watchers.
#[derive(Debug)]
pub(super) struct Watchers {
    watchers: Vec<Watcher>,
    limit: usize,
    backlog: usize,
}

impl Watchers {
    pub(super) fn new(limit: usize, backlog: usize) -> Self {
        Self {
            watchers: Vec::with_capacity(limit),
            limit,
            backlog,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Begins to tell a connection of everybody; again if it watches already.
    pub(super) fn add(&mut self, id: ConnectionId) -> Option<()> {
        self.remove(id);
        if self.watchers.len() >= self.limit {
            return None;
        }
        self.watchers.push(Watcher {
            id,
            tour: Tour::Begins,
            backlog: VecDeque::with_capacity(self.backlog),
        });
        Some(())
    }

    pub(super) fn remove(&mut self, id: ConnectionId) {
        self.watchers.retain(|watcher| watcher.id != id);
    }

    /// Queues a change for everybody it concerns; says whose connections those are, and whether one
    /// is too far behind.
    pub(super) fn tell(&mut self, change: &Change) -> Vec<(ConnectionId, bool)> {
        let limit = self.backlog;
        let mut told = Vec::with_capacity(self.watchers.len());
        self.watchers.retain_mut(|watcher| {
            let will_come_to_it = match &watcher.tour {
                Tour::Begins => true,
                Tour::At(key) => change.key > *key,
                Tour::Done => false,
            };
            if will_come_to_it {
                return true;
            }
            let is_too_slow = watcher.backlog.len() >= limit;
            if !is_too_slow {
                watcher.backlog.push_back(change.frame);
            }
            told.push((watcher.id, is_too_slow));
            !is_too_slow
        });
        told
    }

    /// The next frame for a watcher. `next` names who comes after a key.
    pub(super) fn poll(
        &mut self,
        id: ConnectionId,
        next: impl FnOnce(Option<&PublicKey>) -> Option<(PublicKey, Frame<'static>)>,
    ) -> Option<Frame<'static>> {
        let watcher = self.watchers.iter_mut().find(|watcher| watcher.id == id)?;
        if let Some(frame) = watcher.backlog.pop_front() {
            return Some(frame);
        }
        let after = match &watcher.tour {
            Tour::Begins => None,
            Tour::At(key) => Some(key),
            Tour::Done => return None,
        };
        match next(after) {
            Some((key, frame)) => {
                watcher.tour = Tour::At(key);
                Some(frame)
            }
            None => {
                watcher.tour = Tour::Done;
                None
            }
        }
    }
}

/// Who comes after a key.
pub(super) fn next<'m, T>(
    map: &'m BTreeMap<PublicKey, T>,
    after: Option<&PublicKey>,
) -> Option<(&'m PublicKey, &'m T)> {
    let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<PublicKey, _>((begin, Bound::Unbounded)).next()
}
