//! The other side of [`crate::bundle`]: packing a slot, and the head that goes before the frames.
//!
//! What compresses in a slot is mostly its empty space, since kernel and root are compressed
//! already; so the frames are made by the decompressor's own modest compressor, and any other that
//! writes zstd will do.

use std::io::{self, Read, Write};

use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use sha2::{Digest, Sha256 as Hasher};

use crate::bundle::{MAGIC, VERSION};
use crate::keys::{MAX_KEYS, Signed};
use crate::manifest::{Frame, MAX_FRAME_BYTES, MAX_FRAMES, MAX_MANIFEST_BYTES, PIECE_BYTES};

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// The slot or the bundle.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The slot is empty or larger than a bundle can be.
    #[error("the slot has {found} MiB, and 1 to {MAX_FRAMES} fit a bundle")]
    Size {
        /// Its MiB, rounded up; one more than fit if there are more.
        found: usize,
    },
    /// Too many signatures, or one of a key that signed already.
    #[error("{found} signatures by {keys} keys: 1 to {MAX_KEYS} can sign, each once")]
    Signatures {
        /// How many there are.
        found: usize,
        /// By how many keys.
        keys: usize,
    },
    /// Longer than any manifest.
    #[error("the manifest has {found} bytes, and at most {MAX_MANIFEST_BYTES} are allowed")]
    Manifest {
        /// Its bytes.
        found: usize,
    },
}

/// Compresses a slot, piece by piece, and says what the manifest says of it: frames, and the bytes of
/// the slot.
///
/// # Errors
/// [`MakeError::Io`] or [`MakeError::Size`].
pub fn pack(mut slot: impl Read, mut out: impl Write) -> Result<(Vec<Frame>, u64), MakeError> {
    let mut frames = Vec::new();
    let mut slot_bytes = 0;
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES as usize);
        slot.by_ref()
            .take(PIECE_BYTES.into())
            .read_to_end(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        if frames.len() == MAX_FRAMES {
            let found = MAX_FRAMES + 1;
            return Err(MakeError::Size { found });
        }
        let packed = compress(&piece);
        out.write_all(&packed)?;
        slot_bytes += piece.len() as u64;
        frames.push(Frame {
            packed_bytes: packed.len() as u32,
            packed: Hasher::digest(&packed).into(),
            plain: Hasher::digest(&piece).into(),
        });
    }
    match frames.is_empty() {
        true => Err(MakeError::Size { found: 0 }),
        false => Ok((frames, slot_bytes)),
    }
}

/// One frame; never larger than may be: what doesn't compress is stored.
fn compress(piece: &[u8]) -> Vec<u8> {
    let packed = compress_to_vec(piece, CompressionLevel::Fastest);
    match packed.len() <= MAX_FRAME_BYTES as usize {
        true => packed,
        false => compress_to_vec(piece, CompressionLevel::Uncompressed),
    }
}

/// What goes before the frames: magic, version, manifest and signatures, these in order of their keys.
///
/// # Errors
/// [`MakeError::Signatures`] or [`MakeError::Manifest`].
pub fn head(manifest: &[u8], mut signatures: Vec<Signed>) -> Result<Vec<u8>, MakeError> {
    if manifest.len() > MAX_MANIFEST_BYTES {
        let found = manifest.len();
        return Err(MakeError::Manifest { found });
    }
    let found = signatures.len();
    signatures.sort_by_key(|signed| signed.key);
    signatures.dedup_by_key(|signed| signed.key);
    let keys = signatures.len();
    if keys != found || !(1..=MAX_KEYS).contains(&keys) {
        return Err(MakeError::Signatures { found, keys });
    }
    let mut out = MAGIC.to_vec();
    out.push(VERSION);
    out.extend_from_slice(&(manifest.len() as u32).to_le_bytes());
    out.extend_from_slice(manifest);
    out.push(keys as u8);
    for signed in &signatures {
        out.extend_from_slice(&signed.key.0);
        out.extend_from_slice(&signed.signature);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{sign, slot};

    #[test]
    fn a_slot_is_packed_and_its_empty_space_takes_nearly_nothing() {
        let mut image = slot(1_500_000, 1);
        image.extend_from_slice(&vec![0; 3_000_000]);
        let mut packed = Vec::new();
        let (frames, bytes) = pack(&image[..], &mut packed).unwrap();
        assert_eq!((frames.len(), bytes), (5, 4_500_000));
        assert!(frames[4].packed_bytes < 1000, "{:?}", frames[4]);
        let sizes: u32 = frames.iter().map(|frame| frame.packed_bytes).sum();
        assert_eq!(sizes as usize, packed.len());
    }

    #[test]
    fn what_makes_no_bundle_is_refused() {
        assert!(matches!(
            pack(&[][..], io::sink()),
            Err(MakeError::Size { found: 0 })
        ));
        let twice = head(b"m", vec![sign(1, b"m"), sign(1, b"m")]);
        assert!(matches!(
            twice,
            Err(MakeError::Signatures { found: 2, keys: 1 })
        ));
        assert!(head(b"m", Vec::new()).is_err());
        assert!(head(&[0; MAX_MANIFEST_BYTES + 1], vec![sign(1, b"m")]).is_err());
    }
}
