//! Homes behind every kind of NAT: which pairs of them meet directly, and how soon.
//!
//! What is expected of each pair stands in `grid.txt`, which the same scenario reads in namespaces
//! with real binaries.

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::node::Config;
use altnet_wire::address::site_prefix;
use altnet_wire::id::{Name, SiteId};
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use crate::founder::{FOUNDED, Founder};
use crate::homes::{RELAY, entry, invited, join, seconds};
use crate::nat::Kind;
use crate::packet;
use crate::world::{HostId, NatId, PORT, World};

/// The second relay's address.
pub const RELAY_2: &str = "203.0.113.11";

/// What is expected of each pair: the letters of a line stand below those of the first.
const TABLE: &str = include_str!("grid.txt");

/// How a home is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// A public address, and nothing before it.
    Open,
    /// A NAT that lets anybody in.
    FullCone,
    /// A NAT that lets in whose address was written to.
    AddressRestricted,
    /// A NAT that lets in whose address and port were written to.
    PortRestricted,
    /// A NAT with another port for each destination: the next.
    SymmetricSequential,
    /// A NAT with another port for each destination: any.
    SymmetricRandom,
    /// A home's NAT behind a carrier's.
    Cgnat,
    /// A home's NAT behind a carrier's with another port for each destination.
    CgnatSymmetric,
    /// A carrier's NAT that two homes share, and that lets them meet by its own address.
    Hairpin,
    /// A home's NAT behind which no UDP passes, only TLS.
    UdpBlocked,
    /// IPv6 behind a firewall, and IPv4 through the provider's NAT64.
    V6Only,
    /// IPv6 behind a firewall, and IPv4 behind a carrier's NAT.
    DualStack,
}

/// All of them.
pub const LINES: [Line; 12] = [
    Line::Open,
    Line::FullCone,
    Line::AddressRestricted,
    Line::PortRestricted,
    Line::SymmetricSequential,
    Line::SymmetricRandom,
    Line::Cgnat,
    Line::CgnatSymmetric,
    Line::Hairpin,
    Line::UdpBlocked,
    Line::V6Only,
    Line::DualStack,
];

/// What is expected of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It becomes direct within 5 s.
    Must,
    /// At least 95 of 100 become direct within 10 s.
    Likely,
    /// It is relayed.
    Relay,
}

impl Line {
    /// As the table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::FullCone => "full-cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::SymmetricRandom => "symmetric-random",
            Self::Cgnat => "cgnat",
            Self::CgnatSymmetric => "cgnat-symmetric",
            Self::Hairpin => "hairpin",
            Self::UdpBlocked => "udp-blocked",
            Self::V6Only => "v6-only",
            Self::DualStack => "dual-stack",
        }
    }

    /// What the table says of two.
    ///
    /// # Panics
    /// If it says nothing.
    pub fn with(self, other: Self) -> Expected {
        let mut rows = TABLE.lines().filter(|row| !row.starts_with('#'));
        let head: Vec<&str> = rows.next().expect("a head").split_whitespace().collect();
        let row = rows
            .map(|row| row.split_whitespace().collect::<Vec<_>>())
            .find(|row| row.first() == Some(&self.name()))
            .expect("a row for each line");
        let column = head.iter().position(|name| *name == other.name());
        match row[column.expect("a column for each line") + 1] {
            "must" => Expected::Must,
            "likely" => Expected::Likely,
            "relay" => Expected::Relay,
            other => panic!("the table says {other}"),
        }
    }
}

/// How two homes met.
#[derive(Clone, Copy, Debug)]
pub struct Met {
    /// When the first packet arrived, after it was sent.
    pub first_packet: Option<Duration>,
    /// When both ways were direct.
    pub direct: Option<Duration>,
}

/// Two homes and two relays, before anything was said between the homes.
pub struct Pair {
    /// Where they are.
    pub world: World,
    /// The gateways.
    pub homes: [HostId; 2],
    /// The relays; the first is directory too.
    pub relays: [HostId; 2],
    founder: Founder,
}

