//! The four messages of WireGuard, byte by byte.
//!
//! In: a datagram. Out: one of [`Message`]'s variants with its fields, nothing yet
//! believed. `encode` stands beside `parse`, and each is the other's test. Integers are
//! little-endian (whitepaper section 5.4).

use crate::aead::TAG_BYTES;

/// Bytes in a [`Initiation`].
pub const INITIATION_BYTES: usize = 148;
/// Bytes in a [`Response`].
pub const RESPONSE_BYTES: usize = 92;
/// Bytes in a [`CookieReply`].
pub const COOKIE_REPLY_BYTES: usize = 64;
/// Bytes before the ciphertext of a transport message.
pub const TRANSPORT_HEADER_BYTES: usize = 16;
/// The shortest transport message: a keepalive.
pub const KEEPALIVE_BYTES: usize = TRANSPORT_HEADER_BYTES + TAG_BYTES;
/// Bytes in a MAC or a cookie.
pub const MAC_BYTES: usize = 16;
/// Bytes of a handshake message behind the part that mac1 covers: mac1 and mac2.
pub const MACS_BYTES: usize = 2 * MAC_BYTES;

/// A MAC or a cookie.
pub type Mac = [u8; MAC_BYTES];

const INITIATION: u32 = 1;
const RESPONSE: u32 = 2;
const COOKIE_REPLY: u32 = 3;
const TRANSPORT: u32 = 4;

/// A datagram, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First message of a handshake (section 5.4.2).
    Initiation(Initiation),
    /// Second message of a handshake (section 5.4.3).
    Response(Response),
    /// "Prove first that you get mail at this address" (section 5.4.7).
    CookieReply(CookieReply),
    /// A sealed packet; its bytes stay where they are (section 5.4.6).
    Transport(Transport),
}

/// First message of a handshake, less its macs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initiation {
    /// The initiator's index of the session to be.
    pub sender: u32,
    /// The initiator's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// The initiator's static public key, sealed.
    pub sealed_static: [u8; 32 + TAG_BYTES],
    /// A TAI64N stamp, sealed.
    pub sealed_stamp: [u8; 12 + TAG_BYTES],
}

/// Second message of a handshake, less its macs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The responder's index of the session to be.
    pub sender: u32,
    /// The index that the initiator chose.
    pub receiver: u32,
    /// The responder's ephemeral public key.
    pub ephemeral: [u8; 32],
    /// Nothing, sealed.
    pub sealed_nothing: [u8; TAG_BYTES],
}

/// A cookie for the address that a handshake message came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieReply {
    /// The sender's index in the message that is answered.
    pub receiver: u32,
    /// The nonce of the seal (XChaCha20-Poly1305).
    pub nonce: [u8; 24],
    /// The cookie, sealed.
    pub sealed_cookie: [u8; MAC_BYTES + TAG_BYTES],
}

/// The header of a sealed packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transport {
    /// The receiver's index of the session.
    pub receiver: u32,
    /// The packet's number within the session.
    pub counter: u64,
}

/// The datagram is none of WireGuard's messages: another type, reserved bytes that aren't
/// zero, or another length than its type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard message")]
pub struct NotWireGuard;

impl Message {
    /// Takes a whole datagram apart.
    ///
    /// # Errors
    /// [`NotWireGuard`] if it is not exactly one message.
    pub fn parse(datagram: &[u8]) -> Result<Self, NotWireGuard> {
        let mut reader = Reader(datagram);
        // One byte of type and three reserved zeros read as one little-endian number.
        let message = match (reader.number()?, datagram.len()) {
            (INITIATION, INITIATION_BYTES) => Self::Initiation(Initiation {
                sender: reader.number()?,
                ephemeral: reader.take()?,
                sealed_static: reader.take()?,
                sealed_stamp: reader.take()?,
            }),
            (RESPONSE, RESPONSE_BYTES) => Self::Response(Response {
                sender: reader.number()?,
                receiver: reader.number()?,
                ephemeral: reader.take()?,
                sealed_nothing: reader.take()?,
            }),
            (COOKIE_REPLY, COOKIE_REPLY_BYTES) => Self::CookieReply(CookieReply {
                receiver: reader.number()?,
                nonce: reader.take()?,
                sealed_cookie: reader.take()?,
            }),
            (TRANSPORT, KEEPALIVE_BYTES..) => Self::Transport(Transport {
                receiver: reader.number()?,
                counter: u64::from_le_bytes(reader.take()?),
            }),
            _ => return Err(NotWireGuard),
        };
        Ok(message)
    }
}

impl Initiation {
    /// The message with both macs zero.
    pub fn encode(&self) -> [u8; INITIATION_BYTES] {
        write([
            &INITIATION.to_le_bytes(),
            &self.sender.to_le_bytes(),
            &self.ephemeral,
            &self.sealed_static,
            &self.sealed_stamp,
        ])
    }
}

impl Response {
    /// The message with both macs zero.
    pub fn encode(&self) -> [u8; RESPONSE_BYTES] {
        write([
            &RESPONSE.to_le_bytes(),
            &self.sender.to_le_bytes(),
            &self.receiver.to_le_bytes(),
            &self.ephemeral,
            &self.sealed_nothing,
        ])
    }
}

