//! What a box keeps until it is a member: its key, a code of its own, and how many tries there were.
//!
//! `claim`, in the folder of the box's configuration, is text of four lines. One that isn't as it was written is made anew, which the
//! log says; a new key has another fingerprint. `claim-code` beside it is the code that came with the disk, and goes
//! before. How many tries this power-on had is in RAM.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use altnet_claim::code::Code;
use altnet_claim::key::BoxSecret;
use altnet_claim::tries::Tries;
use altnet_service::{info, warning};
use anyhow::{Context as _, Result};
use zeroize::Zeroizing;

const FIRST_LINE: &str = "altnet claim 1";
/// More than any file here has.
const MAX_BYTES: u64 = 1024;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The folder of the box's configuration.
    pub etc: PathBuf,
    /// A folder that is empty when the power comes on.
    pub run: PathBuf,
}

/// What is kept.
pub struct Kept {
    places: Places,
    /// The box's key.
    pub secret: BoxSecret,
    own: Code,
    given: Option<Code>,
    /// What was tried.
    pub tries: Tries,
}

impl Kept {
    /// Reads what is there, and makes what isn't.
    ///
    /// # Errors
    /// The disk can't be read or written, or the system gives no chance.
    pub fn open(places: Places) -> Result<Self> {
        fs::create_dir_all(&places.run).with_context(|| shown("make", &places.run))?;
        fs::set_permissions(&places.run, Permissions::from_mode(0o700))
            .with_context(|| shown("protect", &places.run))?;
        let (secret, own, total) = match read(&places.etc.join("claim"))? {
            Some(text) => match parse(&text) {
                Some(found) => found,
                None => {
                    warning!(
                        "what was kept for claiming is damaged: the box has a new key and a new code"
                    );
                    made()?
                }
            },
            None => made()?,
        };
        let given = read(&places.etc.join("claim-code"))?;
        let given = given.and_then(|text| match Code::parse(text.trim()) {
            Ok(code) => Some(code),
            Err(error) => {
                warning!("the code that came with the disk isn't used: {error}");
                None
            }
        });
        let now = read(&places.run.join("tries"))?;
        let now = now.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let kept = Self {
            places,
            secret,
            own,
            given,
            tries: Tries { now, total },
        };
        kept.write()?;
        Ok(kept)
    }

    /// The code that counts.
    pub fn code(&self) -> &Code {
        self.given.as_ref().unwrap_or(&self.own)
    }

    /// The code to show on the console: none if its owner has it already.
    pub fn shown_code(&self) -> Option<&Code> {
        self.given.is_none().then_some(&self.own)
    }

    /// Writes down that a code is tried. None if no more may be.
    ///
    /// # Errors
    /// It can't be written; then none may be tried either.
    pub fn count(&mut self) -> Result<Option<Tries>> {
        let Some(tries) = self.tries.counted() else {
            return Ok(None);
        };
        self.change(tries)?;
        Ok(Some(tries))
    }

    /// Writes down that the last one was right.
    ///
    /// # Errors
    /// It can't be written.
    pub fn give_back(&mut self) -> Result<Tries> {
        self.change(self.tries.given_back())?;
        Ok(self.tries)
    }

    fn change(&mut self, tries: Tries) -> Result<()> {
        self.tries = tries;
        self.write()
    }

    fn write(&self) -> Result<()> {
        // Room for all of it: a text that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(256));
        let _ = write!(text, "{FIRST_LINE}\nkey ");
        for byte in self.secret.as_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        let own = self.own.to_text();
        let _ = write!(text, "\ncode {}\ntries {}\n", *own, self.tries.total);
        replace(&self.places.etc.join("claim"), text.as_bytes())?;
        let now = format!("{}\n", self.tries.now);
        replace(&self.places.run.join("tries"), now.as_bytes())
    }
}

