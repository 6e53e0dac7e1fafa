//! Firebase Authentication: ID tokens, and whether the account still holds.
//!
//! In: an ID token that an app made, or an e-mail address and a password that the Identity Toolkit
//! turns into one. Out: an [`Identity`] whose handle is the tokens that are needed to ask again.
//!
//! Source: Firebase, "Verify ID tokens using a third-party JWT library"; Identity Toolkit API v1
//! `accounts:signInWithPassword` and `accounts:lookup`; Secure Token API v1 `token`.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::config::{self, ConfigError};
use crate::directory::{Identity, SignInError, Standing};
use crate::http::{Answer, Body, Client, Endpoint, form, percent_encode};
use crate::jwt::{Claims, SKEW_S, Token, TokenError};
use crate::keys::{Disbelief, KeyCache};
use crate::log;
use crate::state;

const KEYS: &str =
    "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";
const IDENTITY: &str = "https://identitytoolkit.googleapis.com";
const TOKEN: &str = "https://securetoken.googleapis.com/v1/token";
const ISSUER: &str = "https://securetoken.google.com";
/// The longest `sub`, in characters.
const MAX_SUBJECT_CHARS: usize = 128;
const MAX_GROUPS: usize = 1000;

/// A project.
#[derive(Debug)]
pub struct Firebase {
    name: String,
    project: String,
    groups_claim: String,
    keys_url: Endpoint,
    sign_in_url: Endpoint,
    lookup_url: Endpoint,
    token_url: Endpoint,
    is_emulated: bool,
    client: Client,
    keys: KeyCache,
}

