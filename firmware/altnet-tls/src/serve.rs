//! The conversation with altnetd, and a task for each connection.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use altnet_wire::tls::talk::{self, CONNECTION_DESCRIPTORS, FromTls, MAX_TALK_BYTES, ToTls};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use crate::socket::{Packet, Socket};
use crate::{HANDSHAKE, MAX_CONNECTIONS, confine, keys};

/// Bytes carried at a time each way.
const CARRIED_BYTES: usize = 16 * 1024;

/// Why it can't go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It was not altnetd that started it.
    #[error(
        "standard input is no socket of altnetd's ({0}); altnetd starts this program by itself"
    )]
    Alone(#[source] io::Error),
    /// The conversation broke.
    #[error("can't talk with altnetd: {0}")]
    Broke(#[source] io::Error),
    /// altnetd is of another build.
    #[error("altnetd speaks another version; install both from one build")]
    Version,
    /// What was said makes no sense.
    #[error("altnetd said what is not understood; install both from one build")]
    Strange,
    /// The kernel won't let privileges go.
    #[error("can't give up privileges: {0}")]
    Confine(#[source] io::Error),
    /// No key could be made.
    #[error(transparent)]
    NoKey(#[from] keys::NoKey),
}

/// Talks with altnetd at the other end of `socket` until that ends.
///
/// # Errors
/// [`ServeError`].
pub fn run(socket: BorrowedFd<'_>) -> Result<(), ServeError> {
    let socket = socket.try_clone_to_owned().map_err(ServeError::Alone)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ServeError::Broke)?;
    // After what the runtime opens, before anything that a caller sends.
    confine::confine().map_err(ServeError::Confine)?;
    runtime.block_on(async {
        let socket = Socket::new(socket).map_err(ServeError::Alone)?;
        Server::new().converse(&socket).await
    })
}

/// What is served.
#[derive(Debug)]
pub struct Server {
    provider: Arc<CryptoProvider>,
    names: BTreeMap<String, Arc<ServerConfig>>,
    connections: JoinSet<()>,
    has_begun: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Nothing yet.
    pub fn new() -> Self {
        Self {
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            names: BTreeMap::new(),
            connections: JoinSet::new(),
            has_begun: false,
        }
    }

    /// Does what altnetd says until it is gone.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn converse(mut self, socket: &Socket) -> Result<(), ServeError> {
        loop {
            tokio::select! {
                packet = socket.receive() => match packet {
                    Ok(Some(packet)) => self.hear(packet, socket).await?,
                    Ok(None) => return Ok(()),
                    Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                    Err(e) => return Err(ServeError::Alone(e)),
                },
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn hear(&mut self, packet: Packet, socket: &Socket) -> Result<(), ServeError> {
        let message = talk::decode(&packet.bytes).map_err(|_| ServeError::Strange)?;
        let is_beginning = matches!(message, ToTls::Begin { .. });
        if is_beginning == self.has_begun {
            return Err(ServeError::Strange);
        }
        match message {
            ToTls::Begin { version } if version == talk::VERSION => self.has_begun = true,
            ToTls::Begin { .. } => return Err(ServeError::Version),
            ToTls::Make {
                network,
                device,
                subject,
            } => {
                let made = keys::make(&network, &device, &subject)?;
                let answer = FromTls::Made {
                    secret: &made.secret,
                    key: made.key,
                    proof: made.proof,
                };
                say(socket, &answer).await?;
            }
            ToTls::Serve {
                name,
                key,
                certificate,
            } => match keys::config(Arc::clone(&self.provider), key, certificate) {
                Ok(config) => {
                    self.names.insert(name.into(), config);
                }
                Err(e) => {
                    self.names.remove(name);
                    let why: String = e.to_string().chars().take(200).collect();
                    say(socket, &FromTls::Unfit { name, why: &why }).await?;
                }
            },
            ToTls::Forget { name } => {
                self.names.remove(name);
            }
            ToTls::Connection { name } => self.open(name, packet.descriptors)?,
        }
        Ok(())
    }

    /// Begins a connection; one that can't be had ends as its sockets are dropped.
    fn open(&mut self, name: &str, descriptors: Vec<OwnedFd>) -> Result<(), ServeError> {
        let [caller, app]: [OwnedFd; CONNECTION_DESCRIPTORS] =
            descriptors.try_into().map_err(|_| ServeError::Strange)?;
        let Some(config) = self.names.get(name) else {
            return Ok(());
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            return Ok(());
        }
        let acceptor = TlsAcceptor::from(Arc::clone(config));
        let caller = stream(caller).map_err(ServeError::Broke)?;
        let app = stream(app).map_err(ServeError::Broke)?;
        self.connections.spawn(carry(acceptor, caller, app));
        Ok(())
    }
}

fn stream(socket: OwnedFd) -> io::Result<UnixStream> {
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

async fn say(socket: &Socket, message: &FromTls<'_>) -> Result<(), ServeError> {
    let mut out = Zeroizing::new(vec![0; MAX_TALK_BYTES]);
    let bytes = talk::encode(message, &mut out).ok_or(ServeError::Strange)?;
    socket.send(bytes).await.map_err(ServeError::Broke)
}

/// Carries one connection until both sides have said all. Who breaks off is answered alike.
async fn carry(acceptor: TlsAcceptor, caller: UnixStream, mut app: UnixStream) {
    let Ok(Ok(mut caller)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(caller)).await else {
        return;
    };
    // How long anybody may be silent is altnetd's to judge, who holds both other ends.
    let _ =
        copy_bidirectional_with_sizes(&mut caller, &mut app, CARRIED_BYTES, CARRIED_BYTES).await;
}
