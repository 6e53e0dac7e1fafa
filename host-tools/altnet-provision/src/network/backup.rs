//! Everything about a network in one encrypted file, and back.
//!
//! The file is age with scrypt under the network's passphrase; inside is one postcard value.
//! A device's sessions and serials are not this computer's, so nothing on a device is undone by
//! restoring; what the network has come to since is fetched by a sync.

use std::path::Path;

use altnet_wire::canonical;
use altnet_wire::id::Name;
use altnet_wire::time::UnixTime;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::{Network, build};
use crate::error::{Error, Result};
use crate::files;
use crate::home::Home;
use crate::policy::is_policy_file;
use crate::sealed::{self, Passphrase};
use crate::secrets::Secrets;
use crate::settings::Settings;

const MAGIC: [u8; 4] = *b"ALTB";
/// Version 1 had no policies beside the records.
const VERSION: u8 = 2;
const NEXT: &str =
    "use another copy of the backup, or the passphrase that the keys had when it was made.";

#[derive(Serialize, Deserialize)]
struct Backup {
    magic: [u8; 4],
    version: u8,
    name: Name,
    made: UnixTime,
    settings: Vec<u8>,
    secrets: Vec<u8>,
    records: Vec<Vec<u8>>,
    /// Texts and records of policies, by their paths in the network's directory.
    policies: Vec<(String, Vec<u8>)>,
}

/// As version 1 was.
#[derive(Serialize, Deserialize)]
struct FirstBackup {
    magic: [u8; 4],
    version: u8,
    name: Name,
    made: UnixTime,
    settings: Vec<u8>,
    secrets: Vec<u8>,
    records: Vec<Vec<u8>>,
}

impl From<FirstBackup> for Backup {
    fn from(first: FirstBackup) -> Self {
        Self {
            magic: first.magic,
            version: first.version,
            name: first.name,
            made: first.made,
            settings: first.settings,
            secrets: first.secrets,
            records: first.records,
            policies: Vec::new(),
        }
    }
}

impl Drop for Backup {
    fn drop(&mut self) {
        self.secrets.zeroize();
    }
}

impl Network {
    /// The bytes of a backup, encrypted with the passphrase of `secrets`.
    ///
    /// # Errors
    /// [`Error::Input`] if it can't be encrypted.
    pub fn backup(&self, secrets: &Secrets, now: UnixTime) -> Result<Vec<u8>> {
        let backup = Backup {
            magic: MAGIC,
            version: VERSION,
            name: self.name.clone(),
            made: now,
            settings: self.settings.encode(),
            secrets: secrets.encode().to_vec(),
            records: self.registry.iter().map(|(_, b)| b.to_vec()).collect(),
            policies: self.policy_files(),
        };
        // Reserved at once, so that growing leaves no copies of secrets behind.
        let records = backup.records.iter().map(|record| record.len() + 3);
        let policies = backup.policies.iter();
        let policies = policies.map(|(path, bytes)| path.len() + bytes.len() + 8);
        let inside: usize = records.chain(policies).sum();
        let room = 256 + backup.settings.len() + backup.secrets.len() + inside;
        let mut plain = Zeroizing::new(vec![0; room]);
        let used = postcard::to_slice(&backup, &mut plain)
            .map_err(|error| {
                Error::input(format!("cannot write the backup: {error}"), "Try again.")
            })?
            .len();
        plain.truncate(used);
        sealed::seal(&plain, secrets.passphrase())
    }
}

/// Brings a network back from the backup in the file `path`, called `name` or as it was called.
/// Nothing that is there is written over.
///
/// # Errors
/// [`Error::Exists`] if there is a network of that name; [`Error::Passphrase`];
/// [`Error::Damaged`]; [`Error::Newer`]; [`Error::Io`].
pub fn restore(
    home: &Home,
    path: &Path,
    name: Option<&Name>,
    passphrase: &Passphrase,
) -> Result<Network> {
    let unread = |error: Error| error.unopened(NEXT);
    let backup = read(path, passphrase).map_err(unread)?;
    let settings = Settings::decode(&backup.settings, path).map_err(unread)?;
    let secrets = Secrets::decode(&backup.secrets, passphrase, path).map_err(unread)?;
    if secrets.network() != settings.network {
        let why = "its keys are another network's";
        return Err(unread(Error::damaged(path, why)));
    }
    if let Some(other) = same_network(home, &settings)? {
        let dir = home.network(&other);
        return Err(Error::exists(
            format!("the network is on this computer already, called {other}"),
            format!(
                "Nothing needs to be restored as long as it works and its keys open; to go back to the backup, {}.",
                move_away(&dir)
            ),
        ));
    }
    let name = name.unwrap_or(&backup.name);
    let to = home.network(name);
    if to.symlink_metadata().is_ok() {
        return Err(Error::exists(
            format!("{} is there already", to.display()),
            format!(
                "If it is this network and damaged, {}; else restore under another name with --name.",
                move_away(&to)
            ),
        ));
    }
    let is_policy = |path: &str| path == super::policy::WORKING_FILE || is_policy_file(path);
    if backup.policies.iter().any(|(path, _)| !is_policy(path)) {
        let why = "it would write files that are none of a network";
        return Err(unread(Error::damaged(path, why)));
    }
    build(
        home,
        name,
        settings,
        &backup.records,
        &backup.policies,
        &secrets,
    )
}

