//! An issuer's keys, kept for as long as it says and fetched again when a token names a new one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::{Body, Client, Endpoint};
use crate::jwt::{Claims, Keys, Token, TokenError};
use crate::log;

/// How long keys are kept that don't say it, and the longest that they are.
const USUAL_AGE: Duration = Duration::from_secs(3600);
const MOST_AGE: Duration = Duration::from_secs(24 * 3600);
/// How often a token with an unknown key makes this ask at most: anybody can write such a token.
const LEAST_AGE: Duration = Duration::from_secs(30);

/// Why a token isn't believed, or can't be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// The keys can't be had.
    NoKeys,
    /// The token is wrong.
    Token(TokenError),
}

#[derive(Clone, Debug)]
struct Cached {
    keys: Arc<Keys>,
    fetched: Instant,
    until: Instant,
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub struct KeyCache {
    cached: Mutex<Option<Cached>>,
}

impl KeyCache {
    /// Checks the signature of `token` with the keys at `url`.
    ///
    /// # Errors
    /// [`Disbelief`].
    pub async fn verify(
        &self,
        client: &Client,
        url: &Endpoint,
        token: &str,
    ) -> Result<Claims, Disbelief> {
        let parse = || Token::parse(token).map_err(Disbelief::Token);
        parse()?;
        let now = Instant::now();
        let cached = self.slot().clone().filter(|cached| now < cached.until);
        let cached = match cached {
            Some(cached) => cached,
            None => self.fetch(client, url).await?,
        };
        match parse()?.verify(&cached.keys) {
            Err(TokenError::UnknownKey) if now >= cached.fetched + LEAST_AGE => {
                let newer = self.fetch(client, url).await?;
                parse()?.verify(&newer.keys).map_err(Disbelief::Token)
            }
            verdict => verdict.map_err(Disbelief::Token),
        }
    }

    async fn fetch(&self, client: &Client, url: &Endpoint) -> Result<Cached, Disbelief> {
        let answer = client.ask(url, Body::None, None).await.map_err(|e| {
            crate::warning!("an issuer's keys can't be had: {}", log::chain(&e));
            Disbelief::NoKeys
        })?;
        let keys =
            Keys::parse(&answer.body).filter(|keys| answer.status == 200 && !keys.is_empty());
        let keys = keys.ok_or_else(|| {
            crate::warning!(
                "where an issuer's keys should be is no set of keys (status {})",
                answer.status
            );
            Disbelief::NoKeys
        })?;
        let fetched = Instant::now();
        let age = answer
            .max_age
            .unwrap_or(USUAL_AGE)
            .clamp(LEAST_AGE, MOST_AGE);
        let cached = Cached {
            keys: Arc::new(keys),
            fetched,
            until: fetched + age,
        };
        *self.slot() = Some(cached.clone());
        Ok(cached)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Cached>> {
        // It is replaced whole.
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
