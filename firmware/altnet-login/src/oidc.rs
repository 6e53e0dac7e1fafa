//! OpenID Connect: the authorization code flow with PKCE, and whether the login still holds.
//!
//! In: what a provider's discovery document, token endpoint and userinfo say. Out: an
//! [`Identity`] whose handle is the tokens that are needed to ask again. It promises that only a
//! token is believed that the provider signed for this client and this very login.
//!
//! Source: OpenID Connect Core 1.0 and Discovery 1.0, RFC 6749, RFC 7636.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::{BASE64, BASE64URL_NOPAD};
use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::config::{self, ConfigError};
use crate::directory::{Identity, SignInError, Standing};
use crate::http::{Answer, Body, Client, Endpoint, form, percent_encode};
use crate::jwt::{Claims, TokenError};
use crate::keys::{Disbelief, KeyCache};
use crate::log;
use crate::state;

/// How long a discovery document is kept.
const DISCOVERY_AGE: Duration = Duration::from_secs(3600);
/// The most groups of one person.
const MAX_GROUPS: usize = 1000;
/// Bytes of chance in a state, a nonce and a verifier (RFC 7636 section 4.1 recommends 32).
const RANDOM_BYTES: usize = 32;

/// A provider.
#[derive(Debug)]
pub struct Provider {
    name: String,
    issuer: String,
    client_id: String,
    client_secret: Option<Zeroizing<String>>,
    scopes: Vec<String>,
    groups_claim: String,
    name_claim: String,
    redirect: String,
    client: Client,
    discovery: Mutex<Option<(Arc<Discovery>, Instant)>>,
    keys: KeyCache,
}

/// What a provider says of itself.
#[derive(Debug)]
pub struct Discovery {
    authorization: String,
    token: Endpoint,
    keys: Endpoint,
    userinfo: Option<Endpoint>,
    scopes: Option<Vec<String>>,
    takes_basic: bool,
    names_itself: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    scopes_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Discovery {
    /// Reads the document at `/.well-known/openid-configuration`. Nothing if it is none, is
    /// another issuer's, or names addresses that may not be asked.
    ///
    /// Source: Discovery 1.0 section 4.3: the issuer must match exactly.
    pub fn parse(bytes: &[u8], issuer: &str) -> Option<Self> {
        let document: Document = serde_json::from_slice(bytes).ok()?;
        if document.issuer != issuer {
            return None;
        }
        Endpoint::parse(&document.authorization_endpoint).ok()?;
        let userinfo = document.userinfo_endpoint.map(|url| Endpoint::parse(&url));
        let methods = document.token_endpoint_auth_methods_supported;
        Some(Self {
            authorization: document.authorization_endpoint,
            token: Endpoint::parse(&document.token_endpoint).ok()?,
            keys: Endpoint::parse(&document.jwks_uri).ok()?,
            userinfo: userinfo.transpose().ok()?,
            scopes: document.scopes_supported,
            // Core 1.0 section 9: what isn't said is client_secret_basic.
            takes_basic: methods.is_none_or(|m| m.iter().any(|m| m == "client_secret_basic")),
            names_itself: document.authorization_response_iss_parameter_supported,
        })
    }
}

/// A login that was begun: what must come back with it.
#[derive(Debug)]
pub struct Begun {
    /// Where the browser is sent.
    pub url: String,
    /// What it brings back.
    pub state: String,
    nonce: String,
    verifier: Zeroizing<String>,
}

/// What a browser brings back.
#[derive(Debug)]
pub struct Brought {
    /// The authorization code.
    pub code: String,
    /// The issuer, if it says so (RFC 9207).
    pub issuer: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    id_token: Option<String>,
    refresh_token: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Handle {
    access: String,
    refresh: Option<String>,
}

#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
}

impl Provider {
    /// The provider of a section of the configuration; browsers come back to `redirect`.
    ///
    /// # Errors
    /// [`ConfigError`] if a file that is named can't be used.
    pub fn new(section: &config::Oidc, redirect: String) -> Result<Self, ConfigError> {
        let secret = section.client_secret_file.as_deref().map(config::secret);
        Ok(Self {
            name: section.name.get_ref().clone(),
            issuer: section.issuer.clone(),
            client_id: section.client_id.clone(),
            client_secret: secret.transpose()?,
            scopes: section.scopes.clone(),
            groups_claim: section.groups_claim.clone(),
            name_claim: section.name_claim.clone(),
            redirect,
            client: Client::new(section.ca_file.as_deref())?,
            discovery: Mutex::default(),
            keys: KeyCache::default(),
        })
    }

