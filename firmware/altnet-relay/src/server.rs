//! The server's side: who connects, and the tasks in which their bytes move.
//!
//! In: a listener, a TLS configuration, and who is admitted. Out: packets, from one connection into the
//! queue of another. Each connection is a task of its own, which reads, hands what it read to the
//! machine under one lock, and writes what others queued for it, as much as there is at a time.
//!
//! Deliberately absent: what the machine decides, see `altnet_core::derp::server`.

mod arrival;
mod connection;
mod outbox;
mod plain;
mod shared;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use altnet_core::derp::handshake::ServerIdentity;
use altnet_core::derp::server::{ConnectionId, ServerCounters, ServerLimits};
use altnet_wire::derp::{Frame, PublicKey, node};
use altnet_wire::id::NodeId;
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::line;
pub use plain::serve_plain;
use shared::Shared;

/// What accepting waits after the kernel refused: it has no file descriptors left.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What somebody who comes may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing.
    Refused,
    /// Send to nodes, as far as [`Local`] takes that; to no other client.
    Guest,
    /// Everything that a client of a DERP server may.
    Client,
}

/// What takes a packet that a connection sent to a node.
pub type TakePacket = Arc<dyn Fn(ConnectionId, NodeId, &[u8]) + Send + Sync>;

/// What takes note of a guest's connection.
pub type Opened =
    Arc<dyn Fn(ConnectionId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Who is behind packets that go to nodes rather than to clients' keys
/// ([`altnet_wire::derp::node`]). Called from the tasks of connections: it is to return soon, and not
/// to call the relay.
#[derive(Clone)]
pub struct Local {
    /// A guest's connection stands; nothing of it is read until this is done.
    pub opened: Opened,
    /// Takes a packet that a connection sent to a node.
    pub packet: TakePacket,
    /// A connection has ended.
    pub closed: Arc<dyn Fn(ConnectionId) + Send + Sync>,
}

/// Who may come, by its key and where it comes from.
pub type Admit = Arc<
    dyn Fn(PublicKey, Option<SocketAddr>) -> Pin<Box<dyn Future<Output = Admission> + Send>>
        + Send
        + Sync,
>;

/// What to do with what happens; never with a packet.
pub type Tell = Arc<dyn Fn(&Notice) + Send + Sync>;

/// What a relay is told.
#[derive(Clone)]
pub struct Options {
    /// What it has room for.
    pub limits: ServerLimits,
    /// How many connections may be in their handshake.
    pub handshakes: usize,
    /// How long a client may take nothing of what it is sent. Tailscale's server waits 2 s.
    pub patience: Duration,
    /// How long another relay may.
    pub mesh_patience: Duration,
    /// What to do with what happens.
    pub tell: Option<Tell>,
    /// Who takes packets for nodes.
    pub local: Option<Local>,
}

impl Options {
    /// With room for `limits`, and as patient as Tailscale's server.
    pub const fn new(limits: ServerLimits) -> Self {
        Self {
            limits,
            handshakes: 256,
            patience: Duration::from_secs(2),
            mesh_patience: Duration::from_secs(30),
            tell: None,
            local: None,
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// A client came.
    Came {
        /// Its key.
        key: PublicKey,
        /// Where from.
        address: SocketAddr,
    },
    /// A client's connection ended.
    Went {
        /// Its key.
        key: PublicKey,
        /// Where it was.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// Somebody came who isn't a client now.
    Refused {
        /// Where from.
        address: SocketAddr,
        /// Why.
        why: String,
    },
}

/// A relay.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
}

impl Relay {
    /// A relay of this identity.
    ///
    /// # Errors
    /// Of the kernel's random source.
    pub fn new(identity: ServerIdentity, options: Options) -> io::Result<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(io::Error::other)?;
        Ok(Self {
            shared: Arc::new(Shared::new(identity, options, seed)),
        })
    }

    /// What clients know it by.
    pub fn public(&self) -> PublicKey {
        self.shared.identity.public()
    }

    /// Serves whoever connects, until the future is dropped or [`Relay::stop`]; connections that there
    /// are then end with [`Relay::stop`] alone. May run for several listeners at once.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>, admit: Admit) {
        let handshakes = Arc::new(Semaphore::new(self.shared.options.handshakes));
        tokio::select! {
            () = self.accept(&listener, &tls, &admit, &handshakes) => {}
            () = self.shared.run_clock() => {}
            () = self.shared.stopped() => {}
        }
    }

    async fn accept(
        &self,
        listener: &TcpListener,
        tls: &Arc<ServerConfig>,
        admit: &Admit,
        handshakes: &Arc<Semaphore>,
    ) {
        // Closed never.
        while let Ok(permit) = Arc::clone(handshakes).acquire_owned().await {
            let (stream, address) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(_) => {
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            line::tune(&stream);
            let visitor = arrival::Visitor {
                stream,
                // A socket for both families names IPv4 in IPv6's words.
                address: SocketAddr::new(address.ip().to_canonical(), address.port()),
                tls: Arc::clone(tls),
                admit: Arc::clone(admit),
                permit,
            };
            tokio::spawn(connection::run(Arc::clone(&self.shared), visitor));
        }
    }

    /// Sends a packet from a node to a connection, if there is that still.
    pub fn send(&self, to: ConnectionId, from: NodeId, packet: &[u8]) {
        self.shared
            .lock()
            .deliver(to, node::key_of(from), packet, false);
    }

    /// The clients that are connected and were admitted; other relays of the region weren't asked about.
    pub fn admitted(&self) -> Vec<PublicKey> {
        self.shared.lock().server().admitted().copied().collect()
    }

    /// Ends one connection, if there is that still.
    pub fn close(&self, connection: ConnectionId) {
        self.shared.lock().close(connection);
    }

    /// Disconnects a client that isn't admitted any more.
    pub fn remove(&self, key: &PublicKey) {
        self.shared.lock().remove(key);
    }

    /// Whether a client is connected.
    pub fn is_connected(&self, key: &PublicKey) -> bool {
        self.shared.lock().server().is_connected(key)
    }

    /// What happened so far, and what there is.
    pub fn counters(&self) -> ServerCounters {
        *self.shared.lock().server().counters()
    }

    /// Tells every client that the relay restarts, and when to come again.
    pub fn announce_restart(&self, reconnect_in: Duration, try_for: Duration) {
        let ms = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let frame = Frame::Restarting {
            reconnect_in_ms: ms(reconnect_in),
            try_for_ms: ms(try_for),
        };
        self.shared.lock().send_to_all(&frame);
    }

    /// Disconnects everybody and serves nobody any more.
    pub fn stop(&self) {
        self.shared.stop();
    }
}
