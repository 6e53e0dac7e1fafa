//! How much a relay forwards for whom (ADR 0018): each client's share of the line, and what bounds it.
//!
//! In: bytes that a client wants forwarded, the time. Out: whether they pass. The line is shared without
//! queues: every client that sends has a bucket that is filled with an equal part of what the line
//! carries, and may have what the others leave. Half of the line's own burst is kept for those within their share.

use altnet_wire::time::{Duration, Instant};

use crate::derp::rate::{Bucket, Rate};

/// A bucket holds so much: a fiftieth of a second, or a few datagrams.
const BURST_PARTS: u32 = 50;
/// The least that it holds, in bytes.
const BURST_LEAST: u32 = 6_000;
/// Control datagrams of a client that pass though it has had its share: by them paths are measured and found,
/// and a path on which they are lost with everything else looks like one that is broken.
const CONTROL: Rate = Rate {
    per_s: 8_000,
    burst: 16_000,
};
/// Who sent nothing in this second or the one before has no share.
const SECOND_US: u64 = 1_000_000;
/// For how long bytes are counted against [`Quotas::month_bytes`].
pub const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// What a relay forwards at most. Nothing is bounded where it says 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    /// For one member, in bytes a second.
    pub rate_bytes_per_s: u32,
    /// For one member in [`MONTH`], in bytes.
    pub month_bytes: u64,
    /// For all together, in bytes a second: what the relay's line carries upwards.
    pub uplink_bytes_per_s: u32,
}

/// Why a datagram isn't forwarded although its destination is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The member sends faster than any may.
    Rate,
    /// The line is full, and the member has had its share of it.
    Share,
    /// The member has sent as much as it may this month.
    Quota,
}

/// What a client wants forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// How much it is.
    pub bytes: usize,
    /// Whether it is of a control session.
    pub is_control: bool,
}

impl Parcel {
    /// A datagram, without the relay's header.
    pub fn of(datagram: &[u8]) -> Self {
        Self {
            bytes: datagram.len(),
            is_control: matches!(datagram.first(), Some(0x20..=0x2f)),
        }
    }
}

/// What one client sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    rate: Bucket,
    share: Bucket,
    control: Bucket,
    /// The last second in which it sent.
    second: u64,
    /// Bytes forwarded for it since the month began.
    pub(super) bytes: u64,
    /// Datagrams of it that were over.
    pub(super) over: u32,
}

impl Meter {
    /// Of a client that had so many bytes forwarded already.
    pub(super) fn of(bytes: u64) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

/// The line that all share.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) quotas: Quotas,
    whole: Bucket,
    second: u64,
    /// How many clients send in this second, and did in the one before.
    active: u32,
    active_before: u32,
    /// Bytes of this second, and a smooth count of those before.
    bytes: u64,
    smooth: u64,
}

const fn burst(per_s: u32) -> Rate {
    let part = per_s / BURST_PARTS;
    Rate {
        per_s,
        burst: if part > BURST_LEAST {
            part
        } else {
            BURST_LEAST
        },
    }
}

impl Line {
    pub(super) const fn new() -> Self {
        Self {
            quotas: Quotas {
                rate_bytes_per_s: 0,
                month_bytes: 0,
                uplink_bytes_per_s: 0,
            },
            whole: Bucket::FULL,
            second: 0,
            active: 0,
            active_before: 0,
            bytes: 0,
            smooth: 0,
        }
    }

    /// Whether any member is bounded by itself.
    pub(super) const fn bounds_members(&self) -> bool {
        self.quotas.rate_bytes_per_s > 0 || self.quotas.month_bytes > 0
    }

    /// Counts what a client wants forwarded. A linked relay (`is_relay`) has a share of the line, and no bounds
    /// of its own.
    pub(super) fn pass(
        &mut self,
        meter: &mut Meter,
        parcel: Parcel,
        is_relay: bool,
        now: Instant,
    ) -> Result<(), Over> {
        let bytes = u32::try_from(parcel.bytes).unwrap_or(u32::MAX);
        let passed = self.judge(meter, (bytes, parcel.is_control), is_relay, now);
        match passed {
            Ok(()) => {
                meter.bytes = meter.bytes.saturating_add(bytes.into());
                self.bytes = self.bytes.saturating_add(bytes.into());
            }
            Err(_) => meter.over = meter.over.saturating_add(1),
        }
        passed
    }

