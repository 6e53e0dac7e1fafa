//! What a bundle says of itself, and what the release keys sign.
//!
//! A manifest is postcard in its one canonical form: bytes that would be written otherwise are
//! refused. It names the slot's size and two hashes for each piece of it, so that a reader knows
//! before it decompresses a frame that the frame is the signed one, and before it writes a piece that
//! the piece is.

use std::fmt;
use std::str::FromStr;

use altnet_wire::canonical::{self, NotCanonical};
use altnet_wire::hash::{Hash, labelled};
use altnet_wire::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::keys::{KeySet, KeySetError};

/// The most bytes of a manifest.
pub const MAX_MANIFEST_BYTES: usize = 64 * 1024;
/// How much of a slot one frame holds; the last one may hold less.
pub const PIECE_BYTES: u32 = 1024 * 1024;
/// The most frames of a bundle, and so the most MiB of a slot.
pub const MAX_FRAMES: usize = 768;
/// The most bytes of a frame: a piece that does not compress, its blocks' headers, and air.
pub const MAX_FRAME_BYTES: u32 = PIECE_BYTES + 64 * 1024;
/// The most bytes of a [`Label`].
pub const MAX_LABEL_BYTES: usize = 32;

/// A SHA-256 value (FIPS 180-4).
pub type Sha256 = [u8; 32];

/// A short name: 1 to 32 of `A-Z a-z 0-9 . _ + -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(String);

/// A text that is no [`Label`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not 1 to {MAX_LABEL_BYTES} of A-Z a-z 0-9 . _ + -")]
pub struct NoLabel {
    /// The text.
    pub found: String,
}

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Label {
    type Error = NoLabel;

    fn try_from(text: String) -> Result<Self, NoLabel> {
        let is_ours = |octet: u8| octet.is_ascii_alphanumeric() || b"._+-".contains(&octet);
        match (1..=MAX_LABEL_BYTES).contains(&text.len()) && text.bytes().all(is_ours) {
            true => Ok(Self(text)),
            false => Err(NoLabel {
                found: text.chars().take(MAX_LABEL_BYTES + 1).collect(),
            }),
        }
    }
}

impl FromStr for Label {
    type Err = NoLabel;

    fn from_str(text: &str) -> Result<Self, NoLabel> {
        Self::try_from(text.to_owned())
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One piece of the slot, and the zstd frame that it comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// Bytes of the frame in the bundle, 1 to [`MAX_FRAME_BYTES`].
    pub packed_bytes: u32,
    /// Of those bytes.
    pub packed: Sha256,
    /// Of the piece, as it lies in the slot.
    pub plain: Sha256,
}

/// What a bundle says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Whose release it is: `altnet`, if it is ours.
    pub product: Label,
    /// The board it is for, as in `board-support/linux`.
    pub board: Label,
    /// For people.
    pub version: Label,
    /// Grows by at least one with each release of a product and board.
    pub counter: u64,
    /// Once this release is confirmed, those whose counter is below are refused. At most `counter`.
    pub floor: u64,
    /// When it was signed. Once confirmed, the calendar is known to be no earlier.
    pub made: UnixTime,
    /// From when on it is too old to be installed. After `made`.
    pub not_after: UnixTime,
    /// The release keys that count once this release is confirmed; `None` leaves them.
    pub keys: Option<KeySet>,
    /// Bytes of the slot.
    pub slot_bytes: u64,
    /// The slot, piece by piece: [`PIECE_BYTES`] each but the last.
    pub frames: Vec<Frame>,
}

/// Why bytes are no manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than any manifest.
    #[error("it has {found} bytes, and at most {MAX_MANIFEST_BYTES} are allowed")]
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// Not the one encoding of a manifest.
    #[error("it is {0}")]
    Encoding(#[from] NotCanonical),
    /// It would raise the floor above itself.
    #[error("its floor {floor} is above its own counter {counter}")]
    Floor {
        /// The floor.
        floor: u64,
        /// The counter.
        counter: u64,
    },
    /// It had expired when it was signed.
    #[error("it was made at {made} and counts until {not_after}, which is not later")]
    Expiry {
        /// When it was made.
        made: UnixTime,
        /// Until when it counts.
        not_after: UnixTime,
    },
    /// The keys it brings make no set.
    #[error("its new release keys: {0}")]
    Keys(#[from] KeySetError),
    /// The frames don't make up the slot.
    #[error("{slot_bytes} bytes of a slot take {expected} frames, and it lists {found}")]
    Frames {
        /// Bytes of the slot.
        slot_bytes: u64,
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: usize,
    },
    /// A frame's size is out of bounds.
    #[error("frame {at} has {found} bytes, and 1 to {MAX_FRAME_BYTES} are allowed")]
    FrameSize {
        /// Which, from 0.
        at: usize,
        /// Its bytes.
        found: u32,
    },
}

impl Manifest {
    /// Reads a manifest and checks what it says.
    ///
    /// # Errors
    /// [`ManifestError`]. A label that is none is told as damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            let found = bytes.len();
            return Err(ManifestError::TooLong { found });
        }
        let manifest: Self = canonical::decode(bytes)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes a manifest that can be read.
    ///
    /// # Errors
    /// [`ManifestError`] of what it says.
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        // Every type in it has a form in postcard.
        let bytes = postcard::to_allocvec(self).map_err(|_| NotCanonical::Damaged)?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            let found = bytes.len();
            return Err(ManifestError::TooLong { found });
        }
        Ok(bytes)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let (floor, counter) = (self.floor, self.counter);
        if floor > counter {
            return Err(ManifestError::Floor { floor, counter });
        }
        let (made, not_after) = (self.made, self.not_after);
        if not_after <= made {
            return Err(ManifestError::Expiry { made, not_after });
        }
        if let Some(keys) = &self.keys {
            keys.check()?;
        }
        let expected = self.slot_bytes.div_ceil(PIECE_BYTES.into());
        let found = self.frames.len();
        if expected == 0 || found as u64 != expected || found > MAX_FRAMES {
            let slot_bytes = self.slot_bytes;
            return Err(ManifestError::Frames {
                slot_bytes,
                expected: expected.clamp(1, MAX_FRAMES as u64),
                found,
            });
        }
        let is_wrong = |frame: &Frame| !(1..=MAX_FRAME_BYTES).contains(&frame.packed_bytes);
        match self.frames.iter().position(is_wrong) {
            Some(at) => Err(ManifestError::FrameSize {
                at,
                found: self.frames[at].packed_bytes,
            }),
            None => Ok(()),
        }
    }

    /// Bytes of the piece that frame `at` holds.
    pub fn piece_bytes(&self, at: usize) -> usize {
        let before = at as u64 * u64::from(PIECE_BYTES);
        let left = self.slot_bytes.saturating_sub(before);
        left.min(PIECE_BYTES.into()) as usize
    }

    /// Bytes of all frames together.
    pub fn packed_bytes(&self) -> u64 {
        let sizes = self.frames.iter();
        sizes.map(|frame| u64::from(frame.packed_bytes)).sum()
    }
}

