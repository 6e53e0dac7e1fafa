//! What can go wrong, each in one clear sentence with what to do next.
//!
//! A failed operation has changed nothing that counts: files are written beside the old ones
//! and put in force by one rename at the very end.

use std::io;
use std::path::{Path, PathBuf};

use crate::policy::Faults;

/// Why something was not done. `Display` is one sentence; [`Error::next_step`] is the other.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// A verb: read, write, make.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        next: String,
    },
    /// A file was made by a later version of this program.
    #[error("{} was made by a newer altnet-provision (format {found}, this one knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The format's number in the file.
        found: u32,
        /// The last one known here.
        known: u32,
    },
    /// Others than its owner may read a file with keys in it.
    #[error("{} can be read by others (mode {:04o})", path.display(), mode & 0o7_777)]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its kind and permission bits (`st_mode`).
        mode: u32,
    },
    /// The passphrase doesn't open a file, or the file is damaged: the two can't be told apart.
    #[error("the passphrase does not open {}, or the file is damaged", path.display())]
    Passphrase {
        /// The encrypted file.
        path: PathBuf,
        /// What to do if trying again does not help.
        next: String,
    },
    /// Another process is changing the same network.
    #[error("another altnet-provision is working on {}", path.display())]
    Busy {
        /// The network's directory.
        path: PathBuf,
    },
    /// What was asked for makes no sense as it stands.
    #[error("{what}")]
    Input {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// There is no such thing.
    #[error("{what}")]
    NotFound {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// There is one already.
    #[error("{what}")]
    Exists {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// The keys on this computer may not do that.
    #[error("{what}")]
    NotAllowed {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// The text of a policy has faults; what is in force stays.
    #[error("{0}")]
    Policy(Faults),
    /// Somebody has to say yes first.
    #[error("{what}")]
    NeedsConsent {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// The network's directory could not be spoken with.
    #[error("{what}")]
    Directory {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// A device that is being set up said no, or nothing.
    #[error("{what}")]
    Remote {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// A box on the LAN could not be claimed.
    #[error("{what}")]
    Claim {
        /// One sentence, without the full stop.
        what: String,
        /// What to do.
        next: String,
    },
    /// A box has another code than was typed.
    #[error("that is not the code of this box")]
    WrongCode {
        /// How often another one may be tried before the box is switched off and on.
        left: u8,
    },
    /// A box refused what it was given, and took nothing of it.
    #[error("the box takes none of it: {what}")]
    Refused {
        /// What is wrong.
        what: String,
    },
}

/// [`std::result::Result`] with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A short stable word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Damaged { .. } => "damaged",
            Self::Newer { .. } => "newer",
            Self::Exposed { .. } => "exposed",
            Self::Passphrase { .. } => "passphrase",
            Self::Busy { .. } => "busy",
            Self::Input { .. } => "input",
            Self::NotFound { .. } => "not_found",
            Self::Exists { .. } => "exists",
            Self::NotAllowed { .. } => "not_allowed",
            Self::Policy(_) => "policy",
            Self::NeedsConsent { .. } => "needs_consent",
            Self::Directory { .. } => "directory",
            Self::Remote { .. } => "remote",
            Self::Claim { .. } => "claim",
            Self::WrongCode { .. } => "wrong_code",
            Self::Refused { .. } => "refused",
        }
    }

    /// What a person does about it.
    pub fn next_step(&self) -> String {
        match self {
            Self::Io { .. } => {
                "Check the path, its permissions and the free space; nothing was changed.".into()
            }
            Self::Newer { .. } => "Update altnet-provision on this computer.".into(),
            Self::Exposed { path, mode } => {
                let want = if mode & 0o40_000 != 0 { "700" } else { "600" };
                format!(
                    "Run `chmod {want} {}`; if others use this computer, they may have read it.",
                    path.display()
                )
            }
            Self::Passphrase { next, .. } => format!(
                "Try it again. For a file that is damaged or a passphrase that is forgotten: {next}"
            ),
            Self::Busy { .. } => "Wait until it is done and try again.".into(),
            Self::Damaged { next, .. } => capitalized(next),
            Self::Policy(faults) => faults.next_step(),
            Self::Input { next, .. }
            | Self::NotFound { next, .. }
            | Self::Exists { next, .. }
            | Self::NotAllowed { next, .. }
            | Self::NeedsConsent { next, .. }
            | Self::Directory { next, .. }
            | Self::Remote { next, .. }
            | Self::Claim { next, .. } => next.clone(),
            Self::WrongCode { left: 0 } => {
                "Switch the box off and on; then it takes five more.".into()
            }
            Self::WrongCode { left } => format!(
                "Look at where it is written, and whether the fingerprint is that of the box: {left} {} left.",
                if *left == 1 { "try" } else { "tries" }
            ),
            Self::Refused { .. } => {
                "Mend it and claim the box again; nothing was changed on either side.".into()
            }
        }
    }

    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_path_buf(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, why: impl ToString) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            why: why.to_string(),
            next: "use another copy of the file.".into(),
        }
    }

    /// Tells a file that must be there and is not as damaged, not as a path that was mistyped.
    pub(crate) fn gone(self, path: &Path) -> Self {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::damaged(path, "the file is gone")
            }
            other => other,
        }
    }

    /// Says what to do about a file that does not open, by whoever knows what the file is for.
    pub(crate) fn unopened(mut self, instead: impl Into<String>) -> Self {
        if let Self::Damaged { next, .. } | Self::Passphrase { next, .. } = &mut self {
            *next = instead.into();
        }
        self
    }

    pub(crate) fn input(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Input {
            what: what.into(),
            next: next.into(),
        }
    }

    pub(crate) fn not_found(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::NotFound {
            what: what.into(),
            next: next.into(),
        }
    }

    pub(crate) fn exists(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Exists {
            what: what.into(),
            next: next.into(),
        }
    }

    pub(crate) fn not_allowed(what: impl Into<String>, next: impl Into<String>) -> Self {
        Self::NotAllowed {
            what: what.into(),
            next: next.into(),
        }
    }
}

fn capitalized(sentence: &str) -> String {
    let mut letters = sentence.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
