//! The commands as a person types them.

mod common;

use std::os::unix::fs::PermissionsExt;

use altnet_core::invite::{Bundle, Link};
use altnet_wire::record::Roles;
use common::{Computer, RELAY, host_add, relay_bundle, text};

#[test]
fn the_readmes_commands_work_in_order() {
    let computer = Computer::new();
    let said = computer.ok(&["network", "create", "home"]);
    assert!(said.contains("Recovery key"), "{said}");
    computer.ok(&relay_bundle(RELAY));
    let link = computer.ok(&[
        "invite",
        "create",
        "--network",
        "home",
        "--name",
        "house-a",
        "--role",
        "gateway",
        "--site",
        "1",
        "--no-qr",
    ]);
    let link = Link::parse(&link).unwrap();
    let body = link.body().unwrap();
    assert_eq!(body.roles, Roles::GATEWAY);
    assert_eq!(body.site.unwrap().as_u16(), 1);
    assert_eq!(link.entries(), ["203.0.113.10:51820".parse().unwrap()]);
    let file = std::fs::read_to_string(computer.file("relay1.bundle")).unwrap();
    let bundle = Bundle::parse(&file).unwrap();
    assert_eq!(bundle.issuer.unwrap().public(), body.issuer);
    assert_eq!(bundle.roles, Roles::RELAY | Roles::DIRECTORY);
    assert_eq!(bundle.fixed_endpoints.len(), 1);
    computer.ok(&[
        "host",
        "add",
        "--network",
        "home",
        "wiki",
        "--site",
        "2",
        "--mac",
        "02:00:5e:10:00:01",
    ]);
    let hosts = computer.json(&["host", "list"]);
    assert_eq!(hosts["hosts"][0]["fqdn"], "wiki.home.alt");
    assert!(
        hosts["hosts"][0]["address"]
            .as_str()
            .unwrap()
            .ends_with(":2:0:5eff:fe10:1")
    );
}

