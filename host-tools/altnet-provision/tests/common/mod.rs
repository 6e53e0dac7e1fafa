//! What the tests of the binary share: a home of its own, quick keys, no network.
#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

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
        let output = self.run(&[args, &["--json", "--offline"]].concat());
        assert!(output.status.success(), "{args:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
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

    /// Makes the network `home` with a relay that countersigns.
    pub fn with_relay(&self) {
        self.json(&["network", "create", "home"]);
        self.json(&[
            "bundle",
            "--network",
            "home",
            "--name",
            "relay1",
            "--role",
            "relay",
            "--role",
            "directory",
            "--admit",
            "--endpoint",
            "203.0.113.10:51820",
            "-o",
            "relay1.bundle",
        ]);
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
