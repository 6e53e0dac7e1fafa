//! Owners: who may act for the network, and how a lost or stolen owner key is replaced.
//!
//! When an owner leaves, what it certified stands aside until a present owner signs it anew.
//! That is done here at once. Issuer keys that could invite and that only the leaver vouched for
//! are revoked in the same step: what they signed before stands, nothing new does.

use std::net::SocketAddr;
use std::path::Path;

use altnet_core::invite::Bundle;
use altnet_core::issuer::sign_anew;
use altnet_core::limits::Limits;
use altnet_core::records::SigningSecret;
use altnet_core::registry::{Registry, Slot};
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::{Name, NetworkId, SigningKey};
use altnet_wire::record::{self, IssuerCertificate, MAX_OWNERS, OwnerChange, Rights};
use altnet_wire::time::UnixTime;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Draft, Network, build, certificate, sign};
use crate::error::{Error, Result};
use crate::files;
use crate::home::Home;
use crate::recovery::RecoveryKey;
use crate::sealed::Passphrase;
use crate::secrets::{self, Secrets};
use crate::settings::{Entry, Settings, as_text};

/// Where owner keys wait on a computer until another owner has added them.
const WAITING: &str = ".owner-key";
const NO_NETWORK: NetworkId = NetworkId([0; 32]);

/// An owner. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct OwnerSummary {
    /// Its key.
    #[serde(with = "as_text")]
    pub key: SigningKey,
    /// Whether its secret half is on this computer; none if the keys were not opened.
    pub here: Option<bool>,
}

impl Network {
    /// The owners; with `secrets` also which of them are here.
    pub fn owners(&self, secrets: Option<&Secrets>) -> Vec<OwnerSummary> {
        let owners = self.registry.owners().iter();
        owners
            .map(|key| OwnerSummary {
                key: *key,
                here: secrets.map(|secrets| secrets.owner(key).is_some()),
            })
            .collect()
    }

    /// Adds an owner: any one owner may act for the network.
    ///
    /// # Errors
    /// [`Error::Exists`] if it is one already; [`Error::Input`] past [`MAX_OWNERS`];
    /// [`Error::NotAllowed`].
    pub fn add_owner(&mut self, secrets: &Secrets, key: SigningKey, now: UnixTime) -> Result<()> {
        let mut owners = self.registry.owners().to_vec();
        if owners.contains(&key) {
            return Err(Error::exists(
                format!("{key} is an owner already"),
                "See `altnet-provision network owner list`.",
            ));
        }
        owners.push(key);
        let signer = self.owner(secrets)?;
        let mut issuer = self.issuer(secrets)?;
        self.change(now, |draft| {
            draft.change_owners(&signer, &owners, now)?;
            draft.add_head(&mut issuer)
        })
    }

    /// Removes an owner, for instance one whose computer was stolen.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it is none; [`Error::Input`] if no owner key would be left here;
    /// [`Error::NotAllowed`].
    pub fn remove_owner(
        &mut self,
        secrets: &Secrets,
        key: SigningKey,
        now: UnixTime,
    ) -> Result<()> {
        let mut owners = self.registry.owners().to_vec();
        if !owners.contains(&key) {
            return Err(Error::not_found(
                format!("{key} is not an owner"),
                "See `altnet-provision network owner list`.",
            ));
        }
        owners.retain(|owner| *owner != key);
        let signer = owners.iter().find_map(|owner| secrets.owner(owner));
        let signer = signer.ok_or_else(|| {
            Error::input(
                "that would leave no owner key on this computer",
                "Remove it on another owner's computer; a lost key is replaced with `altnet-provision network owner recover`.",
            )
        })?;
        let own = self.settings.issuer;
        let issuer_secret = secrets.issuer(&own);
        self.change(now, |draft| {
            let policy = draft.policy_record();
            draft.change_owners(&signer, &owners, now)?;
            draft.sign_anew(&signer, issuer_secret.as_ref(), policy.as_deref(), now)
        })
    }