fn made() -> Result<(BoxSecret, Code, u32)> {
    let mut key = Zeroizing::new([0; 32]);
    let mut code = Zeroizing::new([0; altnet_claim::code::CHANCE_BYTES]);
    getrandom::fill(key.as_mut_slice()).context("the system gives no chance")?;
    getrandom::fill(code.as_mut_slice()).context("the system gives no chance")?;
    info!("a key and a code are made, to be claimed by");
    Ok((BoxSecret::new(key), Code::new(&code), 0))
}

fn parse(text: &str) -> Option<(BoxSecret, Code, u32)> {
    let mut lines = text.strip_suffix('\n')?.split('\n');
    if lines.next()? != FIRST_LINE {
        return None;
    }
    let digits = lines.next()?.strip_prefix("key ")?;
    let code = Code::parse(lines.next()?.strip_prefix("code ")?).ok()?;
    let total = lines.next()?.strip_prefix("tries ")?.parse().ok()?;
    if lines.next().is_some() || digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    let mut key = Zeroizing::new([0; 32]);
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some((BoxSecret::new(key), code, total))
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| shown("read", path)),
    };
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_BYTES as usize));
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .with_context(|| shown("read", path))?;
    // What isn't text is as damaged as what is empty.
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    Ok(Some(Zeroizing::new(text.to_owned())))
}

/// Whole or not at all, and on the disk.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let beside = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        match path.parent() {
            Some(folder) => File::open(folder)?.sync_all(),
            None => Ok(()),
        }
    };
    written().with_context(|| shown("write", path))
}

fn shown(verb: &str, path: &Path) -> String {
    format!("can't {verb} {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(folder: &Path) -> Places {
        Places {
            etc: folder.into(),
            run: folder.join("run"),
        }
    }

    #[test]
    fn what_was_kept_is_found_again_and_the_power_gives_new_tries() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = Kept::open(places(folder.path())).unwrap();
        let (key, code) = (kept.secret.public(), kept.code().clone());
        assert_eq!(kept.shown_code(), Some(&code));
        for left in (0..5).rev() {
            assert_eq!(kept.count().unwrap().unwrap().left(), left);
        }
        assert_eq!(kept.count().unwrap(), None);
        // The program begins again without a power cut.
        let mut kept = Kept::open(places(folder.path())).unwrap();
        assert_eq!((kept.secret.public(), kept.code()), (key, &code));
        assert_eq!(kept.count().unwrap(), None);
        fs::remove_dir_all(folder.path().join("run")).unwrap();
        let mut kept = Kept::open(places(folder.path())).unwrap();
        assert_eq!(kept.tries, Tries { now: 0, total: 5 });
        kept.count().unwrap().unwrap();
        assert_eq!(kept.give_back().unwrap(), Tries { now: 0, total: 5 });
        let mode = fs::metadata(folder.path().join("claim"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_file_is_made_anew_whatever_is_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("claim");
        Kept::open(places(folder.path())).unwrap();
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            "",
            "\u{fffd}",
            &good[..40],
            &good.replace("key ", "kex "),
            &good.replace("key ", "key é"),
            &(good.clone() + "x\n"),
        ] {
            fs::write(&path, bad).unwrap();
            Kept::open(places(folder.path())).unwrap();
            let anew = fs::read_to_string(&path).unwrap();
            assert!(anew != good && parse(&anew).is_some(), "{bad:?}");
        }
        fs::write(&path, [0xff; 2000]).unwrap();
        assert!(Kept::open(places(folder.path())).is_ok());
    }

    #[test]
    fn the_code_that_came_with_the_disk_counts_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let code = Code::new(&[1; 9]);
        fs::write(
            folder.path().join("claim-code"),
            format!("{}\n", *code.to_text()),
        )
        .unwrap();
        let kept = Kept::open(places(folder.path())).unwrap();
        assert_eq!((kept.code(), kept.shown_code()), (&code, None));
        fs::write(folder.path().join("claim-code"), "11111-11110\n").unwrap();
        let kept = Kept::open(places(folder.path())).unwrap();
        assert_eq!(kept.shown_code(), Some(kept.code()));
    }
}
