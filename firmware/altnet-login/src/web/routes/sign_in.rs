//! Logging in: each way asks its directory, and who tries too often waits.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderMap;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{BEGUN_PATIENCE, Elsewhere, MAX_BEGUN, Refusal, Site};
use crate::directory::{Identity, SignInError};
use crate::oidc::Brought;
use crate::source::{Directory, Source};
use crate::web::browser::Browser;
use crate::web::reply::{empty, see};
use crate::web::request::{Form, is_from_here};
use crate::web::{Peer, Response};

impl Site {
    pub(super) async fn code(&self, peer: &Peer, typed: &str) -> Result<bool, Refusal> {
        let is_it = |source: &Source| matches!(source.directory, Directory::Codes(_));
        let Some((_, source)) = self.nth("1", is_it) else {
            return Ok(false);
        };
        let Directory::Codes(codes) = &source.directory else {
            return Ok(false);
        };
        let address = peer.address.to_string();
        let (device, _) = self.sessions.whose(&address).await.map_err(Refusal::Api)?;
        let (codes, typed) = (codes.clone(), Zeroizing::new(typed.to_owned()));
        let redeem = async {
            // Sums and the medium take their time.
            let redeemed = tokio::task::spawn_blocking(move || codes.redeem(&typed, &device));
            let gone = |_| SignInError::Unreachable("this gateway's list of codes".into());
            Ok(redeemed.await.map_err(gone)??.identity())
        };
        self.sign_in(peer, source, None, redeem).await
    }

    pub(super) async fn ldap(
        &self,
        peer: &Peer,
        number: &str,
        name: &str,
        password: &str,
    ) -> Result<bool, Refusal> {
        let is_it = |source: &Source| matches!(source.directory, Directory::Ldap(_));
        match self.nth(number, is_it) {
            Some((_, source)) => match &source.directory {
                Directory::Ldap(ldap) => {
                    self.sign_in(peer, source, Some(name), ldap.sign_in(name, password))
                        .await
                }
                _ => Ok(false),
            },
            None => Ok(false),
        }
    }

    pub(super) async fn certificate(&self, peer: &Peer) -> Result<bool, Refusal> {
        if !peer.was_asked || peer.chain.is_empty() {
            return Err(SignInError::Wrong.into());
        }
        let mut refusal = SignInError::Wrong;
        for source in self.sessions.sources() {
            let Directory::Pki(authority) = &source.directory else {
                continue;
            };
            match authority.check(&peer.chain).await {
                Ok(identity) => {
                    return self
                        .sign_in(peer, source, None, async { Ok(identity) })
                        .await;
                }
                // Another authority's.
                Err(SignInError::Wrong) => {}
                Err(why) => refusal = why,
            }
        }
        Err(refusal.into())
    }

    pub(super) async fn firebase(
        &self,
        peer: &Peer,
        number: &str,
        token: &str,
        refresh: Option<&str>,
    ) -> Result<bool, Refusal> {
        let Some((source, firebase)) = self.firebase_at(number) else {
            return Ok(false);
        };
        self.sign_in(peer, source, None, firebase.sign_in_with(token, refresh))
            .await
    }

    pub(super) async fn firebase_password(
        &self,
        peer: &Peer,
        number: &str,
        email: &str,
        password: &str,
    ) -> Result<bool, Refusal> {
        let Some((source, firebase)) = self.firebase_at(number) else {
            return Ok(false);
        };
        self.sign_in(peer, source, Some(email), firebase.sign_in(email, password))
            .await
    }

    fn firebase_at(&self, number: &str) -> Option<(&Arc<Source>, &crate::firebase::Firebase)> {
        let is_it = |source: &Source| matches!(source.directory, Directory::Firebase(_));
        let (_, source) = self.nth(number, is_it)?;
        match &source.directory {
            Directory::Firebase(firebase) => Some((source, firebase)),
            _ => None,
        }
    }

