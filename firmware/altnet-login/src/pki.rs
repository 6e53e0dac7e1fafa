//! Client certificates: who holds one of the configured CA, and whether it still counts.
//!
//! In: the `[[pki]]` part of the config, and the chain that a browser showed in its TLS handshake.
//! Out: an [`Identity`] by the certificate's names, or why not. webpki verifies the path (validity,
//! clientAuth, name constraints), and CRLs with their signatures; OCSP is asked here. What is
//! configured must answer: a list or a responder that can't be had lets nobody in.
//!
//! It doesn't do: indirect and delta CRLs, LDAP distribution points, stapled answers, certificate
//! policies, and no revocation check of a delegated OCSP responder (those live for days).
//!
//! The ASN.1 besides webpki's is `x509-cert` and `x509-ocsp`: RustCrypto's, in pure safe Rust, with
//! the structures of RFC 5280 and 6960 and strict DER. `rasn-ocsp` would bring an ASN.1 framework
//! with codecs for four more encodings; `x509-parser` knows no OCSP.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use data_encoding::{BASE64, HEXLOWER};
use ring::digest::{SHA256, digest};
use rustls::RootCertStore;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use serde::Deserialize;
use webpki::{
    CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath,
};
use zeroize::Zeroizing;

use crate::directory::{Identity, SignInError, Standing};
use crate::http_get;
use certificate::Facts;
use crl::{Lists, Source};
use ocsp::{Hash, Issuer, Question, Signers, Status};

mod certificate;
mod crl;
mod ocsp;

/// How many certificates a chain may have, and how long one may be.
const MAX_CHAIN: usize = 8;
const MAX_CERTIFICATE_BYTES: usize = 16 << 10;
/// How long a check may take, with all its fetches.
const TIMEOUT: Duration = Duration::from_secs(20);
/// How long a responder's answer may be.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How many lists are looked through for one chain.
const MAX_SOURCES: usize = 16;
/// Which words in the settings stand for what the certificate itself says.
const FROM_CERTIFICATE: &str = "from-certificate";

/// Whose certificates count, and how.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// One or more CAs, as PEM.
    pub ca_file: PathBuf,
    /// Where revocation lists are: files, `http://` URLs, or `from-certificate` for the
    /// distribution points that each certificate names. Empty: none is looked at.
    #[serde(default)]
    pub crl: Vec<String>,
    /// Who is asked by OCSP: `off`, `from-certificate`, or an `http://` URL. About the CAs between
    /// too, unless there are lists, which then must answer for those.
    #[serde(default = "Settings::default_ocsp")]
    pub ocsp: String,
    /// OCSP responders, or CAs of responders, that count besides the CA itself, as PEM.
    #[serde(default)]
    pub ocsp_ca_file: Option<PathBuf>,
    /// Whether an answer must repeat the question's nonce. Without, who is on the way can repeat an
    /// old answer until it runs out.
    #[serde(default)]
    pub ocsp_nonce: OcspNonce,
    /// Where a person's groups are.
    #[serde(default)]
    pub group_from: GroupFrom,
    /// Where a person's name is.
    #[serde(default)]
    pub name_from: NameFrom,
    /// What is done with a certificate of which the CA's answers say nothing.
    #[serde(default)]
    pub unknown_status: UnknownStatus,
}

impl Settings {
    fn default_ocsp() -> String {
        "off".to_owned()
    }
}

/// Whether a responder must repeat the nonce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OcspNonce {
    /// It must.
    #[default]
    Required,
    /// It may leave it out, but not answer with another.
    Optional,
}

/// Where groups come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GroupFrom {
    /// The organizational units of the subject.
    Ou,
    /// Nowhere.
    #[default]
    None,
}

/// Where the name comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NameFrom {
    /// The subject's common name.
    #[default]
    Cn,
    /// The first mail address of the subject's alternative names.
    Email,
    /// The first DNS name of the subject's alternative names.
    Dns,
}

/// What "unknown" means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UnknownStatus {
    /// Not let in: wrong if a responder doesn't know it, unreachable if no list covers it.
    #[default]
    Refuse,
    /// Let in. Only an answer that says "revoked" refuses.
    Allow,
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// A file with certificates can't be used.
    #[error("{path}: {reason}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not, and what to do about it.
        reason: String,
    },
    /// A place for revocation lists that is none.
    #[error("crl {0:?} is neither an absolute path, an http:// URL, nor \"from-certificate\"")]
    Crl(String),
    /// A responder that is none.
    #[error("ocsp {0:?} is neither \"off\", \"from-certificate\" nor an http:// URL")]
    Ocsp(String),
}

/// Where OCSP is asked.
enum Responder {
    Off,
    FromCertificate,
    Url(String),
}

