//! Installations on disks that lose power, and the boot loader's rules on what is left.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use altnet_wire::time::UnixTime;
use proptest::prelude::*;

use super::*;
use crate::bundle::Opened;
use crate::choice::{Choice, PLACES};
use crate::disk::testing::{ModelDisk, World};
use crate::keys::Trust;
use crate::testing::{bundle, set, slot};
use crate::verdict::Here;

const SLOT_BYTES: usize = (1 << 20) + 70_000;
const BEFORE: Working = Working {
    wan: true,
    dns: true,
    private: true,
    lan: true,
};

#[derive(Clone)]
struct Kept {
    world: World,
    state: Rc<RefCell<State>>,
    is_full: bool,
}

impl Keep for Kept {
    fn save(&mut self, state: &State) -> Result<(), StateError> {
        let failed = |source| StateError::Io {
            doing: "write",
            path: PathBuf::from("update.state"),
            source,
        };
        if self.is_full {
            return Err(failed(io::ErrorKind::StorageFull.into()));
        }
        let put = || *self.state.borrow_mut() = state.clone();
        self.world.whole_write(put).map_err(failed)
    }
}

/// A box: two slots, each with a system in it, and A runs.
struct House {
    world: World,
    whole: ModelDisk,
    slots: [ModelDisk; 2],
    keep: Kept,
    format: Format,
    /// Systems that are whole.
    systems: Vec<Vec<u8>>,
}

impl House {
    fn new(seed: u64, format: Format) -> Self {
        let mut world = World::new(seed);
        let whole = world.disk(9 << 20);
        let mut slots = [world.disk(SLOT_BYTES), world.disk(SLOT_BYTES)];
        let systems = vec![slot(SLOT_BYTES, 1), slot(SLOT_BYTES, 2)];
        for (disk, system) in slots.iter_mut().zip(&systems) {
            disk.fill(system);
        }
        let keep = Kept {
            world: world.clone(),
            state: Rc::default(),
            is_full: false,
        };
        Self {
            world,
            whole,
            slots,
            keep,
            format,
            systems,
        }
    }

    fn install(&mut self, bundle: &[u8]) -> Result<State, InstallError> {
        let mut bundle = approved(bundle);
        let state = self.keep.state.borrow().clone();
        let room = Room {
            running: Slot::A,
            slot: &mut self.slots[1],
            whole: &mut self.whole,
            format: self.format,
            keep: &mut self.keep,
            state,
        };
        install(&mut bundle, room, BEFORE, &mut |_| ())
    }

    /// One try of the boot loader: the slot that came up, if one did.
    fn boot(&mut self) -> Option<Slot> {
        let standing = choice::read(&mut self.whole, self.format).ok()?;
        let (slot, counted) = standing.choice.begun();
        let (target, copy) = standing.next(counted);
        let bytes = self.format.write(&copy);
        self.whole.write_at(PLACES[target], &bytes).ok()?;
        self.whole.sync().ok()?;
        let contents = self.slots[slot as usize].contents();
        let boot_sectors = self.systems.iter().map(|system| &system[..FIRST_BYTES]);
        if !boot_sectors
            .into_iter()
            .any(|sector| sector == &contents[..FIRST_BYTES])
        {
            return None;
        }
        // What can be loaded must be whole.
        let is_whole = self
            .systems
            .iter()
            .any(|system| contents.starts_with(system));
        assert!(is_whole, "slot {slot} is loaded and is no system");
        Some(slot)
    }

    /// Boots until a slot comes up.
    fn boot_up(&mut self) -> Slot {
        let tries = (0..8).find_map(|_| self.boot());
        tries.expect("a slot that works")
    }
}

fn approved(bundle: &[u8]) -> Approved<&[u8]> {
    let trust = Trust::new(Some(set(1, 2, &[1, 2])), None, None);
    let here = Here {
        product: &"altnet".parse().unwrap(),
        board: &"test".parse().unwrap(),
        floor: 0,
        now: None,
        validity_floor: UnixTime::EPOCH,
        trust: &trust,
    };
    Opened::read(bundle).unwrap().approve(&here).unwrap()
}

/// How many writes a whole installation makes.
fn writes_of(bundle: &[u8], format: Format) -> u64 {
    let mut house = House::new(1, format);
    house.install(bundle).unwrap();
    house.world.writes()
}

