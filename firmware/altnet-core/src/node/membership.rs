//! What this node is and believes: loading it, changing it, and what follows from a change.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::{Engine, LocalKeyId};
use altnet_tunnel::key::TunnelSecret;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::address::{Prefix, site_prefix};
use altnet_wire::envelope::{MAX_RECORD_BYTES, RecordKind};
use altnet_wire::id::{ControlKey, MemberId, Name, NodeId, SigningKey, TunnelKey};
use altnet_wire::message::{
    Cursor, HeadSummary, MAX_HEADS, MAX_MESSAGE_BYTES, Message, Notice, pack, packed_len,
};
use altnet_wire::record::{MAX_FIXED_ENDPOINTS, NodeRecord, RevocationTarget, Roles};
use altnet_wire::time::Instant;

use super::peers::serves;
use super::sessions::Standing;
use super::{Deferred, Event, Identity, Network, Node, Own, Slot, StartError};
use crate::records::sign_record;
use crate::registry::{Member, Registry, Slot as RecordSlot};

/// Whether records of this kind say who may reach what.
const fn decides(kind: RecordKind) -> bool {
    !matches!(
        kind,
        RecordKind::NODE | RecordKind::INVITE | RecordKind::NETWORK_HEAD
    )
}

/// What a network is called whose name can't be read.
pub(super) fn default_petname() -> Name {
    Name::new("network").expect("'network' is a DNS label")
}

pub(super) fn add_local_keys<A: Aead>(
    engine: &mut Engine<A>,
    identity: &Identity,
    stamps: &BTreeMap<[u8; 32], Tai64n>,
) -> Result<(LocalKeyId, Option<LocalKeyId>), StartError> {
    let mut add = |secret: &TunnelSecret| {
        let floor = stamps
            .get(&secret.public().0)
            .copied()
            .unwrap_or(Tai64n::ZERO);
        engine
            .add_local_key(TunnelSecret::new(*secret.expose()), floor)
            .map_err(|_| StartError::TunnelKey)
    };
    let current = add(&identity.tunnel.secret)?;
    let previous = identity
        .previous
        .as_ref()
        .map(|previous| add(&previous.secret))
        .transpose()?;
    Ok((current, previous))
}

impl Network {
    /// Whether the device of a member is out for good: revoked, or replaced by another.
    fn is_out(&self, device: &SigningKey, member: MemberId) -> bool {
        self.registry.is_revoked(&RevocationTarget::Device(*device))
            || self.registry.is_revoked(&RevocationTarget::Member(member))
            || self
                .registry
                .by_member(&member)
                .is_some_and(|member| member.membership.device != *device)
    }

    /// Whether this node's membership stands aside, since an owner left or an issuer ended: it is a
    /// member again once somebody vouches for it who may.
    pub(super) fn is_aside(&self) -> bool {
        self.registry.by_member(&self.own.member).is_none()
    }

    /// This node's chain, as it is said in a Hello.
    pub(super) fn pack_chain(&self) -> Vec<u8> {
        let mut chain = Vec::new();
        self.registry.chain_for(&self.own.device, &mut |record| {
            pack_into(record, &mut chain);
        });
        chain
    }

    /// How far each issuer has come, the issuers with the largest counters first.
    pub(super) fn heads(&self) -> heapless::Vec<HeadSummary, MAX_HEADS> {
        self.registry
            .heads()
            .take(MAX_HEADS)
            .map(|(issuer, counter, _)| HeadSummary { issuer, counter })
            .collect()
    }
}

/// Appends a record in the form of [`Packed`].
pub(super) fn pack_into(record: &[u8], out: &mut Vec<u8>) {
    let at = out.len();
    out.resize(at + packed_len(record.len()), 0);
    let used = out.get_mut(at..).and_then(|room| pack(record, room));
    out.truncate(at + used.unwrap_or(0));
}

impl Registry {
    /// The node that packets for `address` go to.
    pub fn owner_of(&self, address: Ipv6Addr) -> Option<NodeId> {
        self.by_address(address)?.member().map(|member| member.id)
    }

