//! Echo requests and replies as they are written on raw ICMP sockets.
//!
//! A raw IPv4 socket shows the IP header too and leaves checksums to its owner; a raw ICMPv6 socket shows no
//! header, and the kernel counts the checksum (RFC 3542 section 3.1).
//!
//! Source: RFC 792 (echo), RFC 4443 sections 4.1 and 4.2, RFC 1071 (checksum).

use std::net::IpAddr;

const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;
const MIN_IPV4_HEADER_BYTES: usize = 20;

/// What tells one echo from another: who asks, which of its questions, and a number that nobody who
/// doesn't see the question can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Echo {
    /// The identifier.
    pub id: u16,
    /// The sequence number.
    pub sequence: u16,
    /// The data.
    pub cookie: u64,
}

impl Echo {
    /// The request to write.
    pub fn request(self, to: IpAddr) -> [u8; 16] {
        let kind = if to.is_ipv4() { REQUEST } else { REQUEST_V6 };
        let mut bytes = [0; 16];
        bytes[0] = kind;
        bytes[4..6].copy_from_slice(&self.id.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..].copy_from_slice(&self.cookie.to_be_bytes());
        if to.is_ipv4() {
            let sum = checksum(&bytes);
            bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Reads what a raw IPv4 socket received; nothing unless it is a whole reply to such a request.
    pub fn reply_v4(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 15) * 4;
        let message = packet.get(header.max(MIN_IPV4_HEADER_BYTES)..)?;
        (checksum(message) == 0).then_some(())?;
        Self::read(message, REPLY)
    }

    /// Reads what a raw ICMPv6 socket received; nothing unless it is a reply to such a request.
    pub fn reply_v6(message: &[u8]) -> Option<Self> {
        Self::read(message, REPLY_V6)
    }

    fn read(message: &[u8], kind: u8) -> Option<Self> {
        let message = <&[u8; 16]>::try_from(message).ok()?;
        let [found, code, _, _, i0, i1, s0, s1, cookie @ ..] = *message;
        (found == kind && code == 0).then(|| Self {
            id: u16::from_be_bytes([i0, i1]),
            sequence: u16::from_be_bytes([s0, s1]),
            cookie: u64::from_be_bytes(cookie),
        })
    }
}

/// The complement of the one's complement sum of big-endian words (RFC 1071 section 1). Over a message with
/// its right checksum it is 0.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| match *pair {
        [a, b] => u32::from(u16::from_be_bytes([a, b])),
        [a] => u32::from(u16::from_be_bytes([a, 0])),
        _ => 0,
    });
    // A packet has fewer than 2^15 words, so the sum of words fits 32 bits.
    let mut sum: u32 = words.fold(0, u32::wrapping_add);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ECHO: Echo = Echo {
        id: 0x1234,
        sequence: 7,
        cookie: 0x0102_0304_0506_0708,
    };

    /// What comes back: the request with another type, behind an IP header.
    fn reply(echo: Echo) -> Vec<u8> {
        let mut message = echo.request(IpAddr::from([192, 0, 2, 1]));
        message[0] = REPLY;
        message[2..4].fill(0);
        let sum = checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut packet = vec![0; MIN_IPV4_HEADER_BYTES];
        packet[0] = 0x45;
        packet.extend_from_slice(&message);
        packet
    }

    #[test]
    fn a_request_has_the_bytes_of_rfc_792() {
        let bytes = ECHO.request(IpAddr::from([192, 0, 2, 1]));
        // Sum of words: 0800+0000+1234+0007+0102+0304+0506+0708 = 2a4f; its complement is d5b0.
        let expected = [8, 0, 0xd5, 0xb0, 0x12, 0x34, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_reply_reads_back_and_a_spoilt_one_does_not() {
        let packet = reply(ECHO);
        assert_eq!(Echo::reply_v4(&packet), Some(ECHO));
        for at in MIN_IPV4_HEADER_BYTES..packet.len() {
            let mut spoilt = packet.clone();
            spoilt[at] ^= 1;
            assert_eq!(Echo::reply_v4(&spoilt), None, "byte {at}");
        }
        let mut message = ECHO.request("2001:db8::1".parse().unwrap());
        assert_eq!(Echo::reply_v6(&message), None, "its own request");
        message[0] = REPLY_V6;
        assert_eq!(Echo::reply_v6(&message), Some(ECHO));
    }

    proptest! {
        #[test]
        fn no_packet_makes_the_reader_panic(packet: Vec<u8>) {
            let _ = (Echo::reply_v4(&packet), Echo::reply_v6(&packet));
        }
    }
}
