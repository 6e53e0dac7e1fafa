//! The folder: what the relay finds there, and what is this process's own.
//!
//! `certificate.pem` and challenges are PEM, and may be read by the relay's group. `account.state` and
//! `plan.state` are nobody else's, with a sum over what they hold. Every file is written beside itself, synced and renamed, so that whenever the
//! power goes the old one or the new one is there. A state that isn't as it was written is set aside as
//! `NAME.damaged` and said.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use altnet_relay::acme::Folder;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::privileges::User;

mod record;

const OWN_MODE: u32 = 0o600;
const SHARED_MODE: u32 = 0o640;
const OWN_FOLDER_MODE: u32 = 0o700;
/// What is made in it is the group's too.
const SHARED_FOLDER_MODE: u32 = 0o2750;
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// How long another process may hold the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_STEP: Duration = Duration::from_millis(100);

/// Why the folder can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The filesystem refused.
    #[error(
        "can't use {path}; is there room, and is the folder of the user that altnet-acme runs as? `altnet-acme run --user NAME` as root makes it so"
    )]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
    /// Others could read a key.
    #[error(
        "others can read the account's key in {path}: remove the file, and altnet-acme makes another account"
    )]
    Open {
        /// The file.
        path: PathBuf,
    },
    /// It has other things in it.
    #[error(
        "{path} isn't altnet-acme's: it holds {there}; name an empty folder, or one that isn't there"
    )]
    NotOurs {
        /// The folder.
        path: PathBuf,
        /// What is in it.
        there: PathBuf,
    },
    /// There is another process.
    #[error("another altnet-acme is asking right now; let it finish")]
    InUse,
    /// The name isn't one.
    #[error("{0:?} is no name that can be validated")]
    NoName(String),
}

/// The folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: Folder,
    is_shared: bool,
}

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A challenge's answer, there until this is dropped.
#[derive(Debug)]
pub struct Shown(PathBuf);

impl Drop for Shown {
    fn drop(&mut self) {
        // What is left nevertheless is cleared before the next attempt.
        let _ = fs::remove_file(&self.0);
    }
}

