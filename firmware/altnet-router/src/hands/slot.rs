//! On a box with two slots: looking after the one that runs, until it is known whether it is good.
//!
//! What is decided is decided by [`altnet_update::confirm`]; here it is told what works, and what it wants is done. On a
//! machine without slots there is nothing to look after.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use altnet_service::log::chain;
use altnet_update::appliance::{Appliance, Error, Heard, Places, Watch};
use altnet_update::confirm::{Event, Facts, Limits};
use altnet_update::state::Ended;
use altnet_wire::time::Instant;

/// How often it is looked what works. What was said last counts for 30 s.
const EVERY: Duration = Duration::from_secs(10);

/// Looks after the slot that runs.
#[derive(Debug)]
pub struct Keeper {
    stage: Stage,
    limits: Limits,
    /// The program that boots again, as init wants it.
    reboot: PathBuf,
    /// The last thing that was said of what goes wrong, so that it isn't said every ten seconds.
    said: String,
}

#[derive(Debug)]
enum Stage {
    /// It didn't begin yet.
    Begins {
        appliance: Box<Appliance>,
        at: Duration,
    },
    /// It is waited for what works.
    Watches { watch: Box<Watch>, at: Duration },
    /// Somebody looks what works.
    Looks { watch: Box<Watch> },
    /// It was decided to boot again.
    Reboots { at: Duration },
    /// There is nothing to look after.
    Over,
}

impl Keeper {
    /// Finds out whether this is a box with slots; `root` is where its files are.
    pub fn new(root: &Path, limits: Limits, now: Duration) -> Self {
        let mut keeper = Self {
            stage: Stage::Over,
            limits,
            reboot: root.join("sbin/reboot"),
            said: String::new(),
        };
        match Appliance::open(Places::under(root)) {
            Ok(appliance) => {
                let appliance = Box::new(appliance);
                keeper.stage = Stage::Begins { appliance, at: now };
            }
            Err(Error::NotAnAppliance { .. }) => {}
            Err(e) => keeper.complain(&e),
        }
        keeper
    }

    /// When to come back with [`Self::handle_timeout`].
    pub fn deadline(&self) -> Option<Duration> {
        match &self.stage {
            Stage::Begins { at, .. } | Stage::Watches { at, .. } | Stage::Reboots { at } => {
                Some(*at)
            }
            Stage::Looks { .. } | Stage::Over => None,
        }
    }

    /// Does what is due. Returns whether somebody is to look what works, and to say so with [`Self::handle_facts`].
    pub fn handle_timeout(&mut self, now: Duration) -> bool {
        if self.deadline().is_none_or(|at| at > now) {
            return false;
        }
        match std::mem::replace(&mut self.stage, Stage::Over) {
            Stage::Begins { appliance, .. } => {
                let begun = Watch::begin(*appliance.clone(), self.limits, instant(now));
                match begun {
                    Ok((watch, heard)) => self.heard(Box::new(watch), heard, now),
                    Err(e) => {
                        self.complain(&e);
                        let at = now + EVERY;
                        self.stage = Stage::Begins { appliance, at };
                    }
                }
                false
            }
            Stage::Watches { watch, .. } => {
                self.stage = Stage::Looks { watch };
                true
            }
            Stage::Reboots { .. } => {
                self.reboot();
                self.stage = Stage::Reboots { at: now + EVERY };
                false
            }
            other @ (Stage::Looks { .. } | Stage::Over) => {
                self.stage = other;
                false
            }
        }
    }

    /// Takes what works.
    pub fn handle_facts(&mut self, facts: Facts, now: Duration) {
        let Stage::Looks { mut watch } = std::mem::replace(&mut self.stage, Stage::Over) else {
            return;
        };
        match watch.handle_facts(facts, instant(now)) {
            Ok(heard) => self.heard(watch, heard, now),
            Err(e) => {
                // Mostly because an installation is under way.
                self.complain(&e);
                let at = now + EVERY;
                self.stage = Stage::Watches { watch, at };
            }
        }
    }

    fn heard(&mut self, watch: Box<Watch>, heard: Heard, now: Duration) {
        for event in &heard.events {
            tell(event);
        }
        if let Some(e) = &heard.unkept {
            altnet_service::warning!(
                "what is decided about this slot can't be kept: {}",
                chain(e)
            );
        }
        self.stage = match (heard.reboot, heard.deadline) {
            (true, _) => Stage::Reboots { at: now },
            (false, Some(_)) => Stage::Watches {
                watch,
                at: now + EVERY,
            },
            (false, None) => Stage::Over,
        };
    }

    fn reboot(&mut self) {
        let name = self.reboot.display();
        match Command::new(&self.reboot).status() {
            Ok(status) if status.success() => altnet_service::info!("this box boots again"),
            Ok(status) => altnet_service::error!("{name} ended with {status}; it is tried again"),
            Err(e) => altnet_service::error!("{name} can't be run: {e}; it is tried again"),
        }
    }

    fn complain(&mut self, error: &Error) {
        let text = chain(error);
        if self.said != text {
            altnet_service::warning!(
                "the slot that runs is not looked after: {text}. {}",
                error.next_step()
            );
            self.said = text;
        }
    }
}

fn instant(now: Duration) -> Instant {
    Instant::from_micros(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

fn tell(event: &Event) {
    match event {
        Event::Ended(outcome) => {
            let (version, slot) = (&outcome.version, outcome.slot);
            match outcome.ended {
                Ended::Confirmed => altnet_service::info!(
                    "release {version} in slot {slot} works as the one before did: it is the good one"
                ),
                _ => altnet_service::warning!(
                    "release {version} in slot {slot} is not the good one; `altnet update status` says why"
                ),
            }
        }
        Event::Asks(slot) => altnet_service::warning!(
            "what worked before doesn't, and the fault may lie outside: slot {slot} is booted to see whether it works there"
        ),
        Event::Outside(slot) => altnet_service::info!(
            "it doesn't work here either, so the fault lies outside; slot {slot} is tried again when that is over"
        ),
        Event::TriesAgain(slot) => {
            altnet_service::info!("all works again: slot {slot} is tried once more");
        }
        Event::Fallback(slot) => altnet_service::error!(
            "slot {slot} didn't come up, though it had been good; the other one runs. Install a release to have two again"
        ),
    }
}
