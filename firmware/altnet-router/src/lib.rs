//! The router of a house, thought out: what `[router]` of `altnet.toml` means on a board, and what there has to be
//! for it.
//!
//! In: the file ([`config::Router`]), the board's ports ([`board::Ports`]) and what the world said
//! ([`plan::World`]). Out: a [`plan::Plan`], which is data: links, addresses, routes, one nftables script, and the
//! files and command lines of other people's daemons. The same inputs give the same plan.
//!
//! Nothing in the modules below does I/O, reads a clock or draws randomness, but for [`hands`], which carry a plan out as
//! [`machine`] wishes.

#![deny(unsafe_code)]

pub mod board;
pub mod config;
pub mod hands;
pub mod house;
pub mod machine;
pub mod plan;
pub mod ruleset;
pub mod services;
