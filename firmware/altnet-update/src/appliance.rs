//! Updates of a real box: its files, its disks, and what a person can ask of it.
//!
//! | file | says |
//! |---|---|
//! | `/etc/altnet/release` | what this image is ([`Image`]) |
//! | `/etc/altnet/release-keys` | whose releases it takes, if anybody's but its owner's ([`crate::keys::read_pinned`]) |
//! | `/etc/altnet/board.toml` | the board: `loader` in `[boot]` is `u-boot` or `grub` |
//! | `/run/altnet/slot` | `A` or `B`, which runs |
//! | `/run/altnet/installing` | is there while a release is written, for the box's lights |
//! | `/run/altnet/watched` | is there once a [`Watch`] began in this boot |
//! | `/dev/altnet/disk`, `slot-a`, `slot-b` | the whole disk and the slots' partitions |
//! | `/data/etc/release-keys` | the owner's keys, if there are any ([`crate::keys::read_owner`]) |
//! | `/data/etc/update.state` | what is kept ([`State`]) |
//!
//! One process at a time changes something; others are told that it's busy. Nothing here reads a clock
//! or reboots: times come in, and the answer says whether to boot again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use altnet_wire::time::UnixTime;
use serde::Deserialize;

use crate::bundle::Opened;
use crate::choice::{self, Choice, Format, MAX_TRIES, Slot, Standing};
use crate::disk::{Disk, FileDisk};
use crate::install::{Progress, Room, install};
use crate::keys::{self, Trust};
use crate::manifest::Label;
use crate::state::{Ended, Keep, KeptFile, Outcome, Release, State, StateError, Working};
use crate::verdict::Here;

use shown::Shown;

mod error;
mod offer;
mod rescue;
mod shown;
mod watch;

pub use error::Error;
pub use offer::{Calendar, Offer};
pub use watch::{Heard, Watch};

/// The most bytes of a small file.
const MAX_FILE_BYTES: u64 = 64 * 1024;
/// What a FAT boot sector ends with, and where.
const BOOT_MARK: (u64, [u8; 2]) = (510, [0x55, 0xaa]);

/// What an image says of itself: `/etc/altnet/release`, in TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Image {
    /// Whose releases it is one of.
    pub product: Label,
    /// The board it is for, as in its manifest.
    pub board: Label,
    /// For people.
    pub version: Label,
    /// As in its manifest.
    pub counter: u64,
    /// As in its manifest.
    pub floor: u64,
    /// When it was made, in seconds since 1970: the calendar is no earlier.
    pub built: UnixTime,
}

#[derive(Deserialize)]
struct Board {
    boot: Boot,
}

#[derive(Deserialize)]
struct Boot {
    loader: String,
}

/// Where a box's files are.
#[derive(Clone, Debug)]
pub struct Places {
    root: PathBuf,
}

impl Places {
    /// As they are on a box.
    pub fn real() -> Self {
        Self::under("/")
    }

    /// The same below another root.
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// What they are below.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.root.join("etc/altnet").join(name)
    }

    fn run(&self, name: &str) -> PathBuf {
        self.root.join("run/altnet").join(name)
    }

    fn dev(&self, name: &str) -> PathBuf {
        self.root.join("dev/altnet").join(name)
    }

    fn data(&self, name: &str) -> PathBuf {
        self.root.join("data/etc").join(name)
    }
}

/// A box with two slots.
#[derive(Clone, Debug)]
pub struct Appliance {
    places: Places,
    image: Image,
    format: Format,
    running: Slot,
    in_rescue: bool,
}

/// How a box's slots are.
#[derive(Debug)]
pub struct Status {
    /// The release that runs.
    pub image: Image,
    /// The slot that runs.
    pub running: Slot,
    /// What the boot loader goes by.
    pub standing: Standing,
    /// The slot that is begun next.
    pub next: Slot,
    /// Whether the other slot holds a system.
    pub has_way_back: bool,
    /// Releases below are refused.
    pub floor: u64,
    /// What is kept.
    pub state: State,
    /// Why what was kept doesn't count, if it was damaged: then the image's floor counts.
    pub damage: Option<StateError>,
}

/// Held while something is changed; dropping it lets go.
#[derive(Debug)]
struct Lock {
    _file: File,
}

