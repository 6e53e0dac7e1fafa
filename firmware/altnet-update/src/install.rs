//! Writing a new slot so that a power cut at any moment leaves a box that boots.
//!
//! The order is the whole of it:
//!
//! 1. the bundle is judged, and the slot and the data partition have room: else nothing is written;
//! 2. it is written down that the slot is being written, and the choice gives it no tries;
//! 3. the slot's first sector is cleared: without it no boot loader finds a file system there, not even
//!    one that has come to try everything once more;
//! 4. the rest is written, piece by piece as each is verified, and read back;
//! 5. the first sector is written, and read back;
//! 6. it is written down what worked, so that the slot can be confirmed;
//! 7. the choice says: the new slot first, with all its tries.
//!
//! Each step can be done again: an installation that was cut off begins anew, and pieces that are there
//! already are left as they are.

use std::io::{self, Read};

use sha2::{Digest, Sha256 as Hasher};

use crate::bundle::{Approved, BundleError};
use crate::choice::{self, ChoiceError, Format, MAX_TRIES, Slot};
use crate::disk::Disk;
use crate::manifest::Manifest;
use crate::state::{Keep, Pending, Phase, Release, State, StateError, Working};

/// What makes a file system of a slot: its boot sector.
const FIRST_BYTES: usize = 512;

/// Where a bundle goes.
#[derive(Debug)]
pub struct Room<'a, S, W, K> {
    /// The slot that runs.
    pub running: Slot,
    /// The partition of the other one.
    pub slot: &'a mut S,
    /// The whole disk, where the choice lies.
    pub whole: &'a mut W,
    /// In which form.
    pub format: Format,
    /// Where the state is kept.
    pub keep: &'a mut K,
    /// What was kept so far.
    pub state: State,
}

/// How far an installation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes of the slot that are done.
    pub done_bytes: u64,
    /// Of so many.
    pub of_bytes: u64,
}

/// What is done with a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is written.
    Writing,
    /// It was there already.
    Kept,
    /// It is read back.
    Checking,
}

/// Why nothing was installed. The running slot stays the one that is booted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The slot that runs isn't confirmed itself.
    #[error(
        "the release in slot {slot} isn't confirmed yet, and the other slot is the way back from it"
    )]
    Unconfirmed {
        /// The slot that runs.
        slot: Slot,
    },
    /// The slot is larger than the partition.
    #[error("the release has {needed} bytes, and slot {slot} has room for {there}")]
    TooLarge {
        /// Which slot.
        slot: Slot,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that there are.
        there: u64,
    },
    /// The bundle.
    #[error("the bundle was not installed: {0}")]
    Bundle(#[from] BundleError),
    /// The slot's partition.
    #[error("cannot {doing} slot {slot}: {source}")]
    Disk {
        /// A verb: read, write.
        doing: &'static str,
        /// Which slot.
        slot: Slot,
        /// What the disk said.
        source: io::Error,
    },
    /// What was written doesn't come back.
    #[error("MiB {at} of slot {slot} reads otherwise than it was written: the disk is failing")]
    ReadBack {
        /// Which slot.
        slot: Slot,
        /// Which piece, from 0.
        at: usize,
    },
    /// The choice.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// What is kept: without it nothing could be confirmed.
    #[error(transparent)]
    State(#[from] StateError),
}

impl InstallError {
    /// What a person does about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Unconfirmed { .. } => {
                "Wait until it is confirmed, or say so with `altnet update confirm`; or go back first with `altnet update rollback`."
            }
            Self::TooLarge { .. } => {
                "This disk was made for smaller releases: flash a new image, and keep /data."
            }
            Self::Bundle(error) => error.next_step(),
            Self::State(_) => {
                "Free some room on the data partition, or look into why it can't be written; `altnet update install` can then be run again."
            }
            _ => {
                "Run `altnet update install` again. If it fails again, replace the card or disk: what runs now is untouched."
            }
        }
    }
}

