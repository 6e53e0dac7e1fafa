//! A network as this computer keeps it.
//!
//! ```text
//! <name>/network.json    what holds, what was published, where to enter     (settings)
//!        records/<id>    the records, each named by its hash
//!        keys.age        owner, issuer and TLS keys under a passphrase      (secrets)
//!        policy.toml     who may reach what, as its author writes it
//!        policies/       the policies that were in force                    (history)
//!        lock            held while one process works on it
//! ```
//! Every change is made on a copy in memory, checked by the same rules that every node checks by,
//! and then put on disk: keys first, then new record files, then `network.json`, whose rename is
//! the moment of the change. What no `network.json` names is swept away at the next change.

mod backup;
mod bundle;
mod doctor;
mod host;
mod invite;
mod issuer;
mod member;
mod owner;
mod policy;
mod show;
mod tls;
mod tree;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use altnet_core::clock::Clock;
use altnet_core::issuer::{Issuer, Refusal};
use altnet_core::limits::Limits;
use altnet_core::records::{self, SigningSecret};
use altnet_core::registry::{Applied, RecordError, Registry, Slot};
use altnet_core::rng::Rng;
use altnet_wire::envelope::{Envelope, MAX_RECORD_BYTES, RecordKind};
use altnet_wire::id::{self, Name, NetworkId, RecordId, Serial, SiteId};
use altnet_wire::record::{
    self, Body, Genesis, IssuerCertificate, Revocation, RevocationTarget, Rights, Roles,
};
use altnet_wire::time::{Instant, UnixTime};

use crate::error::{Error, Result};
use crate::files::{self, Lock};
use crate::home::Home;
use crate::recovery::RecoveryKey;
use crate::sealed::Passphrase;
use crate::secrets::{self, Secrets};
use crate::settings::{RecordState, Settings, SyncCursor};

pub use backup::restore;
pub use bundle::{BundleMade, BundleWish};
pub use doctor::{Check, Grade};
pub use host::{HostAdded, HostPlace, HostSummary};
pub use invite::{InviteMade, InviteStatus, InviteSummary, InviteWish};
pub use issuer::{IssuerSummary, IssuerWish};
pub use member::{Invited, MemberSummary, Revoked, Target};
pub(crate) use owner::lost_owners;
pub use owner::{OwnerSummary, adopt, new_owner_key, owner_keys_here};
use policy::Beside;
pub use policy::{PolicyInForce, PolicyPublished, PolicySummary, WorkingCopy};
pub use show::{EntrySummary, NetworkSummary};
pub use tls::{AuthoritySummary, TlsState, TlsSummary};

/// What a network without a reachable relay is told.
pub const NEEDS_RELAY: &str = "A network needs one relay and directory that the internet can reach, so that its nodes find each other: a box with a public address (a small rented server does), or one at home behind a router that forwards a UDP port to it.";

/// How to get one.
pub const MAKE_RELAY: &str = "Make its first-boot file with `altnet-provision bundle --name relay1 --role relay --role directory --admit --endpoint IP:PORT -o relay1.bundle`.";

/// How long an issuer's certificate lasts unless said otherwise: ten years. It ends sooner by
/// a revocation.
pub const CERTIFICATE: Duration = Duration::from_secs(520 * 7 * 86_400);

const SETTINGS_FILE: &str = "network.json";
const RECORDS_DIR: &str = "records";

/// What to do about a network whose files do not open.
fn repair(dir: &Path) -> String {
    format!(
        "move the network's directory away (`mv {0} {0}.old`), then bring the network back with `altnet-provision restore FILE`, or without a backup with the recovery key: `altnet-provision network owner recover --endpoint IP:PORT`.",
        dir.display()
    )
}

/// A network's directory, opened; no other process changes it meanwhile.
#[derive(Debug)]
pub struct Network {
    name: Name,
    dir: PathBuf,
    settings: Settings,
    registry: Registry,
    clock: Clock,
    _lock: Lock,
}

/// A change in the making.
struct Draft {
    settings: Settings,
    registry: Registry,
    clock: Clock,
    rng: Rng,
    /// What a policy that is signed in this change was written as.
    policy_text: Option<String>,
}