impl Appliance {
    /// Finds out what runs here.
    ///
    /// # Errors
    /// [`Error::NotAnAppliance`], [`Error::Read`] or [`Error::File`].
    pub fn open(places: Places) -> Result<Self, Error> {
        let slot = places.run("slot");
        let text = |path: &Path| match read(path) {
            Err(Error::Read { path, source }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::NotAnAppliance { path })
            }
            other => other.and_then(|bytes| {
                String::from_utf8(bytes).map_err(|_| wrong(path, "it is not UTF-8 text"))
            }),
        };
        let running = Slot::parse(&text(&slot)?).ok_or_else(|| wrong(&slot, "it is not A or B"))?;
        let path = places.etc("release");
        let image = toml::from_str(&text(&path)?).map_err(|error| wrong(&path, error.message()))?;
        let path = places.etc("board.toml");
        let said: Board =
            toml::from_str(&text(&path)?).map_err(|error| wrong(&path, error.message()))?;
        let format = Format::parse_name(&said.boot.loader)
            .ok_or_else(|| wrong(&path, "the loader in [boot] is not u-boot or grub"))?;
        Ok(Self {
            places,
            image,
            format,
            running,
            in_rescue: false,
        })
    }

    /// The slot that runs.
    pub const fn running(&self) -> Slot {
        self.running
    }

    /// How things are.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Choice`] or [`Error::State`]; a state that is damaged is none.
    pub fn status(&self) -> Result<Status, Error> {
        let standing = choice::read(&mut self.whole_to_read()?, self.format)?;
        let (state, damage) = self.state()?;
        Ok(Status {
            image: self.image.clone(),
            running: self.running,
            standing,
            next: standing.choice.begun().0,
            has_way_back: self.has_way_back(&state),
            floor: state.floor.max(self.image.floor),
            state,
            damage,
        })
    }

    /// The release that runs.
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// Judges the head of a bundle, of which nothing after the signatures is read. `name` is for messages.
    ///
    /// # Errors
    /// [`Error::Bundle`] if it is none, and what the box's own files say; that the box doesn't take it is in the
    /// [`Offer`].
    pub fn check(&self, name: &Path, head: impl Read, calendar: Calendar) -> Result<Offer, Error> {
        let (state, _) = self.state()?;
        let trust = self.trust(&state)?;
        let opened = Opened::read(head).map_err(|source| Error::Bundle {
            path: name.to_path_buf(),
            source,
        })?;
        Ok(Offer::judge(
            &opened,
            &self.here(&state, &trust, calendar),
            &self.image,
        ))
    }

    /// Installs the bundle in a file into the other slot, and chooses it; the caller then boots again.
    ///
    /// `before` is what works now. A file is read twice, so that one that is damaged costs nothing; what can be read
    /// only once, a pipe, costs the way back if it breaks off.
    ///
    /// # Errors
    /// [`Error`].
    pub fn install(
        &self,
        bundle: &Path,
        calendar: Calendar,
        before: Working,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Release, Error> {
        let failed = |source| Error::Read {
            path: bundle.to_path_buf(),
            source,
        };
        let open = || File::open(bundle).map(BufReader::new).map_err(failed);
        let is_file = fs::metadata(bundle).map_err(failed)?.is_file();
        let first = if is_file { Some(open()?) } else { None };
        self.install_stream(bundle, first, open()?, calendar, before, progress)
    }

    /// Installs a bundle that is read once, `name` being what messages call it. If `first` is the same one, that is
    /// read whole before, so that one that is damaged costs nothing; without, a stream that breaks off costs the way
    /// back.
    ///
    /// # Errors
    /// [`Error`].
    pub fn install_stream<R: Read>(
        &self,
        name: &Path,
        first: Option<R>,
        bundle: R,
        calendar: Calendar,
        before: Working,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Release, Error> {
        let _lock = self.lock()?;
        let _shown = Shown::begin(self.places.run("installing"));
        let mut state = self.state()?.0;
        let trust = self.trust(&state)?;
        let here = self.here(&state, &trust, calendar);
        let damaged = |source| Error::Bundle {
            path: name.to_path_buf(),
            source,
        };
        let refused = |source| Error::Refused {
            path: name.to_path_buf(),
            source,
        };
        if let Some(first) = first {
            let opened = Opened::read(first).map_err(damaged)?;
            let mut approved = opened.approve(&here).map_err(refused)?;
            let mut piece = Vec::new();
            while let Some(_at) = approved.pieces().next_piece(&mut piece).map_err(damaged)? {}
        }
        let opened = Opened::read(bundle).map_err(damaged)?;
        let mut approved = opened.approve(&here).map_err(refused)?;
        if self.in_rescue {
            state.pending = None;
        }
        let room = Room {
            running: self.running,
            slot: &mut self.disk(self.slot_name(self.running.other()))?,
            whole: &mut self.disk("disk")?,
            format: self.format,
            keep: &mut self.kept(),
            state,
        };
        install(&mut approved, room, before, progress)?;
        Ok(Release::of(approved.manifest(), approved.approval()))
    }

    /// Takes a person's word that the running slot is good.
    ///
    /// # Errors
    /// [`Error::NothingToConfirm`] if nobody waits for it.
    pub fn confirm(&self) -> Result<Outcome, Error> {
        let _lock = self.lock()?;
        let (mut state, _) = self.state()?;
        let pending = state.pending.take();
        let slot = self.running;
        let pending = pending.filter(|pending| pending.target == slot);
        let pending = pending.ok_or(Error::NothingToConfirm { slot })?;
        self.choose(|choice| choice.with_first(slot).with_tries(slot, MAX_TRIES))?;
        state.raise(&pending.release);
        let outcome = Outcome {
            slot,
            version: pending.release.version,
            ended: Ended::ConfirmedByHand,
        };
        state.last = Some(outcome.clone());
        self.kept().save(&state)?;
        Ok(outcome)
    }

    /// Chooses the other slot for good; the caller then boots again. Its floor is not asked: whoever may do
    /// this may flash the box too.
    ///
    /// # Errors
    /// [`Error::NoWayBack`] if there is no system in it.
    pub fn rollback(&self) -> Result<Slot, Error> {
        let _lock = self.lock()?;
        let slot = self.running.other();
        let state = match self.state() {
            Ok((state, _)) => Some(state),
            // What a newer release kept is its own; going back to it needs none of it.
            Err(Error::State(StateError::Newer { .. })) => None,
            Err(error) => return Err(error),
        };
        let fresh = State::default();
        if !self.has_way_back(state.as_ref().unwrap_or(&fresh)) {
            return Err(Error::NoWayBack { slot });
        }
        self.choose(|choice| choice.with_first(slot).with_tries(slot, MAX_TRIES))?;
        if let Some(mut state) = state
            && let Some(pending) = state.pending.take()
        {
            state.last = Some(Outcome {
                slot: pending.target,
                version: pending.release.version,
                ended: Ended::RolledBack,
            });
            self.kept().save(&state)?;
        }
        Ok(slot)
    }

    fn here<'a>(&'a self, state: &State, trust: &'a Trust, calendar: Calendar) -> Here<'a> {
        Here {
            product: &self.image.product,
            board: &self.image.board,
            floor: state.floor.max(self.image.floor),
            now: calendar.now,
            validity_floor: calendar
                .floor
                .max(self.image.built)
                .max(state.validity_floor),
            trust,
        }
    }

    fn choose(&self, change: impl FnOnce(Choice) -> Choice) -> Result<(), Error> {
        let mut whole = self.disk("disk")?;
        let choice = choice::read(&mut whole, self.format)?.choice;
        Ok(choice::write(&mut whole, self.format, change(choice))?)
    }

    fn has_way_back(&self, state: &State) -> bool {
        let other = self.running.other();
        let mut mark = [0; 2];
        let found = FileDisk::open_to_read(&self.places.dev(self.slot_name(other)))
            .and_then(|mut disk| disk.read_at(BOOT_MARK.0, &mut mark));
        state.writing != Some(other) && found.is_ok() && mark == BOOT_MARK.1
    }

    fn trust(&self, state: &State) -> Result<Trust, Error> {
        let is_absent = |error: &Error| {
            let kind = match error {
                Error::Read { source, .. } => Some(source.kind()),
                _ => None,
            };
            kind == Some(io::ErrorKind::NotFound)
        };
        let path = self.places.etc("release-keys");
        let pinned = match read(&path) {
            Err(error) if is_absent(&error) => None,
            other => Some(keys::read_pinned(&other?).map_err(|error| wrong(&path, error))?),
        };
        let path = self.places.data("release-keys");
        let owner = match read(&path) {
            Err(error) if is_absent(&error) => None,
            other => {
                Some(keys::read_owner(&other?).map_err(|source| Error::Keys { path, source })?)
            }
        };
        Ok(Trust::new(pinned, state.keys.clone(), owner))
    }

    /// What is kept, and why that isn't what was kept, if it was damaged.
    fn state(&self) -> Result<(State, Option<StateError>), Error> {
        match self.kept().load() {
            Ok(state) => Ok((state.unwrap_or_default(), None)),
            Err(damage @ StateError::Damaged) => Ok((State::default(), Some(damage))),
            Err(error) => Err(error.into()),
        }
    }

    fn kept(&self) -> KeptFile {
        KeptFile::at(self.places.data("update.state"))
    }

    fn lock(&self) -> Result<Lock, Error> {
        let path = self.places.run("update.lock");
        let failed = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let mut options = OpenOptions::new();
        options.create(true).write(true).truncate(false);
        let file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Error::Busy),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    const fn slot_name(&self, slot: Slot) -> &'static str {
        match slot {
            Slot::A => "slot-a",
            Slot::B => "slot-b",
        }
    }

    fn disk(&self, name: &str) -> Result<FileDisk, Error> {
        let path = self.places.dev(name);
        FileDisk::open(&path).map_err(|source| Error::Read { path, source })
    }

    fn whole_to_read(&self) -> Result<FileDisk, Error> {
        let path = self.places.dev("disk");
        FileDisk::open_to_read(&path).map_err(|source| Error::Read { path, source })
    }
}

fn wrong(path: &Path, why: impl ToString) -> Error {
    Error::File {
        path: path.to_path_buf(),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read {
        path: path.to_path_buf(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    let most = MAX_FILE_BYTES + 1;
    file.take(most).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(wrong(
            path,
            format!("it has more than {MAX_FILE_BYTES} bytes"),
        )),
        false => Ok(bytes),
    }
}
