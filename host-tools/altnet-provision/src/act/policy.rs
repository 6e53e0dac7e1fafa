//! `altnet-provision policy ...`.

use std::io::Read;
use std::path::Path;
use std::process::Command;

use altnet_provision::network::{Network, PolicyPublished, WorkingCopy};
use altnet_provision::policy::{Compiled, Faults, Plan, STARTER, compile};
use altnet_provision::secrets::Secrets;
use altnet_provision::{Error, Result, files, text};
use serde_json::json;

use super::Session;
use crate::ask;
use crate::cli::PolicyCommand;
use crate::say::{Report, or_dash, table};

/// Stands for standard input.
const STANDARD_INPUT: &str = "-";
/// The most that is read from there.
const MAX_INPUT_BYTES: u64 = 2 * 1024 * 1024;

pub fn act(session: &Session<'_>, command: PolicyCommand) -> Result<Report> {
    match command {
        PolicyCommand::Show { serial } => show(session, serial),
        PolicyCommand::Edit { yes } => edit(session, yes),
        PolicyCommand::Check { file } => check(session, file.as_deref()),
        PolicyCommand::Plan { file } => {
            let network = session.open()?;
            let text = Text::of(&network, file.as_deref())?.current()?;
            let compiled = text.compile(&network, session)?;
            let plan = plan(&network, &compiled)?;
            let report = Report::new(plan.text(), &plan).with("warnings", &compiled.warnings);
            Ok(warned(report, &compiled))
        }
        PolicyCommand::Publish { file, yes } => {
            let text = {
                // Faults are told before anybody types a passphrase.
                let network = session.open()?;
                let text = match first(&network, file.as_deref())? {
                    Some(text) => text,
                    None => Text::of(&network, file.as_deref())?.current()?,
                };
                text.compile(&network, session)?;
                text
            };
            publish(session, &text, yes)
        }
        PolicyCommand::History => history(session),
        PolicyCommand::Revert { serial, yes } => revert(session, serial, yes),
    }
}

/// The text of a policy, and what it is called.
struct Text {
    name: String,
    text: String,
    /// If it was published before, as what.
    behind: Option<u64>,
}

impl Text {
    fn of(network: &Network, file: Option<&Path>) -> Result<Self> {
        let given = |name: String, text: String| Self {
            name,
            text,
            behind: None,
        };
        let Some(file) = file else {
            return Self::working(network);
        };
        if file != Path::new(STANDARD_INPUT) {
            return Ok(given(file.display().to_string(), ask::text_of(file)?));
        }
        let mut text = String::new();
        let input = std::io::stdin().lock().take(MAX_INPUT_BYTES);
        let mut input = input;
        input
            .read_to_string(&mut text)
            .map_err(|error| Error::Input {
                what: format!("standard input does not read: {error}"),
                next: "Give a file of text.".into(),
            })?;
        Ok(given("standard input".into(), text))
    }

    /// The text in the network's directory.
    fn working(network: &Network) -> Result<Self> {
        let path = network.working_file();
        let (text, behind) = match network.working_copy()? {
            WorkingCopy::InForce(text) | WorkingCopy::Edited(text) => (text, None),
            WorkingCopy::Behind(text, serial) => (text, Some(serial)),
            WorkingCopy::Missing => {
                return Err(Error::NotFound {
                    what: format!("there is no {}", path.display()),
                    next: "Give a file, or make it with `altnet-provision policy edit`, which begins with what is in force.".into(),
                });
            }
        };
        Ok(Self {
            name: path.display().to_string(),
            text,
            behind,
        })
    }

    /// Refuses the text of an older policy: putting it in force by oversight would undo what
    /// another owner changed since.
    fn current(self) -> Result<Self> {
        match self.behind {
            None => Ok(self),
            Some(serial) => Err(Error::Input {
                what: format!(
                    "{} is policy {serial}, and another is in force since",
                    self.name
                ),
                next: format!(
                    "Begin with what is in force: `altnet-provision policy edit`; to go back, `altnet-provision policy revert {serial}`."
                ),
            }),
        }
    }

    fn compile(&self, network: &Network, session: &Session<'_>) -> Result<Compiled> {
        compile(&self.text, &self.name, network.registry(), session.now).map_err(Error::Policy)
    }
}

/// The text that a network without a policy begins with, if there is no other.
fn first(network: &Network, file: Option<&Path>) -> Result<Option<Text>> {
    let is_first = file.is_none()
        && network.policy().is_none()
        && network.working_copy()? == WorkingCopy::Missing;
    Ok(is_first.then(|| Text {
        name: network.working_file().display().to_string(),
        text: STARTER.into(),
        behind: None,
    }))
}

fn plan(network: &Network, compiled: &Compiled) -> Result<Plan> {
    let in_force = network.policy();
    let old = in_force.as_ref().map(|policy| &policy.draft);
    Plan::new(old, &compiled.draft, network.registry()).map_err(|error| Error::Input {
        what: format!("the policies can't be compared: {error}"),
        next: "Run `altnet-provision doctor`.".into(),
    })
}

