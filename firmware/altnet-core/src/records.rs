//! Signing and verifying records, and the secret keys of a device.
//!
//! In: a body and a secret, or an envelope. Out: an envelope, or whether its signature holds.
//! Signatures are Ed25519 (RFC 8032), verified strictly: no small-order keys, no second
//! encoding of the same signature. Who may sign what is [`crate::registry`]'s.

use altnet_wire::envelope::{self, Envelope, EnvelopeError, Header, RecordKind, SIGNATURE_BYTES};
use altnet_wire::hash::{self, Hash};
use altnet_wire::id::{ControlKey, NetworkId, Serial, SigningKey};
use altnet_wire::record::{AppRecord, Body, Redemption, app_binding, redemption_proof};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use zeroize::Zeroizing;

use crate::rng::Rng;

/// The secret half of a [`SigningKey`]: an Ed25519 seed. Zeroized when dropped.
pub struct SigningSecret(ed25519_dalek::SigningKey);

impl SigningSecret {
    /// Takes a seed that was kept.
    pub fn from_bytes(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Makes a new key.
    pub fn generate(rng: &mut Rng) -> Self {
        Self::from_bytes(&Zeroizing::new(rng.array()))
    }

    /// The key of the invite whose link carries `secret`.
    pub fn of_invite(secret: &[u8; 16]) -> Self {
        Self::from_bytes(&Zeroizing::new(hash::labelled(
            "altnet invite key v1",
            &[secret],
        )))
    }

    /// The seed, to be kept where nobody else reads it.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> SigningKey {
        SigningKey(self.0.verifying_key().to_bytes())
    }

    /// Signs a labelled hash.
    pub fn sign(&self, hash: &Hash) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(hash).to_bytes()
    }
}

impl Clone for SigningSecret {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl core::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "SigningSecret(of {})", self.public())
    }
}

macro_rules! agreement_secret {
    ($(#[$doc:meta])* $name:ident, $public:ident) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<[u8; 32]>);

        impl $name {
            /// Takes a secret that was kept. It is clamped when used (RFC 7748 section 5).
            pub fn from_bytes(secret: &[u8; 32]) -> Self {
                Self(Zeroizing::new(*secret))
            }

            /// Makes a new key.
            pub fn generate(rng: &mut Rng) -> Self {
                Self(Zeroizing::new(rng.array()))
            }

            /// The secret, to be kept where nobody else reads it.
            pub fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The public half.
            pub fn public(&self) -> $public {
                let secret = x25519_dalek::StaticSecret::from(*self.0);
                $public(x25519_dalek::PublicKey::from(&secret).to_bytes())
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "(of {})"), self.public())
            }
        }
    };
}

agreement_secret!(
    /// The secret half of a [`ControlKey`]: X25519. Zeroized when dropped.
    ControlSecret,
    ControlKey
);

/// A signature that doesn't hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not match the signer's key")]
pub struct BadSignature;

/// Signs `body` and writes its envelope into `out`. Returns the envelope's bytes.
///
/// `network` is all zero for a genesis, whose hash becomes the network's id.
///
/// # Errors
/// [`EnvelopeError::NoRoom`] or [`EnvelopeError::TooLarge`].
pub fn sign_record<'o, T: Body>(
    secret: &SigningSecret,
    network: NetworkId,
    body: &T,
    serial: Serial,
    out: &'o mut [u8],
) -> Result<&'o [u8], EnvelopeError> {
    let mut buffer = [0; altnet_wire::envelope::MAX_RECORD_BYTES];
    let body = postcard::to_slice(body, &mut buffer).map_err(|_| EnvelopeError::NoRoom)?;
    sign_body(secret, network, T::KIND, T::VERSION, body, serial, out)
}

/// Signs a body that is bytes already: a policy, or another signer's record signed anew.
///
/// # Errors
/// [`EnvelopeError::NoRoom`] or [`EnvelopeError::TooLarge`].
pub fn sign_body<'o>(
    secret: &SigningSecret,
    network: NetworkId,
    kind: RecordKind,
    version: u8,
    body: &[u8],
    serial: Serial,
    out: &'o mut [u8],
) -> Result<&'o [u8], EnvelopeError> {
    let header = Header {
        network,
        kind,
        version,
        signer: secret.public(),
        serial,
    };
    envelope::write(&header, body, out, |hash| secret.sign(hash))
}

/// Whether the envelope's signature is its signer's.
///
/// # Errors
/// [`BadSignature`].
pub fn verify(envelope: &Envelope<'_>) -> Result<(), BadSignature> {
    let signer = &envelope.header().signer;
    verify_hash(signer, &envelope.signed_hash(), envelope.signature())
}

