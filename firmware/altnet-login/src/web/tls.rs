//! The page over TLS.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::config::{self, ConfigError, Tls};
use network::Network;

pub mod network;

/// The page's certificate and key, for listeners that ask browsers for a certificate or don't.
///
/// # Errors
/// [`ConfigError`] if a file can't be used.
pub fn server(
    tls: &Tls,
    asks: bool,
    network: &Arc<Network>,
) -> Result<Arc<ServerConfig>, ConfigError> {
    let wrong = |path: &std::path::Path, message: String| ConfigError::Certificate {
        path: path.into(),
        message,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has what both versions need");
    let builder = match asks {
        true => builder.with_client_cert_verifier(Arc::new(Possession(provider))),
        false => builder.with_no_client_auth(),
    };
    let Some((certificate, key_file)) = tls.files() else {
        let network = Arc::clone(network);
        return Ok(speaking_http(builder.with_cert_resolver(network)));
    };
    let bytes = config::public_bytes(certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let chain = chain.map_err(|e| wrong(certificate, format!("this is no PEM file: {e}")))?;
    if chain.is_empty() {
        let message = "no certificate is in it; give a PEM file";
        return Err(wrong(certificate, message.into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&config::secret_bytes(key_file)?);
    let key = key.map_err(|e| wrong(key_file, format!("no private key is in it: {e}")))?;
    let built = builder.with_single_cert(chain, key);
    let built =
        built.map_err(|e| wrong(key_file, format!("it doesn't fit the certificate: {e}")))?;
    Ok(speaking_http(built))
}

fn speaking_http(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Takes any certificate whose key the browser has. Whose it is, and whether it counts, each
/// configured authority says afterwards, on a page that can tell why not.
#[derive(Debug)]
struct Possession(Arc<CryptoProvider>);

impl ClientCertVerifier for Possession {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
