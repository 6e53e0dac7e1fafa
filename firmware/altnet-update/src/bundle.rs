//! The file that an update comes in, read as a stream.
//!
//! ```text
//! 8 bytes   ALTNETUP
//! 1         version of the format: 1
//! 4         length of the manifest, little-endian, at most 64 KiB
//! ..        the manifest
//! 1         number of signatures, 1 to 16
//! 96 each   key (32) and Ed25519 signature (64), in rising order of the keys
//! ..        zstd frames (RFC 8878), one for each piece of the slot, one after the other
//! ```
//!
//! Each frame's length and hash are in the manifest, so there is nothing about a frame to be believed
//! before it is known to be the signed one; nothing else is given to the decompressor. What follows
//! the last frame is an error. Memory: the manifest, one frame, one piece, and a window of at most
//! [`MAX_WINDOW_BYTES`].

use std::fmt;
use std::io::{self, Read};

use ruzstd::decoding::FrameDecoder;
use sha2::{Digest, Sha256 as Hasher};

use crate::keys::{MAX_KEYS, ReleaseKey, SIGNATURE_BYTES, Signed};
use crate::manifest::{MAX_FRAME_BYTES, MAX_MANIFEST_BYTES, Manifest, ManifestError, PIECE_BYTES};
use crate::verdict::{Approval, Here, Refusal, judge};

/// What every bundle begins with.
pub const MAGIC: [u8; 8] = *b"ALTNETUP";
/// The version of the format that is read and written here.
pub const VERSION: u8 = 1;
/// The most bytes of a head: all that goes before the frames.
pub const MAX_HEAD_BYTES: usize = 14 + MAX_MANIFEST_BYTES + MAX_KEYS * (32 + SIGNATURE_BYTES);
/// The largest window that a frame may want (RFC 8878 section 3.1.1.1.2): a piece has no more.
pub const MAX_WINDOW_BYTES: u64 = PIECE_BYTES as u64;

/// Why a stream is no bundle, or one that was damaged on its way.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The stream failed.
    #[error("it cannot be read: {0}")]
    Io(#[source] io::Error),
    /// It ended in the middle.
    #[error("it ends in {}", place(*at))]
    CutOff {
        /// Where.
        at: Place,
    },
    /// It begins otherwise than every bundle.
    #[error("it is no bundle: it does not begin with ALTNETUP")]
    NoBundle,
    /// Of a later format.
    #[error("it is a bundle of format {found}, and this box reads {VERSION}")]
    Version {
        /// Its format.
        found: u8,
    },
    /// The manifest doesn't read.
    #[error("its manifest is refused: {0}")]
    Manifest(#[from] ManifestError),
    /// No signatures, or more than are read.
    #[error("it has {found} signatures, and 1 to {MAX_KEYS} are read")]
    SignatureCount {
        /// How many.
        found: u8,
    },
    /// The signatures are not in rising order of their keys.
    #[error("the signature of {key} is there twice, or not in its place")]
    SignatureOrder {
        /// Whose.
        key: ReleaseKey,
    },
    /// A frame's bytes aren't the signed ones.
    #[error("frame {at} of {count} is damaged: its hash is another than the signed one")]
    Frame {
        /// Which, from 1.
        at: usize,
        /// How many there are.
        count: usize,
    },
    /// A frame that is the signed one doesn't hold the piece that was signed.
    #[error("frame {at} of {count} holds something else than was signed: {why}")]
    Piece {
        /// Which, from 1.
        at: usize,
        /// How many there are.
        count: usize,
        /// What is wrong.
        why: String,
    },
    /// Something follows the last frame.
    #[error("something follows its last frame")]
    Longer,
}

/// A part of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Up to the signatures.
    Head,
    /// A frame, from 1, of how many.
    Frame(usize, usize),
}

const fn place(at: Place) -> impl fmt::Display {
    struct Shown(Place);
    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self.0 {
                Place::Head => f.write_str("its head"),
                Place::Frame(at, count) => write!(f, "frame {at} of {count}"),
            }
        }
    }
    Shown(at)
}

