//! `altnet-acme`: gets a certificate for a relay from an authority, and renews it (ACME, RFC 8555).
//!
//! A process beside the relay. In: `acme.toml`, and what an authority answers. Out: a folder with the
//! certificate, and while the authority validates by tls-alpn-01 (RFC 8737) with what answers it; the
//! relay looks there ([`altnet_relay::acme`]). Neither talks to the other.
//!
//! Promises: an authority is asked when there is need, ever more rarely while that fails, and not before
//! it says so, whatever is restarted ([`when`]); what the relay finds is whole, and a certificate that
//! holds isn't given up for one that doesn't ([`store`], [`leaf`]).
//!
//! Deliberately absent: other challenges, accounts that an authority's site hands out, revocation.
#![forbid(unsafe_code)]

pub use altnet_service::{debug, error, info, log, privileges, warning};

pub mod cli;
pub mod config;
pub mod http;
pub mod issue;
pub mod leaf;
pub mod serve;
pub mod store;
pub mod trouble;
pub mod when;
