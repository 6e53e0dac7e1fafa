//! The words of altnet: what nodes say to each other and what they are called.
//!
//! Bytes become checked types here, once, at the edge; nothing in this crate touches a
//! socket, a clock, a random source or a heap. Wire types are plain data: `encode` and
//! `decode` stand side by side. Signatures are carried here and judged in `altnet-core`.
//!
//! The protocol these types speak is drawn on one page in `firmware/docs/wire.md`.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod address;
pub mod audit;
pub mod canonical;
pub mod control;
pub mod derp;
pub mod echo;
pub mod endpoint;
pub mod envelope;
pub mod frame;
pub mod hash;
pub mod id;
pub mod knock;
pub mod mesh;
pub mod message;
pub mod policy;
pub mod portmap;
pub mod record;
pub mod relay;
pub mod split;
pub mod stun;
pub mod time;
pub mod tls;
