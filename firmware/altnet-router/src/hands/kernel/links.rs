//! Interfaces: bridges, VLANs, and the ports that are plugged into them.

use std::io;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVlan,
    LinkAttribute, LinkFlags, LinkInfo, LinkMessage, State,
};

use super::super::netlink::Netlink;
use crate::machine::LinkFact;
use crate::plan::{Link, LinkKind};

/// The alias of interfaces that were made for a plan.
const MADE: &str = "altnet-router";
/// The alias of interfaces that a plan plugged into a bridge.
const USED: &str = "altnet-router port";

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u32,
    pub(super) name: String,
    kind: Kind,
    controller: Option<u32>,
    is_isolated: bool,
    mac: Vec<u8>,
    mtu_bytes: u32,
    alias: String,
    is_up: bool,
    has_carrier: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Other,
    Bridge,
    Vlan {
        parent: u32,
        id: u16,
    },
    Ifb,
}

impl Found {
    pub(super) fn fact(&self) -> LinkFact {
        LinkFact {
            name: self.name.clone(),
            is_up: self.is_up,
            has_carrier: self.has_carrier,
            bridge: self.controller.unwrap_or(0),
        }
    }

    fn read(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut found = Self {
            index: message.header.index,
            is_up: flags.contains(LinkFlags::Up),
            has_carrier: flags.contains(LinkFlags::LowerUp),
            ..Self::default()
        };
        let (mut parent, mut vlan) = (0, None);
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => found.name = name,
                LinkAttribute::IfAlias(alias) => found.alias = alias,
                LinkAttribute::Address(mac) => found.mac = mac,
                LinkAttribute::Mtu(mtu) => found.mtu_bytes = mtu,
                LinkAttribute::Link(index) => parent = index,
                LinkAttribute::Controller(index) => found.controller = Some(index),
                LinkAttribute::OperState(state) => {
                    found.has_carrier &= matches!(state, State::Up | State::Unknown);
                }
                LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| match info {
                    LinkInfo::Kind(InfoKind::Bridge) => found.kind = Kind::Bridge,
                    LinkInfo::Kind(InfoKind::Ifb) => found.kind = Kind::Ifb,
                    LinkInfo::Data(InfoData::Vlan(about)) => {
                        vlan = about.iter().find_map(|one| match one {
                            InfoVlan::Id(id) => Some(*id),
                            _ => None,
                        });
                    }
                    LinkInfo::PortData(InfoPortData::BridgePort(about)) => {
                        found.is_isolated = about.contains(&InfoBridgePort::Isolated(true));
                    }
                    _ => {}
                }),
                _ => {}
            }
        }
        if let Some(id) = vlan {
            found.kind = Kind::Vlan { parent, id };
        }
        found
    }
}

pub(super) fn read(netlink: &mut Netlink) -> io::Result<Vec<Found>> {
    let answers = netlink.list(&RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let links = answers.into_iter().filter_map(|answer| match answer {
        RouteNetlinkMessage::NewLink(message) => Some(Found::read(message)),
        _ => None,
    });
    Ok(links.collect())
}

/// Makes what isn't there yet, and removes what an earlier plan made and this one doesn't want. Nothing is set up.
pub(super) fn make(netlink: &mut Netlink, links: &[Link], troubles: &mut Vec<String>) {
    let mut found = match read(netlink) {
        Ok(found) => found,
        Err(e) => return troubles.push(format!("can't list interfaces: {e}")),
    };
    found.retain(|old| {
        let wanted = links.iter().find(|link| link.name == old.name);
        let stays = old.alias != MADE || wanted.is_some_and(|link| is_such(old, &link.kind, &[]));
        if !stays && let Err(e) = remove(netlink, old.index) {
            troubles.push(format!("can't remove the interface {}: {e}", old.name));
        }
        stays
    });
    for link in links {
        let result = make_one(netlink, link, &mut found);
        if let Err(e) = result {
            troubles.push(format!("can't make the interface {}: {e}", link.name));
        }
    }
}

fn make_one(netlink: &mut Netlink, link: &Link, found: &mut Vec<Found>) -> io::Result<()> {
    if let Some(old) = found.iter().find(|old| old.name == link.name) {
        if is_such(old, &link.kind, found) {
            return Ok(());
        }
        if old.alias != MADE {
            return Err(io::Error::other(
                "there is another one of that name; rename that one, or this one's network",
            ));
        }
        remove(netlink, old.index)?;
    }
    let mut info = Vec::new();
    let mut message = LinkMessage::default();
    match &link.kind {
        LinkKind::Device | LinkKind::Radio => {
            return Err(io::Error::other("it is not there; is it plugged in?"));
        }
        LinkKind::Childs => return Ok(()),
        LinkKind::Bridge => {
            info.push(LinkInfo::Kind(InfoKind::Bridge));
            // It forwards at once: there is no spanning tree to wait for.
            info.push(LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::ForwardDelay(0),
            ])));
        }
        LinkKind::Vlan { parent, id } => {
            let parent = found.iter().find(|one| one.name == *parent);
            let parent = parent.ok_or_else(|| io::Error::other("its parent is not there"))?;
            message.attributes.push(LinkAttribute::Link(parent.index));
            info.push(LinkInfo::Kind(InfoKind::Vlan));
            info.push(LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(*id)])));
        }
        LinkKind::Ifb => info.push(LinkInfo::Kind(InfoKind::Ifb)),
    }
    message
        .attributes
        .push(LinkAttribute::IfName(link.name.clone()));
    message.attributes.push(LinkAttribute::LinkInfo(info));
    netlink.change(
        RouteNetlinkMessage::NewLink(message),
        NLM_F_CREATE | NLM_F_EXCL,
    )?;
    *found = read(netlink)?;
    let made = found.iter().find(|one| one.name == link.name);
    let index = made.map(|made| made.index).ok_or(io::ErrorKind::NotFound)?;
    mark(netlink, index, MADE)
}

