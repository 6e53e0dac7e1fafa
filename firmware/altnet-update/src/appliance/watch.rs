//! The machine of [`crate::confirm`] on a real box: what it wants kept and chosen is done here.

use std::fs::File;

use altnet_wire::time::Instant;

use super::{Appliance, Error};
use crate::choice;
use crate::confirm::{Event, Facts, Limits, Machine, Output};
use crate::state::{Keep, State, StateError};

/// Looks after the slot that runs, from when user space is up until the next boot.
#[derive(Debug)]
pub struct Watch {
    appliance: Appliance,
    machine: Option<Machine>,
    /// As it was kept last; what else is found was kept by somebody else.
    kept: State,
}

/// What came of something that a [`Watch`] was told.
#[derive(Debug, Default)]
pub struct Heard {
    /// What people want to know.
    pub events: Vec<Event>,
    /// Whether to boot again now.
    pub reboot: bool,
    /// When to come back with [`Watch::handle_timeout`]; `None` if there is nothing to wait for.
    pub deadline: Option<Instant>,
    /// What could not be kept. It is tried again with what comes next.
    pub unkept: Option<StateError>,
}

impl Watch {
    /// Begins when user space is up and the data partition is there, or is known to be read-only. A file beside the
    /// slot's name tells that it did, so that one that begins once more in the same boot isn't taken for a boot.
    ///
    /// # Errors
    /// [`Error::Choice`], [`Error::State`], [`Error::Read`] or [`Error::Busy`]. A state that is damaged is none: then
    /// nothing is pending.
    pub fn begin(
        appliance: Appliance,
        limits: Limits,
        now: Instant,
    ) -> Result<(Self, Heard), Error> {
        let lock = appliance.lock()?;
        let (state, _) = appliance.state()?;
        let standing = choice::read(&mut appliance.whole_to_read()?, appliance.format)?;
        let running = appliance.running;
        let begun = appliance.places.run("watched");
        let begin = match begun.exists() {
            true => Machine::again,
            false => Machine::new,
        };
        let machine = begin(state.clone(), running, standing.choice, limits, now);
        let mut watch = Self {
            appliance,
            machine: Some(machine),
            kept: state,
        };
        let heard = watch.drain()?;
        File::create(&begun).map_err(|source| Error::Read {
            path: begun,
            source,
        })?;
        drop(lock);
        Ok((watch, heard))
    }

    /// Takes what works now.
    ///
    /// # Errors
    /// [`Error::Choice`], [`Error::State`], or [`Error::Busy`]: then say it again later.
    pub fn handle_facts(&mut self, facts: Facts, now: Instant) -> Result<Heard, Error> {
        self.handle(|machine| machine.handle_facts(facts, now))
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// As of [`Watch::handle_facts`].
    pub fn handle_timeout(&mut self, now: Instant) -> Result<Heard, Error> {
        self.handle(|machine| machine.handle_timeout(now))
    }

    fn handle(&mut self, tell: impl FnOnce(&mut Machine)) -> Result<Heard, Error> {
        if self.machine.is_none() {
            return Ok(Heard::default());
        }
        let _lock = self.appliance.lock()?;
        if self.appliance.state()?.0 != self.kept {
            // Something was installed, confirmed or taken back by a person: what is to be decided now is
            // decided after the next boot.
            self.machine = None;
        }
        if let Some(machine) = &mut self.machine {
            tell(machine);
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<Heard, Error> {
        let mut heard = Heard::default();
        while let Some(machine) = &mut self.machine {
            match machine.poll_output() {
                Output::Save(state) => {
                    let saved = self.appliance.kept().save(&state);
                    machine.handle_saved(saved.is_ok());
                    match saved {
                        Ok(()) => self.kept = *state,
                        Err(error) => heard.unkept = Some(error),
                    }
                }
                Output::Choose(choice) => {
                    if let Err(error) = self.appliance.choose(|_| choice) {
                        // What was to follow rested on it; the next boot decides anew.
                        self.machine = None;
                        return Err(error);
                    }
                }
                Output::Reboot => heard.reboot = true,
                Output::Tell(event) => heard.events.push(event),
                Output::Wait(deadline) => {
                    heard.deadline = Some(deadline).filter(|at| *at != Instant::NEVER);
                    break;
                }
            }
        }
        Ok(heard)
    }
}
