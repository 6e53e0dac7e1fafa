//! The program itself, with this test in the place of altnetd.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use altnet_tls::MAX_CONNECTIONS;
use altnet_wire::id::{NetworkId, SigningKey};
use altnet_wire::tls::talk::{self, FromTls, MAX_TALK_BYTES, ToTls};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, sendmsg, socketpair,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));

struct Process {
    child: Child,
    socket: Option<OwnedFd>,
}

impl Process {
    fn start() -> Self {
        let (near, far) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_altnet-tls"))
            .stdin(Stdio::from(far))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            socket: Some(near),
        }
    }

    fn begun() -> Self {
        let process = Self::start();
        let version = talk::VERSION;
        process.say(&ToTls::Begin { version }, &[]);
        process
    }

    fn say(&self, message: &ToTls<'_>, descriptors: &[BorrowedFd<'_>]) {
        let mut out = [0; MAX_TALK_BYTES];
        self.send(talk::encode(message, &mut out).unwrap(), descriptors);
    }

    fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let socket = self.socket.as_ref().unwrap();
        sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
        .unwrap();
    }

    fn hear(&self) -> Vec<u8> {
        let mut bytes = vec![0; MAX_TALK_BYTES];
        let socket = self.socket.as_ref().unwrap();
        let (len, _) = recv(socket, &mut bytes[..], RecvFlags::empty()).unwrap();
        bytes.truncate(len);
        bytes
    }

    /// Has `wiki` served with a new key. Returns its certificate.
    fn serve(&self) -> CertificateDer<'static> {
        self.say(
            &ToTls::Make {
                network: NetworkId([1; 32]),
                device: SigningKey([2; 32]),
                subject: SigningKey([3; 32]),
            },
            &[],
        );
        let bytes = self.hear();
        let Ok(FromTls::Made { secret, .. }) = talk::decode(&bytes) else {
            panic!("no key was made");
        };
        let key = PrivatePkcs8KeyDer::from(secret);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).unwrap();
        let params = CertificateParams::new(vec!["wiki".to_owned()]).unwrap();
        let made = params.self_signed(&pair).unwrap();
        let message = ToTls::Serve {
            name: "wiki",
            key: secret,
            certificate: made.der(),
        };
        self.say(&message, &[]);
        made.der().clone()
    }

    /// Opens a connection: the caller's side and the app's.
    fn open(&self, name: &str) -> (UnixStream, UnixStream) {
        let (caller, far_caller) = UnixStream::pair().unwrap();
        let (app, far_app) = UnixStream::pair().unwrap();
        for stream in [&caller, &app] {
            stream.set_read_timeout(PATIENCE).unwrap();
        }
        self.say(
            &ToTls::Connection { name },
            &[far_caller.as_fd(), far_app.as_fd()],
        );
        (caller, app)
    }

    fn end(mut self) -> ExitStatus {
        drop(self.socket.take());
        self.child.wait().unwrap()
    }

    /// Waits for it to end by itself.
    fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

fn client(
    trusted: &CertificateDer<'static>,
    stream: UnixStream,
) -> StreamOwned<ClientConnection, UnixStream> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("wiki").unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(client), name).unwrap(),
        stream,
    )
}

#[test]
fn connections_are_carried_each_on_its_own() {
    let process = Process::begun();
    let trusted = process.serve();
    let mut pairs: Vec<_> = (0..3).map(|_| process.open("wiki")).collect();
    let mut clients = Vec::new();
    for (n, (caller, app)) in pairs.drain(..).enumerate() {
        let mut client = client(&trusted, caller);
        client.write_all(&[n as u8; 4]).unwrap();
        clients.push((client, app));
    }
    for (n, (client, app)) in clients.iter_mut().enumerate().rev() {
        let mut heard = [0; 4];
        app.read_exact(&mut heard).unwrap();
        assert_eq!(heard, [n as u8; 4]);
        app.write_all(b"ok").unwrap();
        let mut heard = [0; 2];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ok");
    }
    // What the app ends is ended, and said so in TLS.
    let (client, app) = &mut clients[0];
    app.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert!(process.end().success());
}

#[test]
fn what_is_not_served_ends_at_once() {
    let process = Process::begun();
    process.serve();
    let (mut caller, mut app) = process.open("other");
    assert_eq!(caller.read(&mut [0]).unwrap(), 0);
    assert_eq!(app.read(&mut [0]).unwrap(), 0);
    process.say(&ToTls::Forget { name: "wiki" }, &[]);
    let (mut caller, _app) = process.open("wiki");
    assert_eq!(caller.read(&mut [0]).unwrap(), 0);
    assert!(process.end().success());
}

#[test]
fn there_are_only_so_many_at_once() {
    let process = Process::begun();
    process.serve();
    let open: Vec<_> = (0..MAX_CONNECTIONS).map(|_| process.open("wiki")).collect();
    let (mut caller, _app) = process.open("wiki");
    assert_eq!(caller.read(&mut [0]).unwrap(), 0);
    drop(open);
    assert!(process.end().success());
}

#[test]
fn who_is_not_altnetd_is_not_talked_with() {
    let check = |bytes: &[u8]| {
        let process = Process::start();
        process.send(bytes, &[]);
        assert!(!process.ended().success());
    };
    check(b"hello");
    let mut out = [0; MAX_TALK_BYTES];
    check(talk::encode(&ToTls::Forget { name: "a" }, &mut out).unwrap());
    let version = talk::VERSION + 1;
    check(talk::encode(&ToTls::Begin { version }, &mut out).unwrap());
    let process = Process::begun();
    process.say(&ToTls::Connection { name: "wiki" }, &[]);
    assert!(!process.ended().success(), "a connection without sockets");
    let alone = Command::new(env!("CARGO_BIN_EXE_altnet-tls"))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(!alone.unwrap().success());
}