/// Whether an interface is what a plan wants it to be. Without a list of interfaces a VLAN's parent isn't judged.
fn is_such(old: &Found, kind: &LinkKind, all: &[Found]) -> bool {
    match (kind, old.kind) {
        (LinkKind::Device | LinkKind::Radio | LinkKind::Childs, _) => true,
        (LinkKind::Bridge, kind) => kind == Kind::Bridge,
        (LinkKind::Ifb, kind) => kind == Kind::Ifb,
        (
            LinkKind::Vlan { parent, id },
            Kind::Vlan {
                parent: index,
                id: found,
            },
        ) => {
            let named = all.iter().find(|one| one.index == index);
            *id == found && named.is_none_or(|one| one.name == *parent)
        }
        (LinkKind::Vlan { .. }, _) => false,
    }
}

/// Plugs ports in and out, sets MAC addresses and MTUs, and sets everything up that is there.
pub(super) fn settle(netlink: &mut Netlink, links: &[Link], troubles: &mut Vec<String>) {
    let found = match read(netlink) {
        Ok(found) => found,
        Err(e) => return troubles.push(format!("can't list interfaces: {e}")),
    };
    for old in found.iter().filter(|old| old.alias == USED) {
        let is_wanted = links
            .iter()
            .any(|link| link.name == old.name && link.bridge.is_some());
        if !is_wanted && let Err(e) = unplug(netlink, old) {
            troubles.push(format!("can't take {} out of its bridge: {e}", old.name));
        }
    }
    for link in links {
        let Some(old) = found.iter().find(|old| old.name == link.name) else {
            continue; // said before, or a child's that is still to come
        };
        if let Err(e) = settle_one(netlink, link, old, &found) {
            troubles.push(format!("can't set the interface {} up: {e}", link.name));
        }
    }
}

fn settle_one(netlink: &mut Netlink, link: &Link, old: &Found, all: &[Found]) -> io::Result<()> {
    match link.kind {
        LinkKind::Childs => return isolate(netlink, link, old),
        LinkKind::Radio => {
            isolate(netlink, link, old)?;
            return set_up(netlink, old);
        }
        _ => {}
    }
    let mut wanted = Vec::new();
    if let Some(mac) = &link.mac
        && old.mac != mac.0
    {
        wanted.push(LinkAttribute::Address(mac.0.to_vec()));
    }
    if let Some(mtu) = link.mtu_bytes.filter(|mtu| *mtu != old.mtu_bytes) {
        wanted.push(LinkAttribute::Mtu(mtu));
    }
    if !wanted.is_empty() {
        change(netlink, old.index, wanted)?;
    }
    if let Some(bridge) = &link.bridge {
        let bridge = all.iter().find(|one| one.name == *bridge);
        let bridge = bridge.ok_or_else(|| io::Error::other("its bridge is not there"))?;
        if old.controller != Some(bridge.index) {
            change(
                netlink,
                old.index,
                vec![LinkAttribute::Controller(bridge.index)],
            )?;
        }
        isolate(netlink, link, old)?;
        if old.alias.is_empty() {
            mark(netlink, old.index, USED)?;
        }
    }
    set_up(netlink, old)
}

fn set_up(netlink: &mut Netlink, old: &Found) -> io::Result<()> {
    if old.is_up {
        return Ok(());
    }
    let mut message = about(old.index);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    netlink.change(RouteNetlinkMessage::NewLink(message), 0)
}

/// Keeps a port of a bridge from the others that are kept from each other, or lets it to them. A child plugs its
/// interface in itself, when it has made it what it is to be; until then there is nothing to keep it from.
fn isolate(netlink: &mut Netlink, link: &Link, old: &Found) -> io::Result<()> {
    let is_childs = matches!(link.kind, LinkKind::Childs | LinkKind::Radio);
    let is_port = !is_childs || old.controller.is_some();
    if !is_port || link.bridge.is_none() || old.is_isolated == link.isolated {
        return Ok(());
    }
    let port = vec![InfoBridgePort::Isolated(link.isolated)];
    let info = vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(port)),
    ];
    change(netlink, old.index, vec![LinkAttribute::LinkInfo(info)])
}

fn unplug(netlink: &mut Netlink, old: &Found) -> io::Result<()> {
    if old.controller.is_some() {
        change(netlink, old.index, vec![LinkAttribute::Controller(0)])?;
    }
    mark(netlink, old.index, "")
}

fn mark(netlink: &mut Netlink, index: u32, alias: &str) -> io::Result<()> {
    change(netlink, index, vec![LinkAttribute::IfAlias(alias.into())])
}

fn change(netlink: &mut Netlink, index: u32, attributes: Vec<LinkAttribute>) -> io::Result<()> {
    let mut message = about(index);
    message.attributes = attributes;
    netlink.change(RouteNetlinkMessage::NewLink(message), 0)
}

fn remove(netlink: &mut Netlink, index: u32) -> io::Result<()> {
    match netlink.change(RouteNetlinkMessage::DelLink(about(index)), 0) {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

fn about(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}
