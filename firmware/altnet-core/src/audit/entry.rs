//! One entry: when, what, about whom, how often.

use core::fmt::{self, Write};

use altnet_wire::canonical::{self, NotCanonical};
use altnet_wire::time::UnixTime;
use heapless::{String, Vec};
use serde::{Deserialize, Serialize};

/// The longest subject, in bytes of UTF-8: two ids, or a name and an id.
pub const MAX_SUBJECT_BYTES: usize = 120;
/// The longest detail, in bytes of UTF-8.
pub const MAX_DETAIL_BYTES: usize = 200;
/// The longest proof, in bytes: of a member that signed two pasts.
pub const MAX_PROOF_BYTES: usize = 320;
/// The largest entry, encoded: the texts and the proof with their lengths, three numbers of at
/// most 10 bytes, the kind and a bit.
pub const MAX_ENTRY_BYTES: usize =
    MAX_SUBJECT_BYTES + MAX_DETAIL_BYTES + MAX_PROOF_BYTES + 1 + 2 + 2 + 3 * 10 + 3 + 1;

/// What happened. A number, so that an entry of a later version still verifies; the numbers are
/// on disk and are never used again for anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(pub u16);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $id:literal, $weight:ident;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// All that this version knows.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// A stable word.
            pub const fn id(self) -> &'static str {
                match self.0 {
                    $($number => $id,)*
                    _ => "unknown",
                }
            }

            /// How it is written.
            pub(super) const fn weight(self) -> Weight {
                match self.0 {
                    $($number => Weight::$weight,)*
                    _ => Weight::Prompt,
                }
            }
        }
    };
}

/// How an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// At once, and synced: somebody decided it, or it is rare.
    Prompt,
    /// With the next, or some minutes later.
    Slow,
    /// Others cause it as often as they like: the first is written, the rest counted.
    Refusal,
    /// Members cause it: counted too, from a budget of its own.
    Arrival,
    /// The same, and written at once when it is.
    Alarm,
}

