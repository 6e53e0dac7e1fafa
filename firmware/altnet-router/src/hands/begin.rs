//! Reading what there is to begin with: the file, passwords that are elsewhere, what an earlier run kept.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use altnet_service::log::chain;
use anyhow::Context as _;
use zeroize::Zeroizing;

use super::files;
use super::trial::Files;
use crate::board::Ports;
use crate::config::{File, Secret};
use crate::house::House;
use crate::machine::Setting;
use crate::machine::kept::{self, Kept};

/// The largest file that a password is read from, in bytes.
const MAX_PASSWORD_BYTES: u64 = 4096;

/// Reads the file in force, and what it means on a board.
///
/// # Errors
/// What is wrong with it, line by line.
pub(super) fn read_setting(files: &Files, ports: &Ports) -> anyhow::Result<Setting> {
    let path = files.config.display();
    let text = files
        .read()
        .with_context(|| format!("can't read {path}; name the file with --config"))?;
    let setting = setting(&files.config, &text, ports)?;
    if setting.holds_password
        && files
            .hide()
            .with_context(|| format!("can't change who may read {path}"))?
    {
        altnet_service::warning!(
            "{path} holds a password, and everybody on this machine could read it; that was taken from them"
        );
    }
    Ok(setting)
}

/// What a file means on a board, with the passwords that it says are elsewhere.
///
/// # Errors
/// What is wrong with it, line by line.
pub(super) fn setting(path: &Path, text: &str, ports: &Ports) -> anyhow::Result<Setting> {
    let house = File::house(path, text, ports)?;
    let house = house.with_context(|| {
        let path = path.display();
        format!("{path} has no [router]; write that line, or let somebody else route and don't run altnet-routerd")
    })?;
    let router = File::parse(path, text)?.router;
    Ok(Setting {
        passwords: passwords(&house),
        house,
        holds_password: router.is_some_and(|router| router.holds_password()),
    })
}

fn passwords(house: &House) -> BTreeMap<PathBuf, Secret> {
    let mut found = BTreeMap::new();
    for path in house.password_files() {
        let read = files::read(path, MAX_PASSWORD_BYTES).map(Option::unwrap_or_default);
        let text = read.map(Zeroizing::new).and_then(|bytes| {
            let text = std::str::from_utf8(&bytes).map_err(io::Error::other)?;
            Ok(Secret::new(text.lines().next().unwrap_or("").to_owned()))
        });
        match text {
            Ok(password) => {
                found.insert(path.to_owned(), password);
            }
            Err(e) => altnet_service::warning!("{} can't be read: {e}", path.display()),
        }
    }
    found
}

/// Reads what an earlier run kept; a spoilt file is as good as none, and said so.
pub(super) fn read_kept(path: &Path) -> Kept {
    let read =
        files::read(path, kept::MAX_BYTES).map(|bytes| bytes.map(|bytes| Kept::read(&bytes)));
    match read {
        Ok(None) => Kept::default(),
        Ok(Some(Ok(kept))) => kept,
        Ok(Some(Err(e))) => {
            altnet_service::warning!("{} is passed over: {}", path.display(), chain(&e));
            Kept::default()
        }
        Err(e) => {
            altnet_service::warning!("{} is passed over: {e}", path.display());
            Kept::default()
        }
    }
}
