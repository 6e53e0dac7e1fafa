//! A client's side of a connection to a relay.
//!
//! In: the frames that the relay wrote, packets to send, the time. Out: what happened, frames to write
//! ([`Client::poll_transmit`]), and until when the relay has to be heard of.
//! Promises: a packet is never copied here; what may wait to be written besides packets is one frame
//! of each kind.
//!
//! Deliberately absent: TLS, HTTP, connecting again, and which relay to use.
//!
//! Source: `derp/derp_client.go` of Tailscale.

use altnet_wire::derp::info::{ClientInfo, ServerInfo};
use altnet_wire::derp::split::RawFrame;
use altnet_wire::derp::{
    BadFrame, Frame, FrameKind, GoneReason, HEADER_BYTES, MAX_PACKET_BYTES, NONCE_BYTES,
    PACKET_PREFIX_BYTES, PresentFlags, PublicKey, SILENCE, VERSION, packet_prefix,
};
use altnet_wire::time::{Duration, Instant};
use core::net::SocketAddr;

use super::boxes::{SecretKey, SharedKey};
use super::handshake::{self, HANDSHAKE_S, HandshakeError, MAX_INTRODUCTION_BYTES};
use super::rate::{Bucket, Rate};
use crate::rng::Rng;

/// The longest frame that [`Client::poll_transmit`] writes, in bytes.
pub const MAX_TRANSMIT_BYTES: usize = MAX_INTRODUCTION_BYTES;

/// Why a connection is of no use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The relay didn't show who it is, or wrote what isn't understood.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// A frame isn't one.
    #[error(transparent)]
    BadFrame(#[from] BadFrame),
    /// Another relay answers than the one that was meant.
    #[error("the relay's key is {found}, not {expected}")]
    OtherServer {
        /// The key that was meant.
        expected: PublicKey,
        /// The key that it has.
        found: PublicKey,
    },
    /// Nothing was heard for too long.
    #[error("the relay is silent")]
    Silent,
}

/// Why a packet isn't sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The relay hasn't greeted yet.
    #[error("the relay hasn't greeted yet")]
    TooEarly,
    /// The packet is too large.
    #[error("a packet of {found} bytes is too large for a relay")]
    TooLarge {
        /// Its length.
        found: usize,
    },
    /// The relay said that it accepts no more now.
    #[error("the relay accepts no more for now")]
    TooFast,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The relay has greeted: packets can be sent.
    Greeted(PublicKey),
    /// The relay admitted us.
    Admitted(ServerInfo),
    /// A packet came.
    Packet {
        /// From this client; the relay alone vouches for it.
        from: PublicKey,
        /// The packet.
        packet: &'a [u8],
    },
    /// A peer isn't connected to this relay.
    PeerGone {
        /// The peer.
        peer: PublicKey,
        /// Why.
        reason: GoneReason,
    },
    /// A peer is connected; only mesh peers that watch are told.
    PeerPresent {
        /// The peer.
        peer: PublicKey,
        /// Where it connects from.
        address: Option<SocketAddr>,
        /// What is told of it.
        flags: Option<PresentFlags>,
    },
    /// Our ping was answered.
    Pong {
        /// How long it took.
        took: Duration,
    },
    /// What is wrong with our connection; nothing if it is well again.
    Health(&'a [u8]),
    /// The relay restarts.
    Restarting {
        /// When to connect again.
        reconnect_in: Duration,
        /// How long to try.
        try_for: Duration,
    },
}

/// How far it is.
#[derive(Debug)]
enum Stage {
    /// The relay hasn't greeted yet.
    New,
    /// The relay greeted; the introduction is to be written, or is on its way.
    Greeted {
        server: PublicKey,
        shared: SharedKey,
        is_introduced: bool,
    },
    /// The relay admitted us.
    Open { server: PublicKey },
}

