//! What is plugged in where: roles become interfaces, and an interface is one thing alone.

use std::collections::{BTreeMap, BTreeSet};

use super::Altnet;
use super::resolve::is_free;
use super::wrong::{Key, Wrongs};
use crate::board::Ports;
use crate::config::words::MAX_INTERFACE_BYTES;
use crate::config::{Port, Router};

/// The ports of a board, and who has which.
pub(super) struct Plugged<'a> {
    ports: &'a Ports,
    altnet: &'a Altnet,
    /// The LAN ports that are left for `port:lan`.
    rest: Vec<String>,
    /// What an interface without tags is, for people.
    untagged: BTreeMap<String, String>,
    tagged: BTreeMap<(String, u16), String>,
    /// The VLANs' own interfaces.
    vlans: BTreeSet<String>,
}

impl<'a> Plugged<'a> {
    pub(super) fn new(ports: &'a Ports, altnet: &'a Altnet, written: &Router) -> Self {
        let wans = written
            .wan
            .iter()
            .filter(|wan| wan.vlan.is_none())
            .map(|wan| &wan.interface);
        let radios = written.wifi.iter().filter_map(|wifi| wifi.radio.as_ref());
        let members = written.network.iter().flat_map(|network| &network.ports);
        let named: BTreeSet<String> = wans
            .chain(radios)
            .chain(members)
            .filter_map(|port| one(port, ports))
            .collect();
        let rest = ports.lan.iter().filter(|name| !named.contains(*name));
        Self {
            ports,
            altnet,
            rest: rest.cloned().collect(),
            untagged: BTreeMap::new(),
            tagged: BTreeMap::new(),
            vlans: BTreeSet::new(),
        }
    }

    /// The interface of a port that is one.
    pub(super) fn one(&self, port: &Port, key: &Key, wrongs: &mut Wrongs) -> Option<String> {
        if *port == Port::Lans {
            wrongs.say(
                key.clone(),
                "port:lan is several ports; write one, as \"port:lan1\"",
            );
            return None;
        }
        let found = one(port, self.ports);
        match &found {
            None => wrongs.say(
                key.clone(),
                format_args!(
                    "this board has no {port}; write an interface's name, which `ip link` shows"
                ),
            ),
            Some(name) if !is_free(name, self.altnet) => {
                wrongs.say(
                    key.clone(),
                    format_args!(
                        "{name} is not for this; write a port's name, which `ip link` shows"
                    ),
                );
                return None;
            }
            Some(_) => {}
        }
        found
    }

    /// The interfaces of ports of which one may be `port:lan`: what is left of those, or all where they carry tags.
    pub(super) fn members(
        &self,
        port: &Port,
        is_tagged: bool,
        key: &Key,
        wrongs: &mut Wrongs,
    ) -> Vec<String> {
        match port {
            Port::Lans if is_tagged => self.ports.lan.clone(),
            Port::Lans => self.rest.clone(),
            Port::Radio(_) => {
                wrongs.say(
                    key.clone(),
                    "a radio is no port of a network; name the network in [[router.wifi.ssid]]",
                );
                Vec::new()
            }
            Port::Wan | Port::Lan(_) | Port::Device(_) => {
                self.one(port, key, wrongs).into_iter().collect()
            }
        }
    }

    /// Gives an interface to somebody, and says so if it is another's.
    pub(super) fn take(&mut self, name: &str, whose: &str, key: &Key, wrongs: &mut Wrongs) {
        if let Some(other) = self.untagged.insert(name.into(), whose.into()) {
            wrongs.say(
                key.clone(),
                format_args!("{name} is {other} already; a port without VLANs is one thing alone"),
            );
        }
    }

    /// Gives a VLAN of an interface to somebody; the name of its own interface.
    pub(super) fn take_vlan(
        &mut self,
        name: &str,
        id: u16,
        whose: &str,
        key: &Key,
        wrongs: &mut Wrongs,
    ) -> String {
        let taken = self.tagged.insert((name.into(), id), whose.into());
        let own = vlan_interface(name, id);
        if let Some(other) = taken {
            wrongs.say(
                key.clone(),
                format_args!("VLAN {id} on {name} is {other} already; use another id"),
            );
        } else if !self.vlans.insert(own.clone()) {
            wrongs.say(
                key.clone(),
                format_args!(
                    "VLAN {id} on {name} would be called {own} as another is; use another id"
                ),
            );
        }
        own
    }
}

/// The interface of a VLAN: the port's name and the id, or where that is too long the end of it.
pub(crate) fn vlan_interface(port: &str, id: u16) -> String {
    let id = format!(".{id}");
    let too_long = (port.len() + id.len()).saturating_sub(MAX_INTERFACE_BYTES);
    // Names of interfaces that are let in are ASCII.
    format!("{}{id}", port.get(too_long..).unwrap_or(port))
}

fn one(port: &Port, ports: &Ports) -> Option<String> {
    let nth = |of: &[String], n: u8| of.get(usize::from(n).checked_sub(1)?).cloned();
    match port {
        Port::Wan => ports.wan.clone(),
        Port::Lans => None,
        Port::Lan(n) => nth(&ports.lan, *n),
        Port::Radio(n) => nth(&ports.radios, *n),
        Port::Device(name) => Some(name.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_of_a_vlan_is_no_longer_than_one_may_be() {
        for (port, id, expected) in [
            ("wan", 7, "wan.7"),
            ("enp0s31f6", 4094, "enp0s31f6.4094"),
            ("enx001122334455", 100, "01122334455.100"),
        ] {
            assert_eq!(vlan_interface(port, id), expected);
        }
    }
}
