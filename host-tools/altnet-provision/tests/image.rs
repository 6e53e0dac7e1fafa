//! Images: looked at, customized, written and read back. The images are laid out by `linux-image`'s own builder.

mod common;

use std::fs::{self, File};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use altnet_provision::image::first_boot::{AREA_BYTES, FirstBoot};
use altnet_provision::image::table::{HEAD_BYTES, SECTOR, TAIL_BYTES, Table, TableFault};
use altnet_provision::image::write::{Medium, Target, write};
use altnet_provision::image::{CHUNK_BYTES, Image, Plan};
use altnet_provision::{Error, text};
use altnet_wire::id::Name;
use common::{Computer, disk_image as image};
use proptest::prelude::*;
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// What the builder makes, in bytes.
const IMAGE_BYTES: u64 = 225 * MIB;
const TABLES: [&str; 2] = ["mbr", "gpt"];

fn head(path: &Path) -> Vec<u8> {
    let mut head = vec![0; HEAD_BYTES];
    File::open(path).unwrap().read_exact(&mut head).unwrap();
    head
}

fn named() -> FirstBoot {
    let mut files = FirstBoot::default();
    files.hostname(&Name::new("house-a").unwrap());
    files
}

/// Writes an image to a new file and returns that.
fn written(image: &Image, plan: &Plan, folder: &TempDir) -> PathBuf {
    let path = folder.path().join("out");
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .unwrap();
    let mut medium = Medium::blank(file, plan.disk_bytes).unwrap();
    write(image, plan, &mut medium, &path, &mut |_| {}).unwrap();
    path
}

fn scratch() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Compares two files from `from` to `to`, a MiB at a time.
fn same(one: &Path, other: &Path, from: u64, to: u64) {
    let (mut one, mut other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let mut chunks = [vec![0; MIB as usize], vec![0; MIB as usize]];
    let mut at = from;
    while at < to {
        let length = (to - at).min(MIB) as usize;
        for (file, chunk) in [&mut one, &mut other].into_iter().zip(&mut chunks) {
            file.seek(SeekFrom::Start(at)).unwrap();
            file.read_exact(&mut chunk[..length]).unwrap();
        }
        assert!(
            chunks[0][..length] == chunks[1][..length],
            "they differ in the MiB at {at}"
        );
        at += length as u64;
    }
}

fn bytes_at(path: &Path, at: u64, length: usize) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes).unwrap();
    bytes
}

#[test]
fn an_image_packed_or_not_is_the_same_image() {
    let path = image("gpt");
    let folder = scratch();
    let packed = folder.path().join("image.img.zst");
    let mut source = File::open(&path).unwrap();
    ruzstd::encoding::compress(
        &mut source,
        File::create(&packed).unwrap(),
        ruzstd::encoding::CompressionLevel::Fastest,
    );
    let (raw, packed) = (Image::open(&path).unwrap(), Image::open(&packed).unwrap());
    assert_eq!(raw.bytes(), IMAGE_BYTES);
    assert_eq!((raw.bytes(), raw.sum()), (packed.bytes(), packed.sum()));
    let sum = Command::new("sha256sum")
        .arg(&path)
        .output()
        .unwrap()
        .stdout;
    assert!(
        String::from_utf8(sum)
            .unwrap()
            .starts_with(&raw.sum().to_string())
    );
    let plan = packed
        .plan(packed.least_bytes(), &FirstBoot::default())
        .unwrap();
    let out = written(&packed, &plan, &folder);
    same(&path, &out, 0, IMAGE_BYTES);
}

#[test]
fn what_is_no_image_of_ours_is_refused() {
    let folder = scratch();
    let path = folder.path().join("a.img");
    let check = |bytes: &[u8], why: &str| {
        fs::write(&path, bytes).unwrap();
        let error = Image::open(&path).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.next_step().contains("ci/image"), "{error}");
    };
    check(b"", "it ends within its partition table");
    check(&vec![0; 4 << 20], "it has no partition table");
    check(&[0x28, 0xB5, 0x2F, 0xFD, 1, 2, 3], "it is no whole image");
    for table in TABLES {
        let whole = fs::read(image(table)).unwrap();
        check(&whole[..HEAD_BYTES], "its partition 2 is no slot");
        check(&whole[..150 << 20], "it is cut off");
        check(&whole[..(224 << 20) + 100], "it is cut off");
        let mut other = whole;
        other[(112 << 20) + 43] = b'B';
        check(&other, "its partition 3 is no slot");
    }
}

