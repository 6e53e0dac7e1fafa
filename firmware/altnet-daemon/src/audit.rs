//! The audit log on disk: segment files in one directory, and a thread that appends to them, so
//! that packets don't wait for the medium.
//!
//! In: what [`altnet_core::audit::Output`] says, and questions about what is there. Out: whether an
//! append is synced, pages of entries, verdicts. What an entry says, when it is written and what
//! is given up is decided in `altnet-core`.
//!
//! A file is `audit-<number of its first entry>.log`, mode 0600. It grows at its end and is never
//! changed before it; a power cut leaves a torn end, which is cut off at the next start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use altnet_core::audit::segment::Tail;
use altnet_core::audit::{End, Limits, Link, Log, segment};
use altnet_core::clock::Estimate;
use altnet_wire::time::Instant;

pub mod keeper;
pub mod lines;
pub mod read;

/// The directory's name, within the state directory.
pub const DIRECTORY: &str = "audit";
/// The most that is read of a file, in bytes: twice the largest segment.
const MAX_FILE_BYTES: u64 = 1 << 20;
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".log";
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;

/// The segment files of one directory.
#[derive(Debug)]
pub struct Files {
    path: PathBuf,
    handle: File,
}

impl Files {
    /// Makes the directory if it is missing, closed to other users.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn make(path: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)?;
        Self::look(path)
    }

    /// Takes a directory as it is, to read it.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn look(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.into(),
            handle: File::open(path)?,
        })
    }

    /// Gives the directory and the segments in it to a user, before privileges are dropped.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn give_to(&self, user: u32, group: u32) -> io::Result<()> {
        let is_given = |meta: &fs::Metadata| (meta.uid(), meta.gid()) == (user, group);
        for (segment, _) in self.segments()? {
            let path = self.file(segment);
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_file() && meta.nlink() == 1 && !is_given(&meta) {
                std::os::unix::fs::lchown(path, Some(user), Some(group))?;
            }
        }
        if !is_given(&self.handle.metadata()?) {
            std::os::unix::fs::fchown(&self.handle, Some(user), Some(group))?;
        }
        Ok(())
    }

    /// The segments that are there, each by the number of its first entry and with its size in
    /// bytes, the oldest first.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn segments(&self) -> io::Result<Vec<(u64, u32)>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| {
                let digits = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
                digits
                    .parse()
                    .ok()
                    .filter(|number| name == file_name(*number))
            });
            if let Some(number) = number {
                let bytes = entry.metadata()?.len();
                segments.push((number, u32::try_from(bytes).unwrap_or(u32::MAX)));
            }
        }
        segments.sort_unstable();
        Ok(segments)
    }

    /// The bytes of one segment.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn read(&self, segment: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.file(segment))?;
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes `bytes` at `offset`, where the file ends then, and syncs them.
    ///
    /// # Errors
    /// Whatever the filesystem says; the same may be tried again.
    pub fn append(&self, segment: u64, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(self.file(segment))?;
        file.set_len(offset.into())?;
        file.write_all_at(bytes, offset.into())?;
        file.sync_all()?;
        if offset == 0 {
            self.handle.sync_all()?;
        }
        Ok(())
    }

    /// Removes a segment. That there is none is no error.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn remove(&self, segment: u64) -> io::Result<()> {
        match fs::remove_file(self.file(segment)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn file(&self, segment: u64) -> PathBuf {
        self.path.join(file_name(segment))
    }

    /// The log that goes on from what is here, and what its newest entries add to the chain.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn open_log(
        &self,
        limits: Limits,
        clock: Estimate,
        now: Instant,
    ) -> io::Result<(Log, Vec<Link>)> {
        let mut segments = self.segments()?;
        let mut links = Vec::new();
        let mut tail = None;
        while let Some((last, _)) = segments.last() {
            tail = match self.read(*last) {
                Ok(bytes) => segment::resume(&bytes, &mut |link| links.push(link)),
                Err(e) => {
                    // A house without its network for the sake of a log would be worse.
                    crate::error!("a file of the audit log can't be read: {e}; going on behind it");
                    Some(behind(*last))
                }
            };
            if tail.is_some() {
                break;
            }
            // The power went before it had a beginning.
            self.remove(*last)?;
            segments.pop();
        }
        if let [.., (before, _), _] = segments.as_slice() {
            let mut older = Vec::new();
            let bytes = self.read(*before).unwrap_or_default();
            segment::resume(&bytes, &mut |link| older.push(link));
            links.splice(0..0, older);
        }
        Ok((Log::new(limits, segments, tail, clock, now), links))
    }
}

