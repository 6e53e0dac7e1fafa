//! `altnetd`: opens everything, gives up what it doesn't need, and runs the loop.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::audit::Limits;
use altnet_core::node::TurnServer;
use altnet_core::turn::Transport;
use anyhow::Context as _;
use clap::Parser;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::LocalSet;

use crate::api::Role;
use crate::api::server::{Access, Listener};
use crate::apps::Apps;
use crate::apps::tls::Tls;
use crate::audit::keeper::Keeper;
use crate::audit::{self, Files};
use crate::clock;
use crate::config::{self, Config, Others};
use crate::derpers::Derpers;
use crate::dns::{self, upstream};
use crate::gateway::audit::Audit;
use crate::gateway::birth;
use crate::gateway::lan::Lans;
use crate::gateway::machines::Machines;
use crate::gateway::names;
use crate::gateway::nat64::Nat64;
use crate::gateway::port::Port;
use crate::gateway::portal::Portals;
use crate::gateway::saving::{LEAVING_SLOT, Origin, PLACE_SLOT};
use crate::gateway::signals::Signals;
use crate::gateway::{EVENT_BACKLOG, Gateway, INBOX, Inboxes, State};
use crate::link::Links;
use crate::log::{self, Level};
use crate::metrics;
use crate::netlink::{self, Netlink};
use crate::portmap::PortMappings;
use crate::privileges::{self, CapabilitySet, User};
use crate::store::Store;
use crate::store::directory::Directory;
use crate::store::writer::Writer;
use crate::streams::Streams;
use crate::tun::Tun;
use crate::turn::TurnServers;

/// What altnetd goes on needing: routes and addresses come and go, a LAN interface that comes back
/// needs a new ICMPv6 socket, and a new listener on port 53.
const KEPT: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// What a killed altnetd leaves beside its socket: the settings it changed.
const NOTES: &str = "changed-settings";

/// The gateway daemon of altnet.
#[derive(Debug, Parser)]
#[command(name = "altnetd", version)]
struct Arguments {
    /// The configuration file. Without one, /etc/altnet/altnet.toml if it is there.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The same in OpenWrt's format, such as /etc/config/altnet.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    uci: Option<PathBuf>,
    /// How much is logged, rather than what the file says.
    #[arg(long, value_name = "LEVEL")]
    log: Option<Level>,
}

impl Arguments {
    fn load(&self) -> Result<Config, config::ConfigError> {
        let default = Path::new(config::DEFAULT_PATH);
        let mut config = match (&self.config, &self.uci) {
            (_, Some(file)) => Config::load_uci(file)?,
            (Some(file), None) => Config::load(file)?,
            (None, None) if default.exists() => Config::load(default)?,
            (None, None) => Config::default(),
        };
        if let Some(level) = self.log {
            config.log = level;
        }
        Ok(config)
    }
}

/// Runs the daemon until a signal ends it. Says on standard error why it could not start, and
/// returns 1 then.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // A whole page may be said of a configuration; the log would put it on a line.
            eprintln!("altnetd: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: &Arguments) -> anyhow::Result<()> {
    let config = arguments.load()?;
    log::set_level(config.log);
    let user = config.user.as_deref().map(privileges::find_user);
    let user = user.transpose()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the event loop")?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let signals = Signals::take().context("can't take over signals")?;
        let gateway = open(config, user.as_ref())?;
        Ok(gateway.run(signals, || arguments.load()).await?)
    }))
}

