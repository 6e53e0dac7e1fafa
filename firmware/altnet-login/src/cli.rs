//! `altnet-login`: serves the page, checks its configuration, and makes codes.

use std::io::{self, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{self, Api};
use crate::codes::{Code, Codes, MAX_USES, Order};
use crate::config::{self, Config, MAX_GROUPS, is_policy_name};
use crate::log::{self, Level};
use crate::passkey::command::{self as passkey, PasskeyCommand};
use crate::passkey::{Party, Passkeys};
use crate::privileges::{self, CapabilitySet};
use crate::sessions::Sessions;
use crate::source::{Directory, Source};
use crate::state::{self, State};
use crate::web::tls::network::Network;
use crate::web::{self, Listener, Site, tls};

/// The gateway's login page: a device without software is bound to a person for a time.
#[derive(Debug, Parser)]
#[command(name = "altnet-login", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// The configuration file. Without one, /etc/altnet/login.toml if it is there.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the page: a service of its own beside altnetd.
    Serve {
        /// Where altnetd listens.
        #[arg(long, value_name = "PATH", default_value = config::DEFAULT_SOCKET)]
        api: PathBuf,
        /// Run as this user once everything is open.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// How much is logged.
        #[arg(long, value_name = "LEVEL", default_value = "info")]
        log: Level,
    },
    /// Check the configuration and everything that it names.
    Check,
    /// Codes for people whom no directory knows.
    #[command(subcommand)]
    Code(CodeCommand),
    /// Passkeys that people added to log in with.
    #[command(subcommand)]
    Passkey(PasskeyCommand),
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum CodeCommand {
    /// Make a code. It is shown once.
    Create {
        /// The person that its devices count as.
        #[arg(long, value_parser = policy_name)]
        person: Option<String>,
        /// A group that they count in; may be given again.
        #[arg(long = "group", value_name = "GROUP", value_parser = policy_name, required_unless_present = "person")]
        groups: Vec<String>,
        /// How many devices may use it.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_USES)))]
        uses: u32,
        /// How long it is good, for logging in and for staying so.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=8784))]
        hours: u64,
    },
    /// The codes that haven't ended.
    List,
    /// Take a code back: who logged in with it is out within a minute.
    Revoke {
        /// Its id in the list.
        id: String,
    },
}

fn policy_name(text: &str) -> Result<String, String> {
    match is_policy_name(text) {
        true => Ok(text.into()),
        false => Err("a name of policy's has 1 to 63 of a-z, 0-9 and inner '-'".into()),
    }
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
            eprintln!("altnet-login: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Does what `arguments` say and writes to `out`.
///
/// # Errors
/// Texts that say what happened and what to do next.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "altnet-login", out);
            Ok(())
        }
        Command::Check => check(&load(arguments)?, arguments.json, out),
        Command::Code(command) => {
            let state = State::open(&load(arguments)?.state_directory)?;
            code(command, &Codes::new(state), arguments.json, out)
        }
        Command::Passkey(command) => {
            let state = State::open(&load(arguments)?.state_directory)?;
            passkey::run(command, &Passkeys::new(state), arguments.json, out)
        }
        Command::Serve { api, user, log } => {
            log::set_level(*log);
            serve(&load(arguments)?, api, user.as_deref())
        }
    }
}

fn load(arguments: &Arguments) -> Result<Config, config::ConfigError> {
    let default = Path::new(config::DEFAULT_PATH);
    match &arguments.config {
        Some(file) => Config::load(file),
        None if default.exists() => Config::load(default),
        None => Ok(Config::default()),
    }
}

/// Everything that the configuration names.
struct Opened {
    sources: Vec<Source>,
    party: Option<Party>,
    plain_tls: Option<Arc<rustls::ServerConfig>>,
    asking_tls: Option<Arc<rustls::ServerConfig>>,
    network: Arc<Network>,
}

fn open(config: &Config, state: State) -> Result<Opened, config::ConfigError> {
    let sources = Source::all(config, Codes::new(state))?;
    let network = Arc::new(Network::default());
    let tls = |asks| {
        let tls = config.tls.as_ref();
        tls.map(|tls| tls::server(tls, asks, &network)).transpose()
    };
    Ok(Opened {
        sources,
        party: Party::new(config)?,
        plain_tls: tls(false)?,
        asking_tls: tls(true)?,
        network,
    })
}

fn check(config: &Config, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let state = State::open(&config.state_directory)?;
    let opened = open(config, state)?;
    let redirect = |source: &Source| match &source.directory {
        Directory::Oidc(provider) => Some(provider.redirect().to_owned()),
        _ => None,
    };
    if json {
        let sources = opened.sources.iter();
        let sources: Vec<Value> = sources
            .map(|s| json!({ "how": s.how, "redirect_uri": redirect(s) }))
            .collect();
        writeln!(
            out,
            "{}",
            serde_json::to_string_pretty(&json!({ "directories": sources }))?
        )?;
        return Ok(());
    }
    writeln!(out, "The configuration is good. People can log in with:")?;
    for source in &opened.sources {
        writeln!(out, "  {}", source.how)?;
        if let Some(redirect) = redirect(source) {
            writeln!(out, "    which must know this redirect URI: {redirect}")?;
        }
    }
    Ok(())
}

