//! A record as it is held: its bytes, and its body read once.

use alloc::boxed::Box;

use altnet_wire::address;
use altnet_wire::envelope::{Envelope, Header, RecordKind};
use altnet_wire::id::{NodeId, RecordId};
use altnet_wire::policy::Policy;
use altnet_wire::record::{
    self, AppRecord, Body as _, DerpRecord, HostRecord, Invite, IssuerCertificate, Membership,
    NetworkHead, NodeRecord, OwnerChange, Revocation,
};
use altnet_wire::time::UnixTime;
use altnet_wire::tls::{TlsAuthority, TlsCertificate, TlsRequest};

use super::{RecordError, Slot};

/// A body that was read.
#[derive(Clone, Debug)]
pub(super) enum Body {
    OwnerChange(Box<OwnerChange>),
    Certificate(Box<IssuerCertificate>),
    Membership(Box<Membership>, NodeId),
    Node(Box<NodeRecord>),
    Host(Box<HostRecord>),
    App(Box<AppRecord>),
    /// Checked; compiled by whoever judges by it.
    Policy,
    Revocation(Box<Revocation>),
    Invite(Box<Invite>),
    Head(Box<NetworkHead>),
    TlsAuthority(Box<TlsAuthority>),
    TlsRequest(Box<TlsRequest>),
    TlsCertificate(Box<TlsCertificate>),
    Derp(DerpRecord),
    Unknown,
}

/// A record that was accepted once.
///
/// Its signer may lose the power to sign it and get it back (an owner leaves, another certifies
/// the issuer anew), so the record is held on and `standing` says how things are now.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) bytes: Box<[u8]>,
    pub(super) id: RecordId,
    pub(super) header: Header,
    pub(super) body: Body,
    /// Its place in this registry's order of changes.
    pub(super) revision: u64,
    /// Whether its signer may sign it.
    pub(super) standing: bool,
    /// Standing, and neither revoked nor replaced nor the loser of a clash.
    pub(super) in_force: bool,
}

impl Body {
    /// Reads the body of an envelope; unknown kinds and versions are [`Body::Unknown`].
    pub(super) fn read(envelope: &Envelope<'_>) -> Result<Self, RecordError> {
        let header = envelope.header();
        let version = match header.kind {
            RecordKind::NETWORK_HEAD => NetworkHead::VERSION,
            RecordKind::POLICY => Policy::VERSION,
            _ => 1,
        };
        let is_first_policy = header.kind == RecordKind::POLICY && header.version == 1;
        if header.version != version && !is_first_policy {
            return Ok(Self::Unknown);
        }
        let bytes = envelope.body();
        let bad = |_| RecordError::Body(header.kind);
        Ok(match header.kind {
            RecordKind::OWNER_CHANGE => {
                Self::OwnerChange(Box::new(record::decode(bytes).map_err(bad)?))
            }
            RecordKind::ISSUER_CERTIFICATE => {
                Self::Certificate(Box::new(record::decode(bytes).map_err(bad)?))
            }
            RecordKind::MEMBERSHIP => {
                let body: Membership = record::decode(bytes).map_err(bad)?;
                let node = address::node_id(&header.network, &body.device);
                Self::Membership(Box::new(body), node)
            }
            RecordKind::NODE => Self::Node(Box::new(record::decode(bytes).map_err(bad)?)),
            RecordKind::HOST => Self::Host(Box::new(record::decode(bytes).map_err(bad)?)),
            RecordKind::APP => Self::App(Box::new(record::decode(bytes).map_err(bad)?)),
            RecordKind::POLICY => {
                let read = Policy::decode_versioned(bytes);
                let (version, _) = read.map_err(|_| RecordError::Body(header.kind))?;
                if version != header.version {
                    return Err(RecordError::Body(header.kind));
                }
                Self::Policy
            }
            RecordKind::REVOCATION => {
                Self::Revocation(Box::new(record::decode(bytes).map_err(bad)?))
            }
            RecordKind::INVITE => Self::Invite(Box::new(record::decode(bytes).map_err(bad)?)),
            RecordKind::NETWORK_HEAD => Self::Head(Box::new(record::decode(bytes).map_err(bad)?)),
            RecordKind::TLS_AUTHORITY => {
                Self::TlsAuthority(Box::new(record::decode(bytes).map_err(bad)?))
            }
            RecordKind::TLS_REQUEST => {
                Self::TlsRequest(Box::new(record::decode(bytes).map_err(bad)?))
            }
            RecordKind::TLS_CERTIFICATE => {
                Self::TlsCertificate(Box::new(record::decode(bytes).map_err(bad)?))
            }
            RecordKind::DERP => Self::Derp(record::decode(bytes).map_err(bad)?),
            _ => Self::Unknown,
        })
    }

    /// The place of a record with this body.
    pub(super) fn slot(&self, header: &Header, id: RecordId) -> Slot {
        match self {
            Self::OwnerChange(_) => Slot::owner_change(id),
            Self::Certificate(body) => Slot::certificate(body.issuer),
            Self::Membership(body, _) => Slot::membership(body.member),
            Self::Node(_) => Slot::node(header.signer),
            Self::Host(body) => Slot::host(body.site, &body.name),
            Self::App(body) => Slot::app(body.app),
            Self::Policy => Slot::POLICY,
            Self::Revocation(body) => Slot::revocation(&body.target),
            Self::Invite(body) => Slot::invite(body.invite),
            Self::Head(_) => Slot::head(header.signer),
            Self::TlsAuthority(_) => Slot::TLS_AUTHORITY,
            Self::TlsRequest(body) => Slot::tls_request(body.subject(&header.signer)),
            Self::TlsCertificate(body) => Slot::tls_certificate(body.subject),
            Self::Derp(_) => Slot::derp(header.signer),
            Self::Unknown => Slot::unknown(header.kind, id),
        }
    }

    /// When it says it was made.
    pub(super) fn issued(&self) -> Option<UnixTime> {
        match self {
            Self::OwnerChange(body) => Some(body.issued),
            Self::Certificate(body) => Some(body.issued),
            Self::Membership(body, _) => Some(body.issued),
            Self::Revocation(body) => Some(body.issued),
            Self::Invite(body) => Some(body.issued),
            Self::Head(body) => Some(body.issued),
            Self::TlsAuthority(body) => Some(body.issued),
            Self::Node(_)
            | Self::Host(_)
            | Self::App(_)
            | Self::TlsRequest(_)
            | Self::TlsCertificate(_)
            | Self::Derp(_)
            | Self::Policy
            | Self::Unknown => None,
        }
    }
}
