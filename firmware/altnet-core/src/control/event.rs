//! What [`super::Control`] tells, and why it refuses.

use alloc::vec::Vec;
use core::net::SocketAddr;

pub use altnet_wire::control::{CloseReason, Pattern};
use altnet_wire::endpoint::Endpoint;
use altnet_wire::hash::Hash;
use altnet_wire::id::ControlKey;
use altnet_wire::time::Duration;

/// A control session of this node, until it is closed; never used again in practice
/// (random, 32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub(super) u32);

/// A message that a session was given to send: 0, 1, 2 and so on per session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub(super) u32);

/// A fact for the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// Keys are agreed and `remote` proved that it has its own.
    Established {
        /// The session.
        session: SessionId,
        /// The other side's control key. With [`Pattern::Xx`] it may be anybody's.
        remote: ControlKey,
        /// How it was agreed.
        pattern: Pattern,
        /// Whether this node called.
        initiator: bool,
        /// The handshake's hash: the same on both sides, different in each session.
        handshake: Hash,
        /// Where the other side is: where it was called or, if it called, where the answer
        /// to its call went.
        endpoint: Endpoint,
    },
    /// A message, once and in the order of sending.
    Message {
        /// The session.
        session: SessionId,
        /// Where its last piece came from.
        from: Endpoint,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A message has arrived at the other side's `Control`.
    Delivered {
        /// The session.
        session: SessionId,
        /// The message.
        message: MessageId,
    },
    /// A path challenge was answered: what is sent to `endpoint` arrives.
    PathAnswered {
        /// The session.
        session: SessionId,
        /// What was challenged.
        endpoint: Endpoint,
        /// From the challenge to its answer.
        rtt: Duration,
        /// Where the other side sees this node on that path, unless relayed.
        observed: Option<SocketAddr>,
    },
    /// A padded challenge was answered: a datagram of so many bytes arrives at `endpoint`.
    Probed {
        /// The session.
        session: SessionId,
        /// What was challenged.
        endpoint: Endpoint,
        /// The bytes of the datagram that arrived.
        bytes: u16,
        /// Whether the other side takes datagrams in pieces ([`altnet_wire::split`]).
        takes_pieces: bool,
        /// From the challenge to its answer.
        rtt: Duration,
        /// Where the other side sees this node on that path, unless relayed.
        observed: Option<SocketAddr>,
    },
    /// An authentic datagram came from elsewhere than the session's endpoint.
    Heard {
        /// The session.
        session: SessionId,
        /// From where. Anybody on the path may have passed it on: challenge it first.
        from: Endpoint,
    },
    /// A handshake that this node began has ended without a session.
    Failed {
        /// The session that was to be.
        session: SessionId,
        /// Why.
        why: FailReason,
    },
    /// A session has ended, not by [`super::Control::close`]. Unacknowledged messages may
    /// or may not have arrived.
    Closed {
        /// The session.
        session: SessionId,
        /// Why.
        why: ClosedWhy,
    },
}

/// What a datagram is, as far as its size matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cargo {
    /// It is sent for the first time, or small.
    #[default]
    Usual,
    /// It is as large as it is to find out whether that passes: not to be cut.
    Probe,
    /// It was sent before, and didn't arrive.
    Again,
}

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailReason {
    /// Nobody answered, or not with the expected key.
    #[error("no answer")]
    NoAnswer,
    /// The remote key is one that no secret belongs to.
    #[error("the other side's key is unusable")]
    BadKey,
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClosedWhy {
    /// The other side said so.
    #[error("closed by the other side")]
    Remote(CloseReason),
    /// What was sent was not acknowledged in time.
    #[error("no acknowledgement")]
    NoAnswer,
    /// Nothing was heard for [`super::ControlLimits::idle`].
    #[error("nothing was heard")]
    Idle,
    /// A stranger that called us had nothing to say for
    /// [`super::ControlLimits::stranger_idle`].
    #[error("a stranger said nothing more")]
    Silent,
    /// The other side has a newer session, and as many as it may have
    /// ([`super::ControlLimits::sessions_per_key`]).
    #[error("a newer session took its place")]
    Replaced,
    /// A day old, or out of numbers.
    #[error("expired")]
    Expired,
    /// The other side, holding the right key, sent what can't be read.
    #[error("the other side sent what can't be read")]
    Damaged,
}

/// Why a datagram was dropped. Nothing was told to its sender unless it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DropReason {
    /// Not a control datagram of this version.
    #[error("not a control datagram")]
    Malformed,
    /// No session or handshake has this index.
    #[error("unknown session")]
    UnknownSession,
    /// It doesn't open under the session's or handshake's keys.
    #[error("seal does not verify")]
    BadSeal,
    /// Seen before, or too old to know.
    #[error("replayed")]
    Replayed,
    /// The caller's key may not call.
    #[error("caller not admitted")]
    NotAdmitted,
    /// A Retry was sent that asks for a cookie.
    #[error("asked for a cookie")]
    Retry,
    /// A table is full, or too many come at once.
    #[error("full or busy")]
    Full,
    /// Not expected now: a second Response, a Retry for a handshake that is over.
    #[error("out of turn")]
    OutOfTurn,
}

/// A table has no room: the number of sessions is at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session table is full")]
pub struct Full;

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// There is no such session.
    #[error("the session has ended")]
    UnknownSession,
    /// Its handshake isn't finished: wait for [`ControlEvent::Established`].
    #[error("the session is not established yet")]
    NotEstablished,
    /// Larger than [`altnet_wire::control::MAX_MESSAGE_BYTES`].
    #[error("the message has {found} bytes, more than {limit}")]
    TooLarge {
        /// Its bytes.
        found: usize,
        /// The most there may be.
        limit: usize,
    },
    /// The session's queue is full: wait for [`ControlEvent::Delivered`].
    #[error("the session's queue is full")]
    Full,
}