fn warned(report: Report, compiled: &Compiled) -> Report {
    let warnings = compiled.warnings.iter();
    warnings.fold(report, |report, warning| {
        report.note(format!(
            "Note: {warning}; until then such a rule does nothing."
        ))
    })
}

fn show(session: &Session<'_>, serial: Option<u64>) -> Result<Report> {
    let network = session.open()?;
    let in_force = network.policy();
    let (history, _) = network.policy_history();
    let current = in_force.as_ref().map(|policy| policy.serial);
    let Some(serial) = serial.or(current) else {
        return Err(Error::NotFound {
            what: "no policy is in force here, so nothing is allowed".into(),
            next: "Run `altnet-provision doctor`, which says why; `altnet-provision policy history` lists those that were.".into(),
        });
    };
    let text = match Some(serial) == current {
        true => network.policy_text().unwrap_or_default(),
        false => network.old_policy(serial)?.1,
    };
    let summary = history.iter().find(|one| one.serial == serial);
    let report = match summary {
        Some(summary) => Report::new(&text, summary)
            .with("text", &text)
            .note(format!(
                "Policy {serial}, {}, signed by {} at {}.",
                if summary.in_force {
                    "in force"
                } else {
                    "not in force"
                },
                summary
                    .signer_name
                    .clone()
                    .unwrap_or_else(|| summary.signer.to_string()),
                summary.issued
            )),
        None => Report::new(&text, &json!({ "serial": serial, "text": text })),
    };
    Ok(report)
}

fn check(session: &Session<'_>, file: Option<&Path>) -> Result<Report> {
    let network = session.open()?;
    let text = Text::of(&network, file)?;
    match text.compile(&network, session) {
        Ok(compiled) => {
            let rules = compiled.draft.rules.len();
            let said = format!(
                "{} is in order: {}, {} of {} bytes.",
                text.name,
                text::count(rules, "rule"),
                compiled.body.len(),
                altnet_wire::envelope::MAX_POLICY_BYTES
            );
            let value = json!({
                "valid": true,
                "file": text.name,
                "rules": rules,
                "bytes": compiled.body.len(),
                "warnings": compiled.warnings,
                "faults": [],
            });
            Ok(warned(Report::new(said, &value), &compiled))
        }
        Err(Error::Policy(faults)) => {
            let report = Report::new(in_lines(&faults), &faults).with("valid", &false);
            Ok(report.failing())
        }
        Err(error) => Err(error),
    }
}

/// Every fault with its place, the text there and what to do.
fn in_lines(faults: &Faults) -> String {
    let mut text = String::new();
    for fault in &faults.faults {
        text.push_str(&format!(
            "{}:{}:{}: {}\n",
            faults.file, fault.line, fault.column, fault.message
        ));
        if !fault.text.is_empty() {
            text.push_str(&format!("    {}\n", fault.text));
        }
        text.push_str(&format!("    {}\n", fault.next));
    }
    text
}

/// Shows the plan and asks, unless nothing changes or it was agreed to before. Returns whether it
/// was shown.
fn confirm(session: &Session<'_>, plan: &Plan, yes: bool) -> Result<bool> {
    if yes || !plan.changes {
        return Ok(false);
    }
    if ask::is_attended() && !session.global.json {
        eprint!("{}", plan.text());
        if ask::consent("Put it in force?") {
            return Ok(true);
        }
    }
    Err(Error::NeedsConsent {
        what: "nobody agreed to put it in force, so nothing was signed".into(),
        next: "See what it changes with `altnet-provision policy plan`; --yes agrees to it.".into(),
    })
}

fn publish(session: &Session<'_>, text: &Text, yes: bool) -> Result<Report> {
    let (mut network, secrets) = session.unlock_to_change()?;
    let compiled = text.compile(&network, session)?;
    let plan = plan(&network, &compiled)?;
    let is_shown = confirm(session, &plan, yes)?;
    let done = network.publish_policy(&secrets, &text.text, &compiled, session.now)?;
    let report = warned(told(&network, &done, &plan, is_shown), &compiled);
    let report = report.with("warnings", &compiled.warnings);
    Ok(handed_on(session, report, &mut network, &secrets, &done))
}

fn told(network: &Network, done: &PolicyPublished, plan: &Plan, is_shown: bool) -> Report {
    let shown = if is_shown { String::new() } else { plan.text() };
    let rules = text::count(done.rules, "rule");
    let said = match done.changed {
        true => format!("{shown}Policy {} is signed, with {rules}.", done.serial),
        false => format!("Policy {}, which is in force, says the same.", done.serial),
    };
    let report = Report::new(said, done)
        .with("plan", plan)
        .with("file", &network.working_file());
    match &done.put_aside {
        Some(path) => report.note(format!(
            "Changes that were never published are in {} now.",
            path.display()
        )),
        None => report,
    }
}

