//! Files for a box's first boot, from the image to where the box's own script puts them.

mod claims;
#[path = "../common/mod.rs"]
mod common;

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;

use common::house::{AREA, Cut, House, given, names};

const CONFIG: &str = "[router]\n# a secret line\n";
const BUNDLE: &str =
    "-----BEGIN ALTNET BUNDLE-----\nAAAA a secret too\n-----END ALTNET BUNDLE-----\n";

#[test]
fn what_is_behind_the_data_is_taken_once_and_wiped() {
    let house = House::new();
    house.give(&given(&house, CONFIG));
    assert!(String::from_utf8_lossy(&house.area()).contains("a secret line"));
    let said = house.ok(&["take"]);
    assert_eq!(said, "hostname is taken\naltnet.toml is taken\n");
    assert_eq!(house.etc(), ["altnet.toml", "hostname"]);
    assert_eq!(house.read("data/etc/altnet.toml"), CONFIG);
    assert_eq!(house.read("data/etc/hostname"), "house-a\n");
    let mode = house
        .path("data/etc/altnet.toml")
        .metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(house.area().iter().all(|byte| *byte == 0));
    assert_eq!(house.ok(&["take"]), "");
}

#[test]
fn a_config_that_the_box_refuses_changes_nothing_and_is_kept_to_be_seen() {
    let house = House::new();
    fs::write(house.path("data/etc/altnet.toml"), "# as it was\n").unwrap();
    house.give(&given(&house, "wrong = true\n"));
    let said = house.ok(&["take"]);
    assert!(
        said.contains("altnet.toml isn't taken: altnet.toml:1 is wrong"),
        "{said}"
    );
    assert_eq!(house.read("data/etc/altnet.toml"), "# as it was\n");
    assert_eq!(house.read("data/etc/altnet.toml.refused"), "wrong = true\n");
    assert!(house.area().iter().all(|byte| *byte == 0));
}

