//! Clients of a TURN server: two, each with an allocation and a channel to the other's, as two have it
//! that can reach nobody by themselves; or one, and a peer that needs no help.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use altnet_core::turn::{Credentials, TurnClient, TurnConfig, TurnEvent, TurnOutput};
use altnet_daemon::clock;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use anyhow::{Context, bail};

use crate::lane::{self, Lane};
use crate::{Load, serve};

/// How long it may take until both have a channel.
const PATIENCE: Duration = Duration::from_secs(20);
/// What clients get of every load to refresh in.
const REST: Duration = Duration::from_millis(300);
/// The first two bits of what is sent through a channel (RFC 8656 section 12).
const CHANNELS: std::ops::RangeInclusive<u8> = 0x40..=0x4f;
/// Bytes before a payload there: the channel's number and the length.
const HEADER_BYTES: usize = 4;

struct Allocation {
    client: TurnClient,
    lane: Lane,
}

pub fn run(server: SocketAddr, username: &str, password: &str) -> anyhow::Result<()> {
    let new = || Allocation::new(server, username, password);
    let mut both = [new()?, new()?];
    wait(&mut both, |both| both.iter().all(|one| one.client.is_up()))?;
    let relayed = [
        both[0].client.relayed().context("no allocation")?,
        both[1].client.relayed().context("no allocation")?,
    ];
    both[0].client.permit(relayed[1], clock::now())?;
    both[1].client.permit(relayed[0], clock::now())?;
    wait(&mut both, |both| {
        both[0].header(relayed[1], 100).is_some() && both[1].header(relayed[0], 100).is_some()
    })?;
    serve(|asked: Load| {
        rest(&mut both, REST)?;
        let a = both[0]
            .header(relayed[1], asked.bytes)
            .context("no channel")?;
        let b = both[1]
            .header(relayed[0], asked.bytes)
            .context("no channel")?;
        let [first, second] = &mut both;
        lane::load([&mut first.lane, &mut second.lane], [&a, &b], asked)
    })
}

/// The same with one allocation: the server does half the work, of which TURN asks twice of it above.
pub fn run_one(server: SocketAddr, username: &str, password: &str) -> anyhow::Result<()> {
    let mut one = [Allocation::new(server, username, password)?];
    wait(&mut one, |[one]| one.client.is_up())?;
    let mut peer = Lane::new(one[0].client.relayed().context("no allocation")?)?;
    let at = peer.address()?;
    one[0].client.permit(at, clock::now())?;
    wait(&mut one, |[one]| one.header(at, 100).is_some())?;
    serve(|asked: Load| {
        rest(&mut one, REST)?;
        let header = one[0].header(at, asked.bytes).context("no channel")?;
        lane::load([&mut one[0].lane, &mut peer], [&header, &[]], asked)
    })
}

fn wait<const N: usize>(
    all: &mut [Allocation; N],
    is_so: impl Fn(&mut [Allocation; N]) -> bool,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while !is_so(all) {
        if began.elapsed() > PATIENCE {
            bail!("the TURN server gives no channel");
        }
        rest(all, Duration::from_millis(20))?;
    }
    Ok(())
}

fn rest(all: &mut [Allocation], time: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        for one in &mut *all {
            one.turn()?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Allocation {
    fn new(server: SocketAddr, username: &str, password: &str) -> anyhow::Result<Self> {
        let credentials = Credentials::new(username, password)?;
        let config = TurnConfig::new(server);
        Ok(Self {
            client: TurnClient::new(config, credentials, crate::seed()?, clock::now()),
            lane: Lane::new(server)?,
        })
    }

    /// What goes before a payload of so many bytes, once there is a channel.
    fn header(&mut self, peer: SocketAddr, bytes: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        frame.set(&lane::payload(bytes)).ok()?;
        self.client.send(peer, &mut frame, clock::now()).ok()?;
        let header = frame.packet().get(..HEADER_BYTES)?;
        let is_channel = header.first().is_some_and(|first| CHANNELS.contains(first));
        is_channel.then(|| header.to_vec())
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let now = clock::now();
        let server = self.lane.relay();
        while let Some(datagram) = self.lane.receive() {
            if frame.set(&datagram).is_ok() {
                self.client.receive(server, &mut frame, now);
            }
        }
        self.client.handle_timeout(now);
        loop {
            match self.client.poll_output(&mut frame, now) {
                TurnOutput::Send { .. } => self.lane.send(frame.packet()),
                TurnOutput::Tell(TurnEvent::Failed { why }) => bail!("no allocation: {why}"),
                TurnOutput::Tell(TurnEvent::PeerRefused { code, .. }) => bail!("refused: {code}"),
                TurnOutput::Tell(_) => {}
                TurnOutput::Wait(_) => return Ok(()),
            }
        }
    }
}