    /// Where browsers come back to; the provider must know it.
    pub fn redirect(&self) -> &str {
        &self.redirect
    }

    /// Begins a login.
    ///
    /// # Errors
    /// [`SignInError::Unreachable`].
    pub async fn begin(&self) -> Result<Begun, SignInError> {
        let discovery = self.discover().await?;
        let (state, nonce) = (self.random()?, self.random()?);
        let verifier = Zeroizing::new(self.random()?);
        let challenge = digest::digest(&digest::SHA256, verifier.as_bytes());
        let scopes: Vec<&str> = self.scopes.iter().map(String::as_str).collect();
        let known = |scope: &&str| {
            let supported = discovery.scopes.as_ref();
            *scope != "offline_access" || supported.is_none_or(|all| all.iter().any(|s| s == scope))
        };
        let scopes: Vec<&str> = scopes.into_iter().filter(known).collect();
        let joined = scopes.join(" ");
        let challenge = BASE64URL_NOPAD.encode(challenge.as_ref());
        let mut fields = vec![
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect),
            ("scope", &joined),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        if scopes.contains(&"offline_access") {
            // Core 1.0 section 11: without it offline_access is ignored.
            fields.push(("prompt", "consent"));
        }
        let joint = if discovery.authorization.contains('?') {
            '&'
        } else {
            '?'
        };
        let url = format!("{}{joint}{}", discovery.authorization, *form(&fields));
        Ok(Begun {
            url,
            state,
            nonce,
            verifier,
        })
    }

    /// Ends a login with what the browser brought back.
    ///
    /// # Errors
    /// [`SignInError`].
    pub async fn finish(&self, begun: &Begun, brought: &Brought) -> Result<Identity, SignInError> {
        let discovery = self.discover().await?;
        match &brought.issuer {
            Some(issuer) if *issuer != self.issuer => return Err(SignInError::Wrong),
            None if discovery.names_itself => return Err(SignInError::Wrong),
            _ => {}
        }
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", &brought.code),
            ("redirect_uri", &self.redirect),
            ("code_verifier", &begun.verifier),
        ];
        let answer = self.ask_for_tokens(&discovery, &fields).await?;
        if answer.status != 200 {
            return Err(match refusal(&answer).as_deref() {
                Some("invalid_grant") => SignInError::Wrong,
                error => self.unusable(&format_args!(
                    "its token endpoint says {} {}; check client_id and client_secret_file",
                    answer.status,
                    error.unwrap_or("")
                )),
            });
        }
        let tokens = self.tokens(&answer)?;
        let Some(id_token) = &tokens.id_token else {
            return Err(
                self.unusable(&"its token endpoint gives no ID token; is openid among the scopes?")
            );
        };
        let claims = self.believe(&discovery, id_token).await?;
        if claims.text("nonce") != Some(&begun.nonce) {
            return Err(SignInError::Wrong);
        }
        self.identity(&discovery, tokens, Some(claims), None).await
    }

    /// Whether somebody is still there: the refresh token's word, or else userinfo's.
    pub async fn look_again(&self, identity: &Identity) -> Standing {
        match self.refresh(identity).await {
            Ok(identity) => Standing::Holds(identity),
            Err(SignInError::Unreachable(what)) => Standing::Unreachable(what),
            Err(why) => Standing::Ended(why),
        }
    }

