//! Whom a client takes for its relay.
//!
//! In: the certificates that a server shows. Out: whether it is the one that was meant. A certificate
//! pinned by its hash is judged by that alone, as in Tailscale's DERP map (`sha256-raw:`); names and
//! dates say nothing more of it.
//!
//! Beside its own certificate a DERP server may show one that names its DERP key, so that a client can
//! begin at once; see [`meta_key`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use altnet_wire::derp::PublicKey;
use data_encoding::HEXLOWER_PERMISSIVE;
use ring::digest::{SHA256, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, SupportedCipherSuite,
};

/// What a pin begins with in a DERP map.
const PIN_PREFIX: &str = "sha256-raw:";
/// What the name in the certificate of a DERP key begins with.
const META_PREFIX: &[u8] = b"derpkey";

/// The SHA-256 hash of a whole certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin(pub [u8; 32]);

impl Pin {
    /// The pin of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut pin = [0; 32];
        let hash = digest(&SHA256, certificate);
        pin.iter_mut()
            .zip(hash.as_ref())
            .for_each(|(to, octet)| *to = *octet);
        Self(pin)
    }
}

impl fmt::Display for Pin {
    /// Writes it as `CertName` of Tailscale's DERP map has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PIN_PREFIX}")?;
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Not a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is written sha256-raw: and 64 hexadecimal digits")]
pub struct BadPin;

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digits = text.strip_prefix(PIN_PREFIX).unwrap_or(text);
        let bytes = HEXLOWER_PERMISSIVE
            .decode(digits.as_bytes())
            .map_err(|_| BadPin)?;
        Ok(Self(bytes.try_into().map_err(|_| BadPin)?))
    }
}

/// Whom to take for the relay.
#[derive(Clone, Debug)]
pub enum Trust {
    /// Who shows this very certificate.
    Pin(Pin),
    /// Who shows a certificate of its name by one of these authorities.
    Roots(Arc<RootCertStore>),
    /// Anybody: TLS hides what is said from who looks on, and what is said is sealed by those who
    /// say it.
    Anybody,
}

impl Trust {
    /// The authorities that browsers know.
    pub fn public() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.iter().cloned();
        Self::Roots(Arc::new(roots.collect()))
    }

    /// How to speak TLS to a server that is trusted so: TLS 1.3, as with a server of ours.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: suites(),
            ..rustls::crypto::ring::default_provider()
        });
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?;
        let mut config = match self {
            Self::Pin(_) | Self::Anybody => {
                let pin = match self {
                    Self::Pin(pin) => Some(*pin),
                    _ => None,
                };
                let verifier = PinVerifier { pin, provider };
                builder
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::new(verifier))
                    .with_no_client_auth()
            }
            Self::Roots(roots) => builder
                .with_root_certificates(Arc::clone(roots))
                .with_no_client_auth(),
        };
        // A session is rarely resumed, and what would be kept for that is kept for every relay.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

/// Which ciphers a client wants, the cheapest first: a relay opens and seals everything that passes.
fn suites() -> Vec<SupportedCipherSuite> {
    let (aes, chacha) = (TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256);
    if has_aes() {
        vec![aes, chacha, TLS13_AES_256_GCM_SHA384]
    } else {
        vec![chacha, aes, TLS13_AES_256_GCM_SHA384]
    }
}

/// Whether this processor has instructions for AES.
fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    let has_aes = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    has_aes
}

/// The DERP key that a server's certificates name, if one does. The server proves in the same
/// handshake that they are its own; a proxy that looks into TLS takes it out.
///
/// Source: `initMetacert` in `derp/derpserver/derpserver.go`.
pub fn meta_key(certificates: &[CertificateDer<'_>]) -> Option<PublicKey> {
    let certificate = certificates.get(1..)?.last()?;
    let at = certificate
        .windows(META_PREFIX.len())
        .position(|window| window == META_PREFIX)?;
    let digits = certificate.get(at + META_PREFIX.len()..)?.get(..64)?;
    let key = HEXLOWER_PERMISSIVE.decode(digits).ok()?;
    Some(PublicKey(key.try_into().ok()?))
}

#[derive(Debug)]
struct PinVerifier {
    /// Which certificate; any if none.
    pin: Option<Pin>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Pin::of(end_entity);
        let Some(expected) = self.pin.filter(|pin| *pin != found) else {
            return Ok(ServerCertVerified::assertion());
        };
        let other = OtherPin { expected, found };
        Err(CertificateError::Other(OtherError(Arc::new(other))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The server has another certificate.
#[derive(Debug, thiserror::Error)]
#[error("the relay's certificate is {found}, not {expected}")]
struct OtherPin {
    expected: Pin,
    found: Pin,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_it_is_written() {
        let pin = Pin([0xab; 32]);
        let text = format!("sha256-raw:{}", "ab".repeat(32));
        assert_eq!(pin.to_string(), text);
        assert_eq!(text.parse(), Ok(pin));
        assert_eq!("AB".repeat(32).parse(), Ok(pin));
        for text in ["", "sha256-raw:", "sha256-raw:ab", "derp.example"] {
            assert_eq!(text.parse::<Pin>(), Err(BadPin), "{text}");
        }
        // Of the empty message: FIPS 180-4.
        let empty = Pin::of(&CertificateDer::from_slice(&[]));
        assert_eq!(empty.0[..4], [0xe3, 0xb0, 0xc4, 0x42]);
    }
}
