//! Releases as tests want them: keys by number, manifests and whole bundles.

use altnet_wire::time::UnixTime;
use ed25519_dalek::{Signer, SigningKey};
use sha2::{Digest, Sha256 as Hasher};

use crate::keys::{KeySet, ReleaseKey, Signed};
use crate::make;
use crate::manifest::{Frame, Manifest, PIECE_BYTES, signed_hash};

/// The moment that releases are made at here.
pub(crate) const MADE: UnixTime = UnixTime::from_secs(1_795_000_000);
/// And until when they count.
pub(crate) const NOT_AFTER: UnixTime = UnixTime::from_secs(1_800_000_000);

fn secret(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

pub(crate) fn release_key(number: u8) -> ReleaseKey {
    ReleaseKey(secret(number).verifying_key().to_bytes())
}

pub(crate) fn sign(number: u8, manifest: &[u8]) -> Signed {
    let signature = secret(number).sign(&signed_hash(manifest)).to_bytes();
    Signed {
        key: release_key(number),
        signature,
    }
}

pub(crate) fn set(generation: u32, threshold: u8, numbers: &[u8]) -> KeySet {
    let keys = numbers.iter().map(|number| release_key(*number)).collect();
    KeySet::new(generation, threshold, keys).expect("a set")
}

/// A manifest of a slot of so many bytes, whose frames are nobody's.
pub(crate) fn manifest(slot_bytes: u64) -> Manifest {
    let frame = Frame {
        packed_bytes: 9,
        packed: [3; 32],
        plain: [4; 32],
    };
    let count = slot_bytes.div_ceil(PIECE_BYTES.into());
    Manifest {
        product: "altnet".parse().expect("a label"),
        board: "test".parse().expect("a label"),
        version: "0.2.0".parse().expect("a label"),
        counter: 7,
        floor: 5,
        made: MADE,
        not_after: NOT_AFTER,
        keys: None,
        slot_bytes,
        frames: vec![frame; count as usize],
    }
}

/// A slot's bytes, not all alike.
pub(crate) fn slot(bytes: usize, seed: u8) -> Vec<u8> {
    let mut all = Vec::with_capacity(bytes + 32);
    let mut block: [u8; 32] = Hasher::digest([seed]).into();
    while all.len() < bytes {
        // Half of it compresses.
        match all.len() / 4096 % 2 {
            0 => all.extend_from_slice(&block),
            _ => all.extend_from_slice(&[seed; 32]),
        }
        block = Hasher::digest(block).into();
    }
    all.truncate(bytes);
    all
}

/// A whole bundle of `slot` by the keys with these numbers, after `change` to its manifest.
pub(crate) fn bundle_with(slot: &[u8], signers: &[u8], change: impl Fn(&mut Manifest)) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut manifest = manifest(1);
    let (frames, slot_bytes) = make::pack(slot, &mut packed).expect("it packs");
    (manifest.frames, manifest.slot_bytes) = (frames, slot_bytes);
    change(&mut manifest);
    let bytes = manifest.encode().expect("a manifest");
    let signatures = signers.iter().map(|number| sign(*number, &bytes));
    let mut out = make::head(&bytes, signatures.collect()).expect("a head");
    out.extend_from_slice(&packed);
    out
}

pub(crate) fn bundle(slot: &[u8], signers: &[u8]) -> Vec<u8> {
    bundle_with(slot, signers, |_| ())
}
