//! Two members of a network with a relay of ours between them. They join, register and shake hands as any
//! node does; then datagrams are sent with the header, token and all, that they themselves put before
//! theirs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use altnet_core::invite::Link;
use altnet_core::node::{Command, Config, Event, Node, Output, Stored, Verdict};
use altnet_daemon::aead::RingAead;
use altnet_daemon::clock;
use altnet_wire::frame::{FRAME_BYTES, Frame};
use altnet_wire::id::NodeId;
use altnet_wire::relay::{RelayPacket, SEND_HEADER_BYTES};
use altnet_wire::time::UnixTime;
use anyhow::{Context, bail};

use crate::lane::{self, Lane};
use crate::serve;

/// How long joining may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a member that has no way to the other yet says something to it.
const AGAIN: Duration = Duration::from_secs(1);
/// What members get of every load to renew registrations in.
const REST: Duration = Duration::from_millis(300);

struct Member {
    node: Node<RingAead>,
    lane: Lane,
    name: String,
    /// What it put before its last datagram to another client, and whom that was for.
    header: Option<([u8; SEND_HEADER_BYTES], NodeId)>,
}

pub fn run(relay: SocketAddr, invited: [&&str; 2]) -> anyhow::Result<()> {
    let [a, b] = invited.map(|invited| Member::new(relay, invited));
    let mut members = [a?, b?];
    let began = Instant::now();
    let mut said: Option<Instant> = None;
    let headers = loop {
        if began.elapsed() > PATIENCE {
            bail!(
                "the members don't reach each other: {:?}",
                members.map(|m| m.waits())
            );
        }
        rest(&mut members, Duration::from_millis(20))?;
        let others = [
            members[0].node.node_called(&members[1].name),
            members[1].node.node_called(&members[0].name),
        ];
        let found = std::array::from_fn(|at| {
            let (header, to) = members[at].header?;
            (Some(to) == others[at]).then_some(header)
        });
        if let [Some(a), Some(b)] = found {
            break [a, b];
        }
        if said.is_none_or(|said| said.elapsed() > AGAIN) {
            said = Some(Instant::now());
            for (member, other) in members.iter_mut().zip(others) {
                if let Some(node) = other {
                    // Refused until it has joined.
                    let _ = member
                        .node
                        .handle_command(Command::Ping { node }, clock::now());
                }
            }
        }
    };
    serve(|asked| {
        rest(&mut members, REST)?;
        let [a, b] = &mut members;
        lane::load(
            [&mut a.lane, &mut b.lane],
            [&headers[0][..], &headers[1][..]],
            asked,
        )
    })
}

/// Lets members do what they have to do.
fn rest(members: &mut [Member; 2], time: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        for member in &mut *members {
            member.turn()?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

impl Member {
    fn new(relay: SocketAddr, invited: &str) -> anyhow::Result<Self> {
        let (name, link) = invited.split_once('=').context("NAME=LINK")?;
        let link = Link::parse(link).context("the invite's link")?;
        let now = clock::now();
        let config = Config::router(UnixTime::EPOCH);
        let mut node = Node::new(config, &Stored::new(), crate::seed()?, now)?;
        node.handle_clock(clock::calendar(), now);
        node.join(link, None, now)?;
        Ok(Self {
            node,
            lane: Lane::new(relay)?,
            name: name.to_owned(),
            header: None,
        })
    }

    fn waits(&self) -> Vec<String> {
        self.node.status(clock::now()).waits_for
    }

    fn turn(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; FRAME_BYTES];
        let mut frame = Frame::new(&mut buffer);
        let now = clock::now();
        let relay = self.lane.relay();
        while let Some(datagram) = self.lane.receive() {
            if frame.set(&datagram).is_ok()
                && let Ok(Verdict::Send { to, .. }) = self.node.handle_wan(relay, &mut frame, now)
            {
                self.send(&frame, to);
            }
            self.drain(&mut frame)?;
        }
        self.node.handle_timeout(now);
        self.drain(&mut frame)
    }

    fn drain(&mut self, frame: &mut Frame<'_>) -> anyhow::Result<()> {
        let now = clock::now();
        loop {
            match self.node.poll_output(frame, now) {
                Output::Send { to, .. } => self.send(frame, to),
                Output::Save { slot } => self.node.handle_saved(&slot, now),
                Output::Tell(Event::JoinFailed { why }) => bail!("{} can't join: {why}", self.name),
                Output::Wait(_) => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sends what is for the relay: on this machine members would reach each other without it.
    fn send(&mut self, frame: &Frame<'_>, to: SocketAddr) {
        if to != self.lane.relay() {
            return;
        }
        let datagram = frame.packet();
        if let Ok((RelayPacket::Send { to, .. }, _)) = RelayPacket::parse(datagram)
            && let Some(header) = datagram.first_chunk()
        {
            self.header = Some((*header, to));
        }
        self.lane.send(datagram);
    }
}
