//! The mind of altnet: what to believe, whom to admit, where a packet goes.
//!
//! Bytes, time and entropy come in; bytes, deadlines and facts come out. Nothing here
//! touches a socket, a clock, a random source, a thread or a file, and nothing allocates
//! per packet, timer or query. Every table has a bound given as a value ([`limits::Limits`]).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod audit;
pub mod clock;
pub mod control;
pub mod derp;
pub mod invite;
pub mod ip;
pub mod issuer;
pub mod lan;
pub mod limits;
pub mod mesh;
pub mod names;
pub mod node;
pub mod path;
pub mod policy;
pub mod portmap;
pub mod records;
pub mod registry;
pub mod relay;
pub mod rng;
pub mod selftest;
pub mod split;
pub mod stun;
pub mod turn;
