//! A STUN server that anybody asks anything.

use std::net::SocketAddr;

use altnet_core::derp::rate::Rate;
use altnet_core::stun::{ANSWER_BYTES, Answers};
use altnet_wire::stun::attribute::XOR_MAPPED_ADDRESS;
use altnet_wire::stun::{Class, Message, Method};
use altnet_wire::time::Instant;

use crate::bytes::Bytes;
use crate::parsers;

/// Larger answers that it may give here: no time passes.
const BURST: u32 = 2;
/// An answer has so many bytes more than its request, at most.
const MOST_GAINED: usize = 24;

/// Asks it one datagram after the other, of either family.
pub fn stun_server(data: &[u8]) {
    let mut answers = Answers::new(Rate {
        per_s: 1,
        burst: BURST,
    });
    let (v4, v6) = ("203.0.113.10:51820", "[2001:db8::10]:51820");
    let sources: [SocketAddr; 2] = [v4, v6].map(|text| text.parse().expect("an address"));
    let (mut bytes, mut larger) = (Bytes(data), 0);
    while !bytes.is_empty() {
        let from = sources[usize::from(bytes.octet() & 1)];
        let datagram = bytes.run();
        let mut out = [0; ANSWER_BYTES];
        let now = Instant::from_micros(10_000_000);
        let Some(length) = answers.answer(datagram, from, &mut out, now) else {
            continue;
        };
        let asked = Message::parse(datagram).expect("only messages are answered");
        let answer = Message::parse(&out[..length]).expect("an answer is a message");
        assert_eq!(
            (asked.class(), asked.method(), answer.method()),
            (Class::Request, Method::BINDING, Method::BINDING)
        );
        assert_eq!(answer.transaction(), asked.transaction());
        match answer.class() {
            Class::Success => assert_eq!(answer.xor_address(XOR_MAPPED_ADDRESS), Some(from)),
            _ => assert!(answer.error().is_some(), "an error says which"),
        }
        assert_eq!(answer.fingerprint(), asked.fingerprint());
        assert!(length <= datagram.len() + MOST_GAINED);
        larger += u32::from(length > datagram.len());
    }
    assert!(larger <= BURST, "it gave {larger} larger answers");
}

/// Valid inputs for the target: every message that `stun` has, from both families.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    if target != "stun_server" {
        return Vec::new();
    }
    let ask = |family: u8, message: &Vec<u8>| {
        let length = u16::try_from(message.len()).expect("short").to_be_bytes();
        [&[family], &length[..], message].concat()
    };
    let messages = parsers::seeds("stun");
    let of = |family| -> Vec<Vec<u8>> { messages.iter().map(|one| ask(family, one)).collect() };
    let bare = ask(
        0,
        &[&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42], &[7; 12][..]].concat(),
    );
    vec![of(0).concat(), of(1).concat(), bare.repeat(4)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_answered_and_the_budget_ends() {
        let mut out = [0; ANSWER_BYTES];
        let mut answers = Answers::new(Rate { per_s: 1, burst: 2 });
        let from = "203.0.113.10:51820".parse().unwrap();
        let seeds = seeds("stun_server");
        let mut bytes = Bytes(&seeds[2]);
        let mut answered = Vec::new();
        while !bytes.is_empty() {
            bytes.octet();
            let now = Instant::from_micros(10_000_000);
            answered.push(answers.answer(bytes.run(), from, &mut out, now).is_some());
        }
        assert_eq!(answered, [true, true, false, false]);
        seeds.iter().for_each(|seed| stun_server(seed));
    }
}
