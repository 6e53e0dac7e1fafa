//! The key that a box pairs with, and the fingerprint by which people tell it.

use core::fmt;

use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// A box's secret X25519 key. Wiped when dropped, never printed by `Debug`.
#[derive(Clone)]
pub struct BoxSecret(Zeroizing<[u8; 32]>);

impl BoxSecret {
    /// Makes one from 32 bytes of chance.
    pub const fn new(chance: Zeroizing<[u8; 32]>) -> Self {
        Self(chance)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> BoxKey {
        BoxKey(PublicKey::from(&StaticSecret::from(*self.0)).to_bytes())
    }
}

impl fmt::Debug for BoxSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxSecret(..)")
    }
}

/// A box's public X25519 key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxKey(pub [u8; 32]);

impl BoxKey {
    /// What people compare.
    pub fn fingerprint(&self) -> Fingerprint {
        let digest = Sha256::new()
            .chain_update(b"altnet claim 1 fingerprint")
            .chain_update(self.0)
            .finalize();
        let mut bytes = [0; Fingerprint::BYTES];
        bytes.copy_from_slice(&digest[..Fingerprint::BYTES]);
        Fingerprint(bytes)
    }
}

/// A fingerprint: 80 bits in five groups of four hexadecimal digits. Nobody makes a second key with a given one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; Self::BYTES]);

impl Fingerprint {
    const BYTES: usize = 10;

    /// Reads what was shown: case, dashes, colons and spaces don't matter. None if it is no fingerprint.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = || text.chars().filter(|c| !matches!(c, '-' | ':' | ' '));
        if digits().count() != 2 * Self::BYTES {
            return None;
        }
        let mut bytes = [0; Self::BYTES];
        for (at, digit) in digits().enumerate() {
            let value = u8::try_from(digit.to_digit(16)?).ok()?;
            bytes[at / 2] = bytes[at / 2] << 4 | value;
        }
        Some(Self(bytes))
    }

    /// The first 24 bits in hexadecimal digits: what a box is called on its LAN.
    pub fn short(&self) -> impl fmt::Display {
        let [a, b, c, ..] = self.0;
        core::fmt::from_fn(move |f| write!(f, "{a:02x}{b:02x}{c:02x}"))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if at > 0 && at % 2 == 0 {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_read_as_it_was_shown() {
        let key = BoxSecret::new(Zeroizing::new([7; 32])).public();
        let shown = key.fingerprint().to_string();
        assert_eq!(shown.len(), 24);
        assert_eq!(Fingerprint::parse(&shown), Some(key.fingerprint()));
        let typed = shown.to_uppercase().replace('-', ":");
        assert_eq!(Fingerprint::parse(&typed), Some(key.fingerprint()));
        assert!(
            shown
                .replace('-', "")
                .starts_with(&key.fingerprint().short().to_string())
        );
        for wrong in ["", "12", &shown[1..], &shown.replace(&shown[..1], "x")] {
            assert_eq!(Fingerprint::parse(wrong), None);
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = BoxSecret::new(Zeroizing::new([7; 32]));
        assert_eq!(format!("{secret:?}"), "BoxSecret(..)");
    }
}
