//! Times as altnetd writes them.

use altnet_wire::time::UnixTime;

/// Reads what [`UnixTime`] is written as: `2026-12-01T00:04:01Z`.
pub fn moment(text: &str) -> Option<UnixTime> {
    let bytes = text.as_bytes();
    let is_mark = |(at, mark): (usize, u8)| bytes.get(at) == Some(&mark);
    let marks = [
        (4, b'-'),
        (7, b'-'),
        (10, b'T'),
        (13, b':'),
        (16, b':'),
        (19, b'Z'),
    ];
    if bytes.len() != 20 || !marks.into_iter().all(is_mark) {
        return None;
    }
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten()
    };
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is_good = year >= 1970
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !is_good {
        return None;
    }
    // Days from civil, H. Hinnant, "chrono-compatible low-level date algorithms".
    let year = if month <= 2 { year - 1 } else { year };
    let (era, yoe) = (year / 400, year % 400);
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    let days = (era * 146_097 + doe).checked_sub(719_468)?;
    Some(UnixTime::from_secs(
        days * 86_400 + hour * 3600 + minute * 60 + second,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_time_is_none() {
        for bad in [
            "",
            "never",
            "2026-12-01",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-12-01T24:00:00Z",
            "2026-12-01 00:00:00Z",
            "+026-12-01T00:00:00Z",
            "2026-12-01T00:00:0\u{e9}",
        ] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_time_that_is_written_is_read(seconds in 0u64..253_402_300_800) {
            let time = UnixTime::from_secs(seconds);
            prop_assert_eq!(moment(&time.to_string()), Some(time));
        }

        #[test]
        fn no_text_panics(text: String, other in "[0-9TZ:-]{20}") {
            let _ = (moment(&text), moment(&other));
        }
    }
}
