//! The machine against a pretend router that answers what it is told to.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::vec::Vec;

use altnet_wire::portmap::nat_pmp::{self, Answer};
use altnet_wire::portmap::{MAX_BYTES, SERVER_PORT, pcp};
use altnet_wire::time::{Duration, Instant};
use proptest::prelude::*;

use super::*;

mod asking;
mod keeping;

const OUTSIDE: &str = "198.51.100.7:4660";

fn network() -> Network {
    Network {
        gateway: "192.168.1.1".parse().unwrap(),
        interface: 3,
        internal: "192.168.1.2:51820".parse().unwrap(),
    }
}

fn gateway() -> SocketAddr {
    SocketAddr::new(network().gateway, SERVER_PORT)
}

/// What a machine said until it waited.
#[derive(Debug, Default)]
struct Spoken {
    pcp: Vec<pcp::Request>,
    nat_pmp: Vec<nat_pmp::Request>,
    asks: Vec<Ask>,
    facts: Vec<Fact>,
}

struct Lab {
    mapper: PortMapper,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        Self::at(network())
    }

    fn at(network: Network) -> Self {
        let mut lab = Self {
            mapper: PortMapper::new([1; 32], [2; 32]),
            now: Instant::from_micros(5_000_000),
        };
        lab.mapper.handle_network(Some(network), lab.now);
        lab
    }

    fn drain(&mut self) -> (Spoken, Instant) {
        let mut spoken = Spoken::default();
        let mut out = [0; pcp::MAX_REQUEST_BYTES];
        for _ in 0..100 {
            match self.mapper.poll_output(&mut out) {
                Output::Send { to, length } => {
                    assert_eq!(to.port(), SERVER_PORT);
                    let datagram = &out[..length];
                    match pcp::Request::parse(datagram) {
                        Ok(request) => spoken.pcp.push(request),
                        Err(_) => spoken
                            .nat_pmp
                            .push(nat_pmp::Request::parse(datagram).unwrap()),
                    }
                }
                Output::Ask(ask) => spoken.asks.push(ask),
                Output::Tell(fact) => spoken.facts.push(fact),
                Output::Wait(until) => return (spoken, until),
            }
        }
        panic!("it never waits");
    }

    /// Sleeps until the machine wakes; returns what it says then, and how long that was.
    fn sleep(&mut self) -> (Spoken, Duration) {
        let (_, until) = self.drain();
        assert_ne!(until, Instant::NEVER, "it sleeps for ever");
        let slept = until.saturating_since(self.now);
        self.now = until.max(self.now);
        self.mapper.handle_timeout(self.now);
        (self.drain().0, slept)
    }

    /// Sleeps until `found` is in what is said.
    fn sleep_until<T>(&mut self, found: impl Fn(&Spoken) -> Option<T>) -> (T, Duration) {
        let begun = self.now;
        for _ in 0..100 {
            let (spoken, _) = self.sleep();
            if let Some(it) = found(&spoken) {
                return (it, self.now.saturating_since(begun));
            }
        }
        panic!("it never comes");
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.after(Duration::from_secs(seconds));
    }

    fn answer_pcp(&mut self, response: &pcp::Response) -> Vec<Fact> {
        let mut out = [0; MAX_BYTES];
        let length = response.encode(&mut out).unwrap();
        self.mapper
            .handle_datagram(gateway(), &out[..length], self.now);
        self.drain().0.facts
    }

    fn answer_nat_pmp(&mut self, epoch_s: u32, answer: Answer) -> Vec<Fact> {
        let response = nat_pmp::Response {
            result: nat_pmp::ResultCode::Success,
            epoch_s,
            answer,
        };
        let mut out = [0; MAX_BYTES];
        let length = response.encode(&mut out).unwrap();
        self.mapper
            .handle_datagram(gateway(), &out[..length], self.now);
        self.drain().0.facts
    }

    fn refuse_version(&mut self) -> Spoken {
        let refusal = [0, 129, 0, 1, 0, 0, 0, 9];
        self.mapper.handle_datagram(gateway(), &refusal, self.now);
        self.drain().0
    }

    fn pcp_request(&mut self) -> pcp::Request {
        self.drain().0.pcp[0]
    }

    fn held_by_pcp(lifetime_s: u32) -> Self {
        let mut lab = Self::new();
        let request = lab.pcp_request();
        let facts = lab.answer_pcp(&given(&request, OUTSIDE, lifetime_s, 1000));
        assert!(matches!(facts[..], [Fact::Mapped(_)]));
        lab
    }

    fn held_by_nat_pmp() -> Self {
        let mut lab = Self::new();
        lab.drain();
        lab.refuse_version();
        lab.answer_nat_pmp(
            1000,
            Answer::ExternalAddress(Ipv4Addr::new(198, 51, 100, 7)),
        );
        let facts = lab.answer_nat_pmp(1000, Answer::Map(nat_pmp_map(7200)));
        assert!(matches!(facts[..], [Fact::Mapped(_)]));
        lab
    }
}

fn given(request: &pcp::Request, external: &str, lifetime_s: u32, epoch_s: u32) -> pcp::Response {
    let pcp::Operation::Map(mut map) = request.operation else {
        panic!("no mapping is asked for");
    };
    map.external = external.parse().unwrap();
    pcp::Response {
        result: pcp::ResultCode::Success,
        lifetime_s,
        epoch_s,
        operation: pcp::Operation::Map(map),
    }
}

fn announced(epoch_s: u32) -> pcp::Response {
    pcp::Response {
        result: pcp::ResultCode::Success,
        lifetime_s: 0,
        epoch_s,
        operation: pcp::Operation::Announce,
    }
}

fn nat_pmp_map(lifetime_s: u32) -> nat_pmp::Map {
    nat_pmp::Map {
        transport: Transport::Udp,
        internal_port: 51820,
        external_port: 4660,
        lifetime_s,
    }
}

fn map_of(request: &pcp::Request) -> pcp::Map {
    match request.operation {
        pcp::Operation::Map(map) => map,
        _ => panic!("no mapping is asked for"),
    }
}
