//! The hands of [`PortMapper`]: one task that asks the default gateways for a port.
//!
//! In: whether a port is wanted, word that links changed, what routers send. Out: the [`Way`] of
//! each address family, whenever one changes. Which protocol is spoken when, and whom to believe,
//! is decided in `altnet_core::portmap` and [`igd`](crate::igd); this opens sockets, keeps time and
//! finds the gateway.
//!
//! It needs no privileges: every port is above 1024, and a port that somebody else has for
//! announcements is no fault, only a restart that is noticed later.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use altnet_core::portmap::{Fact, Mapping, Network, Output, PortMapper, Said, Why};
use altnet_wire::portmap::pcp::MAX_REQUEST_BYTES;
use altnet_wire::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::netlink::Netlink;
use crate::netlink::gateway::Gateway;

mod sockets;
mod upnp;

use sockets::{Heard, Sockets};
use upnp::Upnp;

/// Wishes that wait for the task.
const INBOX: usize = 16;
/// How often gateways are looked for when nothing announces a change.
const LOOK: Duration = Duration::from_secs(60);
/// How long giving ports back may hold up the end.
const CLOSE_PATIENCE: Duration = Duration::from_millis(3500);

/// How it is with the router of one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The router and our own end.
    pub network: Network,
    /// The port, if it keeps one.
    pub mapping: Option<Mapping>,
    /// Whether the world can reach that.
    pub is_public: bool,
    /// Why it is so.
    pub why: Why,
}

#[derive(Debug)]
enum Wish {
    Look { is_wanted: bool },
    Close(oneshot::Sender<()>),
}

/// The owner's end of the task. Without it the ports are given back.
#[derive(Debug)]
pub struct PortMappings {
    wishes: mpsc::Sender<Wish>,
}

impl PortMappings {
    /// Starts the task for the UDP port `port`. Nothing is asked before [`PortMappings::look`].
    /// `secret` is this device's for nonces, the same over restarts. Needs a tokio runtime with I/O.
    ///
    /// # Errors
    /// What the kernel says: no netlink, no random numbers.
    pub fn start(port: u16, secret: [u8; 32]) -> io::Result<(Self, watch::Receiver<Vec<Way>>)> {
        let (wishes, inbox) = mpsc::channel(INBOX);
        let (told, ways) = watch::channel(Vec::new());
        let mut lines = Vec::new();
        for is_v6 in [false, true] {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).map_err(io::Error::other)?;
            lines.push(Line::new(is_v6, PortMapper::new(secret, seed)));
        }
        let task = Task {
            port,
            netlink: Netlink::open()?,
            lines,
            upnp: Upnp::new(),
            told,
            is_wanted: false,
            look: clock::now(),
            closing: None,
        };
        tokio::spawn(task.run(inbox));
        Ok((Self { wishes }, ways))
    }

    /// Says whether a port is wanted, and that the network may have changed.
    pub fn look(&self, is_wanted: bool) {
        // With a full inbox it will look anyway.
        let _ = self.wishes.try_send(Wish::Look { is_wanted });
    }

    /// Gives the ports back; returns when that is done or takes too long.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.wishes.send(Wish::Close(done)).await.is_ok() {
            let _ = tokio::time::timeout(CLOSE_PATIENCE, closed).await;
        }
    }
}

/// One address family.
struct Line {
    is_v6: bool,
    mapper: PortMapper,
    network: Option<Network>,
    sockets: Option<Sockets>,
    is_closing: bool,
    has_restarted: bool,
}

struct Task {
    port: u16,
    netlink: Netlink,
    lines: Vec<Line>,
    upnp: Upnp,
    told: watch::Sender<Vec<Way>>,
    is_wanted: bool,
    look: Instant,
    closing: Option<oneshot::Sender<()>>,
}

enum Input {
    Wish(Option<Wish>),
    Heard(usize, Heard),
    Upnp(u32, Said),
    Time,
}

