//! The words an engine is spoken to with.

use altnet_wire::endpoint::Endpoint;
use altnet_wire::id::TunnelKey;
use altnet_wire::time::{Duration, Instant};

use crate::key::PresharedKey;
use crate::replay::{MICRO_WINDOW, ROUTER_WINDOW};
use crate::tai64n::Tai64n;

/// How large an engine may grow. Every table is bounded by one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Peers at once. Each may have one handshake and five sessions under way.
    pub peers: u16,
    /// Local static keys at once: the device's, its former epoch's, one per app.
    pub local_keys: u8,
    /// Counters a session remembers against replay: [`ROUTER_WINDOW`] or [`MICRO_WINDOW`].
    pub replay_window: u16,
    /// Packets of all peers together that wait for a session. Each takes 1500 bytes, once.
    pub queued_packets: u16,
    /// Packets of one peer that wait for a session; the oldest gives way.
    pub queued_packets_per_peer: u16,
    /// Cookie replies that wait to be sent.
    pub cookie_replies: u8,
    /// Handshake messages a second that are computed without asking for a cookie first.
    pub handshakes_per_s: u16,
    /// Handshake messages that may come at once before that rate counts.
    pub handshake_burst: u16,
    /// Buckets that sources with a cookie are counted in while under load.
    pub sources: u16,
    /// The tunnel's MTU: the length above which padding never goes, in bytes.
    pub mtu_bytes: u16,
    /// How far ahead handshake stamps are reserved while the calendar runs: after the first
    /// one, flash is written at most twice in this time for each local key.
    pub stamp_block: Duration,
}

impl EngineLimits {
    /// A gateway. About 0.7 MB reserved (1.1 kB for each peer, of which only what is used is
    /// touched), and 1.2 kB for each session.
    pub const ROUTER: Self = Self {
        peers: 512,
        local_keys: 32,
        replay_window: ROUTER_WINDOW,
        queued_packets: 64,
        queued_packets_per_peer: 16,
        cookie_replies: 16,
        handshakes_per_s: 200,
        handshake_burst: 100,
        sources: 256,
        mtu_bytes: 1420,
        stamp_block: Duration::from_secs(86_400),
    };

    /// A microcontroller with some hundred kilobytes of memory. About 15 kB reserved, and
    /// 0.4 kB for each session.
    pub const MICRO: Self = Self {
        peers: 8,
        local_keys: 2,
        replay_window: MICRO_WINDOW,
        queued_packets: 4,
        queued_packets_per_peer: 2,
        cookie_replies: 2,
        handshakes_per_s: 4,
        handshake_burst: 8,
        sources: 16,
        mtu_bytes: 1420,
        stamp_block: Duration::from_secs(86_400),
    };
}

/// One of the engine's own static keys. No key is given the id of one that was removed, so
/// that a late [`super::Engine::stamps_saved`] can't speak for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalKeyId {
    /// Its place in the table.
    pub(crate) at: u8,
    /// How many keys were added before it.
    pub(crate) turn: u32,
}

/// One of the engine's peers. Stays the same until the peer is removed; then it may be
/// given to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub(crate) u16);

impl PeerIndex {
    /// The number, below [`EngineLimits::peers`]: fit to index a table beside the engine's.
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

/// A peer to be.
///
/// A peer is one pair of static keys. Someone whose key rotates is two peers while both
/// epochs are accepted; our own rotation is [`super::Engine::set_peer_local_key`].
pub struct PeerConfig {
    /// The peer's static key.
    pub public: TunnelKey,
    /// The key we show it.
    pub local: LocalKeyId,
    /// What both mix in besides, or [`PresharedKey::NONE`].
    pub preshared: PresharedKey,
    /// How often something is sent when nothing else is, to keep a NAT's mapping open: a
    /// second at least.
    pub persistent_keepalive: Option<Duration>,
    /// Where datagrams to it go, if known.
    pub endpoint: Option<Endpoint>,
    /// Whether authenticated datagrams from elsewhere move the endpoint there, as WireGuard
    /// does. If not, only [`super::Engine::set_endpoint`] moves it, and an unknown one is
    /// learnt once.
    pub roams: bool,
}

impl PeerConfig {
    /// A peer with neither pre-shared key nor keepalive nor endpoint, that roams.
    pub const fn new(public: TunnelKey, local: LocalKeyId) -> Self {
        Self {
            public,
            local,
            preshared: PresharedKey::NONE,
            persistent_keepalive: None,
            endpoint: None,
            roams: true,
        }
    }
}

/// Why a key or a peer was not added, changed or removed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The table is full.
    #[error("no more than {limit} fit")]
    Full {
        /// How many it holds.
        limit: u16,
    },
    /// The same pair of keys is a peer already, or the local key is there already.
    #[error("the key is there already")]
    Duplicate,
    /// No local key has this id.
    #[error("no such local key")]
    UnknownLocalKey,
    /// No peer has this index.
    #[error("no such peer")]
    UnknownPeer,
    /// A peer is still shown this key.
    #[error("a peer is still shown this key")]
    InUse,
    /// The peer's key has low order: no secret can be shared with it.
    #[error("the public key has low order")]
    WeakKey,
}

/// What became of a packet that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Sealed {
    /// The frame holds a datagram for `to`.
    Transmit {
        /// Where it goes.
        to: Endpoint,
    },
    /// A copy waits for a handshake, which is under way; the frame is free.
    Queued,
}

