//! Which slot is booted: the choice that the boot loader and user space share.
//!
//! A choice is an order and how often each slot may still be begun. It lies outside of every
//! partition in two copies, each with a checksum and a serial: the newer good one counts, the older
//! one is written. The boot loader takes the first slot in the order that has tries left, and counts
//! the try before it loads anything. The bytes, the places and the rules are those of
//! `linux-image/boot/README.md`; the boot loaders' scripts follow the same page.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::disk::Disk;

pub mod format;

pub use format::Format;

/// How often a slot is begun before it is left.
pub const MAX_TRIES: u8 = 3;
/// Where the copies lie, in bytes of the whole disk: each in 4 MiB of its own, which is what a cheap
/// card erases at once.
pub const PLACES: [u64; 2] = [4 << 20, 8 << 20];

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The one that this isn't.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Reads `A` or `B`, as the kernel's command line and `/run/altnet/slot` have it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            _ => None,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What the boot loader goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which slot is asked first.
    pub first: Slot,
    /// How often A and B may still be begun, at most [`MAX_TRIES`].
    tries: [u8; 2],
}

impl Choice {
    /// What counts where no copy is good.
    pub const FRESH: Self = Self::new(Slot::A, MAX_TRIES, MAX_TRIES);

    /// A choice; more tries than [`MAX_TRIES`] are that many.
    pub const fn new(first: Slot, tries_a: u8, tries_b: u8) -> Self {
        const fn least(tries: u8) -> u8 {
            if tries < MAX_TRIES { tries } else { MAX_TRIES }
        }
        Self {
            first,
            tries: [least(tries_a), least(tries_b)],
        }
    }

    /// How often `slot` may still be begun.
    pub const fn tries(&self, slot: Slot) -> u8 {
        self.tries[slot as usize]
    }

    /// The same with other tries for `slot`.
    #[must_use]
    pub fn with_tries(mut self, slot: Slot, tries: u8) -> Self {
        self.tries[slot as usize] = tries.min(MAX_TRIES);
        self
    }

    /// The same with `slot` first.
    #[must_use]
    pub const fn with_first(mut self, slot: Slot) -> Self {
        self.first = slot;
        self
    }

    /// What the boot loader does: the slot that it begins, and the choice that it writes before.
    pub fn begun(self) -> (Slot, Self) {
        let order = [self.first, self.first.other()];
        let found = order.into_iter().find(|slot| self.tries(*slot) > 0);
        let (slot, choice) = match found {
            Some(slot) => (slot, self),
            None => (self.first, Self::new(self.first, MAX_TRIES, MAX_TRIES)),
        };
        (slot, choice.with_tries(slot, choice.tries(slot) - 1))
    }
}

/// A copy that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// What it says.
    pub choice: Choice,
    /// Its serial, 0 to 9.
    pub serial: u8,
}

/// What both copies come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The choice that counts.
    pub choice: Choice,
    /// Which copies are good.
    pub good: [bool; 2],
    serial: u8,
    /// The copy that the next write goes to.
    target: usize,
}

impl Standing {
    /// Judges two copies; `None` is one that isn't good.
    pub fn of(copies: [Option<Copied>; 2]) -> Self {
        let counts = match copies {
            [Some(first), Some(second)] => {
                let ahead = (second.serial + 10 - first.serial % 10) % 10;
                Some(usize::from((1..=4).contains(&ahead)))
            }
            [Some(_), None] => Some(0),
            [None, Some(_)] => Some(1),
            [None, None] => None,
        };
        let fresh = Copied {
            choice: Choice::FRESH,
            serial: 9,
        };
        let counted = counts.and_then(|at| copies[at]).unwrap_or(fresh);
        Self {
            choice: counted.choice,
            good: copies.map(|copy| copy.is_some()),
            serial: counted.serial,
            target: counts.map_or(0, |at| 1 - at),
        }
    }

    /// The copy to be written, 0 or 1, and what to write there, so that `choice` counts.
    pub const fn next(&self, choice: Choice) -> (usize, Copied) {
        let serial = (self.serial + 1) % 10;
        (self.target, Copied { choice, serial })
    }
}

/// Why a choice was not read or written. The copy that counted still counts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChoiceError {
    /// The disk failed.
    #[error("cannot {doing} the choice of slot: {source}")]
    Io {
        /// A verb: read, write.
        doing: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// What was written doesn't come back.
    #[error("the choice of slot was written and reads otherwise: the disk is failing")]
    ReadBack,
}

/// Reads both copies from the whole disk.
///
/// # Errors
/// [`ChoiceError::Io`]. Copies that aren't good are no error.
pub fn read(disk: &mut impl Disk, format: Format) -> Result<Standing, ChoiceError> {
    let mut copies = [None; 2];
    for (place, copy) in PLACES.into_iter().zip(&mut copies) {
        let mut bytes = vec![0; format.bytes()];
        disk.read_at(place, &mut bytes)
            .map_err(|source| ChoiceError::Io {
                doing: "read",
                source,
            })?;
        *copy = format.parse(&bytes);
    }
    Ok(Standing::of(copies))
}

