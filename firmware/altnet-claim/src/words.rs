//! What is said in the channel: files to the box, and what became of them back.
//!
//! Messages are postcard, by position; a new one goes to the end of its enum.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::pairing::MAX_PLAIN;

/// The most that all files of a claim have together, in bytes: as much as lies behind a box's data (`firmware/docs/adr/0027-first-boot.md`).
pub const MAX_FILES_BYTES: usize = 512 * 1022;
/// The most of a file that one message carries.
pub const MAX_PART: usize = MAX_PLAIN - 8;
/// The longest text that a box says, in bytes.
pub const MAX_SAID: usize = 600;

/// A file that a box takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FileName {
    /// What it joins with.
    Bundle,
    /// Its configuration.
    Config,
    /// Its name on its networks.
    Hostname,
    /// Whose updates it takes.
    ReleaseKeys,
}

impl FileName {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Bundle,
        Self::Config,
        Self::Hostname,
        Self::ReleaseKeys,
    ];

    /// What it is called on the box.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bundle => "first-boot.bundle",
            Self::Config => "altnet.toml",
            Self::Hostname => "hostname",
            Self::ReleaseKeys => "release-keys",
        }
    }

    /// The file of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|name| name.as_str() == text)
    }
}

/// What the computer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToBox<'a> {
    /// A file follows, in parts.
    File {
        /// Which.
        name: FileName,
        /// How long it is.
        bytes: u32,
    },
    /// The next part of it.
    Part(#[serde(borrow)] &'a [u8]),
    /// That were all files: take them.
    Take,
}

/// What the box says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToComputer {
    /// A file isn't taken, and so no other is.
    NotTaken {
        /// Which.
        name: FileName,
        /// Why.
        why: String,
    },
    /// A file has its place.
    Taken {
        /// Which.
        name: FileName,
    },
    /// All files have theirs: from here on it joins by itself, whatever becomes of the connection.
    AllTaken,
    /// Its services begin again, by the new `altnet.toml`; its address may be another one then.
    Restarts,
    /// It hasn't joined yet, and goes on trying.
    Waits {
        /// Why.
        why: String,
    },
    /// It is a member now.
    Joined {
        /// Its name in the network.
        name: String,
    },
    /// It gave up.
    Failed {
        /// Why.
        why: String,
    },
}

/// What came is no message of this protocol, or more than may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WordsError {
    /// It can't be read.
    #[error("what came is no message of this version")]
    Form,
    /// A file is too large, comes twice, or isn't what was announced.
    #[error(
        "the files have more than {MAX_FILES_BYTES} bytes, or come twice, or aren't what was announced"
    )]
    Files,
}

impl<'a> ToBox<'a> {
    /// The bytes; they hold keys.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(written(self))
    }

    /// Reads them.
    ///
    /// # Errors
    /// [`WordsError::Form`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, WordsError> {
        match postcard::take_from_bytes(bytes) {
            Ok((said, [])) => Ok(said),
            _ => Err(WordsError::Form),
        }
    }
}

impl ToComputer {
    /// The bytes. Of a text that is too long the beginning is said.
    pub fn encode(&self) -> Vec<u8> {
        let mut said = self.clone();
        if let Some(text) = said.text() {
            let mut ends = (0..=MAX_SAID.min(text.len())).rev();
            let end = ends.find(|at| text.is_char_boundary(*at));
            text.truncate(end.unwrap_or(0));
        }
        written(&said)
    }

    /// Reads them. What would command a terminal is left out of texts.
    ///
    /// # Errors
    /// [`WordsError::Form`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WordsError> {
        let Ok((mut said, [])) = postcard::take_from_bytes::<Self>(bytes) else {
            return Err(WordsError::Form);
        };
        if let Some(text) = said.text() {
            if text.len() > MAX_SAID {
                return Err(WordsError::Form);
            }
            text.retain(|c| !c.is_control());
        }
        Ok(said)
    }

    fn text(&mut self) -> Option<&mut String> {
        match self {
            Self::NotTaken { why: text, .. }
            | Self::Waits { why: text }
            | Self::Joined { name: text }
            | Self::Failed { why: text } => Some(text),
            Self::Taken { .. } | Self::AllTaken | Self::Restarts => None,
        }
    }
}

fn written(said: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(said).expect("these types have no lengths that postcard doesn't know")
}

/// A file with its bytes, which may be keys.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// Which.
    pub name: FileName,
    /// What is in it.
    pub bytes: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "File({}, {} bytes)",
            self.name.as_str(),
            self.bytes.len()
        )
    }
}

/// Puts files together as they come.
#[derive(Default)]
pub struct Inbox {
    files: Vec<File>,
    /// How many bytes of the last file are still to come.
    missing: usize,
    total: usize,
}

impl Inbox {
    /// Takes a message. Returns the files once all are there.
    ///
    /// # Errors
    /// [`WordsError`]; then it is over.
    pub fn handle(&mut self, said: ToBox<'_>) -> Result<Option<Vec<File>>, WordsError> {
        match said {
            ToBox::File { name, bytes } => self.announced(name, bytes).map(|()| None),
            ToBox::Part(part) => {
                let file = self.files.last_mut().ok_or(WordsError::Files)?;
                let missing = self.missing.checked_sub(part.len());
                self.missing = missing
                    .filter(|_| !part.is_empty())
                    .ok_or(WordsError::Files)?;
                file.bytes.extend_from_slice(part);
                Ok(None)
            }
            ToBox::Take if self.missing == 0 && !self.files.is_empty() => {
                Ok(Some(core::mem::take(&mut self.files)))
            }
            ToBox::Take => Err(WordsError::Files),
        }
    }

