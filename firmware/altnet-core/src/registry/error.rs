//! What applying a record can end in.

use altnet_wire::envelope::{EnvelopeError, RecordKind};
use altnet_wire::id::{NetworkId, RecordId, Serial, SigningKey, SiteId};

use super::{Slot, Unfit};
use crate::records::BadSignature;

/// What became of a record that wasn't refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is held now, and these views changed.
    New {
        /// Its place.
        slot: Slot,
        /// What else looks different now.
        changes: Changes,
    },
    /// It was held already, byte for byte.
    Same,
    /// Its kind or version isn't known here; it is kept and passed on unread.
    Kept {
        /// Its place.
        slot: Slot,
    },
}

/// Which parts of the network look different.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The owners.
    pub owners: bool,
    /// Who may sign what.
    pub issuers: bool,
    /// Who is a member and with what roles: flows are judged anew.
    pub members: bool,
    /// Somebody or something was revoked.
    pub revocations: bool,
    /// Keys, relays or endpoints of nodes.
    pub nodes: bool,
    /// Host or app names and addresses.
    pub names: bool,
    /// The policy: flows are judged anew.
    pub policy: bool,
    /// An issuer has come further.
    pub heads: bool,
    /// The authority for TLS, what is asked of it or what it certified.
    pub tls: bool,
}

/// What a record rests on and isn't here (yet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missing {
    /// A certificate for this issuer.
    Issuer(SigningKey),
    /// The invite with this public half.
    Invite(SigningKey),
    /// A membership in force for this device.
    Device(SigningKey),
    /// The record in force of the app with this key.
    App(SigningKey),
    /// The gateway of this site, or it is another than the signer.
    Gateway(SiteId),
    /// The owner change or genesis with this id.
    Record(RecordId),
}

/// What two members can't both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// A name.
    Name,
    /// A device key, or the address that follows from it.
    Device,
    /// Being the gateway of a site.
    Site,
    /// A control or tunnel key.
    Key,
}

/// Why a record was refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes are not an envelope.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The body doesn't decode, or contradicts itself.
    #[error("the {} record is damaged", .0.name())]
    Body(RecordKind),
    /// The record is another network's.
    #[error("the record belongs to another network, {0}")]
    OtherNetwork(NetworkId),
    /// The signature isn't the signer's.
    #[error("the record's signature does not match its signer's key")]
    BadSignature,
    /// The signer is known and may not sign this.
    #[error("the record's signer may not sign it")]
    NotAuthorized,
    /// The membership isn't what its invite says.
    #[error("the membership is not what its invite allows")]
    NotAsInvited,
    /// It ends before it begins, or lasts longer than allowed.
    #[error("the membership lasts longer than allowed")]
    Lifetime,
    /// The issuer's certificate ended before the record was made.
    #[error("the issuer's certificate ended before the record was made")]
    IssuerExpired,
    /// The subject or the signer is revoked.
    #[error("the record's subject or signer is revoked")]
    Revoked,
    /// The device was replaced by another.
    #[error("the device was replaced by another")]
    Replaced,
    /// Something it rests on isn't here; offer it again afterwards.
    #[error("something that the record rests on is missing")]
    Missing(Missing),
    /// A record as new or newer is held. Usual after a replay.
    #[error("serial {found} is not newer than {current}")]
    Stale {
        /// The serial held.
        current: Serial,
        /// The serial offered.
        found: Serial,
    },
    /// Another member has it.
    #[error("another member has the same {}", claim_name(.0))]
    Taken(Claim),
    /// A member's invite isn't as members may make them.
    #[error(transparent)]
    Sponsor(Unfit),
    /// The table of this kind is full.
    #[error("no room for another {} record: the limit is {limit}", .kind.name())]
    Full {
        /// The kind.
        kind: RecordKind,
        /// Entries of its table.
        limit: u16,
    },
}

impl From<BadSignature> for RecordError {
    fn from(_: BadSignature) -> Self {
        Self::BadSignature
    }
}

fn claim_name(claim: &Claim) -> &'static str {
    match claim {
        Claim::Name => "name",
        Claim::Device => "device key",
        Claim::Site => "site to be gateway of",
        Claim::Key => "control or tunnel key",
    }
}
