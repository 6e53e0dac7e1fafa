//! When a new slot is the good one: a machine that is told what works, and says what to do.
//!
//! It begins when user space is up, in whichever slot runs, and does nothing but wait where nothing is
//! to be confirmed. Otherwise:
//!
//! - **Everything that worked before works**, for [`Limits::good`] on end: the slot is confirmed.
//! - **Something doesn't, and it's the box's own doing**: those seconds count against the slot, and at
//!   [`Limits::charge_s`] it is left for the one from before. So do seconds in which nobody says what works.
//! - **Something doesn't, and from here it looks as if it were outside** (no carrier, no answer from the
//!   provider): that doesn't count. But a driver that fails looks the same. So after [`Limits::outside`]
//!   the slot from before is asked: it is booted, and if all works there within [`Limits::asking`], the
//!   new slot was to blame and the old one stays. If not, it was outside: the old slot serves the house
//!   until it is over, and then the new one is tried again, [`Limits::rounds`] times at most.
//!
//! Power cuts: the boot loader counts its tries before it loads anything, and user space gives the try
//! back, so that only boots that never come up count there. A slot that comes up and then falls over
//! would go on for ever that way; so each boot costs [`Limits::boot_s`] of the charge, written down before
//! the try is given back, and is refunded once it has run for [`Limits::steady`]. A power cut costs
//! something only within that time, and then a tenth of what a slot may cost.

use std::collections::VecDeque;

use altnet_wire::time::{Duration, Instant};

use crate::choice::{Choice, MAX_TRIES, Slot};
use crate::state::{Ended, Outcome, Pending, Phase, State, Working};

mod facts;

pub use facts::{Facts, Finding};

/// How long what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For how long on end all must work.
    pub good: Duration,
    /// How many seconds may count against a slot.
    pub charge_s: u32,
    /// How many of them a boot costs.
    pub boot_s: u32,
    /// From when on a boot costs nothing.
    pub steady: Duration,
    /// How long something may fail outside before the slot from before is asked.
    pub outside: Duration,
    /// How soon all must work in the slot from before, for the new one to be to blame.
    pub asking: Duration,
    /// How often a slot may be doubted and tried again.
    pub rounds: u8,
    /// How old what was last said of what works may be.
    pub stale: Duration,
    /// How often to come back while something is waited for.
    pub tick: Duration,
}

impl Limits {
    /// Those of a house.
    pub const HOUSE: Self = Self {
        good: Duration::from_secs(60),
        charge_s: 600,
        boot_s: 60,
        steady: Duration::from_secs(120),
        outside: Duration::from_secs(3600),
        asking: Duration::from_secs(300),
        rounds: 3,
        stale: Duration::from_secs(30),
        tick: Duration::from_secs(10),
    };
}

/// What a machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Keep this, and say with [`Machine::handle_saved`] whether it is kept.
    Save(Box<State>),
    /// Write this choice.
    Choose(Choice),
    /// Boot again.
    Reboot,
    /// Something that people want to know.
    Tell(Event),
    /// Nothing until then, or until there is something new.
    Wait(Instant),
}

/// Something that people want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A slot that was tried is the good one, or isn't.
    Ended(Outcome),
    /// The slot from before is asked.
    Asks(Slot),
    /// What worked before didn't here either: it is waited for, then `0` is tried again.
    Outside(Slot),
    /// The slot is tried again.
    TriesAgain(Slot),
    /// The slot that was chosen didn't come up, though it had been good; the other one runs.
    Fallback(Slot),
}

/// A slot that runs, and what is to become of it.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    running: Slot,
    state: State,
    choice: Choice,
    facts: Option<(Facts, Instant)>,
    up: Instant,
    last: Instant,
    /// Since when all works.
    good_since: Option<Instant>,
    /// Time that counts and isn't kept yet.
    uncharged: Duration,
    /// Time since the boot in which it failed outside.
    outside: Duration,
    is_boot_charged: bool,
    outputs: VecDeque<Output>,
    /// What follows on a save that is under way.
    after: Option<After>,
}

#[derive(Debug, Default)]
struct After {
    /// If it held.
    kept: Vec<Output>,
    /// If it didn't.
    not: Vec<Output>,
    /// What holds then, if not what was to be kept.
    unless_kept: Option<State>,
}

impl Machine {
    /// Begins when user space is up in slot `running`. `choice` is as the boot loader left it.
    pub fn new(state: State, running: Slot, choice: Choice, limits: Limits, now: Instant) -> Self {
        let mut machine = Self::idle(state, running, choice, limits, now);
        machine.begin();
        machine
    }

    /// Begins once more in the same boot, because whoever told it what works ended. For a slot that is tried
    /// that costs as much as a boot; a slot that was chosen meanwhile still waits for its first one.
    pub fn again(
        state: State,
        running: Slot,
        choice: Choice,
        limits: Limits,
        now: Instant,
    ) -> Self {
        let mut machine = Self::idle(state, running, choice, limits, now);
        if machine.pending().is_some_and(|p| p.target == running) {
            machine.begin();
        }
        machine
    }

