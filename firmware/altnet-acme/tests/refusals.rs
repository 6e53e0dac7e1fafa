//! What an authority may answer that Pebble never does: limits, faults, and nonsense. The server here
//! says what it is told to; everything that it is told by an authority that works is Pebble's to judge.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

use altnet_acme::config::Config;
use altnet_acme::leaf::Leaf;
use altnet_acme::serve::{Keeper, now_s};
use altnet_acme::store::Store;
use altnet_acme::trouble::Trouble;
use altnet_acme::when::{LONGEST_TOLD, Next};
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const NAME: &str = "relay.altnet.test";
const HOUR_S: u64 = 3600;
/// In the place of a path: what the order's says once the order is finalized.
const ONCE_FINALIZED: &str = "/order/1, then";

/// What is answered, by path, or by what it begins with if that ends in a slash: a status with headers, and a body.
type Answers = Arc<Mutex<BTreeMap<&'static str, (String, String)>>>;

struct Authority {
    url: String,
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    /// One at which everything goes well until there is an order.
    async fn start(home: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let own = own.self_signed(&key).unwrap();
        fs::write(home.join("ca.pem"), own.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![own.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        let acceptor = TlsAcceptor::from(Arc::new(tls.unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let authority = Self {
            url: url.clone(),
            answers: Answers::default(),
            asked: Arc::default(),
        };
        let directory = json!({
            "newNonce": format!("{url}/nonce"), "newAccount": format!("{url}/account"),
            "newOrder": format!("{url}/orders"), "renewalInfo": format!("{url}/renewal"),
        });
        authority.say("/dir", "200 OK", directory.to_string());
        authority.say("/nonce", "200 OK", String::new());
        let created = format!("201 Created\r\nLocation: {url}/account/1");
        authority.say(
            "/account",
            &created,
            json!({ "status": "valid" }).to_string(),
        );
        let (answers, asked) = (Arc::clone(&authority.answers), Arc::clone(&authority.asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers, asked) =
                    (acceptor.clone(), Arc::clone(&answers), Arc::clone(&asked));
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await?;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    let head = String::from_utf8(head).unwrap();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    let length = head.lines().find_map(|line| {
                        let line = line.to_ascii_lowercase();
                        line.strip_prefix("content-length: ")?.parse().ok()
                    });
                    let mut body = vec![0; length.unwrap_or(0)];
                    stream.read_exact(&mut body).await?;
                    let answer = {
                        let mut answers = answers.lock().unwrap();
                        if path == "/finalize"
                            && let Some(then) = answers.remove(ONCE_FINALIZED)
                        {
                            answers.insert("/order/1", then);
                        }
                        let under = answers
                            .iter()
                            .find(|(known, _)| known.ends_with('/') && path.starts_with(**known));
                        let exact = answers.get(path.as_str());
                        exact.or(under.map(|(_, answer)| answer)).cloned()
                    };
                    let (status, body) = answer.unwrap_or(("404 Not Found".into(), "{}".into()));
                    asked.lock().unwrap().push(path);
                    let answer = format!(
                        "HTTP/1.1 {status}\r\nReplay-Nonce: bm9uY2U\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    stream.write_all(answer.as_bytes()).await?;
                    stream.shutdown().await
                });
            }
        });
        authority
    }

    fn say(&self, path: &'static str, status: &str, body: String) {
        let mut answers = self.answers.lock().unwrap();
        answers.insert(path, (status.to_owned(), body));
    }

    fn refuse(&self, path: &'static str, status: &str, kind: &str) {
        let kind = format!("urn:ietf:params:acme:error:{kind}");
        let code: u16 = status[..3].parse().unwrap();
        let problem = json!({ "type": kind, "detail": "its own words", "status": code });
        self.say(path, status, problem.to_string());
    }

    /// How often it was asked for what begins so.
    fn asked(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| one.starts_with(path)).count()
    }

    fn config(&self, home: &Path) -> Config {
        let text = format!(
            "names = [\"{NAME}\"]\nagree_to_terms = true\ndirectory = \"{}/dir\"\nca = {:?}\nfolder = {:?}",
            self.url,
            home.join("ca.pem"),
            home.join("acme")
        );
        Config::parse(Path::new("acme.toml"), &text).unwrap()
    }
}

/// An attempt: what came of it.
async fn attempt(config: &Config) -> Result<Leaf, Trouble> {
    let store = Store::open(&config.folder, None, None).unwrap();
    let keeper = Keeper::new(config, &store).unwrap();
    let lock = store.lock().unwrap();
    keeper.get(keeper.held().unwrap(), &lock).await
}

/// Asks when what is held is to be renewed.
async fn ask_window(config: &Config) -> Result<(), Trouble> {
    let store = Store::open(&config.folder, None, None).unwrap();
    let keeper = Keeper::new(config, &store).unwrap();
    let lock = store.lock().unwrap();
    keeper.ask_window(keeper.held().unwrap(), &lock).await
}

