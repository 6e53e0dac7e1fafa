//! What shows that a message is from somebody who has the key, and that it is STUN at all.
//!
//! Each check covers what stands before it, with a header that says the message ends behind the
//! check (RFC 8489 sections 14.5 to 14.7). Comparing takes the same time whatever is compared.
//!
//! SHA-1 is what nearly every TURN server asks for still; as a MAC it isn't broken.

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::Sha256;

use super::attribute::{ATTRIBUTE_HEADER_BYTES, Attribute};
use super::crc32::Crc32;
use super::{HEADER_BYTES, Message};

/// Bytes of HMAC-SHA1.
pub const SHA1_BYTES: usize = 20;
/// Bytes of HMAC-SHA256.
pub const SHA256_BYTES: usize = 32;
/// HMAC-SHA256 may be cut to no less than this (section 14.6).
const SHORTEST_SHA256: usize = 16;
/// Bytes of a fingerprint.
pub const FINGERPRINT_BYTES: usize = 4;
/// What the CRC is masked with: "STUN" (section 14.7).
const FINGERPRINT_MASK: u32 = 0x5354_554e;

/// By which hash a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// `MESSAGE-INTEGRITY`.
    Sha1,
    /// `MESSAGE-INTEGRITY-SHA256`.
    Sha256,
}

impl Integrity {
    /// Bytes of the check's value.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha1 => SHA1_BYTES,
            Self::Sha256 => SHA256_BYTES,
        }
    }
}

impl Message<'_> {
    /// By which hash the message is signed, if it is; by the stronger one if by both.
    pub const fn signed_by(&self) -> Option<Integrity> {
        match (self.sha256, self.sha1) {
            (Some(_), _) => Some(Integrity::Sha256),
            (None, Some(_)) => Some(Integrity::Sha1),
            (None, None) => None,
        }
    }

    /// Whether the message is signed by this hash with `key`. A message that isn't signed so is
    /// not.
    pub fn is_signed_with(&self, by: Integrity, key: &[u8]) -> bool {
        match by {
            Integrity::Sha1 => self.sha1.is_some_and(|check| {
                let mac = hmac::<Hmac<Sha1>>(key, &self.covered(&check));
                mac.is_some_and(|mac| mac.verify_slice(check.value).is_ok())
            }),
            Integrity::Sha256 => self.sha256.is_some_and(|check| {
                let mac = hmac::<Hmac<Sha256>>(key, &self.covered(&check));
                let length = check.value.len();
                let may = length >= SHORTEST_SHA256 && length.is_multiple_of(4);
                may && mac.is_some_and(|mac| mac.verify_truncated_left(check.value).is_ok())
            }),
        }
    }

    /// Whether there is a fingerprint and it is right; `None` if there is none.
    pub fn fingerprint(&self) -> Option<bool> {
        let check = self.fingerprint?;
        let expected = fingerprint(&self.covered(&check)).to_be_bytes();
        Some(check.value == expected)
    }

    fn covered(&self, check: &Attribute<'_>) -> Covered<'_> {
        Covered::new(self.bytes, check.at, check.value.len())
    }
}

/// What a check covers: the header with another length in it, and the attributes before.
pub(super) struct Covered<'a> {
    kind: [u8; 2],
    length: [u8; 2],
    rest: &'a [u8],
}

impl<'a> Covered<'a> {
    /// Of `message`, for a check of `length` bytes whose attribute begins at `at`.
    pub(super) fn new(message: &'a [u8], at: usize, length: usize) -> Self {
        let kind = message.first_chunk().copied().unwrap_or_default();
        let end = (at + ATTRIBUTE_HEADER_BYTES + length).saturating_sub(HEADER_BYTES);
        Self {
            kind,
            length: u16::try_from(end).unwrap_or(u16::MAX).to_be_bytes(),
            rest: message.get(4..at).unwrap_or_default(),
        }
    }
}

fn hmac<M: Mac + hmac::digest::KeyInit>(key: &[u8], covered: &Covered<'_>) -> Option<M> {
    // HMAC takes keys of any length.
    let mut mac = <M as Mac>::new_from_slice(key).ok()?;
    mac.update(&covered.kind);
    mac.update(&covered.length);
    mac.update(covered.rest);
    Some(mac)
}

/// HMAC-SHA1 of what is covered.
pub(super) fn sha1(key: &[u8], covered: &Covered<'_>) -> Option<[u8; SHA1_BYTES]> {
    Some(
        hmac::<Hmac<Sha1>>(key, covered)?
            .finalize()
            .into_bytes()
            .into(),
    )
}

/// HMAC-SHA256 of what is covered.
pub(super) fn sha256(key: &[u8], covered: &Covered<'_>) -> Option<[u8; SHA256_BYTES]> {
    Some(
        hmac::<Hmac<Sha256>>(key, covered)?
            .finalize()
            .into_bytes()
            .into(),
    )
}

/// The fingerprint of what is covered.
pub(super) fn fingerprint(covered: &Covered<'_>) -> u32 {
    let sum = Crc32::new()
        .with(&covered.kind)
        .with(&covered.length)
        .with(covered.rest);
    sum.sum() ^ FINGERPRINT_MASK
}
