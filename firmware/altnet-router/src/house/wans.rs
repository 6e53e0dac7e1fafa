//! Ways to the internet, checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ports::Plugged;
use super::wrong::{Key, Wrongs};
use super::{Network, Wan, Way};
use crate::config;
use crate::config::{Connection, Ipv6, Pppoe, Probes, Sqm, Static4, Static6};

/// The most WANs.
pub const MAX_WANS: usize = 4;
/// The most resolvers of a WAN.
const MAX_RESOLVERS: usize = 4;
/// The most places that are probed by way of one WAN.
const MAX_TARGETS: usize = 8;
/// The longest name and password of a login by PPP, in bytes (RFC 1334 section 2.2.1).
const MAX_LOGIN_BYTES: usize = 255;
/// The longest name of a service or concentrator, in bytes.
const MAX_TAG_BYTES: usize = 64;
/// What IPv6 needs, in bytes (RFC 8200 section 5).
const IPV6_MIN_MTU_BYTES: u16 = 1280;
/// Without larger frames, 8 of 1500 bytes are PPPoE's own (RFC 2516 section 7); with them there are 1500 (RFC 4638).
pub const PPPOE_MTU_BYTES: u16 = 1492;
const PPPOE_MAX_MTU_BYTES: u16 = 1500;

pub(super) fn resolve(
    written: &[config::Wan],
    plugged: &mut Plugged,
    wrongs: &mut Wrongs,
) -> Vec<Wan> {
    let all = Key::router().at("wan");
    wrongs.bound(all.clone(), written.len(), MAX_WANS, "WANs");
    let mut wans: Vec<Wan> = Vec::new();
    for (i, wan) in written.iter().enumerate() {
        let key = all.nth(i);
        if written.iter().take(i).any(|other| other.name == wan.name) {
            wrongs.say(
                key.at("name"),
                format_args!("the WAN {} is there twice; give one another name", wan.name),
            );
        }
        wans.extend(resolve_one(wan, &key, plugged, wrongs));
    }
    wans
}

fn resolve_one(
    wan: &config::Wan,
    key: &Key,
    plugged: &mut Plugged,
    wrongs: &mut Wrongs,
) -> Option<Wan> {
    check_mtu(wan, key, wrongs);
    check_ipv6(wan, key, wrongs);
    check_probes(&wan.probes, &key.at("probes"), wrongs);
    if let Some(sqm) = &wan.sqm {
        check_sqm(sqm, &key.at("sqm"), wrongs);
    }
    wrongs.bound(
        key.at("resolvers"),
        wan.resolvers.len(),
        MAX_RESOLVERS,
        "resolvers of a WAN",
    );
    for (i, address) in wan.resolvers.iter().enumerate() {
        if !is_somebody(*address) {
            wrongs.say(
                key.at("resolvers").nth(i),
                format_args!("{address} is no resolver's address; write one like \"9.9.9.9\""),
            );
        }
    }
    let way = way(wan, key, wrongs);
    let port = plugged.one(&wan.interface, &key.at("interface"), wrongs)?;
    let whose = format!("the WAN {}", wan.name);
    let line = match wan.vlan {
        Some(id) if is_vlan(id) => plugged.take_vlan(&port, id, &whose, &key.at("vlan"), wrongs),
        Some(_) => {
            wrongs.say(key.at("vlan"), VLAN_ID);
            return None;
        }
        None => {
            plugged.take(&port, &whose, &key.at("interface"), wrongs);
            port.clone()
        }
    };
    let interface = match wan.connection {
        Connection::Pppoe => format!("ppp-{}", wan.name),
        Connection::Dhcp | Connection::Static => line.clone(),
    };
    Some(Wan {
        name: wan.name.clone(),
        port,
        line,
        interface,
        vlan: wan.vlan,
        mac: wan.mac,
        mtu_bytes: wan.mtu_bytes,
        way: way?,
        ipv6: wan.ipv6.clone(),
        prefix_hint: wan.prefix_hint,
        resolvers: wan.resolvers.clone(),
        probes: wan.probes.clone(),
        sqm: wan.sqm,
    })
}

/// What a VLAN's id is (IEEE 802.1Q section 9.6).
pub(super) const VLAN_ID: &str = "a VLAN's id is 1 to 4094";

pub(super) fn is_vlan(id: u16) -> bool {
    (1..=4094).contains(&id)
}

