//! What there has to be for a house: links, addresses, routes, rules, and other people's daemons with their files.
//!
//! In: a checked house and what the world said. Out: data, in an order in which it can be made. The same inputs give
//! the same plan. Who carries it out compares it with what is, changes the difference, and leaves alone what was never
//! a plan's.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Serialize;

use crate::config::{Mac, Secret};
use crate::house::House;
use crate::{ruleset, services};

mod links;
mod queues;
mod routes;
mod world;

pub(crate) use links::session_mtu;
pub use routes::own_address;
pub use world::{Delegated, Leased, Passwords, Places, Stale, WanState, World};

/// The mark of routes that are a plan's: their protocol number (`rtm_protocol`), which nobody else's has.
pub const ROUTE_PROTOCOL: u8 = 177;
/// The first and the last priority of rules of the routing policy that are a plan's.
pub const RULE_PRIORITIES: std::ops::RangeInclusive<u32> = 11000..=11999;
/// The table of the first WAN; the second has the next.
pub const FIRST_TABLE: u32 = 1100;
/// The main table.
pub const MAIN_TABLE: u32 = 254;

/// What there has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Interfaces, in the order to make them: what another needs comes before it.
    pub links: Vec<Link>,
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Rules of the routing policy, by priority.
    pub rules: Vec<PolicyRule>,
    /// Settings of the kernel, in order: the path below `/proc/sys`, and the text. One that isn't there is left until it
    /// is: that of an interface that isn't made yet, or of a module that isn't loaded.
    pub sysctls: Vec<(String, String)>,
    /// What `nft -f -` is given: the whole of the table `inet altnet_router`, as one transaction.
    pub ruleset: String,
    /// Queues.
    pub queues: Vec<Queue>,
    /// Other people's daemons.
    pub children: Vec<Child>,
    /// What the box itself asks, and altnetd: the lines of `resolv.conf`.
    pub resolvers: Vec<IpAddr>,
    /// The WAN that is preferred now, and those behind it: the names of those that work, in order.
    pub working: Vec<String>,
    /// What couldn't be planned and why, for people.
    pub troubles: Vec<String>,
}

impl Plan {
    /// What there has to be for `house`, as the world is.
    pub fn new(house: &House, world: &World, places: &Places) -> Self {
        let mut troubles = Vec::new();
        let lines = routes::lines(house, world);
        let links = links::links(house);
        let works = lines.iter().filter(|line| line.works);
        let working: Vec<String> = works.map(|line| line.wan.name.to_string()).collect();
        Self {
            addresses: routes::addresses(house, world, &lines, &mut troubles),
            routes: routes::routes(&lines),
            rules: routes::rules(&lines),
            sysctls: links::sysctls(house, &links),
            links,
            ruleset: ruleset::render(house, world),
            queues: queues::queues(house),
            children: services::children(house, world, places, &working, &mut troubles),
            resolvers: services::resolvers(house, world, &working),
            working,
            troubles,
        }
    }
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// The bridge that it is plugged into.
    pub bridge: Option<String>,
    /// Its MAC address, where it isn't its own.
    pub mac: Option<Mac>,
    /// Its MTU in bytes, where it isn't its own.
    pub mtu_bytes: Option<u32>,
    /// As a port of a bridge: whether it is kept from the bridge's other isolated ports.
    pub isolated: bool,
    /// Whose the addresses on it are.
    pub addressing: Addressing,
}

/// What an interface is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// Of the board: it is there or not, and isn't made.
    Device,
    /// A bridge without spanning tree.
    Bridge,
    /// A VLAN of another interface.
    Vlan {
        /// Of which.
        parent: String,
        /// Its id.
        id: u16,
    },
    /// Where what comes in is queued.
    Ifb,
    /// Of the board, and a radio: it is set up and the rest is hostapd's, which waits for that.
    Radio,
    /// Made by a child (pppd, hostapd); it isn't made by who carries out the plan, nor taken down.
    Childs,
}

/// Whose the addresses on an interface are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// The plan's: what isn't in it and was put there by a plan before goes.
    Plan,
    /// A child's (dhcpcd, pppd): they are let be.
    Child,
    /// There are none, and there is no IPv6 on it.
    None,
}

/// An address of the box.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Address {
    /// On which interface.
    pub link: String,
    /// The address, with its network's prefix length.
    pub net: IpNet,
    /// Until when it is one, in seconds since boot. None: for ever.
    pub valid_until_s: Option<u64>,
    /// Until when it is preferred. What is past makes it deprecated, which RA then say.
    pub preferred_until_s: Option<u64>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Route {
    /// In which table.
    pub table: u32,
    /// To where; of length 0 for the default.
    pub destination: IpNet,
    /// Where it leads.
    pub to: RouteTo,
    /// The smaller is preferred.
    pub metric: u32,
    /// The address that the box itself sends from.
    pub source: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteTo {
    /// A router on a link. It counts as there, whether or not an address of the link is in its network.
    Via {
        /// The link.
        link: String,
        /// The router.
        gateway: IpAddr,
    },
    /// A link, on which everything is there.
    Link(String),
    /// Nowhere, and the sender is told so.
    Unreachable,
}

/// A rule of the routing policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PolicyRule {
    /// Which comes first. Within [`RULE_PRIORITIES`].
    pub priority: u32,
    /// The family, 4 or 6.
    pub family: u8,
    /// For what is sent from here.
    pub from: Option<IpNet>,
    /// For packets with this mark, under this mask.
    pub mark: Option<(u32, u32)>,
    /// The table to look in.
    pub table: u32,
    /// Routes whose prefix is this long or shorter don't count: 0 leaves out the default.
    pub suppress_prefix_length: Option<u8>,
}

/// A queue at an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// What goes out of here; for what comes in, the interface it is sent round by.
    pub link: String,
    /// For what comes in: the interface at which it does, from which all of it is sent to `link`.
    pub ingress_of: Option<String>,
    /// In kilobits a second.
    pub rate_kbit: u32,
    /// How many bytes the line adds to each packet, from what the kernel counts.
    pub overhead_bytes: i16,
    /// The smallest that the line sends, in bytes; 0 for no such thing.
    pub smallest_bytes: u16,
    /// Whether the line carries ATM's cells.
    pub atm: bool,
    /// Whether addresses behind NAT are told apart.
    pub nat: bool,
}

/// Other people's daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Child {
    /// Which it is, as `dhcpcd-wan`.
    pub name: String,
    /// The program, to be looked up.
    pub program: String,
    /// What it is given.
    pub arguments: Vec<String>,
    /// Its files, to be written before it starts. When one or the arguments change, it is started again.
    pub files: Vec<ChildFile>,
    /// The interfaces that have to be there and up before it starts.
    pub needs: Vec<String>,
}

/// A file of a child's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildFile {
    /// Where.
    pub path: PathBuf,
    /// Its mode: 0600, or 0700 of a script.
    pub mode: u32,
    /// What is in it; it may hold a password.
    pub content: Secret,
}
