//! How an authority is spoken to: HTTPS, a request a connection.
//!
//! No redirect is followed, an answer is at most [`MAX_ANSWER_BYTES`] long and takes at most
//! [`PATIENCE`]. When an authority says to come again later, that is remembered, and only what makes
//! sense is handed on.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Bytes;
use hyper::header::{HOST, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::when::{LONGEST_TOLD, WINDOW_RETRY};

/// The longest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 256 << 10;
/// How long an answer may take, from the connection to its last byte.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long an address may take to accept a connection: another may be the one that works.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(5);
/// The most addresses of a name that are tried: as many as there is time for.
const MAX_ADDRESSES: usize = 6;
/// What an authority is told of who asks.
const OWN_NAME: HeaderValue =
    HeaderValue::from_static(concat!("altnet-acme/", env!("CARGO_PKG_VERSION")));
/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It isn't there, or not whom its certificate names.
    #[error("can't connect to {host}: {source}")]
    Connect {
        /// The host.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// It broke off, or what it says is not HTTP.
    #[error("the authority's answer broke off or is not HTTP: {0}")]
    Broken(#[from] hyper::Error),
    /// It answers too much.
    #[error("the authority's answer is longer than {MAX_ANSWER_BYTES} bytes or broke off")]
    TooLong,
    /// It takes too long.
    #[error("the authority gave no answer within {} seconds", PATIENCE.as_secs())]
    Timeout,
    /// The authority names an address that isn't asked.
    #[error("the authority names an address that doesn't begin with https://")]
    NotHttps,
    /// A file of certificates holds none.
    #[error("{path}: {message}")]
    Ca {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        message: String,
    },
}

/// Whether a text is a URL that is asked.
pub fn is_https(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| host_of(&uri).is_ok())
}

/// Asks an authority; clones are the same.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    told: Arc<Mutex<Option<SystemTime>>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Believes the authorities in `ca`, or those that browsers know.
    ///
    /// # Errors
    /// [`HttpError::Ca`].
    pub fn new(ca: Option<&Path>) -> Result<Self, HttpError> {
        let mut roots = RootCertStore::empty();
        match ca {
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
            Some(path) => {
                let wrong = |message: String| HttpError::Ca {
                    path: path.into(),
                    message,
                };
                let found = CertificateDer::pem_file_iter(path);
                for found in found.map_err(|e| wrong(format!("can't be read: {e}")))? {
                    let found = found.map_err(|e| wrong(format!("this is no PEM file: {e}")))?;
                    let added = roots.add(found);
                    added.map_err(|e| wrong(format!("a certificate can't be used: {e}")))?;
                }
                if roots.is_empty() {
                    return Err(wrong("no certificate is in it; give a PEM file".into()));
                }
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has what both versions need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            tls: Arc::new(tls),
            told: Arc::default(),
        })
    }

    /// Until when the authority wants to be left alone, if it refused something and said so.
    pub fn told(&self) -> Option<SystemTime> {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what was said of that, before another conversation.
    pub fn forget_told(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn ask(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, HttpError> {
        let is_plain = request.method() == Method::GET;
        let asked = tokio::time::timeout(PATIENCE, self.exchange(request)).await;
        let response = asked.unwrap_or(Err(HttpError::Timeout))?;
        let (mut parts, body) = response.into_parts();
        let said = parts.headers.remove(RETRY_AFTER);
        if let Some(value) = &said {
            let now = SystemTime::now();
            let until = value.to_str().ok().and_then(|text| retry_after(text, now));
            if is_refusal(parts.status) {
                *self.told.lock().unwrap_or_else(PoisonError::into_inner) = until;
            }
            let left = until.map(|until| until.duration_since(now).unwrap_or_default());
            let left = left.unwrap_or(if is_plain {
                WINDOW_RETRY
            } else {
                Duration::ZERO
            });
            let left = HeaderValue::from(left.as_secs());
            parts.headers.insert(RETRY_AFTER, left);
        } else if is_plain {
            // What is asked unsigned is the window for renewal and the directory.
            let again = HeaderValue::from(WINDOW_RETRY.as_secs());
            parts.headers.insert(RETRY_AFTER, again);
        }
        Ok(BytesResponse {
            parts,
            body: Box::new(body),
        })
    }

    async fn exchange(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Result<Response<Bytes>, HttpError> {
        let (mut parts, body) = request.into_parts();
        let (host, port) = host_of(&parts.uri)?;
        let failed = |source| HttpError::Connect {
            host: host.clone(),
            source,
        };
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        let found = found.map_err(failed)?;
        let stream = first(found, ADDRESS_PATIENCE, TcpStream::connect).await;
        let stream = stream.map_err(failed)?;
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|e| failed(io::Error::other(e)))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = TokioIo::new(stream.await.map_err(failed)?);

        let authority = parts.uri.authority().map_or("", |one| one.as_str());
        let authority = HeaderValue::from_str(authority).map_err(|_| HttpError::NotHttps)?;
        parts.headers.insert(HOST, authority);
        // RFC 8555 section 6.1: so that an authority's people can tell whose fault something is.
        parts.headers.insert(USER_AGENT, OWN_NAME);
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(Uri::default, Uri::from);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        // An error of it is the request's as well.
        let task = tokio::spawn(async move {
            let _ = connection.await;
        });
        let _ended = Ended(task.abort_handle());
        let response = sender
            .send_request(Request::from_parts(parts, body))
            .await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|_| HttpError::TooLong)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let asked = self.clone().ask(request);
        Box::pin(async move {
            let error = |e: HttpError| -> Box<dyn StdError + Send + Sync> { Box::new(e) };
            asked
                .await
                .map_err(|e| instant_acme::Error::Other(error(e)))
        })
    }
}

/// Ends the task that carries a connection's bytes.
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What comes of the first address with which `connect` has to do within `patience`. One that swallows all
/// that it is sent doesn't take the others' time.
async fn first<T, F: Future<Output = io::Result<T>>>(
    addresses: impl Iterator<Item = SocketAddr>,
    patience: Duration,
    mut connect: impl FnMut(SocketAddr) -> F,
) -> io::Result<T> {
    let mut trouble = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses.take(MAX_ADDRESSES) {
        trouble = match tokio::time::timeout(patience, connect(address)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(e)) => e,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
    }
    Err(trouble)
}

/// Where a URL leads: a name or an address without brackets, and a port.
fn host_of(uri: &Uri) -> Result<(String, u16), HttpError> {
    let authority = uri.authority().ok_or(HttpError::NotHttps)?;
    let host = authority.host();
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if uri.scheme_str() != Some("https") || host.is_empty() || authority.as_str().contains('@') {
        return Err(HttpError::NotHttps);
    }
    Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
}

fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// When to come again, by the words of a `Retry-After` header, at most [`LONGEST_TOLD`] from now: a
/// number of seconds or a date.
///
/// Source: RFC 9110 section 10.2.3.
fn retry_after(text: &str, now: SystemTime) -> Option<SystemTime> {
    let text = text.trim();
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let wait = if is_number {
        // A number that is too large for one is longer than anything.
        text.parse().map_or(LONGEST_TOLD, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        until.duration_since(now).unwrap_or_default()
    };
    now.checked_add(wait.min(LONGEST_TOLD))
}

/// Takes any text in the place of a header that an authority sends.
pub fn untrusted(text: &str) {
    let _ = (retry_after(text, SystemTime::UNIX_EPOCH), is_https(text));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_https_is_asked() {
        for url in [
            "https://ca.test/dir",
            "https://[fd00::1]:14000/dir",
            "https://127.0.0.1/",
        ] {
            assert!(is_https(url), "{url}");
        }
        for url in [
            "http://ca.test/",
            "https://a@ca.test/",
            "ca.test",
            "/dir",
            "",
            "https:///x",
        ] {
            assert!(!is_https(url), "{url}");
        }
    }

    #[test]
    fn when_to_come_again_is_a_number_or_a_date_and_never_absurd() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_480);
        let check = |text, expected: Option<u64>| {
            let found = retry_after(text, now).map(|at| at.duration_since(now).unwrap().as_secs());
            assert_eq!(found, expected, "{text:?}");
        };
        check("120", Some(120));
        check(" 0 ", Some(0));
        check("Wed, 21 Oct 2015 07:30:00 GMT", Some(120));
        check("Wed, 21 Oct 2014 07:30:00 GMT", None);
        check("Tue, 21 Oct 2014 07:30:00 GMT", Some(0));
        check("18446744073709551615", Some(LONGEST_TOLD.as_secs()));
        check("99999999999999999999999", Some(LONGEST_TOLD.as_secs()));
        check(
            "Fri, 31 Dec 9999 23:59:59 GMT",
            Some(LONGEST_TOLD.as_secs()),
        );
        check("-1", None);
        check("", None);
        check("soon", None);
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_hold_up_the_next() {
        let addresses = (1..=9).map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        // No patience at all: what isn't there at once is given up.
        let connect = |works: Option<u16>| {
            let tried = std::cell::RefCell::new(Vec::new());
            let addresses = addresses.clone();
            async move {
                let connected = first(addresses, Duration::ZERO, |address: SocketAddr| {
                    tried.borrow_mut().push(address.port());
                    async move {
                        match address.port() {
                            port if Some(port) == works => Ok(port),
                            1 => std::future::pending().await,
                            _ => Err(io::ErrorKind::ConnectionRefused.into()),
                        }
                    }
                });
                let connected = connected.await.map_err(|e| e.kind());
                (connected, tried.into_inner())
            }
        };
        assert_eq!(connect(Some(3)).await, (Ok(3), vec![1, 2, 3]));
        let refused = Err(io::ErrorKind::ConnectionRefused);
        assert_eq!(connect(Some(7)).await, (refused, (1..=6).collect()));
        let nowhere = first(std::iter::empty(), Duration::ZERO, TcpStream::connect).await;
        assert_eq!(nowhere.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_without_certificates_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ca.pem");
        let said = |path: &Path| Client::new(Some(path)).unwrap_err().to_string();
        assert!(said(&path).contains("ca.pem"));
        std::fs::write(&path, "nothing").unwrap();
        assert!(said(&path).contains("no certificate is in it"));
        assert!(Client::new(None).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".*", number in "[0-9]{1,40}") {
            untrusted(&text);
            untrusted(&number);
        }
    }
}
