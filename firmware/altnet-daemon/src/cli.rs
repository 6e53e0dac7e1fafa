//! `altnet`: the command line. Asks the local altnetd and prints tables for people, or with
//! `--json` exactly what the API answered.

use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use altnet_router::hands::cli::Asked;
use altnet_updater::words::Update;
use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::Method;
use crate::api::client::{Client, ClientError};
use crate::api::types;
use crate::config::default_socket;
use audit::AuditCommand;
use config::ConfigCommand;
use invite::InviteCommand;
use login::LoginCommand;
use relay::RelayCommand;
use reset::Reset;
use tls::TlsCommand;

mod appliance;
mod audit;
mod config;
mod invite;
mod login;
mod relay;
mod reset;
mod selftest;
mod table;
mod tls;

/// How often a starting altnetd is tried, and how long apart: five seconds together.
const START_TRIES: u32 = 50;
const START_STEP: Duration = Duration::from_millis(100);
/// The most that is read from standard input in search of an invite, in bytes.
const MAX_INVITE_BYTES: u64 = 256 * 1024;

/// Operate this machine's altnet node.
#[derive(Debug, Parser)]
#[command(name = "altnet", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// Where altnetd listens.
    #[arg(long, global = true, value_name = "PATH", default_value_os_t = default_socket())]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// This node and its network at a glance.
    Status,
    /// The peers and the paths to them.
    Peers,
    /// Round trips to a peer through the tunnel.
    Ping {
        /// A peer's or host's name or address.
        target: String,
        /// How often.
        #[arg(short, long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
        count: u32,
    },
    /// Why the path to a peer is what it is, or why there is none.
    Why {
        /// A peer's or host's name or address.
        target: String,
    },
    /// The records in force.
    Records,
    /// Who may reach what.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Join a network with an invite.
    Join {
        /// The invite's link, or `-` to read it from standard input, where other users'
        /// process lists don't show it.
        #[arg(required_unless_present = "bundle", conflicts_with = "bundle")]
        invite: Option<String>,
        /// A first-boot file instead of a link. It holds secrets: delete it afterwards.
        #[arg(long, value_name = "FILE")]
        bundle: Option<PathBuf>,
        /// The name this node asks for.
        #[arg(long)]
        name: Option<String>,
    },
    /// Leave the network and forget this node's keys.
    Leave {
        /// Yes, forget them: coming back takes a new invite.
        #[arg(long)]
        yes: bool,
    },
    /// Make new tunnel keys now.
    Rotate,
    /// The relays that forward for this node, and what it forwards as one.
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Apps with keys, an address and a name of their own.
    #[command(subcommand)]
    App(AppCommand),
    /// Names of machines on this gateway's LAN.
    #[command(subcommand)]
    Host(HostCommand),
    /// The members, each below who brought it in.
    Members,
    /// Invites that this node makes, as far as policy lets it.
    #[command(subcommand)]
    Invite(InviteCommand),
    /// Who is logged in from machines without software.
    #[command(subcommand)]
    Login(LoginCommand),
    /// What makes browsers trust this network's names.
    #[command(subcommand)]
    Tls(TlsCommand),
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The releases of this box, where it is an appliance with two slots.
    #[command(subcommand)]
    Update(Update),
    /// Wipe this box, where it is an appliance: it is as new after the next boot, with the releases that it has.
    Reset(Reset),
    /// The router that runs here: its lines to the internet, its networks, the daemons that serve them.
    Router,
    /// Counters, in the Prometheus text format.
    Metrics,
    /// What happens, until interrupted.
    Events,
    /// What happened, in a log that nobody can change unseen.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Whether this build works on this machine: ciphers, records, names, storage.
    Selftest {
        /// A directory on the disk that is to be tried, such as /var/lib/altnet; what is written there is
        /// removed.
        #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
        dir: PathBuf,
    },
    /// A completion script for a shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// The policy in force, at a glance. It is written with `altnet-provision policy`.
    Show,
    /// Whether one may reach the other as things are now, and by which rule.
    Check {
        /// Who begins: a host's, app's or member's name, or any address.
        source: String,
        /// With whom, likewise.
        target: String,
        /// A port like 80 or udp/53, or ping; without one all that is allowed.
        service: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum AppCommand {
    /// Share one server and nothing around it: it gets keys, an address and a name of its own.
    Add {
        /// Its name.
        name: String,
        /// The server: HOST:PORT, [ADDRESS]:PORT or unix:/PATH.
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        /// It speaks HTTP: each request tells it who asks, in headers that callers can't write.
        #[arg(long)]
        http: bool,
        /// A TCP port that callers use [default: 80 with --http, else the server's]
        #[arg(long = "port", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
        ports: Vec<u16>,
        /// Callers can speak TLS with it, at port 443 besides, once an owner signed.
        #[arg(long, requires = "http")]
        tls: bool,
    },
    /// Take an app away; its keys are forgotten.
    Remove {
        /// The name.
        name: String,
    },
    /// The apps on this node.
    List,
}

#[derive(Debug, Subcommand)]
enum HostCommand {
    /// Give a machine a name.
    Add {
        /// The name.
        name: String,
        /// The machine's address on this LAN.
        address: std::net::Ipv6Addr,
    },
    /// Take a name back.
    Remove {
        /// The name.
        name: String,
    },
    /// The names given by this gateway.
    List,
}

/// Runs the command line of this process. Says what went wrong on standard error and returns
/// 1 if something did.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match run(arguments, &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads us has read enough.
        Err(e) if is_closed_pipe(&e) => ExitCode::SUCCESS,
        Err(e) => {
            if json {
                println!("{}", json!({ "error": error_value(&e) }));
            }
            eprintln!("altnet: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<io::Error>();
    io.is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
}

fn error_value(error: &anyhow::Error) -> Value {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Api(e)) => serde_json::to_value(e).unwrap_or(Value::Null),
        _ => json!({ "code": "failed", "message": format!("{error:#}") }),
    }
}

