//! An attempt, and the loop that makes them when they are due.

use std::time::{Duration, SystemTime};

use altnet_service::log::chain;
use zeroize::Zeroizing;

use crate::config::Config;
use crate::http::{Client, HttpError};
use crate::issue::{Authority, seconds};
use crate::leaf::Leaf;
use crate::store::{Lock, Store, StoreError};
use crate::trouble::Trouble;
use crate::when::{Next, Plan, WINDOW_RETRY, Wanted};

/// The kind of state in which the plan is kept.
const PLAN: &str = "plan";
/// How long the folder is left alone that can't be used.
const FOLDER_PAUSE: Duration = Duration::from_secs(60);
/// The longest that an attempt takes: an authority that answers ever so slowly doesn't keep the lock.
const ATTEMPT: Duration = Duration::from_secs(20 * 60);
/// What is waited between two things to do.
const BREATH: Duration = Duration::from_secs(1);

/// What there is, as the folder has it.
#[derive(Debug)]
pub struct Held {
    /// The certificate that the relay shows.
    pub leaf: Option<Leaf>,
    /// What is remembered.
    pub plan: Plan,
}

/// Now, in seconds since 1970.
pub fn now_s() -> u64 {
    seconds(SystemTime::now())
}

/// A time as it is written for people: `2026-11-30T12:00:00Z`.
pub fn date(at_s: u64) -> String {
    let at = x509_cert::der::DateTime::from_unix_duration(Duration::from_secs(at_s));
    at.map_or_else(|_| format!("{at_s} s after 1970"), |at| at.to_string())
}

/// Keeps a certificate for a relay.
#[derive(Debug)]
pub struct Keeper<'a> {
    config: &'a Config,
    store: &'a Store,
    client: Client,
}

