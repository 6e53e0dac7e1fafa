//! The machines on the LANs: who is at which address, where they are plugged in, and what they
//! count as for it (ADR 0008).
//!
//! A machine is its MAC address on an interface. It counts as who is logged in from it and as in
//! the groups that the configuration has for its place, at every address of the site's that the
//! kernel's neighbour table shows it at, those it takes on later too: a packet from an address that
//! nobody was seen at yet waits a moment until the kernel has found out whose it is.
//!
//! Where the configuration has groups for places, who can't be placed may do nothing: a group may
//! take rights away. A packet whose machine can't be found is dropped then, and asked for anew with
//! the next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use altnet_core::node::Command;
use altnet_wire::address::Prefix;
use altnet_wire::frame::Frame;
use altnet_wire::id::Name;
use altnet_wire::message::Login;
use altnet_wire::record::MAX_GROUPS;
use altnet_wire::time::Instant;
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::Gateway;
use super::logins::LoggedIn;
use crate::clock;
use crate::config;
use crate::netlink::bridge::Place;
use crate::netlink::neighbour::{Mac, Neighbour, Told, heard, watch_neighbours};

/// Packets that wait for the kernel at a time.
const WAITING: usize = 32;
/// How long one waits: the kernel's first question and two more, a second apart (RFC 4861 section
/// 10), find who answers at all; who is there answers the first.
const PATIENCE: Duration = Duration::from_millis(300);
/// Addresses that are remembered to have been looked up.
const REMEMBERED: usize = 4096;
/// Addresses of one machine that count.
const MOST_ADDRESSES: usize = 16;
/// Machines that count as something; the node has room for fewer addresses.
pub(super) const MOST_MACHINES: usize = 512;
/// For how long the node is told of a place, and when it is told again.
const PLACED_S: u32 = 7 * 86_400;
const RENEW: Duration = Duration::from_secs(86_400);

/// How long after the kernel told of more than was read everybody is placed anew.
const MISSED: Duration = Duration::from_secs(1);

/// In which groups of the policy somebody is.
pub(super) type Groups = heapless::Vec<Name, MAX_GROUPS>;

/// A machine on a LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Machine {
    pub(super) interface: u32,
    pub(super) mac: Mac,
}

impl From<Neighbour> for Machine {
    fn from(neighbour: Neighbour) -> Self {
        Self {
            interface: neighbour.interface,
            mac: neighbour.mac,
        }
    }
}

/// What a machine counts as.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Who is logged in from it.
    pub(super) login: Option<LoggedIn>,
    /// Where it is plugged in.
    pub(super) place: Option<Place>,
    /// The groups that it is in for that.
    pub(super) placed: Groups,
    /// Where it was seen.
    pub(super) addresses: BTreeSet<Ipv6Addr>,
}

impl Entry {
    fn is_nothing(&self) -> bool {
        self.login.is_none() && self.placed.is_empty()
    }

    /// All its groups; those of its place first, which may take rights away.
    fn groups(&self) -> Groups {
        let mut groups = self.placed.clone();
        for group in self.login.iter().flat_map(|login| &login.groups) {
            if !groups.contains(group) {
                // Somebody is in no more.
                let _ = groups.push(group.clone());
            }
        }
        groups
    }
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nobody answered there.
    Nobody,
    /// This machine is there, and counts as it should.
    At(Machine),
    /// One is there that should count as something, and there is no room for it.
    NoRoom(Machine),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Machines {
    neighbours: Option<AsyncFd<Socket>>,
    pub(super) entries: BTreeMap<Machine, Entry>,
    pub(super) rules: Vec<config::Machines>,
    pub(super) seen: BTreeMap<Ipv6Addr, Seen>,
    waiting: VecDeque<(Instant, Ipv6Addr, Vec<u8>)>,
    /// The site's prefix, and this gateway's own address in it.
    pub(super) lan: Option<(Ipv6Addr, Prefix)>,
    renew: Instant,
    /// When all are placed anew, because some may have moved unnoticed.
    pub(super) anew: Option<Instant>,
    /// Packets dropped because nobody could tell whose they are.
    pub(super) unplaced: u64,
    /// Groups that somebody was told of already.
    pub(super) complained: BTreeSet<Name>,
}

impl Machines {
    /// Watches machines if the configuration has a use for it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(config: &config::Config) -> io::Result<Self> {
        let mut machines = Self {
            rules: config.machines.clone(),
            ..Self::default()
        };
        if config.login.group.is_some() || !machines.rules.is_empty() {
            machines.watch()?;
        }
        Ok(machines)
    }

