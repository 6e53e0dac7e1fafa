//! `altnet-provision revoke`, and what stays in force when a key ends.

use std::collections::BTreeMap;

use altnet_core::registry::Slot;
use altnet_provision::network::{Invited, Network, PolicyInForce, Target};
use altnet_provision::{Error, Result};
use altnet_wire::id::SigningKey;
use serde_json::json;

use super::Session;
use crate::ask;
use crate::cli::RevokeArgs;
use crate::say::Report;

pub fn act(session: &Session<'_>, args: &RevokeArgs) -> Result<Report> {
    let target = match (&args.member, args.device, args.issuer) {
        (_, Some(key), _) => Target::Device(key),
        (_, _, Some(key)) => Target::Issuer(key),
        (Some(member), None, None) => Target::Member(member.clone()),
        (None, None, None) => {
            return Err(Error::Input {
                what: "it was not said what to revoke".into(),
                next: "Name a member, or give --device or --issuer.".into(),
            });
        }
    };
    let (mut network, secrets) = match target {
        Target::Issuer(_) => session.unlock_in_step()?,
        _ => session.unlock_to_change()?,
    };
    let before = Before::of(&network);
    let brought = network.invited_by(&target, session.now)?;
    let names: Vec<&str> = brought.iter().map(|m| m.name.as_str()).collect();
    let invited = if args.with_invited {
        Invited::Revoke
    } else if args.yes {
        Invited::Keep
    } else if !names.is_empty() && ask::is_attended() {
        match ask::consent(&format!(
            "It invited {}. Revoke them too?",
            names.join(", ")
        )) {
            true => Invited::Revoke,
            false => Invited::Keep,
        }
    } else {
        Invited::Ask
    };
    let done = network.revoke(&secrets, &target, invited, &args.reason, session.now)?;
    let mut text = format!("Revoked for good: {}.", done.revoked.join(", "));
    for (what, which) in [
        ("\nIts issuer key went with it: ", &done.issuers),
        ("\nOpen invites taken back: ", &done.invites),
        ("\nKept, though it invited them: ", &done.kept),
    ] {
        if !which.is_empty() && *which != done.revoked {
            text.push_str(what);
            text.push_str(&which.join(", "));
            text.push('.');
        }
    }
    let report = told_anew(Report::new(text, &done), &network, &before);
    let report = session.publish(report, &mut network, &secrets);
    Ok(Session::advise(report, &network))
}

/// Who had signed what, before a change that may end a key.
pub struct Before {
    revocations: BTreeMap<Slot, SigningKey>,
    policy: Option<PolicyInForce>,
}

impl Before {
    pub fn of(network: &Network) -> Self {
        Self {
            revocations: network.revocations_by(),
            policy: network.policy(),
        }
    }
}

/// Says what stays in force because an owner signed it anew: what a thief revoked is among it, and
/// the policy may be its work.
pub fn told_anew(report: Report, network: &Network, before: &Before) -> Report {
    let anew = network.revocations_signed_anew(&before.revocations);
    let report = told_policy(report, network, before);
    let report = report.with("revocations_signed_anew", &anew);
    if anew.is_empty() {
        return report;
    }
    report.note(format!(
        "Revocations that the removed key had signed stay in force: {}. Invite again whom nobody meant to revoke.",
        anew.join(", ")
    ))
}

/// Says so if the policy in force was signed anew, and how to go back.
pub fn told_policy(report: Report, network: &Network, before: &Before) -> Report {
    let (Some(was), Some(is)) = (&before.policy, network.policy()) else {
        return report;
    };
    if was.signer == is.signer {
        return report;
    }
    let other = network.policy_before(was.serial, &was.signer);
    let back = match other {
        Some(serial) => format!(
            "`altnet-provision policy revert {serial}` goes back to the last one that another key had signed."
        ),
        None => "`altnet-provision policy history` lists those that can be gone back to.".into(),
    };
    let value = json!({ "was": was.serial, "is": is.serial, "last_by_another": other });
    report.with("policy_signed_anew", &value).note(format!(
        "The policy that {} had signed stays in force, signed anew as {}, so that nothing is cut off. If that key was stolen, look at it with `altnet-provision policy show`; {back}",
        was.signer, is.serial
    ))
}
