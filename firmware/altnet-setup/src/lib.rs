//! `altnet-setup`: a box that is in no network and has no bundle offers itself on its LAN.
//!
//! In: the LAN's interfaces, and whoever connects there. Out: a page that says what to do ([`page`]), answers by mDNS ([`mdns`]), and for
//! who has the code a pairing ([`altnet_claim`]), whose files go the way of those of a first boot. What is open when, is
//! [`offer`]'s to say.
//!
//! There are two processes. The one with the sockets ([`serve`]) has no privileges and no files; the other one ([`hands`]) is
//! root, counts tries, keeps the key and runs `altnet-first-boot`. They talk by a pipe ([`pipe`]). Why: `firmware/docs/adr/0028-claiming.md`.
#![forbid(unsafe_code)]

pub mod cli;
pub mod hands;
pub mod kept;
pub mod mdns;
pub mod offer;
pub mod page;
pub mod pair;
pub mod pipe;
pub mod serve;
