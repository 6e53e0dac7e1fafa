//! [`Vfs`] over a real directory that one process owns at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Vfs;

const LOCK_NAME: &str = "lock";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_STEP: Duration = Duration::from_millis(20);

/// A directory, locked for this process until it is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
    lock: File,
}

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// Another process has it open.
    #[error(
        "{path} is in use by another altnetd; stop it, or give this one its own state_directory"
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It can't be made, opened or locked.
    #[error("can't use {path} as the state directory; check that it can be made and written")]
    Io {
        /// The directory.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
}

impl Directory {
    /// Makes `path` if it is missing, closes it to other users, and locks it.
    ///
    /// # Errors
    /// [`DirectoryError::InUse`] if another process holds the lock.
    pub fn open(path: &Path) -> Result<Self, DirectoryError> {
        let failed = |source| DirectoryError::Io {
            path: path.into(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)
            .map_err(failed)?;
        let handle = File::open(path).map_err(failed)?;
        let mode = handle.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            let closed = fs::Permissions::from_mode(DIRECTORY_MODE);
            handle.set_permissions(closed).map_err(failed)?;
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK_NAME))
            .map_err(failed)?;
        match lock_patiently(&lock) {
            Ok(()) => Ok(Self {
                path: path.into(),
                handle,
                lock,
            }),
            Err(TryLockError::WouldBlock) => Err(DirectoryError::InUse { path: path.into() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// A word for where this directory stands. It stays the same while the directory is only
    /// worked in, and is another one after its files were copied back from a backup: the time at
    /// which the filesystem made the lock's file, or its owner, what they are (`st_ctime`), which
    /// no tool can choose. A copy of the whole medium is not told from the original.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn place(&self) -> io::Result<[u8; 16]> {
        let lock = self.lock.metadata()?;
        let mut place = [0; 16];
        place[..8].copy_from_slice(&lock.ctime().to_be_bytes());
        place[8..].copy_from_slice(&lock.ctime_nsec().to_be_bytes());
        Ok(place)
    }

    /// Gives the directory and the files in it to a user, before privileges are dropped: without
    /// them even root can't write another user's files. What is the user's already is left
    /// alone.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        let is_given = |meta: &fs::Metadata| (meta.uid(), meta.gid()) == (user, group);
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            // Nothing but the store's own: another's directory given by mistake stays another's.
            let name = entry.file_name();
            let is_ours = name == LOCK_NAME
                || Path::new(&name)
                    .extension()
                    .is_some_and(|end| end == "slot" || end == "new");
            if is_ours && meta.is_file() && meta.nlink() == 1 && !is_given(&meta) {
                std::os::unix::fs::lchown(entry.path(), Some(user), Some(group))?;
            }
        }
        if !is_given(&self.handle.metadata()?) {
            std::os::unix::fs::fchown(&self.handle, Some(user), Some(group))?;
        }
        Ok(())
    }
}

/// Takes the lock, giving a predecessor that is just ending the time to do so.
fn lock_patiently(lock: &File) -> Result<(), TryLockError> {
    let mut patience = LOCK_PATIENCE;
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if !patience.is_zero() => {
                std::thread::sleep(LOCK_STEP);
                patience = patience.saturating_sub(LOCK_STEP);
            }
            other => return other,
        }
    }
}

impl Vfs for Directory {
    fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = File::open(self.path.join(name))?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(FILE_MODE)
            .open(self.path.join(name))?;
        file.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        // Any descriptor of the file will do: fsync(2) works on the file, not the descriptor.
        File::open(self.path.join(name))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Store;
    use super::*;

    #[test]
    fn a_real_directory_keeps_slots_closed_to_others() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state");
        let mut store = Store::open(Directory::open(&path).unwrap()).unwrap();
        store.save("identity", b"secret").unwrap();
        fs::write(path.join("identity.new"), b"unfinished").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("identity.slot")), 0o600);
        drop(store);
        let store = Store::open(Directory::open(&path).unwrap()).unwrap();
        assert_eq!(
            store.load("identity").unwrap().unwrap().as_slice(),
            b"secret"
        );
        assert!(!path.join("identity.new").exists());
    }

    #[test]
    fn a_directory_copied_back_stands_elsewhere() {
        let home = tempfile::tempdir().unwrap();
        let (path, backup) = (home.path().join("state"), home.path().join("backup"));
        let first = Directory::open(&path).unwrap().place().unwrap();
        let mut store = Store::open(Directory::open(&path).unwrap()).unwrap();
        store.save("identity", b"secret").unwrap();
        drop(store);
        assert_eq!(Directory::open(&path).unwrap().place().unwrap(), first);
        let copy = |from: &Path, to: &Path| {
            let mut copied = std::process::Command::new("cp");
            let copied = copied.arg("-a").args([from, to]).status().unwrap();
            assert!(copied.success());
        };
        copy(&path, &backup);
        fs::remove_dir_all(&path).unwrap();
        copy(&backup, &path);
        assert_ne!(Directory::open(&path).unwrap().place().unwrap(), first);
    }

    #[test]
    fn two_daemons_can_not_share_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let first = Directory::open(home.path()).unwrap();
        assert!(matches!(
            Directory::open(home.path()),
            Err(DirectoryError::InUse { .. })
        ));
        drop(first);
        assert!(Directory::open(home.path()).is_ok());
    }
}
