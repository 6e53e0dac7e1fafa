//! A policy's text and the records, compiled to the body of a policy record.
//!
//! Names of devices, machines and apps are looked up here, once: what a device calls itself later
//! changes nothing (decision 0004). People and groups are names that issuers give; one that no
//! membership, invite or list in the text has is taken for a slip and refused, because a rule for
//! nobody looks like a rule that works.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use altnet_core::policy::{Draft, DraftProfile, DraftRule, Rules};
use altnet_core::registry::Registry;
use altnet_wire::envelope::MAX_POLICY_BYTES;
use altnet_wire::id::{MemberId, Name, Serial, SiteId};
use altnet_wire::policy::Atom;
use altnet_wire::time::UnixTime;

use super::fault::{Faults, Reporter, did_you_mean};
use super::named::{given, missing};
use super::source::{At, Source, SourceRule};
use super::words::{self, ALONE, Reference};

mod special;

/// What an envelope takes around the body, at most.
const ENVELOPE_BYTES: usize = 160;
const FEWER: &str =
    "Put those with the same rights into a group, and ports that follow each other into one range.";

/// A policy that can be signed.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// What it says.
    pub draft: Draft,
    /// The body of its record.
    pub body: Vec<u8>,
    /// What it names that isn't there, one sentence each.
    pub warnings: Vec<String>,
}

/// Compiles a text, called `file` in what is said about it, for the network of `registry`.
///
/// # Errors
/// [`Faults`] with every place that is wrong.
pub fn compile(
    text: &str,
    file: &str,
    registry: &Registry,
    now: UnixTime,
) -> Result<Compiled, Faults> {
    let (source, report) = Source::read_on(text);
    let mut compiler = Compiler::new(report, &source, registry);
    let draft = compiler.draft(now);
    let body = compiler.body(&draft);
    match compiler.report.finish(file) {
        Some(faults) => Err(faults),
        None => Ok(Compiled {
            warnings: missing(&draft, registry),
            draft,
            body,
        }),
    }
}

/// Where a reference stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    From,
    To,
    Group,
    /// Whose word about a login counts.
    LoginAt,
    /// Of whom it may say so.
    LoginOf,
    Sponsor,
}

struct Compiler<'s> {
    report: Reporter<'s>,
    source: &'s Source,
    registry: &'s Registry,
    sites: BTreeMap<Name, SiteId>,
    groups: BTreeSet<Name>,
    people: BTreeSet<Name>,
    domains: BTreeSet<Name>,
    /// Groups with names that fit a pattern in them, which can't be sources.
    only_targets: BTreeSet<Name>,
}

impl<'s> Compiler<'s> {
    fn new(mut report: Reporter<'s>, source: &'s Source, registry: &'s Registry) -> Self {
        let (mut groups, mut people) = given(registry);
        let mut domains = BTreeSet::new();
        for (name, _) in &source.domains {
            // In the record both are groups: whoever came into the group would be a target of what
            // is allowed to the domain.
            let declared = source
                .groups
                .iter()
                .any(|(group, _)| group.value == name.value);
            if declared || groups.contains(&name.value) {
                let message = format!("{} is a group already", name.value);
                report.fault(&name.span, message, "Call the domain something else.");
            }
            domains.insert(name.value.clone());
        }
        groups.extend(source.groups.iter().map(|(name, _)| name.value.clone()));
        people.extend(source.people.iter().map(|(name, _)| name.value.clone()));
        let is_pattern = |at: &At<Reference>| matches!(at.value, Reference::Named(_));
        let only_targets = source.groups.iter();
        let only_targets = only_targets.filter(|(_, members)| members.iter().any(is_pattern));
        Self {
            report,
            sites: source
                .sites
                .iter()
                .map(|(name, site)| (name.value.clone(), site.value))
                .collect(),
            only_targets: only_targets.map(|(name, _)| name.value.clone()).collect(),
            source,
            registry,
            groups,
            people,
            domains,
        }
    }

