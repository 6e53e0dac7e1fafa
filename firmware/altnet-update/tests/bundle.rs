//! The bytes of bundles, agreed on with `ci/vectors/bundle.py`, which was written from the format's
//! description alone.

use altnet_update::bundle::Opened;
use altnet_update::keys::{KeySet, ReleaseKey, Signed};
use altnet_update::make;
use altnet_update::manifest::{Manifest, signed_hash};
use altnet_wire::time::UnixTime;
use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::Value;

fn cases() -> Vec<Value> {
    serde_json::from_str(include_str!("bundle.json")).expect("vectors")
}

fn octets(hex: &Value) -> Vec<u8> {
    HEXLOWER
        .decode(hex.as_str().expect("text").as_bytes())
        .expect("hexadecimal")
}

fn key(hex: &Value) -> [u8; 32] {
    octets(hex).try_into().expect("32 bytes")
}

fn slot(case: &Value) -> Vec<u8> {
    let runs = case["slot"].as_array().expect("runs").iter();
    let repeat =
        |run: &Value| octets(&run["bytes"]).repeat(run["times"].as_u64().unwrap() as usize);
    runs.flat_map(repeat).collect()
}

/// The manifest that a case describes, of a slot in these frames.
fn manifest(
    case: &Value,
    (frames, slot_bytes): (Vec<altnet_update::manifest::Frame>, u64),
) -> Manifest {
    let said = &case["manifest"];
    let label = |name: &str| said[name].as_str().unwrap().parse().unwrap();
    let number = |name: &str| said[name].as_u64().unwrap();
    let keys = said["keys"].as_object().map(|set| KeySet {
        generation: set["generation"].as_u64().unwrap() as u32,
        threshold: set["threshold"].as_u64().unwrap() as u8,
        keys: set["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(|hex| ReleaseKey(key(hex)))
            .collect(),
    });
    Manifest {
        product: label("product"),
        board: label("board"),
        version: label("version"),
        counter: number("counter"),
        floor: number("floor"),
        made: UnixTime::from_secs(number("made")),
        not_after: UnixTime::from_secs(number("not_after")),
        keys,
        slot_bytes,
        frames,
    }
}

fn sign(case: &Value, manifest: &[u8]) -> Vec<Signed> {
    let seeds = case["seeds"].as_array().unwrap().iter();
    let signed = seeds.map(|seed| {
        let secret = SigningKey::from_bytes(&key(seed));
        Signed {
            key: ReleaseKey(secret.verifying_key().to_bytes()),
            signature: secret.sign(&signed_hash(manifest)).to_bytes(),
        }
    });
    signed.collect()
}

#[test]
fn what_is_written_in_the_vectors_is_read() {
    let cases = cases();
    assert_eq!(cases.len(), 2);
    for case in cases {
        let bundle = octets(&case["bundle"]);
        let opened = Opened::read(&bundle[..]).unwrap();
        let found = opened.manifest().clone();
        let expected = manifest(&case, (found.frames.clone(), slot(&case).len() as u64));
        assert_eq!(found, expected);
        // The head is these bytes and no others.
        let bytes = expected.encode().unwrap();
        let head = make::head(&bytes, sign(&case, &bytes)).unwrap();
        assert!(bundle.starts_with(&head));
        for signed in opened.signatures() {
            assert!(signed.key.has_signed(&bytes, &signed.signature));
        }
        let mut pieces = opened.pieces();
        let (mut piece, mut all) = (Vec::new(), Vec::new());
        while pieces.next_piece(&mut piece).unwrap().is_some() {
            all.extend_from_slice(&piece);
        }
        assert!(all == slot(&case));
    }
}

/// Writes the second vector: `cargo test -p altnet-update --test bundle -- --ignored --nocapture`.
#[test]
#[ignore = "writes a vector: it changes when the compressor does, and need not be made anew then"]
fn a_bundle_made_here_for_the_vectors() {
    let case = cases().remove(1);
    let mut packed = Vec::new();
    let frames = make::pack(&slot(&case)[..], &mut packed).unwrap();
    let bytes = manifest(&case, frames).encode().unwrap();
    let mut bundle = make::head(&bytes, sign(&case, &bytes)).unwrap();
    bundle.extend_from_slice(&packed);
    println!("BUNDLE {}", HEXLOWER.encode(&bundle));
}