/// The CAs whose certificates count.
pub struct Authority {
    roots: Arc<RootCertStore>,
    verifier: Arc<dyn ClientCertVerifier>,
    algorithms: WebPkiSupportedAlgorithms,
    sources: Vec<Source>,
    has_points: bool,
    responder: Responder,
    responders: Vec<CertificateDer<'static>>,
    settings: Settings,
    lists: Lists,
}

/// One certificate of a verified path, with who issued it.
struct Step {
    facts: Facts,
    /// The bytes of the serial's INTEGER.
    serial: Vec<u8>,
    issuer: Issuer,
}

impl Authority {
    /// Reads what the settings name. Fetches nothing yet.
    ///
    /// # Errors
    /// [`SettingsError`] says which setting and what to write instead.
    pub fn new(settings: &Settings) -> Result<Authority, SettingsError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&settings.ca_file)? {
            roots
                .add(certificate)
                .map_err(|error| SettingsError::File {
                    path: settings.ca_file.clone(),
                    reason: format!("holds a certificate that can't be used: {error}"),
                })?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| SettingsError::File {
                path: settings.ca_file.clone(),
                reason: error.to_string(),
            })?;
        let has_points = settings.crl.iter().any(|crl| crl == FROM_CERTIFICATE);
        let sources = settings
            .crl
            .iter()
            .filter(|crl| *crl != FROM_CERTIFICATE)
            .map(|crl| source(crl))
            .collect::<Result<_, _>>()?;
        let responder = match settings.ocsp.as_str() {
            "off" => Responder::Off,
            FROM_CERTIFICATE => Responder::FromCertificate,
            url if http_get::is_http(url) => Responder::Url(url.to_owned()),
            other => return Err(SettingsError::Ocsp(other.to_owned())),
        };
        let responders = match &settings.ocsp_ca_file {
            Some(path) => certificates(path)?,
            None => Vec::new(),
        };
        Ok(Authority {
            roots,
            verifier,
            algorithms,
            sources,
            has_points,
            responder,
            responders,
            settings: settings.clone(),
            lists: Lists::default(),
        })
    }

    /// The verifier for a TLS listener. It asks for a certificate of these CAs and takes none too,
    /// so that a browser without one gets a page that says so and not a broken connection. A
    /// handshake proves possession of the key; only [`check`](Self::check) says who it is.
    pub fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }

    /// Says whose `chain` is, the person's certificate first, as a handshake showed it.
    ///
    /// # Errors
    /// [`SignInError::Wrong`] for what isn't of these CAs, [`SignInError::Expired`],
    /// [`SignInError::Revoked`], and [`SignInError::Unreachable`] for a CRL or a responder that
    /// can't be had, is stale, or isn't the CA's.
    pub async fn check(&self, chain: &[CertificateDer<'_>]) -> Result<Identity, SignInError> {
        tokio::time::timeout(TIMEOUT, self.check_at(chain, UnixTime::now()))
            .await
            .unwrap_or_else(|_| {
                let limit_s = TIMEOUT.as_secs();
                let what = format!("the CA's CRL or OCSP responder (no answer within {limit_s} s)");
                Err(SignInError::Unreachable(what))
            })
    }

    /// Checks the chain of somebody who signed in before once more.
    pub async fn look_again(&self, identity: &Identity) -> Standing {
        let Some(chain) = unhandled(&identity.handle) else {
            return Standing::Ended(SignInError::Wrong);
        };
        match self.check(&chain).await {
            Ok(identity) => Standing::Holds(identity),
            Err(SignInError::Unreachable(what)) => Standing::Unreachable(what),
            Err(ended) => Standing::Ended(ended),
        }
    }

    async fn check_at(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Identity, SignInError> {
        if chain.len() > MAX_CHAIN || chain.iter().any(|one| one.len() > MAX_CERTIFICATE_BYTES) {
            return Err(SignInError::Wrong);
        }
        let steps = self.verified(chain, now, None)?;
        let has_lists = !self.sources.is_empty() || self.has_points;
        if has_lists {
            self.check_lists(chain, &steps, now).await?;
        }
        for (depth, step) in steps.iter().enumerate() {
            // Lists, where there are any, answer for the CAs between.
            if depth == 0 || !has_lists {
                self.check_ocsp(step, now).await?;
            }
        }
        let step = steps.first().ok_or(SignInError::Wrong)?;
        self.identity(step, chain).ok_or(SignInError::Wrong)
    }

    /// The path from the person's certificate up to, not including, the CA of the config.
    fn verified(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<Vec<Step>, SignInError> {
        let (leaf, between) = chain.split_first().ok_or(SignInError::Wrong)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|_| SignInError::Wrong)?;
        let path = leaf
            .verify_for_usage(
                self.algorithms.all,
                &self.roots.roots,
                between,
                now,
                KeyUsage::client_auth(),
                revocation,
                None,
            )
            .map_err(refusal)?;
        steps(&path).ok_or(SignInError::Wrong)
    }

    async fn check_lists(
        &self,
        chain: &[CertificateDer<'_>],
        steps: &[Step],
        now: UnixTime,
    ) -> Result<(), SignInError> {
        let mut lists = Vec::new();
        for source in &self.sources {
            lists.push(self.list(std::slice::from_ref(source)).await?);
        }
        let points = steps.iter().flat_map(|step| &step.facts.crl_points);
        for point in points.take(if self.has_points { MAX_SOURCES } else { 0 }) {
            let urls: Vec<_> = point.iter().cloned().map(Source::Url).collect();
            lists.push(self.list(&urls).await?);
        }
        let lists: Vec<&CertRevocationList<'_>> = lists.iter().map(Arc::as_ref).collect();
        let policy = match self.settings.unknown_status {
            UnknownStatus::Refuse => UnknownStatusPolicy::Deny,
            UnknownStatus::Allow => UnknownStatusPolicy::Allow,
        };
        let options = match RevocationOptionsBuilder::new(&lists) {
            Ok(options) => options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(policy)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build(),
            // No certificate of the chain names a list, and none is configured.
            Err(_) if self.settings.unknown_status == UnknownStatus::Allow => return Ok(()),
            Err(_) => return Err(refusal(webpki::Error::UnknownRevocationStatus)),
        };
        self.verified(chain, now, Some(options)).map(drop)
    }

    /// The list at the first of `sources` that has one.
    async fn list(
        &self,
        sources: &[Source],
    ) -> Result<Arc<CertRevocationList<'static>>, SignInError> {
        let mut reason = "a CRL that can be had by http".to_owned();
        for source in sources.iter().take(MAX_SOURCES) {
            match self.lists.get(source).await {
                Ok(list) => return Ok(list),
                Err(failed) => reason = failed,
            }
        }
        Err(SignInError::Unreachable(reason))
    }

    async fn check_ocsp(&self, step: &Step, now: UnixTime) -> Result<(), SignInError> {
        let urls: Vec<&str> = match &self.responder {
            Responder::Off => return Ok(()),
            Responder::Url(url) => vec![url],
            Responder::FromCertificate => step.facts.ocsp.iter().map(String::as_str).collect(),
        };
        let mut status = Ok(Status::Unknown);
        for url in urls.iter().take(MAX_CHAIN) {
            status = self.ask(url, step, now).await;
            if status.is_ok() {
                break;
            }
        }
        match status.map_err(SignInError::Unreachable)? {
            Status::Good => Ok(()),
            Status::Revoked => Err(SignInError::Revoked),
            Status::Unknown => match self.settings.unknown_status {
                UnknownStatus::Allow => Ok(()),
                UnknownStatus::Refuse => Err(SignInError::Wrong),
            },
        }
    }

    /// Asks one responder, by SHA-256 and, if it can't look that up, by SHA-1.
    async fn ask(&self, url: &str, step: &Step, now: UnixTime) -> Result<Status, String> {
        let named = |reason: &dyn std::fmt::Display| format!("the OCSP responder {url} ({reason})");
        let signers = Signers {
            algorithms: self.algorithms.all,
            named: &self.responders,
        };
        let needs_nonce = self.settings.ocsp_nonce == OcspNonce::Required;
        let mut last = Ok(Status::Unknown);
        for hash in [Hash::Sha256, Hash::Sha1] {
            let mut nonce = [0; ocsp::NONCE_BYTES];
            getrandom::fill(&mut nonce).map_err(|error| named(&error))?;
            let question = Question::new(&step.issuer, &step.serial, hash, &nonce)
                .map_err(|fault| named(&fault))?;
            let request = question.encode().map_err(|fault| named(&fault))?;
            let answer = http_get::post(url, "application/ocsp-request", request, MAX_ANSWER_BYTES)
                .await
                .map_err(|error| named(&error))?;
            last = ocsp::judge(&answer, &question, &step.issuer, &signers, needs_nonce, now);
            match last {
                Ok(Status::Good | Status::Revoked) => break,
                Err(fault) if !fault.may_be_the_hash() => break,
                _ => {}
            }
        }
        last.map_err(|fault| named(&fault))
    }

    fn identity(&self, step: &Step, chain: &[CertificateDer<'_>]) -> Option<Identity> {
        let facts = &step.facts;
        let name = match self.settings.name_from {
            NameFrom::Cn => facts.common_name.as_ref(),
            NameFrom::Email => facts.emails.first(),
            NameFrom::Dns => facts.dns_names.first(),
        }?;
        let groups = match self.settings.group_from {
            GroupFrom::Ou => facts.units.iter().cloned().collect(),
            GroupFrom::None => BTreeSet::new(),
        };
        let issuer = digest(&SHA256, &step.issuer.name);
        let expires = Duration::from_secs(facts.not_after?.as_secs());
        Some(Identity {
            subject: format!(
                "{}:{}",
                HEXLOWER.encode(issuer.as_ref()),
                HEXLOWER.encode(&step.serial)
            ),
            name: name.clone(),
            groups,
            expires: SystemTime::UNIX_EPOCH.checked_add(expires),
            handle: handle(chain),
        })
    }
}

/// The steps of a path. `None` if x509-cert can't read what webpki could.
fn steps(path: &VerifiedPath<'_>) -> Option<Vec<Step>> {
    let leaf: &webpki::Cert<'_> = path.end_entity();
    let certificates: Vec<&webpki::Cert<'_>> = std::iter::once(leaf)
        .chain(path.intermediate_certificates())
        .collect();
    let mut steps = Vec::new();
    for (at, certificate) in certificates.iter().enumerate() {
        let key = match certificates.get(at + 1) {
            Some(issuer) => issuer.subject_public_key_info(),
            None => webpki::spki_for_anchor(path.anchor()),
        };
        steps.push(Step {
            facts: Facts::of(&certificate.der())?,
            serial: certificate.serial().to_vec(),
            issuer: Issuer {
                name: certificate.issuer().to_vec(),
                key: key.to_vec(),
            },
        });
    }
    Some(steps)
}

/// What webpki's reason means for whoever showed the certificate.
fn refusal(error: webpki::Error) -> SignInError {
    use webpki::Error;
    let unreachable = |what: &str| SignInError::Unreachable(what.to_owned());
    match error {
        Error::CertExpired { .. } => SignInError::Expired,
        Error::CertRevoked => SignInError::Revoked,
        Error::CrlExpired { .. } => unreachable("the CA's CRL (it is stale: past its nextUpdate)"),
        Error::UnknownRevocationStatus => {
            unreachable("the CA's CRL (none of those configured covers this certificate)")
        }
        Error::InvalidCrlSignatureForPublicKey
        | Error::IssuerNotCrlSigner
        | Error::UnsupportedCrlSignatureAlgorithmContext(_)
        | Error::UnsupportedCrlSignatureAlgorithmForPublicKeyContext(_) => {
            unreachable("the CA's CRL (it isn't signed by the CA)")
        }
        _ => SignInError::Wrong,
    }
}

fn source(crl: &str) -> Result<Source, SettingsError> {
    if http_get::is_http(crl) {
        return Ok(Source::Url(crl.to_owned()));
    }
    match Path::new(crl).is_absolute() {
        true => Ok(Source::File(crl.into())),
        false => Err(SettingsError::Crl(crl.to_owned())),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let failed = |reason: String| SettingsError::File {
        path: path.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| failed(format!("can't be read as PEM: {error}")))?;
    match certificates.is_empty() {
        true => Err(failed(
            "holds no certificate; put the CA there as PEM".into(),
        )),
        false => Ok(certificates),
    }
}

/// The chain as text, each certificate in base64.
fn handle(chain: &[CertificateDer<'_>]) -> Zeroizing<String> {
    let chain: Vec<String> = chain.iter().map(|one| BASE64.encode(one)).collect();
    Zeroizing::new(chain.join(" "))
}

fn unhandled(handle: &str) -> Option<Vec<CertificateDer<'static>>> {
    handle
        .split(' ')
        .take(MAX_CHAIN + 1)
        .map(|one| BASE64.decode(one.as_bytes()).ok().map(CertificateDer::from))
        .collect()
}

/// Reads what an [`Authority`] is shown and fetches, as it does.
pub(crate) fn untrusted(ca: &CertificateDer<'_>, bytes: &[u8], now: UnixTime) {
    let _ = Facts::of(&CertificateDer::from(bytes));
    let _ = crl::parsed(bytes);
    let Ok(anchor) = webpki::anchor_from_trusted_cert(ca) else {
        return;
    };
    let issuer = ocsp::Issuer {
        name: anchor.subject.to_vec(),
        key: webpki::spki_for_anchor(&anchor).to_vec(),
    };
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let signers = ocsp::Signers {
        algorithms: algorithms.all,
        named: &[],
    };
    if let Ok(question) = ocsp::Question::new(&issuer, &[1], ocsp::Hash::Sha256, &[0; 16]) {
        let _ = ocsp::judge(bytes, &question, &issuer, &signers, false, now);
    }
}

#[cfg(test)]
mod tests;
