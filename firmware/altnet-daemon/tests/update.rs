//! `altnet update` becomes the `altnet-update` that lies beside it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Writes a program, by another one: a file that this process had open for writing can't be run while a child that
/// was begun meanwhile still has it.
fn put_program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let write = "printf %s \"$1\" >\"$2\" && chmod 755 \"$2\"";
    let mut command = Command::new("sh");
    command.args(["-c", write, "sh", script]).arg(path);
    assert!(command.status().unwrap().success());
}

/// A folder that has `altnet` in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::hard_link(env!("CARGO_BIN_EXE_altnet"), folder.path().join("altnet")).unwrap();
    folder
}

fn altnet(folder: &Path, words: &[&str]) -> Output {
    let program = folder.join("altnet");
    Command::new(program).args(words).output().unwrap()
}

#[test]
fn the_words_and_the_outcome_are_those_of_the_program_beside_it() {
    let home = folder();
    let program = home.path().join("altnet-update");
    put_program(&program, "#!/bin/sh\nprintf '<%s>' \"$@\"\nexit 7\n");
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
    let home = folder();
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