    /// Puts an owner key of this computer in the place of lost ones, with the recovery key: a new
    /// one, unless one is here that is in force and not lost. `lost` may be empty if there is
    /// only one owner.
    ///
    /// # Errors
    /// [`Error::Input`] if it is another network's recovery key, or it isn't clear who is lost;
    /// [`Error::NotFound`] if a lost one is no owner.
    pub fn recover(
        &mut self,
        secrets: &mut Secrets,
        recovery: &RecoveryKey,
        lost: &[SigningKey],
        now: UnixTime,
    ) -> Result<SigningKey> {
        let recovery = check_recovery(&self.registry, recovery)?;
        let mut stay = staying(&self.registry, lost)?;
        let owner = match stay.iter().find_map(|key| secrets.owner(key)) {
            Some(owner) => owner,
            None => {
                let owner = secrets::generate()?;
                secrets.add_owner(&owner);
                stay.push(owner.public());
                owner
            }
        };
        let issuer = secrets.issuer(&self.settings.issuer);
        let dir = self.dir.clone();
        self.change(now, |draft| {
            let policy = draft.policy_record();
            draft.change_owners(&recovery, &stay, now)?;
            draft.sign_anew(&owner, issuer.as_ref(), policy.as_deref(), now)?;
            // The key is on disk before the change that needs it.
            secrets.write(&dir)
        })?;
        Ok(owner.public())
    }

    /// What another owner's computer needs to join in: public records and where to enter.
    ///
    /// # Errors
    /// [`Error::Input`] if it is too large.
    pub fn share(&self) -> Result<Zeroizing<String>> {
        let bundle = Bundle {
            // With the policy, so that the next one has a serial of its own.
            records: super::bundle::needed(&self.registry)
                .into_iter()
                .chain(
                    self.registry
                        .policy()
                        .and(self.registry.bytes(&Slot::POLICY))
                        .map(<[u8]>::to_vec),
                )
                .collect(),
            fixed_endpoints: self.entry_endpoints().into_iter().take(4).collect(),
            petname: Some(self.name.clone()),
            ..Bundle::default()
        };
        bundle
            .to_text()
            .map_err(|error| Error::input(error.to_string(), "Revoke what is no longer used."))
    }
}

impl Network {
    /// Makes a network's directory on a new computer with nothing but the recovery key: `records`
    /// came from whoever is at `endpoint`, and the recovery key proves them. The new owner key
    /// and an issuer key of this computer come beside the lost ones, so that nothing stands aside
    /// before it is known here and can be signed anew by [`Network::recover`].
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing that a person says"
    )]
    pub(crate) fn recover_anew(
        home: &Home,
        name: Option<&Name>,
        records: &[Vec<u8>],
        endpoint: SocketAddr,
        recovery: &RecoveryKey,
        lost: &[SigningKey],
        passphrase: &Passphrase,
        now: UnixTime,
    ) -> Result<(Self, Secrets)> {
        let registry = believed(records)?;
        let recovery = check_recovery(&registry, recovery)?;
        let name = name.unwrap_or(&registry.genesis().name).clone();
        let (owner, issuer) = (secrets::generate()?, secrets::generate()?);
        let mut owners = registry.owners().to_vec();
        if owners.len() == MAX_OWNERS {
            owners = staying(&registry, lost)?;
        }
        owners.push(owner.public());
        let mut secrets = Secrets::new(registry.network(), passphrase.clone());
        secrets.add_owner(&owner);
        secrets.add_issuer(&issuer);
        let mut settings = settings_of(&registry, &issuer);
        settings.entries.push(entry("found".into(), vec![endpoint]));
        let mut draft = Draft::of(registry, settings, now)?;
        let policy = draft.policy_record();
        draft.change_owners(&recovery, &owners, now)?;
        let slot = Slot::certificate(issuer.public());
        let body = certificate(&issuer, now);
        draft.add(&owner, &slot, &body, "certify this computer")?;
        draft.sign_anew(&owner, Some(&issuer), policy.as_deref(), now)?;
        let records = draft.bytes();
        let network = build(home, &name, draft.settings, &records, &[], &secrets)?;
        Ok((network, secrets))
    }
}

