//! Apps: TCP servers that the network reaches at an address of their own, and at nothing else.
//!
//! An app's packets end here, in user space (smoltcp): there is no TUN device and no route, so a
//! peer that policy lets reach an app reaches the ports it offers and no other part of the house.
//! In: whole IPv6 packets for an app's address, which the node's policy has let through. Out: IPv6
//! packets from that address, through one queue for all apps. What callers send is carried to the
//! app's [`Target`]; an HTTP app is told with each request who asks.
//!
//! Promises: connections, buffers and queues are bounded by [`Limits`], time by [`Patience`];
//! nothing a caller sends panics, and no more is read from either side than the other takes.
//! It deliberately doesn't decide who may call: that is the node's.
//!
//! Everything runs on tokio tasks that end with their [`App`].

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

mod connection;
mod http;
mod link;
pub mod portal;
mod secure;
mod serve;
mod stack;
mod stats;
mod stream;
mod target;
pub mod tls;
mod words;

use serve::Shared;
use stack::{Place, Stack};
pub use stats::{Refusal, Stats};
pub use target::{Target, TargetError};
use tls::Tls;

/// A whole IPv6 packet.
pub type Packet = Vec<u8>;

/// Packets of all apps that wait for the node; more wait in their connections.
pub const OUTBOX: usize = 256;
/// Questions that wait for the node.
pub const QUESTIONS: usize = 64;

/// What an app speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes, which are carried as they are.
    Tcp,
    /// HTTP/1.1: each request says who asks, in headers that callers can't write.
    Http,
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppConfig {
    /// Its name, which HTTP apps are told.
    pub name: String,
    /// Its address, which no other app has.
    pub address: Ipv6Addr,
    /// The server it stands for.
    pub to: Target,
    /// The TCP ports that callers use.
    pub ports: Vec<u16>,
    /// What it speaks.
    pub kind: Kind,
    /// The one of its ports at which callers speak TLS.
    pub tls_port: Option<u16>,
    /// The largest packet, in bytes: 1280 or more.
    pub mtu_bytes: u16,
    /// Its bounds.
    pub limits: Limits,
    /// How long it waits.
    pub patience: Patience,
}

impl AppConfig {
    /// An app at its usual ports: 80 for HTTP, otherwise its target's (80 if that is a UNIX
    /// socket).
    pub fn new(name: &str, address: Ipv6Addr, to: Target, kind: Kind) -> Self {
        let port = match (kind, &to) {
            (Kind::Tcp, Target::Tcp { port, .. }) => *port,
            (Kind::Tcp, Target::Unix(_)) | (Kind::Http, _) => 80,
        };
        Self {
            name: name.into(),
            address,
            to,
            ports: vec![port],
            kind,
            tls_port: None,
            mtu_bytes: crate::tun::MIN_MTU_BYTES,
            limits: Limits::default(),
            patience: Patience::default(),
        }
    }

    fn stack(&self, outbox: mpsc::Sender<Packet>, seed: u64) -> Stack {
        let place = Place {
            address: Some(self.address),
            ports: self.ports.clone(),
            mtu_bytes: self.mtu_bytes,
        };
        Stack::new(place, self.limits, self.patience, outbox, seed)
    }
}

/// An app's bounds. A connection takes two buffers, so an app takes at most
/// `connections * 2 * buffer_bytes` for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time, half-open ones included.
    pub connections: usize,
    /// Of these, from one address.
    pub per_caller: usize,
    /// Of these, from one /64: a hostile gateway has all addresses of its site.
    pub per_site: usize,
    /// Connections whose caller has not answered yet; half of them from one /64.
    pub half_open: usize,
    /// Bytes that a connection buffers each way.
    pub buffer_bytes: usize,
    /// Packets that wait for the app; more are dropped.
    pub inbox: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            per_caller: 16,
            per_site: 48,
            half_open: 32,
            buffer_bytes: 32 * 1024,
            inbox: 128,
        }
    }
}

/// How long an app waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a caller to finish its handshake.
    pub half_open: Duration,
    /// For a caller that is asked whether it is still there to say so.
    pub silent: Duration,
    /// For a byte either way. Two hours are what RFC 5382 (REQ-5) gives an idle connection.
    pub idle: Duration,
    /// For a caller to end a connection that was ended here.
    pub linger: Duration,
    /// For the target to accept.
    pub connect: Duration,
    /// For the head of a request, or the next request. HTTP only.
    pub head: Duration,
    /// For the head of the target's answer. HTTP only.
    pub answer: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            half_open: Duration::from_secs(10),
            silent: Duration::from_secs(120),
            idle: Duration::from_secs(2 * 3600),
            linger: Duration::from_secs(20),
            connect: Duration::from_secs(10),
            head: Duration::from_secs(60),
            answer: Duration::from_secs(120),
        }
    }
}

