//! ring's ChaCha20-Poly1305 behind the tunnel's [`Aead`]: assembly on x86-64, aarch64 and
//! armv7, about four times as fast as the portable one.

use std::mem::MaybeUninit;

use altnet_tunnel::aead::{Aead, BadSeal, KEY_BYTES, TAG_BYTES};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

/// ring's cipher under one key. ring does not wipe keys, so this does.
pub struct RingAead {
    // Boxed, so that moving a session leaves no copy of the key behind. Always initialized.
    key: Box<MaybeUninit<LessSafeKey>>,
}

const _: () = assert!(
    !std::mem::needs_drop::<LessSafeKey>(),
    "wiping a key in place must not skip a destructor"
);

impl RingAead {
    fn key(&self) -> &LessSafeKey {
        // SAFETY: `new` initialized it, and only `drop` overwrites it.
        unsafe { self.key.assume_init_ref() }
    }
}

impl Aead for RingAead {
    fn new(key: &[u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).expect("a ChaCha20 key has 32 bytes");
        Self {
            key: Box::new(MaybeUninit::new(LessSafeKey::new(key))),
        }
    }

    fn seal(&self, counter: u64, bytes: &mut [u8]) -> Result<[u8; TAG_BYTES], BadSeal> {
        let tag = self
            .key()
            .seal_in_place_separate_tag(nonce(counter), Aad::empty(), bytes)
            .map_err(|_| BadSeal)?;
        tag.as_ref().try_into().map_err(|_| BadSeal)
    }

    fn open(&self, counter: u64, sealed: &mut [u8]) -> Result<(), BadSeal> {
        self.key()
            .open_in_place(nonce(counter), Aad::empty(), sealed)
            .map(|_| ())
            .map_err(|_| BadSeal)
    }
}

impl Drop for RingAead {
    fn drop(&mut self) {
        // SAFETY: the box owns the memory, nobody else refers to it, and a `LessSafeKey` has
        // no destructor that could still look at it (asserted above).
        unsafe { zeroize::zeroize_flat_type(self.key.as_mut_ptr()) };
    }
}

/// Four zero bytes, then the counter (WireGuard whitepaper section 5.4.6).
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_tunnel::aead::ChaChaPoly;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ciphers_open_what_the_other_sealed(key: [u8; 32], counter: u64, text: Vec<u8>) {
            let (ring, portable) = (RingAead::new(&key), ChaChaPoly::new(&key));
            let mut a = text.clone();
            let tag = ring.seal(counter, &mut a).unwrap();
            let mut b = text.clone();
            prop_assert_eq!(tag, portable.seal(counter, &mut b).unwrap());
            prop_assert_eq!(&a, &b);
            a.extend_from_slice(&tag);
            let mut again = a.clone();
            ring.open(counter, &mut a).unwrap();
            portable.open(counter, &mut again).unwrap();
            prop_assert_eq!(&a[..text.len()], &text[..]);
            prop_assert_eq!(&again[..text.len()], &text[..]);
        }

        #[test]
        fn a_changed_byte_does_not_open(key: [u8; 32], text: Vec<u8>, at: usize, flip in 1u8..) {
            let ring = RingAead::new(&key);
            let mut sealed = text;
            let tag = ring.seal(1, &mut sealed).unwrap();
            sealed.extend_from_slice(&tag);
            let at = at % sealed.len();
            sealed[at] ^= flip;
            prop_assert_eq!(ring.open(1, &mut sealed), Err(BadSeal));
            prop_assert_eq!(ring.open(1, &mut [0; 15]), Err(BadSeal));
        }
    }
}
