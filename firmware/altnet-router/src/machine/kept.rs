//! What is kept on flash: the prefixes that the networks of the house had last.
//!
//! Machines on a network have addresses of a prefix for as long as they were told, whatever became of the router.
//! One that comes back with another prefix says that the old one is no more (RFC 9096 section 3.5), and for
//! that has to know it.

use ipnet::Ipv6Net;
use serde::{Deserialize, Serialize};

use crate::config::Name;

/// The largest file, in bytes.
pub const MAX_BYTES: u64 = 16 * 1024;
/// The most addresses that are remembered.
const MAX_REMEMBERED: usize = 64;
const VERSION: u8 = 1;

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    version: u8,
    /// The oldest first.
    pub(super) addresses: Vec<Remembered>,
}

/// An address of the box on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Remembered {
    pub(super) network: Name,
    /// With the prefix length 64.
    pub(super) address: Ipv6Net,
}

/// Why a file is not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// It is no such file, or a spoilt one.
    #[error("it is spoilt: {0}")]
    Spoilt(#[from] serde_json::Error),
    /// It is of another version of altnet-routerd.
    #[error("it is of version {found}, and this altnet-routerd reads version {VERSION}")]
    Version {
        /// The version it is of.
        found: u8,
    },
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            version: VERSION,
            addresses: Vec::new(),
        }
    }
}

impl Kept {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeptError`].
    pub fn read(bytes: &[u8]) -> Result<Self, KeptError> {
        let mut kept: Self = serde_json::from_slice(bytes)?;
        if kept.version != VERSION {
            let found = kept.version;
            return Err(KeptError::Version { found });
        }
        kept.shorten();
        Ok(kept)
    }

    /// The file.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("plain data becomes JSON");
        bytes.push(b'\n');
        bytes
    }

    pub(super) fn remember(&mut self, one: Remembered) {
        self.addresses.push(one);
        self.shorten();
    }

    fn shorten(&mut self) {
        let more = self.addresses.len().saturating_sub(MAX_REMEMBERED);
        self.addresses.drain(..more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_file_reads_back_and_stays_within_its_bounds() {
        let mut kept = Kept::default();
        for number in 0..100u16 {
            kept.remember(Remembered {
                network: "lan".parse().unwrap(),
                address: format!("2001:db8:{number:x}::1/64").parse().unwrap(),
            });
        }
        assert_eq!(kept.addresses.len(), MAX_REMEMBERED);
        assert!(kept.write().len() as u64 <= MAX_BYTES);
        assert_eq!(Kept::read(&kept.write()).unwrap(), kept);
    }

    #[test]
    fn another_version_or_a_torn_file_is_refused() {
        let newer = br#"{"version":2,"addresses":[]}"#;
        assert!(matches!(
            Kept::read(newer),
            Err(KeptError::Version { found: 2 })
        ));
        let whole = Kept::default().write();
        for len in 0..whole.len() - 1 {
            assert!(Kept::read(&whole[..len]).is_err(), "{len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(bytes: Vec<u8>) {
            let _ = Kept::read(&bytes);
        }
    }
}
