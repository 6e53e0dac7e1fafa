//! Who gains and loses what: two policies put to work and asked for every source and target.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use altnet_core::policy::{
    Draft, DraftRule, Enrolled, Facts, Login, Policy, PolicyLimits, Rules, RulesError, What,
};
use altnet_core::registry::Registry;
use altnet_wire::address::{self, Prefix};
use altnet_wire::id::{Name, NetworkId, Serial, SiteId};
use altnet_wire::policy::{Atom, Service};
use altnet_wire::time::UnixTime;

use super::{Allowed, Plan, hours};
use crate::policy::named::judged_atoms;
use crate::policy::words::service_text;
use crate::policy::write::Writer;

/// Notes in `plan` who gains and loses what.
pub(super) fn compare(
    plan: &mut Plan,
    old: &Draft,
    new: &Draft,
    registry: &Registry,
) -> Result<(), RulesError> {
    let town = Town::new(old, new, registry);
    let (before, after) = (AtWork::new(old, &town)?, AtWork::new(new, &town)?);
    let mut rows = Rows::default();
    for (from, source) in town.classes.iter().enumerate() {
        let (sooner, later) = (before.profile(source), after.profile(source));
        for (to, target) in town.classes.iter().enumerate() {
            if from == to && source.labels.len() < 2 {
                continue;
            }
            let was = before.grants(source, target, &sooner);
            let is = after.grants(source, target, &later);
            rows.add(from, to, &was, &is);
        }
    }
    for (key, pairs) in rows.0 {
        let all = match key.kind {
            Kind::Gain => &mut plan.gains,
            Kind::Loss => &mut plan.loses,
            Kind::Hours => &mut plan.hours,
        };
        all.extend(town.collapsed(&key, pairs));
    }
    Ok(())
}

/// Those whom no rule tells apart.
struct Class<'r> {
    what: What<'r>,
    address: Ipv6Addr,
    labels: BTreeSet<String>,
}

struct Town<'r> {
    everybody: Vec<Enrolled<'r>>,
    classes: Vec<Class<'r>>,
}

impl<'r> Town<'r> {
    fn new(old: &'r Draft, new: &'r Draft, registry: &'r Registry) -> Self {
        let mut spoken = judged_atoms(old);
        spoken.extend(judged_atoms(new));
        let mut named: BTreeSet<&Atom> = spoken.clone();
        let mut groups: BTreeSet<Atom> = BTreeSet::new();
        for draft in [old, new] {
            groups.extend(draft.profiles.iter().map(|p| Atom::Group(p.group.clone())));
        }
        named.extend(&groups);
        let mut everybody = everybody(&named, registry);
        let logins = logins(&spoken, [old, new], &everybody, registry);
        everybody.extend(logins);
        let writer = Writer::new(new, registry);
        let mut classes: BTreeMap<(u8, Option<SiteId>, BTreeSet<&Atom>), Class<'r>> =
            BTreeMap::new();
        for one in &everybody {
            let theirs = named.iter().filter(|atom| is_own(&one.what, atom)).copied();
            let (kind, label) = match &one.what {
                What::Device(m) => (0, format!("device:{}", writer.device(&m.member))),
                What::Host(site, name) => (1, writer.host(*site, name)),
                What::Site(site) => (2, format!("site:{}", writer.site(*site))),
                What::App(_, name) => (3, format!("app:{name}")),
                What::Login(login) => (4, logged_in(login, &writer)),
            };
            // A login counts as what its gateway may say.
            let by = match &one.what {
                What::Login(login) => Some(login.site),
                _ => None,
            };
            let class = classes.entry((kind, by, theirs.collect()));
            let class = class.or_insert_with(|| Class {
                what: one.what,
                address: somewhere(&one.at, &everybody),
                labels: BTreeSet::new(),
            });
            class.labels.insert(label);
        }
        Self {
            classes: classes.into_values().collect(),
            everybody,
        }
    }

    /// Rows of those who are alike: the same sources with several targets, told once.
    fn collapsed(&self, key: &Row, pairs: BTreeMap<usize, BTreeSet<usize>>) -> Vec<Allowed> {
        let mut by_sources: BTreeMap<BTreeSet<usize>, BTreeSet<usize>> = BTreeMap::new();
        for (to, from) in pairs {
            by_sources.entry(from).or_default().insert(to);
        }
        let labels = |classes: &BTreeSet<usize>| -> Vec<String> {
            let classes = classes.iter().filter_map(|at| self.classes.get(*at));
            let labels: BTreeSet<&String> = classes.flat_map(|class| &class.labels).collect();
            labels.into_iter().cloned().collect()
        };
        let allowed = |(from, to): (BTreeSet<usize>, BTreeSet<usize>)| {
            let (sources, targets) = (labels(&from), labels(&to));
            let themselves = sources
                .iter()
                .filter(|label| targets.contains(label))
                .count();
            Allowed {
                pairs: sources.len() * targets.len() - themselves,
                from: sources,
                to: targets,
                services: key.services.clone(),
                rules: key.rules.iter().cloned().collect(),
                when: key.when.iter().cloned().collect(),
                was: key.was.iter().cloned().collect(),
            }
        };
        by_sources.into_iter().map(allowed).collect()
    }
}

