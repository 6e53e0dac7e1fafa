//! Values of the document read: texts, words, lists, truths and numbers, each with its fault.

use std::ops::Range;

use altnet_wire::id::Name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{At, TOP};
use crate::policy::fault::{Reporter, did_you_mean, nearest};
use crate::policy::words::{self, Wrong};

pub(super) struct Reader<'t> {
    pub(super) report: Reporter<'t>,
    /// Where hours are named first.
    pub(super) hours: Option<Range<usize>>,
}

pub(super) type Value<'v> = Spanned<DeValue<'v>>;

/// One table of a list: what it is called in faults, what may stand in it, where it begins.
pub(super) struct Entry<'v> {
    pub(super) what: &'static str,
    pub(super) known: &'static [&'static str],
    pub(super) table: &'v DeTable<'v>,
    pub(super) head: Range<usize>,
}

impl Reader<'_> {
    pub(super) fn wrong(&mut self, span: &Range<usize>, (what, next): Wrong) {
        self.report.fault(span, what, next);
    }

    /// Understands one text, or notes why not.
    pub(super) fn word<T>(
        &mut self,
        at: &At<String>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        read(&at.value)
            .map_err(|wrong| self.wrong(&at.span, wrong))
            .ok()
    }

    /// Refuses keys that mean nothing here.
    pub(super) fn only(&mut self, table: &DeTable<'_>, known: &[&str], place: &str) {
        for key in table.keys() {
            let word: &str = key.get_ref();
            if known.contains(&word) {
                continue;
            }
            let next = match TOP.contains(&word) {
                true => format!(
                    "Write it further up, before the first line that begins with [ (or as [{word}])."
                ),
                false => format!(
                    "{}What may stand there: {}.",
                    did_you_mean(word, known.iter().copied()),
                    known.join(", ")
                ),
            };
            self.report.fault(
                &key.span(),
                format!("{place} has nothing called `{word}`"),
                next,
            );
        }
    }

    pub(super) fn table<'v>(
        &mut self,
        value: &'v Value<'v>,
        what: &str,
        next: &str,
    ) -> Option<&'v DeTable<'v>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.report
                .fault(&value.span(), format!("{what} is no table"), next);
        }
        table
    }

    pub(super) fn text(&mut self, value: &Value<'_>) -> Option<At<String>> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            let kind = value.get_ref().type_str();
            let message = format!("a text in quotes is needed, not {kind}");
            self.report
                .fault(&value.span(), message, "Put it in quotes.");
        }
        Some(At {
            value: text?.to_owned(),
            span: value.span(),
        })
    }

    /// A list of texts; one alone needs no brackets.
    pub(super) fn texts(&mut self, value: &Value<'_>) -> Vec<At<String>> {
        match value.get_ref().as_array() {
            Some(array) => array.iter().filter_map(|value| self.text(value)).collect(),
            None if value.get_ref().is_str() => self.text(value).into_iter().collect(),
            None => {
                let kind = value.get_ref().type_str();
                let message = format!("a list is needed, not {kind}");
                let next = "Write it as in [\"one\", \"two\"].";
                self.report.fault(&value.span(), message, next);
                Vec::new()
            }
        }
    }

    pub(super) fn words<T>(
        &mut self,
        value: &Value<'_>,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        let texts = self.texts(value);
        let mut words = Vec::new();
        for at in texts {
            if let Some(value) = self.word(&at, &read) {
                let span = at.span;
                words.push(At { value, span });
            }
        }
        words
    }

    pub(super) fn truth(&mut self, table: &DeTable<'_>, key: &str) -> bool {
        let Some(value) = table.get(key) else {
            return false;
        };
        let truth = value.get_ref().as_bool();
        if truth.is_none() {
            let message = format!("{key} is true or false");
            self.report.fault(
                &value.span(),
                message,
                "Write true or false, without quotes.",
            );
        }
        truth.unwrap_or_default()
    }

    pub(super) fn name(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>) -> Option<At<Name>> {
        let at = At {
            value: key.get_ref().to_string(),
            span: key.span(),
        };
        let value = self.word(&at, words::name)?;
        let span = at.span;
        Some(At { value, span })
    }

    /// The tables of a list, as `[[rules]]` begins them.
    pub(super) fn entries<'v>(
        &mut self,
        value: &'v Value<'v>,
        key: &str,
        what: &'static str,
        known: &'static [&'static str],
    ) -> Vec<Entry<'v>> {
        let next = format!("Write [[{key}]], with two brackets, before each {what}.");
        let Some(array) = value.get_ref().as_array() else {
            let message = format!("{key} are a list");
            self.report.fault(&value.span(), message, next);
            return Vec::new();
        };
        let mut entries = Vec::new();
        for value in array {
            let Some(table) = self.table(value, &format!("a {what}"), &next) else {
                continue;
            };
            self.only(table, known, &format!("a {what}"));
            // Of a table the span is its whole text; its first line is where it is looked for.
            let start = value.span().start;
            entries.push(Entry {
                what,
                known,
                table,
                head: start..start,
            });
        }
        entries
    }

    /// A list that may not be missing or empty.
    pub(super) fn needed<T>(
        &mut self,
        entry: &Entry<'_>,
        key: &str,
        example: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        let what = entry.what;
        let Some(value) = self.value(entry, key, example) else {
            return Vec::new();
        };
        if value
            .get_ref()
            .as_array()
            .is_some_and(|array| array.is_empty())
        {
            let message = format!("the {what}'s {key} names nothing, so it would allow nothing");
            let next = format!("Write {key} = {example} in the {what}.");
            self.report.fault(&value.span(), message, next);
            return Vec::new();
        }
        self.words(value, read)
    }

    /// A whole number from 1 to `most` that may not be missing.
    pub(super) fn number(
        &mut self,
        entry: &Entry<'_>,
        key: &str,
        example: &str,
        most: u16,
    ) -> Option<u16> {
        let value = self.value(entry, key, example)?;
        let integer = value.get_ref().as_integer();
        let number = integer.and_then(|integer| {
            let is_decimal = integer.radix() == 10;
            integer.as_str().parse().ok().filter(|_| is_decimal)
        });
        let number = number.filter(|number| (1..=most).contains(number));
        if number.is_none() {
            let message = format!("{key} is a whole number from 1 to {most}");
            let next = format!("Write {key} = {example}, without quotes.");
            self.report.fault(&value.span(), message, next);
        }
        number
    }

    /// What may not be missing.
    fn value<'v>(&mut self, entry: &Entry<'v>, key: &str, example: &str) -> Option<&'v Value<'v>> {
        let value = entry.table.get(key);
        // A slip in the key was told already.
        let slips = entry.table.keys().map(|other| -> &str { other.get_ref() });
        let mut slips = slips.filter(|other| !entry.known.contains(other));
        let is_slip = |other| nearest(other, entry.known.iter().copied()) == Some(key);
        if value.is_none() && !slips.any(is_slip) {
            let what = entry.what;
            let message = format!("the {what} has no {key}");
            let next = format!("Write {key} = {example} in the {what}.");
            self.report.fault(&entry.head, message, next);
        }
        value
    }
}
