//! Certificates, judged by programs that are not ours: OpenSSL and rustls-webpki.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use altnet_provision::x509::{Authority, Names, fingerprint, pem};
use altnet_wire::id::NetworkId;
use altnet_wire::time::UnixTime;
use altnet_wire::tls::MAX_CERTIFICATE_BYTES;
use common::{Computer, NOW, name};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::pki_types::{self, CertificateDer, ServerName};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

const LATER: UnixTime = UnixTime::from_secs(NOW.as_secs() + 9 * 365 * 86_400);

fn authority() -> Authority {
    Authority::generate(Names::new(name("home"), NetworkId([7; 32]))).unwrap()
}

/// A key as a device makes one.
fn key() -> [[u8; 32]; 2] {
    let rng = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &rng);
    let pair = pair.unwrap();
    let point = &pair.public_key().as_ref()[1..];
    [
        point[..32].try_into().unwrap(),
        point[32..].try_into().unwrap(),
    ]
}

fn certify(authority: &Authority, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    authority.certify(&names, &key(), LATER, NOW).unwrap().0
}

/// What OpenSSL says of `leaf`, for `host`.
fn openssl(root: &[u8], leaf: &[u8], host: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let write = |file: &str, der: &[u8]| {
        let path = dir.path().join(file);
        std::fs::write(&path, pem(der)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (root, leaf) = (write("ca.pem", root), write("leaf.pem", leaf));
    let time = NOW.as_secs().to_string();
    let said = Command::new("openssl")
        .args(["verify", "-x509_strict", "-purpose", "sslserver"])
        .args([
            "-attime",
            &time,
            "-verify_hostname",
            host,
            "-CAfile",
            &root,
            &leaf,
        ])
        .output()
        .expect("openssl is installed");
    match said.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&said.stderr).into_owned()),
    }
}

/// What rustls would say.
fn webpki(root: &[u8], leaf: &[u8], host: &str) -> Result<(), webpki::Error> {
    let (root, leaf) = (CertificateDer::from(root), CertificateDer::from(leaf));
    let anchor = anchor_from_trusted_cert(&root)?;
    let leaf = EndEntityCert::try_from(&leaf)?;
    let now = Duration::from_secs(NOW.as_secs());
    let time = pki_types::UnixTime::since_unix_epoch(now);
    leaf.verify_for_usage(
        &[webpki::ring::ECDSA_P256_SHA256],
        &[anchor],
        &[],
        time,
        KeyUsage::server_auth(),
        None,
        None,
    )?;
    leaf.verify_is_valid_for_subject_name(&ServerName::try_from(host.to_owned()).unwrap())
}

#[test]
fn strangers_to_altnet_take_a_certificate_for_the_networks_names() {
    let authority = authority();
    let (root, _) = authority.certificate(NOW).unwrap();
    let names = authority.names().of("notes");
    assert_eq!(names[0], "notes.home.alt");
    let leaf = certify(&authority, &[&names[0], &names[1]]);
    for host in &names {
        assert_eq!(openssl(&root, &leaf, host), Ok(()));
        assert_eq!(webpki(&root, &leaf, host), Ok(()));
    }
    assert!(openssl(&root, &leaf, "wiki.home.alt").is_err());
    assert!(webpki(&root, &leaf, "wiki.home.alt").is_err());
}

#[test]
fn nobody_takes_what_the_authority_certifies_beyond_the_network() {
    let authority = authority();
    let (root, _) = authority.certificate(NOW).unwrap();
    for host in [
        "bank.example",
        "notes.away.alt",
        "notes.home.alt.example",
        "xhome.alt",
        "alt",
    ] {
        for names in [vec![host], vec!["notes.home.alt", host]] {
            let leaf = certify(&authority, &names);
            let said = openssl(&root, &leaf, host).unwrap_err();
            assert!(
                said.contains("permitted subtree violation"),
                "{host}: {said}"
            );
            let said = webpki(&root, &leaf, host);
            assert_eq!(said, Err(webpki::Error::NameConstraintViolation), "{host}");
        }
    }
}

