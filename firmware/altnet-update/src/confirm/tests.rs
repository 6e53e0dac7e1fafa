//! Houses in which slots are tried: what works where and when, crashes, and power cuts.

use proptest::prelude::*;

use super::*;
use crate::state::Release;
use crate::testing::manifest;
use crate::verdict::Approval;

const ALL: Working = Working {
    wan: true,
    dns: true,
    private: true,
    lan: true,
};
const GOOD: Facts = facts(Finding::Works);
/// Nothing beyond the box, and nobody can say why.
const OUT: Facts = Facts {
    wan: Finding::Outside,
    dns: Finding::Here,
    private: Finding::Here,
    lan: Finding::Works,
};
const BROKEN: Facts = Facts {
    dns: Finding::Here,
    ..GOOD
};

const fn facts(finding: Finding) -> Facts {
    Facts {
        wan: finding,
        dns: finding,
        private: finding,
        lan: finding,
    }
}

fn pending() -> State {
    let approval = Approval {
        by_release: true,
        by_owner: false,
    };
    State {
        pending: Some(Pending {
            target: Slot::B,
            release: Release::of(&manifest(10), approval),
            before: ALL,
            charged_s: 0,
            rounds: 0,
            phase: Phase::Trying,
        }),
        ..State::default()
    }
}

/// A box that was just told to boot slot B.
struct House {
    state: State,
    choice: Choice,
    /// Since the beginning, in seconds, over all boots.
    clock: u64,
    boots: Vec<Slot>,
    saves: u64,
    can_save: bool,
}

/// How a boot ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Rebooted,
    Cut,
}

impl House {
    fn new() -> Self {
        Self {
            state: pending(),
            choice: Choice::new(Slot::B, 3, 3),
            clock: 0,
            boots: Vec::new(),
            saves: 0,
            can_save: true,
        }
    }

    /// Does what the machine wants; whether it wants to boot again.
    fn drain(&mut self, machine: &mut Machine) -> bool {
        let mut reboots = false;
        loop {
            match machine.poll_output() {
                Output::Save(state) => {
                    if self.can_save {
                        self.saves += 1;
                        self.state = *state;
                    }
                    machine.handle_saved(self.can_save);
                }
                Output::Choose(choice) => self.choice = choice,
                Output::Reboot => reboots = true,
                Output::Tell(_) => {}
                Output::Wait(_) => return reboots,
            }
        }
    }

    /// Boots as the loader does; without user space if `comes_up` says so.
    fn boot(&mut self, comes_up: impl Fn(Slot) -> bool) -> Slot {
        loop {
            let (slot, counted) = self.choice.begun();
            self.choice = counted;
            self.boots.push(slot);
            self.clock += 20;
            if comes_up(slot) {
                return slot;
            }
        }
    }

    /// Runs the slot for at most so many seconds.
    fn run(&mut self, slot: Slot, most_s: u64, facts: &dyn Fn(Slot, u64) -> Option<Facts>) -> End {
        let at = |seconds: u64| Instant::from_micros((30 + seconds) * 1_000_000);
        let mut machine = Machine::new(self.state.clone(), slot, self.choice, Limits::HOUSE, at(0));
        let mut reboots = self.drain(&mut machine);
        let mut second = 0;
        while !reboots && second < most_s {
            second += 10;
            self.clock += 10;
            match facts(slot, self.clock) {
                Some(facts) => machine.handle_facts(facts, at(second)),
                None => machine.handle_timeout(at(second)),
            }
            reboots = self.drain(&mut machine);
        }
        if reboots { End::Rebooted } else { End::Cut }
    }

    /// Boots and runs for so many seconds in all, each boot at most `each_s` long.
    fn live(
        &mut self,
        all_s: u64,
        each_s: u64,
        facts: &dyn Fn(Slot, u64) -> Option<Facts>,
    ) -> Slot {
        let until = self.clock + all_s;
        loop {
            let slot = self.boot(|_| true);
            let left = until.saturating_sub(self.clock).min(each_s);
            self.run(slot, left, facts);
            if self.clock >= until {
                return slot;
            }
        }
    }

    fn ended(&self) -> Option<Ended> {
        self.state.last.as_ref().map(|outcome| outcome.ended)
    }
}

const HOUR: u64 = 3600;

#[test]
fn what_works_as_before_is_confirmed_and_the_floor_rises() {
    let mut house = House::new();
    assert_eq!(house.live(300, HOUR, &|_, _| Some(GOOD)), Slot::B);
    assert_eq!(house.ended(), Some(Ended::Confirmed));
    assert_eq!(
        (house.state.floor, house.state.pending.is_some()),
        (5, false)
    );
    assert_eq!(house.choice, Choice::new(Slot::B, 3, 3));
    // One before the try is given back, one when it is confirmed.
    assert_eq!(house.saves, 2);
}

