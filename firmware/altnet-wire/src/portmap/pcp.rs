//! PCP: a router, or a firewall alone, asked for a port of IPv4 or IPv6.
//!
//! ```text
//! request    2 | operation | 0 0 | lifetime u32 | client 16
//! response   2 | operation + 128 | 0 | result | lifetime u32 | epoch u32 | 0 x12
//! MAP (1)    nonce 12 | protocol | 0 x3 | internal port u16 | external port u16 | external 16
//! option     code | 0 | length u16 | data, padded to whole words of 4
//! ```
//! Numbers are big-endian, times are seconds, IPv4 addresses are IPv4-mapped IPv6 ones. ANNOUNCE
//! (0) has nothing behind the header.
//!
//! Source: RFC 6887 sections 7, 11.1, 13.2 and 14.1.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::nat_pmp::put;
use super::{BadPortmap, MAX_BYTES};

/// The version byte.
pub const VERSION: u8 = 2;
/// IANA's protocol number of UDP.
pub const UDP: u8 = 17;
/// Bytes of the longest request that is written here.
pub const MAX_REQUEST_BYTES: usize = HEADER_BYTES + MAP_BYTES + OPTION_BYTES;
/// Bytes of the longest response that is written here.
pub const MAX_RESPONSE_BYTES: usize = HEADER_BYTES + MAP_BYTES;

const HEADER_BYTES: usize = 24;
const MAP_BYTES: usize = 36;
const OPTION_BYTES: usize = 4;
/// Set in a response's operation.
const RESPONSE: u8 = 0x80;
const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;
/// RFC 6887 section 13.2.
const PREFER_FAILURE: u8 = 2;

/// Whoever knows it may change the mapping: chosen by the host, echoed by the router.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 12]);

impl core::fmt::Debug for Nonce {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Nonce(..)")
    }
}

/// What a host asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// For how long, in seconds; 0 ends a mapping.
    pub lifetime_s: u32,
    /// The host's own address, which has to be the datagram's source.
    pub client: IpAddr,
    /// What.
    pub operation: Operation,
    /// Rather nothing than another external port than the suggested one (PREFER_FAILURE).
    pub is_exact: bool,
}

/// What is asked or answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Is the router still the one it was?
    Announce,
    /// A mapping.
    Map(Map),
    /// Something else; routers refuse it, hosts pass it over.
    Other(u8),
}

/// A mapping, as asked for or as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// The same in every request about this mapping.
    pub nonce: Nonce,
    /// IANA's number of the protocol; 0 is all.
    pub protocol: u8,
    /// The host's own port.
    pub internal_port: u16,
    /// Where it is reached: suggested, then assigned. Zeros suggest nothing.
    pub external: SocketAddr,
}

/// What a router answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub result: ResultCode,
    /// How long the mapping lasts, or the refusal will be the same; in seconds.
    pub lifetime_s: u32,
    /// Seconds since the router's table of mappings was empty.
    pub epoch_s: u32,
    /// What was asked, and the answer if it went well.
    pub operation: Operation,
}

/// How it went (RFC 6887 section 7.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultCode {
    /// Done.
    Success,
    /// The router doesn't speak this version.
    UnsupportedVersion,
    /// The router's owner does not want it, or another nonce has the port.
    NotAuthorized,
    /// The router could not read the request.
    MalformedRequest,
    /// The router doesn't know the operation.
    UnsupportedOperation,
    /// The router doesn't know an option.
    UnsupportedOption,
    /// The router could not read an option.
    MalformedOption,
    /// The router has no address itself.
    NetworkFailure,
    /// No port is free.
    NoResources,
    /// The router doesn't map this protocol.
    UnsupportedProtocol,
    /// This host has as many mappings as it may.
    QuotaExceeded,
    /// The suggested port or address is not to be had.
    CannotProvideExternal,
    /// The datagram's source is not what it says: there is a NAT between.
    AddressMismatch,
    /// Too many filters.
    ExcessiveRemotePeers,
    /// A number that the RFC doesn't name, 14 or more.
    Other(u8),
}

