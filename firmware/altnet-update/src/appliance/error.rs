//! What can go wrong, each in one sentence with what to do next.

use std::io;
use std::path::PathBuf;

use crate::bundle::BundleError;
use crate::choice::{ChoiceError, Slot};
use crate::install::InstallError;
use crate::keys::KeyFileError;
use crate::state::StateError;
use crate::verdict::Refusal;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// This is no box with slots.
    #[error("this is not an altnet appliance: there is no {}", path.display())]
    NotAnAppliance {
        /// What isn't there.
        path: PathBuf,
    },
    /// A file can't be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file doesn't say what it should.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The owner's keys don't read: nothing is installed until they do.
    #[error("{}: {source}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyFileError,
    },
    /// Another process changes something.
    #[error("another update is under way")]
    Busy,
    /// The bundle is damaged. Nothing was written.
    #[error("{}: {source}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: BundleError,
    },
    /// The bundle isn't taken. Nothing was written.
    #[error("{} is refused: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Refusal,
    },
    /// The installation failed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The choice of slot.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// What is kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// The running slot doesn't wait to be confirmed.
    #[error("the release in slot {slot} doesn't wait to be confirmed")]
    NothingToConfirm {
        /// The slot that runs.
        slot: Slot,
    },
    /// The other slot holds no system.
    #[error("slot {slot} holds no release to go back to")]
    NoWayBack {
        /// The other slot.
        slot: Slot,
    },
}

impl Error {
    /// What a person does about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::NotAnAppliance { .. } => {
                "Update altnet as it was installed: by packages on OpenWrt, by hand elsewhere."
            }
            Self::Read { .. } => "Check the path, and whether the disk is failing.",
            Self::File { .. } => "This image was made wrongly: flash another.",
            Self::Keys { .. } => {
                "Mend the file, or remove it to go by the release keys alone; until then nothing is installed."
            }
            Self::Busy => "Wait until it is done; `altnet update status` shows it.",
            Self::Bundle { source, .. } => source.next_step(),
            Self::Refused { source, .. } => source.next_step(),
            Self::Install(error) => error.next_step(),
            Self::Choice(_) => {
                "Try again. If it fails again, replace the card or disk: what was chosen still is."
            }
            Self::State(StateError::Newer { .. }) => {
                "Go back to the newer release with `altnet update rollback`."
            }
            Self::State(_) => "Look into why the data partition can't be used.",
            Self::NothingToConfirm { .. } => "`altnet update status` says how things are.",
            Self::NoWayBack { .. } => "Install a release instead: `altnet update install FILE`.",
        }
    }
}
