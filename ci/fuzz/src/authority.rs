//! What an authority sends that signs a relay's certificate.

use altnet_acme::{http, leaf, trouble};

/// Certificates, problems, and when to come again.
pub fn authority(data: &[u8]) {
    leaf::untrusted(data);
    trouble::untrusted(data);
    http::untrusted(&String::from_utf8_lossy(data));
}

/// Valid inputs.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "authority" => vec![
            include_bytes!("../../../firmware/altnet-login/tests/recorded/leaf.der").to_vec(),
            // The problem of RFC 8555 section 6.7.1.
            br#"{"type":"urn:ietf:params:acme:error:malformed","detail":"Some of the identifiers requested were rejected","subproblems":[{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"This CA will not issue for \"example.net\"","identifier":{"type":"dns","value":"example.net"}}]}"#
                .to_vec(),
            b"Wed, 21 Oct 2015 07:28:00 GMT".to_vec(),
            b"120".to_vec(),
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n"
                .to_vec(),
        ],
        _ => Vec::new(),
    }
}
