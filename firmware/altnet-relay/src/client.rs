//! A client's side: a connection to a relay, through an HTTP proxy if it has to be.
//!
//! In: which relay, how to know it, our DERP key. Out: a [`Sender`] for packets, which any task may
//! use, and a [`Connection`] whose [`Connection::run`] hands out what the relay sends, in the buffer
//! that it came in.
//!
//! Deliberately absent: connecting again, and which relay to use.

mod dial;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use altnet_core::derp::client::{ClientError, Event, NotSent};

use altnet_core::derp::boxes::SecretKey;
use altnet_core::derp::client::{Client, MAX_TRANSMIT_BYTES};
use altnet_core::derp::is_disco;
use altnet_core::derp::server::ServerLimits;
use altnet_wire::derp::info::{ClientInfo, ServerInfo};
use altnet_wire::derp::split::{Splitter, Writer};
use altnet_wire::derp::{BadFrame, PublicKey};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use tokio::sync::Notify;

pub use crate::line::LineError;
pub use crate::tls::TlsError;

use crate::clock;
use crate::http;
use crate::line::{self, Line};
use crate::proxy::{Proxy, ProxyError};
use crate::queue::Queue;
use crate::tls::{ROOM_BYTES, Tls};
use crate::trust::{self, Trust};

/// How long connecting may take, from the name to the admission.
const PATIENCE: Duration = Duration::from_secs(10);

/// A relay, and how to reach and know it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its host name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where it is, if the name needn't be resolved.
    pub addresses: Vec<std::net::IpAddr>,
    /// How its certificate is judged.
    pub trust: Trust,
    /// Its DERP key, if no other will do.
    pub key: Option<PublicKey>,
    /// Through which proxy.
    pub proxy: Option<Proxy>,
}

