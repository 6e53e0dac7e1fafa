//! Reading `altnet.toml`, and saying what is wrong with it so that a person finds the place.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
    /// Something in it is wrong.
    #[error("{path}:{place}: {message}{}", quote(.line.as_deref(), .place))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where.
        place: Place,
        /// What, on one line.
        message: String,
        /// The line of the file.
        line: Option<String>,
    },
}

/// A place in a file, counted from 1 as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

fn quote(line: Option<&str>, place: &Place) -> String {
    line.map_or_else(String::new, |line| {
        let number = place.line.to_string();
        let pad = " ".repeat(number.len());
        let before = " ".repeat(place.column.saturating_sub(1));
        format!("\n  {number} | {line}\n  {pad} | {before}^")
    })
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`], whose text names the line and says what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.into(),
            source,
        };
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
            return Err(ConfigError::TooLarge { path: path.into() });
        }
        Self::parse(path, &fs::read_to_string(path).map_err(unreadable)?)
    }

    /// Reads and checks `text`; `path` is named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Wrong`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|e| {
            let place = place(text, e.span().map_or(0, |span| span.start));
            let one_line: Vec<&str> = e.message().lines().map(str::trim).collect();
            ConfigError::Wrong {
                path: path.into(),
                place,
                message: one_line.join(" "),
                line: text.lines().nth(place.line - 1).map(str::to_owned),
            }
        })
    }
}

fn place(text: &str, at: usize) -> Place {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Place {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
