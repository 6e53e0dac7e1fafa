//! What people type and read: durations, roles, endpoints, MAC addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use altnet_wire::address::Prefix;
use altnet_wire::record::{Rights, Roles};

use crate::error::{Error, Result};

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 60 * MINUTE_S;
const DAY_S: u64 = 24 * HOUR_S;

/// The roles by name, in the order they are shown.
pub const ROLES: [(&str, Roles); 4] = [
    ("gateway", Roles::GATEWAY),
    ("relay", Roles::RELAY),
    ("directory", Roles::DIRECTORY),
    ("apps", Roles::APPS),
];

/// The rights by name, in the order they are shown.
pub const RIGHTS: [(&str, Rights); 5] = [
    ("invite", Rights::INVITE),
    ("admit", Rights::ADMIT),
    ("revoke", Rights::REVOKE),
    ("policy", Rights::POLICY),
    ("hosts", Rights::HOSTS),
];

/// Reads `90s`, `30m`, `12h`, `7d` or `2w`.
///
/// # Errors
/// [`Error::Input`] if it is something else, or nothing at all.
pub fn duration(text: &str) -> Result<Duration> {
    let bad = || {
        Error::input(
            format!("`{text}` is not a duration"),
            "Write a number and s, m, h, d or w, as in 7d.",
        )
    };
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => MINUTE_S,
        Some('h') => HOUR_S,
        Some('d') => DAY_S,
        Some('w') => 7 * DAY_S,
        _ => return Err(bad()),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let seconds = digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .filter(|seconds| (1..=100 * 366 * DAY_S).contains(seconds))
        .ok_or_else(bad)?;
    Ok(Duration::from_secs(seconds))
}

/// Reads the size of a disk: `4G`, `512M` or a number of bytes. Units are of 1024.
///
/// # Errors
/// [`Error::Input`] if it is something else.
pub fn size(text: &str) -> Result<u64> {
    let (digits, unit) = match text.strip_suffix(['K', 'M', 'G', 'T']) {
        Some(digits) if text.ends_with('K') => (digits, 1u64 << 10),
        Some(digits) if text.ends_with('M') => (digits, 1 << 20),
        Some(digits) if text.ends_with('G') => (digits, 1 << 30),
        Some(digits) => (digits, 1 << 40),
        None => (text, 1),
    };
    // `parse` would take a sign.
    let count = digits.bytes().all(|b| b.is_ascii_digit());
    let bytes = count.then(|| digits.parse::<u64>().ok()).flatten();
    let bytes = bytes.and_then(|count| count.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::input(
            format!("`{text}` is not a size"),
            "Write a number and K, M, G or T, as in 4G, or a number of bytes.",
        )
    })
}

/// A size for people, in units of 1000, as drives are labelled.
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, unit)| count >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", count as f64 / *unit as f64),
        None => self::count(count as usize, "byte"),
    }
}

/// Reads an address and a UDP port that a device can be reached at.
///
/// # Errors
/// [`Error::Input`] if it isn't that, or nobody could send to it.
pub fn endpoint(text: &str) -> Result<SocketAddr> {
    let bad = |why: &str| {
        Error::input(
            format!("`{text}` is not an address and port: {why}"),
            "Write it as in 203.0.113.10:51820 or [2001:db8::10]:51820.",
        )
    };
    let endpoint: SocketAddr = text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => bad("the port is missing"),
        Err(_) => bad("names are not looked up, and both parts are needed"),
    })?;
    let ip = endpoint.ip();
    let broadcast = IpAddr::V4(Ipv4Addr::BROADCAST);
    if endpoint.port() == 0 || ip.is_unspecified() || ip.is_multicast() || ip == broadcast {
        return Err(bad("nobody could send to it"));
    }
    Ok(endpoint)
}

/// Whether an address is good only within one house, provider or machine.
///
/// Source: RFC 1918, RFC 6598 section 7 (100.64.0.0/10), RFC 4193, and the link-local and
/// loopback ranges of RFC 6890.
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            v4.is_private() || v4.is_link_local() || v4.is_loopback() || is_shared
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_unicast_link_local() || v6.is_loopback(),
    }
}

/// A number and a noun that agree.
pub fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// Reads a role's name.
///
/// # Errors
/// [`Error::Input`] if there is no such role.
pub fn role(text: &str) -> Result<Roles> {
    let found = ROLES.iter().find(|(name, _)| *name == text);
    found.map(|(_, role)| *role).ok_or_else(|| {
        Error::input(
            format!("there is no role `{text}`"),
            format!("Choose among {}.", names(&ROLES)),
        )
    })
}

/// Reads a right's name.
///
/// # Errors
/// [`Error::Input`] if there is no such right.
pub fn right(text: &str) -> Result<Rights> {
    let found = RIGHTS.iter().find(|(name, _)| *name == text);
    found.map(|(_, right)| *right).ok_or_else(|| {
        Error::input(
            format!("there is no right `{text}`"),
            format!("Choose among {}.", names(&RIGHTS)),
        )
    })
}

/// The names of `roles`, in order.
pub fn role_names(roles: Roles) -> Vec<&'static str> {
    let has = ROLES.iter().filter(|(_, role)| roles.contains(*role));
    has.map(|(name, _)| *name).collect()
}

