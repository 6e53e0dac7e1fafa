//! What routers advertise of a NAT64 (RFC 8781): the options read, and which prefix to go by.
//!
//! In: router advertisements from the side of the internet, with the interface and router they came from. Out: the
//! prefix to write IPv4 addresses with, and until when that holds. The prefix that was advertised first stays in
//! use as long as it is kept up, so that ways don't change with every advertisement. What routers say goes before
//! what a resolver says (RFC 9872).
//!
//! Deliberately absent: prefixes of less than 96 bits (RFC 6052 section 2.2), which are rare, and soliciting.

use core::net::Ipv6Addr;

use altnet_wire::time::{Duration, Instant};
use heapless::Vec;

/// The most prefixes that are taken of one advertisement, and kept of all routers.
pub const MAX_PREFIXES: usize = 8;

const ROUTER_ADVERTISEMENT: u8 = 134;
/// Bytes before the options of a router advertisement (RFC 4861 section 4.2).
const HEADER_BYTES: usize = 16;
/// The option's type, and its length in units of eight bytes (RFC 8781 section 4).
const PREF64: u8 = 38;
const PREF64_UNITS: u8 = 2;
/// Prefix lengths in bits, by their code; 6 and 7 are reserved.
const LENGTHS: [u8; 6] = [96, 64, 56, 48, 40, 32];

/// A prefix of a NAT64, as a router advertises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pref64 {
    /// The prefix; the bits after `bits` are zero.
    pub prefix: Ipv6Addr,
    /// Its length: 96, 64, 56, 48, 40 or 32.
    pub bits: u8,
    /// How long it holds, in seconds: a multiple of 8, 65 528 at most; 0 takes it back.
    pub lifetime_s: u32,
}

/// The bytes are no router advertisement that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdvertisementError {
    /// Some other ICMPv6 message.
    #[error("not a router advertisement")]
    OtherMessage,
    /// It came through a router, or the hop limit lies (RFC 4861 section 6.1.2).
    #[error("the hop limit is {found}, not 255")]
    HopLimit {
        /// The hop limit it came with.
        found: u8,
    },
    /// Not from a link-local address.
    #[error("a router advertisement from an address that is not link-local")]
    Source,
    /// Too short, a code other than 0, or an option of no length.
    #[error("a damaged router advertisement")]
    Damaged,
}

/// Reads the prefixes in a router advertisement that takes up all of `message`, and that came from `source` with
/// `hop_limit`. Its checksum was checked by whoever received it.
///
/// Options of another length and reserved prefix lengths are passed over, as are prefixes past [`MAX_PREFIXES`].
///
/// # Errors
/// [`AdvertisementError`].
///
/// Source: RFC 4861 section 6.1.2; RFC 8781 section 4.
pub fn parse(
    message: &[u8],
    source: Ipv6Addr,
    hop_limit: u8,
) -> Result<Vec<Pref64, MAX_PREFIXES>, AdvertisementError> {
    if message.first() != Some(&ROUTER_ADVERTISEMENT) {
        return Err(AdvertisementError::OtherMessage);
    }
    if hop_limit != super::HOP_LIMIT {
        return Err(AdvertisementError::HopLimit { found: hop_limit });
    }
    if !source.is_unicast_link_local() {
        return Err(AdvertisementError::Source);
    }
    let (header, mut options) = message
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(AdvertisementError::Damaged)?;
    if header[1] != 0 {
        return Err(AdvertisementError::Damaged);
    }
    let mut found = Vec::new();
    while let [kind, rest @ ..] = options {
        let units = rest.first().filter(|units| **units != 0);
        let units = *units.ok_or(AdvertisementError::Damaged)?;
        let option = options.split_at_checked(usize::from(units) * 8);
        let (option, after) = option.ok_or(AdvertisementError::Damaged)?;
        if (*kind, units) == (PREF64, PREF64_UNITS)
            && let Some(prefix) = read(option)
        {
            // More than there is room for are none.
            let _ = found.push(prefix);
        }
        options = after;
    }
    Ok(found)
}