    fn announced(&mut self, name: FileName, bytes: u32) -> Result<(), WordsError> {
        let bytes = usize::try_from(bytes).map_err(|_| WordsError::Files)?;
        let total = self.total.saturating_add(bytes);
        let is_known = self.files.iter().any(|file| file.name == name);
        if self.missing > 0 || is_known || total > MAX_FILES_BYTES {
            return Err(WordsError::Files);
        }
        (self.total, self.missing) = (total, bytes);
        // All at once: what grew would leave copies behind.
        let bytes = Zeroizing::new(Vec::with_capacity(bytes));
        self.files.push(File { name, bytes });
        Ok(())
    }
}

/// The messages that bring files.
pub fn parcel(files: &[File]) -> impl Iterator<Item = ToBox<'_>> {
    let each = files.iter().flat_map(|file| {
        let head = ToBox::File {
            name: file.name,
            bytes: u32::try_from(file.bytes.len()).unwrap_or(u32::MAX),
        };
        let parts = file.bytes.chunks(MAX_PART).map(ToBox::Part);
        core::iter::once(head).chain(parts)
    });
    each.chain(core::iter::once(ToBox::Take))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(name: FileName, bytes: &[u8]) -> File {
        File {
            name,
            bytes: Zeroizing::new(bytes.to_vec()),
        }
    }

    fn passed_on(files: &[File]) -> Result<Option<Vec<File>>, WordsError> {
        let mut inbox = Inbox::default();
        let mut last = Ok(None);
        for said in parcel(files) {
            let bytes = said.encode();
            assert!(bytes.len() <= MAX_PLAIN);
            assert_eq!(ToBox::decode(&bytes), Ok(said));
            last = inbox.handle(said);
            if last.is_err() {
                break;
            }
        }
        last
    }

    #[test]
    fn files_that_are_too_large_twice_there_or_none_at_all_are_refused() {
        let refused = |files: &[File]| passed_on(files).err();
        let half = vec![1; MAX_FILES_BYTES / 2];
        assert_eq!(
            refused(&[file(FileName::Bundle, &half), file(FileName::Config, &half)]),
            None
        );
        let more = [&half[..], &[1]].concat();
        for files in [
            &[][..],
            &[file(FileName::Bundle, &half), file(FileName::Config, &more)],
            &[file(FileName::Bundle, b"a"), file(FileName::Bundle, b"b")],
        ] {
            assert_eq!(refused(files), Some(WordsError::Files));
        }
        let mut inbox = Inbox::default();
        assert_eq!(inbox.handle(ToBox::Part(b"a")), Err(WordsError::Files));
        inbox
            .handle(ToBox::File {
                name: FileName::Config,
                bytes: 2,
            })
            .unwrap();
        assert_eq!(inbox.handle(ToBox::Take), Err(WordsError::Files));
        assert_eq!(inbox.handle(ToBox::Part(b"abc")), Err(WordsError::Files));
    }

    #[test]
    fn their_bytes_are_always_the_same() {
        let head = ToBox::File {
            name: FileName::Config,
            bytes: 300,
        };
        assert_eq!(**head.encode(), [0, 1, 0xac, 2]);
        assert_eq!(**ToBox::Part(b"ab").encode(), *b"\x01\x02ab");
        let said = ToComputer::NotTaken {
            name: FileName::ReleaseKeys,
            why: "no".into(),
        };
        assert_eq!(said.encode(), b"\0\x03\x02no");
        assert_eq!(
            ToComputer::Joined { name: "a".into() }.encode(),
            b"\x05\x01a"
        );
    }

    #[test]
    fn texts_are_cut_and_command_no_terminal() {
        let why = "ä".repeat(MAX_SAID) + "\x1b[31m";
        let ToComputer::Waits { why } =
            ToComputer::decode(&ToComputer::Waits { why }.encode()).unwrap()
        else {
            panic!("another message")
        };
        assert_eq!(why, "ä".repeat(MAX_SAID / 2));
        let said = ToComputer::Failed {
            why: "a\x1b[31m\nb".into(),
        };
        let said = ToComputer::decode(&said.encode()).unwrap();
        assert_eq!(
            said,
            ToComputer::Failed {
                why: "a[31mb".into()
            }
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn files_arrive_as_they_were(config in prop::collection::vec(any::<u8>(), 0..10_000), bundle in prop::collection::vec(any::<u8>(), 0..9_000)) {
            let files = [file(FileName::Config, &config), file(FileName::Bundle, &bundle)];
            prop_assert!(passed_on(&files).unwrap().unwrap() == files);
        }

        #[test]
        fn no_bytes_make_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(said) = ToBox::decode(&bytes) {
                let _ = Inbox::default().handle(said);
            }
            let _ = ToComputer::decode(&bytes);
        }
    }
}
