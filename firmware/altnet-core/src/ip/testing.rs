//! Packets for tests.

use core::net::Ipv6Addr;
use std::vec::Vec;

/// An IPv6 packet with `payload` behind the fixed header.
pub(crate) fn packet(source: Ipv6Addr, destination: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![0x60, 0, 0, 0];
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes.extend(payload);
    bytes
}

/// A UDP datagram's bytes.
pub(crate) fn udp(source_port: u16, destination_port: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source_port.to_be_bytes());
    bytes.extend(destination_port.to_be_bytes());
    bytes.extend((data.len() as u16 + 8).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

/// A TCP segment's bytes without data.
pub(crate) fn tcp(source_port: u16, destination_port: u16, flags: u8) -> Vec<u8> {
    let mut bytes = std::vec![0; 20];
    bytes[..2].copy_from_slice(&source_port.to_be_bytes());
    bytes[2..4].copy_from_slice(&destination_port.to_be_bytes());
    bytes[12] = 5 << 4;
    bytes[13] = flags;
    bytes
}

/// An echo request's (128) or reply's (129) bytes.
pub(crate) fn echo(kind: u8, id: u16) -> Vec<u8> {
    let id = id.to_be_bytes();
    std::vec![kind, 0, 0, 0, id[0], id[1], 0, 1]
}

/// A fragment header in front of `data`.
pub(crate) fn fragment(next: u8, offset: u16, more: bool, id: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = std::vec![next, 0];
    bytes.extend((offset | u16::from(more)).to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(data);
    bytes
}
