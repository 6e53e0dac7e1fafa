//! Who is logged in: kept on the medium, told to altnetd, and looked up again.
//!
//! Every [`Source`] has a round of its own, so that one that is slow delays nobody else's. What a
//! directory answers with "no" ends at once; what it doesn't answer holds for a grace since it was
//! last heard (ADR 0008). Whatever can't be told to altnetd is taken back there and tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{RwLock, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use zeroize::Zeroizing;

use crate::api::{Api, ApiError, Login};
use crate::config::Counted;
use crate::directory::{Identity, SignInError, Standing};
use crate::passkey::{Passkeys, Ticket};
use crate::source::Source;
use crate::state::{self, State, StateError};

const KIND: &str = "sessions";
/// The most devices that are logged in at a time.
pub const MAX_SESSIONS: usize = 256;
/// How many of one directory are looked up at a time.
const AT_A_TIME: usize = 32;
/// How long one may take, which is a little more than each directory's own patience.
const PATIENCE: Duration = Duration::from_secs(12);

/// How far apart writes are that only say that directories were heard, in seconds: flash wears.
const LEAST_SAVED_S: u64 = 300;

/// A device that is logged in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Its MAC address.
    pub device: String,
    /// The address that it was last seen with.
    pub address: String,
    /// The [`Source`] that knows its person.
    pub how: String,
    /// The person it counts as.
    pub person: Option<String>,
    /// The groups it counts in.
    pub groups: Vec<String>,
    /// What policy doesn't let this gateway say.
    pub not_counted: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub ends: u64,
    /// When its directory was last heard.
    heard: u64,
    subject: String,
    name: String,
    directory_groups: BTreeSet<String>,
    expires: Option<u64>,
    handle: Zeroizing<String>,
    /// Whether altnetd knows it as it is here.
    #[serde(skip)]
    is_told: bool,
    /// Tells it from one that the device had before.
    #[serde(skip)]
    pub number: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    saved: u64,
    sessions: Vec<Session>,
}

/// Why a login didn't come about. The text is shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The directory says no.
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// altnetd says no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It is somebody, but nobody here.
    #[error(
        "you are known there, but as nobody in this network; ask whoever runs it to add you under the name {0:?}"
    )]
    Nobody(String),
    /// There is no room.
    #[error("{MAX_SESSIONS} devices are logged in, which is the most; try again later")]
    Full,
}

/// Everybody who is logged in.
pub struct Sessions {
    api: Api,
    state: State,
    sources: Vec<Arc<Source>>,
    passkeys: Passkeys,
    grace: Duration,
    table: Mutex<Table>,
    /// Held while the table and altnetd are brought together, so that their orders agree.
    acting: tokio::sync::Mutex<()>,
    /// Read by each look that is under way.
    looking: Arc<RwLock<()>>,
}

#[derive(Debug, Default)]
struct Table {
    by_device: BTreeMap<String, Session>,
    /// Logouts that altnetd didn't do.
    owed: BTreeSet<String>,
    last_number: u64,
    /// The oldest "last heard" that may be on the medium.
    saved: u64,
}

