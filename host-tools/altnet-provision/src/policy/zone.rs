//! What the local time is: a name from the time zone database or a POSIX rule.
//!
//! Source: IEEE Std 1003.1, section 8.3 (TZ); RFC 9636 (TZif), whose footer has such a rule for
//! all times after the table. The record carries the rule alone, so that nodes need no database.

use std::path::Path;

use altnet_wire::policy::{Summer, Switch, Zone};

use super::words::Wrong;

/// Where the database is on every system that has one.
const DATABASE: &str = "/usr/share/zoneinfo";

/// Longest rule or name looked at.
const LONGEST: usize = 100;

/// Reads `Europe/Berlin` or `CET-1CEST,M3.5.0,M10.5.0/3`.
pub(super) fn zone(text: &str) -> Result<Zone, Wrong> {
    zone_in(text, Path::new(DATABASE))
}

fn zone_in(text: &str, database: &Path) -> Result<Zone, Wrong> {
    if text == "UTC" {
        return Ok(Zone::default());
    }
    // No name in the database looks like a rule: those have an offset, and names with one have `/`.
    let is_rule = text.starts_with('<') || text.contains(',') || rule(text).is_ok();
    if is_rule {
        return rule(text);
    }
    let footer = footer(text, database)?;
    rule(&footer).map_err(|(what, next)| (format!("time zone {text}: {what}"), next))
}

/// The rule at the end of a file of the database (RFC 9636 section 3.3).
fn footer(name: &str, database: &Path) -> Result<String, Wrong> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "/_+-".contains(c);
    let is_name = !name.is_empty()
        && name.len() <= LONGEST
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(letters);
    let unknown = |why: &str| {
        let what = format!("there is no time zone `{name}`{why}");
        let next =
            "Write a name as in Europe/Berlin, or a POSIX rule as in CET-1CEST,M3.5.0,M10.5.0/3.";
        (what, next.to_owned())
    };
    if !is_name {
        return Err(unknown(""));
    }
    if !database.is_dir() {
        return Err(unknown(&format!(
            ": this computer has no time zone database in {} (package tzdata)",
            database.display()
        )));
    }
    let bytes = std::fs::read(database.join(name)).map_err(|_| unknown(""))?;
    if !bytes.starts_with(b"TZif") {
        return Err(unknown(""));
    }
    // "The footer is separated from the data by a newline, and is followed by one."
    let text = bytes.strip_suffix(b"\n").and_then(|bytes| {
        let at = bytes.iter().rposition(|byte| *byte == b'\n')?;
        std::str::from_utf8(bytes.get(at + 1..)?).ok()
    });
    match text {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err((
            format!("the time zone {name} has no rule for the times to come"),
            "Write a POSIX rule, as in CET-1CEST,M3.5.0,M10.5.0/3.".into(),
        )),
    }
}

fn rule(text: &str) -> Result<Zone, Wrong> {
    let mut reader = Reader { left: text };
    let zone = reader.zone().map_err(|why| {
        let next = "Write it as in CET-1CEST,M3.5.0,M10.5.0/3: a name, hours west of Greenwich, the name of summer time, and when that begins and ends.";
        (format!("`{text}` is no POSIX rule for a time zone: {why}"), next.to_owned())
    })?;
    Ok(zone)
}

/// Why a rule does not read.
type Why = &'static str;

struct Reader<'t> {
    left: &'t str,
}

