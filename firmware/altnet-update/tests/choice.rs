//! Choices judged by others: the table that boot loaders' scripts are judged by, U-Boot's own tools,
//! and GRUB's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use altnet_update::choice::{Choice, Copied, Format, Slot, Standing};

/// `AB331`: order, tries of A, tries of B, serial; `-` is a copy that isn't good.
fn copied(text: &str) -> Option<Copied> {
    let digits = text.get(2..).unwrap_or_default();
    let digits: Vec<u8> = digits.bytes().map(|octet| octet - b'0').collect();
    let first = match text.get(..2) {
        Some("AB") => Slot::A,
        Some("BA") => Slot::B,
        _ => return None,
    };
    Some(Copied {
        choice: Choice::new(first, digits[0], digits[1]),
        serial: digits[2],
    })
}

fn shown(copied: &Copied) -> String {
    let order = match copied.choice.first {
        Slot::A => "AB",
        Slot::B => "BA",
    };
    let [a, b] = Slot::ALL.map(|slot| copied.choice.tries(slot));
    format!("{order}{a}{b}{}", copied.serial)
}

#[test]
fn the_table_of_cases_holds() {
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../linux-image");
    if !images.exists() {
        println!("skipped: this tree has no images, so no boot loader either");
        return;
    }
    let table = images.join("boot/cases.tsv");
    let table = fs::read_to_string(&table).unwrap_or_else(|e| panic!("{}: {e}", table.display()));
    let mut cases = 0;
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let standing = Standing::of([copied(fields[0]), copied(fields[1])]);
        let (slot, counted) = standing.choice.begun();
        let (target, written) = standing.next(counted);
        let found = [&slot.to_string(), &target.to_string(), &shown(&written)];
        assert_eq!(found, [fields[2], fields[3], fields[4]], "{line}");
        cases += 1;
    }
    assert!(cases > 100, "{cases} cases");
}

fn all() -> Vec<Copied> {
    let mut all = Vec::new();
    for first in Slot::ALL {
        for (a, b, serial) in [(3, 3, 0), (0, 2, 9), (1, 0, 5)] {
            let choice = Choice::new(first, a, b);
            all.push(Copied { choice, serial });
        }
    }
    all
}

/// Runs a tool; `None` if this machine doesn't have it.
fn tool(name: &str, arguments: &[&str]) -> Option<String> {
    let out = match Command::new(name).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: {name} is not installed here; `ci/install update` brings it");
            return None;
        }
        other => other.expect("it runs"),
    };
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{name}: {said}");
    Some(String::from_utf8(out.stdout).expect("text"))
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("written");
        path
    }
}

#[test]
#[ignore = "takes U-Boot's tools: ci/test --only updates"]
fn mkenvimage_makes_the_same_bytes() {
    for copied in all() {
        let folder = Folder::new();
        let text = variables(&copied);
        let from = folder.file("text", text.as_bytes());
        let to = folder.0.path().join("copy");
        let [from, to] = [from, to].map(|path| path.display().to_string());
        if tool("mkenvimage", &["-s", "512", "-p", "0", "-o", &to, &from]).is_none() {
            return;
        }
        assert_eq!(fs::read(to).unwrap(), Format::UBoot.write(&copied));
    }
}

#[test]
#[ignore = "takes U-Boot's tools: ci/test --only updates"]
fn fw_printenv_reads_what_is_written_and_fw_setenv_writes_what_is_read() {
    for copied in all() {
        let folder = Folder::new();
        let copy = folder.file("copy", &Format::UBoot.write(&copied));
        let place = format!("{} 0 0x200\n", copy.display());
        let places = folder.file("fw_env.config", place.as_bytes());
        let places = places.display().to_string();
        let Some(said) = tool("fw_printenv", &["-c", &places]) else {
            return;
        };
        let mut lines: Vec<&str> = said.lines().collect();
        lines.sort();
        assert_eq!(lines, variables(&copied).lines().collect::<Vec<_>>());
        tool("fw_setenv", &["-c", &places, "tries_a", "2"]);
        let mut changed = copied;
        changed.choice = changed.choice.with_tries(Slot::A, 2);
        let found = Format::UBoot.parse(&fs::read(&copy).unwrap());
        assert_eq!(found, Some(changed));
    }
}

#[test]
#[ignore = "takes GRUB's tools: ci/test --only updates"]
fn grub_editenv_reads_what_is_written_and_writes_what_is_read() {
    for copied in all() {
        let folder = Folder::new();
        let block = folder.file("block", &Format::Grub.write(&copied));
        let block = block.display().to_string();
        let Some(said) = tool("grub-editenv", &[&block, "list"]) else {
            return;
        };
        let expected = format!("{}check={}\n", variables(&copied), shown(&copied));
        assert_eq!(said, expected);
        // Changed and changed back, it is GRUB's own bytes.
        let mut changed = copied;
        changed.serial = (copied.serial + 1) % 10;
        for copied in [changed, copied] {
            let serial = format!("serial={}", copied.serial);
            let check = format!("check={}", shown(&copied));
            tool("grub-editenv", &[&block, "set", &serial, &check]);
            let bytes = fs::read(&block).unwrap();
            assert_eq!(bytes, Format::Grub.write(&copied));
            assert_eq!(Format::Grub.parse(&bytes), Some(copied));
        }
    }
}

fn variables(copied: &Copied) -> String {
    let text = shown(copied);
    let (order, digits) = text.split_at(2);
    let digit = |at| &digits[at..=at];
    format!(
        "order={order}\nserial={}\ntries_a={}\ntries_b={}\n",
        digit(2),
        digit(0),
        digit(1)
    )
}