/// Why a packet can't be sent. The frame holds what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealRefused {
    /// No peer has this index.
    #[error("no such peer")]
    UnknownPeer,
    /// The peer's endpoint isn't known.
    #[error("the peer's endpoint is not known")]
    NoEndpoint,
    /// The packets of other peers fill the queue, or the packet is too long for it.
    #[error("no room to queue the packet")]
    QueueFull,
    /// The frame has too little room around the packet.
    #[error("the frame has no room for a seal")]
    NoRoom,
}

/// What a datagram was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Opened {
    /// The frame holds an IPv4 or IPv6 packet, trimmed to its own length. Whether its source
    /// belongs to the peer is for the caller to judge.
    Packet {
        /// Who sealed it.
        peer: PeerIndex,
        /// Where it came from.
        from: Endpoint,
    },
    /// A keepalive: the peer is alive at `from`.
    Keepalive {
        /// Who sealed it.
        peer: PeerIndex,
        /// Where it came from.
        from: Endpoint,
    },
    /// A believed handshake message; what it asks for comes out of `poll_output`.
    Handshake {
        /// Who made it.
        peer: PeerIndex,
        /// Where it came from.
        from: Endpoint,
    },
    /// An initiation to `local` by the proven holder of `public`, who is no peer. The frame
    /// still holds it: to answer, add the peer and hand the same frame in again.
    Stranger {
        /// The stranger's static key.
        public: TunnelKey,
        /// Which of our keys it was made for.
        local: LocalKeyId,
    },
    /// Something for the engine alone.
    Nothing,
}

/// Why a datagram was dropped. The frame's contents are unspecified and go nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// Not a WireGuard message.
    #[error("not a WireGuard message")]
    Malformed,
    /// A handshake message that was made for none of our keys.
    #[error("mac1 is for no key of ours")]
    BadMac1,
    /// Too many handshakes; a cookie was offered.
    #[error("under load: a cookie was offered")]
    UnderLoad,
    /// Too many handshakes from one source or one peer, or a full queue of cookie replies.
    #[error("too many handshakes from one source")]
    TooOften,
    /// A handshake field that doesn't verify.
    #[error("a handshake field does not verify")]
    BadHandshake,
    /// A handshake key of low order.
    #[error("a handshake key has low order")]
    WeakKey,
    /// An initiation no newer than the last one of the same peer: recorded and replayed.
    #[error("the initiation is not newer than the last")]
    StaleInitiation,
    /// No handshake or session has this index. Usual after a restart.
    #[error("no session has this index")]
    UnknownReceiver,
    /// A cookie reply that answers nothing we sent.
    #[error("the cookie answers nothing")]
    BadCookie,
    /// A packet whose tag doesn't verify.
    #[error("the seal does not verify")]
    BadSeal,
    /// A packet of a session that is too old, or past the last counter.
    #[error("the session has expired")]
    Expired,
    /// A packet that was seen before, or too far behind to tell.
    #[error("the packet was seen before")]
    Replayed,
    /// An authentic packet that isn't IP or is shorter than it says.
    #[error("the inner packet is not IP")]
    NotIp,
}

/// What a driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Output {
    /// Send the frame's packet to `to`.
    Transmit {
        /// Where it goes.
        to: Endpoint,
    },
    /// Take note.
    Event(TunnelEvent),
    /// Nothing more: call `handle_timeout` at this moment, or come back with an input.
    Wait(Instant),
}

/// Facts about sessions and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// The peer can be sent to: there is a session, and it is confirmed.
    SessionUp {
        /// The peer.
        peer: PeerIndex,
    },
    /// A new session took the place of the former one.
    Rekeyed {
        /// The peer.
        peer: PeerIndex,
    },
    /// The last session is gone: too old, and nobody answered in time.
    SessionDown {
        /// The peer.
        peer: PeerIndex,
    },
    /// No answer for 90 seconds since somebody last wanted to send; what waited was dropped.
    /// While packets keep coming it is never said: [`PeerStats::is_shaking`] and
    /// [`PeerStats::last_received`] tell sooner that a path is dead.
    HandshakeFailed {
        /// The peer.
        peer: PeerIndex,
    },
    /// The peer is now reached where it was last heard.
    Roamed {
        /// The peer.
        peer: PeerIndex,
        /// Where that is.
        to: Endpoint,
    },
    /// The peer's sessions changed: workers ask for them again.
    SessionsChanged {
        /// The peer.
        peer: PeerIndex,
    },
    /// Save that stamps of `local` are used up to `until`, synced, then call `stamps_saved`.
    SaveStamps {
        /// The key.
        local: LocalKeyId,
        /// The floor to start from after a restart.
        until: Tai64n,
    },
}

/// A peer's state, for people and for choosing paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// When the current session was agreed on.
    pub last_handshake: Option<Instant>,
    /// When anything authentic came last.
    pub last_received: Option<Instant>,
    /// Datagram bytes sent to the peer, as given out for sending.
    pub tx_bytes: u64,
    /// Authentic datagram bytes received.
    pub rx_bytes: u64,
    /// Datagrams sent.
    pub tx_packets: u64,
    /// Authentic datagrams received.
    pub rx_packets: u64,
    /// Where datagrams go.
    pub endpoint: Option<Endpoint>,
    /// Whether a session can seal.
    pub is_up: bool,
    /// Whether a handshake is under way.
    pub is_shaking: bool,
}
