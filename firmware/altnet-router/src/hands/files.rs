//! Files that are replaced whole: a reader sees the old one or the new one, and after a power cut there is
//! one of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Of what nobody else may read.
pub const PRIVATE: u32 = 0o600;

/// Where a file has to survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In memory: the file system goes with the power.
    InMemory,
    /// On a disk: it is there once the call returned.
    OnDisk,
}

/// Makes a directory with this mode, unless there is one.
///
/// # Errors
/// What the file system says, with the path.
pub fn make_directory(path: &Path, mode: u32) -> anyhow::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let made = fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    made.with_context(|| format!("can't make {}", path.display()))
}

/// Replaces the file at `path` by one with these bytes and this mode, and nothing in between. One that
/// holds the same already is left as it is, so that flash isn't worn.
///
/// # Errors
/// What the file system says; the old file is as it was then.
pub fn replace(path: &Path, mode: u32, bytes: &[u8], kept: Kept) -> io::Result<()> {
    if is_same(path, mode, bytes) {
        return Ok(());
    }
    let beside = beside(path);
    // One that a power cut left; it may have another mode.
    remove(&beside)?;
    let written = write_new(&beside, mode, bytes, kept).and_then(|()| fs::rename(&beside, path));
    if let Err(e) = written {
        let _ = fs::remove_file(&beside);
        return Err(e);
    }
    sync_directory(path, kept)
}

/// Renames a file over another one.
///
/// # Errors
/// What the file system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_directory(to, Kept::OnDisk)
}

/// Removes a file; that there is none is no error.
///
/// # Errors
/// What the file system says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads a file of at most `most` bytes; nothing where there is none.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {most} bytes"),
        ));
    }
    Ok(Some(bytes))
}

fn is_same(path: &Path, mode: u32, bytes: &[u8]) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(meta) = fs::symlink_metadata(path) else {
        return false;
    };
    meta.is_file()
        && meta.mode() & 0o7777 == mode
        && meta.len() == bytes.len() as u64
        && fs::read(path).is_ok_and(|found| found == bytes)
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8], kept: Kept) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE)
        .open(path)?;
    // Set apart from creating: the umask takes no part.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    match kept {
        Kept::InMemory => Ok(()),
        Kept::OnDisk => file.sync_all(),
    }
}

fn sync_directory(path: &Path, kept: Kept) -> io::Result<()> {
    match (kept, path.parent()) {
        (Kept::OnDisk, Some(directory)) => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_left_when_it_is_the_same() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        replace(&path, PRIVATE, b"new", Kept::OnDisk).unwrap();
        let first = fs::metadata(&path).unwrap();
        assert_eq!(first.mode() & 0o7777, 0o600);
        assert_eq!(fs::read(&path).unwrap(), b"new");
        replace(&path, PRIVATE, b"new", Kept::OnDisk).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), first.ino());
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_power_cut_left_beside_a_file_is_no_obstacle() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        fs::write(home.path().join("a.new"), "half").unwrap();
        replace(&path, PRIVATE, b"whole", Kept::InMemory).unwrap();
        assert_eq!(read(&path, 5).unwrap().unwrap(), b"whole");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_is_read_up_to_its_bound_and_a_missing_one_is_nothing() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("a");
        assert!(read(&path, 4).unwrap().is_none());
        fs::write(&path, "12345").unwrap();
        let refused = read(&path, 4).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&path, 5).unwrap().unwrap().len(), 5);
    }
}
