//! What a box keeps about its updates, on the data partition: floors, keys, and the slot that waits to
//! be confirmed.
//!
//! One file, replaced whole. It ends with a hash of itself, so that damage is told rather than
//! believed; a box whose file is damaged goes on from what its image says and says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use altnet_wire::canonical;
use altnet_wire::hash::{HASH_BYTES, labelled};
use altnet_wire::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::choice::Slot;
use crate::keys::KeySet;
use crate::manifest::{Label, Manifest};
use crate::verdict::Approval;

/// The most bytes of the file: two sets of keys and some labels are far fewer.
pub const MAX_STATE_BYTES: usize = 8 * 1024;

/// The version of the file that is read and written here: its first byte.
const VERSION: u8 = 1;

/// What of the things that a house needs works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Working {
    /// The provider gave addresses, and the internet answers.
    pub wan: bool,
    /// A name of the internet is resolved.
    pub dns: bool,
    /// A peer or a relay of the private network answers.
    pub private: bool,
    /// A LAN port has a link, and addresses are given out there.
    pub lan: bool,
}

/// Of a release what outlives its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// For people.
    pub version: Label,
    /// As in [`Manifest`].
    pub counter: u64,
    /// The floor that it raises once it is confirmed.
    pub floor: u64,
    /// When it was signed.
    pub made: UnixTime,
    /// The release keys that it brings.
    pub keys: Option<KeySet>,
    /// Whose word it is.
    pub approval: Approval,
}

impl Release {
    /// What is kept of `manifest`.
    pub fn of(manifest: &Manifest, approval: Approval) -> Self {
        Self {
            version: manifest.version.clone(),
            counter: manifest.counter,
            floor: manifest.floor,
            made: manifest.made,
            keys: manifest.keys.clone(),
            approval,
        }
    }
}

/// How a slot that waits to be confirmed is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It runs, or is about to.
    Trying,
    /// Something that worked before doesn't, and the fault may lie outside: the slot from before runs
    /// again, to see whether it works there.
    Asking {
        /// There it didn't work either, for some time.
        was_out: bool,
    },
}

/// A slot that was chosen and isn't confirmed yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Which.
    pub target: Slot,
    /// What is in it.
    pub release: Release,
    /// What worked before the reboot.
    pub before: Working,
    /// Seconds that count against it.
    pub charged_s: u32,
    /// How often it was doubted and tried again.
    pub rounds: u8,
    /// How it is tried.
    pub phase: Phase,
}

/// What became of the last slot that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which slot it was in.
    pub slot: Slot,
    /// What was in it.
    pub version: Label,
    /// What became of it.
    pub ended: Ended,
}

/// What became of a slot that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// What worked before works; it is the good one.
    Confirmed,
    /// A person said that it is good.
    ConfirmedByHand,
    /// It never came up, as often as the boot loader tried.
    NeverCameUp,
    /// Something that worked before didn't work in it for too long.
    DidNotWork {
        /// What worked in it when it was left.
        working: Working,
    },
    /// The slot from before was asked, and there it worked at once.
    WorkedBefore,
    /// A person went back.
    RolledBack,
    /// It was left before it was confirmed: its installation wasn't finished, or another was chosen.
    Left,
}

/// What a box keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Bundles with a counter below are refused.
    pub floor: u64,
    /// The calendar is no earlier than this.
    pub validity_floor: UnixTime,
    /// The release keys that the last confirmed release brought.
    pub keys: Option<KeySet>,
    /// The slot that is being written: what is in it is no system.
    pub writing: Option<Slot>,
    /// The slot that waits to be confirmed.
    pub pending: Option<Pending>,
    /// What became of the last one.
    pub last: Option<Outcome>,
}

/// Why a state was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refused. What was there is still there.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: read, write.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not what was written.
    #[error("what is kept about updates is damaged")]
    Damaged,
    /// Written by a later release.
    #[error("what is kept about updates has format {found}, and this release reads {VERSION}")]
    Newer {
        /// Its format.
        found: u8,
    },
}

impl State {
    /// Reads what [`State::encode`] wrote.
    ///
    /// # Errors
    /// [`StateError::Damaged`] or [`StateError::Newer`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let split = bytes.len().checked_sub(HASH_BYTES);
        let (body, hash) = bytes.split_at(split.ok_or(StateError::Damaged)?);
        if bytes.len() > MAX_STATE_BYTES || hash != sum(body) {
            return Err(StateError::Damaged);
        }
        match body.split_first() {
            Some((&VERSION, body)) => canonical::decode(body).map_err(|_| StateError::Damaged),
            Some((&found, _)) if found > VERSION => Err(StateError::Newer { found }),
            _ => Err(StateError::Damaged),
        }
    }

    /// Writes it: one byte of version, postcard, and a labelled hash of both.
    pub fn encode(&self) -> Vec<u8> {
        // Every type in it has a form in postcard.
        let mut bytes = postcard::to_extend(self, vec![VERSION]).unwrap_or_default();
        let hash = sum(&bytes);
        bytes.extend_from_slice(&hash);
        bytes
    }

    /// What a confirmed release changes: floors and keys. Only the owner's word lowers the floor, and only
    /// the release keys' brings release keys.
    pub fn raise(&mut self, release: &Release) {
        let is_below = release.counter < self.floor;
        self.floor = match is_below && release.approval.by_owner {
            true => release.floor,
            false => self.floor.max(release.floor),
        };
        self.validity_floor = self.validity_floor.max(release.made);
        let kept = self.keys.as_ref().map(|keys| keys.generation);
        let brought = release
            .keys
            .as_ref()
            .filter(|_| release.approval.by_release);
        if let Some(keys) = brought.filter(|keys| kept.is_none_or(|kept| kept < keys.generation)) {
            self.keys = Some(keys.clone());
        }
    }
}

