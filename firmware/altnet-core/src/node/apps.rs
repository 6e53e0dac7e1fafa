//! Apps: members of their own on a device that hosts them.
//!
//! An app has a signing key, from which its address follows, and a tunnel key of its own. Who is
//! allowed to an app makes a tunnel with that key; nothing but the app's address is reached through
//! it, and nothing of the app's comes through any other. So sharing an app shares neither the
//! device nor the LAN behind it.
//!
//! The driver ends an app's connections: packets for it come out as [`Verdict::App`], what it says
//! goes in by [`Node::handle_app`].

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::{LocalKeyId, PeerConfig, PeerIndex};
use altnet_tunnel::key::TunnelSecret;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::address::app_address;
use altnet_wire::envelope::MAX_RECORD_BYTES;
use altnet_wire::frame::Frame;
use altnet_wire::hash;
use altnet_wire::id::{Name, NetworkId, NodeId, SigningKey, TunnelKey};
use altnet_wire::record::{AppRecord, Roles};
use altnet_wire::time::{Duration, Instant};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::facts::View;
use super::identity;
use super::peers::Tunnel;
use super::view::AppView;
use super::{CommandError, Deferred, DropReason, Node, Slot, Stored, Verdict};
use crate::ip::PacketInfo;
use crate::records::{SigningSecret, bind_app, sign_record};
use crate::registry::{Member, RecordError, Registry, Slot as RecordSlot, Subject};

/// Tunnels with the apps of one peer, and of our apps with it, at a time.
const TUNNELS_PER_PEER: usize = 16;
/// The longest note that a driver keeps with an app, in bytes.
pub const MAX_NOTE_BYTES: usize = 512;
/// A tunnel that carried nothing for this long is let go.
const IDLE: Duration = Duration::from_secs(600);

/// Whose app a tunnel belongs to, by the app's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AppEnd {
    /// The peer's: we reach it.
    Theirs(Ipv6Addr),
    /// Ours: the peer reaches it.
    Ours(Ipv6Addr),
}

/// By which of a peer's tunnels a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// Its device's.
    Device,
    /// An app's.
    App(AppEnd),
}

/// A tunnel of an app's.
#[derive(Clone, Copy, Debug)]
pub(super) struct AppTunnel {
    pub(super) end: AppEnd,
    pub(super) tunnel: Tunnel,
    used: Instant,
}

/// An app on this device.
pub(super) struct OwnApp {
    name: Name,
    secret: SigningSecret,
    tunnel: identity::Tunnel,
    local: LocalKeyId,
    note: Box<[u8]>,
}

/// The slot of an app on this device.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct StoredApp<'a> {
    version: u8,
    network: [u8; 32],
    #[zeroize(skip)]
    #[serde(borrow)]
    name: &'a str,
    secret: [u8; 32],
    epoch: u32,
    tunnel: [u8; 32],
    #[zeroize(skip)]
    #[serde(borrow)]
    note: &'a [u8],
    check: [u8; 8],
}

impl StoredApp<'_> {
    fn check(&self) -> [u8; 8] {
        let hash = hash::labelled(
            "altnet app check v1",
            &[
                &self.network,
                self.name.as_bytes(),
                &self.secret,
                &self.epoch.to_be_bytes(),
                &self.tunnel,
                self.note,
            ],
        );
        let mut check = [0; 8];
        check.copy_from_slice(&hash[..8]);
        check
    }
}

impl OwnApp {
    /// The bytes to keep.
    pub(super) fn to_bytes(&self, network: NetworkId) -> Option<Vec<u8>> {
        let mut stored = StoredApp {
            version: 1,
            network: network.0,
            name: self.name.as_str(),
            secret: *self.secret.to_bytes(),
            epoch: self.tunnel.epoch,
            tunnel: *self.tunnel.secret.expose(),
            note: &self.note,
            check: [0; 8],
        };
        stored.check = stored.check();
        postcard::to_allocvec(&stored).ok()
    }

    /// Its signing key.
    pub(super) fn key(&self) -> SigningKey {
        self.secret.public()
    }

    /// Its name.
    pub(super) const fn name(&self) -> &Name {
        &self.name
    }

