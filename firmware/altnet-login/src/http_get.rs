//! A small HTTP client for what is signed by itself: CRLs and OCSP.
//!
//! Plain `http://` on purpose (RFC 5280 section 8 and RFC 6960 appendix A.1 want it so: to check a
//! TLS certificate would need a CRL again). One connection a request, no redirects, a bound on the
//! answer and on the time.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a request may take, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// Not a URL that this client fetches.
    #[error("it isn't an http:// URL")]
    Url,
    /// No connection.
    #[error("{0}")]
    Connection(#[from] std::io::Error),
    /// The server doesn't speak HTTP as it should.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// An answer, but not the one.
    #[error("it answered {}", .0.as_u16())]
    Status(StatusCode),
    /// A body longer than the bound, or one that broke off.
    #[error("its answer broke off or is longer than {0} bytes")]
    Body(usize),
    /// No whole answer in time.
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Late,
}

/// Fetches `url`, whose body may have `limit_bytes`.
///
/// # Errors
/// [`HttpError`]; any status but 200 is one.
pub async fn get(url: &str, limit_bytes: usize) -> Result<Bytes, HttpError> {
    timed(Method::GET, url, None, limit_bytes).await
}

/// Posts `body` of the given content type to `url`.
///
/// # Errors
/// As for [`get`].
pub async fn post(
    url: &str,
    content_type: &'static str,
    body: Vec<u8>,
    limit_bytes: usize,
) -> Result<Bytes, HttpError> {
    timed(Method::POST, url, Some((content_type, body)), limit_bytes).await
}

/// Whether this client would fetch `url`.
pub fn is_http(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty())
    })
}

async fn timed(
    method: Method,
    url: &str,
    body: Option<(&'static str, Vec<u8>)>,
    limit_bytes: usize,
) -> Result<Bytes, HttpError> {
    tokio::time::timeout(TIMEOUT, request(method, url, body, limit_bytes))
        .await
        .map_err(|_| HttpError::Late)?
}

async fn request(
    method: Method,
    url: &str,
    body: Option<(&'static str, Vec<u8>)>,
    limit_bytes: usize,
) -> Result<Bytes, HttpError> {
    if !is_http(url) {
        return Err(HttpError::Url);
    }
    let uri: Uri = url.parse().map_err(|_| HttpError::Url)?;
    let host = uri.host().ok_or(HttpError::Url)?;
    let authority = match uri.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((address, uri.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, authority);
    let request: Request<Full<Bytes>> = match body {
        None => request.body(Full::default()),
        Some((kind, body)) => request.header(CONTENT_TYPE, kind).body(Full::from(body)),
    }
    .map_err(|_| HttpError::Url)?;
    let answer = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(HttpError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), limit_bytes)
            .collect()
            .await;
        body.map(|body| body.to_bytes())
            .map_err(|_| HttpError::Body(limit_bytes))
    };
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    // The connection moves the bytes; it may end before the answer is taken from it.
    tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    async fn answered(answer: &'static str, limit_bytes: usize) -> Result<Bytes, HttpError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a.crl", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            assert!(head.starts_with(b"GET /a.crl HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        tokio::join!(get(&url, limit_bytes), server).0
    }

    #[tokio::test]
    async fn an_answer_is_taken_up_to_its_bound() {
        const FIVE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(answered(FIVE, 5).await.unwrap(), "hello");
        assert!(matches!(answered(FIVE, 4).await, Err(HttpError::Body(4))));
        let until_closed = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello";
        assert_eq!(answered(until_closed, 5).await.unwrap(), "hello");
        let short = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello";
        assert!(matches!(answered(short, 99).await, Err(HttpError::Body(_))));
    }

    #[tokio::test]
    async fn what_isnt_200_is_no_answer() {
        for answer in [
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        ] {
            assert!(matches!(
                answered(answer, 9).await,
                Err(HttpError::Status(_))
            ));
        }
        assert!(matches!(
            answered("nonsense\r\n\r\n", 9).await,
            Err(HttpError::Http(_))
        ));
        for url in ["https://a/", "ldap://a/", "/a", "http:///a", "http://"] {
            assert!(!is_http(url), "{url}");
        }
    }
}
