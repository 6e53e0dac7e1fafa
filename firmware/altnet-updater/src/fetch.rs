//! Getting a bundle, or its beginning, from a server that nobody vouches for.
//!
//! In: an address. Out: bytes, of which nothing is believed. At most what is asked for is read, and a server that says
//! nothing, or sends too slowly, is given up ([`Patience`]). A transfer that breaks off goes on where it was
//! (RFC 9110 section 14), as long as the file there is the same one. A few redirects are followed, but none from TLS to
//! none.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use altnet_wire::time::UnixTime;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

mod part;
mod stream;
mod trust;
mod url;

pub use part::{NoPart, Part};
pub use stream::Stream;
pub use url::{NoUrl, Url};

/// The most redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// The most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 6;
/// The most bytes that are held of what a server sent and nobody took: an answer's head, a piece of its body.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// What a server is told of who asks.
const OWN_NAME: HeaderValue =
    HeaderValue::from_static(concat!("altnet-update/", env!("CARGO_PKG_VERSION")));

/// How long a server is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Until an address accepts a connection.
    pub connect: Duration,
    /// For the beginning of a file, as much as is asked for, from the connection on.
    pub beginning: Duration,
    /// For the next bytes, or for an answer.
    pub silence: Duration,
    /// How many bytes there have to be within `pace`, while they are waited for.
    pub pace_bytes: u64,
    /// See there.
    pub pace: Duration,
    /// How often a transfer that broke off is begun again without a mebibyte in between.
    pub tries: u32,
    /// How long the first rest before that is; each is twice the one before.
    pub rest: Duration,
}

impl Patience {
    /// That of a house on a slow line: 4 KiB in a second.
    pub const HOUSE: Self = Self {
        connect: Duration::from_secs(5),
        beginning: Duration::from_secs(30),
        silence: Duration::from_secs(30),
        pace_bytes: 256 << 10,
        pace: Duration::from_secs(64),
        tries: 5,
        rest: Duration::from_secs(1),
    };
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// It isn't there, or not whom its certificate names.
    #[error("can't connect to {host}: {source}")]
    Connect {
        /// The host.
        host: String,
        /// The reason.
        source: io::Error,
    },
    /// It broke off, or what it says is not HTTP.
    #[error("the answer broke off or is not HTTP: {0}")]
    Broken(#[from] hyper::Error),
    /// It ended before it should.
    #[error("the server sent {found} bytes of {expected}")]
    CutOff {
        /// How many there were.
        found: u64,
        /// And there should be.
        expected: u64,
    },
    /// It doesn't have it, or doesn't give it.
    #[error("the server says {status}")]
    Status {
        /// Its answer.
        status: StatusCode,
    },
    /// It leads from here to there for ever.
    #[error("the server leads to another address more than {MAX_REDIRECTS} times")]
    Redirects,
    /// It leads where nothing is fetched from.
    #[error("the server leads to {location:?}, which is not asked")]
    Redirect {
        /// Where.
        location: String,
    },
    /// What it gives isn't the part that was asked for.
    #[error("the server gives another part of the file than was asked for")]
    OtherPart,
    /// It can't go on where it was, or the file changed.
    #[error("the transfer broke off, and the server can't go on with the same file")]
    CannotGoOn,
    /// Nothing came for too long.
    #[error("the server said nothing for {} seconds", after.as_secs())]
    Silence {
        /// How long.
        after: Duration,
    },
    /// Too little comes.
    #[error("the server sends too slowly: {bytes} bytes in {} seconds", within.as_secs())]
    TooSlow {
        /// How many there were.
        bytes: u64,
        /// In which time.
        within: Duration,
    },
    /// A file of certificates holds none.
    #[error("{}: {message}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The system gives no timers or sockets.
    #[error("this machine can't fetch anything: {0}")]
    System(#[source] io::Error),
}

impl FetchError {
    /// What a person does about it.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Connect { .. } => {
                "Check the address, whether the internet works, and the clock if it is https://; bundles are signed, so http:// will do too."
            }
            Self::Status { .. } | Self::Redirect { .. } | Self::Redirects => {
                "Check the address: the folder needs a file BOARD.bundle for each board."
            }
            Self::Ca { .. } => "Give a PEM file, or leave `ca` out of [update].",
            _ => "Try again, or fetch the bundle elsewhere and install the file.",
        }
    }
}

/// Asks servers.
#[derive(Debug)]
pub struct Client {
    tls: Arc<ClientConfig>,
    runtime: Runtime,
    patience: Patience,
}

