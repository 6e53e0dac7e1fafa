//! Who is logged in from which machine on the LANs (ADR 0008).
//!
//! A machine is its MAC address on an interface. Logged in, it counts as the person at every
//! address of the site's that the kernel's neighbour table shows it at, those it takes on later
//! too: a packet from an address that nobody was seen at yet waits a moment until the kernel has
//! found out whose it is. Who logged in where is what the login page says; nothing of it is kept
//! here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::Ipv6Addr;
use std::time::Duration;

use altnet_core::audit::{Fact, Kind};
use altnet_core::node::Command;
use altnet_wire::address::Prefix;
use altnet_wire::frame::Frame;
use altnet_wire::id::Name;
use altnet_wire::message::Login;
use altnet_wire::record::MAX_GROUPS;
use altnet_wire::time::Instant;
use serde_json::{Value, json};
use socket2::Socket;
use tokio::io::unix::AsyncFd;

use super::Gateway;
use super::calls::{bad, json_of, name_of};
use crate::api::{ApiError, Code, logins as types};
use crate::clock;
use crate::netlink::neighbour::{Mac, Neighbour, heard};

/// Packets that wait for the kernel at a time; the oldest go on as they are.
const WAITING: usize = 32;
/// How long one waits: the kernel's first question and two more, a second apart (RFC 4861 section
/// 10), find who answers at all; who is there answers the first.
const PATIENCE: Duration = Duration::from_millis(300);
/// Addresses that are remembered to have been looked up.
const REMEMBERED: usize = 4096;
/// Addresses of one machine that count.
const MOST_ADDRESSES: usize = 16;

/// A machine on a LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Machine {
    interface: u32,
    mac: Mac,
}

impl From<Neighbour> for Machine {
    fn from(neighbour: Neighbour) -> Self {
        Self {
            interface: neighbour.interface,
            mac: neighbour.mac,
        }
    }
}

#[derive(Debug)]
struct Entry {
    person: Option<Name>,
    groups: heapless::Vec<Name, MAX_GROUPS>,
    until: Instant,
    how: String,
    addresses: BTreeSet<Ipv6Addr>,
}

/// See the module.
#[derive(Debug)]
pub struct Logins {
    neighbours: Option<AsyncFd<Socket>>,
    machines: BTreeMap<Machine, Entry>,
    /// Addresses that were looked up, whoever is there.
    seen: BTreeSet<Ipv6Addr>,
    waiting: VecDeque<(Instant, Ipv6Addr, Vec<u8>)>,
    prefix: Option<Prefix>,
}

impl Logins {
    /// None are there. `neighbours` tells of machines, if there is a login page.
    pub const fn new(neighbours: Option<AsyncFd<Socket>>) -> Self {
        Self {
            neighbours,
            machines: BTreeMap::new(),
            seen: BTreeSet::new(),
            waiting: VecDeque::new(),
            prefix: None,
        }
    }

    /// The machines that the kernel tells of, once it does.
    pub(super) async fn heard(&self) -> io::Result<Vec<Neighbour>> {
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

    /// How many machines somebody is logged in from.
    pub(super) fn count(&self) -> usize {
        self.machines.len()
    }

    /// When the first packet has waited long enough.
    pub(super) fn deadline(&self) -> Instant {
        self.waiting.front().map_or(Instant::NEVER, |(at, ..)| *at)
    }
}

/// Where a packet says that it comes from (RFC 8200 section 3).
fn source_of(packet: &[u8]) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(8..24)?.try_into().ok()?;
    Some(octets.into())
}

fn mac_text(mac: &Mac) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

fn mac_of(text: &str) -> Option<Mac> {
    let mut mac = Mac::default();
    let mut octets = text.split(':');
    for octet in &mut mac {
        let text = octets.next().filter(|text| text.len() == 2)?;
        *octet = u8::from_str_radix(text, 16).ok()?;
    }
    octets.next().is_none().then_some(mac)
}

impl Gateway {
    /// Whether a packet of our side waits until it is known whose machine it comes from.
    pub(super) fn waits_for_neighbour(&mut self, frame: &Frame<'_>) -> bool {
        if self.logins.machines.is_empty() {
            return false;
        }
        let Some(source) = source_of(frame.packet()) else {
            return false;
        };
        let is_lan = self.logins.prefix.is_some_and(|lan| lan.contains(source));
        if !is_lan || self.logins.seen.contains(&source) {
            return false;
        }
        let now = clock::now();
        if let Some(found) = self.neighbour(source) {
            self.meet(found, now);
            return false;
        }
        for interface in self.lans.interfaces() {
            // A link that went a moment ago has nobody.
            let _ = self.netlink.solicit(interface, source);
        }
        if self.logins.waiting.len() >= WAITING {
            return false;
        }
        let until = now.after(PATIENCE);
        let packet = frame.packet().to_vec();
        self.logins.waiting.push_back((until, source, packet));
        true
    }