kinds! {
    /// The daemon started. Detail: its version.
    STARTED = 1, "started", Prompt;
    /// The daemon stopped cleanly.
    STOPPED = 2, "stopped", Prompt;
    /// The configuration was read again. Detail: what of it changed.
    CONFIGURED = 3, "configured", Prompt;
    /// After a power cut the end of the log was no whole entry; it was cut off.
    REPAIRED = 4, "repaired", Prompt;
    /// The log did not fit itself at start; it goes on in a segment of its own.
    BROKEN = 5, "broken", Prompt;
    /// Entries that could not be written. Count: how many.
    LOST = 6, "lost", Prompt;
    /// This node became a member. Subject: its name; detail: the network.
    JOINED = 7, "joined", Prompt;
    /// This node was not let in. Detail: why.
    JOIN_FAILED = 8, "join-failed", Prompt;
    /// This node is no longer a member. Subject: the network; detail: how.
    LEFT = 9, "left", Prompt;
    /// A member appeared or changed. Subject: its name and id.
    MEMBER_CHANGED = 10, "member-changed", Slow;
    /// A member this node had to do with is gone. Subject: its id.
    MEMBER_GONE = 11, "member-gone", Prompt;
    /// Something was revoked. Subject: what; detail: the reason and who signed it.
    REVOKED = 12, "revoked", Prompt;
    /// The owners changed. Detail: who signed it.
    OWNERS_CHANGED = 13, "owners-changed", Prompt;
    /// An issuer's certificate came into force. Subject: the issuer; detail: who signed it.
    ISSUER_CHANGED = 14, "issuer-changed", Prompt;
    /// Another policy came. Subject: the record; detail: who signed it.
    POLICY_CHANGED = 15, "policy-changed", Prompt;
    /// A device was let in here. Subject: its name; detail: who brought it in, if a member did.
    ADMITTED = 16, "admitted", Prompt;
    /// A device was not let in here. Detail: why.
    NOT_ADMITTED = 17, "not-admitted", Refusal;
    /// This node's tunnel key was replaced. Detail: its epoch.
    ROTATED = 18, "rotated", Prompt;
    /// This node's membership was renewed.
    RENEWED = 19, "renewed", Slow;
    /// A member opened a control session with this node. Subject: who.
    LOGIN = 20, "login", Arrival;
    /// Packets or datagrams went no further. Subject: whose, where that is known; detail: why.
    REFUSED = 21, "refused", Refusal;
    /// A record could not be taken. Detail: why.
    RECORD_REFUSED = 22, "record-refused", Refusal;
    /// A peer knows of revocations that this node had not got. Subject: who.
    HEAD_BEHIND = 23, "head-behind", Arrival;
    /// Somebody changed something over the local API. Subject: who; detail: what, and how it ended.
    ACT = 24, "act", Prompt;
    /// Somebody asked over the local API for what they may not. Subject: who; detail: what.
    ACT_REFUSED = 25, "act-refused", Refusal;
    /// A member countersigned this log. Subject: who; proof: [`super::proof::Witnessed`].
    WITNESSED = 26, "witnessed", Slow;
    /// A member showed another past than before. Subject: who; proof: [`super::proof::Rewrite`].
    REWRITTEN = 27, "rewritten", Alarm;
    /// A member can't show how its log got from where it was to where it is. Subject: who.
    NOT_SHOWN = 28, "not-shown", Alarm;
    /// A member holds another past of this log. Subject: who; detail: what it holds.
    CONTRADICTED = 29, "contradicted", Alarm;
    /// A policy is in force on this node. Detail: its serial and how many rules it has.
    POLICY_IN_FORCE = 30, "policy-in-force", Slow;
    /// No policy is in force any more.
    POLICY_GONE = 31, "policy-gone", Prompt;
    /// The policy can't be used on this node. Detail: why.
    POLICY_UNUSABLE = 32, "policy-unusable", Prompt;
    /// Somebody logged in from a machine without software. Subject: who; detail: the machine and how.
    LOGGED_IN = 33, "logged-in", Prompt;
    /// Nobody is logged in from that machine any more. Subject: who was; detail: the machine and why.
    LOGGED_OUT = 34, "logged-out", Prompt;
    /// A member's invite was made, or taken back. Subject: the invite; detail: for how many, whose,
    /// and who signed it.
    INVITED = 35, "invited", Slow;
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up by one from 1.
    pub sequence: u64,
    /// When; no earlier than that, if the time is not known.
    pub time: UnixTime,
    /// Whether the calendar was known.
    pub is_time_known: bool,
    /// What happened.
    pub kind: Kind,
    /// About whom or what; may be empty.
    pub subject: String<MAX_SUBJECT_BYTES>,
    /// More, as its kind says; may be empty.
    pub detail: String<MAX_DETAIL_BYTES>,
    /// How often.
    pub count: u64,
    /// Signatures, where its kind has them; else empty.
    pub proof: Vec<u8, MAX_PROOF_BYTES>,
}

impl Entry {
    /// Reads an entry that takes up all of `bytes`, in canonical form.
    ///
    /// # Errors
    /// [`NotCanonical`].
    pub fn decode(bytes: &[u8]) -> Result<Self, NotCanonical> {
        canonical::decode(bytes)
    }

    /// Writes it to the beginning of `out`.
    pub fn encode<'o>(&self, out: &'o mut [u8; MAX_ENTRY_BYTES]) -> &'o [u8] {
        postcard::to_slice(self, out).map_or(&[], |bytes| &*bytes)
    }
}

/// What is to be noted; the log adds when and which.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    pub(super) kind: Kind,
    pub(super) subject: String<MAX_SUBJECT_BYTES>,
    pub(super) detail: String<MAX_DETAIL_BYTES>,
    pub(super) count: u64,
    pub(super) proof: Vec<u8, MAX_PROOF_BYTES>,
}

impl Fact {
    /// Something that happened once.
    pub const fn new(kind: Kind) -> Self {
        Self {
            kind,
            subject: String::new(),
            detail: String::new(),
            count: 1,
            proof: Vec::new(),
        }
    }

    /// About whom or what. What is too long ends in `...`; what would not print is left out.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject = text(&subject);
        self
    }

    /// More about it, in the same form.
    #[must_use]
    pub fn detail(mut self, detail: impl fmt::Display) -> Self {
        self.detail = text(&detail);
        self
    }

    /// How often.
    #[must_use]
    pub const fn times(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// What shows it. A proof that is too long for an entry is none.
    #[must_use]
    pub fn proof(mut self, proof: &impl Serialize) -> Self {
        let mut bytes = [0; MAX_PROOF_BYTES];
        let used = postcard::to_slice(proof, &mut bytes).map_or(0, |bytes| bytes.len());
        self.proof = bytes.iter().copied().take(used).collect();
        self
    }
}