    fn draft(&mut self, now: UnixTime) -> Draft {
        let source = self.source;
        let mut draft = Draft {
            issued: now,
            zone: source.zone.unwrap_or_default(),
            stale_after_s: source.stale_after_s,
            sites: source
                .sites
                .iter()
                .map(|(name, site)| (site.value, name.value.clone()))
                .collect(),
            ..Draft::default()
        };
        for (_, devices) in &source.people {
            // Looked up where they count; here so that a slip is found even if no rule names them.
            let _ = self.atoms(devices, Place::Group);
        }
        for (name, members) in &source.groups {
            let atoms = self.atoms(members, Place::Group);
            if !atoms.is_empty() {
                draft.groups.insert(name.value.clone(), atoms);
            }
        }
        for (name, patterns) in &source.domains {
            if patterns.is_empty() {
                let message = format!("the domain {} has no names in it", name.value);
                let next = "Write some, as in [\"jellyfin\", \"media-*\"].";
                self.report.fault(&name.span, message, next);
            }
            let atoms = patterns.iter().map(|at| Atom::Named(at.value.clone()));
            draft.groups.insert(name.value.clone(), atoms.collect());
        }
        for profile in &source.profiles {
            self.check_group(&profile.group.value, &profile.group.span);
            draft.profiles.push(DraftProfile {
                group: profile.group.value.clone(),
                exclusive: profile.only_named,
                window: profile.window.clone(),
            });
        }
        for rule in &source.rules {
            let rule = self.rule(rule);
            draft.rules.push(rule);
        }
        self.logins(&mut draft);
        self.sponsors(&mut draft);
        draft
    }

    fn rule(&mut self, rule: &SourceRule) -> DraftRule {
        DraftRule {
            name: rule.name.value.clone(),
            from: self.atoms(&rule.from, Place::From),
            to: self.atoms(&rule.to, Place::To),
            services: rule.services.iter().map(|at| at.value).collect(),
            window: rule.window.clone(),
            needs_fresh_head: rule.needs_fresh,
        }
    }

    /// The record's body; empty if there was a fault.
    fn body(&mut self, draft: &Draft) -> Vec<u8> {
        if !self.report.is_clean() {
            return Vec::new();
        }
        // What there is too much of is mostly in one rule.
        let size = |rule: &DraftRule| rule.from.len() * rule.to.len() * rule.services.len();
        let largest = draft.rules.iter().map(size).zip(&self.source.rules);
        let span = largest.max_by_key(|(size, _)| *size);
        let span = span.map_or(0..0, |(_, rule)| rule.name.span.clone());
        let body = match draft.encode() {
            Ok(body) => body,
            Err(error) => {
                self.report.fault(&span, error.to_string(), FEWER);
                return Vec::new();
            }
        };
        if let Err(error) = Rules::new(&body, Serial(1)) {
            self.report.fault(&span, error.to_string(), FEWER);
        }
        let most = MAX_POLICY_BYTES - ENVELOPE_BYTES;
        if body.len() > most {
            let message = format!(
                "the policy comes to {} bytes, and there is room for {most}",
                body.len()
            );
            self.report.fault(&span, message, FEWER);
        }
        body
    }

    fn atoms(&mut self, references: &[At<Reference>], place: Place) -> BTreeSet<Atom> {
        let mut atoms = BTreeSet::new();
        for at in references {
            if self.is_fit(at, place) {
                atoms.extend(self.resolve(&at.value, &at.span, place));
            }
        }
        atoms
    }

    /// Whether such a reference may stand there at all.
    fn is_fit(&mut self, at: &At<Reference>, place: Place) -> bool {
        let (message, next) = match (&at.value, place) {
            (Reference::Members, Place::To) => (
                "members are no target",
                "Write a group, a site or hosts, or anything for all there is.",
            ),
            (
                Reference::Hosts
                | Reference::Apps
                | Reference::Anything
                | Reference::Domain(_)
                | Reference::Named(_),
                Place::From,
            ) => (
                "that is only a target, because a gateway may call its machines as it likes",
                "Write members, a person, a group, a device, a site, a host or an app.",
            ),
            (
                Reference::Members
                | Reference::Hosts
                | Reference::Apps
                | Reference::Anything
                | Reference::Domain(_)
                | Reference::Group(_),
                Place::Group,
            ) => (
                "that can't be in a group",
                "List persons, devices, sites, hosts or apps; instead of a group what is in it.",
            ),
            (value, Place::LoginAt | Place::LoginOf | Place::Sponsor) => {
                match special::unfit(value, place) {
                    Some(unfit) => unfit,
                    None => return true,
                }
            }
            _ => return true,
        };
        self.report.fault(&at.span, message, next);
        false
    }

