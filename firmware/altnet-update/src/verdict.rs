//! Whether a box takes a bundle: who signed it, what it is for, how old it is.

use altnet_wire::time::UnixTime;
use serde::{Deserialize, Serialize};

use crate::keys::{KeySet, MAX_KEYS, ReleaseKey, Signed, Trust};
use crate::manifest::{Label, Manifest};

/// What a box knows of itself when it judges a bundle.
#[derive(Clone, Debug)]
pub struct Here<'a> {
    /// Whose releases it takes.
    pub product: &'a Label,
    /// What it is.
    pub board: &'a Label,
    /// Bundles with a counter below are refused.
    pub floor: u64,
    /// The calendar, if it is known.
    pub now: Option<UnixTime>,
    /// The calendar is no earlier than this, whatever the clock says: the image's build date, what
    /// owners and issuers signed, the last release that was confirmed.
    pub validity_floor: UnixTime,
    /// Whose word it takes.
    pub trust: &'a Trust,
}

/// Whose threshold was met; one of them was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// The release keys'.
    pub by_release: bool,
    /// The owner's keys'.
    pub by_owner: bool,
}

/// Why a bundle is not taken. Nothing was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Nobody's word is taken here.
    #[error("this image pins no release keys, and its owner has none either")]
    NoKeys,
    /// Not enough keys that count have signed.
    #[error(
        "{valid} of the {needed} signatures that it takes are there{}",
        aside(bad, unknown)
    )]
    Signatures {
        /// How many it takes, of the set that came nearest.
        needed: u8,
        /// How many of that set's keys signed.
        valid: usize,
        /// Keys that count whose signature doesn't match the manifest.
        bad: Vec<ReleaseKey>,
        /// Keys that don't count here.
        unknown: Vec<ReleaseKey>,
    },
    /// Somebody else's releases.
    #[error("it is a release of {found}, and this box takes those of {expected}")]
    Product {
        /// What it takes.
        expected: Label,
        /// What it is.
        found: Label,
    },
    /// Another kind of box.
    #[error("it is for the board {found}, and this is {expected}")]
    Board {
        /// What this is.
        expected: Label,
        /// What it is for.
        found: Label,
    },
    /// Older than what may come back.
    #[error("its counter is {found}, and releases below {floor} are refused here")]
    BelowFloor {
        /// The lowest that is taken.
        floor: u64,
        /// Its counter.
        found: u64,
    },
    /// Too old to be installed.
    #[error("it counts until {not_after}, and {}", moment(*at, *is_known))]
    Expired {
        /// Until when it counts.
        not_after: UnixTime,
        /// What the calendar says, at least.
        at: UnixTime,
        /// Whether that is the clock's word; else it is the least that is certain.
        is_known: bool,
    },
    /// It brings other keys than those of the same generation.
    #[error(
        "it brings release keys of generation {generation}, and those of that generation here are others"
    )]
    Keys {
        /// The generation.
        generation: u32,
    },
}

fn aside(bad: &[ReleaseKey], unknown: &[ReleaseKey]) -> String {
    let list = |keys: &[ReleaseKey]| {
        let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
        keys.join(", ")
    };
    let mut text = String::new();
    if !bad.is_empty() {
        text.push_str(&format!("; damaged is that of {}", list(bad)));
    }
    if !unknown.is_empty() {
        text.push_str(&format!("; not known here is {}", list(unknown)));
    }
    text
}

fn moment(at: UnixTime, is_known: bool) -> String {
    match is_known {
        true => format!("it is {at}"),
        false => format!("it is {at} at least, by what was signed"),
    }
}

impl Refusal {
    /// What a person does about it.
    pub const fn next_step(&self) -> &'static str {
        match self {
            Self::NoKeys => {
                "Put keys of your own into /data/etc/release-keys, and sign the bundle with them."
            }
            Self::Signatures { .. } => {
                "Get the bundle from where releases come from. If its keys are new, install the release that brings them first; keys of your own go into /data/etc/release-keys."
            }
            Self::Product { .. } | Self::Board { .. } => "Get the bundle for this box.",
            Self::BelowFloor { .. } => {
                "Install a newer release. An older one needs the signature of your own keys in /data/etc/release-keys."
            }
            Self::Expired { .. } => {
                "Get the newest release. If this box's clock is wrong, let it reach a time server first."
            }
            Self::Keys { .. } => {
                "Don't install it: two sets of keys claim the same place. Ask where releases come from."
            }
        }
    }
}

