//! The TURN client between a socket and a person who types, and nothing else.
//!
//! For checking it against other people's servers across a real wire; `altnetd` is the product.
//!
//! ```text
//! turn udp|tcp SERVER USERNAME PASSWORD LIFETIME-S
//! ```
//!
//! On standard input, a line each: `permit PEER`; `ping PEER COUNT BYTES GAP-MS`, which sends
//! datagrams that whoever runs this program at the other end sends back; `refresh`; `close`. On
//! standard output, a line each: what happened, and how many of the pings came back as they went.

use std::net::SocketAddr;
use std::time::Duration;

use altnet_core::turn::{
    Credentials, Family, Transport, TurnClient, TurnConfig, TurnEvent, TurnOutput,
};
use altnet_daemon::clock;
use altnet_wire::frame::{FRAME_BYTES, Frame, MAX_PACKET_BYTES};
use altnet_wire::stun::stream;
use altnet_wire::time::Instant;
use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::time::{self, MissedTickBehavior};

/// First bytes of a datagram that is to come back, and of one that came back.
const PING: u8 = b'P';
const PONG: u8 = b'Q';
/// How long the last pings are waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// What carries datagrams to the server.
enum Carrier {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

/// Pings under way: how many went, how many came back whole.
struct Pinging {
    peer: SocketAddr,
    count: u32,
    bytes: usize,
    sent: u32,
    back: u32,
    ends: Option<time::Instant>,
}

struct Driver {
    client: TurnClient,
    carrier: Carrier,
    server: SocketAddr,
    pinging: Option<Pinging>,
    ticks: time::Interval,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [transport, server, username, password, lifetime_s] = words.as_slice() else {
        bail!("turn udp|tcp SERVER USERNAME PASSWORD LIFETIME-S");
    };
    let server: SocketAddr = server.parse().context("the server's address")?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let mut config = TurnConfig::new(server);
    if server.is_ipv6() {
        config.family = Family::V6;
    }
    config.lifetime_s = lifetime_s.parse().context("seconds")?;
    let carrier = match transport.as_str() {
        "udp" => {
            let any = if server.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any).await?;
            // Connected, so that only the server is heard.
            socket.connect(server).await?;
            Carrier::Udp(socket)
        }
        "tcp" => {
            config.transport = Transport::Stream;
            Carrier::Tcp(TcpStream::connect(server).await?, Vec::new())
        }
        other => bail!("{other} carries nothing"),
    };
    let credentials = Credentials::new(username, password)?;
    let client = TurnClient::new(config, credentials, seed, clock::now());
    let driver = Driver {
        client,
        carrier,
        server,
        pinging: None,
        ticks: time::interval(Duration::from_secs(3600)),
    };
    driver.run(typed()).await
}

