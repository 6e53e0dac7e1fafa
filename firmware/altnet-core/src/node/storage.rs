//! The slots of a node's state: what is in them, and taking it up again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::SocketAddr;

use altnet_tunnel::aead::Aead;
use altnet_tunnel::tai64n::{TAI64N_BYTES, Tai64n};
use altnet_wire::id::{Name, NetworkId, NodeId, TunnelKey};
use altnet_wire::message::Cursor;
use altnet_wire::record::MAX_FIXED_ENDPOINTS;
use altnet_wire::time::{Instant, UnixTime};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::apps::OwnApp;
use super::identity::IDENTITY_BYTES;
use super::{Config, Node, Slot, Stored};
use crate::clock::Clock;
use crate::issuer::Issuer;
use crate::records::SigningSecret;
use crate::registry::Registry;

/// The slot that says which network this node is a member of.
#[derive(Serialize, Deserialize)]
struct StoredNetwork {
    version: u8,
    network: NetworkId,
    petname: Name,
    fixed_endpoints: heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
}

/// The slot with an issuer key that this node admits with.
#[derive(Serialize, Deserialize)]
struct StoredIssuer<'a> {
    version: u8,
    secret: [u8; 32],
    uses: &'a [u8],
}

pub(super) fn stored_clock(config: &Config, stored: &Stored) -> Clock {
    let mut clock = Clock::new(config.built);
    if let Some(floor) = stored
        .get("floor")
        .and_then(|bytes| <[u8; 8]>::try_from(bytes.as_slice()).ok())
    {
        clock.raise(UnixTime::from_secs(u64::from_be_bytes(floor)));
    }
    clock
}

pub(super) fn stored_stamps(stored: &Stored) -> BTreeMap<[u8; 32], Tai64n> {
    stored
        .iter()
        .filter_map(|(name, bytes)| {
            let key: TunnelKey = name.strip_prefix("tai-")?.parse().ok()?;
            let stamp = <[u8; TAI64N_BYTES]>::try_from(bytes.as_slice()).ok()?;
            Some((key.0, Tai64n::from_bytes(&stamp)))
        })
        .collect()
}

impl<A: Aead> Node<A> {
    /// Takes up what was kept.
    pub(super) fn load(&mut self, stored: &Stored, now: Instant) {
        self.load_apps(stored);
        self.load_tls(stored);
        self.load_derp_key(stored);
        self.take_up(stored, now);
        if self.network.is_some() {
            self.tend_tls();
        }
        self.drop_strays(stored);
    }

    /// Removes what a power cut left behind and nothing refers to any more.
    pub(super) fn drop_strays(&mut self, stored: &Stored) {
        const OURS: [&str; 5] = ["record-", "tai-", "path-", "app-", "tls-"];
        let mut live: BTreeSet<String> = BTreeSet::new();
        if let Some(network) = &self.network {
            live.extend(
                network
                    .registry
                    .iter()
                    .map(|(slot, _)| Slot::Record(slot).to_string()),
            );
        }
        live.extend(
            self.last_paths
                .keys()
                .map(|node| Slot::LastPath(*node).to_string()),
        );
        let apps = self.apps.values();
        live.extend(apps.map(|app| Slot::App(app.key()).to_string()));
        let keys = self.tls_keys.keys();
        live.extend(keys.map(|subject| Slot::Tls(*subject).to_string()));
        for key in [Some(self.local_key), self.previous_key]
            .into_iter()
            .flatten()
            .chain(self.apps.values().map(OwnApp::local))
        {
            if let Some(key) = self.engine.local_key(key) {
                live.insert(Slot::Tai(key.0).to_string());
            }
        }
        for name in stored.keys() {
            if OURS.iter().any(|ours| name.starts_with(ours)) && !live.contains(name) {
                self.saves.changed(Slot::Stray(name.clone()));
            }
        }
    }

