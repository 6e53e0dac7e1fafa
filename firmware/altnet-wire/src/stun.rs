//! STUN messages (RFC 8489), with what TURN adds to them (RFC 8656).
//!
//! In: a datagram, or the buffer that one is written to. Out: a [`Message`] whose attributes are
//! read where they lie, or the bytes of one ([`write::Writer`]). Nothing is copied and nothing is
//! believed: whether a message is from whom it says is for [`Message::is_signed_with`] to tell.
//!
//! ```text
//! 00 method and class, 14 bits | length u16 | cookie 2112a442 | transaction id 12
//! attribute: kind u16 | length u16 | value | up to 3 bytes that end it at a multiple of 4
//! ```
//! Numbers are big-endian. The length counts what follows the header.
//!
//! Deliberately absent: the classic STUN of RFC 3489 (no cookie), retransmission, and credentials,
//! which are the caller's.

pub mod attribute;
pub mod carry;
pub mod channel;
mod crc32;
pub mod integrity;
pub mod stream;
pub mod write;

use attribute::{
    Attribute, Attributes, ErrorCode, FINGERPRINT, MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256,
};
use core::net::SocketAddr;

/// What every message has at offset 4 (section 5).
pub const COOKIE: u32 = 0x2112_a442;
/// Bytes before the first attribute.
pub const HEADER_BYTES: usize = 20;
/// Bytes of a transaction's id.
pub const TRANSACTION_ID_BYTES: usize = 12;
/// The most attributes a message is read with. The longest one that a server or client of TURN
/// writes has about ten.
pub const MAX_ATTRIBUTES: usize = 32;

/// What ties an answer to its request; unguessable, so that nobody who doesn't see the request
/// can answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; TRANSACTION_ID_BYTES]);

/// What a message is about: 12 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Method(u16);

impl Method {
    /// What is my address? (RFC 8489)
    pub const BINDING: Self = Self(1);
    /// Relay for me. (RFC 8656, as are those below.)
    pub const ALLOCATE: Self = Self(3);
    /// Go on relaying for me, or stop.
    pub const REFRESH: Self = Self(4);
    /// Send this to a peer.
    pub const SEND: Self = Self(6);
    /// This came from a peer.
    pub const DATA: Self = Self(7);
    /// Let what comes from a peer through.
    pub const CREATE_PERMISSION: Self = Self(8);
    /// Let a number stand for a peer.
    pub const CHANNEL_BIND: Self = Self(9);

    /// The method's number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Which part a message plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It wants an answer.
    Request,
    /// It wants none.
    Indication,
    /// What was asked for.
    Success,
    /// Why not.
    Error,
}

/// Not a STUN message, or one that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadStun {
    /// Its first bits or its cookie say that it is something else.
    #[error("not a STUN message")]
    NotStun,
    /// The header's length isn't that of what follows, or no multiple of 4.
    #[error("a STUN message of {found} bytes after the header says {said}")]
    Length {
        /// What the header says.
        said: usize,
        /// What follows it.
        found: usize,
    },
    /// An attribute ends after the message does.
    #[error("a STUN attribute is cut off")]
    Attribute,
    /// More attributes than [`MAX_ATTRIBUTES`].
    #[error("a STUN message has more than {MAX_ATTRIBUTES} attributes")]
    TooMany,
    /// Something follows the fingerprint, which is to be last (section 14.7).
    #[error("a STUN message goes on after its fingerprint")]
    AfterFingerprint,
}

/// A message, read where it lies.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    class: Class,
    method: Method,
    transaction: TransactionId,
    bytes: &'a [u8],
    /// Where the attributes that count end: what follows an integrity check isn't covered by it
    /// and is passed over (sections 14.5 and 14.6).
    end: usize,
    sha1: Option<Attribute<'a>>,
    sha256: Option<Attribute<'a>>,
    fingerprint: Option<Attribute<'a>>,
}

impl<'a> Message<'a> {
    /// Whether the first bytes say that this is STUN. Such a datagram may still be a bad one.
    pub fn is_stun(datagram: &[u8]) -> bool {
        match datagram.first_chunk::<8>() {
            Some([first, _, _, _, cookie @ ..]) => *first < 0x40 && *cookie == COOKIE.to_be_bytes(),
            None => false,
        }
    }

