//! A policy as its author thinks of it, and its way into a record and back.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use altnet_wire::id::{Name, SiteId};
use altnet_wire::policy::{
    Atom, BadPolicy, InGroup, Policy, Profile, Rule, Run, Service, Sponsor, Voucher, Window, Zone,
};
use altnet_wire::time::UnixTime;
use serde::Serialize;

/// Everything a policy record says, by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// When it was made.
    pub issued: UnixTime,
    /// What windows take for local time.
    pub zone: Zone,
    /// A newest head older than this many seconds counts as stale.
    pub stale_after_s: u32,
    /// How the author calls sites.
    pub sites: BTreeMap<SiteId, Name>,
    /// What is in groups beside those whose membership says so.
    pub groups: BTreeMap<Name, BTreeSet<Atom>>,
    /// What holds for groups.
    pub profiles: Vec<DraftProfile>,
    /// The rules.
    pub rules: Vec<DraftRule>,
    /// Who may say who logged in: the gateway (a device, a site or a group) and whom it may say it
    /// of (a person, a group, or [`Atom::Members`] for every person).
    pub vouchers: BTreeSet<(Atom, Atom)>,
    /// Who may bring others in.
    pub sponsors: Vec<DraftSponsor>,
}

/// That members may bring others in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftSponsor {
    /// The members: a device, a person, a group, or [`Atom::Members`].
    pub who: Atom,
    /// How many each of them may have brought in at a time.
    pub most: u16,
    /// How long a line of sponsors may get.
    pub depth: u8,
    /// The groups that those are in who come in so.
    pub groups: BTreeSet<Name>,
}

/// What holds for everybody in a group, whichever rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftProfile {
    /// The group.
    pub group: Name,
    /// Only rules that name them, their device or a group of theirs count.
    pub exclusive: bool,
    /// Outside of it nothing is allowed.
    pub window: Option<Window>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftRule {
    /// Its name.
    pub name: Name,
    /// Those it allows.
    pub from: BTreeSet<Atom>,
    /// What it allows them to reach.
    pub to: BTreeSet<Atom>,
    /// The services there.
    pub services: BTreeSet<Service>,
    /// When it holds; always if none.
    pub window: Option<Window>,
    /// Whether it holds only while a head is held that isn't stale.
    pub needs_fresh_head: bool,
}

impl Draft {
    /// The rule that a new network begins with: every member reaches every named machine and app.
    pub fn members_to_hosts(issued: UnixTime) -> Self {
        let name = Name::new("members-to-hosts");
        let rule = |name| DraftRule {
            name,
            from: BTreeSet::from([Atom::Members]),
            to: BTreeSet::from([Atom::Hosts, Atom::Apps]),
            services: BTreeSet::from([Service::ANY]),
            window: None,
            needs_fresh_head: false,
        };
        Self {
            issued,
            stale_after_s: STALE_AFTER_S,
            rules: name.into_iter().map(rule).collect(),
            ..Self::default()
        }
    }

