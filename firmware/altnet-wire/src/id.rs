//! Names of things: newtypes, so that no two can be swapped by accident.

use core::fmt;
use core::net::Ipv6Addr;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::hash::{self, Hash};

macro_rules! bytes_newtype {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            /// Writes lower-case unpadded base32 (RFC 4648).
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                base32_fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = BadText;

            /// Reads what `Display` writes; upper case is taken too.
            fn from_str(text: &str) -> Result<Self, BadText> {
                let mut bytes = [0; $len];
                base32_parse(text, &mut bytes)?;
                Ok(Self(bytes))
            }
        }
    };
}

bytes_newtype!(
    /// A network: the hash of its signed genesis (see [`network_id`]).
    NetworkId,
    32
);
bytes_newtype!(
    /// An Ed25519 public key that signs records: owner, recovery, issuer, device, app or invite.
    SigningKey,
    32
);
bytes_newtype!(
    /// An X25519 public key of Noise control sessions.
    ControlKey,
    32
);
bytes_newtype!(
    /// An X25519 public key of WireGuard sessions.
    TunnelKey,
    32
);
bytes_newtype!(
    /// A member, stable across its devices' keys. Chosen at random by the issuer.
    MemberId,
    16
);
bytes_newtype!(
    /// A record: the hash of its envelope's bytes.
    RecordId,
    32
);

/// A node within its network, as relays see it: the octets of the node's own address,
/// which is derived from its device key ([`crate::address::node_address`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The node's own address.
    pub fn address(self) -> Ipv6Addr {
        Ipv6Addr::from(self.0)
    }
}

impl From<Ipv6Addr> for NodeId {
    fn from(address: Ipv6Addr) -> Self {
        Self(address.octets())
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({self})")
    }
}

/// A site: one LAN of the network, 0 to 32767. Its /64 is [`crate::address::site_prefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct SiteId(u16);

impl SiteId {
    /// The largest site id: the top bit of a subnet id is the node and app addresses'.
    pub const MAX: u16 = 0x7fff;

    /// Makes a site id, or nothing if it is past [`SiteId::MAX`].
    pub const fn new(id: u16) -> Option<Self> {
        if id <= Self::MAX {
            Some(Self(id))
        } else {
            None
        }
    }

    /// The number.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for SiteId {
    type Error = BadText;
    fn try_from(id: u16) -> Result<Self, BadText> {
        Self::new(id).ok_or(BadText::Range)
    }
}

impl From<SiteId> for u16 {
    fn from(site: SiteId) -> u16 {
        site.0
    }
}

impl fmt::Display for SiteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A record's place in the order of records about the same thing; a larger one is newer.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Serial(pub u64);

impl Serial {
    /// The next serial, saturating.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The longest [`Name`] in bytes: a DNS label (RFC 1035 section 2.3.4).
pub const NAME_BYTES: usize = 63;

/// A name that can be a DNS label: 1 to 63 of `a-z`, `0-9` and inner `-` (RFC 1123 section 2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(
    try_from = "heapless::String<NAME_BYTES>",
    into = "heapless::String<NAME_BYTES>"
)]
pub struct Name(heapless::String<NAME_BYTES>);

