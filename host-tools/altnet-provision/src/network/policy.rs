//! The network's policy: signed here, looked back at, and kept in force when its signer leaves.
//!
//! `policy.toml` in the network's directory is the text that its author works on; nothing but
//! [`Network::publish_policy`] takes it for more than a text.

use std::path::{Path, PathBuf};

use altnet_core::clock::Clock;
use altnet_core::issuer::Issuer;
use altnet_core::policy::Draft as PolicyDraft;
use altnet_core::records::{self, SigningSecret};
use altnet_core::registry::Slot;
use altnet_wire::envelope::{Envelope, RecordKind};
use altnet_wire::id::SigningKey;
use altnet_wire::policy::Policy;
use altnet_wire::record::Rights;
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::{Draft, Network, RECORDS_DIR, refused};
use crate::error::{Error, Result};
use crate::files;
use crate::policy::{Compiled, History, Kept, STARTER, compile, write};
use crate::secrets::Secrets;
use crate::settings::{Settings, as_text};

/// The text that its author works on.
pub(super) const WORKING_FILE: &str = "policy.toml";
/// A text that was edited and not put in force.
const EDITED_FILE: &str = "policy.edited.toml";

/// The policy in force.
#[derive(Clone, Debug)]
pub struct PolicyInForce {
    /// Its serial.
    pub serial: u64,
    /// Who signed it.
    pub signer: SigningKey,
    /// What it says.
    pub draft: PolicyDraft,
}

/// A policy that was in force here, or is. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct PolicySummary {
    /// Its serial.
    pub serial: u64,
    /// When it was made (RFC 3339, UTC).
    pub issued: String,
    /// Who signed it.
    #[serde(with = "as_text")]
    pub signer: SigningKey,
    /// What people call the signer on this computer.
    pub signer_name: Option<String>,
    /// How many rules it has.
    pub rules: usize,
    /// Whether it is in force.
    pub in_force: bool,
    /// Whether the text that it was written as is here.
    pub has_text: bool,
}

/// What the author's text is to the policy in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkingCopy {
    /// There is none.
    Missing,
    /// It says what is in force.
    InForce(String),
    /// It is what was published as this serial, and something else is in force since.
    Behind(String, u64),
    /// It was changed since.
    Edited(String),
}

/// What [`Network::publish_policy`] did. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct PolicyPublished {
    /// The serial that is in force now.
    pub serial: u64,
    /// How many rules it has.
    pub rules: usize,
    /// Whether it says something else than what was in force.
    pub changed: bool,
    /// Where changes that were never published were put, because other text takes their place.
    pub put_aside: Option<PathBuf>,
}

impl Network {
    /// The policy in force, if there is one.
    pub fn policy(&self) -> Option<PolicyInForce> {
        let (serial, _, body) = self.registry.policy()?;
        let record = self.registry.bytes(&Slot::POLICY)?;
        Some(PolicyInForce {
            serial: serial.0,
            signer: Envelope::parse(record).ok()?.header().signer,
            draft: PolicyDraft::decode(body).ok()?,
        })
    }

    /// The text of the policy in force: as it was written if that is here and still says the same,
    /// else written from the record.
    pub fn policy_text(&self) -> Option<String> {
        let policy = self.policy()?;
        let text = self.history().text(policy.serial);
        let text = text.filter(|text| self.says(text, &policy.draft));
        Some(text.unwrap_or_else(|| write(&policy.draft, &self.registry)))
    }

    fn history(&self) -> History {
        History::of(&self.dir, self.id())
    }

    /// Whether a text comes to this policy, its date aside.
    fn says(&self, text: &str, draft: &PolicyDraft) -> bool {
        let compiled = compile(text, WORKING_FILE, &self.registry, draft.issued);
        compiled.is_ok_and(|compiled| compiled.draft == *draft)
    }

    /// The author's text.
    pub fn working_file(&self) -> PathBuf {
        self.dir.join(WORKING_FILE)
    }

    /// Where a text waits that was edited and not put in force.
    pub fn edited_file(&self) -> PathBuf {
        self.dir.join(EDITED_FILE)
    }

