//! OCSP (RFC 6960): asks a responder about one certificate, and judges what it says.
//!
//! In: a certificate's serial and its issuer's name and key, both out of a path that webpki has
//! verified. Out: good, revoked or unknown, signed by the issuer, by a responder to whom the issuer
//! gave the right, or by one that the config names.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::{
    CertificateDer, Der, SignatureVerificationAlgorithm, TrustAnchor, UnixTime,
};
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::der::asn1::{
    AnyRef, BitStringRef, ContextSpecific, ObjectIdentifier, OctetString, OctetStringRef,
};
use x509_cert::der::{
    self, Decode as _, Encode as _, Reader as _, SliceReader, TagNumber, Tagged as _,
};
use x509_cert::ext::Extension;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoRef};
use x509_ocsp::ext::Nonce;
use x509_ocsp::{
    CertId, CertStatus, OcspRequest, OcspResponse, OcspResponseStatus, Request, ResponderId,
    ResponseData, SingleResponse, TbsRequest,
};

/// How far the responder's clock may be ahead of this one.
const SKEW: Duration = Duration::from_secs(300);
/// How old an answer may be that doesn't say when the next one comes.
const FRESH: Duration = Duration::from_secs(600);
/// How many of the certificates in an answer are looked at.
const MAX_CERTIFICATES: usize = 4;
/// How many bytes of chance tell an answer to this question from a recorded one (RFC 9654 wants 32).
pub const NONCE_BYTES: usize = 32;

const SHA1_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.14.3.2.26");
const SHA256_OID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
/// id-kp-OCSPSigning, 1.3.6.1.5.5.7.3.9, as DER has it.
const OCSP_SIGNING: &[u8] = &[43, 6, 1, 5, 5, 7, 3, 9];

/// What a responder says of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked,
    Unknown,
}

/// Why an answer is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("it sent what isn't OCSP")]
    Malformed,
    #[error("it declined with status {0}")]
    Declined(u8),
    #[error("it answered for another certificate")]
    OtherCertificate,
    #[error("its answer isn't signed by the CA or by a responder of the CA")]
    Signature,
    #[error("its answer doesn't repeat the nonce; set ocsp_nonce = \"optional\" if it never does")]
    NoNonce,
    #[error("its answer is to another question")]
    OtherNonce,
    #[error("its answer is older than it may be, or from the future")]
    Stale,
}

impl Fault {
    /// Whether the question with the other hash may still be answered.
    pub fn may_be_the_hash(self) -> bool {
        // Responders say malformed (1) or unauthorized (6) to a CertID that they can't look up.
        matches!(self, Fault::Declined(1 | 6) | Fault::OtherCertificate)
    }
}

impl From<der::Error> for Fault {
    fn from(_: der::Error) -> Fault {
        Fault::Malformed
    }
}

/// By which hash a question names the issuer. No secret hangs on it: SHA-1 serves as a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha1,
}

/// Who issued a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// Its name, without the header of the SEQUENCE, as webpki has it.
    pub name: Vec<u8>,
    /// Its SubjectPublicKeyInfo, with the header.
    pub key: Vec<u8>,
}

impl Issuer {
    /// The issuer's name with its header.
    fn named(&self) -> Result<Vec<u8>, der::Error> {
        AnyRef::new(der::Tag::Sequence, &self.name)?.to_der()
    }

    fn anchor(&self) -> Result<TrustAnchor<'_>, der::Error> {
        let key = AnyRef::from_der(&self.key)?;
        Ok(TrustAnchor {
            subject: Der::from_slice(&self.name),
            subject_public_key_info: Der::from_slice(key.value()),
            name_constraints: None,
        })
    }
}

/// A question, to be compared with its answer.
#[derive(Clone, Debug)]
pub struct Question {
    id: CertId,
    nonce: Vec<u8>,
}

impl Question {
    /// Asks about `serial`, as the bytes of its INTEGER, of `issuer`.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for a serial or key that isn't one.
    pub fn new(
        issuer: &Issuer,
        serial: &[u8],
        hash: Hash,
        nonce: &[u8],
    ) -> Result<Question, Fault> {
        let (algorithm, oid) = match hash {
            Hash::Sha256 => (&SHA256, SHA256_OID),
            Hash::Sha1 => (&SHA1_FOR_LEGACY_USE_ONLY, SHA1_OID),
        };
        let hashed = |bytes: &[u8]| OctetString::new(digest(algorithm, bytes).as_ref());
        let key = SubjectPublicKeyInfoRef::from_der(&issuer.key)?;
        Ok(Question {
            id: CertId {
                hash_algorithm: AlgorithmIdentifierOwned {
                    oid,
                    parameters: Some(AnyRef::NULL.into()),
                },
                issuer_name_hash: hashed(&issuer.named()?)?,
                issuer_key_hash: hashed(key.subject_public_key.raw_bytes())?,
                serial_number: SerialNumber::new(serial)?,
            },
            nonce: nonce.to_vec(),
        })
    }

