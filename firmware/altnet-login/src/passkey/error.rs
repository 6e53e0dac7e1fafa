//! Why a passkey isn't taken.

use crate::directory::SignInError;
use crate::state::StateError;

use super::{MAX_OF_ONE, MAX_PASSKEYS};

/// Why a passkey isn't added, used or removed. The text is shown to whoever tries.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasskeyError {
    /// The page isn't seen over HTTPS under its own name.
    #[error("passkeys need this page's own address with https; open it there")]
    NotHere,
    /// Nobody is logged in who could add one.
    #[error("log in another way first, then add a passkey")]
    LoggedOut,
    /// The challenge was used, is too old or is another's.
    #[error("that took too long or was done already; try again")]
    Late,
    /// What came isn't what a browser or an authenticator sends.
    #[error("this browser's answer can't be read; try again, or with another browser")]
    Unreadable,
    /// It is of another page.
    #[error("this came from another page; open this page itself and try again")]
    Foreign,
    /// The authenticator didn't ask who is there.
    #[error("that passkey didn't check that it is you; set a PIN or a fingerprint on it first")]
    Unverified,
    /// Its key is of none of the kinds that were asked for.
    #[error("that passkey has a kind of key that isn't known here; use another authenticator")]
    Algorithm,
    /// No such credential.
    #[error("that passkey isn't known here any more; log in another way, then add it again")]
    Unknown,
    /// The signature isn't the passkey's.
    #[error("that isn't right; try again")]
    Wrong,
    /// The signature counter went back.
    #[error(
        "that passkey may have been copied, since its counter went back; log in another way, remove it, and tell whoever runs this network"
    )]
    Copied,
    /// The credential is there already.
    #[error("that passkey is there already")]
    Known,
    /// One person has as many as can be.
    #[error("you have {MAX_OF_ONE} passkeys, which is the most; remove one first")]
    FullOfOne,
    /// There are as many as can be.
    #[error(
        "there is no room for more than {MAX_PASSKEYS} passkeys; ask whoever runs this network to remove some"
    )]
    Full,
    /// There is none of that name.
    #[error("there is no passkey {0:?}; `altnet-login passkey list` shows them")]
    NoSuchPasskey(String),
    /// What it came from isn't configured any more.
    #[error("this network doesn't know {0} any more; log in another way")]
    NoSource(String),
    /// What it came from says no.
    #[error("{0}")]
    SignIn(#[from] SignInError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system has no random bytes.
    #[error("the system gives no random bytes")]
    Random,
    /// A fault of this program.
    #[error("this gateway failed; try again, and tell whoever runs it")]
    Broken,
}

impl PasskeyError {
    /// Whether somebody may be guessing.
    pub fn is_wrong(&self) -> bool {
        matches!(
            self,
            Self::Foreign | Self::Unknown | Self::Wrong | Self::Copied
        )
    }
}
