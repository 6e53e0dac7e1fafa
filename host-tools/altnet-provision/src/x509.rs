//! The certificates of a network's authority for TLS (X.509, RFC 5280).
//!
//! In: names, keys, times. Out: DER. The authority's own certificate carries critical name
//! constraints (section 4.2.1.10): names below the network's, nothing else, and no IP address,
//! which a constraint on names alone would leave open. It is for servers alone, and nothing can be
//! certified to certify. So who trusts it trusts it for the network and for nothing besides.

use std::time::Duration;

use altnet_wire::id::{Name, NetworkId};
use altnet_wire::time::UnixTime;
use altnet_wire::tls::MAX_CERTIFICATE_BYTES;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber,
    SignatureAlgorithm,
};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// How long the authority lasts: ten years.
pub const AUTHORITY: Duration = Duration::from_secs(3652 * 86_400);
/// How long a server's certificate lasts: what browsers take from anybody (398 days), less one.
pub const SERVER: Duration = Duration::from_secs(397 * 86_400);
/// A certificate holds this much before it was made: the clocks of those who look at it differ.
const BEFORE: Duration = Duration::from_secs(86_400);

/// The names that a network's certificates are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    name: Name,
    id: NetworkId,
}

impl Names {
    /// Of the network with this id that began with this name.
    pub const fn new(name: Name, id: NetworkId) -> Self {
        Self { name, id }
    }

    /// The names below which everything is the network's: by what it is called, and by its id.
    pub fn zones(&self) -> [String; 2] {
        [format!("{}.alt", self.name), format!("{}.alt", self.id)]
    }

    /// The names of what is called `host` there.
    pub fn of(&self, host: &str) -> [String; 2] {
        self.zones().map(|zone| format!("{host}.{zone}"))
    }

    fn subject(&self) -> DistinguishedName {
        let id = self.id.to_string();
        let mut subject = DistinguishedName::new();
        // 64 characters at most each (RFC 5280 appendix A.1): a name has 63.
        subject.push(DnType::OrganizationName, self.name.as_str());
        subject.push(
            DnType::CommonName,
            format!("altnet network {}", id.get(..12).unwrap_or(&id)),
        );
        subject
    }
}

/// The authority: its key, and what its certificates are for.
pub struct Authority {
    names: Names,
    key: KeyPair,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({:?})", self.names)
    }
}

/// A P-256 point that somebody else has the secret of, as [`altnet_wire::tls::TlsRequest`] has it.
struct Foreign([u8; 65]);

impl PublicKeyData for Foreign {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A point as it is written uncompressed (SEC 1 section 2.3.3).
pub fn uncompressed(key: &[[u8; 32]; 2]) -> [u8; 65] {
    let mut point = [4; 65];
    point[1..].copy_from_slice(key.as_flattened());
    point
}

impl Authority {
    /// Makes an authority with a new key.
    ///
    /// # Errors
    /// [`Error::Input`] if the operating system gives no chance.
    pub fn generate(names: Names) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        Ok(Self { names, key })
    }

    /// Takes a key that was kept, in PKCS #8.
    ///
    /// # Errors
    /// [`Error::Input`] if it is none.
    pub fn from_key(names: Names, key: &[u8]) -> Result<Self> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key.into(), &PKCS_ECDSA_P256_SHA256)
            .map_err(failed)?;
        Ok(Self { names, key })
    }

    /// The key, to be kept where nobody else reads it, in PKCS #8.
    pub fn key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.key.serialize_der())
    }

    /// Whether a certificate has this authority's key in it: whether it is this authority's own.
    pub fn made(&self, certificate: &[u8]) -> bool {
        let key = self.key.der_bytes();
        certificate.windows(key.len()).any(|window| window == key)
    }

    /// The names that it can certify.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// Its certificate in DER, and when that ends.
    ///
    /// # Errors
    /// [`Error::Input`] if it can't be made.
    pub fn certificate(&self, now: UnixTime) -> Result<(Vec<u8>, UnixTime)> {
        let mut params = self.params();
        let expires = now.after(AUTHORITY);
        last(&mut params, earlier(now), expires);
        params.serial_number = Some(serial()?);
        let made = params.self_signed(&self.key).map_err(failed)?;
        Ok((bounded(made.der())?, expires))
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name = self.names.subject();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: self.names.zones().map(GeneralSubtree::DnsName).into(),
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        params
    }

    /// Certifies that the holder of `key` is what `names` lead to. Returns the certificate in DER,
    /// and when it ends: in [`SERVER`], or with the authority that ends at `end`.
    ///
    /// # Errors
    /// [`Error::Input`] if the names are too long for a record.
    pub fn certify(
        &self,
        names: &[String],
        key: &[[u8; 32]; 2],
        end: UnixTime,
        now: UnixTime,
    ) -> Result<(Vec<u8>, UnixTime)> {
        let issuer_params = self.params();
        let issuer = Issuer::from_params(&issuer_params, &self.key);
        let mut params = CertificateParams::default();
        let begins = earlier(now);
        let expires = begins.after(SERVER).min(end);
        last(&mut params, begins, expires);
        params.serial_number = Some(serial()?);
        // Nothing reads a subject where there are other names (RFC 9525 section 2), and an empty
        // one has no bound of 64.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = names
            .iter()
            .map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)))
            .collect::<std::result::Result<_, rcgen::Error>>()
            .map_err(failed)?;
        params.is_ca = IsCa::NoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = Foreign(uncompressed(key));
        let made = params.signed_by(&key, &issuer).map_err(failed)?;
        Ok((bounded(made.der())?, expires))
    }
}

fn earlier(now: UnixTime) -> UnixTime {
    UnixTime::from_secs(now.as_secs().saturating_sub(BEFORE.as_secs()))
}

fn last(params: &mut CertificateParams, begins: UnixTime, expires: UnixTime) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(begins.as_secs());
    params.not_after = epoch + Duration::from_secs(expires.as_secs());
}

/// 16 octets by chance, positive (RFC 5280 section 4.1.2.2).
fn serial() -> Result<SerialNumber> {
    let mut bytes: [u8; 16] = crate::chance::bytes()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn bounded(der: &[u8]) -> Result<Vec<u8>> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(Error::input(
            format!(
                "the certificate would have {} bytes, and a record has room for {MAX_CERTIFICATE_BYTES}",
                der.len()
            ),
            "Give the app a shorter name.",
        ));
    }
    Ok(der.to_vec())
}

fn failed(error: rcgen::Error) -> Error {
    Error::input(format!("cannot make a certificate: {error}"), "Try again.")
}

/// A certificate as browsers and systems import it: PEM (RFC 7468 section 5).
pub fn pem(der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(&String::from_utf8_lossy(line));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// What people compare: SHA-256 of the certificate, as browsers show it.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let octets: Vec<String> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    octets.join(":")
}
