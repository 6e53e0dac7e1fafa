//! Telling browsers apart, and this page's own forms from others'.
//!
//! A browser has a random cookie; a form has a token that only this process can compute from the
//! cookie and the device's address.

use data_encoding::BASE64URL_NOPAD;
use hyper::header::{self, HeaderMap, HeaderValue};
use ring::hmac;
use zeroize::Zeroizing;

use super::request::cookie;
use super::{Peer, Response};

const COOKIE: &str = "altnet-login";
/// Over TLS: one that plain HTTP can't write (RFC 6265bis section 4.1.3.2).
const TLS_COOKIE: &str = "__Host-altnet-login";
const COOKIE_BYTES: usize = 18;

/// A browser.
pub struct Browser {
    /// What its cookie holds.
    pub id: String,
    /// What its forms must send to be believed that this page made them.
    pub token: String,
    /// Whether it has no cookie yet.
    pub is_new: bool,
}

/// What tokens are computed with, until this process ends.
pub struct Tokens(hmac::Key);

impl Tokens {
    /// A new key.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &*key)))
    }

    /// The browser that sent a request, or a new one.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn browser(&self, peer: &Peer, headers: &HeaderMap) -> Result<Browser, getrandom::Error> {
        let known = cookie(headers, cookie_name(peer)).filter(|id| {
            let bytes = BASE64URL_NOPAD.decode(id.as_bytes());
            bytes.is_ok_and(|bytes| bytes.len() == COOKIE_BYTES)
        });
        let (id, is_new) = match known {
            Some(id) => (id.to_owned(), false),
            None => {
                let mut bytes = [0; COOKIE_BYTES];
                getrandom::fill(&mut bytes)?;
                (BASE64URL_NOPAD.encode(&bytes), true)
            }
        };
        let tag = hmac::sign(&self.0, bound(peer, &id).as_bytes());
        Ok(Browser {
            token: BASE64URL_NOPAD.encode(tag.as_ref()),
            id,
            is_new,
        })
    }

    /// Whether this page gave `token` to this browser on this device. Takes as long for every one.
    pub fn is_token(&self, peer: &Peer, browser: &Browser, token: &str) -> bool {
        let tag = BASE64URL_NOPAD.decode(token.as_bytes()).unwrap_or_default();
        hmac::verify(&self.0, bound(peer, &browser.id).as_bytes(), &tag).is_ok()
    }
}

fn bound(peer: &Peer, id: &str) -> String {
    format!("{} {id}", peer.address)
}

fn cookie_name(peer: &Peer) -> &'static str {
    if peer.is_tls { TLS_COOKIE } else { COOKIE }
}

/// Gives a new browser its cookie. Lax, not Strict: it must come back with the browser from an OpenID Connect provider.
pub fn set_cookie(response: &mut Response, peer: &Peer, browser: &Browser) {
    let secure = if peer.is_tls { "; Secure" } else { "" };
    let name = cookie_name(peer);
    let cookie = format!(
        "{name}={}; Path=/; HttpOnly; SameSite=Lax{secure}",
        browser.id
    );
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}
