//! A node: everything altnet decides on one device, as one machine.
//!
//! In: packets from our side ([`Node::handle_lan`]), datagrams from the world
//! ([`Node::handle_wan`]), DNS questions, router solicitations, commands, time, entropy, and
//! word that state is synced. Out: the packet in hand with a [`Verdict`], and then whatever
//! [`Node::poll_output`] says until it says [`Output::Wait`]. A driver gives one input,
//! drains the outputs, and sleeps.
//!
//! Promises: no input makes it panic or grow past its [`Limits`]; a packet leaves or is
//! delivered only if policy allows the flow and the source belongs to whoever sent it;
//! nothing is acknowledged before it is on disk; with no server, no clock and no ISP it goes
//! on from its last valid state.
//!
//! Deliberately absent: sockets, files, clocks, chance of its own, logs.

mod advice;
mod anew;
mod apps;
mod bench;
mod beside;
mod calls;
mod command;
mod counters;
mod data;
mod decisions;
mod derpers;
mod directory;
mod door;
mod event;
mod facts;
mod gate;
mod housekeeping;
mod identity;
mod intake;
mod invites;
mod join;
mod keeps;
mod last_paths;
mod links;
mod load;
mod logins;
mod membership;
mod mesh;
mod nearby;
mod output;
mod pace;
mod peers;
mod permission;
mod presence;
mod refusals;
mod relaying;
mod relays;
mod renewal;
mod requests;
mod returns;
mod sessions;
mod sizes;
mod state;
mod storage;
mod streams;
mod stun;
mod tls;
mod traversal;
mod turn;
mod view;
mod views;
mod witness;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};

use altnet_tunnel::aead::Aead;
use altnet_tunnel::engine::{Engine, EngineLimits, LocalKeyId};
use altnet_wire::id::{MemberId, Name, NodeId, RecordId, SigningKey};
use altnet_wire::message::Cursor;
use altnet_wire::record::MAX_FIXED_ENDPOINTS;
use altnet_wire::time::{Instant, UnixTime};

pub use apps::MAX_NOTE_BYTES;
pub use command::{Command, CommandError};
pub use counters::{Counters, DROP_REASONS, DropReason};
pub use decisions::Decision;
pub use derpers::MAX_DERPERS;
pub use event::{Event, JoinError};
pub use identity::{BadIdentity, Identity};
pub use join::read_invitation;
pub use links::{Link, LinkId, MAX_LINKS, Setup};
pub use nearby::{Subnet, Surroundings};
pub use output::{Output, Verdict};
pub use refusals::Refused;
pub use relaying::{RelayClientView, RelayLinkView};
pub use state::{Slot, Stored};
pub use streams::WantedStream;
pub use tls::{MAX_TLS_KEY_BYTES, NewTlsKey, TlsKey, TlsSubject, TlsView};
pub use turn::{MAX_TURN_SERVERS, TurnServer, WantedTurn};
pub use view::{
    AppView, CallerView, DerperView, DirectoryView, InviteView, LoginView, MemberView, NatView,
    NetworkView, PeerView, PolicyView, RecordView, RelayView, Status, Step, TurnView, VerdictView,
};

use crate::clock::Clock;
use crate::control::{Control, ControlLimits, SessionId};
use crate::issuer::Issuer;
use crate::limits::Limits;
use crate::path::budget::ProbeBudget;
use crate::policy::{Policy, PolicyLimits};
use crate::registry::Registry;
use crate::relay::guests::Guests;
use crate::relay::{Quotas, RelayServer};
use crate::rng::Rng;

use join::Joining;
use peers::Peer;
use presence::OwnPresence;
use relays::RelayLink;
use sessions::Session;
use state::Saves;

/// Facts told at most this many at a time; the oldest give way to newer ones. One page of records
/// may hold nearly a hundred that decide something.
const EVENTS: usize = 192;

/// Acknowledgements that wait for the disk at a time.
const WAITING: usize = 128;