    async fn refresh(&self, identity: &Identity) -> Result<Identity, SignInError> {
        let Ok(handle) = serde_json::from_str::<Handle>(&identity.handle) else {
            return Err(SignInError::Wrong);
        };
        let discovery = self.discover().await?;
        let Some(refresh) = handle.refresh else {
            let tokens = Tokens {
                access_token: handle.access,
                id_token: None,
                refresh_token: None,
            };
            if discovery.userinfo.is_none() {
                return self.until_it_expires(identity, tokens);
            }
            return self
                .identity(&discovery, tokens, None, Some(identity))
                .await;
        };
        let fields = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh.as_str()),
        ];
        let answer = self.ask_for_tokens(&discovery, &fields).await?;
        let refused = refusal(&answer);
        if refused.as_deref() == Some("invalid_grant") || answer.status == 401 {
            return Err(SignInError::Revoked);
        }
        let mut tokens = self.tokens(&answer)?;
        // RFC 6749 section 6: without a new one the old one stays good.
        tokens.refresh_token.get_or_insert(refresh);
        let claims = match &tokens.id_token {
            Some(token) => Some(self.believe(&discovery, token).await?),
            None => None,
        };
        self.identity(&discovery, tokens, claims, Some(identity))
            .await
    }

    /// Nothing can be asked: what was shown holds as long as it says.
    fn until_it_expires(&self, known: &Identity, tokens: Tokens) -> Result<Identity, SignInError> {
        let expires = known.expires.ok_or(SignInError::Expired)?;
        if state::seconds(expires) <= state::now() {
            return Err(SignInError::Expired);
        }
        Ok(Identity {
            subject: known.subject.clone(),
            name: known.name.clone(),
            groups: known.groups.clone(),
            expires: Some(expires),
            handle: self.handle(&tokens)?,
        })
    }

    /// Who it is, from the ID token's claims and, for what those don't say, userinfo.
    async fn identity(
        &self,
        discovery: &Discovery,
        tokens: Tokens,
        claims: Option<Claims>,
        known: Option<&Identity>,
    ) -> Result<Identity, SignInError> {
        let wanted = [&self.groups_claim, &self.name_claim];
        let lacks = |c: &Claims| wanted.iter().any(|name| !c.0.contains_key(*name));
        let mut said = claims.clone().unwrap_or(Claims(serde_json::Map::new()));
        if let Some(userinfo) = &discovery.userinfo
            && claims.as_ref().is_none_or(lacks)
        {
            let more = self.userinfo(userinfo, &tokens.access_token).await?;
            if let (Some(a), Some(b)) = (said.text("sub"), more.text("sub"))
                && a != b
            {
                // Core 1.0 section 5.3.2: else it is somebody else's.
                return Err(SignInError::Wrong);
            }
            for (name, value) in more.0 {
                said.0.entry(name).or_insert(value);
            }
        }
        let subject = said.text("sub").or(known.map(|k| k.subject.as_str()));
        let subject = subject.ok_or(SignInError::Wrong)?.to_owned();
        if known.is_some_and(|known| known.subject != subject) {
            return Err(SignInError::Wrong);
        }
        let says_nothing = said.0.is_empty();
        let can_be_asked = tokens.refresh_token.is_some() || discovery.userinfo.is_some();
        let expires = claims.as_ref().and_then(|claims| claims.time("exp"));
        let groups = said.list(&self.groups_claim);
        Ok(Identity {
            subject,
            name: match known {
                Some(known) if says_nothing => known.name.clone(),
                _ => self.name_in(&said),
            },
            groups: match known {
                Some(known) if says_nothing => known.groups.clone(),
                _ => groups
                    .into_iter()
                    .take(MAX_GROUPS)
                    .map(String::from)
                    .collect(),
            },
            expires: match can_be_asked {
                true => None,
                false => expires.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s))),
            },
            handle: self.handle(&tokens)?,
        })
    }

    fn name_in(&self, claims: &Claims) -> String {
        // Core 1.0 section 5.1: anybody can claim an address that wasn't verified.
        let verified = claims.0.get("email_verified") == Some(&Value::Bool(true));
        if self.name_claim == "email" && !verified {
            return String::new();
        }
        claims.text(&self.name_claim).unwrap_or_default().to_owned()
    }

    fn handle(&self, tokens: &Tokens) -> Result<Zeroizing<String>, SignInError> {
        // The access token changes with each refresh; kept besides, it would be written for nothing.
        let access = match tokens.refresh_token {
            Some(_) => String::new(),
            None => tokens.access_token.clone(),
        };
        let handle = Handle {
            access,
            refresh: tokens.refresh_token.clone(),
        };
        let text = serde_json::to_string(&handle).map_err(|e| self.unusable(&e))?;
        Ok(Zeroizing::new(text))
    }

    async fn userinfo(&self, endpoint: &Endpoint, access: &str) -> Result<Claims, SignInError> {
        let authorization = Zeroizing::new(format!("Bearer {access}"));
        let asked = self.client.ask(endpoint, Body::None, Some(&authorization));
        let answer = asked.await.map_err(|e| self.unusable(&log::chain(&e)))?;
        match answer.status {
            200 => {
                let claims = serde_json::from_slice(&answer.body);
                claims
                    .map(Claims)
                    .map_err(|_| self.unusable(&"its userinfo is no JSON"))
            }
            401 => Err(SignInError::Revoked),
            status => Err(self.unusable(&format_args!("its userinfo says {status}"))),
        }
    }

    async fn believe(&self, discovery: &Discovery, token: &str) -> Result<Claims, SignInError> {
        let verified = self.keys.verify(&self.client, &discovery.keys, token).await;
        let checked = verified.and_then(|claims| {
            let checked = claims.check(&self.issuer, &self.client_id, state::now());
            checked.map(|()| claims).map_err(Disbelief::Token)
        });
        checked.map_err(|why| match why {
            Disbelief::NoKeys => SignInError::Unreachable(self.name.clone()),
            Disbelief::Token(TokenError::Expired) => SignInError::Expired,
            Disbelief::Token(e) => {
                crate::warning!("an ID token of {} is refused: {e}", self.name);
                SignInError::Wrong
            }
        })
    }

    /// Asks the token endpoint as this client.
    async fn ask_for_tokens(
        &self,
        discovery: &Discovery,
        fields: &[(&str, &str)],
    ) -> Result<Answer, SignInError> {
        let mut fields = fields.to_vec();
        let mut authorization = None;
        match &self.client_secret {
            // RFC 6749 section 2.3.1: both are form-encoded first.
            Some(secret) if discovery.takes_basic => {
                let (id, secret) = (percent_encode(&self.client_id), percent_encode(secret));
                let pair = Zeroizing::new(format!("{id}:{secret}"));
                let text = format!("Basic {}", BASE64.encode(pair.as_bytes()));
                authorization = Some(Zeroizing::new(text));
            }
            Some(secret) => fields.extend([
                ("client_id", self.client_id.as_str()),
                ("client_secret", secret),
            ]),
            None => fields.push(("client_id", &self.client_id)),
        }
        let body = form(&fields);
        let authorization = authorization.as_ref().map(|text| text.as_str());
        let asked = self
            .client
            .ask(&discovery.token, Body::Form(&body), authorization);
        asked.await.map_err(|e| self.unusable(&log::chain(&e)))
    }

    fn tokens(&self, answer: &Answer) -> Result<Tokens, SignInError> {
        if answer.status != 200 {
            return Err(self.unusable(&format_args!("its token endpoint says {}", answer.status)));
        }
        let tokens = serde_json::from_slice(&answer.body);
        tokens.map_err(|_| self.unusable(&"its token endpoint gives no tokens"))
    }

    async fn discover(&self) -> Result<Arc<Discovery>, SignInError> {
        let now = Instant::now();
        if let Some((found, at)) = &*self.slot()
            && now < *at + DISCOVERY_AGE
        {
            return Ok(Arc::clone(found));
        }
        let base = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        let url = format!("{base}/.well-known/openid-configuration");
        let endpoint = Endpoint::parse(&url).map_err(|e| self.unusable(&e))?;
        let asked = self.client.ask(&endpoint, Body::None, None).await;
        let answer = asked.map_err(|e| self.unusable(&log::chain(&e)))?;
        let found = Discovery::parse(&answer.body, &self.issuer).filter(|_| answer.status == 200);
        let found = found.ok_or_else(|| {
            self.unusable(&"its discovery document is none, or not of exactly this issuer")
        })?;
        let found = Arc::new(found);
        *self.slot() = Some((Arc::clone(&found), now));
        Ok(found)
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<(Arc<Discovery>, Instant)>> {
        // It is replaced whole.
        self.discovery
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unusable(&self, why: &dyn std::fmt::Display) -> SignInError {
        crate::warning!("{} can't be asked: {why}", self.name);
        SignInError::Unreachable(self.name.clone())
    }

    fn random(&self) -> Result<String, SignInError> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(|e| self.unusable(&e))?;
        Ok(BASE64URL_NOPAD.encode(&bytes))
    }
}

