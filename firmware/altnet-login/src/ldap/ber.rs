//! The part of BER that LDAP uses: one-byte tags and definite lengths (RFC 4511 section 5.1).
//!
//! The reader never goes deeper than it is asked to and copies nothing, so bytes from the network
//! cost neither stack nor memory beyond their own.

use zeroize::Zeroizing;

pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const OCTETS: u8 = 0x04;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Bytes that are not what LDAP says they must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// Joins `parts` under `tag`. Sized beforehand, so that a password leaves no copy behind.
pub(super) fn tlv(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let mut out = Vec::with_capacity(length + 2 + size_of::<usize>());
    out.push(tag);
    if length < 0x80 {
        out.push(length as u8);
    } else {
        let bytes = length.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - zeros) as u8);
        out.extend_from_slice(&bytes[zeros..]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    Zeroizing::new(out)
}

/// A number that is never negative, in as few bytes as BER allows.
pub(super) fn number(tag: u8, value: u32) -> Zeroizing<Vec<u8>> {
    // A leading zero keeps the sign bit clear; a second one must not stay (X.690 section 8.3.2).
    let mut bytes = [0; 5];
    bytes[1..].copy_from_slice(&value.to_be_bytes());
    let mut from = 0;
    while from < 4 && bytes[from] == 0 && bytes[from + 1] < 0x80 {
        from += 1;
    }
    tlv(tag, &[&bytes[from..]])
}

/// How long the element is that `bytes` begins with, header included.
///
/// # Errors
/// `Ok(None)` while the header itself isn't there; [`Malformed`] for a form that LDAP forbids.
pub(super) fn element_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let [tag, first, rest @ ..] = bytes else {
        return Ok(None);
    };
    if tag & 0x1f == 0x1f {
        return Err(Malformed);
    }
    if *first < 0x80 {
        return Ok(Some(2 + usize::from(*first)));
    }
    let count = usize::from(first & 0x7f);
    // 0x80 is the indefinite form; five bytes would be more than anything here is allowed to be.
    if count == 0 || count > 4 {
        return Err(Malformed);
    }
    let Some(length) = rest.get(..count) else {
        return Ok(None);
    };
    let length = length
        .iter()
        .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
    usize::try_from(length + 2 + count as u64)
        .map(Some)
        .map_err(|_| Malformed)
}

/// Takes elements off the front of what it holds.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// The next element's tag and contents.
    pub fn next(&mut self) -> Result<(u8, &'a [u8]), Malformed> {
        let length = element_length(self.0)?.ok_or(Malformed)?;
        let (element, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        let header = if element[1] < 0x80 {
            2
        } else {
            2 + usize::from(element[1] & 0x7f)
        };
        Ok((element[0], &element[header..]))
    }

    pub fn expect(&mut self, tag: u8) -> Result<&'a [u8], Malformed> {
        match self.next()? {
            (found, contents) if found == tag => Ok(contents),
            _ => Err(Malformed),
        }
    }

    pub fn text(&mut self, tag: u8) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.expect(tag)?).map_err(|_| Malformed)
    }

    pub fn number(&mut self, tag: u8) -> Result<u32, Malformed> {
        unsigned(self.expect(tag)?)
    }
}

/// The contents of an INTEGER or ENUMERATED as a number that isn't negative.
pub(super) fn unsigned(contents: &[u8]) -> Result<u32, Malformed> {
    match contents {
        [] => Err(Malformed),
        [first, ..] if *first >= 0x80 => Err(Malformed),
        [0, rest @ ..] if rest.len() <= 4 => Ok(fold(rest)),
        bytes if bytes.len() <= 4 => Ok(fold(bytes)),
        _ => Err(Malformed),
    }
}

fn fold(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(tag in 0u8..0x1f, contents in proptest::collection::vec(any::<u8>(), 0..400)) {
            let bytes = tlv(tag, &[&contents]);
            let mut reader = Reader(&bytes);
            prop_assert_eq!(reader.next(), Ok((tag, contents.as_slice())));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn numbers_survive(value: u32) {
            prop_assert_eq!(Reader(&number(INTEGER, value)).number(INTEGER), Ok(value));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader(&bytes);
            while reader.next().is_ok() {}
        }
    }

    #[test]
    fn forms_that_ldap_forbids_are_refused() {
        for bytes in [
            &[0x30, 0x80][..],
            &[0x30, 0x85, 0, 0, 0, 0, 1][..],
            &[0x1f, 0x01][..],
        ] {
            assert_eq!(element_length(bytes), Err(Malformed));
        }
        assert_eq!(element_length(&[0x30]), Ok(None));
        assert_eq!(element_length(&[0x30, 0x82, 1]), Ok(None));
    }
}