#[test]
fn a_network_without_a_relay_is_told_what_can_be_one() {
    let computer = Computer::new();
    let output = computer.run(&["network", "create", "home"]);
    let said = text(&output);
    assert!(
        said.contains("one relay") && said.contains("forwards a UDP port"),
        "{said}"
    );
    let said = computer.refused(&["invite", "create", "--name", "house-a"]);
    assert!(
        said.contains("one relay") && said.contains("forwards a UDP port"),
        "{said}"
    );
    let output = computer.run(&["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("no reachable relay"),
        "{}",
        text(&output)
    );
    computer.json(&relay_bundle(RELAY));
    let said = text(&computer.run(&["invite", "create", "--name", "house-a", "--offline"]));
    assert!(!said.contains("A network needs one relay"), "{said}");
    assert!(computer.run(&["doctor"]).status.success());
}

#[test]
fn a_relay_that_nobody_could_reach_is_not_made() {
    let computer = Computer::new();
    computer.json(&["network", "create", "home"]);
    let said = computer.refused(&[
        "bundle", "--name", "relay1", "--role", "relay", "--admit", "-o", "a",
    ]);
    assert!(said.contains("--endpoint IP:PORT"), "{said}");
    let output = computer.run(&relay_bundle("203.0.113.10"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output).contains("the port is missing"),
        "{}",
        text(&output)
    );
    // At home it may be meant so, for a first try; but it is said what it comes to.
    let made = computer.json(&relay_bundle("192.168.1.10:51820"));
    let note = made["notes"][0].as_str().unwrap();
    assert!(note.contains("private address"), "{note}");
}

#[test]
fn secrets_are_on_disk_only_encrypted_and_only_their_owner_may_read_them() {
    let computer = Computer::new();
    let made = computer.json(&["network", "create", "home"]);
    let recovery = made["recovery_key"].as_str().unwrap().replace(' ', "");
    for (path, bytes) in common::snapshot(&computer.home()) {
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let text = String::from_utf8_lossy(&bytes).replace(' ', "");
        assert!(!text.contains(&recovery), "{}", path.display());
    }
    let keys = computer.home().join("home/keys.age");
    assert!(
        std::fs::read(&keys)
            .unwrap()
            .starts_with(b"age-encryption.org/v1\n")
    );
    for dir in ["", "home", "home/records"] {
        let mode = computer
            .home()
            .join(dir)
            .metadata()
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = computer.refused(&host_add("wiki", "1", "02:00:00:00:00:01"));
    assert!(
        said.contains("can be read by others (mode 0644)") && said.contains("chmod 600"),
        "{said}"
    );
    let dir = computer.home().join("home");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = computer.refused(&["members"]);
    assert!(
        said.contains("(mode 0755)") && said.contains("chmod 700"),
        "{said}"
    );
}

#[test]
fn gateways_get_the_next_free_site() {
    let computer = Computer::new();
    computer.with_relay();
    let site = |name: &str, more: &[&str]| {
        let args = [
            &["invite", "create", "--name", name, "--role", "gateway"],
            more,
        ]
        .concat();
        computer.json(&args)["site"].as_u64().unwrap()
    };
    assert_eq!(site("a", &[]), 1);
    assert_eq!(site("b", &["--site", "3"]), 3);
    assert_eq!(site("c", &[]), 2);
    assert_eq!(site("d", &[]), 4);
    let said = computer.refused(&[
        "invite", "create", "--name", "e", "--role", "gateway", "--site", "3",
    ]);
    assert!(said.contains("site 3"), "{said}");
    computer.json(&["invite", "revoke", "b"]);
    assert_eq!(site("f", &[]), 3);
}

#[test]
fn an_invite_is_listed_and_taken_back() {
    let computer = Computer::new();
    computer.with_relay();
    let made = computer.json(&[
        "invite",
        "create",
        "--name",
        "phone",
        "--person",
        "ann",
        "--group",
        "family",
        "--expires",
        "12h",
    ]);
    let key = made["invite"].as_str().unwrap();
    let listed = computer.json(&["invite", "list"]);
    let invites = listed["invites"].as_array().unwrap();
    let one = invites.iter().find(|i| i["name"] == "phone").unwrap();
    assert_eq!(
        (&one["name"], &one["person"], &one["status"]),
        (&"phone".into(), &"ann".into(), &"open".into())
    );
    assert_eq!(one["invite"], key);
    let said = computer.refused(&["invite", "create", "--name", "phone"]);
    assert!(said.contains("phone"), "{said}");
    let gone = computer.json(&["invite", "revoke", &key[..8]]);
    assert_eq!(gone["status"], "revoked");
    computer.refused(&["invite", "revoke", key]);
    computer.refused(&["invite", "revoke", "nobody"]);
}

#[test]
fn a_qr_code_is_drawn_beside_the_link_unless_told_not_to() {
    let computer = Computer::new();
    computer.with_relay();
    let drawn = computer.run(&["invite", "create", "--offline"]);
    assert!(String::from_utf8_lossy(&drawn.stderr).contains('▀'));
    assert_eq!(String::from_utf8_lossy(&drawn.stdout).lines().count(), 1);
    let plain = computer.run(&["invite", "create", "--offline", "--no-qr"]);
    assert!(!String::from_utf8_lossy(&plain.stderr).contains('▀'));
    assert!(Link::parse(&String::from_utf8_lossy(&plain.stdout)).is_ok());
}

#[test]
fn a_host_moves_within_its_site_and_is_given_up() {
    let computer = Computer::new();
    computer.with_relay();
    let prefix = computer.json(&["network", "show"])["prefix"]
        .as_str()
        .unwrap()
        .replace("::/48", "");
    let at = |interface: &str| format!("{prefix}:2::{interface}");
    computer.json(&["host", "add", "wiki", "--site", "2", "--address", &at("5")]);
    let same = computer.json(&["host", "add", "wiki", "--site", "2", "--address", &at("5")]);
    assert_eq!(same["changed"], false);
    let moved = computer.json(&["host", "add", "wiki", "--site", "2", "--address", &at("6")]);
    assert_eq!(
        (&moved["changed"], &moved["address"]),
        (&true.into(), &at("6").into())
    );
    for bad in [at("1"), format!("{prefix}:3::5"), "2001:db8::1".into()] {
        computer.refused(&["host", "add", "other", "--site", "2", "--address", &bad]);
    }
    let said = computer.refused(&host_add("wiki", "3", "02:00:00:00:00:01"));
    assert!(said.contains("site 2"), "{said}");
    computer.json(&["host", "remove", "wiki"]);
    assert_eq!(
        computer.json(&["host", "list"])["hosts"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    computer.refused(&["host", "remove", "wiki"]);
    computer.json(&host_add("wiki", "3", "02:00:00:00:00:01"));
}

#[test]
fn a_lost_owner_key_is_replaced_with_the_recovery_key() {
    let computer = Computer::new();
    let made = computer.json(&["network", "create", "home"]);
    let recovery = made["recovery_key"].as_str().unwrap();
    let old = made["owners"][0].as_str().unwrap().to_owned();
    computer.json(&host_add("wiki", "2", "02:00:00:00:00:01"));
    let mut slip = recovery.to_owned();
    slip.replace_range(0..1, if slip.starts_with('a') { "b" } else { "a" });
    computer.secret("paper", &slip);
    let said = computer.refused(&[
        "network",
        "owner",
        "recover",
        "--recovery-key-file",
        "paper",
    ]);
    assert!(said.contains("checksum"), "{said}");
    computer.secret("paper", &recovery.to_uppercase());
    let done = computer.json(&[
        "network",
        "owner",
        "recover",
        "--recovery-key-file",
        "paper",
    ]);
    assert_ne!(done["owners"][0]["key"], old.as_str());
    assert_eq!(done["owners"][0]["here"], true);
    assert_eq!(computer.json(&["network", "show"])["id"], made["id"]);
    assert_eq!(computer.json(&["host", "list"])["hosts"][0]["name"], "wiki");
    // The issuer key of this computer was certified anew.
    computer.json(&host_add("www", "2", "02:00:00:00:00:02"));
    let other = Computer::new();
    let stranger = other.json(&["network", "create", "else"])["recovery_key"]
        .as_str()
        .unwrap()
        .to_owned();
    computer.secret("paper", &stranger);
    let said = computer.refused(&[
        "network",
        "owner",
        "recover",
        "--recovery-key-file",
        "paper",
    ]);
    assert!(said.contains("another network"), "{said}");
}

#[test]
fn a_second_owner_joins_in_and_removes_a_stolen_one() {
    let (first, second) = (Computer::new(), Computer::new());
    first.with_relay();
    let stolen = first.json(&["network", "show"]);
    let key = second.json(&["network", "owner", "key"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        second.json(&["network", "owner", "key"])["key"],
        key.as_str()
    );
    let file = second.file("home.share");
    let share = ["network", "share", "-o", file.to_str().unwrap()];
    first.json(&share);
    let said = second.refused(&["network", "owner", "adopt", "home.share"]);
    assert!(said.contains("owner add"), "{said}");
    std::fs::remove_file(&file).unwrap();
    first.json(&["network", "owner", "add", &key]);
    first.refused(&["network", "owner", "add", &key]);
    first.json(&share);
    second.json(&["network", "owner", "adopt", "home.share"]);
    let old = stolen["owners"][0].as_str().unwrap();
    let left = second.json(&["network", "owner", "remove", old]);
    assert_eq!(left["owners"].as_array().unwrap().len(), 1);
    assert_eq!(left["owners"][0]["key"], key.as_str());
    // The relay's key to countersign stands, the stolen computer's issuer key doesn't.
    let issuers = second.json(&["issuer", "list"]);
    let keys: Vec<_> = issuers["issuers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["key"].clone())
        .collect();
    assert_eq!(keys.len(), 2);
    assert!(!keys.contains(&stolen["issuer"]));
    second.json(&["invite", "create", "--name", "house-a", "--role", "gateway"]);
    let said = second.refused(&["network", "owner", "remove", &key]);
    assert!(said.contains("no owner key"), "{said}");
}

#[test]
fn an_issuer_is_certified_listed_and_revoked() {
    let computer = Computer::new();
    computer.json(&["network", "create", "home"]);
    let key = Computer::new().json(&["network", "owner", "key"])["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let made = computer.json(&[
        "issuer", "add", "gate", "--key", &key, "--right", "admit", "--right", "hosts", "--site",
        "4",
    ]);
    assert_eq!(made["rights"], serde_json::json!(["admit", "hosts"]));
    assert_eq!(
        (&made["first_site"], &made["last_site"]),
        (&4.into(), &4.into())
    );
    assert_eq!(
        computer.json(&["issuer", "list"])["issuers"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    computer.json(&["revoke", "--issuer", &key, "--reason", "sold"]);
    assert_eq!(
        computer.json(&["issuer", "list"])["issuers"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    computer.refused(&["revoke", "--issuer", &key]);
    let said = computer.refused(&["issuer", "add", "gate", "--key", &key]);
    assert!(said.contains("revoked"), "{said}");
}

#[test]
fn a_network_is_renamed_and_keeps_its_id() {
    let computer = Computer::new();
    let made = computer.json(&["network", "create", "home"]);
    computer.json(&["network", "rename", "casa"]);
    let shown = computer.json(&["network", "show"]);
    assert_eq!(
        (&shown["name"], &shown["id"]),
        (&"casa".into(), &made["id"])
    );
    computer.refused(&["network", "show", "--network", "home"]);
    computer.json(&["network", "create", "home"]);
    let said = computer.refused(&["network", "show"]);
    assert!(said.contains("casa, home"), "{said}");
    computer.secret("paper", made["recovery_key"].as_str().unwrap());
    let recover = [
        "network",
        "owner",
        "recover",
        "--recovery-key-file",
        "paper",
    ];
    let said = computer.refused(&recover);
    assert!(said.contains("casa, home"), "{said}");
    computer.refused(&["network", "rename", "casa", "--network", "home"]);
    computer.refused(&["network", "create", "home"]);
}

#[test]
fn a_backup_brings_everything_back_and_writes_over_nothing() {
    let computer = Computer::new();
    computer.with_relay();
    computer.json(&host_add("wiki", "2", "02:00:00:00:00:01"));
    computer.json(&["backup", "-o", "home.backup"]);
    computer.refused(&["backup", "-o", "home.backup"]);
    computer.refused(&["restore", "home.backup"]);
    let before = computer.json(&["network", "show"]);
    std::fs::remove_dir_all(computer.home()).unwrap();
    let output = computer
        .command(&["restore", "home.backup"])
        .env("ALTNET_PASSPHRASE", "wrong")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("passphrase does not open"),
        "{}",
        text(&output)
    );
    computer.json(&["restore", "home.backup"]);
    assert_eq!(computer.json(&["network", "show"]), before);
    assert_eq!(computer.json(&["host", "list"])["hosts"][0]["name"], "wiki");
    computer.json(&["invite", "create", "--name", "house-a", "--role", "gateway"]);
}

#[test]
fn the_passphrase_is_changed() {
    let computer = Computer::new();
    computer.json(&["network", "create", "home"]);
    let output = computer
        .command(&["passphrase"])
        .env("ALTNET_NEW_PASSPHRASE", "battery staple")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = computer.refused(&["backup", "-o", "a"]);
    assert!(said.contains("passphrase does not open"), "{said}");
    let path = computer.secret("new", "battery staple\n");
    computer.json(&["backup", "-o", "a", "--passphrase-file", "new"]);
    // One that others may read is no secret, and is told from one that is wrong.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = computer.refused(&["backup", "-o", "b", "--passphrase-file", "new"]);
    assert!(said.contains("chmod 600"), "{said}");
}

#[test]
fn without_a_terminal_a_missing_passphrase_is_one_sentence() {
    let computer = Computer::new();
    let output = computer
        .command(&["network", "create", "home"])
        .env_remove("ALTNET_PASSPHRASE")
        .output()
        .unwrap();
    // With a controlling terminal around the tests, the question would wait for an answer there.
    if std::fs::File::open("/dev/tty").is_err() {
        assert_eq!(output.status.code(), Some(1));
        assert!(
            text(&output).contains("--passphrase-file"),
            "{}",
            text(&output)
        );
    }
    assert!(!computer.home().join("home").exists());
    computer.json(&["network", "create", "home"]);
    if std::fs::File::open("/dev/tty").is_err() {
        let said = computer.refused(&["passphrase"]);
        assert!(
            said.contains("Set ALTNET_NEW_PASSPHRASE") && said.contains("--new-passphrase-file"),
            "{said}"
        );
    }
}

#[test]
fn a_bundle_that_cannot_be_written_changes_nothing() {
    let computer = Computer::new();
    computer.with_relay();
    let bundle = |output| {
        [
            "bundle", "--name", "house-a", "--role", "gateway", "-o", output,
        ]
    };
    let said = computer.refused(&bundle("relay1.bundle"));
    assert!(said.contains("is there already"), "{said}");
    computer.refused(&bundle("no/such/dir"));
    assert_eq!(
        computer.json(&["invite", "list"])["invites"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let made = computer.json(&bundle("house-a.bundle"));
    assert_eq!(
        (&made["site"], &made["admits"]),
        (&1.into(), &serde_json::Value::Null)
    );
}

#[test]
fn failures_are_json_too() {
    let computer = Computer::new();
    let output = computer.run(&["network", "show", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["error"]["code"], "not_found");
    assert!(
        said["error"]["next"]
            .as_str()
            .unwrap()
            .contains("network create")
    );
    let output = computer.run(&["host", "add", "wiki", "--site", "2", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["error"]["code"], "usage");
    let message = said["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("--address") && message.contains("--mac"),
        "{message}"
    );
    assert_eq!(
        computer.json(&["network", "list"])["networks"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

#[test]
fn bash_completes_with_the_script() {
    let computer = Computer::new();
    let script = computer.file("completion");
    std::fs::write(&script, computer.ok(&["completion", "bash"])).unwrap();
    // What bash does when somebody presses the tab key after `invite c`.
    let press = r#"source "$0"
        COMP_WORDS=(altnet-provision invite c) COMP_CWORD=2
        [[ $(complete -p altnet-provision) =~ -F\ ([^\ ]+) ]]
        "${BASH_REMATCH[1]}" altnet-provision c invite
        echo "${COMPREPLY[@]}""#;
    let output = std::process::Command::new("bash")
        .args(["--norc", "-c", press])
        .arg(&script)
        .output()
        .expect("bash runs");
    assert_eq!(text(&output).trim(), "create");
}

#[test]
fn publishing_without_an_address_says_what_to_do() {
    let computer = Computer::new();
    computer.json(&["network", "create", "home"]);
    for command in ["publish", "sync"] {
        let output = computer.run(&[command]);
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output).contains("bundle"), "{}", text(&output));
        // It can't be done without speaking to the directory.
        let said = computer.refused(&[command]);
        assert!(said.contains("Leave --offline out"), "{said}");
    }
}

#[test]
fn two_at_once_wait_for_each_other_and_lose_nothing() {
    let computer = Computer::new();
    computer.with_relay();
    let mut children: Vec<_> = (1..=6)
        .map(|n| {
            let name = format!("m{n}");
            let mac = format!("02:00:00:00:00:0{n}");
            let args = [
                "host",
                "add",
                &name,
                "--site",
                "2",
                "--mac",
                &mac,
                "--offline",
                "--json",
            ];
            let mut command = computer.command(&args);
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    assert!(
        children
            .iter_mut()
            .all(|child| child.wait().unwrap().success())
    );
    assert_eq!(
        computer.json(&["host", "list"])["hosts"]
            .as_array()
            .unwrap()
            .len(),
        6
    );
}