    pub(super) fn member_by_control(&self, key: &ControlKey) -> Option<NodeId> {
        self.by_control(key).map(|member| member.id)
    }

    pub(super) fn member_by_tunnel(&self, key: &TunnelKey) -> Option<NodeId> {
        self.by_tunnel(key).map(|member| member.id)
    }

    pub(super) fn node_record(&self, node: NodeId) -> Option<&NodeRecord> {
        self.by_node(&node)?.node
    }

    /// The member with this node id, also one that is set aside.
    pub(super) fn named(&self, node: NodeId) -> Option<Member<'_>> {
        let aside = || self.members_aside().find(|member| member.id == node);
        self.by_node(&node).or_else(aside)
    }

    /// The members that others ask or are relayed by, those set aside by a change of owners
    /// included: what puts them back is to be had from them.
    pub(super) fn servers(&self) -> impl Iterator<Item = Member<'_>> {
        self.members()
            .chain(self.members_aside().filter(|aside| {
                let membership = aside.membership;
                let ends = [
                    RevocationTarget::Member(membership.member),
                    RevocationTarget::Device(membership.device),
                    RevocationTarget::Issuer(aside.issuer),
                ];
                !ends.iter().any(|end| self.is_revoked(end))
            }))
            .filter(|member| serves(member.membership.roles))
    }

    /// The node that signed a node record.
    pub(super) fn node_of_record(&self, record: &[u8]) -> Option<NodeId> {
        let envelope = altnet_wire::envelope::Envelope::parse(record).ok()?;
        if envelope.header().kind != RecordKind::NODE {
            return None;
        }
        self.by_device(&envelope.header().signer).map(|m| m.id)
    }

    pub(super) fn is_issuer(&self, key: &SigningKey) -> bool {
        self.issuer(key).is_some()
    }
}

impl<A: Aead> Node<A> {
    /// Becomes a member with the records of `registry`, if they say so.
    pub(super) fn enter(&mut self, registry: Registry, petname: Name, now: Instant) -> bool {
        let device = self.identity.device.public();
        // Set aside by a change of owners, it is a member still: what puts it back is to be had
        // from the network's servers.
        let aside = |registry: &Registry| {
            let mut aside = registry.members_aside();
            let member = aside.find(|member| member.membership.device == device)?;
            Some((member.membership.member, member.id))
        };
        let member = registry.by_device(&device);
        let member = member.map(|member| (member.membership.member, member.id));
        let Some((member, node)) = member.or_else(|| aside(&registry)) else {
            return false;
        };
        let own = Own {
            member,
            device,
            node,
        };
        self.network = Some(Network {
            registry,
            petname,
            own,
        });
        // Two members meet although neither has heard of the other, and nobody else is up: the
        // chain in the Hello is what makes them members.
        self.control.welcome_strangers(true);
        self.set_calendar(now);
        self.take_policy(now);
        self.publish_node(now);
        self.link_relays(now);
        self.advertise(now);
        self.timers.housekeeping_at(now);
        true
    }

    /// This node's roles, none while it is no member.
    pub(super) fn own_roles(&self) -> Roles {
        self.network
            .as_ref()
            .and_then(|network| network.registry.by_member(&network.own.member))
            .map_or(Roles::empty(), |member| member.membership.roles)
    }

    /// The LAN this node is the gateway of.
    pub fn site_prefix(&self) -> Option<Prefix> {
        let network = self.network.as_ref()?;
        let member = network.registry.by_member(&network.own.member)?;
        let site = member.membership.site?;
        member
            .membership
            .roles
            .contains(Roles::GATEWAY)
            .then(|| site_prefix(&network.registry.network(), site))
    }

