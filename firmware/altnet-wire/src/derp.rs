//! The frames of Tailscale's DERP protocol, by which relays and their clients talk over TLS.
//!
//! ```text
//! kind u8 | length u32, big-endian | body                 length counts the body alone
//!
//! 0x01 ServerKey      magic 8 | key 32 | ignored          server greets
//! 0x02 ClientInfo     key 32 | nonce 24 | box             client answers, see `info`
//! 0x03 ServerInfo     nonce 24 | box                      server admits
//! 0x04 SendPacket     to 32 | packet                      client to server
//! 0x05 RecvPacket     from 32 | packet                    server to client
//! 0x06 KeepAlive
//! 0x07 NotePreferred  1 or 0                              client: this is my home relay, or not
//! 0x08 PeerGone       key 32 | reason 1                   who sent to us lately has left, or was never here
//! 0x09 PeerPresent    key 32 | address 16 | port 2 | flags 1
//! 0x0a ForwardPacket  from 32 | to 32 | packet            relay to relay
//! 0x10 WatchConns                                         relay: tell me who comes and goes
//! 0x11 ClosePeer      key 32                              relay: disconnect that one
//! 0x12 Ping           8 bytes                             either; the other answers
//! 0x13 Pong           8 bytes
//! 0x14 Health         text, empty if all is well
//! 0x15 Restarting     reconnect in ms u32 | try for ms u32
//! ```
//! In: bytes of either side. Out: frames, borrowed from those bytes. [`split::Splitter`] cuts a stream into
//! frames and refuses a length before its body is there; [`Frame`] reads one. Unknown kinds are
//! skipped, and bytes behind what is understood are ignored, as the protocol wants it to grow.
//!
//! Deliberately absent: the boxes (`altnet-core` opens them) and what a frame means.
//!
//! Source: `derp/derp.go`, `derp/derp_client.go` and `derp/derpserver` of Tailscale, protocol version 2.

pub mod info;
mod json;
pub mod node;
pub mod split;

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::time::Duration;

/// What a server's greeting begins with: `DERP` and a key, in UTF-8.
pub const MAGIC: [u8; 8] = *b"DERP\xf0\x9f\x94\x91";
/// The protocol's version: packets are received with their source.
pub const VERSION: u32 = 2;
/// Bytes before a body.
pub const HEADER_BYTES: usize = 5;
/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of the nonce before a box.
pub const NONCE_BYTES: usize = 24;
/// Bytes of the tag in a box.
pub const TAG_BYTES: usize = 16;
/// The largest packet, in bytes, framing not counted.
pub const MAX_PACKET_BYTES: usize = 64 << 10;
/// The largest body that has to be held whole: a forwarded packet.
pub const MAX_BODY_BYTES: usize = 2 * KEY_BYTES + MAX_PACKET_BYTES;
/// Bytes before the packet in a `SendPacket` or `RecvPacket`.
pub const PACKET_PREFIX_BYTES: usize = HEADER_BYTES + KEY_BYTES;
/// How often a server sends `KeepAlive` at least, its jitter not counted.
pub const KEEPALIVE: Duration = Duration::from_secs(60);
/// What a server adds to [`KEEPALIVE`] at most, chosen once a connection.
pub const KEEPALIVE_JITTER: Duration = Duration::from_secs(5);
/// A client that heard nothing for this long has lost its server.
pub const SILENCE: Duration = Duration::from_secs(120);

/// The public key by which a relay knows a client, and a client its relay: X25519.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; KEY_BYTES]);

impl core::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

