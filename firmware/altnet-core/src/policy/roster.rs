//! Whose an address is, in the words of the rules: made when records or rules change, so that a
//! new flow only looks two addresses up.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_wire::address::{self, Prefix, SITE_PREFIX_BITS};
use altnet_wire::id::{MemberId, Name, SiteId};
use altnet_wire::record::Membership;
use altnet_wire::time::UnixTime;

use super::calendar::Conditions;
use super::rules::Rules;
use super::table::Symbol;

/// Somebody or something with an address.
#[derive(Clone, Copy, Debug)]
pub struct Enrolled<'a> {
    /// Its address, or of a site its /64.
    pub at: Prefix,
    /// What it is.
    pub what: What<'a>,
    /// When the membership ends that it rests on.
    pub expires: UnixTime,
}

/// What has an address.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A member's device: its own address, or of a gateway the one on its LAN.
    Device(&'a Membership),
    /// A named machine behind a gateway.
    Host(SiteId, &'a Name),
    /// An app of a member.
    App(MemberId, &'a Name),
    /// Whatever else is behind a gateway.
    Site(SiteId),
    /// A machine behind a gateway from which somebody logged in, as that gateway says.
    Login(Login<'a>),
}

/// That a gateway says who logged in from a machine behind it.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The gateway.
    pub by: &'a Membership,
    /// Its site.
    pub site: SiteId,
    /// Who.
    pub person: Option<&'a Name>,
    /// In which groups.
    pub groups: &'a [Name],
}

/// One address or site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing<'a> {
    /// When the membership ends that it rests on.
    pub(super) expires: UnixTime,
    /// What has to hold for anything it begins.
    pub(super) needs: Conditions,
    /// The sources of rules that it is.
    pub(super) sources: &'a [Symbol],
    /// The targets of rules that it is.
    pub(super) targets: &'a [Symbol],
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    address: Ipv6Addr,
    expires: UnixTime,
    needs: Conditions,
    /// Where its symbols begin; sources first, then targets.
    first: u32,
    sources: u16,
    targets: u16,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Roster {
    /// Of single addresses, ascending.
    entries: Box<[Entry]>,
    /// Of sites, by their lowest addresses, ascending.
    sites: Box<[Entry]>,
    symbols: Box<[Symbol]>,
}

/// What is gathered of one address.
#[derive(Debug)]
struct Gathered {
    is_device: bool,
    expires: UnixTime,
    symbols: BTreeSet<Symbol>,
}

impl Roster {
    /// Looks everybody up in the rules. Of one address with several names all count, except that
    /// a device's own address is nothing else.
    pub(super) fn new<'a>(rules: &Rules, everybody: impl Iterator<Item = Enrolled<'a>>) -> Self {
        let mut all: BTreeMap<Prefix, Gathered> = BTreeMap::new();
        for one in everybody {
            let is_device = matches!(one.what, What::Device(_));
            let gathered = all.entry(one.at).or_insert_with(|| Gathered {
                is_device,
                expires: one.expires,
                symbols: BTreeSet::new(),
            });
            match (gathered.is_device, is_device) {
                (true, false) => continue,
                (false, true) => {
                    gathered.symbols.clear();
                    gathered.is_device = true;
                    gathered.expires = one.expires;
                }
                _ => {}
            }
            rules.symbols(&one.what, &mut |symbol| {
                gathered.symbols.insert(symbol);
            });
        }
        let mut symbols = Vec::new();
        let mut entries = Vec::new();
        let mut sites = Vec::new();
        for (at, gathered) in all {
            let list = match at.bits() {
                SITE_PREFIX_BITS => &mut sites,
                _ => &mut entries,
            };
            list.push(enter(rules, at.address(), &gathered, &mut symbols));
        }
        Self {
            entries: entries.into_boxed_slice(),
            sites: sites.into_boxed_slice(),
            symbols: symbols.into_boxed_slice(),
        }
    }

    /// Whose `address` is.
    pub(super) fn find(&self, address: Ipv6Addr) -> Option<Standing<'_>> {
        let entry = match search(&self.entries, address) {
            Some(entry) => entry,
            None if address::is_derived(address) => return None,
            None => search(
                &self.sites,
                Prefix::new(address, SITE_PREFIX_BITS).address(),
            )?,
        };
        let first = entry.first as usize;
        let middle = first.checked_add(entry.sources.into())?;
        let end = middle.checked_add(entry.targets.into())?;
        Some(Standing {
            expires: entry.expires,
            needs: entry.needs,
            sources: self.symbols.get(first..middle)?,
            targets: self.symbols.get(middle..end)?,
        })
    }

    /// What it takes of memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.entries) + size_of_val(&*self.sites) + size_of_val(&*self.symbols)
    }
}

fn search(entries: &[Entry], address: Ipv6Addr) -> Option<&Entry> {
    let at = entries.binary_search_by_key(&address, |entry| entry.address);
    entries.get(at.ok()?)
}

fn enter(
    rules: &Rules,
    address: Ipv6Addr,
    gathered: &Gathered,
    symbols: &mut Vec<Symbol>,
) -> Entry {
    // There are fewer symbols than a u16 counts, and each address has each once.
    let first = u32::try_from(symbols.len()).unwrap_or(u32::MAX);
    let table = rules.table();
    let is_exclusive = rules.is_exclusive(&gathered.symbols);
    let sources = gathered
        .symbols
        .iter()
        .filter(|symbol| table.is_source(**symbol))
        .filter(|symbol| !(is_exclusive && rules.is_general(**symbol)));
    symbols.extend(sources);
    let middle = symbols.len();
    symbols.extend(gathered.symbols.iter().filter(|s| table.is_target(**s)));
    Entry {
        address,
        expires: gathered.expires,
        needs: rules.profile_needs(&gathered.symbols),
        first,
        sources: (middle - first as usize) as u16,
        targets: (symbols.len() - middle) as u16,
    }
}
