//! Which addresses the world can reach.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address outside a router is one that others can send to.
///
/// Refused is what RFC 6890 reserves for use within a network, within a provider's (RFC 6598), or
/// for no use. Documentation prefixes pass: nobody has them but laboratories.
pub const fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_shared = a == 100 && b & 0xc0 == 64;
    let is_protocol = a == 192 && b == 0 && c == 0;
    !(address.is_private()
        || is_shared
        || is_protocol
        || a == 0
        || address.is_loopback()
        || address.is_link_local()
        || a >= 224)
}

const fn is_public_v6(address: Ipv6Addr) -> bool {
    // 2000::/3 is all that was ever given out (RFC 4291 section 2.4, IANA).
    let [first, ..] = address.segments();
    first & 0xe000 == 0x2000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: &str, expected: bool) {
        assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
    }

    #[test]
    fn only_what_the_world_can_reach_is_public() {
        for private in [
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.254",
            "169.254.1.1",
            "127.0.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "fd00::1",
            "::1",
            "::",
            "::ffff:9.9.9.9",
            "ff02::1",
        ] {
            check(private, false);
        }
        for public in [
            "9.9.9.9",
            "100.63.255.255",
            "100.128.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "2620:fe::fe",
        ] {
            check(public, true);
        }
    }
}