#[test]
fn a_bundle_is_installed_and_booted() {
    for format in [Format::UBoot, Format::Grub] {
        let new = slot(SLOT_BYTES - 100_000, 3);
        let mut house = House::new(1, format);
        house.systems.push(new.clone());
        let state = house.install(&bundle(&new, &[1, 2])).unwrap();
        assert_eq!(*house.keep.state.borrow(), state);
        let pending = state.pending.unwrap();
        assert_eq!((pending.target, pending.before), (Slot::B, BEFORE));
        assert_eq!(house.boot_up(), Slot::B);
        // Three boots that nobody confirms, and A is back.
        assert_eq!(house.boot_up(), Slot::B);
        assert_eq!(house.boot_up(), Slot::B);
        assert_eq!(house.boot_up(), Slot::A);
    }
}

#[test]
fn after_a_cut_during_any_write_a_slot_works_and_the_installation_can_be_repeated() {
    let new = slot(SLOT_BYTES, 3);
    let bundle = bundle(&new, &[1, 2]);
    let mut cuts = 0;
    for format in [Format::UBoot, Format::Grub] {
        let writes = writes_of(&bundle, format);
        assert_eq!(writes, 8);
        for cut in 0..writes {
            for seed in 0..4 {
                let mut house = House::new(seed * 1000 + cut, format);
                house.systems.push(new.clone());
                house.world.cut_after(cut);
                house.install(&bundle).unwrap_err();
                house.world.power_on();
                cuts += 1;
                // The boot loader's own write is cut too, and half of the boots.
                if seed % 2 == 1 {
                    house.world.cut_after(0);
                    assert_eq!(house.boot(), None);
                    house.world.power_on();
                }
                let up = house.boot_up();
                assert!(up == Slot::A || cut == writes - 1, "write {cut}: {up}");
                if up == Slot::A {
                    house.install(&bundle).unwrap();
                    assert_eq!(house.boot_up(), Slot::B);
                }
            }
        }
    }
    assert_eq!(cuts, 64);
}

#[test]
fn a_half_written_slot_is_not_booted_even_when_all_tries_are_used_up() {
    let new = slot(SLOT_BYTES, 3);
    let bundle = bundle(&new, &[1, 2]);
    for cut in 2..6 {
        for seed in 0..6 {
            let mut house = House::new(seed * 1000 + cut, Format::UBoot);
            house.systems.push(new.clone());
            house.world.cut_after(cut);
            house.install(&bundle).unwrap_err();
            house.world.power_on();
            // Power cuts before user space gives tries back: the loader tries everything once more. Each
            // time it is looked at whether what it loads is whole.
            let begun: Vec<_> = (0..20).map(|_| house.boot()).collect();
            assert!(begun.contains(&Some(Slot::A)));
            // The first sector is there or gone, and the rest is as it was; later, all is there.
            let is_half = (3..5).contains(&cut);
            assert!(!is_half || !begun.contains(&Some(Slot::B)), "write {cut}");
        }
    }
}

#[test]
fn pieces_that_are_there_already_are_not_written_again() {
    let new = slot(SLOT_BYTES, 3);
    let bundle = bundle(&new, &[1, 2]);
    let mut house = House::new(1, Format::Grub);
    house.install(&bundle).unwrap();
    let before = house.world.writes();
    // Another installation over the same, as after a cut in its last step.
    house.keep.state.borrow_mut().pending = None;
    house.install(&bundle).unwrap();
    let again = house.world.writes() - before;
    // Two states, two choices, and the first sector twice.
    assert_eq!(again, 6);
}

#[test]
fn what_has_no_room_is_refused_before_anything_is_written() {
    let mut house = House::new(1, Format::UBoot);
    let large = bundle(&slot(SLOT_BYTES + 1, 3), &[1, 2]);
    let refused = house.install(&large).unwrap_err();
    let expected = "slot B has room for 1118576";
    assert!(refused.to_string().contains(expected), "{refused}");
    house.keep.is_full = true;
    let fits = bundle(&slot(SLOT_BYTES, 3), &[1, 2]);
    assert!(matches!(house.install(&fits), Err(InstallError::State(_))));
    assert_eq!(house.world.writes(), 0);
    assert_eq!(house.boot_up(), Slot::A);
    assert_eq!(house.slots[1].contents(), house.systems[1]);
}

#[test]
fn the_way_back_is_not_overwritten_before_the_running_slot_is_confirmed() {
    let good = bundle(&slot(9000, 3), &[1, 2]);
    let mut house = House::new(1, Format::UBoot);
    let mut state = house.install(&good).unwrap();
    state.pending.as_mut().unwrap().target = Slot::A;
    *house.keep.state.borrow_mut() = state;
    let writes = house.world.writes();
    let refused = house.install(&good).unwrap_err();
    assert!(matches!(
        refused,
        InstallError::Unconfirmed { slot: Slot::A }
    ));
    assert_eq!(house.world.writes(), writes);
}

