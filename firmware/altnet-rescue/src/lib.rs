//! `altnet-rescue`: what a box does that can't boot, or that somebody holds the button of.
//!
//! In: requests on the LAN ([`head`], [`body`]), a button ([`button`]), the kernel's log ([`kernel`]). Out: one page
//! ([`page`]), a release in the other slot ([`serve`]), the exit code by which the initial RAM disk knows what comes next.
//!
//! What it promises: nothing is installed but what [`altnet_update`] takes; whatever the LAN sends costs bounded memory and
//! a bounded time; a factory reset comes from the button and never from the LAN. What it doesn't do: bring interfaces up,
//! boot, or wipe; scripts of the image do. Why it is so: `docs/adr/0029-beginning-anew.md`.
#![forbid(unsafe_code)]

pub mod body;
pub mod button;
pub mod cli;
pub mod head;
pub mod kernel;
pub mod page;
pub mod serve;