/// What [`Network::create`] made.
#[derive(Debug)]
pub struct Created {
    /// The network.
    pub network: Network,
    /// Its keys.
    pub secrets: Secrets,
    /// To be shown once and written down.
    pub recovery: RecoveryKey,
}

impl Network {
    /// Makes a network: its owner key, its recovery key, an issuer key of this computer with all
    /// rights, and a first policy, without which nothing would be allowed.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a network of that name; else what keeps it from being made.
    pub fn create(
        home: &Home,
        name: &Name,
        passphrase: &Passphrase,
        now: UnixTime,
    ) -> Result<Created> {
        let to = home.network(name);
        refuse_taken(&to, name)?;
        let owner = secrets::generate()?;
        let issuer = secrets::generate()?;
        let recovery = RecoveryKey::new(crate::chance::secret()?);
        let genesis = Genesis {
            name: name.clone(),
            owners: heapless::Vec::from_iter([owner.public()]),
            recovery: SigningSecret::from_bytes(recovery.seed()).public(),
            issued: now,
            nonce: crate::chance::bytes()?,
        };
        let genesis = sign(&owner, NetworkId([0; 32]), &genesis, Serial(0))?;
        let network = id::network_id(&genesis);
        let certificate = certificate(&issuer, now);
        let certificate = sign(&owner, network, &certificate, Serial(1))?;
        let mut secrets = Secrets::new(network, passphrase.clone());
        secrets.add_owner(&owner);
        secrets.add_issuer(&issuer);
        let mut settings = Settings::new(network, issuer.public());
        settings
            .issuers
            .insert(issuer.public().to_string(), "this computer".into());
        let (records, files) = policy::first(&settings, &[genesis, certificate], &issuer, now)?;
        let network = build(home, name, settings, &records, &files, &secrets)?;
        Ok(Created {
            network,
            secrets,
            recovery,
        })
    }

