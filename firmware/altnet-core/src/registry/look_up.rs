//! Who is who: look-ups over the records in force. None but [`Registry::chain_for`] allocates.

use core::net::Ipv6Addr;

use altnet_wire::address::{self, Prefix};
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{
    ControlKey, MemberId, Name, NodeId, RecordId, Serial, SigningKey, SiteId, TunnelKey,
};
use altnet_wire::record::{
    AppRecord, HostRecord, Invite, IssuerCertificate, Membership, NetworkHead, NodeRecord,
    Revocation, RevocationTarget, Roles,
};
use altnet_wire::time::{Instant, UnixTime};

use super::held::{Body, Held};
use super::{Registry, Slot};
use crate::clock::Clock;
use crate::policy::{Enrolled, What};

/// A member in force.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// What its issuer says of it.
    pub membership: &'a Membership,
    /// What its device says of itself, once that is known.
    pub node: Option<&'a NodeRecord>,
    /// Its device's id and own address.
    pub id: NodeId,
    /// The serial of its membership.
    pub serial: Serial,
    /// Who signed its membership.
    pub issuer: SigningKey,
}

/// A host in force.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// The record.
    pub record: &'a HostRecord,
    /// Who signed it: the site's gateway or an issuer.
    pub signer: SigningKey,
}

/// An app in force.
#[derive(Clone, Copy, Debug)]
pub struct App<'a> {
    /// The record.
    pub record: &'a AppRecord,
    /// The device it runs on.
    pub device: SigningKey,
    /// Its address.
    pub address: Ipv6Addr,
}

/// Whose an address is.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A member's own.
    Node(Member<'a>),
    /// An app's, on that member's device.
    App(App<'a>, Member<'a>),
    /// A named host's, behind the gateway of its site.
    Host(Host<'a>, Option<Member<'a>>),
    /// Somebody's without a name, behind that gateway.
    Site(SiteId, Member<'a>),
}

impl<'a> Subject<'a> {
    /// The member that packets for the address go to.
    pub const fn member(&self) -> Option<&Member<'a>> {
        match self {
            Self::Node(member) | Self::App(_, member) | Self::Site(_, member) => Some(member),
            Self::Host(_, member) => member.as_ref(),
        }
    }
}

macro_rules! body {
    ($held:expr, Membership) => {
        match &$held.body {
            Body::Membership(body, _) => Some(&**body),
            _ => None,
        }
    };
    ($held:expr, $variant:ident) => {
        match &$held.body {
            Body::$variant(body) => Some(&**body),
            _ => None,
        }
    };
}

impl Registry {
    pub(super) fn in_force(&self, slot: &Slot) -> Option<&Held> {
        self.records.get(slot).filter(|held| held.in_force)
    }

    pub(super) fn all(&self, kind: RecordKind) -> impl Iterator<Item = &Held> {
        self.records
            .range(Slot::first(kind)..=Slot::last(kind))
            .map(|(_, held)| held)
            .filter(|held| held.in_force)
    }

