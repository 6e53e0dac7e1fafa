//! Whom a client believes, and by which clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use altnet_wire::time::UnixTime;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};

use super::FetchError;

/// TLS that believes the authorities in `ca`, or those that browsers know; the time is `least` or later.
///
/// # Errors
/// [`FetchError::Ca`].
pub(super) fn config(ca: Option<&Path>, least: UnixTime) -> Result<Arc<ClientConfig>, FetchError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_details(provider, Arc::new(AtLeast(least)))
        .with_safe_default_protocol_versions()
        .expect("ring has what both versions need")
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    Ok(Arc::new(tls))
}

/// A clock that says no less than what is certain, by which certificates are judged.
#[derive(Debug)]
struct AtLeast(UnixTime);

impl TimeProvider for AtLeast {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        let least = Duration::from_secs(self.0.as_secs());
        let least = rustls::pki_types::UnixTime::since_unix_epoch(least);
        Some(rustls::pki_types::UnixTime::now().max(least))
    }
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, FetchError> {
    let mut roots = RootCertStore::empty();
    let Some(path) = ca else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let wrong = |message: String| FetchError::Ca {
        path: path.into(),
        message,
    };
    let found = CertificateDer::pem_file_iter(path);
    for found in found.map_err(|e| wrong(format!("can't be read: {e}")))? {
        let found = found.map_err(|e| wrong(format!("this is no PEM file: {e}")))?;
        let added = roots.add(found);
        added.map_err(|e| wrong(format!("a certificate can't be used: {e}")))?;
    }
    match roots.is_empty() {
        true => Err(wrong("no certificate is in it".into())),
        false => Ok(roots),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_is_no_earlier_than_what_is_certain() {
        let now = |least| AtLeast(UnixTime::from_secs(least)).current_time().unwrap();
        assert_eq!(now(1 << 40).as_secs(), 1 << 40);
        assert!(now(0).as_secs() > 1_700_000_000);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ca.pem");
        for text in ["", "nothing"] {
            std::fs::write(&path, text).unwrap();
            let error = roots(Some(&path)).unwrap_err();
            assert!(error.to_string().contains("ca.pem"), "{error}");
        }
        assert!(roots(None).unwrap().len() > 50);
    }
}
