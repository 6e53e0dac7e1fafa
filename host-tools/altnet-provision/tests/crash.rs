//! What is kept of programs that fell over, by the script that the image has (`linux-image/root/usr/sbin/altnet-crash`).

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const MOST: usize = 8;
const MOST_BYTES: u64 = 65536;

struct House(TempDir);

impl House {
    fn new() -> Self {
        let house = Self(tempfile::tempdir().unwrap());
        fs::create_dir(house.path("run")).unwrap();
        fs::create_dir(house.path("pstore")).unwrap();
        fs::write(house.path("run/data"), "writable\n").unwrap();
        fs::write(house.path("run/slot"), "B\n").unwrap();
        house.after(10);
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// So long after the box was switched on.
    fn after(&self, seconds: u32) {
        fs::write(self.path("uptime"), format!("{seconds}.42 1.00\n")).unwrap();
    }

    fn run(&self, words: &[&str], input: &str) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../linux-image/root/usr/sbin/altnet-crash");
        let mut child = Command::new("sh")
            .arg(script)
            .args(words)
            .env("FOLDER", self.path("crash"))
            .env("RUN", self.path("run"))
            .env("PSTORE", self.path("pstore"))
            .env("UPTIME", self.path("uptime"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // One that keeps nothing doesn't read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn ok(&self, words: &[&str], input: &str) -> String {
        let output = self.run(words, input);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(output.stderr, b"", "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn kept(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("crash")) else {
            return Vec::new();
        };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

#[test]
fn what_was_said_last_is_kept_and_shown() {
    let house = House::new();
    let said = house.ok(
        &["keep", "altnetd", "ended with code 134"],
        "panicked at src\n",
    );
    assert!(said.contains("altnet-crash show"), "{said}");
    let shown = house.ok(&["show"], "");
    assert!(
        shown.starts_with("altnetd ended with code 134\n"),
        "{shown}"
    );
    assert!(shown.contains("10 s after it was switched on") && shown.contains("slot B"));
    assert!(shown.ends_with("panicked at src\n"), "{shown}");
    assert!(
        house
            .ok(&["list"], "")
            .starts_with("1 altnetd ended with code 134 at ")
    );
    for nobody in ["2", "0", "..", "1-"] {
        assert!(
            !house.run(&["show", nobody], "").status.success(),
            "{nobody}"
        );
    }
    house.ok(&["forget"], "");
    assert_eq!(house.kept(), [] as [String; 0]);
}

#[test]
fn a_program_that_falls_over_again_and_again_is_kept_once_in_ten_minutes() {
    let house = House::new();
    for (seconds, program, kept) in [
        (10, "altnetd", 1),
        (20, "altnetd", 1),
        (30, "altnet-routerd", 2),
        (609, "altnetd", 2),
        (610, "altnetd", 3),
    ] {
        house.after(seconds);
        house.ok(&["keep", program, "ended"], "words\n");
        assert_eq!(house.kept().len(), kept, "{program} at {seconds}");
    }
}

#[test]
fn no_more_than_eight_of_64_kib_are_kept_and_the_oldest_goes_first() {
    let house = House::new();
    let long = "x".repeat(3 * MOST_BYTES as usize) + "the end";
    for n in 1..=11 {
        house.after(600 * n);
        house.ok(&["keep", "altnetd", "ended"], &long);
    }
    let kept = house.kept();
    assert_eq!(kept.len(), MOST);
    assert_eq!(kept[0], "000000004-altnetd");
    for name in kept {
        let path = house.path("crash").join(name);
        assert!(path.metadata().unwrap().len() <= MOST_BYTES);
        assert!(fs::read_to_string(path).unwrap().ends_with("the end"));
    }
}

#[test]
fn data_that_can_not_be_written_are_left_alone() {
    let house = House::new();
    fs::write(house.path("run/data"), "read-only\n").unwrap();
    let said = house.ok(&["keep", "altnetd", "ended"], "words\n");
    assert!(said.contains("can't be written"), "{said}");
    assert!(!house.path("crash").exists());
    // And one that a power cut left half is no crash.
    fs::write(house.path("run/data"), "writable\n").unwrap();
    fs::create_dir(house.path("crash")).unwrap();
    fs::write(house.path("crash/.new"), "half").unwrap();
    assert_eq!(house.ok(&["list"], ""), "");
    house.ok(&["keep", "altnet-routerd", "ended"], "words\n");
    assert_eq!(house.kept(), ["000000001-altnet-routerd"]);
}

#[test]
fn what_the_kernel_left_is_kept_once_and_in_its_order() {
    let house = House::new();
    assert_eq!(house.ok(&["kernel"], ""), "");
    for (name, text) in [
        ("dmesg-ramoops-0", "Panic#1 Part1\nthe end of the log\n"),
        ("dmesg-ramoops-1", "Panic#1 Part2\nwhat came before\n"),
    ] {
        fs::write(house.path("pstore").join(name), text).unwrap();
    }
    let said = house.ok(&["kernel"], "");
    assert!(said.starts_with("kernel ended before this boot"), "{said}");
    let shown = house.ok(&["show"], "");
    let (before, end) = (
        shown.find("what came before"),
        shown.find("the end of the log"),
    );
    assert!(before.unwrap() < end.unwrap(), "{shown}");
    assert_eq!(fs::read_dir(house.path("pstore")).unwrap().count(), 0);
}
