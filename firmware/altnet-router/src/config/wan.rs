//! `[[router.wan]]`: a way to the internet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnet::{Ipv4Net, Ipv6Net};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::words::{Label, Mac, Name, Port, Secret, net4, net6, some_net6};

/// `[[router.wan]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Wan {
    /// Its name.
    pub name: Name,
    /// The port that the provider's line is plugged into.
    pub interface: Port,
    /// The VLAN in which the provider is, 1 to 4094.
    pub vlan: Option<u16>,
    /// The MAC address that the provider is to see.
    pub mac: Option<Mac>,
    /// The MTU in bytes, 576 to 9000. Without one what the port has: 1500, with PPPoE 1492.
    pub mtu_bytes: Option<u16>,
    /// How addresses are got.
    pub connection: Connection,
    /// With `connection = "dhcp"`: the name by which the provider knows this box.
    pub hostname: Option<Label>,
    /// With `connection = "static"`: the IPv4 address and gateway.
    pub ipv4: Option<Static4>,
    /// How IPv6 is got.
    pub ipv6: Ipv6,
    /// The length of the IPv6 prefix to ask for, 48 to 64. A provider may give another.
    pub prefix_hint: u8,
    /// With `connection = "pppoe"`: who this house is at the provider.
    pub pppoe: Option<Pppoe>,
    /// Resolvers instead of those that the provider names.
    pub resolvers: Vec<IpAddr>,
    /// How it is found out that this WAN works, where there is more than one.
    pub probes: Probes,
    /// Fair sharing of the line.
    pub sqm: Option<Sqm>,
}

/// How addresses are got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Connection {
    /// From the provider, by DHCP.
    #[default]
    Dhcp,
    /// They are written here.
    Static,
    /// From the provider, after a login by PPP over Ethernet (RFC 2516).
    Pppoe,
}

/// An IPv4 address that is always the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Static4 {
    /// The address, with its network's prefix length.
    #[serde(deserialize_with = "net4::deserialize")]
    pub address: Ipv4Net,
    /// The provider's router.
    pub gateway: Ipv4Addr,
}

/// How IPv6 is got: `"auto"`, `"off"` or `{ address = "...", gateway = "..." }`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// By router advertisements and DHCPv6, with a prefix for the house (RFC 9915).
    #[default]
    Auto,
    /// Not at all.
    Off,
    /// It is written here.
    #[serde(untagged)]
    Static(Static6),
}

/// An IPv6 address that is always the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Static6 {
    /// The address, with its network's prefix length.
    #[serde(deserialize_with = "net6::deserialize")]
    pub address: Ipv6Net,
    /// The provider's router; often `fe80::1`.
    pub gateway: Ipv6Addr,
    /// The prefix that the provider routes to this house, 48 to 64 bits long.
    #[serde(default, deserialize_with = "some_net6")]
    pub prefix: Option<Ipv6Net>,
}

impl<'de> Deserialize<'de> for Ipv6 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Ipv6;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "\"auto\", \"off\" or { address = \"2001:db8::2/64\", gateway = \"fe80::1\" }",
                )
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ipv6, E> {
                match text {
                    "auto" => Ok(Ipv6::Auto),
                    "off" => Ok(Ipv6::Off),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Ipv6, A::Error> {
                Static6::deserialize(MapAccessDeserializer::new(map)).map(Ipv6::Static)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `[router.wan.pppoe]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pppoe {
    /// The name that the provider gave, often with an `@`.
    pub username: String,
    /// The password. The file is to be unreadable for others then.
    #[serde(default)]
    pub password: Option<Secret>,
    /// A file that holds the password, in its first line.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// The service to ask for, where a provider has more than one.
    #[serde(default)]
    pub service: Option<String>,
    /// The access concentrator to ask, where there is more than one.
    #[serde(default)]
    pub concentrator: Option<String>,
}

/// `[router.wan.probes]`: places on the internet that answer to pings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probes {
    /// Their addresses. A WAN works while one of them answers. Empty: while its link is up.
    pub targets: Vec<IpAddr>,
    /// How often they are asked, in seconds, 1 to 3600.
    pub interval_s: u16,
    /// How many times in a row nobody has to answer before the WAN counts as down, 1 to 100; and half of it, rounded up, how
    /// many times somebody has to before it counts as up.
    pub failures: u8,
}

/// `[router.wan.sqm]`: the queue is kept here, where it is short and fair, and not in the provider's modem (cake).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sqm {
    /// What comes down the line, in kilobits a second; a little less than what is measured. 0 leaves it as it is.
    pub download_kbit: u32,
    /// What goes up the line, in kilobits a second. 0 leaves it as it is.
    pub upload_kbit: u32,
    /// What kind of line it is, by which a packet's true size is known.
    #[serde(default)]
    pub line: LinkLayer,
    /// Bytes that the line adds to each packet, -64 to 256, where it is known better than by its kind.
    #[serde(default)]
    pub overhead_bytes: Option<i16>,
}

/// Kinds of lines, as tc-cake(8) names what they add.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkLayer {
    /// Ethernet, also over fibre.
    #[default]
    Ethernet,
    /// A cable's DOCSIS.
    Docsis,
    /// VDSL2, or ADSL without ATM.
    Vdsl,
    /// ADSL over ATM cells.
    Adsl,
}

impl Default for Wan {
    fn default() -> Self {
        Self {
            name: "wan".parse().expect("it is a name"),
            interface: Port::Wan,
            vlan: None,
            mac: None,
            mtu_bytes: None,
            connection: Connection::default(),
            hostname: None,
            ipv4: None,
            ipv6: Ipv6::default(),
            prefix_hint: 56,
            pppoe: None,
            resolvers: Vec::new(),
            probes: Probes::default(),
            sqm: None,
        }
    }
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            interval_s: 5,
            failures: 3,
        }
    }
}
