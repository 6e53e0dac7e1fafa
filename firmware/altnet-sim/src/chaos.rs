//! Two homes that talk all the time while something changes underneath: a relay dies, an uplink
//! is another, a NAT reboots. What comes out is how long nothing arrived.

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::node::Config;
use altnet_wire::address::site_prefix;
use altnet_wire::id::SiteId;
use altnet_wire::record::Roles;
use altnet_wire::time::{Duration, Instant};

use crate::founder::{FOUNDED, Founder};
use crate::homes::{entry, invited, join, seconds};
use crate::nat::Kind;
use crate::packet;
use crate::world::{HostId, NatId, PORT, World};

/// How often each home sends a packet.
const EVERY: Duration = Duration::from_millis(20);
/// Bytes of a packet before its data.
const HEADERS: usize = 48;
/// How often is looked for what arrived.
const LOOK: Duration = Duration::from_millis(5);

/// How a home is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uplink {
    /// IPv4 behind a NAT.
    V4,
    /// IPv6 behind a firewall, and no IPv4.
    V6,
    /// Both.
    Dual,
}

/// The longest time in which nothing arrived, each way.
#[derive(Clone, Copy, Debug)]
pub struct Gaps {
    /// At home B.
    pub there: Duration,
    /// At home A.
    pub back: Duration,
}

impl Gaps {
    /// The longer of the two.
    pub fn longest(&self) -> Duration {
        self.there.max(self.back)
    }

    /// The longer of both, each way.
    #[must_use]
    pub fn or_longer(self, other: Self) -> Self {
        Self {
            there: self.there.max(other.there),
            back: self.back.max(other.back),
        }
    }
}

/// Two homes, and relays that all know each other.
pub struct Chaos {
    /// Where they are.
    pub world: World,
    /// The relays; the first is directory too.
    pub relays: Vec<HostId>,
    /// The gateways.
    pub homes: [HostId; 2],
    /// What each home's IPv4 is behind.
    pub nats: [Option<NatId>; 2],
    kind: Kind,
    /// How often a home was connected anew: no address is used twice.
    uplinks: u8,
    founder: Founder,
    /// How many packets were sent.
    sent: u32,
}

/// The IPv4 address of a relay.
pub fn relay_v4(number: u8) -> String {
    format!("203.0.113.{}", 10 + number)
}

/// Its IPv6 address.
pub fn relay_v6(number: u8) -> String {
    format!("2001:db8:ff::{}", 10 + number)
}

