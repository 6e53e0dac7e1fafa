//! Passkeys: a way back in for whoever logged in another way before (Web Authentication Level 3,
//! W3C).
//!
//! A passkey is a return ticket. It keeps which directory, whom of it and which handle it came
//! from, its [`Origin`]; each time somebody logs in with it, and each time they are looked up again,
//! that directory is asked. What it ends ends the passkey, for good: who was locked out and let in
//! again adds a new one. A directory that doesn't answer lets nobody new in (ADR 0008).
//!
//! An origin may have several passkeys and several devices that are logged in. They share its
//! handle, because a refresh token that is used up at each use (RFC 9700 section 2.2.2) is worth
//! nothing to whoever has the one before: look-ups of an origin are made one after the other, and
//! the newest handle is on the medium before the next one. A session that adds a passkey keeps a
//! [`Ticket`] instead of its handle from then on. Where a directory gave no handle that can be used
//! again (OpenID Connect or Firebase without a refresh token) the passkey ends when that login would.
//!
//! What browsers and authenticators send is judged here, with ring for the signatures, which TLS
//! brings anyway. Of the crates for relying parties, `webauthn_rp` 0.3 brings a second world of
//! cryptography (p256, p384, ed25519-dalek, and an `rsa` whose known timing fault is unpatched) and
//! says "unreachable" in some forty places of its parsers; `passkey-rp` is new and needs a newer
//! compiler; `webauthn-rs` needs OpenSSL. What this page wants of the standard, no attestation and
//! three algorithms, is less than what any of them would bring. The CBOR reader is of its own too:
//! `minicbor`'s licence isn't among those let in, and `ciborium` builds trees of what it reads.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::directory::{Identity, SignInError, Standing};
use crate::source::{Directory, Source};
use crate::state::{self, State, StateError};

pub use ceremony::Registered;
pub use error::PasskeyError;
pub use key::{ALGORITHMS, PublicKey};
pub use party::{Here, Party};
pub use ticket::Ticket;

mod cbor;
pub mod ceremony;
pub mod challenges;
pub mod command;
mod error;
mod key;
mod party;
#[cfg(test)]
mod tests;
mod ticket;

const KIND: &str = "passkeys";
/// The most passkeys in all, and of one person.
pub const MAX_PASSKEYS: usize = 1024;
/// The most passkeys of one person.
pub const MAX_OF_ONE: usize = 16;
/// The most people who have passkeys, or had when they logged in.
const MAX_ORIGINS: usize = MAX_PASSKEYS;
/// The most bytes of all of them, so that the file can be read again. A chain of certificates may
/// be long.
const MAX_BYTES: usize = 3 * 1024 * 1024;
const USER_BYTES: usize = 16;
const NAME_BYTES: usize = 4;
/// How old "last heard" may be on the medium: flash wears.
const STALE: Duration = Duration::from_secs(12 * 3600);
/// For how long an origin is kept that has no passkey any more; who is logged in may still use it.
const IDLE: Duration = Duration::from_secs(2 * 24 * 3600);

/// A passkey, as its file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Passkey {
    /// What it is called in lists.
    pub name: String,
    /// Its credential id.
    #[serde(with = "key::base64url")]
    pub credential: Vec<u8>,
    /// Its public key.
    pub key: PublicKey,
    /// Its counter when it was last used; 0 if it has none.
    pub count: u32,
    /// Whether it may be on more than one of its person's devices.
    pub is_synced: bool,
    /// When it was added, in seconds since 1970.
    pub made: u64,
    /// When it was last used.
    pub used: u64,
}

/// Whose passkeys: somebody of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The [`Source`] that knows them.
    pub how: String,
    /// Its name for them.
    pub subject: String,
    /// The device, where a name is many people's: a code that is nobody's in particular.
    pub device: Option<String>,
}

/// What passkeys came from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The user handle: random, so that an authenticator that is found says nothing.
    pub user: String,
    /// Whose they are.
    pub holder: Holder,
    /// Whom they counted as when a passkey was last added; for lists.
    pub who: String,
    /// The passkeys.
    pub passkeys: Vec<Passkey>,
    /// When what was shown to the directory ends, in seconds since 1970.
    pub expires: Option<u64>,
    name: String,
    groups: BTreeSet<String>,
    handle: Zeroizing<String>,
    heard: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct File {
    origins: Vec<Origin>,
}

