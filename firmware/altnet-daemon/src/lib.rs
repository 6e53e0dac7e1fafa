//! The hands of altnet on Linux: `altnetd`, the gateway daemon, and `altnet`, its command line.
//!
//! A node's decisions are made in `altnet-core`; this crate carries bytes, time and entropy to
//! it and does what it says: it opens the TUN device and the sockets, tells the kernel about
//! addresses and routes, keeps the state directory, and answers people on a UNIX socket.
//!
//! [`gateway`] is the loop. Everything else is one device each and knows nothing of the others.

pub use altnet_service::{debug, error, info, log, privileges, warning};

pub mod aead;
pub mod api;
pub mod apps;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod derpers;
pub mod dns;
pub mod gateway;
pub mod icmp6;
pub mod igd;
pub mod lines;
pub mod link;
pub mod metrics;
pub mod netlink;
pub mod news;
pub mod portmap;
pub mod store;
pub mod streams;
#[cfg(test)]
mod testing;
pub mod tun;
pub mod turn;
