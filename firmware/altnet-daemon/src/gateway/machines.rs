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
use crate::netlink::bridge::{Learnt, Place};
use crate::netlink::neighbour::{Mac, Neighbour, Told, heard, mac_text, watch_neighbours};

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
const MOST_MACHINES: usize = 512;
/// For how long the node is told of a place, and when it is told again.
const PLACED_S: u32 = 7 * 86_400;
const RENEW: Duration = Duration::from_secs(86_400);

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
enum Seen {
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
    rules: Vec<config::Machines>,
    seen: BTreeMap<Ipv6Addr, Seen>,
    waiting: VecDeque<(Instant, Ipv6Addr, Vec<u8>)>,
    /// The site's prefix, and this gateway's own address in it.
    pub(super) lan: Option<(Ipv6Addr, Prefix)>,
    renew: Instant,
    /// Packets dropped because nobody could tell whose they are.
    pub(super) unplaced: u64,
    /// Groups that somebody was told of already.
    complained: BTreeSet<Name>,
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

    fn watch(&mut self) -> io::Result<()> {
        if self.neighbours.is_none() {
            let socket = watch_neighbours()?;
            // SAFETY: the socket is owned by the `AsyncFd` from here on; nothing closes or replaces
            // its descriptor before it is dropped.
            self.neighbours = Some(unsafe { AsyncFd::register(socket) }?);
        }
        Ok(())
    }

    /// What the kernel tells of machines, once it does.
    pub(super) async fn heard(&self) -> io::Result<Vec<Told>> {
        let Some(neighbours) = &self.neighbours else {
            return std::future::pending().await;
        };
        let mut ready = neighbours.readable().await?;
        let mut found = Vec::new();
        let mut heap = [0; 8192];
        while let Ok(result) =
            ready.try_io(|socket| io::Read::read(&mut socket.get_ref(), &mut heap))
        {
            // A socket that overflowed says so once; what was missed is asked for when it matters.
            let Ok(len) = result else { break };
            heard(heap.get(..len).unwrap_or_default(), &mut |one| {
                found.push(one)
            });
        }
        Ok(found)
    }

