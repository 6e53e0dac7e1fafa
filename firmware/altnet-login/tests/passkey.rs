//! Passkeys: on the page without a browser, from directories, and with Chromium's authenticator.

mod chromium;
mod common;
mod servers;

use std::sync::Arc;

use altnet_login::codes::Codes;
use altnet_login::config::Config;
use altnet_login::directory::{Identity, Standing};
use altnet_login::passkey::{Holder, Passkeys, PublicKey, Registered, Ticket};
use altnet_login::source::Source;
use altnet_login::state::State;
use common::{Browser, House, Server};
use serde_json::{Value, json};
use zeroize::Zeroizing;

#[test]
fn without_https_there_are_no_passkeys() {
    let house = House::new();
    house.configure("", "");
    let (code, _) = house.code(&["--person", "ann"]);
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    let front = browser.front(&page);
    assert!(!front.body.contains("asskey"), "{}", front.body);
    let token = front.token();
    assert_eq!(
        browser.submit(&page, "/code", &[("code", &code)]).status,
        303
    );
    let front = browser.front(&page);
    assert!(!front.body.contains("asskey"), "{}", front.body);
    let policy = front.header("content-security-policy").unwrap();
    assert!(!policy.contains("script"), "{policy}");
    for path in ["add/begin", "add", "use/begin", "use", "other"] {
        let url = format!("http://{}/passkey/{path}", page.addresses[0]);
        let body = json!({ "token": token }).to_string();
        let refused = browser.send("POST", &url, "application/json", &body);
        assert_eq!(refused.status, 403, "{path}");
        assert!(refused.body.contains("with https"), "{}", refused.body);
    }
    let removed = browser.submit(&page, "/passkey/remove", &[("passkey", "00000000")]);
    assert_eq!(removed.status, 403);
}

