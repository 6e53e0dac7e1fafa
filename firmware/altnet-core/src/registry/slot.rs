//! Where a record is kept: one slot per subject, so that a newer record replaces an older one
//! in place.

use core::fmt;
use core::str::FromStr;

use altnet_wire::envelope::RecordKind;
use altnet_wire::hash;
use altnet_wire::id::{
    BadText, MemberId, Name, RecordId, SigningKey, SiteId, base32_fmt, base32_parse,
};
use altnet_wire::record::RevocationTarget;

/// The stable name of a record's place. Its text is fit for a file's name:
/// `membership-<base32>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    kind: RecordKind,
    subject: [u8; 32],
}

const KINDS: [RecordKind; 15] = [
    RecordKind::GENESIS,
    RecordKind::OWNER_CHANGE,
    RecordKind::ISSUER_CERTIFICATE,
    RecordKind::MEMBERSHIP,
    RecordKind::NODE,
    RecordKind::HOST,
    RecordKind::APP,
    RecordKind::POLICY,
    RecordKind::REVOCATION,
    RecordKind::INVITE,
    RecordKind::NETWORK_HEAD,
    RecordKind::TLS_AUTHORITY,
    RecordKind::TLS_REQUEST,
    RecordKind::TLS_CERTIFICATE,
    RecordKind::DERP,
];

impl Slot {
    /// Of the network's genesis.
    pub const GENESIS: Self = Self::of(RecordKind::GENESIS, [0; 32]);
    /// Of the policy in force.
    pub const POLICY: Self = Self::of(RecordKind::POLICY, [0; 32]);

    /// Of the network's authority for TLS.
    pub const TLS_AUTHORITY: Self = Self::of(RecordKind::TLS_AUTHORITY, [0; 32]);

    const fn of(kind: RecordKind, subject: [u8; 32]) -> Self {
        Self { kind, subject }
    }

    /// Of one owner change; those of lost forks have places of their own.
    pub const fn owner_change(id: RecordId) -> Self {
        Self::of(RecordKind::OWNER_CHANGE, id.0)
    }

    /// Of the certificate of `issuer`.
    pub const fn certificate(issuer: SigningKey) -> Self {
        Self::of(RecordKind::ISSUER_CERTIFICATE, issuer.0)
    }

    /// Of a member, whatever its device.
    pub fn membership(member: MemberId) -> Self {
        let mut subject = [0; 32];
        subject[..16].copy_from_slice(&member.0);
        Self::of(RecordKind::MEMBERSHIP, subject)
    }

    /// Of what `device` says of itself.
    pub const fn node(device: SigningKey) -> Self {
        Self::of(RecordKind::NODE, device.0)
    }

    /// Of the host `name` in `site`.
    pub fn host(site: SiteId, name: &Name) -> Self {
        let parts: [&[u8]; 2] = [&site.as_u16().to_be_bytes(), name.as_str().as_bytes()];
        Self::of(
            RecordKind::HOST,
            hash::labelled("altnet host slot v1", &parts),
        )
    }

    /// Of the app with the key `app`.
    pub const fn app(app: SigningKey) -> Self {
        Self::of(RecordKind::APP, app.0)
    }

    /// Of the end of `target`.
    pub fn revocation(target: &RevocationTarget) -> Self {
        let mut buffer = [0; 40];
        let bytes: &[u8] = match postcard::to_slice(target, &mut buffer) {
            Ok(bytes) => bytes,
            // At most 1 + 32 bytes, so there is room.
            Err(_) => &[],
        };
        Self::of(
            RecordKind::REVOCATION,
            hash::labelled("altnet revocation slot v1", &[bytes]),
        )
    }

    /// Of the invite with the public half `invite`.
    pub const fn invite(invite: SigningKey) -> Self {
        Self::of(RecordKind::INVITE, invite.0)
    }

    /// Of how far `issuer` has come.
    pub const fn head(issuer: SigningKey) -> Self {
        Self::of(RecordKind::NETWORK_HEAD, issuer.0)
    }

    /// Of what an app, or a device for its login page, asks a certificate for.
    pub const fn tls_request(subject: SigningKey) -> Self {
        Self::of(RecordKind::TLS_REQUEST, subject.0)
    }

    /// Of the certificate of an app, or of a device's login page.
    pub const fn tls_certificate(subject: SigningKey) -> Self {
        Self::of(RecordKind::TLS_CERTIFICATE, subject.0)
    }

    /// Of what other people's DERP servers know `device` by.
    pub const fn derp(device: SigningKey) -> Self {
        Self::of(RecordKind::DERP, device.0)
    }

    /// Of a record that isn't understood.
    pub const fn unknown(kind: RecordKind, id: RecordId) -> Self {
        Self::of(kind, id.0)
    }

    /// The kind of the record kept there.
    pub const fn kind(&self) -> RecordKind {
        self.kind
    }

    /// The bytes that tell it from others of its kind.
    pub const fn subject(&self) -> &[u8; 32] {
        &self.subject
    }

    pub(super) const fn first(kind: RecordKind) -> Self {
        Self::of(kind, [0; 32])
    }

    pub(super) const fn last(kind: RecordKind) -> Self {
        Self::of(kind, [0xff; 32])
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if KINDS.contains(&self.kind) {
            write!(f, "{}-", self.kind.name())?;
        } else {
            write!(f, "kind{}-", self.kind.0)?;
        }
        base32_fmt(&self.subject, f)
    }
}

impl FromStr for Slot {
    type Err = BadText;

    /// Reads what `Display` writes.
    fn from_str(text: &str) -> Result<Self, BadText> {
        let bad = BadText::Base32 { expected: 32 };
        let (name, subject) = text.rsplit_once('-').ok_or(bad)?;
        let kind = match KINDS.iter().find(|kind| kind.name() == name) {
            Some(kind) => *kind,
            None => {
                let number = name.strip_prefix("kind").ok_or(bad)?;
                RecordKind(number.parse().map_err(|_| bad)?)
            }
        };
        let mut bytes = [0; 32];
        base32_parse(subject, &mut bytes)?;
        Ok(Self::of(kind, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::{String, ToString};

    proptest! {
        #[test]
        fn a_slot_reads_back_what_it_writes(kind in 1u16..24, subject: [u8; 32]) {
            let slot = Slot::of(RecordKind(kind), subject);
            let text = slot.to_string();
            prop_assert_eq!(text.parse::<Slot>(), Ok(slot));
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text: String) {
            let _ = text.parse::<Slot>();
        }
    }
}
