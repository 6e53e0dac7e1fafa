//! Log lines on standard error: one line each, with a level.
//!
//! Facts only: never a key, a password, a code or a packet's contents. Control characters are written as
//! escapes, so a name from the network can't forge a line.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};

use serde::{Deserialize, Serialize};

/// How much is logged: a level and everything above it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Level {
    /// Something doesn't work and somebody must act.
    Error = 0,
    /// Something doesn't work and the process goes on or tries again.
    Warn = 1,
    /// What a person wants to know who looks once a day.
    #[default]
    Info = 2,
    /// What a person wants to know who looks for a fault.
    Debug = 3,
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the level for the whole process.
pub fn set_level(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Whether lines of `level` are written.
pub fn is_on(level: Level) -> bool {
    level as u8 <= LEVEL.load(Ordering::Relaxed)
}

/// Writes one line if `level` is on. Use the macros instead.
pub fn write(level: Level, message: fmt::Arguments<'_>) {
    if !is_on(level) {
        return;
    }
    let mut line = String::with_capacity(128);
    line.push_str(match level {
        Level::Error => "error: ",
        Level::Warn => "warn: ",
        Level::Info => "info: ",
        Level::Debug => "debug: ",
    });
    let _ = write!(OneLine(&mut line), "{message}");
    line.push('\n');
    // One write, so that lines of several threads don't mix; a closed stderr is no fault.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

struct OneLine<'a>(&'a mut String);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if c.is_control() {
                write!(self.0, "{}", c.escape_default())?;
            } else {
                self.0.push(c);
            }
        }
        Ok(())
    }
}

/// Logs at [`Level::Error`].
#[macro_export]
macro_rules! error { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Error, format_args!($($t)*)) } }
/// Logs at [`Level::Warn`].
#[macro_export]
macro_rules! warning { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Warn, format_args!($($t)*)) } }
/// Logs at [`Level::Info`].
#[macro_export]
macro_rules! info { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Info, format_args!($($t)*)) } }
/// Logs at [`Level::Debug`].
#[macro_export]
macro_rules! debug { ($($t:tt)*) => { $crate::log::write($crate::log::Level::Debug, format_args!($($t)*)) } }

/// An error and its causes on one line, `what: why: why`.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_not_forge_a_line() {
        let mut line = String::new();
        let name = "a\nerror: \u{1b}[31mb";
        write!(OneLine(&mut line), "peer {name}").unwrap();
        assert_eq!(line, "peer a\\nerror: \\u{1b}[31mb");
    }

    #[test]
    fn an_error_names_its_causes() {
        let error = crate::privileges::PrivilegeError::Refused {
            step: "change the user",
            source: std::io::Error::other("no room"),
        };
        assert_eq!(chain(&error), "can't change the user: no room");
    }
}
