//! What relaying over TLS costs: `relay-bench ALTNET_DERP [--json] [--clients N] [--megabytes N]`.
//!
//! Starts the relay as a process of its own, one thread, and uses it over loopback with real clients.
//! Memory: what the relay's resident memory grows by, divided by the clients that came and are silent.
//! CPU: what the relay spent, user and kernel together, while packets of 1,400 bytes crossed between
//! two pairs of clients, both ways; bytes are those of packets, as they left the relay.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use altnet_core::derp::boxes::SecretKey;
use altnet_relay::client::{Connection, Event, Sender, Target};
use altnet_relay::trust::Trust;
use altnet_wire::derp::PublicKey;
use altnet_wire::derp::info::ClientInfo;
use tokio::sync::Semaphore;

const PACKET_BYTES: usize = 1400;
/// What is on its way for a receiver at most, as a transport within would have it.
const WINDOW: usize = 128;
const PAIRS: u64 = 2;
/// What the kernel counts CPU time in: `sysconf(_SC_CLK_TCK)` is 100 on Linux.
const TICKS_PER_S: f64 = 100.0;

type Fault = Box<dyn std::error::Error>;

struct Relay {
    process: Child,
    target: Target,
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Relay {
    fn start(binary: &str, folder: &std::path::Path) -> Result<Self, Fault> {
        let mut process = Command::new(binary)
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admit",
                "any",
                "--threads",
                "1",
            ])
            .args(["--json", "--self-signed"])
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let out = process.stdout.take().ok_or("it has no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let status: serde_json::Value = serde_json::from_str(&line)?;
        let text = |name: &str| status[name].as_str().ok_or("it doesn't say where it is");
        let address: std::net::SocketAddr = text("address")?.parse()?;
        let target = Target {
            host: address.ip().to_string(),
            port: address.port(),
            addresses: Vec::new(),
            trust: Trust::Pin(text("pin")?.parse()?),
            key: None,
            proxy: None,
        };
        Ok(Self { process, target })
    }

    fn resident_bytes(&self) -> Result<u64, Fault> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(kilobytes.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
    }

    fn cpu_s(&self) -> Result<f64, Fault> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let (_, fields) = stat.rsplit_once(") ").ok_or("no stat")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / TICKS_PER_S)
    }

    async fn connect(&self) -> Result<Connection, Fault> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let secret = SecretKey::new(seed);
        Ok(Connection::connect(&self.target, secret, ClientInfo::default()).await?)
    }
}

fn main() -> Result<(), Fault> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, otherwise: u64| -> Result<u64, Fault> {
        match words.iter().position(|word| word == name) {
            Some(at) => Ok(words.get(at + 1).ok_or("a number is missing")?.parse()?),
            None => Ok(otherwise),
        }
    };
    let (clients, megabytes) = (number("--clients", 2000)?, number("--megabytes", 1000)?);
    let binary = words
        .first()
        .ok_or("usage: relay-bench ALTNET_DERP [--json]")?;
    raise_descriptors();
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(binary, folder.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (idle_bytes, cpu_s_per_gb, mb_per_s) = runtime.block_on(async {
        let idle = idle_bytes(&relay, clients).await?;
        let (cpu, rate) = forwarding(&relay, megabytes * 1_000_000).await?;
        Ok::<_, Fault>((idle, cpu, rate))
    })?;
    if words.iter().any(|word| word == "--json") {
        let found = serde_json::json!({
            "idle_client_bytes": idle_bytes,
            "idle_clients": clients,
            "tls_cpu_s_per_gb": cpu_s_per_gb,
            "tls_mb_per_s": mb_per_s,
        });
        println!("{found}");
    } else {
        println!("{idle_bytes} bytes of memory for each of {clients} idle clients");
        println!("{cpu_s_per_gb:.2} s of CPU for each GB that is relayed, at {mb_per_s:.0} MB/s");
    }
    Ok(())
}

async fn idle_bytes(relay: &Relay, clients: u64) -> Result<u64, Fault> {
    // What the first ones bring up isn't theirs.
    let mut here = vec![relay.connect().await?, relay.connect().await?];
    let before = relay.resident_bytes()?;
    for _ in 0..clients {
        here.push(relay.connect().await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = relay.resident_bytes()?;
    // Nobody left meanwhile.
    assert_eq!(here.len() as u64, clients + 2);
    Ok(after.saturating_sub(before) / clients)
}

async fn forwarding(relay: &Relay, bytes: u64) -> Result<(f64, f64), Fault> {
    let mut flows = Vec::new();
    for _ in 0..PAIRS {
        let (a, b) = (Flow::begin(relay).await?, Flow::begin(relay).await?);
        flows.push((a.sender.clone(), b.key, Arc::clone(&b.window)));
        flows.push((b.sender.clone(), a.key, Arc::clone(&a.window)));
    }
    let (cpu, begin) = (relay.cpu_s()?, Instant::now());
    let each = bytes / flows.len() as u64 / PACKET_BYTES as u64;
    let sending: Vec<_> = flows
        .into_iter()
        .map(|(sender, to, window)| {
            tokio::spawn(async move {
                for _ in 0..each {
                    // Given back by whoever received.
                    window.acquire().await.expect("it isn't closed").forget();
                    sender
                        .send(&to, &[0x5a; PACKET_BYTES])
                        .expect("it is admitted");
                }
                let _ = window.acquire_many(WINDOW as u32).await;
            })
        })
        .collect();
    for sent in sending {
        tokio::time::timeout(Duration::from_secs(300), sent).await??;
    }
    let relayed = (each * 2 * PAIRS * PACKET_BYTES as u64) as f64;
    let cpu = (relay.cpu_s()? - cpu) / (relayed / 1e9);
    Ok((cpu, relayed / 1e6 / begin.elapsed().as_secs_f64()))
}

struct Flow {
    key: PublicKey,
    sender: Sender,
    window: Arc<Semaphore>,
}

impl Flow {
    async fn begin(relay: &Relay) -> Result<Self, Fault> {
        let connection = relay.connect().await?;
        let sender = connection.sender();
        let window = Arc::new(Semaphore::new(WINDOW));
        let received = Arc::clone(&window);
        let key = sender.public();
        tokio::spawn(connection.run(move |event| {
            if let Event::Packet { .. } = event {
                received.add_permits(1);
            }
        }));
        Ok(Self {
            key,
            sender,
            window,
        })
    }
}

fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}
