//! OpenID Connect with the npm package `oidc-provider`, an implementation certified by the OpenID
//! Foundation.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use common::{Browser, House, Page, Reply};
use serde_json::{Value, json};

/// Where the provider sends browsers; the test takes them to where the page really is.
const URL: &str = "http://127.0.0.1:9";

struct Provider {
    child: Child,
    address: String,
    _stdin: ChildStdin,
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Provider {
    fn start(refresh_s: Option<u32>) -> Self {
        let tools = common::tools("directories", "oidc-provider");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/directories/oidc.mjs");
        let mut command = Command::new("node");
        command
            .arg(script)
            .arg(tools)
            .env("REDIRECT_URI", format!("{URL}/oidc/1/callback"));
        if let Some(seconds) = refresh_s {
            command.env("REFRESH_S", seconds.to_string());
        }
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.spawn().expect("node runs: ci/install directories");
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut lines = stdout.lines().map_while(Result::ok);
        let ready = lines.find_map(|line| Some(line.strip_prefix("ready ")?.to_owned()));
        let port = ready.expect("the provider starts");
        // It goes on talking, and would end if nobody listened.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            _stdin: child.stdin.take().unwrap(),
            address: format!("http://127.0.0.1:{port}"),
            child,
        }
    }

    fn control(&self, what: &str) {
        let url = format!("{}/control/{what}", self.address);
        assert_eq!(Browser::new("127.0.0.1").post(&url, &[]).status, 204);
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Scene {
    house: House,
    page: Page,
    provider: Provider,
}

fn scene(head: &str, section: &str, secret: &str, refresh_s: Option<u32>) -> Scene {
    let house = House::new();
    let provider = Provider::start(refresh_s);
    let file = house.write("secret", secret);
    let issuer = &provider.address;
    let scopes = match section.contains("scopes =") {
        true => "",
        false => "scopes = [\"openid\", \"profile\", \"groups\", \"offline_access\"]\n",
    };
    house.configure(
        &format!("url = \"{URL}\"\n{head}"),
        &format!("[[oidc]]\nname = \"Work\"\nissuer = \"{issuer}\"\nclient_id = \"altnet\"\nclient_secret_file = {file:?}\ngroups = {{ staff = \"team\", guests = \"guests\" }}\nperson = \"name\"\n{scopes}{section}"),
    );
    let page = house.serve();
    Scene {
        house,
        page,
        provider,
    }
}

fn usual() -> Scene {
    scene("", "", "a secret of tests +/%\n", None)
}

impl Scene {
    /// Goes where replies lead, and says `password` where it is asked for one.
    fn walk(&self, browser: &mut Browser, from: &str, password: &str) -> Reply {
        let mut url = from.to_owned();
        let mut reply = browser.get(&url);
        for _ in 0..12 {
            if reply.status == 200 && reply.body.contains("who are you?") {
                reply = browser.post(&url, &[("password", password)]);
            }
            let Some(location) = reply.header("location") else {
                break;
            };
            let base = url.split('/').take(3).collect::<Vec<_>>().join("/");
            url = match location.strip_prefix('/') {
                Some(path) => format!("{base}/{path}"),
                None => location.replace(URL, &self.base()),
            };
            reply = browser.get(&url);
        }
        reply
    }

    fn base(&self) -> String {
        format!("http://{}", self.page.addresses[0])
    }

    fn log_in(&self, password: &str) -> Reply {
        let mut browser = Browser::new("127.0.0.2");
        let front = browser.front(&self.page);
        assert!(front.body.contains("Log in with Work"), "{}", front.body);
        self.walk(
            &mut browser,
            &format!("{}/oidc/1/start", self.base()),
            password,
        )
    }

    fn log_in_well(&self) {
        let reply = self.log_in("right");
        assert!(reply.body.contains("logged in as <strong>ann"), "{reply:?}");
        let login = self.house.altnetd.login();
        assert_eq!(
            (&login["person"], &login["groups"]),
            (&"ann".into(), &json!(["team"]))
        );
        assert_eq!(login["how"], "oidc Work");
    }

    fn nobody_came(&self) {
        assert!(self.house.altnetd.with(|told| told.calls.is_empty()));
    }
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_person_logs_in_and_stays() {
    let scene = usual();
    scene.log_in_well();
    // Rounds go by, each with a new refresh token; then the page restarts with the newest.
    scene.provider.control("groups?guests");
    let is_guest = |login: &Value| login["groups"] == json!(["guests"]);
    scene
        .house
        .altnetd
        .wait(|told| told.logins.values().any(is_guest));
    scene.page.stop();
    scene.house.altnetd.with(|told| told.logins.clear());
    let _page = scene.house.serve();
    scene
        .house
        .altnetd
        .wait(|told| told.logins.values().any(is_guest));
    scene.provider.control("groups?staff");
    let is_staff = |login: &Value| login["groups"] == json!(["team"]);
    scene
        .house
        .altnetd
        .wait(|told| told.logins.values().any(is_staff));
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_wrong_password_lets_nobody_in() {
    let scene = usual();
    assert_eq!(scene.log_in("wrong").status, 403);
    scene.nobody_came();
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_wrong_client_secret_lets_nobody_in() {
    let scene = scene("", "", "another", None);
    let reply = scene.log_in("right");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(
        reply.body.contains("Work doesn&#39;t answer"),
        "{}",
        reply.body
    );
    scene.nobody_came();
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_login_is_the_browsers_that_began_it_and_once() {
    let scene = usual();
    let mut browser = Browser::new("127.0.0.2");
    browser.front(&scene.page);
    let began = browser.get(&format!("{}/oidc/1/start", scene.base()));
    let authorize = began.header("location").unwrap().to_owned();
    assert!(
        authorize.contains("code_challenge_method=S256"),
        "{authorize}"
    );
    // Up to where the provider sends the browser back, and no further.
    let mut url = authorize;
    let callback = loop {
        let mut reply = browser.get(&url);
        if reply.status == 200 {
            reply = browser.post(&url, &[("password", "right")]);
        }
        let location = reply.header("location").unwrap().to_owned();
        if let Some(path) = location.strip_prefix(URL) {
            break format!("{}{path}", scene.base());
        }
        url = match location.starts_with('/') {
            true => format!("{}{location}", scene.provider.address),
            false => location,
        };
    };
    // Somebody else's browser, and somebody else's device.
    let mut thief = Browser::new("127.0.0.2");
    thief.front(&scene.page);
    assert_eq!(thief.get(&callback).status, 403);
    assert_eq!(Browser::new("127.0.0.3").get(&callback).status, 403);
    assert_eq!(
        browser.get(&callback.replace("state=", "state=x")).status,
        403
    );
    scene.nobody_came();
    assert_eq!(browser.get(&callback).status, 303);
    assert_eq!(browser.get(&callback).status, 403);
    assert_eq!(scene.house.altnetd.with(|told| told.calls.len()), 1);
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn what_was_revoked_is_out() {
    let scene = usual();
    scene.log_in_well();
    scene.provider.control("revoke");
    scene.house.altnetd.wait_for_logout();
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn what_was_revoked_is_out_without_refresh_tokens_too() {
    let section = "scopes = [\"openid\", \"profile\", \"groups\"]\n";
    let scene = scene("", section, "a secret of tests +/%\n", None);
    scene.log_in_well();
    scene.provider.control("groups?guests");
    let is_guest = |login: &Value| login["groups"] == json!(["guests"]);
    scene
        .house
        .altnetd
        .wait(|told| told.logins.values().any(is_guest));
    scene.provider.control("revoke");
    scene.house.altnetd.wait_for_logout();
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn what_has_expired_is_out() {
    let scene = scene("", "", "a secret of tests +/%\n", Some(4));
    scene.log_in_well();
    scene.house.altnetd.wait_for_logout();
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn who_left_every_group_counts_as_a_person_alone() {
    let scene = usual();
    scene.log_in_well();
    scene.provider.control("groups?");
    let is_bare = |login: &Value| login["groups"] == json!([]) && login["person"] == "ann";
    scene
        .house
        .altnetd
        .wait(|told| told.logins.values().any(is_bare));
}

#[test]
#[ignore = "needs ci/install directories; run by ci/test --only directories"]
fn a_provider_that_is_gone_lets_nobody_new_in_and_holds_for_the_grace() {
    let mut scene = scene("grace_minutes = 0", "", "a secret of tests +/%\n", None);
    scene.log_in_well();
    scene.provider.kill();
    scene.house.altnetd.wait_for_logout();
    let before = scene.house.altnetd.with(|told| told.calls.len());
    // What it said of itself is still known; the browser is sent there, and nobody answers.
    let mut browser = Browser::new("127.0.0.2");
    browser.front(&scene.page);
    let reply = browser.get(&format!("{}/oidc/1/start", scene.base()));
    assert_eq!(reply.status, 303);
    let logins = |told: &mut common::Told| {
        let since = told.calls[before..].iter();
        since.filter(|(method, _)| method == "login").count()
    };
    assert_eq!(scene.house.altnetd.with(logins), 0);
}