    /// Its place among the engine's keys.
    pub(super) const fn local(&self) -> LocalKeyId {
        self.local
    }

    fn record(&self, network: &NetworkId, device: &SigningKey) -> AppRecord {
        AppRecord {
            name: self.name.clone(),
            app: self.key(),
            tunnel: Some(self.tunnel.public()),
            binding: bind_app(network, &self.secret, device),
        }
    }
}

/// Where packets for an address go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// To a member's device.
    Device(NodeId),
    /// To an app of that member's, by its address and tunnel key.
    App(NodeId, Ipv6Addr, TunnelKey),
}

impl Registry {
    /// Where packets for `address` go.
    pub(super) fn route(&self, address: Ipv6Addr) -> Option<Route> {
        match self.by_address(address)? {
            Subject::App(app, member) => {
                let tunnel = app.record.tunnel?;
                Some(Route::App(member.id, address, tunnel.key))
            }
            subject => subject.member().map(|member| Route::Device(member.id)),
        }
    }
}

impl<A: Aead> Node<A> {
    /// Takes up the apps that were kept. One that doesn't read is passed over: its key is lost.
    pub(super) fn load_apps(&mut self, stored: &Stored) {
        for (_, bytes) in stored.iter().filter(|(name, _)| name.starts_with("app-")) {
            let Some((address, app)) = self.read_app(bytes) else {
                continue;
            };
            self.apps.insert(address, app);
        }
    }

    fn read_app(&mut self, bytes: &[u8]) -> Option<(Ipv6Addr, OwnApp)> {
        let stored: StoredApp<'_> = postcard::from_bytes(bytes).ok()?;
        if stored.version != 1 || stored.check() != stored.check {
            return None;
        }
        let tunnel = identity::Tunnel {
            epoch: stored.epoch,
            secret: TunnelSecret::new(stored.tunnel),
        };
        let floor = self.stamps.get(&tunnel.secret.public().0).copied();
        let local = self
            .engine
            .add_local_key(
                TunnelSecret::new(stored.tunnel),
                floor.unwrap_or(Tai64n::ZERO),
            )
            .ok()?;
        let app = OwnApp {
            name: Name::new(stored.name).ok()?,
            secret: SigningSecret::from_bytes(&stored.secret),
            tunnel,
            local,
            note: stored.note.into(),
        };
        let address = app_address(&NetworkId(stored.network), &app.key());
        Some((address, app))
    }

    /// The apps on this device.
    pub fn app_views(&self) -> Vec<AppView> {
        use alloc::string::ToString;
        let view = |(address, app): (&Ipv6Addr, &OwnApp)| AppView {
            name: app.name.to_string(),
            address: address.to_string(),
            key: app.key().to_string(),
            tunnel_epoch: app.tunnel.epoch,
        };
        self.apps.iter().map(view).collect()
    }

    /// The apps on this device: address, name, and what the driver noted of it.
    pub fn hosted_apps(&self) -> impl Iterator<Item = (Ipv6Addr, &Name, &[u8])> {
        let apps = self.apps.iter();
        apps.map(|(address, app)| (*address, &app.name, &*app.note))
    }

    /// The address of the app on this device that is called so.
    pub fn own_app(&self, name: &Name) -> Option<Ipv6Addr> {
        let mut apps = self.apps.iter();
        apps.find(|(_, app)| app.name == *name).map(|(at, _)| *at)
    }