impl Store {
    /// Makes the folder if it is missing, for `owner`, and for the group that may read certificates.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open(path: &Path, owner: Option<&User>, group: Option<u32>) -> Result<Self, StoreError> {
        let failed = |source| io_error(path, source);
        DirBuilder::new()
            .recursive(true)
            .mode(OWN_FOLDER_MODE)
            .create(path)
            .map_err(failed)?;
        let found = fs::metadata(path).map_err(failed)?;
        let own = (found.uid(), found.gid());
        let wanted = (
            owner.map_or(own.0, |user| user.user),
            group.unwrap_or(own.1),
        );
        let mode = match group {
            Some(_) => SHARED_FOLDER_MODE,
            None => OWN_FOLDER_MODE,
        };
        if own != wanted || found.permissions().mode() & 0o7777 != mode {
            // A folder that was named by mistake stays whose it is.
            for entry in fs::read_dir(path).map_err(failed)? {
                let there = entry.map_err(failed)?.path();
                if !is_ours(&there) {
                    return Err(StoreError::NotOurs {
                        path: path.into(),
                        there,
                    });
                }
            }
            // The mode last: a change of owner takes a part of it away.
            std::os::unix::fs::lchown(path, Some(wanted.0), Some(wanted.1)).map_err(failed)?;
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
        }
        let store = Self::at(path)?;
        if owner.is_some() {
            store.give_files(wanted).map_err(failed)?;
        }
        Ok(store)
    }

    /// The folder as it is.
    ///
    /// # Errors
    /// [`StoreError::Io`] if there is none.
    pub fn at(path: &Path) -> Result<Self, StoreError> {
        let found = fs::metadata(path).map_err(|source| io_error(path, source))?;
        Ok(Self {
            folder: Folder::new(path),
            is_shared: found.permissions().mode() & 0o050 != 0,
        })
    }

    /// Whose it is.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn owner(&self) -> Result<User, StoreError> {
        let path = self.folder.path();
        let found = fs::metadata(path).map_err(|source| io_error(path, source))?;
        Ok(User {
            user: found.uid(),
            group: found.gid(),
        })
    }

    /// Gives the files to a user, before privileges are dropped.
    fn give_files(&self, (user, group): (u32, u32)) -> io::Result<()> {
        for entry in fs::read_dir(self.folder.path())? {
            let entry = entry?;
            let found = entry.metadata()?;
            if is_ours(&entry.path()) && found.is_file() && found.nlink() == 1 {
                std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?;
            }
        }
        Ok(())
    }

    /// Takes the lock under which an authority is asked.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it; [`StoreError::Io`].
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.path("asking.lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(OWN_MODE)
            .open(&path)
            .map_err(|source| io_error(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
            Err(TryLockError::Error(source)) => Err(io_error(&path, source)),
        }
    }

    /// Takes the lock, after whoever has it: a conversation with an authority takes seconds.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if it isn't let go within a minute; [`StoreError::Io`].
    pub fn wait_for_lock(&self) -> Result<Lock, StoreError> {
        let mut patience = LOCK_PATIENCE;
        loop {
            match self.lock() {
                Err(StoreError::InUse) if !patience.is_zero() => {
                    std::thread::sleep(LOCK_STEP);
                    patience = patience.saturating_sub(LOCK_STEP);
                }
                other => return other,
            }
        }
    }

    /// Reads the state of `kind`; nothing if there is none, or if it was damaged and is now set aside.
    ///
    /// # Errors
    /// [`StoreError::Open`] if others could read it; [`StoreError::Io`].
    pub fn load<T: DeserializeOwned>(&self, kind: &str) -> Result<Option<T>, StoreError> {
        let path = self.state(kind);
        let failed = |source| io_error(&path, source);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(StoreError::Open { path });
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(4 << 10));
        let read = file.take(MAX_FILE_BYTES).read_to_end(&mut bytes);
        read.map_err(failed)?;
        if let Some(value) = record::decode(kind, &bytes) {
            return Ok(Some(value));
        }
        let aside = path.with_extension("damaged");
        fs::rename(&path, &aside).map_err(failed)?;
        crate::error!(
            "{} is damaged and was set aside as {}; what it held is not known any more",
            path.display(),
            aside.display()
        );
        Ok(None)
    }

    /// Writes the state of `kind`. When this returns it is on the medium.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was there is there.
    pub fn save(&self, kind: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let path = self.state(kind);
        let json = serde_json::to_vec(value).map_err(|e| io_error(&path, e.into()))?;
        let json = Zeroizing::new(json);
        let text = record::encode(kind, &json);
        self.write(&path, &text, OWN_MODE)
    }

    /// Removes the state of `kind`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn forget(&self, kind: &str) -> Result<(), StoreError> {
        let path = self.state(kind);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error(&path, e)),
            _ => Ok(()),
        }
    }

    /// The certificate that the relay finds, with its key.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn certificate(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.folder.certificate();
        let mut text = Zeroizing::new(Vec::with_capacity(8 << 10));
        let read =
            File::open(&path).and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut text));
        match read {
            Ok(_) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(io_error(&path, source)),
        }
    }

    /// Puts a certificate with its key where the relay finds it.
    ///
    /// # Errors
    /// [`StoreError::Io`]; what was there is there.
    pub fn publish(&self, text: &[u8]) -> Result<(), StoreError> {
        self.write(&self.folder.certificate(), text, self.shared_mode())
    }

    /// Has the relay answer who validates `name`, until the answer is dropped.
    ///
    /// # Errors
    /// [`StoreError::NoName`]; [`StoreError::Io`].
    pub fn answer(&self, name: &str, text: &[u8]) -> Result<Shown, StoreError> {
        let path = self.folder.challenge(name);
        let path = path.ok_or_else(|| StoreError::NoName(name.chars().take(100).collect()))?;
        self.write(&path, text, self.shared_mode())?;
        Ok(Shown(path))
    }

    /// Removes answers that a process left that was killed.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn clear_answers(&self, _held: &Lock) -> Result<(), StoreError> {
        let path = self.folder.path();
        let failed = |source| io_error(path, source);
        for entry in fs::read_dir(path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if Folder::is_challenge(&path) {
                fs::remove_file(&path).map_err(|source| io_error(&path, source))?;
            }
        }
        Ok(())
    }

    const fn shared_mode(&self) -> u32 {
        match self.is_shared {
            true => SHARED_MODE,
            false => OWN_MODE,
        }
    }

    fn state(&self, kind: &str) -> PathBuf {
        self.path(&format!("{kind}.state"))
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), StoreError> {
        // One name for all: what an attempt leaves that was cut short the next one takes away.
        let new = self.path("next.new");
        let write = || {
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(OWN_MODE)
                .open(&new)?;
            file.write_all(bytes)?;
            // Whatever the umask is.
            file.set_permissions(Permissions::from_mode(mode))?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(self.folder.path())?.sync_all()
        };
        write().map_err(|source| io_error(path, source))
    }
}

