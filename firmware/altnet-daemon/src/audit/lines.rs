//! Entries as other programs take them: JSON lines, and syslog.

use std::fmt::Write as _;

use crate::api::types::AuditEntry;

/// The facility of audit messages (RFC 5424 table 1), times eight.
const LOG_AUDIT: u8 = 13 * 8;
/// Severities (RFC 5424 table 2).
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFORMATIONAL: u8 = 6;
/// Structured data that no registered number names takes the one for examples (RFC 5612).
const ELEMENT: &str = "audit@32473";

/// One line of JSON: everything, so that the chain can be followed with nothing else.
pub fn json(entry: &AuditEntry) -> String {
    // A struct of text and numbers always has a JSON form.
    serde_json::to_string(entry).unwrap_or_default()
}

/// What a person is told first.
fn severity(kind: &str) -> u8 {
    match kind {
        "broken" | "lost" | "rewritten" | "contradicted" | "act-refused" => WARNING,
        "refused" | "login" | "renewed" | "witnessed" | "head-behind" | "member-changed" => {
            INFORMATIONAL
        }
        _ => NOTICE,
    }
}

/// One line of syslog (RFC 5424), without its end. `host` is the node's name.
pub fn syslog(entry: &AuditEntry, host: &str) -> String {
    let AuditEntry {
        sequence,
        kind,
        subject,
        detail,
        count,
        ..
    } = entry;
    let priority = LOG_AUDIT + severity(kind);
    // Section 6.2.3: who does not know the time says so.
    let time = if entry.time_known { &entry.time } else { "-" };
    let host = printable(host, 255);
    let message_id = printable(kind, 32);
    let mut line = format!("<{priority}>1 {time} {host} altnet - {message_id} [{ELEMENT}");
    for (name, value) in [
        ("sequence", &*sequence.to_string()),
        ("subject", subject),
        ("detail", detail),
        ("count", &*count.to_string()),
        ("previous", &entry.previous),
        ("hash", &entry.hash),
    ] {
        let _ = write!(line, " {name}=\"");
        for c in value.chars() {
            // Section 6.3.3.
            if matches!(c, '"' | '\\' | ']') {
                line.push('\\');
            }
            push(c, &mut line);
        }
        line.push('"');
    }
    line.push_str("] ");
    let words = [kind.as_str(), subject, detail];
    let said: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let said = said.join(" ");
    if !said.is_ascii() {
        // Section 6.4: a message in UTF-8 begins with the mark.
        line.push('\u{feff}');
    }
    said.chars().for_each(|c| push(c, &mut line));
    if *count > 1 {
        let _ = write!(line, " ({count} times)");
    }
    line
}

/// A control character would end the line for some readers.
fn push(c: char, line: &mut String) {
    if c.is_control() {
        let _ = write!(line, "{}", c.escape_default());
    } else {
        line.push(c);
    }
}

/// A field of the header (section 6, `PRINTUSASCII`), `-` if nothing is left.
fn printable(text: &str, most: usize) -> String {
    let kept = text.chars().filter(char::is_ascii_graphic).take(most);
    let kept: String = kept.collect();
    if kept.is_empty() { "-".into() } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> AuditEntry {
        AuditEntry {
            sequence: 7,
            time: "2026-11-18T11:06:40Z".into(),
            time_known: true,
            kind: "refused".into(),
            subject: "house-b".into(),
            detail: "denied".into(),
            count: 3,
            previous: "00".into(),
            hash: "01".into(),
            bytes: String::new(),
        }
    }

    #[test]
    fn a_syslog_line_is_what_the_rfc_shows() {
        assert_eq!(
            syslog(&entry(), "house-a"),
            "<110>1 2026-11-18T11:06:40Z house-a altnet - refused [audit@32473 sequence=\"7\" subject=\"house-b\" detail=\"denied\" count=\"3\" previous=\"00\" hash=\"01\"] refused house-b denied (3 times)"
        );
        let unsure = AuditEntry {
            time_known: false,
            count: 1,
            kind: "act".into(),
            subject: "ä \"]\\".into(),
            detail: String::new(),
            ..entry()
        };
        let line = syslog(&unsure, "");
        assert!(line.starts_with("<109>1 - - altnet - act ["), "{line}");
        assert!(line.contains(r#" subject="ä \"\]\\" "#), "{line}");
        assert!(line.ends_with("] \u{feff}act ä \"]\\"), "{line}");
    }

    /// The values of the structured data, read as RFC 5424 section 6.3 says.
    fn values(line: &str) -> Vec<String> {
        let mut rest = line.split_once(&format!("[{ELEMENT}")).unwrap().1;
        let mut values = Vec::new();
        while let Some(after) = rest.strip_prefix(' ') {
            let mut value = String::new();
            let mut chars = after.split_once("=\"").unwrap().1.char_indices();
            let body = after.split_once("=\"").unwrap().1;
            let end = loop {
                match chars.next().unwrap() {
                    (_, '\\') => value.push(chars.next().unwrap().1),
                    (at, '"') => break at,
                    (_, c) => value.push(c),
                }
            };
            values.push(value);
            rest = &body[end + 1..];
        }
        assert!(rest.starts_with("] "), "{rest}");
        values
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_place(subject in "[^\\p{Cc}]*", detail in "[^\\p{Cc}]*", host: String) {
            let said = AuditEntry { subject: subject.clone(), detail: detail.clone(), ..entry() };
            let line = syslog(&said, &host);
            prop_assert!(!line.contains(|c: char| c.is_control()));
            let values = values(&line);
            prop_assert_eq!((&values[1], &values[2]), (&subject, &detail));
            prop_assert_eq!(values.len(), 6);
            let back: AuditEntry = serde_json::from_str(&json(&said)).unwrap();
            prop_assert_eq!(back, said);
        }
    }
}