/// Puts a certificate into the folder of which an authority can say when to renew it.
fn hold(config: &Config) {
    let authority = CertificateParams::default();
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap());
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([NAME.to_owned()]).unwrap();
    params.use_authority_key_identifier_extension = true;
    let own = params.signed_by(&key, &authority.unwrap()).unwrap();
    let store = Store::open(&config.folder, None, None).unwrap();
    let text = key.serialize_pem() + &own.pem();
    store.publish(text.as_bytes()).unwrap();
}

/// In how many seconds the window is asked for again.
fn window_again_s(config: &Config) -> u64 {
    let store = Store::open(&config.folder, None, None).unwrap();
    let held = Keeper::new(config, &store).unwrap().held().unwrap();
    held.plan.window.unwrap().again_s - now_s()
}

/// For how long nobody is asked now, in seconds.
fn pause_s(config: &Config) -> u64 {
    let store = Store::open(&config.folder, None, None).unwrap();
    let held = Keeper::new(config, &store).unwrap().held().unwrap();
    let until_s = held.plan.pause_until_s.max(held.plan.told_until_s);
    until_s.saturating_sub(now_s())
}

#[tokio::test]
async fn a_limit_is_kept_to_by_everybody_until_it_ends() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    let limited = "429 Too Many Requests\r\nRetry-After: 180000";
    authority.refuse("/orders", limited, "rateLimited");
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(
        said.contains("its own words") && said.contains("wait"),
        "{said}"
    );
    assert!(pause_s(&config).abs_diff(50 * HOUR_S) < 60);
    // Whoever wants it now learns until when, and the authority isn't asked.
    let asked = authority.asked("/orders");
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("left alone until 20"), "{said}");
    assert_eq!(authority.asked("/orders"), asked);
    let store = Store::open(&config.folder, None, None).unwrap();
    let keeper = Keeper::new(&config, &store).unwrap();
    assert!(matches!(
        keeper.next(&keeper.held().unwrap()),
        Next::Wait(_)
    ));
}

#[tokio::test]
async fn no_limit_is_absurd() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    for header in [
        "18446744073709551615",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "-5",
        "\u{fc}",
    ] {
        let status = format!("503 Service Unavailable\r\nRetry-After: {header}");
        authority.refuse("/orders", &status, "serverInternal");
        let said = attempt(&config).await.unwrap_err().to_string();
        assert!(said.contains("has a fault"), "{said}");
        let pause_s = pause_s(&config);
        assert!(
            pause_s > 600 && pause_s <= LONGEST_TOLD.as_secs(),
            "{header}: {pause_s}"
        );
        fs::remove_dir_all(&config.folder).unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_can_not_be_written_has_nobody_asked() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    // In the way of every write, for root too.
    fs::create_dir_all(config.folder.join("next.new/in")).unwrap();
    let failed = attempt(&config).await.unwrap_err();
    assert!(matches!(failed, Trouble::Store(_)), "{failed}");
    assert!(authority.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_account_that_is_gone_is_made_anew() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    authority.refuse("/orders", "400 Bad Request", "malformed");
    for _ in 0..2 {
        attempt(&config).await.unwrap_err();
    }
    assert_eq!(authority.asked("/account"), 1, "one account for both");
    authority.refuse("/orders", "400 Bad Request", "accountDoesNotExist");
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("another account"), "{said}");
    attempt(&config).await.unwrap_err();
    assert_eq!(authority.asked("/account"), 2);
}

#[tokio::test]
async fn nonsense_is_an_error_and_what_is_held_is_held() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    let store = Store::open(&config.folder, None, None).unwrap();
    store.publish(b"what is held").unwrap();
    let url = &authority.url;
    let order = |status: &str| {
        json!({
            "status": status, "authorizations": [], "finalize": format!("{url}/finalize"),
            "certificate": format!("{url}/certificate"), "identifiers": [],
        })
    };
    let created = format!("201 Created\r\nLocation: {url}/order/1");
    authority.say("/orders", &created, order("ready").to_string());
    authority.say("/finalize", "200 OK", order("valid").to_string());
    let key = KeyPair::generate().unwrap();
    let other = CertificateParams::new([NAME.to_owned()]).unwrap();
    let other = other.self_signed(&key).unwrap().pem();
    let long = "x".repeat(1 << 20);
    for (path, body, expected) in [
        ("/certificate", other.as_str(), "don't fit"),
        ("/certificate", "no certificate", "no chain"),
        ("/certificate", &other.repeat(20), "no chain"),
        ("/certificate", &"x".repeat(64 << 10), "longer than 65536"),
        ("/certificate", &long, "longer than"),
        ("/finalize", "{}", "isn't what an ACME server says"),
        ("/orders", "[[[[", "isn't what an ACME server says"),
        ("/dir", "<html>", "isn't what an ACME server says"),
    ] {
        let status = if path == "/orders" {
            created.as_str()
        } else {
            "200 OK"
        };
        let before = authority.answers.lock().unwrap().get(path).cloned();
        authority.say(path, status, body.to_owned());
        authority.say("/order/1", "200 OK", order("ready").to_string());
        authority.say(ONCE_FINALIZED, "200 OK", order("valid").to_string());
        let attempted = attempt(&config).await;
        let said = attempted.unwrap_err().to_string();
        assert!(
            said.contains(expected) && said.len() < 700,
            "{path}: {said}"
        );
        let held = store.certificate().unwrap().unwrap();
        assert_eq!(held.as_slice(), b"what is held", "{path}");
        if let Some(before) = before {
            authority.answers.lock().unwrap().insert(path, before);
        }
    }
    assert!(pause_s(&config) > 600);
}

