//! Lines, the NATs before them, and the internet between: where a datagram goes, and what it looks
//! like there. Knows addresses and moments, no bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use altnet_wire::time::Instant;

use crate::nat::{Kind, Nat};

/// The well-known prefix of NAT64 (RFC 6052 section 2.1).
pub const PREF64: Ipv6Addr = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0);

/// A NAT or firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatId(usize);

/// A line to the internet: an address of a host's.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// Whose it is.
    pub host: usize,
    /// The address.
    pub address: IpAddr,
    /// What is before it.
    pub nat: Option<NatId>,
    /// What translates IPv6 to [`PREF64`] into IPv4, for one that has no IPv4.
    pub nat64: Option<NatId>,
}

/// A datagram between NATs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// From where, as those it passes see it.
    pub from: SocketAddr,
    /// To where.
    pub to: SocketAddr,
    /// Behind which NAT; on the internet if none.
    pub realm: Option<NatId>,
}

/// Every line and NAT.
#[derive(Debug, Default)]
pub struct Net {
    nats: Vec<Nat>,
    /// Behind which other NAT each is.
    parents: Vec<Option<NatId>>,
    lines: Vec<Line>,
}

impl Net {
    /// Puts a NAT behind another, or on the internet.
    pub fn nat(&mut self, kind: Kind, public: IpAddr, parent: Option<NatId>, seed: u64) -> NatId {
        self.nats.push(Nat::new(kind, public, seed));
        self.parents.push(parent);
        NatId(self.nats.len() - 1)
    }

    /// A NAT.
    pub fn nat_mut(&mut self, nat: NatId) -> &mut Nat {
        &mut self.nats[nat.0]
    }

    /// How many mappings a NAT has.
    pub fn mappings(&self, nat: NatId) -> usize {
        self.nats[nat.0].len()
    }

    /// Connects a host once more.
    pub fn plug_in(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Takes the first line of a host away.
    pub fn unplug(&mut self, host: usize) {
        if let Some(at) = self.lines.iter().position(|line| line.host == host) {
            self.lines.remove(at);
        }
    }

    /// Takes every line of a host away.
    pub fn unplug_all(&mut self, host: usize) {
        self.lines.retain(|line| line.host != host);
    }

    /// The lines of a host.
    pub fn lines(&self, host: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.host == host)
    }

    /// The lines at an address that the internet sees.
    pub fn lines_at(&self, address: IpAddr) -> impl Iterator<Item = &Line> {
        let mut plain = self.lines.iter();
        std::iter::from_fn(move || {
            plain.find(|line| line.address == address && self.is_plain(line))
        })
    }

    /// Whether no NAT hides a line's address.
    pub fn is_plain(&self, line: &Line) -> bool {
        line.nat.is_none_or(|nat| self.is_firewall(nat))
    }

    fn is_firewall(&self, nat: NatId) -> bool {
        self.nats[nat.0].public().is_none()
    }

    /// A host sends from one of its ports; nothing if it can't get there.
    pub fn depart(
        &mut self,
        host: usize,
        port: u16,
        mut to: SocketAddr,
        now: Instant,
    ) -> Option<Passing> {
        let mut lines = self.lines.iter().filter(|line| line.host == host);
        let line = *lines.find(|line| line.address.is_ipv4() == to.is_ipv4())?;
        let mut from = SocketAddr::new(line.address, port);
        let mut realm = line.nat;
        if let (Some(nat64), Some(v4)) = (line.nat64, embedded(to)) {
            to = v4;
            realm = Some(nat64);
        }
        while let Some(nat) = realm {
            let mut lines = self.lines.iter();
            let is_here = lines.any(|line| line.nat == realm && line.address == to.ip());
            if is_here && !self.is_firewall(nat) {
                break;
            }
            let is_own = self.nats[nat.0].public() == Some(to.ip());
            if is_own && !self.nats[nat.0].hairpins() {
                return None;
            }
            from = self.nats[nat.0].outbound(from, to, now)?;
            realm = self.parents[nat.0];
            if is_own {
                break;
            }
        }
        Some(Passing { from, to, realm })
    }

    /// The line that a datagram reaches, at which of its ports, and from where it seems to come;
    /// nothing if nobody is there or it isn't let in.
    pub fn arrive(&mut self, passing: Passing, now: Instant) -> Option<(Line, u16, SocketAddr)> {
        let Passing {
            mut from,
            mut to,
            mut realm,
        } = passing;
        while let Some(at) = self.before(realm, to.ip()) {
            to = self.nats[at].inbound(from, to, now)?;
            realm = Some(NatId(at));
        }
        let mut lines = self.lines.iter();
        let line = *lines.find(|line| line.address == to.ip() && self.leads(line, realm))?;
        if let Some(nat) = line.nat
            && self.is_firewall(nat)
            && realm.is_none()
        {
            // It hides nothing, but lets not everybody in.
            self.nats[nat.0].inbound(from, to, now)?;
        }
        if let IpAddr::V4(v4) = from.ip()
            && line.nat64.is_some()
            && line.nat64 == realm
        {
            from.set_ip(embed(v4).into());
        }
        Some((line, to.port(), from))
    }