impl Reader<'_> {
    fn zone(&mut self) -> Result<Zone, Why> {
        if self.left.len() > LONGEST || !self.left.is_ascii() {
            return Err("it is too long or has strange letters");
        }
        self.name()?;
        // POSIX counts west of Greenwich.
        let offset_min = -self.offset()?;
        if self.left.is_empty() {
            return Ok(Zone {
                offset_min,
                summer: None,
            });
        }
        self.name()?;
        let summer_min = match self.left.starts_with(',') || self.left.is_empty() {
            true => offset_min + 60,
            false => -self.offset()?,
        };
        if !self.take(',') {
            return Err("it doesn't say when summer time begins");
        }
        let begins = self.switch()?;
        if !self.take(',') {
            return Err("it doesn't say when summer time ends");
        }
        let ends = self.switch()?;
        if !self.left.is_empty() {
            return Err("something follows it");
        }
        Ok(Zone {
            offset_min,
            summer: Some(Summer {
                offset_min: summer_min,
                begins,
                ends,
            }),
        })
    }

    fn take(&mut self, letter: char) -> bool {
        let rest = self.left.strip_prefix(letter);
        self.left = rest.unwrap_or(self.left);
        rest.is_some()
    }

    /// Three or more letters, or more kinds of them between `<` and `>`.
    fn name(&mut self) -> Result<(), Why> {
        let (name, rest) = match self.left.strip_prefix('<') {
            Some(quoted) => quoted.split_once('>').ok_or("a < has no >")?,
            None => {
                let is_letter = |c: char| !c.is_ascii_alphabetic();
                let end = self.left.find(is_letter).unwrap_or(self.left.len());
                self.left.split_at(end)
            }
        };
        let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '+' || c == '-';
        if name.len() < 3 || !name.chars().all(is_fit) {
            return Err("a name has three or more letters");
        }
        self.left = rest;
        Ok(())
    }

    fn sign(&mut self) -> i16 {
        let is_minus = self.take('-');
        let _ = !is_minus && self.take('+');
        if is_minus { -1 } else { 1 }
    }

    fn number(&mut self, digits: usize) -> Result<i16, Why> {
        let is_digit = |c: char| !c.is_ascii_digit();
        let end = self.left.find(is_digit).unwrap_or(self.left.len());
        let (number, rest) = self.left.split_at(end);
        if number.is_empty() || number.len() > digits {
            return Err("a number is missing or too long");
        }
        self.left = rest;
        number.parse().map_err(|_| "a number is missing")
    }

    /// `[+-]h[hh][:mm[:ss]]`, in minutes.
    fn time(&mut self, most_hours: i16) -> Result<i16, Why> {
        let sign = self.sign();
        let hours = self.number(3)?;
        let mut minutes = 0;
        if self.take(':') {
            minutes = self.number(2)?;
            if self.take(':') && self.number(2)? != 0 {
                return Err("seconds are not supported");
            }
        }
        if hours > most_hours || minutes > 59 {
            return Err("a time is too large");
        }
        Ok(sign * (hours * 60 + minutes))
    }

    fn offset(&mut self) -> Result<i16, Why> {
        self.time(24)
    }

    fn switch(&mut self) -> Result<Switch, Why> {
        if !self.take('M') {
            return Err(
                "days counted from the beginning of the year (n and Jn) are not supported, only Mmonth.week.day",
            );
        }
        let month = self.ranged(1, 12)?;
        let week = self.dot().and_then(|()| self.ranged(1, 5))?;
        let weekday = self.dot().and_then(|()| self.ranged(0, 6))?;
        // RFC 9636 section 3.3.1 lets the hour go from -167 to 167.
        let minute = match self.take('/') {
            true => self.time(167)?,
            false => 120,
        };
        Ok(Switch {
            month,
            week,
            weekday,
            minute,
        })
    }

    fn dot(&mut self) -> Result<(), Why> {
        match self.take('.') {
            true => Ok(()),
            false => Err("a day is written Mmonth.week.day"),
        }
    }

    fn ranged(&mut self, first: u8, last: u8) -> Result<u8, Why> {
        let number = u8::try_from(self.number(2)?).map_err(|_| "a number is too large")?;
        match (first..=last).contains(&number) {
            true => Ok(number),
            false => Err("months are 1 to 12, weeks 1 to 5, days 0 to 6"),
        }
    }
}

/// Writes a zone as [`zone`] reads it. What it was called is not known any more.
pub(super) fn text(zone: &Zone) -> String {
    if *zone == Zone::default() {
        return "UTC".into();
    }
    let mut text = name_and_offset(zone.offset_min);
    if let Some(summer) = &zone.summer {
        text.push_str(&name_and_offset(summer.offset_min));
        for switch in [&summer.begins, &summer.ends] {
            let Switch {
                month,
                week,
                weekday,
                minute,
            } = switch;
            let time = clock(*minute);
            text.push_str(&format!(",M{month}.{week}.{weekday}/{time}"));
        }
    }
    text
}