    /// When the first packet has waited long enough, or somebody is no longer logged in.
    pub(super) fn deadline(&self) -> Instant {
        let logins = self.entries.values().filter_map(|e| e.login.as_ref());
        let over = logins.map(|login| login.until).min();
        let waited = self.waiting.front().map(|(at, ..)| *at);
        over.into_iter()
            .chain(waited)
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

    /// The groups for a place. None if that takes knowing the place, and nobody knows.
    fn groups_at(&self, machine: Machine, place: Option<&Place>) -> Option<Groups> {
        let mac = mac_text(&machine.mac);
        let mut groups = Groups::new();
        for rule in &self.rules {
            let is_mac = rule.mac.as_ref().is_none_or(|wanted| *wanted == mac);
            if is_mac && (rule.port.is_some() || rule.vlan.is_some()) {
                let place = place?;
                let is_there = rule.port.as_ref().is_none_or(|port| *port == place.port)
                    && rule.vlan.is_none_or(|vlan| Some(vlan) == place.vlan);
                if !is_there {
                    continue;
                }
            } else if !is_mac {
                continue;
            }
            for group in &rule.groups {
                if !groups.contains(group) {
                    // The configuration names no more.
                    let _ = groups.push(group.clone());
                }
            }
        }
        Some(groups)
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

    /// The kernel tells of machines.
    pub(super) fn hear_machines(&mut self, told: Vec<Told>, frame: &mut Frame<'_>) {
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

    /// A bridge has learnt where somebody is plugged in.
    fn moved(&mut self, learnt: &Learnt, interfaces: &[u32], now: Instant) {
        if self.machines.rules.is_empty() {
            return;
        }
        for interface in interfaces.iter().copied() {
            let mac = learnt.mac;
            let machine = Machine { interface, mac };
            // Whoever sends from addresses nobody is at costs no question to the kernel.
            let is_known = self.machines.entries.contains_key(&machine)
                || (self.machines.seen.values()).any(|seen| *seen == Seen::At(machine));
            if !is_known {
                continue;
            }
            if let Ok(Some(place)) = self.netlink.place_told(interface, learnt) {
                self.put(machine, Some(place), now);
            }
        }
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
            let place = self.netlink.place(here.interface, here.mac);
            if !self.put(here, place.ok().flatten(), now) {
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
            let is_told = has_room && {
                entry.addresses.insert(address);
                self.tell_machine(address, Some(here), now)
            };
            counts = is_told || !is_placed;
        }
        let seen = if counts {
            Seen::At(here)
        } else {
            Seen::NoRoom(here)
        };
        self.machines.remember(address, seen);
    }

    /// A machine is plugged in somewhere. Returns whether it counts as what it should for that.
    fn put(&mut self, machine: Machine, place: Option<Place>, now: Instant) -> bool {
        let Some(placed) = self.machines.groups_at(machine, place.as_ref()) else {
            return false;
        };
        let is_full = self.machines.entries.len() >= MOST_MACHINES;
        let Some(entry) = self.machines.entries.get_mut(&machine) else {
            if placed.is_empty() {
                return true;
            }
            if is_full {
                return false;
            }
            let entry = Entry {
                place,
                placed,
                ..Entry::default()
            };
            note_place(machine, &entry);
            self.machines.entries.insert(machine, entry);
            // Where it was met before, it was nobody in particular.
            let seen = self.machines.seen.iter();
            let met = seen.filter(|(_, seen)| **seen == Seen::At(machine));
            let met: Vec<Ipv6Addr> = met.map(|(address, _)| *address).collect();
            for address in met {
                let Machine { interface, mac } = machine;
                let found = Neighbour {
                    interface,
                    address,
                    mac,
                };
                self.meet(found, now);
            }
            return true;
        };
        if place.is_some() {
            entry.place = place;
        }
        if entry.placed == placed {
            return true;
        }
        entry.placed = placed;
        note_place(machine, entry);
        self.tell_all(machine, now);
        true
    }

    /// Has a machine count as what it counts as by now, at all its addresses; nothing is kept of
    /// one that counts as nothing.
    pub(super) fn tell_all(&mut self, machine: Machine, now: Instant) {
        let Some(entry) = self.machines.entries.get(&machine) else {
            return;
        };
        let (is_nothing, is_placed) = (entry.is_nothing(), !entry.placed.is_empty());
        for address in entry.addresses.clone() {
            let is_told = self.tell_machine(address, Some(machine), now);
            if is_placed && !is_told {
                self.machines.remember(address, Seen::NoRoom(machine));
            }
        }
        if is_nothing {
            self.machines.entries.remove(&machine);
        }
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
            self.machines.entries.clear();
            self.machines.seen.clear();
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

    /// Says which groups of places the policy doesn't let this gateway speak of, once.
    fn complain_of_places(&mut self, now: Instant) {
        if self.machines.rules.is_empty() {
            return;
        }
        for view in self.node.logins(now) {
            let rules = self.machines.rules.iter();
            let groups = rules.flat_map(|rule| &rule.groups);
            let uncounted =
                groups.filter(|group| view.not_counted.iter().any(|n| *n == group.as_str()));
            let uncounted: Vec<Name> = uncounted.cloned().collect();
            for group in uncounted {
                if self.machines.complained.insert(group.clone()) {
                    crate::warning!(
                        "[[machines]] puts machines into the group {group}, and the policy doesn't let this gateway say so: an owner names it in [[logins]]"
                    );
                }
            }
        }
    }

    /// Takes over what the configuration says of machines.
    pub(super) fn place_anew(&mut self, rules: &[config::Machines], now: Instant) {
        self.machines.rules = rules.to_vec();
        self.machines.complained.clear();
        if !rules.is_empty()
            && let Err(e) = self.machines.watch()
        {
            crate::error!("machines that move are not noticed: {e}");
        }
        self.machines.seen.clear();
        let all: Vec<Machine> = self.machines.entries.keys().copied().collect();
        for machine in all {
            let place = self.netlink.place(machine.interface, machine.mac);
            self.put(machine, place.ok().flatten(), now);
        }
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

fn note_place(machine: Machine, entry: &Entry) {
    let mac = mac_text(&machine.mac);
    let port = entry.place.as_ref().map_or("no port", |place| &place.port);
    let groups = entry.placed.iter().map(Name::as_str);
    let groups: Vec<&str> = groups.collect();
    crate::debug!("{mac} at {port} is in these groups by its place: {groups:?}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(
        groups: &[&str],
        port: Option<&str>,
        vlan: Option<u16>,
        mac: Option<&str>,
    ) -> config::Machines {
        config::Machines {
            groups: groups
                .iter()
                .map(|group| Name::new(group).unwrap())
                .collect(),
            port: port.map(String::from),
            vlan,
            mac: mac.map(String::from),
        }
    }

    #[test]
    fn a_machine_is_in_the_groups_of_every_section_that_fits() {
        let machines = Machines {
            rules: vec![
                rule(&["guests"], Some("lan4"), None, None),
                rule(&["guests", "cameras"], None, Some(20), None),
                rule(&["both"], Some("lan4"), Some(20), None),
                rule(&["mine"], None, None, Some("02:00:00:00:00:07")),
            ],
            ..Machines::default()
        };
        let machine = |last| Machine {
            interface: 1,
            mac: [2, 0, 0, 0, 0, last],
        };
        let at = |last, port: &str, vlan| {
            let port = port.into();
            let groups = machines.groups_at(machine(last), Some(&Place { port, vlan }));
            let groups: Vec<String> = groups.unwrap().iter().map(Name::to_string).collect();
            groups.join(" ")
        };
        assert_eq!(at(1, "lan1", None), "");
        assert_eq!(at(1, "lan4", None), "guests");
        assert_eq!(at(1, "lan1", Some(20)), "guests cameras");
        assert_eq!(at(1, "lan4", Some(20)), "guests cameras both");
        assert_eq!(at(7, "lan1", Some(2)), "mine");
        // Nobody knows where it is, so nobody knows what it is.
        assert_eq!(machines.groups_at(machine(7), None), None);
    }

    proptest! {
        #[test]
        fn no_packet_panics(packet: Vec<u8>) {
            let _ = source_of(&packet);
        }
    }
}