/// What a driver decides about a node before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bounds of the core's tables.
    pub limits: Limits,
    /// Bounds of the WireGuard engine.
    pub engine: EngineLimits,
    /// Bounds of the control sessions.
    pub control: ControlLimits,
    /// Bounds of the flow table.
    pub policy: PolicyLimits,
    /// When the program was built: the calendar can't be earlier.
    pub built: UnixTime,
    /// What the network is called here; its own name if none.
    pub petname: Option<Name>,
    /// Endpoints that reach this node and don't change: a relay's, or a forwarded port's.
    pub fixed_endpoints: heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
    /// What is forwarded at most, if this node is a relay.
    pub quotas: Quotas,
    /// Whether machines without software log in here: then the name `login` leads to this gateway,
    /// unless records have one that is called so.
    pub has_login_page: bool,
    /// Whether the line is paid by the byte: then nothing is sent that being reached doesn't take.
    pub metered: bool,
    /// Whether a gateway relays for members on its LANs.
    pub relays_for_lan: bool,
}

impl Config {
    /// A gateway on a router or board with Linux.
    pub fn router(built: UnixTime) -> Self {
        Self {
            limits: Limits::ROUTER,
            engine: EngineLimits::ROUTER,
            control: ControlLimits::ROUTER,
            policy: PolicyLimits::ROUTER,
            built,
            petname: None,
            fixed_endpoints: heapless::Vec::new(),
            quotas: Quotas::default(),
            has_login_page: false,
            metered: false,
            relays_for_lan: true,
        }
    }

    /// A microcontroller.
    pub fn micro(built: UnixTime) -> Self {
        Self {
            limits: Limits::MICRO,
            engine: EngineLimits::MICRO,
            control: ControlLimits::MICRO,
            policy: PolicyLimits::MICRO,
            relays_for_lan: false,
            ..Self::router(built)
        }
    }
}

/// Stored state that a node can't start from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The device's keys are damaged.
    #[error(transparent)]
    Identity(#[from] BadIdentity),
    /// A key could not be used by the tunnel engine.
    #[error(
        "the device's tunnel key can't be used; restore the state directory, or remove it and join again"
    )]
    TunnelKey,
}

/// A network this node is a member of.
struct Network {
    registry: Registry,
    petname: Name,
    own: Own,
}

/// This node in its network.
#[derive(Clone, Copy, Debug)]
struct Own {
    member: MemberId,
    device: SigningKey,
    node: NodeId,
}

/// What is done once state is synced.
#[derive(Debug)]
enum Deferred {
    /// Send a message.
    Send(SessionId, Vec<u8>),
    /// Stamps of the local key may be used.
    Stamps(LocalKeyId, altnet_tunnel::tai64n::Tai64n),
    /// Tell a fact.
    Tell(Event),
    /// The records of a network are on disk: note that this node is a member.
    Commit,
    /// The records up to here are on disk: this directory need not send them again.
    Cursor(NodeId, Cursor),
    /// What changed is on disk: followers are told.
    Push,
    /// This node's own record is on disk: others are told.
    Announce,
    /// The device's keys are on disk: an invite may be spent on them.
    Call,
    /// The key for DERP servers is on disk.
    DerpKey,
}