fn file_name(segment: u64) -> String {
    format!("{PREFIX}{segment:020}{SUFFIX}")
}

/// Where to go on when it can't be known how far a segment goes: behind whatever may be in it.
fn behind(segment: u64) -> Tail {
    Tail {
        end: End {
            sequence: segment.saturating_sub(1),
            ..End::default()
        },
        whole_bytes: 0,
        torn_bytes: 0,
        stray: Some(segment.saturating_add(MAX_FILE_BYTES)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use altnet_core::audit::{Fact, Kind, Output, verify};
    use altnet_wire::time::UnixTime;
    use std::os::unix::fs::PermissionsExt;

    /// What the clock says in tests.
    pub const CLOCK: Estimate = Estimate::Running(UnixTime::from_secs(1_795_000_000));

    /// Does what the log says until it waits.
    pub fn drain(files: &Files, log: &mut Log) {
        log.flush();
        loop {
            match log.poll_output(Instant::ZERO) {
                Output::Append {
                    segment,
                    offset,
                    bytes,
                } => {
                    files.append(segment, offset, &bytes).unwrap();
                    log.handle_appended(true, Instant::ZERO);
                }
                Output::Remove { segment } => files.remove(segment).unwrap(),
                Output::Synced(_) => {}
                Output::Wait(_) => return,
            }
        }
    }

    /// A log of so many acts.
    pub fn written(files: &Files, acts: u64) -> Log {
        let (mut log, _) = files
            .open_log(Limits::of(64 << 10), CLOCK, Instant::ZERO)
            .unwrap();
        for act in 0..acts {
            let fact = Fact::new(Kind::ACT)
                .about("user 0")
                .detail(format!("act \"{act}\""));
            log.record(fact, CLOCK, Instant::ZERO);
            drain(files, &mut log);
        }
        log
    }

    fn judge(files: &Files) -> Result<verify::Verified, verify::Fault> {
        let segments = files.segments().unwrap();
        let bytes: Vec<Vec<u8>> = segments
            .iter()
            .map(|(at, _)| files.read(*at).unwrap())
            .collect();
        verify::verify(bytes.iter().map(Vec::as_slice))
    }

    #[test]
    fn a_log_on_a_real_disk_is_closed_to_others_and_goes_on() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit");
        let files = Files::make(&path).unwrap();
        written(&files, 10);
        written(&files, 10);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&files.file(1)), 0o600);
        let found = judge(&files).unwrap();
        assert_eq!((found.entries, found.segments), (20, 1));
    }

    #[test]
    fn a_torn_end_is_cut_off_and_noted() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        written(&files, 10);
        let whole = files.read(1).unwrap();
        for torn in [whole.len() - 7, segment::HEADER_BYTES + 1, 20] {
            fs::write(files.file(1), &whole[..torn]).unwrap();
            let log = written(&files, 1);
            let found = judge(&files).unwrap();
            assert_eq!(found.last, log.end(), "{torn}");
            let bytes = files.read(1).unwrap();
            let mut kinds = segment::entries(&bytes).map(|(framed, ..)| framed.entry.kind);
            assert_eq!(
                kinds.any(|kind| kind == Kind::REPAIRED),
                torn > segment::HEADER_BYTES
            );
        }
    }

    #[test]
    fn a_file_that_can_not_be_read_stops_nobody_and_shows() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        written(&files, 10);
        // Neither is a segment's.
        fs::write(home.path().join("audit-1.log"), b"x").unwrap();
        fs::write(home.path().join("notes"), b"x").unwrap();
        fs::remove_file(files.file(1)).unwrap();
        fs::create_dir(files.file(1)).unwrap();
        let log = written(&files, 1);
        assert!(log.end().sequence > 10);
        let segments = files.segments().unwrap();
        assert_eq!(segments.len(), 2);
        let bytes = files.read(segments[1].0).unwrap();
        let first = segment::entries(&bytes).next().unwrap().0.entry.kind;
        assert_eq!(first, Kind::BROKEN);
    }

    #[test]
    fn the_newest_entries_are_gone_through_at_start() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        let log = written(&files, 1000);
        assert!(files.segments().unwrap().len() > 2);
        let (again, links) = files
            .open_log(Limits::of(64 << 10), CLOCK, Instant::ZERO)
            .unwrap();
        assert_eq!(again.end(), log.end());
        let numbers: Vec<u64> = links.iter().map(|link| link.sequence).collect();
        let first = numbers[0];
        assert!(numbers.iter().copied().eq(first..=1000), "{first}");
        assert!(first > 1 && first < 900);
    }
}