    /// Opens the network in the directory `dir` and checks every file but the keys.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Newer`], [`Error::Busy`] or [`Error::Io`].
    pub fn open(dir: &Path) -> Result<Self> {
        let name = dir
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| Name::new(name).ok())
            .ok_or_else(|| {
                Error::input(
                    format!("{} is not a network's directory", dir.display()),
                    "Its last part is the network's name.",
                )
            })?;
        files::check_private(dir)?;
        let lock = Lock::take(dir)?;
        Self::read(name, dir, lock).map_err(|error| error.unopened(repair(dir)))
    }

    fn read(name: Name, dir: &Path, lock: Lock) -> Result<Self> {
        let path = dir.join(SETTINGS_FILE);
        let bytes = files::read_private(&path).map_err(|error| error.gone(&path))?;
        let settings = Settings::decode(&bytes, &path)?;
        let records = read_records(dir, &settings)?;
        let mut clock = Clock::new(UnixTime::EPOCH);
        let registry = registry(dir, &settings, &records, &mut clock)?;
        Ok(Self {
            name,
            dir: dir.to_path_buf(),
            settings,
            registry,
            clock,
            _lock: lock,
        })
    }

    /// Decrypts this computer's keys of the network.
    ///
    /// # Errors
    /// [`Error::Passphrase`], [`Error::Exposed`], [`Error::Damaged`] or [`Error::Io`].
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<Secrets> {
        Secrets::read(&self.dir, self.id(), passphrase)
            .map_err(|error| error.unopened(repair(&self.dir)))
    }

    /// Encrypts the keys with another passphrase from now on. Backups keep the one they have.
    ///
    /// # Errors
    /// [`Error::Io`]; the old passphrase stays then.
    pub fn change_passphrase(&self, secrets: &mut Secrets, passphrase: Passphrase) -> Result<()> {
        let old = secrets.set_passphrase(passphrase);
        let written = secrets.write(&self.dir);
        if written.is_err() {
            secrets.set_passphrase(old);
        }
        written
    }

    /// Calls the network otherwise on this computer: machines are then `<host>.<name>.alt` in
    /// what is printed here. Every home has a name of its own for it; nothing is published.
    ///
    /// # Errors
    /// [`Error::Exists`] if there is a network of that name; [`Error::Io`].
    pub fn rename(&mut self, home: &Home, name: &Name) -> Result<()> {
        let to = home.network(name);
        refuse_taken(&to, name)?;
        files::rename_dir(&self.dir, &to)?;
        self.dir = to;
        self.name = name.clone();
        Ok(())
    }

    /// What the network is called on this computer.
    pub const fn name(&self) -> &Name {
        &self.name
    }

    /// The network's id, which never changes.
    pub const fn id(&self) -> NetworkId {
        self.settings.network
    }

    /// Its directory on this computer.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is believed about it.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What is kept beside the records.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether a relay that the internet can reach was provisioned here.
    pub fn has_relay(&self) -> bool {
        self.settings.reachable().any(|entry| entry.relay)
    }

    /// Makes a change on a copy, puts it on disk, and then here.
    fn change<T>(
        &mut self,
        now: UnixTime,
        make: impl FnOnce(&mut Draft) -> Result<T>,
    ) -> Result<T> {
        let mut draft = Draft {
            settings: self.settings.clone(),
            registry: self.registry.clone(),
            clock: self.clock.clone(),
            rng: Rng::new(crate::chance::bytes()?),
            policy_text: None,
        };
        draft.clock.set_running(now, Instant::ZERO);
        let made = make(&mut draft)?;
        self.commit(draft)?;
        Ok(made)
    }

    fn commit(&mut self, draft: Draft) -> Result<()> {
        let mut fresh = self.keep_policy(&draft)?;
        let Draft {
            mut settings,
            registry,
            clock,
            ..
        } = draft;
        let dir = self.dir.join(RECORDS_DIR);
        let before = &self.settings.records;
        let mut records = BTreeMap::new();
        for (_, bytes) in registry.iter() {
            let id = id::record_id(bytes).to_string();
            if !before.contains_key(&id) {
                fresh.push(dir.join(&id));
                if let Err(error) = files::write(&dir.join(&id), bytes) {
                    fresh.iter().for_each(|path| files::remove(path));
                    return Err(error);
                }
            }
            let state = settings.records.get(&id).copied();
            records.insert(id, state.unwrap_or(RecordState::Pending));
        }
        settings.records = records;
        if let Err(error) = files::write(&self.dir.join(SETTINGS_FILE), &settings.encode()) {
            fresh.iter().for_each(|path| files::remove(path));
            return Err(error);
        }
        self.settings = settings;
        self.registry = registry;
        self.clock = clock;
        self.sweep(&dir);
        self.sweep_policies();
        Ok(())
    }

    /// Removes record files that no longer count, or never did because the power was cut.
    fn sweep(&self, dir: &Path) {
        files::sweep(&self.dir);
        let Ok(entries) = std::fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let holds = name
                .to_str()
                .is_some_and(|name| self.settings.records.contains_key(name));
            if !holds {
                files::remove(&entry.path());
            }
        }
    }

    /// This computer's issuer key at work.
    fn issuer(&self, secrets: &Secrets) -> Result<Issuer> {
        let key = self.settings.issuer;
        let secret = secrets.issuer(&key).ok_or_else(|| {
            Error::damaged(
                &self.dir.join(secrets::FILE),
                "it lacks this computer's issuer key",
            )
            .unopened(repair(&self.dir))
        })?;
        if self.registry.issuer(&key).is_none() {
            return Err(Error::not_allowed(
                "this computer's issuer key is revoked or its owner was removed",
                "Only a present owner can sign now. To be one again: recover with `altnet-provision network owner recover`, or make a new key here with `network owner key`, let a present owner add it, and adopt.",
            ));
        }
        Issuer::new(secret, None, &self.registry).map_err(refused("use the issuer key"))
    }

    /// An owner key that is here and in force.
    fn owner(&self, secrets: &Secrets) -> Result<SigningSecret> {
        let owners = self.registry.owners();
        let mut here = secrets.owners().into_iter();
        here.find(|secret| owners.contains(&secret.public()))
            .ok_or_else(|| {
                Error::not_allowed(
                    "no key on this computer is an owner of the network",
                    "Do this on an owner's computer, or recover with `altnet-provision network owner recover`.",
                )
            })
    }
}