#[test]
fn what_never_comes_up_is_left_by_the_boot_loader() {
    let mut house = House::new();
    let slot = house.boot(|slot| slot == Slot::A);
    assert_eq!(house.boots, [Slot::B, Slot::B, Slot::B, Slot::A]);
    house.run(slot, 300, &|_, _| Some(GOOD));
    assert_eq!(house.ended(), Some(Ended::NeverCameUp));
    assert_eq!(house.choice, Choice::new(Slot::A, 3, 0));
}

#[test]
fn what_does_not_work_by_the_boxs_own_making_is_left() {
    let mut house = House::new();
    let facts = |slot, _| Some(if slot == Slot::B { BROKEN } else { GOOD });
    assert_eq!(house.live(HOUR, HOUR, &facts), Slot::A);
    let working = BROKEN.working();
    assert_eq!(house.ended(), Some(Ended::DidNotWork { working }));
    assert_eq!(house.boots, [Slot::B, Slot::A]);
    assert_eq!(house.choice, Choice::new(Slot::A, 3, 0));
    assert!(house.saves < 20, "{}", house.saves);
}

#[test]
fn a_slot_in_which_nobody_says_what_works_is_left() {
    let mut house = House::new();
    assert_eq!(house.live(HOUR, HOUR, &|_, _| None), Slot::A);
    assert!(matches!(house.ended(), Some(Ended::DidNotWork { .. })));
}

#[test]
fn an_outage_of_the_provider_rolls_nothing_back() {
    for hours in [0, 1, 2, 5, 30] {
        let mut house = House::new();
        let until = hours * HOUR + 40 * 60;
        let facts = |_, clock| Some(if clock < until { OUT } else { GOOD });
        house.live(until + HOUR, 1000 * HOUR, &facts);
        assert_eq!(house.ended(), Some(Ended::Confirmed), "{hours} h");
        assert_eq!(house.choice.first, Slot::B);
        assert!(house.saves < 20, "{}", house.saves);
    }
}

#[test]
fn a_driver_that_fails_and_looks_like_an_outage_is_found_out() {
    let mut house = House::new();
    let facts = |slot, _| Some(if slot == Slot::B { OUT } else { GOOD });
    assert_eq!(house.live(2 * HOUR, 1000 * HOUR, &facts), Slot::A);
    assert_eq!(house.ended(), Some(Ended::WorkedBefore));
    // Also if there was an outage when it began.
    let mut house = House::new();
    let facts = |slot, clock| {
        Some(if slot == Slot::B || clock < 3 * HOUR {
            OUT
        } else {
            GOOD
        })
    };
    assert_eq!(house.live(9 * HOUR, 1000 * HOUR, &facts), Slot::A);
    assert_eq!(house.ended(), Some(Ended::WorkedBefore));
}

#[test]
fn a_slot_that_comes_up_and_falls_over_is_left() {
    for after_s in [0, 10, 30, 50, 90] {
        let mut house = House::new();
        for _ in 0..12 {
            let slot = house.boot(|_| true);
            let most = if slot == Slot::B { after_s } else { 300 };
            house.run(slot, most, &|_, _| Some(OUT));
        }
        assert!(matches!(house.ended(), Some(Ended::DidNotWork { .. })));
        assert_eq!(house.boots.last(), Some(&Slot::A));
    }
}

#[test]
fn power_cuts_once_it_runs_do_not_count() {
    let mut house = House::new();
    // A hundred cuts during an outage, each after three minutes.
    house.live(100 * 200, 180, &|_, _| Some(OUT));
    assert_eq!(house.ended(), None);
    assert!(house.boots.iter().all(|slot| *slot == Slot::B));
    house.live(300, 1000, &|_, _| Some(GOOD));
    assert_eq!(house.ended(), Some(Ended::Confirmed));
}

#[test]
fn some_quick_power_cuts_do_not_count_either() {
    let mut house = House::new();
    for _ in 0..8 {
        let slot = house.boot(|_| true);
        assert_eq!(slot, Slot::B);
        assert_eq!(house.run(slot, 20, &|_, _| Some(GOOD)), End::Cut);
    }
    house.live(300, 1000, &|_, _| Some(GOOD));
    assert_eq!(house.ended(), Some(Ended::Confirmed));
}

#[test]
fn without_a_data_partition_the_boot_loaders_tries_decide() {
    let mut house = House::new();
    house.can_save = false;
    for _ in 0..4 {
        let slot = house.boot(|_| true);
        house.run(slot, 20, &|_, _| Some(OUT));
    }
    assert_eq!(house.boots, [Slot::B, Slot::B, Slot::B, Slot::A]);
}

