//! UCI, the files that people write on OpenWrt, read into the same types as TOML.
//!
//! In: a file's text. Out: its sections ([`File::parse`]), or a whole configuration ([`File::read`]): the
//! options of one kind of section are the keys at the top of the type, every other kind of section is
//! a key too, for a table or for a list of tables. What an option may hold is what its key in the type may hold, so there
//! is no second list of names that could fall behind. `1`, `on`, `yes`, `true`, `enabled` and their
//! opposites are truth values, as in OpenWrt's own scripts.
//!
//! It reads what `uci` writes, and refuses where `uci` would guess: an option or a section's name that is there twice, a
//! `;`, a `#` in the middle of a word, shortened words. An empty option is one that isn't there, as for `uci`.
//!
//! Source: libuci's file.c, and OpenWrt's documentation of the format.

use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::mistake::Mistake;

mod lines;
mod read;

/// The most sections in a file.
pub const MAX_SECTIONS: usize = 512;

/// A word of a file, and the byte of the file where it begins. Wiped when it goes: it may be a password.
struct Word {
    text: Zeroizing<String>,
    at: usize,
}

/// `option` or `list`.
enum Value {
    Option(Word),
    List(Vec<Word>),
}

/// An option or a list, with its name.
struct Entry {
    name: Word,
    value: Value,
}

/// `config KIND`, with what follows it.
struct Section {
    kind: Word,
    name: Option<Word>,
    entries: Vec<Entry>,
}

/// The sections of a file.
pub struct File<'a> {
    path: &'a Path,
    text: &'a str,
    sections: Vec<Section>,
}

impl fmt::Debug for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.sections.iter().map(|s| s.kind.text.as_str()).collect();
        f.debug_struct("File")
            .field("path", &self.path)
            .field("sections", &kinds)
            .finish()
    }
}

impl<'a> File<'a> {
    /// Reads the sections of `text`; `path` is named in errors.
    ///
    /// # Errors
    /// The first [`Mistake`].
    pub fn parse(path: &'a Path, text: &'a str) -> Result<Self, Mistake> {
        let sections = lines::sections(text);
        let sections =
            sections.map_err(|wrong| Mistake::at(path, text, wrong.at, wrong.message))?;
        Ok(Self {
            path,
            text,
            sections,
        })
    }

    /// Takes the sections of one kind out, for another reader.
    #[must_use]
    pub fn take(&mut self, kind: &str) -> Self {
        let of_kind = |section: &mut Section| *section.kind.text == kind;
        Self {
            path: self.path,
            text: self.text,
            sections: self.sections.extract_if(.., of_kind).collect(),
        }
    }

    /// What the sections say. The options of `config MAIN`, of which there is at most one, are the keys
    /// at the top.
    ///
    /// # Errors
    /// The first [`Mistake`].
    pub fn read<T: DeserializeOwned>(&self, main: &str) -> Result<T, Mistake> {
        let found = T::deserialize(read::Root {
            sections: &self.sections,
            main,
        });
        found.map_err(|e| {
            let at = e.at.unwrap_or(0);
            Mistake::at(self.path, self.text, at, e.message)
        })
    }
}

#[cfg(test)]
mod tests;
