//! Hosts, wires and time.

mod changes;
mod derp;
mod story;
mod streams;
pub mod turn;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use altnet_core::node::{Command, Config, DropReason, Event, Node, Output, Slot, Stored, Verdict};
use altnet_tunnel::aead::ChaChaPoly;
use altnet_wire::endpoint::PortId;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::time::{Duration, Instant, UnixTime};

use crate::founder::FOUNDED;
use crate::nat::Kind;
pub use crate::net::NatId;
use crate::net::{Line, Net, PREF64, Passing};
use changes::Mtu;
use streams::{Streamed, Streams};

/// A node as it runs here.
pub type SimNode = Node<ChaChaPoly>;

/// The port every node listens on.
pub const PORT: u16 = 51820;

/// How long a datagram takes at least, unless told otherwise.
const DELAY: Duration = Duration::from_millis(10);

/// What ports that are opened for a search are counted from.
const FURTHER_PORTS: u16 = 52_000;

/// A host in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(usize);

impl HostId {
    /// The first that was put there.
    pub const FIRST: Self = Self(0);
}

struct Host {
    node: Option<Node<ChaChaPoly>>,
    disk: Stored,
    config: Config,
    /// Ports that are open for a search.
    ports: BTreeSet<PortId>,
    clock: Option<UnixTime>,
    wake: Instant,
    turn_attempt: Option<u32>,
    delivered: Vec<Vec<u8>>,
    to_apps: Vec<(Ipv6Addr, Vec<u8>)>,
    to_login_page: Vec<Vec<u8>>,
    told: Vec<Event>,
    /// What was written and is not synced yet, the oldest first.
    unsynced: VecDeque<Write>,
    slow_disk: bool,
}

/// A slot on its way to a disk.
struct Write {
    slot: Slot,
    /// What is to stand there; nothing removes it.
    bytes: Option<Vec<u8>>,
    synced: Instant,
}

/// A datagram that passed somewhere.
#[derive(Clone, Debug)]
pub struct Captured {
    /// When.
    pub at: Instant,
    /// From where, as the internet sees it.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// What.
    pub bytes: Vec<u8>,
}

enum InFlight {
    Datagram { passing: Passing, bytes: Vec<u8> },
    Streamed(Streamed),
    Turned { host: HostId, bytes: Vec<u8> },
    Derped { host: HostId, derped: derp::Derped },
}

/// Everything there is.
pub struct World {
    now: Instant,
    sequence: u64,
    chance: u64,
    loss_per_mille: u64,
    delay: Duration,
    hosts: Vec<Host>,
    net: Net,
    streams: Streams,
    turn: Option<turn::Server>,
    derper: derp::Derper,
    /// Lines on which no UDP passes.
    without_udp: BTreeSet<HostId>,
    /// Hosts that are suspended.
    asleep: BTreeSet<HostId>,
    /// Hosts whose datagrams get no further than their own LAN.
    confined: BTreeSet<HostId>,
    wire: BinaryHeap<Reverse<(Instant, u64)>>,
    in_flight: BTreeMap<u64, InFlight>,
    blocked: Vec<(IpAddr, IpAddr)>,
    /// The MTU of hosts' lines, in bytes, where it is smaller than Ethernet's.
    mtus: BTreeMap<HostId, Mtu>,
    /// Datagrams on the wire that IP may cut.
    in_fragments: BTreeSet<u64>,
    lost: fn(&[u8]) -> bool,
    /// Everything that passed the internet, while [`World::capture`] is on.
    pub captured: Vec<Captured>,
    /// Whether what passes is kept.
    pub capture: bool,
    /// Whether fragments of IP are lost on the way, as many NATs lose them.
    pub loses_fragments: bool,
}

impl World {
    /// An empty world. The same seed gives the same run.
    pub fn new(seed: u64) -> Self {
        Self {
            now: Instant::from_micros(1_000_000),
            sequence: 0,
            chance: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            loss_per_mille: 0,
            delay: DELAY,
            hosts: Vec::new(),
            net: Net::default(),
            streams: Streams::default(),
            turn: None,
            derper: derp::Derper::default(),
            without_udp: BTreeSet::new(),
            asleep: BTreeSet::new(),
            confined: BTreeSet::new(),
            wire: BinaryHeap::new(),
            in_flight: BTreeMap::new(),
            blocked: Vec::new(),
            mtus: BTreeMap::new(),
            in_fragments: BTreeSet::new(),
            lost: |_| false,
            captured: Vec::new(),
            capture: false,
            loses_fragments: false,
        }
    }

