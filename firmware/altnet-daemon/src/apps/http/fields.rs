//! The fields of messages on their way through: who asks, and what is between two hops only.
//!
//! `Altnet-Caller-*`, `Altnet-App`, `Forwarded` and `X-Forwarded-*` say what this gateway knows.
//! Whatever a caller sent under such names is gone before, in any spelling that a server could
//! take for them ([`head::starts_as`]).

use hyper::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

use super::{From, head};
use crate::apps::{AppConfig, Caller};

/// Beginnings of names that are ours to write.
const OURS: [&str; 4] = ["altnet-", "x-forwarded-", "forwarded", "x-real-ip"];

/// Fields between two hops whether `Connection` names them or not (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    hyper::header::PROXY_AUTHENTICATE,
    hyper::header::PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether only this gateway may write the field.
pub fn is_ours(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    OURS.iter().any(|ours| head::starts_as(name, ours))
}

/// Whether a request asks to leave HTTP for WebSocket (RFC 6455 section 4.1). The guard decides
/// by the same rule.
pub fn wants_websocket<B>(request: &hyper::Request<B>) -> bool {
    let headers = request.headers();
    let mut upgrades = headers.get_all(UPGRADE).iter();
    let is_websocket = upgrades
        .next()
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    request.method() == hyper::Method::GET
        && request.version() == hyper::Version::HTTP_11
        && is_websocket
        && upgrades.next().is_none()
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
}

/// Takes away what is between two hops, except what leaving HTTP takes if `is_parting`.
pub fn strip_hop(headers: &mut HeaderMap, is_parting: bool) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // What frames a message or says whom it is for is not a hop's to take away.
        .filter(|name| *name != CONTENT_LENGTH && *name != HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if is_parting {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
}

/// Makes the fields of `caller`'s request the ones that `app`'s target gets.
pub fn introduce(
    headers: &mut HeaderMap,
    app: &AppConfig,
    from: From,
    caller: &Caller,
    is_parting: bool,
) {
    // hyper sends a body of unknown length for any method only if it is told so.
    let is_chunked = headers.contains_key(TRANSFER_ENCODING);
    strip_hop(headers, is_parting);
    if is_chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    // hyper has said `100 Continue` by the time that anybody reads the body.
    headers.remove(hyper::header::EXPECT);
    strip_ours(headers);
    announce_trailers(headers);
    if !headers.contains_key(HOST) {
        // HTTP/1.0 needs none, and HTTP/1.1 does.
        headers.insert(HOST, value(&format!("[{}]", app.address), is_host));
    }
    let text = from.address.to_string();
    let protocol = if from.is_secure { "https" } else { "http" };
    let forwarded = format!("for=\"[{text}]\";proto={protocol}");
    let mut set = |name, text: &str, is_plain: fn(u8) -> bool| {
        headers.insert(HeaderName::from_static(name), value(text, is_plain));
    };
    set("altnet-caller-address", &text, is_plain);
    set("altnet-caller-name", &caller.name, is_plain);
    set("altnet-caller-member", &caller.member, is_plain);
    if let Some(person) = &caller.person {
        set("altnet-caller-person", person, is_plain);
    }
    let groups: Vec<String> = caller.groups.iter().map(|g| encode(g, is_plain)).collect();
    set("altnet-caller-groups", &groups.join(","), is_host);
    if let Some(site) = &caller.site {
        set("altnet-caller-site", site, is_plain);
    }
    set("altnet-app", &app.name, is_plain);
    set("forwarded", &forwarded, is_host);
    set("x-forwarded-for", &text, is_plain);
    set("x-forwarded-proto", protocol, is_plain);
}

/// Takes away the fields that only this gateway may write; also of trailers.
pub fn strip_ours(headers: &mut HeaderMap) {
    let forged: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_ours(name))
        .cloned()
        .collect();
    for name in forged {
        headers.remove(name);
    }
}

/// Leaves in `Trailer` the names that may come, so that none is announced in vain.
fn announce_trailers(headers: &mut HeaderMap) {
    let names: Vec<String> = headers
        .get_all(TRAILER)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !is_ours(name))
        .map(|name| name.to_string())
        .collect();
    headers.remove(TRAILER);
    if !names.is_empty() {
        headers.insert(TRAILER, value(&names.join(", "), is_host));
    }
}

/// Whether a byte stands for itself in the value of a field about a caller. A comma would be
/// taken for the end of a group, a percent sign for an escape.
fn is_plain(byte: u8) -> bool {
    is_host(byte) && !matches!(byte, b',' | b'%')
}

fn is_host(byte: u8) -> bool {
    byte.is_ascii_graphic() || byte == b' '
}

