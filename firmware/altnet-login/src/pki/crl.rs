//! Certificate revocation lists (RFC 5280 section 5): fetched, kept for a moment, never trusted.
//!
//! Whether a list is its CA's, covers a certificate and isn't stale is webpki's to say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;
use webpki::{CertRevocationList, OwnedCertRevocationList};

use crate::http_get;

/// How long a list may be.
const MAX_LIST_BYTES: usize = 4 << 20;
/// How long a list is used without a look for a newer one. Who was revoked is to be out within a
/// minute, and everybody is looked up every 30 s.
const KEPT: Duration = Duration::from_secs(20);
/// How many lists are kept.
const MAX_LISTS: usize = 16;

/// Where a list comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    File(PathBuf),
    Url(String),
}

/// The lists that were read lately.
#[derive(Default)]
pub struct Lists(Mutex<BTreeMap<Source, (Instant, Arc<CertRevocationList<'static>>)>>);

impl Lists {
    /// The list at `source`, kept or fetched. A list that can't be fetched counts as none, however
    /// long the last one would have held: who blocks the way to it gains nothing.
    ///
    /// # Errors
    /// What failed, for people.
    pub async fn get(&self, source: &Source) -> Result<Arc<CertRevocationList<'static>>, String> {
        if let Some((read, list)) = self.kept().get(source)
            && read.elapsed() < KEPT
        {
            return Ok(list.clone());
        }
        let now = Instant::now();
        let list = match source {
            Source::File(path) => {
                let named = |reason: String| format!("CRL {}: {reason}", path.display());
                let bytes = file(path).await.map_err(|error| named(error.to_string()))?;
                parsed(&bytes).map_err(|reason| named(reason.to_owned()))?
            }
            Source::Url(url) => {
                let bytes = http_get::get(url, MAX_LIST_BYTES).await;
                let bytes = bytes.map_err(|error| format!("CRL {url}: {error}"))?;
                parsed(&bytes).map_err(|reason| format!("CRL {url}: {reason}"))?
            }
        };
        let list = Arc::new(list);
        let mut kept = self.kept();
        kept.retain(|_, (read, _)| read.elapsed() < KEPT);
        if kept.len() < MAX_LISTS {
            kept.insert(source.clone(), (now, list.clone()));
        }
        Ok(list)
    }

    fn kept(
        &self,
    ) -> std::sync::MutexGuard<'_, BTreeMap<Source, (Instant, Arc<CertRevocationList<'static>>)>>
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn file(path: &PathBuf) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await?;
    file.take(MAX_LIST_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .await?;
    Ok(bytes)
}

/// Reads a list in DER or PEM. Its signature isn't checked here.
pub fn parsed(bytes: &[u8]) -> Result<CertRevocationList<'static>, &'static str> {
    if bytes.len() > MAX_LIST_BYTES {
        return Err("it is longer than 4 MB");
    }
    let der = match bytes.starts_with(b"-----BEGIN") {
        true => CertificateRevocationListDer::from_pem_slice(bytes).map_err(|_| "it isn't PEM")?,
        false => CertificateRevocationListDer::from(bytes),
    };
    OwnedCertRevocationList::from_der(&der)
        .map(CertRevocationList::from)
        .map_err(|_| "it isn't a CRL")
}
