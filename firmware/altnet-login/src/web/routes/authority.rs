//! `/ca`: the network's authority for TLS, for devices that don't trust it yet.

use data_encoding::BASE64;
use http_body_util::Full;
use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{self, HeaderValue};

use crate::api::{ApiError, Authority};
use crate::web::Response;
use crate::web::pages;
use crate::web::reply::empty;

/// The page at `/ca`, or the authority's certificate in the form that the path ends in.
pub fn answer(found: Result<Authority, ApiError>, path: &str) -> Response {
    let Ok(authority) = found else {
        return empty(StatusCode::NOT_FOUND);
    };
    match path {
        "/ca" => body("text/html; charset=utf-8", pages::authority(&authority)),
        "/ca.pem" => body("application/x-pem-file", authority.pem),
        "/ca.mobileconfig" => body("application/x-apple-aspen-config", authority.mobileconfig),
        "/ca.der" | "/ca.crt" => match BASE64.decode(authority.der.as_bytes()) {
            Ok(der) => body("application/x-x509-ca-cert", der),
            Err(_) => empty(StatusCode::BAD_GATEWAY),
        },
        _ => empty(StatusCode::NOT_FOUND),
    }
}

fn body(kind: &'static str, bytes: impl Into<Bytes>) -> Response {
    let mut response = hyper::Response::new(Full::new(bytes.into()));
    let kind = HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
