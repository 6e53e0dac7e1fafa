//! When windows are open: local time from the calendar, by a POSIX rule for summer time.
//!
//! In: the time, if it is known. Out: which conditions hold, one bit each.

use altnet_wire::policy::{DAY_MINUTES, Span, Switch, Window, Zone};
use altnet_wire::time::UnixTime;

/// Conditions of rules, one bit each: the windows by their places, then [`FRESH`].
pub(super) type Conditions = u64;

/// A head is held that is not stale.
pub(super) const FRESH: Conditions = 1 << 63;

const MINUTE_S: u64 = 60;
const DAYS_OF_WEEK: i64 = 7;

/// The windows that are open at `time`; while it isn't known those that say so.
pub(super) fn open(windows: &[Window], zone: &Zone, time: Option<UnixTime>) -> Conditions {
    let local = time.map(|time| local_minute(zone, time));
    let is_open = |window: &Window| match local {
        None => window.open_without_clock,
        Some(minute) => window.spans.iter().any(|span| is_within(span, minute)),
    };
    let bits = windows.iter().zip(0u32..63);
    bits.filter(|(window, _)| is_open(window))
        .fold(0, |open, (_, bit)| open | 1 << bit)
}

/// Minutes of local time since 1970 began there.
fn local_minute(zone: &Zone, time: UnixTime) -> i64 {
    // Past what an i64 holds of minutes there is no calendar to be right about.
    let utc = i64::try_from(time.as_secs() / MINUTE_S).unwrap_or(0);
    let standard = utc + i64::from(zone.offset_min);
    let Some(summer) = &zone.summer else {
        return standard;
    };
    let summer_time = utc + i64::from(summer.offset_min);
    let year = year_of(standard.div_euclid(i64::from(DAY_MINUTES)));
    // Each end is given in the time that holds before it (POSIX, TZ).
    let begins = switch_minute(year, &summer.begins);
    let ends = switch_minute(year, &summer.ends);
    let after_begin = standard >= begins;
    let before_end = summer_time < ends;
    let is_summer = match begins < ends {
        true => after_begin && before_end,
        // South of the equator summer goes over the end of the year.
        false => after_begin || before_end,
    };
    if is_summer { summer_time } else { standard }
}

/// The minute of local time at which clocks change in `year`.
fn switch_minute(year: i64, switch: &Switch) -> i64 {
    let first = days_from_civil(year, i64::from(switch.month));
    let wanted = i64::from(switch.weekday);
    let mut day = first + (wanted - weekday_from_sunday(first)).rem_euclid(DAYS_OF_WEEK);
    day += DAYS_OF_WEEK * (i64::from(switch.week) - 1);
    let (next_year, next_month) = match switch.month {
        12 => (year + 1, 1),
        month => (year, i64::from(month) + 1),
    };
    // Week 5 is the last, which may be the fourth.
    if day >= days_from_civil(next_year, next_month) {
        day -= DAYS_OF_WEEK;
    }
    day * i64::from(DAY_MINUTES) + i64::from(switch.minute)
}

fn is_within(span: &Span, minute: i64) -> bool {
    let day = minute.div_euclid(i64::from(DAY_MINUTES));
    let of_day = u16::try_from(minute.rem_euclid(i64::from(DAY_MINUTES))).unwrap_or(0);
    let begins_on = |day: i64| span.days & (1 << (weekday_from_sunday(day) + 6).rem_euclid(7)) != 0;
    if span.opens_min < span.closes_min {
        return begins_on(day) && (span.opens_min..span.closes_min).contains(&of_day);
    }
    (begins_on(day) && of_day >= span.opens_min) || (begins_on(day - 1) && of_day < span.closes_min)
}

/// 0 is Sunday. 1970 began on a Thursday.
const fn weekday_from_sunday(day: i64) -> i64 {
    (day + 4).rem_euclid(DAYS_OF_WEEK)
}

