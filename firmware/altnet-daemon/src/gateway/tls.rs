//! TLS of the apps here: keys wished for and kept, certificates put to use, and the authority that
//! devices are to trust.

use std::collections::{BTreeMap, BTreeSet};

use altnet_core::node::Command;
use altnet_wire::id::Name;
use altnet_wire::time::Instant;
use serde_json::Value;

use super::Gateway;
use super::calls::json_of;
use crate::api::tls as types;
use crate::api::{ApiError, Code};
use crate::apps::tls::{Certified, KeyMade};
use crate::log;

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
            .filter_map(|view| Some(view.app?.to_string()))
            .collect();
        drop(views);
        self.tls.serve(served);
        let secure = self.apps.iter().map(crate::apps::App::config);
        let secure = secure.filter(|config| config.tls_port.is_some());
        let missing: Vec<String> = secure
            .map(|config| config.name.clone())
            .filter(|name| !kept.contains(name) && !self.state.keys_wished.contains(name))
            .collect();
        for name in missing {
            let Ok(app) = name.parse::<Name>() else {
                continue;
            };
            match self.node.tls_subject(Some(&app)) {
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
        let (Some(key), Ok(app)) = (made.key, made.name.parse::<Name>()) else {
            return;
        };
        let app = Some(app);
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
