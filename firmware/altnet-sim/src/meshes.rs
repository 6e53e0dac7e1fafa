//! Relays that forward to each other, and homes of which each reaches some of them.

use std::net::{Ipv6Addr, SocketAddr};

use altnet_core::mesh::LinkState;
use altnet_core::node::Config;
use altnet_wire::address::site_prefix;
use altnet_wire::id::{NodeId, SiteId};
use altnet_wire::record::Roles;

use crate::chaos::relay_v4;
use crate::founder::{FOUNDED, Founder};
use crate::homes::{entry, invited, join, seconds};
use crate::nat::Kind;
use crate::packet;
use crate::world::{HostId, PORT, World};

/// A network of relays and two homes behind NATs, through which no direct path leads unless told otherwise.
pub struct Meshes {
    /// Where they are.
    pub world: World,
    /// The relays; the first is directory too.
    pub relays: Vec<HostId>,
    /// The gateways. House B has a machine called `wiki`.
    pub homes: [HostId; 2],
    founder: Founder,
    sent: u32,
}

/// The public address of a home's NAT.
fn home_v4(side: usize) -> String {
    format!("198.51.100.{}", side + 1)
}

impl Meshes {
    /// Makes the network; home A then reaches the relays in `reaches[0]` alone, home B those in
    /// `reaches[1]`. The same seed gives the same run.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn new(seed: u64, relays: u8, reaches: [&[u8]; 2]) -> Self {
        Self::with_relays(seed, relays, reaches, |_, _| {})
    }

    /// The same, with relays that are set up so.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn with_relays(
        seed: u64,
        relays: u8,
        reaches: [&[u8]; 2],
        set_up: impl Fn(u8, &mut Config),
    ) -> Self {
        let nats = [Kind::SYMMETRIC_RANDOM; 2];
        Self::with(seed, relays, reaches, nats, set_up)
    }

    /// The same, with homes behind such NATs.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn with_nats(seed: u64, relays: u8, reaches: [&[u8]; 2], nats: [Kind; 2]) -> Self {
        Self::with(seed, relays, reaches, nats, |_, _| {})
    }

    /// The same, with relays that are set up so too.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn with(
        seed: u64,
        relays: u8,
        reaches: [&[u8]; 2],
        nats: [Kind; 2],
        set_up: impl Fn(u8, &mut Config),
    ) -> Self {
        let mut world = World::new(seed);
        let mut founder = Founder::new("home", 7);
        let at = |n| SocketAddr::new(relay_v4(n).parse().expect("an address"), PORT);
        let all: Vec<HostId> = (0..relays)
            .map(|n| {
                let mut config = Config {
                    fixed_endpoints: [at(n)].into_iter().collect(),
                    ..Config::router(FOUNDED)
                };
                set_up(n, &mut config);
                let host = world.host_with(&relay_v4(n), None, config);
                let bundle = match n {
                    0 => founder.relay_bundle(at(0)),
                    _ => {
                        let name = format!("relay-{n}");
                        invited(founder.invite(&name, Roles::RELAY, None, entry()))
                    }
                };
                join(&mut world, host, bundle);
                host
            })
            .collect();
        let homes = [0, 1].map(|side| {
            let nat = world.nat(nats[side], &home_v4(side));
            let host = world.host("192.168.1.2", Some(nat));
            let (name, site) = [("house-a", 1), ("house-b", 2)][side];
            let link = founder.invite(name, Roles::GATEWAY, Some(site), entry());
            join(&mut world, host, invited(link));
            host
        });
        let wiki = founder.host("wiki", 2, 0x80);
        world
            .with(all[0], |node, now| node.publish(&wiki, now))
            .expect("a directory takes the owner's records");
        world.run(seconds(15));
        let mut meshes = Self {
            world,
            relays: all,
            homes,
            founder,
            sent: 0,
        };
        for (side, reached) in reaches.into_iter().enumerate() {
            for n in (0..relays).filter(|n| !reached.contains(n)) {
                meshes.cut_home(side, n, true);
            }
        }
        // Registrations that nobody renews end.
        meshes.world.run(seconds(120));
        meshes
    }

    /// Whether a home's way to the other is a direct one.
    pub fn is_direct(&self, side: usize) -> bool {
        let other = ["house-b", "house-a"][side];
        let peers = self
            .world
            .node(self.homes[side])
            .peer_views(self.world.now());
        let peer = peers.iter().find(|peer| peer.name == other);
        peer.is_some_and(|peer| peer.path == "direct")
    }

    /// Lets both homes talk, at most so long, until both ways are direct. How long that took.
    pub fn meet(&mut self, most_s: u64) -> Option<core::time::Duration> {
        let began = self.world.now();
        let end = began.after(seconds(most_s));
        while self.world.now() < end {
            self.ask(1);
            self.world.run(core::time::Duration::from_millis(100));
            if self.is_direct(0) && self.is_direct(1) {
                return Some(self.world.now().saturating_since(began));
            }
        }
        None
    }

    /// Lets nothing pass between a home and a relay, or lets it pass again.
    pub fn cut_home(&mut self, side: usize, relay: u8, on: bool) {
        self.world.block(&home_v4(side), &relay_v4(relay), on);
    }

    /// Lets nothing pass between two relays, or lets it pass again.
    pub fn cut_link(&mut self, a: u8, b: u8, on: bool) {
        self.world.block(&relay_v4(a), &relay_v4(b), on);
    }

    /// A relay's id.
    ///
    /// # Panics
    /// If it is no member.
    pub fn id(&self, relay: u8) -> NodeId {
        let host = self.relays[usize::from(relay)];
        let status = self.world.node(host).status(self.world.now());
        let address = status.network.expect("a member").address;
        NodeId(
            address
                .parse::<Ipv6Addr>()
                .expect("a node's address")
                .octets(),
        )
    }

    /// What a relay knows of its link to another.
    ///
    /// # Panics
    /// If there is none.
    pub fn link(&self, relay: u8, to: u8) -> LinkState {
        let to = self.id(to);
        let mut links = self.world.node(self.relays[usize::from(relay)]).mesh();
        links
            .find(|link| link.relay == to)
            .expect("relays of one mesh")
    }

    /// An address in a site.
    fn lan(&self, site: u16, host: u64) -> Ipv6Addr {
        let network = self.founder.registry.network();
        let prefix = site_prefix(&network, SiteId::new(site).expect("a test's site id"));
        (u128::from(prefix.address()) | u128::from(host)).into()
    }

    /// Has house A ask and house B answer, as long as it takes. Returns how long that was; none if
    /// it took longer than `tries` seconds.
    pub fn ask(&mut self, tries: usize) -> Option<core::time::Duration> {
        let (a, b) = ((self.lan(1, 0x11), 4000), (self.lan(2, 0x80), 80));
        self.sent += 1;
        let question = packet::udp(a, b, &self.sent.to_be_bytes());
        let answer = packet::udp(b, a, &self.sent.to_be_bytes());
        let since = self.world.now();
        let [home_a, home_b] = self.homes;
        for _ in 0..tries {
            let _ = self.world.send(home_a, &question);
            let came = self.world.run_for(seconds(1), |world| {
                if world.delivered(home_b).contains(&question) {
                    let _ = world.send(home_b, &answer);
                }
                world.delivered(home_a).contains(&answer)
            });
            if came {
                return Some(self.world.now().saturating_since(since));
            }
        }
        None
    }

    /// How things are, for a test that fails.
    pub fn story(&mut self) -> String {
        let mut story = String::new();
        for host in self.relays.iter().chain(&self.homes) {
            story += &self.world.story(*host);
            if self.world.is_on(*host) {
                for link in self.world.node(*host).mesh() {
                    story += &format!("  {link:?}\n");
                }
            }
        }
        story
    }
}

