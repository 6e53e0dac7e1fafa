//! Zones: what holds where nobody says otherwise, checked.

use std::collections::BTreeMap;

use super::wrong::{Key, Wrongs};
use super::{Network, Wan, Zone};
use crate::config;
use crate::config::{Name, Router, Service};

/// The most zones, with `wan`, `lan` and `guest`.
pub const MAX_ZONES: usize = 16;

pub(super) fn zones(
    router: &Router,
    wans: &[Wan],
    networks: &[Network],
    wrongs: &mut Wrongs,
) -> BTreeMap<Name, Zone> {
    let all = Key::router().at("zone");
    let mut zones: BTreeMap<Name, Zone> = ["wan", "lan", "guest"]
        .iter()
        .map(|name| usual(name))
        .collect();
    wrongs.bound(
        all.clone(),
        router.zone.len(),
        MAX_ZONES - zones.len(),
        "zones beside wan, lan and guest",
    );
    for (i, written) in router.zone.iter().enumerate() {
        let key = all.nth(i);
        let name = written.name.as_str();
        if matches!(name, "router" | "any") {
            wrongs.say(
                key.at("name"),
                format_args!("{name} has a meaning of its own in rules; use another name"),
            );
        }
        if router
            .zone
            .iter()
            .take(i)
            .any(|other| other.name == written.name)
        {
            wrongs.say(
                key.at("name"),
                format_args!("the zone {name} is there twice; write it once"),
            );
        }
        if name == "wan" {
            check_wan(written, &key, wrongs);
        }
        let zone = zones
            .entry(written.name.clone())
            .or_insert_with(|| usual(name).1);
        zone.to = written.to.clone().unwrap_or_else(|| zone.to.clone());
        zone.services = written
            .services
            .clone()
            .unwrap_or_else(|| zone.services.clone());
        zone.within = written.within.unwrap_or(zone.within);
        zone.private = written.private.unwrap_or(zone.private);
    }
    for (i, written) in router.zone.iter().enumerate() {
        for (n, to) in written.to.iter().flatten().enumerate() {
            let key = all.nth(i).at("to").nth(n);
            if *to == written.name {
                wrongs.say(key, "a zone reaches itself by within = true");
            } else if !zones.contains_key(to) {
                wrongs.say(key, no_zone(to, &zones));
            }
        }
    }
    plug(&mut zones, wans, networks, wrongs);
    zones
}

/// What holds of a zone if nobody says otherwise.
fn usual(name: &str) -> (Name, Zone) {
    let wan: Name = "wan".parse().expect("it is a name");
    let services = match name {
        "wan" => vec![],
        "lan" => vec![Service::All],
        _ => vec![Service::Dhcp, Service::Dns, Service::Ntp, Service::Ping],
    };
    let zone = Zone {
        to: if name == "wan" {
            vec![]
        } else {
            vec![wan.clone()]
        },
        services,
        within: name == "lan",
        private: name == "lan",
        interfaces: Vec::new(),
    };
    (name.parse().unwrap_or(wan), zone)
}

/// Nobody opens the house to the internet by a word of a zone.
fn check_wan(zone: &config::Zone, key: &Key, wrongs: &mut Wrongs) {
    if zone.to.as_ref().is_some_and(|to| !to.is_empty()) {
        wrongs.say(key.at("to"), "what comes from the internet is let in by [[router.forward]], [[router.pinhole]] or [[router.rule]]; remove this");
    }
    if zone.within == Some(true) {
        wrongs.say(
            key.at("within"),
            "one provider doesn't reach another by way of a house; remove this",
        );
    }
    if zone.private == Some(true) {
        wrongs.say(
            key.at("private"),
            "the internet is not of the private network; remove this",
        );
    }
    for (i, service) in zone.services.iter().flatten().enumerate() {
        if *service != Service::Ping {
            wrongs.say(key.at("services").nth(i), "of the box the internet may use \"ping\" alone; anything else is a [[router.rule]] to \"router\"");
        }
    }
}

fn plug(zones: &mut BTreeMap<Name, Zone>, wans: &[Wan], networks: &[Network], wrongs: &mut Wrongs) {
    for (name, zone) in zones.iter_mut() {
        if name.as_str() == "wan" {
            zone.interfaces
                .extend(wans.iter().map(|wan| wan.interface.clone()));
            continue;
        }
        let of_zone = networks.iter().filter(|network| network.zone == *name);
        zone.interfaces
            .extend(of_zone.map(|network| network.bridge.clone()));
    }
    for (i, network) in networks.iter().enumerate() {
        let key = Key::router().at("network").nth(i).at("zone");
        if network.zone.as_str() == "wan" {
            wrongs.say(
                key,
                "a network of the house is not in the zone wan; write \"lan\" or \"guest\"",
            );
        } else if !zones.contains_key(&network.zone) {
            wrongs.say(key, no_zone(&network.zone, zones));
        }
    }
}

pub(super) fn no_zone(name: &Name, zones: &BTreeMap<Name, Zone>) -> String {
    let names: Vec<&str> = zones.keys().map(Name::as_str).collect();
    format!(
        "there is no zone {name}; write one of {}, or a [[router.zone]] for it",
        names.join(", ")
    )
}
