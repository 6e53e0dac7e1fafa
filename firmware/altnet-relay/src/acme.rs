//! A certificate that another process gets and renews by ACME (RFC 8555): `altnet-acme`.
//!
//! In: the folder that it writes. Out: the certificate to show, and for who validates by tls-alpn-01
//! (RFC 8737) the one that answers.
//!
//! Files there are replaced by renaming: each is whole or absent. They are looked at when somebody
//! connects, so that nobody has to say that there is a new one, and none is kept longer than it is
//! there. A file that is of no use changes nothing: what was shown is shown on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::OFlags;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use zeroize::Zeroizing;

use crate::certificate::{Certificate, CertificateError};

/// What a validator asks for beside TLS (RFC 8737 section 6.2).
pub const ACME_TLS: &[u8] = b"acme-tls/1";
/// The longest name that a certificate is asked for, in bytes: its challenge's file is named so.
pub const MAX_NAME_BYTES: usize = 240;
/// The largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 << 10;
const CERTIFICATE_FILE: &str = "certificate.pem";
const CHALLENGE_ENDING: &str = "challenge";

/// Where `altnet-acme` puts what a relay shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folder(PathBuf);

impl Folder {
    /// The folder at a path; it may come to be later.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file with the certificate, its chain and its key, in PEM: one file, so that they fit.
    pub fn certificate(&self) -> PathBuf {
        self.0.join(CERTIFICATE_FILE)
    }

    /// The file with what answers for `name`, in PEM too; `None` for what is no host name.
    pub fn challenge(&self, name: &str) -> Option<PathBuf> {
        let name = name.to_ascii_lowercase();
        is_host_name(&name).then(|| self.0.join(format!("{name}.{CHALLENGE_ENDING}")))
    }

    /// Whether a file of this folder is a challenge's.
    pub fn is_challenge(path: &Path) -> bool {
        let name = path.file_stem().and_then(|name| name.to_str());
        path.extension() == Some(CHALLENGE_ENDING.as_ref()) && name.is_some_and(is_host_name)
    }
}

/// Whether a certificate may be asked for this name: labels of letters in lower case, digits and inner
/// hyphens, at least two of them, and the last not of digits alone: that is an address.
///
/// Source: RFC 1123 section 2.1, RFC 1034 section 3.1.
pub fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes
                .iter()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
    name.len() <= MAX_NAME_BYTES
        && name.split('.').all(is_label)
        && name
            .rsplit_once('.')
            .is_some_and(|(_, last)| !is_number(last))
}

/// What to do when another certificate is shown, or can't be; called once for each change.
pub type Tell = Arc<dyn Fn(Result<(), &CertificateError>) + Send + Sync>;

/// Which file it was, so that one is read once.
type Stamp = (u64, u64, i64, i64, u64);

/// What the folder holds, as a relay shows it.
pub(crate) struct Renewed {
    folder: Folder,
    tell: Tell,
    provider: Arc<CryptoProvider>,
    meta: CertificateDer<'static>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    stamp: Option<Stamp>,
    /// Why the file couldn't be opened the last time, unless it is absent.
    trouble: Option<io::ErrorKind>,
    shown: Option<Arc<CertifiedKey>>,
}

impl std::fmt::Debug for Renewed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Renewed").field(&self.folder).finish()
    }
}

impl Renewed {
    pub(crate) fn new(
        folder: Folder,
        tell: Tell,
        provider: Arc<CryptoProvider>,
        meta: CertificateDer<'static>,
    ) -> Self {
        Self {
            folder,
            tell,
            provider,
            meta,
            seen: Mutex::default(),
        }
    }

    /// The certificate that is in the folder, or was there when it was last of use.
    ///
    /// Reads a small file at most, and mostly asks only whether it is another one than before.
    pub(crate) fn current(&self) -> Option<Arc<CertifiedKey>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.folder.certificate();
        match look(&path, seen.stamp) {
            Ok(None) => {}
            Ok(Some((stamp, text))) => {
                seen.stamp = Some(stamp);
                seen.trouble = None;
                let read = Certificate::of_pem(&path, &text)
                    .and_then(|certificate| certificate.certified(&self.provider, &self.meta));
                match read {
                    Ok(certified) => {
                        seen.shown = Some(certified);
                        (self.tell)(Ok(()));
                    }
                    Err(e) => (self.tell)(Err(&e)),
                }
            }
            Err(e) => {
                let is_news = seen.trouble != Some(e.kind());
                seen.trouble = Some(e.kind());
                seen.stamp = None;
                if is_news && e.kind() != io::ErrorKind::NotFound {
                    (self.tell)(Err(&CertificateError::File { path, source: e }));
                }
            }
        }
        seen.shown.clone()
    }

    /// What answers for `name`, while it is there.
    pub(crate) fn challenge(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let path = self.folder.challenge(name)?;
        let (_, text) = look(&path, None).ok()??;
        let certificate = Certificate::of_pem(&path, &text).ok()?;
        // By itself, as RFC 8737 section 3 has it: no second certificate.
        certificate.alone(&self.provider).ok()
    }
}

