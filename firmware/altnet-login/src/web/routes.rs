//! What each address of the page does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::browser::{Browser, Tokens, set_cookie};
use super::limits::Limits;
use super::pages::{self, Notice, Way, Who};
use super::reply::{self, empty, read_body, see};
use super::request::{Form, host, is_from_here};
use super::{Peer, Response, onward};
use crate::config::Config;
use crate::directory::SignInError;
use crate::http::form;
use crate::oidc::Begun;
use crate::passkey::challenges::Challenges;
use crate::passkey::{Party, PasskeyError};
use crate::sessions::{LoginError, Session, Sessions};
use crate::source::Directory;
use crate::state;

mod authority;
mod passkey;
mod sign_in;

/// Logins at other sites that are under way, and how long they may be.
const MAX_BEGUN: usize = 256;
const BEGUN_PATIENCE: Duration = Duration::from_secs(600);
/// The page.
pub struct Site {
    sessions: Arc<Sessions>,
    url: Option<String>,
    is_https_only: bool,
    certificate_port: Option<u16>,
    policy: HeaderValue,
    tokens: Tokens,
    limits: Mutex<Limits>,
    begun: Mutex<Vec<Elsewhere>>,
    party: Option<Party>,
    passkey_policy: HeaderValue,
    challenges: Mutex<Challenges>,
    proven: Mutex<passkey::Proven>,
}

/// A login that is under way at another site.
struct Elsewhere {
    source: usize,
    browser: String,
    peer: String,
    begun: Begun,
    at: Instant,
}

#[derive(Deserialize)]
struct IdToken {
    id_token: Zeroizing<String>,
    refresh_token: Option<Zeroizing<String>>,
}

/// Why a request isn't done.
enum Refusal {
    Foreign,
    Wait,
    Body,
    Login(LoginError),
    Passkey(PasskeyError),
    Api(crate::api::ApiError),
}

impl<E: Into<LoginError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Login(error.into())
    }
}

impl From<PasskeyError> for Refusal {
    fn from(error: PasskeyError) -> Self {
        match error {
            PasskeyError::SignIn(e) => e.into(),
            e => Self::Passkey(e),
        }
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Wait => StatusCode::TOO_MANY_REQUESTS,
            Self::Body => StatusCode::BAD_REQUEST,
            Self::Api(_)
            | Self::Passkey(
                PasskeyError::State(_)
                | PasskeyError::Random
                | PasskeyError::Broken
                | PasskeyError::Full,
            )
            | Self::Login(
                LoginError::SignIn(SignInError::Unreachable(_))
                | LoginError::Full
                | LoginError::Api(_),
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Foreign | Self::Login(_) | Self::Passkey(_) => StatusCode::FORBIDDEN,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Foreign => "this came from another page or an old one; try again here".into(),
            Self::Wait => "too many tries; wait a minute, then try again".into(),
            Self::Body => "this can't be read; try again here".into(),
            Self::Login(e) => e.to_string(),
            Self::Passkey(e) => e.to_string(),
            Self::Api(e) => e.to_string(),
        }
    }
}

impl Site {
    /// The page of `config` for `sessions`, with passkeys where it is seen as `party`.
    ///
    /// # Errors
    /// The system has no random bytes.
    pub fn new(
        config: &Config,
        sessions: Arc<Sessions>,
        party: Option<Party>,
    ) -> Result<Self, getrandom::Error> {
        let asks = config
            .tls
            .as_ref()
            .and_then(|tls| tls.client_certificates.first());
        let policy = HeaderValue::from_str(&pages::security_policy());
        let passkey_policy = HeaderValue::from_str(&pages::passkey::security_policy());
        Ok(Self {
            sessions,
            url: config.url.clone(),
            is_https_only: config.wants_https(),
            certificate_port: asks.map(|address| address.port()),
            policy: policy.expect("it is ASCII"),
            tokens: Tokens::new()?,
            limits: Mutex::default(),
            begun: Mutex::default(),
            party,
            passkey_policy: passkey_policy.expect("it is ASCII"),
            challenges: Mutex::default(),
            proven: Mutex::default(),
        })
    }