    /// The member with this id.
    pub fn by_member(&self, member: &MemberId) -> Option<Member<'_>> {
        let held = self.in_force(&Slot::membership(*member))?;
        Self::member(held, |device| self.in_force(&device))
    }

    /// A membership as a member, with the node record that `node` finds for its device.
    fn member<'a>(held: &'a Held, node: impl Fn(Slot) -> Option<&'a Held>) -> Option<Member<'a>> {
        let Body::Membership(membership, id) = &held.body else {
            return None;
        };
        Some(Member {
            membership,
            node: node(Slot::node(membership.device)).and_then(|held| body!(held, Node)),
            id: *id,
            serial: held.header.serial,
            issuer: held.header.signer,
        })
    }

    /// Whose memberships are held and stand aside, for whatever reason.
    pub fn members_aside(&self) -> impl Iterator<Item = Member<'_>> {
        let first = Slot::first(RecordKind::MEMBERSHIP);
        self.records
            .range(first..=Slot::last(RecordKind::MEMBERSHIP))
            .filter(|(_, held)| !held.standing)
            .filter_map(|(_, held)| Self::member(held, |device| self.records.get(&device)))
    }

    /// The member whose device has this key.
    pub fn by_device(&self, device: &SigningKey) -> Option<Member<'_>> {
        self.by_member(self.view.devices.get(device)?)
    }

    /// The member whose device has this id.
    pub fn by_node(&self, node: &NodeId) -> Option<Member<'_>> {
        self.by_member(self.view.nodes.get(node)?)
    }

    /// The member with this present or previous tunnel key.
    pub fn by_tunnel(&self, tunnel: &TunnelKey) -> Option<Member<'_>> {
        self.by_member(self.view.tunnels.get(tunnel)?)
    }

    /// The member with this control key.
    pub fn by_control(&self, control: &ControlKey) -> Option<Member<'_>> {
        self.by_member(self.view.controls.get(control)?)
    }

    /// The member with this name.
    pub fn by_name(&self, name: &Name) -> Option<Member<'_>> {
        self.by_member(self.view.names.get(name)?)
    }

    /// Whose `address` is, if the network has it.
    pub fn by_address(&self, address: Ipv6Addr) -> Option<Subject<'_>> {
        if !address::network_prefix(&self.network).contains(address) {
            return None;
        }
        if address::is_derived(address) {
            if let Some(member) = self.by_node(&address.into()) {
                return Some(Subject::Node(member));
            }
            let app = self.app(self.view.app_addresses.get(&address)?)?;
            let member = self.by_device(&app.device)?;
            return Some(Subject::App(app, member));
        }
        let octets = address.octets();
        let site = SiteId::new(u16::from_be_bytes([octets[6], octets[7]]))?;
        let gateway = self.gateway(site);
        let host = self
            .view
            .host_addresses
            .get(&address)
            .and_then(|slot| self.host_at(slot));
        match (host, gateway) {
            (Some(host), gateway) => Some(Subject::Host(host, gateway)),
            (None, Some(gateway)) => Some(Subject::Site(site, gateway)),
            (None, None) => None,
        }
    }

    /// The gateway of a site.
    pub fn gateway(&self, site: SiteId) -> Option<Member<'_>> {
        self.by_member(self.view.gateways.get(&site)?)
    }

    /// All members, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.all(RecordKind::MEMBERSHIP)
            .filter_map(|held| body!(held, Membership))
            .filter_map(|body| self.by_member(&body.member))
    }

    /// The members that have all of `roles`.
    pub fn with_roles(&self, roles: Roles) -> impl Iterator<Item = Member<'_>> {
        self.members()
            .filter(move |member| member.membership.roles.contains(roles))
    }

    /// The members that forward for others.
    pub fn relays(&self) -> impl Iterator<Item = Member<'_>> {
        self.with_roles(Roles::RELAY)
    }

    /// The members that keep and hand out records.
    pub fn directories(&self) -> impl Iterator<Item = Member<'_>> {
        self.with_roles(Roles::DIRECTORY)
    }

    /// The members whose membership ended, as far as can be told. They stay in the look-ups;
    /// nothing is delivered to or from them until they renew.
    pub fn sweep<'a>(&'a self, clock: &'a Clock, now: Instant) -> impl Iterator<Item = Member<'a>> {
        self.members()
            .filter(move |member| clock.is_expired(member.membership.expires, now))
    }

    fn host_at(&self, slot: &Slot) -> Option<Host<'_>> {
        let held = self.in_force(slot)?;
        Some(Host {
            record: body!(held, Host)?,
            signer: held.header.signer,
        })
    }

    /// The host with this name.
    pub fn host(&self, name: &Name) -> Option<Host<'_>> {
        self.host_at(self.view.host_names.get(name)?)
    }

    /// The hosts that names lead to, in the order of names.
    pub fn hosts(&self) -> impl Iterator<Item = Host<'_>> {
        self.view
            .host_names
            .values()
            .filter_map(|slot| self.host_at(slot))
    }

    /// The app with this key.
    pub fn app(&self, app: &SigningKey) -> Option<App<'_>> {
        let held = self.in_force(&Slot::app(*app))?;
        let record = body!(held, App).filter(|record| record.tunnel.is_some())?;
        Some(App {
            record,
            device: held.header.signer,
            address: address::app_address(&self.network, app),
        })
    }

    /// The app with this name.
    pub fn app_by_name(&self, name: &Name) -> Option<App<'_>> {
        self.app(self.view.app_names.get(name)?)
    }

    /// The app with this tunnel key.
    pub fn app_by_tunnel(&self, tunnel: &TunnelKey) -> Option<App<'_>> {
        self.app(self.view.app_tunnels.get(tunnel)?)
    }

    /// All apps, in the order of their addresses.
    pub fn apps(&self) -> impl Iterator<Item = App<'_>> {
        self.view
            .app_addresses
            .values()
            .filter_map(|app| self.app(app))
    }

    /// The certificate of an issuer that isn't revoked.
    pub fn issuer(&self, issuer: &SigningKey) -> Option<&IssuerCertificate> {
        if self.is_revoked(&RevocationTarget::Issuer(*issuer)) {
            return None;
        }
        let held = self.in_force(&Slot::certificate(*issuer))?;
        body!(held, Certificate)
    }

    /// All certificates of issuers that aren't revoked, in the order of their keys.
    pub fn issuers(&self) -> impl Iterator<Item = &IssuerCertificate> {
        self.all(RecordKind::ISSUER_CERTIFICATE)
            .filter_map(|held| body!(held, Certificate))
            .filter(|body| !self.is_revoked(&RevocationTarget::Issuer(body.issuer)))
    }

    /// The invite with this public half, unless it is revoked or its signer was, or it is a
    /// member's that policy no longer lets it make. It may be at its end or used up.
    pub fn invite(&self, invite: &SigningKey) -> Option<&Invite> {
        let held = self.in_force(&Slot::invite(*invite))?;
        let signer = &held.header.signer;
        let body = body!(held, Invite)?;
        let is_open = match self.is_device_key(signer) {
            true => body.uses > 0 && self.sponsored(signer, body).is_ok(),
            false => self.issuer(signer).is_some(),
        };
        let is_revoked = self.is_revoked(&RevocationTarget::Invite(*invite));
        (is_open && !is_revoked).then_some(body)
    }

    /// All invites that [`Registry::invite`] would give.
    pub fn invites(&self) -> impl Iterator<Item = &Invite> {
        self.all(RecordKind::INVITE)
            .filter_map(|held| body!(held, Invite))
            .filter_map(|body| self.invite(&body.invite))
    }

    /// Whether `target` is revoked.
    pub fn is_revoked(&self, target: &RevocationTarget) -> bool {
        self.view.revoked.contains_key(target)
    }

    /// All revocations in force.
    pub fn revocations(&self) -> impl Iterator<Item = &Revocation> {
        self.all(RecordKind::REVOCATION)
            .filter_map(|held| body!(held, Revocation))
    }

    /// When `target` was revoked.
    pub fn revoked_at(&self, target: &RevocationTarget) -> Option<UnixTime> {
        self.view.revoked.get(target).copied()
    }

    /// The policy in force: its serial, its id and its body, which was checked.
    pub fn policy(&self) -> Option<(Serial, RecordId, &[u8])> {
        let held = self.in_force(&Slot::POLICY)?;
        let envelope = Envelope::parse(&held.bytes).ok()?;
        Some((held.header.serial, held.id, envelope.body()))
    }

    /// Everybody and everything that has an address, as policy speaks of them.
    pub fn enrolled(&self) -> impl Iterator<Item = Enrolled<'_>> {
        let network = self.network;
        let devices = self.members().flat_map(move |member| {
            let membership = self.as_counted(member.membership);
            let site = membership.site.filter(|site| {
                let gateway = self.gateway(*site);
                gateway.is_some_and(|gateway| gateway.id == member.id)
            });
            let enrol = move |at, what| Enrolled {
                at,
                what,
                expires: membership.expires,
            };
            let own = Prefix::host(member.id.address());
            let behind = site.map(|site| {
                let router = Prefix::host(address::site_gateway(&network, site));
                let lan = address::site_prefix(&network, site);
                [
                    enrol(router, What::Device(membership)),
                    enrol(lan, What::Site(site)),
                ]
            });
            core::iter::once(enrol(own, What::Device(membership)))
                .chain(behind.into_iter().flatten())
        });
        let hosts = self.hosts().filter_map(|host| {
            Some(Enrolled {
                at: Prefix::host(host.record.address?),
                what: What::Host(host.record.site, &host.record.name),
                expires: self.gateway(host.record.site)?.membership.expires,
            })
        });
        let apps = self.apps().filter_map(|app| {
            let membership = self.by_device(&app.device)?.membership;
            Some(Enrolled {
                at: Prefix::host(app.address),
                what: What::App(membership.member, &app.record.name),
                expires: membership.expires,
            })
        });
        devices.chain(hosts).chain(apps)
    }

    /// The newest head of each issuer, with its serial, in the order of the issuers' keys.
    pub fn heads(&self) -> impl Iterator<Item = (SigningKey, Serial, &NetworkHead)> {
        self.all(RecordKind::NETWORK_HEAD)
            .filter_map(|held| Some((held.header.signer, held.header.serial, body!(held, Head)?)))
    }

    /// Gives `take` the records with which the member with this device key proves itself:
    /// genesis, owner changes, issuer's certificate, the invite and its issuer's certificate if
    /// it came by one, membership, and the node record if there is one. If the invite was a
    /// member's, what proves that one a member comes before.
    pub fn chain_for(&self, device: &SigningKey, take: &mut impl FnMut(&[u8])) -> bool {
        let Some(member) = self.by_device(device) else {
            return false;
        };
        take(&self.genesis_bytes);
        let mut give = |slot: Slot| {
            if let Some(held) = self.records.get(&slot) {
                take(&held.bytes);
            }
        };
        for change in self.owners.path() {
            give(Slot::owner_change(*change));
        }
        let mut line = alloc::vec![member];
        while let Some(sponsor) = line
            .last()
            .and_then(|last| self.rests_on(&last.membership.member))
            .and_then(|sponsor| self.by_member(&sponsor))
            .filter(|_| line.len() <= usize::from(super::MAX_SPONSOR_DEPTH))
        {
            line.push(sponsor);
        }
        for member in line.iter().rev() {
            give(Slot::certificate(member.issuer));
            if let Some(redemption) = &member.membership.invite {
                let slot = Slot::invite(redemption.invite);
                if let Some(held) = self.records.get(&slot) {
                    if held.header.signer != member.issuer {
                        give(Slot::certificate(held.header.signer));
                    }
                    give(slot);
                }
            }
            give(Slot::membership(member.membership.member));
        }
        give(Slot::node(*device));
        true
    }
}
