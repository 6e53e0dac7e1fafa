//! The text of a policy read: every word understood, nobody looked up yet.
//!
//! Unknown keys are refused, because a slip in one would otherwise allow or close something that
//! nobody meant. All faults of a text are told at once, each with its place.

use std::ops::Range;

use altnet_core::policy::BUILT_IN;
use altnet_core::policy::STALE_AFTER_S;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::{Pattern, Service, Window, Zone};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, Reporter, did_you_mean, nearest};
use super::words::{self, Reference, Wrong};
use super::zone;
use crate::text;

/// The longest text that is looked at: a record holds far less.
const MAX_TEXT_BYTES: usize = 1024 * 1024;

const TOP: [&str; 8] = [
    "timezone",
    "stale_after",
    "sites",
    "people",
    "groups",
    "domains",
    "profiles",
    "rules",
];
const PERSON: [&str; 1] = ["devices"];
const PROFILE: [&str; 3] = ["only_named", "hours", "open_without_clock"];
const RULE: [&str; 7] = [
    "name",
    "from",
    "to",
    "services",
    "hours",
    "needs_fresh",
    "open_without_clock",
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

struct Reader<'t> {
    report: Reporter<'t>,
    /// Where hours are named first.
    hours: Option<Range<usize>>,
}

type Value<'v> = Spanned<DeValue<'v>>;

