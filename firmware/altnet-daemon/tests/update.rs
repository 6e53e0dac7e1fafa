//! `altnet update` becomes the `altnet-update` that lies beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn altnet(folder: &Path, words: &[&str]) -> Output {
    let copy = folder.join("altnet");
    fs::copy(env!("CARGO_BIN_EXE_altnet"), &copy).unwrap();
    Command::new(copy).args(words).output().unwrap()
}

#[test]
fn the_words_and_the_outcome_are_those_of_the_program_beside_it() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("altnet-update");
    fs::write(&program, "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 7\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let check = |words: &[&str], expected: &str| {
        let done = altnet(home.path(), words);
        assert_eq!(
            String::from_utf8(done.stdout).unwrap(),
            expected,
            "{words:?}"
        );
        assert_eq!(done.status.code(), Some(7));
    };
    check(&["update", "status"], "<status>");
    check(&["update", "check", "--json"], "<--json><check>");
    check(
        &[
            "--json", "--socket", "/x", "update", "install", "a b", "--reboot",
        ],
        "<--json><install><--reboot><--><a b>",
    );
    check(
        &["update", "rollback", "--no-reboot"],
        "<rollback><--no-reboot>",
    );
}

#[test]
fn where_there_is_none_it_says_what_to_do_instead() {
    let home = tempfile::tempdir().unwrap();
    let done = altnet(home.path(), &["update", "status"]);
    let said = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(
        said.contains("not an altnet image") && said.contains("by packages on OpenWrt"),
        "{said}"
    );
    let help = altnet(home.path(), &["update", "install", "--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        help.contains("--no-reboot") && help.contains("standard input"),
        "{help}"
    );
}
