//! Claiming a box over its LAN: what a computer and a box that knows nobody yet say to each other.
//!
//! In: frames from the other side, a [`code::Code`], 32 bytes of chance for each pairing. Out: frames, and at the end a
//! [`pairing::Channel`] that both sides have only if both had the same code and read the same bytes. The same inputs give the
//! same outputs: there is no socket, clock or random source here.
//!
//! The order, and who says what (`firmware/docs/adr/0028-claiming.md`): the box says [`hello`]; both prove by SPAKE2 and a confirmation that they have the
//! code ([`pairing`]), the computer first; then the computer sends files and the box says what became of them ([`words`]). How
//! often a code may be tried is [`tries`]; that a try was written down before it is answered is the driver's to do.
#![forbid(unsafe_code)]

extern crate alloc;

pub mod code;
pub mod frame;
pub mod hello;
pub mod key;
pub mod pairing;
pub mod tries;
pub mod words;

/// The TCP port at which a box lets itself be claimed, unless its record says otherwise.
pub const PORT: u16 = 51821;
/// What a box is found by (RFC 6763 section 4.1).
pub const SERVICE: &str = "_altnet-setup._tcp.local";
