use super::*;
use proptest::prelude::*;

const LEAF: &[u8] = include_bytes!("../../tests/recorded/leaf.der");

#[test]
fn a_certificate_says_its_names_groups_and_places() {
    let facts = Facts::of(&CertificateDer::from(LEAF)).unwrap();
    assert_eq!(facts.common_name.as_deref(), Some("alice"));
    assert_eq!(facts.units, ["staff", "ops"]);
    assert_eq!(facts.emails, ["alice@example.org"]);
    assert_eq!(facts.dns_names, ["alice.example.org"]);
    assert_eq!(facts.crl_points, [["http://192.0.2.1/ca.crl"]]);
    assert_eq!(facts.ocsp, ["http://192.0.2.1/ocsp"]);
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for text in [
        "ca_file = '/a'\nocsp = 'off'\ncolour = 1",
        "ca_file = '/a'\ngroup_from = 'policy-oid'",
        "ca_file = '/a'\nunknown_status = 'maybe'",
        "crl = []",
    ] {
        assert!(toml::from_str::<Settings>(text).is_err(), "{text}");
    }
    assert!(matches!(source("ca.crl"), Err(SettingsError::Crl(_))));
    assert!(matches!(
        source("https://a/ca.crl"),
        Err(SettingsError::Crl(_))
    ));
    assert!(matches!(source("/ca.crl"), Ok(Source::File(_))));
    assert!(matches!(source("http://a/ca.crl"), Ok(Source::Url(_))));
    let minimal: Settings = toml::from_str("ca_file = '/nonexistent'").unwrap();
    assert_eq!(minimal.unknown_status, UnknownStatus::Refuse);
    assert_eq!(minimal.ocsp_nonce, OcspNonce::Required);
    assert!(matches!(
        Authority::new(&minimal),
        Err(SettingsError::File { .. })
    ));
}

#[test]
fn a_handle_brings_the_chain_back() {
    let chain = [
        CertificateDer::from(LEAF),
        CertificateDer::from(&[1, 2][..]),
    ];
    assert_eq!(unhandled(&handle(&chain)).unwrap(), chain);
    assert_eq!(unhandled("not base64"), None);
    assert_eq!(
        unhandled(&"AAAA ".repeat(1000)).map(|chain| chain.len()),
        Some(MAX_CHAIN + 1)
    );
}

proptest! {
    #[test]
    fn no_certificate_panics(at in 0usize..LEAF.len(), to: u8, cut in 0usize..LEAF.len(), bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let mut changed = LEAF.to_vec();
        changed[at] = to;
        Facts::of(&CertificateDer::from(changed));
        Facts::of(&CertificateDer::from(&LEAF[..cut]));
        Facts::of(&CertificateDer::from(bytes.as_slice()));
        let _ = crl::parsed(&bytes);
    }
}