/// Opens everything that takes privileges, then gives them up.
fn open(config: Config, user: Option<&User>) -> anyhow::Result<Gateway> {
    let directory = Directory::open(&config.state_directory)?;
    let owner = user.cloned().unwrap_or_else(User::own);
    let found = directory
        .place()
        .context("can't look at the state directory")?;
    directory
        .give_to(owner.user, owner.group)
        .context("can't give the state directory to the user altnetd runs as")?;
    let place = directory
        .place()
        .context("can't look at the state directory")?;
    let mut store = Store::open(directory)?;
    if store.load(LEAVING_SLOT)?.is_some() {
        // The power went while it left: what is left of the network goes now.
        store.clear(LEAVING_SLOT)?;
    }
    let files = open_audit(&config, &owner).with_context(|| {
        let path = config.state_directory.join(audit::DIRECTORY);
        format!("can't open the audit log in {}", path.display())
    })?;
    let mut stored = birth::load(&store)?;
    let origin = Origin::new(stored.remove(PLACE_SLOT).as_deref(), &found, &place);
    let mut node = birth::make_node(&config, stored)?;
    // What is noted of the start is dated.
    node.handle_clock(clock::calendar(), clock::now());

    node.handle_turn_servers(turn_servers(&config)?, clock::now());
    let derpers = config.derp.iter().map(|derp| derp.server.clone());
    node.handle_derpers(derpers.collect(), clock::now());

    let port = Port::open(config.listen_port).with_context(|| {
        let port = config.listen_port;
        format!("can't open UDP port {port}; choose another listen_port, or stop what has it")
    })?;
    let tun = Tun::open(&config.tun.name).with_context(|| {
        let name = &config.tun.name;
        format!(
            "can't make the TUN device {name}; run as root, with the kernel's tun module loaded"
        )
    })?;
    let run = config.api.socket.parent().unwrap_or(Path::new("/"));
    make_run_directory(run, &owner)
        .with_context(|| format!("can't make {} for the API's socket", run.display()))?;
    let links = Links::open(&run.join(NOTES)).context("can't open netlink")?;
    let netlink = Netlink::open().context("can't open netlink")?;
    // SAFETY: the socket is owned by the `AsyncFd` from here on; nothing closes or replaces its
    // descriptor before it is dropped.
    let changes = unsafe { AsyncFd::register(netlink::watch().context("can't watch netlink")?) }?;

    let (mappings, ways) = if config.port_mapping.enabled {
        let secret = node.identity().port_secret();
        let started = PortMappings::start(port.number()?, secret);
        let (mappings, ways) = started.context("can't look for routers")?;
        (Some(mappings), ways)
    } else {
        (None, watch::channel(Vec::new()).1)
    };
    let proxy = config.proxy.as_deref().and_then(|url| url.parse().ok());
    let mut streams = Streams::new(proxy.clone()).context("the kernel gives no random bytes")?;
    let relay = config.state_directory.join("relay");
    streams
        .serve(&config.relay, &relay)
        .context("can't relay over TLS")?;
    let turn = TurnServers::new(&config.turn);
    let derpers = Derpers::new(&config.derp, proxy.clone());
    let machines = Machines::new(&config).context("can't watch netlink")?;

    let (solicited_to, solicited) = mpsc::channel(INBOX);
    let (calls_to, calls) = mpsc::channel(INBOX);
    let (inquiries_to, inquiries) = mpsc::channel(INBOX);
    let (wishes_to, wishes) = mpsc::channel(INBOX);
    let (tls, keys) = Tls::new(config.tls.command.as_deref());
    let (apps, app_packets, callers) = Apps::new(tls.clone());
    let (portal, portal_packets) = Portals::new();
    let (events, _) = broadcast::channel(EVENT_BACKLOG);

    let house = config.house();
    let house = house.map_or_else(Vec::new, |house| config::resolver_addresses(&house));
    let service = config.dns.serve.then(|| {
        let upstreams = match config.dns.forward.as_slice() {
            [] => upstream::Upstreams::of_file(Path::new(upstream::RESOLV_CONF)),
            some => upstream::Upstreams::fixed(some.iter().map(|upstream| upstream.0).collect()),
        };
        let ours = config.dns.listen.iter().chain(&house).copied();
        let upstreams = upstreams.except(ours.collect());
        let patience = Duration::from_millis(config.dns.timeout_ms.into());
        dns::Service::new(inquiries_to, dns::Forwarder::new(upstreams, patience))
    });
    if let Some(service) = &service {
        // Those of the house come with altnet-routerd; what a person wrote has to be there.
        let written = config.dns.listen.iter().map(|address| (address, false));
        for (address, comes_later) in written.chain(house.iter().map(|address| (address, true))) {
            names::listen(service, *address, None, comes_later)
                .with_context(|| format!("can't answer names at {address}"))?;
        }
    }
    if let Some(address) = config.metrics.listen {
        let listener =
            listen(address).with_context(|| format!("can't serve metrics at {address}"))?;
        tokio::spawn(metrics::serve(listener, wishes_to));
    }
    serve_api(&config, &owner, calls_to, events.clone())?;

    privileges::drop_to(user, KEPT)?;
    // A thread has the privileges of its beginning.
    let store = Writer::start(store).context("can't start a thread")?;
    let limits = Limits::of(config.audit.max_bytes);
    let now = clock::now();
    let (log, entries) = files
        .open_log(limits, node.calendar(now), now)
        .context("can't read the audit log")?;
    let keeper = Keeper::start(files).context("can't start a thread")?;
    crate::info!(
        "altnetd {} runs, UDP port {}",
        env!("CARGO_PKG_VERSION"),
        port.number()?
    );
    Ok(Gateway {
        node,
        store,
        audit: Audit::new(log, entries, keeper),
        lans: Lans::new(&config, solicited_to),
        config,
        ports: port.into(),
        streams,
        turn,
        derpers,
        nat64: Nat64::open(),
        tun,
        links,
        netlink,
        changes,
        mappings,
        ways,
        machines,
        portal,
        names: service,
        apps,
        tls,
        events,
        inboxes: Inboxes {
            calls,
            inquiries,
            solicited,
            wishes,
            app_packets,
            callers,
            portal_packets,
            keys,
        },
        origin,
        place,
        state: State::default(),
    })
}

