//! What changes underneath while packets flow: how long they take, and by which lines.

use std::net::SocketAddr;

use altnet_wire::endpoint::PortId;
use altnet_wire::time::{Duration, Instant};

use super::{HostId, PORT, World};
use crate::net::{Line, NatId};

/// What Ethernet carries, in bytes.
const ETHERNET: usize = 1500;

/// How much a host's line carries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mtu {
    bytes: usize,
    /// Whether the host is told of what is lost.
    is_told: bool,
}

fn headers(address: SocketAddr) -> usize {
    if address.is_ipv4() { 28 } else { 48 }
}

impl World {
    /// Has every datagram take at least so long from now on.
    pub const fn delay(&mut self, delay: Duration) {
        self.delay = delay;
    }

    /// Suspends a host: it hears nothing and does nothing, while time passes for everybody.
    pub fn suspend(&mut self, host: HostId) {
        self.asleep.insert(host);
        self.hosts[host.0].wake = Instant::NEVER;
    }

    /// Wakes a host that was suspended. All that it finds is a later moment.
    pub fn resume(&mut self, host: HostId) {
        self.asleep.remove(&host);
        self.hosts[host.0].wake = self.now;
    }

    /// Has a host's datagrams get no further than its own LAN, as behind a firewall, or lets them out
    /// again.
    pub fn confine(&mut self, host: HostId, on: bool) {
        if on {
            self.confined.insert(host);
        } else {
            self.confined.remove(&host);
        }
    }

    /// Has a host's lines lose, without a word, every datagram that makes an IP packet of more than
    /// `mtu` bytes, in both directions; none smaller than Ethernet's if there is no such number.
    pub fn narrow(&mut self, host: HostId, mtu: Option<usize>) {
        match mtu {
            Some(bytes) => {
                let is_told = false;
                self.mtus.insert(host, Mtu { bytes, is_told })
            }
            None => self.mtus.remove(&host),
        };
    }

    /// The same for a host's own interface, whose kernel says so, and cuts what it may. What comes
    /// the other way isn't lost.
    pub fn narrow_interface(&mut self, host: HostId, bytes: usize) {
        let is_told = true;
        self.mtus.insert(host, Mtu { bytes, is_told });
    }

    /// Whether a datagram leaves a host.
    pub(super) fn leaves(
        &mut self,
        host: HostId,
        port: PortId,
        to: SocketAddr,
        bytes: usize,
    ) -> bool {
        let fits = bytes + headers(to) <= self.mtus.get(&host).map_or(ETHERNET, |mtu| mtu.bytes);
        let is_told = self.mtus.get(&host).is_some_and(|mtu| mtu.is_told);
        if fits || port == PortId::FRAGMENTS {
            return true;
        }
        if !is_told {
            return false;
        }
        let now = self.now;
        if let Some(node) = &mut self.hosts[host.0].node {
            node.handle_too_large(to, bytes, now);
        }
        false
    }

    /// Whether a datagram of so many bytes fits a host's line, from `address` as it sees it.
    pub(super) fn fits(&self, host: HostId, address: SocketAddr, bytes: usize) -> bool {
        let mtu = self.mtus.get(&host).filter(|mtu| !mtu.is_told);
        bytes + headers(address) <= mtu.map_or(ETHERNET, |mtu| mtu.bytes)
    }

    /// Replaces a host's lines by these, and tells its node what netlink tells a daemon: every
    /// address that its interfaces have, those that a NAT hides too.
    ///
    /// # Panics
    /// If what should be an address isn't.
    pub fn rewire(&mut self, host: HostId, lines: &[(String, Option<NatId>)]) {
        self.net.unplug_all(host.0);
        let mut told = Vec::new();
        for (address, nat) in lines {
            let address = address.parse().expect("a test's address");
            let (host, nat, nat64) = (host.0, *nat, None);
            self.net.plug_in(Line {
                host,
                address,
                nat,
                nat64,
            });
            told.push(SocketAddr::new(address, PORT));
        }
        if self.is_on(host) {
            self.with(host, |node, now| node.handle_interfaces(&told, now));
        }
    }
}
