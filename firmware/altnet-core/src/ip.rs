//! An IPv6 packet, read once.
//!
//! In: the bytes of one packet. Out: a [`PacketInfo`] that says all that policy and routes
//! ask about, or an [`IpError`] that says why the packet can't be judged. What can't be
//! judged is never carried: a header chain that is cut off, a source route, a jumbogram, a
//! length that lies. No bytes panic, nothing allocates.
//!
//! It does not reassemble, and it checks no checksum of TCP or UDP: those are the ends'.

mod checksum;
mod headers;
pub mod mss;
#[cfg(test)]
pub(crate) mod testing;

use core::net::Ipv6Addr;

pub use self::checksum::checksum;
pub use self::headers::{MAX_EXTENSION_HEADERS, declared_length};

/// Bytes of the fixed IPv6 header (RFC 8200 section 3).
pub const HEADER_BYTES: usize = 40;

/// The smallest MTU of any IPv6 link (RFC 8200 section 5).
pub const MIN_MTU_BYTES: usize = 1280;

/// An upper-layer protocol number (IANA "protocol numbers").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMPv6.
    pub const ICMPV6: Self = Self(58);
    /// Nothing follows the last extension header.
    pub const NONE: Self = Self(59);
}

const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// The bytes are not a packet that can be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum IpError {
    /// No byte, or neither IPv4 nor IPv6.
    #[error("not an IP packet")]
    NotIp,
    /// An IPv4 packet: nothing here carries it.
    #[error("an IPv4 packet")]
    Ipv4,
    /// Fewer bytes than the headers say.
    #[error("the packet is cut off")]
    Truncated,
    /// More bytes than the header says.
    #[error("the packet is longer than its header says")]
    Trailing,
    /// A packet of more than 65 575 bytes (RFC 2675).
    #[error("a jumbogram")]
    Jumbogram,
    /// A routing header with segments left (RFC 5095 and what followed it).
    #[error("a source route")]
    SourceRoute,
    /// Extension headers in an order that RFC 8200 section 4.1 rules out, or twice a fragment header.
    #[error("extension headers out of order")]
    ExtensionOrder,
    /// More than [`MAX_EXTENSION_HEADERS`].
    #[error("too many extension headers")]
    TooManyExtensions,
    /// An extension header that hides what follows it.
    #[error("an extension header that can't be read")]
    UnknownExtension,
    /// A first fragment that doesn't hold the whole header chain (RFC 7112).
    #[error("the first fragment is too short")]
    ShortFirstFragment,
    /// A fragment of no bytes, of a length that isn't a multiple of 8 though more follow,
    /// or that ends past 65 535 bytes (RFC 8200 section 4.5).
    #[error("an impossible fragment")]
    BadFragment,
    /// A length or an offset in the upper-layer header that can't be.
    #[error("a damaged upper-layer header")]
    BadTransport,
}

/// What part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fragment {
    /// All of it. An atomic fragment (RFC 6946) counts as this.
    Whole,
    /// The first part, with the whole header chain.
    First {
        /// The packet's identification.
        id: u32,
        /// Bytes of the fragmentable part in here.
        end_bytes: u16,
    },
    /// A part without the upper-layer header.
    Later {
        /// The packet's identification.
        id: u32,
        /// Where it begins in the fragmentable part, in bytes.
        offset_bytes: u16,
    },
}

/// TCP's control bits, as in byte 13 of its header (RFC 9293 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// No more data from the sender.
    pub const fn is_fin(self) -> bool {
        self.0 & 1 != 0
    }

    /// A connection begins.
    pub const fn is_syn(self) -> bool {
        self.0 & 2 != 0
    }

    /// The connection is reset.
    pub const fn is_rst(self) -> bool {
        self.0 & 4 != 0
    }
}

/// What the upper-layer header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp {
        /// The sender's port.
        source_port: u16,
        /// The receiver's port.
        destination_port: u16,
        /// Control bits.
        flags: TcpFlags,
    },
    /// A UDP datagram.
    Udp {
        /// The sender's port.
        source_port: u16,
        /// The receiver's port.
        destination_port: u16,
    },
    /// An ICMPv6 echo request or reply.
    Echo {
        /// Whether it asks, rather than answers.
        is_request: bool,
        /// The identifier.
        id: u16,
    },
    /// An ICMPv6 error.
    IcmpError {
        /// ICMPv6 type, below 128.
        kind: u8,
        /// ICMPv6 code.
        code: u8,
        /// The packet it is about, if that can be read.
        about: Option<About>,
    },
    /// Any other ICMPv6 message.
    Icmp {
        /// ICMPv6 type, 128 or more.
        kind: u8,
        /// ICMPv6 code.
        code: u8,
    },
    /// A protocol of which only the number is read.
    Other,
    /// A later fragment: the header is not in here.
    Absent,
}

