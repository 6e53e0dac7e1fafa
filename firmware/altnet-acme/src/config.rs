//! `acme.toml`: for which names a certificate is got, from whom, and where it is kept.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use altnet_relay::acme::{MAX_NAME_BYTES, is_host_name};
use altnet_service::mistake::{self, Mistake};
use instant_acme::LetsEncrypt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// Where the configuration is.
pub const DEFAULT_PATH: &str = "/etc/altnet/acme.toml";
/// The most names in a certificate.
pub const MAX_NAMES: usize = 16;
const MAX_CONTACTS: usize = 4;
const MAX_FILE_BYTES: u64 = 64 << 10;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The host names that lead to the relay.
    #[serde(deserialize_with = "names")]
    pub names: Vec<String>,
    /// Whether whoever runs the relay agrees to the terms of the authority.
    #[serde(default)]
    pub agree_to_terms: bool,
    /// E-mail addresses at which the authority may warn.
    #[serde(default, deserialize_with = "contacts")]
    pub contact: Vec<String>,
    /// The URL of the authority's directory (RFC 8555 section 7.1.1).
    #[serde(default = "lets_encrypt", deserialize_with = "directory")]
    pub directory: String,
    /// Whom to believe that the directory is the authority's, a PEM file; those that browsers know if
    /// not said. For an authority of one's own.
    #[serde(default)]
    pub ca: Option<PathBuf>,
    /// Where the certificate and the account are kept.
    #[serde(default = "folder")]
    pub folder: PathBuf,
    /// The group that may read the certificate and its key: what the relay runs as.
    #[serde(default)]
    pub group: Option<String>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It can't be read.
    #[error("can't read {path}; write it, or name another with --config")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
    /// It is longer than any that is meant.
    #[error("{path} is longer than {MAX_FILE_BYTES} bytes; is it the right file?")]
    TooLong {
        /// The file.
        path: PathBuf,
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
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|source| ConfigError::Unreadable {
                path: path.into(),
                source,
            })?;
        // Half of it might say something else than the whole.
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(ConfigError::TooLong { path: path.into() });
        }
        Self::parse(path, &text)
    }

    /// Reads and checks `text`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = mistake::parse(path, text)?;
        if !config.agree_to_terms {
            let whose = if config.directory == lets_encrypt() {
                "https://letsencrypt.org/repository/"
            } else {
                "its site"
            };
            let message = format!(
                "read the terms of the authority at {whose}, and if you agree write agree_to_terms = true"
            );
            return Err(Mistake::at(path, text, 0, message).into());
        }
        Ok(config)
    }

    /// What the authority is told of the contacts (RFC 6068).
    pub fn contact_urls(&self) -> Vec<String> {
        let contacts = self.contact.iter();
        contacts.map(|one| format!("mailto:{one}")).collect()
    }
}

fn lets_encrypt() -> String {
    LetsEncrypt::Production.url().into()
}

fn folder() -> PathBuf {
    "/var/lib/altnet-acme".into()
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
    if names.is_empty() || names.len() > MAX_NAMES {
        return Err(D::Error::custom(format_args!(
            "give 1 to {MAX_NAMES} names that lead to the relay, like names = [\"relay.example.net\"]"
        )));
    }
    if let Some(name) = names.iter().find(|name| !is_host_name(name)) {
        return Err(D::Error::custom(format_args!(
            "{name:?} is no whole host name, like relay.example.net, of at most {MAX_NAME_BYTES} bytes; no authority signs others by this kind of proof"
        )));
    }
    if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        return Err(D::Error::custom("a name is there twice; remove one"));
    }
    Ok(names)
}

fn contacts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let contacts = Vec::<String>::deserialize(deserializer)?;
    let is_good = |one: &String| {
        one.is_ascii()
            && one.contains('@')
            && !one.contains([':', '?', ',', '%', ' '])
            && !one.chars().any(char::is_control)
    };
    if contacts.len() > MAX_CONTACTS || !contacts.iter().all(is_good) {
        return Err(D::Error::custom(format_args!(
            "contact has at most {MAX_CONTACTS} e-mail addresses, like contact = [\"anna@example.net\"]"
        )));
    }
    Ok(contacts)
}

fn directory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let url = String::deserialize(deserializer)?;
    if crate::http::is_https(&url) {
        Ok(url)
    } else {
        Err(D::Error::custom(
            "write the URL of the authority's directory, which begins with https://",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("acme.toml"), text)
    }

    #[test]
    fn a_short_file_is_enough() {
        let config = parse("names = [\"Relay.example.net\"]\nagree_to_terms = true").unwrap();
        assert_eq!(config.names, ["relay.example.net"]);
        assert!(config.directory.contains("letsencrypt.org"));
        let text = "names = [\"a.example\"]\nagree_to_terms = true\ncontact = [\"anna@a.example\"]";
        let urls = parse(text).unwrap().contact_urls();
        assert_eq!(urls, ["mailto:anna@a.example"]);
    }

    #[test]
    fn a_file_that_is_too_long_is_refused_and_not_cut() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("acme.toml");
        let text = "names = [\"a.example\"]\nagree_to_terms = true\n";
        let padded = |length: usize| format!("{text}{}", "#".repeat(length - text.len()));
        std::fs::write(&path, padded(64 << 10)).unwrap();
        assert!(Config::load(&path).is_ok());
        std::fs::write(&path, padded((64 << 10) + 1)).unwrap();
        let said = Config::load(&path).unwrap_err().to_string();
        assert!(said.contains("longer than 65536 bytes"), "{said}");
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_write() {
        let long = format!("{}a.example", "a.".repeat(120));
        for (text, expected) in [
            ("names = [\"a.example\"]", "agree_to_terms = true"),
            ("agree_to_terms = true", "names"),
            ("names = []", "1 to 16 names"),
            ("names = [\"a.example\", \"A.example\"]", "twice"),
            ("names = [\"*.example\"]", "no whole host name"),
            ("names = [\"192.0.2.1\"]", "no whole host name"),
            ("names = [\"a.example/\"]", "no whole host name"),
            (&format!("names = [\"{long}\"]"), "at most 240"),
            (
                "names = [\"a.example\"]\ncontact = [\"mailto:a@b\"]",
                "e-mail",
            ),
            (
                "names = [\"a.example\"]\ndirectory = \"http://ca/\"",
                "https://",
            ),
            ("names = [\"a.example\"]\nfolders = \"/x\"", "folders"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(
                said.contains("acme.toml:") && said.contains(expected),
                "{text}: {said}"
            );
        }
    }
}
