//! HTTP/1.1 as small as a device needs it: one request, one answer, one connection.
//!
//! In: bytes as they come. Out: the answer once it is whole. No redirects, no kept connections.
//!
//! Source: RFC 9112 sections 6 and 7.1.

use super::MAX_BYTES;
use super::description::Service;
use super::location::Location;
use super::soap::Action;

/// The largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 8 * 1024;
const MAX_HEADERS: usize = 48;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The body. Bytes that are no UTF-8 stand as replacement characters: they are in no value
    /// that is used.
    pub body: String,
}

/// Why bytes are no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadResponse {
    /// Not HTTP.
    #[error("the device's answer is not HTTP")]
    Unreadable,
    /// More than [`MAX_BYTES`].
    #[error("the device's answer is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// The connection ended before the answer did.
    #[error("the device broke off")]
    CutOff,
}

/// The request for a description.
pub fn get(location: &Location) -> String {
    let Location { address, path } = location;
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n"
    )
}

/// The request that calls a service.
pub fn post(service: &Service, action: &Action) -> String {
    let Location { address, path } = &service.control;
    let (header, body) = (action.header(service.kind), action.body(service.kind));
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {AGENT}\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: {header}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

/// As UPnP Device Architecture 1.1 section 1.3.2 wants it: system, UPnP version, product.
const AGENT: &str = concat!("Linux UPnP/1.1 altnet/", env!("CARGO_PKG_VERSION"));

enum Length {
    Known(usize),
    Chunked,
    UntilEnd,
}

/// Reads what came so far; nothing if more is needed. `is_end` says that no more will come.
///
/// # Errors
/// [`BadResponse`].
pub fn parse(bytes: &[u8], is_end: bool) -> Result<Option<Response>, BadResponse> {
    let more = || match (is_end, bytes.len() > MAX_BYTES + MAX_HEAD_BYTES) {
        (_, true) => Err(BadResponse::TooLong),
        (true, _) => Err(BadResponse::CutOff),
        (false, false) => Ok(None),
    };
    let mut rest = bytes;
    loop {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let start = match head.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if rest.len() > MAX_HEAD_BYTES => {
                return Err(BadResponse::TooLong);
            }
            Ok(httparse::Status::Partial) => return more(),
            Err(_) => return Err(BadResponse::Unreadable),
        };
        rest = rest.get(start..).unwrap_or(&[]);
        let status = head.code.unwrap_or(0);
        // Something may go before the answer (RFC 9110 section 15.2).
        if !(100..200).contains(&status) {
            let body = body(length(head.headers)?, rest, is_end)?;
            return body.map_or_else(more, |body| Ok(Some(Response { status, body })));
        }
    }
}

/// The body at the beginning of `rest`, once it is whole.
fn body(length: Length, rest: &[u8], is_end: bool) -> Result<Option<String>, BadResponse> {
    let body = match length {
        Length::Known(length) if length > MAX_BYTES => return Err(BadResponse::TooLong),
        Length::Known(length) => rest.get(..length).map(<[u8]>::to_vec),
        Length::Chunked => chunks(rest)?,
        Length::UntilEnd if rest.len() > MAX_BYTES => return Err(BadResponse::TooLong),
        Length::UntilEnd => is_end.then(|| rest.to_vec()),
    };
    Ok(body.map(|body| String::from_utf8_lossy(&body).into_owned()))
}

fn length(headers: &[httparse::Header<'_>]) -> Result<Length, BadResponse> {
    let find = |name: &str| headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
    if let Some(coding) = find("transfer-encoding") {
        return match coding.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
            true => Ok(Length::Chunked),
            false => Err(BadResponse::Unreadable),
        };
    }
    let Some(length) = find("content-length") else {
        return Ok(Length::UntilEnd);
    };
    let text = std::str::from_utf8(length.value).unwrap_or("");
    let length = text.trim().parse().map_err(|_| BadResponse::Unreadable)?;
    Ok(Length::Known(length))
}

/// The chunks of a body put together; nothing if the last has not come.
fn chunks(mut bytes: &[u8]) -> Result<Option<Vec<u8>>, BadResponse> {
    let mut body = Vec::new();
    loop {
        let (size, start) = match httparse::parse_chunk_size(bytes) {
            Ok(httparse::Status::Complete((start, size))) => (size, start),
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(BadResponse::Unreadable),
        };
        if size == 0 {
            return Ok(Some(body));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > MAX_BYTES.saturating_sub(body.len()) {
            return Err(BadResponse::TooLong);
        }
        let rest = bytes.get(start..).unwrap_or(&[]);
        let Some((chunk, rest)) = rest.split_at_checked(size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        // Its end of line, which may still be on its way.
        let Some(rest) = rest.get(2..) else {
            return Ok(None);
        };
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::igd::description::Kind;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn location() -> Location {
        let url = "http://192.168.1.1:5000/rootDesc.xml";
        Location::parse(url, Ipv4Addr::new(192, 168, 1, 1)).unwrap()
    }

    #[test]
    fn requests_say_what_they_must() {
        let request = get(&location());
        assert!(request.starts_with("GET /rootDesc.xml HTTP/1.1\r\nHost: 192.168.1.1:5000\r\n"));
        assert!(request.ends_with("\r\nConnection: close\r\n\r\n"));
        let service = Service {
            kind: Kind::WanIp1,
            control: location(),
        };
        let request = post(&service, &Action::GetExternalIpAddress);
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
        assert!(head.contains("\r\nSOAPAction: \"urn:schemas-upnp-org:service:WANIPConnection:1#GetExternalIPAddress\"\r\n"));
    }

    fn check(bytes: &str, is_end: bool, expected: Result<Option<(u16, &str)>, BadResponse>) {
        let found = parse(bytes.as_bytes(), is_end);
        let expected = expected.map(|found| {
            found.map(|(status, body)| Response {
                status,
                body: body.to_owned(),
            })
        });
        assert_eq!(found, expected, "{bytes:.60}");
    }

    #[test]
    fn a_body_ends_where_it_says() {
        let known = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        check(known, false, Ok(Some((200, "body"))));
        check(&known[..known.len() - 1], false, Ok(None));
        check(&known[..known.len() - 1], true, Err(BadResponse::CutOff));
        let open = "HTTP/1.0 500 No\r\n\r\nbody";
        check(open, false, Ok(None));
        check(open, true, Ok(Some((500, "body"))));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n";
        check(chunked, false, Ok(Some((200, "body"))));
        for end in 0..chunked.len() - 4 {
            check(&chunked[..end], false, Ok(None));
        }
        let continued = format!("HTTP/1.1 100 Continue\r\n\r\n{known}");
        check(&continued, false, Ok(Some((200, "body"))));
    }

    #[test]
    fn an_answer_without_end_is_not_read_to_it() {
        let long = "x".repeat(MAX_BYTES + 1);
        check(
            &format!("HTTP/1.1 200 OK\r\n\r\n{long}"),
            false,
            Err(BadResponse::TooLong),
        );
        let claimed = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
        check(claimed, false, Err(BadResponse::TooLong));
        let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n";
        check(chunk, false, Err(BadResponse::TooLong));
        let head = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_HEAD_BYTES));
        check(&head, false, Err(BadResponse::TooLong));
        check("SSH-2.0-x\r\n", false, Err(BadResponse::Unreadable));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), is_end: bool) {
            let _ = parse(&bytes, is_end);
            let _ = parse(&[b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &bytes[..]].concat(), is_end);
        }
    }
}
