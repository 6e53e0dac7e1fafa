//! altnet's package on somebody's OpenWrt, installed over SSH so that it can't cost the router.
//!
//! [`Router::connect`] brings `install.sh` into the router's memory and asks what the router is; [`choose`] takes the
//! package for it; [`Router::prepare`] has its program tried there, unpacked in memory; [`Facts::space`] says
//! whether there is room. [`Router::install`] then has a service on the router install it, which undoes it again unless
//! [`Router::confirm`] comes in time; a restart of the router undoes it too. Why: ADR 0026.
//!
//! Nothing here asks or prints; the words of the script are read as those of a stranger.

mod ssh;

use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use serde::Serialize;

pub use self::ssh::Ssh;
use crate::{Error, Result, files, text};

const SCRIPT: &[u8] = include_bytes!("../../../linux-image/openwrt/remote/install.sh");
/// Where the script and the package are on the router, in memory.
const FOLDER: &str = "/tmp/altnet-install";
/// A package is a few megabytes.
const MOST_BYTES: u64 = 64 << 20;
/// What is left of flash and memory beside what is needed, in KiB: the router has to go on writing there.
const MARGIN_KIB: u64 = 512;

/// What a router says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// OpenWrt's release.
    pub release: String,
    /// What installs packages: `opkg` or `apk`.
    pub manager: String,
    /// The architectures of packages that it takes.
    pub architectures: Vec<String>,
    /// The board, as OpenWrt names it.
    pub board: String,
    /// The board, as people do.
    pub model: String,
    /// What is free of flash, in KiB.
    pub flash_kib: u64,
    /// The file system that is written to there.
    pub flash_kind: String,
    /// What is free of memory for files, in KiB.
    pub memory_kib: u64,
    /// Whether the kernel's module for tunnels is installed.
    pub has_tun: bool,
    /// altnet's version there, or nothing.
    pub installed: Option<String>,
    /// The size of its program, in KiB.
    pub program_kib: u64,
    /// Whether the router resolves names.
    pub has_names: bool,
    /// Whether an installation waits to be confirmed.
    pub is_pending: bool,
}

impl Facts {
    /// Reads lines of `name value`. What is unknown is passed over; what is absent stays empty.
    fn parse(said: &str) -> Self {
        let mut facts = Self::default();
        for line in said.lines() {
            let (name, value) = line.split_once(' ').unwrap_or((line, ""));
            let value = printable(value);
            let number = value.parse().unwrap_or(0);
            match name {
                "release" => facts.release = value,
                "manager" => facts.manager = value,
                "arch" => facts.architectures = value.split_whitespace().map(Into::into).collect(),
                "board" => facts.board = value,
                "model" => facts.model = value,
                "flash_kib" => facts.flash_kib = number,
                "flash_kind" => facts.flash_kind = value,
                "memory_kib" => facts.memory_kib = number,
                "kmod_tun" => facts.has_tun = value == "yes",
                "installed" => facts.installed = (!value.is_empty()).then_some(value),
                "program_kib" => facts.program_kib = number,
                "names" => facts.has_names = value == "yes",
                "pending" => facts.is_pending = value == "yes",
                _ => {}
            }
        }
        facts
    }

    /// The kind of package file that it takes.
    fn kind(&self) -> &'static str {
        match self.manager.as_str() {
            "apk" => "apk",
            _ => "ipk",
        }
    }

    /// What the installation needs of flash, in KiB, given the package's size and that of its program unpacked, and whether
    /// the package that is there can be kept on flash until then too.
    pub fn space(&self, package_bytes: u64, program_kib: u64) -> Result<Space> {
        // These compress what is written, about as well as the package is compressed.
        let packs = matches!(self.flash_kind.as_str(), "jffs2" | "ubifs");
        let new = match packs {
            true => package_bytes.div_ceil(1024),
            false => program_kib,
        };
        let old = match (packs, &self.installed) {
            (_, None) => 0,
            (true, Some(_)) => new,
            (false, Some(_)) => self.program_kib,
        };
        // The old program makes room only once the new one is there.
        let needed = new.saturating_add(MARGIN_KIB);
        if self.flash_kib < needed {
            return Err(Error::Input {
                what: format!(
                    "there is too little flash: {} free, {} needed",
                    kib(self.flash_kib),
                    kib(needed)
                ),
                next: "Remove packages that you don't use, or put the overlay on a USB drive (OpenWrt calls it extroot).".into(),
            });
        }
        Ok(Space {
            needed_kib: needed,
            keeps_on_flash: self.installed.is_some()
                && self.flash_kib >= needed.saturating_add(old).saturating_add(MARGIN_KIB),
        })
    }
}

/// What an installation takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Space {
    /// Of flash, in KiB.
    pub needed_kib: u64,
    /// Whether the older package is kept on flash, where a power cut doesn't lose it, until the newer one is confirmed.
    pub keeps_on_flash: bool,
}