    /// What the author's text is to the policy in force.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] if it is no text.
    pub fn working_copy(&self) -> Result<WorkingCopy> {
        let path = self.working_file();
        if path.symlink_metadata().is_err() {
            return Ok(WorkingCopy::Missing);
        }
        let text = String::from_utf8(files::read(&path)?)
            .map_err(|_| Error::damaged(&path, "it is not text"))?;
        let Some(policy) = self.policy() else {
            return Ok(WorkingCopy::Edited(text));
        };
        if self.says(&text, &policy.draft) {
            return Ok(WorkingCopy::InForce(text));
        }
        let history = self.history();
        let (kept, _) = history.all();
        let same = |one: &&Kept| one.text.as_deref() == Some(&text) && one.serial != policy.serial;
        Ok(match kept.iter().find(same) {
            Some(one) => WorkingCopy::Behind(text, one.serial),
            None => WorkingCopy::Edited(text),
        })
    }

    /// Signs a policy with this computer's issuer key, or an owner's if that may not, together
    /// with a head that names it, and keeps its text.
    ///
    /// # Errors
    /// [`Error::NotAllowed`] if no key here may sign a policy; [`Error::Io`].
    pub fn publish_policy(
        &mut self,
        secrets: &Secrets,
        text: &str,
        compiled: &Compiled,
        now: UnixTime,
    ) -> Result<PolicyPublished> {
        let says = |draft: &PolicyDraft| PolicyDraft {
            issued: now,
            ..draft.clone()
        };
        let in_force = self.policy();
        let in_force = in_force.filter(|policy| says(&policy.draft) == says(&compiled.draft));
        let put_aside = self.put_aside(text)?;
        let rules = compiled.draft.rules.len();
        if let Some(policy) = in_force {
            // Comments may have changed.
            if let Some(record) = self.registry.bytes(&Slot::POLICY) {
                self.history().keep(record, Some(text))?;
            }
            files::write(&self.working_file(), text.as_bytes())?;
            return Ok(PolicyPublished {
                serial: policy.serial,
                rules,
                changed: false,
                put_aside,
            });
        }
        self.sign_policy(secrets, &compiled.body, Some(text), now)?;
        Ok(PolicyPublished {
            serial: self.policy().map_or(0, |policy| policy.serial),
            rules,
            changed: true,
            put_aside,
        })
    }

    /// Moves changes that were never published out of the way of another text.
    fn put_aside(&self, text: &str) -> Result<Option<PathBuf>> {
        let WorkingCopy::Edited(old) = self.working_copy()? else {
            return Ok(None);
        };
        if old == text {
            return Ok(None);
        }
        let path = self.dir.join("policy.old.toml");
        files::write(&path, old.as_bytes())?;
        Ok(Some(path))
    }

    fn sign_policy(
        &mut self,
        secrets: &Secrets,
        body: &[u8],
        text: Option<&str>,
        now: UnixTime,
    ) -> Result<()> {
        let mut issuer = self.issuer(secrets)?;
        let certificate = self.registry.issuer(&issuer.public());
        let signer = match certificate.is_some_and(|c| c.rights.contains(Rights::POLICY)) {
            true => issuer.secret().clone(),
            false => self.owner(secrets)?,
        };
        let working = self.working_file();
        self.change(now, |draft| {
            draft.add_policy(&signer, body)?;
            draft.add_head(&mut issuer)?;
            draft.policy_text = text.map(str::to_owned);
            match text {
                // Last: it is the author's, and shall be what was published.
                Some(text) => files::write(&working, text.as_bytes()),
                None => Ok(()),
            }
        })
    }