    /// The kernel tells of machines.
    pub(super) fn hear_neighbours(&mut self, found: Vec<Neighbour>, frame: &mut Frame<'_>) {
        let interfaces = self.lans.interfaces();
        let now = clock::now();
        for neighbour in found {
            let is_lan = self
                .logins
                .prefix
                .is_some_and(|lan| lan.contains(neighbour.address));
            if is_lan && interfaces.contains(&neighbour.interface) {
                self.meet(neighbour, now);
            }
        }
        self.pass_waiting(now, frame);
    }

    /// Lets packets go on that know by now, or have waited long enough.
    pub(super) fn pass_waiting(&mut self, now: Instant, frame: &mut Frame<'_>) {
        let logins = &mut self.logins;
        let (ready, still): (VecDeque<_>, _) = std::mem::take(&mut logins.waiting)
            .into_iter()
            .partition(|(until, source, _)| *until <= now || logins.seen.contains(source));
        logins.waiting = still;
        for (_, source, packet) in ready {
            // Nobody answered there: it is not asked for with every packet.
            self.remember(source);
            if frame.set(&packet).is_ok()
                && let Ok(verdict) = self.node.handle_lan(frame, now)
            {
                self.carry_out(verdict, frame);
            }
        }
    }

    fn remember(&mut self, address: Ipv6Addr) {
        if self.logins.seen.len() >= REMEMBERED {
            self.logins.seen.clear();
        }
        self.logins.seen.insert(address);
    }

    /// A machine is at an address: it counts there as it does elsewhere, and nobody else does.
    fn meet(&mut self, found: Neighbour, now: Instant) {
        self.remember(found.address);
        let here = Machine::from(found);
        let former =
            self.logins.machines.iter_mut().find(|(machine, entry)| {
                **machine != here && entry.addresses.contains(&found.address)
            });
        if let Some((_, entry)) = former {
            entry.addresses.remove(&found.address);
            self.tell_login(found.address, None, now);
        }
        let Some(entry) = self.logins.machines.get_mut(&here) else {
            return;
        };
        if entry.addresses.len() < MOST_ADDRESSES && entry.addresses.insert(found.address) {
            self.tell_login(found.address, Some(here), now);
        }
    }

    /// Tells the node who is at an address, or that nobody is.
    fn tell_login(&mut self, address: Ipv6Addr, machine: Option<Machine>, now: Instant) {
        let mut login = Login {
            address,
            person: None,
            groups: heapless::Vec::new(),
            seconds: 0,
        };
        if let Some(entry) = machine.and_then(|machine| self.logins.machines.get(&machine)) {
            login.person.clone_from(&entry.person);
            login.groups.clone_from(&entry.groups);
            let left = entry.until.saturating_since(now).as_secs();
            login.seconds = u32::try_from(left).unwrap_or(u32::MAX);
        }
        // Nobody was there, or the node has no room: then it does not count.
        if let Err(e) = self.node.handle_command(Command::Login(login.into()), now) {
            crate::debug!("a login at {address} does not count: {e}");
        }
    }

    /// Forgets who is logged in no longer; all of them, if this is no member's gateway any more.
    pub(super) fn tend_logins(&mut self, now: Instant) {
        self.logins.prefix = self.node.site_prefix();
        let is_gateway = self.logins.prefix.is_some();
        let over = self.logins.machines.iter();
        let over = over.filter(|(_, entry)| entry.until <= now || !is_gateway);
        let over: Vec<Machine> = over.map(|(machine, _)| *machine).collect();
        for machine in over {
            self.end_login(machine, "its time was over", now);
        }
    }

    fn end_login(&mut self, machine: Machine, why: &str, now: Instant) {
        let Some(entry) = self.logins.machines.remove(&machine) else {
            return;
        };
        for address in entry.addresses {
            self.tell_login(address, None, now);
        }
        let person = entry.person.as_ref().map_or("somebody", Name::as_str);
        let device = mac_text(&machine.mac);
        crate::info!("{person} is logged out from {device}: {why}");
        let fact = Fact::new(Kind::LOGGED_OUT).about(person);
        self.note(fact.detail(format_args!("{device}, {why}")));
    }

    /// The machine at an address of a LAN.
    fn neighbour(&mut self, address: Ipv6Addr) -> Option<Neighbour> {
        let interfaces = self.lans.interfaces();
        let mut all = interfaces.into_iter().filter_map(|interface| {
            let found = self.netlink.neighbours(interface).ok()?;
            found.into_iter().find(|one| one.address == address)
        });
        all.next()
    }

    fn neighbour_called(&mut self, address: &str) -> Result<Neighbour, ApiError> {
        let parsed = address.parse();
        let address = parsed.map_err(|_| bad(format!("{address:?} is not an IPv6 address")))?;
        self.logins.prefix = self.node.site_prefix();
        let is_lan = self.logins.prefix.is_some_and(|lan| lan.contains(address));
        let found = self.neighbour(address).filter(|_| is_lan);
        found.ok_or_else(|| {
            ApiError::new(
                Code::NotFound,
                format!("no machine on this gateway's LANs is at {address}"),
                "open the page from a machine behind this gateway, by its name under .alt",
            )
        })
    }

