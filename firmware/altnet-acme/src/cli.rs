//! `altnet-acme`: keeps a certificate, gets one now, and says how things are.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, DEFAULT_PATH};
use crate::http::Client;
use crate::leaf::Leaf;
use crate::log::{self, Level};
use crate::privileges::{self, CapabilitySet, User};
use crate::serve::{Keeper, date, now_s};
use crate::store::Store;
use crate::when::Next;

/// Gets a certificate for a relay from an authority, and renews it (ACME, with tls-alpn-01).
#[derive(Debug, Parser)]
#[command(name = "altnet-acme", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep a certificate: a service of its own beside the relay.
    Run {
        /// Run as this user, whose the folder becomes.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// How much is logged.
        #[arg(long, value_name = "LEVEL", default_value = "info")]
        log: Level,
    },
    /// Get a certificate now, due or not. `run` may go on meanwhile; an authority counts what it is asked.
    Renew,
    /// Say which certificate there is, until when it is good, and what went wrong.
    Status,
    /// Check the configuration.
    Check,
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command line of this process. Says what went wrong on standard error and returns 1 if
/// something did.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments, &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            if arguments.json {
                let error = json!({ "code": "failed", "message": format!("{e:#}") });
                println!("{}", json!({ "error": error }));
            }
            eprintln!("altnet-acme: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what `arguments` say and writes to `out`.
///
/// # Errors
/// Texts that say what happened and what to do next.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    if let Command::Completion { shell } = &arguments.command {
        clap_complete::generate(*shell, &mut Arguments::command(), "altnet-acme", out);
        return Ok(());
    }
    let config = Config::load(&arguments.config)?;
    match &arguments.command {
        Command::Run { user, log } => {
            log::set_level(*log);
            keep(&config, user.as_deref())
        }
        Command::Renew => {
            log::set_level(Level::Warn);
            renew(&config, arguments.json, out)
        }
        Command::Status => status(&config, arguments.json, out),
        Command::Check | Command::Completion { .. } => {
            Client::new(config.ca.as_deref())?;
            let names = config.names.join(", ");
            match arguments.json {
                true => writeln!(
                    out,
                    "{}",
                    json!({ "names": config.names, "directory": config.directory })
                )?,
                false => writeln!(
                    out,
                    "The configuration is good: a certificate for {names} by {}.",
                    config.directory
                )?,
            }
            Ok(())
        }
    }
}

/// Opens the folder, gives privileges up, and keeps the certificate until it is told to end.
fn keep(config: &Config, user: Option<&str>) -> anyhow::Result<()> {
    let user = user.map(privileges::find_user).transpose()?;
    let group = config.group.as_deref();
    let group = group.map(|name| {
        let found = privileges::find_group(name);
        found.with_context(|| {
            format!("there is no group {name:?}; add it, or name another as `group`")
        })
    });
    let store = Store::open(&config.folder, user.as_ref(), group.transpose()?)?;
    let keeper = Keeper::new(config, &store)?;
    confine(user.as_ref())?;
    block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't take over signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't take over signals")?;
        let names = config.names.join(", ");
        crate::info!(
            "keeps a certificate for {names} in {}",
            config.folder.display()
        );
        tokio::select! {
            // What is under way is dropped, and takes its answers away.
            () = keeper.run() => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}

fn renew(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let store = open(config)?;
    let keeper = Keeper::new(config, &store)?;
    // As whoever the folder is of, who must be able to read what is written now.
    let owner = store.owner()?;
    let is_root = User::own().user == 0;
    confine(Some(&owner).filter(|_| is_root))?;
    let lock = store.wait_for_lock()?;
    let held = keeper.held()?;
    let leaf = block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't take over signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't take over signals")?;
        tokio::select! {
            got = keeper.get(held, &lock) => got.map_err(anyhow::Error::new),
            _ = terminate.recv() => Err(anyhow::anyhow!("ended before there was a certificate")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("ended before there was a certificate")),
        }
    })?;
    match json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&described(&leaf))?)?,
        false => {
            let (names, until) = (leaf.names.join(", "), date(leaf.not_after_s));
            writeln!(
                out,
                "There is a new certificate for {names}, good until {until}."
            )?;
        }
    }
    Ok(())
}

