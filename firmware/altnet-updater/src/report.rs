//! What there is to say, for people and for programs.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use altnet_update::appliance;
use altnet_update::choice::Slot;
use altnet_update::install::{Progress, Step};
use altnet_update::state::{self, Ended, Pending, Release, Working};
use serde::Serialize;
use serde_json::Value;

use crate::fetch::Url;

mod moment;
mod status;

pub use moment::moment;
pub use status::Status;

/// Of what nobody knows to work.
const NOTHING: &str = "nothing, as far as is known";

/// Something that is said in two ways.
pub trait Report: Serialize {
    /// For people.
    fn text(&self) -> String;

    /// For programs.
    fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

/// A slot, as a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct SlotName(char);

impl From<Slot> for SlotName {
    fn from(slot: Slot) -> Self {
        Self(match slot {
            Slot::A => 'A',
            Slot::B => 'B',
        })
    }
}

/// What of the things that a house needs works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Works {
    wan: bool,
    dns: bool,
    private: bool,
    lan: bool,
}

impl From<Working> for Works {
    fn from(working: Working) -> Self {
        let Working {
            wan,
            dns,
            private,
            lan,
        } = working;
        Self {
            wan,
            dns,
            private,
            lan,
        }
    }
}

impl Works {
    /// Those that work, for people.
    fn list(self) -> String {
        let all = [
            (self.wan, "internet"),
            (self.dns, "names"),
            (self.private, "private network"),
            (self.lan, "the house's side"),
        ];
        let works: Vec<&str> = all.iter().filter(|one| one.0).map(|one| one.1).collect();
        match works.is_empty() {
            true => NOTHING.to_owned(),
            false => works.join(", "),
        }
    }

    fn is_empty(self) -> bool {
        !(self.wan || self.dns || self.private || self.lan)
    }

    /// Those of them that don't work now.
    fn missing(self, now: Self) -> Self {
        Self {
            wan: self.wan && !now.wan,
            dns: self.dns && !now.dns,
            private: self.private && !now.private,
            lan: self.lan && !now.lan,
        }
    }
}

/// What became of a release that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    slot: SlotName,
    version: String,
    ended: &'static str,
    /// What worked in it when it was left.
    working: Option<Works>,
}

impl From<&state::Outcome> for Outcome {
    fn from(outcome: &state::Outcome) -> Self {
        let (ended, working) = match outcome.ended {
            Ended::Confirmed => ("confirmed", None),
            Ended::ConfirmedByHand => ("confirmed-by-hand", None),
            Ended::NeverCameUp => ("never-came-up", None),
            Ended::DidNotWork { working } => ("did-not-work", Some(working.into())),
            Ended::WorkedBefore => ("worked-before", None),
            Ended::RolledBack => ("rolled-back", None),
            Ended::Left => ("left", None),
        };
        Self {
            slot: outcome.slot.into(),
            version: outcome.version.to_string(),
            ended,
            working,
        }
    }
}

impl Outcome {
    fn sentence(&self) -> String {
        let what = match self.ended {
            "confirmed" => "is the good one: what worked before works".to_owned(),
            "confirmed-by-hand" => "is the good one, by a person's word".to_owned(),
            "never-came-up" => "never came up, and was left".to_owned(),
            "did-not-work" => {
                let working = self.working.map_or_else(|| NOTHING.to_owned(), Works::list);
                format!("was left; what worked in it: {working}")
            }
            "worked-before" => {
                "was left: what didn't work in it worked in the slot from before".to_owned()
            }
            "rolled-back" => "was left by a person".to_owned(),
            _ => "was left before it was known whether it is good".to_owned(),
        };
        format!("{} in slot {} {what}", self.version, self.slot.0)
    }
}

impl Report for Outcome {
    fn text(&self) -> String {
        format!("{}\n", self.sentence())
    }
}

/// A slot that was chosen by a person.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Chosen {
    /// Which is booted next, and stays.
    pub slot: SlotName,
}

impl Report for Chosen {
    fn text(&self) -> String {
        let slot = self.slot.0;
        format!("Slot {slot} is booted next, and stays the one that is booted.\n")
    }
}

