//! The program and servers, good and bad.

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use altnet_update::bundle::MAX_HEAD_BYTES;
use altnet_update::choice::Slot;
use altnet_updater::fetch::{Client, FetchError, Patience, Url};
use altnet_wire::time::UnixTime;
use support::{House, current, run};

/// A server of `server.py`, which ends with the test.
struct Server {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
    port: u16,
}

impl Server {
    fn start(mode: &str, folder: &Path, tls: &[&Path]) -> Self {
        let mut command = Command::new("python3");
        command
            .arg("-B")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/server.py"));
        command.arg(mode).arg(folder).args(tls);
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("these tests need python3");
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut port = String::new();
        said.read_line(&mut port).unwrap();
        Self {
            child,
            said,
            port: port.trim().parse().unwrap(),
        }
    }

    fn url(&self, path: &str) -> Url {
        format!("http://127.0.0.1:{}{path}", self.port)
            .parse()
            .unwrap()
    }

    /// The requests that there were, each as its path and range.
    fn requests(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        let mut said = String::new();
        self.said.read_to_string(&mut said).unwrap();
        said.lines().map(str::to_owned).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A box whose releases come from `from`, and a folder with a bundle for it.
fn box_of(from: &str, more: &str, bundle: &[u8]) -> House {
    let house = House::new("u-boot");
    house.boot();
    house.put(
        "etc/altnet/altnet.toml",
        format!("[update]\nfrom = \"{from}\"\n{more}").as_bytes(),
    );
    house.put("www/rpi.bundle", bundle);
    house
}

/// The house's own box, its server in `mode`, and the bundle there.
fn served(mode: &str, bundle: &[u8]) -> (House, Server) {
    let house = box_of("http://127.0.0.1:1/", "", bundle);
    let server = Server::start(mode, &house.path("www"), &[]);
    let from = server.url("/");
    house.put(
        "etc/altnet/altnet.toml",
        format!("[router]\n[update]\nfrom = \"{from}\"\n").as_bytes(),
    );
    (house, server)
}

/// Large enough that nobody takes it for its head.
fn large() -> Vec<u8> {
    let mut noise = Vec::new();
    let mut word = 1_u64;
    while noise.len() < 3 << 20 {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        noise.extend_from_slice(&word.to_be_bytes()[..4]);
    }
    noise
}

#[test]
fn a_check_fetches_the_head_and_says_what_there_is() {
    for mode in ["range", "whole", "away"] {
        let cases = [
            (
                current(2, &[1, 2], |_| ()),
                "newer",
                true,
                "altnet update install",
            ),
            (
                current(2, &[1, 2], |m| (m.counter, m.floor) = (1, 1)),
                "same",
                true,
                "nothing to do",
            ),
            (
                current(2, &[1, 2], |m| (m.counter, m.floor) = (0, 0)),
                "older",
                false,
                "newer release",
            ),
            (
                current(2, &[2], |_| ()),
                "newer",
                false,
                "Get the bundle from",
            ),
            (
                current(2, &[1, 2], |m| m.board = "x86-64".parse().unwrap()),
                "newer",
                false,
                "for this box",
            ),
            (
                current(2, &[1, 2], |m| {
                    (m.made, m.not_after) = (UnixTime::EPOCH, UnixTime::from_secs(9))
                }),
                "newer",
                false,
                "newest release",
            ),
        ];
        for (bundle, order, is_taken, next) in cases {
            let (house, server) = served(mode, &bundle);
            let done = run(&house, &["--json", "check"]);
            assert!(done.is_good, "{}", done.err);
            let offer = done.json();
            assert_eq!(
                (&offer["order"], &offer["is_taken"]),
                (&order.into(), &is_taken.into()),
                "{offer}"
            );
            assert!(
                offer["next_step"].as_str().unwrap().contains(next),
                "{offer}"
            );
            assert_eq!(offer["why"].is_null(), is_taken);
            let said = run(&house, &["check"]).out;
            assert!(
                said.contains("release 0.2.0") && said.contains(next),
                "{said}"
            );
            let most = format!("bytes=0-{}", MAX_HEAD_BYTES - 1);
            for request in server.requests() {
                assert!(request.ends_with(&most), "{request}");
            }
        }
    }
}

#[test]
fn what_a_check_finds_is_installed_without_its_name() {
    for mode in ["range", "whole", "away"] {
        let (house, _server) = served(mode, &current(2, &[1, 2], |_| ()));
        let done = run(&house, &["--json", "install"]);
        assert!(done.is_good, "{}", done.err);
        assert_eq!(
            (&done.json()["version"], &done.json()["slot"]),
            (&"0.2.0".into(), &"B".into())
        );
        let offer = run(&house, &["--json", "check"]).json();
        let next = offer["next_step"].as_str().unwrap();
        assert!(next.contains("installed already"), "{offer}");
        assert_eq!(house.boot().0, Slot::B);
    }
}

#[test]
fn a_transfer_that_breaks_off_goes_on_where_it_was() {
    let large = large();
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("large"), &large).unwrap();
    let client = Client::new(None, UnixTime::EPOCH, QUICK).unwrap();
    let server = Server::start("cut", home.path(), &[]);
    let mut found = Vec::new();
    let url = server.url("/large");
    client.whole(&url).unwrap().read_to_end(&mut found).unwrap();
    assert!(found == large);
    let requests = server.requests();
    assert_eq!(requests[..2], ["/large -", "/large bytes=700000-"]);
    assert_eq!(requests.len(), 5);
}

#[test]
fn a_file_that_changed_meanwhile_is_not_mixed_with_the_one_before() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("large"), large()).unwrap();
    let client = Client::new(None, UnixTime::EPOCH, QUICK).unwrap();
    let server = Server::start("changed", home.path(), &[]);
    let mut stream = client.whole(&server.url("/large")).unwrap();
    let mut found = Vec::new();
    let error = stream.read_to_end(&mut found).unwrap_err();
    assert!(
        error.to_string().contains("can't go on with the same file"),
        "{error}"
    );
    assert_eq!(found.len(), 700_000);
}

