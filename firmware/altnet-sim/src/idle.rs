//! A day in which next to nothing happens: what a gateway sends and gets by itself, and whether it
//! is reached all the same.
//!
//! A gateway behind a NAT of a given patience has five peers and two relays. In each hour one of the
//! peers calls: a machine of its asks one behind the gateway, which answers. Every datagram that
//! crosses the gateway's line, either way, is counted with its IP and UDP headers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use altnet_core::node::Config;
use altnet_wire::address::site_prefix;
use altnet_wire::id::SiteId;
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

use crate::founder::{FOUNDED, Founder};
use crate::grid::RELAY_2;
use crate::homes::{HOUSE_A, RELAY, entry, invited, join, seconds};
use crate::nat::Kind;
use crate::packet;
use crate::world::{Captured, HostId, NatId, PORT, World};

/// How many peers there are.
pub const PEERS: u16 = 5;
/// The headers of UDP over IPv4 and IPv6, in bytes (RFC 791, RFC 8200, RFC 768).
const V4_HEADERS: u64 = 20 + 8;
const V6_HEADERS: u64 = 40 + 8;
/// A machine that isn't answered asks again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often it asks.
const ASKS: usize = 60;

/// What crossed the line.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Datagrams and bytes, headers included, by what they are.
    pub kinds: BTreeMap<&'static str, (u64, u64)>,
}

impl Traffic {
    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.kinds.values().map(|(_, bytes)| bytes).sum()
    }

    fn count(&mut self, captured: &Captured) {
        let headers = match captured.to {
            SocketAddr::V4(_) => V4_HEADERS,
            SocketAddr::V6(_) => V6_HEADERS,
        };
        let entry = self.kinds.entry(kind(captured)).or_default();
        entry.0 += 1;
        entry.1 += headers + captured.bytes.len() as u64;
    }
}

/// What a datagram is, by its first byte and by who sends or gets it.
fn kind(captured: &Captured) -> &'static str {
    let relays = [RELAY, RELAY_2].map(|relay| relay.parse::<IpAddr>().expect("an address"));
    let is_relays = relays.contains(&captured.from.ip()) || relays.contains(&captured.to.ip());
    match captured.bytes.first() {
        Some(1..=3) => "tunnel handshakes",
        Some(4) if captured.bytes.len() == 32 => "tunnel keepalives",
        Some(4) => "tunnel data",
        Some(0x10 | 0x11) => "relayed",
        Some(0x12..=0x1f) => "relay upkeep",
        Some(0x20..=0x23) => "control handshakes",
        Some(0x24) if is_relays => "control with relays",
        Some(0x24) => "control with peers",
        _ => "other",
    }
}

/// The gateway, its peers and the relays.
pub struct Idle {
    /// Where they are.
    pub world: World,
    /// The gateway.
    pub gateway: HostId,
    /// Its NAT.
    pub nat: NatId,
    /// Its peers.
    pub peers: Vec<HostId>,
    /// The relays.
    pub relays: [HostId; 2],
    /// What crossed the gateway's line so far.
    pub traffic: Traffic,
    founder: Founder,
    asked: u16,
}

