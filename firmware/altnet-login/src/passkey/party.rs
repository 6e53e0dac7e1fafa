//! Which page this is to a browser: passkeys belong to a name, and to it alone.

use std::net::IpAddr;

use hyper::header::HeaderMap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::config::{self, Config, ConfigError};
use crate::web::request::host;

const HTTPS_PORT: u16 = 443;

/// The page as a browser sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    /// The relying party's id: the page's host name.
    pub id: String,
    /// Its origin, exactly as browsers write it: `https://login.home.alt`.
    pub origin: String,
}

/// The names that the page may be seen under.
#[derive(Debug)]
pub enum Party {
    /// That of the configuration's `url`, and no other.
    Url {
        /// The host's name.
        host: String,
        /// The port.
        port: u16,
    },
    /// Those of its certificate, at the ports it listens on. Another port of the same machine may
    /// be another's page, so a browser's word for the port isn't enough.
    Certificate {
        /// The certificate.
        certificate: CertificateDer<'static>,
        /// The ports.
        ports: Vec<u16>,
    },
}

impl Party {
    /// The page of `config`; nothing if it isn't served over HTTPS.
    ///
    /// # Errors
    /// [`ConfigError`] if the certificate can't be read.
    pub fn new(config: &Config) -> Result<Option<Self>, ConfigError> {
        let Some(tls) = &config.tls else {
            return Ok(None);
        };
        let url = config.url.as_deref();
        if let Some(authority) = url.and_then(|url| url.strip_prefix("https://")) {
            return Ok(split(authority).map(|(host, port)| Self::Url { host, port }));
        }
        let Some((certificate, _)) = tls.files() else {
            return Ok(None);
        };
        let bytes = config::public_bytes(certificate)?;
        let certificate = CertificateDer::from_pem_slice(&bytes);
        Ok(certificate.ok().map(|certificate| Self::Certificate {
            certificate,
            ports: tls.listen.iter().map(|address| address.port()).collect(),
        }))
    }

    /// The page that a request over TLS is for; nothing if it came by an address or by a name that
    /// isn't the page's.
    pub fn at(&self, headers: &HeaderMap) -> Option<Here> {
        let (name, at) = split(host(headers)?)?;
        let is_own = match self {
            Self::Url { host, port } => (host, port) == (&name, &at),
            Self::Certificate { certificate, ports } => {
                ports.contains(&at) && is_named(certificate, &name)
            }
        };
        let origin = match at {
            HTTPS_PORT => format!("https://{name}"),
            port => format!("https://{name}:{port}"),
        };
        is_own.then_some(Here { id: name, origin })
    }
}

/// A host's name in lower case, and a port; nothing if it is an address, which no passkey can be
/// for.
fn split(authority: &str) -> Option<(String, u16)> {
    let authority = authority.parse::<hyper::http::uri::Authority>().ok()?;
    let host = authority.host().to_ascii_lowercase();
    let is_address = host.starts_with('[') || host.parse::<IpAddr>().is_ok();
    let is_name = !host.is_empty() && !host.ends_with('.') && !is_address;
    is_name.then(|| (host, authority.port_u16().unwrap_or(HTTPS_PORT)))
}

fn is_named(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else {
        return false;
    };
    let certificate = webpki::EndEntityCert::try_from(certificate);
    certificate.is_ok_and(|certificate| certificate.verify_is_valid_for_subject_name(&name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(party: &Party, host: &'static str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert("host", host.parse().unwrap());
        let found = party.at(&headers).map(|here| here.origin);
        assert_eq!(found.as_deref(), expected, "{host}");
    }

    #[test]
    fn only_the_pages_own_name_is_taken() {
        let party = Party::Url {
            host: "login.home.alt".into(),
            port: 443,
        };
        check(&party, "login.home.alt", Some("https://login.home.alt"));
        check(&party, "LOGIN.home.alt:443", Some("https://login.home.alt"));
        for other in [
            "login.home.alt:444",
            "login.home.alt.",
            "home.alt",
            "login.home.alt.evil.example",
            "192.0.2.1",
            "[fd00::1]:443",
        ] {
            check(&party, other, None);
        }
        let party = Party::Url {
            host: "login.home.alt".into(),
            port: 8443,
        };
        check(
            &party,
            "login.home.alt:8443",
            Some("https://login.home.alt:8443"),
        );
        check(&party, "login.home.alt", None);
    }

    #[test]
    fn a_broken_certificate_names_nobody() {
        let party = Party::Certificate {
            certificate: CertificateDer::from(vec![0x30, 0x80]),
            ports: vec![443],
        };
        check(&party, "login.home.alt", None);
    }
}
