//! Reading `altnet.toml`, and saying what is wrong with it so that a person finds the place.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use altnet_router::config::Router;
use altnet_router::house::Mistakes;
use altnet_service::mistake::{self, Mistake};

use zeroize::Zeroizing;

use super::turn::{PasswordError, refuse_exposed};
use super::{Config, MAX_FILE_BYTES};

/// Why a file is not a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It can't be read.
    #[error(
        "can't read {path}; give the right file with --config, or write one (an empty one will do)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The filesystem's reason.
        #[source]
        source: io::Error,
    },
    /// It is larger than a configuration can be.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes: that is no altnet.toml")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It holds a password, and everybody may read it.
    #[error(transparent)]
    Exposed(#[from] PasswordError),
    /// Something in it is wrong.
    #[error(transparent)]
    Wrong(#[from] Mistake),
    /// What it says of the router doesn't fit together.
    #[error(transparent)]
    House(#[from] Mistakes),
}

/// Reads a configuration's text, which may hold a password.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.into(),
        source,
    };
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Err(ConfigError::TooLarge { path: path.into() });
    }
    Ok(Zeroizing::new(
        fs::read_to_string(path).map_err(unreadable)?,
    ))
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names the line and says what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let config = Self::parse(path, &text)?;
        config.refuse_exposed(path)?;
        Ok(config)
    }

    /// Refuses the file if it holds a password and everybody may read it.
    pub(super) fn refuse_exposed(&self, path: &Path) -> Result<(), ConfigError> {
        let knows_proxy = self.proxy.as_ref().is_some_and(|url| url.contains('@'));
        let knows_turn = self.turn.iter().any(|turn| turn.password.is_some());
        let router = self.router.as_ref();
        if knows_proxy || knows_turn || router.is_some_and(Router::holds_password) {
            refuse_exposed(path)?;
        }
        Ok(())
    }

    /// Reads and checks `text`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`], [`ConfigError::House`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let mut config: Self = mistake::parse(path, text)?;
        config.settle(path, text)?;
        Ok(config)
    }
}
