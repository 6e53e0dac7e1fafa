//! NAT-PMP: the older of the two, for routers that know nothing newer.
//!
//! ```text
//! what is my external address?   0 | 0
//!                                0 | 128 | result u16 | epoch u32 | address 4
//! map a port                     0 | 1 UDP, 2 TCP | 0 0 | internal u16 | external u16 | lifetime u32
//!                                0 | 129, 130 | result u16 | epoch u32 | internal u16 | external u16 | lifetime u32
//! ```
//! Numbers are big-endian, times are seconds. A refusal may end after the epoch.
//!
//! Source: RFC 6886 sections 3.2 to 3.5.

use core::net::Ipv4Addr;

use super::BadPortmap;

/// The version byte.
pub const VERSION: u8 = 0;
/// Bytes of the longest request.
pub const MAX_REQUEST_BYTES: usize = 12;
/// Bytes of the longest response.
pub const MAX_RESPONSE_BYTES: usize = 16;

/// Set in a response's operation.
const RESPONSE: u8 = 128;
const REFUSAL_BYTES: usize = 8;
const ADDRESS_BYTES: usize = 12;

/// What is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A UDP port.
    Udp,
    /// A TCP port.
    Tcp,
}

/// What a host asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// The router's address outside.
    ExternalAddress,
    /// A port. With a lifetime of 0 the mapping ends.
    Map(Map),
}

/// A mapping, as asked for or as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Map {
    /// UDP or TCP.
    pub transport: Transport,
    /// The host's own port.
    pub internal_port: u16,
    /// The router's port: suggested, then assigned. 0 suggests none.
    pub external_port: u16,
    /// For how long, in seconds.
    pub lifetime_s: u32,
}

/// What a router answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub result: ResultCode,
    /// Seconds since the router's table of mappings was empty.
    pub epoch_s: u32,
    /// What was asked, and the answer if it went well.
    pub answer: Answer,
}

/// The part of a response that depends on the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The router's address outside; also announced when it changes.
    ExternalAddress(Ipv4Addr),
    /// The mapping.
    Map(Map),
    /// A refusal that says nothing more. The operation is the request's.
    Refused {
        /// As it stood in the request, without the response's bit.
        operation: u8,
    },
}

/// How it went (RFC 6886 section 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultCode {
    /// Done.
    Success,
    /// The router doesn't speak this version.
    UnsupportedVersion,
    /// The router's owner does not want it.
    NotAuthorized,
    /// The router has no address itself.
    NetworkFailure,
    /// No port is free.
    OutOfResources,
    /// The router doesn't know the operation.
    UnsupportedOperation,
    /// A number that the RFC doesn't name, 6 or more.
    Other(u16),
}

impl ResultCode {
    const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Success,
            1 => Self::UnsupportedVersion,
            2 => Self::NotAuthorized,
            3 => Self::NetworkFailure,
            4 => Self::OutOfResources,
            5 => Self::UnsupportedOperation,
            other => Self::Other(other),
        }
    }

    const fn number(self) -> u16 {
        match self {
            Self::Success => 0,
            Self::UnsupportedVersion => 1,
            Self::NotAuthorized => 2,
            Self::NetworkFailure => 3,
            Self::OutOfResources => 4,
            Self::UnsupportedOperation => 5,
            Self::Other(other) => other,
        }
    }
}

impl Transport {
    const fn operation(self) -> u8 {
        match self {
            Self::Udp => 1,
            Self::Tcp => 2,
        }
    }

    const fn from_operation(operation: u8) -> Option<Self> {
        match operation {
            1 => Some(Self::Udp),
            2 => Some(Self::Tcp),
            _ => None,
        }
    }
}

impl Map {
    fn parse(transport: Transport, body: [u8; 8]) -> Self {
        let [i0, i1, e0, e1, l0, l1, l2, l3] = body;
        Self {
            transport,
            internal_port: u16::from_be_bytes([i0, i1]),
            external_port: u16::from_be_bytes([e0, e1]),
            lifetime_s: u32::from_be_bytes([l0, l1, l2, l3]),
        }
    }

