//! The page as a process of its own, with what is around it: a stand-in for altnetd that keeps what
//! it was told, browsers on several devices, and a server for what a test answers itself.
#![allow(dead_code, missing_docs)] // Each file of tests uses some of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(40);
pub const BINARY: &str = env!("CARGO_BIN_EXE_altnet-login");

/// What altnetd would know.
#[derive(Default)]
pub struct Told {
    /// Every `login` and `logout`, in order.
    pub calls: Vec<(String, Value)>,
    /// Who is logged in, by device.
    pub logins: BTreeMap<String, Value>,
    /// Refuse logins with this message.
    pub refuse: Option<String>,
    connections: Vec<UnixStream>,
}

/// A stand-in for altnetd: devices have made-up MAC addresses, and nothing is forwarded.
#[derive(Clone)]
pub struct Altnetd {
    pub socket: PathBuf,
    told: Arc<(Mutex<Told>, Condvar)>,
}

/// The device with `address`: its last byte.
fn device(address: &str) -> Option<String> {
    let address: IpAddr = address.parse().ok()?;
    let last = match address {
        IpAddr::V4(v4) => v4.octets()[3],
        IpAddr::V6(v6) => v6.octets()[15],
    };
    // 127.0.0.99 is on no LAN.
    (last != 99).then(|| format!("02:00:00:00:00:{last:02x}"))
}

