//! The virtual link between the node and an app's stack: what may arrive, and where packets go.

use std::net::Ipv6Addr;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use tokio::sync::mpsc;

use super::Packet;

/// RFC 8200 section 3.
const HEADER_BYTES: usize = 40;
/// RFC 9293 section 3.1, without options.
const TCP_HEADER_BYTES: usize = 20;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
/// RFC 4443 section 4.1.
const ECHO_REQUEST: u8 = 128;
const SYN: u8 = 0b0000_0010;
const RST: u8 = 0b0000_0100;
const ACK: u8 = 0b0001_0000;

/// A packet that an app may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Somebody asks whether it is there.
    Echo,
    /// A TCP segment.
    Segment(Segment),
}

/// What is looked at of a TCP segment before the stack sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// Who sent it.
    pub caller: Ipv6Addr,
    /// From which port.
    pub caller_port: u16,
    /// To which address.
    pub to: Ipv6Addr,
    /// To which port.
    pub port: u16,
    /// Whether it wants to begin a connection.
    pub is_opening: bool,
}

/// The source of an IPv6 packet.
pub(super) fn source(packet: &[u8]) -> Option<Ipv6Addr> {
    address(packet, 8)
}

/// The destination of an IPv6 packet.
pub(super) fn destination(packet: &[u8]) -> Option<Ipv6Addr> {
    address(packet, 24)
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}

/// Reads a packet for `own`, or without one for whichever address. None if it is for another, from
/// none that can be answered, or neither TCP nor an echo request right behind the header: apps have
/// no use for extension headers, and policy judges none.
pub(super) fn arrival(packet: &[u8], own: Option<Ipv6Addr>) -> Option<Arrival> {
    let header = packet.get(..HEADER_BYTES)?;
    let payload = &packet[HEADER_BYTES..];
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let source = address(packet, 8)?;
    let to = destination(packet)?;
    let is_ours = header[0] >> 4 == 6
        && length == payload.len()
        && own.is_none_or(|own| own == to)
        && !to.is_multicast();
    // From itself, it would answer itself for ever.
    let is_caller =
        !source.is_unspecified() && !source.is_multicast() && !source.is_loopback() && source != to;
    if !is_ours || !is_caller {
        return None;
    }
    match header[6] {
        ICMPV6 if *payload.first()? == ECHO_REQUEST => Some(Arrival::Echo),
        TCP => {
            let tcp = payload.get(..TCP_HEADER_BYTES)?;
            let flags = tcp[13];
            Some(Arrival::Segment(Segment {
                caller: source,
                caller_port: u16::from_be_bytes([tcp[0], tcp[1]]),
                to,
                port: u16::from_be_bytes([tcp[2], tcp[3]]),
                is_opening: flags & (SYN | ACK | RST) == SYN,
            }))
        }
        _ => None,
    }
}

/// The stack's end of the link: at most one packet in, and the queue to the node out.
#[derive(Debug)]
pub(super) struct Link {
    arrived: Option<Packet>,
    outbox: mpsc::Sender<Packet>,
    mtu_bytes: usize,
}

impl Link {
    pub fn new(outbox: mpsc::Sender<Packet>, mtu_bytes: u16) -> Self {
        Self {
            arrived: None,
            outbox,
            mtu_bytes: mtu_bytes.into(),
        }
    }

    /// Whether a packet can leave. While none can, none is taken in: each may want an answer.
    pub fn has_room(&self) -> bool {
        self.outbox.capacity() > 0
    }

    /// Puts a packet before the stack.
    pub fn arrive(&mut self, packet: Packet) {
        self.arrived = Some(packet);
    }

    /// Whether the stack left the packet; it is gone then.
    pub fn take_back(&mut self) -> bool {
        self.arrived.take().is_some()
    }
}

impl Device for Link {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let place = self.outbox.try_reserve().ok()?;
        let packet = self.arrived.take()?;
        Some((Arrived(packet), Leaving(place)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        self.outbox.try_reserve().ok().map(Leaving)
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu_bytes;
        capabilities
    }
}

/// A packet in the stack's hands.
pub(super) struct Arrived(Packet);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// A place in the queue to the node.
pub(super) struct Leaving<'a>(mpsc::Permit<'a, Packet>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.send(packet);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    const CALLER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

    fn packet(source: Ipv6Addr, next: u8, payload: &[u8]) -> Packet {
        let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, next, 64];
        packet.extend(source.octets());
        packet.extend(OWN.octets());
        packet.extend(payload);
        packet
    }

    #[test]
    fn tcp_and_echo_requests_arrive_and_nothing_else() {
        let mut segment = [0; 20];
        segment[..4].copy_from_slice(&[0x12, 0x34, 0, 80]);
        segment[13] = SYN;
        let opening = Segment {
            caller: CALLER,
            caller_port: 0x1234,
            to: OWN,
            port: 80,
            is_opening: true,
        };
        let syn = packet(CALLER, TCP, &segment);
        assert_eq!(arrival(&syn, Some(OWN)), Some(Arrival::Segment(opening)));
        let echo = packet(CALLER, ICMPV6, &[ECHO_REQUEST, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(arrival(&echo, Some(OWN)), Some(Arrival::Echo));

        assert_eq!(arrival(&syn, Some(CALLER)), None, "another's");
        assert_eq!(arrival(&syn[..59], Some(OWN)), None, "cut");
        for (next, payload) in [
            (17, &segment[..]),
            (0, &segment),
            (44, &segment),
            (43, &segment),
        ] {
            assert_eq!(
                arrival(&packet(CALLER, next, payload), Some(OWN)),
                None,
                "{next}"
            );
        }
        assert_eq!(
            arrival(&packet(CALLER, ICMPV6, &[135, 0, 0, 0]), Some(OWN)),
            None
        );
        for source in [
            OWN,
            Ipv6Addr::UNSPECIFIED,
            Ipv6Addr::LOCALHOST,
            "ff02::1".parse().unwrap(),
        ] {
            assert_eq!(
                arrival(&packet(source, TCP, &segment), Some(OWN)),
                None,
                "{source}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = (arrival(&bytes, Some(OWN)), destination(&bytes));
        }
    }
}
