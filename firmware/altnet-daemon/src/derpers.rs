//! Connections to other people's DERP servers. The node says which it wants; tasks make them, and try
//! again ever later. What is inside is sealed from end to end.
//!
//! Datagrams wait in one bounded queue for the gateway's loop; one that is full loses them, as a
//! network does.

use std::collections::BTreeMap;

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::client::{Connection, Event, Sender, Target};
use altnet_relay::proxy::Proxy;
use altnet_wire::derp::info::ClientInfo;
use altnet_wire::derp::{PublicKey, VERSION};
use altnet_wire::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::config::Derp;

/// Datagrams and news that wait for the loop.
const WAITING: usize = 512;
/// The first pause before a server is tried again; each next is twice as long.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_MOST: Duration = Duration::from_secs(300);

/// Something that came, of the server with that place among those that were entered.
pub enum Came {
    /// It admitted us.
    Up(usize, Sender),
    /// It didn't, or the connection has ended.
    Down(usize, String),
    /// A datagram of the client with this key.
    Datagram(usize, PublicKey, Vec<u8>),
    /// Nobody with this key is connected to it.
    Gone(usize, PublicKey),
}

impl std::fmt::Debug for Came {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Came(..)")
    }
}

/// A connection that is wanted.
struct Line {
    task: Option<JoinHandle<()>>,
    sender: Option<Sender>,
    again: Instant,
    pause: Duration,
}

/// The servers that may be used.
pub struct Derpers {
    servers: Vec<Derp>,
    proxy: Option<Proxy>,
    lines: BTreeMap<usize, Line>,
    outbox: mpsc::Sender<Came>,
    inbox: mpsc::Receiver<Came>,
}

impl std::fmt::Debug for Derpers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Derpers")
            .field("servers", &self.servers.len())
            .finish_non_exhaustive()
    }
}

impl Derpers {
    /// None is connected yet.
    pub fn new(servers: &[Derp], proxy: Option<Proxy>) -> Self {
        let (outbox, inbox) = mpsc::channel(WAITING);
        Self {
            servers: servers.to_vec(),
            proxy,
            lines: BTreeMap::new(),
            outbox,
            inbox,
        }
    }

    /// Makes the connections that are wanted, with the key by which servers know us, and ends the
    /// others; `ended` is told of those. Returns when to look again. Needs a tokio runtime.
    pub fn tend(
        &mut self,
        wanted: &[usize],
        secret: Option<&[u8; 32]>,
        mut ended: impl FnMut(usize),
        now: Instant,
    ) -> Instant {
        self.lines.retain(|server, line| {
            let is_wanted = wanted.contains(server);
            if !is_wanted {
                if let Some(task) = line.task.take() {
                    task.abort();
                }
                ended(*server);
            }
            is_wanted
        });
        for server in wanted {
            let line = self.lines.entry(*server).or_insert(Line {
                task: None,
                sender: None,
                again: now,
                pause: RETRY,
            });
            if line.task.is_none()
                && line.again <= now
                && let (Some(secret), Some(derp)) = (secret, self.servers.get(*server))
            {
                let secret = SecretKey::new(*secret);
                let (outbox, proxy) = (self.outbox.clone(), self.proxy.clone());
                let task = run(*server, derp.clone(), secret, proxy, outbox);
                line.task = Some(tokio::spawn(task));
            }
        }
        let idle = self.lines.values().filter(|line| line.task.is_none());
        idle.map(|line| line.again).min().unwrap_or(Instant::NEVER)
    }

    /// Notes that a connection stands; whether it is still wanted.
    pub fn up(&mut self, server: usize, sender: Sender) -> bool {
        let line = self.lines.get_mut(&server);
        line.is_some_and(|line| {
            line.sender = Some(sender);
            line.pause = RETRY;
            true
        })
    }

    /// Notes that it doesn't.
    pub fn down(&mut self, server: usize, now: Instant) {
        if let Some(line) = self.lines.get_mut(&server) {
            line.task = None;
            line.sender = None;
            line.again = now.after(line.pause);
            line.pause = (line.pause * 2).min(RETRY_MOST);
        }
    }

    /// Sends a datagram to the client with this key.
    pub fn send(&self, server: usize, to: &PublicKey, datagram: &[u8]) {
        let line = self.lines.get(&server);
        if let Some(sender) = line.and_then(|line| line.sender.as_ref()) {
            // What can't be sent is lost, as on any network.
            let _ = sender.send(to, datagram);
        }
    }

    /// Waits for something to come.
    pub async fn came(&mut self) -> Came {
        match self.inbox.recv().await {
            Some(came) => came,
            // This side holds a sender too.
            None => std::future::pending().await,
        }
    }

    /// What came besides, without waiting.
    pub fn try_came(&mut self) -> Option<Came> {
        self.inbox.try_recv().ok()
    }
}

impl Drop for Derpers {
    fn drop(&mut self) {
        for task in self.lines.values().filter_map(|line| line.task.as_ref()) {
            task.abort();
        }
    }
}

/// Connects to a server and carries what it sends.
async fn run(
    server: usize,
    derp: Derp,
    secret: SecretKey,
    proxy: Option<Proxy>,
    outbox: mpsc::Sender<Came>,
) {
    let why = match (derp.host_and_port(), derp.trust()) {
        (Some((host, port)), Some(trust)) => {
            let target = Target {
                host: host.to_owned(),
                port,
                addresses: Vec::new(),
                trust,
                key: None,
                proxy,
            };
            carry(server, &target, secret, &outbox).await
        }
        // The configuration was checked.
        _ => "it has no name".to_owned(),
    };
    // Nobody is there any more at the end.
    let _ = outbox.send(Came::Down(server, why)).await;
}

async fn carry(
    server: usize,
    target: &Target,
    secret: SecretKey,
    outbox: &mpsc::Sender<Came>,
) -> String {
    let info = ClientInfo {
        version: VERSION,
        can_ack_pings: true,
        ..ClientInfo::default()
    };
    let connection = match Connection::connect(target, secret, info).await {
        Ok(connection) => connection,
        Err(e) => return e.to_string(),
    };
    let up = Came::Up(server, connection.sender());
    if outbox.send(up).await.is_err() {
        return "nobody is there any more".to_owned();
    }
    let end = connection.run(|event| {
        let came = match event {
            Event::Packet { from, packet } => Came::Datagram(server, from, packet.to_vec()),
            Event::PeerGone { peer, .. } => Came::Gone(server, peer),
            _ => return,
        };
        let _ = outbox.try_send(came);
    });
    end.await.to_string()
}
