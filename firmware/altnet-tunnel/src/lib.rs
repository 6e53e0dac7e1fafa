//! The seal of altnet: a complete WireGuard endpoint that touches no socket, clock, random
//! source or thread.
//!
//! It speaks the protocol of J. A. Donenfeld, "WireGuard: Next Generation Kernel Network
//! Tunnel" (NDSS 2017, revision of 2020), with any implementation, in both roles, with any
//! number of static keys of its own behind one port.
//!
//! ```text
//!                 seal(peer, frame)                handle_datagram(from, frame)
//!   IP packets ─────────────────────▶ ┌────────┐ ◀───────────────────────────── datagrams
//!   time       ── handle_timeout ───▶ │ Engine │
//!   entropy, calendar, "saved" ─────▶ └────────┘ ── poll_output ──▶ Transmit │ Event │ Wait
//! ```
//!
//! | module | idea |
//! |---|---|
//! | [`engine`] | peers, timers, rekeys, load: everything that decides |
//! | [`session`] | the halves of a session, which worker threads can hold |
//! | [`counter`] | the one counter of a sending key, handed out in disjoint ranges |
//! | [`replay`] | which counters were seen (RFC 6479) |
//! | [`handshake`] | Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s |
//! | [`cookie`] | mac1, mac2, cookies |
//! | [`message`] | the four messages, byte by byte |
//! | [`tai64n`] | stamps that never repeat, with or without a calendar |
//! | [`aead`] | the cipher behind a trait, and the portable one |
//! | [`key`], [`random`] | secrets that are wiped, and where they come from |
//!
//! # A driver
//!
//! ```
//! use altnet_tunnel::aead::ChaChaPoly;
//! use altnet_tunnel::engine::{Engine, EngineLimits, Output, PeerConfig, TunnelEvent};
//! use altnet_tunnel::key::TunnelSecret;
//! use altnet_tunnel::tai64n::Tai64n;
//! use altnet_wire::endpoint::Endpoint;
//! use altnet_wire::frame::{FRAME_BYTES, Frame};
//! use altnet_wire::time::Instant;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = Instant::ZERO;
//! let mut engine = Engine::<ChaChaPoly>::new(EngineLimits::MICRO, [7; 32]);
//! let local = engine.add_local_key(TunnelSecret::new([1; 32]), Tai64n::ZERO)?;
//! let mut config = PeerConfig::new(TunnelSecret::new([2; 32]).public(), local);
//! config.endpoint = Some(Endpoint::Direct("192.0.2.1:51820".parse()?));
//! let peer = engine.add_peer(config, now)?;
//! engine.rekey(peer, now)?;
//!
//! let mut buffer = [0; FRAME_BYTES];
//! let mut frame = Frame::new(&mut buffer);
//! let mut sent = 0;
//! let deadline = loop {
//!     match engine.poll_output(&mut frame, now) {
//!         Output::Transmit { .. } => sent += 1, // socket.send_to(frame.packet(), to)
//!         Output::Event(TunnelEvent::SaveStamps { local, until }) => {
//!             engine.stamps_saved(local, until); // after writing `until` to disk
//!         }
//!         Output::Event(_) => {}
//!         Output::Wait(deadline) => break deadline,
//!     }
//! };
//! assert_eq!(sent, 1, "an initiation left");
//! assert!(deadline > now, "and will be repeated if nobody answers");
//! # Ok(())
//! # }
//! ```
//!
//! # Memory
//!
//! Tables are bounded by [`engine::EngineLimits`]. Packets and timers allocate nothing. A
//! handshake that succeeds allocates one session (its two keys and a replay window, about
//! `replay_window / 8 + 200` bytes). A peer has one or two, five at most while both sides keep
//! asking at once.
//!
//! # Secrets
//!
//! Private keys, pre-shared keys, chaining keys, session keys and cookies are wiped when they
//! are dropped, sessions as soon as they are 180 seconds old. What hash functions and
//! curve arithmetic leave on the stack is not.
#![no_std]
#![forbid(unsafe_code)]
extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod aead;
pub mod cookie;
pub mod counter;
pub mod engine;
pub mod handshake;
pub mod key;
pub mod message;
pub mod random;
pub mod replay;
pub mod session;
pub mod tai64n;

#[cfg(test)]
mod tests {
    use zeroize::ZeroizeOnDrop;

    use crate::aead::ChaChaPoly;
    use crate::engine::Engine;
    use crate::session::{RecvSession, SendSession};

    /// Each call is the proof: it compiles only if the type keeps the promise.
    #[test]
    fn secrets_are_wiped_and_sessions_can_cross_threads() {
        fn wiped<T: ZeroizeOnDrop>() {}
        fn shared<T: Send + Sync>() {}
        wiped::<crate::key::TunnelSecret>();
        wiped::<crate::key::PresharedKey>();
        wiped::<crate::random::Random>();
        wiped::<crate::cookie::MacKeys>();
        wiped::<crate::cookie::CookieJar>();
        wiped::<crate::cookie::CookieMaker>();
        wiped::<crate::handshake::TransportKeys>();
        wiped::<crate::handshake::Initiator>();
        wiped::<chacha20poly1305::ChaCha20Poly1305>();
        shared::<SendSession<ChaChaPoly>>();
        shared::<RecvSession<ChaChaPoly>>();
        shared::<Engine<ChaChaPoly>>();
    }
}