/// Who a packet's source is, as the node knows from records and the session that it came by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the device or host.
    pub name: String,
    /// The member whose device it is, or whose gateway vouches for it.
    pub member: String,
    /// The person the device belongs to.
    pub person: Option<String>,
    /// The groups it is in.
    pub groups: Vec<String>,
    /// The site it is at.
    pub site: Option<String>,
}

/// A question to the node: who has this address?
#[derive(Debug)]
pub struct WhoIs {
    /// The address.
    pub source: Ipv6Addr,
    /// Where the answer goes; none if nobody has it (any more).
    pub answer: oneshot::Sender<Option<Caller>>,
}

/// Why an app can't run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppError {
    /// It has no port, or port 0.
    #[error("the app {name} needs ports of 1 to 65535")]
    Ports {
        /// The app.
        name: String,
    },
    /// Not an address that a network gives (RFC 4193).
    #[error("{address} is not an address of a network, which begins with fd")]
    Address {
        /// What was given.
        address: Ipv6Addr,
    },
    /// Packets too small for IPv6.
    #[error("an MTU of {found} bytes is below IPv6's 1280 (RFC 8200 section 5)")]
    Mtu {
        /// What was given.
        found: u16,
    },
    /// A bound of none.
    #[error("the app {name} needs limits above 0")]
    Limits {
        /// The app.
        name: String,
    },
    /// The kernel gave no randomness.
    #[error("no randomness from the kernel")]
    Entropy(#[source] getrandom::Error),
}

/// The node has more packets for an app than it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the app's queue is full")]
pub struct Full;

/// A running app. Its tasks end with it, and its callers are told.
#[derive(Debug)]
pub struct App {
    config: AppConfig,
    inbox: mpsc::Sender<Packet>,
    shared: Arc<Shared>,
}

impl App {
    /// Starts an app. Its packets go to `outbox`, its questions to `questions`. Needs a tokio
    /// runtime with I/O and time.
    ///
    /// # Errors
    /// [`AppError`], if `config` says what can't be or the kernel has no randomness.
    pub fn start(
        config: AppConfig,
        outbox: mpsc::Sender<Packet>,
        questions: mpsc::Sender<WhoIs>,
        tls: Tls,
    ) -> Result<Self, AppError> {
        check(&config)?;
        // Only those whom policy lets through see sequence numbers, so a generator of 64 bits
        // is enough: nobody off the path can have a packet delivered here.
        let seed = getrandom::u64().map_err(AppError::Entropy)?;
        let (inbox, packets) = mpsc::channel(config.limits.inbox);
        let shared = Arc::new(Shared::new(config.stack(outbox.clone(), seed)));
        let for_callers = Arc::new(config.clone());
        let callers = Arc::clone(&shared);
        let serve = move |stream| {
            let (shared, config) = (Arc::clone(&callers), Arc::clone(&for_callers));
            serve::caller(stream, shared, config, questions.clone(), tls.clone())
        };
        tokio::spawn(serve::run(Arc::clone(&shared), packets, outbox, serve));
        Ok(Self {
            config,
            inbox,
            shared,
        })
    }

    /// Gives it a packet, which the caller checked by policy.
    ///
    /// # Errors
    /// [`Full`] if its queue is; the packet is dropped and counted.
    pub fn deliver(&self, packet: &[u8]) -> Result<(), Full> {
        self.shared.deliver(&self.inbox, packet)
    }

    /// What it counted.
    pub fn stats(&self) -> Stats {
        self.shared.stack().stats()
    }

    /// What it was started with.
    pub fn config(&self) -> &AppConfig {
        &self.config
    }
}

fn check(config: &AppConfig) -> Result<(), AppError> {
    let name = || config.name.clone();
    let limits = &config.limits;
    if config.ports.is_empty() || config.ports.contains(&0) {
        return Err(AppError::Ports { name: name() });
    }
    if config.address.octets()[0] != 0xfd {
        return Err(AppError::Address {
            address: config.address,
        });
    }
    if config.mtu_bytes < crate::tun::MIN_MTU_BYTES {
        return Err(AppError::Mtu {
            found: config.mtu_bytes,
        });
    }
    let bounds = [
        limits.connections,
        limits.per_caller,
        limits.per_site,
        limits.half_open,
        limits.buffer_bytes,
        limits.inbox,
    ];
    if bounds.contains(&0) {
        return Err(AppError::Limits { name: name() });
    }
    Ok(())
}

