//! Whether the files are what was written.
//!
//! In: the segments, the oldest first, one at a time. Out: the first fault with its place, or
//! what holds and who vouches for it. Nothing but the files is needed; whoever holds a head of
//! the log from elsewhere gives it too ([`Verifier::expect`]), and an end that was cut off is
//! found then.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use altnet_wire::hash::Hash;
use altnet_wire::id::SigningKey;
use altnet_wire::time::UnixTime;

use super::entry::{Entry, Kind};
use super::proof::Witnessed;
use super::segment::{End, HEADER_BYTES, Header, Link, largest_within, take};

/// How far back a countersignature may reach to be checked. It comes seconds after the head was
/// shown, so a few entries would do.
const RECENT: usize = 1024;
/// Witnesses told apart.
const MAX_WITNESSES: usize = 256;

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// An entry is not the one that was written.
    #[error("entry {sequence} was changed")]
    Changed {
        /// Which.
        sequence: u64,
    },
    /// Entries are gone.
    #[error("entries from {sequence} on are missing; the next that is there is {found}")]
    Missing {
        /// The first that is missing.
        sequence: u64,
        /// The next that is there.
        found: u64,
    },
    /// An entry stands where another should.
    #[error("entry {found} stands where entry {sequence} should: entries were moved or put in")]
    OutOfPlace {
        /// Which should be there.
        sequence: u64,
        /// Which is.
        found: u64,
    },
    /// The end of a file is no whole entry.
    #[error(
        "after entry {after} come {bytes} bytes that are no whole entry; a power cut leaves such an end, which altnetd notes and cuts off when it starts"
    )]
    CutOff {
        /// The last whole entry.
        after: u64,
        /// What follows, in bytes.
        bytes: u64,
    },
    /// A file does not begin as a segment does.
    #[error("the file that should begin with entry {sequence} is damaged at its beginning")]
    Header {
        /// What it should begin with.
        sequence: u64,
    },
    /// A countersignature is none.
    #[error("the countersignature in entry {sequence} is forged or damaged")]
    Testimony {
        /// Where it stands.
        sequence: u64,
    },
    /// A countersignature is for another past than what stands here.
    #[error(
        "entries up to {head} are not those that a member countersigned (entry {sequence}): the log was rewritten"
    )]
    Rewritten {
        /// Where the countersignature stands.
        sequence: u64,
        /// The head that it is for.
        head: u64,
    },
    /// The log is another than the one whose head is known.
    #[error("entry {sequence} is not the one whose hash is known: the log was rewritten")]
    OtherPast {
        /// The head's.
        sequence: u64,
    },
    /// The log ends before the head that is known.
    #[error("the log ends with entry {last}, and entry {expected} was there: the end was cut off")]
    EndsEarly {
        /// The last entry there.
        last: u64,
        /// The one that is known.
        expected: u64,
    },
}

/// What one witness vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cover {
    /// Its device key.
    pub witness: SigningKey,
    /// How many of its countersignatures were found and hold.
    pub testimonies: u64,
    /// The last entry that it vouches for, and thereby for all before.
    pub through: u64,
    /// Since which entry it was shown every step.
    pub since: u64,
    /// When it said so last, by its own clock.
    pub at: UnixTime,
}

/// What holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The first entry that is kept.
    pub first: u64,
    /// The last.
    pub last: End,
    /// How many there are.
    pub entries: u64,
    /// Segments read.
    pub segments: u64,
    /// Who vouches for what, in the order of their keys.
    pub covers: Vec<Cover>,
    /// Countersignatures of heads that are no longer kept, or too far back to be compared.
    pub unchecked: u64,
    /// The last entry that says that a member holds another past of this log, signed by this
    /// device. The files fit themselves, and are not what was there before.
    pub contradicted: Option<u64>,
}

/// Verifies segment after segment, in bounded memory.
#[derive(Debug, Default)]
pub struct Verifier {
    end: Option<End>,
    recent: VecDeque<End>,
    covers: BTreeMap<SigningKey, Cover>,
    expected: Vec<End>,
    found: Verified,
}

impl Verifier {
    /// Begins.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a head that is known from elsewhere.
    pub fn expect(&mut self, sequence: u64, hash: Hash) {
        self.expected.push(End { sequence, hash });
    }