    pub(super) fn watch(&mut self) -> io::Result<()> {
        if self.neighbours.is_none() {
            let socket = watch_neighbours()?;
            // SAFETY: the socket is owned by the `AsyncFd` from here on; nothing closes or replaces
            // its descriptor before it is dropped.
            self.neighbours = Some(unsafe { AsyncFd::register(socket) }?);
        }
        Ok(())
    }

    /// Waits until the kernel tells of machines: for [`Machines::told`].
    pub(super) async fn heard(&self) -> io::Result<()> {
        let Some(neighbours) = &self.neighbours else {
            return std::future::pending().await;
        };
        neighbours.readable().await?.clear_ready();
        Ok(())
    }

    /// What the kernel has told of machines by now.
    fn told(&mut self) -> Vec<Told> {
        let mut found = Vec::new();
        let mut heap = [0; 8192];
        let Some(neighbours) = &self.neighbours else {
            return found;
        };
        loop {
            match io::Read::read(&mut neighbours.get_ref(), &mut heap) {
                Ok(len) => heard(heap.get(..len).unwrap_or_default(), &mut |one| {
                    found.push(one)
                }),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return found,
                // There was more than the socket holds. Who is at an address is asked for when it
                // matters, who moved in a while.
                Err(_) => {
                    let soon = clock::now().after(MISSED);
                    self.anew.get_or_insert(soon);
                }
            }
        }
    }

    /// When the first packet has waited long enough, somebody is no longer logged in, or all are
    /// to be placed anew.
    pub(super) fn deadline(&self) -> Instant {
        let logins = self.entries.values().filter_map(|e| e.login.as_ref());
        let over = logins.map(|login| login.until).min();
        let waited = self.waiting.front().map(|(at, ..)| *at);
        over.into_iter()
            .chain(waited)
            .chain(self.anew)
            .min()
            .unwrap_or(Instant::NEVER)
    }

    pub(super) fn is_lan(&self, address: Ipv6Addr) -> bool {
        let is_its = |(own, lan): &(Ipv6Addr, Prefix)| lan.contains(address) && *own != address;
        self.lan.as_ref().is_some_and(is_its)
    }

    /// Whether a packet from there may go on to be judged; none if that isn't known.
    fn may_pass(&self, source: &Ipv6Addr) -> Option<bool> {
        Some(match self.seen.get(source)? {
            Seen::At(_) => true,
            Seen::Nobody => self.rules.is_empty(),
            Seen::NoRoom(_) => false,
        })
    }

    fn remember(&mut self, address: Ipv6Addr, seen: Seen) {
        if self.seen.len() >= REMEMBERED && !self.seen.contains_key(&address) {
            self.seen.clear();
        }
        self.seen.insert(address, seen);
    }
}

/// Where a packet says that it comes from (RFC 8200 section 3).
fn source_of(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    Some(octets.into())
}

impl Gateway {
    /// Takes a packet of our side that may not go on, or not before it is known whose machine it
    /// comes from. Returns whether it did.
    pub(super) fn holds_back(&mut self, frame: &Frame<'_>) -> bool {
        if self.machines.entries.is_empty() && self.machines.rules.is_empty() {
            return false;
        }
        let Some(source) = source_of(frame.packet()).filter(|at| self.machines.is_lan(*at)) else {
            return false;
        };
        if let Some(may_pass) = self.machines.may_pass(&source) {
            self.machines.unplaced += u64::from(!may_pass);
            return !may_pass;
        }
        let now = clock::now();
        if let Some(found) = self.neighbour(source) {
            self.meet(found, now);
            let may_pass = self.machines.may_pass(&source).unwrap_or(false);
            self.machines.unplaced += u64::from(!may_pass);
            return !may_pass;
        }
        for interface in self.lans.interfaces() {
            // A link that went a moment ago has nobody.
            let _ = self.netlink.solicit(interface, source);
        }
        if self.machines.waiting.len() >= WAITING {
            let is_dropped = !self.machines.rules.is_empty();
            self.machines.unplaced += u64::from(is_dropped);
            return is_dropped;
        }
        let until = now.after(PATIENCE);
        let packet = frame.packet().to_vec();
        self.machines.waiting.push_back((until, source, packet));
        true
    }

