//! How much memory an installation takes, whatever the slot's size.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;

use altnet_update::appliance::Calendar;
use altnet_update::make;
use altnet_update::manifest::Manifest;
use altnet_update::state::Working;
use altnet_wire::time::UnixTime;
use common::{House, NOW, sign};

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

impl Counting {
    fn add(bytes: isize) {
        let _ = HELD.try_with(|held| {
            held.set(held.get() + bytes);
            let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
        });
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting touches only thread-local
// numbers that need no allocation. What grows in place goes through both, by the trait's default.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::add(layout.size() as isize);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::add(-(layout.size() as isize));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a 128 MB box can spare while it serves the house.
const MOST_BYTES: isize = 8 << 20;

#[test]
fn a_large_slot_takes_no_more_memory_than_a_small_one() {
    let mut held = Vec::new();
    for mebibytes in [3, 24] {
        let house = House::new("u-boot");
        let (_, appliance) = house.boot();
        // Something that compresses, and something that doesn't.
        let mut slot = vec![0; mebibytes << 20];
        let mut word = 1_u64;
        for chunk in slot.chunks_mut(8).take(200_000) {
            word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chunk.copy_from_slice(&word.to_be_bytes());
        }
        house.put("dev/altnet/slot-b", &vec![0; slot.len()]);
        let bundle = bundle_of(&slot);
        let file = house.put("bundle", &bundle);
        drop(bundle);
        let before = HELD.get();
        MOST.set(before);
        let calendar = Calendar {
            now: Some(NOW),
            floor: UnixTime::EPOCH,
        };
        let works = Working::default();
        let installed = appliance.install(&file, calendar, works, &mut |_| ());
        held.push(MOST.get() - before);
        installed.unwrap();
        assert!(fs::read(house.path("dev/altnet/slot-b")).unwrap() == slot);
    }
    println!("{held:?} bytes at most");
    assert!(held[1] < MOST_BYTES, "{held:?}");
    assert!(held[1] < held[0] + (64 << 10), "{held:?}");
}

fn bundle_of(slot: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let (frames, slot_bytes) = make::pack(slot, &mut packed).unwrap();
    let label = |text: &str| text.parse().unwrap();
    let manifest = Manifest {
        product: label("altnet"),
        board: label("rpi"),
        version: label("0.2.0"),
        counter: 2,
        floor: 2,
        made: NOW,
        not_after: UnixTime::NEVER,
        keys: None,
        slot_bytes,
        frames,
    };
    let bytes = manifest.encode().unwrap();
    let signed = vec![sign(1, &bytes), sign(2, &bytes)];
    let mut bundle = make::head(&bytes, signed).unwrap();
    bundle.extend_from_slice(&packed);
    bundle
}