/// What belongs to how addresses are got, and nothing that doesn't.
fn way(wan: &config::Wan, key: &Key, wrongs: &mut Wrongs) -> Option<Way> {
    let connection = wan.connection;
    if wan.hostname.is_some() && connection != Connection::Dhcp {
        wrongs.say(
            key.at("hostname"),
            "a hostname is told by DHCP; remove it, or write connection = \"dhcp\"",
        );
    }
    if wan.ipv4.is_some() && connection != Connection::Static {
        wrongs.say(key.at("ipv4"), "an IPv4 address is written with connection = \"static\"; write that, or remove the address");
    }
    if wan.pppoe.is_some() && connection != Connection::Pppoe {
        wrongs.say(
            key.at("pppoe"),
            "a login is for connection = \"pppoe\"; write that, or remove the login",
        );
    }
    match connection {
        Connection::Dhcp => Some(Way::Dhcp(wan.hostname.clone())),
        Connection::Static => {
            if let Some(ipv4) = &wan.ipv4 {
                check_static4(ipv4, &key.at("ipv4"), wrongs);
            } else if !matches!(wan.ipv6, Ipv6::Static(_)) {
                wrongs.say(
                    key.at("connection"),
                    "a static WAN needs its address; write ipv4 = { address = \"192.0.2.2/30\", gateway = \"192.0.2.1\" }",
                );
            }
            Some(Way::Static(wan.ipv4.clone()))
        }
        Connection::Pppoe => {
            let Some(pppoe) = &wan.pppoe else {
                wrongs.say(
                    key.at("connection"),
                    "PPPoE needs a login; write pppoe = { username = \"...\", password_file = \"...\" }",
                );
                return None;
            };
            check_pppoe(pppoe, &key.at("pppoe"), wrongs);
            Some(Way::Pppoe(pppoe.clone()))
        }
    }
}

fn check_mtu(wan: &config::Wan, key: &Key, wrongs: &mut Wrongs) {
    let Some(mtu) = wan.mtu_bytes else { return };
    let least = if wan.ipv6 == Ipv6::Off {
        576
    } else {
        IPV6_MIN_MTU_BYTES
    };
    let most = if wan.connection == Connection::Pppoe {
        PPPOE_MAX_MTU_BYTES
    } else {
        9000
    };
    if !(least..=most).contains(&mtu) {
        let why = if least > 576 {
            " (what IPv6 needs)"
        } else {
            ""
        };
        wrongs.say(
            key.at("mtu_bytes"),
            format_args!("mtu_bytes is {least}{why} to {most} here; leave it out if the provider says nothing"),
        );
    }
}

fn check_static4(ipv4: &Static4, key: &Key, wrongs: &mut Wrongs) {
    let Static4 {
        address: net,
        gateway,
    } = ipv4;
    let address = net.addr();
    if !is_somebody(address.into())
        || (net.prefix_len() < 31 && (address == net.network() || address == net.broadcast()))
    {
        wrongs.say(
            key.at("address"),
            format_args!("{net} is no host's address; write the box's own, with its prefix length"),
        );
    }
    if !net.contains(gateway) || *gateway == address || !is_somebody((*gateway).into()) {
        wrongs.say(
            key.at("gateway"),
            format_args!(
                "the gateway {gateway} is not in {}; write the provider's router",
                net.trunc()
            ),
        );
    }
}

fn check_ipv6(wan: &config::Wan, key: &Key, wrongs: &mut Wrongs) {
    if !(48..=64).contains(&wan.prefix_hint) {
        wrongs.say(
            key.at("prefix_hint"),
            "prefix_hint is 48 to 64; 56 is what most providers give",
        );
    }
    let Ipv6::Static(Static6 {
        address,
        gateway,
        prefix,
    }) = &wan.ipv6
    else {
        return;
    };
    let key = key.at("ipv6");
    if !is_global6(address.addr()) {
        wrongs.say(
            key.at("address"),
            format_args!("{address} is no host's address on the internet; write the box's own"),
        );
    }
    let is_there = address.contains(gateway) || gateway.is_unicast_link_local();
    if !is_there || *gateway == address.addr() {
        wrongs.say(key.at("gateway"), format_args!("the gateway {gateway} is neither in {} nor link-local; write the provider's router", address.trunc()));
    }
    if let Some(prefix) = prefix
        && (!(48..=64).contains(&prefix.prefix_len())
            || prefix.addr() != prefix.network()
            || !is_global6(prefix.addr()))
    {
        wrongs.say(key.at("prefix"), format_args!("{prefix} is no prefix for a house; write one of 48 to 64 bits, as \"2001:db8:77::/48\""));
    }
}