/// Does what `arguments` say and writes to `out`.
///
/// # Errors
/// Texts that say what happened and what to do next.
pub fn run(arguments: Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    match &arguments.command {
        Command::Config(command) => command.run(&arguments.socket, arguments.json, out),
        Command::Update(update) => {
            let program = std::env::current_exe().context("can't find out my own path")?;
            Err(update.hand_over(&program, arguments.json))
        }
        Command::Reset(reset) => reset.run(&reset::Programs::real(), arguments.json, out),
        Command::Router => config::ask_router(&Asked::Status, arguments.json, out).map(drop),
        Command::Selftest { dir } => selftest::run(dir, arguments.json, out),
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Arguments::command(), "altnet", out);
            Ok(())
        }
        Command::Audit(command) if audit::offline(command, arguments.json, out)? => Ok(()),
        _ => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(ask(&arguments, out)),
    }
}

struct Session<'a, W> {
    client: Client,
    json: bool,
    out: &'a mut W,
}

impl<W: Write> Session<'_, W> {
    /// Calls `method` and prints its result: as JSON, or with `print`.
    async fn show<T: Serialize + DeserializeOwned>(
        &mut self,
        method: Method,
        params: impl Serialize,
        print: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        if self.json {
            // As altnetd said it: a newer one may say more than this program knows.
            let value: Value = self.client.call(method, &params).await?;
            writeln!(self.out, "{}", serde_json::to_string_pretty(&value)?)?;
        } else {
            let value: T = self.client.call(method, &params).await?;
            write!(self.out, "{}", print(&value))?;
        }
        Ok(())
    }
}

