//! Releases: keys that sign them, and bundles that boxes install.
//!
//! What a bundle is and when a box takes it is in `altnet-update`; here it is made and signed. One key
//! signs it when it is made; the others are added without the first, by people who can compare the slot
//! in it with the one that they built themselves. Keys are files of their own, apart from any network.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use altnet_core::records::SigningSecret;
use altnet_update::bundle::Opened;
use altnet_update::keys::{KeySet, ReleaseKey, Signed, Trust, read_pinned};
use altnet_update::make;
use altnet_update::manifest::{Label, Manifest, PIECE_BYTES, signed_hash};
use altnet_update::verdict::Here;
use altnet_wire::time::UnixTime;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::sealed::{self, Passphrase};
use crate::{chance, files, text};

/// What the plain text of a key's file begins with.
const KEY_LABEL: &[u8] = b"altnet release key v1\n";

/// The secret half of a [`ReleaseKey`], in memory. Wiped when dropped, never printed.
pub struct ReleaseSecret(SigningSecret);

impl ReleaseSecret {
    /// Makes a key and keeps it encrypted in `path`, where no file is yet.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::Io`].
    pub fn create(path: &Path, passphrase: &Passphrase) -> Result<Self> {
        let seed = chance::secret()?;
        let mut plain = Zeroizing::new(Vec::with_capacity(KEY_LABEL.len() + seed.len()));
        plain.extend_from_slice(KEY_LABEL);
        plain.extend_from_slice(seed.as_ref());
        files::create(path, &sealed::seal(&plain, passphrase)?)?;
        Ok(Self(SigningSecret::from_bytes(&seed)))
    }

    /// Reads a key that was kept.
    ///
    /// # Errors
    /// [`Error::Exposed`], [`Error::Passphrase`], [`Error::Damaged`] or [`Error::Io`].
    pub fn read(path: &Path, passphrase: &Passphrase) -> Result<Self> {
        let plain = sealed::open(&files::read_private(path)?, passphrase, path)?;
        let seed = plain.strip_prefix(KEY_LABEL);
        let seed: Option<&[u8; 32]> = seed.and_then(|seed| seed.try_into().ok());
        let seed = seed.ok_or_else(|| Error::damaged(path, "it holds no release key"))?;
        Ok(Self(SigningSecret::from_bytes(seed)))
    }

    /// The public half.
    pub fn public(&self) -> ReleaseKey {
        ReleaseKey(self.0.public().0)
    }

    fn sign(&self, manifest: &[u8]) -> Signed {
        Signed {
            key: self.public(),
            signature: self.0.sign(&signed_hash(manifest)),
        }
    }
}

/// What is said of a release where it is made, in TOML.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Described {
    /// Whose release it is.
    #[serde(default = "ours")]
    pub product: Label,
    /// The board it is for.
    pub board: Label,
    /// For people.
    pub version: Label,
    /// Higher than that of every release before, of this board.
    pub counter: u64,
    /// Once it is confirmed, boxes refuse releases whose counter is below.
    pub floor: u64,
    /// For how long it can be installed, as in `180d`.
    pub lasts: String,
    /// The release keys that count once it is confirmed.
    pub keys: Option<DescribedKeys>,
}

/// A set of release keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DescribedKeys {
    /// Higher than that of the set before.
    pub generation: u32,
    /// How many must sign.
    pub threshold: u8,
    /// The keys, as `release key create` prints them.
    pub keys: Vec<String>,
}

fn ours() -> Label {
    "altnet".parse().expect("six letters")
}

impl Described {
    /// Reads a description.
    ///
    /// # Errors
    /// [`Error::Input`] with the line, or [`Error::Io`].
    pub fn read(path: &Path) -> Result<Self> {
        let said = |why: String| {
            Error::input(
                format!("{}: {why}", path.display()),
                "It takes board, version, counter, floor and lasts, as in lasts = \"180d\".",
            )
        };
        let bytes = files::read(path)?;
        let text = String::from_utf8(bytes).map_err(|_| said("it is not text".into()))?;
        toml::from_str(&text).map_err(|error| said(error.to_string().trim_end().to_owned()))
    }