    pub(super) fn whose(&mut self, given: &types::At) -> Result<Value, ApiError> {
        let found = self.neighbour_called(&given.address)?;
        Ok(json!({ "device": mac_text(&found.mac) }))
    }

    pub(super) fn login(
        &mut self,
        given: types::NewLogin,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let person = given.person.as_deref().map(name_of).transpose()?;
        let mut groups = heapless::Vec::new();
        for group in &given.groups {
            let too_many = |_| bad(format!("somebody is in at most {MAX_GROUPS} groups"));
            groups.push(name_of(group)?).map_err(too_many)?;
        }
        if given.seconds == 0 || (person.is_none() && groups.is_empty()) {
            return Err(bad(
                "a login is of a person or of groups, and for some time",
            ));
        }
        let found = self.neighbour_called(&given.address)?;
        let machine = Machine::from(found);
        let name = person.as_ref().map(Name::to_string);
        let seconds = Duration::from_secs(given.seconds.into());
        let entry = Entry {
            person,
            groups,
            until: now.after(seconds),
            how: given.how.clone(),
            addresses: BTreeSet::new(),
        };
        let is_new = (self.logins.machines.get(&machine))
            .is_none_or(|former| former.person != entry.person || former.how != entry.how);
        if let Some(former) = self.logins.machines.insert(machine, entry) {
            for address in former.addresses {
                self.tell_login(address, None, now);
            }
        }
        let neighbours = self
            .netlink
            .neighbours(machine.interface)
            .unwrap_or_default();
        let prefix = self.logins.prefix;
        let its = neighbours.into_iter().filter(|one| {
            one.mac == machine.mac && prefix.is_some_and(|lan| lan.contains(one.address))
        });
        for neighbour in its.chain([found]) {
            self.meet(neighbour, now);
        }
        let views = self.node.logins(now);
        let view = views
            .iter()
            .find(|view| view.address == found.address.to_string());
        let counts = view.is_some_and(|view| view.person.is_some() || !view.groups.is_empty());
        if !counts {
            self.end_login(machine, "it did not count", now);
            let who = name.as_deref().unwrap_or("somebody");
            return Err(ApiError::new(
                Code::Refused,
                format!(
                    "the network's policy lets this gateway say nothing of {who} and these groups"
                ),
                "an owner writes [[logins]] in the policy, for this gateway and for whom it may say so",
            ));
        }
        if is_new {
            let who = name.as_deref().unwrap_or("somebody");
            let device = mac_text(&machine.mac);
            crate::info!("{who} is logged in from {device}, {}", given.how);
            let fact = Fact::new(Kind::LOGGED_IN).about(who);
            self.note(fact.detail(format_args!("{device}, {}", given.how)));
        }
        let entry = self.logins.machines.get(&machine);
        let addresses =
            entry.map(|entry| entry.addresses.iter().map(ToString::to_string).collect());
        json_of(types::LoggedIn {
            device: mac_text(&machine.mac),
            addresses: addresses.unwrap_or_default(),
            seconds: given.seconds,
            not_counted: view
                .map(|view| view.not_counted.clone())
                .unwrap_or_default(),
        })
    }

    pub(super) fn logout(
        &mut self,
        given: &types::Device,
        now: Instant,
    ) -> Result<Value, ApiError> {
        let is_meant = |(machine, entry): &(&Machine, &Entry)| {
            mac_of(&given.device).is_some_and(|mac| mac == machine.mac)
                || (given.device.parse()).is_ok_and(|at| entry.addresses.contains(&at))
        };
        let found = self.logins.machines.iter().find(is_meant);
        let Some(machine) = found.map(|(machine, _)| *machine) else {
            return Err(ApiError::new(
                Code::NotFound,
                format!("nobody is logged in from {}", given.device),
                "`altnet login list` shows who is, and from where",
            ));
        };
        self.end_login(machine, "as was asked", now);
        Ok(json!({}))
    }

    pub(super) fn login_list(&self, now: Instant) -> Result<Value, ApiError> {
        let all = self.logins.machines.iter();
        let logins = all.map(|(machine, entry)| types::Entry {
            device: mac_text(&machine.mac),
            addresses: entry.addresses.iter().map(ToString::to_string).collect(),
            person: entry.person.as_ref().map(Name::to_string),
            groups: entry.groups.iter().map(Name::to_string).collect(),
            seconds: entry.until.saturating_since(now).as_secs(),
            how: entry.how.clone(),
        });
        json_of(types::Logins {
            logins: logins.collect(),
            counted: self.node.logins(now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mac_address_reads_as_it_is_written() {
        let mac = [2, 0, 0xab, 0, 0, 0x7f];
        assert_eq!(mac_text(&mac), "02:00:ab:00:00:7f");
        assert_eq!(mac_of("02:00:ab:00:00:7f"), Some(mac));
        for bad in [
            "",
            "02:00:ab:00:00",
            "02:00:ab:00:00:7f:00",
            "2:0:ab:0:0:7f",
            "fd00::1",
        ] {
            assert_eq!(mac_of(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_and_no_text_panics(packet: Vec<u8>, text: String) {
            let _ = (source_of(&packet), mac_of(&text));
        }
    }
}
