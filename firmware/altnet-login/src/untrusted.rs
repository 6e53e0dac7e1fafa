//! Every parser of bytes that directories and browsers send, for the fuzz targets: each takes any
//! bytes and returns.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};

use crate::jwt::{Keys, Token};
use crate::oidc::Discovery;
use crate::passkey::Here;
use crate::passkey::ceremony::{self, ClientData, Deed};
use crate::web::request::Form;
use crate::{codes, http, ldap, pki};

/// An answer of an LDAP server.
pub fn ldap_answer(bytes: &[u8]) {
    ldap::untrusted(bytes);
}

/// A certificate, a CRL, and an OCSP responder's answer about a certificate of `ca`.
pub fn certificate_status(ca: &[u8], bytes: &[u8], now_s: u64) {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
    pki::untrusted(&CertificateDer::from(ca), bytes, now);
}

/// An ID token, the keys it is signed with, and a provider's description of itself, a line each.
pub fn id_token(text: &str) {
    let mut lines = text.splitn(3, '\n');
    let (token, keys) = (
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    );
    let keys = Keys::parse(keys.as_bytes());
    if let (Ok(token), Some(keys)) = (Token::parse(token), &keys)
        && let Ok(claims) = token.verify(keys)
    {
        let _ = claims.check("https://id.example", "altnet", 0);
        let _ = (
            claims.text("sub"),
            claims.time("exp"),
            claims.list("groups"),
        );
    }
    if let Ok(Ok(claims)) = Token::parse(token).map(Token::unsigned) {
        let _ = claims.check("https://id.example", "altnet", 0);
    }
    let description = lines.next().unwrap_or_default();
    let _ = Discovery::parse(description.as_bytes(), "https://id.example");
}

/// What a browser brings from an authenticator: a new passkey, or the use of one with the key of
/// `known`, which is a new one.
pub fn passkey(known: &[u8], bytes: &[u8]) {
    let here = Here {
        id: "example.org".into(),
        origin: "https://example.org".into(),
    };
    let said = br#"{"type":"webauthn.get","challenge":"AA","origin":"https://example.org"}"#;
    let _ = ClientData::read(bytes, Deed::Create, &here);
    let client = ClientData::read(bytes, Deed::Get, &here);
    let client = client.or_else(|_| ClientData::read(said, Deed::Get, &here));
    let new = ceremony::register(&here, bytes).or_else(|_| ceremony::register(&here, known));
    if let (Ok(new), Ok(client)) = (new, client) {
        let _ = ceremony::verify(&here, &new.key, &client, bytes, bytes);
    }
}

/// What a browser sends in a form, a code that somebody typed, and an address.
pub fn login_form(bytes: &[u8]) {
    if let Some(form) = Form::parse(bytes) {
        for name in ["token", "code", "name", "password"] {
            let _ = form.field(name);
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let _ = (codes::normalize(&text), http::Endpoint::parse(&text));
}
