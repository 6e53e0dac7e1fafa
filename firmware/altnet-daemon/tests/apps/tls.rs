//! TLS that ends in a process of its own, which here is this program again.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::node::{TlsKey, TlsSubject};
use altnet_daemon::apps::tls::{Certified, KeyMade, Tls};
use altnet_daemon::apps::{Kind, Refusal};
use altnet_wire::id::{NetworkId, SigningKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http::{Server, field, read_message};
use super::net::{Call, Net, Wire, caller, config, known};

const NAME: &str = "wiki.home.alt";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REQUEST: &str = "GET /a HTTP/1.1\r\nHost: wiki.home.alt\r\n\r\n";
/// For what another process does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test: the process, when [`Helper`] starts it. By itself it has nothing to do.
#[test]
fn the_process() {
    let input = std::io::stdin();
    if rustix::net::sockopt::socket_type(input.as_fd()) == Ok(rustix::net::SocketType::SEQPACKET) {
        let ended = altnet_tls::serve::run(input.as_fd());
        std::process::exit(i32::from(ended.is_err()));
    }
}

/// The program `altnet-tls`, as far as altnetd can tell. It notes each start.
struct Helper {
    dir: TempDir,
}

impl Helper {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "#!/bin/sh\necho $$ >>{}\nexec {} --exact tls::the_process --nocapture --test-threads=1\n",
            dir.path().join("pids").display(),
            own.display()
        );
        let path = dir.path().join("altnet-tls");
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn tls(&self) -> (Tls, mpsc::Receiver<KeyMade>) {
        Tls::new(Some(&self.dir.path().join("altnet-tls")))
    }

    /// The processes that were started.
    fn pids(&self) -> Vec<i32> {
        let pids = fs::read_to_string(self.dir.path().join("pids")).unwrap_or_default();
        pids.lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

const SUBJECT: TlsSubject = TlsSubject {
    network: NetworkId([1; 32]),
    device: SigningKey([2; 32]),
    subject: SigningKey([3; 32]),
};

/// Has a key made and certifies it for [`NAME`]. Returns what to trust for it besides.
async fn certified(
    tls: &Tls,
    keys: &mut mpsc::Receiver<KeyMade>,
) -> (Certified, CertificateDer<'static>) {
    assert!(tls.make("wiki", SUBJECT));
    let made = tokio::time::timeout(PATIENCE, keys.recv()).await;
    let made = made.unwrap().unwrap();
    assert_eq!(made.name, "wiki");
    let key = made.key.expect("a key was made").secret;
    let secret = PrivatePkcs8KeyDer::from(key.expose());
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&secret, &PKCS_ECDSA_P256_SHA256).unwrap();
    let params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    let certified = Certified {
        key,
        certificate: certificate.der().to_vec(),
    };
    (certified, certificate.der().clone())
}

fn serve(tls: &Tls, certified: &Certified) {
    tls.serve(BTreeMap::from([("wiki".into(), certified.clone())]));
}

async fn say_hello(
    call: Call,
    trusted: &CertificateDer<'static>,
) -> std::io::Result<TlsStream<Call>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(NAME).unwrap();
    TlsConnector::from(Arc::new(client))
        .connect(name, call)
        .await
}

/// Calls until somebody is there to answer.
async fn reach(net: &Net, trusted: &CertificateDer<'static>) -> TlsStream<Call> {
    let reached = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Ok(stream) = say_hello(net.call(caller(1, 2), 443), trusted).await {
                return stream;
            }
            // The process is being started; the pretend network has nothing to wait for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    reached.await.expect("TLS in time")
}

fn start(tls: Tls, to: altnet_daemon::apps::AppConfig) -> Net {
    let mut config = to;
    config.ports = vec![80, 443];
    config.tls_port = Some(443);
    Net::start_with(config, Wire::default(), tls, |address| Some(known(address)))
}

