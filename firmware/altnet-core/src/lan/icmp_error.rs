//! ICMPv6 errors about packets that can't be carried: in place, at a bounded rate, and never
//! about anything that must not be answered.

use core::net::Ipv6Addr;
use core::time::Duration;

use altnet_wire::frame::Frame;
use altnet_wire::time::Instant;

use crate::ip::{self, HEADER_BYTES, MIN_MTU_BYTES, PacketInfo, Protocol, Transport};

/// Bytes of an ICMPv6 error in front of the packet that it quotes.
const ERROR_BYTES: usize = 8;
/// Most bytes quoted, so that the error fits every link (RFC 4443 section 2.4 (c)).
const MAX_QUOTE_BYTES: usize = MIN_MTU_BYTES - HEADER_BYTES - ERROR_BYTES;
/// Hop limit of an error (IANA "IP option numbers", default TTL).
const ERROR_HOP_LIMIT: u8 = 64;
/// Redirect, which must not be answered (RFC 4443 section 2.4 (e.2)).
const REDIRECT: u8 = 137;

/// Why a packet can't be carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no way to the destination.
    NoRoute,
    /// Policy refuses it.
    Prohibited,
    /// The destination's node can't be reached.
    AddressUnreachable,
    /// Nobody listens on the port.
    PortUnreachable,
    /// The source may not use this way.
    SourcePolicy,
    /// The route refuses it.
    RejectRoute,
    /// It is longer than what fits.
    PacketTooBig {
        /// What fits, in bytes.
        mtu_bytes: u32,
    },
    /// It was forwarded too often.
    HopLimitExceeded,
}

impl ErrorKind {
    /// Type, code and the four bytes behind the checksum (RFC 4443 section 3).
    const fn fields(self) -> (u8, u8, u32) {
        match self {
            Self::NoRoute => (1, 0, 0),
            Self::Prohibited => (1, 1, 0),
            Self::AddressUnreachable => (1, 3, 0),
            Self::PortUnreachable => (1, 4, 0),
            Self::SourcePolicy => (1, 5, 0),
            Self::RejectRoute => (1, 6, 0),
            Self::PacketTooBig { mtu_bytes } => (2, 0, mtu_bytes),
            Self::HopLimitExceeded => (3, 0, 0),
        }
    }
}

/// Why no error was written. The frame is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoError {
    /// The packet may not be answered with an error (RFC 4443 section 2.4 (e)).
    #[error("the packet may not be answered with an error")]
    NotAnswerable,
    /// Enough errors were sent of late.
    #[error("too many errors of late")]
    RateLimited,
    /// The frame's buffer is too short.
    #[error("no room for the error")]
    NoRoom,
}

/// Writes errors, so many a second and no more: a bucket of tokens (RFC 4443 section 2.4 (f)).
#[derive(Debug)]
pub struct IcmpErrors {
    interval: Duration,
    burst: u32,
    tokens: u32,
    filled: Instant,
}

impl IcmpErrors {
    /// Allows `rate_per_s` errors a second (at least 1), and `burst` at once after silence.
    pub fn new(rate_per_s: u32, burst: u32, now: Instant) -> Self {
        Self {
            interval: Duration::from_secs(1) / rate_per_s.max(1),
            burst,
            tokens: burst,
            filled: now,
        }
    }

    /// Turns the packet in `frame` into the error `kind` about it, from `source` to the
    /// packet's sender: at most 1280 bytes, checksum included.
    ///
    /// # Errors
    /// [`NoError`], and the frame is as it was.
    ///
    /// Source: RFC 4443 sections 2.4 and 3.
    pub fn answer(
        &mut self,
        kind: ErrorKind,
        frame: &mut Frame<'_>,
        source: Ipv6Addr,
        now: Instant,
    ) -> Result<(), NoError> {
        let packet = PacketInfo::parse(frame.packet()).map_err(|_| NoError::NotAnswerable)?;
        if !is_answerable(&packet, kind) {
            return Err(NoError::NotAnswerable);
        }
        self.refill(now);
        self.tokens = self.tokens.checked_sub(1).ok_or(NoError::RateLimited)?;
        write(kind, frame, source, packet.source).ok_or(NoError::NoRoom)
    }

