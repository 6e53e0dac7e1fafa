//! The drives that an image may be written to, and why the others may not.
//!
//! In: what the kernel says of its block devices ([`Places`]). Out: cards and drives that can be taken
//! out and that nothing uses, and for each other disk the reason. The rules are strict on purpose: a
//! disk that holds a mounted file system, swap, or a part of LVM, RAID or encryption is in use, and one
//! that is built in is no place for an image, whoever asks. Linux alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

/// The most bytes of a file of the kernel's that are looked at.
const MAX_SAID_BYTES: usize = 1 << 20;
/// The most letters of a drive's own name.
const MAX_MODEL: usize = 48;
/// Devices that are no drives: names begin so.
const VIRTUAL: [&str; 9] = [
    "loop", "ram", "zram", "dm-", "md", "nbd", "sr", "fd", "drbd",
];

/// Where the kernel says what there is.
#[derive(Clone, Debug)]
pub struct Places {
    /// sysfs.
    pub sys: PathBuf,
    /// The devices' nodes.
    pub dev: PathBuf,
    /// procfs.
    pub proc: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
            proc: "/proc".into(),
        }
    }
}

/// How a drive is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Bus {
    /// A slot for SD cards.
    Sd,
    /// USB.
    Usb,
    /// Another one whose media can be taken out.
    Other,
}

impl Bus {
    /// A word for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sd => "SD",
            Self::Usb => "USB",
            Self::Other => "removable",
        }
    }
}

/// A drive that an image may be written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drive {
    /// The kernel's name.
    pub name: String,
    /// Its node.
    pub device: PathBuf,
    /// What it calls itself.
    pub model: String,
    /// How it is connected.
    pub bus: Bus,
    /// How large it is.
    pub bytes: u64,
    /// The kernel's number, as `8:16`.
    #[serde(skip)]
    number: String,
}

/// Why a disk isn't written to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unfit {
    /// Its medium can't be taken out.
    #[error("it is built in, not a card or a drive on USB")]
    BuiltIn,
    /// The system's own root is on it.
    #[error("the system runs from it")]
    System,
    /// A file system of it is mounted.
    #[error("its file system is mounted on {at}; unmount it first")]
    Mounted {
        /// Where.
        at: String,
    },
    /// The system swaps to it.
    #[error("the system swaps to it")]
    Swap,
    /// Something is made of it.
    #[error("{holder} is made of it (LVM, RAID or encryption)")]
    Held {
        /// What is.
        holder: String,
    },
    /// Nothing is in its slot.
    #[error("no card is in it")]
    Empty,
    /// It can't be written.
    #[error("it is write-protected")]
    ReadOnly,
    /// Sectors of another size than images are made for.
    #[error("its sectors have {bytes} bytes, and images are made for 512")]
    Sectors {
        /// How many they have.
        bytes: u64,
    },
}

/// A disk that isn't written to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Other {
    /// The kernel's name.
    pub name: String,
    /// What it calls itself.
    pub model: String,
    /// How large it is, in bytes.
    pub bytes: u64,
    /// Why not.
    #[serde(serialize_with = "as_text")]
    pub why: Unfit,
}

/// All disks, in the order of their names.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Survey {
    /// Those that an image may be written to.
    pub drives: Vec<Drive>,
    /// Those that not.
    pub others: Vec<Other>,
}

impl Survey {
    /// Looks at every disk.
    ///
    /// # Errors
    /// [`Error::Io`] if the kernel doesn't say; [`Error::Input`] on other systems than Linux.
    pub fn take(places: &Places) -> Result<Self> {
        if !cfg!(target_os = "linux") {
            return Err(Error::input(
                "which drives can be written to is known on Linux alone",
                "`altnet-provision image customize` makes a file that any program for writing cards takes.",
            ));
        }
        let folder = places.sys.join("block");
        let read = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(&folder)?;
            let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            names.collect()
        };
        let mut names = read().map_err(Error::io("read", &folder))?;
        names.sort();
        let uses = Uses::read(places)?;
        let mut survey = Self::default();
        for name in names.into_iter().filter(|name| is_disk(name)) {
            let disk = Disk::read(places, &name);
            match disk.unfit(&uses) {
                None => survey.drives.push(Drive {
                    device: places.dev.join(&name),
                    model: disk.model,
                    bus: disk.bus.unwrap_or(Bus::Other),
                    bytes: disk.bytes,
                    number: disk.number,
                    name,
                }),
                Some(why) => survey.others.push(Other {
                    name,
                    model: disk.model,
                    bytes: disk.bytes,
                    why,
                }),
            }
        }
        Ok(survey)
    }

    /// The drive that a person calls `called`: its node, a link to that, or its name alone.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] with the reason, or [`Error::NotFound`].
    pub fn find(&self, places: &Places, called: &Path) -> Result<&Drive> {
        let node = match called.components().count() {
            1 => places.dev.join(called),
            _ => called.to_path_buf(),
        };
        let node = fs::canonicalize(&node).unwrap_or(node);
        let name = node.file_name().unwrap_or_default().to_string_lossy();
        let is_there = node.parent() == fs::canonicalize(&places.dev).ok().as_deref();
        let list = "`altnet-provision flash --list` shows what it can be written to.";
        if is_there {
            if let Some(drive) = self.drives.iter().find(|drive| drive.name == name) {
                return Ok(drive);
            }
            if let Some(other) = self.others.iter().find(|other| other.name == name) {
                return Err(Error::not_allowed(
                    format!("{} is not written to: {}", called.display(), other.why),
                    list,
                ));
            }
            let class = places.sys.join("class/block").join(&*name);
            if class.join("partition").exists() {
                return Err(Error::not_allowed(
                    format!(
                        "{} is a partition, and an image is a whole disk",
                        called.display()
                    ),
                    list,
                ));
            }
        }
        Err(Error::not_found(
            format!(
                "{} is no drive that an image can be written to",
                called.display()
            ),
            list,
        ))
    }
}

