//! Chance, from a seed: a fast-key-erasure generator over ChaCha20.
//!
//! In: 32 bytes of entropy at construction, more whenever the driver has some. Out: bytes.
//! Promises: what was given out can't be found from a later state, since every call replaces
//! the key before it returns; the same seed and calls give the same bytes.
//! It doesn't judge entropy: a board makes no keys before it was seeded.
//!
//! Source: D. J. Bernstein, "Fast-key-erasure random-number generators" (2017); RFC 8439.

use altnet_wire::hash;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes in a seed.
pub const SEED_BYTES: usize = 32;

/// A generator of unguessable bytes.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Rng {
    key: [u8; SEED_BYTES],
}

impl core::fmt::Debug for Rng {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Rng(..)")
    }
}

impl Rng {
    /// A generator whose whole future follows from `seed`.
    pub const fn new(seed: [u8; SEED_BYTES]) -> Self {
        Self { key: seed }
    }

    /// Mixes more entropy in. Never makes the state easier to guess than it was.
    pub fn handle_entropy(&mut self, entropy: &[u8]) {
        let mut next = hash::labelled("altnet rng entropy v1", &[&self.key, entropy]);
        self.key.copy_from_slice(&next);
        next.zeroize();
    }

    /// Fills `out`, of any length.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        // The nonce may stay zero: each key is used for one call, and one call gives less
        // than the 256 GiB that one nonce lasts for.
        let mut cipher = ChaCha20::new((&self.key).into(), &[0; 12].into());
        self.key.fill(0);
        cipher.apply_keystream(&mut self.key);
        out.fill(0);
        cipher.apply_keystream(out);
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill_bytes(&mut out);
        out
    }

    /// The next number, each as likely as another.
    pub fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number below `bound`; 0 if `bound` is 0. Off from uniform by less than 2^-32.
    pub fn below(&mut self, bound: u32) -> u32 {
        let wide = u128::from(self.next_u64()) * u128::from(bound);
        u32::try_from(wide >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_are_chacha20s_second_half_of_block_zero() {
        // RFC 8439 appendix A.1, test vector 1: all-zero key and nonce, counter 0.
        let mut rng = Rng::new([0; 32]);
        assert_eq!(
            rng.array::<8>(),
            [0xda, 0x41, 0x59, 0x7c, 0x51, 0x57, 0x48, 0x8d]
        );
        assert_eq!(rng.key[..4], [0x76, 0xb8, 0xe0, 0xad]);
    }

    #[test]
    fn entropy_changes_the_future_and_the_seed_decides_it() {
        let (mut a, mut b, mut c) = (Rng::new([1; 32]), Rng::new([1; 32]), Rng::new([1; 32]));
        c.handle_entropy(b"noise");
        assert_eq!(a.next_u64(), b.next_u64());
        assert_ne!(a.next_u64(), c.next_u64());
    }

    #[test]
    fn a_number_stays_below_its_bound() {
        let mut rng = Rng::new([2; 32]);
        assert!((0..1000).all(|_| rng.below(7) < 7));
        assert_eq!(rng.below(0), 0);
    }
}
