//! `altnet-update`: what a person does about the releases of the box that it runs on.
//!
//! In: a bundle, as a file, a stream or the address of one, and what the router says works ([`altnet_router::hands::look`]).
//! Out: a slot that is whole and chosen ([`altnet_update`]), and what people want to know about it. `altnet update` is the
//! same words ([`words`]) and hands over to this program, which is only where there are slots: so TLS and the
//! decompressor take no flash from devices that have none.
//!
//! Whose word is taken is the bundle's affair and not the server's: over plain HTTP nobody can change what is installed.
//! A server costs a bounded time and bounded memory, whatever it sends ([`fetch`]).
#![forbid(unsafe_code)]

pub mod act;
pub mod cli;
pub mod config;
pub mod fetch;
pub mod report;
pub mod words;