/// Makes an owner key on this computer for a network that another owner will add it to, or finds
/// the one that waits. Returns its public half, for [`Network::add_owner`] there.
///
/// # Errors
/// [`Error::Passphrase`] if one waits under another passphrase; [`Error::Io`].
pub fn new_owner_key(home: &Home, passphrase: &Passphrase) -> Result<SigningKey> {
    let dir = home.path().join(WAITING);
    if dir.join(secrets::FILE).exists()
        && let Some(key) = owner_keys_here(home, passphrase)?.first()
    {
        return Ok(*key);
    }
    files::make_dir(&dir)?;
    let owner = secrets::generate()?;
    let mut secrets = Secrets::new(NO_NETWORK, passphrase.clone());
    secrets.add_owner(&owner);
    secrets.write(&dir)?;
    Ok(owner.public())
}

/// The owner keys that wait on this computer.
///
/// # Errors
/// [`Error::Passphrase`]; [`Error::Io`] if there are none.
pub fn owner_keys_here(home: &Home, passphrase: &Passphrase) -> Result<Vec<SigningKey>> {
    let dir = home.path().join(WAITING);
    let secrets = waiting(&dir, passphrase)?;
    Ok(secrets.owners().iter().map(SigningSecret::public).collect())
}

fn waiting(dir: &Path, passphrase: &Passphrase) -> Result<Secrets> {
    Secrets::read(dir, NO_NETWORK, passphrase).map_err(|error| {
        error.unopened(format!(
            "remove {} and make a new key with `altnet-provision network owner key`.",
            dir.display()
        ))
    })
}

/// Joins in as another owner, with what [`Network::share`] wrote after the other owner added the
/// key from [`new_owner_key`].
///
/// # Errors
/// [`Error::Input`] if the text is damaged; [`Error::NotAllowed`] if no key here is an owner.
pub fn adopt(
    home: &Home,
    text: &str,
    name: Option<&Name>,
    passphrase: &Passphrase,
    now: UnixTime,
) -> Result<Network> {
    let bundle = Bundle::parse(text).map_err(|error| {
        Error::input(
            error.to_string(),
            "Make it anew with `altnet-provision network share` on the other owner's computer.",
        )
    })?;
    let registry = believed(&bundle.records)?;
    let waiting = home.path().join(WAITING);
    let not_added = || {
        Error::not_allowed(
            "no key on this computer is an owner of that network",
            "Run `altnet-provision network owner key` here, `network owner add KEY` and then `network share` on the other owner's computer.",
        )
    };
    if !waiting.join(secrets::FILE).exists() {
        return Err(not_added());
    }
    let kept = self::waiting(&waiting, passphrase)?;
    let mut owners = registry.owners().iter();
    let owner = owners
        .find_map(|key| kept.owner(key))
        .ok_or_else(not_added)?;
    let issuer = secrets::generate()?;
    let mut secrets = Secrets::new(registry.network(), passphrase.clone());
    secrets.add_owner(&owner);
    secrets.add_issuer(&issuer);
    let mut settings = settings_of(&registry, &issuer);
    if !bundle.fixed_endpoints.is_empty() {
        let endpoints = bundle.fixed_endpoints.to_vec();
        settings.entries.push(entry("shared".into(), endpoints));
    }
    let name = name.cloned().or(bundle.petname.clone());
    let name = name.unwrap_or_else(|| registry.genesis().name.clone());
    let mut draft = Draft::of(registry, settings, now)?;
    let slot = Slot::certificate(issuer.public());
    draft.add(
        &owner,
        &slot,
        &certificate(&issuer, now),
        "certify this computer",
    )?;
    let records = draft.bytes();
    let network = build(home, &name, draft.settings, &records, &[], &secrets)?;
    // The key is in the network's own directory now.
    files::remove(&waiting.join(secrets::FILE));
    Ok(network)
}