    fn keys(&self) -> Result<Option<KeySet>> {
        let Some(said) = &self.keys else {
            return Ok(None);
        };
        let wrong = |why: String| {
            Error::input(
                format!("the release keys that it brings: {why}"),
                "Give each key as `altnet-provision release key create` printed it.",
            )
        };
        let read = |text: &String| {
            let key = text.parse::<ReleaseKey>();
            key.map_err(|error| wrong(format!("`{text}`: {error}")))
        };
        let keys = said.keys.iter().map(read).collect::<Result<Vec<_>>>()?;
        let set = KeySet::new(said.generation, said.threshold, keys);
        set.map(Some).map_err(|error| wrong(error.to_string()))
    }
}

/// Makes a bundle of the slot in the file `slot`, signed by one key, at `output`, where no file is
/// yet. It is held in memory until it is written.
///
/// # Errors
/// [`Error::Input`] if the description or the slot makes no release; [`Error::Exists`] or [`Error::Io`].
pub fn sign(
    described: &Described,
    slot: &Path,
    secret: &ReleaseSecret,
    output: &Path,
    now: UnixTime,
) -> Result<Summary> {
    let lasts = text::duration(&described.lasts)?;
    let keys = described.keys()?;
    let file = File::open(slot).map_err(Error::io("read", slot))?;
    let mut packed = Vec::new();
    let (frames, slot_bytes) = make::pack(BufReader::new(file), &mut packed)
        .map_err(|error| unmade(&error.to_string()))?;
    let manifest = Manifest {
        product: described.product.clone(),
        board: described.board.clone(),
        version: described.version.clone(),
        counter: described.counter,
        floor: described.floor,
        made: now,
        not_after: now.after(lasts),
        keys,
        slot_bytes,
        frames,
    };
    let bytes = manifest
        .encode()
        .map_err(|error| unmade(&error.to_string()))?;
    let signed = vec![secret.sign(&bytes)];
    write(&bytes, signed, &packed, output)?;
    show(output)
}

/// Adds a key's signature to the bundle in a file, after a look at all of it, and writes the outcome
/// to `output`, where no file is yet. With `slot`, what is in the bundle must be that very slot.
///
/// # Errors
/// [`Error::Damaged`] if the bundle is; [`Error::NotAllowed`] if its slot is another; [`Error::Exists`] or
/// [`Error::Io`].
pub fn cosign(
    bundle: &Path,
    slot: Option<&Path>,
    secret: &ReleaseSecret,
    output: &Path,
) -> Result<Summary> {
    compare(bundle, slot)?;
    let opened = open(bundle)?;
    let manifest = opened.manifest_bytes().to_vec();
    let mut signed = opened.signatures().to_vec();
    if signed.iter().any(|signed| signed.key == secret.public()) {
        return Err(Error::exists(
            format!("{} has the signature of this key already", bundle.display()),
            "Another key's is needed: `altnet-provision release show` says whose it has.",
        ));
    }
    signed.push(secret.sign(&manifest));
    let mut packed = Vec::new();
    opened
        .into_stream()
        .read_to_end(&mut packed)
        .map_err(Error::io("read", bundle))?;
    write(&manifest, signed, &packed, output)?;
    show(output)
}

fn write(manifest: &[u8], signed: Vec<Signed>, packed: &[u8], output: &Path) -> Result<()> {
    let mut bundle = make::head(manifest, signed).map_err(|error| unmade(&error.to_string()))?;
    bundle.extend_from_slice(packed);
    files::create(output, &bundle)
}

fn unmade(why: &str) -> Error {
    Error::input(
        format!("this makes no release: {why}"),
        "Check the description and the image of the slot; nothing was written.",
    )
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Whose release it is.
    pub product: String,
    /// The board it is for.
    pub board: String,
    /// For people.
    pub version: String,
    /// Grows with each release.
    pub counter: u64,
    /// What it raises the floor to.
    pub floor: u64,
    /// When it was made.
    pub made: String,
    /// Until when it can be installed.
    pub not_after: String,
    /// The release keys that it brings.
    pub keys: Option<BroughtKeys>,
    /// Bytes of its slot.
    pub slot_bytes: u64,
    /// Bytes of that in the bundle.
    pub packed_bytes: u64,
    /// Whose signatures it has.
    pub signatures: Vec<SignatureSummary>,
}

/// Release keys that a bundle brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BroughtKeys {
    /// Their generation.
    pub generation: u32,
    /// How many must sign.
    pub threshold: u8,
    /// The keys.
    pub keys: Vec<String>,
}

