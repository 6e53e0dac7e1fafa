//! Where a datagram came from or goes to.

use core::fmt;
use core::net::SocketAddr;

use crate::id::NodeId;

/// One of this node's UDP ports, as the driver numbers them.
///
/// Behind a NAT with endpoint-dependent mapping (RFC 4787 section 4.1) each further port has a
/// mapping of its own even toward one destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

impl PortId {
    /// The port that everything comes to.
    pub const MAIN: Self = Self(0);
    /// The same port, for a datagram that IP may cut, here and on its way: who it is for takes it in no
    /// other pieces (ADR 0017).
    pub const FRAGMENTS: Self = Self(u16::MAX);
}

/// One way for a datagram to reach a node.
///
/// A relayed endpoint names the relay by its own [`NodeId`], so that it stays the same
/// when the relay's address changes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// A UDP address and port that is sent to as it is.
    Direct(SocketAddr),
    /// The node `node`, by way of the relay `relay`.
    Relayed {
        /// The relay that forwards.
        relay: NodeId,
        /// The node at the other end.
        node: NodeId,
    },
}

impl Endpoint {
    /// The socket address of a direct endpoint.
    pub const fn direct(&self) -> Option<SocketAddr> {
        match self {
            Self::Direct(address) => Some(*address),
            Self::Relayed { .. } => None,
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(address) => write!(f, "{address}"),
            Self::Relayed { relay, node } => write!(f, "{node} via relay {relay}"),
        }
    }
}