/// The packet inside an ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// Where it was to go.
    pub destination: Ipv6Addr,
    /// Its upper-layer protocol.
    pub protocol: Protocol,
    /// Its ports or identifier.
    pub transport: AboutTransport,
}

/// What tells flows apart, of the packet inside an ICMPv6 error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AboutTransport {
    /// TCP's or UDP's ports.
    Ports {
        /// The sender's port.
        source_port: u16,
        /// The receiver's port.
        destination_port: u16,
    },
    /// ICMPv6 echo.
    Echo {
        /// Whether it asks, rather than answers.
        is_request: bool,
        /// The identifier.
        id: u16,
    },
    /// A protocol of which only the number is read.
    Other,
}

/// What one packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PacketInfo {
    /// Who sent it.
    pub source: Ipv6Addr,
    /// Where it goes.
    pub destination: Ipv6Addr,
    /// How many more routers may forward it.
    pub hop_limit: u8,
    /// The whole packet in bytes, headers included.
    pub length_bytes: usize,
    /// The upper-layer protocol, behind all extension headers.
    pub protocol: Protocol,
    /// Which part of a packet it is.
    pub fragment: Fragment,
    /// The upper-layer header.
    pub transport: Transport,
    /// Where the upper-layer header (or a later fragment's data) begins, in bytes.
    pub transport_offset: usize,
}

impl PacketInfo {
    /// Reads the packet that takes up all of `bytes`.
    ///
    /// # Errors
    /// [`IpError`]: what is wrong with it.
    ///
    /// Source: RFC 8200 sections 3 and 4, RFC 7112 section 5.
    pub fn parse(bytes: &[u8]) -> Result<Self, IpError> {
        let expected = declared_length(bytes)?;
        if expected > bytes.len() {
            return Err(IpError::Truncated);
        }
        if expected < bytes.len() {
            return Err(IpError::Trailing);
        }
        let chain = headers::walk(bytes)?;
        let rest = bytes.get(chain.offset..).unwrap_or(&[]);
        let transport = match chain.fragment {
            Fragment::Later { .. } => Transport::Absent,
            Fragment::First { .. } => headers::read_first(chain.protocol, rest)?,
            Fragment::Whole => headers::read_whole(chain.protocol, rest)?,
        };
        Ok(Self {
            source: chain.source,
            destination: chain.destination,
            hop_limit: bytes.get(7).copied().unwrap_or(0),
            length_bytes: bytes.len(),
            protocol: chain.protocol,
            fragment: chain.fragment,
            transport,
            transport_offset: chain.offset,
        })
    }

    /// Whether it begins a TCP connection, or agrees to one.
    pub const fn is_syn(&self) -> bool {
        matches!(self.transport, Transport::Tcp { flags, .. } if flags.is_syn())
    }

