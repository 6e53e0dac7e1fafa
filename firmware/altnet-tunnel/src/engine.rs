//! The engine: every peer, session and timer of one WireGuard endpoint.
//!
//! In: datagrams with where they came from, packets with whom they are for, moments,
//! entropy, the calendar, confirmations of what was saved. Out: one answer for the packet in
//! hand ([`Engine::seal`], [`Engine::handle_datagram`]), and through [`Engine::poll_output`]
//! everything else: handshakes, keepalives, packets that waited, facts, the next deadline.
//!
//! After every input, call [`Engine::poll_output`] until it says [`Output::Wait`].
//!
//! Promises: no input makes it panic; its tables never exceed [`EngineLimits`]; nothing is
//! allocated per packet or timer. A handshake that succeeds allocates one session: two
//! reference-counted keys and a replay window, at most five sessions for each peer.
//!
//! It does not choose paths, judge inner addresses, or know what a packet says.

mod api;
mod index;
mod load;
mod peer;
mod queue;
mod receive;
mod send;
mod timers;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant, UnixTime};

pub use self::api::{
    ConfigError, DropReason, EngineLimits, LocalKeyId, Opened, Output, PeerConfig, PeerIndex,
    PeerStats, SealRefused, Sealed, TunnelEvent,
};
use self::index::IndexTable;
use self::load::Load;
pub use self::peer::{KEEPALIVE_TIMEOUT, REKEY_AFTER_TIME, REKEY_ATTEMPT_TIME, REKEY_TIMEOUT};
use self::peer::{Peer, Session};
use self::queue::Queue;
use crate::aead::Aead;
use crate::cookie::{CookieMaker, MacKeys};
use crate::key::TunnelSecret;
use crate::message::COOKIE_REPLY_BYTES;
use crate::random::Random;
use crate::session::{RecvSession, SendSession};
use crate::tai64n::{Tai64n, Tai64nClock};

/// Timers vary by up to this much, so that two nodes don't keep colliding: a third of a
/// second, as in WireGuard's implementations (`REKEY_TIMEOUT_JITTER_MAX`).
const JITTER: Duration = Duration::from_micros(333_333);

/// One of our static keys.
struct LocalKey {
    id: LocalKeyId,
    secret: TunnelSecret,
    public: TunnelKey,
    macs: MacKeys,
    stamps: Tai64nClock,
    /// The reservation that the driver was last asked to save.
    told: Option<Tai64n>,
}

/// A WireGuard endpoint with any number of peers and several local keys behind one port.
pub struct Engine<A> {
    limits: EngineLimits,
    random: Random,
    locals: Vec<Option<LocalKey>>,
    /// How many keys were ever added.
    local_turn: u32,
    peers: Vec<Option<Peer<A>>>,
    indices: IndexTable,
    queue: Queue,
    load: Load,
    cookies: CookieMaker,
    cookie_replies: VecDeque<(Endpoint, [u8; COOKIE_REPLY_BYTES])>,
    /// Peers with something for `poll_output`, each once.
    ready: VecDeque<PeerIndex>,
    has_stamp_news: bool,
    /// No timer of any peer is earlier.
    earliest: Instant,
    calendar: Option<(UnixTime, Instant)>,
    silence_jitter: Duration,
}

impl<A: Aead> Engine<A> {
    /// Makes an engine without keys or peers and reserves its tables.
    ///
    /// `seed` is 32 bytes that nobody can guess and that were never used before; in tests,
    /// whatever names the run.
    pub fn new(limits: EngineLimits, seed: [u8; 32]) -> Self {
        let mut random = Random::new(seed);
        Self {
            load: Load::new(
                limits.handshakes_per_s,
                limits.handshake_burst,
                limits.sources,
                &mut random,
            ),
            random,
            locals: Vec::with_capacity(limits.local_keys.into()),
            local_turn: 0,
            peers: Vec::with_capacity(limits.peers.into()),
            indices: IndexTable::new(limits.peers),
            queue: Queue::new(limits.queued_packets, limits.queued_packets_per_peer),
            cookies: CookieMaker::new(),
            cookie_replies: VecDeque::with_capacity(limits.cookie_replies.into()),
            ready: VecDeque::with_capacity(limits.peers.into()),
            has_stamp_news: false,
            earliest: Instant::NEVER,
            calendar: None,
            silence_jitter: Duration::ZERO,
            limits,
        }
    }