    fn judge(
        &mut self,
        meter: &mut Meter,
        (bytes, is_control): (u32, bool),
        is_relay: bool,
        now: Instant,
    ) -> Result<(), Over> {
        let Quotas {
            rate_bytes_per_s,
            month_bytes,
            uplink_bytes_per_s,
        } = self.quotas;
        self.turn(now);
        if meter.second != self.second {
            meter.second = self.second;
            self.active = self.active.saturating_add(1);
        }
        if !is_relay && month_bytes > 0 && meter.bytes.saturating_add(bytes.into()) > month_bytes {
            return Err(Over::Quota);
        }
        if !is_relay
            && rate_bytes_per_s > 0
            && !meter.rate.try_take(burst(rate_bytes_per_s), bytes, now)
        {
            return Err(Over::Rate);
        }
        if uplink_bytes_per_s == 0 {
            return Ok(());
        }
        let line = burst(uplink_bytes_per_s);
        if is_control && meter.control.try_take(CONTROL, bytes, now) {
            self.whole.take(line, bytes, now);
            return Ok(());
        }
        let active = self.active.max(self.active_before).max(1);
        let share = burst((uplink_bytes_per_s / active).max(1));
        if meter.share.try_take(share, bytes, now) {
            self.whole.take(line, bytes, now);
            return Ok(());
        }
        // What nobody else wants now.
        let spare = Rate {
            burst: line.burst / 2,
            ..line
        };
        let passes = self.whole.try_take(spare, bytes, now);
        passes.then_some(()).ok_or(Over::Share)
    }

    /// Begins another second, if it is one.
    fn turn(&mut self, now: Instant) {
        // Zero is none: nobody has sent.
        let second = now.as_micros() / SECOND_US + 1;
        let passed = second.saturating_sub(self.second);
        if passed == 0 {
            return;
        }
        self.second = second;
        self.active_before = if passed == 1 { self.active } else { 0 };
        self.active = 0;
        self.smooth = self.smooth_after(passed);
        self.bytes = 0;
    }

    /// The smooth count once so many seconds have passed.
    fn smooth_after(&self, passed: u64) -> u64 {
        let empty = (1..passed.min(16)).map(|_| 0);
        let seconds = core::iter::once(self.bytes).chain(empty);
        seconds.fold(self.smooth, |smooth, bytes| smooth - smooth / 4 + bytes / 4)
    }