/// Judges a manifest whose bytes are `bytes` and whose `signatures` are of distinct keys.
///
/// The owner's keys may bring back what is below the floor; expiry holds for them too, since they can
/// sign anew.
///
/// # Errors
/// The first [`Refusal`] in the order in which they are listed.
pub fn judge(
    manifest: &Manifest,
    bytes: &[u8],
    signatures: &[Signed],
    here: &Here<'_>,
) -> Result<Approval, Refusal> {
    let approval = approval(bytes, signatures, here.trust)?;
    if manifest.product != *here.product {
        return Err(Refusal::Product {
            expected: here.product.clone(),
            found: manifest.product.clone(),
        });
    }
    if manifest.board != *here.board {
        return Err(Refusal::Board {
            expected: here.board.clone(),
            found: manifest.board.clone(),
        });
    }
    if manifest.counter < here.floor && !approval.by_owner {
        return Err(Refusal::BelowFloor {
            floor: here.floor,
            found: manifest.counter,
        });
    }
    // A clock that says less than what is certain was never set.
    let known = here.now.filter(|now| *now >= here.validity_floor);
    let at = known.unwrap_or(here.validity_floor);
    if at > manifest.not_after {
        return Err(Refusal::Expired {
            not_after: manifest.not_after,
            at,
            is_known: known.is_some(),
        });
    }
    let release = here.trust.release.as_ref();
    let is_other = |keys: &KeySet| {
        release.is_some_and(|here| here.generation == keys.generation && here != keys)
    };
    match &manifest.keys {
        Some(keys) if is_other(keys) => {
            let generation = keys.generation;
            Err(Refusal::Keys { generation })
        }
        _ => Ok(approval),
    }
}