#[derive(Serialize, Deserialize)]
struct Handle {
    id: String,
    refresh: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignedIn {
    id_token: String,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Refreshed {
    id_token: String,
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Lookup {
    #[serde(default)]
    users: Vec<User>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    local_id: String,
    #[serde(default)]
    disabled: bool,
    /// Seconds since 1970, as text.
    valid_since: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: RefusalError,
}

#[derive(Deserialize)]
struct RefusalError {
    message: String,
}

impl Firebase {
    /// The project of a section of the configuration.
    ///
    /// # Errors
    /// [`ConfigError`] if a file that is named can't be used.
    pub fn new(section: &config::Firebase) -> Result<Self, ConfigError> {
        let emulator = section.emulator_host;
        let emulated = |service: &str| emulator.map(|host| format!("http://{host}/{service}"));
        let url = |own: &Option<String>, emulated: Option<String>, usual: &str| {
            own.clone().or(emulated).unwrap_or_else(|| usual.into())
        };
        let identity = url(
            &section.identity_url,
            emulated("identitytoolkit.googleapis.com"),
            IDENTITY,
        );
        let token = url(
            &section.token_url,
            emulated("securetoken.googleapis.com/v1/token"),
            TOKEN,
        );
        let keys = url(&section.keys_url, None, KEYS);
        let key = percent_encode(&section.api_key);
        let endpoint = |url: String| {
            Endpoint::parse(&url).map_err(|e| ConfigError::Certificate {
                path: url.into(),
                message: e.to_string(),
            })
        };
        if let Some(host) = emulator {
            crate::warning!(
                "{} is the emulator at {host}: whoever reaches this page can be anybody there",
                section.name.get_ref()
            );
        }
        Ok(Self {
            name: section.name.get_ref().clone(),
            project: section.project.clone(),
            groups_claim: section.groups_claim.clone(),
            keys_url: endpoint(keys)?,
            sign_in_url: endpoint(format!(
                "{identity}/v1/accounts:signInWithPassword?key={key}"
            ))?,
            lookup_url: endpoint(format!("{identity}/v1/accounts:lookup?key={key}"))?,
            token_url: endpoint(format!("{token}?key={key}"))?,
            is_emulated: emulator.is_some(),
            client: Client::new(section.ca_file.as_deref())?,
            keys: KeyCache::default(),
        })
    }

    /// Whether it is an emulator, which the page says.
    pub fn is_emulated(&self) -> bool {
        self.is_emulated
    }

    /// Exchanges an e-mail address and a password for who it is.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in(&self, email: &str, password: &str) -> Result<Identity, SignInError> {
        let body = json!({ "email": email, "password": password, "returnSecureToken": true });
        let body = Zeroizing::new(body.to_string());
        let answer = self.ask(&self.sign_in_url, Body::Json(&body)).await?;
        let signed_in: SignedIn = self.read(&answer)?;
        let refresh = signed_in.refresh_token.as_deref();
        self.sign_in_with(&signed_in.id_token, refresh).await
    }

    /// Says whose `id_token` is; with a refresh token it can be asked again after the hour that an
    /// ID token lasts.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn sign_in_with(
        &self,
        id_token: &str,
        refresh: Option<&str>,
    ) -> Result<Identity, SignInError> {
        let claims = self.believe(id_token).await?;
        // A token outlives what revokes it by up to an hour: the account itself is asked.
        self.lookup(id_token, &claims).await?;
        self.identity(&claims, id_token, refresh)
    }

    /// Whether somebody is still there.
    pub async fn look_again(&self, identity: &Identity) -> Standing {
        match self.renew(identity).await {
            Ok(identity) => Standing::Holds(identity),
            Err(SignInError::Unreachable(what)) => Standing::Unreachable(what),
            Err(why) => Standing::Ended(why),
        }
    }

    async fn renew(&self, identity: &Identity) -> Result<Identity, SignInError> {
        let Ok(handle) = serde_json::from_str::<Handle>(&identity.handle) else {
            return Err(SignInError::Wrong);
        };
        let (id, refresh) = match handle.refresh {
            None => (handle.id, None),
            // New claims come only with a new token.
            Some(refresh) => {
                let fields = [
                    ("grant_type", "refresh_token"),
                    ("refresh_token", refresh.as_str()),
                ];
                let answer = self
                    .ask(&self.token_url, Body::Form(&form(&fields)))
                    .await?;
                let new: Refreshed = self.read(&answer)?;
                (new.id_token, Some(new.refresh_token.unwrap_or(refresh)))
            }
        };
        let claims = self.believe(&id).await?;
        if claims.text("sub") != Some(&identity.subject) {
            return Err(SignInError::Wrong);
        }
        self.lookup(&id, &claims).await?;
        self.identity(&claims, &id, refresh.as_deref())
    }

    fn identity(
        &self,
        claims: &Claims,
        id: &str,
        refresh: Option<&str>,
    ) -> Result<Identity, SignInError> {
        // The ID token changes with each refresh; kept besides, it would be written for nothing.
        let handle = Handle {
            id: if refresh.is_some() {
                String::new()
            } else {
                id.into()
            },
            refresh: refresh.map(String::from),
        };
        let handle = serde_json::to_string(&handle).map_err(|e| self.unusable(&e))?;
        // Whoever may sign up can write any address; only one that was verified is a name.
        let verified = claims.0.get("email_verified") == Some(&Value::Bool(true));
        let name = claims
            .text("email")
            .filter(|_| verified)
            .unwrap_or_default();
        let groups = claims.list(&self.groups_claim).into_iter().take(MAX_GROUPS);
        let expires = claims.time("exp").filter(|_| refresh.is_none());
        Ok(Identity {
            subject: claims.text("sub").unwrap_or_default().into(),
            name: name.into(),
            groups: groups.map(String::from).collect(),
            expires: expires.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s))),
            handle: Zeroizing::new(handle),
        })
    }

    /// Checks a token as Firebase says it must be.
    async fn believe(&self, token: &str) -> Result<Claims, SignInError> {
        let claims = if self.is_emulated {
            let claims = Token::parse(token).and_then(Token::unsigned);
            claims.map_err(Disbelief::Token)
        } else {
            self.keys.verify(&self.client, &self.keys_url, token).await
        };
        let checked = claims.and_then(|claims| {
            let checked = check(&claims, &self.project, state::now());
            checked.map(|()| claims).map_err(Disbelief::Token)
        });
        checked.map_err(|why| match why {
            Disbelief::NoKeys => SignInError::Unreachable(self.name.clone()),
            Disbelief::Token(TokenError::Expired) => SignInError::Expired,
            Disbelief::Token(e) => {
                crate::debug!("an ID token for {} is refused: {e}", self.name);
                SignInError::Wrong
            }
        })
    }

    /// Whether the account is there, not switched off, and its tokens not revoked since.
    async fn lookup(&self, token: &str, claims: &Claims) -> Result<(), SignInError> {
        let body = Zeroizing::new(json!({ "idToken": token }).to_string());
        let answer = self.ask(&self.lookup_url, Body::Json(&body)).await?;
        let lookup: Lookup = self.read(&answer)?;
        let is_it = |user: &&User| claims.text("sub") == Some(&user.local_id);
        let user = lookup
            .users
            .iter()
            .find(is_it)
            .ok_or(SignInError::Revoked)?;
        let since = user
            .valid_since
            .as_deref()
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        match user.disabled || claims.time("auth_time").is_none_or(|at| at < since) {
            true => Err(SignInError::Revoked),
            false => Ok(()),
        }
    }

    async fn ask(&self, endpoint: &Endpoint, body: Body<'_>) -> Result<Answer, SignInError> {
        let asked = self.client.ask(endpoint, body, None).await;
        asked.map_err(|e| self.unusable(&log::chain(&e)))
    }

    fn read<T: for<'de> Deserialize<'de>>(&self, answer: &Answer) -> Result<T, SignInError> {
        if answer.status == 200 {
            let read = serde_json::from_slice(&answer.body);
            return read.map_err(|_| self.unusable(&"its answer can't be read"));
        }
        let refusal: Option<Refusal> = serde_json::from_slice(&answer.body).ok();
        let message = refusal
            .map(|refusal| refusal.error.message)
            .unwrap_or_default();
        // Some come with more behind: `TOO_MANY_ATTEMPTS_TRY_LATER : ...`.
        Err(match message.split([' ', ':']).next().unwrap_or_default() {
            "EMAIL_NOT_FOUND"
            | "INVALID_PASSWORD"
            | "INVALID_LOGIN_CREDENTIALS"
            | "INVALID_EMAIL"
            | "MISSING_PASSWORD"
            | "MISSING_EMAIL" => SignInError::Wrong,
            "USER_DISABLED"
            | "USER_NOT_FOUND"
            | "INVALID_REFRESH_TOKEN"
            | "INVALID_ID_TOKEN"
            | "TOKEN_EXPIRED" => SignInError::Revoked,
            _ => self.unusable(&format_args!("it says {} {message}", answer.status)),
        })
    }

    fn unusable(&self, why: &dyn std::fmt::Display) -> SignInError {
        crate::warning!("{} can't be asked: {why}", self.name);
        SignInError::Unreachable(self.name.clone())
    }
}

