//! Port mapping: what a router sends is refused or read, and what was read says itself again; and
//! a port mapper whose bytes are what router and time do to it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use altnet_core::portmap::{
    Fact, LIFETIME, Network, Output, PortMapper, Protocol, Said, Why, is_public,
};

use altnet_wire::portmap::nat_pmp::{self, Answer, Transport};
use altnet_wire::portmap::pcp::{self, Map, Nonce, Operation};
use altnet_wire::portmap::{MAX_BYTES, Response, SERVER_PORT};
use altnet_wire::time::{Duration, Instant};

use crate::bytes::Bytes;

/// Scenarios longer than this many steps are cut off.
const STEPS: usize = 64;
/// The most that a machine may say at once: three datagrams, an ask, two facts.
const SAYINGS: usize = 6;

/// Reads a datagram as a router's and as a host's, by both protocols.
pub fn portmap(data: &[u8]) {
    let mut out = [0; MAX_BYTES];
    match Response::parse(data) {
        // Another version's header is read, and not written.
        Ok(Response::Pcp(pcp::Response {
            operation: Operation::Other(0 | 1),
            result: pcp::ResultCode::UnsupportedVersion,
            ..
        })) => {}
        Ok(Response::Pcp(response)) => {
            let length = response.encode(&mut out).expect("as large as it was");
            assert_eq!(pcp::Response::parse(&out[..length]), Ok(response));
        }
        Ok(Response::NatPmp(response)) => {
            let length = response.encode(&mut out).expect("as large as it was");
            assert_eq!(nat_pmp::Response::parse(&out[..length]), Ok(response));
        }
        Err(_) => {}
    }
    if let Ok(request) = pcp::Request::parse(data) {
        let length = request.encode(&mut out).expect("no larger than it was");
        assert_eq!(pcp::Request::parse(&out[..length]), Ok(request));
    }
    if let Ok(request) = nat_pmp::Request::parse(data) {
        let length = request.encode(&mut out).expect("as large as it was");
        assert_eq!(out[..length].len(), data.len());
        assert_eq!(nat_pmp::Request::parse(&out[..length]), Ok(request));
    }
}

/// Keeps a port open while the router and time do as the bytes say.
pub fn port_mapper(data: &[u8]) {
    story(data);
}

/// The protocols by which the port was ever held.
fn story(data: &[u8]) -> Vec<Protocol> {
    let mut bytes = Bytes(data);
    let mut lab = Lab::new(bytes.octet());
    let mut held_by = Vec::new();
    lab.settle(&mut held_by);
    for _ in 0..STEPS {
        if bytes.is_empty() {
            break;
        }
        lab.step(&mut bytes);
        lab.settle(&mut held_by);
    }
    lab.mapper.handle_close(lab.now);
    for _ in 0..8 {
        let until = lab.settle(&mut held_by);
        if lab.mapper.is_closed() {
            break;
        }
        lab.now = until;
    }
    assert!(lab.mapper.is_closed(), "it never ends");
    assert_eq!(lab.mapper.mapping(), None);
    held_by
}

struct Lab {
    mapper: PortMapper,
    now: Instant,
    network: Network,
    asked: Option<pcp::Request>,
    ask: u32,
}

