//! Bodies of requests, and answers that are no page.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use zeroize::Zeroizing;

use super::Response;

/// The longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// How long a body may take to come.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// Reads a body; nothing if it is too long, too slow or breaks off.
pub async fn read_body(body: Incoming) -> Option<Zeroizing<Vec<u8>>> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = tokio::time::timeout(BODY_PATIENCE, body).await.ok()?.ok()?;
    Some(Zeroizing::new(body.to_bytes().to_vec()))
}

/// Sends the browser on with a GET (RFC 9110 section 15.4.4).
pub fn see(url: &str) -> Response {
    let mut response = empty(StatusCode::SEE_OTHER);
    match HeaderValue::from_str(url) {
        Ok(url) => drop(response.headers_mut().insert(header::LOCATION, url)),
        Err(_) => *response.status_mut() = StatusCode::BAD_GATEWAY,
    }
    response
}

/// Nothing but a status.
pub fn empty(status: StatusCode) -> Response {
    let mut response = hyper::Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = hyper::Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