impl Chaos {
    /// Makes the network, with NATs of this kind before the homes, and lets everybody settle.
    /// The same seed gives the same run.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn new(seed: u64, relays: u8, uplinks: [Uplink; 2], kind: Kind) -> Self {
        let mut world = World::new(seed);
        let mut founder = Founder::new("home", 7);
        let ends = |n| [relay_v4(n), relay_v6(n)].map(|ip| socket(&ip));
        let relays: Vec<HostId> = (0..relays)
            .map(|n| {
                let config = Config {
                    fixed_endpoints: ends(n).into_iter().collect(),
                    ..Config::router(FOUNDED)
                };
                let host = world.host_with(&relay_v4(n), None, config);
                world.line(host, &relay_v6(n), None, None);
                let bundle = match n {
                    0 => founder.relay_bundle_at(&ends(n)),
                    _ => {
                        let name = format!("relay-{n}");
                        invited(founder.invite(&name, Roles::RELAY, None, entry()))
                    }
                };
                join(&mut world, host, bundle);
                host
            })
            .collect();
        let homes = ["house-a", "house-b"].map(|name| {
            // They join by a line that is replaced afterwards.
            let place = if name == "house-a" { 1 } else { 2 };
            let host = world.host(&format!("203.0.113.{}", 100 + place), None);
            let link = founder.invite(name, Roles::GATEWAY, Some(place), entry());
            join(&mut world, host, invited(link));
            host
        });
        let mut chaos = Self {
            world,
            relays,
            homes,
            nats: [None; 2],
            kind,
            uplinks: 0,
            founder,
            sent: 0,
        };
        for (side, uplink) in uplinks.into_iter().enumerate() {
            chaos.switch(side, uplink);
        }
        let wiki = chaos.founder.host("wiki", 2, 0x80);
        let directory = chaos.relays[0];
        chaos
            .world
            .with(directory, |node, now| node.publish(&wiki, now))
            .expect("a directory takes the owner's records");
        // Everybody is in step, and registered with every relay.
        chaos.world.run(seconds(40));
        chaos
    }

    /// Connects a home anew, at addresses that it never had.
    pub fn switch(&mut self, side: usize, uplink: Uplink) {
        self.uplinks += 1;
        let n = self.uplinks;
        let mut lines = Vec::new();
        self.nats[side] = None;
        if uplink != Uplink::V6 {
            let nat = self.world.nat(self.kind, &format!("198.51.100.{n}"));
            self.nats[side] = Some(nat);
            lines.push((format!("192.168.{n}.2"), Some(nat)));
        }
        if uplink != Uplink::V4 {
            let wall = self
                .world
                .nat(Kind::FIREWALL, &format!("198.51.100.{}", 100 + n));
            lines.push((format!("2001:db8:{n}::2"), Some(wall)));
        }
        self.world.rewire(self.homes[side], &lines);
    }

    /// Takes every line of a home away.
    pub fn unplug(&mut self, side: usize) {
        self.nats[side] = None;
        self.world.rewire(self.homes[side], &[]);
    }

    /// Reboots the NAT before a home, which has another address afterwards; nobody tells the home.
    ///
    /// # Panics
    /// If there is none.
    pub fn reboot_nat(&mut self, side: usize) {
        self.uplinks += 1;
        let nat = self.nats[side].expect("a home with IPv4");
        self.world
            .renumber(nat, &format!("198.51.100.{}", self.uplinks));
    }

    /// Cuts a relay off from a home that is where it began, or connects them again.
    pub fn cut(&mut self, relay: u8, side: usize, on: bool) {
        let n = side + 1;
        let v4 = format!("198.51.100.{n}");
        self.world.block(&v4, &relay_v4(relay), on);
        let v6 = format!("2001:db8:{n}::2");
        self.world.block(&v6, &relay_v6(relay), on);
    }

    /// Whether a home's path to the other is direct; if it isn't, the number of the relay in use.
    ///
    /// # Panics
    /// If there is no path.
    pub fn path(&self, side: usize) -> Result<(), u8> {
        let other = ["house-b", "house-a"][side];
        let now = self.world.now();
        let peers = self.world.node(self.homes[side]).peer_views(now);
        let peer = peers.iter().find(|peer| peer.name == other);
        let peer = peer.expect("the homes know each other");
        if peer.path == "direct" {
            return Ok(());
        }
        let endpoint = peer.endpoint.as_deref().unwrap_or_default();
        let relays = self.world.node(self.homes[side]).status(now).relays;
        let used = relays.iter().find(|relay| endpoint.ends_with(&relay.node));
        let name = used.map(|relay| relay.name.as_str()).expect("a path");
        // The first is called `relay1`, as the bundle has it.
        let number = name.strip_prefix("relay-").unwrap_or("0");
        Err(number.parse().expect("a relay's number"))
    }

    /// How many relays a home is registered with.
    pub fn registered(&self, side: usize) -> usize {
        let status = self.world.node(self.homes[side]).status(self.world.now());
        status.relays.iter().filter(|relay| relay.up).count()
    }

    /// The address of a machine on a home's LAN.
    ///
    /// # Panics
    /// If there is no such site.
    pub fn lan(&self, site: u16, host: u64) -> Ipv6Addr {
        let network = self.founder.registry.network();
        let prefix = site_prefix(&network, SiteId::new(site).expect("a test's site id"));
        (u128::from(prefix.address()) | u128::from(host)).into()
    }

    /// Lets packets flow both ways for so long. Returns the longest time in which none arrived.
    pub fn flow(&mut self, time: Duration) -> Gaps {
        self.flow_of(52, time)
    }

    /// The same with packets of so many bytes, 52 at least.
    pub fn flow_of(&mut self, bytes: usize, time: Duration) -> Gaps {
        let (a, b) = (self.lan(1, 0x11), self.lan(2, 0x80));
        let end = self.world.now().after(time);
        let mut next = self.world.now();
        let mut last = [self.world.now(); 2];
        let mut longest = [Duration::ZERO; 2];
        while self.world.now() < end {
            if self.world.now() >= next {
                next = next.after(EVERY);
                self.sent += 1;
                let mut data = self.sent.to_be_bytes().to_vec();
                data.resize(bytes - HEADERS, 0);
                for (side, ends) in [((a, 4000), (b, 80)), ((b, 80), (a, 4000))]
                    .into_iter()
                    .enumerate()
                {
                    let packet = packet::udp(ends.0, ends.1, &data);
                    // A node that finds no way says so, and the packet is lost.
                    let _ = self.world.send(self.homes[side], &packet);
                }
            }
            self.world.run(LOOK);
            let now = self.world.now();
            for side in 0..2 {
                let came = self.world.delivered(self.homes[side]);
                let is_data = |p: &Vec<u8>| p.len() == bytes;
                if came.iter().any(is_data) || now >= end {
                    longest[side] = longest[side].max(since(last[side], now));
                    last[side] = now;
                }
            }
        }
        Gaps {
            there: longest[1],
            back: longest[0],
        }
    }

    /// Has house A send for so long to house B, which is off.
    pub fn flow_to_nobody(&mut self, time: Duration) {
        let (a, b) = (self.lan(1, 0x11), self.lan(2, 0x80));
        let packet = packet::udp((a, 4000), (b, 80), b"is anybody there?");
        let end = self.world.now().after(time);
        while self.world.now() < end {
            let _ = self.world.send(self.homes[0], &packet);
            self.world.run(EVERY);
        }
    }

    /// How things are, for a test that fails.
    pub fn story(&mut self) -> String {
        self.homes.map(|host| self.world.story(host)).concat()
    }
}

fn since(earlier: Instant, now: Instant) -> Duration {
    now.saturating_since(earlier)
}

fn socket(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), PORT)
}