    pub(super) fn take_up(&mut self, stored: &Stored, now: Instant) {
        let Some(kept) = stored
            .get("network")
            .and_then(|bytes| postcard::from_bytes::<StoredNetwork>(bytes).ok())
        else {
            return;
        };
        let is_record = |name: &str| name.starts_with("record-");
        let genesis = stored
            .iter()
            .filter(|(name, _)| is_record(name))
            .find(|(_, bytes)| altnet_wire::id::network_id(bytes) == kept.network);
        let Some((_, genesis)) = genesis else {
            return;
        };
        let Ok(mut registry) = Registry::new(genesis, self.config.limits) else {
            return;
        };
        let records = stored
            .iter()
            .filter(|(name, _)| is_record(name))
            .map(|(_, bytes)| bytes.as_slice());
        registry.apply_stored(records, &mut self.clock);
        registry.mark_saved();
        self.load_issuer(stored, &registry);
        self.load_paths(stored);
        if let Some(kept) = stored.get("witnessed") {
            self.witnesses.load(kept);
        }
        if let Some(cursor) = stored
            .get("cursor")
            .and_then(|bytes| postcard::from_bytes::<(NodeId, u64, u64)>(bytes).ok())
        {
            self.cursor_of = Some(cursor.0);
            self.cursor = Cursor {
                epoch: cursor.1,
                revision: cursor.2,
            };
        }
        let petname = self.config.petname.clone().unwrap_or(kept.petname);
        self.fixed_endpoints = kept.fixed_endpoints;
        self.enter(registry, petname, now);
    }

    pub(super) fn load_issuer(&mut self, stored: &Stored, registry: &Registry) {
        let Some(kept) = stored
            .get("issuer")
            .and_then(|bytes| postcard::from_bytes::<StoredIssuer<'_>>(bytes).ok())
        else {
            return;
        };
        let secret = SigningSecret::from_bytes(&kept.secret);
        let uses = (!kept.uses.is_empty()).then_some(kept.uses);
        self.issuer = Issuer::new(secret, uses, registry).ok();
    }

    /// The bytes to keep in `slot`; none means that nothing is to be kept there.
    pub fn state_bytes(&self, slot: &Slot) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = match slot {
            Slot::Identity => {
                let mut out = Zeroizing::new([0; IDENTITY_BYTES]);
                let used = self.identity.encode(&mut out);
                Vec::from(out.get(..used)?)
            }
            Slot::Network => {
                let network = self.network.as_ref()?;
                let stored = StoredNetwork {
                    version: 1,
                    network: network.registry.network(),
                    petname: network.petname.clone(),
                    fixed_endpoints: self.fixed_endpoints.clone(),
                };
                postcard::to_allocvec(&stored).ok()?
            }
            Slot::Issuer => {
                let issuer = self.issuer.as_ref()?;
                let secret = issuer.secret().to_bytes();
                let stored = StoredIssuer {
                    version: 1,
                    secret: *secret,
                    uses: &issuer.uses_bytes(),
                };
                postcard::to_allocvec(&stored).ok()?
            }
            Slot::Floor => self.clock.floor().as_secs().to_be_bytes().to_vec(),
            Slot::Tai(key) => self.stamps.get(key)?.to_bytes().to_vec(),
            Slot::Cursor => {
                let of = self.cursor_of?;
                postcard::to_allocvec(&(of, self.cursor.epoch, self.cursor.revision)).ok()?
            }
            Slot::LastPath(node) => postcard::to_allocvec(self.last_paths.get(node)?).ok()?,
            Slot::App(key) => self.app_bytes(key)?,
            Slot::Tls(subject) => self.tls_bytes(subject)?,
            Slot::Witnessed => self.witnesses.bytes()?,
            Slot::Derp => self.derp_key_bytes()?,
            Slot::Stray(_) => return None,
            Slot::Record(slot) => {
                let registry = match (&self.network, &self.joining) {
                    (Some(network), _) => &network.registry,
                    (None, Some(joining)) => joining.registry.as_ref()?,
                    (None, None) => return None,
                };
                registry.bytes(slot)?.to_vec()
            }
        };
        Some(Zeroizing::new(bytes))
    }

    /// Offers what changed to the driver.
    pub(super) fn save_records(&mut self) {
        let registry = match (&mut self.network, &mut self.joining) {
            (Some(network), _) => &mut network.registry,
            (None, Some(joining)) => match &mut joining.registry {
                Some(registry) => registry,
                None => return,
            },
            (None, None) => return,
        };
        if self.issuer.as_mut().is_some_and(Issuer::is_unsaved) {
            // Before the membership that it counts: a use is never given twice.
            self.saves.changed(Slot::Issuer);
        }
        while let Some(slot) = registry.next_unsaved() {
            self.saves.changed(Slot::Record(slot));
        }
        if self.clock.floor() > self.timers.floor_saved {
            self.timers.floor_saved = self.clock.floor();
            self.saves.changed(Slot::Floor);
        }
    }
}
