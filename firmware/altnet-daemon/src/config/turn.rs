//! `[[turn]]`: other people's TURN servers that this gateway may use.

use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use altnet_core::node::MAX_TURN_SERVERS;
use altnet_core::turn::{Credentials, MAX_TEXT_BYTES};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::host::split;

/// The port of TURN over UDP and TCP (RFC 8656 section 3).
const PORT: u16 = 3478;
/// Others on this machine may read a file with one of these bits.
const READ_BY_OTHERS: u32 = 0o004;

/// `[[turn]]`: a server by which peers are reached where nothing better is left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// Its host and port, as `turn.example.net:3478`; without a port 3478.
    pub server: String,
    /// What carries datagrams to it.
    #[serde(default)]
    pub transport: Transport,
    /// Who this gateway is there.
    pub username: String,
    /// The password. The file is to be unreadable for others then.
    #[serde(default)]
    pub password: Option<Password>,
    /// A file that holds the password, in its first line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
}

/// What carries datagrams to a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// UDP.
    #[default]
    Udp,
    /// TCP, where the server's port passes by TCP alone.
    Tcp,
}

/// A password: wiped when it goes, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl Serialize for Password {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(not shown)")
    }
}

impl<'de> Deserialize<'de> for Password {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An error must not repeat what was there instead.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self(Zeroizing::new(text))),
            _ => Err(serde::de::Error::custom("a password is written in quotes")),
        }
    }
}

/// Why a server's password can't be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// The file can't be read.
    #[error("can't read the password of TURN server {server} in {path}")]
    Unreadable {
        /// Whose.
        server: String,
        /// The file.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
    /// Everybody on this machine may read it.
    #[error("{path} holds a password and everybody may read it; run `chmod o= {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// No server takes such a one.
    #[error("the password of TURN server {server} has 1 to {MAX_TEXT_BYTES} bytes")]
    Length {
        /// Whose.
        server: String,
    },
}

impl Turn {
    /// The host's name or address, and the port.
    pub fn host_and_port(&self) -> Option<(&str, u16)> {
        split(&self.server, PORT)
    }

    /// Who this gateway is at the server.
    ///
    /// # Errors
    /// [`PasswordError`].
    pub fn credentials(&self) -> Result<Credentials, PasswordError> {
        let length = |_| PasswordError::Length {
            server: self.server.clone(),
        };
        match (&self.password, &self.password_file) {
            (Some(password), _) => Credentials::new(&self.username, &password.0).map_err(length),
            (None, Some(path)) => {
                let text = self.read(path)?;
                let password = text.lines().next().unwrap_or_default();
                Credentials::new(&self.username, password).map_err(length)
            }
            (None, None) => Credentials::new(&self.username, "").map_err(length),
        }
    }

    fn read(&self, path: &Path) -> Result<Zeroizing<String>, PasswordError> {
        let unreadable = |source| PasswordError::Unreadable {
            server: self.server.clone(),
            path: path.into(),
            source,
        };
        refuse_exposed(path)?;
        // Room for all of it, so that no copy of a part is left behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * MAX_TEXT_BYTES));
        let file = fs::File::open(path).map_err(unreadable)?;
        let mut file = file.take(2 * MAX_TEXT_BYTES as u64);
        file.read_to_string(&mut text).map_err(unreadable)?;
        Ok(text)
    }
}

/// Refuses a file with a password that everybody may read.
///
/// # Errors
/// [`PasswordError::Exposed`].
pub fn refuse_exposed(path: &Path) -> Result<(), PasswordError> {
    let mode = fs::metadata(path).map_or(0, |about| about.mode());
    if mode & READ_BY_OTHERS != 0 {
        return Err(PasswordError::Exposed { path: path.into() });
    }
    Ok(())
}

pub(super) fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Turn>, D::Error> {
    let wrong = |what: &dyn fmt::Display| Err(serde::de::Error::custom(what));
    let all = Vec::<Turn>::deserialize(deserializer)?;
    if all.len() > MAX_TURN_SERVERS {
        return wrong(&format_args!(
            "there are at most {MAX_TURN_SERVERS} [[turn]] sections; remove some"
        ));
    }
    for one in &all {
        let server = &one.server;
        if one.host_and_port().is_none() {
            return wrong(&format_args!(
                "{server:?} is no TURN server; write \"turn.example.net:3478\" or \"[2001:db8::5]:3478\""
            ));
        }
        if one.username.is_empty() || one.username.len() > MAX_TEXT_BYTES {
            return wrong(&format_args!(
                "the username of TURN server {server} has 1 to {MAX_TEXT_BYTES} bytes"
            ));
        }
        match (&one.password, &one.password_file) {
            (Some(_), Some(_)) | (None, None) => {
                return wrong(&format_args!(
                    "TURN server {server} needs either a password or a password_file"
                ));
            }
            (Some(_), None) if one.credentials().is_err() => {
                return wrong(&format_args!(
                    "the password of TURN server {server} has 1 to {MAX_TEXT_BYTES} bytes"
                ));
            }
            _ => {}
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_password_is_read_from_its_file_which_others_may_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let turn = Turn {
            server: "turn.example.net".into(),
            transport: Transport::Udp,
            username: "anna".into(),
            password: None,
            password_file: Some(path.clone()),
        };
        let missing = turn.credentials().err().unwrap();
        assert!(matches!(missing, PasswordError::Unreadable { .. }));
        let cases = [
            ("sesame\n", 0o600, true),
            ("sesame", 0o640, true),
            ("sesame", 0o644, false),
            ("\n", 0o600, false),
        ];
        for (text, mode, is_good) in cases {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(turn.credentials().is_ok(), is_good, "{text:?} {mode:o}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = Password(Zeroizing::new("sesame".into()));
        let shown = format!("{password:?} {}", serde_json::to_string(&password).unwrap());
        assert!(!shown.contains("sesame"), "{shown}");
    }
}