const ELLIPSIS: &str = "...";

/// As much of `value` as fits, without control characters: a log is read on terminals.
fn text<const N: usize>(value: &dyn fmt::Display) -> String<N> {
    struct Cut<'a, const N: usize>(&'a mut String<N>);

    impl<const N: usize> Write for Cut<'_, N> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for c in text.chars().filter(|c| !c.is_control()) {
                self.0.push(c).map_err(|_| fmt::Error)?;
            }
            Ok(())
        }
    }

    let mut out = String::new();
    if write!(Cut(&mut out), "{value}").is_err() {
        while out.len() + ELLIPSIS.len() > N {
            out.pop();
        }
        let _ = out.push_str(ELLIPSIS);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String as StdString;

    fn entry() -> Entry {
        let fact = Fact::new(Kind::REFUSED).about("house-b").detail("denied");
        Entry {
            sequence: 300,
            time: UnixTime::from_secs(5),
            is_time_known: true,
            kind: fact.kind,
            subject: fact.subject,
            detail: fact.detail,
            count: 7,
            proof: Vec::new(),
        }
    }

    #[test]
    fn an_entry_keeps_its_exact_bytes() {
        let mut out = [0; MAX_ENTRY_BYTES];
        let entry = entry();
        let bytes = entry.encode(&mut out);
        let expected = [
            &[0xac, 2, 5, 1, 21, 7][..],
            b"house-b",
            &[6],
            b"denied",
            &[7, 0],
        ]
        .concat();
        assert_eq!(bytes, expected);
        assert_eq!(Entry::decode(bytes), Ok(entry));
    }

    #[test]
    fn the_largest_entry_fits() {
        let mut largest = entry();
        (largest.sequence, largest.count) = (u64::MAX, u64::MAX);
        (largest.time, largest.kind) = (UnixTime::NEVER, Kind(u16::MAX));
        while largest.subject.push('x').is_ok() {}
        while largest.detail.push('x').is_ok() {}
        while largest.proof.push(1).is_ok() {}
        let mut out = [0; MAX_ENTRY_BYTES];
        assert_eq!(Entry::decode(largest.encode(&mut out)), Ok(largest));
    }

    #[test]
    fn numbers_and_words_of_kinds_are_their_own() {
        for (at, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(usize::from(kind.0), at + 1);
            let same = Kind::ALL.iter().filter(|other| other.id() == kind.id());
            assert_eq!(same.count(), 1, "{}", kind.id());
        }
        assert_eq!(Kind(999).id(), "unknown");
    }

    #[test]
    fn a_text_is_cut_and_can_not_move_a_cursor() {
        let long = "ä".repeat(100);
        let fact = Fact::new(Kind::ACT).about(&long).detail("a\n\u{1b}[31mb");
        assert!(fact.subject.len() <= MAX_SUBJECT_BYTES && fact.subject.ends_with("ä..."));
        assert_eq!(fact.detail.as_str(), "a[31mb");
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written(sequence: u64, seconds: u64, kind: u16, count: u64, known: bool, subject: StdString, detail: StdString, proof: std::vec::Vec<u8>) {
            let fact = Fact::new(Kind(kind)).about(subject).detail(detail);
            let entry = Entry {
                sequence,
                time: UnixTime::from_secs(seconds),
                is_time_known: known,
                kind: fact.kind,
                subject: fact.subject,
                detail: fact.detail,
                count,
                proof: proof.iter().copied().take(MAX_PROOF_BYTES).collect(),
            };
            let mut out = [0; MAX_ENTRY_BYTES];
            prop_assert_eq!(Entry::decode(entry.encode(&mut out)), Ok(entry));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: std::vec::Vec<u8>) {
            if let Ok(entry) = Entry::decode(&bytes) {
                let mut out = [0; MAX_ENTRY_BYTES];
                prop_assert_eq!(entry.encode(&mut out), &bytes[..]);
            }
        }
    }
}
