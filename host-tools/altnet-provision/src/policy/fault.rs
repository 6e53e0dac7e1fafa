//! What is wrong with the text of a policy: where, what, and what to do.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// Faults told at once; the text has more after them only if it is no policy at all.
const MAX_FAULTS: usize = 50;
/// Letters of the text that a fault shows.
const SHOWN_LETTERS: usize = 60;

/// One fault. The field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The letter in that line, from 1.
    pub column: usize,
    /// What stands there.
    pub text: String,
    /// One sentence, without the full stop.
    pub message: String,
    /// What to do.
    pub next: String,
}

/// Every fault of one text; there is at least one. The field names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Faults {
    /// What the text is called.
    pub file: String,
    /// The faults in the order of the text.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// What to do about the first.
    pub fn next_step(&self) -> String {
        let first = self.faults.first().map(|fault| fault.next.clone());
        first.unwrap_or_else(|| "Look at the file.".into())
    }
}

impl fmt::Display for Faults {
    /// Writes the first, and how many more there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(first) = self.faults.first() else {
            return write!(f, "{} is no policy", self.file);
        };
        let Fault {
            line,
            column,
            message,
            ..
        } = first;
        write!(f, "{}:{line}:{column}: {message}", self.file)?;
        match self.faults.len() {
            1 => Ok(()),
            all => write!(f, " (and {} more)", all - 1),
        }
    }
}

/// Gathers faults of one text.
pub(super) struct Reporter<'t> {
    text: &'t str,
    faults: Vec<(usize, Fault)>,
}

impl<'t> Reporter<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self {
            text,
            faults: Vec::new(),
        }
    }

    /// Notes a fault of what stands at `span`.
    pub(super) fn fault(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        next: impl Into<String>,
    ) {
        if self.faults.len() >= MAX_FAULTS {
            return;
        }
        let start = floor(self.text, span.start);
        let before = self.text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let there = self.text.get(start..floor(self.text, span.end.max(start)));
        let shown = there.unwrap_or_default().lines().next().unwrap_or_default();
        let fault = Fault {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            text: shown.chars().take(SHOWN_LETTERS).collect(),
            message: message.into(),
            next: next.into(),
        };
        if !self.faults.iter().any(|(_, other)| *other == fault) {
            self.faults.push((start, fault));
        }
    }

    pub(super) const fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// The faults in the order of the text, if there are any.
    pub(super) fn finish(mut self, file: &str) -> Option<Faults> {
        self.faults.sort_by_key(|(at, _)| *at);
        let faults: Vec<Fault> = self.faults.into_iter().map(|(_, fault)| fault).collect();
        (!faults.is_empty()).then(|| Faults {
            file: file.into(),
            faults,
        })
    }
}

/// The end of a letter at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Of `candidates` the one that `word` was probably meant to be.
pub(super) fn nearest<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    let most = match word.chars().count() {
        0..=2 => 1,
        3..=5 => 2,
        _ => 3,
    };
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= most && *distance < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// ` Did you mean ...?`, if something is near.
pub(super) fn did_you_mean<'c>(
    word: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> String {
    nearest(word, candidates).map_or_else(String::new, |near| format!("Did you mean `{near}`? "))
}

/// Letters to add, drop, change or swap (optimal string alignment: Damerau 1964, Levenshtein 1966).
fn distance(a: &str, b: &str) -> usize {
    // Nothing that is named here is longer, and what people mistype is short.
    const LONGEST: usize = 80;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut best = (rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
                    .min(rows[i - 1][j - 1] + same);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_found_by_its_line_and_letter() {
        let text = "# ä\nname = \"öl\"\n";
        let mut reporter = Reporter::new(text);
        let at = text.find("\"öl").unwrap();
        reporter.fault(&(at..at + 5), "it is wrong", "Mend it.");
        let faults = reporter.finish("policy.toml").unwrap();
        assert_eq!(faults.to_string(), "policy.toml:2:8: it is wrong");
        assert_eq!(faults.faults[0].text, "\"öl\"");
    }

    #[test]
    fn a_slip_finds_what_was_meant() {
        let names = ["family", "guests", "wiki"];
        assert_eq!(nearest("famliy", names), Some("family"));
        assert_eq!(nearest("wikki", names), Some("wiki"));
        assert_eq!(nearest("zebra", names), None);
        assert_eq!(nearest("", names), None);
    }
}
