//! Files on trial, and what changes when the file in force does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::uplinks::Uplink;
use super::{Event, Machine, Setting, Wish};
use crate::config::Name;
use crate::house::Wan;

/// How long a file on trial counts without being confirmed.
pub const TRIAL: Duration = Duration::from_secs(90);
/// Why something about a trial isn't done. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// There is one already.
    #[error("another file is on trial for {left_s} s yet; confirm it or take it back first")]
    UnderWay {
        /// How long, in seconds.
        left_s: u64,
    },
    /// There is none.
    #[error("no file is on trial: it was confirmed or taken back before")]
    None,
}

#[derive(Clone, Debug)]
pub(super) struct Trial {
    pub(super) deadline: Duration,
    before: Setting,
    /// What was known of the ways to the internet that the trial changed.
    uplinks: BTreeMap<Name, Uplink>,
}

impl Machine {
    /// Puts another file in the place of the one in force, without a trial: it changed on the disk.
    ///
    /// # Errors
    /// [`TrialError::UnderWay`].
    pub fn handle_setting(&mut self, setting: Setting, now: Duration) -> Result<(), TrialError> {
        self.refuse_second(now)?;
        self.change(setting);
        self.think(now);
        Ok(())
    }

    /// Puts a file on trial. Returns how long it is.
    ///
    /// # Errors
    /// [`TrialError::UnderWay`].
    pub fn handle_trial(
        &mut self,
        setting: Setting,
        now: Duration,
    ) -> Result<Duration, TrialError> {
        self.refuse_second(now)?;
        let (before, uplinks) = self.change(setting);
        self.trial = Some(Trial {
            deadline: now + TRIAL,
            before,
            uplinks,
        });
        self.tell(Event::Trial {
            lasts_s: TRIAL.as_secs(),
        });
        self.think(now);
        Ok(TRIAL)
    }

    /// Ends a trial for good: the file is the one in force.
    ///
    /// # Errors
    /// [`TrialError::None`].
    pub fn handle_confirmed(&mut self, now: Duration) -> Result<(), TrialError> {
        self.trial.take().ok_or(TrialError::None)?;
        self.tell(Event::Confirmed);
        self.think(now);
        Ok(())
    }

    /// Takes the file on trial back before its time.
    ///
    /// # Errors
    /// [`TrialError::None`].
    pub fn handle_revert(&mut self, now: Duration) -> Result<(), TrialError> {
        if self.trial.is_none() {
            return Err(TrialError::None);
        }
        self.take_back("somebody asked for it", now);
        Ok(())
    }

    /// The file that counts now.
    pub fn setting(&self) -> &Setting {
        &self.setting
    }

    /// How long a trial lasts yet; None if there is none.
    pub fn trial_left(&self, now: Duration) -> Option<Duration> {
        let trial = self.trial.as_ref()?;
        Some(trial.deadline.saturating_sub(now))
    }

    fn refuse_second(&self, now: Duration) -> Result<(), TrialError> {
        match self.trial_left(now) {
            Some(left) => Err(TrialError::UnderWay {
                left_s: left.as_secs(),
            }),
            None => Ok(()),
        }
    }

    /// Takes another file; returns the one before, and what was known of ways that are others now.
    fn change(&mut self, setting: Setting) -> (Setting, BTreeMap<Name, Uplink>) {
        let before = std::mem::replace(&mut self.setting, setting);
        let wans = self.setting.house.wans();
        let is_same = |wan: &Wan| wans.iter().any(|new| is_same_way(new, wan));
        let mut changed = BTreeMap::new();
        for wan in before.house.wans().iter().filter(|wan| !is_same(wan)) {
            if let Some(uplink) = self.uplinks.remove(&wan.name) {
                changed.insert(wan.name.clone(), uplink.unasked());
            }
        }
        self.applied = None;
        (before, changed)
    }

    pub(super) fn take_back(&mut self, why: &'static str, now: Duration) {
        let Some(trial) = self.trial.take() else {
            return;
        };
        self.change(trial.before);
        for (name, uplink) in trial.uplinks {
            self.uplinks.entry(name).or_insert(uplink);
        }
        self.wishes.push_back(Wish::DropTrial);
        self.tell(Event::TakenBack { why });
        self.think(now);
    }
}

/// Whether what is known of a way to the internet holds for another one too.
fn is_same_way(one: &Wan, other: &Wan) -> bool {
    one.name == other.name
        && one.interface == other.interface
        && one.line == other.line
        && one.mac == other.mac
        && one.way == other.way
}
