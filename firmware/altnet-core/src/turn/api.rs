//! The words a TURN client is spoken to with.

use core::net::SocketAddr;

use altnet_wire::time::{Duration, Instant};

/// What lies under the datagrams to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP: what is lost is repeated.
    Datagram,
    /// TCP or TLS: nothing is lost, and ends are found by [`altnet_wire::stun::stream`].
    Stream,
}

/// Which kind of address peers are to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4, as servers give unless they are asked.
    V4,
    /// IPv6.
    V6,
}

/// What a driver decides about a client before it starts.
#[derive(Clone, Copy, Debug)]
pub struct TurnConfig {
    /// Where the server is.
    pub server: SocketAddr,
    /// What carries datagrams there.
    pub transport: Transport,
    /// Which kind of address is asked for.
    pub family: Family,
    /// How long an allocation is to last, in seconds; the server decides.
    pub lifetime_s: u32,
    /// Peers at once; 4096 at most.
    pub peers: u16,
}

impl TurnConfig {
    /// A client over UDP as a gateway uses it.
    pub const fn new(server: SocketAddr) -> Self {
        Self {
            server,
            transport: Transport::Datagram,
            family: Family::V4,
            // What a server gives by default (section 3.2).
            lifetime_s: 600,
            peers: 64,
        }
    }
}

/// Why there is no allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnFailure {
    /// Nobody answered.
    #[error("the TURN server doesn't answer")]
    Unreachable,
    /// The server doesn't take the username and password.
    #[error("the TURN server doesn't take this username and password")]
    Unauthorized,
    /// Answers came, and none was signed by somebody who knows the password.
    #[error("answers of the TURN server aren't signed with this password")]
    Forged,
    /// The server said no; the numbers are RFC 8656 section 19's.
    #[error("the TURN server refuses with error {code}")]
    Refused {
        /// 300 to 699.
        code: u16,
    },
    /// The server says that another one should be asked.
    #[error("the TURN server says to ask {server}")]
    Elsewhere {
        /// That one.
        server: SocketAddr,
    },
    /// The server's answer lacks something, or asks for something that this client can't do.
    #[error("the TURN server's answer can't be used")]
    Unusable,
    /// The server no longer has the allocation: it restarted, or the client's address changed.
    #[error("the TURN server no longer has the allocation")]
    Lost,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TurnEvent {
    /// The server relays.
    Allocated {
        /// What peers send to.
        relayed: SocketAddr,
        /// How the server sees this client.
        mapped: SocketAddr,
        /// How long it does so, unless renewed, as it will be.
        lifetime: Duration,
    },
    /// It doesn't, or no longer.
    Failed {
        /// For this reason.
        why: TurnFailure,
    },
    /// It doesn't let this peer through; it is asked again after some minutes.
    PeerRefused {
        /// Whom.
        peer: SocketAddr,
        /// RFC 8656 section 19's.
        code: u16,
    },
    /// [`super::TurnClient::close`] is done.
    Closed,
}

/// What a driver is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnOutput {
    /// Send the frame's datagram.
    Send {
        /// To the server.
        to: SocketAddr,
    },
    /// Know this.
    Tell(TurnEvent),
    /// Sleep until then, or until there is input.
    Wait(Instant),
}

/// Why a datagram isn't sent. The frame's contents are unspecified then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TurnRefused {
    /// There is no allocation now.
    #[error("there is no TURN allocation")]
    NoAllocation,
    /// The peer wasn't permitted, or the server hasn't granted it yet.
    #[error("the TURN server doesn't let this peer through yet")]
    NotPermitted,
    /// It has no room for the header.
    #[error("no room for a TURN header")]
    NoRoom,
}
