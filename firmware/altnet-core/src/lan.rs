//! What a gateway says on its LAN: router advertisements, and ICMPv6 errors for what it
//! can't carry.
//!
//! [`Advertiser`] decides when to advertise and writes the message; [`IcmpErrors`] turns a
//! packet into the error about it, at a bounded rate. Both are fed bytes and time and touch
//! no socket. Checksums: a raw ICMPv6 socket fills in its own; for anything else
//! [`seal`] does.

use core::net::Ipv6Addr;

pub use advertisement::{Mode, Network, Solicitation, SolicitationError};
pub use advertiser::Advertiser;
pub use icmp_error::{ErrorKind, IcmpErrors, NoError};

use crate::ip::{self, Protocol};

pub mod advertisement;
pub mod advertiser;
pub mod icmp_error;
pub mod pref64;

/// All nodes on the link: where advertisements go (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// All routers on the link: where solicitations come in (RFC 4291 section 2.7.1).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The hop limit of every neighbor discovery message, sent and received (RFC 4861 section 6.1).
pub const HOP_LIMIT: u8 = 255;

/// Writes the checksum of an ICMPv6 message that goes from `source` to `destination`.
/// Changes nothing if there are less than 4 bytes.
///
/// Source: RFC 4443 section 2.3.
pub fn seal(source: Ipv6Addr, destination: Ipv6Addr, message: &mut [u8]) {
    if let Some(field) = message.get_mut(2..4) {
        field.fill(0);
    }
    let sum = ip::checksum(source, destination, Protocol::ICMPV6, message);
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
}