    /// The request's bytes.
    ///
    /// # Errors
    /// Never in practice; DER has a bound on lengths.
    pub fn encode(&self) -> Result<Vec<u8>, Fault> {
        let nonce = OctetStringRef::new(&self.nonce)?.to_der()?;
        let request = OcspRequest {
            tbs_request: TbsRequest {
                request_list: vec![Request {
                    req_cert: self.id.clone(),
                    single_request_extensions: None,
                }],
                request_extensions: Some(vec![Extension {
                    extn_id: NONCE,
                    critical: false,
                    extn_value: OctetString::new(nonce)?,
                }]),
                ..TbsRequest::default()
            },
            optional_signature: None,
        };
        Ok(request.to_der()?)
    }

    fn is_for(&self, id: &CertId) -> bool {
        // Parameters are NULL or absent, as the responder likes.
        id.hash_algorithm.oid == self.id.hash_algorithm.oid
            && id.issuer_name_hash == self.id.issuer_name_hash
            && id.issuer_key_hash == self.id.issuer_key_hash
            && id.serial_number == self.id.serial_number
    }
}

/// Who may sign an answer, besides the issuer itself.
pub struct Signers<'a> {
    /// What signatures count.
    pub algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    /// Responders, or CAs of responders, that the config names.
    pub named: &'a [CertificateDer<'a>],
}

/// What `bytes` answer to `question`.
///
/// # Errors
/// [`Fault`]; all but a decline mean that the bytes must not be believed.
///
/// Source: RFC 6960 section 3.2, the six things to check before an answer counts.
pub fn judge(
    bytes: &[u8],
    question: &Question,
    issuer: &Issuer,
    signers: &Signers<'_>,
    needs_nonce: bool,
    now: UnixTime,
) -> Result<Status, Fault> {
    let response = OcspResponse::from_der(bytes)?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(Fault::Declined(response.response_status as u8));
    }
    let inner = response.response_bytes.ok_or(Fault::Malformed)?;
    if inner.response_type != BASIC {
        return Err(Fault::Malformed);
    }
    let signed = Signed::parse(inner.response.as_bytes())?;
    let data = ResponseData::from_der(signed.data)?;
    if !signed.is_by_a_signer(&data.responder_id, issuer, signers, now)? {
        return Err(Fault::Signature);
    }
    // From here on the bytes are the responder's.
    check_nonce(&data, question, needs_nonce)?;
    let mut answers = data.responses.iter();
    let answer = answers
        .find(|answer| question.is_for(&answer.cert_id))
        .ok_or(Fault::OtherCertificate)?;
    if has_unknown_critical(&data.response_extensions)
        || has_unknown_critical(&answer.single_extensions)
    {
        return Err(Fault::Malformed);
    }
    check_time(answer, now)?;
    Ok(match answer.cert_status {
        CertStatus::Good(_) => Status::Good,
        CertStatus::Revoked(_) => Status::Revoked,
        CertStatus::Unknown(_) => Status::Unknown,
    })
}

fn check_nonce(data: &ResponseData, question: &Question, needs: bool) -> Result<(), Fault> {
    let mut extensions = data.response_extensions.iter().flatten();
    let Some(extension) = extensions.find(|one| one.extn_id == NONCE) else {
        return if needs { Err(Fault::NoNonce) } else { Ok(()) };
    };
    let nonce = Nonce::from_der(extension.extn_value.as_bytes())?;
    match nonce.0.as_bytes() == question.nonce {
        true => Ok(()),
        false => Err(Fault::OtherNonce),
    }
}

fn has_unknown_critical(extensions: &Option<Vec<Extension>>) -> bool {
    let mut extensions = extensions.iter().flatten();
    extensions.any(|one| one.critical && one.extn_id != NONCE)
}

/// RFC 6960 section 4.2.2.1: an answer holds from thisUpdate to nextUpdate; without the latter newer
/// ones are to be had at any time.
fn check_time(answer: &SingleResponse, now: UnixTime) -> Result<(), Fault> {
    let from = answer.this_update.0.to_unix_duration();
    let now = Duration::from_secs(now.as_secs());
    let until = match &answer.next_update {
        Some(next) => next.0.to_unix_duration(),
        None => from + FRESH,
    };
    match from <= now + SKEW && now <= until {
        true => Ok(()),
        false => Err(Fault::Stale),
    }
}

