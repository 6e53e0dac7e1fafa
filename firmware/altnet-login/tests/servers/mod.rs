//! Real servers for the tests: processes on loopback that end with the test, and an openssl CA.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// How long a server may take to come up, and a change to show.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where `ci/install directories` unpacks tools: beside the build.
pub fn tools() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("ci-tools")
}

/// A process that is killed and waited for when it goes out of scope.
pub struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command` and waits until it takes connections on `ports`.
    pub fn start(command: Command, log: &Path, ports: &[u16]) -> Server {
        let takes = |port: &u16| TcpStream::connect(here(*port)).is_ok();
        Server::start_until(command, log, |_| ports.iter().all(takes))
    }

    /// Starts `command` and waits until it has said `words`.
    pub fn start_saying(command: Command, log: &Path, words: &str) -> Server {
        Server::start_until(command, log, |server| server.said().contains(words))
    }

    fn start_until(mut command: Command, log: &Path, is_up: impl Fn(&Server) -> bool) -> Server {
        let out = File::create(log).unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}; run ci/install directories"));
        let mut server = Server {
            child,
            log: log.to_owned(),
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_up(&server) {
            let ended = server.child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                panic!("{command:?} doesn't come up: {}", server.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn stop(self) {}
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn here(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Ports that nobody listens on now, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| TcpListener::bind(here(0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// Runs a command to its end, which must be a good one.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run ci/install directories"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

/// An openssl CA in a folder of its own.
pub struct Ca {
    pub folder: PathBuf,
}

/// A certificate and its key, as PEM files.
#[derive(Clone)]
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Issued {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }
}

impl Ca {
    pub fn new(folder: &Path, subject: &str) -> Ca {
        fs::create_dir_all(folder).unwrap();
        let ca = Ca {
            folder: folder.to_owned(),
        };
        let own = ca.own();
        run(Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "2", "-subj", subject])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args([
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
            ])
            .arg("-keyout")
            .arg(&own.key)
            .arg("-out")
            .arg(&own.certificate));
        ca.prepare();
        ca
    }

    /// A CA whose certificate another one signed.
    pub fn below(above: &Ca, folder: &Path, subject: &str, extensions: &str) -> Ca {
        fs::create_dir_all(folder).unwrap();
        let ca = Ca {
            folder: folder.to_owned(),
        };
        let extensions = format!("basicConstraints=critical,CA:TRUE\n{extensions}");
        let issued = above.issue("below", subject, &extensions);
        fs::copy(issued.certificate, ca.own().certificate).unwrap();
        fs::copy(issued.key, ca.own().key).unwrap();
        ca.prepare();
        ca
    }

    fn prepare(&self) {
        let folder = self.folder.display();
        let config = format!(
            "[ca]\ndefault_ca = it\n[it]\ndatabase = {folder}/index.txt\nserial = {folder}/serial\n\
             crlnumber = {folder}/crlnumber\nnew_certs_dir = {folder}\ncertificate = {folder}/ca.pem\n\
             private_key = {folder}/ca.key\ndefault_md = sha256\ndefault_days = 2\n\
             default_crl_days = 1\npolicy = any\nunique_subject = no\n[any]\ncommonName = supplied\n"
        );
        fs::write(self.folder.join("ca.cnf"), config).unwrap();
        fs::write(self.folder.join("index.txt"), "").unwrap();
        fs::write(self.folder.join("serial"), "A1B2C3D4E5F60718\n").unwrap();
        fs::write(self.folder.join("crlnumber"), "01\n").unwrap();
    }

    /// The CA's own certificate and key.
    pub fn own(&self) -> Issued {
        Issued {
            certificate: self.folder.join("ca.pem"),
            key: self.folder.join("ca.key"),
        }
    }

    fn openssl_ca(&self) -> Command {
        let mut command = Command::new("openssl");
        command.args(["ca", "-batch", "-config"]);
        command.arg(self.folder.join("ca.cnf"));
        command
    }

    pub fn issue(&self, name: &str, subject: &str, extensions: &str) -> Issued {
        self.issue_with(name, subject, extensions, &[])
    }

    /// Issues what has expired years ago.
    pub fn issue_expired(&self, name: &str, subject: &str, extensions: &str) -> Issued {
        let dates = [
            "-startdate",
            "20200101000000Z",
            "-enddate",
            "20210101000000Z",
        ];
        self.issue_with(name, subject, extensions, &dates)
    }

    fn issue_with(&self, name: &str, subject: &str, extensions: &str, args: &[&str]) -> Issued {
        let file = |ending: &str| self.folder.join(format!("{name}.{ending}"));
        let issued = Issued {
            certificate: file("pem"),
            key: file("key"),
        };
        run(Command::new("openssl")
            .args(["req", "-nodes", "-subj", subject])
            .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .arg("-keyout")
            .arg(&issued.key)
            .arg("-out")
            .arg(file("csr")));
        fs::write(file("ext"), extensions).unwrap();
        run(self
            .openssl_ca()
            .args(["-preserveDN", "-notext"])
            .args(args)
            .arg("-extfile")
            .arg(file("ext"))
            .arg("-in")
            .arg(file("csr"))
            .arg("-out")
            .arg(&issued.certificate));
        issued
    }

    pub fn revoke(&self, issued: &Issued) {
        run(self.openssl_ca().arg("-revoke").arg(&issued.certificate));
    }

    /// Writes the list of what is revoked to `path`, as a whole or not at all.
    pub fn write_crl(&self, path: &Path, args: &[&str]) {
        let new = path.with_extension("new");
        run(self
            .openssl_ca()
            .arg("-gencrl")
            .args(args)
            .arg("-out")
            .arg(&new));
        fs::rename(new, path).unwrap();
    }
}