impl Lab {
    fn new(kind: u8) -> Self {
        let (gateway, internal) = if kind & 1 == 0 {
            ("192.168.1.1", "192.168.1.2:51820")
        } else {
            ("fe80::1", "[2001:db8::2]:51820")
        };
        let network = Network {
            gateway: gateway.parse().expect("an address"),
            interface: 3,
            internal: internal.parse().expect("an address"),
        };
        let mut mapper = PortMapper::new([1; 32], [2; 32]);
        let now = Instant::from_micros(1_000_000);
        mapper.handle_network(Some(network), now);
        Self {
            mapper,
            now,
            network,
            asked: None,
            ask: 0,
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let now = self.now;
        let mut out = [0; MAX_BYTES];
        match bytes.octet() % 9 {
            0 => {
                let Some(pcp::Request {
                    operation: Operation::Map(mut map),
                    ..
                }) = self.asked
                else {
                    return;
                };
                map.external = SocketAddr::new(address(bytes, &self.network), bytes.pair());
                let response = pcp::Response {
                    result: code(bytes.octet()),
                    lifetime_s: bytes.pair().into(),
                    epoch_s: bytes.pair().into(),
                    operation: Operation::Map(map),
                };
                let length = response.encode(&mut out).expect("room");
                self.hear(&bytes.changed(&out[..length]));
            }
            1 => {
                let response = pcp::Response {
                    result: pcp::ResultCode::Success,
                    lifetime_s: 0,
                    epoch_s: bytes.pair().into(),
                    operation: Operation::Announce,
                };
                let length = response.encode(&mut out).expect("room");
                self.hear(&bytes.changed(&out[..length]));
            }
            2 => {
                let map = nat_pmp::Map {
                    transport: Transport::Udp,
                    internal_port: self.network.internal.port(),
                    external_port: bytes.pair(),
                    lifetime_s: bytes.pair().into(),
                };
                let answer = match bytes.octet() % 3 {
                    0 => Answer::Map(map),
                    1 => Answer::ExternalAddress(Ipv4Addr::from(u32::from(bytes.pair()) << 16)),
                    _ => Answer::Refused { operation: 1 },
                };
                let response = nat_pmp::Response {
                    result: match bytes.octet() % 8 {
                        0 => nat_pmp::ResultCode::OutOfResources,
                        1 => nat_pmp::ResultCode::UnsupportedVersion,
                        _ => nat_pmp::ResultCode::Success,
                    },
                    epoch_s: bytes.pair().into(),
                    answer,
                };
                let length = response.encode(&mut out).expect("room");
                self.hear(&bytes.changed(&out[..length]));
            }
            3 => {
                let datagram = bytes.run();
                self.hear(datagram);
            }
            4 => self.mapper.handle_unreachable(now),
            5 => {
                let external = std::net::SocketAddrV4::new(
                    Ipv4Addr::from(u32::from(bytes.pair()) << 16 | 7),
                    bytes.pair(),
                );
                let said = match bytes.octet() % 4 {
                    0 => Said::Absent,
                    1 => Said::Refused(Why::NotAuthorized),
                    2 => Said::Unmapped,
                    _ => Said::Mapped {
                        external,
                        lifetime_s: bytes.pair().into(),
                    },
                };
                self.mapper.handle_igd(self.ask, said, now);
            }
            6 => self.now = now.after(Duration::from_millis(u64::from(bytes.pair()) * 100)),
            7 => match bytes.octet() % 4 {
                0 => self.mapper.handle_restart(now),
                1 => self.mapper.handle_igd_restart(now),
                _ => self.mapper.handle_timeout(now),
            },
            _ => {
                let port = bytes.pair().max(1);
                self.network.internal.set_port(port);
                self.mapper.handle_network(Some(self.network), now);
            }
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        let from = SocketAddr::new(self.network.gateway, SERVER_PORT);
        self.mapper.handle_datagram(from, datagram, self.now);
    }

    /// Drains the machine, and holds what it says to its promises.
    fn settle(&mut self, held_by: &mut Vec<Protocol>) -> Instant {
        self.mapper.handle_timeout(self.now);
        let mut out = [0; pcp::MAX_REQUEST_BYTES];
        for _ in 0..=SAYINGS {
            match self.mapper.poll_output(&mut out) {
                Output::Send { to, length } => {
                    assert_eq!((to.ip(), to.port()), (self.network.gateway, SERVER_PORT));
                    if let Ok(request) = pcp::Request::parse(&out[..length]) {
                        assert_eq!(request.client, self.network.internal.ip());
                        self.asked = Some(request);
                    } else {
                        assert!(nat_pmp::Request::parse(&out[..length]).is_ok());
                    }
                }
                Output::Ask(ask) => {
                    assert_eq!(IpAddr::V4(ask.gateway), self.network.gateway);
                    self.ask = ask.id;
                }
                Output::Tell(Fact::Mapped(held)) => {
                    assert!(is_public(held.external.ip()) && held.external.port() != 0);
                    held_by.push(held.by);
                }
                Output::Tell(Fact::DoubleNat(held)) => assert!(!is_public(held.external.ip())),
                Output::Tell(Fact::Lost(_)) => assert_eq!(self.mapper.mapping(), None),
                Output::Tell(Fact::Restarted) => {}
                Output::Wait(until) => {
                    if let Some(held) = self.mapper.mapping() {
                        assert!(held.until > self.now && held.until <= self.now.after(LIFETIME));
                        assert_eq!(held.internal, self.network.internal);
                    }
                    assert!(until > self.now, "it spins");
                    assert!(until != Instant::NEVER || self.mapper.is_closed());
                    return until;
                }
            }
        }
        panic!("it never waits");
    }
}

fn address(bytes: &mut Bytes<'_>, network: &Network) -> IpAddr {
    match bytes.octet() % 4 {
        0 => Ipv4Addr::UNSPECIFIED.into(),
        1 => Ipv4Addr::new(10, 0, 0, 7).into(),
        2 => network.internal.ip(),
        _ => Ipv4Addr::new(198, 51, 100, 7).into(),
    }
}

const fn code(octet: u8) -> pcp::ResultCode {
    match octet % 8 {
        0 => pcp::ResultCode::UnsupportedVersion,
        1 => pcp::ResultCode::NotAuthorized,
        2 => pcp::ResultCode::NoResources,
        3 => pcp::ResultCode::Other(99),
        _ => pcp::ResultCode::Success,
    }
}

/// One message of each kind.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "portmap" => messages(),
        "port_mapper" => stories(),
        _ => Vec::new(),
    }
}