impl Drive {
    /// Opens the drive so that nobody else mounts or writes it meanwhile.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] if this user may not, it is in use, or it is another one by now; [`Error::Io`].
    pub fn open(&self) -> Result<File> {
        use std::os::unix::fs::{FileTypeExt, MetadataExt};
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::OFlags;
            use std::os::unix::fs::OpenOptionsExt;
            // Without O_CREAT the kernel takes this as a claim of the whole disk.
            options.custom_flags((OFlags::EXCL | OFlags::NOFOLLOW).bits().cast_signed());
        }
        let shown = self.device.display();
        let file = options
            .open(&self.device)
            .map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => Error::not_allowed(
                    format!("this user may not write {shown}"),
                    "Run the same command with `sudo`.",
                ),
                io::ErrorKind::ResourceBusy => Error::not_allowed(
                    format!("{shown} is in use"),
                    "Close what uses it, unmount it, and try again.",
                ),
                _ => Error::io("open", &self.device)(error),
            })?;
        let found = file.metadata().map_err(Error::io("open", &self.device))?;
        let number = number(found.rdev());
        if !found.file_type().is_block_device() || number != self.number {
            return Err(Error::not_allowed(
                format!("{shown} is another device than it was a moment ago"),
                "Look again with `altnet-provision flash --list`.",
            ));
        }
        Ok(file)
    }

    /// Has the kernel read the partition table anew. False if it didn't; then it does when the drive is
    /// plugged in again.
    pub fn reread(&self) -> bool {
        let mut command = std::process::Command::new("blockdev");
        let run = command.arg("--rereadpt").arg(&self.device).output();
        run.is_ok_and(|done| done.status.success())
    }
}

/// What the kernel says of a disk.
struct Disk {
    model: String,
    bus: Option<Bus>,
    bytes: u64,
    number: String,
    is_read_only: bool,
    sector_bytes: u64,
    /// Itself and its partitions: name and number.
    parts: Vec<(String, String)>,
    holder: Option<String>,
}

impl Disk {
    fn read(places: &Places, name: &str) -> Self {
        let folder = places.sys.join("block").join(name);
        let word = |file: &str| said(&folder.join(file));
        let mut parts = vec![(name.to_owned(), word("dev"))];
        let mut holder = held(&folder);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.path().join("partition").exists() {
                let part = entry.file_name().to_string_lossy().into_owned();
                parts.push((part, said(&entry.path().join("dev"))));
                holder = holder.or_else(|| held(&entry.path()));
            }
        }
        let texts = ["device/vendor", "device/model", "device/name"].map(word);
        Self {
            model: model(&texts),
            bus: bus(&folder),
            // The kernel counts in 512 bytes, whatever the disk does.
            bytes: word("size").parse().unwrap_or(0u64).saturating_mul(512),
            number: word("dev"),
            is_read_only: word("ro") == "1",
            sector_bytes: word("queue/logical_block_size").parse().unwrap_or(512),
            parts,
            holder,
        }
    }

    fn unfit(&self, uses: &Uses) -> Option<Unfit> {
        // First what nobody can change.
        let mounts: Vec<&str> = self
            .parts
            .iter()
            .flat_map(|part| uses.mounts(part))
            .collect();
        if mounts.contains(&"/") {
            return Some(Unfit::System);
        }
        if self.bus.is_none() {
            return Some(Unfit::BuiltIn);
        }
        if let Some(holder) = &self.holder {
            let holder = holder.clone();
            return Some(Unfit::Held { holder });
        }
        if let Some(at) = mounts.first() {
            let at = (*at).to_owned();
            return Some(Unfit::Mounted { at });
        }
        if self.parts.iter().any(|(name, _)| uses.swaps.contains(name)) {
            return Some(Unfit::Swap);
        }
        if self.bytes == 0 {
            return Some(Unfit::Empty);
        }
        if self.is_read_only {
            return Some(Unfit::ReadOnly);
        }
        let bytes = self.sector_bytes;
        (bytes != 512).then_some(Unfit::Sectors { bytes })
    }
}

