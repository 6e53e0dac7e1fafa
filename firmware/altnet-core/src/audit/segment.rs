//! The files: a header, then entries, each in a frame with half of the chain's hash behind it.

use alloc::vec::Vec;

use altnet_wire::audit::{self, NO_ENTRIES};
use altnet_wire::hash::{HASH_BYTES, Hash, labelled};

use super::entry::{Entry, MAX_ENTRY_BYTES};

const MAGIC: [u8; 4] = *b"ALTA";
const VERSION: u8 = 1;
const CHECK_BYTES: usize = 16;
const LENGTH_BYTES: usize = 2;
/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 4 + 1 + 3 + 8 + HASH_BYTES + CHECK_BYTES;
/// Bytes of the largest frame.
pub const MAX_FRAME_BYTES: usize = LENGTH_BYTES + MAX_ENTRY_BYTES + CHECK_BYTES;
/// The most that is appended before it is synced. A power cut leaves any part of that much.
pub const MAX_APPEND_BYTES: usize = 8192;

/// Where the chain has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// The last entry's number; 0 before the first.
    pub sequence: u64,
    /// The hash there.
    pub hash: Hash,
}

impl Default for End {
    fn default() -> Self {
        Self {
            sequence: 0,
            hash: NO_ENTRIES,
        }
    }
}

/// What one entry adds to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The entry's number.
    pub sequence: u64,
    /// Its digest.
    pub digest: Hash,
    /// The chain's hash after it.
    pub hash: Hash,
    /// Whether it is a countersignature: these ask for none themselves.
    pub is_testimony: bool,
}

impl End {
    /// The next entry's place.
    pub(super) fn then(self, entry: &[u8], is_testimony: bool) -> Link {
        let digest = audit::digest(entry);
        Link {
            sequence: self.sequence.saturating_add(1),
            digest,
            hash: audit::next(&self.hash, &digest),
            is_testimony,
        }
    }
}

impl From<Link> for End {
    fn from(link: Link) -> Self {
        Self {
            sequence: link.sequence,
            hash: link.hash,
        }
    }
}

/// What a segment begins with: where the chain stood before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The end of the segment before.
    pub previous: End,
}

impl Header {
    /// Writes it.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[8..16].copy_from_slice(&self.previous.sequence.saturating_add(1).to_be_bytes());
        bytes[16..48].copy_from_slice(&self.previous.hash);
        let check = labelled("altnet audit segment v1", &[&bytes[..48]]);
        bytes[48..].copy_from_slice(&check[..CHECK_BYTES]);
        bytes
    }

    /// Reads it from the beginning of a file; none if it is damaged, cut off, or of a later
    /// version.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let first = u64::from_be_bytes(*bytes[8..].first_chunk()?);
        let header = Self {
            previous: End {
                sequence: first.checked_sub(1)?,
                hash: *bytes[16..].first_chunk()?,
            },
        };
        (header.encode() == *bytes).then_some(header)
    }
}

/// Appends the frame of `entry` to `out`.
pub(super) fn put(entry: &[u8], link: &Link, out: &mut Vec<u8>) {
    let length = u16::try_from(entry.len()).unwrap_or(0);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(entry);
    out.extend_from_slice(link.hash.get(..CHECK_BYTES).unwrap_or_default());
}

/// One frame, its form checked and nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framed<'a> {
    /// The entry's bytes.
    pub bytes: &'a [u8],
    /// What they say.
    pub entry: Entry,
    check: &'a [u8],
}

impl Framed<'_> {
    /// Whether the entry is the one that was written behind `end`.
    pub(super) fn follows(&self, end: End) -> Option<Link> {
        let link = end.then(self.bytes, self.entry.kind == super::Kind::WITNESSED);
        let fits = self.entry.sequence == link.sequence && link.hash.starts_with(self.check);
        fits.then_some(link)
    }
}

/// Takes the first frame off `bytes`; none if what is there is no whole frame.
pub fn take(bytes: &[u8]) -> Option<(Framed<'_>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let (entry, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    let (check, rest) = rest.split_at_checked(CHECK_BYTES)?;
    let framed = Framed {
        bytes: entry,
        entry: Entry::decode(entry).ok()?,
        check,
    };
    Some((framed, rest))
}

/// What the last segment says of where to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tail {
    /// The last entry that fits.
    pub end: End,
    /// The bytes up to there.
    pub whole_bytes: u32,
    /// The bytes behind it, which don't fit.
    pub torn_bytes: u32,
    /// The largest sequence of an entry that reads whole in more than a power cut leaves: the log
    /// was changed.
    pub stray: Option<u64>,
}

