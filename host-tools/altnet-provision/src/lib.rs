//! Networks, identities, invites, bundles, backups, and cards and packages for boxes, on a person's computer.
//!
//! This library is what `altnet-provision` does without a terminal, so that other tools (a
//! dashboard, a flasher) can do the same. [`network::Network`] is the way in: it makes and opens
//! a network's directory; everything else hangs off it. In: names, wishes, a passphrase, the
//! time. Out: signed records, links, bundles, and what a person should know.
//!
//! It promises that a failed call has changed nothing, that a power cut leaves the state before
//! or after a call, and that secrets are on disk only encrypted and in memory only until they
//! are dropped. It asks nothing of a terminal and prints nothing.
#![forbid(unsafe_code)]

mod chance;
pub mod claim;
pub mod directory;
pub mod drives;
pub mod error;
pub mod files;
pub mod home;
pub mod image;
pub mod network;
pub mod openwrt;
pub mod policy;
pub mod qr;
pub mod recovery;
pub mod release;
pub mod rescue;
pub mod sealed;
pub mod secrets;
pub mod settings;
pub mod text;
pub mod x509;

pub use error::{Error, Result};
