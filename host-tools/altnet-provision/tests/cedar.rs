//! An outside oracle: what the compiled rules say of every flow of a small town is what Cedar says
//! of the same policy, written in Cedar's language by a plain reading of it.
//!
//! People, groups and sites are Cedar's own hierarchy; a rule is a `permit`, the hours of a profile
//! are a `forbid` outside of them, and what only counts for those who are named is `unless`.

mod common;

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::str::FromStr;

use altnet_core::ip::Protocol;
use altnet_core::policy::{
    Draft, DraftRule, Enrolled, Facts, FlowInfo, Policy, PolicyLimits, Rules, What,
};
use altnet_wire::id::{Name, Serial};
use altnet_wire::policy::{Atom, Service, Window};
use altnet_wire::time::UnixTime;
use cedar_policy::{Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request};
use common::town::{drafts, moment, registry};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use serde_json::{Value, json};

/// Protocols and ports that tell the rules of the town apart.
const FLOWS: [(u8, u16); 5] = [(6, 80), (6, 443), (17, 79), (58, 0), (132, 0)];

fn uid(kind: &str, id: impl ToString) -> Value {
    json!({ "type": kind, "id": id.to_string() })
}

/// The entity of an atom that others can be in.
fn of_atom(atom: &Atom) -> Option<(&'static str, String)> {
    Some(match atom {
        Atom::Members => ("All", "members".into()),
        Atom::Hosts => ("All", "hosts".into()),
        Atom::Apps => ("All", "apps".into()),
        Atom::Anything => ("All", "anything".into()),
        Atom::Person(name) => ("Person", name.to_string()),
        Atom::Group(name) => ("Group", name.to_string()),
        Atom::Device(member) => ("Device", member.to_string()),
        Atom::Site(site) => ("Site", site.to_string()),
        Atom::Host(site, name) => ("Host", format!("{name}@{site}")),
        Atom::App(member, name) => ("App", format!("{name}@{member}")),
        _ => return None,
    })
}

/// One with an address, and what it is in.
fn entity(one: &Enrolled<'_>) -> Value {
    let (named, atoms) = match one.what {
        What::Device(m) => {
            let mut atoms = vec![Atom::Members, Atom::Anything, Atom::Device(m.member)];
            atoms.extend(m.person.clone().map(Atom::Person));
            atoms.extend(m.groups.iter().cloned().map(Atom::Group));
            (None, atoms)
        }
        What::Host(site, name) => {
            let own = Atom::Host(site, name.clone());
            let atoms = vec![
                Atom::Members,
                Atom::Anything,
                Atom::Hosts,
                Atom::Site(site),
                own,
            ];
            (Some(name), atoms)
        }
        What::App(member, name) => {
            let own = Atom::App(member, name.clone());
            (Some(name), vec![Atom::Anything, Atom::Apps, own])
        }
        What::Site(site) => (None, vec![Atom::Members, Atom::Anything, Atom::Site(site)]),
        What::Login(_) => unreachable!("no record says who logged in"),
    };
    let parents = atoms.iter().filter_map(of_atom);
    let parents: Vec<Value> = parents.map(|(kind, id)| uid(kind, id)).collect();
    let attrs = named.map_or(json!({}), |name: &Name| json!({ "name": name.as_str() }));
    json!({ "uid": uid("Address", one.at), "attrs": attrs, "parents": parents })
}

/// What the author put into groups.
fn groups(draft: &Draft) -> Vec<Value> {
    let atoms: BTreeSet<&Atom> = draft.groups.values().flatten().collect();
    let entity = |atom: &Atom| {
        let (kind, id) = of_atom(atom)?;
        let theirs = draft.groups.iter().filter(|(_, of)| of.contains(atom));
        let parents: Vec<Value> = theirs.map(|(group, _)| uid("Group", group)).collect();
        Some(json!({ "uid": uid(kind, id), "attrs": {}, "parents": parents }))
    };
    atoms.into_iter().filter_map(entity).collect()
}

