//! Asking a router for a port: PCP and its predecessor NAT-PMP.
//!
//! Both speak over UDP to one port of the router and are told apart by the first byte, which is
//! the version: 0 is NAT-PMP, 2 is PCP. In: bytes. Out: [`pcp`] and [`nat_pmp`] messages, both
//! ways, so that a test can be the router. Any bytes are refused or read.
//!
//! Deliberately absent: when to ask, whom to believe, what follows (`altnet_core::portmap`);
//! PEER requests and the options THIRD_PARTY and FILTER, which a gateway that asks for its own
//! port has no use for.
//!
//! Source: RFC 6887 (PCP), RFC 6886 (NAT-PMP).

pub mod nat_pmp;
pub mod pcp;

/// The router's port (RFC 6887 section 19.1, RFC 6886 section 3.1).
pub const SERVER_PORT: u16 = 5351;
/// The port at which routers announce to all hosts that they started anew (RFC 6887 section
/// 14.1, RFC 6886 section 3.2.1).
pub const CLIENT_PORT: u16 = 5350;
/// The largest datagram of either (RFC 6887 section 7).
pub const MAX_BYTES: usize = 1100;

/// A datagram that a router sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// By PCP.
    Pcp(pcp::Response),
    /// By NAT-PMP: also how a router that knows nothing newer refuses PCP (RFC 6887 appendix A).
    NatPmp(nat_pmp::Response),
}

/// Why bytes are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadPortmap {
    /// It is too short, too long, or not whole words where it has to be.
    #[error("a port mapping message has a wrong length")]
    Length,
    /// The version is neither PCP's nor NAT-PMP's.
    #[error("a port mapping message has version {found}")]
    Version {
        /// What it says.
        found: u8,
    },
    /// A request where a response belongs, or the other way round.
    #[error("a port mapping message goes the wrong way")]
    Direction,
    /// The operation is unknown.
    #[error("a port mapping message has operation {found}")]
    Operation {
        /// What it says.
        found: u8,
    },
}

impl Response {
    /// Reads a router's datagram.
    ///
    /// # Errors
    /// [`BadPortmap`].
    pub fn parse(datagram: &[u8]) -> Result<Self, BadPortmap> {
        match datagram.first() {
            None => Err(BadPortmap::Length),
            Some(&nat_pmp::VERSION) => nat_pmp::Response::parse(datagram).map(Self::NatPmp),
            Some(_) => pcp::Response::parse(datagram).map(Self::Pcp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        let old = [0, 130, 0, 1, 0, 0, 0, 9];
        assert!(matches!(Response::parse(&old), Ok(Response::NatPmp(_))));
        let mut new = [0; 24];
        new[..2].copy_from_slice(&[2, 0x80]);
        assert!(matches!(Response::parse(&new), Ok(Response::Pcp(_))));
        assert_eq!(Response::parse(&[]), Err(BadPortmap::Length));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
            let _ = Response::parse(&bytes);
            let _ = pcp::Request::parse(&bytes);
            let _ = nat_pmp::Request::parse(&bytes);
        }
    }
}
