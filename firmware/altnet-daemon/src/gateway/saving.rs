//! What the node wants kept, on its way to the disk and back, and all of it gone when it leaves.

use std::time::Duration;

use altnet_core::node::{Slot, Stored};
use altnet_wire::time::Instant;

use super::{Gateway, birth};
use crate::store::writer::Done;
use crate::{clock, log};

/// How long to wait before a slot that could not be saved is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(5);

impl Gateway {
    /// Has a slot written as it is now; [`Gateway::written`] hears what became of it.
    pub(super) fn save(&mut self, slot: &Slot) {
        let name = slot.to_string();
        let number = match self.node.state_bytes(slot) {
            Some(bytes) => self.store.save(name, bytes),
            None => self.store.remove(name),
        };
        self.state.writing.insert(slot.clone(), number);
    }

    /// Tries again what could not be saved.
    pub(super) fn save_again(&mut self) {
        self.state.save_again = Instant::NEVER;
        for slot in std::mem::take(&mut self.state.unsaved) {
            self.save(&slot);
        }
    }

    /// Says that a slot is on disk, unless what it holds by now is still on its way there.
    pub(super) fn written(&mut self, Done { number, outcome }: Done) {
        let mut writing = self.state.writing.iter();
        let Some(slot) = writing.find_map(|(slot, last)| (*last == number).then(|| slot.clone()))
        else {
            return;
        };
        self.state.writing.remove(&slot);
        match outcome {
            Ok(()) => self.node.handle_saved(&slot, clock::now()),
            Err(e) => {
                crate::error!("{}; trying again", log::chain(&e));
                self.state.unsaved.insert(slot);
                self.state.save_again = clock::now().after(SAVE_RETRY);
            }
        }
    }

    /// Ends a membership that somebody asked to end: forgets what is left of it, this device's
    /// keys too, and goes on as a device that nobody has seen. An issuer would refuse a new
    /// invite to keys that have a membership already.
    pub(super) fn forget(&mut self, now: Instant) {
        let Some(event) = self.state.leaving.take() else {
            self.state.forget_at = Instant::NEVER;
            return;
        };
        match self.begin_anew() {
            Ok(()) => {
                self.state.forget_at = Instant::NEVER;
                self.tell(&event);
            }
            Err(e) => {
                crate::error!("the keys are not forgotten yet: {e:#}; trying again");
                self.state.leaving = Some(event);
                self.state.forget_at = now.after(SAVE_RETRY);
            }
        }
    }

    fn begin_anew(&mut self) -> anyhow::Result<()> {
        // The keys last: cut off before, this is still the device that it was. It is waited for:
        // nobody leaves in the middle of something else.
        self.store.clear(&Slot::Identity.to_string())?;
        self.node = birth::make_node(&self.config, Stored::new())?;
        self.state.writing.clear();
        self.state.unsaved.clear();
        self.state.save_again = Instant::NEVER;
        self.set_clock();
        Ok(())
    }
}