    /// The limits it was made with.
    pub const fn limits(&self) -> &EngineLimits {
        &self.limits
    }

    /// Mixes entropy in. The more often the better; any bytes do no harm.
    pub fn handle_entropy(&mut self, entropy: &[u8; 32]) {
        self.random.add(entropy);
    }

    /// Says what the calendar shows now, or that it is unknown. It is used for the stamps of
    /// initiations alone, and may be wrong.
    pub fn set_calendar(&mut self, calendar: Option<UnixTime>, now: Instant) {
        self.calendar = calendar.map(|time| (time, now));
    }

    /// Adds a static key of ours.
    ///
    /// `stamps_floor` is what the last [`TunnelEvent::SaveStamps`] of this key said, or
    /// [`Tai64n::ZERO`] for a key that was never used. Forgetting it makes peers refuse our
    /// initiations until the calendar has passed the last stamp.
    ///
    /// # Errors
    /// [`ConfigError::Full`] or [`ConfigError::Duplicate`].
    pub fn add_local_key(
        &mut self,
        secret: TunnelSecret,
        stamps_floor: Tai64n,
    ) -> Result<LocalKeyId, ConfigError> {
        let public = secret.public();
        if self.locals.iter().flatten().any(|key| key.public == public) {
            return Err(ConfigError::Duplicate);
        }
        let limit = u16::from(self.limits.local_keys);
        let at = free_slot(&self.locals, limit).ok_or(ConfigError::Full { limit })?;
        let id = LocalKeyId {
            at: at as u8,
            turn: self.local_turn,
        };
        let key = LocalKey {
            id,
            secret,
            public,
            macs: MacKeys::new(&public),
            stamps: Tai64nClock::new(stamps_floor, self.limits.stamp_block),
            told: None,
        };
        place(&mut self.locals, at, key);
        self.local_turn = self.local_turn.wrapping_add(1);
        Ok(id)
    }

    /// Forgets a static key of ours. Sessions made with it live to their end.
    ///
    /// # Errors
    /// [`ConfigError::InUse`] while a peer is shown it; [`ConfigError::UnknownLocalKey`].
    pub fn remove_local_key(&mut self, local: LocalKeyId) -> Result<(), ConfigError> {
        if self.peers.iter().flatten().any(|peer| peer.local == local) {
            return Err(ConfigError::InUse);
        }
        self.locals
            .iter_mut()
            .find_map(|slot| slot.take_if(|key| key.id == local))
            .ok_or(ConfigError::UnknownLocalKey)?;
        for peer in self.peers.iter_mut().flatten() {
            if peer.former == Some(local) {
                peer.former = None;
            }
        }
        Ok(())
    }

    /// The public half of a static key of ours.
    pub fn local_key(&self, local: LocalKeyId) -> Option<TunnelKey> {
        self.local(local).map(|key| key.public)
    }

    /// Adds a peer. With a persistent keepalive and an endpoint, a handshake begins at once.
    ///
    /// # Errors
    /// [`ConfigError::UnknownLocalKey`]; [`ConfigError::Duplicate`] if the pair of keys is a
    /// peer already; [`ConfigError::WeakKey`]; [`ConfigError::Full`].
    pub fn add_peer(&mut self, config: PeerConfig, now: Instant) -> Result<PeerIndex, ConfigError> {
        let local = self
            .local(config.local)
            .ok_or(ConfigError::UnknownLocalKey)?;
        let shared = local
            .secret
            .agree(&config.public)
            .map_err(|_| ConfigError::WeakKey)?;
        if self.find_peer(&config.public, config.local).is_some() {
            return Err(ConfigError::Duplicate);
        }
        let keeps_alive = config.persistent_keepalive.is_some() && config.endpoint.is_some();
        let limit = self.limits.peers;
        let at = free_slot(&self.peers, limit).ok_or(ConfigError::Full { limit })?;
        place(&mut self.peers, at, Peer::new(config, shared));
        let peer = PeerIndex(at as u16);
        if keeps_alive {
            self.rekey(peer, now)?;
        }
        Ok(peer)
    }

