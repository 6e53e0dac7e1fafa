//! Releases and boxes made of files.
#![allow(dead_code, reason = "each test file uses a part")]

use std::fs;
use std::path::{Path, PathBuf};

use altnet_update::appliance::{Appliance, Places};
use altnet_update::choice::{self, Choice, Format, Slot};
use altnet_update::disk::FileDisk;
use altnet_update::keys::{ReleaseKey, Signed};
use altnet_update::make;
use altnet_update::manifest::{Manifest, signed_hash};
use altnet_wire::time::UnixTime;
use ed25519_dalek::{Signer, SigningKey};

pub const NOW: UnixTime = UnixTime::from_secs(1_795_000_000);
pub const SLOT_BYTES: usize = (1 << 20) + 4096;

pub fn key(number: u8) -> ReleaseKey {
    let secret = SigningKey::from_bytes(&[number; 32]);
    ReleaseKey(secret.verifying_key().to_bytes())
}

pub fn sign(number: u8, manifest: &[u8]) -> Signed {
    let secret = SigningKey::from_bytes(&[number; 32]);
    Signed {
        key: key(number),
        signature: secret.sign(&signed_hash(manifest)).to_bytes(),
    }
}

/// A slot with a boot sector.
pub fn slot(fill: u8) -> Vec<u8> {
    let mut slot = vec![fill; SLOT_BYTES];
    slot[510..512].copy_from_slice(&[0x55, 0xaa]);
    slot
}

/// A bundle of `slot(fill)`, signed by the keys of these numbers.
pub fn bundle(fill: u8, signers: &[u8], change: impl Fn(&mut Manifest)) -> Vec<u8> {
    let mut packed = Vec::new();
    let (frames, slot_bytes) = make::pack(&slot(fill)[..], &mut packed).expect("it packs");
    let label = |text: &str| text.parse().expect("a label");
    let mut manifest = Manifest {
        product: label("altnet"),
        board: label("rpi"),
        version: label("0.2.0"),
        counter: 2,
        floor: 2,
        made: NOW,
        not_after: UnixTime::from_secs(NOW.as_secs() + 1_000_000),
        keys: None,
        slot_bytes,
        frames,
    };
    change(&mut manifest);
    let bytes = manifest.encode().expect("a manifest");
    let signed = signers.iter().map(|number| sign(*number, &bytes)).collect();
    let mut bundle = make::head(&bytes, signed).expect("a head");
    bundle.extend_from_slice(&packed);
    bundle
}

/// A box whose files lie in a folder.
pub struct House {
    folder: tempfile::TempDir,
    format: Format,
}

impl House {
    pub fn new(boot: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let format = Format::parse_name(boot).expect("a boot loader");
        let house = Self { folder, format };
        let keys = format!(
            "generation 1\nthreshold 2\nkey {}\nkey {}\nkey {}\n",
            key(1),
            key(2),
            key(3)
        );
        for (path, bytes) in [
            ("etc/altnet/release", b"product = \"altnet\"\nboard = \"rpi\"\nversion = \"0.1.0\"\ncounter = 1\nfloor = 1\nbuilt = 1790000000\n".to_vec()),
            ("etc/altnet/release-keys", keys.into_bytes()),
            ("etc/altnet/board.toml", format!("title = \"a board\"\n[boot]\nloader = \"{boot}\"\n").into_bytes()),
            ("dev/altnet/disk", vec![0; 12 << 20]),
            ("dev/altnet/slot-a", slot(1)),
            ("dev/altnet/slot-b", vec![0; SLOT_BYTES]),
            ("run/altnet/slot", b"A\n".to_vec()),
        ] {
            house.put(path, &bytes);
        }
        fs::create_dir_all(house.path("data/etc")).expect("made");
        house
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("made");
        fs::write(&path, bytes).expect("written");
        path
    }

    pub fn open(&self) -> Appliance {
        let places = Places::under(self.folder.path());
        Appliance::open(places).expect("a box")
    }

    /// Boots as the loader does.
    pub fn boot(&self) -> (Slot, Appliance) {
        let mut disk = FileDisk::open(&self.path("dev/altnet/disk")).expect("a disk");
        let standing = choice::read(&mut disk, self.format).expect("read");
        let (slot, counted) = standing.choice.begun();
        choice::write(&mut disk, self.format, counted).expect("written");
        let _ = fs::remove_dir_all(self.path("run"));
        self.put("run/altnet/slot", slot.to_string().as_bytes());
        (slot, self.open())
    }

    pub fn choice(&self) -> Choice {
        let mut disk = FileDisk::open(&self.path("dev/altnet/disk")).expect("a disk");
        choice::read(&mut disk, self.format).expect("read").choice
    }
}
