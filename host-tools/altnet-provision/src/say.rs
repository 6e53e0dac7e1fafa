//! What is said: one JSON object, or text and notes.

use std::io::Write;
use std::process::ExitCode;

use altnet_provision::Error;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What a command has to say.
pub struct Report {
    json: Map<String, Value>,
    text: String,
    notes: Vec<String>,
    code: ExitCode,
}

impl Report {
    /// A result: `text` for people, `value`, an object, for programs.
    pub fn new(text: impl Into<String>, value: &impl Serialize) -> Self {
        // The summaries have string keys alone, so there is nothing that JSON can't say.
        let json = match serde_json::to_value(value) {
            Ok(Value::Object(map)) => map,
            Ok(other) => Map::from_iter([("value".to_owned(), other)]),
            Err(_) => Map::new(),
        };
        Self {
            json,
            text: text.into(),
            notes: Vec::new(),
            code: ExitCode::SUCCESS,
        }
    }

    /// Adds a field for programs.
    pub fn with(mut self, field: &str, value: &impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        self.json.insert(field.to_owned(), value);
        self
    }

    /// Puts what people read in the place of what was to be read.
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Adds a line for people, beside the result.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Ends with exit code 1 although there is something to say.
    pub fn failing(mut self) -> Self {
        self.code = ExitCode::FAILURE;
        self
    }

    /// Prints the result to standard output and the notes to standard error; with `json` all of
    /// it as one object to standard output.
    pub fn print(mut self, json: bool) -> ExitCode {
        let mut out = std::io::stdout().lock();
        let written = if json {
            self.json.insert("notes".into(), json!(self.notes));
            let text = serde_json::to_string_pretty(&self.json).unwrap_or_default();
            writeln!(out, "{text}")
        } else {
            let text = self.text.trim_end_matches('\n');
            let result = match text.is_empty() {
                true => Ok(()),
                false => writeln!(out, "{text}"),
            };
            for note in &self.notes {
                // Without a place to say it, a note is lost and the result is not.
                let _ = writeln!(std::io::stderr(), "{note}");
            }
            result
        };
        match written.and_then(|()| out.flush()) {
            Ok(()) => self.code,
            // The reader has gone away (`| head`): that is its right.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => self.code,
            Err(_) => ExitCode::FAILURE,
        }
    }
}

/// Prints a failure: one sentence, and what to do next.
pub fn failure(error: &Error, json: bool) {
    if json {
        let object = json!({
            "error": {
                "code": error.code(),
                "message": error.to_string(),
                "next": error.next_step(),
            }
        });
        // As below.
        let _ = writeln!(std::io::stdout(), "{object:#}");
    } else {
        // Without a place to say it there is still the exit code.
        let _ = writeln!(
            std::io::stderr(),
            "altnet-provision: {error}.\n{}",
            error.next_step()
        );
    }
}

/// Prints what is wrong with what was typed, or the help that was asked for.
pub fn misused(error: &clap::Error, json: bool) -> ExitCode {
    // Help and the version are no failures and go to standard output.
    if json && error.use_stderr() {
        let text = error.to_string();
        let said = text.strip_prefix("error: ").unwrap_or(&text);
        let said = said.split("\n\n").next().unwrap_or_default();
        let words: Vec<&str> = said.split_whitespace().collect();
        let next = "See `altnet-provision --help`.";
        let object =
            json!({ "error": { "code": "usage", "message": words.join(" "), "next": next } });
        let _ = writeln!(std::io::stdout(), "{object:#}");
    } else {
        let _ = error.print();
    }
    match error.use_stderr() {
        true => ExitCode::from(2),
        false => ExitCode::SUCCESS,
    }
}

/// Lays rows out in columns.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    let head: Vec<String> = head.iter().map(ToString::to_string).collect();
    let mut text = line(&head);
    for row in rows {
        text.push_str(&line(row));
    }
    text
}

/// A list, or a dash.
pub fn list<T: AsRef<str>>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".into();
    }
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    items.join(",")
}

/// A value, or a dash.
pub fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}
