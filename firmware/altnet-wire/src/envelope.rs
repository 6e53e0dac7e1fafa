//! The one envelope every record travels in.
//!
//! ```text
//! network 32 | type varint(u16) | version u8 | signer 32 | serial varint(u64) | body length varint, body | signature 64
//! ```
//! The fields are postcard's. The signature is Ed25519 (RFC 8032) over the 32 bytes
//! `BLAKE2s(label "altnet record v1", every byte before the signature)`, so that what was
//! received is what is judged: a record is never re-encoded to be verified or passed on.
//! An encoding other than the one shortest form is refused.

use serde::{Deserialize, Serialize};

use crate::canonical::{self, NotCanonical};
use crate::hash::{self, Hash};
use crate::id::{self, NetworkId, RecordId, Serial, SigningKey};

/// Bytes in a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The largest record of any type but [`RecordKind::POLICY`], whole envelope, in bytes.
pub const MAX_RECORD_BYTES: usize = 1024;

/// The largest policy record, whole envelope, in bytes.
pub const MAX_POLICY_BYTES: usize = 16 * 1024;

/// What a record is about. The numbers are on the wire and are never used again for
/// anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordKind(pub u16);

impl RecordKind {
    /// [`crate::record::Genesis`].
    pub const GENESIS: Self = Self(1);
    /// [`crate::record::OwnerChange`].
    pub const OWNER_CHANGE: Self = Self(2);
    /// [`crate::record::IssuerCertificate`].
    pub const ISSUER_CERTIFICATE: Self = Self(3);
    /// [`crate::record::Membership`].
    pub const MEMBERSHIP: Self = Self(4);
    /// [`crate::record::NodeRecord`].
    pub const NODE: Self = Self(5);
    /// [`crate::record::HostRecord`].
    pub const HOST: Self = Self(6);
    /// [`crate::record::AppRecord`].
    pub const APP: Self = Self(7);
    /// [`crate::policy::Policy`].
    pub const POLICY: Self = Self(8);
    /// [`crate::record::Revocation`].
    pub const REVOCATION: Self = Self(9);
    /// [`crate::record::Invite`].
    pub const INVITE: Self = Self(10);
    /// [`crate::record::NetworkHead`].
    pub const NETWORK_HEAD: Self = Self(11);
    /// Reserved: a route to another network.
    pub const ROUTE: Self = Self(12);
    /// Reserved: two networks that peer.
    pub const PEERING: Self = Self(13);
    /// Reserved: a release of an app.
    pub const APP_RELEASE: Self = Self(14);
    /// Reserved: the head of an audit log.
    pub const AUDIT_HEAD: Self = Self(15);
    /// [`crate::tls::TlsAuthority`].
    pub const TLS_AUTHORITY: Self = Self(16);
    /// [`crate::tls::TlsRequest`].
    pub const TLS_REQUEST: Self = Self(17);
    /// [`crate::tls::TlsCertificate`].
    pub const TLS_CERTIFICATE: Self = Self(18);
    /// [`crate::record::DerpRecord`].
    pub const DERP: Self = Self(19);

    /// The largest envelope of this kind in bytes.
    pub const fn max_bytes(self) -> usize {
        if self.0 == Self::POLICY.0 {
            MAX_POLICY_BYTES
        } else {
            MAX_RECORD_BYTES
        }
    }

    /// The name a person reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::GENESIS => "genesis",
            Self::OWNER_CHANGE => "owner-change",
            Self::ISSUER_CERTIFICATE => "issuer-certificate",
            Self::MEMBERSHIP => "membership",
            Self::NODE => "node",
            Self::HOST => "host",
            Self::APP => "app",
            Self::POLICY => "policy",
            Self::REVOCATION => "revocation",
            Self::INVITE => "invite",
            Self::NETWORK_HEAD => "network-head",
            Self::TLS_AUTHORITY => "tls-authority",
            Self::TLS_REQUEST => "tls-request",
            Self::TLS_CERTIFICATE => "tls-certificate",
            Self::DERP => "derp",
            _ => "unknown",
        }
    }
}

/// The fields in front of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The network; all zero in a genesis, whose hash the network's id is.
    pub network: NetworkId,
    /// What the body is.
    pub kind: RecordKind,
    /// The version of the body's format ([`crate::record::Body::VERSION`]).
    pub version: u8,
    /// The key that signed.
    pub signer: SigningKey,
    /// Newer than every smaller one about the same thing.
    pub serial: Serial,
}

/// A record as received: checked in form, its signature not yet judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope<'a> {
    header: Header,
    body: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
    bytes: &'a [u8],
}

/// Bytes that are not an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Too short, or a length inside points past the end.
    #[error("the record is cut off or damaged")]
    Damaged,
    /// More bytes than this kind may have.
    #[error("the record has {found} bytes, more than the {limit} of its kind")]
    TooLarge {
        /// Bytes of the envelope.
        found: usize,
        /// Most bytes for its kind.
        limit: usize,
    },
    /// Another encoding of the same fields than the shortest.
    #[error("the record is not in canonical form")]
    NotCanonical,
    /// There is no room to write the envelope to.
    #[error("no room for the record")]
    NoRoom,
}