    /// Answers a request.
    pub async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Response {
        let mut response = self.route(peer, request).await;
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let policy = headers.entry(header::CONTENT_SECURITY_POLICY);
        policy.or_insert_with(|| self.policy.clone());
        response
    }

    async fn route(&self, peer: &Peer, request: Request<Incoming>) -> Response {
        let path = request.uri().path().to_owned();
        let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
        if is_get && path == "/.well-known/captive-portal" {
            return self.captive_portal(peer, request.headers()).await;
        }
        // Also in the clear: who doesn't trust it yet can't come by TLS.
        if is_get && (path == "/ca" || path.starts_with("/ca.")) {
            return authority::answer(self.sessions.authority().await, &path);
        }
        if let Some(url) = self.elsewhere(peer, request.headers()) {
            // A form that comes here had a password in the clear: it isn't sent on.
            return if is_get {
                let onward = onward::named(request.uri(), &self.seen_at(request.headers()));
                match onward {
                    Some(onward) => see(&format!("{url}/?{}", *form(&[("from", &onward)]))),
                    None => see(url),
                }
            } else {
                empty(StatusCode::FORBIDDEN)
            };
        }
        let browser = match self.tokens.browser(peer, request.headers()) {
            Ok(browser) => browser,
            Err(e) => {
                crate::error!("the system gives no random bytes: {e}");
                return empty(StatusCode::SERVICE_UNAVAILABLE);
            }
        };
        let mut response = if is_get {
            self.get(peer, &path, &request, &browser).await
        } else if *request.method() == Method::POST {
            self.post(peer, &path, request, &browser).await
        } else {
            empty(StatusCode::METHOD_NOT_ALLOWED)
        };
        if browser.is_new {
            set_cookie(&mut response, peer, &browser);
        }
        response
    }

    /// Where a request belongs that came to the wrong place: by a foreign name, which another site
    /// may have pointed here, or in the clear where TLS is meant.
    fn elsewhere(&self, peer: &Peer, headers: &HeaderMap) -> Option<&str> {
        let url = self.url.as_deref()?;
        if self.is_https_only && !peer.is_tls {
            return Some(url);
        }
        let host = host(headers).unwrap_or_default();
        let bare = host.parse::<hyper::http::uri::Authority>().ok()?;
        let name = bare.host().trim_start_matches('[').trim_end_matches(']');
        let own = url.split_once("://").map_or("", |(_, authority)| authority);
        let own = own.parse::<hyper::http::uri::Authority>().ok()?;
        let is_own = name.parse::<std::net::IpAddr>().is_ok() || bare.host() == own.host();
        (!is_own).then_some(url)
    }

    /// The host that the page is seen at.
    fn seen_at(&self, headers: &HeaderMap) -> String {
        let own = self.url.as_deref().and_then(|url| url.split_once("://"));
        let authority = own
            .map(|(_, authority)| authority)
            .or_else(|| host(headers));
        let authority = authority.and_then(|text| text.parse::<hyper::http::uri::Authority>().ok());
        authority
            .map(|authority| authority.host().to_owned())
            .unwrap_or_default()
    }

    async fn get(
        &self,
        peer: &Peer,
        path: &str,
        request: &Request<Incoming>,
        browser: &Browser,
    ) -> Response {
        let done = match path.split('/').skip(1).collect::<Vec<_>>()[..] {
            [""] | ["certificate"] => {
                let headers = request.headers();
                let onward = onward::wanted(request.uri(), headers, &self.seen_at(headers));
                let mut response = self
                    .front(
                        peer,
                        headers,
                        browser,
                        StatusCode::OK,
                        None,
                        onward.as_deref(),
                    )
                    .await;
                if let Some(onward) = onward {
                    onward::remember(&mut response, peer, &onward);
                }
                return response;
            }
            ["oidc", number, "start"] => self.begin(peer, number, request.headers(), browser).await,
            ["oidc", number, "callback"] => {
                let query = request.uri().query().unwrap_or_default();
                let finished = self.finish(peer, number, query, browser).await;
                if finished.is_ok() {
                    self.prove(peer, browser).await;
                }
                finished.map(|()| see("/"))
            }
            _ => return empty(StatusCode::NOT_FOUND),
        };
        match done {
            Ok(response) => response,
            Err(refusal) => {
                self.refuse(peer, request.headers(), browser, &refusal)
                    .await
            }
        }
    }

