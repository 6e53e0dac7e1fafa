//! Unique local addresses of a network, its sites, its nodes and its apps (RFC 4193).
//!
//! ```text
//!  8 bits   40 bits of the network id   16 bits subnet                 64 bits
//! +-------+---------------------------+-+--------------+-----------------------------+
//! |  fd   |  network id, first 5 bytes|0| site id      | the LAN's interface ids     |  a LAN
//! |  fd   |  network id, first 5 bytes|1| 79 bits of BLAKE2s(label, network id, key)  |  a node or app
//! +-------+---------------------------+-+--------------+-----------------------------+
//! ```
//! A derived address proves its owner within its network: making another key with the same
//! address takes 2^79 tries. 40 bits of prefix can be ground, so a prefix never stands for a
//! network's id.

use core::net::Ipv6Addr;

use crate::hash;
use crate::id::{NetworkId, NodeId, SigningKey, SiteId};

/// Length of a network's prefix in bits.
pub const NETWORK_PREFIX_BITS: u8 = 48;
/// Length of a site's prefix in bits.
pub const SITE_PREFIX_BITS: u8 = 64;

/// A range of IPv6 addresses: the `bits` highest bits of `address`, the rest zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: Ipv6Addr,
    bits: u8,
}

impl Prefix {
    /// The prefix of `bits` (0 to 128; more counts as 128) that `address` lies in.
    pub fn new(address: Ipv6Addr, bits: u8) -> Self {
        let bits = bits.min(128);
        let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
        Self {
            address: Ipv6Addr::from(u128::from(address) & mask),
            bits,
        }
    }

    /// The prefix that holds `address` alone.
    pub fn host(address: Ipv6Addr) -> Self {
        Self::new(address, 128)
    }

    /// Its lowest address.
    pub const fn address(&self) -> Ipv6Addr {
        self.address
    }

    /// Its length in bits, 0 to 128.
    pub const fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        Self::new(address, self.bits) == *self
    }
}

impl core::fmt::Display for Prefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

fn octets(network: &NetworkId) -> [u8; 16] {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&network.0[..5]);
    octets
}

/// The network's /48.
pub fn network_prefix(network: &NetworkId) -> Prefix {
    Prefix::new(octets(network).into(), NETWORK_PREFIX_BITS)
}

/// The /64 of a site's LAN.
pub fn site_prefix(network: &NetworkId, site: SiteId) -> Prefix {
    let mut octets = octets(network);
    octets[6..8].copy_from_slice(&site.as_u16().to_be_bytes());
    Prefix::new(octets.into(), SITE_PREFIX_BITS)
}

/// The gateway's own address on a site's LAN: interface id 1.
pub fn site_gateway(network: &NetworkId, site: SiteId) -> Ipv6Addr {
    let mut octets = site_prefix(network, site).address().octets();
    octets[15] = 1;
    octets.into()
}

/// The address of the device with the signing key `device`.
pub fn node_address(network: &NetworkId, device: &SigningKey) -> Ipv6Addr {
    derived("altnet node address v1", network, device)
}

/// The [`NodeId`] of the device with the signing key `device`.
pub fn node_id(network: &NetworkId, device: &SigningKey) -> NodeId {
    node_address(network, device).into()
}

/// The address of the app with the signing key `app`.
pub fn app_address(network: &NetworkId, app: &SigningKey) -> Ipv6Addr {
    derived("altnet app address v1", network, app)
}

/// Whether `address` was derived from a key rather than given out on a LAN: the top bit of
/// its subnet id is set. Says nothing about whose key.
pub fn is_derived(address: Ipv6Addr) -> bool {
    address.octets()[6] & 0x80 != 0
}

fn derived(label: &str, network: &NetworkId, key: &SigningKey) -> Ipv6Addr {
    let hash = hash::labelled(label, &[&network.0, &key.0]);
    let mut octets = octets(network);
    octets[6..].copy_from_slice(&hash[..10]);
    octets[6] |= 0x80;
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_address_lies_in_its_networks_prefix(network: [u8; 32], key: [u8; 32], site in 0..=SiteId::MAX) {
            let network = NetworkId(network);
            let prefix = network_prefix(&network);
            let node = node_address(&network, &SigningKey(key));
            let app = app_address(&network, &SigningKey(key));
            let site = SiteId::new(site).unwrap();
            let gateway = site_gateway(&network, site);
            prop_assert!(prefix.contains(node) && prefix.contains(app) && prefix.contains(gateway));
            prop_assert!(is_derived(node) && is_derived(app) && !is_derived(gateway));
            prop_assert_ne!(node, app);
            prop_assert!(site_prefix(&network, site).contains(gateway));
            prop_assert!(!site_prefix(&network, site).contains(node));
        }

        #[test]
        fn a_prefix_holds_what_shares_its_bits(a: u128, b: u128, bits in 0u8..=128) {
            let prefix = Prefix::new(a.into(), bits);
            let same = bits == 0 || (a ^ b) >> (128 - u32::from(bits)) == 0;
            prop_assert_eq!(prefix.contains(b.into()), same);
        }
    }
}