impl core::fmt::Display for PublicKey {
    /// Writes 64 hexadecimal digits, as `Derp-Public-Key` has them.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u8);

impl FrameKind {
    /// The server's greeting.
    pub const SERVER_KEY: Self = Self(0x01);
    /// Who the client is.
    pub const CLIENT_INFO: Self = Self(0x02);
    /// What the server says of itself.
    pub const SERVER_INFO: Self = Self(0x03);
    /// A packet to be relayed.
    pub const SEND_PACKET: Self = Self(0x04);
    /// A relayed packet.
    pub const RECV_PACKET: Self = Self(0x05);
    /// The connection lives.
    pub const KEEP_ALIVE: Self = Self(0x06);
    /// Whether this is the client's home.
    pub const NOTE_PREFERRED: Self = Self(0x07);
    /// A peer isn't connected.
    pub const PEER_GONE: Self = Self(0x08);
    /// A peer is connected.
    pub const PEER_PRESENT: Self = Self(0x09);
    /// A packet that another relay got.
    pub const FORWARD_PACKET: Self = Self(0x0a);
    /// Asks who comes and goes.
    pub const WATCH_CONNS: Self = Self(0x10);
    /// Asks to disconnect a peer.
    pub const CLOSE_PEER: Self = Self(0x11);
    /// Asks for a pong.
    pub const PING: Self = Self(0x12);
    /// Answers a ping.
    pub const PONG: Self = Self(0x13);
    /// What is wrong with the connection.
    pub const HEALTH: Self = Self(0x14);
    /// The server is about to restart.
    pub const RESTARTING: Self = Self(0x15);
}

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GoneReason(pub u8);

impl GoneReason {
    /// It was here and left.
    pub const DISCONNECTED: Self = Self(0x00);
    /// The server doesn't know it.
    pub const NOT_HERE: Self = Self(0x01);
}

/// What a server tells of a peer that is present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PresentFlags(pub u8);

impl PresentFlags {
    /// None of the others.
    pub const REGULAR: Self = Self(1);
    /// Another relay.
    pub const MESH_PEER: Self = Self(1 << 1);
    /// A prober.
    pub const PROBER: Self = Self(1 << 2);
    /// It would rather be on another server of its region.
    pub const NOT_IDEAL: Self = Self(1 << 3);
}

/// A frame that isn't one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadFrame {
    /// The body is too short for its kind.
    #[error("a frame of kind {kind:#04x} has {found} bytes, too few")]
    Short {
        /// The kind.
        kind: u8,
        /// The body's length.
        found: u32,
    },
    /// The body is too long for its kind.
    #[error("a frame of kind {kind:#04x} has {found} bytes, too many")]
    Long {
        /// The kind.
        kind: u8,
        /// The body's length.
        found: u32,
    },
    /// A greeting without [`MAGIC`].
    #[error("the greeting isn't DERP's")]
    NotDerp,
}

/// The buffer has no room for a frame. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame needs {needed} bytes")]
pub struct NoRoom {
    /// The frame's length.
    pub needed: usize,
}

