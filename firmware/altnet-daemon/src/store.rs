//! The state directory: named slots of bytes that survive a power cut.
//!
//! In: a slot's name and its bytes. Out: the bytes of the last [`Store::save`] that returned,
//! or of one that was under way when the power went; never a mixture and never half of one.
//!
//! A slot is one file. It is written beside its old version, synced, renamed over it, and the
//! directory is synced before the save returns, so whoever acknowledges after a save never
//! acknowledges what could still be lost. Each file is framed:
//!
//! ```text
//!  0      4         5         8            12                  28
//! +------+---------+---------+------------+-------------------+------------+
//! | ALTS | version | 0, 0, 0 | length, LE | BLAKE2s, 16 bytes | the bytes  |
//! +------+---------+---------+------------+-------------------+------------+
//! ```
//! The checksum covers the slot's name too, so a file under another name is damage. It guards
//! against flash, not against people: records carry their own signatures.
//!
//! The store does not know what the slots hold, keeps no versions, and never deletes what it
//! can't read.

use std::io;

use altnet_wire::hash;
use zeroize::Zeroizing;

pub mod directory;
#[cfg(test)]
mod pretend;
pub mod writer;

/// The largest slot, in bytes.
pub const MAX_SLOT_BYTES: usize = 1 << 20;
/// The longest slot name, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

const MAGIC: [u8; 4] = *b"ALTS";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 1 + 3 + 4 + CHECKSUM_BYTES;
const SLOT_SUFFIX: &str = ".slot";
const NEW_SUFFIX: &str = ".new";

/// The few things the store needs from one flat directory of a filesystem.
pub trait Vfs {
    /// The whole content of the file `name`; at most `limit` bytes of it.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>>;
    /// Makes the file `name`, or empties it, and writes `bytes` into it; nothing is synced.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Waits until the content of `name` is on the medium.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Renames `from` to `to`, replacing it, in one step.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes the file `name`.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if there is none.
    fn remove(&mut self, name: &str) -> io::Result<()>;
    /// Waits until the names in the directory are on the medium.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    fn sync_names(&mut self) -> io::Result<()>;
    /// The names of the files in the directory, in any order.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    fn list(&self) -> io::Result<Vec<String>>;
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A slot's file does not read as it was written. It was left as it is.
    #[error("the stored {slot} is damaged ({reason}); restore it from a backup or remove its file")]
    Damaged {
        /// The slot.
        slot: String,
        /// What is wrong with its file.
        reason: &'static str,
    },
    /// A slot's file was written by a newer altnet. It was left as it is.
    #[error("the stored {slot} has format {found}, newer than {VERSION}; use the newer altnet")]
    TooNew {
        /// The slot.
        slot: String,
        /// The format's version.
        found: u8,
    },
    /// Not a slot's name: 1 to [`MAX_NAME_BYTES`] of `a-z`, `0-9` and `-`.
    #[error("{name:?} can't be the name of a slot")]
    BadName {
        /// What was given.
        name: String,
    },
    /// More bytes than a slot holds. Nothing was changed.
    #[error("{slot} has {found} bytes; a slot holds {MAX_SLOT_BYTES}")]
    TooLarge {
        /// The slot.
        slot: String,
        /// The bytes that were given.
        found: usize,
    },
    /// The filesystem refused. After a failed save the slot holds its old or its new version.
    #[error("can't {action} {slot} in the state directory")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The slot, or nothing for the directory itself.
        slot: String,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
}

/// What a directory held when it was opened.
#[derive(Debug, Default)]
pub struct Contents {
    /// The names of all slots, in order.
    pub slots: Vec<String>,
    /// Slots that can't be read, and why.
    pub unreadable: Vec<StoreError>,
}

/// Named slots over one directory.
#[derive(Debug)]
pub struct Store<V> {
    vfs: V,
}

impl<V: Vfs> Store<V> {
    /// Opens the store in `vfs` and clears away saves that a power cut left unfinished.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory can't be listed.
    pub fn open(mut vfs: V) -> Result<Self, StoreError> {
        for name in list(&vfs)? {
            if name.ends_with(NEW_SUFFIX) {
                // Harmless when it stays: the next save of the slot empties it.
                let _ = vfs.remove(&name);
            }
        }
        Ok(Self { vfs })
    }

