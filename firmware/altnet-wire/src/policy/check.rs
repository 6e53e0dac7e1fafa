//! Whether a policy is one: every place holds what it has to, every table is in order, nothing is
//! past its bound. What compiles a policy then meets no surprise.

use serde::{Deserialize, Serialize};

use crate::record::MAX_GROUPS;

use super::{
    Atom, BadPolicy, DAY_MINUTES, InGroup, MAX_ATOMS, MAX_ROWS, MAX_RULES, MAX_SPONSORS,
    MAX_VOUCHERS, MAX_WINDOWS, Policy, Run, Service, Span, Summer, Switch, Voucher, Window, Zone,
};

impl Policy<'_> {
    pub(super) fn check(&self) -> Result<(), BadPolicy> {
        let mut sizes = Sizes {
            atoms: 0,
            names: count(&self.names, "names", MAX_RULES + MAX_ATOMS)?,
            windows: count(&self.windows, "windows", MAX_WINDOWS)?,
            groups: (0, 0),
            people: (0, 0),
            devices: (0, 0),
            sites: (0, 0),
            members: None,
            only_targets: [0; MAX_ATOMS / 64],
        };
        self.check_atoms(&mut sizes)?;
        check_zone(&self.zone)?;
        for site in self.sites.iter() {
            sizes.name(site?.1)?;
        }
        for window in self.windows.iter() {
            check_window(&window?)?;
        }
        self.check_groups(&mut sizes)?;
        self.check_rules(&sizes)?;
        self.check_vouchers(&sizes)?;
        self.check_sponsors(&sizes)
    }

    fn check_atoms(&self, sizes: &mut Sizes) -> Result<(), BadPolicy> {
        let mut last: Option<Atom> = None;
        for (place, atom) in (0u16..).zip(self.atoms.iter()) {
            let atom = atom?;
            if usize::from(place) >= MAX_ATOMS {
                return Err(too_many("atoms", MAX_ATOMS));
            }
            match &atom {
                Atom::Named(pattern) if !pattern.is_valid() => {
                    return Err(BadPolicy::Impossible("a pattern"));
                }
                Atom::Members => sizes.members = Some(place),
                Atom::Person(_) => widen(&mut sizes.people, place),
                Atom::Group(_) => widen(&mut sizes.groups, place),
                Atom::Device(_) => widen(&mut sizes.devices, place),
                Atom::Site(_) => widen(&mut sizes.sites, place),
                _ => {}
            }
            if atom.is_only_target() {
                sizes.set_only_target(place);
            }
            if last.is_some_and(|last| last >= atom) {
                return Err(BadPolicy::Order("atoms"));
            }
            sizes.atoms += 1;
            last = Some(atom);
        }
        Ok(())
    }

    fn check_groups(&self, sizes: &mut Sizes) -> Result<(), BadPolicy> {
        let mut last: Option<InGroup> = None;
        count(&self.groups, "members of groups", MAX_ROWS)?;
        for pair in self.groups.iter() {
            let pair = pair?;
            sizes.atom(pair.atom)?;
            if !sizes.is_group(pair.group) {
                return Err(BadPolicy::NoSuch("a group"));
            }
            if sizes.is_group(pair.atom) || sizes.members == Some(pair.atom) {
                return Err(BadPolicy::Impossible("a member of a group"));
            }
            if last.is_some_and(|last| last >= pair) {
                return Err(BadPolicy::Order("groups"));
            }
            if sizes.is_only_target(pair.atom) {
                sizes.set_only_target(pair.group);
            }
            last = Some(pair);
        }
        count(&self.profiles, "profiles", MAX_WINDOWS)?;
        for profile in self.profiles.iter() {
            let profile = profile?;
            if !sizes.is_group(profile.group) {
                return Err(BadPolicy::NoSuch("a group"));
            }
            sizes.window(profile.window)?;
        }
        Ok(())
    }

    fn check_vouchers(&self, sizes: &Sizes) -> Result<(), BadPolicy> {
        let mut last: Option<Voucher> = None;
        count(&self.vouchers, "vouchers", MAX_VOUCHERS)?;
        for voucher in self.vouchers.iter() {
            let voucher = voucher?;
            sizes.atom(voucher.at)?;
            sizes.atom(voucher.who)?;
            let may_vouch = [sizes.devices, sizes.sites, sizes.groups];
            if !may_vouch.iter().any(|kind| is_among(kind, voucher.at)) {
                return Err(BadPolicy::Impossible("who vouches"));
            }
            let is_person = is_among(&sizes.people, voucher.who);
            let is_anybody = sizes.members == Some(voucher.who);
            if !(is_person || is_anybody || sizes.is_group(voucher.who)) {
                return Err(BadPolicy::Impossible("whom is vouched for"));
            }
            if last.is_some_and(|last| last >= voucher) {
                return Err(BadPolicy::Order("vouchers"));
            }
            last = Some(voucher);
        }
        Ok(())
    }

    fn check_sponsors(&self, sizes: &Sizes) -> Result<(), BadPolicy> {
        count(&self.sponsors, "lines about sponsors", MAX_SPONSORS)?;
        for sponsor in self.sponsors.iter() {
            let sponsor = sponsor?;
            sizes.atom(sponsor.who)?;
            let may_sponsor = [sizes.people, sizes.groups, sizes.devices];
            let is_everybody = sizes.members == Some(sponsor.who);
            if !is_everybody && !may_sponsor.iter().any(|kind| is_among(kind, sponsor.who)) {
                return Err(BadPolicy::Impossible("a sponsor"));
            }
            if sponsor.most == 0 || sponsor.depth == 0 {
                return Err(BadPolicy::Impossible("a sponsor who may bring in nobody"));
            }
            count(&sponsor.groups, "groups of a sponsor's", MAX_GROUPS)?;
            let mut last = None;
            for place in sponsor.groups.iter() {
                let place = place?;
                if !sizes.is_group(place) {
                    return Err(BadPolicy::NoSuch("a group"));
                }
                if last.is_some_and(|last| last >= place) {
                    return Err(BadPolicy::Order("groups of a sponsor's"));
                }
                last = Some(place);
            }
        }
        Ok(())
    }

    fn check_rules(&self, sizes: &Sizes) -> Result<(), BadPolicy> {
        let (mut rules, mut rows) = (0usize, 0usize);
        for rule in self.rules.iter() {
            let rule = rule?;
            rules += 1;
            if rules > MAX_RULES {
                return Err(too_many("rules", MAX_RULES));
            }
            sizes.name(rule.name)?;
            sizes.window(rule.window)?;
            let (mut sources, mut targets, mut services) = (0usize, 0usize, 0usize);
            for place in rule.from.iter() {
                let place = place?;
                sizes.atom(place)?;
                if sizes.is_only_target(place) {
                    return Err(BadPolicy::Impossible("a source"));
                }
                sources += 1;
            }
            for place in rule.to.iter() {
                let place = place?;
                sizes.atom(place)?;
                if sizes.members == Some(place) {
                    return Err(BadPolicy::Impossible("a target"));
                }
                targets += 1;
            }
            for service in rule.services.iter() {
                check_service(&service?)?;
                services += 1;
            }
            let pairs = sources.saturating_mul(targets);
            rows = rows.saturating_add(pairs.saturating_mul(services));
            if rows > MAX_ROWS {
                return Err(too_many(
                    "combinations of source, target and service",
                    MAX_ROWS,
                ));
            }
        }
        Ok(())
    }
}

