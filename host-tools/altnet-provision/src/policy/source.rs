//! The text of a policy read: every word understood, nobody looked up yet.
//!
//! Unknown keys are refused, because a slip in one would otherwise allow or close something that
//! nobody meant. All faults of a text are told at once, each with its place.

mod reader;
mod tables;

use std::ops::Range;

use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::{Pattern, Service, Window, Zone};

use super::fault::{Faults, Reporter};
use super::words::Reference;
use reader::Reader;

/// The longest text that is looked at: a record holds far less.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

const TOP: [&str; 10] = [
    "timezone",
    "stale_after",
    "sites",
    "people",
    "groups",
    "domains",
    "profiles",
    "rules",
    "logins",
    "sponsors",
];

/// Something, and where it stands in the text.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

/// A policy's text, read.
#[derive(Clone, Debug)]
pub struct Source {
    pub(super) zone: Option<Zone>,
    pub(super) stale_after_s: u32,
    pub(super) sites: Vec<(At<Name>, At<SiteId>)>,
    pub(super) people: Vec<(At<Name>, Vec<At<Reference>>)>,
    pub(super) groups: Vec<(At<Name>, Vec<At<Reference>>)>,
    pub(super) domains: Vec<(At<Name>, Vec<At<Pattern>>)>,
    pub(super) profiles: Vec<SourceProfile>,
    pub(super) rules: Vec<SourceRule>,
    pub(super) logins: Vec<SourceLogin>,
    pub(super) sponsors: Vec<SourceSponsor>,
}

#[derive(Clone, Debug)]
pub(super) struct SourceProfile {
    pub(super) group: At<Name>,
    pub(super) only_named: bool,
    pub(super) window: Option<Window>,
}

#[derive(Clone, Debug)]
pub(super) struct SourceRule {
    pub(super) name: At<Name>,
    pub(super) from: Vec<At<Reference>>,
    pub(super) to: Vec<At<Reference>>,
    pub(super) services: Vec<At<Service>>,
    pub(super) window: Option<Window>,
    pub(super) needs_fresh: bool,
}

/// Whose word counts, and for whom.
#[derive(Clone, Debug)]
pub(super) struct SourceLogin {
    pub(super) at: Vec<At<Reference>>,
    pub(super) of: Vec<At<Reference>>,
    /// Where it begins.
    pub(super) head: Range<usize>,
}

/// Who may bring others in.
#[derive(Clone, Debug)]
pub(super) struct SourceSponsor {
    pub(super) who: Vec<At<Reference>>,
    pub(super) most: u16,
    pub(super) depth: u8,
    pub(super) groups: Vec<At<Name>>,
    /// Where it begins.
    pub(super) head: Range<usize>,
}

impl Source {
    /// Reads a text, called `file` in what is said about it.
    ///
    /// # Errors
    /// [`Faults`].
    pub fn read(text: &str, file: &str) -> Result<Self, Faults> {
        let (source, report) = Self::read_on(text);
        match report.finish(file) {
            Some(faults) => Err(faults),
            None => Ok(source),
        }
    }