impl Draft {
    pub(super) fn of(registry: Registry, settings: Settings, now: UnixTime) -> Result<Self> {
        let mut clock = altnet_core::clock::Clock::new(UnixTime::EPOCH);
        clock.set_running(now, altnet_wire::time::Instant::ZERO);
        Ok(Self {
            settings,
            registry,
            clock,
            rng: altnet_core::rng::Rng::new(crate::chance::bytes()?),
            policy_text: None,
        })
    }

    pub(super) fn bytes(&self) -> Vec<Vec<u8>> {
        self.registry
            .iter()
            .map(|(_, bytes)| bytes.to_vec())
            .collect()
    }

    fn change_owners(
        &mut self,
        signer: &SigningSecret,
        owners: &[SigningKey],
        now: UnixTime,
    ) -> Result<()> {
        let (previous, serial) = self.registry.owner_head();
        let body = OwnerChange {
            previous,
            owners: heapless::Vec::from_slice(owners).map_err(|_| {
                Error::input(
                    format!("a network has at most {MAX_OWNERS} owners"),
                    "Remove one first.",
                )
            })?,
            recovery: self.registry.recovery(),
            issued: now,
        };
        let bytes = sign(signer, self.registry.network(), &body, serial.next())?;
        self.take(&bytes, "change the owners")
    }

    /// Signs anew what stands aside since an owner left, `policy` too if it was in force before
    /// that, and revokes its issuers that could invite.
    fn sign_anew(
        &mut self,
        owner: &SigningSecret,
        issuer: Option<&SigningSecret>,
        policy: Option<&[u8]>,
        now: UnixTime,
    ) -> Result<()> {
        let own = issuer.map(SigningSecret::public);
        let mut revoke = Vec::new();
        for bytes in self.aside(RecordKind::ISSUER_CERTIFICATE) {
            let body = Envelope::parse(&bytes)
                .ok()
                .and_then(|e| record::decode::<IssuerCertificate>(e.body()).ok());
            self.again(owner, &bytes)?;
            if let Some(body) = body
                && body.rights.contains(Rights::INVITE)
                && Some(body.issuer) != own
            {
                revoke.push(body.issuer);
            }
        }
        for bytes in self.aside(RecordKind::REVOCATION) {
            self.again(owner, &bytes)?;
        }
        for key in revoke {
            self.revoke_issuer(owner, key, "its owner was removed", now)?;
        }
        self.keep_in_force(owner, policy)?;
        let Some(issuer) = issuer else {
            return Ok(());
        };
        for bytes in self.aside(RecordKind::HOST) {
            self.again(issuer, &bytes)?;
        }
        let mut issuer = altnet_core::issuer::Issuer::new(issuer.clone(), None, &self.registry)
            .map_err(super::refused("use the issuer key"))?;
        self.add_head(&mut issuer)
    }

    fn aside(&self, kind: RecordKind) -> Vec<Vec<u8>> {
        let aside = self.registry.standing_aside();
        aside
            .filter(|(slot, _)| slot.kind() == kind)
            .map(|(_, bytes)| bytes.to_vec())
            .collect()
    }

    pub(super) fn again(&mut self, signer: &SigningSecret, bytes: &[u8]) -> Result<()> {
        let bytes = sign_anew(signer, bytes).map_err(|error| {
            Error::input(format!("cannot sign a record anew: {error}"), "Try again.")
        })?;
        self.take(&bytes, "sign anew what another key had signed")
    }
}

fn settings_of(registry: &Registry, issuer: &SigningSecret) -> Settings {
    let mut settings = Settings::new(registry.network(), issuer.public());
    let here = issuer.public().to_string();
    settings.issuers.insert(here, "this computer".into());
    settings
}