#[tokio::test]
async fn a_request_by_tls_says_who_asks_as_any_other_does() {
    let helper = Helper::new();
    let (tls, mut keys) = helper.tls();
    let (server, config) = Server::start(|_| OK.into()).await;
    let (certified, trusted) = certified(&tls, &mut keys).await;
    serve(&tls, &certified);
    let net = start(tls, config);

    let mut stream = reach(&net, &trusted).await;
    let alpn = stream.get_ref().1.alpn_protocol();
    assert_eq!(alpn, Some(&b"http/1.1"[..]));
    let forged = REQUEST.replace("\r\n\r\n", "\r\nAltnet-Caller-Person: mallory\r\n\r\n");
    for request in [REQUEST, &forged] {
        stream.write_all(request.as_bytes()).await.unwrap();
        assert!(read_message(&mut stream).await.unwrap().ends_with("ok"));
    }
    let mut plain = net.call(caller(1, 2), 80);
    plain.write_all(REQUEST.as_bytes()).await.unwrap();
    read_message(&mut plain).await.unwrap();

    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    for (request, protocol) in requests.iter().zip(["https", "https", "http"]) {
        for (name, value) in [
            ("Altnet-Caller-Address", "fd00:1:2:1::2"),
            ("Altnet-Caller-Name", "host-2"),
            ("Altnet-Caller-Person", "ada"),
            ("Altnet-App", "wiki"),
            ("X-Forwarded-For", "fd00:1:2:1::2"),
            ("X-Forwarded-Proto", protocol),
        ] {
            assert_eq!(field(request, name), [value], "{name} in {request}");
        }
        assert!(!request.contains("mallory"), "{request}");
        assert!(request.contains(&format!(";proto={protocol}")), "{request}");
    }

    // Both ways end: the caller is told, and nothing is left.
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    plain.shutdown().await.unwrap();
    plain.read_to_end(&mut rest).await.unwrap();
    tokio::time::timeout(PATIENCE, async {
        while net.app.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("its connections end");
}

#[tokio::test]
async fn what_is_said_is_hidden_and_bodies_pass_whole() {
    let helper = Helper::new();
    let (tls, mut keys) = helper.tls();
    let body = "x".repeat(300_000);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (server, config) = Server::start(move |_| answer.clone()).await;
    let (certified, trusted) = certified(&tls, &mut keys).await;
    serve(&tls, &certified);
    let net = start(tls, config);
    let mut stream = reach(&net, &trusted).await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let heard = read_message(&mut stream).await.unwrap();
    assert!(heard.ends_with(&body) && server.requests()[0].ends_with(&body));
}

#[tokio::test]
async fn without_a_certificate_or_with_a_wrong_one_there_is_no_tls() {
    let helper = Helper::new();
    let (tls, mut keys) = helper.tls();
    let (server, config) = Server::start(|_| OK.into()).await;
    let net = start(tls.clone(), config);
    let refused = |expected: u64| {
        let net = &net;
        async move {
            let mut call = net.call(caller(1, 2), 443);
            let error = call.read_u8().await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            assert_eq!(net.app.stats().refused(Refusal::NoTls), expected);
        }
    };
    refused(1).await;
    assert!(helper.pids().is_empty(), "nothing is started for nothing");

    let (one, trusted) = certified(&tls, &mut keys).await;
    let (other, _) = certified(&tls, &mut keys).await;
    let mixed = Certified {
        key: other.key.clone(),
        certificate: one.certificate.clone(),
    };
    serve(&tls, &mixed);
    tokio::time::timeout(PATIENCE, async {
        while tls.unfit("wiki").is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it says that they don't belong together");
    refused(2).await;

    serve(&tls, &one);
    assert_eq!(tls.unfit("wiki"), None);
    let mut stream = reach(&net, &trusted).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    read_message(&mut stream).await.unwrap();
    // Who trusts another says so, and is told nothing.
    let (_, stranger) = certified(&tls, &mut keys).await;
    assert!(
        say_hello(net.call(caller(1, 2), 443), &stranger)
            .await
            .is_err()
    );
    // Plain words at the port of TLS are no request.
    let mut call = net.call(caller(1, 2), 443);
    call.write_all(REQUEST.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let _ = call.read_to_end(&mut heard).await;
    assert!(!String::from_utf8_lossy(&heard).contains("200 OK"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_process_that_is_killed_is_started_again() {
    let helper = Helper::new();
    let (tls, mut keys) = helper.tls();
    let (_server, config) = Server::start(|_| OK.into()).await;
    let (certified, trusted) = certified(&tls, &mut keys).await;
    serve(&tls, &certified);
    let net = start(tls.clone(), config);
    let mut stream = reach(&net, &trusted).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    read_message(&mut stream).await.unwrap();

    let pid = rustix::process::Pid::from_raw(helper.pids()[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // A connection ends with it, and not as if all had been said.
    assert!(stream.read_u8().await.is_err());
    let mut stream = reach(&net, &trusted).await;
    stream.write_all(REQUEST.as_bytes()).await.unwrap();
    assert!(read_message(&mut stream).await.unwrap().ends_with("ok"));
    assert_eq!(helper.pids().len(), 2);
}

#[tokio::test]
async fn without_the_program_keys_are_not_made_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, mut keys) = Tls::new(Some(&dir.path().join("nothing")));
    assert!(tls.make("wiki", SUBJECT));
    let made = tokio::time::timeout(PATIENCE, keys.recv()).await;
    assert!(made.unwrap().unwrap().key.is_none());
    let certified = Certified {
        key: TlsKey::new(b"a key"),
        certificate: b"a certificate".to_vec(),
    };
    serve(&tls, &certified);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap().to_string();
    let net = start(tls, config(Kind::Http, &to));
    let mut call = net.call(caller(1, 2), 443);
    assert!(call.read_u8().await.is_err());
    assert_eq!(net.app.stats().refused(Refusal::NoTls), 1);
}

#[tokio::test]
async fn the_process_ends_with_altnetd() {
    let helper = Helper::new();
    let (tls, mut keys) = helper.tls();
    let (certified, _) = certified(&tls, &mut keys).await;
    serve(&tls, &certified);
    let pid = rustix::process::Pid::from_raw(helper.pids()[0]).unwrap();
    drop(tls);
    tokio::time::timeout(PATIENCE, async {
        while rustix::process::test_kill_process(pid).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("it ends");
}