    /// Saves what changed since `before` and lets everything that rests on it follow:
    /// who left goes first, then keys and paths, then what is admitted anew.
    pub(super) fn records_changed(&mut self, before: u64, now: Instant) {
        self.save_records();
        self.tell_decisions(before);
        let Some(network) = &self.network else {
            return;
        };
        let mut changed: BTreeSet<RecordSlot> = BTreeSet::new();
        let mut verdicts = Vec::new();
        for (_, slot, bytes) in network.registry.changes_since(before) {
            if slot.kind() == RecordKind::REVOCATION && verdicts.len() < MAX_MESSAGE_BYTES / 2 {
                pack_into(bytes, &mut verdicts);
            }
            changed.insert(slot);
        }
        self.put_out_strangers(&verdicts, now);
        let Some(network) = &self.network else {
            return;
        };
        let mut nodes = Vec::new();
        let mut events = Vec::new();
        for slot in &changed {
            match slot.kind() {
                RecordKind::NODE => {
                    let device = SigningKey(*slot.subject());
                    if let Some(member) = network.registry.by_device(&device) {
                        nodes.push(member.id);
                    }
                }
                RecordKind::MEMBERSHIP => {
                    let found = network
                        .registry
                        .members()
                        .find(|m| RecordSlot::membership(m.membership.member) == *slot);
                    if let Some(member) = found
                        && member.id == network.own.node
                    {
                        events.push(Event::Renewed);
                    } else if let Some(member) = found {
                        events.push(Event::MemberChanged {
                            member: member.membership.member,
                            name: member.membership.name.clone(),
                        });
                    }
                }
                _ => {}
            }
        }
        for event in events {
            self.tell(event);
        }
        self.tell_tls(&changed);
        for node in nodes {
            self.peer_record_changed(node, now);
        }
        self.tend_app_tunnels(now);
        self.link_relays(now);
        self.advertise(now);
        if changed.iter().any(|slot| decides(slot.kind())) {
            self.take_policy(now);
        } else {
            self.tend_policy(now);
        }
        self.sign_head_if_due(now);
        self.after_save(Deferred::Push, now);
        self.timers.housekeeping_at(now);
    }