/// A signature of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SignatureSummary {
    /// Whose it says that it is.
    pub key: String,
    /// Whether it is.
    pub valid: bool,
}

/// Reads what a bundle says of itself, and whose signatures it has; its slot isn't looked at.
///
/// # Errors
/// [`Error::Damaged`] or [`Error::Io`].
pub fn show(bundle: &Path) -> Result<Summary> {
    let opened = open(bundle)?;
    let manifest = opened.manifest();
    let valid = |signed: &Signed| SignatureSummary {
        key: signed.key.to_string(),
        valid: signed
            .key
            .has_signed(opened.manifest_bytes(), &signed.signature),
    };
    Ok(Summary {
        product: manifest.product.to_string(),
        board: manifest.board.to_string(),
        version: manifest.version.to_string(),
        counter: manifest.counter,
        floor: manifest.floor,
        made: manifest.made.to_string(),
        not_after: manifest.not_after.to_string(),
        keys: manifest.keys.as_ref().map(|set| BroughtKeys {
            generation: set.generation,
            threshold: set.threshold,
            keys: set.keys.iter().map(ToString::to_string).collect(),
        }),
        slot_bytes: manifest.slot_bytes,
        packed_bytes: manifest.packed_bytes(),
        signatures: opened.signatures().iter().map(valid).collect(),
    })
}

/// Judges a bundle as a box would that pins the release keys in the file `keys`, is of the bundle's
/// board and has no floor; and looks at all of its slot, which must be `slot` if that is given.
///
/// # Errors
/// [`Error::NotAllowed`] if it would be refused; [`Error::Damaged`], [`Error::Input`] or [`Error::Io`].
pub fn verify(bundle: &Path, keys: &Path, slot: Option<&Path>, now: UnixTime) -> Result<Summary> {
    let pinned = read_pinned(&files::read(keys)?).map_err(|error| {
        Error::input(
            format!("{}: {error}", keys.display()),
            "Give the file of release keys that images pin: generation, threshold, and a line for each key.",
        )
    })?;
    let trust = Trust::new(Some(pinned), None, None);
    let opened = open(bundle)?;
    let (product, board) = (
        opened.manifest().product.clone(),
        opened.manifest().board.clone(),
    );
    let here = Here {
        product: &product,
        board: &board,
        floor: 0,
        now: Some(now),
        validity_floor: UnixTime::EPOCH,
        trust: &trust,
    };
    opened.approve(&here).map_err(|refusal| {
        Error::not_allowed(
            format!("a box with these keys refuses {}: {refusal}", bundle.display()),
            "`altnet-provision release cosign` adds a signature; `release sign` makes another release.",
        )
    })?;
    compare(bundle, slot)?;
    show(bundle)
}

fn open(bundle: &Path) -> Result<Opened<BufReader<File>>> {
    let file = File::open(bundle).map_err(Error::io("read", bundle))?;
    Opened::read(BufReader::new(file)).map_err(|error| Error::damaged(bundle, error))
}

/// Reads all pieces of a bundle, and compares them with a slot.
fn compare(bundle: &Path, slot: Option<&Path>) -> Result<()> {
    let other = |at: usize| {
        Error::not_allowed(
            format!("MiB {at} of the slot in {} is another", bundle.display()),
            "Build the same commit with the same packages; don't sign what you didn't build.",
        )
    };
    let mut own = match slot {
        Some(path) => Some((path, File::open(path).map_err(Error::io("read", path))?)),
        None => None,
    };
    let mut pieces = open(bundle)?.pieces();
    let (mut piece, mut found) = (Vec::new(), Vec::new());
    let mut last = 0;
    while let Some(at) = pieces
        .next_piece(&mut piece)
        .map_err(|error| Error::damaged(bundle, error))?
    {
        last = at;
        if let Some((path, file)) = &mut own {
            found.clear();
            file.take(PIECE_BYTES.into())
                .read_to_end(&mut found)
                .map_err(Error::io("read", path))?;
            if found != piece {
                return Err(other(at));
            }
        }
    }
    if let Some((path, mut file)) = own {
        let more = file.read(&mut [0]).map_err(Error::io("read", path))?;
        if more > 0 {
            return Err(other(last + 1));
        }
    }
    Ok(())
}
