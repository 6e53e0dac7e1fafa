//! Relaying over TLS: our connections to relays that no UDP reaches, and the clients of this one.
//!
//! The node says to which relays it wants a stream; tasks make them, and try again ever later. As a
//! relay this machine serves DERP ([`altnet_relay`]) to whoever comes: members, who show in the
//! control session inside who they are, and clients of Tailscale's as far as `[relay]` lists them. What
//! is inside is sealed from end to end; TLS hides from a network that passes nothing else what it is.
//!
//! Datagrams wait in one bounded queue for the gateway's loop; one that is full loses them, as a
//! network does.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use altnet_core::derp::boxes::SecretKey;
use altnet_core::derp::handshake::ServerIdentity;
use altnet_core::derp::server::{ConnectionId, ServerLimits};
use altnet_core::node::WantedStream;
use altnet_core::relay::StreamId;
use altnet_relay::certificate::{Certificate, CertificateError};
use altnet_relay::client::{Connection, Event, Sender, Target};
use altnet_relay::keys;
use altnet_relay::proxy::Proxy;
use altnet_relay::server::{Admission, Admit, Local, Options, Relay};
use altnet_relay::trust::Trust;
use altnet_wire::derp::info::ClientInfo;
use altnet_wire::derp::node::{key_of, node_of};
use altnet_wire::derp::{PublicKey, VERSION};
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use crate::config;

/// The port of relays' TLS, the one that no network blocks.
pub const PORT: u16 = 443;
/// Datagrams and news that wait for the loop.
const WAITING: usize = 512;
/// The first pause before a relay is tried again; each next is twice as long.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// How long a client that isn't known yet has to say who it is.
const GUEST: Duration = Duration::from_secs(20);
/// The most clients that aren't known yet.
const GUESTS: usize = 256;

/// Something that came.
#[derive(Debug)]
pub enum Came {
    /// A stream to a relay stands.
    Up(NodeId, Outgoing),
    /// It has ended, or didn't come to be.
    Down(NodeId, String),
    /// A datagram over the stream to a relay, from a node.
    FromRelay(NodeId, NodeId, Vec<u8>),
    /// A datagram of a client of ours, for a node.
    FromClient(ConnectionId, PublicKey, NodeId, Vec<u8>),
    /// A client's connection has ended.
    Gone(ConnectionId),
}

/// A stream to a relay, to send over.
#[derive(Clone)]
pub struct Outgoing(Sender);

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outgoing(..)")
    }
}

/// A stream that is wanted.
struct Line {
    task: Option<JoinHandle<()>>,
    sender: Option<Outgoing>,
    again: Instant,
    pause: Duration,
}

/// A client of ours.
#[derive(Clone, Copy, Debug)]
struct Client {
    stream: StreamId,
    connection: ConnectionId,
    key: PublicKey,
    /// Until when it may be unknown; none once it isn't.
    guest_until: Option<Instant>,
}

/// All streams.
pub struct Streams {
    secret: Zeroizing<[u8; 32]>,
    proxy: Option<Proxy>,
    lines: BTreeMap<NodeId, Line>,
    relay: Option<Relay>,
    clients: Vec<Client>,
    next: u32,
    outbox: mpsc::Sender<Came>,
    inbox: mpsc::Receiver<Came>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("relays", &self.lines.len())
            .field("clients", &self.clients.len())
            .finish_non_exhaustive()
    }
}

/// Why this machine can't relay over TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Nobody can connect.
    #[error("can't listen at {address}; choose another [relay] listen, or stop what has it")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// There is no certificate to show.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// There is no key.
    #[error("{0}")]
    Key(String),
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes")]
    NoChance(#[source] io::Error),
}

