//! The gateway's login page (ADR 0008): a device without software is bound to a person for a time.
//!
//! In: what a browser on the LAN sends, and what directories answer. Out: `login` and `logout` to
//! altnetd, which decides nothing by whom it is asked but by what the network's policy lets this
//! gateway say.

pub use altnet_service::{debug, error, info, log, privileges, warning};

pub mod api;
pub mod cli;
pub mod codes;
pub mod config;
pub mod directory;
pub mod firebase;
pub mod http;
mod http_get;
pub mod jwt;
pub mod keys;
pub mod ldap;
pub mod oidc;
pub mod passkey;
pub mod pki;
pub mod sessions;
pub mod source;
pub mod state;
pub mod untrusted;
pub mod web;
