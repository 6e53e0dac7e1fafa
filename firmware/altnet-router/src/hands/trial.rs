//! The file in force, the one on trial, and the one before, on the disk.
//!
//! `altnet.toml` is always a file that was in force. One on trial is `altnet.toml.trial` beside it, which counts for
//! nobody who starts: after a power cut the old one is in force. Confirmed, it is renamed over it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::files::{self, Kept};

/// The largest file that is read, in bytes; as altnetd's.
pub const MAX_BYTES: u64 = 256 * 1024;

/// What others on this machine may do with a file.
const OTHERS: u32 = 0o007;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Files {
    /// The file in force.
    pub config: PathBuf,
    trial: PathBuf,
    previous: PathBuf,
}

impl Files {
    /// Of the file in force at `config`.
    pub fn new(config: &Path) -> Self {
        let beside = |what: &str| {
            let mut name = config
                .file_name()
                .unwrap_or(OsStr::new("altnet.toml"))
                .to_owned();
            name.push(what);
            config.with_file_name(name)
        };
        Self {
            config: config.into(),
            trial: beside(".trial"),
            previous: beside(".previous"),
        }
    }

    /// The text of the file in force.
    ///
    /// # Errors
    /// What the file system says; that it isn't text.
    pub fn read(&self) -> io::Result<Zeroizing<String>> {
        let bytes = files::read(&self.config, MAX_BYTES)?.ok_or(io::ErrorKind::NotFound)?;
        let text = String::from_utf8(bytes).map_err(|_| io::Error::other("it isn't UTF-8 text"))?;
        Ok(Zeroizing::new(text))
    }

    /// Takes the file in force from others on this machine, who may read it: it holds a password. Returns whether they could.
    ///
    /// # Errors
    /// What the file system says.
    pub fn hide(&self) -> io::Result<bool> {
        let mode = fs::metadata(&self.config)?.mode() & 0o777;
        if mode & OTHERS == 0 {
            return Ok(false);
        }
        fs::set_permissions(&self.config, fs::Permissions::from_mode(mode & !OTHERS))?;
        Ok(true)
    }

    /// Removes what a router left that ended during a trial. Returns whether there was such a file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn drop_trial(&self) -> io::Result<bool> {
        let was_there = self.trial.exists();
        files::remove(&self.trial)?;
        Ok(was_there)
    }

    /// Writes a file for its trial.
    ///
    /// # Errors
    /// What the file system says; nothing is on trial then.
    pub fn begin_trial(&self, text: &str) -> io::Result<()> {
        // It may hold passwords.
        files::replace(&self.trial, files::PRIVATE, text.as_bytes(), Kept::OnDisk)
    }

    /// Makes the file on trial the one in force, and that one the one before. Whoever could read the one in force
    /// can read it; with a password in it, nobody but its owner and group.
    ///
    /// # Errors
    /// What the file system says; the one in force stays then.
    pub fn confirm(&self, holds_password: bool) -> io::Result<()> {
        if !self.trial.exists() {
            return Err(io::Error::other(format!(
                "{} is gone",
                self.trial.display()
            )));
        }
        if let Some(before) = files::read(&self.config, MAX_BYTES)? {
            files::replace(&self.previous, files::PRIVATE, &before, Kept::OnDisk)?;
            let old = fs::metadata(&self.config)?;
            let hidden = if holds_password { OTHERS } else { 0 };
            let mode = old.mode() & 0o777 & !hidden;
            chown(&self.trial, Some(old.uid()), Some(old.gid()))?;
            fs::set_permissions(&self.trial, fs::Permissions::from_mode(mode))?;
        }
        files::rename(&self.trial, &self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(home: &Path) -> Vec<String> {
        let entries = fs::read_dir(home).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_on_trial_counts_only_once_it_is_confirmed() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(&home.path().join("altnet.toml"));
        fs::write(&files.config, "old").unwrap();
        files.begin_trial("new").unwrap();
        // What a router sees that starts after a power cut.
        assert_eq!(files.read().unwrap().as_str(), "old");
        assert!(files.drop_trial().unwrap() && !files.drop_trial().unwrap());
        assert!(files.confirm(false).is_err());
        assert_eq!(names(home.path()), ["altnet.toml"]);
        files.begin_trial("new").unwrap();
        files.confirm(false).unwrap();
        assert_eq!(files.read().unwrap().as_str(), "new");
        assert_eq!(names(home.path()), ["altnet.toml", "altnet.toml.previous"]);
        assert_eq!(fs::read_to_string(&files.previous).unwrap(), "old");
    }

    #[test]
    fn who_could_read_the_file_still_can_unless_it_holds_a_password() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::new(&home.path().join("altnet.toml"));
        let mode = || fs::metadata(&files.config).unwrap().mode() & 0o777;
        fs::write(&files.config, "old").unwrap();
        fs::set_permissions(&files.config, fs::Permissions::from_mode(0o644)).unwrap();
        files.begin_trial("new").unwrap();
        files.confirm(false).unwrap();
        assert_eq!(mode(), 0o644);
        files.begin_trial("with a password").unwrap();
        files.confirm(true).unwrap();
        assert_eq!(mode(), 0o640);
        assert!(!files.hide().unwrap());
        fs::set_permissions(&files.config, fs::Permissions::from_mode(0o664)).unwrap();
        assert!(files.hide().unwrap());
        assert_eq!(mode(), 0o660);
    }
}