impl ResultCode {
    const NAMED: [Self; 14] = [
        Self::Success,
        Self::UnsupportedVersion,
        Self::NotAuthorized,
        Self::MalformedRequest,
        Self::UnsupportedOperation,
        Self::UnsupportedOption,
        Self::MalformedOption,
        Self::NetworkFailure,
        Self::NoResources,
        Self::UnsupportedProtocol,
        Self::QuotaExceeded,
        Self::CannotProvideExternal,
        Self::AddressMismatch,
        Self::ExcessiveRemotePeers,
    ];

    fn from_number(number: u8) -> Self {
        let named = Self::NAMED.get(usize::from(number));
        named.copied().unwrap_or(Self::Other(number))
    }

    fn number(self) -> u8 {
        if let Self::Other(number) = self {
            return number;
        }
        let at = Self::NAMED.iter().position(|named| *named == self);
        at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
    }
}

impl Operation {
    const fn number(&self) -> u8 {
        match self {
            Self::Announce => ANNOUNCE,
            Self::Map(_) => MAP,
            Self::Other(number) => *number & !RESPONSE,
        }
    }

    /// Reads what is behind the header; returns it and the options.
    fn parse(number: u8, body: &[u8]) -> Result<(Self, &[u8]), BadPortmap> {
        match number {
            ANNOUNCE => Ok((Self::Announce, body)),
            MAP => {
                let (map, options) = body
                    .split_first_chunk::<MAP_BYTES>()
                    .ok_or(BadPortmap::Length)?;
                Ok((Self::Map(Map::parse(map)?), options))
            }
            // Its body's length is not known, so neither is where options begin.
            other => Ok((Self::Other(other), &[])),
        }
    }
}

impl Map {
    fn parse(bytes: &[u8; MAP_BYTES]) -> Result<Self, BadPortmap> {
        let (nonce, rest) = bytes.split_first_chunk().ok_or(BadPortmap::Length)?;
        let (head, address) = rest.split_first_chunk::<8>().ok_or(BadPortmap::Length)?;
        let [protocol, _, _, _, i0, i1, e0, e1] = *head;
        let address = <[u8; 16]>::try_from(address).map_err(|_| BadPortmap::Length)?;
        Ok(Self {
            nonce: Nonce(*nonce),
            protocol,
            internal_port: u16::from_be_bytes([i0, i1]),
            external: SocketAddr::new(ip(address), u16::from_be_bytes([e0, e1])),
        })
    }

    fn put(&self, out: &mut [u8]) -> Option<usize> {
        put(
            out,
            &[
                &self.nonce.0,
                &[self.protocol, 0, 0, 0],
                &self.internal_port.to_be_bytes(),
                &self.external.port().to_be_bytes(),
                &octets(self.external.ip()),
            ],
        )
    }
}

impl Request {
    /// Writes the request to the beginning of `out`; returns its length, or nothing if there is
    /// no room.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let mut used = put(
            out,
            &[
                &[VERSION, self.operation.number(), 0, 0],
                &self.lifetime_s.to_be_bytes(),
                &octets(self.client),
            ],
        )?;
        if let Operation::Map(map) = &self.operation {
            used += map.put(out.get_mut(used..)?)?;
            if self.is_exact {
                used += put(out.get_mut(used..)?, &[&[PREFER_FAILURE, 0, 0, 0]])?;
            }
        }
        Some(used)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`BadPortmap`].
    pub fn parse(datagram: &[u8]) -> Result<Self, BadPortmap> {
        let (header, body) = split(datagram)?;
        let (version, operation, lifetime_s) = (header[0], header[1], number(header, 4));
        if version != VERSION {
            return Err(BadPortmap::Version { found: version });
        }
        if operation & RESPONSE != 0 {
            return Err(BadPortmap::Direction);
        }
        let (operation, options) = Operation::parse(operation, body)?;
        let is_map = matches!(operation, Operation::Map(_));
        let mut is_exact = false;
        each_option(options, |code| is_exact |= is_map && code == PREFER_FAILURE)?;
        let client = header.last_chunk::<16>().ok_or(BadPortmap::Length)?;
        Ok(Self {
            lifetime_s,
            client: ip(*client),
            operation,
            is_exact,
        })
    }
}