    /// The policies that are known here, the newest first, and names of files that are damaged.
    pub fn policy_history(&self) -> (Vec<PolicySummary>, Vec<String>) {
        let in_force = self.policy();
        let (kept, damaged) = self.history().all();
        let serial = in_force.as_ref().map(|policy| policy.serial);
        let summary = |serial, signer: SigningKey, draft: &PolicyDraft, has_text, in_force| {
            let names = &self.settings.issuers;
            let owner = self.registry.owners().contains(&signer);
            PolicySummary {
                serial,
                issued: draft.issued.to_string(),
                signer,
                signer_name: names
                    .get(&signer.to_string())
                    .cloned()
                    .or_else(|| owner.then(|| "an owner".into())),
                rules: draft.rules.len(),
                in_force,
                has_text,
            }
        };
        let mut all: Vec<PolicySummary> = Vec::new();
        // It is known by its record, be it kept or not.
        if let Some(policy) = &in_force {
            let has_text = self.history().text(policy.serial).is_some();
            all.push(summary(
                policy.serial,
                policy.signer,
                &policy.draft,
                has_text,
                true,
            ));
        }
        let others = kept.iter().filter(|one| Some(one.serial) != serial);
        all.extend(others.map(|one| {
            summary(
                one.serial,
                one.signer,
                &one.draft,
                one.text.is_some(),
                false,
            )
        }));
        all.sort_by_key(|one| std::cmp::Reverse(one.serial));
        (all, damaged)
    }

    fn kept_policy(&self, serial: u64) -> Result<Kept> {
        let (kept, damaged) = self.history().all();
        if let Some(one) = kept.into_iter().find(|one| one.serial == serial) {
            return Ok(one);
        }
        let name = format!("{serial}.record");
        match damaged
            .into_iter()
            .find(|path| path.ends_with(&format!("/{name}")))
        {
            Some(path) => Err(Error::damaged(path.as_ref(), "it is not what was signed")
                .unopened("go back to another one: see `altnet-provision policy history`.")),
            None => Err(Error::not_found(
                format!("no policy {serial} is kept here"),
                "See `altnet-provision policy history`.",
            )),
        }
    }

    /// What a policy said that was in force here, and its text: as it was written if that still
    /// says the same.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`].
    pub fn old_policy(&self, serial: u64) -> Result<(PolicyDraft, String)> {
        let old = self.kept_policy(serial)?;
        let text = old.text.filter(|text| self.says(text, &old.draft));
        let text = text.unwrap_or_else(|| write(&old.draft, &self.registry));
        Ok((old.draft, text))
    }

    /// Puts an old policy in force again, as a new serial. It says exactly what it said: names in
    /// its text are not looked up again, because another device may have one of them by now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Damaged`]; as [`Network::publish_policy`].
    pub fn revert_policy(
        &mut self,
        secrets: &Secrets,
        serial: u64,
        now: UnixTime,
    ) -> Result<PolicyPublished> {
        let (old, text) = self.old_policy(serial)?;
        let draft = PolicyDraft { issued: now, ..old };
        let body = draft.encode().map_err(|error| {
            Error::input(
                format!("policy {serial} can't be signed as it was: {error}"),
                "Write it anew: see `altnet-provision policy show` with its serial.",
            )
        })?;
        let compiled = Compiled {
            draft,
            body,
            warnings: Vec::new(),
        };
        self.publish_policy(secrets, &text, &compiled, now)
    }

    /// The newest policy before `serial` that another key signed than `signer`: what to go back to
    /// if that key was a thief's.
    pub fn policy_before(&self, serial: u64, signer: &SigningKey) -> Option<u64> {
        let (kept, _) = self.history().all();
        let mut before = kept.into_iter().filter(|one| one.serial < serial);
        before
            .find(|one| one.signer != *signer)
            .map(|one| one.serial)
    }

    /// Keeps the policy in force for looking back, before the change that puts it in force: a
    /// power cut in between leaves a file too much, which is swept away.
    pub(super) fn keep_policy(&self, draft: &Draft) -> Result<Vec<PathBuf>> {
        let (old, new) = (&self.registry, &draft.registry);
        let record = |registry: &altnet_core::registry::Registry| {
            registry.policy()?;
            registry.bytes(&Slot::POLICY).map(<[u8]>::to_vec)
        };
        let (before, after) = (record(old), record(new));
        let text = draft.policy_text.as_deref();
        if before == after && text.is_none() {
            return Ok(Vec::new());
        }
        let history = self.history();
        let mut fresh = Vec::new();
        if let Some(before) = before {
            fresh.extend(history.keep(&before, None)?);
        }
        if let Some(after) = after {
            fresh.extend(history.keep(&after, text)?);
        }
        Ok(fresh)
    }

