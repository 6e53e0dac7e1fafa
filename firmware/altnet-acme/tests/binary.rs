//! `altnet-acme` as it is run.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn run(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_altnet-acme"))
        .args(words)
        .arg("--config")
        .arg(folder.join("acme.toml"))
        .output()
        .unwrap()
}

fn refused(folder: &Path, words: &[&str]) -> String {
    let out = run(folder, words);
    assert!(!out.status.success(), "{out:?}");
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn what_it_cannot_do_it_says() {
    let home = tempfile::tempdir().unwrap();
    assert!(refused(home.path(), &["status"]).contains("acme.toml"));
    let file = home.path().join("acme.toml");
    fs::write(&file, "names = [\"relay.altnet.test\"]").unwrap();
    assert!(refused(home.path(), &["check"]).contains("agree_to_terms = true"));
    let folder = home.path().join("acme");
    let text = format!(
        "names = [\"relay.altnet.test\"]\nagree_to_terms = true\nfolder = {folder:?}\ngroup = \"no such group\"\n"
    );
    fs::write(&file, &text).unwrap();
    assert!(run(home.path(), &["check"]).status.success());
    assert!(refused(home.path(), &["status"]).contains("altnet-acme run"));
    assert!(refused(home.path(), &["renew"]).contains("altnet-acme run"));
    assert!(refused(home.path(), &["run"]).contains("no group \"no such group\""));
    assert!(!folder.exists());
    fs::write(&file, format!("ca = \"no.pem\"\n{text}")).unwrap();
    assert!(refused(home.path(), &["check"]).starts_with("altnet-acme: no.pem: can't be read"));
    let out = run(home.path(), &["status", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value["error"]["code"], "failed");
}

#[test]
fn a_folder_without_a_certificate_says_so() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("acme");
    fs::create_dir(&folder).unwrap();
    let text =
        format!("names = [\"relay.altnet.test\"]\nagree_to_terms = true\nfolder = {folder:?}\n");
    fs::write(home.path().join("acme.toml"), text).unwrap();
    let out = run(home.path(), &["status"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(
        said.contains("no certificate for relay.altnet.test yet"),
        "{said}"
    );
    let out = run(home.path(), &["status", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(value["is_good"], false);
    assert!(value["certificate"].is_null());
    let script = run(home.path(), &["completion", "bash"]);
    assert!(
        String::from_utf8(script.stdout)
            .unwrap()
            .contains("altnet-acme")
    );
}