/// A place that somebody said the network can be entered at; what it is shows when it answers.
fn entry(name: String, endpoints: Vec<SocketAddr>) -> Entry {
    Entry {
        name,
        endpoints,
        relay: true,
        directory: true,
        admits: None,
    }
}

/// Believes records that somebody brought.
fn believed(records: &[Vec<u8>]) -> Result<Registry> {
    let is_genesis = |bytes: &&Vec<u8>| {
        Envelope::parse(bytes).is_ok_and(|e| e.header().kind == RecordKind::GENESIS)
    };
    let genesis = records.iter().find(is_genesis);
    let registry = genesis.and_then(|genesis| Registry::new(genesis, Limits::ROUTER).ok());
    let mut registry = registry.ok_or_else(|| {
        Error::input(
            "the records do not begin with a network's first record",
            "Get them anew from the other side.",
        )
    })?;
    let mut clock = altnet_core::clock::Clock::new(UnixTime::EPOCH);
    registry.apply_all(records.iter().map(Vec::as_slice), &mut clock);
    Ok(registry)
}

/// Who is lost on a computer that has no keys: those named, or the only owner.
pub(crate) fn lost_owners(records: &[Vec<u8>], lost: &[SigningKey]) -> Result<Vec<SigningKey>> {
    let registry = believed(records)?;
    let stay = staying(&registry, lost)?;
    let owners = registry.owners().iter();
    Ok(owners.filter(|key| !stay.contains(key)).copied().collect())
}

fn check_recovery(registry: &Registry, recovery: &RecoveryKey) -> Result<SigningSecret> {
    let secret = SigningSecret::from_bytes(recovery.seed());
    if secret.public() != registry.recovery() {
        return Err(Error::input(
            "that is the recovery key of another network",
            "Look for the paper that was written when this network was made.",
        ));
    }
    Ok(secret)
}

/// The owners without the lost.
fn staying(registry: &Registry, lost: &[SigningKey]) -> Result<Vec<SigningKey>> {
    let present = registry.owners();
    if let Some(stranger) = lost.iter().find(|key| !present.contains(key)) {
        return Err(Error::not_found(
            format!("{stranger} is not an owner"),
            "See `altnet-provision network owner list`.",
        ));
    }
    if lost.is_empty() && present.len() > 1 {
        let list: Vec<String> = present.iter().map(ToString::to_string).collect();
        return Err(Error::input(
            "the network has several owners and it was not said which key is lost",
            format!("Say it with --lost KEY: {}.", list.join(", ")),
        ));
    }
    let stays = |key: &&SigningKey| !lost.is_empty() && !lost.contains(key);
    Ok(present.iter().filter(stays).copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_that_was_cut_short_is_finished_with_the_key_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let now = UnixTime::from_secs(1_800_000_000);
        let passphrase = Passphrase::new("pass").unwrap().with_less_work(2);
        let (old, new) = (
            Home::at(dir.path().join("old")),
            Home::at(dir.path().join("new")),
        );
        let name = "home".parse().unwrap();
        let made = Network::create(&old, &name, &passphrase, now).unwrap();
        let lost = made.network.registry.owners().to_vec();
        let records = super::super::bundle::needed(&made.network.registry);
        let endpoint = "203.0.113.10:51820".parse().unwrap();
        let (mut network, mut secrets) = Network::recover_anew(
            &new,
            None,
            &records,
            endpoint,
            &made.recovery,
            &lost,
            &passphrase,
            now,
        )
        .unwrap();
        let owner = secrets.owners()[0].public();
        assert_eq!(network.registry.owners(), [lost[0], owner]);
        assert!(network.registry.standing_aside().next().is_none());
        let found = network.recover(&mut secrets, &made.recovery, &lost, now);
        assert_eq!(found.unwrap(), owner);
        assert_eq!(network.registry.owners(), [owner]);
        assert_eq!(secrets.owners().len(), 1);
    }
}