/// A client.
#[derive(Debug)]
pub struct Client {
    secret: SecretKey,
    public: PublicKey,
    info: ClientInfo,
    expected: Option<PublicKey>,
    stage: Stage,
    rng: Rng,
    heard_at: Instant,
    rate: Rate,
    bucket: Bucket,
    preferred: Option<bool>,
    wants_to_watch: bool,
    pong: Option<[u8; 8]>,
    ping: Option<[u8; 8]>,
    pinged: Option<([u8; 8], Instant)>,
}

impl Client {
    /// A client whose connection was just made, and that says `info` of itself, but for the version.
    /// With `expected` no other relay will do.
    pub fn new(
        secret: SecretKey,
        info: ClientInfo,
        expected: Option<PublicKey>,
        seed: [u8; 32],
        now: Instant,
    ) -> Self {
        let public = secret.public();
        let version = VERSION;
        Self {
            secret,
            public,
            info: ClientInfo { version, ..info },
            expected,
            stage: Stage::New,
            rng: Rng::new(seed),
            heard_at: now,
            rate: Rate::NONE,
            bucket: Bucket::default(),
            preferred: None,
            wants_to_watch: false,
            pong: None,
            ping: None,
            pinged: None,
        }
    }

    /// What the relay knows us by.
    pub const fn public(&self) -> PublicKey {
        self.public
    }

    /// The relay's key, once it has greeted or was told otherwise.
    pub const fn server(&self) -> Option<PublicKey> {
        match &self.stage {
            Stage::New => None,
            Stage::Greeted { server, .. } | Stage::Open { server } => Some(*server),
        }
    }

    /// Takes the relay's key from elsewhere, such as its certificate, so that its greeting needn't be
    /// waited for (`Derp-Fast-Start`). It then greets nevertheless, and that is passed over.
    ///
    /// # Errors
    /// [`ClientError::OtherServer`], and [`ClientError::Handshake`] of a key that is none.
    pub fn handle_server_key(&mut self, server: PublicKey) -> Result<(), ClientError> {
        if let Some(expected) = self.expected.filter(|expected| *expected != server) {
            let found = server;
            return Err(ClientError::OtherServer { expected, found });
        }
        if matches!(self.stage, Stage::New) {
            let not_proven = HandshakeError::NotProven { key: server };
            let shared = self.secret.shared(&server).ok_or(not_proven)?;
            self.stage = Stage::Greeted {
                server,
                shared,
                is_introduced: false,
            };
        }
        Ok(())
    }

