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
use altnet_core::relay::guests::MAX_GUESTS;
use altnet_relay::acme::Folder;
use altnet_relay::certificate::{Certificate, CertificateError};
use altnet_relay::client::{Event, Sender, Target};
use altnet_relay::keys;
use altnet_relay::proxy::Proxy;
use altnet_relay::server::{Admission, Admit, Local, Options, Relay};
use altnet_relay::trust::Trust;
use altnet_wire::derp::node::{key_of, node_of};
use altnet_wire::id::NodeId;
use altnet_wire::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use crate::config;
use crate::lines::{self, Lines};
use crate::news::News;

/// The port of relays' TLS, the one that no network blocks.
pub const PORT: u16 = 443;
/// Datagrams and news that wait for the loop.
const WAITING: usize = 512;
/// The longest pause before a relay is tried again.
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Something that came.
#[derive(Debug)]
pub enum Came {
    /// A stream to a relay stands.
    Up(NodeId, Sender),
    /// It has ended, or didn't come to be.
    Down(NodeId, String),
    /// A datagram over the stream to a relay, from a node.
    FromRelay(NodeId, NodeId, Vec<u8>),
    /// A datagram of a client of ours, for a node.
    FromClient(ConnectionId, NodeId, Vec<u8>),
    /// Somebody connected to us who isn't known yet.
    Guest(ConnectionId),
    /// A client's connection has ended.
    Gone(ConnectionId),
}

/// The connections of clients of ours, and the streams by which the node knows them.
#[derive(Debug, Default)]
struct Clients {
    streams: BTreeMap<ConnectionId, StreamId>,
    connections: BTreeMap<StreamId, ConnectionId>,
    last: u32,
}

impl Clients {
    /// The stream of a connection; one that is new gets one.
    fn stream_of(&mut self, connection: ConnectionId) -> StreamId {
        if let Some(stream) = self.streams.get(&connection) {
            return *stream;
        }
        self.last = self.last.wrapping_add(1);
        let stream = StreamId(self.last);
        self.streams.insert(connection, stream);
        self.connections.insert(stream, connection);
        stream
    }

    /// Forgets a connection; returns its stream.
    fn gone(&mut self, connection: ConnectionId) -> Option<StreamId> {
        let stream = self.streams.remove(&connection)?;
        self.connections.remove(&stream);
        Some(stream)
    }
}

/// All streams.
pub struct Streams {
    secret: Zeroizing<[u8; 32]>,
    proxy: Option<Proxy>,
    lines: Lines<NodeId>,
    relay: Option<Relay>,
    listens: Option<SocketAddr>,
    clients: Clients,
    /// What the tasks tell.
    pub news: News<Came>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("relays", &self.lines.len())
            .field("clients", &self.clients.streams.len())
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
        Ok(Self {
            secret,
            proxy,
            lines: Lines::new(RETRY_MOST),
            relay: None,
            listens: None,
            clients: Clients::default(),
            news: News::new(WAITING),
        })
    }

    /// Serves clients over TLS as `[relay]` says; `folder` keeps the key, and the certificate where
    /// none is given or got yet. Needs a tokio runtime.
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
        let shown = match &config.acme {
            Some(folder) => {
                let folder = Folder::new(folder);
                certificate.shown_until(&identity.public(), folder, Arc::new(note_renewed))?
            }
            None => certificate.shown(&identity.public())?,
        };
        let tls = shown.config();
        let mut options = Options::new(ServerLimits {
            connections: usize::from(config.clients) + MAX_GUESTS,
            ..ServerLimits::SERVER
        });
        options.local = Some(self.local());
        let relay = Relay::new(identity, options).map_err(ServeError::NoChance)?;
        let refused = |source| ServeError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let listener = TcpListener::from_std(listener).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let admit = admission(config.derp_clients.clone());
        crate::info!("relays over TLS at {address}, DERP key {}", relay.public());
        let served = relay.clone();
        tokio::spawn(async move { served.serve(listener, tls, admit).await });
        self.relay = Some(relay);
        self.listens = Some(address);
        Ok(())
    }

    fn local(&self) -> Local {
        let (openings, packets) = (self.news.outbox(), self.news.outbox());
        let closings = self.news.outbox();
        Local {
            opened: Arc::new(move |connection| {
                let openings = openings.clone();
                // Nobody is there any more at the end.
                Box::pin(async move { drop(openings.send(Came::Guest(connection)).await) })
            }),
            packet: Arc::new(move |connection, to, packet| {
                // A full queue loses it.
                let came = Came::FromClient(connection, to, packet.to_vec());
                let _ = packets.try_send(came);
            }),
            closed: Arc::new(move |connection| {
                let closings = closings.clone();
                // This is never lost: places would fill up.
                tokio::spawn(async move { closings.send(Came::Gone(connection)).await });
            }),
        }
    }

    /// Makes the streams that are wanted and ends the others; `ended` is told of those. Returns when
    /// to look again.
    pub fn tend(
        &mut self,
        wanted: &[WantedStream],
        ended: impl FnMut(NodeId),
        now: Instant,
    ) -> Instant {
        let begin = |want: &WantedStream| {
            let secret = SecretKey::new(*self.secret);
            let (outbox, proxy) = (self.news.outbox(), self.proxy.clone());
            Some(run(want.clone(), secret, proxy, outbox))
        };
        self.lines
            .tend(wanted, |want| want.relay, begin, ended, now)
    }

    /// Notes that a stream to a relay stands.
    pub fn up(&mut self, relay: NodeId, sender: Sender) {
        self.lines.up(relay, sender);
    }

    /// Notes that it doesn't.
    pub fn down(&mut self, relay: NodeId, now: Instant) {
        self.lines.down(relay, now);
    }

    /// Where clients connect, if they may.
    pub const fn listens(&self) -> Option<SocketAddr> {
        self.listens
    }

    /// How many connections of clients there are.
    pub fn clients(&self) -> usize {
        self.clients.streams.len()
    }

    /// Sends a datagram over the stream to a relay, for a node.
    pub fn to_relay(&self, relay: NodeId, to: NodeId, datagram: &[u8]) {
        self.lines.send(relay, &key_of(to), datagram);
    }

    /// Sends a datagram to a client of ours, from a node.
    pub fn to_client(&self, stream: StreamId, from: NodeId, datagram: &[u8]) {
        let connection = self.clients.connections.get(&stream);
        if let (Some(connection), Some(relay)) = (connection, &self.relay) {
            relay.send(*connection, from, datagram);
        }
    }

    /// The stream of a connection.
    pub fn stream_of(&mut self, connection: ConnectionId) -> StreamId {
        self.clients.stream_of(connection)
    }

    /// Disconnects a client of ours.
    pub fn close_client(&self, stream: StreamId) {
        let connection = self.clients.connections.get(&stream);
        if let (Some(connection), Some(relay)) = (connection, &self.relay) {
            relay.close(*connection);
        }
    }

    /// Forgets a connection that has ended; returns its stream.
    pub fn gone(&mut self, connection: ConnectionId) -> Option<StreamId> {
        self.clients.gone(connection)
    }
}

