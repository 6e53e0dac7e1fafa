//! How a box's releases are.

use std::fmt::Write as _;

use altnet_router::hands::look::Look;
use altnet_update::appliance;
use altnet_update::choice::Slot;
use altnet_update::confirm::Limits;
use altnet_update::state::{Pending, Phase};
use serde::Serialize;

use super::{Outcome, Report, SlotName, Works};

/// How a box's releases are.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    product: String,
    board: String,
    version: String,
    counter: u64,
    /// When it was made.
    built: String,
    /// Releases below are refused.
    floor: u64,
    /// The slot that runs.
    slot: SlotName,
    /// The one that is begun next.
    next: SlotName,
    /// How often each may still be begun.
    tries: Tries,
    /// Which copies of the choice are good.
    copies: [bool; 2],
    /// Whether the other slot holds a release.
    has_way_back: bool,
    /// The slot that is being written, or whose installation was cut off.
    writing: Option<SlotName>,
    pending: Option<Waiting>,
    last: Option<Outcome>,
    /// Why what was kept doesn't count.
    damage: Option<String>,
    /// What comes next.
    expected: String,
}

/// How often a slot may still be begun.
#[derive(Clone, Copy, Debug, Serialize)]
struct Tries {
    a: u8,
    b: u8,
}

/// A release that waits to be confirmed.
#[derive(Clone, Debug, Serialize)]
struct Waiting {
    slot: SlotName,
    version: String,
    counter: u64,
    /// `boot`: for its first boot; `tried`: it runs; `asked`: the slot from before is asked; `outside`: until what fails
    /// outside is over.
    phase: &'static str,
    /// What worked before.
    before: Works,
    /// Seconds that count against it.
    charged_s: u32,
    /// Of so many.
    of_s: u32,
    /// How often it was doubted and tried again.
    rounds: u8,
    /// What works now, if the router answers.
    now: Option<Look>,
}

impl Status {
    /// What is said of `status`, with what works now.
    pub fn new(status: &appliance::Status, look: Option<Look>) -> Self {
        let choice = status.standing.choice;
        Self {
            product: status.image.product.to_string(),
            board: status.image.board.to_string(),
            version: status.image.version.to_string(),
            counter: status.image.counter,
            built: status.image.built.to_string(),
            floor: status.floor,
            slot: status.running.into(),
            next: status.next.into(),
            tries: Tries {
                a: choice.tries(Slot::A),
                b: choice.tries(Slot::B),
            },
            copies: status.standing.good,
            has_way_back: status.has_way_back,
            writing: status.state.writing.map(SlotName::from),
            pending: status
                .state
                .pending
                .as_ref()
                .map(|pending| Waiting::new(pending, status.running, look)),
            last: status.state.last.as_ref().map(Outcome::from),
            damage: status.damage.as_ref().map(ToString::to_string),
            expected: expected(status),
        }
    }
}

impl Waiting {
    fn new(pending: &Pending, running: Slot, now: Option<Look>) -> Self {
        let phase = match (pending.phase, pending.target == running) {
            (Phase::Trying, true) => "tried",
            (Phase::Trying, false) => "boot",
            (Phase::Asking { was_out: false }, _) => "asked",
            (Phase::Asking { was_out: true }, _) => "outside",
        };
        Self {
            slot: pending.target.into(),
            version: pending.release.version.to_string(),
            counter: pending.release.counter,
            phase,
            before: pending.before.into(),
            charged_s: pending.charged_s,
            of_s: Limits::HOUSE.charge_s,
            rounds: pending.rounds,
            now,
        }
    }
}

/// What comes next, in a sentence.
fn expected(status: &appliance::Status) -> String {
    let (running, next) = (status.running, status.next);
    if let Some(slot) = status.state.writing {
        return format!(
            "Slot {slot} is being written. If nobody is at it, its installation was cut off: install again."
        );
    }
    let Some(pending) = &status.state.pending else {
        return match next == running {
            true => format!("Slot {running} is booted again."),
            false => format!("Slot {next} is booted next, by: reboot"),
        };
    };
    let target = pending.target;
    let minutes = |seconds: u64| seconds / 60;
    match (pending.phase, target == running) {
        (Phase::Trying, true) => format!(
            "It is the good one once all that worked before works for {} s; after {} s more in which something doesn't by the box's own making, slot {} is booted again.",
            Limits::HOUSE.good.as_secs(),
            Limits::HOUSE.charge_s.saturating_sub(pending.charged_s),
            target.other(),
        ),
        (Phase::Trying, false) => format!("Slot {target} is booted next, by: reboot"),
        (Phase::Asking { was_out: false }, _) => format!(
            "If all works in slot {running} within {} minutes of its boot, it stays; if not, slot {target} is tried again later.",
            minutes(Limits::HOUSE.asking.as_secs()),
        ),
        (Phase::Asking { was_out: true }, _) => {
            format!("Slot {target} is tried again once all works in slot {running}.")
        }
    }
}