    async fn post(
        &self,
        peer: &Peer,
        path: &str,
        request: Request<Incoming>,
        browser: &Browser,
    ) -> Response {
        let (head, body) = request.into_parts();
        let headers = head.headers;
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let kind = kind
            .unwrap_or_default()
            .split(';')
            .next()
            .unwrap_or_default()
            .trim();
        let is_json = kind.eq_ignore_ascii_case("application/json");
        let body = read_body(body).await;
        let done = match &body {
            None => Err(Refusal::Body),
            Some(_) if !is_from_here(&headers, peer.is_tls) => Err(Refusal::Foreign),
            Some(body) if is_json && path.starts_with("/passkey/") => {
                return self.passkey(peer, path, &headers, body, browser).await;
            }
            Some(body) if is_json => self.take_json(peer, path, body).await,
            Some(body) => self.take_form(peer, path, body, browser).await,
        };
        if matches!(done, Ok(true)) && !matches!(path, "/logout" | "/passkey/remove") {
            self.prove(peer, browser).await;
        }
        match done {
            Ok(true) if is_json => reply::json(StatusCode::OK, &json!({ "logged_in": true })),
            Ok(true) => see("/"),
            Ok(false) => empty(StatusCode::NOT_FOUND),
            Err(refusal) if is_json => {
                reply::json(refusal.status(), &json!({ "error": refusal.text() }))
            }
            Err(refusal) => self.refuse(peer, &headers, browser, &refusal).await,
        }
    }

    /// An app's ID token. Another site's page can't send JSON here: a browser asks first, and is
    /// not answered.
    async fn take_json(&self, peer: &Peer, path: &str, body: &[u8]) -> Result<bool, Refusal> {
        let Some(number) = path.strip_prefix("/firebase/") else {
            return Ok(false);
        };
        let sent: IdToken = serde_json::from_slice(body).map_err(|_| Refusal::Body)?;
        let refresh = sent.refresh_token.as_ref().map(|token| token.as_str());
        self.firebase(peer, number, &sent.id_token, refresh).await
    }

    async fn take_form(
        &self,
        peer: &Peer,
        path: &str,
        body: &[u8],
        browser: &Browser,
    ) -> Result<bool, Refusal> {
        let form = Form::parse(body).ok_or(Refusal::Body)?;
        let token = form.field("token").unwrap_or_default();
        if browser.is_new || !self.tokens.is_token(peer, browser, token) {
            return Err(Refusal::Foreign);
        }
        let field = |name: &str| form.field(name).ok_or(Refusal::Body);
        match path.split('/').skip(1).collect::<Vec<_>>()[..] {
            ["logout"] => {
                let address = peer.address.to_string();
                self.sessions
                    .log_out(&address)
                    .await
                    .map_err(Refusal::Api)?;
                Ok(true)
            }
            ["passkey", "remove"] => self.remove_passkey(peer, browser, field("passkey")?).await,
            ["code"] => self.code(peer, field("code")?).await,
            ["certificate"] => self.certificate(peer).await,
            ["ldap", number] => {
                self.ldap(peer, number, field("name")?, field("password")?)
                    .await
            }
            ["firebase", number] => match form.field("id_token") {
                Some(token) => {
                    self.firebase(peer, number, token, form.field("refresh_token"))
                        .await
                }
                None => {
                    let (email, password) = (field("email")?, field("password")?);
                    self.firebase_password(peer, number, email, password).await
                }
            },
            _ => Ok(false),
        }
    }

    async fn refuse(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        browser: &Browser,
        refusal: &Refusal,
    ) -> Response {
        let notice = Notice {
            text: refusal.text(),
            is_bad: true,
        };
        let status = refusal.status();
        self.front(peer, headers, browser, status, Some(notice), None)
            .await
    }

