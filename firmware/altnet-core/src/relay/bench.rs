//! How quick a relay is, measured by what a node sends itself through it.
//!
//! In: numbers that came back, the time. Out: numbers to send now, and a [`Report`] at the end. First
//! come some small datagrams, for the round trip; then trains of large ones, each paced and twice as
//! fast as the one before, until one comes back slower than it left, or incomplete. No more is
//! sent than was allowed. Each passes the line twice, up and down.
//!
//! Deliberately absent: what the datagrams look like, and how they get to the relay.

use alloc::vec::Vec;

use altnet_wire::time::{Duration, Instant};

/// The bytes of a large datagram: with the relay's header it fits the least MTU of IPv6.
pub const TRAIN_BYTES: u16 = 1180;
/// The bytes of a small one.
pub const PING_BYTES: u16 = 64;
/// The most bytes that may be allowed.
pub const MOST_BYTES: u32 = 64_000_000;
/// What is allowed unless somebody says otherwise.
pub const USUAL_BYTES: u32 = 2_000_000;

/// Small datagrams.
const PINGS: usize = 10;
/// The pause between two.
const PING_PAUSE: Duration = Duration::from_millis(100);
/// How long the last are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long large ones are sent at most.
const LONGEST: Duration = Duration::from_secs(3);
/// A train takes a round trip, within these.
const TRAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// The rate of the first, in bytes a second: 1 Mbit/s.
const FIRST_RATE: u64 = 125_000;
/// The most trains.
const TRAINS: usize = 64;
/// How far behind its pace a driver may catch up.
const CATCH_UP: Duration = Duration::from_millis(10);

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this number, in so many bytes.
    Send {
        /// The number.
        sequence: u32,
        /// The bytes.
        bytes: u16,
    },
    /// Wait until then, or until something comes back.
    Wait(Instant),
    /// It is over.
    End(Report),
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Small datagrams sent, and those that came back.
    pub pings: (u16, u16),
    /// The least round-trip time of those.
    pub rtt_least: Option<Duration>,
    /// The median.
    pub rtt_median: Option<Duration>,
    /// Large ones sent, and those that came back.
    pub datagrams: (u32, u32),
    /// What the relay carried there and back at once, in bytes a second each way, at its best. At
    /// least that, if even the last train came back whole and in time.
    pub rate_bytes_per_s: Option<u64>,
    /// Whether it may be more: the bytes that were allowed ended before a limit was reached.
    pub is_at_least: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ping {
    sent: Instant,
    took: Option<Duration>,
}

/// Datagrams that were sent at one pace.
#[derive(Clone, Copy, Debug)]
struct Train {
    first: u32,
    sent: u32,
    rate: u64,
    began: Instant,
    came: u32,
    came_first: Instant,
    came_last: Instant,
}

impl Train {
    /// How fast it came back; no faster than it left.
    fn delivered(&self, least: Duration) -> u64 {
        let took = self.came_last.saturating_since(self.came_first).max(least);
        let micros = took.as_micros().max(1);
        let bytes = u128::from(self.came) * u128::from(TRAIN_BYTES);
        let rate = bytes.saturating_mul(1_000_000) / micros;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn is_whole(&self) -> bool {
        self.came >= self.sent - self.sent / 10
    }
}

#[derive(Debug)]
enum Phase {
    Pings,
    Trains {
        rtt: Duration,
        until: Instant,
        next: Instant,
    },
    Waits {
        rtt: Duration,
        until: Instant,
    },
    Over,
}

/// One run.
#[derive(Debug)]
pub struct Bench {
    phase: Phase,
    pings: heapless::Vec<Ping, PINGS>,
    trains: heapless::Vec<Train, TRAINS>,
    next_ping: Instant,
    /// Numbers of trains, from zero: one bit each that came back.
    came: Vec<u64>,
    sent: u32,
    most: u32,
    /// A limit was found: no train is faster than this any more.
    limit: Option<u64>,
}

impl Bench {
    /// A run that sends trains of at most `bytes` in all, and no more than [`MOST_BYTES`].
    pub fn new(bytes: u32, now: Instant) -> Self {
        let most = bytes.min(MOST_BYTES) / u32::from(TRAIN_BYTES);
        let words = usize::try_from(most / 64 + 1).unwrap_or(1);
        Self {
            phase: Phase::Pings,
            pings: heapless::Vec::new(),
            trains: heapless::Vec::new(),
            next_ping: now,
            came: alloc::vec![0; words],
            sent: 0,
            most,
            limit: None,
        }
    }