fn move_away(dir: &Path) -> String {
    format!(
        "move its directory away first: `mv {0} {0}.old`",
        dir.display()
    )
}

fn read(path: &Path, passphrase: &Passphrase) -> Result<Backup> {
    let plain = sealed::open(&files::read(path)?, passphrase, path)?;
    let Some(rest) = plain.strip_prefix(&MAGIC) else {
        return Err(Error::damaged(path, "it is not a backup of a network"));
    };
    match rest.first() {
        Some(&version) if version > VERSION => {
            return Err(Error::Newer {
                path: path.to_path_buf(),
                found: version.into(),
                known: VERSION.into(),
            });
        }
        Some(1) => canonical::decode::<FirstBackup>(&plain).map(Backup::from),
        _ => canonical::decode(&plain),
    }
    .map_err(|_| Error::damaged(path, "it does not read"))
}

/// The name of a network here that opens and has the same id.
fn same_network(home: &Home, settings: &Settings) -> Result<Option<Name>> {
    for name in home.networks()? {
        // One that doesn't open is what a backup is for.
        let same = Network::open(&home.network(&name)).is_ok_and(|n| n.id() == settings.network);
        if same {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dir: &Path) -> (crate::network::Created, Passphrase) {
        let passphrase = Passphrase::new("pass").unwrap().with_less_work(2);
        let name = "home".parse().unwrap();
        let now = UnixTime::from_secs(1_800_000_000);
        let made = Network::create(&Home::at(dir.join("old")), &name, &passphrase, now).unwrap();
        (made, passphrase)
    }

    fn sealed(dir: &Path, value: &impl Serialize, passphrase: &Passphrase) -> std::path::PathBuf {
        let path = dir.join("backup");
        let plain = postcard::to_allocvec(value).unwrap();
        std::fs::write(&path, sealed::seal(&plain, passphrase).unwrap()).unwrap();
        path
    }

    #[test]
    fn a_backup_of_the_first_version_is_brought_back() {
        let dir = tempfile::tempdir().unwrap();
        let (made, passphrase) = made(dir.path());
        let first = FirstBackup {
            magic: MAGIC,
            version: 1,
            name: made.network.name.clone(),
            made: UnixTime::EPOCH,
            settings: made.network.settings.encode(),
            secrets: made.secrets.encode().to_vec(),
            records: made
                .network
                .registry
                .iter()
                .map(|(_, b)| b.to_vec())
                .collect(),
        };
        let path = sealed(dir.path(), &first, &passphrase);
        let back = restore(&Home::at(dir.path().join("new")), &path, None, &passphrase).unwrap();
        assert_eq!(back.id(), made.network.id());
        assert_eq!(back.policy().unwrap().serial, 1);
    }

    #[test]
    fn a_backup_writes_only_files_of_a_network() {
        let dir = tempfile::tempdir().unwrap();
        let (made, passphrase) = made(dir.path());
        for bad in [
            "../out",
            "policies/../../out",
            "policies/1.sh",
            "policies/01.toml",
            "keys.age",
            "/out",
            "",
        ] {
            let backup = Backup {
                magic: MAGIC,
                version: VERSION,
                name: made.network.name.clone(),
                made: UnixTime::EPOCH,
                settings: made.network.settings.encode(),
                secrets: made.secrets.encode().to_vec(),
                records: made
                    .network
                    .registry
                    .iter()
                    .map(|(_, b)| b.to_vec())
                    .collect(),
                policies: vec![(bad.to_owned(), b"x".to_vec())],
            };
            let path = sealed(dir.path(), &backup, &passphrase);
            let home = Home::at(dir.path().join("new"));
            let error = restore(&home, &path, None, &passphrase).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{bad}: {error}");
            assert!(!home.path().exists(), "{bad}");
        }
    }
}
