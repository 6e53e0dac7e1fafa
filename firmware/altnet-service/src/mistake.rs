//! TOML that people write, and saying what is wrong with it so that they find the place.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Something in a file is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{path}:{place}: {message}{}", quote(.line.as_deref(), .place))]
pub struct Mistake {
    path: PathBuf,
    place: Place,
    message: String,
    line: Option<String>,
}

/// A place in a file, counted from 1 as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    /// In characters.
    column: usize,
}

impl Mistake {
    /// What is wrong, on one line, at a byte of `text`, which is in the file `path`.
    pub fn at(path: &Path, text: &str, at: usize, message: String) -> Self {
        let place = Place::of(text, at);
        Self {
            path: path.into(),
            place,
            message,
            line: text.lines().nth(place.line - 1).map(str::to_owned),
        }
    }
}

/// Reads TOML; `path` is named in the error.
///
/// # Errors
/// The first [`Mistake`].
pub fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Mistake> {
    toml::from_str(text).map_err(|e| {
        let one_line: Vec<&str> = e.message().lines().map(str::trim).collect();
        let at = e.span().map_or(0, |span| span.start);
        Mistake::at(path, text, at, one_line.join(" "))
    })
}

impl Place {
    fn of(text: &str, at: usize) -> Self {
        let before = text.get(..at).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Words of which some part is in the name of everything that is secret, misspelt or not.
const SECRETS: [&str; 3] = ["pas", "secret", "proxy"];

/// What may be shown of a line: of one that may hold a secret what stands before it, which in TOML
/// ends with `=` and in UCI with the name of the option.
fn shown(line: &str) -> &str {
    let lower = line.to_ascii_lowercase();
    let named = SECRETS.iter().filter_map(|word| lower.find(word)).min();
    let end_of_name = |rest: &str| {
        let word = rest.find(|c: char| c.is_whitespace() || "='\"".contains(c));
        rest.find('=').map(|equals| equals + 1).or(word)
    };
    let ends = named.and_then(|at| Some(at + end_of_name(line.get(at..)?)?));
    ends.and_then(|end| line.get(..end)).unwrap_or(line)
}

fn quote(line: Option<&str>, place: &Place) -> String {
    line.map(shown).map_or_else(String::new, |line| {
        let number = place.line.to_string();
        let pad = " ".repeat(number.len());
        let column = place.column.min(line.chars().count() + 1);
        let before = " ".repeat(column.saturating_sub(1));
        format!("\n  {number} | {line}\n  {pad} | {before}^")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read")]
    struct File {
        password: Option<String>,
        name: Option<String>,
    }

    fn said(text: &str) -> String {
        let found: Result<File, Mistake> = parse(Path::new("a.toml"), text);
        found.unwrap_err().to_string()
    }

    #[test]
    fn a_mistake_shows_its_line_but_no_secret() {
        assert!(said("nam = \"anna\"").contains("nam = \"anna\""));
        for text in [
            "pasword = \"sesame\"",
            "password = \"sesame",
            "password = \"a\"\npassword = \"sesame\"",
            "turn = [{ passwort = \"sesame\" }]",
            "proxy = \"http://anna:sesame@host\"",
        ] {
            let said = said(text);
            assert!(
                said.contains("a.toml:") && !said.contains("sesame"),
                "{said}"
            );
        }
    }
}
