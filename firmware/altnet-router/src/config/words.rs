//! What a single value has to look like, and what to write instead.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

/// The longest interface name, in bytes (`IFNAMSIZ` less its NUL).
pub const MAX_INTERFACE_BYTES: usize = 15;
/// The longest name of a WAN, a network or a zone, in bytes: with `br-` before it and a VLAN's id behind it, it is
/// still an interface name.
pub const MAX_NAME_BYTES: usize = 10;
/// The longest label of a host's name, in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// Why a text is no such value; said whole to the person who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadText(String);

/// Makes a type read from a TOML string by its `FromStr`, and written by its `Display`.
macro_rules! text {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}
pub(super) use text;

/// The name of a WAN, a network or a zone: 1 to [`MAX_NAME_BYTES`] of `a-z`, `0-9` and `-`, beginning with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
        if !begins || text.len() > MAX_NAME_BYTES || !text.bytes().all(ok) || text.ends_with('-') {
            return Err(BadText(format!(
                "{text:?} is no name here; use 1 to {MAX_NAME_BYTES} of a-z, 0-9 and -, a letter first, like \"guest\""
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text!(Name);

/// The name of a host: a label of the DNS, in lower case (RFC 1123 section 2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let edges = text.starts_with('-') || text.ends_with('-');
        if text.is_empty() || text.len() > MAX_LABEL_BYTES || edges || !text.bytes().all(ok) {
            return Err(BadText(format!(
                "{text:?} is no name for a host; use 1 to {MAX_LABEL_BYTES} of a-z, 0-9 and -, like \"printer\""
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text!(Label);

/// A domain, or a host with its domain: labels with dots between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(String);

impl Domain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Domain {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        const MAX_BYTES: usize = 253;
        if text.len() > MAX_BYTES || text.split('.').any(|label| label.parse::<Label>().is_err()) {
            return Err(BadText(format!(
                "{text:?} is no domain; write one like \"home.arpa\", in lower case and without a dot at its end"
            )));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text!(Domain);

/// A MAC address of one machine: not a group's, and not nobody's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let octet = |text: &str| {
            let is_hex = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        let mac = octets.and_then(|octets| <[u8; 6]>::try_from(octets).ok());
        match mac {
            Some(mac) if mac[0] & 1 == 0 && mac != [0; 6] => Ok(Self(mac)),
            _ => Err(BadText(format!(
                "{text:?} is no machine's MAC address; it is written like \"02:00:5e:00:53:01\", and its first octet is even"
            ))),
        }
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

text!(Mac);

/// A port of the machine, as a person writes it: by the kernel's name, or by its role on the board.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Port {
    /// `port:wan`.
    Wan,
    /// `port:lan`: all LAN ports that nothing else names.
    Lans,
    /// `port:lan1` and so on, counted from 1.
    Lan(u8),
    /// `port:radio1` and so on, counted from 1.
    Radio(u8),
    /// The kernel's name.
    Device(String),
}

impl FromStr for Port {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let Some(role) = text.strip_prefix("port:") else {
            return interface(text).map(Self::Device);
        };
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|n: &u8| *n > 0 && !text.starts_with(['0', '+']))
        };
        let role = match role {
            "wan" => Some(Self::Wan),
            "lan" => Some(Self::Lans),
            _ => match (role.strip_prefix("lan"), role.strip_prefix("radio")) {
                (Some(n), _) => number(n).map(Self::Lan),
                (_, Some(n)) => number(n).map(Self::Radio),
                _ => None,
            },
        };
        role.ok_or_else(|| {
            BadText(format!(
                "{text:?} is no port's role; write \"port:wan\", \"port:lan\", \"port:lan1\" or \"port:radio1\", or the interface's name"
            ))
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wan => f.write_str("port:wan"),
            Self::Lans => f.write_str("port:lan"),
            Self::Lan(n) => write!(f, "port:lan{n}"),
            Self::Radio(n) => write!(f, "port:radio{n}"),
            Self::Device(name) => f.write_str(name),
        }
    }
}

text!(Port);

/// An interface name that is the same in every file it is written to: what the kernel's `dev_valid_name()` takes, of
/// that what needs no quotes.
///
/// # Errors
/// [`BadText`].
pub fn interface(text: &str) -> Result<String, BadText> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let begins = text
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    if !begins || text.len() > MAX_INTERFACE_BYTES || !text.bytes().all(ok) {
        return Err(BadText(format!(
            "{text:?} is no interface; its name has 1 to {MAX_INTERFACE_BYTES} letters, digits, `-`, `_` and `.`; `ip link` shows them"
        )));
    }
    Ok(text.into())
}

/// Ports of TCP or UDP from one to another, both of them in it: `80`, `"80"` or `"8000-8010"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The first, 1 or more.
    pub first: u16,
    /// The last, not before the first.
    pub last: u16,
}

impl PortRange {
    /// Whether some port is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// How many ports it has, less one.
    pub fn span(&self) -> u16 {
        self.last - self.first
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl FromStr for PortRange {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
        match (number(first), number(last)) {
            (Some(first), Some(last)) if 1 <= first && first <= last => Ok(Self { first, last }),
            _ => Err(BadText(format!(
                "{text:?} is no port; write 443 or \"8000-8010\", 1 to 65535 and the smaller first"
            ))),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            return write!(f, "{}", self.first);
        }
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Serialize for PortRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = PortRange;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port, as 443 or \"8000-8010\"")
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<PortRange, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRange, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A password: wiped when it goes, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the place where it is needed.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(not shown)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An error must not repeat what was there instead.
        match toml::Value::deserialize(deserializer)? {
            toml::Value::String(text) => Ok(Self::new(text)),
            _ => Err(de::Error::custom("a password is written in quotes")),
        }
    }
}

/// An address with the length of its network's prefix, kept as it is written: of a network, or of a host in it.
macro_rules! cidr {
    ($read:ident, $type:ty, $example:literal) => {
        #[doc = concat!("Reads one like `", $example, "`.")]
        pub(super) mod $read {
            use super::*;

            pub fn parse<E: de::Error>(text: &str) -> Result<$type, E> {
                text.parse().map_err(|_| {
                    E::custom(format_args!(
                        "{text:?} is no address with a prefix length; write one like \"{}\"",
                        $example
                    ))
                })
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                parse(&String::deserialize(from)?)
            }
        }
    };
}

cidr!(net4, ipnet::Ipv4Net, "192.168.77.1/24");
cidr!(net6, ipnet::Ipv6Net, "2001:db8:77::1/64");

/// Reads an optional `192.168.77.1/24`.
pub(super) fn some_net4<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<ipnet::Ipv4Net>, D::Error> {
    net4::deserialize(from).map(Some)
}

/// Reads an optional `2001:db8:77::1/64`.
pub(super) fn some_net6<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<ipnet::Ipv6Net>, D::Error> {
    net6::deserialize(from).map(Some)
}

/// Addresses that a rule is about: an address alone, or a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses(pub ipnet::IpNet);

impl FromStr for Addresses {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        let alone = text
            .parse()
            .ok()
            .map(|address: std::net::IpAddr| address.into());
        let net: Option<ipnet::IpNet> = alone.or_else(|| text.parse().ok());
        match net {
            Some(net) if net.addr() == net.network() => Ok(Self(net)),
            Some(net) => Err(BadText(format!(
                "{text:?} is a host and a network at once; write \"{}\" or \"{}\"",
                net.addr(),
                net.trunc()
            ))),
            None => Err(BadText(format!(
                "{text:?} is no address; write \"192.0.2.5\", \"192.0.2.0/24\" or \"2001:db8::/32\""
            ))),
        }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            return write!(f, "{}", self.0.addr());
        }
        write!(f, "{}", self.0)
    }
}

text!(Addresses);
