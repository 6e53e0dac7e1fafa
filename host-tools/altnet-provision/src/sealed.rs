//! Files encrypted with a passphrase: the age format with its scrypt recipient.
//!
//! Any age tool opens them. Every byte is authenticated, so a file that opens is the file that
//! was written.

use std::io::{Read, Write};
use std::path::Path;

use age::secrecy::SecretString;
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// scrypt's log2 N for new files: 256 MiB and about a second, what the age tools use.
const WORK_LOG_N: u8 = 18;
/// The most work a file may ask for, 1 GiB; a damaged header must not take the machine down.
const MAX_WORK_LOG_N: u8 = 20;

/// What only the owner knows. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase {
    text: SecretString,
    work_log_n: u8,
}

impl Passphrase {
    /// Takes a passphrase as typed; one final line end is dropped.
    ///
    /// # Errors
    /// [`Error::Input`] if it is empty.
    pub fn new(text: &str) -> Result<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            return Err(Error::input(
                "the passphrase is empty",
                "Choose one of several words: it is all that guards the keys of a stolen computer.",
            ));
        }
        Ok(Self {
            text: SecretString::from(text.to_owned()),
            work_log_n: WORK_LOG_N,
        })
    }

    /// Spends less work on guarding new files: for tests alone, such a file is not safe to lose.
    #[doc(hidden)]
    #[must_use]
    pub fn with_less_work(mut self, log_n: u8) -> Self {
        self.work_log_n = log_n.clamp(1, WORK_LOG_N);
        self
    }
}

/// Encrypts `plain`.
///
/// # Errors
/// [`Error::Input`] if the cipher cannot be set up.
pub fn seal(plain: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.text.clone());
    recipient.set_work_factor(passphrase.work_log_n);
    let sealed = || -> std::result::Result<Vec<u8>, String> {
        let encryptor =
            age::Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
                .map_err(|error| error.to_string())?;
        let mut out = Vec::new();
        let mut writer = encryptor
            .wrap_output(&mut out)
            .map_err(|error| error.to_string())?;
        writer.write_all(plain).map_err(|error| error.to_string())?;
        writer.finish().map_err(|error| error.to_string())?;
        Ok(out)
    };
    sealed().map_err(|why| {
        Error::input(
            format!("cannot encrypt with this passphrase: {why}"),
            "Try again; encrypting takes 256 MiB of free memory.",
        )
    })
}

/// Decrypts what [`seal`] made; `path` is for the error's sake.
///
/// # Errors
/// [`Error::Damaged`] if it is no such file, [`Error::Passphrase`] if it doesn't open.
pub fn open(sealed: &[u8], passphrase: &Passphrase, path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let damaged = |why: &str| Error::damaged(path, why);
    let wrong = || Error::Passphrase {
        path: path.to_path_buf(),
        next: "use another copy of the file.".into(),
    };
    let decryptor = age::Decryptor::new_buffered(sealed)
        .map_err(|_| damaged("it is cut off or not an age file"))?;
    if !decryptor.is_scrypt() {
        return Err(damaged("it is not encrypted with a passphrase"));
    }
    let mut identity = age::scrypt::Identity::new(passphrase.text.clone());
    identity.set_max_work_factor(MAX_WORK_LOG_N);
    let mut reader = decryptor
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .map_err(|error| match error {
            age::DecryptError::ExcessiveWork { .. } => damaged("it asks for too much work"),
            age::DecryptError::InvalidHeader | age::DecryptError::UnknownFormat => {
                damaged("its header does not read")
            }
            _ => wrong(),
        })?;
    // Reserved at once, so that growing leaves no copies of secrets behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader
        .read_to_end(&mut plain)
        .map_err(|_| damaged("its contents do not verify"))?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).unwrap().with_less_work(2)
    }

    fn try_open(bytes: &[u8], text: &str) -> Result<Zeroizing<Vec<u8>>> {
        open(bytes, &passphrase(text), Path::new("keys.age"))
    }

    #[test]
    fn an_empty_passphrase_is_refused() {
        assert!(Passphrase::new("\n").is_err());
    }

    #[test]
    fn only_the_passphrase_opens_what_it_sealed() {
        let sealed = seal(b"secret", &passphrase("one two\n")).unwrap();
        assert_eq!(*try_open(&sealed, "one two").unwrap(), b"secret");
        assert!(matches!(
            try_open(&sealed, "one three"),
            Err(Error::Passphrase { .. })
        ));
    }

    #[test]
    fn a_file_that_asks_for_too_much_work_is_refused() {
        let sealed = seal(b"secret", &passphrase("one")).unwrap();
        let at = sealed.windows(3).position(|w| w == b" 2\n").unwrap();
        let mut greedy = sealed[..=at].to_vec();
        greedy.extend_from_slice(b"40\n");
        greedy.extend_from_slice(&sealed[at + 3..]);
        let error = try_open(&greedy, "one").unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn no_damaged_file_opens(at: prop::sample::Index, flip in 1u8.., cut: prop::sample::Index, truncate: bool) {
            let sealed = seal(b"secret of some length", &passphrase("one")).unwrap();
            let mut bad = sealed.clone();
            if truncate {
                bad.truncate(cut.index(sealed.len()));
            } else {
                bad[at.index(sealed.len())] ^= flip;
            }
            prop_assert!(try_open(&bad, "one").is_err());
        }
    }
}
