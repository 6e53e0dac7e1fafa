//! Groups that machines are in by where they are plugged in (ADR 0008): what the configuration has
//! for a port, a VLAN or a MAC address, and machines that move.

use std::net::Ipv6Addr;

use altnet_wire::id::Name;
use altnet_wire::time::Instant;

use super::Gateway;
use super::machines::{Entry, Groups, MOST_MACHINES, Machine, Seen};
use crate::config;
use crate::netlink::bridge::{Learnt, Place};
use crate::netlink::neighbour::{Mac, Neighbour, mac_text};

/// The groups for a place. None if that takes knowing the place, and nobody knows.
fn groups_at(
    rules: &[config::Machines],
    machine: Machine,
    place: Option<&Place>,
) -> Option<Groups> {
    let mac = mac_text(&machine.mac);
    let mut groups = Groups::new();
    for rule in rules {
        let is_mac = rule.mac.as_ref().is_none_or(|wanted| *wanted == mac);
        if is_mac && (rule.port.is_some() || rule.vlan.is_some()) {
            let place = place?;
            let is_there = rule.port.as_ref().is_none_or(|port| *port == place.port)
                && rule.vlan.is_none_or(|vlan| Some(vlan) == place.vlan);
            if !is_there {
                continue;
            }
        } else if !is_mac {
            continue;
        }
        for group in &rule.groups {
            if !groups.contains(group) {
                // The configuration names no more.
                let _ = groups.push(group.clone());
            }
        }
    }
    Some(groups)
}

impl Gateway {
    /// A bridge has learnt where somebody is plugged in.
    pub(super) fn moved(&mut self, learnt: &Learnt, interfaces: &[u32], now: Instant) {
        if self.machines.rules.is_empty() {
            return;
        }
        for interface in interfaces.iter().copied() {
            let mac = learnt.mac;
            let machine = Machine { interface, mac };
            // Whoever sends from addresses nobody is at costs no question to the kernel.
            let is_known = self.machines.entries.contains_key(&machine)
                || (self.machines.seen.values()).any(|seen| *seen == Seen::At(machine));
            if !is_known {
                continue;
            }
            if let Ok(Some(place)) = self.netlink.place_told(interface, learnt) {
                self.put(machine, Some(place), now);
            }
        }
    }

    /// A machine is plugged in somewhere. Returns whether it counts as what it should for that.
    pub(super) fn put(&mut self, machine: Machine, place: Option<Place>, now: Instant) -> bool {
        let Some(placed) = groups_at(&self.machines.rules, machine, place.as_ref()) else {
            return false;
        };
        let is_full = self.machines.entries.len() >= MOST_MACHINES;
        let Some(entry) = self.machines.entries.get_mut(&machine) else {
            if placed.is_empty() {
                return true;
            }
            if is_full {
                return false;
            }
            let entry = Entry {
                place,
                placed,
                ..Entry::default()
            };
            note_place(machine, &entry);
            self.machines.entries.insert(machine, entry);
            // Where it was met before, it was nobody in particular.
            let seen = self.machines.seen.iter();
            let met = seen.filter(|(_, seen)| **seen == Seen::At(machine));
            let met: Vec<Ipv6Addr> = met.map(|(address, _)| *address).collect();
            for address in met {
                let Machine { interface, mac } = machine;
                let found = Neighbour {
                    interface,
                    address,
                    mac,
                };
                self.meet(found, now);
            }
            return true;
        };
        if place.is_some() {
            entry.place = place;
        }
        if entry.placed == placed {
            return true;
        }
        entry.placed = placed;
        note_place(machine, entry);
        self.tell_all(machine, now);
        true
    }

    /// Says which groups of places the policy doesn't let this gateway speak of, once.
    pub(super) fn complain_of_places(&mut self, now: Instant) {
        if self.machines.rules.is_empty() {
            return;
        }
        for view in self.node.logins(now) {
            let rules = self.machines.rules.iter();
            let groups = rules.flat_map(|rule| &rule.groups);
            let uncounted =
                groups.filter(|group| view.not_counted.iter().any(|n| *n == group.as_str()));
            let uncounted: Vec<Name> = uncounted.cloned().collect();
            for group in uncounted {
                if self.machines.complained.insert(group.clone()) {
                    crate::warning!(
                        "[[machines]] puts machines into the group {group}, and the policy doesn't let this gateway say so: an owner names it in [[logins]]"
                    );
                }
            }
        }
    }

    /// Takes over what the configuration says of machines.
    pub(super) fn take_places(&mut self, rules: &[config::Machines], now: Instant) {
        self.machines.rules = rules.to_vec();
        self.machines.complained.clear();
        if !rules.is_empty()
            && let Err(e) = self.machines.watch()
        {
            crate::error!("machines that move are not noticed: {e}");
        }
        self.place_anew(now);
    }

    /// Looks up anew where everybody is plugged in.
    pub(super) fn place_anew(&mut self, now: Instant) {
        self.machines.anew = None;
        self.machines.seen.clear();
        for interface in self.lans.interfaces() {
            let all = self.machines.entries.keys();
            let all = all.filter(|machine| machine.interface == interface);
            let macs: Vec<Mac> = all.map(|machine| machine.mac).collect();
            let places = self.netlink.places(interface, &macs);
            let mut places = places.unwrap_or_default();
            for mac in macs {
                self.put(Machine { interface, mac }, places.remove(&mac), now);
            }
        }
    }

    /// Where a machine is plugged in, as far as that is known.
    pub(super) fn place_of(&mut self, machine: Machine) -> Option<Place> {
        let Machine { interface, mac } = machine;
        let places = self.netlink.places(interface, &[mac]);
        places.ok()?.remove(&mac)
    }
}

fn note_place(machine: Machine, entry: &Entry) {
    let mac = mac_text(&machine.mac);
    let port = entry.place.as_ref().map_or("no port", |place| &place.port);
    let groups = entry.placed.iter().map(Name::as_str);
    let groups: Vec<&str> = groups.collect();
    crate::debug!("{mac} at {port} is in these groups by its place: {groups:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(
        groups: &[&str],
        port: Option<&str>,
        vlan: Option<u16>,
        mac: Option<&str>,
    ) -> config::Machines {
        config::Machines {
            groups: groups
                .iter()
                .map(|group| Name::new(group).unwrap())
                .collect(),
            port: port.map(String::from),
            vlan,
            mac: mac.map(String::from),
        }
    }

    #[test]
    fn a_machine_is_in_the_groups_of_every_section_that_fits() {
        let rules = [
            rule(&["guests"], Some("lan4"), None, None),
            rule(&["guests", "cameras"], None, Some(20), None),
            rule(&["both"], Some("lan4"), Some(20), None),
            rule(&["mine"], None, None, Some("02:00:00:00:00:07")),
        ];
        let machine = |last| Machine {
            interface: 1,
            mac: [2, 0, 0, 0, 0, last],
        };
        let at = |last, port: &str, vlan| {
            let port = port.into();
            let groups = groups_at(&rules, machine(last), Some(&Place { port, vlan }));
            let groups: Vec<String> = groups.unwrap().iter().map(Name::to_string).collect();
            groups.join(" ")
        };
        assert_eq!(at(1, "lan1", None), "");
        assert_eq!(at(1, "lan4", None), "guests");
        assert_eq!(at(1, "lan1", Some(20)), "guests cameras");
        assert_eq!(at(1, "lan4", Some(20)), "guests cameras both");
        assert_eq!(at(7, "lan1", Some(2)), "mine");
        // Nobody knows where it is, so nobody knows what it is.
        assert_eq!(groups_at(&rules, machine(7), None), None);
    }
}
