//! What follows from the records held: indexes, made anew when something changes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_wire::address;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{
    ControlKey, MemberId, Name, NetworkId, NodeId, SigningKey, SiteId, TunnelKey,
};
use altnet_wire::record::{Membership, RevocationTarget, Roles};
use altnet_wire::time::UnixTime;

use super::held::{Body, Held};
use super::sponsors::Lines;
use super::{Registry, Slot};

/// Indexes over the records in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// What is revoked, and when it was said.
    pub(super) revoked: BTreeMap<RevocationTarget, UnixTime>,
    /// Devices that another member's device took the place of.
    pub(super) replaced: BTreeSet<SigningKey>,
    pub(super) devices: BTreeMap<SigningKey, MemberId>,
    pub(super) nodes: BTreeMap<NodeId, MemberId>,
    pub(super) names: BTreeMap<Name, MemberId>,
    pub(super) gateways: BTreeMap<SiteId, MemberId>,
    pub(super) tunnels: BTreeMap<TunnelKey, MemberId>,
    pub(super) controls: BTreeMap<ControlKey, MemberId>,
    pub(super) host_names: BTreeMap<Name, Slot>,
    pub(super) host_addresses: BTreeMap<Ipv6Addr, Slot>,
    pub(super) app_names: BTreeMap<Name, SigningKey>,
    pub(super) app_addresses: BTreeMap<Ipv6Addr, SigningKey>,
    pub(super) app_tunnels: BTreeMap<TunnelKey, SigningKey>,
    /// What the policy says about sponsors.
    pub(super) sponsors: Lines,
    /// Members who are in fewer groups than their membership says.
    pub(super) counted: Vec<Membership>,
    /// How many memberships held don't stand: a new invite might change that.
    members_aside: usize,
    /// How many records of devices are held and not in force, or invites that don't stand: a new
    /// membership might change that.
    devices_aside: usize,
    /// How many requests for certificates among them: a new app might change that.
    tls_requests_aside: usize,
}

impl View {
    /// Enters a record in force. Who came first keeps names and addresses.
    fn enter(&mut self, network: &NetworkId, slot: Slot, held: &Held) {
        match &held.body {
            Body::Revocation(body) => {
                self.revoked.insert(body.target, body.issued);
            }
            Body::Membership(body, node) => {
                self.devices.insert(body.device, body.member);
                self.nodes.insert(*node, body.member);
                self.names.insert(body.name.clone(), body.member);
                if let Some(site) = body.site.filter(|_| body.roles.contains(Roles::GATEWAY)) {
                    self.gateways.insert(site, body.member);
                }
            }
            Body::Node(body) => {
                let Some(member) = self.devices.get(&held.header.signer).copied() else {
                    return;
                };
                self.controls.insert(body.control, member);
                for tunnel in core::iter::once(&body.tunnel).chain(&body.previous_tunnel) {
                    self.tunnels.insert(tunnel.key, member);
                }
            }
            Body::Policy => {
                let envelope = Envelope::parse(&held.bytes);
                self.sponsors =
                    envelope.map_or_else(|_| Lines::default(), |e| Lines::read(e.body()));
            }
            Body::Host(body) => {
                if let Some(address) = body.address {
                    self.host_names.entry(body.name.clone()).or_insert(slot);
                    self.host_addresses.entry(address).or_insert(slot);
                }
            }
            Body::App(body) => {
                if let Some(tunnel) = &body.tunnel {
                    let app = body.app;
                    self.app_names.entry(body.name.clone()).or_insert(app);
                    self.app_addresses
                        .insert(address::app_address(network, &app), app);
                    self.app_tunnels.insert(tunnel.key, app);
                }
            }
            _ => {}
        }
    }
}

impl Registry {
    /// Brings the view up to date after the record in `slot` came, in the place of `old`.
    pub(super) fn settle(&mut self, slot: &Slot, old: Option<&Held>) {
        match old {
            None if self.stands_alone(slot) => {
                self.enter(slot);
                match slot.kind() {
                    RecordKind::REVOCATION => self.sum_up(),
                    RecordKind::MEMBERSHIP => self.count_groups_of(slot),
                    RecordKind::POLICY => self.count_groups(),
                    _ => {}
                }
            }
            Some(old) if self.looks_like(slot, old) => match slot.kind() {
                RecordKind::MEMBERSHIP => self.count_groups_of(slot),
                RecordKind::POLICY => {
                    self.enter(slot);
                    self.count_groups();
                }
                _ => {}
            },
            _ => self.rebuild(),
        }
    }