    /// Takes in what the kernel has told of machines by now: a bridge tells of a machine before it
    /// passes its packet on.
    pub(super) fn hear_machines(&mut self, frame: &mut Frame<'_>) {
        let told = self.machines.told();
        if told.is_empty() {
            return;
        }
        let interfaces = self.lans.interfaces();
        let now = clock::now();
        for one in told {
            match one {
                Told::At(found) => {
                    let is_ours = interfaces.contains(&found.interface);
                    if is_ours && self.machines.is_lan(found.address) {
                        self.meet(found, now);
                    }
                }
                Told::Port(learnt) => self.moved(&learnt, &interfaces, now),
            }
        }
        self.pass_waiting(now, frame);
    }

    /// Lets packets go on that know by now, or have waited long enough.
    pub(super) fn pass_waiting(&mut self, now: Instant, frame: &mut Frame<'_>) {
        let machines = &mut self.machines;
        let (ready, still): (VecDeque<_>, _) = std::mem::take(&mut machines.waiting)
            .into_iter()
            .partition(|(until, source, _)| *until <= now || machines.seen.contains_key(source));
        machines.waiting = still;
        for (_, source, packet) in ready {
            if self.machines.may_pass(&source).is_none() && self.machines.rules.is_empty() {
                // Nobody answered there: it is not asked for with every packet.
                self.machines.remember(source, Seen::Nobody);
            }
            if !self.machines.may_pass(&source).unwrap_or(false) {
                crate::debug!("nobody can tell whose {source} is: a packet from there is dropped");
                self.machines.unplaced += 1;
                continue;
            }
            if frame.set(&packet).is_ok()
                && let Ok(verdict) = self.node.handle_lan(frame, now)
            {
                self.carry_out(verdict, frame);
            }
        }
    }

    /// A machine is at an address: it counts there as it does elsewhere, and nobody else does.
    pub(super) fn meet(&mut self, found: Neighbour, now: Instant) {
        let address = found.address;
        let here = Machine::from(found);
        let entries = &mut self.machines.entries;
        let former = entries
            .iter_mut()
            .find(|(machine, entry)| **machine != here && entry.addresses.contains(&address));
        if let Some((_, entry)) = former {
            entry.addresses.remove(&address);
            self.tell_machine(address, None, now);
        }
        if !self.machines.entries.contains_key(&here) && !self.machines.rules.is_empty() {
            let place = self.place_of(here);
            if !self.put(here, place, now) {
                // Asked again with the next packet.
                self.machines.seen.remove(&address);
                return;
            }
        }
        let mut counts = true;
        if let Some(entry) = self.machines.entries.get_mut(&here)
            && !entry.addresses.contains(&address)
        {
            let is_placed = !entry.placed.is_empty();
            let has_room = entry.addresses.len() < MOST_ADDRESSES;
            counts = (has_room && self.count_at(here, address, now)) || !is_placed;
        }
        let seen = if counts {
            Seen::At(here)
        } else {
            Seen::NoRoom(here)
        };
        self.machines.remember(address, seen);
    }

    /// Has a machine count as what it counts as by now, at all its addresses; nothing is kept of
    /// one that counts as nothing.
    pub(super) fn tell_all(&mut self, machine: Machine, now: Instant) {
        let Some(entry) = self.machines.entries.get(&machine) else {
            return;
        };
        let (is_nothing, is_placed) = (entry.is_nothing(), !entry.placed.is_empty());
        for address in entry.addresses.clone() {
            if !self.count_at(machine, address, now) && is_placed {
                self.machines.remember(address, Seen::NoRoom(machine));
            }
        }
        if is_nothing {
            self.machines.entries.remove(&machine);
        }
    }

