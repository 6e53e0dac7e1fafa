//! Chromium with an authenticator of its own, driven by the Chrome DevTools Protocol over a pipe:
//! JSON that ends with a NUL byte, on descriptors 3 and 4 of the browser.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// A browser with one tab, which has an authenticator.
pub struct Chromium {
    child: Child,
    commands: ChildStdin,
    events: Receiver<Value>,
    last_id: u64,
    session: Option<String>,
    pub authenticator: String,
}

impl Chromium {
    /// Starts it in `folder`. It finds `host` on this machine, and believes the certificate whose
    /// key has the sum `pin`: SHA-256 of its SPKI, in base64.
    pub fn start(folder: &Path, host: &str, pin: &str) -> Self {
        let log = std::fs::File::create(folder.join("chromium.log")).unwrap();
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null",
                "chromium",
            ])
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args([
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-sync",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .arg("--remote-debugging-pipe")
            .arg(format!(
                "--user-data-dir={}",
                folder.join("chromium").display()
            ))
            .arg(format!("--host-resolver-rules=MAP {host} 127.0.0.1"))
            .arg(format!("--ignore-certificate-errors-spki-list={pin}"))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, events) = channel();
        thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                if send
                    .send(serde_json::from_slice(&message).unwrap())
                    .is_err()
                {
                    return;
                }
            }
        });
        let mut this = Self {
            child,
            commands,
            events,
            last_id: 0,
            session: None,
            authenticator: String::new(),
        };
        let tab = this.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": tab["targetId"], "flatten": true });
        let attached = this.call("Target.attachToTarget", attach);
        this.session = Some(attached["sessionId"].as_str().unwrap().into());
        this.call("Page.enable", json!({}));
        this.call("WebAuthn.enable", json!({}));
        let made = this.call(
            "WebAuthn.addVirtualAuthenticator",
            json!({ "options": {
                "protocol": "ctap2", "ctap2Version": "ctap2_1", "transport": "internal",
                "hasResidentKey": true, "hasUserVerification": true, "isUserVerified": true,
                "automaticPresenceSimulation": true,
            }}),
        );
        this.authenticator = made["authenticatorId"].as_str().unwrap().into();
        this
    }

    /// Sends a command and waits for its result.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({ "id": self.last_id, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        write!(self.commands, "{message}\0").expect("chromium is there; see ci/install browser");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let answer = self.events.recv_timeout(left);
            let answer = answer.unwrap_or_else(|e| panic!("{method} has no answer: {e}"));
            if answer["id"] == self.last_id {
                assert!(answer["error"].is_null(), "{method}: {}", answer["error"]);
                return answer["result"].clone();
            }
        }
    }

    /// What the authenticator holds, and other calls about it.
    pub fn authenticator(&mut self, method: &str, mut params: Value) -> Value {
        params["authenticatorId"] = self.authenticator.as_str().into();
        self.call(&format!("WebAuthn.{method}"), params)
    }

    /// The value of an expression in the page; nothing if the page is being replaced.
    pub fn try_evaluate(&mut self, expression: &str) -> Option<Value> {
        let result = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true }),
        );
        let is_good = result["exceptionDetails"].is_null();
        is_good.then(|| result["result"]["value"].clone())
    }

    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let value = self.try_evaluate(expression);
        value.unwrap_or_else(|| panic!("{expression} fails"))
    }

    /// Waits until an expression is true of the page.
    #[track_caller]
    pub fn wait_until(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        while self.try_evaluate(expression) != Some(true.into()) {
            if Instant::now() > until {
                let shown = self.evaluate("document.body.innerText");
                panic!("{expression} is never true: {shown}");
            }
            thread::sleep(STEP);
        }
    }

    #[track_caller]
    pub fn wait_for_text(&mut self, text: &str) {
        self.wait_until(&format!(
            "document.readyState === 'complete' && document.body.innerText.includes({})",
            json!(text)
        ));
    }

    /// Opens a page and waits until it is there.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        // Whatever is there now isn't what is waited for.
        self.try_evaluate("window.isOld = true");
        let opened = self.call("Page.navigate", json!({ "url": url }));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
        self.wait_until("!window.isOld && document.readyState === 'complete'");
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = write!(
            self.commands,
            "{}\0",
            json!({ "id": 0, "method": "Browser.close" })
        );
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(STEP);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