    /// Cuts off everybody who is no longer a member, this node included.
    ///
    /// They are shown the `verdicts`, so that they know it themselves, and are strangers then.
    fn put_out_strangers(&mut self, verdicts: &[u8], now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        if network.is_out(&network.own.device, network.own.member) {
            self.put_out(now);
            return;
        }
        // Who is merely set aside (its issuer's owner left, say) keeps its sessions: what puts
        // it back will come over them. No packet passes meanwhile, for no record backs it.
        let gone: BTreeSet<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| network.is_out(&peer.device, peer.member))
            .map(|(node, _)| *node)
            .collect();
        let standing = self
            .sessions
            .values()
            .filter_map(|session| match session.standing {
                Standing::Member(node) => Some(node),
                _ => None,
            });
        let strangers: BTreeSet<NodeId> = standing
            .chain(self.relay.clients())
            .filter(|node| !self.peers.contains_key(node))
            .filter(|node| network.registry.by_node(node).is_none())
            .chain(gone.iter().copied())
            .collect();
        for node in strangers {
            self.relay.remove(node);
            self.make_stranger(node, verdicts, now);
            if let Some(peer) = self.peers.get(&node) {
                let member = peer.member;
                self.tell(Event::MemberGone { member });
            }
            self.forget(node, now);
            self.forget_last_path(node);
        }
    }

    fn make_stranger(&mut self, node: NodeId, verdicts: &[u8], now: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.session = None;
        }
        let sessions: Vec<_> = self
            .sessions
            .iter_mut()
            .filter(|(_, session)| session.standing == Standing::Member(node))
            .map(|(id, session)| {
                session.standing = Standing::Stranger;
                session.follows = None;
                *id
            })
            .collect();
        let cursor = Cursor::default();
        for session in sessions {
            let notice = Notice::Changed {
                records: verdicts,
                cursor,
            };
            self.say(session, &Message::Notice(notice), now);
        }
    }

    /// This node was revoked: it stops speaking for the network, and keeps its keys so that
    /// it can be invited again.
    fn put_out(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let id = network.registry.network();
        self.leave(now);
        self.tell(Event::Left {
            network: id,
            revoked: true,
        });
    }

    /// Forgets the network: its records, peers and sessions.
    pub(super) fn leave(&mut self, now: Instant) {
        let nodes: Vec<NodeId> = self.peers.keys().copied().collect();
        for node in nodes {
            self.forget(node, now);
        }
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.end_session(session, crate::control::CloseReason::Done, now);
        }
        self.close_turn(now);
        self.turn_off(now);
        self.relays.clear();
        self.mesh = super::mesh::Others::new(self.config.limits.members.into());
        self.unheard = super::command::Unheard::default();
        self.saves.changed(Slot::Network);
        self.saves.changed(Slot::Issuer);
        self.saves.changed(Slot::Cursor);
        self.saves.changed(Slot::Witnessed);
        self.witnesses.clear();
        for node in core::mem::take(&mut self.last_paths).into_keys() {
            self.saves.changed(Slot::LastPath(node));
        }
        if let Some(network) = self.network.take() {
            for (slot, _) in network.registry.iter() {
                self.saves.changed(Slot::Record(slot));
            }
        }
        self.forget_apps();
        self.issuer = None;
        self.cursor = Cursor::default();
        self.cursor_of = None;
        self.control.welcome_strangers(false);
        self.take_policy(now);
        self.advertise(now);
    }

    /// Signs this node's record anew if it no longer says how things are.
    pub(super) fn publish_node(&mut self, now: Instant) {
        let fixed_endpoints = self.fixed_endpoints();
        let Some(network) = &mut self.network else {
            return;
        };
        if network.is_aside() {
            // Nothing it signs is heard now.
            return;
        }
        let mut record = NodeRecord {
            control: self.identity.control.public(),
            tunnel: self.identity.tunnel.public(),
            previous_tunnel: self
                .identity
                .previous
                .as_ref()
                .map(super::identity::Tunnel::public),
            home_relays: heapless::Vec::new(),
            fixed_endpoints,
        };
        for relay in network.registry.relays() {
            if relay.id != network.own.node && record.home_relays.push(relay.id).is_err() {
                break;
            }
        }
        if network.registry.node_record(network.own.node) == Some(&record) {
            return;
        }
        let before = network.registry.revision();
        let slot = RecordSlot::node(network.own.device);
        let serial = network.registry.next_serial(&slot);
        let mut out = [0; MAX_RECORD_BYTES];
        let id = network.registry.network();
        if let Ok(bytes) = sign_record(&self.identity.device, id, &record, serial, &mut out) {
            if network.registry.apply(bytes, &mut self.clock).is_err() {
                // Tried again when records have changed; told once.
                if self.timers.refused_own != before {
                    self.timers.refused_own = before;
                    self.tell(Event::RecordRefused {
                        why: "this node's own record clashes with another's",
                    });
                }
                return;
            }
            self.records_changed(before, now);
            self.after_save(Deferred::Announce, now);
        }
    }

    /// Endpoints that don't change: those of the configuration, then those of the bundle.
    pub(super) fn fixed_endpoints(&self) -> heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS> {
        let mut endpoints = self.config.fixed_endpoints.clone();
        for endpoint in &self.fixed_endpoints {
            if !endpoints.contains(endpoint) && endpoints.push(*endpoint).is_err() {
                break;
            }
        }
        endpoints
    }

    /// Gives the engine the calendar for its stamps. A time that can't be told, or lies
    /// absurdly far from what signatures vouch for, is not used: stamps then count up from
    /// the last.
    pub(super) fn set_calendar(&mut self, now: Instant) {
        const ABSURD_S: u64 = 10 * 366 * 86_400;
        let time = match self.clock.estimate(now) {
            crate::clock::Estimate::Running(time) => {
                let ahead = time.as_secs().saturating_sub(self.clock.floor().as_secs());
                (ahead < ABSURD_S).then_some(time)
            }
            crate::clock::Estimate::AtLeast(_) => None,
        };
        self.engine.set_calendar(time, now);
    }
}