impl Task {
    async fn run(mut self, mut inbox: mpsc::Receiver<Wish>) {
        loop {
            let deadline = self.settle();
            if self.closing.is_some() && self.lines.iter().all(|line| line.mapper.is_closed()) {
                break;
            }
            match self.next_input(&mut inbox, deadline).await {
                Input::Wish(Some(Wish::Look { is_wanted })) => {
                    self.is_wanted = is_wanted;
                    self.look = clock::now();
                }
                Input::Wish(Some(Wish::Close(done))) => self.close(done),
                // The owner is gone without a word.
                Input::Wish(None) => self.close(oneshot::channel().0),
                Input::Heard(at, heard) => {
                    if let Some(line) = self.lines.get_mut(at) {
                        line.hear(heard);
                    }
                }
                Input::Upnp(id, said) => {
                    if let Some(line) = self.lines.first_mut() {
                        line.mapper.handle_igd(id, said, clock::now());
                    }
                }
                Input::Time => {}
            }
        }
        if let Some(done) = self.closing {
            // Whoever waited may have lost patience.
            let _ = done.send(());
        }
    }

    fn close(&mut self, done: oneshot::Sender<()>) {
        self.is_wanted = false;
        self.look = Instant::NEVER;
        self.closing = Some(done);
        for line in &mut self.lines {
            line.close();
        }
    }

    /// Does what is due, and says what changed; returns when something is next.
    fn settle(&mut self) -> Instant {
        let now = clock::now();
        if self.look <= now {
            self.look = now.after(LOOK);
            self.look_around(now);
        }
        for line in &mut self.lines {
            line.mapper.handle_timeout(now);
            line.drain(&mut self.upnp);
        }
        self.pass_on_restarts(now);
        let mut deadline = self.look;
        for line in &mut self.lines {
            deadline = deadline.min(line.drain(&mut self.upnp));
        }
        let ways: Vec<Way> = self.lines.iter().filter_map(Line::way).collect();
        self.told.send_if_modified(|told| {
            let is_new = *told != ways;
            *told = ways;
            is_new
        });
        deadline
    }

    /// Tells a line that the router of the other has started anew, if it is the same one.
    fn pass_on_restarts(&mut self, now: Instant) {
        let [v4, v6] = self.lines.as_mut_slice() else {
            return;
        };
        let interface = |line: &Line| line.network.map(|network| network.interface);
        let is_one = interface(v4) == interface(v6);
        let has_restarted =
            [&mut *v4, &mut *v6].map(|line| std::mem::take(&mut line.has_restarted));
        for (heard, other) in has_restarted.into_iter().zip([v6, v4]) {
            if heard && is_one {
                other.mapper.handle_restart(now);
            }
        }
    }

