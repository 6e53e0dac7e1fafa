//! Writing a message, attribute by attribute, into a buffer that was there before.
//!
//! The header's length is right after every step, so a message may end anywhere. Attributes are
//! filled up with zeros (RFC 8489 section 14).

use core::net::SocketAddr;

use super::attribute::{
    self, ATTRIBUTE_HEADER_BYTES, ERROR_CODE, FINGERPRINT, MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256, masked_value,
};
use super::integrity::{self, Covered, Integrity};
use super::{COOKIE, Class, HEADER_BYTES, Method, TransactionId, join_type};
use crate::frame::NoRoom;

/// A message under construction.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
    transaction: TransactionId,
}

impl<'a> Writer<'a> {
    /// Begins a message.
    ///
    /// # Errors
    /// [`NoRoom`] if `out` hasn't room for the header.
    pub fn new(
        out: &'a mut [u8],
        class: Class,
        method: Method,
        transaction: TransactionId,
    ) -> Result<Self, NoRoom> {
        let needed = NoRoom {
            needed: HEADER_BYTES,
        };
        let header = out.first_chunk_mut::<HEADER_BYTES>().ok_or(needed)?;
        *header = header_bytes(class, method, 0, &transaction);
        Ok(Self {
            out,
            length: HEADER_BYTES,
            transaction,
        })
    }

    /// How many bytes the message has.
    pub const fn len(&self) -> usize {
        self.length
    }

    /// Whether it has none: never, the header is there.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The message as it stands.
    pub fn bytes(&self) -> &[u8] {
        self.out.get(..self.length).unwrap_or_default()
    }

    /// Adds an attribute.
    ///
    /// # Errors
    /// [`NoRoom`], as all that follow.
    pub fn put(&mut self, kind: u16, value: &[u8]) -> Result<&mut Self, NoRoom> {
        self.put_chained(kind, value.len(), value.iter().copied())
    }

    /// Adds an attribute with an address, plainly.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_address(&mut self, kind: u16, address: SocketAddr) -> Result<&mut Self, NoRoom> {
        let (value, length) = masked_value(address, 0, &TransactionId([0; 12]));
        self.put(kind, value.get(..length).unwrap_or_default())
    }

    /// Adds an attribute with an address under the cookie.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_xor_address(&mut self, kind: u16, address: SocketAddr) -> Result<&mut Self, NoRoom> {
        let (value, length) = masked_value(address, COOKIE, &self.transaction);
        self.put(kind, value.get(..length).unwrap_or_default())
    }

    /// Adds an attribute with a 32-bit number.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_number(&mut self, kind: u16, number: u32) -> Result<&mut Self, NoRoom> {
        self.put(kind, &number.to_be_bytes())
    }

    /// Says why not. `code` is 300 to 699.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_error(&mut self, code: u16, reason: &str) -> Result<&mut Self, NoRoom> {
        let class = u8::try_from(code / 100).unwrap_or(0) & 7;
        let number = u8::try_from(code % 100).unwrap_or(0);
        let value = [0, 0, class, number].into_iter().chain(reason.bytes());
        self.put_chained(ERROR_CODE, 4 + reason.len(), value)
    }

    /// Says what wasn't understood.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_unknown(
        &mut self,
        kinds: impl Iterator<Item = u16> + Clone,
    ) -> Result<&mut Self, NoRoom> {
        let length = 2 * kinds.clone().count();
        let value = kinds.flat_map(u16::to_be_bytes);
        self.put_chained(attribute::UNKNOWN_ATTRIBUTES, length, value)
    }

    /// Signs what stands there.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn sign(&mut self, by: Integrity, key: &[u8]) -> Result<&mut Self, NoRoom> {
        let covered = Covered::new(self.out, self.length, by.bytes());
        let failed = NoRoom { needed: by.bytes() };
        match by {
            Integrity::Sha1 => {
                let mac = integrity::sha1(key, &covered).ok_or(failed)?;
                self.put(MESSAGE_INTEGRITY, &mac)
            }
            Integrity::Sha256 => {
                let mac = integrity::sha256(key, &covered).ok_or(failed)?;
                self.put(MESSAGE_INTEGRITY_SHA256, &mac)
            }
        }
    }

    /// Adds the fingerprint; nothing may follow it.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn put_fingerprint(&mut self) -> Result<&mut Self, NoRoom> {
        let covered = Covered::new(self.out, self.length, integrity::FINGERPRINT_BYTES);
        let sum = integrity::fingerprint(&covered);
        self.put_number(FINGERPRINT, sum)
    }

    fn put_chained(
        &mut self,
        kind: u16,
        length: usize,
        value: impl Iterator<Item = u8>,
    ) -> Result<&mut Self, NoRoom> {
        let padded = length.next_multiple_of(4);
        let needed = NoRoom {
            needed: ATTRIBUTE_HEADER_BYTES + padded,
        };
        let end = self.length + needed.needed;
        let said = u16::try_from(length).map_err(|_| needed)?;
        let total = u16::try_from(end - HEADER_BYTES).map_err(|_| needed)?;
        let out = self.out.get_mut(self.length..end).ok_or(needed)?;
        let header = kind.to_be_bytes().into_iter().chain(said.to_be_bytes());
        let bytes = header.chain(value.take(length));
        for (out, byte) in out.iter_mut().zip(bytes.chain(core::iter::repeat(0))) {
            *out = byte;
        }
        if let Some(field) = self.out.get_mut(2..4) {
            field.copy_from_slice(&total.to_be_bytes());
        }
        self.length = end;
        Ok(self)
    }
}

/// A header for `length` bytes of attributes.
pub(super) fn header_bytes(
    class: Class,
    method: Method,
    length: u16,
    transaction: &TransactionId,
) -> [u8; HEADER_BYTES] {
    let [t0, t1] = join_type(class, method).to_be_bytes();
    let [l0, l1] = length.to_be_bytes();
    let [c0, c1, c2, c3] = COOKIE.to_be_bytes();
    let mut header = [0; HEADER_BYTES];
    let front = [t0, t1, l0, l1, c0, c1, c2, c3];
    for (out, byte) in header
        .iter_mut()
        .zip(front.into_iter().chain(transaction.0))
    {
        *out = byte;
    }
    header
}
