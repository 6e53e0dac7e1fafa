//! Interfaces, what is plugged into what, and settings of the kernel about them.

use super::{Addressing, Link, LinkKind};
use crate::config::Ipv6;
use crate::house::{House, PPPOE_MTU_BYTES, Wan, Way, vlan_interface};

/// Bytes that PPPoE takes of each frame (RFC 2516 section 7).
const PPPOE_BYTES: u32 = 8;
/// What Ethernet carries by itself.
const ETHERNET_MTU_BYTES: u32 = 1500;

/// Links, each once, in the order to make them.
#[derive(Default)]
struct Links(Vec<Link>);

impl Links {
    fn add(&mut self, link: Link) {
        let Some(known) = self.0.iter_mut().find(|known| known.name == link.name) else {
            self.0.push(link);
            return;
        };
        known.bridge = link.bridge.or(known.bridge.take());
        known.mac = link.mac.or(known.mac);
        known.mtu_bytes = known.mtu_bytes.max(link.mtu_bytes);
        known.isolated |= link.isolated;
        if known.addressing == Addressing::None {
            known.addressing = link.addressing;
        }
    }
}

fn link(name: &str, kind: LinkKind, addressing: Addressing) -> Link {
    Link {
        name: name.into(),
        kind,
        bridge: None,
        mac: None,
        mtu_bytes: None,
        isolated: false,
        addressing,
    }
}

pub(super) fn links(house: &House) -> Vec<Link> {
    let mut links = Links::default();
    for wan in &house.wans {
        wan_links(wan, &mut links);
    }
    for network in &house.networks {
        links.add(link(&network.bridge, LinkKind::Bridge, Addressing::Plan));
    }
    for network in &house.networks {
        let member = |name: &str, kind: LinkKind| Link {
            bridge: Some(network.bridge.clone()),
            isolated: network.isolated,
            ..link(name, kind, Addressing::None)
        };
        for port in &network.ports {
            links.add(member(port, LinkKind::Device));
        }
        for (port, id) in &network.tagged {
            links.add(link(port, LinkKind::Device, Addressing::None));
            let parent = port.clone();
            links.add(member(
                &vlan_interface(port, *id),
                LinkKind::Vlan { parent, id: *id },
            ));
        }
    }
    for radio in &house.radios {
        for (i, (bridge, isolated)) in radio.bridges.iter().enumerate() {
            // The first name is the radio's own interface.
            let kind = if i == 0 {
                LinkKind::Radio
            } else {
                LinkKind::Childs
            };
            links.add(Link {
                bridge: Some(bridge.clone()),
                isolated: *isolated,
                ..link(&radio.bss(i), kind, Addressing::None)
            });
        }
    }
    links.0
}

fn wan_links(wan: &Wan, links: &mut Links) {
    let is_pppoe = matches!(wan.way, Way::Pppoe(_));
    let mtu = wan.mtu_bytes.map(u32::from);
    // Baby jumbo frames, where the session has more than Ethernet leaves it (RFC 4638).
    let line_mtu = if is_pppoe {
        mtu.map(|mtu| ETHERNET_MTU_BYTES.max(mtu + PPPOE_BYTES))
    } else {
        mtu
    };
    let line_mtu = line_mtu.filter(|mtu| !is_pppoe || *mtu > ETHERNET_MTU_BYTES);
    let addressing = match (&wan.way, &wan.ipv6) {
        (Way::Pppoe(_), _) => Addressing::None,
        (Way::Static(_), Ipv6::Off | Ipv6::Static(_)) => Addressing::Plan,
        _ => Addressing::Child,
    };
    let kind = match wan.vlan {
        None => LinkKind::Device,
        Some(id) => {
            links.add(Link {
                mtu_bytes: line_mtu.filter(|mtu| *mtu > ETHERNET_MTU_BYTES),
                ..link(&wan.port, LinkKind::Device, Addressing::None)
            });
            LinkKind::Vlan {
                parent: wan.port.clone(),
                id,
            }
        }
    };
    links.add(Link {
        mac: wan.mac,
        mtu_bytes: line_mtu,
        ..link(&wan.line, kind, addressing)
    });
    if is_pppoe {
        links.add(link(&wan.interface, LinkKind::Childs, Addressing::Child));
    }
    if let Some(ingress) = wan.ingress() {
        links.add(link(&ingress, LinkKind::Ifb, Addressing::None));
    }
}

/// The MTU that a PPPoE session agrees on, in bytes.
pub(crate) fn session_mtu(wan: &Wan) -> u16 {
    wan.mtu_bytes.unwrap_or(PPPOE_MTU_BYTES)
}

pub(super) fn sysctls(house: &House, links: &[Link]) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = [
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv4/tcp_syncookies", "1"),
        // The ruleset looks at sources, and knows of several WANs.
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/all/accept_redirects", "0"),
        ("net/ipv6/conf/all/accept_redirects", "0"),
        ("net/ipv4/conf/all/accept_source_route", "0"),
        // An address is answered for on its own link alone, so that a WAN doesn't learn of the house's.
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        // What a bridge carries is no router's: where br_netfilter is loaded, the rules would see it twice.
        ("net/bridge/bridge-nf-call-iptables", "0"),
        ("net/bridge/bridge-nf-call-ip6tables", "0"),
        ("net/bridge/bridge-nf-call-arptables", "0"),
    ]
    .map(|(key, value)| (key.into(), value.into()))
    .into();
    let mut set = |family: &str, link: &str, key: &str, value: &str| {
        all.push((format!("net/{family}/conf/{link}/{key}"), value.into()));
    };
    for link in links {
        let wan = house.wans.iter().find(|wan| wan.interface == link.name);
        let is_off =
            link.addressing == Addressing::None || wan.is_some_and(|wan| wan.ipv6 == Ipv6::Off);
        set(
            "ipv6",
            &link.name,
            "disable_ipv6",
            if is_off { "1" } else { "0" },
        );
        if !is_off {
            // Advertisements are for dhcpcd, which reads them itself, and on the house's own links for nobody.
            set("ipv6", &link.name, "accept_ra", "0");
        }
        if wan.is_some() {
            set("ipv4", &link.name, "rp_filter", "0");
            set("ipv4", &link.name, "send_redirects", "0");
        }
    }
    all
}
