//! A policy as it is asked: its record read, its names looked up, its rules compiled.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use altnet_wire::id::{Name, Serial};
use altnet_wire::policy::{Atom, BadPolicy, InGroup, Policy, Rule, Voucher, Window, Zone};
use altnet_wire::time::UnixTime;

use super::PolicyLimits;
use super::calendar::{self, Conditions, FRESH};
use super::roster::{Login, What};
use super::table::{Grant, RuleIndex, Symbol, Table};

/// Why a policy that is in order can't be put to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RulesError {
    /// Its body is no policy.
    #[error(transparent)]
    Bad(#[from] BadPolicy),
    /// It combines more sources, targets and ranges of ports than there is room for here.
    #[error(
        "the policy's rules come to more than the {limit} combinations of source, target and ports there is room for"
    )]
    TooLarge {
        /// Rows that there is room for.
        limit: usize,
    },
}

/// The rules in force.
#[derive(Clone, Debug)]
pub struct Rules {
    serial: Serial,
    atoms: Box<[Atom]>,
    names: Box<[Name]>,
    windows: Box<[Window]>,
    zone: Zone,
    stale_after_s: u32,
    groups: Box<[InGroup]>,
    profiles: Box<[Profile]>,
    vouchers: Box<[Voucher]>,
    patterns: Box<[Symbol]>,
    table: Table,
    has_conditions: bool,
}

#[derive(Clone, Copy, Debug)]
struct Profile {
    group: Symbol,
    is_exclusive: bool,
    needs: Conditions,
}

impl Rules {
    /// Reads and compiles the body of a policy record, as a router does.
    ///
    /// # Errors
    /// See [`RulesError`].
    pub fn new(body: &[u8], serial: Serial) -> Result<Self, RulesError> {
        Self::within(body, serial, &PolicyLimits::ROUTER)
    }

