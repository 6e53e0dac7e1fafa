//! Records by which a device gets a certificate for TLS: ADR 0010.
//!
//! Certificates are X.509 (RFC 5280) in DER and opaque here: an owner's tool makes them, browsers
//! judge them, and nothing in between reads them.

pub mod talk;

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::envelope::RecordKind;
use crate::hash::{self, Hash};
use crate::id::{NetworkId, Serial, SigningKey};
use crate::record::Body;
use crate::time::UnixTime;

/// The largest certificate in a record, in bytes of DER: what fits with everything around it.
pub const MAX_CERTIFICATE_BYTES: usize = 790;

/// The name of a gateway's login page, which no app can have a certificate for.
pub const LOGIN: &str = "login";

/// The certificate of the network's authority, self-signed. Signed by an owner, one a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsAuthority {
    /// When it was made.
    pub issued: UnixTime,
    /// When it ends.
    pub expires: UnixTime,
    /// The certificate in DER.
    pub certificate: Vec<u8, MAX_CERTIFICATE_BYTES>,
}

impl Body for TlsAuthority {
    const KIND: RecordKind = RecordKind::TLS_AUTHORITY;
}

impl TlsAuthority {
    /// What certificates name it by.
    pub fn hash(&self) -> Hash {
        authority_hash(&self.certificate)
    }
}

/// What is asked for a certificate. Signed by the device; the subject is the app's key, or the
/// device's if it asks for its login page. It stands until another takes its place, so it asks for
/// each renewal too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsRequest {
    /// The key of the app on this device; none asks for the gateway's login page.
    pub app: Option<SigningKey>,
    /// The public key, made on the device: x and y of a P-256 point (SEC 1 section 2.3.3).
    pub key: [[u8; 32]; 2],
    /// That key's ECDSA signature over [`key_proof`] with SHA-256: r and s. Whoever makes the
    /// certificate judges it.
    pub proof: [[u8; 32]; 2],
}

impl Body for TlsRequest {
    const KIND: RecordKind = RecordKind::TLS_REQUEST;
}

impl TlsRequest {
    /// What it asks for, if `device` signed it: the app, or the device itself.
    pub fn subject(&self, device: &SigningKey) -> SigningKey {
        self.app.unwrap_or(*device)
    }
}

/// A certificate that was asked for. Signed by an owner; the subject is the request's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsCertificate {
    /// The app, or the device if it is for its login page.
    pub subject: SigningKey,
    /// The serial of the request that it answers.
    pub request: Serial,
    /// [`TlsAuthority::hash`] of who made it.
    pub authority: Hash,
    /// When it ends.
    pub expires: UnixTime,
    /// The certificate in DER.
    pub certificate: Vec<u8, MAX_CERTIFICATE_BYTES>,
}

impl Body for TlsCertificate {
    const KIND: RecordKind = RecordKind::TLS_CERTIFICATE;
}

/// What a TLS key signs to show that who asks for a certificate has it.
pub fn key_proof(
    network: &NetworkId,
    device: &SigningKey,
    subject: &SigningKey,
    key: &[[u8; 32]; 2],
) -> Hash {
    hash::labelled(
        "altnet tls key v1",
        &[&network.0, &device.0, &subject.0, key.as_flattened()],
    )
}

/// What a certificate names its authority by: a hash of that one's certificate.
pub fn authority_hash(certificate: &[u8]) -> Hash {
    hash::labelled("altnet tls authority v1", &[certificate])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{self, Header, MAX_RECORD_BYTES};

    #[test]
    fn the_largest_certificate_fits_into_a_record() {
        let body = TlsCertificate {
            subject: SigningKey([1; 32]),
            request: Serial(u64::MAX),
            authority: [2; 32],
            expires: UnixTime::from_secs(u64::MAX),
            certificate: Vec::from_slice(&[3; MAX_CERTIFICATE_BYTES]).unwrap(),
        };
        let header = Header {
            network: NetworkId([4; 32]),
            kind: TlsCertificate::KIND,
            version: TlsCertificate::VERSION,
            signer: SigningKey([5; 32]),
            serial: Serial(u64::MAX),
        };
        let mut buffer = [0; MAX_RECORD_BYTES];
        let bytes = postcard::to_slice(&body, &mut buffer).unwrap();
        let mut out = [0; MAX_RECORD_BYTES];
        assert!(envelope::write(&header, bytes, &mut out, |_| [6; 64]).is_ok());
    }
}