    /// A number came back.
    pub fn came(&mut self, sequence: u32, now: Instant) {
        let place = usize::try_from(sequence).unwrap_or(usize::MAX);
        if let Some(ping) = self.pings.get_mut(place) {
            ping.took.get_or_insert(now.saturating_since(ping.sent));
            return;
        }
        let Some(number) = sequence
            .checked_sub(PINGS as u32)
            .filter(|n| *n < self.sent)
        else {
            return;
        };
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        let Some(word) = self.came.get_mut(word) else {
            return;
        };
        let bit = 1 << (number % 64);
        if *word & bit != 0 {
            // The way doubled it.
            return;
        }
        *word |= bit;
        if let Some(train) = self.trains.iter_mut().rev().find(|t| t.first <= number) {
            if train.came == 0 {
                train.came_first = now;
            }
            train.came += 1;
            train.came_last = now;
        }
    }

    /// What to do now, until it says [`Step::Wait`].
    pub fn poll(&mut self, now: Instant) -> Step {
        match self.phase {
            Phase::Pings => self.ping(now),
            Phase::Trains { rtt, until, next } => self.send(rtt, until, next, now),
            Phase::Waits { until, .. } if now < until && !self.has_all() => Step::Wait(until),
            Phase::Waits { rtt, .. } => {
                self.phase = Phase::Over;
                Step::End(self.report(rtt))
            }
            Phase::Over => Step::Wait(Instant::NEVER),
        }
    }

    /// When [`Bench::poll`] next has something to say by itself.
    pub fn deadline(&self) -> Instant {
        match self.phase {
            Phase::Pings if self.pings.is_full() => self.pings_end(),
            Phase::Pings => self.next_ping,
            Phase::Trains { next, .. } => next,
            Phase::Waits { until, .. } => until,
            Phase::Over => Instant::NEVER,
        }
    }

    fn ping(&mut self, now: Instant) -> Step {
        if self.next_ping > now && !self.pings.is_full() {
            return Step::Wait(self.next_ping);
        }
        let sequence = self.pings.len() as u32;
        let ping = Ping {
            sent: now,
            took: None,
        };
        if self.pings.push(ping).is_ok() {
            self.next_ping = now.after(PING_PAUSE);
            return Step::Send {
                sequence,
                bytes: PING_BYTES,
            };
        }
        if self.pings_end() > now {
            return Step::Wait(self.pings_end());
        }
        let rtt = self.median();
        self.phase = match rtt {
            Some(rtt) if self.most > 0 => Phase::Trains {
                rtt,
                until: now.after(LONGEST),
                next: now,
            },
            _ => Phase::Waits {
                rtt: Duration::ZERO,
                until: now,
            },
        };
        self.poll(now)
    }

    /// Until when answers to pings are waited for.
    fn pings_end(&self) -> Instant {
        let has_all = self.pings.iter().all(|ping| ping.took.is_some());
        let last = self.pings.last().map_or(Instant::ZERO, |ping| ping.sent);
        if has_all { last } else { last.after(PATIENCE) }
    }

    fn median(&self) -> Option<Duration> {
        let took = self.pings.iter().filter_map(|ping| ping.took);
        let mut took: heapless::Vec<Duration, PINGS> = took.collect();
        took.sort_unstable();
        took.get(took.len() / 2).copied()
    }

