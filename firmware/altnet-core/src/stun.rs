//! Telling whoever asks what its address is (STUN Binding, RFC 8489).
//!
//! In: a datagram and where it came from. Out: the answer, if it is a Binding request and gets one.
//! Nothing is remembered of who asked.
//!
//! Where a request came from may be forged, so that its answer would go to a third party. An
//! answer that is no larger than its request gains nobody anything. A bare request has 20 bytes
//! and its answer 32 or more; so that clients everywhere, which send nothing longer, can ask at
//! all, such answers share a budget over all sources.
//!
//! Deliberately absent: credentials (what is told is no secret), other methods, and answering from
//! another address or port (RFC 5780), which needs a second one.

use core::net::SocketAddr;

use altnet_wire::frame::NoRoom;
use altnet_wire::stun::attribute::{
    NONCE, PADDING, PASSWORD_ALGORITHM, REALM, UNKNOWN_ATTRIBUTE, USERHASH, USERNAME,
    XOR_MAPPED_ADDRESS,
};
use altnet_wire::stun::write::Writer;
use altnet_wire::stun::{Class, MAX_ATTRIBUTES, Message, Method};
use altnet_wire::time::Instant;

use crate::derp::rate::{Bucket, Rate};

/// What must be understood of a request and is: who asks doesn't matter, nor what fills it up.
const KNOWN: &[u16] = &[
    USERNAME,
    REALM,
    NONCE,
    USERHASH,
    PASSWORD_ALGORITHM,
    PADDING,
];

/// The longest answer: a header (20), an error (8), a list with every attribute there can be in
/// it (4 and 2 each), a fingerprint (8).
pub const ANSWER_BYTES: usize = 20 + 8 + 4 + 2 * MAX_ATTRIBUTES + 8;

/// Who answers, and what is left of its budget.
#[derive(Debug)]
pub struct Answers {
    short: Bucket,
    rate: Rate,
}

impl Answers {
    /// Gives answers that are larger than their requests at `rate`, in answers, all sources together.
    pub const fn new(rate: Rate) -> Self {
        Self {
            short: Bucket::FULL,
            rate,
        }
    }

    /// Writes the answer to `datagram`, which came from `from`, and returns its length; `None` if it gets
    /// none, whatever is in `out` then.
    pub fn answer(
        &mut self,
        datagram: &[u8],
        from: SocketAddr,
        out: &mut [u8; ANSWER_BYTES],
        now: Instant,
    ) -> Option<usize> {
        let request = Message::parse(datagram).ok()?;
        let length = answer(&request, from, out)?;
        let is_short = datagram.len() < length;
        (!is_short || self.short.try_take(self.rate, 1, now)).then_some(length)
    }
}

/// Writes the answer to `request` and returns its length; `None` if it gets none.
fn answer(request: &Message<'_>, from: SocketAddr, out: &mut [u8]) -> Option<usize> {
    let is_binding = (request.class(), request.method()) == (Class::Request, Method::BINDING);
    // A wrong fingerprint: it only looks like STUN (section 14.7).
    if !is_binding || request.fingerprint() == Some(false) {
        return None;
    }
    write(request, from, out).ok()
}

