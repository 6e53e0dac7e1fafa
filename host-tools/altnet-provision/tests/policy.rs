//! `altnet-provision policy ...` as a person types it.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use altnet_core::policy::Draft;
use altnet_provision::home::Home;
use altnet_provision::network::Network;
use common::{Computer, host_add, snapshot, text};
use serde_json::Value;

const WIKI: &str = r#"[sites]
home = 1

[[rules]]
name = "wiki-for-all"
from = ["members"]
to = ["host:wiki"]
services = ["tcp/80", "ping"]
"#;

/// A network with a relay, and a machine called wiki in site 2.
fn home() -> Computer {
    let computer = Computer::new();
    computer.with_relay();
    computer.json(&host_add("wiki", "2", "02:00:00:00:00:01"));
    computer
}

fn working(computer: &Computer) -> PathBuf {
    computer.home().join("home/policy.toml")
}

fn write(computer: &Computer, file: &str, text: &str) {
    std::fs::write(computer.file(file), text).unwrap();
}

fn serial(computer: &Computer) -> u64 {
    computer.json(&["policy", "show"])["serial"]
        .as_u64()
        .unwrap()
}

fn open(computer: &Computer) -> Network {
    let home = Home::at(computer.home());
    Network::open(&home.network(&common::name("home"))).unwrap()
}

#[test]
fn a_new_network_has_a_policy_and_a_head_that_names_it() {
    let computer = Computer::new();
    let said = computer.ok(&["network", "create", "home"]);
    assert!(
        said.contains("members-to-hosts") && said.contains("policy edit"),
        "{said}"
    );
    let network = open(&computer);
    let policy = network.policy().unwrap();
    assert_eq!(policy.draft, Draft::members_to_hosts(policy.draft.issued));
    let (serial, id, _) = network.registry().policy().unwrap();
    let (_, _, head) = network.registry().heads().next().unwrap();
    assert_eq!((head.policy_serial, head.policy), (serial, id.0));
    let mode = working(&computer).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    drop(network);
    let shown = computer.ok(&["policy", "show"]);
    assert!(shown.starts_with("# Who may reach what."), "{shown}");
    let checks = computer.run(&["doctor", "--json"]);
    let checks: Value = serde_json::from_slice(&checks.stdout).unwrap();
    let checks = checks["checks"].as_array().unwrap();
    let policy = checks
        .iter()
        .find(|check| check["check"] == "policy")
        .unwrap();
    assert_eq!(policy["grade"], "ok");
}

#[test]
fn a_policy_is_written_checked_planned_published_and_taken_back() {
    let computer = home();
    write(&computer, "mine.toml", WIKI);
    let checked = computer.json(&["policy", "check", "mine.toml"]);
    assert_eq!(
        (&checked["valid"], &checked["rules"]),
        (&true.into(), &1.into())
    );
    let plan = computer.json(&["policy", "plan", "mine.toml"]);
    assert_eq!(plan["added_rules"], serde_json::json!(["wiki-for-all"]));
    assert_eq!(
        plan["removed_rules"],
        serde_json::json!(["members-to-hosts"])
    );
    assert_eq!(plan["changes"], true);
    // Before any gateway joined there are the machine and its site's others.
    let lost = &plan["loses"][0];
    assert_eq!(
        (&lost["from"][0], &lost["to"][0]),
        (&"site:2".into(), &"host:wiki".into())
    );
    for field in ["services", "rules", "when", "was", "pairs"] {
        assert!(!lost[field].is_null(), "{lost}");
    }
    let said = computer.refused(&["policy", "publish", "mine.toml"]);
    assert!(said.contains("--yes"), "{said}");
    assert_eq!(serial(&computer), 1);
    let done = computer.json(&["policy", "publish", "mine.toml", "--yes"]);
    assert_eq!(
        (&done["serial"], &done["changed"]),
        (&2.into(), &true.into())
    );
    assert_eq!(std::fs::read_to_string(working(&computer)).unwrap(), WIKI);
    assert_eq!(computer.ok(&["policy", "show"]), WIKI);
    let again = computer.json(&["policy", "publish", "--yes"]);
    assert_eq!(
        (&again["serial"], &again["changed"]),
        (&2.into(), &false.into())
    );
    let history = computer.json(&["policy", "history"]);
    let policies = history["policies"].as_array().unwrap();
    assert_eq!(policies.len(), 2);
    assert_eq!(
        (&policies[0]["serial"], &policies[0]["in_force"]),
        (&2.into(), &true.into())
    );
    assert_eq!(policies[1]["signer_name"], "this computer");
    computer.refused(&["policy", "revert", "1"]);
    let back = computer.json(&["policy", "revert", "1", "--yes"]);
    assert_eq!(
        (&back["serial"], &back["reverted_to"]),
        (&3.into(), &1.into())
    );
    let network = open(&computer);
    let policy = network.policy().unwrap();
    assert_eq!(policy.draft, Draft::members_to_hosts(policy.draft.issued));
    drop(network);
    // With its comments, which only this computer has.
    assert!(computer.ok(&["policy", "show"]).contains("Take the # away"));
    assert!(
        computer
            .ok(&["policy", "show", "2"])
            .contains("wiki-for-all")
    );
    let said = computer.refused(&["policy", "revert", "9", "--yes"]);
    assert!(said.contains("no policy 9"), "{said}");
}

