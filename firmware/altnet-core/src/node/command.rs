//! What a person asks of a node, through a driver.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv6Addr;

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::LocalKeyId;
use altnet_tunnel::key::TunnelSecret;
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::envelope::{Envelope, MAX_RECORD_BYTES};
use altnet_wire::id::{Name, NodeId};
use altnet_wire::message::Login;
use altnet_wire::record::{HostRecord, Roles};
use altnet_wire::time::{Duration, Instant};

use super::{Event, JoinError, Node, Slot};
use crate::invite::Bundle;
use crate::issuer::Refusal;
use crate::records::sign_record;
use crate::registry::{RecordError, Slot as RecordSlot};

/// One thing to do.
#[derive(Debug)]
#[non_exhaustive]
pub enum Command {
    /// Join a network. Ends in [`Event::Joined`] or [`Event::JoinFailed`].
    Join {
        /// A first-boot bundle, or one that holds a link alone.
        bundle: alloc::boxed::Box<Bundle>,
        /// What this device would like to be called; the invite's own name goes before.
        name: Option<Name>,
    },
    /// Forget the network.
    Leave,
    /// Replace the tunnel key now.
    Rotate,
    /// Make another relay the home, for an hour. Tells [`Event::HomeRelay`].
    RotateRelay,
    /// Measure a relay that forwards for this node, by what this node sends itself through it. Ends in
    /// [`Event::Benched`].
    Bench {
        /// Which relay.
        relay: NodeId,
        /// The most bytes to send, each way.
        bytes: u32,
        /// Whether this node's line may be paid by the byte.
        even_if_metered: bool,
    },
    /// Measure the way to a node. Ends in [`Event::Pong`], or in nothing.
    Ping {
        /// Which node.
        node: NodeId,
    },
    /// Name a machine on this gateway's LAN, or give the name up.
    SetHost {
        /// The name.
        name: Name,
        /// The machine's address in the site's /64; none gives the name up.
        address: Option<Ipv6Addr>,
    },
    /// Make an app with keys of its own on this device.
    AddApp {
        /// Its name.
        name: Name,
        /// What the driver has to know to end its connections, kept with its keys: at most
        /// [`super::MAX_NOTE_BYTES`].
        note: Box<[u8]>,
    },
    /// Give an app up, and forget its keys.
    RemoveApp {
        /// Its name.
        name: Name,
    },
    /// Keep a key for TLS and ask an owner to certify it.
    AskTls {
        /// The app on this device; none asks for the login page.
        app: Option<Name>,
        /// The key, which signed what [`Node::tls_subject`] gave.
        key: Box<super::NewTlsKey>,
    },
    /// Count a machine on this gateway's LAN as a person's and as in groups, for a time (ADR 0008);
    /// for no time takes it back.
    Login(Box<Login>),
}

/// Why a command was not carried out. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no relay to go to but the one that is used.
    #[error("no other relay forwards for this node now")]
    NoOtherRelay,
    /// No relay of that id is one of this node's.
    #[error("that is no relay of this node's")]
    NoSuchRelay,
    /// The relay doesn't forward for this node now.
    #[error("that relay does not answer now")]
    RelayDown,
    /// Another run is under way.
    #[error("a relay is being measured already; try again in some seconds")]
    Measuring,
    /// Bytes cost.
    #[error("this node's line is paid by the byte, as altnet.toml says")]
    Metered,
    /// This node is in no network.
    #[error("this node is in no network yet; join one with an invite first")]
    NotMember,
    /// Joining could not begin.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Nobody of that id is known.
    #[error("no member has that address")]
    NoSuchNode,
    /// There is no way to it now, or no session yet.
    #[error("there is no way to that node yet; ask 'altnet why' about it")]
    NoPath,
    /// Only a gateway names machines.
    #[error("only the gateway of a site names machines on its LAN")]
    NotGateway,
    /// The address lies elsewhere.
    #[error(
        "the address is not in this site's network; it should be in the /64 that 'altnet status' shows"
    )]
    ForeignAddress,
    /// Only a member with the role runs apps.
    #[error("this node may not run apps; its owner invites it with the role apps for that")]
    NotAppHost,
    /// A member, host or app is called so.
    #[error("that name is taken in this network; choose another")]
    NameTaken,
    /// More was to be noted of an app than is kept.
    #[error("the app's description is too long; shorten where it leads to")]
    NoteTooLong,
    /// No app of that name is on this device.
    #[error("no app on this node is called so")]
    NoSuchApp,
    /// An app called so could pass for a login page.
    #[error(
        "an app called login gets no certificate, because it could pass for a login page; add it under another name"
    )]
    NoTlsForName,
    /// The engine holds as many keys as it may.
    #[error("there is no room for another tunnel key; try again in an hour")]
    NoRoomForKey,
    /// As many are logged in as there is room for.
    #[error("as many are logged in as this node has room for; log somebody out first")]
    NoRoomForLogin,
    /// Nobody is logged in there.
    #[error("nobody is logged in from that address")]
    NoSuchLogin,
    /// An invite that is for several devices was to name them.
    #[error(
        "an invite for several devices can't name them; leave the name out, or make one for each"
    )]
    NameForMany,
    /// Nobody could come in by an invite.
    #[error(
        "no issuer or no address of the network is known here that a newcomer could call; wait until 'altnet status' shows a relay that is up"
    )]
    NoEntry,
    /// None or several fit.
    #[error(
        "no invite of this node's is called so, or several are; 'altnet invite list' shows their keys"
    )]
    NoSuchInvite,
    /// Policy does not let this member make the invite, or it can't be made.
    #[error(transparent)]
    Invite(#[from] Refusal),
    /// The record was refused.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Machines named here that no directory has heard of yet: what is said before this node is in
/// step must not be lost to what was said before.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    said: BTreeMap<RecordSlot, (u32, Instant, HostRecord)>,
    count: u32,
}