fn name_and_offset(offset_min: i16) -> String {
    let (sign, away) = (
        if offset_min < 0 { '-' } else { '+' },
        offset_min.unsigned_abs(),
    );
    let (hours, minutes) = (away / 60, away % 60);
    let minutes = if minutes == 0 {
        String::new()
    } else {
        format!("{minutes:02}")
    };
    format!("<{sign}{hours:02}{minutes}>{}", clock(-offset_min))
}

fn clock(minute: i16) -> String {
    let sign = if minute < 0 { "-" } else { "" };
    let (hours, minutes) = (minute.unsigned_abs() / 60, minute.unsigned_abs() % 60);
    match minutes {
        0 => format!("{sign}{hours}"),
        _ => format!("{sign}{hours}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BERLIN: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

    fn offsets(text: &str) -> (i16, Option<i16>) {
        let zone = rule(text).unwrap();
        (zone.offset_min, zone.summer.map(|summer| summer.offset_min))
    }

    #[test]
    fn rules_of_the_database_read() {
        assert_eq!(offsets(BERLIN), (60, Some(120)));
        assert_eq!(offsets("EST5EDT,M3.2.0,M11.1.0"), (-300, Some(-240)));
        assert_eq!(offsets("<+0330>-3:30"), (210, None));
        assert_eq!(offsets("IST-1GMT0,M10.5.0,M3.5.0/1"), (60, Some(0)));
        assert_eq!(
            offsets("<-02>2<-01>,M3.5.0/-1,M10.5.0/0"),
            (-120, Some(-60))
        );
        assert_eq!(offsets("EET-2EEST,M3.4.4/50,M10.4.4/50"), (120, Some(180)));
        assert_eq!(rule(BERLIN).unwrap().summer.unwrap().ends.minute, 180);
    }

    #[test]
    fn what_is_not_supported_says_so() {
        let check = |text: &str, said: &str| {
            let (what, _) = zone(text).unwrap_err();
            assert!(what.contains(said), "{what}");
        };
        check("CET-1CEST,J60,J300", "not supported");
        check("LMT-0:53:28X,", "seconds are not supported");
        check("CET-1CEST,", "days counted");
        check("<+01-1", "a < has no >");
        check("Europe/Atlantis", "there is no time zone `Europe/Atlantis`");
        check("../../etc/passwd", "there is no time zone");
        check("", "there is no time zone");
    }

    #[test]
    fn a_name_reads_the_footer_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| zone_in(name, dir.path());
        std::fs::write(
            dir.path().join("Berlin"),
            format!("TZif2 data\n more\n{BERLIN}\n"),
        )
        .unwrap();
        std::fs::write(dir.path().join("Old"), "TZif2 data\n\n").unwrap();
        std::fs::write(dir.path().join("Text"), "no zone\n").unwrap();
        assert_eq!(at("Berlin").unwrap(), rule(BERLIN).unwrap());
        assert!(
            at("Old")
                .unwrap_err()
                .0
                .contains("no rule for the times to come")
        );
        assert!(at("Text").is_err() && at("Nowhere").is_err());
        let none = zone_in("Berlin", &dir.path().join("none")).unwrap_err().0;
        assert!(none.contains("tzdata"), "{none}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-Za-z0-9<>+,./:-]{0,40}") {
            let _ = rule(&text);
        }

        #[test]
        fn every_rule_reads_back(
            offset_min in -1440i16..=1440,
            summer in proptest::option::of((-1440i16..=1440, [1u8..=12, 1..=5, 0..=6], [1u8..=12, 1..=5, 0..=6], -9000i16..=9000)),
        ) {
            let switch = |[month, week, weekday]: [u8; 3], minute| Switch { month, week, weekday, minute };
            let zone = Zone {
                offset_min,
                summer: summer.map(|(offset_min, begins, ends, minute)| Summer {
                    offset_min,
                    begins: switch(begins, minute),
                    ends: switch(ends, 120),
                }),
            };
            prop_assert_eq!(super::zone(&text(&zone)).unwrap(), zone);
        }
    }
}
