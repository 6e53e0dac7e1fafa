//! The WireGuard engine between a TUN device and a UDP socket, and nothing else.
//!
//! For checking the engine against other implementations across a real wire; `altnetd` is the
//! product. One key, one peer, told on the command line:
//!
//! ```text
//! wg DEVICE PORT PRIVATE-KEY PEER-PUBLIC-KEY PRESHARED-KEY|- PEER-ADDRESS|-
//! ```
//!
//! Keys are base64, as `wg genkey` prints them; `@DIR` is the tunnel key of the device whose state is
//! in that directory, in the hands of somebody who runs a WireGuard of their own. The device gets no address; the caller gives
//! it one. SIGUSR1 asks the peer for a new session; every event goes to standard output as a
//! line. Stamps are not kept over a restart.

use std::net::SocketAddr;
use std::path::Path;

use altnet_core::node::Identity;
use altnet_daemon::aead::RingAead;
use altnet_daemon::clock;
use altnet_daemon::store::Store;
use altnet_daemon::store::directory::Directory;
use altnet_daemon::tun::Tun;
use altnet_tunnel::engine::{
    Engine, EngineLimits, Opened, Output, PeerConfig, PeerIndex, Sealed, TunnelEvent,
};
use altnet_tunnel::key::{PresharedKey, TunnelSecret};
use altnet_tunnel::tai64n::Tai64n;
use altnet_wire::endpoint::Endpoint;
use altnet_wire::frame::{FRAME_BYTES, Frame, MAX_PACKET_BYTES};
use altnet_wire::id::TunnelKey;
use anyhow::{Context, bail};
use data_encoding::BASE64;
use tokio::net::UdpSocket;
use tokio::signal::unix::{SignalKind, signal};

/// One engine with its device and socket.
struct Driver {
    engine: Engine<RingAead>,
    peer: PeerIndex,
    tun: Tun,
    socket: UdpSocket,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [device, port, private, public, preshared, address] = words.as_slice() else {
        bail!("wg DEVICE PORT PRIVATE-KEY PEER-PUBLIC-KEY PRESHARED-KEY|- PEER-ADDRESS|-");
    };
    let mut seed = [0; 32];
    getrandom::fill(&mut seed)?;
    let now = clock::now();
    let mut engine = Engine::new(EngineLimits::ROUTER, seed);
    engine.set_calendar(Some(clock::calendar()), now);
    let secret = match private.strip_prefix('@') {
        Some(dir) => stolen(dir)?,
        None => TunnelSecret::new(key(private)?),
    };
    let local = engine.add_local_key(secret, Tai64n::ZERO)?;
    let mut config = PeerConfig::new(TunnelKey(key(public)?), local);
    if preshared != "-" {
        config.preshared = PresharedKey::new(key(preshared)?);
    }
    if address != "-" {
        let address: SocketAddr = address.parse().context("the peer's address")?;
        config.endpoint = Some(Endpoint::Direct(address));
    }
    let peer = engine.add_peer(config, now)?;
    let socket = UdpSocket::bind(("0.0.0.0", port.parse::<u16>()?)).await?;
    let tun = Tun::open(device)?;
    println!("ready");
    Driver {
        engine,
        peer,
        tun,
        socket,
    }
    .run()
    .await
}

/// The tunnel key of a device, from its state directory.
fn stolen(dir: &str) -> anyhow::Result<TunnelSecret> {
    let store = Store::open(Directory::open(Path::new(dir))?)?;
    let bytes = store.load("identity")?.context("no identity there")?;
    let identity = Identity::decode(&bytes)?;
    Ok(TunnelSecret::new(*identity.tunnel.secret.expose()))
}

/// Reads a key as `wg` writes it.
fn key(text: &str) -> anyhow::Result<[u8; 32]> {
    let bytes = BASE64.decode(text.as_bytes()).ok();
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.context("a key is 32 bytes in base64")
}

impl Driver {
    /// One input, drain until `Wait`, sleep.
    async fn run(mut self) -> anyhow::Result<()> {
        let mut rekey = signal(SignalKind::user_defined1())?;
        let mut buffer = [0; FRAME_BYTES];
        loop {
            let mut frame = Frame::new(&mut buffer);
            let deadline = self.drain(&mut frame).await?;
            let wake = async {
                match clock::sleep_until(deadline) {
                    Some(moment) => tokio::time::sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                readable = self.tun.readable() => {
                    readable?;
                    self.take_tun(&mut frame).await?;
                }
                readable = self.socket.readable() => {
                    readable?;
                    self.take_socket(&mut frame)?;
                }
                _ = rekey.recv() => self.engine.rekey(self.peer, clock::now())?,
                () = wake => self.engine.handle_timeout(clock::now()),
            }
        }
    }

    /// Does what the engine asks for, until it asks to be woken.
    async fn drain(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<altnet_wire::time::Instant> {
        loop {
            match self.engine.poll_output(frame, clock::now()) {
                Output::Transmit { to } => self.send(frame, to).await?,
                Output::Event(TunnelEvent::SaveStamps { local, until }) => {
                    self.engine.stamps_saved(local, until);
                }
                Output::Event(event) => println!("{event:?}"),
                Output::Wait(deadline) => return Ok(deadline),
            }
        }
    }

    async fn take_tun(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        if !self.tun.try_read(frame)? {
            return Ok(());
        }
        match self.engine.seal(self.peer, frame, clock::now()) {
            Ok(Sealed::Transmit { to }) => self.send(frame, to).await,
            Ok(Sealed::Queued) => Ok(()),
            Err(refused) => {
                println!("not sent: {refused}");
                Ok(())
            }
        }
    }

    fn take_socket(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        let space = frame.space();
        let Ok((len, from)) = self.socket.try_recv_from(space) else {
            return Ok(());
        };
        frame.set_len(len.min(MAX_PACKET_BYTES))?;
        let from = Endpoint::Direct(from);
        match self.engine.handle_datagram(from, frame, clock::now()) {
            Ok(Opened::Packet { .. }) => self.tun.write(frame.packet())?,
            Ok(_) => {}
            Err(reason) => println!("dropped: {reason}"),
        }
        Ok(())
    }

    async fn send(&self, frame: &Frame<'_>, to: Endpoint) -> anyhow::Result<()> {
        let to = to.direct().context("this driver has no relay")?;
        if let Err(fault) = self.socket.send_to(frame.packet(), to).await {
            println!("not sent to {to}: {fault}");
        }
        Ok(())
    }
}