#[test]
fn a_customized_image_differs_in_its_table_and_behind_its_data_alone() {
    for table in TABLES {
        let path = image(table);
        let looked = Image::open(&path).unwrap();
        let folder = scratch();
        for more in [
            0,
            SECTOR,
            MIB - SECTOR,
            MIB,
            33 * MIB + 7 * SECTOR,
            4096 * MIB,
        ] {
            let plan = looked.plan(IMAGE_BYTES + more, &named()).unwrap();
            let out = written(&looked, &plan, &folder);
            assert_eq!(fs::metadata(&out).unwrap().len(), IMAGE_BYTES + more);
            let grown = Table::read(&head(&out)).unwrap();
            let (old, data) = (Table::read(&head(&path)).unwrap().data(), grown.data());
            assert_eq!(data.bytes(), plan.data_bytes, "{table} {more}");
            assert_eq!(data.first, old.first, "{table} {more}");
            assert_eq!(
                data.bytes(),
                (64 * MIB) + more / MIB * MIB,
                "{table} {more}"
            );
            same(&path, &out, HEAD_BYTES as u64, old.end() * SECTOR);
            let area = bytes_at(&out, data.end() * SECTOR, AREA_BYTES);
            assert_eq!(area, **named().area().unwrap(), "{table} {more}");
            if table == "gpt" {
                let last = bytes_at(&out, IMAGE_BYTES + more - SECTOR, 8);
                assert_eq!(last, b"EFI PART", "{more}");
            }
            fs::remove_file(out).unwrap();
        }
    }
}

#[test]
fn a_card_loses_everything_that_could_be_taken_for_something() {
    for table in TABLES {
        let looked = Image::open(&image(table)).unwrap();
        let folder = scratch();
        let path = folder.path().join("card");
        // What was there before: an area with files, and a table at the end.
        let before = named().area().unwrap();
        let bytes = IMAGE_BYTES + 20 * MIB;
        let mut options = File::options();
        let mut card = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        for at in (0..bytes).step_by(AREA_BYTES) {
            card.seek(SeekFrom::Start(at)).unwrap();
            card.write_all(&before).unwrap();
        }
        let plan = looked.plan(bytes, &FirstBoot::default()).unwrap();
        let mut told = Vec::new();
        let mut medium = Medium::disk(card);
        write(&looked, &plan, &mut medium, &path, &mut |at| told.push(at)).unwrap();
        let data = Table::read(&head(&path)).unwrap().data();
        let area = bytes_at(&path, data.end() * SECTOR, AREA_BYTES);
        assert!(area.iter().all(|byte| *byte == 0));
        let end = bytes_at(&path, bytes - SECTOR, 8);
        assert_eq!(&end, if table == "gpt" { b"EFI PART" } else { &[0; 8] });
        same(&image(table), &path, HEAD_BYTES as u64, IMAGE_BYTES - MIB);
        let last = told.last().unwrap();
        assert!(last.is_verifying && last.done == last.total, "{last:?}");
        assert!(told.iter().all(|at| at.done <= at.total));
        assert!(
            told.iter()
                .any(|at| !at.is_verifying && at.done == at.total)
        );
    }
}

/// A card that has less room than it says: what lies behind is forgotten.
struct Counterfeit {
    card: Cursor<Vec<u8>>,
    room: u64,
}

impl Read for Counterfeit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let at = self.card.position();
        let length = self.card.read(buffer)?;
        if at + length as u64 > self.room {
            buffer[..length].fill(0xFF);
        }
        Ok(length)
    }
}

impl Write for Counterfeit {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.card.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Counterfeit {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.card.seek(to)
    }
}

impl Target for Counterfeit {
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn is_blank(&self) -> bool {
        false
    }
}

#[test]
fn a_card_that_has_less_room_than_it_says_is_found_out() {
    let looked = Image::open(&image("mbr")).unwrap();
    for (more, room, mib) in [
        (0, 100 * MIB + 5, "MiB 100"),
        (32 * MIB, IMAGE_BYTES + 30 * MIB, "MiB 256"),
    ] {
        let bytes = IMAGE_BYTES + more;
        let plan = looked.plan(bytes, &named()).unwrap();
        let mut card = Counterfeit {
            card: Cursor::new(vec![0; bytes as usize]),
            room,
        };
        let error = write(&looked, &plan, &mut card, Path::new("card"), &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(mib), "{error}");
        assert!(error.next_step().contains("another card"), "{error}");
    }
}

