//! What a message says: attributes and what their values mean.
//!
//! In: an attribute's value. Out: an address, a number, a reason, or `None` if the value has
//! another shape. Which attributes a message needs is for whoever reads it to say.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{COOKIE, TransactionId};

/// The address a request came from, plainly. Some NATs rewrite it.
pub const MAPPED_ADDRESS: u16 = 0x0001;
/// Who asks.
pub const USERNAME: u16 = 0x0006;
/// HMAC-SHA1 of what stands before.
pub const MESSAGE_INTEGRITY: u16 = 0x0008;
/// Why not.
pub const ERROR_CODE: u16 = 0x0009;
/// What was not understood.
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
/// The number that stands for a peer. (RFC 8656)
pub const CHANNEL_NUMBER: u16 = 0x000c;
/// How many seconds an allocation lasts. (RFC 8656)
pub const LIFETIME: u16 = 0x000d;
/// A peer. (RFC 8656)
pub const XOR_PEER_ADDRESS: u16 = 0x0012;
/// What a peer sent or is sent. (RFC 8656)
pub const DATA: u16 = 0x0013;
/// Whose users may ask.
pub const REALM: u16 = 0x0014;
/// What a request has to repeat.
pub const NONCE: u16 = 0x0015;
/// Where the server relays. (RFC 8656)
pub const XOR_RELAYED_ADDRESS: u16 = 0x0016;
/// IPv4 or IPv6. (RFC 8656)
pub const REQUESTED_ADDRESS_FAMILY: u16 = 0x0017;
/// An even port, and perhaps the next. (RFC 8656)
pub const EVEN_PORT: u16 = 0x0018;
/// By what protocol to relay. (RFC 8656)
pub const REQUESTED_TRANSPORT: u16 = 0x0019;
/// Set the DF bit. (RFC 8656)
pub const DONT_FRAGMENT: u16 = 0x001a;
/// HMAC-SHA256 of what stands before.
pub const MESSAGE_INTEGRITY_SHA256: u16 = 0x001c;
/// By what hash the key was made.
pub const PASSWORD_ALGORITHM: u16 = 0x001d;
/// Who asks, hashed.
pub const USERHASH: u16 = 0x001e;
/// The address a request came from, under the cookie.
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// A port that was kept. (RFC 8656)
pub const RESERVATION_TOKEN: u16 = 0x0022;
/// Nothing, to make a message larger. (RFC 5780)
pub const PADDING: u16 = 0x0026;
/// By what hashes a key may be made.
pub const PASSWORD_ALGORITHMS: u16 = 0x8002;
/// What program this is.
pub const SOFTWARE: u16 = 0x8022;
/// Ask there.
pub const ALTERNATE_SERVER: u16 = 0x8023;
/// CRC-32 of what stands before.
pub const FINGERPRINT: u16 = 0x8028;

/// Bytes before an attribute's value.
pub const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The longest `REALM`, `NONCE` or `SOFTWARE` (sections 14.9, 14.10 and 14.14).
pub const MAX_TEXT_BYTES: usize = 763;
/// The longest `USERNAME` (section 14.3).
pub const MAX_USERNAME_BYTES: usize = 508;
/// `REQUESTED-TRANSPORT` for UDP: its protocol number (RFC 8656 section 18.7).
pub const TRANSPORT_UDP: u8 = 17;
/// Bytes of an address's value: IPv4.
pub const V4_BYTES: usize = 8;
/// Bytes of an address's value: IPv6.
pub const V6_BYTES: usize = 20;

/// Addresses' families (section 14.1).
pub const FAMILY_V4: u8 = 1;
/// See [`FAMILY_V4`].
pub const FAMILY_V6: u8 = 2;

/// The request is malformed.
pub const BAD_REQUEST: u16 = 400;
/// The request isn't signed by somebody who may ask.
pub const UNAUTHENTICATED: u16 = 401;
/// Something that has to be understood wasn't.
pub const UNKNOWN_ATTRIBUTE: u16 = 420;
/// The nonce is too old.
pub const STALE_NONCE: u16 = 438;

/// One attribute and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// What it is.
    pub kind: u16,
    /// What it says, without what fills it up.
    pub value: &'a [u8],
    /// Where it begins in the message, in bytes.
    pub at: usize,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// For people; nothing is decided by it. Empty if it isn't UTF-8.
    pub reason: &'a str,
}

impl<'a> Attribute<'a> {
    /// Reads the attribute that begins at `at` in `message`.
    pub(super) fn read(message: &'a [u8], at: usize) -> Option<Self> {
        let (header, rest) = message
            .get(at..)?
            .split_first_chunk::<ATTRIBUTE_HEADER_BYTES>()?;
        let [k0, k1, l0, l1] = *header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let value = rest.get(..length)?;
        rest.get(..length.next_multiple_of(4))?;
        let kind = u16::from_be_bytes([k0, k1]);
        Some(Self { kind, value, at })
    }

