//! What a node keeps across a power cut, and the promise that it is kept before it counts.
//!
//! State is a set of named slots, each replaced as a whole. A slot that changed is offered
//! to the driver once, and whatever depends on it (an acknowledgement, a stamp) waits until
//! the driver says that it is synced.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use altnet_wire::id::{NodeId, SigningKey, base32_fmt};

use crate::registry::Slot as RecordSlot;

/// The name of one piece of state. `Display` writes a name fit for a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Slot {
    /// The device's secret keys. Holds secrets.
    Identity,
    /// The network this node is a member of; written last when joining.
    Network,
    /// An issuer key this node admits with, and how often each invite was used. Holds secrets.
    Issuer,
    /// The validity floor of the calendar.
    Floor,
    /// How far TAI64N stamps are reserved, for the tunnel key with this public half.
    Tai([u8; 32]),
    /// Where a subscription to a directory has come to.
    Cursor,
    /// The last direct address of a peer that stood for a while.
    LastPath(NodeId),
    /// The keys of the app on this device with this key. Holds secrets.
    App(SigningKey),
    /// The key for TLS of the app with this key, or of this device's login page. Holds secrets.
    Tls(SigningKey),
    /// The key by which DERP servers of others name this device. Holds a secret.
    Derp,
    /// The heads of other members' audit logs that this node vouched for.
    Witnessed,
    /// A record.
    Record(RecordSlot),
    /// Something that an interrupted change left behind, to be removed.
    Stray(String),
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identity => f.write_str("identity"),
            Self::Network => f.write_str("network"),
            Self::Issuer => f.write_str("issuer"),
            Self::Floor => f.write_str("floor"),
            Self::Cursor => f.write_str("cursor"),
            Self::Witnessed => f.write_str("witnessed"),
            Self::Derp => f.write_str("derp"),
            Self::Tai(key) => {
                f.write_str("tai-")?;
                base32_fmt(key, f)
            }
            Self::LastPath(node) => {
                f.write_str("path-")?;
                base32_fmt(&node.0, f)
            }
            Self::App(key) => write!(f, "app-{key}"),
            Self::Tls(key) => write!(f, "tls-{key}"),
            Self::Record(slot) => write!(f, "record-{slot}"),
            Self::Stray(name) => f.write_str(name),
        }
    }
}

/// State as a driver read it back: every slot's name and bytes.
pub type Stored = BTreeMap<String, Vec<u8>>;

/// What waits for slots to be synced.
#[derive(Debug)]
struct Waiting<D> {
    slots: BTreeSet<Slot>,
    then: D,
}

/// Slots to be saved, and what waits for them.
#[derive(Debug)]
pub(super) struct Saves<D> {
    offered: VecDeque<Slot>,
    unsaved: BTreeSet<Slot>,
    waiting: Vec<Waiting<D>>,
}

impl<D> Saves<D> {
    pub(super) const fn new() -> Self {
        Self {
            offered: VecDeque::new(),
            unsaved: BTreeSet::new(),
            waiting: Vec::new(),
        }
    }

    /// A slot has new bytes.
    pub(super) fn changed(&mut self, slot: Slot) {
        if !self.offered.contains(&slot) {
            self.offered.push_back(slot.clone());
        }
        self.unsaved.insert(slot);
    }

    /// Does `then` once everything that has changed so far is synced; at once (returned) if
    /// everything is.
    #[must_use]
    pub(super) fn then(&mut self, then: D) -> Option<D> {
        if self.unsaved.is_empty() {
            return Some(then);
        }
        let slots = self.unsaved.clone();
        self.waiting.push(Waiting { slots, then });
        None
    }

    /// Does `then` once `slot` is synced; at once (returned) if it is.
    #[must_use]
    pub(super) fn then_slot(&mut self, slot: &Slot, then: D) -> Option<D> {
        if !self.unsaved.contains(slot) {
            return Some(then);
        }
        let slots = BTreeSet::from([slot.clone()]);
        self.waiting.push(Waiting { slots, then });
        None
    }

    /// How much waits.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The next slot to save.
    pub(super) fn poll(&mut self) -> Option<Slot> {
        self.offered.pop_front()
    }

    /// The driver synced `slot`; returns what may be done now, in order.
    pub(super) fn saved(&mut self, slot: &Slot) -> Vec<D> {
        // Changed again since it was taken: it is offered once more, and this doesn't count.
        if self.offered.contains(slot) {
            return Vec::new();
        }
        self.unsaved.remove(slot);
        let mut ready = Vec::new();
        let mut left = Vec::with_capacity(self.waiting.len());
        for mut waiting in core::mem::take(&mut self.waiting) {
            waiting.slots.remove(slot);
            if waiting.slots.is_empty() {
                ready.push(waiting.then);
            } else {
                left.push(waiting);
            }
        }
        self.waiting = left;
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_depends_on_a_slot_waits_until_it_is_synced() {
        let mut saves = Saves::new();
        assert_eq!(saves.then("at once"), Some("at once"));
        saves.changed(Slot::Floor);
        saves.changed(Slot::Cursor);
        assert_eq!(saves.then("later"), None);
        assert_eq!(saves.poll(), Some(Slot::Floor));
        assert_eq!(saves.poll(), Some(Slot::Cursor));
        assert!(saves.saved(&Slot::Cursor).is_empty());
        assert_eq!(saves.saved(&Slot::Floor), ["later"]);
    }

    #[test]
    fn a_slot_changed_while_it_is_written_is_written_again() {
        let mut saves = Saves::new();
        saves.changed(Slot::Floor);
        assert_eq!(saves.poll(), Some(Slot::Floor));
        saves.changed(Slot::Floor);
        assert_eq!(saves.then("second"), None);
        assert!(saves.saved(&Slot::Floor).is_empty());
        assert_eq!(saves.poll(), Some(Slot::Floor));
        assert_eq!(saves.saved(&Slot::Floor), ["second"]);
    }
}
