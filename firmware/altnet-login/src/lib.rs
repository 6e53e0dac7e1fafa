//! The gateway's login page (ADR 0008): a device without software is bound to a person for a time.
//!
//! In: what a browser on the LAN sends, and what directories answer. Out: `login` and `logout` to
//! altnetd, which decides nothing by whom it is asked but by what the network's policy lets this
//! gateway say.

pub mod directory;
mod http_get;
pub mod ldap;
pub mod pki;