    fn send(&mut self, rtt: Duration, until: Instant, next: Instant, now: Instant) -> Step {
        if next > now {
            return Step::Wait(next);
        }
        let length = rtt.max(TRAIN.0).min(TRAIN.1);
        let is_due = match self.trains.last() {
            Some(train) => now.saturating_since(train.began) >= length,
            None => true,
        };
        let has_room = self.sent < self.most && now < until;
        let begun = has_room && (!is_due || self.begin_train(length, now));
        let Some(train) = self.trains.last_mut().filter(|_| begun) else {
            let until = now.after(rtt * 2).after(PATIENCE);
            self.phase = Phase::Waits { rtt, until };
            return self.poll(now);
        };
        train.sent += 1;
        let pause = u64::from(TRAIN_BYTES) * 1_000_000 / train.rate.max(1);
        // No more at once than a driver that was late has to.
        let earliest =
            Instant::from_micros(now.as_micros().saturating_sub(CATCH_UP.as_micros() as u64));
        let next = next
            .max(earliest)
            .after(Duration::from_micros(pause.max(1)));
        self.phase = Phase::Trains { rtt, until, next };
        let sequence = PINGS as u32 + self.sent;
        self.sent += 1;
        Step::Send {
            sequence,
            bytes: TRAIN_BYTES,
        }
    }

    /// Begins the next train, by what became of those whose last is overdue or back. False once there
    /// are as many as there may be.
    fn begin_train(&mut self, length: Duration, now: Instant) -> bool {
        let rate = match self.trains.last() {
            None => FIRST_RATE,
            Some(last) => {
                let before = self.trains.iter().rev().nth(1);
                let slow = before.filter(|train| {
                    !train.is_whole() || train.delivered(length) < train.rate / 5 * 4
                });
                if let (Some(slow), None) = (slow, self.limit) {
                    self.limit = Some(slow.delivered(length).max(FIRST_RATE));
                }
                let faster = last.rate.saturating_mul(2);
                self.limit.map_or(faster, |limit| faster.min(limit))
            }
        };
        let train = Train {
            first: self.sent,
            sent: 0,
            rate,
            began: now,
            came: 0,
            came_first: Instant::ZERO,
            came_last: Instant::ZERO,
        };
        self.trains.push(train).is_ok()
    }

    fn has_all(&self) -> bool {
        self.trains.iter().all(|train| train.came == train.sent)
    }