/// Reads the last segment as it is found at start, and gives `each` what its entries add to the
/// chain. None if it never got as far as its header.
pub fn resume(segment: &[u8], each: &mut impl FnMut(Link)) -> Option<Tail> {
    let mut end = End::default();
    let mut rest = segment.get(HEADER_BYTES..).unwrap_or_default();
    match Header::parse(segment) {
        Some(header) => {
            end = header.previous;
            while let Some((framed, left)) = take(rest) {
                let Some(link) = framed.follows(end) else {
                    break;
                };
                each(link);
                end = link.into();
                rest = left;
            }
        }
        None => rest = segment,
    }
    let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let tail = Tail {
        end,
        whole_bytes: count(segment.len() - rest.len()),
        torn_bytes: count(rest.len()),
        stray: strays(rest),
    };
    (tail.whole_bytes > 0 || tail.stray.is_some()).then_some(tail)
}

/// The largest sequence of an entry in `bytes`, if they are more than a power cut leaves. (Who
/// would change less could as well cut it off.)
fn strays(bytes: &[u8]) -> Option<u64> {
    (bytes.len() > MAX_APPEND_BYTES)
        .then(|| largest_within(bytes))
        .flatten()
}

/// The largest sequence of whatever still reads as an entry in `bytes`.
pub(super) fn largest_within(mut bytes: &[u8]) -> Option<u64> {
    let mut largest = None;
    while !bytes.is_empty() {
        match take(bytes) {
            Some((framed, rest)) => {
                largest = largest.max(Some(framed.entry.sequence));
                bytes = rest;
            }
            // A frame that is cut off somewhere hides where the next one begins.
            None => bytes = bytes.get(1..).unwrap_or_default(),
        }
    }
    largest
}

/// Every entry of a segment that has its form, with the chain's hash before and after it as it
/// should be: to be shown, not judged.
pub fn entries(segment: &[u8]) -> impl Iterator<Item = (Framed<'_>, End, Link)> {
    let mut end = Header::parse(segment).map_or_else(End::default, |header| header.previous);
    let mut rest = segment.get(HEADER_BYTES..).unwrap_or_default();
    core::iter::from_fn(move || {
        let (framed, left) = take(rest)?;
        rest = left;
        let before = end;
        let link = end.then(framed.bytes, framed.entry.kind == super::Kind::WITNESSED);
        end = link.into();
        Some((framed, before, link))
    })
}

#[cfg(test)]
mod tests {
    use super::super::writing::testing::written;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_changed_anywhere_is_none() {
        let header = Header {
            previous: End {
                sequence: 41,
                hash: [3; 32],
            },
        };
        let mut bytes = header.encode();
        assert_eq!(Header::parse(&bytes), Some(header));
        for at in 0..HEADER_BYTES {
            bytes[at] ^= 1;
            assert_eq!(Header::parse(&bytes), None, "byte {at}");
            bytes[at] ^= 1;
        }
        assert_eq!(Header::parse(&bytes[..HEADER_BYTES - 1]), None);
    }

    #[test]
    fn a_whole_segment_is_gone_on_with_at_its_end() {
        let segments = written(40, 16 << 10);
        let bytes = &segments[0].1;
        let mut links = 0;
        let tail = resume(bytes, &mut |_| links += 1).unwrap();
        assert_eq!((tail.end.sequence, links), (40, 40));
        assert_eq!(tail.whole_bytes as usize, bytes.len());
        assert_eq!((tail.torn_bytes, tail.stray), (0, None));
        assert_eq!(entries(bytes).count(), 40);
    }

    #[test]
    fn what_was_changed_is_not_taken_for_torn() {
        let segments = written(400, 64 << 10);
        let mut bytes = segments[0].1.clone();
        assert!(bytes.len() > 2 * MAX_APPEND_BYTES);
        bytes[HEADER_BYTES + 200] ^= 1;
        let tail = resume(&bytes, &mut |_| {}).unwrap();
        assert_eq!(tail.stray, Some(400));
        bytes[20] ^= 1;
        assert_eq!(resume(&bytes, &mut |_| {}).unwrap().stray, Some(400));
        // A header that was never written whole.
        assert_eq!(resume(&bytes[..30], &mut |_| {}), None);
        assert_eq!(resume(&[0; 64], &mut |_| {}), None);
    }

    proptest! {
        #[test]
        fn a_torn_end_is_cut_at_the_last_whole_entry(cut in 0usize..4000, garbage: std::vec::Vec<u8>) {
            let segments = written(40, 16 << 10);
            let whole = &segments[0].1;
            let cut = HEADER_BYTES + cut % (whole.len() - HEADER_BYTES);
            let torn = [&whole[..cut], &garbage].concat();
            let tail = resume(&torn, &mut |_| {}).unwrap();
            prop_assert!(tail.whole_bytes as usize <= cut || whole.starts_with(&torn[..tail.whole_bytes as usize]));
            prop_assert_eq!((tail.whole_bytes + tail.torn_bytes) as usize, torn.len());
            let again = resume(&torn[..tail.whole_bytes as usize], &mut |_| {}).unwrap();
            prop_assert_eq!((again.end, again.torn_bytes), (tail.end, 0));
        }

        #[test]
        fn no_file_makes_the_reader_panic(bytes: std::vec::Vec<u8>) {
            let _ = resume(&bytes, &mut |_| {});
            let _ = entries(&bytes).count();
        }
    }
}
