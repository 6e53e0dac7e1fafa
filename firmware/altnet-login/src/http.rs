//! Asking a directory over HTTP: one request a connection, over TLS but to this machine itself.
//!
//! No redirect is followed, an answer is at most [`MAX_ANSWER_BYTES`] long, and all of it takes at
//! most [`PATIENCE`].

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::config::{self, ConfigError};

/// The longest answer, in bytes.
pub const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// How long an answer may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// An address that can be asked: `https:`, or `http:` to this machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    is_tls: bool,
}

/// Why a text is no [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an address that begins with https:// (http:// only with 127.0.0.1 or [::1])")]
pub struct BadEndpoint;

impl Endpoint {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`BadEndpoint`].
    pub fn parse(text: &str) -> Result<Self, BadEndpoint> {
        let uri: Uri = text.parse().map_err(|_| BadEndpoint)?;
        let authority = uri.authority().ok_or(BadEndpoint)?;
        if authority.as_str().contains('@') || authority.host().is_empty() {
            return Err(BadEndpoint);
        }
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http")
                if bare(authority.host())
                    .parse()
                    .is_ok_and(|a: IpAddr| a.is_loopback()) =>
            {
                false
            }
            _ => return Err(BadEndpoint),
        };
        Ok(Self { uri, is_tls })
    }

    fn host(&self) -> &str {
        bare(self.uri.host().unwrap_or_default())
    }

    fn port(&self) -> u16 {
        let default = if self.is_tls { 443 } else { 80 };
        self.uri.port_u16().unwrap_or(default)
    }
}