    /// Removes a peer with its sessions, timers and waiting packets.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPeer`].
    pub fn remove_peer(&mut self, peer: PeerIndex) -> Result<(), ConfigError> {
        self.peers
            .get_mut(usize::from(peer.0))
            .and_then(Option::take)
            .ok_or(ConfigError::UnknownPeer)?;
        self.indices.remove_peer(peer);
        self.queue.forget(peer);
        self.ready.retain(|ready| *ready != peer);
        Ok(())
    }

    /// The peer with this pair of keys.
    pub fn find_peer(&self, public: &TunnelKey, local: LocalKeyId) -> Option<PeerIndex> {
        self.peers
            .iter()
            .position(|slot| {
                slot.as_ref()
                    .is_some_and(|peer| peer.accepts(public, local))
            })
            .map(|at| PeerIndex(at as u16))
    }

    /// Shows the peer another key of ours from the next handshake on. Initiations to the
    /// former key are accepted until that key is removed or replaced in turn.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPeer`], [`ConfigError::UnknownLocalKey`],
    /// [`ConfigError::Duplicate`] if the new pair is another peer, [`ConfigError::WeakKey`].
    pub fn set_peer_local_key(
        &mut self,
        peer: PeerIndex,
        local: LocalKeyId,
    ) -> Result<(), ConfigError> {
        let public = self.peer(peer).ok_or(ConfigError::UnknownPeer)?.public;
        let key = self.local(local).ok_or(ConfigError::UnknownLocalKey)?;
        let shared = key
            .secret
            .agree(&public)
            .map_err(|_| ConfigError::WeakKey)?;
        if self.find_peer(&public, local).is_some_and(|p| p != peer) {
            return Err(ConfigError::Duplicate);
        }
        let peer = self.peer_mut(peer).ok_or(ConfigError::UnknownPeer)?;
        if peer.local != local {
            peer.former = Some(core::mem::replace(&mut peer.local, local));
            peer.shared = shared;
        }
        Ok(())
    }

    /// Says where datagrams to the peer go from now on. A handshake that waited for an
    /// endpoint begins at once, or [`REKEY_TIMEOUT`] after the last initiation; one that waits for its
    /// response goes there too, byte for byte, so that a peer that got it already takes it for
    /// a replay.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPeer`].
    pub fn set_endpoint(
        &mut self,
        peer: PeerIndex,
        endpoint: Option<Endpoint>,
        now: Instant,
    ) -> Result<(), ConfigError> {
        let has_queued = self.queue.has(peer);
        let entry = self.peer_mut(peer).ok_or(ConfigError::UnknownPeer)?;
        let was_known = entry.endpoint.is_some();
        entry.endpoint = endpoint;
        let went = entry.shaking.as_ref().map(|shaking| shaking.to);
        entry.wants.repetition = went.is_some() && endpoint.is_some() && went != endpoint;
        if entry.wants.repetition {
            self.note_ready(peer);
        }
        let entry = self.peer_mut(peer).ok_or(ConfigError::UnknownPeer)?;
        if was_known || endpoint.is_none() {
            return Ok(());
        }
        entry.wants.queued = has_queued;
        let wants_session = entry.persistent.is_some() && entry.usable(now).is_none();
        if entry.asking_since.is_some() || wants_session {
            // No sooner than an endpoint that comes and goes allows (section 6.1).
            entry.asking_since = None;
            entry.ask(now);
        }
        self.note_ready(peer);
        Ok(())
    }

    /// Changes how often something is sent when nothing else is: a second at least, `None`
    /// for never. A keepalive goes out now.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPeer`].
    pub fn set_persistent_keepalive(
        &mut self,
        peer: PeerIndex,
        every: Option<Duration>,
        now: Instant,
    ) -> Result<(), ConfigError> {
        let entry = self.peer_mut(peer).ok_or(ConfigError::UnknownPeer)?;
        entry.set_persistent(every, now);
        self.note_ready(peer);
        Ok(())
    }

    /// Asks the peer for a new session now, unless that is under way already.
    ///
    /// # Errors
    /// [`ConfigError::UnknownPeer`].
    pub fn rekey(&mut self, peer: PeerIndex, now: Instant) -> Result<(), ConfigError> {
        self.peer_mut(peer)
            .ok_or(ConfigError::UnknownPeer)?
            .ask(now);
        self.note_ready(peer);
        Ok(())
    }

