//! The tree of owner changes, and which path through it holds.

use alloc::collections::{BTreeMap, BTreeSet};

use altnet_wire::id::{RecordId, Serial, SigningKey};
use altnet_wire::record::{Genesis, MAX_OWNERS, OwnerChange};
use heapless::Vec;

use super::{Missing, RecordError, Slot};

type Keys = Vec<SigningKey, MAX_OWNERS>;

/// Owners and recovery key after one change.
#[derive(Clone, Debug)]
struct State {
    owners: Keys,
    recovery: SigningKey,
}

#[derive(Clone, Debug)]
struct Change {
    previous: RecordId,
    serial: Serial,
    by_recovery: bool,
    state: State,
    /// When it came, for giving up the oldest first.
    order: u64,
}

/// All owner changes held, forks included.
#[derive(Clone, Debug)]
pub(super) struct Owners {
    genesis: RecordId,
    first: State,
    changes: BTreeMap<RecordId, Change>,
    /// The changes in force, the oldest first.
    path: alloc::vec::Vec<RecordId>,
    order: u64,
}

/// Whether `owners` can be the owners of a network: at least one, none twice.
pub(super) fn is_list(owners: &[SigningKey]) -> bool {
    let distinct = owners
        .iter()
        .enumerate()
        .all(|(at, owner)| owners.iter().skip(at + 1).all(|other| other != owner));
    !owners.is_empty() && distinct
}

impl Owners {
    pub(super) fn new(genesis: &Genesis, id: RecordId) -> Self {
        Self {
            genesis: id,
            first: State {
                owners: genesis.owners.clone(),
                recovery: genesis.recovery,
            },
            changes: BTreeMap::new(),
            path: alloc::vec::Vec::new(),
            order: 0,
        }
    }

    fn state(&self, id: &RecordId) -> Option<(&State, Serial)> {
        if *id == self.genesis {
            return Some((&self.first, Serial(0)));
        }
        let change = self.changes.get(id)?;
        Some((&change.state, change.serial))
    }

    fn present_state(&self) -> &State {
        self.path
            .last()
            .and_then(|id| self.changes.get(id))
            .map_or(&self.first, |change| &change.state)
    }

    pub(super) fn present(&self) -> &[SigningKey] {
        &self.present_state().owners
    }

    pub(super) fn recovery(&self) -> SigningKey {
        self.present_state().recovery
    }

    pub(super) fn head(&self) -> (RecordId, Serial) {
        let id = self.path.last().copied().unwrap_or(self.genesis);
        let serial = self.changes.get(&id).map_or(Serial(0), |c| c.serial);
        (id, serial)
    }

    pub(super) fn path(&self) -> &[RecordId] {
        &self.path
    }

    /// Whether `signer` may follow up on the change before with `body`.
    pub(super) fn judge(
        &self,
        signer: &SigningKey,
        serial: Serial,
        body: &OwnerChange,
    ) -> Result<(), RecordError> {
        let (state, before) = self
            .state(&body.previous)
            .ok_or(RecordError::Missing(Missing::Record(body.previous)))?;
        if serial != before.next() || !is_list(&body.owners) {
            return Err(RecordError::Body(
                altnet_wire::envelope::RecordKind::OWNER_CHANGE,
            ));
        }
        let may = state.recovery == *signer
            || (state.owners.contains(signer) && body.recovery == state.recovery);
        if may {
            Ok(())
        } else {
            Err(RecordError::NotAuthorized)
        }
    }

    /// Adds a change that was judged and verified.
    pub(super) fn add(
        &mut self,
        id: RecordId,
        serial: Serial,
        signer: SigningKey,
        body: &OwnerChange,
    ) {
        let by_recovery = self
            .state(&body.previous)
            .is_some_and(|(state, _)| state.recovery == signer);
        self.order = self.order.saturating_add(1);
        self.changes.insert(
            id,
            Change {
                previous: body.previous,
                serial,
                by_recovery,
                state: State {
                    owners: body.owners.clone(),
                    recovery: body.recovery,
                },
                order: self.order,
            },
        );
        self.choose();
    }

    pub(super) fn remove(&mut self, id: RecordId) {
        self.changes.remove(&id);
        self.choose();
    }

    /// A change that can be given up: the oldest outside the path that none follows.
    pub(super) fn spare(&self) -> Option<Slot> {
        let followed: BTreeSet<_> = self.changes.values().map(|c| c.previous).collect();
        self.changes
            .iter()
            .filter(|(id, _)| !self.path.contains(id) && !followed.contains(id))
            .min_by_key(|(_, change)| change.order)
            .map(|(id, _)| Slot::owner_change(*id))
    }

    /// Finds the path that holds: see the rules in [`super`].
    fn choose(&mut self) {
        let mut recovered = BTreeSet::new();
        let mut newest_first: alloc::vec::Vec<_> = self.changes.iter().collect();
        newest_first.sort_by_key(|(_, change)| core::cmp::Reverse(change.serial));
        for (id, change) in newest_first {
            if change.by_recovery || recovered.contains(id) {
                recovered.insert(*id);
                recovered.insert(change.previous);
            }
        }
        let mut path = alloc::vec::Vec::new();
        let mut at = self.genesis;
        // Each step has a larger serial than the one before, so this ends.
        while let Some((id, _)) = self
            .changes
            .iter()
            .filter(|(_, change)| change.previous == at)
            .max_by_key(|(id, change)| {
                let rank = (change.by_recovery, recovered.contains(id));
                (rank, core::cmp::Reverse(**id))
            })
        {
            path.push(*id);
            at = *id;
        }
        self.path = path;
    }
}
