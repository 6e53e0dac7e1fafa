//! Two homes and a relay, provisioned: where most stories begin.

use core::net::{Ipv6Addr, SocketAddr};

use altnet_core::invite::{Bundle, Link};
use altnet_core::node::{Command, Config, Event, JoinError, Stored};
use altnet_wire::address::site_prefix;
use altnet_wire::id::{MemberId, Name, SiteId};
use altnet_wire::record::Roles;
use altnet_wire::time::Duration;

use crate::founder::{FOUNDED, Founder};
use crate::nat::Kind;
use crate::packet;
use crate::world::{HostId, NatId, PORT, World};

/// The relay's address.
pub const RELAY: &str = "203.0.113.10";
/// The public address of house A's NAT.
pub const HOUSE_A: &str = "198.51.100.1";
/// The public address of house B's NAT.
pub const HOUSE_B: &str = "198.51.100.2";

/// A relay that is directory and countersigner too, and two gateways behind NATs. House B has
/// a machine called `wiki`.
pub struct Homes {
    /// Where they are.
    pub world: World,
    /// Whose they are.
    pub founder: Founder,
    /// The relay, directory and countersigner.
    pub relay: HostId,
    /// The gateway of site 1.
    pub a: HostId,
    /// The gateway of site 2.
    pub b: HostId,
    /// House A's NAT.
    pub nat_a: NatId,
    /// House B's NAT.
    pub nat_b: NatId,
}

/// So many seconds.
pub const fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Where the relay listens.
pub fn entry() -> SocketAddr {
    SocketAddr::new(RELAY.parse().expect("an address"), PORT)
}

/// A bundle with nothing but a link.
pub fn invited(link: Link) -> Bundle {
    Bundle {
        link: Some(link),
        ..Default::default()
    }
}

/// Has a host join, and waits until it is a member.
///
/// # Panics
/// If it isn't after half a minute.
pub fn join(world: &mut World, host: HostId, bundle: Bundle) {
    join_as(world, host, bundle, None);
}

/// Has a host join that would like to be called so, and waits until it is a member.
///
/// # Panics
/// If it isn't after half a minute.
pub fn join_as(world: &mut World, host: HostId, bundle: Bundle, name: Option<&str>) {
    let bundle = Box::new(bundle);
    let name = name.map(|name| Name::new(name).expect("a test's name is a DNS label"));
    world.command(host, Command::Join { bundle, name });
    let joined = world.run_for(seconds(30), |world| is_member(world, host));
    assert!(joined, "{:?}", world.told(host));
}

/// Has a host try to join, and waits until it is told that it could not.
///
/// # Panics
/// If it is let in, or nothing is said for two minutes.
pub fn join_fails(world: &mut World, host: HostId, bundle: Bundle) -> JoinError {
    world.told(host);
    let bundle = Box::new(bundle);
    let begun = world.with(host, |node, now| {
        node.handle_command(Command::Join { bundle, name: None }, now)
    });
    if let Err(altnet_core::node::CommandError::Join(why)) = begun {
        return why;
    }
    let mut told = Vec::new();
    world.run_for(seconds(120), |world| {
        told.extend(world.told(host));
        told.iter().any(|e| matches!(e, Event::JoinFailed { .. }))
    });
    assert!(!is_member(world, host), "{told:?}");
    let why = told.iter().find_map(|event| match event {
        Event::JoinFailed { why } => Some(*why),
        _ => None,
    });
    why.unwrap_or_else(|| panic!("nothing was said: {told:?}"))
}

/// The names of the slots in which two disks differ.
pub fn differences(before: &Stored, after: &Stored) -> Vec<String> {
    let slots = before.keys().chain(after.keys());
    let mut names: Vec<String> = slots
        .filter(|slot| before.get(*slot) != after.get(*slot))
        .cloned()
        .collect();
    names.dedup();
    names
}

/// Whether a host's node is a member.
pub fn is_member(world: &World, host: HostId) -> bool {
    world.is_on(host) && world.node(host).status(world.now()).state == "member"
}