#[test]
fn an_area_that_is_damaged_is_told_and_takes_nothing() {
    let house = House::new();
    house.give(&given(&house, CONFIG));
    let mut disk = fs::OpenOptions::new()
        .write(true)
        .open(house.path("disk"))
        .unwrap();
    disk.seek(SeekFrom::Start(AREA * 512 + 1300)).unwrap();
    disk.write_all(b"x").unwrap();
    let output = house.run(&["take"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        !output.status.success() && said.contains("damaged"),
        "{said}"
    );
    assert!(house.etc().is_empty());
}

#[test]
fn what_was_copied_by_hand_is_taken_and_what_is_wrong_stays() {
    let house = House::new();
    let copied = house.path("altnet");
    fs::create_dir(&copied).unwrap();
    for (name, text) in [
        ("first-boot.bundle", BUNDLE),
        ("hostname", "house-a\r\n"),
        ("altnet.toml", "wrong = true\n"),
        ("notes.txt", "not ours"),
        ("release-keys", "threshold 1\n"),
    ] {
        fs::write(copied.join(name), text).unwrap();
    }
    let said = house.ok(&["take", copied.to_str().unwrap()]);
    assert!(said.contains("first-boot.bundle is taken"), "{said}");
    assert!(said.contains("release-keys isn't taken"), "{said}");
    assert_eq!(house.etc(), ["first-boot.bundle", "hostname"]);
    assert_eq!(names(&copied), ["altnet.toml", "notes.txt", "release-keys"]);
    for name in ["altnet.toml", "notes.txt", "release-keys"] {
        fs::remove_file(copied.join(name)).unwrap();
    }
    let longest = "a".repeat(63);
    fs::write(copied.join("hostname"), &longest).unwrap();
    house.ok(&["take", copied.to_str().unwrap()]);
    assert_eq!(house.read("data/etc/hostname"), longest);
    assert!(!copied.exists());
    for bad in ["a b", "-a", "\0\0\0\0", "A", "", &format!("{longest}a")] {
        fs::create_dir_all(&copied).unwrap();
        fs::write(copied.join("hostname"), bad).unwrap();
        let said = house.ok(&["take", copied.to_str().unwrap()]);
        assert!(said.contains("hostname isn't taken"), "{bad:?}: {said}");
        assert_eq!(house.read("data/etc/hostname"), longest);
    }
}

/// Runs `words` with a cut at every step, each time on a new house, and once more without; returns at how many
/// steps it was cut.
fn cut_everywhere(
    words: impl Fn(&House) -> Vec<String>,
    prepare: impl Fn(&House),
    check: impl Fn(&House, &str),
) -> usize {
    let mut cuts = 0;
    for kind in [Cut::Before, Cut::Half, Cut::After] {
        for number in 1.. {
            let house = House::new();
            prepare(&house);
            let words = words(&house);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            house.cut(number, kind);
            let output = house.run(&words);
            if output.status.success() {
                break;
            }
            cuts += 1;
            check(
                &house,
                &format!("cut {kind:?} step {number}, before it boots again"),
            );
            house.powered();
            house.ok(&words);
            check(&house, &format!("cut {kind:?} step {number}"));
            assert!(
                house
                    .etc()
                    .iter()
                    .all(|name| !name.starts_with('.') && !name.ends_with(".taken")),
                "{:?}",
                house.etc()
            );
        }
    }
    cuts
}

#[test]
fn power_that_fails_at_any_step_leaves_the_old_config_or_the_new_one_and_no_secret() {
    let old = "# as it was\n";
    let cuts = cut_everywhere(
        |_| vec!["take".into()],
        |house| {
            fs::write(house.path("data/etc/altnet.toml"), old).unwrap();
            house.give(&given(house, CONFIG));
        },
        |house, when| {
            let found = house.read("data/etc/altnet.toml");
            assert!(found == old || found == CONFIG, "{when}: {found}");
            if !when.ends_with("again") {
                assert_eq!(found, CONFIG, "{when}");
                assert!(house.area().iter().all(|byte| *byte == 0), "{when}");
            }
        },
    );
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn power_that_fails_while_a_box_gets_its_first_config_leaves_none_or_a_whole_one() {
    let config = |house: &House| house.path("data/etc/altnet.toml");
    let cuts = cut_everywhere(
        |_| vec!["begin".into()],
        // As a write that was never synced leaves it.
        |house| fs::write(config(house), "").unwrap(),
        |house, when| {
            let found = house.read("data/etc/altnet.toml");
            let may_be_none = when.ends_with("again");
            assert!(
                found == "[router]\n" || (may_be_none && found.is_empty()),
                "{when}: {found}"
            );
        },
    );
    assert!(cuts > 3, "{cuts}");
    let house = House::new();
    fs::write(config(&house), CONFIG).unwrap();
    assert_eq!(house.ok(&["begin"]), "");
    assert_eq!(house.read("data/etc/altnet.toml"), CONFIG);
}

#[test]
fn power_that_fails_while_a_copied_file_is_taken_leaves_it_whole() {
    let cuts = cut_everywhere(
        |house| vec!["take".into(), house.path("altnet").display().to_string()],
        |house| {
            fs::create_dir(house.path("altnet")).unwrap();
            fs::write(house.path("altnet/first-boot.bundle"), BUNDLE).unwrap();
            fs::write(house.path("altnet/altnet.toml"), CONFIG).unwrap();
        },
        |house, when| {
            if !when.ends_with("again") {
                assert_eq!(house.read("data/etc/altnet.toml"), CONFIG, "{when}");
                assert_eq!(house.read("data/etc/first-boot.bundle"), BUNDLE, "{when}");
                assert!(!house.path("altnet").exists(), "{when}");
            }
        },
    );
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_box_joins_as_soon_as_it_is_let_in_and_forgets_its_bundle() {
    let house = House::new();
    fs::write(house.path("data/etc/first-boot.bundle"), BUNDLE).unwrap();
    house.answers(&[
        "",
        r#"{"error":{"code":"timeout","hint":"","message":"nobody answers"}}"#,
        r#"{"error":{"code":"timeout","hint":"","message":"nobody answers"}}"#,
        r#"{"error":{"code":"refused","hint":"","message":"that site has another gateway"}}"#,
        r#"{ "name": "house-a", "network": "n" }"#,
    ]);
    // Nothing said is nobody there.
    fs::rename(house.path("bin/altnet"), house.path("bin/altnet.real")).unwrap();
    house.program(
        "altnet",
        r#"[ "$1" = status ] || [ -n "$(head -n 1 "$HOUSE/answers")" ] || { sed -i 1d "$HOUSE/answers"; exit 1; }
exec altnet.real "$@""#,
    );
    let said = house.ok(&["join"]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "hasn't joined yet: altnetd doesn't answer",
            "hasn't joined yet: nobody answers",
            "hasn't joined yet: that site has another gateway",
            "joined as house-a"
        ]
    );
    assert!(house.etc().is_empty());
    assert_eq!(house.ok(&["join"]), "");
}

#[test]
fn a_bundle_that_is_no_good_is_told_and_kept() {
    let house = House::new();
    fs::write(house.path("data/etc/first-boot.bundle"), BUNDLE).unwrap();
    house.answers(&[
        r#"{"error":{"code":"bad-request","hint":"","message":"the bundle is damaged"}}"#,
    ]);
    let output = house.run(&["join"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"can't join: the bundle is damaged\n");
    assert_eq!(house.etc(), ["first-boot.bundle"]);
}

#[test]
fn power_that_fails_while_a_bundle_is_forgotten_leaves_none() {
    let cuts = cut_everywhere(
        |_| vec!["join".into()],
        |house| {
            fs::write(house.path("data/etc/first-boot.bundle"), BUNDLE).unwrap();
            house.answers(&[
                r#"{ "name": "house-a", "network": "n" }"#,
                r#"{"error":{"code":"already-a-member","hint":"","message":"this node is a member already"}}"#,
            ]);
        },
        |house, when| {
            if !when.ends_with("again") {
                assert!(house.etc().is_empty(), "{when}: {:?}", house.etc());
            }
        },
    );
    assert!(cuts > 6, "{cuts}");
}