impl BundleError {
    /// What a person does about it.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::Version { .. } => {
                "Install a release in between first: the newest one that this box reads."
            }
            Self::Manifest(_) | Self::SignatureCount { .. } | Self::SignatureOrder { .. } => {
                "Get it again; if it stays so, it was made wrongly: tell where releases come from."
            }
            Self::Piece { .. } => "It was made wrongly: tell where releases come from.",
            _ => "Get it again, and compare its size with what is said where it comes from.",
        }
    }
}

/// A bundle whose head was read. Nothing of it is known to be anybody's word yet.
#[derive(Debug)]
pub struct Opened<R> {
    stream: R,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    signatures: Vec<Signed>,
}

impl<R: Read> Opened<R> {
    /// Reads a bundle's head.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn read(mut stream: R) -> Result<Self, BundleError> {
        let mut fixed = [0; 13];
        exact(&mut stream, &mut fixed[..9], Place::Head)?;
        if fixed[..8] != MAGIC {
            return Err(BundleError::NoBundle);
        }
        if fixed[8] != VERSION {
            return Err(BundleError::Version { found: fixed[8] });
        }
        exact(&mut stream, &mut fixed[9..], Place::Head)?;
        let found = u32::from_le_bytes([fixed[9], fixed[10], fixed[11], fixed[12]]) as usize;
        if found > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong { found }.into());
        }
        let mut manifest_bytes = vec![0; found];
        exact(&mut stream, &mut manifest_bytes, Place::Head)?;
        let signatures = signatures(&mut stream)?;
        let manifest = Manifest::decode(&manifest_bytes)?;
        Ok(Self {
            stream,
            manifest,
            manifest_bytes,
            signatures,
        })
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest's bytes, which is what was signed.
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest_bytes
    }

    /// Whose signatures it has, by distinct keys; whether they match is not known yet.
    pub fn signatures(&self) -> &[Signed] {
        &self.signatures
    }

    /// Judges it.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn approve(self, here: &Here<'_>) -> Result<Approved<R>, Refusal> {
        let approval = judge(&self.manifest, &self.manifest_bytes, &self.signatures, here)?;
        Ok(Approved {
            approval,
            pieces: self.pieces(),
        })
    }

    /// Its pieces, by whoever signed it or nobody: for tools that look at a bundle. What is installed
    /// goes through [`Opened::approve`].
    pub fn pieces(self) -> Pieces<R> {
        Pieces {
            stream: self.stream,
            manifest: self.manifest,
            at: 0,
            decoder: FrameDecoder::new(),
            packed: Vec::new(),
        }
    }

    /// Its stream, which stands at the first frame.
    pub fn into_stream(self) -> R {
        self.stream
    }
}

fn signatures(stream: &mut impl Read) -> Result<Vec<Signed>, BundleError> {
    let mut count = [0];
    exact(stream, &mut count, Place::Head)?;
    if !(1..=MAX_KEYS).contains(&count[0].into()) {
        return Err(BundleError::SignatureCount { found: count[0] });
    }
    let mut all: Vec<Signed> = Vec::with_capacity(count[0].into());
    for _ in 0..count[0] {
        let (mut key, mut signature) = ([0; 32], [0; SIGNATURE_BYTES]);
        exact(stream, &mut key, Place::Head)?;
        exact(stream, &mut signature, Place::Head)?;
        let key = ReleaseKey(key);
        if all.last().is_some_and(|last| last.key >= key) {
            return Err(BundleError::SignatureOrder { key });
        }
        all.push(Signed { key, signature });
    }
    Ok(all)
}

fn exact(stream: &mut impl Read, out: &mut [u8], at: Place) -> Result<(), BundleError> {
    stream.read_exact(out).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => BundleError::CutOff { at },
        _ => BundleError::Io(error),
    })
}

/// A bundle that this box takes.
pub struct Approved<R> {
    approval: Approval,
    pieces: Pieces<R>,
}

impl<R: Read> Approved<R> {
    /// Whose word it is.
    pub const fn approval(&self) -> Approval {
        self.approval
    }

    /// What it says of itself.
    pub const fn manifest(&self) -> &Manifest {
        &self.pieces.manifest
    }

    /// Its pieces.
    pub const fn pieces(&mut self) -> &mut Pieces<R> {
        &mut self.pieces
    }
}

