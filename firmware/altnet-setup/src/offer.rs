//! What a box offers now: whether it can be claimed, for how long, and what it says of itself.
//!
//! In: what became of tries and pairings, and the time since power-on. Out: what is said to whoever connects. No clock of its own.

use core::time::Duration;

use altnet_claim::hello::{Hello, State};
use altnet_claim::key::BoxKey;
use altnet_claim::tries::Tries;

/// How long after power-on a box can be claimed.
pub const OPEN: Duration = Duration::from_secs(600);

/// How far the box has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nobody has claimed it.
    Waits,
    /// Somebody proves to have the code, or did and hands files over.
    Pairs,
    /// It has what it needs, and joins.
    Joins,
    /// It is a member.
    Joined,
}

/// What is offered.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The key that it pairs with.
    pub key: BoxKey,
    /// What board it is.
    pub board: String,
    /// What runs on it.
    pub version: String,
    /// What was tried.
    pub tries: Tries,
    /// How far it has come.
    pub stage: Stage,
    /// When the power came on, since the kernel began.
    pub began: Duration,
}

impl Offer {
    /// How much time is left.
    pub fn left(&self, now: Duration) -> Duration {
        (self.began + OPEN).saturating_sub(now)
    }

    /// Whether the box can be claimed now, or why not.
    pub fn state(&self, now: Duration) -> State {
        match self.stage {
            // Who pairs may go on; nobody else may begin.
            Stage::Pairs | Stage::Joins | Stage::Joined => State::Busy,
            Stage::Waits if self.left(now).is_zero() => State::TimeOver,
            Stage::Waits if self.tries.left() == 0 => State::TriesUsed,
            Stage::Waits => State::Open,
        }
    }

    /// What it says to who connects.
    pub fn hello(&self, now: Duration) -> Hello {
        Hello {
            state: self.state(now),
            key: self.key,
            tries_left: self.tries.left(),
            seconds_left: u16::try_from(self.left(now).as_secs()).unwrap_or(u16::MAX),
            board: self.board.clone(),
            version: self.version.clone(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn offer() -> Offer {
        Offer {
            key: BoxKey([1; 32]),
            board: "rpi".into(),
            version: "v1".into(),
            tries: Tries::default(),
            stage: Stage::Waits,
            began: Duration::from_secs(100),
        }
    }

    #[test]
    fn a_box_is_open_for_ten_minutes_and_five_tries() {
        let mut offer = offer();
        let at = Duration::from_secs;
        assert_eq!(offer.state(at(100)), State::Open);
        assert_eq!(offer.hello(at(130)).seconds_left, 570);
        assert_eq!(offer.state(at(699)), State::Open);
        assert_eq!(offer.state(at(700)), State::TimeOver);
        offer.tries.now = 5;
        assert_eq!(offer.state(at(100)), State::TriesUsed);
    }

    #[test]
    fn who_pairs_is_alone_and_a_box_that_joins_is_nobody_else_s() {
        let mut offer = offer();
        for stage in [Stage::Pairs, Stage::Joins, Stage::Joined] {
            offer.stage = stage;
            assert_eq!(offer.state(Duration::from_secs(100)), State::Busy);
        }
    }
}
