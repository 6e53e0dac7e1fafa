//! Which part of a file an answer gives.

use std::fmt;
use std::str::FromStr;

/// What `Content-Range` says of an answer's bytes, as `bytes 5-9/20` (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    first: u64,
    last: u64,
    of: Option<u64>,
}

/// A text that names no part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no part of a file; one is written like `bytes 5-9/20` or `bytes 5-9/*`")]
pub struct NoPart;

impl Part {
    /// Its first byte, counted from 0.
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// How many bytes the whole file has, if that is said: more than [`Part::first`].
    pub const fn of(&self) -> Option<u64> {
        self.of
    }
}

impl FromStr for Part {
    type Err = NoPart;

    fn from_str(text: &str) -> Result<Self, NoPart> {
        let (range, of) = text
            .strip_prefix("bytes ")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(NoPart)?;
        let (first, last) = range.split_once('-').ok_or(NoPart)?;
        let (first, last) = (number(first)?, number(last)?);
        let of = match of {
            "*" => None,
            of => Some(number(of)?),
        };
        let is_there = first <= last && of.is_none_or(|of| last < of);
        is_there.then_some(Self { first, last, of }).ok_or(NoPart)
    }
}

/// Digits and nothing else: `parse` takes a sign too.
fn number(text: &str) -> Result<u64, NoPart> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.parse().ok()).flatten();
    number.ok_or(NoPart)
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {}-{}/", self.first, self.last)?;
        match self.of {
            Some(of) => of.fmt(f),
            None => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_part_is_what_its_answer_says() {
        let check = |text: &str, expected: (u64, Option<u64>)| {
            let part: Part = text.parse().unwrap();
            assert_eq!((part.first(), part.of()), expected, "{text}");
        };
        check("bytes 5-9/20", (5, Some(20)));
        check("bytes 0-0/*", (0, None));
        for bad in [
            "bytes */20",
            "bytes 9-5/20",
            "bytes 5-20/20",
            "bytes +5-9/20",
            "bytes 5-99999999999999999999/*",
            "5-9/20",
            "bytes 5-9",
            "",
        ] {
            assert_eq!(bad.parse::<Part>(), Err(NoPart), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_is_written_as_the_same_part(text in "[bytes 0-9*/+-]{0,60}") {
            if let Ok(part) = text.parse::<Part>() {
                prop_assert_eq!(part.to_string().parse(), Ok(part));
            }
        }

        #[test]
        fn a_part_comes_back_from_what_is_written(first: u64, more in 0u64..1 << 40, behind in 0u64..1 << 40) {
            let last = first.saturating_add(more);
            let of = last.checked_add(behind).and_then(|end| end.checked_add(1));
            let part = Part { first, last, of };
            prop_assert_eq!(part.to_string().parse(), Ok(part));
        }
    }
}