impl CookieReply {
    /// The whole message.
    pub fn encode(&self) -> [u8; COOKIE_REPLY_BYTES] {
        write([
            &COOKIE_REPLY.to_le_bytes(),
            &self.receiver.to_le_bytes(),
            &self.nonce,
            &self.sealed_cookie,
        ])
    }
}

impl Transport {
    /// The header that stands before the ciphertext.
    pub fn encode(&self) -> [u8; TRANSPORT_HEADER_BYTES] {
        write([
            &TRANSPORT.to_le_bytes(),
            &self.receiver.to_le_bytes(),
            &self.counter.to_le_bytes(),
        ])
    }
}

/// Parts one after the other, zeros behind them.
fn write<const PARTS: usize, const LEN: usize>(parts: [&[u8]; PARTS]) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    let source = parts.into_iter().flatten();
    for (to, from) in bytes.iter_mut().zip(source) {
        *to = *from;
    }
    bytes
}

/// What is still unread of a datagram.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], NotWireGuard> {
        let (head, tail) = self.0.split_first_chunk().ok_or(NotWireGuard)?;
        self.0 = tail;
        Ok(*head)
    }

    fn number(&mut self) -> Result<u32, NotWireGuard> {
        self.take().map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_messages_have_the_papers_layout() {
        let initiation = Initiation {
            sender: 0x0403_0201,
            ephemeral: [0xee; 32],
            sealed_static: [0x55; 48],
            sealed_stamp: [0x77; 28],
        }
        .encode();
        assert_eq!(&initiation[..8], &[1, 0, 0, 0, 1, 2, 3, 4]);
        assert!(initiation[8..40].iter().all(|b| *b == 0xee));
        assert!(initiation[40..88].iter().all(|b| *b == 0x55));
        assert!(initiation[88..116].iter().all(|b| *b == 0x77));
        assert_eq!(&initiation[116..], &[0; 32]);

        let response = Response {
            sender: 1,
            receiver: 2,
            ephemeral: [0xee; 32],
            sealed_nothing: [0x66; 16],
        }
        .encode();
        assert_eq!(&response[..12], &[2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        assert!(response[12..44].iter().all(|b| *b == 0xee));
        assert!(response[44..60].iter().all(|b| *b == 0x66));

        let cookie = CookieReply {
            receiver: 9,
            nonce: [0xaa; 24],
            sealed_cookie: [0xcc; 32],
        }
        .encode();
        assert_eq!(&cookie[..8], &[3, 0, 0, 0, 9, 0, 0, 0]);
        assert!(cookie[8..32].iter().all(|b| *b == 0xaa));
        assert!(cookie[32..].iter().all(|b| *b == 0xcc));

        let transport = Transport {
            receiver: 7,
            counter: 0x0807_0605_0403_0201,
        };
        assert_eq!(
            transport.encode(),
            [4, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]
        );
    }

    #[test]
    fn another_length_type_or_reserved_byte_is_refused() {
        let good = Transport {
            receiver: 7,
            counter: 1,
        }
        .encode();
        let mut datagram = [0; KEEPALIVE_BYTES];
        datagram[..16].copy_from_slice(&good);
        assert!(Message::parse(&datagram).is_ok());
        assert_eq!(Message::parse(&datagram[..31]), Err(NotWireGuard));
        for at in 1..4 {
            let mut bent = datagram;
            bent[at] = 1;
            assert_eq!(Message::parse(&bent), Err(NotWireGuard));
        }
        for kind in [0, 1, 2, 3, 5, 255] {
            datagram[0] = kind;
            assert_eq!(Message::parse(&datagram), Err(NotWireGuard));
        }
        assert_eq!(Message::parse(&[]), Err(NotWireGuard));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(
            kind in 0u8..6,
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let _ = Message::parse(&bytes);
            let mut typed = std::vec![kind, 0, 0, 0];
            typed.extend_from_slice(&bytes);
            let _ = Message::parse(&typed);
        }

        #[test]
        fn an_initiation_reads_back_what_it_writes(sender: u32, ephemeral: [u8; 32], fill: u8) {
            let message = Initiation {
                sender,
                ephemeral,
                sealed_static: [fill; 48],
                sealed_stamp: [!fill; 28],
            };
            prop_assert_eq!(Message::parse(&message.encode()), Ok(Message::Initiation(message)));
        }

        #[test]
        fn a_response_reads_back_what_it_writes(sender: u32, receiver: u32, ephemeral: [u8; 32]) {
            let message = Response { sender, receiver, ephemeral, sealed_nothing: [3; 16] };
            prop_assert_eq!(Message::parse(&message.encode()), Ok(Message::Response(message)));
        }

        #[test]
        fn a_cookie_reply_reads_back_what_it_writes(receiver: u32, fill: u8) {
            let message = CookieReply { receiver, nonce: [fill; 24], sealed_cookie: [!fill; 32] };
            prop_assert_eq!(Message::parse(&message.encode()), Ok(Message::CookieReply(message)));
        }
    }
}
