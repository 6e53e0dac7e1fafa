//! Client certificates against an openssl CA, its OCSP responder, and CRLs by a web server.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use altnet_login::directory::{Identity, SignInError, Standing};
use altnet_login::pki::{Authority, Settings};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use servers::{Ca, Issued, PATIENCE, Server};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

mod servers;

const CLIENT: &str = "extendedKeyUsage=clientAuth\n";
const SIGNER: &str = "extendedKeyUsage=OCSPSigning\nnoCheck=yes\n";

/// A CA with one person.
struct Pki {
    folder: TempDir,
    ca: Ca,
    alice: Issued,
}

impl Pki {
    fn new() -> Pki {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new(&folder.path().join("ca"), "/O=altnet/CN=people's CA");
        let alice = ca.issue("alice", "/OU=staff/OU=ops/CN=alice", CLIENT);
        Pki { folder, ca, alice }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn authority(&self, lines: &str) -> Authority {
        let text = format!(
            "ca_file = '{}'\ngroup_from = 'ou'\n{lines}",
            self.ca.own().certificate.display()
        );
        Authority::new(&toml::from_str::<Settings>(&text).unwrap()).unwrap()
    }

    /// Serves a folder of its own; gives the folder and its URL.
    fn web(&self) -> (Server, PathBuf, String) {
        let (folder, [port]) = (self.at("web"), servers::free_ports());
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("python3");
        command
            .args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"])
            .arg(&folder)
            .arg(port.to_string());
        let server = Server::start(command, &self.at("web.log"), &[port]);
        (server, folder, format!("http://127.0.0.1:{port}"))
    }

    /// Answers OCSP for the CA as its list of certificates is now, signed by `signer`. It can't be
    /// told to listen on loopback only; nothing but this test knows its port.
    fn responder(&self, signer: &Issued, port: u16) -> Server {
        let mut command = Command::new("openssl");
        command
            .args(["ocsp", "-port"])
            .arg(port.to_string())
            .args(["-nmin", "5", "-index"])
            .arg(self.ca.folder.join("index.txt"))
            .arg("-CA")
            .arg(self.ca.own().certificate)
            .arg("-rsigner")
            .arg(&signer.certificate)
            .arg("-rkey")
            .arg(&signer.key);
        // A connection without a question, to see whether it is up, would keep it busy for ever.
        Server::start_saying(command, &self.at("ocsp.log"), "waiting for OCSP client")
    }
}

fn ocsp_lines(port: u16) -> String {
    format!("ocsp = 'http://127.0.0.1:{port}/'\n")
}

fn unreachable(result: Result<Identity, SignInError>, reason: &str) {
    match result {
        Err(SignInError::Unreachable(what)) if what.contains(reason) => {}
        other => panic!("{other:?} isn't unreachable for {reason:?}"),
    }
}

/// Answers every request with `body`, as somebody on the way would who kept it.
fn replay(body: Vec<u8>) -> String {
    answer_with(move |_| body.clone())
}

/// Answers every request with what `answer` makes of its body.
fn answer_with(answer: impl Fn(&[u8]) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind(servers::here(0)).unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut question = vec![0; length];
            stream.read_exact(&mut question).unwrap();
            let body = answer(&question);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let answer = [head.as_bytes(), &body].concat();
            stream.get_mut().write_all(&answer).unwrap();
        }
    });
    url
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_certificate_of_the_ca_says_who_holds_it() {
    let pki = Pki::new();
    let authority = pki.authority("");
    let alice = authority.check(&[pki.alice.der()]).await.unwrap();
    assert_eq!(alice.name, "alice");
    assert!(alice.groups.iter().eq(["ops", "staff"]));
    assert!(
        alice.subject.ends_with(":00a1b2c3d4e5f60718"),
        "{}",
        alice.subject
    );
    let left = alice.expires.unwrap().duration_since(SystemTime::now());
    assert!((1..=2 * 86400).contains(&left.unwrap().as_secs()));
    assert!(matches!(
        authority.look_again(&alice).await,
        Standing::Holds(_)
    ));

    let other = Ca::new(&pki.at("other"), "/O=altnet/CN=people's CA");
    let expired = pki.ca.issue_expired("old", "/CN=alice", CLIENT);
    let server = pki
        .ca
        .issue("server", "/CN=alice", "extendedKeyUsage=serverAuth\n");
    let without_mail = pki.ca.issue("plain", "/CN=alice", CLIENT);
    for (chain, expected) in [
        (vec![], SignInError::Wrong),
        (
            vec![CertificateDer::from(&b"nonsense"[..])],
            SignInError::Wrong,
        ),
        (
            vec![other.issue("alice", "/CN=alice", CLIENT).der()],
            SignInError::Wrong,
        ),
        (vec![server.der()], SignInError::Wrong),
        (vec![pki.ca.own().der()], SignInError::Wrong),
        (vec![pki.alice.der(); 9], SignInError::Wrong),
        (vec![expired.der()], SignInError::Expired),
    ] {
        assert_eq!(authority.check(&chain).await.unwrap_err(), expected);
    }
    let by_mail = pki.authority("name_from = 'email'\n");
    assert_eq!(
        by_mail.check(&[without_mail.der()]).await.unwrap_err(),
        SignInError::Wrong
    );
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_new_certificate_without_the_unit_is_without_the_group() {
    let pki = Pki::new();
    let authority = pki.authority("");
    let before = authority.check(&[pki.alice.der()]).await.unwrap();
    let moved = pki.ca.issue("alice2", "/OU=staff/CN=alice", CLIENT);
    let after = authority.check(&[moved.der()]).await.unwrap();
    assert!(after.groups.iter().eq(["staff"]));
    assert_ne!(before.subject, after.subject);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn name_constraints_and_intermediates_count() {
    let pki = Pki::new();
    let only = "nameConstraints=critical,permitted;DNS:inside.example\n";
    let below = Ca::below(&pki.ca, &pki.at("below"), "/O=altnet/CN=below", only);
    let issue = |name: &str, dns: &str| {
        let extensions = format!("{CLIENT}subjectAltName=DNS:{dns}\n");
        below.issue(name, &format!("/CN={name}"), &extensions)
    };
    let authority = pki.authority("name_from = 'dns'\n");
    let inside = issue("in", "a.inside.example");
    let chain = [inside.der(), below.own().der()];
    assert_eq!(
        authority.check(&chain).await.unwrap().name,
        "a.inside.example"
    );
    assert_eq!(
        authority.check(&chain[..1]).await.unwrap_err(),
        SignInError::Wrong
    );
    let outside = [issue("out", "a.outside.example").der(), below.own().der()];
    assert_eq!(
        authority.check(&outside).await.unwrap_err(),
        SignInError::Wrong
    );
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn who_is_on_the_list_is_out_within_a_minute() {
    let pki = Pki::new();
    let (web, folder, url) = pki.web();
    let list = folder.join("ca.crl");
    let points = format!("{CLIENT}crlDistributionPoints=URI:{url}/ca.crl\n");
    let bob = pki.ca.issue("bob", "/CN=bob", &points);
    pki.ca.write_crl(&list, &[]);
    let authority = pki.authority("crl = ['from-certificate']\n");
    let known = authority.check(&[bob.der()]).await.unwrap();

    pki.ca.revoke(&bob);
    pki.ca.write_crl(&list, &[]);
    // Whoever comes new sees the new list, if nobody looked lately.
    let fresh = pki.authority(&format!("crl = ['{url}/ca.crl']\n"));
    assert_eq!(
        fresh.check(&[bob.der()]).await.unwrap_err(),
        SignInError::Revoked
    );
    assert!(fresh.check(&[pki.alice.der()]).await.is_ok());
    let changed = Instant::now();
    let ended = loop {
        match authority.look_again(&known).await {
            Standing::Ended(ended) => break ended,
            standing => assert!(changed.elapsed() < PATIENCE, "{standing:?}"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert_eq!(ended, SignInError::Revoked);
    assert!(changed.elapsed() < Duration::from_secs(25));

    // Without the server there is no list, and nobody new.
    web.stop();
    let blind = pki.authority(&format!("crl = ['{url}/ca.crl']\n"));
    unreachable(blind.check(&[pki.alice.der()]).await, "refused");
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_list_that_isnt_the_cas_or_is_stale_lets_nobody_in() {
    let pki = Pki::new();
    let list = pki.at("ca.crl");
    let lines = format!("crl = ['{}']\n", list.display());
    let check = async || pki.authority(&lines).check(&[pki.alice.der()]).await;
    unreachable(check().await, "No such file");

    pki.ca.write_crl(&list, &[]);
    assert!(check().await.is_ok());

    let dates = [
        "-crl_lastupdate",
        "20200101000000Z",
        "-crl_nextupdate",
        "20200102000000Z",
    ];
    pki.ca.write_crl(&list, &dates);
    unreachable(check().await, "stale");

    // Of a CA by another name.
    let other = Ca::new(&pki.at("other"), "/CN=another");
    other.write_crl(&list, &[]);
    unreachable(check().await, "none of those configured covers");
    let allowing = pki.authority(&format!("{lines}unknown_status = 'allow'\n"));
    assert!(allowing.check(&[pki.alice.der()]).await.is_ok());

    // By the same name, and another key.
    let forger = Ca::new(&pki.at("forger"), "/O=altnet/CN=people's CA");
    forger.write_crl(&list, &[]);
    unreachable(check().await, "isn't signed by the CA");

    fs::write(&list, "nonsense").unwrap();
    unreachable(check().await, "isn't a CRL");
    fs::write(&list, vec![0; (4 << 20) + 1]).unwrap();
    unreachable(check().await, "longer than 4 MB");
    // A certificate without distribution points names no list.
    let nowhere = pki.authority("crl = ['from-certificate']\n");
    unreachable(nowhere.check(&[pki.alice.der()]).await, "none of those");
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn an_intermediate_that_was_revoked_takes_its_people_along() {
    let pki = Pki::new();
    let below = Ca::below(&pki.ca, &pki.at("below"), "/O=altnet/CN=below", "");
    let carol = below.issue("carol", "/CN=carol", CLIENT);
    let chain = [carol.der(), below.own().der()];
    let (above, under) = (pki.at("above.crl"), pki.at("under.crl"));
    let lines = format!("crl = ['{}', '{}']\n", above.display(), under.display());
    pki.ca.write_crl(&above, &[]);
    below.write_crl(&under, &[]);
    assert!(pki.authority(&lines).check(&chain).await.is_ok());
    pki.ca.revoke(&below.own());
    pki.ca.write_crl(&above, &[]);
    let refused = pki.authority(&lines).check(&chain).await;
    assert_eq!(refused.unwrap_err(), SignInError::Revoked);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_responder_of_the_ca_is_believed() {
    let pki = Pki::new();
    let [port] = servers::free_ports();
    let access = format!("{CLIENT}authorityInfoAccess=OCSP;URI:http://127.0.0.1:{port}/\n");
    let bob = pki.ca.issue("bob", "/CN=bob", &access);
    let delegate = pki.ca.issue("signer", "/CN=signer", SIGNER);
    let fixed = pki.authority(&ocsp_lines(port));
    let named = pki.authority("ocsp = 'from-certificate'\n");
    for signer in [&pki.ca.own(), &delegate] {
        let responder = pki.responder(signer, port);
        assert_eq!(fixed.check(&[pki.alice.der()]).await.unwrap().name, "alice");
        assert_eq!(named.check(&[bob.der()]).await.unwrap().name, "bob");
        responder.stop();
    }
    let known = named.check(&[bob.der()]).await;
    unreachable(known, "refused");

    let responder = pki.responder(&delegate, port);
    let known = named.check(&[bob.der()]).await.unwrap();
    responder.stop();
    let standing = named.look_again(&known).await;
    assert!(matches!(standing, Standing::Unreachable(_)), "{standing:?}");
    pki.ca.revoke(&bob);
    let _responder = pki.responder(&delegate, port);
    let standing = named.look_again(&known).await;
    assert!(
        matches!(standing, Standing::Ended(SignInError::Revoked)),
        "{standing:?}"
    );
    assert_eq!(
        fixed.check(&[bob.der()]).await.unwrap_err(),
        SignInError::Revoked
    );
    assert!(fixed.check(&[pki.alice.der()]).await.is_ok());
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_certificate_that_the_responder_doesnt_know_is_refused() {
    let pki = Pki::new();
    let [port] = servers::free_ports();
    fs::write(pki.ca.folder.join("index.txt"), "").unwrap();
    let _responder = pki.responder(&pki.ca.own(), port);
    let lines = ocsp_lines(port);
    let refused = pki.authority(&lines).check(&[pki.alice.der()]).await;
    assert_eq!(refused.unwrap_err(), SignInError::Wrong);
    let allowing = pki.authority(&format!("{lines}unknown_status = 'allow'\n"));
    assert!(allowing.check(&[pki.alice.der()]).await.is_ok());
    // A certificate that names no responder can't be asked about.
    let named = pki.authority("ocsp = 'from-certificate'\n");
    let refused = named.check(&[pki.alice.der()]).await;
    assert_eq!(refused.unwrap_err(), SignInError::Wrong);
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_responder_that_isnt_the_cas_is_not_believed() {
    let pki = Pki::new();
    let foreign = Ca::new(&pki.at("foreign"), "/CN=foreign");
    let stranger = foreign.issue("signer", "/CN=signer", SIGNER);
    // Of the CA, but not for this.
    let user = pki.ca.issue("user", "/CN=user", CLIENT);
    let old = pki.ca.issue_expired("old", "/CN=old signer", SIGNER);
    for signer in [&foreign.own(), &stranger, &user, &old] {
        let [port] = servers::free_ports();
        let _responder = pki.responder(signer, port);
        let refused = pki
            .authority(&ocsp_lines(port))
            .check(&[pki.alice.der()])
            .await;
        unreachable(refused, "isn't signed by the CA");
    }
    // Unless the config names it, or its CA.
    for named in [&foreign.own(), &stranger] {
        let [port] = servers::free_ports();
        let _responder = pki.responder(&stranger, port);
        let file = named.certificate.display();
        let lines = format!("{}ocsp_ca_file = '{file}'\n", ocsp_lines(port));
        assert!(
            pki.authority(&lines)
                .check(&[pki.alice.der()])
                .await
                .is_ok()
        );
    }
}

/// What `openssl ocsp` asks about alice.
fn question(pki: &Pki, args: &[&str]) -> Vec<u8> {
    let file = pki.at("question.der");
    servers::run(
        Command::new("openssl")
            .args(["ocsp", "-sha256", "-issuer"])
            .arg(pki.ca.own().certificate)
            .arg("-cert")
            .arg(&pki.alice.certificate)
            .arg("-reqout")
            .arg(&file)
            .args(args),
    );
    fs::read(file).unwrap()
}

/// What `openssl ocsp` answers to `question` in the name of the CA in `folder`, for a week.
fn answer(folder: &Path, question: &[u8]) -> Vec<u8> {
    let (asked, answered) = (folder.join("asked.der"), folder.join("answered.der"));
    fs::write(&asked, question).unwrap();
    servers::run(
        Command::new("openssl")
            .args(["ocsp", "-ndays", "7", "-index"])
            .arg(folder.join("index.txt"))
            .arg("-CA")
            .arg(folder.join("ca.pem"))
            .arg("-rsigner")
            .arg(folder.join("ca.pem"))
            .arg("-rkey")
            .arg(folder.join("ca.key"))
            .arg("-reqin")
            .arg(asked)
            .arg("-respout")
            .arg(&answered),
    );
    fs::read(answered).unwrap()
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_responder_that_knows_sha1_only_is_asked_by_sha1() {
    // The hash of CertID (RFC 6960 section 4.1.1), and "unauthorized".
    const SHA256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
    const UNAUTHORIZED: &[u8] = &[0x30, 3, 0x0a, 1, 6];
    let pki = Pki::new();
    let folder = pki.ca.folder.clone();
    let url = answer_with(move |question| {
        match question.windows(SHA256.len()).any(|part| part == SHA256) {
            true => UNAUTHORIZED.to_vec(),
            false => answer(&folder, question),
        }
    });
    let authority = pki.authority(&format!("ocsp = '{url}'\n"));
    assert!(authority.check(&[pki.alice.der()]).await.is_ok());
    pki.ca.revoke(&pki.alice);
    let refused = authority.check(&[pki.alice.der()]).await;
    assert_eq!(refused.unwrap_err(), SignInError::Revoked);
    // Who declines both is no answer.
    let declining = pki.authority(&format!("ocsp = '{}'\n", replay(UNAUTHORIZED.to_vec())));
    unreachable(declining.check(&[pki.alice.der()]).await, "status 6");
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn an_answer_that_somebody_kept_is_not_believed() {
    let pki = Pki::new();
    let kept = answer(&pki.ca.folder, &question(&pki, &[]));
    let without = answer(&pki.ca.folder, &question(&pki, &["-no_nonce"]));
    pki.ca.revoke(&pki.alice);
    let check = async |answer: &[u8], more: &str| {
        let lines = format!("ocsp = '{}'\n{more}", replay(answer.to_vec()));
        pki.authority(&lines).check(&[pki.alice.der()]).await
    };
    unreachable(check(&kept, "").await, "another question");
    unreachable(
        check(&kept, "ocsp_nonce = 'optional'\n").await,
        "another question",
    );
    unreachable(check(&without, "").await, "ocsp_nonce");
    // What the setting gives away, as its documentation says.
    assert!(check(&without, "ocsp_nonce = 'optional'\n").await.is_ok());
    unreachable(check(b"nonsense", "").await, "isn't OCSP");
}

/// What the gateway made of the browser that connected: `None` if the handshake failed.
async fn handshake(
    pki: &Pki,
    authority: &Authority,
    client: impl FnOnce(u16) -> Command,
) -> Option<Result<Identity, SignInError>> {
    let server = pki
        .ca
        .issue("gateway", "/CN=gateway", "subjectAltName=IP:127.0.0.1\n");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(authority.verifier())
        .with_single_cert(
            vec![server.der()],
            PrivateKeyDer::from_pem_file(&server.key).unwrap(),
        )
        .unwrap();
    let listener = tokio::net::TcpListener::bind(servers::here(0))
        .await
        .unwrap();
    let mut browser = client(listener.local_addr().unwrap().port())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let seen = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.ok()?;
        let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
        Some(authority.check(chain).await)
    };
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    browser.kill().unwrap();
    browser.wait().unwrap();
    seen.unwrap()
}

fn s_client(pki: &Pki, shown: Option<&Issued>, version: &str, port: u16) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-verify_return_error", version, "-connect"])
        .arg(format!("127.0.0.1:{port}"))
        .arg("-CAfile")
        .arg(pki.ca.own().certificate);
    if let Some(shown) = shown {
        command.arg("-cert").arg(&shown.certificate);
        command.arg("-key").arg(&shown.key);
    }
    command
}

#[tokio::test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
async fn a_browser_shows_its_certificate_in_a_real_handshake() {
    let pki = Pki::new();
    let authority = pki.authority("");
    for version in ["-tls1_2", "-tls1_3"] {
        let seen = handshake(&pki, &authority, |port| {
            s_client(&pki, Some(&pki.alice), version, port)
        });
        assert_eq!(seen.await.unwrap().unwrap().name, "alice");
        // Without one the page is shown, to nobody.
        let seen = handshake(&pki, &authority, |port| s_client(&pki, None, version, port));
        assert_eq!(seen.await.unwrap().unwrap_err(), SignInError::Wrong);
        // Of another CA.
        let other = Ca::new(&pki.at("other"), "/O=altnet/CN=people's CA");
        let stranger = other.issue("alice", "/CN=alice", CLIENT);
        let seen = handshake(&pki, &authority, |port| {
            s_client(&pki, Some(&stranger), version, port)
        });
        assert!(seen.await.is_none());
    }
    let seen = handshake(&pki, &authority, |port| curl(&pki, &pki.alice.key, port));
    assert_eq!(seen.await.unwrap().unwrap().name, "alice");
}

fn curl(pki: &Pki, key: &Path, port: u16) -> Command {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--noproxy", "*", "--cacert"])
        .arg(pki.ca.own().certificate)
        .arg("--cert")
        .arg(&pki.alice.certificate)
        .arg("--key")
        .arg(key)
        .arg(format!("https://127.0.0.1:{port}/"));
    command
}