/// `type u8 | length u8 | scaled lifetime 13 bits, prefix length code 3 | highest 96 bits of the prefix`.
fn read(option: &[u8]) -> Option<Pref64> {
    let (&[_, _, a, b], rest) = option.split_first_chunk::<4>()?;
    let highest = rest.first_chunk::<12>()?;
    let scaled = u16::from_be_bytes([a, b]);
    let bits = *LENGTHS.get(usize::from(scaled & 7))?;
    let mut prefix = [0; 16];
    prefix[..12].copy_from_slice(highest);
    let mask = u128::MAX << (128 - u32::from(bits));
    Some(Pref64 {
        prefix: Ipv6Addr::from_bits(u128::from_be_bytes(prefix) & mask),
        bits,
        // The lifetime is in units of eight seconds: what is left once the code is zero.
        lifetime_s: u32::from(scaled & !7),
    })
}

/// Whether a prefix of 96 bits may be one of a NAT64: what it makes of an IPv4 address is that of one host, maybe far
/// away.
pub const fn is_usable(prefix: Ipv6Addr) -> bool {
    let is_near = prefix.is_loopback() || prefix.is_unicast_link_local();
    let is_none = prefix.is_unspecified() || prefix.is_multicast();
    !is_near && !is_none && prefix.to_ipv4_mapped().is_none()
}

/// Where an advertisement came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// The interface, as the driver numbers it.
    pub interface: u32,
    /// The router's link-local address there.
    pub address: Ipv6Addr,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    router: Router,
    prefix: Ipv6Addr,
    until: Instant,
}

/// The prefixes that routers keep up.
#[derive(Debug, Default)]
pub struct Advertised {
    /// The one that was heard of first comes first.
    held: Vec<Held, MAX_PREFIXES>,
}

impl Advertised {
    /// Takes what a router advertised.
    pub fn handle(&mut self, router: Router, prefixes: &[Pref64], now: Instant) {
        self.expire(now);
        let usable = |one: &&Pref64| one.bits == 96 && is_usable(one.prefix);
        for one in prefixes.iter().filter(usable) {
            let prefix = one.prefix;
            let until = now.after(Duration::from_secs(one.lifetime_s.into()));
            let is_it = |held: &Held| (held.router, held.prefix) == (router, prefix);
            match self.held.iter_mut().find(|held| is_it(held)) {
                Some(held) => held.until = until,
                // More than there is room for are none.
                None => drop(self.held.push(Held {
                    router,
                    prefix,
                    until,
                })),
            }
        }
        self.expire(now);
    }

    /// Forgets what came from interfaces that `is_outside` doesn't name: they are gone, or no way to the internet.
    pub fn keep(&mut self, is_outside: impl Fn(u32) -> bool) {
        self.held.retain(|held| is_outside(held.router.interface));
    }

    /// The prefix to go by.
    pub fn prefix(&self, now: Instant) -> Option<Ipv6Addr> {
        let mut held = self.held.iter();
        held.find(|held| held.until > now).map(|held| held.prefix)
    }

    /// Forgets what holds no longer.
    pub fn expire(&mut self, now: Instant) {
        self.held.retain(|held| held.until > now);
    }