    /// The bytes of `slot`, or nothing if it was never saved or was removed.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::TooNew`], [`StoreError::BadName`], [`StoreError::Io`].
    pub fn load(&self, slot: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let name = file_name(slot)?;
        match self.vfs.read(&name, HEADER_BYTES + MAX_SLOT_BYTES + 1) {
            Ok(file) => unframe(slot, Zeroizing::new(file)).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed("read", slot)(e)),
        }
    }

    /// Makes `bytes` what `slot` holds. When it returns `Ok` a power cut can't take it back.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`], [`StoreError::BadName`]; [`StoreError::Io`], after which the
    /// slot holds its old version, or its new one if only the last sync failed.
    pub fn save(&mut self, slot: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let name = file_name(slot)?;
        let new = format!("{slot}{NEW_SUFFIX}");
        let file = frame(slot, bytes)?;
        let written = self
            .vfs
            .write(&new, &file)
            .and_then(|()| self.vfs.sync(&new));
        if let Err(e) = written {
            // A full disk gets its room back; a failing one can't be helped.
            let _ = self.vfs.remove(&new);
            return Err(failed("write", slot)(e));
        }
        self.vfs
            .rename(&new, &name)
            .and_then(|()| self.vfs.sync_names())
            .map_err(failed("save", slot))
    }

    /// Empties every slot, `last` as the last.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was emptied until then stays so.
    pub fn clear(&mut self, last: &str) -> Result<(), StoreError> {
        let mut slots = self.slots()?;
        slots.sort_by_key(|slot| slot == last);
        slots.iter().try_for_each(|slot| self.remove(slot))
    }

    /// Empties `slot`. When it returns `Ok` a power cut can't bring it back. Removing a slot
    /// that is empty is no error.
    ///
    /// # Errors
    /// [`StoreError::BadName`], [`StoreError::Io`].
    pub fn remove(&mut self, slot: &str) -> Result<(), StoreError> {
        match self.vfs.remove(&file_name(slot)?) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(failed("remove", slot))?,
        }
        self.vfs.sync_names().map_err(failed("remove", slot))
    }

    /// The names of the slots that hold something, in order.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory can't be listed.
    pub fn slots(&self) -> Result<Vec<String>, StoreError> {
        let mut slots: Vec<String> = list(&self.vfs)?
            .iter()
            .filter_map(|name| name.strip_suffix(SLOT_SUFFIX))
            .filter(|slot| file_name(slot).is_ok())
            .map(str::to_owned)
            .collect();
        slots.sort_unstable();
        Ok(slots)
    }

    /// Reads every slot once and reports those that can't be read.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the directory can't be listed.
    pub fn examine(&self) -> Result<Contents, StoreError> {
        let mut contents = Contents::default();
        for slot in self.slots()? {
            match self.load(&slot) {
                Ok(_) => contents.slots.push(slot),
                Err(e) => contents.unreadable.push(e),
            }
        }
        Ok(contents)
    }
}

fn list(vfs: &impl Vfs) -> Result<Vec<String>, StoreError> {
    vfs.list().map_err(failed("list", "files"))
}

fn failed(action: &'static str, slot: &str) -> impl FnOnce(io::Error) -> StoreError {
    let slot = slot.to_owned();
    move |source| StoreError::Io {
        action,
        slot,
        source,
    }
}

fn file_name(slot: &str) -> Result<String, StoreError> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if slot.is_empty() || slot.len() > MAX_NAME_BYTES || !slot.bytes().all(good) {
        return Err(StoreError::BadName { name: slot.into() });
    }
    Ok(format!("{slot}{SLOT_SUFFIX}"))
}

fn checksum(slot: &str, bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let name_len = [slot.len() as u8];
    let hash = hash::labelled("altnet store v1", &[&name_len, slot.as_bytes(), bytes]);
    let mut checksum = [0; CHECKSUM_BYTES];
    checksum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    checksum
}

fn frame(slot: &str, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let too_large = || StoreError::TooLarge {
        slot: slot.into(),
        found: bytes.len(),
    };
    let len = u32::try_from(bytes.len()).map_err(|_| too_large())?;
    if bytes.len() > MAX_SLOT_BYTES {
        return Err(too_large());
    }
    let mut file = Zeroizing::new(Vec::with_capacity(HEADER_BYTES + bytes.len()));
    file.extend_from_slice(&MAGIC);
    file.extend_from_slice(&[VERSION, 0, 0, 0]);
    file.extend_from_slice(&len.to_le_bytes());
    file.extend_from_slice(&checksum(slot, bytes));
    file.extend_from_slice(bytes);
    Ok(file)
}