    /// Makes an app with keys of its own, and says so.
    pub(super) fn add_app(
        &mut self,
        name: Name,
        note: Box<[u8]>,
        now: Instant,
    ) -> Result<(), CommandError> {
        if note.len() > MAX_NOTE_BYTES {
            return Err(CommandError::NoteTooLong);
        }
        if !self.own_roles().contains(Roles::APPS) {
            return Err(match self.network {
                Some(_) => CommandError::NotAppHost,
                None => CommandError::NotMember,
            });
        }
        let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
        let registry = &network.registry;
        let is_taken = registry.app_by_name(&name).is_some()
            || registry.host(&name).is_some()
            || registry.by_name(&name).is_some();
        if is_taken {
            return Err(CommandError::NameTaken);
        }
        let id = registry.network();
        let secret = SigningSecret::generate(&mut self.rng);
        let tunnel = identity::Tunnel {
            epoch: 1,
            secret: TunnelSecret::new(self.rng.array()),
        };
        let copy = TunnelSecret::new(*tunnel.secret.expose());
        let local = self
            .engine
            .add_local_key(copy, Tai64n::ZERO)
            .map_err(|_| CommandError::NoRoomForKey)?;
        let app = OwnApp {
            name,
            secret,
            tunnel,
            local,
            note,
        };
        let record = app.record(&id, &network.own.device);
        if let Err(error) = self.sign_app(&record, now) {
            let _ = self.engine.remove_local_key(local);
            return Err(error);
        }
        let key = app.key();
        self.apps.insert(app_address(&id, &key), app);
        self.saves.changed(Slot::App(key));
        // Its key is on disk before anybody hears of it.
        self.after_save(Deferred::Announce, now);
        Ok(())
    }

    /// Gives an app up for good: its key is forgotten.
    pub(super) fn remove_app(&mut self, name: &Name, now: Instant) -> Result<(), CommandError> {
        let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
        let address = self.own_app(name).ok_or(CommandError::NoSuchApp)?;
        let app = self.apps.get(&address).ok_or(CommandError::NoSuchApp)?;
        let record = AppRecord {
            tunnel: None,
            ..app.record(&network.registry.network(), &network.own.device)
        };
        self.sign_app(&record, now)?;
        self.drop_app_tunnels(|_, tunnel| tunnel.end == AppEnd::Ours(address));
        if let Some(app) = self.apps.remove(&address) {
            self.retire_key(app.local);
            self.saves.changed(Slot::App(app.key()));
        }
        self.tend_tls();
        self.after_save(Deferred::Announce, now);
        Ok(())
    }

    /// Forgets every app: this node is no member any more.
    pub(super) fn forget_apps(&mut self) {
        for app in core::mem::take(&mut self.apps).into_values() {
            self.retire_key(app.local);
            self.saves.changed(Slot::App(app.key()));
        }
        self.tend_tls();
    }

    fn sign_app(&mut self, record: &AppRecord, now: Instant) -> Result<(), CommandError> {
        let network = self.network.as_mut().ok_or(CommandError::NotMember)?;
        let before = network.registry.revision();
        let serial = network.registry.next_serial(&RecordSlot::app(record.app));
        let id = network.registry.network();
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = sign_record(&self.identity.device, id, record, serial, &mut out)
            .map_err(RecordError::from)?;
        network.registry.apply(bytes, &mut self.clock)?;
        self.records_changed(before, now);
        Ok(())
    }

    /// Takes an IP packet from an app on this device. With [`Verdict::Deliver`] the frame holds a
    /// packet for our side, with [`Verdict::Send`] a sealed datagram.
    ///
    /// # Errors
    /// The reason why it goes nowhere; it is counted.
    pub fn handle_app(
        &mut self,
        app: Ipv6Addr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        self.outbound_of_app(app, frame, now).map_err(|reason| {
            self.refusals.refuse_packet(reason);
            self.counters.drop(reason)
        })
    }

    fn outbound_of_app(
        &mut self,
        app: Ipv6Addr,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let packet = PacketInfo::parse(frame.packet()).map_err(|_| DropReason::BadPacket)?;
        if packet.source != app || !self.apps.contains_key(&app) {
            return Err(DropReason::ForeignSource);
        }
        let network = self.network.as_ref().ok_or(DropReason::NotMember)?;
        let route = network.registry.route(packet.destination);
        let Some(Route::Device(node)) = route else {
            // An app that calls another app would show both of its keys; none does so far.
            return Err(DropReason::NoRoute);
        };
        if node == network.own.node {
            return self.app_to_lan(&packet, frame, now);
        }
        let facts = View::new(network, &self.clock, now);
        let verdict = self.policy.judge_outbound(&packet, &facts, now);
        if verdict.drop_reason().is_some() {
            return Err(DropReason::Denied);
        }
        let tunnel = self
            .tunnel_of_app(node, app, now)
            .ok_or(DropReason::NoPath)?;
        self.seal_to(node, tunnel, frame, now)
    }

