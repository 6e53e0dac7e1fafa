//! The tables of a policy, each read into its part of [`Source`].

use altnet_core::policy::{BUILT_IN, STALE_AFTER_S};
use altnet_core::registry::MAX_SPONSOR_DEPTH;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::Window;
use toml::de::DeTable;

use super::reader::{Entry, Reader, Value};
use super::{
    At, MAX_TEXT_BYTES, Source, SourceLogin, SourceProfile, SourceRule, SourceSponsor, TOP,
};
use crate::policy::words::{self, Reference, Wrong};
use crate::policy::zone;
use crate::text;

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
const LOGIN: [&str; 2] = ["at", "of"];
const SPONSOR: [&str; 4] = ["who", "most", "depth", "groups"];

impl Reader<'_> {
    pub(super) fn document(&mut self, text: &str) -> Source {
        let mut source = Source {
            zone: None,
            stale_after_s: STALE_AFTER_S,
            sites: Vec::new(),
            people: Vec::new(),
            groups: Vec::new(),
            domains: Vec::new(),
            profiles: Vec::new(),
            rules: Vec::new(),
            logins: Vec::new(),
            sponsors: Vec::new(),
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
                "logins" => source.logins = self.logins(value),
                "sponsors" => source.sponsors = self.sponsors(value),
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
        let mut rules: Vec<SourceRule> = Vec::new();
        for entry in self.entries(value, "rules", "rule", &RULE) {
            let Some(rule) = self.rule(&entry) else {
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

    fn rule(&mut self, entry: &Entry<'_>) -> Option<SourceRule> {
        let table = entry.table;
        let name = match table.get("name") {
            Some(value) => self.text(value),
            None => {
                let next = "Write name = \"...\" below [[rules]]: verdicts are told by it.";
                self.report.fault(&entry.head, "the rule has no name", next);
                None
            }
        };
        let name = name.and_then(|at| {
            let value = self.word(&at, words::name)?;
            let span = at.span;
            Some(At { value, span })
        });
        let any = "[\"tcp/80\"], or [\"any\"] for all,";
        Some(SourceRule {
            from: self.needed(entry, "from", "[\"members\"]", words::reference),
            to: self.needed(entry, "to", "[\"host:wiki\"]", words::reference),
            services: self.needed(entry, "services", any, words::service),
            window: self.window(table),
            needs_fresh: self.truth(table, "needs_fresh"),
            name: name?,
        })
    }

    fn logins(&mut self, value: &Value<'_>) -> Vec<SourceLogin> {
        let entries = self.entries(value, "logins", "login", &LOGIN);
        let people = "[\"person:ann\", \"group:guests\"], or [\"members\"] for every person,";
        let login = |entry: Entry<'_>| SourceLogin {
            at: self.needed(&entry, "at", "[\"site:home\"]", words::reference),
            of: self.needed(&entry, "of", people, words::reference),
            head: entry.head,
        };
        entries.into_iter().map(login).collect()
    }

    fn sponsors(&mut self, value: &Value<'_>) -> Vec<SourceSponsor> {
        let mut sponsors = Vec::new();
        for entry in self.entries(value, "sponsors", "sponsor", &SPONSOR) {
            let who = self.needed(&entry, "who", "[\"group:family\"]", words::reference);
            let most = self.number(&entry, "most", "3", u16::MAX);
            let depth = self.number(&entry, "depth", "1", MAX_SPONSOR_DEPTH.into());
            let groups = entry.table.get("groups");
            let groups = groups.map(|value| self.words(value, group));
            let depth = depth.and_then(|depth| u8::try_from(depth).ok());
            // After a fault the text isn't used; what it names is looked up all the same.
            sponsors.push(SourceSponsor {
                who,
                most: most.unwrap_or(1),
                depth: depth.unwrap_or(1),
                groups: groups.unwrap_or_default(),
                head: entry.head,
            });
        }
        sponsors
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

/// A group alone: `group:` need not be written.
fn group(text: &str) -> Result<Name, Wrong> {
    match words::reference(text)? {
        Reference::Bare(name) | Reference::Group(name) => Ok(name),
        _ => Err((
            format!("`{text}` is no group"),
            "Write names of groups, as in groups = [\"guests\"].".into(),
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
