//! Secret keys, wiped when they are dropped, never printed, cloned or compared by chance.

use altnet_wire::id::TunnelKey;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The other side's public key is one of the few whose shared secret is all zeros whoever
/// computes it (RFC 7748 section 6.1). Nothing was agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the public key has low order")]
pub struct WeakKey;

/// The secret half of a [`TunnelKey`] (X25519).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct TunnelSecret([u8; 32]);

impl TunnelSecret {
    /// Takes 32 uniformly random bytes as a secret. The caller wipes its own copy.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The public half.
    pub fn public(&self) -> TunnelKey {
        let secret = StaticSecret::from(self.0);
        TunnelKey(PublicKey::from(&secret).to_bytes())
    }

    /// The secret bytes, to be kept by a driver that wipes its own copies.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Agrees on a secret with the holder of `public`.
    ///
    /// # Errors
    /// [`WeakKey`] if the result is all zeros. RFC 7748 section 6.1 leaves the check to the
    /// protocol; here a session whose key anybody can compute is never made.
    pub fn agree(&self, public: &TunnelKey) -> Result<SharedSecret, WeakKey> {
        let secret = StaticSecret::from(self.0);
        let shared = secret.diffie_hellman(&PublicKey::from(public.0));
        if shared.was_contributory() {
            Ok(Zeroizing::new(shared.to_bytes()))
        } else {
            Err(WeakKey)
        }
    }
}

/// What two keys agreed on.
pub(crate) type SharedSecret = Zeroizing<[u8; 32]>;

/// A secret that two peers share beforehand and mix into every handshake; all zeros where
/// there is none (whitepaper section 5.2).
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey([u8; 32]);

impl PresharedKey {
    /// No pre-shared key.
    pub const NONE: Self = Self([0; 32]);

    /// Takes 32 bytes as a key. The caller wipes its own copy.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_secrets_agree_as_rfc_7748_section_6_1_says() {
        let hex = |text: &str| {
            let mut bytes = [0; 32];
            for (i, byte) in bytes.iter_mut().enumerate() {
                *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap();
            }
            bytes
        };
        let alice = TunnelSecret::new(hex(
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
        ));
        let bob = TunnelSecret::new(hex(
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
        ));
        assert_eq!(
            alice.public().0,
            hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
        );
        let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
        assert_eq!(*alice.agree(&bob.public()).unwrap(), shared);
        assert_eq!(*bob.agree(&alice.public()).unwrap(), shared);
    }

    #[test]
    fn an_all_zero_result_is_refused() {
        let secret = TunnelSecret::new([9; 32]);
        // The points of order 1, 2, 4 (0, 1, p - 1) and 8 on Curve25519 and its twist.
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        let mut one = [0; 32];
        one[0] = 1;
        for weak in [[0; 32], one, minus_one] {
            assert_eq!(secret.agree(&TunnelKey(weak)).err(), Some(WeakKey));
        }
    }
}