    /// From our own LAN, or this device, to an app on this device.
    pub(super) fn lan_to_app(
        &mut self,
        app: Ipv6Addr,
        packet: &PacketInfo,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let network = self.network.as_ref().ok_or(DropReason::NotMember)?;
        let facts = View::beside_apps(network, &self.clock, now);
        let verdict = self.policy.judge_outbound(packet, &facts, now);
        match verdict.drop_reason() {
            Some(_) => Err(DropReason::Denied),
            None => Ok(Verdict::App { app }),
        }
    }

    fn app_to_lan(
        &mut self,
        packet: &PacketInfo,
        frame: &Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let network = self.network.as_ref().ok_or(DropReason::NotMember)?;
        let facts = View::beside_apps(network, &self.clock, now);
        let verdict = self.policy.judge_inbound(packet, &facts, now);
        if verdict.drop_reason().is_some() {
            return Err(DropReason::Denied);
        }
        self.counters.delivered += 1;
        self.counters.delivered_bytes += frame.len() as u64;
        Ok(Verdict::Deliver)
    }

    /// The tunnel by which `node` reached an app of ours, or one to its present key.
    fn tunnel_of_app(&mut self, node: NodeId, app: Ipv6Addr, now: Instant) -> Option<PeerIndex> {
        let end = AppEnd::Ours(app);
        let peer = self.peers.get_mut(&node);
        let theirs = peer.into_iter().flat_map(|peer| &mut peer.apps);
        let ours = theirs.filter(|tunnel| tunnel.end == end);
        let newest = ours.max_by_key(|tunnel| {
            let stats = self.engine.stats(tunnel.tunnel.index, now);
            stats.map(|stats| (stats.is_up, stats.last_handshake))
        });
        if let Some(tunnel) = newest {
            tunnel.used = now;
            return Some(tunnel.tunnel.index);
        }
        let key = self.record_of(node)?.tunnel.key;
        self.app_tunnel(node, end, key, now)
    }