async fn ask(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    let client = match &arguments.command {
        // Often typed right behind the daemon's start.
        Command::Join { .. } => connect_patiently(&arguments.socket).await?,
        _ => Client::connect(&arguments.socket).await?,
    };
    let json = arguments.json;
    let mut session = Session { client, json, out };
    let none = json!({});
    match &arguments.command {
        Command::Status => {
            let print =
                |status: &types::Status| table::status(status) + &appliance::told(Path::new("/"));
            session.show(Method::Status, none, print).await
        }
        Command::Peers => session.show(Method::Peers, none, table::peers).await,
        Command::Ping { target, count } => ping(&mut session, target, *count).await,
        Command::Why { target } => {
            let target = target.clone();
            session
                .show(Method::Why, types::Target { target }, table::why)
                .await
        }
        Command::Records => session.show(Method::Records, none, table::records).await,
        Command::Policy(PolicyCommand::Show) => {
            session.show(Method::Policy, none, table::policy).await
        }
        Command::Policy(PolicyCommand::Check {
            source,
            target,
            service,
        }) => {
            let flow = types::Flow {
                source: source.clone(),
                target: target.clone(),
                service: service.clone(),
            };
            session
                .show(Method::PolicyCheck, flow, table::verdict)
                .await
        }
        Command::Join {
            invite,
            bundle,
            name,
        } => {
            let join = types::Join {
                invite: invitation(invite.as_deref(), bundle.as_deref())?,
                name: name.clone(),
            };
            session.show(Method::Join, join, table::joined).await
        }
        Command::Leave { yes } => {
            anyhow::ensure!(
                *yes,
                "leaving forgets this node's keys, and coming back takes a new invite; run `altnet leave --yes` if that is meant"
            );
            session.show(Method::Leave, none, table::left).await
        }
        Command::Rotate => session.show(Method::Rotate, none, table::rotated).await,
        Command::App(AppCommand::Add {
            name,
            to,
            http,
            ports,
            tls,
        }) => {
            let app = types::NewApp {
                name: name.clone(),
                to: to.clone(),
                http: *http,
                ports: ports.clone(),
                tls: *tls,
            };
            session.show(Method::AppAdd, app, table::app_added).await
        }
        Command::App(AppCommand::Remove { name }) => {
            let text = format!("{name} is gone, and its keys are forgotten\n");
            let name = types::HostName { name: name.clone() };
            session
                .show(Method::AppRemove, name, |_: &Value| text)
                .await
        }
        Command::App(AppCommand::List) => session.show(Method::Apps, none, table::apps).await,
        Command::Host(HostCommand::Add { name, address }) => {
            let host = types::Host {
                name: name.clone(),
                address: address.to_string(),
            };
            session.show(Method::HostAdd, host, table::host_added).await
        }
        Command::Host(HostCommand::Remove { name }) => {
            let text = format!("{name} is no longer a name of this gateway's\n");
            let name = types::HostName { name: name.clone() };
            session
                .show(Method::HostRemove, name, |_: &Value| text)
                .await
        }
        Command::Host(HostCommand::List) => session.show(Method::Hosts, none, table::hosts).await,
        Command::Metrics => {
            let print = |metrics: &types::Metrics| metrics.text.clone();
            session.show(Method::Metrics, none, print).await
        }
        Command::Events => events(&mut session).await,
        Command::Members => session.show(Method::Members, none, invite::tree).await,
        Command::Invite(command) => invite::ask(&mut session, command).await,
        Command::Login(command) => login::ask(&mut session, command).await,
        Command::Relay(command) => relay::ask(&mut session, command).await,
        Command::Tls(command) => tls::ask(&mut session, command).await,
        Command::Audit(command) => audit::ask(&mut session, command).await,
        Command::Config(_)
        | Command::Router
        | Command::Update(_)
        | Command::Reset(_)
        | Command::Selftest { .. }
        | Command::Completion { .. } => Ok(()),
    }
}

/// Connects to an altnetd that may only just be starting.
async fn connect_patiently(socket: &Path) -> Result<Client, ClientError> {
    for _ in 0..START_TRIES {
        if let Ok(client) = Client::connect(socket).await {
            return Ok(client);
        }
        tokio::time::sleep(START_STEP).await;
    }
    Client::connect(socket).await
}

