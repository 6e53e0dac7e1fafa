//! The few lines of HTTP/1.1 (RFC 9112) by which DERP begins, and what else Tailscale's clients ask
//! of a relay.
//!
//! In: the head of a request. Out: what to do, and a whole response. Bodies aren't read; a response
//! ends its connection.
//!
//! Source: `derp/derpserver/handler.go` and `cmd/derper` of Tailscale.

use altnet_wire::derp::{PublicKey, VERSION};

/// The longest head, in bytes.
pub(crate) const MAX_HEAD_BYTES: usize = 8 << 10;
/// The most headers in one.
const MAX_HEADERS: usize = 48;
/// The longest challenge that is answered.
const MAX_CHALLENGE_BYTES: usize = 64;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To speak DERP.
    Derp {
        /// Without a response before it.
        is_fast: bool,
        /// It would rather be on another server of its region.
        is_not_ideal: bool,
    },
    /// Something else: the whole response.
    Other(Vec<u8>),
}

/// The length of the head at the front of `bytes`, its empty line counted, once it is there.
pub(crate) fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .map(|at| at + 4)
}

/// Reads a request's head.
pub(crate) fn asked(head: &[u8]) -> Asked {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let is_whole = matches!(request.parse(head), Ok(httparse::Status::Complete(_)));
    let (Some(method), Some(path), true) = (request.method, request.path, is_whole) else {
        return Asked::Other(plain("400 Bad Request", "", "not an HTTP request\n"));
    };
    let header = |name: &str| {
        let found = request
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    match path_of(path) {
        "/derp" => derp(&header),
        "/derp/probe" | "/derp/latency-check" => Asked::Other(match method {
            "GET" | "HEAD" => plain("200 OK", "Access-Control-Allow-Origin: *\r\n", ""),
            _ => plain("405 Method Not Allowed", "", "bogus probe method\n"),
        }),
        "/generate_204" => Asked::Other(no_content(header("X-Tailscale-Challenge"))),
        "/robots.txt" => Asked::Other(plain("200 OK", "", "User-agent: *\nDisallow: /\n")),
        "/" => Asked::Other(plain("200 OK", "", "This is a DERP relay.\n")),
        _ => Asked::Other(plain("404 Not Found", "", "404 page not found\n")),
    }
}

/// The response to who wants to speak DERP without TLS.
pub(crate) fn needs_tls() -> Vec<u8> {
    let why = "DERP is spoken over TLS here\n";
    plain("426 Upgrade Required", "Upgrade: TLS/1.3\r\n", why)
}

/// The path of a request's target, which may name a host before it (RFC 9112 section 3.2.2) and a
/// query behind it.
fn path_of(target: &str) -> &str {
    let target = match target.split_once("://") {
        Some((scheme, rest)) if !scheme.contains('/') => match rest.find('/') {
            Some(at) => rest.get(at..).unwrap_or("/"),
            None => "/",
        },
        _ => target,
    };
    target.split('?').next().unwrap_or(target)
}

fn derp<'h>(header: &dyn Fn(&str) -> Option<&'h str>) -> Asked {
    let upgrade = header("Upgrade").unwrap_or_default();
    // The first clients said WebSocket and spoke DERP nevertheless; who means it names the protocol.
    let is_websocket = upgrade.eq_ignore_ascii_case("websocket");
    if is_websocket && header("Sec-WebSocket-Protocol").is_some_and(|p| p.contains("derp")) {
        let why = "this relay speaks no WebSocket\n";
        return Asked::Other(plain("501 Not Implemented", "", why));
    }
    if !is_websocket && !upgrade.eq_ignore_ascii_case("derp") {
        let why = "DERP requires connection upgrade\n";
        return Asked::Other(plain("426 Upgrade Required", "Upgrade: DERP\r\n", why));
    }
    Asked::Derp {
        is_fast: header("Derp-Fast-Start") == Some("1"),
        is_not_ideal: header("Ideal-Node").is_some_and(|name| !name.is_empty()),
    }
}

/// The response after which DERP begins.
pub(crate) fn switching(public: &PublicKey) -> Vec<u8> {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\
         Derp-Version: {VERSION}\r\nDerp-Public-Key: {public}\r\n\r\n"
    )
    .into_bytes()
}

