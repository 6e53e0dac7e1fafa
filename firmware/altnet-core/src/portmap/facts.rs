//! What goes into a port mapper and what comes out of it, beside datagrams.

use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use altnet_wire::time::Instant;

use super::Why;

/// How a port was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Port Control Protocol.
    Pcp,
    /// NAT Port Mapping Protocol.
    NatPmp,
    /// Universal Plug and Play, an Internet Gateway Device.
    Igd,
}

impl Protocol {
    /// A stable word for programs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Pcp => "pcp",
            Self::NatPmp => "nat-pmp",
            Self::Igd => "upnp-igd",
        }
    }
}

/// Between what and what a port is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The default gateway.
    pub gateway: IpAddr,
    /// The index of the interface it is on; link-local addresses mean nothing without.
    pub interface: u32,
    /// Our address on the way to it, and the port that is to be reached. Of the gateway's family.
    pub internal: SocketAddr,
}

/// A port that the gateway keeps for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where it is reached.
    pub external: SocketAddr,
    /// Where it leads.
    pub internal: SocketAddr,
    /// How it was obtained.
    pub by: Protocol,
    /// When it ends unless it is renewed.
    pub until: Instant,
}

/// What is to be done over HTTP. Its end is said by `PortMapper::handle_igd` with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Which one: a later one replaces it.
    pub id: u32,
    /// The only address to find a device at, and to speak with.
    pub gateway: Ipv4Addr,
    /// What.
    pub what: IgdAsk,
}

/// The part of an [`Ask`] that says what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgdAsk {
    /// A UDP port.
    Map {
        /// Where it is to lead.
        internal: SocketAddrV4,
        /// Which one would be good.
        external_port: u16,
        /// For how long, in seconds.
        lifetime_s: u32,
    },
    /// A UDP port is given back.
    Unmap {
        /// Which.
        external_port: u16,
    },
}

/// What became of an [`Ask`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Mapped.
    Mapped {
        /// Where it is reached.
        external: SocketAddrV4,
        /// For how long, in seconds; 0 until it is given back.
        lifetime_s: u32,
    },
    /// Given back.
    Unmapped,
    /// The device refused.
    Refused(Why),
    /// The gateway is no such device.
    Absent,
}

/// What became of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Reached from outside. Told again at each renewal.
    Mapped(Mapping),
    /// Mapped, but the router has no address outside itself.
    DoubleNat(Mapping),
    /// Not any more.
    Lost(Why),
    /// The gateway said that it started anew. What it keeps of another address family is gone
    /// too ([`super::PortMapper::handle_restart`]).
    Restarted,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send the first `length` bytes of the buffer, from the internal address.
    Send {
        /// To the gateway.
        to: SocketAddr,
        /// How many bytes.
        length: usize,
    },
    /// Do this over HTTP.
    Ask(Ask),
    /// Note this.
    Tell(Fact),
    /// Nothing until then, or until something comes in.
    Wait(Instant),
}