/// Makes `choice` count, by one write of the copy that doesn't, and reads it back. Writes nothing if
/// it counts already and both copies are good.
///
/// # Errors
/// [`ChoiceError`].
pub fn write(disk: &mut impl Disk, format: Format, choice: Choice) -> Result<(), ChoiceError> {
    let failed = |source| ChoiceError::Io {
        doing: "write",
        source,
    };
    let standing = read(disk, format)?;
    if standing.choice == choice && standing.good == [true; 2] {
        return Ok(());
    }
    let (target, copy) = standing.next(choice);
    let bytes = format.write(&copy);
    disk.write_at(PLACES[target], &bytes).map_err(failed)?;
    disk.sync().map_err(failed)?;
    let found = read(disk, format)?;
    match found.choice == choice && found.good[target] {
        true => Ok(()),
        false => Err(ChoiceError::ReadBack),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::World;
    use proptest::prelude::*;

    fn copied(serial: u8, first: Slot) -> Option<Copied> {
        let choice = Choice::new(first, 1, 2);
        Some(Copied { choice, serial })
    }

    #[test]
    fn the_newer_good_copy_counts_and_the_other_is_written() {
        let judge = |a: Option<u8>, b: Option<u8>| {
            let first = a.and_then(|serial| copied(serial, Slot::A));
            let second = b.and_then(|serial| copied(serial, Slot::B));
            let standing = Standing::of([first, second]);
            let (target, next) = standing.next(Choice::FRESH);
            (standing.choice.first, target, next.serial)
        };
        assert_eq!(judge(Some(3), Some(2)), (Slot::A, 1, 4));
        assert_eq!(judge(Some(3), Some(4)), (Slot::B, 0, 5));
        assert_eq!(judge(Some(9), Some(0)), (Slot::B, 0, 1));
        assert_eq!(judge(Some(0), Some(9)), (Slot::A, 1, 1));
        assert_eq!(judge(Some(5), Some(5)), (Slot::A, 1, 6));
        assert_eq!(judge(Some(1), Some(5)), (Slot::B, 0, 6));
        assert_eq!(judge(Some(1), Some(6)), (Slot::A, 1, 2));
        assert_eq!(judge(Some(7), None), (Slot::A, 1, 8));
        assert_eq!(judge(None, Some(9)), (Slot::B, 0, 0));
        assert_eq!(judge(None, None), (Slot::A, 0, 0));
        assert_eq!(Standing::of([None, None]).choice, Choice::FRESH);
    }

    #[test]
    fn the_loader_takes_the_first_slot_with_tries_and_counts_it() {
        let begun = |first, a, b| {
            let (slot, after) = Choice::new(first, a, b).begun();
            (slot, after.first, after.tries)
        };
        assert_eq!(begun(Slot::A, 3, 3), (Slot::A, Slot::A, [2, 3]));
        assert_eq!(begun(Slot::A, 0, 3), (Slot::B, Slot::A, [0, 2]));
        assert_eq!(begun(Slot::B, 3, 1), (Slot::B, Slot::B, [3, 0]));
        assert_eq!(begun(Slot::B, 3, 0), (Slot::A, Slot::B, [2, 0]));
        assert_eq!(begun(Slot::B, 0, 0), (Slot::B, Slot::B, [3, 2]));
    }

    #[test]
    fn a_torn_copy_leaves_the_one_that_counted() {
        for format in [Format::UBoot, Format::Grub] {
            let mut world = World::new(1);
            let mut disk = world.disk(16 << 20);
            assert_eq!(read(&mut disk, format).unwrap().good, [false; 2]);
            let one = Choice::new(Slot::B, 3, 1);
            write(&mut disk, format, one).unwrap();
            let two = Choice::new(Slot::A, 0, 2);
            write(&mut disk, format, two).unwrap();
            assert_eq!(read(&mut disk, format).unwrap().choice, two);
            // The second write went to the second copy.
            disk.write_at(PLACES[1] + 9, &[0xff]).unwrap();
            let standing = read(&mut disk, format).unwrap();
            assert_eq!((standing.choice, standing.good), (one, [true, false]));
            disk.write_at(PLACES[0] + 40, &[0; 200]).unwrap();
            assert_eq!(read(&mut disk, format).unwrap().choice, Choice::FRESH);
        }
    }

    #[test]
    fn a_choice_that_counts_already_is_not_written_again() {
        let mut world = World::new(1);
        let mut disk = world.disk(16 << 20);
        for _ in 0..2 {
            write(&mut disk, Format::Grub, Choice::FRESH).unwrap();
        }
        // Once a copy each, so that both are good.
        assert_eq!(world.writes(), 2);
        write(&mut disk, Format::Grub, Choice::FRESH).unwrap();
        assert_eq!(world.writes(), 2);
    }

    proptest! {
        #[test]
        fn what_was_written_last_counts(
            steps in prop::collection::vec((any::<bool>(), 0u8..4, 0u8..4), 1..40), is_grub: bool,
        ) {
            let format = if is_grub { Format::Grub } else { Format::UBoot };
            let mut world = World::new(1);
            let mut disk = world.disk(16 << 20);
            for (is_b, a, b) in steps {
                let first = if is_b { Slot::B } else { Slot::A };
                let choice = Choice::new(first, a, b);
                write(&mut disk, format, choice).unwrap();
                prop_assert_eq!(read(&mut disk, format).unwrap().choice, choice);
            }
        }

        #[test]
        fn a_slot_that_never_comes_up_leaves_room_for_the_other(a in 0u8..4, b in 0u8..4, is_b: bool) {
            let first = if is_b { Slot::B } else { Slot::A };
            let mut choice = Choice::new(first, a, b);
            let mut begun = Vec::new();
            for _ in 0..7 {
                let (slot, next) = choice.begun();
                begun.push(slot);
                choice = next;
            }
            prop_assert!(begun.contains(&Slot::A) && begun.contains(&Slot::B));
        }
    }
}
