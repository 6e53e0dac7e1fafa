//! What a relay has room for.

use crate::derp::rate::Rate;

/// What a driver queues for a connection at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Packets of one kind: disco, or others.
    pub packets: usize,
    /// Bytes of packets of both kinds.
    pub bytes: usize,
}

/// What a relay has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections.
    pub connections: usize,
    /// Mesh peers that watch.
    pub watchers: usize,
    /// Changes that a watcher may be behind.
    pub watcher_backlog: usize,
    /// What a client may send, framing counted; no limit for mesh peers.
    pub rate: Rate,
    /// What is queued for a connection.
    pub queue: QueueLimits,
}

impl ServerLimits {
    /// For a home's router.
    pub const ROUTER: Self = Self {
        connections: 1024,
        watchers: 2,
        watcher_backlog: 256,
        rate: Rate::NONE,
        // Tailscale's server queues 32 packets, one read at a time. A driver here reads many packets
        // at once, and those of one read have to fit.
        queue: QueueLimits {
            packets: 512,
            bytes: 256 << 10,
        },
    };
    /// For a machine that does little else.
    pub const SERVER: Self = Self {
        connections: 20_000,
        watchers: 16,
        watcher_backlog: 4096,
        ..Self::ROUTER
    };
}
