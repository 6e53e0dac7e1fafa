//! `altnet-derp`: a DERP server by itself, as Tailscale's `derper` is one.
//!
//! A gateway relays by itself; this is for a machine that does nothing else, and for tests.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::derp::handshake::ServerIdentity;
use altnet_core::derp::rate::Rate;
use altnet_core::derp::server::ServerLimits;
use altnet_relay::acme::Folder;
use altnet_relay::certificate::{Certificate, CertificateError, Shown};
use altnet_relay::keys;
use altnet_relay::server::{Admission, Admit, Notice, Options, Relay, serve_plain};
use altnet_relay::stun::{self, StunPort};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// When clients come again after this relay was told to stop, and how long they try.
const RESTART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// A DERP relay: it forwards packets between its clients by their keys, over TLS 1.3.
#[derive(Debug, Parser)]
#[command(name = "altnet-derp", version)]
struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "[::]:443")]
    listen: SocketAddr,

    /// Where to answer over plain HTTP too, mostly at port 80: by that Tailscale's clients see whether
    /// somebody is between them and the internet.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,

    /// Answer STUN too, over UDP: by that clients find their way to each other without this relay. At
    /// port 3478 of the address where it listens if not said.
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1)]
    stun: Option<Option<SocketAddr>>,

    /// The certificate's chain in PEM, the relay's own first. Read anew on SIGHUP.
    #[arg(long, requires = "key", conflicts_with = "self_signed")]
    cert: Option<PathBuf>,

    /// The certificate's key in PEM.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,

    /// Show a certificate that is kept in this folder, and made there the first time; clients are told
    /// its pin.
    #[arg(long, value_name = "FOLDER", required_unless_present = "cert")]
    self_signed: Option<PathBuf>,

    /// A name or address that a new self-signed certificate is for. Tailscale's clients check it even if
    /// they know the pin. May be given several times.
    #[arg(long, value_name = "NAME", requires = "self_signed")]
    host: Vec<String>,

    /// The folder in which altnet-acme keeps a certificate. It is shown once it is there, and renewed ones
    /// as they come; until then, what is said above. Clients know the relay by its name then, not by a pin.
    #[arg(long, value_name = "FOLDER")]
    acme: Option<PathBuf>,

    /// The file of the relay's DERP key, 64 hexadecimal digits; made the first time. Beside a self-signed
    /// certificate if not said.
    #[arg(long, value_name = "FILE", required_unless_present = "self_signed")]
    identity: Option<PathBuf>,

    /// Who may come: any, or those whose keys are in this file, one a line in hexadecimal. It is read
    /// anew for every client, and on SIGHUP those who aren't in it any more are disconnected.
    #[arg(long, value_name = "any|FILE")]
    admit: String,

    /// The file of the key that relays of one region share, 64 hexadecimal digits.
    #[arg(long, value_name = "FILE")]
    mesh_key: Option<PathBuf>,

    /// The most connections.
    #[arg(long, default_value_t = ServerLimits::SERVER.connections)]
    connections: usize,

    /// What a client may send, in bytes a second. Without it there is no limit.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    rate_bytes_per_s: u32,

    /// How many threads forward. As many as there are cores if not said.
    #[arg(long)]
    threads: Option<usize>,

    /// Say as one line of JSON where it listens and how it is known.
    #[arg(long)]
    json: bool,

    /// Say who comes and goes.
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut builder = match arguments.threads {
        Some(1) => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            if let Some(threads) = threads.filter(|threads| *threads > 1) {
                builder.worker_threads(threads);
            }
            builder
        }
    };
    let run = builder
        .enable_all()
        .build()
        .map_err(|e| format!("can't begin: {e}"))
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("altnet-derp: {e}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    raise_descriptors();
    let certificate = certificate(&arguments)?;
    let beside = |folder: &PathBuf| folder.join("derp.identity");
    let identity = arguments
        .identity
        .clone()
        .or_else(|| arguments.self_signed.as_ref().map(beside))
        .ok_or("give --identity")?;
    let secret = keys::identity(&identity)?;
    let mesh_key = arguments.mesh_key.as_deref().map(keys::mesh).transpose()?;
    let identity = ServerIdentity::new(secret, mesh_key);
    let mut options = Options::new(ServerLimits {
        connections: arguments.connections,
        rate: Rate {
            per_s: arguments.rate_bytes_per_s,
            burst: arguments.rate_bytes_per_s,
        },
        ..ServerLimits::SERVER
    });
    if arguments.verbose {
        options.tell = Some(Arc::new(say));
    }
    let pin = certificate.pin().ok_or("there is no certificate")?;
    let shown = match &arguments.acme {
        Some(folder) => certificate.shown_until(
            &identity.public(),
            Folder::new(folder),
            Arc::new(say_renewed),
        ),
        None => certificate.shown(&identity.public()),
    };
    let shown = shown.map_err(|e| e.to_string())?;
    let relay = Relay::new(identity, options).map_err(|e| e.to_string())?;
    let listener = bind(arguments.listen).await?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    if let Some(http) = arguments.http {
        tokio::spawn(serve_plain(bind(http).await?));
    }
    let stun = arguments
        .stun
        .map(|told| bind_stun(told.unwrap_or(SocketAddr::new(arguments.listen.ip(), stun::PORT))))
        .transpose()?;
    let stun_address = stun.as_ref().map(|(_, address)| address.to_string());
    if let Some((port, _)) = stun {
        tokio::spawn(port.serve());
    }
    let public = relay.public();
    // A pin would hold until the first renewal.
    let pin = arguments.acme.is_none().then(|| pin.to_string());
    if arguments.json {
        let status = serde_json::json!({
            "address": address.to_string(),
            "derp_key": public.to_string(),
            "pin": pin,
            "stun": stun_address,
        });
        println!("{status}");
    } else {
        let known = pin.as_deref().unwrap_or("by ACME");
        println!("listening at {address}\nDERP key {public}\ncertificate {known}");
        if let Some(address) = stun_address {
            println!("answering STUN at {address}");
        }
    }
    let _ = std::io::stdout().flush();
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut renewed = signal(SignalKind::hangup()).map_err(|e| e.to_string())?;
    tokio::select! {
        () = relay.serve(listener, shown.config(), admission(&arguments.admit)) => {}
        () = renew(&arguments, &relay, &shown, &mut renewed) => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    relay.announce_restart(RESTART.0, RESTART.1);
    relay.stop();
    // What is queued is mostly written within this.
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(())
}

fn certificate(arguments: &Arguments) -> Result<Certificate, String> {
    let certificate = match (&arguments.cert, &arguments.key, &arguments.self_signed) {
        (Some(cert), Some(key), _) => Certificate::read(cert, key),
        (_, _, Some(folder)) => Certificate::self_signed(folder, &names(arguments)),
        _ => return Err("give --cert and --key, or --self-signed".into()),
    };
    certificate.map_err(|e| e.to_string())
}

/// Shows the certificate that is in the files now, and disconnects who isn't in the list any more,
/// whenever it is told to.
async fn renew(arguments: &Arguments, relay: &Relay, shown: &Shown, told: &mut Signal) {
    while told.recv().await.is_some() {
        let replaced = certificate(arguments)
            .and_then(|certificate| shown.replace(certificate).map_err(|e| e.to_string()));
        if let Err(e) = replaced {
            eprintln!("altnet-derp: still shows the old certificate: {e}");
        }
        if arguments.admit == "any" {
            continue;
        }
        match keys::list(Path::new(&arguments.admit)) {
            Ok(listed) => relay
                .admitted()
                .iter()
                .filter(|key| !listed.contains(key))
                .for_each(|key| relay.remove(key)),
            Err(e) => eprintln!("altnet-derp: nobody is disconnected: {e}"),
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|e| format!("can't listen at {address}: {e}"))
}

fn bind_stun(address: SocketAddr) -> Result<(StunPort, SocketAddr), String> {
    StunPort::bind(address)
        .and_then(|port| port.address().map(|address| (port, address)))
        .map_err(|e| format!("can't answer STUN at {address}: {e}"))
}

/// What a new self-signed certificate is for.
fn names(arguments: &Arguments) -> Vec<String> {
    let address = arguments.listen.ip();
    if arguments.host.is_empty() && !address.is_unspecified() {
        return vec![address.to_string()];
    }
    arguments.host.clone()
}

fn admission(admit: &str) -> Admit {
    if admit == "any" {
        return Arc::new(|_, _| Box::pin(std::future::ready(Admission::Client)));
    }
    let file = PathBuf::from(admit);
    Arc::new(move |key, _| {
        let admitted = keys::list(&file);
        let may_come = match &admitted {
            Ok(keys) if keys.contains(&key) => Admission::Client,
            Ok(_) => Admission::Refused,
            Err(e) => {
                eprintln!("altnet-derp: {e}");
                Admission::Refused
            }
        };
        Box::pin(std::future::ready(may_come))
    })
}

fn say_renewed(taken: Result<(), &CertificateError>) {
    match taken {
        Ok(()) => eprintln!("altnet-derp: shows the certificate that altnet-acme has got"),
        Err(e) => eprintln!("altnet-derp: still shows the certificate it had: {e}"),
    }
}

fn say(notice: &Notice) {
    match notice {
        Notice::Came { key, address } => eprintln!("{address} came as {key}"),
        Notice::Went { key, address, why } => eprintln!("{address} went, {key}: {why}"),
        Notice::Refused { address, why } => eprintln!("{address} was refused: {why}"),
        _ => {}
    }
}

/// As many descriptors as this process may have: each client needs one.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}
