//! Which disks an image may be written to, by what a kernel says of them, and one that is really there.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use altnet_provision::Error;
use altnet_provision::drives::{Bus, Places, Survey, Unfit};
use common::Computer;
use tempfile::TempDir;

/// A computer as its kernel tells of it.
struct Kernel {
    folder: TempDir,
    mounts: String,
    swaps: String,
}

impl Kernel {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["sys/block", "sys/class/block", "dev", "proc/self"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        Self {
            folder,
            mounts: "21 1 0:20 / /proc rw - proc proc rw\n".into(),
            swaps: "Filename\tType\tSize\tUsed\tPriority\n".into(),
        }
    }

    fn places(&self) -> Places {
        let at = |name: &str| self.folder.path().join(name);
        fs::write(at("proc/self/mountinfo"), &self.mounts).unwrap();
        fs::write(at("proc/swaps"), &self.swaps).unwrap();
        Places {
            sys: at("sys"),
            dev: at("dev"),
            proc: at("proc"),
        }
    }

    /// A disk below `bus`, with files of its own.
    fn disk(&mut self, name: &str, number: &str, bus: &str, words: &[(&str, &str)]) -> &mut Self {
        let device = format!("sys/devices/{bus}/block/{name}");
        let place = self.folder.path().join(&device);
        fs::create_dir_all(place.join("holders")).unwrap();
        let usual = [
            ("dev", number),
            ("size", "62333952"),
            ("removable", "0"),
            ("ro", "0"),
            ("queue/logical_block_size", "512"),
        ];
        for (file, text) in usual.iter().chain(words) {
            let path = place.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        fs::write(self.folder.path().join("dev").join(name), "").unwrap();
        let device = self.folder.path().join(device);
        symlink(&device, self.folder.path().join("sys/block").join(name)).unwrap();
        symlink(
            &device,
            self.folder.path().join("sys/class/block").join(name),
        )
        .unwrap();
        self
    }

    fn part(&mut self, disk: &str, name: &str, number: &str) -> PathBuf {
        let disk = fs::canonicalize(self.folder.path().join("sys/block").join(disk)).unwrap();
        let place = disk.join(name);
        fs::create_dir_all(place.join("holders")).unwrap();
        fs::write(place.join("partition"), "1\n").unwrap();
        fs::write(place.join("dev"), format!("{number}\n")).unwrap();
        fs::write(self.folder.path().join("dev").join(name), "").unwrap();
        symlink(
            &place,
            self.folder.path().join("sys/class/block").join(name),
        )
        .unwrap();
        place
    }

    fn survey(&self) -> Survey {
        Survey::take(&self.places()).unwrap()
    }

    /// Why the only disk isn't written to; None if it may be.
    fn why(&self) -> Option<Unfit> {
        let survey = self.survey();
        assert_eq!(survey.drives.len() + survey.others.len(), 1, "{survey:?}");
        survey.others.into_iter().next().map(|other| other.why)
    }
}

const USB: &str = "pci0000:00/0000:00:14.0/usb2/2-1/host6/target6:0:0/6:0:0:0";
const ATA: &str = "pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0";
const MMC: &str = "platform/soc/mmc_host/mmc0/mmc0:aaaa";

/// A stick on USB with a partition.
fn stick() -> Kernel {
    let mut kernel = Kernel::new();
    let words = [
        ("removable", "1"),
        ("device/vendor", "SanDisk "),
        ("device/model", "Ultra\u{1b}[2J  Fit"),
    ];
    kernel
        .disk("sdb", "8:16", USB, &words)
        .part("sdb", "sdb1", "8:17");
    kernel
}

#[test]
fn cards_and_sticks_are_listed_with_what_they_are() {
    let mut kernel = stick();
    kernel
        .disk(
            "mmcblk0",
            "179:0",
            MMC,
            &[("device/type", "SD"), ("device/name", "SC32G")],
        )
        .disk("mmcblk0boot0", "179:8", MMC, &[("device/type", "SD")])
        .disk("sdc", "8:32", ATA, &[("removable", "1")])
        .disk("loop0", "7:0", "virtual", &[("removable", "1")])
        .disk("sr0", "11:0", USB, &[("removable", "1")])
        .disk("zram0", "252:0", "virtual", &[]);
    let survey = kernel.survey();
    assert!(survey.others.is_empty(), "{:?}", survey.others);
    let found: Vec<_> = survey
        .drives
        .iter()
        .map(|drive| (drive.name.as_str(), drive.bus, drive.model.as_str()))
        .collect();
    // What could move a terminal's cursor is left out.
    assert_eq!(
        found,
        [
            ("mmcblk0", Bus::Sd, "SC32G"),
            ("sdb", Bus::Usb, "SanDisk Ultra[2J Fit"),
            ("sdc", Bus::Other, "")
        ]
    );
    assert_eq!(survey.drives[1].bytes, 31_914_983_424);
}

#[test]
fn a_disk_that_is_built_in_is_refused_with_the_reason() {
    for (bus, words) in [
        (ATA, [].as_slice()),
        ("pci0000:00/nvme/nvme0", &[]),
        (MMC, &[("device/type", "MMC")]),
    ] {
        let mut kernel = Kernel::new();
        kernel.disk("disk", "8:0", bus, words);
        assert_eq!(kernel.why(), Some(Unfit::BuiltIn), "{bus}");
    }
}

#[test]
fn a_disk_in_use_is_refused_with_the_reason() {
    assert_eq!(stick().why(), None);
    let mounted = |at: &str| Some(Unfit::Mounted { at: at.into() });
    // By number; by name alone, as for file systems on several disks.
    for (line, at) in [
        (
            "30 1 8:17 / /media/anna/BOOT rw shared:1 - vfat /dev/sdb1 rw",
            "/media/anna/BOOT",
        ),
        ("30 1 8:16 / /mnt rw - ext4 /dev/sdb rw", "/mnt"),
        ("30 1 0:44 /@ /home rw - btrfs /dev/sdb1 rw", "/home"),
        ("30 1 0:44 /@ /srv rw - btrfs /dev/disk rw", "/srv"),
    ] {
        let mut kernel = stick();
        symlink("sdb1", kernel.folder.path().join("dev/disk")).unwrap();
        kernel.mounts.push_str(line);
        assert_eq!(kernel.why(), mounted(at), "{line}");
    }
    let mut kernel = stick();
    kernel.mounts.push_str(
        "30 1 8:17 / /boot rw - ext4 /dev/sdb1 rw\n31 1 8:17 /@ / rw - ext4 /dev/sdb1 rw\n",
    );
    assert_eq!(kernel.why(), Some(Unfit::System));
    let mut kernel = stick();
    kernel
        .mounts
        .push_str("30 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
    assert_eq!(kernel.why(), None);
    kernel.swaps.push_str("/dev/sdb1   partition\t100\t0\t-2\n");
    assert_eq!(kernel.why(), Some(Unfit::Swap));
    for place in ["holders", "sdb1/holders"] {
        let kernel = stick();
        let disk = fs::canonicalize(kernel.folder.path().join("sys/block/sdb")).unwrap();
        fs::create_dir(disk.join(place).join("dm-0")).unwrap();
        assert_eq!(
            kernel.why(),
            Some(Unfit::Held {
                holder: "dm-0".into()
            }),
            "{place}"
        );
    }
}

#[test]
fn a_drive_that_cannot_take_an_image_is_refused_with_the_reason() {
    for (file, text, why) in [
        ("size", "0", Unfit::Empty),
        ("ro", "1", Unfit::ReadOnly),
        (
            "queue/logical_block_size",
            "4096",
            Unfit::Sectors { bytes: 4096 },
        ),
    ] {
        let mut kernel = Kernel::new();
        kernel.disk("sdb", "8:16", USB, &[(file, text)]);
        assert_eq!(kernel.why(), Some(why));
    }
}

#[test]
fn what_is_mounted_has_to_be_known() {
    let kernel = stick();
    let places = kernel.places();
    fs::remove_file(places.proc.join("self/mountinfo")).unwrap();
    assert!(matches!(Survey::take(&places), Err(Error::Io { .. })));
}

#[test]
fn a_drive_is_found_by_its_name_its_node_and_links_to_that() {
    let mut kernel = stick();
    kernel
        .disk("sda", "8:0", ATA, &[])
        .part("sda", "sda1", "8:1");
    let places = kernel.places();
    fs::create_dir_all(places.dev.join("disk/by-id")).unwrap();
    symlink("../../sdb", places.dev.join("disk/by-id/usb-SanDisk")).unwrap();
    let survey = kernel.survey();
    for called in [
        PathBuf::from("sdb"),
        places.dev.join("sdb"),
        places.dev.join("disk/by-id/usb-SanDisk"),
    ] {
        assert_eq!(survey.find(&places, &called).unwrap().name, "sdb");
    }
    let refused = |called: &Path| survey.find(&places, called).unwrap_err().to_string();
    assert!(refused(Path::new("sda")).contains("built in"));
    assert!(refused(&places.dev.join("sdb1")).contains("is a partition"));
    assert!(refused(Path::new("sdz")).contains("is no drive"));
    // A file of that name elsewhere is not the drive.
    let elsewhere = places.proc.join("sdb");
    fs::write(&elsewhere, "").unwrap();
    assert!(refused(&elsewhere).contains("is no drive"));
}

#[test]
fn a_node_that_is_no_device_is_not_written_to() {
    let kernel = stick();
    let survey = kernel.survey();
    let error = survey.drives[0].open().unwrap_err();
    assert!(error.to_string().contains("another device"), "{error}");
}

#[test]
fn the_command_lists_drives_and_writes_to_nothing_else() {
    let computer = Computer::new();
    let listed = computer.json(&["flash", "--list"]);
    assert!(
        listed["drives"].is_array() && listed["others"].is_array(),
        "{listed}"
    );
    fs::write(computer.file("a.img"), "no image").unwrap();
    fs::write(computer.file("disk"), "a file").unwrap();
    let said = computer.refused(&["flash", "a.img", "--to", "./disk", "--yes"]);
    assert!(
        said.contains("is no drive") && said.contains("flash --list"),
        "{said}"
    );
    assert_eq!(fs::read(computer.file("disk")).unwrap(), b"a file");
    for wrong in [
        &["flash"][..],
        &["flash", "a.img", "--yes"],
        &["flash", "--list", "a.img"],
    ] {
        assert_eq!(computer.run(wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// A disk that is a file, as the kernel shows it.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[test]
#[ignore = "needs root and a loop device: ci/install updates"]
fn a_real_disk_is_claimed_written_and_read_back() {
    use altnet_provision::image::first_boot::FirstBoot;
    use altnet_provision::image::write::{Medium, write};
    use altnet_provision::image::{Image, table::Table};
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("card");
    let bytes = 300u64 << 20;
    fs::File::create(&file).unwrap().set_len(bytes).unwrap();
    let run = Command::new("losetup")
        .args(["--find", "--show"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let node = Loop(String::from_utf8(run.stdout).unwrap().trim().to_owned());

    // As a stick on USB: loop devices are none that images are written to.
    let number = fs::metadata(&node.0).unwrap().rdev();
    let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
    let mut kernel = Kernel::new();
    let sectors = (bytes / 512).to_string();
    kernel.disk(
        "sdz",
        &format!("{major}:{minor}"),
        USB,
        &[("size", &sectors)],
    );
    let places = kernel.places();
    fs::remove_file(places.dev.join("sdz")).unwrap();
    let made = Command::new("mknod")
        .arg(places.dev.join("sdz"))
        .args(["b", &major.to_string(), &minor.to_string()])
        .status();
    assert!(made.unwrap().success());

    let survey = Survey::take(&places).unwrap();
    let drive = &survey.drives[0];
    let looked = Image::open(&common::disk_image("gpt")).unwrap();
    let plan = looked.plan(drive.bytes, &FirstBoot::default()).unwrap();
    let claimed = drive.open().unwrap();
    let error = drive.open().unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    write(
        &looked,
        &plan,
        &mut Medium::disk(claimed),
        &drive.device,
        &mut |_| {},
    )
    .unwrap();
    drive.open().unwrap();

    let mut head = vec![0; 64 << 10];
    fs::File::open(&file)
        .unwrap()
        .read_exact(&mut head)
        .unwrap();
    let data = Table::read(&head).unwrap().data();
    assert_eq!(
        (data.bytes(), data.end()),
        (plan.data_bytes, (299 << 20) / 512)
    );
}
