//! TLS of the apps here: keys wished for and kept, certificates put to use, and the authority that
//! devices are to trust.

use std::collections::{BTreeMap, BTreeSet};

use altnet_core::node::Command;
use altnet_wire::id::{BadText, Name};
use altnet_wire::time::Instant;
use data_encoding::BASE64;
use serde_json::Value;

use super::Gateway;
use super::calls::json_of;
use crate::api::tls as types;
use crate::api::{ApiError, Code};
use crate::apps::tls::{Certified, KeyMade};
use crate::log;

/// What the login page's key is called, which no app can be.
const LOGIN: &str = altnet_wire::tls::LOGIN;

/// The app of this name; none for the login page.
fn app_called(name: &str) -> Result<Option<Name>, BadText> {
    match name {
        LOGIN => Ok(None),
        name => name.parse().map(Some),
    }
}

impl Gateway {
    /// Serves what has a certificate, and wishes for the keys that are missing.
    pub(super) fn tend_tls(&mut self) {
        let views: Vec<_> = self.node.tls_views().collect();
        let served: BTreeMap<String, Certified> = views
            .iter()
            .filter_map(|view| {
                let (certificate, _) = view.certificate?;
                let certified = Certified {
                    key: view.key.clone(),
                    certificate: certificate.to_vec(),
                };
                Some((view.app?.to_string(), certified))
            })
            .collect();
        let kept: BTreeSet<String> = views
            .iter()
            .map(|view| view.app.map_or_else(|| LOGIN.to_owned(), Name::to_string))
            .collect();
        drop(views);
        self.tls.serve(served);
        let secure = self.apps.iter().map(crate::apps::App::config);
        let secure = secure.filter(|config| config.tls_port.is_some());
        let secure = secure.map(|config| config.name.clone());
        let page = self.config.login.tls && self.node.site_prefix().is_some();
        let missing: Vec<String> = secure
            .chain(page.then(|| LOGIN.to_owned()))
            .filter(|name| !kept.contains(name) && !self.state.keys_wished.contains(name))
            .collect();
        for name in missing {
            let Ok(app) = app_called(&name) else {
                continue;
            };
            match self.node.tls_subject(app.as_ref()) {
                Ok(subject) => {
                    if self.tls.make(&name, subject) {
                        self.state.keys_wished.insert(name);
                    }
                }
                Err(e) => crate::error!("{name} can't have TLS: {e}"),
            }
        }
    }

    /// A key was made, or could not be; then it is wished for again at the next look.
    pub(super) fn take_key(&mut self, made: KeyMade, now: Instant) {
        self.state.keys_wished.remove(&made.name);
        let (Some(key), Ok(app)) = (made.key, app_called(&made.name)) else {
            return;
        };
        if let Err(e) = self.node.handle_command(Command::AskTls { app, key }, now) {
            // The app may be gone meanwhile.
            crate::warning!("{} asks for no certificate: {}", made.name, log::chain(&e));
        }
        self.tend_tls();
    }

    /// What is to be said of an app's TLS.
    pub(super) fn tls_state(&self, name: &str) -> types::AppTls {
        if let Some(why) = self.tls.unfit(name) {
            return types::AppTls::new(types::State::Unfit).why(why);
        }
        let mut views = self.node.tls_views();
        match views.find(|view| view.app.is_some_and(|app| app.as_str() == name)) {
            None => types::AppTls::new(types::State::NoKey),
            Some(view) => match view.certificate {
                Some((_, until)) => types::AppTls {
                    until: Some(until.to_string()),
                    ..types::AppTls::new(types::State::Certified)
                },
                None => types::AppTls::new(types::State::Waiting),
            },
        }
    }

    /// The login page's key and certificate, once an owner has signed.
    pub(super) fn login_tls(&self) -> Result<Value, ApiError> {
        let missing = |message, hint| ApiError::new(Code::NotFound, message, hint);
        let mut views = self.node.tls_views();
        let view = views.find(|view| view.app.is_none()).ok_or_else(|| {
            missing(
                "the login page has no key",
                "write tls = true below [login] in altnet.toml, and install altnet-tls beside altnetd",
            )
        })?;
        let (certificate, _) = view.certificate.ok_or_else(|| {
            missing(
                "the login page's certificate waits for an owner to sign",
                "an owner runs `altnet-provision sync` and `altnet-provision tls sign`",
            )
        })?;
        json_of(types::Served {
            certificate: BASE64.encode(certificate),
            key: BASE64.encode(view.key.expose()),
        })
    }

    /// The authority that devices are to trust.
    pub(super) fn tls_authority(&self) -> Result<Value, ApiError> {
        let registry = self.node.registry().ok_or_else(|| {
            ApiError::new(
                Code::NotAMember,
                "this node is in no network yet",
                "join one with an invite first",
            )
        })?;
        let authority = registry.tls_authority().ok_or_else(|| {
            ApiError::new(
                Code::NotFound,
                "this network has no authority for TLS",
                "an owner makes one with `altnet-provision tls create`",
            )
        })?;
        json_of(types::Authority::of(
            registry.genesis().name.as_str(),
            &registry.network().to_string(),
            &authority.certificate,
            authority.expires,
        ))
    }
}