/// Installs a bundle into the slot that doesn't run, and chooses it for the next boot.
///
/// `before` is what works now. Returns what is kept from then on; the caller reboots.
///
/// # Errors
/// [`InstallError`]. Before the first piece was read, the other slot is as it was only if the error says
/// so: [`InstallError::Unconfirmed`], [`InstallError::TooLarge`], and [`InstallError::State`] if the
/// file could not be written at the first attempt.
pub fn install<R: Read, S: Disk, W: Disk, K: Keep>(
    bundle: &mut Approved<R>,
    room: Room<'_, S, W, K>,
    before: Working,
    progress: &mut dyn FnMut(Progress),
) -> Result<State, InstallError> {
    let (running, target) = (room.running, room.running.other());
    let mut state = room.state;
    if state.pending.as_ref().is_some_and(|p| p.target == running) {
        return Err(InstallError::Unconfirmed { slot: running });
    }
    let needed = bundle.manifest().slot_bytes;
    let there = room.slot.bytes().map_err(|source| InstallError::Disk {
        doing: "read",
        slot: target,
        source,
    })?;
    if needed > there {
        return Err(InstallError::TooLarge {
            slot: target,
            needed,
            there,
        });
    }

    state.pending = None;
    state.writing = Some(target);
    room.keep.save(&state)?;
    let choice = choice::read(room.whole, room.format)?.choice;
    let choice = choice
        .with_first(running)
        .with_tries(running, MAX_TRIES)
        .with_tries(target, 0);
    choice::write(room.whole, room.format, choice)?;

    write_slot(bundle, target, room.slot, progress)?;

    state.writing = None;
    state.pending = Some(Pending {
        target,
        release: Release::of(bundle.manifest(), bundle.approval()),
        before,
        charged_s: 0,
        rounds: 0,
        phase: Phase::Trying,
    });
    room.keep.save(&state)?;
    let choice = choice.with_first(target).with_tries(target, MAX_TRIES);
    choice::write(room.whole, room.format, choice)?;
    Ok(state)
}

/// Steps 3 to 5.
fn write_slot<R: Read>(
    bundle: &mut Approved<R>,
    slot: Slot,
    disk: &mut impl Disk,
    progress: &mut dyn FnMut(Progress),
) -> Result<(), InstallError> {
    let io = |doing: &'static str| {
        move |source| InstallError::Disk {
            doing,
            slot,
            source,
        }
    };
    let manifest = bundle.manifest().clone();
    let first_bytes = FIRST_BYTES.min(manifest.piece_bytes(0));
    let mut first = Vec::new();
    let (mut piece, mut found) = (Vec::new(), Vec::new());
    let mut tell = |step, at: usize| {
        let done = manifest.piece_bytes(at) as u64 + place(at);
        progress(Progress {
            step,
            done_bytes: done,
            of_bytes: manifest.slot_bytes,
        });
    };
    while let Some(at) = bundle.pieces().next_piece(&mut piece)? {
        if at == 0 {
            // Not before there is something to put in its place.
            disk.write_at(0, &vec![0; first_bytes])
                .and_then(|()| disk.sync())
                .map_err(io("write"))?;
            first.extend_from_slice(&piece[..first_bytes]);
            piece[..first_bytes].fill(0);
        }
        found.resize(piece.len(), 0);
        disk.read_at(place(at), &mut found).map_err(io("read"))?;
        let is_there = found == piece;
        if !is_there {
            disk.write_at(place(at), &piece).map_err(io("write"))?;
        }
        tell(if is_there { Step::Kept } else { Step::Writing }, at);
    }
    disk.sync().map_err(io("write"))?;
    for at in 0..manifest.frames.len() {
        check(&manifest, slot, disk, at, &first)?;
        tell(Step::Checking, at);
    }
    disk.write_at(0, &first)
        .and_then(|()| disk.sync())
        .map_err(io("write"))?;
    check(&manifest, slot, disk, 0, &[])
}

/// Reads a piece back; `first` are bytes that aren't on the disk yet.
fn check(
    manifest: &Manifest,
    slot: Slot,
    disk: &mut impl Disk,
    at: usize,
    first: &[u8],
) -> Result<(), InstallError> {
    let mut found = vec![0; manifest.piece_bytes(at)];
    disk.read_at(place(at), &mut found)
        .map_err(|source| InstallError::Disk {
            doing: "read",
            slot,
            source,
        })?;
    if at == 0 {
        found[..first.len()].copy_from_slice(first);
    }
    let hash: [u8; 32] = Hasher::digest(&found).into();
    match hash == manifest.frames[at].plain {
        true => Ok(()),
        false => Err(InstallError::ReadBack { slot, at }),
    }
}

const fn place(at: usize) -> u64 {
    at as u64 * crate::manifest::PIECE_BYTES as u64
}

#[cfg(test)]
mod tests;