impl<'a> Keeper<'a> {
    /// As `config` says, in `store`.
    ///
    /// # Errors
    /// [`HttpError::Ca`].
    pub fn new(config: &'a Config, store: &'a Store) -> Result<Self, HttpError> {
        let client = Client::new(config.ca.as_deref())?;
        Ok(Self {
            config,
            store,
            client,
        })
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            names: &self.config.names,
            directory: &self.config.directory,
        }
    }

    /// Reads the folder. A certificate that can't be read is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn held(&self) -> Result<Held, StoreError> {
        let text: Option<Zeroizing<Vec<u8>>> = self.store.certificate()?;
        let leaf = text.and_then(|text| Leaf::of_pem(&text).ok());
        let plan: Option<Plan> = self.store.load(PLAN)?;
        // Nobody knows any more who signed what is held: it is taken for what is wanted.
        let plan = plan.unwrap_or_else(|| Plan {
            directory: self.config.directory.clone(),
            ..Plan::default()
        });
        Ok(Held { leaf, plan })
    }

    /// What is to be done now.
    pub fn next(&self, held: &Held) -> Next {
        held.plan.next(self.wanted(), held.leaf.as_ref(), now_s())
    }

    /// Does what is due, for good.
    pub async fn run(&self) {
        // What one left that was killed would answer until the next attempt.
        let cleared = self.store.lock();
        if let Err(e) = cleared.and_then(|lock| self.store.clear_answers(&lock)) {
            crate::warning!("{}", chain(&e));
        }
        if let Ok(Held { plan, .. }) = self.held()
            && let Some(why) = &plan.why
        {
            let again_s = plan.free_s(now_s()).max(now_s());
            crate::info!(
                "the last attempt failed: {why}; not tried again before {}, but by `altnet-acme renew`",
                date(again_s)
            );
        }
        loop {
            let now_s = now_s();
            let wait = match self.once() {
                Ok(Some((held, lock, next))) => match self.act(held, &lock, next).await {
                    Err(Trouble::Store(_)) => FOLDER_PAUSE,
                    _ => BREATH,
                },
                Ok(None) => self.idle(now_s),
                Err(StoreError::InUse) => FOLDER_PAUSE,
                Err(e) => {
                    crate::error!("{}", chain(&e));
                    FOLDER_PAUSE
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// What is due, with the lock under which it is done.
    fn once(&self) -> Result<Option<(Held, Lock, Next)>, StoreError> {
        if matches!(self.next(&self.held()?), Next::Wait(_)) {
            return Ok(None);
        }
        let lock = self.store.lock()?;
        // Another process may just have done it.
        let held = self.held()?;
        let next = self.next(&held);
        Ok((!matches!(next, Next::Wait(_))).then_some((held, lock, next)))
    }

    fn idle(&self, now_s: u64) -> Duration {
        let next = self.held().map(|held| self.next(&held));
        match next {
            Ok(Next::Wait(until_s)) => {
                Duration::from_secs(until_s.saturating_sub(now_s)).max(BREATH)
            }
            // It has become due in this very moment.
            Ok(_) => BREATH,
            Err(_) => FOLDER_PAUSE,
        }
    }

    async fn act(&self, held: Held, lock: &Lock, next: Next) -> Result<(), Trouble> {
        let done = match next {
            Next::AskWindow => self.ask_window(held, lock).await,
            _ => self.get(held, lock).await.map(drop),
        };
        done.inspect_err(|e| crate::warning!("{}", chain(e)))
    }

    /// Gets a certificate now, but not before the authority wants to be asked.
    ///
    /// # Errors
    /// [`Trouble`], which is remembered.
    pub async fn get(&self, mut held: Held, lock: &Lock) -> Result<Leaf, Trouble> {
        let now_s = now_s();
        let told_s = held.plan.told_s(now_s);
        if told_s > now_s {
            return Err(Trouble::Told(date(told_s)));
        }
        // Before anything is asked: an attempt that is cut short counts as one that failed, and a folder
        // that can't be written has nobody asked.
        let life_s = held.leaf.as_ref().map_or(0, Leaf::life_s);
        let (chance, before) = (chance(), held.plan.clone());
        held.plan
            .failed("it was cut short".into(), None, life_s, chance, now_s);
        self.store.save(PLAN, &held.plan)?;
        // An authority may not bear to be told what is replaced: the second attempt leaves it out.
        let replaced = held.leaf.as_ref().filter(|_| before.failures == 0);
        let replaced = replaced.filter(|_| before.directory == self.config.directory);
        let got = tokio::time::timeout(ATTEMPT, self.ask(replaced, lock)).await;
        let got = got.unwrap_or(Err(Trouble::Late));
        let mut plan = before;
        match got {
            Ok(leaf) => {
                plan.got(&self.config.directory, self::now_s());
                self.store.save(PLAN, &plan)?;
                let (names, until) = (leaf.names.join(", "), date(leaf.not_after_s));
                crate::info!("has a certificate for {names}, good until {until}");
                Ok(leaf)
            }
            Err(e) => {
                if e.is_lost_account() {
                    Authority::forget(self.store)?;
                }
                let (why, told_s) = (chain(&e), self.client.told().map(seconds));
                plan.failed(why, told_s, life_s, chance, self::now_s());
                self.store.save(PLAN, &plan)?;
                let again_s = plan.pause_until_s.max(plan.told_until_s);
                crate::info!("tries again at {}", date(again_s));
                Err(e)
            }
        }
    }

    async fn ask(&self, replaced: Option<&Leaf>, lock: &Lock) -> Result<Leaf, Trouble> {
        self.client.forget_told();
        let authority = Authority::meet(self.config, self.store, &self.client).await?;
        let replaced = replaced.and_then(|leaf| leaf.ari.as_ref());
        authority.get(replaced, lock).await
    }

    /// Asks when the certificate is to be renewed; that it isn't said is no failure.
    ///
    /// # Errors
    /// [`Trouble`]; what was said before stands.
    pub async fn ask_window(&self, mut held: Held, _lock: &Lock) -> Result<(), Trouble> {
        let Some(leaf) = held.leaf.take() else {
            return Ok(());
        };
        let plan = &mut held.plan;
        // Before anything is asked, as with a certificate: a full disk has nobody asked.
        plan.heard(&leaf, None, WINDOW_RETRY, chance(), now_s());
        self.store.save(PLAN, plan)?;
        let asked = self.window(&leaf).await;
        let (window, again) = match &asked {
            Ok(Some((window, again))) => (Some(*window), *again),
            Ok(None) => (None, Duration::MAX),
            Err(_) => (None, WINDOW_RETRY),
        };
        plan.heard(&leaf, window, again, chance(), now_s());
        if let Some(told) = self.client.told() {
            plan.told_until_s = seconds(told);
        }
        self.store.save(PLAN, plan)?;
        asked.map(drop)
    }

    async fn window(&self, leaf: &Leaf) -> Result<Option<((u64, u64), Duration)>, Trouble> {
        self.client.forget_told();
        let Some(named) = &leaf.ari else {
            return Ok(None);
        };
        // An account that was lost is made when there is something to order.
        match Authority::known(self.config, self.store, &self.client).await? {
            Some(authority) => authority.window(named).await,
            None => Ok(None),
        }
    }
}

/// Any number. Without a kernel that gives one it is the middle: this only spreads who asks when.
fn chance() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX / 2)
}
