//! The text of a policy of which only the record is here: what another owner signed, or what is
//! in force when the text was lost. Comments are not in a record; names of devices are looked up.

use std::collections::{BTreeMap, BTreeSet};

use altnet_core::policy::{Draft, DraftSponsor, STALE_AFTER_S};
use altnet_core::registry::Registry;
use altnet_wire::id::{MemberId, Name, SiteId};
use altnet_wire::policy::{Atom, Window, Zone};

use super::named::{given, named_atoms};
use super::{words, zone};

/// A line with more letters is written as several.
const LINE_LETTERS: usize = 100;

/// Writes a policy so that [`super::compile()`] makes the same of it.
pub fn write(draft: &Draft, registry: &Registry) -> String {
    Writer::new(draft, registry).text()
}

/// Writes references, for people and for the text.
pub(super) struct Writer<'d> {
    draft: &'d Draft,
    registry: &'d Registry,
    domains: BTreeSet<&'d Name>,
}

impl<'d> Writer<'d> {
    pub(super) fn new(draft: &'d Draft, registry: &'d Registry) -> Self {
        let (given, _) = given(registry);
        let profiled = draft.profiles.iter().map(|p| &p.group);
        let joined = draft.sponsors.iter().flat_map(|sponsor| &sponsor.groups);
        let ends = draft.vouchers.iter().flat_map(|(at, who)| [at, who]);
        let ends = ends.chain(draft.sponsors.iter().map(|sponsor| &sponsor.who));
        let ends = ends.filter_map(|atom| match atom {
            Atom::Group(name) => Some(name),
            _ => None,
        });
        // People are in these, so they are no domains whatever is in them.
        let with_people: BTreeSet<&Name> = profiled.chain(joined).chain(ends).collect();
        let is_domain = |(group, of): &(&'d Name, &BTreeSet<Atom>)| {
            let is_pattern = |atom: &Atom| matches!(atom, Atom::Named(_));
            let is_group = given.contains(*group) || with_people.contains(group);
            !is_group && !of.is_empty() && of.iter().all(is_pattern)
        };
        let domains = draft.groups.iter().filter(is_domain);
        Self {
            domains: domains.map(|(group, _)| group).collect(),
            draft,
            registry,
        }
    }

    fn text(&self) -> String {
        let draft = self.draft;
        let mut text = String::from("# Who may reach what. What no rule allows is refused.\n");
        let profiles = draft.profiles.iter().map(|profile| &profile.window);
        let mut windows = profiles.chain(draft.rules.iter().map(|rule| &rule.window));
        if draft.zone != Zone::default() || windows.any(Option::is_some) {
            text.push_str(&format!("timezone = \"{}\"\n", zone::text(&draft.zone)));
        }
        if draft.stale_after_s != STALE_AFTER_S {
            text.push_str(&format!(
                "stale_after = \"{}\"\n",
                duration(draft.stale_after_s)
            ));
        }
        let sites = draft
            .sites
            .iter()
            .map(|(site, name)| format!("{name} = {site}\n"));
        table(&mut text, "sites", sites);
        let atoms = named_atoms(draft);
        let people = atoms.iter().filter_map(|atom| match atom {
            Atom::Person(name) => Some(format!("{name} = {{}}\n")),
            _ => None,
        });
        table(&mut text, "people", people);
        // Also those that nothing is in here: written down, they are no slip.
        let mut groups: BTreeMap<&Name, BTreeSet<Atom>> = BTreeMap::new();
        for atom in atoms {
            if let Atom::Group(name) = atom {
                groups.entry(name).or_default();
            }
        }
        groups.extend(draft.profiles.iter().map(|p| (&p.group, BTreeSet::new())));
        let joined = draft.sponsors.iter().flat_map(|sponsor| &sponsor.groups);
        groups.extend(joined.map(|name| (name, BTreeSet::new())));
        groups.extend(draft.groups.iter().map(|(name, of)| (name, of.clone())));
        let (domains, groups): (Vec<_>, Vec<_>) = groups
            .iter()
            .partition(|(name, _)| self.domains.contains(*name));
        let groups = groups
            .iter()
            .map(|(name, of)| list(name.as_str(), self.references(of)));
        table(&mut text, "groups", groups);
        let domains = domains.iter().map(|(name, of)| {
            let names = of.iter().filter_map(|atom| match atom {
                Atom::Named(pattern) => Some(pattern.as_str().to_owned()),
                _ => None,
            });
            list(name.as_str(), names.collect())
        });
        table(&mut text, "domains", domains);
        for profile in &draft.profiles {
            text.push_str(&format!("\n[profiles.{}]\n", profile.group));
            if profile.exclusive {
                text.push_str("only_named = true\n");
            }
            hours(&mut text, profile.window.as_ref());
        }
        self.logins(&mut text);
        self.sponsors(&mut text);
        for rule in &draft.rules {
            text.push_str(&format!("\n[[rules]]\nname = \"{}\"\n", rule.name));
            text.push_str(&list("from", self.references(&rule.from)));
            text.push_str(&list("to", self.references(&rule.to)));
            let services = rule.services.iter().map(words::service_text);
            text.push_str(&list("services", services.collect()));
            hours(&mut text, rule.window.as_ref());
            if rule.needs_fresh_head {
                text.push_str("needs_fresh = true\n");
            }
        }
        text
    }