    /// Reads the next segment, a whole file.
    ///
    /// # Errors
    /// The first [`Fault`] in it; nothing behind it was looked at.
    pub fn segment(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let expected = self.end.map(|end| end.sequence.saturating_add(1));
        let header = Header::parse(bytes).ok_or(Fault::Header {
            sequence: expected.unwrap_or(1),
        })?;
        let mut end = match self.end {
            Some(end) if end == header.previous => end,
            Some(end) => return Err(misfit(end, header.previous)),
            None => {
                self.found.first = header.previous.sequence.saturating_add(1);
                header.previous
            }
        };
        self.found.segments += 1;
        let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
        while !rest.is_empty() {
            let sequence = end.sequence.saturating_add(1);
            let Some((framed, left)) = take(rest) else {
                return Err(match largest_within(rest) {
                    Some(_) => Fault::Changed { sequence },
                    None => Fault::CutOff {
                        after: end.sequence,
                        bytes: rest.len() as u64,
                    },
                });
            };
            let Some(link) = framed.follows(end) else {
                return Err(astray(sequence, framed.entry.sequence, left));
            };
            self.take(&framed.entry, &link)?;
            end = link.into();
            rest = left;
        }
        self.end = Some(end);
        Ok(())
    }

    fn take(&mut self, entry: &Entry, link: &Link) -> Result<(), Fault> {
        let is_other = |head: &&End| head.sequence == link.sequence && head.hash != link.hash;
        if let Some(head) = self.expected.iter().find(is_other) {
            return Err(Fault::OtherPast {
                sequence: head.sequence,
            });
        }
        match entry.kind {
            Kind::WITNESSED => self.weigh(entry)?,
            Kind::CONTRADICTED => self.found.contradicted = Some(entry.sequence),
            _ => {}
        }
        if self.recent.len() >= RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((*link).into());
        self.found.entries += 1;
        Ok(())
    }

    fn weigh(&mut self, entry: &Entry) -> Result<(), Fault> {
        let sequence = entry.sequence;
        let forged = Fault::Testimony { sequence };
        let said = Witnessed::decode(&entry.proof).map_err(|_| forged)?;
        said.verify().map_err(|_| forged)?;
        let head = said.head;
        let at = self
            .recent
            .binary_search_by_key(&head.sequence, |end| end.sequence);
        let Some(held) = at.ok().and_then(|at| self.recent.get(at)) else {
            self.found.unchecked += 1;
            return Ok(());
        };
        if held.hash != head.hash {
            let head = head.sequence;
            return Err(Fault::Rewritten { sequence, head });
        }
        let witness = said.witness;
        let is_known = self.covers.contains_key(&witness);
        // Nobody vouches for itself.
        if witness == said.device || (!is_known && self.covers.len() >= MAX_WITNESSES) {
            return Ok(());
        }
        let cover = self.covers.entry(witness).or_insert(Cover {
            witness,
            testimonies: 0,
            through: 0,
            since: said.testimony.since,
            at: said.testimony.at,
        });
        cover.testimonies += 1;
        if head.sequence >= cover.through {
            cover.through = head.sequence;
            cover.since = said.testimony.since;
            cover.at = said.testimony.at;
        }
        Ok(())
    }

    /// Ends.
    ///
    /// # Errors
    /// [`Fault::EndsEarly`] if a head that was to be expected lies behind the last entry.
    pub fn finish(mut self) -> Result<Verified, Fault> {
        let last = self.end.unwrap_or_default();
        let expected = self.expected.iter().map(|head| head.sequence).max();
        if let Some(expected) = expected.filter(|expected| *expected > last.sequence) {
            let last = last.sequence;
            return Err(Fault::EndsEarly { last, expected });
        }
        self.found.last = last;
        self.found.covers = self.covers.into_values().collect();
        Ok(self.found)
    }
}

/// What is wrong where a segment does not begin where the one before ended.
const fn misfit(end: End, previous: End) -> Fault {
    let (sequence, found) = (
        end.sequence.saturating_add(1),
        previous.sequence.saturating_add(1),
    );
    if found > sequence {
        Fault::Missing { sequence, found }
    } else if found < sequence {
        Fault::OutOfPlace { sequence, found }
    } else {
        // The same place and another hash: what is before it is not what it was written behind.
        Fault::Changed {
            sequence: end.sequence,
        }
    }
}

/// What is wrong where `found` stands and `sequence` should, with `left` behind it.
fn astray(sequence: u64, found: u64, left: &[u8]) -> Fault {
    let next = sequence.saturating_add(1);
    let mut rest = left;
    let mut is_first = true;
    while let Some((framed, left)) = take(rest) {
        let later = framed.entry.sequence;
        if found != sequence && later == sequence {
            return Fault::OutOfPlace { sequence, found };
        }
        if is_first && later == next {
            return Fault::Changed { sequence };
        }
        is_first = false;
        rest = left;
    }
    if found == sequence {
        Fault::Changed { sequence }
    } else if found > sequence {
        Fault::Missing { sequence, found }
    } else {
        Fault::OutOfPlace { sequence, found }
    }
}

/// Verifies all of `segments`, the oldest first.
///
/// # Errors
/// The first [`Fault`].
pub fn verify<'a>(segments: impl IntoIterator<Item = &'a [u8]>) -> Result<Verified, Fault> {
    let mut verifier = Verifier::new();
    for segment in segments {
        verifier.segment(segment)?;
    }
    verifier.finish()
}

#[cfg(test)]
mod tests;
