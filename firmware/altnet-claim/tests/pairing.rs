//! A computer and a box, with somebody between them who may do anything.

use altnet_claim::code::Code;
use altnet_claim::hello::{Hello, State};
use altnet_claim::key::{BoxKey, BoxSecret};
use altnet_claim::pairing::{Answering, Asking, Channel, MAX_PLAIN, PairingError, Seed};
use proptest::prelude::*;
use zeroize::Zeroizing;

/// A box.
struct Appliance {
    code: Code,
    secret: BoxSecret,
    hello: Vec<u8>,
}

impl Appliance {
    fn new(code: u8, key: u8) -> Self {
        let secret = BoxSecret::new(Zeroizing::new([key; 32]));
        let hello = hello(secret.public());
        Self {
            code: Code::new(&[code; 9]),
            secret,
            hello,
        }
    }

    fn answering(&self) -> Answering<'_> {
        Answering {
            code: &self.code,
            secret: &self.secret,
            hello: &self.hello,
        }
    }
}

fn hello(key: BoxKey) -> Vec<u8> {
    let hello = Hello {
        state: State::Open,
        key,
        tries_left: 5,
        seconds_left: 600,
        board: "rpi".into(),
        version: "v1".into(),
    };
    hello.encode()
}

fn seed(byte: u8) -> Seed {
    Zeroizing::new([byte; 32])
}

/// A pairing in which `change` may do what it likes to each of the five messages, by its number.
fn pair(
    code: u8,
    there: &Appliance,
    mut change: impl FnMut(usize, &mut Vec<u8>),
) -> Result<(Channel, Channel), PairingError> {
    let mut passed = |number, mut message: Vec<u8>| {
        change(number, &mut message);
        message
    };
    let hello = passed(0, there.hello.clone());
    let (asking, message) = Asking::begin(&hello, &Code::new(&[code; 9]), seed(1))?;
    let counting = there.answering().take(&passed(1, message), seed(2))?;
    let (waiting, message) = counting.answer();
    let (proving, message) = asking.prove(&passed(2, message))?;
    let (box_channel, message) = waiting.finish(&passed(3, message))?;
    let channel = proving.finish(&passed(4, message))?;
    Ok((channel, box_channel))
}

fn why(result: Result<(Channel, Channel), PairingError>) -> Option<PairingError> {
    result.err()
}

#[test]
fn who_has_the_code_gets_a_channel() {
    let (mut one, mut other) = pair(7, &Appliance::new(7, 9), |_, _| {}).unwrap();
    for length in [0, 1, MAX_PLAIN] {
        let plain = vec![3; length];
        let sealed = one.seal(&plain).unwrap();
        assert_eq!(**other.open(&sealed).unwrap(), plain);
        let sealed = other.seal(&plain).unwrap();
        assert_eq!(**one.open(&sealed).unwrap(), plain);
    }
    assert_eq!(one.seal(&[0; MAX_PLAIN + 1]), Err(PairingError::Form));
    // Neither is taken twice, nor by who wrote it.
    let sealed = one.seal(b"x").unwrap();
    assert!(one.open(&sealed).is_err());
    other.open(&sealed).unwrap();
    assert!(other.open(&sealed).is_err());
}

#[test]
fn who_has_another_code_gets_nothing_and_shows_it_first() {
    // The box sends nothing after the computer's proof was wrong.
    let mut sent = Vec::new();
    let result = pair(8, &Appliance::new(7, 9), |number, _| sent.push(number));
    assert_eq!(
        (why(result), sent),
        (Some(PairingError::WrongCode), vec![0, 1, 2, 3])
    );
}

#[test]
fn a_message_for_one_box_is_of_no_use_to_another_with_the_same_code() {
    let (one, other) = (Appliance::new(7, 9), Appliance::new(7, 10));
    let result = pair(7, &one, |number, message| {
        if number == 0 {
            *message = other.hello.clone();
        }
    });
    assert_eq!(why(result), Some(PairingError::WrongCode));
}

#[test]
fn what_was_heard_opens_nothing_a_second_time() {
    let there = Appliance::new(7, 9);
    let mut heard = vec![Vec::new(); 5];
    pair(7, &there, |number, message| heard[number] = message.clone()).unwrap();
    let counting = there.answering().take(&heard[1], seed(3)).unwrap();
    let (waiting, answer) = counting.answer();
    assert_ne!(answer, heard[2]);
    assert_eq!(
        waiting.finish(&heard[3]).err(),
        Some(PairingError::WrongCode)
    );
}

#[test]
fn an_answer_sent_back_is_no_answer() {
    let there = Appliance::new(7, 9);
    let mut first = Vec::new();
    let result = pair(7, &there, |number, message| match number {
        1 => first = message.clone(),
        2 => *message = first.clone(),
        _ => {}
    });
    assert_eq!(why(result), Some(PairingError::Form));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_changed_on_the_way_nobody_is_paired(number in 0usize..5, at in 0usize..200, by in 1u8.., cut: bool) {
        let result = pair(7, &Appliance::new(7, 9), |n, message| {
            if n == number {
                let length = message.len();
                match cut {
                    true => message.truncate(at % length),
                    false => message[at % length] ^= by,
                }
            }
        });
        prop_assert!(result.is_err());
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let there = Appliance::new(7, 9);
        let _ = there.answering().take(&bytes, seed(1));
        let mut point = bytes.clone();
        point.resize(33, 0);
        point[0] = b'A';
        if let Ok(counting) = there.answering().take(&point, seed(1)) {
            let (waiting, _) = counting.answer();
            prop_assert!(waiting.finish(&bytes).is_err());
        }
        let (asking, _) = Asking::begin(&there.hello, &there.code, seed(2)).unwrap();
        let _ = asking.prove(&bytes);
        let _ = Asking::begin(&bytes, &there.code, seed(3));
    }
}
