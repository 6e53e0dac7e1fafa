//! Router advertisements written and router solicitations read (RFC 4861 sections 4.1, 4.2).

use core::net::Ipv6Addr;

use altnet_wire::address::Prefix;
use altnet_wire::id::Name;

/// Whether other routers share the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// We are the way to everywhere: router lifetime above zero. Browsers ask for IPv6
    /// addresses only if there is a default route, so what we can't carry is answered with
    /// an error at once.
    OnlyRouter,
    /// Another router is the way to everywhere and we are the way to the network's /48 alone:
    /// router lifetime 0 and a route (RFC 4191).
    BesideRouter,
}

/// What to advertise of a network on a LAN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The site's /64, from which machines make their addresses.
    pub site: Prefix,
    /// The network's /48.
    pub network: Prefix,
    /// Where names are asked for: our own address in `site`.
    pub resolver: Ipv6Addr,
    /// What this home calls the network: `<petname>.alt` is where short names are looked for.
    pub petname: Option<Name>,
}

/// The most bytes an advertisement has: the smallest MTU less an IPv6 header.
pub const MAX_ADVERTISEMENT_BYTES: usize = 1240;

/// Seconds a default or other route holds without another advertisement: three of the
/// longest intervals (RFC 4861 section 6.2.1, AdvDefaultLifetime).
pub const ROUTER_LIFETIME_S: u16 = 1800;
/// Seconds an address may be used for new flows (RFC 9096 section 3.4).
pub const PREFERRED_LIFETIME_S: u32 = 2700;
/// Seconds an address holds (RFC 9096 section 3.4).
pub const VALID_LIFETIME_S: u32 = 5400;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const CURRENT_HOP_LIMIT: u8 = 64;

const SOURCE_LINK_ADDRESS: u8 = 1;
const PREFIX_INFORMATION: u8 = 3;
const ROUTE_INFORMATION: u8 = 24;
const RECURSIVE_DNS_SERVER: u8 = 25;
const DNS_SEARCH_LIST: u8 = 31;
/// On-link, and to make addresses from (RFC 4861 section 4.6.2).
const ON_LINK_AUTONOMOUS: u8 = 0xc0;

/// How long everything about a network holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lifetimes {
    /// Routes, resolver and search list, in seconds.
    pub(super) route_s: u32,
    /// Addresses for new flows, in seconds.
    pub(super) preferred_s: u32,
    /// Addresses, in seconds.
    pub(super) valid_s: u32,
}

impl Lifetimes {
    pub(super) const FULL: Self = Self {
        route_s: ROUTER_LIFETIME_S as u32,
        preferred_s: PREFERRED_LIFETIME_S,
        valid_s: VALID_LIFETIME_S,
    };

    /// Nothing new, and addresses for `valid_s` more seconds.
    pub(super) const fn ending(valid_s: u32) -> Self {
        Self {
            route_s: 0,
            preferred_s: 0,
            valid_s,
        }
    }
}

/// Writes an advertisement option by option. What does not fit is left out.
pub(super) struct Writer<'b> {
    buffer: &'b mut [u8],
    end: usize,
}

impl<'b> Writer<'b> {
    /// Begins an advertisement whose default route holds `router_lifetime_s`, 0 for none. The
    /// checksum is zero. Nothing if `buffer` is too short.
    pub(super) fn new(buffer: &'b mut [u8], router_lifetime_s: u16) -> Option<Self> {
        let header: &mut [u8; 16] = buffer.first_chunk_mut()?;
        *header = [0; 16];
        header[0] = ROUTER_ADVERTISEMENT;
        header[4] = CURRENT_HOP_LIMIT;
        header[6..8].copy_from_slice(&router_lifetime_s.to_be_bytes());
        Some(Self { buffer, end: 16 })
    }

    /// RFC 4861 section 4.6.1.
    pub(super) fn link_address(&mut self, address: [u8; 6]) {
        self.option(SOURCE_LINK_ADDRESS, &[&address]);
    }

    /// All there is to say about a network, holding for `lifetimes`.
    pub(super) fn network(&mut self, network: &Network, lifetimes: Lifetimes) {
        self.prefix(network.site, lifetimes);
        self.route(network.network, lifetimes.route_s);
        self.resolver(network.resolver, lifetimes.route_s);
        if let Some(petname) = &network.petname {
            self.search(petname, lifetimes.route_s);
        }
    }

