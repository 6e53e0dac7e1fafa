//! Adding, using and removing passkeys. The page's script sends JSON; removing is a form.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use data_encoding::BASE64URL_NOPAD;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Refusal, Site};
use crate::codes::Codes;
use crate::directory::{SignInError, Standing};
use crate::passkey::ceremony::{self, ClientData, Deed, Registered};
use crate::passkey::challenges::{self, Asker, Challenges, Purpose};
use crate::passkey::command::{ago, kind};
use crate::passkey::{self, ALGORITHMS, Here, Holder, PasskeyError, Passkeys, Ticket};
use crate::sessions::{MAX_SESSIONS, Session};
use crate::source::{Directory, Source};
use crate::web::browser::Browser;
use crate::web::pages::passkey::{Listed, Offer};
use crate::web::{Peer, Response, reply};

/// Which browser logged each device in: another one on the device, or a device that copies its
/// address, must not be able to keep what the person has.
#[derive(Debug, Default)]
pub(super) struct Proven(BTreeMap<String, (u64, String)>);

impl Proven {
    fn keep(&mut self, device: String, number: u64, browser: String) {
        self.0.insert(device, (number, browser));
        if self.0.len() > MAX_SESSIONS {
            let oldest = self.0.iter().min_by_key(|(_, (number, _))| *number);
            let oldest = oldest.map(|(device, _)| device.clone());
            oldest.map(|device| self.0.remove(&device));
        }
    }

    fn has(&self, device: &str, number: u64, browser: &str) -> bool {
        let known = self.0.get(device);
        known.is_some_and(|(n, b)| *n == number && b == browser)
    }
}

#[derive(Deserialize)]
struct Sent {
    token: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    client_data: String,
    #[serde(default)]
    attestation: String,
    #[serde(default)]
    authenticator_data: String,
    #[serde(default)]
    signature: String,
    #[serde(default)]
    user: String,
}

/// A request of the page's script.
struct Call<'a> {
    peer: &'a Peer,
    browser: &'a Browser,
    here: Here,
    sent: Sent,
}

impl Call<'_> {
    fn asker(&self) -> Asker {
        Asker {
            browser: self.browser.id.clone(),
            address: self.peer.address.to_string(),
        }
    }

    fn client_data(&self, deed: Deed) -> Result<ClientData, PasskeyError> {
        ClientData::read(&bytes(&self.sent.client_data)?, deed, &self.here)
    }
}

impl Site {
    /// Answers the page's script; nothing if `path` isn't for it.
    pub(super) async fn passkey(
        &self,
        peer: &Peer,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
        browser: &Browser,
    ) -> Response {
        let done = async {
            let here = self.here(peer, headers).ok_or(PasskeyError::NotHere)?;
            let sent: Sent = serde_json::from_slice(body).map_err(|_| Refusal::Body)?;
            if browser.is_new || !self.tokens.is_token(peer, browser, &sent.token) {
                return Err(Refusal::Foreign);
            }
            let call = Call {
                peer,
                browser,
                here,
                sent,
            };
            match path {
                "/passkey/add/begin" => self.begin_add(&call).await,
                "/passkey/add" => self.add(&call).await,
                "/passkey/use/begin" => self.begin_use(&call),
                "/passkey/use" => self.come_back(&call).await,
                _ => Err(Refusal::Body),
            }
        };
        match done.await {
            Ok(answer) => reply::json(StatusCode::OK, &answer),
            Err(refusal) => reply::json(refusal.status(), &json!({ "error": refusal.text() })),
        }
    }

    /// What is offered to whoever looks at the page.
    pub(super) async fn offer(
        &self,
        peer: &Peer,
        headers: &HeaderMap,
        browser: &Browser,
        session: Option<&Session>,
    ) -> Option<Offer> {
        self.here(peer, headers)?;
        let Some(session) = session else {
            return Some(Offer::Use);
        };
        if !self.is_proven(session, browser) {
            return Some(Offer::Elsewhere);
        }
        let (passkeys, holder) = (self.sessions.passkeys().clone(), self.holder(session)?);
        let origin = passkey::blocking(move || passkeys.of(&holder)).await;
        let origin = match origin {
            Ok(origin) => origin,
            Err(e) => {
                crate::error!("passkeys can't be read: {}", crate::log::chain(&e));
                return None;
            }
        };
        let all = origin.map_or_else(Vec::new, |origin| origin.passkeys);
        let list = |p: &passkey::Passkey| Listed {
            name: p.name.clone(),
            about: format!("added {}, used {}, {}", ago(p.made), ago(p.used), kind(p)),
        };
        Some(Offer::Add(all.iter().map(list).collect()))
    }

