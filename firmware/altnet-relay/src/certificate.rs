//! What a relay shows of itself in TLS.
//!
//! In: PEM files, a folder to keep a self-signed certificate in, or one where another process renews
//! them ([`crate::acme`]). Out: a configuration for TLS 1.3,
//! whose certificate can be replaced while it serves, and the pin by which clients know one that is
//! self-signed.
//! A self-signed certificate is made once. It doesn't end: who pins it trusts it and no date, and a
//! router may not know what time it is.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use altnet_wire::derp::{PublicKey, VERSION};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use zeroize::Zeroizing;

use crate::acme::{self, Folder, Renewed};
use crate::trust::Pin;

/// The file of a self-signed certificate.
const CERTIFICATE_FILE: &str = "derp.crt";
/// What is spoken inside, as ALPN names it.
const HTTP: &[u8] = b"http/1.1";
/// The file of its key.
const KEY_FILE: &str = "derp.key";

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file can't be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file doesn't hold what it should.
    #[error("{} holds no {what} in PEM", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// No certificate could be made.
    #[error("can't make a certificate: {0}")]
    NotMade(#[from] rcgen::Error),
    /// The certificate and the key are of no use together.
    #[error("can't use the certificate: {0}")]
    NotUsed(#[from] rustls::Error),
}

/// A certificate and its key.
#[derive(Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its key.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(chain: &Path, key: &Path) -> Result<Self, CertificateError> {
        Self::of(chain, &read(chain)?, key, &read(key)?)
    }

    /// Reads a chain and its key from the text of one file; `path` is named in errors.
    ///
    /// # Errors
    /// [`CertificateError::NotPem`].
    pub fn of_pem(path: &Path, text: &[u8]) -> Result<Self, CertificateError> {
        Self::of(path, text, path, text)
    }

    fn of(
        chain: &Path,
        chain_text: &[u8],
        key: &Path,
        key_text: &[u8],
    ) -> Result<Self, CertificateError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain_text).collect();
        let certificates = certificates.ok().filter(|chain| !chain.is_empty());
        let not_pem = |path: &Path, what| CertificateError::NotPem {
            path: path.to_owned(),
            what,
        };
        let secret =
            PrivateKeyDer::from_pem_slice(key_text).map_err(|_| not_pem(key, "private key"))?;
        Ok(Self {
            chain: certificates.ok_or_else(|| not_pem(chain, "certificate"))?,
            key: secret,
        })
    }

    /// Reads the self-signed certificate in `folder`, or makes one for `names`, which are host names or
    /// addresses, if there is none.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn self_signed(folder: &Path, names: &[String]) -> Result<Self, CertificateError> {
        let (chain, key) = (folder.join(CERTIFICATE_FILE), folder.join(KEY_FILE));
        if !chain.exists() {
            let (certificate, secret) = make(names)?;
            fs::create_dir_all(folder).map_err(|source| CertificateError::File {
                path: folder.to_owned(),
                source,
            })?;
            // The key first: a certificate without one would never be made anew.
            write(&key, secret.as_bytes(), 0o600)?;
            write(&chain, certificate.as_bytes(), 0o644)?;
        }
        Self::read(&chain, &key)
    }

    /// What clients that know no authority of it know it by.
    pub fn pin(&self) -> Option<Pin> {
        self.chain.first().map(Pin::of)
    }

    /// Shows it, beside a second certificate that names `public`, so that Tailscale's clients needn't
    /// wait for the greeting.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn shown(self, public: &PublicKey) -> Result<Shown, CertificateError> {
        self.show(public, None)
    }

    /// Shows it as long as `folder` has none that was got by ACME, and then that one. `tell` is told of
    /// each that is taken or of no use.
    ///
    /// # Errors
    /// [`CertificateError`] of this one; what is in the folder may be of no use yet.
    pub fn shown_until(
        self,
        public: &PublicKey,
        folder: Folder,
        tell: acme::Tell,
    ) -> Result<Shown, CertificateError> {
        self.show(public, Some((folder, tell)))
    }

    fn show(
        self,
        public: &PublicKey,
        renewed: Option<(Folder, acme::Tell)>,
    ) -> Result<Shown, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let meta = meta(public)?;
        let renewed = renewed
            .map(|(folder, tell)| Renewed::new(folder, tell, Arc::clone(&provider), meta.clone()));
        let mut protocols = vec![HTTP.to_vec()];
        if let Some(renewed) = &renewed {
            protocols.push(acme::ACME_TLS.to_vec());
            // What there is to be told of it is told now, not when the first client comes.
            let _ = renewed.current();
        }
        let now = Arc::new(Now {
            own: RwLock::new(self.certified(&provider, &meta)?),
            renewed,
        });
        let resolver = Arc::clone(&now);
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        // Clients of a relay stay connected; what would let them resume is written for nothing.
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.alpn_protocols = protocols;
        Ok(Shown {
            config: Arc::new(config),
            provider,
            meta,
            now,
        })
    }

    /// Just this, for who validates. That certificate and key fit isn't looked at: it has a critical
    /// extension that only validators know.
    pub(crate) fn alone(
        self,
        provider: &CryptoProvider,
    ) -> Result<Arc<CertifiedKey>, CertificateError> {
        let key = provider.key_provider.load_private_key(self.key)?;
        Ok(Arc::new(CertifiedKey::new(self.chain, key)))
    }

    /// This with a certificate behind it that names the DERP key.
    pub(crate) fn certified(
        self,
        provider: &CryptoProvider,
        meta: &CertificateDer<'static>,
    ) -> Result<Arc<CertifiedKey>, CertificateError> {
        let own = CertifiedKey::from_der(self.chain, self.key, provider)?;
        let mut chain = own.cert;
        chain.push(meta.clone());
        Ok(Arc::new(CertifiedKey::new(chain, own.key)))
    }
}

