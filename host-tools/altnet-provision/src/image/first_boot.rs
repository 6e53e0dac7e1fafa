//! What a box is given before its first boot: files that lie behind the data partition until it takes them.
//!
//! In: files that a person chose, each checked as the box will check it. Out: the bytes of an area of
//! [`AREA_BYTES`] on the bare disk: a sector that says what follows, then an archive (POSIX.1-1988
//! `ustar`) that is checked by length and SHA-256. The box moves the files to where they belong and
//! wipes the area; `linux-image/root/usr/sbin/altnet-first-boot` is that side. The area lies outside of
//! every file system, so that nothing has to be mounted to write it, no operating system shows the keys
//! in it as files, and a power cut while it is wiped harms nothing that boots.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use altnet_claim::code::Code;
use altnet_claim::words::{File, FileName};
use altnet_core::invite::Bundle;
use altnet_update::keys;
use altnet_wire::id::Name;
use altnet_wire::time::UnixTime;
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::table::SECTOR;
use crate::error::{Error, Result};
use crate::files;

/// How large the area is, in bytes. All of it is written, so that nothing stays of an earlier use.
pub const AREA_BYTES: usize = 512 * 1024;

/// Two groups of five, what is between, and the end of the line.
const CODE_LINE: usize = 12;
const BLOCK: usize = SECTOR as usize;
/// The most that the files may have together with the archive around them, in bytes: the first sector says
/// what they are, and the last is where the box says that it has taken them.
const MAX_ARCHIVE_BYTES: usize = AREA_BYTES - 2 * BLOCK;

/// The files, by their names on the box.
#[derive(Default)]
pub struct FirstBoot {
    files: Vec<(&'static str, Zeroizing<Vec<u8>>)>,
}

impl FirstBoot {
    /// Whether no file was given.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The names of the files on the box.
    pub fn names(&self) -> Vec<&'static str> {
        self.files.iter().map(|(name, _)| *name).collect()
    }

    /// Adds what `altnet-provision bundle` made: the box joins with it.
    ///
    /// # Errors
    /// [`Error::Exposed`], [`Error::Damaged`], [`Error::Io`]; [`Error::Input`] if its time is over.
    pub fn bundle(&mut self, path: &Path, now: UnixTime) -> Result<()> {
        let bytes = Zeroizing::new(files::read_private(path)?);
        let anew = "make another with `altnet-provision bundle`.";
        let text = str::from_utf8(&bytes);
        let text = text.map_err(|_| Error::damaged(path, "it is not text").unopened(anew))?;
        let bundle =
            Bundle::parse(text).map_err(|error| Error::damaged(path, error).unopened(anew))?;
        if let Some(invite) = bundle.link.as_ref().and_then(|link| link.body())
            && invite.expires <= now
        {
            return Err(Error::input(
                format!("the bundle {} ended {}", path.display(), invite.expires),
                "Make another with `altnet-provision bundle`.",
            ));
        }
        self.add("first-boot.bundle", bytes);
        Ok(())
    }

    /// Adds the box's `altnet.toml`. `checker` is a program `altnet`, which judges the whole file; without
    /// one it is only seen that the file is TOML.
    ///
    /// # Errors
    /// [`Error::Input`] with what is wrong; [`Error::Io`].
    pub fn config(&mut self, path: &Path, checker: Option<&Path>) -> Result<()> {
        let bytes = Zeroizing::new(files::read(path)?);
        let wrong = |why: &str| {
            Error::input(
                format!("{} is not taken: {why}", path.display()),
                "Mend the file. Nothing was written.",
            )
        };
        let text = str::from_utf8(&bytes).map_err(|_| wrong("it is not text"))?;
        // Its `Display` quotes the line, and a line may hold a password.
        toml::from_str::<toml::Table>(text).map_err(|error| {
            let before = error.span().map_or(0, |span| span.start);
            let line = text.get(..before).unwrap_or(text).lines().count().max(1);
            wrong(&format!("line {line}: {}", error.message()))
        })?;
        if let Some(checker) = checker {
            let run = Command::new(checker)
                .args(["config", "check"])
                .arg(path)
                .output()
                .map_err(Error::io("run", checker))?;
            if !run.status.success() {
                let said = String::from_utf8_lossy(&run.stderr);
                // What follows the first line is the place in the file, with what is written there.
                let said = said
                    .lines()
                    .next()
                    .unwrap_or("`altnet config check` says no");
                return Err(wrong(said.trim_start_matches("altnet: ")));
            }
        }
        self.add("altnet.toml", bytes);
        Ok(())
    }

    /// Adds the box's name on its networks.
    pub fn hostname(&mut self, name: &Name) {
        self.add("hostname", Zeroizing::new(format!("{name}\n").into_bytes()));
    }

    /// Adds the owner's release keys: whose updates the box takes besides, or instead.
    ///
    /// # Errors
    /// [`Error::Input`] or [`Error::Io`].
    pub fn release_keys(&mut self, path: &Path) -> Result<()> {
        let bytes = Zeroizing::new(files::read(path)?);
        keys::read_owner(&bytes).map_err(|error| {
            Error::input(
                format!("{}: {error}", path.display()),
                "An owner's file has `rule adds` or `rule replaces`, `threshold N`, and a line `key KEY WHOSE` for each key.",
            )
        })?;
        self.add("release-keys", bytes);
        Ok(())
    }