    /// RFC 4861 section 4.6.2.
    pub(super) fn prefix(&mut self, prefix: Prefix, lifetimes: Lifetimes) {
        self.option(
            PREFIX_INFORMATION,
            &[
                &[prefix.bits(), ON_LINK_AUTONOMOUS],
                &lifetimes.valid_s.to_be_bytes(),
                &lifetimes.preferred_s.to_be_bytes(),
                &[0; 4],
                &prefix.address().octets(),
            ],
        );
    }

    /// RFC 4191 section 2.3, at medium preference: the whole prefix, or its first half if
    /// that is all there is.
    pub(super) fn route(&mut self, prefix: Prefix, lifetime_s: u32) {
        let octets = prefix.address().octets();
        let (half, _) = octets.split_at(8);
        let shown: &[u8] = if prefix.bits() > 64 { &octets } else { half };
        self.option(
            ROUTE_INFORMATION,
            &[&[prefix.bits(), 0], &lifetime_s.to_be_bytes(), shown],
        );
    }

    /// RFC 8106 section 5.1.
    pub(super) fn resolver(&mut self, address: Ipv6Addr, lifetime_s: u32) {
        self.option(
            RECURSIVE_DNS_SERVER,
            &[&[0; 2], &lifetime_s.to_be_bytes(), &address.octets()],
        );
    }

    /// RFC 8106 section 5.2: `<petname>.alt`.
    pub(super) fn search(&mut self, petname: &Name, lifetime_s: u32) {
        let label = petname.as_str().as_bytes();
        self.option(
            DNS_SEARCH_LIST,
            &[
                &[0; 2],
                &lifetime_s.to_be_bytes(),
                // A `Name` has 63 bytes at most.
                &[label.len().min(63) as u8],
                label,
                b"\x03alt\x00",
            ],
        );
    }

    /// The advertisement's length in bytes.
    pub(super) const fn finish(self) -> usize {
        self.end
    }

    /// Writes an option, padded with zeros to a multiple of 8 bytes (RFC 4861 section 4.6).
    fn option(&mut self, kind: u8, parts: &[&[u8]]) {
        let data: usize = parts.iter().map(|part| part.len()).sum();
        let units = (2 + data).div_ceil(8);
        let end = self.end + units * 8;
        let (Some(place), Ok(units)) = (self.buffer.get_mut(self.end..end), u8::try_from(units))
        else {
            return;
        };
        if end > MAX_ADVERTISEMENT_BYTES {
            return;
        }
        place.fill(0);
        let header = [kind, units];
        let bytes = header.iter().chain(parts.iter().copied().flatten());
        for (to, from) in place.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.end = end;
    }
}

/// A machine asks who the routers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Solicitation {
    source: Ipv6Addr,
}

/// The bytes are no router solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SolicitationError {
    /// Some other ICMPv6 message.
    #[error("not a router solicitation")]
    OtherMessage,
    /// It came through a router, or the hop limit lies (RFC 4861 section 6.1.1).
    #[error("the hop limit is {found}, not 255")]
    HopLimit {
        /// The hop limit it came with.
        found: u8,
    },
    /// Too short, a code other than 0, or an option of no length.
    #[error("a damaged router solicitation")]
    Damaged,
    /// From the unspecified address, yet with a link-layer address.
    #[error("a link-layer address without a source")]
    LinkAddressWithoutSource,
}

impl Solicitation {
    /// Reads the ICMPv6 message that takes up all of `message`, and that came from `source`
    /// with `hop_limit`. Its checksum was checked by whoever received it.
    ///
    /// # Errors
    /// [`SolicitationError`].
    ///
    /// Source: RFC 4861 section 6.1.1.
    pub fn parse(
        message: &[u8],
        source: Ipv6Addr,
        hop_limit: u8,
    ) -> Result<Self, SolicitationError> {
        if message.first() != Some(&ROUTER_SOLICITATION) {
            return Err(SolicitationError::OtherMessage);
        }
        if hop_limit != super::HOP_LIMIT {
            return Err(SolicitationError::HopLimit { found: hop_limit });
        }
        let (header, mut options) = message
            .split_first_chunk::<8>()
            .ok_or(SolicitationError::Damaged)?;
        if header[1] != 0 {
            return Err(SolicitationError::Damaged);
        }
        while let [kind, rest @ ..] = options {
            let units = rest.first().filter(|units| **units != 0);
            let length = usize::from(*units.ok_or(SolicitationError::Damaged)?) * 8;
            if *kind == SOURCE_LINK_ADDRESS && source.is_unspecified() {
                return Err(SolicitationError::LinkAddressWithoutSource);
            }
            options = options.get(length..).ok_or(SolicitationError::Damaged)?;
        }
        Ok(Self { source })
    }