fn open(config: &Config) -> anyhow::Result<Store> {
    let opened = Store::at(&config.folder);
    opened.context("`altnet-acme run` makes the folder when it is first started")
}

/// Gives up what isn't needed; its memory, which has keys, isn't for others.
fn confine(user: Option<&User>) -> anyhow::Result<()> {
    privileges::drop_to(user, CapabilitySet::empty())?;
    let hidden = rustix::process::DumpableBehavior::NotDumpable;
    rustix::process::set_dumpable_behavior(hidden).context("can't hide this process's memory")
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build();
    let runtime = runtime.context("can't start the event loop")?;
    let done = runtime.block_on(work);
    // A name that is being looked up takes its time, which nobody waits for.
    runtime.shutdown_background();
    done
}

fn described(leaf: &Leaf) -> serde_json::Value {
    json!({
        "names": leaf.names, "issuer": leaf.issuer, "sha256": leaf.hash,
        "not_before": date(leaf.not_before_s), "not_before_s": leaf.not_before_s,
        "not_after": date(leaf.not_after_s), "not_after_s": leaf.not_after_s,
    })
}

fn status(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let store = open(config)?;
    let keeper = Keeper::new(config, &store)?;
    let held = keeper.held()?;
    let now_s = now_s();
    let good = held.leaf.as_ref().filter(|leaf| leaf.is_good(now_s));
    let (is_good, is_asked_for) = (
        good.is_some(),
        good.is_some_and(|leaf| leaf.is_for(&config.names)),
    );
    let plan = &held.plan;
    let renews_s = held.leaf.as_ref().map(|leaf| plan.renews_s(leaf));
    let paused_s = Some(plan.free_s(now_s)).filter(|until_s| *until_s > now_s);
    if json {
        let value = json!({
            "folder": config.folder, "names": config.names, "directory": config.directory,
            "is_good": is_good, "is_for_names": is_asked_for,
            "certificate": held.leaf.as_ref().map(described),
            "renews": renews_s.map(date), "renews_s": renews_s,
            "failures": plan.failures, "why": plan.why,
            "not_asked_before": paused_s.map(date), "not_asked_before_s": paused_s,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
        return Ok(());
    }
    match &held.leaf {
        None => writeln!(
            out,
            "There is no certificate for {} yet.",
            config.names.join(", ")
        )?,
        Some(leaf) => {
            let by = leaf.issuer.as_deref().unwrap_or("an unnamed authority");
            let is = if is_good { "good" } else { "NOT GOOD NOW, but" };
            writeln!(
                out,
                "The certificate for {} by {by} is {is} from {} to {}.",
                leaf.names.join(", "),
                date(leaf.not_before_s),
                date(leaf.not_after_s)
            )?;
            if !leaf.is_for(&config.names) {
                writeln!(
                    out,
                    "It isn't for what the configuration says: {}.",
                    config.names.join(", ")
                )?;
            }
            if let Some(renews_s) = renews_s.filter(|renews_s| *renews_s > now_s) {
                writeln!(
                    out,
                    "It is renewed at {}, or when the authority says.",
                    date(renews_s)
                )?;
            }
        }
    }
    if let Some(why) = &plan.why {
        writeln!(
            out,
            "Asking failed {} times; the last time: {why}",
            plan.failures
        )?;
    }
    if let Some(paused_s) = paused_s {
        writeln!(out, "The authority isn't asked before {}.", date(paused_s))?;
    }
    if matches!(keeper.next(&held), Next::Get) {
        writeln!(
            out,
            "A certificate is due; if none comes, is `altnet-acme run` running?"
        )?;
    }
    Ok(())
}