    /// When [`Advertised::expire`] next has something to do.
    pub fn deadline(&self) -> Instant {
        let until = self.held.iter().map(|held| held.until);
        until.min().unwrap_or(Instant::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;

    const ROUTER: Router = Router {
        interface: 3,
        address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1),
    };

    fn at(s: u64) -> Instant {
        Instant::from_micros(s * 1_000_000)
    }

    fn advertisement(options: &[&[u8]]) -> vec::Vec<u8> {
        let header = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        [&header[..], &options.concat()].concat()
    }

    fn option(lifetime: u16, code: u8, prefix: &str) -> vec::Vec<u8> {
        let [a, b] = (lifetime | u16::from(code)).to_be_bytes();
        let prefix: Ipv6Addr = prefix.parse().unwrap();
        [&[38, 2, a, b][..], &prefix.octets()[..12]].concat()
    }

    fn read_all(options: &[&[u8]]) -> vec::Vec<Pref64> {
        let message = advertisement(options);
        let found = parse(&message, ROUTER.address, 255).unwrap();
        found.iter().copied().collect()
    }

    fn pref64(prefix: &str, bits: u8, lifetime_s: u32) -> Pref64 {
        Pref64 {
            prefix: prefix.parse().unwrap(),
            bits,
            lifetime_s,
        }
    }

    #[test]
    fn every_length_is_read_and_reserved_ones_are_passed_over() {
        let all = "2001:db8:6464:6464:6464:6464::";
        for (code, bits, prefix) in [
            (0, 96, all),
            (1, 64, "2001:db8:6464:6464::"),
            (2, 56, "2001:db8:6464:6400::"),
            (3, 48, "2001:db8:6464::"),
            (4, 40, "2001:db8:6400::"),
            (5, 32, "2001:db8::"),
        ] {
            let found = read_all(&[&option(1800, code, all)]);
            assert_eq!(found, [pref64(prefix, bits, 1800)], "code {code}");
        }
        for code in [6, 7] {
            assert_eq!(read_all(&[&option(1800, code, all)]), []);
        }
    }

    #[test]
    fn what_somebody_elses_router_writes_is_read() {
        // Scapy 2.8.0: 2001:db8:6464::/48 for 8191 times eight seconds.
        let message = [
            &[0x86, 0, 0, 0, 0, 8, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0x26, 2, 0xff, 0xfb, 0x20, 1, 0x0d, 0xb8, 0x64, 0x64],
            &[0; 6],
        ]
        .concat();
        let found = parse(&message, ROUTER.address, 255).unwrap();
        assert_eq!(found, [pref64("2001:db8:6464::", 48, 65_528)]);
    }

    #[test]
    fn the_lifetime_is_read_in_units_of_eight_seconds() {
        for lifetime in [0, 8, 1800, 65_528] {
            let found = read_all(&[&option(lifetime, 0, "64:ff9b::")]);
            assert_eq!(found, [pref64("64:ff9b::", 96, lifetime.into())]);
        }
    }

    #[test]
    fn options_of_another_length_and_others_are_passed_over() {
        let mut long = option(1800, 0, "64:ff9b::");
        long[1] = 3;
        long.extend([0; 8]);
        let link_address = [1, 1, 2, 0, 0, 0, 0, 9];
        let own = option(8, 0, "64:ff9b::");
        let found = read_all(&[&long, &link_address, &own]);
        assert_eq!(found, [pref64("64:ff9b::", 96, 8)]);
    }

    #[test]
    fn what_did_not_come_from_a_router_on_this_link_counts_nothing() {
        let message = advertisement(&[&option(1800, 0, "64:ff9b::")]);
        let from = |source: &str, hops| parse(&message, source.parse().unwrap(), hops);
        assert_eq!(
            from("fe80::1", 64),
            Err(AdvertisementError::HopLimit { found: 64 })
        );
        assert_eq!(from("2001:db8::1", 255), Err(AdvertisementError::Source));
        let mut other = message.clone();
        other[0] = 133;
        let read = |message: &[u8]| parse(message, ROUTER.address, 255);
        assert_eq!(read(&other), Err(AdvertisementError::OtherMessage));
        let mut code = message.clone();
        code[1] = 1;
        assert_eq!(read(&code), Err(AdvertisementError::Damaged));
        // Cut anywhere but between options.
        for length in (1..16).chain(17..32) {
            let cut = read(&message[..length]);
            assert_eq!(cut, Err(AdvertisementError::Damaged), "{length}");
        }
        let mut endless = message;
        endless[17] = 0;
        assert_eq!(read(&endless), Err(AdvertisementError::Damaged));
    }

    #[test]
    fn a_prefix_holds_as_long_as_it_is_kept_up_and_goes_when_it_is_taken_back() {
        let mut advertised = Advertised::default();
        let (first, second) = (
            pref64("64:ff9b::", 96, 600),
            pref64("2001:db8:64::", 96, 1800),
        );
        let other = Router {
            interface: 4,
            ..ROUTER
        };
        advertised.handle(ROUTER, &[first], at(0));
        advertised.handle(other, &[second], at(1));
        assert_eq!(advertised.prefix(at(599)), Some(first.prefix));
        assert_eq!(advertised.deadline(), at(600));
        // The other takes its place once it is kept up no more.
        assert_eq!(advertised.prefix(at(600)), Some(second.prefix));
        advertised.expire(at(600));
        assert_eq!(advertised.deadline(), at(1801));
        advertised.handle(ROUTER, &[first], at(601));
        assert_eq!(advertised.prefix(at(601)), Some(second.prefix));
        let gone = Pref64 {
            lifetime_s: 0,
            ..second
        };
        // Nobody takes back what another router says.
        advertised.handle(ROUTER, &[gone], at(602));
        assert_eq!(advertised.prefix(at(602)), Some(second.prefix));
        advertised.handle(other, &[gone], at(603));
        assert_eq!(advertised.prefix(at(603)), Some(first.prefix));
        advertised.keep(|interface| interface == other.interface);
        assert_eq!(advertised.prefix(at(603)), None);
        assert_eq!(advertised.deadline(), Instant::NEVER);
    }

    #[test]
    fn prefixes_that_nothing_can_be_written_with_are_not_gone_by() {
        let mut advertised = Advertised::default();
        let useless = [
            pref64("2001:db8::", 32, 1800),
            pref64("::", 96, 1800),
            pref64("::ffff:0:0", 96, 1800),
        ];
        advertised.handle(ROUTER, &useless, at(0));
        assert_eq!(advertised.prefix(at(0)), None);
    }

    #[test]
    fn what_leads_nowhere_is_no_prefix_of_a_nat64() {
        for (prefix, expected) in [
            ("64:ff9b::", true),
            ("fd00:64::", true),
            ("2001:db8:64::", true),
            ("::", false),
            ("::1", false),
            ("::ffff:0:0", false),
            ("fe80::", false),
            ("febf:1::", false),
            ("ff02::", false),
            ("ff0e:64::", false),
        ] {
            let one = pref64(prefix, 96, 600);
            assert_eq!(is_usable(one.prefix), expected, "{prefix}");
            let mut advertised = Advertised::default();
            advertised.handle(ROUTER, &[one], at(1));
            assert_eq!(advertised.prefix(at(2)).is_some(), expected, "{prefix}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_nor_fill_the_table(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..30),
        ) {
            let mut advertised = Advertised::default();
            for (n, bytes) in (0..).zip(&messages) {
                let mut message = advertisement(&[bytes]);
                if let Some(kind) = message.get_mut(HEADER_BYTES) {
                    *kind = PREF64;
                }
                if let Some(units) = message.get_mut(HEADER_BYTES + 1) {
                    *units = PREF64_UNITS;
                }
                let router = Router { interface: n, ..ROUTER };
                if let Ok(found) = parse(&message, router.address, 255) {
                    for one in &found {
                        prop_assert!(LENGTHS.contains(&one.bits) && one.lifetime_s % 8 == 0);
                        let low = u128::MAX >> one.bits;
                        prop_assert_eq!(one.prefix.to_bits() & low, 0);
                    }
                    advertised.handle(router, &found, at(n.into()));
                }
                prop_assert!(advertised.held.len() <= MAX_PREFIXES);
                prop_assert!(advertised.deadline() > at(n.into()));
            }
        }
    }
}