fn write(request: &Message<'_>, from: SocketAddr, out: &mut [u8]) -> Result<usize, NoRoom> {
    let unknown = request.unknown_required(KNOWN);
    let is_understood = unknown.clone().next().is_none();
    let class = if is_understood {
        Class::Success
    } else {
        Class::Error
    };
    let mut writer = Writer::new(out, class, Method::BINDING, request.transaction())?;
    if is_understood {
        writer.put_xor_address(XOR_MAPPED_ADDRESS, from)?;
    } else {
        // Without the words that go with the number, so that it is short.
        writer.put_error(UNKNOWN_ATTRIBUTE, "")?;
        writer.put_unknown(unknown)?;
    }
    if request.fingerprint().is_some() {
        writer.put_fingerprint()?;
    }
    Ok(writer.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::stun::TransactionId;
    use altnet_wire::stun::attribute::{SOFTWARE, UNKNOWN_ATTRIBUTES};
    use altnet_wire::time::Duration;
    use proptest::prelude::*;
    use std::vec::Vec;

    const FROM: &str = "198.51.100.7:40000";

    fn request(write: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
        let mut out = [0; 512];
        let transaction = TransactionId([3; 12]);
        let mut writer =
            Writer::new(&mut out, Class::Request, Method::BINDING, transaction).unwrap();
        write(&mut writer);
        writer.bytes().to_vec()
    }

    const NOW: Instant = Instant::from_micros(10_000_000);

    fn answered(request: &[u8], from: &str) -> Option<Vec<u8>> {
        let mut out = [0; ANSWER_BYTES];
        let mut answers = Answers::new(Rate::NONE);
        let length = answers.answer(request, from.parse().unwrap(), &mut out, NOW)?;
        Some(out[..length].to_vec())
    }

    #[test]
    fn an_answer_says_the_address_and_no_more() {
        for (from, length) in [(FROM, 32), ("[2001:db8::7]:40000", 44)] {
            let answer = answered(&request(|_| ()), from).unwrap();
            let message = Message::parse(&answer).unwrap();
            assert_eq!(message.class(), Class::Success);
            assert_eq!(message.transaction(), TransactionId([3; 12]));
            let told = message.xor_address(XOR_MAPPED_ADDRESS);
            assert_eq!(told, Some(from.parse().unwrap()));
            assert_eq!(answer.len(), length);
        }
    }

    #[test]
    fn a_fingerprint_is_checked_and_answered_with_one() {
        let mut asked = request(|writer| {
            writer.put_fingerprint().unwrap();
        });
        let answer = answered(&asked, FROM).unwrap();
        assert_eq!(Message::parse(&answer).unwrap().fingerprint(), Some(true));
        *asked.last_mut().unwrap() ^= 1;
        assert_eq!(answered(&asked, FROM), None);
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named_in_the_answer() {
        // CHANGE-REQUEST (RFC 5780) and PRIORITY (RFC 8445); SOFTWARE need not be understood.
        let asked = request(|writer| {
            writer.put_number(0x0003, 6).unwrap();
            writer.put(SOFTWARE, b"asker").unwrap();
            writer.put_number(0x0024, 1).unwrap();
        });
        let answer = answered(&asked, FROM).unwrap();
        let message = Message::parse(&answer).unwrap();
        assert_eq!(message.class(), Class::Error);
        assert_eq!(message.error().unwrap().code, 420);
        let unknown = message.find(UNKNOWN_ATTRIBUTES).unwrap();
        assert_eq!(unknown.list().collect::<Vec<u16>>(), [0x0003, 0x0024]);
        assert!(answer.len() <= asked.len());
    }

    #[test]
    fn larger_answers_share_a_budget_and_others_need_none() {
        let (bare, mut out) = (request(|_| ()), [0; ANSWER_BYTES]);
        // Of 32 bytes with a SOFTWARE of 8, as long as its answer.
        let filled = request(|writer| {
            writer.put(SOFTWARE, b"tailnode").unwrap();
        });
        let rate = Rate {
            per_s: 20,
            burst: 40,
        };
        let mut answers = Answers::new(rate);
        let mut count = |request: &[u8], now| {
            (0..100u8)
                .map(|last| SocketAddr::from(([203, 0, 113, last], 4000)))
                .filter(|from| answers.answer(request, *from, &mut out, now).is_some())
                .count()
        };
        assert_eq!(count(&bare, NOW), 40);
        assert_eq!(count(&filled, NOW), 100);
        assert_eq!(count(&bare, NOW.after(Duration::from_millis(500))), 10);
        assert_eq!(count(&bare, NOW.after(Duration::from_secs(60))), 40);
    }

    #[test]
    fn the_longest_answer_has_room() {
        let asked = request(|writer| {
            for kind in 0..MAX_ATTRIBUTES as u16 - 1 {
                writer.put(0x7000 + kind, b"").unwrap();
            }
            writer.put_fingerprint().unwrap();
        });
        assert!(answered(&asked, FROM).is_some());
    }

    #[test]
    fn only_requests_are_answered_and_only_binding_ones() {
        let mut out = [0; 64];
        for (class, method) in [
            (Class::Indication, Method::BINDING),
            (Class::Success, Method::BINDING),
            (Class::Error, Method::BINDING),
            (Class::Request, Method::ALLOCATE),
        ] {
            let writer = Writer::new(&mut out, class, method, TransactionId([3; 12])).unwrap();
            assert_eq!(answered(writer.bytes(), FROM), None);
        }
    }

    proptest! {
        #[test]
        fn an_answer_never_has_more_than_24_bytes_more_than_its_request(
            kinds in proptest::collection::vec(any::<u16>(), 0..MAX_ATTRIBUTES),
            is_v6 in any::<bool>(),
        ) {
            let asked = request(|writer| {
                for kind in &kinds {
                    writer.put(*kind, b"").unwrap();
                }
            });
            let from = if is_v6 { "[2001:db8::7]:40000" } else { FROM };
            if let Ok(message) = Message::parse(&asked) {
                let mut out = [0; ANSWER_BYTES];
                if let Some(length) = answer(&message, from.parse().unwrap(), &mut out) {
                    prop_assert!(length <= asked.len() + 24);
                }
            }
        }
    }
}
