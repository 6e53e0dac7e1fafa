//! What the file means on a board: nothing is left out, nothing contradicts another, and every name is somebody's.
//!
//! A [`House`] comes from [`Router::resolve`](crate::config::Router::resolve) alone.

mod air;
mod firewall;
mod hosts;
mod networks;
mod ports;
mod resolve;
mod wans;
mod wifi;
mod wrong;
mod zones;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::config::{
    Action, Addresses, Connection, Domain, Ipv6, Label, Mac, Name, Ntp, Offload, PortRange, Pppoe,
    Probes, Protocol, Reach, Service, Sqm, Static4, Wifi,
};

pub(crate) use air::covered;
pub use firewall::{MAX_FORWARDS, MAX_RULES, MAX_SHIFTED};
pub use hosts::MAX_HOSTS;
pub use networks::{LENT_SUFFIXES, MAX_NETWORKS, OWN_SUFFIX};
pub(crate) use ports::vlan_interface;
pub(crate) use wans::is_line;
pub use wans::{MAX_WANS, PPPOE_MTU_BYTES};
pub(crate) use wifi::is_passphrase;
pub use wifi::{MAX_RADIOS, MAX_SSIDS};
pub use wrong::{Key, Mistakes, Wrong, Wrongs};
pub use zones::MAX_ZONES;

/// How much of a radio's name is before the number of an SSID that isn't its first, in bytes.
const MAX_BSS_BYTES: usize = 13;

/// altnetd, on the same machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Altnet {
    /// The UDP port of tunnels: the only one that answers on a WAN.
    pub listen_port: u16,
    /// Its TUN device.
    pub tun: String,
    /// Where it answers questions.
    pub socket: PathBuf,
}

impl Default for Altnet {
    fn default() -> Self {
        Self {
            listen_port: 51820,
            tun: "altnet0".into(),
            socket: "/run/altnet/altnet.sock".into(),
        }
    }
}

/// A checked file, on a board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct House {
    pub(crate) altnet: Altnet,
    pub(crate) wans: Vec<Wan>,
    pub(crate) networks: Vec<Network>,
    pub(crate) zones: BTreeMap<Name, Zone>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) forwards: Vec<Forward>,
    pub(crate) pinholes: Vec<Pinhole>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) radios: Vec<Radio>,
    /// The networks on which machines may open ports.
    pub(crate) upnp: Vec<Name>,
    pub(crate) offload: Offload,
    pub(crate) ntp: Ntp,
}

/// A way to the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wan {
    /// Its name.
    pub name: Name,
    /// The port.
    pub port: String,
    /// The interface on which the provider is: the port, or a VLAN of it.
    pub line: String,
    /// The interface that has the addresses: `line`, or the PPP interface over it.
    pub interface: String,
    /// The VLAN.
    pub vlan: Option<u16>,
    /// The MAC address that the provider sees, where it isn't the port's own.
    pub mac: Option<Mac>,
    /// The MTU that was written, in bytes.
    pub mtu_bytes: Option<u16>,
    /// How addresses are got, and what that takes.
    pub way: Way,
    /// How IPv6 is got.
    pub ipv6: Ipv6,
    /// The length of the prefix to ask for.
    pub prefix_hint: u8,
    /// Resolvers instead of the provider's.
    pub resolvers: Vec<IpAddr>,
    /// How it is found out that it works.
    pub probes: Probes,
    /// Fair sharing of the line.
    pub sqm: Option<Sqm>,
}

/// How addresses are got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By DHCP, under a name.
    Dhcp(Option<Label>),
    /// They are known; without an IPv4 address there is IPv6 alone.
    Static(Option<Static4>),
    /// By PPP over Ethernet.
    Pppoe(Pppoe),
}

impl Way {
    /// What the file calls it.
    pub fn connection(&self) -> Connection {
        match self {
            Self::Dhcp(_) => Connection::Dhcp,
            Self::Static(_) => Connection::Static,
            Self::Pppoe(_) => Connection::Pppoe,
        }
    }
}

/// A network of the house.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: Name,
    /// `br-` and its name.
    pub bridge: String,
    /// The zone it is in.
    pub zone: Name,
    /// What is plugged into the bridge without tags.
    pub ports: Vec<String>,
    /// What is plugged into it by a VLAN, and the VLAN's id.
    pub tagged: Vec<(String, u16)>,
    /// The box's own address.
    pub ipv4: Ipv4Net,
    /// Whether there is IPv6.
    pub ipv6: bool,
    /// Which subnet of a delegated prefix it is.
    pub subnet: u16,
    /// An IPv6 address of the box that is always there.
    pub address6: Option<Ipv6Net>,
    /// The range that is given out by DHCP.
    pub dhcp: Option<Range>,
    /// Whether IPv6 addresses are lent.
    pub dhcp6: bool,
    /// How long addresses are lent, in seconds.
    pub lease_s: u32,
    /// Resolvers that are named instead of the box.
    pub resolvers: Vec<Ipv4Addr>,
    /// Time servers that are named instead of the box.
    pub ntp: Vec<Ipv4Addr>,
    /// Whether machines are kept from each other.
    pub isolated: bool,
    /// The domain that machines are told to be in.
    pub domain: Option<Domain>,
}

