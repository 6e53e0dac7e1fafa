//! What a pairing needs of chance, from one seed.

use hkdf::Hkdf;
use rand_core::{CryptoRng, Error, RngCore};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// Bytes that follow from a seed and a label, as many as are asked for.
pub(super) struct Chance {
    key: Zeroizing<[u8; 32]>,
    drawn: u32,
}

impl Chance {
    pub(super) fn new(seed: &[u8; 32], label: &[u8]) -> Self {
        let mut chance = Self {
            key: Zeroizing::new([0; 32]),
            drawn: 0,
        };
        expand(seed, label, chance.key.as_mut_slice());
        chance
    }

    /// 32 bytes.
    pub(super) fn key(mut self) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        self.fill_bytes(key.as_mut_slice());
        key
    }
}

impl RngCore for Chance {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        let number = u32::from_le_bytes(bytes);
        bytes.zeroize();
        number
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        // A piece for each call and each 32 bytes of it: no byte is given twice.
        for piece in bytes.chunks_mut(32) {
            expand(&self.key, &self.drawn.to_be_bytes(), piece);
            self.drawn = self.drawn.wrapping_add(1);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

/// As unguessable as its seed.
impl CryptoRng for Chance {}

fn expand(key: &[u8; 32], label: &[u8], out: &mut [u8]) {
    Hkdf::<Sha256>::new(None, key)
        .expand(label, out)
        .expect("HKDF gives up to 8160 bytes, and at most 32 are asked for");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_for_the_same_seed_and_never_repeats() {
        let drawn = |seed, label: &[u8]| {
            let mut bytes = [0; 64];
            Chance::new(&[seed; 32], label).fill_bytes(&mut bytes);
            bytes
        };
        assert_eq!(drawn(1, b"a"), drawn(1, b"a"));
        assert_ne!(drawn(1, b"a"), drawn(2, b"a"));
        assert_ne!(drawn(1, b"a"), drawn(1, b"b"));
        let bytes = drawn(1, b"a");
        assert_ne!(bytes[..32], bytes[32..]);
        let mut chance = Chance::new(&[1; 32], b"a");
        assert_ne!(chance.next_u64(), chance.next_u64());
    }
}