/// Why there is no connection, or it has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionError {
    /// Its name or address leads nowhere.
    #[error("can't reach {host}: {source}")]
    Unreachable {
        /// The relay's or the proxy's.
        host: String,
        /// Why not.
        source: std::io::Error,
    },
    /// It isn't the name of a host.
    #[error("{host} isn't the name of a host")]
    BadName {
        /// The name.
        host: String,
    },
    /// The proxy doesn't help.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The connection broke.
    #[error(transparent)]
    Line(#[from] LineError),
    /// It doesn't speak DERP.
    #[error("the relay answered {status}")]
    Refused {
        /// The status of its answer.
        status: u16,
    },
    /// What it answers isn't HTTP.
    #[error("what the relay answers isn't HTTP")]
    NotHttp,
    /// It isn't the relay that was meant, or doesn't keep to the protocol.
    #[error(transparent)]
    Machine(#[from] ClientError),
    /// Connecting takes too long.
    #[error("connecting takes too long")]
    TooSlow,
    /// We ended it.
    #[error("it was closed")]
    Closed,
    /// The kernel gives no random bytes.
    #[error("the kernel gives no random bytes: {0}")]
    NoChance(getrandom::Error),
}

impl From<BadFrame> for ConnectionError {
    fn from(e: BadFrame) -> Self {
        Self::Machine(e.into())
    }
}

impl From<TlsError> for ConnectionError {
    fn from(e: TlsError) -> Self {
        Self::Line(e.into())
    }
}

struct State {
    client: Client,
    queue: Queue,
    is_closed: bool,
}

impl State {
    /// Queues what the machine wants to write, in front of packets.
    fn drain(&mut self) {
        let mut out = [0; MAX_TRANSMIT_BYTES];
        while let Some(length) = self.client.poll_transmit(&mut out) {
            self.queue.push_encoded(out.get(..length).unwrap_or(&[]));
        }
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends packets over a connection.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sender(..)")
    }
}

impl Sender {
    /// Queues a packet for a client of the relay. When the queue is full its oldest packet goes.
    ///
    /// # Errors
    /// [`NotSent`].
    pub fn send(&self, to: &PublicKey, packet: &[u8]) -> Result<(), NotSent> {
        let mut state = self.shared.lock();
        let prefix = state.client.send(to, packet.len(), clock::now())?;
        state.queue.push_packet(&prefix, packet, is_disco(packet));
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// What the relay knows us by.
    pub fn public(&self) -> PublicKey {
        self.shared.lock().client.public()
    }

    /// Says whether the relay is our home.
    pub fn note_preferred(&self, is_preferred: bool) {
        self.tell(|client| client.note_preferred(is_preferred));
    }

    /// Asks for a sign of life; [`Event::Pong`] follows.
    pub fn ping(&self) {
        self.tell(|client| client.ping(clock::now()));
    }

    /// Asks who comes and goes, as another relay of its region.
    pub fn watch(&self) {
        self.tell(Client::watch);
    }

    /// Ends the connection, once what is queued is written.
    pub fn close(&self) {
        self.shared.lock().is_closed = true;
        self.shared.wake.notify_one();
    }

    fn tell(&self, what: impl FnOnce(&mut Client)) {
        let mut state = self.shared.lock();
        what(&mut state.client);
        state.drain();
        drop(state);
        self.shared.wake.notify_one();
    }
}

/// A connection to a relay that admitted us.
pub struct Connection {
    line: Line<UnbufferedClientConnection>,
    splitter: Splitter,
    shared: Arc<Shared>,
    server: PublicKey,
    info: ServerInfo,
}

impl Connection {
    /// Connects to a relay and waits until it admits us.
    ///
    /// # Errors
    /// [`ConnectionError`].
    pub async fn connect(
        target: &Target,
        secret: SecretKey,
        info: ClientInfo,
    ) -> Result<Self, ConnectionError> {
        let connect = Box::pin(begin(target, secret, info));
        let connected = tokio::time::timeout(PATIENCE, connect).await;
        connected.map_err(|_| ConnectionError::TooSlow)?
    }

    /// What sends packets over it.
    pub fn sender(&self) -> Sender {
        Sender {
            shared: Arc::clone(&self.shared),
        }
    }

    /// The relay's key.
    pub const fn server(&self) -> PublicKey {
        self.server
    }

    /// What the relay says of itself.
    pub const fn info(&self) -> &ServerInfo {
        &self.info
    }

    /// Moves packets until the connection ends, and says why. `on_event` is handed what the relay
    /// sends; it is called from within, and is to return soon.
    pub async fn run(mut self, mut on_event: impl FnMut(Event<'_>)) -> ConnectionError {
        let mut held = std::mem::take(&mut self.line.plain);
        let end = loop {
            match self.turn(&mut held, &mut on_event) {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => {
                    if let Err(end) = self.wait().await {
                        break end;
                    }
                }
                Err(end) => break end,
            }
        };
        if matches!(end, ConnectionError::Closed) {
            self.line.finish();
        }
        end
    }

    /// Writes and reads what can be; whether something was read.
    fn turn(
        &mut self,
        held: &mut Vec<u8>,
        on_event: &mut dyn FnMut(Event<'_>),
    ) -> Result<bool, ConnectionError> {
        // What came with the admission.
        if !held.is_empty() {
            let bytes = std::mem::take(held);
            *held = take(&self.shared, &mut self.splitter, &bytes, on_event)?.to_vec();
        }
        self.write()?;
        let mut taken = Ok(());
        let has_read = self.line.try_read(&mut |bytes| {
            if taken.is_err() {
                return;
            }
            if held.is_empty() {
                taken = take(&self.shared, &mut self.splitter, bytes, on_event)
                    .map(|rest| held.extend_from_slice(rest));
            } else {
                held.extend_from_slice(bytes);
                let whole = std::mem::take(held);
                taken = take(&self.shared, &mut self.splitter, &whole, on_event)
                    .map(|rest| *held = rest.to_vec());
            }
        });
        taken?;
        Ok(has_read?)
    }

    fn write(&mut self) -> Result<(), ConnectionError> {
        while self.line.try_flush()? {
            let mut state = self.shared.lock();
            let mut sealed = Ok(false);
            state.queue.take(ROOM_BYTES, |frames| {
                if sealed.is_ok() {
                    sealed = self.line.seal(frames).map(|()| true);
                }
            });
            if sealed? {
                continue;
            }
            let Some(frame) = state.queue.take_long(ROOM_BYTES) else {
                if state.is_closed {
                    return Err(ConnectionError::Closed);
                }
                return Ok(());
            };
            drop(state);
            self.line.seal(&frame)?;
        }
        let is_stuck = |since: tokio::time::Instant| since.elapsed() >= PATIENCE;
        if self.line.stuck_since().is_some_and(is_stuck) {
            return Err(LineError::TooSlow.into());
        }
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), ConnectionError> {
        let silent = {
            let state = self.shared.lock();
            state.client.handle_timeout(clock::now())?;
            clock::at(state.client.deadline())
        };
        let stuck = self.line.stuck_since().map(|since| since + PATIENCE);
        let deadline = stuck.map_or(silent, |stuck| stuck.min(silent));
        tokio::select! {
            ready = self.line.ready(true) => ready.map_err(LineError::from)?,
            () = self.shared.wake.notified() => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
        Ok(())
    }
}

/// Hands out the frames at the front of `bytes` and returns what is left.
fn take<'b>(
    shared: &Shared,
    splitter: &mut Splitter,
    bytes: &'b [u8],
    on_event: &mut dyn FnMut(Event<'_>),
) -> Result<&'b [u8], ConnectionError> {
    let now = clock::now();
    let mut rest = bytes;
    while let Some(raw) = splitter.next(&mut rest)? {
        let mut state = shared.lock();
        let event = state.client.handle_frame(raw, now)?;
        state.drain();
        // Whoever is handed an event may send.
        drop(state);
        if let Some(event) = event {
            on_event(event);
        }
    }
    Ok(rest)
}

async fn begin(
    target: &Target,
    secret: SecretKey,
    info: ClientInfo,
) -> Result<Connection, ConnectionError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(ConnectionError::NoChance)?;
    let client = Client::new(secret, info, target.key, seed, clock::now());
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            client,
            queue: Queue::new(ServerLimits::ROUTER.queue),
            is_closed: false,
        }),
        wake: Notify::new(),
    });
    let mut line = line(target).await?;
    line.handshake().await?;
    // Known from the certificate, the relay needn't be waited for.
    let meta = trust::meta_key(line.tls().certificates());
    let host = authority(target);
    if let Some(server) = meta {
        shared.lock().client.handle_server_key(server)?;
    }
    line.seal(&http::request(&host, meta.is_some()))?;
    if meta.is_none() {
        line.flush().await?;
        switch(&mut line).await?;
    }
    let mut splitter = Splitter::new(Writer::Server);
    loop {
        write_queued(&shared, &mut line)?;
        line.flush().await?;
        let bytes = std::mem::take(&mut line.plain);
        let mut rest = bytes.as_slice();
        let raw = splitter.next(&mut rest)?;
        let event = match raw {
            Some(raw) => shared.lock().client.handle_frame(raw, clock::now())?,
            None => None,
        };
        let is_idle = raw.is_none();
        line.plain = rest.to_vec();
        if let Some(Event::Admitted(info)) = event {
            let server = shared.lock().client.server();
            return Ok(Connection {
                line,
                splitter,
                server: server.unwrap_or(PublicKey([0; 32])),
                shared,
                info,
            });
        }
        if is_idle {
            line.read_more().await?;
        }
    }
}