#[test]
fn a_bundle_that_breaks_off_leaves_the_running_slot_chosen() {
    let good = bundle(&slot(SLOT_BYTES, 3), &[1, 2]);
    for bad in [
        good[..good.len() - 1].to_vec(),
        [&good[..], b"x"].concat(),
        {
            let mut damaged = good.clone();
            let at = damaged.len() - 9;
            damaged[at] ^= 1;
            damaged
        },
    ] {
        let mut house = House::new(1, Format::Grub);
        let refused = house.install(&bad).unwrap_err();
        assert!(matches!(refused, InstallError::Bundle(_)), "{refused}");
        assert_eq!(house.keep.state.borrow().writing, Some(Slot::B));
        for _ in 0..9 {
            assert_eq!(house.boot_up(), Slot::A);
        }
    }
}

/// A disk that says that it wrote, and forgot.
struct Forgetful(ModelDisk);

impl Disk for Forgetful {
    fn bytes(&mut self) -> io::Result<u64> {
        self.0.bytes()
    }
    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(at, out)
    }
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut kept = bytes.to_vec();
        kept[bytes.len() / 2] ^= u8::from(at > 0);
        self.0.write_at(at, &kept)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
}

#[test]
fn a_disk_that_forgets_is_found_out_before_its_slot_is_chosen() {
    let mut world = World::new(1);
    let (mut whole, slot_b) = (world.disk(9 << 20), world.disk(SLOT_BYTES));
    let state = Rc::default();
    let bytes = bundle(&slot(SLOT_BYTES, 3), &[1, 2]);
    let mut bundle = approved(&bytes);
    let is_full = false;
    let room = Room {
        running: Slot::A,
        slot: &mut Forgetful(slot_b),
        whole: &mut whole,
        format: Format::UBoot,
        keep: &mut Kept {
            world,
            state,
            is_full,
        },
        state: State::default(),
    };
    let refused = install(&mut bundle, room, BEFORE, &mut |_| ()).unwrap_err();
    assert!(matches!(refused, InstallError::ReadBack { at: 1, .. }));
    let choice = choice::read(&mut whole, Format::UBoot).unwrap().choice;
    assert_eq!(choice, Choice::new(Slot::A, 3, 0));
}

#[test]
fn how_far_it_is_is_told_for_every_piece() {
    let image = slot(SLOT_BYTES, 3);
    let bytes = bundle(&image, &[1, 2]);
    let mut house = House::new(1, Format::UBoot);
    let mut bundle = approved(&bytes);
    let mut told = Vec::new();
    let room = Room {
        running: Slot::A,
        slot: &mut house.slots[1],
        whole: &mut house.whole,
        format: house.format,
        keep: &mut house.keep,
        state: State::default(),
    };
    install(&mut bundle, room, BEFORE, &mut |progress| {
        told.push(progress)
    })
    .unwrap();
    let done: Vec<u64> = told.iter().map(|progress| progress.done_bytes).collect();
    let pieces = [1 << 20, SLOT_BYTES as u64];
    assert_eq!(done, [pieces, pieces].concat());
    assert!(
        told.iter()
            .all(|progress| progress.of_bytes == SLOT_BYTES as u64)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Cuts during installations and boots, any number, one after the other.
    #[test]
    fn no_story_of_cuts_leaves_a_box_without_a_slot(
        seed: u64, is_grub: bool, cuts in prop::collection::vec((any::<bool>(), 0u64..12), 1..6),
    ) {
        let format = if is_grub { Format::Grub } else { Format::UBoot };
        let new = slot(SLOT_BYTES, 3);
        let bundle = bundle(&new, &[1, 2]);
        let mut house = House::new(seed, format);
        house.systems.push(new);
        for (is_boot, cut) in cuts {
            house.world.cut_after(cut);
            if is_boot {
                for _ in 0..=cut {
                    let _ = house.boot();
                }
            } else if house.install(&bundle).is_ok() {
                // B has it; from here on A would be overwritten, which is the same story.
                house.world.power_on();
                prop_assert_eq!(house.boot_up(), Slot::B);
                break;
            }
            house.world.power_on();
            let _ = house.boot_up();
            // User space is up and gives the try back.
            let choice = choice::read(&mut house.whole, format).unwrap().choice;
            if choice.first == Slot::B {
                break;
            }
            choice::write(&mut house.whole, format, choice.with_tries(Slot::A, MAX_TRIES)).unwrap();
        }
    }
}
