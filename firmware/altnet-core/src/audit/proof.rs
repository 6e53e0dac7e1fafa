//! Signatures within entries: each holds by itself, with nothing but this file in hand.

use altnet_wire::audit::{AuditHead, SignedHead, Testimony};
use altnet_wire::canonical::{self, NotCanonical};
use altnet_wire::id::{NetworkId, SigningKey};
use serde::{Deserialize, Serialize};

use crate::records::{BadSignature, SigningSecret, verify_hash};

/// The two halves of a signature as they travel.
pub(crate) fn halves(signature: &[u8; 64]) -> [[u8; 32]; 2] {
    let mut halves = [[0; 32]; 2];
    halves.as_flattened_mut().copy_from_slice(signature);
    halves
}

fn joined(halves: &[[u8; 32]; 2]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature.copy_from_slice(halves.as_flattened());
    signature
}

/// Signs how far the log of this device has come.
pub(crate) fn sign_head(
    secret: &SigningSecret,
    network: &NetworkId,
    head: AuditHead,
) -> SignedHead {
    let proof = head.proof(network, &secret.public());
    SignedHead {
        head,
        signature: halves(&secret.sign(&proof)),
    }
}

/// Whether the head is that device's word.
pub(crate) fn verify_head(
    network: &NetworkId,
    device: &SigningKey,
    signed: &SignedHead,
) -> Result<(), BadSignature> {
    let proof = signed.head.proof(network, device);
    verify_hash(device, &proof, &joined(&signed.signature))
}

/// A countersigned head: `witness` says that it holds no other past of this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnessed {
    /// The network they are both in.
    pub network: NetworkId,
    /// The device whose log it is.
    pub device: SigningKey,
    /// The head.
    pub head: AuditHead,
    /// The device key of the witness.
    pub witness: SigningKey,
    /// What it says.
    pub testimony: Testimony,
}

impl Witnessed {
    /// Reads what [`super::Entry::proof`] holds.
    ///
    /// # Errors
    /// [`NotCanonical`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotCanonical> {
        canonical::decode(bytes)
    }

    /// Whether it is the witness's word.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self) -> Result<(), BadSignature> {
        let Testimony {
            since,
            at,
            signature,
        } = &self.testimony;
        let (network, device) = (&self.network, &self.device);
        let proof = Testimony::proof(network, device, &self.head, *since, *at, &self.witness);
        verify_hash(&self.witness, &proof, &joined(signature))
    }
}

/// Two heads that one device signed and that can't both be true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The network.
    pub network: NetworkId,
    /// Who signed both.
    pub device: SigningKey,
    /// What it showed first.
    pub held: SignedHead,
    /// What it showed then.
    pub shown: SignedHead,
}

impl Rewrite {
    /// Reads what [`super::Entry::proof`] holds.
    ///
    /// # Errors
    /// [`NotCanonical`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotCanonical> {
        canonical::decode(bytes)
    }

    /// Whether the device signed both. That they contradict each other shows by itself where the
    /// second does not go beyond the first; else it is the word of whose log this stands in.
    ///
    /// # Errors
    /// [`BadSignature`].
    pub fn verify(&self) -> Result<(), BadSignature> {
        verify_head(&self.network, &self.device, &self.held)?;
        verify_head(&self.network, &self.device, &self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::{Fact, Kind, MAX_PROOF_BYTES};
    use super::*;
    use altnet_wire::time::UnixTime;

    fn secret(byte: u8) -> SigningSecret {
        SigningSecret::from_bytes(&[byte; 32])
    }

    fn head(sequence: u64) -> AuditHead {
        AuditHead {
            sequence,
            hash: [1; 32],
            time: UnixTime::from_secs(u64::MAX),
        }
    }

    #[test]
    fn a_testimony_changed_anywhere_no_longer_verifies() {
        let (network, device, witness) = (NetworkId([9; 32]), secret(1).public(), secret(2));
        let (since, at) = (3, UnixTime::from_secs(7));
        let key = witness.public();
        let hash = Testimony::proof(&network, &device, &head(5), since, at, &key);
        let testimony = Testimony {
            since,
            at,
            signature: halves(&witness.sign(&hash)),
        };
        let witnessed = Witnessed {
            network,
            device,
            head: head(5),
            witness: key,
            testimony,
        };
        let fact = Fact::new(Kind::WITNESSED).proof(&witnessed);
        let mut bytes = fact.proof.clone();
        assert_eq!(Witnessed::decode(&bytes).unwrap().verify(), Ok(()));
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            let changed = Witnessed::decode(&bytes);
            assert!(
                changed.is_err() || changed.unwrap().verify().is_err(),
                "{at}"
            );
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn the_largest_proof_fits_an_entry() {
        let (network, device) = (NetworkId([9; 32]), secret(1));
        let rewrite = Rewrite {
            network,
            device: device.public(),
            held: sign_head(&device, &network, head(u64::MAX)),
            shown: sign_head(&device, &network, head(u64::MAX - 1)),
        };
        let fact = Fact::new(Kind::REWRITTEN).proof(&rewrite);
        assert!(!fact.proof.is_empty() && fact.proof.len() <= MAX_PROOF_BYTES);
        let again = Rewrite::decode(&fact.proof).unwrap();
        assert_eq!((again, again.verify()), (rewrite, Ok(())));
        let other = Rewrite {
            device: secret(2).public(),
            ..rewrite
        };
        assert_eq!(other.verify(), Err(BadSignature));
    }
}
