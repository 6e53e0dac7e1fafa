//! Why an issuer says no, in words for the one who asks.

use altnet_wire::envelope::EnvelopeError;

use crate::registry::{Claim, Missing, RecordError, Unfit};

/// Why somebody isn't let in, or something isn't signed. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The bytes are no invite.
    #[error("the invite is damaged")]
    Damaged,
    /// The invite, or a proof, isn't what its signer signed.
    #[error("the invite was altered")]
    Altered,
    /// The invite is another network's.
    #[error("the invite is for another network")]
    OtherNetwork,
    /// Who signed the invite may not invite (any more).
    #[error("the invite was made by somebody who may not invite")]
    NotAuthorized,
    /// The invite names another issuer.
    #[error("the invite is redeemed at another issuer")]
    OtherIssuer,
    /// The invite ended.
    #[error("the invite expired")]
    Expired,
    /// The invite was taken back.
    #[error("the invite was revoked")]
    Revoked,
    /// As many devices as it allows came in.
    #[error("the invite is used up")]
    UsedUp,
    /// The device was revoked.
    #[error("this device was revoked")]
    DeviceRevoked,
    /// Another member has the name.
    #[error("another member has this name")]
    NameTaken,
    /// The device is a member already, by another way.
    #[error("this device is a member already")]
    DeviceTaken,
    /// The site has a gateway.
    #[error("the site has another gateway already")]
    SiteTaken,
    /// Neither the invite nor the device says how it is to be called.
    #[error("the device needs a name")]
    NameMissing,
    /// There is no such member.
    #[error("there is no such member")]
    NoSuchMember,
    /// This issuer may not sign that.
    #[error("this issuer may not sign that")]
    NotAllowed,
    /// Its own certificate isn't known, ended, or was revoked.
    #[error("this issuer has no valid certificate")]
    NoCertificate,
    /// A table is full.
    #[error("the network has as many members as this device can hold")]
    Full,
    /// The invite is a member's, and policy does not let it bring in anybody, or not so.
    #[error(transparent)]
    Sponsor(Unfit),
    /// The registry refuses what was signed, for a reason of its own.
    #[error(transparent)]
    Record(RecordError),
}

impl From<RecordError> for Refusal {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Envelope(_) | RecordError::Body(_) => Self::Damaged,
            RecordError::BadSignature => Self::Altered,
            RecordError::OtherNetwork(_) => Self::OtherNetwork,
            RecordError::NotAuthorized
            | RecordError::Missing(Missing::Issuer(_) | Missing::Device(_)) => Self::NotAuthorized,
            RecordError::Sponsor(unfit) => Self::Sponsor(unfit),
            RecordError::Revoked => Self::Revoked,
            RecordError::Taken(Claim::Name) => Self::NameTaken,
            RecordError::Taken(Claim::Site) => Self::SiteTaken,
            RecordError::Taken(Claim::Device) => Self::DeviceTaken,
            RecordError::Full { .. } => Self::Full,
            other => Self::Record(other),
        }
    }
}

impl From<EnvelopeError> for Refusal {
    fn from(_: EnvelopeError) -> Self {
        Self::Damaged
    }
}
