//! A relay, members, and a proxy between.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use altnet_core::derp::boxes::SecretKey;
use altnet_core::derp::handshake::{MAX_INTRODUCTION_BYTES, ServerIdentity, introduction};
use altnet_core::derp::rate::Rate;
use altnet_core::derp::server::ServerLimits;
use altnet_relay::acme::{Folder, Tell};
use altnet_relay::certificate::Certificate;
use altnet_relay::client::{Connection, ConnectionError, Event, Sender, Target};
use altnet_relay::server::{Admission, Admit, Options, Relay};
use altnet_relay::trust::{Pin, Trust};
use altnet_wire::derp::info::{ClientInfo, MeshKey};
use altnet_wire::derp::{GoneReason, PublicKey};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A relay that serves.
pub struct World {
    pub relay: Relay,
    refused: Arc<Mutex<Vec<PublicKey>>>,
    address: SocketAddr,
    pin: Pin,
    serving: JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl World {
    pub async fn new() -> Self {
        Self::with_rate(0).await
    }

    pub async fn with_rate(per_s: u32) -> Self {
        Self::made(per_s, None).await
    }

    /// One that shows what is in a folder of altnet-acme's, and what it has to say of that.
    pub async fn with_acme(folder: &Path) -> (Self, UnboundedReceiver<Result<(), String>>) {
        let (told, heard) = unbounded_channel();
        let tell: Tell = Arc::new(move |taken| {
            let _ = told.send(taken.map_err(ToString::to_string));
        });
        let world = Self::made(0, Some((Folder::new(folder), tell))).await;
        (world, heard)
    }

    async fn made(per_s: u32, acme: Option<(Folder, Tell)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let names = ["relay.test".to_owned(), "127.0.0.1".to_owned()];
        let certificate = Certificate::self_signed(folder.path(), &names).unwrap();
        let identity = ServerIdentity::new(SecretKey::new([1; 32]), Some(MeshKey([9; 32])));
        let pin = certificate.pin().unwrap();
        let shown = match acme {
            Some((folder, tell)) => certificate.shown_until(&identity.public(), folder, tell),
            None => certificate.shown(&identity.public()),
        };
        let tls = shown.unwrap().config();
        let rate = Rate {
            per_s,
            burst: per_s,
        };
        let options = Options::new(ServerLimits {
            rate,
            ..ServerLimits::ROUTER
        });
        let relay = Relay::new(identity, options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let refused: Arc<Mutex<Vec<PublicKey>>> = Arc::default();
        let list = Arc::clone(&refused);
        let admit: Admit = Arc::new(move |key, address| {
            let is_refused = list.lock().unwrap().contains(&key) || address.is_none();
            let admission = if is_refused {
                Admission::Refused
            } else {
                Admission::Client
            };
            Box::pin(std::future::ready(admission))
        });
        let serving = {
            let relay = relay.clone();
            tokio::spawn(async move { relay.serve(listener, tls, admit).await })
        };
        Self {
            relay,
            refused,
            address,
            pin,
            serving,
            folder,
        }
    }

    pub fn refuse(&self, key: PublicKey) {
        self.refused.lock().unwrap().push(key);
    }

    pub fn target(&self) -> Target {
        Target {
            host: "relay.test".to_owned(),
            port: self.address.port(),
            addresses: vec![self.address.ip()],
            trust: Trust::Pin(self.pin),
            key: None,
            proxy: None,
        }
    }

    /// The relay's certificate as an authority: it signed itself.
    pub fn authority(&self) -> Trust {
        let text = std::fs::read(self.folder.path().join("derp.crt")).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&text).unwrap())
            .unwrap();
        Trust::Roots(Arc::new(roots))
    }

    /// What is answered to a request over plain HTTP.
    pub async fn ask_plain(&self, request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let serving = tokio::spawn(altnet_relay::server::serve_plain(listener));
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
        serving.abort();
        answer
    }

    /// What is answered to a request, by a TLS client that isn't ours.
    pub async fn ask(&self, request: &str) -> String {
        String::from_utf8(self.ask_bytes(request, usize::MAX).await).unwrap()
    }

    /// A client that was admitted, by TLS that isn't ours.
    pub async fn raw_client(&self, seed: u8) -> (TlsStream<TcpStream>, PublicKey) {
        let secret = SecretKey::new([seed; 32]);
        let shared = secret.shared(&self.relay.public()).unwrap();
        let mut out = [0; MAX_INTRODUCTION_BYTES];
        let (key, info) = (secret.public(), ClientInfo::default());
        let length = introduction(key, &shared, &info, &[1; 24], &mut out).unwrap();
        let mut tls = self.tls().await;
        let upgrade =
            "POST https://relay.test/derp HTTP/1.1\r\nUpgrade: DERP\r\nDerp-Fast-Start: 1\r\n\r\n";
        tls.write_all(upgrade.as_bytes()).await.unwrap();
        tls.write_all(&out[..length]).await.unwrap();
        // The greeting, and what it is admitted with.
        for kind in [1, 3] {
            let mut header = [0; 5];
            tls.read_exact(&mut header).await.unwrap();
            assert_eq!(header[0], kind);
            let mut body = vec![0; usize::from(header[4])];
            tls.read_exact(&mut body).await.unwrap();
        }
        (tls, key)
    }

