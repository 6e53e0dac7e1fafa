//! `altnet-derp` as it is run.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::certificate::Certificate;
use altnet_relay::client::{Connection, ConnectionError, Event, Target};
use altnet_relay::trust::Trust;
use altnet_wire::derp::info::ClientInfo;
use altnet_wire::stun::attribute::XOR_MAPPED_ADDRESS;
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, Message, Method, TransactionId};

struct Relay {
    process: Child,
    target: Target,
    stun: Option<SocketAddr>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(folder: &Path, admit: &str) -> Relay {
    start_with(folder, admit, &[])
}

fn start_with(folder: &Path, admit: &str, words: &[&str]) -> Relay {
    let mut process = Command::new(env!("CARGO_BIN_EXE_altnet-derp"))
        .args(["--listen", "[::]:0", "--json", "--admit", admit])
        .args(["--host", "relay.test", "--self-signed"])
        .arg(folder)
        .args(words)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = process.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    let status: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address: SocketAddr = status["address"].as_str().unwrap().parse().unwrap();
    let stun = status["stun"].as_str().map(|stun| stun.parse().unwrap());
    let target = Target {
        host: "relay.test".to_owned(),
        port: address.port(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        trust: Trust::Pin(status["pin"].as_str().unwrap().parse().unwrap()),
        key: None,
        proxy: None,
    };
    Relay {
        process,
        target,
        stun,
    }
}

async fn connect(relay: &Relay, secret: SecretKey) -> Result<Connection, ConnectionError> {
    Connection::connect(&relay.target, secret, ClientInfo::default()).await
}

#[tokio::test]
async fn it_says_how_it_is_known_and_stays_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let secret = SecretKey::new([2; 32]);
    let mut known = Vec::new();
    for _ in 0..2 {
        let relay = start(folder.path(), "any");
        let connection = connect(&relay, secret.clone()).await.unwrap();
        known.push((connection.server(), format!("{:?}", relay.target.trust)));
    }
    assert_eq!(known[0], known[1]);
    for file in ["derp.key", "derp.identity"] {
        let mode = std::fs::metadata(folder.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn the_list_is_kept_to_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let list = folder.path().join("admitted");
    std::fs::write(&list, "# nobody\n").unwrap();
    let relay = start(folder.path(), list.to_str().unwrap());
    let secret = SecretKey::new([2; 32]);
    assert!(connect(&relay, secret.clone()).await.is_err());
    std::fs::write(&list, format!("nodekey:{}\n", secret.public())).unwrap();
    let connection = connect(&relay, secret).await.unwrap();
    // Nor does it take one to disconnect it.
    std::fs::write(&list, "").unwrap();
    let pid = rustix::process::Pid::from_child(&relay.process);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), connection.run(|_| ())).await;
    assert!(matches!(end, Ok(ConnectionError::Line(_))));
}

#[tokio::test]
async fn told_to_stop_it_tells_its_clients_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut relay = start(folder.path(), "any");
    let connection = connect(&relay, SecretKey::new([2; 32])).await.unwrap();
    let mut told = None;
    let pid = rustix::process::Pid::from_child(&relay.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let end = connection.run(|event| {
        if let Event::Restarting { reconnect_in, .. } = event {
            told = Some(reconnect_in);
        }
    });
    let end = tokio::time::timeout(Duration::from_secs(10), end).await;
    assert!(matches!(end, Ok(ConnectionError::Line(_))));
    assert_eq!(told, Some(Duration::from_secs(1)));
    assert!(relay.process.wait().unwrap().success());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut relay = start(folder.path(), "any");
    let first = connect(&relay, SecretKey::new([2; 32])).await.unwrap();
    let renewed = Certificate::self_signed(other.path(), &["relay.test".to_owned()]).unwrap();
    for file in ["derp.crt", "derp.key"] {
        std::fs::copy(other.path().join(file), folder.path().join(file)).unwrap();
    }
    let pid = rustix::process::Pid::from_child(&relay.process);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    relay.target.trust = Trust::Pin(renewed.pin().unwrap());
    let begin = std::time::Instant::now();
    let second = loop {
        match connect(&relay, SecretKey::new([3; 32])).await {
            Ok(second) => break second,
            Err(e) => assert!(begin.elapsed() < Duration::from_secs(10), "{e}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    // Who was there stays.
    first
        .sender()
        .send(&second.sender().public(), b"hello")
        .unwrap();
    tokio::spawn(first.run(|_| ()));
    let (tell, mut heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(second.run(move |event| {
        if let Event::Packet { packet, .. } = event {
            let _ = tell.send(packet.to_vec());
        }
    }));
    let heard = tokio::time::timeout(Duration::from_secs(10), heard.recv()).await;
    assert_eq!(heard.unwrap().unwrap(), b"hello");
}

fn binding_request(transaction: TransactionId) -> Vec<u8> {
    let mut out = [0; 64];
    let writer = Writer::new(&mut out, Class::Request, Method::BINDING, transaction).unwrap();
    writer.bytes().to_vec()
}

/// Asks a server's address from another one of this machine, and hears nobody else.
fn ask(from: &str, server: &str, port: u16) {
    let (from, server): (IpAddr, IpAddr) = (from.parse().unwrap(), server.parse().unwrap());
    let socket = UdpSocket::bind((from, 0)).unwrap();
    socket.connect((server, port)).unwrap();
    let patience = Some(Duration::from_secs(10));
    socket.set_read_timeout(patience).unwrap();
    let transaction = TransactionId([9; 12]);
    let request = binding_request(transaction);
    // What isn't a request for this gets no answer: the first one is to the last of these.
    let mut indication = request.clone();
    indication[1] = 0x11;
    let (long, allocation) = ([&request[..], &[0; 1500]].concat(), [0, 3]);
    let allocation = [&allocation, &request[2..]].concat();
    for refused in [
        &b""[..],
        b"hello",
        &request[..19],
        &indication,
        &long,
        &allocation,
    ] {
        socket.send(refused).unwrap();
    }
    socket.send(&request).unwrap();
    let mut answer = [0; 256];
    let length = socket.recv(&mut answer).unwrap();
    let message = Message::parse(&answer[..length]).unwrap();
    assert_eq!(message.class(), Class::Success);
    assert_eq!(message.transaction(), transaction);
    let told = message.xor_address(XOR_MAPPED_ADDRESS);
    assert_eq!(told, Some(socket.local_addr().unwrap()));
}

#[test]
fn stun_is_answered_from_the_address_that_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    for (listen, asked) in [
        ("[::]:0", &[("127.0.0.1", "127.0.0.2"), ("::1", "::1")][..]),
        ("0.0.0.0:0", &[("127.0.0.1", "127.0.0.3")]),
        ("127.0.0.4:0", &[("127.0.0.1", "127.0.0.4")]),
    ] {
        let relay = start_with(folder.path(), "any", &["--stun", listen]);
        let port = relay.stun.unwrap().port();
        for (from, server) in asked {
            ask(from, server, port);
        }
    }
    assert_eq!(start(folder.path(), "any").stun, None);
}

#[test]
fn what_it_cannot_do_it_says() {
    let run = |words: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_altnet-derp"))
            .args(words)
            .output()
            .unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let missing = [
        "--admit",
        "any",
        "--cert",
        "no.pem",
        "--key",
        "no.pem",
        "--identity",
        "no",
    ];
    assert!(run(&missing).contains("no.pem"));
    assert!(run(&["--admit", "any"]).contains("--self-signed"));
    assert!(run(&["--self-signed", "x"]).contains("--admit"));
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let listen = ["--listen", "127.0.0.1:0", "--self-signed", folder];
    let said = run(&[&listen[..], &["--admit", "any", "--stun", &address]].concat());
    assert!(said.contains(&format!("can't answer STUN at {address}")));
}