impl Homes {
    /// Makes the network and lets everybody join. The same seed gives the same run.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn new(seed: u64, nat_a: Kind, nat_b: Kind) -> Self {
        Self::build(seed, [nat_a, nat_b], Self::usual(), false)
    }

    /// The same, with gateways of this configuration.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn with(seed: u64, nats: [Kind; 2], config: Config) -> Self {
        Self::build(seed, nats, config, false)
    }

    /// The same where no UDP leaves either home from the start, and the relay serves streams.
    ///
    /// # Panics
    /// If somebody is not let in.
    pub fn without_udp(seed: u64) -> Self {
        Self::build(seed, [Kind::PORT_RESTRICTED; 2], Self::usual(), true)
    }

    fn usual() -> Config {
        Config {
            has_login_page: true,
            ..Config::router(FOUNDED)
        }
    }

    fn build(seed: u64, [nat_a, nat_b]: [Kind; 2], config: Config, is_dark: bool) -> Self {
        let mut world = World::new(seed);
        if is_dark {
            world.serve_streams();
        }
        let mut founder = Founder::new("home", 7);
        let relay = world.host(RELAY, None);
        let bundle = founder.relay_bundle(entry());
        join(&mut world, relay, bundle);
        let nat_a = world.nat(nat_a, HOUSE_A);
        let nat_b = world.nat(nat_b, HOUSE_B);
        let a = world.host_with("192.168.1.2", Some(nat_a), config.clone());
        let b = world.host_with("192.168.1.2", Some(nat_b), config);
        for (host, name, site) in [(a, "house-a", 1), (b, "house-b", 2)] {
            world.block_udp(host, is_dark);
            let roles = Roles::GATEWAY | Roles::APPS;
            let link = founder.invite(name, roles, Some(site), entry());
            join(&mut world, host, invited(link));
        }
        let mut homes = Self {
            world,
            founder,
            relay,
            a,
            b,
            nat_a,
            nat_b,
        };
        homes.publish_host("wiki", 2, 0x80);
        homes
    }

    /// Names a machine, and waits until both gateways know.
    ///
    /// # Panics
    /// If they don't within half a minute.
    pub fn publish_host(&mut self, name: &str, site: u16, host: u64) {
        let record = self.founder.host(name, site, host);
        self.publish(&record);
        let label = Name::new(name).expect("a test's name is a DNS label");
        let known = |world: &World, host| {
            let registry = world.node(host).registry();
            registry.is_some_and(|registry| registry.host(&label).is_some())
        };
        let (a, b) = (self.a, self.b);
        let done = self
            .world
            .run_for(seconds(30), |world| known(world, a) && known(world, b));
        assert!(done, "{name}: {}", self.story());
    }

    /// Hands the directory a record that the owner signed.
    ///
    /// # Panics
    /// If it refuses it.
    pub fn publish(&mut self, record: &[u8]) {
        let relay = self.relay;
        self.world
            .with(relay, |node, now| node.publish(record, now))
            .expect("a directory takes the owner's records");
    }

    /// The member that is called so, as the relay knows.
    ///
    /// # Panics
    /// If there is none.
    pub fn member(&self, name: &str) -> MemberId {
        let registry = self.world.node(self.relay).registry().expect("a member");
        let name = Name::new(name).expect("a test's name is a DNS label");
        let member = registry.by_name(&name).expect("a member of that name");
        member.membership.member
    }

    /// How things are, for a test that fails.
    pub fn story(&mut self) -> String {
        let mut story = String::new();
        for host in [self.relay, self.a, self.b] {
            story += &self.world.story(host);
            if self.world.is_on(host) {
                for record in self.world.node(host).record_views() {
                    story += &format!("  {} {} {}\n", record.kind, record.serial, record.text);
                }
            }
        }
        story
    }

    /// The address of a machine in a site.
    pub fn lan(&self, site: u16, host: u64) -> Ipv6Addr {
        let network = self.founder.registry.network();
        let prefix = site_prefix(&network, SiteId::new(site).expect("a test's site id"));
        (u128::from(prefix.address()) | u128::from(host)).into()
    }

    /// Sends from a laptop in house A to the wiki, up to five times. Whether it came.
    pub fn reaches(&mut self, text: &str) -> bool {
        self.reaches_from(self.a, (1, 0x11), self.b, (2, 0x80), text)
    }

    /// Sends from a machine in one site to one in another, up to five times. Whether it came.
    pub fn reaches_from(
        &mut self,
        sender: HostId,
        from: (u16, u64),
        receiver: HostId,
        to: (u16, u64),
        text: &str,
    ) -> bool {
        let (from, to) = (self.lan(from.0, from.1), self.lan(to.0, to.1));
        let packet = packet::udp((from, 4000), (to, 80), text.as_bytes());
        for _ in 0..5 {
            let _ = self.world.send(sender, &packet);
            let came = self.world.run_for(seconds(2), |world| {
                world
                    .delivered(receiver)
                    .iter()
                    .any(|p| packet::payload(p) == text.as_bytes())
            });
            if came {
                return true;
            }
        }
        false
    }

    /// House A's path to house B, and why.
    pub fn path(&self) -> (&'static str, &'static str) {
        let peers = self.world.node(self.a).peer_views(self.world.now());
        let peer = peers.iter().find(|peer| peer.name == "house-b");
        peer.map_or(("none", "unknown"), |peer| (peer.path, peer.why))
    }

    /// Whether house A's path to house B becomes this one while packets flow.
    pub fn path_becomes(&mut self, path: &str) -> bool {
        for _ in 0..30 {
            if self.path().0 == path {
                return true;
            }
            self.reaches("on the way");
            self.world.run(seconds(1));
        }
        false
    }
}