/// An address is no DNS name, so that a constraint on DNS names alone would let it pass.
#[test]
fn regression_nobody_takes_an_address_from_the_authority() {
    let root = tempfile::tempdir().unwrap();
    let authority = authority();
    let path = |file: &str| root.path().join(file);
    let (der, _) = authority.certificate(NOW).unwrap();
    std::fs::write(path("ca.pem"), pem(&der)).unwrap();
    std::fs::write(path("ca.der"), &*authority.key()).unwrap();
    let run = |args: &[&str]| {
        let mut openssl = Command::new("openssl");
        let done = openssl.current_dir(root.path()).args(args).output();
        done.expect("openssl is installed")
    };
    for address in ["192.0.2.1", "fd00::1", "127.0.0.1"] {
        std::fs::write(path("ext"), format!("subjectAltName=IP:{address}\n")).unwrap();
        let made = [
            &[
                "req",
                "-new",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-keyout",
                "k.pem",
                "-subj",
                "/CN=x",
                "-out",
                "r.pem",
            ][..],
            &[
                "x509",
                "-req",
                "-in",
                "r.pem",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.der",
                "-CAkeyform",
                "DER",
                "-CAcreateserial",
                "-days",
                "9000",
                "-extfile",
                "ext",
                "-out",
                "l.pem",
            ][..],
        ];
        for args in made {
            let done = run(args);
            assert!(
                done.status.success(),
                "{}",
                String::from_utf8_lossy(&done.stderr)
            );
        }
        let time = (NOW.as_secs() + 86_400 * 30).to_string();
        let verify = [
            "verify",
            "-attime",
            &time,
            "-verify_ip",
            address,
            "-CAfile",
            "ca.pem",
            "l.pem",
        ];
        let said = run(&verify);
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(
            said.contains("excluded subtree violation"),
            "{address}: {said}"
        );
    }
}

#[test]
fn the_authority_is_what_it_says() {
    let authority = authority();
    let (root, expires) = authority.certificate(NOW).unwrap();
    assert!(authority.made(&root));
    assert!(!authority.made(&certify(&authority, &["a.home.alt"])));
    assert_eq!(expires.saturating_since(NOW).as_secs(), 3652 * 86_400);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, pem(&root)).unwrap();
    let text = inspect(&path);
    for part in [
        "Signature Algorithm: ecdsa-with-SHA256",
        "X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0",
        "X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign",
        "X509v3 Extended Key Usage: \n                TLS Web Server Authentication",
        "X509v3 Name Constraints: critical",
        "DNS:home.alt",
        "O = home, CN = altnet network a4dqobyha4dq",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(text.contains(&fingerprint(&root)), "{text}");
    // The same key makes the same authority.
    let names = authority.names().clone();
    let again = Authority::from_key(names, &authority.key()).unwrap();
    let leaf = certify(&again, &["notes.home.alt"]);
    assert_eq!(openssl(&root, &leaf, "notes.home.alt"), Ok(()));
}

fn inspect(path: &Path) -> String {
    let said = Command::new("openssl")
        .args(["x509", "-noout", "-text", "-fingerprint", "-sha256", "-in"])
        .arg(path)
        .output()
        .expect("openssl is installed");
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn the_longest_names_fit_into_records() {
    let long = "x".repeat(63);
    let authority = Authority::generate(Names::new(name(&long), NetworkId([255; 32]))).unwrap();
    let (root, _) = authority.certificate(NOW).unwrap();
    let names = authority.names().of(&long);
    let (leaf, _) = authority.certify(&names, &key(), LATER, NOW).unwrap();
    for der in [&root, &leaf] {
        assert!(der.len() <= MAX_CERTIFICATE_BYTES, "{}", der.len());
    }
    assert_eq!(openssl(&root, &leaf, &names[0]), Ok(()));
}

#[test]
fn a_server_is_certified_for_less_than_398_days_and_no_longer_than_the_authority() {
    let authority = authority();
    let names = authority.names().of("notes");
    let (_, expires) = authority.certify(&names, &key(), LATER, NOW).unwrap();
    assert_eq!(expires.saturating_since(NOW).as_secs(), 396 * 86_400);
    let soon = NOW.after(Duration::from_secs(86_400));
    let (_, expires) = authority.certify(&names, &key(), soon, NOW).unwrap();
    assert_eq!(expires, soon);
}

#[test]
fn the_commands_make_show_and_back_up_an_authority() {
    let computer = Computer::new();
    computer.json(&["network", "create", "home"]);
    assert!(computer.refused(&["tls", "show"]).contains("no authority"));
    let made = computer.json(&["tls", "create"]);
    assert_eq!(made["zones"][0], "home.alt");
    assert!(computer.refused(&["tls", "create"]).contains("already"));
    let shown = computer.json(&["tls", "show", "--output", "ca.pem"]);
    assert_eq!(shown["fingerprint"], made["fingerprint"]);
    assert_eq!(shown["here"], true);
    let text = inspect(&computer.file("ca.pem"));
    assert!(text.contains(made["fingerprint"].as_str().unwrap()));
    assert_eq!(
        computer.json(&["tls", "list"])["requests"],
        serde_json::json!([])
    );
    assert_eq!(
        computer.json(&["tls", "sign"])["signed"],
        serde_json::json!([])
    );

    computer.json(&["backup", "--output", "home.backup"]);
    let other = Computer::new();
    std::fs::copy(computer.file("home.backup"), other.file("home.backup")).unwrap();
    other.json(&["restore", "home.backup"]);
    let back = other.json(&["tls", "show"]);
    assert_eq!(
        (&back["fingerprint"], &back["here"]),
        (&made["fingerprint"], &true.into())
    );
    let replaced = other.json(&["tls", "create", "--replace"]);
    assert_ne!(replaced["fingerprint"], made["fingerprint"]);
}