impl Altnetd {
    pub fn start(home: &Path) -> Self {
        let socket = home.join("altnet.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        // As altnetd's: everybody may connect, and it looks at who does.
        fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        let this = Self {
            socket,
            told: Arc::default(),
        };
        let kept = this.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let this = kept.clone();
                this.told
                    .0
                    .lock()
                    .unwrap()
                    .connections
                    .push(stream.try_clone().unwrap());
                thread::spawn(move || this.talk(stream));
            }
        });
        this
    }

    fn talk(&self, stream: UnixStream) {
        let mut write = stream.try_clone().unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let request: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(request["v"], 1);
            let mut answer =
                match self.answer(request["method"].as_str().unwrap(), &request["params"]) {
                    Ok(result) => json!({ "result": result }),
                    Err((code, message)) => {
                        json!({ "error": { "code": code, "message": message, "hint": "ask Ann" } })
                    }
                };
            answer["v"] = 1.into();
            answer["id"] = request["id"].clone();
            if writeln!(write, "{answer}").is_err() {
                return;
            }
        }
    }

    fn answer(&self, method: &str, params: &Value) -> Result<Value, (&str, String)> {
        let mut told = self.told.0.lock().unwrap();
        let found = device(params["address"].as_str().unwrap_or_default());
        let found = found.ok_or(("not-found", "no device has this address".to_owned()));
        let result = match method {
            "whose" => json!({ "device": found? }),
            "login" => {
                let device = found?;
                if let Some(message) = &told.refuse {
                    return Err(("refused", message.clone()));
                }
                told.logins.insert(device.clone(), params.clone());
                json!({ "device": device, "addresses": [params["address"]], "seconds": params["seconds"], "not_counted": ["group <b>"] })
            }
            "logout" => {
                let device = params["device"].as_str().unwrap();
                told.logins.remove(device);
                json!({})
            }
            "logins" => {
                let all: Vec<Value> = told
                    .logins
                    .iter()
                    .map(|(d, l)| json!({ "device": d, "how": l["how"] }))
                    .collect();
                json!({ "logins": all })
            }
            other => panic!("{other} is not in the protocol"),
        };
        if matches!(method, "login" | "logout") {
            told.calls.push((method.into(), params.clone()));
        }
        self.told.1.notify_all();
        Ok(result)
    }

    /// Waits until `what` is true of what was told.
    #[track_caller]
    pub fn wait(&self, what: impl Fn(&Told) -> bool) {
        let told = self.told.0.lock().unwrap();
        let (told, late) = self
            .told
            .1
            .wait_timeout_while(told, PATIENCE, |told| !what(told))
            .unwrap();
        assert!(
            !late.timed_out(),
            "it never happened; told: {:?}",
            told.calls
        );
    }

    #[track_caller]
    pub fn wait_for_logout(&self) {
        self.wait(|told| told.logins.is_empty());
    }

    pub fn with<T>(&self, f: impl FnOnce(&mut Told) -> T) -> T {
        f(&mut self.told.0.lock().unwrap())
    }

    /// The only login there is.
    #[track_caller]
    pub fn login(&self) -> Value {
        self.with(|told| {
            assert_eq!(told.logins.len(), 1, "{:?}", told.logins);
            told.logins.values().next().unwrap().clone()
        })
    }

    pub fn hang_up(&self) {
        // A page listens before it connects.
        let until = Instant::now() + PATIENCE;
        while self.with(|told| told.connections.is_empty()) {
            assert!(Instant::now() < until, "nobody is connected");
            thread::sleep(Duration::from_millis(10));
        }
        for stream in self.with(|told| std::mem::take(&mut told.connections)) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The page, running.
pub struct Page {
    pub addresses: Vec<SocketAddr>,
    pub child: Child,
}

impl Page {
    /// Stops it as altnetd does.
    pub fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(wait_for_end(&mut self.child));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with a configuration, and an altnetd.
pub struct House {
    pub home: tempfile::TempDir,
    pub altnetd: Altnetd,
}

impl House {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let altnetd = Altnetd::start(home.path());
        Self { home, altnetd }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Writes a file that only its owner reads.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// Writes `login.toml`: `head`, what tests need, then `sections`.
    pub fn configure(&self, head: &str, sections: &str) {
        let listen = if head.contains("listen =") {
            ""
        } else {
            "listen = [\"127.0.0.1:0\"]\n"
        };
        let state = self.path("state");
        let text = format!(
            "{head}\n{listen}state_directory = {state:?}\nlook_again_seconds = 1\n{sections}"
        );
        self.write("login.toml", text);
    }

    /// Runs the command line.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("login.toml"));
        command.output().unwrap()
    }

    /// Makes a code and returns it with its id.
    pub fn code(&self, arguments: &[&str]) -> (String, String) {
        let made = self.run(&[&["code", "create", "--json"], arguments].concat());
        assert!(made.status.success(), "{made:?}");
        let made: Value = serde_json::from_slice(&made.stdout).unwrap();
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("code"), text("id"))
    }

    pub fn serve(&self) -> Page {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--log", "debug", "--api"]);
        self.start(command.arg(&self.altnetd.socket))
    }

    /// Serves as another user, which takes root.
    pub fn serve_as(&self, user: &str) -> Page {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--log", "debug", "--user", user, "--api"]);
        self.start(command.arg(&self.altnetd.socket))
    }

    fn start(&self, command: &mut Command) -> Page {
        let mut child = command
            .arg("--config")
            .arg(self.path("login.toml"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut addresses = Vec::new();
        let mut said = Vec::new();
        let is_there = lines.by_ref().map_while(Result::ok).any(|line| {
            let address = line.split("://").nth(1);
            if line.contains("listening on") {
                addresses.push(address.unwrap().parse().unwrap());
            }
            said.push(line);
            said.last().unwrap().contains("the login page is there")
        });
        assert!(is_there, "it did not start: {said:?}");
        thread::spawn(move || {
            lines
                .map_while(Result::ok)
                .for_each(|line| eprintln!("{line}"))
        });
        Page { addresses, child }
    }
}

/// What a server said.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(": "));
        fields
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// The token in the first form.
    #[track_caller]
    pub fn token(&self) -> String {
        let after = self.body.split("name=\"token\" value=\"").nth(1);
        let after = after.unwrap_or_else(|| panic!("no form: {}", self.body));
        after.split('"').next().unwrap().into()
    }
}

/// A browser on the device with an address of 127.0.0.0/8.
pub struct Browser {
    from: IpAddr,
    cookies: BTreeMap<String, BTreeMap<String, String>>,
    /// Headers that it sends besides.
    pub more: String,
}

impl Browser {
    pub fn new(from: &str) -> Self {
        Self {
            from: from.parse().unwrap(),
            cookies: BTreeMap::new(),
            more: String::new(),
        }
    }

    pub fn get(&mut self, url: &str) -> Reply {
        self.send("GET", url, "", "")
    }

    pub fn post(&mut self, url: &str, fields: &[(&str, &str)]) -> Reply {
        let body = altnet_login::http::form(fields);
        self.send("POST", url, "application/x-www-form-urlencoded", &body)
    }

    pub fn send(&mut self, method: &str, url: &str, kind: &str, body: &str) -> Reply {
        let rest = url.strip_prefix("http://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let cookies = self.cookies.entry(authority.into()).or_default();
        let pairs: Vec<String> = cookies.iter().map(|(n, v)| format!("{n}={v}")).collect();
        let mut head = format!(
            "{method} /{path} HTTP/1.1\r\nhost: {authority}\r\n{}",
            self.more
        );
        if !pairs.is_empty() {
            head += &format!("cookie: {}\r\n", pairs.join("; "));
        }
        if method == "POST" {
            head += &format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len());
        }
        let to = authority.parse().unwrap();
        let reply = exchange(
            self.from,
            to,
            &format!("{head}connection: close\r\n\r\n{body}"),
        );
        for line in reply.head.lines() {
            let Some((name, value)) = line.split_once(": ") else {
                continue;
            };
            if !name.eq_ignore_ascii_case("set-cookie") {
                continue;
            }
            let (name, value) = value.split(';').next().unwrap().split_once('=').unwrap();
            match value {
                "" => drop(cookies.remove(name)),
                value => drop(cookies.insert(name.into(), value.into())),
            }
        }
        reply
    }

    /// Opens the page, fills in the form for `path` and sends it.
    pub fn submit(&mut self, page: &Page, path: &str, fields: &[(&str, &str)]) -> Reply {
        let base = format!("http://{}", page.addresses[0]);
        // Twice: the first visit brings the cookie that the form is bound to.
        let token = self.get(&base).token();
        let fields = [&[("token", token.as_str())], fields].concat();
        self.post(&format!("{base}{path}"), &fields)
    }

    pub fn front(&mut self, page: &Page) -> Reply {
        self.get(&format!("http://{}/", page.addresses[0]))
    }
}

/// Sends bytes from an address and reads until the other end is done.
pub fn exchange(from: IpAddr, to: SocketAddr, request: &str) -> Reply {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(to),
        socket2::Type::STREAM,
        None,
    )
    .unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may answer and hang up before it has read all.
    let _ = stream.write_all(request.as_bytes());
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Reply {
        status: status.unwrap_or(0),
        body: match head.to_lowercase().contains("transfer-encoding: chunked") {
            true => unchunk(body),
            false => body.into(),
        },
        head: head.into(),
    }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap_or(0);
        out += rest.get(..length).unwrap_or(rest);
        body = rest.get(length + 2..).unwrap_or_default();
    }
    out
}