    /// Keeps that this browser logged its device in.
    pub(super) async fn prove(&self, peer: &Peer, browser: &Browser) {
        if !peer.is_tls || self.party.is_none() {
            return;
        }
        if let Ok((device, Some(session))) = self.sessions.whose(&peer.address.to_string()).await {
            let mut proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
            proven.keep(device, session.number, browser.id.clone());
        }
    }

    pub(super) async fn remove_passkey(
        &self,
        peer: &Peer,
        browser: &Browser,
        name: &str,
    ) -> Result<bool, Refusal> {
        let (_, session) = self.own_session(peer, browser).await?;
        let holder = self.holder(&session).ok_or(PasskeyError::LoggedOut)?;
        let (passkeys, name) = (self.sessions.passkeys().clone(), name.to_owned());
        passkey::blocking(move || passkeys.remove(&name, Some(&holder))).await?;
        Ok(true)
    }

    async fn begin_add(&self, call: &Call<'_>) -> Result<Value, Refusal> {
        let (device, session) = self.own_session(call.peer, call.browser).await?;
        let holder = self.holder(&session).ok_or(PasskeyError::LoggedOut)?;
        let passkeys = self.sessions.passkeys().clone();
        let origin = passkey::blocking(move || passkeys.of(&holder)).await?;
        let (user, known) = match origin {
            Some(origin) => (origin.user, origin.passkeys),
            None => (Passkeys::new_user()?, Vec::new()),
        };
        let purpose = Purpose::Add {
            device,
            number: session.number,
            user: user.clone(),
        };
        let challenge = self.challenge(call, purpose)?;
        let who = session.who();
        let exclude: Vec<Value> = known
            .iter()
            .map(|p| json!({ "type": "public-key", "id": BASE64URL_NOPAD.encode(&p.credential) }))
            .collect();
        let kinds = ALGORITHMS.map(|alg| json!({ "type": "public-key", "alg": alg }));
        Ok(json!({
            "challenge": challenge,
            "rp": { "id": call.here.id, "name": call.here.id },
            "user": { "id": user, "name": who, "displayName": who },
            "pubKeyCredParams": kinds,
            "timeout": milliseconds(),
            "excludeCredentials": exclude,
            "authenticatorSelection": {
                "residentKey": "required",
                "requireResidentKey": true,
                "userVerification": "required",
            },
            "attestation": "none",
        }))
    }

    async fn add(&self, call: &Call<'_>) -> Result<Value, Refusal> {
        let client = call.client_data(Deed::Create)?;
        let Some(Purpose::Add {
            device,
            number,
            user,
        }) = self.take(call, &client)
        else {
            return Err(PasskeyError::Late.into());
        };
        let (found, session) = self.own_session(call.peer, call.browser).await?;
        if (&found, session.number) != (&device, number) {
            return Err(PasskeyError::Late.into());
        }
        let new: Registered = ceremony::register(&call.here, &bytes(&call.sent.attestation)?)?;
        let holder = self.holder(&session).ok_or(PasskeyError::LoggedOut)?;
        let (passkeys, who) = (self.sessions.passkeys().clone(), session.who());
        let identity = session.identity();
        let is_held = Ticket::parse(&identity.handle).is_some();
        crate::info!("{who} adds a passkey to {}", session.how);
        let ticket =
            passkey::blocking(move || passkeys.add(&user, holder, &who, &identity, new)).await?;
        if !is_held {
            self.sessions.hold_by(&device, number, &ticket).await;
        }
        Ok(json!({ "added": true }))
    }

    fn begin_use(&self, call: &Call<'_>) -> Result<Value, Refusal> {
        Ok(json!({
            "challenge": self.challenge(call, Purpose::Use)?,
            "rpId": call.here.id,
            "timeout": milliseconds(),
            "userVerification": "required",
        }))
    }

