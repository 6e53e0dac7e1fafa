//! Let's Encrypt's own test server, and a relay that it validates, on loopback.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use altnet_acme::http::Client;
use altnet_core::derp::boxes::SecretKey;
use altnet_core::derp::handshake::ServerIdentity;
use altnet_core::derp::server::ServerLimits;
use altnet_relay::acme::Folder;
use altnet_relay::certificate::Certificate;
use altnet_relay::client::{Connection, ConnectionError, Target};
use altnet_relay::server::{Admission, Admit, Options, Relay};
use altnet_relay::trust::Trust;
use altnet_wire::derp::info::ClientInfo;
use hyper::Request;
use instant_acme::{BodyWrapper, HttpClient as _};
use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

/// How long a server may take to come up, and a certificate to come.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The name that leads to the relay.
pub const NAME: &str = "relay.altnet.test";

/// Where `ci/install acme` unpacks it: beside the build.
fn tools() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("ci-tools/pebble/usr/bin")
}

/// A process that is ended and waited for when it goes out of scope.
pub struct Process(Child);

impl Process {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let out = File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn();
        Self(child.unwrap_or_else(|e| panic!("{command:?}: {e}; run ci/install acme")))
    }

    /// Tells it to end, and waits until it has.
    pub fn end(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.0.wait().unwrap().success()
    }

    /// As when the power goes.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ports that nobody has now.
fn free_ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    held.map(|one| one.local_addr().unwrap().port())
}

/// Pebble, with its own DNS server that says that every name leads here.
pub struct Authority {
    home: PathBuf,
    port: u16,
    management: u16,
    client: Client,
    _processes: [Process; 2],
}

impl Authority {
    /// Validates at `tls_port`; its certificates are good for so long.
    pub fn start(home: &Path, tls_port: u16, life_s: u64) -> Self {
        let home = home.join("pebble");
        fs::create_dir(&home).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        fs::write(home.join("ca.pem"), own.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(home.join("key.pem"), key.serialize_pem()).unwrap();
        let [port, management, dns, dns_management] = free_ports();
        let profile = json!({ "description": "all", "validityPeriod": life_s });
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": home.join("ca.pem"), "privateKey": home.join("key.pem"),
            "httpPort": 9, "tlsPort": tls_port, "keyAlgorithm": "ecdsa",
            "retryAfter": { "authz": 1, "order": 1 },
            "profiles": { "default": profile },
        }});
        fs::write(home.join("config.json"), config.to_string()).unwrap();
        let mut names = Command::new(tools().join("pebble-challtestsrv"));
        names.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", ""]);
        names.args(["-defaultIPv6", ""]);
        names.arg("-dnsserver").arg(format!("127.0.0.1:{dns}"));
        names
            .arg("-management")
            .arg(format!("127.0.0.1:{dns_management}"));
        let names = Process::start(&mut names, &home.join("dns.log"));
        let mut pebble = Command::new(tools().join("pebble"));
        pebble
            .arg("-strict")
            .arg("-config")
            .arg(home.join("config.json"));
        pebble.arg("-dnsserver").arg(format!("127.0.0.1:{dns}"));
        // It would wait before it validates, and not validate again what it has validated.
        pebble
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0");
        // By chance it would refuse one nonce in twenty, and three in a row end an attempt.
        pebble.env("PEBBLE_WFE_NONCEREJECT", "1");
        let pebble = Process::start(&mut pebble, &home.join("pebble.log"));
        for port in [port, management, dns_management] {
            wait_for("Pebble", || {
                TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
            });
        }
        let client = Client::new(Some(&home.join("ca.pem"))).unwrap();
        Self {
            home,
            port,
            management,
            client,
            _processes: [pebble, names],
        }
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("pebble.log")).unwrap()
    }

    async fn manage(&self, path: &str, body: Option<String>) -> Vec<u8> {
        let url = format!("https://127.0.0.1:{}{path}", self.management);
        let request = Request::builder().uri(url);
        let request = match body {
            Some(body) => request
                .method("POST")
                .body(BodyWrapper::from(body.into_bytes())),
            None => request.body(BodyWrapper::default()),
        };
        let answer = self.client.request(request.unwrap()).await;
        let mut answer = answer.unwrap_or_else(|e| panic!("{path}: {e}"));
        let body = answer.body.into_bytes().await.unwrap();
        assert!(answer.parts.status.is_success(), "{path}: {body:?}");
        body.to_vec()
    }

    /// Who trusts nobody else.
    pub async fn trust(&self) -> Trust {
        let text = self.manage("/roots/0", None).await;
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&text).unwrap())
            .unwrap();
        Trust::Roots(Arc::new(roots))
    }

    /// Has it say of a certificate (PEM) that it is to be renewed between two dates.
    pub async fn say_window(&self, certificate: &str, start: &str, end: &str) {
        let window = json!({ "suggestedWindow": { "start": start, "end": end } });
        let body = json!({ "certificate": certificate, "ariResponse": window.to_string() });
        self.manage("/set-renewal-info/", Some(body.to_string()))
            .await;
    }
}