type Answers = dyn Fn(&str, &str) -> (u16, Value) + Send + Sync;

/// Serves JSON: what `answers` says of a path and a body. Ends with [`Server::stop`] or its drop.
pub struct Server {
    pub address: SocketAddr,
    stop: Arc<Mutex<bool>>,
}

impl Server {
    pub fn start(answers: Arc<Answers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(Mutex::new(false));
        let stopped = Arc::clone(&stop);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if *stopped.lock().unwrap() {
                    return;
                }
                serve_one(stream, &*answers);
            }
        });
        Self { address, stop }
    }

    /// From when this returns nobody answers there.
    pub fn stop(&self) {
        *self.stop.lock().unwrap() = true;
        while TcpStream::connect(self.address).is_ok() {
            thread::yield_now();
        }
    }
}

fn serve_one(stream: TcpStream, answers: &Answers) {
    let mut reader = BufReader::new(&stream);
    let mut first = String::new();
    let mut length = 0;
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) < 3 {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let (status, value) = answers(&path, &String::from_utf8_lossy(&body));
    let text = value.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncache-control: public, max-age=3600\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    let _ = (&stream).write_all((head + &text).as_bytes());
}

/// A port that nobody has now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Waits until a process has ended, and returns whether it did well.
pub fn wait_for_end(child: &mut Child) -> bool {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        assert!(Instant::now() < until, "it never ended");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Where `ci/install GROUP` puts npm packages, if `package` is there.
#[track_caller]
pub fn tools(group: &str, package: &str) -> PathBuf {
    // target/debug/altnet-login, whichever target is meant.
    let target = Path::new(BINARY).ancestors().nth(2).unwrap();
    let tools = target.join("ci-tools").join(format!("npm-{group}"));
    let found = tools.join("node_modules").join(package).exists();
    assert!(
        found,
        "{package} is missing: run `ci/install {group}` first"
    );
    tools
}
