//! What is wrong with a file as a whole: all of it at once, each with its place and with what to write instead.

use std::fmt;
use std::path::Path;

use altnet_service::mistake::Mistake;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The most that are told; who has more mends these first.
const MAX_TOLD: usize = 20;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct Wrong {
    /// The key that it is about.
    pub key: Key,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// Where a value is in the file, as `router.network[2].ipv4`: sections are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(&'static str),
    /// Counted from 0.
    Place(usize),
}

impl Key {
    /// `router`.
    pub(crate) fn router() -> Self {
        Self::of("router")
    }

    /// A key of the file's own.
    pub(crate) fn of(name: &'static str) -> Self {
        Self(vec![Step::Name(name)])
    }

    /// A key below this one.
    pub(crate) fn at(&self, name: &'static str) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Name(name));
        Self(steps)
    }

    /// A place in this array, counted from 0.
    pub(crate) fn nth(&self, place: usize) -> Self {
        let mut steps = self.0.clone();
        steps.push(Step::Place(place));
        Self(steps)
    }

    /// The byte of `text` at which the value is; of one that isn't written, that of the table in which it would be.
    fn find(&self, text: &str) -> usize {
        let Ok(document) = DeTable::parse(text) else {
            return 0;
        };
        let mut at = 0;
        let mut value: Option<&Spanned<DeValue>> = None;
        for step in &self.0 {
            let next = match (step, value.map(Spanned::get_ref)) {
                (Step::Name(name), None) => document.get_ref().get(*name),
                (Step::Name(name), Some(DeValue::Table(table))) => table.get(*name),
                (Step::Place(place), Some(DeValue::Array(array))) => array.get(*place),
                _ => None,
            };
            let Some(next) = next else { break };
            at = next.span().start;
            value = Some(next);
        }
        at
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Name(name) if i == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Place(place) => write!(f, "[{}]", place + 1)?,
            }
        }
        Ok(())
    }
}

/// All that is wrong, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wrongs(Vec<Wrong>);

impl Wrongs {
    pub(crate) fn say(&mut self, key: Key, what: impl fmt::Display) {
        let wrong = Wrong {
            key,
            what: what.to_string(),
        };
        if !self.0.contains(&wrong) {
            self.0.push(wrong);
        }
    }

    /// Says that `what` is more than `most`.
    pub(crate) fn bound(&mut self, key: Key, found: usize, most: usize, what: &str) {
        if found > most {
            self.say(
                key,
                format_args!("at most {most} {what}; remove {}", found - most),
            );
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = &Wrong> {
        self.0.iter()
    }

    /// The same with their lines in the file at `path`, whose content is `text`.
    pub fn in_file(&self, path: &Path, text: &str) -> Mistakes {
        let mut found: Vec<(usize, &Wrong)> = self
            .0
            .iter()
            .map(|wrong| (wrong.key.find(text), wrong))
            .collect();
        found.sort_by_key(|(at, _)| *at);
        let mistakes = found.iter().take(MAX_TOLD);
        Mistakes {
            told: mistakes
                .map(|(at, wrong)| Mistake::at(path, text, *at, wrong.to_string()))
                .collect(),
            more: found.len().saturating_sub(MAX_TOLD),
        }
    }
}

impl fmt::Display for Wrongs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, wrong) in self.0.iter().take(MAX_TOLD).enumerate() {
            write!(f, "{}{wrong}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Wrongs {}

/// All that is wrong with a file, by its lines.
#[derive(Debug)]
pub struct Mistakes {
    told: Vec<Mistake>,
    more: usize,
}

impl From<Mistake> for Mistakes {
    fn from(one: Mistake) -> Self {
        Self {
            told: vec![one],
            more: 0,
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, mistake) in self.told.iter().enumerate() {
            write!(f, "{}{mistake}", if i == 0 { "" } else { "\n" })?;
        }
        if self.more > 0 {
            write!(f, "\nand {} more", self.more)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}