/// As many of them at a time.
const UNHEARD: usize = 64;
/// What no directory took for this long is no longer said against another's word.
const LAPSES: Duration = Duration::from_secs(600);

impl Unheard {
    fn say(&mut self, slot: RecordSlot, record: HostRecord, now: Instant) {
        self.count = self.count.wrapping_add(1);
        if self.said.len() < UNHEARD || self.said.contains_key(&slot) {
            self.said.insert(slot, (self.count, now, record));
        }
    }

    /// How much was said so far: what is announced now holds all of it.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// A directory has all that was said up to that count.
    pub(super) fn heard(&mut self, count: u32) {
        self.said.retain(|_, (at, _, _)| *at > count);
    }
}

impl<A: Aead> Node<A> {
    /// Does what a person asks.
    ///
    /// # Errors
    /// [`CommandError`], and nothing was changed.
    pub fn handle_command(&mut self, command: Command, now: Instant) -> Result<(), CommandError> {
        match command {
            Command::Join { bundle, name } => Ok(self.join_bundle(*bundle, name, now)?),
            Command::Leave => {
                let network = self.network.as_ref().ok_or(CommandError::NotMember)?;
                let network = network.registry.network();
                self.leave(now);
                self.tell(Event::Left {
                    network,
                    revoked: false,
                });
                Ok(())
            }
            Command::Rotate => {
                if self.network.is_none() {
                    return Err(CommandError::NotMember);
                }
                if self.rotate(now) {
                    Ok(())
                } else {
                    Err(CommandError::NoRoomForKey)
                }
            }
            Command::RotateRelay => match self.rotate_relay(now) {
                Some(relay) => {
                    self.tell(Event::HomeRelay { relay });
                    Ok(())
                }
                None => Err(CommandError::NoOtherRelay),
            },
            Command::Bench {
                relay,
                bytes,
                even_if_metered,
            } => self.begin_bench(relay, bytes, even_if_metered, now),
            Command::Ping { node } => self.ping(node, now),
            Command::SetHost { name, address } => self.set_host(name, address, now),
            Command::AddApp { name, note } => self.add_app(name, note, now),
            Command::RemoveApp { name } => self.remove_app(&name, now),
            Command::AskTls { app, key } => self.ask_tls(app.as_ref(), *key, now),
            Command::Login(login) if login.seconds == 0 => self.log_out(login.address, now),
            Command::Login(login) => self.log_in(*login, now),
        }
    }

    /// Takes a record that an owner's tool signed, as if a peer had announced it.
    ///
    /// # Errors
    /// [`CommandError`], and nothing was changed.
    pub fn publish(&mut self, record: &[u8], now: Instant) -> Result<(), CommandError> {
        let network = self.network.as_mut().ok_or(CommandError::NotMember)?;
        let before = network.registry.revision();
        network.registry.apply(record, &mut self.clock)?;
        self.records_changed(before, now);
        Ok(())
    }

    /// Replaces the tunnel key. Peers accept both until they have the new record; sessions
    /// that stand go on.
    ///
    /// Returns whether there was room for the new key; nothing was changed if not.
    pub(super) fn rotate(&mut self, now: Instant) -> bool {
        let time = self.clock.known(now);
        let all = self.tunnels.keys().copied();
        let tunnels: Vec<_> = all.filter(|index| !self.shows_app_key(*index)).collect();
        if let Some(oldest) = self.previous_key {
            // Two keys are accepted at a time: the oldest goes, then the new one comes.
            for tunnel in &tunnels {
                let _ = self.engine.set_peer_local_key(*tunnel, self.local_key);
            }
            self.retire_key(oldest);
        }
        let secret = TunnelSecret::new(self.rng.array());
        let copy = TunnelSecret::new(*secret.expose());
        let Ok(key) = self.engine.add_local_key(copy, Tai64n::ZERO) else {
            return false;
        };
        self.identity.rotate(secret, time);
        self.saves.changed(Slot::Identity);
        self.previous_key = Some(self.local_key);
        self.local_key = key;
        for tunnel in tunnels {
            // Initiations to the former key stay accepted; ours are made with the new one,
            // which a peer learns from the record that is announced first.
            let _ = self.engine.set_peer_local_key(tunnel, self.local_key);
        }
        self.publish_node(now);
        let epoch = self.identity.tunnel.epoch;
        self.after_save(super::Deferred::Tell(Event::Rotated { epoch }), now);
        true
    }

