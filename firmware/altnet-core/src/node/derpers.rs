//! Other people's DERP servers (ADR 0020): relays of Tailscale's protocol that admit this node.
//!
//! In: that such servers may be used, word that one is connected, what comes from it. Out: a key that
//! names this node there, published in a record of its own, and ways to members by it that come after
//! everything else. Whoever is connected to the same server is found by that key alone: nobody has to
//! have been told anything while a relay of ours was there.
//!
//! Deliberately absent: TLS and DERP themselves, which servers there are, and what they see: who
//! talks to whom, and when.

use alloc::string::String;
use alloc::vec::Vec;

use altnet_tunnel::aead::Aead;
use altnet_wire::control::DATA;
use altnet_wire::derp::PublicKey;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::envelope::MAX_RECORD_BYTES;
use altnet_wire::frame::Frame;
use altnet_wire::id::NodeId;
use altnet_wire::record::DerpRecord;
use altnet_wire::split::PIECE;
use altnet_wire::time::{Duration, Instant};
use zeroize::Zeroizing;

use super::view::DerperView;
use super::{Deferred, DropReason, Event, Node, Slot, Stored, Verdict};
use crate::derp::boxes::SecretKey;
use crate::records::sign_record;
use crate::registry::Slot as RecordSlot;

/// Servers that may be entered.
pub const MAX_DERPERS: usize = 4;
/// Who isn't at a server is looked for there again after this.
const AWAY: Duration = Duration::from_secs(30);
/// Members that aren't at a server, and members known by their keys, remembered at a time.
const REMEMBERED: usize = 32;

/// What stands in the place of a relay's id begins with this: no node has a multicast address
/// (RFC 4291 section 2.7).
const LABEL: [u8; 15] = *b"\xff\x04derper.......";

/// What stands for a server in the place of a relay.
const fn id_of(server: usize) -> NodeId {
    let mut id = [0; 16];
    let (label, place) = id.split_at_mut(LABEL.len());
    label.copy_from_slice(&LABEL);
    place[0] = server as u8;
    NodeId(id)
}

/// The server that such an id stands for.
pub(super) fn derper_of(relay: NodeId) -> Option<usize> {
    match relay.0.strip_prefix(&LABEL)? {
        [server] => Some(usize::from(*server)),
        _ => None,
    }
}

struct Entered {
    name: String,
    is_up: bool,
    /// Why it isn't, as was told.
    trouble: Option<String>,
}

/// What this node has to do with DERP servers.
#[derive(Default)]
pub(super) struct Derpers {
    entered: Vec<Entered>,
    secret: Option<SecretKey>,
    /// Whether the key is on disk, so that it may be used.
    is_kept: bool,
    /// Who isn't at which server, and until when that is taken for so.
    away: heapless::Vec<(usize, NodeId, Instant), REMEMBERED>,
    /// Whose a key was found to be.
    known: heapless::Vec<(PublicKey, NodeId), REMEMBERED>,
}

impl Derpers {
    fn is_away(&self, server: usize, node: NodeId) -> bool {
        let mut away = self.away.iter();
        away.any(|(at, who, _)| (*at, *who) == (server, node))
    }
}

impl<A: Aead> Node<A> {
    pub(super) fn take_derpers(&mut self) -> Vec<String> {
        let entered = core::mem::take(&mut self.derpers.entered);
        entered.into_iter().map(|entered| entered.name).collect()
    }

    /// The DERP servers that may be used, by their names for people, the preferred first; those
    /// beyond [`MAX_DERPERS`] are passed over. To be told at start.
    pub fn handle_derpers(&mut self, names: Vec<String>, now: Instant) {
        let entered = names.into_iter().take(MAX_DERPERS);
        self.derpers.entered = entered
            .map(|name| Entered {
                name,
                is_up: false,
                trouble: None,
            })
            .collect();
        if self.derpers.entered.is_empty() {
            return;
        }
        if self.derpers.secret.is_none() {
            self.derpers.secret = Some(SecretKey::new(self.rng.array()));
            self.saves.changed(Slot::Derp);
            if let Some(kept) = self.saves.then_slot(&Slot::Derp, Deferred::DerpKey) {
                self.run(kept, now);
            }
        }
        self.timers.housekeeping_at(now);
    }

    pub(super) const fn has_derpers(&self) -> bool {
        !self.derpers.entered.is_empty()
    }

