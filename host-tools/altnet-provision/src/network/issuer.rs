//! Issuers: keys that an owner lends a part of its power.

use std::time::Duration;

use altnet_core::registry::Slot;
use altnet_wire::id::{Name, SigningKey, SiteId};
use altnet_wire::record::{IssuerCertificate, Rights, Roles};
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::{Network, show, site};
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use crate::settings::as_text;
use crate::text;

/// An issuer to be certified.
#[derive(Clone, Debug)]
pub struct IssuerWish {
    /// What people call it.
    pub name: Name,
    /// Its key, made where it will be used.
    pub key: SigningKey,
    /// What it may sign.
    pub rights: Rights,
    /// The roles it may give.
    pub roles: Roles,
    /// The only site it may give or name hosts in; none for all.
    pub site: Option<SiteId>,
    /// How long its certificate lasts.
    pub lasts: Duration,
}

/// An issuer. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct IssuerSummary {
    /// What people call it on this computer.
    pub name: Option<String>,
    /// Its key.
    #[serde(with = "as_text")]
    pub key: SigningKey,
    /// What it may sign.
    pub rights: Vec<&'static str>,
    /// The roles it may give.
    pub roles: Vec<&'static str>,
    /// The first site it may give.
    pub first_site: u16,
    /// The last site it may give.
    pub last_site: u16,
    /// When its certificate was made (RFC 3339, UTC).
    pub issued: String,
    /// When its certificate ends (RFC 3339, UTC).
    pub expires: Option<String>,
    /// Whether it is this computer's.
    pub here: bool,
}

impl Network {
    /// Certifies an issuer key, or changes what it may do. Only an owner can.
    ///
    /// # Errors
    /// [`Error::Input`] if it may nothing; [`Error::NotAllowed`].
    pub fn add_issuer(
        &mut self,
        secrets: &Secrets,
        wish: &IssuerWish,
        now: UnixTime,
    ) -> Result<IssuerSummary> {
        if wish.rights.is_empty() {
            return Err(Error::input(
                "the issuer would have no rights",
                "Give it some with --right.",
            ));
        }
        let owner = self.owner(secrets)?;
        let body = IssuerCertificate {
            issuer: wish.key,
            rights: wish.rights,
            roles: wish.roles,
            first_site: wish.site.unwrap_or(site(0)),
            last_site: wish.site.unwrap_or(site(SiteId::MAX)),
            issued: now,
            expires: now.after(wish.lasts),
        };
        self.change(now, |draft| {
            let policy = draft.policy_record();
            let slot = Slot::certificate(wish.key);
            draft.add(&owner, &slot, &body, "certify the issuer")?;
            let names = &mut draft.settings.issuers;
            names.insert(wish.key.to_string(), wish.name.to_string());
            if draft.registry.issuer(&wish.key).is_none() {
                return Err(Error::not_allowed(
                    "the issuer key was revoked, which is for good",
                    "Make a new key where it will be used.",
                ));
            }
            // It may have lost the right to sign the policy that it signed.
            draft.keep_in_force(&owner, policy.as_deref())
        })?;
        Ok(self.issuer_summary(&body))
    }

    /// The issuers in force, in the order of their keys.
    pub fn issuers(&self) -> Vec<IssuerSummary> {
        let issuers = self.registry.issuers();
        issuers.map(|body| self.issuer_summary(body)).collect()
    }

    fn issuer_summary(&self, body: &IssuerCertificate) -> IssuerSummary {
        IssuerSummary {
            name: self.settings.issuers.get(&body.issuer.to_string()).cloned(),
            key: body.issuer,
            rights: text::right_names(body.rights),
            roles: text::role_names(body.roles),
            first_site: body.first_site.as_u16(),
            last_site: body.last_site.as_u16(),
            issued: body.issued.to_string(),
            expires: show::when(body.expires),
            here: body.issuer == self.settings.issuer,
        }
    }
}
