//! Releases as people make and sign them, judged by a box and by a program in another language.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use altnet_update::bundle::Opened;
use common::Computer;
use serde_json::Value;

const RELEASE: &str =
    "board = \"rpi\"\nversion = \"0.2.0\"\ncounter = 12\nfloor = 10\nlasts = \"180d\"\n";

/// Two people's keys, a slot, and the file that images pin.
fn computer() -> (Computer, [String; 2]) {
    let computer = Computer::new();
    let key = |file: &str| {
        let made = computer.json(&["release", "key", "create", "-o", file]);
        made["key"].as_str().unwrap().to_owned()
    };
    let keys = [key("ann.key"), key("bob.key")];
    let pins = format!(
        "generation 1\nthreshold 2\nkey {} Ann\nkey {} Bob\n",
        keys[0], keys[1]
    );
    fs::write(computer.file("pins"), pins).unwrap();
    fs::write(computer.file("release.toml"), RELEASE).unwrap();
    let slot: Vec<u8> = (0..1_500_000u32).map(|n| (n / 1000) as u8).collect();
    fs::write(computer.file("slot"), slot).unwrap();
    (computer, keys)
}

fn sign<'a>(key: &'a str, output: &'a str) -> [&'a str; 9] {
    let slot = "slot";
    [
        "release",
        "sign",
        "release.toml",
        "--slot",
        slot,
        "--key",
        key,
        "-o",
        output,
    ]
}

fn cosign<'a>(slot: &'a str, output: &'a str) -> [&'a str; 9] {
    [
        "release", "cosign", "one", "--slot", slot, "--key", "bob.key", "-o", output,
    ]
}

#[test]
fn two_people_sign_a_release_and_a_box_takes_it() {
    let (computer, keys) = computer();
    let made = computer.json(&sign("ann.key", "one"));
    assert_eq!(
        (&made["version"], &made["counter"]),
        (&Value::from("0.2.0"), &Value::from(12))
    );
    let refused = computer.refused(&["release", "verify", "one", "--keys", "pins"]);
    assert!(
        refused.contains("1 of the 2 signatures that it takes are there"),
        "{refused}"
    );
    let both = computer.json(&cosign("slot", "two"));
    let signatures = both["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 2);
    assert!(
        signatures
            .iter()
            .all(|signature| signature["valid"] == true)
    );
    let verified = computer.json(&[
        "release", "verify", "two", "--keys", "pins", "--slot", "slot",
    ]);
    assert_eq!(verified["verified"], true);
    let said = computer.ok(&["release", "show", "two"]);
    assert!(
        keys.iter()
            .all(|key| said.contains(&format!("signed by   {key}"))),
        "{said}"
    );
    // Except for signatures nothing differs.
    let read = |file: &str| fs::read(computer.file(file)).unwrap();
    let (one, two) = (read("one"), read("two"));
    let manifest = |bundle: &[u8]| Opened::read(bundle).unwrap().manifest_bytes().to_vec();
    assert_eq!(manifest(&one), manifest(&two));
    assert_eq!(one.len() + 96, two.len());
}

#[test]
fn another_language_verifies_what_was_signed() {
    let (computer, keys) = computer();
    computer.json(&sign("ann.key", "one"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/vectors/bundle.py");
    let judge = |key: &str| {
        Command::new("python3")
            .args(["-B", script.to_str().unwrap(), "one", key])
            .current_dir(computer.file(""))
            .output()
    };
    let Ok(said) = judge(&keys[0]) else {
        println!("skipped: there is no python3 here");
        return;
    };
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.status.success() && text.contains("altnet 0.2.0 for rpi"),
        "{said:?}"
    );
    assert!(!judge(&keys[1]).unwrap().status.success());
}

#[test]
fn a_key_is_on_disk_only_encrypted_and_shows_its_public_half() {
    let (computer, keys) = computer();
    let shown = computer.ok(&["release", "key", "show", "ann.key"]);
    assert_eq!(shown.trim(), keys[0]);
    let file = fs::read(computer.file("ann.key")).unwrap();
    assert!(file.starts_with(b"age-encryption.org/v1"));
    let refused = computer.refused(&["release", "key", "create", "-o", "ann.key"]);
    assert!(refused.contains("is there already"), "{refused}");
    assert_eq!(fs::read(computer.file("ann.key")).unwrap(), file);
    let mut other = computer.command(&["release", "key", "show", "ann.key"]);
    let other = other.env("ALTNET_PASSPHRASE", "wrong").output().unwrap();
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(said.contains("the passphrase does not open"), "{said}");
}

#[test]
fn nobody_signs_what_is_another_slot_or_damaged_or_signed_already() {
    let (computer, _) = computer();
    computer.json(&sign("ann.key", "one"));
    let mut other = fs::read(computer.file("slot")).unwrap();
    for (name, change) in [("other", 1_200_000), ("longer", usize::MAX), ("shorter", 0)] {
        match change {
            0 => other.truncate(1 << 20),
            usize::MAX => {
                other = fs::read(computer.file("slot")).unwrap();
                other.push(1);
            }
            at => other[at] ^= 1,
        }
        fs::write(computer.file(name), &other).unwrap();
        let refused = computer.refused(&cosign(name, "two"));
        assert!(refused.contains("is another"), "{name}: {refused}");
    }
    let again = ["release", "cosign", "one", "--key", "ann.key", "-o", "two"];
    let refused = computer.refused(&again);
    assert!(
        refused.contains("the signature of this key already"),
        "{refused}"
    );
    let mut bundle = fs::read(computer.file("one")).unwrap();
    let last = bundle.len() - 1;
    bundle[last] ^= 1;
    fs::write(computer.file("one"), bundle).unwrap();
    let refused = computer.refused(&cosign("slot", "two"));
    assert!(refused.contains("frame 2 of 2 is damaged"), "{refused}");
    assert!(!computer.file("two").exists());
}

#[test]
fn a_slip_in_a_description_is_told() {
    let (computer, _) = computer();
    let refused = |text: String, why: &str| {
        fs::write(computer.file("release.toml"), text).unwrap();
        let output = computer.run(&sign("ann.key", "one"));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(why), "{said}");
        assert!(!computer.file("one").exists());
    };
    refused(
        RELEASE.replace("floor = 10", "floor = 13"),
        "floor 13 is above",
    );
    refused(RELEASE.replace("180d", "for ever"), "is not a duration");
    refused(RELEASE.replace("\"rpi\"", "\"r p i\""), "r p i");
    refused(RELEASE.replace("counter", "conter"), "conter");
    let keys = "[keys]\ngeneration = 2\nthreshold = 1\nkeys = [\"nobody\"]\n";
    refused(format!("{RELEASE}{keys}"), "nobody");
}

#[test]
fn a_release_brings_the_keys_after_these() {
    let (computer, keys) = computer();
    let next = format!(
        "{RELEASE}[keys]\ngeneration = 2\nthreshold = 1\nkeys = [\"{}\"]\n",
        keys[1]
    );
    fs::write(computer.file("release.toml"), next).unwrap();
    let made = computer.json(&sign("ann.key", "one"));
    assert_eq!(made["keys"]["generation"], 2);
    let said = computer.ok(&["release", "show", "one"]);
    assert!(said.contains("generation 2, 1 of 1 key"), "{said}");
}