/// Packets that one home sends, and how many came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Packets sent.
    pub sent: usize,
    /// Packets that arrived at the other home.
    pub came: usize,
}

impl Meshes {
    /// The number of the relay by which a home sends to the other.
    ///
    /// # Panics
    /// If it doesn't send by a relay.
    pub fn relay_in_use(&self, side: usize) -> u8 {
        let other = ["house-b", "house-a"][side];
        let now = self.world.now();
        let peers = self.world.node(self.homes[side]).peer_views(now);
        let peer = peers.iter().find(|peer| peer.name == other);
        let endpoint = peer.and_then(|peer| peer.endpoint.clone());
        let endpoint = endpoint.unwrap_or_default();
        let mut numbers = 0..u8::try_from(self.relays.len()).expect("few relays");
        let used = numbers.find(|n| endpoint.ends_with(&self.id(*n).to_string()));
        used.unwrap_or_else(|| panic!("{endpoint} is no relay"))
    }

    /// Has both homes send each other packets for so long: one of so many bytes as often as `every` says, home
    /// A's flow first. Of the two only what is sent after `from` is counted.
    pub fn flows(
        &mut self,
        time: core::time::Duration,
        from: core::time::Duration,
        flows: [(usize, core::time::Duration); 2],
    ) -> [Flow; 2] {
        let ends = [(self.lan(1, 0x11), 4000), (self.lan(2, 0x80), 80)];
        let begun = self.world.now();
        let mut next = [begun; 2];
        let mut counts = [Flow::default(); 2];
        let mut is_counted = [std::collections::BTreeSet::new(), Default::default()];
        let (end, counted) = (begun.after(time), begun.after(from));
        while self.world.now() < end.after(seconds(1)) {
            let now = self.world.now();
            for (side, (bytes, every)) in flows.into_iter().enumerate() {
                while next[side] <= now && now < end {
                    next[side] = next[side].after(every);
                    self.sent += 1;
                    let mut payload = self.sent.to_be_bytes().to_vec();
                    payload.resize(bytes, 0);
                    let packet = packet::udp(ends[side], ends[1 - side], &payload);
                    // A node that finds no way says so, and the packet is lost.
                    let _ = self.world.send(self.homes[side], &packet);
                    if now >= counted {
                        counts[side].sent += 1;
                        is_counted[side].insert(self.sent);
                    }
                }
            }
            self.world.run(core::time::Duration::from_millis(1));
            for side in [0, 1] {
                for packet in self.world.delivered(self.homes[1 - side]) {
                    let number = packet::payload(&packet).first_chunk::<4>();
                    let number = number.map(|bytes| u32::from_be_bytes(*bytes));
                    if number.is_some_and(|number| is_counted[side].remove(&number)) {
                        counts[side].came += 1;
                    }
                }
            }
        }
        counts
    }
}