/// The names of `rights`, in order.
pub fn right_names(rights: Rights) -> Vec<&'static str> {
    let has = RIGHTS.iter().filter(|(_, right)| rights.contains(*right));
    has.map(|(name, _)| *name).collect()
}

/// Reads six bytes in hexadecimal with `:` or `-` between, of one machine.
///
/// # Errors
/// [`Error::Input`] if it isn't that, or is zero or a group's address.
pub fn mac(text: &str) -> Result<[u8; 6]> {
    let bad = |why: &str| {
        Error::input(
            format!("`{text}` is not a machine's MAC address: {why}"),
            "Take it from the machine, for instance from `ip link`, as in 02:00:5e:10:00:01.",
        )
    };
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for byte in &mut mac {
        let part = parts.next().unwrap_or_default();
        if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad("six pairs of hexadecimal digits are needed"));
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad("it does not read"))?;
    }
    if parts.next().is_some() {
        return Err(bad("it has more than six pairs"));
    }
    if mac == [0; 6] || mac[0] & 1 != 0 {
        return Err(bad("it stands for none or for many"));
    }
    Ok(mac)
}

/// The address that a machine with this MAC address gives itself in `prefix`, a /64.
///
/// Source: RFC 4291 appendix A (modified EUI-64: ff:fe in the middle, the universal bit
/// inverted). Machines with stable privacy addresses (RFC 7217) give themselves another.
pub fn eui64_address(prefix: &Prefix, mac: [u8; 6]) -> Ipv6Addr {
    let mut octets = prefix.address().octets();
    let [a, b, c, d, e, f] = mac;
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    octets.into()
}

fn names<T>(table: &[(&'static str, T)]) -> String {
    let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_is_a_number_and_perhaps_a_unit() {
        let check = |text: &str, expected| assert_eq!(size(text).unwrap(), expected);
        check("1000", 1000);
        check("4G", 4 << 30);
        check("512M", 512 << 20);
        check("2T", 2 << 40);
        for bad in [
            "",
            "G",
            "-1G",
            "+1G",
            "0G",
            "4g",
            "4 G",
            "1.5G",
            "99999999999T",
        ] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bytes_are_told_as_drives_are_labelled() {
        let check = |count, expected: &str| assert_eq!(bytes(count), expected);
        check(0, "0 bytes");
        check(1, "1 byte");
        check(999, "999 bytes");
        check(224_395_264, "224.4 MB");
        check(31_914_983_424, "31.9 GB");
    }

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        let check = |text: &str, seconds| {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(seconds));
        };
        check("90s", 90);
        check("30m", 1800);
        check("12h", 43_200);
        check("7d", 604_800);
        check("2w", 1_209_600);
        for bad in [
            "",
            "7",
            "d",
            "-1d",
            "0d",
            "7 d",
            "7é",
            "99999999999999999999d",
            "9999w",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mac_address_becomes_the_address_of_rfc_4291() {
        let prefix = Prefix::new("fd00:1:2:3::".parse().unwrap(), 64);
        let check = |text: &str, address: &str| {
            let expected: Ipv6Addr = address.parse().unwrap();
            assert_eq!(eui64_address(&prefix, mac(text).unwrap()), expected);
        };
        check("02:00:00:00:00:01", "fd00:1:2:3::ff:fe00:1");
        check("34-56-78-9A-BC-DE", "fd00:1:2:3:3656:78ff:fe9a:bcde");
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:01",
            "01:00:00:00:00:01",
            "0200:00:00:00:01",
            "00:00:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert!(mac(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_endpoint_has_an_address_and_a_port_that_can_be_sent_to() {
        for good in ["203.0.113.10:51820", "[2001:db8::10]:51820", "127.0.0.1:1"] {
            assert_eq!(endpoint(good).unwrap().to_string(), good);
        }
        for bad in [
            "",
            "203.0.113.10",
            "2001:db8::10",
            "relay.example:51820",
            "203.0.113.10:0",
            "0.0.0.0:51820",
            "[::]:51820",
            "224.0.0.1:51820",
            "255.255.255.255:51820",
        ] {
            let error = endpoint(bad).unwrap_err();
            assert!(error.next_step().contains("203.0.113.10:51820"), "{bad}");
        }
    }

    #[test]
    fn private_addresses_are_known() {
        let private = [
            "10.0.0.1",
            "172.16.9.9",
            "192.168.1.2",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.1.1",
            "127.0.0.1",
            "::ffff:10.0.0.1",
            "fd00::1",
            "fe80::1",
            "::1",
        ];
        let public = [
            "203.0.113.10",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "2001:db8::1",
        ];
        assert!(private.iter().all(|ip| is_private(ip.parse().unwrap())));
        assert!(!public.iter().any(|ip| is_private(ip.parse().unwrap())));
    }

    #[test]
    fn roles_and_rights_have_names() {
        for (name, value) in ROLES {
            assert_eq!(role(name).unwrap(), value);
        }
        for (name, value) in RIGHTS {
            assert_eq!(right(name).unwrap(), value);
        }
        assert!(role("king").unwrap_err().next_step().contains("gateway"));
        assert_eq!(
            role_names(Roles::RELAY | Roles::GATEWAY),
            ["gateway", "relay"]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text: String) {
            let _ = (duration(&text), mac(&text), role(&text), right(&text), endpoint(&text));
        }
    }
}