    const fn idle(
        state: State,
        running: Slot,
        choice: Choice,
        limits: Limits,
        now: Instant,
    ) -> Self {
        Self {
            limits,
            running,
            state,
            choice,
            facts: None,
            up: now,
            last: now,
            good_since: None,
            uncharged: Duration::ZERO,
            outside: Duration::ZERO,
            is_boot_charged: false,
            outputs: VecDeque::new(),
            after: None,
        }
    }

    /// What is to be kept.
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// Takes what works now, found by somebody who looked.
    pub fn handle_facts(&mut self, facts: Facts, now: Instant) {
        self.pass(now);
        self.facts = Some((facts, now));
        self.weigh(now);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.pass(now);
        self.weigh(now);
    }

    /// Says whether what [`Output::Save`] gave is kept.
    pub fn handle_saved(&mut self, is_kept: bool) {
        let Some(after) = self.after.take() else {
            return;
        };
        if let (false, Some(state)) = (is_kept, after.unless_kept) {
            self.state = state;
        }
        for output in if is_kept { after.kept } else { after.not } {
            if let Output::Choose(choice) = output {
                self.choice = choice;
            }
            self.outputs.push_back(output);
        }
    }

    /// The next thing to be done; the last one is always [`Output::Wait`].
    pub fn poll_output(&mut self) -> Output {
        if let Some(output) = self.outputs.pop_front() {
            return output;
        }
        let is_over = self.after.is_some() || self.pending().is_none();
        Output::Wait(match is_over {
            true => Instant::NEVER,
            false => self.last.after(self.limits.tick),
        })
    }

    const fn pending(&self) -> Option<&Pending> {
        self.state.pending.as_ref()
    }

    /// Once, when user space is up.
    fn begin(&mut self) {
        let given_back = self.choice.with_tries(self.running, MAX_TRIES);
        let Some(pending) = self.pending().cloned() else {
            if self.choice.first != self.running {
                self.tell(Event::Fallback(self.choice.first));
            }
            return self.choose(given_back);
        };
        match (pending.target == self.running, pending.phase) {
            (true, _) => {
                let charged = pending.charged_s.saturating_add(self.limits.boot_s);
                self.set(|pending| {
                    pending.charged_s = charged;
                    // Whatever was to be asked: it is chosen, and up.
                    pending.phase = Phase::Trying;
                });
                self.is_boot_charged = true;
                if charged >= self.limits.charge_s {
                    let working = Working::default();
                    return self.leave(Ended::DidNotWork { working });
                }
                // What isn't written down isn't given back: then the boot loader's tries decide.
                self.save(vec![Output::Choose(given_back)], Vec::new());
            }
            (false, Phase::Asking { .. }) => self.choose(given_back),
            (false, Phase::Trying) => {
                let never = self.choice.first == pending.target;
                let ended = if never {
                    Ended::NeverCameUp
                } else {
                    Ended::Left
                };
                let choice = given_back.with_first(self.running);
                self.choose(choice.with_tries(pending.target, 0));
                self.end(ended, Vec::new());
            }
        }
    }

    /// Counts the time since the last input by what was known then.
    fn pass(&mut self, now: Instant) {
        let passed = now.saturating_since(self.last);
        let finding = self.finding(now);
        self.last = self.last.max(now);
        if finding != Finding::Works {
            self.good_since = None;
        }
        if self.pending().is_none_or(|p| p.target != self.running) {
            return;
        }
        match finding {
            Finding::Here => self.uncharged += passed,
            Finding::Outside => self.outside += passed,
            Finding::Works => {}
        }
    }

    /// What is known of what worked before; nothing known is nothing that works.
    fn finding(&self, now: Instant) -> Finding {
        let (Some((facts, at)), Some(pending)) = (self.facts, self.pending()) else {
            return Finding::Here;
        };
        match now.saturating_since(at) > self.limits.stale {
            true => Finding::Here,
            false => facts.judge(pending.before),
        }
    }

    /// Decides.
    fn weigh(&mut self, now: Instant) {
        // Until it is known whether the last word is kept there is no next one.
        if self.after.is_some() {
            return;
        }
        let Some(pending) = self.pending().cloned() else {
            return;
        };
        let finding = self.finding(now);
        if finding == Finding::Works {
            self.good_since.get_or_insert(now);
        }
        let good = self.good_since.map(|since| now.saturating_since(since));
        let is_good = good.is_some_and(|good| good >= self.limits.good);
        match (pending.target == self.running, pending.phase) {
            (true, _) if is_good => self.confirm(),
            (true, _) => self.weigh_trying(&pending, now),
            (false, Phase::Asking { was_out: false }) if is_good => {
                self.end(Ended::WorkedBefore, Vec::new());
            }
            (false, Phase::Asking { was_out: true }) if is_good => self.try_again(&pending),
            (false, Phase::Asking { was_out: false }) => {
                // All works, but not for long enough: that is waited for.
                let since_up = now.saturating_since(self.up);
                if since_up >= self.limits.asking && self.good_since.is_none() {
                    self.set(|pending| pending.phase = Phase::Asking { was_out: true });
                    self.save(Vec::new(), Vec::new());
                    self.tell(Event::Outside(pending.target));
                }
            }
            (false, _) => {}
        }
    }