    fn refill(&mut self, now: Instant) {
        let interval_us = self.interval.as_micros().max(1);
        let passed_us = now.saturating_since(self.filled).as_micros();
        let tokens = passed_us / interval_us;
        // What is left of an interval counts towards the next token.
        let left = Duration::from_micros((passed_us % interval_us) as u64);
        self.filled = Instant::from_micros(
            now.as_micros()
                .saturating_sub(left.as_micros() as u64)
                .max(self.filled.as_micros()),
        );
        let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(tokens).min(self.burst);
    }
}

/// Whether RFC 4443 section 2.4 (e) allows an error about `packet`.
fn is_answerable(packet: &PacketInfo, kind: ErrorKind) -> bool {
    let is_single_source = !(packet.source.is_unspecified()
        || packet.source.is_multicast()
        || packet.source.is_loopback());
    // Only "packet too big" may answer a multicast, for path MTU discovery.
    let is_single_destination =
        !packet.destination.is_multicast() || matches!(kind, ErrorKind::PacketTooBig { .. });
    let is_no_error = match packet.transport {
        Transport::IcmpError { .. } => false,
        Transport::Icmp { kind, .. } => kind != REDIRECT,
        // It may be part of an error.
        Transport::Absent => packet.protocol != Protocol::ICMPV6,
        _ => true,
    };
    is_single_source && is_single_destination && is_no_error
}

