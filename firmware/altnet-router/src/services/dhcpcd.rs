//! dhcpcd, one a WAN: DHCPv4, router advertisements, DHCPv6 with a prefix for the house.
//!
//! It puts the WAN's own addresses on, and renews them; routes, and the house's addresses of a prefix, are the plan's.
//!
//! Source: dhcpcd.conf(5) of dhcpcd 9.4.

use super::{Lines, hook, path};
use crate::config::Ipv6;
use crate::house::{Wan, Way};
use crate::plan::{Child, Places};

/// None where nothing is got: everything is in the file, or IPv4 comes by PPP and there is no IPv6.
pub(super) fn child(wan: &Wan, places: &Places) -> Option<Child> {
    let has_v4 = matches!(wan.way, Way::Dhcp(_));
    let has_v6 = wan.ipv6 == Ipv6::Auto;
    if !has_v4 && !has_v6 {
        return None;
    }
    let name = format!("dhcpcd-{}", wan.name);
    let interface = wan.interface.as_str();
    let conf = path(places, &format!("{name}.conf"));
    let mut lines = Lines::default();
    lines.add(format!("script {}", path(places, &format!("{name}.hook"))));
    lines.add(format!("allowinterfaces {interface}"));
    for line in [
        "duid",
        "persistent",
        "nogateway",
        "noipv4ll",
        "noarp",
        "nodev",
        "noipv6rs",
    ] {
        lines.add(line);
    }
    if !has_v6 {
        lines.add("ipv4only");
    }
    if !has_v4 {
        lines.add("ipv6only");
    }
    lines.add("option rapid_commit");
    lines.add("option subnet_mask, routers, domain_name_servers, classless_static_routes");
    lines.add("option dhcp6_name_servers");
    lines.add("require dhcp_server_identifier");
    lines.add(format!("interface {interface}"));
    if let Way::Dhcp(Some(hostname)) = &wan.way {
        lines.add(format!("hostname {hostname}"));
    }
    if has_v6 {
        lines.add("ipv6rs");
        lines.add("slaac hwaddr");
        lines.add("ia_na 1");
        // To none of our interfaces: which network has which subnet is for the plan.
        lines.add(format!("ia_pd 2/::/{} -", wan.prefix_hint));
    }
    let files = vec![
        lines.file(places, &format!("{name}.conf")),
        hook(places, &format!("{name}.hook"), "dhcpcd"),
    ];
    let arguments = ["--nobackground", "--config", &conf, interface];
    Some(super::child(
        name,
        "dhcpcd",
        &arguments,
        files,
        vec![interface.into()],
    ))
}