fn encode(text: &str, is_plain: fn(u8) -> bool) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            if is_plain(byte) {
                encoded.push(byte.into());
            } else {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            encoded
        })
}

/// A field's value; bytes that don't stand for themselves are percent-encoded (RFC 3986).
fn value(text: &str, is_plain: fn(u8) -> bool) -> HeaderValue {
    // Visible characters and spaces are a value (RFC 9110 section 5.5).
    HeaderValue::try_from(encode(text, is_plain)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use crate::apps::Kind;
    use hyper::Request;

    const FROM: From = From {
        address: Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 2),
        is_secure: false,
    };

    fn app() -> AppConfig {
        let to = "127.0.0.1:8080".parse().unwrap();
        AppConfig::new("wiki", Ipv6Addr::LOCALHOST, to, Kind::Http)
    }

    fn caller() -> Caller {
        Caller {
            name: "laptop".into(),
            member: "ada-1".into(),
            person: Some("ada".into()),
            groups: vec!["family".into(), "a,b%\u{e4}\r\n".into()],
            site: None,
        }
    }

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            );
        }
        headers
    }

    fn introduced(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = headers(fields);
        introduce(&mut headers, &app(), FROM, &caller(), false);
        headers
    }

    #[test]
    fn a_caller_is_introduced_once() {
        let headers = introduced(&[
            ("Altnet-Caller-Person", "root"),
            ("altnet_caller_person", "root"),
            ("ALTNET-CALLER-SITE", "1"),
            ("Altnet.Caller.Groups", "admins"),
            ("altnet-app", "x"),
            ("altnet-later", "x"),
            ("X-Forwarded-For", "::1"),
            ("X_Forwarded_Host", "x"),
            ("Forwarded", "for=x"),
            ("X-Real-IP", "::1"),
            ("Accept", "text/plain"),
        ]);
        let mut found: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "accept: text/plain",
                "altnet-app: wiki",
                "altnet-caller-address: fd00:0:0:1::2",
                "altnet-caller-groups: family,a%2Cb%25%C3%A4%0D%0A",
                "altnet-caller-member: ada-1",
                "altnet-caller-name: laptop",
                "altnet-caller-person: ada",
                "forwarded: for=\"[fd00:0:0:1::2]\";proto=http",
                "host: [::1]",
                "x-forwarded-for: fd00:0:0:1::2",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn connection_takes_away_nothing_of_ours() {
        let headers = introduced(&[
            (
                "Connection",
                "Altnet-Caller-Person, close, X-Hop, host, content-length",
            ),
            ("connection", "x-forwarded-for"),
            ("X-Hop", "1"),
            ("Host", "wiki"),
            ("Content-Length", "3"),
            ("TE", "trailers"),
            ("Keep-Alive", "timeout=5"),
            ("Upgrade", "h2c"),
        ]);
        for gone in ["connection", "x-hop", "te", "keep-alive", "upgrade"] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
        assert_eq!(headers["altnet-caller-person"], "ada");
        assert_eq!(headers["x-forwarded-for"], "fd00:0:0:1::2");
        assert_eq!(
            (&headers["host"], &headers["content-length"]),
            (
                &HeaderValue::from_static("wiki"),
                &HeaderValue::from_static("3")
            )
        );
    }

    #[test]
    fn what_is_unknown_is_absent() {
        let mut headers = headers(&[("altnet-caller-person", "root")]);
        let nobody = Caller {
            person: None,
            groups: Vec::new(),
            ..caller()
        };
        introduce(&mut headers, &app(), FROM, &nobody, false);
        assert!(!headers.contains_key("altnet-caller-person"));
        assert_eq!(headers["altnet-caller-groups"], "");
    }

    #[test]
    fn only_honest_trailers_are_announced() {
        let headers = introduced(&[
            ("Trailer", "Altnet_App, Checksum"),
            ("Trailer", "altnet-app"),
        ]);
        assert_eq!(headers["trailer"], "checksum");
        assert!(!introduced(&[("Trailer", "altnet-app")]).contains_key("trailer"));
    }

    #[test]
    fn only_a_get_without_a_body_leaves_for_websocket() {
        let request = |method, fields: &[(&str, &str)]| {
            let mut request = Request::builder().method(method).body(()).unwrap();
            *request.headers_mut() = headers(fields);
            wants_websocket(&request)
        };
        assert!(request("GET", &[("Upgrade", "WebSocket")]));
        assert!(!request("POST", &[("Upgrade", "websocket")]));
        assert!(!request("GET", &[("Upgrade", "h2c")]));
        assert!(!request(
            "GET",
            &[("Upgrade", "websocket"), ("Upgrade", "h2c")]
        ));
        assert!(!request(
            "GET",
            &[("Upgrade", "websocket"), ("Content-Length", "0")]
        ));
    }
}