    /// Whom or what a reference stands for; nothing after a fault.
    fn resolve(&mut self, reference: &Reference, span: &Range<usize>, place: Place) -> Vec<Atom> {
        let one = |atom: Option<Atom>| atom.into_iter().collect();
        match reference {
            Reference::Members => vec![Atom::Members],
            Reference::Hosts => vec![Atom::Hosts],
            Reference::Apps => vec![Atom::Apps],
            Reference::Anything => vec![Atom::Anything],
            Reference::Named(pattern) => vec![Atom::Named(pattern.clone())],
            Reference::Person(name) => {
                let mut atoms = self.person(name, span);
                // Who logs in is a person; their own devices need no login.
                if place == Place::LoginOf {
                    atoms.truncate(1);
                }
                atoms
            }
            Reference::Group(name) => {
                if place == Place::From && self.only_targets.contains(name) {
                    let message = format!(
                        "the group {name} has names in it that fit a pattern, so it is only a target"
                    );
                    let next = "Name the machines and their sites in it, as in host:wiki.";
                    self.report.fault(span, message, next);
                }
                let known = self.check_group(name, span);
                one(known.then(|| Atom::Group(name.clone())))
            }
            Reference::Domain(name) => {
                let known = self.domains.contains(name);
                if !known {
                    self.unknown(
                        "domain",
                        name,
                        span,
                        &self.domains.clone(),
                        "Write it below [domains].",
                    );
                }
                one(known.then(|| Atom::Group(name.clone())))
            }
            Reference::Device(name) => one(self.device(name, span).map(Atom::Device)),
            Reference::Site(name) => one(self.site(name, span).map(Atom::Site)),
            Reference::Host(name, site) => one(self.host(name, site.as_ref(), span)),
            Reference::App(name, device) => one(self.app(name, device.as_ref(), span)),
            Reference::Bare(name) => match self.bare(name, span) {
                Some(found) => {
                    let at = At {
                        value: found,
                        span: span.clone(),
                    };
                    match self.is_fit(&at, place) {
                        true => self.resolve(&at.value, span, place),
                        false => Vec::new(),
                    }
                }
                None => Vec::new(),
            },
        }
    }

    fn unknown(
        &mut self,
        kind: &str,
        name: &Name,
        span: &Range<usize>,
        known: &BTreeSet<Name>,
        next: &str,
    ) {
        let hint = did_you_mean(name.as_str(), known.iter().map(Name::as_str));
        let message = format!("there is no {kind} called {name}");
        self.report.fault(span, message, format!("{hint}{next}"));
    }

    fn check_group(&mut self, name: &Name, span: &Range<usize>) -> bool {
        if self.groups.contains(name) {
            return true;
        }
        if self.domains.contains(name) {
            let message = format!("{name} is a domain, not a group");
            self.report
                .fault(span, message, format!("Write domain:{name}, as a target."));
            return false;
        }
        let next = format!("If nobody is in it yet, write {name} = [] below [groups].");
        self.unknown("group", name, span, &self.groups.clone(), &next);
        false
    }

    fn person(&mut self, name: &Name, span: &Range<usize>) -> Vec<Atom> {
        if !self.people.contains(name) {
            let next = format!("If no device is theirs yet, write {name} = {{}} below [people].");
            self.unknown("person", name, span, &self.people.clone(), &next);
            return Vec::new();
        }
        let source = self.source;
        let listed = source
            .people
            .iter()
            .find(|(person, _)| person.value == *name);
        let devices = listed.map(|(_, devices)| devices.as_slice());
        let mut atoms = vec![Atom::Person(name.clone())];
        for at in devices.unwrap_or_default() {
            atoms.extend(self.resolve(&at.value, &at.span, Place::Group));
        }
        atoms
    }

    /// A member by its id, whether it is one still, or by its device's name. What has the form of
    /// an id is one: otherwise a device could call itself by another's.
    fn device(&mut self, name: &Name, span: &Range<usize>) -> Option<MemberId> {
        if let Ok(id) = name.as_str().parse() {
            return Some(id);
        }
        let member = self.registry.by_name(name);
        if member.is_none() {
            let members = self.registry.members();
            let names = members
                .map(|member| member.membership.name.clone())
                .collect();
            let next = "See `altnet-provision members`; `altnet-provision sync` fetches those that joined. A rule for a device can be written once it has joined.";
            self.unknown("device", name, span, &names, next);
        }
        member.map(|member| member.membership.member)
    }

