//! miniupnpd: ports that machines open for themselves, by UPnP, NAT-PMP or PCP, of IPv4.
//!
//! It writes into a table of its own, and the firewall lets pass what it has sent to a machine. A machine opens ports
//! to itself alone, none below 1024.
//!
//! Source: miniupnpd.conf of miniupnpd 2.3.

use super::{Lines, path};
use crate::house::House;
use crate::plan::{Child, Places};
use crate::ruleset::UPNP_TABLE;

/// The TCP port at which it is asked by UPnP.
pub const PORT: u16 = 5000;

/// None where nobody may open ports, or no WAN works.
pub(super) fn child(house: &House, working: &[String], places: &Places) -> Option<Child> {
    let networks = house
        .networks
        .iter()
        .filter(|network| house.upnp.contains(&network.name));
    let networks: Vec<_> = networks.collect();
    let wan = house.wans.iter().find(|wan| {
        working
            .first()
            .is_some_and(|name| name == wan.name.as_str())
    })?;
    let first = networks.first()?;
    let conf = path(places, "miniupnpd.conf");
    let mut lines = Lines::default();
    lines.add(format!("ext_ifname={}", wan.interface));
    for network in &networks {
        lines.add(format!("listening_ip={}", network.bridge));
    }
    lines.add(format!("http_port={PORT}"));
    for line in [
        "enable_upnp=yes",
        "enable_natpmp=yes",
        "secure_mode=yes",
        "ipv6_disable=yes",
        "system_uptime=yes",
        "friendly_name=altnet",
        "min_lifetime=120",
        "max_lifetime=86400",
    ] {
        lines.add(line);
    }
    lines.add(format!("lease_file={}", path(places, "upnp.leases")));
    for key in ["upnp_table_name", "upnp_nat_table_name"] {
        lines.add(format!("{key}={UPNP_TABLE}"));
    }
    lines.add("upnp_forward_chain=forward");
    lines.add("upnp_nat_chain=prerouting");
    lines.add("upnp_nat_postrouting_chain=postrouting");
    lines.add(format!("uuid={}", uuid(first.ipv4.addr())));
    for network in &networks {
        lines.add(format!(
            "allow 1024-65535 {} 1024-65535",
            network.ipv4.trunc()
        ));
    }
    lines.add("deny 0-65535 0.0.0.0/0 0-65535");
    let mut needs: Vec<String> = networks
        .iter()
        .map(|network| network.bridge.clone())
        .collect();
    needs.push(wan.interface.clone());
    let files = vec![lines.file(places, "miniupnpd.conf")];
    let pid = path(places, "miniupnpd.pid");
    Some(super::child(
        "miniupnpd".into(),
        "miniupnpd",
        &["-d", "-f", &conf, "-P", &pid],
        files,
        needs,
    ))
}

/// Names the box on its own network, where its address does too (RFC 9562 section 5.8, all bits ours).
fn uuid(own: std::net::Ipv4Addr) -> String {
    let [a, b, c, d] = own.octets();
    format!("616c746e-6574-8000-8000-0000{a:02x}{b:02x}{c:02x}{d:02x}")
}
