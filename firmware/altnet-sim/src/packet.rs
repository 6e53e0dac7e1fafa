//! IPv6 packets for nodes to carry.

use core::net::Ipv6Addr;

/// A UDP packet with the given payload, checksum included.
pub fn udp(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len() as u16).to_be_bytes();
    let rest = [&length[..], &[0, 0], payload].concat();
    upper_layer(17, 6, source, destination, &rest)
}

/// A TCP segment that begins a connection, checksum included.
pub fn syn(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16)) -> Vec<u8> {
    // Sequence and acknowledgment numbers, data offset, SYN, window, checksum, urgent pointer.
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 4, 0, 0, 0, 0, 0];
    upper_layer(6, 16, source, destination, &rest)
}

/// A packet of an upper layer that begins with two ports and has its checksum, zero in `rest`, at
/// an offset (RFC 8200 section 8.1).
fn upper_layer(
    protocol: u8,
    checksum_at: usize,
    source: (Ipv6Addr, u16),
    destination: (Ipv6Addr, u16),
    rest: &[u8],
) -> Vec<u8> {
    let length = 4 + rest.len();
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = protocol;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&source.0.octets());
    packet[24..40].copy_from_slice(&destination.0.octets());
    packet.extend(source.1.to_be_bytes());
    packet.extend(destination.1.to_be_bytes());
    packet.extend(rest);
    let mut sum = u32::from(protocol) + length as u32;
    for pair in packet[8..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = 40 + checksum_at;
    packet[checksum..checksum + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

/// The payload of a UDP packet made by [`udp`].
pub fn payload(packet: &[u8]) -> &[u8] {
    packet.get(48..).unwrap_or(&[])
}