/// The slot that comes in a bundle, piece by piece.
pub struct Pieces<R> {
    stream: R,
    manifest: Manifest,
    at: usize,
    decoder: FrameDecoder,
    packed: Vec<u8>,
}

impl<R: Read> Pieces<R> {
    /// What the bundle says of itself.
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The next piece, with its number from 0; `None` after the last one, once the stream ended there.
    /// After an error there is no next one.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn next_piece(&mut self, piece: &mut Vec<u8>) -> Result<Option<usize>, BundleError> {
        let (at, count) = (self.at, self.manifest.frames.len());
        let Some(frame) = self.manifest.frames.get(at).copied() else {
            let mut more = [0];
            return match self.stream.read(&mut more).map_err(BundleError::Io)? {
                0 => Ok(None),
                _ => Err(BundleError::Longer),
            };
        };
        // Bounded when the manifest was read.
        debug_assert!(frame.packed_bytes <= MAX_FRAME_BYTES);
        self.packed.resize(frame.packed_bytes as usize, 0);
        let place = Place::Frame(at + 1, count);
        exact(&mut self.stream, &mut self.packed, place)?;
        let found: [u8; 32] = Hasher::digest(&self.packed).into();
        if found != frame.packed {
            return Err(BundleError::Frame { at: at + 1, count });
        }
        let wrong = |why: String| BundleError::Piece {
            at: at + 1,
            count,
            why,
        };
        piece.resize(self.manifest.piece_bytes(at), 0);
        decompress(&mut self.decoder, &self.packed, piece).map_err(&wrong)?;
        let found: [u8; 32] = Hasher::digest(&piece[..]).into();
        if found != frame.plain {
            return Err(wrong("its hash is another".to_owned()));
        }
        self.at += 1;
        Ok(Some(at))
    }
}