impl Response {
    /// Writes the response to the beginning of `out`; returns its length, or nothing if there is
    /// no room.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let operation = self.operation.number() | RESPONSE;
        let used = put(
            out,
            &[
                &[VERSION, operation, 0, self.result.number()],
                &self.lifetime_s.to_be_bytes(),
                &self.epoch_s.to_be_bytes(),
                &[0; 12],
            ],
        )?;
        match &self.operation {
            Operation::Map(map) => Some(used + map.put(out.get_mut(used..)?)?),
            Operation::Announce | Operation::Other(_) => Some(used),
        }
    }

    /// Reads a response.
    ///
    /// One that refuses the request's version has the router's own in its place, and of such a
    /// version nothing but the header is understood (RFC 6887 section 9): its operation reads as
    /// [`Operation::Other`].
    ///
    /// # Errors
    /// [`BadPortmap`].
    pub fn parse(datagram: &[u8]) -> Result<Self, BadPortmap> {
        let (header, body) = split(datagram)?;
        let [version, operation, _, result, ..] = *header;
        let result = ResultCode::from_number(result);
        if operation & RESPONSE == 0 {
            return Err(BadPortmap::Direction);
        }
        let operation = operation & !RESPONSE;
        let operation = if version == VERSION {
            let (operation, options) = Operation::parse(operation, body)?;
            each_option(options, |_| ())?;
            operation
        } else if result == ResultCode::UnsupportedVersion {
            Operation::Other(operation)
        } else {
            return Err(BadPortmap::Version { found: version });
        };
        Ok(Self {
            result,
            lifetime_s: number(header, 4),
            epoch_s: number(header, 8),
            operation,
        })
    }
}

/// The header and what is behind it, if the length is one that a message can have.
fn split(datagram: &[u8]) -> Result<(&[u8; HEADER_BYTES], &[u8]), BadPortmap> {
    if datagram.len() > MAX_BYTES || !datagram.len().is_multiple_of(4) {
        return Err(BadPortmap::Length);
    }
    datagram.split_first_chunk().ok_or(BadPortmap::Length)
}

fn number(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    let bytes = header.get(at..).and_then(<[u8]>::first_chunk::<4>);
    bytes.copied().map_or(0, u32::from_be_bytes)
}

fn each_option(mut options: &[u8], mut see: impl FnMut(u8)) -> Result<(), BadPortmap> {
    while let Some((&[code, _, l0, l1], rest)) = options.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        options = rest
            .get(length.next_multiple_of(4)..)
            .ok_or(BadPortmap::Length)?;
        see(code);
    }
    Ok(())
}

fn ip(octets: [u8; 16]) -> IpAddr {
    IpAddr::V6(octets.into()).to_canonical()
}