    /// Has a machine count at an address. Returns whether it does there.
    fn count_at(&mut self, machine: Machine, address: Ipv6Addr, now: Instant) -> bool {
        let is_told = self.tell_machine(address, Some(machine), now);
        if let Some(entry) = self.machines.entries.get_mut(&machine) {
            match is_told {
                true => entry.addresses.insert(address),
                false => entry.addresses.remove(&address),
            };
        }
        is_told
    }

    /// Tells the node what is at an address, or that nothing is. Returns whether it counts.
    fn tell_machine(&mut self, address: Ipv6Addr, machine: Option<Machine>, now: Instant) -> bool {
        let mut login = Login {
            address,
            person: None,
            groups: Groups::new(),
            seconds: 0,
        };
        let entry = machine.and_then(|machine| self.machines.entries.get(&machine));
        if let Some(entry) = entry.filter(|entry| !entry.is_nothing()) {
            login.groups = entry.groups();
            login.seconds = PLACED_S;
            if let Some(one) = &entry.login {
                login.person.clone_from(&one.person);
                // With a place it would end with the login; here that is told in time.
                if entry.placed.is_empty() {
                    let left = one.until.saturating_since(now).as_secs();
                    login.seconds = u32::try_from(left).unwrap_or(PLACED_S);
                }
            }
        }
        // Nobody was there, or the node has no room: then it does not count.
        let told = self.node.handle_command(Command::Login(login.into()), now);
        if let Err(e) = &told {
            crate::debug!("a machine at {address} does not count: {e}");
        }
        told.is_ok()
    }

    /// Takes over where this gateway is and what is there by now, forgets machines that are gone,
    /// and has the node remember the others.
    pub(super) fn tend_machines(&mut self, now: Instant) {
        self.machines.lan = self.node.setup().and_then(|setup| setup.site);
        if self.machines.lan.is_none() {
            self.end_all_logins(now);
            self.machines.entries.clear();
            self.machines.seen.clear();
        }
        if self.machines.entries.is_empty() {
            return;
        }
        let mut there = BTreeSet::new();
        for interface in self.lans.interfaces() {
            let Ok(found) = self.netlink.neighbours(interface) else {
                return;
            };
            there.extend(
                found
                    .into_iter()
                    .map(|one| (Machine::from(one), one.address)),
            );
        }
        let entries = self.machines.entries.iter();
        let placed = entries.filter(|(_, entry)| entry.login.is_none());
        let gone = placed.filter(|(machine, entry)| {
            let mut addresses = entry.addresses.iter();
            !addresses.any(|address| there.contains(&(**machine, *address)))
        });
        let gone: Vec<Machine> = gone.map(|(machine, _)| *machine).collect();
        for machine in gone {
            let entry = self.machines.entries.remove(&machine);
            for address in entry.into_iter().flat_map(|entry| entry.addresses) {
                self.machines.seen.remove(&address);
                self.tell_machine(address, None, now);
            }
        }
        // Room may have become free.
        self.machines
            .seen
            .retain(|_, seen| !matches!(seen, Seen::NoRoom(_)));
        if self.machines.renew <= now {
            self.machines.renew = now.after(RENEW);
            let all: Vec<Machine> = self.machines.entries.keys().copied().collect();
            for machine in all {
                self.tell_all(machine, now);
            }
        }
        self.complain_of_places(now);
    }

    /// The machine at an address of a LAN.
    pub(super) fn neighbour(&mut self, address: Ipv6Addr) -> Option<Neighbour> {
        let interfaces = self.lans.interfaces();
        let mut all = interfaces.into_iter().filter_map(|interface| {
            let found = self.netlink.neighbours(interface).ok()?;
            found.into_iter().find(|one| one.address == address)
        });
        all.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_packet_panics(packet: Vec<u8>) {
            let _ = source_of(&packet);
        }
    }
}