/// The condition that `who`, principal or resource, comes under an atom.
fn is(draft: &Draft, who: &str, atom: &Atom) -> String {
    if let Atom::Named(pattern) = atom {
        let pattern = pattern.as_str();
        return format!("({who} has name && {who}.name like \"{pattern}\")");
    }
    let mut said = match of_atom(atom) {
        Some((kind, id)) => format!("{who} in {kind}::\"{id}\""),
        None => "false".into(),
    };
    if let Atom::Group(group) = atom {
        let listed = draft.groups.get(group).into_iter().flatten();
        for pattern in listed.filter(|atom| matches!(atom, Atom::Named(_))) {
            said = format!("{said} || {}", is(draft, who, pattern));
        }
    }
    format!("({said})")
}

fn any<'a>(draft: &Draft, who: &str, atoms: impl Iterator<Item = &'a Atom>) -> String {
    let all: Vec<String> = atoms.map(|atom| is(draft, who, atom)).collect();
    match all.is_empty() {
        true => "false".into(),
        false => format!("({})", all.join(" || ")),
    }
}

fn is_open(window: &Window) -> String {
    let mut ways = vec![format!("!context.clock && {}", window.open_without_clock)];
    for span in &window.spans {
        let days = |shift: u8| {
            let on = (0..7u8).filter(|day| span.days >> day & 1 == 1);
            let on: Vec<String> = on.map(|day| ((day + shift) % 7).to_string()).collect();
            format!("[{}].contains(context.day)", on.join(","))
        };
        let after = format!("context.minute >= {}", span.opens_min);
        let before = format!("context.minute < {}", span.closes_min);
        ways.push(match span.opens_min < span.closes_min {
            true => format!("context.clock && {} && {after} && {before}", days(0)),
            false => format!(
                "context.clock && (({} && {after}) || ({} && {before}))",
                days(0),
                days(1)
            ),
        });
    }
    let ways: Vec<String> = ways.iter().map(|way| format!("({way})")).collect();
    format!("({})", ways.join(" || "))
}

fn is_service(service: &Service) -> String {
    let protocol = service.protocol.map_or("true".into(), |number| {
        format!("context.protocol == {number}")
    });
    let (first, last) = (service.first_port, service.last_port);
    format!("({protocol} && context.port >= {first} && context.port <= {last})")
}

fn permit(draft: &Draft, rule: &DraftRule) -> String {
    let is_general = |atom: &&Atom| matches!(atom, Atom::Members | Atom::Site(_));
    let only_named = draft.profiles.iter().filter(|profile| profile.exclusive);
    let only_named: Vec<Atom> = only_named.map(|p| Atom::Group(p.group.clone())).collect();
    let named = any(
        draft,
        "principal",
        rule.from.iter().filter(|atom| !is_general(atom)),
    );
    let general = any(draft, "principal", rule.from.iter().filter(is_general));
    let services: Vec<String> = rule.services.iter().map(is_service).collect();
    let mut when = vec![
        any(draft, "resource", rule.to.iter()),
        format!("({})", services.join(" || ")),
    ];
    when.extend(rule.window.as_ref().map(is_open));
    when.extend(rule.needs_fresh_head.then(|| "context.fresh".to_owned()));
    let when = when.join(" && ");
    format!(
        "permit(principal, action, resource) when {{ {named} && {when} }};\n\
         permit(principal, action, resource) when {{ {general} && {when} }} unless {{ {} }};\n",
        any(draft, "principal", only_named.iter())
    )
}

fn cedar(draft: &Draft) -> PolicySet {
    let mut text = String::new();
    for rule in &draft.rules {
        text.push_str(&permit(draft, rule));
    }
    for profile in &draft.profiles {
        let Some(window) = &profile.window else {
            continue;
        };
        let theirs = is(draft, "principal", &Atom::Group(profile.group.clone()));
        text.push_str(&format!(
            "forbid(principal, action, resource) when {{ {theirs} }} unless {{ {} }};\n",
            is_open(window)
        ));
    }
    PolicySet::from_str(&text).unwrap_or_else(|error| panic!("{error:?}\n{text}"))
}

struct Everything;