    /// The tunnel of an app with the peer's key `key`; makes it if there is none yet.
    pub(super) fn app_tunnel(
        &mut self,
        node: NodeId,
        end: AppEnd,
        key: TunnelKey,
        now: Instant,
    ) -> Option<PeerIndex> {
        self.meet(node, now)?;
        let peer = self.peers.get_mut(&node)?;
        peer.used = now;
        let mut known = peer.apps.iter_mut();
        if let Some(known) = known.find(|known| known.end == end && known.tunnel.key == key) {
            known.used = now;
            return Some(known.tunnel.index);
        }
        let local = match end {
            AppEnd::Theirs(_) => self.local_key,
            AppEnd::Ours(app) => self.apps.get(&app)?.local,
        };
        if peer.apps.len() >= TUNNELS_PER_PEER {
            let oldest = peer.apps.iter().min_by_key(|tunnel| tunnel.used);
            let oldest = oldest.map(|tunnel| tunnel.tunnel.index);
            self.drop_app_tunnels(|_, tunnel| Some(tunnel.tunnel.index) == oldest);
        }
        let config = PeerConfig {
            roams: false,
            ..PeerConfig::new(key, local)
        };
        let index = self.engine.add_peer(config, now).ok()?;
        self.tunnels.insert(index, node);
        let tunnel = Tunnel { index, key };
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.apps.push(AppTunnel {
                end,
                tunnel,
                used: now,
            });
        }
        self.follow_path(node, now);
        Some(index)
    }

    /// A peer that reaches apps of ours has another key: each makes a tunnel with it, before the
    /// one with the former key is gone.
    pub(super) fn app_callers_key_changed(&mut self, node: NodeId, key: TunnelKey, now: Instant) {
        let Some(peer) = self.peers.get(&node) else {
            return;
        };
        let mut ours: heapless::Vec<AppEnd, TUNNELS_PER_PEER> = heapless::Vec::new();
        for tunnel in &peer.apps {
            if matches!(tunnel.end, AppEnd::Ours(_)) && !ours.contains(&tunnel.end) {
                // There are no more tunnels than that.
                let _ = ours.push(tunnel.end);
            }
        }
        for end in ours {
            if let Some(index) = self.app_tunnel(node, end, key, now) {
                let _ = self.engine.rekey(index, now);
            }
        }
    }

    /// By which of `node`'s tunnels a packet came.
    pub(super) fn via(&mut self, node: NodeId, tunnel: PeerIndex, now: Instant) -> Via {
        let peer = self.peers.get_mut(&node);
        let mut apps = peer.into_iter().flat_map(|peer| &mut peer.apps);
        match apps.find(|app| app.tunnel.index == tunnel) {
            Some(app) => {
                app.used = now;
                Via::App(app.end)
            }
            None => Via::Device,
        }
    }

    /// A handshake by a key that is no peer's yet, to `local`: with an app of ours, or an app's own?
    pub(super) fn admit_app_tunnel(
        &mut self,
        key: &TunnelKey,
        local: LocalKeyId,
        now: Instant,
    ) -> Option<()> {
        let registry = &self.network.as_ref()?.registry;
        let mut ours = self.apps.iter();
        let ours = ours.find(|(_, app)| app.local == local).map(|(at, _)| *at);
        let (node, end) = match ours {
            Some(app) => (registry.member_by_tunnel(key)?, AppEnd::Ours(app)),
            None => {
                let app = registry.app_by_tunnel(key)?;
                let member = registry.by_device(&app.device)?;
                (member.id, AppEnd::Theirs(app.address))
            }
        };
        self.app_tunnel(node, end, *key, now).map(drop)
    }

    /// Whether this local key is an app's.
    pub(super) fn is_apps_key(&self, local: LocalKeyId) -> bool {
        self.apps.values().any(|app| app.local == local)
    }

    /// Whether a tunnel ends at an app of ours, which shows the app's key and no other.
    pub(super) fn shows_app_key(&self, index: PeerIndex) -> bool {
        let mut apps = self.peers.values().flat_map(|peer| &peer.apps);
        apps.any(|app| app.tunnel.index == index && matches!(app.end, AppEnd::Ours(_)))
    }

    /// Lets go of tunnels that carried nothing for long, and of those to apps that are no more.
    pub(super) fn tend_app_tunnels(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let gone: Vec<PeerIndex> = self
            .peers
            .values()
            .flat_map(|peer| &peer.apps)
            .filter(|app| {
                let is_idle = now.saturating_since(app.used) >= IDLE;
                let key = &app.tunnel.key;
                let is_known = match app.end {
                    AppEnd::Theirs(_) => network.registry.app_by_tunnel(key).is_some(),
                    AppEnd::Ours(_) => network.registry.by_tunnel(key).is_some(),
                };
                is_idle || !is_known
            })
            .map(|app| app.tunnel.index)
            .collect();
        if !gone.is_empty() {
            self.drop_app_tunnels(|_, tunnel| gone.contains(&tunnel.tunnel.index));
        }
    }

    /// Lets go of the tunnels of apps that `which` picks.
    pub(super) fn drop_app_tunnels(&mut self, which: impl Fn(NodeId, &AppTunnel) -> bool) {
        let mut gone = Vec::new();
        for (node, peer) in &mut self.peers {
            peer.apps.retain(|tunnel| {
                let goes = which(*node, tunnel);
                if goes {
                    gone.push(tunnel.tunnel.index);
                }
                !goes
            });
        }
        for index in gone {
            self.drop_tunnel(index);
        }
    }

    /// The bytes of an app's slot.
    pub(super) fn app_bytes(&self, key: &SigningKey) -> Option<Vec<u8>> {
        let network = self.network.as_ref()?.registry.network();
        let app = self.apps.get(&app_address(&network, key))?;
        Some(Zeroizing::new(app.to_bytes(network)?).to_vec())
    }
}

/// Whether `member`'s device, rather than an app on it, has this address.
pub(super) fn is_devices(registry: &Registry, node: NodeId, address: Ipv6Addr) -> bool {
    let subject = registry.by_address(address);
    let is_app = matches!(subject, Some(Subject::App(..)));
    let member: Option<NodeId> = subject
        .as_ref()
        .and_then(Subject::member)
        .map(|member: &Member<'_>| member.id);
    !is_app && member == Some(node)
}