    /// Lets somebody try, unless they were wrong too often, and logs their device in.
    async fn sign_in(
        &self,
        peer: &Peer,
        source: &Source,
        account: Option<&str>,
        trying: impl Future<Output = Result<Identity, SignInError>>,
    ) -> Result<bool, Refusal> {
        let address = peer.address.to_string();
        let mut keys = vec![format!("address {address}")];
        if let Some(account) = account {
            keys.push(format!("{} {}", source.how, account.trim().to_lowercase()));
        }
        let now = Instant::now();
        if !self.limits().begin(&keys, now) {
            return Err(Refusal::Wait);
        }
        // Whoever is on no LAN of this gateway's has nothing to try here.
        self.sessions.whose(&address).await.map_err(Refusal::Api)?;
        let tried = trying.await;
        if !matches!(tried, Err(SignInError::Wrong)) {
            self.limits().forgive(&keys, now);
        }
        self.sessions.log_in(&address, source, tried?).await?;
        Ok(true)
    }

    pub(super) async fn begin(
        &self,
        peer: &Peer,
        number: &str,
        headers: &HeaderMap,
        browser: &Browser,
    ) -> Result<Response, Refusal> {
        if !is_from_here(headers, peer.is_tls) {
            return Err(Refusal::Foreign);
        }
        let is_it = |source: &Source| matches!(source.directory, Directory::Oidc(_));
        let Some((index, source)) = self.nth(number, is_it) else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let Directory::Oidc(provider) = &source.directory else {
            return Ok(empty(StatusCode::NOT_FOUND));
        };
        let begun = provider.begin().await?;
        let response = see(&begun.url);
        let now = Instant::now();
        let mut all = self.begun();
        all.retain(|other| now < other.at + BEGUN_PATIENCE);
        if all.len() == MAX_BEGUN {
            all.remove(0);
        }
        all.push(Elsewhere {
            source: index,
            browser: browser.id.clone(),
            peer: peer.address.to_string(),
            begun,
            at: now,
        });
        Ok(response)
    }

    pub(super) async fn finish(
        &self,
        peer: &Peer,
        number: &str,
        query: &str,
        browser: &Browser,
    ) -> Result<(), Refusal> {
        let query = Form::parse(query.as_bytes()).ok_or(Refusal::Body)?;
        let is_it = |source: &Source| matches!(source.directory, Directory::Oidc(_));
        let (index, source) = self.nth(number, is_it).ok_or(Refusal::Foreign)?;
        let Directory::Oidc(provider) = &source.directory else {
            return Err(Refusal::Foreign);
        };
        let state = query.field("state").unwrap_or_default();
        let address = peer.address.to_string();
        let now = Instant::now();
        let begun = {
            let mut all = self.begun();
            let place = all.iter().position(|other| {
                other.source == index
                    && other.begun.state == state
                    && other.browser == browser.id
                    && other.peer == address
                    && now < other.at + BEGUN_PATIENCE
            });
            // Once only.
            all.remove(place.ok_or(Refusal::Foreign)?).begun
        };
        if let Some(error) = query.field("error") {
            crate::info!("{} ends a login with {error}", source.name);
            return Err(SignInError::Wrong.into());
        }
        let brought = Brought {
            code: query.field("code").ok_or(Refusal::Body)?.into(),
            issuer: query.field("iss").map(String::from),
        };
        let finished = provider.finish(&begun, &brought);
        self.sign_in(peer, source, None, finished).await.map(|_| ())
    }

    /// The `number`th source of a kind, counted from 1, and its place among all.
    pub(super) fn nth(
        &self,
        number: &str,
        is_it: impl Fn(&Source) -> bool,
    ) -> Option<(usize, &Arc<Source>)> {
        let number: usize = number.parse().ok()?;
        let all = self.sessions.sources().iter().enumerate();
        all.filter(|(_, source)| is_it(source))
            .nth(number.checked_sub(1)?)
    }
}
