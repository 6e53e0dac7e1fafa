//! Keys: made here, and put to work with their certificates.

use std::sync::Arc;

use altnet_wire::id::{NetworkId, SigningKey};
use altnet_wire::tls;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// A key that was just made.
pub struct Made {
    /// The secret half, PKCS #8 in DER.
    pub secret: Zeroizing<Vec<u8>>,
    /// The public half: x and y.
    pub key: [[u8; 32]; 2],
    /// Its word ([`tls::key_proof`]): r and s.
    pub proof: [[u8; 32]; 2],
}

/// The kernel gave no randomness, or what ring made is not what it says it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no key can be made: the kernel gives no randomness")]
pub struct NoKey;

/// Makes a P-256 key and signs with it for `subject`.
///
/// # Errors
/// [`NoKey`].
pub fn make(network: &NetworkId, device: &SigningKey, subject: &SigningKey) -> Result<Made, NoKey> {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let made = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| NoKey)?;
    let secret = Zeroizing::new(made.as_ref().to_vec());
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, &secret, &random).map_err(|_| NoKey)?;
    // Uncompressed: 4, x, y (SEC 1 section 2.3.3).
    let point = pair.public_key().as_ref().get(1..).ok_or(NoKey)?;
    let key = halves(point)?;
    let hash = tls::key_proof(network, device, subject, &key);
    let signed = pair.sign(&random, &hash).map_err(|_| NoKey)?;
    Ok(Made {
        secret,
        key,
        proof: halves(signed.as_ref())?,
    })
}

fn halves(bytes: &[u8]) -> Result<[[u8; 32]; 2], NoKey> {
    let mut halves = [[0; 32]; 2];
    if bytes.len() != halves.as_flattened().len() {
        return Err(NoKey);
    }
    halves.as_flattened_mut().copy_from_slice(bytes);
    Ok(halves)
}

/// How a server speaks with this key and certificate: TLS 1.2 or 1.3, HTTP/1.1 inside.
///
/// # Errors
/// [`rustls::Error`] if they don't read or don't belong together.
pub fn config(
    provider: Arc<CryptoProvider>,
    key: &[u8],
    certificate: &[u8],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    #[test]
    fn a_key_signs_for_its_device_and_subject() {
        let (network, device, subject) =
            (NetworkId([1; 32]), SigningKey([2; 32]), SigningKey([3; 32]));
        let made = make(&network, &device, &subject).unwrap();
        let point = [&[4][..], made.key.as_flattened()].concat();
        let verify = |subject: &SigningKey| {
            let hash = tls::key_proof(&network, &device, subject, &made.key);
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point)
                .verify(&hash, made.proof.as_flattened())
        };
        assert!(verify(&subject).is_ok());
        assert!(verify(&device).is_err());
        assert!(made.secret.len() <= 256);
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let ids = (NetworkId([1; 32]), SigningKey([2; 32]), SigningKey([3; 32]));
        let made = make(&ids.0, &ids.1, &ids.2).unwrap();
        let provider = || Arc::new(rustls::crypto::ring::default_provider());
        assert!(config(provider(), &made.secret, b"no certificate").is_err());
        assert!(config(provider(), b"no key", b"no certificate").is_err());
    }
}
