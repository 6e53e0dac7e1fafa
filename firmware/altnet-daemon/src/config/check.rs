//! What a value must be beyond its type, and what to write instead.

use std::net::{IpAddr, SocketAddr};

use altnet_core::audit::Limits;
use altnet_wire::record::MAX_FIXED_ENDPOINTS;
use serde::{Deserialize, Deserializer};

use super::{Lan, MAX_LANS, Upstream};
use crate::tun::{MAX_MTU_BYTES, MIN_MTU_BYTES};

/// The longest interface name, in bytes (`IFNAMSIZ` less its NUL).
const MAX_INTERFACE_BYTES: usize = 15;

pub(super) fn interface<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    // What the kernel's dev_valid_name() takes, and no `%`, which it would number.
    let bad = |b: u8| b.is_ascii_whitespace() || b.is_ascii_control() || b"/:%".contains(&b);
    if name.is_empty() || name.len() > MAX_INTERFACE_BYTES || name == "." || name == ".." {
        return Err(serde::de::Error::custom(format_args!(
            "an interface name has 1 to {MAX_INTERFACE_BYTES} bytes; `ip link` shows them"
        )));
    }
    if name.bytes().any(bad) {
        return Err(serde::de::Error::custom(
            "an interface name has no spaces, `/`, `:` or `%`; `ip link` shows them",
        ));
    }
    Ok(name)
}

pub(super) fn mtu<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let mtu = u16::deserialize(deserializer)?;
    if !(MIN_MTU_BYTES..=MAX_MTU_BYTES).contains(&mtu) {
        return Err(serde::de::Error::custom(format_args!(
            "mtu_bytes is {MIN_MTU_BYTES} (what IPv6 needs) to {MAX_MTU_BYTES} (what fits a tunnel)"
        )));
    }
    Ok(mtu)
}

pub(super) fn audit_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    const MOST: u32 = 1 << 30;
    let bytes = u32::deserialize(deserializer)?;
    if !(Limits::LEAST_BYTES..=MOST).contains(&bytes) {
        return Err(serde::de::Error::custom(format_args!(
            "max_bytes of the audit log is {} (some weeks of a quiet home) to {MOST}",
            Limits::LEAST_BYTES
        )));
    }
    Ok(bytes)
}

pub(super) fn public_addresses<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<SocketAddr>, D::Error> {
    let addresses = Vec::<SocketAddr>::deserialize(deserializer)?;
    if addresses.len() > MAX_FIXED_ENDPOINTS {
        return Err(serde::de::Error::custom(format_args!(
            "a node has at most {MAX_FIXED_ENDPOINTS} public addresses; remove some"
        )));
    }
    Ok(addresses)
}

pub(super) fn lans<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Lan>, D::Error> {
    let lans = Vec::<Lan>::deserialize(deserializer)?;
    if lans.len() > MAX_LANS {
        return Err(serde::de::Error::custom(format_args!(
            "a gateway serves at most {MAX_LANS} LANs; remove some [[lan]] sections"
        )));
    }
    for (i, lan) in lans.iter().enumerate() {
        if lans
            .iter()
            .take(i)
            .any(|other| other.interface == lan.interface)
        {
            return Err(serde::de::Error::custom(format_args!(
                "the LAN {} is there twice; remove one [[lan]] section",
                lan.interface
            )));
        }
    }
    Ok(lans)
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let with_port = text.parse::<SocketAddr>().ok();
        let address = text.parse::<IpAddr>().ok();
        with_port
            .or(address.map(|address| SocketAddr::new(address, 53)))
            .map(Self)
            .ok_or_else(|| {
                serde::de::Error::custom(format_args!(
                    "{text:?} is no resolver's address; write \"9.9.9.9\", \"2620:fe::fe\" or \"[2620:fe::fe]:53\""
                ))
            })
    }
}