    /// Loses so many of a thousand datagrams from now on.
    pub const fn lose(&mut self, per_mille: u64) {
        self.loss_per_mille = per_mille;
    }

    /// The present moment.
    pub const fn now(&self) -> Instant {
        self.now
    }

    fn random(&mut self) -> u64 {
        // xorshift64* (Vigna 2016).
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Puts a NAT on the internet.
    pub fn nat(&mut self, kind: Kind, public: &str) -> NatId {
        self.nat_behind(kind, public, None)
    }

    /// Puts a NAT behind another, as a home's router behind its carrier's; or on the internet.
    pub fn nat_behind(&mut self, kind: Kind, public: &str, parent: Option<NatId>) -> NatId {
        let public = public.parse().expect("a test's address");
        let seed = self.random();
        self.net.nat(kind, public, parent, seed)
    }

    /// How many mappings a NAT has.
    pub fn mappings(&self, nat: NatId) -> usize {
        self.net.mappings(nat)
    }

    /// Gives a NAT another public address.
    pub fn renumber(&mut self, nat: NatId, public: &str) {
        let nat = self.net.nat_mut(nat);
        nat.renumber(public.parse().expect("a test's address"));
    }

    /// Has a NAT let everybody in to `inside` at `port`; returns where that is reached.
    pub fn forward(&mut self, nat: NatId, port: u16, inside: SocketAddr) -> SocketAddr {
        self.net.nat_mut(nat).forward(port, inside)
    }

    /// Puts a new device at `address`, behind a NAT if there is one, and switches it on. It has a
    /// login page.
    pub fn host(&mut self, address: &str, nat: Option<NatId>) -> HostId {
        let config = Config {
            has_login_page: true,
            ..Config::router(FOUNDED)
        };
        self.host_with(address, nat, config)
    }

    /// Puts a new device with such a configuration at `address` and switches it on.
    pub fn host_with(&mut self, address: &str, nat: Option<NatId>, config: Config) -> HostId {
        self.plug_in(address, nat, None, config)
    }

    /// Puts a new device at an IPv6 address behind a firewall, which reaches IPv4 through a NAT64,
    /// and switches it on.
    pub fn host_on(&mut self, address: &str, nat: Option<NatId>, nat64: Option<NatId>) -> HostId {
        self.plug_in(address, nat, nat64, Config::router(FOUNDED))
    }

    fn plug_in(
        &mut self,
        address: &str,
        nat: Option<NatId>,
        nat64: Option<NatId>,
        config: Config,
    ) -> HostId {
        let address = address.parse().expect("a test's address");
        self.hosts.push(Host {
            node: None,
            disk: Stored::new(),
            config,
            ports: BTreeSet::new(),
            clock: Some(FOUNDED),
            wake: Instant::NEVER,
            turn_attempt: None,
            delivered: Vec::new(),
            to_apps: Vec::new(),
            to_login_page: Vec::new(),
            told: Vec::new(),
            unsynced: VecDeque::new(),
            slow_disk: false,
        });
        let host = HostId(self.hosts.len() - 1);
        self.net.plug_in(Line {
            host: host.0,
            address,
            nat,
            nat64,
        });
        self.power_on(host);
        host
    }

    /// Gives a host one more address, of the other family; through `nat64` it reaches IPv4 too.
    pub fn line(&mut self, host: HostId, address: &str, nat: Option<NatId>, nat64: Option<NatId>) {
        let address = address.parse().expect("a test's address");
        self.net.plug_in(Line {
            host: host.0,
            address,
            nat,
            nat64,
        });
        self.tell_interfaces(host);
        self.drain(host);
    }

    /// Takes a host's first address away.
    pub fn unplug(&mut self, host: HostId) {
        self.net.unplug(host.0);
        self.tell_interfaces(host);
        self.drain(host);
    }

    /// Lets no UDP pass from or to a host, or lets it pass again.
    pub fn block_udp(&mut self, host: HostId, on: bool) {
        if on {
            self.without_udp.insert(host);
        } else {
            self.without_udp.remove(&host);
        }
    }

    /// Tells a host which addresses of its own it has, but for those that are translated.
    fn tell_interfaces(&mut self, host: HostId) {
        let now = self.now;
        let plain = self
            .net
            .lines(host.0)
            .filter(|line| self.net.is_plain(line));
        let addresses: Vec<SocketAddr> = plain
            .map(|line| SocketAddr::new(line.address, PORT))
            .collect();
        let has_v4 = self.net.lines(host.0).any(|line| line.address.is_ipv4());
        let pref64 = self.net.lines(host.0).any(|line| line.nat64.is_some()) && !has_v4;
        let state = &mut self.hosts[host.0];
        if let Some(node) = &mut state.node {
            node.handle_pref64(pref64.then_some(PREF64), now);
            node.handle_interfaces(&addresses, now);
        }
    }

    /// What the host's operating system says of the calendar at its next start.
    pub fn set_clock(&mut self, host: HostId, clock: Option<UnixTime>) {
        self.hosts[host.0].clock = clock;
    }

    /// Gives a host a disk that takes some milliseconds to sync a slot; at once otherwise.
    pub fn slow_disk(&mut self, host: HostId, on: bool) {
        self.hosts[host.0].slow_disk = on;
    }

    /// Cuts a host's power. Of what wasn't synced each slot is there as it was or as it would
    /// have been, by chance.
    pub fn power_off(&mut self, host: HostId) {
        self.hosts[host.0].node = None;
        self.hosts[host.0].wake = Instant::NEVER;
        self.end_streams(host);
        self.end_derped(host);
        for write in core::mem::take(&mut self.hosts[host.0].unsynced) {
            if self.random() & 1 == 0 {
                put(&mut self.hosts[host.0].disk, &write);
            }
        }
    }

    /// Cuts a host's power and switches it on again.
    pub fn restart(&mut self, host: HostId) {
        self.power_off(host);
        self.power_on(host);
    }

    /// Whether a host is switched on.
    pub fn is_on(&self, host: HostId) -> bool {
        self.hosts[host.0].node.is_some()
    }

    /// Switches a host on with what its disk holds.
    pub fn power_on(&mut self, host: HostId) {
        let seed: [u8; 32] = core::array::from_fn(|_| self.random() as u8);
        let now = self.now;
        let state = &mut self.hosts[host.0];
        let mut node = Node::new(state.config.clone(), &state.disk, seed, now)
            .expect("a disk that only lost power is readable");
        if let Some(clock) = state.clock {
            let since_start = now.saturating_since(Instant::from_micros(1_000_000));
            node.handle_clock(clock.after(since_start), now);
        }
        state.node = Some(node);
        state.ports.clear();
        state.turn_attempt = None;
        self.tell_interfaces(host);
        self.drain(host);
    }

    /// The node on a host that is switched on.
    pub fn node(&self, host: HostId) -> &Node<ChaChaPoly> {
        self.hosts[host.0].node.as_ref().expect("switched on")
    }

    /// Does something with a node and drains it.
    pub fn with<T>(
        &mut self,
        host: HostId,
        act: impl FnOnce(&mut Node<ChaChaPoly>, Instant) -> T,
    ) -> T {
        let now = self.now;
        let node = self.hosts[host.0].node.as_mut().expect("switched on");
        let result = act(node, now);
        self.drain(host);
        result
    }

    /// Gives a node a command.
    pub fn command(&mut self, host: HostId, command: Command) {
        self.with(host, |node, now| node.handle_command(command, now))
            .expect("the command fits");
    }

    /// Takes what was delivered to a host's side so far.
    pub fn delivered(&mut self, host: HostId) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.hosts[host.0].delivered)
    }

    /// Takes what was delivered to a host's apps so far, each with whose it is.
    pub fn delivered_to_apps(&mut self, host: HostId) -> Vec<(Ipv6Addr, Vec<u8>)> {
        core::mem::take(&mut self.hosts[host.0].to_apps)
    }

    /// Takes what a host's login page answers so far, in the place of whom it was meant for.
    pub fn sent_to_login_page(&mut self, host: HostId) -> Vec<Vec<u8>> {
        core::mem::take(&mut self.hosts[host.0].to_login_page)
    }

    /// Takes the facts a host was told so far.
    pub fn told(&mut self, host: HostId) -> Vec<Event> {
        core::mem::take(&mut self.hosts[host.0].told)
    }

    /// Lets time pass while everybody sleeps, as computers do whose lid is closed.
    pub fn sleep(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// What a host has on disk.
    pub fn disk(&mut self, host: HostId) -> &mut Stored {
        &mut self.hosts[host.0].disk
    }

    /// Lets nothing pass between two public addresses, or lets it pass again.
    pub fn block(&mut self, a: &str, b: &str, on: bool) {
        let pair = (a.parse().expect("address"), b.parse().expect("address"));
        self.blocked.retain(|blocked| *blocked != pair);
        if on {
            self.blocked.push(pair);
        }
    }

    /// Loses every datagram that `which` picks, until told otherwise.
    pub fn lose_kind(&mut self, which: fn(&[u8]) -> bool) {
        self.lost = which;
    }

    /// Hands a host's node a packet from its side.
    ///
    /// # Errors
    /// Why the node refused it.
    pub fn send(&mut self, host: HostId, packet: &[u8]) -> Result<(), DropReason> {
        let now = self.now;
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(packet).expect("a packet fits a frame");
        let state = &mut self.hosts[host.0];
        let node = state.node.as_mut().expect("switched on");
        let verdict = node.handle_lan(&mut frame, now);
        let bytes = frame.packet().to_vec();
        let refused = verdict.map(|verdict| self.carry_out(host, verdict, bytes));
        self.drain(host);
        refused
    }

    /// Hands a host's node a packet from an app on it.
    ///
    /// # Errors
    /// Why the node refused it.
    pub fn send_from_app(
        &mut self,
        host: HostId,
        app: Ipv6Addr,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let now = self.now;
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(packet).expect("a packet fits a frame");
        let state = &mut self.hosts[host.0];
        let node = state.node.as_mut().expect("switched on");
        let verdict = node.handle_app(app, &mut frame, now);
        let bytes = frame.packet().to_vec();
        let refused = verdict.map(|verdict| self.carry_out(host, verdict, bytes));
        self.drain(host);
        refused
    }

    fn carry_out(&mut self, host: HostId, verdict: Verdict, bytes: Vec<u8>) {
        match verdict {
            Verdict::Send { to, port } => self.launch(host, port, to, bytes),
            Verdict::ToRelay { relay, to } => self.stream_to_relay(host, relay, to, bytes),
            Verdict::ToClient { stream, from } => self.stream_to_client(host, stream, from, bytes),
            Verdict::ToDerper { to, .. } => self.send_derped(host, to, bytes),
            Verdict::ToTurn => self.send_to_turn(host, &bytes),
            Verdict::Deliver => self.hosts[host.0].delivered.push(bytes),
            Verdict::App { app } => self.hosts[host.0].to_apps.push((app, bytes)),
            Verdict::LogIn => self.hosts[host.0].to_login_page.push(bytes),
            Verdict::Consumed => {}
        }
    }

    /// Puts a datagram on the internet as if it came from `from`: a stranger's.
    pub fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let realm = None;
        self.pass(Passing { from, to, realm }, bytes);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now.after(time);
        self.run_until(end, |_| false);
    }

    /// Lets time pass until `done`, at most `time`. Returns whether it was done.
    pub fn run_for(&mut self, time: Duration, done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now.after(time);
        self.run_until(end, done)
    }

    fn run_until(&mut self, end: Instant, mut done: impl FnMut(&mut Self) -> bool) -> bool {
        loop {
            if done(self) {
                return true;
            }
            let wire = self
                .wire
                .peek()
                .map_or(Instant::NEVER, |Reverse((at, _))| *at);
            let wake = self
                .hosts
                .iter()
                .map(|h| h.wake)
                .min()
                .unwrap_or(Instant::NEVER);
            let synced = self
                .hosts
                .iter()
                .filter_map(|h| h.unsynced.front())
                .map(|write| write.synced)
                .min()
                .unwrap_or(Instant::NEVER);
            let next = wire.min(wake).min(synced);
            if next > end {
                self.now = end;
                return done(self);
            }
            self.now = self.now.max(next);
            if synced == next {
                self.sync_due();
            } else if wire == next {
                self.arrive();
            } else {
                self.wake_due();
            }
        }
    }

    fn sync_due(&mut self) {
        let now = self.now;
        for at in 0..self.hosts.len() {
            let state = &mut self.hosts[at];
            let Some(write) = state.unsynced.pop_front_if(|w| w.synced <= now) else {
                continue;
            };
            put(&mut state.disk, &write);
            // Written again since: it counts once the newest bytes are there.
            let again = state.unsynced.iter().any(|w| w.slot == write.slot);
            if let Some(node) = &mut state.node
                && !again
            {
                node.handle_saved(&write.slot, now);
                self.drain(HostId(at));
            }
        }
    }

    fn wake_due(&mut self) {
        let now = self.now;
        for at in 0..self.hosts.len() {
            let state = &mut self.hosts[at];
            if state.wake <= now
                && let Some(node) = &mut state.node
            {
                node.handle_timeout(now);
                self.drain(HostId(at));
            }
        }
    }

    fn arrive(&mut self) {
        let Some(Reverse((_, sequence))) = self.wire.pop() else {
            return;
        };
        let (passing, bytes) = match self.in_flight.remove(&sequence) {
            Some(InFlight::Datagram { passing, bytes }) => (passing, bytes),
            Some(InFlight::Streamed(streamed)) => return self.arrive_streamed(streamed),
            Some(InFlight::Derped { host, derped }) => return self.arrive_derped(host, derped),
            Some(InFlight::Turned { host, bytes }) => return self.arrive_turned(host, &bytes),
            None => return,
        };
        if !self.is_blocked(passing) && self.turn_takes(passing, &bytes) {
            return;
        }
        let Some((host, port, from)) = self.route(passing) else {
            return;
        };
        let is_whole = !self.in_fragments.remove(&sequence);
        if self.asleep.contains(&host) || (is_whole && !self.fits(host, from, bytes.len())) {
            return;
        }
        let now = self.now;
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        if frame.set(&bytes).is_err() {
            return;
        }
        let Some(node) = &mut self.hosts[host.0].node else {
            return;
        };
        let verdict = node.handle_wan_at(port, from, &mut frame, now);
        let bytes = frame.packet().to_vec();
        if let Ok(verdict) = verdict {
            self.carry_out(host, verdict, bytes);
        }
        self.drain(host);
    }

    fn is_blocked(&self, passing: Passing) -> bool {
        let (a, b) = (passing.from.ip(), passing.to.ip());
        let mut blocked = self.blocked.iter();
        blocked.any(|pair| *pair == (a, b) || *pair == (b, a))
    }

    /// The host a datagram reaches, at which of its ports, and from where it seems to come.
    fn route(&mut self, passing: Passing) -> Option<(HostId, PortId, SocketAddr)> {
        if self.is_blocked(passing) {
            return None;
        }
        let (line, port, from) = self.net.arrive(passing, self.now)?;
        let host = HostId(line.host);
        let port = match port.checked_sub(FURTHER_PORTS) {
            Some(port) if self.hosts[host.0].ports.contains(&PortId(port)) => PortId(port),
            None if port == PORT => PortId::MAIN,
            _ => return None,
        };
        (!self.without_udp.contains(&host)).then_some((host, port, from))
    }

    /// Sends a datagram out of a host.
    fn launch(&mut self, host: HostId, port: PortId, to: SocketAddr, bytes: Vec<u8>) {
        self.hosts[host.0].ports.insert(port);
        let number = match port {
            PortId::MAIN | PortId::FRAGMENTS => PORT,
            PortId(port) => FURTHER_PORTS + port,
        };
        if self.without_udp.contains(&host) || !self.leaves(host, port, to, bytes.len()) {
            return;
        }
        let passing = self.net.depart(host.0, number, to, self.now);
        let is_let_out =
            |passing: &Passing| passing.realm.is_some() || !self.confined.contains(&host);
        if let Some(passing) = passing.filter(is_let_out) {
            let before = self.sequence;
            self.pass(passing, bytes);
            if port == PortId::FRAGMENTS && self.sequence > before && !self.loses_fragments {
                self.in_fragments.insert(self.sequence);
            }
        }
    }

    fn pass(&mut self, passing: Passing, bytes: Vec<u8>) {
        assert!(bytes.len() <= 1472, "a datagram of {} bytes", bytes.len());
        if self.capture {
            self.captured.push(Captured {
                at: self.now,
                from: passing.from,
                to: passing.to,
                bytes: bytes.clone(),
            });
        }
        if self.random() % 1000 < self.loss_per_mille || (self.lost)(&bytes) {
            return;
        }
        let jitter = Duration::from_micros(self.random() % 4_000);
        let delay = self.delay + jitter;
        self.sequence += 1;
        self.wire
            .push(Reverse((self.now.after(delay), self.sequence)));
        self.in_flight
            .insert(self.sequence, InFlight::Datagram { passing, bytes });
    }

    /// Does what a driver does: drains a node until it waits.
    fn drain(&mut self, host: HostId) {
        let now = self.now;
        for _ in 0..10_000 {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            let state = &mut self.hosts[host.0];
            let Some(node) = &mut state.node else {
                return;
            };
            match node.poll_output(&mut frame, now) {
                Output::Send { to, port } => {
                    let bytes = frame.packet().to_vec();
                    self.launch(host, port, to, bytes);
                }
                Output::ToRelay { relay, to } => {
                    let bytes = frame.packet().to_vec();
                    self.stream_to_relay(host, relay, to, bytes);
                }
                Output::ToClient { stream, from } => {
                    let bytes = frame.packet().to_vec();
                    self.stream_to_client(host, stream, from, bytes);
                }
                Output::CloseClient { stream } => self.close_client(stream),
                Output::ToDerper { to, .. } => {
                    let bytes = frame.packet().to_vec();
                    self.send_derped(host, to, bytes);
                }
                Output::ToTurn => {
                    let bytes = frame.packet().to_vec();
                    self.send_to_turn(host, &bytes);
                }
                Output::ClosePort { port } => {
                    state.ports.remove(&port);
                }
                Output::Save { slot } => {
                    let bytes = node.state_bytes(&slot).map(|bytes| bytes.to_vec());
                    self.write(host, slot, bytes);
                }
                // Links are the business of `altnet_core::lan`, and of real kernels.
                Output::Deliver => {
                    let bytes = frame.packet().to_vec();
                    self.carry_out(host, Verdict::Deliver, bytes);
                }
                Output::App { app } => {
                    let bytes = frame.packet().to_vec();
                    self.carry_out(host, Verdict::App { app }, bytes);
                }
                Output::Advertise { .. } => {}
                Output::Tell(event) => state.told.push(event),
                Output::Wait(deadline) => {
                    state.wake = deadline;
                    self.tend_streams(host);
                    self.tend_derper(host);
                    if !self.reach_turn(host) {
                        return;
                    }
                }
            }
        }
        panic!("a node never waits");
    }

    fn write(&mut self, host: HostId, slot: Slot, bytes: Option<Vec<u8>>) {
        let now = self.now;
        let takes = Duration::from_micros(500 + self.random() % 20_000);
        let state = &mut self.hosts[host.0];
        let last = state.unsynced.back().map_or(now, |write| write.synced);
        let write = Write {
            slot,
            bytes,
            synced: last.after(takes),
        };
        if state.slow_disk {
            state.unsynced.push_back(write);
            return;
        }
        put(&mut state.disk, &write);
        if let Some(node) = &mut state.node {
            node.handle_saved(&write.slot, now);
        }
    }
}

fn put(disk: &mut Stored, write: &Write) {
    match &write.bytes {
        Some(bytes) => disk.insert(write.slot.to_string(), bytes.clone()),
        None => disk.remove(&write.slot.to_string()),
    };
}
