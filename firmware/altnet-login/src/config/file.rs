//! Reading `login.toml`, and saying what is wrong with it so that a person finds the place.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use altnet_service::mistake::{self, Mistake};
use zeroize::Zeroizing;

use super::{Config, MAX_FILE_BYTES};

/// Why a file is not a configuration, or what it names is not what it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It can't be read.
    #[error("can't read {path}; check that it is there and that altnet-login may read it")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
    /// It is larger than it can be.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: that is not the file that is meant")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It isn't text.
    #[error("{path} is not text in UTF-8; write it anew")]
    NoText {
        /// The file.
        path: PathBuf,
    },
    /// Others can read a secret.
    #[error("others can read the secret in {path}; run `chmod 600 {path}` and change the secret")]
    OpenSecret {
        /// The file.
        path: PathBuf,
    },
    /// A certificate or key file holds none, or they don't fit.
    #[error("{path}: {message}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A directory's settings are no use.
    #[error("{name}: {message}")]
    Directory {
        /// The directory's name.
        name: String,
        /// What is wrong.
        message: String,
    },
    /// Something in it is wrong.
    #[error(transparent)]
    Wrong(#[from] Mistake),
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names the line and says what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = read(path, false)?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| ConfigError::NoText { path: path.into() })?;
        Self::parse(path, text)
    }

    /// Reads and checks `text`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = mistake::parse(path, text)?;
        let wrong = |(at, message)| Mistake::at(path, text, at, message);
        config.agree().map_err(wrong)?;
        Ok(config)
    }

    /// What sections must have in common, or not; the place of the first that doesn't.
    fn agree(&self) -> Result<(), (usize, String)> {
        let mut names = BTreeSet::new();
        for name in self.names() {
            if !names.insert(name.get_ref()) {
                let name_is = name.get_ref();
                let message = format!(
                    "the name {name_is:?} is there twice; give each directory one of its own"
                );
                return Err((name.span().start, message));
            }
        }
        if let (Some(oidc), None) = (self.oidc.first(), &self.url) {
            let message = "OpenID Connect sends browsers back to this page: write its address above, like url = \"https://login.home.example\"";
            return Err((oidc.name.span().start, message.into()));
        }
        if self.wants_https() && self.tls.is_none() {
            let message = "an url with https: needs [tls] with a certificate and a key, since this page tells devices by their connections";
            return Err((0, message.into()));
        }
        if let Some(tls) = &self.tls {
            let has_some = tls.certificate.is_some() || tls.key.is_some();
            if tls.files().is_none() && (has_some || !tls.from_network) {
                let message = "[tls] has either the files of a certificate and its key, or from_network = true";
                return Err((0, message.into()));
            }
            if tls.from_network && !self.wants_https() {
                let message = "with from_network the page has one name: write url = \"https://login.home.alt\", or what the network is called";
                return Err((0, message.into()));
            }
        }
        let asks = self
            .tls
            .as_ref()
            .is_some_and(|tls| !tls.client_certificates.is_empty());
        if let (Some(pki), false) = (self.pki.first(), asks) {
            let message = "certificates are shown over TLS: add client_certificates = [\"[::]:444\"] to [tls]";
            return Err((pki.name.span().start, message.into()));
        }
        Ok(())
    }

    fn names(&self) -> impl Iterator<Item = &toml::Spanned<String>> {
        let oidc = self.oidc.iter().map(|section| &section.name);
        let firebase = self.firebase.iter().map(|section| &section.name);
        let ldap = self.ldap.iter().map(|section| &section.name);
        let pki = self.pki.iter().map(|section| &section.name);
        oidc.chain(firebase).chain(ldap).chain(pki)
    }
}

/// Reads a file that isn't larger than it should be nor, if it is a secret, open to others.
pub(super) fn read(path: &Path, is_secret: bool) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.into(),
        source,
    };
    let file = File::open(path).map_err(unreadable)?;
    let meta = file.metadata().map_err(unreadable)?;
    if is_secret && meta.mode() & 0o077 != 0 {
        return Err(ConfigError::OpenSecret { path: path.into() });
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.into() });
    }
    let mut bytes = Zeroizing::new(Vec::new());
    let mut file = file.take(MAX_FILE_BYTES);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}
