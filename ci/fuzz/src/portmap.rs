//! Port mapping: what a router sends is refused or read, and what was read says itself again.

use std::net::Ipv4Addr;

use altnet_wire::portmap::nat_pmp::{self, Answer, Transport};
use altnet_wire::portmap::pcp::{self, Map, Nonce, Operation};
use altnet_wire::portmap::{MAX_BYTES, Response};

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

/// One message of each kind.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    if target != "portmap" {
        return Vec::new();
    }
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