fn note_renewed(taken: Result<(), &CertificateError>) {
    match taken {
        Ok(()) => crate::info!("shows the certificate that altnet-acme has got"),
        Err(e) => crate::warning!(
            "still shows the certificate it had, as what altnet-acme has got is of no use: {e}; is its `group` the one that altnetd runs as?"
        ),
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
        let connection = match lines::connect(&target, secret).await {
            Ok(connection) => connection,
            Err(e) => {
                why = format!("{address}: {e}");
                continue;
            }
        };
        let up = Came::Up(relay, connection.sender());
        if outbox.send(up).await.is_err() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use altnet_relay::client::Connection;
    use altnet_wire::derp::info::ClientInfo;

    /// Connects to a relay as somebody whom it doesn't know, and says nothing.
    async fn silent_guest(relay: SocketAddr, key: u8) -> Connection {
        let target = Target {
            host: relay.ip().to_string(),
            port: relay.port(),
            addresses: vec![relay.ip()],
            trust: Trust::Anybody,
            key: None,
            proxy: None,
        };
        let secret = SecretKey::new([key; 32]);
        let connected = Connection::connect(&target, secret, ClientInfo::default());
        connected.await.expect("a relay takes guests")
    }

    async fn came(streams: &mut Streams) -> Came {
        let patience = std::time::Duration::from_secs(20);
        let came = tokio::time::timeout(patience, streams.news.came());
        came.await.expect("something comes")
    }

    #[tokio::test]
    async fn a_guest_that_says_nothing_is_known_of_and_goes_when_it_is_told_to() {
        let folder = tempfile::tempdir().unwrap();
        let mut streams = Streams::new(None).unwrap();
        let config = config::Relay {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            ..config::Relay::default()
        };
        streams.serve(&config, folder.path()).unwrap();
        let relay = streams.listens().unwrap();
        let (silent, other) = (silent_guest(relay, 1).await, silent_guest(relay, 2).await);
        let other = tokio::spawn(other.run(|_| {}));
        let silent = tokio::spawn(silent.run(|_| {}));
        let mut known = Vec::new();
        while known.len() < 2 {
            let Came::Guest(connection) = came(&mut streams).await else {
                panic!("only guests come");
            };
            known.push((connection, streams.stream_of(connection)));
        }
        let (connection, stream) = known[0];
        streams.close_client(stream);
        let Came::Gone(gone) = came(&mut streams).await else {
            panic!("the connection has ended");
        };
        assert_eq!(gone, connection);
        assert_eq!(streams.gone(gone), Some(stream));
        assert_eq!(streams.clients(), 1);
        // The other one stays.
        let ended = [silent.is_finished(), other.is_finished()];
        assert!(!(ended[0] && ended[1]), "both were disconnected");
    }

    #[tokio::test]
    async fn a_certificate_that_altnet_acme_has_got_is_shown_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let (relay, acme) = (folder.path().join("relay"), folder.path().join("acme"));
        let mut streams = Streams::new(None).unwrap();
        let config = config::Relay {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            acme: Some(acme.clone()),
            ..config::Relay::default()
        };
        streams.serve(&config, &relay).unwrap();
        let address = streams.listens().unwrap();
        let own = Certificate::read(&relay.join("derp.crt"), &relay.join("derp.key")).unwrap();
        let got = Certificate::self_signed(&acme, &["relay.test".into()]).unwrap();
        let (own, got) = (own.pin().unwrap(), got.pin().unwrap());
        let connect = |pin| async move {
            let target = Target {
                host: address.ip().to_string(),
                port: address.port(),
                addresses: vec![address.ip()],
                trust: Trust::Pin(pin),
                key: None,
                proxy: None,
            };
            let secret = SecretKey::new([1; 32]);
            Connection::connect(&target, secret, ClientInfo::default()).await
        };
        assert!(connect(own).await.is_ok());
        let halves = ["derp.key", "derp.crt"].map(|file| std::fs::read(acme.join(file)).unwrap());
        std::fs::write(acme.join("certificate.pem"), halves.concat()).unwrap();
        assert!(connect(got).await.is_ok());
        assert!(connect(own).await.is_err());
    }
}