    async fn next_input(&mut self, inbox: &mut mpsc::Receiver<Wish>, deadline: Instant) -> Input {
        let sleep = async {
            match clock::sleep_until(deadline) {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let is_open = self.closing.is_none();
        let [v4, v6] = [self.lines.first(), self.lines.get(1)];
        tokio::select! {
            wish = inbox.recv(), if is_open => Input::Wish(wish),
            heard = hear(v4) => Input::Heard(0, heard),
            heard = hear(v6) => Input::Heard(1, heard),
            Some((id, said)) = self.upnp.done.recv() => Input::Upnp(id, said),
            () = sleep => Input::Time,
        }
    }

    /// Finds the gateways as they are now.
    fn look_around(&mut self, now: Instant) {
        if !self.is_wanted {
            for line in &mut self.lines {
                line.close();
            }
            return;
        }
        let gateways = match self.netlink.default_gateways() {
            Ok(gateways) => gateways,
            Err(e) => {
                crate::debug!("can't list routes: {e}");
                return;
            }
        };
        let addresses = self.netlink.reachable_addresses().unwrap_or_default();
        for line in &mut self.lines {
            let is_ours = |gateway: &&Gateway| gateway.address.is_ipv6() == line.is_v6;
            let gateway = gateways.iter().find(is_ours);
            let network = gateway.and_then(|gateway| {
                let own = sockets::own_address(gateway, &addresses)?;
                Some(Network {
                    gateway: gateway.address,
                    interface: gateway.interface,
                    internal: SocketAddr::new(own, self.port),
                })
            });
            line.set_network(network, now);
        }
    }
}

/// Waits for what a line hears.
async fn hear(line: Option<&Line>) -> Heard {
    match line.and_then(|line| line.sockets.as_ref()) {
        Some(sockets) => sockets.hear().await,
        None => std::future::pending().await,
    }
}

impl Line {
    const fn new(is_v6: bool, mapper: PortMapper) -> Self {
        Self {
            is_v6,
            mapper,
            network: None,
            sockets: None,
            is_closing: false,
            has_restarted: false,
        }
    }

    fn set_network(&mut self, network: Option<Network>, now: Instant) {
        if std::mem::take(&mut self.is_closing) {
            // It gave back what it had, and begins as if it were new.
            self.mapper.handle_network(None, now);
            self.network = None;
        }
        if network == self.network {
            return;
        }
        self.sockets = network.and_then(|network| match Sockets::open(&network) {
            Ok(sockets) => Some(sockets),
            Err(e) => {
                crate::debug!("can't ask {} for a port: {e}", network.gateway);
                None
            }
        });
        // Without a socket there is nobody to ask; the next look tries again.
        self.network = network.filter(|_| self.sockets.is_some());
        self.mapper.handle_network(self.network, now);
    }

    fn close(&mut self) {
        if !self.is_closing {
            self.is_closing = true;
            self.mapper.handle_close(clock::now());
        }
    }

    fn hear(&mut self, heard: Heard) {
        let now = clock::now();
        match heard {
            Heard::Datagram(from, bytes) => self.mapper.handle_datagram(from, &bytes, now),
            Heard::Unreachable => self.mapper.handle_unreachable(now),
            Heard::IgdRestart => self.mapper.handle_igd_restart(now),
            Heard::Nothing => {}
        }
    }

    /// Does what the machine says until it waits; returns until when.
    fn drain(&mut self, upnp: &mut Upnp) -> Instant {
        let mut buffer = [0; MAX_REQUEST_BYTES];
        loop {
            match self.mapper.poll_output(&mut buffer) {
                Output::Send { to, length } => {
                    let datagram = buffer.get(..length).unwrap_or(&[]);
                    let sent = self.sockets.as_ref().map(|sockets| sockets.send(datagram));
                    if let Some(Err(e)) = sent {
                        crate::debug!("a datagram to {to} was not sent: {e}");
                        if e.kind() == io::ErrorKind::ConnectionRefused {
                            self.mapper.handle_unreachable(clock::now());
                        }
                    }
                }
                Output::Ask(ask) => {
                    if let Some(IpAddr::V4(own)) = self.network.map(|n| n.internal.ip()) {
                        upnp.begin(ask, own);
                    }
                }
                Output::Tell(fact) => {
                    self.has_restarted |= fact == Fact::Restarted;
                    self.log(fact);
                }
                Output::Wait(until) => return until,
            }
        }
    }

    fn log(&self, fact: Fact) {
        let Some(gateway) = self.network.map(|network| network.gateway) else {
            return;
        };
        match fact {
            Fact::Mapped(Mapping { external, by, .. }) => {
                crate::debug!("the router {gateway} keeps {external} open, by {}", by.id());
            }
            Fact::DoubleNat(Mapping { external, by, .. }) => {
                let by = by.id();
                crate::debug!("the router {gateway} keeps {external} open, by {by}, behind a NAT");
            }
            Fact::Restarted => crate::debug!("the router {gateway} started anew"),
            Fact::Lost(why) => crate::debug!("the router {gateway} keeps no port open: {why}"),
        }
    }

    fn way(&self) -> Option<Way> {
        let mapping = self.mapper.mapping();
        let is_public =
            mapping.is_some_and(|held| altnet_core::portmap::is_public(held.external.ip()));
        (!self.is_closing).then_some(())?;
        Some(Way {
            network: self.network?,
            mapping,
            is_public,
            why: self.mapper.why(),
        })
    }
}

#[cfg(test)]
mod tests;
