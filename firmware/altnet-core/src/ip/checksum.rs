//! The checksum of what IPv6 carries.

use core::net::Ipv6Addr;

use super::Protocol;

/// The Internet checksum of `message` under the pseudo-header of `source`, `destination` and
/// `protocol`. Zero if the checksum in the message is right, or what to write into a checksum
/// field that holds zero.
///
/// Source: RFC 8200 section 8.1, RFC 1071.
pub fn checksum(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    protocol: Protocol,
    message: &[u8],
) -> u16 {
    let add = |sum: u64, bytes: &[u8]| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let sum = pairs
            .iter()
            .fold(sum, |sum, pair| sum + u64::from(u16::from_be_bytes(*pair)));
        sum + rest.first().map_or(0, |byte| u64::from(*byte) << 8)
    };
    let mut sum = u64::from(protocol.0) + message.len() as u64;
    sum = add(sum, &source.octets());
    sum = add(sum, &destination.octets());
    sum = add(sum, message);
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::testing::echo;

    #[test]
    fn the_checksum_is_rfc_1071s() {
        // An echo request from ::1 to ::1 as Linux sends it.
        let mut message = echo(128, 0x1234);
        let sum = checksum(
            Ipv6Addr::LOCALHOST,
            Ipv6Addr::LOCALHOST,
            Protocol::ICMPV6,
            &message,
        );
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(sum, !(0x8000u32 + 0x1234 + 1 + 1 + 1 + 58 + 8) as u16);
        assert_eq!(
            checksum(
                Ipv6Addr::LOCALHOST,
                Ipv6Addr::LOCALHOST,
                Protocol::ICMPV6,
                &message
            ),
            0
        );
    }
}
