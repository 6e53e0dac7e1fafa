//! What a policy names, and what of it is there.

use std::collections::BTreeSet;

use altnet_core::policy::Draft;
use altnet_core::registry::Registry;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::Atom;

/// What a policy names that isn't there (any more, or yet).
pub(crate) fn missing(draft: &Draft, registry: &Registry) -> Vec<String> {
    let called = |site: &SiteId| match draft.sites.get(site) {
        Some(name) => format!("{name} ({site})"),
        None => site.to_string(),
    };
    let mut missing = Vec::new();
    for atom in named_atoms(draft) {
        match atom {
            Atom::Device(member) if registry.by_member(member).is_none() => {
                missing.push(format!("device:{member} is no member (any more)"));
            }
            Atom::Host(site, name) => {
                let host = registry.host(name).map(|host| host.record.site);
                if host != Some(*site) {
                    missing.push(format!(
                        "no machine called {name} is in site {}",
                        called(site)
                    ));
                }
            }
            Atom::App(member, name) => {
                let app = registry.app_by_name(name);
                let owner = app.and_then(|app| registry.by_device(&app.device));
                if owner.is_none_or(|owner| owner.membership.member != *member) {
                    missing.push(format!("no app called {name} runs on {member}"));
                }
            }
            Atom::Site(site) if registry.gateway(*site).is_none() => {
                missing.push(format!("site {} has no gateway", called(site)));
            }
            _ => {}
        }
    }
    missing
}

/// Every atom that a draft names, but groups that are only given.
pub(super) fn named_atoms(draft: &Draft) -> BTreeSet<&Atom> {
    let mut atoms = judged_atoms(draft);
    atoms.extend(draft.vouchers.iter().flat_map(|(at, who)| [at, who]));
    atoms.extend(draft.sponsors.iter().map(|sponsor| &sponsor.who));
    atoms
}

/// Every atom that decides who reaches what.
pub(super) fn judged_atoms(draft: &Draft) -> BTreeSet<&Atom> {
    let rules = draft.rules.iter();
    let ends = rules.flat_map(|rule| rule.from.iter().chain(&rule.to));
    draft.groups.values().flatten().chain(ends).collect()
}

/// Groups and people that issuers gave, or will by open invites.
pub(super) fn given(registry: &Registry) -> (BTreeSet<Name>, BTreeSet<Name>) {
    let memberships = registry.members().map(|member| member.membership);
    let (mut groups, mut people) = (BTreeSet::new(), BTreeSet::new());
    for membership in memberships {
        groups.extend(membership.groups.iter().cloned());
        people.extend(membership.person.clone());
    }
    for invite in registry.invites() {
        groups.extend(invite.groups.iter().cloned());
        people.extend(invite.person.clone());
    }
    (groups, people)
}