/// How much there is of what rules name by its place, and what is at some places.
struct Sizes {
    atoms: usize,
    names: usize,
    windows: usize,
    /// The first group and the end of groups: atoms are in order, so a kind stands side by side.
    groups: (u16, u16),
    people: (u16, u16),
    devices: (u16, u16),
    sites: (u16, u16),
    members: Option<u16>,
    /// One bit an atom.
    only_targets: [u64; MAX_ATOMS / 64],
}

impl Sizes {
    const fn is_group(&self, place: u16) -> bool {
        is_among(&self.groups, place)
    }

    fn is_only_target(&self, place: u16) -> bool {
        let word = self.only_targets.get(usize::from(place) / 64);
        word.is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    fn set_only_target(&mut self, place: u16) {
        if let Some(word) = self.only_targets.get_mut(usize::from(place) / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn atom(&self, place: u16) -> Result<(), BadPolicy> {
        holds(place.into(), self.atoms, "an atom")
    }

    fn name(&self, place: u16) -> Result<(), BadPolicy> {
        holds(place.into(), self.names, "a name")
    }

    fn window(&self, place: Option<u8>) -> Result<(), BadPolicy> {
        place.map_or(Ok(()), |place| {
            holds(place.into(), self.windows, "a window")
        })
    }
}

const fn is_among(kind: &(u16, u16), place: u16) -> bool {
    kind.0 <= place && place < kind.1
}

/// Takes `place` in, which comes right after the others of its kind.
const fn widen(kind: &mut (u16, u16), place: u16) {
    if kind.1 == 0 {
        kind.0 = place;
    }
    kind.1 = place + 1;
}

fn holds(place: usize, size: usize, what: &'static str) -> Result<(), BadPolicy> {
    if place < size {
        Ok(())
    } else {
        Err(BadPolicy::NoSuch(what))
    }
}

const fn too_many(what: &'static str, limit: usize) -> BadPolicy {
    BadPolicy::TooMany { what, limit }
}

fn count<'a, T: Serialize + Deserialize<'a>>(
    run: &Run<'a, T>,
    what: &'static str,
    limit: usize,
) -> Result<usize, BadPolicy> {
    let mut count = 0;
    for value in run.iter() {
        value?;
        count += 1;
        if count > limit {
            return Err(too_many(what, limit));
        }
    }
    Ok(count)
}

fn check_service(service: &Service) -> Result<(), BadPolicy> {
    let all_ports = service.first_port == 0 && service.last_port == u16::MAX;
    let has_ports = matches!(service.protocol, Some(Service::TCP | Service::UDP));
    if service.first_port > service.last_port || !(all_ports || has_ports) {
        return Err(BadPolicy::Impossible("ports"));
    }
    Ok(())
}

fn check_window(window: &Window) -> Result<(), BadPolicy> {
    let is_span = |span: &Span| {
        span.days != 0
            && span.days < 0x80
            && span.opens_min < DAY_MINUTES
            && (1..=DAY_MINUTES).contains(&span.closes_min)
    };
    if window.spans.iter().all(is_span) {
        Ok(())
    } else {
        Err(BadPolicy::Impossible("hours"))
    }
}

fn check_zone(zone: &Zone) -> Result<(), BadPolicy> {
    // RFC 9636 section 3.3.1: offsets within a day and an hour.
    let is_offset = |minutes: i16| minutes.unsigned_abs() <= 25 * 60;
    let is_switch = |switch: &Switch| {
        (1..=12).contains(&switch.month)
            && (1..=5).contains(&switch.week)
            && switch.weekday <= 6
            && switch.minute.unsigned_abs() <= 7 * DAY_MINUTES
    };
    let is_summer =
        |s: &Summer| is_offset(s.offset_min) && is_switch(&s.begins) && is_switch(&s.ends);
    if is_offset(zone.offset_min) && zone.summer.as_ref().is_none_or(is_summer) {
        Ok(())
    } else {
        Err(BadPolicy::Impossible("a time zone"))
    }
}
