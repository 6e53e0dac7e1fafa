//! Files in the state directory: whole or not there, and checked when they are read.
//!
//! A file is a line `altnet-login KIND 1 SHA256`, the sum in hex of all that follows, then JSON.
//! It is written beside itself, synced and renamed, mode 0600. One that isn't as it was written is
//! set aside as `NAME.damaged` and said; the page goes on without it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use ring::digest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;
/// How long another process may hold a lock; they hold it for one small file's write.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
const LOCK_STEP: Duration = Duration::from_millis(10);

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// `time` in seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct State {
    path: PathBuf,
}

/// Why the state directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another process holds a lock.
    #[error(
        "{path} is in use by another altnet-login; stop it, or give this one its own state_directory"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The filesystem refused.
    #[error("can't use {path}; check that the state directory is there and can be written")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
}

/// A lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl State {
    /// Makes `path` if it is missing and closes it to other users.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let failed = |source| StateError::Io {
            path: path.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(failed)?;
        let found = fs::metadata(path).map_err(failed)?;
        if found.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(DIRECTORY_MODE))
                .map_err(failed)?;
        }
        Ok(Self { path: path.into() })
    }

    /// Gives the directory and this module's files in it to a user, before privileges are dropped.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let name = entry.file_name();
            let end = Path::new(&name).extension().unwrap_or_default();
            // Nothing else: another's directory given by mistake stays another's.
            let is_ours = ["state", "new", "lock", "damaged"]
                .iter()
                .any(|e| end == *e);
            if is_ours && meta.is_file() && meta.nlink() == 1 {
                std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?;
            }
        }
        std::os::unix::fs::lchown(&self.path, Some(user), Some(group))
    }

    /// Takes the lock `name`, waiting for whoever holds it.
    ///
    /// # Errors
    /// [`StateError::InUse`] if it isn't let go; [`StateError::Io`].
    pub fn lock(&self, name: &str) -> Result<Lock, StateError> {
        let path = self.path.join(format!("{name}.lock"));
        let failed = |source| StateError::Io {
            path: path.clone(),
            source,
        };
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(failed)?;
        self.own(&file).map_err(failed)?;
        let mut patience = LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock { _file: file }),
                Err(TryLockError::WouldBlock) if !patience.is_zero() => {
                    std::thread::sleep(LOCK_STEP);
                    patience = patience.saturating_sub(LOCK_STEP);
                }
                Err(TryLockError::WouldBlock) => {
                    return Err(StateError::InUse {
                        path: self.path.clone(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }

    /// Reads the file of `kind`; nothing if there is none, or if it was damaged and is now set
    /// aside.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn load<T: DeserializeOwned>(&self, kind: &str) -> Result<Option<T>, StateError> {
        let path = self.file(kind);
        let failed = |source| StateError::Io {
            path: path.clone(),
            source,
        };
        let mut bytes = Zeroizing::new(Vec::new());
        match File::open(&path) {
            Ok(file) => file
                .take(MAX_FILE_BYTES + 1)
                .read_to_end(&mut bytes)
                .map_err(failed)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if let Some(value) = read(kind, &bytes) {
            return Ok(Some(value));
        }
        let aside = path.with_extension("damaged");
        fs::rename(&path, &aside).map_err(failed)?;
        crate::error!(
            "{} is damaged and was set aside as {}: what it held is not known any more",
            path.display(),
            aside.display()
        );
        Ok(None)
    }

    /// Writes the file of `kind`. When this returns it is on the medium.
    ///
    /// # Errors
    /// [`StateError::Io`]; the file is as it was.
    pub fn save(&self, kind: &str, value: &impl Serialize) -> Result<(), StateError> {
        let path = self.file(kind);
        let new = path.with_extension("new");
        self.write(kind, value, &new, &path)
            .map_err(|source| StateError::Io { path, source })
    }

    fn write(&self, kind: &str, value: &impl Serialize, new: &Path, path: &Path) -> io::Result<()> {
        let json = Zeroizing::new(serde_json::to_vec(value)?);
        match fs::remove_file(new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(new)?;
        self.own(&file)?;
        file.write_all(head(kind, &json).as_bytes())?;
        file.write_all(&json)?;
        file.sync_all()?;
        fs::rename(new, path)?;
        File::open(&self.path)?.sync_all()
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.path.join(format!("{kind}.state"))
    }

    /// Gives a file that root made to the directory's owner, who must read it too.
    fn own(&self, file: &File) -> io::Result<()> {
        let directory = fs::metadata(&self.path)?;
        let found = file.metadata()?;
        if (found.uid(), found.gid()) != (directory.uid(), directory.gid())
            && rustix::process::geteuid().is_root()
        {
            std::os::unix::fs::fchown(file, Some(directory.uid()), Some(directory.gid()))?;
        }
        Ok(())
    }
}

fn head(kind: &str, json: &[u8]) -> String {
    let sum = digest::digest(&digest::SHA256, json);
    format!("altnet-login {kind} 1 {}\n", HEXLOWER.encode(sum.as_ref()))
}

fn read<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().position(|b| *b == b'\n')? + 1;
    let (found, json) = bytes.split_at(end);
    if found != head(kind, json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_file_comes_back_and_is_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        let place = home.path().join("login");
        let state = State::open(&place).unwrap();
        assert_eq!(state.load::<Vec<String>>("codes").unwrap(), None);
        let value = vec!["a".to_owned()];
        state.save("codes", &value).unwrap();
        state.save("codes", &value).unwrap();
        assert_eq!(state.load("codes").unwrap(), Some(value));
        assert_eq!(mode(&place), 0o700);
        assert_eq!(mode(&place.join("codes.state")), 0o600);
    }

    #[test]
    fn a_damaged_file_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let state = State::open(home.path()).unwrap();
        let path = home.path().join("codes.state");
        state.save("codes", &vec![1, 2, 3]).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(state.load::<Vec<u8>>("codes").unwrap(), None);
        assert!(!path.exists());
        assert_eq!(fs::read(path.with_extension("damaged")).unwrap(), bytes);
        // And the next one is written as ever.
        state.save("codes", &vec![4]).unwrap();
        assert_eq!(state.load::<Vec<u8>>("codes").unwrap(), Some(vec![4]));
    }

    #[test]
    fn one_kind_is_not_read_as_another() {
        let home = tempfile::tempdir().unwrap();
        let state = State::open(home.path()).unwrap();
        state.save("codes", &vec![1]).unwrap();
        let from = home.path().join("codes.state");
        fs::rename(from, home.path().join("sessions.state")).unwrap();
        assert_eq!(state.load::<Vec<u8>>("sessions").unwrap(), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = read::<Vec<String>>("codes", &bytes);
        }
    }
}
