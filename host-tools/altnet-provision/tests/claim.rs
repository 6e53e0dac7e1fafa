//! Claiming, against a box that is a thread: the protocol is the real one, what the box does with files is what a test wants.
//! The real box is claimed in `hil-tests` (`a_box_is_claimed_over_its_lan`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use altnet_claim::code::Code;
use altnet_claim::frame;
use altnet_claim::hello::{Hello, State};
use altnet_claim::key::BoxSecret;
use altnet_claim::pairing::Answering;
use altnet_claim::words::{File, FileName, Inbox, ToBox, ToComputer};
use altnet_provision::Error;
use altnet_provision::claim::Visit;
use zeroize::Zeroizing;

fn send(out: &mut TcpStream, message: &[u8]) {
    out.write_all(&frame::encode(message).unwrap()).unwrap();
}

fn receive(from: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    from.read_exact(&mut length).unwrap();
    let mut message = vec![0; frame::length(length).unwrap()];
    from.read_exact(&mut message).unwrap();
    message
}

fn code(byte: u8) -> Code {
    Code::new(&[byte; 9])
}

/// A box that answers one call, and says `answers` when it has files. Gives back the files, if it came so far.
fn appliance(state: State, answers: Vec<ToComputer>) -> (SocketAddr, JoinHandle<Vec<File>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let secret = BoxSecret::new(Zeroizing::new([9; 32]));
        let hello = Hello {
            state,
            key: secret.public(),
            tries_left: 3,
            seconds_left: 60,
            board: "rpi".into(),
            version: "v1".into(),
        };
        let hello = hello.encode();
        send(&mut stream, &hello);
        if state != State::Open {
            return Vec::new();
        }
        let answering = Answering {
            code: &code(7),
            secret: &secret,
            hello: &hello,
        };
        let counting = answering.take(&receive(&mut stream), Zeroizing::new([2; 32]));
        let (waiting, answer) = counting.unwrap().answer();
        send(&mut stream, &answer);
        let Ok((mut channel, answer)) = waiting.finish(&receive(&mut stream)) else {
            return Vec::new();
        };
        send(&mut stream, &answer);
        let mut inbox = Inbox::default();
        let files = loop {
            let plain = channel.open(&receive(&mut stream)).unwrap();
            if let Some(files) = inbox.handle(ToBox::decode(&plain).unwrap()).unwrap() {
                break files;
            }
        };
        for said in answers {
            send(&mut stream, &channel.seal(&said.encode()).unwrap());
        }
        files
    });
    (address, serving)
}

fn files() -> Vec<File> {
    let file = |name, length| File {
        name,
        bytes: Zeroizing::new((0..length).map(|n| (n % 251) as u8).collect()),
    };
    vec![file(FileName::Bundle, 10_000), file(FileName::Hostname, 8)]
}

#[test]
fn who_has_the_code_hands_files_over_and_hears_what_becomes_of_them() {
    let (address, serving) = appliance(
        State::Open,
        vec![
            ToComputer::Taken {
                name: FileName::Bundle,
            },
            ToComputer::AllTaken,
            ToComputer::Waits {
                why: "nobody answers".into(),
            },
            ToComputer::Joined {
                name: "house-a".into(),
            },
        ],
    );
    let visit = Visit::call(address).unwrap();
    assert_eq!(visit.summary().board, "rpi");
    let mut claim = visit.pair(&code(7)).unwrap();
    claim.hand_over(&files()).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    let said = claim.hear(until).unwrap();
    assert_eq!(
        said,
        Some(ToComputer::Waits {
            why: "nobody answers".into()
        })
    );
    let said = claim.hear(until).unwrap();
    assert_eq!(
        said,
        Some(ToComputer::Joined {
            name: "house-a".into()
        })
    );
    assert!(claim.hear(until).is_err(), "the box hung up");
    assert!(serving.join().unwrap() == files());
}

#[test]
fn what_a_box_refuses_is_said_whole() {
    let why = |name, why: &str| ToComputer::NotTaken {
        name,
        why: why.into(),
    };
    let answers = vec![
        why(FileName::Hostname, "no name"),
        why(FileName::Bundle, "no bundle"),
    ];
    let (address, _serving) = appliance(State::Open, answers);
    let mut claim = Visit::call(address).unwrap().pair(&code(7)).unwrap();
    let error = claim.hand_over(&files()).unwrap_err();
    assert_eq!(error.code(), "refused");
    assert!(
        error
            .to_string()
            .contains("hostname: no name; first-boot.bundle: no bundle"),
        "{error}"
    );
}

#[test]
fn another_code_is_told_with_the_tries_that_are_left() {
    let (address, _serving) = appliance(State::Open, Vec::new());
    let error = Visit::call(address).unwrap().pair(&code(8)).err().unwrap();
    assert!(matches!(error, Error::WrongCode { left: 2 }), "{error}");
    assert!(
        error.next_step().contains("2 tries left"),
        "{}",
        error.next_step()
    );
}

#[test]
fn a_closed_box_says_why_and_what_to_do() {
    for (state, word) in [
        (State::TimeOver, "ten minutes are over"),
        (State::TriesUsed, "as many codes were tried"),
        (State::Busy, "somebody else"),
    ] {
        let (address, _serving) = appliance(state, Vec::new());
        let error = Visit::call(address).unwrap().pair(&code(7)).err().unwrap();
        assert!(error.to_string().contains(word), "{error}");
        assert!(
            error.next_step().contains("off and on"),
            "{}",
            error.next_step()
        );
    }
}

#[test]
fn what_answers_and_is_no_box_is_told() {
    for bytes in [&b"\0\x01\x02"[..], b"HTTP/1.1 400 Bad Request\r\n", b"\0\0"] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serving = spawn(move || listener.accept().unwrap().0.write_all(bytes));
        let error = Visit::call(address).err().unwrap();
        assert_eq!(error.code(), "claim", "{error}");
        serving.join().unwrap().unwrap();
    }
}
