//! A generator with fast key erasure: what it gave out can't be computed from what it
//! holds afterwards.
//!
//! In: a seed, more entropy whenever the driver has some. Out: bytes. The same inputs give
//! the same bytes, so a test is one seed long; a device gives a seed nobody can guess.

use blake2::{Blake2s256, Digest};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::aead::{Aead, ChaChaPoly};

/// The generator. Not cloned: two copies would give the same bytes.
///
/// Source: D. J. Bernstein, "Fast-key-erasure random-number generators", with ChaCha20 as
/// the stream: of every 64 bytes the first half becomes the next key.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Random {
    key: [u8; 32],
}

impl Random {
    /// Starts from `seed`: 32 bytes that nobody else knows and that were never used before.
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { key: seed }
    }

    /// Mixes `entropy` in. It can't make the generator worse, whoever chose it.
    pub fn add(&mut self, entropy: &[u8; 32]) {
        let mut hasher = Blake2s256::new();
        hasher.update(b"altnet tunnel entropy v1");
        hasher.update(self.key);
        hasher.update(entropy);
        self.key = hasher.finalize().into();
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let mut block = Zeroizing::new([0u8; 64]);
            let stream = ChaChaPoly::new(&self.key);
            // Sealing zeros gives the key stream; 64 bytes never exceed the cipher's limit.
            let _tag = stream.seal(0, block.as_mut_slice());
            let (key, output) = block.split_at(32);
            for (to, from) in self.key.iter_mut().zip(key) {
                *to = *from;
            }
            for (to, from) in chunk.iter_mut().zip(output) {
                *to = *from;
            }
        }
    }

    /// Gives 32 bytes that are wiped when they are dropped.
    pub fn secret(&mut self) -> Zeroizing<[u8; 32]> {
        let mut bytes = Zeroizing::new([0; 32]);
        self.fill(bytes.as_mut_slice());
        bytes
    }

    /// Gives 32 bits.
    pub fn number(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_stream_that_never_repeats() {
        let mut a = Random::new([1; 32]);
        let mut b = Random::new([1; 32]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..1000 {
            let bytes = a.secret();
            assert_eq!(*bytes, *b.secret());
            assert!(seen.insert(*bytes));
        }
    }

    #[test]
    fn entropy_changes_what_follows() {
        let mut a = Random::new([1; 32]);
        let mut b = Random::new([1; 32]);
        b.add(&[0; 32]);
        assert_ne!(*a.secret(), *b.secret());
    }
}
