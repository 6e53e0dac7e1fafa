//! When children start, end and start again.
//!
//! A child that ends by itself is started again after a rest that doubles each time, and is short again after
//! one that ran well. One whose files or arguments changed is ended first. What doesn't end when it is asked to is
//! ended.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::plan::Child;

/// The rest before the first start again.
const FIRST_REST: Duration = Duration::from_secs(1);
/// The longest rest.
const LAST_REST: Duration = Duration::from_secs(60);
/// How long a child runs until it counts as one that runs well.
const RUNS_WELL: Duration = Duration::from_secs(60);
/// How long a child has to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Start(Child),
    End(String),
    Kill(String),
    /// It ended by itself, and rests for so long.
    Tell {
        name: String,
        how: String,
        rest: Duration,
    },
}

/// How a child is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChildStatus {
    /// Its name.
    pub name: String,
    /// `runs`, `waits` for its interfaces, `rests` after it ended by itself, `ends`.
    pub state: &'static str,
    /// How often it ended by itself since the router began.
    pub failures: u32,
    /// How it ended last.
    pub last: Option<String>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Children(BTreeMap<String, State>);

#[derive(Clone, Debug)]
struct State {
    wanted: Option<Child>,
    stage: Stage,
    rest: Duration,
    failures: u32,
    last: Option<String>,
}

#[derive(Clone, Debug)]
enum Stage {
    Waits,
    Rests { until: Duration },
    Runs { child: Box<Child>, since: Duration },
    Ends { kill_at: Option<Duration> },
}

impl Children {
    /// Takes over what is wanted from now on.
    pub(super) fn want(&mut self, children: &[Child]) {
        for (name, state) in &mut self.0 {
            if !children.iter().any(|child| child.name == *name) {
                state.wanted = None;
            }
        }
        for child in children {
            let state = self.0.entry(child.name.clone()).or_insert_with(|| State {
                wanted: None,
                stage: Stage::Waits,
                rest: FIRST_REST,
                failures: 0,
                last: None,
            });
            // What is new has no past.
            if let Stage::Rests { .. } = state.stage
                && state.wanted.as_ref() != Some(child)
            {
                state.stage = Stage::Waits;
            }
            state.wanted = Some(child.clone());
        }
    }

    /// Notes that one ended, whoever wanted it.
    pub(super) fn ended(&mut self, name: &str, how: &str, now: Duration) -> Option<Act> {
        let state = self.0.get_mut(name)?;
        match &state.stage {
            Stage::Runs { since, .. } => {
                if now.saturating_sub(*since) >= RUNS_WELL {
                    state.rest = FIRST_REST;
                }
                let rest = state.rest;
                state.stage = Stage::Rests { until: now + rest };
                state.rest = (rest * 2).min(LAST_REST);
                state.failures = state.failures.saturating_add(1);
                state.last = Some(how.into());
                Some(Act::Tell {
                    name: name.into(),
                    how: how.into(),
                    rest,
                })
            }
            Stage::Ends { .. } => {
                state.stage = Stage::Waits;
                state.rest = FIRST_REST;
                None
            }
            Stage::Waits | Stage::Rests { .. } => None,
        }
    }

    /// What has to be done now. `is_up` says whether an interface is there and up.
    pub(super) fn acts(&mut self, now: Duration, is_up: impl Fn(&str) -> bool) -> Vec<Act> {
        let mut acts = Vec::new();
        for (name, state) in &mut self.0 {
            if let Stage::Rests { until } = state.stage
                && until <= now
            {
                state.stage = Stage::Waits;
            }
            match (&mut state.stage, &state.wanted) {
                (Stage::Waits, Some(wanted)) if wanted.needs.iter().all(|link| is_up(link)) => {
                    acts.push(Act::Start(wanted.clone()));
                    state.stage = Stage::Runs {
                        child: Box::new(wanted.clone()),
                        since: now,
                    };
                }
                (Stage::Runs { child, .. }, wanted) if Some(child.as_ref()) != wanted.as_ref() => {
                    acts.push(Act::End(name.clone()));
                    let kill_at = Some(now + PATIENCE);
                    state.stage = Stage::Ends { kill_at };
                }
                (Stage::Ends { kill_at }, _) if kill_at.is_some_and(|at| at <= now) => {
                    acts.push(Act::Kill(name.clone()));
                    *kill_at = None;
                }
                _ => {}
            }
        }
        self.0.retain(|_, state| {
            let is_gone = matches!(state.stage, Stage::Waits | Stage::Rests { .. });
            state.wanted.is_some() || !is_gone
        });
        acts
    }