/// Days since 1970 of the first of a month.
/// H. Hinnant, "chrono-compatible low-level date algorithms", days_from_civil.
const fn days_from_civil(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The year that a day since 1970 lies in (the same source, civil_from_days).
const fn year_of(day: i64) -> i64 {
    let z = day + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let month = (5 * doy + 2) / 153;
    yoe + era * 400 + if month >= 10 { 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_wire::policy::Summer;
    use proptest::prelude::*;

    /// `CET-1CEST,M3.5.0,M10.5.0/3`, Europe/Berlin.
    const BERLIN: Zone = Zone {
        offset_min: 60,
        summer: Some(Summer {
            offset_min: 120,
            begins: switch(3, 5, 120),
            ends: switch(10, 5, 180),
        }),
    };
    /// `NZST-12NZDT,M9.5.0,M4.1.0/3`, Pacific/Auckland.
    const AUCKLAND: Zone = Zone {
        offset_min: 720,
        summer: Some(Summer {
            offset_min: 780,
            begins: switch(9, 5, 120),
            ends: switch(4, 1, 180),
        }),
    };

    const fn switch(month: u8, week: u8, minute: i16) -> Switch {
        Switch {
            month,
            week,
            weekday: 0,
            minute,
        }
    }

    fn check(zone: &Zone, utc_s: u64, offset_min: i64) {
        let utc = i64::try_from(utc_s / 60).unwrap();
        let local = local_minute(zone, UnixTime::from_secs(utc_s));
        assert_eq!(local - utc, offset_min, "{utc_s}");
    }

    // Seconds as `date -d` and zoneinfo give them.
    #[test]
    fn summer_time_begins_and_ends_when_it_does() {
        check(&BERLIN, 1_774_745_999, 60); // 2026-03-29 01:59:59 CET
        check(&BERLIN, 1_774_746_000, 120);
        check(&BERLIN, 1_792_889_999, 120); // 2026-10-25 02:59:59 CEST
        check(&BERLIN, 1_792_890_000, 60);
        check(&BERLIN, 1_704_067_200, 60);
        check(&AUCKLAND, 1_775_311_199, 780); // 2026-04-05 02:59:59 NZDT
        check(&AUCKLAND, 1_775_311_200, 720);
        check(&AUCKLAND, 1_790_431_199, 720); // 2026-09-27 01:59:59 NZST
        check(&AUCKLAND, 1_790_431_200, 780);
        check(&AUCKLAND, 1_767_225_600, 780);
        check(&Zone::default(), 1_767_225_600, 0);
    }

    #[test]
    fn a_window_is_open_in_its_hours_and_over_midnight() {
        let window = |days, opens_min, closes_min| Window {
            spans: heapless::Vec::from_iter([Span {
                days,
                opens_min,
                closes_min,
            }]),
            open_without_clock: false,
        };
        let check = |window: &Window, utc_s, expected| {
            let time = Some(UnixTime::from_secs(utc_s));
            let open = open(core::slice::from_ref(window), &BERLIN, time);
            assert_eq!(open == 1, expected, "{utc_s}");
        };
        // Monday 2026-11-23 00:00 in Berlin.
        let monday = 1_795_388_400;
        let office = window(0b1_1111, 8 * 60, 18 * 60);
        check(&office, monday + 8 * 3600 - 1, false);
        check(&office, monday + 8 * 3600, true);
        check(&office, monday + 18 * 3600 - 1, true);
        check(&office, monday + 18 * 3600, false);
        check(&office, monday - 12 * 3600, false);
        let friday_night = window(0b1_0000, 22 * 60, 2 * 60);
        let friday = monday + 4 * 86_400;
        check(&friday_night, friday + 22 * 3600, true);
        check(&friday_night, friday + 86_400 + 2 * 3600 - 1, true);
        check(&friday_night, friday + 86_400 + 2 * 3600, false);
        check(&friday_night, friday + 3600, false);
        let whole_day = window(0b100_0000, 0, 1440);
        check(&whole_day, monday - 1, true);
        check(&whole_day, monday, false);
    }

    #[test]
    fn without_a_clock_only_what_says_so_is_open() {
        let window = |open_without_clock| Window {
            spans: heapless::Vec::new(),
            open_without_clock,
        };
        let windows = [window(false), window(true)];
        assert_eq!(open(&windows, &BERLIN, None), 0b10);
    }

    proptest! {
        #[test]
        fn a_day_belongs_to_its_year(day in -800_000i64..3_000_000) {
            let year = year_of(day);
            prop_assert!(days_from_civil(year, 1) <= day && day < days_from_civil(year + 1, 1));
        }

        #[test]
        fn no_time_panics(seconds: u64, offset_min in -1500i16..1500) {
            let zone = Zone { offset_min, ..AUCKLAND };
            let _ = local_minute(&zone, UnixTime::from_secs(seconds));
        }
    }
}
