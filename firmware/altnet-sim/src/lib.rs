//! A pretend internet: nodes of `altnet-core`, NATs after RFC 4787, delay, loss and power cuts,
//! in virtual time, from one seed.
//!
//! A test makes a [`world::World`], puts nodes in it, lets time pass and looks at what was
//! delivered, told and stored. The same seed gives the same run. For tests only.
//!
//! Deliberately absent: what only a real kernel can show. That is climbed to in `hil-tests`.
#![forbid(unsafe_code)]

pub mod chaos;
pub mod founder;
pub mod grid;
pub mod homes;
pub mod idle;
pub mod meshes;
pub mod nat;
pub mod net;
pub mod packet;
pub mod rules;
pub mod world;