fn check_pppoe(pppoe: &Pppoe, key: &Key, wrongs: &mut Wrongs) {
    if !is_line(&pppoe.username, MAX_LOGIN_BYTES) {
        wrongs.say(
            key.at("username"),
            format_args!("the username has 1 to {MAX_LOGIN_BYTES} bytes on one line"),
        );
    }
    match (&pppoe.password, &pppoe.password_file) {
        (Some(password), None) if !is_line(password.expose(), MAX_LOGIN_BYTES) => {
            wrongs.say(
                key.at("password"),
                format_args!("the password has 1 to {MAX_LOGIN_BYTES} bytes on one line"),
            );
        }
        (Some(_), None) => {}
        (None, Some(path)) if path.is_absolute() => {}
        (None, Some(_)) => wrongs.say(
            key.at("password_file"),
            "write the whole path of the file, from /",
        ),
        (Some(_), Some(_)) | (None, None) => {
            wrongs.say(
                key.at("password"),
                "a login needs either a password or a password_file",
            );
        }
    }
    for (name, tag) in [
        ("service", &pppoe.service),
        ("concentrator", &pppoe.concentrator),
    ] {
        if tag.as_ref().is_some_and(|tag| !is_line(tag, MAX_TAG_BYTES)) {
            wrongs.say(
                key.at(name),
                format_args!(
                    "the {name} has 1 to {MAX_TAG_BYTES} bytes on one line, or is left out"
                ),
            );
        }
    }
}

fn check_probes(probes: &Probes, key: &Key, wrongs: &mut Wrongs) {
    wrongs.bound(
        key.at("targets"),
        probes.targets.len(),
        MAX_TARGETS,
        "targets of probes",
    );
    for (i, target) in probes.targets.iter().enumerate() {
        if !is_somebody(*target) {
            wrongs.say(
                key.at("targets").nth(i),
                format_args!("{target} is no host on the internet; write one like \"9.9.9.9\""),
            );
        }
    }
    if !(1..=3600).contains(&probes.interval_s) {
        wrongs.say(key.at("interval_s"), "interval_s is 1 to 3600");
    }
    if !(1..=100).contains(&probes.failures) {
        wrongs.say(key.at("failures"), "failures is 1 to 100");
    }
}

fn check_sqm(sqm: &Sqm, key: &Key, wrongs: &mut Wrongs) {
    for (name, rate) in [
        ("download_kbit", sqm.download_kbit),
        ("upload_kbit", sqm.upload_kbit),
    ] {
        if rate != 0 && !(64..=10_000_000).contains(&rate) {
            wrongs.say(
                key.at(name),
                format_args!("{name} is 64 to 10000000, or 0 to leave it as it is"),
            );
        }
    }
    if sqm.download_kbit == 0 && sqm.upload_kbit == 0 {
        wrongs.say(
            key.clone(),
            "sqm with both rates 0 does nothing; remove it, or write what the line carries",
        );
    }
    if sqm
        .overhead_bytes
        .is_some_and(|bytes| !(-64..=256).contains(&bytes))
    {
        wrongs.say(key.at("overhead_bytes"), "overhead_bytes is -64 to 256");
    }
}

/// What is known of a WAN's own network must not be one of the house's.
pub(super) fn against_networks(wans: &[Wan], networks: &[Network], wrongs: &mut Wrongs) {
    for (i, wan) in wans.iter().enumerate() {
        let Way::Static(Some(ipv4)) = &wan.way else {
            continue;
        };
        let overlaps = |network: &&Network| {
            network.ipv4.contains(&ipv4.address) || ipv4.address.contains(&network.ipv4)
        };
        if let Some(network) = networks.iter().find(overlaps) {
            wrongs.say(
                Key::router().at("wan").nth(i).at("ipv4").at("address"),
                format_args!(
                    "{} overlaps the network {}; give that one another ipv4",
                    ipv4.address, network.name
                ),
            );
        }
    }
}

/// Text that is on one line and isn't empty.
pub(crate) fn is_line(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// An address that one machine may have.
pub(super) fn is_somebody(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let reserved = address.octets()[0] >= 240 || address.octets()[0] == 0;
            !(reserved || address.is_loopback() || address.is_multicast())
        }
        IpAddr::V6(address) => {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || address.to_ipv4_mapped().is_some())
        }
    }
}

fn is_global6(address: Ipv6Addr) -> bool {
    is_somebody(address.into()) && !address.is_unicast_link_local()
}

/// Whether an address of a network's is a machine's: not the network's own, not everybody's.
pub(super) fn is_host_in(net: &ipnet::Ipv4Net, address: Ipv4Addr) -> bool {
    net.contains(&address) && address != net.network() && address != net.broadcast()
}
