//! What a relay answers and asks for, and what it counts.

use altnet_wire::derp::{BadFrame, Frame, PublicKey};
use altnet_wire::time::Instant;

use super::ConnectionId;

/// No room for another connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay serves as many clients as it may")]
pub struct Full;

/// What is to be done with a frame's packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// There is none, or nothing.
    Done,
    /// To be queued as a `RecvPacket`.
    Deliver {
        /// For this connection.
        to: ConnectionId,
        /// From this client.
        from: PublicKey,
        /// The packet.
        packet: &'a [u8],
        /// Whether it goes to the queue of disco messages.
        is_disco: bool,
    },
    /// To be forgotten.
    Dropped(DropReason),
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Nobody of that key is here.
    UnknownDestination,
    /// Nobody of that key is here, though another relay thought so.
    UnknownOnForward,
    /// A driver's queue was full; this one was the oldest.
    QueueFull,
    /// The connection ended before it was written.
    Gone,
}

/// Why a connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// It doesn't keep to the protocol.
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    /// It asked for what only mesh peers may.
    #[error("it is no mesh peer, and asked for what only those may")]
    NotAllowed,
    /// A mesh peer asked for it.
    #[error("a mesh peer asked for it to be closed")]
    Asked,
    /// It isn't admitted any more.
    #[error("it isn't admitted any more")]
    Removed,
    /// The key has too many connections, and this one was silent for longest.
    #[error("another connection of its key took its place")]
    Superseded,
    /// It watches, and reads too slowly to learn what changes.
    #[error("it watches, and is too far behind")]
    TooSlow,
    /// There are as many watchers as there may be.
    #[error("as many watch as may")]
    TooManyWatchers,
}

/// What a driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Queue a frame, apart from packets. It may be dropped if a connection doesn't take what it is
    /// sent, but for a watcher's.
    Send {
        /// For this connection.
        to: ConnectionId,
        /// The frame.
        frame: Frame<'static>,
    },
    /// A watcher has something to learn: fetch it by [`super::Server::poll_watcher`] as it can be written.
    Watch {
        /// The watcher.
        to: ConnectionId,
    },
    /// Close a connection; [`super::Server::disconnect`] follows.
    Close {
        /// The connection.
        connection: ConnectionId,
        /// Why.
        reason: CloseReason,
    },
    /// Nothing until then.
    Wait(Instant),
}

/// What happened so far, and what there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// Connections that were admitted.
    pub admitted: u64,
    /// Connections that there are.
    pub connections: u64,
    /// Connections that share their key with another.
    pub duplicates: u64,
    /// Connections that call this relay their home.
    pub home_connections: u64,
    /// Packets that clients sent.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Packets that other relays forwarded.
    pub forwarded_in: u64,
    /// Packets that were handed on.
    pub delivered: u64,
    /// Their bytes.
    pub delivered_bytes: u64,
    /// Packets for nobody.
    pub unknown_destination: u64,
    /// Packets from other relays for nobody.
    pub unknown_on_forward: u64,
    /// Packets that a full queue lost.
    pub queue_full: u64,
    /// Packets whose connection ended before they were written.
    pub gone: u64,
    /// Pings.
    pub pings: u64,
    /// Frames that a server doesn't expect.
    pub unknown_frames: u64,
}