    fn site(&mut self, name: &Name, span: &Range<usize>) -> Option<SiteId> {
        let site = words::site_number(name.as_str());
        let site = site.or_else(|| self.sites.get(name).copied());
        if site.is_none() {
            let known = self.sites.keys().cloned().collect();
            let next = "Write its number, or its name and number below [sites].";
            self.unknown("site", name, span, &known, next);
        }
        site
    }

    fn host(&mut self, name: &Name, site: Option<&Name>, span: &Range<usize>) -> Option<Atom> {
        let site = match site {
            Some(site) => self.site(site, span)?,
            None => match self.registry.host(name) {
                Some(host) => host.record.site,
                None => {
                    let hosts = self.registry.hosts();
                    let known = hosts.map(|host| host.record.name.clone()).collect();
                    let next = format!(
                        "See `altnet-provision host list`; before it has its name, write host:{name}@ and its site."
                    );
                    self.unknown("machine", name, span, &known, &next);
                    return None;
                }
            },
        };
        Some(Atom::Host(site, name.clone()))
    }

    fn app(&mut self, name: &Name, device: Option<&Name>, span: &Range<usize>) -> Option<Atom> {
        if let Some(device) = device {
            let member = self.device(device, span)?;
            return Some(Atom::App(member, name.clone()));
        }
        let app = self.registry.app_by_name(name);
        let member = app.and_then(|app| self.registry.by_device(&app.device));
        if member.is_none() {
            let apps = self.registry.apps();
            let known = apps.map(|app| app.record.name.clone()).collect();
            let next =
                format!("Before it is there, write app:{name}@ and the device that runs it.");
            self.unknown("app", name, span, &known, &next);
        }
        member.map(|member| Atom::App(member.membership.member, name.clone()))
    }

    /// The only thing that has this name.
    fn bare(&mut self, name: &Name, span: &Range<usize>) -> Option<Reference> {
        let registry = self.registry;
        let own = || name.clone();
        let all = [
            (
                self.people.contains(name),
                "person",
                Reference::Person(own()),
            ),
            (self.groups.contains(name), "group", Reference::Group(own())),
            (
                self.domains.contains(name),
                "domain",
                Reference::Domain(own()),
            ),
            (
                self.sites.contains_key(name),
                "site",
                Reference::Site(own()),
            ),
            (
                registry.by_name(name).is_some(),
                "device",
                Reference::Device(own()),
            ),
            (
                registry.host(name).is_some(),
                "host",
                Reference::Host(own(), None),
            ),
            (
                registry.app_by_name(name).is_some(),
                "app",
                Reference::App(own(), None),
            ),
        ];
        let mut found: Vec<_> = all.into_iter().filter(|(is, ..)| *is).collect();
        if found.len() > 1 {
            let kinds: Vec<String> = found
                .iter()
                .map(|(_, kind, _)| format!("{kind}:{name}"))
                .collect();
            let message = format!("{name} is the name of several things");
            self.report.fault(
                span,
                message,
                format!("Write which is meant: {}.", kinds.join(" or ")),
            );
            return None;
        }
        let found = found.pop().map(|(.., reference)| reference);
        if found.is_none() {
            let (members, hosts, apps) = (registry.members(), registry.hosts(), registry.apps());
            let known: BTreeSet<Name> = (self.people.iter().cloned())
                .chain(self.groups.iter().cloned())
                .chain(self.domains.iter().cloned())
                .chain(self.sites.keys().cloned())
                .chain(members.map(|member| member.membership.name.clone()))
                .chain(hosts.map(|host| host.record.name.clone()))
                .chain(apps.map(|app| app.record.name.clone()))
                .collect();
            let known = known.iter().map(Name::as_str).chain(ALONE);
            let hint = did_you_mean(name.as_str(), known);
            let message = format!("nothing is called {name}");
            self.report.fault(span, message, format!("{hint}Names come after person:, group:, device:, site:, host:, app: or domain:."));
        }
        found
    }
}