    /// The sender's port, of TCP and UDP.
    pub const fn source_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp { source_port, .. } | Transport::Udp { source_port, .. } => {
                Some(source_port)
            }
            _ => None,
        }
    }

    /// The receiver's port, of TCP and UDP.
    pub const fn destination_port(&self) -> Option<u16> {
        match self.transport {
            Transport::Tcp {
                destination_port, ..
            }
            | Transport::Udp {
                destination_port, ..
            } => Some(destination_port),
            _ => None,
        }
    }

    /// The ICMPv6 type and code.
    pub const fn icmp(&self) -> Option<(u8, u8)> {
        match self.transport {
            Transport::Echo { is_request, .. } => {
                Some((if is_request { ECHO_REQUEST } else { ECHO_REPLY }, 0))
            }
            Transport::IcmpError { kind, code, .. } | Transport::Icmp { kind, code } => {
                Some((kind, code))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;
    use proptest::prelude::*;

    fn a() -> Ipv6Addr {
        "fd01::a".parse().unwrap()
    }
    fn b() -> Ipv6Addr {
        "fd01::b".parse().unwrap()
    }

    fn check(next: u8, payload: &[u8], expected: Result<Transport, IpError>) {
        let found = PacketInfo::parse(&packet(a(), b(), next, payload));
        assert_eq!(found.map(|info| info.transport), expected, "{payload:02x?}");
    }

    const UDP: Transport = Transport::Udp {
        source_port: 1000,
        destination_port: 53,
    };

    #[test]
    fn ports_are_found_behind_every_extension_header() {
        let datagram = udp(1000, 53, b"x");
        check(17, &datagram, Ok(UDP));
        let mut payload = std::vec![60, 0, 1, 4, 0, 0, 0, 0]; // hop by hop
        payload.extend([51, 1, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // options, 16 bytes
        payload.extend([43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]); // AH, 12 bytes
        payload.extend([17, 0, 0, 0, 0, 0, 0, 0]); // routing, no segments left
        payload.extend(&datagram);
        check(0, &payload, Ok(UDP));
        check(44, &fragment(17, 0, false, 9, &datagram), Ok(UDP));
    }

    #[test]
    fn what_hides_the_upper_layer_is_refused() {
        let datagram = udp(1000, 53, b"x");
        let with = |head: &[u8]| [head, &datagram].concat();
        check(
            43,
            &with(&[17, 0, 0, 1, 0, 0, 0, 0]),
            Err(IpError::SourceRoute),
        );
        check(
            140,
            &with(&[17, 0, 0, 0, 0, 0, 0, 0]),
            Err(IpError::UnknownExtension),
        );
        check(
            60,
            &with(&[0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
            Err(IpError::ExtensionOrder),
        );
        check(60, &[17, 9, 0, 0, 0, 0, 0, 0], Err(IpError::Truncated));
        check(60, &[], Err(IpError::Truncated));
        check(
            60,
            &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9),
            Err(IpError::TooManyExtensions),
        );
        check(17, &datagram[..7], Err(IpError::Truncated));
        check(17, &udp(1, 2, b"")[..4], Err(IpError::Truncated));
        check(6, &[0; 20], Err(IpError::BadTransport));
    }

    #[test]
    fn a_first_fragment_must_hold_the_whole_header_chain() {
        check(
            44,
            &fragment(6, 0, true, 9, &tcp(1, 2, 2)[..16]),
            Err(IpError::ShortFirstFragment),
        );
        check(
            44,
            &fragment(60, 0, true, 9, &[17, 0, 1, 4, 0, 0, 0, 0]),
            Err(IpError::ShortFirstFragment),
        );
        check(
            44,
            &fragment(17, 0, true, 9, &udp(1000, 53, &[0; 8])),
            Ok(UDP),
        );
        check(
            44,
            &fragment(17, 0, true, 9, &udp(1000, 53, &[0; 7])),
            Err(IpError::BadFragment),
        );
        check(
            44,
            &fragment(17, 8, true, 9, &[0; 8]),
            Ok(Transport::Absent),
        );
        check(
            44,
            &fragment(17, 0xfff8, false, 9, &[0; 8]),
            Err(IpError::BadFragment),
        );
        let twice = fragment(44, 0, true, 9, &fragment(17, 0, true, 9, &udp(1, 2, &[])));
        check(44, &twice, Err(IpError::ExtensionOrder));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let mut bytes = packet(a(), b(), 17, &udp(1, 2, b"hello"));
        assert_eq!(declared_length(&bytes), Ok(bytes.len()));
        bytes.push(0);
        assert_eq!(PacketInfo::parse(&bytes), Err(IpError::Trailing));
        assert_eq!(PacketInfo::parse(&bytes[..50]), Err(IpError::Truncated));
        assert_eq!(PacketInfo::parse(&bytes[..9]), Err(IpError::Truncated));
        assert_eq!(PacketInfo::parse(&[]), Err(IpError::NotIp));
        assert_eq!(PacketInfo::parse(&[0x45; 20]), Err(IpError::Ipv4));
        let mut jumbo = packet(a(), b(), 0, &[17, 0, 0xc2, 4, 0, 1, 0, 0]);
        jumbo[4..6].fill(0);
        assert_eq!(PacketInfo::parse(&jumbo), Err(IpError::Jumbogram));
    }

    #[test]
    fn an_icmp_error_names_the_packet_it_is_about() {
        let inner = packet(b(), a(), 17, &udp(7, 8, &[0; 100]));
        let error = [&[1, 4, 0, 0, 0, 0, 0, 0], &inner[..60]].concat();
        let about = About {
            source: b(),
            destination: a(),
            protocol: Protocol::UDP,
            transport: AboutTransport::Ports {
                source_port: 7,
                destination_port: 8,
            },
        };
        let expected = |about| Transport::IcmpError {
            kind: 1,
            code: 4,
            about,
        };
        check(58, &error, Ok(expected(Some(about))));
        check(58, &error[..50], Ok(expected(None)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: std::vec::Vec<u8>, next: u8, payload in proptest::collection::vec(0u8..64, 0..200)) {
            let _ = PacketInfo::parse(&bytes);
            let bytes = packet(a(), b(), next, &payload);
            if let Ok(info) = PacketInfo::parse(&bytes) {
                prop_assert_eq!(info.length_bytes, bytes.len());
                prop_assert!(info.transport_offset <= bytes.len());
            }
        }
    }
}