impl Draft {
    /// Signs a record and takes it in.
    fn add<T: Body>(
        &mut self,
        secret: &SigningSecret,
        slot: &Slot,
        body: &T,
        doing: &'static str,
    ) -> Result<()> {
        let serial = self.registry.next_serial(slot);
        let bytes = sign(secret, self.registry.network(), body, serial)?;
        self.take(&bytes, doing)
    }

    fn take(&mut self, bytes: &[u8], doing: &'static str) -> Result<()> {
        match self.registry.apply(bytes, &mut self.clock) {
            Ok(Applied::New { .. } | Applied::Kept { .. } | Applied::Same) => Ok(()),
            Err(error) => Err(refused(doing)(error.into())),
        }
    }

    /// Says how far the network has come, so that nobody can withhold a revocation.
    fn add_head(&mut self, issuer: &mut Issuer) -> Result<()> {
        issuer
            .head(&mut self.registry, &mut self.clock, Instant::ZERO)
            .map(drop)
            .map_err(refused("say how far the network has come"))
    }
}

/// Builds a network's directory aside and puts it in place in one step.
fn build(
    home: &Home,
    name: &Name,
    mut settings: Settings,
    records: &[Vec<u8>],
    beside: &[Beside],
    secrets: &Secrets,
) -> Result<Network> {
    let to = home.network(name);
    refuse_taken(&to, name)?;
    let workshop = home.workshop()?;
    let dir = workshop.path();
    files::make_dir(&dir.join(RECORDS_DIR))?;
    for bytes in records {
        let id = id::record_id(bytes).to_string();
        files::write(&dir.join(RECORDS_DIR).join(&id), bytes)?;
        settings.records.entry(id).or_insert(RecordState::Pending);
    }
    // What can't be believed is found out before the directory gets its name.
    registry(dir, &settings, records, &mut Clock::new(UnixTime::EPOCH))?;
    secrets.write(dir)?;
    for (path, bytes) in beside {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            files::make_dir(parent)?;
        }
        files::write(&path, bytes)?;
    }
    files::write(&dir.join(SETTINGS_FILE), &settings.encode())?;
    workshop.finish(&to)?;
    Network::open(&to)
}

fn refuse_taken(to: &Path, name: &Name) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(Error::exists(
            format!(
                "there is a network called {name} already, in {}",
                to.display()
            ),
            "Choose another name; names are yours alone and can be changed with `altnet-provision network rename`.",
        ));
    }
    Ok(())
}

fn read_records(dir: &Path, settings: &Settings) -> Result<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    for text in settings.records.keys() {
        let path = dir.join(RECORDS_DIR).join(text);
        let bytes = files::read(&path).map_err(|error| error.gone(&path))?;
        if id::record_id(&bytes).to_string() != *text {
            return Err(Error::damaged(&path, "it is not what was written"));
        }
        records.push(bytes);
    }
    Ok(records)
}

/// Believes the records that hold, the genesis first.
fn registry(
    dir: &Path,
    settings: &Settings,
    records: &[Vec<u8>],
    clock: &mut Clock,
) -> Result<Registry> {
    let path = dir.join(RECORDS_DIR);
    let is_genesis = |bytes: &&Vec<u8>| {
        Envelope::parse(bytes).is_ok_and(|e| e.header().kind == RecordKind::GENESIS)
    };
    let genesis = records
        .iter()
        .find(is_genesis)
        .ok_or_else(|| Error::damaged(&path, "the network's first record is gone"))?;
    let mut registry =
        Registry::new(genesis, Limits::ROUTER).map_err(|error| Error::damaged(&path, error))?;
    if registry.network() != settings.network {
        let why = "the records are another network's";
        return Err(Error::damaged(&path, why));
    }
    registry.apply_all(records.iter().map(Vec::as_slice), clock);
    Ok(registry)
}

