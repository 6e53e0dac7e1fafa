//! What the node wants kept, on its way to the disk and back, and all of it gone when it leaves.

use std::time::Duration;

use altnet_core::node::{Command, CommandError, Slot, Stored};
use altnet_wire::frame::Frame;
use altnet_wire::time::Instant;
use zeroize::Zeroizing;

use super::{Gateway, birth};
use crate::store::writer::Done;
use crate::{clock, log};

/// How long to wait before a slot that could not be saved is tried again.
const SAVE_RETRY: Duration = Duration::from_secs(5);

/// The slot that says where the state directory stood when it was used last.
pub const PLACE_SLOT: &str = "place";

/// The slot that is there while this node leaves its network.
pub const LEAVING_SLOT: &str = "leaving";

/// Whether the state directory was worked in here before, or copied here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// As it was left.
    Here,
    /// New, or of a version that kept no note: it is noted now.
    Unknown,
    /// Copied back from a backup.
    Restored,
}

impl Origin {
    /// Of where the directory stood last as noted, where it was found, and where it stands now
    /// that its files were given to who owns them.
    pub fn new(noted: Option<&[u8]>, found: &[u8; 16], place: &[u8; 16]) -> Self {
        match noted {
            Some(noted) if noted == place => Self::Here,
            Some(noted) if noted == found => Self::Unknown,
            Some(_) => Self::Restored,
            None => Self::Unknown,
        }
    }
}

impl Gateway {
    /// Notes where the state directory stands. One that was restored may be an old one, and a
    /// copy of it may be anywhere: its tunnel key is replaced first.
    pub(super) fn note_origin(&mut self, frame: &mut Frame<'_>) {
        match self.origin {
            Origin::Here => return,
            Origin::Unknown => {}
            Origin::Restored => {
                match self.node.handle_command(Command::Rotate, clock::now()) {
                    Ok(()) => {
                        crate::info!("the state was restored from a copy; replacing the tunnel key")
                    }
                    // Nobody knows a key of a device that is no member.
                    Err(CommandError::NotMember) => {}
                    Err(e) => {
                        // Not noted: tried again at the next start.
                        crate::warning!("the state was restored from a copy: {e}");
                        return;
                    }
                }
                // In the queue before the note: cut off between the two, it is replaced again.
                self.drain(frame);
            }
        }
        self.origin = Origin::Here;
        self.note_place();
    }

    fn note_place(&mut self) {
        let place = Zeroizing::new(self.place.to_vec());
        self.store.save(PLACE_SLOT.into(), place);
    }

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
            Ok(()) => {
                if self.state.unsaved.is_empty() {
                    self.state.unsaved_why = None;
                }
                self.node.handle_saved(&slot, clock::now());
            }
            Err(e) => {
                let why = log::chain(&e);
                crate::error!("{why}; trying again");
                self.state.unsaved_why = Some(why);
                self.state.unsaved.insert(slot);
                self.state.save_again = clock::now().after(SAVE_RETRY);
            }
        }
    }

    /// Notes that this node leaves before anything of it is gone: cut off in between, the rest
    /// goes at the next start.
    pub(super) fn note_leaving(&mut self) {
        self.store
            .save(LEAVING_SLOT.into(), Zeroizing::new(vec![1]));
    }

    /// Takes that note back: there was nothing to leave.
    pub(super) fn note_staying(&mut self) {
        self.store.remove(LEAVING_SLOT.into());
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
        // The note that it leaves last. It is waited for: nobody leaves in the middle of something
        // else.
        self.store.clear(LEAVING_SLOT)?;
        self.note_place();
        let mut node = birth::make_node(&self.config, Stored::new())?;
        let (turn, derpers) = self.node.take_servers_of_others();
        node.handle_turn_servers(turn, clock::now());
        node.handle_derpers(derpers, clock::now());
        self.node = node;
        self.state.writing.clear();
        self.state.unsaved.clear();
        self.state.unsaved_why = None;
        self.state.save_again = Instant::NEVER;
        self.set_clock();
        Ok(())
    }
}