    fn body(&self) -> [u8; 8] {
        let [i0, i1] = self.internal_port.to_be_bytes();
        let [e0, e1] = self.external_port.to_be_bytes();
        let [l0, l1, l2, l3] = self.lifetime_s.to_be_bytes();
        [i0, i1, e0, e1, l0, l1, l2, l3]
    }
}

impl Request {
    /// Writes the request to the beginning of `out`; returns its length, or nothing if there is
    /// no room.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        match self {
            Self::ExternalAddress => put(out, &[&[VERSION, 0]]),
            Self::Map(map) => {
                let head = [VERSION, map.transport.operation(), 0, 0];
                put(out, &[&head, &map.body()])
            }
        }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`BadPortmap`].
    pub fn parse(datagram: &[u8]) -> Result<Self, BadPortmap> {
        let operation = operation(datagram)?;
        if operation & RESPONSE != 0 {
            return Err(BadPortmap::Direction);
        }
        if operation == 0 {
            return match datagram {
                [_, _] => Ok(Self::ExternalAddress),
                _ => Err(BadPortmap::Length),
            };
        }
        let transport = Transport::from_operation(operation)
            .ok_or(BadPortmap::Operation { found: operation })?;
        let datagram =
            <[u8; MAX_REQUEST_BYTES]>::try_from(datagram).map_err(|_| BadPortmap::Length)?;
        let body = datagram.last_chunk().ok_or(BadPortmap::Length)?;
        Ok(Self::Map(Map::parse(transport, *body)))
    }
}

impl Response {
    /// Writes the response to the beginning of `out`; returns its length, or nothing if there is
    /// no room.
    pub fn encode(&self, out: &mut [u8]) -> Option<usize> {
        let operation = match self.answer {
            Answer::ExternalAddress(_) => 0,
            Answer::Map(map) => map.transport.operation(),
            Answer::Refused { operation } => operation & !RESPONSE,
        };
        let head = [VERSION, operation | RESPONSE];
        let (result, epoch) = (
            self.result.number().to_be_bytes(),
            self.epoch_s.to_be_bytes(),
        );
        let (address, map);
        let body: &[u8] = match self.answer {
            Answer::ExternalAddress(it) => {
                address = it.octets();
                &address
            }
            Answer::Map(it) => {
                map = it.body();
                &map
            }
            Answer::Refused { .. } => &[],
        };
        put(out, &[&head, &result, &epoch, body])
    }

    /// Reads a response.
    ///
    /// A refusal that is shorter or longer than its kind's answer is read as
    /// [`Answer::Refused`]: routers differ in what they put behind one.
    ///
    /// # Errors
    /// [`BadPortmap`].
    pub fn parse(datagram: &[u8]) -> Result<Self, BadPortmap> {
        let operation = operation(datagram)?;
        if operation & RESPONSE == 0 {
            return Err(BadPortmap::Direction);
        }
        let operation = operation & !RESPONSE;
        let (head, body) = datagram
            .split_first_chunk::<REFUSAL_BYTES>()
            .ok_or(BadPortmap::Length)?;
        let [_, _, r0, r1, e0, e1, e2, e3] = *head;
        let result = ResultCode::from_number(u16::from_be_bytes([r0, r1]));
        let answer = match answer(operation, body) {
            Ok(answer) => answer,
            Err(_) if result != ResultCode::Success && datagram.len() <= super::MAX_BYTES => {
                Answer::Refused { operation }
            }
            Err(bad) => return Err(bad),
        };
        Ok(Self {
            result,
            epoch_s: u32::from_be_bytes([e0, e1, e2, e3]),
            answer,
        })
    }
}

fn answer(operation: u8, body: &[u8]) -> Result<Answer, BadPortmap> {
    if operation == 0 {
        let address = <[u8; ADDRESS_BYTES - REFUSAL_BYTES]>::try_from(body)
            .map_err(|_| BadPortmap::Length)?;
        return Ok(Answer::ExternalAddress(address.into()));
    }
    let transport =
        Transport::from_operation(operation).ok_or(BadPortmap::Operation { found: operation })?;
    let body = <[u8; MAX_RESPONSE_BYTES - REFUSAL_BYTES]>::try_from(body)
        .map_err(|_| BadPortmap::Length)?;
    Ok(Answer::Map(Map::parse(transport, body)))
}