impl Idle {
    /// Makes them, and lets each peer call once. The same seed gives the same run.
    ///
    /// # Panics
    /// If somebody is not let in, or not answered.
    pub fn new(seed: u64, nat: Kind, config: Config) -> Self {
        let mut world = World::new(seed);
        let mut founder = Founder::new("home", 7);
        let relay = world.host(RELAY, None);
        let bundle = founder.relay_bundle(entry());
        join(&mut world, relay, bundle);
        let second = SocketAddr::new(RELAY_2.parse().expect("an address"), PORT);
        let other = Config {
            fixed_endpoints: [second].into_iter().collect(),
            ..Config::router(FOUNDED)
        };
        let other = world.host_with(RELAY_2, None, other);
        let link = founder.invite("relay-2", Roles::RELAY, None, entry());
        join(&mut world, other, invited(link));
        let nat = world.nat(nat, HOUSE_A);
        let gateway = world.host_with("192.168.1.2", Some(nat), config);
        let link = founder.invite("house-a", Roles::GATEWAY, Some(1), entry());
        join(&mut world, gateway, invited(link));
        let mut peers = Vec::new();
        for n in 1..=PEERS {
            let kind = Kind::PORT_RESTRICTED.lasting(seconds(120));
            let nat = world.nat(kind, &format!("198.51.100.{}", 10 + n));
            let host = world.host("192.168.1.2", Some(nat));
            let link = founder.invite(&format!("peer-{n}"), Roles::GATEWAY, Some(1 + n), entry());
            join(&mut world, host, invited(link));
            peers.push(host);
        }
        let record = founder.host("wiki", 1, 0x80);
        world
            .with(relay, |node, now| node.publish(&record, now))
            .expect("a directory takes the owner's records");
        world.run(seconds(30));
        let mut idle = Self {
            world,
            gateway,
            nat,
            peers,
            relays: [relay, other],
            traffic: Traffic::default(),
            founder,
            asked: 0,
        };
        for peer in 0..idle.peers.len() {
            let answered = idle.call(peer);
            assert!(answered.is_some(), "peer {peer} reached nobody");
        }
        idle.world.capture = true;
        idle
    }

    fn lan(&self, site: u16, host: u64) -> Ipv6Addr {
        let network = self.founder.registry.network();
        let prefix = site_prefix(&network, SiteId::new(site).expect("a test's site id"));
        (u128::from(prefix.address()) | u128::from(host)).into()
    }

    /// Has a machine of a peer's ask one behind the gateway. Returns how long it took until the answer
    /// came; none if it never did.
    pub fn call(&mut self, peer: usize) -> Option<Duration> {
        let (host, gateway) = (self.peers[peer], self.gateway);
        self.asked += 1;
        let asker = (self.lan(2 + peer as u16, 0x11), 5000 + self.asked);
        let asked = (self.lan(1, 0x80), 80);
        let question = packet::udp(asker, asked, b"question");
        let answer = packet::udp(asked, asker, b"answer");
        self.world.delivered(gateway);
        self.world.delivered(host);
        let since = self.world.now();
        for _ in 0..ASKS {
            let _ = self.world.send(host, &question);
            let came = self.world.run_for(ASK_AGAIN, |world| {
                if world.delivered(gateway).contains(&question) {
                    let _ = world.send(gateway, &answer);
                }
                world.delivered(host).contains(&answer)
            });
            if came {
                return Some(self.world.now().saturating_since(since));
            }
        }
        None
    }

    /// Lets time pass, and counts.
    pub fn run(&mut self, time: Duration) {
        self.world.run(time);
        self.count();
    }

    fn count(&mut self) {
        let line: IpAddr = HOUSE_A.parse().expect("an address");
        for captured in core::mem::take(&mut self.world.captured) {
            if captured.from.ip() == line || captured.to.ip() == line {
                self.traffic.count(&captured);
            }
        }
    }

    /// Lets so many hours pass; in each a peer calls at some moment, the peers by turns. Returns the
    /// longest that one waited for the answer.
    ///
    /// # Panics
    /// If one is never answered.
    pub fn hours(&mut self, hours: usize) -> Duration {
        const HOUR_S: u64 = 3600;
        let mut longest = Duration::ZERO;
        for hour in 0..hours {
            // Another moment of each hour.
            let before = (hour as u64 * 1277 + 600) % HOUR_S;
            self.run(seconds(before));
            let began = self.world.now();
            let answered = self.call(hour % self.peers.len());
            let answered = answered.unwrap_or_else(|| panic!("hour {hour}: no answer"));
            longest = longest.max(answered);
            let took = self.world.now().saturating_since(began);
            self.count();
            self.run(seconds(HOUR_S - before).saturating_sub(took));
        }
        longest
    }
}