/// A frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The server's greeting.
    ServerKey(PublicKey),
    /// Who the client is.
    ClientInfo {
        /// Its key.
        key: PublicKey,
        /// Nonce and box; see [`info::ClientInfo`].
        sealed: &'a [u8],
    },
    /// What the server says of itself: nonce and box; see [`info::ServerInfo`].
    ServerInfo(&'a [u8]),
    /// A packet to be relayed.
    SendPacket {
        /// Whom it is for.
        to: PublicKey,
        /// The packet.
        packet: &'a [u8],
    },
    /// A relayed packet.
    RecvPacket {
        /// Who sent it, vouched for by the server alone.
        from: PublicKey,
        /// The packet.
        packet: &'a [u8],
    },
    /// A packet that another relay got.
    ForwardPacket {
        /// Who sent it.
        from: PublicKey,
        /// Whom it is for.
        to: PublicKey,
        /// The packet.
        packet: &'a [u8],
    },
    /// The connection lives.
    KeepAlive,
    /// Whether this is the client's home.
    NotePreferred(bool),
    /// A peer isn't connected.
    PeerGone {
        /// The peer.
        peer: PublicKey,
        /// Why.
        reason: GoneReason,
    },
    /// A peer is connected. Old servers leave out what is `None`.
    PeerPresent {
        /// The peer.
        peer: PublicKey,
        /// Where it connects from, if it is known.
        address: Option<SocketAddr>,
        /// What is told of it.
        flags: Option<PresentFlags>,
    },
    /// Asks who comes and goes.
    WatchConns,
    /// Asks to disconnect a peer.
    ClosePeer(PublicKey),
    /// Asks for a pong.
    Ping([u8; 8]),
    /// Answers a ping.
    Pong([u8; 8]),
    /// What is wrong with the connection, in UTF-8; nothing if nothing is.
    Health(&'a [u8]),
    /// The server is about to restart.
    Restarting {
        /// When to connect again, in milliseconds.
        reconnect_in_ms: u32,
        /// How long to try, in milliseconds.
        try_for_ms: u32,
    },
    /// A kind that isn't known.
    Unknown(FrameKind),
}

/// The header of a frame whose body is `length` bytes.
pub const fn header(kind: FrameKind, length: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = length.to_be_bytes();
    [kind.0, a, b, c, d]
}

/// What goes before a packet of `length` bytes: the header and `key`, of whoever it is to or from.
pub fn packet_prefix(kind: FrameKind, key: &PublicKey, length: usize) -> [u8; PACKET_PREFIX_BYTES] {
    let body = u32::try_from(KEY_BYTES + length).unwrap_or(u32::MAX);
    let mut out = [0; PACKET_PREFIX_BYTES];
    let octets = header(kind, body).into_iter().chain(key.0);
    out.iter_mut()
        .zip(octets)
        .for_each(|(to, octet)| *to = octet);
    out
}

impl<'a> Frame<'a> {
    /// Reads the body of a frame.
    ///
    /// # Errors
    /// [`BadFrame::Short`], and [`BadFrame::NotDerp`] of a greeting. What is too long for its kind is
    /// cut; [`split::Splitter`] has refused what a server doesn't accept.
    pub fn parse(kind: FrameKind, body: &'a [u8]) -> Result<Self, BadFrame> {
        let short = BadFrame::Short {
            kind: kind.0,
            found: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let key = |bytes: &'a [u8]| -> Result<(PublicKey, &'a [u8]), BadFrame> {
            let (key, rest) = bytes.split_first_chunk().ok_or(short)?;
            Ok((PublicKey(*key), rest))
        };
        Ok(match kind {
            FrameKind::SERVER_KEY => {
                let (magic, rest) = body.split_first_chunk().ok_or(short)?;
                if *magic != MAGIC {
                    return Err(BadFrame::NotDerp);
                }
                Self::ServerKey(key(rest)?.0)
            }
            FrameKind::CLIENT_INFO => {
                let (key, sealed) = key(body)?;
                Self::ClientInfo { key, sealed }
            }
            FrameKind::SERVER_INFO => Self::ServerInfo(body),
            FrameKind::SEND_PACKET => {
                let (to, packet) = key(body)?;
                Self::SendPacket { to, packet }
            }
            FrameKind::RECV_PACKET => {
                let (from, packet) = key(body)?;
                Self::RecvPacket { from, packet }
            }
            FrameKind::FORWARD_PACKET => {
                let (from, rest) = key(body)?;
                let (to, packet) = key(rest)?;
                Self::ForwardPacket { from, to, packet }
            }
            FrameKind::KEEP_ALIVE => Self::KeepAlive,
            FrameKind::NOTE_PREFERRED => Self::NotePreferred(*body.first().ok_or(short)? != 0),
            FrameKind::PEER_GONE => {
                let (peer, rest) = key(body)?;
                // Old servers gave no reason; there was one then.
                let reason = rest
                    .first()
                    .map_or(GoneReason::DISCONNECTED, |r| GoneReason(*r));
                Self::PeerGone { peer, reason }
            }
            FrameKind::PEER_PRESENT => {
                let (peer, rest) = key(body)?;
                present(peer, rest)
            }
            FrameKind::WATCH_CONNS => Self::WatchConns,
            FrameKind::CLOSE_PEER => Self::ClosePeer(key(body)?.0),
            FrameKind::PING => Self::Ping(*body.first_chunk().ok_or(short)?),
            FrameKind::PONG => Self::Pong(*body.first_chunk().ok_or(short)?),
            FrameKind::HEALTH => Self::Health(body),
            FrameKind::RESTARTING => {
                let (reconnect, rest) = body.split_first_chunk().ok_or(short)?;
                Self::Restarting {
                    reconnect_in_ms: u32::from_be_bytes(*reconnect),
                    try_for_ms: u32::from_be_bytes(*rest.first_chunk().ok_or(short)?),
                }
            }
            kind => Self::Unknown(kind),
        })
    }

    /// Writes the frame and returns its length in bytes.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, NoRoom> {
        let needed = self.encoded_len();
        let out = out.get_mut(..needed).ok_or(NoRoom { needed })?;
        let length = u32::try_from(needed - HEADER_BYTES).unwrap_or(u32::MAX);
        let mut rest = put(out, &header(self.kind(), length));
        let mut write = |bytes: &[u8]| rest = put(core::mem::take(&mut rest), bytes);
        match self {
            Self::ServerKey(key) => {
                write(&MAGIC);
                write(&key.0);
            }
            Self::ClientInfo { key, sealed } => {
                write(&key.0);
                write(sealed);
            }
            Self::ServerInfo(sealed) => write(sealed),
            Self::SendPacket { to: key, packet } | Self::RecvPacket { from: key, packet } => {
                write(&key.0);
                write(packet);
            }
            Self::ForwardPacket { from, to, packet } => {
                write(&from.0);
                write(&to.0);
                write(packet);
            }
            Self::NotePreferred(is_home) => write(&[u8::from(*is_home)]),
            Self::PeerGone { peer, reason } => {
                write(&peer.0);
                write(&[reason.0]);
            }
            Self::PeerPresent {
                peer,
                address,
                flags,
            } => {
                write(&peer.0);
                if address.is_some() || flags.is_some() {
                    let address = address.unwrap_or(UNKNOWN_ADDRESS);
                    write(&mapped(address.ip()).octets());
                    write(&address.port().to_be_bytes());
                }
                if let Some(flags) = flags {
                    write(&[flags.0]);
                }
            }
            Self::ClosePeer(key) => write(&key.0),
            Self::Ping(payload) | Self::Pong(payload) => write(payload),
            Self::Health(text) => write(text),
            Self::Restarting {
                reconnect_in_ms,
                try_for_ms,
            } => {
                write(&reconnect_in_ms.to_be_bytes());
                write(&try_for_ms.to_be_bytes());
            }
            Self::KeepAlive | Self::WatchConns | Self::Unknown(_) => {}
        }
        Ok(needed)
    }

    /// The frame's length in bytes, its header counted.
    pub fn encoded_len(&self) -> usize {
        let body = match self {
            Self::ServerKey(_) => MAGIC.len() + KEY_BYTES,
            Self::ClientInfo { sealed, .. } => KEY_BYTES + sealed.len(),
            Self::ServerInfo(sealed) => sealed.len(),
            Self::SendPacket { packet, .. } | Self::RecvPacket { packet, .. } => {
                KEY_BYTES + packet.len()
            }
            Self::ForwardPacket { packet, .. } => 2 * KEY_BYTES + packet.len(),
            Self::NotePreferred(_) => 1,
            Self::PeerGone { .. } => KEY_BYTES + 1,
            Self::PeerPresent { address, flags, .. } => match (address, flags) {
                (_, Some(_)) => KEY_BYTES + ADDRESS_BYTES + 1,
                (Some(_), None) => KEY_BYTES + ADDRESS_BYTES,
                (None, None) => KEY_BYTES,
            },
            Self::ClosePeer(_) => KEY_BYTES,
            Self::Ping(_) | Self::Pong(_) | Self::Restarting { .. } => 8,
            Self::Health(text) => text.len(),
            Self::KeepAlive | Self::WatchConns | Self::Unknown(_) => 0,
        };
        HEADER_BYTES + body
    }

    /// Its kind.
    pub const fn kind(&self) -> FrameKind {
        match self {
            Self::ServerKey(_) => FrameKind::SERVER_KEY,
            Self::ClientInfo { .. } => FrameKind::CLIENT_INFO,
            Self::ServerInfo(_) => FrameKind::SERVER_INFO,
            Self::SendPacket { .. } => FrameKind::SEND_PACKET,
            Self::RecvPacket { .. } => FrameKind::RECV_PACKET,
            Self::ForwardPacket { .. } => FrameKind::FORWARD_PACKET,
            Self::KeepAlive => FrameKind::KEEP_ALIVE,
            Self::NotePreferred(_) => FrameKind::NOTE_PREFERRED,
            Self::PeerGone { .. } => FrameKind::PEER_GONE,
            Self::PeerPresent { .. } => FrameKind::PEER_PRESENT,
            Self::WatchConns => FrameKind::WATCH_CONNS,
            Self::ClosePeer(_) => FrameKind::CLOSE_PEER,
            Self::Ping(_) => FrameKind::PING,
            Self::Pong(_) => FrameKind::PONG,
            Self::Health(_) => FrameKind::HEALTH,
            Self::Restarting { .. } => FrameKind::RESTARTING,
            Self::Unknown(kind) => *kind,
        }
    }
}