/// The certificate of an owner's computer: all that can be lent.
fn certificate(issuer: &SigningSecret, now: UnixTime) -> IssuerCertificate {
    IssuerCertificate {
        issuer: issuer.public(),
        rights: Rights::all(),
        roles: Roles::all(),
        first_site: site(0),
        last_site: site(SiteId::MAX),
        issued: now,
        expires: now.after(CERTIFICATE),
    }
}

fn site(id: u16) -> SiteId {
    SiteId::new(id).expect("callers give 0 or SiteId::MAX")
}

fn sign<T: Body>(
    secret: &SigningSecret,
    network: NetworkId,
    body: &T,
    serial: Serial,
) -> Result<Vec<u8>> {
    let mut out = [0; MAX_RECORD_BYTES];
    records::sign_record(secret, network, body, serial, &mut out)
        .map(<[u8]>::to_vec)
        .map_err(|error| {
            Error::input(
                format!("the record would be too large: {error}"),
                "Use fewer or shorter names and groups.",
            )
        })
}

/// Turns a refusal by the rules that every node checks by into a sentence about `doing`.
fn refused(doing: &'static str) -> impl FnOnce(Refusal) -> Error {
    move |refusal| {
        let next = match refusal {
            Refusal::NameTaken => "Choose another name.",
            Refusal::SiteTaken => "Choose another site, or revoke its gateway first.",
            Refusal::NoCertificate | Refusal::NotAuthorized | Refusal::NotAllowed => {
                "Do it on an owner's computer, or let an owner certify this one with `altnet-provision issuer add`."
            }
            Refusal::Full | Refusal::Record(RecordError::Full { .. }) => {
                "Revoke what is no longer used."
            }
            Refusal::Revoked => "Nothing is left to do.",
            _ => {
                "Run `altnet-provision doctor`, and `altnet-provision sync` if the network has come further elsewhere."
            }
        };
        Error::not_allowed(format!("cannot {doing}: {refusal}"), next)
    }
}

/// What [`crate::directory`] does to a network.
impl Network {
    /// The records that no directory has acknowledged, those that others rest on first.
    pub(crate) fn pending_records(&self) -> Vec<Vec<u8>> {
        let is_pending = |bytes: &&[u8]| {
            let id = id::record_id(bytes).to_string();
            self.settings.records.get(&id) == Some(&RecordState::Pending)
        };
        // The end of an issuer last: what was signed anew because of it holds before it too.
        let ends_issuer = |bytes: &[u8]| {
            let revocation = Envelope::parse(bytes)
                .ok()
                .filter(|envelope| envelope.header().kind == RecordKind::REVOCATION);
            let body = revocation.and_then(|e| record::decode::<Revocation>(e.body()).ok());
            body.is_some_and(|body| matches!(body.target, RevocationTarget::Issuer(_)))
        };
        let records = self.registry.iter().map(|(_, bytes)| bytes);
        let mut pending: Vec<Vec<u8>> = records.filter(is_pending).map(<[u8]>::to_vec).collect();
        pending.sort_by_key(|bytes| ends_issuer(bytes));
        pending
    }

    /// Notes that a directory has these records on its disk.
    pub(crate) fn mark_published(&mut self, ids: &[RecordId], now: UnixTime) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        self.change(now, |draft| {
            for id in ids {
                let records = &mut draft.settings.records;
                records.insert(id.to_string(), RecordState::Published);
            }
            Ok(())
        })
    }

    /// Takes in what a directory sent. Returns how many records are new here.
    pub(crate) fn take_records(
        &mut self,
        records: &[Vec<u8>],
        epoch: u64,
        revision: u64,
        now: UnixTime,
    ) -> Result<usize> {
        self.change(now, |draft| {
            let all = records.iter().map(Vec::as_slice);
            let tally = draft.registry.apply_all(all, &mut draft.clock);
            for bytes in records {
                let id = id::record_id(bytes).to_string();
                draft.settings.records.insert(id, RecordState::Published);
            }
            draft.settings.cursor = SyncCursor { epoch, revision };
            Ok(tally.new)
        })
    }
}