    /// The NAT that has an address, as those in `realm` see it.
    fn before(&self, realm: Option<NatId>, address: IpAddr) -> Option<usize> {
        let all = self.nats.iter().zip(&self.parents);
        let mut all = all.enumerate();
        let found = all.find(|(_, (nat, at))| **at == realm && nat.public() == Some(address));
        found.map(|(at, _)| at)
    }

    /// Whether what is in `realm` gets to a line.
    fn leads(&self, line: &Line, realm: Option<NatId>) -> bool {
        line.nat == realm
            || (realm.is_none() && line.nat.is_some_and(|nat| self.is_firewall(nat)))
            || (realm.is_some() && line.nat64 == realm)
    }
}

/// An IPv4 address as those behind a NAT64 write it (RFC 6052 section 2.2).
pub fn embed(v4: Ipv4Addr) -> Ipv6Addr {
    (PREF64.to_bits() | u128::from(v4.to_bits())).into()
}

/// The IPv4 address in one that a NAT64 translates.
fn embedded(to: SocketAddr) -> Option<SocketAddr> {
    let IpAddr::V6(v6) = to.ip() else {
        return None;
    };
    let low = (v6.to_bits() & u128::from(u32::MAX)) as u32;
    (v6.to_bits() >> 32 == PREF64.to_bits() >> 32)
        .then(|| SocketAddr::new(Ipv4Addr::from(low).into(), to.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_leaves_through_two_nats_is_answered_through_both() {
        let mut net = Net::default();
        let public = "203.0.113.1".parse().unwrap();
        let carrier = net.nat(Kind::SYMMETRIC_RANDOM, public, None, 3);
        let inner = "100.64.0.2".parse().unwrap();
        let home = net.nat(Kind::PORT_RESTRICTED, inner, Some(carrier), 5);
        for (host, at, nat) in [(0, "192.168.0.2", Some(home)), (1, "198.51.100.1", None)] {
            let address = at.parse().unwrap();
            net.plug_in(Line {
                host,
                address,
                nat,
                nat64: None,
            });
        }
        let to = address("198.51.100.1:80");
        let out = net.depart(0, 4000, to, Instant::ZERO).unwrap();
        assert_eq!((out.from.ip(), out.to, out.realm), (public, to, None));
        let (line, port, from) = net.arrive(out, Instant::ZERO).unwrap();
        assert_eq!((line.host, port, from), (1, 80, out.from));
        let back = net.depart(1, 80, from, Instant::ZERO).unwrap();
        let (line, port, seen) = net.arrive(back, Instant::ZERO).unwrap();
        assert_eq!((line.host, port, seen), (0, 4000, to));
        let stranger = Passing {
            from: address("198.51.100.1:81"),
            ..back
        };
        assert!(net.arrive(stranger, Instant::ZERO).is_none());
    }

    #[test]
    fn a_nat64_gives_ipv4_a_face_of_ipv6() {
        let mut net = Net::default();
        let nat64 = net.nat(
            Kind::PORT_RESTRICTED,
            "203.0.113.1".parse().unwrap(),
            None,
            3,
        );
        let wall = net.nat(Kind::FIREWALL, "203.0.113.1".parse().unwrap(), None, 3);
        let v6 = "2001:db8::2".parse().unwrap();
        net.plug_in(Line {
            host: 0,
            address: v6,
            nat: Some(wall),
            nat64: Some(nat64),
        });
        let v4 = "198.51.100.1".parse().unwrap();
        net.plug_in(Line {
            host: 1,
            address: v4,
            nat: None,
            nat64: None,
        });
        let out = net.depart(0, 4000, address("[64:ff9b::c633:6401]:80"), Instant::ZERO);
        let (line, _, from) = net.arrive(out.unwrap(), Instant::ZERO).unwrap();
        assert_eq!(
            (line.host, from.ip()),
            (1, "203.0.113.1".parse::<IpAddr>().unwrap())
        );
        let back = net.depart(1, 80, from, Instant::ZERO).unwrap();
        let (line, port, seen) = net.arrive(back, Instant::ZERO).unwrap();
        assert_eq!(
            (line.host, port, seen),
            (0, 4000, address("[64:ff9b::c633:6401]:80"))
        );
        // And IPv6 itself passes the firewall once it was asked.
        let peer = Line {
            host: 2,
            address: "2001:db8:1::2".parse().unwrap(),
            nat: None,
            nat64: None,
        };
        net.plug_in(peer);
        let knock = net
            .depart(2, 9, address("[2001:db8::2]:4000"), Instant::ZERO)
            .unwrap();
        assert!(net.arrive(knock, Instant::ZERO).is_none());
        net.depart(0, 4000, address("[2001:db8:1::2]:9"), Instant::ZERO)
            .unwrap();
        assert!(net.arrive(knock, Instant::ZERO).is_some());
    }
}
