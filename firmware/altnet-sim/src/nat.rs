//! NATs by their behaviour (RFC 4787).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use altnet_wire::time::{Duration, Instant};

/// On what a mapping, or a filter, depends (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependent {
    /// Not on the other end.
    Endpoint,
    /// On its address.
    Address,
    /// On its address and port.
    AddressAndPort,
}

/// A kind of NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How mappings are shared.
    pub mapping: Dependent,
    /// Who may answer.
    pub filtering: Dependent,
    /// How long an idle mapping lasts.
    pub lasts: Duration,
}

impl Kind {
    /// Anybody may send to a mapping: "full cone".
    pub const FULL_CONE: Self = Self::new(Dependent::Endpoint, Dependent::Endpoint);
    /// What most home routers are.
    pub const PORT_RESTRICTED: Self = Self::new(Dependent::Endpoint, Dependent::AddressAndPort);
    /// A new port for each destination.
    pub const SYMMETRIC: Self = Self::new(Dependent::AddressAndPort, Dependent::AddressAndPort);

    const fn new(mapping: Dependent, filtering: Dependent) -> Self {
        Self {
            mapping,
            filtering,
            lasts: Duration::from_secs(60),
        }
    }
}

/// A NAT with one public address.
#[derive(Debug)]
pub struct Nat {
    kind: Kind,
    public: IpAddr,
    next_port: u16,
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), Mapping>,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    sent_to: BTreeSet<SocketAddr>,
    used: Instant,
}

impl Nat {
    /// A NAT of this kind at this public address.
    pub fn new(kind: Kind, public: IpAddr) -> Self {
        Self {
            kind,
            public,
            next_port: 20_000,
            mappings: BTreeMap::new(),
        }
    }

    /// Forgets every mapping and goes on at another address: a reboot, or a new lease.
    pub fn renumber(&mut self, public: IpAddr) {
        self.public = public;
        self.mappings.clear();
    }

    /// Its public address.
    pub const fn public(&self) -> IpAddr {
        self.public
    }

    /// How the outside sees a datagram from `inside` to `to`.
    pub fn outbound(&mut self, inside: SocketAddr, to: SocketAddr, now: Instant) -> SocketAddr {
        let lasts = self.kind.lasts;
        self.mappings
            .retain(|_, mapping| now.saturating_since(mapping.used) < lasts);
        let key = match self.kind.mapping {
            Dependent::Endpoint => None,
            Dependent::Address => Some(SocketAddr::new(to.ip(), 0)),
            Dependent::AddressAndPort => Some(to),
        };
        let next_port = &mut self.next_port;
        let mapping = self.mappings.entry((inside, key)).or_insert_with(|| {
            // Far apart, so that nobody meets by guessing the next one.
            *next_port = next_port.wrapping_add(977).max(10_000);
            Mapping {
                port: *next_port,
                sent_to: BTreeSet::new(),
                used: now,
            }
        });
        mapping.used = now;
        mapping.sent_to.insert(to);
        SocketAddr::new(self.public, mapping.port)
    }

    /// Where inside a datagram from `from` to `port` goes, if it is let in.
    pub fn inbound(&mut self, from: SocketAddr, port: u16, now: Instant) -> Option<SocketAddr> {
        let (filtering, lasts) = (self.kind.filtering, self.kind.lasts);
        let ((inside, _), mapping) = self
            .mappings
            .iter()
            .find(|(_, m)| m.port == port && now.saturating_since(m.used) < lasts)?;
        let allowed = match filtering {
            Dependent::Endpoint => true,
            Dependent::Address => mapping.sent_to.iter().any(|to| to.ip() == from.ip()),
            Dependent::AddressAndPort => mapping.sent_to.contains(&from),
        };
        allowed.then_some(*inside)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// Sends from inside to `a`, then asks whether `a`, another port of `a` and `b` get in.
    fn check(kind: Kind, expected: [bool; 3], same_port: bool) {
        let mut nat = Nat::new(kind, "203.0.113.1".parse().unwrap());
        let inside = address("192.168.1.2:51820");
        let (a, b) = (address("198.51.100.1:1"), address("198.51.100.2:1"));
        let seen = nat.outbound(inside, a, Instant::ZERO);
        let inbound = [a, address("198.51.100.1:2"), b]
            .map(|from| nat.inbound(from, seen.port(), Instant::ZERO) == Some(inside));
        assert_eq!(inbound, expected);
        assert_eq!(nat.outbound(inside, b, Instant::ZERO) == seen, same_port);
    }

    #[test]
    fn each_kind_maps_and_filters_as_rfc_4787_says() {
        check(Kind::FULL_CONE, [true, true, true], true);
        check(Kind::PORT_RESTRICTED, [true, false, false], true);
        check(Kind::SYMMETRIC, [true, false, false], false);
    }
}