    /// Where its value begins in the message.
    pub const fn value_at(&self) -> usize {
        self.at + ATTRIBUTE_HEADER_BYTES
    }

    /// Where the next one begins.
    pub(super) const fn next(&self) -> usize {
        self.value_at() + self.value.len().next_multiple_of(4)
    }

    /// The value as an address (section 14.1).
    pub fn address(&self) -> Option<SocketAddr> {
        self.masked(0, &TransactionId([0; 12]))
    }

    /// The value as an address under the cookie and the transaction's id (section 14.2).
    pub fn xor_address(&self, transaction: &TransactionId) -> Option<SocketAddr> {
        self.masked(COOKIE, transaction)
    }

    fn masked(&self, cookie: u32, transaction: &TransactionId) -> Option<SocketAddr> {
        let (&[_, family, p0, p1], ip) = self.value.split_first_chunk::<4>()?;
        let port = u16::from_be_bytes([p0, p1]) ^ high_half(cookie);
        let ip: IpAddr = match family {
            FAMILY_V4 => {
                let bits = u32::from_be_bytes(ip.try_into().ok()?);
                Ipv4Addr::from_bits(bits ^ cookie).into()
            }
            FAMILY_V6 => {
                let bits = u128::from_be_bytes(ip.try_into().ok()?);
                Ipv6Addr::from_bits(bits ^ mask(cookie, transaction)).into()
            }
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }

    /// The value as a 32-bit number.
    pub fn number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.value.try_into().ok()?))
    }

    /// The value as text.
    pub fn text(&self) -> Option<&'a str> {
        core::str::from_utf8(self.value).ok()
    }

    /// The value as an error (section 14.8).
    pub fn error(&self) -> Option<ErrorCode<'a>> {
        let (&[_, _, class, number], reason) = self.value.split_first_chunk::<4>()?;
        let class = class & 7;
        if !(3..=6).contains(&class) || number > 99 {
            return None;
        }
        Some(ErrorCode {
            code: u16::from(class) * 100 + u16::from(number),
            reason: core::str::from_utf8(reason).unwrap_or_default(),
        })
    }

    /// The value as a list of 16-bit numbers, such as `UNKNOWN-ATTRIBUTES`.
    pub fn list(&self) -> impl Iterator<Item = u16> + use<'a> {
        let (pairs, _) = self.value.as_chunks::<2>();
        pairs.iter().map(|pair| u16::from_be_bytes(*pair))
    }
}

/// The attributes of a message, in order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    pub(super) const fn new(message: &'a [u8], at: usize) -> Self {
        Self { message, at }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let attribute = Attribute::read(self.message, self.at)?;
        self.at = attribute.next();
        Some(attribute)
    }
}

/// The value of an address: up to [`V6_BYTES`], and how many of them it has.
pub(super) fn masked_value(
    address: SocketAddr,
    cookie: u32,
    transaction: &TransactionId,
) -> ([u8; V6_BYTES], usize) {
    let mut value = [0; V6_BYTES];
    let port = address.port() ^ high_half(cookie);
    let (family, length) = match address.ip() {
        IpAddr::V4(_) => (FAMILY_V4, V4_BYTES),
        IpAddr::V6(_) => (FAMILY_V6, V6_BYTES),
    };
    let ip = match address.ip() {
        // An IPv4 address fills the four highest bytes.
        IpAddr::V4(v4) => u128::from(v4.to_bits() ^ cookie) << 96,
        IpAddr::V6(v6) => v6.to_bits() ^ mask(cookie, transaction),
    };
    let [p0, p1] = port.to_be_bytes();
    let head = [0, family, p0, p1];
    let bytes = head.into_iter().chain(ip.to_be_bytes());
    for (out, byte) in value.iter_mut().zip(bytes).take(length) {
        *out = byte;
    }
    (value, length)
}

/// What lies over an IPv6 address: the cookie, then the transaction's id.
fn mask(cookie: u32, transaction: &TransactionId) -> u128 {
    let mut low = [0; 16];
    for (out, byte) in low.iter_mut().skip(4).zip(transaction.0) {
        *out = byte;
    }
    (u128::from(cookie) << 96) | u128::from_be_bytes(low)
}

/// What lies over a port: the cookie's first two bytes.
const fn high_half(cookie: u32) -> u16 {
    let [high, low, _, _] = cookie.to_be_bytes();
    u16::from_be_bytes([high, low])
}
