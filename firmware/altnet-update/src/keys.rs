//! Whose word an update takes: sets of release keys with a threshold, and the owner's own.
//!
//! Two sets can be in force. The **release set** is pinned in the image; a release can bring the next
//! one (`Manifest::keys`), which counts from that release's confirmation on and has a higher
//! generation. Of the pinned and the kept one the higher generation counts, so that going back to an
//! older slot doesn't bring back keys that were given up. The **owner's set** is a file on the data
//! partition whose rule says what it does:
//!
//! - `adds`: a bundle is taken if the release set's threshold signed it, or the owner's set's did.
//!   Signatures of one set don't count for the other.
//! - `replaces`: only what the owner's set's threshold signed is taken.
//!
//! Without a rule the file is refused: what it means is not guessed.

use std::fmt;
use std::str::FromStr;

use altnet_wire::id::{BadText, SigningKey};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::manifest::signed_hash;

/// The most keys of a set, and the most signatures of a bundle.
pub const MAX_KEYS: usize = 16;
/// The most bytes of a file of keys.
pub const MAX_FILE_BYTES: usize = 16 * 1024;
/// Bytes of an Ed25519 signature (RFC 8032 section 5.1.6).
pub const SIGNATURE_BYTES: usize = 64;

/// An Ed25519 public key that signs releases and nothing else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReleaseKey(pub [u8; 32]);

impl fmt::Display for ReleaseKey {
    /// Writes lower-case unpadded base32 (RFC 4648).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SigningKey(self.0).fmt(f)
    }
}

impl fmt::Debug for ReleaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReleaseKey({self})")
    }
}

impl FromStr for ReleaseKey {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        text.parse::<SigningKey>().map(|key| Self(key.0))
    }
}

impl ReleaseKey {
    /// Whether `signature` is this key's over the manifest's bytes.
    pub fn has_signed(&self, manifest: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        let signature = Signature::from_bytes(signature);
        VerifyingKey::from_bytes(&self.0)
            .and_then(|key| key.verify_strict(&signed_hash(manifest), &signature))
            .is_ok()
    }
}

/// One key's word for a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signed {
    /// Whose.
    pub key: ReleaseKey,
    /// Over [`signed_hash`] of the manifest's bytes.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Keys of which so many must sign.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySet {
    /// Grows with each set that takes the place of another.
    pub generation: u32,
    /// How many must sign; 1 to the number of keys.
    pub threshold: u8,
    /// In rising order, so none twice; 1 to [`MAX_KEYS`].
    pub keys: Vec<ReleaseKey>,
}

/// Why keys make no set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// None, or too many.
    #[error("there are {found} keys, and 1 to {MAX_KEYS} can be in a set")]
    Count {
        /// How many.
        found: usize,
    },
    /// Not in order, or one twice.
    #[error("key {key} is there twice, or not in its place")]
    Order {
        /// The key.
        key: ReleaseKey,
    },
    /// More must sign than there are, or nobody.
    #[error("{threshold} of {keys} keys must sign, and 1 to {keys} can")]
    Threshold {
        /// How many must sign.
        threshold: u8,
        /// How many there are.
        keys: usize,
    },
}

impl KeySet {
    /// Makes a set of keys in any order.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn new(
        generation: u32,
        threshold: u8,
        mut keys: Vec<ReleaseKey>,
    ) -> Result<Self, KeySetError> {
        keys.sort();
        let set = Self {
            generation,
            threshold,
            keys,
        };
        set.check()?;
        Ok(set)
    }

    pub(crate) fn check(&self) -> Result<(), KeySetError> {
        let found = self.keys.len();
        if !(1..=MAX_KEYS).contains(&found) {
            return Err(KeySetError::Count { found });
        }
        if let Some(pair) = self.keys.windows(2).find(|pair| pair[0] >= pair[1]) {
            return Err(KeySetError::Order { key: pair[1] });
        }
        match (1..=found).contains(&self.threshold.into()) {
            true => Ok(()),
            false => Err(KeySetError::Threshold {
                threshold: self.threshold,
                keys: found,
            }),
        }
    }

    /// How many of `signers`, which are distinct, are in the set.
    pub(crate) fn count(&self, signers: &[ReleaseKey]) -> usize {
        let ours = signers.iter().filter(|key| self.keys.contains(key));
        ours.count()
    }

    pub(crate) fn is_met(&self, signers: &[ReleaseKey]) -> bool {
        self.count(signers) >= self.threshold.into()
    }
}

/// What the owner's keys do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerRule {
    /// Beside the release keys: either set is enough.
    Adds,
    /// In their place.
    Replaces,
}