/// One device's mind. `A` is the AEAD its tunnels use.
pub struct Node<A: Aead> {
    config: Config,
    rng: Rng,
    clock: Clock,
    identity: Identity,
    network: Option<Network>,
    joining: Option<Joining>,
    door: door::Door,
    issuer: Option<Issuer>,
    engine: Engine<A>,
    local_key: LocalKeyId,
    previous_key: Option<LocalKeyId>,
    control: Control,
    policy: Policy,
    /// The policy record that was taken last, whether or not it could be put to work.
    policy_id: Option<RecordId>,
    probes: ProbeBudget,
    peers: BTreeMap<NodeId, Peer>,
    tunnels: BTreeMap<altnet_tunnel::engine::PeerIndex, NodeId>,
    /// The apps on this device, by their addresses.
    apps: BTreeMap<Ipv6Addr, apps::OwnApp>,
    /// Keys for TLS, by whose they are.
    tls_keys: BTreeMap<SigningKey, tls::TlsKey>,
    sessions: BTreeMap<SessionId, Session>,
    relay: RelayServer,
    guests: Guests,
    /// A relay that is measured.
    bench: Option<bench::Benching>,
    relays: BTreeMap<NodeId, RelayLink>,
    mesh: mesh::Others,
    load: load::Load,
    nearby: nearby::Nearby,
    /// Who waits for which relay to be back.
    waiting: returns::Waiting,
    uplinks: keeps::Uplinks,
    presence: OwnPresence,
    traversal: traversal::Traversal,
    turn: turn::Turn,
    derpers: derpers::Derpers,
    cursor: Cursor,
    /// Whose cursor it is.
    cursor_of: Option<NodeId>,
    last_paths: BTreeMap<NodeId, SocketAddr>,
    directory_epoch: u64,
    /// Fixed endpoints that the first-boot bundle gave.
    fixed_endpoints: heapless::Vec<SocketAddr, MAX_FIXED_ENDPOINTS>,
    stamps: BTreeMap<[u8; 32], altnet_tunnel::tai64n::Tai64n>,
    saves: Saves<Deferred>,
    events: VecDeque<Event>,
    counters: Counters,
    intake: intake::Intake,
    lost: data::Lost,
    sizes: sizes::Sizes,
    stun: crate::stun::Answers,
    unheard: command::Unheard,
    held: gate::Held,
    logins: logins::Logins,
    links: heapless::Vec<links::LinkState, MAX_LINKS>,
    refusals: refusals::Refusals,
    witnesses: witness::Witnesses,
    timers: housekeeping::Timers,
}

impl<A: Aead> Node<A> {
    /// Starts a node from what it kept, or as a new device if it kept nothing.
    ///
    /// `seed` is 32 bytes of entropy that nobody else knows and that were never used before.
    ///
    /// # Errors
    /// [`StartError`] if the device's keys are there but damaged. Damaged records are passed
    /// over: a directory has them still.
    pub fn new(
        config: Config,
        stored: &Stored,
        seed: [u8; 32],
        now: Instant,
    ) -> Result<Self, StartError> {
        let mut rng = Rng::new(seed);
        let mut saves = Saves::new();
        let clock = storage::stored_clock(&config, stored);
        let identity = match stored.get("identity") {
            Some(bytes) => Identity::decode(bytes)?,
            None => {
                saves.changed(Slot::Identity);
                Identity::generate(&mut rng, clock.known(now))
            }
        };
        let mut engine = Engine::new(config.engine, rng.array());
        let stamps = storage::stored_stamps(stored);
        let (local_key, previous_key) =
            membership::add_local_keys(&mut engine, &identity, &stamps)?;
        let control = Control::new(config.control, identity.control.clone(), rng.array());
        let mut node = Self {
            policy: Policy::new(config.policy, rng.array()),
            relay: RelayServer::new(config.limits.relay_clients.into()),
            mesh: mesh::Others::new(config.limits.members.into()),
            load: load::Load::default(),
            guests: Guests::default(),
            bench: None,
            directory_epoch: rng.next_u64().max(1),
            sizes: sizes::Sizes::new(
                config.limits.split_datagrams,
                u32::from_le_bytes(rng.array()),
            ),
            config,
            rng,
            clock,
            identity,
            network: None,
            joining: None,
            door: door::Door::default(),
            issuer: None,
            engine,
            local_key,
            previous_key,
            control,
            policy_id: None,
            probes: ProbeBudget::new(),
            peers: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            apps: BTreeMap::new(),
            tls_keys: BTreeMap::new(),
            sessions: BTreeMap::new(),
            relays: BTreeMap::new(),
            nearby: nearby::Nearby::default(),
            waiting: returns::Waiting::default(),
            uplinks: keeps::Uplinks::default(),
            presence: OwnPresence::default(),
            traversal: traversal::Traversal::default(),
            turn: turn::Turn::default(),
            derpers: derpers::Derpers::default(),
            cursor: Cursor::default(),
            cursor_of: None,
            last_paths: BTreeMap::new(),
            fixed_endpoints: heapless::Vec::new(),
            stamps,
            saves,
            events: VecDeque::new(),
            counters: Counters::default(),
            intake: intake::Intake::new(now),
            lost: data::Lost::default(),
            stun: crate::stun::Answers::new(stun::SHORT_ANSWERS),
            unheard: command::Unheard::default(),
            held: gate::Held::default(),
            logins: logins::Logins::default(),
            links: heapless::Vec::new(),
            refusals: refusals::Refusals::default(),
            witnesses: witness::Witnesses::new(now),
            timers: housekeeping::Timers::new(now),
        };
        node.relay.set_quotas(node.config.quotas);
        node.load(stored, now);
        Ok(node)
    }