    fn report(&self, rtt: Duration) -> Report {
        let length = rtt.max(TRAIN.0).min(TRAIN.1);
        let took = self.pings.iter().filter_map(|ping| ping.took);
        let came: u32 = self.trains.iter().map(|train| train.came).sum();
        // The last may be a short one: as if it had taken its whole time.
        let best = self
            .trains
            .iter()
            .map(|train| train.delivered(length))
            .max();
        let is_limited = self.trains.iter().any(|train| {
            let is_full = train.sent > 1 && !train.is_whole();
            is_full || train.came_last.saturating_since(train.came_first) > length + length / 4
        });
        Report {
            pings: (self.pings.len() as u16, took.clone().count() as u16),
            rtt_least: took.min(),
            rtt_median: self.median(),
            datagrams: (self.sent, came),
            rate_bytes_per_s: best.filter(|_| came > 0),
            is_at_least: came > 0 && !is_limited,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A relay at such a distance that carries so much a second, and loses what waits too long or one
    /// in `loses`.
    struct Line {
        rtt: Duration,
        rate: u64,
        loses: u32,
    }

    /// Runs one; returns what it found, what it sent in trains, and how long it took.
    fn run(line: &Line, bytes: u32) -> (Report, u32, Duration) {
        let began = Instant::from_micros(1_000_000);
        let (mut now, mut bench) = (began, Bench::new(bytes, began));
        let mut under_way: BTreeMap<(Instant, u32), u32> = BTreeMap::new();
        let (mut free_at, mut sent, mut count) = (began, 0, 0);
        loop {
            match bench.poll(now) {
                Step::Send { sequence, bytes } => {
                    count += 1;
                    if bytes == TRAIN_BYTES {
                        sent += u32::from(bytes);
                    }
                    let takes = u64::from(bytes) * 1_000_000 / line.rate;
                    let waits = free_at.saturating_since(now);
                    let is_lost = line.loses > 0 && count % line.loses == 0;
                    if waits > Duration::from_millis(100) || is_lost {
                        continue;
                    }
                    free_at = free_at.max(now).after(Duration::from_micros(takes));
                    under_way.insert((free_at.after(line.rtt), sequence), sequence);
                }
                Step::Wait(at) => {
                    assert!(at > now, "it waits for the past");
                    assert_eq!(at, bench.deadline());
                    let first = under_way.first_key_value().map(|((at, _), _)| *at);
                    now = at.min(first.unwrap_or(Instant::NEVER));
                    assert!(now < Instant::NEVER, "it waits for ever");
                    while let Some(entry) = under_way.first_entry().filter(|e| e.key().0 <= now) {
                        let sequence = entry.remove();
                        bench.came(sequence, now);
                        // The way doubles some.
                        bench.came(sequence, now);
                    }
                }
                Step::End(report) => {
                    assert_eq!(bench.poll(now), Step::Wait(Instant::NEVER));
                    return (report, sent, now.saturating_since(began));
                }
            }
        }
    }

    fn check(rtt_ms: u64, rate: u64, loses: u32, bytes: u32) -> Report {
        let line = Line {
            rtt: Duration::from_millis(rtt_ms),
            rate,
            loses,
        };
        let (report, sent, took) = run(&line, bytes);
        assert!(sent <= bytes, "{sent} of {bytes}");
        assert!(took <= Duration::from_secs(8), "{took:?}");
        report
    }

    #[test]
    fn a_lines_round_trip_and_rate_are_found() {
        for (rtt_ms, rate) in [
            (20, 1_250_000),
            (5, 500_000),
            (200, 250_000),
            (40, 6_000_000),
        ] {
            let report = check(rtt_ms, rate, 0, 8_000_000);
            assert_eq!(report.pings, (10, 10));
            let rtt = report.rtt_median.unwrap().as_micros() / 1000;
            assert!((rtt_ms..=rtt_ms + 2).contains(&(rtt as u64)), "{report:?}");
            let found = report.rate_bytes_per_s.unwrap();
            assert!(
                (rate * 7 / 10..=rate * 11 / 10).contains(&found),
                "{rate}: {report:?}"
            );
            assert!(!report.is_at_least, "{report:?}");
        }
    }

    #[test]
    fn few_bytes_show_what_a_fast_line_carries_at_least() {
        let report = check(20, 100_000_000, 0, USUAL_BYTES);
        assert!(report.is_at_least, "{report:?}");
        assert!(report.rate_bytes_per_s.unwrap() > 2_000_000, "{report:?}");
    }

    #[test]
    fn losses_are_counted() {
        let report = check(20, 1_250_000, 5, USUAL_BYTES);
        assert_eq!(report.pings, (10, 8));
        let (sent, came) = report.datagrams;
        assert!(came <= sent * 4 / 5 + 1 && came > 0, "{report:?}");
    }

    #[test]
    fn a_relay_that_answers_nothing_is_sent_ten_small_ones_and_no_more() {
        let report = check(20, 1_250_000, 1, USUAL_BYTES);
        assert_eq!((report.pings, report.datagrams), ((10, 0), (0, 0)));
        assert_eq!((report.rtt_median, report.rate_bytes_per_s), (None, None));
    }

    #[test]
    fn what_was_never_sent_does_not_count() {
        let now = Instant::from_micros(1_000_000);
        let mut bench = Bench::new(USUAL_BYTES, now);
        for sequence in [0, 9, 10, 11, 5000, u32::MAX] {
            bench.came(sequence, now);
        }
        let Step::Send { sequence: 0, .. } = bench.poll(now) else {
            panic!("the first is sent at once");
        };
        assert_eq!(bench.median(), None);
        // Nor does a run that may send nothing.
        assert_eq!(check(20, 1_250_000, 0, 0).datagrams, (0, 0));
    }
}