fn sum(body: &[u8]) -> [u8; HASH_BYTES] {
    labelled("altnet update state v1", &[body])
}

/// Where a state is kept.
pub trait Keep {
    /// Puts `state` in the place of what is kept, and returns once it stays through a power cut.
    ///
    /// # Errors
    /// [`StateError::Io`]; then what was kept before still is.
    fn save(&mut self, state: &State) -> Result<(), StateError>;
}

/// A file that is replaced whole.
#[derive(Clone, Debug)]
pub struct KeptFile(PathBuf);

impl KeptFile {
    /// The file at `path`, which needn't be there yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Reads it; `None` if there is none.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn load(&self) -> Result<Option<State>, StateError> {
        let failed = |source| self.failed("read", source);
        let file = match File::open(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed)?,
        };
        let mut bytes = Vec::new();
        let most = MAX_STATE_BYTES as u64 + 1;
        file.take(most).read_to_end(&mut bytes).map_err(failed)?;
        State::decode(&bytes).map(Some)
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> StateError {
        let path = self.0.clone();
        StateError::Io {
            doing,
            path,
            source,
        }
    }
}

impl Keep for KeptFile {
    fn save(&mut self, state: &State) -> Result<(), StateError> {
        replace(&self.0, &state.encode()).map_err(|source| self.failed("write", source))
    }
}

/// Writes beside, syncs, renames over, and syncs the directory.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().inspect_err(|_| {
        // What is left of it takes room and means nothing.
        let _ = fs::remove_file(&beside);
    })?;
    let parent = path.parent().filter(|path| !path.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MADE, manifest, set};
    use proptest::prelude::*;

    const RELEASE: Approval = Approval {
        by_release: true,
        by_owner: false,
    };

    fn full() -> State {
        let release = Release {
            keys: Some(set(2, 2, &[1, 2, 3])),
            ..Release::of(&manifest(10), RELEASE)
        };
        State {
            floor: 5,
            validity_floor: MADE,
            keys: Some(set(1, 1, &[1])),
            writing: Some(Slot::B),
            pending: Some(Pending {
                target: Slot::B,
                release,
                before: Working {
                    wan: true,
                    ..Working::default()
                },
                charged_s: 60,
                rounds: 1,
                phase: Phase::Asking { was_out: true },
            }),
            last: Some(Outcome {
                slot: Slot::A,
                version: "0.1.0".parse().unwrap(),
                ended: Ended::NeverCameUp,
            }),
        }
    }

    #[test]
    fn a_state_comes_back_from_its_file_and_is_nobody_elses_to_read() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mut kept = KeptFile::at(dir.path().join("update.state"));
        assert!(kept.load().unwrap().is_none());
        for state in [full(), State::default()] {
            kept.save(&state).unwrap();
            assert_eq!(kept.load().unwrap(), Some(state));
        }
        let mode = fs::metadata(kept.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_write_that_fails_leaves_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = KeptFile::at(dir.path().join("none/update.state"));
        assert!(matches!(kept.save(&full()), Err(StateError::Io { .. })));
        let path = dir.path().join("taken");
        fs::create_dir(&path).unwrap();
        let mut kept = KeptFile::at(&path);
        assert!(kept.save(&full()).is_err());
        assert!(path.is_dir());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_later_format_is_told_from_damage() {
        let mut later = vec![2, 0];
        let hash = sum(&later);
        later.extend_from_slice(&hash);
        let found = State::decode(&later);
        assert!(matches!(found, Err(StateError::Newer { found: 2 })));
        assert!(matches!(State::decode(&[]), Err(StateError::Damaged)));
    }

    #[test]
    fn floors_only_rise_but_by_the_owners_keys() {
        let release = |counter, floor, by_owner: bool| Release {
            counter,
            floor,
            approval: Approval {
                by_release: !by_owner,
                by_owner,
            },
            ..Release::of(&manifest(10), RELEASE)
        };
        let mut state = State::default();
        state.raise(&release(9, 8, false));
        assert_eq!((state.floor, state.validity_floor), (8, MADE));
        state.raise(&release(9, 3, true));
        assert_eq!(state.floor, 8);
        state.raise(&release(7, 3, true));
        assert_eq!(state.floor, 3);
    }

    #[test]
    fn keys_of_a_higher_generation_count_by_the_release_keys_word_alone() {
        let with = |keys, by_release: bool| Release {
            keys: Some(keys),
            approval: Approval {
                by_release,
                by_owner: !by_release,
            },
            ..Release::of(&manifest(10), RELEASE)
        };
        let mut state = State::default();
        state.raise(&with(set(2, 1, &[9]), false));
        assert_eq!(state.keys, None);
        state.raise(&with(set(2, 1, &[4]), true));
        state.raise(&with(set(1, 1, &[5]), true));
        assert_eq!(state.keys, Some(set(2, 1, &[4])));
        state.raise(&with(set(3, 1, &[6]), true));
        assert_eq!(state.keys, Some(set(3, 1, &[6])));
    }

    proptest! {
        #[test]
        fn no_damage_is_believed(at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index) {
            let good = full().encode();
            let mut bad = good.clone();
            bad[at.index(good.len())] ^= flip;
            prop_assert!(State::decode(&bad).is_err());
            prop_assert!(State::decode(&good[..cut.index(good.len())]).is_err());
        }
    }
}
