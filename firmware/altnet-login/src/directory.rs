//! What every directory answers: who somebody is, and whether that still holds.

use std::collections::BTreeSet;
use std::time::SystemTime;

use zeroize::Zeroizing;

/// Somebody whom a directory knows.
#[derive(Debug)]
pub struct Identity {
    /// The directory's own name for them, which it gives to nobody else: a DN, a `sub`, a user id,
    /// a certificate's issuer and serial.
    pub subject: String,
    /// What people call them there: `uid`, `preferred_username`, a certificate's common name.
    pub name: String,
    /// The groups they are in, as the directory writes them.
    pub groups: BTreeSet<String>,
    /// When what they showed ends, if it does.
    pub expires: Option<SystemTime>,
    /// What the directory needs to look them up again: a refresh token, say.
    pub handle: Zeroizing<String>,
}

/// Why somebody isn't let in. The text is shown to whoever tries.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignInError {
    /// A wrong name, password, code, token or certificate; which of them isn't said.
    #[error("that isn't right; try again")]
    Wrong,
    /// What was shown has expired.
    #[error("that has expired; get a new one and try again")]
    Expired,
    /// The account, certificate or token was revoked or switched off.
    #[error("this account was revoked; ask whoever runs it")]
    Revoked,
    /// The directory doesn't answer, or not as it should: nobody new gets in.
    #[error("{0} doesn't answer now; try again later")]
    Unreachable(String),
}

/// What a directory says of somebody who is logged in.
#[derive(Debug)]
#[non_exhaustive]
pub enum Standing {
    /// Still there, in these groups.
    Holds(Identity),
    /// Not any more: gone, switched off, revoked or expired.
    Ended(SignInError),
    /// It doesn't answer.
    Unreachable(String),
}