    /// The first `most` bytes of it, or what comes until it ends or pauses.
    pub async fn ask_bytes(&self, request: &str, most: usize) -> Vec<u8> {
        let mut tls = self.tls().await;
        tls.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while answer.len() < most {
            let read = tokio::time::timeout(Duration::from_secs(2), tls.read(&mut chunk)).await;
            match read {
                Ok(Ok(length)) if length > 0 => answer.extend_from_slice(&chunk[..length]),
                _ => break,
            }
        }
        answer
    }

    async fn tls(&self) -> TlsStream<TcpStream> {
        self.shake_hands("relay.test", &[]).await.unwrap()
    }

    /// A handshake of TLS that isn't ours, with these protocols (ALPN).
    pub async fn shake_hands(
        &self,
        name: &'static str,
        protocols: &[&[u8]],
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(name).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let shaking = connector.connect(name, stream);
        tokio::time::timeout(PATIENCE, shaking).await.unwrap()
    }
}

#[derive(Debug)]
struct Anybody;

impl rustls::client::danger::ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// What a member heard.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Packet(PublicKey, Vec<u8>),
    Gone(PublicKey, GoneReason),
    Present(PublicKey, bool),
    Pong(Duration),
    Restarting(Duration, Duration),
}

/// A client that runs.
pub struct Member {
    pub key: PublicKey,
    pub sender: Sender,
    heard: UnboundedReceiver<Heard>,
    running: JoinHandle<ConnectionError>,
}

/// A member with nothing special.
pub async fn member(world: &World, seed: u8) -> Member {
    Member::connect(&world.target(), seed, ClientInfo::default()).await
}

impl Member {
    pub async fn connect(target: &Target, seed: u8, info: ClientInfo) -> Self {
        let secret = SecretKey::new([seed; 32]);
        let key = secret.public();
        let connection = Connection::connect(target, secret, info).await.unwrap();
        let sender = connection.sender();
        let (tell, heard) = unbounded_channel();
        let running = tokio::spawn(connection.run(move |event| {
            let heard = match event {
                Event::Packet { from, packet } => Heard::Packet(from, packet.to_vec()),
                Event::PeerGone { peer, reason } => Heard::Gone(peer, reason),
                Event::PeerPresent { peer, address, .. } => Heard::Present(peer, address.is_some()),
                Event::Pong { took } => Heard::Pong(took),
                Event::Restarting {
                    reconnect_in,
                    try_for,
                } => Heard::Restarting(reconnect_in, try_for),
                Event::Health(_) | Event::Greeted(_) | Event::Admitted(_) => return,
            };
            let _ = tell.send(heard);
        }));
        Self {
            key,
            sender,
            heard,
            running,
        }
    }

    /// Connects and then never reads again; the connection isn't closed before the test ends.
    pub async fn connect_and_stall(target: &Target, seed: u8) -> PublicKey {
        let secret = SecretKey::new([seed; 32]);
        let key = secret.public();
        let connection = Connection::connect(target, secret, ClientInfo::default())
            .await
            .unwrap();
        Box::leak(Box::new(connection));
        key
    }

    pub async fn next(&mut self) -> Heard {
        let heard = tokio::time::timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("it says something").expect("it lives")
    }

    pub async fn packet(&mut self) -> (PublicKey, Vec<u8>) {
        match self.next().await {
            Heard::Packet(from, packet) => (from, packet),
            other => panic!("{other:?}"),
        }
    }

    pub async fn end(&mut self) -> ConnectionError {
        let end = tokio::time::timeout(PATIENCE, &mut self.running).await;
        end.expect("it ends").unwrap()
    }
}

/// An HTTP proxy that wants a header.
pub async fn proxy(wanted: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8(head).unwrap();
                if !head.lines().any(|line| line == wanted) {
                    let answer = "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n";
                    return stream.write_all(answer.as_bytes()).await;
                }
                let target = head.split(' ').nth(1).unwrap();
                // The name is the test's own.
                let port = target.rsplit(':').next().unwrap();
                assert!(target.starts_with("relay.test:"), "{head}");
                let mut there = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
                stream
                    .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    .await?;
                tokio::io::copy_bidirectional(&mut stream, &mut there).await?;
                Ok::<_, std::io::Error>(())
            });
        }
    });
    address
}
