//! Files that a power cut cannot tear and others cannot read.
//!
//! A file is written beside its place, synced, renamed over it, and the directory synced: after a
//! crash it is the old one or the new one. Files are 0600, directories 0700.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// The largest file that is read: far more than any that is written here.
pub const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;

/// How long another process may hold a network before it is given up, and how often to look.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Puts `bytes` at `path`, whole or not at all; replaces a file that is there.
///
/// # Errors
/// [`Error::Io`]; then what was at `path` is still there.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = beside(path)?;
    let written = write_new(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    if let Err(error) = written {
        // Leaving the half-written file behind is harmless, so a second failure is not told.
        let _ = fs::remove_file(&beside);
        return Err(Error::io("write", path)(error));
    }
    sync_parent(path)
}

/// Puts `bytes` at `path` where no file is yet.
///
/// # Errors
/// [`Error::Exists`] if there is one; else [`Error::Io`].
pub fn create(path: &Path, bytes: &[u8]) -> Result<()> {
    check_absent(path)?;
    let beside = beside(path)?;
    let written = write_new(&beside, bytes)
        .and_then(|()| put(&beside, path, |from, to| fs::hard_link(from, to)));
    let _ = fs::remove_file(&beside);
    written.map_err(Error::io("write", path))?;
    sync_parent(path)
}

/// Puts what `fill` writes at `path` where no file is yet, for what is too large to be held. `fill` gets an
/// empty file to read and write, and syncs it.
///
/// # Errors
/// [`Error::Exists`] if there is one; [`Error::Io`]; what `fill` says.
pub fn create_by<T>(path: &Path, fill: impl FnOnce(File) -> Result<T>) -> Result<T> {
    check_absent(path)?;
    let beside = beside(path)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&beside).map_err(Error::io("write", path))?;
    let filled = fill(file).and_then(|filled| {
        put(&beside, path, |from, to| fs::hard_link(from, to)).map_err(Error::io("write", path))?;
        Ok(filled)
    });
    let _ = fs::remove_file(&beside);
    let filled = filled?;
    sync_parent(path)?;
    Ok(filled)
}

fn check_absent(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::exists(
            format!("{} is there already", path.display()),
            "Choose another file name, or move that file away.",
        )),
        Err(_) => Ok(()),
    }
}

/// Gives the file `beside` the name `path` unless that is taken.
fn put(
    beside: &Path,
    path: &Path,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> io::Result<()> {
    // A hard link fails where the name is taken, which a rename does not.
    match link(beside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            // A stick or card with FAT has no hard links: there an empty file takes the name
            // first.
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            fs::rename(beside, path).inspect_err(|_| {
                let _ = fs::remove_file(path);
            })
        }
        other => other,
    }
}

/// Reads a whole file of at most [`MAX_FILE_BYTES`].
///
/// # Errors
/// [`Error::Io`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("it has more than {MAX_FILE_BYTES} bytes"),
            ));
        }
        Ok(bytes)
    };
    read().map_err(Error::io("read", path))
}

/// Reads a file that only its owner may read.
///
/// # Errors
/// [`Error::Exposed`] if others may; else [`Error::Io`].
pub fn read_private(path: &Path) -> Result<Vec<u8>> {
    check_private(path)?;
    read(path)
}

/// Whether only its owner may read `path`, a file or a directory.
///
/// # Errors
/// [`Error::Exposed`] if others may; else [`Error::Io`].
pub fn check_private(path: &Path) -> Result<()> {
    let mode = fs::metadata(path).map_err(Error::io("read", path))?.mode();
    if mode & 0o077 != 0 {
        return Err(Error::Exposed {
            path: path.to_path_buf(),
            mode,
        });
    }
    Ok(())
}

/// Makes a directory, and those above it, that only its owner may enter.
///
/// # Errors
/// [`Error::Io`].
pub fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(Error::io("make", path))
}

/// Moves a finished directory to its place, where nothing may be yet, and syncs both.
///
/// # Errors
/// [`Error::Exists`] if something is at `to`; else [`Error::Io`].
pub fn rename_dir(from: &Path, to: &Path) -> Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(Error::exists(
            format!("{} is there already", to.display()),
            "Choose another name, or move that directory away.",
        ));
    }
    sync_dir(from)?;
    fs::rename(from, to).map_err(Error::io("make", to))?;
    sync_parent(to)
}

/// Removes what a power cut left half-written beside the files in `dir`.
pub(crate) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().is_some_and(is_half_written) {
            remove(&entry.path());
        }
    }
}

fn is_half_written(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// Removes a file that no longer counts; that it is gone already is fine.
pub(crate) fn remove(path: &Path) {
    // Nothing refers to the file any more: it is tidied away at the next change if not now.
    let _ = fs::remove_file(path);
}

/// Writes the names in a directory to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(Error::io("write", path))
}

/// A network that no other process changes meanwhile. Dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits up to ten seconds for the directory `dir`.
    ///
    /// # Errors
    /// [`Error::Busy`], or [`Error::Io`].
    pub fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let opened = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let file = match opened {
            // Nobody changes anything there, and what is there can still be looked at and kept.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(dir),
            other => other,
        }
        .map_err(Error::io("write", &path))?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(fs::TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::Busy {
                        path: dir.to_path_buf(),
                    });
                }
                Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }
}

/// A name beside `path` that nothing else uses.
fn beside(path: &Path) -> Result<PathBuf> {
    let mut chance = [0; 8];
    crate::chance::fill(&mut chance)?;
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    let mark: String = chance.iter().map(|b| format!("{b:02x}")).collect();
    Ok(path.with_file_name(format!(".{name}.{mark}.tmp")))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
        Some(parent) => sync_dir(parent),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_written_file_is_its_owners_alone_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_is_not_created_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        create(&path, b"one").unwrap();
        assert!(matches!(create(&path, b"two"), Err(Error::Exists { .. })));
        assert_eq!(read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_disk_without_hard_links_gets_the_file_and_keeps_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (new, path) = (dir.path().join("new"), dir.path().join("a"));
        // What FAT answers.
        let no_links = |_: &Path, _: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
        write(&new, b"one").unwrap();
        put(&new, &path, no_links).unwrap();
        write(&new, b"two").unwrap();
        let error = put(&new, &path, no_links).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(read(&path).unwrap(), b"one");
        fs::remove_file(&path).unwrap();
        fs::remove_file(&new).unwrap();
        assert!(put(&new, &path, no_links).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(error.to_string().contains("mode 0640"), "{error}");
        assert!(error.next_step().contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(write(&path, b"x").is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
