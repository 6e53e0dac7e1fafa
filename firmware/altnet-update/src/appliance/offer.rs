//! What a bundle's head says, and what a box makes of it.

use std::cmp::Ordering;
use std::io::Read;

use altnet_wire::time::UnixTime;

use super::Image;
use crate::bundle::Opened;
use crate::manifest::Label;
use crate::verdict::{Approval, Here, Refusal, judge};

/// What is known of the calendar when a bundle is judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calendar {
    /// What the clock says, if there is one. One that says less than what is certain is taken for one that was never
    /// set.
    pub now: Option<UnixTime>,
    /// What owners and issuers of the network signed last: it is no earlier.
    pub floor: UnixTime,
}

/// A bundle that somebody offers, as its head has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// For people.
    pub version: Label,
    /// The board it is for.
    pub board: Label,
    /// As in its manifest.
    pub counter: u64,
    /// When it was signed.
    pub made: UnixTime,
    /// Until when it can be installed.
    pub not_after: UnixTime,
    /// Bytes of its frames: what is to be fetched beside the head.
    pub packed_bytes: u64,
    /// Newer than the release that runs, the same, or older.
    pub order: Ordering,
    /// Whose word it is, or why it isn't taken.
    pub verdict: Result<Approval, Refusal>,
}

impl Offer {
    pub(super) fn judge<R: Read>(opened: &Opened<R>, here: &Here<'_>, image: &Image) -> Self {
        let manifest = opened.manifest();
        Self {
            version: manifest.version.clone(),
            board: manifest.board.clone(),
            counter: manifest.counter,
            made: manifest.made,
            not_after: manifest.not_after,
            packed_bytes: manifest.packed_bytes(),
            order: manifest.counter.cmp(&image.counter),
            verdict: judge(manifest, opened.manifest_bytes(), opened.signatures(), here),
        }
    }

    /// Whether it is worth installing: it is taken here, and newer than what runs.
    pub fn is_news(&self) -> bool {
        self.verdict.is_ok() && self.order == Ordering::Greater
    }
}