impl From<NotCanonical> for EnvelopeError {
    fn from(error: NotCanonical) -> Self {
        match error {
            NotCanonical::Damaged => Self::Damaged,
            NotCanonical::OtherForm => Self::NotCanonical,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    network: NetworkId,
    kind: u16,
    version: u8,
    signer: SigningKey,
    serial: Serial,
    #[serde(borrow)]
    body: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Reads an envelope that takes up all of `bytes`.
    ///
    /// # Errors
    /// See [`EnvelopeError`]. The signature is not checked here.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(EnvelopeError::TooLarge {
                found: bytes.len(),
                limit: MAX_POLICY_BYTES,
            });
        }
        let (signed, signature) = bytes
            .split_last_chunk::<SIGNATURE_BYTES>()
            .ok_or(EnvelopeError::Damaged)?;
        let fields: Fields<'a> = canonical::decode(signed)?;
        let kind = RecordKind(fields.kind);
        if bytes.len() > kind.max_bytes() {
            return Err(EnvelopeError::TooLarge {
                found: bytes.len(),
                limit: kind.max_bytes(),
            });
        }
        Ok(Self {
            header: Header {
                network: fields.network,
                kind,
                version: fields.version,
                signer: fields.signer,
                serial: fields.serial,
            },
            body: fields.body,
            signature: *signature,
            bytes,
        })
    }

    /// The fields in front of the body.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The body, to be read by the type that its kind and version name.
    pub const fn body(&self) -> &'a [u8] {
        self.body
    }

    /// The signature over [`Envelope::signed_hash`].
    pub const fn signature(&self) -> &[u8; SIGNATURE_BYTES] {
        &self.signature
    }

    /// The whole envelope as received.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What the signature is over.
    pub fn signed_hash(&self) -> Hash {
        let end = self.bytes.len().saturating_sub(SIGNATURE_BYTES);
        signed_hash(self.bytes.get(..end).unwrap_or(&[]))
    }

    /// The record's id: the hash of the whole envelope.
    pub fn id(&self) -> RecordId {
        id::record_id(self.bytes)
    }
}

fn signed_hash(before_signature: &[u8]) -> Hash {
    hash::labelled("altnet record v1", &[before_signature])
}

/// Writes an envelope into `out`: `sign` is given the hash to sign and returns the signature.
/// Returns the envelope's bytes.
///
/// # Errors
/// [`EnvelopeError::NoRoom`] or [`EnvelopeError::TooLarge`].
pub fn write<'o>(
    header: &Header,
    body: &[u8],
    out: &'o mut [u8],
    sign: impl FnOnce(&Hash) -> [u8; SIGNATURE_BYTES],
) -> Result<&'o [u8], EnvelopeError> {
    let fields = Fields {
        network: header.network,
        kind: header.kind.0,
        version: header.version,
        signer: header.signer,
        serial: header.serial,
        body,
    };
    let used = postcard::to_slice(&fields, out)
        .map_err(|_| EnvelopeError::NoRoom)?
        .len();
    let total = used + SIGNATURE_BYTES;
    if total > header.kind.max_bytes() {
        return Err(EnvelopeError::TooLarge {
            found: total,
            limit: header.kind.max_bytes(),
        });
    }
    let (signed, rest) = out.split_at_mut(used);
    let signature = sign(&signed_hash(signed));
    rest.get_mut(..SIGNATURE_BYTES)
        .ok_or(EnvelopeError::NoRoom)?
        .copy_from_slice(&signature);
    out.get(..total).ok_or(EnvelopeError::NoRoom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn header(kind: u16, version: u8, serial: u64) -> Header {
        Header {
            network: NetworkId([1; 32]),
            kind: RecordKind(kind),
            version,
            signer: SigningKey([2; 32]),
            serial: Serial(serial),
        }
    }

    #[test]
    fn a_longer_encoding_of_the_same_fields_is_refused() {
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = write(&header(4, 1, 5), b"body", &mut out, |_| [9; 64]).unwrap();
        assert!(Envelope::parse(bytes).is_ok());
        // The type 4 as two varint bytes, 0x84 0x00, says the same and is refused.
        let mut long = Vec::from(bytes);
        long[32] = 0x84;
        long.insert(33, 0);
        assert_eq!(Envelope::parse(&long), Err(EnvelopeError::NotCanonical));
    }

    #[test]
    fn a_record_larger_than_its_kind_may_be_is_refused() {
        let mut out = [0; MAX_POLICY_BYTES];
        let body = [0; MAX_RECORD_BYTES];
        assert!(matches!(
            write(&header(4, 1, 5), &body, &mut out, |_| [9; 64]),
            Err(EnvelopeError::TooLarge { .. })
        ));
        let policy = write(&header(8, 1, 5), &body, &mut out, |_| [9; 64]).unwrap();
        assert!(Envelope::parse(policy).is_ok());
    }

    proptest! {
        #[test]
        fn an_envelope_reads_back_what_was_written(kind: u16, version: u8, serial: u64, body in proptest::collection::vec(any::<u8>(), 0..800)) {
            let header = header(kind, version, serial);
            let mut out = [0; MAX_RECORD_BYTES];
            let bytes = write(&header, &body, &mut out, |_| [9; 64]).unwrap();
            let envelope = Envelope::parse(bytes).unwrap();
            prop_assert_eq!(envelope.header(), &header);
            prop_assert_eq!(envelope.body(), &body[..]);
            prop_assert_eq!(envelope.bytes(), bytes);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            if let Ok(envelope) = Envelope::parse(&bytes) {
                prop_assert_eq!(envelope.bytes(), &bytes[..]);
            }
        }
    }
}