/// What the release keys sign of a manifest's bytes as they are: a labelled hash (see
/// [`altnet_wire::hash`]), so that no other signature of such a key can be taken for one of these.
pub fn signed_hash(manifest: &[u8]) -> Hash {
    labelled("altnet release v1", &[manifest])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{manifest, release_key};
    use proptest::prelude::*;

    #[test]
    fn a_manifest_comes_back_from_its_bytes_and_from_no_others() {
        let manifest = manifest(3 * u64::from(PIECE_BYTES) - 5);
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        assert_eq!(manifest.piece_bytes(1), PIECE_BYTES as usize);
        assert_eq!(manifest.piece_bytes(2), PIECE_BYTES as usize - 5);
        assert_eq!(manifest.piece_bytes(3), 0);
        for cut in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..cut]).is_err(), "{cut}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(Manifest::decode(&longer).is_err());
        // The counter as a varint that is longer than it need be.
        let at = 1 + "altnet".len() + 1 + "test".len() + 1 + "0.2.0".len();
        assert_eq!(bytes[at], 7);
        let other = [&bytes[..at], &[0x87, 0], &bytes[at + 1..]].concat();
        let refusal = Manifest::decode(&other).unwrap_err();
        assert_eq!(refusal, NotCanonical::OtherForm.into());
    }

    #[test]
    fn what_a_manifest_may_not_say_is_refused() {
        let good = manifest(10);
        let refused = |change: &dyn Fn(&mut Manifest)| {
            let mut bad = good.clone();
            change(&mut bad);
            let bytes = postcard::to_allocvec(&bad).unwrap();
            let why = Manifest::decode(&bytes).unwrap_err();
            assert_eq!(bad.encode().unwrap_err(), why);
            why.to_string()
        };
        let text = refused(&|m| m.floor = 8);
        assert_eq!(text, "its floor 8 is above its own counter 7");
        assert!(refused(&|m| m.not_after = m.made).contains("not later"));
        assert!(refused(&|m| m.slot_bytes = 0).contains("and it lists 1"));
        assert!(refused(&|m| m.slot_bytes = u64::MAX).contains("768"));
        assert!(refused(&|m| m.frames.clear()).contains("it lists 0"));
        assert!(refused(&|m| m.frames[0].packed_bytes = 0).contains("frame 0"));
        let none = KeySet {
            generation: 2,
            threshold: 2,
            keys: vec![release_key(1)],
        };
        assert!(refused(&|m| m.keys = Some(none.clone())).contains("release keys"));
    }

    #[test]
    fn the_largest_slot_has_a_manifest() {
        let largest = manifest(MAX_FRAMES as u64 * u64::from(PIECE_BYTES));
        let bytes = largest.encode().unwrap();
        assert!(bytes.len() < MAX_MANIFEST_BYTES, "{}", bytes.len());
        let larger = manifest(MAX_FRAMES as u64 * u64::from(PIECE_BYTES) + 1);
        assert!(larger.encode().is_err());
    }

    #[test]
    fn labels_are_short_and_plain() {
        assert_eq!(
            "virt-arm64".parse::<Label>().unwrap().as_str(),
            "virt-arm64"
        );
        for bad in ["", "a b", "ä", "a\n", "../x/", &"x".repeat(33)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_decodes_is_what_would_be_written(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = manifest(10).encode().unwrap();
            for (at, value) in flips {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if let Ok(manifest) = Manifest::decode(&bytes) {
                prop_assert_eq!(manifest.encode().unwrap(), bytes);
            }
        }
    }
}