/// The link on the command line or on standard input, or the text of a first-boot file.
fn invitation(link: Option<&str>, bundle: Option<&Path>) -> anyhow::Result<String> {
    if let Some(file) = bundle {
        return std::fs::read_to_string(file)
            .with_context(|| format!("can't read the bundle {}", file.display()));
    }
    match link {
        Some("-") => Ok(io::read_to_string(io::stdin().take(MAX_INVITE_BYTES))?),
        link => Ok(link.unwrap_or_default().into()),
    }
}

/// Pings once a second; fails if nothing came back.
async fn ping<W: Write>(
    session: &mut Session<'_, W>,
    target: &str,
    count: u32,
) -> anyhow::Result<()> {
    let params = types::Target {
        target: target.into(),
    };
    let mut pongs = Vec::new();
    let mut last_error = None;
    for n in 1..=count {
        match session
            .client
            .call::<types::Pong>(Method::Ping, &params)
            .await
        {
            Ok(pong) => {
                if !session.json {
                    write!(session.out, "{}", table::pong(n, &pong))?;
                }
                pongs.push(pong);
            }
            Err(ClientError::Api(e)) if e.code == crate::api::Code::Timeout => {
                if !session.json {
                    writeln!(session.out, "{n}: no answer")?;
                }
                last_error = Some(e);
            }
            Err(e) => return Err(e.into()),
        }
        session.out.flush()?;
        if n < count {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    if session.json {
        let summary = json!({ "target": target, "sent": count, "pongs": pongs });
        writeln!(session.out, "{}", serde_json::to_string_pretty(&summary)?)?;
    } else {
        writeln!(session.out, "{} of {count} answered", pongs.len())?;
    }
    match last_error {
        Some(e) if pongs.is_empty() => Err(ClientError::Api(e).into()),
        _ => Ok(()),
    }
}

async fn events<W: Write>(session: &mut Session<'_, W>) -> anyhow::Result<()> {
    let _: Value = session.client.call(Method::Events, &json!({})).await?;
    while let Some(line) = session.client.next_line().await? {
        if session.json {
            writeln!(session.out, "{line}")?;
        } else {
            let event: types::Event = serde_json::from_str(&line)?;
            writeln!(
                session.out,
                "{} {:<22} {}",
                event.at, event.event, event.text
            )?;
        }
        session.out.flush()?;
    }
    anyhow::bail!("altnetd ended the stream; it was stopped or restarted")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> anyhow::Result<String> {
        let arguments = Arguments::try_parse_from(line.split(' '))?;
        let mut out = Vec::new();
        run(arguments, &mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_config_is_checked_and_shown_with_its_defaults() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("altnet.toml");
        std::fs::write(&file, "listen_port = 4500\n").unwrap();
        let shown = check(&format!("altnet config check {}", file.display())).unwrap();
        assert!(
            shown.contains("listen_port = 4500") && shown.contains("mtu_bytes = 1280"),
            "{shown}"
        );
        let shown = check(&format!("altnet --json config check {}", file.display())).unwrap();
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["tun"]["name"], "altnet0");
        std::fs::write(&file, "port = 4500\n").unwrap();
        let error = check(&format!("altnet config check {}", file.display())).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("altnet.toml:1:1: unknown field `port`")
        );
    }

    #[test]
    fn a_missing_daemon_is_said_with_what_to_do() {
        let error = check("altnet --socket /nonexistent/a.sock status").unwrap_err();
        let text = format!("{error:#}");
        assert!(text.contains("start it"), "{text}");
    }

    #[test]
    fn completion_knows_the_commands() {
        let script = check("altnet completion bash").unwrap();
        assert!(script.contains("rotate") && script.contains("host"));
        assert!(script.contains("altnet__update__install") || script.contains("--no-reboot"));
    }
}
