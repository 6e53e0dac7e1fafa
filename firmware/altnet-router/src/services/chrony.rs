//! chronyd: the time, asked for and told.
//!
//! Source: chrony.conf(5) of chrony 4.3.

use std::net::IpAddr;

use super::{Lines, path};
use crate::config::Service;
use crate::house::House;
use crate::plan::{Child, Places};

pub(super) fn child(house: &House, places: &Places) -> Option<Child> {
    if house.ntp.servers.is_empty() {
        return None;
    }
    let conf = path(places, "chrony.conf");
    let mut lines = Lines::default();
    for server in &house.ntp.servers {
        let kind = if server.parse::<IpAddr>().is_ok() {
            "server"
        } else {
            "pool"
        };
        lines.add(format!("{kind} {server} iburst"));
    }
    // A box without a battery begins in 1970: what is far off is set, at first, and then moved slowly.
    lines.add("makestep 1 3");
    lines.add("rtcsync");
    lines.add("cmdport 0");
    lines.add("bindcmdaddress /");
    lines.add(format!("pidfile {}", path(places, "chrony.pid")));
    lines.add(format!("driftfile {}", path(places, "chrony.drift")));
    let networks = house.networks.iter().filter(|network| {
        let zone = house.zones.get(&network.zone);
        zone.is_some_and(|zone| {
            zone.services
                .iter()
                .any(|may| matches!(may, Service::Ntp | Service::All))
        })
    });
    let networks: Vec<_> = networks.filter(|_| house.ntp.serve).collect();
    if networks.is_empty() {
        lines.add("port 0");
    }
    for network in &networks {
        lines.add(format!("allow {}", network.ipv4.trunc()));
    }
    if networks.iter().any(|network| network.ipv6) {
        // The firewall says from where; a prefix may be another tomorrow.
        lines.add("allow ::/0");
    }
    let files = vec![lines.file(places, "chrony.conf")];
    Some(super::child(
        "chronyd".into(),
        "chronyd",
        &["-n", "-u", "root", "-f", &conf],
        files,
        Vec::new(),
    ))
}