/// A release that was installed.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    version: String,
    counter: u64,
    slot: SlotName,
    /// What has to work in it.
    before: Works,
}

impl Installed {
    /// What is said of a release in a slot.
    pub fn new(release: &Release, slot: Slot, before: Working) -> Self {
        Self {
            version: release.version.to_string(),
            counter: release.counter,
            slot: slot.into(),
            before: before.into(),
        }
    }
}

impl Report for Installed {
    fn text(&self) -> String {
        let (version, slot, works) = (&self.version, self.slot.0, self.before.list());
        format!(
            "Release {version} is in slot {slot}, which is booted next. What worked before: {works}. When that works there for a minute it is the good one; if it doesn't, this one is booted again.\n"
        )
    }
}

/// A bundle that a folder has for this box.
#[derive(Clone, Debug, Serialize)]
pub struct Offered {
    from: Url,
    version: String,
    board: String,
    counter: u64,
    made: String,
    not_after: String,
    /// Of its frames.
    bytes: u64,
    /// `newer` than the release that runs, the `same`, or `older`.
    order: &'static str,
    /// Whether it would be installed.
    is_taken: bool,
    /// Why not.
    why: Option<String>,
    next_step: String,
}

impl Offered {
    /// What is said of an offer to a box in whose other slot `pending` waits.
    pub fn new(from: &Url, offer: &appliance::Offer, pending: Option<&Pending>) -> Self {
        let order = match offer.order {
            Ordering::Greater => "newer",
            Ordering::Equal => "same",
            Ordering::Less => "older",
        };
        let next_step = match &offer.verdict {
            Err(refusal) => refusal.next_step(),
            Ok(_) if pending.is_some_and(|pending| pending.release.counter == offer.counter) => {
                "It is installed already: `altnet update status` says what it waits for."
            }
            Ok(_) if offer.is_news() => "Install it with: altnet update install",
            Ok(_) => "There is nothing to do.",
        };
        Self {
            from: from.clone(),
            version: offer.version.to_string(),
            board: offer.board.to_string(),
            counter: offer.counter,
            made: offer.made.to_string(),
            not_after: offer.not_after.to_string(),
            bytes: offer.packed_bytes,
            order,
            is_taken: offer.verdict.is_ok(),
            why: offer.verdict.as_ref().err().map(ToString::to_string),
            next_step: next_step.to_owned(),
        }
    }
}

impl Report for Offered {
    fn text(&self) -> String {
        let order = match self.order {
            "newer" => "newer than the release that runs",
            "same" => "the release that runs",
            _ => "older than the release that runs",
        };
        let mut text = format!(
            "{}: release {} for {} (counter {}, made {}, {} bytes), {order}\n",
            self.from, self.version, self.board, self.counter, self.made, self.bytes
        );
        if let Some(why) = &self.why {
            let _ = writeln!(text, "It is refused: {why}.");
        }
        text.push_str(&self.next_step);
        text.push('\n');
        text
    }
}

/// Shows how far an installation is, on standard error: on a terminal by percent, elsewhere a line for each quarter.
#[derive(Debug, Default)]
pub struct Progressing {
    said: Option<(bool, u64)>,
}

impl Progressing {
    /// Shows it, if there is something new.
    pub fn show(&mut self, progress: Progress) {
        let is_terminal = std::io::stderr().is_terminal();
        let is_check = progress.step == Step::Checking;
        let percent = progress.done_bytes * 100 / progress.of_bytes.max(1);
        let shown = if is_terminal {
            percent
        } else {
            percent / 25 * 25
        };
        if self.said == Some((is_check, shown)) {
            return;
        }
        self.said = Some((is_check, shown));
        let what = if is_check { "reading back" } else { "writing" };
        let (begin, end) = match is_terminal {
            true if is_check && percent == 100 => ("\r", "\n"),
            true => ("\r", ""),
            false => ("", "\n"),
        };
        // A closed standard error is no reason to stop.
        let _ = write!(std::io::stderr(), "{begin}{what:<12} {shown:>3} %{end}");
    }
}