/// The sets in force on a box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    /// The release set; `None` is an image that pins none.
    pub release: Option<KeySet>,
    /// The owner's, if there is one.
    pub owner: Option<(OwnerRule, KeySet)>,
}

impl Trust {
    /// Puts together what the image pins, what a confirmed release brought, and the owner's file.
    /// Where the image pins nothing, nothing of the release keys' counts.
    pub fn new(
        pinned: Option<KeySet>,
        kept: Option<KeySet>,
        owner: Option<(OwnerRule, KeySet)>,
    ) -> Self {
        let release = pinned.map(|pinned| match kept {
            Some(kept) if kept.generation > pinned.generation => kept,
            _ => pinned,
        });
        Self { release, owner }
    }

    /// The sets that count, the release set first.
    pub(crate) fn sets(&self) -> [Option<&KeySet>; 2] {
        let is_replaced = matches!(self.owner, Some((OwnerRule::Replaces, _)));
        let release = self.release.as_ref().filter(|_| !is_replaced);
        [release, self.owner.as_ref().map(|(_, set)| set)]
    }

    /// Whether `key` is in a set that counts.
    pub fn knows(&self, key: &ReleaseKey) -> bool {
        let mut sets = self.sets().into_iter().flatten();
        sets.any(|set| set.keys.contains(key))
    }
}

/// Why a file of keys doesn't read; nothing is taken from it then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Longer than any such file.
    #[error("it has {found} bytes, and at most {MAX_FILE_BYTES} are read")]
    TooLong {
        /// Its bytes.
        found: usize,
    },
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// A line says nothing that is known.
    #[error(
        "line {line}: {found:?} is none of `generation N`, `threshold N`, `key KEY [whose]`, `rule adds` and `rule replaces`"
    )]
    Line {
        /// Which, from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// The same is said twice.
    #[error("line {line}: {word} is said twice")]
    Twice {
        /// Which, from 1.
        line: usize,
        /// What.
        word: &'static str,
    },
    /// Something must be said and isn't.
    #[error("it does not say {word}")]
    Missing {
        /// What.
        word: &'static str,
    },
    /// An image's keys have no rule.
    #[error("it has a rule, which only an owner's file can have")]
    Rule,
    /// The keys make no set.
    #[error(transparent)]
    Set(#[from] KeySetError),
}

/// Reads the set that an image pins: `generation N`, `threshold N`, and a line `key KEY [whose]` for
/// each; empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_pinned(bytes: &[u8]) -> Result<KeySet, KeyFileError> {
    let lines = Lines::read(bytes)?;
    if lines.rule.is_some() {
        return Err(KeyFileError::Rule);
    }
    let generation = lines.generation.ok_or(KeyFileError::Missing {
        word: "`generation N`",
    })?;
    lines.set(generation)
}

/// Reads an owner's set: the same with `rule adds` or `rule replaces`; its generation may be left out.
///
/// # Errors
/// [`KeyFileError`].
pub fn read_owner(bytes: &[u8]) -> Result<(OwnerRule, KeySet), KeyFileError> {
    let lines = Lines::read(bytes)?;
    let rule = lines.rule.ok_or(KeyFileError::Missing {
        word: "`rule adds` or `rule replaces`",
    })?;
    let generation = lines.generation.unwrap_or_default();
    Ok((rule, lines.set(generation)?))
}

#[derive(Default)]
struct Lines {
    generation: Option<u32>,
    threshold: Option<u8>,
    rule: Option<OwnerRule>,
    keys: Vec<ReleaseKey>,
}

impl Lines {
    fn read(bytes: &[u8]) -> Result<Self, KeyFileError> {
        if bytes.len() > MAX_FILE_BYTES {
            let found = bytes.len();
            return Err(KeyFileError::TooLong { found });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeyFileError::NotText)?;
        let mut lines = Self::default();
        for (at, text) in text.lines().enumerate() {
            let text = text.trim();
            if !text.is_empty() && !text.starts_with('#') {
                lines.line(at + 1, text)?;
            }
        }
        Ok(lines)
    }

