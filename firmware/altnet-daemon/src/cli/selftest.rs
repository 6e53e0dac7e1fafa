//! `altnet selftest`: whether this build works on this machine. Needs no altnetd and no network.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use altnet_core::selftest::CHECKS;
use altnet_tunnel::aead::{Aead as _, ChaChaPoly};
use anyhow::{Context as _, ensure};
use serde::Serialize;

use crate::aead::RingAead;
use crate::log;
use crate::store::directory::Directory;
use crate::store::{Store, StoreError, Vfs as _};

/// Lengths at which ciphers change their ways: no byte, blocks of 64 and runs of them, a whole packet.
const LENGTHS: [usize; 8] = [0, 1, 63, 64, 65, 256, 1280, 1420];

/// What came of one check.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    passed: bool,
    fault: Option<String>,
}

impl Outcome {
    fn of(name: &'static str, result: anyhow::Result<()>) -> Self {
        let fault = result.err().map(|e| format!("{e:#}"));
        Self {
            name,
            passed: fault.is_none(),
            fault,
        }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    passed: usize,
    failed: usize,
    checks: Vec<Outcome>,
}

/// Runs every check; what is stored for it is stored below `dir`, and removed.
pub(super) fn run(dir: &Path, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let core = CHECKS
        .iter()
        .map(|check| Outcome::of(check.name, (check.run)().map_err(Into::into)));
    let mut checks: Vec<Outcome> = core.collect();
    checks.push(Outcome::of("fast ChaCha20-Poly1305", ciphers()));
    checks.push(Outcome::of("random numbers", random()));
    checks.push(Outcome::of("storage", storage(dir)));
    report(checks, json, out)
}

fn report(checks: Vec<Outcome>, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let failed: Vec<String> = checks
        .iter()
        .filter_map(|check| Some(format!("{} ({})", check.name, check.fault.as_ref()?)))
        .collect();
    if json {
        let report = Report {
            passed: checks.len() - failed.len(),
            failed: failed.len(),
            checks,
        };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        for check in &checks {
            let verdict = if check.passed { "ok" } else { "FAILED" };
            writeln!(out, "{verdict:<8}{}", check.name)?;
        }
    }
    ensure!(
        failed.is_empty(),
        "this altnet doesn't work here: {}; install the package made for this machine, and look at its memory and its disk if that is the one",
        failed.join("; ")
    );
    Ok(())
}

/// The cipher that packets go through agrees with the portable one.
fn ciphers() -> anyhow::Result<()> {
    let key: [u8; 32] = std::array::from_fn(|i| i as u8);
    let (fast, portable) = (RingAead::new(&key), ChaChaPoly::new(&key));
    for length in LENGTHS {
        let text: Vec<u8> = (0..length).map(|i| i as u8).collect();
        let (mut a, mut b) = (text.clone(), text.clone());
        let tag = fast.seal(7, &mut a)?;
        ensure!(
            tag == portable.seal(7, &mut b)? && a == b,
            "two implementations seal {length} bytes differently"
        );
        a.extend_from_slice(&tag);
        let mut bent = a.clone();
        bent[length / 2] ^= 1;
        fast.open(7, &mut a)?;
        ensure!(a[..length] == text, "{length} bytes open to something else");
        let refused = fast.open(7, &mut bent).is_err();
        ensure!(refused, "{length} bytes that were changed open");
    }
    Ok(())
}

fn random() -> anyhow::Result<()> {
    let (mut a, mut b) = ([0; 32], [0; 32]);
    getrandom::fill(&mut a).context("the system gives no random numbers")?;
    getrandom::fill(&mut b).context("the system gives no random numbers")?;
    ensure!(a != b && a != [0; 32], "they repeat");
    Ok(())
}

/// Whether what is saved is there again, the last of it, and damage is noticed.
fn storage(dir: &Path) -> anyhow::Result<()> {
    let folder = dir.join(format!("selftest-{}", std::process::id()));
    let result = keep(&folder);
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            result.and(Err(e).with_context(|| format!("can't remove {}", folder.display())))
        }
        _ => result,
    }
}

fn keep(folder: &Path) -> anyhow::Result<()> {
    const SLOT: &str = "selftest";
    let old = vec![1; 100];
    let new: Vec<u8> = (0..3000u32).map(|i| i as u8).collect();
    let mut store = Store::open(Directory::open(folder)?)?;
    store.save(SLOT, &old)?;
    store.save(SLOT, &new)?;
    drop(store);
    // What a power cut leaves: a save that was begun.
    let mut directory = Directory::open(folder)?;
    directory.write("selftest.new", &new[..10])?;
    let store = Store::open(directory)?;
    let found = store.load(SLOT)?.context("what was saved is gone")?;
    ensure!(*found == new, "what was saved is something else");
    drop(store);
    let path = folder.join("selftest.slot");
    let mut bytes = fs::read(&path)?;
    bytes[100] ^= 1;
    fs::write(&path, bytes)?;
    let store = Store::open(Directory::open(folder)?)?;
    match store.load(SLOT) {
        Err(StoreError::Damaged { .. }) => Ok(()),
        Err(e) => anyhow::bail!("damage is called something else: {}", log::chain(&e)),
        Ok(_) => anyhow::bail!("damage is not noticed"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, run as altnet};
    use super::*;
    use clap::Parser as _;
    use serde_json::Value;

    #[test]
    fn a_good_build_passes_and_leaves_nothing_behind() {
        let home = tempfile::tempdir().unwrap();
        let line = format!("altnet --json selftest --dir {}", home.path().display());
        let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
        let mut out = Vec::new();
        altnet(arguments, &mut out).unwrap();
        let report: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(report["failed"], 0, "{report}");
        assert_eq!(report["passed"], CHECKS.len() + 3, "{report}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_fails_is_named() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        fs::write(&file, "").unwrap();
        let mut out = Vec::new();
        let error = run(&file, false, &mut out).unwrap_err().to_string();
        assert!(error.contains("storage (can't use "), "{error}");
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("ok      names\n") && out.contains("FAILED  storage\n"));
        let checks = vec![
            Outcome::of("a", Ok(())),
            Outcome::of("b", Err(anyhow::anyhow!("c"))),
        ];
        let error = report(checks, true, &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("doesn't work here: b (c);"));
    }
}