/// Whether a file is of those that this module makes.
fn is_ours(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    let is_own = ["state", "new", "lock", "damaged", "pem"];
    Folder::is_challenge(path) || is_own.iter().any(|one| ending == *one)
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn files_are_nobody_elses_but_what_the_relays_group_may_read() {
        let home = tempfile::tempdir().unwrap();
        let own_group = User::own().group;
        for (group, folder, shared) in [(None, 0o700, 0o600), (Some(own_group), 0o2750, 0o640)] {
            let path = home.path().join("acme");
            let store = Store::open(&path, None, group).unwrap();
            store.save("account", &1).unwrap();
            store.publish(b"certificate").unwrap();
            let answer = store.answer("a.example", b"answer").unwrap();
            assert_eq!(mode(&path), folder);
            assert_eq!(mode(&path.join("account.state")), 0o600);
            assert_eq!(mode(&path.join("certificate.pem")), shared);
            assert_eq!(mode(&answer.0), shared);
            assert!(!path.join("next.new").exists());
            let there = answer.0.clone();
            drop(answer);
            assert!(!there.exists());
        }
    }

    #[test]
    fn a_folder_that_was_named_by_mistake_stays_as_it_is() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("etc");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("passwd"), "root").unwrap();
        let said = Store::open(&path, None, None).unwrap_err().to_string();
        assert!(said.contains("passwd"), "{said}");
        assert_eq!(mode(&path), 0o755);
    }

    #[test]
    fn a_damaged_state_is_set_aside_and_the_next_is_written_as_ever() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), None, None).unwrap();
        let path = home.path().join("plan.state");
        store.save("plan", &vec![1, 2, 3]).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(store.load::<Vec<u8>>("plan").unwrap(), None, "{at}");
            assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
            store.save("plan", &vec![4]).unwrap();
            assert_eq!(store.load("plan").unwrap(), Some(vec![4]));
        }
        // One kind isn't read as another.
        fs::rename(&path, home.path().join("account.state")).unwrap();
        assert_eq!(store.load::<Vec<u8>>("account").unwrap(), None);
    }

    #[test]
    fn a_state_that_others_can_read_is_refused_with_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), None, None).unwrap();
        store.save("account", &1).unwrap();
        let path = home.path().join("account.state");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let said = store.load::<u8>("account").unwrap_err().to_string();
        assert!(said.contains("remove the file"), "{said}");
    }

    #[test]
    fn a_write_that_is_cut_short_anywhere_leaves_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), None, None).unwrap();
        store.save("plan", &"old").unwrap();
        store.publish(b"old").unwrap();
        // What the next write would have left if the power had gone after each byte of it.
        let next = record::encode("plan", b"\"new\"");
        for length in 0..=next.len() {
            fs::write(home.path().join("next.new"), &next[..length]).unwrap();
            let store = Store::open(home.path(), None, None).unwrap();
            assert_eq!(store.load::<String>("plan").unwrap().unwrap(), "old");
            assert_eq!(store.certificate().unwrap().unwrap().as_slice(), b"old");
        }
        store.save("plan", &"new").unwrap();
        assert_eq!(store.load::<String>("plan").unwrap().unwrap(), "new");
        // A write that the filesystem refuses says so and changes nothing.
        fs::create_dir(home.path().join("next.new")).unwrap();
        fs::write(home.path().join("next.new/in"), "the way").unwrap();
        assert!(store.save("plan", &"newer").is_err());
        assert!(store.publish(b"newer").is_err());
        assert_eq!(store.load::<String>("plan").unwrap().unwrap(), "new");
        assert_eq!(store.certificate().unwrap().unwrap().as_slice(), b"old");
    }

    #[test]
    fn one_process_asks_at_a_time_and_clears_what_another_left() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path(), None, None).unwrap();
        let lock = store.lock().unwrap();
        assert!(matches!(store.lock(), Err(StoreError::InUse)));
        std::mem::forget(store.answer("a.example", b"left").unwrap());
        store.publish(b"kept").unwrap();
        store.clear_answers(&lock).unwrap();
        assert!(!home.path().join("a.example.challenge").exists());
        assert!(store.certificate().unwrap().is_some());
        drop(lock);
        assert!(store.lock().is_ok());
        assert!(matches!(
            store.answer("../a.b", b""),
            Err(StoreError::NoName(_))
        ));
    }
}