impl Name {
    /// Checks `text` and keeps it.
    ///
    /// # Errors
    /// [`BadText::Name`] if it is empty, longer than [`NAME_BYTES`], has a byte outside
    /// `a-z 0-9 -`, or begins or ends with `-`.
    pub fn new(text: &str) -> Result<Self, BadText> {
        let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || !text.bytes().all(ok) || text.starts_with('-') || text.ends_with('-')
        {
            return Err(BadText::Name);
        }
        heapless::String::try_from(text)
            .map(Self)
            .map_err(|_| BadText::Name)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<heapless::String<NAME_BYTES>> for Name {
    type Error = BadText;
    fn try_from(text: heapless::String<NAME_BYTES>) -> Result<Self, BadText> {
        Self::new(&text)
    }
}

impl From<Name> for heapless::String<NAME_BYTES> {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl FromStr for Name {
    type Err = BadText;
    fn from_str(text: &str) -> Result<Self, BadText> {
        Self::new(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name({})", self.0)
    }
}

/// Text that doesn't say what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadText {
    /// Not a DNS label.
    #[error("a name has 1 to 63 of a-z, 0-9 and '-', and neither begins nor ends with '-'")]
    Name,
    /// Not base32, or not of the right length.
    #[error("not a base32 text of {expected} bytes")]
    Base32 {
        /// The bytes that the text should hold.
        expected: usize,
    },
    /// A number past its limit.
    #[error("a site id is 0 to 32767")]
    Range,
}

/// The id of the network that `genesis`, the whole bytes of a signed genesis envelope, founds.
pub fn network_id(genesis: &[u8]) -> NetworkId {
    NetworkId(hash::labelled("altnet network id v1", &[genesis]))
}

/// The id of the record whose envelope has the bytes `envelope`.
pub fn record_id(envelope: &[u8]) -> RecordId {
    RecordId(hash::labelled("altnet record id v1", &[envelope]))
}

impl From<Hash> for NetworkId {
    fn from(hash: Hash) -> Self {
        Self(hash)
    }
}

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Writes `bytes` as lower-case unpadded base32 (RFC 4648 section 6).
pub fn base32_fmt(bytes: &[u8], f: &mut impl fmt::Write) -> fmt::Result {
    for chunk in bytes.chunks(5) {
        let mut group = [0u8; 8];
        for (to, from) in group.iter_mut().skip(3).zip(chunk) {
            *to = *from;
        }
        let bits = u64::from_be_bytes(group);
        let symbols = (chunk.len() * 8).div_ceil(5);
        for i in 0..symbols {
            let symbol = (bits >> (35 - 5 * i)) & 31;
            f.write_char(char::from(BASE32[symbol as usize]))?;
        }
    }
    Ok(())
}

/// Reads unpadded base32 of exactly `bytes.len()` bytes, in either case.
///
/// # Errors
/// [`BadText::Base32`] on another length, another symbol, or non-zero bits after the end.
pub fn base32_parse(text: &str, bytes: &mut [u8]) -> Result<(), BadText> {
    let bad = BadText::Base32 {
        expected: bytes.len(),
    };
    if text.len() != (bytes.len() * 8).div_ceil(5) {
        return Err(bad);
    }
    let (mut bits, mut held) = (0u32, 0u32);
    let mut out = bytes.iter_mut();
    for symbol in text.bytes() {
        let symbol = symbol.to_ascii_lowercase();
        let value = BASE32.iter().position(|b| *b == symbol).ok_or(bad)?;
        bits = (bits << 5) | value as u32;
        held += 5;
        if held >= 8 {
            held -= 8;
            *out.next().ok_or(bad)? = (bits >> held) as u8;
            bits &= (1 << held) - 1;
        }
    }
    if bits != 0 { Err(bad) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    #[test]
    fn base32_follows_rfc_4648() {
        let check = |bytes: &[u8], text: &str| {
            let mut out = String::new();
            base32_fmt(bytes, &mut out).unwrap();
            assert_eq!(out, text);
            let mut back = std::vec![0; bytes.len()];
            base32_parse(&text.to_uppercase(), &mut back).unwrap();
            assert_eq!(back, bytes);
        };
        check(b"", "");
        check(b"f", "my");
        check(b"fo", "mzxq");
        check(b"foo", "mzxw6");
        check(b"foob", "mzxw6yq");
        check(b"fooba", "mzxw6ytb");
        check(b"foobar", "mzxw6ytboi");
        assert!(base32_parse("mz", &mut [0]).is_err());
        assert!(base32_parse("m1", &mut [0]).is_err());
    }

    #[test]
    fn a_name_is_a_dns_label() {
        for good in ["a", "wiki", "a-b", "0", &"x".repeat(63)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert_eq!(Name::new(bad), Err(BadText::Name), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn an_id_reads_back_what_it_writes(bytes: [u8; 32]) {
            let id = NetworkId(bytes);
            prop_assert_eq!(id.to_string().parse::<NetworkId>(), Ok(id));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<MemberId>();
        }
    }
}