/// A server's patience for tests.
const QUICK: Patience = Patience {
    connect: Duration::from_secs(2),
    beginning: Duration::from_secs(2),
    silence: Duration::from_secs(2),
    pace_bytes: 1 << 10,
    pace: Duration::from_secs(3),
    tries: 2,
    rest: Duration::from_millis(10),
};

#[test]
fn a_server_without_end_or_without_a_word_costs_a_bounded_time() {
    let client = Client::new(None, UnixTime::EPOCH, QUICK).unwrap();
    let home = tempfile::tempdir().unwrap();
    let most = Duration::from_secs(20);
    let check = |mode: &str, expected: &dyn Fn(&FetchError) -> bool| {
        let server = Server::start(mode, home.path(), &[]);
        let began = Instant::now();
        match client.beginning(&server.url("/x"), MAX_HEAD_BYTES) {
            Ok(found) => assert_eq!((mode, found.len()), ("forever", MAX_HEAD_BYTES)),
            Err(e) => assert!(expected(&e), "{mode}: {e}"),
        }
        let whole = client.whole(&server.url("/x"));
        let ended = whole.map(|stream| {
            let mut found = Vec::new();
            let read = stream.take(1 << 20).read_to_end(&mut found);
            read.map_err(|e| e.to_string())
        });
        match (mode, ended) {
            ("forever", Ok(Ok(count))) => assert_eq!(count, 1 << 20),
            ("drip", Ok(Err(why))) => assert!(why.contains("too slowly"), "{why}"),
            (_, Err(e)) => assert!(expected(&e), "{mode}: {e}"),
            (_, other) => panic!("{mode}: {other:?}"),
        }
        assert!(began.elapsed() < most, "{mode} took {:?}", began.elapsed());
    };
    check("forever", &|_| false);
    check("drip", &|e| matches!(e, FetchError::Silence { .. }));
    check("silent", &|e| matches!(e, FetchError::Silence { .. }));
    check("round", &|e| matches!(e, FetchError::Redirects));
    check(
        "range",
        &|e| matches!(e, FetchError::Status { status } if status.as_u16() == 404),
    );
}

#[test]
fn a_server_without_end_is_told_from_a_bundle_and_nothing_is_written() {
    let (house, server) = served("forever", b"");
    let from = server.url("/").to_string();
    for words in [&["check"][..], &["install"], &["install", &from]] {
        let began = Instant::now();
        let refused = run(&house, words);
        assert!(
            !refused.is_good && refused.err.contains("it has 0 signatures"),
            "{}",
            refused.err
        );
        assert!(began.elapsed() < Duration::from_secs(20));
    }
    assert!(!house.path("data/etc/update.state").exists());
}

#[test]
fn over_tls_only_who_an_authority_vouches_for_is_asked() {
    let bundle = current(2, &[1, 2], |_| ());
    let house = box_of("https://127.0.0.1:1/", "", &bundle);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = house.put("certificate.pem", made.cert.pem().as_bytes());
    let key = house.put("key.pem", made.signing_key.serialize_pem().as_bytes());
    let server = Server::start("range", &house.path("www"), &[&certificate, &key]);
    let from = format!("https://localhost:{}/", server.port);
    let config = |more: &str| {
        let text = format!("[update]\nfrom = \"{from}\"\n{more}");
        house.put("etc/altnet/altnet.toml", text.as_bytes());
    };
    config("");
    let refused = run(&house, &["check"]);
    assert!(
        !refused.is_good && refused.err.contains("localhost"),
        "{}",
        refused.err
    );
    config(&format!("ca = \"{}\"\n", certificate.display()));
    let done = run(&house, &["--json", "check"]);
    assert!(done.is_good, "{}", done.err);
    assert_eq!(done.json()["order"], "newer");
    let done = run(&house, &["install"]);
    assert!(done.is_good, "{}", done.err);
    drop(server);
    let server = Server::start("down", &house.path("www"), &[&certificate, &key]);
    let client = Client::new(Some(&certificate), UnixTime::EPOCH, QUICK).unwrap();
    let url: Url = format!("https://localhost:{}/x", server.port)
        .parse()
        .unwrap();
    let refused = client.beginning(&url, 9).unwrap_err();
    assert!(matches!(refused, FetchError::Redirect { .. }), "{refused}");
}

#[test]
fn where_releases_come_from_has_to_be_said_and_be_there() {
    let house = box_of("http://127.0.0.1:1/", "", b"");
    let refused = run(&house, &["check"]);
    assert!(
        !refused.is_good && refused.err.contains("can't connect to 127.0.0.1"),
        "{}",
        refused.err
    );
    house.put("etc/altnet/altnet.toml", b"[router]\n");
    for words in [&["check"][..], &["install"]] {
        let refused = run(&house, words);
        assert!(
            !refused.is_good && refused.err.contains("[update]"),
            "{}",
            refused.err
        );
    }
    house.put(
        "etc/altnet/altnet.toml",
        b"[update]\nfrom = \"gopher://x\"\n",
    );
    let refused = run(&house, &["check"]);
    assert!(refused.err.contains("altnet.toml:2:8"), "{}", refused.err);
}
