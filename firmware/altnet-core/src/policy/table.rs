//! Rules compiled to be asked: for a source and a target, ranges of ports that don't overlap.
//!
//! One probe of a hash table finds the ranges of a pair, one search among them finds a port's, so
//! that an answer takes as long with ten thousand rules as with ten, but for the depth of one
//! search.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use altnet_wire::policy::Service;

use super::calendar::Conditions;

/// An atom's place in the policy.
pub(super) type Symbol = u16;
/// A rule's place in the policy.
pub(super) type RuleIndex = u16;

/// Stands for every protocol.
const ANY_PROTOCOL: u16 = 256;

/// What one rule says of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Grant {
    pub(super) from: Symbol,
    pub(super) to: Symbol,
    /// None is every protocol.
    pub(super) protocol: Option<u8>,
    pub(super) first_port: u16,
    pub(super) last_port: u16,
    pub(super) rule: RuleIndex,
}

/// Ports of a protocol that a rule allows while `needs` hold. Several with the same ports stand
/// together in the order of rules, and nothing follows one that needs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    protocol: u16,
    first: u16,
    last: u16,
    rule: RuleIndex,
}

/// The rows of a pair. `length` 0 is an empty place.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    key: u32,
    first: u32,
    length: u32,
}

/// What the rules say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// This rule allows it.
    Allowed(RuleIndex),
    /// This rule would, if its conditions held.
    Closed(RuleIndex),
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// A power of two of places, at most half of them taken; none if there are no rows.
    pairs: Box<[Pair]>,
    rows: Box<[Row]>,
    /// By rule.
    needs: Box<[Conditions]>,
    is_source: Box<[bool]>,
    is_target: Box<[bool]>,
}

impl Table {
    /// Compiles `grants`, in any order, for atoms below `symbols`. `needs` has each rule's
    /// conditions. None if it came to more than `limit` rows.
    pub(super) fn new(
        mut grants: Vec<Grant>,
        needs: Box<[Conditions]>,
        symbols: usize,
        limit: usize,
    ) -> Option<Self> {
        grants.sort_unstable();
        let mut rows = Vec::new();
        let mut spans: Vec<(u32, u32, u32)> = Vec::new();
        let mut is_source = alloc::vec![false; symbols].into_boxed_slice();
        let mut is_target = is_source.clone();
        for pair in grants.chunk_by(|a, b| (a.from, a.to) == (b.from, b.to)) {
            let Some(one) = pair.first() else { continue };
            let first = rows.len();
            for ports in pair.chunk_by(|a, b| a.protocol == b.protocol) {
                flatten(ports, &needs, &mut rows);
            }
            if rows.len() > limit {
                return None;
            }
            mark(&mut is_source, one.from);
            mark(&mut is_target, one.to);
            let length = rows.len().saturating_sub(first);
            spans.push((key(one.from, one.to), index(first)?, index(length)?));
        }
        // `None` sorts before every protocol, and a search wants one order.
        for &(_, first, length) in &spans {
            if let Some(rows) = range_mut(&mut rows, first, length) {
                rows.sort_by_key(|row| (row.protocol, row.first, row.rule));
            }
        }
        Some(Self {
            pairs: hash_pairs(&spans),
            rows: rows.into_boxed_slice(),
            needs,
            is_source,
            is_target,
        })
    }

    /// Whether some rule has it as a source.
    pub(super) fn is_source(&self, symbol: Symbol) -> bool {
        self.is_source.get(usize::from(symbol)) == Some(&true)
    }

    /// Whether some rule has it as a target.
    pub(super) fn is_target(&self, symbol: Symbol) -> bool {
        self.is_target.get(usize::from(symbol)) == Some(&true)
    }

    /// How many rows it came to.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// What it takes of memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.pairs)
            + size_of_val(&*self.rows)
            + size_of_val(&*self.needs)
            + size_of_val(&*self.is_source)
            + size_of_val(&*self.is_target)
    }

    /// What the first rule that allows it says, else the first that would.
    pub(super) fn find(
        &self,
        sources: &[Symbol],
        targets: &[Symbol],
        protocol: u8,
        port: u16,
        open: Conditions,
    ) -> Option<Finding> {
        let mut allowed = RuleIndex::MAX;
        let mut closed = RuleIndex::MAX;
        for from in sources {
            for to in targets {
                let Some(rows) = self.rows_of(*from, *to) else {
                    continue;
                };
                for protocol in [protocol.into(), ANY_PROTOCOL] {
                    for row in rows_at(rows, protocol, port) {
                        let needs = self.needs.get(usize::from(row.rule)).copied();
                        if needs.is_some_and(|needs| needs & !open == 0) {
                            allowed = allowed.min(row.rule);
                            break;
                        }
                        closed = closed.min(row.rule);
                    }
                }
            }
        }
        match (allowed, closed) {
            (RuleIndex::MAX, RuleIndex::MAX) => None,
            (RuleIndex::MAX, rule) => Some(Finding::Closed(rule)),
            (rule, _) => Some(Finding::Allowed(rule)),
        }
    }

    /// Gives `take` every range of ports that is allowed, and by which rule.
    pub(super) fn each(
        &self,
        sources: &[Symbol],
        targets: &[Symbol],
        open: Conditions,
        take: &mut impl FnMut(RuleIndex, Service),
    ) {
        let pairs = sources
            .iter()
            .flat_map(|from| targets.iter().map(move |to| (*from, *to)));
        for row in pairs
            .filter_map(|(from, to)| self.rows_of(from, to))
            .flatten()
        {
            let needs = self.needs.get(usize::from(row.rule)).copied();
            if needs.is_some_and(|needs| needs & !open == 0) {
                let service = Service {
                    protocol: u8::try_from(row.protocol).ok(),
                    first_port: row.first,
                    last_port: row.last,
                };
                take(row.rule, service);
            }
        }
    }

    /// Whether some rule says anything of one of the sources and one of the targets.
    pub(super) fn joins(&self, sources: &[Symbol], targets: &[Symbol]) -> bool {
        let mut pairs = sources
            .iter()
            .flat_map(|from| targets.iter().map(move |to| (from, to)));
        pairs.any(|(from, to)| self.rows_of(*from, *to).is_some())
    }

    fn rows_of(&self, from: Symbol, to: Symbol) -> Option<&[Row]> {
        let key = key(from, to);
        let mask = self.pairs.len().checked_sub(1)?;
        let mut at = spread(key) & mask;
        // At least half of the places are empty, so one is met.
        loop {
            let pair = self.pairs.get(at)?;
            if pair.length == 0 {
                return None;
            }
            if pair.key == key {
                let first = pair.first as usize;
                return self.rows.get(first..first + pair.length as usize);
            }
            at = (at + 1) & mask;
        }
    }
}