fn code(
    command: &CodeCommand,
    codes: &Codes,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match command {
        CodeCommand::Create {
            person,
            groups,
            uses,
            hours,
        } => {
            anyhow::ensure!(
                groups.len() <= MAX_GROUPS,
                "a login is in at most {MAX_GROUPS} groups; name fewer"
            );
            let (shown, code) = codes.create(Order {
                person: person.clone(),
                groups: groups.clone(),
                uses: *uses,
                lasts: Duration::from_secs(hours * 3600),
            })?;
            if json {
                let mut value = describe(&code);
                value["code"] = shown.as_str().into();
                writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
            } else {
                writeln!(out, "{}", *shown)?;
                let id = &code.id;
                writeln!(out, "Write it down: it is not shown again. Its id is {id}.")?;
            }
        }
        CodeCommand::List => {
            let codes = codes.list()?;
            if json {
                let codes: Vec<Value> = codes.iter().map(describe).collect();
                let value = json!({ "codes": codes });
                writeln!(out, "{}", serde_json::to_string_pretty(&value)?)?;
                return Ok(());
            }
            if codes.is_empty() {
                writeln!(
                    out,
                    "There are no codes; `altnet-login code create` makes one."
                )?;
                return Ok(());
            }
            writeln!(
                out,
                "{:<9} {:<16} {:<24} {:<9} ENDS IN",
                "ID", "PERSON", "GROUPS", "USED"
            )?;
            for code in codes {
                let used = format!("{}/{}", code.used_by.len(), code.uses);
                let hours = code.ends.saturating_sub(state::now()).div_ceil(3600);
                let (person, groups) =
                    (code.person.as_deref().unwrap_or("-"), code.groups.join(","));
                writeln!(
                    out,
                    "{:<9} {person:<16} {groups:<24} {used:<9} {hours} h",
                    code.id
                )?;
            }
        }
        CodeCommand::Revoke { id } => {
            codes.revoke(id)?;
            if json {
                writeln!(out, "{}", json!({ "revoked": id }))?;
            } else {
                writeln!(
                    out,
                    "{id} is revoked; who logged in with it is out within a minute"
                )?;
            }
        }
    }
    Ok(())
}

fn describe(code: &Code) -> Value {
    json!({
        "id": code.id, "person": code.person, "groups": code.groups, "uses": code.uses,
        "used": code.used_by.len(), "made": code.made, "ends": code.ends,
    })
}

/// Opens everything that takes privileges, gives them up, and serves until altnetd goes.
fn serve(config: &Config, socket: &Path, user: Option<&str>) -> anyhow::Result<()> {
    let user = user.map(privileges::find_user).transpose()?;
    let state = State::open(&config.state_directory)?;
    let opened = open(config, state.clone())?;
    let listeners = listen(config, &opened)?;
    let _serving = state.lock("serving")?;
    if let Some(user) = &user {
        let given = state.give_to(user.user, user.group);
        given.context("can't give the state directory to the user")?;
    }
    privileges::drop_to(user.as_ref(), CapabilitySet::empty())?;
    // Not before: altnetd goes by who somebody is when they connect.
    let stream = api::connect(socket)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the event loop")?;
    let sources = opened.sources.into_iter().map(Arc::new).collect();
    runtime.block_on(async {
        let (api, talk) = Api::start(stream).context("can't talk to altnetd")?;
        let grace = Duration::from_secs(60 * u64::from(config.grace_minutes));
        if config.tls.as_ref().is_some_and(|tls| tls.from_network) {
            tokio::spawn(opened.network.follow(api.clone()));
        }
        let sessions = Arc::new(Sessions::open(api, state, sources, grace)?);
        let site = Site::new(config, Arc::clone(&sessions), opened.party);
        let site = Arc::new(site.context("the system gives no random bytes")?);
        if !config.wants_https() {
            crate::warning!("passwords and codes cross the LAN in the clear; configure [tls], and url with https://");
        }
        let mut terminate = signal(SignalKind::terminate()).context("can't take over signals")?;
        crate::info!("the login page is there");
        // Tasks of their own: what is under way goes on while this one comes to its end.
        let mut talk = tokio::spawn(talk);
        let mut looking = tokio::spawn(Arc::clone(&sessions).look_again(config.look_again()));
        let ended = tokio::select! {
            why = &mut talk => Err(match why {
                Ok(why) => anyhow::Error::new(why).context("altnetd is gone; so am I"),
                Err(e) => e.into(),
            }),
            _ = &mut looking => Err(anyhow::anyhow!("nobody is looked up any more")),
            served = web::serve(site, listeners) => served.context("can't serve the page"),
            _ = terminate.recv() => Ok(()),
        };
        sessions.finish().await;
        ended
    })
}

fn listen(config: &Config, opened: &Opened) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    let empty = Vec::new();
    let tls = config.tls.as_ref();
    let over_tls = tls.map_or(&empty, |tls| &tls.listen);
    let asking = tls.map_or(&empty, |tls| &tls.client_certificates);
    for (addresses, tls, asks) in [
        (&config.listen, &None, false),
        (over_tls, &opened.plain_tls, false),
        (asking, &opened.asking_tls, true),
    ] {
        for address in addresses {
            let socket = TcpListener::bind(address).with_context(|| {
                format!("can't listen on {address}; is another server there, or may only root?")
            })?;
            let address = socket.local_addr().unwrap_or(*address);
            let how = if tls.is_some() { "https" } else { "http" };
            crate::info!("listening on {how}://{address}");
            listeners.push(Listener {
                socket,
                tls: tls.clone(),
                asks,
            });
        }
    }
    Ok(listeners)
}
