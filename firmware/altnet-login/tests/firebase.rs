//! Firebase: tokens signed by the test, keys and accounts served by the test; and the emulator.

mod common;

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use common::{Browser, House, Page, Server, free_port};
use data_encoding::BASE64URL_NOPAD;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

const KEY: &[u8] = include_bytes!("data/signing-key-of-tests.pk8");

fn now() -> u64 {
    altnet_login::state::now()
}

/// The accounts of a project, as its servers tell them.
struct Accounts {
    groups: Value,
    disabled: bool,
    valid_since: u64,
    refuses_refresh: bool,
}

#[derive(Clone)]
struct Project(Arc<Mutex<Accounts>>);

fn claims() -> Value {
    json!({
        "iss": "https://securetoken.google.com/home", "aud": "home", "sub": "uid-ann",
        "iat": now(), "exp": now() + 3600, "auth_time": now() - 5,
        "email": "Ann@example.com", "email_verified": true, "groups": ["staff"],
    })
}

fn sign(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(header), part(claims));
    let key = RsaKeyPair::from_pkcs8(KEY).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        signed.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature))
}

fn token(change: Value) -> String {
    let mut claims = claims();
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    sign(&json!({ "alg": "RS256", "kid": "one" }), &claims)
}

impl Project {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Accounts {
            groups: json!(["staff"]),
            disabled: false,
            valid_since: 0,
            refuses_refresh: false,
        })))
    }

    fn with(&self, change: impl FnOnce(&mut Accounts)) {
        change(&mut self.0.lock().unwrap());
    }

    fn answer(&self, path: &str, body: &str) -> (u16, Value) {
        let accounts = self.0.lock().unwrap();
        let refusal =
            |message: &str| (400, json!({ "error": { "code": 400, "message": message } }));
        match path.split('?').next().unwrap() {
            "/keys" => {
                let key = RsaKeyPair::from_pkcs8(KEY).unwrap();
                let public: PublicKeyComponents<Vec<u8>> = key.public().into();
                let (n, e) = (
                    BASE64URL_NOPAD.encode(&public.n),
                    BASE64URL_NOPAD.encode(&public.e),
                );
                (
                    200,
                    json!({ "keys": [{ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": "one", "n": n, "e": e }] }),
                )
            }
            "/v1/accounts:signInWithPassword" => {
                let body: Value = serde_json::from_str(body).unwrap();
                if (&body["email"], &body["password"])
                    != (&"ann@example.com".into(), &"right".into())
                {
                    return refusal("INVALID_LOGIN_CREDENTIALS");
                }
                if accounts.disabled {
                    return refusal("USER_DISABLED");
                }
                let token = token(json!({ "groups": accounts.groups }));
                (
                    200,
                    json!({ "idToken": token, "refreshToken": "again", "localId": "uid-ann" }),
                )
            }
            "/v1/accounts:lookup" => {
                let user = json!({ "localId": "uid-ann", "disabled": accounts.disabled, "validSince": accounts.valid_since.to_string() });
                (200, json!({ "users": [user] }))
            }
            "/token" => match accounts.refuses_refresh {
                true => refusal("TOKEN_EXPIRED"),
                false => {
                    assert_eq!(body, "grant_type=refresh_token&refresh_token=again");
                    let token = token(json!({ "groups": accounts.groups }));
                    (200, json!({ "id_token": token, "refresh_token": "again" }))
                }
            },
            other => (404, json!({ "not": other })),
        }
    }
}

struct Scene {
    house: House,
    page: Page,
    project: Project,
    server: Server,
}

fn scene(head: &str) -> Scene {
    let house = House::new();
    let project = Project::new();
    let kept = project.clone();
    let server = Server::start(Arc::new(move |path, body| kept.answer(path, body)));
    let at = server.address;
    let section = format!(
        "[[firebase]]\nname = \"Our app\"\nproject = \"home\"\napi_key = \"key\"\nkeys_url = \"http://{at}/keys\"\nidentity_url = \"http://{at}\"\ntoken_url = \"http://{at}/token\"\ngroups = {{ staff = \"team\", guests = \"guests\" }}\npeople = {{ uid-ann = \"ann\" }}\n"
    );
    house.configure(head, &section);
    let page = house.serve();
    Scene {
        house,
        page,
        project,
        server,
    }
}

impl Scene {
    fn log_in(&self) {
        let mut browser = Browser::new("127.0.0.2");
        let fields = [("email", "ann@example.com"), ("password", "right")];
        let reply = browser.submit(&self.page, "/firebase/1", &fields);
        assert_eq!(reply.status, 303, "{}", reply.body);
        let login = self.house.altnetd.login();
        assert_eq!(
            (&login["person"], &login["groups"]),
            (&"ann".into(), &json!(["team"]))
        );
        assert_eq!(login["how"], "firebase Our app");
    }

    #[track_caller]
    fn check(&self, token: &str, status: u16, says: &str) {
        let mut browser = Browser::new("127.0.0.2");
        // A device may be wrong five times a minute: each case is one of its own.
        let url = format!("http://{}/firebase/1", self.page.addresses[0]);
        let body = json!({ "id_token": token }).to_string();
        let reply = browser.send("POST", &url, "application/json", &body);
        assert_eq!(reply.status, status, "{}", reply.body);
        assert!(reply.body.contains(says), "{}", reply.body);
    }
}

#[test]
fn a_password_or_a_token_logs_in() {
    let scene = scene("");
    scene.log_in();
    scene.check(&token(json!({})), 200, "logged_in");
    // A form with a token, from the page of an app that runs here.
    let mut browser = Browser::new("127.0.0.3");
    let reply = browser.submit(
        &scene.page,
        "/firebase/1",
        &[("id_token", &token(json!({})))],
    );
    assert_eq!(reply.status, 303, "{}", reply.body);
}

#[test]
fn a_wrong_password_lets_nobody_in() {
    let scene = scene("");
    let fields = [("email", "ann@example.com"), ("password", "wrong")];
    let reply = Browser::new("127.0.0.2").submit(&scene.page, "/firebase/1", &fields);
    assert_eq!(reply.status, 403);
    assert!(reply.body.contains("isn&#39;t right"), "{}", reply.body);
    assert!(scene.house.altnetd.with(|told| told.calls.is_empty()));
}

#[test]
fn a_forged_token_lets_nobody_in() {
    let scene = scene("");
    let good = token(json!({}));
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let swapped: String = signature.chars().rev().collect();
    scene.check(&format!("{signed}.{swapped}"), 403, "isn't right");
    let header = json!({ "alg": "none", "kid": "one" });
    let unsigned = sign(&header, &claims());
    let (unsigned, _) = unsigned.rsplit_once('.').unwrap();
    scene.check(&format!("{unsigned}."), 403, "isn't right");
    let symmetric = sign(&json!({ "alg": "HS256", "kid": "one" }), &claims());
    scene.check(&symmetric, 403, "isn't right");
    let other_key = sign(&json!({ "alg": "RS256", "kid": "two" }), &claims());
    scene.check(&other_key, 403, "isn't right");
    assert!(scene.house.altnetd.with(|told| told.calls.is_empty()));
}

#[test]
fn a_token_for_another_project_lets_nobody_in() {
    let scene = scene("");
    scene.check(&token(json!({ "aud": "away" })), 403, "isn't right");
    let issuer = json!({ "iss": "https://securetoken.google.com/away" });
    scene.check(&token(issuer), 403, "isn't right");
    scene.check(&token(json!({ "sub": "" })), 403, "isn't right");
}

#[test]
fn an_expired_token_lets_nobody_in() {
    let scene = scene("");
    scene.check(&token(json!({ "exp": now() - 61 })), 403, "expired");
}

#[test]
fn nobody_new_comes_in_without_keys() {
    let scene = scene("");
    scene.server.stop();
    scene.check(&token(json!({})), 503, "doesn't answer");
    assert!(scene.house.altnetd.with(|told| told.calls.is_empty()));
}

#[test]
fn an_account_that_was_switched_off_is_out() {
    let scene = scene("");
    scene.log_in();
    scene.project.with(|accounts| accounts.disabled = true);
    scene.house.altnetd.wait_for_logout();
    scene.check(&token(json!({})), 403, "revoked");
}

#[test]
fn tokens_that_were_revoked_are_out() {
    let scene = scene("");
    scene.log_in();
    scene
        .project
        .with(|accounts| accounts.valid_since = now() + 1);
    scene.house.altnetd.wait_for_logout();
}

#[test]
fn a_refresh_token_that_has_expired_is_out() {
    let scene = scene("");
    scene.log_in();
    scene
        .project
        .with(|accounts| accounts.refuses_refresh = true);
    scene.house.altnetd.wait_for_logout();
}

#[test]
fn who_left_a_group_is_out_of_it() {
    let scene = scene("");
    scene.log_in();
    scene
        .project
        .with(|accounts| accounts.groups = json!(["guests", "unmapped"]));
    let is_guest = |login: &Value| login["groups"] == json!(["guests"]) && login["person"] == "ann";
    scene
        .house
        .altnetd
        .wait(|told| told.logins.values().any(is_guest));
}

#[test]
fn a_directory_that_is_gone_holds_for_the_grace() {
    // Long enough for the test.
    let patient = scene("grace_minutes = 60");
    patient.log_in();
    let strict = scene("grace_minutes = 0");
    strict.log_in();
    for scene in [&patient, &strict] {
        scene.server.stop();
    }
    strict.house.altnetd.wait_for_logout();
    assert_eq!(patient.house.altnetd.login()["person"], "ann");
    // And over a restart, of both.
    drop(patient.page);
    patient.house.altnetd.with(|told| told.logins.clear());
    let _page = patient.house.serve();
    patient.house.altnetd.wait(|told| !told.logins.is_empty());
}

struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[ignore = "needs ci/install firebase; run by ci/test --all"]
fn the_emulator_logs_in() {
    let tools = altnet_tools("firebase");
    let house = House::new();
    let port = free_port();
    let config = json!({ "emulators": { "auth": { "port": port, "host": "127.0.0.1" }, "ui": { "enabled": false } } });
    house.write("firebase.json", config.to_string());
    let emulator = Command::new(tools.join("node_modules/.bin/firebase"))
        .args([
            "emulators:start",
            "--only",
            "auth",
            "--project",
            "demo-home",
        ])
        .current_dir(house.home.path())
        .env("CI", "1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _emulator = Emulator(emulator);
    let address = format!("127.0.0.1:{port}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(90);
    while std::net::TcpStream::connect(&address).is_err() {
        assert!(
            std::time::Instant::now() < until,
            "the emulator doesn't start"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let call = |path: &str, body: Value| {
        let mut browser = Browser::new("127.0.0.1");
        browser.more = "authorization: Bearer owner\r\n".into();
        let url = format!("http://{address}/identitytoolkit.googleapis.com/v1/{path}");
        let reply = browser.send("POST", &url, "application/json", &body.to_string());
        assert_eq!(reply.status, 200, "{}", reply.body);
        serde_json::from_str::<Value>(&reply.body).unwrap()
    };
    let ann = json!({ "email": "ann@example.com", "password": "right-one" });
    let made = call("accounts:signUp?key=any", ann);
    let id = made["localId"].as_str().unwrap().to_owned();
    let update = |change: Value| {
        let mut body = change;
        body["localId"] = id.as_str().into();
        call("projects/demo-home/accounts:update", body)
    };
    update(json!({ "customAttributes": "{\"groups\":[\"staff\"]}" }));
    house.configure("", &format!("[[firebase]]\nname = \"Emulated\"\nproject = \"demo-home\"\napi_key = \"any\"\nemulator_host = \"{address}\"\ngroups = {{ staff = \"team\", guests = \"guests\" }}\n"));
    let page = house.serve();
    let mut browser = Browser::new("127.0.0.2");
    assert!(browser.front(&page).body.contains("emulator for tests"));
    let wrong = [("email", "ann@example.com"), ("password", "wrong")];
    assert_eq!(browser.submit(&page, "/firebase/1", &wrong).status, 403);
    let right = [("email", "ann@example.com"), ("password", "right-one")];
    let reply = browser.submit(&page, "/firebase/1", &right);
    assert_eq!(reply.status, 303, "{}", reply.body);
    assert_eq!(house.altnetd.login()["groups"], json!(["team"]));
    update(json!({ "customAttributes": "{\"groups\":[\"guests\"]}" }));
    house.altnetd.wait(|told| {
        told.logins
            .values()
            .any(|l| l["groups"] == json!(["guests"]))
    });
    update(json!({ "disableUser": true }));
    house.altnetd.wait_for_logout();
}

/// Where ci/install puts a group's npm packages.
fn altnet_tools(group: &str) -> std::path::PathBuf {
    common::tools(group, "firebase-tools")
}