/// What a relay shows, which may be replaced while it serves.
#[derive(Debug)]
pub struct Shown {
    config: Arc<ServerConfig>,
    provider: Arc<CryptoProvider>,
    meta: CertificateDer<'static>,
    now: Arc<Now>,
}

impl Shown {
    /// How to speak TLS with it: 1.3.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }

    /// Shows another certificate to whoever connects from now on: the old one ends.
    ///
    /// # Errors
    /// [`CertificateError`]; the old one is still shown.
    pub fn replace(&self, certificate: Certificate) -> Result<(), CertificateError> {
        let certified = certificate.certified(&self.provider, &self.meta)?;
        *self.now.own.write().unwrap_or_else(PoisonError::into_inner) = certified;
        Ok(())
    }
}

/// What is shown now, whatever name is asked for, but to who validates.
#[derive(Debug)]
struct Now {
    own: RwLock<Arc<CertifiedKey>>,
    renewed: Option<Renewed>,
}

impl ResolvesServerCert for Now {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(renewed) = &self.renewed {
            let mut protocols = client_hello.alpn().into_iter().flatten();
            if acme::is_validation(&mut protocols, HTTP) {
                return renewed.challenge(client_hello.server_name()?);
            }
            if let Some(current) = renewed.current() {
                return Some(current);
            }
        }
        let own = self.own.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&own))
    }
}

/// A certificate for `names` and its key, both in PEM.
fn make(names: &[String]) -> Result<(String, Zeroizing<String>), CertificateError> {
    let mut params = CertificateParams::new(names)?;
    let mut name = DistinguishedName::new();
    let first = names.first().map_or("altnet", String::as_str);
    name.push(DnType::CommonName, first);
    params.distinguished_name = name;
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(9999, 1, 1));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), Zeroizing::new(key.serialize_pem())))
}

/// The certificate that names a DERP key; nobody needs its own key again.
///
/// Source: `initMetacert` in `derp/derpserver/derpserver.go`: the serial number is the protocol's
/// version, and basic constraints are there since macOS asks for them.
fn meta(public: &PublicKey) -> Result<CertificateDer<'static>, CertificateError> {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, format!("derpkey{public}"));
    params.distinguished_name = name;
    params.serial_number = Some(SerialNumber::from(u64::from(VERSION)));
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(9999, 1, 1));
    params.is_ca = IsCa::ExplicitNoCa;
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    Ok(params.self_signed(&key)?.der().clone())
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, CertificateError> {
    let bytes = fs::read(path).map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(Zeroizing::new(bytes))
}

/// Writes a file whole or not at all.
fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CertificateError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|source| CertificateError::File {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::meta_key;
    use std::os::unix::fs::PermissionsExt;

    const PUBLIC: PublicKey = PublicKey([0xab; 32]);

    #[test]
    fn a_self_signed_certificate_is_made_once_and_its_key_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        let names = ["derp.test".to_owned(), "192.0.2.1".to_owned()];
        let first = Certificate::self_signed(&inner, &names).unwrap();
        let again = Certificate::self_signed(&inner, &[]).unwrap();
        assert_eq!(first.pin().unwrap(), again.pin().unwrap());
        let mode = fs::metadata(inner.join(KEY_FILE))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.shown(&PUBLIC).is_ok());
    }

    #[test]
    fn the_second_certificate_names_the_derp_key() {
        let meta = meta(&PUBLIC).unwrap();
        let own = CertificateDer::from(vec![1, 2, 3]);
        assert_eq!(meta_key(&[own.clone(), meta.clone()]), Some(PUBLIC));
        // The server's own certificate doesn't: an authority could have been asked for any name.
        assert_eq!(meta_key(&[meta]), None);
        assert_eq!(meta_key(&[own.clone(), own]), None);
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pem");
        let missing = Certificate::read(&path, &path).unwrap_err().to_string();
        assert!(missing.contains("x.pem"), "{missing}");
        fs::write(&path, "nothing").unwrap();
        let empty = Certificate::read(&path, &path).unwrap_err().to_string();
        assert!(empty.contains("holds no"), "{empty}");
    }
}