#[test]
fn a_disk_that_is_too_small_is_refused_before_anything_is_written() {
    let looked = Image::open(&image("gpt")).unwrap();
    let error = looked.plan(IMAGE_BYTES - SECTOR, &named()).err().unwrap();
    assert!(matches!(error, Error::Input { .. }), "{error}");
    assert!(
        error.to_string().contains(&IMAGE_BYTES.to_string()),
        "{error}"
    );
}

#[test]
fn an_image_that_changes_meanwhile_is_found_out() {
    let folder = scratch();
    let path = folder.path().join("a.img");
    fs::copy(image("mbr"), &path).unwrap();
    let looked = Image::open(&path).unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(70 * MIB)).unwrap();
    file.write_all(b"another").unwrap();
    let plan = looked.plan(looked.least_bytes(), &named()).unwrap();
    let mut card = Counterfeit {
        card: Cursor::new(vec![0; IMAGE_BYTES as usize]),
        room: u64::MAX,
    };
    let error = write(&looked, &plan, &mut card, Path::new("card"), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("changed while"), "{error}");
}

#[test]
fn a_gpt_with_any_bit_changed_is_refused() {
    let whole = head(&image("gpt"));
    let checked = (512..604).chain((1024..HEAD_BYTES).step_by(41));
    for at in checked {
        let mut other = whole.clone();
        other[at] ^= 1;
        assert!(Table::read(&other).is_err(), "byte {at}");
    }
}

#[test]
fn the_largest_mbr_ends_where_its_numbers_do() {
    let table = Table::read(&head(&image("mbr"))).unwrap();
    let grown = table.grown(IMAGE_BYTES, 8 << 40).unwrap();
    assert!(grown.data.sectors <= u32::MAX.into());
    assert!(grown.data.bytes() > (2 << 40) - 512 * MIB);
    assert_eq!(
        table.grown(IMAGE_BYTES, 1000).unwrap_err(),
        TableFault::TooLarge {
            needed: IMAGE_BYTES,
            found: 1000
        }
    );
}

/// What holds of every table that is read, and of every disk it grows to.
fn holds(head: &[u8], image_bytes: u64, disk_bytes: u64) {
    let Ok(table) = Table::read(head) else {
        return;
    };
    let Ok(grown) = table.grown(image_bytes, disk_bytes) else {
        assert!(disk_bytes < table.least_bytes().max(image_bytes));
        return;
    };
    assert!(grown.data.first == table.data().first && grown.data.end() >= table.data().end());
    assert!(grown.tail.first == grown.data.end());
    let mut ranges: Vec<_> = grown.edits.iter().map(|edit| edit.range()).collect();
    ranges.push(grown.tail.first * SECTOR..grown.tail.end() * SECTOR);
    ranges.sort_by_key(|range| range.start);
    for pair in ranges.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{ranges:?}");
    }
    assert!(
        ranges.iter().all(|range| range.end <= disk_bytes),
        "{ranges:?}"
    );
    assert!(grown.tail.bytes() >= AREA_BYTES as u64);
    // What was made is read again, and is as it was said to be.
    let mut again = head.to_vec();
    again[..grown.edits[0].bytes.len()].copy_from_slice(&grown.edits[0].bytes);
    assert_eq!(Table::read(&again).unwrap().data(), grown.data);
}

/// Makes the checksums of a GPT fit what it says.
fn sign(head: &mut [u8]) {
    let crc32 = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xEDB8_8320 * (sum & 1))
            })
        })
    };
    let entries = crc32(&head[1024..HEAD_BYTES]);
    head[600..604].copy_from_slice(&entries.to_le_bytes());
    head[528..532].fill(0);
    let header = crc32(&head[512..604]);
    head[528..532].copy_from_slice(&header.to_le_bytes());
}

