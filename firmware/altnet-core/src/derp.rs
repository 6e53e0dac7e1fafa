//! Relaying over TLS, in Tailscale's protocol DERP: both sides, without I/O.
//!
//! [`handshake`] shows who a client is before a server spends anything on it, [`server`] forwards
//! packets between the clients of one relay, [`client`] is a gateway's connection to any relay that
//! admits it. In: frames, cut from a stream by [`altnet_wire::derp::split`], and the time. Out: frames,
//! deadlines, and where a packet goes; the packet itself never comes in here.
//!
//! A DERP identity is a key of its own: it says by which name a relay forwards, and nothing else.
//! Whoever is admitted can be told so by a record; a relay still learns no other key and no plaintext.
//!
//! Deliberately absent: TLS, HTTP, queues (a driver's, of bounds it is told) and relaying on behalf of
//! other relays of a region; they may watch this one and forward to its clients.
//!
//! Source: `derp/derpserver` and `derp/derp_client.go` of Tailscale, protocol version 2.

pub mod boxes;
pub mod client;
pub mod handshake;
pub mod rate;
pub mod server;

/// Whether a packet is one of Tailscale's disco messages, by which two peers look for a direct path.
/// They are few and matter most while a path is sought, so they are queued apart.
///
/// Source: `disco.LooksLikeDiscoWrapper`: magic, key, nonce.
pub fn is_disco(packet: &[u8]) -> bool {
    const MAGIC: &[u8] = b"TS\xf0\x9f\x92\xac";
    packet.len() >= MAGIC.len() + 32 + 24 && packet.starts_with(MAGIC)
}

#[cfg(test)]
mod tests;
