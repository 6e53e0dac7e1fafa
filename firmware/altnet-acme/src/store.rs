//! The folder: what the relay finds there, and what is this process's own.
//!
//! `certificate.pem` and challenges are PEM, and may be read by the relay's group. `account.state` and
//! `plan.state` are nobody else's, with a sum over what they hold. Every file is written beside itself,
//! synced and renamed, so that whenever the power goes the old one or the new one is there. A state that
//! isn't as it was written is set aside as `NAME.damaged` and said.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use altnet_relay::acme::{self, Folder, MAX_FILE_BYTES};
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
/// Under which name a file is written, and which one a process holds that asks.
const NEW: &str = "next.new";
const LOCK: &str = "asking.lock";
/// The kinds of state.
const STATES: [&str; 2] = ["account", "plan"];
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
    /// Others could read what is nobody else's.
    #[error("others can read {path}: remove the file, and altnet-acme makes another")]
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
        if let Some(parent) = path.parent().filter(|one| !one.as_os_str().is_empty()) {
            // What others keep there too isn't closed to them.
            fs::create_dir_all(parent).map_err(|source| io_error(parent, source))?;
        }
        match DirBuilder::new().mode(OWN_FOLDER_MODE).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
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
            let folder = Folder::new(path);
            for entry in fs::read_dir(path).map_err(failed)? {
                let there = entry.map_err(failed)?.path();
                if !is_ours(&folder, &there) {
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
            if is_ours(&self.folder, &entry.path()) && found.is_file() && found.nlink() == 1 {
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
        let path = self.path(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = acme::open(&path, options.mode(OWN_MODE));
        let file = file.map_err(|source| io_error(&path, source))?;
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
        let file = match acme::open(&path, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(failed(e)),
        };
        if file.metadata().map_err(failed)?.permissions().mode() & 0o077 != 0 {
            return Err(StoreError::Open { path });
        }
        let bytes = read(file).map_err(failed)?;
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
        match acme::open(&path, OpenOptions::new().read(true)).and_then(read) {
            Ok(text) => Ok(Some(text)),
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
        let new = self.path(NEW);
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

/// What a file holds, up to the most that is read.
fn read(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a text that is moved leaves a copy of its key behind.
    let length = file.metadata()?.len().min(MAX_FILE_BYTES) as usize;
    let mut text = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    Ok(text)
}

/// Whether a file of the folder is of those that this module makes.
fn is_ours(folder: &Folder, path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    let is_state = STATES
        .iter()
        .any(|kind| name == format!("{kind}.state") || name == format!("{kind}.damaged"));
    is_state
        || [NEW, LOCK].contains(&name)
        || Folder::is_challenge(path)
        || path == folder.certificate()
}

fn io_error(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        path: path.into(),
        source,
    }
}

#[cfg(test)]
mod tests;