proptest! {
    #[test]
    fn no_bytes_make_a_table_panic(
        bytes in proptest::collection::vec(any::<u8>(), HEAD_BYTES),
        is_gpt: bool,
        disk in any::<u64>(),
    ) {
        let mut bytes = bytes;
        bytes[510..512].copy_from_slice(&[0x55, 0xAA]);
        if is_gpt {
            bytes[450] = 0xEE;
            bytes[512..520].copy_from_slice(b"EFI PART");
        }
        holds(&bytes, IMAGE_BYTES, disk);
    }

    #[test]
    fn a_changed_mbr_is_refused_or_still_makes_sense(
        changes in proptest::collection::vec((446usize..510, any::<u8>()), 1..6),
        disk in 0u64..(1 << 42),
    ) {
        let mut bytes = head(&image("mbr"));
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        holds(&bytes, IMAGE_BYTES, disk);
    }

    #[test]
    fn a_gpt_that_says_anything_is_refused_or_still_makes_sense(
        places in proptest::collection::vec((any::<u64>(), any::<u64>(), 0u8..64, 0u8..64), 1..8),
        length in 0u64..(1 << 40),
        disk in any::<u64>(),
    ) {
        let mut bytes = head(&image("gpt"));
        for (number, (first, last, less, lesser)) in places.into_iter().enumerate() {
            let at = 1024 + number * 128 + 32;
            // Small numbers as often as large ones.
            bytes[at..at + 8].copy_from_slice(&(first >> less).to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&(last >> lesser).to_le_bytes());
            bytes[at - 32] = 1;
        }
        sign(&mut bytes);
        holds(&bytes, length / SECTOR * SECTOR, disk);
    }

    #[test]
    fn a_gpt_whose_partitions_move_a_little_grows_or_is_refused(
        places in proptest::collection::vec((30u64..1000, 1u64..1000), 4..8),
        disk in 0u64..(1 << 30),
    ) {
        let mut bytes = head(&image("gpt"));
        for (number, (first, sectors)) in places.into_iter().enumerate() {
            let at = 1024 + number * 128 + 32;
            let first = first + if number == 3 { 1500 } else { 0 };
            bytes[at..at + 8].copy_from_slice(&first.to_le_bytes());
            bytes[at + 8..at + 16].copy_from_slice(&(first + sectors - 1).to_le_bytes());
            bytes[at - 32] = 1;
        }
        sign(&mut bytes);
        holds(&bytes, disk / 2 / SECTOR * SECTOR, disk);
    }

    #[test]
    fn a_table_grows_to_any_disk(more in 0u64..(1 << 36), which in 0usize..2) {
        holds(&head(&image(TABLES[which])), IMAGE_BYTES, IMAGE_BYTES + more * SECTOR);
    }
}

/// What a program says of a disk; None if it isn't here.
fn judged(program: &str, words: &[&str], path: &Path) -> String {
    let run = Command::new(program)
        .args(words)
        .arg(path)
        .env("LC_ALL", "C")
        .output();
    let run =
        run.unwrap_or_else(|error| panic!("{program}: {error}; ci/install updates brings it"));
    let said = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
    assert!(run.status.success(), "{program}: {said}");
    said
}

#[test]
#[ignore = "needs sfdisk and sgdisk: ci/install updates"]
fn sfdisk_and_sgdisk_read_what_grew() {
    for table in TABLES {
        let looked = Image::open(&image(table)).unwrap();
        let folder = scratch();
        for more in [
            0,
            SECTOR,
            17 * SECTOR,
            40 * SECTOR,
            MIB,
            33 * MIB + 7 * SECTOR,
            28 << 30,
        ] {
            let plan = looked.plan(IMAGE_BYTES + more, &named()).unwrap();
            let out = written(&looked, &plan, &folder);
            let when = format!("{table}, {}", text::bytes(more));
            let said: serde_json::Value =
                serde_json::from_str(&judged("sfdisk", &["--json"], &out)).unwrap();
            let found = &said["partitiontable"];
            assert_eq!(
                found["label"],
                if table == "gpt" { "gpt" } else { "dos" },
                "{when}"
            );
            let data = &found["partitions"][3];
            let bytes = data["size"].as_u64().unwrap() * SECTOR;
            assert_eq!(bytes, plan.data_bytes, "{when}");
            assert!(bytes >= 64 * MIB + (more / MIB) * MIB, "{when}");
            let verified = judged("sfdisk", &["--verify"], &out);
            assert!(
                verified.contains("No errors detected"),
                "{when}: {verified}"
            );
            if table == "gpt" {
                let verified = judged("sgdisk", &["--verify"], &out);
                assert!(verified.contains("No problems found"), "{when}: {verified}");
                let last = (IMAGE_BYTES + more) / SECTOR - 34;
                assert_eq!(found["lastlba"], last, "{when}");
            }
            fs::remove_file(out).unwrap();
        }
    }
}