/// Bytes of an address and a port.
const ADDRESS_BYTES: usize = 18;

/// What stands where no address is known.
const UNKNOWN_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0);

fn present(peer: PublicKey, rest: &[u8]) -> Frame<'_> {
    let read = || {
        let (ip, rest) = rest.split_first_chunk::<16>()?;
        let (port, rest) = rest.split_first_chunk::<2>()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        let address = SocketAddr::new(ip, u16::from_be_bytes(*port));
        Some((address, rest.first().map(|flags| PresentFlags(*flags))))
    };
    let (address, flags) = match read() {
        Some((address, flags)) => (Some(address), flags),
        None => (None, None),
    };
    Frame::PeerPresent {
        peer,
        address: address.filter(|address| *address != UNKNOWN_ADDRESS),
        flags,
    }
}

/// An IPv4 address as IPv6 writes it (RFC 4291 section 2.5.5.2).
fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Copies `bytes` to the beginning of `out` and returns the rest of it.
fn put<'o>(out: &'o mut [u8], bytes: &[u8]) -> &'o mut [u8] {
    match out.split_at_mut_checked(bytes.len()) {
        Some((here, rest)) => {
            here.copy_from_slice(bytes);
            rest
        }
        None => &mut [],
    }
}

#[cfg(test)]
mod tests;
