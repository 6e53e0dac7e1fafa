//! Real clients over TLS: many that idle, two of which send to each other when asked to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::client::{Connection, Event, Sender, Target};
use altnet_relay::trust::Trust;
use altnet_wire::derp::PublicKey;
use altnet_wire::derp::info::ClientInfo;
use anyhow::Context;

use crate::{Load, Moved, lane, serve};

/// Packets on their way in one direction at most: fewer than any queue between holds.
const WINDOW: u64 = 24;
/// How long nothing came before what is on its way counts as lost.
const PATIENCE: Duration = Duration::from_millis(200);

struct Client {
    key: PublicKey,
    sender: Sender,
    received: Arc<AtomicU64>,
}

pub fn run(address: SocketAddr, pin: &str, clients: usize) -> anyhow::Result<()> {
    let target = Target {
        host: address.ip().to_string(),
        port: address.port(),
        addresses: vec![address.ip()],
        trust: Trust::Pin(pin.parse().context("the pin")?),
        key: None,
        proxy: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(runtime.block_on(Client::connect(&target))?);
    }
    let (a, b) = connected
        .first()
        .zip(connected.get(1))
        .context("two clients at least")?;
    // What shaking hands left behind is dealt with.
    runtime.block_on(async { tokio::time::sleep(Duration::from_secs(1)).await });
    serve(|asked| Ok(runtime.block_on(load(a, b, asked))))
}

impl Client {
    async fn connect(target: &Target) -> anyhow::Result<Self> {
        let secret = SecretKey::new(crate::seed()?);
        let key = secret.public();
        let connection = Connection::connect(target, secret, ClientInfo::default()).await?;
        let sender = connection.sender();
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        tokio::spawn(connection.run(move |event| {
            if let Event::Packet { .. } = event {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }));
        Ok(Self {
            key,
            sender,
            received,
        })
    }

    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

async fn load(a: &Client, b: &Client, asked: Load) -> Moved {
    let payload = lane::payload(asked.bytes);
    let before = [a.received(), b.received()];
    let came = || [a.received() - before[0], b.received() - before[1]];
    let began = Instant::now();
    let (mut sent, mut lost, mut last, mut heard) = ([0; 2], [0; 2], [0; 2], began);
    while began.elapsed().as_secs_f64() < asked.seconds {
        let arrived = came();
        if arrived != last {
            (last, heard) = (arrived, Instant::now());
        } else if heard.elapsed() > PATIENCE {
            // What the other has not received of what each sent.
            lost = [sent[0] - arrived[1], sent[1] - arrived[0]];
            heard = Instant::now();
        }
        for (at, (from, to)) in [(a, b), (b, a)].into_iter().enumerate() {
            while sent[at] - arrived[1 - at].min(sent[at]) < WINDOW + lost[at] {
                // A connection that broke sends no more, and then nothing arrives.
                let _ = from.sender.send(&to.key, &payload);
                sent[at] += 1;
            }
        }
        tokio::task::yield_now().await;
    }
    let seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(PATIENCE).await;
    Moved {
        sent: sent.iter().sum(),
        received: came().iter().sum(),
        seconds,
    }
}
