//! What others cause: the first of it is written, the rest counted, and all of it together has
//! a budget, so that nobody can fill the log.

use alloc::vec::Vec;

use altnet_wire::time::{Duration, Instant};

use super::entry::Fact;

/// How long the same is counted before it is written again; it doubles while it goes on.
const WINDOW: Duration = Duration::from_secs(600);
/// The longest it becomes.
const WINDOW_MOST: Duration = Duration::from_secs(3600);
/// Entries that may be written at once.
const BURST: u32 = 48;
/// One more after each of these: 720 a day, which is below 2 MB in thirty.
const EVERY: Duration = Duration::from_secs(120);

/// Rows beside the bound, of what there is no row for: one for each kind that is counted.
const OTHERS: usize = 8;

/// One thing that goes on.
#[derive(Clone, Debug)]
struct Row {
    fact: Fact,
    count: u64,
    window: Duration,
    due: Instant,
}

/// Rows of a bounded table, and the budget.
#[derive(Debug)]
pub(super) struct Tally {
    rows: Vec<Row>,
    most: usize,
    tokens: u32,
    filled: Instant,
}

impl Tally {
    pub(super) fn new(most: usize, now: Instant) -> Self {
        Self {
            rows: Vec::with_capacity(most.saturating_add(OTHERS)),
            most,
            tokens: BURST,
            filled: now,
        }
    }

    /// Counts a fact. Its first is due at once.
    pub(super) fn count(&mut self, fact: Fact, now: Instant) {
        let same = |row: &&mut Row| {
            let (a, b) = (&row.fact, &fact);
            (a.kind, &a.subject, &a.detail) == (b.kind, &b.subject, &b.detail)
        };
        if let Some(row) = self.rows.iter_mut().find(same) {
            row.count = row.count.saturating_add(fact.count);
            return;
        }
        if self.rows.len() >= self.most {
            let others = Fact::new(fact.kind)
                .about("others")
                .detail("there are too many to tell apart")
                .times(fact.count);
            let is_others = |row: &&mut Row| {
                (row.fact.kind, &row.fact.subject) == (others.kind, &others.subject)
            };
            match self.rows.iter_mut().find(is_others) {
                Some(row) => row.count = row.count.saturating_add(others.count),
                None => self.add(others, now),
            }
            return;
        }
        self.add(fact, now);
    }

    fn add(&mut self, fact: Fact, now: Instant) {
        self.rows.push(Row {
            count: fact.count,
            fact,
            window: WINDOW,
            due: now,
        });
    }

    /// The next fact to write, with how often it was.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Fact> {
        self.fill(now);
        self.rows.retain(|row| row.due > now || row.count > 0);
        let row = self.rows.iter_mut().find(|row| row.due <= now)?;
        self.tokens = self.tokens.checked_sub(1)?;
        let fact = row.fact.clone().times(row.count);
        row.count = 0;
        row.due = now.after(row.window);
        row.window = (row.window * 2).min(WINDOW_MOST);
        Some(fact)
    }

    /// When [`Tally::poll`] has something to do.
    pub(super) fn deadline(&self) -> Instant {
        let due = self.rows.iter().map(|row| row.due);
        let due = due.min().unwrap_or(Instant::NEVER);
        if self.tokens == 0 {
            due.max(self.filled.after(EVERY))
        } else {
            due
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_since(self.filled).as_micros();
        let new = passed / EVERY.as_micros().max(1);
        if new > 0 {
            let new = u32::try_from(new).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(new).min(BURST);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::Kind;
    use super::*;
    use std::format;

    fn fact(who: u64) -> Fact {
        Fact::new(Kind::REFUSED).about(format!("member-{who}"))
    }

    const fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_first_is_written_at_once_and_the_rest_counted() {
        let mut tally = Tally::new(4, at(0));
        tally.count(fact(1), at(0));
        assert_eq!(tally.poll(at(0)), Some(fact(1)));
        for _ in 0..500 {
            tally.count(fact(1), at(5));
        }
        assert_eq!(tally.poll(at(599)), None);
        assert_eq!(tally.deadline(), at(600));
        assert_eq!(tally.poll(at(600)), Some(fact(1).times(500)));
        // It goes on: told half as often.
        tally.count(fact(1), at(601));
        assert_eq!(tally.poll(at(1799)), None);
        assert_eq!(tally.poll(at(1800)), Some(fact(1)));
        // It ended: its row is free, and the next is a first one again.
        assert_eq!(tally.poll(at(9000)), None);
        assert_eq!(tally.deadline(), Instant::NEVER);
    }

    #[test]
    fn nothing_is_lost_when_there_are_too_many_to_tell_apart() {
        let mut tally = Tally::new(4, at(0));
        for who in 0..100 {
            tally.count(fact(who), at(0));
        }
        assert!(tally.rows.len() <= 5);
        let told: u64 = core::iter::from_fn(|| tally.poll(at(0)))
            .map(|fact| fact.count)
            .sum();
        assert_eq!(told, 100);
    }

    #[test]
    fn a_flood_has_a_budget_and_is_counted_meanwhile() {
        let mut tally = Tally::new(32, at(0));
        let (mut told, mut entries) = (0, 0);
        // Another name every second for a day, and all of it once more at the end.
        for second in 0..86_400 {
            tally.count(fact(second), at(second));
            while let Some(fact) = tally.poll(at(second)) {
                told += fact.count;
                entries += 1;
            }
        }
        assert!(entries <= u64::from(BURST) + 720, "{entries}");
        for second in 86_400..90_000 + 86_400 {
            while let Some(fact) = tally.poll(at(second)) {
                told += fact.count;
            }
        }
        assert_eq!(told, 86_400);
    }
}