    /// Reads the message that `bytes` is, whole.
    ///
    /// # Errors
    /// [`BadStun`] if it isn't one, or its lengths don't fit.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BadStun> {
        if !Self::is_stun(bytes) {
            return Err(BadStun::NotStun);
        }
        let (header, rest) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(BadStun::NotStun)?;
        let [t0, t1, l0, l1, _, _, _, _, transaction @ ..] = *header;
        let said = usize::from(u16::from_be_bytes([l0, l1]));
        let found = rest.len();
        if said != found || !found.is_multiple_of(4) {
            return Err(BadStun::Length { said, found });
        }
        let (class, method) = split_type(u16::from_be_bytes([t0, t1]));
        let mut message = Self {
            class,
            method,
            transaction: TransactionId(transaction),
            bytes,
            end: bytes.len(),
            sha1: None,
            sha256: None,
            fingerprint: None,
        };
        message.find_checks()?;
        Ok(message)
    }

    /// Walks all attributes once, so that whoever reads them later need not check anything.
    fn find_checks(&mut self) -> Result<(), BadStun> {
        let mut at = HEADER_BYTES;
        let mut count = 0;
        while at < self.bytes.len() {
            let attribute = Attribute::read(self.bytes, at).ok_or(BadStun::Attribute)?;
            count += 1;
            if count > MAX_ATTRIBUTES {
                return Err(BadStun::TooMany);
            }
            if self.fingerprint.is_some() {
                return Err(BadStun::AfterFingerprint);
            }
            match attribute.kind {
                FINGERPRINT => {
                    self.fingerprint = Some(attribute);
                    self.end = self.end.min(at);
                }
                MESSAGE_INTEGRITY if self.sha1.is_none() && self.sha256.is_none() => {
                    self.sha1 = Some(attribute);
                    self.end = self.end.min(at);
                }
                MESSAGE_INTEGRITY_SHA256 if self.sha256.is_none() => {
                    self.sha256 = Some(attribute);
                    self.end = self.end.min(at);
                }
                _ => {}
            }
            at = attribute.next();
        }
        Ok(())
    }

    /// The part it plays.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// What it is about.
    pub const fn method(&self) -> Method {
        self.method
    }

    /// Its transaction.
    pub const fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// All of it.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Its attributes in order: those that its integrity check covers, if it has one; the checks
    /// themselves are not among them.
    pub fn attributes(&self) -> Attributes<'a> {
        let covered = self.bytes.get(..self.end).unwrap_or(self.bytes);
        Attributes::new(covered, HEADER_BYTES)
    }

    /// The first attribute of `kind`; more of it don't count (section 14).
    pub fn find(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().find(|attribute| attribute.kind == kind)
    }

    /// An address that is written plainly, such as `MAPPED-ADDRESS`.
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        self.find(kind)?.address()
    }

    /// An address under the cookie, such as `XOR-MAPPED-ADDRESS`.
    pub fn xor_address(&self, kind: u16) -> Option<SocketAddr> {
        self.find(kind)?.xor_address(&self.transaction)
    }

    /// A 32-bit number, such as `LIFETIME`.
    pub fn number(&self, kind: u16) -> Option<u32> {
        self.find(kind)?.number()
    }

    /// Why not, if it says so.
    pub fn error(&self) -> Option<ErrorCode<'a>> {
        self.find(attribute::ERROR_CODE)?.error()
    }

    /// Kinds of attributes that must be understood to understand the message (below 0x8000) and
    /// that are not among `known`.
    pub fn unknown_required(
        &self,
        known: &'static [u16],
    ) -> impl Iterator<Item = u16> + Clone + 'a {
        self.attributes()
            .map(|attribute| attribute.kind)
            .filter(|kind| *kind < 0x8000 && !known.contains(kind))
    }
}

/// Takes the 14 bits of a type apart: the class's two stand among the method's twelve
/// (section 5, figure 3).
const fn split_type(bits: u16) -> (Class, Method) {
    let class = match (bits & 0x0100 != 0, bits & 0x0010 != 0) {
        (false, false) => Class::Request,
        (false, true) => Class::Indication,
        (true, false) => Class::Success,
        (true, true) => Class::Error,
    };
    let method = (bits & 0x000f) | ((bits & 0x00e0) >> 1) | ((bits & 0x3e00) >> 2);
    (class, Method(method))
}

/// The other way round.
const fn join_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0,
        Class::Indication => 0x0010,
        Class::Success => 0x0100,
        Class::Error => 0x0110,
    };
    let method = method.0;
    (method & 0x000f) | ((method & 0x0070) << 1) | ((method & 0x0f80) << 2) | class
}

#[cfg(test)]
mod tests;
