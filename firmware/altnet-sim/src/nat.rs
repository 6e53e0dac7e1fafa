//! NATs and firewalls by their behaviour (RFC 4787).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use altnet_wire::time::{Duration, Instant};

/// The lowest port of a mapping, and how many there are from it on.
const FIRST_PORT: u16 = 1024;
const PORT_COUNT: u64 = 65_536 - FIRST_PORT as u64;

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

/// Which port a new mapping gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The one after the last mapping's.
    Sequential,
    /// Any that is free.
    Random,
    /// Far from the last mapping's, so that nobody meets by guessing the next one.
    Apart,
}

/// A kind of NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How mappings are shared.
    pub mapping: Dependent,
    /// Who may answer.
    pub filtering: Dependent,
    /// Which ports mappings get.
    pub ports: Ports,
    /// Whether those inside reach each other by their mappings (RFC 4787 section 6).
    pub hairpins: bool,
    /// Whether it translates; if not, it is a firewall.
    pub translates: bool,
    /// Mappings that one address inside may have at a time.
    pub quota: usize,
    /// How long an idle mapping lasts.
    pub lasts: Duration,
}

impl Kind {
    /// Anybody may send to a mapping: "full cone".
    pub const FULL_CONE: Self = Self::new(Dependent::Endpoint, Dependent::Endpoint);
    /// Whoever was written to may answer, from any of its ports.
    pub const ADDRESS_RESTRICTED: Self = Self::new(Dependent::Endpoint, Dependent::Address);
    /// What most home routers are.
    pub const PORT_RESTRICTED: Self = Self::new(Dependent::Endpoint, Dependent::AddressAndPort);
    /// A new port for each destination, far from the last.
    pub const SYMMETRIC: Self = Self::new(Dependent::AddressAndPort, Dependent::AddressAndPort);
    /// A new port for each destination: the next.
    pub const SYMMETRIC_SEQUENTIAL: Self = Self {
        ports: Ports::Sequential,
        ..Self::SYMMETRIC
    };
    /// A new port for each destination: any.
    pub const SYMMETRIC_RANDOM: Self = Self {
        ports: Ports::Random,
        ..Self::SYMMETRIC
    };
    /// No translation; only who was written to may answer.
    pub const FIREWALL: Self = Self {
        translates: false,
        ..Self::PORT_RESTRICTED
    };

    const fn new(mapping: Dependent, filtering: Dependent) -> Self {
        Self {
            mapping,
            filtering,
            ports: Ports::Apart,
            hairpins: false,
            translates: true,
            quota: usize::MAX,
            lasts: Duration::from_secs(60),
        }
    }

    /// The same, whose idle mappings last so long.
    pub const fn lasting(self, lasts: Duration) -> Self {
        Self { lasts, ..self }
    }
}

/// A NAT with one public address, or a firewall.
#[derive(Debug)]
pub struct Nat {
    kind: Kind,
    public: IpAddr,
    next_port: u16,
    chance: u64,
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), Mapping>,
    /// What is mapped at each port.
    ports: BTreeMap<u16, (SocketAddr, Option<SocketAddr>)>,
    forwards: BTreeMap<u16, Forward>,
}

/// A port that somebody inside asked for.
#[derive(Debug)]
struct Forward {
    inside: SocketAddr,
    heard: BTreeSet<SocketAddr>,
}

#[derive(Debug)]
struct Mapping {
    outside: SocketAddr,
    sent_to: BTreeSet<SocketAddr>,
    used: Instant,
}

impl Nat {
    /// A NAT of this kind at this public address. The same seed gives the same ports.
    pub fn new(kind: Kind, public: IpAddr, seed: u64) -> Self {
        Self {
            kind,
            public,
            next_port: 20_000,
            chance: seed | 1,
            mappings: BTreeMap::new(),
            ports: BTreeMap::new(),
            forwards: BTreeMap::new(),
        }
    }

    /// Lets everybody in to `inside` at `port`, as after a request by PCP.
    pub fn forward(&mut self, port: u16, inside: SocketAddr) -> SocketAddr {
        let heard = BTreeSet::new();
        self.forwards.insert(port, Forward { inside, heard });
        SocketAddr::new(self.public, port)
    }

    /// Forgets every mapping and goes on at another address: a reboot, or a new lease.
    pub fn renumber(&mut self, public: IpAddr) {
        self.public = public;
        self.mappings.clear();
        self.ports.clear();
        self.forwards.clear();
    }

    /// Its public address; a firewall has none.
    pub fn public(&self) -> Option<IpAddr> {
        self.kind.translates.then_some(self.public)
    }

