//! What a value must be beyond its type, and what to write instead.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use altnet_core::audit::Limits;
use altnet_wire::id::Name;
use altnet_wire::record::{MAX_FIXED_ENDPOINTS, MAX_GROUPS};
use serde::{Deserialize, Deserializer};

use super::{Lan, MAX_LANS, MAX_MACHINES, Machines, Upstream};
use crate::netlink::neighbour::{mac_of, mac_text};
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

pub(super) fn proxy<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let url = String::deserialize(deserializer)?;
    match url.parse::<altnet_relay::proxy::Proxy>() {
        Ok(_) => Ok(Some(url)),
        Err(_) => Err(serde::de::Error::custom(
            "a proxy is written http://host:port or http://user:password@host:port",
        )),
    }
}

/// A proxy without who this gateway is there.
#[expect(clippy::ref_option, reason = "as serde calls it")]
pub(super) fn without_password<S: serde::Serializer>(
    url: &Option<String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let shown = url.as_deref().map(|url| match url.rsplit_once('@') {
        Some((_, host)) => format!("http://{host}"),
        None => url.to_owned(),
    });
    serde::Serialize::serialize(&shown, serializer)
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

/// A machine is in few groups, and none of them may be left out: one may take rights away.
pub(super) fn machines<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Machines>, D::Error> {
    let wrong = |what: &dyn std::fmt::Display| Err(serde::de::Error::custom(what));
    let all = Vec::<Machines>::deserialize(deserializer)?;
    if all.len() > MAX_MACHINES {
        return wrong(&format_args!(
            "there are at most {MAX_MACHINES} [[machines]] sections; remove some"
        ));
    }
    for one in &all {
        if one.groups.is_empty() {
            return wrong(&"give these machines a group of the policy, like groups = [\"guests\"]");
        }
        if one.port.is_none() && one.vlan.is_none() && one.mac.is_none() {
            return wrong(&"[[machines]] has to say which: by port, vlan or mac");
        }
    }
    let groups: BTreeSet<&Name> = all.iter().flat_map(|one| &one.groups).collect();
    if groups.len() > MAX_GROUPS {
        return wrong(&format_args!(
            "the [[machines]] sections name at most {MAX_GROUPS} groups in all, because a machine is in no more"
        ));
    }
    Ok(all)
}

pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    interface(deserializer).map(Some)
}

pub(super) fn vlan<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let id = u16::deserialize(deserializer)?;
    // IEEE 802.1Q section 9.6.
    if !(1..=4094).contains(&id) {
        return Err(serde::de::Error::custom("a VLAN's id is 1 to 4094"));
    }
    Ok(Some(id))
}

pub(super) fn mac<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let Some(mac) = mac_of(&text) else {
        return Err(serde::de::Error::custom(format_args!(
            "{text:?} is no MAC address; it is written like \"02:00:5e:00:53:01\""
        )));
    };
    Ok(Some(mac_text(&mac)))
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
