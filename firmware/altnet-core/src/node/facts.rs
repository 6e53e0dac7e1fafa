//! What records say, to policy and to names: answered without a heap.

use alloc::string::String;
use core::net::Ipv6Addr;

use altnet_wire::address::{self, Prefix};
use altnet_wire::id::{Name, NetworkId};
use altnet_wire::time::{Instant, UnixTime};
use altnet_wire::tls::LOGIN;

use altnet_tunnel::aead::Aead;

use super::{Network, Node};
use crate::clock::Clock;
use crate::names::{self, Answer, Carrier, ZoneIndex, ZoneView};
use crate::policy::Facts;
use crate::registry::Subject;

/// One network's records, at one moment.
pub(super) struct View<'a> {
    network: &'a Network,
    clock: &'a Clock,
    now: Instant,
    /// Whether the apps on this device count as somebody else's: to the LAN that they are beside.
    apps_are_theirs: bool,
}

impl<'a> View<'a> {
    pub(super) const fn new(network: &'a Network, clock: &'a Clock, now: Instant) -> Self {
        Self {
            network,
            clock,
            now,
            apps_are_theirs: false,
        }
    }

    /// As the machines on our LAN see it, to whom an app on this device is another's.
    pub(super) const fn beside_apps(network: &'a Network, clock: &'a Clock, now: Instant) -> Self {
        Self {
            apps_are_theirs: true,
            ..Self::new(network, clock, now)
        }
    }
}

impl Facts for View<'_> {
    fn is_ours(&self, address: Ipv6Addr) -> bool {
        let is_app = || {
            let subject = self.network.registry.by_address(address);
            matches!(subject, Some(Subject::App(..)))
        };
        self.network.is_ours(address) && !(self.apps_are_theirs && is_app())
    }

    fn is_ended(&self, expires: UnixTime) -> bool {
        self.clock.is_expired(expires, self.now)
    }
}

/// The zones of the networks this node is in. A node without one has none, and `.alt` is
/// answered all the same: nothing in it exists.
struct Zones<'a> {
    network: Option<&'a Network>,
    has_login_page: bool,
}

/// This node's only zone so far.
const ZONE: ZoneIndex = ZoneIndex(0);

impl Network {
    /// This node's address on its site's LAN, if it is the site's gateway.
    fn site_gateway(&self) -> Option<Ipv6Addr> {
        let site = self.registry.by_member(&self.own.member)?.membership.site?;
        let gateway = self.registry.gateway(site)?;
        let network = self.registry.network();
        (gateway.id == self.own.node).then(|| address::site_gateway(&network, site))
    }
}

impl Network {
    /// The address of the login page, if this node may have one: records can call something else so.
    pub(super) fn login_page(&self) -> Option<Ipv6Addr> {
        let name = Name::new(LOGIN).ok()?;
        let is_taken =
            self.registry.host(&name).is_some() || self.registry.app_by_name(&name).is_some();
        self.site_gateway().filter(|_| !is_taken)
    }
}

impl<'a> Zones<'a> {
    fn get(&self) -> Option<&'a Network> {
        self.network
    }
}

impl ZoneView for Zones<'_> {
    fn by_petname(&self, petname: &Name) -> Option<ZoneIndex> {
        self.get()
            .filter(|network| network.petname == *petname)
            .map(|_| ZONE)
    }

    fn by_id(&self, id: &NetworkId) -> Option<ZoneIndex> {
        self.get()
            .filter(|network| network.registry.network() == *id)
            .map(|_| ZONE)
    }

    fn by_address(&self, address: Ipv6Addr) -> Option<ZoneIndex> {
        self.get()
            .filter(|n| address::network_prefix(&n.registry.network()).contains(address))
            .map(|_| ZONE)
    }

    fn petname(&self, _zone: ZoneIndex) -> Name {
        match self.get() {
            Some(network) => network.petname.clone(),
            None => super::membership::default_petname(),
        }
    }

    fn serial(&self, _zone: ZoneIndex) -> u32 {
        self.get().map_or(1, |n| n.registry.revision() as u32)
    }

    fn addresses(&self, _zone: ZoneIndex, name: &Name, found: &mut dyn FnMut(Ipv6Addr)) {
        let Some(network) = self.get() else {
            return;
        };
        if let Some(address) = network
            .registry
            .host(name)
            .and_then(|host| host.record.address)
        {
            found(address);
        }
        if let Some(app) = network.registry.app_by_name(name) {
            found(app.address);
        } else if self.has_login_page
            && name.as_str() == LOGIN
            && let Some(gateway) = network.login_page()
        {
            found(gateway);
        }
    }

    fn gateways(&self, _zone: ZoneIndex, found: &mut dyn FnMut(Ipv6Addr)) {
        // This gateway itself answers; others are asked by nobody but their own LANs.
        if let Some(network) = self.get() {
            found(network.own.node.address());
        }
    }

    fn name_at(&self, _zone: ZoneIndex, address: Ipv6Addr) -> Option<Name> {
        match self.get()?.registry.by_address(address)? {
            Subject::Host(host, _) => Some(host.record.name.clone()),
            Subject::App(app, _) => Some(app.record.name.clone()),
            _ => None,
        }
    }

    fn has_below(&self, prefix: Prefix) -> bool {
        let Some(network) = self.get() else {
            return false;
        };
        let whole = address::network_prefix(&network.registry.network());
        let holds_whole = prefix.bits() <= whole.bits() && prefix.contains(whole.address());
        holds_whole
            || network
                .registry
                .hosts()
                .filter_map(|host| host.record.address)
                .chain(network.registry.apps().map(|app| app.address))
                .any(|address| prefix.contains(address))
    }
}

impl<A: Aead> Node<A> {
    /// What the login page is called in the DNS, if that leads here.
    pub fn login_page(&self) -> Option<String> {
        let network = self.network.as_ref()?;
        let leads_here = self.config.has_login_page && network.login_page().is_some();
        leads_here.then(|| alloc::format!("{LOGIN}.{}.alt", network.petname))
    }

    /// Answers a DNS message from our side, or says that it is to be forwarded. `.alt` and
    /// the network's reverse zone never are (RFC 9476, RFC 6303).
    pub fn handle_dns(&self, query: &[u8], carrier: Carrier, reply: &mut [u8]) -> Answer {
        let zones = Zones {
            network: self.network.as_ref(),
            has_login_page: self.config.has_login_page,
        };
        names::answer(query, &zones, carrier, reply)
    }
}