/// The passkeys in a state directory. Clones are the same.
#[derive(Clone, Debug)]
pub struct Passkeys {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: State,
    /// Held while the file is read and written; other processes are kept out by its lock.
    file: Mutex<()>,
    /// By user handle: held while a directory is asked.
    asking: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Passkeys {
    /// Those in `state`.
    pub fn new(state: State) -> Self {
        let shared = Shared {
            state,
            file: Mutex::default(),
            asking: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Everybody who has passkeys that haven't ended.
    ///
    /// # Errors
    /// [`PasskeyError::State`].
    pub fn list(&self) -> Result<Vec<Origin>, PasskeyError> {
        self.read(|file| file.origins.clone())
    }

    /// What `holder` has.
    ///
    /// # Errors
    /// [`PasskeyError::State`].
    pub fn of(&self, holder: &Holder) -> Result<Option<Origin>, PasskeyError> {
        self.read(|file| file.origins.iter().find(|o| o.holder == *holder).cloned())
    }

    /// A user handle for somebody who has none yet.
    ///
    /// # Errors
    /// [`PasskeyError::Random`].
    pub fn new_user() -> Result<String, PasskeyError> {
        Ok(BASE64URL_NOPAD.encode(&random::<USER_BYTES>()?))
    }

    /// Adds a passkey to `holder`, whom their directory now calls `identity` and who counts as
    /// `who`. `user` is what their authenticator was told. What comes back is a ticket that holds
    /// without any passkey, for the session that adds it.
    ///
    /// # Errors
    /// [`PasskeyError::Known`] if the credential is there, [`PasskeyError::FullOfOne`],
    /// [`PasskeyError::Full`], [`PasskeyError::Late`] if they have another user handle by now,
    /// [`PasskeyError::State`], [`PasskeyError::Random`].
    pub fn add(
        &self,
        user: &str,
        holder: Holder,
        who: &str,
        identity: &Identity,
        new: Registered,
    ) -> Result<Ticket, PasskeyError> {
        let name = HEXLOWER.encode(&random::<NAME_BYTES>()?);
        self.change(|file| {
            let mut all = file.origins.iter().flat_map(|origin| &origin.passkeys);
            if all.any(|known| known.credential == new.id || known.name == name) {
                return Err(PasskeyError::Known);
            }
            if file.origins.iter().map(|o| o.passkeys.len()).sum::<usize>() >= MAX_PASSKEYS {
                return Err(PasskeyError::Full);
            }
            let place = file.origins.iter().position(|o| o.holder == holder);
            let place = place.unwrap_or(file.origins.len());
            let has_handle = Ticket::parse(&identity.handle).is_none();
            if place == file.origins.len() {
                if !has_handle {
                    return Err(PasskeyError::LoggedOut);
                }
                if place >= MAX_ORIGINS {
                    return Err(PasskeyError::Full);
                }
                file.origins.push(Origin {
                    user: user.into(),
                    holder,
                    who: String::new(),
                    passkeys: Vec::new(),
                    expires: None,
                    name: String::new(),
                    groups: BTreeSet::new(),
                    handle: Zeroizing::default(),
                    heard: 0,
                });
            }
            let origin = &mut file.origins[place];
            if origin.user != user {
                return Err(PasskeyError::Late);
            }
            if origin.passkeys.len() >= MAX_OF_ONE {
                return Err(PasskeyError::FullOfOne);
            }
            let now = state::now();
            origin.who = who.into();
            // A ticket says nothing that the origin doesn't know better.
            if has_handle {
                origin.hear(identity, now);
            }
            origin.passkeys.push(Passkey {
                name,
                credential: new.id,
                key: new.key,
                count: new.count,
                is_synced: new.is_synced,
                made: now,
                used: now,
            });
            let ticket = Ticket {
                user: user.into(),
                passkey: None,
            };
            match serde_json::to_vec(file).map_or(usize::MAX, |json| json.len()) {
                0..=MAX_BYTES => Ok(ticket),
                _ => Err(PasskeyError::Full),
            }
        })
    }

    /// The passkey with a credential id, and whose it is.
    ///
    /// # Errors
    /// [`PasskeyError::Unknown`], [`PasskeyError::State`].
    pub fn find(&self, credential: &[u8]) -> Result<(Origin, Passkey), PasskeyError> {
        self.read(|file| {
            let find = |origin: &Origin| {
                let mut all = origin.passkeys.iter();
                let found = all.find(|known| known.credential == credential)?;
                Some((origin.clone(), found.clone()))
            };
            file.origins.iter().find_map(find)
        })?
        .ok_or(PasskeyError::Unknown)
    }

    /// Keeps that a passkey was used and what its counter said then.
    ///
    /// # Errors
    /// [`PasskeyError::Copied`] if the counter didn't go up, [`PasskeyError::Unknown`],
    /// [`PasskeyError::State`].
    ///
    /// Source: Web Authentication Level 3 section 7.2 step 22.
    pub fn count(&self, credential: &[u8], count: u32) -> Result<Ticket, PasskeyError> {
        self.change(|file| {
            for origin in &mut file.origins {
                let mut all = origin.passkeys.iter_mut();
                let Some(known) = all.find(|known| known.credential == credential) else {
                    continue;
                };
                if (count, known.count) != (0, 0) && count <= known.count {
                    crate::warning!(
                        "the passkey {} of {} may be a copy: its counter was {} and is {count}",
                        known.name,
                        origin.who,
                        known.count
                    );
                    return Err(PasskeyError::Copied);
                }
                known.count = count;
                known.used = state::now();
                return Ok(Ticket {
                    user: origin.user.clone(),
                    passkey: Some(known.name.clone()),
                });
            }
            Err(PasskeyError::Unknown)
        })
    }

    /// Removes a passkey; who is logged in with it is out within a minute. With `holder`, only one
    /// of theirs.
    ///
    /// # Errors
    /// [`PasskeyError::NoSuchPasskey`], [`PasskeyError::State`].
    pub fn remove(&self, name: &str, holder: Option<&Holder>) -> Result<(), PasskeyError> {
        self.change(|file| {
            let is_theirs = |origin: &&mut Origin| holder.is_none_or(|h| *h == origin.holder);
            for origin in file.origins.iter_mut().filter(is_theirs) {
                let Some(place) = origin.passkeys.iter().position(|p| p.name == name) else {
                    continue;
                };
                origin.passkeys.remove(place);
                crate::info!("the passkey {name} of {} is removed", origin.who);
                return Ok(());
            }
            Err(PasskeyError::NoSuchPasskey(name.into()))
        })
    }

    /// Asks `source` again for whoever `ticket` stands for.
    pub async fn look_again(&self, source: &Source, ticket: &Ticket) -> Standing {
        let asking = self.asking(&ticket.user);
        let _asking = asking.lock().await;
        let (this, wanted) = (self.clone(), ticket.clone());
        let found = blocking(move || this.origin(&wanted)).await;
        let origin = match found {
            Ok(Some(origin)) if origin.holder.how == source.how => origin,
            Ok(_) => return Standing::Ended(SignInError::Revoked),
            Err(e) => return Standing::Unreachable(e.to_string()),
        };
        let known = origin.identity();
        let mut standing = source.look_again(&known).await;
        let (this, user) = (self.clone(), ticket.user.clone());
        // Whoever waits may give up, but not between an answer and keeping it.
        let kept = match &mut standing {
            Standing::Ended(_) => blocking(move || this.end(&user)).await,
            Standing::Unreachable(_) => Ok(()),
            Standing::Holds(identity) => {
                let is_same = identity.handle == known.handle
                    && identity.expires == known.expires
                    && (&identity.name, &identity.groups) == (&known.name, &known.groups);
                let is_fresh = state::now().saturating_sub(origin.heard) < STALE.as_secs();
                let new = copy(identity);
                identity.handle = ticket.to_handle();
                match is_same && is_fresh {
                    true => Ok(()),
                    false => this.renew(user, &new).await,
                }
            }
        };
        if let Err(e) = kept {
            crate::error!("passkeys are not kept: {}", crate::log::chain(&e));
        }
        standing
    }

    /// Keeps what a directory newly says of somebody.
    ///
    /// # Errors
    /// [`PasskeyError::State`].
    pub async fn renew(&self, user: String, identity: &Identity) -> Result<(), PasskeyError> {
        let (this, new) = (self.clone(), copy(identity));
        let kept = blocking(move || {
            this.change(|file| {
                if let Some(origin) = file.origins.iter_mut().find(|o| o.user == user) {
                    origin.hear(&new, state::now());
                }
                Ok(())
            })
        });
        kept.await
    }

    fn end(&self, user: &str) -> Result<(), PasskeyError> {
        self.change(|file| {
            if let Some(place) = file.origins.iter().position(|o| o.user == user) {
                let origin = file.origins.remove(place);
                for passkey in &origin.passkeys {
                    let (name, how) = (&passkey.name, &origin.holder.how);
                    crate::info!(
                        "the passkey {name} of {} is removed: {how} says no",
                        origin.who
                    );
                }
            }
            Ok(())
        })
    }

    /// What a ticket stands for, if it still does.
    fn origin(&self, ticket: &Ticket) -> Result<Option<Origin>, PasskeyError> {
        self.read(|file| {
            let found = file.origins.iter().find(|o| o.user == ticket.user)?;
            let is_there = |name: &String| found.passkeys.iter().any(|p| p.name == *name);
            let holds = ticket.passkey.as_ref().is_none_or(is_there);
            holds.then(|| found.clone())
        })
    }

    fn read<T>(&self, f: impl FnOnce(&File) -> T) -> Result<T, PasskeyError> {
        let _held = self.held();
        let _lock = self.shared.state.lock(KIND)?;
        Ok(f(&self.load()?))
    }

    /// Changes the file; it is on the medium when this returns. An error leaves it as it was.
    fn change<T>(
        &self,
        f: impl FnOnce(&mut File) -> Result<T, PasskeyError>,
    ) -> Result<T, PasskeyError> {
        let _held = self.held();
        let _lock = self.shared.state.lock(KIND)?;
        let mut file = self.load()?;
        let done = f(&mut file)?;
        self.shared.state.save(KIND, &file)?;
        Ok(done)
    }

    /// What the file has that hasn't ended.
    fn load(&self) -> Result<File, StateError> {
        let mut file: File = self.shared.state.load(KIND)?.unwrap_or_default();
        let now = state::now();
        file.origins.retain(|origin| {
            let is_used = !origin.passkeys.is_empty() || now < origin.heard + IDLE.as_secs();
            is_used && origin.expires.is_none_or(|ends| now < ends)
        });
        Ok(file)
    }

    fn held(&self) -> MutexGuard<'_, ()> {
        let held = self.shared.file.lock();
        held.unwrap_or_else(PoisonError::into_inner)
    }

    fn asking(&self, user: &str) -> Arc<tokio::sync::Mutex<()>> {
        let all = self.shared.asking.lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, asking| Arc::strong_count(asking) > 1);
        Arc::clone(all.entry(user.into()).or_default())
    }
}

impl Holder {
    /// Who `identity` of `source` is on `device`. The code that is nobody's in particular may be on
    /// many people's devices; each has passkeys of its own.
    pub fn new(source: &Source, identity: &Identity, device: &str) -> Self {
        let is_code = matches!(source.directory, Directory::Codes(_));
        let is_anybodys = is_code && identity.name.is_empty();
        Self {
            how: source.how.clone(),
            subject: identity.subject.clone(),
            device: is_anybodys.then(|| device.to_owned()),
        }
    }
}

impl Origin {
    fn hear(&mut self, identity: &Identity, now: u64) {
        self.name.clone_from(&identity.name);
        self.groups.clone_from(&identity.groups);
        self.expires = identity.expires.map(state::seconds);
        self.handle.clone_from(&identity.handle);
        self.heard = now;
    }

    fn identity(&self) -> Identity {
        let expires = self.expires;
        Identity {
            subject: self.holder.subject.clone(),
            name: self.name.clone(),
            groups: self.groups.clone(),
            expires: expires.and_then(|s| UNIX_EPOCH.checked_add(Duration::from_secs(s))),
            handle: self.handle.clone(),
        }
    }
}

fn copy(identity: &Identity) -> Identity {
    Identity {
        subject: identity.subject.clone(),
        name: identity.name.clone(),
        groups: identity.groups.clone(),
        expires: identity.expires,
        handle: identity.handle.clone(),
    }
}

/// Does what waits for the medium where that is no harm.
pub(crate) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T, PasskeyError> + Send + 'static,
) -> Result<T, PasskeyError> {
    let done = tokio::task::spawn_blocking(f).await;
    done.unwrap_or(Err(PasskeyError::Broken))
}

fn random<const N: usize>() -> Result<[u8; N], PasskeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| PasskeyError::Random)?;
    Ok(bytes)
}