/// Everybody with an address, and those who will have one: machines and sites whose gateway has
/// not joined yet, so that a plan made before that says something.
fn everybody<'r>(named: &BTreeSet<&Atom>, registry: &'r Registry) -> Vec<Enrolled<'r>> {
    let mut everybody: Vec<Enrolled<'r>> = registry.enrolled().collect();
    let network = registry.network();
    let waiting = registry
        .hosts()
        .filter(|host| registry.gateway(host.record.site).is_none());
    for host in waiting {
        everybody.extend(host.record.address.map(|address| Enrolled {
            at: Prefix::host(address),
            what: What::Host(host.record.site, &host.record.name),
            expires: UnixTime::NEVER,
        }));
    }
    let mut sites: BTreeSet<SiteId> = registry.hosts().map(|host| host.record.site).collect();
    sites.extend(named.iter().filter_map(|atom| match atom {
        Atom::Site(site) | Atom::Host(site, _) => Some(*site),
        _ => None,
    }));
    let sites = sites
        .into_iter()
        .filter(|site| registry.gateway(*site).is_none());
    everybody.extend(sites.map(|site| without_gateway(&network, site)));
    everybody
}

fn without_gateway<'r>(network: &NetworkId, site: SiteId) -> Enrolled<'r> {
    Enrolled {
        at: address::site_prefix(network, site),
        what: What::Site(site),
        expires: UnixTime::NEVER,
    }
}

/// Who could log in from a machine without a name: for each gateway that one of the policies lets
/// vouch for anybody, the people and groups that they speak of, each at an address of its own.
fn logins<'r>(
    spoken: &BTreeSet<&'r Atom>,
    drafts: [&'r Draft; 2],
    everybody: &[Enrolled<'r>],
    registry: &'r Registry,
) -> Vec<Enrolled<'r>> {
    if drafts.iter().all(|draft| draft.vouchers.is_empty()) {
        return Vec::new();
    }
    let mut who: Vec<(Option<&Name>, &[Name])> = Vec::new();
    let vouched = drafts.into_iter().flat_map(|draft| &draft.vouchers);
    let vouched = vouched.map(|(_, who)| who);
    let all: BTreeSet<&Atom> = spoken.iter().copied().chain(vouched).collect();
    for atom in all {
        match atom {
            Atom::Person(person) => who.push((Some(person), &[])),
            Atom::Group(group) => who.push((None, std::slice::from_ref(group))),
            _ => {}
        }
    }
    let network = registry.network();
    let is_taken = |address| everybody.iter().any(|one| one.at == Prefix::host(address));
    let mut logins = Vec::new();
    for member in registry.members() {
        let site = member.membership.site.filter(|site| {
            let gateway = registry.gateway(*site);
            gateway.is_some_and(|gateway| gateway.id == member.id)
        });
        let Some(site) = site else { continue };
        let first = u128::from(address::site_prefix(&network, site).address());
        let free = (1 << 32..=u128::from(u64::MAX)).map(|at| Ipv6Addr::from(first | at));
        let free = free.filter(|address| !is_taken(*address));
        logins.extend(free.zip(&who).map(|(address, (person, groups))| Enrolled {
            at: Prefix::host(address),
            what: What::Login(Login {
                by: member.membership,
                site,
                person: *person,
                groups,
            }),
            expires: UnixTime::NEVER,
        }));
    }
    logins
}

fn logged_in(login: &Login<'_>, writer: &Writer<'_>) -> String {
    let person = login.person.map(|name| format!("person:{name}"));
    let groups = login.groups.iter().map(|name| format!("group:{name}"));
    let who: Vec<String> = person.into_iter().chain(groups).collect();
    let at = writer.device(&login.by.member);
    format!("{} logged in at {at}", who.join(", "))
}

