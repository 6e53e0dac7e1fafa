//! What changes underneath while packets flow: how long they take, and by which lines.

use std::net::SocketAddr;

use altnet_wire::time::{Duration, Instant};

use super::{HostId, PORT, World};
use crate::net::{Line, NatId};

/// What Ethernet carries, in bytes.
const ETHERNET: usize = 1500;

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
            Some(mtu) => self.mtus.insert(host, mtu),
            None => self.mtus.remove(&host),
        };
    }

    /// Whether a datagram of so many bytes fits a host's line, to or from `address` as it sees it.
    pub(super) fn fits(&self, host: HostId, address: SocketAddr, bytes: usize) -> bool {
        let headers = if address.is_ipv4() { 28 } else { 48 };
        let mtu = self.mtus.get(&host).copied().unwrap_or(ETHERNET);
        bytes + headers <= mtu
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
