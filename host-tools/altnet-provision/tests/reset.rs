//! A factory reset, by the script that the image has (`linux-image/root/usr/sbin/altnet-reset`), run by this machine's
//! shell on disks that are files, with power cuts at every step.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use programs::put_program;
use tempfile::TempDir;

#[path = "common/programs.rs"]
mod programs;

/// Where the data end on the disk of these tests, in sectors; the data themselves are a file of their own.
const AREA: u64 = 128;
const ROOM: u64 = 2048;
const MARKED: u64 = 1024;
const DATA_BYTES: u64 = 9 << 20;
const SECRET: &str = "an identity that nobody else may have";
/// Programs by which the script changes anything.
const CHANGING: [&str; 6] = ["dd", "mke2fs", "blkdiscard", "rm", "sync", "mount"];

/// Where a power cut comes: before a step, after it, or in the midst of what it writes.
#[derive(Clone, Copy, Debug)]
enum Cut {
    Before,
    Half,
    After,
}

/// A box that can be reset: its disk, its data, and what is beside the script on its search path.
struct House {
    folder: TempDir,
    sectors: u64,
}

impl House {
    /// A box whose data hold a secret. Its disk can't discard, as a drive on USB.
    fn new() -> Self {
        // On a disk rather than in memory: the script reads past the cache.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let house = Self {
            folder,
            sectors: AREA + ROOM,
        };
        fs::create_dir(house.path("bin")).unwrap();
        let disk = fs::File::create(house.path("disk")).unwrap();
        disk.set_len((AREA + ROOM) * 512).unwrap();
        fs::write(house.path("data"), vec![0; DATA_BYTES as usize]).unwrap();
        let made = Command::new("/sbin/mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-J", "size=4"])
            .arg(house.path("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{made:?}");
        fs::write(house.path("secret"), SECRET).unwrap();
        debugfs(&house, "write secret identity", true);
        house.put_sector(0, "altnet first-boot 1\nbytes 5\n");
        house.put_sector(1, SECRET);
        house.put_sector(1023, "altnet taken 1\n");
        house.powered();
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put_sector(&self, number: u64, text: &str) {
        let mut sector = text.as_bytes().to_vec();
        sector.resize(512, 0);
        let disk = fs::OpenOptions::new().write(true).open(self.path("disk"));
        let mut disk = disk.unwrap();
        disk.seek(SeekFrom::Start((AREA + number) * 512)).unwrap();
        disk.write_all(&sector).unwrap();
    }

    fn sector(&self, number: u64) -> Vec<u8> {
        let mut disk = fs::File::open(self.path("disk")).unwrap();
        disk.seek(SeekFrom::Start((AREA + number) * 512)).unwrap();
        let mut sector = vec![0; 512];
        disk.read_exact(&mut sector).unwrap();
        sector
    }

    fn program(&self, name: &str, text: &str) {
        put_program(&self.path("bin").join(name), text);
    }

    /// Programs as they are, but for those that need a real disk.
    fn powered(&self) {
        for name in CHANGING {
            let _ = fs::remove_file(self.path("bin").join(name));
        }
        self.program("blkdiscard", "exit 1");
        // What a killed process wrote is there anyway; and this machine has other disks.
        self.program("sync", "exit 0");
        self.program("mount", "exit 0");
    }

    /// A card that discards, as the kernel's driver of SD cards does.
    fn discards(&self) {
        self.program(
            "blkdiscard",
            r#"[ "$1" != -s ] || exit 1
tr '\000' '\377' </dev/zero | /bin/dd of="$1" bs=1048576 count=9 iflag=fullblock conv=notrunc 2>/dev/null"#,
        );
    }

    /// Has the machine lose its power at the step `number`, counted from 1, of those that change anything.
    fn cut(&self, number: usize, cut: Cut) {
        fs::write(self.path("steps"), "0").unwrap();
        for name in CHANGING {
            let real = ["/bin", "/sbin", "/usr/bin", "/usr/sbin"]
                .map(|folder| Path::new(folder).join(name))
                .into_iter()
                .find(|path| path.exists());
            let real = match name {
                "blkdiscard" | "mount" | "sync" => {
                    let beside = self.path(&format!("bin/{name}"));
                    let moved = self.path(&format!("bin/{name}.real"));
                    fs::rename(beside, &moved).unwrap();
                    moved
                }
                _ => real.unwrap(),
            };
            let real = real.display();
            let (half, after) = match (cut, name) {
                (Cut::Before, _) => ("kill -9 0", ""),
                (Cut::After, _) => ("", "kill -9 0"),
                // Half of what it was to write; of a file system the first half of all that it would have written.
                (Cut::Half, "dd") => (
                    r#"case "$*" in *of=*) ;; *) kill -9 0 ;; esac
    for word; do case $word in if=*) from=${word#if=} ;; count=*) count=${word#count=} ;; esac; done
    if [ -n "$count" ]; then
        set -- "$@" count=$((count / 2))
    else
        head -c $(($(wc -c <"$from") / 2)) "$from" >"$HOUSE/half"
        set -- "$@" if="$HOUSE/half"
    fi"#,
                    "kill -9 0",
                ),
                (Cut::Half, "mke2fs") => (
                    r#"cp "$HOUSE/data" "$HOUSE/whole"
    for word; do
        shift
        [ "$word" != "$HOUSE/data" ] || word=$HOUSE/whole
        set -- "$@" "$word"
    done"#,
                    r#"head -c 4194304 "$HOUSE/whole" | /bin/dd of="$HOUSE/data" conv=notrunc 2>/dev/null
    kill -9 0"#,
                ),
                (Cut::Half, _) => ("kill -9 0", ""),
            };
            self.program(
                name,
                &format!(
                    r#"n=$(($(cat "$HOUSE/steps") + 1))
echo $n >"$HOUSE/steps"
from= count=
if [ $n = {number} ]; then
    :
    {half}
fi
{real} "$@"
code=$?
if [ $n = {number} ]; then
    :
    {after}
fi
exit $code"#
                ),
            );
        }
    }

    fn run(&self, words: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../linux-image/root/usr/sbin/altnet-reset");
        let path = format!(
            "{}:{}:/sbin:/usr/sbin",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        Command::new("sh")
            .arg(script)
            .args(words)
            .env("PATH", path)
            .env("HOUSE", self.folder.path())
            .env("DISK", self.path("disk"))
            .env("PART", self.path("data"))
            .env("AREA", AREA.to_string())
            .env("SECTORS", self.sectors.to_string())
            .env("SIZE", "9M")
            .env("MKE2FS", "mke2fs")
            .env("BYTES", DATA_BYTES.to_string())
            .env("TMPDIR", self.folder.path())
            .process_group(0)
            .output()
            .unwrap()
    }

    fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8(output.stdout).unwrap();
        let wrong = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && wrong.is_empty(), "{said}{wrong}");
        said
    }

    fn is_due(&self) -> bool {
        self.run(&["due"]).status.success()
    }

    fn holds_secret(&self) -> bool {
        let has = |name: &str| {
            let bytes = fs::read(self.path(name)).unwrap();
            bytes
                .windows(SECRET.len())
                .any(|found| found == SECRET.as_bytes())
        };
        has("data") || has("disk")
    }

    /// Asserts that the data are a whole file system with nothing in it, and the disk says nothing of a reset.
    fn assert_new(&self, when: &str) {
        let checked = Command::new("/sbin/e2fsck")
            .args(["-fn"])
            .arg(self.path("data"))
            .output()
            .unwrap();
        assert!(checked.status.success(), "{when}: {checked:?}");
        let listed = debugfs(self, "ls -p /", false);
        let names: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.split('/').nth(5))
            .collect();
        assert_eq!(names, [".", "..", "lost+found"], "{when}");
        assert!(!self.holds_secret(), "{when}: the secret is still there");
        for number in [0, 1, 1023, MARKED] {
            let sector = self.sector(number);
            assert!(sector.iter().all(|byte| *byte == 0), "{when}: {number}");
        }
        assert!(!self.is_due(), "{when}");
    }
}