impl Streams {
    /// No stream yet.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn new(proxy: Option<Proxy>) -> io::Result<Self> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(io::Error::other)?;
        let (outbox, inbox) = mpsc::channel(WAITING);
        Ok(Self {
            secret,
            proxy,
            lines: BTreeMap::new(),
            relay: None,
            clients: Vec::new(),
            next: 0,
            outbox,
            inbox,
        })
    }

    /// Serves clients over TLS as `[relay]` says; `folder` keeps the key, and the certificate where
    /// none is given. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`ServeError`].
    pub fn serve(&mut self, config: &config::Relay, folder: &Path) -> Result<(), ServeError> {
        let Some(address) = config.listen else {
            return Ok(());
        };
        let mut private = std::fs::DirBuilder::new();
        let made = private.recursive(true).mode(0o700).create(folder);
        made.map_err(|e| ServeError::Key(format!("can't make {}: {e}", folder.display())))?;
        let certificate = match (&config.certificate, &config.key) {
            (Some(chain), Some(key)) => Certificate::read(chain, key)?,
            _ => Certificate::self_signed(folder, &["altnet".into()])?,
        };
        let secret = keys::identity(&folder.join("derp.identity")).map_err(ServeError::Key)?;
        let identity = ServerIdentity::new(secret, None);
        let tls = certificate.shown(&identity.public())?.config();
        let mut options = Options::new(ServerLimits {
            connections: usize::from(config.clients) + GUESTS,
            ..ServerLimits::SERVER
        });
        options.local = Some(self.local());
        let relay = Relay::new(identity, options).map_err(ServeError::NoChance)?;
        let refused = |source| ServeError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = TcpListener::from_std(listener).map_err(refused)?;
        let admit = admission(config.derp_clients.clone());
        crate::info!("relays over TLS at {address}, DERP key {}", relay.public());
        let served = relay.clone();
        tokio::spawn(async move { served.serve(listener, tls, admit).await });
        self.relay = Some(relay);
        Ok(())
    }

    fn local(&self) -> Local {
        let (packets, closings) = (self.outbox.clone(), self.outbox.clone());
        Local {
            packet: Arc::new(move |connection, key, to, packet| {
                // A full queue loses it.
                let came = Came::FromClient(connection, key, to, packet.to_vec());
                let _ = packets.try_send(came);
            }),
            closed: Arc::new(move |connection| {
                let closings = closings.clone();
                // This is never lost: places would fill up.
                tokio::spawn(async move { closings.send(Came::Gone(connection)).await });
            }),
        }
    }

    /// Waits for something to come.
    pub async fn came(&mut self) -> Came {
        match self.inbox.recv().await {
            Some(came) => came,
            None => std::future::pending().await,
        }
    }

    /// What came besides, without waiting.
    pub fn try_came(&mut self) -> Option<Came> {
        self.inbox.try_recv().ok()
    }

    /// Makes the streams that are wanted and ends the others; `ended` is told of those. Returns when
    /// to look again.
    pub fn tend(
        &mut self,
        wanted: &[WantedStream],
        mut ended: impl FnMut(NodeId),
        now: Instant,
    ) -> Instant {
        self.lines.retain(|relay, line| {
            let is_wanted = wanted.iter().any(|want| want.relay == *relay);
            if !is_wanted {
                if let Some(task) = line.task.take() {
                    task.abort();
                }
                ended(*relay);
            }
            is_wanted
        });
        for want in wanted {
            let line = self.lines.entry(want.relay).or_insert(Line {
                task: None,
                sender: None,
                again: now,
                pause: RETRY,
            });
            if line.task.is_none() && line.again <= now {
                let secret = SecretKey::new(*self.secret);
                let (outbox, proxy) = (self.outbox.clone(), self.proxy.clone());
                line.task = Some(tokio::spawn(run(want.clone(), secret, proxy, outbox)));
            }
        }
        let idle = self.lines.values().filter(|line| line.task.is_none());
        idle.map(|line| line.again).min().unwrap_or(Instant::NEVER)
    }

    /// Notes that a stream to a relay stands.
    pub fn up(&mut self, relay: NodeId, sender: Outgoing) {
        if let Some(line) = self.lines.get_mut(&relay) {
            line.sender = Some(sender);
            line.pause = RETRY;
        }
    }

    /// Notes that it doesn't.
    pub fn down(&mut self, relay: NodeId, now: Instant) {
        if let Some(line) = self.lines.get_mut(&relay) {
            line.task = None;
            line.sender = None;
            line.again = now.after(line.pause);
            line.pause = (line.pause * 2).min(RETRY_MOST);
        }
    }

    /// How many connections of clients there are.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }

    /// Sends a datagram over the stream to a relay, for a node.
    pub fn to_relay(&self, relay: NodeId, to: NodeId, datagram: &[u8]) {
        let line = self.lines.get(&relay);
        if let Some(Outgoing(sender)) = line.and_then(|line| line.sender.as_ref()) {
            // What can't be sent is lost, as on any network.
            let _ = sender.send(&key_of(to), datagram);
        }
    }

    /// Sends a datagram to a client of ours, from a node.
    pub fn to_client(&self, stream: StreamId, from: NodeId, datagram: &[u8]) {
        let client = self.clients.iter().find(|client| client.stream == stream);
        if let (Some(client), Some(relay)) = (client, &self.relay) {
            relay.send(client.connection, from, datagram);
        }
    }

    /// The stream of a connection; a new one is a guest's.
    pub fn stream_of(
        &mut self,
        connection: ConnectionId,
        key: PublicKey,
        now: Instant,
    ) -> Option<StreamId> {
        let known = self.clients.iter().find(|c| c.connection == connection);
        if let Some(client) = known {
            return Some(client.stream);
        }
        let guests = self.clients.iter().filter(|c| c.guest_until.is_some());
        if guests.count() >= GUESTS {
            return None;
        }
        self.next = self.next.wrapping_add(1);
        let stream = StreamId(self.next);
        self.clients.push(Client {
            stream,
            connection,
            key,
            guest_until: Some(now.after(GUEST)),
        });
        Some(stream)
    }

    /// Forgets a connection that has ended; returns its stream.
    pub fn gone(&mut self, connection: ConnectionId) -> Option<StreamId> {
        let at = self
            .clients
            .iter()
            .position(|c| c.connection == connection)?;
        Some(self.clients.swap_remove(at).stream)
    }

    /// Disconnects guests who didn't say who they are in time; `is_known` says who did. Returns when
    /// to look again.
    pub fn tend_guests(&mut self, is_known: impl Fn(StreamId) -> bool, now: Instant) -> Instant {
        let mut next = Instant::NEVER;
        for client in &mut self.clients {
            let Some(until) = client.guest_until else {
                continue;
            };
            if is_known(client.stream) {
                client.guest_until = None;
            } else if until > now {
                next = next.min(until);
            } else if let Some(relay) = &self.relay {
                relay.remove(&client.key);
                next = next.min(now.after(GUEST));
            }
        }
        next
    }
}

