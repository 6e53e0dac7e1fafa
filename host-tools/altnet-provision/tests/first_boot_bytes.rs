//! Whatever lies behind a box's data partition, `altnet-first-boot` takes what it is meant to take, or nothing.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use altnet_provision::image::first_boot::AREA_BYTES;
use common::house::{House, given, names};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};

const CONFIG: &str = "[router]\n";

/// An area with this archive, and a first sector that says so truly.
fn area_of(archive: &[u8]) -> Vec<u8> {
    let sum = digest(&SHA256, archive);
    let sum: String = sum.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    let length = archive.len();
    let mut area = format!("altnet first-boot 1\nbytes {length}\nsha256 {sum}\n").into_bytes();
    area.resize(512, 0);
    area.extend_from_slice(archive);
    area.resize(AREA_BYTES, 0);
    area
}

/// Whatever the area holds: what is in `etc` then is a file under one of four names that root alone may read, and nothing
/// else of the house is changed.
fn takes_nothing_else(house: &House) {
    let secret = house.path("secret");
    fs::write(&secret, "as it was").unwrap();
    fs::write(house.path("data/secret"), "as it was").unwrap();
    let before = names(house.folder.path());
    let output = house.run(&["take"]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
    for name in house.etc() {
        let file = house.path("data/etc").join(&name);
        let about = file.symlink_metadata().unwrap();
        assert!(
            about.is_file() && about.permissions().mode() & 0o77 == 0,
            "{name}"
        );
        let ours = [
            "altnet.toml",
            "hostname",
            "release-keys",
            "first-boot.bundle",
        ];
        assert!(ours.contains(&name.trim_end_matches(".refused")), "{name}");
        assert_ne!(fs::read(&file).unwrap(), b"as it was", "{name}");
    }
    assert_eq!(names(&house.path("data")), ["etc", "secret"]);
    assert_eq!(names(house.folder.path()), before);
    assert_eq!(
        (house.read("secret"), house.read("data/secret")),
        ("as it was".into(), "as it was".into())
    );
}

#[test]
fn an_archive_says_nothing_about_where_its_files_go() {
    for words in [
        "ln -s ../../data/secret hostname",
        "ln -s ../../data x; mkdir y; echo b >y/secret; mv x y/x; tar -cf ../archive y/x; rm y/x; mkdir y/x; echo b >y/x/secret; tar -rf ../archive y/x/secret",
        "ln -s ../../data/etc hostname; tar -cf ../archive hostname; rm hostname; mkdir hostname; echo b >hostname/passwd; tar -rf ../archive hostname/passwd",
        "mkdir -p d/hostname; cd d; tar -cPf ../../archive ../../secret hostname",
        "mkfifo hostname; mknod altnet.toml c 1 5; mkdir release-keys",
        "echo a >hostname; chmod 4777 hostname; ln hostname release-keys",
    ] {
        let house = House::new();
        fs::create_dir(house.path("made")).unwrap();
        fs::write(house.path("secret"), "as it was").unwrap();
        let words = format!("{words}; [ -f \"$HOUSE/archive\" ] || tar -cf \"$HOUSE/archive\" *");
        let made = Command::new("sh")
            .args(["-c", &words])
            .env("HOUSE", house.folder.path())
            .current_dir(house.path("made"))
            .output()
            .unwrap();
        let archive = fs::read(house.path("archive")).unwrap_or_else(|e| panic!("{e}: {made:?}"));
        house.put(&area_of(&archive));
        takes_nothing_else(&house);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn an_area_of_any_bytes_is_taken_as_what_it_is_or_not_at_all(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), is_signed: bool,
    ) {
        let house = House::new();
        let mut area = given(&house, CONFIG).area().unwrap().to_vec();
        let length = 4 * 512;
        for (at, value) in changes {
            // What is said, the archive's headers and its files: all that isn't zero.
            let at = at.index(512 + length);
            area[at] = value;
        }
        if is_signed {
            area = area_of(&area[512..512 + length + 1024]);
        }
        house.put(&area);
        fs::remove_file(house.path("altnet.toml")).unwrap();
        takes_nothing_else(&house);
    }
}
