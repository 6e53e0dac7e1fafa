//! The one hash of the protocol: BLAKE2s-256 (RFC 7693) under a label.
//!
//! WireGuard already brings BLAKE2s to every device, so a second hash would only cost flash.

use blake2::{Blake2s256, Digest};

/// Bytes in a [`type@Hash`].
pub const HASH_BYTES: usize = 32;

/// A BLAKE2s-256 value.
pub type Hash = [u8; HASH_BYTES];

/// Hashes `parts` under a domain-separating `label`.
///
/// The input to BLAKE2s-256 is one byte with the label's length, the label, then the parts
/// one after the other. Callers give parts of fixed length, or a variable one only at the
/// end, so that no two lists of parts read the same.
///
/// Source: RFC 7693; the length prefix makes no label a prefix of another's input.
pub fn labelled(label: &str, parts: &[&[u8]]) -> Hash {
    let mut hasher = Blake2s256::new();
    hasher.update([label.len() as u8]);
    hasher.update(label.as_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}
