//! A box before its first boot: the image's own script (`linux-image/root/usr/sbin/altnet-first-boot`), run by this machine's
//! shell on a disk that is a file. `altnet` is a stand-in there, which says what a test wants; the real one is asked in the
//! images that `ci/test --all` boots.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use altnet_provision::image::first_boot::{AREA_BYTES, FirstBoot};
use altnet_wire::id::Name;
use tempfile::TempDir;

use super::programs::put_program;

/// Where the area lies on the disk of these tests, in sectors.
pub const AREA: u64 = 4096;
/// Programs by which the script changes anything.
const CHANGING: [&str; 5] = ["dd", "mv", "rm", "rmdir", "sync"];

/// Where a power cut comes: before a step, after it, or in the midst of what it writes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Before,
    Half,
    After,
}

/// A box: its disk, its data, and what is beside the script on its search path.
pub struct House {
    pub folder: TempDir,
}

impl House {
    pub fn new() -> Self {
        // On a disk rather than in memory: the script reads past the cache.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let house = Self { folder };
        fs::create_dir_all(house.path("data/etc")).unwrap();
        fs::create_dir(house.path("bin")).unwrap();
        let disk = fs::File::create(house.path("disk")).unwrap();
        disk.set_len(AREA * 512 + (1 << 20)).unwrap();
        house.program(
            "altnet",
            r#"case $* in
"config check "*) ! grep -q wrong "$3" || { echo "altnet: $3:1 is wrong" >&2; exit 1; } ;;
"--json join --bundle "*)
    grep -q BUNDLE "$4" || exit 9
    said=$(head -n 1 "$HOUSE/answers")
    sed -i 1d "$HOUSE/answers"
    echo "$said"
    case $said in *error*) exit 1 ;; esac
    ;;
status) ;;
*) exit 9 ;;
esac"#,
        );
        // The real one would rename this machine.
        house.program("hostname", "echo \"$1\" >\"$HOUSE/called\"");
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn program(&self, name: &str, text: &str) {
        put_program(&self.path("bin").join(name), text);
    }

    /// Has the machine lose its power at the step `number`, counted from 1, of those that change anything.
    pub fn cut(&self, number: usize, cut: Cut) {
        fs::write(self.path("steps"), "0").unwrap();
        for name in CHANGING {
            let real = ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name));
            let real = real.into_iter().find(|path| path.exists()).unwrap();
            let real = real.display();
            let (half, after) = match cut {
                Cut::Before => ("kill -9 0", ""),
                Cut::After => ("", "kill -9 0"),
                // `dd` gets half of what it was to write; renaming and removing have no half.
                Cut::Half if name == "dd" => (
                    r#"for word; do case $word in if=*) from=${word#if=} ;; esac; done
    case "$*" in *of=*) ;; *) kill -9 0 ;; esac
    [ -n "$from" ] || { cat >"$HOUSE/all"; from=$HOUSE/all; }
    head -c $(($(wc -c <"$from") / 2)) "$from" >"$HOUSE/half"
    set -- "$@" if="$HOUSE/half""#,
                    "kill -9 0",
                ),
                Cut::Half => ("kill -9 0", ""),
            };
            self.program(
                name,
                &format!(
                    r#"n=$(($(cat "$HOUSE/steps") + 1))
echo $n >"$HOUSE/steps"
if [ $n = {number} ]; then
    from=
    {half}
fi
{real} "$@"
code=$?
if [ $n = {number} ]; then
    : >"$HOUSE/is-cut"
    {after}
fi
exit $code"#
                ),
            );
        }
    }

    pub fn powered(&self) {
        for name in CHANGING {
            let _ = fs::remove_file(self.path("bin").join(name));
        }
    }

    pub fn run(&self, words: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../linux-image/root/usr/sbin/altnet-first-boot");
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        Command::new("sh")
            .arg(script)
            .args(words)
            .env("PATH", path)
            .env("HOUSE", self.folder.path())
            .env("DATA", self.path("data"))
            .env("DISK", self.path("disk"))
            .env("AREA", AREA.to_string())
            .env("PAUSE_S", "0")
            .env(
                "RESTART",
                format!("touch {}", self.path("restarted").display()),
            )
            .env("TMPDIR", self.folder.path())
            .process_group(0)
            .output()
            .unwrap()
    }

    pub fn ok(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let said = String::from_utf8(output.stdout).unwrap();
        let wrong = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && wrong.is_empty(), "{said}{wrong}");
        said
    }

    pub fn give(&self, files: &FirstBoot) {
        self.put(&files.area().unwrap());
    }

    pub fn put(&self, area: &[u8]) {
        let mut disk = fs::OpenOptions::new()
            .write(true)
            .open(self.path("disk"))
            .unwrap();
        disk.seek(SeekFrom::Start(AREA * 512)).unwrap();
        disk.write_all(area).unwrap();
    }

    pub fn area(&self) -> Vec<u8> {
        fs::read(self.path("disk")).unwrap()[AREA as usize * 512..][..AREA_BYTES].to_vec()
    }

    pub fn etc(&self) -> Vec<String> {
        names(&self.path("data/etc"))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn answers(&self, lines: &[&str]) {
        fs::write(self.path("answers"), lines.join("\n") + "\n").unwrap();
    }
}

pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The files `config` and a name, as `altnet-provision` puts them on the disk.
pub fn given(house: &House, config: &str) -> FirstBoot {
    let path = house.path("altnet.toml");
    fs::write(&path, config).unwrap();
    let mut files = FirstBoot::default();
    files.config(&path, None).unwrap();
    files.hostname(&Name::new("house-a").unwrap());
    files
}