/// Opens a file of the folder, to read or as `options` say. The folder is of a user whom nobody trusts:
/// what isn't a file is refused, and never waited for.
///
/// # Errors
/// The filesystem's, or that it is no file.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // A pipe would have us wait until somebody writes, and a link leads anywhere. Files are as ever.
    let flags = OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let options = options.custom_flags(flags.bits().cast_signed());
    let file = options.open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no file; remove it",
        ));
    }
    Ok(file)
}

/// Reads a file, unless it is the one that was read.
fn look(path: &Path, known: Option<Stamp>) -> io::Result<Option<(Stamp, Zeroizing<Vec<u8>>)>> {
    // Most of the time nothing is new: then it isn't even opened.
    if known.is_some() && known == Some(stamp(&fs::symlink_metadata(path)?)) {
        return Ok(None);
    }
    let file = open(path, OpenOptions::new().read(true))?;
    let found = file.metadata()?;
    let stamp = stamp(&found);
    // Room for all of it at once: a text that is moved leaves a copy of its key behind.
    let length = found.len().min(MAX_FILE_BYTES) as usize;
    let mut text = Zeroizing::new(Vec::with_capacity(length + 1));
    file.take(MAX_FILE_BYTES).read_to_end(&mut text)?;
    Ok(Some((stamp, text)))
}

fn stamp(file: &fs::Metadata) -> Stamp {
    let changed = (file.mtime(), file.mtime_nsec());
    (file.dev(), file.ino(), changed.0, changed.1, file.len())
}

/// Whether a client with these protocols comes to validate: only then would `acme-tls/1` be agreed on,
/// as the relay's own goes first.
pub(crate) fn is_validation<'a>(protocols: impl Iterator<Item = &'a [u8]>, own: &[u8]) -> bool {
    let mut asks = false;
    for protocol in protocols {
        if protocol == own {
            return false;
        }
        asks |= protocol == ACME_TLS;
    }
    asks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_leads_to_a_file_of_the_folder_and_nowhere_else() {
        let folder = Folder::new(Path::new("/acme"));
        let found = folder.challenge("Relay.Example.net").unwrap();
        assert_eq!(found, Path::new("/acme/relay.example.net.challenge"));
        assert!(Folder::is_challenge(&found) && !Folder::is_challenge(&folder.certificate()));
        for name in [
            "",
            "a",
            "..",
            "../a.b",
            "a..b",
            "a/b.c",
            "-a.b",
            "a-.b",
            "a.b.",
            "a\0.b",
            "192.0.2.1",
            "a.1",
        ] {
            assert_eq!(folder.challenge(name), None, "{name:?}");
        }
        assert_eq!(folder.challenge(&format!("{}.a", "a.".repeat(120))), None);
    }

    #[test]
    fn what_is_no_file_is_refused_and_not_waited_for() {
        let home = tempfile::tempdir().unwrap();
        let folder = Folder::new(home.path());
        let challenge = folder.challenge("x.y").unwrap();
        for path in [&folder.certificate(), &challenge] {
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
            let said = look(path, None).unwrap_err();
            assert_eq!(said.kind(), io::ErrorKind::InvalidInput, "{said}");
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
            assert!(look(path, None).is_err());
            fs::remove_dir(path).unwrap();
            fs::write(home.path().join("elsewhere"), "a secret").unwrap();
            std::os::unix::fs::symlink("elsewhere", path).unwrap();
            assert!(look(path, None).is_err());
            fs::remove_file(path).unwrap();
            fs::write(path, "text").unwrap();
            let (stamp, text) = look(path, None).unwrap().unwrap();
            assert_eq!(text.as_slice(), b"text");
            assert!(look(path, Some(stamp)).unwrap().is_none());
        }
    }

    #[test]
    fn only_who_asks_for_nothing_else_validates() {
        let check = |protocols: &[&[u8]]| is_validation(protocols.iter().copied(), b"http/1.1");
        assert!(check(&[ACME_TLS]));
        assert!(check(&[b"h2", ACME_TLS]));
        assert!(!check(&[ACME_TLS, b"http/1.1"]));
        assert!(!check(&[b"http/1.1"]));
        assert!(!check(&[]));
    }

    proptest! {
        #[test]
        fn no_name_leaves_the_folder(name in "[a-zA-Z0-9./\\\\-]{0,260}") {
            let folder = Folder::new(Path::new("/acme"));
            if let Some(path) = folder.challenge(&name) {
                prop_assert_eq!(path.parent(), Some(Path::new("/acme")));
                prop_assert!(path.file_name().unwrap().len() <= 255);
            }
        }
    }
}