    fn logins(&self, text: &mut String) {
        // Gateways of which the same is said are told together.
        let mut by_whom: BTreeMap<BTreeSet<Atom>, BTreeSet<Atom>> = BTreeMap::new();
        for (at, of) in vouched(self.draft) {
            by_whom.entry(of).or_default().insert(at.clone());
        }
        for (of, at) in by_whom {
            text.push_str("\n[[logins]]\n");
            text.push_str(&list("at", self.references(&at)));
            text.push_str(&list("of", self.references(&of)));
        }
    }

    fn sponsors(&self, text: &mut String) {
        // Several in one are read in ascending order, so only such runs are told together.
        let same = |a: &DraftSponsor, b: &DraftSponsor| {
            a.who < b.who && (a.most, a.depth, &a.groups) == (b.most, b.depth, &b.groups)
        };
        for run in self.draft.sponsors.chunk_by(same) {
            let Some(first) = run.first() else { continue };
            let who = run.iter().map(|sponsor| self.reference(&sponsor.who));
            text.push_str("\n[[sponsors]]\n");
            text.push_str(&list("who", who.collect()));
            text.push_str(&format!("most = {}\ndepth = {}\n", first.most, first.depth));
            if !first.groups.is_empty() {
                let groups = first.groups.iter().map(ToString::to_string);
                text.push_str(&list("groups", groups.collect()));
            }
        }
    }

    /// Whether a group is nothing but names that fit.
    pub(super) fn is_domain(&self, group: &Name) -> bool {
        self.domains.contains(group)
    }

    pub(super) fn references(&self, atoms: &BTreeSet<Atom>) -> Vec<String> {
        atoms.iter().map(|atom| self.reference(atom)).collect()
    }

    pub(super) fn reference(&self, atom: &Atom) -> String {
        match atom {
            Atom::Members => "members".into(),
            Atom::Hosts => "hosts".into(),
            Atom::Apps => "apps".into(),
            Atom::Anything => "anything".into(),
            Atom::Person(name) => format!("person:{name}"),
            Atom::Group(name) if self.is_domain(name) => format!("domain:{name}"),
            Atom::Group(name) => format!("group:{name}"),
            Atom::Device(member) => format!("device:{}", self.device(member)),
            Atom::Site(site) => format!("site:{}", self.site(*site)),
            Atom::Host(site, name) => self.host(*site, name),
            Atom::App(member, name) => {
                let app = self.registry.app_by_name(name);
                let owner = app.and_then(|app| self.registry.by_device(&app.device));
                match owner.is_some_and(|owner| owner.membership.member == *member) {
                    true => format!("app:{name}"),
                    false => format!("app:{name}@{}", self.device(member)),
                }
            }
            Atom::Named(pattern) => format!("named:{}", pattern.as_str()),
            // An atom of a later version is in no policy that this one reads.
            _ => "nobody".into(),
        }
    }

    /// A member's name, or its id if that would be read as somebody else's or nobody's.
    pub(super) fn device(&self, member: &MemberId) -> String {
        let known = self.registry.by_member(member);
        let name = known.map(|member| member.membership.name.to_string());
        let name = name.filter(|name| name.parse::<MemberId>().is_err());
        name.unwrap_or_else(|| member.to_string())
    }

    pub(super) fn site(&self, site: SiteId) -> String {
        let name = self.draft.sites.get(&site);
        name.map_or_else(|| site.to_string(), ToString::to_string)
    }

    pub(super) fn host(&self, site: SiteId, name: &Name) -> String {
        let known = self.registry.host(name).map(|host| host.record.site);
        match known == Some(site) {
            true => format!("host:{name}"),
            false => format!("host:{name}@{}", self.site(site)),
        }
    }
}

/// By gateways, or what they are in, of whom they may say who is logged in.
pub(super) fn vouched(draft: &Draft) -> BTreeMap<&Atom, BTreeSet<Atom>> {
    let mut vouched: BTreeMap<&Atom, BTreeSet<Atom>> = BTreeMap::new();
    for (at, who) in &draft.vouchers {
        vouched.entry(at).or_default().insert(who.clone());
    }
    vouched
}

fn table(text: &mut String, name: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_some() {
        text.push_str(&format!("\n[{name}]\n"));
        lines.for_each(|line| text.push_str(&line));
    }
}

fn list(key: &str, of: Vec<String>) -> String {
    let quoted: Vec<String> = of.iter().map(|one| format!("\"{one}\"")).collect();
    let line = format!("{key} = [{}]\n", quoted.join(", "));
    if line.len() <= LINE_LETTERS {
        return line;
    }
    format!("{key} = [\n    {},\n]\n", quoted.join(",\n    "))
}

fn hours(text: &mut String, window: Option<&Window>) {
    let Some(window) = window else { return };
    text.push_str(&list("hours", words::window_texts(window)));
    if window.open_without_clock {
        text.push_str("open_without_clock = true\n");
    }
}

fn duration(seconds: u32) -> String {
    let units = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60)];
    let whole = units.iter().find(|(_, unit)| seconds.is_multiple_of(*unit));
    whole.map_or_else(
        || format!("{seconds}s"),
        |(letter, unit)| format!("{}{letter}", seconds / unit),
    )
}