    /// Mixes fresh entropy into every generator.
    pub fn handle_entropy(&mut self, entropy: &[u8; 32]) {
        self.rng.handle_entropy(entropy);
        self.engine.handle_entropy(&self.rng.array());
        self.control.handle_entropy(&self.rng.array());
    }

    /// Sets the running clock from a source that anybody could forge: the operating
    /// system's clock, SNTP, a board's clock chip. Nothing that lasts is decided by it.
    pub fn handle_clock(&mut self, time: UnixTime, now: Instant) {
        let was = self.clock.is_known(now);
        self.clock.set_running(time, now);
        self.set_calendar(now);
        if was != self.clock.is_known(now) {
            self.timers.housekeeping_at(now);
        }
        self.tend_policy(now);
        // Servers whose membership had ended by a wrong clock may be members again.
        self.link_relays(now);
    }

    /// The driver synced `slot`.
    pub fn handle_saved(&mut self, slot: &Slot, now: Instant) {
        for deferred in self.saves.saved(slot) {
            self.run(deferred, now);
        }
    }

    /// The driver's addresses: where this node can be reached without a NAT, with the port
    /// it listens on. Told at start and at every change.
    pub fn handle_interfaces(&mut self, addresses: &[SocketAddr], now: Instant) {
        let mut interfaces = heapless::Vec::new();
        for address in addresses {
            if interfaces.push(*address).is_err() {
                break;
            }
        }
        if interfaces != self.presence.interfaces {
            self.presence.interfaces = interfaces;
            self.look_anew(now);
        }
    }

    /// The ports that routers before this node keep open for it. Told at every change.
    pub fn handle_mapped(&mut self, addresses: &[SocketAddr], now: Instant) {
        let mapped = addresses.iter().copied().take(presence::MAX_MAPPED);
        let mapped: heapless::Vec<_, _> = mapped.collect();
        if mapped != self.presence.mapped {
            self.presence.mapped = mapped;
            self.presence_changed(now);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.wake(now);
        self.engine.handle_timeout(now);
        self.control.handle_timeout(now);
        self.handle_turn_timeout(now);
        self.tend_search(now);
        self.tend_filtering(now);
        self.tend_knocks(now);
        self.housekeep(now);
    }

    /// What passed and what didn't.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// This device's keys.
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The records in force, once a member.
    pub fn registry(&self) -> Option<&Registry> {
        self.network.as_ref().map(|network| &network.registry)
    }

    /// Does `deferred` once everything that changed so far is synced.
    ///
    /// A disk that never syncs stops acknowledgements, not memory: past a bound they are given
    /// up, and whoever waits asks again.
    fn after_save(&mut self, deferred: Deferred, now: Instant) {
        if self.saves.waiting() >= WAITING && matches!(deferred, Deferred::Send(..)) {
            return;
        }
        if let Some(deferred) = self.saves.then(deferred) {
            self.run(deferred, now);
        }
    }

    fn run(&mut self, deferred: Deferred, now: Instant) {
        match deferred {
            Deferred::Send(session, bytes) => {
                let _ = self.control.send(session, &bytes, now);
            }
            Deferred::Stamps(local, until) => self.engine.stamps_saved(local, until),
            Deferred::Tell(event) => self.tell(event),
            Deferred::Commit => self.commit_membership(now),
            Deferred::Cursor(of, cursor) if self.network.is_some() => {
                self.cursor_of = Some(of);
                self.cursor = cursor;
                self.saves.changed(Slot::Cursor);
            }
            Deferred::Cursor(..) => {}
            Deferred::Push => self.push_changes(now),
            Deferred::Announce => self.announce_own(now),
            Deferred::Call => self.begin_call(now),
            Deferred::DerpKey => self.derp_key_kept(now),
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() >= EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