/// Whether `signature` over a labelled hash is `signer`'s.
///
/// # Errors
/// [`BadSignature`].
pub fn verify_hash(
    signer: &SigningKey,
    hash: &Hash,
    signature: &[u8; SIGNATURE_BYTES],
) -> Result<(), BadSignature> {
    VerifyingKey::from_bytes(&signer.0)
        .and_then(|key| key.verify_strict(hash, &Signature::from_bytes(signature)))
        .map_err(|_| BadSignature)
}

/// Makes the proof that the holder of an invite's secret half wants `device` in.
pub fn redeem_proof(invite: &SigningSecret, session: Hash, device: &SigningKey) -> Redemption {
    Redemption {
        invite: invite.public(),
        session,
        proof: halves(&invite.sign(&redemption_proof(&session, device))),
    }
}

/// Whether `redemption` is its invite key's word for `device`.
///
/// # Errors
/// [`BadSignature`].
pub fn verify_redemption(redemption: &Redemption, device: &SigningKey) -> Result<(), BadSignature> {
    let hash = redemption_proof(&redemption.session, device);
    verify_hash(&redemption.invite, &hash, &joined(&redemption.proof))
}

/// Makes the signature by which `app` lets `device` speak for it: [`AppRecord::binding`].
pub fn bind_app(network: &NetworkId, app: &SigningSecret, device: &SigningKey) -> [[u8; 32]; 2] {
    halves(&app.sign(&app_binding(network, &app.public(), device)))
}

/// Whether the app of `record` lets `device` speak for it.
///
/// # Errors
/// [`BadSignature`].
pub fn verify_binding(
    network: &NetworkId,
    record: &AppRecord,
    device: &SigningKey,
) -> Result<(), BadSignature> {
    let hash = app_binding(network, &record.app, device);
    verify_hash(&record.app, &hash, &joined(&record.binding))
}

fn halves(signature: &[u8; 64]) -> [[u8; 32]; 2] {
    let mut halves = [[0; 32]; 2];
    halves.as_flattened_mut().copy_from_slice(signature);
    halves
}

fn joined(halves: &[[u8; 32]; 2]) -> [u8; 64] {
    let mut signature = [0; 64];
    signature.copy_from_slice(halves.as_flattened());
    signature
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::envelope::MAX_RECORD_BYTES;
    use altnet_wire::record::NetworkHead;
    use altnet_wire::time::UnixTime;
    use std::format;

    fn secret(byte: u8) -> SigningSecret {
        SigningSecret::from_bytes(&[byte; 32])
    }

    #[test]
    fn a_record_changed_anywhere_no_longer_verifies() {
        let body = NetworkHead {
            revocations: [0; 32],
            revocation_count: 0,
            policy: [0; 32],
            policy_serial: Serial(0),
            owner_serial: 0,
            issued: UnixTime::from_secs(7),
        };
        let mut out = [0; MAX_RECORD_BYTES];
        let len = sign_record(&secret(1), NetworkId([9; 32]), &body, Serial(3), &mut out)
            .unwrap()
            .len();
        let bytes = &mut out[..len];
        assert_eq!(verify(&Envelope::parse(bytes).unwrap()), Ok(()));
        for at in 0..len {
            bytes[at] ^= 1;
            if let Ok(envelope) = Envelope::parse(bytes) {
                assert_eq!(verify(&envelope), Err(BadSignature), "byte {at}");
            }
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn a_small_order_key_signs_nothing() {
        // The identity point: under plain verification it accepts a signature of zeros.
        let mut key = [0; 32];
        key[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert_eq!(
            verify_hash(&SigningKey(key), &[0; 32], &signature),
            Err(BadSignature)
        );
    }

    #[test]
    fn a_redemption_holds_for_one_device_and_session() {
        let invite = SigningSecret::of_invite(&[5; 16]);
        let (device, other) = (secret(1).public(), secret(2).public());
        let mut redemption = redeem_proof(&invite, [3; 32], &device);
        assert_eq!(verify_redemption(&redemption, &device), Ok(()));
        assert_eq!(verify_redemption(&redemption, &other), Err(BadSignature));
        redemption.session = [4; 32];
        assert_eq!(verify_redemption(&redemption, &device), Err(BadSignature));
    }

    #[test]
    fn a_secret_is_not_printed() {
        let text = format!("{:?}{:?}", secret(1), ControlSecret::from_bytes(&[7; 32]));
        assert!(!text.contains("7, 7") && !text.contains("1, 1"), "{text}");
    }
}
