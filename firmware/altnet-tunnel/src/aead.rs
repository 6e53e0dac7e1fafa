//! The cipher that seals packets, behind a trait: RustCrypto here, an assembly
//! implementation where a driver brings one.
//!
//! In: a key once, then a counter and bytes. Out: the same bytes sealed or opened in
//! place. Packets have no associated data (WireGuard whitepaper section 5.4.6).

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};

/// Bytes in an authentication tag.
pub const TAG_BYTES: usize = 16;

/// Bytes in a symmetric key.
pub const KEY_BYTES: usize = 32;

/// The tag does not belong to these bytes under this key, or they are too many for the
/// cipher. The bytes are unspecified and must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a seal does not verify")]
pub struct BadSeal;

/// ChaCha20-Poly1305 (RFC 8439) under one key, with WireGuard's nonce: four zero bytes,
/// then the counter as 64 little-endian bits.
///
/// An implementation wipes its key when it is dropped, and neither clones nor prints it.
/// It never decides about counters: who calls [`Aead::seal`] never repeats one.
pub trait Aead: Send + Sync + 'static {
    /// Prepares the cipher for `key`. The caller wipes its own copy.
    fn new(key: &[u8; KEY_BYTES]) -> Self;

    /// Encrypts `bytes` in place and returns the tag.
    ///
    /// # Errors
    /// [`BadSeal`] if they are more than the cipher can take (2^38 - 64 bytes).
    fn seal(&self, counter: u64, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], BadSeal>;

    /// Decrypts in place `sealed`: ciphertext followed by its 16-byte tag. On success all
    /// but the last [`TAG_BYTES`] are the plaintext; the rest is unspecified.
    ///
    /// # Errors
    /// [`BadSeal`] if the tag does not verify or there are fewer bytes than a tag.
    fn open(&self, counter: u64, sealed: &mut [u8]) -> Result<(), BadSeal>;
}

/// The portable cipher (RustCrypto).
pub struct ChaChaPoly(ChaCha20Poly1305);

impl Aead for ChaChaPoly {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn seal(&self, counter: u64, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], BadSeal> {
        self.seal_with(counter, &[], bytes)
    }

    fn open(&self, counter: u64, sealed: &mut [u8]) -> Result<(), BadSeal> {
        self.open_with(counter, &[], sealed)
    }
}

impl ChaChaPoly {
    /// [`Aead::seal`] with associated data, as handshakes need it.
    pub(crate) fn seal_with(
        &self,
        counter: u64,
        associated: &[u8],
        bytes: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], BadSeal> {
        self.0
            .encrypt_in_place_detached(&nonce(counter), associated, bytes)
            .map(Into::into)
            .map_err(|_| BadSeal)
    }

    /// [`Aead::open`] with associated data.
    pub(crate) fn open_with(
        &self,
        counter: u64,
        associated: &[u8],
        sealed: &mut [u8],
    ) -> Result<(), BadSeal> {
        let (text, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>().ok_or(BadSeal)?;
        self.0
            .decrypt_in_place_detached(&nonce(counter), associated, text, Tag::from_slice(tag))
            .map_err(|_| BadSeal)
    }
}

/// Four zero bytes, then the counter (whitepaper section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = Nonce::default();
    if let Some(tail) = nonce.last_chunk_mut::<8>() {
        *tail = counter.to_le_bytes();
    }
    nonce
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_key_seals_to_known_bytes() {
        // Poly1305 and ChaCha20 after RFC 8439, through WireGuard's nonce: the tag of an
        // empty packet under the zero key is what every implementation sends.
        let aead = ChaChaPoly::new(&[0; 32]);
        let tag = aead.seal(0, &mut []).unwrap();
        assert_eq!(
            tag,
            [
                0x4e, 0xb9, 0x72, 0xc9, 0xa8, 0xfb, 0x3a, 0x1b, 0x38, 0x2b, 0xb4, 0xd3, 0x6f, 0x5f,
                0xfa, 0xd1
            ]
        );
    }

    #[test]
    fn what_is_sealed_opens_only_whole_and_under_its_counter() {
        let aead = ChaChaPoly::new(&[7; 32]);
        let mut bytes = *b"packet..________________";
        let tag = aead.seal(5, &mut bytes[..8]).unwrap();
        bytes[8..].copy_from_slice(&tag);
        let sealed = bytes;
        assert_eq!(aead.open(5, &mut bytes), Ok(()));
        assert_eq!(&bytes[..8], b"packet..");
        assert_eq!(aead.open(6, &mut sealed.clone()), Err(BadSeal));
        let mut bent = sealed;
        bent[3] ^= 1;
        assert_eq!(aead.open(5, &mut bent), Err(BadSeal));
        assert_eq!(aead.open(5, &mut [0; 15]), Err(BadSeal));
    }
}
