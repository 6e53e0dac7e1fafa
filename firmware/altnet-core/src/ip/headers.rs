//! The chain of headers, from the fixed one to the upper layer's.
//!
//! Source: RFC 8200 section 4 and what it names; each header's own where it is read.

use core::net::Ipv6Addr;

use super::{
    About, AboutTransport, ECHO_REPLY, ECHO_REQUEST, Fragment, HEADER_BYTES, IpError, Protocol,
    TcpFlags, Transport,
};

/// Most extension headers that are walked through: one more is an error.
pub const MAX_EXTENSION_HEADERS: usize = 8;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOST_IDENTITY: u8 = 139;
const SHIM6: u8 = 140;
const EXPERIMENT_1: u8 = 253;
const EXPERIMENT_2: u8 = 254;

/// ICMPv6 types below this one are errors (RFC 4443 section 2.1).
const FIRST_INFORMATIONAL: u8 = 128;

/// The length in bytes that the packet's own header gives: what to cut it to when it was
/// padded on its way (WireGuard whitepaper section 5.4.6).
///
/// # Errors
/// [`IpError::NotIp`], [`IpError::Ipv4`], [`IpError::Truncated`] with less than a header, and
/// [`IpError::Jumbogram`], whose length is elsewhere.
pub fn declared_length(bytes: &[u8]) -> Result<usize, IpError> {
    match bytes.first().map(|byte| byte >> 4) {
        Some(6) => {}
        Some(4) => return Err(IpError::Ipv4),
        _ => return Err(IpError::NotIp),
    }
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(IpError::Truncated)?;
    let payload = u16::from_be_bytes([header[4], header[5]]);
    if payload == 0 && header[6] == HOP_BY_HOP {
        return Err(IpError::Jumbogram);
    }
    Ok(HEADER_BYTES + usize::from(payload))
}

/// What the headers before the upper-layer header say.
pub(super) struct Chain {
    pub(super) source: Ipv6Addr,
    pub(super) destination: Ipv6Addr,
    pub(super) protocol: Protocol,
    pub(super) fragment: Fragment,
    /// Where the upper-layer header, or a later fragment's data, begins, in bytes.
    pub(super) offset: usize,
}

/// Walks from the fixed header to the upper-layer header.
///
/// # Errors
/// [`IpError`]: what is wrong on the way.
pub(super) fn walk(bytes: &[u8]) -> Result<Chain, IpError> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(IpError::Truncated)?;
    let mut chain = Chain {
        source: address_at(header, 8),
        destination: address_at(header, 24),
        protocol: Protocol(header[6]),
        fragment: Fragment::Whole,
        offset: HEADER_BYTES,
    };
    for _ in 0..=MAX_EXTENSION_HEADERS {
        let here = bytes.get(chain.offset..).unwrap_or(&[]);
        let length = match chain.protocol.0 {
            HOP_BY_HOP if chain.offset != HEADER_BYTES => return Err(IpError::ExtensionOrder),
            HOP_BY_HOP | DESTINATION_OPTIONS => extension_length(here, 8, 1, &chain)?,
            ROUTING => {
                // RFC 8200 section 4.4: with segments left, the destination is not the last.
                match here.get(3) {
                    Some(0) => extension_length(here, 8, 1, &chain)?,
                    Some(_) => return Err(IpError::SourceRoute),
                    None => return Err(cut(&chain)),
                }
            }
            // RFC 4302 section 2.2: in units of 4 bytes, minus 2.
            AUTHENTICATION => extension_length(here, 4, 2, &chain)?,
            FRAGMENT => {
                if chain.fragment != Fragment::Whole {
                    return Err(IpError::ExtensionOrder);
                }
                chain.fragment = read_fragment(here)?;
                8
            }
            MOBILITY | HOST_IDENTITY | SHIM6 | EXPERIMENT_1 | EXPERIMENT_2 => {
                return Err(IpError::UnknownExtension);
            }
            _ => return Ok(chain),
        };
        chain.protocol = Protocol(*here.first().ok_or(cut(&chain))?);
        chain.offset += length;
        if matches!(chain.fragment, Fragment::Later { .. }) {
            return Ok(chain);
        }
    }
    Err(IpError::TooManyExtensions)
}

/// The length of the extension header at the front of `here`, all of which must be there.
fn extension_length(here: &[u8], unit: usize, add: usize, chain: &Chain) -> Result<usize, IpError> {
    let length = usize::from(*here.get(1).ok_or(cut(chain))?);
    let length = (length + add) * unit;
    if length > here.len() {
        return Err(cut(chain));
    }
    Ok(length)
}