/// The rows for a port, in the order of rules.
fn rows_at(rows: &[Row], protocol: u16, port: u16) -> &[Row] {
    let end = rows.partition_point(|row| (row.protocol, row.first) <= (protocol, port));
    let upto = rows.get(..end).unwrap_or_default();
    match upto.last() {
        Some(last) if last.protocol == protocol && port <= last.last => {
            let same = |row: &&Row| row.protocol == protocol && row.first == last.first;
            let many = upto.iter().rev().take_while(same).count();
            upto.get(end - many..).unwrap_or_default()
        }
        _ => &[],
    }
}

/// Cuts what rules say of one pair and protocol into ranges that don't overlap.
fn flatten(grants: &[Grant], needs: &[Conditions], rows: &mut Vec<Row>) {
    // A port past the last is 65536.
    let mut edges: BTreeMap<u32, (Vec<RuleIndex>, Vec<RuleIndex>)> = BTreeMap::new();
    for grant in grants {
        let begin = edges.entry(grant.first_port.into()).or_default();
        begin.0.push(grant.rule);
        let end = edges.entry(u32::from(grant.last_port) + 1).or_default();
        end.1.push(grant.rule);
    }
    let Some(protocol) = grants.first().map(|grant| grant.protocol) else {
        return;
    };
    let protocol = protocol.map_or(ANY_PROTOCOL, u16::from);
    // Rules that apply here, each as often as it says so.
    let mut here: BTreeMap<RuleIndex, u32> = BTreeMap::new();
    let mut edges = edges.into_iter().peekable();
    // Where the rows of the range before begin, to be lengthened if nothing changed.
    let mut before = rows.len();
    while let Some((first, (begin, end))) = edges.next() {
        for rule in end {
            if let Some(count) = here.get_mut(&rule) {
                *count -= 1;
                if *count == 0 {
                    here.remove(&rule);
                }
            }
        }
        for rule in begin {
            *here.entry(rule).or_default() += 1;
        }
        let Some(last) = edges.peek().map(|(next, _)| next - 1) else {
            return;
        };
        let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) else {
            return;
        };
        let at = rows.len();
        let candidates = candidates(here.keys().copied(), needs);
        let former = rows.get(before..at).unwrap_or_default();
        let is_same = !candidates.is_empty()
            && former
                .last()
                .is_some_and(|row| u32::from(row.last) + 1 == u32::from(first))
            && former
                .iter()
                .map(|row| row.rule)
                .eq(candidates.iter().copied());
        if is_same {
            for row in rows.get_mut(before..).unwrap_or_default() {
                row.last = last;
            }
            continue;
        }
        before = at;
        rows.extend(candidates.into_iter().map(|rule| Row {
            protocol,
            first,
            last,
            rule,
        }));
    }
}

/// Of rules in their order, those that can decide: the first with each need, up to one without.
fn candidates(rules: impl Iterator<Item = RuleIndex>, needs: &[Conditions]) -> Vec<RuleIndex> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for rule in rules {
        let needs = needs.get(usize::from(rule)).copied().unwrap_or_default();
        if seen.insert(needs) {
            kept.push(rule);
        }
        if needs == 0 {
            break;
        }
    }
    kept
}

fn hash_pairs(spans: &[(u32, u32, u32)]) -> Box<[Pair]> {
    if spans.is_empty() {
        return Box::default();
    }
    let size = (spans.len() * 2).next_power_of_two();
    let mut pairs = alloc::vec![Pair::default(); size].into_boxed_slice();
    for &(key, first, length) in spans.iter().filter(|(_, _, length)| *length != 0) {
        let mut at = spread(key) & (size - 1);
        while pairs.get(at).is_some_and(|pair| pair.length != 0) {
            at = (at + 1) & (size - 1);
        }
        if let Some(pair) = pairs.get_mut(at) {
            *pair = Pair { key, first, length };
        }
    }
    pairs
}

fn mark(marks: &mut [bool], symbol: Symbol) {
    if let Some(mark) = marks.get_mut(usize::from(symbol)) {
        *mark = true;
    }
}

fn range_mut(rows: &mut [Row], first: u32, length: u32) -> Option<&mut [Row]> {
    let first = first as usize;
    rows.get_mut(first..first.checked_add(length as usize)?)
}

fn index(value: usize) -> Option<u32> {
    u32::try_from(value).ok()
}

const fn key(from: Symbol, to: Symbol) -> u32 {
    (from as u32) << 16 | to as u32
}

/// Fibonacci hashing (Knuth, "The Art of Computer Programming", volume 3, section 6.4). Who
/// chooses the keys signs policies, so collisions gain nobody anything.
const fn spread(key: u32) -> usize {
    let product = (key as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> 32) as usize
}
