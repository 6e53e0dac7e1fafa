//! Files that come over the LAN rather than with the disk, and the code by which they may.

use altnet_claim::code::Code;
use altnet_provision::image::first_boot::FirstBoot;

use super::*;

/// The files of somebody who claims the box, in a folder of their own.
fn claimed(house: &House, files: &[(&str, &str)]) -> Vec<String> {
    let folder = house.path("claimed");
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
    vec!["claim".into(), folder.display().to_string()]
}

#[test]
fn a_claim_is_taken_whole_joined_with_and_leaves_nothing_to_claim_by() {
    let house = House::new();
    house.answers(&[r#"{ "name": "house-a", "network": "n" }"#]);
    for name in ["claim", "claim-code"] {
        fs::write(house.path("data/etc").join(name), "a secret").unwrap();
    }
    let words = claimed(
        &house,
        &[
            ("first-boot.bundle", BUNDLE),
            ("altnet.toml", CONFIG),
            ("hostname", "house-a\n"),
        ],
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let said = house.ok(&words);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "hostname is taken",
            "altnet.toml is taken",
            "first-boot.bundle is taken",
            "all has its place",
            "services begin again",
            "joined as house-a"
        ]
    );
    assert!(house.path("restarted").exists() && house.read("called") == "house-a\n");
    assert_eq!(house.etc(), ["altnet.toml", "hostname"]);
    assert!(names(&house.path("claimed")).is_empty());
}

#[test]
fn a_claim_with_one_bad_file_changes_nothing_and_says_all_that_is_wrong() {
    let house = House::new();
    fs::write(house.path("data/etc/altnet.toml"), "# as it was\n").unwrap();
    let words = claimed(
        &house,
        &[
            ("first-boot.bundle", BUNDLE),
            ("altnet.toml", "wrong = true\n"),
            ("hostname", "Not A Name\n"),
        ],
    );
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = house.run(&words);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 2, "{said}");
    assert!(lines[0].starts_with("hostname isn't taken: a name has"));
    assert_eq!(lines[1], "altnet.toml isn't taken: altnet.toml:1 is wrong");
    assert_eq!(house.etc(), ["altnet.toml"]);
    assert_eq!(house.read("data/etc/altnet.toml"), "# as it was\n");
    assert!(names(&house.path("claimed")).is_empty() && !house.path("called").exists());
}

#[test]
fn power_that_fails_while_a_claim_is_taken_leaves_each_file_whole_or_absent() {
    let cuts = cut_everywhere(
        |house| {
            claimed(
                house,
                &[("altnet.toml", CONFIG), ("first-boot.bundle", BUNDLE)],
            )
        },
        |house| {
            fs::write(house.path("data/etc/claim-code"), "a secret").unwrap();
            let joined = r#"{ "name": "house-a", "network": "n" }"#;
            house.answers(&[joined, joined]);
        },
        |house, when| {
            for (name, text) in [("altnet.toml", CONFIG), ("first-boot.bundle", BUNDLE)] {
                let path = house.path("data/etc").join(name);
                assert!(
                    !path.exists() || fs::read_to_string(path).unwrap() == text,
                    "{when}"
                );
            }
            if !when.ends_with("again") {
                assert_eq!(house.etc(), ["altnet.toml"], "{when}");
            }
        },
    );
    assert!(cuts > 20, "{cuts}");
}

#[test]
fn a_code_to_be_claimed_by_comes_with_the_disk() {
    let house = House::new();
    let mut files = FirstBoot::default();
    files.claim_code(&Code::new(&[7; 9]));
    house.give(&files);
    assert_eq!(house.ok(&["take"]), "claim-code is taken\n");
    let text = house.read("data/etc/claim-code");
    assert_eq!(Code::parse(text.trim()), Ok(Code::new(&[7; 9])));
    assert!(house.area().iter().all(|byte| *byte == 0));
    house.ok(&["forget"]);
    assert!(house.etc().is_empty());
    fs::create_dir(house.path("altnet")).unwrap();
    fs::write(house.path("altnet/claim-code"), "letmein\n").unwrap();
    let said = house.ok(&["take", house.path("altnet").to_str().unwrap()]);
    assert_eq!(said, "claim-code isn't taken: it is no code\n");
}