fn debugfs(house: &House, request: &str, writes: bool) -> String {
    let done = Command::new("/sbin/debugfs")
        .args(writes.then_some("-w"))
        .args(["-R", request])
        .arg(house.path("data"))
        .current_dir(house.folder.path())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn what_nobody_asked_for_is_not_done() {
    let house = House::new();
    assert_eq!(house.ok(&["finish"]), "");
    assert!(house.holds_secret());
    for other in ["altnet reset 2", "altnet rese", "ALTNET RESET 1"] {
        house.put_sector(MARKED, other);
        assert_eq!(house.ok(&["finish"]), "", "{other}");
        assert!(house.holds_secret() && !house.is_due(), "{other}");
    }
    house.ok(&["mark"]);
    assert!(house.is_due());
    house.ok(&["unmark"]);
    assert_eq!(house.ok(&["finish"]), "");
    assert!(house.holds_secret());
}

#[test]
fn a_reset_leaves_a_new_file_system_and_nothing_of_the_old() {
    let house = House::new();
    house.ok(&["mark"]);
    let said = house.ok(&["finish"]);
    assert!(said.contains("zeros are written over all of it"), "{said}");
    assert!(said.ends_with("this box is as new; both slots are as they were\n"));
    house.assert_new("at once");
    assert_eq!(house.ok(&["finish"]), "");
}

#[test]
fn a_card_that_discards_is_not_written_over() {
    let house = House::new();
    house.discards();
    house.ok(&["mark"]);
    let said = house.ok(&["finish"]);
    assert!(
        said.contains("the disk has none of them any more"),
        "{said}"
    );
    house.assert_new("discarded");
}

#[test]
fn a_disk_that_says_it_discarded_and_did_not_is_written_over() {
    let house = House::new();
    house.program("blkdiscard", "exit 0");
    house.ok(&["mark"]);
    let said = house.ok(&["finish"]);
    assert!(said.contains("zeros are written over all of it"), "{said}");
    house.assert_new("written over");
}

#[test]
fn data_that_reach_to_the_end_of_the_disk_are_refused() {
    let mut house = House::new();
    house.sectors -= 1;
    let before = fs::read(house.path("disk")).unwrap();
    let output = house.run(&["mark"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("write the card anew"),
        "{said}"
    );
    assert_eq!(fs::read(house.path("disk")).unwrap(), before);
    // Whatever lies there is somebody else's.
    house.put_sector(MARKED, "altnet reset 1");
    assert_eq!(house.ok(&["finish"]), "");
    assert!(house.holds_secret());
}

#[test]
fn a_file_on_the_card_is_a_reset_once() {
    let house = House::new();
    let copied = house.path("altnet");
    fs::create_dir(&copied).unwrap();
    let words = ["hand", copied.to_str().unwrap(), "/nowhere"];
    assert!(!house.run(&words).status.success() && !house.is_due());
    fs::write(copied.join("reset"), "").unwrap();
    let said = house.ok(&words);
    assert!(said.contains("because the card had a file reset"), "{said}");
    assert!(house.is_due() && !copied.join("reset").exists());
    house.ok(&["finish"]);
    house.assert_new("by hand");
    // A card that can't be written would be reset at every boot.
    fs::write(copied.join("reset"), "").unwrap();
    house.program("mount", "exit 1");
    assert!(!house.run(&words).status.success() && !house.is_due());
}

/// Has the power fail at each step of `words`, each time on a new house; returns at how many steps it did.
fn cut_everywhere(words: &[&str], prepare: impl Fn(&House), check: impl Fn(&House, &str)) -> usize {
    let mut cuts = 0;
    for kind in [Cut::Before, Cut::Half, Cut::After] {
        for number in 1.. {
            let house = House::new();
            prepare(&house);
            house.cut(number, kind);
            if house.run(words).status.success() {
                break;
            }
            cuts += 1;
            house.powered();
            check(&house, &format!("cut {kind:?} step {number}"));
        }
    }
    cuts
}

#[test]
fn power_that_fails_at_any_step_leaves_a_reset_that_is_finished_at_the_next_boot() {
    for discards in [false, true] {
        let cuts = cut_everywhere(
            &["finish"],
            |house| {
                house.ok(&["mark"]);
                if discards {
                    house.discards();
                }
            },
            |house, when| {
                house.ok(&["finish"]);
                house.assert_new(when);
            },
        );
        assert!(cuts > 20, "{cuts}");
    }
}

#[test]
fn power_that_fails_while_a_reset_is_asked_for_leaves_all_or_a_new_box() {
    let cuts = cut_everywhere(
        &["mark"],
        |_| {},
        |house, when| {
            let is_due = house.is_due();
            house.ok(&["finish"]);
            match is_due {
                true => house.assert_new(when),
                false => assert!(house.holds_secret(), "{when}"),
            }
        },
    );
    assert!(cuts >= 3, "{cuts}");
}