fn approval(bytes: &[u8], signatures: &[Signed], trust: &Trust) -> Result<Approval, Refusal> {
    let (mut valid, mut bad, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for signed in signatures.iter().take(MAX_KEYS) {
        // Of keys that don't count nothing is worked out.
        if !trust.knows(&signed.key) {
            unknown.push(signed.key);
        } else if signed.key.has_signed(bytes, &signed.signature) {
            valid.push(signed.key);
        } else {
            bad.push(signed.key);
        }
    }
    let [release, owner] = trust.sets();
    let approval = Approval {
        by_release: release.is_some_and(|set| set.is_met(&valid)),
        by_owner: owner.is_some_and(|set| set.is_met(&valid)),
    };
    if approval.by_release || approval.by_owner {
        return Ok(approval);
    }
    let missing = |set: &&KeySet| usize::from(set.threshold).saturating_sub(set.count(&valid));
    let nearest = release.into_iter().chain(owner).min_by_key(missing);
    let nearest = nearest.ok_or(Refusal::NoKeys)?;
    Err(Refusal::Signatures {
        needed: nearest.threshold,
        valid: nearest.count(&valid),
        bad,
        unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::OwnerRule;
    use crate::testing::{MADE, NOT_AFTER, manifest, set, sign};
    use proptest::prelude::*;

    const RELEASE: Result<Approval, Refusal> = Ok(Approval {
        by_release: true,
        by_owner: false,
    });
    const OWNER: Result<Approval, Refusal> = Ok(Approval {
        by_release: false,
        by_owner: true,
    });

    fn trust() -> Trust {
        Trust::new(Some(set(1, 2, &[1, 2, 3])), None, None)
    }

    fn judged(
        trust: &Trust,
        signers: &[u8],
        change: impl Fn(&mut Manifest, &mut Here<'_>),
    ) -> Result<Approval, Refusal> {
        let (product, board) = ("altnet".parse().unwrap(), "test".parse().unwrap());
        let mut manifest = manifest(10);
        let mut here = Here {
            product: &product,
            board: &board,
            floor: 7,
            now: Some(MADE),
            validity_floor: UnixTime::EPOCH,
            trust,
        };
        change(&mut manifest, &mut here);
        let bytes = manifest.encode().unwrap();
        let signatures: Vec<_> = signers.iter().map(|n| sign(*n, &bytes)).collect();
        judge(&manifest, &bytes, &signatures, &here)
    }

    #[test]
    fn two_of_three_keys_are_enough_and_one_is_not() {
        assert_eq!(judged(&trust(), &[1, 3], |_, _| ()), RELEASE);
        let refusal = judged(&trust(), &[2], |_, _| ()).unwrap_err();
        let said = "1 of the 2 signatures that it takes are there";
        assert_eq!(refusal.to_string(), said);
        let refusal = judged(&trust(), &[2, 9], |_, _| ()).unwrap_err();
        assert!(
            refusal.to_string().contains("not known here is"),
            "{refusal}"
        );
        assert!(judged(&trust(), &[], |_, _| ()).is_err());
    }

    #[test]
    fn a_signature_of_another_manifest_does_not_count() {
        let manifest = manifest(10);
        let bytes = manifest.encode().unwrap();
        let (product, board) = (manifest.product.clone(), manifest.board.clone());
        let trust = trust();
        let here = Here {
            product: &product,
            board: &board,
            floor: 0,
            now: None,
            validity_floor: UnixTime::EPOCH,
            trust: &trust,
        };
        let signatures = [sign(1, &bytes), sign(2, b"another")];
        let refusal = judge(&manifest, &bytes, &signatures, &here).unwrap_err();
        let bad = vec![signatures[1].key];
        let expected = Refusal::Signatures {
            needed: 2,
            valid: 1,
            bad,
            unknown: vec![],
        };
        assert_eq!(refusal, expected);
    }

    #[test]
    fn an_owners_keys_add_or_replace_and_are_never_counted_together() {
        let with = |rule| Trust {
            owner: Some((rule, set(0, 2, &[8, 9]))),
            ..trust()
        };
        let adds = with(OwnerRule::Adds);
        assert_eq!(judged(&adds, &[1, 2], |_, _| ()), RELEASE);
        assert_eq!(judged(&adds, &[8, 9], |_, _| ()), OWNER);
        assert!(judged(&adds, &[1, 8], |_, _| ()).is_err());
        let replaces = with(OwnerRule::Replaces);
        assert!(judged(&replaces, &[1, 2], |_, _| ()).is_err());
        assert_eq!(judged(&replaces, &[8, 9], |_, _| ()), OWNER);
    }

    #[test]
    fn an_image_without_keys_takes_its_owners_word_alone() {
        let nobody = Trust::new(None, Some(set(9, 1, &[1])), None);
        assert_eq!(judged(&nobody, &[1, 2], |_, _| ()), Err(Refusal::NoKeys));
        for rule in [OwnerRule::Adds, OwnerRule::Replaces] {
            let own = Trust::new(None, None, Some((rule, set(0, 1, &[8]))));
            assert_eq!(judged(&own, &[8], |_, _| ()), OWNER);
            assert!(judged(&own, &[1, 2], |_, _| ()).is_err());
        }
    }

    #[test]
    fn another_product_or_board_is_refused() {
        let board = judged(&trust(), &[1, 2], |m, _| m.board = "rpi".parse().unwrap());
        let said = "it is for the board rpi, and this is test";
        assert_eq!(board.unwrap_err().to_string(), said);
        let product = judged(&trust(), &[1, 2], |m, _| m.product = "x".parse().unwrap());
        assert!(matches!(product, Err(Refusal::Product { .. })));
    }

    #[test]
    fn what_is_below_the_floor_comes_back_by_the_owners_keys_alone() {
        let below = |trust: &Trust, signers: &[u8]| judged(trust, signers, |_, h| h.floor = 8);
        let (floor, found) = (8, 7);
        let expected = Err(Refusal::BelowFloor { floor, found });
        assert_eq!(below(&trust(), &[1, 2]), expected);
        let mut own = trust();
        own.owner = Some((OwnerRule::Adds, set(0, 1, &[9])));
        assert_eq!(below(&own, &[9]), OWNER);
        assert_eq!(below(&own, &[1, 2]), expected);
        assert!(below(&own, &[1, 2, 9]).is_ok());
    }

    #[test]
    fn what_expired_is_refused_by_the_clock_or_by_what_is_certain() {
        let after = UnixTime::from_secs(NOT_AFTER.as_secs() + 1);
        let at = |now, floor| {
            judged(&trust(), &[1, 2], move |_, here| {
                (here.now, here.validity_floor) = (now, floor);
            })
        };
        assert!(at(Some(NOT_AFTER), UnixTime::EPOCH).is_ok());
        let refusal = at(Some(after), UnixTime::EPOCH).unwrap_err();
        assert!(matches!(refusal, Refusal::Expired { is_known: true, .. }));
        assert!(at(None, NOT_AFTER).is_ok());
        let refusal = at(None, after).unwrap_err();
        assert!(refusal.to_string().contains("at least"), "{refusal}");
        // A clock that was never set.
        assert!(at(Some(UnixTime::from_secs(9)), MADE).is_ok());
        let refusal = at(Some(UnixTime::from_secs(9)), after).unwrap_err();
        assert!(matches!(
            refusal,
            Refusal::Expired {
                is_known: false,
                ..
            }
        ));
    }

    #[test]
    fn two_sets_of_one_generation_are_refused_and_the_next_one_is_taken() {
        let with = |keys| {
            judged(&trust(), &[1, 2], move |m, _| {
                m.keys = Some(set(keys, 1, &[5]))
            })
        };
        assert!(with(2).is_ok());
        assert_eq!(with(1), Err(Refusal::Keys { generation: 1 }));
        assert!(with(0).is_ok());
        let same = judged(&trust(), &[1, 2], |m, _| {
            m.keys = Some(set(1, 2, &[1, 2, 3]))
        });
        assert!(same.is_ok());
    }

    proptest! {
        #[test]
        fn no_signers_below_the_threshold_are_enough(
            signers in prop::collection::btree_set(1u8..8, 0..7), threshold in 1u8..5,
        ) {
            let trust = Trust::new(Some(set(1, threshold, &[1, 2, 3, 4])), None, None);
            let signers: Vec<u8> = signers.into_iter().collect();
            let ours = signers.iter().filter(|n| **n <= 4).count();
            let taken = judged(&trust, &signers, |_, _| ()).is_ok();
            prop_assert_eq!(taken, ours >= threshold.into());
        }
    }
}
