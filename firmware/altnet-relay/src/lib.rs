//! Relaying over TLS on Linux: a DERP server that serves Tailscale's clients too, and a client's
//! connection to any DERP server.
//!
//! The machines of `altnet_core::derp` decide; this crate moves their bytes: TCP, TLS 1.3, the few
//! lines of HTTP by which DERP begins, queues, certificates, and HTTP proxies.
//!
//! Most clients of a relay are idle. One that is keeps its TLS session, its place in the tables and a
//! sleeping task: no buffer, in or out. TLS is rustls without its own buffers, so that a packet is
//! copied into a connection's queue, from there sealed into what is written, and no more.
//!
//! [`server`] and [`client`] are the two sides; [`certificate`] is what a server shows, [`acme`] how one
//! that an authority signed comes to it, [`stun`] what it answers beside.
#![forbid(unsafe_code)]

pub mod acme;
pub mod certificate;
pub mod client;
mod clock;
mod http;
pub mod keys;
mod line;
mod pool;
pub mod proxy;
mod queue;
pub mod server;
pub mod stun;
mod tls;
pub mod trust;