    /// The texts and records of policies, by their paths in the directory: for a backup. Files that
    /// don't read are left out, because nothing rests on them.
    pub(super) fn policy_files(&self) -> Vec<Beside> {
        let mut paths = self.history().paths();
        paths.push(WORKING_FILE.into());
        let read = |path: String| Some((path.clone(), files::read(&self.dir.join(path)).ok()?));
        paths.into_iter().filter_map(read).collect()
    }

    pub(super) fn sweep_policies(&self) {
        if let Some((serial, ..)) = self.registry.policy() {
            self.history().sweep(serial.0);
        }
    }
}

/// Signs the policy that a network begins with, and a head that names it. Returns the records and
/// the files that come beside them.
pub(super) fn first(
    settings: &Settings,
    records: &[Vec<u8>],
    issuer: &SigningSecret,
    now: UnixTime,
) -> Result<(Vec<Vec<u8>>, Vec<Beside>)> {
    let mut clock = Clock::new(UnixTime::EPOCH);
    let registry = super::registry(Path::new(RECORDS_DIR), settings, records, &mut clock)?;
    let compiled = compile(STARTER, WORKING_FILE, &registry, now).map_err(Error::Policy)?;
    let mut draft = Draft::of(registry, settings.clone(), now)?;
    draft.add_policy(issuer, &compiled.body)?;
    let mut at_work = Issuer::new(issuer.clone(), None, &draft.registry)
        .map_err(refused("use the issuer key"))?;
    draft.add_head(&mut at_work)?;
    let text = STARTER.as_bytes().to_vec();
    let mut files = vec![(WORKING_FILE.to_owned(), text.clone())];
    if let (Some(policy), Some((serial, ..))) = (draft.policy_record(), draft.registry.policy()) {
        files.push((format!("policies/{serial}.record"), policy));
        files.push((format!("policies/{serial}.toml"), text));
    }
    Ok((draft.bytes(), files))
}

/// A file that comes beside the records, by its path in the network's directory.
pub(super) type Beside = (String, Vec<u8>);

impl Draft {
    /// Signs a policy's body and takes it in.
    pub(super) fn add_policy(&mut self, signer: &SigningSecret, body: &[u8]) -> Result<()> {
        let serial = self.registry.next_serial(&Slot::POLICY);
        let network = self.registry.network();
        let mut out = vec![0; RecordKind::POLICY.max_bytes()];
        let kind = RecordKind::POLICY;
        let (version, _) = Policy::decode_versioned(body).map_err(|error| {
            Error::input(
                format!("the policy is not one: {error}"),
                "Publish it anew from its text.",
            )
        })?;
        let bytes = records::sign_body(signer, network, kind, version, body, serial, &mut out)
            .map_err(|error| {
                Error::input(
                    format!("the policy would be too large: {error}"),
                    "Put those with the same rights into groups.",
                )
            })?;
        self.take(bytes, "sign the policy")
    }

    /// The record of the policy in force, to be given to [`Draft::keep_in_force`] after a change
    /// that may end its signer's right.
    pub(super) fn policy_record(&self) -> Option<Vec<u8>> {
        self.registry.policy()?;
        self.registry.bytes(&Slot::POLICY).map(<[u8]>::to_vec)
    }

