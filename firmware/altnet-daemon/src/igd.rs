//! UPnP-IGD: a port of a router that is asked over HTTP and XML.
//!
//! In: an [`Ask`](altnet_core::portmap::Ask) about the default gateway. Out: what it
//! [`Said`](altnet_core::portmap::Said). The words are pure functions, each with its bounds:
//! [`ssdp`] finds the device, [`location`] keeps to the gateway's own address, [`description`]
//! finds the service, [`soap`] writes calls and reads answers, [`dialogue`] knows what to call
//! next and what devices get wrong. [`client`] carries them over sockets.
//!
//! A router's answers are as trustworthy as whoever is on the LAN: whatever they say, nothing is
//! asked but of the gateway, nothing is read past [`MAX_BYTES`], and a mapping is only an address
//! to be tried by peers who check who answers there.
//!
//! Deliberately absent: UPnP events, IPv6 firewall control (PCP does that), devices that are not
//! the default gateway.
//!
//! Source: UPnP Device Architecture 1.1, UPnP Forum WANIPConnection:1, :2 and WANPPPConnection:1.

pub mod client;
pub mod description;
pub mod dialogue;
pub mod http;
pub mod location;
pub mod soap;
pub mod ssdp;
pub mod xml;

/// The most that is read of one answer, in bytes. Descriptions have 3 to 20 KB.
pub const MAX_BYTES: usize = 64 * 1024;
