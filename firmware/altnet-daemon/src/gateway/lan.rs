//! The LANs: what the node wants of the operating system, carried out on each interface.
//!
//! In: the node's [`Setup`] and the configuration. Out: a plan for the kernel's addresses and
//! routes, an ICMPv6 socket for the node's router advertisements, and a DNS service on each
//! LAN. Everything can be done again when an interface comes back, and is undone when the node
//! leaves its network.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use altnet_core::lan::advertisement::Mode;
use altnet_core::node::{Link, LinkId, Setup};
use altnet_wire::id::SiteId;
use altnet_wire::time::Instant;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::names::Listeners;
use crate::api::types;
use crate::config::{Advertise, Answers, Config, Lan};
use crate::dns;
use crate::icmp6::{LinkSocket, MAX_SOLICITATION_BYTES};
use crate::link::{self, LanAddress, Plan};
use crate::netlink::{Netlink, Reachable};

/// How long to wait before an advertisement that could not leave is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A machine on a LAN looks for a router.
#[derive(Debug)]
pub struct Solicited {
    /// The LAN.
    pub link: LinkId,
    /// Who asks.
    pub source: Ipv6Addr,
    /// The ICMPv6 message.
    pub message: Vec<u8>,
}

/// A LAN that is served.
#[derive(Debug)]
struct Served {
    interface: u32,
    address: Ipv6Addr,
    socket: Option<(Arc<LinkSocket>, JoinHandle<()>)>,
    mac_address: Option<[u8; 6]>,
    // An advertisement that could not leave, for a link that isn't up yet.
    unsent: Option<(Vec<u8>, Ipv6Addr)>,
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.socket {
            task.abort();
        }
    }
}

/// One configured LAN.
#[derive(Debug)]
struct Port {
    id: LinkId,
    config: Lan,
    served: Option<Served>,
    names: Listeners,
    fault: Option<String>,
}

/// All LANs.
#[derive(Debug)]
pub struct Lans {
    ports: Vec<Port>,
    answers: Answers,
    solicited: mpsc::Sender<Solicited>,
}

impl Lans {
    /// Prepares the LANs of `config`; solicitations will be sent to `solicited`.
    pub fn new(config: &Config, solicited: mpsc::Sender<Solicited>) -> Self {
        let mut lans = Self {
            ports: Vec::new(),
            answers: config.dns.answers,
            solicited,
        };
        lans.reconfigure(config);
        lans
    }

    /// Takes over the LANs of another configuration. Those that are no longer in it, or
    /// differ, end; [`Lans::serve`] begins the others.
    pub fn reconfigure(&mut self, config: &Config) {
        let mut old = std::mem::take(&mut self.ports);
        for (id, lan) in (0..).zip(&config.lan) {
            let same = |port: &Port| port.id == LinkId(id) && port.config == *lan;
            self.ports.push(match old.iter().position(same) {
                Some(at) => old.swap_remove(at),
                None => Port {
                    id: LinkId(id),
                    config: lan.clone(),
                    served: None,
                    names: Listeners::default(),
                    fault: None,
                },
            });
        }
    }

    /// The kernel's part: what [`link::Links::apply`] should make so.
    pub fn plan(&self, setup: &Setup, tun: u32, mtu_bytes: u16) -> Plan {
        let lan = self.chosen(setup).and_then(|at| self.ports.get(at));
        let is_router = |port: &Port| port.config.advertise == Advertise::Router;
        Plan {
            tun,
            mtu_bytes,
            network: setup.network,
            node: setup.node,
            is_default_router: lan.is_some_and(is_router),
            lans: lan
                .zip(setup.site)
                .map(|(port, (address, _))| LanAddress {
                    interface: port.config.interface.clone(),
                    address,
                })
                .into_iter()
                .collect(),
        }
    }

    /// The LAN that the node's site is for: the first that names it or leaves it open. A /64
    /// can't be on two links.
    fn chosen(&self, setup: &Setup) -> Option<usize> {
        let (_, site) = setup.site?;
        let [_, _, _, site, ..] = site.address().segments();
        let fits = |port: &Port| {
            port.config
                .site
                .is_none_or(|wanted| wanted.as_u16() == site)
        };
        self.ports.iter().position(fits)
    }

    /// Serves the LANs as `setup` wants, or none. To be called after the plan was applied, and
    /// again when an interface came or went. Returns the links to advertise on, and whether
    /// some of them are new.
    pub fn serve(
        &mut self,
        setup: Option<&Setup>,
        names: Option<&Arc<dns::Service>>,
        netlink: &mut Netlink,
    ) -> (Vec<Link>, bool) {
        let chosen = setup.and_then(|setup| self.chosen(setup));
        let every = match (self.answers, names) {
            // What can't be asked now is asked when links change next.
            (Answers::Every, Some(_)) => netlink.reachable_addresses().unwrap_or_default(),
            _ => Vec::new(),
        };
        let (mut links, mut some_are_new) = (Vec::new(), false);
        for (at, port) in self.ports.iter_mut().enumerate() {
            let address = setup
                .and_then(|setup| setup.site)
                .map(|(address, _)| address);
            let Some(address) = address.filter(|_| chosen == Some(at)) else {
                port.served = None;
                port.fault = port.idle_because(setup);
                if let Err(e) = port.answer(self.answers, &every, names) {
                    port.fail(&e);
                }
                continue;
            };
            let had_socket = port
                .served
                .as_ref()
                .is_some_and(|served| served.socket.is_some());
            let card = |port: &Port| {
                let served = port.served.as_ref()?;
                Some((served.interface, served.mac_address))
            };
            let before = card(port);
            let begun = port.start(address, netlink, &self.solicited);
            match begun.and_then(|()| port.answer(self.answers, &every, names)) {
                Ok(()) => port.fault = None,
                Err(e) => port.fail(&e),
            }
            if let Some(link) = port.link() {
                some_are_new |= !had_socket || before != card(port);
                links.push(link);
            }
        }
        (links, some_are_new)
    }

