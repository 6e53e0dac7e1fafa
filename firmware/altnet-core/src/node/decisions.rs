//! Records that decide over others: told when they come, so that somebody can ask later who
//! decided what.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use altnet_tunnel::aead::Aead;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{MemberId, SigningKey};
use altnet_wire::record::{
    self, Invite, IssuerCertificate, MAX_REASON_BYTES, Revocation, RevocationTarget,
};

use super::{Event, Node};

/// What a record decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// Who the owners are.
    Owners,
    /// What an issuer may do.
    Issuer {
        /// The issuer.
        issuer: SigningKey,
    },
    /// Who may reach what.
    Policy,
    /// That a member may bring others in.
    Invited {
        /// The invite.
        invite: SigningKey,
        /// The member.
        sponsor: MemberId,
        /// How many may come in by it; none if it was taken back.
        uses: u16,
    },
    /// That something ends.
    Revoked {
        /// What.
        target: RevocationTarget,
        /// Why, in the words of who signed it.
        reason: heapless::String<MAX_REASON_BYTES>,
    },
}

impl Decision {
    /// What it is about.
    pub fn subject(&self) -> impl fmt::Display {
        fmt::from_fn(move |f| match self {
            Self::Owners => f.write_str("the owners"),
            Self::Policy => f.write_str("the policy"),
            Self::Invited { invite, .. } => write!(f, "invite {invite}"),
            Self::Issuer { issuer }
            | Self::Revoked {
                target: RevocationTarget::Issuer(issuer),
                ..
            } => write!(f, "issuer {issuer}"),
            Self::Revoked { target, .. } => match target {
                RevocationTarget::Member(member) => write!(f, "member {member}"),
                RevocationTarget::Device(device) => write!(f, "device {device}"),
                RevocationTarget::Invite(invite) => write!(f, "invite {invite}"),
                _ => f.write_str("something"),
            },
        })
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject();
        match self {
            Self::Owners | Self::Policy => write!(f, "{subject} changed"),
            Self::Issuer { .. } => write!(f, "{subject} was certified"),
            Self::Invited {
                uses: 0, sponsor, ..
            } => {
                write!(f, "{subject} was taken back by {sponsor}")
            }
            Self::Invited { sponsor, .. } => write!(f, "{subject} was made by {sponsor}"),
            Self::Revoked { .. } => write!(f, "{subject} was revoked"),
        }
    }
}

fn decision(envelope: &Envelope<'_>) -> Option<Decision> {
    let body = envelope.body();
    Some(match envelope.header().kind {
        RecordKind::OWNER_CHANGE => Decision::Owners,
        RecordKind::ISSUER_CERTIFICATE => Decision::Issuer {
            issuer: record::decode::<IssuerCertificate>(body).ok()?.issuer,
        },
        RecordKind::POLICY => Decision::Policy,
        RecordKind::INVITE => {
            let body = record::decode::<Invite>(body).ok()?;
            Decision::Invited {
                invite: body.invite,
                sponsor: body.sponsor?,
                uses: body.uses,
            }
        }
        RecordKind::REVOCATION => {
            let Revocation { target, reason, .. } = record::decode(body).ok()?;
            Decision::Revoked { target, reason }
        }
        _ => return None,
    })
}

impl<A: Aead> Node<A> {
    /// Tells the decisions among what changed since `before`.
    pub(super) fn tell_decisions(&mut self, before: u64) {
        let Some(network) = &self.network else {
            return;
        };
        let events: Vec<Event> = network
            .registry
            .changes_since(before)
            .filter_map(|(_, _, bytes)| {
                let envelope = Envelope::parse(bytes).ok()?;
                Some(Event::Decided {
                    what: Box::new(decision(&envelope)?),
                    record: envelope.id(),
                    signer: envelope.header().signer,
                })
            })
            .collect();
        for event in events {
            self.tell(event);
        }
    }
}
