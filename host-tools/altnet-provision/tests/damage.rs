//! Files that a disk, a copy or somebody changed: one clear sentence, exit 1, nothing changed.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use altnet_provision::home::Home;
use altnet_provision::network::{HostPlace, Network, adopt, new_owner_key, restore};
use altnet_wire::id::SiteId;
use common::{Computer, NOW, RELAY, host_add, name, passphrase, relay_wish, snapshot};
use proptest::prelude::*;

/// A home with the network `home`, which has a relay, an invite and a host.
fn network(dir: &Path) -> (Home, PathBuf) {
    let home = Home::at(dir.join("home"));
    let made = Network::create(&home, &name("home"), &passphrase(), NOW).unwrap();
    let (mut network, secrets) = (made.network, made.secrets);
    let wish = relay_wish(RELAY.parse().unwrap());
    network.bundle(&secrets, &wish, NOW, |_| Ok(())).unwrap();
    let site = SiteId::new(2).unwrap();
    let place = HostPlace::Mac([2, 0, 0, 0, 0, 1]);
    network
        .add_host(&secrets, &name("wiki"), site, place, NOW)
        .unwrap();
    let path = network.dir().to_path_buf();
    (home, path)
}

/// The files that count. The text of a policy and those that were in force are for looking back:
/// what their damage comes to is in `policy.rs`.
fn counting(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let counts = |path: &Path| {
        !path
            .components()
            .any(|part| part.as_os_str() == "policies" || part.as_os_str() == "policy.toml")
    };
    snapshot(dir)
        .into_iter()
        .filter(|(path, _)| counts(path))
        .collect()
}

/// Opens everything that there is to open.
fn open(dir: &Path) -> altnet_provision::Result<()> {
    Network::open(dir)?.unlock(&passphrase()).map(drop)
}

fn damage(bytes: &[u8], at: usize, flip: u8, truncate: bool) -> Vec<u8> {
    let mut bad = bytes.to_vec();
    let at = at % bytes.len();
    if truncate {
        bad.truncate(at);
    } else {
        bad[at] ^= flip;
    }
    bad
}

