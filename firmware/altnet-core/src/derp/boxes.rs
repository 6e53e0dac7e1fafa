//! NaCl's box: what only the holder of one of two keys wrote, for the holder of the other.
//!
//! In: a secret key, the other's public key, bytes. Out: nonce and box, or what was in them.
//! Promises: it accepts what Go's `nacl/box` accepts, which is every public key but zero; whoever
//! claims a key of low order shows nothing by that, and is admitted or not like anybody.
//!
//! Source: D. J. Bernstein, "Cryptography in NaCl" (2009); X25519 after RFC 7748.

use alloc::vec::Vec;

use altnet_wire::derp::{KEY_BYTES, NONCE_BYTES, NoRoom, PublicKey, TAG_BYTES};
use crypto_secretbox::aead::generic_array::GenericArray;
use crypto_secretbox::aead::generic_array::typenum::U10;
use crypto_secretbox::{AeadInPlace, KeyInit, XSalsa20Poly1305};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes that a box has beside what is in it.
pub const SEAL_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// A DERP identity: an X25519 key that is used for nothing else.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; KEY_BYTES]);

impl core::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SecretKey({})", self.public())
    }
}

impl SecretKey {
    /// The identity of 32 unguessable bytes.
    pub const fn new(bytes: [u8; KEY_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be kept.
    pub const fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// What others know it by.
    pub fn public(&self) -> PublicKey {
        PublicKey(x25519_dalek::x25519(
            self.0,
            x25519_dalek::X25519_BASEPOINT_BYTES,
        ))
    }

    /// What this identity and `other` share; `None` if `other` is zero, by which Tailscale means nobody.
    pub fn shared(&self, other: &PublicKey) -> Option<SharedKey> {
        if other.0 == [0; KEY_BYTES] {
            return None;
        }
        let product = Zeroizing::new(x25519_dalek::x25519(self.0, other.0));
        let mut key = salsa20::hsalsa::<U10>((&*product).into(), &GenericArray::default());
        let shared = SharedKey(key.into());
        key.as_mut_slice().zeroize();
        Some(shared)
    }
}

/// What two identities share.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SharedKey([u8; KEY_BYTES]);

impl core::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SharedKey(..)")
    }
}

impl SharedKey {
    /// Writes nonce and box of `text`, and returns their length.
    ///
    /// # Errors
    /// [`NoRoom`]; [`SEAL_BYTES`] more than `text` has are enough.
    pub fn seal(
        &self,
        nonce: &[u8; NONCE_BYTES],
        text: &[u8],
        out: &mut [u8],
    ) -> Result<usize, NoRoom> {
        let needed = SEAL_BYTES + text.len();
        let out = out.get_mut(..needed).ok_or(NoRoom { needed })?;
        let (head, body) = out
            .split_at_mut_checked(SEAL_BYTES)
            .ok_or(NoRoom { needed })?;
        body.copy_from_slice(text);
        let tag = XSalsa20Poly1305::new((&self.0).into())
            .encrypt_in_place_detached(nonce.into(), &[], body)
            .map_err(|_| NoRoom { needed })?;
        head.iter_mut()
            .zip(nonce.iter().chain(&tag))
            .for_each(|(to, octet)| *to = *octet);
        Ok(needed)
    }

    /// What is in nonce and box; `None` if they are too short, or the other didn't write them.
    pub fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
        let (tag, body) = sealed.split_first_chunk::<TAG_BYTES>()?;
        let mut text = Vec::from(body);
        XSalsa20Poly1305::new((&self.0).into())
            .decrypt_in_place_detached(nonce.into(), &[], &mut text, tag.into())
            .ok()?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    /// Alice's and Bob's keys, nonce and box of "Cryptography in NaCl", sections 2 to 10, as
    /// <https://nacl.cr.yp.to> and libsodium's `test/default/box.c` have them.
    const ALICE: [u8; 32] = [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66,
        0x45, 0xdf, 0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9,
        0x2c, 0x2a,
    ];
    const BOB: [u8; 32] = [
        0x5d, 0xab, 0x08, 0x7e, 0x62, 0x4a, 0x8a, 0x4b, 0x79, 0xe1, 0x7f, 0x8b, 0x83, 0x80, 0x0e,
        0xe6, 0x6f, 0x3b, 0xb1, 0x29, 0x26, 0x18, 0xb6, 0xfd, 0x1c, 0x2f, 0x8b, 0x27, 0xff, 0x88,
        0xe0, 0xeb,
    ];
    const NONCE: [u8; 24] = [
        0x69, 0x69, 0x6e, 0xe9, 0x55, 0xb6, 0x2b, 0x73, 0xcd, 0x62, 0xbd, 0xa8, 0x75, 0xfc, 0x73,
        0xd6, 0x82, 0x19, 0xe0, 0x03, 0x6b, 0x7a, 0x0b, 0x37,
    ];

    #[test]
    fn the_keys_are_those_of_the_papers_example() {
        let (alice, bob) = (SecretKey::new(ALICE), SecretKey::new(BOB));
        let public = std::format!("{}", alice.public());
        assert_eq!(
            public,
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
        );
        let shared = alice.shared(&bob.public()).unwrap();
        // `firstkey` of section 5.
        assert_eq!(
            shared.0[..8],
            [0x1b, 0x27, 0x55, 0x64, 0x73, 0xe9, 0x85, 0xd4]
        );
        assert_eq!(shared.0, bob.shared(&alice.public()).unwrap().0);
    }

    #[test]
    fn the_box_is_that_of_the_papers_example() {
        let shared = SecretKey::new(ALICE)
            .shared(&SecretKey::new(BOB).public())
            .unwrap();
        let text: std::vec::Vec<u8> = [0xbe, 0x07, 0x5f, 0xc5, 0x3c, 0x81, 0xf2, 0xd5].into();
        let mut out = vec![0; SEAL_BYTES + text.len()];
        assert_eq!(shared.seal(&NONCE, &text, &mut out), Ok(out.len()));
        assert_eq!(out[..24], NONCE);
        // The cipher's first octets don't depend on what follows; section 9.
        assert_eq!(out[40..], [0x8e, 0x99, 0x3b, 0x9f, 0x48, 0x68, 0x12, 0x73]);
        assert_eq!(shared.open(&out), Some(text));
        let needed = out.len();
        assert_eq!(
            shared.seal(&NONCE, &[0; 8], &mut out[1..]),
            Err(NoRoom { needed })
        );
    }

    #[test]
    fn a_changed_or_cut_box_does_not_open() {
        let shared = SecretKey::new(ALICE)
            .shared(&SecretKey::new(BOB).public())
            .unwrap();
        let mut sealed = vec![0; SEAL_BYTES + 5];
        shared.seal(&NONCE, b"hello", &mut sealed).unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(shared.open(&changed), None, "octet {at}");
            assert_eq!(shared.open(&sealed[..at]), None, "cut at {at}");
        }
        let other = SecretKey::new([9; 32])
            .shared(&SecretKey::new(BOB).public())
            .unwrap();
        assert_eq!(other.open(&sealed), None);
    }

    #[test]
    fn nobody_shares_a_key_with_zero() {
        assert!(SecretKey::new(ALICE).shared(&PublicKey([0; 32])).is_none());
        // One of low order is taken, as Go takes it.
        let mut one = [0; 32];
        one[0] = 1;
        assert!(SecretKey::new(ALICE).shared(&PublicKey(one)).is_some());
    }
}
