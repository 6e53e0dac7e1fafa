//! Why there is a mapped port or none, in words a person can act on.

use core::fmt;

use super::{Mapping, is_public};

/// Why the port is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// There is no default gateway.
    NoGateway,
    /// The gateway is being asked.
    Asking,
    /// The gateway keeps a port.
    Mapped,
    /// The gateway keeps a port, but has no public address.
    DoubleNat,
    /// The gateway answers none of the protocols.
    Silent,
    /// Nothing is translated here, and the gateway answers no PCP.
    NoPcp,
    /// The gateway's owner does not want it.
    NotAuthorized,
    /// No port is free, or this host has as many as it may.
    NoResources,
    /// The gateway has no address outside.
    NoAddress,
    /// There is a NAT between us and the gateway.
    Mismatch,
    /// The gateway doesn't do what was asked.
    Unsupported,
    /// The gateway did not renew it in time.
    Expired,
    /// The gateway or our own address is another.
    Moved,
    /// It was given back.
    Closed,
}

impl Why {
    pub(super) const fn of(mapping: &Mapping) -> Self {
        if is_public(mapping.external.ip()) {
            Self::Mapped
        } else {
            Self::DoubleNat
        }
    }

    /// A stable word for programs.
    pub const fn id(self) -> &'static str {
        match self {
            Self::NoGateway => "no-gateway",
            Self::Asking => "asking",
            Self::Mapped => "mapped",
            Self::DoubleNat => "double-nat",
            Self::Silent => "silent",
            Self::NoPcp => "no-pcp",
            Self::NotAuthorized => "not-authorized",
            Self::NoResources => "no-resources",
            Self::NoAddress => "no-address",
            Self::Mismatch => "address-mismatch",
            Self::Unsupported => "unsupported",
            Self::Expired => "expired",
            Self::Moved => "moved",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoGateway => "there is no default gateway",
            Self::Asking => "the router is being asked",
            Self::Mapped => "the router keeps a port open",
            Self::DoubleNat => {
                "the router keeps a port open but has no public address itself: another NAT is before it"
            }
            Self::Silent => {
                "the router answers neither PCP nor NAT-PMP nor UPnP; they may be switched off there"
            }
            Self::NoPcp => {
                "this machine has a public address itself; the router answers no PCP, and may have a firewall"
            }
            Self::NotAuthorized => "the router's settings don't allow it",
            Self::NoResources => "the router has no port left for this machine",
            Self::NoAddress => "the router has no address outside; it may be offline",
            Self::Mismatch => "another NAT is between this machine and the router it asks",
            Self::Unsupported => "the router doesn't do what was asked",
            Self::Expired => "the router did not renew the port in time",
            Self::Moved => "the router or this machine's address is another now",
            Self::Closed => "it was given back",
        })
    }
}
