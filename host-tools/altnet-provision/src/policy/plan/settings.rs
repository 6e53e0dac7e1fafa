//! What a policy says besides its rules, a key and a sentence each.

use std::collections::{BTreeMap, BTreeSet};

use altnet_core::policy::Draft;
use altnet_core::registry::Registry;
use altnet_wire::id::Name;
use altnet_wire::policy::Atom;

use super::{hours, shown};
use crate::policy::write::{Writer, vouched};
use crate::policy::zone;

pub(super) fn of(draft: &Draft, registry: &Registry) -> BTreeMap<String, String> {
    let writer = Writer::new(draft, registry);
    let mut settings = BTreeMap::from([("timezone".to_owned(), zone::text(&draft.zone))]);
    if draft.stale_after_s != 0 {
        let after = format!("{} s", draft.stale_after_s);
        settings.insert("stale_after".into(), after);
    }
    for (site, name) in &draft.sites {
        settings.insert(format!("site {site}"), name.to_string());
    }
    for (group, of) in &draft.groups {
        let kind = if writer.is_domain(group) {
            "domain"
        } else {
            "group"
        };
        let of = writer.references(of).join(", ");
        settings.insert(format!("{kind} {group}"), of.replace("named:", ""));
    }
    for profile in &draft.profiles {
        let named = if profile.exclusive {
            "only_named, "
        } else {
            ""
        };
        let said = format!("{named}hours: {}", hours(profile.window.as_ref()));
        settings.insert(format!("profile {}", profile.group), said);
    }
    for (at, of) in vouched(draft) {
        let key = format!("logins at {}", writer.reference(at));
        settings.insert(key, logins(&of, &writer));
    }
    for (who, said) in sponsors(draft) {
        let key = format!("brought in by {}", writer.reference(who));
        settings.insert(key, said.join("; or "));
    }
    settings
}

/// Of whom a gateway may say that they are logged in.
fn logins(of: &BTreeSet<Atom>, writer: &Writer<'_>) -> String {
    if of.contains(&Atom::Members) {
        return "every person there is, on the gateway's word alone".into();
    }
    writer.references(of).join(", ")
}

/// What the lines that name somebody say, in their order.
fn sponsors(draft: &Draft) -> BTreeMap<&Atom, Vec<String>> {
    let mut by_whom: BTreeMap<&Atom, Vec<String>> = BTreeMap::new();
    for sponsor in &draft.sponsors {
        let groups: Vec<String> = sponsor
            .groups
            .iter()
            .map(|name| format!("group:{name}"))
            .collect();
        let groups = match groups.is_empty() {
            true => "in no group".to_owned(),
            false => format!("in {}", groups.join(", ")),
        };
        let depth = match sponsor.depth {
            1 => "who bring in nobody".to_owned(),
            depth => format!("in lines of at most {depth}"),
        };
        let said = format!("at most {} each, {groups}, {depth}", sponsor.most);
        by_whom.entry(&sponsor.who).or_default().push(said);
    }
    by_whom
}

/// Groups that members' invites gave somebody, and that a policy newly gives or no longer.
pub(super) fn brought_in(old: &Draft, new: &Draft, registry: &Registry) -> Vec<String> {
    let given = |draft: &Draft| -> BTreeSet<Name> {
        let sponsors = draft.sponsors.iter();
        sponsors.flat_map(|s| &s.groups).cloned().collect()
    };
    let (was, is) = (given(old), given(new));
    let said = was.symmetric_difference(&is).filter_map(|group| {
        let members = registry.members().map(|member| member.membership);
        let theirs = members
            .filter(|m| m.groups.contains(group) && registry.rests_on(&m.member).is_some())
            .map(|m| m.name.to_string());
        let mut names: Vec<String> = theirs.collect();
        names.sort();
        let names = (!names.is_empty()).then(|| shown(&names))?;
        Some(match is.contains(group) {
            true => format!("group {group}: counts again for {names}, brought in by members"),
            false => format!(
                "group {group}: no longer counts for {names}, brought in by members; listed in it \
                 below [groups] they keep it"
            ),
        })
    });
    said.collect()
}
