//! From text to sections.

use std::iter::Peekable;
use std::str::CharIndices;

use zeroize::Zeroizing;

use super::{Entry, MAX_SECTIONS, Section, Value, Word};

/// What is wrong, and at which byte.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) message: String,
}

fn wrong<T>(at: usize, message: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong {
        at,
        message: message.into(),
    })
}

/// The sections of a file.
pub(super) fn sections(text: &str) -> Result<Vec<Section>, Wrong> {
    let mut sections: Vec<Section> = Vec::new();
    let mut rest = text.char_indices().peekable();
    while rest.peek().is_some() {
        let mut words = line(&mut rest)?.into_iter();
        let Some(first) = words.next() else { continue };
        let (one, two) = (words.next(), words.next());
        if words.next().is_some() {
            return wrong(
                first.at,
                "there is a word too many; put a value with spaces in quotes",
            );
        }
        match first.text.as_str() {
            "config" => {
                if sections.len() == MAX_SECTIONS {
                    return wrong(
                        first.at,
                        format!("there are at most {MAX_SECTIONS} sections"),
                    );
                }
                let section = begin(&first, one, two)?;
                let twice = |other: &Section| {
                    let names = (other.name.as_ref(), section.name.as_ref());
                    matches!(names, (Some(a), Some(b)) if a.text == b.text)
                };
                if sections.iter().any(twice) {
                    return wrong(first.at, "a section of this name is there already");
                }
                sections.push(section);
            }
            kind @ ("option" | "list") => {
                let Some(section) = sections.last_mut() else {
                    return wrong(first.at, "an option needs a `config` line before it");
                };
                let (Some(name), Some(value)) = (one, two) else {
                    return wrong(first.at, format!("write {kind} NAME 'VALUE'"));
                };
                check_name(&name)?;
                set(section, kind == "list", name, value)?;
            }
            // As `uci export` begins.
            "package" if sections.is_empty() && one.is_some() && two.is_none() => {}
            _ => {
                return wrong(
                    first.at,
                    "a line begins with `config`, `option`, `list` or `#`",
                );
            }
        }
    }
    Ok(sections)
}

fn begin(config: &Word, kind: Option<Word>, name: Option<Word>) -> Result<Section, Wrong> {
    let Some(kind) = kind else {
        return wrong(config.at, "write config KIND, or config KIND 'NAME'");
    };
    check_name(&kind)?;
    let name = name.filter(|name| !name.text.is_empty());
    name.as_ref().map(check_name).transpose()?;
    Ok(Section {
        kind,
        name,
        entries: Vec::new(),
    })
}

/// Letters, digits and `_`, as uci_validate_str() has it.
fn check_name(name: &Word) -> Result<(), Wrong> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.text.is_empty() || !name.text.bytes().all(fits) {
        return wrong(name.at, "a name has letters, digits and `_`");
    }
    Ok(())
}

fn set(section: &mut Section, is_list: bool, name: Word, value: Word) -> Result<(), Wrong> {
    let old = section
        .entries
        .iter_mut()
        .find(|entry| entry.name.text == name.text);
    match (old, is_list) {
        (_, true) if value.text.is_empty() => wrong(name.at, "an entry of a list is not empty"),
        (_, false) if value.text.is_empty() => Ok(()),
        (None, _) => {
            let value = match is_list {
                true => Value::List(vec![value]),
                false => Value::Option(value),
            };
            section.entries.push(Entry { name, value });
            Ok(())
        }
        (
            Some(Entry {
                value: Value::List(list),
                ..
            }),
            true,
        ) => {
            list.push(value);
            Ok(())
        }
        _ => wrong(
            name.at,
            format!("{} is there already; remove one", *name.text),
        ),
    }
}

type Rest<'a> = Peekable<CharIndices<'a>>;

/// The words of a line, which is longer than one where quotes or a backslash say so. What is wrong in it
/// is told at its first word: a line in the middle of a value may be a part of a password.
fn line(rest: &mut Rest<'_>) -> Result<Vec<Word>, Wrong> {
    let mut words = Vec::new();
    while let Some(&(at, c)) = rest.peek() {
        match c {
            '\n' => {
                rest.next();
                break;
            }
            '#' => while rest.next_if(|(_, c)| *c != '\n').is_some() {},
            c if c.is_ascii_whitespace() => {
                rest.next();
            }
            _ => {
                let first = words.first().map_or(at, |first: &Word| first.at);
                words.push(word(rest, first)?);
            }
        }
    }
    Ok(words)
}

fn word(rest: &mut Rest<'_>, first: usize) -> Result<Word, Wrong> {
    let at = rest.peek().map_or(first, |(at, _)| *at);
    // Room for what most values are, so that a password leaves no copies behind.
    let mut text = Zeroizing::new(String::with_capacity(256));
    while let Some((_, c)) = rest.next_if(|(_, c)| !c.is_ascii_whitespace()) {
        match c {
            '\'' => quoted(rest, first, '\'', &mut text)?,
            '"' => quoted(rest, first, '"', &mut text)?,
            '\\' => escaped(rest, first, &mut text)?,
            '#' | ';' => return wrong(first, format!("put a value with {c} in quotes")),
            c => text.push(c),
        }
    }
    Ok(Word { text, at })
}

/// What is in quotes. Only double ones know the backslash.
fn quoted(rest: &mut Rest<'_>, at: usize, quote: char, text: &mut String) -> Result<(), Wrong> {
    loop {
        match rest.next() {
            None => return wrong(at, format!("a {quote} is missing at the end")),
            Some((_, c)) if c == quote => return Ok(()),
            Some((_, '\\')) if quote == '"' => escaped(rest, at, text)?,
            Some((_, c)) => text.push(c),
        }
    }
}

/// A character behind a backslash stands for itself; a line break there for nothing.
fn escaped(rest: &mut Rest<'_>, at: usize, text: &mut String) -> Result<(), Wrong> {
    match rest.next() {
        None => return wrong(at, "a character is missing behind the \\"),
        Some((_, '\n')) => {}
        Some((_, c)) => text.push(c),
    }
    Ok(())
}