    async fn come_back(&self, call: &Call<'_>) -> Result<Value, Refusal> {
        let address = call.peer.address.to_string();
        // Whoever is on no LAN of this gateway's has nothing to try here.
        let (device, _) = self.sessions.whose(&address).await.map_err(Refusal::Api)?;
        let keys = [format!("address {address}")];
        let now = Instant::now();
        if !self.limits().begin(&keys, now) {
            return Err(Refusal::Wait);
        }
        let shown = self.show(call).await;
        if !matches!(&shown, Err(Refusal::Passkey(e)) if e.is_wrong()) {
            self.limits().forgive(&keys, now);
        }
        let (source, ticket) = shown?;
        let standing = self.sessions.passkeys().look_again(source, &ticket).await;
        let identity = match standing {
            Standing::Holds(identity) => identity,
            Standing::Ended(why) => return Err(why.into()),
            Standing::Unreachable(what) => return Err(SignInError::Unreachable(what).into()),
        };
        if let Directory::Codes(codes) = &source.directory {
            use_code(codes.clone(), identity.subject.clone(), device).await?;
        }
        self.sessions.log_in(&address, source, identity).await?;
        self.prove(call.peer, call.browser).await;
        Ok(json!({ "logged_in": true }))
    }

    /// Judges a passkey that is shown, and finds whom to ask.
    async fn show(&self, call: &Call<'_>) -> Result<(&Source, Ticket), Refusal> {
        let client = call.client_data(Deed::Get)?;
        if self.take(call, &client) != Some(Purpose::Use) {
            return Err(PasskeyError::Late.into());
        }
        let (passkeys, id) = (self.sessions.passkeys().clone(), bytes(&call.sent.id)?);
        let find = move || passkeys.find(&id);
        let (origin, found) = passkey::blocking(find).await?;
        // Section 7.2 step 6: it was found without a name, so it must say whose it is.
        if call.sent.user != origin.user {
            return Err(PasskeyError::Wrong.into());
        }
        let count = ceremony::verify(
            &call.here,
            &found.key,
            &client,
            &bytes(&call.sent.authenticator_data)?,
            &bytes(&call.sent.signature)?,
        )?;
        let passkeys = self.sessions.passkeys().clone();
        let counted = move || passkeys.count(&found.credential, count);
        let ticket = passkey::blocking(counted).await?;
        let how = &origin.holder.how;
        let source = self.source(how);
        let source = source.ok_or_else(|| PasskeyError::NoSource(how.clone()))?;
        Ok((source, ticket))
    }

    fn here(&self, peer: &Peer, headers: &HeaderMap) -> Option<Here> {
        let party = self.party.as_ref().filter(|_| peer.is_tls);
        party?.at(headers)
    }

    /// The session of this device, which this browser began.
    async fn own_session(
        &self,
        peer: &Peer,
        browser: &Browser,
    ) -> Result<(String, Session), Refusal> {
        let found = self.sessions.whose(&peer.address.to_string()).await;
        match found.map_err(Refusal::Api)? {
            (device, Some(session)) if self.is_proven(&session, browser) => Ok((device, session)),
            _ => Err(PasskeyError::LoggedOut.into()),
        }
    }

    fn is_proven(&self, session: &Session, browser: &Browser) -> bool {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.has(&session.device, session.number, &browser.id)
    }

    fn holder(&self, session: &Session) -> Option<Holder> {
        let source = self.source(&session.how)?;
        Some(Holder::new(source, &session.identity(), &session.device))
    }

    fn source(&self, how: &str) -> Option<&Source> {
        let mut all = self.sessions.sources().iter();
        all.find(|source| source.how == how).map(|source| &**source)
    }

    fn challenge(&self, call: &Call<'_>, purpose: Purpose) -> Result<String, PasskeyError> {
        let now = Instant::now();
        let begun = self.challenges().begin(call.asker(), purpose, now);
        let begun = begun.map_err(|_| PasskeyError::Random)?;
        Ok(BASE64URL_NOPAD.encode(&begun))
    }

    fn take(&self, call: &Call<'_>, client: &ClientData) -> Option<Purpose> {
        let now = Instant::now();
        self.challenges()
            .take(&client.challenge, &call.asker(), now)
    }

    fn challenges(&self) -> std::sync::MutexGuard<'_, Challenges> {
        let challenges = self.challenges.lock();
        challenges.unwrap_or_else(PoisonError::into_inner)
    }
}

async fn use_code(codes: Codes, id: String, device: String) -> Result<(), Refusal> {
    let used = tokio::task::spawn_blocking(move || codes.come_back(&id, &device));
    used.await.map_err(|_| PasskeyError::Broken)??;
    Ok(())
}

fn bytes(text: &str) -> Result<Vec<u8>, PasskeyError> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
    bytes.map_err(|_| PasskeyError::Unreadable)
}

fn milliseconds() -> u64 {
    challenges::PATIENCE.as_secs() * 1000
}
