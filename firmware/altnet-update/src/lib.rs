//! Updates of the appliance: bundles that are signed, two slots, and the choice between them.
//!
//! In: a bundle as a stream of bytes, the disks behind [`disk::Disk`], the time if it is known, and
//! facts about what works. Out: a slot that is whole, a choice that the boot loader follows, and what
//! a person should know. The library opens no connection and reads no clock.
//!
//! What it promises: nothing is written that isn't signed by enough release keys; whatever write a
//! power cut ends, the boot loader finds a slot that works ([`install`]); and a new slot becomes the
//! good one when what worked before works again, not before ([`confirm`]).
//!
//! What it doesn't do: fetch a bundle, reboot, or find out whether the WAN works. The files of a real
//! box are in [`appliance`]; why it is as it is, in `docs/adr/0025-updates.md`.
#![forbid(unsafe_code)]

pub mod appliance;
pub mod bundle;
pub mod choice;
pub mod confirm;
pub mod disk;
pub mod install;
pub mod keys;
pub mod make;
pub mod manifest;
pub mod state;
pub mod verdict;

#[cfg(test)]
mod testing;