/// Decompresses one frame that fills `piece` to the end.
fn decompress(decoder: &mut FrameDecoder, packed: &[u8], piece: &mut [u8]) -> Result<(), String> {
    decoder.set_max_window_size(MAX_WINDOW_BYTES);
    let found = decoder
        .decode_all(packed, piece)
        .map_err(|error| error.to_string())?;
    match found == piece.len() {
        true => Ok(()),
        false => Err(format!("it has {found} bytes instead of {}", piece.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Trust;
    use crate::make;
    use crate::testing::{bundle, bundle_with, set, sign, slot};
    use altnet_wire::time::UnixTime;
    use proptest::prelude::*;

    fn read_all(bytes: &[u8]) -> Result<Vec<u8>, BundleError> {
        let mut pieces = Opened::read(bytes)?.pieces();
        let (mut piece, mut all) = (Vec::new(), Vec::new());
        while pieces.next_piece(&mut piece)?.is_some() {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    #[test]
    fn a_slot_comes_out_as_it_went_in() {
        for bytes in [1, 4096, 1 << 20, (1 << 20) + 1, 2_500_000] {
            let slot = slot(bytes, 1);
            assert_eq!(read_all(&bundle(&slot, &[1, 2])).unwrap(), slot);
        }
    }

    #[test]
    fn only_an_approved_bundle_gives_what_is_installed() {
        let trust = Trust::new(Some(set(1, 2, &[1, 2])), None, None);
        let (product, board) = ("altnet".parse().unwrap(), "test".parse().unwrap());
        let here = Here {
            product: &product,
            board: &board,
            floor: 0,
            now: None,
            validity_floor: UnixTime::EPOCH,
            trust: &trust,
        };
        let slot = slot(9, 1);
        let opened = |signers: &[u8]| bundle(&slot, signers);
        let taken = opened(&[1, 2]);
        let mut taken = Opened::read(&taken[..]).unwrap().approve(&here).unwrap();
        let mut piece = Vec::new();
        assert_eq!(taken.pieces().next_piece(&mut piece).unwrap(), Some(0));
        assert_eq!(piece, slot);
        let one = opened(&[1]);
        let refused = Opened::read(&one[..]).unwrap().approve(&here);
        assert!(matches!(refused, Err(Refusal::Signatures { .. })));
    }

    #[test]
    fn what_is_no_bundle_says_why() {
        let good = bundle(&slot(9, 1), &[1, 2]);
        let changed = |at: usize, value: u8| {
            let mut bad = good.clone();
            bad[at] = value;
            read_all(&bad).unwrap_err().to_string()
        };
        assert!(changed(0, b'a').contains("no bundle"));
        let said = "it is a bundle of format 2, and this box reads 1";
        assert_eq!(changed(8, 2), said);
        assert!(changed(12, 9).contains("at most 65536 are allowed"));
        let count_at = 13 + usize::from(good[9]) + 256 * usize::from(good[10]);
        assert_eq!(good[count_at], 2);
        assert!(changed(count_at, 0).contains("0 signatures"));
        assert!(changed(count_at, 17).contains("17 signatures"));
        let (first, second) = (count_at + 1, count_at + 97);
        let mut twice = good.clone();
        twice.copy_within(first..first + 96, second);
        let why = read_all(&twice).unwrap_err();
        assert!(matches!(why, BundleError::SignatureOrder { .. }));
        assert!(changed(good.len() - 1, !good[good.len() - 1]).contains("frame 1 of 1 is damaged"));
        let longer = [&good[..], b"x"].concat();
        assert!(matches!(read_all(&longer), Err(BundleError::Longer)));
    }

    #[test]
    fn every_bundle_that_is_cut_off_is_refused() {
        let good = bundle(&slot(3000, 1), &[1, 2]);
        for cut in 0..good.len() {
            let why = read_all(&good[..cut]).unwrap_err();
            assert!(matches!(why, BundleError::CutOff { .. }), "{cut}: {why}");
        }
    }

    #[test]
    fn a_signed_frame_that_holds_something_else_is_refused() {
        let slot = slot(5000, 1);
        let with = |packed: &[u8]| {
            let mut manifest = crate::testing::manifest(5000);
            manifest.frames[0].packed_bytes = packed.len() as u32;
            manifest.frames[0].packed = Hasher::digest(packed).into();
            manifest.frames[0].plain = Hasher::digest(&slot).into();
            let bytes = manifest.encode().unwrap();
            let mut bundle = make::head(&bytes, vec![sign(1, &bytes)]).unwrap();
            bundle.extend_from_slice(packed);
            read_all(&bundle).unwrap_err().to_string()
        };
        let packed = |bytes: &[u8]| {
            let level = ruzstd::encoding::CompressionLevel::Fastest;
            ruzstd::encoding::compress_to_vec(bytes, level)
        };
        assert!(with(b"not zstd at all").contains("holds something else"));
        assert!(with(&packed(&slot[..4999])).contains("4999 bytes instead of 5000"));
        assert!(with(&packed(&[&slot[..], b"x"].concat())).contains("holds something else"));
        assert!(with(&packed(&[7; 5000])).contains("its hash is another"));
        // A frame that wants a window of 8 MiB (RFC 8878 section 3.1.1.1.2).
        let greedy = [0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3, 1, 0, 0];
        assert!(with(&greedy).contains("window"), "{}", with(&greedy));
    }

    #[test]
    fn a_change_to_the_manifest_undoes_its_signatures() {
        let slot = slot(9, 1);
        let good = bundle(&slot, &[1]);
        let opened = Opened::read(&good[..]).unwrap();
        let signed = opened.signatures()[0];
        assert!(
            signed
                .key
                .has_signed(opened.manifest_bytes(), &signed.signature)
        );
        let other = bundle_with(&slot, &[1], |manifest| manifest.counter = 8);
        let other = Opened::read(&other[..]).unwrap();
        assert!(
            !signed
                .key
                .has_signed(other.manifest_bytes(), &signed.signature)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_changed_bundle_gives_another_slot(
            at: prop::sample::Index, flip in 1u8.., bytes in 1usize..10_000,
        ) {
            let slot = slot(bytes, 3);
            let mut bad = bundle(&slot, &[1, 2]);
            let at = at.index(bad.len());
            bad[at] ^= flip;
            if let Ok(found) = read_all(&bad) {
                // What is no part of a frame's hash: manifest and signatures, which keys judge.
                prop_assert_eq!(found, slot);
            }
        }

        #[test]
        fn any_bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let framed = [&MAGIC[..], &[VERSION], &bytes].concat();
            prop_assert!(read_all(&framed).is_err());
            prop_assert!(read_all(&bytes).is_err());
        }
    }
}
