//! Certificates for TLS: who may ask for one, and who may give it. What is in one isn't read here.

use altnet_wire::envelope::RecordKind;
use altnet_wire::hash::Hash;
use altnet_wire::id::{Serial, SigningKey};
use altnet_wire::record::Roles;
use altnet_wire::tls::{TlsAuthority, TlsCertificate, TlsRequest};

use super::held::{Body, Held};
use super::{App, Missing, RecordError, Registry, Slot};

/// A request in force.
#[derive(Clone, Copy, Debug)]
pub struct TlsAsked<'a> {
    /// The record.
    pub record: &'a TlsRequest,
    /// The device that asks.
    pub device: SigningKey,
    /// The request's serial, which a certificate for it names.
    pub serial: Serial,
    /// The app that it asks for; none if it asks for its login page.
    pub app: Option<App<'a>>,
}

impl TlsAsked<'_> {
    /// The app's key, or the device's.
    pub fn subject(&self) -> SigningKey {
        self.record.subject(&self.device)
    }
}

impl Registry {
    pub(super) fn judge_tls_authority(
        &self,
        signer: &SigningKey,
        body: &TlsAuthority,
    ) -> Result<(), RecordError> {
        if body.certificate.is_empty() || body.expires <= body.issued {
            return Err(RecordError::Body(RecordKind::TLS_AUTHORITY));
        }
        self.judge_owner(signer)
    }

    /// A device asks for its own: for an app whose record it signed, or for its login page.
    pub(super) fn judge_tls_request(
        &self,
        signer: &SigningKey,
        body: &TlsRequest,
    ) -> Result<(), RecordError> {
        let Some(key) = body.app else {
            return self.judge_device(signer, Roles::GATEWAY);
        };
        self.judge_device(signer, Roles::APPS)?;
        let app = self
            .app(&key)
            .ok_or(RecordError::Missing(Missing::App(key)))?;
        if app.device == *signer {
            Ok(())
        } else {
            Err(RecordError::NotAuthorized)
        }
    }

    /// A certificate is its owner's word alone, so that it is taken before what it answers comes.
    pub(super) fn judge_tls_certificate(
        &self,
        signer: &SigningKey,
        body: &TlsCertificate,
    ) -> Result<(), RecordError> {
        if body.certificate.is_empty() {
            return Err(RecordError::Body(RecordKind::TLS_CERTIFICATE));
        }
        self.judge_owner(signer)
    }

    /// The network's authority for TLS, once an owner made one.
    pub fn tls_authority(&self) -> Option<&TlsAuthority> {
        match &self.in_force(&Slot::TLS_AUTHORITY)?.body {
            Body::TlsAuthority(body) => Some(body),
            _ => None,
        }
    }

    /// All requests in force, in the order of their subjects.
    pub fn tls_requests(&self) -> impl Iterator<Item = TlsAsked<'_>> {
        self.all(RecordKind::TLS_REQUEST)
            .filter_map(|held| self.asked(held))
    }

    /// What is asked for an app, or for a device's login page.
    pub fn tls_request(&self, subject: &SigningKey) -> Option<TlsAsked<'_>> {
        self.asked(self.in_force(&Slot::tls_request(*subject))?)
    }

    fn asked<'a>(&'a self, held: &'a Held) -> Option<TlsAsked<'a>> {
        let Body::TlsRequest(record) = &held.body else {
            return None;
        };
        Some(TlsAsked {
            record,
            device: held.header.signer,
            serial: held.header.serial,
            app: match &record.app {
                Some(app) => Some(self.app(app)?),
                None => None,
            },
        })
    }

    /// The serial of the request that the certificate held for `subject` answers.
    pub fn tls_answered(&self, subject: &SigningKey) -> Option<Serial> {
        match &self.records.get(&Slot::tls_certificate(*subject))?.body {
            Body::TlsCertificate(body) => Some(body.request),
            _ => None,
        }
    }

    /// The certificate that answers `asked`, by the present authority.
    pub fn tls_certificate(&self, asked: &TlsAsked<'_>) -> Option<&TlsCertificate> {
        let authority: Hash = self.tls_authority()?.hash();
        match &self.in_force(&Slot::tls_certificate(asked.subject()))?.body {
            Body::TlsCertificate(body)
                if body.request == asked.serial && body.authority == authority =>
            {
                Some(body)
            }
            _ => None,
        }
    }
}