/// Seals what the machine wants to write.
fn write_queued(
    shared: &Shared,
    line: &mut Line<UnbufferedClientConnection>,
) -> Result<(), LineError> {
    let mut state = shared.lock();
    state.drain();
    let mut sealed = Ok(());
    state.queue.take(ROOM_BYTES, |frames| {
        if sealed.is_ok() {
            sealed = line.seal(frames);
        }
    });
    sealed
}

/// A connection with TLS that has still to begin.
async fn line(target: &Target) -> Result<Line<UnbufferedClientConnection>, ConnectionError> {
    let bad_name = || ConnectionError::BadName {
        host: target.host.clone(),
    };
    let name = ServerName::try_from(target.host.clone()).map_err(|_| bad_name())?;
    let stream = match &target.proxy {
        Some(proxy) => {
            let stream = dial::dial(&proxy.host, &[], proxy.port).await?;
            proxy.connect(&stream, &target.host, target.port).await?;
            stream
        }
        None => dial::dial(&target.host, &target.addresses, target.port).await?,
    };
    line::tune(&stream);
    let config = target.trust.config().map_err(TlsError::from)?;
    Ok(Line::new(stream, Tls::client(config, name)?))
}

/// What `Host` says (RFC 9112 section 3.2).
fn authority(target: &Target) -> String {
    let Target { host, port, .. } = target;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    if *port == 443 {
        host
    } else {
        format!("{host}:{port}")
    }
}

/// Waits until the relay says that DERP begins.
async fn switch(line: &mut Line<UnbufferedClientConnection>) -> Result<(), ConnectionError> {
    let length = loop {
        if let Some(length) = http::head_length(&line.plain) {
            break length;
        }
        if line.plain.len() > http::MAX_HEAD_BYTES {
            return Err(ConnectionError::NotHttp);
        }
        line.read_more().await?;
    };
    let head: Vec<u8> = line.plain.drain(..length).collect();
    match http::status(&head) {
        Some(101) => Ok(()),
        Some(status) => Err(ConnectionError::Refused { status }),
        None => Err(ConnectionError::NotHttp),
    }
}
