//! `[[router.network]]` and `[[router.host]]`: the networks of the house and machines on them.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::words::{Domain, Label, Mac, Name, Port, some_net4, some_net6};

/// `[[router.network]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its name; its bridge is `br-` and the name.
    pub name: Name,
    /// The zone it is in. Without one the zone of its own name if there is such a one, else `lan`.
    #[serde(default)]
    pub zone: Option<Name>,
    /// The ports that are this network, without tags. None written and no `tagged`: for the first network `port:lan`.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// The ports on which this network is a tagged VLAN, beside what else they carry.
    #[serde(default)]
    pub tagged: Vec<Port>,
    /// That VLAN's id, 1 to 4094.
    #[serde(default)]
    pub vlan: Option<u16>,
    /// The box's own IPv4 address, with the prefix length. Without one `192.168.77.1/24` for the first network,
    /// `192.168.78.1/24` for the second and so on.
    #[serde(default, deserialize_with = "some_net4")]
    pub ipv4: Option<Ipv4Net>,
    /// Whether there is IPv6: the box has an address of each prefix that a provider delegates, and advertises it.
    #[serde(default = "yes")]
    pub ipv6: bool,
    /// Which subnet of a delegated prefix this is. Without one, the network's place in the file, from 0.
    #[serde(default)]
    pub subnet: Option<u16>,
    /// An IPv6 address of the box that is always there, with the prefix length 64.
    #[serde(default, deserialize_with = "some_net6")]
    pub address6: Option<Ipv6Net>,
    /// DHCP.
    #[serde(default)]
    pub dhcp: Dhcp,
    /// Whether machines on different ports, and on Wi-Fi, are kept from each other.
    #[serde(default)]
    pub isolated: bool,
    /// The domain that machines are told to be in.
    #[serde(default)]
    pub domain: Option<Domain>,
}

/// `[router.network.dhcp]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dhcp {
    /// Whether IPv4 addresses are given out.
    pub enabled: bool,
    /// The first address of the range. Without one the hundredth of the network, or the first after the box's in a small one.
    pub first: Option<Ipv4Addr>,
    /// The last address of the range. Without one 150 after the first, as far as the network goes.
    pub last: Option<Ipv4Addr>,
    /// How long an address is lent, in seconds, 120 to 2592000.
    pub lease_s: u32,
    /// Resolvers that are named instead of the box.
    pub resolvers: Vec<Ipv4Addr>,
    /// Time servers that are named instead of the box.
    pub ntp: Vec<Ipv4Addr>,
    /// Whether IPv6 addresses are lent too, beside those that machines make themselves.
    pub ipv6: bool,
}

/// `[[router.host]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its name.
    pub name: Label,
    /// Its MAC address.
    pub mac: Mac,
    /// The network it is on. Without one that in which its IPv4 address is, else the first.
    #[serde(default)]
    pub network: Option<Name>,
    /// The IPv4 address that it always gets.
    #[serde(default)]
    pub ipv4: Option<Ipv4Addr>,
    /// The lower half of the IPv6 address that it always gets, as `::10`.
    #[serde(default)]
    pub suffix: Option<Ipv6Addr>,
}

fn yes() -> bool {
    true
}

impl Network {
    /// One of which nothing is written but its name.
    pub fn new(name: Name) -> Self {
        Self {
            name,
            zone: None,
            ports: Vec::new(),
            tagged: Vec::new(),
            vlan: None,
            ipv4: None,
            ipv6: true,
            subnet: None,
            address6: None,
            dhcp: Dhcp::default(),
            isolated: false,
            domain: None,
        }
    }
}

impl Default for Dhcp {
    fn default() -> Self {
        Self {
            enabled: true,
            first: None,
            last: None,
            lease_s: 43200,
            resolvers: Vec::new(),
            ntp: Vec::new(),
            ipv6: true,
        }
    }
}