/// A package file, as `linux-image/openwrt/build` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    path: PathBuf,
    name: String,
    version: String,
    arch: String,
}

impl Package {
    /// By its name, `altnet_VERSION_ARCHITECTURE.ipk` or `.apk`.
    pub fn named(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let parts = name.and_then(|name| {
            let stem = name
                .strip_suffix(".ipk")
                .or_else(|| name.strip_suffix(".apk"))?;
            let (version, arch) = stem.strip_prefix("altnet_")?.split_once('_')?;
            let is_plain = |text: &str| {
                text.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            };
            (is_plain(version) && is_plain(arch)).then_some((name, version, arch))
        });
        let (name, version, arch) = parts.ok_or_else(|| Error::Input {
            what: format!(
                "{} has not the name of a package: altnet_VERSION_ARCHITECTURE.ipk or .apk",
                path.display()
            ),
            next: "Give the files as `linux-image/openwrt/build` names them.".into(),
        })?;
        Ok(Self {
            path: path.into(),
            name: name.into(),
            version: version.into(),
            arch: arch.into(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What it is for.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// Its bytes, if they begin as such a package does.
    fn bytes(&self) -> Result<Vec<u8>> {
        let length = std::fs::metadata(&self.path).map_err(Error::io("read", &self.path))?;
        if length.len() > MOST_BYTES {
            return Err(Error::damaged(&self.path, "it is too large for a package"));
        }
        let bytes = files::read(&self.path)?;
        // gzip (RFC 1952), or apk's ADB, packed or not.
        let begins: &[&[u8]] = match self.name.ends_with(".ipk") {
            true => &[&[0x1f, 0x8b]],
            false => &[b"ADBd", b"ADBc", b"ADB."],
        };
        match begins.iter().any(|begin| bytes.starts_with(begin)) {
            true => Ok(bytes),
            false => Err(Error::damaged(&self.path, "it is not such a package")),
        }
    }
}

/// The package for a router, of several.
pub fn choose<'a>(packages: &'a [Package], facts: &Facts) -> Result<&'a Package> {
    let suffix = format!(".{}", facts.kind());
    let suits = |package: &&Package| {
        package.name.ends_with(&suffix) && facts.architectures.contains(&package.arch)
    };
    packages.iter().find(suits).ok_or_else(|| Error::Input {
        what: format!(
            "none of the packages is for this router: it takes .{} files for {}",
            facts.kind(),
            match facts.architectures.is_empty() {
                true => "an architecture that it does not tell".into(),
                false => facts.architectures.join(", "),
            }
        ),
        next: "Build one with `ci/static --box TARGET` and `linux-image/openwrt/build --arch ARCHITECTURE`.".into(),
    })
}

/// How far an installation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is being installed, or undone.
    Busy,
    /// It waits to be confirmed.
    Waiting,
    /// It is kept.
    Confirmed,
    /// All is as before, for this reason.
    Undone(String),
    /// There was none.
    Nothing,
}

impl Outcome {
    fn parse(said: &str) -> Self {
        let line = said.lines().next().unwrap_or("");
        let (word, why) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "installing" | "undoing" => Self::Busy,
            "waiting" => Self::Waiting,
            "confirmed" => Self::Confirmed,
            "undone" => Self::Undone(printable(why.trim())),
            _ => Self::Nothing,
        }
    }
}

/// A router that can be reached.
pub struct Router {
    ssh: Ssh,
}

impl Router {
    /// Reaches it, brings the script, and asks what it is.
    pub fn connect(ssh: Ssh) -> Result<(Self, Facts)> {
        let router = Self { ssh };
        let place = format!("mkdir -p -m 700 {FOLDER} && cat >{FOLDER}/install.sh");
        router.ssh.run(&place, SCRIPT)?;
        let facts = Facts::parse(&router.script("facts")?);
        Ok((router, facts))
    }

