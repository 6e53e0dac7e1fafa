//! Against questions and answers of `openssl ocsp` 3.0, recorded in `tests/recorded`: one CA and a
//! certificate with P-256, its delegate and a stranger to the task with RSA.

use super::*;
use proptest::prelude::*;

const CA: &[u8] = include_bytes!("../../../tests/recorded/ca.der");
const QUESTION: &[u8] = include_bytes!("../../../tests/recorded/question.der");
const GOOD: &[u8] = include_bytes!("../../../tests/recorded/good.der");
const REVOKED: &[u8] = include_bytes!("../../../tests/recorded/revoked.der");
const UNKNOWN: &[u8] = include_bytes!("../../../tests/recorded/unknown.der");
const DELEGATED: &[u8] = include_bytes!("../../../tests/recorded/delegated.der");
const BY_KEY: &[u8] = include_bytes!("../../../tests/recorded/by-key.der");
/// Signed by a certificate of the CA that has clientAuth and not OCSPSigning.
const ROGUE: &[u8] = include_bytes!("../../../tests/recorded/rogue.der");
/// A minute after they were recorded, in seconds since 1970.
const NOW_S: u64 = 1795773883;
const SERIAL: &[u8] = &[0, 0xc0, 0xff, 0xee, 1];

fn issuer() -> Issuer {
    let ca = CertificateDer::from(CA);
    let ca = webpki::anchor_from_trusted_cert(&ca).unwrap();
    Issuer {
        name: ca.subject.to_vec(),
        key: webpki::spki_for_anchor(&ca).to_vec(),
    }
}

fn question() -> Question {
    let request = OcspRequest::from_der(QUESTION).unwrap().tbs_request;
    let nonce = request.nonce().unwrap();
    Question::new(&issuer(), SERIAL, Hash::Sha256, nonce.0.as_bytes()).unwrap()
}

fn judged_at(bytes: &[u8], question: &Question, now_s: u64) -> Result<Status, Fault> {
    let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
    let signers = Signers {
        algorithms: algorithms.all,
        named: &[],
    };
    let now = UnixTime::since_unix_epoch(Duration::from_secs(now_s));
    judge(bytes, question, &issuer(), &signers, true, now)
}

fn judged(bytes: &[u8]) -> Result<Status, Fault> {
    judged_at(bytes, &question(), NOW_S)
}

#[test]
fn a_question_has_the_bytes_that_openssl_gives_it() {
    assert_eq!(question().encode().unwrap(), QUESTION);
}

#[test]
fn an_answer_of_the_ca_or_its_delegate_counts() {
    for (bytes, expected) in [
        (GOOD, Ok(Status::Good)),
        (REVOKED, Ok(Status::Revoked)),
        (UNKNOWN, Ok(Status::Unknown)),
        (DELEGATED, Ok(Status::Good)),
        (BY_KEY, Ok(Status::Good)),
        (ROGUE, Err(Fault::Signature)),
        (&[0x30, 3, 0x0a, 1, 6], Err(Fault::Declined(6))),
        (&[], Err(Fault::Malformed)),
    ] {
        assert_eq!(judged(bytes), expected);
    }
}

#[test]
fn an_answer_holds_between_its_times() {
    const TEN_YEARS_S: u64 = 3650 * 86400;
    for (now_s, expected) in [
        (NOW_S - 60 - 301, Err(Fault::Stale)),
        (NOW_S - 60 - 299, Ok(Status::Good)),
        (NOW_S - 61 + TEN_YEARS_S, Ok(Status::Good)),
        (NOW_S - 59 + TEN_YEARS_S, Err(Fault::Stale)),
    ] {
        assert_eq!(judged_at(GOOD, &question(), now_s), expected);
    }
}

#[test]
fn an_answer_to_another_question_doesnt_count() {
    let asked = |serial, hash, nonce: &[u8]| {
        let question = Question::new(&issuer(), serial, hash, nonce).unwrap();
        judged_at(GOOD, &question, NOW_S)
    };
    let nonce = question().nonce;
    assert_eq!(asked(SERIAL, Hash::Sha256, &nonce), Ok(Status::Good));
    assert_eq!(
        asked(SERIAL, Hash::Sha256, &[7; 16]),
        Err(Fault::OtherNonce)
    );
    let other = Err(Fault::OtherCertificate);
    assert_eq!(asked(&[1], Hash::Sha256, &nonce), other);
    assert_eq!(asked(SERIAL, Hash::Sha1, &nonce), other);
}

#[test]
fn no_changed_bit_verifies() {
    for bytes in [GOOD, REVOKED, DELEGATED, BY_KEY] {
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(judged(&changed).is_err(), "bit {at}");
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(judged(&bytes).is_err());
    }

    #[test]
    fn no_cut_or_splice_verifies(from in 0usize..2000, length in 1usize..2000, put in proptest::collection::vec(any::<u8>(), 0..8)) {
        for bytes in [GOOD, DELEGATED] {
            let from = from % bytes.len();
            let until = (from + length).min(bytes.len());
            let mut changed = bytes.to_vec();
            changed.splice(from..until, put.iter().copied());
            prop_assert!(changed == bytes || judged(&changed).is_err());
        }
    }
}
