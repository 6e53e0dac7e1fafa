//! The LANs this gateway serves, and what an operating system has to be set up with.

use core::net::Ipv6Addr;

use altnet_tunnel::aead::Aead;
use altnet_wire::address::{Prefix, network_prefix, site_gateway, site_prefix};
use altnet_wire::frame::Frame;
use altnet_wire::id::Name;
use altnet_wire::time::Instant;

use super::{Node, Output};
use crate::lan::advertisement::{self, Mode, Solicitation, SolicitationError};
use crate::lan::advertiser::Advertiser;

/// Most LAN links of a node.
pub const MAX_LINKS: usize = 8;

/// A LAN link, as the driver numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u8);

/// A LAN link to advertise on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The driver's number for it.
    pub id: LinkId,
    /// Its MAC address, if it has one.
    pub link_address: Option<[u8; 6]>,
    /// Whether another router shares it.
    pub mode: Mode,
}

/// What the operating system has to be set up with while this node is a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// This node's own address, for the TUN device (/128).
    pub node: Ipv6Addr,
    /// The network's prefix, routed to the TUN device.
    pub network: Prefix,
    /// If this node is a site's gateway: its address on the LAN, and the site's prefix.
    pub site: Option<(Ipv6Addr, Prefix)>,
    /// What the network is called here.
    pub petname: Name,
}

pub(super) struct LinkState {
    id: LinkId,
    mode: Mode,
    advertiser: Advertiser,
}

impl<A: Aead> Node<A> {
    /// What the operating system has to be set up with; none while this node is no member.
    /// A driver compares it with what it last did whenever it has drained the outputs.
    pub fn setup(&self) -> Option<Setup> {
        let network = self.network.as_ref()?;
        let id = network.registry.network();
        let member = network.registry.by_member(&network.own.member)?;
        let site = self.site_prefix().and(member.membership.site);
        Some(Setup {
            node: network.own.node.address(),
            network: network_prefix(&id),
            site: site.map(|site| (site_gateway(&id, site), site_prefix(&id, site))),
            petname: network.petname.clone(),
        })
    }

    /// Serves these LAN links, at most [`MAX_LINKS`], and no others, as soon as this node is
    /// the gateway of a site.
    pub fn handle_links(&mut self, links: &[Link], now: Instant) {
        self.links
            .retain(|state| links.iter().any(|link| link.id == state.id));
        for link in links {
            match self.links.iter_mut().find(|state| state.id == link.id) {
                Some(state) => state.mode = link.mode,
                None => {
                    let state = LinkState {
                        id: link.id,
                        mode: link.mode,
                        advertiser: Advertiser::new(link.link_address, self.rng.next_u64()),
                    };
                    if self.links.push(state).is_err() {
                        break;
                    }
                }
            }
        }
        self.advertise(now);
    }

    /// An ICMPv6 message from a LAN link that may be a router solicitation.
    ///
    /// # Errors
    /// [`SolicitationError`] if it is none; nothing came of it.
    pub fn handle_link(
        &mut self,
        link: LinkId,
        source: Ipv6Addr,
        hop_limit: u8,
        message: &[u8],
        now: Instant,
    ) -> Result<(), SolicitationError> {
        let solicitation = Solicitation::parse(message, source, hop_limit)?;
        if let Some(state) = self.links.iter_mut().find(|state| state.id == link) {
            state.advertiser.handle_solicitation(&solicitation, now);
        }
        Ok(())
    }

    /// Takes everything advertised back, before the driver stops: the outputs that follow say
    /// goodbye on every link.
    pub fn close_links(&mut self, now: Instant) {
        for state in &mut self.links {
            state.advertiser.close(now);
        }
    }

    /// Advertises what this node is the gateway of now.
    pub(super) fn advertise(&mut self, now: Instant) {
        let Some(setup) = self.setup() else {
            for state in &mut self.links {
                state.advertiser.close(now);
            }
            return;
        };
        let Some((resolver, site)) = setup.site else {
            return;
        };
        let network = advertisement::Network {
            site,
            network: setup.network,
            resolver,
            petname: Some(setup.petname),
        };
        for state in &mut self.links {
            state.advertiser.advertise(state.mode, network.clone(), now);
        }
    }

    /// The next advertisement that is due.
    pub(super) fn poll_links(&mut self, frame: &mut Frame<'_>, now: Instant) -> Option<Output> {
        for state in &mut self.links {
            if state.advertiser.deadline() > now {
                continue;
            }
            let written = state.advertiser.poll(frame.space(), now);
            if let Some((to, length)) = written
                && frame.set_len(length).is_ok()
            {
                return Some(Output::Advertise { link: state.id, to });
            }
        }
        None
    }

    pub(super) fn links_deadline(&self) -> Instant {
        self.links
            .iter()
            .map(|state| state.advertiser.deadline())
            .min()
            .unwrap_or(Instant::NEVER)
    }
}