    /// Reads and compiles the body of a policy record where there is so much room.
    ///
    /// # Errors
    /// See [`RulesError`].
    pub fn within(body: &[u8], serial: Serial, limits: &PolicyLimits) -> Result<Self, RulesError> {
        let policy = Policy::decode(body)?;
        let limit = limits.rows as usize;
        let combined = |rule: Rule<'_>| {
            rule.from.values().count() * rule.to.values().count() * rule.services.values().count()
        };
        // Before anything is gathered.
        if policy.rules.values().map(combined).sum::<usize>() > limit {
            return Err(RulesError::TooLarge { limit });
        }
        let atoms: Box<[Atom]> = policy.atoms.values().collect();
        let labels: Vec<Name> = policy.names.values().collect();
        let mut grants = Vec::new();
        let mut needs = Vec::new();
        let mut names = Vec::new();
        for (index, rule) in (0..RuleIndex::MAX).zip(policy.rules.values()) {
            let fresh = if rule.needs_fresh_head { FRESH } else { 0 };
            needs.push(window_bit(rule.window) | fresh);
            names.extend(labels.get(usize::from(rule.name)).cloned());
            for from in rule.from.values() {
                for to in rule.to.values() {
                    grants.extend(rule.services.values().map(|service| Grant {
                        from,
                        to,
                        protocol: service.protocol,
                        first_port: service.first_port,
                        last_port: service.last_port,
                        rule: index,
                    }));
                }
            }
        }
        let has_conditions = !policy.windows.is_empty() || needs.iter().any(|needs| *needs != 0);
        let table = Table::new(grants, needs.into_boxed_slice(), atoms.len(), limit)
            .ok_or(RulesError::TooLarge { limit })?;
        let profiles = policy.profiles.values().map(|profile| Profile {
            group: profile.group,
            is_exclusive: profile.exclusive,
            needs: window_bit(profile.window),
        });
        let is_pattern = |(_, atom): &(Symbol, &Atom)| matches!(atom, Atom::Named(_));
        let patterns = (0..Symbol::MAX).zip(&atoms).filter(is_pattern);
        Ok(Self {
            serial,
            names: names.into_boxed_slice(),
            windows: policy.windows.values().collect(),
            zone: policy.zone,
            stale_after_s: policy.stale_after_s,
            groups: policy.groups.values().collect(),
            profiles: profiles.collect(),
            vouchers: policy.vouchers.values().collect(),
            patterns: patterns.map(|(symbol, _)| symbol).collect(),
            table,
            has_conditions,
            atoms,
        })
    }

    /// The serial of the record.
    pub const fn serial(&self) -> Serial {
        self.serial
    }

    /// How many rules there are.
    pub const fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether nothing is allowed.
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How many ranges of ports of a source and a target they came to.
    pub fn rows(&self) -> usize {
        self.table.len()
    }

    /// What the compiled rules take of memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.table.bytes() + size_of_val(&*self.groups) + size_of_val(&*self.atoms)
    }

    pub(super) fn name(&self, rule: RuleIndex) -> Option<&Name> {
        self.names.get(usize::from(rule))
    }

    pub(super) const fn table(&self) -> &Table {
        &self.table
    }

    /// Whether what holds may change by time alone.
    pub(super) const fn has_conditions(&self) -> bool {
        self.has_conditions
    }

    /// What holds at `time`, with the newest head of this date.
    pub(super) fn conditions(&self, time: Option<UnixTime>, head: Option<UnixTime>) -> Conditions {
        let open = calendar::open(&self.windows, &self.zone, time);
        // While the time isn't known nothing shows that a head is old.
        let is_fresh = head.is_some_and(|head| {
            time.is_none_or(|time| {
                time.saturating_since(head).as_secs() <= u64::from(self.stale_after_s)
            })
        });
        open | if is_fresh { FRESH } else { 0 }
    }

    /// Gives `take` the place of every atom that `what` comes under.
    pub(super) fn symbols(&self, what: &What<'_>, take: &mut dyn FnMut(Symbol)) {
        let mut own = |atom: Atom| {
            if let Ok(place) = self.atoms.binary_search(&atom) {
                self.with_groups(place as Symbol, take);
            }
        };
        match what {
            What::Device(membership) => {
                own(Atom::Members);
                own(Atom::Anything);
                own(Atom::Device(membership.member));
                if let Some(person) = &membership.person {
                    own(Atom::Person(person.clone()));
                }
                for group in &membership.groups {
                    own(Atom::Group(group.clone()));
                }
            }
            What::Host(site, name) => {
                own(Atom::Members);
                own(Atom::Anything);
                own(Atom::Hosts);
                own(Atom::Site(*site));
                own(Atom::Host(*site, (*name).clone()));
                self.named(name, take);
            }
            What::App(member, name) => {
                own(Atom::Anything);
                own(Atom::Apps);
                own(Atom::App(*member, (*name).clone()));
                self.named(name, take);
            }
            What::Site(site) => {
                own(Atom::Members);
                own(Atom::Anything);
                own(Atom::Site(*site));
            }
            What::Login(login) => {
                self.symbols(&What::Site(login.site), take);
                self.vouched(login, &mut |symbol| self.with_groups(symbol, take));
            }
        }
    }

    /// Gives `take` the place of the person and of each group that a login counts as.
    fn vouched(&self, login: &Login<'_>, take: &mut dyn FnMut(Symbol)) {
        if self.vouchers.is_empty() {
            return;
        }
        let place = |atom: &Atom| self.atoms.binary_search(atom).ok().map(|at| at as Symbol);
        let mut by = BTreeSet::new();
        self.symbols(&What::Device(login.by), &mut |symbol| {
            by.insert(symbol);
        });
        by.extend(place(&Atom::Site(login.site)));
        let may_say = |who: Symbol| {
            let said = |voucher: &&Voucher| voucher.who == who && by.contains(&voucher.at);
            self.vouchers.iter().any(|voucher| said(&voucher))
        };
        let person = login.person.map(|person| Atom::Person(person.clone()));
        if let Some(person) = person.as_ref().and_then(place)
            && (may_say(person) || place(&Atom::Members).is_some_and(may_say))
        {
            take(person);
        }
        for group in login.groups {
            if let Some(group) = place(&Atom::Group(group.clone())).filter(|group| may_say(*group))
            {
                take(group);
            }
        }
    }

    /// The person and the groups that a login counts as: whom no rule speaks of are not among
    /// them, nor those for whom the gateway may not vouch.
    pub fn counted<'l>(&self, login: &Login<'l>) -> (Option<&'l Name>, Vec<&'l Name>) {
        let (mut person, mut groups) = (None, Vec::new());
        self.vouched(
            login,
            &mut |symbol| match self.atoms.get(usize::from(symbol)) {
                Some(Atom::Person(_)) => person = login.person,
                Some(Atom::Group(name)) => groups.extend(login.groups.iter().find(|g| *g == name)),
                _ => {}
            },
        );
        (person, groups)
    }

    fn named(&self, name: &Name, take: &mut dyn FnMut(Symbol)) {
        for symbol in &self.patterns {
            if let Some(Atom::Named(pattern)) = self.atoms.get(usize::from(*symbol))
                && pattern.fits(name)
            {
                self.with_groups(*symbol, take);
            }
        }
    }

    fn with_groups(&self, symbol: Symbol, take: &mut dyn FnMut(Symbol)) {
        take(symbol);
        let first = self.groups.partition_point(|pair| pair.atom < symbol);
        let from_there = self.groups.get(first..).unwrap_or_default();
        for pair in from_there.iter().take_while(|pair| pair.atom == symbol) {
            take(pair.group);
        }
    }

    /// Whether only rules that name them count for whom these stand.
    pub(super) fn is_exclusive(&self, symbols: &BTreeSet<Symbol>) -> bool {
        let mut theirs = self.profiles_of(symbols);
        theirs.any(|profile| profile.is_exclusive)
    }

    /// What has to hold for anything that they begin.
    pub(super) fn profile_needs(&self, symbols: &BTreeSet<Symbol>) -> Conditions {
        let theirs = self.profiles_of(symbols);
        theirs.fold(0, |needs, profile| needs | profile.needs)
    }

    fn profiles_of(&self, symbols: &BTreeSet<Symbol>) -> impl Iterator<Item = &Profile> {
        let profiles = self.profiles.iter();
        profiles.filter(|profile| symbols.contains(&profile.group))
    }

    /// Whether a source stands for whoever happens to be somewhere.
    pub(super) fn is_general(&self, symbol: Symbol) -> bool {
        let atom = self.atoms.get(usize::from(symbol));
        matches!(atom, Some(Atom::Members | Atom::Site(_)))
    }
}

const fn window_bit(window: Option<u8>) -> Conditions {
    match window {
        // Checked to be below 32 when the policy was read.
        Some(place) => 1 << (place & 31),
        None => 0,
    }
}