    fn weigh_trying(&mut self, pending: &Pending, now: Instant) {
        let whole = self.uncharged.as_secs();
        let mut charged = pending.charged_s;
        // Kept in steps, for the flash's sake.
        let step = u64::from(self.limits.boot_s.max(1));
        if whole >= step {
            charged = charged.saturating_add(u32::try_from(whole).unwrap_or(u32::MAX));
            self.uncharged -= Duration::from_secs(whole);
        }
        let is_steady = now.saturating_since(self.up) >= self.limits.steady;
        if self.is_boot_charged && is_steady {
            charged = charged.saturating_sub(self.limits.boot_s);
            self.is_boot_charged = false;
        }
        if charged >= self.limits.charge_s {
            let working = self.facts.map(|(facts, _)| facts.working());
            let working = working.unwrap_or_default();
            return self.leave(Ended::DidNotWork { working });
        }
        if self.outside >= self.limits.outside {
            if pending.rounds >= self.limits.rounds {
                let working = self.facts.map(|(facts, _)| facts.working());
                let working = working.unwrap_or_default();
                return self.leave(Ended::DidNotWork { working });
            }
            return self.ask(pending, charged);
        }
        if charged != pending.charged_s {
            self.set(|pending| pending.charged_s = charged);
            self.save(Vec::new(), Vec::new());
        }
    }

    /// Boots the slot from before, to see whether it works there.
    fn ask(&mut self, pending: &Pending, charged: u32) {
        self.outside = Duration::ZERO;
        let before = self.state.clone();
        self.set(|pending| {
            pending.charged_s = charged;
            pending.phase = Phase::Asking { was_out: false };
        });
        let choice = self.without(pending.target);
        // Not kept, it would be taken for a slot that was given up: then it isn't done, and comes up
        // again after another such time.
        let asks = vec![
            Output::Choose(choice),
            Output::Tell(Event::Asks(pending.target.other())),
            Output::Reboot,
        ];
        self.save_or(asks, before);
    }

    /// Boots a slot again that was doubted.
    fn try_again(&mut self, pending: &Pending) {
        self.good_since = None;
        let before = self.state.clone();
        self.set(|pending| {
            pending.rounds = pending.rounds.saturating_add(1);
            pending.phase = Phase::Trying;
        });
        let choice = self.choice.with_first(pending.target);
        let tries = vec![
            Output::Choose(choice.with_tries(pending.target, MAX_TRIES)),
            Output::Tell(Event::TriesAgain(pending.target)),
            Output::Reboot,
        ];
        self.save_or(tries, before);
    }

    fn confirm(&mut self) {
        let Some(pending) = self.pending().cloned() else {
            return;
        };
        // The choice first: what is pending still is confirmed once more, and what is confirmed must
        // be what is booted.
        let choice = self.choice.with_first(self.running);
        self.choose(choice.with_tries(self.running, MAX_TRIES));
        self.state.raise(&pending.release);
        self.end(Ended::Confirmed, Vec::new());
    }

    /// Leaves the running slot for the one from before, for good.
    fn leave(&mut self, ended: Ended) {
        let choice = self.without(self.running);
        self.choose(choice);
        self.end(ended, vec![Output::Reboot]);
    }

    /// The choice by which `slot` isn't booted any more.
    fn without(&self, slot: Slot) -> Choice {
        let choice = self.choice.with_first(slot.other()).with_tries(slot, 0);
        choice.with_tries(slot.other(), MAX_TRIES)
    }

    fn end(&mut self, ended: Ended, then: Vec<Output>) {
        let Some(pending) = self.state.pending.take() else {
            return;
        };
        let outcome = Outcome {
            slot: pending.target,
            version: pending.release.version,
            ended,
        };
        self.state.last = Some(outcome.clone());
        self.tell(Event::Ended(outcome));
        self.save(then.clone(), then);
    }

    fn set(&mut self, change: impl FnOnce(&mut Pending)) {
        if let Some(pending) = &mut self.state.pending {
            change(pending);
        }
    }

    fn save(&mut self, kept: Vec<Output>, not: Vec<Output>) {
        self.wish(After {
            kept,
            not,
            unless_kept: None,
        });
    }

    /// Keeps the state and goes on, or else everything is as it was `before`.
    fn save_or(&mut self, kept: Vec<Output>, before: State) {
        self.wish(After {
            kept,
            not: Vec::new(),
            unless_kept: Some(before),
        });
    }

    fn wish(&mut self, after: After) {
        let state = Box::new(self.state.clone());
        self.outputs.push_back(Output::Save(state));
        self.after = Some(after);
    }

    fn choose(&mut self, choice: Choice) {
        if choice != self.choice {
            self.choice = choice;
            self.outputs.push_back(Output::Choose(choice));
        }
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Tell(event));
    }
}

#[cfg(test)]
mod tests;