impl Reader<'_> {
    fn document(&mut self, text: &str) -> Source {
        let mut source = Source {
            zone: None,
            stale_after_s: STALE_AFTER_S,
            sites: Vec::new(),
            people: Vec::new(),
            groups: Vec::new(),
            domains: Vec::new(),
            profiles: Vec::new(),
            rules: Vec::new(),
        };
        if text.len() > MAX_TEXT_BYTES {
            let message = format!("the text has more than {MAX_TEXT_BYTES} bytes");
            self.report
                .fault(&(0..0), message, "Use groups in place of long lists.");
            return source;
        }
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let message = error.message().lines().next().unwrap_or("it does not read");
            self.report.fault(
                &error.span().unwrap_or(0..0),
                format!("that is no TOML: {message}"),
                "Compare with what `altnet-provision policy show` prints: keys stand before =, texts in quotes, lists in [ ].",
            );
        }
        if !errors.is_empty() {
            return source;
        }
        let table = document.get_ref();
        self.only(table, &TOP, "a policy");
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "timezone" => {
                    source.zone = self.text(value).and_then(|at| self.word(&at, zone::zone));
                }
                "stale_after" => {
                    let read = self.text(value).and_then(|at| self.word(&at, duration_s));
                    source.stale_after_s = read.unwrap_or(STALE_AFTER_S);
                }
                "sites" => source.sites = self.sites(value),
                "people" => source.people = self.people(value),
                "groups" => source.groups = self.named(value, "groups", words::reference),
                "domains" => source.domains = self.named(value, "domains", words::pattern),
                "profiles" => source.profiles = self.profiles(value),
                "rules" => source.rules = self.rules(value),
                _ => {}
            }
        }
        if let Some(hours) = self.hours.clone().filter(|_| source.zone.is_none()) {
            self.report.fault(
                &hours,
                "there are hours, but it is not said in which time zone",
                "Write timezone = \"Europe/Berlin\", or which it is, at the top of the file.",
            );
        }
        source
    }

    fn wrong(&mut self, span: &Range<usize>, (what, next): Wrong) {
        self.report.fault(span, what, next);
    }

    /// Understands one text, or notes why not.
    fn word<T>(&mut self, at: &At<String>, read: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        read(&at.value)
            .map_err(|wrong| self.wrong(&at.span, wrong))
            .ok()
    }

    /// Refuses keys that mean nothing here.
    fn only(&mut self, table: &DeTable<'_>, known: &[&str], place: &str) {
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

    fn table<'v>(
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

    fn text(&mut self, value: &Value<'_>) -> Option<At<String>> {
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
    fn texts(&mut self, value: &Value<'_>) -> Vec<At<String>> {
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

    fn words<T>(
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

    fn truth(&mut self, table: &DeTable<'_>, key: &str) -> bool {
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

    fn name(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>) -> Option<At<Name>> {
        let at = At {
            value: key.get_ref().to_string(),
            span: key.span(),
        };
        let value = self.word(&at, words::name)?;
        let span = at.span;
        Some(At { value, span })
    }

    fn sites(&mut self, value: &Value<'_>) -> Vec<(At<Name>, At<SiteId>)> {
        const NEXT: &str = "Write a name and a number from 0 to 32767, as in home = 1.";
        let mut sites: Vec<(At<Name>, At<SiteId>)> = Vec::new();
        for (key, value) in self.table(value, "sites", NEXT).into_iter().flatten() {
            let span = value.span();
            let integer = value.get_ref().as_integer();
            let number = integer.and_then(|integer| words::site_number(integer.as_str()));
            let Some(name) = self.name(key) else { continue };
            if words::site_number(name.value.as_str()).is_some() {
                let message = "a site's name can't be a number";
                self.report.fault(&name.span, message, NEXT);
            }
            match number {
                None => {
                    self.report.fault(&span, "that is no site's number", NEXT);
                    // The name is known all the same, of some site: no text with a fault is used.
                    let some = words::site_number("0");
                    sites.extend(some.map(|value| (name, At { value, span })));
                }
                Some(value) => match sites.iter().find(|(_, other)| other.value == value) {
                    Some((other, _)) => {
                        let message = format!("site {value} is called {} already", other.value);
                        self.report
                            .fault(&name.span, message, "Give a site one name.");
                    }
                    None => sites.push((name, At { value, span })),
                },
            }
        }
        sites
    }

    fn people(&mut self, value: &Value<'_>) -> Vec<(At<Name>, Vec<At<Reference>>)> {
        const NEXT: &str = "Write ann = {}, or ann = { devices = [\"ann-laptop\"] }.";
        let mut people = Vec::new();
        for (key, value) in self.table(value, "people", NEXT).into_iter().flatten() {
            let Some(name) = self.name(key) else { continue };
            let table = self.table(value, "a person", NEXT);
            if let Some(table) = table {
                self.only(table, &PERSON, "a person");
            }
            let devices = table.and_then(|table| table.get("devices"));
            let devices = devices
                .map(|value| self.words(value, device))
                .unwrap_or_default();
            people.push((name, devices));
        }
        people
    }

    fn named<T>(
        &mut self,
        value: &Value<'_>,
        what: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<(At<Name>, Vec<At<T>>)> {
        let next = "Write a name and a list, as in family = [\"person:ann\", \"site:home\"] or media = [\"jellyfin\", \"media-*\"].";
        let mut all = Vec::new();
        for (key, value) in self.table(value, what, next).into_iter().flatten() {
            let words = self.words(value, &read);
            if let Some(name) = self.name(key) {
                all.push((name, words));
            }
        }
        all
    }

    fn profiles(&mut self, value: &Value<'_>) -> Vec<SourceProfile> {
        const NEXT: &str =
            "Write [profiles.NAME-OF-A-GROUP], and below it only_named = true or hours = [...].";
        let mut profiles = Vec::new();
        for (key, value) in self.table(value, "profiles", NEXT).into_iter().flatten() {
            let Some(group) = self.name(key) else {
                continue;
            };
            let Some(table) = self.table(value, "a profile", NEXT) else {
                continue;
            };
            self.only(table, &PROFILE, "a profile");
            let profile = SourceProfile {
                only_named: self.truth(table, "only_named"),
                window: self.window(table),
                group,
            };
            if !profile.only_named && profile.window.is_none() {
                let message = format!("the profile {} says nothing", profile.group.value);
                self.report.fault(&profile.group.span, message, NEXT);
            }
            profiles.push(profile);
        }
        profiles
    }

    fn window(&mut self, table: &DeTable<'_>) -> Option<Window> {
        let open_without_clock = self.truth(table, "open_without_clock");
        let Some(value) = table.get("hours") else {
            if let Some(value) = table.get("open_without_clock") {
                let message = "open_without_clock means nothing without hours";
                let next = "Add hours, or leave it out.";
                self.report.fault(&value.span(), message, next);
            }
            return None;
        };
        let spans = self.words(value, words::span);
        let is_never = spans.iter().all(|span| span.value.is_none());
        if !is_never && self.hours.is_none() {
            self.hours = Some(value.span());
        }
        if spans.is_empty() {
            let message = "there are no hours";
            let next = "Write some, as in [\"Mon-Fri 14:00-19:30\"]; leave hours out for always.";
            self.report.fault(&value.span(), message, next);
        }
        let spans = spans.into_iter().map(|span| span.value);
        words::window(spans, open_without_clock)
            .map_err(|wrong| self.wrong(&value.span(), wrong))
            .ok()
    }

    fn rules(&mut self, value: &Value<'_>) -> Vec<SourceRule> {
        const NEXT: &str = "Write [[rules]], with two brackets, before each rule.";
        let Some(array) = value.get_ref().as_array() else {
            self.report.fault(&value.span(), "rules are a list", NEXT);
            return Vec::new();
        };
        let mut rules: Vec<SourceRule> = Vec::new();
        for value in array {
            let Some(table) = self.table(value, "a rule", NEXT) else {
                continue;
            };
            let Some(rule) = self.rule(table, &value.span()) else {
                continue;
            };
            if rules
                .iter()
                .any(|other| other.name.value == rule.name.value)
            {
                let message = format!("there is a rule called {} already", rule.name.value);
                let next = "Choose another name: verdicts are told by it.";
                self.report.fault(&rule.name.span, message, next);
            }
            if BUILT_IN.contains(&rule.name.value.as_str()) {
                let message = format!("a rule can't be called {}", rule.name.value);
                let next = "Choose another name: verdicts that no rule gave are called so.";
                self.report.fault(&rule.name.span, message, next);
            }
            rules.push(rule);
        }
        rules
    }

    fn rule(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Option<SourceRule> {
        self.only(table, &RULE, "a rule");
        // Of a table the span is its whole text; its first line is where it is looked for.
        let head = span.start..span.start;
        let name = match table.get("name") {
            Some(value) => self.text(value),
            None => {
                let next = "Write name = \"...\" below [[rules]]: verdicts are told by it.";
                self.report.fault(&head, "the rule has no name", next);
                None
            }
        };
        let name = name.and_then(|at| {
            let value = self.word(&at, words::name)?;
            let span = at.span;
            Some(At { value, span })
        });
        Some(SourceRule {
            from: self.needed(table, "from", &head, "[\"members\"]", words::reference),
            to: self.needed(table, "to", &head, "[\"host:wiki\"]", words::reference),
            services: self.needed(
                table,
                "services",
                &head,
                "[\"tcp/80\"], or [\"any\"] for all,",
                words::service,
            ),
            window: self.window(table),
            needs_fresh: self.truth(table, "needs_fresh"),
            name: name?,
        })
    }

    /// A list that may not be missing or empty.
    fn needed<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        head: &Range<usize>,
        example: &str,
        read: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Vec<At<T>> {
        let next = || format!("Write {key} = {example} in the rule.");
        let Some(value) = table.get(key) else {
            // A slip in the key was told already.
            let slips = table.keys().map(|other| -> &str { other.get_ref() });
            let mut slips = slips.filter(|other| !RULE.contains(other));
            if !slips.any(|other| nearest(other, RULE) == Some(key)) {
                let message = format!("the rule has no {key}");
                self.report.fault(head, message, next());
            }
            return Vec::new();
        };
        if value
            .get_ref()
            .as_array()
            .is_some_and(|array| array.is_empty())
        {
            let message = format!("the rule's {key} names nothing, so it would allow nothing");
            self.report.fault(&value.span(), message, next());
            return Vec::new();
        }
        self.words(value, read)
    }
}

/// A device of a person: `device:` need not be written.
fn device(text: &str) -> Result<Reference, Wrong> {
    match words::reference(text)? {
        Reference::Bare(name) | Reference::Device(name) => Ok(Reference::Device(name)),
        _ => Err((
            format!("`{text}` is no device"),
            "Write names of devices, as `altnet-provision members` lists them.".into(),
        )),
    }
}

fn duration_s(text: &str) -> Result<u32, Wrong> {
    let duration = text::duration(text).map_err(|error| (error.to_string(), error.next_step()))?;
    u32::try_from(duration.as_secs()).map_err(|_| {
        (
            format!("`{text}` is too long"),
            "Write less than a hundred years.".into(),
        )
    })
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