/// The lines on standard input, read by a thread: they may come from a terminal.
fn typed() -> mpsc::Receiver<String> {
    let (lines, typed) = mpsc::channel(8);
    std::thread::spawn(move || {
        let read = std::io::stdin().lines().map_while(Result::ok);
        for line in read {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    typed
}

impl Driver {
    /// One input, drain until `Wait`, sleep.
    async fn run(mut self, mut lines: mpsc::Receiver<String>) -> anyhow::Result<()> {
        let mut buffer = [0; FRAME_BYTES];
        loop {
            let mut frame = Frame::new(&mut buffer);
            let Some(deadline) = self.drain(&mut frame).await? else {
                return Ok(());
            };
            let wake = async {
                match clock::sleep_until(deadline) {
                    Some(moment) => time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            let pings_end = self.pinging.as_ref().and_then(|pinging| pinging.ends);
            let end = async {
                match pings_end {
                    Some(moment) => time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            let is_pinging = pings_end.is_none() && self.pinging.is_some();
            tokio::select! {
                read = self.carrier.read(&mut frame) => {
                    read?;
                    self.take(&mut frame).await?;
                }
                line = lines.recv() => match line {
                    Some(line) => self.command(&line)?,
                    None => return Ok(()),
                },
                _ = self.ticks.tick(), if is_pinging => self.ping(&mut frame).await?,
                () = end => self.pings_are_over(),
                () = wake => self.client.handle_timeout(clock::now()),
            }
        }
    }

    /// Does what the client asks for, until it asks to be woken; `None` once it is done.
    async fn drain(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<Option<Instant>> {
        loop {
            match self.client.poll_output(frame, clock::now()) {
                TurnOutput::Send { .. } => self.carrier.write(frame.packet()).await?,
                TurnOutput::Wait(deadline) => return Ok(Some(deadline)),
                TurnOutput::Tell(TurnEvent::Allocated {
                    relayed,
                    mapped,
                    lifetime,
                }) => println!("allocated {relayed} {mapped} {}", lifetime.as_secs()),
                TurnOutput::Tell(TurnEvent::Failed { why }) => {
                    println!("failed: {why}");
                    return Ok(None);
                }
                TurnOutput::Tell(TurnEvent::PeerRefused { peer, code }) => {
                    println!("refused {peer} {code}");
                }
                TurnOutput::Tell(TurnEvent::Closed) => {
                    println!("closed");
                    return Ok(None);
                }
                TurnOutput::Tell(other) => println!("{other:?}"),
            }
        }
    }

    fn command(&mut self, line: &str) -> anyhow::Result<()> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["permit", peer] => self.client.permit(peer.parse()?, clock::now())?,
            ["ping", peer, count, bytes, gap_ms] => {
                self.ticks = time::interval(Duration::from_millis(gap_ms.parse()?));
                self.ticks
                    .set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.pinging = Some(Pinging {
                    peer: peer.parse()?,
                    count: count.parse()?,
                    bytes: bytes.parse()?,
                    sent: 0,
                    back: 0,
                    ends: None,
                });
            }
            ["refresh"] => self.client.refresh(clock::now()),
            ["close"] => self.client.close(clock::now()),
            _ => bail!("what is {line}?"),
        }
        Ok(())
    }

    /// Sends one more ping.
    async fn ping(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        let Some(pinging) = &mut self.pinging else {
            return Ok(());
        };
        let peer = pinging.peer;
        frame.set(&content(PING, pinging.sent, pinging.bytes))?;
        pinging.sent += 1;
        if pinging.sent == pinging.count {
            pinging.ends = Some(time::Instant::now() + PATIENCE);
        }
        self.send(peer, frame).await
    }

    fn pings_are_over(&mut self) {
        if let Some(pinging) = self.pinging.take() {
            println!("pinged {} {} {}", pinging.peer, pinging.sent, pinging.back);
        }
    }

    /// Takes what the server sent.
    async fn take(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        let from = self.client.receive(self.server, frame, clock::now());
        let Some(peer) = from else {
            return Ok(());
        };
        let data = frame.packet();
        let number = data.get(1..5).and_then(|bytes| bytes.try_into().ok());
        let number = u32::from_be_bytes(number.context("a datagram that isn't ours")?);
        match data.first() {
            Some(&PING) if data == content(PING, number, data.len()) => {
                let back = content(PONG, number, data.len());
                frame.set(&back)?;
                return self.send(peer, frame).await;
            }
            Some(&PONG) if data == content(PONG, number, data.len()) => {
                if let Some(pinging) = &mut self.pinging {
                    pinging.back += 1;
                }
            }
            _ => println!("damaged: {} bytes from {peer}", data.len()),
        }
        Ok(())
    }

    async fn send(&mut self, peer: SocketAddr, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        match self.client.send(peer, frame, clock::now()) {
            Ok(_) => self.carrier.write(frame.packet()).await,
            Err(refused) => {
                println!("not sent to {peer}: {refused}");
                Ok(())
            }
        }
    }
}

/// A datagram whose every byte follows from its number.
fn content(kind: u8, number: u32, length: usize) -> Vec<u8> {
    let number_bytes = number.to_be_bytes();
    let rest = (0..).map(|at: u32| (at.wrapping_mul(31) ^ number.wrapping_mul(7)) as u8);
    let bytes = [kind].into_iter().chain(number_bytes).chain(rest);
    bytes.take(length.max(5)).collect()
}

impl Carrier {
    /// Waits for what the server sends and puts one message of it into the frame.
    async fn read(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        match self {
            Self::Udp(socket) => {
                let length = socket.recv(frame.space()).await?;
                frame.set_len(length.min(MAX_PACKET_BYTES))?;
            }
            Self::Tcp(stream, bytes) => loop {
                if let Some(framed) = stream::framed(bytes)?
                    && let Some(message) = bytes.get(..framed.length)
                    && bytes.len() >= framed.length + framed.padding
                {
                    frame.set(message)?;
                    bytes.drain(..framed.length + framed.padding);
                    return Ok(());
                }
                // What was read stays when this is given up for something else.
                if stream.read_buf(bytes).await? == 0 {
                    bail!("the server closed the connection");
                }
            },
        }
        Ok(())
    }

    async fn write(&mut self, datagram: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Udp(socket) => {
                socket.send(datagram).await?;
            }
            Self::Tcp(stream, _) => stream.write_all(datagram).await?,
        }
        Ok(())
    }
}