const fn octets(ip: IpAddr) -> [u8; 16] {
    let v6: Ipv6Addr = match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    v6.octets()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

    fn check_request(request: Request, expected: &[u8]) {
        let mut out = [0xee; MAX_REQUEST_BYTES];
        let length = request.encode(&mut out).unwrap();
        assert_eq!(&out[..length], expected);
        assert_eq!(Request::parse(expected), Ok(request));
        assert_eq!(request.encode(&mut out[..expected.len() - 1]), None);
    }

    fn check_response(response: Response, expected: &[u8]) {
        let mut out = [0xee; MAX_RESPONSE_BYTES];
        let length = response.encode(&mut out).unwrap();
        assert_eq!(&out[..length], expected);
        assert_eq!(Response::parse(expected), Ok(response));
    }

    fn map(external: &str) -> Map {
        Map {
            nonce: Nonce(*b"twelve bytes"),
            protocol: UDP,
            internal_port: 51820,
            external: external.parse().unwrap(),
        }
    }

    fn map_bytes(port: [u8; 2], address: [u8; 16]) -> Vec<u8> {
        let middle = [17, 0, 0, 0, 0xca, 0x6c];
        [&b"twelve bytes"[..], &middle, &port, &address].concat()
    }

    /// The drawings of RFC 6887 sections 7.1, 11.1 and 13.2.
    #[test]
    fn every_request_keeps_its_exact_bytes() {
        let mut request = Request {
            lifetime_s: 7200,
            client: "192.168.1.2".parse().unwrap(),
            operation: Operation::Map(map("0.0.0.0:4660")),
            is_exact: false,
        };
        let mut header = [&[2, 1, 0, 0, 0, 0, 0x1c, 0x20][..], &MAPPED].concat();
        header.extend([192, 168, 1, 2]);
        let nothing = [&MAPPED[..], &[0; 4]].concat().try_into().unwrap();
        let mut expected = [&header[..], &map_bytes([0x12, 0x34], nothing)].concat();
        check_request(request, &expected);
        request.is_exact = true;
        expected.extend([2, 0, 0, 0]);
        check_request(request, &expected);

        let client: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let announce = Request {
            lifetime_s: 0,
            client: client.into(),
            operation: Operation::Announce,
            is_exact: false,
        };
        let expected = [&[2, 0, 0, 0, 0, 0, 0, 0][..], &client.octets()].concat();
        check_request(announce, &expected);
    }

    /// The drawings of RFC 6887 sections 7.2 and 11.1.
    #[test]
    fn every_response_keeps_its_exact_bytes() {
        let external: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let mut response = Response {
            result: ResultCode::Success,
            lifetime_s: 600,
            epoch_s: 0x0102_0304,
            operation: Operation::Map(map("[2001:db8::7]:51820")),
        };
        let mut header = [2, 0x81, 0, 0, 0, 0, 2, 0x58, 1, 2, 3, 4].to_vec();
        header.extend([0; 12]);
        let expected = [&header[..], &map_bytes([0xca, 0x6c], external.octets())].concat();
        check_response(response, &expected);

        response.operation = Operation::Announce;
        response.result = ResultCode::NetworkFailure;
        header[1] = 0x80;
        header[3] = 7;
        check_response(response, &header);
    }

    #[test]
    fn a_refused_version_needs_no_more_than_the_header() {
        let mut header = [0; 24];
        header[..4].copy_from_slice(&[1, 0x81, 0, 1]);
        let refused = Response::parse(&header).unwrap();
        assert_eq!(refused.result, ResultCode::UnsupportedVersion);
        assert_eq!(refused.operation, Operation::Other(1));
        header[3] = 0;
        let found = BadPortmap::Version { found: 1 };
        assert_eq!(Response::parse(&header), Err(found));
    }

    #[test]
    fn lengths_that_no_message_has_are_refused() {
        let request = [&[2, 1, 0, 0][..], &[0; 56]].concat();
        assert!(Request::parse(&request).is_ok());
        for length in [0, 3, 20, 24, 56, 59] {
            let cut = Request::parse(&request[..length]);
            assert_eq!(cut, Err(BadPortmap::Length), "{length}");
        }
        let option_past_the_end = [&request[..], &[130, 0, 0, 5, 1, 2, 3, 4]].concat();
        assert_eq!(
            Request::parse(&option_past_the_end),
            Err(BadPortmap::Length)
        );
        let padded = [&request[..], &[130, 0, 0, 3, 1, 2, 3, 0]].concat();
        assert!(Request::parse(&padded).is_ok());
        let too_long = [&request[..], &[0; 1044]].concat();
        assert_eq!(Request::parse(&too_long), Err(BadPortmap::Length));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            nonce: [u8; 12], protocol: u8, internal_port: u16, port: u16, v4: bool, address: [u8; 16],
            lifetime_s: u32, epoch_s: u32, number: u8, is_exact: bool,
        ) {
            let mut octets = address;
            if v4 {
                octets[..12].copy_from_slice(&MAPPED);
            }
            let external = SocketAddr::new(ip(octets), port);
            let map = Map { nonce: Nonce(nonce), protocol, internal_port, external };
            let operation = Operation::Map(map);
            let request = Request { lifetime_s, client: ip(octets), operation, is_exact };
            let mut out = [0; MAX_REQUEST_BYTES];
            let length = request.encode(&mut out).unwrap();
            prop_assert_eq!(Request::parse(&out[..length]), Ok(request));
            let result = ResultCode::from_number(number);
            prop_assert_eq!(result.number(), number);
            let response = Response { result, lifetime_s, epoch_s, operation };
            let length = response.encode(&mut out).unwrap();
            prop_assert_eq!(Response::parse(&out[..length]), Ok(response));
        }
    }
}