/// All apps of this device, by address.
#[derive(Debug)]
pub struct Apps {
    running: BTreeMap<Ipv6Addr, App>,
    outbox: mpsc::Sender<Packet>,
    questions: mpsc::Sender<WhoIs>,
    tls: Tls,
}

impl Apps {
    /// Makes a set of none, and the ends that the loop reads: packets for the node, each from an
    /// app's address, and questions. TLS of theirs ends in `tls`.
    pub fn new(tls: Tls) -> (Self, mpsc::Receiver<Packet>, mpsc::Receiver<WhoIs>) {
        let (outbox, packets) = mpsc::channel(OUTBOX);
        let (questions, asked) = mpsc::channel(QUESTIONS);
        let apps = Self {
            running: BTreeMap::new(),
            outbox,
            questions,
            tls,
        };
        (apps, packets, asked)
    }

    /// Runs exactly `wanted`: stops the others, and starts anew what changed. Returns what could
    /// not be started.
    pub fn reconfigure(&mut self, wanted: Vec<AppConfig>) -> Vec<AppError> {
        self.running.retain(|_, app| wanted.contains(&app.config));
        let mut errors = Vec::new();
        for config in wanted {
            if self.running.contains_key(&config.address) {
                continue;
            }
            let address = config.address;
            match App::start(
                config,
                self.outbox.clone(),
                self.questions.clone(),
                self.tls.clone(),
            ) {
                Ok(app) => {
                    self.running.insert(address, app);
                }
                Err(e) => errors.push(e),
            }
        }
        errors
    }

    /// Gives `packet` to the app that has its destination. Returns whether one took it.
    pub fn deliver(&self, packet: &[u8]) -> bool {
        let app = link::destination(packet).and_then(|to| self.running.get(&to));
        app.is_some_and(|app| app.deliver(packet).is_ok())
    }

    /// The app that a packet from its queue comes from.
    pub fn sender(packet: &[u8]) -> Option<Ipv6Addr> {
        link::source(packet)
    }

    /// The running apps.
    pub fn iter(&self) -> impl Iterator<Item = &App> {
        self.running.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(address: &str) -> AppConfig {
        let to = "127.0.0.1:8080".parse().unwrap();
        AppConfig::new("wiki", address.parse().unwrap(), to, Kind::Http)
    }

    #[test]
    fn ports_follow_from_kind_and_target() {
        let at = |kind, to: &str| {
            AppConfig::new("a", Ipv6Addr::UNSPECIFIED, to.parse().unwrap(), kind).ports
        };
        assert_eq!(at(Kind::Http, "nas:8080"), [80]);
        assert_eq!(at(Kind::Tcp, "nas:22"), [22]);
        assert_eq!(at(Kind::Tcp, "unix:/run/a.sock"), [80]);
    }

    #[tokio::test]
    async fn what_cannot_run_is_refused() {
        let (mut apps, _packets, _asked) = Apps::new(Tls::new(None).0);
        let mut without_ports = config("fd00::1");
        without_ports.ports.clear();
        let mut small = config("fd00::2");
        small.mtu_bytes = 1279;
        let mut unlimited = config("fd00::3");
        unlimited.limits.connections = 0;
        let errors = apps.reconfigure(vec![without_ports, small, unlimited, config("2001:db8::1")]);
        assert!(matches!(
            errors.as_slice(),
            [
                AppError::Ports { .. },
                AppError::Mtu { found: 1279 },
                AppError::Limits { .. },
                AppError::Address { .. }
            ]
        ));
        assert_eq!(apps.iter().count(), 0);
    }

    #[tokio::test]
    async fn what_did_not_change_goes_on() {
        let (mut apps, _packets, _asked) = Apps::new(Tls::new(None).0);
        let one = config("fd00::1");
        assert!(
            apps.reconfigure(vec![one.clone(), config("fd00::2")])
                .is_empty()
        );
        let before = Arc::clone(&apps.running[&one.address].shared);
        let mut other = config("fd00::3");
        other.kind = Kind::Tcp;
        assert!(apps.reconfigure(vec![one.clone(), other]).is_empty());
        assert!(Arc::ptr_eq(&before, &apps.running[&one.address].shared));
        assert_eq!(apps.iter().count(), 2);
        let mut packet = [0; 40];
        packet[0] = 0x60;
        packet[24..40].copy_from_slice(&one.address.octets());
        assert!(apps.deliver(&packet));
        packet[39] = 9;
        assert!(!apps.deliver(&packet));
        assert!(!apps.deliver(&packet[..39]));
    }
}
