//! A certificate of the network's own authority (ADR 0010): altnetd keeps the key and has an owner
//! certify it; the page asks for both, and again from time to time, because they are renewed.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use data_encoding::BASE64;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::api::{Api, Served};

/// How soon it is asked again while there is none, and once there is one.
const SOON: Duration = Duration::from_secs(5);
const LATER: Duration = Duration::from_secs(600);

/// What altnetd gave last; handshakes fail before.
#[derive(Debug, Default)]
pub struct Network {
    current: RwLock<Option<Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Network {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Network {
    /// Whether there is a certificate.
    pub fn is_certified(&self) -> bool {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Asks altnetd, for ever. What is served stays while it says no.
    pub async fn follow(self: Arc<Self>, api: Api) {
        let mut said = String::new();
        loop {
            let (text, wait) = match api.login_tls().await {
                Ok(served) => match certified(&served) {
                    Some(key) => {
                        let mut current =
                            self.current.write().unwrap_or_else(PoisonError::into_inner);
                        *current = Some(Arc::new(key));
                        ("https is there".to_owned(), LATER)
                    }
                    None => ("altnetd's certificate can't be used".to_owned(), LATER),
                },
                Err(e) => (format!("no https yet: {e}"), SOON),
            };
            if text != said {
                crate::info!("{text}");
                said = text;
            }
            tokio::time::sleep(wait).await;
        }
    }
}

fn certified(served: &Served) -> Option<CertifiedKey> {
    let certificate = BASE64.decode(served.certificate.as_bytes()).ok()?;
    let key = BASE64.decode(served.key.as_bytes()).ok()?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
    let key = any_supported_type(&key).ok()?;
    Some(CertifiedKey::new(
        vec![CertificateDer::from(certificate)],
        key,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_not_served() {
        for (certificate, key) in [("", ""), ("!", "AA=="), ("AA==", "AA==")] {
            let served = Served {
                certificate: certificate.into(),
                key: key.to_owned().into(),
            };
            assert!(certified(&served).is_none());
        }
        assert!(!Network::default().is_certified());
    }
}
