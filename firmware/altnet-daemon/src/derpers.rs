//! Connections to other people's DERP servers. The node says which it wants; tasks make them, and try
//! again ever later. What is inside is sealed from end to end.
//!
//! Datagrams wait in one bounded queue for the gateway's loop; one that is full loses them, as a
//! network does.

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::client::{Event, Sender, Target};
use altnet_relay::proxy::Proxy;
use altnet_wire::derp::PublicKey;
use altnet_wire::time::{Duration, Instant};
use tokio::sync::mpsc;

use crate::config::Derp;
use crate::lines::{self, Lines};
use crate::news::News;

/// Datagrams and news that wait for the loop.
const WAITING: usize = 512;
/// The longest pause before a server is tried again.
const RETRY_MOST: Duration = Duration::from_secs(300);

/// Something that came, of the server with that place among those that were entered.
#[derive(Debug)]
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

/// The servers that may be used.
pub struct Derpers {
    servers: Vec<Derp>,
    proxy: Option<Proxy>,
    lines: Lines<usize>,
    /// What the tasks tell.
    pub news: News<Came>,
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
        Self {
            servers: servers.to_vec(),
            proxy,
            lines: Lines::new(RETRY_MOST),
            news: News::new(WAITING),
        }
    }

    /// Makes the connections that are wanted, with the key by which servers know us, and ends the
    /// others; `ended` is told of those. Returns when to look again. Needs a tokio runtime.
    pub fn tend(
        &mut self,
        wanted: &[usize],
        secret: Option<&[u8; 32]>,
        ended: impl FnMut(usize),
        now: Instant,
    ) -> Instant {
        let begin = |server: &usize| {
            let derp = self.servers.get(*server)?.clone();
            let secret = SecretKey::new(*secret?);
            let (outbox, proxy) = (self.news.outbox(), self.proxy.clone());
            Some(run(*server, derp, secret, proxy, outbox))
        };
        self.lines.tend(wanted, |server| *server, begin, ended, now)
    }

    /// Notes that a connection stands; whether it is still wanted.
    pub fn up(&mut self, server: usize, sender: Sender) -> bool {
        self.lines.up(server, sender)
    }

    /// Notes that it doesn't.
    pub fn down(&mut self, server: usize, now: Instant) {
        self.lines.down(server, now);
    }

    /// Sends a datagram to the client with this key.
    pub fn send(&self, server: usize, to: &PublicKey, datagram: &[u8]) {
        self.lines.send(server, to, datagram);
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
    let connection = match lines::connect(target, secret).await {
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
