//! The audit log: what happened here that somebody may have to answer for, so written down that
//! nobody can take it back unseen.
//!
//! In: facts ([`Log::record`]) and time. Out: bytes to append to a segment file, segments to
//! remove, and a [`Link`] for every entry that is on disk ([`Output`]); and, from the files
//! alone, whether they are what was written ([`verify::Verifier`]).
//!
//! ```text
//! segment:  ALTA | version 1 | 0, 0, 0 | first sequence u64 | hash before it 32 | check 16
//!           then entries: length u16 | postcard of Entry | check 16         numbers big-endian
//! digest n = H("altnet audit entry v1", entry n)
//! hash n   = H("altnet audit chain v1", hash n-1, digest n), hash 0 is zero
//! ```
//! An entry's check is the first half of its hash, so that a fault is found at its place; who
//! can change an entry could make that anew too. What can't be made anew is what others hold:
//! the head, a sequence and its hash, is countersigned by other members (`node`, and
//! [`proof::Witnessed`]), and these signatures are entries themselves.
//!
//! Promises: an entry that was changed, removed or moved is found, as long as one after it (or a
//! head somebody holds) is left; files never take more than [`Limits::max_bytes`], the oldest
//! segment going first; what others cause is counted, not written each time, and has a budget,
//! so that nobody can push out what happened before by making much happen now.
//!
//! Deliberately absent: files, clocks, signatures of its own, and any way to take an entry out.

pub mod entry;
pub mod facts;
pub mod proof;
pub mod segment;
mod tally;
pub mod verify;
mod writing;

pub use entry::{Entry, Fact, Kind};
pub use segment::{End, Link};
pub use writing::{Limits, Log, Output};