fn handed_on(
    session: &Session<'_>,
    report: Report,
    network: &mut Network,
    secrets: &Secrets,
    done: &PolicyPublished,
) -> Report {
    match done.changed {
        true => session.publish(report, network, secrets),
        false => report,
    }
}

fn history(session: &Session<'_>) -> Result<Report> {
    let network = session.open()?;
    let (policies, damaged) = network.policy_history();
    let rows: Vec<_> = policies
        .iter()
        .map(|one| {
            vec![
                one.serial.to_string(),
                one.issued.clone(),
                one.rules.to_string(),
                if one.in_force { "in force" } else { "-" }.into(),
                one.signer_name
                    .clone()
                    .unwrap_or_else(|| one.signer.to_string()),
            ]
        })
        .collect();
    let text = table(&["SERIAL", "SIGNED", "RULES", "STATE", "SIGNER"], &rows);
    let value = json!({ "policies": policies, "damaged": damaged });
    let report = Report::new(text, &value);
    Ok(damaged.iter().fold(report, |report, path| {
        report.note(format!(
            "{path} is damaged, so that policy can't be gone back to."
        ))
    }))
}

fn revert(session: &Session<'_>, serial: u64, yes: bool) -> Result<Report> {
    let (mut network, secrets) = session.unlock_to_change()?;
    let (draft, _) = network.old_policy(serial)?;
    let in_force = network.policy();
    let old = in_force.as_ref().map(|policy| &policy.draft);
    let plan = Plan::new(old, &draft, network.registry()).map_err(|error| Error::Input {
        what: format!("policy {serial} can't be put to work: {error}"),
        next: "Choose another one from `altnet-provision policy history`.".into(),
    })?;
    let is_shown = confirm(session, &plan, yes)?;
    let done = network.revert_policy(&secrets, serial, session.now)?;
    let report = told(&network, &done, &plan, is_shown).with("reverted_to", &serial);
    Ok(handed_on(session, report, &mut network, &secrets, &done))
}

fn edit(session: &Session<'_>, yes: bool) -> Result<Report> {
    let (path, begun) = {
        let network = session.open()?;
        let path = network.edited_file();
        let begun = match path.exists() {
            true => None,
            false => Some(match network.working_copy()? {
                WorkingCopy::InForce(text) | WorkingCopy::Edited(text) => text,
                // What another owner signed since is what there is to change.
                WorkingCopy::Behind(..) | WorkingCopy::Missing => {
                    network.policy_text().unwrap_or_else(|| STARTER.into())
                }
            }),
        };
        if let Some(text) = &begun {
            files::write(&path, text.as_bytes())?;
        }
        (path, begun)
    };
    if begun.is_none() && !session.global.json {
        eprintln!("Going on with the text that was edited before and not put in force.");
    }
    let text = loop {
        // Nobody else waits while a person thinks: the network is open only in between.
        run_editor(&path)?;
        let network = session.open()?;
        let text = Text {
            name: path.display().to_string(),
            text: ask::text_of(&path)?,
            behind: None,
        };
        let compiled = match text.compile(&network, session) {
            Ok(compiled) => compiled,
            Err(Error::Policy(faults)) => {
                eprint!("{}", in_lines(&faults));
                if ask::consent("Edit it again?") {
                    continue;
                }
                if !session.global.json {
                    eprintln!("The text waits: `altnet-provision policy edit` goes on with it.");
                }
                return Err(Error::Policy(faults));
            }
            Err(error) => return Err(error),
        };
        let is_same = begun.as_ref() == Some(&text.text);
        if is_same && !plan(&network, &compiled)?.changes {
            done_with(&path);
            let value = json!({ "changed": false });
            return Ok(Report::new("Nothing was changed.", &value));
        }
        break text;
    };
    let report = publish(session, &text, yes).map_err(|error| match error {
        Error::NeedsConsent { what, .. } => Error::NeedsConsent {
            what,
            next: format!(
                "The text waits in {}: `altnet-provision policy edit` goes on with it, and with --yes doesn't ask.",
                path.display()
            ),
        },
        other => other,
    })?;
    done_with(&path);
    Ok(report)
}

fn done_with(path: &Path) {
    // What is left behind only means that the next edit begins with it.
    let _ = std::fs::remove_file(path);
}

/// Runs the person's editor as git does: the variable may have options.
fn run_editor(path: &Path) -> Result<()> {
    let variable = |name| {
        std::env::var(name)
            .ok()
            .filter(|value| !value.trim().is_empty())
    };
    let editor = variable("VISUAL").or_else(|| variable("EDITOR"));
    let editor = editor.unwrap_or_else(|| "vi".into());
    let status = Command::new("sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(path)
        .status();
    let failed = match status {
        Ok(status) if status.success() => return Ok(()),
        Ok(status) => or_dash(status.code()),
        Err(error) => error.to_string(),
    };
    Err(Error::Input {
        what: format!("the editor `{editor}` failed ({failed}), so nothing was signed"),
        next: format!(
            "Set EDITOR to one that is there; or edit a file and run `altnet-provision policy publish FILE`. The text is in {}.",
            path.display()
        ),
    })
}
