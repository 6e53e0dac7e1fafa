//! First-boot files: what a device is given so that it joins by itself.

use std::net::SocketAddr;

use altnet_core::invite::Bundle;
use altnet_core::records::SigningSecret;
use altnet_core::registry::Slot;
use altnet_wire::envelope::RecordKind;
use altnet_wire::id::SigningKey;
use altnet_wire::record::{IssuerCertificate, MAX_FIXED_ENDPOINTS, Rights, Roles};
use altnet_wire::time::UnixTime;
use serde::Serialize;
use zeroize::Zeroizing;

use super::invite::{InviteWish, make_link};
use super::{CERTIFICATE, MAKE_RELAY, NEEDS_RELAY, Network, site};
use crate::error::{Error, Result};
use crate::secrets::{self, Secrets};
use crate::settings::{Entry, as_optional_text, as_text};
use altnet_wire::id::SiteId;

/// What a first-boot file is to bring.
#[derive(Clone, Debug)]
pub struct BundleWish {
    /// What the device may be; `uses` is taken as one, and `endpoints` are the device's own.
    pub invite: InviteWish,
    /// Whether it may countersign invites.
    pub admit: bool,
}

/// A first-boot file that was made. The field names are stable; the text is not among them,
/// because it holds keys.
#[derive(Clone, Debug, Serialize)]
pub struct BundleMade {
    /// The file's text: kept like a key, deleted when the device has joined.
    #[serde(skip)]
    pub text: Zeroizing<String>,
    /// The invite inside.
    #[serde(with = "as_text")]
    pub invite: SigningKey,
    /// The issuer key inside, if it may countersign.
    #[serde(with = "as_optional_text")]
    pub admits: Option<SigningKey>,
    /// The site it gives.
    pub site: Option<u16>,
    /// When the invite inside ends (RFC 3339, UTC).
    pub expires: String,
    /// Where the device can be reached.
    pub endpoints: Vec<SocketAddr>,
    /// Whether a relay that the internet can reach is known here now.
    pub has_relay: bool,
}

impl Network {
    /// Makes a first-boot file. With `admit` the device gets an issuer key of its own, limited to
    /// countersigning, and redeems the invite with it; else it knocks where the network is known
    /// to be. A relay or directory with endpoints is noted as a place to enter the network.
    ///
    /// `keep` puts the text where it belongs; if it fails, nothing has changed.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the device could reach nobody; [`Error::Exists`]; [`Error::Input`];
    /// [`Error::NotAllowed`]; what `keep` says.
    pub fn bundle(
        &mut self,
        secrets: &Secrets,
        wish: &BundleWish,
        now: UnixTime,
        keep: impl FnOnce(&str) -> Result<()>,
    ) -> Result<BundleMade> {
        let name = wish.invite.name.clone().ok_or_else(|| {
            Error::input(
                "a first-boot file names its device",
                "Give a name with --name.",
            )
        })?;
        let endpoints = wish.invite.endpoints.clone();
        let fixed = heapless::Vec::from_slice(&endpoints).map_err(|_| {
            Error::input(
                format!("a device has at most {MAX_FIXED_ENDPOINTS} fixed endpoints"),
                "Leave some out.",
            )
        })?;
        let knock = self.entry_endpoints();
        let serves = wish.invite.roles & (Roles::RELAY | Roles::DIRECTORY);
        if !serves.is_empty() && endpoints.is_empty() && knock.is_empty() {
            return Err(Error::input(
                format!("nobody could reach {name}: it was not said where it is"),
                format!(
                    "Say where the internet reaches it over UDP with --endpoint IP:PORT. {NEEDS_RELAY}"
                ),
            ));
        }
        let owner = match wish.admit {
            true => Some((self.owner(secrets)?, secrets::generate()?)),
            false => None,
        };
        let admits = match &owner {
            Some((_, key)) => key.public(),
            None => self.nodes_that_admit(wish.invite.roles, &knock, now)?,
        };
        let mut issuer = self.issuer(secrets)?;
        let mut invite = wish.invite.clone();
        invite.uses = 1;
        let new = self.new_invite(&invite, admits, now)?;
        let site = new.site.map(SiteId::as_u16);
        let petname = self.name.clone();
        let roles = wish.invite.roles;
        let (text, key) = self.change(now, |draft| {
            if let Some((owner, key)) = &owner {
                let slot = Slot::certificate(key.public());
                draft.add(owner, &slot, &admission(key, now), "certify the issuer")?;
                let names = &mut draft.settings.issuers;
                names.insert(key.public().to_string(), name.to_string());
            }
            let link = make_link(draft, &mut issuer, new, &knock)?;
            let key = link.key().public();
            let bundle = Bundle {
                records: needed(&draft.registry),
                link: Some(link),
                issuer: owner.as_ref().map(|(_, key)| key.clone()),
                roles,
                fixed_endpoints: fixed,
                petname: Some(petname),
                settings: String::new(),
            };
            let text = bundle.to_text().map_err(|error| {
                Error::input(error.to_string(), "Revoke what is no longer used.")
            })?;
            if owner.is_some() || roles.intersects(Roles::RELAY | Roles::DIRECTORY) {
                draft.settings.entries.retain(|e| e.name != name.as_str());
                draft.settings.entries.push(Entry {
                    name: name.to_string(),
                    endpoints: endpoints.clone(),
                    relay: roles.contains(Roles::RELAY),
                    directory: roles.contains(Roles::DIRECTORY),
                    admits: owner.as_ref().map(|(_, key)| key.public()),
                });
            }
            // Last, since it is the only step outside the network's own directory.
            keep(&text)?;
            Ok((text, key))
        })?;
        Ok(BundleMade {
            text,
            invite: key,
            admits: wish.admit.then_some(admits),
            site,
            expires: now.after(wish.invite.lasts).to_string(),
            endpoints,
            has_relay: self.has_relay(),
        })
    }

    fn nodes_that_admit(
        &self,
        roles: Roles,
        knock: &[SocketAddr],
        now: UnixTime,
    ) -> Result<SigningKey> {
        if knock.is_empty() {
            return Err(Error::not_found(
                "the device could reach nobody: no address of the network is known here",
                format!("{NEEDS_RELAY} {MAKE_RELAY}"),
            ));
        }
        self.admitting_issuer(roles, now)
    }
}

/// Countersigning and nothing else. It can give every role and site, but only as an invite that
/// somebody else signed says.
fn admission(key: &SigningSecret, now: UnixTime) -> IssuerCertificate {
    IssuerCertificate {
        issuer: key.public(),
        rights: Rights::ADMIT,
        roles: Roles::all(),
        first_site: site(0),
        last_site: site(SiteId::MAX),
        issued: now,
        expires: now.after(CERTIFICATE),
    }
}

/// The records that a device begins with: who may sign what. Members it learns when it joined, and
/// the policy too.
pub(super) fn needed(registry: &altnet_core::registry::Registry) -> Vec<Vec<u8>> {
    const KINDS: [RecordKind; 4] = [
        RecordKind::GENESIS,
        RecordKind::OWNER_CHANGE,
        RecordKind::ISSUER_CERTIFICATE,
        RecordKind::REVOCATION,
    ];
    let needed = registry
        .iter()
        .filter(|(slot, _)| KINDS.contains(&slot.kind()));
    needed.map(|(_, bytes)| bytes.to_vec()).collect()
}