    async fn front(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        browser: &Browser,
        status: StatusCode,
        mut notice: Option<Notice>,
        onward: Option<&str>,
    ) -> Response {
        let found = self.sessions.whose(&peer.address.to_string()).await;
        let mut passkeys = None;
        if let Ok((_, session)) = &found {
            passkeys = self.offer(peer, headers, browser, session.as_ref()).await;
        }
        let who = match found {
            Ok((_, Some(session))) => logged_in(session),
            Ok((_, None)) => Who::Nobody(self.ways(peer, headers)),
            Err(e) => {
                notice.get_or_insert(Notice {
                    text: e.to_string(),
                    is_bad: true,
                });
                Who::Unknown
            }
        };
        let html = pages::front(
            &who,
            notice.as_ref(),
            &browser.token,
            passkeys.as_ref(),
            onward,
        );
        let mut response = hyper::Response::new(Full::new(Bytes::from(html)));
        *response.status_mut() = status;
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, kind);
        if passkeys.is_some() {
            let policy = self.passkey_policy.clone();
            headers.insert(header::CONTENT_SECURITY_POLICY, policy);
        }
        response
    }

    fn ways(&self, peer: &Peer, headers: &HeaderMap) -> Vec<Way> {
        let (mut oidc, mut firebase, mut ldap, mut pki) = (0, 0, 0, 0);
        let mut ways = Vec::new();
        for source in self.sessions.sources() {
            let name = source.name.clone();
            match &source.directory {
                Directory::Codes(_) => {}
                Directory::Oidc(_) => {
                    oidc += 1;
                    let to = format!("/oidc/{oidc}/start");
                    ways.push(Way::Link { name, to });
                }
                Directory::Firebase(project) => {
                    firebase += 1;
                    ways.push(Way::Password {
                        name,
                        action: format!("/firebase/{firebase}"),
                        is_email: true,
                        is_emulated: project.is_emulated(),
                    });
                }
                Directory::Ldap(_) => {
                    ldap += 1;
                    ways.push(Way::Password {
                        name,
                        action: format!("/ldap/{ldap}"),
                        is_email: false,
                        is_emulated: false,
                    });
                }
                Directory::Pki(_) => {
                    pki += 1;
                    ways.extend(
                        (pki == 1)
                            .then(|| self.certificate_way(peer, headers))
                            .flatten(),
                    );
                }
            }
        }
        // What fewest people have comes last.
        ways.push(Way::Code);
        ways
    }

    fn certificate_way(&self, peer: &Peer, headers: &HeaderMap) -> Option<Way> {
        if peer.was_asked && !peer.chain.is_empty() {
            return Some(Way::Certificate);
        }
        let here = Some(self.seen_at(headers)).filter(|host| !host.is_empty())?;
        Some(Way::Link {
            name: "a certificate".into(),
            to: format!("https://{here}:{}/certificate", self.certificate_port?),
        })
    }

    /// RFC 8908.
    async fn captive_portal(&self, peer: &Peer, headers: &HeaderMap) -> Response {
        let scheme = if peer.is_tls { "https" } else { "http" };
        let here = host(headers).map(|host| format!("{scheme}://{host}"));
        let url = self.url.clone().or(here).unwrap_or_default();
        let found = self.sessions.whose(&peer.address.to_string()).await;
        let session = found.ok().and_then(|(_, session)| session);
        let mut state =
            json!({ "captive": session.is_none(), "user-portal-url": format!("{url}/") });
        if let Some(session) = session {
            state["seconds-remaining"] = session.ends.saturating_sub(state::now()).into();
        }
        let mut response = reply::json(StatusCode::OK, &state);
        let kind = HeaderValue::from_static("application/captive+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> MutexGuard<'_, Vec<Elsewhere>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn logged_in(session: Session) -> Who {
    Who::LoggedIn {
        who: session.who(),
        seconds: session.ends.saturating_sub(state::now()),
        groups: session.groups,
        not_counted: session.not_counted,
    }
}
