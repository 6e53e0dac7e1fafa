//! IP packets taken apart and put together for other addresses, of either family.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// RFC 768.
    Udp,
    /// RFC 9293.
    Tcp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }

    /// Where its checksum stands.
    const fn checksum_at(self) -> usize {
        match self {
            Self::Udp => 6,
            Self::Tcp => 16,
        }
    }
}

/// A packet without its IP header.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Of what kind `segment` is.
    pub transport: Transport,
    segment: Vec<u8>,
    ttl: u8,
}

impl Packet {
    /// Takes a packet apart; nothing if it is a fragment or anything but UDP or TCP.
    pub fn parse(bytes: &[u8]) -> Option<(Self, SocketAddr, SocketAddr)> {
        let (from, to, number, ttl, segment): (IpAddr, IpAddr, u8, u8, &[u8]);
        match bytes.first()? >> 4 {
            4 => {
                let header = bytes.get(..20)?;
                let length = usize::from(header[0] & 15) * 4;
                let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
                if u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
                    return None;
                }
                from = Ipv4Addr::from(<[u8; 4]>::try_from(&header[12..16]).ok()?).into();
                to = Ipv4Addr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?).into();
                (number, ttl, segment) = (header[9], header[8], bytes.get(length..total)?);
            }
            6 => {
                let header = bytes.get(..40)?;
                from = Ipv6Addr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?).into();
                to = Ipv6Addr::from(<[u8; 16]>::try_from(&header[24..40]).ok()?).into();
                (number, ttl, segment) = (header[6], header[7], &bytes[40..]);
            }
            _ => return None,
        }
        let transport = match number {
            17 => Transport::Udp,
            6 => Transport::Tcp,
            _ => return None,
        };
        let port = |at: usize| {
            Some(u16::from_be_bytes([
                *segment.get(at)?,
                *segment.get(at + 1)?,
            ]))
        };
        let (from, to) = (
            SocketAddr::new(from, port(0)?),
            SocketAddr::new(to, port(2)?),
        );
        segment.get(transport.checksum_at() + 1)?;
        let segment = segment.to_vec();
        Some((
            Self {
                transport,
                segment,
                ttl,
            },
            from,
            to,
        ))
    }

    /// Puts the packet together with these addresses and ports.
    pub fn build(mut self, from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        self.segment[..2].copy_from_slice(&from.port().to_be_bytes());
        self.segment[2..4].copy_from_slice(&to.port().to_be_bytes());
        let at = self.transport.checksum_at();
        self.segment[at..at + 2].fill(0);
        let number = self.transport.number();
        let length = self.segment.len();
        let mut pseudo = Vec::new();
        let mut packet = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let total = u16::try_from(20 + length).unwrap_or(u16::MAX).to_be_bytes();
                let mut header = vec![
                    0x45, 0, total[0], total[1], 0, 0, 0x40, 0, self.ttl, number, 0, 0,
                ];
                header.extend(from.octets());
                header.extend(to.octets());
                pseudo.extend_from_slice(&header[12..]);
                let sum = checksum(&[&header]).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                header
            }
            (from, to) => {
                let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
                let mut header = vec![0x60, 0, 0, 0, length[0], length[1], number, self.ttl];
                for address in [from, to] {
                    if let IpAddr::V6(address) = address {
                        header.extend(address.octets());
                    }
                }
                pseudo.extend_from_slice(&header[8..]);
                header
            }
        };
        pseudo.extend([0, number]);
        pseudo.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
        let sum = match checksum(&[&pseudo, &self.segment]) {
            // No checksum is written as zero (RFC 768).
            0 => u16::MAX,
            sum => sum,
        };
        self.segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        packet.extend(self.segment);
        packet
    }
}

/// The internet checksum (RFC 1071) of even parts and a last one of any length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u32 = words
        .map(|word| u32::from(word[0]) << 8 | word.get(1).map_or(0, |low| u32::from(*low)))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
