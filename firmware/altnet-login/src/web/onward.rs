//! Where somebody was going when the gateway's portal led them here: remembered by the browser, and
//! offered as a link once somebody is logged in.
//!
//! Anybody can make a link to this page that names any place, so only places of the network that
//! the page itself is in are offered, and nobody is sent there unasked.

use hyper::Uri;
use hyper::header::{self, HeaderMap, HeaderValue};

use super::request::{Form, cookie};
use super::{Peer, Response};
use crate::http::percent_encode;

const COOKIE: &str = "altnet-login-onward";
/// How long a browser remembers it, in seconds: somebody looks for a password.
const REMEMBERED_S: u32 = 900;
/// The longest address, in bytes.
const MAX_BYTES: usize = 512;

/// Where a request says that somebody was going: its own query first, then what the browser
/// remembers. `own` is the host that the page is seen at.
pub fn wanted(uri: &Uri, headers: &HeaderMap, own: &str) -> Option<String> {
    named(uri, own).or_else(|| {
        let remembered = format!("from={}", cookie(headers, COOKIE)?);
        allowed(Form::parse(remembered.as_bytes())?.field("from")?, own)
    })
}

/// Where a request's query says so.
pub fn named(uri: &Uri, own: &str) -> Option<String> {
    let query = Form::parse(uri.query()?.as_bytes())?;
    allowed(query.field("from")?, own)
}

/// Has a browser remember it.
pub fn remember(response: &mut Response, peer: &Peer, wanted: &str) {
    let secure = if peer.is_tls { "; Secure" } else { "" };
    let wanted = percent_encode(wanted);
    let cookie = format!(
        "{COOKIE}={wanted}; Path=/; Max-Age={REMEMBERED_S}; HttpOnly; SameSite=Lax{secure}"
    );
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// An address as it is, if it is plain HTTP of a name beside the page's own: `wiki.home.alt` beside
/// `login.home.alt`.
fn allowed(text: &str, own: &str) -> Option<String> {
    let uri: Uri = text.parse().ok().filter(|_| text.len() <= MAX_BYTES)?;
    let authority = uri.authority()?.as_str();
    let host = uri.host()?;
    let (_, zone) = own.split_once('.')?;
    let is_name = zone.contains('.') && !zone.ends_with(|c: char| c.is_ascii_digit());
    let is_beside = host
        .strip_suffix(zone)
        .is_some_and(|name| name.len() > 1 && name.ends_with('.'));
    let is_plain = !authority.contains('@')
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    let is_it = uri.scheme_str() == Some("http") && is_name && is_beside && is_plain && host != own;
    is_it.then(|| uri.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_places_beside_the_page_are_offered() {
        let check = |text: &str, own: &str, good: bool| {
            assert_eq!(allowed(text, own).is_some(), good, "{text} at {own}");
        };
        let own = "login.home.alt";
        check("http://wiki.home.alt/a?b=c&d", own, true);
        check("http://wiki.home.alt:80/", own, true);
        for bad in [
            "http://wiki.home.alt.example/",
            "http://example/.home.alt",
            "http://example#.home.alt",
            "http://example@wiki.home.alt/",
            "http://user:word@wiki.home.alt/",
            "http://xhome.alt/",
            "http://.home.alt/",
            "http://home.alt/",
            "http://login.home.alt/",
            "https://wiki.home.alt/",
            "javascript://wiki.home.alt/%0aalert(1)",
            "//wiki.home.alt/",
            "/",
            "",
        ] {
            check(bad, own, false);
        }
        check(
            &format!("http://wiki.home.alt/{}", "a".repeat(512)),
            own,
            false,
        );
        // Seen by an address, the page has no names beside it.
        check("http://9.0.0.1/", "127.0.0.1", false);
        check("http://wiki.alt/", "login.alt", false);
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_offered_is_in_the_network(text: String, own: String) {
            let _ = allowed(&text, &own);
            if let Some(url) = allowed(&text, "login.home.alt") {
                prop_assert!(url.starts_with("http://"));
            }
        }

        #[test]
        fn what_a_browser_remembers_is_read(path in "[a-z0-9/=&%?]{0,40}") {
            let text = format!("http://wiki.home.alt/{path}");
            let mut headers = HeaderMap::new();
            let pair = format!("{COOKIE}={}", percent_encode(&text));
            headers.insert(header::COOKIE, pair.parse().unwrap());
            let uri = Uri::from_static("/");
            prop_assert_eq!(wanted(&uri, &headers, "login.home.alt"), allowed(&text, "login.home.alt"));
        }
    }
}