    /// Confirms that a [`TunnelEvent::SaveStamps`] is on disk, synced. Initiations that
    /// waited for it go out.
    pub fn stamps_saved(&mut self, local: LocalKeyId, until: Tai64n) {
        let Some(key) = local_mut(&mut self.locals, local) else {
            return;
        };
        key.stamps.saved(until);
        for at in 0..self.peers.len() {
            let index = PeerIndex(at as u16);
            let Some(peer) = self.peer_mut(index) else {
                continue;
            };
            if peer.local == local && core::mem::take(&mut peer.waits_for_stamp) {
                peer.wants.initiation = true;
                self.note_ready(index);
            }
        }
    }

    /// The peer's state.
    pub fn stats(&self, peer: PeerIndex, now: Instant) -> Option<PeerStats> {
        let peer = self.peer(peer)?;
        Some(PeerStats {
            endpoint: peer.endpoint,
            is_up: peer.usable(now).is_some(),
            is_shaking: peer.asking_since.is_some(),
            ..peer.stats
        })
    }

    /// Peers in the table.
    pub fn peer_count(&self) -> usize {
        self.peers.iter().flatten().count()
    }

    /// The half of the peer's current session that a worker seals with, and where to. To be
    /// asked for again after [`TunnelEvent::SessionsChanged`] and [`TunnelEvent::Roamed`].
    pub fn sender(&self, peer: PeerIndex) -> Option<(Arc<SendSession<A>>, Option<Endpoint>)> {
        let peer = self.peer(peer)?;
        let session = peer.current.as_ref()?;
        Some((session.send.clone(), peer.endpoint))
    }

    /// The halves that a worker opens the peer's packets with: at most five.
    pub fn receivers(&self, peer: PeerIndex) -> impl Iterator<Item = Arc<RecvSession<A>>> + '_ {
        self.peer(peer)
            .into_iter()
            .flat_map(Peer::sessions)
            .map(|session| session.recv.clone())
    }

    fn local(&self, local: LocalKeyId) -> Option<&LocalKey> {
        let key = self.locals.get(usize::from(local.at))?.as_ref();
        key.filter(|key| key.id == local)
    }

    fn peer(&self, peer: PeerIndex) -> Option<&Peer<A>> {
        self.peers.get(usize::from(peer.0))?.as_ref()
    }

    fn peer_mut(&mut self, peer: PeerIndex) -> Option<&mut Peer<A>> {
        self.peers.get_mut(usize::from(peer.0))?.as_mut()
    }

    /// Puts the peer in line for `poll_output` and takes its deadline into account. Called
    /// after whatever changed its wishes or timers.
    fn note_ready(&mut self, index: PeerIndex) {
        let Some(Some(peer)) = self.peers.get_mut(usize::from(index.0)) else {
            return;
        };
        self.earliest = self.earliest.min(peer.deadline());
        if !peer.is_ready && peer.has_output() {
            peer.is_ready = true;
            self.ready.push_back(index);
        }
    }

    /// Forgets the indices of sessions that are gone; their keys go with them.
    fn drop_sessions(&mut self, sessions: impl IntoIterator<Item = Option<Session<A>>>) {
        for session in sessions.into_iter().flatten() {
            self.indices.remove(session.recv.index());
        }
    }

    /// Draws new jitter. Packets use what the last handshake drew, so that sealing one costs
    /// no random number.
    fn draw_jitter(&mut self) -> Duration {
        let span = JITTER.as_micros() as u32;
        self.silence_jitter = Duration::from_micros((self.random.number() % span).into());
        self.silence_jitter
    }
}

/// The key with this id, to change it while other fields of the engine are in use.
fn local_mut(locals: &mut [Option<LocalKey>], local: LocalKeyId) -> Option<&mut LocalKey> {
    let key = locals.get_mut(usize::from(local.at))?.as_mut();
    key.filter(|key| key.id == local)
}

/// The first free slot, within `limit`.
fn free_slot<T>(slots: &[Option<T>], limit: u16) -> Option<usize> {
    let free = slots.iter().position(Option::is_none);
    free.or_else(|| (slots.len() < usize::from(limit)).then_some(slots.len()))
}

/// Puts `item` into what [`free_slot`] found.
fn place<T>(slots: &mut Vec<Option<T>>, at: usize, item: T) {
    match slots.get_mut(at) {
        Some(slot) => *slot = Some(item),
        None => slots.push(Some(item)),
    }
}
