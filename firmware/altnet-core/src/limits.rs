//! How much of everything: bounds as values, so that a router and a microcontroller run the
//! same code.
//!
//! Full is an ordinary answer, counted, never a panic and never a table that grows.

/// Bounds of every table in the core. All are counts of entries unless the name says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memberships held, and as many node records.
    pub members: u16,
    /// Host records.
    pub hosts: u16,
    /// App records.
    pub apps: u16,
    /// Issuer certificates, and as many network heads.
    pub issuers: u16,
    /// Invites held.
    pub invites: u16,
    /// Uses of invites that an issuer remembers.
    pub invite_uses: u16,
    /// Revocations.
    pub revocations: u16,
    /// Owner changes, those of lost forks counted.
    pub owner_changes: u16,
    /// Records of unknown kind or version, kept and passed on unread.
    pub unknown_records: u16,
    /// Peers with tunnel state and a path.
    pub peers: u16,
    /// Established control sessions.
    pub control_sessions: u16,
    /// Control handshakes under way.
    pub control_handshakes: u16,
    /// Flows remembered to admit their replies.
    pub flows: u16,
    /// Clients of a relay that this node is.
    pub relay_clients: u16,
    /// Relays this node registers with.
    pub relays: u16,
    /// Other relays that this one is linked with in a mesh, at most [`crate::mesh::MAX_LINKS`].
    pub mesh_links: u16,
    /// Nodes subscribed to a directory that this node is.
    pub subscriptions: u16,
    /// Endpoints remembered per peer.
    pub candidates_per_peer: u8,
    /// Packets held per peer while its session is being made.
    pub queued_per_peer: u8,
    /// Logins of machines behind gateways, this one's and others'.
    pub logins: u16,
    /// Datagrams of peers that come in pieces, at a time. Each takes 1500 bytes.
    pub split_datagrams: u16,
}

impl Limits {
    /// A Linux router or board with 64 MB of memory or more.
    pub const ROUTER: Self = Self {
        members: 1024,
        hosts: 2048,
        apps: 512,
        issuers: 64,
        invites: 256,
        invite_uses: 1024,
        revocations: 1024,
        owner_changes: 32,
        unknown_records: 256,
        peers: 1024,
        control_sessions: 256,
        control_handshakes: 64,
        flows: 8192,
        relay_clients: 1024,
        relays: 8,
        mesh_links: 15,
        subscriptions: 256,
        candidates_per_peer: 8,
        queued_per_peer: 8,
        logins: 512,
        split_datagrams: 64,
    };

    /// A microcontroller with some hundred kilobytes of memory.
    pub const MICRO: Self = Self {
        members: 32,
        hosts: 32,
        apps: 8,
        issuers: 8,
        invites: 16,
        invite_uses: 16,
        revocations: 64,
        owner_changes: 16,
        unknown_records: 8,
        peers: 16,
        control_sessions: 4,
        control_handshakes: 2,
        flows: 256,
        relay_clients: 16,
        relays: 2,
        mesh_links: 1,
        subscriptions: 4,
        candidates_per_peer: 4,
        queued_per_peer: 1,
        logins: 16,
        split_datagrams: 4,
    };
}