#[test]
fn the_command_line_says_what_is_there() {
    let house = House::new();
    house.configure("", "");
    let list = house.run(&["passkey", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("no passkeys"));
    let gone = house.run(&["passkey", "remove", "00000000"]);
    assert!(!gone.status.success());
    assert!(String::from_utf8_lossy(&gone.stderr).contains("passkey list` shows them"));
    let passkeys = Passkeys::new(State::open(&house.path("state")).unwrap());
    let ann = Holder {
        how: "code".into(),
        subject: "1".into(),
        device: None,
    };
    passkeys
        .add("user", ann, "ann", &identity("1", ""), registered())
        .unwrap();
    let all = list_json(&house);
    assert_eq!(
        (&all[0]["who"], &all[0]["how"]),
        (&json!("ann"), &json!("code"))
    );
    let id = all[0]["id"].as_str().unwrap();
    let list = house.run(&["passkey", "list"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains(id));
    assert!(house.run(&["passkey", "remove", id]).status.success());
    assert!(list_json(&house).is_empty());
}

fn list_json(house: &House) -> Vec<Value> {
    let list = house.run(&["passkey", "list", "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    list["passkeys"].as_array().unwrap().clone()
}

fn identity(subject: &str, handle: &str) -> Identity {
    Identity {
        subject: subject.into(),
        name: subject.into(),
        groups: Default::default(),
        expires: None,
        handle: Zeroizing::new(handle.into()),
    }
}

fn registered() -> Registered {
    Registered {
        id: vec![1],
        key: PublicKey::Ed25519(vec![0; 32]),
        count: 0,
        is_synced: false,
    }
}

mod from_a_directory {
    use std::os::unix::net::UnixStream;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::{Duration, Instant};

    use altnet_login::api::Api;
    use altnet_login::sessions::Sessions;

    use super::*;

    /// A provider whose refresh tokens are good once: one that comes again ends them all, as
    /// RFC 9700 section 4.14.2 has it.
    #[derive(Default)]
    struct Provider {
        next: u64,
        is_stopped: bool,
        /// Where it waits before it answers, if it does: first it says that it was asked.
        gate: Option<(Sender<()>, Receiver<()>)>,
    }

    struct Scene {
        home: tempfile::TempDir,
        passkeys: Passkeys,
        source: Source,
        provider: Arc<Mutex<Provider>>,
        server: Server,
    }

    impl Provider {
        fn answer(&mut self, path: &str, body: &str) -> (u16, Value) {
            if !path.starts_with("/token") {
                return (404, json!({}));
            }
            let expected = format!("grant_type=refresh_token&refresh_token={}&", self.next);
            if let Some((asked, go)) = self.gate.take() {
                asked.send(()).unwrap();
                go.recv().unwrap();
            }
            if self.is_stopped || !format!("{body}&").starts_with(&expected) {
                self.is_stopped = true;
                return (400, json!({ "error": "invalid_grant" }));
            }
            self.next += 1;
            let next = self.next.to_string();
            (
                200,
                json!({ "access_token": "a", "token_type": "Bearer", "refresh_token": next }),
            )
        }
    }

    fn scene() -> Scene {
        let home = tempfile::tempdir().unwrap();
        let provider = Arc::new(Mutex::new(Provider::default()));
        let kept = Arc::clone(&provider);
        let place = Arc::new(Mutex::new(String::new()));
        let found = Arc::clone(&place);
        let server = Server::start(Arc::new(move |path, body| {
            let own = found.lock().unwrap().clone();
            match path {
                "/.well-known/openid-configuration" => {
                    let at = |path: &str| format!("{own}{path}");
                    (
                        200,
                        json!({
                            "issuer": own, "authorization_endpoint": at("/auth"),
                            "token_endpoint": at("/token"), "userinfo_endpoint": at("/me"),
                            "jwks_uri": at("/keys"), "response_types_supported": ["code"],
                            "id_token_signing_alg_values_supported": ["RS256"],
                            "code_challenge_methods_supported": ["S256"],
                        }),
                    )
                }
                "/me" => (
                    200,
                    json!({ "sub": "ann", "preferred_username": "ann", "groups": ["staff"] }),
                ),
                _ => kept.lock().unwrap().answer(path, body),
            }
        }));
        *place.lock().unwrap() = format!("http://{}", server.address);
        let text = format!(
            "url = \"http://login.example\"\n[[oidc]]\nname = \"Work\"\nissuer = \"http://{}\"\nclient_id = \"altnet\"\nperson = \"name\"\n",
            server.address
        );
        let config = Config::parse("login.toml".as_ref(), &text).unwrap();
        let state = State::open(home.path()).unwrap();
        let mut sources = Source::all(&config, Codes::new(state.clone())).unwrap();
        let source = sources.pop().unwrap();
        let passkeys = Passkeys::new(state);
        let first = identity("ann", "{\"access\":\"a\",\"refresh\":\"0\"}");
        let holder = Holder::new(&source, &first, "02:00:00:00:00:01");
        passkeys
            .add("user", holder, "ann", &first, registered())
            .unwrap();
        Scene {
            home,
            passkeys,
            source,
            provider,
            server,
        }
    }

    fn run<T>(f: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(f)
    }

    #[test]
    fn devices_of_one_person_share_a_refresh_token_that_is_good_once() {
        let scene = scene();
        let with = scene.passkeys.count(&[1], 0).unwrap();
        let without = Ticket {
            passkey: None,
            ..with.clone()
        };
        let look = |ticket| scene.passkeys.look_again(&scene.source, ticket);
        run(async {
            for _ in 0..3 {
                let (a, b, c) = tokio::join!(look(&with), look(&without), look(&with));
                for (standing, ticket) in [(a, &with), (b, &without), (c, &with)] {
                    let Standing::Holds(identity) = standing else {
                        panic!("{standing:?}");
                    };
                    assert_eq!(identity.handle, ticket.to_handle());
                    assert!(scene.source.count(&identity).unwrap().person.is_some());
                }
            }
        });
        assert_eq!(scene.provider.lock().unwrap().next, 9);
    }

    /// The provider answers with the next token when the session that asked has become a passkey's.
    #[test]
    fn a_passkey_that_is_added_while_its_session_is_looked_up_gets_the_newest_token() {
        let Scene {
            home,
            passkeys,
            source,
            provider,
            server: _server,
        } = scene();
        passkeys
            .remove(&passkeys.find(&[1]).unwrap().1.name, None)
            .unwrap();
        let altnetd = common::Altnetd::start(home.path());
        let stream = UnixStream::connect(&altnetd.socket).unwrap();
        let (say, asked) = channel();
        let (go, wait) = channel();
        provider.lock().unwrap().gate = Some((say, wait));
        run(async {
            let (api, talk) = Api::start(stream).unwrap();
            let state = State::open(home.path()).unwrap();
            let source = Arc::new(source);
            let all = vec![Arc::clone(&source)];
            let sessions = Arc::new(Sessions::open(api, state, all, Duration::ZERO).unwrap());
            let story = async {
                let first = identity("ann", "{\"access\":\"a\",\"refresh\":\"0\"}");
                let add = identity("ann", &first.handle);
                sessions.log_in("127.0.0.2", &source, first).await.unwrap();
                let looks = Arc::clone(&sessions).look_again(Duration::from_millis(50));
                let adding = async {
                    tokio::task::spawn_blocking(move || asked.recv().unwrap())
                        .await
                        .unwrap();
                    let (device, session) = sessions.whose("127.0.0.2").await.unwrap();
                    let holder = Holder::new(&source, &add, &device);
                    let ticket = passkeys.add("user", holder, "ann", &add, registered());
                    let ticket = ticket.unwrap();
                    let number = session.unwrap().number;
                    sessions.hold_by(&device, number, &ticket).await;
                    go.send(()).unwrap();
                    let until = Instant::now() + Duration::from_secs(40);
                    while provider.lock().unwrap().next < 3 {
                        assert!(!provider.lock().unwrap().is_stopped, "a token came twice");
                        assert!(Instant::now() < until, "nobody is looked up");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    // And whoever shows the passkey meanwhile, on the page, where looks take turns.
                    let standing = sessions.passkeys().look_again(&source, &ticket).await;
                    assert!(matches!(standing, Standing::Holds(_)), "{standing:?}");
                };
                tokio::select! {
                    () = looks => panic!("nobody is looked up any more"),
                    () = adding => {}
                }
            };
            tokio::select! {
                e = talk => panic!("{e}"),
                () = story => {}
            }
        });
        assert_eq!(altnetd.login()["person"], "ann");
    }

    #[test]
    fn what_the_directory_ends_ends_the_passkey() {
        let scene = scene();
        let ticket = scene.passkeys.count(&[1], 0).unwrap();
        scene.provider.lock().unwrap().is_stopped = true;
        let standing = run(scene.passkeys.look_again(&scene.source, &ticket));
        assert!(matches!(standing, Standing::Ended(_)), "{standing:?}");
        assert!(scene.passkeys.list().unwrap().is_empty());
        // For good.
        scene.provider.lock().unwrap().is_stopped = false;
        let standing = run(scene.passkeys.look_again(&scene.source, &ticket));
        assert!(matches!(standing, Standing::Ended(_)), "{standing:?}");
    }

    #[test]
    fn a_directory_that_does_not_answer_ends_nothing() {
        let scene = scene();
        let ticket = scene.passkeys.count(&[1], 0).unwrap();
        scene.server.stop();
        let standing = run(scene.passkeys.look_again(&scene.source, &ticket));
        assert!(matches!(standing, Standing::Unreachable(_)), "{standing:?}");
        assert_eq!(scene.passkeys.list().unwrap().len(), 1);
    }

    #[test]
    fn a_removed_passkey_holds_nobody() {
        let scene = scene();
        let ticket = scene.passkeys.count(&[1], 0).unwrap();
        let (_, found) = scene.passkeys.find(&[1]).unwrap();
        scene.passkeys.remove(&found.name, None).unwrap();
        let look = |ticket| run(scene.passkeys.look_again(&scene.source, ticket));
        let standing = look(&ticket);
        assert!(matches!(standing, Standing::Ended(_)), "{standing:?}");
        let added = Ticket {
            passkey: None,
            ..ticket.clone()
        };
        let standing = look(&added);
        assert!(matches!(standing, Standing::Holds(_)), "{standing:?}");
    }
}

mod with_chromium {
    use std::process::Command;

    use data_encoding::BASE64;

    use super::chromium::Chromium;
    use super::common::{Page, free_port};
    use super::servers::{Ca, Issued};
    use super::*;

    const HOST: &str = "login.home.alt";

    struct Scene {
        chromium: Chromium,
        page: Page,
        house: House,
        issued: Issued,
        url: String,
    }

    /// A page with HTTPS in `house`, and its address, which its configuration tells or not.
    fn serve(house: &House, issued: &Issued, is_told: bool) -> (Page, String) {
        let port = free_port();
        let url = format!("https://{HOST}:{port}");
        let key = house.write("key.pem", std::fs::read(&issued.key).unwrap());
        let certificate = &issued.certificate;
        house.configure(
            &match is_told {
                true => format!("url = {url:?}"),
                false => String::new(),
            },
            &format!("[tls]\nlisten = [\"127.0.0.1:{port}\"]\ncertificate = {certificate:?}\nkey = {key:?}\n"),
        );
        (house.serve(), url)
    }

    fn scene() -> Scene {
        scene_with(true)
    }

    fn scene_with(is_told: bool) -> Scene {
        let house = House::new();
        let ca = Ca::new(&house.path("ca"), "/CN=tests");
        let issued = ca.issue("page", "/CN=page", &format!("subjectAltName=DNS:{HOST}\n"));
        let spki = Command::new("sh")
            .args([
                "-c",
                "openssl x509 -in \"$1\" -noout -pubkey | openssl pkey -pubin -outform DER",
                "sh",
            ])
            .arg(&issued.certificate)
            .output()
            .unwrap();
        let pin = ring::digest::digest(&ring::digest::SHA256, &spki.stdout);
        let chromium = Chromium::start(house.home.path(), HOST, &BASE64.encode(pin.as_ref()));
        let (page, url) = serve(&house, &issued, is_told);
        Scene {
            chromium,
            page,
            house,
            issued,
            url,
        }
    }

    impl Scene {
        /// Logs in with a new code and adds a passkey; returns the code's id.
        #[track_caller]
        fn add(&mut self) -> String {
            let (code, id) = self.house.code(&["--person", "ann"]);
            self.chromium.open(&self.url);
            self.chromium.evaluate(&format!(
                "document.querySelector('[name=code]').value = '{code}'; document.querySelector('[action=\"/code\"]').requestSubmit()"
            ));
            self.chromium.wait_for_text("logged in as ann");
            self.press();
            self.chromium.wait_for_text("Remove it");
            id
        }

        /// Presses the button for passkeys, which the script has shown.
        #[track_caller]
        fn press(&mut self) {
            self.chromium
                .wait_until("!document.querySelector('#passkey').hidden");
            self.chromium
                .evaluate("document.querySelector('#passkey button').click()");
        }

        #[track_caller]
        fn leave(&mut self) {
            self.chromium
                .evaluate("document.querySelector('[action=\"/logout\"]').requestSubmit()");
            self.chromium.wait_for_text("Nobody is logged in");
            self.house.altnetd.wait_for_logout();
        }

        #[track_caller]
        fn come_back(&mut self) {
            self.press();
            self.chromium.wait_for_text("logged in as ann");
            assert_eq!(self.house.altnetd.login()["person"], "ann");
            assert_eq!(self.house.altnetd.login()["how"], "code");
        }

        /// Presses the button and is told why not.
        #[track_caller]
        fn is_refused(&mut self, why: &str) {
            self.press();
            self.chromium.wait_for_text(why);
            self.house.altnetd.wait(|told| told.logins.is_empty());
        }

        /// Sends JSON to the page as its script does; returns the status and the body.
        #[track_caller]
        fn post(&mut self, path: &str, body: &Value) -> (u64, String) {
            let answer = self.chromium.evaluate(&format!(
                "fetch('/passkey/{path}', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: JSON.stringify({{ ...{body}, token: document.querySelector('#passkey').dataset.token }}) }}).then(async (r) => [r.status, await r.text()])"
            ));
            (
                answer[0].as_u64().unwrap(),
                answer[1].as_str().unwrap().into(),
            )
        }
    }

    #[test]
    #[ignore = "needs ci/install browser; run by ci/test --only passkeys"]
    fn who_left_comes_back_until_the_code_is_revoked() {
        let mut scene = scene();
        let id = scene.add();
        // Who added it stays who they are for more than one look.
        scene.leave();
        scene.come_back();
        assert_eq!(list_json(&scene.house)[0]["who"], "ann");
        assert!(scene.house.run(&["code", "revoke", &id]).status.success());
        scene.house.altnetd.wait_for_logout();
        assert!(list_json(&scene.house).is_empty());
        scene.chromium.open(&scene.url);
        scene.is_refused("isn't known here any more");
    }

    #[test]
    #[ignore = "needs ci/install browser; run by ci/test --only passkeys"]
    fn each_algorithm_that_is_asked_for_works() {
        let mut scene = scene();
        scene.chromium.call(
            "Page.addScriptToEvaluateOnNewDocument",
            json!({ "source": "const create = navigator.credentials?.create.bind(navigator.credentials); if (create) navigator.credentials.create = (o) => { o.publicKey.pubKeyCredParams = o.publicKey.pubKeyCredParams.filter((p) => p.alg === Number(localStorage.alg)); return create(o); }" }),
        );
        for (alg, kind) in [(-7, "es256"), (-8, "ed25519"), (-257, "rs256")] {
            scene.chromium.open(&scene.url);
            scene
                .chromium
                .evaluate(&format!("localStorage.alg = {alg}"));
            scene.add();
            let state = std::fs::read_to_string(scene.house.path("state/passkeys.state")).unwrap();
            assert!(state.contains(&format!("\"key\":{{\"{kind}\"")), "{state}");
            scene.leave();
            scene.come_back();
            scene.leave();
            scene.chromium.authenticator("clearCredentials", json!({}));
        }
    }

    #[test]
    #[ignore = "needs ci/install browser; run by ci/test --only passkeys"]
    fn a_removed_passkey_is_refused() {
        let mut scene = scene();
        scene.add();
        scene.leave();
        scene.come_back();
        // On the page, by whoever has it: they are out themselves.
        scene
            .chromium
            .evaluate("document.querySelector('[action=\"/passkey/remove\"]').requestSubmit()");
        scene.house.altnetd.wait_for_logout();
        assert!(list_json(&scene.house).is_empty());
        scene.chromium.open(&scene.url);
        scene.is_refused("isn't known here any more");
        // By the command line, while nobody is logged in.
        scene.chromium.authenticator("clearCredentials", json!({}));
        scene.add();
        scene.leave();
        let id = list_json(&scene.house)[0]["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            scene
                .house
                .run(&["passkey", "remove", &id])
                .status
                .success()
        );
        scene.is_refused("isn't known here any more");
    }

    #[test]
    #[ignore = "needs ci/install browser; run by ci/test --only passkeys"]
    fn a_counter_that_goes_back_is_refused() {
        // Without an url the page has the names of its certificate.
        let mut scene = scene_with(false);
        scene.add();
        scene.leave();
        scene.come_back();
        scene.leave();
        let held = scene.chromium.authenticator("getCredentials", json!({}));
        let mut copy = held["credentials"][0].clone();
        assert!(copy["signCount"].as_u64().unwrap() > 1, "{copy}");
        scene.chromium.authenticator("clearCredentials", json!({}));
        copy["signCount"] = 0.into();
        scene
            .chromium
            .authenticator("addCredential", json!({ "credential": copy }));
        scene.is_refused("may have been copied");
    }

    #[test]
    #[ignore = "needs ci/install browser; run by ci/test --only passkeys"]
    fn an_answer_is_good_once_and_for_this_page() {
        let mut scene = scene();
        scene.add();
        scene.leave();
        // What the page's script would send, kept.
        let assertion = |challenge: &str| {
            format!(
                "(async () => {{ const b = (t) => Uint8Array.from(atob(t.replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0)); const t = (x) => btoa(String.fromCharCode(...new Uint8Array(x))).replace(/\\+/g, '-').replace(/\\//g, '_').replace(/=+$/, ''); const c = await navigator.credentials.get({{ publicKey: {{ challenge: b('{challenge}'), rpId: '{HOST}', userVerification: 'required' }} }}); return {{ id: t(c.rawId), client_data: t(c.response.clientDataJSON), authenticator_data: t(c.response.authenticatorData), signature: t(c.response.signature), user: t(c.response.userHandle) }}; }})()"
            )
        };
        let challenge = |scene: &mut Scene| {
            let (status, body) = scene.post("use/begin", &json!({}));
            assert_eq!(status, 200, "{body}");
            let options: Value = serde_json::from_str(&body).unwrap();
            options["challenge"].as_str().unwrap().to_owned()
        };
        // Another page of the same name, at another port, that has this page's challenge.
        let stranger = House::new();
        let (other, elsewhere) = serve(&stranger, &scene.issued, true);
        let stolen = challenge(&mut scene);
        scene.chromium.open(&elsewhere);
        let brought = scene.chromium.evaluate(&assertion(&stolen));
        let url = scene.url.clone();
        scene.chromium.open(&url);
        let (status, body) = scene.post("use", &brought);
        assert_eq!(status, 403);
        assert!(body.contains("came from another page"), "{body}");
        drop(other);
        // One that nobody gave out.
        let invented = scene.chromium.evaluate(&assertion("AAAA"));
        let (status, body) = scene.post("use", &invented);
        assert_eq!(status, 403);
        assert!(body.contains("took too long or was done already"), "{body}");
        // A name that isn't its own.
        let given = challenge(&mut scene);
        let mut changed = scene.chromium.evaluate(&assertion(&given));
        changed["user"] = "AAAA".into();
        let (status, body) = scene.post("use", &changed);
        assert_eq!(
            (status, body.contains("isn't right")),
            (403, true),
            "{body}"
        );
        // Its own, and again.
        let given = challenge(&mut scene);
        let answer = scene.chromium.evaluate(&assertion(&given));
        assert_eq!(scene.post("use", &answer).0, 200);
        assert_eq!(scene.house.altnetd.login()["person"], "ann");
        let (status, body) = scene.post("use", &answer);
        assert_eq!(status, 403);
        assert!(body.contains("took too long or was done already"), "{body}");
        // Without the page's token nothing is done at all.
        let none = scene.chromium.evaluate(
            "fetch('/passkey/use/begin', { method: 'POST', headers: { 'content-type': 'application/json' }, body: '{\"token\":\"\"}' }).then((r) => r.status)",
        );
        assert_eq!(none, 403);
        assert!(!scene.page.addresses.is_empty());
    }

    #[test]
    #[ignore = "needs ci/install browser; run by ci/test --only passkeys"]
    fn another_browser_on_the_device_adds_nothing() {
        let mut scene = scene();
        scene.add();
        scene
            .chromium
            .call("Network.clearBrowserCookies", json!({}));
        let url = scene.url.clone();
        scene.chromium.open(&url);
        scene
            .chromium
            .wait_for_text("log in again with this browser");
        assert_eq!(
            scene
                .chromium
                .evaluate("document.querySelector('#passkey')"),
            Value::Null
        );
        let token = scene
            .chromium
            .evaluate("document.querySelector('[name=token]').value");
        let status = scene.chromium.evaluate(&format!(
            "fetch('/passkey/add/begin', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: JSON.stringify({{ token: {token} }}) }}).then((r) => r.status)"
        ));
        assert_eq!(status, 403);
    }
}