#[tokio::test]
async fn who_is_not_the_authority_is_told_nothing() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    // Another authority is believed.
    let other = tempfile::tempdir().unwrap();
    Authority::start(other.path()).await;
    fs::copy(other.path().join("ca.pem"), home.path().join("ca.pem")).unwrap();
    let config = authority.config(home.path());
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(
        said.contains("can't connect to 127.0.0.1") && said.contains("clock"),
        "{said}"
    );
    assert!(authority.asked.lock().unwrap().is_empty());
    // Nor where nobody is.
    let nobody = config.directory.rsplit_once(':').unwrap().0.to_owned() + ":1/dir";
    let config = Config {
        directory: nobody,
        ..config
    };
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("can't connect to 127.0.0.1"), "{said}");
}

#[tokio::test]
async fn a_window_is_asked_for_only_when_that_is_written_down_and_makes_no_account() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    hold(&config);
    // Nobody knows us there, and a window is no reason to change that.
    ask_window(&config).await.unwrap();
    assert!(authority.asked.lock().unwrap().is_empty());
    authority.refuse("/orders", "400 Bad Request", "malformed");
    attempt(&config).await.unwrap_err();
    assert_eq!(authority.asked("/account"), 1);
    ask_window(&config).await.unwrap_err();
    assert_eq!(authority.asked("/renewal/"), 1);
    // In the way of every write, for root too.
    fs::create_dir_all(config.folder.join("next.new/in")).unwrap();
    let failed = ask_window(&config).await.unwrap_err();
    assert!(matches!(failed, Trouble::Store(_)), "{failed}");
    assert_eq!(authority.asked("/renewal/"), 1);
}

#[tokio::test]
async fn a_window_that_was_not_said_is_asked_for_again_on_the_same_day() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    hold(&config);
    authority.refuse("/orders", "400 Bad Request", "malformed");
    attempt(&config).await.unwrap_err();
    ask_window(&config).await.unwrap_err();
    assert!(window_again_s(&config).abs_diff(6 * HOUR_S) < 60);
    // Nor when to ask again.
    let window = json!({ "suggestedWindow": {
        "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z",
    }});
    authority.say(
        "/renewal/",
        "200 OK\r\nRetry-After: soon",
        window.to_string(),
    );
    ask_window(&config).await.unwrap();
    assert!(window_again_s(&config).abs_diff(6 * HOUR_S) < 60);
}

#[tokio::test]
async fn an_authority_that_does_not_repeat_what_is_replaced_is_not_told_again() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    hold(&config);
    let url = &authority.url;
    let created = format!("201 Created\r\nLocation: {url}/order/1");
    // Without the field that RFC 9773 section 5 wants back.
    let order = json!({
        "status": "invalid", "authorizations": [], "finalize": format!("{url}/finalize"),
        "identifiers": [],
    });
    authority.say("/orders", &created, order.to_string());
    authority.say("/order/1", "200 OK", order.to_string());
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("replaces"), "{said}");
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("it was given up"), "{said}");
}

#[tokio::test]
async fn a_nonce_that_is_refused_is_replaced_but_not_without_end() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    authority.refuse("/orders", "400 Bad Request", "badNonce");
    attempt(&config).await.unwrap_err();
    assert_eq!(authority.asked("/orders"), 3);
    assert!(pause_s(&config) > 600);
}

#[tokio::test]
async fn proofs_are_given_for_the_names_alone() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    let url = &authority.url;
    let created = format!("201 Created\r\nLocation: {url}/order/1");
    let order = |proofs: usize| {
        let proofs = vec![format!("{url}/proof"); proofs];
        json!({
            "status": "ready", "authorizations": proofs, "finalize": format!("{url}/finalize"),
            "identifiers": [],
        })
    };
    // Proven already, and nobody's here.
    let proof = json!({
        "status": "valid", "identifier": { "type": "dns", "value": "b.example" }, "challenges": [],
    });
    authority.say("/proof", "200 OK", proof.to_string());
    authority.say("/orders", &created, order(1).to_string());
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("a proof for another name"), "{said}");
    let asked = authority.asked("/proof");
    authority.say("/orders", &created, order(2).to_string());
    let said = attempt(&config).await.unwrap_err().to_string();
    assert!(said.contains("more proofs than there are names"), "{said}");
    assert_eq!(authority.asked("/proof"), asked);
}

#[tokio::test]
async fn a_limit_is_one_whatever_its_status() {
    let home = tempfile::tempdir().unwrap();
    let authority = Authority::start(home.path()).await;
    let config = authority.config(home.path());
    hold(&config);
    authority.refuse("/orders", "400 Bad Request", "rateLimited");
    attempt(&config).await.unwrap_err();
    assert_eq!(authority.asked("/orders"), 1);
}
