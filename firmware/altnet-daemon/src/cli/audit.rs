//! `altnet audit`: what happened here, and whether anybody changed the record of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Session, table};
use crate::api::{Method, types};
use crate::audit::{Files, lines, read};

/// How often new entries are looked for.
const FOLLOW_STEP: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// The newest entries.
    Tail {
        /// How many.
        #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
        count: u64,
        /// Go on with new ones as they come, until interrupted.
        #[arg(short, long)]
        follow: bool,
    },
    /// Whether every entry is as it was written, and who vouches for it. Fails if not.
    Verify {
        /// A directory with the log's files, such as a copy of /var/lib/altnet/audit, rather than
        /// the running altnetd's.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
        /// A head that is known from elsewhere: what `altnet audit heads` shows on another member.
        #[arg(long, value_name = "ENTRY:HASH", value_parser = head)]
        head: Option<(u64, String)>,
    },
    /// All entries, for other programs.
    Export {
        /// One JSON object, or one syslog message (RFC 5424), a line.
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Only entries from this number or moment on (2026-11-18, or 2026-11-18T11:06:40Z).
        #[arg(long, value_name = "ENTRY|TIME", value_parser = since)]
        since: Option<Since>,
    },
    /// How far other members' logs had come when this node vouched for them.
    Heads,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// With everything that is needed to follow the chain of hashes.
    #[default]
    Jsonl,
    /// For a log collector.
    Syslog,
}

/// Where an export begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    Entry(u64),
    /// As entries say it, so that text compares as time does.
    Time(String),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Entry(number));
    }
    let time = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    let shape = "dddd-dd-ddTdd:dd:ddZ";
    let fits = time.len() == shape.len()
        && time.bytes().zip(shape.bytes()).all(|(c, s)| match s {
            b'd' => c.is_ascii_digit(),
            s => c == s,
        });
    if fits {
        Ok(Since::Time(time))
    } else {
        Err("write an entry's number, 2026-11-18, or 2026-11-18T11:06:40Z (UTC)".into())
    }
}

fn head(text: &str) -> Result<(u64, String), String> {
    let (sequence, hash) = text.split_once(':').ok_or("write ENTRY:HASH")?;
    let sequence = sequence.parse().map_err(|_| "the entry is a number")?;
    read::hash_of(hash).ok_or("the hash is 64 hexadecimal digits")?;
    Ok((sequence, hash.into()))
}

/// Does what needs no altnetd. Returns whether that was it.
pub fn offline(command: &AuditCommand, json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let AuditCommand::Verify {
        dir: Some(dir),
        head,
    } = command
    else {
        return Ok(false);
    };
    let unreadable = || format!("can't read the audit log in {}", dir.display());
    let files = Files::look(dir).with_context(unreadable)?;
    let none = files.segments().with_context(unreadable)?.is_empty();
    anyhow::ensure!(!none, "there is no audit log in {}", dir.display());
    let known = head
        .as_ref()
        .and_then(|(at, hash)| Some((*at, read::hash_of(hash)?)));
    let known: Vec<read::Known> = known.into_iter().collect();
    let found = read::verify(&files, &known, &BTreeMap::new()).with_context(unreadable)?;
    let value = serde_json::to_value(&found)?;
    conclude(&value, &found, json, out).map(|()| true)
}

/// Prints a verdict, and fails if it names a fault.
fn conclude(
    value: &Value,
    found: &types::AuditVerdict,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    if let Some(fault) = &found.fault {
        anyhow::bail!("the audit log is not as it was written: {fault}");
    }
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(value)?)?;
    } else {
        write!(out, "{}", table::audit_verdict(found))?;
    }
    Ok(())
}

/// Asks the local altnetd.
pub async fn ask<W: Write>(
    session: &mut Session<'_, W>,
    command: &AuditCommand,
) -> anyhow::Result<()> {
    match command {
        AuditCommand::Tail { count, follow } => tail(session, *count, *follow).await,
        AuditCommand::Verify { head, .. } => {
            let (sequence, hash) = head.clone().unzip();
            let known = types::AuditKnown { sequence, hash };
            let value: Value = session.client.call(Method::AuditVerify, &known).await?;
            let found: types::AuditVerdict = serde_json::from_value(value.clone())?;
            conclude(&value, &found, session.json, session.out)
        }
        AuditCommand::Export { format, since } => export(session, *format, since.as_ref()).await,
        AuditCommand::Heads => {
            let none = json!({});
            session
                .show(Method::AuditHeads, none, table::audit_heads)
                .await
        }
    }
}