    /// How full the line was of late, 0 to 100; 0 if it isn't known what it carries.
    pub(super) fn load(&self, now: Instant) -> u8 {
        let passed = (now.as_micros() / SECOND_US + 1).saturating_sub(self.second);
        let smooth = match passed {
            0 => self.smooth,
            passed => self.smooth_after(passed),
        };
        let whole = u64::from(self.quotas.uplink_bytes_per_s);
        let percent = smooth.saturating_mul(100).checked_div(whole);
        u8::try_from(percent.unwrap_or(0).min(100)).unwrap_or(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// What a line carries in a second here, in bytes.
    const UPLINK: u32 = 1_250_000;
    const DATAGRAM: usize = 1_250;

    const fn data(bytes: usize) -> Parcel {
        Parcel {
            bytes,
            is_control: false,
        }
    }

    fn line(quotas: Quotas) -> Line {
        Line {
            quotas,
            ..Line::new()
        }
    }

    fn shared() -> Line {
        line(Quotas {
            uplink_bytes_per_s: UPLINK,
            ..Quotas::default()
        })
    }

    /// Lets clients send for ten seconds, each so many datagrams a second, evenly. Returns how many of each
    /// passed and how many did not, after the first second.
    fn send(line: &mut Line, rates: &[u32]) -> Vec<(u64, u64)> {
        let mut meters: Vec<Meter> = rates.iter().map(|_| Meter::default()).collect();
        let mut counts = vec![(0, 0); rates.len()];
        let mut owed = vec![0u64; rates.len()];
        for tick in 0..100_000u64 {
            let now = Instant::from_micros(tick * 100);
            for (at, rate) in rates.iter().enumerate() {
                owed[at] += u64::from(*rate);
                while owed[at] >= 10_000 {
                    owed[at] -= 10_000;
                    let passed = line
                        .pass(&mut meters[at], data(DATAGRAM), false, now)
                        .is_ok();
                    if tick >= 10_000 {
                        match passed {
                            true => counts[at].0 += 1,
                            false => counts[at].1 += 1,
                        }
                    }
                }
            }
        }
        counts
    }

    #[test]
    fn who_sends_ten_times_its_share_takes_nothing_from_others() {
        // The line carries 1000 datagrams a second: 333 each.
        let counts = send(&mut shared(), &[3330, 320, 160]);
        assert_eq!((counts[1].1, counts[2].1), (0, 0), "{counts:?}");
        // It has what they leave, and no more.
        let had = counts[0].0;
        assert!((4_400..=4_800).contains(&had), "{counts:?}");
    }

    #[test]
    fn all_who_want_more_than_there_is_have_the_same() {
        let counts = send(&mut shared(), &[1000, 1000, 5000, 600]);
        for (had, _) in &counts {
            assert!((2_100..=2_400).contains(had), "{counts:?}");
        }
    }

    #[test]
    fn one_alone_has_the_whole_line() {
        let counts = send(&mut shared(), &[2000]);
        assert!((8_900..=9_100).contains(&counts[0].0), "{counts:?}");
        let counts = send(&mut shared(), &[900]);
        assert_eq!(counts[0].1, 0, "{counts:?}");
    }

    #[test]
    fn a_member_sends_no_faster_than_any_may() {
        let mut line = line(Quotas {
            rate_bytes_per_s: 125_000,
            ..Quotas::default()
        });
        let counts = send(&mut line, &[90, 500]);
        assert_eq!(counts[0].1, 0);
        assert!((890..=910).contains(&counts[1].0), "{counts:?}");
    }

    #[test]
    fn a_member_sends_no_more_in_a_month_than_any_may_and_a_relay_does() {
        let mut line = line(Quotas {
            month_bytes: 10_000,
            ..Quotas::default()
        });
        let (mut meter, now) = (Meter::default(), Instant::ZERO);
        let pass =
            |line: &mut Line, meter: &mut Meter| line.pass(meter, data(DATAGRAM), false, now);
        assert!((0..8).all(|_| pass(&mut line, &mut meter) == Ok(())));
        assert_eq!(pass(&mut line, &mut meter), Err(Over::Quota));
        assert_eq!((meter.bytes, meter.over), (10_000, 1));
        assert_eq!(line.pass(&mut meter, data(DATAGRAM), true, now), Ok(()));
    }

    #[test]
    fn the_load_is_how_full_the_line_was_and_falls_once_it_is_empty() {
        let mut line = shared();
        send(&mut line, &[500]);
        let at = |s: u64| Instant::from_micros(s * SECOND_US);
        let load = line.load(at(10));
        assert!((45..=55).contains(&load), "{load}");
        assert!(line.load(at(14)) < 20);
        assert_eq!(line.load(at(60)), 0);
        assert_eq!(Line::new().load(at(1)), 0);
    }

    proptest! {
        #[test]
        fn no_more_passes_than_the_line_carries(
            rates in proptest::collection::vec(0..5_000u32, 1..8),
        ) {
            let counts = send(&mut shared(), &rates);
            let all: u64 = counts.iter().map(|(passed, _)| passed).sum();
            prop_assert!(all <= 9_000 + 9_000 / 20, "{:?}", counts);
            // Nobody within its share loses anything.
            let share = 1000 / rates.iter().filter(|rate| **rate > 0).count().max(1) as u32;
            for (rate, (_, lost)) in rates.iter().zip(&counts) {
                prop_assert!(*rate >= share || *lost == 0, "{:?}", counts);
            }
        }
    }

    #[test]
    fn a_little_control_passes_where_data_is_over_and_no_more_than_that() {
        let mut line = shared();
        let mut meter = Meter::default();
        let now = Instant::from_micros(1_000_000);
        while line.pass(&mut meter, data(DATAGRAM), false, now).is_ok() {}
        let control = Parcel::of(&[0x24; 1000]);
        assert!(control.is_control && !Parcel::of(&[4; 1000]).is_control);
        let passed = (0..100).filter(|_| line.pass(&mut meter, control, false, now).is_ok());
        assert_eq!(passed.count(), 16);
    }
}
