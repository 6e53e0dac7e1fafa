//! What a certificate says of itself that decides when it is renewed.
//!
//! In: PEM as the relay finds it, key and chain in one text. Out: names, dates, and by what its
//! authority knows it. Dates aren't judged here. The chain came from an authority over the network:
//! whatever it is, it is either read or refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use altnet_relay::acme::MAX_FILE_BYTES;
use data_encoding::HEXLOWER;
use instant_acme::CertificateIdentifier;
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, Der, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectAltName};

/// The most certificates in a chain.
const MAX_CHAIN: usize = 10;
/// The most names that are read.
const MAX_NAMES: usize = 100;

/// A server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its host names.
    pub names: Vec<String>,
    /// From when it is good, in seconds since 1970.
    pub not_before_s: u64,
    /// Until when.
    pub not_after_s: u64,
    /// Its SHA-256, in hexadecimal.
    pub hash: String,
    /// Who signed it, as it is written for people.
    pub issuer: Option<String>,
    /// What its authority calls it when it speaks of renewal (RFC 9773 section 4.1).
    pub ari: Option<CertificateIdentifier<'static>>,
}

/// Why what an authority sent is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// The relay wouldn't read it to its end.
    #[error("with its key it is longer than {MAX_FILE_BYTES} bytes")]
    TooLong,
    /// It isn't PEM, or too long a chain.
    #[error("it is no chain of certificates with a key, in PEM")]
    NotPem,
    /// The first certificate can't be read.
    #[error("its first certificate can't be read")]
    NoCertificate,
    /// The certificate isn't for the key, or of a kind that isn't spoken.
    #[error("the certificate and the key don't fit: {0}")]
    Key(rustls::Error),
}

impl Leaf {
    /// Reads a key and the chain that belongs to it.
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn of_pem(text: &[u8]) -> Result<Self, Unfit> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text)
            .take(MAX_CHAIN + 1)
            .collect();
        let chain = chain.map_err(|_| Unfit::NotPem)?;
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|_| Unfit::NotPem)?;
        let leaf = chain.first().filter(|_| chain.len() <= MAX_CHAIN);
        let leaf = Self::of_der(leaf.ok_or(Unfit::NotPem)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        CertifiedKey::from_der(chain, key, &provider).map_err(Unfit::Key)?;
        Ok(leaf)
    }

    fn of_der(der: &CertificateDer<'_>) -> Result<Self, Unfit> {
        let certificate = Certificate::from_der(der).map_err(|_| Unfit::NoCertificate)?;
        let tbs = certificate.tbs_certificate;
        let names = tbs.get::<SubjectAltName>();
        let names = names.map_err(|_| Unfit::NoCertificate)?;
        let names = names.map_or_else(Vec::new, |(_, names)| {
            let names = names.0.into_iter().take(MAX_NAMES);
            let names = names.filter_map(|name| match name {
                GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
                _ => None,
            });
            names.collect()
        });
        let authority = tbs.get::<AuthorityKeyIdentifier>().ok().flatten();
        let authority = authority.and_then(|(_, authority)| authority.key_identifier);
        let serial = tbs.serial_number.as_bytes();
        let ari = authority.map(|authority| {
            CertificateIdentifier::new(
                Der::from_slice(authority.as_bytes()),
                Der::from_slice(serial),
            )
            .into_owned()
        });
        let issuer = tbs.issuer.to_string();
        let is_shown = tbs.issuer.to_der().is_ok_and(|der| der.len() <= 512);
        Ok(Self {
            names,
            not_before_s: tbs.validity.not_before.to_unix_duration().as_secs(),
            not_after_s: tbs.validity.not_after.to_unix_duration().as_secs(),
            hash: HEXLOWER.encode(digest(&SHA256, der).as_ref()),
            issuer: is_shown.then_some(issuer),
            ari,
        })
    }

    /// How long it is good in all, in seconds.
    pub const fn life_s(&self) -> u64 {
        self.not_after_s.saturating_sub(self.not_before_s)
    }

    /// Whether it is good at a time.
    pub const fn is_good(&self, now_s: u64) -> bool {
        self.not_before_s <= now_s && now_s < self.not_after_s
    }

    /// Whether it is for these names and no others.
    pub fn is_for(&self, names: &[String]) -> bool {
        let own: BTreeSet<_> = self.names.iter().collect();
        own == names.iter().collect()
    }
}

/// Takes any bytes in the place of what an authority sends.
pub fn untrusted(bytes: &[u8]) {
    let _ = Leaf::of_pem(bytes);
    if let Ok(leaf) = Leaf::of_der(&CertificateDer::from(bytes)) {
        let _ = (leaf.life_s(), leaf.is_for(&[]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, CertifiedIssuer, KeyPair, SerialNumber, date_time_ymd};

    /// A key with its certificate of 2026, signed by an authority.
    fn made(names: &[&str]) -> String {
        let mut authority = CertificateParams::default();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 1, 31);
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&[0x87, 0x65, 0x43, 0x21]));
        let certificate = params.signed_by(&key, &authority.unwrap()).unwrap();
        key.serialize_pem() + &certificate.pem()
    }

    #[test]
    fn a_certificate_says_its_names_and_dates() {
        let text = made(&["B.example", "a.example"]);
        let leaf = Leaf::of_pem(text.as_bytes()).unwrap();
        assert_eq!(leaf.names, ["b.example", "a.example"]);
        assert_eq!(leaf.not_before_s, 1_767_225_600);
        assert_eq!(leaf.life_s(), 30 * 24 * 3600);
        assert!(leaf.is_good(leaf.not_before_s) && !leaf.is_good(leaf.not_after_s));
        let names = ["a.example", "b.example"].map(String::from);
        assert!(leaf.is_for(&names) && !leaf.is_for(&names[..1]));
        // As in the example of RFC 9773 section 4.1, with the zero that DER puts before it.
        assert_eq!(leaf.ari.unwrap().serial, "AIdlQyE");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (text, other) = (made(&["a.example"]), made(&["a.example"]));
        let split = |text: &str| {
            let (key, chain) = text.split_once("-----BEGIN CERTIFICATE").unwrap();
            (key.to_owned(), format!("-----BEGIN CERTIFICATE{chain}"))
        };
        let ((key, chain), (others_key, _)) = (split(&text), split(&other));
        let refused = |text: &str| Leaf::of_pem(text.as_bytes()).unwrap_err();
        assert!(matches!(refused(&(others_key + &chain)), Unfit::Key(_)));
        assert!(matches!(refused(&key), Unfit::NotPem));
        assert!(matches!(refused(&chain), Unfit::NotPem));
        let long = key + &chain.repeat(MAX_CHAIN + 1);
        assert!(matches!(refused(&long), Unfit::NotPem));
        for length in 0..text.trim_end().len() {
            assert!(
                Leaf::of_pem(&text.as_bytes()[..length]).is_err(),
                "{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, at in any::<prop::sample::Index>(), flipped in 1_u8..) {
            untrusted(&bytes);
            let text = made(&["a.example"]);
            let mut der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap().to_vec();
            let at = at.index(der.len());
            der[at] ^= flipped;
            untrusted(&der);
        }
    }
}
