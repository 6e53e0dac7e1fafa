//! From the file to a house: defaults, names and what holds of the whole.

use std::net::IpAddr;

use super::{
    Altnet, House, Wrongs, firewall, hosts, networks, ports::Plugged, wans, wifi, wrong::Key, zones,
};
use crate::board::Ports;
use crate::config::words::interface;
use crate::config::{Domain, Network, Ntp, Router, Wan};

/// The most servers of time.
const MAX_SERVERS: usize = 8;

impl Router {
    /// What this means on a board with these ports, beside this altnetd.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn resolve(&self, ports: &Ports, altnet: &Altnet) -> Result<House, Wrongs> {
        let mut wrongs = Wrongs::default();
        check_altnet(altnet, &mut wrongs);
        let written = self.with_defaults();
        let mut plugged = Plugged::new(ports, altnet, &written);
        let wans = wans::resolve(&written.wan, &mut plugged, &mut wrongs);
        let networks = networks::resolve(&written, &mut plugged, &mut wrongs);
        let zones = zones::zones(&written, &wans, &networks, &mut wrongs);
        wans::against_networks(&wans, &networks, &mut wrongs);
        let hosts = hosts::hosts(&written.host, &networks, &mut wrongs);
        let forwards = firewall::forwards(
            &written.forward,
            &wans,
            &networks,
            &hosts,
            altnet,
            &mut wrongs,
        );
        let pinholes = firewall::pinholes(&written.pinhole, &networks, &hosts, &mut wrongs);
        let rules = firewall::rules(&written.rule, &zones, &mut wrongs);
        let upnp = firewall::upnp(&written.upnp, &networks, &mut wrongs);
        let radios = wifi::resolve(&written.wifi, &networks, &mut plugged, &mut wrongs);
        ntp(&written.ntp, &mut wrongs);
        if !wrongs.is_empty() {
            return Err(wrongs);
        }
        Ok(House {
            altnet: altnet.clone(),
            wans,
            networks,
            zones,
            hosts,
            forwards,
            pinholes,
            rules,
            radios,
            upnp,
            offload: written.offload,
            ntp: Ntp {
                // Who doesn't ask doesn't know.
                serve: written.ntp.serve && !written.ntp.servers.is_empty(),
                servers: written.ntp.servers,
            },
        })
    }

    /// With a WAN and a network, if none is written.
    fn with_defaults(&self) -> Self {
        let mut written = self.clone();
        if written.wan.is_empty() {
            written.wan.push(Wan::default());
        }
        if written.network.is_empty() {
            written
                .network
                .push(Network::new("lan".parse().expect("it is a name")));
        }
        written
    }
}

/// What the firewall lets through for altnetd has a name and a number.
fn check_altnet(altnet: &Altnet, wrongs: &mut Wrongs) {
    if let Err(why) = interface(&altnet.tun) {
        wrongs.say(Key::of("tun").at("name"), why);
    }
    if altnet.listen_port == 0 {
        wrongs.say(
            Key::of("listen_port"),
            "beside a [router] altnetd's port has a number; write one, as 51820",
        );
    }
}

fn ntp(ntp: &Ntp, wrongs: &mut Wrongs) {
    let key = Key::router().at("ntp").at("servers");
    wrongs.bound(
        key.clone(),
        ntp.servers.len(),
        MAX_SERVERS,
        "servers of time",
    );
    for (i, server) in ntp.servers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() && server.parse::<Domain>().is_err() {
            wrongs.say(
                key.nth(i),
                format_args!(
                    "{server:?} is no server; write \"ntp.example.net\" or \"192.0.2.123\""
                ),
            );
        }
    }
}

/// Whether an interface may be named by a person: neither the loopback's, nor one that a plan makes, nor altnetd's.
pub(super) fn is_free(name: &str, altnet: &Altnet) -> bool {
    const OURS: [&str; 3] = ["br-", "ppp-", "ifb-"];
    interface(name).is_ok()
        && name != "lo"
        && name != altnet.tun
        && !OURS.iter().any(|prefix| name.starts_with(prefix))
}