    /// Lets a former tunnel key go. Returns whether it could.
    pub(super) fn retire_key(&mut self, former: LocalKeyId) -> bool {
        let public = self.engine.local_key(former);
        if self.engine.remove_local_key(former).is_err() {
            return false;
        }
        if self.previous_key == Some(former) {
            self.previous_key = None;
        }
        if let Some(key) = public {
            self.stamps.remove(&key.0);
            self.saves.changed(Slot::Tai(key.0));
        }
        true
    }

    fn ping(&mut self, node: NodeId, now: Instant) -> Result<(), CommandError> {
        if self.network.is_none() {
            return Err(CommandError::NotMember);
        }
        self.meet(node, now).ok_or(CommandError::NoSuchNode)?;
        let peer = self.peers.get_mut(&node).ok_or(CommandError::NoSuchNode)?;
        peer.used = now;
        peer.path.sent(now);
        peer.pinged = Some(now);
        let greeted = peer.session.filter(|s| self.sessions.contains_key(s));
        let endpoint = peer.path.current();
        self.timers.housekeeping_at(now);
        if let (Some(session), Some(endpoint)) = (greeted, endpoint) {
            self.control.challenge(session, endpoint, now);
        }
        Ok(())
    }

    /// A challenge was answered: if a person waits for it, it is told.
    pub(super) fn ponged(&mut self, node: NodeId, endpoint: Endpoint, rtt: Duration) {
        let Some(peer) = self.peers.get_mut(&node) else {
            return;
        };
        peer.rtt = Some(rtt);
        if peer.path.current() == Some(endpoint) && peer.pinged.take().is_some() {
            self.tell(Event::Pong {
                node,
                rtt_us: u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX),
                relayed: matches!(endpoint, Endpoint::Relayed { .. }),
            });
        }
    }

    fn set_host(
        &mut self,
        name: Name,
        address: Option<Ipv6Addr>,
        now: Instant,
    ) -> Result<(), CommandError> {
        if self.network.is_none() {
            return Err(CommandError::NotMember);
        }
        if !self.own_roles().contains(Roles::GATEWAY) {
            return Err(CommandError::NotGateway);
        }
        let prefix = self.site_prefix().ok_or(CommandError::NotGateway)?;
        if address.is_some_and(|address| !prefix.contains(address)) {
            return Err(CommandError::ForeignAddress);
        }
        let network = self.network.as_mut().ok_or(CommandError::NotMember)?;
        let site = network
            .registry
            .by_member(&network.own.member)
            .and_then(|member| member.membership.site)
            .ok_or(CommandError::NotGateway)?;
        let slot = RecordSlot::host(site, &name);
        let serial = network.registry.next_serial(&slot);
        let record = HostRecord {
            name,
            site,
            address,
        };
        let before = network.registry.revision();
        let id = network.registry.network();
        let mut out = [0; MAX_RECORD_BYTES];
        let bytes = sign_record(&self.identity.device, id, &record, serial, &mut out)
            .map_err(RecordError::from)?;
        network.registry.apply(bytes, &mut self.clock)?;
        self.unheard.say(slot, record, now);
        self.records_changed(before, now);
        self.announce_own(now);
        Ok(())
    }

    /// Says again what this node said of its machines before any directory heard of it, where a
    /// record it did not know of then has taken the place.
    pub(super) fn say_hosts_again(&mut self, now: Instant) {
        let Some(network) = &self.network else {
            return;
        };
        let is_taken = |slot: &RecordSlot| {
            let bytes = network.registry.bytes(slot);
            let held = bytes.and_then(|bytes| Envelope::parse(bytes).ok());
            held.is_some_and(|held| held.header().signer != network.own.device)
        };
        let said = &mut self.unheard.said;
        said.retain(|_, (_, at, _)| now.saturating_since(*at) < LAPSES);
        let taken = said.extract_if(.., |slot, _| is_taken(slot));
        let taken: Vec<HostRecord> = taken.map(|(_, (_, _, record))| record).collect();
        for record in taken {
            // No longer this node's to say: then it is not said.
            let _ = self.set_host(record.name, record.address, now);
        }
    }
}
