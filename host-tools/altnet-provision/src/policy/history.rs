//! The policies that were in force here: `policies/SERIAL.record` as it was signed, and beside it
//! `policies/SERIAL.toml` as it was written, if that was on this computer.
//!
//! Nothing rests on these files but looking back and going back. A record that was damaged is
//! found out by its signature and told; a text that was damaged is only no longer shown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use altnet_core::policy::Draft;
use altnet_core::records;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{NetworkId, SigningKey};

use crate::error::Result;
use crate::files;

/// Where they are in the network's directory.
const DIR: &str = "policies";
/// How many are kept, the newest of them.
const MOST: usize = 100;
const RECORD: &str = "record";
const TEXT: &str = "toml";

/// The policies kept of one network.
pub(crate) struct History {
    dir: PathBuf,
    network: NetworkId,
}

/// One of them, its signature checked.
pub(crate) struct Kept {
    pub(crate) serial: u64,
    pub(crate) signer: SigningKey,
    pub(crate) draft: Draft,
    /// As it was written, if that is here.
    pub(crate) text: Option<String>,
}

impl History {
    pub(crate) fn of(network_dir: &Path, network: NetworkId) -> Self {
        Self {
            dir: network_dir.join(DIR),
            network,
        }
    }

    fn path(&self, serial: u64, ending: &str) -> PathBuf {
        self.dir.join(format!("{serial}.{ending}"))
    }

    /// Keeps a record, and its text if that is known. Returns the files that are new.
    pub(crate) fn keep(&self, record: &[u8], text: Option<&str>) -> Result<Vec<PathBuf>> {
        let Ok(envelope) = Envelope::parse(record) else {
            return Ok(Vec::new());
        };
        let serial = envelope.header().serial.0;
        let (kept, written) = (self.path(serial, RECORD), self.path(serial, TEXT));
        let mut fresh = Vec::new();
        let is_same = files::read(&kept).is_ok_and(|bytes| bytes == record);
        files::make_dir(&self.dir)?;
        if !is_same {
            fresh.push(kept.clone());
            // Another owner may have signed one with the same serial: its text is not this one's.
            files::remove(&written);
            files::write(&kept, record)?;
        }
        if let Some(text) = text {
            fresh.push(written.clone());
            files::write(&written, text.as_bytes())?;
        }
        Ok(fresh)
    }

    /// Those that are here, the newest first, and the names of files that are damaged.
    pub(crate) fn all(&self) -> (Vec<Kept>, Vec<String>) {
        let (mut kept, mut damaged) = (Vec::new(), Vec::new());
        for serial in self.serials().into_keys().rev() {
            let path = self.path(serial, RECORD);
            match files::read(&path)
                .ok()
                .and_then(|bytes| self.read(serial, &bytes))
            {
                Some(one) => kept.push(one),
                None => damaged.push(path.display().to_string()),
            }
        }
        (kept, damaged)
    }

    fn read(&self, serial: u64, bytes: &[u8]) -> Option<Kept> {
        let envelope = Envelope::parse(bytes).ok()?;
        let header = envelope.header();
        let is_it = header.kind == RecordKind::POLICY
            && header.network == self.network
            && header.serial.0 == serial;
        if !is_it || records::verify(&envelope).is_err() {
            return None;
        }
        Some(Kept {
            serial,
            signer: header.signer,
            draft: Draft::decode(envelope.body()).ok()?,
            text: self.text(serial),
        })
    }

    /// What was written for the policy with this serial.
    pub(crate) fn text(&self, serial: u64) -> Option<String> {
        String::from_utf8(files::read(&self.path(serial, TEXT)).ok()?).ok()
    }

    /// Removes what is too old, what never came to be because the power was cut, and what is
    /// half-written.
    pub(crate) fn sweep(&self, in_force: u64) {
        files::sweep(&self.dir);
        let serials = self.serials();
        let old = serials.len().saturating_sub(MOST);
        for (at, (serial, has_record)) in serials.into_iter().enumerate() {
            if at < old || serial > in_force || !has_record {
                files::remove(&self.path(serial, RECORD));
                files::remove(&self.path(serial, TEXT));
            }
        }
    }

    /// The files, by their paths in the network's directory.
    pub(crate) fn paths(&self) -> Vec<String> {
        let serials = self.serials().into_keys();
        let both = |serial| [RECORD, TEXT].map(|ending| format!("{DIR}/{serial}.{ending}"));
        serials.flat_map(both).collect()
    }

    /// The serials that files are named by, and whether there is a record.
    fn serials(&self) -> BTreeMap<u64, bool> {
        let mut serials = BTreeMap::new();
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some((serial, ending)) = name.to_str().and_then(parts) else {
                continue;
            };
            *serials.entry(serial).or_insert(false) |= ending == RECORD;
        }
        serials
    }
}

/// A file's serial and ending, if it is one of these.
fn parts(name: &str) -> Option<(u64, &str)> {
    let (serial, ending) = name.split_once('.')?;
    let number = serial.parse::<u64>().ok()?;
    let is_one = number.to_string() == serial && [RECORD, TEXT].contains(&ending);
    is_one.then_some((number, ending))
}

/// Whether `path`, from the network's directory, is one of these files: what a backup may bring.
pub(crate) fn is_policy_file(path: &str) -> bool {
    let Some(name) = path.strip_prefix(DIR) else {
        return false;
    };
    name.strip_prefix('/')
        .is_some_and(|name| parts(name).is_some())
}