/// Why a token endpoint gives no tokens (RFC 6749 section 5.2).
fn refusal(answer: &Answer) -> Option<String> {
    let refusal: TokenRefusal = serde_json::from_slice(&answer.body).ok()?;
    Some(refusal.error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn document(change: Value) -> Vec<u8> {
        let mut document = json!({
            "issuer": "https://id.example",
            "authorization_endpoint": "https://id.example/auth",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://id.example/keys",
        });
        for (name, value) in change.as_object().unwrap() {
            document[name] = value.clone();
        }
        document.to_string().into_bytes()
    }

    #[test]
    fn only_the_issuer_itself_is_believed() {
        let check = |change: Value, good: bool| {
            let found = Discovery::parse(&document(change.clone()), "https://id.example");
            assert_eq!(found.is_some(), good, "{change}");
        };
        check(json!({}), true);
        check(json!({"issuer": "https://id.example/"}), false);
        check(json!({"token_endpoint": "http://id.example/token"}), false);
        check(
            json!({"authorization_endpoint": "javascript:alert(1)"}),
            false,
        );
        check(json!({"jwks_uri": null}), false);
        check(json!({"userinfo_endpoint": "ftp://x"}), false);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, text: String) {
            let _ = Discovery::parse(&bytes, "https://id.example");
            let _ = Discovery::parse(&document(json!({"token_endpoint": text})), "https://id.example");
        }
    }
}