#[test]
#[ignore = "needs sfdisk and sgdisk: ci/install updates"]
fn what_sgdisk_and_sfdisk_grew_is_read_as_they_meant_it() {
    let folder = scratch();
    for table in TABLES {
        let path = folder.path().join("disk");
        fs::copy(image(table), &path).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_len(2048 * MIB).unwrap();
        if table == "gpt" {
            judged("sgdisk", &["--move-second-header"], &path);
        }
        let start = Table::read(&head(&path)).unwrap().data().first;
        let mut child = Command::new("sfdisk")
            .args(["--quiet", "--no-reread", "-N", "4"])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(format!("{start}, 1000M\n").as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
        let looked = Image::open(&path).unwrap();
        assert_eq!(
            Table::read(&head(&path)).unwrap().data().bytes(),
            1000 * MIB
        );
        let plan = looked.plan(2048 * MIB, &FirstBoot::default()).unwrap();
        assert_eq!(plan.data_bytes, 2048 * MIB - TAIL_BYTES - start * SECTOR);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn the_command_makes_a_disk_of_the_size_and_with_the_files() {
    let computer = Computer::new();
    computer.json(&["network", "create", "home"]);
    computer.json(&common::relay_bundle(common::RELAY));
    let path = image("mbr");
    let path = path.to_str().unwrap();
    let said = computer.json(&[
        "image",
        "customize",
        path,
        "--bundle",
        "relay1.bundle",
        "--hostname",
        "relay1",
        "--size",
        "1G",
        "-o",
        "relay1.img",
    ]);
    assert_eq!(said["bytes"], 1u64 << 30);
    assert_eq!(said["data_bytes"], (1u64 << 30) - 161 * MIB);
    assert_eq!(
        said["first_boot"],
        serde_json::json!(["hostname", "first-boot.bundle"])
    );
    let out = computer.file("relay1.img");
    let data = Table::read(&head(&out)).unwrap().data();
    let area = bytes_at(&out, data.end() * SECTOR, AREA_BYTES);
    let bundle = fs::read(computer.file("relay1.bundle")).unwrap();
    assert!(area.windows(bundle.len()).any(|found| found == bundle));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(&out).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // Not over what is there, and not half.
    let said = computer.refused(&["image", "customize", path, "-o", "relay1.img"]);
    assert!(said.contains("is there already"), "{said}");
    let said = computer.refused(&[
        "image",
        "customize",
        path,
        "--size",
        "1M",
        "-o",
        "small.img",
    ]);
    assert!(said.contains("doesn't fit"), "{said}");
    assert!(!computer.file("small.img").exists());
}

#[test]
fn a_code_to_claim_by_is_shown_once_and_is_what_the_box_gets() {
    let computer = Computer::new();
    let path = image("mbr");
    let path = path.to_str().unwrap();
    let words = ["image", "customize", path, "--claim-code", "-o", "a.img"];
    let said = computer.json(&words);
    assert_eq!(said["first_boot"], serde_json::json!(["claim-code"]));
    let shown = said["claim_code"].as_str().unwrap();
    assert!(said["notes"].to_string().contains(shown), "{said}");
    let out = computer.file("a.img");
    let data = Table::read(&head(&out)).unwrap().data();
    let area = bytes_at(&out, data.end() * SECTOR, AREA_BYTES);
    let line = format!("{shown}\n");
    assert!(
        area.windows(line.len())
            .any(|found| found == line.as_bytes())
    );
}

#[test]
fn a_config_that_altnet_refuses_is_refused_before_anything_is_written() {
    use std::os::unix::fs::PermissionsExt;
    let folder = scratch();
    let program = folder.path().join("altnet");
    let config = folder.path().join("altnet.toml");
    fs::write(&config, "[router]\nnonsense = 1\n").unwrap();
    let mut files = FirstBoot::default();
    for (script, taken) in [
        (
            "[ \"$1 $2\" = 'config check' ] && grep -q router \"$3\"",
            true,
        ),
        ("echo 'altnet: unknown key nonsense' >&2; exit 1", false),
    ] {
        // Written beside and renamed: another test may be starting a program, and hold it open for a moment.
        let beside = folder.path().join("beside");
        fs::write(&beside, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
        fs::rename(&beside, &program).unwrap();
        match files.config(&config, Some(&program)) {
            Ok(()) => assert!(taken),
            Err(error) => {
                assert!(
                    !taken && error.to_string().contains("unknown key nonsense"),
                    "{error}"
                );
            }
        }
    }
    fs::write(&config, "[router\n").unwrap();
    let error = files.config(&config, None).unwrap_err();
    assert!(error.to_string().contains("line 1"), "{error}");
}

#[test]
fn a_chunk_is_whole_sectors() {
    assert_eq!(CHUNK_BYTES as u64 % SECTOR, 0);
}
