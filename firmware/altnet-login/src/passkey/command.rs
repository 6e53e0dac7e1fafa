//! `altnet-login passkey`: what is there, and taking one away.

use std::io::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Origin, Passkey, Passkeys};
use crate::state;

/// What the command line can do with passkeys.
#[derive(Debug, Subcommand)]
pub enum PasskeyCommand {
    /// The passkeys that people added.
    List,
    /// Remove a passkey: who logged in with it is out within a minute.
    Remove {
        /// Its id in the list.
        id: String,
    },
}

/// Does what `command` says and writes to `out`.
///
/// # Errors
/// Texts that say what happened and what to do next.
pub fn run(
    command: &PasskeyCommand,
    passkeys: &Passkeys,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match command {
        PasskeyCommand::List => {
            let origins = passkeys.list()?;
            let all = origins.iter();
            let all = all.flat_map(|origin| origin.passkeys.iter().map(move |p| (origin, p)));
            if json {
                let all: Vec<Value> = all.map(|(origin, p)| describe(origin, p)).collect();
                let value = json!({ "passkeys": all });
                writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
                return Ok(());
            }
            let mut is_first = true;
            for (origin, passkey) in all {
                if std::mem::take(&mut is_first) {
                    writeln!(
                        out,
                        "{:<9} {:<24} {:<24} {:<10} {:<10} KIND",
                        "ID", "WHO", "FROM", "ADDED", "USED"
                    )?;
                }
                writeln!(
                    out,
                    "{:<9} {:<24} {:<24} {:<10} {:<10} {}",
                    passkey.name,
                    origin.who,
                    origin.holder.how,
                    ago(passkey.made),
                    ago(passkey.used),
                    kind(passkey)
                )?;
            }
            if is_first {
                writeln!(out, "There are no passkeys; people add them on the page.")?;
            }
        }
        PasskeyCommand::Remove { id } => {
            passkeys.remove(id, None)?;
            if json {
                writeln!(out, "{}", json!({ "removed": id }))?;
            } else {
                writeln!(
                    out,
                    "{id} is removed; who logged in with it is out within a minute"
                )?;
            }
        }
    }
    Ok(())
}

fn describe(origin: &Origin, passkey: &Passkey) -> Value {
    json!({
        "id": passkey.name, "who": origin.who, "how": origin.holder.how,
        "subject": origin.holder.subject, "made": passkey.made, "used": passkey.used,
        "synced": passkey.is_synced, "ends": origin.expires,
    })
}

/// Whether a passkey is on one device.
pub fn kind(passkey: &Passkey) -> &'static str {
    match passkey.is_synced {
        true => "synced",
        false => "on one device",
    }
}

/// How long ago `time` was, in seconds since 1970, for people.
pub fn ago(time: u64) -> String {
    let minutes = state::now().saturating_sub(time) / 60;
    match minutes {
        0 => "just now".into(),
        1..60 => format!("{minutes} min ago"),
        60..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} d ago", minutes / 1440),
    }
}
