//! What it is called says what it is.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

const BOX: &str = env!("CARGO_BIN_EXE_altnet-box");

fn called(folder: &Path, name: &str, argument: &str) -> Output {
    let path = folder.join(name);
    if !path.exists() {
        symlink(BOX, &path).unwrap();
    }
    Command::new(path).arg(argument).output().unwrap()
}

#[test]
fn a_link_of_each_name_is_that_program() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["altnetd", "altnet"] {
        let said = called(folder.path(), name, "--version").stdout;
        let said = String::from_utf8(said).unwrap();
        assert_eq!(said, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
    // It has no options: its words come over standard input, which is nothing here.
    let tls = called(folder.path(), "altnet-tls", "");
    assert!(!tls.status.success());
    assert!(String::from_utf8_lossy(&tls.stderr).starts_with("altnet-tls: "));
}

#[test]
fn another_name_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let other = called(folder.path(), "box", "--version");
    assert!(!other.status.success() && other.stdout.is_empty());
    assert!(String::from_utf8_lossy(&other.stderr).contains("make a link"));
}

#[test]
fn as_altnet_it_passes_its_own_test() {
    let folder = tempfile::tempdir().unwrap();
    let altnet = called(folder.path(), "altnet", "selftest");
    assert!(altnet.status.success(), "{altnet:?}");
}
