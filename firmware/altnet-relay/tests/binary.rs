//! `altnet-derp` as it is run.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::certificate::Certificate;
use altnet_relay::client::{Connection, ConnectionError, Event, Target};
use altnet_relay::trust::Trust;
use altnet_wire::derp::info::ClientInfo;

struct Relay {
    process: Child,
    target: Target,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(folder: &Path, admit: &str) -> Relay {
    let mut process = Command::new(env!("CARGO_BIN_EXE_altnet-derp"))
        .args(["--listen", "[::]:0", "--json", "--admit", admit])
        .args(["--host", "relay.test", "--self-signed"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let out = process.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    let status: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address: std::net::SocketAddr = status["address"].as_str().unwrap().parse().unwrap();
    let target = Target {
        host: "relay.test".to_owned(),
        port: address.port(),
        addresses: vec!["127.0.0.1".parse().unwrap()],
        trust: Trust::Pin(status["pin"].as_str().unwrap().parse().unwrap()),
        key: None,
        proxy: None,
    };
    Relay { process, target }
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
}