/// Everybody is a guest; those that `list` names are clients like any other.
fn admission(list: Option<std::path::PathBuf>) -> Admit {
    Arc::new(move |key, _| {
        let listed = list.as_deref().map(keys::list);
        let admission = match listed {
            Some(Ok(keys)) if keys.contains(&key) => Admission::Client,
            Some(Err(e)) => {
                crate::warning!("nobody of [relay] derp_clients is admitted: {e}");
                Admission::Guest
            }
            _ => Admission::Guest,
        };
        Box::pin(std::future::ready(admission))
    })
}

/// Connects to a relay, at the first of its addresses that answers, and carries what it sends.
async fn run(
    want: WantedStream,
    secret: SecretKey,
    proxy: Option<Proxy>,
    outbox: mpsc::Sender<Came>,
) {
    let relay = want.relay;
    let mut why = String::from("it has no address");
    for address in &want.addresses {
        let target = Target {
            host: address.ip().to_string(),
            port: PORT,
            addresses: vec![address.ip()],
            trust: Trust::Anybody,
            key: None,
            proxy: proxy.clone(),
        };
        let secret = SecretKey::new(*secret.bytes());
        let info = ClientInfo {
            version: VERSION,
            can_ack_pings: true,
            ..ClientInfo::default()
        };
        let connection = match Connection::connect(&target, secret, info).await {
            Ok(connection) => connection,
            Err(e) => {
                why = format!("{address}: {e}");
                continue;
            }
        };
        let sender = Outgoing(connection.sender());
        if outbox.send(Came::Up(relay, sender)).await.is_err() {
            return;
        }
        let packets = outbox.clone();
        let end = connection.run(move |event| {
            if let Event::Packet { from, packet } = event
                && let Some(node) = node_of(&from)
            {
                let _ = packets.try_send(Came::FromRelay(relay, node, packet.to_vec()));
            }
        });
        why = end.await.to_string();
        break;
    }
    // Nobody is there any more at the end.
    let _ = outbox.send(Came::Down(relay, why)).await;
}
