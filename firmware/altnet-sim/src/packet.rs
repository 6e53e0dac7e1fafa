//! IPv6 packets for nodes to carry.

use core::net::Ipv6Addr;

/// A UDP packet with the given payload, checksum included.
pub fn udp(source: (Ipv6Addr, u16), destination: (Ipv6Addr, u16), payload: &[u8]) -> Vec<u8> {
    let length = 8 + payload.len();
    let mut packet = vec![0u8; 40];
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = 17;
    packet[7] = 64;
    packet[8..24].copy_from_slice(&source.0.octets());
    packet[24..40].copy_from_slice(&destination.0.octets());
    packet.extend(source.1.to_be_bytes());
    packet.extend(destination.1.to_be_bytes());
    packet.extend((length as u16).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    let mut sum = 17 + length as u32;
    for pair in packet[8..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[46..48].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

/// The payload of a UDP packet made by [`udp`].
pub fn payload(packet: &[u8]) -> &[u8] {
    packet.get(48..).unwrap_or(&[])
}