/// Checks the claims of a token for `project`.
fn check(claims: &Claims, project: &str, now: u64) -> Result<(), TokenError> {
    claims.check(&format!("{ISSUER}/{project}"), project, now)?;
    if claims
        .text("sub")
        .is_none_or(|sub| sub.chars().count() > MAX_SUBJECT_CHARS)
    {
        return Err(TokenError::Claim("sub"));
    }
    let began = claims
        .time("auth_time")
        .ok_or(TokenError::Claim("auth_time"))?;
    match began > now.saturating_add(SKEW_S) {
        true => Err(TokenError::Claim("auth_time")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_checked_as_firebase_says() {
        let good = json!({
            "iss": "https://securetoken.google.com/p", "aud": "p", "sub": "u",
            "exp": 2000, "iat": 1000, "auth_time": 900,
        });
        let refused = |name: &str, value: Value| {
            let mut claims = good.as_object().unwrap().clone();
            claims.insert(name.into(), value);
            check(&Claims(claims), "p", 1000).is_err()
        };
        assert!(!refused("other", json!(1)));
        for (name, value) in [
            ("iss", json!("https://securetoken.google.com/q")),
            ("aud", json!("q")),
            ("sub", json!("")),
            ("sub", json!("u".repeat(129))),
            ("exp", json!(900)),
            ("iat", json!(1061)),
            ("auth_time", json!(1061)),
            ("auth_time", Value::Null),
        ] {
            assert!(refused(name, value), "{name}");
        }
    }
}