    /// Reads what can be read, so that what follows from it can be looked at too before all faults
    /// are told.
    pub(super) fn read_on(text: &str) -> (Self, Reporter<'_>) {
        let mut reader = Reader {
            report: Reporter::new(text),
            hours: None,
        };
        let source = reader.document(text);
        (source, reader.report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, expected: &str) {
        let faults = Source::read(text, "p").unwrap_err();
        let said: Vec<String> = faults
            .faults
            .iter()
            .map(|f| format!("{}:{}: {}. {}", f.line, f.column, f.message, f.next))
            .collect();
        assert!(said.join("\n").contains(expected), "{}", said.join("\n"));
    }

    #[test]
    fn a_slip_is_told_with_its_line_and_what_was_meant() {
        let rule = "[[rules]]\nname = \"web\"\nfrom = [\"members\"]\nto = [\"hosts\"]\n";
        check(
            "time_zone = \"UTC\"",
            "1:1: a policy has nothing called `time_zone`. Did you mean `timezone`?",
        );
        check(
            &format!("{rule}service = [\"any\"]"),
            "5:1: a rule has nothing called `service`. Did you mean `services`?",
        );
        check(rule, "1:1: the rule has no services. Write services =");
        check(
            &format!("{rule}services = []"),
            "5:12: the rule's services names nothing",
        );
        check(
            &format!("{rule}services = [\"any\"]\ntimezone = \"UTC\""),
            "6:1: a rule has nothing called `timezone`. Write it further up",
        );
        check(
            &format!("{rule}services = [80]"),
            "5:13: a text in quotes is needed, not integer",
        );
        check(
            &format!("{rule}services = [\"any\"]\nhours = [\"08:00-09:00\"]"),
            "6:9: there are hours, but it is not said in which time zone",
        );
        check(
            &format!("{rule}services = [\"any\"]\nopen_without_clock = true"),
            "means nothing without hours",
        );
        check("[[rules]]\nname = \"Web\"", "2:8: `Web` is not a name");
        let named = rule.replace("\"web\"", "\"no-policy\"") + "services = [\"any\"]";
        check(&named, "2:8: a rule can't be called no-policy");
        check(
            "[rules]\nname = \"web\"",
            "rules are a list. Write [[rules]]",
        );
        check("[sites]\nhome = \"1\"", "2:8: that is no site's number");
        check("[sites]\nhome = 1\ncabin = 1", "site 1 is called");
        check("[sites]\n1 = 1", "can't be a number");
        check(
            "[profiles.guests]\n",
            "1:11: the profile guests says nothing",
        );
        check("stale_after = \"7\"", "1:15: `7` is not a duration");
        check(
            "[people.ann]\nphones = []",
            "2:1: a person has nothing called `phones`",
        );
        check(
            "[sponsors]\nmost = 1",
            "sponsors are a list. Write [[sponsors]]",
        );
        let sponsor = "[[sponsors]]\nwho = [\"members\"]\nmost = 3\n";
        check(sponsor, "1:1: the sponsor has no depth. Write depth = 1 in");
        check(
            &format!("{sponsor}dept = 1"),
            "4:1: a sponsor has nothing called `dept`. Did you mean `depth`?",
        );
        check(
            &format!("{sponsor}depth = 0"),
            "4:9: depth is a whole number from 1 to 8. Write depth = 1, without quotes",
        );
        check(
            &format!("{sponsor}depth = 1").replace("= 3", "= \"3\""),
            "3:8: most is a whole number from 1 to 65535",
        );
        check(
            &format!("{sponsor}depth = 1\ngroups = [\"person:ann\"]"),
            "5:11: `person:ann` is no group",
        );
        check(
            "[[logins]]\nat = []\nof = [\"members\"]",
            "2:6: the login's at names nothing",
        );
        check("[[logins]]\nat = [\"box\"]", "1:1: the login has no of");
        check("a = [", "that is no TOML");
        check("a = 1\na = 2", "2:1: that is no TOML: duplicate key");
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = "[[rules]]\nname = \"a\"\nfrom = [\"persn:ann\"]\nto = [\"wiki.alt\"]\nservices = [\"http\"]\n";
        let faults = Source::read(text, "p").unwrap_err();
        let lines: Vec<usize> = faults.faults.iter().map(|fault| fault.line).collect();
        assert_eq!(lines, [3, 4, 5]);
        assert!(faults.to_string().ends_with("(and 2 more)"), "{faults}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Source::read(&text, "p");
        }

        #[test]
        fn no_change_of_a_text_panics(at: prop::sample::Index, with in "[\\[\\]\"=#a-z0-9{}. \n]{0,3}") {
            let text = super::super::STARTER.replace("# ", "");
            let mut at = at.index(text.len());
            while !text.is_char_boundary(at) { at -= 1; }
            let _ = Source::read(&format!("{}{with}{}", &text[..at], &text[at..]), "p");
        }
    }
}