fn operation(datagram: &[u8]) -> Result<u8, BadPortmap> {
    match *datagram {
        [VERSION, operation, ..] => Ok(operation),
        [found, _, ..] => Err(BadPortmap::Version { found }),
        _ => Err(BadPortmap::Length),
    }
}

/// Writes `parts` one after the other.
pub(super) fn put(out: &mut [u8], parts: &[&[u8]]) -> Option<usize> {
    let mut used = 0usize;
    for part in parts {
        let end = used.checked_add(part.len())?;
        out.get_mut(used..end)?.copy_from_slice(part);
        used = end;
    }
    Some(used)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    fn map(transport: Transport) -> Map {
        Map {
            transport,
            internal_port: 51820,
            external_port: 4660,
            lifetime_s: 7200,
        }
    }

    /// The drawings of RFC 6886 sections 3.2 and 3.3.
    #[test]
    fn every_message_keeps_its_exact_bytes() {
        check_request(Request::ExternalAddress, &[0, 0]);
        let body = [0xca, 0x6c, 0x12, 0x34, 0, 0, 0x1c, 0x20];
        let udp = [&[0, 1, 0, 0][..], &body].concat();
        check_request(Request::Map(map(Transport::Udp)), &udp);
        let tcp = [&[0, 2, 0, 0][..], &body].concat();
        check_request(Request::Map(map(Transport::Tcp)), &tcp);

        let answered = |answer| Response {
            result: ResultCode::Success,
            epoch_s: 0x0102_0304,
            answer,
        };
        check_response(
            answered(Answer::ExternalAddress(Ipv4Addr::new(198, 51, 100, 7))),
            &[0, 128, 0, 0, 1, 2, 3, 4, 198, 51, 100, 7],
        );
        let udp = [&[0, 129, 0, 0, 1, 2, 3, 4][..], &body].concat();
        check_response(answered(Answer::Map(map(Transport::Udp))), &udp);
        let tcp = [&[0, 130, 0, 0, 1, 2, 3, 4][..], &body].concat();
        check_response(answered(Answer::Map(map(Transport::Tcp))), &tcp);
    }

    /// RFC 6886 section 3.5: how a NAT-PMP router refuses a version, also PCP's.
    #[test]
    fn a_refusal_may_end_after_the_epoch() {
        let refused = Response {
            result: ResultCode::UnsupportedVersion,
            epoch_s: 9,
            answer: Answer::Refused { operation: 1 },
        };
        check_response(refused, &[0, 129, 0, 1, 0, 0, 0, 9]);
        let cut_off = [0, 129, 0, 0, 0, 0, 0, 9];
        assert_eq!(Response::parse(&cut_off), Err(BadPortmap::Length));
    }

    #[test]
    fn what_goes_the_wrong_way_is_refused() {
        let request = [0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Response::parse(&request), Err(BadPortmap::Direction));
        assert_eq!(Request::parse(&[0, 128]), Err(BadPortmap::Direction));
        let found = BadPortmap::Version { found: 2 };
        assert_eq!(Request::parse(&[2, 1]), Err(found));
        let found = BadPortmap::Operation { found: 3 };
        assert_eq!(Request::parse(&[0, 3]), Err(found));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            udp: bool, internal_port: u16, external_port: u16, lifetime_s: u32,
            epoch_s: u32, number: u16, address: [u8; 4],
        ) {
            let transport = if udp { Transport::Udp } else { Transport::Tcp };
            let map = Map { transport, internal_port, external_port, lifetime_s };
            let mut out = [0; MAX_RESPONSE_BYTES];
            let length = Request::Map(map).encode(&mut out).unwrap();
            prop_assert_eq!(Request::parse(&out[..length]), Ok(Request::Map(map)));
            let result = ResultCode::from_number(number);
            prop_assert_eq!(result.number(), number);
            for answer in [Answer::Map(map), Answer::ExternalAddress(address.into())] {
                let response = Response { result, epoch_s, answer };
                let length = response.encode(&mut out).unwrap();
                prop_assert_eq!(Response::parse(&out[..length]), Ok(response));
            }
        }
    }
}