    /// Takes up the key that was kept.
    pub(super) fn load_derp_key(&mut self, stored: &Stored) {
        let kept = stored.get("derp").map(Vec::as_slice);
        if let Some(kept) = kept.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            self.derpers.secret = Some(SecretKey::new(kept));
            self.derpers.is_kept = true;
        }
    }

    pub(super) fn derp_key_bytes(&self) -> Option<Vec<u8>> {
        let secret = self.derpers.secret.as_ref()?;
        Some(secret.bytes().to_vec())
    }

    /// The key is on disk.
    pub(super) fn derp_key_kept(&mut self, now: Instant) {
        self.derpers.is_kept = true;
        self.timers.housekeeping_at(now);
    }

    /// By which servers names this node, once that is on disk.
    pub fn derp_secret(&self) -> Option<Zeroizing<[u8; 32]>> {
        let secret = self.derpers.secret.as_ref();
        let secret = secret.filter(|_| self.derpers.is_kept)?;
        Some(Zeroizing::new(*secret.bytes()))
    }

    /// The places of the servers that are to be connected to, or to stay so. A driver looks whenever
    /// it has drained the outputs, and tries again those that can't be reached.
    pub fn wanted_derpers(&self) -> impl Iterator<Item = usize> {
        let is_wanted = self.turn.is_wanted() && self.derpers.is_kept && self.network.is_some();
        let count = if is_wanted {
            self.derpers.entered.len()
        } else {
            0
        };
        0..count
    }

    /// A server is connected and admitted this node; or not, or not any more: `why`, for people.
    pub fn handle_derper(&mut self, server: usize, is_up: bool, why: Option<&str>, now: Instant) {
        let Some(entered) = self.derpers.entered.get_mut(server) else {
            return;
        };
        let was_up = core::mem::replace(&mut entered.is_up, is_up);
        let name = entered.name.clone();
        match why {
            _ if is_up => entered.trouble = None,
            Some(why) if entered.trouble.as_deref() != Some(why) => {
                entered.trouble = Some(why.into());
                let why = why.into();
                self.tell(Event::DerperDown { server: name, why });
            }
            _ => {}
        }
        if was_up == is_up {
            return;
        }
        self.derpers.away.retain(|(at, ..)| *at != server);
        if is_up {
            let name = self.derpers.entered.get(server).map(|one| one.name.clone());
            let server = name.unwrap_or_default();
            self.tell(Event::DerperUp { server });
        }
        self.relays_changed(now);
        self.timers.housekeeping_at(now);
    }

    /// Takes a datagram that came by a server from the client with this key, as the server says.
    ///
    /// # Errors
    /// As of [`Node::handle_wan`].
    pub fn handle_derped(
        &mut self,
        server: usize,
        from: PublicKey,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let result = self.take_derped(server, from, frame, now);
        self.note_datagram(result)
    }

    fn take_derped(
        &mut self,
        server: usize,
        from: PublicKey,
        frame: &mut Frame<'_>,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        // Relaying and STUN are not for those behind somebody else's server.
        let is_sealed = matches!(
            frame.packet(),
            [1..=4, 0, 0, 0, ..] | [0x20..=DATA | PIECE, ..]
        );
        if !is_sealed {
            return Err(DropReason::NotOurs);
        }
        let is_up = self
            .derpers
            .entered
            .get(server)
            .is_some_and(|one| one.is_up);
        let node = self.named_by(from).filter(|_| is_up);
        let node = node.ok_or(DropReason::RelayUnknown)?;
        if self.derpers.is_away(server, node) {
            self.derpers
                .away
                .retain(|(at, who, _)| (*at, *who) != (server, node));
            self.ways_changed(node, now);
        }
        let relay = id_of(server);
        self.handle_datagram(Endpoint::Relayed { relay, node }, frame, now)
    }

    /// A server says that nobody with this key is connected to it.
    pub fn handle_derper_gone(&mut self, server: usize, key: PublicKey, now: Instant) {
        let Some(node) = self.named_by(key) else {
            return;
        };
        let away = &mut self.derpers.away;
        away.retain(|(at, who, until)| *until > now && (*at, *who) != (server, node));
        if away.is_full() {
            away.remove(0);
        }
        let _ = away.push((server, node, now.after(AWAY)));
        self.ways_changed(node, now);
        self.timers.housekeeping_at(now.after(AWAY));
    }

    /// The member that published this key.
    fn named_by(&mut self, key: PublicKey) -> Option<NodeId> {
        let registry = &self.network.as_ref()?.registry;
        let known = self.derpers.known.iter();
        let known = known.filter(|(its, _)| *its == key).map(|(_, node)| *node);
        let mut known = known.filter(|node| registry.derp_key(*node) == Some(key));
        if let Some(node) = known.next() {
            return Some(node);
        }
        let node = registry.node_by_derp_key(&key)?;
        let known = &mut self.derpers.known;
        known.retain(|(its, _)| *its != key);
        if known.is_full() {
            known.remove(0);
        }
        let _ = known.push((key, node));
        Some(node)
    }

    /// Something authentic of `node`'s came by a server, from a key that others may have published
    /// too.
    pub(super) fn derped(&self, node: NodeId, from: Endpoint) -> Endpoint {
        let Endpoint::Relayed { relay, node: label } = from else {
            return from;
        };
        let registry = self.network.as_ref().map(|network| &network.registry);
        let key = |node| registry.and_then(|registry| registry.derp_key(node));
        let is_its = label != node && derper_of(relay).is_some() && key(node) == key(label);
        if is_its {
            Endpoint::Relayed { relay, node }
        } else {
            from
        }
    }

    /// What to do with a datagram that goes by a server.
    pub(super) fn send_derped(&self, server: usize, node: NodeId) -> Result<Verdict, DropReason> {
        let is_up = self
            .derpers
            .entered
            .get(server)
            .is_some_and(|one| one.is_up);
        let registry = self.network.as_ref().map(|network| &network.registry);
        let to = registry.and_then(|registry| registry.derp_key(node));
        let to = to.filter(|_| is_up).ok_or(DropReason::NoPath)?;
        Ok(Verdict::ToDerper { server, to })
    }

    /// The ways by DERP servers that may carry to a peer.
    pub(super) fn derpers_to(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let registry = self.network.as_ref().map(|network| &network.registry);
        let has_key = registry.is_some_and(|registry| registry.derp_key(node).is_some());
        let entered = self.derpers.entered.iter().enumerate();
        let up = entered.filter(move |(_, one)| one.is_up && has_key);
        up.map(|(server, _)| server)
            .filter(move |server| !self.derpers.is_away(*server, node))
            .map(id_of)
    }

    /// Says by which key servers name this node, and looks for those who weren't there. Returns when to look
    /// again.
    pub(super) fn tend_derpers(&mut self, now: Instant) -> Instant {
        if self.derpers.entered.is_empty() {
            return Instant::NEVER;
        }
        self.publish_derp_key(now);
        let over = self.derpers.away.iter().filter(|(.., until)| *until <= now);
        let back: heapless::Vec<NodeId, REMEMBERED> = over.map(|(_, node, _)| *node).collect();
        self.derpers.away.retain(|(.., until)| *until > now);
        for node in back {
            self.ways_changed(node, now);
        }
        let away = self.derpers.away.iter().map(|(.., until)| *until);
        away.min().unwrap_or(Instant::NEVER)
    }

    fn publish_derp_key(&mut self, now: Instant) {
        let secret = self
            .derpers
            .secret
            .as_ref()
            .filter(|_| self.derpers.is_kept);
        let (Some(secret), Some(network)) = (secret, &mut self.network) else {
            return;
        };
        let key = secret.public();
        let own = network.own;
        if network.is_aside() || network.registry.derp_key(own.node) == Some(key) {
            return;
        }
        let before = network.registry.revision();
        let slot = RecordSlot::derp(own.device);
        let serial = network.registry.next_serial(&slot);
        let id = network.registry.network();
        let record = DerpRecord { key: key.0 };
        let mut out = [0; MAX_RECORD_BYTES];
        let Ok(bytes) = sign_record(&self.identity.device, id, &record, serial, &mut out) else {
            return;
        };
        if network.registry.apply(bytes, &mut self.clock).is_ok() {
            self.records_changed(before, now);
            self.after_save(Deferred::Announce, now);
        }
    }

    /// A server, for people.
    pub(super) fn derper_name(&self, server: usize) -> &str {
        let entered = self.derpers.entered.get(server);
        entered.map_or("", |one| one.name.as_str())
    }

    /// The key by which servers know this node, as lists of admitted clients have it.
    pub(super) fn derp_key_text(&self) -> Option<String> {
        let secret = self.derpers.secret.as_ref();
        let secret = secret.filter(|_| self.derpers.is_kept && self.has_derpers())?;
        Some(alloc::format!("nodekey:{}", secret.public()))
    }

    /// The servers that were entered, and what became of them.
    pub(super) fn derper_views(&self) -> Vec<DerperView> {
        let is_wanted = self.wanted_derpers().next().is_some();
        let view = |one: &Entered| DerperView {
            server: one.name.clone(),
            state: match (one.is_up, &one.trouble, is_wanted) {
                (true, ..) => "up",
                (false, Some(_), true) => "failed",
                (false, None, true) => "asked",
                (false, _, false) => "idle",
            }
            .into(),
            why: one.trouble.clone(),
        };
        self.derpers.entered.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_from_every_node() {
        for server in 0..MAX_DERPERS {
            assert_eq!(derper_of(id_of(server)), Some(server));
        }
        assert_eq!(derper_of(NodeId([0xfd; 16])), None);
        assert_eq!(derper_of(super::super::turn::Side::Ours.id()), None);
    }
}