    /// Whether those inside reach each other by their mappings.
    pub const fn hairpins(&self) -> bool {
        self.kind.hairpins
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// How the outside sees a datagram from `inside` to `to`; nothing if `inside` has as many
    /// mappings as it may.
    pub fn outbound(
        &mut self,
        inside: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        // What came in by a port that was asked for is answered from it.
        let mut forwards = self.forwards.iter();
        if let Some((port, _)) = forwards.find(|(_, f)| f.inside == inside && f.heard.contains(&to))
        {
            return Some(SocketAddr::new(self.public, *port));
        }
        let lasts = self.kind.lasts;
        self.mappings
            .retain(|_, mapping| now.saturating_since(mapping.used) < lasts);
        let mappings = &self.mappings;
        self.ports.retain(|_, key| mappings.contains_key(key));
        let key = match self.kind.mapping {
            Dependent::Endpoint => None,
            Dependent::Address => Some(SocketAddr::new(to.ip(), 0)),
            Dependent::AddressAndPort => Some(to),
        };
        let key = (inside, key);
        if !self.mappings.contains_key(&key) {
            let own = self.mappings.keys().filter(|(i, _)| i.ip() == inside.ip());
            if own.count() >= self.kind.quota {
                return None;
            }
            let outside = if self.kind.translates {
                let port = self.free_port();
                self.ports.insert(port, key);
                SocketAddr::new(self.public, port)
            } else {
                inside
            };
            let mapping = Mapping {
                outside,
                sent_to: BTreeSet::new(),
                used: now,
            };
            self.mappings.insert(key, mapping);
        }
        let mapping = self.mappings.get_mut(&key)?;
        mapping.used = now;
        mapping.sent_to.insert(to);
        Some(mapping.outside)
    }

    fn free_port(&mut self) -> u16 {
        loop {
            let further = match self.kind.ports {
                Ports::Sequential => 1,
                Ports::Apart => 977,
                Ports::Random => self.random() % PORT_COUNT,
            };
            let place = (u64::from(self.next_port - FIRST_PORT) + further) % PORT_COUNT;
            self.next_port = FIRST_PORT + place as u16;
            if !self.ports.contains_key(&self.next_port) {
                return self.next_port;
            }
        }
    }

    fn random(&mut self) -> u64 {
        // xorshift64* (Vigna 2016).
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    /// Where inside a datagram from `from` to `to` goes, if it is let in.
    pub fn inbound(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        now: Instant,
    ) -> Option<SocketAddr> {
        if let Some(forward) = self.forwards.get_mut(&to.port())
            && self.kind.translates
        {
            forward.heard.insert(from);
            return Some(forward.inside);
        }
        let (filtering, lasts) = (self.kind.filtering, self.kind.lasts);
        let firewalled = (to, None);
        let key = match self.kind.translates {
            true => self.ports.get(&to.port())?,
            false => &firewalled,
        };
        let mapping = self.mappings.get(key)?;
        let allowed = match filtering {
            Dependent::Endpoint => true,
            Dependent::Address => mapping.sent_to.iter().any(|to| to.ip() == from.ip()),
            Dependent::AddressAndPort => mapping.sent_to.contains(&from),
        };
        (allowed && now.saturating_since(mapping.used) < lasts).then_some(key.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn nat(kind: Kind) -> Nat {
        Nat::new(kind, "203.0.113.1".parse().unwrap(), 7)
    }

    /// Sends from inside to `a`, then asks whether `a`, another port of `a` and `b` get in.
    fn check(kind: Kind, expected: [bool; 3], same_port: bool) {
        let mut nat = nat(kind);
        let inside = address("192.168.1.2:51820");
        let (a, b) = (address("198.51.100.1:1"), address("198.51.100.2:1"));
        let seen = nat.outbound(inside, a, Instant::ZERO).unwrap();
        let inbound = [a, address("198.51.100.1:2"), b]
            .map(|from| nat.inbound(from, seen, Instant::ZERO) == Some(inside));
        assert_eq!(inbound, expected);
        let again = nat.outbound(inside, b, Instant::ZERO).unwrap();
        assert_eq!(again == seen, same_port);
    }

    #[test]
    fn a_forwarded_port_lets_everybody_in_and_answers_from_there() {
        let mut nat = nat(Kind::SYMMETRIC);
        let (inside, other) = (address("192.168.1.2:51820"), address("198.51.100.1:1"));
        let outside = nat.forward(4660, inside);
        assert_eq!(outside, address("203.0.113.1:4660"));
        assert_ne!(nat.outbound(inside, other, Instant::ZERO), Some(outside));
        assert_eq!(nat.inbound(other, outside, Instant::ZERO), Some(inside));
        assert_eq!(nat.outbound(inside, other, Instant::ZERO), Some(outside));
    }

    #[test]
    fn each_kind_maps_and_filters_as_rfc_4787_says() {
        check(Kind::FULL_CONE, [true, true, true], true);
        check(Kind::ADDRESS_RESTRICTED, [true, true, false], true);
        check(Kind::PORT_RESTRICTED, [true, false, false], true);
        check(Kind::SYMMETRIC, [true, false, false], false);
        check(Kind::SYMMETRIC_RANDOM, [true, false, false], false);
        check(Kind::FIREWALL, [true, false, false], true);
    }

    #[test]
    fn a_firewall_changes_no_address_and_a_quota_ends_new_mappings() {
        let inside = address("[2001:db8:1::2]:51820");
        let to = address("[2001:db8:2::2]:51820");
        let seen = nat(Kind::FIREWALL).outbound(inside, to, Instant::ZERO);
        assert_eq!(seen, Some(inside));
        let kind = Kind {
            quota: 3,
            ..Kind::SYMMETRIC_SEQUENTIAL
        };
        let mut nat = nat(kind);
        let inside = address("192.168.1.2:51820");
        let seen = (1..6).map(|port| {
            let to = SocketAddr::new([198, 51, 100, 1].into(), port);
            let seen = nat.outbound(inside, to, Instant::ZERO);
            seen.map(|seen| seen.port())
        });
        let seen: Vec<Option<u16>> = seen.collect();
        assert_eq!(seen, [Some(20_001), Some(20_002), Some(20_003), None, None]);
    }

    #[test]
    fn an_idle_mapping_ends() {
        let mut nat = nat(Kind::PORT_RESTRICTED);
        let (inside, to) = (address("192.168.1.2:1"), address("198.51.100.1:1"));
        let seen = nat.outbound(inside, to, Instant::ZERO).unwrap();
        let later = Instant::ZERO.after(Duration::from_secs(60));
        assert_eq!(nat.inbound(to, seen, later), None);
        assert_ne!(nat.outbound(inside, to, later), Some(seen));
    }
}