/// Reads a fragment header and the length of what follows it (RFC 8200 section 4.5).
fn read_fragment(here: &[u8]) -> Result<Fragment, IpError> {
    let header: &[u8; 8] = here.first_chunk().ok_or(IpError::Truncated)?;
    let field = u16::from_be_bytes([header[2], header[3]]);
    let (offset_bytes, more) = (field & 0xfff8, field & 1 != 0);
    let id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    if offset_bytes == 0 && !more {
        return Ok(Fragment::Whole);
    }
    let length = u16::try_from(here.len() - 8).map_err(|_| IpError::BadFragment)?;
    let end_bytes = offset_bytes
        .checked_add(length)
        .ok_or(IpError::BadFragment)?;
    if length == 0 || (more && length % 8 != 0) {
        return Err(IpError::BadFragment);
    }
    Ok(if offset_bytes == 0 {
        Fragment::First { id, end_bytes }
    } else {
        Fragment::Later { id, offset_bytes }
    })
}

/// Reads the upper-layer header of a whole packet.
pub(super) fn read_whole(protocol: Protocol, rest: &[u8]) -> Result<Transport, IpError> {
    read_transport(protocol, rest, true)
}

/// Reads the upper-layer header in a first fragment, which must be all there (RFC 7112).
pub(super) fn read_first(protocol: Protocol, rest: &[u8]) -> Result<Transport, IpError> {
    read_transport(protocol, rest, false).map_err(|error| match error {
        IpError::Truncated => IpError::ShortFirstFragment,
        other => other,
    })
}

/// Reads the upper-layer header. `whole`: nothing of the packet is in other fragments.
fn read_transport(protocol: Protocol, rest: &[u8], whole: bool) -> Result<Transport, IpError> {
    match protocol {
        Protocol::TCP => {
            let header: &[u8; 20] = rest.first_chunk().ok_or(IpError::Truncated)?;
            let length = usize::from(header[12] >> 4) * 4;
            if length < 20 {
                return Err(IpError::BadTransport);
            }
            if length > rest.len() {
                return Err(IpError::Truncated);
            }
            Ok(Transport::Tcp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
                flags: TcpFlags(header[13]),
            })
        }
        Protocol::UDP => {
            let header: &[u8; 8] = rest.first_chunk().ok_or(IpError::Truncated)?;
            let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
            if length < 8 || (whole && length > rest.len()) {
                return Err(IpError::BadTransport);
            }
            Ok(Transport::Udp {
                source_port: u16::from_be_bytes([header[0], header[1]]),
                destination_port: u16::from_be_bytes([header[2], header[3]]),
            })
        }
        Protocol::ICMPV6 => {
            let header: &[u8; 8] = rest.first_chunk().ok_or(IpError::Truncated)?;
            let (kind, code) = (header[0], header[1]);
            Ok(match kind {
                ECHO_REQUEST | ECHO_REPLY => Transport::Echo {
                    is_request: kind == ECHO_REQUEST,
                    id: u16::from_be_bytes([header[4], header[5]]),
                },
                _ if kind < FIRST_INFORMATIONAL => Transport::IcmpError {
                    kind,
                    code,
                    about: rest.get(8..).filter(|_| whole).and_then(read_about),
                },
                _ => Transport::Icmp { kind, code },
            })
        }
        _ => Ok(Transport::Other),
    }
}

/// Reads the beginning of a packet that an ICMPv6 error quotes; nothing if what tells its
/// flow is not in there.
fn read_about(bytes: &[u8]) -> Option<About> {
    declared_length(bytes).ok()?;
    let chain = walk(bytes).ok()?;
    if matches!(chain.fragment, Fragment::Later { .. }) {
        return None;
    }
    let rest = bytes.get(chain.offset..)?;
    let transport = match chain.protocol {
        Protocol::TCP | Protocol::UDP => {
            let ports: &[u8; 4] = rest.first_chunk()?;
            AboutTransport::Ports {
                source_port: u16::from_be_bytes([ports[0], ports[1]]),
                destination_port: u16::from_be_bytes([ports[2], ports[3]]),
            }
        }
        Protocol::ICMPV6 => {
            let header: &[u8; 6] = rest.first_chunk()?;
            match header[0] {
                ECHO_REQUEST | ECHO_REPLY => AboutTransport::Echo {
                    is_request: header[0] == ECHO_REQUEST,
                    id: u16::from_be_bytes([header[4], header[5]]),
                },
                _ => return None,
            }
        }
        _ => AboutTransport::Other,
    };
    Some(About {
        source: chain.source,
        destination: chain.destination,
        protocol: chain.protocol,
        transport,
    })
}

fn cut(chain: &Chain) -> IpError {
    match chain.fragment {
        Fragment::First { .. } => IpError::ShortFirstFragment,
        _ => IpError::Truncated,
    }
}

fn address_at(header: &[u8; HEADER_BYTES], at: usize) -> Ipv6Addr {
    let octets: [u8; 16] = header
        .get(at..)
        .and_then(|bytes| bytes.first_chunk())
        .copied()
        .unwrap_or_default();
    Ipv6Addr::from(octets)
}