    /// Takes a frame that the relay wrote.
    ///
    /// # Errors
    /// [`ClientError`]; the connection is of no use any more.
    pub fn handle_frame<'a>(
        &mut self,
        raw: RawFrame<'a>,
        now: Instant,
    ) -> Result<Option<Event<'a>>, ClientError> {
        self.heard_at = self.heard_at.max(now);
        if let Stage::New = self.stage {
            let Frame::ServerKey(server) = Frame::parse(raw.kind, raw.body)? else {
                let found = raw.kind.0;
                return Err(HandshakeError::Unexpected { found }.into());
            };
            self.handle_server_key(server)?;
            return Ok(Some(Event::Greeted(server)));
        }
        if raw.kind == FrameKind::SERVER_INFO {
            return self.handle_server_info(raw).map(Some);
        }
        // What is too short is passed over, as Tailscale's client does.
        let Ok(frame) = Frame::parse(raw.kind, raw.body) else {
            return Ok(None);
        };
        Ok(match frame {
            Frame::RecvPacket { from, packet } => Some(Event::Packet { from, packet }),
            Frame::PeerGone { peer, reason } => Some(Event::PeerGone { peer, reason }),
            Frame::PeerPresent {
                peer,
                address,
                flags,
            } => Some(Event::PeerPresent {
                peer,
                address,
                flags,
            }),
            Frame::Ping(payload) => {
                self.pong = Some(payload);
                None
            }
            Frame::Pong(payload) => match self.pinged {
                Some((expected, at)) if expected == payload => {
                    self.pinged = None;
                    let took = now.saturating_since(at);
                    Some(Event::Pong { took })
                }
                _ => None,
            },
            Frame::Health(problem) => Some(Event::Health(problem)),
            Frame::Restarting {
                reconnect_in_ms,
                try_for_ms,
            } => Some(Event::Restarting {
                reconnect_in: Duration::from_millis(reconnect_in_ms.into()),
                try_for: Duration::from_millis(try_for_ms.into()),
            }),
            _ => None,
        })
    }

    fn handle_server_info(&mut self, raw: RawFrame<'_>) -> Result<Event<'static>, ClientError> {
        let Stage::Greeted { server, shared, .. } = &self.stage else {
            let found = raw.kind.0;
            return Err(HandshakeError::Unexpected { found }.into());
        };
        let server = *server;
        let info = handshake::admitted(server, shared, raw)?;
        self.rate = Rate {
            per_s: info.rate_bytes_per_s,
            burst: info.burst_bytes,
        };
        self.stage = Stage::Open { server };
        Ok(Event::Admitted(info))
    }

    /// What goes before a packet of `length` bytes for `to`; the packet is to be written behind it.
    ///
    /// # Errors
    /// [`NotSent`]; nothing is to be written.
    pub fn send(
        &mut self,
        to: &PublicKey,
        length: usize,
        now: Instant,
    ) -> Result<[u8; PACKET_PREFIX_BYTES], NotSent> {
        if matches!(self.stage, Stage::New) {
            return Err(NotSent::TooEarly);
        }
        if length > MAX_PACKET_BYTES {
            return Err(NotSent::TooLarge { found: length });
        }
        let bytes = u32::try_from(PACKET_PREFIX_BYTES + length).unwrap_or(u32::MAX);
        if !self.bucket.try_take(self.rate, bytes, now) {
            return Err(NotSent::TooFast);
        }
        Ok(packet_prefix(FrameKind::SEND_PACKET, to, length))
    }

    /// Says whether this relay is our home.
    pub const fn note_preferred(&mut self, is_preferred: bool) {
        self.preferred = Some(is_preferred);
    }

    /// Asks who comes and goes. A relay that doesn't take us for a mesh peer closes the connection.
    pub const fn watch(&mut self) {
        self.wants_to_watch = true;
    }

    /// Asks the relay for a sign of life; [`Event::Pong`] follows.
    pub fn ping(&mut self, now: Instant) {
        let payload = self.rng.array();
        self.ping = Some(payload);
        self.pinged = Some((payload, now));
    }

    /// Writes the next frame that waits, and returns its length; `None` if none does.
    ///
    /// To be called after every input until then, with [`MAX_TRANSMIT_BYTES`] of room, and before
    /// packets are written.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<usize> {
        if let Stage::Greeted {
            shared,
            is_introduced,
            ..
        } = &mut self.stage
            && !*is_introduced
        {
            let nonce: [u8; NONCE_BYTES] = self.rng.array();
            *is_introduced = true;
            return handshake::introduction(self.public, shared, &self.info, &nonce, out).ok();
        }
        if matches!(self.stage, Stage::New) {
            return None;
        }
        let frame = if let Some(is_preferred) = self.preferred.take() {
            Frame::NotePreferred(is_preferred)
        } else if core::mem::take(&mut self.wants_to_watch) {
            Frame::WatchConns
        } else if let Some(payload) = self.pong.take() {
            Frame::Pong(payload)
        } else {
            Frame::Ping(self.ping.take()?)
        };
        frame.encode(out).ok()
    }

    /// When the relay has to have been heard of.
    pub fn deadline(&self) -> Instant {
        let patience = match self.stage {
            Stage::Open { .. } => SILENCE,
            _ => Duration::from_secs(HANDSHAKE_S.into()),
        };
        self.heard_at.after(patience)
    }

    /// Notes that time went by.
    ///
    /// # Errors
    /// [`ClientError::Silent`].
    pub fn handle_timeout(&self, now: Instant) -> Result<(), ClientError> {
        if now >= self.deadline() {
            return Err(ClientError::Silent);
        }
        Ok(())
    }
}

/// Frames that wait fit into what [`Client::poll_transmit`] is given.
const _: () = assert!(MAX_TRANSMIT_BYTES >= HEADER_BYTES + 8);