/// A port by each protocol, and what may come after.
fn stories() -> Vec<Vec<u8>> {
    // Success for an hour, with an epoch of 1000.
    let pcp = [0, 3, 0x12, 0x34, 7, 0x0e, 0x10, 0x03, 0xe8, 0];
    let restart = [1, 0, 2, 0];
    let hour = [6, 0x8c, 0xa0];
    let refused = [0, 3, 0, 0, 0, 0, 0, 0, 9, 0];
    let old_map = [2, 0x12, 0x34, 0x0e, 0x10, 0, 7, 0x03, 0xe8, 0];
    let old_address = [2, 0x12, 0x34, 0, 0, 1, 0xc6, 0x33, 7, 0x03, 0xe8, 0];
    let igd = [5, 0xc6, 0x33, 0x12, 0x34, 3, 0x0e, 0x10];
    let (closed, moved) = ([4], [8, 0x12, 0x35]);
    let all = |parts: &[&[u8]]| parts.concat();
    vec![
        all(&[
            &[0],
            &pcp,
            &restart,
            &hour,
            &pcp,
            &hour,
            &hour,
            &moved,
            &pcp,
        ]),
        all(&[
            &[0],
            &refused,
            &old_map,
            &old_address,
            &hour,
            &old_map,
            &restart,
        ]),
        all(&[&[0], &closed, &closed, &igd, &hour, &igd, &[7, 1], &hour]),
        all(&[
            &[1],
            &[0, 2, 0xca, 0x6c, 7, 0x0e, 0x10, 0, 9, 0],
            &hour,
            &[7, 0],
            &hour,
        ]),
        all(&[
            &[0],
            &[0, 1, 0x12, 0x34, 7, 0x0e, 0x10, 0x03, 0xe8, 0],
            &hour,
        ]),
    ]
}

fn messages() -> Vec<Vec<u8>> {
    let map = Operation::Map(Map {
        nonce: Nonce([7; 12]),
        protocol: pcp::UDP,
        internal_port: 51820,
        external: "203.0.113.5:4660".parse().expect("an address"),
    });
    let asked = |operation, is_exact| pcp::Request {
        lifetime_s: 7200,
        client: "192.168.1.2".parse().expect("an address"),
        operation,
        is_exact,
    };
    let answered = |operation, result| pcp::Response {
        result,
        lifetime_s: 600,
        epoch_s: 9,
        operation,
    };
    let old = nat_pmp::Map {
        transport: Transport::Udp,
        internal_port: 51820,
        external_port: 4660,
        lifetime_s: 7200,
    };
    let old_answered = |answer, result| nat_pmp::Response {
        result,
        epoch_s: 9,
        answer,
    };
    let mut out = [0; MAX_BYTES];
    let mut written = Vec::new();
    for request in [
        asked(map, false),
        asked(map, true),
        asked(Operation::Announce, false),
    ] {
        let length = request.encode(&mut out).expect("room");
        written.push(out[..length].to_vec());
    }
    for response in [
        answered(map, pcp::ResultCode::Success),
        answered(Operation::Announce, pcp::ResultCode::Success),
        answered(map, pcp::ResultCode::NotAuthorized),
    ] {
        let length = response.encode(&mut out).expect("room");
        written.push(out[..length].to_vec());
    }
    for request in [
        nat_pmp::Request::ExternalAddress,
        nat_pmp::Request::Map(old),
    ] {
        let length = request.encode(&mut out).expect("room");
        written.push(out[..length].to_vec());
    }
    let address = Ipv4Addr::new(203, 0, 113, 5);
    for response in [
        old_answered(
            Answer::ExternalAddress(address),
            nat_pmp::ResultCode::Success,
        ),
        old_answered(Answer::Map(old), nat_pmp::ResultCode::Success),
        old_answered(
            Answer::Refused { operation: 1 },
            nat_pmp::ResultCode::UnsupportedVersion,
        ),
    ] {
        let length = response.encode(&mut out).expect("room");
        written.push(out[..length].to_vec());
    }
    // What a router with another version of PCP says.
    written.push([&[1, 0x81, 0, 1][..], &[0; 20]].concat());
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_get_as_far_as_a_port_by_every_protocol() {
        let held: Vec<_> = stories().iter().flat_map(|bytes| story(bytes)).collect();
        for by in [Protocol::Pcp, Protocol::NatPmp, Protocol::Igd] {
            assert!(held.contains(&by), "{by:?} in {held:?}");
        }
    }
}