impl Pair {
    /// Connects two homes. The same seed gives the same run.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn new(seed: u64, lines: [Line; 2]) -> Self {
        let mut world = World::new(seed);
        world.serve_streams();
        let mut founder = Founder::new("home", 7);
        let relay = world.host(RELAY, None);
        let bundle = founder.relay_bundle(entry());
        join(&mut world, relay, bundle);
        let second = SocketAddr::new(RELAY_2.parse().expect("an address"), PORT);
        let config = Config {
            fixed_endpoints: [second].into_iter().collect(),
            ..Config::router(FOUNDED)
        };
        let other = world.host_with(RELAY_2, None, config);
        let link = founder.invite("relay-2", Roles::RELAY, None, entry());
        join(&mut world, other, invited(link));
        let shared = (lines == [Line::Hairpin; 2]).then(|| hairpin(&mut world, 0));
        let homes = [0, 1].map(|n| {
            let host = plug_in(&mut world, n, lines[usize::from(n)], shared);
            let link = founder.invite(
                ["house-a", "house-b"][usize::from(n)],
                Roles::GATEWAY,
                Some(u16::from(n) + 1),
                entry(),
            );
            join(&mut world, host, invited(link));
            host
        });
        for (home, line) in homes.into_iter().zip(lines) {
            world.block_udp(home, line == Line::UdpBlocked);
        }
        // Everybody is registered with both relays.
        let is_served = |world: &World, home| {
            let relays = world.node(home).status(world.now()).relays;
            relays.len() == 2 && relays.iter().all(|relay| relay.up)
        };
        let served = world.run_for(seconds(120), |world| {
            homes.iter().all(|home| is_served(world, *home))
        });
        assert!(served, "both relays serve {lines:?}");
        world.run(seconds(20));
        let mut pair = Self {
            world,
            homes,
            relays: [relay, other],
            founder,
        };
        pair.publish();
        pair
    }

    /// Names a machine in house B, so that house A may send there.
    fn publish(&mut self) {
        let record = self.founder.host("wiki", 2, 0x80);
        let relay = HostId::FIRST;
        self.world
            .with(relay, |node, now| node.publish(&record, now))
            .expect("a directory takes the owner's records");
        let wiki = Name::new("wiki").expect("a DNS label");
        let homes = self.homes;
        let is_known = |world: &World, home| {
            let registry = world.node(home).registry();
            registry.is_some_and(|registry| registry.host(&wiki).is_some())
        };
        let known = self.world.run_for(seconds(120), |world| {
            homes.iter().all(|home| is_known(world, *home))
        });
        assert!(known, "both homes hear of the machine");
    }

    fn lan(&self, site: u16, host: u64) -> Ipv6Addr {
        let network = self.founder.registry.network();
        let prefix = site_prefix(&network, SiteId::new(site).expect("a test's site id"));
        (u128::from(prefix.address()) | u128::from(host)).into()
    }

    fn is_direct(&self, at: usize) -> bool {
        let other = ["house-b", "house-a"][at];
        let peers = self.world.node(self.homes[at]).peer_views(self.world.now());
        let peer = peers.iter().find(|peer| peer.name == other);
        peer.is_some_and(|peer| peer.path == "direct")
    }

    /// Lets a machine in house A send ten packets a second to one in house B, and this answer, until
    /// both ways are direct, at most so long.
    pub fn meet(&mut self, most: Duration) -> Met {
        let (a, b) = (self.lan(1, 0x11), self.lan(2, 0x80));
        let began = self.world.now();
        let mut met = Met {
            first_packet: None,
            direct: None,
        };
        let since = |world: &World, began: Instant| world.now().saturating_since(began);
        let is_done = |met: &Met| met.direct.is_some() && met.first_packet.is_some();
        while since(&self.world, began) < most && !is_done(&met) {
            let there = packet::udp((a, 4000), (b, 80), b"there");
            let _ = self.world.send(self.homes[0], &there);
            self.world.run(Duration::from_millis(100));
            let came = self.world.delivered(self.homes[1]);
            if !came.is_empty() {
                met.first_packet.get_or_insert(since(&self.world, began));
                let back = packet::udp((b, 80), (a, 4000), b"back");
                let _ = self.world.send(self.homes[1], &back);
            }
            if self.is_direct(0) && self.is_direct(1) {
                met.direct.get_or_insert(since(&self.world, began));
            }
        }
        met
    }

    /// How things are, for a test that fails.
    pub fn story(&mut self) -> String {
        self.homes.map(|host| self.world.story(host)).concat()
    }
}

/// Puts a gateway on a line. `n` tells the two apart.
fn plug_in(world: &mut World, n: u8, line: Line, shared: Option<NatId>) -> HostId {
    let public = format!("198.51.100.{}", n + 1);
    let private = format!("192.168.{n}.2");
    let kind = match line {
        Line::Open => return world.host(&public, None),
        Line::FullCone => Kind::FULL_CONE,
        Line::AddressRestricted => Kind::ADDRESS_RESTRICTED,
        // No UDP passes once it has joined.
        Line::PortRestricted | Line::UdpBlocked => Kind::PORT_RESTRICTED,
        Line::SymmetricSequential => Kind::SYMMETRIC_SEQUENTIAL,
        Line::SymmetricRandom => Kind::SYMMETRIC_RANDOM,
        Line::Cgnat | Line::CgnatSymmetric => {
            let kind = match line {
                Line::Cgnat => Kind::PORT_RESTRICTED,
                _ => Kind::SYMMETRIC_RANDOM,
            };
            let carrier = world.nat(kind, &public);
            let line = format!("100.64.{n}.2");
            let home = world.nat_behind(Kind::PORT_RESTRICTED, &line, Some(carrier));
            return world.host(&private, Some(home));
        }
        Line::Hairpin => {
            let carrier = shared.unwrap_or_else(|| hairpin(world, n));
            let line = format!("100.64.{n}.2");
            let home = world.nat_behind(Kind::PORT_RESTRICTED, &line, Some(carrier));
            return world.host(&private, Some(home));
        }
        Line::V6Only => {
            let nat64 = world.nat(Kind::PORT_RESTRICTED, &public);
            let wall = world.nat(Kind::FIREWALL, &public);
            let v6 = format!("2001:db8:{n}::2");
            return world.host_on(&v6, Some(wall), Some(nat64));
        }
        Line::DualStack => {
            let carrier = world.nat(Kind::PORT_RESTRICTED, &public);
            let wall = world.nat(Kind::FIREWALL, &public);
            let host = world.host(&private, Some(carrier));
            world.line(host, &format!("2001:db8:{n}::2"), Some(wall), None);
            return host;
        }
    };
    let nat = world.nat(kind, &public);
    world.host(&private, Some(nat))
}

fn hairpin(world: &mut World, n: u8) -> NatId {
    let kind = Kind {
        hairpins: true,
        ..Kind::PORT_RESTRICTED
    };
    world.nat(kind, &format!("198.51.100.{}", n + 1))
}
