//! What a state's file holds: a line `altnet-acme KIND 1 SHA256`, the sum of all that follows in
//! hexadecimal, then JSON.

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

/// A file of `kind` with this JSON.
pub(super) fn encode(kind: &str, json: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([head(kind, json).as_bytes(), json].concat())
}

/// What a file of `kind` holds; nothing if it isn't as it was written.
pub(super) fn decode<T: DeserializeOwned>(kind: &str, bytes: &[u8]) -> Option<T> {
    let end = bytes.iter().position(|b| *b == b'\n')? + 1;
    let (found, json) = bytes.split_at(end);
    if found != head(kind, json).as_bytes() {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn head(kind: &str, json: &[u8]) -> String {
    let sum = digest(&SHA256, json);
    format!("altnet-acme {kind} 1 {}\n", HEXLOWER.encode(sum.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_else_panics(value: Vec<String>, bytes: Vec<u8>) {
            let json = serde_json::to_vec(&value).unwrap();
            prop_assert_eq!(decode("plan", &encode("plan", &json)), Some(value));
            prop_assert_eq!(decode::<Vec<String>>("account", &encode("plan", &json)), None);
            prop_assert_eq!(decode::<Vec<String>>("plan", &bytes), None);
        }
    }
}
