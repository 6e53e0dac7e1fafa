//! The program on a box made of files.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use altnet_update::manifest::Manifest;
use altnet_wire::time::UnixTime;
use serde_json::Value;

#[path = "../../../altnet-update/tests/common/mod.rs"]
mod common;

#[allow(unused_imports, reason = "each test file uses a part")]
pub use common::{House, SLOT_BYTES, bundle, key, slot};

/// Held while a test runs: a child that another one begins has this one's lock for a moment, until it is its own program.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The calendar of this machine, but no earlier than the image of a [`House`].
pub fn now() -> UnixTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixTime::from_secs(since.unwrap_or_default().as_secs().max(1_795_000_000))
}

/// A bundle that hasn't expired by this machine's clock, after `change`.
pub fn current(fill: u8, signers: &[u8], change: impl Fn(&mut Manifest)) -> Vec<u8> {
    bundle(fill, signers, |manifest| {
        manifest.made = now();
        manifest.not_after = UnixTime::from_secs(now().as_secs() + 1_000_000);
        change(manifest);
    })
}

/// What `altnet-update` said and did.
pub struct Done {
    pub is_good: bool,
    pub out: String,
    pub err: String,
}

impl Done {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            is_good: output.status.success(),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_altnet-update"));
    command.arg("--root").arg(root).args(words);
    command
}

/// Runs the program.
pub fn run(house: &House, words: &[&str]) -> Done {
    let mut command = command(&house.path(""), words);
    command
        .stdin(Stdio::null())
        .output()
        .expect("it runs")
        .into()
}

/// Runs it with this as its standard input.
pub fn run_with(house: &House, words: &[&str], input: &[u8]) -> Done {
    let mut command = command(&house.path(""), words);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    // One that has heard enough doesn't read the rest.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends").into()
}

/// Writes a program, by another one: a file that this process had open for writing can't be run while a child that
/// was begun meanwhile still has it.
fn put_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", write, "sh", script]).arg(path);
    assert!(command.status().unwrap().success());
}

/// Puts a program in the place of the one that boots again, which notes that it was called.
pub fn put_reboot(house: &House) {
    let note = house.path("rebooted");
    let script = format!("#!/bin/sh\necho yes >{}\n", note.display());
    put_program(&house.path("sbin/reboot"), &script);
}
