//! Disks that lose power: what wasn't synced is there, in part or not, and a sector may be torn.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use super::Disk;

/// What a disk writes at once.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What all disks of a box share: the moment at which the power goes.
#[derive(Clone)]
pub(crate) struct World(Rc<RefCell<Shared>>);

struct Shared {
    chance: u64,
    writes: u64,
    /// How many more sectors are written before the power goes.
    left: Option<u64>,
    disks: Vec<Rc<RefCell<Platter>>>,
}

struct Platter {
    bytes: Vec<u8>,
    /// Sectors as they were at the last sync, of those that were written since.
    before: BTreeMap<usize, Vec<u8>>,
}

/// One disk.
#[derive(Clone)]
pub(crate) struct ModelDisk {
    world: World,
    platter: Rc<RefCell<Platter>>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            writes: 0,
            left: None,
            disks: Vec::new(),
        })))
    }

    pub(crate) fn disk(&mut self, bytes: usize) -> ModelDisk {
        let platter = Rc::new(RefCell::new(Platter {
            bytes: vec![0; bytes],
            before: BTreeMap::new(),
        }));
        self.0.borrow_mut().disks.push(Rc::clone(&platter));
        let world = self.clone();
        ModelDisk { world, platter }
    }

    /// How many writes there were.
    pub(crate) fn writes(&self) -> u64 {
        self.0.borrow().writes
    }

    /// Lets the power go during the write after `writes` more.
    pub(crate) fn cut_after(&self, writes: u64) {
        self.0.borrow_mut().left = Some(writes + 1);
    }

    pub(crate) fn is_dark(&self) -> bool {
        self.0.borrow().left == Some(0)
    }

    /// The power is back: each sector that was not synced is new, old or torn.
    pub(crate) fn power_on(&self) {
        self.0.borrow_mut().left = None;
        let disks = self.0.borrow().disks.clone();
        for platter in disks {
            let before = std::mem::take(&mut platter.borrow_mut().before);
            for (at, old) in before {
                let mut platter = platter.borrow_mut();
                let now = &mut platter.bytes[at..at + old.len()];
                match self.chance() % 8 {
                    0..4 => now.copy_from_slice(&old),
                    4 => {
                        let torn = self.chance() as usize % old.len();
                        now[torn..].copy_from_slice(&old[torn..]);
                    }
                    _ => {}
                }
            }
        }
    }

    fn chance(&self) -> u64 {
        // Marsaglia's xorshift.
        let mut shared = self.0.borrow_mut();
        let mut x = shared.chance;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        shared.chance = x;
        x >> 11
    }

    /// A write of something that is there whole or not at all.
    pub(crate) fn whole_write(&self, put: impl FnOnce()) -> io::Result<()> {
        match self.step() {
            Ok(()) => put(),
            Err(is_now) => {
                if is_now && self.chance() & 1 == 0 {
                    put();
                }
                return Err(dark());
            }
        }
        Ok(())
    }

    /// Counts a write; false if the power is gone or goes now.
    fn step(&self) -> Result<(), bool> {
        let mut shared = self.0.borrow_mut();
        match &mut shared.left {
            Some(0) => return Err(false),
            Some(left) => {
                *left -= 1;
                if *left == 0 {
                    return Err(true);
                }
            }
            None => {}
        }
        shared.writes += 1;
        Ok(())
    }
}

fn dark() -> io::Error {
    io::Error::other("the power is gone")
}

impl ModelDisk {
    /// All of it.
    pub(crate) fn contents(&self) -> Vec<u8> {
        self.platter.borrow().bytes.clone()
    }

    /// Puts something there before the story begins.
    pub(crate) fn fill(&mut self, bytes: &[u8]) {
        self.platter.borrow_mut().bytes[..bytes.len()].copy_from_slice(bytes);
    }

    fn put(&self, at: usize, bytes: &[u8]) {
        let mut platter = self.platter.borrow_mut();
        let mut from = at / SECTOR_BYTES * SECTOR_BYTES;
        while from < at + bytes.len() {
            let to = (from + SECTOR_BYTES).min(platter.bytes.len());
            let old = platter.bytes[from..to].to_vec();
            platter.before.entry(from).or_insert(old);
            from = to;
        }
        platter.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Disk for ModelDisk {
    fn bytes(&mut self) -> io::Result<u64> {
        Ok(self.platter.borrow().bytes.len() as u64)
    }

    fn read_at(&mut self, at: u64, out: &mut [u8]) -> io::Result<()> {
        if self.world.is_dark() {
            return Err(dark());
        }
        let platter = self.platter.borrow();
        let found = platter.bytes.get(at as usize..at as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at as usize + bytes.len() > self.platter.borrow().bytes.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        match self.world.step() {
            Ok(()) => self.put(at as usize, bytes),
            // The write during which it goes is under way.
            Err(true) => {
                self.put(at as usize, bytes);
                return Err(dark());
            }
            Err(false) => return Err(dark()),
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.world.is_dark() {
            return Err(dark());
        }
        self.platter.borrow_mut().before.clear();
        Ok(())
    }
}