    /// Brings a package and has its program tried in the router's memory; returns the program's size in KiB.
    pub fn prepare(&self, package: &Package, facts: &Facts) -> Result<u64> {
        let bytes = package.bytes()?;
        let most = facts.memory_kib.saturating_sub(MARGIN_KIB);
        // Beside the package its program is unpacked there; it is two to three times as large.
        if u64::try_from(bytes.len())
            .unwrap_or(u64::MAX)
            .div_ceil(1024)
            .saturating_mul(4)
            > most
        {
            return Err(Error::Input {
                what: format!("there is too little memory: {} free", kib(facts.memory_kib)),
                next: "Restart the router, so that nothing else is in its memory, and try again."
                    .into(),
            });
        }
        let sum = data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, &bytes).as_ref());
        self.ssh
            .run(&format!("cat >{FOLDER}/{}", package.name), &bytes)?;
        let said = self.script(&format!("prepare {FOLDER}/{} {sum}", package.name))?;
        let size = said
            .lines()
            .find_map(|line| line.strip_prefix("program_kib "));
        size.and_then(|size| size.trim().parse().ok())
            .ok_or_else(|| self.ssh.fault("it did not say how large the program is"))
    }

    /// Starts the installation; it is undone after `patience`, unless it is confirmed.
    pub fn install(&self, package: &Package, patience: Duration) -> Result<()> {
        let seconds = patience.as_secs();
        self.script(&format!("install {FOLDER}/{} {seconds}", package.name))?;
        Ok(())
    }

    /// How far it is.
    pub fn outcome(&self) -> Result<Outcome> {
        Ok(Outcome::parse(&self.script("outcome")?))
    }

    /// Whether altnet runs and the router does what it did before, asked by a connection of its own.
    pub fn check(&self) -> Result<()> {
        let asked = format!("sh {FOLDER}/install.sh check");
        self.ssh.run_anew(&asked)?;
        Ok(())
    }

    /// Keeps what was installed.
    pub fn confirm(&self) -> Result<()> {
        self.script("confirm")?;
        Ok(())
    }

    /// Undoes it now.
    pub fn undo(&self, why: &str) -> Result<()> {
        self.script(&format!("undo {}", quoted(why)))?;
        Ok(())
    }

    fn script(&self, action: &str) -> Result<String> {
        self.ssh
            .run(&format!("sh {FOLDER}/install.sh {action}"), &[])
    }
}

/// One word for the router's shell.
fn quoted(text: &str) -> String {
    format!("'{}'", printable(text).replace('\'', r"'\''"))
}

/// A stranger's words, for a terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn kib(kib: u64) -> String {
    text::bytes(kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "release 24.10.2\nmanager opkg\narch all noarch mipsel_24kc \nboard glinet,gl-mt300n-v2\nmodel GL-MT300N V2\nflash_kib 6000\nflash_kind jffs2\nmemory_kib 60000\nkmod_tun no\ninstalled \nprogram_kib \nnames yes\npending no\n";

    fn packages() -> Vec<Package> {
        [
            "altnet_0.1.0-r1_aarch64_cortex-a53.ipk",
            "altnet_0.1.0-r1_mipsel_24kc.apk",
            "altnet_0.1.0-r1_mipsel_24kc.ipk",
        ]
        .map(|name| Package::named(Path::new(name)).unwrap())
        .to_vec()
    }

    #[test]
    fn the_package_is_that_for_the_router() {
        let facts = Facts::parse(SAID);
        assert_eq!(facts.model, "GL-MT300N V2");
        assert!(facts.has_names && !facts.has_tun && facts.installed.is_none());
        let packages = packages();
        let found = choose(&packages, &facts).unwrap();
        assert_eq!(found.name, "altnet_0.1.0-r1_mipsel_24kc.ipk");
        let later = Facts {
            manager: "apk".into(),
            ..facts.clone()
        };
        assert!(choose(&packages, &later).unwrap().name.ends_with(".apk"));
        let other = Facts {
            architectures: vec!["x86_64".into()],
            ..facts
        };
        let said = choose(&packages, &other).unwrap_err().to_string();
        assert!(said.contains("x86_64"), "{said}");
    }

    #[test]
    fn room_is_reckoned_as_the_flash_is() {
        let facts = Facts::parse(SAID);
        // 2.6 MB packed; not twice, beside a margin.
        let space = facts.space(2_700_000, 5600).unwrap();
        assert_eq!(space.needed_kib, 2637 + MARGIN_KIB);
        let update = Facts {
            installed: Some("0.1.0-r1".into()),
            program_kib: 5600,
            ..facts.clone()
        };
        assert!(!update.space(2_700_000, 5600).unwrap().keeps_on_flash);
        let roomy = Facts {
            flash_kib: 7000,
            ..update
        };
        assert!(roomy.space(2_700_000, 5600).unwrap().keeps_on_flash);
        let plain = Facts {
            flash_kind: "ext4".into(),
            ..facts.clone()
        };
        assert!(plain.space(2_700_000, 5600).is_err());
        let none = Facts::parse("");
        assert!(none.space(2_700_000, u64::MAX).is_err());
    }

    #[test]
    fn names_that_a_shell_would_read_otherwise_are_refused() {
        for name in [
            "altnet_1_$(reboot).ipk",
            "altnet_1_x;y.apk",
            "other_1_x.ipk",
            "altnet_1_x.deb",
            "altnet_1 2_x.ipk",
        ] {
            assert!(Package::named(Path::new(name)).is_err(), "{name}");
        }
        assert_eq!(quoted("it's\n"), r"'it'\''s'");
    }

    #[test]
    fn outcomes_are_read_and_nothing_else() {
        assert_eq!(Outcome::parse("waiting\n"), Outcome::Waiting);
        assert_eq!(
            Outcome::parse("undone the \u{1b}[2Jpower failed\n"),
            Outcome::Undone("the [2Jpower failed".into())
        );
        assert_eq!(Outcome::parse(""), Outcome::Nothing);
    }
}