    /// Signs the policy that was in force `before` anew with an owner's key, if the change took it
    /// out of force: without one nothing is allowed, and ending a key would cut the network off.
    ///
    /// If the key that ended was a thief's, the policy may be its work. It is still what every node
    /// obeys at that moment, so that signing it anew gives the thief nothing; and which of the
    /// policies before it was the last that the owners wanted, only they can say. Whoever asked for
    /// the change is told, with the serial to go back to. One that was out of force before stays so.
    pub(super) fn keep_in_force(
        &mut self,
        owner: &SigningSecret,
        before: Option<&[u8]>,
    ) -> Result<()> {
        match before {
            Some(bytes) if self.registry.policy().is_none() => self.again(owner, bytes),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;
    use crate::network::{Created, Grade, Invited, IssuerWish, Target};
    use crate::sealed::Passphrase;
    use crate::secrets;
    use altnet_wire::record::{Revocation, RevocationTarget, Roles};
    use std::time::Duration;

    const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

    fn network(dir: &Path) -> Created {
        let passphrase = Passphrase::new("pass").unwrap().with_less_work(2);
        let name = "home".parse().unwrap();
        Network::create(&Home::at(dir), &name, &passphrase, NOW).unwrap()
    }

    #[test]
    fn a_thiefs_policy_is_kept_until_the_owner_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let made = network(dir.path());
        let (mut network, secrets) = (made.network, made.secrets);
        let (first, thief) = (network.policy().unwrap(), secrets::generate().unwrap());
        let wish = IssuerWish {
            name: "server".parse().unwrap(),
            key: thief.public(),
            rights: Rights::POLICY,
            roles: Roles::empty(),
            site: None,
            lasts: Duration::from_secs(86_400),
        };
        network.add_issuer(&secrets, &wish, NOW).unwrap();
        let mut theirs = first.draft.clone();
        theirs.rules.clear();
        let body = theirs.encode().unwrap();
        let signed = network.change(NOW, |draft| draft.add_policy(&thief, &body));
        signed.unwrap();
        assert_eq!(network.policy().unwrap().signer, thief.public());
        let target = Target::Issuer(thief.public());
        let revoked = network.revoke(&secrets, &target, Invited::Keep, "stolen", NOW);
        revoked.unwrap();
        let kept = network.policy().unwrap();
        assert_eq!((kept.serial, kept.draft), (3, theirs));
        assert!(network.registry.owners().contains(&kept.signer));
        let head = network.registry.heads().next().unwrap().2;
        assert_eq!(head.policy_serial.0, 3);
        let last = network.policy_before(2, &thief.public());
        assert_eq!(last, Some(first.serial));
        network.revert_policy(&secrets, 1, NOW).unwrap();
        let back = network.policy().unwrap();
        assert_eq!((back.serial, back.draft), (4, first.draft));
        let serials: Vec<u64> = network
            .policy_history()
            .0
            .iter()
            .map(|p| p.serial)
            .collect();
        assert_eq!(serials, [4, 3, 2, 1]);
    }

    #[test]
    fn a_policy_that_stands_aside_is_told_and_not_brought_back_by_another_change() {
        let dir = tempfile::tempdir().unwrap();
        let made = network(dir.path());
        let (mut network, secrets) = (made.network, made.secrets);
        let owner = secrets.owners().into_iter().next().unwrap();
        let target = RevocationTarget::Issuer(network.settings.issuer);
        let body = Revocation {
            target,
            issued: NOW,
            reason: heapless::String::new(),
        };
        // As another computer would that knows of no policy.
        let slot = Slot::revocation(&target);
        let revoked = network.change(NOW, |draft| draft.add(&owner, &slot, &body, "revoke"));
        revoked.unwrap();
        assert!(network.policy().is_none() && network.policy_text().is_none());
        let checks = network.doctor(Some(&secrets), NOW);
        let check = checks.iter().find(|check| check.check == "policy").unwrap();
        assert_eq!(check.grade, Grade::Problem);
        assert!(
            check.message.contains("may not any more"),
            "{}",
            check.message
        );
        let changed = network.change(NOW, |draft| {
            let policy = draft.policy_record();
            draft.keep_in_force(&owner, policy.as_deref())
        });
        changed.unwrap();
        assert!(network.policy().is_none());
        // What was in force can still be looked at.
        let (history, damaged) = network.policy_history();
        assert_eq!(
            (history.len(), history[0].in_force, damaged.len()),
            (1, false, 0)
        );
        assert_eq!(network.old_policy(1).unwrap().1, STARTER);
    }
}