impl Report for Status {
    fn text(&self) -> String {
        let mut text = format!(
            "{} {} for {}, in slot {} (counter {}, made {})\n",
            self.product, self.version, self.board, self.slot.0, self.counter, self.built
        );
        let other = if self.slot.0 == 'A' { 'B' } else { 'A' };
        let is_new = |pending: &Waiting| pending.phase == "boot";
        let way_back = match self.has_way_back {
            _ if self.pending.as_ref().is_some_and(is_new) => {
                format!("slot {}, once slot {other} is booted", self.slot.0)
            }
            true => format!("slot {other} holds another release"),
            false => format!("none: slot {other} holds no release"),
        };
        let mut line = |name: &str, what: &str| {
            let _ = writeln!(text, "{name:<12} {what}");
        };
        line("way back", &way_back);
        line(
            "refused",
            &format!("releases with a counter below {}", self.floor),
        );
        if let Some(damage) = &self.damage {
            line("damage", &format!("{damage}; what the image says counts"));
        }
        if self.copies.contains(&false) {
            line(
                "choice",
                "one of its two copies is damaged; the next write mends it",
            );
        }
        if let Some(pending) = &self.pending {
            let waits = match pending.phase {
                "boot" => "waits for its first boot",
                "tried" => "runs, and isn't known to be good yet",
                "asked" => "didn't work; it is tried whether all works in the slot from before",
                _ => "waits until what fails outside of this box is over",
            };
            let (version, slot) = (&pending.version, pending.slot.0);
            line("pending", &format!("{version} in slot {slot} {waits}"));
            line("worked", &format!("before it: {}", pending.before.list()));
            if let Some(now) = &pending.now {
                let now = Works::from(now.facts().working());
                let missing = pending.before.missing(now);
                let what = match missing.is_empty() {
                    true => "all that worked before works".to_owned(),
                    false => format!("this doesn't work: {}", missing.list()),
                };
                line("now", &what);
            }
            let (charged, of) = (pending.charged_s, pending.of_s);
            line(
                "against it",
                &format!("{charged} of {of} s, tried again {} times", pending.rounds),
            );
        }
        if let Some(last) = &self.last {
            line("last", &last.sentence());
        }
        line("next", &self.expected);
        text
    }
}

#[cfg(test)]
mod tests {
    use altnet_router::hands::look::Found;
    use altnet_update::choice::{self, Choice, Format, PLACES};
    use altnet_update::disk::Disk;
    use altnet_update::state::{Release, State, Working};
    use altnet_update::verdict::Approval;
    use altnet_wire::time::UnixTime;

    use super::*;

    /// A disk that holds nothing but a choice.
    struct Memory(Vec<u8>);

    impl Disk for Memory {
        fn bytes(&mut self) -> std::io::Result<u64> {
            Ok(self.0.len() as u64)
        }

        fn read_at(&mut self, at: u64, out: &mut [u8]) -> std::io::Result<()> {
            out.copy_from_slice(&self.0[at as usize..at as usize + out.len()]);
            Ok(())
        }

        fn write_at(&mut self, at: u64, bytes: &[u8]) -> std::io::Result<()> {
            self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn sync(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    const WORKED: Working = Working {
        wan: true,
        dns: true,
        private: false,
        lan: true,
    };

    /// What is said in slot A of a release in slot B, or the other way round.
    fn said(running: Slot, phase: Phase, look: Option<Look>) -> String {
        let mut disk = Memory(vec![0; PLACES[1] as usize + 4096]);
        let first = Choice::FRESH.with_first(Slot::B);
        choice::write(&mut disk, Format::UBoot, first).unwrap();
        let standing = choice::read(&mut disk, Format::UBoot).unwrap();
        let label = |text: &str| text.parse().unwrap();
        let release = Release {
            version: label("0.2.0"),
            counter: 2,
            floor: 2,
            made: UnixTime::EPOCH,
            keys: None,
            approval: Approval {
                by_release: true,
                by_owner: false,
            },
        };
        let status = appliance::Status {
            image: appliance::Image {
                product: label("altnet"),
                board: label("rpi"),
                version: label("0.1.0"),
                counter: 1,
                floor: 0,
                built: UnixTime::EPOCH,
            },
            running,
            next: standing.choice.begun().0,
            standing,
            has_way_back: true,
            floor: 1,
            state: State {
                pending: Some(Pending {
                    target: Slot::B,
                    release,
                    before: WORKED,
                    charged_s: 70,
                    rounds: 1,
                    phase,
                }),
                ..State::default()
            },
            damage: None,
        };
        let status = Status::new(&status, look);
        assert_eq!(status.json()["pending"]["version"], "0.2.0");
        status.text()
    }

    #[test]
    fn what_waits_is_said_with_what_it_waits_for() {
        let look = Look {
            wan: Found::Outside,
            dns: Found::Here,
            private: Found::Works,
            lan: Found::Works,
            calendar: None,
        };
        let asking = |was_out| Phase::Asking { was_out };
        for (running, phase, look, expected) in [
            (Slot::A, Phase::Trying, None, "waits for its first boot"),
            (
                Slot::A,
                Phase::Trying,
                None,
                "Slot B is booted next, by: reboot",
            ),
            (
                Slot::A,
                Phase::Trying,
                None,
                "slot A, once slot B is booted",
            ),
            (
                Slot::B,
                Phase::Trying,
                None,
                "before it: internet, names, the house's side",
            ),
            (
                Slot::B,
                Phase::Trying,
                Some(look),
                "this doesn't work: internet, names\n",
            ),
            (Slot::B, Phase::Trying, None, "70 of 600 s"),
            (Slot::B, Phase::Trying, None, "after 530 s more"),
            (Slot::A, asking(false), None, "within 5 minutes"),
            (
                Slot::A,
                asking(true),
                None,
                "is tried again once all works in slot A",
            ),
        ] {
            let said = said(running, phase, look);
            assert!(said.contains(expected), "{expected}:\n{said}");
        }
    }
}