#[test]
fn what_did_not_work_before_is_not_asked_for() {
    let mut house = House::new();
    if let Some(pending) = &mut house.state.pending {
        pending.before = Working {
            lan: true,
            ..Working::default()
        };
    }
    house.live(300, HOUR, &|_, _| Some(OUT));
    assert_eq!(house.ended(), Some(Ended::Confirmed));
}

#[test]
fn an_installation_that_was_not_chosen_is_said_to_be_left() {
    let mut house = House::new();
    house.choice = Choice::new(Slot::A, 3, 0);
    house.live(60, HOUR, &|_, _| Some(GOOD));
    assert_eq!(house.ended(), Some(Ended::Left));
}

fn tell_all(machine: &mut Machine) -> Vec<Output> {
    let mut all = Vec::new();
    loop {
        match machine.poll_output() {
            Output::Wait(_) => return all,
            output => {
                if matches!(output, Output::Save(_)) {
                    machine.handle_saved(true);
                }
                all.push(output);
            }
        }
    }
}

#[test]
fn a_good_slot_gets_its_tries_back_and_nothing_is_waited_for() {
    let choice = Choice::new(Slot::A, 2, 3);
    let state = State::default();
    let mut machine = Machine::new(state, Slot::A, choice, Limits::HOUSE, Instant::ZERO);
    let back = Choice::new(Slot::A, 3, 3);
    assert_eq!(machine.poll_output(), Output::Choose(back));
    assert_eq!(machine.poll_output(), Output::Wait(Instant::NEVER));
}

#[test]
fn a_good_slot_that_did_not_come_up_is_told() {
    let choice = Choice::new(Slot::B, 2, 0);
    let state = State::default();
    let mut machine = Machine::new(state, Slot::A, choice, Limits::HOUSE, Instant::ZERO);
    let told = Output::Tell(Event::Fallback(Slot::B));
    assert!(tell_all(&mut machine).contains(&told));
}

fn any_finding() -> impl Strategy<Value = Finding> {
    prop_oneof![
        Just(Finding::Works),
        Just(Finding::Outside),
        Just(Finding::Here)
    ]
}

fn any_facts() -> impl Strategy<Value = Option<Facts>> {
    let four = (any_finding(), any_finding(), any_finding(), any_finding());
    prop::option::weighted(
        0.9,
        four.prop_map(|(wan, dns, private, lan)| Facts {
            wan,
            dns,
            private,
            lan,
        }),
    )
}

proptest! {
    /// Whatever is found and whenever the power goes: once all works for long enough it is over, and the
    /// slot that runs is the one that is booted.
    #[test]
    fn no_story_keeps_a_box_from_coming_to_an_end(
        story in prop::collection::vec((any_facts(), 1u64..400, any::<bool>()), 0..40),
        can_save in prop::bool::weighted(0.8),
    ) {
        let mut house = House::new();
        house.can_save = can_save;
        for (facts, tens, comes_up) in story {
            let slot = house.choice.begun().0;
            house.choice = house.choice.begun().1;
            if comes_up {
                house.run(slot, tens * 10, &|_, _| facts);
            }
            let tries = [Slot::A, Slot::B].map(|slot| house.choice.tries(slot));
            prop_assert!(tries.iter().all(|tries| *tries <= MAX_TRIES));
        }
        house.can_save = true;
        let slot = house.live(3 * HOUR, HOUR, &|_, _| Some(GOOD));
        prop_assert!(house.state.pending.is_none(), "{:?}", house.state);
        prop_assert!(house.choice.tries(slot) > 0);
        // Or the one that is first never came up.
        let first = house.choice.first;
        prop_assert!(first == slot || house.choice.tries(first) == 0, "{:?}", house.choice);
    }

    #[test]
    fn a_deadline_is_never_in_the_past(
        story in prop::collection::vec((any_facts(), 0u64..100_000_000), 1..60),
    ) {
        let mut now = Instant::from_micros(5);
        let choice = Choice::new(Slot::B, 3, 2);
        let mut machine = Machine::new(pending(), Slot::B, choice, Limits::HOUSE, now);
        for (facts, passed) in story {
            tell_all(&mut machine);
            if let Output::Wait(deadline) = machine.poll_output() {
                prop_assert!(deadline > now);
            }
            now = now.after(Duration::from_micros(passed));
            match facts {
                Some(facts) => machine.handle_facts(facts, now),
                None => machine.handle_timeout(now),
            }
        }
    }
}