/// An address itself, or of a site one that nobody has.
fn somewhere(at: &Prefix, everybody: &[Enrolled<'_>]) -> Ipv6Addr {
    if at.bits() == 128 {
        return at.address();
    }
    let is_taken = |address| everybody.iter().any(|one| one.at == Prefix::host(address));
    let first = u128::from(at.address());
    // There are more addresses than records, so one is free.
    let free = (2..=u128::from(u64::MAX)).map(|interface| Ipv6Addr::from(first | interface));
    free.into_iter()
        .find(|address| !is_taken(*address))
        .unwrap_or(at.address())
}

/// Whether somebody comes under an atom that not all of its kind come under.
fn is_own(what: &What<'_>, atom: &Atom) -> bool {
    match (atom, what) {
        (Atom::Device(member), What::Device(m)) => m.member == *member,
        (Atom::Person(person), What::Device(m)) => m.person.as_ref() == Some(person),
        (Atom::Group(group), What::Device(m)) => m.groups.contains(group),
        (Atom::Site(site), What::Host(at, _) | What::Site(at)) => site == at,
        (Atom::Host(site, name), What::Host(at, called)) => site == at && name == *called,
        (Atom::App(member, name), What::App(of, called)) => member == of && name == *called,
        (Atom::Named(pattern), What::Host(_, name) | What::App(_, name)) => pattern.fits(name),
        (Atom::Site(site), What::Login(login)) => *site == login.site,
        (Atom::Person(person), What::Login(login)) => login.person == Some(person),
        (Atom::Group(group), What::Login(login)) => login.groups.contains(group),
        _ => false,
    }
}

/// What some service is allowed by: at which times, and by which rules then.
type When = BTreeMap<String, BTreeSet<String>>;

/// One thing that is allowed.
struct Grant {
    service: Service,
    when: String,
    rule: String,
}

/// A policy put to work, with every window open.
struct AtWork<'d> {
    draft: &'d Draft,
    policy: Policy,
    when: BTreeMap<String, String>,
}

impl<'d> AtWork<'d> {
    fn new(draft: &'d Draft, town: &Town<'_>) -> Result<Self, RulesError> {
        let mut open = draft.clone();
        let profiles = open.profiles.iter_mut().map(|profile| &mut profile.window);
        let rules = open.rules.iter_mut().map(|rule| &mut rule.window);
        for window in profiles.chain(rules).flatten() {
            window.open_without_clock = true;
        }
        let body = open.encode()?;
        // Nobody sends anything here, so one flow is more than enough.
        let limits = PolicyLimits {
            flows: 1,
            fragments: 1,
            ..PolicyLimits::ROUTER
        };
        let mut policy = Policy::new(limits, [0; 16]);
        policy.set_rules(
            Some(Rules::new(&body, Serial(1))?),
            town.everybody.iter().copied(),
        );
        policy.handle_time(None, Some(UnixTime::EPOCH));
        let when = |rule: &DraftRule| {
            let fresh = rule.needs_fresh_head.then(|| "while fresh".to_owned());
            let window = rule.window.as_ref().map(|window| hours(Some(window)));
            let parts: Vec<String> = window.into_iter().chain(fresh).collect();
            (rule.name.to_string(), parts.join(", "))
        };
        Ok(Self {
            when: draft.rules.iter().map(when).collect(),
            draft,
            policy,
        })
    }

    /// The hours of whoever is of such a class, whichever rule allows.
    fn profile(&self, source: &Class<'_>) -> String {
        let is_in = |group: &Atom| {
            let Atom::Group(name) = group else {
                return false;
            };
            let listed = self.draft.groups.get(name).into_iter().flatten();
            is_own(&source.what, group) || listed.into_iter().any(|atom| is_own(&source.what, atom))
        };
        let profiles = self.draft.profiles.iter();
        let theirs = profiles.filter(|profile| is_in(&Atom::Group(profile.group.clone())));
        let hours = theirs.filter_map(|profile| {
            let window = profile.window.as_ref()?;
            Some(format!("{}: {}", profile.group, hours(Some(window))))
        });
        hours.collect::<Vec<_>>().join("; ")
    }

    fn grants(&self, source: &Class<'_>, target: &Class<'_>, profile: &str) -> Vec<Grant> {
        let services = self
            .policy
            .services(source.address, target.address, &Everything);
        let grant = |(rule, service)| {
            let rule = self.policy.rule_name(rule).to_owned();
            let own = self.when.get(&rule).map_or("", String::as_str);
            let parts: Vec<&str> = [own, profile]
                .into_iter()
                .filter(|p| !p.is_empty())
                .collect();
            Grant {
                service,
                when: parts.join("; "),
                rule,
            }
        };
        services.into_iter().map(grant).collect()
    }
}

/// Nothing is ended: a membership that is late renews.
struct Everything;

impl Facts for Everything {
    fn is_ours(&self, _: Ipv6Addr) -> bool {
        true
    }