    /// Sends the node's ICMPv6 message on a LAN; what can't leave yet is kept for
    /// [`Lans::send_again`].
    pub fn send(&mut self, link: LinkId, message: &[u8], to: Ipv6Addr) {
        let port = self.ports.iter_mut().find(|port| port.id == link);
        if let Some(served) = port.and_then(|port| port.served.as_mut()) {
            served.send(message, to);
        }
    }

    /// Tries again what could not leave; returns when to call again.
    pub fn send_again(&mut self, now: Instant) -> Instant {
        let mut next = Instant::NEVER;
        for served in self
            .ports
            .iter_mut()
            .filter_map(|port| port.served.as_mut())
        {
            if let Some((message, to)) = served.unsent.take() {
                served.send(&message, to);
            }
            if served.unsent.is_some() {
                next = now.after(RETRY);
            }
        }
        next
    }

    /// The LANs for people.
    pub fn views(&self) -> Vec<types::Lan> {
        let view = |port: &Port| types::Lan {
            interface: port.config.interface.clone(),
            address: port
                .served
                .as_ref()
                .map(|served| served.address.to_string()),
            advertise: match port.config.advertise {
                Advertise::Router => "router",
                Advertise::Beside => "beside",
                Advertise::Off => "off",
            }
            .into(),
            fault: port.fault.clone(),
        };
        self.ports.iter().map(view).collect()
    }

    /// The indices of the interfaces that are served.
    pub fn interfaces(&self) -> Vec<u32> {
        let served = self.ports.iter().filter_map(|port| port.served.as_ref());
        served.map(|served| served.interface).collect()
    }
}

impl Port {
    /// Why this LAN is not served, for people; nothing before the node is a member.
    fn idle_because(&self, setup: Option<&Setup>) -> Option<String> {
        let Some((_, site)) = setup?.site else {
            return Some("this node is the gateway of no site".into());
        };
        Some(match self.config.site.map(SiteId::as_u16) {
            Some(wanted) => format!("this node's site is {site}, not number {wanted}"),
            None => format!("the site {site} is on another interface"),
        })
    }

    fn start(
        &mut self,
        address: Ipv6Addr,
        netlink: &mut Netlink,
        solicited: &mpsc::Sender<Solicited>,
    ) -> io::Result<()> {
        let name = &self.config.interface;
        let interface = link::index_of(name)?;
        // Another address, or another interface of the same name, starts afresh.
        let stays = |served: &Served| (served.interface, served.address) == (interface, address);
        if !self.served.as_ref().is_some_and(stays) {
            self.served = None;
        }
        let served = self.served.get_or_insert_with(|| Served {
            interface,
            address,
            socket: None,
            mac_address: None,
            unsent: None,
        });
        // A bridge takes another one with its first port.
        served.mac_address = netlink.mac_address(interface)?;
        if self.config.advertise != Advertise::Off && served.socket.is_none() {
            let socket = Arc::new(LinkSocket::open(name, interface)?);
            let listener = listen(Arc::clone(&socket), self.id, solicited.clone());
            served.socket = Some((socket, tokio::spawn(listener)));
        }
        Ok(())
    }

    /// Answers names where the configuration says, as far as this machine has addresses here.
    fn answer(
        &mut self,
        answers: Answers,
        every: &[Reachable],
        names: Option<&Arc<dns::Service>>,
    ) -> io::Result<()> {
        let own = self.served.as_ref().map(|served| served.address);
        let own = own.filter(|_| answers != Answers::Listed);
        let (Some(names), true) = (names, own.is_some() || answers == Answers::Every) else {
            self.names = Listeners::default();
            return Ok(());
        };
        let name = &self.config.interface;
        let interface = link::index_of(name)?;
        let here = every.iter().filter(|there| there.interface == interface);
        let mut wanted: BTreeSet<IpAddr> = here.map(|there| there.ip).collect();
        wanted.extend(own.map(IpAddr::V6));
        self.names.settle(names, (name, interface), &wanted)
    }

    fn fail(&mut self, e: &io::Error) {
        let fault = format!("not wholly served: {e}");
        if self.fault.as_ref() != Some(&fault) {
            crate::warning!("LAN {} is {fault}", self.config.interface);
        }
        self.fault = Some(fault);
    }

    fn link(&self) -> Option<Link> {
        let served = self.served.as_ref()?;
        served.socket.as_ref()?;
        Some(Link {
            id: self.id,
            link_address: served.mac_address,
            mode: match self.config.advertise {
                Advertise::Router => Mode::OnlyRouter,
                Advertise::Beside => Mode::BesideRouter,
                Advertise::Off => return None,
            },
        })
    }
}

impl Served {
    fn send(&mut self, message: &[u8], to: Ipv6Addr) {
        let Some((socket, _)) = &self.socket else {
            return;
        };
        self.unsent = None;
        if let Err(e) = socket.send(message, to) {
            crate::debug!("a router advertisement could not be sent yet: {e}");
            self.unsent = Some((message.to_vec(), to));
        }
    }
}

/// Hands solicitations on until the gateway or the interface is gone.
async fn listen(socket: Arc<LinkSocket>, link: LinkId, solicited: mpsc::Sender<Solicited>) {
    let mut message = [0; MAX_SOLICITATION_BYTES];
    while let Ok((len, source)) = socket.receive(&mut message).await {
        let heard = Solicited {
            link,
            source,
            message: message[..len].to_vec(),
        };
        if solicited.send(heard).await.is_err() {
            return;
        }
    }
}
