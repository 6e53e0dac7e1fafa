//! The captive portal (RFC 8952): what answers plain HTTP that policy refuses of a machine where
//! nobody is logged in, in the place of whom it was meant for.
//!
//! In: the packets that the node gives up with `Verdict::LogIn`, for whichever address. Out:
//! packets from those addresses, for the machine's LAN. Every request gets the same short page,
//! with the status that says what it is (RFC 6585 section 6): browsers go on to the login page,
//! which they tell where they wanted to go, and programs don't take it for the answer.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Response, StatusCode};
use tokio::sync::mpsc;

use super::http::body::Body;
use super::http::{self, Answerer};
use super::serve::{self, Shared};
use super::stack::{Place, Stack};
use super::words::Words;
use super::{AppError, Full, Limits, Packet, Patience, Stats};

/// Packets of the portal that wait for the LAN.
pub const OUTBOX: usize = 64;
/// The longest address that the login page is told of, in bytes.
const MAX_ADDRESS_BYTES: usize = 512;
/// Its bounds: everybody is of one site, and says little.
const LIMITS: Limits = Limits {
    connections: 64,
    per_caller: 8,
    per_site: 64,
    half_open: 32,
    buffer_bytes: 4 * 1024,
    inbox: 64,
};

/// A running portal. Its tasks end with it.
#[derive(Debug)]
pub struct Portal {
    url: Arc<str>,
    inbox: mpsc::Sender<Packet>,
    shared: Arc<Shared>,
}

impl Portal {
    /// Starts one that leads to the login page at `url`, which ends in `/`. Its packets go to
    /// `outbox`. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// [`AppError::Entropy`].
    pub fn start(
        url: String,
        mtu_bytes: u16,
        outbox: mpsc::Sender<Packet>,
    ) -> Result<Self, AppError> {
        let place = Place {
            address: None,
            ports: vec![80],
            mtu_bytes,
        };
        let patience = Patience {
            idle: Duration::from_secs(30),
            head: Duration::from_secs(10),
            ..Patience::default()
        };
        let seed = getrandom::u64().map_err(AppError::Entropy)?;
        let stack = Stack::new(place, LIMITS, patience, outbox.clone(), seed);
        let (inbox, packets) = mpsc::channel(LIMITS.inbox);
        let shared = Arc::new(Shared::new(stack));
        let url: Arc<str> = url.into();
        let to = Arc::clone(&url);
        let serve = move |stream| {
            let answerer = Answerer::Portal(Arc::clone(&to));
            async move {
                let served = http::converse(Words::Plain(stream), patience.head, answerer).await;
                if let Err(e) = served {
                    crate::debug!(
                        "a connection to the portal ended: {}",
                        crate::log::chain(&e)
                    );
                }
            }
        };
        tokio::spawn(serve::run(Arc::clone(&shared), packets, outbox, serve));
        Ok(Self { url, inbox, shared })
    }

    /// Where it leads.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives it a packet that the node refused.
    ///
    /// # Errors
    /// [`Full`] if its queue is; the packet is dropped and counted.
    pub fn deliver(&self, packet: &[u8]) -> Result<(), Full> {
        self.shared.deliver(&self.inbox, packet)
    }

    /// What it counted.
    pub fn stats(&self) -> Stats {
        self.shared.stack().stats()
    }
}

/// The page for a request, if it is one.
pub(super) fn answer(login: &str, request: Option<&Request<Incoming>>) -> Response<Body> {
    let wanted = request.and_then(wanted);
    let mut url = login.to_owned();
    if let Some(wanted) = wanted {
        url.push_str("?from=");
        encode(&wanted, &mut url);
    }
    // Whatever was asked for, nothing in it means anything in HTML.
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Log in first</title>\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\"></head>\
         <body><p>This device may not open this page while nobody is logged in on it. \
         <a href=\"{url}\">Log in</a></p></body></html>\n"
    );
    let mut response = Response::new(Body::Page(Some(Bytes::from(html))));
    *response.status_mut() = StatusCode::NETWORK_AUTHENTICATION_REQUIRED;
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONNECTION, "close"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a request asks for.
fn wanted(request: &Request<Incoming>) -> Option<String> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next()?.to_str().ok()?;
    let wanted = format!("http://{host}{}", request.uri());
    (hosts.next().is_none() && wanted.len() <= MAX_ADDRESS_BYTES).then_some(wanted)
}

/// Writes text so that it is a part of a query and nothing in HTML (RFC 3986 section 2.3).
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte.into());
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::apps::serve::tests::{carry_packets, connect, kernel};
    use crate::testing::in_namespace;

    /// Asks whoever has an address for something; the whole answer.
    async fn ask(to: Ipv6Addr, request: &str) -> String {
        let mut stream = connect(to, 80).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn whoever_is_asked_the_portal_answers() {
        in_namespace("whoever_is_asked_the_portal_answers", async {
            let (outbox, packets) = mpsc::channel(OUTBOX);
            let url = "http://login.home.alt/";
            let portal = Portal::start(url.into(), 1280, outbox).unwrap();
            let deliver = move |packet: &[u8]| portal.deliver(packet).unwrap();
            tokio::spawn(carry_packets(kernel(), deliver, packets));
            let wiki = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0x80);
            let request = "GET /a?b=\"><script> HTTP/1.1\r\nHost: wiki.home.alt\r\n\r\n";
            let answer = ask(wiki, &request.replace("\"><script>", "1")).await;
            assert!(answer.starts_with("HTTP/1.1 511 "), "{answer}");
            let to = "url=http://login.home.alt/?from=http%3A%2F%2Fwiki.home.alt%2Fa%3Fb%3D1\"";
            assert!(answer.contains(to), "{answer}");
            // Another address, and what is no request a browser makes.
            let other = Ipv6Addr::new(0xfd00, 0, 0, 1, 0, 0, 0, 0x81);
            for (request, status) in [
                ("GET / HTTP/1.0\r\n\r\n", "511"),
                (
                    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
                    "511",
                ),
                (
                    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
                    "511",
                ),
                (request, "400"),
                ("nonsense\r\n\r\n", "511"),
            ] {
                let answer = ask(other, request).await;
                let said = answer.split(' ').nth(1);
                assert_eq!(said, Some(status), "{request} {answer}");
                assert!(!answer.contains("<script>"), "{answer}");
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_encoded_means_nothing_in_html(text: String) {
            let mut out = String::new();
            encode(&text, &mut out);
            prop_assert!(out.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)));
        }
    }
}
