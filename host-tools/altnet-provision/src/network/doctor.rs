//! What is well with a network's files here, and what the network lacks.

use std::os::unix::fs::MetadataExt;

use altnet_core::registry::Slot;
use altnet_wire::envelope::Envelope;
use altnet_wire::record::Roles;
use altnet_wire::time::UnixTime;
use serde::Serialize;

use super::{MAKE_RELAY, NEEDS_RELAY, Network, RECORDS_DIR, SETTINGS_FILE};
use crate::secrets::{self, Secrets};
use crate::text;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// As it should be.
    Ok,
    /// Works, or will, but something is missing.
    Warning,
    /// Does not work.
    Problem,
}

/// One finding. The field names are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// A short stable word.
    pub check: &'static str,
    /// How grave it is.
    pub grade: Grade,
    /// One sentence.
    pub message: String,
    /// What to do, if anything.
    pub next: Option<String>,
}

fn check(check: &'static str, grade: Grade, message: impl Into<String>) -> Check {
    Check {
        check,
        grade,
        message: message.into(),
        next: None,
    }
}

impl Check {
    fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl Network {
    /// Looks at everything. That the network opened says that its settings and records are
    /// whole; with `secrets` the keys are looked at too.
    pub fn doctor(&self, secrets: Option<&Secrets>, now: UnixTime) -> Vec<Check> {
        let held = self.registry.iter().count();
        let files = format!("{held} records and the settings are whole");
        let mut checks = vec![check("files", Grade::Ok, files), self.check_modes()];
        checks.push(self.check_keys(secrets));
        checks.push(self.check_issuer(now));
        checks.push(self.check_policy());
        checks.push(self.check_relay());
        checks.push(self.check_admission(now));
        checks.push(self.check_members(now));
        checks.extend(self.check_tls(secrets, now));
        checks.push(self.check_pending());
        checks
    }

    fn check_modes(&self) -> Check {
        let paths = [
            self.dir.clone(),
            self.dir.join(SETTINGS_FILE),
            self.dir.join(RECORDS_DIR),
            self.dir.join(secrets::FILE),
        ];
        for path in paths {
            let mode = match std::fs::metadata(&path) {
                Ok(metadata) => metadata.mode(),
                Err(error) => {
                    let message = format!("{} cannot be looked at: {error}", path.display());
                    return check("permissions", Grade::Problem, message)
                        .next("Bring it back from a backup.");
                }
            };
            if mode & 0o077 != 0 {
                let message = format!("{} can be read by others", path.display());
                return check("permissions", Grade::Problem, message)
                    .next(format!("Run `chmod go= {}`.", path.display()));
            }
        }
        check("permissions", Grade::Ok, "only you can read the files")
    }

    fn check_keys(&self, secrets: Option<&Secrets>) -> Check {
        let Some(secrets) = secrets else {
            return check("keys", Grade::Warning, "the keys were not opened")
                .next("Give the passphrase to have them looked at.");
        };
        if secrets.issuer(&self.settings.issuer).is_none() {
            return check(
                "keys",
                Grade::Problem,
                "this computer's issuer key is missing",
            )
            .next("Restore a backup.");
        }
        let mut owners = self.registry.owners().iter();
        if owners.any(|key| secrets.owner(key).is_some()) {
            check(
                "keys",
                Grade::Ok,
                "the keys open and an owner's is among them",
            )
        } else {
            check(
                "keys",
                Grade::Warning,
                "the keys open but none is an owner's",
            )
            .next("Recover with `altnet-provision network owner recover` if that was yours.")
        }
    }

    fn check_issuer(&self, now: UnixTime) -> Check {
        match self.registry.issuer(&self.settings.issuer) {
            Some(certificate) if certificate.expires > now => check(
                "issuer",
                Grade::Ok,
                format!("this computer may sign until {}", certificate.expires),
            ),
            _ => check(
                "issuer",
                Grade::Problem,
                "this computer may not sign any more",
            )
            .next("Recover with `altnet-provision network owner recover`, or make a new key with `altnet-provision network owner key` and let a present owner add it."),
        }
    }

    fn check_policy(&self) -> Check {
        let Some(policy) = self.policy() else {
            let held = self.registry.bytes(&Slot::POLICY);
            let held = held.and_then(|bytes| Envelope::parse(bytes).ok());
            return match held {
                Some(held) => check(
                    "policy",
                    Grade::Problem,
                    format!(
                        "nothing is allowed: {} signed the policy and may not any more",
                        held.header().signer
                    ),
                )
                .next("Look at it with `altnet-provision policy history`, and sign one with `altnet-provision policy publish` or `policy revert SERIAL`."),
                None => check(
                    "policy",
                    Grade::Problem,
                    "nothing is allowed: the network has no policy, as far as is known here",
                )
                .next("Run `altnet-provision sync`; if there is none still, `altnet-provision policy publish` signs a first one."),
            };
        };
        let missing = crate::policy::missing(&policy.draft, &self.registry);
        if missing.is_empty() {
            let rules = text::count(policy.draft.rules.len(), "rule");
            let said = format!("policy {} is in force, with {rules}", policy.serial);
            return check("policy", Grade::Ok, said);
        }
        let said = format!("policy {}: {}", policy.serial, missing.join("; "));
        check("policy", Grade::Warning, said).next(
            "Rules that name them do nothing: change them with `altnet-provision policy edit`.",
        )
    }

    fn check_relay(&self) -> Check {
        let entries: Vec<_> = self.settings.reachable().filter(|e| e.relay).collect();
        let Some(first) = entries.first() else {
            return check("relay", Grade::Problem, "no reachable relay is known")
                .next(format!("{NEEDS_RELAY} {MAKE_RELAY}"));
        };
        if self.registry.with_roles(Roles::RELAY).next().is_none() {
            return check(
                "relay",
                Grade::Warning,
                format!("{} has not joined yet, as far as is known here", first.name),
            )
            .next("Start it with its first-boot file, then run `altnet-provision sync`.");
        }
        check(
            "relay",
            Grade::Ok,
            format!("{} is a reachable relay", first.name),
        )
    }

    fn check_admission(&self, now: UnixTime) -> Check {
        match self.admitting_issuer(Roles::empty(), now) {
            Ok(_) => check("admission", Grade::Ok, "a node may countersign invites"),
            Err(_) => check(
                "admission",
                Grade::Problem,
                "no node may countersign invites",
            )
            .next(MAKE_RELAY),
        }
    }

    fn check_members(&self, now: UnixTime) -> Check {
        let members = self.members(now);
        let ended: Vec<_> = members
            .iter()
            .filter(|member| member.expired)
            .map(|member| member.name.as_str())
            .collect();
        if ended.is_empty() {
            return check(
                "members",
                Grade::Ok,
                format!("members known: {}", members.len()),
            );
        }
        check(
            "members",
            Grade::Warning,
            format!("the membership known here of {} ended", ended.join(", ")),
        )
        .next("They renew by themselves while online: run `altnet-provision sync`.")
    }

    /// Says nothing where nobody uses TLS.
    fn check_tls(&self, secrets: Option<&Secrets>, now: UnixTime) -> Option<Check> {
        let health = self.tls_complaint(secrets, now);
        if !health.is_used {
            return None;
        }
        let warn = |said: String| check("tls", Grade::Warning, said);
        let sign = "Run `altnet-provision tls sign`.";
        if !health.has_authority {
            let said = format!(
                "{} asked for TLS and the network has no authority in force",
                health.waiting.join(", ")
            );
            return Some(warn(said).next("Make one with `altnet-provision tls create`; if its key is here, `altnet-provision tls sign` signs it anew."));
        }
        if health.is_ending {
            let said = "the network's authority for TLS ends soon".to_owned();
            return Some(warn(said).next("Make the next one with `altnet-provision tls create --replace`, and have every device trust it."));
        }
        if !health.refused.is_empty() {
            let said = format!(
                "what asks for TLS and can't have it: {}",
                health.refused.join(", ")
            );
            return Some(warn(said).next("`altnet-provision tls list` says why."));
        }
        let due: Vec<_> = health
            .waiting
            .iter()
            .chain(&health.ending)
            .cloned()
            .collect();
        if due.is_empty() {
            return Some(check(
                "tls",
                Grade::Ok,
                "every certificate lasts 60 days or more",
            ));
        }
        let said = match health.waiting.is_empty() {
            true => format!("certificates that end within 60 days: {}", due.join(", ")),
            false => format!("what waits for a certificate: {}", due.join(", ")),
        };
        Some(warn(said).next(match health.is_elsewhere {
            true => "Run `altnet-provision tls sign` on the computer that has the authority's key.",
            false => sign,
        }))
    }

    fn check_pending(&self) -> Check {
        match self.settings.pending() {
            0 => check("pending", Grade::Ok, "everything signed here was published"),
            pending => check(
                "pending",
                Grade::Warning,
                format!("records that wait to be published: {pending}"),
            )
            .next("Run `altnet-provision publish` when the network's directory can be reached."),
        }
    }
}
