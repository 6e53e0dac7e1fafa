//! Pairings as `ci/vectors/claim.py` works them out with Python's standard library alone.

use altnet_claim::code::Code;
use altnet_claim::hello::Hello;
use altnet_claim::key::BoxSecret;
use altnet_claim::pairing::{Answering, Asking};
use serde_json::Value;
use zeroize::Zeroizing;

fn bytes(case: &Value, name: &str) -> Vec<u8> {
    let digits = text(case, name).as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn text<'a>(case: &'a Value, name: &str) -> &'a str {
    case[name].as_str().unwrap()
}

fn key(case: &Value, name: &str) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(bytes(case, name).try_into().unwrap())
}

#[test]
fn every_byte_of_a_pairing_is_as_it_was_worked_out_elsewhere() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("pairing.json")).unwrap();
    assert!(cases.len() > 1);
    for case in &cases {
        let code = Code::new(&bytes(case, "chance").try_into().unwrap());
        assert_eq!(*code.to_text(), text(case, "code"));
        let secret = BoxSecret::new(key(case, "box_secret"));
        assert_eq!(
            secret.public().fingerprint().to_string(),
            text(case, "fingerprint")
        );
        let hello = bytes(case, "hello");
        assert_eq!(Hello::decode(&hello).unwrap().encode(), hello);

        let (asking, a) = Asking::begin(&hello, &code, key(case, "computer_seed")).unwrap();
        assert_eq!(a, bytes(case, "a"));
        let answering = Answering {
            code: &code,
            secret: &secret,
            hello: &hello,
        };
        let (waiting, b) = answering.take(&a, key(case, "box_seed")).unwrap().answer();
        assert_eq!(b, bytes(case, "b"));
        let (proving, proof) = asking.prove(&b).unwrap();
        assert_eq!(proof, bytes(case, "proof"));
        let (_, answer) = waiting.finish(&proof).unwrap();
        assert_eq!(answer, bytes(case, "answer"));
        let mut channel = proving.finish(&answer).unwrap();
        let plain = bytes(case, "plain");
        for sealed in case["sealed"].as_array().unwrap() {
            let sealed = bytes(&serde_json::json!({ "sealed": sealed }), "sealed");
            assert_eq!(channel.seal(&plain).unwrap(), sealed);
        }
    }
}