/// Moves the packet's beginning back and writes the headers in front of it: the room before
/// the frame stays free for those of a tunnel.
fn write(
    kind: ErrorKind,
    frame: &mut Frame<'_>,
    source: Ipv6Addr,
    destination: Ipv6Addr,
) -> Option<()> {
    const HEADERS: usize = HEADER_BYTES + ERROR_BYTES;
    let quoted = frame.len().min(MAX_QUOTE_BYTES);
    let before = frame.len();
    frame.set_len((quoted + HEADERS).max(before)).ok()?;
    frame.truncate(quoted + HEADERS);
    let packet = frame.packet_mut();
    packet.copy_within(..quoted, HEADERS);
    let (header, message) = packet.split_first_chunk_mut::<HEADER_BYTES>()?;
    let length = u16::try_from(message.len()).ok()?;
    *header = [0; HEADER_BYTES];
    header[0] = 0x60;
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = Protocol::ICMPV6.0;
    header[7] = ERROR_HOP_LIMIT;
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    let (number, code, value) = kind.fields();
    let error: &mut [u8; ERROR_BYTES] = message.first_chunk_mut()?;
    *error = [number, code, 0, 0, 0, 0, 0, 0];
    error[4..].copy_from_slice(&value.to_be_bytes());
    let sum = ip::checksum(source, destination, Protocol::ICMPV6, message);
    message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ip::testing::*;
    use altnet_wire::frame::FRAME_BYTES;
    use proptest::prelude::*;
    use std::vec::Vec;

    const CLIENT: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 1, 0, 0, 0, 0xa);
    const FAR: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 2, 0, 0, 0, 0xb);
    const ROUTER: Ipv6Addr = Ipv6Addr::new(0xfd01, 0, 0, 1, 0, 0, 0, 1);

    fn answer(kind: ErrorKind, packet: &[u8]) -> Result<Vec<u8>, NoError> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(packet).unwrap();
        let result =
            IcmpErrors::new(10, 10, Instant::ZERO).answer(kind, &mut frame, ROUTER, Instant::ZERO);
        if result.is_err() {
            assert_eq!(frame.packet(), packet);
        }
        result.map(|()| frame.packet().to_vec())
    }

    fn check_refused(packet: &[u8]) {
        let found = answer(ErrorKind::NoRoute, packet);
        assert_eq!(found, Err(NoError::NotAnswerable), "{packet:02x?}");
    }

    #[test]
    fn an_error_quotes_the_packet_and_goes_to_its_sender() {
        let packet = packet(CLIENT, FAR, 17, &udp(7, 80, b"hello"));
        let error = answer(ErrorKind::AddressUnreachable, &packet).unwrap();
        let info = PacketInfo::parse(&error).unwrap();
        assert_eq!((info.source, info.destination), (ROUTER, CLIENT));
        assert_eq!(info.icmp(), Some((1, 3)));
        assert_eq!(&error[48..], packet);
        let sum = ip::checksum(ROUTER, CLIENT, Protocol::ICMPV6, &error[40..]);
        assert_eq!(sum, 0);
    }

    #[test]
    fn an_error_is_never_longer_than_the_smallest_mtu() {
        let packet = packet(CLIENT, FAR, 17, &udp(7, 80, &[1; 1452]));
        let error = answer(ErrorKind::PacketTooBig { mtu_bytes: 1420 }, &packet).unwrap();
        assert_eq!(error.len(), MIN_MTU_BYTES);
        assert_eq!(error[44..48], 1420u32.to_be_bytes());
        assert_eq!(error[48..], packet[..MAX_QUOTE_BYTES]);
    }

    #[test]
    fn an_error_a_multicast_and_a_nameless_source_are_not_answered() {
        let data = udp(1, 2, b"");
        check_refused(&packet(CLIENT, FAR, 58, &[1, 0, 0, 0, 0, 0, 0, 0]));
        check_refused(&packet(CLIENT, FAR, 58, &[137, 0, 0, 0, 0, 0, 0, 0]));
        check_refused(&packet(CLIENT, super::super::ALL_NODES, 17, &data));
        check_refused(&packet(Ipv6Addr::UNSPECIFIED, FAR, 17, &data));
        check_refused(&packet(super::super::ALL_NODES, FAR, 17, &data));
        check_refused(&packet(
            CLIENT,
            FAR,
            44,
            &fragment(58, 8, false, 1, &[0; 8]),
        ));
        check_refused(b"not a packet");
        assert!(answer(ErrorKind::NoRoute, &packet(CLIENT, FAR, 58, &echo(128, 1))).is_ok());
    }

    #[test]
    fn errors_come_at_a_bounded_rate() {
        let packet = packet(CLIENT, FAR, 17, &udp(7, 80, b""));
        let mut errors = IcmpErrors::new(10, 3, Instant::ZERO);
        let mut sent = 0;
        for ms in 0..1000 {
            let mut buffer = [0; FRAME_BYTES];
            let mut frame = Frame::new(&mut buffer);
            frame.set(&packet).unwrap();
            let now = Instant::from_micros(ms * 1000);
            sent += u32::from(
                errors
                    .answer(ErrorKind::NoRoute, &mut frame, ROUTER, now)
                    .is_ok(),
            );
        }
        assert_eq!(sent, 3 + 9);
    }

    proptest! {
        #[test]
        fn no_packet_makes_an_error_panic_or_grow(next: u8, payload in proptest::collection::vec(any::<u8>(), 0..1400), room in 0usize..1700) {
            let packet = packet(CLIENT, FAR, next, &payload);
            let mut buffer = std::vec![0; room];
            let mut frame = Frame::new(&mut buffer);
            if frame.set(&packet).is_ok() {
                let before = frame.packet().to_vec();
                let mut errors = IcmpErrors::new(1, 1, Instant::ZERO);
                match errors.answer(ErrorKind::NoRoute, &mut frame, ROUTER, Instant::ZERO) {
                    Ok(()) => {
                        prop_assert!(frame.len() <= MIN_MTU_BYTES);
                        prop_assert!(PacketInfo::parse(frame.packet()).is_ok());
                    }
                    Err(_) => prop_assert_eq!(frame.packet(), before),
                }
            }
        }
    }
}