    /// Writes the body of a policy record.
    ///
    /// # Errors
    /// [`BadPolicy`] if there is too much of something, or something where it can't be.
    pub fn encode(&self) -> Result<Vec<u8>, BadPolicy> {
        let atoms = self.atoms();
        let names = self.names();
        let windows = self.windows();
        let mut pairs = Vec::new();
        for (group, members) in &self.groups {
            let group = place(&atoms, &Atom::Group(group.clone()))?;
            for atom in members {
                let atom = place(&atoms, atom)?;
                pairs.push(InGroup { atom, group });
            }
        }
        pairs.sort_unstable();
        let mut profiles = Vec::new();
        for profile in &self.profiles {
            profiles.push(Profile {
                group: place(&atoms, &Atom::Group(profile.group.clone()))?,
                exclusive: profile.exclusive,
                window: window(&windows, profile.window.as_ref())?,
            });
        }
        let mut sites = Vec::new();
        for (site, name) in &self.sites {
            sites.push((*site, place(&names, name)?));
        }
        let mut rules = Vec::new();
        for rule in &self.rules {
            let from = places(&atoms, &rule.from)?;
            let to = places(&atoms, &rule.to)?;
            let services = run(rule.services.iter())?;
            let rule = Rule {
                name: place(&names, &rule.name)?,
                from: Run::new(&from),
                to: Run::new(&to),
                services: Run::new(&services),
                window: window(&windows, rule.window.as_ref())?,
                needs_fresh_head: rule.needs_fresh_head,
            };
            extend(&mut rules, &rule)?;
        }
        let mut vouchers = Vec::new();
        for (at, who) in &self.vouchers {
            let (at, who) = (place(&atoms, at)?, place(&atoms, who)?);
            vouchers.push(Voucher { at, who });
        }
        vouchers.sort_unstable();
        let mut sponsors = Vec::new();
        for sponsor in &self.sponsors {
            let groups = sponsor.groups.iter().cloned().map(Atom::Group).collect();
            let groups = places(&atoms, &groups)?;
            let sponsor = Sponsor {
                who: place(&atoms, &sponsor.who)?,
                most: sponsor.most,
                depth: sponsor.depth,
                groups: Run::new(&groups),
            };
            extend(&mut sponsors, &sponsor)?;
        }
        let vouchers = run(vouchers.iter())?;
        let (atoms, names) = (run(atoms.iter())?, run(names.iter())?);
        let (sites, windows) = (run(sites.iter())?, run(windows.iter())?);
        let (pairs, profiles) = (run(pairs.iter())?, run(profiles.iter())?);
        let policy = Policy {
            issued: self.issued,
            zone: self.zone,
            stale_after_s: self.stale_after_s,
            atoms: Run::new(&atoms),
            names: Run::new(&names),
            sites: Run::new(&sites),
            windows: Run::new(&windows),
            groups: Run::new(&pairs),
            profiles: Run::new(&profiles),
            rules: Run::new(&rules),
            vouchers: Run::new(&vouchers),
            sponsors: Run::new(&sponsors),
        };
        let mut body = Vec::new();
        match policy.as_first() {
            Some(first) => extend(&mut body, &first)?,
            None => extend(&mut body, &policy)?,
        }
        Policy::decode(&body)?;
        Ok(body)
    }

    /// Reads the body of a policy record.
    ///
    /// # Errors
    /// [`BadPolicy`].
    pub fn decode(body: &[u8]) -> Result<Self, BadPolicy> {
        let policy = Policy::decode(body)?;
        let atoms: Vec<Atom> = policy.atoms.values().collect();
        let names: Vec<Name> = policy.names.values().collect();
        let windows: Vec<Window> = policy.windows.values().collect();
        let atom = |place: u16| atoms.get(usize::from(place)).cloned();
        let window = |place: Option<u8>| windows.get(usize::from(place?)).cloned();
        let group = |place: u16| match atom(place) {
            Some(Atom::Group(name)) => Some(name),
            _ => None,
        };
        let mut groups: BTreeMap<Name, BTreeSet<Atom>> = BTreeMap::new();
        for pair in policy.groups.values() {
            if let (Some(group), Some(atom)) = (group(pair.group), atom(pair.atom)) {
                groups.entry(group).or_default().insert(atom);
            }
        }
        let profiles = policy.profiles.values().filter_map(|profile| {
            Some(DraftProfile {
                group: group(profile.group)?,
                exclusive: profile.exclusive,
                window: window(profile.window),
            })
        });
        let vouchers = policy.vouchers.values();
        let vouchers = vouchers.filter_map(|voucher| Some((atom(voucher.at)?, atom(voucher.who)?)));
        let sponsors = policy.sponsors.values().filter_map(|sponsor| {
            Some(DraftSponsor {
                who: atom(sponsor.who)?,
                most: sponsor.most,
                depth: sponsor.depth,
                groups: sponsor.groups.values().filter_map(group).collect(),
            })
        });
        let sites = policy.sites.values();
        let sites = sites.filter_map(|(site, name)| Some((site, names.get(usize::from(name))?)));
        let rules = policy.rules.values().filter_map(|rule| {
            Some(DraftRule {
                name: names.get(usize::from(rule.name))?.clone(),
                from: rule.from.values().filter_map(atom).collect(),
                to: rule.to.values().filter_map(atom).collect(),
                services: rule.services.values().collect(),
                window: window(rule.window),
                needs_fresh_head: rule.needs_fresh_head,
            })
        });
        Ok(Self {
            issued: policy.issued,
            zone: policy.zone,
            stale_after_s: policy.stale_after_s,
            sites: sites.map(|(site, name)| (site, name.clone())).collect(),
            groups,
            profiles: profiles.collect(),
            rules: rules.collect(),
            vouchers: vouchers.collect(),
            sponsors: sponsors.collect(),
        })
    }

