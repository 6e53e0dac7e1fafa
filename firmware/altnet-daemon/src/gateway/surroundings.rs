//! Where this machine can be reached, and what is around it, told to the node.

use std::net::{IpAddr, SocketAddr};

use altnet_core::node::{Subnet, Surroundings};
use altnet_wire::time::Instant;

use super::Gateway;
use super::nat64::on_the_way;
use crate::netlink::Reachable;

impl Gateway {
    /// Tells the node where this machine can be reached: on every side but the LANs and the
    /// tunnel first, then on the LANs.
    pub(super) fn tell_interfaces(&mut self, now: Instant) {
        let (Ok(found), Ok(port)) = (self.netlink.reachable_addresses(), self.ports.number())
        else {
            self.nat64.put_off(now);
            return;
        };
        let own = self.node.setup().map(|setup| setup.network);
        self.nat64.set_own(own);
        let is_own = |ip: IpAddr| match (own, ip) {
            (Some(own), IpAddr::V6(ip)) => own.contains(ip),
            _ => false,
        };
        let lans = self.lans.interfaces();
        let tun = self.tun.index();
        let found = found.into_iter().filter(|found| found.interface != tun);
        // Nobody is reached at the network's own addresses: from elsewhere they lead into the tunnel.
        let (own, found): (Vec<_>, Vec<_>) = found.partition(|found| is_own(found.ip));
        let (inside, outside): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|found| lans.contains(&found.interface));
        let through = self.netlink.default_interfaces().unwrap_or_default();
        let prefix = self.nat64.look(&on_the_way(&outside, &through), now);
        self.tell_surroundings(&own, &inside, port, now);
        let addresses: Vec<SocketAddr> = outside
            .into_iter()
            .chain(inside)
            .map(|found| SocketAddr::new(found.ip, port))
            .collect();
        self.node.handle_pref64(prefix, now);
        self.node.handle_interfaces(&addresses, now);
    }

    /// Tells the node of the networks on the LANs, of the routers of this machine, and of its own
    /// addresses in LANs of others.
    fn tell_surroundings(
        &mut self,
        own: &[Reachable],
        inside: &[Reachable],
        port: u16,
        now: Instant,
    ) {
        let lans = self.lans.interfaces();
        let gateways = self.netlink.default_gateways().unwrap_or_default();
        let subnet = |found: &Reachable| Subnet {
            address: found.ip,
            bits: found.bits,
        };
        let on_lans = inside.iter().chain(own);
        let on_lans = on_lans.filter(|found| lans.contains(&found.interface));
        let others = own.iter().filter(|found| !lans.contains(&found.interface));
        let mut around = Surroundings::default();
        // More than there is room for are none.
        for found in on_lans {
            let _ = around.lans.push(subnet(found));
        }
        for found in others {
            if let IpAddr::V6(ip) = found.ip {
                let _ = around.inside.push(ip);
            }
        }
        let is_usable = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => true,
            // A link-local address means nothing without its link.
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        for router in gateways
            .iter()
            .map(|gateway| gateway.address)
            .filter(is_usable)
        {
            let _ = around.routers.push(SocketAddr::new(router, port));
        }
        self.node.handle_surroundings(&around, now);
    }
}