/// What the system uses disks for.
struct Uses {
    /// Number, name of the device if it has one, and where it is mounted.
    mounts: Vec<(String, Option<String>, String)>,
    /// Names of the devices.
    swaps: Vec<String>,
}

impl Uses {
    /// What can't be read is an error: a mounted disk must not look free.
    fn read(places: &Places) -> Result<Self> {
        let text = |file: &str| -> Result<String> {
            let path = places.proc.join(file);
            let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let name = |device: &str| {
            // Such as /dev/mapper/root, which leads to the kernel's own name.
            let within = Path::new(device).strip_prefix("/dev").ok()?;
            let node = fs::canonicalize(places.dev.join(within)).ok()?;
            Some(node.file_name()?.to_string_lossy().into_owned())
        };
        // proc_pid_mountinfo(5): id, parent, major:minor, root, mount point, options..., -, type, source.
        let mounts = text("self/mountinfo")?
            .lines()
            .filter_map(|line| {
                let (first, second) = line.split_once(" - ")?;
                let mut words = first.split(' ').skip(2);
                let number = words.next()?.to_owned();
                let at = words.nth(1)?.to_owned();
                let source = second.split(' ').nth(1).and_then(name);
                Some((number, source, at))
            })
            .collect();
        // A kernel without swapping has no such file.
        let swaps = text("swaps").unwrap_or_default();
        let swaps = swaps.lines().skip(1);
        let swaps = swaps.filter_map(|line| name(line.split_whitespace().next()?));
        Ok(Self {
            mounts,
            swaps: swaps.collect(),
        })
    }

    /// Where a disk or partition, by its name and number, is mounted.
    fn mounts<'a>(&'a self, part: &'a (String, String)) -> impl Iterator<Item = &'a str> {
        let (name, number) = part;
        let known = self.mounts.iter();
        known
            .filter(move |(known, source, _)| known == number || source.as_ref() == Some(name))
            .map(|(_, _, at)| at.as_str())
    }
}

fn is_disk(name: &str) -> bool {
    // An eMMC's boot areas and its replay-protected one are devices of their own.
    let is_area = name.starts_with("mmcblk") && (name.contains("boot") || name.contains("rpmb"));
    !is_area && !VIRTUAL.iter().any(|begins| name.starts_with(begins))
}

/// How a disk is connected, if its medium can be taken out.
fn bus(folder: &Path) -> Option<Bus> {
    let path = fs::canonicalize(folder).ok()?;
    let is_on = |begins: &str| {
        let mut words = path.components().map(|word| word.as_os_str());
        words.any(|word| word.to_string_lossy().starts_with(begins))
    };
    if is_on("mmc_host") {
        // An eMMC is soldered in and says MMC.
        return (said(&folder.join("device/type")) == "SD").then_some(Bus::Sd);
    }
    if is_on("usb") {
        return Some(Bus::Usb);
    }
    (said(&folder.join("removable")) == "1").then_some(Bus::Other)
}

fn held(folder: &Path) -> Option<String> {
    let mut entries = fs::read_dir(folder.join("holders")).ok()?;
    let first = entries.next()?.ok()?;
    Some(first.file_name().to_string_lossy().into_owned())
}

/// What a device calls itself, without what could move a terminal's cursor.
fn model(texts: &[String]) -> String {
    let words = texts.iter().flat_map(|text| text.split_whitespace());
    let text = words.collect::<Vec<_>>().join(" ");
    let is_plain = |letter: &char| letter.is_ascii_graphic() || *letter == ' ';
    text.chars().filter(is_plain).take(MAX_MODEL).collect()
}

fn said(path: &Path) -> String {
    let mut bytes = fs::read(path).unwrap_or_default();
    bytes.truncate(MAX_SAID_BYTES);
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(target_os = "linux")]
fn number(device: u64) -> String {
    use rustix::fs::{major, minor};
    format!("{}:{}", major(device), minor(device))
}

#[cfg(not(target_os = "linux"))]
fn number(device: u64) -> String {
    device.to_string()
}

fn as_text<S: serde::Serializer>(why: &Unfit, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.collect_str(why)
}