    /// Who asks; unspecified if it has no address yet.
    pub const fn source(&self) -> Ipv6Addr {
        self.source
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network() -> Network {
        Network {
            site: Prefix::new("fd01:203:405:7::".parse().unwrap(), 64),
            network: Prefix::new("fd01:203:405::".parse().unwrap(), 48),
            resolver: "fd01:203:405:7::1".parse().unwrap(),
            petname: Some(Name::new("home").unwrap()),
        }
    }

    #[test]
    fn an_advertisement_has_these_bytes() {
        let mut buffer = [0xaa; MAX_ADVERTISEMENT_BYTES];
        let mut writer = Writer::new(&mut buffer, 1800).unwrap();
        writer.link_address([2, 0, 0, 0, 0, 9]);
        writer.network(&network(), Lifetimes::FULL);
        let length = writer.finish();
        let prefix = [0xfd, 1, 2, 3, 4, 5];
        let expected = [
            &[134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[1, 1, 2, 0, 0, 0, 0, 9],
            &[
                3, 4, 64, 0xc0, 0, 0, 0x15, 0x18, 0, 0, 0x0a, 0x8c, 0, 0, 0, 0,
            ],
            &prefix,
            &[0, 7, 0, 0, 0, 0, 0, 0, 0, 0],
            &[24, 2, 48, 0, 0, 0, 0x07, 0x08],
            &prefix,
            &[0, 0],
            &[25, 3, 0, 0, 0, 0, 0x07, 0x08],
            &prefix,
            &[0, 7, 0, 0, 0, 0, 0, 0, 0, 1],
            &[31, 3, 0, 0, 0, 0, 0x07, 0x08],
            b"\x04home\x03alt\x00\x00\x00\x00\x00\x00\x00",
        ]
        .concat();
        assert_eq!(&buffer[..length], expected);
    }

    fn check(message: &[u8], source: &str, hops: u8, expected: Result<(), SolicitationError>) {
        let found = Solicitation::parse(message, source.parse().unwrap(), hops);
        assert_eq!(found.map(|_| ()), expected, "{message:?}");
    }

    #[test]
    fn a_solicitation_is_checked_as_rfc_4861_says() {
        let plain = [133, 0, 0, 0, 0, 0, 0, 0];
        let with_link = [&plain[..], &[1, 1, 2, 0, 0, 0, 0, 9]].concat();
        check(&plain, "::", 255, Ok(()));
        check(&with_link, "fe80::1", 255, Ok(()));
        check(
            &with_link,
            "::",
            255,
            Err(SolicitationError::LinkAddressWithoutSource),
        );
        check(
            &plain,
            "fe80::1",
            64,
            Err(SolicitationError::HopLimit { found: 64 }),
        );
        check(&plain[..7], "::", 255, Err(SolicitationError::Damaged));
        check(
            &[133, 1, 0, 0, 0, 0, 0, 0],
            "::",
            255,
            Err(SolicitationError::Damaged),
        );
        check(
            &[&plain[..], &[9, 0]].concat(),
            "::",
            255,
            Err(SolicitationError::Damaged),
        );
        check(
            &[&plain[..], &[9, 1, 0]].concat(),
            "::",
            255,
            Err(SolicitationError::Damaged),
        );
        check(&[134; 16], "::", 255, Err(SolicitationError::OtherMessage));
        check(&[], "::", 255, Err(SolicitationError::OtherMessage));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut message: std::vec::Vec<u8>, source: u128) {
            if let Some(first) = message.first_mut() {
                *first = 133;
            }
            let _ = Solicitation::parse(&message, source.into(), 255);
        }

        #[test]
        fn no_buffer_is_too_short(length in 0usize..300) {
            let mut buffer = std::vec![0; length];
            if let Some(mut writer) = Writer::new(&mut buffer, 0) {
                writer.network(&network(), Lifetimes::FULL);
                prop_assert!(writer.finish() <= length);
            }
        }
    }
}
