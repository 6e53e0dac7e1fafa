//! Names for machines on a site's LAN, which run nothing of ours.

use std::net::Ipv6Addr;

use altnet_core::registry::Slot;
use altnet_wire::address;
use altnet_wire::id::{Name, SigningKey, SiteId};
use altnet_wire::record::HostRecord;
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::Network;
use crate::error::{Error, Result};
use crate::secrets::Secrets;
use crate::settings::as_text;
use crate::text;

/// Where a machine is on its LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPlace {
    /// At this address of the site's /64.
    Address(Ipv6Addr),
    /// At the address that follows from its MAC address (RFC 4291 appendix A).
    Mac([u8; 6]),
}

/// A named machine. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct HostSummary {
    /// Its name.
    pub name: String,
    /// The name to type into a browser.
    pub fqdn: String,
    /// The site it is in.
    pub site: u16,
    /// Its address.
    pub address: Ipv6Addr,
    /// The issuer or gateway that named it.
    #[serde(with = "as_text")]
    pub signer: SigningKey,
}

/// What [`Network::add_host`] did. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct HostAdded {
    /// The machine.
    #[serde(flatten)]
    pub host: HostSummary,
    /// Whether the name led elsewhere, or nowhere, before.
    pub changed: bool,
    /// Whether a gateway of the site is known here.
    pub has_gateway: bool,
}

impl Network {
    /// Names a machine, or changes where its name leads within its site.
    ///
    /// # Errors
    /// [`Error::Input`] if the address isn't one for a machine of that site; [`Error::Exists`]
    /// if the name is a member's or used in another site; [`Error::NotAllowed`].
    pub fn add_host(
        &mut self,
        secrets: &Secrets,
        name: &Name,
        site: SiteId,
        place: HostPlace,
        now: UnixTime,
    ) -> Result<HostAdded> {
        let address = self.host_address(site, place)?;
        self.check_host_name(name, site)?;
        let old = self
            .registry
            .host(name)
            .and_then(|host| host.record.address);
        let changed = old != Some(address);
        if changed {
            self.sign_host(secrets, name, site, Some(address), now)?;
        }
        let host = self.hosts().into_iter().find(|h| h.name == name.as_str());
        Ok(HostAdded {
            host: host.ok_or_else(|| {
                Error::not_allowed(
                    "the name was not taken over",
                    "Run `altnet-provision doctor`.",
                )
            })?,
            changed,
            has_gateway: self.registry.gateway(site).is_some(),
        })
    }

    /// The named machines, in the order of names.
    pub fn hosts(&self) -> Vec<HostSummary> {
        let hosts = self.registry.hosts().filter_map(|host| {
            Some(HostSummary {
                name: host.record.name.to_string(),
                fqdn: format!("{}.{}.alt", host.record.name, self.name),
                site: host.record.site.as_u16(),
                address: host.record.address?,
                signer: host.signer,
            })
        });
        hosts.collect()
    }

    /// Gives up a name. Returns what it led to.
    ///
    /// # Errors
    /// [`Error::NotFound`] if nothing has that name; [`Error::NotAllowed`].
    pub fn remove_host(
        &mut self,
        secrets: &Secrets,
        name: &Name,
        site: Option<SiteId>,
        now: UnixTime,
    ) -> Result<HostSummary> {
        let fits = |host: &HostSummary| {
            host.name == name.as_str() && site.is_none_or(|site| site.as_u16() == host.site)
        };
        let host = self.hosts().into_iter().find(fits).ok_or_else(|| {
            Error::not_found(
                format!("no machine is called {name}"),
                "See `altnet-provision host list`.",
            )
        })?;
        let site = SiteId::new(host.site).unwrap_or(super::site(0));
        self.sign_host(secrets, name, site, None, now)?;
        Ok(host)
    }

    fn sign_host(
        &mut self,
        secrets: &Secrets,
        name: &Name,
        site: SiteId,
        address: Option<Ipv6Addr>,
        now: UnixTime,
    ) -> Result<()> {
        let issuer = self.issuer(secrets)?.public();
        let secret = secrets.issuer(&issuer).ok_or_else(|| no_key(&issuer))?;
        let body = HostRecord {
            name: name.clone(),
            site,
            address,
        };
        self.change(now, |draft| {
            draft.add(&secret, &Slot::host(site, name), &body, "name the machine")
        })
    }

    fn host_address(&self, site: SiteId, place: HostPlace) -> Result<Ipv6Addr> {
        let prefix = address::site_prefix(&self.id(), site);
        let address = match place {
            HostPlace::Address(address) => address,
            HostPlace::Mac(mac) => return Ok(text::eui64_address(&prefix, mac)),
        };
        if !prefix.contains(address) {
            return Err(Error::input(
                format!("{address} is not in site {site}, whose addresses begin with {prefix}"),
                "Give the machine's address from that range, or its MAC address with --mac.",
            ));
        }
        if address == prefix.address() || address == address::site_gateway(&self.id(), site) {
            return Err(Error::input(
                format!("{address} is the gateway's own address"),
                "Give the machine's address, or its MAC address with --mac.",
            ));
        }
        Ok(address)
    }

    fn check_host_name(&self, name: &Name, site: SiteId) -> Result<()> {
        if self.registry.by_name(name).is_some() || self.registry.app_by_name(name).is_some() {
            return Err(Error::exists(
                format!("a member or app is called {name} already"),
                "Choose another name for the machine.",
            ));
        }
        let other = self.registry.host(name).map(|host| host.record.site);
        match other.filter(|other| *other != site) {
            Some(other) => Err(Error::exists(
                format!("a machine in site {other} is called {name} already"),
                format!(
                    "Choose another name, or give it up with `altnet-provision host remove {name}`."
                ),
            )),
            None => Ok(()),
        }
    }
}

fn no_key(issuer: &SigningKey) -> Error {
    Error::not_allowed(
        format!("the issuer key {issuer} is not on this computer"),
        "Do it on the computer that has it.",
    )
}
