//! What the tests share: a computer of its own with quick keys, what is wished for a relay,
//! ([`house`]) a box before its first boot, ([`programs`]) programs that it runs, ([`running`]) real nodes on loopback, and ([`town`]) records and policies about them.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod house;
pub mod programs;
pub mod running;
pub mod town;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use altnet_provision::network::{BundleWish, InviteWish};
use altnet_provision::sealed::Passphrase;
use altnet_wire::id::Name;
use altnet_wire::record::Roles;
use altnet_wire::time::UnixTime;
use serde_json::Value;
use tempfile::TempDir;

/// When the tests of the library happen.
pub const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// Where a relay is said to be that nobody asks.
pub const RELAY: &str = "203.0.113.10:51820";

pub fn passphrase() -> Passphrase {
    Passphrase::new("correct horse").unwrap().with_less_work(2)
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn wish(called: &str, roles: Roles, endpoints: Vec<SocketAddr>) -> InviteWish {
    InviteWish {
        name: Some(name(called)),
        person: None,
        groups: Vec::new(),
        roles,
        site: None,
        sponsor: None,
        uses: 1,
        lasts: Duration::from_secs(86_400),
        endpoints,
    }
}

/// A relay and directory that countersigns, called relay1.
pub fn relay_wish(endpoint: SocketAddr) -> BundleWish {
    BundleWish {
        invite: wish("relay1", Roles::RELAY | Roles::DIRECTORY, vec![endpoint]),
        admit: true,
    }
}

/// The arguments that make the README's `relay1.bundle`.
pub fn relay_bundle(endpoint: &str) -> [&str; 11] {
    [
        "bundle",
        "--name",
        "relay1",
        "--role",
        "relay",
        "--role",
        "directory",
        "--admit",
        "--endpoint",
        endpoint,
        "--output=relay1.bundle",
    ]
}

/// The arguments that name a machine in a site by its MAC address.
pub fn host_add<'a>(name: &'a str, site: &'a str, mac: &'a str) -> [&'a str; 7] {
    ["host", "add", name, "--site", site, "--mac", mac]
}

/// A person's computer.
pub struct Computer {
    dir: TempDir,
}

impl Computer {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Where networks are kept.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A path outside of that.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_altnet-provision"));
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("ALTNET_HOME", self.home())
            .env("ALTNET_PASSPHRASE", "correct horse")
            .env("ALTNET_TEST_SCRYPT_LOG_N", "2")
            .stdin(std::process::Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs with `--json`, expects exit 0 and returns what was said.
    pub fn json(&self, args: &[&str]) -> Value {
        self.online(&[args, &["--offline"]].concat())
    }

    /// Expects exit 0 and returns standard output.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(&[args, &["--offline"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Expects exit 1, one sentence and a next step, and that nothing changed. Returns both.
    pub fn refused(&self, args: &[&str]) -> String {
        let before = snapshot(&self.home());
        let output = self.run(&[args, &["--offline"]].concat());
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output));
        assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output));
        assert!(said.starts_with("altnet-provision: "), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(!said.contains("panicked"), "{said}");
        // Not assert_eq, which would print every file.
        assert!(
            snapshot(&self.home()) == before,
            "{args:?} changed something"
        );
        said
    }

    /// Runs with `--json`, speaking with the network's directory, and returns what was said.
    pub fn online(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Makes the network `home` with a relay that countersigns. Returns what making it said.
    pub fn with_relay(&self) -> Value {
        self.with_relay_at(RELAY)
    }

    /// The same with the relay at `endpoint`; its first-boot file is `relay1.bundle`.
    pub fn with_relay_at(&self, endpoint: &str) -> Value {
        let made = self.json(&["network", "create", "home"]);
        self.json(&relay_bundle(endpoint));
        made
    }

    /// Writes a file that only this person may read. Returns its path.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }
}

pub fn text(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    text
}

/// Every file under `path` and its bytes; the lock file, which is always empty, left out.
pub fn snapshot(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let Ok(entries) = std::fs::read_dir(path) else {
        return files;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(snapshot(&path));
        } else if entry.file_name() != "lock" {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

/// An image as the builder lays it out, with partitions that hold next to nothing.
pub fn disk_image(table: &str) -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _one = MAKING.lock();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (path, made) = (
        folder.join(format!("image-{table}.img")),
        folder.join(format!("image-{}-{table}.img", std::process::id())),
    );
    let is_new = fs::metadata(&path)
        .and_then(|found| found.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age.as_secs() < 600));
    if is_new {
        return path;
    }
    let script = r#"
import pathlib, sys, tempfile
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from image import disk
with tempfile.TemporaryDirectory(dir=pathlib.Path(sys.argv[3]).parent) as name:
    parts = {}
    for part, at, length in disk.partitions():
        parts[part] = pathlib.Path(name) / part
        label = disk.SLOT_LABEL if part.startswith("slot") else part
        parts[part].write_bytes((bytes(43) + label.encode()).ljust(length - 9, b"\0") + b"the end -")
    disk.assemble(pathlib.Path(sys.argv[3]), "judge", sys.argv[2], "u-boot", parts, {})
"#;
    let builder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../linux-image");
    let run = Command::new("python3")
        .args(["-c", script])
        .args([&builder, Path::new(table), &made])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{said}");
    fs::rename(&made, &path).unwrap();
    path
}