/// What shows that no captive portal is between.
fn no_content(challenge: Option<&str>) -> Vec<u8> {
    let is_answerable = |text: &&str| {
        let is_allowed = |c: u8| c.is_ascii_alphanumeric() || b".-_:".contains(&c);
        !text.is_empty() && text.len() <= MAX_CHALLENGE_BYTES && text.bytes().all(is_allowed)
    };
    let answer = challenge
        .filter(is_answerable)
        .map(|text| format!("X-Tailscale-Response: response {text}\r\n"))
        .unwrap_or_default();
    format!(
        "HTTP/1.1 204 No Content\r\n{answer}Cache-Control: no-cache, no-store, must-revalidate, \
         no-transform, max-age=0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

fn plain(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The request by which a client begins.
pub(crate) fn request(host: &str, is_fast: bool) -> Vec<u8> {
    let fast = if is_fast {
        "Derp-Fast-Start: 1\r\n"
    } else {
        ""
    };
    format!(
        "GET /derp HTTP/1.1\r\nHost: {host}\r\nUser-Agent: altnet\r\nUpgrade: DERP\r\n\
         Connection: Upgrade\r\n{fast}\r\n"
    )
    .into_bytes()
}

/// The status of a response.
pub(crate) fn status(head: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => response.code,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn other(request: &str) -> String {
        match asked(request.as_bytes()) {
            Asked::Other(response) => String::from_utf8(response).unwrap(),
            derp => panic!("{derp:?}"),
        }
    }

    fn check(headers: &str, expected: Asked) {
        let request = format!("GET /derp HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        assert_eq!(asked(request.as_bytes()), expected, "{headers}");
    }

    #[test]
    fn derp_begins_with_an_upgrade() {
        let derp = |is_fast, is_not_ideal| Asked::Derp {
            is_fast,
            is_not_ideal,
        };
        check(
            "Upgrade: DERP\r\nConnection: Upgrade\r\n",
            derp(false, false),
        );
        check("upgrade: derp\r\nDerp-Fast-Start: 1\r\n", derp(true, false));
        check(
            "Upgrade: WebSocket\r\nIdeal-Node: 1a\r\n",
            derp(false, true),
        );
        check(
            "Upgrade: DERP\r\nDerp-Fast-Start: 0\r\n",
            derp(false, false),
        );
        let refused = other("GET /derp HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(refused.starts_with("HTTP/1.1 426 ") && refused.contains("requires"));
        let websocket = "Upgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n";
        let refused = other(&format!("GET /derp HTTP/1.1\r\n{websocket}\r\n"));
        assert!(refused.starts_with("HTTP/1.1 501 "));
    }

    #[test]
    fn the_response_names_version_and_key() {
        let text = String::from_utf8(switching(&PublicKey([0xab; 32]))).unwrap();
        let key = "ab".repeat(32);
        assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n"));
        let end = format!("Derp-Version: 2\r\nDerp-Public-Key: {key}\r\n\r\n");
        assert!(text.ends_with(&end));
        assert_eq!(status(text.as_bytes()), Some(101));
    }

    #[test]
    fn latency_is_measured_by_two_paths() {
        for path in ["/derp/probe", "/derp/latency-check", "/derp/probe?x=1"] {
            let found = other(&format!("GET {path} HTTP/1.1\r\n\r\n"));
            assert!(found.starts_with("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"));
            let refused = other(&format!("POST {path} HTTP/1.1\r\n\r\n"));
            assert!(refused.starts_with("HTTP/1.1 405 "));
        }
    }

    #[test]
    fn a_target_may_name_its_host() {
        for (target, path) in [
            ("https://192.0.2.1:443/derp?x=http://y/", "/derp"),
            ("/derp?x=http://y/z", "/derp"),
            ("http://derp.example", "/"),
            ("/", "/"),
        ] {
            assert_eq!(path_of(target), path, "{target}");
        }
    }

    #[test]
    fn a_challenge_is_answered_unless_it_could_be_something_else() {
        let ask = |challenge: &str| {
            let header = format!("X-Tailscale-Challenge: {challenge}\r\n");
            other(&format!("GET /generate_204 HTTP/1.1\r\n{header}\r\n"))
        };
        let found = ask("ts_derp1.example:99-a");
        assert!(found.starts_with("HTTP/1.1 204 No Content\r\n"));
        assert!(found.contains("\r\nX-Tailscale-Response: response ts_derp1.example:99-a\r\n"));
        for strange in ["a b", "<script>", &"a".repeat(65), ""] {
            assert!(!ask(strange).contains("Response: "), "{strange}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for text in [
            "\r\n\r\n",
            "GET\r\n\r\n",
            "\u{16}\u{3}\u{1}\r\n\r\n",
            "GET / HTTP/9\r\n\r\n",
        ] {
            assert!(other(text).starts_with("HTTP/1.1 400 "), "{text:?}");
        }
        assert!(other("GET /x HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 404 "));
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n"), None);
        assert_eq!(head_length(b"GET / HTTP/1.1\r\n\r\nrest"), Some(18));
    }
}