    /// Adds the code that the box is claimed by over its LAN, if it gets no bundle.
    pub fn claim_code(&mut self, code: &Code) {
        let mut line = Zeroizing::new(Vec::with_capacity(CODE_LINE));
        line.extend_from_slice(code.to_text().as_bytes());
        line.push(b'\n');
        self.add("claim-code", line);
    }

    /// The files that a box can be given over its LAN too.
    pub fn into_files(self) -> Vec<File> {
        let files = self.files.into_iter().filter_map(|(name, bytes)| {
            let name = FileName::parse(name)?;
            Some(File { name, bytes })
        });
        files.collect()
    }

    fn add(&mut self, name: &'static str, bytes: Zeroizing<Vec<u8>>) {
        self.files.retain(|(known, _)| *known != name);
        self.files.push((name, bytes));
    }

    /// The bytes of the area: zeros if there are no files.
    ///
    /// # Errors
    /// [`Error::Input`] if the files are too large.
    pub fn area(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut area = Zeroizing::new(vec![0; AREA_BYTES]);
        if self.is_empty() {
            return Ok(area);
        }
        let sizes = self.files.iter().map(|(_, bytes)| padded(bytes.len()));
        let length = sizes.fold(2 * BLOCK, |sum, size| sum.saturating_add(size + BLOCK));
        if length > MAX_ARCHIVE_BYTES {
            return Err(Error::input(
                format!(
                    "the files for the first boot need {length} bytes, and there is room for {MAX_ARCHIVE_BYTES}"
                ),
                "Give smaller files.",
            ));
        }
        let (head, rest) = area.split_at_mut(BLOCK);
        let mut at = 0;
        for (name, bytes) in &self.files {
            rest[at..at + BLOCK].copy_from_slice(&entry(name, bytes.len()));
            at += BLOCK;
            rest[at..at + bytes.len()].copy_from_slice(bytes);
            at += padded(bytes.len());
        }
        let sum = digest(&SHA256, &rest[..length]);
        let sum: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
        let said = format!("altnet first-boot 1\nbytes {length}\nsha256 {sum}\n");
        head[..said.len()].copy_from_slice(said.as_bytes());
        Ok(area)
    }
}

/// The program `altnet` that belongs to this one: beside it, or on the search path.
pub fn checker(own: Option<&Path>, search: Option<OsString>) -> Option<PathBuf> {
    let beside = own.and_then(Path::parent).map(Path::to_path_buf);
    let search = search.unwrap_or_default();
    let folders = beside.into_iter().chain(std::env::split_paths(&search));
    let mut programs = folders.map(|folder| folder.join("altnet"));
    programs.find(|program| program.is_file())
}

/// The header of an archive's file: root's, and nobody else's to read.
fn entry(name: &str, length: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    put(0, name);
    put(100, "0000600\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{length:011o}\0"));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

const fn padded(length: usize) -> usize {
    length.div_ceil(BLOCK) * BLOCK
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &'static str, bytes: &[u8]) -> FirstBoot {
        let mut files = FirstBoot::default();
        files.add(name, Zeroizing::new(bytes.to_vec()));
        files
    }

    #[test]
    fn nothing_is_an_area_of_zeros() {
        let area = FirstBoot::default().area().unwrap();
        assert_eq!(area.len(), AREA_BYTES);
        assert!(area.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn tar_reads_what_was_packed() {
        for length in [0, 1, 511, 512, 513, 100_000] {
            let bytes: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let area = with("hostname", &bytes).area().unwrap();
            let said = String::from_utf8(area[..BLOCK].to_vec()).unwrap();
            let size = said.lines().nth(1).unwrap().strip_prefix("bytes ").unwrap();
            let size: usize = size.parse().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let archive = folder.path().join("archive");
            std::fs::write(&archive, &area[BLOCK..BLOCK + size]).unwrap();
            let run = Command::new("tar")
                .arg("-xf")
                .arg(&archive)
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(
                run.status.success() && run.stderr.is_empty(),
                "{length}: {}",
                String::from_utf8_lossy(&run.stderr)
            );
            let found = std::fs::read(folder.path().join("hostname")).unwrap();
            assert_eq!(found, bytes);
        }
    }

    #[test]
    fn files_that_leave_no_room_are_refused() {
        let most = MAX_ARCHIVE_BYTES - 3 * BLOCK;
        assert!(with("altnet.toml", &vec![b'#'; most]).area().is_ok());
        let error = with("altnet.toml", &vec![b'#'; most + 1]).area();
        assert!(error.unwrap_err().to_string().contains("room for"));
    }

    #[test]
    fn a_bundle_that_others_may_read_or_that_is_damaged_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bundle");
        files::write(&path, b"no bundle").unwrap();
        let mut wish = FirstBoot::default();
        let error = wish.bundle(&path, UnixTime::EPOCH).unwrap_err();
        assert!(error.next_step().contains("Make another"), "{error}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let error = wish.bundle(&path, UnixTime::EPOCH).unwrap_err();
        assert!(matches!(error, Error::Exposed { .. }), "{error}");
        assert!(wish.is_empty());
    }
}