    fn is_ended(&self, _: UnixTime) -> bool {
        false
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Gain,
    Loss,
    Hours,
}

/// What rows that are told together have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    kind: Kind,
    services: Vec<String>,
    rules: BTreeSet<String>,
    when: BTreeSet<String>,
    was: BTreeSet<String>,
}

/// By what is told, for each target the sources.
#[derive(Default)]
struct Rows(BTreeMap<Row, BTreeMap<usize, BTreeSet<usize>>>);

/// What became of some ports: the kind, the rules, the times and the times before.
type Change = (Kind, BTreeSet<String>, BTreeSet<String>, BTreeSet<String>);

impl Rows {
    fn add(&mut self, from: usize, to: usize, was: &[Grant], is: &[Grant]) {
        let mut by_change: BTreeMap<Change, Vec<String>> = BTreeMap::new();
        for (change, service) in changes(was, is) {
            by_change
                .entry(change)
                .or_default()
                .push(service_text(&service));
        }
        for ((kind, rules, when, was), services) in by_change {
            let row = Row {
                kind,
                services,
                rules,
                when,
                was,
            };
            let pairs = self.0.entry(row).or_default();
            pairs.entry(to).or_default().insert(from);
        }
    }
}

/// What changes between two, in ranges of ports that are as long as can be.
fn changes(was: &[Grant], is: &[Grant]) -> Vec<(Change, Service)> {
    let all = || was.iter().chain(is);
    let protocols: BTreeSet<Option<u8>> = all().map(|grant| grant.service.protocol).collect();
    let mut changes: Vec<(Change, Service)> = Vec::new();
    let mut of_any: Option<Change> = None;
    for protocol in protocols {
        let covers =
            |grant: &&Grant| grant.service.protocol.is_none() || grant.service.protocol == protocol;
        let mut edges = BTreeSet::new();
        for grant in all().filter(covers) {
            edges.insert(u32::from(grant.service.first_port));
            edges.insert(u32::from(grant.service.last_port) + 1);
        }
        let edges: Vec<u32> = edges.into_iter().collect();
        let mut last: Option<(Change, Service)> = None;
        for ends in edges.windows(2) {
            let [first, end] = ends else { continue };
            let (Ok(first), Ok(end)) = (u16::try_from(*first), u16::try_from(end - 1)) else {
                continue;
            };
            let here = |grants: &[Grant]| when(grants.iter().filter(covers), protocol, first);
            let change = change(&here(was), &here(is));
            // What is told of everything needs no telling of TCP.
            let change = change.filter(|change| of_any.as_ref() != Some(change));
            match (&mut last, change) {
                (Some((before, service)), Some(change))
                    if *before == change && service.last_port.wrapping_add(1) == first =>
                {
                    service.last_port = end;
                }
                (_, change) => {
                    changes.extend(last.take());
                    let service = Service {
                        protocol,
                        first_port: first,
                        last_port: end,
                    };
                    last = change.map(|change| (change, service));
                }
            }
        }
        if protocol.is_none() {
            of_any = last.as_ref().map(|(change, _)| change.clone());
        }
        changes.extend(last);
    }
    changes
}

/// When a port is allowed; if always, only that.
fn when<'g>(grants: impl Iterator<Item = &'g Grant>, protocol: Option<u8>, port: u16) -> When {
    let mut when = When::new();
    for grant in grants {
        let is_all = grant.service.protocol.is_none() && protocol.is_some();
        let ports = grant.service.first_port..=grant.service.last_port;
        if is_all || ports.contains(&port) {
            let rules = when.entry(grant.when.clone()).or_default();
            rules.insert(grant.rule.clone());
        }
    }
    match when.remove("") {
        Some(rules) => When::from([(String::new(), rules)]),
        None => when,
    }
}

fn change(was: &When, is: &When) -> Option<Change> {
    let rules = |of: &When| of.values().flatten().cloned().collect();
    let times = |of: &When| of.keys().filter(|when| !when.is_empty()).cloned().collect();
    match (was.is_empty(), is.is_empty()) {
        (true, true) => None,
        (true, false) => Some((Kind::Gain, rules(is), times(is), BTreeSet::new())),
        (false, true) => Some((Kind::Loss, rules(was), times(was), BTreeSet::new())),
        (false, false) if was.keys().eq(is.keys()) => None,
        (false, false) => {
            let or_always = |of: &When| -> BTreeSet<String> {
                let times = times(of);
                match times.is_empty() {
                    true => BTreeSet::from(["always".to_owned()]),
                    false => times,
                }
            };
            Some((Kind::Hours, rules(is), or_always(is), or_always(was)))
        }
    }
}