impl Client {
    /// Believes the authorities in `ca`, or those that browsers know; the time is `least` or later.
    ///
    /// # Errors
    /// [`FetchError::Ca`] or [`FetchError::System`].
    pub fn new(ca: Option<&Path>, least: UnixTime, patience: Patience) -> Result<Self, FetchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Self {
            tls: trust::config(ca, least)?,
            runtime: runtime.map_err(FetchError::System)?,
            patience,
        })
    }

    /// The first bytes of a file, `most` of them if it has as many.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn beginning(&self, url: &Url, most: usize) -> Result<Vec<u8>, FetchError> {
        let after = self.patience.beginning;
        let fetched = async {
            let range = format!("bytes=0-{}", most.saturating_sub(1));
            let mut answer = self.ask(url, Some(range), None).await?;
            let mut found = Vec::new();
            while let Some(frame) = answer.body.frame().await {
                if let Some(bytes) = frame?.data_ref() {
                    let wanted = most - found.len();
                    found.extend_from_slice(bytes.get(..wanted).unwrap_or(bytes));
                }
                // Whoever doesn't know of parts sends the whole, for as long as it is listened to.
                if found.len() == most {
                    break;
                }
            }
            Ok(found)
        };
        self.wait(after, fetched)?
    }

    /// A whole file, as it comes.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn whole(&self, url: &Url) -> Result<Stream<'_>, FetchError> {
        Stream::open(self, url)
    }

    fn wait<T>(&self, after: Duration, what: impl Future<Output = T>) -> Result<T, FetchError> {
        let waited = self.runtime.block_on(async { timeout(after, what).await });
        waited.map_err(|_| FetchError::Silence { after })
    }

    /// Asks for a file, or a part of it if `range` says so; if it is still the one with this tag.
    async fn ask(
        &self,
        url: &Url,
        range: Option<String>,
        tag: Option<&HeaderValue>,
    ) -> Result<Answer, FetchError> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::get(url.path())
                .header(header::HOST, url.authority())
                .header(header::USER_AGENT, OWN_NAME)
                .header(header::ACCEPT_ENCODING, "identity")
                .header(header::CONNECTION, "close");
            if let Some(range) = &range {
                request = request.header(header::RANGE, range);
            }
            if let Some(tag) = tag {
                request = request.header(header::IF_RANGE, tag);
            }
            let request = request.body(Empty::new());
            let request = request.map_err(|_| FetchError::Redirect {
                location: url.to_string(),
            })?;
            let (response, task) = self.exchange(&url, request).await?;
            let (parts, body) = response.into_parts();
            match parts.status {
                StatusCode::OK => {
                    let bytes = body.size_hint().exact();
                    return Ok(Answer::new(0, bytes, parts.headers, body, task));
                }
                StatusCode::PARTIAL_CONTENT => {
                    let part = part(&parts.headers).ok_or(FetchError::OtherPart)?;
                    let (from, of) = (part.first(), part.of());
                    return Ok(Answer::new(from, of, parts.headers, body, task));
                }
                status if status.is_redirection() => {
                    url = follow(&url, status, parts.headers.get(header::LOCATION))?;
                }
                status => return Err(FetchError::Status { status }),
            }
        }
        Err(FetchError::Redirects)
    }

    async fn exchange(
        &self,
        url: &Url,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Response<Incoming>, Ended), FetchError> {
        let failed = |source| FetchError::Connect {
            host: url.host().to_owned(),
            source,
        };
        let found = tokio::net::lookup_host((url.host(), url.port())).await;
        let stream = first(found.map_err(failed)?, self.patience.connect).await;
        let stream = stream.map_err(failed)?;
        if !url.is_tls() {
            return converse(stream, request).await;
        }
        let name = ServerName::try_from(url.host().to_owned());
        let name = name.map_err(|e| failed(io::Error::other(e)))?;
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        converse(stream.await.map_err(failed)?, request).await
    }
}

/// An answer that gives something.
#[derive(Debug)]
struct Answer {
    /// From which byte of the file on.
    from: u64,
    /// Of how many, if that is said.
    of: Option<u64>,
    /// What stays the same as long as the file does.
    tag: Option<HeaderValue>,
    body: Incoming,
    _task: Ended,
}

impl Answer {
    fn new(from: u64, of: Option<u64>, headers: HeaderMap, body: Incoming, task: Ended) -> Self {
        let tag = headers.get(header::ETAG).cloned();
        Self {
            from,
            of,
            // A weak one may be that of other bytes (RFC 9110 section 8.8.1).
            tag: tag.filter(|tag| !tag.as_bytes().starts_with(b"W/")),
            body,
            _task: task,
        }
    }
}

/// Ends the task that carries a connection's bytes.
#[derive(Debug)]
struct Ended(AbortHandle);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(Response<Incoming>, Ended), FetchError> {
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(MAX_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // An error of it is the request's as well.
    let task = tokio::spawn(async move {
        let _ = connection.await;
    });
    let task = Ended(task.abort_handle());
    Ok((sender.send_request(request).await?, task))
}

/// A connection to the first address that accepts one in time: one that swallows all that it is sent doesn't take the
/// others' time.
async fn first(
    addresses: impl Iterator<Item = SocketAddr>,
    patience: Duration,
) -> io::Result<TcpStream> {
    let mut trouble = io::Error::new(io::ErrorKind::NotFound, "it has no address");
    for address in addresses.take(MAX_ADDRESSES) {
        trouble = match timeout(patience, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => e,
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
    }
    Err(trouble)
}

fn follow(
    from: &Url,
    status: StatusCode,
    location: Option<&HeaderValue>,
) -> Result<Url, FetchError> {
    let location = location.ok_or(FetchError::Status { status })?;
    let text = String::from_utf8_lossy(location.as_bytes());
    let url = from.follow(&text).ok();
    url.filter(|url| url.is_tls() || !from.is_tls())
        .ok_or_else(|| FetchError::Redirect {
            location: text.chars().take(200).collect(),
        })
}

/// What part an answer says that it is.
fn part(headers: &HeaderMap) -> Option<Part> {
    let said = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    said.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_redirect_leads_out_of_tls() {
        let from: Url = "https://a.example/x".parse().unwrap();
        let status = StatusCode::FOUND;
        let check = |location: &'static str| {
            follow(&from, status, Some(&HeaderValue::from_static(location)))
        };
        assert_eq!(check("/y").unwrap().to_string(), "https://a.example/y");
        assert!(matches!(
            check("http://a.example/y"),
            Err(FetchError::Redirect { .. })
        ));
        let nowhere = follow(&from, status, None);
        assert!(matches!(nowhere, Err(FetchError::Status { .. })));
    }
}