    /// Whether the view says the same of the new record as of the one in force before it.
    fn looks_like(&self, slot: &Slot, old: &Held) -> bool {
        let Some(new) = self.records.get(slot).filter(|_| old.in_force) else {
            return false;
        };
        match (&old.body, &new.body) {
            (Body::Membership(old, _), Body::Membership(new, _)) => {
                old.device == new.device
                    && old.name == new.name
                    && old.roles == new.roles
                    && old.site == new.site
                    && old.replaces == new.replaces
                    && old.groups == new.groups
                    && old.invite.map(|r| r.invite) == new.invite.map(|r| r.invite)
            }
            (Body::Node(old), Body::Node(new)) => {
                old.control == new.control
                    && old.tunnel == new.tunnel
                    && old.previous_tunnel == new.previous_tunnel
            }
            // A device only closes what it made: that changes nothing for who came in by it.
            (Body::Invite(_), Body::Invite(_)) => {
                let signer = &new.header.signer;
                old.header.signer == *signer && self.is_device_key(signer)
            }
            (Body::Policy, Body::Policy)
            | (Body::Head(_), Body::Head(_))
            | (Body::TlsAuthority(_), Body::TlsAuthority(_))
            | (Body::TlsRequest(_), Body::TlsRequest(_))
            | (Body::TlsCertificate(_), Body::TlsCertificate(_))
            | (Body::Derp(_), Body::Derp(_)) => true,
            _ => false,
        }
    }

    /// Whether the new record only adds to the view: nothing else looks different by it.
    fn stands_alone(&self, slot: &Slot) -> bool {
        let Some(held) = self.records.get(slot) else {
            return false;
        };
        let view = &self.view;
        match &held.body {
            Body::Membership(body, node) => {
                view.devices_aside == 0
                    && body.replaces.is_none()
                    && self.is_live(held)
                    && !view.names.contains_key(&body.name)
                    && !view.devices.contains_key(&body.device)
                    && !view.nodes.contains_key(node)
                    && !body
                        .site
                        .is_some_and(|site| view.gateways.contains_key(&site))
            }
            Body::Host(body) => {
                !view.host_names.contains_key(&body.name)
                    && !body
                        .address
                        .is_some_and(|address| view.host_addresses.contains_key(&address))
            }
            Body::App(body) => {
                view.tls_requests_aside == 0 && !view.app_names.contains_key(&body.name)
            }
            Body::Revocation(body) => match body.target {
                RevocationTarget::Member(member) => {
                    !self.records.contains_key(&Slot::membership(member))
                }
                RevocationTarget::Invite(_) => true,
                _ => false,
            },
            Body::Invite(_) => view.members_aside == 0,
            Body::Node(_)
            | Body::Policy
            | Body::Head(_)
            | Body::TlsAuthority(_)
            | Body::TlsRequest(_)
            | Body::TlsCertificate(_)
            | Body::Derp(_)
            | Body::Unknown => true,
            Body::OwnerChange(_) | Body::Certificate(_) => false,
        }
    }

    fn enter(&mut self, slot: &Slot) {
        let Self {
            records,
            view,
            network,
            ..
        } = self;
        if let Some(held) = records.get(slot) {
            view.enter(network, *slot, held);
        }
    }

    /// Makes the view anew from the records held, from the owners down.
    pub(super) fn rebuild(&mut self) {
        self.view = View::default();
        self.settle_kind(RecordKind::OWNER_CHANGE, |_, _| true);
        self.settle_kind(RecordKind::ISSUER_CERTIFICATE, |_, _| true);
        // An owner may revoke an issuer; what an issuer revoked is judged after that.
        self.settle_kind(RecordKind::REVOCATION, |this, held| {
            this.is_owner(&held.header.signer)
        });
        self.settle_kind(RecordKind::REVOCATION, |this, held| {
            !this.is_owner(&held.header.signer)
        });
        self.settle_kind(RecordKind::INVITE, |this, held| {
            !this.is_device_key(&held.header.signer)
        });
        self.find_replaced();
        self.settle_kind(RecordKind::MEMBERSHIP, |this, held| {
            this.inviter(held).is_none()
        });
        self.settle_sponsored();
        self.settle_nodes();
        self.settle_kind(RecordKind::HOST, |this, held| !this.is_device(held));
        self.settle_hosts();
        for kind in [
            RecordKind::APP,
            RecordKind::POLICY,
            RecordKind::NETWORK_HEAD,
            RecordKind::TLS_AUTHORITY,
            RecordKind::TLS_REQUEST,
            RecordKind::TLS_CERTIFICATE,
            RecordKind::DERP,
        ] {
            self.settle_kind(kind, |_, _| true);
        }
        self.settle_unknown();
        self.sweep_void();
        self.count_groups();
        self.count_aside();
        self.sum_up();
    }

    fn count_aside(&mut self) {
        let (mut members, mut devices, mut requests) = (0, 0, 0);
        for held in self.records.values() {
            match held.body {
                Body::Membership(..) if !held.standing => members += 1,
                Body::Node(_)
                | Body::Host(_)
                | Body::App(_)
                | Body::Invite(_)
                | Body::Derp(_)
                | Body::Unknown
                    if !held.in_force =>
                {
                    devices += 1;
                }
                Body::TlsRequest(_) if !held.in_force => {
                    devices += 1;
                    requests += 1;
                }
                _ => {}
            }
        }
        self.view.members_aside = members;
        self.view.devices_aside = devices;
        self.view.tls_requests_aside = requests;
    }