    fn line(&mut self, line: usize, text: &str) -> Result<(), KeyFileError> {
        let unknown = || KeyFileError::Line {
            line,
            found: text.chars().take(80).collect(),
        };
        let mut words = text.split_whitespace();
        let (word, value) = (words.next(), words.next().ok_or_else(unknown)?);
        let is_key = word == Some("key");
        if !is_key && words.next().is_some() {
            return Err(unknown());
        }
        let word = match word {
            Some("key") => {
                self.keys.push(value.parse().map_err(|_| unknown())?);
                return Ok(());
            }
            Some("generation") => {
                let number = value.parse().map_err(|_| unknown())?;
                self.generation.replace(number).map(|_| "generation")
            }
            Some("threshold") => {
                let number = value.parse().map_err(|_| unknown())?;
                self.threshold.replace(number).map(|_| "threshold")
            }
            Some("rule") => {
                let rule = match value {
                    "adds" => OwnerRule::Adds,
                    "replaces" => OwnerRule::Replaces,
                    _ => return Err(unknown()),
                };
                self.rule.replace(rule).map(|_| "rule")
            }
            _ => return Err(unknown()),
        };
        match word {
            Some(word) => Err(KeyFileError::Twice { line, word }),
            None => Ok(()),
        }
    }

    fn set(self, generation: u32) -> Result<KeySet, KeyFileError> {
        let threshold = self.threshold.ok_or(KeyFileError::Missing {
            word: "`threshold N`",
        })?;
        Ok(KeySet::new(generation, threshold, self.keys)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{release_key, set, sign};
    use proptest::prelude::*;

    #[test]
    fn a_file_of_keys_is_read() {
        let (one, two) = (release_key(1), release_key(2));
        let text = format!(
            "# ours\ngeneration 3\nthreshold 2\nkey {one} Ann of the project\n\nkey {two}\n"
        );
        assert_eq!(read_pinned(text.as_bytes()).unwrap(), set(3, 2, &[1, 2]));
        assert_eq!(
            read_owner(text.as_bytes()).unwrap_err().to_string(),
            "it does not say `rule adds` or `rule replaces`"
        );
        let owner = format!("rule replaces\nthreshold 1\nkey {one}");
        let read = read_owner(owner.as_bytes()).unwrap();
        assert_eq!(read, (OwnerRule::Replaces, set(0, 1, &[1])));
        assert_eq!(read_pinned(owner.as_bytes()), Err(KeyFileError::Rule));
    }

    #[test]
    fn a_slip_in_a_file_of_keys_is_told_with_its_line() {
        let key = release_key(1);
        for (text, why) in [
            ("generation one", "line 1"),
            ("\nrule maybe", "line 2"),
            ("threshold", "line 1"),
            ("threshold 1 2", "line 1"),
            (
                "threshold 1\nthreshold 2",
                "line 2: threshold is said twice",
            ),
            ("key nobody", "line 1"),
            ("generation 1\nthreshold 0\nkey K", "0 of 1 keys must sign"),
            ("generation 1\nthreshold 2\nkey K", "2 of 1 keys must sign"),
            ("generation 1\nthreshold 1", "there are 0 keys"),
            ("generation 1\nthreshold 2\nkey K\nkey K", "there twice"),
        ] {
            let text = text.replace('K', &key.to_string());
            let told = read_pinned(text.as_bytes()).unwrap_err().to_string();
            assert!(told.contains(why), "{text}: {told}");
        }
        let long = vec![b'#'; MAX_FILE_BYTES + 1];
        assert!(matches!(
            read_pinned(&long),
            Err(KeyFileError::TooLong { .. })
        ));
        assert_eq!(read_pinned(&[0xff]), Err(KeyFileError::NotText));
    }

    #[test]
    fn the_newer_generation_counts() {
        let pinned = set(2, 2, &[1, 2]);
        let of = |kept| Trust::new(Some(pinned.clone()), kept, None).release;
        assert_eq!(of(None), Some(pinned.clone()));
        assert_eq!(of(Some(set(2, 1, &[3]))), Some(pinned.clone()));
        assert_eq!(of(Some(set(1, 1, &[3]))), Some(pinned.clone()));
        assert_eq!(of(Some(set(3, 1, &[3]))), Some(set(3, 1, &[3])));
        assert_eq!(Trust::new(None, Some(set(3, 1, &[3])), None).release, None);
    }

    #[test]
    fn only_the_key_itself_signs_and_only_this_manifest() {
        let signed = sign(1, b"manifest");
        assert!(signed.key.has_signed(b"manifest", &signed.signature));
        assert!(!signed.key.has_signed(b"manifesT", &signed.signature));
        assert!(!release_key(2).has_signed(b"manifest", &signed.signature));
        assert!(!ReleaseKey([0xff; 32]).has_signed(b"manifest", &signed.signature));
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(text in "(generation|threshold|key|rule|adds|[0-9a-z]{1,52}|[ \n#])*") {
            let _ = (read_pinned(text.as_bytes()), read_owner(text.as_bytes()));
        }
    }
}