/// The TURN servers, with their passwords.
fn turn_servers(config: &Config) -> Result<Vec<TurnServer>, config::PasswordError> {
    let servers = config.turn.iter().map(|turn| {
        Ok(TurnServer {
            name: turn.server.clone(),
            transport: match turn.transport {
                config::Transport::Udp => Transport::Datagram,
                config::Transport::Tcp => Transport::Stream,
            },
            credentials: turn.credentials()?,
        })
    });
    servers.collect()
}

/// Makes the directory of the API's socket, and gives it to `owner` if it is ours alone: what is
/// made in it must be removed again without privileges.
fn make_run_directory(directory: &Path, owner: &User) -> io::Result<()> {
    let is_new = !directory.exists();
    if is_new {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    let is_ours = is_new || directory.file_name().is_some_and(|name| name == "altnet");
    if !owner.owns(&fs::metadata(directory)?) {
        if !is_ours {
            return Err(io::Error::other(
                "it belongs to another user than altnetd runs as; give [api] socket a directory of its own, such as /run/altnet/altnetd.sock",
            ));
        }
        chown(directory, Some(owner.user), Some(owner.group))?;
    }
    Ok(())
}

/// Opens the directory of the audit log, and gives it to `owner`.
fn open_audit(config: &Config, owner: &User) -> io::Result<Files> {
    let files = Files::make(&config.state_directory.join(audit::DIRECTORY))?;
    files.give_to(owner.user, owner.group)?;
    Ok(files)
}

fn listen(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

fn serve_api(
    config: &Config,
    owner: &User,
    calls: mpsc::Sender<crate::api::server::Call>,
    events: broadcast::Sender<Arc<str>>,
) -> anyhow::Result<()> {
    let path = &config.api.socket;
    let listener = Listener::bind(path).with_context(|| {
        let path = path.display();
        format!("can't listen at {path}; is another altnetd running?")
    })?;
    let logins = match &config.login.group {
        Some(group) => Some(privileges::find_group(group).with_context(|| {
            format!("there is no group {group:?}; add it, or remove [login] from the configuration")
        })?),
        None => None,
    };
    let access = Access {
        own_user: owner.user,
        operators: privileges::find_group(&config.api.operators),
        logins,
        others: match config.api.others {
            Others::Refused => None,
            Others::Read => Some(Role::Read),
        },
        own_process: i32::try_from(std::process::id()).ok(),
    };
    tokio::task::spawn_local(listener.serve(access, calls, events));
    Ok(())
}