/// Addresses from one to another, both of them in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
}

/// Networks for which the same holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Zones to which it may open connections.
    pub to: Vec<Name>,
    /// What of the box it may use.
    pub services: Vec<Service>,
    /// Whether its networks reach each other.
    pub within: bool,
    /// Whether altnetd judges what passes between them and its device.
    pub private: bool,
    /// Its interfaces: bridges, or those of the WANs.
    pub interfaces: Vec<String>,
}

/// A machine that has a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: Label,
    /// Its MAC address.
    pub mac: Mac,
    /// Its network.
    pub network: Name,
    /// The IPv4 address that it always gets.
    pub ipv4: Option<Ipv4Addr>,
    /// The lower half of the IPv6 address that it always gets.
    pub suffix: Option<u64>,
}

/// IPv4 ports of the WAN that lead to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The WANs' interfaces.
    pub wans: Vec<String>,
    /// Which protocol.
    pub protocol: Protocol,
    /// The ports on the WAN.
    pub ports: PortRange,
    /// The machine.
    pub to: Ipv4Addr,
    /// Its bridge, and the address of its network.
    pub bridge: String,
    /// The network that the machine is on.
    pub subnet: Ipv4Net,
    /// The machine's ports: as many.
    pub to_ports: PortRange,
    /// From where; empty for anywhere.
    pub from: Vec<Ipv4Net>,
    /// Whether it works from inside too.
    pub hairpin: bool,
}

/// A machine that is reached from the WAN over IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pinhole {
    /// The bridge it is on.
    pub bridge: String,
    /// The lower half of its address.
    pub suffix: u64,
    /// Which protocol.
    pub protocol: Protocol,
    /// Its ports; empty for all.
    pub ports: Vec<PortRange>,
    /// From where; empty for anywhere.
    pub from: Vec<Ipv6Net>,
}

/// What is let through or refused beside what zones say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The zone from which.
    pub from: Name,
    /// Where it leads.
    pub to: Reach,
    /// Which protocol.
    pub protocol: Protocol,
    /// Ports at which a connection is opened; empty for all.
    pub ports: Vec<PortRange>,
    /// From where; empty for anywhere. With `destination` of the same families.
    pub source: Vec<Addresses>,
    /// To where; empty for anywhere.
    pub destination: Vec<Addresses>,
    /// What happens.
    pub action: Action,
}

/// A radio, with what it is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Radio {
    /// Its interface.
    pub interface: String,
    /// The channel.
    pub channel: u8,
    /// What the file says, of which every SSID names its network.
    pub wifi: Wifi,
    /// The bridges of the SSIDs, and whether machines on each are kept from each other.
    pub bridges: Vec<(String, bool)>,
}

impl Wan {
    /// The IPv4 address that the file says it has.
    pub fn address4(&self) -> Option<Ipv4Net> {
        match &self.way {
            Way::Static(fixed) => fixed.as_ref().map(|fixed| fixed.address),
            Way::Dhcp(_) | Way::Pppoe(_) => None,
        }
    }

    /// The interface by way of which what comes in is queued, if it is.
    pub fn ingress(&self) -> Option<String> {
        let queued = self.sqm.is_some_and(|sqm| sqm.download_kbit > 0);
        queued.then(|| format!("ifb-{}", self.name))
    }
}

impl Radio {
    /// The interface of the SSID at this place: the radio's own for the first.
    pub fn bss(&self, place: usize) -> String {
        match place {
            0 => self.interface.clone(),
            _ => {
                // Of USB radios the end tells them apart. Names of interfaces are ASCII.
                let too_long = self.interface.len().saturating_sub(MAX_BSS_BYTES);
                format!(
                    "{}-{place}",
                    self.interface.get(too_long..).unwrap_or(&self.interface)
                )
            }
        }
    }
}

impl House {
    /// The ways to the internet, the preferred one first.
    pub fn wans(&self) -> &[Wan] {
        &self.wans
    }

    /// The networks of the house.
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// Whether a network is of the private network.
    pub fn is_private(&self, network: &Network) -> bool {
        self.zones
            .get(&network.zone)
            .is_some_and(|zone| zone.private)
    }

    /// The files that passwords are in.
    pub fn password_files(&self) -> Vec<&Path> {
        let pppoe = self.wans.iter().filter_map(|wan| match &wan.way {
            Way::Pppoe(pppoe) => pppoe.password_file.as_deref(),
            Way::Dhcp(_) | Way::Static(_) => None,
        });
        let ssids = self.radios.iter().flat_map(|radio| &radio.wifi.ssid);
        pppoe
            .chain(ssids.filter_map(|ssid| ssid.password_file.as_deref()))
            .collect()
    }
}