/// A folder with a configuration for altnet-acme.
pub struct Home {
    pub path: PathBuf,
    pub folder: PathBuf,
}

impl Home {
    pub fn new(path: &Path, authority: &Authority) -> Self {
        let folder = path.join("acme");
        let text = format!(
            "names = [\"{NAME}\"]\nagree_to_terms = true\ncontact = [\"anna@altnet.test\"]\n\
             directory = \"https://127.0.0.1:{}/dir\"\nca = {:?}\nfolder = {folder:?}\n",
            authority.port,
            authority.home.join("ca.pem"),
        );
        fs::write(path.join("acme.toml"), text).unwrap();
        Self {
            path: path.to_owned(),
            folder,
        }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_altnet-acme"));
        command
            .args(words)
            .arg("--config")
            .arg(self.path.join("acme.toml"));
        command
    }

    /// `altnet-acme run`.
    pub fn keep(&self) -> Process {
        Process::start(
            &mut self.command(&["run", "--log", "debug"]),
            &self.path.join("run.log"),
        )
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path.join("run.log")).unwrap_or_default()
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    pub fn status(&self) -> Value {
        let said = self.run(&["status", "--json"]);
        let text = String::from_utf8_lossy(&said.stdout);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }

    /// The certificate that there is, once it is another one than `before`.
    pub fn another(&self, before: Option<&str>) -> String {
        let what = format!("another certificate; {}", self.log());
        wait_for(&what, || {
            let status = self.folder.exists().then(|| self.status())?;
            let hash = status["certificate"]["sha256"].as_str()?.to_owned();
            (Some(hash.as_str()) != before).then_some(hash)
        })
    }

    pub fn certificate(&self) -> String {
        let text = fs::read_to_string(self.folder.join("certificate.pem")).unwrap();
        let at = text.find("-----BEGIN CERTIFICATE").unwrap();
        text[at..].to_owned()
    }

    pub fn answers(&self) -> usize {
        let files = fs::read_dir(&self.folder).unwrap();
        let paths = files.map(|file| file.unwrap().path());
        paths.filter(|path| Folder::is_challenge(path)).count()
    }
}

/// A relay that looks into a folder.
pub struct Served {
    pub address: SocketAddr,
    relay: Relay,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.relay.stop();
    }
}

pub async fn serve(home: &Path, acme: Option<&Path>) -> Served {
    let own = Certificate::self_signed(&home.join("own"), &[NAME.into()]).unwrap();
    let identity = ServerIdentity::new(SecretKey::new([1; 32]), None);
    let shown = match acme {
        Some(folder) => own.shown_until(&identity.public(), Folder::new(folder), Arc::new(|_| ())),
        None => own.shown(&identity.public()),
    };
    let relay = Relay::new(identity, Options::new(ServerLimits::ROUTER)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let admit: Admit = Arc::new(|_, _| Box::pin(std::future::ready(Admission::Client)));
    let (serving, tls) = (relay.clone(), shown.unwrap().config());
    tokio::spawn(async move { serving.serve(listener, tls, admit).await });
    Served { address, relay }
}

impl Served {
    pub async fn connect(&self, key: u8, trust: &Trust) -> Result<Connection, ConnectionError> {
        let target = Target {
            host: NAME.into(),
            port: self.address.port(),
            addresses: vec![self.address.ip()],
            trust: trust.clone(),
            key: None,
            proxy: None,
        };
        Connection::connect(&target, SecretKey::new([key; 32]), ClientInfo::default()).await
    }
}
