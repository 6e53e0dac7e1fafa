//! What directories and browsers send the login page.

use altnet_login::untrusted;

const CA: &[u8] = include_bytes!("../../../firmware/altnet-login/tests/recorded/ca.der");
const PASSKEY: &[u8] = include_bytes!("../../../firmware/altnet-login/tests/recorded/passkey.cbor");
/// Where its authenticator data is.
const AUTHENTICATOR_DATA: usize = 30;
/// When the answers beside it were given, in seconds since 1970.
const RECORDED_S: u64 = 1_795_773_883;

/// Answers of an LDAP server.
pub fn ldap_answer(data: &[u8]) {
    untrusted::ldap_answer(data);
}

/// Certificates, CRLs and answers of an OCSP responder.
pub fn certificate_status(data: &[u8]) {
    untrusted::certificate_status(CA, data, RECORDED_S);
}

/// ID tokens, keys and providers' descriptions.
pub fn id_token(data: &[u8]) {
    untrusted::id_token(&String::from_utf8_lossy(data));
}

/// Forms, codes and addresses.
pub fn login_form(data: &[u8]) {
    untrusted::login_form(data);
}

/// Passkeys, new and used.
pub fn passkey(data: &[u8]) {
    untrusted::passkey(PASSKEY, data);
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "ldap_answer" => vec![
            // A bind that succeeded, and one whose password has expired (a ppolicy control).
            b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00".to_vec(),
            b"\x30\x35\x02\x01\x02\x61\x07\x0a\x01\x31\x04\x00\x04\x00\xa0\x27\x30\x25\x04\x19\
              1.3.6.1.4.1.42.2.27.8.5.1\x04\x08\x30\x06\xa0\x04\x81\x02\x00\x00"
                .to_vec(),
            // An entry with a group, and the end of a search.
            b"\x30\x36\x02\x01\x03\x64\x31\x04\x11uid=ann,dc=example\x30\x1c\x30\x1a\x04\x08memberOf\x31\x0e\
              \x04\x0ccn=a,dc=b,o=c"
                .to_vec(),
            b"\x30\x0c\x02\x01\x03\x65\x07\x0a\x01\x00\x04\x00\x04\x00".to_vec(),
        ],
        "certificate_status" => vec![
            CA.to_vec(),
            include_bytes!("../../../firmware/altnet-login/tests/recorded/good.der").to_vec(),
            include_bytes!("../../../firmware/altnet-login/tests/recorded/delegated.der").to_vec(),
            include_bytes!("../../../firmware/altnet-login/tests/recorded/leaf.der").to_vec(),
        ],
        "id_token" => vec![
            b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJhbHRuZXQiLCJleHAiOjF9.\n\
              {\"keys\":[{\"kty\":\"RSA\",\"kid\":\"a\",\"n\":\"AQAB\",\"e\":\"AQAB\"},{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AQ\",\"y\":\"AQ\"}]}\n\
              {\"issuer\":\"https://id.example\",\"authorization_endpoint\":\"https://id.example/a\",\"token_endpoint\":\"https://id.example/t\",\"jwks_uri\":\"https://id.example/k\"}"
                .to_vec(),
        ],
        "login_form" => vec![
            b"token=abc&code=ABCD-EFGH-JKMN&name=ann%40example".to_vec(),
            b"https://id.example:444/path?query".to_vec(),
        ],
        "passkey" => vec![
            PASSKEY.to_vec(),
            // What an authenticator signs when it is used: an RP id's hash, flags and a counter.
            PASSKEY[AUTHENTICATOR_DATA..AUTHENTICATOR_DATA + 37].to_vec(),
            br#"{"type":"webauthn.get","challenge":"AA","origin":"https://example.org","crossOrigin":false}"#
                .to_vec(),
        ],
        _ => Vec::new(),
    }
}