    pub(super) fn slots(&self, kind: RecordKind) -> Vec<Slot> {
        self.records
            .range(Slot::first(kind)..=Slot::last(kind))
            .filter(|(_, held)| !matches!(held.body, Body::Unknown))
            .map(|(slot, _)| *slot)
            .collect()
    }

    fn settle_kind(&mut self, kind: RecordKind, which: impl Fn(&Self, &Held) -> bool) {
        for slot in self.slots(kind) {
            if self
                .records
                .get(&slot)
                .is_some_and(|held| which(self, held))
            {
                self.settle_one(&slot);
            }
        }
    }

    fn is_device(&self, held: &Held) -> bool {
        self.view.devices.contains_key(&held.header.signer)
    }

    /// Nodes in the order of their members' ids, so that no device can choose to come first.
    fn settle_nodes(&mut self) {
        let mut slots = self.slots(RecordKind::NODE);
        slots.sort_by_key(|slot| self.view.devices.get(&SigningKey(*slot.subject())).copied());
        for slot in slots {
            self.settle_one(&slot);
        }
    }

    /// Hosts that a gateway signed, by site.
    fn settle_hosts(&mut self) {
        let mut slots = self.slots(RecordKind::HOST);
        slots.retain(|slot| {
            self.records
                .get(slot)
                .is_some_and(|held| self.is_device(held))
        });
        slots.sort_by_key(|slot| match self.records.get(slot).map(|held| &held.body) {
            Some(Body::Host(body)) => Some(body.site),
            _ => None,
        });
        for slot in slots {
            self.settle_one(&slot);
        }
    }

    fn settle_unknown(&mut self) {
        let slots: Vec<Slot> = self
            .records
            .iter()
            .filter(|(_, held)| matches!(held.body, Body::Unknown))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in slots {
            self.settle_one(&slot);
        }
    }

    fn find_replaced(&mut self) {
        let replaced = self
            .records
            .values()
            .filter_map(|held| match &held.body {
                Body::Membership(body, _) => Some((body.replaces?, held)),
                _ => None,
            })
            .filter(|(_, held)| self.judge(&held.header, &held.body).is_ok())
            .map(|(device, _)| device)
            .collect();
        self.view.replaced = replaced;
    }

    /// Decides whether one record stands and is in force, and enters it if so.
    pub(super) fn settle_one(&mut self, slot: &Slot) {
        let Some(held) = self.records.get(slot) else {
            return;
        };
        let is_change = matches!(held.body, Body::OwnerChange(_));
        let standing = is_change || self.judge(&held.header, &held.body).is_ok();
        let in_force =
            standing && self.is_live(held) && self.check_clash(&held.header, &held.body).is_ok();
        let stands_again = standing && !held.standing;
        if let Some(held) = self.records.get_mut(slot) {
            held.standing = standing;
            held.in_force = in_force;
        }
        if stands_again {
            self.touch(slot);
        }
        if in_force {
            self.enter(slot);
        }
    }

    /// Whether the record's subject is neither revoked nor replaced.
    fn is_live(&self, held: &Held) -> bool {
        match &held.body {
            Body::OwnerChange(_) => self.owners.path().contains(&held.id),
            Body::Membership(body, _) => {
                !self.view.replaced.contains(&body.device)
                    && !self.is_revoked(&RevocationTarget::Device(body.device))
                    && !self.is_revoked(&RevocationTarget::Member(body.member))
            }
            _ => true,
        }
    }

    /// Removes what can never be in force again: the records of revoked members and devices, and
    /// of devices that no membership names any more.
    fn sweep_void(&mut self) {
        let devices: BTreeSet<SigningKey> = self
            .records
            .values()
            .filter_map(|held| match &held.body {
                Body::Membership(body, _)
                    if !self.is_revoked(&RevocationTarget::Member(body.member)) =>
                {
                    Some(body.device)
                }
                _ => None,
            })
            .collect();
        let void: Vec<Slot> = self
            .records
            .iter()
            .filter(|(_, held)| self.is_void(held, &devices))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in void {
            self.remove(&slot);
        }
    }

    fn is_void(&self, held: &Held, devices: &BTreeSet<SigningKey>) -> bool {
        let signer = &held.header.signer;
        let is_gone =
            || !devices.contains(signer) || self.is_revoked(&RevocationTarget::Device(*signer));
        match &held.body {
            Body::Membership(body, _) => self.is_revoked(&RevocationTarget::Member(body.member)),
            Body::Node(_) | Body::App(_) | Body::TlsRequest(_) | Body::Derp(_) => is_gone(),
            Body::Invite(_) => is_gone() && self.is_device_key(signer),
            Body::Host(_) => is_gone() && !self.records.contains_key(&Slot::certificate(*signer)),
            _ => false,
        }
    }
}