    /// When [`Self::acts`] has more to say without anything happening before.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let times = self.0.values().filter_map(|state| match state.stage {
            Stage::Rests { until } => Some(until),
            Stage::Ends { kill_at } => kill_at,
            Stage::Waits | Stage::Runs { .. } => None,
        });
        times.min()
    }

    /// Whether one runs, or waits for its interfaces; not one that ended by itself, and not one that nobody wants.
    pub(super) fn is_well(&self, name: &str) -> bool {
        let state = self.0.get(name);
        state.is_some_and(|state| matches!(state.stage, Stage::Waits | Stage::Runs { .. }))
    }

    pub(super) fn status(&self) -> Vec<ChildStatus> {
        let children = self.0.iter().map(|(name, state)| ChildStatus {
            name: name.clone(),
            state: match state.stage {
                Stage::Waits => "waits",
                Stage::Rests { .. } => "rests",
                Stage::Runs { .. } => "runs",
                Stage::Ends { .. } => "ends",
            },
            failures: state.failures,
            last: state.last.clone(),
        });
        children.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn child(argument: &str) -> Child {
        Child {
            name: "dnsmasq".into(),
            program: "dnsmasq".into(),
            arguments: vec![argument.into()],
            files: Vec::new(),
            needs: vec!["br-lan".into()],
        }
    }

    fn running(at: Duration) -> Children {
        let mut children = Children::default();
        children.want(&[child("a")]);
        assert_eq!(children.acts(at, |_| true), [Act::Start(child("a"))]);
        children
    }

    #[test]
    fn a_child_waits_for_its_interfaces() {
        let mut children = Children::default();
        children.want(&[child("a")]);
        assert_eq!(children.acts(s(1), |_| false), []);
        assert_eq!(children.deadline(), None);
        let is_up = |link: &str| link == "br-lan";
        assert_eq!(children.acts(s(2), is_up), [Act::Start(child("a"))]);
        assert_eq!(children.acts(s(3), is_up), []);
    }

    #[test]
    fn one_that_keeps_ending_rests_longer_each_time() {
        let mut children = running(s(100));
        let mut now = s(100);
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            let told = children.ended("dnsmasq", "exit code 1", now).unwrap();
            assert!(matches!(told, Act::Tell { rest, .. } if rest == s(expected)));
            assert_eq!(children.acts(now, |_| true), []);
            now = children.deadline().unwrap();
            assert_eq!(children.acts(now, |_| true), [Act::Start(child("a"))]);
        }
        // An hour later it counts as one that runs well.
        now += s(3600);
        let told = children.ended("dnsmasq", "signal 9", now).unwrap();
        assert!(matches!(told, Act::Tell { rest, .. } if rest == FIRST_REST));
        assert_eq!(children.status()[0].failures, 9);
    }

    #[test]
    fn one_that_changed_is_ended_and_started_anew() {
        let mut children = running(s(100));
        children.want(&[child("b")]);
        assert_eq!(
            children.acts(s(101), |_| true),
            [Act::End("dnsmasq".into())]
        );
        assert_eq!(children.acts(s(102), |_| true), []);
        assert_eq!(children.ended("dnsmasq", "signal 15", s(103)), None);
        assert_eq!(children.acts(s(103), |_| true), [Act::Start(child("b"))]);
    }

    #[test]
    fn one_that_does_not_end_is_ended_once() {
        let mut children = running(s(100));
        children.want(&[]);
        assert_eq!(
            children.acts(s(100), |_| true),
            [Act::End("dnsmasq".into())]
        );
        let at = children.deadline().unwrap();
        assert_eq!(at, s(100) + PATIENCE);
        assert_eq!(children.acts(at, |_| true), [Act::Kill("dnsmasq".into())]);
        assert_eq!(
            (children.acts(at, |_| true), children.deadline()),
            (vec![], None)
        );
        children.ended("dnsmasq", "signal 9", at);
        assert_eq!(children.acts(at, |_| true), []);
        assert!(children.status().is_empty());
    }

    #[test]
    fn what_changed_while_it_rests_is_tried_at_once() {
        let mut children = running(s(100));
        children.ended("dnsmasq", "exit code 1", s(100));
        children.want(&[child("a")]);
        assert_eq!(children.acts(s(100), |_| true), []);
        children.want(&[child("b")]);
        assert_eq!(children.acts(s(100), |_| true), [Act::Start(child("b"))]);
    }
}