    fn atoms(&self) -> Vec<Atom> {
        let named = self.groups.keys();
        let profiled = self.profiles.iter().map(|profile| &profile.group);
        let groups = named.chain(profiled).cloned().map(Atom::Group);
        let members = self.groups.values().flatten().cloned();
        let rules = self.rules.iter();
        let ends = rules.flat_map(|rule| rule.from.iter().chain(&rule.to).cloned());
        let vouched = self.vouchers.iter().flat_map(|(at, who)| [at, who]);
        let sponsors = self.sponsors.iter();
        let given = sponsors.clone().flat_map(|sponsor| &sponsor.groups);
        let given = given.cloned().map(Atom::Group);
        let others = vouched.chain(sponsors.map(|sponsor| &sponsor.who)).cloned();
        let all: BTreeSet<Atom> = groups
            .chain(members)
            .chain(ends)
            .chain(given)
            .chain(others)
            .collect();
        all.into_iter().collect()
    }

    fn names(&self) -> Vec<Name> {
        let rules = self.rules.iter().map(|rule| &rule.name);
        let all: BTreeSet<&Name> = rules.chain(self.sites.values()).collect();
        all.into_iter().cloned().collect()
    }

    fn windows(&self) -> Vec<Window> {
        let profiles = self.profiles.iter().map(|profile| &profile.window);
        let rules = self.rules.iter().map(|rule| &rule.window);
        let mut windows: Vec<Window> = Vec::new();
        for window in profiles.chain(rules).flatten() {
            if !windows.contains(window) {
                windows.push(window.clone());
            }
        }
        windows
    }
}

/// After this long without a head of any issuer, what they know may not be known here: 7 days.
/// Issuers on servers sign one a day.
pub const STALE_AFTER_S: u32 = 7 * 86_400;

fn place<T: Ord>(all: &[T], wanted: &T) -> Result<u16, BadPolicy> {
    // Gathered from the same draft, so it is there.
    let at = all.binary_search(wanted);
    let at = at.map_err(|_| BadPolicy::NoSuch("an atom or a name"))?;
    u16::try_from(at).map_err(|_| BadPolicy::TooMany {
        what: "atoms or names",
        limit: u16::MAX.into(),
    })
}

fn places(all: &[Atom], wanted: &BTreeSet<Atom>) -> Result<Vec<u8>, BadPolicy> {
    let mut bytes = Vec::new();
    for atom in wanted {
        extend(&mut bytes, &place(all, atom)?)?;
    }
    Ok(bytes)
}

fn window(all: &[Window], wanted: Option<&Window>) -> Result<Option<u8>, BadPolicy> {
    let Some(wanted) = wanted else {
        return Ok(None);
    };
    let at = all.iter().position(|window| window == wanted);
    let at = at.and_then(|at| u8::try_from(at).ok());
    at.map(Some).ok_or(BadPolicy::TooMany {
        what: "windows",
        limit: altnet_wire::policy::MAX_WINDOWS,
    })
}

fn run<'v, T: Serialize + 'v>(values: impl Iterator<Item = &'v T>) -> Result<Vec<u8>, BadPolicy> {
    let mut bytes = Vec::new();
    for value in values {
        extend(&mut bytes, value)?;
    }
    Ok(bytes)
}

fn extend<T: Serialize>(bytes: &mut Vec<u8>, value: &T) -> Result<(), BadPolicy> {
    let more = postcard::to_allocvec(value).map_err(|_| BadPolicy::Impossible("a value"))?;
    bytes.extend(more);
    Ok(())
}
