//! Reading CBOR as authenticators write it: the CTAP2 canonical form.
//!
//! Borrows from the input and keeps nothing, so that no length it claims is ever reserved. What that
//! form doesn't have (tags, floats, lengths left open) is refused; a number that is longer than it
//! need be isn't, because programs that stand in for authenticators may write so and nothing hangs
//! on it.
//!
//! Source: RFC 8949 section 3; CTAP 2.1 section 8.

/// How deep things may be nested; CTAP2 says 4.
const MAX_DEPTH: usize = 4;

/// The rest of some CBOR.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

/// One item; of an array or a map only how many items or pairs follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A number.
    Integer(i64),
    /// Bytes.
    Bytes(&'a [u8]),
    /// Text.
    Text(&'a str),
    /// So many items.
    Array(u64),
    /// So many pairs.
    Map(u64),
    /// False, true, null or undefined.
    Simple(u8),
}

impl<'a> Reader<'a> {
    /// Reads `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// What hasn't been read.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// The next item; nothing if there is none or it isn't CBOR of that form.
    pub fn item(&mut self) -> Option<Item<'a>> {
        let [first] = *self.take(1)? else {
            return None;
        };
        let (major, more) = (first >> 5, first & 31);
        if major == 7 {
            return (20..=23).contains(&more).then_some(Item::Simple(more));
        }
        let value = self.argument(more)?;
        Some(match major {
            0 => Item::Integer(i64::try_from(value).ok()?),
            1 => Item::Integer(-1 - i64::try_from(value).ok()?),
            2 => Item::Bytes(self.take(value)?),
            3 => Item::Text(std::str::from_utf8(self.take(value)?).ok()?),
            4 => Item::Array(value),
            5 => Item::Map(value),
            _ => return None,
        })
    }

    /// Reads over one item and all that is in it.
    pub fn skip(&mut self) -> Option<()> {
        self.skip_at(0)
    }

    fn skip_at(&mut self, depth: usize) -> Option<()> {
        let inner = match self.item()? {
            Item::Array(count) => count,
            Item::Map(count) => count.checked_mul(2)?,
            _ => return Some(()),
        };
        if depth == MAX_DEPTH {
            return None;
        }
        // Each takes a byte at least, so this ends with the input.
        for _ in 0..inner {
            self.skip_at(depth + 1)?;
        }
        Some(())
    }

    fn argument(&mut self, more: u8) -> Option<u64> {
        let bytes = match more {
            0..=23 => return Some(more.into()),
            24 => self.take(1)?,
            25 => self.take(2)?,
            26 => self.take(4)?,
            27 => self.take(8)?,
            _ => return None,
        };
        Some(bytes.iter().fold(0, |value, b| value << 8 | u64::from(*b)))
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: Option<Item<'_>>) {
        assert_eq!(Reader::new(bytes).item(), expected, "{bytes:?}");
    }

    #[test]
    fn items_are_read() {
        // RFC 8949 appendix A.
        check(&[0x00], Some(Item::Integer(0)));
        check(&[0x17], Some(Item::Integer(23)));
        check(&[0x18, 0x18], Some(Item::Integer(24)));
        check(&[0x19, 0x03, 0xe8], Some(Item::Integer(1000)));
        check(&[0x20], Some(Item::Integer(-1)));
        check(&[0x39, 0x03, 0xe7], Some(Item::Integer(-1000)));
        check(&[0x44, 1, 2, 3, 4], Some(Item::Bytes(&[1, 2, 3, 4])));
        check(&[0x64, b'I', b'E', b'T', b'F'], Some(Item::Text("IETF")));
        check(&[0x83, 1, 2, 3], Some(Item::Array(3)));
        check(&[0xa2, 1, 2, 3, 4], Some(Item::Map(2)));
        check(&[0xf5], Some(Item::Simple(21)));
        // Longer than it need be.
        check(&[0x19, 0x00, 0x07], Some(Item::Integer(7)));
    }

    #[test]
    fn what_authenticators_do_not_write_is_refused() {
        for bytes in [
            &[][..],
            &[0x44, 1, 2, 3],          // cut off
            &[0x62, 0xff, 0xff],       // not UTF-8
            &[0x5f, 0x41, 0x00, 0xff], // a length left open
            &[0xc0, 0x60],             // a tag
            &[0xf9, 0x00, 0x00],       // a float
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            check(bytes, None);
        }
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert!(Reader::new(&nested(MAX_DEPTH)).skip().is_some());
        assert!(Reader::new(&nested(MAX_DEPTH + 1)).skip().is_none());
        // A map that claims to be enormous.
        let claims = [0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(Reader::new(&claims).skip().is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.skip().is_some() {}
            prop_assert!(reader.rest().len() <= bytes.len());
        }
    }
}