async fn page<W: Write>(
    session: &mut Session<'_, W>,
    after: Option<u64>,
    last: Option<u64>,
) -> anyhow::Result<types::AuditPage> {
    let wanted = types::AuditRead { after, last };
    Ok(session.client.call(Method::AuditRead, &wanted).await?)
}

async fn tail<W: Write>(
    session: &mut Session<'_, W>,
    count: u64,
    follow: bool,
) -> anyhow::Result<()> {
    let (mut after, mut last) = (None, Some(count));
    loop {
        let page = page(session, after, last.take()).await?;
        for entry in &page.entries {
            let line = match session.json {
                true => lines::json(entry),
                false => table::audit_entry(entry),
            };
            writeln!(session.out, "{line}")?;
            after = Some(entry.sequence);
        }
        session.out.flush()?;
        if page.more {
            continue;
        }
        if !follow {
            return Ok(());
        }
        // With nothing there yet, all that comes is new.
        after = after.or(Some(0));
        tokio::time::sleep(FOLLOW_STEP).await;
    }
}

async fn export<W: Write>(
    session: &mut Session<'_, W>,
    format: Format,
    since: Option<&Since>,
) -> anyhow::Result<()> {
    let host = match format {
        Format::Syslog => {
            let none = json!({});
            let status: types::Status = session.client.call(Method::Status, &none).await?;
            status.node.network.map_or_else(String::new, |n| n.name)
        }
        Format::Jsonl => String::new(),
    };
    let mut after = match since {
        Some(Since::Entry(first)) => Some(first.saturating_sub(1)),
        _ => None,
    };
    loop {
        let page = page(session, after, None).await?;
        for entry in &page.entries {
            after = Some(entry.sequence);
            if matches!(since, Some(Since::Time(time)) if entry.time < *time) {
                continue;
            }
            let line = match format {
                Format::Jsonl => lines::json(entry),
                Format::Syslog => lines::syslog(entry, &host),
            };
            writeln!(session.out, "{line}")?;
        }
        if !page.more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arguments, run};
    use super::*;
    use crate::audit::tests::written;
    use clap::Parser as _;

    fn verify(line: &str) -> anyhow::Result<String> {
        let arguments = Arguments::try_parse_from(line.split(' '))?;
        let mut out = Vec::new();
        run(arguments, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn a_copied_directory_is_verified_without_altnetd() {
        let home = tempfile::tempdir().unwrap();
        let files = Files::make(home.path()).unwrap();
        let end = written(&files, 30).end();
        let dir = home.path().display();
        let said = verify(&format!("altnet audit verify --dir {dir}")).unwrap();
        assert!(said.contains("1 to 30"), "{said}");
        let hash = data_encoding::HEXLOWER.encode(&end.hash);
        let good = format!("altnet --json audit verify --dir {dir} --head 30:{hash}");
        assert!(verify(&good).unwrap().contains("\"fault\": null"));
        let cut = format!("altnet audit verify --dir {dir} --head 31:{hash}");
        let error = verify(&cut).unwrap_err().to_string();
        assert!(error.contains("the end was cut off"), "{error}");
        let mut bytes = files.read(1).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        files.append(1, 0, &bytes).unwrap();
        let error = verify(&format!("altnet audit verify --dir {dir}")).unwrap_err();
        assert!(error.to_string().contains("was changed"), "{error}");
        let error = verify("altnet audit verify --dir /nonexistent").unwrap_err();
        assert!(error.to_string().contains("can't read"), "{error}");
    }

    #[test]
    fn an_export_begins_at_an_entry_or_a_moment() {
        let time = |text: &str| Ok(Since::Time(text.into()));
        assert_eq!(since("12"), Ok(Since::Entry(12)));
        assert_eq!(since("2026-11-18"), time("2026-11-18T00:00:00Z"));
        assert_eq!(since("2026-11-18T11:06:40Z"), time("2026-11-18T11:06:40Z"));
        for wrong in ["", "yesterday", "2026-11-18T11:06:40+01:00", "2026/11/18"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
        assert!(head("3:00").is_err() && head("x").is_err());
    }
}