/// A host without an IPv6 address's brackets.
fn bare(host: &str) -> &str {
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    inner.unwrap_or(host)
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// It isn't there, or not whom the certificate names.
    #[error("can't connect to {host}")]
    Connect {
        /// The host.
        host: String,
        /// The reason.
        #[source]
        source: std::io::Error,
    },
    /// It broke off, or what it says is not HTTP.
    #[error("the answer broke off or is not HTTP")]
    Broken(#[from] hyper::Error),
    /// It answers too much.
    #[error("the answer is longer than {MAX_ANSWER_BYTES} bytes or broke off")]
    TooLong,
    /// It takes too long.
    #[error("no answer within {} seconds", PATIENCE.as_secs())]
    Timeout,
    /// What is asked can't be written as a request.
    #[error("this can't be asked")]
    Request(#[from] hyper::http::Error),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status, 200 say.
    pub status: u16,
    /// How long it may be kept, if it says so (RFC 9111 section 5.2.2.1).
    pub max_age: Option<Duration>,
    /// Its body.
    pub body: Zeroizing<Vec<u8>>,
}

/// What is asked with.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// Nothing: a GET.
    None,
    /// A POST of a form.
    Form(&'a str),
    /// A POST of JSON.
    Json(&'a str),
}

/// Asks over HTTP.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Believes the public certificate authorities and those in `ca_file`.
    ///
    /// # Errors
    /// [`ConfigError`] if the file can't be read or holds no certificate.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = ca_file {
            let wrong = |message: String| ConfigError::Certificate {
                path: path.into(),
                message,
            };
            let before = roots.len();
            for found in CertificateDer::pem_slice_iter(&config::public_bytes(path)?) {
                let found = found.map_err(|e| wrong(format!("this is no PEM file: {e}")))?;
                let added = roots.add(found);
                added.map_err(|e| wrong(format!("a certificate can't be used: {e}")))?;
            }
            if roots.len() == before {
                return Err(wrong("no certificate is in it; give a PEM file".into()));
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has what both versions need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }

    /// Asks `endpoint`; `authorization` is the header of that name.
    ///
    /// # Errors
    /// [`HttpError`]; an answer with a bad status is none.
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        body: Body<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, HttpError> {
        let asked = self.ask_patiently(endpoint, body, authorization);
        let asked = tokio::time::timeout(PATIENCE, asked).await;
        asked.unwrap_or(Err(HttpError::Timeout))
    }

    async fn ask_patiently(
        &self,
        endpoint: &Endpoint,
        body: Body<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, HttpError> {
        let host = endpoint.host().to_owned();
        let failed = |source| HttpError::Connect {
            host: host.clone(),
            source,
        };
        let request = request(endpoint, body, authorization)?;
        let stream = TcpStream::connect((endpoint.host(), endpoint.port()));
        let stream = stream.await.map_err(failed)?;
        if !endpoint.is_tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(host.clone());
        let name = name.map_err(|e| failed(std::io::Error::other(e)))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        exchange(stream.await.map_err(failed)?, request).await
    }
}

fn request(
    endpoint: &Endpoint,
    body: Body<'_>,
    authorization: Option<&str>,
) -> Result<Request<Full<Bytes>>, HttpError> {
    let (method, kind, body) = match body {
        Body::None => (Method::GET, None, ""),
        Body::Form(text) => (
            Method::POST,
            Some("application/x-www-form-urlencoded"),
            text,
        ),
        Body::Json(text) => (Method::POST, Some("application/json"), text),
    };
    let path = endpoint.uri.path_and_query().map_or("/", |p| p.as_str());
    let authority = endpoint.uri.authority().map_or("", |a| a.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority)
        .header("accept", "application/json");
    if let Some(kind) = kind {
        request = request.header(CONTENT_TYPE, kind);
    }
    if let Some(authorization) = authorization {
        request = request.header(AUTHORIZATION, authorization);
    }
    Ok(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?)
}

/// Ends the task that carries a connection's bytes.
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Answer, HttpError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // An error of it is the request's as well.
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    let _ended = Ended(task.abort_handle());
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let header = response.headers().get(CACHE_CONTROL);
    let max_age = header.and_then(|h| max_age(h.to_str().ok()?));
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    let body = body.collect().await.map_err(|_| HttpError::TooLong)?;
    Ok(Answer {
        status,
        max_age,
        body: Zeroizing::new(body.to_bytes().to_vec()),
    })
}

fn max_age(header: &str) -> Option<Duration> {
    let mut directives = header.split(',').map(str::trim);
    let seconds = directives.find_map(|d| d.strip_prefix("max-age="))?;
    seconds.parse().ok().map(Duration::from_secs)
}

/// `text` as a part of a query or form: all but letters, digits and `-._~` as `%XX` (RFC 3986
/// section 2.3).
pub fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Fields as a form or query.
pub fn form(fields: &[(&str, &str)]) -> Zeroizing<String> {
    let fields = fields.iter();
    let fields = fields.map(|(name, value)| format!("{name}={}", percent_encode(value)));
    Zeroizing::new(fields.collect::<Vec<_>>().join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_this_machine_is_asked_in_the_clear() {
        let check =
            |text: &str, good: bool| assert_eq!(Endpoint::parse(text).is_ok(), good, "{text}");
        check("https://id.example/realms/a", true);
        check("https://[fd00::1]:8443/", true);
        check("http://127.0.0.1:80/x", true);
        check("http://[::1]/x", true);
        check("http://localhost/x", false);
        check("http://192.168.1.1/x", false);
        check("https://a@b/", false);
        check("ftp://127.0.0.1/", false);
        check("/path", false);
        check("", false);
    }

    #[test]
    fn ages_are_read() {
        let check = |text, seconds: Option<u64>| {
            assert_eq!(max_age(text), seconds.map(Duration::from_secs), "{text}");
        };
        check("public, max-age=19204, must-revalidate", Some(19204));
        check("no-store", None);
        check("max-age=x", None);
    }

    #[test]
    fn what_means_something_in_a_form_is_escaped() {
        assert_eq!(
            &*form(&[("a", "b c&d=+"), ("e", "\u{e9}")]),
            "a=b%20c%26d%3D%2B&e=%C3%A9"
        );
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            let _ = Endpoint::parse(&text);
            let _ = max_age(&text);
        }
    }
}