fn unframe(slot: &str, mut file: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let damaged = |reason| StoreError::Damaged {
        slot: slot.into(),
        reason,
    };
    let (header, bytes) = file
        .split_at_checked(HEADER_BYTES)
        .ok_or_else(|| damaged("too short"))?;
    if header[..4] != MAGIC {
        return Err(damaged("not a slot's file"));
    }
    match header[4] {
        VERSION => {}
        0 => return Err(damaged("no version")),
        found => {
            return Err(StoreError::TooNew {
                slot: slot.into(),
                found,
            });
        }
    }
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    if header[5..8] != [0; 3] || usize::try_from(length) != Ok(bytes.len()) {
        return Err(damaged("wrong length"));
    }
    if header[12..] != checksum(slot, bytes) {
        return Err(damaged("wrong checksum"));
    }
    file.drain(..HEADER_BYTES);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::pretend::Pretend;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const SLOTS: [&str; 3] = ["identity", "tai-0a", "record-3-x"];

    fn read<V: Vfs>(store: &Store<V>, slot: &str) -> Option<Vec<u8>> {
        store.load(slot).unwrap().map(|bytes| bytes.to_vec())
    }

    #[test]
    fn a_slot_holds_what_was_saved_last() {
        let mut store = Store::open(Pretend::default()).unwrap();
        assert_eq!(read(&store, "identity"), None);
        store.save("identity", b"one").unwrap();
        store.save("identity", b"two").unwrap();
        store.save("a", b"").unwrap();
        assert_eq!(read(&store, "identity"), Some(b"two".to_vec()));
        assert_eq!(store.slots().unwrap(), ["a", "identity"]);
        store.remove("identity").unwrap();
        store.remove("identity").unwrap();
        assert_eq!(read(&store, "identity"), None);
    }

    #[test]
    fn a_name_can_not_leave_the_directory() {
        let mut store = Store::open(Pretend::default()).unwrap();
        for name in ["", "../x", "a/b", "A", "a.slot", &"x".repeat(129)] {
            assert!(matches!(
                store.save(name, b""),
                Err(StoreError::BadName { .. })
            ));
        }
        let large = vec![0; MAX_SLOT_BYTES + 1];
        assert!(matches!(
            store.save("a", &large),
            Err(StoreError::TooLarge { .. })
        ));
    }

    #[test]
    fn a_file_under_another_name_is_damage() {
        let mut vfs = Pretend::default();
        vfs.write("a.slot", &frame("b", b"x").unwrap()).unwrap();
        let store = Store::open(vfs).unwrap();
        assert!(matches!(store.load("a"), Err(StoreError::Damaged { .. })));
        assert_eq!(store.examine().unwrap().unreadable.len(), 1);
    }

    #[test]
    fn a_newer_format_is_left_alone() {
        let mut file = frame("a", b"x").unwrap();
        file[4] = 2;
        assert!(matches!(
            unframe("a", file),
            Err(StoreError::TooNew { found: 2, .. })
        ));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Save(usize, Vec<u8>),
        Remove(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let bytes = proptest::collection::vec(any::<u8>(), 0..600);
        let step = prop_oneof![
            4 => (0..SLOTS.len(), bytes).prop_map(|(slot, bytes)| Step::Save(slot, bytes)),
            1 => (0..SLOTS.len()).prop_map(Step::Remove),
        ];
        proptest::collection::vec(step, 1..8)
    }

    /// Runs `steps` until the power goes at operation `cut`; then checks every slot.
    fn cut_once(steps: &[Step], cut: usize, seed: u64) -> bool {
        let mut store = Store::open(Pretend::default()).unwrap();
        store.vfs.cut_at(cut);
        let mut sure: BTreeMap<usize, Option<Vec<u8>>> = BTreeMap::new();
        let mut maybe: Option<(usize, Option<Vec<u8>>)> = None;
        for step in steps {
            let (slot, bytes, result) = match step {
                Step::Save(slot, bytes) => {
                    let result = store.save(SLOTS[*slot], bytes);
                    (*slot, Some(bytes.clone()), result)
                }
                Step::Remove(slot) => (*slot, None, store.remove(SLOTS[*slot])),
            };
            if result.is_err() {
                maybe = Some((slot, bytes));
                break;
            }
            sure.insert(slot, bytes);
        }
        let happened = store.vfs.has_no_power();
        let store = Store::open(store.vfs.after_power_cut(seed)).unwrap();
        for (i, slot) in SLOTS.iter().enumerate() {
            let found = read(&store, slot);
            let old = sure.get(&i).cloned().flatten();
            let new = maybe.as_ref().filter(|(slot, _)| *slot == i);
            assert!(
                found == old || new.is_some_and(|(_, new)| found == *new),
                "{slot} after a cut at {cut}"
            );
        }
        happened
    }

    proptest! {
        #[test]
        fn a_power_cut_leaves_the_old_or_the_new_version(steps in steps(), seed: u64) {
            let mut cut = 0;
            while cut_once(&steps, cut, seed.wrapping_add(cut as u64)) {
                cut += 1;
            }
        }

        #[test]
        fn a_damaged_file_is_reported(bytes: Vec<u8>, at: usize, flip in 1u8..) {
            let mut file = frame("a", &bytes).unwrap();
            let at = at % file.len();
            file[at] ^= flip;
            prop_assert!(unframe("a", file).is_err());
        }

        #[test]
        fn no_file_makes_the_store_panic(file: Vec<u8>, tear: usize, bytes: Vec<u8>) {
            prop_assert!(unframe("a", Zeroizing::new(file)).is_err());
            let mut whole = frame("a", &bytes).unwrap();
            let kept = tear % whole.len();
            whole.truncate(kept);
            prop_assert!(unframe("a", whole).is_err());
        }
    }
}