impl Facts for Everything {
    fn is_ours(&self, _: Ipv6Addr) -> bool {
        true
    }
    fn is_ended(&self, _: UnixTime) -> bool {
        false
    }
}

/// What is asked of both about one policy: everybody by everybody, at some moments.
struct Question<'e> {
    everybody: Vec<(&'e Enrolled<'e>, EntityUid)>,
    action: EntityUid,
    policies: PolicySet,
    entities: Entities,
}

impl<'e> Question<'e> {
    fn new(draft: &Draft, everybody: &'e [Enrolled<'e>]) -> Self {
        let entities = everybody.iter().map(entity).chain(groups(draft));
        let entities: Vec<Value> = entities.collect();
        let named = |one: &'e Enrolled<'e>| {
            let uid = EntityUid::from_json(uid("Address", one.at));
            (one, uid.unwrap())
        };
        Self {
            everybody: everybody.iter().map(named).collect(),
            action: EntityUid::from_str("Action::\"begin\"").unwrap(),
            policies: cedar(draft),
            entities: Entities::from_json_value(entities.into(), None).unwrap(),
        }
    }

    /// Compares what both say of one service at one moment, for every source and target.
    fn ask(
        &self,
        ours: &Policy,
        (protocol, port): (u8, u16),
        minute: Option<u64>,
        is_fresh: bool,
    ) -> Result<(), TestCaseError> {
        let of_week = minute.unwrap_or_default();
        let context = json!({
            "clock": minute.is_some(),
            "day": of_week / 1440,
            "minute": of_week % 1440,
            "fresh": is_fresh,
            "protocol": protocol,
            "port": port,
        });
        let context = Context::from_json_value(context, None).unwrap();
        let authorizer = Authorizer::new();
        for (source, principal) in &self.everybody {
            for (target, resource) in &self.everybody {
                let flow = FlowInfo {
                    source: source.at.address(),
                    destination: target.at.address(),
                    protocol: Protocol(protocol),
                    port,
                };
                let found = ours.judge_flow(&flow, &Everything).is_allowed();
                let (principal, resource) = (principal.clone(), resource.clone());
                let context = context.clone();
                let request =
                    Request::new(principal, self.action.clone(), resource, context, None).unwrap();
                let said = authorizer.is_authorized(&request, &self.policies, &self.entities);
                let mut errors = said.diagnostics().errors();
                prop_assert!(errors.next().is_none(), "{:?}", said);
                prop_assert_eq!(
                    found,
                    said.decision() == Decision::Allow,
                    "{:?} to {:?}, {} {} in minute {:?}",
                    source.what,
                    target.what,
                    protocol,
                    port,
                    minute
                );
            }
        }
        Ok(())
    }
}

proptest! {
    // Many policies and a few moments of each find more than few and many.
    #![proptest_config(Config { cases: 96, ..Config::default() })]

    #[test]
    fn the_rules_decide_as_cedar_does(
        draft in drafts(),
        flow in select(FLOWS.to_vec()),
        minutes in proptest::collection::vec(0u64..7 * 1440, 3),
        is_fresh: bool,
    ) {
        let registry = registry();
        let everybody: Vec<Enrolled<'_>> = registry.enrolled().collect();
        let mut ours = Policy::new(PolicyLimits::MICRO, [3; 16]);
        let rules = Rules::new(&draft.encode().unwrap(), Serial(1)).unwrap();
        ours.set_rules(Some(rules), everybody.iter().copied());
        let question = Question::new(&draft, &everybody);
        for minute in minutes.into_iter().map(Some).chain([None]) {
            let time = minute.map(moment);
            // Without a clock no head is known to be old: then none is held that isn't fresh.
            let old = |time: UnixTime| time.as_secs() - u64::from(draft.stale_after_s) - 1;
            let head = match is_fresh {
                true => Some(time.unwrap_or(moment(0))),
                false => time.map(|time| UnixTime::from_secs(old(time))),
            };
            ours.handle_time(time, head);
            question.ask(&ours, flow, minute, is_fresh)?;
        }
    }
}