fn is_one_sentence(error: &altnet_provision::Error) {
    let said = error.to_string();
    assert!(
        !said.contains('\n') && !said.ends_with('.') && !said.is_empty(),
        "{said}"
    );
    assert!(!error.next_step().is_empty(), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_network_with_any_damaged_file_does_not_open(which: prop::sample::Index, at: usize, flip in 1u8.., truncate: bool) {
        thread_local! {
            static DIR: (tempfile::TempDir, PathBuf) = {
                let dir = tempfile::tempdir().unwrap();
                let path = network(dir.path()).1;
                (dir, path)
            };
        }
        DIR.with(|(_, dir)| {
            let files = counting(dir);
            let (path, bytes) = which.get(&files);
            fs::write(path, damage(bytes, at, flip, truncate)).unwrap();
            let before = snapshot(dir);
            let error = open(dir).unwrap_err();
            is_one_sentence(&error);
            assert!(snapshot(dir) == before);
            fs::write(path, bytes).unwrap();
            open(dir).unwrap();
        });
    }

    #[test]
    fn a_damaged_backup_restores_nothing(at: usize, flip in 1u8.., truncate: bool) {
        thread_local! {
            static BACKUP: Vec<u8> = {
                let dir = tempfile::tempdir().unwrap();
                let network = Network::open(&network(dir.path()).1).unwrap();
                network.backup(&network.unlock(&passphrase()).unwrap(), NOW).unwrap()
            };
        }
        let dir = tempfile::tempdir().unwrap();
        let (home, file) = (Home::at(dir.path().join("home")), dir.path().join("backup"));
        BACKUP.with(|bytes| fs::write(&file, damage(bytes, at, flip, truncate)).unwrap());
        is_one_sentence(&restore(&home, &file, None, &passphrase()).unwrap_err());
        assert!(!home.path().exists());
    }

    #[test]
    fn a_damaged_share_is_not_adopted(at: usize, flip in 1u8..0x80, truncate: bool) {
        thread_local! {
            static SHARE: (tempfile::TempDir, Home, String) = {
                let dir = tempfile::tempdir().unwrap();
                let mut network = Network::open(&network(dir.path()).1).unwrap();
                let other = Home::at(dir.path().join("other"));
                let key = new_owner_key(&other, &passphrase()).unwrap();
                let secrets = network.unlock(&passphrase()).unwrap();
                network.add_owner(&secrets, key, NOW).unwrap();
                let text = network.share().unwrap().to_string();
                (dir, other, text)
            };
        }
        SHARE.with(|(_, home, text)| {
            let bad = damage(text.trim_end().as_bytes(), at, flip, truncate);
            let Ok(bad) = String::from_utf8(bad) else { return };
            let before = snapshot(home.path());
            // White space between lines means nothing.
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            if squeeze(&bad) == squeeze(text) {
                return;
            }
            let error = adopt(home, &bad, None, &passphrase(), NOW).unwrap_err();
            is_one_sentence(&error);
            assert!(snapshot(home.path()) == before);
        });
    }
}

#[test]
fn the_binary_says_so_in_one_sentence_for_each_kind_of_file() {
    let computer = Computer::new();
    computer.with_relay();
    computer.json(&["backup", "-o", "home.backup"]);
    let files = counting(&computer.home());
    for (path, bytes) in &files {
        fs::write(path, damage(bytes, bytes.len() / 2, 1, false)).unwrap();
        for args in [
            &host_add("wiki", "1", "02:00:00:00:00:01")[..],
            &["backup", "-o", "again.backup"],
            &["invite", "create"],
        ] {
            let said = computer.refused(args);
            assert!(said.contains("damaged"), "{}: {said}", path.display());
        }
        assert!(!computer.file("again.backup").exists());
        fs::write(path, bytes).unwrap();
    }
    for (path, bytes) in &files {
        fs::remove_file(path).unwrap();
        computer.refused(&["backup", "-o", "again.backup"]);
        fs::write(path, bytes).unwrap();
    }
    fs::write(computer.file("home.backup"), b"").unwrap();
    let said = computer.refused(&["restore", "home.backup", "--name", "two"]);
    assert!(said.contains("damaged"), "{said}");
}

#[test]
fn what_an_error_says_to_do_brings_the_network_back() {
    let computer = Computer::new();
    computer.with_relay();
    computer.json(&["backup", "-o", "home.backup"]);
    let here = computer.home().join("home");
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("keys.age", |path| fs::write(path, b"age").unwrap()),
        ("keys.age", |path| fs::remove_file(path).unwrap()),
        ("network.json", |path| fs::write(path, b"{").unwrap()),
        ("network.json", |path| fs::remove_file(path).unwrap()),
    ];
    let away = computer.home().join("home.old");
    let command = format!("`mv {} {}`", here.display(), away.display());
    for (file, harm) in harms {
        harm(&here.join(file));
        let said = computer.refused(&["backup", "-o", "again.backup"]);
        assert!(
            said.contains("damaged") && said.contains(&command),
            "{said}"
        );
        let said = computer.refused(&["restore", "home.backup"]);
        assert!(said.contains(&command), "{said}");
        fs::rename(&here, &away).unwrap();
        computer.json(&["restore", "home.backup"]);
        computer.json(&["backup", "-o", "again.backup"]);
        fs::remove_file(computer.file("again.backup")).unwrap();
        fs::remove_dir_all(&away).unwrap();
    }
}

#[test]
fn a_power_cut_between_any_two_steps_leaves_the_old_state_or_the_new() {
    let dir = tempfile::tempdir().unwrap();
    let (_, path) = network(dir.path());
    let before = snapshot(&path);
    let mut network = Network::open(&path).unwrap();
    let secrets = network.unlock(&passphrase()).unwrap();
    let site = SiteId::new(2).unwrap();
    let place = HostPlace::Mac([2, 0, 0, 0, 0, 2]);
    network
        .add_host(&secrets, &name("wiki"), site, place, NOW)
        .unwrap();
    drop(network);
    let after = snapshot(&path);
    let settings = path.join("network.json");
    let new: Vec<_> = after
        .iter()
        .filter(|(file, _)| !before.contains_key(*file))
        .collect();
    let address = |path: &Path| Network::open(path).unwrap().hosts()[0].address;
    let moved = address(&path);
    // New record files are written before the settings name them; old ones go afterwards.
    for (file, bytes) in before.iter().filter(|(file, _)| **file != settings) {
        fs::write(file, bytes).unwrap();
    }
    assert_eq!(address(&path), moved);
    fs::write(&settings, &before[&settings]).unwrap();
    assert_ne!(address(&path), moved);
    for (file, _) in new {
        fs::write(file, b"torn").unwrap();
    }
    let half = path.join(".network.json.0123456789abcdef.tmp");
    fs::write(&half, b"{").unwrap();
    assert_ne!(address(&path), moved);
    // The next change sweeps what never came to count.
    let mut network = Network::open(&path).unwrap();
    let place = HostPlace::Mac([2, 0, 0, 0, 0, 3]);
    network
        .add_host(&secrets, &name("wiki"), site, place, NOW)
        .unwrap();
    assert!(!half.exists());
    let records = fs::read_dir(path.join("records")).unwrap().count();
    assert_eq!(records, network.settings().records.len());
}