impl Sessions {
    /// Those that `state` kept, of the sources that are still there. None is told to altnetd yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(
        api: Api,
        state: State,
        sources: Vec<Arc<Source>>,
        grace: Duration,
    ) -> Result<Self, StateError> {
        let file: File = state.load(KIND)?.unwrap_or_default();
        let mut table = Table::default();
        let now = state::now();
        // A clock that went back must not make a login or a grace longer.
        let back = file.saved.saturating_sub(now);
        for mut session in file.sessions.into_iter().take(MAX_SESSIONS) {
            session.ends = session.ends.saturating_sub(back);
            session.heard = session.heard.min(file.saved).saturating_sub(back);
            table.last_number += 1;
            session.number = table.last_number;
            let is_known = sources.iter().any(|source| source.how == session.how);
            if is_known && session.ends > now {
                table.by_device.insert(session.device.clone(), session);
            }
        }
        Ok(Self {
            api,
            passkeys: Passkeys::new(state.clone()),
            state,
            sources,
            grace,
            table: Mutex::new(table),
            acting: tokio::sync::Mutex::default(),
            looking: Arc::default(),
        })
    }

    /// The sources.
    pub fn sources(&self) -> &[Arc<Source>] {
        &self.sources
    }

    /// The passkeys that came from these logins.
    pub fn passkeys(&self) -> &Passkeys {
        &self.passkeys
    }

    /// The network's authority for TLS.
    ///
    /// # Errors
    /// altnetd's reason.
    pub async fn authority(&self) -> Result<crate::api::Authority, ApiError> {
        self.api.tls_authority().await
    }

    /// The device that has `address`, and its login.
    ///
    /// # Errors
    /// altnetd's reason.
    pub async fn whose(&self, address: &str) -> Result<(String, Option<Session>), ApiError> {
        let device = self.api.whose(address).await?;
        let mut table = self.table();
        let session = table.by_device.get_mut(&device).map(|session| {
            session.address = address.into();
            session.clone()
        });
        Ok((device, session.filter(|s| s.ends > state::now())))
    }

    /// Logs the device with `address` in as whom `identity` counts.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn log_in(
        &self,
        address: &str,
        source: &Source,
        identity: Identity,
    ) -> Result<(), LoginError> {
        let counted = source.count(&identity);
        let nobody = || match identity.name.is_empty() {
            true => identity.subject.clone(),
            false => identity.name.clone(),
        };
        let counted = counted.ok_or_else(|| LoginError::Nobody(nobody()))?;
        let now = state::now();
        let expires = identity.expires.map(state::seconds);
        let ends = now.saturating_add(source.session.as_secs());
        let ends = ends.min(expires.unwrap_or(u64::MAX));
        if ends <= now {
            return Err(SignInError::Expired.into());
        }
        let _acting = self.acting.lock().await;
        if self.table().by_device.len() >= MAX_SESSIONS {
            return Err(LoginError::Full);
        }
        let login = login(address, &source.how, &counted, ends - now);
        let done = self.api.login(&login).await?;
        {
            let mut table = self.table();
            table.last_number += 1;
            table.owed.remove(&done.device);
            let session = Session {
                device: done.device.clone(),
                address: address.into(),
                how: source.how.clone(),
                person: counted.person,
                groups: counted.groups,
                not_counted: done.not_counted,
                ends,
                heard: now,
                subject: identity.subject,
                name: identity.name,
                directory_groups: identity.groups,
                expires,
                handle: identity.handle,
                is_told: true,
                number: table.last_number,
            };
            crate::info!("{} is logged in by {}", session.who(), session.how);
            table.by_device.insert(done.device, session);
        }
        self.save().await;
        Ok(())
    }

    /// Logs the device with `address` out.
    ///
    /// # Errors
    /// altnetd's reason.
    pub async fn log_out(&self, address: &str) -> Result<(), ApiError> {
        let device = self.api.whose(address).await?;
        let _acting = self.acting.lock().await;
        self.end(&device, "its user logged out").await;
        Ok(())
    }

    /// Has the login of a device hold by a ticket from now on, if it is the one with `number` still.
    pub async fn hold_by(&self, device: &str, number: u64, ticket: &Ticket) {
        let _acting = self.acting.lock().await;
        let is_there = {
            let mut table = self.table();
            let session = table.by_device.get_mut(device);
            let session = session.filter(|session| session.number == number);
            session.map(|session| session.handle = ticket.to_handle())
        };
        if is_there.is_some() {
            self.save().await;
        }
    }

    /// Looks everybody up again, for ever.
    pub async fn look_again(self: Arc<Self>, every: Duration) {
        let mut rounds = JoinSet::new();
        let sessions = Arc::clone(&self);
        rounds.spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                sessions.tidy().await;
            }
        });
        for source in &self.sources {
            let (sessions, source) = (Arc::clone(&self), Arc::clone(source));
            rounds.spawn(async move {
                let mut ticks = interval(every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    ticks.tick().await;
                    sessions.round(&source).await;
                }
            });
        }
        while rounds.join_next().await.is_some() {}
    }

    /// Waits for the looks that are under way, and lets no new one begin: a refresh token that a
    /// provider has just replaced must be on the medium before this process ends.
    pub async fn finish(&self) {
        if timeout(PATIENCE, self.looking.write()).await.is_err() {
            crate::warning!(
                "a directory was still being asked; its people may have to log in again"
            );
        }
    }

    /// Brings altnetd's list and this one together: what it still has from here and nothing vouches
    /// for any more is taken back, and what an administrator ended there is over here too. What was
    /// logged in by other means than this page is not touched.
    async fn compare(&self) {
        let known = match self.api.logins().await {
            Ok(known) => known,
            Err(e) => return crate::warning!("altnetd doesn't say who is logged in: {e}"),
        };
        let ended: Vec<String> = {
            let table = self.table();
            let told = table.by_device.values().filter(|s| s.is_told);
            let is_there = |s: &&Session| known.iter().any(|k| k.device == s.device);
            let gone = told.filter(|s| !is_there(s));
            gone.map(|s| s.device.clone()).collect()
        };
        for device in ended {
            self.end(&device, "altnetd has it no more").await;
        }
        for one in known {
            let is_here = self.table().by_device.contains_key(&one.device);
            if !is_here && Source::is_how(&one.how) {
                self.take_back(&one.device).await;
            }
        }
    }

    /// Looks up everybody of one source.
    async fn round(self: &Arc<Self>, source: &Arc<Source>) {
        let mut sessions: Vec<Session> = {
            let table = self.table();
            let all = table.by_device.values();
            all.filter(|s| s.how == source.how).cloned().collect()
        };
        sessions.sort_by_key(|session| session.heard);
        let permits = Arc::new(Semaphore::new(AT_A_TIME));
        let mut looks = JoinSet::new();
        for session in sessions {
            let (this, source) = (Arc::clone(self), Arc::clone(source));
            let permits = Arc::clone(&permits);
            looks.spawn(async move {
                let _permit = permits.acquire().await;
                let _looking = this.looking.read().await;
                let standing = timeout(PATIENCE, this.look(&source, &session)).await;
                let standing =
                    standing.unwrap_or_else(|_| Standing::Unreachable(source.name.clone()));
                this.settle(&source, &session, standing).await;
            });
        }
        while looks.join_next().await.is_some() {}
    }

    async fn look(&self, source: &Source, session: &Session) -> Standing {
        match Ticket::parse(&session.handle) {
            Some(ticket) => self.passkeys.look_again(source, &ticket).await,
            None => source.look_again(&session.identity()).await,
        }
    }

    /// Ends what is over, and logs out what is owed.
    async fn tidy(&self) {
        let _acting = self.acting.lock().await;
        let now = state::now();
        let (over, owed) = {
            let table = self.table();
            let over = table.by_device.values().filter(|s| s.ends <= now);
            let over: Vec<String> = over.map(|s| s.device.clone()).collect();
            (over, table.owed.clone())
        };
        for device in over {
            self.end(&device, "its time is over").await;
        }
        for device in owed {
            self.take_back(&device).await;
        }
        self.compare().await;
    }

    /// Does what a directory's answer about `looked` asks for.
    async fn settle(&self, source: &Source, looked: &Session, standing: Standing) {
        let _acting = self.acting.lock().await;
        let now = state::now();
        let Some(mut session) = self.current(looked) else {
            return;
        };
        match standing {
            Standing::Ended(why) => {
                return self.end(&looked.device, &why.to_string()).await;
            }
            Standing::Unreachable(what) => {
                if now >= session.heard.saturating_add(self.grace.as_secs()) {
                    let why = format!("{what} hasn't answered for too long");
                    return self.end(&looked.device, &why).await;
                }
                if !session.is_told {
                    self.tell(session).await;
                }
            }
            Standing::Holds(mut identity) => {
                if session.handle != looked.handle {
                    // It got a ticket while it was looked up: the newest handle goes there.
                    self.hand_over(&session.handle, &identity).await;
                    identity.handle = session.handle.clone();
                }
                let Some(counted) = source.count(&identity) else {
                    let why = "nothing that its directory says counts any more";
                    return self.end(&looked.device, why).await;
                };
                let is_new =
                    (&counted.person, &counted.groups) != (&session.person, &session.groups);
                let must_save = is_new || identity.handle != session.handle || self.is_stale(now);
                session.heard = now;
                session.person = counted.person;
                session.groups = counted.groups;
                session.subject = identity.subject;
                session.name = identity.name;
                session.directory_groups = identity.groups;
                session.expires = identity.expires.map(state::seconds);
                session.ends = session.ends.min(session.expires.unwrap_or(u64::MAX));
                session.handle = identity.handle;
                let must_tell = is_new || !session.is_told;
                session.is_told &= !is_new;
                self.put(session.clone());
                // First of all: with a lost refresh token nobody could be asked any more.
                if must_save {
                    self.save().await;
                }
                if must_tell {
                    self.tell(session).await;
                }
            }
        }
    }

    async fn hand_over(&self, ticket: &str, identity: &Identity) {
        let Some(ticket) = Ticket::parse(ticket) else {
            return;
        };
        if let Err(e) = self.passkeys.renew(ticket.user, identity).await {
            crate::error!("passkeys are not kept: {}", crate::log::chain(&e));
        }
    }

    /// What `looked` has become since; nothing if it is over or another login's.
    fn current(&self, looked: &Session) -> Option<Session> {
        let table = self.table();
        let current = table.by_device.get(&looked.device)?;
        (current.number == looked.number).then(|| current.clone())
    }

    /// Tells altnetd of a login as it is now. If that doesn't work altnetd has none until it does.
    async fn tell(&self, mut session: Session) {
        let now = state::now();
        let device = self.api.whose(&session.address).await;
        let is_there = device
            .as_ref()
            .is_ok_and(|device| *device == session.device);
        let mut told = None;
        if is_there {
            let counted = Counted {
                person: session.person.clone(),
                groups: session.groups.clone(),
            };
            let remaining = session.ends.saturating_sub(now);
            let login = login(&session.address, &session.how, &counted, remaining);
            match self.api.login(&login).await {
                Ok(done) => told = Some(done),
                Err(e) => crate::warning!("{} can't be logged in again: {e}", session.who()),
            }
        }
        let device = session.device.clone();
        let is_right = told.as_ref().is_some_and(|told| told.device == device);
        session.is_told = is_right;
        if let Some(told) = told {
            if is_right {
                crate::info!("{} is logged in again by {}", session.who(), session.how);
            } else {
                // The address went to another device between the two questions.
                self.take_back(&told.device).await;
            }
            session.not_counted = told.not_counted;
        }
        self.put(session);
        if !is_right {
            self.take_back(&device).await;
        }
    }

    async fn end(&self, device: &str, why: &str) {
        let removed = self.table().by_device.remove(device);
        if let Some(session) = &removed {
            crate::info!("{} is logged out: {why}", session.who());
        }
        self.take_back(device).await;
        if removed.is_some() {
            self.save().await;
        }
    }

    async fn take_back(&self, device: &str) {
        match self.api.logout(device).await {
            Err(e) if !e.is_not_found() => {
                crate::error!("altnetd doesn't log {device} out, which is tried again: {e}");
                self.table().owed.insert(device.into());
            }
            _ => drop(self.table().owed.remove(device)),
        }
    }

    /// Whether what the medium says of when directories were heard is so old that it costs grace.
    fn is_stale(&self, now: u64) -> bool {
        now.saturating_sub(self.table().saved) >= (self.grace.as_secs() / 4).max(LEAST_SAVED_S)
    }

    fn put(&self, session: Session) {
        let mut table = self.table();
        if let Some(place) = table.by_device.get_mut(&session.device) {
            // Seen with another address meanwhile.
            let address = std::mem::take(&mut place.address);
            *place = session;
            place.address = address;
        }
    }

    async fn save(&self) {
        let file = {
            let mut table = self.table();
            table.saved = state::now();
            File {
                saved: table.saved,
                sessions: table.by_device.values().cloned().collect(),
            }
        };
        let state = self.state.clone();
        // Whoever calls holds `acting`, so that files are written in the table's order.
        let saved = tokio::task::spawn_blocking(move || state.save(KIND, &file)).await;
        match saved {
            Ok(Ok(())) => {}
            Ok(Err(e)) => crate::error!("logins are not kept: {}", crate::log::chain(&e)),
            Err(e) => crate::error!("logins are not kept: {e}"),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing that holds it can leave it half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    /// The person, or else the groups.
    pub fn who(&self) -> String {
        match &self.person {
            Some(person) => person.clone(),
            None => format!("somebody of {}", self.groups.join(", ")),
        }
    }

    /// Whom its directory last said this is.
    pub(crate) fn identity(&self) -> Identity {
        let expires = self.expires;
        Identity {
            subject: self.subject.clone(),
            name: self.name.clone(),
            groups: self.directory_groups.clone(),
            expires: expires.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s))),
            handle: self.handle.clone(),
        }
    }
}

fn login(address: &str, how: &str, counted: &Counted, seconds: u64) -> Login {
    Login {
        address: address.into(),
        person: counted.person.clone(),
        groups: counted.groups.clone(),
        seconds,
        how: how.into(),
    }
}