/// A BasicOCSPResponse in its parts, as they were sent: what is signed must not be written anew.
struct Signed<'a> {
    data: &'a [u8],
    /// The AlgorithmIdentifier without its header, as webpki's algorithms name themselves.
    algorithm: &'a [u8],
    signature: &'a [u8],
    certificates: Vec<&'a [u8]>,
}

impl<'a> Signed<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Signed<'a>, Fault> {
        let mut outer = SliceReader::new(bytes)?;
        let signed = outer.sequence(|reader| {
            let data = reader.tlv_bytes()?;
            let algorithm = sequence(AnyRef::decode(reader)?)?;
            let signature = BitStringRef::decode(reader)?;
            let signature = signature.as_bytes().ok_or(der::ErrorKind::Failed)?;
            let list = ContextSpecific::<AnyRef<'a>>::decode_explicit(reader, TagNumber::N0)?;
            let mut certificates = Vec::new();
            if let Some(list) = list {
                let mut list = SliceReader::new(sequence(list.value)?)?;
                while !list.is_finished() && certificates.len() < MAX_CERTIFICATES {
                    certificates.push(list.tlv_bytes()?);
                }
            }
            Ok(Signed {
                data,
                algorithm,
                signature,
                certificates,
            })
        })?;
        outer.finish(signed).map_err(Fault::from)
    }

    /// RFC 6960 section 4.2.2.2: by the issuer, by who is configured, or by whom the issuer itself
    /// gave id-kp-OCSPSigning.
    fn is_by_a_signer(
        &self,
        id: &ResponderId,
        issuer: &Issuer,
        signers: &Signers<'_>,
        now: UnixTime,
    ) -> Result<bool, Fault> {
        let is_it = |name: &[u8], key: &[u8]| -> Result<bool, Fault> {
            Ok(names(id, name, key)? && self.is_by(key, signers.algorithms))
        };
        if is_it(&issuer.named()?, &issuer.key)? {
            return Ok(true);
        }
        let mut anchors = vec![issuer.anchor()?];
        for named in signers.named {
            let Ok(certificate) = EndEntityCert::try_from(named) else {
                continue;
            };
            let key = certificate.subject_public_key_info();
            let name = AnyRef::new(der::Tag::Sequence, certificate.subject())?.to_der()?;
            if is_it(&name, &key)? {
                return Ok(true);
            }
            anchors.extend(webpki::anchor_from_trusted_cert(named));
        }
        for certificate in &self.certificates {
            let certificate = CertificateDer::from(*certificate);
            let Ok(certificate) = EndEntityCert::try_from(&certificate) else {
                continue;
            };
            let is_delegated = certificate
                .verify_for_usage(
                    signers.algorithms,
                    &anchors,
                    // None between: the issuer must have signed it directly.
                    &[],
                    now,
                    KeyUsage::required(OCSP_SIGNING),
                    None,
                    None,
                )
                .is_ok();
            let key = certificate.subject_public_key_info();
            let name = AnyRef::new(der::Tag::Sequence, certificate.subject())?.to_der()?;
            if is_delegated && is_it(&name, &key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_by(&self, key: &[u8], algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
        let Ok(key) = SubjectPublicKeyInfoRef::from_der(key) else {
            return false;
        };
        let Ok(kind) = key.algorithm.to_der() else {
            return false;
        };
        let Ok(kind) = AnyRef::from_der(&kind) else {
            return false;
        };
        algorithms.iter().any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == self.algorithm
                && algorithm.public_key_alg_id().as_ref() == kind.value()
                && algorithm
                    .verify_signature(
                        key.subject_public_key.raw_bytes(),
                        self.data,
                        self.signature,
                    )
                    .is_ok()
        })
    }
}

fn sequence(element: AnyRef<'_>) -> Result<&[u8], der::Error> {
    element.tag().assert_eq(der::Tag::Sequence)?;
    Ok(element.value())
}

/// Whether a responder's id is this name, or the SHA-1 of this key.
fn names(id: &ResponderId, name: &[u8], key: &[u8]) -> Result<bool, Fault> {
    Ok(match id {
        ResponderId::ByName(id) => id.to_der()? == name,
        ResponderId::ByKey(id) => {
            let key = SubjectPublicKeyInfoRef::from_der(key)?;
            let hash = digest(
                &SHA1_FOR_LEGACY_USE_ONLY,
                key.subject_public_key.raw_bytes(),
            );
            id.as_bytes() == hash.as_ref()
        }
    })
}

#[cfg(test)]
mod tests;
