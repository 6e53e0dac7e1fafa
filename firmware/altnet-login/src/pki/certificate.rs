//! What a certificate says that webpki keeps to itself: names, groups, and where its CA answers.
//!
//! Read only after webpki has found the certificate's path to a CA of the config, so a stranger's
//! certificate never says which URL to fetch.

use rustls::pki_types::{CertificateDer, UnixTime};
use x509_cert::Certificate;
use x509_cert::der::asn1::{
    Ia5StringRef, ObjectIdentifier, PrintableStringRef, TeletexStringRef, Utf8StringRef,
};
use x509_cert::der::{Any, Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralName};
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, CrlDistributionPoints, SubjectAltName};

/// How many names, groups or URLs of a kind are taken, and how long one may be.
const MAX_LISTED: usize = 64;
const MAX_TEXT_BYTES: usize = 256;
const MAX_URL_BYTES: usize = 1024;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
const OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");

/// A certificate's own words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The last second in which it is valid.
    pub not_after: Option<UnixTime>,
    pub common_name: Option<String>,
    pub units: Vec<String>,
    pub emails: Vec<String>,
    pub dns_names: Vec<String>,
    /// Where its CRLs are: for each point the URLs of which one is enough.
    pub crl_points: Vec<Vec<String>>,
    /// Where its CA answers OCSP.
    pub ocsp: Vec<String>,
}

impl Facts {
    /// Reads a certificate. `None` if it isn't one, or says a thing twice that it may say once.
    pub fn of(der: &CertificateDer<'_>) -> Option<Facts> {
        let certificate = Certificate::from_der(der).ok()?.tbs_certificate;
        let mut facts = Facts {
            not_after: Some(UnixTime::since_unix_epoch(
                certificate.validity.not_after.to_unix_duration(),
            )),
            ..Facts::default()
        };
        for attribute in certificate.subject.0.iter().flat_map(|part| part.0.iter()) {
            let kept = text(&attribute.value);
            match attribute.oid {
                // The last one is the most specific (RFC 4514 section 2.1).
                COMMON_NAME => facts.common_name = kept,
                ORGANIZATIONAL_UNIT => facts.units.extend(kept),
                _ => {}
            }
        }
        if let Some((_, names)) = certificate.get::<SubjectAltName>().ok()? {
            for name in &names.0 {
                match name {
                    GeneralName::Rfc822Name(name) => facts.emails.extend(fit(name.as_str())),
                    GeneralName::DnsName(name) => facts.dns_names.extend(fit(name.as_str())),
                    _ => {}
                }
            }
        }
        if let Some((_, points)) = certificate.get::<CrlDistributionPoints>().ok()? {
            for point in points.0 {
                if let Some(DistributionPointName::FullName(names)) = point.distribution_point {
                    facts
                        .crl_points
                        .push(names.iter().filter_map(url).collect());
                }
            }
        }
        if let Some((_, accesses)) = certificate.get::<AuthorityInfoAccessSyntax>().ok()? {
            let responders = accesses.0.iter().filter(|one| one.access_method == OCSP);
            let urls = responders.filter_map(|one| url(&one.access_location));
            facts.ocsp = urls.collect();
        }
        let is_bounded = facts.units.len() <= MAX_LISTED
            && facts.crl_points.len() <= MAX_LISTED
            && facts
                .crl_points
                .iter()
                .all(|point| point.len() <= MAX_LISTED);
        is_bounded.then_some(facts)
    }
}

fn url(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::UniformResourceIdentifier(url) => {
            let url = url.as_str();
            (url.len() <= MAX_URL_BYTES && crate::http_get::is_http(url)).then(|| url.to_owned())
        }
        _ => None,
    }
}

/// The text of a DirectoryString, if it fits.
fn text(value: &Any) -> Option<String> {
    match value.tag() {
        Tag::Utf8String => fit(value.decode_as::<Utf8StringRef<'_>>().ok()?.as_str()),
        Tag::PrintableString => fit(value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str()),
        Tag::Ia5String => fit(value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str()),
        Tag::TeletexString => fit(value.decode_as::<TeletexStringRef<'_>>().ok()?.as_str()),
        _ => None,
    }
}

/// A name that can be shown and compared: no control character, not empty, not without end.
fn fit(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= MAX_TEXT_BYTES;
    (fits && !text.chars().any(char::is_control)).then(|| text.to_owned())
}