#[test]
fn a_bad_policy_is_refused_with_its_line_and_the_last_valid_one_stays() {
    let computer = home();
    let check = |text: &str, said: &str| {
        write(&computer, "bad.toml", text);
        let output = computer.run(&["policy", "check", "bad.toml"]);
        assert_eq!(output.status.code(), Some(1));
        let told = String::from_utf8(output.stdout).unwrap();
        assert!(told.contains(said), "{told}");
        for command in ["plan", "publish"] {
            let told = computer.refused(&["policy", command, "bad.toml"]);
            assert!(told.contains(said.lines().next().unwrap()), "{told}");
        }
        assert_eq!(serial(&computer), 1);
    };
    check(
        &WIKI.replace("wiki\"", "wikki\""),
        "bad.toml:7:7: there is no machine called wikki\n    \"host:wikki\"\n    Did you mean `wiki`?",
    );
    check(
        &WIKI.replace("tcp/80", "http"),
        "bad.toml:8:13: `http` is no service\n    \"http\"\n    Its service is tcp/80.",
    );
    check(
        &WIKI.replace("[\"tcp/80\", \"ping\"]", "[]"),
        "bad.toml:8:12: the rule's services names nothing",
    );
    check(
        &WIKI.replace("from", "form"),
        "bad.toml:6:1: a rule has nothing called `form`",
    );
    check(&WIKI.replace("[[rules]]", "[[rules]"), "bad.toml:4:");
    check(
        &format!("{WIKI}hours = [\"08:00-09:00\"]\n"),
        "bad.toml:9:9: there are hours, but it is not said in which time zone",
    );
    check(
        &format!("timezone = \"Mars/Base\"\n{WIKI}"),
        "bad.toml:1:12: there is no time zone `Mars/Base`",
    );
    check(
        &WIKI.replace("members", "device:tv"),
        "bad.toml:6:9: there is no device called tv",
    );
    let output = computer.run(&["policy", "check", "bad.toml", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["valid"], false);
    let fault = &said["faults"][0];
    assert_eq!((&fault["line"], &fault["column"]), (&6.into(), &9.into()));
    assert!(
        fault["next"]
            .as_str()
            .unwrap()
            .contains("altnet-provision members")
    );
    let output = computer.run(&["policy", "publish", "bad.toml", "--json", "--yes"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["error"]["code"], "policy");
}

#[test]
fn a_policy_is_read_from_standard_input() {
    use std::io::Write;
    use std::process::Stdio;
    let computer = home();
    let mut command = computer.command(&["policy", "publish", "-", "--yes", "--offline"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(WIKI.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(computer.ok(&["policy", "show"]), WIKI);
}

/// Runs `policy edit` with an editor that does `script` with the file `$1`.
fn edit(computer: &Computer, script: &str, args: &[&str]) -> std::process::Output {
    let editor = computer.file("editor");
    std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    computer
        .command(&[&["policy", "edit", "--offline"], args].concat())
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("EDITOR", format!("{} --wait", editor.display()))
        .output()
        .unwrap()
}

#[test]
fn an_edited_policy_waits_until_it_is_right_and_agreed_to() {
    let computer = home();
    let waiting = computer.home().join("home/policy.edited.toml");
    let output = edit(&computer, "true", &[]);
    assert!(
        output.status.success() && !waiting.exists(),
        "{}",
        text(&output)
    );
    assert!(
        text(&output).contains("Nothing was changed"),
        "{}",
        text(&output)
    );
    let output = edit(
        &computer,
        "sed -i 's/\"hosts\"/\"host:wikki\"/' \"$2\"",
        &[],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("no machine called wikki"),
        "{}",
        text(&output)
    );
    assert_eq!(serial(&computer), 1);
    let mode = waiting.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // The next edit goes on with it.
    let output = edit(&computer, "sed -i 's/wikki/wiki/' \"$2\"", &[]);
    assert!(text(&output).contains("nobody agreed"), "{}", text(&output));
    let output = edit(&computer, "true", &["--yes"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(!waiting.exists());
    assert!(computer.ok(&["policy", "show"]).contains("host:wiki"));
    let output = edit(&computer, "exit 3", &[]);
    assert!(text(&output).contains("failed (3)"), "{}", text(&output));
    assert_eq!(serial(&computer), 2);
}

#[test]
fn an_older_text_does_not_come_back_by_oversight() {
    let (first, second) = (home(), Computer::new());
    let key = second.json(&["network", "owner", "key"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    first.json(&["network", "owner", "add", &key]);
    let share = second.file("home.share");
    first.json(&["network", "share", "-o", share.to_str().unwrap()]);
    second.json(&["network", "owner", "adopt", "home.share"]);
    // What another owner signed is written from its record.
    let shown = second.ok(&["policy", "show"]);
    assert!(
        shown.contains("name = \"members-to-hosts\"") && !shown.contains("Take the"),
        "{shown}"
    );
    let said = second.refused(&["policy", "plan"]);
    assert!(said.contains("policy edit"), "{said}");
    write(&first, "mine.toml", WIKI);
    first.json(&["policy", "publish", "mine.toml", "--yes"]);
    // The first text is put back where the author's is, and is known for what it is.
    let old = first.home().join("home/policies/1.toml");
    std::fs::copy(old, working(&first)).unwrap();
    let said = first.refused(&["policy", "publish", "--yes"]);
    assert!(
        said.contains("is policy 1") && said.contains("policy revert 1"),
        "{said}"
    );
    // Changes that were not published make room and are kept.
    std::fs::write(working(&first), "# mine\n").unwrap();
    let done = first.json(&["policy", "publish", "mine.toml", "--yes"]);
    let aside = done["put_aside"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(aside).unwrap(), "# mine\n");
}

#[test]
fn damaged_policy_files_cost_looking_back_and_nothing_else() {
    let computer = home();
    write(&computer, "mine.toml", WIKI);
    computer.json(&["policy", "publish", "mine.toml", "--yes"]);
    let dir = computer.home().join("home/policies");
    for (path, bytes) in snapshot(&dir) {
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            computer.json(&host_add("nas", "2", "02:00:00:00:00:02"));
            computer.ok(&["policy", "show"]);
            let history = computer.json(&["policy", "history"]);
            let is_record = path.extension().unwrap() == "record";
            let damaged = history["damaged"].as_array().unwrap();
            assert_eq!(damaged.len(), usize::from(is_record), "{}", path.display());
            assert_eq!(history["policies"][0]["serial"], 2);
        }
        if path.ends_with("1.record") {
            let said = computer.refused(&["policy", "revert", "1", "--yes"]);
            assert!(
                said.contains("damaged") && said.contains("policy history"),
                "{said}"
            );
        }
        std::fs::write(&path, &bytes).unwrap();
    }
    std::fs::write(dir.join("1.toml"), "what is this").unwrap();
    computer.json(&["policy", "revert", "1", "--yes"]);
    assert!(
        computer
            .ok(&["policy", "show"])
            .contains("members-to-hosts")
    );
    std::fs::write(working(&computer), [0xff, 0xfe]).unwrap();
    let said = computer.refused(&["policy", "publish", "--yes"]);
    assert!(said.contains("damaged: it is not text"), "{said}");
}

#[test]
fn a_backup_brings_the_texts_and_the_history_back() {
    let computer = home();
    write(&computer, "mine.toml", WIKI);
    computer.json(&["policy", "publish", "mine.toml", "--yes"]);
    let before = computer.json(&["policy", "history"]);
    computer.json(&["backup", "-o", "home.backup"]);
    std::fs::remove_dir_all(computer.home()).unwrap();
    computer.json(&["restore", "home.backup"]);
    assert_eq!(computer.json(&["policy", "history"]), before);
    assert_eq!(std::fs::read_to_string(working(&computer)).unwrap(), WIKI);
    computer.json(&["policy", "revert", "1", "--yes"]);
}

#[test]
fn a_policy_stays_in_force_when_its_signer_leaves() {
    let (first, second) = (home(), Computer::new());
    let made = first.json(&["network", "show"]);
    let (owner, issuer) = (
        made["owners"][0].as_str().unwrap(),
        made["issuer"].as_str().unwrap(),
    );
    let key = second.json(&["network", "owner", "key"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    first.json(&["network", "owner", "add", &key]);
    write(&first, "mine.toml", WIKI);
    first.json(&["policy", "publish", "mine.toml", "--yes"]);
    let share = second.file("home.share");
    first.json(&["network", "share", "-o", share.to_str().unwrap()]);
    second.json(&["network", "owner", "adopt", "home.share"]);
    let in_force = |computer: &Computer| open(computer).policy().unwrap();
    let was = in_force(&second);
    let told = second.json(&["revoke", "--issuer", issuer]);
    let is = in_force(&second);
    assert_eq!((is.draft, is.serial), (was.draft, 3));
    assert_eq!(is.signer.to_string(), key);
    assert_eq!(told["policy_signed_anew"]["was"], 2);
    let notes = told["notes"].to_string();
    assert!(
        notes.contains("policy show") && notes.contains("policy history"),
        "{notes}"
    );
    let left = second.json(&["network", "owner", "remove", owner]);
    assert!(left["policy_signed_anew"].is_null(), "{left}");
    assert_eq!(in_force(&second).serial, 3);
}

#[test]
fn a_recovered_network_keeps_its_policy() {
    let computer = home();
    let other = Computer::new();
    let made = other.json(&["network", "create", "home"]);
    drop(computer);
    other.secret("paper", made["recovery_key"].as_str().unwrap());
    // This computer's certificate is signed anew, so its policy stands as it is.
    other.json(&[
        "network",
        "owner",
        "recover",
        "--recovery-key-file",
        "paper",
    ]);
    assert_eq!(serial(&other), 1);
    assert_eq!(
        other.json(&["policy", "history"])["policies"][0]["in_force"],
        true
    );
}

#[test]
fn an_issuer_that_loses_the_right_takes_no_policy_with_it() {
    let computer = home();
    let issuer = computer.json(&["network", "show"])["issuer"]
        .as_str()
        .unwrap()
        .to_owned();
    let less = [
        "issuer", "add", "here", "--key", &issuer, "--right", "admit", "--right", "hosts",
    ];
    let told = computer.json(&less);
    assert_eq!(told["policy_signed_anew"]["is"], 2);
    // The owner's key signs from then on.
    write(&computer, "mine.toml", WIKI);
    assert_eq!(
        computer.json(&["policy", "publish", "mine.toml", "--yes"])["serial"],
        3
    );
}

#[test]
fn a_network_from_before_policies_is_told_and_gets_a_first_one() {
    let computer = home();
    let dir = computer.home().join("home");
    // As it was: no record of a policy, no text.
    let settings = dir.join("network.json");
    let network = open(&computer);
    let (_, id, _) = network.registry().policy().unwrap();
    let mut before = network.settings().clone();
    assert!(before.records.remove(&id.to_string()).is_some());
    drop(network);
    std::fs::write(&settings, before.encode()).unwrap();
    std::fs::remove_dir_all(dir.join("policies")).unwrap();
    std::fs::remove_file(dir.join("policy.toml")).unwrap();
    let output = computer.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("nothing is allowed: the network has no policy"),
        "{}",
        text(&output)
    );
    let members = computer.json(&["members"]);
    assert!(
        members["notes"].to_string().contains("nothing is allowed"),
        "{members}"
    );
    computer.refused(&["policy", "show"]);
    let done = computer.json(&["policy", "publish", "--yes"]);
    assert_eq!((&done["serial"], &done["rules"]), (&1.into(), &1.into()));
    assert!(computer.run(&["doctor"]).status.success());
}

#[test]
fn doctor_says_what_a_policy_names_that_is_gone() {
    let computer = home();
    write(&computer, "mine.toml", WIKI);
    computer.json(&["policy", "publish", "mine.toml", "--yes"]);
    computer.json(&["host", "remove", "wiki"]);
    let said = text(&computer.run(&["doctor"]));
    assert!(
        said.contains("no machine called wiki is in site 2"),
        "{said}"
    );
    // What is in force can still be shown and checked: the name has its site then.
    let shown = computer.ok(&["policy", "show"]);
    assert!(shown.contains("host:wiki@2"), "{shown}");
}

#[test]
fn no_more_than_a_hundred_policies_are_kept() {
    let computer = home();
    let home = Home::at(computer.home());
    let mut network = Network::open(&home.network(&common::name("home"))).unwrap();
    let secrets = network.unlock(&common::passphrase()).unwrap();
    let now = network.policy().unwrap().draft.issued;
    for n in 0..105 {
        let text = WIKI.replace("80", &(1000 + n).to_string());
        let compiled =
            altnet_provision::policy::compile(&text, "p", network.registry(), now).unwrap();
        network
            .publish_policy(&secrets, &text, &compiled, now)
            .unwrap();
    }
    let (history, damaged) = network.policy_history();
    assert_eq!((history.len(), damaged.len()), (100, 0));
    assert_eq!(history[0].serial, 106);
    let files = std::fs::read_dir(network.dir().join("policies"))
        .unwrap()
        .count();
    assert_eq!(files, 200);
}
